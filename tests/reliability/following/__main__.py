"""Runs the trials at full size: ``python -m reliability.following --seconds 60 --seed 7``."""

from __future__ import annotations

import argparse
import asyncio
import random
from typing import get_args

from msgspec import structs

from reliability.following.trial import Place, Trial, Verdict, run
from reliability.report import complaint

# Seconds in which what is written is lost with the primary.
_LAG = 0.5
# Seconds that a call may take, less than the network stands still.
_HASTY = 0.1


def arguments(given: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser("reliability.following", description=__doc__)
    parser.add_argument("--seconds", type=float, default=60.0, help="how long each is written to")
    parser.add_argument("--seed", type=int, default=random.randrange(10**6))
    parser.add_argument("--sessions", type=int, default=50)
    parser.add_argument("--followers", type=int, default=200)
    parser.add_argument("--only", nargs="+", choices=get_args(Place), default=get_args(Place))
    return parser.parse_args(given)


def trials(options: argparse.Namespace) -> list[Trial]:
    """Return all trials: where servers are lost, with and without replicas that acknowledge."""
    same = {name: getattr(options, name) for name in ("seed", "sessions", "followers", "seconds")}
    found = [Trial(place=place, failover=place != "server", **same) for place in options.only]
    # Followers that give up soon cannot reach the store now and then, and go on where they were.
    found += [structs.replace(each, timeout=_HASTY) for each in found if not each.failover]
    for trial in [*found]:
        if trial.failover:
            found.append(structs.replace(trial, ack_replicas=1))
            found.append(structs.replace(trial, lag=_LAG))
            found.append(structs.replace(trial, lag=_LAG, ack_replicas=1))
    return found


def one(trial: Trial) -> Verdict:
    """Run a trial, and say what came of it."""
    verdict = asyncio.run(run(trial))
    counts = ", ".join(f"{name} {number:,}" for name, number in verdict.counts.items())
    print(f"{trial.name}: {counts}, wrong {len(verdict.complaints):,}", flush=True)
    if verdict.complaints:
        print(complaint(verdict.complaints), flush=True)
    return verdict


def main(given: list[str] | None = None) -> int:
    options = arguments(given)
    print(f"seed {options.seed}", flush=True)
    verdicts = [one(trial) for trial in trials(options)]
    well = not any(verdict.complaints for verdict in verdicts)
    print("all well" if well else f"something is wrong; again with --seed {options.seed}")
    return 0 if well else 1


if __name__ == "__main__":
    raise SystemExit(main())
