"""URLs that are garbage: a ValueError that helps, or a service whose calls fail with our errors."""

from __future__ import annotations

from contextlib import suppress
from typing import Any

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from agentsession import RedisSessionService, SessionKey
from agentsession.errors import AgentSessionError

KEY = SessionKey("app", "user", "session")

SCHEMES = st.sampled_from(
    ["redis", "rediss", "unix", "redis+sentinel", "rediss+sentinel", "redis+cluster", "REDIS",
     "http", "valkey", "", "redis ", "\x00", "é", "\ud800", "redis+", "+cluster"]
)  # fmt: skip
# What means something in a URL, what does not belong there, and numbers out of their range.
PIECES = st.sampled_from(
    ["://", ":", "/", "//", "@", "?", "#", "&", "=", ",", "[", "]", "[::1]", "[::", "%", "%zz",
     "%00", "%ff", "%2F", "..", "host", "127.0.0.1", "user:word@", ":word@", "6379", "99999", "-1",
     "0x10", "٣", "1" * 5000, "é", "\u2488", "\ud800", "\0", "\n", " ", "x" * 300, "db", "db=x",
     "max_connections", "socket_timeout=x", "protocol=9", "/mymaster",
     "/0", "/-1", "?db=99999999999999999999"]
)  # fmt: skip
GARBAGE = st.one_of(
    st.text(max_size=30),
    st.builds(lambda *parts: "".join(parts), SCHEMES, st.just("://") | PIECES, st.text(max_size=9)),
    st.builds(lambda scheme, parts: f"{scheme}://{''.join(parts)}", SCHEMES, st.lists(PIECES)),
)


def taken_or_refused(url: str, **options: Any) -> RedisSessionService | ValueError:
    try:
        return RedisSessionService.from_url(url, **options)
    except ValueError as exc:
        return exc


@settings(derandomize=True, max_examples=1500, deadline=None)
@given(GARBAGE)
def test_garbage_is_refused_or_taken(url: str) -> None:
    """At once, with a word about the form that it should have; nothing is connected here."""
    made = taken_or_refused(url)
    if isinstance(made, ValueError):
        assert type(made) is ValueError
        assert "redis" in str(made)
        assert len(str(made)) < 500
    else:
        assert "unused" in repr(made) or "Cluster" in repr(made)


@pytest.mark.parametrize(
    "wrong", [5, b"redis://localhost", ["redis://localhost"], object()], ids=["5", "b", "[]", "o"]
)
def test_a_url_is_a_string(wrong: Any) -> None:
    """Anything else is a TypeError."""
    with pytest.raises(TypeError, match="URL must be a string, not "):
        RedisSessionService.from_url(wrong)


NAMES = st.sampled_from(
    ["db", "protocol", "encoding", "encoding_errors", "client_name", "lib_name", "retry", "ssl",
     "retry_on_error", "retry_on_timeout", "health_check_interval", "socket_timeout", "path",
     "host", "socket_connect_timeout", "username", "password", "connection_class", "parser_class",
     "credential_provider", "decode_responses", "event_dispatcher", "himself", "__class__", ""]
)  # fmt: skip
VALUES = st.sampled_from(
    ["", "0", "1", "-1", "3", "1.5", "x", "None", "True", "99999999999999999999", "%00", "%ff", "é",
     "utf-16", "nan", "inf", "[]", "/nowhere"]
)  # fmt: skip
OPTIONS = st.lists(st.tuples(NAMES, VALUES), max_size=3).map(
    lambda pairs: "&".join(f"{name}={value}" for name, value in pairs)
)


# redis-py warns of options that it will give up.
@pytest.mark.filterwarnings("ignore:Call to .* with deprecated usage:DeprecationWarning")
@settings(
    derandomize=True,
    max_examples=120,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
@given(st.booleans(), OPTIONS)
@example(there=False, options="retry=0")
@example(there=True, options="db=99999999999999999999")
@example(there=True, options="encoding=x&db=1")
@example(there=True, options="max_connections=0")
async def test_options_that_are_garbage_end_in_our_errors(
    valkey_url: str, there: bool, options: str
) -> None:
    """Whatever redis-py makes of them, and whether a server is there or not."""
    place = valkey_url if there else "unix:///nowhere/at/all"
    service = taken_or_refused(f"{place}?{options}", timeout=0.3)
    if isinstance(service, ValueError):
        return
    async with service:
        with suppress(AgentSessionError):
            assert await service.get_session(KEY) is None


@pytest.mark.parametrize(
    "place", ["redis://127.0.0.1:1", "rediss://127.0.0.1:1", "redis://[::1]:1", "redis://\ud800",
              "redis://127.0.0.1:1\u2488", "redis://exa\0mple", f"redis://{'x' * 300}.invalid",
              "redis://.", "redis://a..b", "unix://", "unix:///", "unix:///a%00b", "unix:///a\0b",
              f"unix:///{'x' * 300}"],
    ids=ascii,
)  # fmt: skip
async def test_places_where_nothing_is(place: str) -> None:
    """No such port, name, socket or encoding of a name."""
    service = taken_or_refused(place, timeout=0.5)
    if isinstance(service, ValueError):
        return
    async with service:
        with pytest.raises(AgentSessionError):
            await service.get_session(KEY)
