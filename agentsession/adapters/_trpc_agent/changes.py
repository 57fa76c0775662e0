"""What became of a log in the hands of whoever had loaded it, and what of others' events stays."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Generic, TypeVar

from msgspec import Struct

from agentsession.events import Event

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Iterator, Sequence

__all__ = ["Piece", "merged", "runs_of", "unchanged"]

_E = TypeVar("_E")


class Piece(Struct, Generic[_E], frozen=True):
    """A stored event, and what the framework has of it.

    Attributes:
        event: The stored one.
        made: The framework's events; several for an event of another framework, and none for one
            that the framework does not show.
    """

    event: Event
    made: list[_E]


def merged(
    stored: Sequence[Piece[_E]], wanted: Sequence[_E], known: Collection[str] | None
) -> list[Piece[_E] | _E]:
    """Return a log as somebody wants it, with what others have added since they loaded it.

    Args:
        stored: What is stored.
        wanted: What is to take the place of what they know.
        known: The ids of the events that they know; ``None`` if they know all.

    Returns:
        The pieces that stay, and the events that are new or were changed. What they do not know
        stays before the piece that it is before; what is older than all they know is first.
    """
    kept = list(_kept(stored, wanted))
    staying = {id(each) for each in kept}
    first: list[Piece[_E] | _E] = []
    before: dict[int, list[Piece[_E]]] = {}
    waiting: list[Piece[_E]] = []
    has_begun = False
    for piece in stored:
        if id(piece) in staying:
            before[id(piece)], waiting = waiting, []
            has_begun = True
        elif known is None or any(_id(each) in known for each in piece.made):
            has_begun = True
        elif has_begun:
            waiting.append(piece)
        else:
            first.append(piece)
    for each in kept:
        first += before.get(id(each), ())
        first.append(each)
    return [*first, *waiting]


def _kept(stored: Sequence[Piece[_E]], wanted: Sequence[_E]) -> Iterator[Piece[_E] | _E]:
    """Yield the pieces that are wanted as they are, and what else is wanted."""
    places: dict[str, list[Piece[_E]]] = {}
    for piece in stored:
        if piece.made:
            places.setdefault(_id(piece.made[0]), []).append(piece)
    number, last = 0, 0
    while number < len(wanted):
        found = _next(places.get(_id(wanted[number]), []), wanted[number:], last)
        if found is None:
            yield wanted[number]
            number += 1
        else:
            yield found
            number, last = number + len(found.made), found.event.seq


def _next(pieces: list[Piece[_E]], wanted: Sequence[_E], last: int) -> Piece[_E] | None:
    """Return the piece that begins here, unless it would have to move."""
    for piece in pieces:
        if piece.event.seq > last and list(wanted[: len(piece.made)]) == piece.made:
            return piece
    return None


def _id(event: Any) -> str:
    found: str = event.id
    return found


def unchanged(stored: Sequence[Piece[_E]], wanted: Sequence[Piece[_E] | _E]) -> int:
    """Return how many events at the beginning of a log can stay where they are."""
    number = 0
    for piece, each in zip(stored, wanted, strict=False):
        if piece is not each:
            break
        number += 1
    return number


def runs_of(places: Iterable[int]) -> list[list[int]]:
    """Write positions as runs, each as its first and its last one."""
    runs: list[list[int]] = []
    for place in places:
        if runs and runs[-1][1] + 1 == place:
            runs[-1][1] = place
        else:
            runs.append([place, place])
    return runs
