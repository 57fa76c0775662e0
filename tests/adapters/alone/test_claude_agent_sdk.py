"""The Claude Agent SDK's session store, by the SDK's own suite and functions."""

from __future__ import annotations

import gc
import json
import random
import weakref
from asyncio import CancelledError
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any
from uuid import UUID, uuid4

import pytest

pytest.importorskip("claude_agent_sdk", reason="claude-agent-sdk is not installed")

import anyio
import redis
from claude_agent_sdk import (
    ClaudeAgentOptions,
    InMemorySessionStore,
    delete_session_via_store,
    fold_session_summary,
    fork_session_via_store,
    get_session_info_from_store,
    get_session_messages_from_store,
    get_subagent_messages_from_store,
    list_sessions_from_store,
    list_subagents_from_store,
    project_key_for_directory,
    rename_session_via_store,
    tag_session_via_store,
)
from claude_agent_sdk._internal.session_resume import materialize_resume_session
from claude_agent_sdk._internal.transcript_mirror_batcher import TranscriptMirrorBatcher
from claude_agent_sdk.testing import run_session_store_conformance
from hypothesis import given
from hypothesis import strategies as st

from adapters.canonical import said_in
from adapters.frameworks import claude_agent_sdk as framework
from adapters.processes import ROOT
from agentsession import Data, Event, SessionKey, SessionService, Text, ToolCall, ToolResult
from agentsession import open_service as open_store
from agentsession.adapters.claude_agent_sdk import SessionStore
from agentsession.blocking import open_service
from agentsession.demo import SHIPPED_CONVERSATIONS
from agentsession.errors import (
    BackendUnavailableError,
    CodecError,
    EventTooLargeError,
    OutcomeUnknownError,
)
from agentsession.events import Reasoning, new_id
from agentsession.messages import openai_chat

APP = "claude"
KEY = SessionKey(APP, "-home-ada-shop", "s")
CONTRACTS = 14
BESIDE = ROOT.parent / "shared" / "data" / "airline_conversations.jsonl"


@pytest.fixture
def store(service: SessionService) -> SessionStore:
    return SessionStore(service, app_name=APP)


def place(session_id: str = "s", **more: str) -> Any:
    return {"project_key": "-home-ada-shop", "session_id": session_id, **more}


def entry(**fields: Any) -> Any:
    return {"type": "user", **fields}


def said(text: str, **fields: Any) -> Any:
    message = {"role": "user", "content": text}
    moment = "2026-01-02T03:04:05.678Z"
    return entry(uuid=str(uuid4()), timestamp=moment, message=message, **fields)


def messages_of_conversations() -> list[list[dict[str, Any]]]:
    path = BESIDE if BESIDE.is_file() else SHIPPED_CONVERSATIONS
    return [json.loads(line)["messages"] for line in path.read_text("utf-8").splitlines()]


async def test_it_meets_all_contracts_of_the_sdk(
    service: SessionService, capsys: pytest.CaptureFixture[str]
) -> None:
    """The suite that the SDK publishes for stores is run in full, nothing left out."""
    made: list[SessionStore] = []

    def make() -> SessionStore:
        made.append(SessionStore(service, app_name=f"app-{len(made)}"))
        return made[-1]

    await run_session_store_conformance(make)
    # One store for each contract, and one to see which methods it has.
    assert len(made) == CONTRACTS + 1
    with capsys.disabled():
        print(f"\nclaude-agent-sdk: {len(made) - 1} of {CONTRACTS} contracts")  # noqa: T201 - it is to be seen


ASSISTANT: Any = {
    "type": "assistant",
    "uuid": "6f1c7f5e-0000-4000-8000-000000000001",
    "timestamp": "2026-01-02T03:04:06.000Z",
    "requestId": "req_1",
    "message": {
        "id": "msg_1",
        "type": "message",
        "role": "assistant",
        "model": "claude",
        "content": [
            {"type": "thinking", "thinking": "Hm.", "signature": "sig"},
            {"type": "text", "text": "I look."},
            {"type": "tool_use", "id": "toolu_1", "name": "Read", "input": {"path": "a"}},
        ],
        "usage": {"input_tokens": 3, "output_tokens": 4},
    },
}
RESULT: Any = {
    "type": "user",
    "uuid": "6f1c7f5e-0000-4000-8000-000000000002",
    "toolUseResult": {"stdout": "1\n"},
    "message": {
        "role": "user",
        "content": [{"type": "tool_result", "tool_use_id": "toolu_1", "content": "1"}],
    },
}


async def test_readers_see_the_parts_of_what_claude_and_its_user_say(
    service: SessionService, store: SessionStore
) -> None:
    """A transcript is a conversation for everybody who reads the log."""
    await store.append(place(), [said("Hello"), ASSISTANT, RESULT])
    events = await service.get_events(SessionKey(APP, "-home-ada-shop", "s"))
    assert [event.author for event in events] == ["user", "assistant", "tool"]
    assert events[0].text == "Hello"
    assert events[0].timestamp.isoformat() == "2026-01-02T03:04:05.678000+00:00"
    assert isinstance(events[1].content[0], Reasoning)
    assert events[1].text == "I look."
    assert events[1].tool_calls == [ToolCall("toolu_1", "Read", {"path": "a"})]
    assert events[2].tool_results == [ToolResult("toolu_1", "1")]
    assert events[1].id == ASSISTANT["uuid"]
    assert await store.load(place()) == [await first_of(store), ASSISTANT, RESULT]


async def first_of(store: SessionStore) -> Any:
    loaded = await store.load(place())
    assert loaded
    return loaded[0]


@pytest.mark.parametrize(
    "odd",
    [
        {"type": "summary", "summary": "A talk", "leafUuid": "x"},
        {"type": "file-history-snapshot", "snapshot": {"files": [1, 2.5, None, True]}},
        {"type": "user", "message": {"role": "user"}},
        {"type": "user", "message": "no object"},
        {"type": "user", "message": {"role": "user", "content": [{"no": "type"}]}},
        {"type": "assistant", "message": {"role": "robot", "content": "?"}},
        {"type": "x", "uuid": ""},
        {"type": "x", "uuid": 7, "timestamp": 8},
        {"type": "x", "timestamp": "yesterday"},
        {"type": "x", "timestamp": "0001-01-01T00:00:00+10:00"},
        {"type": "x", "$undefined": {"$set": 1}, "": {}},
        {"type": "user", "message": {"role": "user", "content": "cut \ud83d"}},
        {"type": "x", "cut": ["\ude00"]},
    ],
    ids=json.dumps,
)
async def test_an_entry_comes_back_whatever_it_is(store: SessionStore, odd: Any) -> None:
    """Entries are the SDK's business: none is changed, and none refused."""
    await store.append(place(), [odd])
    assert await store.load(place()) == [odd]


async def test_what_is_no_message_is_data(service: SessionService, store: SessionStore) -> None:
    """Readers see that there is something, and what."""
    mode = entry(type="mode", mode="plan")
    await store.append(place(), [mode])
    (event,) = await service.get_events(SessionKey(APP, "-home-ada-shop", "s"))
    assert event.content == [Data(mode, "application/vnd.claude-agent-sdk.entry+json")]


async def test_an_entry_with_a_uuid_is_stored_once(store: SessionStore) -> None:
    """The SDK sends a batch again when it does not know what became of it."""
    one, two = said("one"), said("two")
    await store.append(place(), [one])
    await store.append(place(), [one, two])
    await store.append(place(), [two])
    assert await store.load(place()) == [one, two]


async def test_entries_without_a_uuid_are_no_repeats(store: SessionStore) -> None:
    """Equal titles and modes are set again and again."""
    mode = entry(type="mode", mode="plan")
    await store.append(place(), [mode, mode])
    await store.append(place(), [mode])
    assert await store.load(place()) == [mode] * 3


async def test_a_call_of_unknown_outcome_may_be_repeated(
    service: SessionService, store: SessionStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The mirror repeats it, with the same list: also entries without uuid are there once."""
    append = service.append_events

    async def lose_the_reply(*args: Any, **kwargs: Any) -> None:
        monkeypatch.setattr(service, "append_events", append)
        await append(*args, **kwargs)
        raise OutcomeUnknownError(args[0].key, "the reply is lost")

    monkeypatch.setattr(service, "append_events", lose_the_reply)
    entries = [entry(type="mode", mode="plan"), said("Hello"), entry(type="tag", tag="x")]
    with pytest.raises(OutcomeUnknownError):
        await store.append(place(), entries)
    await store.append(place(), entries)
    assert await store.load(place()) == entries
    await store.append(place(), list(entries))
    assert await store.load(place()) == [*entries, entries[0], entries[2]]


@pytest.mark.parametrize("error", [OutcomeUnknownError, BackendUnavailableError, CancelledError])
@pytest.mark.parametrize("more", [{}, {"subpath": "sub"}])
async def test_a_list_of_which_a_part_is_stored_is_stored_once(
    service: SessionService,
    store: SessionStore,
    monkeypatch: pytest.MonkeyPatch,
    error: type[BaseException],
    more: dict[str, str],
) -> None:
    """The step for its end has failed, in whatever way, and the same is stored again."""
    append, calls = service.append_events, 0

    async def fail_in_the_end(*args: Any, **kwargs: Any) -> Any:
        nonlocal calls
        calls += 1
        if calls == 3:
            raise error if error is CancelledError else error(KEY, "it is gone")
        return await append(*args, **kwargs)

    entries = [entry(type="mode", mode=f"{n}") for n in range(2100)]
    entries.insert(5, entry(type="mode", mode="\ud800"))
    first = Tracked(entries)  # A long one, which nobody may keep alive.
    monkeypatch.setattr(service, "append_events", fail_in_the_end)
    with pytest.raises(error):
        await store.append(place(**more), first)
    gone = weakref.ref(first)
    del first
    gc.collect()
    assert gone() is None
    for _ in range(2):  # The second one is a new call, of new entries.
        await store.append(place(**more), [*entries])
    assert await store.load(place(**more)) == entries * 2


async def test_calls_that_have_failed_take_little_memory(
    service: SessionService, store: SessionStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    """However many there are: the oldest are forgotten."""

    async def fail(*_: Any, **__: Any) -> None:
        raise BackendUnavailableError(KEY, "it is gone")

    monkeypatch.setattr(service, "append_events", fail)
    for number in range(150):
        with pytest.raises(BackendUnavailableError):
            await store.append(place(), [entry(type="mode", mode=f"{number}")])
    assert len(store._failed) == 100


class Tracked(list[Any]):
    """A list of which one can tell whether it is there still."""


async def test_a_fork_of_thousands_of_entries_is_stored(store: SessionStore) -> None:
    """The SDK forks a session by one call, whatever its length."""
    entries = [said(f"{n}") for n in range(2500)]
    await store.append(place(), entries)
    assert await store.load(place()) == entries
    (summary,) = await store.list_session_summaries(place()["project_key"])
    assert summary["data"]["first_prompt"] == "0"


async def test_entries_of_many_megabytes_are_stored(store: SessionStore) -> None:
    """A batch takes as many steps as the store needs for its size."""
    entries = [said("x" * 400_000) for _ in range(90)]
    await store.append(place(), entries)
    assert await store.load(place()) == entries


async def test_an_entry_that_is_too_large_is_refused_by_name(store: SessionStore) -> None:
    """Whoever stores pictures learns what to change."""
    big = said("x" * 600_000)
    with pytest.raises(EventTooLargeError, match=big["uuid"]):
        await store.append(place(), [said("small"), big])
    assert await store.load(place()) is None


@pytest.mark.parametrize("key", [place(""), place(subpath="")])
async def test_an_empty_id_is_refused(store: SessionStore, key: Any) -> None:
    """A store would make up an id of its own."""
    with pytest.raises(ValueError, match="must not be empty"):
        await store.append(key, [said("Hello")])


NAMES = st.text(st.sampled_from("ab/:%#.") | st.characters(codec="utf-8"), min_size=1, max_size=4)
PROJECTS = NAMES | NAMES.map("subpaths:{}".format) | NAMES.map("%subpaths:{}".format)
KEYS = st.tuples(PROJECTS, NAMES) | st.tuples(PROJECTS, NAMES, NAMES)


@given(one=KEYS, other=KEYS)
def test_no_two_transcripts_share_a_place(one: Any, other: Any) -> None:
    """Ids of any characters never reach another session's entries."""
    names = ("project_key", "session_id", "subpath")
    store = SessionStore(open_store("memory://"), app_name=APP)
    places = [store._place(dict(zip(names, each, strict=False))) for each in (one, other)]  # type: ignore[arg-type]
    assert (places[0] == places[1]) == (one == other)


@pytest.mark.parametrize(
    "project", ["p", "subpaths:p:s", "%subpaths:p:s", "a/b", "ada@example.org"]
)
async def test_a_project_of_any_name_keeps_its_own_sessions(
    store: SessionStore, project: str
) -> None:
    """Also one that is called as what the subpaths of another are kept under."""
    main: Any = {"project_key": project, "session_id": "s"}
    sub: Any = {**main, "subpath": "a/b"}
    await store.append(main, [entry(n=1)])
    await store.append(sub, [entry(n=2)])
    await store.append({"project_key": "p", "session_id": "s", "subpath": "x"}, [entry(n=3)])
    assert [each["session_id"] for each in await store.list_sessions(project)] == ["s"]
    assert "a/b" in await store.list_subkeys(main)
    await store.delete(main)
    assert await store.list_sessions(project) == []
    assert (await store.load({"project_key": "p", "session_id": "s", "subpath": "x"}) is None) == (
        project == "p"
    )


# -- summaries


async def fresh(store: SessionStore, key: Any) -> Any:
    return fold_session_summary(None, key, await store.load(key) or [])["data"]


async def kept(store: SessionStore, key: Any) -> Any:
    found = await store.list_session_summaries(key["project_key"])
    return next(each["data"] for each in found if each["session_id"] == key["session_id"])


async def test_the_summary_is_that_of_all_entries_whatever_happens(
    service: SessionService, store: SessionStore
) -> None:
    """Repeats, overlapping batches, other writers, rewinds and state: it never tells old things."""
    dice = random.Random(5)
    there = SessionKey(APP, place()["project_key"], "s")
    known: list[Any] = []
    for number in range(60):
        match dice.randrange(5):
            case 0:
                await service.get_or_create_session(there)
                await service.append_event(there, Event(author="user", content=f"by {number}"))
            case 1:
                await service.get_or_create_session(there)
                await service.update_session_state(there, {"n": number})
            case 2 if await service.get_events(there):
                seq = dice.choice(await service.get_events(there)).seq
                await service.rewind(there, to_seq=seq)
            case _:
                new = [said(f"{number}"), said("t", customTitle=f"title {number}")]
                known += new
                await store.append(place(), dice.sample(known, min(3, len(known))) + new[:1])
        if await service.get_session(there):
            assert await kept(store, place()) == await fresh(store, place()), number


async def test_a_summary_is_not_made_of_entries_that_are_stored_already(
    store: SessionStore,
) -> None:
    """A late repeat of a batch does not bring an old title back."""
    old, new = said("a", customTitle="old"), said("b", customTitle="new")
    await store.append(place(), [old])
    await store.append(place(), [new])
    await store.append(place(), [old])
    assert (await kept(store, place()))["custom_title"] == "new"
    await store.append(place(), [old, said("c")])
    assert (await kept(store, place()))["custom_title"] == "new"


@pytest.mark.parametrize("strange", ["?", "[1, 2]", "7", {"a": 1}])
async def test_strange_state_is_no_summary(
    service: SessionService, store: SessionStore, strange: Any
) -> None:
    """Whoever has stored it under this name: neither lists nor appends fail of it."""
    await store.append(place(), [said("a", customTitle="T")])
    there = SessionKey(APP, place()["project_key"], "s")
    await service.update_session_state(there, {"claude_agent_sdk": strange})
    assert (await kept(store, place()))["custom_title"] == "T"
    await SessionStore(service, app_name=APP).append(place(), [said("b")])
    assert (await kept(store, place()))["custom_title"] == "T"


async def test_lists_need_no_transcripts_where_only_the_sdk_writes(
    service: SessionService, store: SessionStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A list of sessions costs pages, not transcripts."""
    for number in range(3):
        await store.append(place(f"{number}"), [said("Hello"), said("x", customTitle="T")])
    monkeypatch.setattr(store, "load", None)
    monkeypatch.setattr(service, "get_session", None)
    summaries = await store.list_session_summaries(place()["project_key"])
    assert [each["data"]["custom_title"] for each in summaries] == ["T"] * 3


async def test_writers_at_once_lose_nothing_and_spoil_no_summary(
    store_url: str, store_prefix: str
) -> None:
    """Mirrors of several processes append to one session."""
    options = {"key_prefix": store_prefix, "session_event_limit": None}
    async with open_store(store_url, **options) as one, open_store(store_url, **options) as two:  # type: ignore[arg-type]
        services = [one, one] if store_url == "memory://" else [one, two]
        stores = [SessionStore(each, app_name=APP) for each in services]
        batches = [[said(f"{n}", customTitle=f"{n}"), entry(type="mode", n=n)] for n in range(40)]
        async with anyio.create_task_group() as tasks:
            for number, batch in enumerate(batches):
                tasks.start_soon(stores[number % 2].append, place(), batch)
                tasks.start_soon(stores[(number + 1) % 2].append, place(), batch[:1])
        loaded = await stores[0].load(place()) or []
        assert sorted(map(str, loaded)) == sorted(str(each) for batch in batches for each in batch)
        for each in stores:
            assert await kept(each, place()) == await fresh(each, place())


async def test_a_mirror_that_goes_on_appends_without_reading(
    service: SessionService, store: SessionStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What it has stored last is known; what others have done since is not overlooked."""
    await store.append(place(), [said("a", customTitle="A")])
    with monkeypatch.context() as patched:
        patched.setattr(service, "get_or_create_session", None)
        await store.append(place(), [said("b", customTitle="B")])
    other = SessionStore(service, app_name=APP)
    await other.append(place(), [said("c", customTitle="C")])
    await store.append(place(), [said("d")])
    assert (await kept(store, place()))["custom_title"] == "C"
    await service.delete_session(SessionKey(APP, place()["project_key"], "s"))
    await store.append(place(), [said("e")])
    assert await kept(store, place()) == await fresh(store, place())


async def test_a_session_that_cannot_be_read_is_named(valkey_url: str, store_prefix: str) -> None:
    """One of a newer format is in lists, the others are not held up, and it can be deleted."""
    async with open_store(valkey_url, key_prefix=store_prefix) as service:
        store = SessionStore(service, app_name=APP)
        for key in (place(), place("t"), place("t", subpath="a"), place("t", subpath="b")):
            await store.append(key, [said("Hello")])
        client = redis.Redis.from_url(valkey_url)
        for name in client.scan_iter(f"{store_prefix}session:*", count=1000):
            if name.endswith((b":s", b":a")):
                client.hset(name, "v", "2")
        client.close()
        project = place()["project_key"]
        assert {each["session_id"] for each in await store.list_sessions(project)} == {"s", "t"}
        summaries = await store.list_session_summaries(project)
        assert [each["session_id"] for each in summaries] == ["t"]
        assert sorted(await store.list_subkeys(place("t"))) == ["a", "b"]
        with pytest.raises(CodecError):
            await store.load(place())
        await store.delete(place())
        assert [each["session_id"] for each in await store.list_sessions(project)] == ["t"]


async def test_a_few_writers_at_once_keep_the_summary_fresh(
    service: SessionService, store: SessionStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two mirrors of a session do not make every list read its transcript."""
    async with anyio.create_task_group() as tasks:
        for number in range(4):
            tasks.start_soon(store.append, place(), [said(f"{number}", customTitle="T")])
    monkeypatch.setattr(service, "get_session", None)
    assert (await kept(store, place()))["custom_title"] == "T"


def test_mirrors_on_other_loops_and_threads_are_served(store_url: str, store_prefix: str) -> None:
    """A blocking service takes any loop: one a turn, as anyio.run gives it."""
    with open_service(store_url, key_prefix=store_prefix) as service:
        store = SessionStore(service, app_name=APP)

        def turn(number: int) -> None:
            anyio.run(store.append, place(), [entry(n=number)])

        with ThreadPoolExecutor() as threads:
            list(threads.map(turn, range(8)))
        loaded: Any = anyio.run(store.load, place())
        assert sorted(each["n"] for each in loaded) == list(range(8))


# -- the SDK's own functions


@pytest.fixture
def project(tmp_path: Path) -> str:
    return str(tmp_path)


def chained(texts: list[str], session_id: str, parent: str | None = None) -> list[Any]:
    entries: list[Any] = []
    for number, text in enumerate(texts):
        made = said(text, parentUuid=parent, sessionId=session_id, cwd="/shop")
        if number % 2:
            content = [{"type": "text", "text": text}]
            made |= {"type": "assistant", "message": {"role": "assistant", "content": content}}
        parent = made["uuid"]
        entries.append(made)
    return entries


async def mirrored(store: Any, project: str, session_id: str, errors: list[Any]) -> None:
    """Send what Claude Code writes of a session and a subagent, as the SDK's mirror does."""

    async def on_error(key: Any, message: str) -> None:
        errors.append((key, message))

    projects = "/claude/projects"
    key = project_key_for_directory(project)
    batcher = TranscriptMirrorBatcher(store, projects, on_error, max_pending_entries=3)
    entries = chained(["Where is it?", "I look.", "Well?", "Here."], session_id)
    for each in entries:
        batcher.enqueue(f"{projects}/{key}/{session_id}.jsonl", [each])
    sub = f"{projects}/{key}/{session_id}/subagents/agent-7.jsonl"
    batcher.enqueue(sub, [entry(type="agent_metadata", agentType="x", toolUseId="toolu_9")])
    batcher.enqueue(sub, [entry(**each, isSidechain=True) for each in chained(["Do", "Done"], "7")])
    await batcher.flush()
    await batcher.close()


def shape(infos: list[Any]) -> list[Any]:
    return [(info.summary, info.custom_title, info.tag, info.cwd) for info in infos]


async def test_the_functions_of_the_sdk_find_what_its_mirror_has_stored(
    store: SessionStore, project: str
) -> None:
    """All that the SDK does with a store gives what it gives with the SDK's own."""
    mine, theirs, errors = str(uuid4()), InMemorySessionStore(), list[Any]()
    answers: list[Any] = []
    for each in (store, theirs):
        await mirrored(each, project, mine, errors)
        await rename_session_via_store(each, mine, "A title", project)
        await tag_session_via_store(each, mine, "shop", project)
        messages = await get_session_messages_from_store(each, mine, project)
        last = messages[1].uuid
        fork = await fork_session_via_store(each, mine, project, up_to_message_id=last)
        forked = await get_session_messages_from_store(each, fork.session_id, project)
        info = await get_session_info_from_store(each, mine, project)
        listed = await list_sessions_from_store(each, project)
        agents = await list_subagents_from_store(each, mine, project)
        of_agent = await get_subagent_messages_from_store(each, mine, "7", project)
        answers.append(
            [
                [(message.type, message.message) for message in [*messages, *forked, *of_agent]],
                [message.parent_tool_use_id for message in of_agent],
                shape([info]),
                sorted(map(str, shape(listed))),
                agents,
            ]
        )
        await delete_session_via_store(each, mine, project)
        assert len(await list_sessions_from_store(each, project)) == 1
        assert await list_subagents_from_store(each, mine, project) == []
    assert answers[0] == answers[1]
    assert errors == []


async def test_a_session_is_resumed_from_the_store(
    store: SessionStore, project: str, tmp_path: Path
) -> None:
    """What Claude Code is given to resume from is what was mirrored, subagents too."""
    mine, errors = str(uuid4()), list[Any]()
    await mirrored(store, project, mine, errors)
    key: Any = {"project_key": project_key_for_directory(project), "session_id": mine}
    env = {"CLAUDE_CONFIG_DIR": str(tmp_path / "none"), "HOME": str(tmp_path)}
    for how in ({"resume": mine}, {"continue_conversation": True}):
        options = ClaudeAgentOptions(session_store=store, cwd=project, env=env, **how)
        resumed = await materialize_resume_session(options)
        assert resumed is not None
        folder = resumed.config_dir / "projects" / key["project_key"]
        lines = (folder / f"{mine}.jsonl").read_text("utf-8").splitlines()
        assert [json.loads(line) for line in lines] == await store.load(key)
        of_agent = (folder / mine / "subagents" / "agent-7.jsonl").read_text("utf-8").splitlines()
        meta = json.loads((folder / mine / "subagents" / "agent-7.meta.json").read_text("utf-8"))
        assert len(of_agent) == 2
        assert meta["agentType"] == "x"
        await resumed.cleanup()


# -- what others have stored


async def test_conversations_of_others_are_read_by_the_sdk(
    service: SessionService, store: SessionStore, project: str
) -> None:
    """Texts, calls, results and their order: the chain of parents reaches every entry."""
    key = project_key_for_directory(project)
    for messages in messages_of_conversations():
        mine = str(uuid4())
        there = SessionKey(APP, key, mine)
        await service.create_session(there)
        await service.append_events(there, openai_chat.from_messages(messages))
        found = await get_session_messages_from_store(store, mine, project)
        assert [line for each in found for line in framework.said_by(each.message)] == [
            line for line in said_in(messages) if line[:2] != ("text", "system")
        ]
        assert {each.session_id for each in found} == {mine}
        loaded = await store.load({"project_key": key, "session_id": mine})
        assert loaded == await store.load({"project_key": key, "session_id": mine})
        # What OpenAI alone reads: that a message had no content.
        why = {loss.why for loss in loaded.lost}  # type: ignore[union-attr]
        assert why <= {"provider_data of another format has no form here"}
        assert all(UUID(each["uuid"]) for each in loaded or ())
        assert await framework.read(service, there) == said_in(messages)


async def test_conversations_written_by_the_sdk_are_read_by_others(service: SessionService) -> None:
    """All that is said reaches whoever reads parts."""
    for number, messages in enumerate(messages_of_conversations()):
        there = SessionKey(APP, "user", f"{number}")
        await framework.write(service, there, messages)
        session = await service.get_session(there)
        assert session is not None
        assert said_in(openai_chat.to_messages(session.events)) == said_in(messages)  # type: ignore[arg-type]
        assert await framework.read(service, there) == said_in(messages)


async def test_a_conversation_goes_on_here_and_elsewhere(
    service: SessionService, store: SessionStore, project: str
) -> None:
    """From the SDK to another framework, and back: nothing falls out of the chain."""
    mine, key = str(uuid4()), project_key_for_directory(project)
    there = SessionKey(APP, key, mine)
    at: Any = {"project_key": key, "session_id": mine}
    await store.append(at, chained(["one", "two"], mine))
    await service.append_events(
        there,
        [
            Event(author="user", content="three", id="not-hexadecimal"),
            Event(
                author="helper",
                content=[Text("four"), ToolCall("c1", "look", {}), ToolCall("c2", "look", "[]")],
            ),
            Event(author="tool", content=[ToolResult("c2", {"n": 2}), ToolResult("c1", None)]),
        ],
    )
    loaded: Any = await store.load(at)
    last = loaded[-1]["uuid"]
    await store.append(at, chained(["five", "six"], mine, parent=last))
    found = await get_session_messages_from_store(store, mine, project)
    said_here = [line for each in found for line in framework.said_by(each.message)]
    texts = [line[2] for line in said_here if line[0] == "text"]
    assert texts == ["one", "two", "three", "four", "five", "six"]
    assert [line[1] for line in said_here if line[0] == "call"] == ["c1", "c2"]
    fork = await fork_session_via_store(store, mine, project)
    again = await get_session_messages_from_store(store, fork.session_id, project)
    assert [each.message for each in again] == [each.message for each in found]


async def test_what_no_entry_can_say_is_named(service: SessionService, store: SessionStore) -> None:
    """Nothing of another framework is lost in silence."""
    there = SessionKey(APP, place()["project_key"], "s")
    await service.create_session(there)
    hidden = Event(author="helper", content=[Data({"card": 1})], id="hidden")
    await service.append_events(there, [Event(author="user", content="Hello"), hidden])
    loaded: Any = await store.load(place())
    assert len(loaded) == 1
    assert ["hidden" in loss.where for loss in loaded.lost] == [True]


async def test_a_session_without_entries_is_none(
    service: SessionService, store: SessionStore
) -> None:
    """An empty transcript would be resumed as one that is there."""
    await service.create_session(SessionKey(APP, place()["project_key"], "s"))
    assert await store.load(place()) is None
    assert await store.list_session_summaries(place()["project_key"]) == []


def test_only_a_service_is_taken() -> None:
    """A mistake is told where it is made."""
    with pytest.raises(TypeError, match="takes a SessionService"):
        SessionStore(object(), app_name=APP)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="app_name must not be empty"):
        SessionStore(open_store("memory://"), app_name="")


def test_ids_of_events_are_uuids_for_the_sdk() -> None:
    """The SDK looks for uuids where it forks; the events' own ids are kept where they can be."""
    from agentsession.adapters.claude_agent_sdk import _uuid_of

    made = new_id()
    assert _uuid_of(made, 0).hex == made
    assert len({_uuid_of(made, 0), _uuid_of(made, 1), _uuid_of("z" * 32, 0)}) == 3
