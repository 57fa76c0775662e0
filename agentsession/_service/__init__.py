"""What the service is made of: what comes in, what goes out, and reads of a log."""

from __future__ import annotations
