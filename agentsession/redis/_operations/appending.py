"""Builds the call that is made most often: an append."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from agentsession.redis._scripts import load
from agentsession.redis._scripts.words import change_words, life_words, number, rewind_words

if TYPE_CHECKING:
    from collections.abc import Coroutine, Sequence

    from agentsession.backend import Entry, Expected, Then
    from agentsession.redis._keys import Keyspace
    from agentsession.redis._links.link import Rest
    from agentsession.redis._operations.calls import Calls
    from agentsession.retention import Retention
    from agentsession.sessions import SessionKey
    from agentsession.state import Changes

__all__ = ["Appending", "add_scopes", "scopes_of"]

_APPEND: Final = load("append")
# The places in the header of the words that differ from call to call.
_OF_THE_CALL: Final = tuple(
    map(_APPEND.header.index, ("incarnation", "revision", "session_id", "scopes", "lease"))
)


class Appending:
    """Appends events.

    Args:
        calls: Runs the script.
        keyspace: Names the keys.
        retention: What to keep and for how long.
    """

    def __init__(self, calls: Calls, keyspace: Keyspace, retention: Retention) -> None:
        self._calls = calls
        self._keyspace = keyspace
        # The header, the same but for a few words.
        self._header = _APPEND.words(
            incarnation="",
            revision="",
            session_id="",
            scopes="",
            lease="",
            limit=number(retention.event_limit or None),
            news=keyspace.news,
            **life_words(retention),
        )

    def call(
        self,
        key: SessionKey,
        entries: Sequence[Entry],
        expected: Expected,
        then: Then = "keep",
        rest: Rest | None = None,
    ) -> Coroutine[Any, Any, list[Any]]:
        """Make the call of the script; awaited, it gives the reply."""
        words = self._header.copy()
        touched = ""
        for entry in entries:
            words += (entry.event_id, str(entry.time), entry.payload)
            if entry.rewind is not None:
                words += ("1", *rewind_words(entry.rewind, is_copy=entry.is_copy))
                touched += "r"
            elif entry.changes:
                changes = change_words(entry.changes)
                touched += scopes_of(entry.changes)
                words.append(str(len(changes) // 3))
                words += changes
            else:
                words.append("0")
        names = self._keyspace.session(key)
        keys = [names.session, names.events, names.ids, names.index]
        incarnation, revision, session_id, scopes, lease = _OF_THE_CALL
        words[incarnation] = expected.incarnation
        words[session_id] = key.session_id
        if expected.revision is not None:
            words[revision] = str(expected.revision)
        if expected.lease:
            words[lease] = f"{expected.lease} {then}"
        if touched:
            words[scopes] = add_scopes(keys, self._keyspace, key, touched)
        return self._calls.run(key, _APPEND, keys, words, rest)


def scopes_of(changes: Changes) -> str:
    """Name the scopes beside the session's own that are changed."""
    return ("u" if changes.user else "") + ("a" if changes.app else "")


def add_scopes(keys: list[str], keyspace: Keyspace, key: SessionKey, touched: str) -> str:
    """Add the keys of the other scopes that are changed, and name what is touched."""
    scopes = "r" if "r" in touched else ""
    if "u" in touched:
        keys.append(keyspace.session(key).user)
        scopes += "u"
    if "a" in touched:
        keys += keyspace.app_beside(key.app_name)
        scopes += "a"
    return scopes
