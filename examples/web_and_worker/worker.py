"""The worker process: it answers what web.py has stored; see there how to run both.

    python worker.py first

Start as many as you like, each with a name of its own. A job is always in a list on the server:
the common one, or that of the worker that is at it. A worker that was killed does its job again
when it is started under the same name; the answer's id sees to it that it is stored once.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
from collections.abc import AsyncIterator
from contextlib import suppress

from redis.asyncio import Redis

from agentsession import AgentContext, Event, Runner, open_service

REDIS = os.environ.get("REDIS", "redis://localhost:6379/0")
APP, JOBS = "web-and-worker", "jobs"


async def agent(context: AgentContext) -> AsyncIterator[Event]:
    """Answer one message; a real agent asks its model here."""
    words = f"You said {context.message.text!r}."
    answer = f"answer-{context.message.id}"
    yield Event(author="agent", id=answer, content=words, outcome="completed")


async def jobs(queue: Redis, worker: str) -> AsyncIterator[str]:
    """Yield jobs for ever: first what this worker has left undone, then new ones."""
    mine = f"{JOBS}:{worker}"
    while await queue.lmove(mine, JOBS, "RIGHT", "LEFT"):
        pass
    while True:
        job = await queue.blmove(JOBS, mine, timeout=1, src="LEFT", dest="RIGHT")
        if isinstance(job, str):  # and not None, since nothing came within the second
            yield job
            await queue.lrem(mine, 1, job)  # whoever asks for the next job has done this one


async def main(worker: str) -> None:
    async with (
        open_service(REDIS) as service,
        Redis.from_url(REDIS, decode_responses=True) as queue,
    ):
        runner = Runner(APP, agent, service)
        async for job in jobs(queue, worker):
            user, chat, message = json.loads(job)
            async for event in runner.run(user, chat, Event.from_dict(message)):
                print(f"{worker} -> {user}: {event.text}", flush=True)


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("worker")
    with suppress(KeyboardInterrupt):
        asyncio.run(main(parser.parse_args().worker))
