"""Random logs that go back, on every backend, beside a model that is too simple to be wrong."""

from __future__ import annotations

import asyncio
import itertools
import random
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from agentsession import DELETE, Event, Session, SessionKey, SessionService
from agentsession.errors import RewindError
from agentsession.history import View, effective
from agentsession.testing import MemorySubject, Subject
from harness.files import SQLiteSubject
from harness.subjects import RedisSubject

NAMES = ["n", "m", "o"]
STEPS = 120


class Model:
    """A log and the state after each of its events; copied whole for a fork."""

    def __init__(self, limit: int | None) -> None:
        self.limit = limit
        self.log: list[tuple[str, int | None]] = []
        self.state: dict[str, Any] = {}
        self.after: list[dict[str, Any]] = [{}]

    def copy(self, to: int | None) -> Model:
        copy = Model(self.limit)
        end = len(self.log) if to is None else to
        copy.log, copy.after = self.log[:end], [dict(each) for each in self.after[: end + 1]]
        copy.state = dict(self.state if to is None else self.after[to])
        # What the original has trimmed, the copy has not either.
        copy.trimmed_before = self.trimmed
        return copy

    trimmed_before = 0

    @property
    def trimmed(self) -> int:
        beyond = 0 if self.limit is None else len(self.log) - self.limit
        return max(beyond, self.trimmed_before)

    def kept(self) -> list[int]:
        """The positions that are not taken back, held or not."""
        kept: list[int] = []
        for seq, (_, to) in enumerate(self.log, 1):
            if to is None:
                kept.append(seq)
            else:
                kept = [each for each in kept if each <= to]
        return kept

    def seen(self) -> list[int]:
        return [seq for seq in self.kept() if seq > self.trimmed]

    def first_seq(self) -> int:
        marks = [seq for seq, (_, to) in enumerate(self.log, 1) if to == 0]
        return max(marks) + 1 if marks else 1

    def fold(self, delta: dict[str, Any]) -> None:
        for name, value in delta.items():
            if value is DELETE:
                self.state.pop(name, None)
            else:
                self.state[name] = value

    def add(self, event_id: str, delta: dict[str, Any]) -> None:
        self.log.append((event_id, None))
        self.fold(delta)
        self.after.append(dict(self.state))

    def go_back(self, to: int, restores: bool) -> None:
        self.log.append(("", to))
        if restores:
            self.state = dict(self.after[to])
        self.after.append(dict(self.state))

    def problem(self, to: int, restores: bool) -> str | None:
        if to > len(self.log):
            return "ahead"
        if to == 0:
            return "state_trimmed" if restores and self.trimmed else None
        if to in self.seen():
            return None
        return "trimmed" if to in self.kept() else "taken_back or trimmed"


class Drill:
    """Does something at random to a session, and to its model."""

    def __init__(self, service: SessionService, limit: int | None, chance: random.Random) -> None:
        self.service = service
        self.chance = chance
        self.limit = limit
        self.numbers = itertools.count()
        self.models: dict[SessionKey, Model] = {}
        self.held: dict[SessionKey, Session] = {}

    async def make(self) -> None:
        key = SessionKey("app", "user", f"s{next(self.numbers)}")
        self.held[key] = await self.service.create_session(key)
        self.models[key] = Model(self.limit)

    def delta(self) -> dict[str, Any]:
        names = self.chance.sample(NAMES, self.chance.choice([0, 0, 1, 2]))
        return {name: self.chance.choice([1, 2, "x", DELETE]) for name in names}

    def events(self, most: int) -> list[Event]:
        return [
            Event(author="a", id=f"e{next(self.numbers)}", content="x", state_delta=self.delta())
            for _ in range(self.chance.randint(1, most))
        ]

    async def step(self) -> None:
        key = self.chance.choice([*self.models])
        by_object = self.chance.random() < 0.5
        target: Any = self.held[key] if by_object else key
        choice = self.chance.choice
        act = choice([self.append] * 4 + [self.update, self.rewind, self.replace, self.fork])
        before = len(self.models[key].log)
        await act(key, target)
        is_written = act == self.update or len(self.models[key].log) > before
        if by_object and is_written:
            assert self.held[key] == await self.whole(key)
        elif choice([True, False, False]):
            self.held[key] = await self.whole(key)
        await self.compare(key)

    async def whole(self, key: SessionKey) -> Session:
        session = await self.service.get_session(key)
        assert session is not None
        return session

    async def append(self, key: SessionKey, target: Any) -> None:
        events = self.events(3)
        await self.service.append_events(target, events)
        for event in events:
            self.models[key].add(event.id, event.state_delta)

    async def update(self, key: SessionKey, target: Any) -> None:
        delta = self.delta()
        await self.service.update_session_state(target, delta)
        self.models[key].fold(delta)

    def place(self, model: Model) -> int:
        if self.chance.random() < 0.7 and model.seen():
            return self.chance.choice(model.seen()[-8:])
        return self.chance.choice([0, self.chance.randint(0, len(model.log) + 1)])

    async def rewind(self, key: SessionKey, target: Any) -> None:
        model, restores = self.models[key], self.chance.random() < 0.7
        to = self.place(model)
        call = self.service.rewind(target, to_seq=to, restore_state=restores)
        if await self.is_refused(call, model, to, restores):
            return
        model.go_back(to, restores)

    async def replace(self, key: SessionKey, target: Any) -> None:
        model, restores = self.models[key], self.chance.random() < 0.7
        to, events = self.place(model), self.events(3)

        async def call() -> list[Event]:
            return await self.service.append_events(
                target, events, rewind_to=to, restore_state=restores
            )

        if await self.is_refused(call(), model, to, restores):
            return
        model.go_back(to, restores)
        for event in events:
            model.add(event.id, event.state_delta)
        if self.chance.random() < 0.3:
            stored = await call()
            assert [event.id for event in stored] == [event.id for event in events]

    async def fork(self, key: SessionKey, target: Any) -> None:
        if len(self.models) > 4:
            return
        model = self.models[key]
        to = self.place(model) if self.chance.random() < 0.7 else None
        new_key = SessionKey("app", "user", f"f{next(self.numbers)}")
        call = self.service.fork(target, new_key, at_seq=to)
        if to is not None and await self.is_refused(call, model, to, restores=True):
            assert await self.service.get_session(new_key) is None
            return
        if to is None:
            await call
        self.models[new_key] = model.copy(to)
        self.held[new_key] = await self.whole(new_key)
        await self.compare(new_key)

    @staticmethod
    async def is_refused(call: Awaitable[Any], model: Model, to: int, restores: bool) -> bool:
        problem = model.problem(to, restores)
        if problem is None:
            await call
            return False
        with pytest.raises(RewindError) as raised:
            await call
        assert raised.value.problem in problem.split(" or ")
        return True

    async def compare(self, key: SessionKey) -> None:
        """Every way of reading tells of the same log."""
        model, service, chance = self.models[key], self.service, self.chance
        seen = model.seen()
        session = await self.whole(key)
        assert [event.seq for event in session.events] == seen
        assert [event.id for event in session.events] == [model.log[seq - 1][0] for seq in seen]
        assert (session.last_seq, session.state) == (len(model.log), model.state)
        assert session.first_seq == model.first_seq() or session.first_seq <= model.trimmed
        after, last = chance.randint(0, len(model.log) + 1), chance.randint(0, 6)
        window = await service.get_session(key, after_seq=after, num_recent_events=last)
        assert window is not None
        later = [seq for seq in seen if seq > after]
        assert [event.seq for event in window.events] == later[max(0, len(later) - last) :]
        before, limit = chance.randint(0, len(model.log) + 2), chance.randint(1, 5)
        between = [seq for seq in seen if after < seq < before]
        page = await service.get_events(key, after_seq=after, before_seq=before, limit=limit)
        assert [event.seq for event in page] == between[:limit]
        page = await service.get_events(
            key, after_seq=after, before_seq=before, limit=limit, newest_first=True
        )
        assert [event.seq for event in page] == between[::-1][:limit]
        raw = await service.get_events(key, raw=True, limit=1000)
        held = range(model.trimmed + 1, len(model.log) + 1)
        assert [event.seq for event in raw] == [*held]
        assert [event.rewind and event.rewind.to_seq for event in raw] == [
            model.log[seq - 1][1] for seq in held
        ]
        assert [event.seq for event in effective(raw)] == seen
        history = View().of(session.events, first_seq=session.first_seq)
        assert await service.get_history(key) == history


@pytest.mark.parametrize("limit", [None, 4, 9, 40])
@pytest.mark.parametrize("seed", range(6))
@pytest.mark.parametrize("kind", ["memory", "memory, staged", "sqlite", "valkey"])
def test_any_sequence_of_rewinds_and_forks_matches_the_model(
    kind: str, seed: int, limit: int | None, valkey_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Logs, states and forks are what the model says, whoever reads them and how."""
    if kind == "memory, staged":  # As if each batch changed very much.
        monkeypatch.setattr("agentsession.memory._backend._STAGED_FROM", 0)
    makes: dict[str, Callable[[], Subject]] = {
        "memory": MemorySubject,
        "memory, staged": MemorySubject,
        "sqlite": SQLiteSubject,
        "valkey": lambda: RedisSubject(valkey_url),
    }

    async def drill() -> None:
        async with makes[kind]() as subject:
            it = Drill(subject.service(event_limit=limit), limit, random.Random(f"{seed} {limit}"))
            await it.make()
            for _ in range(STEPS):
                await it.step()

    asyncio.run(drill())
