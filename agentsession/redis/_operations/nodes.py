"""The nodes of a cluster that hold data, as they say themselves."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from msgspec import Struct

from agentsession._pace import Pace
from agentsession.redis._core.slots import SLOTS, slot_of
from agentsession.redis._scripts import load

if TYPE_CHECKING:
    from agentsession.redis._keys import Keyspace
    from agentsession.redis._operations.calls import Calls
    from agentsession.redis._operations.failures import Subject

__all__ = ["Nodes", "nodes_of"]

_NODE: Final = load("node")


class Nodes(Struct, frozen=True):
    """What the nodes said of themselves.

    If two of these are equal and :attr:`settled`, no slot was on its way at either moment, and none
    has another owner; so a key can have moved only if its slot went and came back in between.

    Attributes:
        tags: For each node a hash tag: keys with it lead there.
        words: What each has said.
        settled: Whether each slot is known to be some node's own, and none on its way.
    """

    tags: tuple[str, ...]
    words: tuple[Any, ...]
    settled: bool


async def nodes_of(calls: Calls, keyspace: Keyspace, subject: Subject) -> Nodes:
    """Ask the nodes until each slot has an owner, as they say, whatever is known of the slots."""
    pace = Pace()
    tags: list[str] = []
    words: list[Any] = []
    missing, number, settled = set(range(SLOTS)), 0, True
    while missing:
        if pace.due():
            await pace.rest()
        tag, number = str(number), number + 1
        slot = slot_of(f"{{{tag}}}")
        if slot not in missing:
            continue
        _, _, *said = await calls.run(subject, _NODE, [keyspace.near(tag)], [])
        own, on_their_way = _read(said[-1].decode())
        # The owner of a slot that is on its way hands on what it does not have, to a node that was
        # asked before or will be.
        settled = settled and slot in own and not on_their_way and own <= missing
        missing -= {slot, *own}
        tags.append(tag)
        words.append(said)
    return Nodes(tuple(tags), tuple(words), settled)


def _read(words: str) -> tuple[set[int], bool]:
    """Read which slots a node has, and whether any of them is on its way."""
    own: set[int] = set()
    ranges = words.split()
    for each in ranges:
        if not each.startswith("["):
            first, _, last = each.partition("-")
            own.update(range(int(first), int(last or first) + 1))
    return own, any(each.startswith("[") for each in ranges)
