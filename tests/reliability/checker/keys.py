"""Checks of what a server holds, beside what the library reads of it. Pure; no I/O."""

from __future__ import annotations

from collections.abc import Iterator

from agentsession import SessionKey
from agentsession.redis._keys import Keyspace, SessionKeys
from reliability.checker.ledger import Ledger
from reliability.history import View
from reliability.site import PREFIX, TTL, Kept

# Milliseconds. The keys of a session get the same expiry in one script, and are looked at in one
# transaction; the moment of the write, which is stored, is read within that script.
_TOLERANCE = 5
_SCRIPT_TOLERANCE = 1000

_keyspace = Keyspace(PREFIX)


def key_violations(ledger: Ledger, kept: Kept, strangers: dict[str, bytes]) -> Iterator[str]:
    """Say everything that is wrong with the keys.

    Args:
        ledger: What was done; it ends with a read of every session as a whole.
        kept: What is there now.
        strangers: The keys of others as they were before.
    """
    alive = {key: view for key, view in ledger.finals.items() if view and _in_keys(key, kept)}
    for key, view in alive.items():
        names = _keyspace.session(key)
        yield from _expiries(key, names, view, kept)
        if kept.logs.get(names.events, []) != [seen.id for seen in view.events]:
            yield f"disagreement: the key {names.events} holds other events than a reader finds"
    yield from _unneeded(alive, kept)
    for name in strangers.keys() | kept.strangers.keys():
        if strangers.get(name) != kept.strangers.get(name):
            yield f"foreign: {name}, which is somebody else's, was touched"


def _in_keys(key: SessionKey, kept: Kept) -> bool:
    return _keyspace.session(key).session in kept.expiries


def _expiries(key: SessionKey, names: SessionKeys, view: View, kept: Kept) -> Iterator[str]:
    own = [names.session, names.events, names.ids] if view.last_seq else [names.session]
    moments = [kept.expiries.get(name, -2) for name in own]
    due = view.updated // 1000 + int(TTL * 1000)
    if max(moments) - min(moments) > _TOLERANCE:
        yield f"expiry: the keys of {key} expire at {moments}"
    elif abs(moments[0] - due) > _SCRIPT_TOLERANCE:
        yield f"expiry: {key} expires at {moments[0]}, and its last write says {due}"
    if kept.expiries.get(names.index, -2) < moments[0] - _TOLERANCE:
        yield f"expiry: {names.index} goes before {key}"


def _unneeded(alive: dict[SessionKey, View], kept: Kept) -> Iterator[str]:
    for name, moment in kept.expiries.items():
        if moment < 0:
            yield f"expiry: {name} never expires"
    needed = {name for key in alive for name in _names(key)}
    # These outlive the sessions that they came from.
    kinds = ("userdata", "usercalls", "appdata", "appcalls", "users")
    shared = tuple(f"{PREFIX}{kind}:" for kind in kinds)
    for name in kept.expiries.keys() - needed:
        if not name.startswith(shared):
            yield f"left over: the key {name}"


def _names(key: SessionKey) -> tuple[str, ...]:
    names = _keyspace.session(key)
    return (*names.own, names.index)
