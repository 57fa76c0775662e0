"""Events of the frameworks whose events hold Gemini contents: made into events, and of them."""

from __future__ import annotations

import hashlib
import logging
from collections import defaultdict, deque
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Final, Generic, Protocol, TypeVar

import msgspec
from pydantic import BaseModel, ValidationError
from pydantic_core import to_jsonable_python

from agentsession.adapters._items.originals import original_of, with_original
from agentsession.events import UNREADABLE, Event, EventError
from agentsession.messages._gemini import Heard, Said
from agentsession.state import DELETE, TEMP_PREFIX

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence

    from agentsession.adapters._sessions.logs import Awaitable
    from agentsession.messages import Loss
    from agentsession.sessions import Session, SessionKey

__all__ = [
    "FrameworkEvent",
    "Restorer",
    "another",
    "append_once",
    "framework_id",
    "holds",
    "json_safe",
    "moment",
    "to_event",
]

_logger = logging.getLogger("agentsession.adapters")

_LOST: Final = "agentsession_lost"
# Authors who are the same to every framework.
_SPEAKERS: Final = frozenset({"user", "system", "developer"})


class FrameworkEvent(Protocol):
    """What the events of these frameworks have in common."""

    @property
    def id(self) -> str: ...
    @property
    def author(self) -> str: ...
    @property
    def invocation_id(self) -> str: ...
    @property
    def branch(self) -> str | None: ...
    @property
    def timestamp(self) -> float: ...
    @property
    def content(self) -> Any: ...
    @property
    def actions(self) -> Any: ...
    @property
    def error_code(self) -> str | None: ...
    @property
    def error_message(self) -> str | None: ...
    @property
    def model_dump(self) -> Callable[..., dict[str, Any]]: ...


_E = TypeVar("_E", bound=BaseModel)


def json_safe(state: Mapping[str, Any]) -> dict[str, Any]:
    """Return a copy of state as JSON can hold it, without what lives in one object alone.

    What has no form in JSON becomes its ``repr``, and a warning says so.
    """
    kept = {name: each for name, each in state.items() if not name.startswith(TEMP_PREFIX)}
    if not kept:
        return kept
    safe: dict[str, Any] = to_jsonable_python(kept, fallback=_as_text)
    return safe


def _as_text(value: object) -> str:
    _logger.warning(
        "JSON cannot hold a %s; its repr is stored instead: %.200r", type(value).__qualname__, value
    )
    return repr(value)


def to_event(event: FrameworkEvent, framework: str, before: Iterable[FrameworkEvent] = ()) -> Event:
    """Make an event of a framework's.

    Args:
        event: The framework's event.
        framework: The name of the adapter's module.
        before: The events before it, in which calls without ids are looked for.

    Raises:
        ValueError: Something in it cannot be stored.
    """
    original = event.model_dump(
        mode="json",
        by_alias=True,
        exclude_none=True,  # Of fields; in arguments and in state a None is a value, and stays.
        exclude={"actions": {"state_delta"}},
        fallback=_as_text,
    )
    delta = json_safe(event.actions.state_delta)
    if delta:
        original.setdefault("actions", {})["stateDelta"] = delta
    heard = _heard(original.get("content"), event, before)
    made = Event(
        id=event.id,
        author=event.author or heard.author,
        invocation_id=event.invocation_id,
        branch=event.branch or "",
        timestamp=moment(event.timestamp),
        content=heard.content,
        state_delta=delta,
        metadata=heard.metadata,
        error=_error(event),
    )
    return with_original(made, framework, original)


def _heard(content: Any, event: FrameworkEvent, before: Iterable[FrameworkEvent]) -> Event:
    """Read a content; the calls of those before it, only if it answers one without an id."""
    if not content:
        return Event(author="agent")
    unnamed: defaultdict[str, deque[str]] = defaultdict(deque)
    if any(_lacks_id(part) for part in content.get("parts", ())):
        for other in before:
            if other.content is not None:
                dumped = other.content.model_dump(mode="json", by_alias=True, exclude_none=True)
                Heard(unnamed, dumped, 0, {}, "agent", other.id).event()
    return Heard(unnamed, content, 0, {}, "agent", event.id).event()


def _lacks_id(part: Mapping[str, Any]) -> bool:
    """Tell a result without an id."""
    return "functionResponse" in part and not part["functionResponse"].get("id")


def _error(event: FrameworkEvent) -> EventError | None:
    if not (event.error_code or event.error_message):
        return None
    code = event.error_code or ""
    return EventError(event.error_message or "", "" if code == UNREADABLE else code)


def moment(timestamp: float) -> datetime:
    """Return a time as events have it."""
    return datetime.fromtimestamp(timestamp, UTC)


def framework_id(event: Event, framework: str) -> str:
    """Return the id that an event has in the framework."""
    original = original_of(event, framework)
    return str(original["id"]) if original else event.id


def another(event: Event, framework: str) -> Event:
    """Return the event under an id of its own: the same for the same content."""
    original = msgspec.json.encode(original_of(event, framework), order="deterministic")
    digest = hashlib.sha256(original).hexdigest()[:32]
    return msgspec.structs.replace(event, id=f"{event.id}#{digest}")


async def append_once(
    service: Awaitable,
    session: Session | SessionKey,
    given: Event,
    framework: str,
    *,
    expected_revision: int | None = None,
) -> Event:
    """Store an event, under an id of its own if its id belongs to another one.

    Args:
        service: Where the session is.
        session: Which one it is.
        given: What :func:`to_event` has made.
        framework: The name of the adapter's module.
        expected_revision: As for ``append_event`` of the service, and so are the errors.

    Returns:
        The event as it is stored.
    """
    stored = await service.append_event(session, given, expected_revision=expected_revision)
    if original_of(stored, framework) != original_of(given, framework):
        other = another(given, framework)
        return await service.append_event(session, other, expected_revision=expected_revision)
    return stored


def holds(events: Sequence[FrameworkEvent], event: FrameworkEvent) -> bool:
    """Tell whether a session at hand has an event already."""
    wanted = event.id
    return event in [each for each in events if each.id == wanted]


class Restorer(Generic[_E]):
    """Makes a framework's events of stored ones, in their order.

    Args:
        framework: The name of the adapter's module.
        model: The framework's type of an event.
        agent: The author of what agents of other frameworks said; empty to leave it theirs.
        branch: The branch of what agents of other frameworks said, if they name none.
    """

    def __init__(self, framework: str, model: type[_E], agent: str, branch: str = "") -> None:
        self._framework = framework
        self._model = model
        self._agent = agent
        self._branch = branch
        self._tools: dict[str, str] = {}
        self._callers: dict[str, str] = {}

    def events(self, stored: Iterable[Event]) -> list[_E]:
        """Return the framework's events: its originals, and what is made of others' parts."""
        return [made for event in stored for made in self._events(event)]

    def _events(self, event: Event) -> Iterator[_E]:
        original = original_of(event, self._framework)
        if original is not None:
            try:
                found = self._model.model_validate(original)
            except ValidationError as exc:
                _logger.warning(
                    "event %.80r: this version of the framework cannot read its original, so it "
                    "is made of its parts: %s",
                    event.id,
                    exc,
                )
            else:
                self._remember(event)
                yield found
                return
        yield from self._made(event)

    def _remember(self, event: Event) -> None:
        """Keep in mind who calls what, for results that others have stored."""
        for call in () if isinstance(event.content, str) else event.tool_calls:
            self._tools[call.call_id] = call.name
            self._callers[call.call_id] = event.author

    def _made(self, event: Event) -> Iterator[_E]:
        """Make events of parts: one, or one for each role in which the API has them."""
        lost: list[Loss] = []
        said = Said(event, lost, self._tools)
        contents: Sequence[dict[str, Any] | None] = [*said.contents()] if event.content else []
        why = [f"{loss.where}: {loss.why}" for loss in lost if not loss.where.endswith(" author")]
        for number, content in enumerate(contents or [None]):
            first = number == 0
            yield self._event(event, number, content, event.state_delta if first else {}, why)

    def _event(
        self,
        event: Event,
        number: int,
        content: dict[str, Any] | None,
        delta: Mapping[str, Any],
        lost: list[str],
    ) -> _E:
        fields: dict[str, Any] = {
            "id": f"{event.id}.{number}" if number else event.id,
            "author": self._author(event, content),
            "invocationId": event.invocation_id,
            "branch": event.branch or ("" if event.author in _SPEAKERS else self._branch) or None,
            "timestamp": event.timestamp.timestamp(),
            "actions": {"stateDelta": _without_deletions(delta)},
        }
        if event.error is not None:
            fields["errorCode"] = event.error.type or "error"
            fields["errorMessage"] = event.error.message
        try:
            return self._validated(fields, content, lost)
        except ValidationError as exc:
            return self._validated(fields, None, [*lost, f"event {event.id!r}, content: {exc}"])

    def _validated(
        self, fields: Mapping[str, Any], content: dict[str, Any] | None, lost: list[str]
    ) -> _E:
        told = {"customMetadata": {_LOST: lost}} if lost else {}
        return self._model.model_validate({**fields, "content": content, **told})

    def _author(self, event: Event, content: dict[str, Any] | None) -> str:
        """Return who has said it: of a result, the agent whose call it answers."""
        if event.author in _SPEAKERS:
            return event.author
        author = self._agent or event.author
        for part in () if content is None else content.get("parts", ()):
            if call := part.get("functionCall"):
                self._callers[call.get("id", "")] = author
            if result := part.get("functionResponse"):
                return self._callers.get(result.get("id", ""), author)
        return author


def _without_deletions(delta: Mapping[str, Any]) -> dict[str, Any]:
    """Return changes to state as these frameworks have them, which delete nothing."""
    return {name: None if value is DELETE else value for name, value in delta.items()}
