"""How a lease is taken, kept and given back."""

from __future__ import annotations

import asyncio
from contextlib import ExitStack, suppress
from typing import TYPE_CHECKING, Any, Final, Literal, TypeVar, get_args

import msgspec

from agentsession._wording import described
from agentsession.backend import Claim, Expected, UnendedTurn, WhenBusy
from agentsession.clock import from_microseconds
from agentsession.errors import (
    AgentSessionError,
    BackendError,
    ClosedError,
    LeaseLostError,
    SessionBusyError,
)
from agentsession.events import new_id
from agentsession.leases import Lease, Told
from agentsession.retention import seconds

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Coroutine

    from agentsession.backend import Backend, Standing, Then
    from agentsession.events import Event
    from agentsession.retention import Duration
    from agentsession.sessions import SessionKey

__all__ = [
    "Leasing",
    "ServiceLease",
    "check_lease",
    "check_run_id",
    "checked_claim",
    "checked_wait",
]

_T = TypeVar("_T")

# In seconds. A place in line is kept for ten without being asked for again.
_ASK_AGAIN: Final = 3.0
# So that a store that says it may be asked at once is not asked without end.
_SHORTEST_PAUSE: Final = 0.005
# However short sessions live, a lease is not renewed more often than that.
_SHORTEST_RENEWAL: Final = 0.1
# A turn that is as short as most need not open the connection on which it would be told to stop.
_LISTEN_AFTER: Final = 1.0

_LONGEST_RUN_ID: Final = 1000
_LONGEST: Final = 3600.0


def check_lease(lease: object) -> ServiceLease:
    """Check that it is a lease of a service."""
    if not isinstance(lease, ServiceLease):
        kind = type(lease).__qualname__
        msg = f"a lease comes from service.lease(), and is no {kind}: {lease!r:.80}"
        raise TypeError(msg)
    return lease


def checked_claim(
    owner: str,
    *,
    when_busy: WhenBusy,
    ttl: Duration,
    grace: Duration,
    exclusive: bool = False,
    run_id: str | None = None,
) -> Claim:
    """Check what is asked of a lease."""
    if when_busy not in get_args(WhenBusy):
        known = ", ".join(map(repr, get_args(WhenBusy)))
        msg = f"when_busy must be one of {known}, not {when_busy!r:.80}"
        raise ValueError(msg)
    if type(exclusive) is not bool:
        msg = f"exclusive must be True or False, not {exclusive!r:.80}"
        raise TypeError(msg)
    if run_id is None:
        run_id = new_id()
    else:
        check_run_id(run_id)
    lives = _seconds("ttl", ttl)
    if not 1 <= lives <= _LONGEST:
        msg = (
            f"ttl must be from 1 to {_LONGEST:,.0f} seconds, not {lives:g}: a shorter one could "
            "run out before it is renewed"
        )
        raise ValueError(msg)
    return Claim(
        owner=owner,
        run_id=run_id,
        ttl=round(lives * 1000),
        when_busy=when_busy,
        grace=round(_seconds("grace", grace) * 1000),
        exclusive=exclusive,
    )


def checked_wait(wait: Duration) -> float:
    """Check how long a lease may stand in line."""
    return _seconds("wait", wait)


def check_run_id(run_id: str) -> None:
    """Check a turn's id."""
    if type(run_id) is not str:
        msg = f"run_id must be a str, not {type(run_id).__qualname__}: {run_id!r:.80}"
        raise TypeError(msg)
    if not 1 <= len(run_id) <= _LONGEST_RUN_ID:
        msg = f"run_id must have from 1 to {_LONGEST_RUN_ID:,} characters, not {len(run_id):,}"
        raise ValueError(msg)
    try:
        run_id.encode()
    except UnicodeEncodeError as exc:
        msg = f"run_id holds half of a surrogate pair at position {exc.start}, not valid Unicode"
        raise ValueError(msg) from exc


def _seconds(name: str, value: Duration) -> float:
    """Read a span of time of up to an hour."""
    span = seconds(name, value) or 0.0
    if span > _LONGEST:
        msg = f"{name} must be at most {_LONGEST:,.0f} seconds, not {span:g}"
        raise ValueError(msg)
    return span


class Leasing:
    """The leases of a service, and what goes on for them in the background.

    Args:
        backend: Keeps the sessions.
        close: Closes a turn that was left: before a lease was taken over, or by its own holder.
    """

    def __init__(
        self,
        backend: Backend,
        close: Callable[[ServiceLease, UnendedTurn, Then], Awaitable[Event | None]],
    ) -> None:
        self.backend = backend
        self.close = close
        self.taken: set[ServiceLease] = set()
        self._tasks: set[asyncio.Task[Any]] = set()

    def begin(self, work: Coroutine[Any, Any, _T]) -> asyncio.Task[_T]:
        """Do something that goes on though nobody waits for it."""
        task = asyncio.create_task(work, name="agentsession-lease")
        self._tasks.add(task)
        task.add_done_callback(self._ended)
        return task

    def _ended(self, task: asyncio.Task[Any]) -> None:
        self._tasks.discard(task)
        if not task.cancelled():
            task.exception()  # A caller that was cancelled will not ask for it.

    async def aclose(self) -> None:
        """Give back what is held, and wait until that is done."""
        for lease in [*self.taken]:
            lease.give_up()
        while self._tasks:
            await asyncio.wait(self._tasks)


class ServiceLease(Lease):
    """A lease of a service.

    Args:
        leasing: Whose it is.
        key: The session.
        claim: What is asked of the backend.
        wait: How many seconds it may stand in line.
        incarnation: Which session it must be; ``""`` for any.
    """

    def __init__(
        self, leasing: Leasing, key: SessionKey, claim: Claim, *, wait: float, incarnation: str
    ) -> None:
        super().__init__(key, claim.run_id, claim.owner)
        self._leasing = leasing
        self._backend = leasing.backend
        self._claim = claim
        self._wait = wait
        self._incarnation = incarnation
        self._is_forgotten = False
        self._attempt = 0
        self._asked_at = 0.0
        self._token = 0
        self._state: Literal["new", "asking", "held", "over"] = "new"
        self._told: Told | None = None
        self._is_told = asyncio.Event()
        self._when_told: Callable[[Told], None] | None = None
        # When it is lost for sure, on the loop's clock, and what watches over it until then.
        self._ends = 0.0
        self._timers: list[asyncio.TimerHandle] = []
        self._renewing = self._renew_again = False
        self._listening = ExitStack()
        # Set when there may be news while it stands in line, also that it is not wanted any more.
        self._news = asyncio.Event()
        # Where the message of its turn is, once that has begun; -1 if that is not known.
        self.begun_at = 0
        # After this position the events of its turn come.
        self.after_seq = 0
        # Whether it goes on with a turn that waits, and has stored nothing yet.
        self.resumes = False
        # Whether it was held, or in line, and lost before its holder knew: an answer was lost, and
        # more may have been stored with it than is known here.
        self.was_gone = False
        # Takes it and stores the message, if it is taken so.
        self.beginning: asyncio.Task[Any] | None = None
        # The end of the turn that was left before, once it is closed.
        self.closed: Event | None = None

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self._state} run_id={self.run_id!r} of {self.key!r}>"

    @property
    def token(self) -> int:
        return self._token

    @property
    def incarnation(self) -> str:
        return self._incarnation

    @property
    def expected(self) -> Expected:
        """What a write with it takes for granted."""
        return Expected(self._incarnation, lease=self.owner)

    @property
    def may_have_begun(self) -> bool:
        """Whether the message of its turn may be stored."""
        return self.was_gone or self.begun_at != 0

    def naming(self, expected: Expected) -> Expected:
        """Add the lease to what a write takes for granted."""
        incarnation = expected.incarnation or self._incarnation
        return Expected(incarnation, expected.revision, self.owner)

    def check(self, key: SessionKey) -> None:
        """Check that something may be written with it.

        Raises:
            LeaseLostError: It is lost, or was given back.
            RuntimeError: It was not taken yet.
            ValueError: It is of another session.
        """
        if key != self.key:
            msg = f"{described(key)}: the lease is of another session: {described(self.key)}"
            raise ValueError(msg)
        if self._state in ("new", "asking"):
            msg = (
                f"{described(self.key)}: the lease was not taken yet; write 'async with "
                "service.lease(...) as lease'"
            )
            raise RuntimeError(msg)
        if not self.held:
            raise LeaseLostError(key)

    @property
    def held(self) -> bool:
        return self._state == "held" and self._told != "lost"

    @property
    def told(self) -> Told | None:
        return self._told

    async def wait_until_told(self) -> Told:
        while self._told is None:
            await self._is_told.wait()
        return self._told

    def when_told(self, call: Callable[[Told], None]) -> None:
        self._when_told = call
        if self._told is not None:
            call(self._told)

    # -- taking it

    async def acquire(self) -> None:
        self.start()
        try:
            await self.settle(await self.ask())
        except BaseException:
            await self.release()
            raise

    def start(self) -> None:
        """Note that it is used, once."""
        if self._state != "new":
            msg = f"{described(self.key)}: a lease is used once; make another with service.lease()"
            raise RuntimeError(msg)
        self._state = "asking"
        self._leasing.taken.add(self)

    async def ask(self) -> Standing:
        """Ask the store once."""
        self._attempt += 1
        self._asked_at = asyncio.get_running_loop().time()
        expected = Expected(self._incarnation)
        return await self._backend.acquire(self.key, self._claim, self._attempt, expected=expected)

    def forget(self) -> None:
        """Note that whoever asked for it has gone: if it is not held yet, it is not waited for."""
        self._is_forgotten = True
        self._news.set()

    def resume(self) -> None:
        """Ask for the lease of whichever turn waits."""
        self.resumes = True
        self._claim = msgspec.structs.replace(self._claim, run_id="", resumes=True)

    def join(self) -> None:
        """Do not wait for a turn of the same run."""
        self._claim = msgspec.structs.replace(self._claim, joins=True)

    async def settle(self, standing: Standing) -> None:
        """Wait in line if need be until the lease is held, and close what was left.

        Args:
            standing: What the store has answered.
        """
        gives_up = self._asked_at + self._wait
        with ExitStack() as listening:
            is_listening = False
            while standing.state != "held":
                self._check_wanted()
                if standing.state not in ("in_line", "refused", "gone"):
                    raise self._busy(standing)
                self.was_gone = self.was_gone or standing.state == "gone"
                if standing.state == "in_line" and is_listening:
                    await self._wait_in_line(standing, gives_up)
                elif not is_listening:
                    # What happened before this is seen by asking again.
                    hear = self._backend.listen(self.key, self.owner, self._news.set)
                    listening.enter_context(hear)
                    is_listening = True
                self._news.clear()
                standing = await self.ask()
        self._check_wanted()
        self._hold(standing)
        if standing.unended is not None:
            self.closed = await self._leasing.close(self, standing.unended, "close")

    def _check_wanted(self) -> None:
        """Refuse to go on if nobody wants the lease any more.

        Whoever closes the service, or is cancelled, has given it up meanwhile; what was asked for
        since then is given back.
        """
        if self._state == "over":
            self._leasing.begin(self._give_back())
            raise ClosedError
        if self._is_forgotten and not self.begun_at:
            raise asyncio.CancelledError

    async def _wait_in_line(self, standing: Standing, gives_up: float) -> None:
        """Wait for news, but not longer than until the store should be asked again."""
        loop = asyncio.get_running_loop()
        pause = min(_ASK_AGAIN, gives_up - loop.time())
        if standing.ask_at:
            pause = min(pause, (standing.ask_at - standing.now) / 1_000_000)
        with suppress(TimeoutError):
            async with asyncio.timeout(max(pause, _SHORTEST_PAUSE)):
                await self._news.wait()
        self._check_wanted()
        if loop.time() >= gives_up and not self._news.is_set():
            raise self._busy(standing, waited=True)

    def _busy(self, standing: Standing, *, waited: bool = False) -> SessionBusyError:
        ends_at = from_microseconds(standing.ends_at) if standing.ends_at else None
        if standing.state not in ("in_line", "refused", "gone"):
            self.end()  # There is nothing to give back.
        if standing.state in ("full", "superseded"):
            return SessionBusyError(self.key, standing.run_id, ends_at, standing.state)
        return SessionBusyError(self.key, standing.run_id, ends_at, "waited" if waited else "busy")

    # -- having it

    def _hold(self, standing: Standing) -> None:
        """Note that it is held, and begin to renew it in time."""
        loop = asyncio.get_running_loop()
        self._state = "held"
        self._token, self._incarnation = standing.token, standing.incarnation
        self.run_id, self.after_seq = standing.run_id, standing.after_seq
        self._ends = self._asked_at + self._claim.ttl / 1000
        self._timers.append(loop.call_later(_LISTEN_AFTER, self._listen))
        self._renew_in_time()
        self._note(standing)

    def _renew_in_time(self) -> None:
        """Have it renewed when a third of its time has passed, and see when it has run out."""
        loop = asyncio.get_running_loop()
        listen, *others = self._timers
        for timer in others:
            timer.cancel()
        third = self._claim.ttl / 3000
        session_ttl = self._backend.retention.session_ttl
        due = min(third, max(session_ttl / 3000, _SHORTEST_RENEWAL)) if session_ttl else third
        self._timers = [
            listen,
            loop.call_at(self._ends - 3 * third + due, self._begin_to_renew),
            loop.call_at(self._ends, self._look_at_the_end),
        ]

    def _listen(self) -> None:
        listening = self._backend.listen(self.key, self.owner, self._begin_to_renew)
        self._listening.enter_context(listening)
        self._begin_to_renew()  # By which it is told of what happened before.

    def _begin_to_renew(self) -> None:
        # What happens while it is being renewed may not be known to that: then it is done again.
        self._renew_again = self._renewing
        if not self._renewing and self.held:
            self._renewing = True
            self._leasing.begin(self._renew())

    async def _renew(self) -> None:
        """Renew it, again and again if that fails, as long as it may still be held."""
        loop = asyncio.get_running_loop()
        try:
            while self.held and loop.time() < self._ends:
                asked_at, self._renew_again = loop.time(), False
                try:
                    standing = await self._backend.renew(self.key, self.owner, self._claim.ttl)
                except AgentSessionError as exc:
                    if not isinstance(exc, BackendError):
                        self.lose()
                        return
                    await asyncio.sleep(self._claim.ttl / 30_000)
                    continue
                if self.held:
                    self._ends = asked_at + self._claim.ttl / 1000
                    self._renew_in_time()
                    self._note(standing)
                if not self._renew_again:
                    return
        finally:
            self._renewing = False

    def _look_at_the_end(self) -> None:
        if asyncio.get_running_loop().time() >= self._ends:
            self.lose()

    def _note(self, standing: Standing) -> None:
        if standing.stop:
            self._tell(standing.stop)

    def _tell(self, why: Told) -> None:
        if self._told is None or why == "lost":
            self._told = why
            self._is_told.set()
            if self._when_told is not None:
                self._when_told(why)

    def lose(self) -> None:
        """Note that it is lost: it ran out, or the store has refused a write with it."""
        if self._state == "held":
            self._tell("lost")
            self._watch_no_more()

    # -- giving it back

    async def release(self) -> None:
        released = self.give_up()
        if released is not None:
            await asyncio.shield(released)

    def give_up(self) -> asyncio.Task[None] | None:
        """Give the lease back in the background, or leave the line, if there is anything to."""
        before, self._state = self._state, "over"
        self._news.set()
        if before not in ("asking", "held"):
            return None
        self._watch_no_more()
        return self._leasing.begin(self._give_back())

    async def _give_back(self) -> None:
        """Give it back in the way in which nothing is left behind.

        A turn that has begun, and has not ended, ends as cancelled: nobody would close it once the
        lease is given back. If it is not known whether it has begun, the lease runs out, so that
        whoever comes next looks. A turn that waited waits on if nothing was stored.
        """
        if self.beginning is not None:
            # Else it would be given back first, and the message be stored then.
            await asyncio.wait([self.beginning])
        try:
            with suppress(AgentSessionError):
                if self.begun_at > 0:
                    left = UnendedTurn(self.run_id, self.after_seq, "cancelled")
                    await self._leasing.close(self, left, "end")
                elif self.resumes and self.begun_at == 0:
                    await self._backend.append(self.key, (), expected=self.expected, then="wait")
                elif self.begun_at == 0:
                    await self._backend.release(self.key, self.owner, self._attempt)
        finally:
            self._leasing.taken.discard(self)

    def abandon(self) -> None:
        if self._state == "held":
            self.end()

    def end(self) -> None:
        """Note that there is nothing to give back: the write that ended the turn has done so."""
        self._state = "over"
        self._leasing.taken.discard(self)
        self._watch_no_more()

    def _watch_no_more(self) -> None:
        for timer in self._timers:
            timer.cancel()
        self._timers.clear()
        self._listening.close()
