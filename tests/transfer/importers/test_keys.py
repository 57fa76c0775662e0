"""What a server is asked twice, it may answer twice: while it grows, keys come again."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

from agentsession.transfer.importers._redis import Keys


class Again:
    """A client of a server that tells everything twice, as SCAN and HSCAN may."""

    async def scan_iter(self, **asked: Any) -> AsyncIterator[bytes]:
        for key in (b"a", b"b", b"a", b"\xff", b"b", b"\xff"):
            yield key

    async def execute_command(self, command: str, key: bytes, cursor: Any, *rest: Any) -> Any:
        assert (command, key) == ("HSCAN", b"a\xff")
        return (0 if cursor else 7), {b"f": b"1", b"g": b"2"}


async def test_each_key_comes_once() -> None:
    """Also one that is no UTF-8, whose name stays what it is."""
    keys = Keys(Again())  # type: ignore[arg-type]
    assert [key async for key in keys.scan("*")] == ["a", "b", "\udcff"]


async def test_each_field_comes_once() -> None:
    """With its value."""
    keys = Keys(Again())  # type: ignore[arg-type]
    assert [each async for each in keys.fields("a\udcff")] == [("f", b"1"), ("g", b"2")]
