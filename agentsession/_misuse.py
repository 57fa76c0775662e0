"""Errors for callers who left out ``async``.

Type checkers see none of these methods: without them they find the mistake before the program runs.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NoReturn

__all__ = ["AsyncContext"]


class AsyncContext:
    """A base of classes for ``async with``; entered with ``with``, they say what to write."""

    if not TYPE_CHECKING:

        def __enter__(self) -> NoReturn:
            msg = f"a {type(self).__name__} is entered with 'async with', not with 'with'"
            raise TypeError(msg)

        def __exit__(self, *exc_info: object) -> None:
            """Never called, but Python wants it to be there before it enters."""
