"""What a fork of the process would break, and how it is kept from that."""

from __future__ import annotations

import os
import sqlite3
import threading
import time
from contextlib import suppress
from typing import Final, Protocol
from weakref import WeakSet

__all__ = ["quiet"]


class _Closable(Protocol):
    def close(self) -> None: ...


class _Quiet:
    """Has a fork of this process wait until no thread is in the middle of something.

    SQLite keeps in memory which locks its process has on a file. A child of ``fork()`` inherits
    that, but not the locks: what it opened anew would rely on locks that it does not have. So
    it closes all connections that it inherits, which makes SQLite forget. That does no harm to the
    parent as long as none of them is in a transaction, nor holds a mutex. The lock of a gate is the
    parent's too, and would be held for as long as the child lives; so it closes those as well.
    """

    def __init__(self) -> None:
        self._begin()

    def _begin(self) -> None:
        self._changed = threading.Condition(threading.Lock())
        self._busy = 0
        self._forking = False
        self._inherited: WeakSet[_Closable] = WeakSet()

    def will_close(self, opened: _Closable) -> None:
        """Have a child close what it inherits."""
        self._inherited.add(opened)

    def __enter__(self) -> None:
        """Begin to work with a file."""
        with self._changed:
            while self._forking:
                self._changed.wait()
            self._busy += 1

    def __exit__(self, *exc_info: object) -> None:
        with self._changed:
            self._busy -= 1
            if self._forking:
                self._changed.notify_all()

    def sleep(self, seconds: float) -> None:
        """Wait in the middle of work, but of no transaction, so that a fork need not."""
        self.__exit__()
        time.sleep(seconds)
        self.__enter__()

    def before(self) -> None:
        with self._changed:
            while self._forking:
                self._changed.wait()
            self._forking = True
            while self._busy:
                self._changed.wait()

    def after_in_parent(self) -> None:
        with self._changed:
            self._forking = False
            self._changed.notify_all()

    def after_in_child(self) -> None:
        inherited = [*self._inherited]
        self._begin()  # Its lock may be held by a thread that is not here.
        for each in inherited:
            with suppress(sqlite3.Error):
                each.close()


quiet: Final = _Quiet()
"""Within it a thread works with a file; see :class:`_Quiet`."""

if hasattr(os, "register_at_fork"):
    os.register_at_fork(
        before=quiet.before,
        after_in_parent=quiet.after_in_parent,
        after_in_child=quiet.after_in_child,
    )
