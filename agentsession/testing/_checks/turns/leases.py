"""One turn at a time: who has a session's lease, and who is next: promise 11."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from agentsession.backend import LONGEST_LINE, PLACE_KEPT, Claim, Entry, Expected
from agentsession.codec import prepare_event
from agentsession.errors import (
    LeaseLostError,
    RunNotFoundError,
    SessionBusyError,
    SessionNotFoundError,
)
from agentsession.retention import MEBIBYTE
from agentsession.state import split
from agentsession.testing._checks.asserting import raises, said, say, stored_session

if TYPE_CHECKING:
    from collections.abc import Awaitable

    from agentsession.backend import Backend, Standing
    from agentsession.events import Event
    from agentsession.leases import Lease
    from agentsession.service import SessionService
    from agentsession.sessions import SessionKey
    from agentsession.testing._subject import Subject

_SECOND = 1_000_000


class _Claimant:
    """Asks for one lease, call by call."""

    def __init__(self, backend: Backend, key: SessionKey, run_id: str, **options: Any) -> None:
        self.backend = backend
        self.key = key
        options = {"ttl": 15_000, **options}
        self.claim = Claim(owner=backend.new_owner(), run_id=run_id, **options)
        self.attempt = 0

    @property
    def owner(self) -> str:
        return self.claim.owner

    async def ask(self) -> Standing:
        """Ask, again if it was done before."""
        self.attempt += 1
        return await self.backend.acquire(self.key, self.claim, self.attempt)

    async def state(self) -> str:
        """Ask, and tell only where the claim stands."""
        return (await self.ask()).state

    async def release(self) -> None:
        """Give the lease back, or leave the line."""
        await self.backend.release(self.key, self.owner, self.attempt)

    async def renew(self, seconds: float = 15) -> Standing:
        """Renew the lease."""
        return await self.backend.renew(self.key, self.owner, round(seconds * 1000))


def _entry(event: Event) -> Entry:
    payload, _ = prepare_event(event)
    return Entry(event.id, 1_000_000, payload, split(event.state_delta, MEBIBYTE))


async def _made(subject: Subject, **options: Any) -> tuple[SessionService, Backend]:
    service = subject.service(**options)
    await service.create_session(subject.key)
    return service, service.backend


async def check_a_lease_has_one_holder(subject: Subject) -> None:
    """While one has it nobody else does; then the next one, with a larger token."""
    _, backend = await _made(subject)
    tokens: list[int] = []
    for number in range(3):
        one = _Claimant(backend, subject.key, f"run {number}")
        other = _Claimant(backend, subject.key, "other", when_busy="reject")
        held = await one.ask()
        assert (held.state, held.stop, held.unended) == ("held", "", None)
        assert held.ends_at == held.now + 15 * _SECOND
        refused = await other.ask()
        assert (refused.state, refused.run_id) == ("busy", f"run {number}")
        assert refused.ends_at == held.ends_at
        tokens.append(held.token)
        await one.release()
    assert tokens == sorted(set(tokens))
    assert tokens[0] > 0


async def check_a_lease_is_of_one_session(subject: Subject) -> None:
    """Sessions do not wait for each other, and a missing one has no lease."""
    service, backend = await _made(subject)
    another = subject.another_key()
    await service.create_session(another)
    assert await _Claimant(backend, subject.key, "a").state() == "held"
    assert await _Claimant(backend, another, "a").state() == "held"
    missing = subject.another_key()
    nobody = _Claimant(backend, missing, "a")
    for call in (nobody.ask(), nobody.renew(), backend.stop(missing, None)):
        with raises(SessionNotFoundError):
            await call
    await nobody.release()
    assert await service.get_session(missing) is None


async def check_a_repeated_claim_has_the_same_lease(subject: Subject) -> None:
    """Whoever asks again though it has the lease is told the same."""
    _, backend = await _made(subject)
    one = _Claimant(backend, subject.key, "one")
    first, again = await one.ask(), await one.ask()
    assert (first.state, first.token) == (again.state, again.token)


async def check_the_token_grows_for_ever(subject: Subject) -> None:
    """Over leases that ran out, sessions that were deleted, and a clock that went back."""
    service, backend = await _made(subject)
    newest = 0
    for end in ("release", "expire", "delete", "back", "release"):
        one = _Claimant(backend, subject.key, "run")
        held = await one.ask()
        assert held.state == "held"
        assert held.token > newest, end
        newest = held.token
        match end:
            case "release":
                await one.release()
            case "expire":
                await subject.advance(16)
            case "delete":
                await service.delete_session(subject.key)
                await subject.advance(0.001)
                await service.create_session(subject.key)
            case _:
                await one.release()
                if (await stored_session(service, subject.key)).revision:
                    # Of a subject that cannot move its clock, what is stored is newer instead.
                    await subject.set_clock_back(5)


def _writes(
    service: SessionService, key: SessionKey, lease: Lease | None
) -> list[Awaitable[object]]:
    """Write in every way that may name a lease."""
    change = {"n": 1, "user:n": 1, "app:n": 1}
    return [
        service.append_event(key, say("words", change), lease=lease),
        service.append_events(key, [say("words", change), say("words")], lease=lease),
        service.update_session_state(key, change, lease=lease),
    ]


async def check_a_write_with_a_lease_is_stored(subject: Subject) -> None:
    """In every way; the events are of the turn, and the lease is held on."""
    service, _ = await _made(subject)
    async with service.lease(subject.key, run_id="turn") as lease:
        for call in _writes(service, subject.key, lease):
            await call
        own = await service.append_event(subject.key, say("own", invocation_id="x"), lease=lease)
        assert lease.held
    stored = await stored_session(service, subject.key)
    assert [event.invocation_id for event in stored.events] == ["turn"] * 3 + ["x"]
    assert own.invocation_id == "x"
    assert stored.state == {"n": 1, "user:n": 1, "app:n": 1}
    assert not lease.held


async def check_a_write_with_a_lost_lease_is_refused(subject: Subject) -> None:
    """Whether it ran out, was given back, or was taken over: nothing is stored in any scope."""
    service, backend = await _made(subject)
    change = {"n": 1, "user:n": 1, "app:n": 1}
    for end in ("expired", "released", "taken over", "never held"):
        one, other = (_Claimant(backend, subject.key, name) for name in ("one", "other"))
        if end != "never held":
            assert await one.state() == "held"
        match end:
            case "expired":
                await subject.advance(16)
            case "released":
                await one.release()
            case "taken over":
                await subject.advance(16)
                assert await other.state() == "held"
            case _:
                pass
        before = await stored_session(service, subject.key)
        entry = _entry(say("no", change))
        expected = Expected(lease=one.owner)
        for call in (
            backend.append(subject.key, (entry,), expected=expected),
            backend.append(subject.key, (entry,), expected=expected, then="end"),
            backend.append(subject.key, (), expected=expected, then="close"),
            backend.update_state(subject.key, entry.changes, expected=expected),
            one.renew(),
        ):
            with raises(LeaseLostError) as raised:
                await call
            assert raised.error.key == subject.key
        await one.release()
        assert await stored_session(service, subject.key) == before
        if end == "taken over":
            assert (await other.renew()).state == "held"
            await other.release()
        else:
            await subject.advance(16)


async def check_others_may_write_beside_a_lease(subject: Subject) -> None:
    """Tools and webhooks are no turns; while a lease is exclusive they are refused."""
    service, _ = await _made(subject)
    async with service.lease(subject.key):
        for call in _writes(service, subject.key, None):
            await call
    before = await stored_session(service, subject.key)
    async with service.lease(subject.key, run_id="alone", exclusive=True) as lease:
        for call in _writes(service, subject.key, None):
            with raises(SessionBusyError) as raised:
                await call
            assert (raised.error.run_id, raised.error.problem) == ("alone", "exclusive")
            assert raised.error.ends_at is not None
        assert await stored_session(service, subject.key) == before
        event = say("a repeat", id="e")
        await service.append_event(subject.key, event, lease=lease)
        assert (await service.append_event(subject.key, event)).seq == before.last_seq + 1
    await service.append_event(subject.key, say("after"))
    async with service.lease(subject.key, exclusive=True):
        await subject.advance(16)
        await service.append_event(subject.key, say("it ran out"))
        await service.delete_session(subject.key)
    assert await service.get_session(subject.key) is None


async def check_the_line_is_in_the_order_of_arrival(subject: Subject) -> None:
    """Whoever comes first has the lease first, however often the others ask."""
    _, backend = await _made(subject)
    holder = _Claimant(backend, subject.key, "holder")
    await holder.ask()
    line = [_Claimant(backend, subject.key, str(number)) for number in range(5)]
    for one in line:
        standing = await one.ask()
        assert (standing.state, standing.run_id) == ("in_line", "holder")
        assert standing.ask_at == standing.ends_at + 1
    await holder.release()
    late = _Claimant(backend, subject.key, "late")
    for number, one in enumerate(line):
        for other in [late, *line[:number:-1]]:
            standing = await other.ask()
            assert (standing.state, standing.run_id) == ("in_line", str(number))
            assert 0 < standing.ask_at - standing.now <= PLACE_KEPT * 1000 + 1
        rejected = _Claimant(backend, subject.key, "rejected", when_busy="reject")
        assert (await rejected.ask()).run_id == str(number)
        assert await one.state() == "held"
        await one.release()
    assert await late.state() == "held"


async def check_a_waiter_that_dies_loses_its_place(subject: Subject) -> None:
    """A place is kept for so long without being asked for, and no longer."""
    _, backend = await _made(subject)
    holder = _Claimant(backend, subject.key, "holder", ttl=60_000)
    await holder.ask()
    dead, alive, gone = (_Claimant(backend, subject.key, name) for name in ("d", "a", "g"))
    for one in (dead, gone, alive):
        assert await one.state() == "in_line"
    await gone.release()
    await subject.advance(PLACE_KEPT / 1000 * 0.6)
    assert await alive.state() == "in_line"
    await holder.release()
    assert await alive.state() == "in_line"
    await subject.advance(PLACE_KEPT / 1000 * 0.6)
    assert await alive.state() == "held"
    # Whoever comes back is the last in line.
    assert await dead.state() == "in_line"


async def check_the_line_is_bounded(subject: Subject) -> None:
    """Whoever finds it full is refused, and is let in when somebody has left."""
    _, backend = await _made(subject)
    await _Claimant(backend, subject.key, "holder").ask()
    line = [_Claimant(backend, subject.key, str(number)) for number in range(LONGEST_LINE)]
    assert {await one.state() for one in line} == {"in_line"}
    more = _Claimant(backend, subject.key, "more")
    assert await more.state() == "full"
    assert await line[0].state() == "in_line"
    await line[-1].release()
    assert await more.state() == "in_line"


async def check_an_interruption_takes_the_lease_after_a_grace(subject: Subject) -> None:
    """The holder is told, may end, and is fenced off when its grace is over."""
    _, backend = await _made(subject)
    holder = _Claimant(backend, subject.key, "old", ttl=60_000)
    queued = _Claimant(backend, subject.key, "queued")
    await holder.ask()
    await queued.ask()
    new = _Claimant(backend, subject.key, "new", when_busy="interrupt", grace=5_000)
    standing = await new.ask()
    assert (standing.state, standing.run_id) == ("in_line", "old")
    assert standing.ask_at - standing.now <= 5 * _SECOND
    assert (await holder.renew(60)).stop == "interrupted"
    entry = _entry(say("in the grace"))
    await backend.append(subject.key, (entry,), expected=Expected(lease=holder.owner))
    await subject.advance(4)
    assert await new.state() == "in_line"
    await subject.advance(1.5)
    held = await new.ask()
    assert held.state == "held"
    assert held.unended is not None
    assert (held.unended.run_id, held.unended.after_seq) == ("old", 0)
    assert held.unended.stop == "interrupted"
    with raises(LeaseLostError):
        late = _entry(say("after it"))
        await backend.append(subject.key, (late,), expected=Expected(lease=holder.owner))
    assert await queued.state() == "in_line"


async def check_a_holder_that_ends_in_its_grace_makes_way(subject: Subject) -> None:
    """Whoever interrupts comes before those that queue."""
    _, backend = await _made(subject)
    holder = _Claimant(backend, subject.key, "old")
    queued = _Claimant(backend, subject.key, "queued")
    new = _Claimant(backend, subject.key, "new", when_busy="interrupt", grace=5_000)
    await holder.ask()
    await queued.ask()
    await new.ask()
    await holder.release()
    assert await queued.state() == "in_line"
    assert await new.state() == "held"
    await new.release()
    assert await queued.state() == "held"


async def check_of_several_interruptions_the_last_one_runs(subject: Subject) -> None:
    """An earlier one that waits is superseded, and tells nobody to stop any more."""
    _, backend = await _made(subject)
    holder = _Claimant(backend, subject.key, "old")
    await holder.ask()
    first, second = (
        _Claimant(backend, subject.key, name, when_busy="interrupt", grace=5_000)
        for name in ("first", "second")
    )
    assert await first.state() == "in_line"
    assert await second.state() == "in_line"
    standing = await first.ask()
    assert (standing.state, standing.run_id) == ("superseded", "second")
    await holder.release()
    assert await second.state() == "held"
    assert await first.state() == "superseded"
    assert (await second.renew()).stop == ""
    await first.release()
    await second.release()
    third = _Claimant(backend, subject.key, "third", when_busy="interrupt")
    assert await third.state() == "held"


async def check_a_lease_is_renewed(subject: Subject) -> None:
    """As long as it is renewed in time it is held, never shortened, and the session lives."""
    service, backend = await _made(subject, session_ttl=20)
    one = _Claimant(backend, subject.key, "one")
    held = await one.ask()
    for _ in range(5):
        await subject.advance(10)
        renewed = await one.renew()
        assert (renewed.state, renewed.token) == ("held", held.token)
        assert renewed.incarnation == held.incarnation
    longest = await one.renew(60)
    assert (await one.renew(15)).ends_at == longest.ends_at
    await subject.advance(19)
    assert await service.get_session(subject.key) is not None
    assert (await one.renew(60)).state == "held"


async def check_no_session_expires_as_its_turn_begins(subject: Subject) -> None:
    """Whoever takes a lease has as much time as after a write."""
    service, backend = await _made(subject, session_ttl=20)
    await subject.advance(19)
    one = _Claimant(backend, subject.key, "one")
    assert await one.state() == "held"
    await subject.advance(14)
    assert (await one.renew()).state == "held"
    assert await service.get_session(subject.key) is not None


async def check_a_claim_that_joins_disturbs_nobody(subject: Subject) -> None:
    """Where a turn of its own run has the lease it is refused, whatever it would do else."""
    _, backend = await _made(subject)
    holder = _Claimant(backend, subject.key, "one")
    waiting = _Claimant(backend, subject.key, "two", when_busy="interrupt", grace=60_000)
    await holder.ask()
    for when_busy in ("queue", "reject", "interrupt"):
        again = _Claimant(backend, subject.key, "one", when_busy=when_busy, joins=True)
        standing = await again.ask()
        assert (standing.state, standing.run_id) == ("busy", "one")
        assert (await holder.renew()).stop == ""
    assert await waiting.state() == "in_line"
    again = _Claimant(backend, subject.key, "one", when_busy="interrupt", joins=True)
    assert await again.state() == "busy"
    assert await waiting.state() == "in_line"
    await holder.release()
    assert await waiting.state() == "held"


async def check_who_interrupts_and_was_not_superseded_begins_anew(subject: Subject) -> None:
    """Where its place was lost in another way: it came too late, or the session is another one."""
    service, backend = await _made(subject)
    for end in ("late", "another life"):
        await _Claimant(backend, subject.key, "old").ask()
        new = _Claimant(backend, subject.key, "new", when_busy="interrupt", grace=60_000)
        assert await new.state() == "in_line"
        if end == "late":
            await subject.advance(16)
        else:
            await service.delete_session(subject.key)
            await service.create_session(subject.key)
        assert await new.state() == "held"
        await new.release()


async def check_asking_for_a_lease_is_no_write(subject: Subject) -> None:
    """Neither the revision nor the time of the last write moves, nor does an expiry."""
    service, backend = await _made(subject, session_ttl=20)
    before = await stored_session(service, subject.key)
    one = _Claimant(backend, subject.key, "one")
    busy = _Claimant(backend, subject.key, "busy")
    await one.ask()
    await subject.advance(12)
    assert await busy.state() == "in_line"
    await busy.release()
    await one.release()
    await one.release()
    assert await backend.stop(subject.key, None) is None
    assert await stored_session(service, subject.key) == before
    await subject.advance(12)
    assert await service.get_session(subject.key) is None


async def check_a_turn_is_told_to_stop(subject: Subject) -> None:
    """By its id, or whichever has the session; a run that is over is an error."""
    service, backend = await _made(subject)
    assert await service.stop_run(subject.key) is False
    with raises(RunNotFoundError) as raised:
        await service.stop_run(subject.key, "one")
    assert (raised.error.key, raised.error.run_id) == (subject.key, "one")
    for named in (None, "one / é,!"):
        one = _Claimant(backend, subject.key, "one / é,!")
        await one.ask()
        with raises(RunNotFoundError):
            await service.stop_run(subject.key, "another")
        assert (await one.renew()).stop == ""
        assert await service.stop_run(subject.key, named) is True
        assert await service.stop_run(subject.key, named) is True
        assert (await one.renew()).stop == "cancelled"
        assert (await one.ask()).stop == "cancelled"
        await one.release()
        with raises(RunNotFoundError):
            await service.stop_run(subject.key, "one / é,!")
    two = _Claimant(backend, subject.key, "two")
    assert (await two.ask()).stop == ""
    await subject.advance(16)
    assert await service.stop_run(subject.key) is False


async def check_the_end_of_a_turn_gives_its_lease_back(subject: Subject) -> None:
    """In the step that stores it, which a repeat finds done, though another has the lease."""
    service, backend = await _made(subject)
    lease = service.lease(subject.key, run_id="one")
    await lease.acquire()
    waiting = _Claimant(backend, subject.key, "two")
    assert await waiting.state() == "in_line"
    end = say("the end", id="end", outcome="completed")
    stored = await service.append_event(subject.key, end, lease=lease)
    assert not lease.held
    assert await waiting.state() == "held"
    entry = _entry(end)
    expected = Expected(lease=lease.owner)
    again = await backend.append(subject.key, (entry,), expected=expected, then="end")
    assert (again.seqs, stored.outcome) == ([1], "completed")
    assert (await waiting.renew()).state == "held"
    with raises(LeaseLostError):
        await service.append_event(subject.key, say("late"), lease=lease)


async def check_a_lease_is_of_one_life(subject: Subject) -> None:
    """Of a session that was deleted and made anew it writes nothing, and nobody has its lease."""
    service, backend = await _made(subject)
    lease = service.lease(subject.key)
    await lease.acquire()
    await service.delete_session(subject.key)
    await service.create_session(subject.key)
    with raises(SessionNotFoundError) as raised:
        await service.append_event(subject.key, say("no"), lease=lease)
    assert raised.error.replaced
    old = _Claimant(backend, subject.key, "old")
    with raises(SessionNotFoundError):
        await backend.acquire(subject.key, old.claim, 1, expected=Expected(lease.incarnation))
    fresh = _Claimant(backend, subject.key, "fresh", when_busy="reject")
    assert await fresh.state() == "held"
    await lease.release()
    assert (await fresh.renew()).state == "held"
    assert said((await stored_session(service, subject.key)).events) == []


async def check_no_lease_outlives_its_holder_by_a_clock(subject: Subject) -> None:
    """Where the clock goes back by hours, the lease of a dead process ends all the same."""
    _, backend = await _made(subject)
    dead, waiter = (_Claimant(backend, subject.key, name) for name in ("dead", "waiter"))
    await dead.ask()
    await waiter.ask()
    await subject.set_clock_back(3600)
    one = _Claimant(backend, subject.key, "one")
    assert await one.state() == "held"
    with raises(LeaseLostError):
        await dead.renew()
