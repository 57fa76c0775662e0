"""What is said in a conversation, whatever framework it is stored by, for comparing.

A line is one of these:

- ``("text", role, words)``
- ``("reasoning", words, what the provider wants back)``
- ``("media", role, media type, base64 or address, name)``; of an address ``"image"`` or ``"file"``,
  since providers take no more precise type there
- ``("call", call_id, tool, arguments)``
- ``("result", call_id, result)``, or ``("failure", call_id, result)`` for one that is an error
"""

from __future__ import annotations

import json
from typing import Any, TypeAlias

Said: TypeAlias = tuple[Any, ...]


def said_in(messages: list[dict[str, Any]]) -> list[Said]:
    """Return what is said in messages of OpenAI's chat format."""
    found: list[Said] = []
    for message in messages:
        role, content = message["role"], message.get("content")
        if role == "tool":
            found.append(("result", message["tool_call_id"], content))
            continue
        if content:
            found.append(("text", role, content))
        found += [
            (
                "call",
                call["id"],
                call["function"]["name"],
                json.loads(call["function"]["arguments"]),
            )
            for call in message.get("tool_calls") or ()
        ]
    return found


def medium(role: str, media_type: str, url: str, name: str | None = None) -> Said:
    """Return the line of a medium at an address, or in one that begins with ``data:``."""
    if url.startswith("data:"):
        header, _, data = url.removeprefix("data:").partition(",")
        return ("media", role, header.removesuffix(";base64"), data, name or "")
    kind = "image" if media_type.startswith("image") else "file"
    return ("media", role, kind, url, name or "")
