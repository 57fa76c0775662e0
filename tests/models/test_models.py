"""Keys, sessions, events, options and points in time: what they accept, hold and compare as."""

from __future__ import annotations

import gc
import weakref
from collections.abc import Callable
from datetime import UTC, date, datetime, timedelta, timezone
from decimal import Decimal
from typing import Any

import msgspec
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from agentsession.clock import from_microseconds, system_clock, to_microseconds, utc_now
from agentsession.codec import decode_event, encode_event
from agentsession.events import (
    Data,
    Event,
    EventError,
    Media,
    Part,
    Reasoning,
    Text,
    ToolCall,
    ToolResult,
    new_id,
)
from agentsession.retention import Retention, positive, seconds
from agentsession.sessions import Session, SessionKey, SessionPage, UserKey

MOMENT = datetime(2026, 1, 2, 3, 4, 5, 678901, UTC)
DAY = 86_400
CENTURY = 36_500 * DAY


class Str(str):
    __slots__ = ()


@pytest.mark.parametrize(
    "wrong", [None, 1, b"a", ["a"], True, Str("a"), UserKey("a", "b")], ids=ascii
)
@pytest.mark.parametrize(
    ("make", "name"),
    [
        (lambda each: UserKey(each, "u"), "app_name"),
        (lambda each: UserKey("a", each), "user_id"),
        (lambda each: SessionKey(each, "u", "s"), "app_name"),
        (lambda each: SessionKey("a", each, "s"), "user_id"),
        (lambda each: SessionKey("a", "u", each), "session_id"),
    ],
    ids=["app of user", "user", "app of session", "user of session", "session"],
)
def test_an_id_is_a_str(make: Any, name: str, wrong: object) -> None:
    """Anything else is a TypeError with the field, the type and the value."""
    with pytest.raises(TypeError) as raised:
        make(wrong)
    told = f"{name} must be a str, not {type(wrong).__name__}: {wrong!r}"
    assert str(raised.value).startswith(told)


@pytest.mark.parametrize("kind", [UserKey, SessionKey])
def test_an_id_is_not_empty(kind: Any) -> None:
    """Only a session's own id may be, since it can be generated."""
    with pytest.raises(ValueError, match="app_name must not be empty"):
        kind("", "u")
    with pytest.raises(ValueError, match="user_id must not be empty"):
        kind("a", "")
    assert SessionKey("a", "u") == SessionKey("a", "u", "")


@pytest.mark.parametrize(
    "ids", [("ü\ud800", "u", "s"), ("a", "ü\udfff", "s"), ("a", "u", "ü\udc00")], ids=ascii
)
def test_an_id_is_unicode(ids: tuple[str, str, str]) -> None:
    """Half of a surrogate pair is a ValueError that says where."""
    with pytest.raises(ValueError, match="half of a surrogate pair at position 1, not valid"):
        SessionKey(*ids)


@pytest.mark.parametrize("odd", ["x" * 10_000, "日" * 10_000, ":", "{}", "*", "%", "\n", "\0", " "],
                         ids=lambda odd: ascii(odd[:2]))  # fmt: skip
def test_an_id_may_hold_anything_else(odd: str) -> None:
    """Ids are kept to the letter, whatever they hold and however long they are."""
    key = SessionKey(odd, odd, odd)
    assert (key.app_name, key.user_id, key.session_id) == (odd, odd, odd)
    assert key.user == UserKey(odd, odd)


def test_keys_are_values() -> None:
    """Equal keys are one key of a dict; keys of different kinds never are, and none can change."""
    assert len({SessionKey("a", "u", "s"), SessionKey("a", "u", "s"), SessionKey("a", "u")}) == 2
    assert len({UserKey("a", "u"), UserKey("a", "u"), UserKey("u", "a")}) == 2
    user: object = UserKey("a", "u")
    session: object = SessionKey("a", "u", "s")
    assert user != SessionKey("a", "u")
    assert session != ("a", "u", "s")
    assert not isinstance(SessionKey("a", "u"), UserKey)
    key: Any = SessionKey("a", "u", "s")
    with pytest.raises(AttributeError):
        key.session_id = "t"


def test_a_session_has_its_ids_beside_its_key() -> None:
    """The properties are those of the key; lists and dicts are not shared between sessions."""
    key = SessionKey("app", "user", "session")
    session, other = (
        Session(key=key, created_at=MOMENT, updated_at=MOMENT, revision=1) for _ in range(2)
    )
    assert (session.app_name, session.user_id, session.id) == ("app", "user", "session")
    session.state["a"] = 1
    session.events.append(Event(author="user"))
    assert (other.state, other.events, other.last_seq, other.incarnation) == ({}, [], 0, "")
    assert session != other


def test_a_page_is_the_last_one_by_default() -> None:
    """Without a cursor there is nothing more."""
    assert SessionPage(sessions=[]).next_cursor is None


def test_an_event_needs_an_author_only() -> None:
    """Everything else has a default; positional arguments are refused."""
    event = Event(author="user")
    empty = (event.content, event.invocation_id, event.branch)
    assert empty == ("", "", "")
    assert (event.partial, event.error, event.seq) == (False, None, 0)
    assert (event.state_delta, event.metadata) == ({}, {})
    make: Any = Event
    with pytest.raises(TypeError, match="author"):
        make()
    with pytest.raises(TypeError, match="positional"):
        make("user")


def test_ids_are_generated_and_differ() -> None:
    """Each is 128 random bits as 32 hexadecimal digits."""
    ids = {Event(author="user").id for _ in range(1000)} | {new_id() for _ in range(1000)}
    assert len(ids) == 2000
    assert all(len(each) == 32 and set(each) <= set("0123456789abcdef") for each in ids)


def test_times_are_generated_and_aware() -> None:
    """An event's time is the present, in UTC."""
    before = utc_now()
    moment = Event(author="user").timestamp
    assert before <= moment <= utc_now()
    assert moment.tzinfo is UTC


def test_events_never_change_and_share_nothing() -> None:
    """Fields cannot be set, and each event has dicts of its own."""
    event: Any = Event(author="user")
    with pytest.raises(AttributeError):
        event.author = "agent"
    event.metadata["a"] = event.state_delta["a"] = 1
    ToolCall("c", "f").arguments["a"] = 1
    fresh = Event(author="user")
    assert (fresh.metadata, fresh.state_delta, ToolCall("c", "f").arguments) == ({}, {}, {})


def described(part: Part) -> str:
    match part:
        case Text(text):
            return text
        case ToolCall(call_id, name, arguments):
            return f"{call_id}: {name}({arguments})"
        case ToolResult(call_id, result, name, is_error):
            return f"{call_id}: {name} = {result}{'!' if is_error else ''}"
        case Data(data, media_type):
            return f"{media_type}: {data}"
        case Reasoning(text):
            return f"({text})"
        case Media(media_type, uri):
            return f"{media_type} at {uri}"


def test_parts_are_narrowed_by_match() -> None:
    """Each part is taken apart by position, in the order that its class documents."""
    parts: list[Part] = [
        Text("hi"), ToolCall("c", "f", [1]), ToolResult("c", 2, "f", is_error=True), Data({}, "m"),
        Reasoning("hm"), Media("a/b", "x:y"),
    ]  # fmt: skip
    assert [described(part) for part in parts] == [
        "hi", "c: f([1])", "c: f = 2!", "m: {}", "(hm)", "a/b at x:y",
    ]  # fmt: skip
    call: object = ToolCall("c", "f")
    assert call != ToolResult("c", name="f")
    assert EventError("m") == EventError(message="m", type="")


def test_parts_have_tags_that_stay() -> None:
    """The tags are the stored format."""
    tags = [kind.__struct_config__.tag for kind in (Text, ToolCall, ToolResult, Data, Event)]
    assert tags == ["text", "tool_call", "tool_result", "data", 1]
    assert Event.__struct_config__.tag_field == "v"


class Holder(list[object]):
    """Anything of the user's that refers to what it is in."""


def decoded_event_with(it: object) -> Event:
    event = decode_event(encode_event(Event(author="a")))
    event.metadata["x"] = it
    return event


@pytest.mark.parametrize(
    "hold",
    [
        lambda it: Event(author="a", state_delta={"temp:x": it}),
        lambda it: Event(author="a", metadata={"x": it}),
        lambda it: Event(author="a", content=it),
        decoded_event_with,
        Text,
        lambda it: ToolCall("c", "f", it),
        lambda it: ToolResult("c", {"x": it}),
        Data,
        EventError,
    ],
    ids=["delta", "metadata", "content", "decoded", "Text", "call", "result", "Data", "error"],
)
def test_a_cycle_through_an_event_is_collected(hold: Callable[[Any], object]) -> None:
    """An object that an event or a part holds, and that refers back to it, is not kept for ever."""
    holder = Holder()
    holder.append(hold(holder))
    gone = weakref.ref(holder)
    del holder
    gc.collect()
    assert gone() is None


def test_words_alone_are_left_out_of_garbage_collection() -> None:
    """A part and an error of plain words cost a full collection nothing."""
    assert not any(map(gc.is_tracked, (Text("hi"), EventError("m", "t"), ToolResult("c", 1, "f"))))


def retention(**options: Any) -> Retention:
    defaults = {
        "session_event_limit": None,
        "session_ttl": None,
        "app_state_ttl": None,
        "user_state_ttl": None,
        "refresh_ttl_on_read": False,
    }
    return Retention.of(**defaults | options)


TTLS = ("session_ttl", "app_state_ttl", "user_state_ttl")


@pytest.mark.parametrize("never", [None, 0, 0.0, -0.0, timedelta(0)], ids=ascii)
def test_none_and_nothing_mean_never(never: Any) -> None:
    """A life of no length is not wanted by anybody; it stands for one without an end."""
    assert seconds("timeout", never) is None
    kept = retention(**dict.fromkeys(TTLS, never))
    assert kept == Retention()
    assert not kept.expires


@pytest.mark.parametrize("name", TTLS)
@pytest.mark.parametrize(
    ("duration", "milliseconds"),
    [
        (1, 1000),
        (0.5, 500),
        (timedelta(days=3), 3 * DAY * 1000),
        (timedelta(days=1, milliseconds=1), DAY * 1000 + 1),
        (timedelta(microseconds=1), 1),
        (timedelta(milliseconds=1, microseconds=1), 2),
        (0.0001, 1),
        (0.0011, 2),
        (5e-324, 1),
        (CENTURY, CENTURY * 1000),
        (timedelta(days=36_500), CENTURY * 1000),
    ],
    ids=ascii,
)
def test_lives_are_whole_milliseconds_rounded_up(
    name: str, duration: Any, milliseconds: int
) -> None:
    """Redis counts in them; nothing lives shorter than was asked, and each option is its own."""
    kept = retention(**{name: duration})
    assert getattr(kept, name) == milliseconds
    assert sum(getattr(kept, each) for each in TTLS) == milliseconds
    assert kept.expires


@given(st.integers(1, CENTURY * 1000))
@example(2007)
@example(16_100)
def test_a_timedelta_of_whole_milliseconds_is_exact(milliseconds: int) -> None:
    """No detour through floating point makes it longer."""
    kept = retention(session_ttl=timedelta(milliseconds=milliseconds))
    assert kept.session_ttl == milliseconds


@pytest.mark.parametrize(
    "wrong",
    [
        -1, -5e-324, timedelta(microseconds=-1), float("nan"), float("inf"), float("-inf"),
        CENTURY + 1, CENTURY + 0.001, timedelta(days=36_500, microseconds=1), timedelta.max,
        timedelta.min, 10**400,
    ],
    ids=lambda wrong: ascii(wrong)[:40],
)  # fmt: skip
@pytest.mark.parametrize("name", TTLS)
def test_a_life_out_of_range_is_refused(name: str, wrong: Any) -> None:
    """Negative, endless, no number, or over 100 years: a ValueError with the option's name."""
    with pytest.raises(ValueError, match=f"{name} must be from 0 .* to 100 years in seconds"):
        retention(**{name: wrong})


@pytest.mark.parametrize("wrong", ["60", b"1", [1], Decimal(1), date(2026, 1, 1), 1j], ids=ascii)
@pytest.mark.parametrize("name", TTLS)
def test_a_life_is_a_number_or_a_timedelta(name: str, wrong: Any) -> None:
    """Anything else is a TypeError with the option's name and what was given."""
    with pytest.raises(TypeError, match=f"{name} must be seconds or a timedelta, not ") as raised:
        retention(**{name: wrong})
    assert repr(wrong) in str(raised.value)


@pytest.mark.parametrize("wrong", [True, False])
def test_a_life_is_no_bool(wrong: bool) -> None:
    """Switching expiry on says nothing of its length, and is not a second."""
    with pytest.raises(TypeError, match="session_ttl must be seconds or a timedelta, not bool"):
        retention(session_ttl=wrong)


@pytest.mark.parametrize("wrong", ["no", 1, None], ids=ascii)
def test_refreshing_is_a_bool(wrong: Any) -> None:
    """A word such as "no" would be true."""
    with pytest.raises(TypeError, match="refresh_ttl_on_read"):
        retention(refresh_ttl_on_read=wrong)


def test_the_event_limit_counts_from_one() -> None:
    """None is no limit; 0 is a mistake, since it could mean either; stores count to 2**53."""
    assert retention(session_event_limit=None).event_limit == 0
    assert retention(session_event_limit=1).event_limit == 1
    for low in (0, -1):
        with pytest.raises(ValueError, match="session_event_limit must be 1 or more, not "):
            retention(session_event_limit=low)
    no_ints: list[Any] = [True, 1.0, "1", Decimal(1), timedelta(1)]
    for wrong in no_ints:
        with pytest.raises(TypeError, match="session_event_limit must be an int, not "):
            retention(session_event_limit=wrong)
    assert positive("n", 2**53 - 1) == positive("n", 2**70) == 2**53 - 1


def test_retention_is_a_value() -> None:
    """Equal options are equal, can be looked up, and never change."""
    assert retention(session_ttl=1) == retention(session_ttl=timedelta(seconds=1))
    assert len({retention(session_ttl=1), retention(session_ttl=1.0), retention()}) == 2
    kept: Any = retention()
    with pytest.raises(AttributeError):
        kept.event_limit = 5
    assert retention(refresh_ttl_on_read=True).refresh_on_read


YEARS = st.datetimes(min_value=datetime(1970, 1, 1), max_value=datetime.max)  # noqa: DTZ001, DTZ901


@given(YEARS)
@example(datetime(9999, 12, 31, 23, 59, 59, 999999))  # noqa: DTZ001
@example(datetime(1970, 1, 1))  # noqa: DTZ001
def test_conversions_are_exact(moment: datetime) -> None:
    """Every microsecond from 1970 to 9999 comes back, in UTC."""
    moment = moment.replace(tzinfo=UTC, fold=0)
    there = to_microseconds(moment)
    assert type(there) is int
    back = from_microseconds(there)
    assert (back, back.tzinfo) == (moment, UTC)
    if moment < datetime.max.replace(tzinfo=UTC):
        assert to_microseconds(moment + timedelta(microseconds=1)) == there + 1


@pytest.mark.parametrize(
    ("moment", "microseconds"),
    [
        (datetime(1970, 1, 1, tzinfo=UTC), 0),
        (datetime(1970, 1, 1, 0, 0, 0, 1, UTC), 1),
        (datetime(2001, 9, 9, 1, 46, 40, 123456, UTC), 1_000_000_000_123_456),
        (datetime(9999, 12, 31, 23, 59, 59, 999999, UTC), 253_402_300_799_999_999),
        (datetime(1970, 1, 1, 2, tzinfo=timezone(timedelta(hours=2))), 0),
        (datetime(1969, 12, 31, 23, 59, 59, 999999, UTC), -1),
    ],
    ids=str,
)
def test_points_in_time_are_counted_from_1970(moment: datetime, microseconds: int) -> None:
    """In whole microseconds of UTC, whatever the zone."""
    assert to_microseconds(moment) == microseconds
    assert from_microseconds(microseconds) == moment


def test_the_clock_and_the_present_agree() -> None:
    """One counts what the other shows."""
    before, present, after = system_clock(), to_microseconds(utc_now()), system_clock()
    assert before <= present <= after


def test_models_survive_replace_and_repr() -> None:
    """A changed copy is made with msgspec; a repr names all fields."""
    event = Event(author="user", content="hi")
    assert msgspec.structs.replace(event, seq=3).content == "hi"
    assert "content='hi'" in repr(event)
    assert repr(SessionKey("a", "u", "s")) == (
        "SessionKey(app_name='a', user_id='u', session_id='s')"
    )
