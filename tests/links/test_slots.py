"""The map of a cluster: what CLUSTER SLOTS and redirections say, and the slot of a key."""

from __future__ import annotations

from typing import Any

import pytest
from redis.crc import key_slot

from agentsession.redis._core.slots import SlotMap, redirection, slot_of

ASKED = ("asked", 7000)


@pytest.mark.parametrize(
    "key", ["session:{app:user}:s", "p{x}q", "appdata:{}", "a:{ünïcødé:𝄞}:b", "{a}{b}", "{{a}"]
)
def test_the_slot_of_a_key_is_that_of_its_tag(key: str) -> None:
    """As redis-py says, for the first pair of braces; an empty tag is one of ours all the same."""
    expected = key_slot(key.encode()) if "{}" not in key else 0
    assert slot_of(key) == expected


def test_known_slots() -> None:
    """From the specification of the cluster."""
    assert slot_of("{123456789}") == 0x31C3


def test_nobody_is_known_at_first() -> None:
    """The map has to be read."""
    slots = SlotMap()
    assert slots.owner(0) is None
    assert slots.owner(16_383) is None
    assert slots.hosts == set()


def test_the_map_is_read() -> None:
    """Both ends of a range belong to it, in any order; replicas are hosts and own nothing."""
    slots = SlotMap()
    reply: list[Any] = [
        [100, 16_383, [b"two", 2, b"id"]],
        [0, 99, [b"one", 1, b"id"], [b"replica", 3, b"id", [b"hostname", b"x"]]],
    ]
    slots.read(reply, ASKED)
    assert [slots.owner(n) for n in (0, 99, 100, 16_383)] == [
        ("one", 1),
        ("one", 1),
        ("two", 2),
        ("two", 2),
    ]
    assert slots.hosts == {("one", 1), ("two", 2), ("replica", 3)}


def test_a_new_map_replaces_the_old_one() -> None:
    """What it leaves out belongs to nobody."""
    slots = SlotMap()
    slots.read([[0, 16_383, [b"one", 1]]], ASKED)
    slots.move(9, ("three", 3))
    slots.read([[5, 5, [b"two", 2]]], ASKED)
    assert [slots.owner(n) for n in (4, 5, 6, 9)] == [None, ("two", 2), None, None]
    assert slots.hosts == {("two", 2)}
    with pytest.raises(ConnectionError, match="asked:7000 is in no cluster"):
        slots.read([], ASKED)
    assert slots.owner(5) == ("two", 2)


@pytest.mark.parametrize("name", [None, b"", b"?"], ids=repr)
def test_a_node_that_leaves_out_a_name_means_the_address_it_was_asked_at(name: object) -> None:
    """Of its own, or where cluster-preferred-endpoint-type is unknown-endpoint."""
    slots = SlotMap()
    slots.read([[0, 5, [name, 7001, b"id"], [name, 7002]]], ASKED)
    assert slots.owner(3) == ("asked", 7001)
    assert slots.hosts == {("asked", 7001), ("asked", 7002)}


def test_an_address_of_ipv6_is_a_name_without_brackets() -> None:
    """As sockets want it."""
    slots = SlotMap()
    slots.read([[0, 5, [b"fe80::1", 7001]]], ASKED)
    assert slots.owner(0) == ("fe80::1", 7001)


def test_one_slot_moves() -> None:
    """To a node that may be new; its neighbours stay."""
    slots = SlotMap()
    slots.read([[0, 10, [b"one", 1]]], ASKED)
    slots.move(5, ("two", 2))
    assert [slots.owner(n) for n in (4, 5, 6)] == [("one", 1), ("two", 2), ("one", 1)]
    assert slots.hosts == {("one", 1), ("two", 2)}


@pytest.mark.parametrize(
    ("text", "slot", "host"),
    [
        ("MOVED 3999 127.0.0.1:6381", 3999, ("127.0.0.1", 6381)),
        ("ASK 0 node.example:1", 0, ("node.example", 1)),
        ("MOVED 16383 :6381", 16_383, ("asked", 6381)),
        ("MOVED 1 ::1:6381", 1, ("::1", 6381)),
        ("MOVED 1 fe80::1:6381", 1, ("fe80::1", 6381)),
        ("MOVED 1 [fe80::1]:6381", 1, ("fe80::1", 6381)),
        ("ASK 1 host:1 and more", 1, ("host", 1)),
    ],
)
def test_a_redirection_is_read(text: str, slot: int, host: tuple[str, int]) -> None:
    """The port is what stands last, whatever the name is made of."""
    assert redirection(text, ASKED) == (slot, host)


def test_a_redirection_may_leave_out_the_name_too() -> None:
    """As in the map: a question mark is no name."""
    assert redirection("MOVED 5 ?:7001", ASKED) == (5, ("asked", 7001))
