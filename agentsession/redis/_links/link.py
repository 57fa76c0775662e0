"""How scripts reach a server: the interface, and how a call can fail."""

from __future__ import annotations

import re
from abc import ABC, abstractmethod
from typing import TYPE_CHECKING, Any, Final, Protocol

from redis.exceptions import ResponseError

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Callable, Sequence

    from agentsession.redis._links.request import Request
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


# A server that answers so is no primary any more: its address has to be looked up again.
_ELSEWHERE: Final = frozenset({"MASTERDOWN", "READONLY", "UNBLOCKED"})
_NOT_NOW: Final = _ELSEWHERE | {"BUSY", "CLUSTERDOWN", "LOADING", "NOREPLICAS", "TRYAGAIN"}


# Redis 6 words so what a command inside a script was refused for; later ones say that first.
_IN_A_SCRIPT: Final = re.compile(
    r"ERR Error running script \(call to \w+\): @user_script:\d+: "
    r"(?:@user_script: \d+: )?(?:-?(?P<code>[A-Z]+) |The user executing the script can't )"
)


class ServerError(ResponseError):
    """A server's answer is an error."""

    @property
    def code(self) -> str:
        """What it says first, such as ``NOSCRIPT``; of a script, what its command was refused for.

        Redis 6 has no code for a command inside a script that the user has no right to; it is
        ``NOPERM`` here, as later versions say.
        """
        inner = _IN_A_SCRIPT.match(str(self))
        if inner is not None:
            return inner["code"] or "NOPERM"
        return str(self).partition(" ")[0]

    @property
    def is_not_now(self) -> bool:
        """Whether the server ran nothing, but may run the call later.

        It is loading, was demoted, is busy with another script, lacks the replicas that it needs,
        or its slots are being moved.
        """
        return self.code in _NOT_NOW

    @property
    def is_elsewhere(self) -> bool:
        """Whether this server was demoted, so that another one has to be looked for."""
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
    """The call was run, but did not reach the disk or the replicas as asked."""


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
        go_on: Called with the call's future, when its caller is cancelled.

    Attributes:
        request: The call, once it is made.
    """

    __slots__ = ("go_on", "request", "size")

    size: int
    go_on: Callable[[asyncio.Future[list[Any]]], None]
    request: Request | None

    def __init__(self, size: int, go_on: Callable[[asyncio.Future[list[Any]]], None]) -> None:
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
    def tags(self) -> Sequence[str]:
        """A hash tag for each server that holds data: keys with it lead there."""
        return ("",)

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
