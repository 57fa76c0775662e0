"""What a log holds: events, and the parts of their content.

These are the stored format too (:mod:`agentsession.codec`), so they change by rules: a new field
has a default, a field never changes its type, a tag is never used again, and a change that an older
reader could not survive raises the format version, the tag ``v``.

All of them take part in garbage collection, since any of them may be in a cycle: nothing checks
what an event holds before it is appended, a ``temp:`` value may be any object, and the dicts of an
event that was read can be changed. With 50,000 events at hand a full collection takes 5 to 10 ms
longer than if they stayed out of it (``gc=False``), and to decode a page of 100 takes 4 % longer.
What holds nothing but words and numbers, as most parts do, msgspec leaves out by itself.
"""

from __future__ import annotations

import base64
import os
from typing import TYPE_CHECKING, Annotated, Any, Final, Literal, Self, TypeAlias

import msgspec
from msgspec import Meta, Struct, field

from agentsession._marks import unmark
from agentsession._model import AwareDatetime, Model
from agentsession.clock import system_clock, utc_now

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = [
    "UNREADABLE",
    "Content",
    "Data",
    "Event",
    "EventError",
    "Media",
    "Outcome",
    "Part",
    "Reasoning",
    "Rewind",
    "Text",
    "ToolCall",
    "ToolResult",
    "new_id",
]


UNREADABLE: Final = "unreadable"
"""The ``error.type`` of an event that stands in a log for one that this version cannot read."""


def new_id() -> str:
    """Generate an id: the time in milliseconds and 80 random bits, as 32 hexadecimal digits.

    Ids that are made one after the other stand side by side in an index, which a store on a disk
    adds them to several times as fast as random ones. As in a UUID of version 7, without its dashes
    and its two constant digits.
    """
    return ((system_clock() // 1000).to_bytes(6, "big") + os.urandom(10)).hex()


_Name: TypeAlias = Annotated[str, Meta(min_length=1)]


class Text(Model, Struct, frozen=True, omit_defaults=True, tag="text"):
    """Words, of the user or of the model.

    Args:
        text: The words.
        provider_data: What the model's provider sent with it and wants back unread: any JSON value.
    """

    text: str
    provider_data: Any = None


class Reasoning(Model, Struct, frozen=True, omit_defaults=True, tag="reasoning"):
    """What a model thought before it answered, as far as its provider tells.

    Args:
        text: The thoughts, or a summary of them; empty if the provider keeps them to itself.
        provider_data: What the provider wants back unread, so that the model can go on from there:
            any JSON value. Anthropic's ``signature`` and redacted ``data``, OpenAI's ``id`` and
            ``encrypted_content`` and Gemini's thought signatures belong here.
    """

    text: str = ""
    provider_data: Any = None


class Media(Model, Struct, frozen=True, omit_defaults=True, tag="media"):
    """An image, a sound, a film or a file: where it is, or the thing itself.

    An event may take up to ``max_event_size`` bytes, 1 MiB by default, and is read whole with the
    log; so what is larger belongs elsewhere, with its address here.

    Args:
        media_type: What it is, as a MIME type, such as ``"image/png"``. Not empty.
        uri: Its address, of any scheme.
        data: The thing itself, in base64; :meth:`from_bytes` encodes it. Not both *uri* and *data*.
        name: A name for people, such as the file's.
        provider_data: What the model's provider sent with it and wants back unread, the id of a
            file at its place among it: any JSON value.
    """

    media_type: _Name
    uri: str = ""
    data: str = ""
    name: str = ""
    provider_data: Any = None

    @classmethod
    def from_bytes(cls, content: bytes, media_type: str, name: str = "") -> Self:
        """Make one that holds the thing itself."""
        return cls(media_type, data=base64.b64encode(content).decode(), name=name)

    def to_bytes(self) -> bytes:
        """Return the thing itself.

        Raises:
            ValueError: It is elsewhere, at *uri*, or *data* is not base64.
        """
        if self.uri:
            msg = f"the content is not here; it is at {self.uri!r:.80}"
            raise ValueError(msg)
        return base64.b64decode(self.data, validate=True)


class ToolCall(Model, Struct, frozen=True, omit_defaults=True, tag="tool_call"):
    """The model asks for a tool to be run.

    Args:
        call_id: Ties the call to its :class:`ToolResult`.
        name: The tool.
        arguments: What to run it with: any JSON value. A string stays the string it was, so
            arguments that a model wrote as text survive to the letter.
        provider_data: What the model's provider sent with it and wants back unread: any JSON value.
    """

    call_id: _Name
    name: str
    arguments: Any = {}
    provider_data: Any = None


class ToolResult(Model, Struct, frozen=True, omit_defaults=True, tag="tool_result"):
    """What a tool gave back.

    Args:
        call_id: The :class:`ToolCall` that it answers.
        result: Any JSON value.
        name: The tool.
        is_error: Whether *result* tells of a failure.
    """

    call_id: _Name
    result: Any = None
    name: str = ""
    is_error: bool = False


class Data(Model, Struct, frozen=True, omit_defaults=True, tag="data"):
    """Anything else that JSON can hold: a form, a citation, a card to show.

    Args:
        data: Any JSON value.
        media_type: What *data* is, as a MIME type; empty for plain JSON.
    """

    data: Any
    media_type: str = ""


Part: TypeAlias = Text | Reasoning | Media | ToolCall | ToolResult | Data
"""One piece of an event's content; a type checker narrows it by ``isinstance`` or ``match``."""

Content: TypeAlias = str | list[Part]
"""Plain words, which stay a string, or a list of parts."""


Outcome: TypeAlias = Literal[
    "", "completed", "failed", "cancelled", "interrupted", "abandoned", "waiting"
]
"""How a turn ended, said by the event that ended it; ``""`` on every other event.

``"completed"``: the agent came to its end. ``"failed"``: it raised an error. ``"cancelled"``:
somebody had it stopped, or went away. ``"interrupted"``: another turn took its place.
``"abandoned"``: its process died, or stood still for too long; whoever came next has ended it.
``"waiting"``: it goes on when somebody answers its open calls of tools."""


class EventError(Model, Struct, frozen=True, omit_defaults=True):
    """What went wrong in the step that an event records.

    Args:
        message: For people.
        type: For programs: an exception's class, an error code.
    """

    message: str
    type: str = ""


class Rewind(Model, Struct, frozen=True, omit_defaults=True):
    """Where a log went back to; see :meth:`agentsession.SessionService.rewind`.

    Args:
        to_seq: All events after this position and before the one with this mark are taken back.
        restores_state: Whether the session's state went back as well.
    """

    to_seq: Annotated[int, Meta(ge=0)]
    restores_state: bool = True


class Event(Model, Struct, frozen=True, kw_only=True, omit_defaults=True, tag_field="v", tag=1):
    """One entry of a session's log. It never changes once it is stored.

    Types are checked when the event is appended, not here.

    Where a log holds an event that this version cannot read, of a newer format or damaged, readers
    get one in its place whose ``error.type`` is :data:`~agentsession.events.UNREADABLE`: with its
    ``seq``, the reason as ``error.message``, no content, and as far as the stored bytes tell them
    its ``id``, ``author``, ``timestamp``, ``invocation_id`` and ``branch``. It cannot be appended.

    Args:
        author: Who speaks: ``"user"``, or an agent's name. Not empty.
        content: Words, or a list of :data:`parts <agentsession.events.Part>`.
        id: Unique within the session; generated. A repeat with the same id stores nothing, which
            makes a retry safe.
        timestamp: When it happened, aware; the present by default. It is data: the order of the
            log never depends on it. Stored in UTC with microseconds.
        invocation_id: The turn that it belongs to: all events from one message of the user to the
            end of the answer share it.
        branch: The path of agents in a tree of them, such as ``"planner.researcher"``.
        partial: A chunk of a stream. Passed on and never stored.
        snapshot: Of a chunk: whether its content is all that its stream has said so far, for who
            comes late, or has lost some, and puts it in the place of what is there. Any other chunk
            comes after what is there. Subscriptions make them.
        stream_id: Ties the chunks of a stream to each other, and to the whole event that takes
            their place: all of them have the same one. ``Runner`` sets it where an agent does not.
        state_delta: Changes to state, stored in the same step: name to value, with the prefixes
            ``app:``, ``user:`` and ``temp:``. :data:`agentsession.state.DELETE` deletes a name.
        metadata: Anything that JSON can hold.
        error: What went wrong, if something did.
        outcome: How the turn ended, if it ended with this event, as
            :data:`~agentsession.events.Outcome` says. With it
            an event gives back the lease with which it is appended, and ``Runner`` does not run the
            agent any further.
        rewind: Set on the mark of a rewind, which the store makes: what it takes back, and the mark
            itself, only readers see who ask for all that is stored (``raw``).
        seq: The position in the log, from 1 without gaps; given by the store, 0 before. Where
            events were taken back, those that are left have gaps between them.
    """

    id: _Name = field(default_factory=new_id)
    timestamp: AwareDatetime = field(default_factory=utc_now)
    author: _Name
    invocation_id: str = ""
    branch: str = ""
    content: Content = ""
    partial: bool = False
    snapshot: bool = False
    stream_id: str = ""
    state_delta: dict[str, Any] = {}
    metadata: dict[str, Any] = {}
    error: EventError | None = None
    outcome: Outcome = ""
    rewind: Rewind | None = None
    seq: int = 0

    @property
    def text(self) -> str:
        """The words of *content*, its :class:`Text` parts joined; empty if it has none."""
        if isinstance(self.content, str):
            return self.content
        return "".join(part.text for part in self.content if isinstance(part, Text))

    @property
    def tool_calls(self) -> list[ToolCall]:
        """The tools that are asked for, in order."""
        if isinstance(self.content, str):
            return []  # Its letters are no parts to look at.
        return [part for part in self.content if isinstance(part, ToolCall)]

    @property
    def tool_results(self) -> list[ToolResult]:
        """What tools gave back, in order."""
        if isinstance(self.content, str):
            return []
        return [part for part in self.content if isinstance(part, ToolResult)]

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Self:
        event = super().from_dict(data)
        # Nobody has seen it yet.
        msgspec.structs.force_setattr(event, "state_delta", unmark(event.state_delta))
        return event
