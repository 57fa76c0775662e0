"""What of a log a model may be shown: each rule on random logs, and the cases that taught it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from agentsession import Event, Text, ToolCall, ToolResult
from agentsession._pace import drained
from agentsession.events import EventError, Part, Reasoning
from agentsession.history import NO_RESULT, View

VIEWS = st.builds(
    View,
    max_turns=st.none() | st.integers(1, 4),
    open_calls=st.sampled_from(["close", "omit"]),
    from_user=st.booleans(),
) | st.builds(
    View,
    max_tokens=st.integers(1, 12),
    count_tokens=st.just(lambda event: len(event.content)),
    open_calls=st.sampled_from(["close", "omit"]),
)

call_ids = st.sampled_from(["c1", "c2", "c3"])
parts = st.one_of(
    st.just(Text("words")),
    st.just(Reasoning("thoughts")),
    st.builds(ToolCall, call_ids, st.just("tool")),
    st.builds(ToolCall, call_ids, st.just("tool")),
    st.builds(ToolResult, call_ids, st.integers(0, 9)),
    st.builds(ToolResult, call_ids, st.integers(0, 9)),
)
contents = st.sampled_from(["", "words"]) | st.lists(parts, max_size=4)


@st.composite
def logs(draw: st.DrawFn, least: int = 0) -> list[Event]:
    """A log as no model should ever see it."""
    drawn = draw(
        st.lists(
            st.tuples(
                st.sampled_from(["user", "agent", "agent", "tool"]),
                contents,
                st.sampled_from(["", "", "t1", "t2", "own"]),
                st.booleans(),
                st.sampled_from(["", "", "a", "b", "a.c"]),
            ),
            min_size=least,
            max_size=14,
        )
    )
    return [
        Event(
            id=f"e{seq}",
            author=author,
            content=content,
            invocation_id=f"e{seq}" if turn == "own" else turn,
            branch=branch,
            error=EventError("it failed") if failed else None,
            seq=seq,
        )
        for seq, (author, content, turn, failed, branch) in enumerate(drawn, 1)
    ]


def parts_of(event: Event) -> Sequence[Part]:
    return [Text(event.content)] if isinstance(event.content, str) else event.content


def problems(view: Sequence[Event]) -> Iterator[str]:
    """Say what a provider would refuse, by the rules of the strictest of them."""
    open_ids: list[str] = []
    for event in view:
        if not event.content or event.partial:
            yield f"{event.id} is empty, or a chunk"
        own: list[str] = []
        others = False
        for part in parts_of(event):
            if isinstance(part, ToolCall):
                own.append(part.call_id)
            elif isinstance(part, ToolResult):
                known = own if part.call_id in own else open_ids
                if part.call_id in known:
                    known.remove(part.call_id)
                else:
                    yield f"{event.id} answers {part.call_id}, which is not open"
            else:
                others = True
        if open_ids and (others or own):
            yield f"{event.id} comes before {open_ids} are answered"
        open_ids += own
    if open_ids:
        yield f"{open_ids} are never answered"


def closes(event: Event) -> bool:
    return event.id.endswith(":closed")


@given(logs(), VIEWS)
def test_every_call_has_its_result_right_behind_it(log: list[Event], view: View) -> None:
    """And no result is without its call, whatever was left out."""
    assert list(problems(view.of(log))) == []


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        ([[ToolCall("c", "t")]], "never answered"),
        ([[ToolResult("c", 1)]], "not open"),
        ([[ToolCall("c", "t")], "words", [ToolResult("c", 1)]], "comes before"),
        ([[ToolCall("c", "t")], [ToolResult("c", 1)], [ToolResult("c", 2)]], "not open"),
        ([""], "is empty"),
    ],
)
def test_the_checker_sees_what_is_wrong(content: list[Any], problem: str) -> None:
    """A log as it is has each of these."""
    assert problem in "; ".join(problems([Event(author="a", content=each) for each in content]))


@given(logs(), VIEWS)
def test_nothing_is_invented_nor_said_twice(log: list[Event], view: View) -> None:
    """Each part is of the log, at most once, in an event that says where it is from."""
    stored = {event.id: event for event in log}
    shown: Counter[int] = Counter()
    for event in view.of(log):
        if closes(event):
            calls = {call.call_id for call in stored[event.id.removesuffix(":closed")].tool_calls}
            for part in parts_of(event):
                assert isinstance(part, ToolResult)
                assert (part.result, part.is_error) == (NO_RESULT, True)
                assert part.call_id in calls
            continue
        origin = stored[event.id]
        assert msgspec.structs.replace(event, content=origin.content) == origin
        if isinstance(origin.content, str):
            assert event is origin
            shown[id(origin)] += 1
        else:
            own = [id(part) for part in origin.content]
            for part in parts_of(event):
                assert id(part) in own
    assert set(shown.values()) <= {1}


@given(logs())
def test_all_that_can_be_shown_is(log: list[Event]) -> None:
    """Without bounds nothing is left out but what the rules name; results move, others stay."""
    view = View().of(log)
    said = [
        (event.id, part)
        for event in log
        for part in parts_of(event)
        if event.content and not isinstance(part, ToolResult)
    ]
    kept = [
        (event.id, part)
        for event in view
        for part in parts_of(event)
        if not isinstance(part, ToolResult)
    ]
    assert kept == said
    assert {id(event) for event in view} >= {
        id(event) for event in log if isinstance(event.content, str) and event.content
    }


@given(logs(), VIEWS)
def test_nothing_is_left_to_do_on_a_view(log: list[Event], view: View) -> None:
    """So it can be handed through several hands, if positions do not show gaps."""
    once = view.of([msgspec.structs.replace(event, seq=0) for event in log])
    assert View(open_calls=view.open_calls).of(once) == once


@given(logs(), st.integers(1, 4), st.booleans())
def test_turns_are_shown_whole(log: list[Event], most: int, from_user: bool) -> None:
    """Fewer turns are the end of more turns, cut where a turn begins."""
    every = View().of(log)
    fewer = View(max_turns=most, from_user=from_user).of(log)
    assert fewer == (every[-len(fewer) :] if fewer else [])
    if fewer and len(fewer) < len(every):
        first = fewer[0]
        assert first.author == "user" or first.invocation_id == first.id
    if from_user and fewer:
        assert fewer[0].author == "user"
        assert not fewer[0].tool_results or len(parts_of(fewer[0])) > len(fewer[0].tool_results)
    if fewer and not from_user:
        more = View(max_turns=most + 1).of(log)
        assert len(more) >= len(fewer)
        assert len(View(max_turns=100).of(log)) == len(every)


@given(logs(), st.integers(1, 20))
def test_a_budget_holds(log: list[Event], budget: int) -> None:
    """The newest turn is there; others as far as they fit, and no fewer than that."""

    def tokens(events: Sequence[Event]) -> int:
        return sum(len(parts_of(event)) for event in events)

    def count(event: Event) -> int:
        return tokens([event])

    view = View(max_tokens=budget, count_tokens=count).of(log)
    by_turns = [View(max_turns=most).of(log) for most in range(1, 16)]
    fitting = [each for each in by_turns if tokens(each) <= budget]
    assert view == max([by_turns[0], *fitting], key=len)


@given(logs(least=1), VIEWS, st.data())
def test_the_end_of_a_log_is_enough_once_it_is_settled(
    log: list[Event], view: View, data: st.DataObject
) -> None:
    """A reader that goes back page by page may stop there."""
    end = log[data.draw(st.integers(0, len(log) - 1)) :]
    found = drained(view.in_steps(end, is_all=False))
    assert found is None or found == view.of(log)


def test_few_turns_are_settled_soon() -> None:
    """A view of two turns needs no more than the log of these."""
    log = [
        Event(author=author, content="words", seq=seq)
        for seq, author in enumerate(["user", "agent"] * 10, 1)
    ]
    view = View(max_turns=2)
    for count in range(1, 7):
        found = drained(view.in_steps(log[-count:], is_all=False))
        assert found == (log[-4:] if count >= 4 else None)
    budget = View(max_tokens=3, count_tokens=lambda _: 1)
    for count in range(1, 7):
        found = drained(budget.in_steps(log[-count:], is_all=False))
        assert found == (log[-2:] if count >= 4 else None)
    assert drained(View().in_steps(log, is_all=False)) is None


def test_a_result_that_came_late_stands_behind_its_call() -> None:
    """Two agents side by side store their calls before the results, and the user speaks between."""
    first, second = ToolCall("c1", "t"), ToolCall("c2", "t")
    log = [
        Event(id="u", author="user", content="go"),
        Event(id="a", author="a", content=[Text("both"), first, second]),
        Event(id="b", author="b", content=[ToolCall("c3", "t")]),
        Event(id="s", author="user", content="and hurry", invocation_id="x"),
        Event(id="r", author="tool", content=[ToolResult("c2", 2), ToolResult("c3", 3)]),
        Event(id="q", author="tool", content=[ToolResult("c1", 1)]),
    ]
    view = View().of(log)
    assert [(event.id, [part.call_id for part in event.tool_results]) for event in view] == [
        ("u", []),
        ("a", []),
        ("r", ["c2"]),
        ("q", ["c1"]),
        ("b", []),
        ("r", ["c3"]),
        ("s", []),
    ]


def test_ids_that_are_used_again_pair_within_their_turn() -> None:
    """Some models count their calls anew in each turn, and the first one was cut off."""
    call = ToolCall("call_1", "t")
    log = [
        Event(id="u1", author="user", content="one"),
        Event(id="a1", author="a", content=[call]),
        Event(id="u2", author="user", content="two"),
        Event(id="a2", author="a", content=[call]),
        Event(id="r2", author="tool", content=[ToolResult("call_1", 2)]),
    ]
    assert [event.id for event in View().of(log)] == ["u1", "a1", "a1:closed", "u2", "a2", "r2"]
    assert [event.id for event in View(open_calls="omit").of(log)] == ["u1", "u2", "a2", "r2"]


def test_half_a_turn_at_the_front_is_left_out() -> None:
    """Unless there is nothing else: the turn that goes on may be longer than the limit."""
    log = [
        Event(author="tool", content=[ToolResult("c", 1)], seq=7),
        Event(author="a", content="so it is", seq=8),
        Event(author="user", content="next", seq=9),
    ]
    assert View().of(log) == log[2:]
    assert View().of(log[:2]) == log[1:2]
    greeting = [Event(author="a", content="Welcome!", seq=1), log[2]]
    assert View().of(greeting) == greeting
    assert View(from_user=True).of(greeting) == log[2:]


def test_thoughts_go_with_the_calls_that_they_led_to() -> None:
    """A provider refuses them alone; words that were said stay."""
    log = [
        Event(id="u", author="user", content="go"),
        Event(id="a", author="a", content=[Reasoning("so"), ToolCall("c", "t")]),
        Event(id="b", author="b", content=[Reasoning("so"), Text("well"), ToolCall("d", "t")]),
    ]
    assert [(event.id, event.content) for event in View(open_calls="omit").of(log)] == [
        ("u", "go"),
        ("b", [Reasoning("so"), Text("well")]),
    ]


def test_what_a_provider_ran_itself_stays_in_its_event() -> None:
    """A call and its result in one event are a pair already."""
    event = Event(author="a", content=[ToolCall("c", "t"), ToolResult("c", 1), Text("so")])
    assert View().of([event])[0] is event


@pytest.mark.parametrize(
    ("options", "problem"),
    [
        ({"max_turns": 0}, "max_turns must be 1 or more, not 0"),
        ({"max_turns": "2"}, "max_turns must be an int, not str"),
        ({"max_tokens": 10}, "max_tokens and count_tokens go together"),
        ({"count_tokens": len}, "max_tokens and count_tokens go together"),
        ({"max_tokens": 10, "count_tokens": 4}, "count_tokens must be a function"),
        ({"open_calls": "drop"}, "open_calls must be 'close' or 'omit', not 'drop'"),
    ],
)
def test_wrong_options_say_so(options: dict[str, Any], problem: str) -> None:
    """Before anything is read."""
    with pytest.raises((TypeError, ValueError), match=problem):
        View(**options)


def test_what_begins_a_turn() -> None:
    """A message of the user's, unless it goes into a turn; and whatever gave a turn its id."""
    log = [
        Event(id="u", author="user", content="go", invocation_id="u"),
        Event(id="a", author="a", content="I go", invocation_id="u"),
        Event(id="s", author="user", content="faster", invocation_id="u"),
        Event(id="c", author="a", content="…", invocation_id="u", partial=True),
        Event(id="b", author="a", content="I run", invocation_id="u"),
        Event(id="t", author="timer", content="it is nine", invocation_id="t"),
        Event(id="d", author="a", content="good morning", invocation_id="t"),
        Event(id="v", author="user", content="hello", invocation_id="own"),
    ]
    log = [msgspec.structs.replace(event, seq=seq) for seq, event in enumerate(log, 5)]

    def shown(view: View, first: str = "u") -> list[str] | None:
        start = [event.id for event in log].index(first)
        found = drained(view.in_steps(log[start:], is_all=False))
        return None if found is None else [event.id for event in found]

    assert [event.id for event in View().of(log)] == ["u", "a", "s", "b", "t", "d", "v"]
    assert shown(View(max_turns=2)) == ["t", "d", "v"]
    assert shown(View(max_turns=2, from_user=True)) == ["v"]
    assert shown(View(max_turns=3)) == ["u", "a", "s", "b", "t", "d", "v"]
    # Without what came before, it could as well begin a turn.
    assert shown(View(max_turns=3), "s") is None
    assert shown(View(max_turns=1), "v") is None
    assert shown(View(max_turns=1), "d") == ["v"]
    assert shown(View(max_tokens=1, count_tokens=lambda _: 1), "v") is None


def test_agents_side_by_side_have_their_own_results() -> None:
    """Though both count their calls from the same number: the branch tells them apart."""
    call: list[Part] = [ToolCall("call_0", "t")]

    def answer(name: str, branch: str) -> Event:
        return Event(id=name, author="tool", content=[ToolResult("call_0", name)], branch=branch)

    log = [
        Event(id="u", author="user", content="go"),
        Event(id="a", author="a", content=call, branch="a"),
        Event(id="b", author="b", content=call, branch="b"),
        answer("ra", "a"),
        answer("rb", "b"),
    ]
    assert [event.id for event in View().of(log)] == ["u", "a", "ra", "b", "rb"]
    # Of another branch it answers neither, and without one of its own the newest call.
    assert [event.id for event in View(open_calls="omit").of([*log[:3], answer("r", "c")])] == ["u"]
    below = View(open_calls="omit").of([*log[:3], answer("r", "a.tool")])
    assert [event.id for event in below] == ["u", "a", "r"]
    assert [event.id for event in View().of([*log[:3], answer("r", "")])] == [
        *("u", "a", "a:closed", "b", "r"),
    ]


def test_thoughts_of_their_own_go_with_the_calls_that_are_left_out() -> None:
    """Some formats have them as events by themselves; others stay."""
    thought = Event(id="r", author="a", content=[Reasoning("so")])
    log = [
        Event(id="u", author="user", content="go"),
        Event(id="q", author="a", content=[Reasoning("first")]),
        Event(id="w", author="a", content="well"),
        thought,
        thought,
        Event(id="c", author="a", content=[ToolCall("c", "t")]),
    ]
    assert [event.id for event in View(open_calls="omit").of(log)] == ["u", "q", "w"]
    assert [event.id for event in View().of(log)] == ["u", "q", "w", "r", "r", "c", "c:closed"]
