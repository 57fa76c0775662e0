"""See what happens: around every operation of a service, and on its connections.

An *observer* is an object with the two methods of :class:`Observer`. Give observers to a service
with ``observers=[...]``. Metrics, traces and audit logs are made with them::

    from collections.abc import Generator
    from contextlib import contextmanager
    from time import perf_counter

    from agentsession import InMemorySessionService
    from agentsession.observers import Lost, Notice, Observer, Operation

    class Meter(Observer):
        def __init__(self) -> None:
            self.seconds: dict[str, float] = {}
            self.lost = 0

        @contextmanager
        def on_operation(self, operation: Operation) -> Generator[None]:
            began = perf_counter()
            try:
                yield  # The operation runs here; its error, if any, is raised here.
            finally:
                took = perf_counter() - began
                self.seconds[operation.name] = self.seconds.get(operation.name, 0.0) + took

        def on_notice(self, notice: Notice) -> None:
            if isinstance(notice, Lost):
                self.lost += 1

    service = InMemorySessionService(observers=[Meter()])

A service without observers runs the same code as before: nothing is called, and nothing is checked.

Rules for observers:

- Their methods are plain functions, called on the event loop. They must return quickly and must not
  block, since everything else waits for them.
- An observer cannot break an operation. What it raises (an :exc:`Exception`) is logged to
  ``agentsession.observers`` and dropped. It cannot hide an operation's error either.
- Observers are entered in the order in which they were given, and left in the reverse order.

All notices are also logged, with :mod:`logging`, whether there are observers or not. The loggers
are ``agentsession.redis`` and ``agentsession.memory``:

======================= ======= ====================================================================
:class:`Connected`      INFO    a connection is open and ready
:class:`Retried`        INFO    calls whose reply was lost are sent again
:class:`SlotsMoved`     INFO    slots of a cluster have other owners now: a failover, or a move
:class:`PrimaryChanged` WARNING the sentinels name another primary: a failover
:class:`Lost`           WARNING a connection broke
:class:`GivenUp`        WARNING a connection was closed by this library, for instance since it hung
:class:`Unreachable`    WARNING a connection could not be made
:class:`Refused`        WARNING a server refuses to work: read-only, full, loading, wrong password
:class:`Swept`          DEBUG   expired sessions were removed from memory
======================= ======= ====================================================================

Notices of the same kind about the same server are logged once in five seconds; the next line says
how many there were in between. Observers get every one. Neither notices nor log lines hold events,
state, ids of users and sessions, or passwords. Nothing is logged instead of being raised: a call
that fails raises its error in any case.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol, runtime_checkable

from msgspec import Struct

from agentsession.sessions import SessionKey, UserKey

if TYPE_CHECKING:
    from contextlib import AbstractContextManager

__all__ = [
    "Connected",
    "GivenUp",
    "Lost",
    "Notice",
    "Observer",
    "Operation",
    "PrimaryChanged",
    "Refused",
    "Retried",
    "SlotsMoved",
    "Swept",
    "Unreachable",
]


class Operation(Struct, frozen=True, kw_only=True):
    """One call of a method of a service. Later versions may add fields.

    Attributes:
        name: The method: ``"append_event"``, ``"get_session"``, and so on; any public coroutine
            method of :class:`~agentsession.SessionService`, and ``"backup"`` of
            :class:`~agentsession.SQLiteSessionService`.
        subject: What the call is about: a session, a user, or the name of an application. ``None``
            for ``check``, ``backup`` and ``aclose``, and if the argument has a wrong type. It is as
            the caller gave it: the ``session_id`` of a session that is to be made may be empty.
    """

    name: str
    subject: SessionKey | UserKey | str | None = None


class Notice(Struct, frozen=True, kw_only=True):
    """The base of all that is told about connections and stores; ``str()`` gives its log line.

    Later versions may add kinds of notices, and fields.
    """


class Connected(Notice, frozen=True, kw_only=True):
    """A connection is open, and the server has accepted the credentials.

    On a cluster, this includes connections that only ask for its map.

    Attributes:
        server: ``host:port``, or the path of the server's socket.
    """

    server: str

    def __str__(self) -> str:
        return f"connected to {self.server}"


class Lost(Notice, frozen=True, kw_only=True):
    """The server or the network closed a connection, or what came over it could not be read.

    A new one is made as soon as there is something to send.

    Attributes:
        server: As for :class:`Connected`.
        reason: Why.
    """

    server: str
    reason: str

    def __str__(self) -> str:
        return f"lost the connection to {self.server}: {self.reason}"


class GivenUp(Notice, frozen=True, kw_only=True):
    """A connection was closed because it is of no more use; not told when a service is closed.

    It owed a reply and nothing arrived for a quarter of ``timeout``; or the server is no primary
    any more; or what it answered does not fit what it was asked. A new one is made as soon as there
    is something to send.

    Attributes:
        server: As for :class:`Connected`.
        reason: Why.
    """

    server: str
    reason: str

    def __str__(self) -> str:
        return f"gave up the connection to {self.server}: {self.reason}"


class Unreachable(Notice, frozen=True, kw_only=True):
    """An attempt to connect failed. Attempts go on while calls wait, each until its deadline.

    Attributes:
        server: As for :class:`Connected`; or, where the sentinels name no primary, the service that
            they were asked for.
        reason: Why.
    """

    server: str
    reason: str

    def __str__(self) -> str:
        return f"cannot connect to {self.server}: {self.reason}"


class Refused(Notice, frozen=True, kw_only=True):
    """A server refuses to do what it was asked, whatever that was.

    It is read-only, full or loading, lacks replicas, or denies this user a command or access.
    A refusal that may be over soon is repeated until the call's deadline; others are raised at
    once.

    Attributes:
        server: As for :class:`Connected`.
        code: The first word of its answer: ``"READONLY"``, ``"OOM"``, ``"NOPERM"``; empty if it
            gave none.
        reason: Its answer.
    """

    server: str
    code: str = ""
    reason: str

    def __str__(self) -> str:
        return f"{self.server} refuses: {self.reason}"


class Retried(Notice, frozen=True, kw_only=True):
    """Calls were sent on a connection that ended before it answered them; they are sent again.

    No call takes effect twice.

    Attributes:
        server: Where they were sent first; after a failover, they go elsewhere.
        calls: How many.
    """

    server: str
    calls: int

    def __str__(self) -> str:
        what = "1 call is" if self.calls == 1 else f"{self.calls} calls are"
        return f"{what} sent again, without a reply so far from {self.server}"


class PrimaryChanged(Notice, frozen=True, kw_only=True):
    """The sentinels name another primary than before: there was a failover.

    Attributes:
        service: The name under which the sentinels know the servers.
        server: The new primary, ``host:port``.
        was: The one before.
    """

    service: str
    server: str
    was: str

    def __str__(self) -> str:
        return f"the primary of {self.service!r} is {self.server} now; it was {self.was}"


class SlotsMoved(Notice, frozen=True, kw_only=True):
    """Slots of a cluster have other owners than before: there was a failover, or they were moved.

    Attributes:
        slots: How many, from 1 to 16,384.
        servers: Who owns them now, ``host:port`` each, sorted.
    """

    slots: int
    servers: tuple[str, ...]

    def __str__(self) -> str:
        what = "1 slot" if self.slots == 1 else f"{self.slots:,} slots"
        return f"{what} of the cluster moved to {', '.join(self.servers)}"


class Swept(Notice, frozen=True, kw_only=True):
    """Expired sessions were removed from memory; not told if there were none.

    Attributes:
        sessions: How many.
    """

    sessions: int

    def __str__(self) -> str:
        return f"removed {self.sessions:,} expired session{'' if self.sessions == 1 else 's'}"


@runtime_checkable
class Observer(Protocol):
    """What a service tells of its work. Subclass it to write only one of the methods.

    This module's docstring has the rules, and an example.
    """

    def on_operation(self, operation: Operation, /) -> AbstractContextManager[object] | None:  # noqa: ARG002 - this one observes nothing
        """Prepare to observe one operation, before it begins.

        The context manager is entered before the operation begins, and left when it has ended, both
        in the task of the caller. So a context variable that it sets, such as the current span of a
        trace, is set during the operation. Its ``__exit__`` gets the operation's error, or
        :exc:`asyncio.CancelledError` if the caller was cancelled; what it returns does not matter.

        Args:
            operation: What is about to begin.

        Returns:
            A context manager around the operation, or ``None`` not to observe this one.
        """
        return None

    def on_notice(self, notice: Notice, /) -> None:  # noqa: ARG002 - as above
        """Take note of what happened on a connection, or in the store.

        It is called in an empty context (:class:`contextvars.Context`), since a notice belongs to
        no call. Where services share a connection, by the name of an instance, the observers of
        each are told, an observer of several services once.

        Args:
            notice: What happened; look at its class.
        """
        return  # Without this, type checkers take the method for an abstract one.
