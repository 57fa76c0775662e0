"""What handlers on sessions need, as dependencies: those of the router, and an application's."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Annotated, Any, Final, TypeAlias, cast

from fastapi import Depends, Header, Path, Query

from agentsession.clock import utc_now
from agentsession.fastapi._bodies import SessionId
from agentsession.runner import Runner
from agentsession.service import SessionService
from agentsession.sessions import Session, SessionKey, UserKey
from agentsession.subscriptions import Subscription, UserSubscription

__all__ = ["LARGEST", "Incarnation", "Partial", "SessionDependencies", "as_read"]

Dependency: TypeAlias = Callable[..., Any]

LARGEST: Final = 2**63 - 1
"""The largest position that a client may name."""


Incarnation: TypeAlias = Annotated[
    str,
    Query(
        max_length=100,
        description="Which session `after` belongs to, as the frame `following` has told it; one "
        "that was made anew under its id is not found then.",
    ),
]
Partial: TypeAlias = Annotated[bool, Query(description="Whether chunks are wanted.")]


class SessionDependencies:
    """Dependencies for handlers that work on the sessions of the user who asks.

    ::

        sessions = SessionDependencies(service, user=current_user)

        @app.post("/chats/{session_id}/title")
        async def title(key: Annotated[SessionKey, Depends(sessions.key)]) -> str: ...

    All have the user of the request, who comes from the application, and none takes a user from
    what the request says.

    Args:
        service: The service, or a dependency that returns it.
        user: A dependency that returns the :class:`~agentsession.UserKey` of whoever asks. It
            raises ``HTTPException`` where nobody is logged in.
        runner: A runner on that service, or a dependency that returns it.

    Attributes:
        service: A dependency that returns the service.
        user: A dependency that returns the user.
        runner: A dependency that returns the runner.
        key: A dependency that returns the :class:`~agentsession.SessionKey` of the path parameter
            ``session_id``.
        after_seq: A dependency that returns the position from which a client reads on: its header
            ``Last-Event-ID``, or else its query parameter ``after``; ``None`` if it names none.
        subscription: A dependency that follows that session from there.
        user_subscription: A dependency that follows all sessions of the user.

    Raises:
        TypeError: *service*, *user* or *runner* is neither what it should be nor callable; or the
            runner keeps its sessions elsewhere.
    """

    service: Dependency
    user: Dependency
    runner: Dependency | None
    key: Dependency
    after_seq: Dependency
    subscription: Dependency
    user_subscription: Dependency

    def __init__(
        self,
        service: SessionService | Callable[..., SessionService | Awaitable[SessionService]],
        *,
        user: Callable[..., UserKey | Awaitable[UserKey]],
        runner: Runner | Callable[..., Runner | Awaitable[Runner]] | None = None,
    ) -> None:
        self.service = _given("service", service, SessionService)
        self.user = _checked("user", _callable("user", user), UserKey)
        self.runner = None if runner is None else _runner_on(service, runner, self.service)
        self.key = _key_of(self.user)
        self.after_seq = _after_seq
        self.subscription = _subscription_of(self.service, self.key)
        self.user_subscription = _user_subscription_of(self.service, self.user)


def _given(name: str, given: Any, kind: type) -> Dependency:
    """Return a dependency that returns what was given, or what the one that was given returns."""
    if not isinstance(given, kind):
        return _checked(name, _callable(name, given, f" or {kind.__name__}"), kind)

    async def existing() -> Any:
        return given

    return existing


def _runner_on(service: object, given: object, services: Dependency) -> Dependency:
    """Return a dependency that returns the runner, which keeps its sessions where they are read."""
    if isinstance(service, SessionService) and isinstance(given, Runner):
        _check_store(given, service)
    runners = _given("runner", given, Runner)

    async def runner(
        *, runner: Runner = Depends(runners), service: SessionService = Depends(services)
    ) -> Runner:
        _check_store(runner, service)
        return runner

    return runner


def _check_store(runner: Runner, service: SessionService) -> None:
    """Refuse a runner whose sessions nobody would find; of two memories none has the other's."""
    here, there = service.backend, runner.session_service.backend
    if here is not there and (here.is_local or there.is_local):
        msg = (
            f"the runner keeps its sessions in {runner.session_service!r}, and requests are served "
            f"from {service!r}; give both the same one: Runner(app_name, agent, service)"
        )
        raise TypeError(msg)


def _checked(name: str, dependency: Dependency, kind: type) -> Dependency:
    """Return a dependency that sees to it that another one returns what it should."""

    async def checked(given: Any = Depends(dependency)) -> Any:
        if not isinstance(given, kind):
            msg = f"{name} must return a {kind.__name__}, and has returned {given!r:.80}"
            raise TypeError(msg)
        return given

    return checked


def _callable(name: str, given: Any, what: str = "") -> Dependency:
    if not callable(given) or (what and isinstance(given, type)):
        msg = f"{name} must be a dependency{what}, not {given!r:.80}"
        raise TypeError(msg)
    return cast("Dependency", given)


def _key_of(user: Dependency) -> Dependency:
    async def key(
        session_id: Annotated[SessionId, Path(min_length=1)], *, user: UserKey = Depends(user)
    ) -> SessionKey:
        return SessionKey(user.app_name, user.user_id, session_id)

    return key


async def _after_seq(
    last_event_id: Annotated[int | None, Header(ge=0, le=LARGEST)] = None,
    after: Annotated[
        int | None,
        Query(ge=0, le=LARGEST, description="A position; `Last-Event-ID` goes before it."),
    ] = None,
) -> int | None:
    # A browser that connects anew sends both: the address that it has had, and where it is now.
    return after if last_event_id is None else last_event_id


def _subscription_of(service: Dependency, key: Dependency) -> Dependency:
    async def subscription(
        *,
        incarnation: Incarnation = "",
        partial: Partial = True,
        service: SessionService = Depends(service),
        key: SessionKey = Depends(key),
        after_seq: int | None = Depends(_after_seq),
    ) -> AsyncIterator[Subscription]:
        wanted = as_read(key, incarnation)
        async with service.subscribe(wanted, after_seq=after_seq, partial=partial) as followed:
            yield followed

    return subscription


def as_read(key: SessionKey, incarnation: str) -> Session | SessionKey:
    """Return the very session that a client has read, or whichever has the key."""
    if not incarnation:
        return key
    now = utc_now()
    return Session(key=key, created_at=now, updated_at=now, revision=0, incarnation=incarnation)


def _user_subscription_of(service: Dependency, user: Dependency) -> Dependency:
    async def user_subscription(
        *, service: SessionService = Depends(service), user: UserKey = Depends(user)
    ) -> AsyncIterator[UserSubscription]:
        async with service.subscribe_user(user) as followed:
            yield followed

    return user_subscription
