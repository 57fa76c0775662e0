"""This package, on the server and in memory."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence

from agentsession import (
    Event,
    InMemorySessionService,
    RedisSessionService,
    Runner,
    SessionKey,
    SessionService,
    UserKey,
)
from agentsession.events import Content, Text, ToolCall, ToolResult
from agentsession.runner import AgentContext
from benchmarks.cases import Setup
from benchmarks.driver import APP, LAST, PAGE, TURNS, USER, Contestant, main
from benchmarks.messages import Message, exchange, words


class Ours(Contestant):
    """What both services share: all of it."""

    service: SessionService
    most_at_once = 1000

    def __init__(self, setup: Setup, url: str) -> None:
        super().__init__(setup, url)
        self._runner: Runner | None = None
        self._answers: dict[str, Sequence[Message]] = {}

    async def seed(self, sessions: Sequence[str]) -> None:
        message = words(self.setup.size)
        # A megabyte each makes a request of reasonable size.
        batch = max(1, min(self.most_at_once, 1_000_000 // self.setup.size))
        for session in sessions:
            await self.service.create_session(_key(session))
            for begin in range(0, self.setup.history, batch):
                count = min(batch, self.setup.history - begin)
                await self.service.append_events(
                    _key(session), [_event(message) for _ in range(count)]
                )
            for _ in range(self.setup.rewinds):
                await self.rewind(session, exchange(self.setup.size)[:2])

    async def append(self, session: str, messages: Sequence[Message]) -> None:
        if len(messages) == 1:
            await self.service.append_event(_key(session), _event(messages[0]))
        else:
            await self.service.append_events(_key(session), [_event(each) for each in messages])

    async def get_last(self, session: str) -> int:
        found = await self.service.get_session(_key(session), num_recent_events=LAST)
        return 0 if found is None else len(found.events)

    async def get_history(self, session: str) -> int:
        return len(await self.service.get_history(_key(session), max_turns=TURNS))

    async def list_page(self) -> int:
        page = await self.service.list_sessions(UserKey(APP, USER), limit=PAGE)
        return len(page.sessions)

    async def turn(self, session: str, messages: Sequence[Message]) -> None:
        if self._runner is None:
            self._runner = Runner(APP, self._answer, self.service)
        self._answers[session] = messages[1:]
        message = messages[0]
        question: Content | Event = message.text if message.author == "user" else _event(message)
        async with self._runner.run(USER, session, question, num_recent_events=LAST) as run:
            async for _ in run:
                pass

    async def leased_turn(self, session: str, messages: Sequence[Message]) -> None:
        service, key = self.service, _key(session)
        question, *answers, last = messages
        lease = service.lease(key)
        await service.begin_turn(lease, _event(question), num_recent_events=LAST)
        for answer in answers:
            await service.append_event(key, _event(answer), lease=lease)
        # What ends the turn gives the lease back as well.
        end = Event(author=last.author, content=_content(last), outcome="completed")
        await service.append_event(key, end, lease=lease)

    async def unleased_turn(self, session: str, messages: Sequence[Message]) -> None:
        key = _key(session)
        await self.service.get_or_create_session(key, num_recent_events=LAST)
        for message in messages:
            await self.service.append_event(key, _event(message))

    async def rewind(self, session: str, messages: Sequence[Message]) -> None:
        events = [_event(message) for message in messages]
        await self.service.append_events(_key(session), events, rewind_to=self.setup.history)

    async def fork(self, session: str) -> None:
        await self.service.fork(_key(session), SessionKey(APP, USER, ""), num_recent_events=0)

    async def _answer(self, context: AgentContext) -> AsyncIterator[Event]:
        for message in self._answers[context.session.id]:
            yield _event(message)

    async def aclose(self) -> None:
        await self.service.aclose()


class OnServer(Ours):
    """``RedisSessionService``."""

    def __init__(self, setup: Setup, url: str) -> None:
        super().__init__(setup, url)
        self.service = RedisSessionService.from_url(
            url, session_event_limit=setup.limit or None, session_ttl=setup.ttl or None
        )


class InMemory(Ours):
    """``InMemorySessionService``."""

    on_server = False

    def __init__(self, setup: Setup, url: str) -> None:
        super().__init__(setup, url)
        self.service = InMemorySessionService(
            session_event_limit=setup.limit or None, session_ttl=setup.ttl or None
        )


def _key(session: str) -> SessionKey:
    return SessionKey(APP, USER, session)


def _event(message: Message) -> Event:
    return Event(author=message.author, content=_content(message))


def _content(message: Message) -> Content:
    if message.kind == "call":
        return [ToolCall(message.call_id, message.name, message.arguments or {})]
    if message.kind == "result":
        return [ToolResult(message.call_id, message.text, message.name)]
    return message.text if message.author == "user" else [Text(message.text)]


if __name__ == "__main__":
    main({"server": OnServer, "memory": InMemory})
