"""Turns what scripts return into what a backend returns. Pure; no I/O."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final
from urllib.parse import unquote

from agentsession._pace import Pace
from agentsession._wording import brief, described_app
from agentsession.backend import NO_REPEATS, Before, PastSlice, Receipt, Snapshot, UnendedTurn
from agentsession.clock import from_microseconds
from agentsession.errors import (
    CodecError,
    LeaseLostError,
    OutcomeUnknownError,
    ReadTooLargeError,
    RevisionConflictError,
    RewindError,
    SessionBusyError,
    SessionNotFoundError,
)
from agentsession.redis._keys import STATE_FIELD
from agentsession.retention import LARGEST
from agentsession.sessions import SessionKey, UnreadableSession

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator, Mapping, Sequence

    from agentsession.backend import Expected, ReadLimit, Stop
    from agentsession.events import Rewind
    from agentsession.redis._operations.failures import Subject

__all__ = [
    "check_appended",
    "check_back",
    "check_found",
    "check_size",
    "read_count",
    "read_names",
    "read_past",
    "read_past_slice",
    "read_receipt",
    "read_seqs",
    "read_snapshot",
    "read_summary",
    "read_text",
    "read_updated",
    "was_made",
]

_FORMAT: Final = b"1"
# A hash of more is read in several steps.
_WORDS_AT_ONCE: Final = 4_000
_WRONG_COUNT: Final = (
    "the stored session is damaged: its count, the position of an event, or what was taken back is "
    "wrong"
)
_GONE: Final = "the reply was lost: it was written, and the session was deleted since"
_NO_SESSION: Final = "what is stored is not a session of ours; set a key_prefix of your own"
_NO_MOMENTS: Final[Mapping[int, int]] = {}
_PREFIX_LENGTH: Final = len(STATE_FIELD)
_COUNTS: Final = [(name, name.encode()) for name in ("created", "updated", "revision", "count")]


def check_found(key: SessionKey, reply: Sequence[Any]) -> None:
    """Raise if a script says that the session is missing, not ours, or damaged."""
    match reply[1]:
        case b"missing":
            raise SessionNotFoundError(key)
        case b"replaced":
            raise SessionNotFoundError(key, replaced=True)
        case b"foreign":
            raise CodecError(key, _version_problem(reply[-1]))
        case b"damaged":
            raise CodecError(key, _WRONG_COUNT)
        case b"lost":
            raise LeaseLostError(key)
        case _:
            pass


def check_appended(
    key: SessionKey, expected: Expected, reply: Sequence[Any], rewind: Rewind | None = None
) -> None:
    """Raise if a script says that it has not appended."""
    if reply[1] != b"ok":
        if reply[1] == b"conflict":
            raise RevisionConflictError(key, expected.revision or 0, reply[3])
        check_back(key, rewind.to_seq if rewind else 0, reply)
        check_not_busy(key, reply)
        check_found(key, reply)


def check_back(key: SessionKey, seq: int, reply: Sequence[Any]) -> None:
    """Raise if a script says that the log cannot go back to there."""
    if reply[1] == b"back":
        raise RewindError(key, seq, reply[3].decode())


def check_not_busy(key: SessionKey, reply: Sequence[Any]) -> None:
    """Raise if a script says that another turn's lease is exclusive."""
    if reply[1] == b"busy":
        ends_at = from_microseconds(reply[4]) if reply[4] else None
        raise SessionBusyError(key, unquote(reply[3].decode()), ends_at, "exclusive")


def was_made(reply: Sequence[Any]) -> bool:
    """Tell whether a creation has made its session, whatever became of it since."""
    return reply[1] == b"created" or (reply[1] in {b"gone", b"large"} and reply[3] == b"made")


def read_updated(key: SessionKey, reply: Sequence[Any]) -> Receipt:
    """Read what a script says of an update, and refuse one that it did not carry out."""
    if reply[1] == b"gone":
        raise OutcomeUnknownError(key, _GONE)
    check_not_busy(key, reply)
    check_found(key, reply)
    return read_receipt(key, reply)[0]


def check_size(key: SessionKey, reply: Sequence[Any], limit: ReadLimit | None) -> None:
    """Raise if a script has read nothing because there was too much."""
    if limit is not None and reply[1] == b"large":
        raise ReadTooLargeError(key, reply[-2], reply[-1], limit.size)


def read_receipt(key: SessionKey, reply: Sequence[Any]) -> tuple[Receipt, Mapping[int, int]]:
    """Read what a script says of a write; and for each repeat, when it was stored."""
    _, _, _, revision, last_seq, updated, incarnation, oldest_seq, *seqs = reply
    text = read_text(key, incarnation)
    if list not in map(type, seqs):
        receipt = Receipt(seqs, revision, last_seq, updated, text, NO_REPEATS, oldest_seq)
        return receipt, _NO_MOMENTS
    repeats: dict[int, bytes] = {}
    moments: dict[int, int] = {}
    stored: int | list[Any]
    for index, stored in enumerate(seqs):
        if type(stored) is list:
            seqs[index], payload, moment = stored
            repeats[index] = payload or b""
            moments[index] = int(moment)
    return Receipt(seqs, revision, last_seq, updated, text, repeats, oldest_seq), moments


def _version_problem(version: bytes) -> str:
    if version.isdigit():
        return (
            f"stored in format {version.decode():.20} by a newer agentsession, and this one reads "
            f"format {_FORMAT.decode()}; upgrade this process"
        )
    return _NO_SESSION


def read_text(subject: Subject, raw: bytes) -> str:
    """Decode a stored name."""
    try:
        return raw.decode()
    except UnicodeDecodeError as exc:
        raise CodecError(subject, f"a stored name is not UTF-8: {raw!r:.80}") from exc


def read_count(subject: Subject, what: str, raw: bytes | None) -> int:
    """Decode a stored number: of events, of writes, or of microseconds."""
    if raw is None or not raw.isdigit() or (count := int(raw[:20])) > LARGEST:
        raise CodecError(subject, f"the stored session is damaged: {what} is {brief(raw)}")
    return count


async def read_names(subject: Subject, flat: Sequence[bytes]) -> dict[str, bytes]:
    """Decode the names of a scope, whose hash is as a script returns it."""
    if len(flat) <= _WORDS_AT_ONCE:
        return {read_text(subject, name): value for name, value in _pairs(flat)}
    names: dict[str, bytes] = {}
    async for run in _in_steps(flat):
        names |= {read_text(subject, name): value for name, value in _pairs(run)}
    return names


async def _in_steps(flat: Sequence[bytes]) -> AsyncIterator[Sequence[bytes]]:
    """Cut a hash into runs, and let others run between them."""
    pace = Pace()
    for start in range(0, len(flat), _WORDS_AT_ONCE):
        if pace.due():
            await pace.rest()
        yield flat[start : start + _WORDS_AT_ONCE]


def _pairs(flat: Sequence[bytes]) -> Iterator[tuple[bytes, bytes]]:
    return zip(flat[::2], flat[1::2], strict=True)


async def read_snapshot(
    key: SessionKey,
    view: Sequence[Any],
    app: dict[str, bytes] | None = None,
    user: dict[str, bytes] | None = None,
) -> Snapshot:
    """Read a session as lib/snapshot.lua returns it, unless *app* and *user* are known already."""
    flat, user_fields, app_fields, place, length, events, kept_to = view
    fields: dict[bytes, bytes] = {}
    state: dict[str, bytes] = {}
    if len(flat) <= _WORDS_AT_ONCE:
        _read_fields(key, flat, fields, state)
    else:
        async for run in _in_steps(flat):
            _read_fields(key, run, fields, state)
    if fields.get(b"v") != _FORMAT:
        raise CodecError(key, _version_problem(fields.get(b"v", b"")))
    created, updated, revision, count = [
        read_count(key, name, fields.get(field)) for name, field in _COUNTS
    ]
    if count < length or place is None:
        raise CodecError(key, _WRONG_COUNT)
    if type(place) is int:
        place += count - length + 1
    first_seq, _ = read_past(key, fields.get(b"past"))
    if app is None:
        app = await read_names(described_app(key.app_name), app_fields) if app_fields else {}
    if user is None:
        user = await read_names(key.user, user_fields) if user_fields else {}
    return Snapshot(
        session_id=key.session_id,
        incarnation=read_text(key, fields.get(b"incarnation", b"")),
        created=created,
        updated=updated,
        revision=revision,
        last_seq=count,
        app=app,
        user=user,
        session=state,
        events=events,
        seqs=read_seqs(place, len(events)),
        first_seq=first_seq,
        oldest_seq=count - length + 1,
        kept_to=kept_to,
    )


def read_seqs(place: int | Sequence[int], count: int) -> Sequence[int]:
    """Read the positions of events: that of the first, or the first and the last of each run."""
    if isinstance(place, int):
        return range(place, place + count)
    return [seq for i in range(0, len(place), 2) for seq in range(place[i], place[i + 1] + 1)]


def read_past(key: SessionKey, raw: bytes | None) -> tuple[int, int]:
    """Read where a log begins, and the position of its newest mark; see lib/past.lua."""
    if raw is None:
        return 1, 0
    begins, _, mark = raw.partition(b" ")
    what = "the field of its past"
    return read_count(key, what, begins) + 1, read_count(key, what, mark)


def read_past_slice(key: SessionKey, reply: Sequence[Any]) -> PastSlice:
    """Read what read_past.lua says that a session has besides its log and its state."""
    _, _, life, revision, turn, more, names, olds = reply
    earlier: list[Before] = []
    for name, old in zip(names, olds, strict=True):
        place, _, field = name.partition(b" ")
        at = _read_place(key, place)
        if not earlier or earlier[-1].at != at:
            earlier.append(Before(at, {}))
        earlier[-1].was[read_text(key, field[_PREFIX_LENGTH:])] = old or None
    return PastSlice(
        earlier=earlier,
        more=bool(more),
        turn=_read_turn(key, turn) if turn else None,
        revision=read_count(key, "revision", revision),
        incarnation=read_text(key, life),
    )


def _read_place(key: SessionKey, raw: bytes) -> float:
    whole, _, half = raw.partition(b".")
    return read_count(key, "the place of a change", whole) + (0.5 if half == b"5" else 0)


def _read_turn(key: SessionKey, words: Sequence[bytes]) -> UnendedTurn:
    run_id, after, why, waits = words
    stop: Stop = "cancelled" if why == b"cancelled" else "interrupted"
    return UnendedTurn(
        run_id=unquote(read_text(key, run_id)),
        after_seq=read_count(key, "the beginning of a turn", after),
        stop="" if why == b"-" else stop,
        waits=bool(waits),
    )


def _read_fields(
    key: SessionKey,
    flat: Sequence[bytes],
    fields: dict[bytes, bytes],
    state: dict[str, bytes],
) -> None:
    """Sort what a session's hash holds."""
    for name, value in _pairs(flat):
        if name.startswith(STATE_FIELD):
            state[read_text(key, name[_PREFIX_LENGTH:])] = value
        else:
            fields[name] = value


async def read_summary(
    key: SessionKey, fields: Any, app: dict[str, bytes], user: dict[str, bytes]
) -> Snapshot | UnreadableSession | None:
    """Read a session as summaries.lua returns it; ``None`` if it has expired."""
    if not fields:
        return None
    if fields == b"foreign":
        return UnreadableSession(key=key, reason=_NO_SESSION)
    try:
        return await read_snapshot(key, [fields, (), (), 0, 0, [], 0], app, user)
    except CodecError as exc:
        return UnreadableSession(key=key, reason=exc.reason)
