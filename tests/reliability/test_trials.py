"""Everything at once, on a small scale; ``nox -s soak`` does the same on a large one."""

from __future__ import annotations

import msgspec
import pytest

from harness import servers
from reliability.faults import FAULTS
from reliability.file import FILE_FAULTS
from reliability.history import History, Operation, Step, decoded, encoded
from reliability.trial import Trial, Verdict, run
from reliability.workers.plan import Planner, is_mortal, shared_sessions

SEED = 20
TRIALS = [
    Trial(name="nothing happens", seed=SEED, operations=400, processes=2, limit=30),
    Trial(name="cancellations", seed=SEED, operations=600, cancelling=0.4),
    Trial(name="lost replies", seed=SEED, operations=600, losing=0.1),
    Trial(name="late arrivals", seed=SEED, operations=1500, lateness=0.05, limit=30),
    Trial(
        name="on a cluster, late arrivals",
        seed=SEED,
        operations=200,
        lateness=0.05,
        place="cluster",
    ),
    Trial(
        name="on a cluster, lost replies", seed=SEED, operations=200, losing=0.1, place="cluster"
    ),
    Trial(name="kills", seed=SEED, operations=400, faults=("kill_and_restart",), strikes=6),
    Trial(name="in a file, nothing happens", seed=SEED, operations=400, processes=2, place="file"),
    Trial(name="in a file, cancellations", seed=SEED, operations=600, cancelling=0.4, place="file"),
    Trial(
        name="in a file, everything",
        seed=SEED,
        operations=600,
        faults=tuple(FILE_FAULTS),
        strikes=2 * len(FILE_FAULTS),
        cancelling=0.1,
        processes=2,
        limit=50,
        place="file",
    ),
]
EVERYTHING = Trial(
    name="everything",
    seed=SEED,
    operations=500,
    faults=tuple(FAULTS),
    strikes=2 * len(FAULTS),
    cancelling=0.1,
    processes=1,
    limit=50,
)


def assert_that_much_was_done(verdict: Verdict) -> None:
    trial = verdict.trial
    assert verdict.outcomes["ok"] > trial.operations / 2
    assert verdict.strikes == trial.strikes
    assert (verdict.lost_replies > 5) >= bool(trial.losing)
    assert (verdict.late_arrivals > 0) >= bool(trial.lateness)
    assert (verdict.outcomes["unknown"] > 5) >= bool(trial.cancelling)


@pytest.mark.parametrize("trial", TRIALS, ids=lambda trial: trial.name)
async def test_every_promise_is_kept_while(trial: Trial) -> None:
    """Several services and processes work, one thing keeps going wrong, and nothing is wrong."""
    verdict = await run(trial, servers.binaries()["valkey"])
    assert verdict.violations == []
    assert_that_much_was_done(verdict)


@pytest.mark.parametrize("kind", sorted(servers.binaries()))
async def test_every_promise_is_kept_whatever_happens(kind: str) -> None:
    """All faults in turn, on every server."""
    verdict = await run(EVERYTHING, servers.binaries()[kind])
    assert verdict.violations == []
    assert_that_much_was_done(verdict)


async def test_every_promise_is_kept_whatever_happens_to_a_cluster() -> None:
    """All faults in turn, each on one of its nodes."""
    trial = msgspec.structs.replace(EVERYTHING, place="cluster", strikes=len(FAULTS))
    verdict = await run(trial, servers.binaries()["valkey"])
    assert verdict.violations == []
    assert_that_much_was_done(verdict)


def test_a_seed_decides_every_step() -> None:
    """The same seed and name plan the same calls, another one plans others."""
    plans = [
        Planner(seed, worker, cancelling=0.3).steps(200)
        for seed, worker in ((1, "a"), (1, "a"), (1, "b"), (2, "a"))
    ]
    assert plans[0] == plans[1]
    assert plans[0] != plans[2]
    assert plans[0] != plans[3]
    kinds = {step.kind for step in plans[0] if is_mortal(step.key)}
    assert kinds >= {"create", "open", "append", "update", "delete"}
    ids = {sent.id for step in plans[0] for sent in step.sent}
    assert ids.isdisjoint({sent.id for step in plans[2] for sent in step.sent})


def test_records_travel_as_lines() -> None:
    """What a process prints is read back, except for half a line; the latest record counts."""
    step = Step(kind="append", key=shared_sessions()[0])
    begun = Operation(worker="w", number=1, step=step)
    ended = msgspec.structs.replace(begun, outcome="ok", seqs=[1], ended=2)
    lines = [encoded(begun), encoded(ended), encoded(begun)[:-9]]
    assert list(decoded(lines)) == [begun, ended]
    history = History()
    history.read(lines)
    assert (list(history), history.finished) == ([ended], 1)
