"""Writes that a server has lost before what they wrote to was loaded, as in a failover."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from agentsession import Event
from agentsession.errors import OutcomeUnknownError
from agentsession.testing import Subject


@pytest.mark.parametrize("what", ["rewind", "begin_turn"])
async def test_what_was_lost_is_not_waited_for(
    subject: Subject, what: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whoever writes and loads is told, and does not ask for it for ever."""
    service = subject.service()
    await service.create_session(subject.key)
    await service.append_event(subject.key, Event(author="user", content="1"))
    get = service.backend.get
    before = None

    async def of_another_primary(*args: Any) -> Any:
        nonlocal before
        before = before or await get(*args)
        return before

    monkeypatch.setattr(service.backend, "get", of_another_primary)
    await service.get_session(subject.key)
    message = Event(author="user", content="x" * 10)
    with pytest.raises(OutcomeUnknownError, match=r"\(the server has lost it since"):
        async with asyncio.timeout(10):
            if what == "rewind":
                await service.rewind(subject.key, to_seq=0)
            else:
                await service.begin_turn(service.lease(subject.key), message)
