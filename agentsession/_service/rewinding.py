"""How a log goes back to an earlier event, and how a session is made of an earlier one."""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING, Final

import msgspec

from agentsession._concurrently import caught, together
from agentsession._service.loading import NOT_LOADED
from agentsession._service.log import LogReader
from agentsession.backend import Receipt
from agentsession.errors import (
    AgentSessionError,
    CodecError,
    OutcomeUnknownError,
    ReadTooLargeError,
    RewindError,
)
from agentsession.events import Event, Rewind, new_id

if TYPE_CHECKING:
    from collections.abc import Sequence

    from agentsession._service.loading import Loader, Read
    from agentsession._service.writing import Writer
    from agentsession.backend import Backend, Expected, ReadLimit, Window
    from agentsession.sessions import Session, SessionKey

__all__ = ["Rewinding", "mark"]

_AUTHOR: Final = "system"
# So many events tell whether a turn goes on; others may have written in between.
_LOOK: Final = 20


class Rewinding:
    """Goes back.

    Args:
        backend: Keeps the sessions.
        writer: Encodes what is written.
        loader: Loads sessions.
        read_limit: How much one read may return.
    """

    def __init__(
        self, backend: Backend, writer: Writer, loader: Loader, read_limit: ReadLimit | None
    ) -> None:
        self._backend = backend
        self._writer = writer
        self._loader = loader
        self._read_limit = read_limit

    async def check_place(
        self,
        key: SessionKey,
        seq: int,
        expected: Expected,
        *,
        run_id: str = "",
        instead: Sequence[Event] = (),
    ) -> Expected:
        """Refuse an event in the middle of a turn, as far as the next events tell.

        Whether the log can go back to it is for the backend to say, in the step in which it does.

        Args:
            key: The session.
            seq: The event's position; 0 for the beginning.
            expected: Which session it must be.
            run_id: The turn that may go back to an event of its own.
            instead: What comes in the place of the end. If it stands there, this is a repeat.

        Returns:
            Which session it is, and what else is expected of it.

        Raises:
            RewindError: An event after it is of the same turn.
        """
        if not seq:
            return expected
        reader = LogReader(self._backend, key, None, self._read_limit, expected)
        try:
            events = await reader.page(after_seq=seq - 1, limit=_LOOK)
        except ReadTooLargeError:
            # Two are always to be had: nothing of them is handed on.
            reader = LogReader(self._backend, key, None, None, expected)
            events = await reader.page(after_seq=seq - 1, limit=2)
        if events and events[0].seq == seq and not (instead and _has(events, instead[0])):
            last, turn = events[0], events[0].invocation_id
            is_over = last.outcome not in ("", "waiting") or turn in ("", run_id)
            if not is_over and any(event.invocation_id == turn for event in events[1:]):
                raise RewindError(key, seq, "half_turn")
        return msgspec.structs.replace(expected, incarnation=reader.expected.incarnation)

    async def go_back(
        self,
        session: Session | None,
        key: SessionKey,
        event: Event,
        expected: Expected,
        bounds: Window,
    ) -> Session:
        """Store a mark, and bring a session up to date or load it, in one round trip if it can."""
        entries = (self._writer.prepare(key, event)[0],)
        append = self._backend.append(key, entries, expected=expected)
        if session is not None:
            receipt = await append
            await self._writer.update(session, receipt, entries, (), ())
            if session.revision < receipt.revision:
                raise OutcomeUnknownError(key, NOT_LOADED.format("it could not be read"))
            return session
        receipt, read = await together(
            append, caught(self._backend.get(key, bounds), AgentSessionError)
        )
        return await self._load(key, bounds, receipt, read)

    async def _load(
        self, key: SessionKey, bounds: Window, receipt: Receipt, read: Read = None
    ) -> Session:
        """Load a session after a write, which was carried out whatever becomes of this."""
        try:
            return await self._loader.load(key, bounds, receipt, read)
        except CodecError as exc:
            raise OutcomeUnknownError(key, NOT_LOADED.format(exc.reason)) from exc

    async def fork(
        self,
        key: SessionKey,
        new_key: SessionKey,
        at_seq: int | None,
        expected: Expected,
        bounds: Window,
    ) -> Session:
        """Make a session of another one, and load it."""
        if at_seq is not None:
            expected = await self.check_place(key, at_seq, expected)
        made = await self._backend.fork(key, new_key, at_seq, token=new_id(), expected=expected)
        receipt = Receipt([], made.revision, made.last_seq, made.updated, made.incarnation)
        return await self._load(new_key, bounds, receipt)


def mark(to_seq: int, events: Sequence[Event], *, restores_state: bool, run_id: str = "") -> Event:
    """Make the event that takes back what comes after a position.

    Args:
        to_seq: The position.
        events: What comes in its place. A repeat of all of it makes a mark of the same id.
        restores_state: Whether state goes back too.
        run_id: The turn that goes back.
    """
    ids = [event.id for event in events]
    asked = msgspec.json.encode([to_seq, restores_state, *ids])
    return Event(
        id=hashlib.blake2b(asked, digest_size=16).hexdigest() if ids else new_id(),
        author=_AUTHOR,
        invocation_id=run_id,
        rewind=Rewind(to_seq, restores_state),
    )


def _has(events: Sequence[Event], event: Event) -> bool:
    """Tell whether an event of this id is among these."""
    return any(each.id == event.id for each in events)
