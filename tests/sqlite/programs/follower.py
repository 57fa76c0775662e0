"""A process that follows a session of a file, and prints each item as it comes."""

from __future__ import annotations

import asyncio
import sys

from agentsession import Event, SessionKey, SQLiteSessionService
from agentsession.subscriptions import Followed

KEY = SessionKey("app", "user", "session")


def words(item: Followed) -> str:
    if isinstance(item, Event):
        return f"{item.seq} {item.text}"
    return type(item).__name__


def tell(line: str) -> None:
    sys.stdout.write(f"{line}\n")
    sys.stdout.flush()


async def main(path: str) -> None:
    async with SQLiteSessionService(path) as service, service.subscribe(KEY) as items:
        tell("follows")
        async for item in items:
            tell(words(item))


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1]))
