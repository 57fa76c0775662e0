"""The stored format of events: the golden file, round trips, refusals and damage."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta, timezone, tzinfo
from decimal import Decimal
from pathlib import Path
from typing import Any
from uuid import UUID
from zoneinfo import ZoneInfo

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from agentsession.codec import FORMAT_VERSION, decode_event, decode_events, encode_event
from agentsession.errors import StateValueError
from agentsession.events import (
    Data,
    Event,
    EventError,
    Media,
    Reasoning,
    Rewind,
    Text,
    ToolCall,
    ToolResult,
)
from agentsession.state import DELETE

GOLDEN = (Path(__file__).parent / "golden" / "event-v1.jsonl").read_bytes().splitlines()
# For arguments that no type checker would let pass.
NONE: Any = None
ONE: Any = 1
FIVE: Any = 5
BYTES: Any = b"bytes"
UNIQUE: Any = UUID(int=1)
MOMENT = datetime(2026, 1, 2, 3, 4, 5, 678901, UTC)


def event(**fields: Any) -> Event:
    defaults: dict[str, Any] = {"id": "e", "timestamp": MOMENT, "author": "user"}
    return Event(**defaults | fields)


# What each line of the golden file means. Lines are only ever added; none is ever changed.
MEANT = [
    event(content="Hello, world"),
    event(author="agent"),
    event(author="agent", content=[]),
    event(author="agent", content=[Text("Let me look."), Text("")]),
    event(
        author="agent",
        content=[
            ToolCall("call-1", "search", {"query": "flights", "limit": 3, "dates": [None, True]}),
            ToolCall("call-2", "search", '{"query": "fl\\u0069ghts"}'),
            ToolCall("call-3", "now"),
        ],
    ),
    event(
        author="tool",
        content=[
            ToolResult("call-1", [{"id": 1, "price": 99.5}], "search"),
            ToolResult("call-2", "no such place", "search", is_error=True),
            ToolResult("call-3"),
        ],
    ),
    event(content=[Data({"form": {"seat": "12A"}}, "application/json"), Data(None), Data([])]),
    Event(
        id="every-field",
        timestamp=MOMENT,
        author="planner",
        invocation_id="turn-7",
        branch="planner.researcher",
        content=[Text("Half"), ToolCall("c", "f", [1])],
        partial=True,
        state_delta={"n": 1},
        metadata={"model": "m-1", "usage": {"in": 12, "out": 3.5}},
        error=EventError("the tool failed", "TimeoutError"),
        seq=42,
    ),
    event(
        state_delta={
            "a": None,
            "user:b": b"\x00\x01\xff",
            "app:c": DELETE,
            "d": b"",
            "e": {"$bytes": "AAE="},
            "f": {"$delete": True},
            "g": {"$json": {"$json": 1}},
            "h": {"$bytes": "AAE=", "more": 1},
            "i": [{"$delete": True}],
            "j": {"$other": {}},
            "k": "$bytes",
        }
    ),
    event(author="agent", error=EventError("boom")),
    event(
        id="id-ü",
        author="Zoë",
        invocation_id="日本",
        branch="a.ß",
        content='\U0001f600 e\u0301 \u2028 \x00\x1f\x7f "quoted" back\\slash / \n\r\t שלום',
        state_delta={"ключ": "значение"},
        metadata={"": ["\uffff\U0010ffff"]},
        error=EventError("não"),
    ),
    event(
        metadata={
            "numbers": [
                0,
                -1,
                1.0,
                -0.0,
                5e-324,
                1.7976931348623157e308,
                2**53 + 1,
                2**64,
                -(2**70),
            ]
        }
    ),
    event(timestamp=datetime(1, 1, 1, tzinfo=UTC)),
    event(timestamp=datetime(9999, 12, 31, 23, 59, 59, 999999, UTC)),
    event(timestamp=datetime(2026, 1, 2, tzinfo=UTC)),
    event(
        author="agent",
        content=[
            Reasoning("First the flights.", {"signature": "c2ln"}),
            Reasoning(provider_data={"id": "rs_1", "encrypted_content": "AAE="}),
            Reasoning(),
            Text("Let me look.", ["seen"]),
            ToolCall("call-1", "search", {}, {"thought_signature": "AAE="}),
        ],
    ),
    event(
        content=[
            Media("image/png", "https://example.org/a.png", name="a.png"),
            Media("audio/wav", data="UklGRg=="),
            Media("application/pdf", provider_data={"file_id": "file-1"}),
        ]
    ),
    event(
        state_delta={"j": {"$other": {}}, "k": {"$": 1}, "l": {"other": 1}, "m": {"$": 1, "n": 2}}
    ),
    event(author="agent", invocation_id="turn", outcome="completed"),
    event(author="system", rewind=Rewind(3, restores_state=False)),
    event(author="system", rewind=Rewind(0)),
]
# Holds an object of one key, ``$other``, as it was written before all of these were wrapped.
UNWRAPPED = 8


def same(one: Event, other: Event) -> bool:
    """Equal, and of the same types all the way down, which repr tells."""
    return one == other and repr(one) == repr(other)


def test_the_golden_file_is_whole() -> None:
    """It has a line for each meaning, all of version 1."""
    assert len(GOLDEN) == len(MEANT)
    assert FORMAT_VERSION == 1
    assert all(line.startswith(b'{"v":1,') for line in GOLDEN)


@pytest.mark.parametrize("size", [10, 300_000])
def test_a_run_is_read_as_its_events_are(size: int) -> None:
    """Small events are decoded together and large ones one by one, with one result."""
    run = [encode_event(event(content=str(n) * size, state_delta={"b": b"x"})) for n in range(3)]
    assert decode_events(run, range(7, 10)) == [
        decode_event(data, 7 + n) for n, data in enumerate(run)
    ]
    for damaged in (b"", b"[]", run[1][:-1], run[1] + b"," + run[1], b'{"author":"a"}'):
        with pytest.raises(ValueError, match=r"."):
            decode_events([run[0], damaged, run[2]], [1, 2, 3])


@pytest.mark.parametrize("number", range(len(MEANT)))
def test_todays_reader_reads_what_version_1_wrote(number: int) -> None:
    """A stored event means today what it meant then."""
    assert same(decode_event(GOLDEN[number]), MEANT[number])


@pytest.mark.parametrize("number", [n for n in range(len(MEANT)) if n != UNWRAPPED])
def test_todays_writer_writes_the_same_bytes(number: int) -> None:
    """The format has not drifted, so that older readers understand today's events."""
    assert encode_event(MEANT[number]) == GOLDEN[number]


def test_the_store_gives_the_position() -> None:
    """The position is the reader's to say; without one, that in the bytes stays."""
    assert decode_event(GOLDEN[0], 7).seq == 7
    assert decode_event(GOLDEN[0]).seq == 0
    assert decode_event(GOLDEN[7]).seq == 42
    assert decode_event(GOLDEN[7], 43) == msgspec.structs.replace(MEANT[7], seq=43)


def test_a_position_and_a_delta_are_read_together() -> None:
    """The position does not keep the delta from being unwrapped."""
    number = next(n for n, each in enumerate(MEANT) if "user:b" in each.state_delta)
    assert decode_event(GOLDEN[number], 3) == msgspec.structs.replace(MEANT[number], seq=3)


@pytest.mark.parametrize("number", range(len(MEANT)))
def test_unknown_fields_of_a_newer_writer_are_ignored(number: int) -> None:
    """A newer minor version may add fields anywhere; what we know is read as before."""

    def with_more(value: Any) -> Any:
        return value | {"added": {"later": [1]}}

    stored = msgspec.json.decode(GOLDEN[number])
    if isinstance(stored.get("content"), list):
        stored["content"] = [with_more(part) for part in stored["content"]]
    if "error" in stored:
        stored["error"] = with_more(stored["error"])
    assert same(decode_event(msgspec.json.encode(with_more(stored))), MEANT[number])


@pytest.mark.parametrize("line", [GOLDEN[0], GOLDEN[7]], ids=["small", "large"])
def test_a_newer_version_is_an_error_that_says_so(line: bytes) -> None:
    """A process that was not upgraded is told what is wrong, and reads nothing into it."""
    with pytest.raises(ValueError, match="newer") as raised:
        decode_event(line.replace(b'"v":1', b'"v":2', 1))
    assert "2" in str(raised.value)


@pytest.mark.parametrize("version", [b"0", b"-1", b"3", b"1.5", b'"1"', b"null", b"9" * 30])
def test_only_version_1_is_read(version: bytes) -> None:
    """Whatever else the tag holds is a ValueError, also behind the other fields."""
    for data in (
        GOLDEN[0].replace(b'"v":1', b'"v":' + version, 1),
        GOLDEN[0].replace(b'"v":1,', b"", 1).removesuffix(b"}") + b',"v":' + version + b"}",
    ):
        with pytest.raises(ValueError, match=r"`\$\.v`|format|no event of ours"):
            decode_event(data)


@pytest.mark.parametrize("field", ["v", "id", "timestamp", "author"])
def test_bytes_without_a_field_that_is_always_written_are_none_of_ours(field: str) -> None:
    """A reader never makes up an id or a time, which would differ at each reading."""
    stored = msgspec.json.decode(GOLDEN[0])
    del stored[field]
    with pytest.raises(ValueError, match=f"no event of ours|{field}"):
        decode_event(msgspec.json.encode(stored))


@pytest.mark.parametrize("number", range(len(MEANT)))
def test_a_cut_event_is_an_error(number: int) -> None:
    """However few bytes are missing, what is left is no event."""
    line = GOLDEN[number]
    for end in range(len(line)):
        with pytest.raises(ValueError, match=r"."):
            decode_event(line[:end])


@pytest.mark.parametrize("tail", [b"}", b"x", b"\x00", b",", b"{}", GOLDEN[0]], ids=ascii)
def test_bytes_behind_an_event_are_an_error(tail: bytes) -> None:
    """Two events in one are none."""
    with pytest.raises(ValueError, match=r"."):
        decode_event(GOLDEN[0] + tail)


@given(st.binary())
def test_random_bytes_are_a_value_error(data: bytes) -> None:
    """Nothing but a ValueError comes of bytes that are no event."""
    with pytest.raises(ValueError, match=r"."):
        decode_event(data)


@given(st.sampled_from(GOLDEN), st.data())
def test_a_damaged_event_is_an_event_or_a_value_error(line: bytes, data: st.DataObject) -> None:
    """Whichever bytes are overwritten, nothing but a ValueError escapes."""
    start = data.draw(st.integers(0, len(line) - 1))
    end = data.draw(st.integers(start, len(line)))
    try:
        found = decode_event(line[:start] + data.draw(st.binary(max_size=8)) + line[end:])
    except ValueError:
        return
    assert isinstance(found, Event)


@pytest.mark.parametrize(
    "value",
    [
        b'{"$bytes":"A"}', b'{"$bytes":"AA=A"}', b'{"$bytes":"A A="}', b'{"$bytes":"A*AA="}',
        b'{"$bytes":5}', b'{"$bytes":null}', b'{"$bytes":"\xc3\xa4"}',
        b"[" * 50_000 + b"]" * 50_000, b"9" * 5000, b"1e999", b"NaN",
        b'"\\ud800"', b'"\xff"', b'"\\ud800\\u0041"',
    ],
    ids=lambda value: ascii(value[:20]),
)  # fmt: skip
def test_a_damaged_delta_is_a_value_error(value: bytes) -> None:
    """Bytes, numbers and nesting that no writer of ours made are refused."""
    data = GOLDEN[0].removesuffix(b"}") + b',"state_delta":{"a":' + value + b"}}"
    with pytest.raises(ValueError, match=r"."):
        decode_event(data)


class Nowhere(tzinfo):
    """A zone that does not know its offset: Python calls such a time naive."""

    def utcoffset(self, _: datetime | None) -> None:
        return None

    dst = tzname = utcoffset


@pytest.mark.parametrize(
    ("fields", "named"),
    [
        ({"author": 1}, "author"),
        ({"author": None}, "author"),
        ({"author": ""}, "author"),
        ({"id": ""}, "id"),
        ({"id": 5}, "id"),
        ({"invocation_id": None}, "invocation_id"),
        ({"branch": ["a"]}, "branch"),
        ({"content": None}, "content"),
        ({"content": 5}, "content"),
        ({"content": {"type": "text", "text": "a"}}, "content"),
        ({"content": [ToolCall("", "f")]}, r"content\[0\].call_id"),
        ({"content": [Text("a"), ToolResult("")]}, r"content\[1\].call_id"),
        ({"content": [Text(NONE)]}, r"content\[0\].text"),
        ({"content": [ToolCall("c", FIVE)]}, r"content\[0\].name"),
        ({"content": [ToolResult("c", is_error=ONE)]}, r"content\[0\].is_error"),
        ({"content": [Data({}, NONE)]}, r"content\[0\].media_type"),
        ({"content": [Media("")]}, r"content\[0\].media_type"),
        ({"content": [Media("a/b", "x:y", "AAE=")]}, r"content\[0\] has both"),
        ({"content": [Reasoning(FIVE)]}, r"content\[0\].text"),
        ({"partial": 1}, "partial"),
        ({"metadata": None}, "metadata"),
        ({"metadata": [1]}, "metadata"),
        ({"metadata": []}, "metadata"),
        ({"state_delta": None}, "state_delta"),
        ({"error": "boom"}, "error"),
        ({"error": EventError(FIVE)}, "error.message"),
        ({"seq": "1"}, "seq"),
        ({"seq": True}, "seq"),
        ({"timestamp": datetime(2026, 1, 1)}, "timestamp"),  # noqa: DTZ001 - the mistake
    ],
    ids=lambda value: None if isinstance(value, str) else ascii(value)[:50],
)
def test_a_field_of_the_wrong_type_is_refused(fields: dict[str, Any], named: str) -> None:
    """What a reader could not read is not written; the error names the event and the field."""
    with pytest.raises(ValueError, match=named) as raised:
        encode_event(event(**{"id": "my-id"} | fields))
    if "id" not in fields:
        assert "'my-id'" in str(raised.value)


@pytest.mark.parametrize("value", ["2026-01-01", 5.0, None], ids=ascii)
def test_what_is_no_datetime_is_refused_by_name(value: object) -> None:
    """The error is about the timestamp, not about an attribute inside the library."""
    with pytest.raises(ValueError, match="timestamp"):
        encode_event(event(timestamp=value))


@pytest.mark.parametrize("value", [[1], "a", {1: 2}], ids=ascii)
def test_what_is_no_state_delta_is_refused_by_name(value: object) -> None:
    """The error is about the state delta, not about an attribute inside the library."""
    with pytest.raises(ValueError, match=r"state_delta|name must be a str"):
        encode_event(event(state_delta=value))


def test_a_time_without_an_offset_is_naive() -> None:
    """A zone that cannot say its offset does not make a time aware."""
    with pytest.raises(ValueError, match="timestamp"):
        encode_event(event(timestamp=datetime(2026, 1, 1, tzinfo=Nowhere())))


@pytest.mark.parametrize(
    "fields",
    [
        {"content": b"bytes"},
        {"content": (Text("a tuple"),)},
        {"content": {Text("a set")}},
        {"content": (Data({1}),)},
        {"content": MOMENT},
        {"content": [Text(BYTES)]},
        {"content": [ToolCall(UNIQUE, "f")]},
        {"id": UUID(int=1)},
        {"author": b"bytes"},
        {"invocation_id": UUID(int=1)},
        {"branch": Decimal(1)},
        {"error": {"message": "a dict"}},
    ],
    ids=lambda fields: ascii(fields)[:50],
)
def test_nothing_is_converted_on_its_way(fields: dict[str, Any]) -> None:
    """What would come back as something else is refused, and not stored as what it is not."""
    with pytest.raises((ValueError, TypeError)):
        encode_event(event(**fields))


@pytest.mark.parametrize("part", ["words", {"type": "text"}, None, 5, [Text("a")], Text], ids=ascii)
def test_what_is_no_part_is_refused(part: Any) -> None:
    """The error says where it is and what may stand there."""
    with pytest.raises(TypeError, match=r"content\[1\] must be one of Text, Reasoning, Media"):
        encode_event(event(content=[Text("a"), part]))


@pytest.mark.parametrize("wrong", [None, "event", {"author": "user"}, Event, Text("a")], ids=ascii)
def test_what_is_no_event_is_refused(wrong: Any) -> None:
    """The error says what was expected and what came."""
    with pytest.raises(TypeError, match=r"expected an agentsession\.Event, not ") as raised:
        encode_event(wrong)
    assert type(wrong).__qualname__ in str(raised.value)


@pytest.mark.parametrize(
    "value",
    [{1}, (1,), b"a", object(), float("nan"), {1: 1}, "\ud800"],
    ids=lambda value: type(value).__name__,
)
def test_values_that_json_cannot_hold_are_refused_with_their_path(value: object) -> None:
    """In every field that holds the user's own values."""
    for fields, path in (
        ({"metadata": {"a": [value]}}, ("metadata", "a", 0)),
        ({"content": [Text("a"), ToolCall("c", "f", [value])]}, ("content", 1, "arguments", 0)),
        ({"content": [ToolResult("c", {"a": value})]}, ("content", 0, "result", "a")),
        ({"content": [Data(value)]}, ("content", 0, "data")),
        ({"content": [Text("", value)]}, ("content", 0, "provider_data")),
        ({"content": [Reasoning("", value)]}, ("content", 0, "provider_data")),
        ({"content": [Media("a/b", provider_data=value)]}, ("content", 0, "provider_data")),
        ({"content": [ToolCall("c", "f", {}, value)]}, ("content", 0, "provider_data")),
    ):
        with pytest.raises(StateValueError, match="nothing was stored") as raised:
            encode_event(event(**fields))
        assert raised.value.path == path


def ring() -> list[object]:
    value: list[object] = []
    value.append(value)
    return value


@pytest.mark.parametrize(
    "value",
    [[{1}], [b"a"], [(1,)], [float("inf")], [object()], ring(), DELETE],
    ids=["set", "bytes", "tuple", "inf", "object", "cycle", "deletion"],
)
def test_the_values_of_a_delta_are_checked_too(value: object) -> None:
    """Encoding alone refuses them as well, with their path."""
    with pytest.raises(StateValueError) as raised:
        encode_event(event(state_delta={"a": {"k": value}}))
    assert raised.value.path[:3] == ("state_delta", "a", "k")


@pytest.mark.parametrize(
    ("fields", "path"),
    [
        ({"content": "a\ud800"}, ("content",)),
        ({"content": [Text("a"), Text("\udfff")]}, ("content", 1, "text")),
        ({"content": [ToolCall("\ud800", "f")]}, ("content", 0, "call_id")),
        ({"author": "\ud800"}, ("author",)),
        ({"id": "\ud800"}, ("id",)),
        ({"branch": "\ud800"}, ("branch",)),
        ({"error": EventError("\ud800")}, ("error", "message")),
        ({"state_delta": {"a": "\ud800"}}, ("state_delta", "a")),
        ({"state_delta": {"\ud800": 1}}, ("state_delta",)),
    ],
    ids=lambda value: ascii(value)[:40],
)
def test_half_a_surrogate_pair_is_refused(fields: dict[str, Any], path: tuple[Any, ...]) -> None:
    """No field can hold what is not Unicode; the error says which."""
    with pytest.raises(StateValueError, match="half of a surrogate pair at position") as raised:
        encode_event(event(**fields))
    assert raised.value.path[-len(path) :] == path


@pytest.mark.parametrize(
    "zone",
    [
        timezone(timedelta(hours=5, minutes=45)),
        timezone(timedelta(hours=-12)),
        timezone(timedelta(seconds=-1)),
        timezone(timedelta(0), "Zulu"),
        ZoneInfo("UTC"),
        ZoneInfo("Europe/Berlin"),
    ],
    ids=str,
)
def test_a_time_of_another_zone_is_stored_in_utc(zone: tzinfo) -> None:
    """It stays the same instant, to the microsecond."""
    data = encode_event(event(timestamp=MOMENT.astimezone(zone)))
    assert data == encode_event(event())
    assert decode_event(data).timestamp.tzinfo is UTC


def test_an_hour_that_comes_twice_is_two_instants() -> None:
    """``fold`` is heeded where clocks go back."""
    berlin = ZoneInfo("Europe/Berlin")
    first, second = (datetime(2026, 10, 25, 2, 30, tzinfo=berlin, fold=fold) for fold in (0, 1))
    times = [
        decode_event(encode_event(event(timestamp=each))).timestamp for each in (first, second)
    ]
    assert times == [datetime(2026, 10, 25, hour, 30, tzinfo=UTC) for hour in (0, 1)]


@pytest.mark.parametrize(
    "moment",
    [
        datetime.max.replace(tzinfo=timezone(timedelta(hours=-1))),
        datetime.min.replace(tzinfo=timezone(timedelta(hours=1))),
    ],
    ids=["after", "before"],
)
def test_a_time_outside_of_the_calendar_is_refused(moment: datetime) -> None:
    """An instant that UTC has no date for is a ValueError."""
    with pytest.raises(ValueError, match="cannot be stored"):
        encode_event(event(timestamp=moment))


def test_temporary_names_are_left_out() -> None:
    """Their values are not even looked at."""
    data = encode_event(event(state_delta={"temp:a": object(), "b": 1, "temp:": {1}}))
    assert data == encode_event(event(state_delta={"b": 1}))
    assert encode_event(event(state_delta={"temp:a": object()})) == encode_event(event())


unicode = st.text(st.characters(exclude_categories=["Cs"]))
name = st.text(st.characters(exclude_categories=["Cs"]), min_size=1)
json_values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**70), 2**70)
    | st.floats(allow_nan=False, allow_infinity=False)
    | unicode,
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(["$bytes", "$delete", "$json"]) | unicode, inner, max_size=2
        )
    ),
    max_leaves=6,
)
mappings = st.dictionaries(unicode, json_values, max_size=3)
parts = (
    st.builds(Text, unicode, json_values)
    | st.builds(Reasoning, unicode, json_values)
    | st.builds(Media, name, uri=unicode, name=unicode, provider_data=json_values)
    | st.builds(Media.from_bytes, st.binary(), name)
    | st.builds(ToolCall, name, unicode, json_values, json_values)
    | st.builds(ToolResult, name, json_values, unicode, st.booleans())
    | st.builds(Data, json_values, unicode)
)
events = st.builds(
    Event,
    id=name,
    timestamp=st.datetimes().map(lambda moment: moment.replace(tzinfo=UTC, fold=0)),
    author=name,
    invocation_id=unicode,
    branch=unicode,
    content=unicode | st.lists(parts, max_size=3),
    partial=st.booleans(),
    state_delta=st.dictionaries(
        unicode.filter(lambda each: not each.startswith("temp:")),
        json_values | st.binary() | st.just(DELETE),
        max_size=3,
    ),
    metadata=mappings,
    error=st.none() | st.builds(EventError, unicode, unicode),
    seq=st.integers(0, 2**53),
)


@given(events)
def test_an_event_comes_back_equal(given_event: Event) -> None:
    """With all its fields, and the types of all values in them."""
    data = encode_event(given_event)
    assert data.startswith(b'{"v":1,"id":')
    assert same(decode_event(data), given_event)
