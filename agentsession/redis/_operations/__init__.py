"""Parts of the Redis backend: how calls are worded, and what replies and errors mean."""

from __future__ import annotations
