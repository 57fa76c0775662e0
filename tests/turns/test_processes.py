"""Turns whose processes are killed, or frozen until their lease has run out, at every step."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from agentsession import Event, Runner, SessionKey, open_service
from harness import servers
from turns.worker import APP, USER, Planned, plan
from turns.workers import check_pairs, check_turns, workers

STEPS = range(len(plan()) + 1)


@pytest.fixture(scope="module", params=["server", "cluster"])
def url(request: pytest.FixtureRequest) -> Iterator[str]:
    """One server, and a cluster."""
    if request.param == "server":
        with servers.running(servers.binaries()["valkey"]) as server:
            yield server.url
    else:
        with servers.cluster(2) as cluster:
            yield cluster.url


async def _next_turn(url: str, session: str, message: str) -> list[Event]:
    """Run another turn, which waits until the lease of the one before has run out."""
    async with open_service(url) as service:
        run = Runner(APP, lambda context: Planned(None, None).run(context), service).run(  # type: ignore[arg-type]  # it never waits
            USER, session, Event(author="user", content="And now?", id=message)
        )
        said = await run.result()
        assert run.outcome == "completed"
        check_pairs(await service.get_history(SessionKey(APP, USER, session)))
        return said


@pytest.mark.parametrize("how", ["killed", "frozen"])
async def test_a_turn_dies_at_any_step(url: str, how: str) -> None:
    """The next turn works each time, after it has closed what was left; a thawed one is refused."""
    await _check_each_step(url, how)


async def test_a_turn_in_a_file_dies_at_any_step(tmp_path: Path) -> None:
    """One that is frozen may have the file locked, which others wait for in vain."""
    await _check_each_step(f"sqlite:///{tmp_path}/sessions.db", "killed")


async def _check_each_step(url: str, how: str) -> None:
    with workers(url, len(STEPS)) as running:
        for step, worker in zip(STEPS, running, strict=True):
            worker.run(f"{how} at {step}", "first", step, ttl=1)
        for step, worker in zip(STEPS, running, strict=True):
            assert worker.answer() == {"at": step}
            worker.freeze() if how == "frozen" else worker.kill()
        for step in STEPS:
            session = f"{how} at {step}"
            said = await _next_turn(url, session, "second")
            assert len(said) == len(plan()) - 1
        logs = [await _log(url, f"{how} at {step}") for step in STEPS]
        if how == "frozen":
            for worker in running:
                worker.thaw()
                worker.say()
                assert worker.answer() == {"error": "LeaseLostError", "outcome": "abandoned"}
            assert logs == [await _log(url, f"{how} at {step}") for step in STEPS]
    for step, log in zip(STEPS, logs, strict=True):
        check_turns(log)
        first = [event for event in log if event.invocation_id == "first"]
        stored = [event for event in plan()[:step] if not event.partial]
        assert [event.content for event in first[1:-1]] == [event.content for event in stored]
        assert first[-1].outcome == "abandoned"


async def _log(url: str, session: str) -> list[Event]:
    async with open_service(url) as service:
        return await service.get_events(SessionKey(APP, USER, session))


async def test_a_turn_that_died_is_tried_again(url: str) -> None:
    """With the same message: the agent runs again, in the same turn."""
    with workers(url, 1) as (worker,):
        worker.run("tried again", "first", 4, ttl=1)
        worker.answer()
        worker.kill()
        said = await _next_turn(url, "tried again", "first")
    assert [event.text for event in said][-1] == "Done."
    log = await _log(url, "tried again")
    assert {event.invocation_id for event in log} == {"first"}
    assert [event.outcome for event in log if event.outcome] == ["abandoned", "completed"]
    assert len([event for event in log if event.author == "user"]) == 1
