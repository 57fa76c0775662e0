"""The checker finds every kind of wrong, and nothing where all is right."""

from __future__ import annotations

import asyncio
from typing import Any

import msgspec
import pytest
from msgspec import structs

from agentsession import SessionKey, SessionService
from agentsession.redis import _backend as backend
from agentsession.redis._operations import appending, erasing, leases
from agentsession.retention import Retention
from harness import servers
from reliability.checker import broken, kind_of, violations
from reliability.checker.ledger import Ledger
from reliability.checker.sessions import who_has_time_gets_an_answer
from reliability.history import History, Operation, Outcome, Seen, Step, View
from reliability.trial import Trial, run, settle, visit
from reliability.workers.plan import MADE, Planner, mortal_sessions
from reliability.workers.worker import Worker

LIMIT = 20

BROKEN = [
    (broken.DropsAnEvent, "lost"),
    (broken.ReordersTwo, "disagreement"),
    (broken.LetsTheLaterOneOvertake, "order"),
    (broken.StoresAnEventTwice, "twice"),
    (broken.AppliesADeltaTwice, "state"),
    (broken.LosesADelta, "state"),
    (broken.LosesAnUpdate, "state"),
    (broken.AnswersWithAnotherSession, "foreign"),
    (broken.ShowsAnothersState, "foreign"),
    (broken.ForgetsTheLimit, "limit"),
    (broken.StoresHalfABatch, "half"),
    (broken.StoresWhatItRefuses, "ghost"),
    (broken.IgnoresTheRevision, "order"),
    (broken.ReadsWhatIsOld, "lost"),
    (broken.KeepsWhatWasDeleted, "ghost"),
    (broken.ForgetsASession, "lost"),
    (broken.DeletesLate, "late"),
    (broken.ErasesLate, "late"),
    (broken.CreatesLate, "late"),
    (broken.OpensLate, "late"),
    (broken.AppendsLate, "late"),
    (broken.UpdatesLate, "late"),
    (broken.UpdatesAUserLate, "late"),
    (broken.UpdatesAnApplicationLate, "late"),
    (broken.StoresLateWhatItGaveUp, "late"),
    (broken.LetsTwoWrite, "two holders"),
    (broken.StoresWhatItFencesOff, "fenced"),
    (broken.GivesAnOldToken, "token"),
    (broken.ForgetsAnEnd, "no end"),
    (broken.RaisesARawError, "wrong"),
]


async def found_in_memory(kept: broken.Sometimes, seed: int = 7) -> list[str]:
    """Let three workers work over one backend, and check what they did."""
    history = History()
    service = SessionService(kept)
    await visit(service, history, "the first", "open")
    async with asyncio.TaskGroup() as group:
        for name in ("a", "b", "c"):
            steps = Planner(seed, name, cancelling=0.1).steps(400)
            group.create_task(Worker(name, service, history.record).work(steps))
    await settle(service, history)
    await visit(service, history, "the last", "whole", "list")
    return violations(history, limit=LIMIT)


async def test_an_honest_backend_passes() -> None:
    """Nothing is found where nothing is wrong."""
    assert await found_in_memory(broken.Sometimes(Retention(event_limit=LIMIT))) == []


@pytest.mark.parametrize(
    ("kind", "expected"), BROKEN, ids=lambda value: getattr(value, "__name__", value)
)
async def test_a_broken_backend_is_caught(kind: type[broken.Sometimes], expected: str) -> None:
    """Each broken promise is found, and called by its name.

    Some only where calls meet in a certain way, which a seed does not decide: so there are several.
    """
    found: list[str] = []
    for seed in range(10):
        kept = kind(Retention(event_limit=LIMIT))
        found = await found_in_memory(kept, seed)
        assert kept.broken
        if expected in map(kind_of, found):
            return
    pytest.fail(f"only this was found last: {found}")


KEY = SessionKey("app", "u", "own")
EMPTY = View(events=[], state={})


def operations(*made: tuple[str, Outcome, View | None]) -> list[Operation]:
    """Word calls on one session, one after the other."""
    return [
        Operation(
            worker="w", number=moment, step=Step(kind=kind, key=KEY), outcome=outcome, view=view,
            started=2 * moment + 1, ended=2 * moment + 2,
        )
        for moment, (kind, outcome, view) in enumerate(made)
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("first", "expected"),
    [
        ({"outcome": "ok"}, {"ghost"}),
        ({"outcome": "unknown", "error": "OutcomeUnknownError"}, {"ghost"}),
        ({"outcome": "unknown", "grace": 1}, {"ghost"}),
        ({"outcome": "unknown", "grace": 100}, set()),
        ({"outcome": "unknown", "ended": None}, set()),
    ],
    ids=["answered", "given up", "cancelled long ago", "cancelled", "killed"],
)
def test_a_creation_may_come_late_until_it_is_over(
    first: dict[str, Any], expected: set[str]
) -> None:
    """A session that was deleted is made again by what was cancelled, or by nobody."""
    creation, *others = operations(
        ("create", "unknown", EMPTY),
        ("create", "ok", EMPTY),
        ("delete", "ok", None),
        ("whole", "ok", EMPTY),
    )
    history = [msgspec.structs.replace(creation, **first), *others]
    assert {kind_of(each) for each in violations(history)} == expected


def test_a_deletion_that_comes_late_is_named() -> None:
    """It found nothing, and what was made since is gone."""
    (found,) = violations(
        operations(
            ("delete", "ok", None),
            ("create", "ok", EMPTY),
            ("whole", "ok", EMPTY),
            ("whole", "ok", None),
        )
    )
    assert found.startswith("late: the whole number 3 of w does not find")
    assert found.endswith(
        "the whole number 2 of w found it after the delete number 0 of w was over"
    )


@pytest.mark.parametrize(("second", "expected"), [("i", True), ("j", False)], ids=ascii)
def test_one_creation_may_begin_two_lives(second: str, *, expected: bool) -> None:
    """Repeated after a deletion, it makes the session again; only one life has one log."""
    views = [
        View(events=[Seen(1, event_id, "")], state={MADE: "m"}, incarnation=life, last_seq=1)
        for event_id, life in (("a", "i"), ("b", second))
    ]
    history = operations(*[("whole", "ok", view) for view in views])
    for operation in history:
        operation.step = msgspec.structs.replace(operation.step, key=mortal_sessions()[0])
    found = {kind_of(each) for each in violations(history)}
    assert ("disagreement" in found) == expected


UNSURE = {"error": "OutcomeUnknownError"}


@pytest.mark.parametrize(
    ("creation", "call", "step", "excused"),
    [
        ({}, UNSURE, {"kind": "append"}, False),
        ({"outcome": "unknown"}, UNSURE, {"kind": "append"}, True),
        ({"outcome": "unknown"}, UNSURE, {"kind": "update"}, True),
        ({"outcome": "unknown"}, UNSURE, {"kind": "delete"}, False),
        ({"outcome": "unknown"}, {"error": "BackendUnavailableError"}, {"kind": "append"}, False),
    ],
    ids=["made", "cancelled", "cancelled, update", "deletes", "unavailable"],
)
def test_who_has_time_may_be_unsure_only_of_a_session_that_may_be_gone(
    creation: dict[str, Any], call: dict[str, Any], step: dict[str, Any], excused: bool
) -> None:
    """A write whose first copy may have gone with the session; all others are to be answered."""
    first, second = operations(("create", "ok", EMPTY), ("append", "unknown", None))
    first = structs.replace(first, **creation)
    second = structs.replace(second, step=structs.replace(second.step, **step), **call)
    found = list(who_has_time_gets_an_answer(Ledger([first, second]), "hasty"))
    assert [kind_of(each) for each in found] == ([] if excused else ["gave up"])


# What is taken out of which script or put in, and what is found then.
SCRIPTS = [
    ("_APPEND", "call('ZADD', ids, 'NX', ", "call('ZADD', ids, ", "disagreement"),
    ("_APPEND", "ARGV[at]) == 1 then", "ARGV[at]) >= 0 then", "twice"),
    ("_APPEND", "if not refusal and revision ~= '' and", "if false and", "order"),
    ("_APPEND", "apply_changes(new[i] + 4,", "(function() end)(new[i] + 4,", "state"),
    ("_APPEND", "if limit ~= '' and count > limit + 0 then", "if false then", "limit"),
    ("_APPEND", "redis.call('PEXPIRE', session, ttl)", "", "expiry"),
    ("_APPEND", "redis.call('PEXPIRE', events, ttl)", "", "expiry"),
    ("_APPEND", "redis.call('PEXPIRE', ids, ttl)", "", "expiry"),
    ("_APPEND", "redis.call('PEXPIRE', index, ttl)", "", "expiry"),
    ("_APPEND", "if session_ttl ~= '0' or meta[8] then", "if false then", "expiry"),
    ("_APPEND", "local count, number", "call('INCR', 'stranger') local count, number", "foreign"),
    ("_DELETE", "call('UNLINK', KEYS[i])", "call('UNLINK', KEYS[3])", "left over"),
    ("_CREATE", "call('ZADD', index, present, session_id)", "", "lost"),
    ("_APPEND", "elseif not has_lease(held, owner, now) then", "elseif false then", "two holders"),
    ("_ACQUIRE", "lease.token = math.max(lease.token + 1, now)", "", "token"),
]  # fmt: skip


@pytest.mark.parametrize(("name", "sound", "unsound", "expected"), SCRIPTS)
async def test_a_broken_script_is_caught(
    monkeypatch: pytest.MonkeyPatch, name: str, sound: str, unsound: str, expected: str
) -> None:
    """Without this or that line of a script, the checker finds what the line is for."""
    modules = {"_ACQUIRE": leases, "_APPEND": appending, "_CREATE": backend, "_DELETE": erasing}
    module = modules[name]
    script = getattr(module, name)
    assert sound in script.text
    text = script.text.replace(sound, unsound)
    monkeypatch.setattr(module, name, structs.replace(script, text=text, sha="0" * 40))
    trial = Trial(name="a broken script", seed=0, operations=450, limit=LIMIT, services=2)
    for seed in range(3, 9):  # Some are found only where calls meet in a certain way.
        again = structs.replace(trial, seed=seed)
        found = (await run(again, servers.binaries()["valkey"])).violations
        if expected in map(kind_of, found):
            return
    pytest.fail(f"only this was found last: {found}")
