"""Errors for callers who left out ``async``, or copy what is tied to its loop and process.

Type checkers see none of these methods: without them they find the mistake before the program runs.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NoReturn

__all__ = ["AsyncContext"]


class AsyncContext:
    """A base of classes for ``async with``; used in another way, they say what to do."""

    if not TYPE_CHECKING:

        def __enter__(self) -> NoReturn:
            msg = f"a {type(self).__name__} is entered with 'async with', not with 'with'"
            raise TypeError(msg)

        def __exit__(self, *exc_info: object) -> None:
            """Never called, but Python wants it to be there before it enters."""

        def __reduce__(self) -> NoReturn:
            msg = f"a {type(self).__name__} is not copied or pickled; make one in each process"
            raise TypeError(msg)
