"""What is told of connections: by real servers that fail, in the log and to observers."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import closing
from contextvars import ContextVar
from pathlib import Path

import anyio.to_thread
import pytest
from redis.credentials import CredentialProvider

from agentsession import Event, RedisSessionService, SessionKey, observers
from agentsession._journal import _LEVELS, Journal
from agentsession.errors import BackendError, BackendUnavailableError
from agentsession.observers import (
    Connected,
    GivenUp,
    Lost,
    Notice,
    Observer,
    PrimaryChanged,
    Refused,
    Retried,
    SlotsMoved,
    Swept,
    Unreachable,
)
from agentsession.redis import register_redis_instance, unregister_redis_instance
from agentsession.redis._core.errors import ServerError
from agentsession.redis._links.notices import refusal
from harness import servers
from harness.proxy import Proxy, proxied

KEY = SessionKey("the app", "a user's name", "session")
SECRET = "hunterwhiskey"


def say(words: str) -> Event:
    return Event(author="user", content=words)


class Recorder(Observer):
    def __init__(self) -> None:
        self.notices: list[Notice] = []

    def on_notice(self, notice: Notice) -> None:
        self.notices.append(notice)

    def kinds(self) -> list[str]:
        return [type(notice).__name__ for notice in self.notices]

    def of(self, kind: type[Notice]) -> list[Notice]:
        return [notice for notice in self.notices if isinstance(notice, kind)]


@pytest.fixture
def recorder() -> Recorder:
    return Recorder()


@pytest.fixture(autouse=True)
def loud(caplog: pytest.LogCaptureFixture) -> Iterator[None]:
    """Everything is logged, and nothing that it is about."""
    caplog.set_level(logging.DEBUG, "agentsession")
    yield
    for private in ("the app", "a user's name", "what was said", SECRET):
        assert private not in caplog.text


@pytest.fixture(params=sorted(servers.binaries()))
def server(request: pytest.FixtureRequest) -> Iterator[servers.Server]:
    with servers.running(servers.binaries()[request.param]) as running:
        yield running


@pytest.fixture
async def proxy(valkey_url: str) -> AsyncIterator[Proxy]:
    async with proxied(valkey_url) as started:
        yield started


def lines(caplog: pytest.LogCaptureFixture) -> list[tuple[str, str]]:
    """Return the levels and the words of our log lines."""
    ours = [each for each in caplog.records if each.name == "agentsession.redis"]
    return [(each.levelname, each.getMessage()) for each in ours]


# -- one server


async def test_a_lost_connection_and_the_call_that_is_sent_again_are_told(
    proxy: Proxy, recorder: Recorder, caplog: pytest.LogCaptureFixture
) -> None:
    """In the order in which it happens; closing a service is nothing to tell of."""
    async with RedisSessionService.from_url(
        proxy.url, key_prefix="n1:", observers=[recorder]
    ) as service:
        await service.create_session(KEY)
        proxy.cut_after(down=5)
        assert (await service.append_event(KEY, say("what was said"))).seq == 1
    where = proxy.url.removeprefix("unix://")
    assert recorder.notices == [
        Connected(server=where),
        Lost(server=where, reason="the server closed the connection"),
        Retried(server=where, calls=1),
        Connected(server=where),
    ]
    assert lines(caplog) == [
        ("INFO", f"connected to {where}"),
        ("WARNING", f"lost the connection to {where}: the server closed the connection"),
        ("INFO", f"1 call is sent again, without a reply so far from {where}"),
    ]


async def test_a_killed_server_is_told(server: servers.Server, recorder: Recorder) -> None:
    """Its connection is lost, then it cannot be reached, then it is back."""
    async with RedisSessionService.from_url(server.url, observers=[recorder]) as service:
        await service.create_session(KEY)
        await anyio.to_thread.run_sync(server.stop)
        call = asyncio.create_task(service.get_session(KEY))
        async with asyncio.timeout(8):
            while not recorder.of(Unreachable):
                await asyncio.sleep(0.005)
        await anyio.to_thread.run_sync(server.start)
        assert await call is None
    kinds = recorder.kinds()
    assert kinds[:2] == ["Connected", "Lost"]
    assert kinds[-1] == "Connected"
    assert {"Unreachable"} == set(kinds[2:-1]) - {"Retried"}
    assert str(server.socket) in {each.server for each in recorder.of(Unreachable)}  # type: ignore[attr-defined]


async def test_a_connection_that_hangs_is_told_as_given_up(
    proxy: Proxy, recorder: Recorder, caplog: pytest.LogCaptureFixture
) -> None:
    """It was closed on this side, so it is not told as lost as well."""
    async with RedisSessionService.from_url(
        proxy.url, key_prefix="n2:", timeout=4, observers=[recorder]
    ) as service:
        await service.create_session(KEY)
        proxy.hung = proxy.connections
        assert (await service.append_event(KEY, say("what was said"))).seq == 1
    assert recorder.kinds() == ["Connected", "GivenUp", "Retried", "Connected"]
    [given_up] = recorder.of(GivenUp)
    assert "no reply" in str(given_up)
    assert ("WARNING", str(given_up)) in lines(caplog)


async def test_a_server_that_is_not_there_is_told(
    recorder: Recorder, caplog: pytest.LogCaptureFixture
) -> None:
    """Once in the log, and to observers each time; the caller gets the error as well."""
    port = servers.free_ports(1)[0]
    async with RedisSessionService.from_url(
        f"redis://:{SECRET}@127.0.0.1:{port}", observers=[recorder]
    ) as service:
        for _ in range(3):
            with pytest.raises(BackendUnavailableError):
                await service.get_session(KEY)
    assert recorder.kinds() == ["Unreachable"] * 3
    [(level, text)] = lines(caplog)
    assert level == "WARNING"
    assert text.startswith(f"cannot connect to 127.0.0.1:{port}: ")
    assert text.count(str(port)) <= 2  # the operating system may name it too


REFUSALS: dict[str, tuple[list[tuple[str | int, ...]], str]] = {
    "read-only": ([("REPLICAOF", "127.0.0.1", 1)], "READONLY"),
    "full": ([("CONFIG", "SET", "maxmemory", 1)], "OOM"),
    "lacks replicas": ([("CONFIG", "SET", "min-replicas-to-write", 1)], "NOREPLICAS"),
    "no rights": ([("ACL", "SETUSER", "default", "-evalsha", "-eval")], "NOPERM"),
    "other password": (
        [("CONFIG", "SET", "requirepass", "another"), ("CLIENT", "KILL", "TYPE", "normal")],
        "WRONGPASS",
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", REFUSALS)
async def test_a_server_that_refuses_is_told(
    server: servers.Server, recorder: Recorder, caplog: pytest.LogCaptureFixture, case: str
) -> None:
    """By the code of its answer; the call fails as it does without observers."""
    commands, code = REFUSALS[case]
    if case == "other password":
        server.ask("CONFIG", "SET", "requirepass", SECRET)
    url = f"unix://:{SECRET}@{server.socket}" if case == "other password" else server.url
    async with RedisSessionService.from_url(url, timeout=0.5, observers=[recorder]) as service:
        await service.get_session(KEY)
        await anyio.to_thread.run_sync(_tell, server, commands, url != server.url)
        with pytest.raises(BackendError):
            await service.create_session(KEY)
    [first, *others] = recorder.of(Refused)
    assert isinstance(first, Refused)
    assert (first.server, first.code) == (str(server.socket), code)
    assert all(str(each) == str(first) for each in others)
    told = [line for line in lines(caplog) if line[1].endswith(str(first))]
    assert told == [("WARNING", f"{server.socket} refuses: {first.reason}")]
    assert first.reason.startswith(code)


def _tell(server: servers.Server, commands: list[tuple[str | int, ...]], guarded: bool) -> None:
    import redis

    password = SECRET if guarded else None
    with redis.Redis(unix_socket_path=str(server.socket), password=password) as client:
        for words in commands:
            client.execute_command(*words)


def test_a_refusal_that_redis_6_wraps_is_found() -> None:
    """What is about the call is none."""
    where = "ERR Error running script (call to f_1): @user_script:1: @user_script: 1: "
    for text, code in [(f"{where}-OOM not allowed", "OOM"), ("LOADING the dataset", "LOADING")]:
        found = refusal("here", ServerError(text))
        assert found is not None
        assert (found.code, found.reason.partition(" ")[0]) == (code, code)
    for text in (f"{where}-WRONGTYPE Operation", "ERR unknown command", "TRYAGAIN Multiple keys"):
        assert refusal("here", ServerError(text)) is None


# -- several servers


async def test_a_failover_by_sentinels_is_told(recorder: Recorder) -> None:
    """Once, with the new primary and the one before."""
    with servers.sentinels() as topology:
        await anyio.to_thread.run_sync(servers.eventually, topology.followers_are_ready, 30)
        async with RedisSessionService.from_url(topology.url, observers=[recorder]) as service:
            await service.create_session(KEY)
            old = topology.primary()
            topology.sentinels[0].ask("SENTINEL", "FAILOVER", topology.SERVICE)
            async with asyncio.timeout(30):
                while not recorder.of(PrimaryChanged):
                    await asyncio.sleep(0.01)
            assert await service.get_session(KEY) is not None
        new = topology.primary()
    assert recorder.of(PrimaryChanged) == [
        PrimaryChanged(
            service="mymaster",
            server=f"{servers.LOOPBACK}:{new.port}",
            was=f"{servers.LOOPBACK}:{old.port}",
        )
    ]
    servers_of_links = {each.server for each in recorder.of(Connected)}  # type: ignore[attr-defined]
    assert servers_of_links == {f"{servers.LOOPBACK}:{node.port}" for node in (old, new)}


async def test_a_service_without_sentinels_is_named(recorder: Recorder) -> None:
    """No server can be named that nobody has found."""
    nowhere = servers.free_ports(1)[0]
    url = f"redis+sentinel://127.0.0.1:{nowhere}/mymaster"
    async with RedisSessionService.from_url(url, observers=[recorder]) as service:
        with pytest.raises(BackendUnavailableError):
            await service.get_session(KEY)
    first = recorder.notices[0]
    assert str(first).startswith("cannot connect to the service 'mymaster': no sentinel answers")


async def test_slots_that_move_are_told(recorder: Recorder) -> None:
    """As soon as a node says so; the first map of all is nothing to tell of."""
    key = SessionKey("app", "user", "session")
    with servers.cluster() as cluster:
        async with RedisSessionService.from_url(cluster.url, observers=[recorder]) as service:
            await service.create_session(key)
            assert recorder.of(SlotsMoved) == []
            move = servers.Move(cluster, "{app:user}")
            await anyio.to_thread.run_sync(_moved, move)
            assert await service.get_session(key) is not None
        target = f"{servers.LOOPBACK}:{move.target.port}"
    assert recorder.of(SlotsMoved) == [SlotsMoved(slots=1, servers=(target,))]
    nodes = {f"{servers.LOOPBACK}:{node.port}" for node in cluster.nodes}
    assert {each.server for each in recorder.of(Connected)} <= nodes  # type: ignore[attr-defined]


def _moved(move: servers.Move) -> None:
    move.begin()
    move.move_all_keys()
    move.end()


# -- who is told


async def test_services_that_share_a_connection_all_hear_of_it(proxy: Proxy) -> None:
    """As long as each is open; an observer of two of them hears of it once."""
    first, second, both = Recorder(), Recorder(), Recorder()
    register_redis_instance("told", url=proxy.url)
    try:
        one = RedisSessionService(instance="told", key_prefix="n3:", observers=[first, both])
        async with RedisSessionService(
            instance="told", key_prefix="n3:", observers=[second, both]
        ) as two:
            async with one:
                await one.get_session(KEY)
                await two.get_session(KEY)
                proxy.cut_after(down=5)
                await one.get_session(KEY)
            lost = len(first.notices)
            proxy.cut_after(down=5)
            await two.get_session(KEY)
    finally:
        unregister_redis_instance("told")
    assert first.kinds() == ["Connected", "Lost", "Retried", "Connected"]
    assert len(first.notices) == lost
    again = ["Lost", "Retried", "Connected"]
    assert second.kinds() == [*again, *again]
    assert both.kinds() == ["Connected", *again, *again]
    assert proxy.connections == 3


current: ContextVar[str] = ContextVar("current", default="nothing")


async def test_a_notice_belongs_to_no_call(proxy: Proxy) -> None:
    """What is current for the call that made the connection, or met its end, is not for it."""
    seen: list[str] = []

    class Looking(Observer):
        def on_notice(self, notice: Notice) -> None:
            seen.append(current.get())

    async with RedisSessionService.from_url(
        proxy.url, key_prefix="n4:", observers=[Looking()]
    ) as service:
        current.set("a call")
        await service.get_session(KEY)
        proxy.cut_after(down=5)
        await service.get_session(KEY)
    assert seen == ["nothing"] * 4


async def test_an_observer_that_raises_breaks_no_connection(
    proxy: Proxy, recorder: Recorder, caplog: pytest.LogCaptureFixture
) -> None:
    """It is logged once, and those after it are told."""

    class Broken(Observer):
        def on_notice(self, notice: Notice) -> None:
            msg = "mine"
            raise ValueError(msg)

    async with RedisSessionService.from_url(
        proxy.url, key_prefix="n5:", observers=[Broken(), recorder]
    ) as service:
        await service.get_session(KEY)
        proxy.cut_after(down=5)
        await service.get_session(KEY)
    assert recorder.kinds() == ["Connected", "Lost", "Retried", "Connected"]
    [record] = [each for each in caplog.records if each.name == "agentsession.observers"]
    assert "Broken, raised; all else went on" in record.message


async def test_a_filter_that_raises_breaks_no_connection(proxy: Proxy, recorder: Recorder) -> None:
    """The program's logging may be broken; its sessions are not."""

    def broken(record: logging.LogRecord) -> bool:
        msg = "mine"
        raise ValueError(msg)

    logger = logging.getLogger("agentsession.redis")
    logger.addFilter(broken)
    try:
        async with RedisSessionService.from_url(
            proxy.url, key_prefix="n6:", observers=[recorder]
        ) as service:
            await service.get_session(KEY)
            proxy.cut_after(down=5)
            await service.get_session(KEY)
    finally:
        logger.removeFilter(broken)
    assert recorder.kinds() == ["Connected", "Lost", "Retried", "Connected"]


class Leaky(CredentialProvider):
    """Fails in words that hold what it failed with, as clients of vaults do."""

    def __init__(self, error: Callable[[str], Exception]) -> None:
        self.error = error

    def get_credentials(self) -> tuple[str]:
        msg = f"https://vault/?token={SECRET}"
        raise self.error(msg)


class VaultError(OSError):
    """As the errors of HTTP clients are."""


@pytest.mark.parametrize("error", [RuntimeError, VaultError])
async def test_what_a_credential_provider_says_is_not_told(
    valkey_url: str, recorder: Recorder, error: Callable[[str], Exception]
) -> None:
    """Its class is; the caller gets the rest, as the cause of the error."""
    options = {"credential_provider": Leaky(error)}
    async with RedisSessionService.from_url(
        valkey_url, client_options=options, observers=[recorder]
    ) as service:
        with pytest.raises(BackendError):
            await service.get_session(KEY)
    notice = recorder.notices[0]
    assert isinstance(notice, Unreachable)
    assert notice.reason == getattr(error, "__name__", "")


# -- the journal


class Seconds:
    """A clock that is moved by hand."""

    now = 100.0

    def __call__(self) -> float:
        return self.now


def test_a_storm_is_a_line_in_five_seconds(
    recorder: Recorder, caplog: pytest.LogCaptureFixture
) -> None:
    """The next line says how many there were in between; observers are told of each."""
    clock = Seconds()
    journal = Journal("agentsession.redis", [recorder], clock=clock)
    here, there = (Lost(server=where, reason="why") for where in ("here", "there"))
    for _ in range(1000):
        clock.now += 0.004
        journal.note(here)
    journal.note(there)
    clock.now += 1.1
    journal.note(here)
    clock.now += 60
    journal.note(here)
    assert [text for _, text in lines(caplog)] == [
        "lost the connection to here: why",
        "lost the connection to there: why",
        "lost the connection to here: why (and 999 more in 5 s)",
        "lost the connection to here: why",
    ]
    assert len(recorder.notices) == 1003


def test_a_line_can_be_written_whatever_the_host_is(tmp_path: Path) -> None:
    """It is one line, which every handler can encode."""
    handler = logging.FileHandler(tmp_path / "log", encoding="utf-8")
    logger = logging.getLogger("agentsession.test")
    logger.addHandler(handler)
    with closing(handler):
        Journal("agentsession.test").note(Unreachable(server="\ud800\n\0ü", reason="OSError"))
        logger.removeHandler(handler)
    written = (tmp_path / "log").read_text(encoding="utf-8")
    assert written == "cannot connect to \\ud800\\n\\x00ü: OSError\n"


def test_what_is_not_the_same_is_not_left_out(caplog: pytest.LogCaptureFixture) -> None:
    """Another kind, another server, another code; another reason alone is the same storm."""
    journal = Journal("agentsession.redis", clock=Seconds())
    for notice in (
        Lost(server="a", reason="x"),
        Lost(server="a", reason="y"),
        GivenUp(server="a", reason="x"),
        Refused(server="a", code="OOM", reason="OOM"),
        Refused(server="a", code="READONLY", reason="READONLY"),
        Refused(server="b", code="OOM", reason="OOM"),
    ):
        journal.note(notice)
    assert len(lines(caplog)) == 5


def test_what_is_logged_is_remembered_of_a_bounded_number(
    caplog: pytest.LogCaptureFixture,
) -> None:
    """Of servers that come and go; the one that was logged first is forgotten."""
    journal = Journal("agentsession.redis", clock=Seconds())
    for n in (*range(1001), 1000, 0):
        journal.note(Connected(server=f"{n}"))
    assert len(lines(caplog)) == 1002
    assert len(journal._rate._things) == 1000


def test_a_line_that_nobody_wants_is_not_counted(caplog: pytest.LogCaptureFixture) -> None:
    """Who turns the logger on later is not told of what came before."""
    clock = Seconds()
    journal = Journal("agentsession.redis", clock=clock)
    caplog.set_level(logging.ERROR, "agentsession")
    journal.note(Lost(server="a", reason="x"))
    caplog.set_level(logging.INFO, "agentsession")
    journal.note(Lost(server="a", reason="x"))
    assert len(lines(caplog)) == 1


EXAMPLES: list[tuple[Notice, str, str]] = [
    (Connected(server="h:1"), "INFO", "connected to h:1"),
    (Lost(server="h:1", reason="why"), "WARNING", "lost the connection to h:1: why"),
    (GivenUp(server="h:1", reason="why"), "WARNING", "gave up the connection to h:1: why"),
    (Unreachable(server="h:1", reason="why"), "WARNING", "cannot connect to h:1: why"),
    (Refused(server="h:1", code="OOM", reason="OOM full"), "WARNING", "h:1 refuses: OOM full"),
    (Retried(server="h:1", calls=2), "INFO",
     "2 calls are sent again, without a reply so far from h:1"),
    (PrimaryChanged(service="m", server="h:1", was="h:2"), "WARNING",
     "the primary of 'm' is h:1 now; it was h:2"),
    (SlotsMoved(slots=1, servers=("h:1",)), "INFO", "1 slot of the cluster moved to h:1"),
    (SlotsMoved(slots=5461, servers=("h:1", "h:2")), "INFO",
     "5,461 slots of the cluster moved to h:1, h:2"),
    (Swept(sessions=1), "DEBUG", "removed 1 expired session"),
    (Swept(sessions=1000), "DEBUG", "removed 1,000 expired sessions"),
]  # fmt: skip


@pytest.mark.parametrize(("notice", "level", "text"), EXAMPLES)
def test_each_notice_has_its_words_and_its_level(
    notice: Notice, level: str, text: str, caplog: pytest.LogCaptureFixture
) -> None:
    """A per cent sign in a reason is one in the log, too."""
    Journal("agentsession.redis").note(notice)
    assert lines(caplog) == [(level, text)]
    caplog.clear()
    Journal("agentsession.redis").note(Lost(server="%s", reason="100 %d"))
    assert lines(caplog) == [("WARNING", "lost the connection to %s: 100 %d")]


def test_every_notice_has_a_level_and_is_described() -> None:
    """In the table of the module's docstring, with the level that it has."""
    kinds = {
        kind
        for kind in vars(observers).values()
        if isinstance(kind, type) and issubclass(kind, Notice) and kind is not Notice
    }
    assert set(_LEVELS) == kinds == {type(notice) for notice, _, _ in EXAMPLES}
    for kind, level in _LEVELS.items():
        cell = f":class:`{kind.__name__}`".ljust(23)
        assert f"{cell} {logging.getLevelName(level)}" in (observers.__doc__ or "")
