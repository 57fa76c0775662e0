"""What the conversions share: an event on its way out, and a message on its way in."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, NoReturn, cast

from agentsession.messages._converted import Loss

if TYPE_CHECKING:
    from collections.abc import Sequence

    from agentsession.events import Event, Part

__all__ = ["Incoming", "Outgoing", "as_dict", "is_mapping", "items", "mapping"]


def is_mapping(value: object) -> bool:
    """Tell whether it is what JSON has as an object."""
    return isinstance(value, Mapping)


def mapping(value: object) -> Mapping[str, Any]:
    """Return what JSON has as an object; nothing for anything else."""
    return cast("Mapping[str, Any]", value) if is_mapping(value) else {}


def items(value: object) -> Sequence[Any]:
    """Return what JSON has as an array; nothing for anything else."""
    is_list = isinstance(value, list)
    return cast("list[Any]", value) if is_list else ()


class Outgoing:
    """An event on its way to messages.

    Args:
        event: The event.
        lost: Takes what cannot be said.
        format_key: The format's name, under which parts and events keep what is its own.

    Attributes:
        own: What the event keeps for this format alone.
        number: The part that is being said.
    """

    def __init__(self, event: Event, lost: list[Loss], format_key: str) -> None:
        self.event = event
        self.number = 0
        self._lost = lost
        self._key = format_key
        self.own = mapping(event.metadata.get(format_key))

    def own_of(self, part: Part) -> Mapping[str, Any]:
        """Return what a part keeps for this format alone."""
        return mapping(mapping(getattr(part, "provider_data", None)).get(self._key))

    def lose(self, why: str, place: str = "") -> None:
        """Note what cannot be said."""
        place = place or f"content[{self.number}]"
        self._lost.append(Loss(f"event {self.event.id!r}, {place}", why))

    def note_foreign(self, part: Part) -> None:
        """Note what a part keeps for other formats."""
        data = getattr(part, "provider_data", None)
        if data is not None and mapping(data).keys() != {self._key}:
            self.lose("provider_data of another format has no form here")


class Incoming:
    """A message on its way to an event.

    Args:
        message: The message.
        number: Which one it is, for errors.
    """

    def __init__(self, message: Mapping[str, Any], number: int) -> None:
        self.message = message
        self._number = number

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
        return value

    def refuse(self, what: str) -> NoReturn:
        """Raise the error of a message that is wrong."""
        msg = f"messages[{self._number}]: {what}"
        raise ValueError(msg)


def as_dict(message: object, number: int) -> Mapping[str, Any]:
    """Return a message as a dict, if it is one or a model of the provider's package.

    Raises:
        TypeError: It is neither.
    """
    if is_mapping(message):
        return mapping(message)
    dump = getattr(message, "model_dump", None)
    if not callable(dump):
        msg = f"messages[{number}] must be a dict or a model, not {type(message).__qualname__}"
        raise TypeError(msg)
    return cast("Mapping[str, Any]", dump(exclude_none=True))
