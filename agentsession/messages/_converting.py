"""What the conversions share: an event on its way out, and a message on its way in."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Final, NoReturn, cast

from agentsession.messages._converted import Converted, Loss

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from agentsession.events import Event, Part

__all__ = [
    "Incoming",
    "Outgoing",
    "is_array",
    "is_mapping",
    "items",
    "kind_of",
    "mapping",
    "plain",
    "read",
]


def is_mapping(value: object) -> bool:
    """Tell whether it is what JSON has as an object."""
    return isinstance(value, Mapping)


def mapping(value: object) -> Mapping[str, Any]:
    """Return what JSON has as an object; nothing for anything else."""
    return cast("Mapping[str, Any]", value) if is_mapping(value) else {}


def kind_of(value: object) -> str:
    """Return the type that a part or an item says it has; empty if it has none."""
    kind = mapping(value).get("type")
    return kind if isinstance(kind, str) else ""


def plain(value: object) -> Any:
    """Copy a value into dicts and lists of its own, and models of a package too."""
    dump = getattr(value, "model_dump", None)
    if callable(dump) and not isinstance(value, type):
        value = dump(mode="json", by_alias=True, exclude_unset=True)
    if is_mapping(value):
        return {name: plain(each) for name, each in mapping(value).items()}
    if isinstance(value, (list, tuple)):
        return [plain(each) for each in cast("Sequence[Any]", value)]
    return value


def is_array(value: object) -> bool:
    """Tell whether it is what JSON has as an array."""
    return isinstance(value, list)


def items(value: object) -> Sequence[Any]:
    """Return what JSON has as an array; nothing for anything else."""
    return cast("list[Any]", value) if is_array(value) else ()


_IDS: Final = frozenset({"id", "call_id", "tool_call_id", "role"})


class Outgoing:
    """An event on its way to messages.

    Args:
        event: The event.
        lost: Takes what cannot be said.
        format_key: The format's name, under which parts and events keep what is its own.

    Attributes:
        own: What the event keeps for this format alone.
        fields: Of it, the fields of the message that an event has no place for.
        number: The part that is being said.
    """

    def __init__(self, event: Event, lost: list[Loss], format_key: str) -> None:
        self.event = event
        self.number = 0
        self._lost = lost
        self._key = format_key
        self.own = mapping(event.metadata.get(format_key))
        self.fields = mapping(self.own.get("fields"))

    def own_of(self, part: Part) -> Mapping[str, Any]:
        """Return what a part keeps for this format alone."""
        return mapping(mapping(getattr(part, "provider_data", None)).get(self._key))

    def lose(self, why: str, place: str = "") -> None:
        """Note what cannot be said."""
        place = place or f"content[{self.number}]"
        self._lost.append(Loss(f"event {self.event.id!r}, {place}", why))

    def is_of_parts(self, call_id: str) -> bool:
        """Tell whether the result of a call was made of parts, and is no list of the tool's."""
        return call_id in items(self.own.get("parts"))

    def note_foreign(self, part: Part) -> None:
        """Note what a part keeps for other formats."""
        data = getattr(part, "provider_data", None)
        if data and mapping(data).keys() != {self._key}:
            self.lose("provider_data of another format has no form here")


class Incoming(ABC):
    """A message on its way to an event.

    Args:
        message: The message.
        number: Which one it is, for errors.
        tools: The names of the tools that were called before, by call id.
        agent: The author of what the assistant says.
    """

    def __init__(
        self, message: dict[str, Any], number: int, tools: Mapping[str, str], agent: str
    ) -> None:
        self.message = message
        self.tools = tools
        self.agent = agent
        self._number = number

    @abstractmethod
    def event(self) -> Event:
        """Make the event."""

    def field(self, name: str, *kinds: type, of: object = None) -> Any:
        """Return a field that has to be there, of one of these types."""
        owner = self.message if of is None else of
        if not is_mapping(owner):
            self.refuse(f"parts and calls are dicts, and one is a {type(owner).__name__}")
        value = mapping(owner).get(name)
        if not isinstance(value, kinds):
            wanted = " or ".join(kind.__name__ for kind in kinds)
            found = "is missing" if value is None else f"is of type {type(value).__name__}"
            self.refuse(f"{name} must be a {wanted}, and it {found}")
        if not value and name in _IDS:
            self.refuse(f"{name} must not be empty")
        return value

    def refuse(self, what: str) -> NoReturn:
        """Raise the error of a message that is wrong."""
        msg = f"messages[{self._number}]: {what}"
        raise ValueError(msg)


def read(
    kind: Callable[[dict[str, Any], int, Mapping[str, str], str], Incoming],
    messages: Iterable[object],
    agent: str,
) -> Converted[Event]:
    """Make events of messages, one of each.

    Raises:
        TypeError: A message is no dict and no model.
        ValueError: A message is wrong.
    """
    converted: Converted[Event] = Converted()
    tools: dict[str, str] = {}
    for number, message in enumerate(messages):
        event = kind(_as_dict(message, number), number, tools, agent).event()
        tools.update((call.call_id, call.name) for call in event.tool_calls)
        converted.append(event)
    return converted


def _as_dict(message: object, number: int) -> dict[str, Any]:
    """Return a message as a dict of its own, if it is one or a model of the provider's package.

    Raises:
        TypeError: It is neither.
        ValueError: It is nested too deep.
    """
    try:
        copied = plain(message)
    except RecursionError:
        msg = f"messages[{number}] is nested too deep, or holds itself"
        raise ValueError(msg) from None
    if not isinstance(copied, dict):
        msg = f"messages[{number}] must be a dict or a model, not {type(message).__qualname__}"
        raise TypeError(msg)
    return cast("dict[str, Any]", copied)
