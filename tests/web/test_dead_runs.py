"""Streams of a session whose run has lost its process."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncGenerator
from contextlib import AsyncExitStack, aclosing

import pytest

from agentsession import Event, SessionKey
from agentsession.errors import BackendUnavailableError
from agentsession.fastapi import _streams
from agentsession.fastapi._streams import event_frames, run_frames
from agentsession.testing import Subject
from agentsession.ui._turns import followed_turn
from web.site import APP, app_of, serving
from web.test_sockets import talking, user_of_socket


async def test_a_stream_tells_the_end_of_a_run_whose_process_died(
    subject: Subject, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is closed while somebody follows, also if the store could not be reached for a while."""
    monkeypatch.setattr(_streams, "_LOOK", 0.01)
    dead, service = subject.service(), subject.service()
    lease = dead.lease(subject.key)
    await dead.begin_turn(lease, Event(author="user", content="hi"))
    lease.abandon()
    close, looks = service.close_turn, 0

    async def close_at_the_second_look(key: object) -> Event | None:
        nonlocal looks
        looks += 1
        if looks == 1:
            raise BackendUnavailableError(subject.key, "on purpose")
        return await close(subject.key)

    monkeypatch.setattr(service, "close_turn", close_at_the_second_look)
    async with asyncio.timeout(10), service.subscribe(subject.key) as followed:
        frames = event_frames(service, followed)
        names = [(await anext(frames)).event, (await anext(frames)).event]
        assert names == ["following", None]
        await subject.advance(16)
        ended = json.loads(str((await anext(frames)).data))
        await frames.aclose()
    assert (ended["seq"], ended["outcome"]) == (2, "abandoned")
    assert looks >= 2


async def test_a_socket_tells_the_end_of_a_run_whose_process_died(
    subject: Subject, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As the streams: a page that only has a socket does not wait for ever."""
    monkeypatch.setattr(_streams, "_LOOK", 0.01)
    dead, service = subject.service(), subject.service()
    key = SessionKey(APP, "ada", "chat")
    lease = dead.lease(key)
    await dead.begin_turn(lease, Event(author="user", content="hi"))
    lease.abandon()
    async with (
        serving(app_of(service, websocket_user=user_of_socket)) as client,
        talking(client, "?after=1") as talk,
    ):
        assert (await talk.hear())["type"] == "following"
        await subject.advance(16)
        ended = (await talk.hear())["event"]
    assert (ended["seq"], ended["outcome"]) == (2, "abandoned")


async def test_a_run_that_begins_amid_a_look_is_looked_after(
    subject: Subject, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What was asked before it began says nothing of it, though the answer comes later."""
    monkeypatch.setattr(_streams, "_LOOK", 0.01)
    dead, service = subject.service(), subject.service()
    await service.create_session(subject.key)
    close, asked, is_seen = service.close_turn, asyncio.Event(), asyncio.Event()

    async def close_late(key: object) -> Event | None:
        closed = await close(subject.key)
        asked.set()
        await is_seen.wait()
        return closed

    monkeypatch.setattr(service, "close_turn", close_late)
    async with asyncio.timeout(10), service.subscribe(subject.key) as followed:
        frames = event_frames(service, followed)
        assert (await anext(frames)).event == "following"
        first = asyncio.ensure_future(anext(frames))
        await asked.wait()
        lease = dead.lease(subject.key)
        await dead.begin_turn(lease, Event(author="user", content="hi"))
        lease.abandon()
        assert json.loads(str((await first).data))["seq"] == 1
        is_seen.set()
        await subject.advance(16)
        ended = json.loads(str((await anext(frames)).data))
        await frames.aclose()
    assert ended["outcome"] == "abandoned"


@pytest.mark.parametrize("what", ["lease", "rewound", "trimmed"])
@pytest.mark.parametrize("by", ["run_frames", "followed_turn"])
async def test_a_stream_of_a_run_whose_end_is_not_to_be_had_ends(
    subject: Subject, monkeypatch: pytest.MonkeyPatch, by: str, what: str
) -> None:
    """A rewind took it back, the limit has trimmed its end, or it was a lease and no turn."""
    monkeypatch.setattr(_streams, "_LOOK", 0.01)
    service = subject.service(event_limit=5)
    await service.create_session(subject.key)
    lease = service.lease(subject.key)
    if what == "lease":
        await lease.acquire()
    else:
        await service.begin_turn(lease, Event(author="user", content="hi"))
    async with AsyncExitStack() as stack:
        await stack.enter_async_context(asyncio.timeout(20))
        frames: AsyncGenerator[object, None]
        if by == "run_frames":
            followed = await stack.enter_async_context(service.subscribe(subject.key, after_seq=0))
            frames = run_frames(service, followed, lease.run_id)
            assert getattr(await anext(frames), "event", None) == "run"
        else:
            turn = await stack.enter_async_context(followed_turn(service, subject.key))
            assert turn is not None
            frames = turn.events()
        await stack.enter_async_context(aclosing(frames))
        match what:
            case "lease":
                await lease.release()
            case "rewound":
                await service.rewind(subject.key, to_seq=0)
            case _:
                end = Event(author="agent", content="!", outcome="completed")
                await service.append_event(subject.key, end, lease=lease)
                later = [Event(author="hook", content="x") for _ in range(20)]
                await service.append_events(subject.key, later)
        last = [each async for each in frames][-1:]
    if by == "run_frames":
        assert [getattr(each, "event", None) for each in last] == ["done"]
    else:
        assert turn is not None
        # Who reads on at once may have had the end before the limit has trimmed it.
        assert turn.outcome in (
            {"interrupted", "completed"} if what == "trimmed" else {"interrupted"}
        )
    await lease.release()
