"""A session that one holds, and what a backend returns: how one becomes the other. No I/O."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any

import msgspec
import pytest

from agentsession import Event, Session, SessionKey, SessionService
from agentsession._service.assembly import apply_fresh
from agentsession.backend import ANYTHING, Entry, Expected, Receipt, Snapshot, Then, Window
from agentsession.errors import BackendUnavailableError, SessionNotFoundError
from agentsession.events import UNREADABLE
from agentsession.memory import MemoryBackend
from agentsession.retention import Retention
from agentsession.state import NO_CHANGES

KEY = SessionKey("app", "user", "session")
EARLY, LATE = datetime(2026, 1, 1, tzinfo=UTC), datetime(2026, 1, 2, tzinfo=UTC)


def say(words: str, **fields: Any) -> Event:
    return Event(author="user", content=words, **fields)


FIRST = say("1", seq=1)
# What was read has all of the events.
READ = Snapshot(
    session_id="session", incarnation="one", created=1, updated=1, revision=2, last_seq=1
)


def held() -> Session:
    return Session(
        key=KEY,
        state={"n": 1, "user:n": 1, "temp:n": 1},
        events=[FIRST],
        created_at=EARLY,
        updated_at=EARLY,
        revision=2,
        last_seq=1,
        incarnation="one",
    )


def test_what_was_read_later_is_taken_over_whole() -> None:
    """Events that are new are added, and the merged state is that of the read, with ``temp:``."""
    session = held()
    fresh = msgspec.structs.replace(
        held(),
        state={"user:m": 2},
        events=[FIRST, say("2", seq=2)],
        updated_at=LATE,
        revision=3,
        last_seq=2,
    )
    apply_fresh(session, fresh, READ)
    assert session.state.pop("temp:n") == 1
    assert session == fresh


def test_a_read_of_the_same_revision_may_know_more() -> None:
    """User and application state move no revision, so the read's count all the same."""
    session = held()
    apply_fresh(session, msgspec.structs.replace(held(), state={"n": 1, "app:n": 2}), READ)
    assert session.state == {"n": 1, "app:n": 2, "temp:n": 1}
    assert session.events == [FIRST]


@pytest.mark.parametrize("other", [{"revision": 1}, {"incarnation": "two", "revision": 9}])
def test_what_is_older_or_another_session_is_left(other: dict[str, Any]) -> None:
    """Neither an overtaken read nor one of a session made anew changes what one holds."""
    session = held()
    apply_fresh(session, msgspec.structs.replace(held(), state={}, updated_at=LATE, **other), READ)
    assert session == held()


def test_an_object_of_no_incarnation_takes_any() -> None:
    """One that was made by hand stands for whatever session has its key."""
    session = msgspec.structs.replace(held(), incarnation="")
    apply_fresh(session, msgspec.structs.replace(held(), state={}, revision=3), READ)
    assert (session.state, session.revision) == ({"temp:n": 1}, 3)


class Replacing(MemoryBackend):
    """Deletes a session and makes it anew just before it is read."""

    async def get(self, key: SessionKey, window: Window) -> Snapshot | None:
        await self.delete(key)
        await super().get_or_create(key, NO_CHANGES, window)
        return await super().get(key, window)


async def test_a_session_replaced_before_it_is_read_anew_is_left_alone() -> None:
    """The append succeeded on the old one; the object stays of that one, so the next one raises."""
    backend = Replacing(Retention())
    async with SessionService(backend) as service:
        session = await service.create_session(KEY, {"n": 1})
        await service.append_event(KEY, say("theirs"))
        assert (await service.append_event(session, say("mine"))).seq == 2
        assert (session.events, session.state, session.revision) == ([], {"n": 1}, 1)
        with pytest.raises(SessionNotFoundError) as raised:
            await service.append_event(session, say("late"))
        assert raised.value.replaced
        assert await service.get_events(KEY) == []


class Unreadable(MemoryBackend):
    """Cannot be reached when a session is to be read."""

    async def get(self, key: SessionKey, window: Window) -> Snapshot | None:
        raise BackendUnavailableError(key, "nothing was written")


async def test_an_append_that_was_stored_does_not_fail_by_what_is_read_after_it() -> None:
    """The object stays as it was until the next write brings it up to date."""
    async with SessionService(Unreadable(Retention())) as service:
        session = await service.create_session(KEY)
        await service.append_event(KEY, say("theirs"))
        assert (await service.append_event(session, say("mine"))).seq == 2
        assert (session.events, session.last_seq) == ([], 0)
        assert len(await service.get_events(KEY)) == 2


async def test_a_repeat_of_an_unreadable_event_says_that_it_is() -> None:
    """Another one stands for an event of a newer format, here as in every page."""
    backend = MemoryBackend(Retention())
    async with SessionService(backend) as service:
        await service.create_session(KEY)
        first = await service.append_event(KEY, say("first"))
        log = backend._users.get_or_add(KEY.user).sessions["session"].log
        log._payloads[0] = log._payloads[0].replace(b'{"v":1,', b'{"v":2,')
        stored = await service.append_event(KEY, first)
        assert (stored.id, stored.seq, stored.content) == (first.id, 1, "")
        assert stored.error is not None
        assert stored.error.type == UNREADABLE
        assert "format 2" in stored.error.message


class Counting(MemoryBackend):
    """Loses the first answer to each append, repeats it itself, and counts reads."""

    reads = 0

    async def append(
        self,
        key: SessionKey,
        entries: Sequence[Entry],
        *,
        expected: Expected = ANYTHING,
        then: Then = "keep",
    ) -> Receipt:
        await super().append(key, entries, expected=expected, then=then)
        return await super().append(key, entries, expected=expected, then=then)

    async def get(self, key: SessionKey, window: Window) -> Snapshot | None:
        self.reads += 1
        return await super().get(key, window)


async def test_nothing_is_read_anew_without_need() -> None:
    """An append that its backend repeated, and a repeat of one's own, cost no second round trip."""
    backend = Counting(Retention())
    async with SessionService(backend) as service:
        session = await service.create_session(KEY)
        first = await service.append_event(session, say("1", state_delta={"n": 1}))
        batch = [say("2", state_delta={"n": 2}), say("3", state_delta={"n": 3, "temp:n": 3})]
        await service.append_events(session, batch)
        await service.append_event(session, first)
        await service.append_event(session, say("other", state_delta={"n": 4}, id=first.id))
        assert backend.reads == 0
        assert session.state.pop("temp:n") == 3
        assert session == await service.get_session(KEY)


def test_what_is_no_name_does_not_survive() -> None:
    """Whoever put it into the object gets what is stored, and no error of ours."""
    session = held()
    session.state[5] = "no name"  # type: ignore[index]  # on purpose
    apply_fresh(session, msgspec.structs.replace(held(), state={"n": 2}, revision=9), READ)
    assert session.state == {"n": 2, "temp:n": 1}
