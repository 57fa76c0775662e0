"""Every promise on every backend."""

from __future__ import annotations

import pytest

from agentsession.testing import CHECKS, Check, Subject


@pytest.mark.parametrize("check", CHECKS, ids=lambda check: check.__name__)
async def test_conformance(check: Check, subject: Subject) -> None:
    """The backend keeps the promise."""
    await check(subject)
