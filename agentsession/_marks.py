r"""How state values that JSON cannot hold are written in JSON.

Each is an object with one key, which begins with ``$``. A value that is such an object is wrapped,
whatever its key, so that all come back as they were, also when there are more of them::

    b"\x00\x01"         {"$bytes": "AAE="}         base64
    DELETE             {"$delete": true}
    {"$bytes": 1}      {"$json": {"$bytes": 1}}
"""

from __future__ import annotations

import base64
import binascii
from typing import TYPE_CHECKING, Any, Final, cast

from agentsession.state import DELETE, check_values, is_temporary

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

__all__ = ["mark", "marked", "unmark"]


def mark(values: Mapping[str, Any]) -> dict[str, Any]:
    """Replace the values of state that JSON cannot hold by objects that it can."""
    return {name: _wrap(value) for name, value in values.items()}


def marked(values: Any) -> Any:
    """Give values of state a form in JSON, all but those of ``temp:`` names; leave what is no dict.

    Raises:
        StateValueError: A name is no string, or a value cannot be stored; the error names its path.
    """
    if not isinstance(values, dict):
        return values
    values = cast("dict[str, Any]", values)
    check_values(values)
    return mark({name: value for name, value in values.items() if not is_temporary(name)})


def unmark(values: dict[str, Any]) -> dict[str, Any]:
    """Undo :func:`mark`; return the same dict if nothing in it is marked.

    Raises:
        ValueError: A mark is damaged.
    """
    if not any(map(_mark_of, values.values())):
        return values
    try:
        return {name: _unwrap(value) for name, value in values.items()}
    except (TypeError, binascii.Error) as exc:
        msg = f"a value of state is unreadable: {exc}"
        raise ValueError(msg) from exc


def _wrap(value: Any) -> Any:
    if value is DELETE:
        return {"$delete": True}
    if type(value) is bytes:
        return {"$bytes": base64.b64encode(value).decode()}
    return {"$json": value} if _mark_of(value) else value


def _unwrap(value: Any) -> Any:
    found = _mark_of(value)
    return value if found is None or found not in _UNWRAP else _UNWRAP[found](value[found])


def _mark_of(value: object) -> str | None:
    """Return the mark that a value carries, or seems to carry."""
    if not isinstance(value, dict) or len(value) != 1:  # pyright: ignore[reportUnknownArgumentType] - keys are checked
        return None
    (name,) = value  # pyright: ignore[reportUnknownVariableType] - as above
    return name if isinstance(name, str) and name.startswith("$") else None


def _from_base64(text: Any) -> bytes:
    return base64.b64decode(text, validate=True)


_UNWRAP: Final[Mapping[str, Callable[[Any], Any]]] = {
    "$bytes": _from_base64,
    "$delete": lambda _: DELETE,
    "$json": lambda value: value,
}
