"""Files, read and written in a thread, so that no other task waits for a disk."""

from __future__ import annotations

import os
from codecs import BOM_UTF8
from contextlib import suppress
from io import FileIO
from typing import TYPE_CHECKING, BinaryIO, Final

from anyio import wait_readable
from anyio.to_thread import run_sync

from agentsession.transfer._records import (
    HEADER,
    AppRecord,
    CutRecord,
    EndRecord,
    SessionRecord,
    UserRecord,
    check_header,
    read_line,
)
from agentsession.transfer._reports import FormatError

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

__all__ = ["Lines", "Output", "go_on_with", "lines_of"]

_PIECE: Final = 1 << 20
# The state of a scope may be large; what is longer is no line of ours.
_LONGEST: Final = 1 << 30


class Output:
    """Gathers what is written, and writes it in large pieces.

    Args:
        file: A file that is open for writing bytes.
    """

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self._pieces: list[bytes] = []
        self._size = 0

    async def write(self, piece: bytes) -> None:
        """Write a piece, some time."""
        self._pieces.append(piece)
        self._size += len(piece)
        if self._size > _PIECE:
            await self.flush()

    async def flush(self) -> None:
        """Write what was gathered."""
        pieces, self._pieces, self._size = b"".join(self._pieces), [], 0
        await run_sync(self._write, pieces)

    def _write(self, data: bytes) -> None:
        self._file.write(data)
        self._file.flush()


class Lines:
    """Cuts the pieces of a file into lines, in a time that grows with the pieces alone."""

    def __init__(self) -> None:
        self._begun: list[bytes] = []
        self._size = 0

    def cut(self, piece: bytes) -> list[bytes]:
        """Take the next piece, and return the lines that end in it, without their ends.

        Raises:
            FormatError: A line is longer than any of ours.
        """
        first, *others = piece.split(b"\n")
        self._begun.append(first)
        self._size += len(first)
        if self._size > _LONGEST:
            msg = f"a line is longer than {_LONGEST:,} bytes"
            raise FormatError(msg)
        if not others:
            return []
        *whole, last = others
        lines = [self.rest(), *whole]
        self._begun, self._size = [last], len(last)
        return lines

    def rest(self) -> bytes:
        """Return the line that has begun."""
        return b"".join(self._begun)


async def lines_of(file: BinaryIO) -> AsyncIterator[bytes]:
    """Yield the lines of a file without their ends, nor the mark that some editors begin it with.

    To wait for more of a pipe or a terminal may be cancelled, if the file is not buffered.

    Raises:
        FormatError: A line is longer than any of ours.
    """
    lines = Lines()
    begun = False
    while piece := await _read(file):
        if not begun:
            piece, begun = piece.removeprefix(BOM_UTF8), True
        for line in lines.cut(piece):
            yield line
    if rest := lines.rest():
        yield rest


async def _read(file: BinaryIO) -> bytes:
    if isinstance(file, FileIO):  # Of a buffered one the system does not know what it has read.
        with suppress(PermissionError):  # A regular file cannot be waited for, and need not be.
            await wait_readable(file)
    return await run_sync(file.read, _PIECE)


async def go_on_with(file: BinaryIO) -> set[object] | None:
    """Cut an export at the end of the last session that is whole, and tell what is in it.

    Args:
        file: A file that is open for reading and writing bytes. Whatever is written to it next
            stands at its end.

    Returns:
        The names of applications and the keys of users and sessions that are in it; ``None`` if the
        file has no line yet.

    Raises:
        FormatError: It is no export.
    """
    return await run_sync(_go_on_with, file)


def _go_on_with(file: BinaryIO) -> set[object] | None:
    file.seek(0)
    done: set[object] = set()
    offset = whole = 0
    session: object = None
    for number, line in enumerate(file):
        if not line.endswith(b"\n"):
            if not (number or HEADER.startswith(line)):
                msg = f"this is no export to go on with: it does not begin with {HEADER.decode()}"
                raise FormatError(msg.strip())
            break
        offset += len(line)
        try:
            if not number:
                check_header(line)
                whole = offset
                continue
            record = None if line.startswith(_OF_A_SESSION) else read_line(line)
        except ValueError as exc:
            msg = f"line {number + 1:,} of the file to go on with cannot be read: {exc}"
            raise FormatError(msg) from exc
        match record:
            case AppRecord():
                done.add(record.app_name)
            case UserRecord():
                done.add(record.key)
            case SessionRecord():
                session = record.key
                continue
            case EndRecord():
                done.add(session)
            case CutRecord():
                pass
            case _:
                continue  # That it is complete is said anew.
        whole = offset
    file.seek(whole)
    file.truncate()
    file.seek(0, os.SEEK_END)
    return done if whole else None


_OF_A_SESSION: Final = (b'{"kind":"event"', b'{"kind":"bytes"', b'{"kind":"before"')
