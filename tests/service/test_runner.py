"""The runner: what it stores, what it hands on, and what it does when things go wrong."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from functools import partial
from typing import Any

import anyio
import pytest
from msgspec import structs

from agentsession import (
    Event,
    InMemorySessionService,
    Runner,
    Session,
    SessionKey,
    SessionService,
)
from agentsession.backend import Snapshot, Window
from agentsession.codec import encode_event
from agentsession.errors import (
    ClosedError,
    EventTooLargeError,
    SessionNotFoundError,
    StateValueError,
)
from agentsession.events import EventError, Text, ToolCall
from agentsession.runner import Agent, AgentContext, TrackedState
from agentsession.state import DELETE
from agentsession.testing import Subject
from harness.files import SQLiteSubject


def say(words: str, **fields: Any) -> Event:
    return Event(author="agent", content=words, **fields)


async def log_of(service: SessionService, key: SessionKey) -> list[tuple[str, object]]:
    """Read what is said in a log; an event that only ends its turn says nothing."""
    events = await service.get_events(key)
    return [(each.author, each.content) for each in events if each.content or each.error]


async def echo(context: AgentContext) -> AsyncIterator[Event]:
    """Answers in two chunks and one whole event."""
    assert isinstance(context.message.content, str)
    yield say("you ", partial=True)
    yield say("said", partial=True)
    yield say(f"you said {context.message.content}")


async def test_a_turn_is_stored_and_handed_on(subject: Subject) -> None:
    """The message and whole events are stored in order with the turn's id; chunks are handed on."""
    service = subject.service()
    runner = Runner("app", echo, service)
    for n, words in enumerate(("one", "two")):
        run = runner.run("user", "session", words)
        events = [event async for event in run]
        assert [(event.content, event.partial) for event in events] == [
            ("you ", True),
            ("said", True),
            (f"you said {words}", False),
        ]
        assert {event.invocation_id for event in events} == {run.id}
        assert [event.seq for event in events] == [0, 0, 3 * n + 2]
        stored = await service.get_events(run.key)
        assert stored[-2] == events[-1]
        assert {event.invocation_id for event in stored[-3:]} == {run.id}
        assert run.outcome == stored[-1].outcome == "completed"
    assert await log_of(service, subject.key) == [
        ("user", "one"),
        ("agent", "you said one"),
        ("user", "two"),
        ("agent", "you said two"),
    ]


async def test_an_empty_session_id_gets_one(subject: Subject) -> None:
    """Each turn without a session id has a new session, whose id the run tells at once."""
    runner = Runner("app", echo, subject.service())
    runs = [runner.run("user", "", "hi") for _ in range(2)]
    assert len({runs[0].session_id, runs[1].session_id, ""}) == 3
    for run in runs:
        assert [event async for event in run]
        assert len(await log_of(runner.session_service, run.key)) == 2


async def test_the_agent_sees_the_session_so_far(subject: Subject) -> None:
    """The context has the history with the user's message, and is kept up to date while it runs."""
    seen: list[list[object]] = []

    async def agent(context: AgentContext) -> AsyncIterator[Event]:
        assert context.message == context.session.events[-1]
        assert context.invocation_id == context.message.invocation_id
        seen.append([event.content for event in context.session.events])
        yield say("a")
        seen.append([event.content for event in context.session.events])

    runner = Runner("app", agent, subject.service())
    for words in ("1", "2"):
        async for _ in runner.run("user", "session", words):
            pass
    assert seen == [["1"], ["1", "a"], ["1", "a", "", "2"], ["1", "a", "", "2", "a"]]
    async for _ in runner.run("user", "session", "3", num_recent_events=2):
        pass
    assert seen[-2:] == [["a", "", "3"], ["a", "", "3", "a"]]


async def test_an_object_with_run_is_an_agent(subject: Subject) -> None:
    """An object's ``run`` is called, also if the object can be called itself."""

    class Agent:
        async def run(self, context: AgentContext, /) -> AsyncIterator[Event]:
            yield say("by run")

        def __call__(self, context: AgentContext) -> AsyncIterator[Event]:
            raise AssertionError

    run = Runner("app", Agent(), subject.service()).run("user", "session", [Text("hi")])
    assert [event.content async for event in run] == ["by run"]
    assert (await log_of(subject.service(), subject.key))[0] == ("user", [Text("hi")])


async def test_the_agent_has_a_history_for_its_model(subject: Subject) -> None:
    """With the message, and with the call that the turn before left open closed."""
    seen: list[list[Event]] = []

    async def agent(context: AgentContext) -> AsyncIterator[Event]:
        seen.append(context.history)
        yield Event(author="agent", content=[ToolCall("c", "t")])
        raise OSError

    service = subject.service()
    for words in ("1", "2"):
        with pytest.raises(OSError, match=r"^$"):
            async for _ in Runner("app", agent, service).run("user", "session", words):
                pass
    first, second = seen
    assert [event.text for event in first] == ["1"]
    assert [event.author for event in second] == ["user", "agent", "tool", "user"]
    assert second[2].tool_results[0].is_error
    assert (await service.get_history(subject.key, max_turns=2))[:4] == second


async def test_an_agents_exception_becomes_an_event(subject: Subject) -> None:
    """It is stored with what it was, handed on, and raised; the next turn goes on from there."""
    service = subject.service()

    class Agent:
        name = "fragile"

        async def run(self, context: AgentContext, /) -> AsyncIterator[Event]:
            context.state["attempts"] = context.state.get("attempts", 0) + 1
            yield say("so far")
            msg = "no more"
            raise LookupError(msg)

    runner = Runner("app", Agent(), service)
    events: list[Event] = []
    with pytest.raises(LookupError, match="no more"):
        async for event in runner.run("user", "session", "hi"):
            events.append(event)  # noqa: PERF401 - the exception must not lose them
    assert [event.content for event in events] == ["so far", ""]
    assert events[-1].error == EventError(message="no more", type="LookupError")
    assert (events[-1].author, events[-1].seq) == ("fragile", 3)
    assert (await service.get_events(subject.key))[-1] == events[-1]
    with pytest.raises(LookupError):
        async for _ in runner.run("user", "session", "again"):
            pass
    session = await service.get_session(subject.key)
    assert session is not None
    assert (session.last_seq, session.state) == (6, {"attempts": 2})


async def test_what_the_store_refuses_is_an_error_of_the_turn(subject: Subject) -> None:
    """An event that is too large is not handed on as if stored; its error is, and is raised."""
    service = subject.service(max_event_size=500)

    async def agent(context: AgentContext) -> AsyncIterator[Event]:
        yield say("x" * 1000)

    events: list[Event] = []
    with pytest.raises(EventTooLargeError):
        async for event in Runner("app", agent, service).run("user", "session", "hi"):
            events.append(event)  # noqa: PERF401 - as above
    assert [event.error.type for event in events if event.error] == ["EventTooLargeError"]
    assert [event.seq for event in await service.get_events(subject.key)] == [1, 2]


async def test_an_error_that_cannot_be_stored_says_so() -> None:
    """If the store fails as well, the agent's exception is raised with a note of it."""
    service = InMemorySessionService()

    async def agent(context: AgentContext) -> AsyncIterator[Event]:
        await service.aclose()
        msg = "first"
        raise ValueError(msg)
        yield say("never")

    with pytest.raises(ValueError, match="first") as raised:
        async for _ in Runner("app", agent, service).run("user", "session", "hi"):
            pass
    assert "could not store" in raised.value.__notes__[0]
    assert "closed" in raised.value.__notes__[0]


async def failed_turn(runner: Runner, kind: type[Exception]) -> tuple[list[Event], Exception]:
    """Run a turn that ends with an exception; give what was handed on, and the exception."""
    events: list[Event] = []
    with pytest.raises(kind) as raised:
        async for event in runner.run("user", "session", "hi"):
            events.append(event)  # noqa: PERF401 - the exception must not lose them
    return events, raised.value


async def test_a_refused_event_loses_no_change(subject: Subject) -> None:
    """The state that a refused event was to carry is carried by the event of its error."""
    service = subject.service(max_event_size=1000)
    await service.create_session(subject.key, {"cart": ["a"], "old": 1})

    async def agent(context: AgentContext) -> AsyncIterator[Event]:
        context.state["cart"].append("b")
        context.state["user:n"] = 1
        del context.state["old"]
        yield say("x" * 1000, state_delta={"its own": 1})

    events, _ = await failed_turn(Runner("app", agent, service), EventTooLargeError)
    assert events[-1].state_delta == {"cart": ["a", "b"], "user:n": 1, "old": DELETE}
    session = await service.get_session(subject.key)
    assert session is not None
    assert session.state == {"cart": ["a", "b"], "user:n": 1}
    assert session.events[-1] == events[-1]


async def test_changes_too_large_for_an_event_are_stored_without_one(subject: Subject) -> None:
    """Changes that no event has room for are stored all the same, and so is the error's event."""
    service = subject.service(max_event_size=500)

    async def agent(context: AgentContext) -> AsyncIterator[Event]:
        context.state.update(a="a" * 300, b="b" * 300)
        yield say("short")

    events, _ = await failed_turn(Runner("app", agent, service), EventTooLargeError)
    assert [event.error.type for event in events if event.error] == ["EventTooLargeError"]
    session = await service.get_session(subject.key)
    assert session is not None
    assert session.state == {"a": "a" * 300, "b": "b" * 300}
    assert session.events[-1] == events[-1]


@pytest.mark.parametrize("at_the_end", [False, True])
async def test_a_change_that_cannot_be_stored_is_lost_alone(
    subject: Subject, *, at_the_end: bool
) -> None:
    """The error names it, a note names others like it, and all the others are stored."""
    service = subject.service(max_value_size=50)

    async def agent(context: AgentContext) -> AsyncIterator[Event]:
        context.state.update({"a": 1, "cart": [{"x": object()}], "large": "x" * 50, "b": [2]})
        context.state["user:user:x"] = 1
        context.state["metadata"] = "not the event's"
        if not at_the_end:
            yield say("hi", metadata={"fine": 1})

    events, error = await failed_turn(Runner("app", agent, service), StateValueError)
    assert isinstance(error, StateValueError)
    assert error.path == ("cart", 0, "x")
    assert [note.split(":")[1] for note in error.__notes__ if "lost" in note] == [
        " large",
        " user",
    ]
    assert events[-1].state_delta == {"a": 1, "b": [2], "metadata": "not the event's"}
    assert [event.error.type for event in events if event.error] == ["StateValueError"]
    session = await service.get_session(subject.key)
    assert session is not None
    assert session.state == {"a": 1, "b": [2], "metadata": "not the event's"}
    assert session.last_seq == 2


async def test_a_change_shows_whatever_others_write(subject: Subject) -> None:
    """After a tool's append that reloads the session, the agent sees its changes; they are kept."""
    service = subject.service()
    await service.create_session(
        subject.key, {"inside": [0], "gone": [0], "set": 0, "deleted": 0, "theirs": 0, "same": 0}
    )

    async def agent(context: AgentContext) -> AsyncIterator[Event]:
        state = context.state
        state["inside"].append(1)
        state["gone"].append(1)
        state["set"] = state["temp:x"] = 1
        state["same"] = "agent"
        del state["deleted"]
        delta = {"set": 9, "inside": [9], "deleted": 9, "theirs": 9, "gone": DELETE}
        await service.append_event(subject.key, Event(author="other", state_delta=delta))
        await service.append_event(context.session, say("tool", state_delta={"same": "tool"}))
        seen = {"inside": [0, 1], "gone": [0, 1], "set": 1, "theirs": 9, "same": "agent"}
        assert {name: state[name] for name in seen} == seen
        with pytest.raises(KeyError):
            state["deleted"]
        with pytest.raises(KeyError):
            del state["deleted"]
        assert dict(state) == context.session.state == seen | {"temp:x": 1}
        assert (len(state), "deleted" in state, "gone" in state) == (6, False, True)
        yield say("said")
        assert dict(state) == seen | {"temp:x": 1}

    run = Runner("app", agent, service).run("user", "session", "hi")
    events = [event async for event in run]
    kept = {"inside": [0, 1], "gone": [0, 1], "set": 1, "same": "agent"}
    assert events[-1].state_delta == kept | {"deleted": DELETE}
    session = await service.get_session(subject.key)
    assert session is not None
    assert session.state == kept | {"theirs": 9}


class Named:
    def __init__(self, name: object) -> None:
        self.name = name

    async def run(self, context: AgentContext, /) -> AsyncIterator[Event]:
        msg = "its own"
        raise LookupError(msg)
        yield say("never")


class Nameless(Named):
    def __init__(self) -> None:
        """Without a name."""


class Unnameable(Nameless):
    @property
    def name(self) -> str:  # type: ignore[override]  # that it is one is what is tested
        msg = "no name"
        raise RuntimeError(msg)


class Called:
    async def __call__(self, context: AgentContext) -> AsyncIterator[Event]:
        msg = "its own"
        raise LookupError(msg)
        yield say("never")


async def a_function(context: AgentContext, *options: object) -> AsyncIterator[Event]:
    msg = "its own"
    raise LookupError(msg)
    yield say("never")


@pytest.mark.parametrize(
    ("agent", "author"),
    [
        (Named("fragile"), "fragile"),
        (Named(""), "Named"),
        (Named(5), "Named"),
        (Named(None), "Named"),
        (Nameless(), "Nameless"),
        (Unnameable(), "Unnameable"),
        (Called(), "Called"),
        (Named("method").run, "method"),
        (Nameless().run, "run"),
        (a_function, "a_function"),
        (partial(a_function), "a_function"),
        (Named("\ud800"), "agent"),
    ],
    ids=[
        "named",
        "empty",
        "number",
        "none",
        "nameless",
        "failing",
        "callable",
        "method",
        "run",
        "function",
        "partial",
        "no Unicode",
    ],
)
async def test_an_agents_exception_comes_out_whatever_it_is_called(
    agent: Agent, author: str
) -> None:
    """The author of its event is its name, or else what its class or function is called."""
    async with Runner("app", agent) as runner:
        events, _ = await failed_turn(runner, LookupError)
        assert [event.author for event in events] == [author]
        assert len(await log_of(runner.session_service, SessionKey("app", "user", "session"))) == 2


def sized(words: str, size: int) -> Event:
    event = say(words, id=words.rjust(32, "0"))
    return structs.replace(event, content=words.ljust(size - len(encode_event(event)) + len(words)))


class Reads:
    """Counts the reads of a service."""

    def __init__(self, service: SessionService) -> None:
        self.wanted: list[int | None] = []
        self._get = service.backend.get
        service.backend.get = self  # type: ignore[method-assign]  # to look on

    async def __call__(self, key: SessionKey, window: Window) -> Snapshot | None:
        self.wanted.append(window.last)
        return await self._get(key, window)


@pytest.mark.parametrize(
    ("stored", "asked", "loaded", "reads"),
    [
        ([1000] * 63, None, 63, 1),
        ([1000] * 64, None, 63, 2),
        ([1000] * 1000, None, 63, 5),
        ([1000] * 1000, 70, 63, 2),
        ([1000] * 1000, 63, 63, 1),
        ([300] * 1000, None, 124, 4),
        ([1000] * 64 + [300] * 200, None, 131, 2),
    ],
    ids=["fits", "one more", "many", "asked", "asked less", "smaller", "newest small"],
)
async def test_a_log_too_large_for_a_read_is_loaded_from_its_end(
    subject: Subject, stored: list[int], asked: int | None, loaded: int, reads: int
) -> None:
    """The newest are loaded in few reads, at least half of what fits; nothing else changes."""
    service = subject.service(max_event_size=1000, max_read_size=64_000)
    await service.create_session(subject.key, {"a": 1})
    await service.append_events(
        subject.key, [sized(str(n), size) for n, size in enumerate(stored, 1)]
    )
    seen: list[Session] = []

    async def agent(context: AgentContext) -> AsyncIterator[Event]:
        seen.append(context.session)
        yield say("here")

    async with service.lease(subject.key):
        pass  # Now the server knows the script.
    looked = Reads(service)
    run = Runner("app", agent, service).run("user", "session", "hi", num_recent_events=asked)
    assert [event.content async for event in run] == ["here"]
    # In a file a read may overtake the write that it was made with; then it is made once more.
    more = 1 if isinstance(subject, SQLiteSubject) else 0
    assert reads <= len(looked.wanted) <= reads + more
    (session,) = seen
    assert session.last_seq == len(stored) + 3
    assert [event.seq for event in session.events] == list(
        range(len(stored) - loaded + 1, len(stored) + 4)
    )
    assert session.state == {"a": 1}


def test_a_service_says_what_is_always_readable() -> None:
    """So many of the largest events are as much as one read may return."""
    backend = InMemorySessionService().backend
    assert SessionService(backend).always_readable == 64
    assert SessionService(backend, max_event_size=10, max_read_size=1000).always_readable == 10
    assert SessionService(backend, max_read_size=None).always_readable > 10**15
    assert SessionService(backend, max_value_size=5).max_value_size == 5


async def test_the_application_describes_errors(subject: Subject) -> None:
    """What it makes of an exception is stored and handed on, and nothing else of it."""
    service = subject.service()

    def describe(exc: Exception) -> EventError:
        return EventError(message="please try again", type=f"E{len(str(exc))}")

    runner = Runner("app", Named("n"), service, describe_error=describe)
    events, error = await failed_turn(runner, LookupError)
    assert str(error) == "its own"
    assert [event.error for event in events] == [EventError("please try again", "E7")]
    assert (await service.get_events(subject.key))[-1] == events[-1]
    with pytest.raises(TypeError, match="describe_error must be callable, not 'no'"):
        Runner("app", echo, describe_error="no")  # type: ignore[arg-type]  # the mistake


def _raises(exc: Exception) -> EventError:
    msg = f"cannot describe {exc}"
    raise RuntimeError(msg)


def _is_cancelled(exc: Exception) -> EventError:
    """Raise what is no ``Exception``, and was no one's cancellation."""
    raise asyncio.CancelledError


FIVE: Any = 5  # which no type checker would let pass for words


class WordlessError(Exception):
    def __str__(self) -> str:
        msg = "secret"
        raise RuntimeError(msg)

    __repr__ = __str__


@pytest.mark.parametrize(
    ("describe", "note"),
    [
        (_raises, "describe_error raised RuntimeError('cannot describe secret')"),
        (_is_cancelled, "describe_error raised CancelledError()"),
        (str, "describe_error returned a str, not an EventError"),
        (lambda _: None, "describe_error returned a NoneType, not an EventError"),
        (lambda _: EventError(FIVE), "could not store how this error was described: event"),
        (lambda exc: EventError(f"{exc}" * 1000), "could not store how this error was described: "),
        (lambda exc: EventError(f"{exc}\udc00"), "could not store how this error was described: "),
    ],
    ids=["raises", "is cancelled", "text", "nothing", "no words", "too large", "no Unicode"],
)
async def test_an_error_that_cannot_be_described_is_stored_without_words(
    subject: Subject, describe: Any, note: str
) -> None:
    """The agent's exception comes out with a note; its event, with its changes, tells nothing."""
    service = subject.service(max_event_size=1000)

    async def agent(context: AgentContext) -> AsyncIterator[Event]:
        context.state["n"] = 1
        msg = "secret"
        raise LookupError(msg)
        yield say("never")

    runner = Runner("app", agent, service, describe_error=describe)
    events, error = await failed_turn(runner, LookupError)
    assert str(error) == "secret"
    assert len(error.__notes__) == 1
    assert note in error.__notes__[0]
    message = "the agent failed, and its error could not be described"
    assert [event.error for event in events] == [EventError(message)]
    session = await service.get_session(subject.key)
    assert session is not None
    assert session.events[-1] == events[-1]
    assert session.state == {"n": 1}
    assert b"secret" not in b"".join(map(encode_event, session.events))


async def test_an_error_without_words_comes_out() -> None:
    """An exception whose own words fail is raised as it is, after an event that says so."""

    async def agent(context: AgentContext) -> AsyncIterator[Event]:
        raise WordlessError
        yield say("never")

    async with Runner("app", agent) as runner:
        events, _ = await failed_turn(runner, WordlessError)
    message = "the agent failed, and its error could not be described"
    assert [event.error for event in events] == [EventError(message)]


async def test_changed_state_is_stored_with_the_next_event(subject: Subject) -> None:
    """Setting, deleting and changing in place are stored with the next whole event."""
    service = subject.service()
    await service.create_session(
        subject.key, {"cart": ["a"], "read": {"only": 1}, "old": 1, "user:n": 1}
    )

    async def agent(context: AgentContext) -> AsyncIterator[Event]:
        state = context.state
        state["cart"].append("b")
        assert state["read"] == {"only": 1}
        state["user:n"] += 1
        del state["old"]
        state["temp:x"] = object()
        yield say("partial", partial=True)
        yield say("first", state_delta={"mine": 1})
        assert (state["mine"], len(state), "old" in state) == (1, 5, False)
        state["cart"].append("c")
        yield say("second")
        state["last"] = True

    events = [event async for event in Runner("app", agent, service).run("user", "session", "hi")]
    deltas = [event.state_delta for event in events]
    assert deltas[1]["cart"] == ["a", "b"]
    assert set(deltas[1]) == {"cart", "user:n", "old", "mine"}
    assert deltas[2] == {"cart": ["a", "b", "c"]}
    session = await service.get_session(subject.key)
    assert session is not None
    assert session.state == {
        "cart": ["a", "b", "c"],
        "read": {"only": 1},
        "user:n": 2,
        "mine": 1,
        "last": True,
    }


async def test_what_an_agent_holds_is_noticed_after_each_event(subject: Subject) -> None:
    """A list that was read or set once may be changed again and again, by whatever name it has."""
    service = subject.service()
    await service.create_session(subject.key, {"read": [0], "late": [0], "theirs": [0]})

    async def agent(context: AgentContext) -> AsyncIterator[Event]:
        state = context.state
        read, late, own = state["read"], state["late"], [0]
        state["own"] = own
        state["temp:any"] = [object()]
        for n in (1, 2):
            read.append(n)
            own.append(n)
            yield say(str(n))
        late.append(3)
        assert state["late"] == [0, 3]
        assert state["theirs"] == [0]
        await service.update_session_state(subject.key, {"theirs": [9]})
        yield say("3")
        assert state["theirs"] == [9]
        read.append(4)
        assert (state["read"], len(state["temp:any"])) == ([0, 1, 2, 4], 1)

    async for _ in Runner("app", agent, service).run("user", "session", "hi"):
        pass
    session = await service.get_session(subject.key)
    assert session is not None
    assert session.state == {
        "read": [0, 1, 2, 4],
        "late": [0, 3],
        "own": [0, 1, 2],
        "theirs": [9],
    }


def test_tracked_state_reads_like_a_dict() -> None:
    """It shows the session's state, and says what it is."""
    session = Session(key=SessionKey("a", "u", "s"), created_at=None, updated_at=None, revision=1)  # type: ignore[arg-type]  # not used
    state = TrackedState(session)
    state.update(a=[1], b=2)
    assert dict(state) == session.state == {"a": [1], "b": 2}
    assert repr(state) == "TrackedState({'a': [1], 'b': 2})"
    assert state.take_changes() == {"a": [1], "b": 2}
    assert state.take_changes() == {}
    state["a"].append(2)
    session.state = {"b": 3}
    assert (len(state), dict(state)) == (2, {"a": [1, 2], "b": 3})
    changes = state.take_changes()
    assert changes == {"a": [1, 2]}
    state["a"] = "later"
    state.put_back(changes | {"c": 0})
    assert state.take_changes() == {"a": "later", "c": 0}
    with pytest.raises(KeyError):
        del state["d"]


async def test_a_cancelled_turn_closes_the_agent(subject: Subject) -> None:
    """What was stored stays, the agent's clean-up runs, and the next turn works."""
    service = subject.service()
    closed: list[str] = []

    async def agent(context: AgentContext) -> AsyncIterator[Event]:
        try:
            yield say("stored")
        finally:
            await anyio.lowlevel.checkpoint()
            closed.append(str(context.message.content))

    runner = Runner("app", agent, service)

    async def turn(words: str, started: asyncio.Event) -> None:
        async with runner.run("user", "session", words) as run:
            async for _ in run:
                started.set()
                await anyio.sleep_forever()

    started = asyncio.Event()
    task = asyncio.create_task(turn("task", started))
    await started.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    started = asyncio.Event()
    async with anyio.create_task_group() as group:
        group.start_soon(turn, "scope", started)
        await started.wait()
        group.cancel_scope.cancel()
    async with runner.run("user", "session", "left") as run:
        async for _ in run:
            break
    assert closed == ["task", "scope", "left"]
    assert await log_of(service, subject.key) == [
        (author, content)
        for words in closed
        for author, content in (("user", words), ("agent", "stored"))
    ]


@pytest.mark.parametrize("partial", [True, False])
async def test_an_agent_that_never_waits_leaves_others_their_turn(
    subject: Subject, *, partial: bool
) -> None:
    """It can be cancelled, though it could go on for ever."""

    async def agent(context: AgentContext) -> AsyncIterator[Event]:
        for _ in range(50_000):
            yield Event(author="agent", partial=partial)

    seen = 0
    with anyio.CancelScope() as scope:
        async for _ in Runner("app", agent, subject.service()).run("user", "session", "hi"):
            if not seen:
                asyncio.get_running_loop().call_soon(scope.cancel)
            seen += 1
    assert scope.cancelled_caught
    assert 0 < seen < 50_000


@pytest.mark.parametrize("ticks", range(0, 40, 3))
async def test_a_turn_cancelled_anywhere_leaves_a_readable_log(
    subject: Subject, ticks: int
) -> None:
    """Cancelled at any tick, the log is a beginning of the turn, and state fits the log."""
    service = subject.service()

    async def agent(context: AgentContext) -> AsyncIterator[Event]:
        for n in range(3):
            context.state["n"] = n
            yield say(str(n))

    async def turn() -> None:
        async for _ in Runner("app", agent, service).run("user", "session", "hi"):
            pass

    task = asyncio.create_task(turn())
    for _ in range(ticks):
        await asyncio.sleep(0)
    task.cancel()
    await asyncio.wait([task])
    session = await service.get_or_create_session(subject.key)
    words = [event.content for event in session.events if event.content]
    assert words == ["hi", "0", "1", "2"][: len(words)]
    assert session.state == ({"n": len(words) - 2} if len(words) > 1 else {})
    outcomes = [event.outcome for event in session.events if event.outcome]
    assert outcomes in (["cancelled"], ["completed"]) if words else not outcomes


@pytest.mark.parametrize("then", ["says something", "changes state", "fails"])
async def test_a_turn_ends_with_its_session(subject: Subject, then: str) -> None:
    """A turn whose session is reset while the agent runs writes nothing into the new one."""
    service = subject.service()

    async def agent(context: AgentContext) -> AsyncIterator[Event]:
        yield say("before")
        await service.delete_session(subject.key)
        await service.create_session(subject.key)
        await service.append_event(subject.key, say("new"))
        context.state["mine"] = context.state["user:mine"] = 1
        if then == "says something":
            yield say("after")
        if then == "fails":
            raise KeyError(then)

    events: list[Event] = []
    expected = KeyError if then == "fails" else SessionNotFoundError
    with pytest.raises(expected) as raised:
        async for event in Runner("app", agent, service).run("user", "session", "hi"):
            events.append(event)  # noqa: PERF401 - what came before the error counts
    if isinstance(raised.value, SessionNotFoundError):
        assert raised.value.replaced
    else:
        assert "made anew since it was read" in raised.value.__notes__[0]
    assert [event.content for event in events] == ["before"]
    session = await service.get_session(subject.key)
    assert session is not None
    assert [event.content for event in session.events] == ["new"]
    assert session.state == {}


async def test_a_message_can_be_an_event_and_is_stored_once(subject: Subject) -> None:
    """A client's own event id makes the repeat of a turn store its message once."""
    runner = Runner("app", echo, subject.service())
    message = Event(author="customer", content="hi", id="from the client", metadata={"ip": "::1"})
    runs = [[event async for event in runner.run("user", "session", message)] for _ in range(2)]
    log = await log_of(runner.session_service, subject.key)
    assert log == [("customer", "hi"), ("agent", "you said hi")]
    assert runs[1] == [event for event in runs[0] if not event.partial]


async def test_a_message_sent_again_belongs_to_the_same_turn(subject: Subject) -> None:
    """Its run says so before it has begun."""
    runner = Runner("app", echo, subject.service())
    message = Event(author="user", content="hello")
    runs = [runner.run("user", "session", message) for _ in range(2)]
    for run in runs:
        events = [event async for event in run]
        assert {event.invocation_id for event in events} == {run.id}
    assert runs[0].id == runs[1].id


async def test_a_repeat_that_stored_the_same_once_carries_nothing(subject: Subject) -> None:
    """Since other values came after it, what the agent set again is stored with the next event."""
    service = subject.service()

    async def agent(context: AgentContext) -> AsyncIterator[Event]:
        for phase in ("idle", "busy", "idle"):
            context.state["phase"] = phase
            yield say(phase, id=phase)
            seen.append((await service.get_session(subject.key) or context.session).state)
        yield say("done")

    seen: list[dict[str, object]] = []
    async for _ in Runner("app", agent, service).run("user", "session", "hi"):
        pass
    assert seen == [{"phase": "idle"}, {"phase": "busy"}, {"phase": "busy"}]
    stored = await service.get_events(subject.key)
    assert [event.text for event in stored] == ["hi", "idle", "busy", "done", ""]
    assert stored[-2].state_delta == {"phase": "idle"}


async def test_what_rides_on_a_repeat_is_stored_all_the_same(subject: Subject) -> None:
    """An agent that yields one event twice loses nothing of what it changed in between."""

    async def agent(context: AgentContext) -> AsyncIterator[Event]:
        once = say("once", id="e", state_delta={"mine": 1})
        context.state["z"], context.state["temp:t"] = 1, 1
        yield once
        context.state["z"], context.state["y"], context.state["temp:t"] = 2, [2], 2
        yield once
        assert (context.state["z"], context.state["y"], context.state["temp:t"]) == (2, [2], 2)

    service = subject.service()
    runner = Runner("app", agent, service)
    events = [event async for event in runner.run("user", "session", "hi")]
    assert [event.seq for event in events] == [2, 2]
    session = await service.get_session(subject.key)
    assert session is not None
    assert session.state == {"mine": 1, "z": 2, "y": [2]}


async def test_a_name_of_state_is_a_str(subject: Subject) -> None:
    """Anything else is the agent's mistake, and its own error comes out."""

    async def agent(context: AgentContext) -> AsyncIterator[Event]:
        context.state[5] = 1  # type: ignore[index]  # on purpose
        yield say("never")

    runner = Runner("app", agent, subject.service())
    with pytest.raises(TypeError, match="a name of state is a str, not int: 5"):
        async for _ in runner.run("user", "session", "hi"):
            pass


async def test_the_runners_own_service_closes_with_it() -> None:
    """Without a service one in memory is used and closed; one that was handed in stays open."""
    async with Runner("app", echo) as runner:
        run = runner.run("user", "", "hi")
        assert [event async for event in run]
        assert isinstance(runner.session_service, InMemorySessionService)
        assert repr(runner).startswith("<Runner 'app' on <InMemorySessionService ")
    with pytest.raises(ClosedError):
        await runner.session_service.get_session(run.key)
    async with InMemorySessionService() as service:
        async with Runner("app", echo, service):
            pass
        assert await service.get_session(run.key) is None


class _NoAgent:
    async def run(self, context: AgentContext, /) -> AsyncIterator[Event]:
        yield say("x")


async def _a_coroutine(context: AgentContext) -> Event:
    return say("x")


def _a_list(context: AgentContext) -> list[Event]:
    return [say("x")]


async def _yields_text(context: AgentContext) -> AsyncIterator[Event]:
    yield "x"  # type: ignore[misc]  # the mistake


@pytest.mark.parametrize("agent", [_NoAgent, object(), "agent", None])
def test_what_is_no_agent_is_refused(agent: object) -> None:
    """A class instead of an instance, or something that cannot run, is refused at once."""
    with pytest.raises(TypeError, match=r"instance|neither"):
        Runner("app", agent)  # type: ignore[arg-type]  # the mistake


@pytest.mark.parametrize(
    ("agent", "match"),
    [(_a_coroutine, "'yield'"), (_a_list, "list"), (_yields_text, r"Event objects, not str")],
)
async def test_an_agent_of_the_wrong_form_is_told(agent: object, match: str) -> None:
    """A coroutine, a list or text instead of events is an error that says what is expected."""
    async with Runner("app", agent) as runner:  # type: ignore[arg-type]  # the mistake
        with pytest.raises(TypeError, match=match):
            async for _ in runner.run("user", "session", "hi"):
                pass


@pytest.mark.parametrize("service", ["redis://localhost:6379", InMemorySessionService])
def test_what_is_no_service_is_refused(service: object) -> None:
    """A URL, or a class instead of an instance, is told at once."""
    with pytest.raises(TypeError, match="session_service must be a SessionService"):
        Runner("app", echo, service)  # type: ignore[arg-type]  # the mistake


def test_ids_are_checked_before_anything_runs() -> None:
    """An empty app or user is an error where it is made, not where it is used."""
    with pytest.raises(ValueError, match="app_name"):
        Runner("", echo)
    with pytest.raises(ValueError, match="user_id"):
        Runner("app", echo).run("", "session", "hi")
    with pytest.raises(TypeError, match="session_id"):
        Runner("app", echo).run("user", 5, "hi")  # type: ignore[arg-type]  # the mistake
