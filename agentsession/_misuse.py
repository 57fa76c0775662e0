"""What tells a caller who left out ``async`` or ``await`` where to write it.

Type checkers see none of these methods: without them they find the mistake before the program runs.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NoReturn

__all__ = ["AsyncContext"]


class AsyncContext:
    """A base of what is entered with ``async with``, for whoever writes ``with``."""

    if not TYPE_CHECKING:

        def __enter__(self) -> NoReturn:
            msg = f"a {type(self).__name__} is entered with 'async with', not with 'with'"
            raise TypeError(msg)

        def __exit__(self, *exc_info: object) -> None:
            """Python looks for it before it enters."""
