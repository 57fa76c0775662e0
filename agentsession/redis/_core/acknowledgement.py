"""How far a write must have got before it is acknowledged.

A server answers from its memory. ``WAIT`` and ``WAITAOF`` wait for more, on the connection that
wrote: until replicas have all that it has written, or until that is on disk. They make no
transaction of it: a write that fell short is there all the same, and may be lost in a failure. And
they say nothing of what other connections wrote, so the scripts write when they are repeated, too.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from msgspec import Struct

if TYPE_CHECKING:
    from agentsession.redis._scripts import Argument

__all__ = ["SERVER_MEMORY", "Acknowledgement"]

# How long the server waits before it says how far a write has got, in milliseconds; whoever waits
# for it asks again until the deadline. What others send on the connection meanwhile has to wait.
_PATIENCE: Final = 100


class Acknowledgement(Struct, frozen=True):
    """Where a write must be before its call returns; false if the server's memory is enough.

    Attributes:
        replicas: On how many replicas.
        fsync: Whether on disk, on the server and on these replicas.
    """

    replicas: int = 0
    fsync: bool = False

    @classmethod
    def of(cls, *, ack_replicas: int, ack_fsync: bool) -> Acknowledgement:
        """Make one from the options that users give to a service.

        Raises:
            TypeError: An option has the wrong type.
            ValueError: *ack_replicas* is negative.
        """
        if type(ack_replicas) is not int:
            kind = type(ack_replicas).__qualname__
            msg = f"ack_replicas must be an int, not {kind}: {ack_replicas!r:.80}"
            raise TypeError(msg)
        if ack_replicas < 0:
            msg = f"ack_replicas must be 0 or more, not {ack_replicas}"
            raise ValueError(msg)
        if not isinstance(ack_fsync, bool):
            msg = f"ack_fsync must be True or False, not {ack_fsync!r:.80}"
            raise TypeError(msg)
        return cls(ack_replicas, ack_fsync)

    def __bool__(self) -> bool:
        return self.replicas > 0 or self.fsync

    @property
    def words(self) -> tuple[Argument, ...]:
        """The command that waits for it."""
        if self.fsync:
            return "WAITAOF", "1", str(self.replicas), str(_PATIENCE)
        return "WAIT", str(self.replicas), str(_PATIENCE)

    @property
    def pause(self) -> float:
        """How many seconds longer a server may stay silent because of this."""
        return _PATIENCE / 1000 if self else 0.0

    def shortfall(self, reply: Any) -> str:
        """Say what the reply to the command lacks; empty if nothing."""
        local, replicas = reply if self.fsync else (1, reply)
        if self.fsync and not local:
            return "the server has not written it to disk yet"
        if replicas < self.replicas:
            done = "have it on disk" if self.fsync else "have it"
            return f"{replicas} of {self.replicas} replicas {done}"
        return ""


SERVER_MEMORY: Final = Acknowledgement()
"""What a server does by itself: it answers when the write is in its memory."""
