"""What a file needs besides reads and writes: copies of it, new forms, and a look at its health.

It opens the file for itself, and knows nothing of the threads that read and write.
"""

from __future__ import annotations

__all__: list[str] = []
