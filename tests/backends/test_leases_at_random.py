"""Leases on all backends at once: what one says of any sequence of calls, the others say too."""

from __future__ import annotations

import random
import time
from collections.abc import Awaitable, Callable, Sequence
from typing import Any

import pytest

from agentsession.backend import (
    Backend,
    Claim,
    Entry,
    Expected,
    Receipt,
    Snapshot,
    Standing,
    Then,
    WhenBusy,
)
from agentsession.errors import AgentSessionError, SessionBusyError, SessionNotFoundError
from agentsession.retention import Retention
from agentsession.state import NO_CHANGES, Changes
from agentsession.testing import MemorySubject, Subject
from harness.files import SQLiteSubject
from harness.subjects import RedisSubject

RUNS = ("r1", "r2", "-", "a b,c!%=", "é😀")
# What is done next, and how often in proportion. A clock that goes back is not among it: when
# exactly the places and the grace of before it end, differs.
KINDS = {
    "claim": 10,
    "acquire": 30,
    "renew": 8,
    "release": 10,
    "stop": 5,
    "append": 20,
    "update": 6,
    "advance": 14,
    "delete": 1,
    "create": 2,
}
SEEDS, STEPS = range(60), 60
# On a real server some time passes between two calls; tenths of seconds that may be.
TOLERANCE = 3
# No multiple of it comes near to a moment at which anything ends, whose side chance would decide.
STRIDE = 0.43


def outline(answer: object) -> object:
    """Say what is to be equal of two answers; times are in tenths of seconds from now."""
    match answer:
        case Standing():
            ends, ask = (
                round((each - answer.now) / 100_000) if each else 0
                for each in (answer.ends_at, answer.ask_at)
            )
            unended = answer.unended
            facts = (answer.state, answer.stop, unended, answer.run_id, answer.after_seq)
            return facts, ends, ask
        case Receipt():
            return list(answer.seqs), answer.revision, answer.last_seq, dict(answer.repeats)
        case Snapshot():
            return answer.revision, answer.last_seq
        case SessionNotFoundError():
            return "not found", answer.replaced
        case SessionBusyError():
            return "busy", answer.run_id, answer.ends_at is None
        case AgentSessionError():
            return type(answer).__name__
        case _:
            return answer


def are_alike(one: Any, other: Any) -> bool:
    """Compare two outlines."""
    if isinstance(one, tuple) and len(one) == 3 and isinstance(one[0], tuple):
        return one[0] == other[0] and all(
            abs(first - second) <= TOLERANCE
            for first, second in zip(one[1:], other[1:], strict=True)
        )
    return bool(one == other)


class Owner:
    """One that claims, with a name of its own on each backend."""

    def __init__(self, dice: random.Random, backends: list[Backend]) -> None:
        policies: list[WhenBusy] = ["queue", "queue", "reject", "interrupt"]
        self.attempt = 0
        self.released = False
        self.claims = [
            Claim(owner=backend.new_owner(), run_id="", ttl=1000) for backend in backends
        ]
        chosen: dict[str, Any] = {
            "run_id": dice.choice(RUNS),
            "ttl": dice.choice([7531, 13217, 25113]),
            "when_busy": dice.choice(policies),
            "grace": dice.choice([0, 3319, 8400]),
            "exclusive": dice.random() < 0.3,
            "resumes": dice.random() < 0.15,
            "joins": dice.random() < 0.2,
        }
        self.claims = [Claim(owner=each.owner, **chosen) for each in self.claims]


class Company:
    """The same calls on several backends."""

    def __init__(self, seed: int, subjects: Sequence[Subject]) -> None:
        self.dice = random.Random(seed)
        limit = self.dice.choice([None, None, 5])
        retention = Retention.of(
            session_event_limit=limit,
            session_ttl=None,
            app_state_ttl=None,
            user_state_ttl=None,
            refresh_ttl_on_read=False,
        )
        self.subjects = subjects
        self.backends = [subject.open(retention) for subject in subjects]
        self.lives = [[""] for _ in subjects]
        self.owners: list[Owner] = []
        self.sent = 0
        self.said: list[str] = []

    async def all(
        self, what: object, call: Callable[[int, Backend], Awaitable[object]]
    ) -> list[object]:
        """Make a call on each, and compare what they say."""
        answers: list[object] = []
        for place, backend in enumerate(self.backends):
            try:
                answers.append(await call(place, backend))
            except AgentSessionError as exc:
                answers.append(exc)
        first, *others = map(outline, answers)
        self.said.append(f"{what}: {first}")
        for backend, other in zip(self.backends[1:], others, strict=True):
            differs = f"not {other}, as {backend} says"
            assert are_alike(first, other), "\n".join([*self.said[-15:], differs])
        return answers

    async def create(self) -> None:
        key, token = self.subjects[0].key, f"life {len(self.said)}"
        made = await self.all("create", lambda _, to: to.create(key, NO_CHANGES, token=token))
        for lives, each in zip(self.lives, made, strict=True):
            if isinstance(each, Snapshot):
                lives.append(each.incarnation)

    async def step(self) -> None:
        dice, key = self.dice, self.subjects[0].key
        (kind,) = dice.choices(list(KINDS), list(KINDS.values()))
        if kind == "claim" or not self.owners:
            self.owners.append(Owner(dice, self.backends))
            return
        place = dice.randrange(max(0, len(self.owners) - 6), len(self.owners))
        owner = self.owners[place]
        life = dice.randrange(len(self.lives[0])) if dice.random() < 0.2 else 0
        match kind:
            case "acquire":
                if not owner.released:
                    owner.attempt += 1
                    claim = owner.claims[0]
                    what = (kind, place, claim.when_busy, claim.run_id, claim.resumes, claim.joins)
                    await self.all(
                        what,
                        lambda n, to: to.acquire(
                            key,
                            owner.claims[n],
                            owner.attempt,
                            expected=Expected(self.lives[n][life]),
                        ),
                    )
            case "renew":
                ttl = dice.choice([7531, 25113])
                await self.all(
                    (kind, place, ttl), lambda n, to: to.renew(key, owner.claims[n].owner, ttl)
                )
            case "release":
                owner.released = True
                await self.all(
                    (kind, place),
                    lambda n, to: to.release(key, owner.claims[n].owner, owner.attempt),
                )
            case "stop":
                run_id = dice.choice([*RUNS, None])
                await self.all((kind, run_id), lambda _, to: to.stop(key, run_id))
            case "append":
                await self._append(owner, place, life)
            case "update":
                named = dice.random() < 0.7
                changes = Changes(session={"a": b"1"}) if dice.random() < 0.8 else NO_CHANGES
                await self.all(
                    (kind, place, named),
                    lambda n, to: to.update_state(
                        key, changes, expected=self._expected(n, owner, life, named=named)
                    ),
                )
            case "advance":
                seconds = dice.choice([1, 2, 5, 7, 16, 25, 67]) * STRIDE
                self.said.append(f"{kind}: {seconds:.3f}")
                for subject in self.subjects:
                    await subject.advance(seconds)
            case "delete":
                await self.all(kind, lambda _, to: to.delete(key))
            case _:
                await self.create()

    def _expected(
        self, place: int, owner: Owner, life: int, *, named: bool, revision: int | None = None
    ) -> Expected:
        lease = owner.claims[place].owner if named else ""
        return Expected(self.lives[place][life], revision, lease)

    async def _append(self, owner: Owner, place: int, life: int) -> None:
        dice = self.dice
        named = dice.random() < 0.75
        then: Then = "keep"
        if named:
            thens: list[Then] = ["keep", "keep", "keep", "end", "wait", "close"]
            then = dice.choice(thens)
        entries: list[Entry] = []
        for _ in range(dice.choice([0, 1, 1, 1, 2])):
            number = self.sent
            if self.sent and dice.random() < 0.25:
                number = dice.randrange(max(0, self.sent - 8), self.sent)
            else:
                self.sent += 1
            entries.append(Entry(f"e{number}", 1, b'{"id":"e%d"}' % number))
        revision = dice.choice([1, 5, 9]) if dice.random() < 0.05 else None
        await self.all(
            ("append", place, named, [each.event_id for each in entries], then, revision),
            lambda n, to: to.append(
                self.subjects[0].key,
                entries,
                expected=self._expected(n, owner, life, named=named, revision=revision),
                then=then,
            ),
        )


async def compare(seed: int, server_url: str) -> None:
    async with (
        MemorySubject() as memory,
        SQLiteSubject() as file,
        RedisSubject(server_url) as server,
    ):
        company = Company(seed, (memory, file, server))
        try:
            await company.create()
            for _ in range(STEPS):
                await company.step()
        finally:
            for backend in company.backends:
                await backend.aclose()


@pytest.mark.parametrize("seed", SEEDS)
async def test_all_backends_say_the_same(seed: int, valkey_url: str) -> None:
    """Of who has the lease, who is next, what is to be closed, and what is refused."""
    for is_last in (False, False, False, True):
        started = time.monotonic()
        try:
            await compare(seed, valkey_url)
        except AssertionError:
            # On a machine that stalls chance decides; what truly differs does so each time.
            if is_last or (time.monotonic() - started) * 10 <= TOLERANCE:
                raise
        else:
            break
