"""Refuses what cannot be exported from, or imported into, and says what to pass instead."""

from __future__ import annotations

import io

from agentsession._wording import brief
from agentsession.blocking import AnyLoopSessionService, BlockingSessionService
from agentsession.service import SessionService

__all__ = ["check_file", "check_lines", "check_service"]


def check_service(service: object) -> None:
    """Refuse what is no service.

    Raises:
        TypeError: It is none.
    """
    if isinstance(service, SessionService):
        return
    advice = ""
    if isinstance(service, BlockingSessionService):
        advice = "; write service.call(export_to, scope, file), and the like of what imports"
    elif isinstance(service, AnyLoopSessionService):
        advice = "; write await service.call(export_to, scope, file), and the like of what imports"
    # Its type alone: a URL has a password.
    kind = type(service).__qualname__
    msg = f"a transfer takes a SessionService, as open_service() makes one, not {kind}{advice}"
    raise TypeError(msg)


def check_file(file: object, mode: str) -> None:
    """Refuse what is no file that is open for bytes.

    Args:
        file: What was passed.
        mode: How a file is to be opened.

    Raises:
        TypeError: It is none.
    """
    is_text = isinstance(file, io.TextIOBase) or getattr(file, "encoding", None) is not None
    if is_text or not hasattr(file, "read" if "r" in mode else "write"):
        what = "one that is open for text" if is_text else brief(file)
        msg = f"a transfer takes a file that is open for bytes, open(path, {mode!r}), not {what}"
        raise TypeError(msg)


def check_lines(lines: object) -> None:
    """Refuse what is no asynchronous iterable.

    Raises:
        TypeError: It is none.
    """
    if not hasattr(lines, "__aiter__"):
        msg = (
            f"import_lines takes an asynchronous iterable of lines, not {brief(lines)}; "
            "import_from takes a file"
        )
        raise TypeError(msg)
