"""Turns what check.lua finds into concerns."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any, Final

from agentsession.clock import system_clock
from agentsession.concerns import Concern
from agentsession.errors import BackendError
from agentsession.events import new_id
from agentsession.redis._core.errors import ServerError
from agentsession.redis._scripts import load

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from agentsession.redis._keys import Keyspace
    from agentsession.redis._operations.calls import Calls
    from agentsession.retention import Retention

__all__ = ["diagnose", "diagnosed"]

_CHECK: Final = load("check")

_OLDEST: Final = (6, 2)
# Microseconds. Less than this is what ordinary clocks differ by, and no time to live is that short.
_MOST_SKEW: Final = 1_000_000

_REFUSALS: Final = {
    "READONLY": Concern(
        "read_only",
        "danger",
        "the server is a read-only replica and refuses every write; connect to its primary",
    ),
    "OOM": Concern(
        "memory_full",
        "danger",
        "the server is at its maxmemory and refuses every write; raise it, or set limits and "
        "expiry",
    ),
    "MISCONF": Concern(
        "writes_refused",
        "danger",
        "the server refuses every write, since it cannot save to its disk (MISCONF); see its log",
    ),
    "NOREPLICAS": Concern(
        "writes_refused",
        "danger",
        "the server refuses every write, since fewer replicas are connected than its "
        "min-replicas-to-write asks for",
    ),
}
"""What a command fails with if its server takes no writes at all, by the error's code."""


async def diagnose(calls: Calls, keyspace: Keyspace, retention: Retention) -> list[Concern]:
    """Ask a server, and report what endangers the data on it."""
    sent = system_clock()
    try:
        reply = await calls.run("check()", _CHECK, keyspace.scratch(new_id()), [])
    except BackendError as exc:
        why = exc.__cause__
        if isinstance(why, ServerError) and (why.code == "NOPERM" or "unknown command" in str(why)):
            return [_scripts_refused(why)]
        raise
    return diagnosed(reply, retention, sent, system_clock())


def diagnosed(
    reply: Sequence[Any], retention: Retention, sent: int, received: int
) -> list[Concern]:
    """Report what endangers the data on a server.

    Args:
        reply: What the script returned.
        retention: What the backend keeps; volatile keys are evicted only if there are any.
        sent: When this process sent the script, by its own clock in microseconds.
        received: When the reply had come.
    """
    _, _, present, sections, failures = reply
    info = _parsed(sections)
    return [
        *_refusals(failures),
        *_version(info),
        *_replica(info, failures),
        *_eviction(info, retention),
        *_persistence(info),
        *_skew(present, sent, received),
        *_blindness(sections),
    ]


def _scripts_refused(why: object) -> Concern:
    """Say that a server runs no script, or not on our keys."""
    return Concern(
        "rights_missing",
        "danger",
        f"the server refuses to run scripts ({why}); grant its user EVAL, EVALSHA, the commands "
        "that the scripts use, and all keys that begin with the key_prefix",
    )


def _parsed(sections: Sequence[bytes | None]) -> dict[str, str]:
    """Read ``name:value`` lines; what INFO says of the server is nobody's data, and may be odd."""
    text = b"\n".join(section for section in sections if section).decode(errors="replace")
    pairs = (line.strip().partition(":") for line in text.splitlines())
    return {name: value for name, colon, value in pairs if colon}


def _refusals(failures: Sequence[bytes]) -> Iterator[Concern]:
    """Tell a server that takes no writes from one that denies commands to this user."""
    denied: dict[str, str] = {}
    known: dict[str, Concern] = {}
    for command, error in zip(failures[::2], failures[1::2], strict=True):
        text = error.decode(errors="replace")
        code = next((code for code in _REFUSALS if code in text), None)
        if code is None:
            denied[command.decode()] = text
        else:
            known[code] = _REFUSALS[code]
    yield from known.values()
    if denied:
        first = next(iter(denied.values()))
        yield Concern(
            "rights_missing",
            "danger",
            f"the server denies commands that the scripts use: {', '.join(denied)} ({first}); "
            "grant them to its user",
        )


def _version(info: Mapping[str, str]) -> Iterator[Concern]:
    found = re.match(r"(\d+)\.(\d+)", info.get("redis_version", ""))
    if found and (int(found[1]), int(found[2])) < _OLDEST:
        yield Concern(
            "server_too_old",
            "danger",
            f"the server is version {info['redis_version']}; it takes Redis 6.2 or newer, or "
            "Valkey, so upgrade it",
        )


def _replica(info: Mapping[str, str], failures: Sequence[bytes]) -> Iterator[Concern]:
    if info.get("role") == "slave" and not any(b"READONLY" in error for error in failures):
        yield Concern(
            "writable_replica",
            "danger",
            "the server is a replica that takes writes, and forgets them when it synchronises with "
            "its primary; connect to the primary",
        )


def _eviction(info: Mapping[str, str], retention: Retention) -> Iterator[Concern]:
    policy = info.get("maxmemory_policy", "")
    if policy.startswith("allkeys-") or (policy.startswith("volatile-") and retention.expires):
        limited = info.get("maxmemory") != "0"
        when = "when it is full" if limited else "as soon as it has a maxmemory"
        yield Concern(
            "eviction",
            "danger" if limited else "warning",
            f"the server deletes sessions, or parts of them, {when} (maxmemory-policy {policy}); "
            "set it to noeviction, and let session_ttl and session_event_limit bound the data",
        )


def _persistence(info: Mapping[str, str]) -> Iterator[Concern]:
    if info.get("aof_enabled") == "0":
        yield Concern(
            "no_append_only_file",
            "warning",
            "the server keeps no append-only file: a crash or restart loses all writes since its "
            "last snapshot, and everything if it makes none; set appendonly yes",
        )
    statuses = ("aof_last_write_status", "aof_last_bgrewrite_status", "rdb_last_bgsave_status")
    failing = [name for name in statuses if info.get(name, "ok") != "ok"]
    if failing:
        yield Concern(
            "persistence_failing",
            "danger",
            f"what the server holds does not reach its disk ({', '.join(failing)}); see its log, "
            "and the space that is left",
        )


def _skew(present: int | None, sent: int, received: int) -> Iterator[Concern]:
    """Compare clocks; the server looked at its own at some moment between these two."""
    if present is None:
        return
    behind, ahead = sent - present, present - received
    if max(behind, ahead) > _MOST_SKEW:
        seconds = max(behind, ahead) / 1_000_000
        yield Concern(
            "clock_skew",
            "warning",
            f"the server's clock is {seconds:,.1f} seconds {'behind' if behind > 0 else 'ahead of'}"
            " this process's, and expiry, updated_at and since go by the server's; synchronise "
            "both clocks",
        )


def _blindness(sections: Sequence[bytes | None]) -> Iterator[Concern]:
    if not all(sections):
        yield Concern(
            "unobservable",
            "warning",
            "the server denies INFO, so that its version, eviction and persistence cannot be seen; "
            "grant its user INFO, or look at them by hand",
        )
