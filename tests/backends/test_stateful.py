"""Random operations on every backend beside a model that is too simple to be wrong."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from datetime import timedelta
from typing import Any

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    rule,
    run_state_machine_as_test,
)

from agentsession import Event, Session, SessionKey, UserKey
from agentsession.clock import utc_now
from agentsession.errors import RevisionConflictError, SessionExistsError, SessionNotFoundError
from agentsession.state import DELETE
from agentsession.testing import MemorySubject, Subject
from harness.files import SQLiteSubject
from harness.subjects import RedisSubject

LIMIT = 4

USERS = [UserKey("a", "u"), UserKey("a", "u:s"), UserKey("a:u", "s")]
KEYS = [SessionKey(user.app_name, user.user_id, name) for user in USERS for name in ("s", "s:t")]
# Mostly one and the same, so that much happens to it.
SOME_KEY = st.sampled_from([KEYS[0]] * 20 + KEYS)
VALUES = st.sampled_from([None, True, 0, 1.5, "x", b"\x00", [1, {"k": "v"}], {"$bytes": "AA=="}])
NAMES = st.sampled_from(["n", "m", "user:n", "app:n", "temp:n"])
DELTAS = st.dictionaries(NAMES, VALUES | st.just(DELETE), max_size=3)
IDS = st.sampled_from([f"e{n}" for n in range(6)])
BATCHES = st.lists(st.tuples(IDS, DELTAS, st.booleans()), min_size=1, max_size=3)
OFFSETS = st.sampled_from([0, -5, 5])


class Modelled:
    """One life of a session as a plain record."""

    def __init__(self) -> None:
        self.log: list[tuple[str, str]] = []
        self.ids: dict[str, int] = {}
        self.state: dict[str, Any] = {}
        self.revision = 1


class Sessions(RuleBasedStateMachine):
    """Drives a subject and the model side by side."""

    make: Callable[[], Subject]

    @initialize()
    def begin(self) -> None:
        self.runner = asyncio.Runner()
        self.subject = type(self).make()
        self.service = self.subject.service(event_limit=LIMIT)
        self.sessions: dict[SessionKey, Modelled] = {}
        self.held: dict[SessionKey, tuple[Session, Modelled]] = {}
        self.users: dict[UserKey, dict[str, Any]] = {user: {} for user in USERS}
        self.apps: dict[str, dict[str, Any]] = {"a": {}, "a:u": {}}
        self.order: list[SessionKey] = []
        self.words = 0
        self.create(KEYS[0], {}, tolerant=False)
        self.hold(KEYS[0])

    def teardown(self) -> None:
        self.call(self.subject.__aexit__())
        self.runner.close()

    def call(self, awaitable: Awaitable[Any]) -> Any:
        async def wait() -> Any:
            return await awaitable

        return self.runner.run(wait())

    def fold(self, key: SessionKey, delta: dict[str, Any]) -> None:
        for name, value in delta.items():
            scope, short = self.sessions[key].state, name
            if name.startswith("temp:"):
                continue
            if name.startswith("app:"):
                scope, short = self.apps[key.app_name], name[4:]
            elif name.startswith("user:"):
                scope, short = self.users[key.user], name[5:]
            if value is DELETE:
                scope.pop(short, None)
            else:
                scope[short] = value

    def view(self, key: SessionKey) -> dict[str, Any]:
        return (
            {f"app:{name}": value for name, value in self.apps[key.app_name].items()}
            | {f"user:{name}": value for name, value in self.users[key.user].items()}
            | self.sessions[key].state
        )

    def touch(self, key: SessionKey) -> None:
        if key in self.order:
            self.order.remove(key)
        self.order.append(key)
        self.call(self.subject.advance(0.001))

    def target(self, key: SessionKey, by_object: bool) -> tuple[Any, Modelled | None]:
        """Choose what to name a session by, and what a call that names it so will find."""
        model = self.sessions.get(key)
        if not by_object or key not in self.held:
            return key, model
        held, life = self.held[key]
        return held, model if model is life else None

    def check_refusal(self, key: SessionKey, model: Modelled | None, exc: Exception) -> None:
        """What a call did not find is gone, or replaced."""
        assert isinstance(exc, SessionNotFoundError)
        assert model is None
        assert exc.replaced == (key in self.sessions)

    @rule(key=SOME_KEY)
    def hold(self, key: SessionKey) -> None:
        session = self.call(self.service.get_session(key))
        if session is not None:
            self.held[key] = session, self.sessions[key]

    @rule(key=SOME_KEY, delta=DELTAS, tolerant=st.booleans())
    def create(self, key: SessionKey, delta: dict[str, Any], tolerant: bool) -> None:
        method = self.service.get_or_create_session if tolerant else self.service.create_session
        try:
            session = self.call(method(key, delta))
        except SessionExistsError:
            assert not tolerant
            assert key in self.sessions
            return
        assert tolerant or key not in self.sessions
        if key not in self.sessions:
            self.sessions[key] = Modelled()
            self.fold(key, delta)
            self.touch(key)
        temporary = {name: value for name, value in delta.items() if name.startswith("temp:")}
        expected = self.view(key) | temporary
        assert session.state == {k: v for k, v in expected.items() if v is not DELETE}

    @rule(
        key=SOME_KEY,
        batch=BATCHES,
        offset=OFFSETS,
        expect=st.sampled_from([None, 0, 1]),
        by_object=st.booleans(),
    )
    def append(
        self,
        key: SessionKey,
        batch: list[tuple[str, dict[str, Any], bool]],
        offset: int,
        expect: int | None,
        by_object: bool,
    ) -> None:
        target, model = self.target(key, by_object)
        events = []
        for event_id, delta, partial in batch:
            self.words += 1
            moment = utc_now() + timedelta(seconds=offset)
            events.append(
                Event(
                    author="a",
                    id=event_id,
                    content=str(self.words),
                    state_delta=delta,
                    timestamp=moment,
                    partial=partial,
                )
            )
        whole = [event for event in events if not event.partial]
        fresh = [event for event in whole if model is None or event.id not in model.ids]
        revision = None if expect is None else (model.revision if model else 1) + expect
        trimmed = 0 if model is None else len(model.log) - LIMIT
        try:
            stored = self.call(
                self.service.append_events(target, events, expected_revision=revision)
            )
        except SessionNotFoundError as exc:
            self.check_refusal(key, model, exc)
            assert whole
            return
        except RevisionConflictError:
            assert expect == 1
            assert fresh
            return
        assert not whole or model is not None
        if not whole or model is None:
            return
        assert not (fresh and expect == 1)
        for event in fresh:
            if event.id not in model.ids:
                model.ids[event.id] = len(model.ids) + 1
                model.log.append((event.id, str(event.content)))
                self.fold(key, event.state_delta)
        if fresh:
            model.revision += 1
            self.touch(key)
        assert [event.seq for event in stored] == [
            0 if event.partial else model.ids[event.id] for event in events
        ]
        for given, answer in zip(events, stored, strict=True):
            known = not answer.partial and answer.seq > trimmed
            words = model.log[answer.seq - 1][1] if known else given.content
            assert (answer.id, answer.content) == (given.id, words)
        if target is not key:
            self.compare_held(target, model)

    @rule(key=SOME_KEY, delta=DELTAS, by_object=st.booleans())
    def update(self, key: SessionKey, delta: dict[str, Any], by_object: bool) -> None:
        target, model = self.target(key, by_object)
        try:
            self.call(self.service.update_session_state(target, delta))
        except SessionNotFoundError as exc:
            self.check_refusal(key, model, exc)
            return
        assert model is not None
        if any(not name.startswith("temp:") for name in delta):
            self.fold(key, delta)
            self.sessions[key].revision += 1
            self.touch(key)

    @rule(key=SOME_KEY, by_object=st.booleans())
    def delete(self, key: SessionKey, by_object: bool) -> None:
        target, model = self.target(key, by_object)
        self.call(self.service.delete_session(target))
        if model is not None:
            del self.sessions[key]
            self.order.remove(key)

    @rule(key=SOME_KEY, delta=DELTAS)
    def reset(self, key: SessionKey, delta: dict[str, Any]) -> None:
        """What is held of it, if anything, is then of an old life."""
        self.delete(key, by_object=False)
        self.create(key, delta, tolerant=False)

    @rule(key=SOME_KEY, after=st.integers(0, 5))
    def read_on(self, key: SessionKey, after: int) -> None:
        target, model = self.target(key, by_object=True)
        try:
            events = self.call(self.service.get_events(target, after_seq=after))
        except SessionNotFoundError as exc:
            self.check_refusal(key, model, exc)
            return
        assert model is not None
        first = max(after, len(model.log) - LIMIT)
        assert [event.content for event in events] == [words for _, words in model.log[first:]]

    @rule(user=st.sampled_from(USERS))
    def erase(self, user: UserKey) -> None:
        self.call(self.service.delete_user(user))
        self.users[user] = {}
        self.sessions = {key: each for key, each in self.sessions.items() if key.user != user}
        self.order = [key for key in self.order if key.user != user]

    @rule(user=st.sampled_from(USERS), value=VALUES)
    def update_scopes(self, user: UserKey, value: object) -> None:
        self.call(self.service.update_user_state(user, {"k": value}))
        self.call(self.service.update_app_state(user.app_name, {"k": value}))
        self.users[user]["k"] = self.apps[user.app_name]["k"] = value

    @rule(key=SOME_KEY, last=st.integers(0, 5), after=st.integers(0, 9))
    def read_a_window(self, key: SessionKey, last: int, after: int) -> None:
        session = self.call(self.service.get_session(key, num_recent_events=last, after_seq=after))
        self.compare(key, session, last, after)

    @invariant()
    def everything_is_as_modelled(self) -> None:
        if not hasattr(self, "runner"):
            return
        for key in KEYS:
            self.compare(key, self.call(self.service.get_session(key)), LIMIT, 0)
        for user in USERS:
            page = self.call(self.service.list_sessions(user))
            expected = [key for key in reversed(self.order) if key.user == user]
            assert [session.key for session in page.sessions] == expected
            assert self.call(self.service.get_user_state(user)) == self.users[user]
        for app, state in self.apps.items():
            assert self.call(self.service.get_app_state(app)) == state

    def compare_held(self, held: Session, model: Modelled) -> None:
        """After an append its object is up to date in all that is the session's own."""
        tail = list(enumerate(model.log, 1))[-LIMIT:]
        assert [(event.seq, event.content) for event in held.events] == [
            (seq, words) for seq, (_, words) in tail
        ]
        assert (held.revision, held.last_seq) == (model.revision, len(model.log))
        own = {name: value for name, value in held.state.items() if ":" not in name}
        assert own == model.state

    def compare(self, key: SessionKey, session: Session | None, last: int, after: int) -> None:
        model = self.sessions.get(key)
        if model is None or session is None:
            assert (model, session) == (None, None)
            return
        kept = [
            (seq, event_id, words)
            for seq, (event_id, words) in list(enumerate(model.log, 1))[-LIMIT:]
            if seq > after
        ]
        kept = kept[max(0, len(kept) - last) :]
        assert [(event.seq, event.id, event.content) for event in session.events] == kept
        assert session.last_seq == len(model.log)
        assert session.revision == model.revision
        assert session.state == self.view(key)


@pytest.mark.parametrize(("kind", "examples"), [("memory", 120), ("sqlite", 20), ("valkey", 20)])
def test_any_sequence_of_operations_matches_the_model(
    kind: str, examples: int, valkey_url: str
) -> None:
    """Whatever is done in whatever order, a backend holds what the model says."""
    makes: dict[str, Callable[[], Subject]] = {
        "memory": MemorySubject,
        "sqlite": SQLiteSubject,
        "valkey": lambda: RedisSubject(valkey_url),
    }

    class Machine(Sessions):
        make = staticmethod(makes[kind])

    run_state_machine_as_test(
        Machine,
        settings=settings(
            max_examples=examples,
            stateful_step_count=30,
            deadline=None,
            suppress_health_check=list(HealthCheck),
        ),
    )
