"""Kills processes that append to one file, and looks whether anything was lost.

``python -m sqlite.programs.kills --kills 200 --seed 7`` does so at length. After each kill a fresh
process reads: each event that was acknowledged, to a process that was killed or to one that goes
on, is there once and at its position; logs have no gaps; state is that of the last event.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import signal
import tempfile
import threading
import time
from collections import Counter
from contextlib import suppress
from pathlib import Path

from sqlite.programs.processes import Program, acted

WORKERS = 3
SESSIONS = 4
TASKS = 2


class Worker:
    """A process that appends, and what it was told.

    Args:
        path: The file.
        name: The process's, for its events' ids.
    """

    def __init__(self, path: Path, name: str) -> None:
        self.acknowledged: list[tuple[str, str, int]] = []
        self.started = threading.Event()
        self.program = Program("appending", path, name, SESSIONS, TASKS, 0)
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def _read(self) -> None:
        with suppress(AssertionError):  # It was killed.
            while True:
                self._note(self.program.line())

    def _note(self, line: str) -> None:
        if line == "ready":
            return
        session, event_id, seq = line.split(" ")
        self.acknowledged.append((session, event_id, int(seq)))
        self.started.set()

    def kill(self) -> None:
        """Kill it at once, and note what it has still said."""
        with suppress(ProcessLookupError):
            os.kill(self.program.pid, signal.SIGKILL)
        self._reader.join(60)
        for line in self.program.rest():
            self._note(line)
        assert self.program.errors() == ""
        self.program.close()


class Campaign:
    """Some processes on one file, of which one after the other is killed."""

    def __init__(self, path: Path, seed: int) -> None:
        self._path = path
        self._random = random.Random(seed)
        self._names = 0
        self._dead: list[Worker] = []
        self._workers = [self._start() for _ in range(WORKERS)]
        self._checked = 0
        self.counts: Counter[str] = Counter()

    def _start(self) -> Worker:
        self._names += 1
        return Worker(self._path, f"w{self._names}")

    def strike(self) -> None:
        """Kill one or all at some moment, look, and start others in their place."""
        every = self._random.random() < 0.6
        victims = self._workers if every else [self._random.choice(self._workers)]
        if self._random.random() < 0.75:
            for victim in victims:
                assert victim.started.wait(60), "a worker says nothing"
            self.counts["while it wrote"] += len(victims)
        else:
            self.counts["while it started"] += len(victims)
        time.sleep(self._random.random() * 0.15)
        for victim in victims:
            victim.kill()
        self.counts["kills"] += len(victims)
        self.counts["all at once"] += every
        self._dead += victims
        self.check()
        self._workers = [self._start() if each in victims else each for each in self._workers]

    def check(self) -> None:
        """Compare what was acknowledged with what a fresh process finds."""
        told = [each for worker in (*self._dead, *self._workers) for each in [*worker.acknowledged]]
        (line,) = acted("looking", self._path)
        found = json.loads(line)
        assert found["integrity"] == "ok"
        for session, log in found["logs"].items():
            seqs = [seq for seq, _ in log]
            assert seqs == list(range(1, len(log) + 1)), f"{session} has gaps"
            ids = [event_id for _, event_id in log]
            assert len(ids) == len(set(ids)), f"{session} has an event twice"
            if session != "looks":
                assert found["last"][session] == ids[-1]
                assert found["app"][session] == ids[-1]
        for session, event_id, seq in told:
            log = found["logs"].get(session, [])
            assert len(log) >= seq, f"{event_id} was acknowledged and is lost"
            assert log[seq - 1] == [seq, event_id]
        self._checked += 1
        assert found["writes"] == self._checked
        self.counts["acknowledged"] = len(told)
        self.counts["stored"] = sum(map(len, found["logs"].values())) - self._checked

    def close(self) -> None:
        for worker in self._workers:
            worker.kill()
        self._dead += self._workers
        self._workers = []


def run(path: Path, kills: int, seed: int) -> Counter[str]:
    """Kill so often, and return what was counted."""
    campaign = Campaign(path, seed)
    try:
        while campaign.counts["kills"] < kills:
            campaign.strike()
    finally:
        campaign.close()
    campaign.check()
    return campaign.counts


def main() -> None:
    parser = argparse.ArgumentParser("kills", description="Kill processes that append.")
    parser.add_argument("--kills", type=int, default=200)
    parser.add_argument("--seed", type=int, default=random.randrange(10**6))
    given = parser.parse_args()
    print(f"seed {given.seed}", flush=True)
    with tempfile.TemporaryDirectory() as folder:
        begin = time.monotonic()
        counts = run(Path(folder, "sessions.db"), given.kills, given.seed)
        print(", ".join(f"{what}: {count:,}" for what, count in counts.items()), end="; ")
        print(f"nothing lost in {time.monotonic() - begin:.0f} s")


if __name__ == "__main__":
    main()
