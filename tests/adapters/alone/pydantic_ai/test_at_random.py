"""Random calls, beside the framework's own store."""

from __future__ import annotations

import asyncio
import copy
from collections.abc import Sequence
from dataclasses import replace
from typing import Any
from uuid import uuid4

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

pytest.importorskip("pydantic_ai")

from pydantic_ai.conversation import Conversation
from pydantic_ai.conversation_store import ConversationStore as AnyStore
from pydantic_ai.conversation_store import InMemoryConversationStore
from pydantic_ai.exceptions import UserError

from adapters.alone.pydantic_ai.conversing import store_of, talk, words
from agentsession import SessionService, open_service


class Beside:
    """The same is done to this store and to the framework's own, and the same comes of it."""

    def __init__(self, service: SessionService) -> None:
        self.stores: list[AnyStore] = [store_of(service), InMemoryConversationStore()]
        self.number = 0

    async def both(self, act: Any) -> Any:
        """Do something to both; compare what comes of it, and return it."""
        outcomes: list[Any] = []
        for store in self.stores:
            try:
                outcomes.append(await act(store))
            except (UserError, LookupError) as exc:
                outcomes.append(type(exc))
        assert outcomes[0] == outcomes[1]
        return outcomes[0]

    async def compare(self, names: Sequence[str]) -> None:
        for name in names:
            await self.both(lambda store, name=name: seen_of(store, name))
        await self.both(listed)


async def seen_of(store: AnyStore, name: str) -> Any:
    record = await store.read_record(name)
    if record is None:
        return None
    conversation = await store.load(name)
    window = await store.load(name, limit=2)
    assert conversation is not None
    assert window is not None
    branches = [words([e.message for e in await store.read_history(t)]) for t in record.branches]
    forked_at = record.forked_at is not None
    return (
        words(conversation.messages),
        words(window.messages),
        conversation.usage,
        branches,
        (record.scope, record.forked_from, forked_at),
    )


async def listed(store: AnyStore) -> list[str]:
    return [each.conversation_id for each in await store.list_conversations()]


NAMES = ("one", "two", "three")
name_of = st.sampled_from(NAMES)
small = st.integers(0, 6)
steps = st.one_of(
    st.tuples(st.just("add"), name_of, st.integers(0, 3)),
    st.tuples(st.just("rewrite"), name_of, small),
    st.tuples(st.just("stale"), name_of, small),
    st.tuples(st.just("branch"), name_of, small),
    st.tuples(st.just("back"), name_of, small),
    st.tuples(st.just("fork"), name_of, name_of, small),
    st.tuples(st.just("fork back"), name_of, name_of, small),
    st.tuples(st.just("delete"), name_of),
)


async def act(beside: Beside, step: tuple[Any, ...]) -> None:
    beside.number += 1
    new = talk(*(f"{beside.number}.{n}" for n in range(3)))
    kind, name, *rest = step

    async def add(store: AnyStore) -> None:
        conversation = await store.load(name) or Conversation(conversation_id=name)
        conversation.messages += copy.deepcopy(new[: rest[0]])
        conversation.usage.requests += 1
        await store.save(conversation)

    async def rewrite(store: AnyStore) -> None:
        conversation = await store.load(name) or Conversation(conversation_id=name)
        kept = conversation.messages[: rest[0]]
        await store.save(replace(conversation, messages=[*kept, *new], new_message_index=None))

    async def stale(store: AnyStore) -> None:
        conversation = Conversation(conversation_id=name, messages=new, revision=None)
        await store.save(conversation)

    async def branch(store: AnyStore) -> None:
        record = await store.read_record(name)
        revision = None if record is None else record.revision
        await store.branch(name, at=rest[0], expected_revision=revision)

    async def fork(store: AnyStore) -> None:
        await store.fork(name, at=rest[1], new_conversation_id=rest[0])

    async def left(store: AnyStore) -> tuple[str | None, str | None]:
        """An entry of a branch that was left."""
        record = await store.read_record(name)
        if record is None or not record.branches:
            return None, None
        tip = record.branches[rest[-1] % len(record.branches)]
        line = await store.read_history(tip)
        return record.revision, str(line[-1 - rest[-1] % len(line)].id)

    async def back(store: AnyStore) -> None:
        revision, entry_id = await left(store)
        if entry_id:
            await store.branch(name, from_entry=entry_id, expected_revision=revision)

    async def fork_back(store: AnyStore) -> None:
        _, entry_id = await left(store)
        if entry_id:
            await store.fork(name, from_entry=entry_id, new_conversation_id=rest[0])

    async def delete(store: AnyStore) -> None:
        await store.delete(name)

    acts = {"fork back": fork_back, **{f.__name__: f for f in (add, rewrite, stale, branch)}}
    acts |= {f.__name__: f for f in (back, fork, delete)}
    await beside.both(acts[kind])


@settings(
    max_examples=60,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
@given(plan=st.lists(steps, max_size=25))
def test_it_does_what_the_frameworks_own_store_does(
    store_url: str, store_prefix: str, plan: list[tuple[Any, ...]]
) -> None:
    """Whatever is saved, branched, forked and deleted, in any order."""

    async def run() -> None:
        # A file has no prefixes: another one for each plan.
        name = uuid4().hex
        url = f"{store_url}-{name}" if store_url.startswith("sqlite") else store_url
        prefix = f"{store_prefix}{name}:"
        async with open_service(url, key_prefix=prefix, session_event_limit=None) as service:
            beside = Beside(service)
            for step in plan:
                await act(beside, step)
                await beside.compare(NAMES)

    asyncio.run(run())
