"""What each worker does, decided from a seed before anything runs. Pure; no I/O."""

from __future__ import annotations

import random
from collections.abc import Sequence
from typing import Any

import msgspec

from agentsession import SessionKey
from reliability.history import STYLES, Cancel, Sent, Step, Value, WhenBusy

# Ids that would meet in a key if it were built carelessly.
USERS = (("app", "u"), ("app", "u:s"), ("app:u", "s"))
NAMES = ("s", "s:t", "{s}")
# Whose sessions are deleted and made again all the time, and who are erased themselves.
MORTALS = (("app", "m"), ("app:m", "s"))
# Whose sessions are written to in turns alone.
TURNED = ("app", "t")
# The name of a mortal session's state that says which creation has made it.
MADE = "made"

# How often each call is made, in proportion.
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
    "turn": 10,
    "mortal": 60,
}
# The same of calls on mortal sessions.
MORTAL_WEIGHTS = {
    "create": 3,
    "open": 4,
    "append": 6,
    "batch": 2,
    "expect": 2,
    "update": 3,
    "update_user": 2,
    "delete": 6,
    "erase": 1,
    "recent": 4,
    "whole": 4,
    "list": 2,
}
# A call over a local socket takes some twenty turns of the loop; a few come when all is over.
_MOST_TURNS = 30


def shared_sessions() -> list[SessionKey]:
    """Return the sessions that all workers write to."""
    return [SessionKey(app, user, name) for app, user in USERS for name in NAMES]


def mortal_sessions() -> list[SessionKey]:
    """Return the sessions that all workers write to, make and delete."""
    return [SessionKey(app, user, name) for app, user in MORTALS for name in NAMES[:2]]


def turned_sessions() -> list[SessionKey]:
    """Return the sessions in which all workers run turns, and do nothing else."""
    return [SessionKey(*TURNED, name) for name in NAMES[:2]]


def is_turned(key: SessionKey) -> bool:
    return (key.app_name, key.user_id) == TURNED


def is_mortal(key: SessionKey) -> bool:
    return (key.app_name, key.user_id) in MORTALS


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
        self._mortals = mortal_sessions()
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
        if kind == "mortal":
            return [self._mortal_step(self._random.choice(self._mortals))]
        if kind == "turn":
            return [self._turn(self._random.choice(turned_sessions()))]
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

    def _mortal_step(self, key: SessionKey) -> Step:
        """Plan a call whose every effect says whose it is, where all write to the same names."""
        (kind,) = self._random.choices(list(MORTAL_WEIGHTS), list(MORTAL_WEIGHTS.values()))
        value = f"{self._worker}-{self._count()}"
        match kind:
            case "create" | "open":
                return self._step(kind, key, values={MADE: value, f"user:{MADE}": value}, limit=10)
            case "append" | "expect" | "batch":
                first = Sent(value, {"n": value, "user:n": value})
                others = [Sent(f"{value}.{n}") for n in range(2 if kind == "batch" else 0)]
                return self._step(kind, key, sent=[first, *others])
            case "update":
                return self._step(kind, key, values={"n": value, "user:n": value})
            case "update_user":
                return self._step(kind, key, values={"user:n": value})
            case _:
                return self._step(kind, key, limit=self._random.randint(0, 10))

    def _turn(self, key: SessionKey) -> Step:
        """Plan a turn of some events, which may be left in the middle."""
        turn = f"{self._worker}-{self._count()}"
        sent = [Sent(turn), *(Sent(f"{turn}.{n}") for n in range(self._random.randint(1, 4)))]
        leaves_after = self._random.choice([0, 0, 0, self._random.randrange(len(sent))])
        when_busy: WhenBusy = self._random.choice(["queue", "queue", "reject", "interrupt"])
        step = self._step("turn", key, sent=sent, when_busy=when_busy, leaves_after=leaves_after)
        return msgspec.structs.replace(step, again=False)

    def _step(self, kind: str, key: SessionKey, **arguments: Any) -> Step:
        cancel = None
        if self._random.random() < self._cancelling:
            style = self._random.choice(STYLES)
            cancel = Cancel(style, self._random.randint(0, _MOST_TURNS))
        again = self._random.random() < 0.7
        return Step(kind=kind, key=key, cancel=cancel, again=again, **arguments)

    def _own_session(self, shared: SessionKey) -> list[Step]:
        """Plan the life of a session that only this worker knows, to its end."""
        name = f"{self._worker} {self._count()}"
        key = SessionKey(shared.app_name, shared.user_id, name)
        return [
            self._step("delete", key),
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
        delta: dict[str, Value] = {
            name: None if self._random.random() < 0.1 else number for name in chosen
        }
        return Sent(f"{self._worker}-{number}", delta)

    def _values(self, names: Sequence[str]) -> dict[str, Value]:
        number = self._count()
        return {f"{name} {self._worker}": number for name in names}

    def _count(self) -> int:
        self._counted += 1
        return self._counted
