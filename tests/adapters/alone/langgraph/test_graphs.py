"""Graphs of LangGraph on the checkpointer: as on LangGraph's own, and after a process has died."""

from __future__ import annotations

import asyncio
import operator
import threading
from collections.abc import Awaitable, Callable, Iterator
from typing import Annotated, Any, TypeAlias

import pytest

pytest.importorskip("langgraph", reason="LangGraph is not installed")

from langchain_core.messages import AIMessage, HumanMessage
from langchain_core.runnables import RunnableConfig
from langgraph.channels.delta import DeltaChannel
from langgraph.checkpoint.base import BaseCheckpointSaver
from langgraph.checkpoint.memory import InMemorySaver
from langgraph.graph import END, START, MessagesState, StateGraph
from langgraph.types import Command, Send, StateSnapshot, interrupt
from typing_extensions import TypedDict

from adapters.operations import Operations
from adapters.processes import program
from agentsession import SessionService, open_service
from agentsession.adapters.langgraph import Checkpointer
from agentsession.blocking import BlockingSessionService
from agentsession.blocking import open_service as open_blocking

CONFIG: RunnableConfig = {"configurable": {"thread_id": "t"}}

Make: TypeAlias = Callable[[], BaseCheckpointSaver[str]]
Story: TypeAlias = Callable[[Make], Awaitable[list[Any]]]


class State(TypedDict):
    seen: Annotated[list[str], operator.add]


def _extended(state: list[str], writes: list[list[str]]) -> list[str]:
    return [*state, *(each for write in writes for each in write)]


class DeltaState(TypedDict):
    seen: Annotated[list[str], DeltaChannel(_extended, snapshot_frequency=4)]


class PureDeltaState(TypedDict):
    seen: Annotated[list[str], DeltaChannel(_extended, snapshot_frequency=1000)]


def told(snapshot: StateSnapshot) -> dict[str, Any]:
    """What a user sees of a state, but for ids and times, which are new each time."""
    metadata = snapshot.metadata or {}
    return {
        "values": snapshot.values,
        "next": snapshot.next,
        "source": metadata.get("source"),
        "step": metadata.get("step"),
        "tasks": [
            (task.name, task.error, [each.value for each in task.interrupts], task.result)
            for task in snapshot.tasks
        ],
        "has parent": snapshot.parent_config is not None,
    }


async def history(graph: Any, config: RunnableConfig = CONFIG, **options: Any) -> list[Any]:
    return [told(each) async for each in graph.aget_state_history(config, **options)]


def step(name: str) -> Callable[[Any], dict[str, list[str]]]:
    return lambda _: {"seen": [name]}


def in_a_row(state: type, *names: str) -> Any:
    builder: Any = StateGraph(state)
    for name in names:
        builder.add_node(name, step(name))
    for before, after in zip((START, *names), (*names, END), strict=True):
        builder.add_edge(before, after)
    return builder


# -- what happens, told to a checkpointer that is made anew for each part of it


async def turns(make: Make) -> list[Any]:
    """Several turns, each in another process."""
    builder = in_a_row(State, "a", "b", "c")
    for number in range(4):
        graph = builder.compile(checkpointer=make())
        await graph.ainvoke({"seen": [str(number)]}, CONFIG)
    graph = builder.compile(checkpointer=make())
    return [told(await graph.aget_state(CONFIG)), *await history(graph)]


async def interrupts(make: Make) -> list[Any]:
    """Two questions to a person, each answered elsewhere."""
    builder: Any = StateGraph(State)
    builder.add_node("ask", lambda _: {"seen": [interrupt("first?"), interrupt("second?")]})
    builder.add_edge(START, "ask")
    found: list[Any] = []
    parts: list[Any] = [{"seen": ["begun"]}, Command(resume="one"), Command(resume="two")]
    for part in parts:
        graph = builder.compile(checkpointer=make())
        await graph.ainvoke(part, CONFIG)
        found.append(told(await builder.compile(checkpointer=make()).aget_state(CONFIG)))
    return [*found, *await history(builder.compile(checkpointer=make()))]


async def failures(make: Make) -> list[Any]:
    """One of several tasks fails, when the others are done; these are not done again."""
    runs: list[str] = []
    is_broken = True

    async def others_are_stored() -> None:
        writes: list[Any] = []
        while len(writes) < 4:
            await asyncio.sleep(0)
            found = await make().aget_tuple(CONFIG)
            writes = [] if found is None else found.pending_writes or []

    async def work(state: dict[str, str]) -> dict[str, list[str]]:
        runs.append(state["name"])
        if state["name"] == "2" and is_broken:
            await others_are_stored()
            msg = "out of order"
            raise RuntimeError(msg)
        return {"seen": [state["name"]]}

    builder: Any = StateGraph(State)
    builder.add_node("work", work)
    builder.add_conditional_edges(
        START, lambda _: [Send("work", {"name": str(number)}) for number in range(5)]
    )
    with pytest.raises(RuntimeError, match="out of order"):
        await builder.compile(checkpointer=make()).ainvoke({"seen": ["begun"]}, CONFIG)
    broken = await history(builder.compile(checkpointer=make()))
    is_broken = False
    await builder.compile(checkpointer=make()).ainvoke(None, CONFIG)
    assert sorted(runs) == ["0", "1", "2", "2", "3", "4"]
    return [*broken, *await history(builder.compile(checkpointer=make()))]


async def time_travel(make: Make) -> list[Any]:
    """Back to a checkpoint: another branch by an update, and a run from there."""
    builder = in_a_row(State, "a", "b", "c")
    await builder.compile(checkpointer=make()).ainvoke({"seen": ["begun"]}, CONFIG)
    graph = builder.compile(checkpointer=make())
    states = [each async for each in graph.aget_state_history(CONFIG)]
    [middle] = [each for each in states if each.next == ("b",)]
    fork = await graph.aupdate_state(middle.config, {"seen": ["changed"]}, as_node="a")
    graph = builder.compile(checkpointer=make())
    forked = await graph.ainvoke(None, fork)
    again = await graph.ainvoke(None, middle.config)
    found = await history(graph, limit=5)
    found += await history(graph, before=middle.config)
    return [forked, again, *found, *await history(graph, filter={"source": "fork"})]


async def subgraphs(make: Make) -> list[Any]:
    """A graph in a graph, with a question inside; each has a namespace of its own."""

    def question(_: State) -> dict[str, list[str]]:
        return {"seen": [f"inner {interrupt('inner?')}"]}

    inner: Any = StateGraph(State)
    inner.add_node("first", step("first"))
    inner.add_node("question", question)
    inner.add_edge(START, "first")
    inner.add_edge("first", "question")
    outer: Any = StateGraph(State)
    outer.add_node("inner", inner.compile())
    outer.add_node("last", step("last"))
    outer.add_edge(START, "inner")
    outer.add_edge("inner", "last")
    found: list[Any] = []
    for number in range(2):
        graph = outer.compile(checkpointer=make())
        await graph.ainvoke({"seen": [str(number)]}, CONFIG)
        graph = outer.compile(checkpointer=make())
        [task] = (await graph.aget_state(CONFIG, subgraphs=True)).tasks
        assert isinstance(task.state, StateSnapshot)
        found += [told(task.state), *await history(graph, task.state.config)]
        await outer.compile(checkpointer=make()).ainvoke(Command(resume=str(number)), CONFIG)
    return [*found, *await history(outer.compile(checkpointer=make()))]


async def lasting_subgraph(make: Make) -> list[Any]:
    """A graph in a graph that remembers what it did before."""
    outer: Any = StateGraph(State)
    outer.add_node("inner", in_a_row(State, "x", "y").compile(checkpointer=True))
    outer.add_edge(START, "inner")
    for number in range(3):
        graph = outer.compile(checkpointer=make())
        await graph.ainvoke({"seen": [str(number)]}, CONFIG)
    graph = outer.compile(checkpointer=make())
    inner: RunnableConfig = {"configurable": {"thread_id": "t", "checkpoint_ns": "inner"}}
    return [*await history(graph), *await history(graph, inner)]


async def deltas(make: Make) -> list[Any]:
    """A channel that stores what was written to it, and its value now and then."""
    builder = in_a_row(DeltaState, "a", "b", "c")
    for number in range(5):
        await builder.compile(checkpointer=make()).ainvoke({"seen": [str(number)]}, CONFIG)
    return await history(builder.compile(checkpointer=make()))


async def messages(make: Make) -> list[Any]:
    """Messages, of which one takes the place of another."""
    builder: Any = StateGraph(MessagesState)
    builder.add_node("answer", lambda state: {"messages": [AIMessage("hi", id="1")]})
    builder.add_edge(START, "answer")
    for _ in range(3):
        graph = builder.compile(checkpointer=make())
        await graph.ainvoke({"messages": [HumanMessage("hello", id="0")]}, CONFIG)
    return await history(builder.compile(checkpointer=make()))


STORIES = [
    turns,
    interrupts,
    failures,
    time_travel,
    subgraphs,
    lasting_subgraph,
    deltas,
    messages,
]


@pytest.mark.parametrize("story", STORIES, ids=lambda story: story.__name__)
async def test_a_graph_does_as_on_the_saver_of_langgraph(
    story: Story, service: SessionService
) -> None:
    """With nothing remembered from one part to the next, as if each ran in a new process."""
    saver = InMemorySaver()
    expected = await story(lambda: saver)
    assert await story(lambda: Checkpointer(service)) == expected
    await service.delete_session(Checkpointer(service)._access.key_of("t"))
    lasting = Checkpointer(service)
    assert await story(lambda: lasting) == expected


@pytest.mark.parametrize("durability", ["sync", "async", "exit"])
@pytest.mark.parametrize("state", [State, DeltaState], ids=["values", "deltas"])
async def test_a_graph_may_store_when_it_likes(
    state: type, durability: Any, service: SessionService
) -> None:
    """At each step, behind it, or in the end."""

    async def story(make: Make) -> list[Any]:
        for number in range(4):
            graph = in_a_row(state, "a", "b").compile(checkpointer=make())
            await graph.ainvoke({"seen": [str(number)]}, CONFIG, durability=durability)
        return await history(in_a_row(state, "a", "b").compile(checkpointer=make()))

    saver = InMemorySaver()
    assert await story(lambda: Checkpointer(service)) == await story(lambda: saver)


async def test_deltas_survive_what_hides_the_checkpoints_they_are_of(
    service: SessionService,
) -> None:
    """Pruned, or of a deleted run: what they have written is part of what came after them."""
    builder = in_a_row(PureDeltaState, "a", "b", "c")
    graph = builder.compile(checkpointer=Checkpointer(service))
    for number in range(3):
        run: RunnableConfig = {**CONFIG, "metadata": {"run_id": f"r{number}"}}
        await graph.ainvoke({"seen": [str(number)]}, run)
    expected = (await graph.aget_state(CONFIG)).values
    assert expected["seen"] == ["0", "a", "b", "c", "1", "a", "b", "c", "2", "a", "b", "c"]
    await Checkpointer(service).adelete_for_runs(["r0"])
    graph = builder.compile(checkpointer=Checkpointer(service))
    assert (await graph.aget_state(CONFIG)).values == expected
    await Checkpointer(service).aprune(["t"])
    graph = builder.compile(checkpointer=Checkpointer(service))
    assert (await graph.aget_state(CONFIG)).values == expected
    assert len(await history(graph)) == 1
    await Checkpointer(service).acopy_thread("t", "copy")
    copy: RunnableConfig = {"configurable": {"thread_id": "copy"}}
    assert (await graph.aget_state(copy)).values == expected


async def test_what_a_channel_was_written_is_told_as_by_the_saver_of_langgraph(
    service: SessionService,
) -> None:
    """Of a checkpoint, of the newest one, and of a thread that does not exist."""
    savers: list[BaseCheckpointSaver[str]] = [InMemorySaver(), Checkpointer(service)]
    for saver in savers:
        graph = in_a_row(DeltaState, "a", "b").compile(checkpointer=saver)
        for number in range(3):
            await graph.ainvoke({"seen": [str(number)]}, CONFIG)
    configs: list[list[RunnableConfig]] = []
    for saver in savers:
        found = [each.config async for each in saver.alist(CONFIG)]
        configs.append([CONFIG, *found, {"configurable": {"thread_id": "never"}}])
    for expected, given in zip(*configs, strict=True):
        told_by = [
            await saver.aget_delta_channel_history(config=config, channels=["seen", "no such"])
            for saver, config in zip(savers, (expected, given), strict=True)
        ]
        values = [
            {name: ([write[1:] for write in each["writes"]], each.get("seed"))}
            for history in told_by
            for name, each in history.items()
        ]
        assert values[: len(values) // 2] == values[len(values) // 2 :]


async def test_long_changes_take_few_calls(service: SessionService) -> None:
    """Each step of a graph reads all that was written to a channel since it last had a value."""
    asked = Operations()
    counted = SessionService(service.backend, observers=[asked])
    builder = in_a_row(PureDeltaState, "a", "b", "c")
    graph = builder.compile(checkpointer=Checkpointer(service))
    for number in range(20):
        await graph.ainvoke({"seen": [str(number)]}, CONFIG)
    state = await builder.compile(checkpointer=Checkpointer(counted)).aget_state(CONFIG)
    assert len(state.values["seen"]) == 80
    assert len(asked.names) == 7


@pytest.fixture
def blocking(store_url: str, store_prefix: str) -> Iterator[BlockingSessionService]:
    """A service for code without a loop, on each store."""
    options: dict[str, Any] = {"key_prefix": store_prefix, "session_event_limit": None}
    with open_blocking(store_url, **options) as opened:
        yield opened


@pytest.mark.parametrize("state", [State, DeltaState], ids=["values", "deltas"])
def test_a_graph_runs_without_a_loop(state: type, blocking: BlockingSessionService) -> None:
    """``invoke``, from several threads at once, each on a thread of its own."""
    builder = in_a_row(state, "a", "b", "c")
    graph = builder.compile(checkpointer=Checkpointer(blocking))

    def run(thread_id: str) -> None:
        config: RunnableConfig = {"configurable": {"thread_id": thread_id}}
        for number in range(5):
            graph.invoke({"seen": [str(number)]}, config)

    workers = [threading.Thread(target=run, args=(f"t{number}",)) for number in range(4)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    saver = InMemorySaver()
    peer = builder.compile(checkpointer=saver)
    for number in range(5):
        peer.invoke({"seen": [str(number)]}, CONFIG)
    expected = [told(each) for each in peer.get_state_history(CONFIG)]
    other = builder.compile(checkpointer=Checkpointer(blocking))
    for number in range(4):
        config: RunnableConfig = {"configurable": {"thread_id": f"t{number}"}}
        assert [told(each) for each in other.get_state_history(config)] == expected


# -- processes


def test_a_process_that_is_killed_in_a_tool_is_taken_over(
    valkey_url: str, store_prefix: str
) -> None:
    """The model is not asked again for what it has said, and the conversation goes on."""
    where = valkey_url, store_prefix, "t"
    with program("langgraph_turns", *where) as first:
        first.say("one")
        assert first.answer() == {"at": "tool"}
        first.say()
        answer = first.answer()
        assert (answer["said"], answer["saw"]) == ("one: It rains in Oslo.", 4)
        first.say("two")
        assert first.answer() == {"at": "tool"}
        first.kill()
    with program("langgraph_turns", *where) as second:
        second.say("go on")
        assert second.answer() == {"at": "tool"}
        second.say()
        answer = second.answer()
        assert (answer["said"], answer["saw"]) == ("two: It rains in Oslo.", 8)
        assert answer["calls"] == 1
        second.say("three")
        assert second.answer() == {"at": "tool"}
        second.say()
        assert second.answer()["saw"] == 12


async def test_two_processes_on_one_thread_lose_no_checkpoint(
    valkey_url: str, store_prefix: str
) -> None:
    """Each makes turns as fast as it can; every checkpoint is in the list once."""
    where = valkey_url, store_prefix, "t"
    made: list[str] = []
    with program("langgraph_turns", *where) as one, program("langgraph_turns", *where) as other:
        for _ in range(8):
            for each in (one, other):
                each.say("go")
            for each in (one, other):
                assert each.answer() == {"at": "tool"}
                each.say()
            for each in (one, other):
                made += each.answer()["made"]
    assert len(made) >= 8 * 2 * 4
    async with open_service(
        valkey_url, key_prefix=store_prefix, session_event_limit=None
    ) as service:
        saver = Checkpointer(service)
        found = [each.checkpoint["id"] async for each in saver.alist(CONFIG)]
    assert found == sorted(set(made), reverse=True)
    assert len(made) == len(set(made))
