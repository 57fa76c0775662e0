"""A session of tRPC-Agent that can tell what its holder has changed."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from msgspec import Struct, field
from pydantic import PrivateAttr
from trpc_agent_sdk.events import Event
from trpc_agent_sdk.sessions import Session

from agentsession.adapters._items.gemini import json_safe
from agentsession.state import APP_PREFIX, DELETE, TEMP_PREFIX, USER_PREFIX

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

__all__ = [
    "COUNT",
    "HISTORICAL",
    "NAMES",
    "LoadedSession",
    "Memory",
    "memory_of",
    "own_state",
]

COUNT: Final = "trpc_agent:conversation_count"
"""The name in state of how many conversations a session has had."""

HISTORICAL: Final = "trpc_agent:historical_events"
"""The name in state of where the historical events of a session are."""

NAMES: Final = (COUNT, HISTORICAL)
"""Names in a session's state for what a session of the framework has besides."""

_SHARED: Final = (APP_PREFIX, USER_PREFIX, TEMP_PREFIX)


class Memory(Struct, kw_only=True):
    """What the holder of a session knows of what is stored.

    Attributes:
        incarnation: Which of the sessions that had its id it is; empty if it may be any.
        known: The ids of the events, those that are not there any more too; ``None`` for all.
        gone: The ids of events that its holder has taken away.
        state: Its own state; ``None`` for whatever is stored.
        count: The number of its conversations.
        asked: The last event if it calls tools, and how many: the framework takes them out if its
            run is cancelled.
    """

    incarnation: str = ""
    known: set[str] | None = None
    gone: set[str] = field(default_factory=set[str])
    state: dict[str, Any] | None = None
    count: int = 0
    asked: tuple[Event, int] | None = None

    @property
    def ids(self) -> set[str]:
        """The ids of all events that were stored, as far as their holder knows."""
        return self.gone | (self.known or set())

    def learn(self, session: Session, incarnation: str) -> None:
        """Take what a session holds for what is stored."""
        self.incarnation = incarnation
        before = self.known or set()
        self.known = {event.id for event in (*session.events, *session.historical_events)}
        self.gone |= before - self.known
        self.state = own_state(json_safe(session.state))
        self.count = session.conversation_count

    def learn_event(self, event: Event, count: int) -> None:
        """Take an event for stored, with its changes to state and the number of conversations."""
        self.count = count
        if self.known is not None:
            self.known.add(event.id)
        if event.actions.state_delta:
            self.learn_state(json_safe(event.actions.state_delta))
        calls = event.get_function_calls()
        self.asked = (event, len(calls)) if calls else None

    def learn_state(self, delta: Mapping[str, Any]) -> None:
        """Take changes to state for stored, which are of nobody else: not those of a session."""
        if self.state is not None:
            self.state |= own_state(delta)

    def forget(self, session: Session, events: Sequence[Event]) -> None:
        """Take it that a limit has left events out, so that their holder did not."""
        if events and self.known is not None:
            kept = {event.id for event in session.historical_events}
            self.known -= {event.id for event in events} - kept

    def may_hold(self, event: Event) -> bool:
        """Tell whether a session may hold an event already."""
        return self.known is None or event.id in self.known

    def lacks_calls(self) -> bool:
        """Tell whether calls were taken out of the last event since it was stored."""
        return self.asked is not None and len(self.asked[0].get_function_calls()) < self.asked[1]

    def changes(self, session: Session, stored: Mapping[str, Any]) -> dict[str, Any]:
        """Return what a session's holder has changed in its state, as far as the store differs."""
        wanted = own_state(json_safe(session.state))
        known = stored if self.state is None else self.state
        changed = {
            name: each
            for name, each in wanted.items()
            if not (_has(known, name, each) or _has(stored, name, each))
        }
        gone = {name: DELETE for name in known if name not in wanted and name in stored}
        return {**changed, **gone}


class LoadedSession(Session):  # type: ignore[misc]  # the framework ships no types
    """A session that remembers what was stored when it was loaded."""

    _memory: Memory = PrivateAttr(default_factory=Memory)

    @property
    def memory(self) -> Memory:
        """What its holder knows of what is stored."""
        return self._memory


def memory_of(session: object) -> Memory:
    """Return what a session's holder knows of what is stored: nothing, if it was made by hand."""
    return session.memory if isinstance(session, LoadedSession) else Memory()


def own_state(state: Mapping[str, Any]) -> dict[str, Any]:
    """Return the state that belongs to the session alone."""
    return {
        name: each
        for name, each in state.items()
        if not name.startswith(_SHARED) and name not in NAMES
    }


def _has(state: Mapping[str, Any], name: str, value: object) -> bool:
    return name in state and state[name] == value
