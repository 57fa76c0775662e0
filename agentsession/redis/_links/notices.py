"""What is told of a server: notices, made of errors. Pure; no I/O."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Final

import hiredis
from redis.exceptions import AuthenticationError, AuthorizationError, RedisError

from agentsession._journal import Journal
from agentsession.observers import Notice, Refused, Unreachable
from agentsession.redis._core.errors import ServerError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from agentsession.observers import Observer

__all__ = ["failed_attempt", "new_journal", "reason", "refusal"]

# Answers of a server that say nothing about the call: it answers others in the same way.
# TRYAGAIN is not among them: a slot is on its way, and its keys are all that is not served.
_REFUSALS: Final = frozenset(
    {"BUSY", "CLUSTERDOWN", "LOADING", "MASTERDOWN", "MISCONF", "NOAUTH", "NOPERM"}
    | {"NOREPLICAS", "OOM", "READONLY", "WRONGPASS"}
)

# Whose words hold no secret: errors of these types, from these packages.
_QUOTED: Final = (OSError, RedisError, hiredis.ProtocolError)
_PACKAGES: Final = frozenset({"agentsession", "builtins", "hiredis", "redis", "socket", "ssl"})


def new_journal(observers: Sequence[Observer] = ()) -> Journal:
    """Make a journal for a link."""
    return Journal("agentsession.redis", observers)


def failed_attempt(server: str, exc: Exception) -> Notice:
    """Say why there is no connection."""
    if isinstance(exc, ServerError):
        return Refused(server=server, code=exc.code, reason=reason(exc))
    if isinstance(exc, (AuthenticationError, AuthorizationError)):
        return Refused(server=server, reason=reason(exc))
    why = reason(exc).removeprefix(f"no connection to {server}: ")
    return Unreachable(server=server, reason=why)


def refusal(server: str, error: ServerError) -> Refused | None:
    """Say that a server refuses to work; ``None`` if its answer is about the call."""
    if error.code in _REFUSALS:
        return Refused(server=server, code=error.code, reason=error.answer.rstrip(". "))
    return None


def reason(exc: BaseException) -> str:
    """Word an error, but not one that may hold a secret: a credential provider raises anything."""
    each: BaseException | None = exc
    while each is not None and not isinstance(each, asyncio.CancelledError):
        package = type(each).__module__.partition(".")[0]
        if not isinstance(each, _QUOTED) or package not in _PACKAGES:
            return type(each).__qualname__
        each = each.__cause__
    return str(exc).rstrip(". ") or type(exc).__qualname__
