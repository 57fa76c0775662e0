"""What each worker does, decided from a seed before anything runs. Pure; no I/O."""

from __future__ import annotations

import random
from collections.abc import Sequence
from typing import Any

from agentsession import SessionKey
from reliability.history import Cancel, Sent, Step

# Ids that would meet in a key if it were built carelessly.
USERS = (("app", "u"), ("app", "u:s"), ("app:u", "s"))
NAMES = ("s", "s:t", "{s}")

# How often each call is made, among a hundred.
WEIGHTS = {
    "append": 34,
    "batch": 10,
    "repeat": 8,
    "expect": 8,
    "update": 6,
    "update_user": 4,
    "update_app": 4,
    "recent": 10,
    "whole": 2,
    "page": 6,
    "list": 4,
    "open": 2,
    "own": 2,
}
# A call over a local socket takes some twenty turns of the loop; a few come when all is over.
_MOST_TURNS = 30


def shared_sessions() -> list[SessionKey]:
    """Return the sessions that all workers write to."""
    return [SessionKey(app, user, name) for app, user in USERS for name in NAMES]


class Planner:
    """Plans the calls of one worker.

    Args:
        seed: With the worker's name it decides everything.
        worker: The worker's name.
        cancelling: How likely a call is to be cancelled.
    """

    def __init__(self, seed: int, worker: str, *, cancelling: float = 0.0) -> None:
        self._random = random.Random(f"{seed} {worker}")
        self._worker = worker
        self._cancelling = cancelling
        self._keys = shared_sessions()
        self._counted = 0
        self._sent: list[tuple[SessionKey, list[Sent]]] = []

    def steps(self, operations: int) -> list[Step]:
        """Plan so many calls, or a few more where several belong together."""
        steps: list[Step] = []
        while len(steps) < operations:
            steps += self._next()
        return steps

    def _next(self) -> list[Step]:
        (kind,) = self._random.choices(list(WEIGHTS), list(WEIGHTS.values()))
        key = self._random.choice(self._keys)
        if kind == "own":
            return self._own_session(key)
        if kind == "repeat":
            return self._repeat()
        return [self._step(kind, key, **self._arguments(kind, key))]

    def _arguments(self, kind: str, key: SessionKey) -> dict[str, Any]:
        match kind:
            case "append" | "expect":
                return {"sent": self._events(key, 1)}
            case "batch":
                return {"sent": self._events(key, self._random.randint(2, 8))}
            case "update":
                names = ("own", "user:own", "app:own")
                return {"values": self._values(self._random.sample(names, 2))}
            case "update_user":
                return {"values": self._values(["user:own"])}
            case "update_app":
                return {"values": self._values(["app:own"])}
            case _:
                return {"limit": self._random.randint(1, 40)}

    def _step(self, kind: str, key: SessionKey, **arguments: Any) -> Step:
        cancel = None
        if self._random.random() < self._cancelling:
            style = self._random.choice(("asyncio", "anyio"))
            cancel = Cancel(style, self._random.randint(0, _MOST_TURNS))
        again = self._random.random() < 0.7
        return Step(kind=kind, key=key, cancel=cancel, again=again, **arguments)

    def _own_session(self, shared: SessionKey) -> list[Step]:
        """Plan the life of a session that only this worker knows, to its end."""
        name = f"{self._worker} {self._count()}"
        key = SessionKey(shared.app_name, shared.user_id, name)
        return [
            self._step("create", key),
            self._step("append", key, sent=self._events(key, 1)),
            self._step("batch", key, sent=self._events(key, 3)),
            self._step("whole", key),
            self._step("delete", key),
            self._step("whole", key),
        ]

    def _repeat(self) -> list[Step]:
        """Plan to send what was sent before, whatever became of it."""
        if not self._sent:
            return []
        key, sent = self._random.choice(self._sent[-20:])
        return [self._step("append" if len(sent) == 1 else "batch", key, sent=sent)]

    def _events(self, key: SessionKey, count: int) -> list[Sent]:
        sent = [self._event(key) for _ in range(count)]
        if key in self._keys:
            self._sent.append((key, sent))
        return sent

    def _event(self, key: SessionKey) -> Sent:
        number = self._count()
        place = f"{self._worker}@{key.session_id}"
        names = (place, f"user:{place}", f"app:{place}@{key.user_id}")
        chosen = self._random.sample(names, self._random.randint(0, 3))
        delta = {name: None if self._random.random() < 0.1 else number for name in chosen}
        return Sent(f"{self._worker}-{number}", delta)

    def _values(self, names: Sequence[str]) -> dict[str, int]:
        number = self._count()
        return {f"{name} {self._worker}": number for name in names}

    def _count(self) -> int:
        self._counted += 1
        return self._counted
