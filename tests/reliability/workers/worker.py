"""Those who make the planned calls and write down what became of each."""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable, Iterable
from contextlib import suppress
from typing import Any

import msgspec

from agentsession import Event, Session, SessionService, UserKey
from agentsession.clock import to_microseconds
from agentsession.errors import (
    BackendUnavailableError,
    LeaseLostError,
    OutcomeUnknownError,
    RevisionConflictError,
    SessionBusyError,
    SessionExistsError,
    SessionNotFoundError,
)
from agentsession.state import DELETE
from reliability.history import Entry, Operation, Seen, Sent, Step, Turn, View, Write, words_of
from reliability.workers.cancelling import finishes

# What may be raised with nothing written. Whether a session may be missing, the checker knows.
REFUSALS = (
    BackendUnavailableError,
    RevisionConflictError,
    SessionBusyError,
    SessionExistsError,
    SessionNotFoundError,
)
_MOST_SESSIONS = 1000
# How long a turn waits for its own, and how long one that is interrupted may go on, in seconds.
_WAIT = 0.1
_GRACE = 0.05


class Worker:
    """Makes calls one after the other.

    Args:
        name: Unique in the run.
        service: What it calls.
        record: Takes each operation twice: when it begins and when it has ended.
        grace: Seconds after its cancellation in which a call may still take effect.
    """

    def __init__(
        self,
        name: str,
        service: SessionService,
        record: Callable[[Operation], None],
        *,
        grace: float = 0.0,
    ) -> None:
        self._name = name
        self._grace = round(grace * 1e9)
        self._service = service
        self._record = record
        self._made = 0

    async def work(self, steps: Iterable[Step]) -> None:
        for step in steps:
            operation = await self.make(step)
            if step.again and operation.outcome == "unknown":
                await self.make(msgspec.structs.replace(step, cancel=None))

    async def make(self, step: Step) -> Operation:
        self._made += 1
        started = time.monotonic_ns()
        operation = Operation(
            worker=self._name, number=self._made, step=step, started=started, grace=self._grace
        )
        self._record(operation)
        try:
            call = CALLS[step.kind]
            if await finishes(lambda: call(self._service, operation), step.cancel):
                operation.outcome = "ok"
        except REFUSALS as exc:
            operation.outcome, operation.error = "failed", type(exc).__name__
        except (OutcomeUnknownError, LeaseLostError) as exc:
            # Of a turn that lost its lease, some is stored.
            operation.error = type(exc).__name__
        except Exception as exc:  # noqa: BLE001 - raw errors are what the checker looks for
            operation.outcome, operation.error = "wrong", repr(exc)
        operation.ended = time.monotonic_ns()
        self._record(operation)
        return operation


async def _append(service: SessionService, operation: Operation) -> None:
    key = operation.step.key
    (sent,) = operation.step.sent
    event = _event(operation, sent)
    revision = operation.expected_revision
    operation.seqs = [(await service.append_event(key, event, expected_revision=revision)).seq]


async def _batch(service: SessionService, operation: Operation) -> None:
    events = [_event(operation, sent) for sent in operation.step.sent]
    stored = await service.append_events(operation.step.key, events)
    operation.seqs = [event.seq for event in stored]


async def _expect(service: SessionService, operation: Operation) -> None:
    """Append only if nobody else has written in between."""
    session = await service.get_session(operation.step.key, num_recent_events=0)
    if session is None:
        raise SessionNotFoundError(operation.step.key)
    operation.view, operation.expected_revision = _view(session), session.revision
    await _append(service, operation)


async def _update(service: SessionService, operation: Operation) -> None:
    await service.update_session_state(operation.step.key, operation.step.values)


async def _update_user(service: SessionService, operation: Operation) -> None:
    await service.update_user_state(operation.step.key.user, operation.step.values)


async def _update_app(service: SessionService, operation: Operation) -> None:
    await service.update_app_state(operation.step.key.app_name, operation.step.values)


async def _create(service: SessionService, operation: Operation) -> None:
    step = operation.step
    # Not found is what a creation raises which succeeded, where somebody has deleted it since.
    with suppress(SessionNotFoundError):
        operation.view = _view(await service.create_session(step.key, step.values))


async def _open(service: SessionService, operation: Operation) -> None:
    step = operation.step
    opened = await service.get_or_create_session(
        step.key, step.values, num_recent_events=step.limit
    )
    operation.view = _view(opened)


async def _delete(service: SessionService, operation: Operation) -> None:
    await service.delete_session(operation.step.key)


async def _erase(service: SessionService, operation: Operation) -> None:
    await service.delete_user(operation.step.key.user)


async def _recent(service: SessionService, operation: Operation) -> None:
    step = operation.step
    operation.view = _view(await service.get_session(step.key, num_recent_events=step.limit))


async def _whole(service: SessionService, operation: Operation) -> None:
    operation.view = _view(await service.get_session(operation.step.key))


async def _page(service: SessionService, operation: Operation) -> None:
    step = operation.step
    newest = await service.get_events(step.key, limit=step.limit, newest_first=True)
    operation.view = View(events=_seen(reversed(newest)))


async def _list(service: SessionService, operation: Operation) -> None:
    user = UserKey(operation.step.key.app_name, operation.step.key.user_id)
    page = await service.list_sessions(user, limit=_MOST_SESSIONS)
    operation.listed = {session.id: session.state for session in page.sessions}
    assert len(operation.listed) == len(page.sessions), "a session is listed twice"
    assert page.next_cursor is None


async def _turn(service: SessionService, operation: Operation) -> None:
    """Run a turn to its end, or leave it in the middle; who is cancelled gives the lease back."""
    step, turn = operation.step, Turn()
    operation.turn = turn
    message, *others = step.sent
    lease = service.lease(
        step.key, run_id=message.id, when_busy=step.when_busy, wait=_WAIT, ttl=1, grace=_GRACE
    )

    async def write(sent: Sent, store: Callable[[Event], Awaitable[Event]], **fields: Any) -> None:
        noted = Write(sent.id, time.monotonic_ns())
        turn.writes.append(noted)
        event = msgspec.structs.replace(_event(operation, sent), **fields)
        try:
            noted.seq = (await store(event)).seq
        except (*REFUSALS, LeaseLostError) as exc:
            noted.refused = not (isinstance(exc, LeaseLostError) and exc.has_begun)
            raise

    async def begin(event: Event) -> Event:
        started = await service.begin_turn(lease, event, num_recent_events=0)
        turn.token, turn.held_from = lease.token, time.monotonic_ns()
        return started.message

    async def go_on(event: Event) -> Event:
        return await service.append_event(step.key, event, lease=lease)

    try:
        await write(message, begin)
        for number, sent in enumerate(others, 1):
            if number == step.leaves_after:
                lease.abandon()
                return
            outcome = "completed" if number == len(others) else ""
            await write(sent, go_on, outcome=outcome)
    except BaseException:
        await lease.release()
        raise


async def _settle(service: SessionService, operation: Operation) -> None:
    """Run a turn by oneself, whoever has the session, so that all before it are closed."""
    sent = operation.step.sent[0]
    lease = service.lease(operation.step.key, run_id=sent.id, when_busy="interrupt", grace=0)
    await service.begin_turn(lease, _event(operation, sent), num_recent_events=0)
    end = Event(author=operation.worker, outcome="completed")
    await service.append_event(operation.step.key, end, lease=lease)


async def _entries(service: SessionService, operation: Operation) -> None:
    """Read the whole log of a session, as it is stored."""
    entries: list[Entry] = []
    while True:
        after = entries[-1].seq if entries else 0
        page = await service.get_events(operation.step.key, after_seq=after, limit=1000, raw=True)
        entries += [Entry(each.seq, each.id, each.invocation_id, each.outcome) for each in page]
        if len(page) < 1000:
            break
    operation.entries = entries


CALLS: dict[str, Callable[[SessionService, Operation], Awaitable[None]]] = {
    "append": _append,
    "batch": _batch,
    "expect": _expect,
    "update": _update,
    "update_user": _update_user,
    "update_app": _update_app,
    "create": _create,
    "open": _open,
    "delete": _delete,
    "erase": _erase,
    "recent": _recent,
    "whole": _whole,
    "page": _page,
    "list": _list,
    "turn": _turn,
    "settle": _settle,
    "entries": _entries,
}


def _event(operation: Operation, sent: Sent) -> Event:
    delta: dict[str, Any] = {
        name: DELETE if value is None else value for name, value in sent.delta.items()
    }
    words = words_of(sent.id, operation.step.key)
    return Event(author=operation.worker, id=sent.id, content=words, state_delta=delta)


def _view(session: Session | None) -> View | None:
    if session is None:
        return None
    return View(
        events=_seen(session.events),
        state=session.state,
        incarnation=session.incarnation,
        last_seq=session.last_seq,
        revision=session.revision,
        updated=to_microseconds(session.updated_at),
    )


def _seen(events: Iterable[Event]) -> list[Seen]:
    return [Seen(event.seq, event.id, str(event.content)) for event in events]
