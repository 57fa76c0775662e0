"""A server that somebody else writes to: its keys are read, and never written."""

from __future__ import annotations

from contextlib import asynccontextmanager, contextmanager
from typing import TYPE_CHECKING, Any, Final, TypeAlias

from redis.asyncio import Redis
from redis.asyncio.cluster import ClusterNode, RedisCluster
from redis.exceptions import RedisClusterException, RedisError

from agentsession.transfer.importers._reports import SourceError

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, AsyncIterator, Generator

__all__ = ["Keys", "Server", "connected", "literal"]

Server: TypeAlias = str | Redis | RedisCluster
"""The URL of a server, or a client of one, which is not closed."""

_KEYS: Final = 1000
_FIELDS: Final = 200
_SERVER: Final = "the server that is read from"


class Keys:
    """The keys of a server.

    Args:
        client: A client that answers with bytes or strings.
    """

    def __init__(self, client: Redis | RedisCluster) -> None:
        self._client: Any = client  # redis-py leaves out some of its types

    async def scan(self, pattern: str) -> AsyncIterator[str]:
        """Yield the keys that fit a pattern, each once; how many there are is kept in memory."""
        seen: set[bytes] = set()
        with _answering():
            async for found in self._client.scan_iter(match=pattern.encode(), count=_KEYS):
                key = _bytes(found)
                if key not in seen:
                    seen.add(key)
                    yield _text(key)

    async def get(self, key: str) -> bytes | None:
        """Return a string's value."""
        found = await self._do("GET", key)
        return None if found is None else _bytes(found)

    async def fields(self, key: str) -> AsyncIterator[tuple[str, bytes]]:
        """Yield the fields of a hash and their values, each once."""
        cursor: Any = 0
        seen: set[str] = set()
        while True:
            cursor, page = await self._do("HSCAN", key, cursor, "COUNT", _FIELDS)
            for name, value in page.items():
                field = _text(_bytes(name))
                if field not in seen:
                    seen.add(field)
                    yield field, _bytes(value)
            if not int(cursor):
                return

    async def values(self, key: str, fields: list[str]) -> list[bytes | None]:
        """Return the values of fields of a hash."""
        found = await self._do("HMGET", key, *map(_raw, fields))
        return [None if each is None else _bytes(each) for each in found]

    async def items(self, key: str) -> AsyncIterator[bytes]:
        """Yield the items of a list."""
        start = 0
        while page := await self._do("LRANGE", key, start, start + _FIELDS - 1):
            for each in page:
                yield _bytes(each)
            start += _FIELDS

    async def members(self, key: str) -> AsyncIterator[tuple[str, float]]:
        """Yield the members of a sorted set with their scores, in its order."""
        start = 0
        while page := await self._do(
            "ZRANGE", key, start, start + _FIELDS - 1, "WITHSCORES", withscores=True
        ):
            for member, score in page:
                yield _text(_bytes(member)), float(score)
            start += _FIELDS

    async def count_fields(self, key: str) -> int:
        """Return how many fields a hash has."""
        return int(await self._do("HLEN", key))

    async def exists(self, key: str) -> bool:
        """Tell whether there is such a key."""
        return bool(await self._do("EXISTS", key))

    async def kind(self, key: str) -> str:
        """Return the type of a key: ``"hash"``, ``"list"`` and so on."""
        return _text(_bytes(await self._do("TYPE", key)))

    async def time_to_live(self, key: str) -> int:
        """Return for how many milliseconds a key lives still; negative if it does not expire."""
        return int(await self._do("PTTL", key))

    async def _do(self, command: str, key: str, *arguments: Any, **options: Any) -> Any:
        with _answering():
            return await self._client.execute_command(command, _raw(key), *arguments, **options)


@contextmanager
def _answering() -> Generator[None]:
    """Tell what is wrong with an answer.

    Raises:
        SourceError: The server cannot be reached, or does not answer as it should.
    """
    try:
        yield
    except UnicodeDecodeError as exc:  # Of the client: we decode any bytes.
        reason = "its client decodes what is no text; make one without decode_responses"
        raise SourceError(_SERVER, reason) from exc
    except (RedisError, RedisClusterException) as exc:
        raise SourceError(_SERVER, f"{type(exc).__name__}: {exc}") from exc


def literal(text: str) -> str:
    """Return a pattern that fits this text alone."""
    return "".join(f"\\{each}" if each in r"\*?[]" else each for each in text)


@asynccontextmanager
async def connected(server: Server) -> AsyncGenerator[Keys, None]:
    """Connect to a server, unless a client of one is given."""
    client = _client(server) if isinstance(server, str) else server
    try:
        yield Keys(client)
    finally:
        if isinstance(server, str):
            await client.aclose()


def _client(url: str) -> Redis | RedisCluster:
    """Make a client: of a cluster, if the URL is one that our own service takes for it."""
    scheme, _, rest = url.partition("+cluster://")
    if not rest:
        kind: Any = Redis
        client: Redis = kind.from_url(url)
        return client
    places, slash, ending = rest.partition("/")
    first, *others = places.split(",")
    nodes = [each.rpartition(":") for each in others]
    return RedisCluster.from_url(
        f"{scheme}://{first}{slash}{ending}",
        startup_nodes=[ClusterNode(host, int(port)) for host, _, port in nodes] or None,
    )


# Keys and fields are bytes, of any kind; so what is no UTF-8 stays as it is.


def _bytes(value: bytes | str) -> bytes:
    return value.encode(errors="surrogateescape") if isinstance(value, str) else value


def _text(value: bytes) -> str:
    return value.decode(errors="surrogateescape")


def _raw(text: str) -> bytes:
    return text.encode(errors="surrogateescape")
