"""The service for code without a loop, and for many loops and threads: the same, from anywhere."""

from __future__ import annotations

import asyncio
import gc
import inspect
import os
import signal
import subprocess
import sys
import threading
import weakref
from collections.abc import Callable, Coroutine, Iterator
from concurrent.futures import CancelledError, Future, ThreadPoolExecutor
from contextlib import AbstractContextManager, closing
from contextvars import ContextVar
from itertools import islice
from pathlib import Path
from queue import SimpleQueue
from typing import Any

import anyio
import pytest

from agentsession import Event, InMemorySessionService, SessionKey, SessionService, UserKey
from agentsession.blocking import (
    AnyLoopSessionService,
    BlockingSessionService,
    BlockingSubscription,
    _thread,
    open_service,
)
from agentsession.blocking._thread import _Call, _Running
from agentsession.errors import (
    ClosedError,
    EventLoopError,
    LeaseLostError,
    SessionBusyError,
    SessionNotFoundError,
)
from agentsession.observers import Observer, Operation
from agentsession.subscriptions import Ended, Missed, SessionNews

KEY = SessionKey("app", "user", "session")
# They make what belongs to one loop, or take a lease that is not taken yet.
OF_ONE_LOOP = {"lease", "begin_turn", "resume_turn", "subscribe", "subscribe_user"}


@pytest.fixture(params=["memory", "sqlite", "server"])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    if request.param == "memory":
        return "memory://"
    if request.param == "sqlite":
        return f"sqlite:///{tmp_path}/sessions.db"
    found: str = request.getfixturevalue("valkey_url")
    return found


@pytest.fixture
def service(url: str, request: pytest.FixtureRequest) -> Iterator[BlockingSessionService]:
    with open_service(url, key_prefix=f"{request.node.name}:", session_ttl=60) as opened:
        yield opened


def message(text: str) -> Event:
    return Event(author="user", content=text)


def public(of: type) -> dict[str, inspect.Signature]:
    return {
        name: inspect.signature(member)
        for name, member in inspect.getmembers(of, inspect.isfunction)
        if not name.startswith("_")
    }


def test_both_faces_have_all_methods() -> None:
    """Names, arguments and words; closing is named as callers of each kind expect."""
    theirs = public(SessionService)
    theirs.pop("aclose")
    blocking = public(BlockingSessionService)
    assert {"call", "close"} <= blocking.keys()
    assert {n: s for n, s in blocking.items() if n not in {"call", "close"}} == theirs
    any_loop = public(AnyLoopSessionService)
    assert {n: s for n, s in any_loop.items() if n not in {"call", "aclose"}} == {
        name: signature for name, signature in theirs.items() if name not in OF_ONE_LOOP
    }
    assert BlockingSessionService.append_event.__doc__ == SessionService.append_event.__doc__


def test_a_conversation_without_a_loop(service: BlockingSessionService) -> None:
    """Every kind of call: what returns, what raises, and what takes a Session along."""
    with pytest.raises(SessionNotFoundError, match="session"):
        service.append_event(KEY, message("lost"))
    session = service.get_or_create_session(KEY, {"user:name": "Ada"})
    service.append_event(session, message("one"))
    service.append_events(KEY, [message("two"), message("three")])
    assert [event.text for event in session.events] == ["one"]
    assert [event.text for event in service.get_events(KEY)] == ["one", "two", "three"]
    assert service.get_user_state(UserKey("app", "user")) == {"name": "Ada"}
    assert [found.id for found in service.list_sessions("app").sessions] == ["session"]
    service.delete_user(UserKey("app", "user"))
    assert service.get_session(KEY) is None


def test_a_lease_without_a_loop(service: BlockingSessionService) -> None:
    """It is renewed on the service's loop, so it can be held while this thread computes."""
    service.create_session(KEY)
    with service.lease(KEY) as lease:
        service.append_event(KEY, message("mine"), lease=lease)
        with pytest.raises(SessionBusyError), service.lease(KEY, when_busy="reject"):
            pytest.fail("two at once")
    assert not lease.held
    with pytest.raises(LeaseLostError):
        service.append_event(KEY, message("late"), lease=lease)
    turn = service.lease(KEY)
    start = service.begin_turn(turn.lease, message("begins"))
    service.append_event(
        KEY, Event(author="agent", content="ends", outcome="completed"), lease=turn.lease
    )
    turn.release()
    assert start.message.text == "begins"


def test_threads_share_it(service: BlockingSessionService) -> None:
    """Nothing is lost, nothing is there twice."""
    service.create_session(KEY)
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda n: service.append_event(KEY, message(str(n))), range(200)))
    found = [event.text for event in service.get_events(KEY, limit=1000)]
    assert sorted(found, key=int) == [str(n) for n in range(200)]


def test_loops_share_it(service: BlockingSessionService) -> None:
    """Several at once, and one after the other, as ``run_sync`` of frameworks has them."""
    service.create_session(KEY)

    async def write(name: str) -> None:
        for n in range(20):
            await service.any_loop.append_event(KEY, message(f"{name}{n}"))

    threads = [threading.Thread(target=asyncio.run, args=(write(name),)) for name in "abcd"]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    asyncio.run(write("e"))
    found = [event.text for event in service.get_events(KEY, limit=1000)]
    assert len(found) == len(set(found)) == 100
    assert [text for text in found if text[0] == "a"] == [f"a{n}" for n in range(20)]


def test_a_running_loop_is_not_blocked(service: BlockingSessionService) -> None:
    """It would stand still, with all that runs on it; nothing is done instead."""

    async def block() -> None:
        with pytest.raises(EventLoopError, match="await the same method") as raised:
            service.create_session(KEY)
        assert raised.value.problem == "blocked"
        for make in (service.subscribe, service.lease):
            with pytest.raises(EventLoopError, match=r"agentsession\.open_service\(\) makes there"):
                make(KEY)
        with pytest.raises(EventLoopError, match=r"'await service\.any_loop\.aclose\(\)'"):
            service.close()
        assert await asyncio.to_thread(service.get_session, KEY) is None

    asyncio.run(block())
    assert service.create_session(KEY).id == "session"


def test_a_worker_thread_may_block_whatever_context_it_has(service: BlockingSessionService) -> None:
    """``asyncio.to_thread`` hands on the context, in which anyio marks that a loop runs."""

    async def look() -> None:
        await asyncio.to_thread(service.get_or_create_session, KEY)

    anyio.run(look)


def test_on_trio_it_says_so(service: BlockingSessionService) -> None:
    """What is awaited is asyncio's, and a trio loop is not blocked either."""
    import trio

    async def use() -> None:
        with pytest.raises(EventLoopError, match="await the same method"):
            service.create_session(KEY)
        with pytest.raises(EventLoopError, match="no event loop of asyncio"):
            await service.any_loop.create_session(KEY)
        assert (await trio.to_thread.run_sync(service.create_session, KEY)).id == "session"

    trio.run(use)


def test_several_steps_take_one_call(service: BlockingSessionService) -> None:
    """They run where the service runs, one hand-over for all."""

    async def both(inner: SessionService, key: SessionKey, *, text: str) -> str:
        await inner.create_session(key)
        return (await inner.append_event(key, message(text))).text

    assert service.call(both, KEY, text="both") == "both"
    other = SessionKey("app", "user", "other")
    assert asyncio.run(service.any_loop.call(both, other, text="there")) == "there"


def test_who_is_cancelled_cancels_the_call() -> None:
    """It does not go on behind the caller's back."""
    inside, outside = threading.Event(), threading.Event()

    async def wait(_: SessionService) -> None:
        inside.set()
        try:
            await asyncio.Event().wait()
        finally:
            outside.set()

    async def give_up(any_loop: AnyLoopSessionService) -> None:
        task = asyncio.create_task(any_loop.call(wait))
        await asyncio.to_thread(inside.wait)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    with BlockingSessionService(InMemorySessionService()) as service:
        asyncio.run(give_up(service.any_loop))
        assert outside.wait(10)


class InterruptedLock(AbstractContextManager[None]):
    """Who lets go of it is interrupted once a call has begun."""

    def __init__(self, begun: threading.Event) -> None:
        self.begun = begun

    def __enter__(self) -> None: ...

    def __exit__(self, *exc_info: object) -> None:
        self.begun.wait()
        raise KeyboardInterrupt


@pytest.mark.parametrize("when", ["it waits", "it hands over"])
def test_who_is_interrupted_cancels_the_call(when: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Control-C ends the wait and the call, in whichever line it strikes."""
    inside, outside = threading.Event(), threading.Event()

    async def wait(_: SessionService) -> None:
        inside.set()
        if when == "it waits":
            os.kill(os.getpid(), signal.SIGINT)
        try:
            await asyncio.Event().wait()
        finally:
            outside.set()

    with BlockingSessionService(InMemorySessionService()) as service:
        with pytest.raises(KeyboardInterrupt), monkeypatch.context() as patch:
            if when == "it hands over":
                patch.setattr(service._thread, "_lock", InterruptedLock(inside))
            service.call(wait)
        assert outside.wait(10)


class InterruptedQueue(SimpleQueue[Any]):
    """Whoever waits for an answer is interrupted once it is there."""

    def get(self, *args: Any) -> Any:
        super().get(*args)
        raise KeyboardInterrupt


class InterruptedEarlyQueue(SimpleQueue[Any]):
    def get(self, *_: Any) -> Any:
        raise KeyboardInterrupt


@pytest.mark.parametrize("how", ["taken", "begun", "given back"])
def test_who_is_interrupted_with_a_lease_has_none(
    service: BlockingSessionService, monkeypatch: pytest.MonkeyPatch, how: str
) -> None:
    """Nobody could give it back any more, and it would be renewed for ever."""
    service.create_session(KEY)
    lease = service.lease(KEY)
    if how == "given back":
        lease.__enter__()
    queue = InterruptedEarlyQueue if how == "given back" else InterruptedQueue
    with pytest.raises(KeyboardInterrupt), monkeypatch.context() as patch:
        patch.setattr(_thread, "SimpleQueue", queue)
        match how:
            case "taken":
                lease.__enter__()
            case "begun":
                service.begin_turn(lease.lease, message("hi"))
            case _:
                lease.release()
    with service.lease(KEY, wait=5):
        assert not lease.lease.held


def test_a_thread_follows_a_session(service: BlockingSessionService) -> None:
    """What is stored already, what others store meanwhile, and that it is deleted; then it ends."""
    service.create_session(KEY)
    service.append_event(KEY, message("0"))
    with service.subscribe(KEY, partial=False) as items, ThreadPoolExecutor(1) as pool:
        assert (items.key, items.position) == (KEY, 0)
        assert items.incarnation
        following = pool.submit(list, islice(items, 50))
        for number in range(1, 50):
            service.append_event(KEY, message(str(number)))
        assert [getattr(each, "text", "") for each in following.result(30)] == [
            str(number) for number in range(50)
        ]
        assert items.position == 50
        service.delete_session(KEY)
        [last] = items
        assert isinstance(last, Ended)
    with pytest.raises(SessionNotFoundError), service.subscribe(KEY):
        pytest.fail("it is gone")
    with pytest.raises(ValueError, match="after_seq"):
        service.subscribe(KEY, after_seq=-1)


def test_a_thread_follows_a_user(service: BlockingSessionService) -> None:
    with service.subscribe_user(KEY.user) as items:
        assert items.key == KEY.user
        assert isinstance(next(items), Missed)
        news: object = None
        while not isinstance(news, SessionNews):  # Until it listens, it may miss some more.
            made = service.create_session(SessionKey("app", "user", ""))
            news = next(items)
        assert (news.key.user, news.what) == (made.key.user, "created")


@pytest.mark.parametrize("how", ["it alone", "the service"])
def test_who_follows_is_let_go_by_closing(how: str, url: str) -> None:
    """From another thread, since the one that follows waits."""
    with open_service(url, key_prefix=f"closing {how}:") as service, ThreadPoolExecutor(1) as pool:
        service.create_session(KEY)
        with service.subscribe(KEY) as items:
            service.append_event(KEY, message("one"))
            assert getattr(next(items), "text", "") == "one"
            waiting = pool.submit(next, items, None)
            _until_taken(items)
            with pytest.raises(RuntimeError, match="another thread"):
                next(items)
            if how == "it alone":
                items.close()
                assert waiting.result(30) is None
                assert next(items, None) is None
            else:
                service.close()
                with pytest.raises(ClosedError):
                    waiting.result(30)


def _until_taken(items: BlockingSubscription) -> None:
    while not getattr(items._followed, "_is_taken", True):
        os.sched_yield()


@pytest.mark.parametrize("when", ["nothing has come", "it hands over", "it is told"])
def test_who_is_interrupted_while_following_misses_nothing(
    when: str, service: BlockingSessionService, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whenever Control-C strikes, the next item is the one that was not handed out."""
    service.create_session(KEY)
    thread = service._thread
    wait = thread.wait

    def interrupted(call: Callable[[], Coroutine[object, object, object]]) -> None:
        if when == "it is told":
            wait(call)
        else:
            made: _Call[object] = _Call(call, lambda _: None)
            thread._submit(made)
            thread._cancel(made)
        raise KeyboardInterrupt

    with service.subscribe(KEY, partial=False) as items, ThreadPoolExecutor(1) as pool:
        if when == "nothing has come":
            interruption = pool.submit(_interrupt_once_taken, items)
            with pytest.raises(KeyboardInterrupt):
                next(items)
            interruption.result()
        service.append_events(KEY, [message("0"), message("1")])
        for number in range(2):
            for _ in range(3):
                with pytest.raises(KeyboardInterrupt), monkeypatch.context() as patch:
                    patch.setattr(thread, "wait", interrupted)
                    next(items)
                assert items.position == number  # For a later after_seq nothing is left out.
            assert getattr(next(items), "text", "") == str(number)


def _interrupt_once_taken(items: BlockingSubscription) -> None:
    _until_taken(items)
    os.kill(os.getpid(), signal.SIGINT)


IS_INTERRUPTED = """
import random
import signal
import sys

from agentsession import Event, SessionKey, blocking


class Interruption(BaseException):
    pass


def interrupt(*_):
    raise Interruption


def often_interrupted(call, times):
    for _ in range(times):
        try:
            signal.setitimer(signal.ITIMER_REAL, moments.uniform(1e-5, 3e-4))
            while True:
                call()
        except Interruption:
            pass


moments = random.Random(sys.argv[1])
signal.signal(signal.SIGALRM, interrupt)
key = SessionKey("app", "user", "session")
with blocking.open_service("memory://", session_event_limit=None) as service:
    service.create_session(key)
    often_interrupted(lambda: service.get_session(key, num_recent_events=0), 3000)
    seqs = [0]
    with service.subscribe(key) as items:
        for _ in range(30):
            service.append_events(key, [Event(author="a") for _ in range(100)])
        often_interrupted(lambda: seqs.append(next(items).seq), 300)
        while seqs[-1] < 3000:
            seqs.append(next(items).seq)
    assert seqs == sorted(set(seqs))
print("done")
"""


@pytest.mark.parametrize("seed", range(3))
def test_who_is_interrupted_anywhere_leaves_nothing_locked(seed: int) -> None:
    """As by the limit of a job's time; the service answers after that as before."""
    # Traced by coverage, no call would be done before it is interrupted, and all take a minute.
    environment = {name: each for name, each in os.environ.items() if "COVERAGE" not in name}
    program = subprocess.run(
        [sys.executable, "-c", IS_INTERRUPTED, str(seed)],
        env=environment,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert (program.stdout, program.stderr) == ("done\n", "")


def test_what_follows_is_used_once_and_within_with(service: BlockingSessionService) -> None:
    """Each mistake is told, and harms nothing."""
    service.create_session(KEY)
    service.append_event(KEY, message("one"))
    items = service.subscribe(KEY)
    with pytest.raises(RuntimeError, match="within 'with'"):
        next(items)
    with items:
        with pytest.raises(RuntimeError, match="used once"):
            items.__enter__()
        assert getattr(next(items), "text", "") == "one"
        items.close()
        service.close()
        assert next(items, None) is None


def test_a_callback_of_a_loop_may_not_block_it(service: BlockingSessionService) -> None:
    """There is no task, and a loop that runs all the same."""
    service.create_session(KEY)
    told: list[BaseException] = []

    def call_back(done: asyncio.Event) -> None:
        try:
            service.get_session(KEY)
        except EventLoopError as exc:
            told.append(exc)
        done.set()

    async def main() -> None:
        done = asyncio.Event()
        asyncio.get_running_loop().call_soon(call_back, done)
        await done.wait()

    asyncio.run(main())
    assert [exc.problem for exc in told if isinstance(exc, EventLoopError)] == ["blocked"]


FOLLOWS_TO_THE_END = """
import gc
from collections.abc import Iterator

from agentsession import Event, SessionKey, blocking

service = blocking.open_service("memory://")
key = SessionKey("app", "user", "s")
service.create_session(key)
service.append_event(key, Event(author="user", content="one"))


def follow() -> Iterator[object]:
    with service.subscribe(key) as items:
        yield from items


class Ring:
    def __init__(self) -> None:
        self.ring, self.following = self, follow()


next(Ring().following)
async def collect(_: object) -> None:
    service._thread._running.loop.call_soon(gc.collect)
service.call(collect)
assert service.get_session(key)
following = follow()
next(following)
print("done")
"""


def test_what_follows_is_collected_anywhere_and_ends_with_the_process() -> None:
    """On the service's own thread, where nobody may wait for it; and when that has been stopped."""
    program = subprocess.run(
        [sys.executable, "-c", FOLLOWS_TO_THE_END],
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    assert program.stdout == "done\n"


@pytest.mark.parametrize("exit_", [SystemExit, KeyboardInterrupt])
@pytest.mark.parametrize("where", ["itself", "in a task"])
def test_an_exit_is_the_callers(
    where: str, exit_: type[BaseException], service: BlockingSessionService
) -> None:
    """It does not end the loop, on which the calls of others run."""
    begun, go_on = threading.Event(), asyncio.Event()

    async def leave(_: SessionService) -> None:
        go_on.set()
        raise exit_(exit_.__name__)

    async def leave_a_task(inner: SessionService) -> None:
        async with asyncio.TaskGroup() as group:
            group.create_task(leave(inner))

    async def wait(_: SessionService) -> str:
        begun.set()
        await go_on.wait()
        return "done"

    with ThreadPoolExecutor(1) as pool:
        other = pool.submit(service.call, wait)
        begun.wait()
        with pytest.raises(exit_, match=exit_.__name__):
            service.call(leave if where == "itself" else leave_a_task)
        assert other.result(10) == "done"
    assert service.create_session(KEY).key == KEY


def test_a_cancelled_future_of_a_call_cancels_nobody_else() -> None:
    """Its error is one like others; that of asyncio would be taken for the caller's own end."""

    async def look(_: SessionService) -> None:
        future: Future[None] = Future()
        future.cancel()
        future.result()

    async def use(any_loop: AnyLoopSessionService) -> None:
        with pytest.raises(CancelledError):
            await any_loop.call(look)

    with BlockingSessionService(InMemorySessionService()) as service:
        with pytest.raises(CancelledError):
            service.call(look)
        asyncio.run(use(service.any_loop))


@pytest.mark.parametrize("face", ["blocking", "any loop"])
def test_an_error_is_forgotten_once_it_was_caught(
    face: str, service: BlockingSessionService
) -> None:
    """Without a collection: what the failed call held, such as a connection, ends at once."""
    held: list[weakref.ref[object]] = []

    async def fail(_: SessionService) -> None:
        local = threading.Event()
        held.append(weakref.ref(local))
        raise LookupError

    async def fail_on_a_loop() -> None:
        with pytest.raises(LookupError):
            await service.any_loop.call(fail)

    gc.disable()
    try:
        if face == "any loop":
            asyncio.run(fail_on_a_loop())
        else:
            with pytest.raises(LookupError):
                service.call(fail)
        service.create_session(KEY)  # The loop has let go of the call.
        assert held[0]() is None
    finally:
        gc.enable()


def test_closing_waits_for_calls(service: BlockingSessionService) -> None:
    """Each ends as it would have; later ones are refused, and the thread is gone."""
    service.create_session(KEY)
    name = f"agentsession-{id(service._thread):x}"
    assert name in {thread.name for thread in threading.enumerate()}
    started, go_on = threading.Event(), threading.Event()

    async def slow(_: SessionService) -> str:
        started.set()
        await asyncio.to_thread(go_on.wait)
        return "done"

    with ThreadPoolExecutor(2) as pool:
        call = pool.submit(service.call, slow)
        started.wait()
        closed = pool.submit(service.close)
        while not service._thread._is_closed:
            pass
        go_on.set()
        assert call.result() == "done"
        closed.result()
    assert name not in {thread.name for thread in threading.enumerate()}
    service.close()
    with pytest.raises(ClosedError):
        service.get_session(KEY)


@pytest.mark.parametrize("when", ["it begins", "it ends the thread"])
def test_closing_that_was_interrupted_is_done_by_closing_again(
    when: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In whichever line it was: nothing that the service has stays for ever."""
    service = BlockingSessionService(InMemorySessionService())
    service.create_session(KEY)
    running = service._thread._running
    assert running is not None
    interruption = threading.Event()
    interruption.set()
    with pytest.raises(KeyboardInterrupt), monkeypatch.context() as patch:
        if when == "it begins":
            patch.setattr(service._thread, "_lock", InterruptedLock(interruption))
        else:
            patch.setattr(running._thread, "join", InterruptedLock(interruption).__exit__)
            patch.setattr("agentsession.blocking._thread._end_loop", lambda *_: None)
        service.close()
    service.close()
    assert not running._thread.is_alive()


def test_whoever_closes_what_another_closes_waits_too() -> None:
    """Once it has returned the service is closed, whoever did it."""
    begun, go_on = threading.Event(), threading.Event()

    async def slow(_: SessionService) -> None:
        begun.set()
        await asyncio.to_thread(go_on.wait)

    service = BlockingSessionService(InMemorySessionService())
    with ThreadPoolExecutor(3) as pool:
        pool.submit(service.call, slow)
        begun.wait()
        closed = [pool.submit(service.close) for _ in range(2)]
        running = service._thread._running
        assert running is not None
        while running.waiting.qsize() < len(closed):
            pass
        assert not any(each.done() for each in closed)
        go_on.set()
        for each in closed:
            each.result(10)
    assert not running._thread.is_alive()


def test_it_is_closed_from_a_loop_too(url: str) -> None:
    """Without blocking it."""

    async def use() -> None:
        async with open_service(url, key_prefix="closed:").any_loop as service:
            await service.get_or_create_session(KEY)
            await service.delete_session(KEY)
        with pytest.raises(ClosedError):
            await service.get_session(KEY)

    asyncio.run(use())


INSTEAD = r"write 'async with blocking\.open_service\(\.\.\.\)\.any_loop as service'"


def test_what_cannot_be_used_is_not_entered() -> None:
    """One that is closed, and where the block could not be left again."""
    service = BlockingSessionService(InMemorySessionService())

    async def enter() -> None:
        with pytest.raises(EventLoopError, match=INSTEAD), service:
            pytest.fail("it would block the loop")
        with pytest.raises(TypeError, match=f"'with', not with 'async with'; .*{INSTEAD}"):
            async with service:  # type: ignore[attr-defined]
                pytest.fail("it is not for this")
        async with service.any_loop:
            pass
        with pytest.raises(ClosedError):
            async with service.any_loop:
                pytest.fail("it is closed")

    asyncio.run(enter())
    with pytest.raises(ClosedError), service:
        pytest.fail("it is closed")


def test_a_call_cannot_close_what_waits_for_it() -> None:
    """Each would wait for the other, for ever."""
    with BlockingSessionService(InMemorySessionService()) as service:
        any_loop = service.any_loop

        async def close(_: SessionService) -> None:
            await any_loop.aclose()

        with pytest.raises(EventLoopError):
            service.call(close)
        assert service.get_session(KEY) is None


def test_one_that_was_never_used_is_closed() -> None:
    """Nothing was started for it."""
    before = threading.active_count()
    with BlockingSessionService(InMemorySessionService()) as service:
        assert threading.active_count() == before
    with pytest.raises(ClosedError):
        service.get_session(KEY)


@pytest.mark.filterwarnings("ignore:This process:DeprecationWarning")
def test_a_child_says_that_the_thread_is_elsewhere() -> None:
    """It would wait for ever; one that was not used before the fork is used in both."""
    with (
        closing(BlockingSessionService(InMemorySessionService())) as used,
        closing(BlockingSessionService(InMemorySessionService())) as unused,
    ):
        used.create_session(KEY)
        child = os.fork()
        if not child:
            try:
                unused.create_session(KEY)
                used.get_session(KEY)
            except EventLoopError as error:
                os._exit(0 if error.problem == "forked" else 2)
            finally:
                os._exit(3)
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
        unused.create_session(KEY)


@pytest.mark.filterwarnings("ignore:This process:DeprecationWarning")
def test_a_child_says_so_too_if_the_thread_was_just_starting(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Whoever started it has a lock, which nobody in the child would give back."""
    starting, go_on = threading.Event(), threading.Event()

    class SlowToStart(_Running):
        def __init__(self, name: str) -> None:
            starting.set()
            go_on.wait()
            super().__init__(name)

    monkeypatch.setattr("agentsession.blocking._thread._Running", SlowToStart)
    with (
        BlockingSessionService(InMemorySessionService()) as service,
        ThreadPoolExecutor(1) as pool,
    ):
        first = pool.submit(service.create_session, KEY)
        starting.wait()
        child = os.fork()
        if not child:
            signal.alarm(10)
            try:
                service.get_session(KEY)
            except EventLoopError as error:
                os._exit(0 if error.problem == "forked" else 2)
            finally:
                os._exit(3)
        go_on.set()
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
        assert first.result().key == KEY


_NOT_CLOSED = """
import os
import sys
from agentsession import SessionKey, blocking

service = blocking.open_service("memory://")
service.create_session(SessionKey("app", "user"))
if sys.argv[1] == "forked":
    child = os.fork()
    if child:
        sys.exit(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
"""


@pytest.mark.parametrize("how", ["alone", "forked"])
def test_what_was_not_closed_ends_with_the_process(how: str) -> None:
    """Its thread stops before its objects are collected, so that these cannot wait for it."""
    command = [sys.executable, "-W", "ignore::DeprecationWarning", "-c", _NOT_CLOSED, how]
    ended = subprocess.run(command, check=False, timeout=30, capture_output=True)
    assert (ended.returncode, ended.stdout, ended.stderr) == (0, b"", b"")


def test_what_is_dropped_ends_its_thread() -> None:
    """Though nobody closes it; and whoever collects it does not wait."""
    before = set(threading.enumerate())
    service = BlockingSessionService(InMemorySessionService())
    service.create_session(KEY)
    (thread,) = set(threading.enumerate()) - before
    del service
    gc.collect()
    thread.join(10)
    assert not thread.is_alive()


def test_what_is_no_service_is_refused() -> None:
    """When it is made, and not by the first call."""
    with pytest.raises(TypeError, match=r"a SessionService, .* not str: 'redis://localhost'"):
        BlockingSessionService("redis://localhost")  # type: ignore[arg-type]


def test_the_context_of_the_caller_is_there() -> None:
    """Traces go on through the hand-over."""
    trace: ContextVar[str] = ContextVar("trace", default="")

    async def look(_: SessionService) -> str:
        return trace.get()

    async def on_a_loop(any_loop: AnyLoopSessionService) -> str:
        trace.set("from a loop")
        return await any_loop.call(look)

    with BlockingSessionService(InMemorySessionService()) as service:
        trace.set("from a thread")
        assert service.call(look) == "from a thread"
        assert asyncio.run(on_a_loop(service.any_loop)) == "from a loop"


def test_observers_are_told() -> None:
    """As they are of a service that is awaited."""
    seen: list[str] = []

    class Names(Observer):
        def on_operation(self, operation: Operation, /) -> None:
            seen.append(operation.name)

    with BlockingSessionService(InMemorySessionService(observers=[Names()])) as service:
        service.create_session(KEY)
    assert seen == ["create_session", "aclose"]


def test_the_limits_are_told() -> None:
    """Adapters size what they read and write by them."""
    with BlockingSessionService(InMemorySessionService(max_event_size=5_000)) as service:
        assert service.max_event_size == service.any_loop.max_event_size == 5_000
        assert service.always_readable == 67_108_864 // 5_000
        assert service.max_value_size == 1_048_576
        assert "InMemorySessionService" in repr(service)
