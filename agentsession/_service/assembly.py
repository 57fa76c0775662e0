"""Turns what a backend returns into what users get. Pure; no I/O."""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from typing import TYPE_CHECKING, Any, Final

import msgspec

from agentsession._service.log import decode_event, decode_events
from agentsession._wording import described_app
from agentsession.clock import from_microseconds
from agentsession.sessions import Session, SessionKey, UserKey
from agentsession.state import (
    APP_PREFIX,
    DELETE,
    TEMP_PREFIX,
    USER_PREFIX,
    Changes,
    decode_scope,
    decode_value,
)

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from agentsession._pace import Pace
    from agentsession.backend import Entry, Receipt, Snapshot
    from agentsession.events import Event

# A scope of more is decoded in several steps.
_NAMES_AT_ONCE: Final = 1000
_BYTES_AT_ONCE: Final = 1 << 18


async def assemble(key: SessionKey, snapshot: Snapshot, pace: Pace) -> Session:
    """Decode a session and merge its scopes.

    Raises:
        CodecError: A value of state is unreadable; the error's subject is whose it is: the session,
            its user or its application.
    """
    state: dict[str, Any] = {}
    if snapshot.app:
        await read_scope(snapshot.app, described_app(key.app_name), pace, APP_PREFIX, state)
    if snapshot.user:
        await read_scope(snapshot.user, key.user, pace, USER_PREFIX, state)
    if snapshot.session:
        await read_scope(snapshot.session, key, pace, "", state)
    return Session(
        key=key,
        state=state,
        events=await decode_events(snapshot.events, snapshot.seqs, pace),
        created_at=from_microseconds(snapshot.created),
        updated_at=from_microseconds(snapshot.updated),
        revision=snapshot.revision,
        last_seq=snapshot.last_seq,
        first_seq=snapshot.first_seq,
        incarnation=snapshot.incarnation,
    )


async def read_scope(
    scope: Mapping[str, bytes],
    subject: SessionKey | UserKey | str,
    pace: Pace,
    prefix: str = "",
    into: dict[str, Any] | None = None,
) -> dict[str, Any]:
    """Decode a scope as :func:`agentsession.state.decode_scope` does, in as many steps as it takes.

    Args:
        scope: The encoded values.
        subject: Whose they are.
        pace: Says when to let others run.
        prefix: Stands before the names.
        into: The view that takes them; a new one by default.

    Raises:
        CodecError: A value is unreadable; the error names *subject* and the value.
    """
    state = {} if into is None else into
    if not _is_large(scope):
        state |= decode_scope(scope, subject, prefix)
        return state
    for name, data in scope.items():
        if pace.due():
            await pace.rest()
        state |= decode_scope({name: data}, subject, prefix)
    return state


def _is_large(scope: Mapping[str, bytes]) -> bool:
    return len(scope) > _NAMES_AT_ONCE or sum(map(len, scope.values())) > _BYTES_AT_ONCE


def apply_temporary(session: Session, state: Mapping[str, Any]) -> None:
    """Apply ``temp:`` names, which live in this object only and are not copied."""
    fold(session.state, temporary(state))


def temporary(state: Mapping[str, Any]) -> dict[str, Any]:
    """Return what has a ``temp:`` name."""
    # As is_temporary() tells, without a call for each of very many names.
    return {
        name: value
        for name, value in state.items()
        if isinstance(name, str) and name.startswith(TEMP_PREFIX)
    }


def as_stored(receipt: Receipt, index: int, entry: Entry, event: Event | None) -> Event:
    """Return an appended event as it is stored, by this call or by an earlier one.

    A repeat of what the log does not hold any more stays as it was given; another event stands for
    what is stored and unreadable.

    Args:
        receipt: The answer to the append.
        index: Which of its entries it is.
        entry: What was sent.
        event: The same, decoded anew, so that nobody has seen it yet: it gets its position here;
            ``None`` if it was too large to be kept meanwhile.
    """
    seq, payload = receipt.seqs[index], receipt.repeats.get(index)
    if event is None or (payload and payload != entry.payload):
        return decode_event(payload or entry.payload, seq)
    msgspec.structs.force_setattr(event, "seq", seq)
    return event


def stands(receipt: Receipt, index: int, entry: Entry) -> bool:
    """Tell whether an entry is stored as it was given, by this call or by an earlier one."""
    return receipt.repeats.get(index, entry.payload) == entry.payload


def apply_appended(
    session: Session,
    receipt: Receipt,
    entries: Sequence[Entry],
    stored: Sequence[Event],
    delta: Mapping[str, Any],
) -> bool:
    """Apply an append to the caller's session; tell whether the session is up to date then.

    It is not if others have written since, which the revision and the positions show.
    """
    if receipt.revision <= session.revision:
        return True
    if (
        receipt.revision != session.revision + 1
        or receipt.last_seq != session.last_seq + len(stored)
        or (receipt.repeats and not _is_retry(session, receipt, entries))
    ):
        return False
    session.events.extend(stored)
    fold(session.state, delta)
    session.revision, session.last_seq = receipt.revision, receipt.last_seq
    session.updated_at = from_microseconds(receipt.updated)
    return True


def apply_updated(session: Session, receipt: Receipt, delta: Mapping[str, Any]) -> bool:
    """Apply a change of state to the caller's session, as :func:`apply_appended` does."""
    if receipt.revision <= session.revision:
        return True
    if receipt.revision != session.revision + 1 or receipt.last_seq != session.last_seq:
        return False
    fold(session.state, delta)
    session.revision, session.updated_at = receipt.revision, from_microseconds(receipt.updated)
    return True


def _is_retry(session: Session, receipt: Receipt, entries: Sequence[Entry]) -> bool:
    """Tell whether the last write was this very append, repeated since its answer was lost."""
    return list(receipt.seqs) == list(range(session.last_seq + 1, receipt.last_seq + 1)) and all(
        stands(receipt, index, entry) for index, entry in enumerate(entries)
    )


def apply_fresh(session: Session, fresh: Session, snapshot: Snapshot) -> None:
    """Bring the caller's session up to date with one that was read later.

    Args:
        session: The caller's.
        fresh: The other, with the events that the caller's may lack.
        snapshot: What that one was made of.
    """
    if session.incarnation not in ("", fresh.incarnation):
        return  # Deleted and made anew while this was read: the next write will say so.
    if fresh.revision < session.revision:
        return  # Another task brought the same object further while this one was reading.
    drop_after(session, snapshot.kept_to)
    session.events.extend(fresh.events)
    drop_before(session, snapshot.oldest_seq)
    session.state = fresh.state | temporary(session.state)
    session.revision, session.last_seq = fresh.revision, fresh.last_seq
    session.first_seq, session.updated_at = fresh.first_seq, fresh.updated_at


def drop_after(session: Session, seq: int) -> None:
    """Drop the events after a position, which are at the end."""
    del session.events[bisect_right(session.events, seq, key=_seq) :]


def drop_before(session: Session, seq: int) -> None:
    """Drop the events before a position, which are at the beginning."""
    del session.events[: bisect_left(session.events, seq, key=_seq)]


def _seq(event: Event) -> int:
    return event.seq


def decode_changes(changes: Changes) -> dict[str, Any]:
    """Decode changes into a delta of new objects, so that nothing is shared."""
    if not changes:
        return {}
    scopes = ((APP_PREFIX, changes.app), (USER_PREFIX, changes.user), ("", changes.session))
    return {
        prefix + name: DELETE if data is None else decode_value(data)
        for prefix, scope in scopes
        for name, data in scope.items()
    }


def fold(state: dict[str, Any], delta: Mapping[str, Any]) -> None:
    """Apply a delta to a merged view."""
    if not any(value is DELETE for value in delta.values()):
        state |= delta  # In one go, which takes a third of the time.
        return
    for name, value in delta.items():
        if value is DELETE:
            state.pop(name, None)
        else:
            state[name] = value
