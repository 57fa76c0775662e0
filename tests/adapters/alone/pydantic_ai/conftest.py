"""The store that is tested."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from agentsession import SessionService

if TYPE_CHECKING:
    from agentsession.adapters.pydantic_ai import ConversationStore


@pytest.fixture
def store(service: SessionService) -> ConversationStore:
    # Without the framework there are no tests here, but this is imported.
    from adapters.alone.pydantic_ai.conversing import store_of

    return store_of(service)
