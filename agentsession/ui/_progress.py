"""A turn as steps of what a page shows, the same from chunks as from what is stored.

Rules:

- A page shows what the log holds, in its order. So one stream is shown at a time; chunks of others
  wait until the event of the first one is stored.
- Frontends only know pieces that go on with what is there. So of each part it is noted what was
  given of it, and only the rest is given, whether it comes by a chunk, by all that was said so far,
  or by the event that is stored.
- Where what was given turns out to be wrong, since another event was stored first, or the event
  says something else than its chunks did, it is taken back by :class:`Dropped`, and given anew.
- A call has one result, and the newest one counts. Some frontends can only be told of that by all
  that is stored. So nothing else is shown at that moment, and what is new in the event comes first.

No I/O here, and nothing of any frontend's protocol.
"""

from __future__ import annotations

from contextlib import suppress
from typing import TYPE_CHECKING, NamedTuple, TypeAlias

import msgspec

from agentsession.events import Data, Event, Media, Part, Reasoning, Text, ToolCall, ToolResult
from agentsession.ui._parts import Names, gathered, is_said_by_user, parts_of, words_of

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

__all__ = [
    "Added",
    "Answered",
    "Begun",
    "Dropped",
    "Ended",
    "Failed",
    "Progress",
    "Said",
    "Shown",
    "Step",
    "StepBegun",
    "StepEnded",
]


class StepBegun(NamedTuple):
    """An event begins to be shown."""


class StepEnded(NamedTuple):
    """What was shown of an event is all, and stored."""


class Begun(NamedTuple):
    """A part begins, of which pieces follow."""

    name: str
    number: int
    part: Text | Reasoning | ToolCall


class Added(NamedTuple):
    """A piece of a part."""

    name: str
    number: int
    part: Text | Reasoning | ToolCall
    piece: str


class Ended(NamedTuple):
    """A part is whole."""

    name: str
    number: int
    part: Text | Reasoning | ToolCall


class Shown(NamedTuple):
    """A part that comes whole."""

    name: str
    number: int
    part: Media | Data


class Answered(NamedTuple):
    """A call that was shown has a result.

    Attributes:
        event: Where it is.
        result: The result.
        is_again: Whether it takes the place of one that was shown.
    """

    event: Event
    result: ToolResult
    is_again: bool


class Said(NamedTuple):
    """The user has said something into the turn."""

    event: Event


class Failed(NamedTuple):
    """Something went wrong."""

    event: Event


class Dropped(NamedTuple):
    """What was shown since the step began is taken back.

    Attributes:
        name: What was shown.
        parts: The parts of it.
        open: Those that had begun, and not ended.
        last_seq: The last stored event that was shown.
    """

    name: str
    parts: Sequence[tuple[int, Part]]
    open: Sequence[tuple[int, Part]]
    last_seq: int


Step: TypeAlias = (
    StepBegun | StepEnded | Begun | Added | Ended | Shown | Answered | Said | Failed | Dropped
)
"""A step of what a page shows."""


class _Part:
    """A part of which something was shown."""

    __slots__ = ("is_open", "part", "words")

    def __init__(self, part: Part) -> None:
        self.part = part
        self.words = ""
        self.is_open = isinstance(part, Text | Reasoning | ToolCall)

    def fits(self, part: Part, *, is_whole: bool) -> bool:
        """Tell whether a part may go on with what was shown."""
        if type(part) is not type(self.part):
            return False
        if isinstance(self.part, Media | Data):
            return part == self.part
        if isinstance(part, ToolCall) and isinstance(self.part, ToolCall):
            if (part.call_id, part.name) != (self.part.call_id, self.part.name):
                return False
            if is_whole and self._says_the_same(part):
                return True
        words = words_of(part)
        return words.startswith(self.words) if self.is_open else words == self.words

    def _says_the_same(self, call: ToolCall) -> bool:
        """Tell whether arguments that were shown as text are those of a call, however written."""
        if not isinstance(call.arguments, str):
            with suppress(msgspec.DecodeError, UnicodeError):
                return bool(msgspec.json.decode(self.words) == call.arguments)
        return False

    def rest(self, part: Part) -> str:
        """Return what was not shown yet, which is shown with that."""
        words = words_of(part)
        if not words.startswith(self.words):
            return ""  # The same, written in another way.
        piece = words[len(self.words) :]
        self.words = words
        return piece


class _Stream:
    """What one stream has said so far."""

    __slots__ = ("name", "parts")

    def __init__(self, name: str) -> None:
        self.name = name
        self.parts: list[Part] = []


class Progress:
    """Makes steps of the events of one turn, as a reader or a follower gets them.

    Args:
        before: Events of the turn that were shown before, as they are stored.
    """

    def __init__(self, before: Iterable[Event] = ()) -> None:
        self._names = Names()
        # Calls that were shown, and those of them that have a result.
        self._calls: set[str] = set()
        self._answered: set[str] = set()
        # Streams that no whole event has followed yet, in the order in which they began.
        self._streams: dict[str, _Stream] = {}
        # The stream that is shown, and how far, and by which name.
        self._open = self._name = ""
        self._shown: list[_Part] = []
        self._in_step = False
        self._last_seq = 0
        for event in before:
            self._answers_in(event)
            self._pass_over(event)

    def take(self, event: Event) -> Iterator[Step]:
        """Yield the steps that an event brings."""
        if not event.partial:
            yield from self._take_whole(event)
        elif event.stream_id:
            # Others could never be told from what is stored in their place.
            yield from self._take_chunk(event)

    def end(self) -> Iterator[Step]:
        """Yield the last steps: what was shown and was never stored is taken back."""
        self._streams.clear()
        self._open = ""
        yield from self._drop()
        if self._in_step:
            self._in_step = False
            yield StepEnded()

    # -- chunks

    def _take_chunk(self, event: Event) -> Iterator[Step]:
        stream = self._streams.get(event.stream_id)
        if stream is None:
            self._streams[event.stream_id] = stream = _Stream(self._names.of(event))
        stream.parts = gathered(event.content, () if event.snapshot else stream.parts)
        self._open = self._open or event.stream_id
        if self._open == event.stream_id:
            yield from self._show(stream.name, stream.parts, is_whole=False)

    # -- whole events

    def _take_whole(self, event: Event) -> Iterator[Step]:
        name, parts = self._names.of(event), gathered(event.content)
        is_said = bool(parts) and is_said_by_user(event)
        is_of_open = bool(self._open) and event.stream_id == self._open
        is_shown = bool(parts) or event.error is not None
        if is_shown and self._open and (is_said or not is_of_open):
            # It stands in the log before what is shown.
            yield from self._drop()
        self._streams.pop(event.stream_id, None)
        if is_shown:
            yield from self._begin_step()
        if not is_said:
            # Of results alone that is nothing, and takes back what is shown of others.
            yield from self._show(name, parts, is_whole=True)
        # All messages may be told for what a user said, and then have them too.
        yield from self._answers_in(event)
        if is_said:
            yield Said(event)
        if event.error is not None:
            yield Failed(event)
        self._pass_over(event)
        if is_shown:
            self._in_step = False
            yield StepEnded()
        if is_shown or is_of_open:
            self._shown = []
        if is_of_open:
            self._open = ""
        yield from self._show_next()

    def _answers_in(self, event: Event) -> list[Answered]:
        """Note the calls and the results in an event; return these, those last that come again.

        Frontends break over results of calls that they do not know; a user's are not shown.
        """
        if not is_said_by_user(event):
            self._calls.update(call.call_id for call in event.tool_calls)
        answers: list[Answered] = []
        for part in parts_of(event.content):
            if isinstance(part, ToolResult) and part.call_id in self._calls:
                answers.append(Answered(event, part, part.call_id in self._answered))
                self._answered.add(part.call_id)
        return sorted(answers, key=lambda answer: answer.is_again)

    def _pass_over(self, event: Event) -> None:
        self._names.pass_over(event)
        self._last_seq = event.seq or self._last_seq

    def _show_next(self) -> Iterator[Step]:
        """Go on with the stream that was open, or else with the oldest of the others."""
        self._open = self._open or next(iter(self._streams), "")
        if self._open:
            stream = self._streams[self._open]
            yield from self._show(stream.name, stream.parts, is_whole=False)

    # -- showing parts

    def _show(self, name: str, parts: Sequence[Part], *, is_whole: bool) -> Iterator[Step]:
        """Show what of some parts was not shown yet."""
        if not self._fit(parts, is_whole=is_whole):
            yield from self._drop()
        for number, part in enumerate(parts):
            if isinstance(part, ToolCall) and not part.name and not is_whole:
                break  # Its name is still to come.
            if number == len(self._shown):
                yield from self._begin(name, number, part)
            shown = self._shown[number]
            if isinstance(part, Text | Reasoning | ToolCall) and shown.is_open:
                piece = shown.rest(part)
                if piece:
                    yield Added(name, number, part, piece)
                # Arguments of a call may go on after other parts, and words may not.
                is_last = number == len(parts) - 1
                if is_whole or not (is_last or isinstance(part, ToolCall)):
                    shown.is_open = False
                    yield Ended(name, number, part)

    def _begin(self, name: str, number: int, part: Part) -> Iterator[Step]:
        yield from self._begin_step()
        self._name = name
        self._shown.append(_Part(part))
        if isinstance(part, Media | Data):
            yield Shown(name, number, part)
        elif isinstance(part, Text | Reasoning | ToolCall):
            yield Begun(name, number, part)

    def _begin_step(self) -> Iterator[Step]:
        if not self._in_step:
            self._in_step = True
            yield StepBegun()

    def _fit(self, parts: Sequence[Part], *, is_whole: bool) -> bool:
        return len(self._shown) <= len(parts) and all(
            shown.fits(part, is_whole=is_whole)
            for shown, part in zip(self._shown, parts, strict=False)
        )

    def _drop(self) -> Iterator[Step]:
        """Take back what was shown of an event that is not stored, if there is anything."""
        shown, self._shown = self._shown, []
        if shown:
            numbered = [(number, each.part) for number, each in enumerate(shown)]
            still = [(number, each.part) for number, each in enumerate(shown) if each.is_open]
            yield Dropped(self._name, numbered, still, self._last_seq)
