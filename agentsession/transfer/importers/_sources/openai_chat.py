"""Message lists of OpenAI's Chat Completions, in a file of JSON or of JSON lines."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, BinaryIO, Final

import msgspec
from anyio.to_thread import run_sync

from agentsession._wording import brief
from agentsession.messages import openai_chat
from agentsession.messages._converting import is_array, is_mapping, items, mapping
from agentsession.transfer._files import lines_of
from agentsession.transfer.importers._account import UNREADABLE
from agentsession.transfer.importers._found import SessionFound, target_of
from agentsession.transfer.importers._sources.tool_names import ToolNames

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, AsyncIterator

    from agentsession.events import Event
    from agentsession.sessions import SessionKey
    from agentsession.transfer.importers._account import Account
    from agentsession.transfer.importers._found import Sessions, To

__all__ = ["conversations"]

_IDS: Final = ("conversation_id", "session_id", "id")
_TIMES: Final = ("created_at", "created")
_PLACED: Final = frozenset({*_IDS, *_TIMES, "messages"})


async def conversations(account: Account, file: BinaryIO, to: To, agent: str) -> Sessions:
    """Yield the conversations of a file.

    Args:
        account: Counts.
        file: A file that is open for reading bytes.
        to: Who takes them.
        agent: The author of what the assistant says.
    """
    number = 0
    async for place, told in _told(file):
        number += 1  # One that cannot be read has its number, too: it may be mended.
        if isinstance(told, Exception):
            account.leave_out(place, told)
            continue
        conversation = _Conversation(account, place, told, agent)
        try:
            yield conversation.found(to, number)
        except UNREADABLE as exc:
            account.leave_out(place, exc)


async def _told(file: BinaryIO) -> AsyncIterator[tuple[str, Any]]:
    """Yield conversations and their places: lines of a file, or what is in its one value.

    Of a line that cannot be read the error is yielded.
    """
    lines = aiter(lines_of(file))
    number = 0
    async for line in lines:
        number += 1
        found = _read(number, line)
        if found and isinstance(found[0][1], Exception):
            rest = [line, *[each async for each in lines]]
            async for each in _told_at_once(rest, number):
                yield each
            return
        for each in found:
            yield each
        if found:
            break
    async for line in lines:
        number += 1
        for each in _read(number, line):
            yield each


async def _told_at_once(lines: list[bytes], first: int) -> AsyncIterator[tuple[str, Any]]:
    """Yield what a file holds whose first line is no value: it is one that goes over many lines."""
    try:
        value = await run_sync(msgspec.json.decode, b"\n".join(lines))
    except UNREADABLE:
        for number, line in enumerate(lines, first):
            for each in _read(number, line):
                yield each
        return
    for each in _those_in("the file", value):
        yield each


def _read(number: int, line: bytes) -> list[tuple[str, Any]]:
    place = f"line {number:,}"
    if not line.strip():
        return []
    try:
        return _those_in(place, msgspec.json.decode(line))
    except UNREADABLE as exc:
        return [(place, exc)]


def _those_in(place: str, value: Any) -> list[tuple[str, Any]]:
    """Return the conversations in a value: a list of messages, what has one, or a list of these."""
    listed = items(value)
    if listed and all("messages" in mapping(each) for each in listed):
        return [(f"{place}, conversation {n:,}", each) for n, each in enumerate(listed, 1)]
    return [(place, value)]


class _Conversation:
    """A conversation of a file.

    Args:
        account: Counts.
        place: Where it is.
        told: What is there.
        agent: The author of what the assistant says.
    """

    def __init__(self, account: Account, place: str, told: Any, agent: str) -> None:
        self._account = account
        self._place = place
        self._told = mapping({"messages": told} if is_array(told) else told)
        self._agent = agent

    def found(self, to: To, number: int) -> SessionFound:
        """Return it.

        Args:
            to: Who takes it.
            number: Makes an id for it, if it has none.

        Raises:
            ValueError: It is none.
        """
        if not is_array(self._told.get("messages")):
            msg = 'it is neither a list of messages nor {"messages": [...]}'
            raise ValueError(msg)
        key = target_of(to, self._id() or f"conversation-{number}")
        for name in self._told.keys() - _PLACED:
            self._account.note_unmapped("fields of conversations", brief(name), key)
        created_at = self._created_at(key)
        return SessionFound(key=key, events=self._events(), created_at=created_at, has_times=False)

    def _id(self) -> str:
        told = next((self._told[name] for name in _IDS if self._told.get(name) is not None), "")
        if isinstance(told, str | int):
            return str(told)
        msg = f"its id is neither a string nor a number: {brief(told)}"
        raise ValueError(msg)

    def _created_at(self, key: SessionKey) -> datetime | None:
        for name in _TIMES:
            told = self._told.get(name)
            if told is None:
                continue
            try:
                return _moment(told)
            except (*UNREADABLE, OSError):
                self._account.note_unmapped("times of conversations", f"{name} {brief(told)}", key)
        return None

    async def _events(self) -> AsyncGenerator[Event, None]:
        tools = ToolNames()
        for number, message in enumerate(items(self._told["messages"]), 1):
            try:
                event = _event_of(message, self._agent)
            except UNREADABLE as exc:
                reason = str(exc).removeprefix("messages[0]: ")
                self._account.leave_out(f"{self._place}, message {number:,}", reason)
                continue
            yield tools.named(msgspec.structs.replace(event, id=f"message-{number}"))


def _moment(told: Any) -> datetime:
    """Read a time: as ISO 8601, in UTC if it does not say, or in seconds since 1970."""
    if isinstance(told, str):
        found = datetime.fromisoformat(told)
        return found if found.tzinfo else found.replace(tzinfo=UTC)
    return datetime.fromtimestamp(told, UTC)


def _event_of(message: object, agent: str) -> Event:
    if not is_mapping(message):
        msg = f"it is no JSON object: {brief(message)}"
        raise ValueError(msg)
    return openai_chat.from_messages([mapping(message)], agent=agent)[0]
