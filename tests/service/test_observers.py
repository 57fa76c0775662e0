"""Observers of operations: told of each one, whatever becomes of it, and never in its way."""

from __future__ import annotations

import asyncio
import inspect
import logging
import textwrap
from collections.abc import Generator, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from contextvars import ContextVar
from typing import Any

import pytest

from agentsession import (
    Event,
    InMemorySessionService,
    RedisSessionService,
    Session,
    SessionKey,
    SessionService,
    SQLiteSessionService,
    ToolCall,
    ToolResult,
    UserKey,
    observers,
    open_service,
)
from agentsession.errors import SessionExistsError, SessionNotFoundError
from agentsession.leases import Lease
from agentsession.observers import Notice, Observer, Operation, Swept
from agentsession.retention import Retention
from agentsession.testing import ManualClock, Subject
from harness.proxy import proxied

USER = UserKey("app", "user")
KEY = SessionKey("app", "user", "session")
OPERATIONS = [
    name
    for name, value in vars(SessionService).items()
    if not name.startswith("_") and inspect.iscoroutinefunction(value)
]


def say(words: str) -> Event:
    return Event(author="user", content=words)


class Recorder(Observer):
    """Writes down the operations that it is told of, each with the error that it ended with."""

    def __init__(self) -> None:
        self.ended: list[tuple[str, object, BaseException | None]] = []
        self.notices: list[Notice] = []

    @contextmanager
    def on_operation(self, operation: Operation) -> Generator[None]:
        error: BaseException | None = None
        try:
            yield
        except BaseException as exc:
            error = exc
            raise
        finally:
            self.ended.append((operation.name, operation.subject, error))

    def on_notice(self, notice: Notice) -> None:
        self.notices.append(notice)

    @property
    def names(self) -> list[str]:
        return [name for name, _, _ in self.ended]


def test_there_are_operations() -> None:
    """What is checked for all of them is checked for some."""
    assert {"append_event", "get_session", "check", "aclose"} <= set(OPERATIONS)


async def test_every_operation_is_told_once_with_its_subject(subject: Subject) -> None:
    """On every backend; also those that are made of another one."""
    recorder = Recorder()
    service = SessionService(subject.open(Retention()), observers=[recorder])
    session = await service.create_session(KEY)
    given: dict[str, tuple[Any, ...]] = {
        "create_session": (SessionKey("app", "user", "other"),),
        "list_sessions": (USER,),
        "list_users": ("app",),
        "delete_user": (USER,),
        "append_event": (session, say("hi")),
        "append_events": (KEY, [say("hi")]),
        "begin_turn": (service.lease(KEY, run_id="turn"), say("hi")),
        "resume_turn": (service.lease(KEY), [ToolResult("c")]),
        "rewind": (KEY,),
        "fork": (session, SessionKey("app", "user")),
        "update_session_state": (session, {"a": 1}),
        "delete_session_state": (KEY, "a"),
        "update_app_state": ("app", {"a": 1}),
        "get_app_state": ("app",),
        "delete_app_state": ("app", "a"),
        "update_user_state": (USER, {"a": 1}),
        "get_user_state": (USER,),
        "delete_user_state": (USER, "a"),
        "check": (),
        "aclose": (),
    }
    named = {"rewind": {"to_seq": 0}}
    in_this_order = sorted(
        OPERATIONS,
        key=["begin_turn", "resume_turn", "delete_session", "delete_user", "aclose"].count,
    )
    in_this_order.sort(key=["aclose"].count)
    recorder.ended.clear()
    for name in in_this_order:
        arguments = given.get(name, (KEY,))
        if name == "resume_turn":
            call = Event(author="agent", content=[ToolCall("c", "t")], outcome="waiting")
            await SessionService.append_event(service, KEY, call, lease=given["begin_turn"][0])
        await getattr(service, name)(*arguments, **named.get(name, {}))
        about = arguments[0] if arguments else None
        about = about.key if isinstance(about, (Session, Lease)) else about
        assert recorder.ended == [(name, about, None)]
        recorder.ended.clear()


async def test_a_subject_may_be_given_by_name() -> None:
    """A keyword is as good as the first place."""
    recorder = Recorder()
    async with InMemorySessionService(observers=[recorder]) as service:
        await service.create_session(key=KEY, state={"a": 1})
        await service.append_event(event=say("hi"), session_or_key=KEY)
    assert [about for _, about, _ in recorder.ended] == [KEY, KEY, None]
    assert recorder.names == ["create_session", "append_event", "aclose"]


async def test_a_wrong_argument_is_told_as_no_subject() -> None:
    """The caller gets the error that it would get without observers, and so do they."""
    recorder = Recorder()
    async with InMemorySessionService(observers=[recorder]) as service:
        with pytest.raises(TypeError) as wrong:
            await service.get_session(42)  # type: ignore[arg-type]
        with pytest.raises(TypeError, match="missing 1 required positional argument: 'key'"):
            await service.get_session()  # type: ignore[call-arg]
    assert recorder.ended[0] == ("get_session", None, wrong.value)


@pytest.mark.parametrize("name", OPERATIONS)
def test_operations_stay_coroutine_functions(name: str) -> None:
    """On the class, and on objects with observers and without, with the same signature."""
    plain, observed = InMemorySessionService(), InMemorySessionService(observers=[Recorder()])
    for holder in (SessionService, plain, observed):
        assert inspect.iscoroutinefunction(getattr(holder, name))
    method = getattr(observed, name)
    assert inspect.signature(method) == inspect.signature(getattr(plain, name))
    assert method.__doc__ == getattr(SessionService, name).__doc__


def test_without_observers_nothing_stands_before_the_methods() -> None:
    """The very functions of the class run: so observers that are not there cost nothing."""
    service = InMemorySessionService()
    for name in OPERATIONS:
        assert getattr(service, name).__func__ is getattr(SessionService, name)
    assert not set(vars(service)) & set(OPERATIONS)


@pytest.mark.parametrize("error", [SessionExistsError, SessionNotFoundError])
async def test_an_observer_learns_the_error(error: type[Exception]) -> None:
    """It is the very object that the caller gets."""
    recorder = Recorder()
    async with InMemorySessionService(observers=[recorder]) as service:
        await service.create_session(KEY)
        call = (
            service.create_session(KEY)
            if error is SessionExistsError
            else service.append_event(SessionKey("app", "user", "none"), say("hi"))
        )
        with pytest.raises(error) as raised:
            await call
    assert recorder.ended[1][2] is raised.value


async def test_an_observer_learns_of_a_cancellation(valkey_url: str) -> None:
    """The caller waits for a reply that does not come, and is cancelled."""
    recorder = Recorder()
    async with (
        proxied(valkey_url) as proxy,
        RedisSessionService.from_url(proxy.url, key_prefix="obs:", observers=[recorder]) as service,
    ):
        await service.get_session(KEY)
        proxy.freeze()
        call = asyncio.create_task(service.get_session(KEY))
        await asyncio.sleep(0)
        call.cancel()
        with pytest.raises(asyncio.CancelledError):
            await call
        proxy.thaw()
        assert isinstance(recorder.ended[1][2], asyncio.CancelledError)


class Swallower(Observer):
    """Says of every error that it was dealt with."""

    def on_operation(self, operation: Operation) -> AbstractContextManager[object]:
        return self

    def __enter__(self) -> None:
        pass

    def __exit__(self, *exc_info: object) -> bool:
        return True


async def test_an_observer_cannot_hide_an_error() -> None:
    """A context manager that returns true from its end changes nothing."""
    async with InMemorySessionService(observers=[Swallower()]) as service:
        with pytest.raises(SessionNotFoundError):
            await service.append_event(KEY, say("hi"))


span: ContextVar[str] = ContextVar("span", default="none")


class Tracer(Observer):
    """Makes a span the current one while an operation runs, as OpenTelemetry does."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.seen: list[str] = []

    @contextmanager
    def on_operation(self, operation: Operation) -> Generator[None]:
        self.seen.append(span.get())
        token = span.set(f"{span.get()}>{self.name}:{operation.name}")
        try:
            yield
        finally:
            span.reset(token)  # Raises in another context than the one of the beginning.


class Looking(dict[str, Any]):
    """State that notes the current span when the operation reads it."""

    def __iter__(self) -> Iterator[str]:
        self.seen = span.get()
        return super().__iter__()


async def test_a_span_is_the_current_one_while_the_operation_runs(
    caplog: pytest.LogCaptureFixture,
) -> None:
    """Spans of several observers are nested in their order, and gone afterwards."""
    outer, inner = Tracer("outer"), Tracer("inner")
    async with InMemorySessionService(observers=[outer, inner]) as service:

        async def one(name: str) -> str:
            span.set(name)
            state = Looking(a=1)
            await service.create_session(SessionKey("app", "user", name), state)
            assert span.get() == name
            return state.seen

        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(one(name)) for name in "ab"]
    for name, task in zip("ab", tasks, strict=True):
        assert task.result() == f"{name}>outer:create_session>inner:create_session"
    assert outer.seen == ["a", "b", "none"]
    assert not caplog.records


class Broken(Observer):
    """Raises where it is told to."""

    def __init__(self, where: str, error: BaseException) -> None:
        self.where = where
        self.error = error

    def on_operation(self, operation: Operation) -> AbstractContextManager[object]:
        self._break("on_operation")
        return self

    def __enter__(self) -> None:
        self._break("__enter__")

    def __exit__(self, *exc_info: object) -> None:
        self._break("__exit__")

    def _break(self, here: str) -> None:
        if self.where == here:
            raise self.error


class NoContext(Observer):
    """Returns what is no context manager."""

    def on_operation(self, operation: Operation) -> AbstractContextManager[object]:
        return "nothing of use"  # type: ignore[return-value]


class Twice(Observer):
    """Goes on where it should end."""

    @contextmanager
    def on_operation(self, operation: Operation) -> Generator[None]:
        yield
        yield


WRONG = [
    Broken("on_operation", ValueError("mine")),
    Broken("__enter__", ValueError("mine")),
    Broken("__exit__", ValueError("mine")),
    NoContext(),
    Twice(),
]


@pytest.mark.parametrize(
    "wrong", WRONG, ids=["prepares", "enters", "leaves", "no context", "goes on"]
)
async def test_an_observer_that_raises_is_logged_and_breaks_nothing(
    wrong: Observer, caplog: pytest.LogCaptureFixture
) -> None:
    """The operation goes on, the others are told, and a storm of errors is one line."""
    before, after = Recorder(), Recorder()
    async with InMemorySessionService(observers=[before, wrong, after]) as service:
        await service.create_session(KEY)
        for n in range(50):
            assert (await service.append_event(KEY, say("hi"))).seq == n + 1
        with pytest.raises(SessionExistsError) as raised:
            await service.create_session(KEY)
    for recorder in (before, after):
        assert recorder.names == [
            "create_session",
            *["append_event"] * 50,
            "create_session",
            "aclose",
        ]
        assert recorder.ended[-2][2] is raised.value
    [record] = caplog.records
    assert (record.name, record.levelno) == ("agentsession.observers", logging.ERROR)
    assert type(wrong).__qualname__ in record.message
    assert "Traceback" in record.getMessage()


class Stop(BaseException):
    """What is no mistake: an interrupt, or the end of the program."""


@pytest.mark.parametrize("where", ["on_operation", "__enter__", "__exit__"])
async def test_what_is_no_mistake_is_not_dropped(
    where: str, caplog: pytest.LogCaptureFixture
) -> None:
    """It reaches the caller, and the other observers are left in order."""
    before, after = Recorder(), Recorder()
    stop = Stop()
    service = InMemorySessionService(observers=[before, Broken(where, stop), after])
    with pytest.raises(Stop):
        await service.create_session(KEY)
    assert [error for _, _, error in before.ended] == [stop]
    assert len(after.ended) == (where == "__exit__")
    assert not caplog.records


async def test_an_observer_may_hand_on_the_error(caplog: pytest.LogCaptureFixture) -> None:
    """To raise what one is given is no mistake of one's own."""

    class Handing(Observer):
        def on_operation(self, operation: Operation) -> AbstractContextManager[object]:
            return self

        def __enter__(self) -> None:
            pass

        def __exit__(self, kind: object, error: BaseException | None, *rest: object) -> None:
            if error is not None:
                raise error

    async with InMemorySessionService(observers=[Handing()]) as service:
        with pytest.raises(SessionNotFoundError):
            await service.append_event(KEY, say("hi"))
    assert not caplog.records


async def test_an_observer_may_leave_an_operation_out(caplog: pytest.LogCaptureFixture) -> None:
    """``None`` is no context manager and no mistake; it is what the base class says."""

    class Choosy(Recorder):
        def on_operation(self, operation: Operation) -> Any:
            return super().on_operation(operation) if operation.name == "get_session" else None

    choosy = Choosy()
    async with InMemorySessionService(observers=[choosy, Plain()]) as service:
        await service.create_session(KEY)
        await service.get_session(KEY)
    assert choosy.names == ["get_session"]
    assert not caplog.records


class Plain(Observer):
    """Observes nothing."""


class Alike:
    """An observer that inherits nothing."""

    def __init__(self) -> None:
        self.names: list[str] = []

    def on_operation(self, operation: Operation, /) -> AbstractContextManager[object]:
        self.names.append(operation.name)
        return nullcontext()

    def on_notice(self, notice: Notice, /) -> None:
        pass


async def test_an_observer_need_not_inherit() -> None:
    """Whatever has both methods is one; every way to a service takes it."""
    alike = Alike()
    async with open_service("memory://", observers=[alike]) as service:
        await service.create_session(KEY)
    assert alike.names == ["create_session", "aclose"]


async def test_the_operation_of_a_subclass_is_observed_once() -> None:
    """Its own method is what the observers are put around."""

    class Polite(InMemorySessionService):
        async def append_event(self, *args: Any, **kwargs: Any) -> Event:
            """Add an event, and another one."""
            await super().append_event(args[0], say("please"))
            return await super().append_event(*args, **kwargs)

    recorder = Recorder()
    async with Polite(observers=[recorder]) as service:
        await service.create_session(KEY)
        assert (await service.append_event(KEY, say("hi"))).seq == 2
    assert recorder.names == ["create_session", "append_event", "aclose"]


class Waiting(Observer):
    """Would have to be awaited."""

    async def on_operation(self, operation: Operation) -> None:  # type: ignore[override]
        pass


@pytest.mark.parametrize(
    ("given", "words"),
    [
        (Recorder(), "must be a list of observers, not Recorder"),
        ({Recorder()}, "must be a list of observers, not set"),
        ([Recorder], "on_operation\\(\\) and on_notice\\(\\), not <class"),
        ([print], "inherits agentsession.observers.Observer"),
        ("abc", "on_operation\\(\\) and on_notice\\(\\), not 'abc|not 'a'"),
        ([Waiting()], "of Waiting must be plain functions, not async ones"),
    ],
)
@pytest.mark.parametrize(
    "make",
    [
        InMemorySessionService,
        lambda **options: RedisSessionService.from_url("redis://localhost", **options),
        lambda **options: SQLiteSessionService("sessions.db", **options),
        lambda **options: SessionService(InMemorySessionService().backend, **options),
    ],
    ids=["memory", "redis", "sqlite", "any backend"],
)
def test_what_is_no_observer_is_refused(make: Any, given: object, words: str) -> None:
    """When the service is made, in words that say what one is."""
    with pytest.raises(TypeError, match=words):
        make(observers=given)


async def test_sweeps_are_told(caplog: pytest.LogCaptureFixture) -> None:
    """How many sessions were freed, and nothing if none were."""
    caplog.set_level(logging.DEBUG, "agentsession")
    clock, recorder = ManualClock(), Recorder()
    service = InMemorySessionService(session_ttl=10, clock=clock, observers=[recorder])
    async with service:
        for n in range(3):
            await service.create_session(SessionKey("app", f"u{n}", "secret name"))
        await service.backend.sweep()  # type: ignore[attr-defined]
        assert recorder.notices == []
        clock.advance(11)
        await service.create_session(KEY)
        await service.backend.sweep()  # type: ignore[attr-defined]
    assert recorder.notices == [Swept(sessions=3)]
    [record] = caplog.records
    assert (record.name, record.levelno) == ("agentsession.memory", logging.DEBUG)
    assert record.message == "removed 3 expired sessions"


async def test_the_example_of_the_documentation_runs() -> None:
    """As it stands in the module's docstring."""
    lines = (observers.__doc__ or "").split("made with them::\n")[1].split("\nA service without")[0]
    names: dict[str, Any] = {}
    exec(compile(textwrap.dedent(lines), "docstring", "exec"), names)
    meter = names["Meter"]()
    async with InMemorySessionService(observers=[meter]) as service:
        await service.create_session(KEY)
        meter.on_notice(observers.Lost(server="here", reason="it is a test"))
    assert set(meter.seconds) == {"create_session", "aclose"}
    assert meter.lost == 1


async def test_what_an_observer_raises_tells_nothing_of_the_operation(
    caplog: pytest.LogCaptureFixture,
) -> None:
    """The operation's own error, which it was raised for, names ids; they stay out of the log."""

    class Clumsy(Observer):
        def on_operation(self, operation: Operation) -> AbstractContextManager[object]:
            return self

        def __enter__(self) -> None:
            pass

        def __exit__(self, kind: object, error: BaseException | None, *rest: object) -> None:
            if error is not None:
                msg = "clumsy"
                raise ValueError(msg) from error

    async with InMemorySessionService(observers=[Clumsy()]) as service:
        with pytest.raises(SessionNotFoundError):
            await service.append_event(SessionKey("app", "a-secret-name", "s"), say("hi"))
    assert "ValueError: clumsy" in caplog.text
    assert "a-secret-name" not in caplog.text
