"""A process that plays recorded conversations, all at once, from wherever the log has got to.

It is told ``{"seed": n}``. It tells ``{"said": 1}`` after each answer, ``{"found": turn, "then":
how}`` for each turn that another process has left, and in the end ``{"done": true}``. What it knows
of a conversation is what is stored, as it is for any process that takes over from a dead one.
"""

from __future__ import annotations

import asyncio
import json
import random
import sys
from collections.abc import Sequence

from agentsession import Event, Runner, SessionService, open_service
from agentsession.demo._conversations import Conversation
from agentsession.errors import LeaseLostError
from agentsession.history import effective
from turns.recordings import RecordedAgent, key_of, prelude, recordings
from turns.worker import APP, USER, tell


def is_whole(turn: Sequence[Event]) -> bool:
    """Tell whether a turn has completed, and none of its calls had to be closed for it."""
    closed = any(event.outcome == "abandoned" and event.content for event in turn)
    return turn[-1].outcome == "completed" and not closed


class Talk:
    """One conversation."""

    def __init__(self, service: SessionService, recording: Conversation, seed: int) -> None:
        agent = RecordedAgent(recording, lambda: tell({"said": 1}))
        self._service = service
        self._runner = Runner(APP, agent, service, ttl=1)
        self._key = key_of(recording)
        self._recording = recording
        self._dice = random.Random(f"{seed} {recording.conversation_id}")

    async def go_on(self) -> None:
        """Play it to its end."""
        await self._service.get_or_create_session(self._key)
        # The process before may have died in between, or not.
        await self._service.append_events(self._key, prelude(self._recording))
        while (message := await self._next()) is not None:
            run = self._runner.run(USER, self._key.session_id, message)
            try:
                await run.result()
            except LeaseLostError:
                continue  # This process had no time for a second.

    async def _next(self) -> Event | None:
        """Return the message to send; ``None`` when all was said."""
        raw = await self._service.get_events(self._key, limit=1000, raw=True)
        log = effective(raw)
        turns = self._recording.turns()
        asked = [event for event in log if event.author == "user"]
        number = len(asked)
        is_broken = False
        if asked:
            turn = [event for event in log if event.invocation_id == asked[-1].id]
            is_broken = not is_whole(turn)
            if is_broken and turn[-1].outcome in ("", "abandoned") and self._dice.random() < 0.5:
                tell({"found": asked[-1].id, "then": "sent again"})
                return self._message(asked[-1].id, number)
        if is_broken:
            before = max(event.seq for event in log if event.seq < asked[-1].seq)
            attempt = sum(event.author == "user" for event in raw)
            return await self._take_back(before, self._message(f"{number}.{attempt}", number))
        if number == len(turns):
            return None
        attempt = sum(event.author == "user" for event in raw)
        return self._message(f"{number + 1}.{attempt}", number + 1)

    async def _take_back(self, before: int, message: Event) -> Event:
        """Take a turn back, and ask anew, in one step or in two."""
        in_one = self._dice.random() < 0.5
        tell({"found": message.id, "then": "sent anew" if in_one else "taken back"})
        if in_one:
            await self._service.append_events(self._key, [message], rewind_to=before)
        else:
            await self._service.rewind(self._key, to_seq=before)
        return message

    def _message(self, name: str, number: int) -> Event:
        words = self._recording.turns()[number - 1][0].content or ""
        return Event(author="user", content=words, id=name, invocation_id=name)


async def main(url: str) -> None:
    found = recordings()
    async with open_service(url, session_event_limit=None) as service:
        tell({"ready": True})
        seed = json.loads(sys.stdin.readline())["seed"]
        async with asyncio.timeout(60), asyncio.TaskGroup() as group:
            for recording in found:
                group.create_task(Talk(service, recording, seed).go_on())
        tell({"done": True})


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1]))
