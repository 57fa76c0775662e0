"""How scripts reach a server: the interface, and how a call can fail."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import TYPE_CHECKING, Any, Final, TypeAlias

from redis.exceptions import (
    BusyLoadingError,
    ClusterDownError,
    MasterDownError,
    ReadOnlyError,
    ResponseError,
    TryAgainError,
)

if TYPE_CHECKING:
    from collections.abc import Sequence

    from agentsession.redis.scripts import Script

__all__ = [
    "NOT_NOW",
    "Argument",
    "Link",
    "NoReplyError",
    "NotAcknowledgedError",
    "NotSentError",
    "is_missing",
    "is_not_now",
]

NOT_NOW: Final = (
    BusyLoadingError,
    ReadOnlyError,
    MasterDownError,
    ClusterDownError,
    TryAgainError,
)
"""Answers of a server that ran nothing: it is loading, was demoted, or is being rearranged."""

# As NOT_NOW, for answers that redis-py has no classes for: somebody's script is running, the
# replicas that the server insists on are lost, or it was demoted while one waited for an
# acknowledgement.
_NOT_NOW_CODES: Final = ("BUSY ", "NOREPLICAS ", "UNBLOCKED ")

Argument: TypeAlias = str | bytes | int
"""What a key or an argument of a script can be."""


def is_not_now(exc: Exception) -> bool:
    """Tell whether this answer says that nothing was run, and may be later."""
    return isinstance(exc, NOT_NOW) or (
        isinstance(exc, ResponseError) and str(exc).startswith(_NOT_NOW_CODES)
    )


def is_missing(reply: Sequence[Any]) -> bool:
    """Tell whether a script answers that what it was to write to is not there."""
    return bool(reply[1] == b"missing")


class NotSentError(Exception):
    """The call was not run: the server was not reached, or refused before it did anything."""


class NoReplyError(Exception):
    """The call was sent and no answer came in time: it ran, or it did not."""


class NotAcknowledgedError(Exception):
    """The call was run, and did not get as far as it must to be acknowledged."""


class Link(ABC):
    """Runs scripts on a server, or on the right node of a cluster.

    Calls may be made concurrently and are run in the order in which they were made, except that one
    whose script the server has forgotten is sent again behind the others, and that a call may be
    repeated when its reply was lost: only calls that may be repeated belong here.
    Cancelling a caller abandons the reply and nothing else.
    """

    @abstractmethod
    async def run(self, script: Script, keys: Sequence[str], args: Sequence[Argument]) -> list[Any]:
        """Run a script and return its reply: a list of bytes, integers and such lists.

        Raises:
            NotSentError: It was not run.
            NoReplyError: Whether it ran is not known.
            NotAcknowledgedError: It ran, on the server that answered alone.
            redis.exceptions.RedisError: The server's answer is an error.
        """

    @abstractmethod
    async def aclose(self) -> None:
        """Wait a bounded time for replies under way, and let go of connections."""
