"""Cancelled at any turn of the loop, a call has taken effect whole or not at all."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from itertools import count, product
from typing import Any

import pytest

from agentsession import SessionKey, SessionService
from agentsession.memory import MemoryBackend
from agentsession.retention import Retention
from harness import servers
from reliability.checker import violations
from reliability.history import STYLES, Cancel, History, Operation, Sent, Step, Style, Value
from reliability.site import Site, Terms, opened, tasks_left
from reliability.workers.worker import Worker

# What each kind of call is made with.
CALLS: dict[str, dict[str, Any]] = {
    "append": {"sent": ["a"]},
    "batch": {"sent": ["a", "b", "c"]},
    "expect": {"sent": ["a"]},
    "update": {"values": {"own": 1, "user:own": 1, "app:own": 1}},
    "update_user": {"values": {"user:own": 1}},
    "update_app": {"values": {"app:own": 1}},
    "create": {},
    "open": {"limit": 10},
    "delete": {},
    "recent": {"limit": 10},
    "page": {"limit": 10},
    "list": {},
}
each_call = pytest.mark.parametrize(("kind", "style"), list(product(CALLS, STYLES)))


def step_on(key: SessionKey, kind: str, cancel: Cancel | None = None) -> Step:
    arguments = dict(CALLS.get(kind, {}))
    name = key.session_id
    if "sent" in arguments:
        delta: dict[str, Value] = {name: 1, f"user:{name}": 1, f"app:{name}": 1}
        arguments["sent"] = [Sent(f"{each} {name}", delta) for each in arguments["sent"]]
    if "values" in arguments:
        arguments["values"] = {f"{each} {name}": 1 for each in arguments["values"]}
    return Step(kind=kind, key=key, cancel=cancel, **arguments)


async def attempt(service: SessionService, history: History, kind: str, cancel: Cancel) -> bool:
    """Make a call and cancel it, look, make it again and look; tell whether it was cancelled."""
    name = f"{cancel.turns}"
    key = SessionKey("app", "user", name)
    worker = Worker(f"w{name}", service, history.record)
    if kind != "create":
        await worker.make(step_on(key, "create"))
    operation = await worker.make(step_on(key, kind, cancel))
    for each in ("whole", kind, "whole"):
        await worker.make(step_on(key, each))
    return operation.outcome == "unknown"


def stored_after_cancellation(history: History) -> set[bool]:
    """Tell whether events were there after their call was cancelled, of all the times it was."""
    looked = {
        each.worker: each for each in history if each.step.kind == "whole" and each.number == 3
    }
    cancelled = [each.worker for each in history if each.number == 2 and each.outcome == "unknown"]
    return {saw_events(looked[worker]) for worker in cancelled}


def saw_events(operation: Operation) -> bool:
    assert operation.view is not None
    return bool(operation.view.events)


@asynccontextmanager
async def left_as_found() -> AsyncIterator[Site]:
    """A site, of which nothing may be left in the end."""
    before = asyncio.all_tasks()
    async with opened(servers.binaries()["valkey"]) as site:
        yield site
        assert await site.left() == []
    assert await tasks_left(before) == []


@each_call
async def test_a_cancelled_call_is_whole_or_nothing(kind: str, style: Style) -> None:
    """Whenever it is cancelled: what it did is seen whole or not at all, and it may be repeated."""
    history = History()
    async with left_as_found() as site, Terms().open(site.url) as service:
        for turns in count():
            if not await attempt(service, history, kind, Cancel(style, turns)):
                break
    assert violations(history) == []
    assert turns > 3
    if kind == "append":
        assert stored_after_cancellation(history) == {True, False}


@pytest.mark.parametrize("style", STYLES)
async def test_a_first_call_may_be_cancelled_while_it_connects(style: Style) -> None:
    """The next call connects, and nothing is left of the attempt."""
    history = History()
    async with left_as_found() as site:
        async with Terms().open(site.aside) as service:
            key = SessionKey("app", "user", "session")
            await Worker("first", service, history.record).make(step_on(key, "create"))
        for turns in count():
            async with Terms().open(site.url) as service:
                worker = Worker(f"w{turns}", service, history.record)
                sent, cancel = [Sent(f"{turns}")], Cancel(style, turns)
                step = Step(kind="append", key=key, sent=sent, cancel=cancel)
                if (await worker.make(step)).outcome != "unknown":
                    break
        async with Terms().open(site.aside) as service:
            await Worker("last", service, history.record).make(step_on(key, "whole"))
    assert violations(history) == []


@each_call
async def test_it_is_so_in_memory(kind: str, style: Style) -> None:
    """In memory, where most calls take a single turn, the same holds."""
    history = History()
    service = SessionService(MemoryBackend(Retention()))
    for turns in range(5):
        await attempt(service, history, kind, Cancel(style, turns))
    assert violations(history) == []
