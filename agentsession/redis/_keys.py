"""The names of everything that is kept on Redis. Pure; no I/O.

======================== ========== =====================================================
key                      type       holds
======================== ========== =====================================================
appdata:{app}            Hash       name to value
userdata:{app:user}      Hash       name to value
session:{app:user}:sid   Hash       v, incarnation, created, updated, revision, count,
                                    last, horizon, ttl, past, lease and line; session state
                                    as ``state:`` and its name
events:{app:user}:sid    Sorted set the log; score: time in µs, value: event as JSON
eventids:{app:user}:sid  Sorted set event ids; score: when it was stored in µs
taken:{app:user}:sid     Sorted set what rewinds took back, as gaps: value: the position before
                                    the gap, score: its last
changes:{app:user}:sid   Sorted set changes of state; score: after which event
before:{app:user}:sid    Hash       what each of these changed, as it was before
sessions:{app:user}      Sorted set session ids; score: last activity in µs
usercalls:{app:user}     Sorted set writes to the user's data, events aside; score: until when
                                    they are remembered in µs
users:{app}              Sorted set the application's users; score: 0
appcalls:{app}           Sorted set the same for the application's state and its users
======================== ========== =====================================================

The braces are the cluster's hash tag: all that belongs to one user is in one slot, so that one
script can change it. The ids inside have the four characters that mean something here escaped, so
that no id can reach another one's key, whatever it holds. A key's first word is never the end of
another's, so that deployments with different prefixes never meet either.
"""

from __future__ import annotations

import re
from functools import lru_cache
from typing import TYPE_CHECKING, Final
from urllib.parse import unquote

from msgspec import Struct

if TYPE_CHECKING:
    from agentsession.sessions import SessionKey, UserKey

__all__ = ["STATE_FIELD", "Keyspace", "SessionKeys"]

STATE_FIELD: Final = b"state:"
"""Stands before the names of state among the fields of a session."""

# A hash and a sorted set come first, which check.lua counts on.
_KINDS: Final = (
    "session",
    "events",
    "userdata",
    "eventids",
    "taken",
    "changes",
    "before",
    "appdata",
    "sessions",
    "usercalls",
    "appcalls",
    "users",
)

_glob = re.compile(r"[*?\[\\]")
_special = re.compile(r"[%:{}]")
_ESCAPES: Final = {ord(character): f"%{ord(character):02X}" for character in "%:{}"}


def _escape(part: str) -> str:
    return part.translate(_ESCAPES) if _special.search(part) else part


class SessionKeys(Struct, frozen=True):
    """The keys of one session, and of what it shares with its user's others.

    Scripts name the keys that they take as these fields are named, and in this order.
    """

    session: str
    events: str
    ids: str
    index: str
    user: str
    calls: str
    # Scripts name these by that of the session (lib/past.lua), since few calls need them.
    taken: str
    changes: str
    before: str

    @property
    def own(self) -> tuple[str, ...]:
        """The keys that go when the session is deleted; that of its hash comes first."""
        return self.session, self.events, self.ids, self.taken, self.changes, self.before


class Keyspace:
    """Builds the keys of one deployment.

    Args:
        prefix: Stands in front of every key, as it is; ``"prod:"`` for example.
        clustered: Whether an application's state is in another slot than the sessions that change
            it.

    Raises:
        TypeError: *prefix* is not a string.
        ValueError: *prefix* holds a brace, which would move the cluster's hash tag, or is not valid
            Unicode.
    """

    def __init__(self, prefix: str = "", *, clustered: bool = False) -> None:
        if not isinstance(prefix, str):
            msg = f"key_prefix must be a str, not {type(prefix).__qualname__}: {prefix!r:.80}"
            raise TypeError(msg)
        try:
            prefix.encode()
        except UnicodeEncodeError as exc:
            msg = f"key_prefix holds half of a surrogate pair at position {exc.start}"
            raise ValueError(msg) from exc
        if "{" in prefix or "}" in prefix:
            msg = f"key_prefix must not contain braces, a cluster's hash tag: {prefix!r}"
            raise ValueError(msg)
        self.prefix = prefix
        self._clustered = clustered
        # A busy session's keys are asked for with every call; to build them takes as long as to
        # encode its event.
        self._cached = lru_cache(maxsize=512)(self._session)

    def session(self, key: SessionKey) -> SessionKeys:
        """Return the keys of a session."""
        return self._cached(key)

    def _session(self, key: SessionKey) -> SessionKeys:
        tag = _user_tag(key)
        name = f"{tag}:{_escape(key.session_id)}"
        return SessionKeys(
            f"{self.prefix}session:{name}",
            f"{self.prefix}events:{name}",
            f"{self.prefix}eventids:{name}",
            f"{self.prefix}sessions:{tag}",
            f"{self.prefix}userdata:{tag}",
            f"{self.prefix}usercalls:{tag}",
            f"{self.prefix}taken:{name}",
            f"{self.prefix}changes:{name}",
            f"{self.prefix}before:{name}",
        )

    def index(self, user: UserKey) -> str:
        """Return the key of a user's list of sessions."""
        return f"{self.prefix}sessions:{_user_tag(user)}"

    def user(self, user: UserKey) -> str:
        """Return the key of a user's state."""
        return f"{self.prefix}userdata:{_user_tag(user)}"

    def user_calls(self, user: UserKey) -> str:
        """Return the key of the ids of recent writes to a user's data."""
        return f"{self.prefix}usercalls:{_user_tag(user)}"

    def app(self, app_name: str) -> str:
        """Return the key of an application's state."""
        return f"{self.prefix}appdata:{{{_escape(app_name)}}}"

    def app_calls(self, app_name: str) -> str:
        """Return the key of what is remembered of writes to an application's state."""
        return f"{self.prefix}appcalls:{{{_escape(app_name)}}}"

    def users(self, app_name: str) -> str:
        """Return the key of the list of an application's users."""
        return f"{self.prefix}users:{{{_escape(app_name)}}}"

    def of_users(self, app_name: str) -> str:
        """Return a pattern of Redis for all keys of an application's users, and some more."""
        beginning = _glob.sub(r"\\\g<0>", self.prefix), _glob.sub(r"\\\g<0>", _escape(app_name))
        return "{}*:{{{}:*}}".format(*beginning)

    def user_of(self, app_name: str, key: str) -> str | None:
        """Read whose sessions or state a key is for; ``None`` if it is not one of these."""
        for kind in ("sessions", "userdata"):
            beginning = f"{self.prefix}{kind}:{{{_escape(app_name)}:"
            if key.startswith(beginning) and key.endswith("}"):
                return unquote(key[len(beginning) : -1])
        return None

    @property
    def news(self) -> str:
        """The command by which scripts tell those who follow: a cluster has one of its own."""
        return "SPUBLISH" if self._clustered else "PUBLISH"

    def inbox(self, name: str) -> str:
        """Return the channel of an inbox; lib/lease.lua names it by the key of a session."""
        return f"{self.prefix}inbox:{name}"

    def near(self, tag: str) -> str:
        """Return a key with this hash tag that holds nothing."""
        return f"{self.prefix}near:{{{tag}}}"

    def users_beside(self, app_name: str) -> list[str]:
        """Return the keys of the list of users, if the script of a user's data may touch it."""
        return [] if self._clustered else [self.users(app_name), self.app_calls(app_name)]

    def app_beside(self, app_name: str) -> list[str]:
        """Return the key of an application's state, if the script of a session may touch it."""
        return [] if self._clustered else [self.app(app_name)]

    def scratch(self, name: str) -> list[str]:
        """Return a key of each kind that can hold nobody's data.

        A user's hash tag has a colon in it, and nothing follows that of an application.
        """
        return [f"{self.prefix}{kind}:{{check}}:{name}" for kind in _KINDS]


def _user_tag(key: SessionKey | UserKey) -> str:
    return f"{{{_escape(key.app_name)}:{_escape(key.user_id)}}}"
