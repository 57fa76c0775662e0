"""What a conversion gives: a list, and what could not be said."""

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
