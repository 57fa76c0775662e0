"""What is used of redis-py's connections: public methods only, which all kinds of them have."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    from collections.abc import Iterable

__all__ = ["Pool", "Wire"]


class Wire(Protocol):
    """What is used of a redis-py connection."""

    async def send_packed_command(self, command: Iterable[bytes], *, check_health: bool) -> None:
        """Send commands that are packed already."""

    async def read_response(
        self,
        *,
        disable_decoding: bool,
        timeout: float,  # noqa: ASYNC109 - redis-py's name
        disconnect_on_error: bool,
    ) -> Any:
        """Wait for the next reply, and raise it if it is an error."""

    async def disconnect(self, *, nowait: bool) -> None:
        """Close the socket."""


class Pool(Protocol):
    """What is used of a redis-py connection pool."""

    async def get_connection(self) -> Any:
        """Return a connection that is connected."""

    async def release(self, connection: Any) -> None:
        """Take a connection back."""

    async def aclose(self) -> None:
        """Close all connections."""
