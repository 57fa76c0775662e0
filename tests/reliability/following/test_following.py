"""Followers have the raw log, once and in order; ``python -m reliability.following`` at length."""

from __future__ import annotations

import asyncio

import pytest
import redis.asyncio

from agentsession import Event, RedisSessionService, SessionKey
from agentsession.subscriptions import Ended
from harness import servers
from reliability.following import __main__ as command
from reliability.following.checker import Record, complaints
from reliability.following.trial import Place, Trial, Verdict, run

LOG = [f"{seq} {name}" for seq, name in enumerate("abcde", 1)]
KEY = SessionKey("app", "user", "session")


def small(place: Place, **more: object) -> Trial:
    same = {"sessions": 10, "followers": 40, "processes": (2, 1), "pause": 0.01, "seed": 20}
    return Trial(place=place, **{**same, **more})  # type: ignore[arg-type]  # as the fields are


TRIALS = [
    small("server", seconds=2.0, cuts=8.0, timeout=0.1),
    small("sentinel", seconds=2.0, failover=True, lag=0.3),
    small("cluster", seconds=2.0, failover=True, lag=0.3),
]


@pytest.mark.parametrize("trial", TRIALS, ids=lambda trial: trial.name)
async def test_every_follower_has_the_raw_log(trial: Trial) -> None:
    """Where connections are cut, and a primary is lost; of lost events all are told."""
    verdict = await run(trial)
    assert verdict.complaints == []
    counts = verdict.counts
    assert counts["followers"] == trial.followers
    assert counts["given"] == counts["events"] * trial.followers / trial.sessions > 100
    assert min(counts["cuts"], counts["rewinds"]) > 0
    if not trial.lag:
        assert counts["lost by failover"] == 0
    elif counts["lost by failover"]:
        assert counts["replaced"] > 0


@pytest.mark.parametrize(
    ("given", "kinds"),
    [
        (LOG, []),
        (LOG[:2] + LOG[3:], ["lost"]),
        ([*LOG, LOG[0]], ["twice"]),
        ([LOG[1], LOG[0], *LOG[2:]], ["order"]),
        ([*LOG[:4], "5 other"], ["lost", "not stored"]),
        ([*LOG, "6 more"], ["not stored"]),
    ],
)
def test_a_wrong_record_is_seen(given: list[str], kinds: list[str]) -> None:
    """Whatever a follower had too little, too much or in another order."""
    found = complaints([Record(follower="f", session=3, given=given)], {3: LOG}, 1)
    assert [each.partition(":")[0] for each in found] == kinds


def test_a_follower_that_is_missing_is_seen() -> None:
    """Who says nothing had nothing."""
    assert complaints([], {3: LOG}, 2) == ["lost: 2 followers"]


def test_the_command_tells_what_is_wrong(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Each trial has a line with its counts, and the exit code is 1 if anything was wrong."""

    async def ran(trial: Trial) -> Verdict:
        wrong = ["lost: 1"] if trial.lag else []
        return Verdict(trial=trial, complaints=wrong, counts={"events": 7})

    monkeypatch.setattr(command, "run", ran)
    assert command.main(["--seed=7", "--only", "server"]) == 0
    assert capsys.readouterr().out == (
        "seed 7\nserver: events 7, wrong 0\nserver, hasty followers: events 7, wrong 0\nall well\n"
    )
    assert command.main(["--seed=7", "--only", "sentinel"]) == 1
    lines = capsys.readouterr().out.splitlines()
    assert lines[1] == "sentinel, failover: events 7, wrong 0"
    assert lines[-1] == "something is wrong; again with --seed 7"


async def test_a_log_that_lost_events_and_got_others_is_another() -> None:
    """As after a failover: a follower does not go on in it, though it is as long."""
    with servers.running(servers.binaries()["valkey"]) as server:
        async with (
            redis.asyncio.Redis.from_url(server.url) as client,
            RedisSessionService.from_url(server.url) as service,
        ):
            await service.create_session(KEY)
            await service.append_event(KEY, Event(author="agent", content="kept"))
            kept = {key: await client.dump(key) for key in await client.keys()}
            async with service.subscribe(KEY) as items:
                await service.append_event(KEY, Event(author="agent", content="lost"))
                given = [await anext(items) for _ in range(2)]
                assert [each.text for each in given if isinstance(each, Event)] == ["kept", "lost"]
                async with client.pipeline(transaction=True) as pipe:
                    for key, value in kept.items():
                        assert value is not None
                        pipe.restore(key, 0, value, replace=True)
                    await pipe.execute()
                for text in ("other", "more"):
                    await service.append_event(KEY, Event(author="agent", content=text))
                async with asyncio.timeout(10):
                    assert await anext(items) == Ended("replaced")
