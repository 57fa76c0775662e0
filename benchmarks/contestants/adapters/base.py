"""What the adapters' contestants share: a store in a framework's words, and the bare service."""

from __future__ import annotations

import tempfile
from abc import abstractmethod
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any, cast

import msgspec

from agentsession import (
    Event,
    InMemorySessionService,
    RedisSessionService,
    SessionKey,
    SessionService,
    SQLiteSessionService,
)
from agentsession.events import new_id
from benchmarks.cases import Case, Setup
from benchmarks.driver import APP, USER, Contestant, NotMeasuredError, main
from benchmarks.frameworks import PLACES, Place
from benchmarks.messages import Message, words

__all__ = ["Adapter", "InMemory", "OnFile", "Store", "contestants", "serve"]


class Store(Contestant):
    """A store that keeps what a framework gives it: the framework's own, or ours."""

    @classmethod
    def check(cls, case: Case) -> None:
        super().check(case)
        if case.operation in {"convert", "restore"}:
            msg = "only an adapter converts"
            raise NotMeasuredError(msg)

    async def seed(self, sessions: Sequence[str]) -> None:
        message = words(self.setup.size)
        for session in sessions:
            await self.create(session)
            for _ in range(self.setup.history):
                await self.append(session, (message,))

    async def get_last(self, session: str) -> int:
        raise NotImplementedError


class OnFile(Store):
    """A framework's own store, on a file in a folder that is deleted in the end."""

    def __init__(self, setup: Setup, url: str) -> None:
        super().__init__(setup, url)
        self._folder = tempfile.TemporaryDirectory()

    @property
    def file(self) -> Path:
        return Path(self._folder.name) / "sessions.db"

    async def aclose(self) -> None:
        self._folder.cleanup()


class InMemory(Store):
    """A framework's own store, in memory."""

    on_server = False

    async def aclose(self) -> None:
        """Nothing to let go of."""


class Adapter(Store):
    """An adapter. A framework's module makes its store of :attr:`service`.

    Attributes:
        place: Where the service stores.
        service: What the adapter stores in.
        stored: What a session holds, after seeding.
    """

    place: Place = "server"

    def __init__(self, setup: Setup, url: str) -> None:
        super().__init__(setup, url)
        self._left = ExitStack()
        self.service = self._opened()
        self.stored: list[Event] = []

    def _opened(self) -> SessionService:
        if self.place == "server":
            return RedisSessionService.from_url(self.url, session_event_limit=None)
        if self.place == "file":
            folder = self._left.enter_context(tempfile.TemporaryDirectory())
            return SQLiteSessionService(Path(folder, "sessions.db"), session_event_limit=None)
        return InMemorySessionService(session_event_limit=None)

    @classmethod
    def check(cls, case: Case) -> None:
        Contestant.check(case)

    def key(self, session: str) -> SessionKey:
        """Return where a session is."""
        return SessionKey(APP, USER, session)

    async def seed(self, sessions: Sequence[str]) -> None:
        await super().seed(sessions)
        found = await self.service.get_session(self.key(sessions[0]))
        self.stored = [] if found is None else found.events

    async def convert(self, session: str) -> None:  # noqa: ARG002 - all are alike
        # Of the object that is appended, its making is a part, as in an append.
        self.to_events(words(self.setup.size))

    async def restore(self, session: str) -> None:  # noqa: ARG002 - all are alike
        self.from_events(self.stored)

    @abstractmethod
    def to_events(self, message: Message) -> object:
        """Make events of what an append is given, by the adapter's own functions."""

    @abstractmethod
    def from_events(self, stored: Sequence[Event]) -> object:
        """Make what a read returns of stored events, by the adapter's own functions."""

    async def bare_append(self, session: str, events: Sequence[Event]) -> None:
        """Store by the service alone what an append stores."""
        assert events
        await self.service.append_events(self.key(session), events)

    async def bare_read(self, session: str) -> int:
        """Read by the service alone what a read needs, and return how much came."""
        found = await self.service.get_session(self.key(session))
        return 0 if found is None else len(found.events)

    async def aclose(self) -> None:
        await self.service.aclose()
        self._left.close()


class Bare(Store):
    """The service without the adapter: the same events, made beforehand, in one call each.

    Only their ids are new each time.
    """

    adapter: type[Adapter]

    def __init__(self, setup: Setup, url: str) -> None:
        super().__init__(setup, url)
        self._adapter = self.adapter(setup, url)
        self._events: list[Event] = []

    async def seed(self, sessions: Sequence[str]) -> None:
        await self._adapter.seed(sessions)
        if not self._events:
            self._events = await self._appended(sessions[0])

    async def _appended(self, session: str) -> list[Event]:
        """Let the adapter append once, and return what it has given to the service."""
        given: list[Event] = []
        service: Any = self._adapter.service
        append_event, append_events = service.append_event, service.append_events

        async def note_one(where: Any, event: Event, **options: Any) -> Any:
            given.append(event)
            return await append_event(where, event, **options)

        async def note(where: Any, events: Sequence[Event], **options: Any) -> Any:
            given.extend(events)
            return await append_events(where, events, **options)

        service.append_event, service.append_events = note_one, note
        try:
            await self._adapter.append(session, (words(self.setup.size),))
        finally:
            del service.append_event, service.append_events
        return given

    async def append(
        self,
        session: str,
        messages: Sequence[Message],  # noqa: ARG002 - its events are of the same message
    ) -> None:
        events = [msgspec.structs.replace(event, id=new_id()) for event in self._events]
        await self._adapter.bare_append(session, events)

    async def read(self, session: str) -> int:
        return await self._adapter.bare_read(session)

    async def aclose(self) -> None:
        await self._adapter.aclose()


def contestants(
    adapter: type[Adapter], own: Mapping[str, type[Store]]
) -> dict[str, type[Contestant]]:
    """Return who takes part, as :mod:`benchmarks.frameworks` names them."""
    found: dict[str, type[Contestant]] = dict(own)
    for place in PLACES:
        where = {"on_server": place != "memory"}
        named = {**where, "place": place}
        placed = cast("type[Adapter]", type(adapter.__name__, (adapter,), named))
        found[f"adapter, {place}"] = placed
        found[f"bare, {place}"] = cast(
            "type[Bare]", type("Bare", (Bare,), {**where, "adapter": placed})
        )
    return found


def serve(adapter: type[Adapter], own: Mapping[str, type[Store]]) -> None:
    """Obey the suite's orders."""
    main(contestants(adapter, own))
