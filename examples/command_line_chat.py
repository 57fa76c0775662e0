"""A chat in the terminal that remembers you, also after a restart.

To run it:

    pip install agentsession
    python command_line_chat.py ada --store redis://localhost:6379/0

Say something, as often as you like, and end with an empty line. Then start it again: it knows how
often you were there, and what you said last. Without --store the chat is in memory, and forgotten
when the program ends. Another user, or another --chat, begins anew; what is known about a user is
known in all of the user's chats.
"""

from __future__ import annotations

import argparse
import asyncio
from collections.abc import AsyncIterator

from agentsession import AgentContext, Event, Runner, SessionKey, open_service

APP = "command-line-chat"


async def agent(context: AgentContext) -> AsyncIterator[Event]:
    """Answer in chunks, as a model does, from what the session holds."""
    said = [event.text for event in context.session.events if event.author == "user"]
    context.state["user:messages"] = context.state.get("user:messages", 0) + 1
    chunks = [f"This is message {context.state['user:messages']} from you. "]
    chunks += [f"Before it you said: {said[-2]!r}."] if len(said) > 1 else ["Nice to meet you."]
    for chunk in chunks:
        yield Event(author="agent", content=chunk, partial=True)
    yield Event(author="agent", content="".join(chunks), outcome="completed")


async def answer(runner: Runner, user: str, chat: str, words: str) -> None:
    """Run one turn, and print the answer as it comes."""
    async for event in runner.run(user, chat, words):
        print(event.text if event.partial else "\n", end="", flush=True)


async def greet(runner: Runner, user: str, chat: str) -> None:
    session = await runner.session_service.get_or_create_session(SessionKey(APP, user, chat))
    print(f"Hello {user}, {session.last_seq} messages are in this chat. An empty line ends it.")


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("user")
    parser.add_argument("--chat", default="first")
    parser.add_argument("--store", default="memory://", metavar="URL")
    options = parser.parse_args()
    # Nothing has to happen while the user types, so the loop runs for each turn, not for all.
    with asyncio.Runner() as loop:
        runner = Runner(APP, agent, open_service(options.store))
        try:
            loop.run(greet(runner, options.user, options.chat))
            while words := input("> "):
                loop.run(answer(runner, options.user, options.chat, words))
        except (EOFError, KeyboardInterrupt):
            print()
        finally:
            loop.run(runner.session_service.aclose())


if __name__ == "__main__":
    main()
