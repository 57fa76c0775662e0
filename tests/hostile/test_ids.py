"""Ids as an attacker would choose them: keys tell them apart, and nobody reaches another's data."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Iterator
from urllib.parse import unquote

import pytest
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st

from agentsession import Event, SessionKey, UserKey
from agentsession.errors import SessionNotFoundError
from agentsession.redis._keys import Keyspace
from agentsession.testing import MemorySubject, Subject
from harness.files import SQLiteSubject
from harness.subjects import RedisSubject

# What means something in keys, in patterns, in escapes and on the wire, and letters to put between;
# few of them, so that two keys often differ by a character's place alone.
ODD = st.text(":{}%*?[]3AD7Bab \n\r\0\x1fé\u2028😀", min_size=1, max_size=5)
LONG = st.builds(lambda part, times: part * times, ODD, st.integers(1, 2000))
IDS = ODD | ODD | LONG | st.sampled_from(["app:", "user:", "session:{a:b}:c", "%3A", "check", "}:"])
KEYS = st.builds(SessionKey, IDS, IDS, IDS)


@st.composite
def neighbours(draw: st.DrawFn) -> tuple[SessionKey, SessionKey]:
    """Make two keys; without escaping the second would often be the first, cut in other places."""
    one = draw(KEYS)
    words = f"{one.app_name}:{one.user_id}:{one.session_id}"
    first, last = sorted(draw(st.tuples(*[st.integers(1, len(words) - 1)] * 2)))
    parts = (words[:first], words[first:last].strip(":"), words[last:].removeprefix(":"))
    other = draw(st.just(parts) | st.tuples(IDS, IDS, IDS))
    assume(all(other) and SessionKey(*other) != one)
    return one, SessionKey(*other)


def read_back(key: str) -> tuple[str, ...]:
    """Read a key as what made it: its kind, and the ids in it. Only an injection can be undone."""
    found = re.fullmatch(r"([a-z]+):\{([^{}]*)\}(?::([^:{}]*))?", key, re.DOTALL)
    assert found, key
    kind, tag, session_id = found.groups()
    ids = [*tag.split(":"), *([] if session_id is None else [session_id])]
    assert all(re.fullmatch(r"(?:[^%]|%(?:25|3A|7B|7D))*", each, re.DOTALL) for each in ids)
    return (kind, *(unquote(each, errors="strict") for each in ids))


@settings(derandomize=True, max_examples=500, deadline=None)
@given(KEYS)
def test_a_key_can_be_read_back(key: SessionKey) -> None:
    """So each belongs to one session, user or application, and the hash tag is its user's."""
    keyspace = Keyspace()
    names = keyspace.session(key)
    app, user, session_id = key.app_name, key.user_id, key.session_id
    assert read_back(names.session) == ("session", app, user, session_id)
    assert read_back(names.events) == ("events", app, user, session_id)
    assert read_back(names.ids) == ("eventids", app, user, session_id)
    assert read_back(names.index) == ("sessions", app, user)
    assert read_back(names.user) == ("userdata", app, user)
    assert (keyspace.index(key.user), keyspace.user(key.user)) == (names.index, names.user)
    assert read_back(keyspace.app(app)) == ("appdata", app)
    # A cluster hashes what stands between the first "{" and the next "}".
    tags = {name.partition("{")[2].partition("}")[0] for name in (*names.own, names.index)}
    assert len(tags) == 1
    for scratch in keyspace.scratch("n"):
        assert scratch not in (*names.own, names.index, names.user, keyspace.app(app))


@pytest.fixture(scope="module", params=["memory", "sqlite", "valkey"])
def stage(request: pytest.FixtureRequest) -> Iterator[tuple[asyncio.Runner, Subject]]:
    with asyncio.Runner() as runner:
        if request.param == "memory":
            subject: Subject = MemorySubject()
        elif request.param == "sqlite":
            subject = SQLiteSubject()
        else:
            subject = RedisSubject(request.getfixturevalue("valkey_url"))
        yield runner, subject
        runner.run(subject.__aexit__())


@settings(
    derandomize=True,
    max_examples=150,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.differing_executors],
)
@given(neighbours(), st.dictionaries(IDS, IDS, max_size=3), IDS)
def test_neighbours_do_not_meet(
    stage: tuple[asyncio.Runner, Subject],
    keys: tuple[SessionKey, SessionKey],
    state: dict[str, str],
    word: str,
) -> None:
    """Whatever two sessions are called, each has its own, and loses only its own."""
    runner, subject = stage
    runner.run(_live_apart(subject, *keys, state, word))


async def _live_apart(
    subject: Subject, one: SessionKey, other: SessionKey, state: dict[str, str], word: str
) -> None:
    state = {f"x{name}": value for name, value in state.items()}
    service = subject.service()
    for number, key in enumerate((one, other)):
        await service.create_session(key, state | {"n": number, f"user:{number}": 1})
        event = Event(author=word, content=f"{number}{word}", id=word, branch=word)
        assert (await service.append_event(key, event)).seq == 1
    for number, key in enumerate((one, other)):
        session = await service.get_session(key)
        assert session is not None
        users = {f"user:{each}": 1 for each in (0, 1) if (one, other)[each].user == key.user}
        assert session.state == state | {"n": number} | users
        assert [event.content for event in session.events] == [f"{number}{word}"]
        assert [event.id for event in await service.get_events(key, around=word)] == [word]
        listed = await service.list_sessions(key.user)
        assert {each.key for each in listed.sessions} == {
            each for each in (one, other) if each.user == key.user
        }
    await service.delete_user(one.user)
    assert (await service.get_session(other) is None) == (one.user == other.user)
    try:
        assert len(await service.get_events(one)) == 1
    except SessionNotFoundError:
        pass
    else:
        pytest.fail("a user was erased, and a session is there")
    await service.delete_user(other.user)
    assert (await service.list_sessions(other.user)).sessions == []
    await service.aclose()


@pytest.mark.parametrize("half", ["\ud800", "a\udfffb"], ids=ascii)
def test_half_a_character_is_refused(half: str) -> None:
    """UTF-8 has no form for it; a key made of it would fail on its way."""
    for ids in ((half, "u", "s"), ("a", half, "s"), ("a", "u", half)):
        with pytest.raises(ValueError, match="half of a surrogate pair"):
            SessionKey(*ids)
    with pytest.raises(ValueError, match="half of a surrogate pair"):
        UserKey("a", half)
    with pytest.raises(ValueError, match="half of a surrogate pair"):
        Keyspace(half)


@pytest.mark.parametrize("wrong", [5, b"p:", None], ids=ascii)
def test_a_prefix_is_a_string(wrong: object) -> None:
    """Anything else is refused when the service is made, and not at its first call."""
    with pytest.raises(TypeError, match="key_prefix must be a str, not "):
        Keyspace(wrong)  # type: ignore[arg-type]  # the mistake
