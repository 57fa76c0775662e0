"""State: scopes and prefixes, what a value may be, and how it is stored."""

from __future__ import annotations

import enum
from collections import OrderedDict
from typing import Any, NamedTuple

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from agentsession.errors import (
    CodecError,
    StateValueError,
    StateValueTooLargeError,
)
from agentsession.sessions import SessionKey, UserKey
from agentsession.state import (
    DELETE,
    Changes,
    ScopeChanges,
    add_scope_change,
    check_json,
    decode_scope,
    decode_value,
    encode_value,
    is_temporary,
    split,
)

LIMIT = 1 << 20
# Of 4,299 digits, stored whatever its sign; nothing of over 4,300 can be read again.
LARGE = 2**14_280 - 1
TOO_LARGE = 10**4300


def encode_scope(prefix: Any, state: dict[Any, Any], limit: int) -> ScopeChanges:
    """Encode an update to one scope, name by name."""
    changes: ScopeChanges = {}
    for name, value in state.items():
        add_scope_change(changes, prefix, name, value, limit)
    return changes


class Point(NamedTuple):
    x: int
    y: int


class Colour(enum.Enum):
    RED = "red"


class Number(enum.IntEnum):
    ONE = 1


class Word(enum.StrEnum):
    HI = "hi"


class Float64(float):
    """As numpy's is."""


class Str(str):
    __slots__ = ()


class Dict(dict[str, Any]):
    pass


class List(list[Any]):
    pass


class Bytes(bytes):
    pass


def nested(depth: int, leaf: object = 0) -> Any:
    value = leaf
    for n in range(depth):
        value = [value] if n % 2 else {"k": value}
    return value


def refused(value: object, name: str = "name") -> StateValueError:
    with pytest.raises(StateValueError) as raised:
        encode_value(name, value, LIMIT)
    return raised.value


def test_each_prefix_leads_to_its_scope() -> None:
    """Prefixes are taken off, and only in front; ``temp:`` names are dropped."""
    delta = {
        "a": 1,
        "app:a": 2,
        "user:a": 3,
        "temp:a": {4},
        "temp:": 5,
        "app:a user:b": 6,
        "user:a app:": 7,
        "app:users:a": 8,
        "user:User:a": 9,
        "App:a": 10,
        "app": 11,
        " user:a": 12,
        "other:a": 13,
        "a:app:": 14,
        ":": 15,
    }
    assert split(delta, LIMIT) == Changes(
        app={"a": b"2", "a user:b": b"6", "users:a": b"8"},
        user={"a": b"3", "a app:": b"7", "User:a": b"9"},
        session={
            "a": b"1",
            "App:a": b"10",
            "app": b"11",
            " user:a": b"12",
            "other:a": b"13",
            "a:app:": b"14",
            ":": b"15",
        },
    )


def test_a_delta_that_changes_nothing_is_false() -> None:
    """Changes are true if any scope changes."""
    assert not split({}, LIMIT)
    assert not split({"temp:a": 1}, LIMIT)
    assert all(split({name: 1}, LIMIT) for name in ("a", "app:a", "user:a"))


def test_deleting_is_none_in_every_scope() -> None:
    """``DELETE`` becomes ``None``, and ``None`` stays a value."""
    delta = {"a": DELETE, "app:b": DELETE, "user:c": DELETE, "d": None}
    assert split(delta, LIMIT) == Changes(
        app={"b": None}, user={"c": None}, session={"a": None, "d": b"null"}
    )
    assert repr(DELETE) == "DELETE"


@pytest.mark.parametrize("name", ["", "app:", "user:"], ids=ascii)
def test_an_empty_name_is_refused(name: str) -> None:
    """A name must have something behind its prefix."""
    with pytest.raises(StateValueError, match="the name is empty") as raised:
        split({"fine": 1, name: 1}, LIMIT)
    assert raised.value.path == (name,)


@pytest.mark.parametrize(
    ("name", "advice"),
    [
        ("user:user:x", "'user:x'"),
        ("app:app:x", "'app:x'"),
        ("user:app:x", "'user:x'"),
        ("app:temp:user:x", "'app:x'"),
        ("temp:user:x", "'temp:x'"),
        ("temp:temp:x", "'temp:x'"),
    ],
)
def test_a_name_of_two_scopes_is_refused(name: str, advice: str) -> None:
    """The error names it and says what to write instead."""
    with pytest.raises(StateValueError) as raised:
        split({"fine": 1, name: DELETE}, LIMIT)
    assert raised.value.path == (name,)
    assert str(raised.value) == (
        f"{name}: the name has the prefixes of two scopes; write {advice}; nothing was stored"
    )


@pytest.mark.parametrize("name", [1, None, b"a", ("a",), Str("a"), Word.HI], ids=ascii)
def test_a_name_of_another_type_is_refused(name: Any) -> None:
    """Names are strings, and nothing that looks like one."""
    for encode in (lambda: split({name: 1}, LIMIT), lambda: encode_scope("app:", {name: 1}, LIMIT)):
        with pytest.raises(StateValueError, match="a name must be a str, not ") as raised:
            encode()
        assert raised.value.path == (repr(name),)


@pytest.mark.parametrize("name", ["\ud800", "app:x\udfff", "user:\udc00"], ids=ascii)
def test_a_name_with_half_a_surrogate_pair_is_refused(name: str) -> None:
    """What is not Unicode cannot be stored; the error says where it is."""
    with pytest.raises(StateValueError, match="surrogate") as raised:
        split({name: 1}, LIMIT)
    assert raised.value.path == (name,)


@pytest.mark.parametrize("prefix", ["app:", "user:"])
def test_one_scope_takes_names_with_and_without_its_prefix(prefix: Any) -> None:
    """The scope's own prefix means nothing there; no other may follow it."""
    state = {"a": 1, f"{prefix}b": b"2", "c": DELETE}
    assert encode_scope(prefix, state, LIMIT) == {"a": b"1", "b": b"\x002", "c": None}
    with pytest.raises(StateValueError, match="the name is empty"):
        encode_scope(prefix, {prefix: 1}, LIMIT)
    for second in ("app:", "user:", "temp:"):
        with pytest.raises(StateValueError, match=f"two scopes; write '{prefix}x'") as raised:
            encode_scope(prefix, {"a": 1, f"{prefix}{second}x": 1}, LIMIT)
        assert raised.value.path == (f"{prefix}{second}x",)


@pytest.mark.parametrize(
    ("prefix", "name"),
    [("app:", "user:a"), ("app:", "temp:a"), ("user:", "app:a"), ("user:", "temp:a")],
)
def test_one_scope_refuses_names_of_another(prefix: Any, name: str) -> None:
    """A prefix that means another scope is a mistake, not a name."""
    with pytest.raises(StateValueError, match=f"another scope than '{prefix}'") as raised:
        encode_scope(prefix, {name: 1}, LIMIT)
    assert raised.value.path == (name,)


def test_only_names_with_the_prefix_are_temporary() -> None:
    """``temp:`` counts in front, whole, and in lower case."""
    assert is_temporary("temp:")
    assert is_temporary("temp:a")
    assert not any(map(is_temporary, ("temp", "Temp:a", "app:temp:a", " temp:a", "")))


unicode = st.text(st.characters(exclude_categories=["Cs"]))
json_values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**70), 2**70)
    | st.integers(-LARGE, LARGE)
    | st.floats(allow_nan=False, allow_infinity=False)
    | unicode,
    lambda inner: st.lists(inner, max_size=5) | st.dictionaries(unicode, inner, max_size=5),
    max_leaves=20,
)
names = st.builds("{}{}".format, st.sampled_from(["", "app:", "user:", "temp:"]), unicode)


PREFIXES = ("app:", "user:", "temp:")


def is_a_name(full: str) -> bool:
    """Tell whether a name may be used: there is one, and behind its prefix no other."""
    name = full
    for prefix in PREFIXES:
        if full.startswith(prefix):
            name = full.removeprefix(prefix)
    return bool(name) and not name.startswith(PREFIXES)


@given(st.dictionaries(names.filter(is_a_name), json_values))
def test_what_is_split_is_merged_to_the_same(delta: dict[str, Any]) -> None:
    """Splitting and merging a delta gives it back, without what is temporary."""
    changes = split(delta, LIMIT)
    merged: dict[str, Any] = {}
    for prefix, scope in (("app:", changes.app), ("user:", changes.user), ("", changes.session)):
        stored = {name: data for name, data in scope.items() if data is not None}
        merged |= decode_scope(stored, "app 'a'", prefix)
    kept = {name: value for name, value in delta.items() if not name.startswith("temp:")}
    assert merged == kept


@given(json_values | st.binary())
@example(-0.0)
@example(5e-324)
@example(2**63)
@example(2**64)
@example([LARGE, -LARGE])
@example("\x00")
@example(b"")
@example(b"\x00")
@example(b"null")
@example({"": [{}, [], ""], "$bytes": "AA=="})
def test_a_value_comes_back_equal_and_of_its_type(value: object) -> None:
    """Whatever JSON can hold, and bytes, are the same afterwards, to the last sign and order."""
    back = decode_value(encode_value("name", value, LIMIT))
    assert back == value
    # repr tells 1 from 1.0 and from True, and 0.0 from -0.0, at any depth.
    assert repr(back) == repr(value)


@pytest.mark.parametrize("sign", [1, -1])
def test_what_is_accepted_can_be_read(sign: int) -> None:
    """No integer near the limit is stored that could never be read again."""
    for exponent in (14_280, 14_281, 14_282, 14_283, 14_284, 14_285, 14_286):
        for number in (2**exponent - 1, 2**exponent, LARGE, LARGE + 1, TOO_LARGE - 1):
            try:
                data = encode_value("name", sign * number, LIMIT)
            except StateValueError:
                continue
            assert decode_value(data) == sign * number


@pytest.mark.parametrize(
    "number",
    [TOO_LARGE, -TOO_LARGE, 10**5000, -(2**20_000)],
    ids=["+1", "-1", "10**5000", "-2**20000"],
)
def test_an_integer_of_more_digits_is_refused(number: int) -> None:
    """Python would refuse to read it; the error names its place, not the number."""
    error = refused({"n": [number]})
    assert str(error) == (
        "name['n'][0]: an integer of more than 4,299 digits cannot be stored; nothing was stored"
    )


@pytest.mark.parametrize("number", [float("nan"), float("inf"), float("-inf")])
def test_a_number_without_a_form_in_json_is_refused(number: float) -> None:
    """NaN and the infinities would become null."""
    assert "no form in JSON" in refused([1.5, number]).reason


@pytest.mark.parametrize(
    "value",
    [
        Colour.RED,
        Number.ONE,
        Word.HI,
        Float64(1.5),
        Str("a"),
        Dict(a=1),
        List([1]),
        Bytes(b"a"),
        OrderedDict(a=1),
        Point(1, 2),
        (1, 2),
        {1},
        frozenset({1}),
        1j,
        object(),
        int,
        bytearray(b"a"),
        memoryview(b"a"),
        range(3),
    ],
    ids=lambda value: type(value).__name__,
)
def test_types_are_exact(value: object) -> None:
    """What would come back as another type is refused, and the error names its type and place."""
    kind = type(value).__qualname__
    error = refused(value)
    assert (error.path, kind in error.reason) == (("name",), True)
    error = refused({"a": [0, value]})
    assert (error.path, kind in error.reason) == (("name", "a", 1), True)


def test_bytes_and_deletion_are_values_as_a_whole_only() -> None:
    """Inside other values they are refused, and the error says so for bytes."""
    assert "only bytes as a whole state value" in refused([b"a"]).reason
    assert refused({"a": DELETE}).path == ("name", "a")
    with pytest.raises(StateValueError):
        check_json(b"a", ("metadata",))


def test_the_error_names_the_path() -> None:
    """It is worded as Python would subscript it."""
    error = refused({"items": [{}, {"price": {1}}]}, "cart")
    assert error.path == ("cart", "items", 1, "price")
    assert str(error).startswith("cart['items'][1]['price']: a set would not come back as one;")
    with pytest.raises(StateValueError) as raised:
        split({"user:cart": [object()]}, LIMIT)
    assert raised.value.path == ("user:cart", 0)
    with pytest.raises(StateValueError) as raised:
        encode_scope("app:", {"app:cart": [object()]}, LIMIT)
    assert raised.value.path == ("app:cart", 0)
    with pytest.raises(StateValueError) as raised:
        check_json([object()], ("content", 2, "data"))
    assert raised.value.path == ("content", 2, "data", 0)


PLAIN: dict[str, object] = {
    "int": 1,
    "large": LARGE,
    "negative": -LARGE,
    "float": 1.5,
    "ascii": "a",
    "unicode": "\xe9",
    "bool": True,
    "none": None,
}
BAD: dict[str, object] = {
    "too large": TOO_LARGE,
    "too negative": -TOO_LARGE,
    "infinite": float("inf"),
    "no number": float("nan"),
    "half a pair": "\ud800",
    "enum": Number.ONE,
    "str": Str("a"),
    "bytes": b"a",
    "tuple": (1,),
}


@pytest.mark.parametrize("plain", PLAIN.values(), ids=PLAIN)
@pytest.mark.parametrize("bad", BAD.values(), ids=BAD)
@pytest.mark.parametrize("length", [2, 16, 17, 1000])
def test_in_a_list_of_any_length_each_item_counts(length: int, plain: object, bad: object) -> None:
    """Long ones of one type are not looked at item by item, with the same verdict."""
    items = [plain] * length
    check_json(items, ("name",))
    assert decode_value(encode_value("name", [items], LIMIT * 10)) == [items]
    for place in (0, length // 2, length - 1):
        items[place] = bad
        assert refused([items]).path == ("name", 0, place)
        items[place] = plain


@pytest.mark.parametrize("bad", BAD.values(), ids=BAD)
def test_a_list_of_nothing_but_what_cannot_be_stored(bad: object) -> None:
    """The first one is named."""
    assert refused([bad] * 20).path == ("name", 0)


@pytest.mark.parametrize("key", [1, None, True, 1.5, b"a", ("a",), Str("a"), Word.HI], ids=ascii)
def test_keys_must_be_strings(key: object) -> None:
    """JSON would make strings of them."""
    error = refused({"a": {key: 1}})
    assert error.path == ("name", "a")
    kind = type(key)
    module = "" if kind.__module__ == "builtins" else f"{kind.__module__}."
    assert f"is of type {module}{kind.__qualname__}; keys must be strings" in error.reason


def test_half_a_surrogate_pair_is_refused() -> None:
    """In values and in keys, with the position in the string."""
    assert refused(["ab\ud800"]).path == ("name", 0)
    assert refused(["ab\ud800"]).reason.startswith(
        "the string holds half of a surrogate pair at position 2, "
    )
    error = refused({"a": {"ü\udfff": 1}})
    assert error.path == ("name", "a")
    assert "a key cannot be stored" in error.reason


@pytest.mark.parametrize("leaf", [0, "a", None, 1.5])
def test_a_hundred_levels_are_stored(leaf: object) -> None:
    """The limit counts lists and dicts, not what is in the innermost."""
    value = nested(100, leaf)
    assert decode_value(encode_value("name", value, LIMIT)) == value


@pytest.mark.parametrize("depth", [101, 102, 5000])
def test_more_levels_are_refused(depth: int) -> None:
    """The error comes from us, not from Python's recursion limit."""
    error = refused(nested(depth))
    assert "nested more than 100 deep" in error.reason
    assert len(error.path) == 101


def test_a_cycle_is_refused() -> None:
    """A value that contains itself ends at the same limit."""
    ring: list[object] = []
    ring.append({"again": ring})
    assert "or contains itself" in refused(ring).reason


def test_the_size_limit_is_exact() -> None:
    """At the limit a value is stored, one byte more is refused; the mark of bytes counts."""
    for value, size in (("a" * 98, 100), ("ü" * 49, 100), (b"a" * 99, 100), ([0] * 49, 99)):
        assert len(encode_value("name", value, size)) == size
        with pytest.raises(StateValueTooLargeError) as raised:
            encode_value("name", value, size - 1)
        error = raised.value
        assert (error.path, error.size, error.limit) == (("name",), size, size - 1)
        assert str(error) == (
            f"name: takes {size} bytes, over the limit of {size - 1}; keep large content elsewhere "
            "and a reference here, or raise max_value_size; nothing was stored"
        )


def test_the_size_limit_holds_in_every_scope() -> None:
    """Each value has the limit to itself; the error has the name as the caller gave it."""
    for prefix in ("", "app:", "user:"):
        assert split({f"{prefix}{n}": "a" * 8 for n in range(5)}, 10)
        with pytest.raises(StateValueTooLargeError) as raised:
            split({f"{prefix}big": "a" * 9}, 10)
        assert raised.value.path == (f"{prefix}big",)
    with pytest.raises(StateValueTooLargeError):
        encode_scope("user:", {"big": "a" * 9}, 10)


DAMAGED = [
    b"", b"{", b"[1", b'"a', b"nul", b"\xff", b'"\xff"', b"NaN", b"1e999", b"1 2", b"'a'", b"{1:2}",
    b'"\\ud800"', b"[" * 100_000, b"9" * 5000, b"\x01\x00", b" ",
]  # fmt: skip


@pytest.mark.parametrize("data", DAMAGED, ids=lambda data: ascii(data[:8]))
@pytest.mark.parametrize(
    ("subject", "named"),
    [
        (SessionKey("shop", "ann", "s1"), "session 's1', app 'shop', user 'ann'"),
        (UserKey("shop", "ann"), "app 'shop', user 'ann'"),
        ("app 'shop'", "app 'shop'"),
    ],
    ids=["session", "user", "app"],
)
def test_damaged_values_name_whose_they_are(data: bytes, subject: Any, named: str) -> None:
    """Bytes that are none of ours raise an error with the subject and the value's name."""
    with pytest.raises(CodecError) as raised:
        decode_scope({"fine": b"1", "broken": data}, subject)
    assert raised.value.subject == subject
    assert str(raised.value).startswith(f"{named}: the stored state value 'broken' is unreadable: ")


@given(st.binary())
def test_random_bytes_are_a_value_or_an_error(data: bytes) -> None:
    """Nothing escapes but a CodecError; what is read can be stored."""
    try:
        state = decode_scope({"name": data}, UserKey("app", "user"))
    except CodecError:
        return
    encode_value("name", state["name"], LIMIT)


def test_an_intact_scope_is_read_whole() -> None:
    """Every name has its value, behind its prefix; an empty scope is an empty dict."""
    scope = {"a": b"1", "b": b"\x00\x00", "c": b'{"d": [true]}'}
    assert decode_scope(scope, "app 'a'") == {"a": 1, "b": b"\x00", "c": {"d": [True]}}
    assert decode_scope(scope, "app 'a'", "app:").keys() == {"app:a", "app:b", "app:c"}
    assert decode_scope({}, "app 'a'") == {}
