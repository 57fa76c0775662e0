"""How a log goes back to an earlier event, and how a session is made of an earlier one."""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec

from agentsession._concurrently import caught, together
from agentsession._service.log import LogReader
from agentsession.backend import Receipt
from agentsession.errors import AgentSessionError, RewindError
from agentsession.events import Event, Rewind, new_id

if TYPE_CHECKING:
    from collections.abc import Sequence

    from agentsession._service.loading import Loader
    from agentsession._service.writing import Writer
    from agentsession.backend import Backend, Expected, ReadLimit, Window
    from agentsession.sessions import Session, SessionKey

__all__ = ["Rewinding", "mark"]

_AUTHOR = "system"


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
        self, key: SessionKey, seq: int, expected: Expected, run_id: str = ""
    ) -> Expected:
        """Refuse an event in the middle of a turn.

        Whether the log can go back to it is for the backend to say, in the step in which it does.

        Args:
            key: The session.
            seq: The event's position; 0 for the beginning.
            expected: Which session it must be.
            run_id: The turn that may go back to an event of its own.

        Returns:
            Which session it is, and what else is expected of it.

        Raises:
            RewindError: The event after it is of the same turn.
        """
        if not seq:
            return expected
        reader = LogReader(self._backend, key, None, self._read_limit, expected)
        events = await reader.page(after_seq=seq - 1, limit=2)
        if len(events) > 1 and events[0].seq == seq:
            turn = events[0].invocation_id
            if turn and turn == events[1].invocation_id != run_id:
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
            return session
        receipt, read = await together(
            append, caught(self._backend.get(key, bounds), AgentSessionError)
        )
        return await self._loader.load(key, bounds, receipt, read)

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
        return await self._loader.load(new_key, bounds, receipt)


def mark(to_seq: int, events: Sequence[Event], *, restores_state: bool, run_id: str = "") -> Event:
    """Make the event that takes back what comes after a position.

    Args:
        to_seq: The position.
        events: What comes in its place. Its id is made of that of the first, so that a repeat of
            them is known.
        restores_state: Whether state goes back too.
        run_id: The turn that goes back.
    """
    return Event(
        id=f"{events[0].id}:rewind" if events else new_id(),
        author=_AUTHOR,
        invocation_id=run_id,
        rewind=Rewind(to_seq, restores_state),
    )
