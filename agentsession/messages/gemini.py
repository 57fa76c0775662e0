"""The contents of Google's Gemini API: what ``generateContent`` takes and gives, as JSON.

====================================== =============================================================
content, or part of one                event, or part of one
====================================== =============================================================
``user``                               that author; one plain text is a string, else parts
``model``                              the agent's name as the author
``user`` with results alone            author ``"tool"``
``text``                               :class:`~agentsession.Text`
``text`` that is a ``thought``         :class:`~agentsession.events.Reasoning`
``inlineData``, ``fileData``           :class:`~agentsession.events.Media`
``functionCall``                       :class:`~agentsession.ToolCall`
``functionResponse``                   :class:`~agentsession.ToolResult`; ``{"result": x}`` is the
                                       result *x*, and ``{"error": x}`` the error *x*
any other, as of the provider's tools  :class:`~agentsession.Data`, verbatim
====================================== =============================================================

What belongs to this format alone is kept under ``"gemini"``: thought signatures and the like in
``provider_data`` of a part, and the rest in ``metadata`` of an event.

A call without an id gets one, which is made of its place: the same for the same contents, and
another for each call of them. A result without an id answers the oldest such call of its name that
has no result yet. Both go back without ids.

Results of several calls become one content, as the API wants it. What the system or a developer
says is said as the user's, and told, since a request has a place of its own for it. No form have:
calls and reasoning of the user, reasoning without words, media without a place, arguments that are
no object (they are sent within one, and told), and any other ``provider_data``. Events and
contents without parts are left out.
"""

from __future__ import annotations

from collections import defaultdict, deque
from functools import partial
from typing import TYPE_CHECKING, Any

from agentsession.messages._converted import Converted
from agentsession.messages._converting import plain, read
from agentsession.messages._gemini import Heard, Said, is_answer

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from agentsession.events import Event

__all__ = ["from_messages", "to_messages"]


def to_messages(events: Iterable[Event]) -> Converted[dict[str, Any]]:
    """Make contents for a request of events, such as a history.

    Args:
        events: In their order. Every call needs its result right behind it, as in a history; and
            the API wants the user to begin, as ``from_user=True`` gives it.

    Returns:
        The contents, as the API's JSON, which the types of the provider's package read as well; in
        ``lost`` what they cannot say.
    """
    converted: Converted[dict[str, Any]] = Converted()
    answers: list[Any] | None = None  # of the last content, if it is one of results alone
    tools: dict[str, str] = {}
    for event in events:
        if not event.content or event.partial:
            continue
        for content in Said(event, converted.lost, tools).contents():
            copied, of_results = plain(content), is_answer(content)
            if of_results and answers is not None:
                answers += copied["parts"]
                continue
            converted.append(copied)
            answers = copied["parts"] if of_results else None
    return converted


def from_messages(
    messages: Iterable[Mapping[str, Any] | object], *, agent: str = "assistant"
) -> Converted[Event]:
    """Make events of contents, one of each.

    Args:
        messages: Contents as a request takes them, or as an answer holds them: dicts as the API's
            JSON has them, or the models of the provider's package.
        agent: The author of what the model says.

    Returns:
        The events, with new ids. Nothing is lost, since what an event has no place for is kept in
        it and comes back from :func:`to_messages`.

    Raises:
        TypeError: A content is no dict and no model.
        ValueError: A field of a content has the wrong type.
    """
    return read(partial(Heard, defaultdict(deque)), messages, agent)
