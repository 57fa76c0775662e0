"""The agent that is tested: it keeps a shopping list for each user."""

from __future__ import annotations

from collections.abc import AsyncIterator

from agentsession import AgentContext, Event


async def shopping_list(context: AgentContext) -> AsyncIterator[Event]:
    """Add what the user says to the list, or tear the list up on "done"."""
    things: list[str] = context.state.setdefault("user:things", [])
    if context.message.text == "done":
        del context.state["user:things"]
        words = f"You wanted {', '.join(things)}."
    else:
        things.append(context.message.text)
        words = f"{len(things)} on your list."
    yield Event(author="agent", content=words, outcome="completed")
