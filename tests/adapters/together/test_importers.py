"""What the frameworks themselves have stored, imported, and read by their adapters."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from redis.asyncio import Redis

from adapters.processes import ROOT
from agentsession import SessionKey, SessionService, UserKey
from agentsession.transfer.importers import (
    import_adk_sqlite,
    import_openai_agents_redis,
    import_openai_agents_sqlite,
)

RECORDED = ROOT.parent / "shared/data/airline_conversations.jsonl"
recorded = pytest.mark.skipif(
    not RECORDED.exists(), reason="the recorded conversations are not beside this checkout"
)
OWNER = UserKey("a", "u")


@pytest.fixture
async def server(valkey_url: str) -> AsyncIterator[Redis]:
    """A client of a server, which is empty."""
    async with Redis.from_url(valkey_url) as client:
        await client.flushdb()
        yield client


def conversations() -> dict[str, list[dict[str, Any]]]:
    """Return 20 of the recorded conversations."""
    lines = RECORDED.read_text().splitlines()[:20]
    return {told["conversation_id"]: told["messages"] for told in map(json.loads, lines)}


class TestOpenAIAgents:
    """Sessions of OpenAI Agents."""

    @pytest.fixture(autouse=True)
    def _framework(self) -> None:
        pytest.importorskip("agents")

    async def items_here(self, service: SessionService, session_id: str) -> list[Any]:
        from agentsession.adapters.openai_agents import AgentSession

        return list(await AgentSession(service, SessionKey("a", "u", session_id)).get_items())

    @recorded
    async def test_files_come_to_the_letter(self, service: SessionService, tmp_path: Path) -> None:
        """Also what was taken back and added anew, and tables of other names."""
        from agents import SQLiteSession

        from adapters.frameworks.openai_agents import items_of

        path = tmp_path / "x.db"
        names: Any = {"sessions_table": "my_sessions", "messages_table": "my_items"}
        there: dict[str, list[Any]] = {}
        for session_id, messages in conversations().items():
            session = SQLiteSession(session_id, path, **names)
            for message in messages:
                await session.add_items(items_of(message))
            last = await session.pop_item()
            assert last is not None
            await session.add_items([last, {"role": "user", "content": "And?"}])
            there[session_id] = list(await session.get_items())
            session.close()
        report = await import_openai_agents_sqlite(service, path, to=OWNER, **names)
        assert (report.sessions, report.problems) == (20, [])
        assert report.events == sum(map(len, there.values()))
        for session_id, items in there.items():
            assert await self.items_here(service, session_id) == items

    async def test_branches_come_each_as_it_is(
        self, service: SessionService, tmp_path: Path
    ) -> None:
        """The advanced session reads them by its tables, and so does the importer."""
        from agents.extensions.memory import AdvancedSQLiteSession

        path = tmp_path / "x.db"
        session = AdvancedSQLiteSession(session_id="s", db_path=path, create_tables=True)
        for turn in range(3):
            said = {"type": "message", "role": "assistant", "content": f"answer {turn}"}
            await session.add_items([{"role": "user", "content": f"{turn}"}, said])  # type: ignore[list-item]
        branch = await session.create_branch_from_turn(2, "other")
        await session.add_items([{"role": "user", "content": "another way"}])
        there = [await session.get_items(branch_id=each) for each in ("main", branch)]
        assert there[0] != there[1]
        session.close()
        report = await import_openai_agents_sqlite(service, path, to=OWNER)
        assert (report.sessions, report.problems) == (2, [])
        assert [await self.items_here(service, each) for each in ("s", "s:other")] == there

    @recorded
    async def test_keys_come_to_the_letter(
        self, service: SessionService, server: Redis, valkey_url: str
    ) -> None:
        """With how long they were to live."""
        from agents.extensions.memory import RedisSession

        from adapters.frameworks.openai_agents import items_of

        there: dict[str, list[Any]] = {}
        for session_id, messages in conversations().items():
            session = RedisSession.from_url(session_id, url=valkey_url, ttl=3600)
            for message in messages:
                await session.add_items(items_of(message))
            there[session_id] = list(await session.get_items())
            await session.close()
        report = await import_openai_agents_redis(service, valkey_url, to=OWNER)
        assert (report.sessions, report.expiring, report.problems) == (20, 20, [])
        for session_id, items in there.items():
            assert await self.items_here(service, session_id) == items

    async def test_encrypted_items_can_be_read_by_their_session(
        self, service: SessionService, tmp_path: Path
    ) -> None:
        """It stands before any session, also before ours."""
        pytest.importorskip("cryptography")
        from agents import SQLiteSession
        from agents.extensions.memory import EncryptedSession

        from agentsession.adapters.openai_agents import AgentSession

        path = tmp_path / "x.db"
        items: list[Any] = [{"role": "user", "content": "a secret"}]
        inner = SQLiteSession("s", path)
        await EncryptedSession("s", inner, "key of some length").add_items(items)
        inner.close()
        report = await import_openai_agents_sqlite(service, path, to=OWNER)
        assert report.unmapped == {"the words of encrypted items": 1}
        here: Any = AgentSession(service, SessionKey("a", "u", "s"))
        assert await EncryptedSession("s", here, "key of some length").get_items() == items
        assert "secret" not in str(await service.get_events(here.key))


class TestADK:
    """Databases of Google's ADK."""

    @pytest.fixture(autouse=True)
    def _framework(self) -> None:
        pytest.importorskip("google.adk")

    @pytest.fixture(params=["SqliteSessionService", "DatabaseSessionService"])
    async def store(self, request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Any]:
        """Each session service that keeps its sessions in a SQLite file."""
        from google.adk.sessions.database_session_service import DatabaseSessionService
        from google.adk.sessions.sqlite_session_service import SqliteSessionService

        path = tmp_path / "adk.db"
        if request.param == "SqliteSessionService":
            yield SqliteSessionService(str(path))
            return
        pytest.importorskip("greenlet")
        async with DatabaseSessionService(f"sqlite+aiosqlite:///{path}") as opened:
            yield opened

    @pytest.fixture
    async def session(self, store: Any) -> Any:
        """A session with events of every kind, as ADK has stored it."""
        from google.adk.events.event import Event
        from google.adk.events.event_actions import EventActions
        from google.genai import types

        state = {"app:x": 1, "user:y": {"deep": None}, "z": 3, "none": None}
        session = await store.create_session(app_name="a", user_id="u", session_id="s", state=state)
        call = types.FunctionCall(id="c", name="f", args={"snake_case": {"inner_name": [1]}})
        answer = types.FunctionResponse(id="c", name="f", response={"result": 0.1})
        contents = [
            types.Content(role="user", parts=[types.Part(text="Hello")]),
            types.Content(
                role="model",
                parts=[
                    types.Part(text="Hm", thought=True, thought_signature=b"\xfa\xfb"),
                    types.Part(function_call=call),
                ],
            ),
            types.Content(role="user", parts=[types.Part(function_response=answer)]),
            types.Content(
                role="model",
                parts=[
                    types.Part(text="Look: "),
                    types.Part(inline_data=types.Blob(data=b"\xff>?", mime_type="image/png")),
                    types.Part(
                        executable_code=types.ExecutableCode(
                            code="1", language=types.Language.PYTHON
                        )
                    ),
                ],
            ),
        ]
        for number, content in enumerate(contents):
            delta = {"n": number, "user:m": [number], "temp:t": 1, "none": None}
            event = Event(
                author="user" if not number else "bot",
                invocation_id=f"i{number // 4}",
                branch="a.b" if number else None,
                content=content,
                actions=EventActions(state_delta=delta),
                custom_metadata={"some_key": number},
            )
            await store.append_event(session, event)
        failed = Event(author="bot", invocation_id="i1", error_code="500", error_message="no")
        await store.append_event(session, failed)
        return await store.get_session(app_name="a", user_id="u", session_id="s")

    async def test_events_and_states_come_back_equal(
        self, service: SessionService, session: Any, tmp_path: Path
    ) -> None:
        """By the adapter, from what either of ADK's services has stored."""
        adapter = pytest.importorskip("agentsession.adapters.google_adk")
        report = await import_adk_sqlite(service, tmp_path / "adk.db")
        assert (report.sessions, report.events, report.problems) == (1, 5, [])
        here = await adapter.SessionService(service).get_session(
            app_name="a", user_id="u", session_id="s"
        )
        assert here.events == session.events
        assert here.state == session.state

    async def test_events_have_the_parts_that_the_adapter_makes(
        self, service: SessionService, session: Any, tmp_path: Path
    ) -> None:
        """What other frameworks see does not depend on the way that it came."""
        adapter = pytest.importorskip("agentsession.adapters.google_adk")
        await import_adk_sqlite(service, tmp_path / "adk.db")
        there = adapter.SessionService(service)
        copy = await there.create_session(app_name="b", user_id="u", session_id="s")
        for event in session.events:
            await there.append_event(copy, event)
        keys = SessionKey("a", "u", "s"), SessionKey("b", "u", "s")
        imported, appended = [await service.get_events(key) for key in keys]
        for one, other in zip(imported, appended, strict=True):
            assert (one.id, one.author, one.content) == (other.id, other.author, other.content)
            assert (one.timestamp, one.invocation_id) == (other.timestamp, other.invocation_id)
            assert (one.branch, one.error) == (other.branch, other.error)
            assert one.state_delta == other.state_delta
            assert one.metadata.keys() == other.metadata.keys()
