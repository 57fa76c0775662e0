"""Which events the limit takes out of a log: whole turns, where it can."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import msgspec
from msgspec import Struct

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = ["TRIM_LOOK", "next_turn"]

TRIM_LOOK: Final = 64
"""How far it is looked for the end of a turn that is cut, in events.

A longer one leaves bit by bit, until so much is left of it.

So that a log holds at least half of what its limit allows, it is not looked further than half of
the limit either.
"""


class _Heading(Struct):
    """What of an event tells to which turn it belongs."""

    id: str = ""
    author: str = ""
    invocation_id: str = ""


_decoder = msgspec.json.Decoder(_Heading)
_NONE: Final = _Heading()


def next_turn(before: bytes, events: Sequence[bytes]) -> int | None:
    """Return the index of the first of some events that begins a turn; ``None`` if none does.

    A turn begins with an event that has given it its id, and with one of the user's that does not
    belong to the turn of the event before it.

    Args:
        before: The encoded event before these.
        events: The encoded events.
    """
    turn = _heading(before).invocation_id
    for index, payload in enumerate(events):
        event = _heading(payload)
        goes_on = event.invocation_id and event.invocation_id == turn
        turn = event.invocation_id
        if (turn and turn == event.id) or (event.author == "user" and not goes_on):
            return index
    return None


def _heading(payload: bytes) -> _Heading:
    try:
        return _decoder.decode(payload)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return _NONE
