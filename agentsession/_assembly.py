"""What a backend returns, made into what users hold. Pure; no I/O."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import msgspec

from agentsession._log import decode_event, decode_events
from agentsession.clock import from_microseconds
from agentsession.sessions import Session, SessionKey
from agentsession.state import (
    APP_PREFIX,
    DELETE,
    USER_PREFIX,
    Changes,
    decode_scope,
    decode_value,
    is_temporary,
    merge,
)

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from agentsession.backend import Entry, Receipt, Snapshot
    from agentsession.events import Event


def assemble(key: SessionKey, snapshot: Snapshot) -> Session:
    """Decode a session and merge its scopes.

    Raises:
        CodecError: Something in it is unreadable.
    """
    return Session(
        key=key,
        state=merge(
            decode_scope(snapshot.app, key),
            decode_scope(snapshot.user, key),
            decode_scope(snapshot.session, key),
        ),
        events=decode_events(key, snapshot.events, snapshot.first_seq),
        created_at=from_microseconds(snapshot.created),
        updated_at=from_microseconds(snapshot.updated),
        revision=snapshot.revision,
        last_seq=snapshot.last_seq,
        incarnation=snapshot.incarnation,
    )


def apply_temporary(session: Session, state: Mapping[str, Any]) -> None:
    """Apply ``temp:`` names, which live in this object only and are not copied."""
    for name, value in state.items():
        if is_temporary(name):
            if value is DELETE:
                session.state.pop(name, None)
            else:
                session.state[name] = value


def as_stored(key: SessionKey, receipt: Receipt, index: int, entry: Entry, event: Event) -> Event:
    """Return an event that was appended as it is stored, be it by an earlier call.

    A repeat of what the log does not hold any more stays as it was given.

    Args:
        key: The session, for the error.
        receipt: The answer to the append.
        index: Which of its entries it is.
        entry: What was sent.
        event: The same, decoded anew, so that nobody has seen it yet: it gets its position here.

    Raises:
        CodecError: What is stored under a repeated id is unreadable.
    """
    seq, payload = receipt.seqs[index], receipt.repeats.get(index)
    if payload and payload != entry.payload:
        return decode_event(key, payload, seq)
    msgspec.structs.force_setattr(event, "seq", seq)
    return event


def stands(receipt: Receipt, index: int, entry: Entry) -> bool:
    """Tell whether an entry is stored as it was given, be it by an earlier call."""
    return receipt.repeats.get(index, entry.payload) == entry.payload


def apply_appended(
    session: Session, receipt: Receipt, entries: Sequence[Entry], stored: Sequence[Event]
) -> bool:
    """Apply one's own append to a session that one holds; tell whether that is all it lacks.

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
    for entry in entries:
        _fold(session.state, entry.changes)
    session.revision, session.last_seq = receipt.revision, receipt.last_seq
    session.updated_at = from_microseconds(receipt.updated)
    return True


def _is_retry(session: Session, receipt: Receipt, entries: Sequence[Entry]) -> bool:
    """Tell whether the last write was this very append, repeated since its answer was lost."""
    return list(receipt.seqs) == list(range(session.last_seq + 1, receipt.last_seq + 1)) and all(
        stands(receipt, index, entry) for index, entry in enumerate(entries)
    )


def apply_fresh(session: Session, fresh: Session) -> None:
    """Bring a session that one holds to the state of one read later, with the events it lacks."""
    if session.incarnation not in ("", fresh.incarnation):
        return  # Deleted and made anew while this was read: the next write will say so.
    if fresh.revision < session.revision:
        return  # Another task brought the same object further while this one was reading.
    session.events.extend(event for event in fresh.events if event.seq > session.last_seq)
    temporary = {name: value for name, value in session.state.items() if is_temporary(name)}
    session.state = fresh.state | temporary
    session.revision, session.last_seq = fresh.revision, fresh.last_seq
    session.updated_at = fresh.updated_at


def _fold(state: dict[str, Any], changes: Changes) -> None:
    """Apply stored changes to a merged view; values are decoded anew, so that nothing is shared."""
    scopes = ((APP_PREFIX, changes.app), (USER_PREFIX, changes.user), ("", changes.session))
    for prefix, scope in scopes:
        for name, data in scope.items():
            if data is None:
                state.pop(prefix + name, None)
            else:
                state[prefix + name] = decode_value(data)
