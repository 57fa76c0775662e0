"""How what a user gives, a URL, a client or a name, becomes a link."""

from __future__ import annotations
