"""The session store of the Claude Agent SDK: transcripts of Claude Code, mirrored and resumed.

::

    store = SessionStore(service, app_name="my-app")
    options = ClaudeAgentOptions(session_store=store)

======================================== =======================================================
of the SDK                               here
======================================== =======================================================
``project_key``, ``session_id``          user id, session id
``subpath``, as of a subagent            a session of its own, of a user that stands for the session
entry of type ``user``, ``assistant``    an event with the parts of its message
any other entry                          an event with one :class:`~agentsession.Data`, of the type
                                         ``application/vnd.claude-agent-sdk.entry+json``
``uuid`` of an entry                     id of the event
summary of a session                     session state, under ``claude_agent_sdk``
======================================== =======================================================

An entry comes back as it was given. What other frameworks have stored comes back as entries that
are made of the messages of :mod:`agentsession.messages.anthropic`: each the child of the one before
it, so that the SDK's functions find them and the transcript can be resumed.

It needs an extra: ``pip install 'agentsession[claude-agent-sdk]'``.
"""

from __future__ import annotations

import json
from collections import OrderedDict
from datetime import UTC, datetime
from hashlib import sha256
from typing import TYPE_CHECKING, Any, Final, cast
from urllib.parse import quote
from uuid import NAMESPACE_OID, UUID, uuid5

import msgspec

from agentsession._extras import what_to_install

try:
    from claude_agent_sdk import SessionStore as _SessionStore
    from claude_agent_sdk import fold_session_summary
except ImportError as _cause:
    raise ImportError(what_to_install("this adapter", "claude-agent-sdk", _cause)) from _cause

from agentsession import sessions
from agentsession.adapters._items.originals import original_of, with_original
from agentsession.adapters._sessions.known import Known
from agentsession.adapters._sessions.logs import Service, add, awaitable, read
from agentsession.clock import to_microseconds, utc_now
from agentsession.errors import RevisionConflictError, SessionNotFoundError
from agentsession.events import UNREADABLE, Data, Event, new_id
from agentsession.messages import anthropic
from agentsession.messages._converted import Converted, Loss
from agentsession.messages._converting import mapping

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterable, Iterator, Mapping, Sequence

    from claude_agent_sdk import (
        SessionKey,
        SessionListSubkeysKey,
        SessionStoreEntry,
        SessionStoreListEntry,
        SessionSummaryEntry,
    )

__all__ = ["SessionStore"]

_FRAMEWORK: Final = "claude_agent_sdk"
_ENTRY: Final = "application/vnd.claude-agent-sdk.entry+json"

# Users that stand for a session and own its subpaths. A project of such a name is set apart.
_SUBPATHS: Final = "subpaths:"

# Through entries of these types the SDK follows from child to parent.
_CHAINED: Final = frozenset({"user", "assistant", "system", "attachment", "progress"})
# These hold a message; one of "system" does so only where another framework has said it.
_SAID: Final = frozenset({"user", "assistant", "system"})

# What one step takes, with room for an entry's parts beside it.
_MOST_ENTRIES: Final = 1000
_MOST_BYTES: Final = 24 * 1024 * 1024

# How often to try to keep the summary up to date while others write to the session.
_ATTEMPTS: Final = 8
_MOST_FAILED: Final = 100


class SessionStore(_SessionStore):
    """A ``SessionStore`` for ``ClaudeAgentOptions(session_store=…)``, with all of its methods.

    The entries of one call are stored in one step, if they are up to 1,000 and up to 24 MB, else in
    several. An entry whose ``uuid`` is stored already is no new one. Entries without ``uuid``
    always are, but for the repeat of a call that has failed, which stores what the first one has
    not: that is the next call for the same transcript with equal entries, as the SDK makes it. The
    last 100 calls that have failed are remembered, by this object.

    The summary of a session is kept in the same step as the entries. Where something else has
    written to the session since, it is made anew of all entries, by whoever next asks for it or
    appends.

    Args:
        service: Where sessions are kept.
        app_name: The application.

    Raises:
        TypeError: *service* is no service, or *app_name* no string.
        ValueError: *app_name* is empty.
    """

    def __init__(self, service: Service, *, app_name: str) -> None:
        self._service = awaitable(service)
        self._app_name = sessions.UserKey(app_name, _FRAMEWORK).app_name
        self._known: Known[sessions.Session] = Known()
        # With what the ids of a call began that has failed, by what it was to store.
        self._failed: OrderedDict[bytes, str] = OrderedDict()

    def __repr__(self) -> str:
        return f"<SessionStore {self._app_name!r} of {self._service!r}>"

    async def append(self, key: SessionKey, entries: list[SessionStoreEntry]) -> None:
        """Add entries to the end of a transcript, which is made if there is none.

        Raises:
            EventTooLargeError: An entry is too large for the service; its batch was not stored.
            ValueError: An id of *key* is empty.
        """
        place = self._place(key)
        beginning = new_id()
        if self._failed:
            beginning = self._failed.pop(_digest(place, entries), beginning)
        try:
            for batch in _in_batches(entries, _ids_of(entries, beginning)):
                if key.get("subpath") is None:
                    await self._append_main(key, place, batch)
                else:
                    await add(self._service, place, [event for _, event in batch])
        except BaseException:
            # Some of it may be stored, and the SDK tries again.
            self._failed[_digest(place, entries)] = beginning
            if len(self._failed) > _MOST_FAILED:
                self._failed.popitem(last=False)
            raise

    async def load(self, key: SessionKey) -> list[SessionStoreEntry] | None:
        """Return all entries of a transcript; ``None`` if there is none.

        Returns:
            A list with an attribute ``lost``: what others have stored in the session that no entry
            can say, as in what :func:`agentsession.messages.anthropic.to_messages` returns.
        """
        session = await read(self._service, self._place(key))
        return _entries(session) if session is not None and session.events else None

    async def list_sessions(self, project_key: str) -> list[SessionStoreListEntry]:
        """Return the sessions of a project, newest activity first.

        One that cannot be read is there too, as one of long ago: to load it raises an error.
        """
        found: list[tuple[str, int]] = []
        async for page in self._pages(self._user(project_key)):
            found += [(each.id, _milliseconds(each.updated_at)) for each in page.sessions]
            found += [(each.key.session_id, 0) for each in page.unreadable]
        return [{"session_id": session_id, "mtime": mtime} for session_id, mtime in found]

    async def list_session_summaries(self, project_key: str) -> list[SessionSummaryEntry]:
        """Return what the SDK shows in a list of the sessions of a project.

        All of them are read in pages. A session to which something else than this class has written
        last is read whole.
        """
        found: list[SessionSummaryEntry] = []
        async for page in self._pages(self._user(project_key)):
            for listed in page.sessions:
                key: SessionKey = {"project_key": project_key, "session_id": listed.id}
                session, summary = await self._summarized(key, listed)
                if session is not None and summary is not None:
                    found.append({**summary, "mtime": _milliseconds(session.updated_at)})
        return found

    async def delete(self, key: SessionKey) -> None:
        """Delete a transcript; one without subpath with all of its subpaths, in several steps."""
        place = self._place(key)
        if key.get("subpath") is None:
            # The session goes last, so that it can be found, and deleted, if this fails midway.
            await self._service.delete_user(self._owner(key["project_key"], key["session_id"]))
        await self._service.delete_session(place)

    async def list_subkeys(self, key: SessionListSubkeysKey) -> list[str]:
        """Return the subpaths of a session, newest activity first."""
        owner = self._owner(key["project_key"], key["session_id"])
        found: list[str] = []
        async for page in self._pages(owner):
            found += [session.id for session in page.sessions]
            found += [each.key.session_id for each in page.unreadable]
        return found

    # -- where things are

    def _place(self, key: SessionKey) -> sessions.SessionKey:
        """Return where a transcript is."""
        project_key, session_id, subpath = key["project_key"], key["session_id"], key.get("subpath")
        if not session_id or subpath == "":
            msg = f"a session id and a subpath must not be empty, as in {key!r:.200}"
            raise ValueError(msg)
        if subpath is None:
            return sessions.SessionKey(self._app_name, self._user(project_key).user_id, session_id)
        owner = self._owner(project_key, session_id)
        return sessions.SessionKey(self._app_name, owner.user_id, subpath)

    def _user(self, project_key: str) -> sessions.UserKey:
        """Return whose sessions those of a project are: the project's own name, nearly always."""
        if project_key.lstrip("%").startswith(_SUBPATHS):
            project_key = f"%{project_key}"
        return sessions.UserKey(self._app_name, project_key)

    def _owner(self, project_key: str, session_id: str) -> sessions.UserKey:
        """Return whose sessions the subpaths of a session are."""
        names = f"{quote(project_key, safe='')}:{quote(session_id, safe='')}"
        return sessions.UserKey(self._app_name, f"{_SUBPATHS}{names}")

    async def _pages(self, owner: sessions.UserKey) -> AsyncIterator[sessions.SessionPage]:
        cursor: str | None = None
        while True:
            page = await self._service.list_sessions(owner, limit=1000, cursor=cursor)
            yield page
            cursor = page.next_cursor
            if cursor is None:
                return

    # -- entries and their summary

    async def _append_main(
        self, key: SessionKey, place: sessions.SessionKey, batch: _Batch
    ) -> None:
        """Append to a session, and keep its summary, in one step."""
        events = [event for _, event in batch]
        for _ in range(_ATTEMPTS):
            found = self._known.take(place)
            if found is None:
                found = await self._service.get_or_create_session(place, num_recent_events=0)
            session, summary = await self._summarized(key, found)
            if session is None:
                continue
            folded = fold_session_summary(summary, key, [entry for entry, _ in batch])
            kept = _kept(folded, session, len(events))
            events[-1] = msgspec.structs.replace(events[-1], state_delta={_FRAMEWORK: kept})
            try:
                await self._service.append_events(
                    session, events, expected_revision=session.revision
                )
            except (RevisionConflictError, SessionNotFoundError):
                continue
            session.events = []
            self._known.keep(place, session)
            return
        events[-1] = msgspec.structs.replace(events[-1], state_delta={})
        await add(self._service, place, events)

    async def _summarized(
        self, key: SessionKey, found: sessions.Session
    ) -> tuple[sessions.Session | None, SessionSummaryEntry | None]:
        """Return a session and its summary, of one moment; ``None`` for what is not there."""
        if not found.last_seq:
            return found, None
        data = _data_of(found)
        if data is not None:
            return found, {"session_id": found.id, "mtime": 0, "data": data}
        session = await read(self._service, found.key)
        if session is None:
            return None, None
        entries = _entries(session)
        session.events = []
        return session, fold_session_summary(None, key, entries) if entries else None


# -- the summary, in the state of its session


def _kept(summary: SessionSummaryEntry, session: sessions.Session, added: int) -> str:
    """Return what to keep of a summary, and what the session is like once this is stored, as JSON.

    If it turns out to be otherwise, since some of the entries were stored before or others write
    to the session, the summary does not count any more.
    """
    return json.dumps([session.revision + 1, session.last_seq + added, summary["data"]])


def _data_of(session: sessions.Session) -> dict[str, Any] | None:
    """Return what the summary says, if it is one of all that is in the session."""
    match session.state.get(_FRAMEWORK):
        case str(kept):
            try:
                revision, last_seq, data = json.loads(kept)
            except (TypeError, ValueError):
                return None  # Somebody else has stored it.
            is_new = (revision, last_seq) == (session.revision, session.last_seq)
            return cast("dict[str, Any]", data) if is_new else None
        case _:
            return None


def _milliseconds(moment: datetime) -> int:
    return to_microseconds(moment) // 1000


# -- entries to events

_Batch = list[tuple["SessionStoreEntry", Event]]


def _digest(place: sessions.SessionKey, entries: Sequence[SessionStoreEntry]) -> bytes:
    """Return what tells the entries for a transcript from all others, and takes little memory."""
    digest = sha256(repr(place).encode())
    for entry in entries:
        digest.update(json.dumps(entry, default=repr).encode() + b"\n")
    return digest.digest()


def _ids_of(entries: Sequence[SessionStoreEntry], beginning: str) -> list[str]:
    """Return the ids of the events; where there is no ``uuid``, what begins so and its number."""
    uuids = (entry.get("uuid") for entry in entries)
    return [
        uuid if uuid and isinstance(uuid, str) else f"{beginning}-{number}"
        for number, uuid in enumerate(uuids)
    ]


def _in_batches(entries: Sequence[SessionStoreEntry], ids: Sequence[str]) -> Iterator[_Batch]:
    """Cut entries into what one step takes."""
    batch: _Batch = []
    size = 0
    for entry, event_id in zip(entries, ids, strict=True):
        event, weight = _event(entry, event_id)
        if batch and (len(batch) == _MOST_ENTRIES or size + weight > _MOST_BYTES):
            yield batch
            batch, size = [], 0
        batch.append((entry, event))
        size += weight
    if batch:
        yield batch


def _event(entry: SessionStoreEntry, event_id: str) -> tuple[Event, int]:
    """Make the event of an entry, and tell how many bytes the entry takes."""
    fields = cast("dict[str, Any]", entry)
    try:
        size = len(msgspec.json.encode(fields))
        event = _of_parts(fields)
    except UnicodeEncodeError:
        # Half of a surrogate pair, of a text that was cut: JSON has a way to write it.
        text = json.dumps(fields)
        size = len(text)
        event = with_original(_of_parts(_whole(fields)), _FRAMEWORK, text)
    return msgspec.structs.replace(event, id=event_id, timestamp=_moment(fields)), size


def _whole(fields: dict[str, Any]) -> dict[str, Any]:
    """Return the same with a question mark for each half of a surrogate pair."""
    whole: dict[str, Any] = json.loads(
        json.dumps(fields, ensure_ascii=False).encode("utf-8", "replace")
    )
    return whole


def _of_parts(entry: dict[str, Any]) -> Event:
    """Make an event of what is said, or of the entry as it is."""
    message = mapping(entry.get("message"))
    if entry.get("type") in _SAID and message:
        try:
            said = {name: message.get(name) for name in ("role", "content")}
            (event,) = anthropic.from_messages([said])
        except (TypeError, ValueError):
            pass  # Not a message of the API; the entry is kept all the same.
        else:
            return with_original(event, _FRAMEWORK, entry)
    return Event(author=_FRAMEWORK, content=[Data(entry, _ENTRY)])


def _moment(entry: Mapping[str, Any]) -> datetime:
    try:
        moment = datetime.fromisoformat(entry["timestamp"])
        return moment.astimezone(UTC) if moment.tzinfo else moment.replace(tzinfo=UTC)
    except (KeyError, OverflowError, TypeError, ValueError):
        return utc_now()


# -- events to entries


def _entries(session: sessions.Session) -> Converted[SessionStoreEntry]:
    transcript = _Transcript(session.id)
    for event in session.events:
        transcript.add(event)
    return transcript.entries


def _original(event: Event) -> Any:
    """Return the entry that an event was made of; ``None`` if it was made of something else."""
    original = original_of(event, _FRAMEWORK)
    if isinstance(original, str):
        return json.loads(original)
    if original is None:
        match event.content:
            case [Data(data=entry, media_type=media_type)] if media_type == _ENTRY:
                return entry
            case _:
                return None
    return original


class _Transcript:
    """Entries, of which each that was made here is the child of the one before it.

    Args:
        session_id: The session, as entries name it.
    """

    def __init__(self, session_id: str) -> None:
        self.entries: Converted[SessionStoreEntry] = Converted()
        self._session_id = session_id
        self._parent: str | None = None

    def add(self, event: Event) -> None:
        """Add the entry of an event, or the entries that say what it holds."""
        original = _original(event)
        if original is not None:
            self._add(original)
            return
        for number, message in enumerate(self._messages(event)):
            self._add(self._made(event, _uuid_of(event.id, number), message))

    def _add(self, entry: SessionStoreEntry) -> None:
        self.entries.append(entry)
        if entry.get("type") in _CHAINED and not mapping(entry).get("isSidechain"):
            self._parent = entry.get("uuid") or self._parent

    def _messages(self, event: Event) -> Iterable[Mapping[str, Any]]:
        if event.error is not None and event.error.type == UNREADABLE:
            self.entries.lost.append(Loss(f"event {event.id!r}", event.error.message))
            return ()
        messages = anthropic.to_messages([event])
        self.entries.lost += messages.lost
        return cast("list[dict[str, Any]]", messages)

    def _made(self, event: Event, uuid: UUID, message: Mapping[str, Any]) -> SessionStoreEntry:
        moment = event.timestamp.astimezone(UTC).isoformat(timespec="milliseconds")
        entry = {
            "type": message["role"],
            "uuid": str(uuid),
            "parentUuid": self._parent,
            "sessionId": self._session_id,
            "timestamp": moment.replace("+00:00", "Z"),
            "isSidechain": False,
            "userType": "external",
            "message": _answer(uuid, message) if message["role"] == "assistant" else message,
        }
        return cast("SessionStoreEntry", entry)


def _uuid_of(event_id: str, number: int) -> UUID:
    """Return what names an entry, which is the same whenever the event is read."""
    if not number and len(event_id) == 32:
        try:
            return UUID(event_id)
        except ValueError:
            pass
    return uuid5(NAMESPACE_OID, f"agentsession:{number}:{event_id}")


def _answer(uuid: UUID, message: Mapping[str, Any]) -> dict[str, Any]:
    """Return an answer as the API gives one, since this is how transcripts hold answers.

    The name of the model is the one that the SDK gives to answers that no model has given.
    """
    content = message["content"]
    if isinstance(content, str):
        content = [{"type": "text", "text": content}]
    return {
        "id": f"msg_{uuid.hex}",
        "type": "message",
        "role": "assistant",
        "model": "<synthetic>",
        "content": content,
        "stop_reason": None,
        "stop_sequence": None,
        "usage": {"input_tokens": 0, "output_tokens": 0},
    }
