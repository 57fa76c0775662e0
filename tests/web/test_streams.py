"""Streams of server-sent events: what comes, what has an id, and how one goes on with it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import pytest

from agentsession import AgentContext, Event, InMemorySessionService, Runner, SessionKey, ToolCall
from agentsession.testing import MemorySubject, Subject
from harness.subjects import RedisSubject
from web.site import APP, Frame, Steps, app_of, frames, serving, stored, take, until

KEY = SessionKey(APP, "ada", "chat")
STREAM = "/sessions/chat/events/stream"
RUN = "/sessions/chat/run"


def say(words: str, **fields: Any) -> Event:
    return Event(author="user", content=words, **fields)


async def test_a_session_is_followed_and_resumed(subject: Subject) -> None:
    """What is stored comes before what is new; ``Last-Event-ID`` goes before ``after``."""
    service = subject.service()
    await service.create_session(KEY)
    events = [await service.append_event(KEY, say(f"{n}\r\n\u2028\x85\x0b")) for n in range(1, 4)]
    async with serving(app_of(subject.service())) as client:
        async with client.stream("GET", STREAM) as response:
            assert response.headers["content-type"].startswith("text/event-stream")
            assert response.headers["cache-control"] == "no-store"
            stream = frames(response)
            first, *rest = await take(stream, 4)
            incarnation = (await service.get_session(KEY)).incarnation  # type: ignore[union-attr]  # it is there
            assert first == Frame(
                "following", "", {"session_id": "chat", "incarnation": incarnation}
            )
            assert stored(rest) == events
            events.append(await service.append_event(KEY, say("4")))
            assert stored(await take(stream, 1)) == events[3:]
        for header, query in (("2", ""), ("2", "?after=0"), ("", "?after=2")):
            headers = {"Last-Event-ID": header} if header else {}
            async with client.stream("GET", STREAM + query, headers=headers) as response:
                assert stored((await take(frames(response), 3))[1:]) == events[2:]


async def test_what_is_no_event_has_a_name_and_no_id(subject: Subject) -> None:
    """Chunks have no id either, so that no client takes one for a position."""
    service = subject.service(event_limit=4)
    await service.create_session(KEY)
    async with serving(app_of(subject.service(event_limit=4))) as client:
        async with client.stream("GET", STREAM) as response:
            stream = frames(response)
            assert (await take(stream, 1))[0].name == "following"
            await service.append_event(KEY, say("1"))
            assert stored(await take(stream, 1))
            chunk = Event(author="agent", content="ch", partial=True, stream_id="s")
            await service.append_event(KEY, chunk)
            assert await take(stream, 1) == [Frame("", "", chunk.to_dict())]
            await service.append_event(KEY, say("2"))
            await service.rewind(KEY, to_seq=1)
            event, back = await take(stream, 2)
            assert event.id == "2"
            assert back == Frame("rewound", "", {"seq": 3, "to_seq": 1, "restores_state": True})
        for n in range(4):
            await service.append_event(KEY, say(str(n)))
        async with client.stream("GET", f"{STREAM}?after=1&partial=false") as response:
            stream = frames(response)
            _, trimmed, *rest = await take(stream, 6)
            assert trimmed == Frame("trimmed", "", {"oldest_seq": 4})
            assert [event.seq for event in stored(rest)] == [4, 5, 6, 7]
            await service.delete_session(KEY)
            assert (await until(stream, "ended"))[-1].data == {"reason": "deleted"}
            assert [frame async for frame in stream] == []


async def test_a_session_made_anew_is_not_gone_on_with(subject: Subject) -> None:
    """Where the client says which one it had; or has had more than there is."""
    service = subject.service()
    old = await service.create_session(KEY)
    await service.delete_session(KEY)
    new = await service.create_session(KEY)
    await service.append_event(KEY, say("1"))
    async with serving(app_of(service)) as client:
        gone = await client.get(f"{STREAM}?incarnation={old.incarnation}")
        assert (gone.status_code, gone.json()["replaced"]) == (404, True)
        async with client.stream("GET", f"{STREAM}?incarnation={new.incarnation}") as response:
            assert len(stored((await take(frames(response), 2))[1:])) == 1
        async with client.stream("GET", STREAM, headers={"Last-Event-ID": "7"}) as response:
            assert (await until(frames(response), "ended"))[-1].data == {"reason": "replaced"}


async def test_a_missing_session_is_not_followed(subject: Subject) -> None:
    async with serving(app_of(subject.service())) as client:
        response = await client.get(STREAM)
    assert (response.status_code, response.json()["type"]) == (
        404,
        "urn:agentsession:session-not-found",
    )


async def test_a_run_is_left_and_picked_up_at_another_worker(subject: Subject) -> None:
    """By following its session until it ends: nothing missing, nothing twice."""
    service, other, steps = subject.service(), subject.service(), Steps()
    async with (
        Runner(APP, steps, service, on_disconnect="detach") as runner,
        serving(app_of(service, runner)) as client,
        serving(app_of(other)) as elsewhere,
    ):
        body = {"message": "hi", "message_id": "m"}
        async with client.stream("POST", RUN, json=body) as response:
            steps.let(1)
            stream = frames(response)
            assert [frame.name for frame in await take(stream, 2)] == ["run", ""]
        async with elsewhere.stream("GET", f"{STREAM}?run_id=m&after=1") as response:
            stream = frames(response)
            assert await take(stream, 1) == [
                Frame("run", "", {"run_id": "m", "session_id": "chat"})
            ]
            steps.let(3)
            taken = await until(stream, "done")
        assert [event.text for event in stored(taken)] == ["one two three"]
        assert taken[-1].data == {"outcome": "completed"}
        # It is over by now.
        for after, texts in ((0, ["hi", "one two three"]), (1, ["one two three"]), (2, [])):
            path = f"{STREAM}?run_id=m&after={after}"
            async with elsewhere.stream("GET", path) as response:
                taken = await until(frames(response), "done")
            assert [event.text for event in stored(taken)] == texts
        # The same message joins it, also at the other worker, where nobody could run it.
        async with client.stream(
            "POST", RUN, json=body, headers={"Last-Event-ID": "2"}
        ) as response:
            taken = await until(frames(response), "done")
        assert stored(taken) == []


async def test_who_leaves_has_the_run_cancelled_or_goes_on_by_its_rule(subject: Subject) -> None:
    """Whether the client goes in the middle, or while its message stands in line."""
    service, steps = subject.service(), Steps()
    async with Runner(APP, steps, service) as runner, serving(app_of(service, runner)) as client:
        async with client.stream("POST", RUN, json={"message": "hi"}) as response:
            stream = frames(response)
            await take(stream, 1)
            in_line = asyncio.create_task(
                client.post(RUN, json={"message": "too", "message_id": "2"})
            )
            await asyncio.wait({in_line}, timeout=0.2)
            in_line.cancel()
            await asyncio.wait({in_line})
        async with asyncio.timeout(30):
            await steps.stopped.wait()
        log = await service.get_events(KEY)
        while not log[-1].outcome:
            await asyncio.sleep(0.01)
            log = await service.get_events(KEY)
    assert log[-1].outcome == "cancelled"
    assert all(event.id != "2" for event in log)


async def test_a_run_that_fails_says_so(subject: Subject) -> None:
    """By the event that is stored of it, and its end; nothing else of the error gets out."""
    service = subject.service()

    async def agent(context: AgentContext) -> AsyncIterator[Event]:
        yield Event(author="agent", content="so far")
        msg = "no more"
        raise LookupError(msg)

    async with Runner(APP, agent, service) as runner, serving(app_of(service, runner)) as client:
        async with client.stream("POST", RUN, json={"message": "hi"}) as response:
            taken = await until(frames(response), "done")
    assert [event.outcome for event in stored(taken)] == ["", "failed"]
    assert stored(taken)[-1].error.message == "no more"  # type: ignore[union-attr]  # it is there
    assert taken[-1].data == {"outcome": "failed"}


async def test_all_sessions_of_a_user_are_followed(subject: Subject) -> None:
    """And of nobody else."""
    service = subject.service()
    await service.create_session(KEY)
    async with serving(app_of(subject.service())) as client:
        async with client.stream("GET", "/user/stream") as response:
            stream = frames(response)
            # Once more where others tell from now on.
            number = 1 if isinstance(subject, MemorySubject) else 2
            assert await take(stream, number) == [Frame("missed", "", {})] * number
            await service.create_session(SessionKey(APP, "eve", "chat"))
            await service.append_event(KEY, say("hi"))
            async with service.lease(KEY, run_id="r"):
                pass
            await service.delete_session(KEY)
            expected = [("written", ""), ("run_began", "r"), ("run_ended", "r"), ("deleted", "")]
            assert await take(stream, 4) == [
                Frame("", "", {"session_id": "chat", "what": what, "run_id": run_id})
                for what, run_id in expected
            ]


async def test_silence_is_filled_with_comments() -> None:
    """They are not frames, and carry no id."""
    service = InMemorySessionService()
    await service.create_session(KEY)
    async with serving(app_of(service, heartbeat=0.02)) as client:
        async with client.stream("GET", STREAM) as response:
            lines = response.aiter_lines()
            comments = 0
            async with asyncio.timeout(30):
                while comments < 3:
                    line = await anext(lines)
                    assert not line.startswith("id")
                    comments += line.startswith(": ping")


async def test_a_store_that_goes_away_ends_the_stream_with_a_frame(valkey_url: str) -> None:
    """Of which the client reads that it may come back."""
    async with RedisSubject(valkey_url) as subject:
        service = subject.service()
        await service.create_session(KEY)
        async with serving(app_of(service)) as client:
            async with client.stream("GET", STREAM) as response:
                stream = frames(response)
                await take(stream, 1)
                await service.aclose()
                failed = (await until(stream, "failed"))[-1]
                assert (failed.data["type"], failed.data["status"]) == (
                    "urn:agentsession:stopping",
                    503,
                )


@pytest.mark.parametrize("number", [60])
async def test_connections_that_are_dropped_at_random_miss_nothing(
    subject: Subject, number: int
) -> None:
    """Each goes on by the last id that it had; others write meanwhile."""
    service = subject.service(event_limit=None)
    await service.create_session(KEY)
    written = 0

    async def write() -> None:
        nonlocal written
        while True:
            written = (await service.append_event(KEY, say(str(written)))).seq
            await asyncio.sleep(0)

    had: list[Event] = []
    async with serving(app_of(subject.service(event_limit=None))) as client:
        writing = asyncio.create_task(write())
        for n in range(number):
            headers = {"Last-Event-ID": str(had[-1].seq)} if had else {}
            async with client.stream("GET", STREAM, headers=headers) as response:
                had += stored((await take(frames(response), 1 + n % 7))[1:])
        writing.cancel()
        await asyncio.wait({writing})
    assert [event.seq for event in had] == list(range(1, len(had) + 1))
    log = await service.get_events(KEY, limit=1000)
    assert had == log[: len(had)]


async def test_a_run_that_waited_is_followed_to_its_end(subject: Subject) -> None:
    """To where it waits now; not only to where it once did, when it has gone on since."""
    service, gate = subject.service(), asyncio.Event()

    async def agent(context: AgentContext) -> AsyncIterator[Event]:
        if context.message.tool_results:
            yield Event(author="agent", content="so")
            await gate.wait()
            yield Event(author="agent", content="thanks", outcome="completed")
        else:
            yield Event(author="agent", content=[ToolCall("c", "ask")], outcome="waiting")

    path = f"{STREAM}?run_id=m&after=0&partial=false"
    async with (
        Runner(APP, agent, service, on_disconnect="detach") as runner,
        serving(app_of(service, runner)) as client,
    ):
        async with client.stream("POST", RUN, json={"message": "hi", "message_id": "m"}) as run:
            await until(frames(run), "done")
        async with client.stream("GET", path) as response:
            taken = await until(frames(response), "done")
        assert ([e.seq for e in stored(taken)], taken[-1].data) == ([1, 2], {"outcome": "waiting"})
        body = {"results": [{"type": "tool_result", "call_id": "c", "result": "yes"}]}
        async with client.stream("POST", RUN, json=body) as run:
            await take(frames(run), 2)
            async with client.stream("GET", path) as response:
                stream = frames(response)
                taken = await take(stream, 5)
                gate.set()
                taken += await until(stream, "done")
        whole = ([1, 2, 3, 4, 5], {"outcome": "completed"})
        assert ([event.seq for event in stored(taken)], taken[-1].data) == whole
        async with client.stream("GET", path) as response:
            taken = await until(frames(response), "done")
        assert ([event.seq for event in stored(taken)], taken[-1].data) == whole


async def test_news_are_on_one_line_for_every_reader() -> None:
    """Also of those that take Unicode's separators for the end of one, as httpx does."""
    service = InMemorySessionService()
    async with serving(app_of(service)) as client:
        async with client.stream("GET", "/user/stream") as response:
            stream = frames(response)
            assert (await take(stream, 1))[0].name == "missed"
            await service.create_session(SessionKey(APP, "ada", "a\u2028b\x85"))
            assert (await take(stream, 1))[0].data["session_id"] == "a\u2028b\x85"
