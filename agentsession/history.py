"""What of a log a model may be shown: whole turns, and every call with its result.

A log keeps what happened, and that is not always what a model's provider takes: a turn that was cut
off leaves a call without a result, the event limit cuts a turn in half, two agents that run side by
side store a result far behind its call. Providers refuse all of these, and since the log stays as
it is, they refuse every later turn too. So do not show a model the log, but this view of it.

Everything here is a pure function: it changes no event, and does no I/O.
"""

from __future__ import annotations

from collections import defaultdict, deque
from collections.abc import Callable, Generator, Iterator, Sequence
from typing import TYPE_CHECKING, Final, Literal, TypeAlias, get_args

import msgspec
from msgspec import Struct

from agentsession._pace import drained
from agentsession.events import Event, Part, Reasoning, ToolCall, ToolResult
from agentsession.retention import positive

if TYPE_CHECKING:
    from agentsession._pace import Steps

__all__ = ["NO_RESULT", "OpenCalls", "View", "closing_results", "effective", "unanswered_calls"]

NO_RESULT: Final = "No result of this call is known. The tool may have run, or not."
"""What a model is told of a call that nothing answered, with ``is_error``."""

OpenCalls: TypeAlias = Literal["close", "omit"]
"""Whether calls without a result are answered by :data:`NO_RESULT`, or left out."""


class View(Struct, frozen=True, kw_only=True):
    """Which part of a log a model is shown, and how.

    A *turn* begins with a message of the user, or with any event that gave a turn its id, as the
    message that a runner is given does; it reaches to the next one.

    Args:
        max_turns: At most this many turns, the newest ones; 1 or more.
        max_tokens: At most so many tokens, by *count_tokens*: older turns are left out as a whole.
            The newest one is there in any case, since without it there would be nothing to answer.
        count_tokens: Tells how many tokens an event takes. It is the application's, since it
            depends on the model.
        open_calls: What to do about calls without a result.
        from_user: Whether to begin with a message of the user, as some providers demand: what
            comes before the first one is left out.

    Raises:
        TypeError: An option has the wrong type.
        ValueError: An option is out of range, or only one of *max_tokens* and *count_tokens* is
            given.
    """

    max_turns: int | None = None
    max_tokens: int | None = None
    count_tokens: Callable[[Event], int] | None = None
    open_calls: OpenCalls = "close"
    from_user: bool = False

    def __post_init__(self) -> None:
        for name, value in (("max_turns", self.max_turns), ("max_tokens", self.max_tokens)):
            if value is not None:
                positive(name, value)
        if self.open_calls not in get_args(OpenCalls):
            known = " or ".join(map(repr, get_args(OpenCalls)))
            msg = f"open_calls must be {known}, not {self.open_calls!r:.80}"
            raise ValueError(msg)
        if self.count_tokens is not None and not callable(self.count_tokens):
            msg = f"count_tokens must be a function of an event, not {self.count_tokens!r:.80}"
            raise TypeError(msg)
        if (self.max_tokens is None) != (self.count_tokens is None):
            msg = "max_tokens and count_tokens go together: the budget, and what an event takes"
            raise ValueError(msg)

    def of(self, events: Sequence[Event], *, first_seq: int = 1) -> list[Event]:
        """Return what a model may be shown of events.

        - Left out: what was taken back, chunks of a stream, events without content, and half a turn
          at the beginning where older events are missing and a later turn is there.
        - Each result stands right behind the event that made the call, before anything else that
          was stored in between. Results that answer no call are left out.
        - Calls without a result are closed, or left out, as *open_calls* says.

        Events that need no change are the very objects that were given. Others are copies, with the
        id and the ``seq`` of the original; what closes calls has no ``seq``, and an id that is made
        of that of the event with the calls.

        Args:
            events: Some of a log, in its order and without gaps but where something was taken back;
                all of it, or its end.
            first_seq: With which position the log begins; see :class:`agentsession.Session`.
        """
        return drained(self.in_steps(events, is_all=True, first_seq=first_seq)) or []

    def in_steps(
        self, events: Sequence[Event], *, is_all: bool, first_seq: int = 1
    ) -> Generator[None, None, list[Event] | None]:
        """Do what :meth:`of` does in short steps, between which it yields; then return it.

        Args:
            events: As for :meth:`of`.
            is_all: Whether these are all events of the log. If not, ``None`` is returned where
                older ones are needed too.
            first_seq: As for :meth:`of`.
        """
        kept = effective(events)
        marks = [event.seq for event in events if event.rewind and not event.rewind.to_seq]
        first_seq = max(first_seq, *(seq + 1 for seq in marks)) if marks else first_seq
        turns = yield from _turns(kept, self.open_calls, first_seq)
        if len(turns) > 1 and turns[0].is_cut:
            del turns[0]
        chosen = yield from self._chosen(turns)
        is_enough = len(chosen) == self.max_turns or len(chosen) < len(turns)
        if not (is_all or (chosen and chosen[0].is_whole and is_enough)):
            return None
        if self.from_user:
            first = 0
            while first < len(chosen) and not _is_said_by_user(chosen[first].events[0]):
                first += 1
            chosen = chosen[first:]
        return [event for turn in chosen for event in turn.events]

    def _chosen(self, turns: list[_Turn]) -> Steps[list[_Turn]]:
        """Choose the newest turns, as many as there may be."""
        if self.max_turns is not None:
            turns = turns[-self.max_turns :]
        if self.max_tokens is None or self.count_tokens is None:
            return turns
        left, first = self.max_tokens, len(turns)
        for turn in reversed(turns):
            yield
            left -= sum(map(self.count_tokens, turn.events))
            if left < 0 and first < len(turns):
                break
            first -= 1
        return turns[first:]


def effective(events: Sequence[Event]) -> Sequence[Event]:
    """Return the events that were not taken back, without the marks of rewinds.

    Args:
        events: Some of a log as ``get_events(raw=True)`` gives it, in its order.
    """
    if all(event.rewind is None for event in events):
        return events
    kept: list[Event] = []
    for event in events:
        if event.rewind is None:
            kept.append(event)
        else:
            while kept and kept[-1].seq > event.rewind.to_seq:
                kept.pop()
    return kept


def unanswered_calls(events: Sequence[Event]) -> list[ToolCall]:
    """Return the calls that no result answers, in order.

    Args:
        events: Some of a log, in its order: those of a turn, for example.
    """
    pairs = _Pairs([event for event in events if event.content and not event.partial])
    drained(pairs.find())
    return pairs.unanswered()


def closing_results(events: Sequence[Event]) -> list[ToolResult]:
    """Make results that say :data:`NO_RESULT`, for the calls that no result answers.

    Args:
        events: As for :func:`unanswered_calls`.
    """
    return [_no_result(call) for call in unanswered_calls(events)]


def _no_result(call: ToolCall) -> ToolResult:
    return ToolResult(call.call_id, NO_RESULT, call.name, is_error=True)


class _Turn:
    """Some events that go together.

    Args:
        first: The first of them that is at hand.
        may_be_cut: Whether there are events before it that are not at hand.
    """

    __slots__ = ("events", "is_cut", "is_whole")

    def __init__(self, first: Event, *, may_be_cut: bool) -> None:
        self.events: list[Event] = []
        of_user = _is_said_by_user(first)
        named = first.invocation_id == first.id and not _is_answer(first)
        # Whether its beginning is surely missing, and whether it is surely there. What the user
        # says into a turn looks as what begins one, without the event before it.
        self.is_cut = may_be_cut and not (named or of_user)
        self.is_whole = not may_be_cut or named or (of_user and not first.invocation_id)


def _turns(events: Sequence[Event], open_calls: OpenCalls, first_seq: int) -> Steps[list[_Turn]]:
    """Cut a log into turns, of what a model may be shown; turns without that are left out."""
    shown = [event for event in events if event.content and not event.partial]
    pairs = _Pairs(shown)
    turns: list[_Turn] = []
    yield from pairs.find()
    for index, event in enumerate(shown):
        yield
        if not index:
            # What was given by hand has no position.
            turns.append(_Turn(event, may_be_cut=events[0].seq > first_seq))
        elif _begins_a_turn(event, shown[index - 1]):
            turns.append(_Turn(event, may_be_cut=False))
        said = list(pairs.complete(index, open_calls))
        turns[-1].events += said
        if not said and any(isinstance(part, ToolCall) for part in event.content):
            # Thoughts that led to calls alone go with them, here in events of their own.
            while turns[-1].events and _led_to(turns[-1].events[-1], event):
                turns[-1].events.pop()
    return [turn for turn in turns if turn.events]


def _begins_a_turn(event: Event, before: Event) -> bool:
    """Tell whether an event begins a turn; the one before it is enough to tell by."""
    if _is_answer(event):
        return False
    if event.invocation_id == event.id:
        return True
    goes_on = event.invocation_id and event.invocation_id == before.invocation_id
    return event.author == "user" and not goes_on


def _is_said_by_user(event: Event) -> bool:
    return event.author == "user" and not _is_answer(event)


def _is_answer(event: Event) -> bool:
    """Tell results of tools, which some frameworks store as the user's, from what is said."""
    return not isinstance(event.content, str) and all(
        isinstance(part, ToolResult) for part in event.content
    )


def _led_to(before: Event, event: Event) -> bool:
    """Tell thoughts of the same agent from anything else that may stand before an event."""
    return (
        (before.author, before.branch) == (event.author, event.branch)
        and not isinstance(before.content, str)
        and all(isinstance(part, Reasoning) for part in before.content)
    )


def _are_related(one: str, other: str) -> bool:
    """Tell whether two branches are the same, or one is above the other; all are below none."""
    return (
        one == other
        or not (one and other)
        or one.startswith(f"{other}.")
        or other.startswith(f"{one}.")
    )


class _Pairs:
    """The calls of a log, and which result answers which.

    Call ids need not be unique: some models count them anew in each turn, and agents that run side
    by side do so each for itself. A result answers the last event before it that has a call of its
    id that is not answered, in its branch, above or below it. So older events decide nothing.
    """

    def __init__(self, shown: Sequence[Event]) -> None:
        self._shown = shown
        # Places of parts, each an event's index and the part's within it.
        self._answered: set[tuple[int, int]] = set()
        self._in_place: set[tuple[int, int]] = set()
        # For each event with calls: what answers them, as (index, part), in the order of the log.
        self._results: defaultdict[int, list[tuple[int, ToolResult]]] = defaultdict(list)

    def find(self) -> Steps[None]:
        """Find the pairs."""
        # By call id, and by branch, that of the newest call at the end.
        waiting: defaultdict[str, dict[str, deque[tuple[int, int]]]] = defaultdict(dict)
        for index, event in enumerate(self._shown):
            yield
            if isinstance(event.content, str):
                continue
            for number, part in enumerate(event.content):
                if isinstance(part, ToolCall):
                    places = waiting[part.call_id].pop(event.branch, None)
                    if places is None or places[0][0] != index:
                        places = deque[tuple[int, int]]()
                    places.append((index, number))
                    waiting[part.call_id][event.branch] = places
                elif isinstance(part, ToolResult):
                    branches = waiting[part.call_id]
                    branch = next(
                        (each for each in reversed(branches) if _are_related(each, event.branch)),
                        None,
                    )
                    if branch is None:
                        continue
                    call = branches[branch].popleft()
                    if not branches[branch]:
                        del branches[branch]
                    self._answered.add(call)
                    if call[0] == index:
                        # A tool that the provider ran itself, within its answer.
                        self._in_place.add((index, number))
                    else:
                        self._results[call[0]].append((index, part))

    def unanswered(self) -> list[ToolCall]:
        """Return the calls without a result."""
        return [
            part
            for index, event in enumerate(self._shown)
            for number, part in enumerate(event.content)
            if isinstance(part, ToolCall) and (index, number) not in self._answered
        ]

    def complete(self, index: int, open_calls: OpenCalls) -> Iterator[Event]:
        """Yield an event as a model may be shown it, and right behind it what answers its calls."""
        event = self._shown[index]
        if isinstance(event.content, str):
            yield event
            return
        omit = open_calls == "omit"
        kept: list[Part] = []
        unanswered: list[ToolCall] = []
        for number, part in enumerate(event.content):
            place = (index, number)
            if isinstance(part, ToolCall) and place not in self._answered:
                unanswered.append(part)
                if omit:
                    continue
            if not isinstance(part, ToolResult) or place in self._in_place:
                kept.append(part)
        if omit and unanswered and all(isinstance(part, Reasoning) for part in kept):
            kept = []  # Thoughts that led to calls alone; providers refuse them without these.
        if kept:
            yield _with(event, kept)
        yield from self._answers(index)
        if unanswered and not omit:
            yield _closing(event, unanswered)

    def _answers(self, index: int) -> Iterator[Event]:
        """Yield the results of an event's calls, those from one event together."""
        together: dict[int, list[Part]] = {}
        for origin, part in self._results.get(index, ()):
            together.setdefault(origin, []).append(part)
        for origin, parts in together.items():
            yield _with(self._shown[origin], parts)


def _with(event: Event, parts: list[Part]) -> Event:
    """Return an event with some of its parts; itself, if these are all."""
    if len(parts) == len(event.content):
        return event
    return msgspec.structs.replace(event, content=parts)


def _closing(event: Event, calls: Sequence[ToolCall]) -> Event:
    """Make the event that closes calls of another one."""
    return Event(
        id=f"{event.id}:closed",
        timestamp=event.timestamp,
        author="tool",
        invocation_id=event.invocation_id,
        branch=event.branch,
        content=[_no_result(call) for call in calls],
    )
