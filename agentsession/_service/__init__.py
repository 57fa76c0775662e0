"""Parts of the service: checks of arguments, results for users, and reads of a log."""

from __future__ import annotations
