"""The contestants: each module is run in a process of its own, and needs only its own framework."""

from __future__ import annotations
