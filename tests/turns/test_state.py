"""State inside a run: what the agent writes, what its tools write, and what is stored of it."""

from __future__ import annotations

from collections.abc import AsyncIterator

from agentsession import AgentContext, Event, Runner
from agentsession.testing import Subject


def say(words: str) -> Event:
    return Event(author="agent", content=words)


async def test_what_a_tool_writes_is_seen(subject: Subject) -> None:
    """At once if it was given the session, and with the next event if it writes by the key."""
    service = subject.service()
    seen: list[object] = []

    async def agent(context: AgentContext) -> AsyncIterator[Event]:
        context.state["mine"] = 1
        seen.append(context.state["mine"])
        await service.update_session_state(context.session, {"tool": "held"})
        seen.append(context.state["tool"])
        await subject.service().update_session_state(context.session.key, {"tool": "by key"})
        yield say("next")
        seen.append(context.state["tool"])
        await subject.service().append_event(
            subject.key, Event(author="webhook", state_delta={"hook": 1})
        )
        yield say("more")
        seen.append(context.state["hook"])

    await Runner("app", agent, service).run("user", "session", "hi").result()
    assert seen == [1, "held", "by key", 1]
    session = await service.get_session(subject.key)
    assert session is not None
    assert session.state == {"mine": 1, "tool": "by key", "hook": 1}


async def test_of_two_writers_the_later_one_wins(subject: Subject) -> None:
    """Told by the order of what is stored, and not by when it was written in memory."""
    service = subject.service()
    seen: list[object] = []

    async def agent(context: AgentContext) -> AsyncIterator[Event]:
        context.state["n"] = "agent"
        await service.update_session_state(context.session, {"n": "tool, earlier"})
        seen.append(context.state["n"])
        yield say("stores what the agent wrote")
        seen.append(context.state["n"])
        await service.update_session_state(context.session, {"n": "tool, later"})
        seen.append(context.state["n"])
        yield say("stores nothing of it")
        seen.append(context.state["n"])

    await Runner("app", agent, service).run("user", "session", "hi").result()
    assert seen == ["agent", "agent", "tool, later", "tool, later"]
    session = await service.get_session(subject.key)
    assert session is not None
    assert session.state == {"n": "tool, later"}


async def test_what_was_refused_is_stored_in_the_end(subject: Subject) -> None:
    """A value that an event carried which was too large comes with the event of the error."""
    service = subject.service(max_event_size=1000)

    async def agent(context: AgentContext) -> AsyncIterator[Event]:
        context.state["kept"] = 1
        yield say("x" * 2000)

    run = Runner("app", agent, service).run("user", "session", "hi")
    try:
        await run.result()
    except ValueError:
        assert run.outcome == "failed"
    session = await service.get_session(subject.key)
    assert session is not None
    assert (session.state, session.events[-1].outcome) == ({"kept": 1}, "failed")
