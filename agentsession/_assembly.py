"""What a backend returns, made into what users hold. Pure; no I/O."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from agentsession._log import decode_events
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

    from agentsession.backend import Receipt, Snapshot
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
    )


def apply_temporary(session: Session, state: Mapping[str, Any]) -> None:
    """Apply ``temp:`` names, which live in this object only and are not copied."""
    for name, value in state.items():
        if is_temporary(name):
            if value is DELETE:
                session.state.pop(name, None)
            else:
                session.state[name] = value


def apply_appended(
    session: Session, receipt: Receipt, stored: Sequence[Event], changes: Sequence[Changes]
) -> bool:
    """Apply one's own append to a session that one holds; tell whether that is all it lacks.

    It is not if others have written since, which the revision and the positions show, or if the
    session that one holds was deleted and made anew.
    """
    if session.created_at != from_microseconds(receipt.created):
        return False
    new = [event for event in stored if event.seq > session.last_seq]
    if not new and receipt.revision <= session.revision:
        return True
    if (
        receipt.revision != session.revision + 1
        or receipt.last_seq != session.last_seq + len(new)
        or len(new) != len(changes)
    ):
        return False
    session.events.extend(new)
    for change in changes:
        _fold(session.state, change)
    session.revision, session.last_seq = receipt.revision, receipt.last_seq
    session.updated_at = from_microseconds(receipt.updated)
    return True


def apply_fresh(session: Session, fresh: Session) -> None:
    """Bring a session that one holds to the state of one read later, with the events it lacks."""
    if fresh.created_at != session.created_at:
        session.events.clear()
        session.created_at, session.revision, session.last_seq = fresh.created_at, 0, 0
    if fresh.revision <= session.revision:
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
