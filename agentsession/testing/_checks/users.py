"""The users of an application, and all their sessions: found, in pages, and no others."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

from agentsession.sessions import SessionKey, UserKey
from agentsession.testing._checks.asserting import raises, say, swapped

if TYPE_CHECKING:
    from agentsession.backend import UserSlice
    from agentsession.service import SessionService
    from agentsession.testing._subject import Subject

_ODD = ("a", "b:c", "b%3Ac", "{d}", "*", "[e]", "é", "\U0001f642", "\x00", "near", "Z", "z" * 300)


async def _users(service: SessionService, app_name: str = "app", limit: int = 50) -> list[str]:
    """Read all pages, each as long as it has to be."""
    found: list[str] = []
    page = await service.list_users(app_name, limit=limit)
    while True:
        assert {user.app_name for user in page.users} <= {app_name}
        found += [user.user_id for user in page.users]
        if page.next_cursor is None:
            return found
        assert len(page.users) == limit
        page = await service.list_users(app_name, limit=limit, cursor=page.next_cursor)


async def _sessions(service: SessionService, app_name: str = "app", limit: int = 50) -> list[str]:
    found: list[str] = []
    page = await service.list_sessions(app_name, limit=limit)
    while True:
        found += [f"{session.user_id}/{session.id}" for session in page.sessions]
        if page.next_cursor is None:
            return found
        assert len(page.sessions) == limit
        page = await service.list_sessions(app_name, limit=limit, cursor=page.next_cursor)


async def check_users_are_listed_in_the_order_of_their_ids(subject: Subject) -> None:
    """Everybody who has a session is there once, whatever is in the ids, in pages of any size."""
    service = subject.service()
    assert await _users(service) == []
    for name in _ODD:
        await service.create_session(SessionKey("app", name, "s"))
        await service.get_or_create_session(SessionKey("app", name, "t"))
    for limit in (1, 5, len(_ODD), 1000):
        assert await _users(service, limit=limit) == sorted(_ODD)


async def check_state_makes_a_user(subject: Subject) -> None:
    """Whoever has state and no session is a user too, until the last name of it is deleted."""
    service = subject.service()
    user = UserKey("app", "u")
    await service.update_user_state(user, {"n": 1})
    assert await _users(service) == ["u"]
    await service.delete_user_state(user, "n")
    assert await _users(service) == []
    await service.update_app_state("app", {"n": 1})
    assert await _users(service) == []


async def check_users_are_their_applications_own(subject: Subject) -> None:
    """No application shows users of another one, however alike the names are."""
    service = subject.service()
    apps = ("app", "ap", "app:", "app*", "a?p", "{app}", "[app]", "app:user", "%61pp", "a\\pp")
    for name in apps:
        await service.create_session(SessionKey(name, f"of {name}", "s"))
    for name in apps:
        assert await _users(service, name) == [f"of {name}"]
        assert await _sessions(service, name) == [f"of {name}/s"]


async def check_who_is_gone_is_not_listed(subject: Subject) -> None:
    """Neither after the last session was deleted, nor after the user was; who comes again is."""
    service = subject.service()
    keys = [SessionKey("app", name, "s") for name in ("a", "b", "c")]
    for key in keys:
        await service.create_session(key, {"user:n": 1} if key.user_id == "c" else None)
    await service.delete_session(keys[0])
    await service.delete_user(keys[1].user)
    await service.delete_session(keys[2])
    assert await _users(service) == ["c"]
    await service.create_session(keys[1])
    assert await _users(service) == ["b", "c"]
    await service.delete_user(keys[2].user)
    assert await _users(service) == ["b"]


async def check_who_has_expired_is_not_listed(subject: Subject) -> None:
    """A user goes with the last of what is theirs, and the list with the last user."""
    service = subject.service(session_ttl=10000, user_state_ttl=20000)
    await service.create_session(SessionKey("app", "a", "s"))
    await service.create_session(SessionKey("app", "b", "s"), {"user:n": 1})
    await subject.advance(9000)
    assert await _users(service) == ["a", "b"]
    await service.append_event(SessionKey("app", "a", "s"), say("later"))
    await subject.advance(9000)
    assert await _users(service) == ["a", "b"]
    await subject.advance(1500)
    assert await _users(service) == ["b"]
    await subject.advance(1000)
    assert await _users(service) == []
    assert await subject.unexpiring() == []


async def check_who_goes_takes_nobody_along(subject: Subject) -> None:
    """Those who stay are listed still, though they were made longer ago than anything lives."""
    service = subject.service(session_ttl=100, user_state_ttl=100)
    for app in ("delete", "erase", "state"):
        stays, goes = SessionKey(app, "a", "s"), SessionKey(app, "b", "s")
        await service.create_session(stays)
        assert await _users(service, app) == ["a"]
        for _ in range(3):
            if app == "state":
                await service.update_user_state(goes.user, {"n": 1})
            else:
                await service.get_or_create_session(goes)
                await service.append_event(goes, say("x"))
            await subject.advance(60)
            await service.append_event(stays, say("x"))
        match app:
            case "delete":
                await service.delete_session(goes)
            case "erase":
                await service.delete_user(goes.user)
            case _:
                await service.delete_user_state(goes.user, "n")
        assert await _users(service, app) == ["a"]
        assert await _sessions(service, app) == ["a/s"]


async def check_all_sessions_of_an_application_are_listed(subject: Subject) -> None:
    """One user after the other, of each the newest activity first, in pages of any size."""
    service = subject.service()
    wanted: list[str] = []
    for user, count in (("a", 3), ("b", 1), ("c", 12), ("d", 1), ("e", 1), ("f", 5)):
        for n in range(count):
            await service.create_session(SessionKey("app", user, f"{n}"), {"n": n, "app:x": 1})
        wanted += [f"{user}/{n}" for n in reversed(range(count))]
    for limit in (1, 2, 7, len(wanted), 1000):
        assert await _sessions(service, limit=limit) == wanted
    page = await service.list_sessions("app", limit=2)
    assert page.sessions[0] == await service.get_session(SessionKey("app", "a", "2"))


async def check_sessions_are_found_among_many_without(subject: Subject) -> None:
    """Users who have state alone cost a page few reads, and hide nobody."""
    service = subject.service()
    reads: list[int] = []
    backend = service.backend

    async def list_users(*args: Any, _list: Any = backend.list_users) -> UserSlice:
        found: UserSlice = await _list(*args)
        reads.append(len(found.user_ids))
        return found

    names = [f"{n:03}" for n in range(300)]
    for name in names:
        await service.update_user_state(UserKey("app", name), {"n": 1})
    wanted: list[str] = []
    for name in ("000", "150", "298", "299"):
        for n in range(5):
            await service.create_session(SessionKey("app", name, str(n)))
        wanted += [f"{name}/{n}" for n in range(4, -1, -1)]
    for limit in (1, 3, 7, 50):
        assert await _sessions(service, limit=limit) == wanted
    with swapped(backend, "list_users", list_users):
        page = await service.list_sessions("app", limit=6)
    assert len(page.sessions) == 6
    assert len(reads) <= 6, reads


async def check_pages_of_an_application_stand_changes(subject: Subject) -> None:
    """Between two pages users and sessions go and come; all that stay are there once."""
    service = subject.service()
    for user in "bdf":
        for n in range(3):
            await service.create_session(SessionKey("app", user, f"{n}"))
    first = await service.list_sessions("app", limit=4)
    users = await service.list_users("app", limit=1)
    await service.delete_session(first.sessions[-1].key)
    await service.delete_session(SessionKey("app", "d", "1"))
    await service.create_session(SessionKey("app", "a", "s"))
    await service.create_session(SessionKey("app", "e", "s"))
    rest = await service.list_sessions("app", limit=100, cursor=first.next_cursor)
    assert [session.key.user_id + session.id for session in rest.sessions] == [
        *("d0", "es", "f2", "f1", "f0")
    ]
    assert users.next_cursor is not None
    more = await service.list_users("app", limit=100, cursor=users.next_cursor)
    assert [user.user_id for user in more.users] == ["d", "e", "f"]


async def check_users_who_come_at_once_are_all_listed(subject: Subject) -> None:
    """However many come at the same time, while others look, and some are deleted."""
    services = [subject.service(), subject.service()]
    names = [f"u{n:03}" for n in range(100)]

    async def come(n: int) -> None:
        await services[n % 2].create_session(SessionKey("app", names[n], "s"))
        if n % 10 == 0:
            await services[1 - n % 2].delete_user(UserKey("app", names[n]))
            await services[n % 2].create_session(SessionKey("app", names[n], "t"))
        await services[n % 2].list_users("app", limit=7)

    async with asyncio.TaskGroup() as group:
        for n in range(len(names)):
            group.create_task(come(n))
    assert await _users(services[0]) == names


async def check_a_cursor_of_another_list_is_refused(subject: Subject) -> None:
    """A page's cursor leads on in its own list only; and limits have bounds."""
    service = subject.service()
    for n in range(3):
        await service.create_session(SessionKey("app", f"u{n}", "s"))
        await service.create_session(SessionKey("app", "u0", f"t{n}"))
    of_users = (await service.list_users("app", limit=1)).next_cursor
    of_app = (await service.list_sessions("app", limit=1)).next_cursor
    of_user = (await service.list_sessions(UserKey("app", "u0"), limit=1)).next_cursor
    for cursor in (of_app, of_user, "", "x", "é"):
        with raises(ValueError):
            await service.list_users("app", cursor=cursor)
    for cursor in (of_users, of_user, "x"):
        with raises(ValueError):
            await service.list_sessions("app", cursor=cursor)
    for cursor in (of_users, of_app, "x"):
        with raises(ValueError):
            await service.list_sessions(UserKey("app", "u0"), cursor=cursor)
    for limit in (0, -1, 1001):
        with raises(ValueError):
            await service.list_users("app", limit=limit)
    with raises(ValueError):
        await service.list_users("")
