"""What type checkers make of the public API: checked by mypy and pyright, never run."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Generator, Mapping, Sequence
from contextlib import contextmanager
from datetime import datetime, timedelta
from typing import Any, BinaryIO, assert_never, assert_type

import redis.asyncio
from redis.asyncio.cluster import RedisCluster

import agentsession
from agentsession import (
    Event,
    InMemorySessionService,
    RedisSessionService,
    Runner,
    Session,
    SessionKey,
    SessionPage,
    SessionService,
    UserKey,
)
from agentsession.backend import (
    ANYTHING,
    NEW,
    Backend,
    Before,
    Beginning,
    Claim,
    Entry,
    EventSlice,
    Expected,
    PastSlice,
    Position,
    ReadLimit,
    Receipt,
    SessionSlice,
    Snapshot,
    Standing,
    Then,
    UnendedTurn,
    UserSlice,
    WhenBusy,
    Window,
)
from agentsession.clock import Clock
from agentsession.codec import decode_event, encode_event
from agentsession.concerns import Concern, Severity
from agentsession.embedded import embedded_server
from agentsession.errors import (
    AgentSessionError,
    BackendError,
    CodecError,
    EventNotFoundError,
    EventTooLargeError,
    LeaseLostError,
    ReadTooLargeError,
    RevisionConflictError,
    RewindError,
    SessionNotFoundError,
    StateValueError,
    StateValueTooLargeError,
)
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
from agentsession.memory import MemoryBackend
from agentsession.observers import Lost, Notice, Observer, Operation
from agentsession.redis import register_redis_instance, unregister_redis_instance
from agentsession.retention import Duration, Retention
from agentsession.runner import Agent, AgentContext, AgentObject, Run, TrackedState
from agentsession.service import ContentType
from agentsession.state import DELETE, Changes, ScopeChanges
from agentsession.testing import CHECKS, Check, ManualClock, MemorySubject
from agentsession.testing import Subject as TestSubject
from agentsession.transfer import (
    Existing,
    ExportReport,
    ImportReport,
    Problem,
    Scope,
    Subject,
    export_lines,
    export_to,
    import_from,
    import_lines,
)

KEY = SessionKey("app", "user", "session")
USER = UserKey("app", "user")


def keys() -> None:
    """Keys have their ids, and a session's its owner."""
    assert_type(SessionKey("app", "user"), SessionKey)
    assert_type(KEY.app_name, str)
    assert_type(KEY.user_id, str)
    assert_type(KEY.session_id, str)
    assert_type(KEY.user, UserKey)
    assert_type(hash(USER), int)


def services(client: redis.asyncio.Redis, cluster: RedisCluster, clock: Clock) -> None:
    """Every option, and everything that a Redis service can be made of; all are services."""
    day = timedelta(days=1)
    never: Duration = None
    all_of: list[SessionService] = [
        InMemorySessionService(),
        InMemorySessionService(
            session_event_limit=None,
            session_ttl=60,
            app_state_ttl=0.5,
            user_state_ttl=day,
            refresh_ttl_on_read=True,
            cleanup_interval=never,
            max_event_size=1000,
            max_value_size=1000,
            max_read_size=None,
            clock=clock,
        ),
        RedisSessionService(client),
        RedisSessionService(cluster),
        RedisSessionService(url="redis://localhost", timeout=day),
        RedisSessionService(instance="cache"),
        RedisSessionService.from_url("redis+sentinel://a:26379,b:26379/mymaster/0"),
        RedisSessionService(url="rediss+cluster://a:6379,b:6379"),
        RedisSessionService.from_url(
            "redis://localhost",
            key_prefix="prod:",
            client_options={"ssl_ca_certs": "ca.pem"},
            timeout=5,
            session_event_limit=10,
            session_ttl=day,
            app_state_ttl=None,
            user_state_ttl=1.5,
            refresh_ttl_on_read=False,
            max_event_size=1000,
            max_value_size=1000,
            max_read_size=None,
        ),
        SessionService(MemoryBackend(Retention()), max_event_size=1, max_read_size=10),
    ]
    assert_type(RedisSessionService.from_url("redis://localhost"), RedisSessionService)
    assert_type(agentsession.RedisSessionService(client), RedisSessionService)
    assert_type(all_of[0].backend, Backend)
    register_redis_instance("cache", url="redis://localhost", client_options={"db": 1})
    register_redis_instance("mine", client=client)
    unregister_redis_instance("cache")


class Traced(Observer):
    """An observer that inherits, and writes an operation as a generator."""

    @contextmanager
    def on_operation(self, operation: Operation, /) -> Generator[None]:
        """Look at what the details hold."""
        assert_type(operation.name, str)
        assert_type(operation.subject, SessionKey | UserKey | str | None)
        yield


class Alike:
    """One that inherits nothing."""

    def on_operation(self, operation: Operation, /) -> None:
        """Observe nothing."""

    def on_notice(self, notice: Notice, /) -> None:
        """Look at a notice."""
        match notice:
            case Lost(server=server, reason=reason):
                assert_type(server, str)
                assert_type(reason, str)
            case _:
                assert_type(str(notice), str)


def observed(client: redis.asyncio.Redis) -> None:
    """Every service takes both kinds."""
    both: list[Observer] = [Traced(), Alike()]
    InMemorySessionService(observers=both)
    RedisSessionService(client, observers=(Traced(),))
    RedisSessionService.from_url("redis://localhost", observers=both)
    SessionService(MemoryBackend(Retention(), observers=both), observers=both)
    agentsession.open_service("memory://", observers=both)


async def sessions(service: SessionService, moment: datetime) -> None:
    """Every method on sessions."""
    assert_type(await service.create_session(KEY), Session)
    assert_type(await service.create_session(KEY, {"a": 1, "user:b": b"", "c": DELETE}), Session)
    assert_type(await service.get_session(KEY), Session | None)
    found = await service.get_session(KEY, num_recent_events=5, since=moment, after_seq=3)
    if found is not None:
        assert_type(found, Session)
        assert_type(found.key, SessionKey)
        assert_type(found.id, str)
        assert_type(found.app_name, str)
        assert_type(found.user_id, str)
        assert_type(found.state, dict[str, Any])
        assert_type(found.events, list[Event])
        assert_type(found.created_at, datetime)
        assert_type(found.updated_at, datetime)
        assert_type(found.revision, int)
        assert_type(found.last_seq, int)
        assert_type(found.incarnation, str)
        await service.delete_session(found)
    state: Mapping[str, object] = {"a": 1}
    assert_type(
        await service.get_or_create_session(
            KEY, state, num_recent_events=None, since=None, after_seq=None
        ),
        Session,
    )
    page = await service.list_sessions(USER, limit=10, cursor=None)
    assert_type(page, SessionPage)
    assert_type(page.sessions, list[Session])
    assert_type(page.next_cursor, str | None)
    await service.list_sessions(USER, cursor=page.next_cursor)
    await service.delete_session(KEY)
    await service.delete_user(USER)


async def log(service: SessionService, session: Session) -> None:
    """Every method on events, with a session and with its key."""
    event = Event(author="user", content="hi")
    assert_type(await service.append_event(session, event), Event)
    assert_type(await service.append_event(KEY, event, expected_revision=3), Event)
    assert_type(await service.append_events(session, (event,)), list[Event])
    assert_type(await service.append_events(KEY, iter([event]), expected_revision=3), list[Event])
    kind: ContentType = "tool_call"
    assert_type(await service.get_events(KEY), list[Event])
    assert_type(await service.get_events(session, after_seq=session.last_seq), list[Event])
    assert_type(
        await service.get_events(
            KEY,
            after_seq=1,
            before_seq=9,
            limit=5,
            newest_first=True,
            author="user",
            branch="planner",
            content_type=kind,
        ),
        list[Event],
    )
    await service.get_events(KEY, author={"user", "agent"}, around="an id", content_type="text")
    await service.get_events(KEY, author=["user"], around=5)


async def state_methods(service: SessionService, session: Session) -> None:
    """Every method on state."""
    await service.update_session_state(KEY, {"a": [1], "temp:b": object()})
    await service.update_session_state(session, {"a": [1]})
    await service.update_app_state("app", {"a": None, "b": DELETE})
    await service.update_user_state(USER, {"a": b"bytes"})
    assert_type(await service.get_app_state("app"), dict[str, Any])
    assert_type(await service.get_user_state(USER), dict[str, Any])
    await service.delete_app_state("app", "a")
    await service.delete_user_state(USER, "a")
    await service.delete_session_state(KEY, "a")
    await service.delete_session_state(session, "a")


async def life(url: str) -> None:
    """``async with`` keeps the class, and closing is awaited."""
    async with InMemorySessionService() as memory:
        assert_type(memory, InMemorySessionService)
    async with RedisSessionService.from_url(url) as on_redis:
        assert_type(on_redis, RedisSessionService)
    await memory.aclose()
    concerns = await memory.check()
    assert_type(concerns, list[Concern])
    severity: Severity = concerns[0].severity
    assert_type((concerns[0].code, concerns[0].message), tuple[str, str])
    assert_type(severity == "danger", bool)
    async with embedded_server() as address:
        assert_type(address, str)
    with embedded_server() as same:
        assert_type(same, str)


async def transfers(service: SessionService, file: BinaryIO) -> None:
    """Every scope, from and to files and lines."""
    scopes: list[Scope] = ["app", USER, KEY]
    for scope in scopes:
        exported = await export_to(service, scope, file, resume=True, on_progress=print)
        assert_type(exported, ExportReport)
        assert_type((exported.sessions, exported.problems), tuple[int, list[Problem]])
    existing: Existing = "replace"
    imported = await import_from(
        service, file, to_app="a", to_user="u", existing=existing, keep_going=True
    )
    assert_type(imported, ImportReport)
    assert_type(imported.problems[0].subject, Subject)
    lines = export_lines(service, KEY, ExportReport())
    assert_type(lines, AsyncIterator[bytes])
    assert_type(await import_lines(service, lines), ImportReport)


def words(part: Part) -> str:
    """A match over parts is exhaustive, and each branch knows its fields."""
    match part:
        case Text():
            return assert_type(part.text, str)
        case ToolCall(call_id=call_id, name=name):
            assert_type(part.arguments, Any)
            return assert_type(call_id, str) + assert_type(name, str)
        case ToolResult():
            assert_type(part.result, Any)
            assert_type(part.is_error, bool)
            return part.call_id + part.name
        case Data():
            assert_type(part.data, Any)
            return assert_type(part.media_type, str)
        case Reasoning():
            assert_type(part.provider_data, Any)
            return assert_type(part.text, str)
        case Media():
            assert_type(part.to_bytes(), bytes)
            return assert_type(part.uri, str) + assert_type(part.data, str)
        case _:
            assert_never(part)


def content(event: Event) -> str:
    """Content is a string or parts; the fields of an event have their types."""
    assert_type(event.content, str | list[Text | Reasoning | Media | ToolCall | ToolResult | Data])
    assert_type(event.text, str)
    assert_type(event.tool_calls, list[ToolCall])
    assert_type(event.tool_results, list[ToolResult])
    assert_type(event.to_dict(), dict[str, Any])
    assert_type(Event.from_dict({}), Event)
    assert_type(event.id, str)
    assert_type(event.author, str)
    assert_type(event.timestamp, datetime)
    assert_type(event.invocation_id, str)
    assert_type(event.branch, str)
    assert_type(event.partial, bool)
    assert_type(event.state_delta, dict[str, Any])
    assert_type(event.metadata, dict[str, Any])
    assert_type(event.error, EventError | None)
    assert_type(event.seq, int)
    if isinstance(event.content, str):
        return event.content
    return "".join(words(part) for part in event.content)


def events(moment: datetime) -> bytes:
    """An event with every field, and its way to bytes and back."""
    parts: list[Part] = [
        Text("hi"),
        ToolCall("c", "f", {"a": 1}),
        ToolResult(call_id="c", result=[1], name="f", is_error=True),
        Data(data={"a": 1}, media_type="application/json"),
    ]
    either: Content = parts
    event = Event(
        author="agent",
        content=either,
        id="id",
        timestamp=moment,
        invocation_id="turn",
        branch="a.b",
        partial=False,
        state_delta={"a": 1, "b": DELETE},
        metadata={"model": "m"},
        error=EventError("boom", "ValueError"),
        seq=0,
    )
    assert_type(decode_event(encode_event(event), 5), Event)
    return encode_event(event)


async def function_agent(context: AgentContext) -> AsyncIterator[Event]:
    """An agent as users write it: an async generator function."""
    assert_type(context.session, Session)
    assert_type(context.message, Event)
    assert_type(context.invocation_id, str)
    assert_type(context.state, TrackedState)
    context.state["count"] = context.state.get("count", 0) + 1
    del context.state["temp:a"]
    yield Event(author="agent", content="hi")


class ObjectAgent:
    """An agent with a method."""

    name = "object"

    async def run(self, context: AgentContext, /) -> AsyncIterator[Event]:
        yield context.message


class CallableAgent:
    """An agent that is called, and names its argument as it likes."""

    def __call__(self, turn: AgentContext) -> AsyncIterator[Event]:
        return function_agent(turn)


async def runners(service: SessionService) -> None:
    """All kinds of agents, on a service of one's own or without one."""
    agents: list[Agent] = [function_agent, ObjectAgent(), CallableAgent()]
    as_object: AgentObject = ObjectAgent()
    as_function: Callable[[AgentContext], AsyncIterator[Event]] = ObjectAgent().run
    for agent in (*agents, as_object, as_function):
        Runner("app", agent)
    runner = Runner("app", function_agent, service)
    assert_type(runner.session_service, SessionService)
    run = runner.run("user", "", "hi", num_recent_events=20)
    assert_type(run, Run)
    assert_type(run.key, SessionKey)
    assert_type(run.session_id, str)
    assert_type(run.id, str)
    async with Runner("app", ObjectAgent(), session_service=service) as entered:
        assert_type(entered, Runner)
        async with entered.run("user", "session", [Text("hi")]) as turn:
            assert_type(turn, Run)
            async for event in turn:
                assert_type(event, Event)
        async for event in entered.run("user", "session", Event(author="user")):
            assert_type(event, Event)
    await run.aclose()
    await runner.aclose()


class MyBackend(Backend):
    """A backend of a third party, complete: it keeps nothing."""

    async def create(
        self, key: SessionKey, changes: Changes, *, token: str, beginning: Beginning = NEW
    ) -> Snapshot:
        return await self.get_or_create(key, changes, Window(last=0))

    async def get_or_create(self, key: SessionKey, changes: Changes, window: Window) -> Snapshot:
        session: ScopeChanges = changes.session
        kept = {name: value for name, value in session.items() if value is not None}
        return Snapshot(
            session_id=key.session_id,
            incarnation="1",
            created=0,
            updated=0,
            revision=1,
            last_seq=0,
            session=kept,
        )

    async def get(self, key: SessionKey, window: Window) -> Snapshot | None:
        assert_type(
            (window.after_seq, window.since, window.last), tuple[int, int | None, int | None]
        )
        return None

    async def list_sessions(
        self, user: UserKey, limit: int, before: Position | None
    ) -> SessionSlice:
        return SessionSlice([], before)

    async def list_users(self, app_name: str, limit: int, after: str) -> UserSlice:
        return UserSlice([], None)

    async def delete(self, key: SessionKey, *, expected: Expected = ANYTHING) -> None:
        raise SessionNotFoundError(key, replaced=expected.incarnation != "1")

    async def delete_user(self, user: UserKey) -> None:
        raise BackendError(user, "no")

    async def fork(
        self,
        key: SessionKey,
        new_key: SessionKey,
        at_seq: int | None,
        *,
        token: str,
        expected: Expected = ANYTHING,
    ) -> Snapshot:
        raise RewindError(key, at_seq or 0, "trimmed")

    async def append(
        self,
        key: SessionKey,
        entries: Sequence[Entry],
        *,
        expected: Expected = ANYTHING,
        then: Then = "keep",
    ) -> Receipt:
        for entry in entries:
            assert_type((entry.event_id, entry.time), tuple[str, int])
            assert_type((entry.payload, entry.changes), tuple[bytes, Changes])
        raise RevisionConflictError(key, expected.revision or 0, 1)

    async def read(
        self,
        key: SessionKey,
        *,
        after_seq: int,
        before_seq: int | None,
        limit: int,
        newest_first: bool,
        raw: bool = False,
        read_limit: ReadLimit | None = None,
        refresh: bool = True,
        after_id: str = "",
        expected: Expected = ANYTHING,
    ) -> EventSlice:
        slice_ = EventSlice([1], [b""], "")
        assert_type((slice_.seqs, slice_.first_seq), tuple[Sequence[int], int])
        return slice_

    async def locate(
        self, key: SessionKey, event_id: str, *, expected: Expected = ANYTHING
    ) -> int | None:
        return None

    async def read_past(
        self, key: SessionKey, *, after: float, limit: int, expected: Expected = ANYTHING
    ) -> PastSlice:
        found = PastSlice(earlier=[], more=False, turn=None, revision=1, incarnation="1")
        assert_type((found.earlier, found.turn), tuple[Sequence[Before], UnendedTurn | None])
        return found

    async def note_past(
        self, key: SessionKey, earlier: Sequence[Before], *, expected: Expected = ANYTHING
    ) -> None:
        for each in earlier:
            assert_type((each.at, each.was), tuple[float, ScopeChanges])

    async def update_state(
        self, key: SessionKey, changes: Changes, *, expected: Expected = ANYTHING
    ) -> Receipt:
        receipt = Receipt([], 1, 0, 0, incarnation="1")
        assert_type((receipt.incarnation, receipt.repeats), tuple[str, Mapping[int, bytes]])
        return receipt

    async def update_app_state(self, app_name: str, changes: ScopeChanges) -> None:
        return None

    async def update_user_state(self, user: UserKey, changes: ScopeChanges) -> None:
        return None

    async def get_app_state(self, app_name: str) -> dict[str, bytes]:
        return {}

    async def get_user_state(self, user: UserKey) -> dict[str, bytes]:
        return {}

    async def acquire(
        self, key: SessionKey, claim: Claim, attempt: int, *, expected: Expected = ANYTHING
    ) -> Standing:
        assert_type((claim.owner, claim.run_id, claim.ttl), tuple[str, str, int])
        assert_type((claim.when_busy, claim.grace), tuple[WhenBusy, int])
        assert_type((claim.exclusive, claim.resumes), tuple[bool, bool])
        unended = UnendedTurn(claim.run_id, 0, "interrupted")
        return Standing(state="held", incarnation="1", now=1, token=1, unended=unended)

    async def renew(self, key: SessionKey, owner: str, ttl: int) -> Standing:
        raise LeaseLostError(key)

    async def release(self, key: SessionKey, owner: str, attempt: int) -> None:
        return None

    async def stop(self, key: SessionKey, run_id: str | None) -> str | None:
        return run_id

    async def aclose(self) -> None:
        return None


class MySubject(TestSubject):
    """What the conformance checks want of a third party."""

    def open(self, retention: Retention) -> Backend:
        return MyBackend(retention)

    async def advance(self, seconds: float) -> None:
        return None

    async def set_clock_back(self, seconds: float) -> None:
        return None

    async def unexpiring(self) -> list[str]:
        return []


async def conformance() -> None:
    """Every check takes any subject."""
    assert_type(CHECKS, tuple[Check, ...])
    for check in CHECKS:
        async with MySubject() as subject:
            assert_type(subject, MySubject)
            assert_type(subject.key, SessionKey)
            assert_type(subject.service(session_ttl=60), SessionService)
            await check(subject)
        async with MemorySubject() as memory:
            await check(memory)
    clock: Clock = ManualClock(0)
    assert_type(clock(), int)


def errors(error: AgentSessionError) -> object:
    """Errors carry what they know."""
    match error:
        case StateValueTooLargeError():
            return assert_type((error.size, error.limit), tuple[int, int])
        case StateValueError():
            assert_type(error.reason, str)
            return assert_type(error.path, tuple[str | int, ...])
        case EventTooLargeError():
            assert_type((error.size, error.limit), tuple[int, int])
            return assert_type((error.key, error.event_id), tuple[SessionKey, str])
        case ReadTooLargeError():
            assert_type((error.key, error.events), tuple[SessionKey, int])
            return assert_type((error.size, error.limit), tuple[int, int])
        case RevisionConflictError():
            return assert_type((error.expected, error.actual), tuple[int, int])
        case EventNotFoundError():
            return assert_type((error.key, error.event), tuple[SessionKey, str | int])
        case SessionNotFoundError():
            return assert_type((error.key, error.replaced), tuple[SessionKey, bool])
        case CodecError() | BackendError():
            return assert_type(error.subject, SessionKey | UserKey | str)
        case _:
            return None


async def mistakes(service: SessionService, session: Session) -> None:
    """What a type checker refuses: mypy says so if it no longer does."""
    await service.get_session("session")  # type: ignore[arg-type] # pyright: ignore[reportArgumentType]
    await service.get_session(session)  # type: ignore[arg-type] # pyright: ignore[reportArgumentType]
    await service.delete_user(KEY)  # type: ignore[arg-type] # pyright: ignore[reportArgumentType]
    await service.get_events(KEY, content_type="image")  # type: ignore[arg-type] # pyright: ignore[reportArgumentType]
    await service.append_events(KEY, Event(author="a"))  # type: ignore[arg-type] # pyright: ignore[reportArgumentType]
    KEY.session_id = "other"  # type: ignore[misc] # pyright: ignore[reportAttributeAccessIssue]
    Event("user")  # type: ignore[call-arg] # pyright: ignore[reportCallIssue]
