"""A session's log, all that is stored of it, in pieces that take little memory."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from agentsession.backend import Expected, ReadLimit
from agentsession.errors import ReadTooLargeError
from agentsession.retention import LARGEST

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator

    from agentsession.backend import EventSlice
    from agentsession.service import SessionService
    from agentsession.sessions import SessionKey

__all__ = ["pages_of"]

_MOST: Final = 1000
# In bytes; events that are larger than a quarter of it are read a few at a time.
_SIZE: Final = 4 << 20


async def pages_of(
    service: SessionService,
    key: SessionKey,
    incarnation: str,
    after_seq: int,
    last_seq: int = LARGEST - 1,
) -> AsyncGenerator[EventSlice]:
    """Yield the events between two positions, what was taken back and marks included.

    Args:
        service: Whose session.
        key: The session.
        incarnation: Which one it must be.
        after_seq: Begin after this position.
        last_seq: End with this one.

    Raises:
        SessionNotFoundError: The session is gone, or was made anew.
    """
    read_limit = ReadLimit(_SIZE, max(1, _SIZE // service.max_event_size))
    limit = _MOST
    while after_seq < last_seq:
        try:
            page = await service.backend.read(
                key,
                after_seq=after_seq,
                before_seq=last_seq + 1,
                limit=limit,
                newest_first=False,
                raw=True,
                read_limit=read_limit,
                expected=Expected(incarnation),
            )
        except ReadTooLargeError:
            limit = max(limit // 4, read_limit.harmless)
            continue
        if not page.seqs:
            return
        yield page
        after_seq, limit = page.seqs[-1], min(2 * limit, _MOST)
