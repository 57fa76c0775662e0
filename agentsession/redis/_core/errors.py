"""How a call can fail."""

from __future__ import annotations

import re
from typing import Final

from redis.exceptions import ResponseError

__all__ = ["NoReplyError", "NotAcknowledgedError", "NotSentError", "ServerError"]

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
        return self.answer.partition(" ")[0]

    @property
    def answer(self) -> str:
        """The answer from its :attr:`code` on, without what Redis 6 puts before it in a script."""
        inner = _IN_A_SCRIPT.match(str(self))
        if inner is None:
            return str(self)
        return str(self)[inner.start("code") :] if inner["code"] else f"NOPERM {self}"

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
