"""What the backend is made of: its calls, what they say, and what their replies mean."""

from __future__ import annotations
