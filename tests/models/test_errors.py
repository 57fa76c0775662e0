"""The errors: their tree, their words, and their way between processes."""

from __future__ import annotations

import inspect
import pickle
import re
from datetime import UTC, datetime
from typing import Any

import pytest

from agentsession import errors
from agentsession._wording import described_app
from agentsession.errors import (
    AgentSessionError,
    BackendError,
    BackendUnavailableError,
    CallNotOpenError,
    ClosedError,
    CodecError,
    EventExistsError,
    EventGoneError,
    EventLoopError,
    EventNotFoundError,
    EventTooLargeError,
    LeaseLostError,
    OutcomeUnknownError,
    ReadTooLargeError,
    RevisionConflictError,
    RewindError,
    RunNotFoundError,
    SessionBusyError,
    SessionExistsError,
    SessionNotFoundError,
    StateValueError,
    StateValueTooLargeError,
)
from agentsession.sessions import SessionKey, UserKey

KEY = SessionKey("shop", "ann", "s1")
LATER = datetime(2026, 1, 2, tzinfo=UTC)
LONG = SessionKey("a" * 10_000, "b" * 10_000, "c" * 10_000)

# One of each, with its attributes and something that its message must say.
EXAMPLES: list[tuple[AgentSessionError, dict[str, Any], str]] = [
    (AgentSessionError("words"), {}, "words"),
    (
        SessionNotFoundError(KEY),
        {"key": KEY, "replaced": False},
        "get_or_create_session() makes it",
    ),
    (
        SessionNotFoundError(KEY, replaced=True),
        {"key": KEY, "replaced": True},
        "was made anew since it was read; nothing of the new one was read or changed. Load it",
    ),
    (SessionExistsError(KEY), {"key": KEY}, "Use get_or_create_session(), or leave the id empty"),
    (EventNotFoundError(KEY, "e1"), {"key": KEY, "event": "e1"}, "no event with id 'e1'"),
    (EventNotFoundError(KEY, 7), {"key": KEY, "event": 7}, "no event with seq 7"),
    (
        RevisionConflictError(KEY, 3, 5),
        {"key": KEY, "expected": 3, "actual": 5},
        "expected revision 3, found 5; nothing was stored. Load the session again",
    ),
    (
        SessionBusyError(KEY, "r1", LATER),
        {"key": KEY, "run_id": "r1", "ends_at": LATER, "problem": "busy"},
        "busy with run 'r1', with a lease until 2026-01-02T00:00:00+00:00; nothing was stored. Wa",
    ),
    (
        SessionBusyError(KEY, "r1", None, "waited"),
        {"key": KEY, "run_id": "r1", "ends_at": None, "problem": "waited"},
        "run 'r1' has it, and waits for results of its calls unless it is about to begin",
    ),
    (
        SessionBusyError(KEY, "", None, "full"),
        {"key": KEY, "run_id": "", "ends_at": None, "problem": "full"},
        "busy with another run; nothing was stored. So many wait",
    ),
    (
        CallNotOpenError(KEY, "c1"),
        {"key": KEY, "call_id": "c1", "answered": False},
        "call 'c1' is not one that a turn waits for; nothing was stored. Load the session",
    ),
    (
        CallNotOpenError(KEY, "c1", answered=True),
        {"key": KEY, "call_id": "c1", "answered": True},
        "call 'c1' was answered before; nothing was stored",
    ),
    (
        LeaseLostError(KEY),
        {"key": KEY, "has_begun": False},
        "this turn's lease ran out, was given back or was taken",
    ),
    (
        LeaseLostError(KEY, has_begun=True),
        {"key": KEY, "has_begun": True},
        "this turn has begun and its message is stored, but another turn",
    ),
    (
        RunNotFoundError(KEY, "r1"),
        {"key": KEY, "run_id": "r1"},
        "run 'r1' does not run here; it is over, or never began. There is nothing to stop",
    ),
    (
        EventGoneError(KEY, "e1"),
        {"key": KEY, "event_id": "e1"},
        "'e1' was stored before, and has been taken back or trimmed since, so nothing answers it",
    ),
    (
        EventExistsError(KEY, "e1"),
        {"key": KEY, "event_id": "e1"},
        "'e1' is the id of another event, which is no message of this turn; nothing was stored",
    ),
    (
        RewindError(KEY, 7, "half_turn"),
        {"key": KEY, "seq": 7, "problem": "half_turn"},
        "cannot go back to event 7; nothing was stored: this event is in the middle of a turn; go",
    ),
    (
        RewindError(KEY, 0, "state_trimmed"),
        {"key": KEY, "seq": 0, "problem": "state_trimmed"},
        "or pass restore_state=False",
    ),
    (
        EventTooLargeError(KEY, "e1", 2_000_000, 1_048_576),
        {"key": KEY, "event_id": "e1", "size": 2_000_000, "limit": 1_048_576},
        "takes 2,000,000 bytes, over the limit of 1,048,576; nothing was stored. Store large",
    ),
    (
        ReadTooLargeError(KEY, 1_000_000, 100_000_000, 67_108_864),
        {"key": KEY, "events": 1_000_000, "size": 100_000_000, "limit": 67_108_864},
        "1,000,000 events take 100,000,000 bytes or more, over the limit of 67,108,864 for one",
    ),
    (
        StateValueError(("cart", "items", 0), "a set"),
        {"path": ("cart", "items", 0), "reason": "a set"},
        "cart['items'][0]: a set; nothing was stored",
    ),
    (
        StateValueTooLargeError(("cart",), 2000, 1000),
        {"path": ("cart",), "size": 2000, "limit": 1000},
        "takes 2,000 bytes, over the limit of 1,000; keep large content elsewhere and a reference",
    ),
    (CodecError(KEY, "why"), {"subject": KEY, "reason": "why"}, "why"),
    (CodecError(KEY.user, "why"), {"subject": KEY.user, "reason": "why"}, "why"),
    (CodecError("app 'x'", "why"), {"subject": "app 'x'", "reason": "why"}, "app 'x': why"),
    (ClosedError(), {}, "is closed; make a new one"),
    (
        EventLoopError(),
        {"problem": "another", "instead": ""},
        "belongs to another event loop; make one service for each loop",
    ),
    (
        EventLoopError("blocked"),
        {"problem": "blocked", "instead": ""},
        "in this thread; await the same method of the service's any_loop, or make the call in a",
    ),
    (
        EventLoopError("blocked", "write 'await this()'"),
        {"problem": "blocked", "instead": "write 'await this()'"},
        "in this thread; write 'await this()', or make the call in a thread",
    ),
    (
        EventLoopError("ended"),
        {"problem": "ended", "instead": ""},
        "which has ended; make one service for each",
    ),
    (
        EventLoopError("forked"),
        {"problem": "forked", "instead": ""},
        "one service in each process, after the fork",
    ),
    (
        EventLoopError("none"),
        {"problem": "none", "instead": ""},
        "with asyncio.run(main()) and not with trio.run",
    ),
    (BackendError(KEY, "why"), {"subject": KEY, "reason": "why"}, "why"),
    (BackendUnavailableError(KEY, "why"), {"subject": KEY, "reason": "why"}, "why"),
    (OutcomeUnknownError(KEY, "why"), {"subject": KEY, "reason": "why"}, "why"),
]
each_example = pytest.mark.parametrize(
    ("error", "attributes", "words"),
    EXAMPLES,
    ids=[f"{type(error).__name__}-{n}" for n, (error, *_) in enumerate(EXAMPLES)],
)


def public_errors() -> dict[str, type[AgentSessionError]]:
    return {name: getattr(errors, name) for name in errors.__all__}


def test_every_error_has_an_example_here() -> None:
    """A new class has to pass these tests too."""
    assert {type(error) for error, *_ in EXAMPLES} == set(public_errors().values())


@each_example
@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
def test_errors_survive_pickling(
    error: AgentSessionError, attributes: dict[str, Any], words: str, protocol: int
) -> None:
    """Class, arguments, attributes and message are the same in another process."""
    back = pickle.loads(pickle.dumps(error, protocol))
    assert type(back) is type(error)
    assert (back.args, str(back), repr(back)) == (error.args, str(error), repr(error))
    assert vars(back) == vars(error)


@each_example
def test_errors_carry_what_they_know(
    error: AgentSessionError, attributes: dict[str, Any], words: str
) -> None:
    """The data is in attributes, and the message says what to do."""
    assert {name: getattr(error, name) for name in attributes} == attributes
    assert set(vars(error)) - {"reason"} == set(attributes) - {"reason"}
    assert words in str(error)


@each_example
def test_errors_name_the_session(
    error: AgentSessionError, attributes: dict[str, Any], words: str
) -> None:
    """Whatever has a session or a user begins with it."""
    subject = attributes.get("key", attributes.get("subject"))
    if isinstance(subject, SessionKey):
        assert str(error).startswith("session 's1', app 'shop', user 'ann': ")
    if isinstance(subject, UserKey):
        assert str(error).startswith("app 'shop', user 'ann': ")


@pytest.mark.parametrize(
    "error",
    [
        SessionNotFoundError(LONG),
        SessionExistsError(LONG),
        EventNotFoundError(LONG, "e" * 10_000),
        RevisionConflictError(LONG, 1, 2),
        EventTooLargeError(LONG, "e" * 10_000, 2, 1),
        ReadTooLargeError(LONG, 3, 2, 1),
        CodecError(LONG, "why"),
        CodecError(LONG.user, "why"),
        CodecError(described_app("a" * 10_000), "why"),
        BackendError(LONG, "why"),
        StateValueError(("name", "k" * 10_000), "why"),
    ],
    ids=lambda error: f"{type(error).__name__}-{type(error.args[0]).__name__}",
)
def test_long_ids_are_cut(error: AgentSessionError) -> None:
    """A message stays readable with ids of 10 kB, which the attributes keep."""
    assert len(str(error)) < 800
    assert "..." in str(error)
    assert getattr(error, "key", LONG) == LONG


def test_usual_ids_are_whole() -> None:
    """Up to 78 letters, which a repr makes 80."""
    key = SessionKey("a" * 78, "b" * 78, "c" * 78)
    words = f"session {key.session_id!r}, app {key.app_name!r}, user {key.user_id!r}: "
    assert str(SessionNotFoundError(key)).startswith(words)


def test_the_tree_is_as_documented() -> None:
    """The module's docstring shows every class below its base, with the builtin beside it."""
    documented: dict[str, tuple[str, ...]] = {}
    above: list[str] = []
    for line in (errors.__doc__ or "").splitlines():
        found = re.match(r" {4}([│├└─ ]*)(\w+Error)(?: \((\w+)\))?(?: |$)", line)
        if found:
            branches, name, builtin = found.groups()
            assert len(branches) % 4 == 0
            above[len(branches) // 4 :] = [name]
            parent = above[-2] if len(above) > 1 else "Exception"
            documented[name] = (parent, builtin) if builtin else (parent,)
    actual = {
        name: tuple(base.__name__ for base in kind.__bases__)
        for name, kind in public_errors().items()
    }
    assert documented == actual


def test_every_error_of_the_module_is_public() -> None:
    """Nothing can be raised that nobody can catch by name."""
    own = {
        name
        for name, kind in inspect.getmembers(errors, inspect.isclass)
        if issubclass(kind, BaseException)
    }
    assert own == set(errors.__all__)


@pytest.mark.parametrize(
    ("path", "words"),
    [
        (("a",), "a"),
        (("a", "b"), "a['b']"),
        (("a", 0, "b c", 12), "a[0]['b c'][12]"),
        (("user:cart", "it's"), 'user:cart["it\'s"]'),
        (("a", "\n"), "a['\\n']"),
        (("", "b"), "['b']"),
    ],
    ids=ascii,
)
def test_paths_are_worded_as_python_subscripts_them(
    path: tuple[str | int, ...], words: str
) -> None:
    """Names and indices from the outside in."""
    assert str(StateValueError(path, "why")) == f"{words}: why; nothing was stored"


def test_callers_can_catch_by_builtin() -> None:
    """A caller that knows nothing of this library catches what it expects."""
    for kind, builtin in (
        (SessionNotFoundError, LookupError),
        (EventNotFoundError, LookupError),
        (RunNotFoundError, LookupError),
        (CallNotOpenError, LookupError),
        (EventTooLargeError, ValueError),
        (ReadTooLargeError, ValueError),
        (StateValueTooLargeError, ValueError),
        (ClosedError, RuntimeError),
        (EventLoopError, RuntimeError),
    ):
        assert issubclass(kind, builtin)
    assert not any(issubclass(kind, KeyError) for kind in public_errors().values())


def test_an_error_can_be_printed_whatever_the_name_is() -> None:
    """Half of a surrogate pair would make an error of logging it, and a line break two lines."""
    told = str(StateValueError(("\ud800\n",), "the name cannot be stored"))
    assert told.encode().startswith(rb"\ud800\n: the name")
