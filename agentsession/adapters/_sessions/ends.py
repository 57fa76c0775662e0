"""The end of a log, taken back and replaced in one step: what popping and compaction need."""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec

from agentsession.events import new_id

if TYPE_CHECKING:
    from collections.abc import Sequence

    from agentsession.adapters._sessions.logs import Awaitable
    from agentsession.events import Event
    from agentsession.sessions import Session

__all__ = ["loose", "reaches_back", "replace_end"]


async def replace_end(
    service: Awaitable, session: Session, kept: int, instead: Sequence[Event] = ()
) -> None:
    """Take back the end of a log and put other events there, if nobody has written meanwhile.

    What a session's own state is stays as it is.

    Args:
        service: Where the session is.
        session: The session with the events at its end, as many as :func:`reaches_back` wants.
        kept: How many of these events stay.
        instead: What comes after them.

    Raises:
        RevisionConflictError: Somebody has written to the session; nothing was stored.
        SessionNotFoundError: It is gone, or was made anew; nothing was stored.
        RewindError: The limit has trimmed where it should go back to.
    """
    place = _where_to_go_back(session.events, kept)
    # Those of them are events of no turn: that of the others is over, and cannot be cut in half.
    again = [loose(event) for event in session.events[place:kept]]
    await service.append_events(
        msgspec.structs.replace(session, events=[]),
        [*again, *instead],
        rewind_to=session.events[place - 1].seq if place else 0,
        restore_state=False,
        expected_revision=session.revision,
    )


def _where_to_go_back(events: Sequence[Event], kept: int) -> int:
    """Return how many of these events can stay where they are, if some of them are kept.

    The log cannot go back into the middle of a turn. Then the whole turn is taken back, and what is
    kept of it is to be stored again.
    """
    if not kept or not _cuts_a_turn(events, kept):
        return kept
    turn = events[kept - 1].invocation_id
    return next((n for n in range(kept - 1, 0, -1) if events[n - 1].invocation_id != turn), 0)


def reaches_back(session: Session, kept: int, *, is_all: bool) -> bool:
    """Tell whether the events at hand are enough to replace what comes after some of them.

    Args:
        session: The session with the events at its end.
        kept: How many of these events stay.
        is_all: Whether there are no older ones.
    """
    return is_all or _where_to_go_back(session.events, kept) > 0


def _cuts_a_turn(events: Sequence[Event], kept: int) -> bool:
    last = events[kept - 1]
    if not last.invocation_id or last.outcome not in ("", "waiting"):
        return False
    return any(event.invocation_id == last.invocation_id for event in events[kept:])


def loose(event: Event) -> Event:
    """Return a copy that says the same again: another event, of no turn, that changes no state."""
    return msgspec.structs.replace(
        event, id=new_id(), invocation_id="", outcome="", state_delta={}, seq=0
    )
