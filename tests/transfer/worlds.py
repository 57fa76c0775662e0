"""Applications with all that sessions can have, made at random, and what one can see of them."""

from __future__ import annotations

import io
import random
from typing import Any

from agentsession import DELETE, Event, SessionKey, SessionService, UserKey
from agentsession.backend import Claim, Expected, Then
from agentsession.errors import RewindError
from agentsession.events import (
    Content,
    Data,
    EventError,
    Media,
    Part,
    Reasoning,
    Text,
    ToolCall,
    ToolResult,
)
from agentsession.testing import Subject
from agentsession.transfer import ExportReport, ImportReport, Scope, export_to, import_from

APP = "shöp: {a}%"
ENDINGS = ["waits", "waits", "died", "cancelled", "interrupted"]
NAMES = ["n", "m", "ö", "app", "$x"]
VALUES: list[Any] = [
    *(0, -1, 1.5, 1e300, 10**30, True, None, "", "ü\n\0", b"", b"\0\xff", [], {}, [1, [2.0]]),
    *({"$bytes": "x"}, {"$json": {"$raw": 1}}, {"$raw": "AA=="}, {"a": {"$delete": True}}),
]


async def exported(service: SessionService, scope: Scope = APP, **options: Any) -> bytes:
    return (await exported_with_report(service, scope, **options))[0]


async def exported_with_report(
    service: SessionService, scope: Scope = APP, **options: Any
) -> tuple[bytes, ExportReport]:
    file = io.BytesIO()
    report = await export_to(service, scope, file, **options)
    return file.getvalue(), report


async def imported(service: SessionService, data: bytes, **options: Any) -> ImportReport:
    return await import_from(service, io.BytesIO(data), **options)


class World:
    """Makes an application.

    Args:
        subject: Where.
        seed: Decides what is left to chance.
        limit: How many events a session keeps.
    """

    def __init__(self, subject: Subject, seed: int, limit: int | None = None) -> None:
        self.subject = subject
        self.service = subject.service(event_limit=limit)
        self.dice = random.Random(seed)
        self.number = 0
        self.keys: list[SessionKey] = []

    async def make(self, sessions: int = 4, steps: int = 12) -> None:
        for name in self.dice.sample(NAMES, 2):
            await self.service.update_app_state(APP, {name: self.value()})
        for number in range(sessions):
            key = SessionKey(APP, self.dice.choice(["u", "ü:{}", "v"]), f"s{number}")
            self.keys.append(key)
            await self.service.create_session(key, self.delta())
        for _ in range(sessions * steps):
            await self.step(self.dice.choice(self.keys))
        for key in self.keys:
            if self.dice.random() < 0.7:
                await self.leave_turn(key)
        # What was left by a process that died is left for good.
        await self.subject.advance(60)

    def value(self) -> Any:
        return self.dice.choice(VALUES)

    def delta(self) -> dict[str, Any]:
        delta: dict[str, Any] = {}
        for name in self.dice.sample(NAMES, self.dice.randrange(4)):
            prefix = self.dice.choice(["", "", "", "user:", "app:", "temp:"])
            delta[prefix + name] = self.value()
        return delta

    def event(self, **fields: Any) -> Event:
        self.number += 1
        delta = self.delta()
        if self.dice.random() < 0.2:
            delta[self.dice.choice(NAMES)] = DELETE
        return Event(
            id=f"e{self.number}",
            author=self.dice.choice(["user", "agent"]),
            content=self.content(),
            state_delta=delta,
            metadata={"value": self.dice.choice([1, "ü", {"a": [None]}])},
            branch=self.dice.choice(["", "a.b"]),
            error=self.dice.choice([None, EventError("no", "Wrong")]),
            **fields,
        )

    def content(self) -> Content:
        parts: list[Part] = [
            Text("words", provider_data={"a": 1}),
            Reasoning("thoughts", [1, 2]),
            Media("image/png", uri="file:///x"),
            Media.from_bytes(b"\0\1", "image/png", "name"),
            ToolCall(f"call {self.number}", "f", {"a": [1.5]}),
            ToolCall(f"text {self.number}", "f", '{"a": 1}'),
            ToolResult("call", {"b": None}, "f", is_error=True),
            Data({"x": 1}, "application/x"),
        ]
        choices: list[Content] = ["plain words", [], self.dice.sample(parts, 3), [*parts]]
        return self.dice.choice(choices)

    async def step(self, key: SessionKey) -> None:
        """Do something to a session, at random."""
        chance = self.dice.random()
        if chance < 0.5:
            await self.service.append_event(key, self.event())
        elif chance < 0.65:
            await self.service.update_session_state(key, self.delta())
        elif chance < 0.85:
            await self.go_back(key)
        else:
            turn = f"turn {self.number}"
            async with self.service.lease(key, run_id=turn, when_busy="interrupt") as lease:
                for _ in range(self.dice.randrange(3)):
                    await self.service.append_event(key, self.event(), lease=lease)
                await self.service.append_event(key, self.event(outcome="completed"), lease=lease)

    async def go_back(self, key: SessionKey) -> None:
        events = await self.service.get_events(key)
        to_seq = self.dice.choice([0, *(event.seq for event in events)])
        restores = self.dice.random() < 0.6
        instead = [self.event() for _ in range(self.dice.randrange(2))]
        try:
            if instead:
                await self.service.append_events(
                    key, instead, rewind_to=to_seq, restore_state=restores
                )
            else:
                await self.service.rewind(key, to_seq=to_seq, restore_state=restores)
        except RewindError:
            return  # Of a log that was trimmed, not all is to be had.

    async def leave_turn(self, key: SessionKey) -> None:
        """Begin a turn that waits, or whose process dies, told to stop or not."""
        turn = f"turn {self.number}"
        how = self.dice.choice(ENDINGS)
        backend = self.service.backend
        if how == "waits":
            async with self.service.lease(key, run_id=turn, when_busy="interrupt") as lease:
                calls = self.event(outcome="waiting")
                await self.service.append_event(key, calls, lease=lease)
            return
        claim = Claim(
            owner=backend.new_owner(), run_id=turn, ttl=20_000, when_busy="interrupt", grace=0
        )
        standing = await backend.acquire(key, claim, 1)
        expected = Expected(standing.incarnation, lease=claim.owner)
        then: Then = "keep" if standing.unended is None else "close"
        entry, _ = self.service._writer.prepare(key, self.event(invocation_id=turn))
        await backend.append(key, (entry,), expected=expected, then=then)
        if how == "cancelled":
            await backend.stop(key, turn)
        elif how == "interrupted":
            other = Claim(
                owner=backend.new_owner(), run_id="o", ttl=1000, when_busy="interrupt", grace=0
            )
            await backend.acquire(key, other, 1)
            await backend.release(key, other.owner, 2)


async def seen(subject: Subject, service: SessionService, key: SessionKey) -> dict[str, Any]:
    """Return what one can see of a session, state of any earlier event included."""
    session = await service.get_session(key)
    assert session is not None
    states: dict[int, Any] = {}
    for seq in [0, *(event.seq for event in session.events)]:
        copy = subject.another_key()
        copy = SessionKey(key.app_name, key.user_id, copy.session_id)
        try:
            states[seq] = (await service.fork(key, copy, at_seq=seq)).state
            await service.delete_session(copy)
        except RewindError as exc:
            states[seq] = exc.problem
    return {
        "state": session.state,
        "events": session.events,
        "created": session.created_at,
        "first_seq": session.first_seq,
        "last_seq": session.last_seq,
        "raw": await service.get_events(key, raw=True, limit=1000),
        "history": await service.get_history(key),
        "states": states,
        "app": await service.get_app_state(key.app_name),
        "user": await service.get_user_state(UserKey(key.app_name, key.user_id)),
        "turn": (await service.backend.read_past(key, after=1e9, limit=1)).turn,
    }
