"""How scripts reach a server: the interface."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Callable, Sequence

    from agentsession.redis._core.request import Request
    from agentsession.redis._links.inbox import Channels, Inbox
    from agentsession.redis._scripts import Argument, Script

__all__ = ["Link", "Rest", "Room"]


class Room(Protocol):
    """Held by a caller that :meth:`Link.room` has let in.

    Attributes:
        deadline: The loop's time at which its calls end.
    """

    deadline: float

    def leave(self) -> None:
        """Let others in: the call was sent, or will not be made. May be called again."""


class Rest:
    """What has to be done after a call once it is sent, even if its caller is cancelled.

    Args:
        size: How many bytes it keeps in memory meanwhile; they count as part of the call's.
        go_on: Called with the call's future, when its caller is cancelled; without it, nothing
            follows then.

    Attributes:
        request: The call, once it is made.
    """

    __slots__ = ("go_on", "request", "size")

    size: int
    go_on: Callable[[asyncio.Future[list[Any]]], None] | None
    request: Request | None

    def __init__(
        self, size: int, go_on: Callable[[asyncio.Future[list[Any]]], None] | None = None
    ) -> None:
        self.size = size
        self.go_on = go_on
        self.request = None

    @property
    def repeated(self) -> bool:
        """Whether a copy of the call may have run before the one that was answered."""
        return self.request is not None and self.request.maybe_run


class Link(ABC):
    """Runs scripts on a server, or on the right node of a cluster.

    Calls may be made concurrently, and are run in the order in which they were made. There are two
    exceptions: a call that a server cannot run yet is sent again behind the others, and a call
    whose reply was lost may be sent again, so that scripts have to recognise repeated calls. No
    copy of a writing call has an effect after its caller was answered, or after its deadline.
    Cancelling a caller only drops its reply; a call that was not sent yet is not sent any more.
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
            args: The arguments of the script: its header and the rest. The link itself puts the
                echo and the times before them.
            room: What :meth:`room` returned; it is left once the call is sent. Without it the call
                has the link's timeout from now on, waiting for room included.
            rest: What has to be done after it.

        Raises:
            NotSentError: It was not run.
            NoReplyError: Whether it ran is not known.
            NotAcknowledgedError: It ran, but not as safely as asked: not on the disk, or not on the
                replicas.
            ServerError: The server's answer is an error.
        """

    @property
    @abstractmethod
    def inbox(self) -> Inbox:
        """Where this process is told of what happens on the server; closed with the link."""

    @property
    def news(self) -> Channels:
        """Where those of this process who follow sessions are told; closed with the link."""
        return self.inbox

    @property
    @abstractmethod
    def layout(self) -> object:
        """Equal at two moments if no data can have moved between servers meanwhile.

        Another connection may lead to another server.
        """

    @property
    @abstractmethod
    def crowded(self) -> bool:
        """Whether so many calls are in progress that a caller has to wait for room."""

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
        """Wait for outstanding replies for a limited time, then close all connections."""
