"""Services that write all the time while a test breaks what is behind them, and their account."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

from agentsession import Event, RedisSessionService, SessionKey

Open = Callable[[], RedisSessionService]


class Writing:
    """What was written, and how long it took.

    Attributes:
        keys: The sessions, each written to by every service.
        acknowledged: The words of each acknowledged event, and its session.
        longest: The longest that a call took, in seconds.
    """

    def __init__(self, sessions: int, payload: str) -> None:
        self.keys = [SessionKey("app", f"user {n}", "s") for n in range(sessions)]
        self.acknowledged: dict[str, SessionKey] = {}
        self.longest = 0.0
        self._payload = payload
        self._counts: dict[str, int] = {}
        self._stopping = False

    async def write(self, service: RedisSessionService, key: SessionKey, writer: str) -> None:
        """Append events until it is time to stop; a failure ends the test."""
        while not self._stopping:
            number = self._counts.get(writer, 0)
            words = f"{writer}:{number}"
            state = {writer: number, f"app:{writer}": number}
            started = time.monotonic()
            event = Event(author=self._payload, content=words, state_delta=state)
            await service.append_event(key, event)
            self.longest = max(self.longest, time.monotonic() - started)
            self.acknowledged[words] = key
            self._counts[writer] = number + 1

    async def go_on(self, events: int = 10, seconds: float = 30) -> None:
        """Wait until every writer has had so many more events acknowledged."""
        wanted = {writer: count + events for writer, count in self._counts.items()}
        async with asyncio.timeout(seconds):
            while any(self._counts[writer] < count for writer, count in wanted.items()):
                await asyncio.sleep(0.005)

    def stop(self) -> None:
        self._stopping = True

    async def missing(self, service: RedisSessionService) -> set[str]:
        """Return acknowledged events that are not there, after checking that all else is right."""
        stored: set[str] = set()
        app: dict[str, object] = {}
        for key in self.keys:
            session = await service.get_session(key)
            assert session is not None
            words = [str(event.content) for event in session.events]
            assert [event.seq for event in session.events] == list(range(1, len(words) + 1))
            assert len(set(words)) == len(words), "an event was stored twice"
            for writer in {each.partition(":")[0] for each in words}:
                mine = [each for each in words if each.partition(":")[0] == writer]
                numbers = [int(each.partition(":")[2]) for each in mine]
                assert numbers == sorted(numbers), "a writer's order was lost"
                assert session.state[writer] == numbers[-1], "state is not the fold of the deltas"
                app[writer] = numbers[-1]
            stored.update(words)
        missing = set(self.acknowledged) - stored
        # On a cluster the application's state is elsewhere, and what was lost here was not there.
        assert missing or await service.get_app_state("app") == app, "app state is something else"
        return missing


@asynccontextmanager
async def writing(
    open_: Open, *, services: int = 3, sessions: int = 3, callers: int = 1, payload: str = "a"
) -> AsyncIterator[Writing]:
    """Let every service write to every session, by so many callers each."""
    account = Writing(sessions, payload)
    opened = [open_() for _ in range(services)]
    for key in account.keys:
        await opened[0].create_session(key)
    try:
        async with asyncio.TaskGroup() as group:
            for place, service in enumerate(opened):
                for number, key in enumerate(account.keys):
                    for caller in range(callers):
                        writer = f"w{place}-{number}-{caller}"
                        account._counts[writer] = 0
                        group.create_task(account.write(service, key, writer))
            try:
                yield account
            finally:
                account.stop()
    finally:
        for service in opened:
            await service.aclose()
