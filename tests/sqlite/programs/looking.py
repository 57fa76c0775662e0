"""A fresh process that reads a file, and writes to it: ``python -m sqlite.programs.looking PATH``.

It prints one line of JSON: what SQLite says of the file, and of each session its events as
``[seq, id]``, its ``last`` and that of the application's state.
"""

from __future__ import annotations

import asyncio
import json
import sqlite3
import sys
from typing import Any

from agentsession import Event, SessionKey, UserKey
from agentsession.sqlite import SQLiteSessionService


def looked(path: str) -> dict[str, Any]:
    """Look at all sessions at one moment, as another program does."""
    connection = sqlite3.connect(path, timeout=30, isolation_level=None)
    connection.execute("BEGIN")
    logs: dict[str, list[tuple[int, str]]] = {}
    for session, seq, event in connection.execute(
        "SELECT session_id, seq, json_extract(event, '$.id') FROM log ORDER BY session_id, seq"
    ):
        logs.setdefault(session, []).append((seq, event))
    last = dict(
        connection.execute(
            "SELECT session_id, json_extract(value, '$') FROM session_state "
            "JOIN sessions ON session = number WHERE name = 'last'"
        )
    )
    app = dict(connection.execute("SELECT name, json_extract(value, '$') FROM app_state"))
    (integrity,) = connection.execute("PRAGMA integrity_check").fetchone()
    connection.execute("COMMIT")
    connection.close()
    return {"integrity": integrity, "logs": logs, "last": last, "app": app}


async def written(path: str) -> int:
    """Read by the service as well, and go on writing."""
    async with SQLiteSessionService(path, session_event_limit=None) as service:
        key = SessionKey("app", "looker", "looks")
        await service.get_or_create_session(key)
        event = await service.append_event(key, Event(author="looker"))
        assert event.seq is not None
        assert len(await service.get_events(key, limit=1000)) == event.seq
        for session in (await service.list_sessions(UserKey("app", "user"))).sessions:
            found = await service.get_events(session.key, newest_first=True, limit=5)
            numbers = [0, *(each.seq for each in found if each.seq is not None)][bool(found) :]
            assert sorted(numbers) == list(range(max(numbers) - len(numbers) + 1, max(numbers) + 1))
        return event.seq


if __name__ == "__main__":
    writes = asyncio.run(written(sys.argv[1]))
    print(json.dumps({**looked(sys.argv[1]), "writes": writes}))
