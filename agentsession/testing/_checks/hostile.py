"""Hostile input: numbers, moments, ids and cursors that someone outside may choose: promise 6."""

from __future__ import annotations

import base64
from datetime import UTC, datetime, timedelta, timezone
from itertools import permutations
from typing import TYPE_CHECKING, Any, Final

from agentsession.clock import utc_now
from agentsession.errors import EventNotFoundError, RevisionConflictError
from agentsession.sessions import SessionKey, UserKey
from agentsession.testing._checks.asserting import raises, said, say, stored_session

if TYPE_CHECKING:
    from agentsession.testing._subject import Subject

# Around what a double, a 64-bit integer and Python's own conversion to text can hold.
HUGE: Final = [2**53 - 1, 2**53, 2**53 + 1, 2**63 - 1, 2**63, 2**64, 10**30, 10**400, 10**5000]


async def check_huge_numbers_bound_nothing_or_everything(subject: Subject) -> None:
    """A number beyond all positions is no error of the store's: it is far away, and that is all."""
    service = subject.service()
    await service.create_session(subject.key)
    await service.append_events(subject.key, [say(word) for word in "abc"])
    for number in HUGE:
        for read in (service.get_session, service.get_or_create_session):
            session = await read(subject.key, num_recent_events=number)
            assert session is not None
            assert said(session.events) == ["a", "b", "c"]
            session = await read(subject.key, after_seq=number)
            assert session is not None
            assert (session.events, session.last_seq) == ([], 3)
        assert await service.get_events(subject.key, after_seq=number) == []
        assert said(await service.get_events(subject.key, before_seq=number)) == ["a", "b", "c"]
        assert await service.get_events(subject.key, after_seq=number, newest_first=True) == []
        with raises(EventNotFoundError) as absent:
            await service.get_events(subject.key, around=number)
        with raises(RevisionConflictError) as conflict:
            await service.append_event(subject.key, say("no"), expected_revision=number)
        assert str(absent.error)
        assert str(conflict.error)
        for refused in (
            service.get_events(subject.key, limit=number),
            service.list_sessions(subject.user, limit=number),
            service.get_session(subject.key, num_recent_events=-number),
            service.get_events(subject.key, around=-number),
            service.append_event(subject.key, say("no"), expected_revision=-number),
        ):
            with raises(ValueError):
                await refused
    assert len(await service.get_events(subject.key)) == 3


async def check_moments_reach_from_the_first_to_the_last(subject: Subject) -> None:
    """``since`` and timestamps may be anywhere in Python's calendar, in any zone."""
    service = subject.service()
    await service.create_session(subject.key)
    first, last = datetime.min.replace(tzinfo=UTC), datetime.max.replace(tzinfo=UTC)
    moments = [first, datetime(1969, 7, 20, tzinfo=UTC), utc_now() - timedelta(hours=1), last]
    for moment in moments:
        await service.append_event(subject.key, say(str(moment.year), timestamp=moment))
    east, west = timezone(timedelta(hours=23, minutes=59)), timezone(-timedelta(hours=23))
    epoch = datetime(1970, 1, 1, tzinfo=UTC)
    for since, found in (
        (first, 4),
        (first.replace(tzinfo=east), 4),
        (first.replace(tzinfo=west), 4),
        (epoch, 4),
        (epoch + timedelta(days=1), 2),
        (last, 0),
        (last.replace(tzinfo=east), 0),
        (last.replace(tzinfo=west), 0),
    ):
        session = await service.get_session(subject.key, since=since)
        assert session is not None
        assert [event.timestamp for event in session.events] == moments[4 - found :]


HOSTILE: Final = (
    "a", "b", "a:b", "b:a", ":", "::", "{", "}", "{a}", "{}", "%", "%3A", "a%3Ab", "*", "?", "[a]",
    "a*", " ", "a ", " a", "\n", "a\r\nb", "\0", "a\0b", "A", "ä", "a\u0308", "日本", "\U0001f600",
    "session", "events:a", "user:a", "temp:x", "None", "0", "-1", "\\", "'", '"', "../a",
    "%253A", "a}", "::a", "user:", "state:", "state:v", "v", "count", "__proto__",
    "session:{a:b}:c", "nan", "+inf", "(1", "$delete", "\x7f", "\u2028", "\ufeff", "x" * 10_000,
)  # fmt: skip


async def check_no_id_reaches_another_ones_data(subject: Subject) -> None:
    """Whatever ids hold, each app, user and session has its own data."""
    service = subject.service()
    keys = [SessionKey(*ids) for ids in permutations(("a", "a:b", "b", "{a}", "%3A"), 3)]
    # Without escaping, the two of each pair would be one.
    keys += [SessionKey("x", "y:z", "s"), SessionKey("x:y", "z", "s")]
    keys += [SessionKey("x", "y}:z", "s"), SessionKey("x", "y", "z}:s")]
    keys += [SessionKey(odd, "u", "s") for odd in HOSTILE]
    keys += [SessionKey("p", odd, "s") for odd in HOSTILE]
    keys += [SessionKey("q", "u", odd) for odd in HOSTILE]
    for n, key in enumerate(keys):
        state = {"n": n, f"user:{n}": n, f"app:{n}": n}
        session = await service.create_session(key, state)
        await service.append_event(session, say(str(n), id="e"))
    for n, key in enumerate(keys):
        session = await stored_session(service, key)
        assert session.state["n"] == n
        assert said(session.events) == [str(n)]
        peers = [i for i, each in enumerate(keys) if each.user == key.user]
        clan = [i for i, each in enumerate(keys) if each.app_name == key.app_name]
        assert set(session.state) == {
            "n",
            *(f"user:{i}" for i in peers),
            *(f"app:{i}" for i in clan),
        }
        page = await service.list_sessions(key.user, limit=1000)
        listed = {each.key for each in page.sessions}
        assert listed == {keys[i] for i in peers}
    gone = set(keys[::2])
    for key in gone:
        await service.delete_session(key)
    for n, key in enumerate(keys):
        if key in gone:
            assert await service.get_session(key) is None
        else:
            assert said((await stored_session(service, key)).events) == [str(n)]


async def check_odd_names_are_names(subject: Subject) -> None:
    """Names of state, event ids and all the words of an event may be odd as well."""
    service = subject.service()
    await service.create_session(subject.key)
    names = [odd for odd in HOSTILE if not odd.startswith(("app:", "user:", "temp:"))]
    state = {f"{scope}{name}": name for scope in ("", "user:", "app:") for name in names}
    await service.update_session_state(subject.key, state)
    events = [
        say(odd, id=odd, branch=odd, invocation_id=odd, metadata={odd: odd}) for odd in HOSTILE
    ]
    stored = await service.append_events(subject.key, events)
    session = await service.get_session(subject.key)
    assert session is not None
    assert (session.state, session.events) == (state, stored)
    assert (session.revision, session.last_seq) == (3, len(HOSTILE))
    for event in stored:
        assert await service.get_events(subject.key, around=event.id, limit=1) == [event]
    await service.update_session_state(subject.key, {"n": 1})
    for name in state:
        await service.delete_session_state(subject.key, name)
    session = await service.get_session(subject.key)
    assert session is not None
    assert session.state == {"n": 1}


def _cursor(raw: bytes) -> str:
    return base64.urlsafe_b64encode(raw).decode()


async def check_a_cursor_is_refused_or_a_place(subject: Subject) -> None:
    """A cursor that someone made up is refused, or shows sessions of this user and no others."""
    service = subject.service()
    for number in range(3):
        await service.create_session(SessionKey("app", "user", f"s{number}"))
        await service.create_session(SessionKey("app", "other", f"s{number}"))
    made_up = [
        *(b"[-1,'s']", b'[-1,"s"]', b'[1.0,"s"]', b'[1e3,"s"]', b'["1","s"]', b'[true,"s"]'),
        *(b'[1,"s",1]', b"[1]", b' [1,"s"]', b'[1, "s"]', b'[1,"\\ud800"]', b'[1,"\\u0073"]', b"1"),
        *(b'[%d,"s"]' % number for number in (2**53, 2**63, 10**30)),
        *(b"[" + b"9" * 5000 + b',"s"]', b'{"updated":1,"session_id":"s"}', b"[" * 5000, b"\xff"),
    ]
    no_text: list[Any] = ["", "\x00", 5, 1.5, b"WzEsInMiXQ==", ["W"], object()]
    for cursor in [*map(_cursor, made_up), *no_text]:
        with raises(ValueError):
            await service.list_sessions(subject.user, cursor=cursor)
    for raw, shown in ((b'[0,"s"]', 0), (b'[9007199254740991,"s"]', 3), (b'[1,""]', 0)):
        page = await service.list_sessions(subject.user, cursor=_cursor(raw))
        assert {session.key.user for session in page.sessions} <= {subject.user}
        assert len(page.sessions) == shown
    theirs = await service.list_sessions(UserKey("app", "other"), limit=1)
    page = await service.list_sessions(subject.user, cursor=theirs.next_cursor)
    assert {session.key.user for session in page.sessions} == {subject.user}
