"""Turns the failures of links and the answers of servers into this library's errors."""

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
from agentsession.redis._core.errors import (
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
# What to do about a server's answer; the first of these words that is in the answer counts.
_REMEDIES: Final = {
    "WRONGPASS": (
        "The user or the password is wrong; they stand in the URL, as in "
        "redis://user:password@host:6379/0, with special characters percent-encoded"
    ),
    "NOAUTH": (
        "The server wants a password; put it in the URL, behind a colon: "
        "redis://:password@host:6379/0, or redis://user:password@host:6379/0"
    ),
    "without any password configured": (
        "The server has no password; leave it out of the URL, or set one on the server"
    ),
    "NOPERM": (
        "The user in the URL lacks rights; grant it the commands that the scripts use, and the "
        "keys that begin with the key_prefix: 'await service.check()' names what is missing"
    ),
    "DB index is out of range": (
        "The URL ends in the number of a database that the server does not have; /0 is always there"
    ),
    "cluster support disabled": (
        "The server is no node of a cluster; connect with redis://host:port"
    ),
    "is no sentinel": (
        "Connect with redis://host:port to a server, or give the port of the sentinels, often 26379"
    ),
    "invalid username-password pair": (
        "The user or the password of the sentinels is wrong; they stand in the URL, as "
        "?sentinel_username=user&sentinel_password=password"
    ),
}


@contextmanager
def after_the_first(subject: Subject, said: str) -> Generator[None]:
    """Turn a failure after the first of several steps into "outcome unknown".

    Args:
        subject: Whose data it is about.
        said: What was done by then; ``{}`` in it becomes the reason of the failure.
    """
    try:
        yield
    except (BackendError, CodecError) as exc:
        raise OutcomeUnknownError(subject, said.format(exc.reason)) from exc


def translated(
    exc: Exception, subject: Subject, script_name: str, *, writes: bool
) -> AgentSessionError:
    """Return the error to raise; its cause is what the link or the server said.

    Args:
        exc: What was raised.
        subject: Whose data the call is about.
        script_name: What was run.
        writes: Whether it writes; if not, a lost reply leaves no outcome unknown.
    """
    why = exc if exc.__cause__ is None else exc.__cause__
    match exc:
        case NotSentError():
            error: AgentSessionError = BackendUnavailableError(subject, _unserved(exc, why))
        case NoReplyError():
            error = _unanswered(subject, exc, why, writes=writes)
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


def _unserved(exc: NotSentError, why: BaseException) -> str:
    """Say why the call was not run, and what to do about it."""
    words = _worded(why)
    remedy = _remedy_of(words)
    if remedy:
        return f"the server refuses the connection ({words}); nothing was written. {remedy}"
    return (
        f"the server cannot be reached or cannot serve ({words}{_patience(exc)}); nothing was "
        "written. See whether it runs and its URL is right, or repeat the call"
    )


def _unanswered(
    subject: Subject, exc: NoReplyError, why: BaseException, *, writes: bool
) -> BackendError:
    reason = f"no answer from the server ({_worded(why)}{_patience(exc)})"
    if not writes:
        reason += ". See whether it runs and keeps up, or repeat the call"
        return BackendUnavailableError(subject, reason)
    reason += ": it was written whole or not at all; repeat it"
    return OutcomeUnknownError(subject, reason)


# In seconds: who was answered at once has not waited.
_AT_ONCE: Final = 0.05


def _patience(exc: NotSentError | NoReplyError) -> str:
    """Say how long the caller has waited, and what sets how long it may."""
    if exc.timeout is None or exc.waited < _AT_ONCE:
        return ""
    return f"; given up after {exc.waited:.1f} seconds, with the option timeout={exc.timeout:g}"


def _remedy_of(answer: str) -> str:
    """Say what to do about a server's answer, if that is known."""
    return next((remedy for words, remedy in _REMEDIES.items() if words in answer), "")


def _refused(subject: Subject, script_name: str, exc: Exception) -> AgentSessionError:
    """Sort a server's error by its code."""
    text = str(exc)
    code = exc.code if isinstance(exc, ServerError) else ""
    if code in {"NOAUTH", "NOPERM", "WRONGPASS"}:
        said = f"the server denies it ({text}); nothing was written. {_REMEDIES[code]}"
        return BackendError(subject, said)
    if code in {"CROSSSLOT", "MOVED"}:
        return BackendError(subject, _CLUSTER)
    if code == "OOM":
        return BackendUnavailableError(subject, _NO_MEMORY)
    if code == "WRONGTYPE":
        return CodecError(subject, _NOT_OURS)
    return BackendError(subject, f"the server refuses {script_name}: {text}")
