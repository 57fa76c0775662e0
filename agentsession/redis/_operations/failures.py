"""The border at which the driver's exceptions become this library's."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING, Final, TypeAlias

from agentsession.errors import (
    AgentSessionError,
    BackendError,
    BackendUnavailableError,
    CodecError,
    OutcomeUnknownError,
)
from agentsession.redis._links.link import (
    NoReplyError,
    NotAcknowledgedError,
    NotSentError,
    ServerError,
)
from agentsession.sessions import SessionKey, UserKey

if TYPE_CHECKING:
    from collections.abc import Generator

__all__ = ["Subject", "after_the_first", "translated"]

Subject: TypeAlias = SessionKey | UserKey | str
"""Whose data a call is about; a string describes an application."""


_NO_MEMORY: Final = (
    "the server is out of memory; nothing was written. "
    "Raise its maxmemory, or set limits and expiry"
)
_NOT_OURS: Final = "a key of this name holds data that is not ours; set a key_prefix of your own"
_CLUSTER: Final = (
    "the server is a node of a cluster; connect with redis+cluster://host:port, "
    "or pass a redis.asyncio.RedisCluster client"
)


@contextmanager
def after_the_first(subject: Subject, said: str) -> Generator[None]:
    """Tell a failure between steps from one in which nothing was written.

    Args:
        subject: Whose data it is about.
        said: What has happened, with a place for why no more did.
    """
    try:
        yield
    except (BackendError, CodecError) as exc:
        raise OutcomeUnknownError(subject, said.format(exc.reason)) from exc


def translated(
    exc: Exception, subject: Subject, script_name: str, *, writes: bool
) -> AgentSessionError:
    """Say what happened, given what was raised; its cause is what the driver raised.

    Args:
        exc: What was raised.
        subject: Whose data the call is about.
        script_name: What was run.
        writes: Whether it may have written; otherwise a lost reply leaves nothing unknown.
    """
    why = exc if exc.__cause__ is None else exc.__cause__
    match exc:
        case NotSentError():
            reason = (
                f"the server cannot be reached or cannot serve ({_worded(why)}); nothing was "
                "written. See whether it runs and its URL is right, or repeat the call"
            )
            error: AgentSessionError = BackendUnavailableError(subject, reason)
        case NoReplyError():
            error = _unanswered(subject, why, writes=writes)
        case NotAcknowledgedError():
            reason = f"written, and not acknowledged as asked: {_worded(why)}. {_remedy(str(why))}"
            error = OutcomeUnknownError(subject, reason)
        case _:
            why = exc
            error = _refused(subject, script_name, exc)
    error.__cause__ = why
    return error


def _worded(why: BaseException) -> str:
    """Word a driver's error as a part of a sentence."""
    return str(why).rstrip(". ")


def _remedy(why: str) -> str:
    """Say what to do about a write that was not acknowledged, which may yet be lost."""
    if "appendonly is disabled" in why:
        return "Set appendonly yes on the server, or leave ack_fsync out"
    if "unknown command" in why:
        return "ack_fsync needs Redis 7.2 or Valkey"
    return "It may yet be lost; repeat it"


def _unanswered(subject: Subject, why: BaseException, *, writes: bool) -> BackendError:
    if not writes:
        return BackendUnavailableError(subject, f"no answer from the server ({_worded(why)})")
    reason = (
        f"no answer from the server ({_worded(why)}): it was written whole or not at all; repeat it"
    )
    return OutcomeUnknownError(subject, reason)


def _refused(subject: Subject, script_name: str, exc: Exception) -> AgentSessionError:
    """Sort a server's error by its code."""
    text = str(exc)
    code = exc.code if isinstance(exc, ServerError) else ""
    if code in {"NOAUTH", "NOPERM", "WRONGPASS"}:
        return BackendError(subject, f"the server denies it ({text}); nothing was written")
    if code in {"CROSSSLOT", "MOVED"}:
        return BackendError(subject, _CLUSTER)
    if code == "OOM":
        return BackendUnavailableError(subject, _NO_MEMORY)
    if code == "WRONGTYPE":
        return CodecError(subject, _NOT_OURS)
    return BackendError(subject, f"the server refuses {script_name}: {text}")
