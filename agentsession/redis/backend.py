"""A backend on Redis or Valkey: one script an operation, so that each is one step."""

from __future__ import annotations

import itertools
from contextlib import suppress
from typing import TYPE_CHECKING, Any, Final

from redis.exceptions import NoPermissionError, RedisError

from agentsession._wording import described_app
from agentsession.backend import (
    NO_EVENTS,
    REMEMBERED_IDS,
    Backend,
    Entry,
    EventSlice,
    Position,
    ReadLimit,
    Receipt,
    SessionSlice,
    Snapshot,
    Window,
)
from agentsession.clock import system_clock
from agentsession.errors import (
    AgentSessionError,
    BackendError,
    CodecError,
    RevisionConflictError,
    SessionExistsError,
    SessionNotFoundError,
)
from agentsession.events import new_id
from agentsession.redis.arguments import (
    change_triples,
    flat,
    limit_args,
    scope_triples,
    window_args,
)
from agentsession.redis.diagnosis import diagnosed, scripts_refused
from agentsession.redis.failures import Subject, translated
from agentsession.redis.keys import Keyspace
from agentsession.redis.link import NoReplyError, NotAcknowledgedError, NotSentError
from agentsession.redis.replies import (
    check_ours,
    check_size,
    pairs,
    read_count,
    read_names,
    read_snapshot,
    read_summary,
    read_text,
)
from agentsession.redis.scripts import Script, load
from agentsession.sessions import SessionKey, UnreadableSession, UserKey

if TYPE_CHECKING:
    from collections.abc import Sequence

    from agentsession.concerns import Concern
    from agentsession.redis.link import Argument, Link
    from agentsession.retention import Retention
    from agentsession.state import Changes, ScopeChanges

__all__ = ["RedisBackend"]

_APPEND: Final = load("append", writes=True)
_CHECK: Final = load("check", writes=False)
_CREATE: Final = load("create", writes=True)
_DELETE: Final = load("delete", writes=True)
_GET: Final = load("get", writes=False)
_GET_SCOPE: Final = load("get_scope", writes=False)
_LIST: Final = load("list", writes=False)
_LOCATE: Final = load("locate", writes=False)
_PRUNE: Final = load("prune", writes=False)
_READ: Final = load("read", writes=False)
_SUMMARIES: Final = load("summaries", writes=False)
_UPDATE_SCOPE: Final = load("update_scope", writes=True)

_FOREIGN_REPLY: Final = "the reply answers another call; see what stands before the server"

_DELETED_AT_ONCE: Final = 100

# How long a call is remembered, as in lib/once.lua, in milliseconds.
_LATELY: Final = 600_000


class RedisBackend(Backend):
    """A :class:`~agentsession.backend.Backend` on Redis 6.2 or newer, or Valkey.

    :mod:`agentsession.redis.keys` says what it holds there.

    Args:
        retention: What to keep and for how long.
        link: Runs the scripts; closed with the backend.
        key_prefix: Stands in front of every key.
    """

    def __init__(self, retention: Retention, link: Link, *, key_prefix: str = "") -> None:
        super().__init__(retention)
        self._link = link
        self._keyspace = Keyspace(key_prefix)
        self._calls = itertools.count(1)
        self._refresh = "1" if retention.refresh_on_read else ""
        self._lives = (retention.session_ttl, retention.user_state_ttl, retention.app_state_ttl)
        limit = retention.event_limit
        self._trims = (-limit - 1, -limit - REMEMBERED_IDS - 1) if limit else ("", "")

    def __repr__(self) -> str:
        return f"<{type(self).__name__} prefix={self._keyspace.prefix!r} {self._link!r}>"

    async def aclose(self) -> None:
        await self._link.aclose()

    # -- sessions

    async def create(self, key: SessionKey, changes: Changes, *, token: str) -> Snapshot:
        _, snapshot = await self._open(key, changes, NO_EVENTS, token=token, take=False)
        return snapshot

    async def get_or_create(self, key: SessionKey, changes: Changes, window: Window) -> Snapshot:
        while True:
            # Not found means: made by a first attempt whose reply was lost, and deleted since then.
            with suppress(SessionNotFoundError):
                _, snapshot = await self._open(key, changes, window, token=new_id(), take=True)
                return snapshot

    async def _open(
        self, key: SessionKey, changes: Changes, window: Window, *, token: str, take: bool
    ) -> tuple[bool, Snapshot]:
        """Make a session, or take one that is there; tell whether this call has made it.

        Raises:
            SessionNotFoundError: This call has made it, and somebody has deleted it since.
        """
        names = self._keyspace.session(key)
        reply = await self._run(
            key,
            _CREATE,
            [*names.own, names.index, names.user, names.calls, *self._app_keys(key.app_name)],
            [
                token,
                "1" if take else "",
                key.session_id,
                *self._lives,
                self._refresh,
                *window_args(window),
                *(limit_args(window.read_limit, window.last) or ("", "")),
                *flat(change_triples(changes)),
            ],
        )
        if reply[1] == b"exists":
            raise SessionExistsError(key)
        if reply[1] == b"gone":
            raise SessionNotFoundError(key)
        check_ours(key, reply)
        check_size(key, reply, window.read_limit)
        if reply[3]:
            # Housekeeping must not make an error of a session that was made; a later creation
            # prunes what this one could not.
            with suppress(AgentSessionError):
                await self._prune(key.user, reply[3])
        return reply[1] == b"created", read_snapshot(key, reply[2])

    async def get(self, key: SessionKey, window: Window) -> Snapshot | None:
        reply = await self._run(
            key,
            _GET,
            self._keys(key),
            [
                *window_args(window),
                self._refresh,
                *self._lives,
                *limit_args(window.read_limit, window.last),
            ],
        )
        if reply[1] == b"missing":
            return None
        check_size(key, reply, window.read_limit)
        return read_snapshot(key, reply[2])

    async def list_sessions(
        self, user: UserKey, limit: int, before: Position | None
    ) -> SessionSlice:
        found: list[Snapshot | UnreadableSession] = []
        end: Position | None = None
        while len(found) <= limit:
            # One more than asked for tells whether the list goes on.
            wanted = limit + 1 - len(found)
            positions = await self._positions(user, wanted, before)
            for position, summary in zip(
                positions, await self._summaries(user, positions), strict=True
            ):
                before = position
                if summary is not None:
                    found.append(summary)
                    if len(found) == limit:
                        end = position
            if len(positions) < wanted:
                break
        page = found[:limit]
        return SessionSlice(
            [each for each in page if isinstance(each, Snapshot)],
            end if len(found) > limit else None,
            [each for each in page if isinstance(each, UnreadableSession)],
        )

    async def _positions(
        self, user: UserKey, wanted: int, before: Position | None
    ) -> list[Position]:
        """Read a run of the index; entries of equal score are in the order of their ids' bytes."""
        extra = 1
        while True:
            highest: Argument = "+inf" if before is None else before.updated
            reply = await self._run(
                user, _LIST, [self._keyspace.index(user)], [highest, wanted + extra]
            )
            flat = reply[2]
            positions = [
                Position(read_count(user, "an activity", score), read_text(user, name))
                for name, score in zip(flat[::2], flat[1::2], strict=True)
            ]
            complete = len(positions) < wanted + extra
            if before is not None:
                limit = (before.updated, before.session_id.encode())
                positions = [
                    place
                    for place in positions
                    if (place.updated, place.session_id.encode()) < limit
                ]
            if complete or len(positions) >= wanted:
                return positions[:wanted]
            extra *= 4  # Many sessions were active in the same microsecond.

    async def _summaries(
        self, user: UserKey, positions: Sequence[Position]
    ) -> list[Snapshot | UnreadableSession | None]:
        """Read the sessions at these positions; ``None`` for one that has expired."""
        if not positions:
            return []
        keys = [SessionKey(user.app_name, user.user_id, place.session_id) for place in positions]
        names = [self._keyspace.index(user), self._keyspace.user(user)]
        names += [self._keyspace.session(key).session for key in keys]
        names += self._app_keys(user.app_name)
        reply = await self._run(user, _SUMMARIES, names, [place.session_id for place in positions])
        _, _, user_fields, app_fields, sessions = reply
        return [
            read_summary(key, fields, user_fields, app_fields)
            for key, fields in zip(keys, sessions, strict=True)
        ]

    async def _prune(self, user: UserKey, session_ids: Sequence[bytes]) -> None:
        ids = [read_text(user, session_id) for session_id in session_ids]
        names = [
            self._keyspace.session(SessionKey(user.app_name, user.user_id, each)).session
            for each in ids
        ]
        await self._run(user, _PRUNE, [self._keyspace.index(user), *names], ids)

    async def delete(self, key: SessionKey) -> None:
        names = self._keyspace.session(key)
        await self._run(
            key, _DELETE, [names.index, names.calls, *names.own], [new_id(), key.session_id]
        )

    async def delete_user(self, user: UserKey) -> None:
        index, calls = self._keyspace.index(user), self._keyspace.user_calls(user)
        while positions := await self._positions(user, _DELETED_AT_ONCE, None):
            ids = [place.session_id for place in positions]
            keys = [
                self._keyspace.session(SessionKey(user.app_name, user.user_id, each))
                for each in ids
            ]
            names = itertools.chain.from_iterable(key.own for key in keys)
            await self._run(user, _DELETE, [index, calls, *names], [new_id(), *ids])
        # The last call takes along what is remembered of calls, and so cannot be among them.
        await self._run(user, _DELETE, [index, calls, self._keyspace.user(user), calls], [""])

    # -- the log

    async def append(
        self, key: SessionKey, entries: Sequence[Entry], *, expected_revision: int | None = None
    ) -> Receipt:
        args: list[Argument] = [0]
        touched: set[str] = set()
        for entry in entries:
            triples = change_triples(entry.changes)
            touched.update(target.lower() for target, _, _ in triples)
            args += (entry.event_id, entry.time, entry.payload, len(triples))
            args += flat(triples)
        return await self._write(key, expected_revision, touched, args)

    async def update_state(self, key: SessionKey, changes: Changes) -> Receipt:
        return await self._update(key, change_triples(changes))

    async def _update(self, key: SessionKey, triples: list[tuple[str, str, bytes]]) -> Receipt:
        touched = {target.lower() for target, _, _ in triples}
        if not triples:
            return await self._write(key, None, touched, [0])
        calls = self._keyspace.session(key).calls
        args = [len(triples), new_id(), *flat(triples)]
        return await self._write(key, None, touched, args, calls)

    async def _write(
        self,
        key: SessionKey,
        expected_revision: int | None,
        touched: set[str],
        args: Sequence[Argument],
        *calls: str,
    ) -> Receipt:
        names = self._keyspace.session(key)
        keys = [names.session, names.events, names.ids, names.index, *calls]
        scopes = ""
        if "u" in touched:
            keys.append(names.user)
            scopes += "u"
        if "a" in touched:
            keys += self._app_keys(key.app_name)
            scopes += "a"
        reply = await self._run(
            key,
            _APPEND,
            keys,
            [
                "" if expected_revision is None else expected_revision,
                *self._trims,
                *self._lives,
                key.session_id,
                scopes,
                *args,
            ],
        )
        if reply[1] == b"missing":
            raise SessionNotFoundError(key)
        if reply[1] == b"conflict":
            raise RevisionConflictError(key, expected_revision or 0, reply[2])
        check_ours(key, reply)
        return Receipt(reply[6:], *reply[2:6])

    async def read(
        self,
        key: SessionKey,
        *,
        after_seq: int,
        before_seq: int | None,
        limit: int,
        newest_first: bool,
        read_limit: ReadLimit | None = None,
    ) -> EventSlice:
        names = self._keyspace.session(key)
        reply = await self._run(
            key,
            _READ,
            [names.session, names.events, names.ids, names.index],
            [
                after_seq,
                "" if before_seq is None else before_seq,
                limit,
                "1" if newest_first else "",
                self._refresh,
                self.retention.session_ttl,
                *limit_args(read_limit, limit),
            ],
        )
        if reply[1] == b"missing":
            raise SessionNotFoundError(key)
        check_ours(key, reply)
        check_size(key, reply, read_limit)
        return EventSlice(reply[2], reply[3])

    async def locate(self, key: SessionKey, event_id: str) -> int | None:
        names = self._keyspace.session(key)
        reply = await self._run(key, _LOCATE, names.own, [event_id])
        if reply[1] == b"missing":
            raise SessionNotFoundError(key)
        check_ours(key, reply)
        return reply[2] if reply[1] == b"found" else None

    # -- state

    async def update_app_state(self, app_name: str, changes: ScopeChanges) -> None:
        await self._update_scope(
            described_app(app_name),
            [self._keyspace.app(app_name), self._keyspace.app_calls(app_name)],
            changes,
            self.retention.app_state_ttl,
        )

    async def update_user_state(self, user: UserKey, changes: ScopeChanges) -> None:
        await self._update_scope(
            user,
            [self._keyspace.user(user), self._keyspace.user_calls(user)],
            changes,
            self.retention.user_state_ttl,
        )

    async def _update_scope(
        self,
        subject: Subject,
        keys: Sequence[str],
        changes: ScopeChanges,
        ttl: int,
        *,
        call: str | None = None,
        remembered: int = _LATELY,
    ) -> None:
        """Change a scope, unless a call of this name has; one without a name gets its own."""
        args = [ttl, call or new_id(), remembered, *flat(scope_triples("s", "", changes))]
        await self._run(subject, _UPDATE_SCOPE, keys, args)

    async def get_app_state(self, app_name: str) -> dict[str, bytes]:
        return await self._get_scope(
            described_app(app_name),
            self._keyspace.app(app_name),
            self._refresh,
            self.retention.app_state_ttl,
        )

    async def get_user_state(self, user: UserKey) -> dict[str, bytes]:
        return await self._get_scope(
            user, self._keyspace.user(user), self._refresh, self.retention.user_state_ttl
        )

    async def _get_scope(
        self, subject: Subject, name: str, refresh: str, ttl: int
    ) -> dict[str, bytes]:
        reply = await self._run(subject, _GET_SCOPE, [name], [refresh, ttl])
        return read_names(subject, pairs(reply[2]))

    # -- what endangers it

    async def check(self) -> list[Concern]:
        sent = system_clock()
        try:
            reply = await self._run("check()", _CHECK, self._keyspace.scratch(new_id()), [])
        except BackendError as exc:
            why = exc.__cause__
            if isinstance(why, NoPermissionError) or "unknown command" in str(why):
                return [scripts_refused(why)]
            raise
        return diagnosed(reply, self.retention, sent, system_clock())

    # -- how it travels

    async def _run(
        self, subject: Subject, script: Script, keys: Sequence[str], args: Sequence[Argument]
    ) -> Any:
        """Run a script, word its failure, and check that the reply answers this very call."""
        echo = b"%d" % next(self._calls)
        try:
            reply = await self._link.run(script, keys, [echo, *args])
        except (NotSentError, NoReplyError, NotAcknowledgedError, RedisError) as exc:
            error = translated(exc, subject, script.name, writes=script.writes)
            raise error from error.__cause__
        if reply[0] != echo:
            raise CodecError(subject, _FOREIGN_REPLY)
        return reply

    def _keys(self, key: SessionKey) -> list[str]:
        """Return the keys of a session with its scopes."""
        names = self._keyspace.session(key)
        own = [names.session, names.events, names.ids, names.index, names.user]
        return own + self._app_keys(key.app_name)

    def _app_keys(self, app_name: str) -> list[str]:
        """Return the key of the application's state, as far as a session's script may touch it."""
        return [self._keyspace.app(app_name)]
