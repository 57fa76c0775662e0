"""What the formats of OpenAI share: arguments as text, and addresses that hold the thing itself."""

from __future__ import annotations

import mimetypes
import re
from typing import TYPE_CHECKING, Any, Final

import msgspec

from agentsession.events import Media
from agentsession.messages._converting import is_array, is_mapping, items, kind_of, mapping

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ["are_texts", "arguments_text", "file_data", "image", "read_arguments", "result_content"]

_data_url: Final = re.compile(r"data:([^;,\s]+);base64,([A-Za-z0-9+/=]+)")


def read_arguments(text: str) -> tuple[Any, bool]:
    """Read arguments that are an object; tell whether this text is how it would be written."""
    try:
        read = msgspec.json.decode(text)
    except (msgspec.DecodeError, UnicodeError, RecursionError):
        return text, True
    if not is_mapping(read):
        return text, True
    return mapping(read), msgspec.json.encode(read) == text.encode()


def arguments_text(arguments: Any, written: object) -> str:
    """Return arguments as text: as the model wrote them, unless they were changed since."""
    if isinstance(arguments, str):
        return arguments
    text = msgspec.json.encode(arguments).decode()
    if isinstance(written, str):
        read = read_arguments(written)[0]
        if read == arguments and msgspec.json.encode(read).decode() == text:
            return written
    return text


def are_texts(content: Any, kind: str) -> bool:
    """Tell a list of nothing but texts, of a type, from any other."""
    parts = items(content)
    return bool(parts) and all(
        mapping(each).keys() == {"type", "text"}
        and kind_of(each) == kind
        and isinstance(each["text"], str)
        for each in parts
    )


def result_content(result: Any, kind: str, *, of_parts: bool) -> Any:
    """Return a result as parts, if it was made of them or is nothing but texts; else as text."""
    if (of_parts and is_array(result)) or are_texts(result, kind):
        return result
    return result if isinstance(result, str) else msgspec.json.encode(result).decode()


def image(url: str, provider_data: Mapping[str, Any] | None) -> Media:
    """Read the address of an image, which may be the image itself."""
    found = _data_url.fullmatch(url)
    if found and found[1].startswith("image/"):
        return Media(found[1], data=found[2], provider_data=provider_data)
    guessed = mimetypes.guess_type(url.partition("?")[0])[0] or ""
    kind = guessed if guessed.startswith("image/") else "image/*"
    return Media(kind, uri=url, provider_data=provider_data)


def file_data(url: str) -> tuple[str, str] | None:
    """Read an address that is the file itself: its type and content; ``None`` for any other."""
    found = _data_url.fullmatch(url)
    if not found or found[1].startswith(("image/", "audio/")):
        return None
    return found[1], found[2]
