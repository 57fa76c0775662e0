"""The message lists of model providers: made of events, and made into events.

One module for each provider's format, with the same two functions:

- ``to_messages(events)`` gives what a request takes. Show it a history, not the log:
  ``to_messages(context.history)``.
- ``from_messages(messages)`` gives events, for a conversation that began elsewhere, or an answer.

Both are pure. Messages that were made into events come back equal, as far as the provider's types
can say them. What cannot be said is not dropped in silence: it is in ``lost`` of what is returned.
"""

from __future__ import annotations

from typing import Generic, TypeVar

from msgspec import Struct

__all__ = ["Converted", "Loss"]

_T = TypeVar("_T")


class Loss(Struct, frozen=True):
    """Something that the other format has no words for.

    Attributes:
        where: The event or the message, and the place in it.
        why: What it is, and why it has no form.
    """

    where: str
    why: str


class Converted(list[_T], Generic[_T]):
    """The list that a conversion makes.

    Attributes:
        lost: What could not be said, in the order in which it was met; empty if nothing was lost.
    """

    def __init__(self) -> None:
        super().__init__()
        self.lost: list[Loss] = []
