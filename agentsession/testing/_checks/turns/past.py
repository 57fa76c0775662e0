"""What a copy of a session needs besides its log and its state, read from one and put into one."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from agentsession.backend import Before, Beginning, Claim, Entry, Expected, UnendedTurn
from agentsession.clock import from_microseconds, to_microseconds
from agentsession.codec import encode_event
from agentsession.errors import RewindError, SessionExistsError, SessionNotFoundError
from agentsession.events import Event, Rewind, new_id
from agentsession.state import DELETE, NO_CHANGES, Changes
from agentsession.testing._checks.asserting import raises, said, say, stored_session

if TYPE_CHECKING:
    from agentsession.backend import Backend, PastSlice
    from agentsession.sessions import SessionKey
    from agentsession.testing._subject import Subject


async def check_a_session_begins_where_another_was_trimmed(subject: Subject) -> None:
    """Its log goes on after a position, and it was created when the other one was."""
    service, key = subject.service(), subject.key
    created = 1_600_000_000_123_456
    beginning = Beginning(created, after_seq=5)
    changes = Changes(session={"a": b"1"})
    made = await service.backend.create(key, changes, token=new_id(), beginning=beginning)
    assert (made.created, made.last_seq, made.first_seq, made.oldest_seq) == (created, 5, 1, 6)
    assert [event.seq for event in await service.append_events(key, [say("6"), say("7")])] == [6, 7]
    session = await stored_session(service, key)
    assert session.created_at == from_microseconds(created)
    assert (session.last_seq, session.first_seq, session.state) == (7, 1, {"a": 1})
    assert [event.seq for event in session.events] == [6, 7]
    for to_seq, problem in ((0, "state_trimmed"), (5, "trimmed")):
        with raises(RewindError) as raised:
            await service.rewind(key, to_seq=to_seq)
        assert raised.error.problem == problem
    assert said((await service.rewind(key, to_seq=6)).events) == ["6"]


async def check_a_beginning_may_have_been_taken_back(subject: Subject) -> None:
    """Events up to a position are seen by raw readers alone, also while they are appended."""
    service, key = subject.service(), subject.key
    beginning = Beginning(after_seq=2, first_seq=5, taken_to=4)
    await service.backend.create(key, NO_CHANGES, token=new_id(), beginning=beginning)
    for n in (3, 4, 5):
        await service.append_event(key, say(str(n)))
        seen = [event.seq for event in await service.get_events(key)]
        assert seen == ([5] if n == 5 else [])
    assert [event.seq for event in await service.get_events(key, raw=True)] == [3, 4, 5]
    assert (await stored_session(service, key)).first_seq == 5
    with raises(RewindError) as raised:
        await service.rewind(key, to_seq=4)
    assert raised.error.problem == "taken_back"
    copy = await service.fork(key, subject.another_key())
    assert [event.seq for event in await service.get_events(copy)] == [5]


async def check_a_beginning_without_a_moment_is_now(subject: Subject) -> None:
    """Without a moment of its creation, a session was created when it was written to last."""
    backend = subject.service().backend
    made = await backend.create(
        subject.key, NO_CHANGES, token=new_id(), beginning=Beginning(after_seq=1)
    )
    assert made.created == made.updated


async def check_a_beginning_does_not_replace_a_session(subject: Subject) -> None:
    """One that is there stays as it is."""
    service, key = subject.service(), subject.key
    await service.create_session(key)
    await service.append_event(key, say("1"))
    with raises(SessionExistsError):
        await service.backend.create(
            key, NO_CHANGES, token=new_id(), beginning=Beginning(after_seq=9)
        )
    assert (await stored_session(service, key)).last_seq == 1


async def check_what_state_was_is_told_in_order(subject: Subject) -> None:
    """Each place with what was changed there, by an event or without; and nothing else."""
    service, key = subject.service(), subject.key
    await service.create_session(key, {"a": 1})
    await service.append_event(key, say("1", {"a": 2, "b": b"\0"}))
    await service.append_event(key, say("2", {"a": 2, "user:a": 3, "app:a": 3}))
    await service.update_session_state(key, {"a": 4, "c": 5})
    await service.append_event(key, say("3", {"b": DELETE}))
    for value in (1, DELETE):
        await service.update_session_state(key, {"nothing": value})
    past = await service.backend.read_past(key, after=0, limit=100)
    assert [(each.at, each.was) for each in past.earlier] == [
        (1, {"a": b"1", "b": None}),
        (2.5, {"a": b"2", "c": None}),
        (3, {"b": b"\0\0"}),
    ]
    session = await stored_session(service, key)
    assert (past.more, past.turn) == (False, None)
    assert (past.revision, past.incarnation) == (session.revision, session.incarnation)


async def check_what_state_was_is_told_in_whole_places(subject: Subject) -> None:
    """A slice ends between two places, and one place is never cut, however many names it has."""
    service, key = subject.service(), subject.key
    await service.create_session(key)
    for names in (2, 3, 5000, 1):
        await service.append_event(key, say("", {f"n{n}": new_id() for n in range(names)}))
    read: list[tuple[list[float], bool]] = []
    after = 0.0
    while not read or read[-1][1]:
        past = await service.backend.read_past(key, after=after, limit=4)
        read.append(([each.at for each in past.earlier], past.more))
        after = past.earlier[-1].at
    assert read == [([1], True), ([2], True), ([3], True), ([4], False)]
    all_of = await service.backend.read_past(key, after=0, limit=5)
    assert [len(each.was) for each in all_of.earlier] == [2, 3]
    assert (await service.backend.read_past(key, after=4, limit=1)).earlier == []


async def check_noted_state_is_gone_back_to(subject: Subject) -> None:
    """A copy that was told what state was goes back, and forks, as the original does."""
    service, key, copy = subject.service(), subject.key, subject.another_key()
    await service.create_session(key, {"a": 0})
    for n in (1, 2, 3):
        await service.append_event(key, say(str(n), {"a": n, f"only{n}": n}))
        await service.update_session_state(key, {"between": n})
    past = await _copied(service.backend, key, copy)
    assert await service.backend.read_past(copy, after=0, limit=100) != past
    told = await service.backend.read_past(copy, after=0, limit=100)
    assert told.earlier == past.earlier
    for to_seq in (2, 1, 0):
        forks = [
            await service.fork(each, subject.another_key(), at_seq=to_seq) for each in (key, copy)
        ]
        assert forks[0].state == forks[1].state
        sessions = [await service.rewind(each, to_seq=to_seq) for each in (key, copy)]
        assert sessions[0].state == sessions[1].state == forks[0].state
    assert sessions[1].state == {"a": 0}


async def _copied(backend: Backend, key: SessionKey, copy: SessionKey) -> PastSlice:
    """Make a copy of a session as a transfer does."""
    past = await backend.read_past(key, after=0, limit=100)
    found = await backend.read(key, after_seq=0, before_seq=None, limit=100, newest_first=False)
    state = await _state_of(backend, key)
    await backend.create(copy, Changes(session=state), token=new_id())
    entries = [Entry(new_id(), 1, payload) for payload in found.events]
    await backend.append(copy, entries)
    await backend.note_past(copy, past.earlier)
    return past


async def _state_of(backend: Backend, key: SessionKey) -> dict[str, Any]:
    slice_ = await backend.list_sessions(key.user, 100, None)
    return {**next(each.session for each in slice_.sessions if each.session_id == key.session_id)}


async def check_a_copy_goes_back_to_what_was_trimmed(subject: Subject) -> None:
    """The mark of a copy takes back all that is held then; that of anyone else is refused."""
    service, key = subject.service(event_limit=3), subject.key
    for to_seq, first_seq in ((2, 1), (0, 7)):
        await service.create_session(key, {"a": 1})
        await service.append_events(key, [say(str(n)) for n in range(1, 6)])
        with raises(RewindError):
            await service.backend.append(key, [_mark(to_seq)])
        await service.backend.append(key, [_mark(to_seq, is_copy=True)])
        assert await service.get_events(key) == []
        await service.append_event(key, say("7"))
        session = await stored_session(service, key)
        assert (said(session.events), session.first_seq) == (["7"], first_seq)
        assert [event.seq for event in await service.get_events(key, raw=True)] == [5, 6, 7]
        await service.delete_session(key)


async def check_a_copy_goes_back_and_leaves_state(subject: Subject) -> None:
    """State is that of the whole log already, and what it was is noted anew."""
    service, key = subject.service(event_limit=None), subject.key
    for restores in (True, False):
        await service.create_session(key)
        for n in (1, 2, 3):
            await service.append_event(key, say(str(n), {"a": n}))
        await service.backend.append(key, [_mark(1, is_copy=True, restores=restores)])
        session = await stored_session(service, key)
        assert (said(session.events), session.state) == (["1"], {"a": 3})
        past = await service.backend.read_past(key, after=0, limit=10)
        assert [each.at for each in past.earlier] == [1]
        for to_seq, problem in ((2, "taken_back"), (9, "ahead")):
            with raises(RewindError) as raised:
                await service.backend.append(key, [_mark(to_seq, is_copy=True)])
            assert raised.error.problem == problem
        await service.delete_session(key)


def _mark(to_seq: int, *, is_copy: bool = False, restores: bool = True) -> Entry:
    rewind = Rewind(to_seq, restores)
    event = Event(author="user", rewind=rewind)
    return Entry(event.id, 1, encode_event(event), rewind=rewind, is_copy=is_copy)


async def check_what_is_known_is_not_noted_again(subject: Subject) -> None:
    """Only what comes after all that is known changes anything; else not even the revision does."""
    service, key = subject.service(), subject.key
    await service.create_session(key, {"a": 1})
    await service.append_events(key, [say("1"), say("2", {"a": 2}), say("3")])
    old, new = Before(1, {"a": b'"wrong"'}), Before(2.5, {"a": b"2"})
    revision = (await stored_session(service, key)).revision
    for earlier in ([], [old], [old, Before(2, {"a": b'"wrong"'})]):
        await service.backend.note_past(key, earlier)
        assert (await stored_session(service, key)).revision == revision
    for _ in range(2):
        await service.backend.note_past(key, [old, new])
        assert (await stored_session(service, key)).revision == revision + 1
    past = await service.backend.read_past(key, after=0, limit=10)
    assert [(each.at, each.was) for each in past.earlier] == [(2, {"a": b"1"}), (2.5, {"a": b"2"})]


async def check_the_past_is_of_one_life(subject: Subject) -> None:
    """Neither read from nor noted of a session that is gone, or that was made anew."""
    service, key = subject.service(), subject.key
    backend = service.backend
    with raises(SessionNotFoundError):
        await backend.read_past(key, after=0, limit=1)
    with raises(SessionNotFoundError):
        await backend.note_past(key, [Before(1, {"a": None})])
    session = await service.create_session(key)
    await service.delete_session(key)
    await service.create_session(key, {"a": 1})
    await service.append_event(key, say("1"))
    expected = Expected(session.incarnation)
    with raises(SessionNotFoundError):
        await backend.read_past(key, after=0, limit=1, expected=expected)
    with raises(SessionNotFoundError):
        await backend.note_past(key, [Before(1, {"a": None})], expected=expected)
    assert (await backend.read_past(key, after=0, limit=1)).earlier == []


async def check_noting_the_past_moves_expiry(subject: Subject) -> None:
    """It is a write: what is noted lives as long as the session, which begins anew."""
    service, key = subject.service(session_ttl=100), subject.key
    await service.create_session(key, {"a": 1})
    await service.append_event(key, say("1"))
    await subject.advance(60)
    await service.backend.note_past(key, [Before(1, {"a": None})])
    assert await subject.unexpiring() == []
    await subject.advance(60)
    assert (await service.rewind(key, to_seq=0)).state == {}
    await subject.advance(101)
    assert await service.get_session(key) is None


async def check_a_turn_that_has_not_ended_is_told(subject: Subject) -> None:
    """One that runs, one that waits and one that was left; one that has ended is not."""
    service, key = subject.service(), subject.key
    backend = service.backend
    await service.create_session(key)
    lease = service.lease(key, run_id="a run")
    async with lease:
        assert (await backend.read_past(key, after=0, limit=1)).turn is None
        await service.append_event(key, say("1"), lease=lease)
        past = await backend.read_past(key, after=0, limit=1)
        assert past.turn == UnendedTurn("a run", 0, "interrupted")
        await service.append_event(key, say("2", outcome="waiting"), lease=lease)
    past = await backend.read_past(key, after=0, limit=1)
    assert past.turn == UnendedTurn("a run", 0, "", waits=True)
    # A turn that takes its place closes it with an event.
    async with service.lease(key, run_id="next", when_busy="interrupt") as lease:
        await service.append_event(key, say("4", outcome="completed"), lease=lease)
    assert (await backend.read_past(key, after=0, limit=1)).turn is None
    await _leave_a_turn(backend, key)
    await subject.advance(10)
    past = await backend.read_past(key, after=0, limit=1)
    assert past.turn == UnendedTurn("left", 4, "")


async def _leave_a_turn(backend: Backend, key: SessionKey) -> None:
    """Begin a turn as a process does that dies then."""
    claim = Claim(owner=backend.new_owner(), run_id="left", ttl=1000)
    await backend.acquire(key, claim, 1)
    event = Event(author="user", content="5", invocation_id="left")
    entry = Entry(event.id, to_microseconds(event.timestamp), encode_event(event))
    await backend.append(key, (entry,), expected=Expected(lease=claim.owner))
