"""Which node of a cluster owns which slot. Pure; no I/O."""

from __future__ import annotations

from binascii import crc_hqx
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from collections.abc import Sequence

    from agentsession.redis._addresses import Host

__all__ = ["SLOTS", "SlotMap", "redirection", "slot_of"]

SLOTS: Final = 16_384
"""How many slots a cluster has."""


def slot_of(key: str) -> int:
    """Return the slot of one of our keys, all of which have a hash tag: what is in the braces."""
    tag = key[key.index("{") + 1 : key.index("}")]
    return crc_hqx(tag.encode(), 0) % SLOTS


class SlotMap:
    """The owners of slots, as far as they are known."""

    def __init__(self) -> None:
        self._owners: list[Host | None] = [None] * SLOTS
        self.hosts: set[Host] = set()

    def owner(self, slot: int) -> Host | None:
        """Return the node to ask; ``None`` if nobody is known to own the slot."""
        return self._owners[slot]

    @property
    def owners(self) -> tuple[Host | None, ...]:
        """The owner of each slot."""
        return tuple(self._owners)

    def move(self, slot: int, host: Host) -> None:
        """Note what a node said of one slot, that it belongs to another one."""
        self._owners[slot] = host
        self.hosts.add(host)

    def read(self, reply: Sequence[Any], asked: Host) -> list[Host]:
        """Take over the answer of ``CLUSTER SLOTS``, in which a node may leave out its own name.

        Returns:
            For each slot that had another owner before, its new one.

        Raises:
            ConnectionError: The node is in no cluster, and its map is empty.
        """
        if not reply:
            msg = f"{asked[0]}:{asked[1]} is in no cluster"
            raise ConnectionError(msg)
        owners: list[Host | None] = [None] * SLOTS
        hosts: set[Host] = set()
        for first, last, primary, *replicas in reply:
            owner = _host(primary, asked)
            hosts.update((owner, *(_host(replica, asked) for replica in replicas)))
            owners[first : last + 1] = [owner] * (last + 1 - first)
        pairs = zip(self._owners, owners, strict=True)
        moved = [new for old, new in pairs if old != new and old is not None and new is not None]
        self._owners, self.hosts = owners, hosts
        return moved


def _host(node: Sequence[Any], asked: Host) -> Host:
    return _name((node[0] or b"").decode(), asked), int(node[1])


def _name(name: str, asked: Host) -> str:
    """Return a node's name; one that does not know its own, or is not to say it, is *asked*."""
    return asked[0] if name in {"", "?"} else name


def redirection(text: str, asked: Host) -> tuple[int, Host]:
    """Read ``MOVED`` or ``ASK``: the slot, and the node that it names."""
    _, slot, where = text.split(" ")[:3]
    name, _, port = where.rpartition(":")
    return int(slot), (_name(name.strip("[]"), asked), int(port))
