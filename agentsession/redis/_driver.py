"""Says what to install where redis-py is missing or too old; imported before all that needs it."""

from __future__ import annotations

import re
from typing import Final

__all__ = ["OLDEST"]

OLDEST: Final = (8, 1)
"""The oldest version of redis-py that is tested; the package's metadata ask for it too."""

_INSTALL: Final = f"install it with: pip install 'redis[hiredis]>={'.'.join(map(str, OLDEST))}'"

try:
    import hiredis  # noqa: F401  # pyright: ignore[reportUnusedImport] - whether it is there
    import redis
except ImportError as exc:
    msg = f"RedisSessionService needs redis-py and hiredis ({exc}); {_INSTALL}"
    raise ImportError(msg) from exc


def _is_too_old(version: str) -> bool:
    return tuple(map(int, re.findall(r"\d+", version)[: len(OLDEST)])) < OLDEST


if _is_too_old(redis.__version__):
    msg = f"RedisSessionService needs a newer redis-py than {redis.__version__}; {_INSTALL}"
    raise ImportError(msg)
