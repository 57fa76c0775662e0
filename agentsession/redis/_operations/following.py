"""Tells followers, and reads what they are told."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Final
from urllib.parse import unquote

from agentsession.backend import News
from agentsession.redis._scripts import load
from agentsession.sessions import SessionKey

if TYPE_CHECKING:
    from collections.abc import Callable
    from contextlib import AbstractContextManager

    from agentsession.redis._keys import Keyspace
    from agentsession.redis._links.inbox import Message
    from agentsession.redis._operations.calls import Calls
    from agentsession.sessions import UserKey

__all__ = ["Following"]

_TELL: Final = load("tell")
# How append.lua begins when it tells of events, and what is in front of each.
_EVENTS: Final = re.compile(rb"(\S+) (\d{1,16}) ")
_SIZE: Final = re.compile(rb"(\d{1,9}) ")


class Following:
    """Those who follow a session, or all sessions of a user.

    Args:
        calls: Runs the scripts, and has the connection on which this process is told.
        keyspace: Names the channels.
    """

    def __init__(self, calls: Calls, keyspace: Keyspace) -> None:
        self._calls = calls
        self._keyspace = keyspace

    def follow(
        self, subject: SessionKey | UserKey, on_news: Callable[[News | None], None]
    ) -> AbstractContextManager[None]:
        """Have a function called with all news, until the block ends."""
        if isinstance(subject, SessionKey):
            channel, session_id = self._keyspace.session(subject).index, subject.session_id
        else:
            channel, session_id = self._keyspace.index(subject), ""

        def on_message(message: Message | None) -> None:
            on_news(None if message is None else _read(message.name, message.news))

        return self._calls.news.listen(channel, session_id, on_message)

    async def tell(self, key: SessionKey, chunk: bytes) -> bool:
        """Hand bytes on to those who follow; tell whether anybody may have got them."""
        words = _TELL.words(news=self._keyspace.news, session_id=key.session_id)
        keys = [self._keyspace.session(key).index]
        reply = await self._calls.run(key, _TELL, keys, [*words, chunk])
        return bool(reply[2:] and reply[2])


def _read(session_id: str, words: bytes) -> News | None:
    """Read what lib/news.lua has written; ``None`` if it is of a later version."""
    what, _, rest = words.partition(b" ")
    match what:
        case b"chunk":
            return News(session_id, "chunk", chunk=rest)
        case b"made":
            return News(session_id, "made")
        case b"written":
            return News(session_id, "written")
        case b"deleted":
            return News(session_id, "deleted")
        case b"began":
            return News(session_id, "began", _run_id(rest))
        case b"ended":
            return News(session_id, "ended", _run_id(rest))
        case b"events":
            return _read_events(session_id, rest)
        case _:
            return None


def _read_events(session_id: str, words: bytes) -> News | None:
    """Read the events that append.lua has told; ``None`` if they are not as it tells them."""
    head = _EVENTS.match(words)
    if head is None:
        return None
    events: list[bytes] = []
    at = head.end()
    while at < len(words):
        size = _SIZE.match(words, at)
        if size is None:
            return None
        at = size.end() + int(size[1])
        events.append(words[size.end() : at])
    if at > len(words):
        return None
    incarnation, first_seq = head[1].decode(errors="replace"), int(head[2])
    return News(
        session_id, "events", incarnation=incarnation, first_seq=first_seq, events=tuple(events)
    )


def _run_id(word: bytes) -> str:
    return unquote(word.decode(errors="replace"))
