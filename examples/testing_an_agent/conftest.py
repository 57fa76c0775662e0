"""Where the tests get their fixtures from."""

from __future__ import annotations

import pytest

pytest_plugins = ["agentsession.testing.pytest"]


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"
