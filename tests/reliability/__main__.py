"""Runs many trials: ``python -m reliability --minutes 2 --seed 7``, or ``nox -s soak``.

Two ways. For some minutes, all faults in rotation, round after round, with memory and open
connections held flat, and after every third round one with followers (the default); or, with
``--operations`` and ``--kills``, one large trial each of cancellations, of lost replies, of late
arrivals, and of kills on an append-only file that is synced before each answer. Both on one server,
on a cluster of three and in a file of SQLite's, in turn, or on one of these with ``--only``. In a
file it is the processes that are killed. The seed is printed first,
and decides what is done; the exit code is 1 if anything at all was wrong.
"""

from __future__ import annotations

import argparse
import asyncio
import random
import time
from typing import Any

from harness import servers
from reliability.faults import FAULTS
from reliability.file import FILE_FAULTS
from reliability.following import trial as following
from reliability.footprint import Footprint
from reliability.report import complaint, table
from reliability.trial import Place, Trial, Verdict, run

PLACES: tuple[Place, ...] = ("server", "cluster", "file")
# After so many rounds there is one with followers, for so many seconds.
_FOLLOWED = 3
_FOLLOWING = 10.0
# By then the code is loaded, and what is kept for reuse has been filled.
_WARM = 4


def arguments(given: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser("reliability", description="Attack the service and check.")
    parser.add_argument("--minutes", type=float, default=2.0, help="how long to go on")
    parser.add_argument("--seed", type=int, default=random.randrange(10**6))
    parser.add_argument("--round", type=int, default=1000, help="operations of a round")
    parser.add_argument("--server", choices=sorted(servers.binaries()), default="valkey")
    parser.add_argument("--only", choices=PLACES, help="on one kind of place, not on both in turn")
    parser.add_argument("--operations", type=int, help="prove it once, with so many each")
    parser.add_argument(
        "--kills", type=int, default=200, help="how often the server, or a process, is killed"
    )
    return parser.parse_args(given)


def everything(seed: int, operations: int, place: Place = "server") -> Trial:
    """Return a round of the soak: every fault twice."""
    faults = tuple(FILE_FAULTS if place == "file" else FAULTS)
    return Trial(
        name=f"everything, {place}",
        seed=seed,
        operations=operations,
        faults=faults,
        strikes=2 * len(faults),
        cancelling=0.1,
        limit=50,
        processes=2,
        place=place,
    )


def proofs(seed: int, operations: int, kills: int, place: Place = "server") -> list[Trial]:
    """Return the trials of the full size."""
    same: dict[str, Any] = {
        "seed": seed, "operations": operations, "processes": 1, "place": place,
    }  # fmt: skip
    if place == "file":
        same["processes"] = 2
        return [
            Trial(name="cancelled, file", cancelling=0.4, **same),
            Trial(name="processes killed, file", faults=("kill",), strikes=kills, **same),
            Trial(name="everything, file", faults=tuple(FILE_FAULTS), strikes=kills, **same),
        ]
    killing = ("kill_and_restart",)
    return [
        Trial(name=f"cancelled, {place}", cancelling=0.4, **same),
        Trial(name=f"replies lost, {place}", losing=0.2, **same),
        Trial(name=f"arrived late, {place}", lateness=0.05, **same),
        Trial(name=f"server killed, {place}", faults=killing, strikes=kills, **same),
    ]


def places(options: argparse.Namespace) -> tuple[Place, ...]:
    return (options.only,) if options.only else PLACES


def one(trial: Trial, binary: str) -> Verdict:
    """Run a trial, and say what was wrong."""
    verdict = asyncio.run(run(trial, binary))
    if verdict.violations:
        print(f"{len(verdict.violations):,} violations with seed {trial.seed}:")
        print(complaint(verdict.violations), flush=True)
    return verdict


def prove(options: argparse.Namespace, binary: str) -> bool:
    """Run each large trial once; tell whether all was well."""
    verdicts: list[Verdict] = []
    for place in places(options):
        for trial in proofs(options.seed, options.operations, options.kills, place):
            verdicts.append(one(trial, binary))
            print(f"{trial.name}: {verdicts[-1].outcomes.total():,} operations", flush=True)
    print(table(verdicts))
    return not any(verdict.violations for verdict in verdicts)


def soak(options: argparse.Namespace, binary: str) -> bool:
    """Run round after round until the time is over or something is wrong."""
    until = time.monotonic() + 60 * options.minutes
    verdicts: list[Verdict] = []
    grown: list[str] = []
    well = True
    while well and time.monotonic() < until:
        number = len(verdicts)
        place = places(options)[number % len(places(options))]
        trial = everything(options.seed + number, options.round, place)
        verdicts.append(one(trial, binary))
        footprint = Footprint.now()
        if len(verdicts) <= _WARM:
            warm = footprint
        grown = footprint.grown_since(warm)
        print(
            f"round {len(verdicts)}: {verdicts[-1].outcomes.total():,} operations, "
            f"{footprint.memory:,} kB, {footprint.files} files",
            flush=True,
        )
        well = not (grown or verdicts[-1].violations)
        if well and len(verdicts) % _FOLLOWED == 0 and place != "file":
            well = follow(options.seed + number, place)
    print(table(verdicts))
    print(complaint(grown), end="\n" if grown else "")
    return well


def follow(seed: int, place: str) -> bool:
    """Run a trial with followers, and tell whether each of them had what the log has, once."""
    on_cluster = place == "cluster"
    trial = following.Trial(
        place="cluster" if on_cluster else "server",
        seed=seed,
        seconds=_FOLLOWING,
        failover=on_cluster,
    )
    verdict = asyncio.run(following.run(trial))
    counts = ", ".join(f"{name} {number:,}" for name, number in verdict.counts.items())
    print(f"followers, {trial.name}: {counts}, wrong {len(verdict.complaints):,}", flush=True)
    print(complaint(verdict.complaints), end="\n" if verdict.complaints else "", flush=True)
    return not verdict.complaints


def main(given: list[str] | None = None) -> int:
    options = arguments(given)
    binary = servers.binaries()[options.server]
    print(f"seed {options.seed}, {options.server}", flush=True)
    well = prove(options, binary) if options.operations else soak(options, binary)
    print("all well" if well else f"something is wrong; again with --seed {options.seed}")
    return 0 if well else 1


if __name__ == "__main__":
    raise SystemExit(main())
