"""Who takes part in a file, and what is to be known of each."""

from __future__ import annotations

from benchmarks.roster import Entrant, Peer

__all__ = ["FLOOR", "FULL", "LANGGRAPH", "NORMAL", "NOTES", "OPENAI", "ROSTER"]

_OPENAI = Peer("openai-agents-files", ("openai-agents", "aiosqlite"))
_GOOGLE = Peer("google-adk-files", ("google-adk", "sqlalchemy[asyncio]>=2,<3", "aiosqlite"))
_LANGGRAPH = Peer("langgraph-files", ("langgraph-checkpoint-sqlite",))

FULL = Entrant(
    "agentsession, full", "files.ours", "file", ("agentsession", "msgspec"), contestant="full"
)
FLOOR = Entrant("floor: 4 KiB, fdatasync", "files.floor", "file", contestant="floor")
NORMAL = Entrant("agentsession, normal", "files.ours", "file", contestant="normal")


def _of(peer: Peer, name: str, contestant: str, *packages: str) -> Entrant:
    module = f"files.{name.replace('-', '_')}"
    return Entrant(f"{name} {contestant}", module, "file", packages, peer, contestant)


OPENAI = _of(_OPENAI, "openai-agents", "SQLiteSession", "openai-agents")
_OPENAI_ASYNC = _of(_OPENAI, "openai-agents", "AsyncSQLiteSession", "aiosqlite")
_SQLITE = _of(_GOOGLE, "google-adk", "SqliteSessionService", "google-adk", "aiosqlite")
_SQLITE_WAL = _of(_GOOGLE, "google-adk", "SqliteSessionService, WAL")
_DATABASE = _of(_GOOGLE, "google-adk", "DatabaseSessionService", "sqlalchemy", "aiosqlite")
_DATABASE_WAL = _of(_GOOGLE, "google-adk", "DatabaseSessionService, WAL")
LANGGRAPH = _of(
    _LANGGRAPH,
    "langgraph",
    "AsyncSqliteSaver",
    "langgraph-checkpoint",
    "langgraph-checkpoint-sqlite",
    "aiosqlite",
)

ROSTER = (
    FULL,
    NORMAL,
    FLOOR,
    OPENAI,
    _OPENAI_ASYNC,
    _SQLITE,
    _SQLITE_WAL,
    _DATABASE,
    _DATABASE_WAL,
    LANGGRAPH,
)

_SAME = "its default is the durability of our full: there is no second entrant at ours"
_DELETE = (
    "its default is a rollback journal: a commit syncs journal and file, but not the folder in "
    "which the journal is deleted, so the last one may be undone by a crash of the machine"
)
NOTES = {
    FULL.label: "the default: a write returns when it is on the disk",
    NORMAL.label: "synchronous='normal': a crash of the machine may lose the last writes",
    FLOOR.label: "the least that one caller's synced write takes; callers share no sync",
    OPENAI.label: f"{_SAME}; 200 letters are one item, without id, author, time and state",
    _OPENAI_ASYNC.label: f"{_SAME}; one connection and thread for each session",
    _SQLITE.label: f"{_DELETE}; it opens the file anew for each call",
    _SQLITE_WAL.label: "at our durability, by PRAGMA journal_mode = WAL on the file beforehand",
    _DATABASE.label: _DELETE,
    _DATABASE_WAL.label: "at our durability, by PRAGMA journal_mode = WAL in a listener",
    LANGGRAPH.label: (
        f"{_SAME}; an append is a checkpoint of a thread that holds one message, no event: a "
        "conversation's is as long as the conversation, and is stored anew at each step"
    ),
}
