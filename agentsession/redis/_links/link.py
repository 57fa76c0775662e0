"""How scripts reach a server: the interface, and how a call can fail."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import TYPE_CHECKING, Any, Final, Protocol

from redis.exceptions import ResponseError

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Callable, Sequence

    from agentsession.redis._scripts import Argument, Script

__all__ = [
    "Link",
    "NoReplyError",
    "NotAcknowledgedError",
    "NotSentError",
    "Rest",
    "Room",
    "ServerError",
]


# Another server would not answer so: the address is to be looked up anew.
_ELSEWHERE: Final = frozenset({"MASTERDOWN", "READONLY", "UNBLOCKED"})
_NOT_NOW: Final = _ELSEWHERE | {"BUSY", "CLUSTERDOWN", "LOADING", "NOREPLICAS", "TRYAGAIN"}


class ServerError(ResponseError):
    """A server's answer is an error."""

    @property
    def code(self) -> str:
        """The first word of the answer, such as ``NOSCRIPT``."""
        return str(self).partition(" ")[0]

    @property
    def is_not_now(self) -> bool:
        """Whether nothing was run, and may be later.

        The server is loading, was demoted, somebody's script is running, the replicas that it
        insists on are lost, or slots are being rearranged.
        """
        return self.code in _NOT_NOW

    @property
    def is_elsewhere(self) -> bool:
        """Whether another server is to be looked for, since this one was demoted."""
        return self.code in _ELSEWHERE

    @property
    def is_not_owned(self) -> bool:
        """Whether a node of a cluster does not serve the slot, and does not say who does."""
        return self.code == "CLUSTERDOWN"

    @property
    def is_redirection(self) -> bool:
        """Whether a node of a cluster names another one."""
        return self.code in {"ASK", "MOVED"}


class _WaitedError(Exception):
    """A call that was given up.

    Attributes:
        waited: For how many seconds its caller has waited.
        timeout: For how many the caller would have waited.
    """

    waited: float = 0.0
    timeout: float | None = None


class NotSentError(_WaitedError):
    """The call was not run: the server was not reached, or refused before it did anything."""


class NoReplyError(_WaitedError):
    """The call was sent and no answer came in time: it ran, or it did not."""


class NotAcknowledgedError(Exception):
    """The call was run, and did not get as far as it must to be acknowledged."""


class Room(Protocol):
    """What a caller has that :meth:`Link.room` has let in.

    Attributes:
        deadline: The loop's time at which its calls end.
    """

    deadline: float

    def leave(self) -> None:
        """Let others in: the call is under way, or none will be made. Once is enough."""


class Rest:
    """What is to follow a call once it was sent, also if its caller is cancelled by then.

    Args:
        size: How many bytes of it are in memory meanwhile, which count as if they were the call's.
        go_on: Called with the call's future, when its caller is cancelled.
    """

    __slots__ = ("go_on", "size")

    size: int
    go_on: Callable[[asyncio.Future[list[Any]]], None]

    def __init__(self, size: int, go_on: Callable[[asyncio.Future[list[Any]]], None]) -> None:
        self.size = size
        self.go_on = go_on


class Link(ABC):
    """Runs scripts on a server, or on the right node of a cluster.

    Calls may be made concurrently and are run in the order in which they were made, except that one
    that a server could not run yet is sent again behind the others, and that a call may be sent
    again when its reply was lost: only scripts that know their repeats belong here. No copy of a
    call that writes does anything after its caller was answered, or its deadline has passed.
    Cancelling a caller abandons the reply and nothing else; what was not sent yet is not sent.
    """

    @abstractmethod
    async def run(
        self,
        script: Script,
        keys: Sequence[str],
        args: Sequence[Argument],
        *,
        room: Room | None = None,
        rest: Rest | None = None,
    ) -> list[Any]:
        """Run a script and return its reply: a list of bytes, integers and such lists.

        Args:
            script: The script.
            keys: Its keys.
            args: What follows the echo and the times, which are the link's: header and the rest.
            room: Of a caller that :meth:`room` has let in; it is left once the call is under way.
                Without, it may take the link's timeout from now on, waiting for room included.
            rest: What is to follow it.

        Raises:
            NotSentError: It was not run.
            NoReplyError: Whether it ran is not known.
            NotAcknowledgedError: It ran, on the server that answered alone.
            ServerError: The server's answer is an error.
        """

    @property
    @abstractmethod
    def crowded(self) -> bool:
        """Whether so much is under way that a caller has to wait for room."""

    @abstractmethod
    async def room(self, *, in_steps: bool = False) -> Room:
        """Wait for room for one call, before what it takes is in memory.

        Args:
            in_steps: Whether others run while the call is prepared.

        Raises:
            NotSentError: There was none in time.
        """

    @abstractmethod
    async def aclose(self) -> None:
        """Wait a bounded time for replies under way, and let go of connections."""
