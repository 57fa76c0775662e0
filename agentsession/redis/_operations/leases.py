"""Asks for leases, renews them and gives them back."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final
from urllib.parse import quote, unquote

from agentsession.backend import Standing, UnendedTurn
from agentsession.events import new_id
from agentsession.redis._operations.replies import check_found, read_text
from agentsession.redis._scripts import load
from agentsession.redis._scripts.words import flag, number

if TYPE_CHECKING:
    from collections.abc import Sequence

    from agentsession.backend import Claim, State, Stop
    from agentsession.redis._keys import Keyspace
    from agentsession.redis._operations.calls import Calls
    from agentsession.retention import Retention
    from agentsession.sessions import SessionKey

__all__ = ["Leases"]

_ACQUIRE: Final = load("acquire")
_RENEW: Final = load("renew")
_RELEASE: Final = load("release")
_STOP: Final = load("stop")

_STATES: Final[dict[bytes, State]] = {
    b"in_line": "in_line",
    b"busy": "busy",
    b"full": "full",
    b"superseded": "superseded",
    b"refused": "refused",
    b"gone": "gone",
}
_STOPS: Final[dict[bytes, Stop]] = {b"cancelled": "cancelled", b"interrupted": "interrupted"}


class Leases:
    """Who may write turns.

    Args:
        calls: Runs the scripts.
        keyspace: Names the keys.
        retention: What to keep and for how long.
    """

    def __init__(self, calls: Calls, keyspace: Keyspace, retention: Retention) -> None:
        self._calls = calls
        self._keyspace = keyspace
        self._session_ttl = number(retention.session_ttl)

    async def acquire(
        self, key: SessionKey, claim: Claim, attempt: int, incarnation: str
    ) -> Standing:
        """Ask for a lease."""
        names = self._keyspace.session(key)
        words = _ACQUIRE.words(
            id=_call_id(claim.owner, attempt),
            incarnation=incarnation,
            session_id=key.session_id,
            news=self._keyspace.news,
            owner=claim.owner,
            run=_quoted(claim.run_id),
            how="resume" if claim.resumes else claim.when_busy,
            joins=flag(claim.joins),
            ttl=number(claim.ttl),
            grace=number(claim.grace),
            exclusive=flag(claim.exclusive),
            session_ttl=self._session_ttl,
        )
        keys = [names.session, names.events, names.ids, names.index, names.calls]
        reply = await self._calls.run(key, _ACQUIRE, keys, words)
        if reply[1] not in _STATES:
            check_found(key, reply)
            return _held(key, reply)
        _, word, now, life, run, ends_at, ask_at = reply
        return Standing(
            state=_STATES[word],
            incarnation=read_text(key, life),
            now=now,
            run_id=_unquoted(run),
            ends_at=ends_at,
            ask_at=ask_at,
        )

    async def renew(self, key: SessionKey, owner: str, ttl: int) -> Standing:
        """Renew a lease."""
        names = self._keyspace.session(key)
        words = _RENEW.words(owner=owner, ttl=number(ttl), session_ttl=self._session_ttl)
        keys = [names.session, names.events, names.ids, names.index]
        reply = await self._calls.run(key, _RENEW, keys, words)
        check_found(key, reply)
        return _held(key, reply)

    async def release(self, key: SessionKey, owner: str, attempt: int) -> None:
        """Give a lease back, or leave the line."""
        names = self._keyspace.session(key)
        words = _RELEASE.words(
            owner=owner,
            asked=_call_id(owner, attempt),
            session_id=key.session_id,
            news=self._keyspace.news,
        )
        await self._calls.run(key, _RELEASE, [names.session, names.index, names.calls], words)

    async def stop(self, key: SessionKey, run_id: str | None) -> str | None:
        """Have a turn told to stop."""
        names = self._keyspace.session(key)
        words = _STOP.words(id=new_id(), run="" if run_id is None else _quoted(run_id))
        reply = await self._calls.run(key, _STOP, [names.session, names.calls], words)
        check_found(key, reply)
        return _unquoted(reply[3]) if reply[4] else None


def _held(key: SessionKey, reply: Sequence[Any]) -> Standing:
    """Read what a script says of a lease that is held."""
    _, _, now, life, token, ends_at, stop, left, run_id, after = reply
    unended = None
    if left:
        run, after_seq, why = left.split(b",")
        unended = UnendedTurn(_unquoted(run), int(after_seq), _STOPS.get(why, ""))
    return Standing(
        state="held",
        incarnation=read_text(key, life),
        now=now,
        token=token,
        stop=_STOPS.get(stop, ""),
        unended=unended,
        after_seq=after,
        run_id=_unquoted(run_id),
        ends_at=ends_at,
    )


def _call_id(owner: str, attempt: int) -> str:
    return f"{owner}:{attempt}"


def _quoted(run_id: str) -> str:
    """Word a run in letters, digits and ``%_.-~``, so that it goes among other words."""
    return quote(run_id, safe="")


def _unquoted(word: bytes) -> str:
    return unquote(word.decode())
