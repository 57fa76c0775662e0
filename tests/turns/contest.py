"""Many processes that start turns on one session at the same time, under each policy.

python -m turns.contest --processes 20 --rounds 50
"""

from __future__ import annotations

import argparse
import asyncio
import sqlite3
import sys
from collections import Counter
from collections.abc import Sequence
from contextlib import closing
from dataclasses import dataclass, field
from functools import partial

import redis

from agentsession import Event, SessionKey, open_service
from agentsession.backend import WhenBusy
from harness import servers
from turns.worker import APP, USER
from turns.workers import Worker, check_turns, workers


@dataclass
class Score:
    """What has happened in all rounds of one policy."""

    outcomes: Counter[str] = field(default_factory=Counter)
    asked: Counter[int] = field(default_factory=Counter)

    def add(self, answer: dict[str, object]) -> None:
        self.outcomes[str(answer.get("error") or answer["ended"])] += 1
        if "asked" in answer:
            self.asked[int(str(answer["asked"]))] += 1


class Contest:
    """Rounds of one policy, on one server or in one file.

    The processes come one after the other: each when the one before has the lease, or is in line,
    as the store's own data say.
    """

    def __init__(self, url: str, running: Sequence[Worker]) -> None:
        self._url = url
        self._running = running

    def _wants(self, session: str, message: str) -> bool:
        if self._url.startswith("sqlite:///"):
            return self._wants_in_file(session, message)
        with redis.Redis.from_url(self._url, decode_responses=True) as client:
            return self._wants_on_server(client, session, message)

    def _wants_in_file(self, session: str, message: str) -> bool:
        lease = "SELECT lease FROM sessions WHERE app_name = ? AND user_id = ? AND session_id = ?"
        try:
            with closing(sqlite3.connect(self._url.removeprefix("sqlite:///"))) as file:
                found = file.execute(lease, (APP, USER, session)).fetchone()
        except sqlite3.OperationalError:  # Nobody has made its tables yet.
            return False
        return found is not None and f'"{message}"' in found[0]

    @staticmethod
    def _wants_on_server(client: redis.Redis, session: str, message: str) -> bool:
        name = f"session:{{{APP}:{USER}}}:{session}"
        lease, line = client.hmget(name, ["lease", "line"])
        return f" {message} " in (lease or "") or f",{message}," in (line or "")

    def queue(self, number: int) -> Score:
        """All run, in the order of their arrival."""
        score, session = Score(), f"queue {number}"
        first, *others = self._running
        first.run(session, "m0", 0)
        assert first.answer() == {"at": 0}
        for place, other in enumerate(others, 1):
            message = f"m{place}"
            other.run(session, message, wait=600)
            servers.eventually(partial(self._wants, session, message), 60)
        first.say()
        for each in self._running:
            score.add(each.answer())
        log = self._log(session)
        said = [event.id for event in log if event.author == "user"]
        assert said == [f"m{place}" for place in range(len(self._running))]
        return score

    def reject(self, number: int) -> Score:
        """One runs, and the others are refused."""
        score, session = Score(), f"reject {number}"
        first, *others = self._running
        first.run(session, "m0", 0, when_busy="reject")
        assert first.answer() == {"at": 0}
        for place, other in enumerate(others, 1):
            other.run(session, f"m{place}", when_busy="reject")
        for other in others:
            score.add(other.answer())
        first.say()
        score.add(first.answer())
        assert {event.invocation_id for event in self._log(session)} == {"m0"}
        return score

    def interrupt(self, number: int) -> Score:
        """The last one runs to its end; each other one is interrupted, or never begins."""
        score, session = Score(), f"interrupt {number}"
        *others, last = self._running
        for place, other in enumerate([*others, last]):
            message = f"m{place}"
            other.run(session, message, None if other is last else 0, when_busy="interrupt")
            if other is not last:
                servers.eventually(partial(self._wants, session, message), 60)
        for other in others:
            answer = other.answer()
            score.add(other.answer() if "at" in answer else answer)
        answer = last.answer()
        assert answer["ended"] == "completed"
        score.add(answer)
        assert self._log(session)[-1].invocation_id == f"m{len(others)}"
        return score

    def _log(self, session: str) -> list[Event]:
        async def read() -> list[Event]:
            async with open_service(self._url) as service:
                key = SessionKey(APP, USER, session)
                log = await service.get_events(key, limit=1000)
                assert await service.close_turn(key) is None, "the lease is free, all is closed"
                return log

        log = asyncio.run(read())
        check_turns(log)
        return log


def contest(url: str, policy: WhenBusy, processes: int, rounds: int) -> Score:
    """Hold some rounds, and return what has happened."""
    total = Score()
    with workers(url, processes) as running:
        held = Contest(url, running)
        for number in range(rounds):
            score = getattr(held, policy)(number)
            total.outcomes += score.outcomes
            total.asked += score.asked
    return total


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--processes", type=int, default=20)
    parser.add_argument("--rounds", type=int, default=50)
    options = parser.parse_args()
    with servers.running(servers.binaries()["valkey"]) as server:
        policies: tuple[WhenBusy, ...] = ("queue", "reject", "interrupt")
        for policy in policies:
            score = contest(server.url, policy, options.processes, options.rounds)
            sys.stdout.write(
                f"{policy}: {dict(score.outcomes)}; asked: {dict(sorted(score.asked.items()))}\n"
            )
            sys.stdout.flush()


if __name__ == "__main__":
    main()
