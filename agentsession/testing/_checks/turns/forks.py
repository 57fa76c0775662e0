"""A session that begins as another one was: promise 14."""

from __future__ import annotations

from typing import TYPE_CHECKING

from agentsession.errors import SessionExistsError, SessionNotFoundError
from agentsession.events import Event, ToolCall, ToolResult, new_id
from agentsession.history import NO_RESULT, unanswered_calls
from agentsession.sessions import SessionKey
from agentsession.testing._checks.asserting import raises, said, say, stored_session

if TYPE_CHECKING:
    from agentsession.leases import Lease
    from agentsession.service import SessionService
    from agentsession.testing._subject import Subject


async def _begun(service: SessionService, key: SessionKey, event: Event) -> Lease:
    """Make a session, and begin a turn in which a tool is called."""
    await service.create_session(key, {"n": 0})
    await service.append_event(key, say("before", {"n": 1}))
    lease = service.lease(key, run_id="one")
    await service.begin_turn(lease, say("one", id="one"))
    await service.append_event(key, event, lease=lease)
    return lease


async def check_a_fork_is_what_the_session_was(subject: Subject) -> None:
    """Log, positions and state, after each event; and then each goes its own way."""
    service = subject.service(event_limit=None)
    origin = await service.create_session(subject.key, {"n": 0, "user:u": 1, "app:a": 1})
    seen = [(origin.events, origin.state)]
    for number in range(1, 5):
        delta = {"n": number, f"x{number}": True}
        await service.append_event(subject.key, say(str(number), delta))
        session = await stored_session(service, subject.key)
        seen.append((session.events, session.state))
    await service.update_session_state(subject.key, {"since": 1})
    before = await stored_session(service, subject.key)
    for seq, (events, state) in enumerate(seen):
        key = subject.another_key()
        fork = await service.fork(subject.key, key, at_seq=seq)
        assert fork == await stored_session(service, key)
        assert (fork.events, fork.state) == (events, state)
        assert (fork.revision, fork.last_seq, fork.first_seq) == (1, seq, 1)
        assert fork.incarnation != before.incarnation
        stored = await service.append_event(key, say("on", {"n": "on"}))
        assert stored.seq == seq + 1
    whole = await service.fork(before, SessionKey(subject.key.app_name, subject.key.user_id))
    assert whole.id
    assert (whole.events, whole.state) == (before.events, before.state)
    assert await stored_session(service, subject.key) == before
    page = await service.list_sessions(subject.key.user)
    assert len(page.sessions) == len(seen) + 2
    await service.delete_session(subject.key)
    assert (await stored_session(service, whole.key)).events == before.events


async def check_a_fork_goes_back_as_the_session_does(subject: Subject) -> None:
    """It has what was taken back, and what state was before."""
    service = subject.service(event_limit=None)
    await service.create_session(subject.key, {"n": 0})
    for number in range(1, 5):
        await service.append_event(subject.key, say(str(number), {"n": number}))
    await service.append_events(subject.key, [say("5", {"n": 5}), say("6")], rewind_to=3)
    fork = await service.fork(subject.key, subject.another_key(), at_seq=6)
    assert said(fork.events) == ["1", "2", "3", "5"]
    raw = await service.get_events(fork.key, raw=True)
    assert raw == (await service.get_events(subject.key, raw=True))[:6]
    again = await service.fork(fork.key, subject.another_key(), at_seq=2)
    assert (said(again.events), again.state) == (["1", "2"], {"n": 2})
    for seq, number in ((6, 5), (3, 3), (1, 1), (0, 0)):
        session = await service.rewind(fork.key, to_seq=seq)
        assert session.state == {"n": number}
    assert (await stored_session(service, subject.key)).state == {"n": 5}


async def check_a_fork_knows_the_events_that_it_has(subject: Subject) -> None:
    """They are stored once in it too; those that came later are new to it."""
    service = subject.service(event_limit=3)
    await service.create_session(subject.key)
    for number in range(5):
        await service.append_event(subject.key, say(str(number), id=f"e{number}"))
    fork = await service.fork(subject.key, subject.another_key(), at_seq=4)
    assert said(fork.events) == ["2", "3"]
    again = [say("other", id=f"e{number}") for number in (1, 3, 4)]
    stored = await service.append_events(fork.key, again)
    assert [event.seq for event in stored] == [2, 4, 5]
    assert said(await service.get_events(fork.key)) == ["2", "3", "other"]
    assert (await service.get_events(fork.key, around="e3", limit=1))[0].content == "3"


async def check_a_fork_takes_no_id_that_is_in_use(subject: Subject) -> None:
    """Nor one of another user, nor is there one of a session that is not there."""
    service = subject.service()
    await service.create_session(subject.key)
    await service.append_event(subject.key, say("1"))
    other = await service.create_session(subject.another_key(), {"n": 1})
    for key in (other.key, subject.key):
        with raises(SessionExistsError):
            await service.fork(subject.key, key)
    assert await stored_session(service, other.key) == other
    with raises(ValueError):
        await service.fork(subject.key, SessionKey(subject.key.app_name, "somebody", "s"))
    missing, new = subject.another_key(), subject.another_key()
    with raises(SessionNotFoundError) as raised:
        await service.fork(missing, new)
    assert raised.error.key == missing
    assert await service.get_session(new) is None


async def check_a_fork_is_made_once(subject: Subject) -> None:
    """A repeat of the call finds its own, whatever became of the session meanwhile."""
    service = subject.service()
    await service.create_session(subject.key)
    await service.append_event(subject.key, say("1"))
    backend, new, token = service.backend, subject.another_key(), new_id()
    first = await backend.fork(subject.key, new, None, token=token)
    await service.append_event(new, say("2"))
    await service.delete_session(subject.key)
    again = await backend.fork(subject.key, new, None, token=token)
    assert again.incarnation == first.incarnation
    assert said((await stored_session(service, new)).events) == ["1", "2"]


async def check_a_turn_that_runs_is_closed_in_the_fork(subject: Subject) -> None:
    """It goes on in the session alone; whoever comes to the fork first ends it there."""
    service = subject.service(event_limit=None)
    lease = await _begun(service, subject.key, Event(author="a", content=[ToolCall("c", "t")]))
    fork = await service.fork(subject.key, subject.another_key())
    assert len(fork.events) == 3
    end = await service.close_turn(fork.key)
    assert end is not None
    assert (end.outcome, end.invocation_id) == ("interrupted", "one")
    assert end.content == [ToolResult("c", NO_RESULT, "t", is_error=True)]
    async with service.lease(fork.key, wait=0):
        pass
    answer = Event(author="tool", content=[ToolResult("c", 1)], outcome="completed")
    await service.append_event(subject.key, answer, lease=lease)
    assert unanswered_calls(await service.get_events(subject.key)) == []
    # What has stored nothing is not closed.
    async with service.lease(subject.key):
        quiet = await service.fork(subject.key, subject.another_key())
        assert await service.close_turn(quiet.key) is None


async def check_a_turn_that_waits_does_so_in_both(subject: Subject) -> None:
    """Each is answered for itself."""
    service = subject.service(event_limit=None)
    call = Event(author="a", content=[ToolCall("c", "t")], outcome="waiting")
    await _begun(service, subject.key, call)
    fork = await service.fork(subject.key, subject.another_key())
    for key, result in ((fork.key, "no"), (subject.key, "yes")):
        lease = service.lease(key)
        await service.resume_turn(lease, [ToolResult("c", result)])
        end = Event(author="a", content=result, outcome="completed")
        await service.append_event(key, end, lease=lease)
        assert said(await service.get_events(key))[-1] == result
    early = await service.fork(subject.key, subject.another_key(), at_seq=1)
    assert early.state == {"n": 1}
    async with service.lease(early.key, wait=0):
        pass


async def check_a_fork_expires_as_a_session_does(subject: Subject) -> None:
    """Whole, when nobody writes to it, whatever is written to the other one."""
    service = subject.service(session_ttl=100)
    await service.create_session(subject.key, {"n": 0})
    await service.append_events(subject.key, [say("1", {"n": 1}), say("2", {"n": 2})])
    await service.append_event(subject.key, say("3", {"n": 3}))
    await service.rewind(subject.key, to_seq=2)
    fork = await service.fork(subject.key, subject.another_key())
    await subject.advance(60)
    await service.append_event(subject.key, say("4", {"n": 4}))
    await subject.advance(60)
    assert await service.get_session(fork.key) is None
    await service.create_session(fork.key)
    session = await service.rewind(subject.key, to_seq=1)
    assert session.state == {"n": 1}
    assert await subject.unexpiring() == []
