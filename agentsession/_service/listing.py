"""Pages of sessions: of one user, and of all users of an application."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from agentsession._concurrently import concurrently
from agentsession._pace import Pace
from agentsession._service.arguments import AppPosition
from agentsession._service.assembly import assemble
from agentsession.backend import SessionSlice
from agentsession.errors import CodecError
from agentsession.sessions import Session, SessionKey, UnreadableSession, UserKey

if TYPE_CHECKING:
    from agentsession.backend import Backend, Position

__all__ = ["Found", "sessions_of_app", "sessions_of_user"]

# So many users are asked for their sessions at the same time, each for as many as the page lacks:
# what is read beyond the page is at most seven times as much. While they have none, more are asked
# each time, up to the second figure, each for fewer.
_AT_ONCE: Final = 8
_MOST_AT_ONCE: Final = 512


class Found:
    """The sessions of a page, as they are found.

    Attributes:
        sessions: Those that can be read.
        unreadable: The others.
    """

    def __init__(self) -> None:
        self.sessions: list[Session] = []
        self.unreadable: list[UnreadableSession] = []
        self._pace = Pace()

    def __len__(self) -> int:
        return len(self.sessions) + len(self.unreadable)

    async def add(self, user: UserKey, found: SessionSlice, *, among_others: bool = False) -> None:
        """Take what a backend has found of a user.

        Args:
            user: The user.
            found: What was found.
            among_others: Whether other users are on the page, whom nothing of this one may hide.

        Raises:
            CodecError: State of the application cannot be read, or of the user, who is the only
                one.
        """
        self.unreadable += found.unreadable
        for snapshot in found.sessions:
            if self._pace.due():
                await self._pace.rest()
            key = SessionKey(user.app_name, user.user_id, snapshot.session_id)
            try:
                self.sessions.append(await assemble(key, snapshot, self._pace))
            except CodecError as exc:
                if exc.subject != key and not (among_others and exc.subject == user):
                    raise  # It is in what all of them share.
                self.unreadable.append(UnreadableSession(key=key, reason=exc.reason))


async def sessions_of_user(
    backend: Backend, user: UserKey, limit: int, before: Position | None
) -> tuple[Found, Position | None]:
    """Read up to *limit* of a user's sessions, and where to go on."""
    found = Found()
    run = await backend.list_sessions(user, limit, before)
    await found.add(user, run)
    return found, run.next


async def sessions_of_app(
    backend: Backend, app_name: str, limit: int, after: AppPosition | None
) -> tuple[Found, AppPosition | None]:
    """Read up to *limit* sessions of an application, and where to go on.

    Users come in the order of their ids, and of each the session with the newest activity first.
    """
    found, at = Found(), after or AppPosition("", None)
    at_once = min(limit, _AT_ONCE)
    while len(found) < limit:
        before = len(found)
        if at.place:
            wanted = [at]
        else:
            users = await backend.list_users(app_name, at_once, at.user_id)
            wanted = [AppPosition(user_id, None) for user_id in users.user_ids]
        if not wanted:
            return found, None
        keys = [UserKey(app_name, each.user_id) for each in wanted]
        room = limit - before
        share = min(room, max(1, room * _AT_ONCE // len(wanted)))
        runs = await concurrently(
            _list(backend, key, share, each.place) for key, each in zip(keys, wanted, strict=True)
        )
        for key, each, run in zip(keys, wanted, runs, strict=True):
            at = await _add(backend, found, key, each, run, limit)
            if at.place or len(found) == limit:
                break
        at_once = min(4 * at_once, _MOST_AT_ONCE) if len(found) == before else _AT_ONCE
    goes_on = at.place or (await backend.list_users(app_name, 1, at.user_id)).user_ids
    return found, at if goes_on else None


async def _add(
    backend: Backend,
    found: Found,
    user: UserKey,
    start: AppPosition,
    run: SessionSlice,
    limit: int,
) -> AppPosition:
    """Add a user's sessions to a page, as many as there is room for; return where it ends."""
    room = limit - len(found)
    if len(run.sessions) + len(run.unreadable) > room:
        run = await _list(backend, user, room, start.place)
    await found.add(user, run, among_others=True)
    return AppPosition(user.user_id, run.next)


async def _list(
    backend: Backend, user: UserKey, limit: int, before: Position | None
) -> SessionSlice:
    """Read sessions of a user; if none can be, one that has no id stands for them."""
    try:
        return await backend.list_sessions(user, limit, before)
    except CodecError as exc:
        if exc.subject != user:
            raise
        all_of_them = SessionKey(user.app_name, user.user_id)
        return SessionSlice((), None, [UnreadableSession(key=all_of_them, reason=exc.reason)])
