"""A call by itself: the bytes that are sent, and how it ends."""

from __future__ import annotations

import hiredis
import pytest
from hypothesis import given
from hypothesis import strategies as st

from agentsession.redis._core.clock import ServerClock
from agentsession.redis._core.errors import (
    NoReplyError,
    NotAcknowledgedError,
    NotSentError,
    ServerError,
)
from agentsession.redis._core.request import LARGE, NOBODY, Command, Request
from harness.conversation import READ, WRITE, Outcome, error_of, result_of

LONG = LARGE // 4
WORDS = st.one_of(
    st.text(max_size=20),
    st.binary(max_size=20),
    st.sampled_from(
        [b"x" * LONG, b"x" * (LONG + 1), "ü" * (LONG // 2), "ü" * (LONG // 2 + 1), b""]
    ),
)


def a_request(*words: str | bytes) -> Request:
    return Request(WRITE, ("k1", "k2"), words, Outcome(), 10.0)


@given(st.lists(WORDS, min_size=1, max_size=6))
def test_pieces_are_what_is_packed_at_once(words: list[str | bytes]) -> None:
    """Whatever the words are, and wherever the long ones stand."""
    command = Command(words, Outcome(), 1.0)
    assert b"".join(command.pieces()) == command.packed()
    request = a_request(*words)
    request.prepare(b"1", ServerClock(), 0.0)
    assert b"".join(request.pieces()) == request.packed()


def test_a_long_word_is_a_piece_and_short_ones_are_gathered() -> None:
    """No copy is made of a long one, and no piece of each short one."""
    long = b"x" * (LONG + 1)
    pieces = list(Command(("a", "b", long, "c", "d"), Outcome(), 1.0).pieces())
    assert len(pieces) == 3
    assert pieces[1] is long
    assert len(list(Command(("a", b"x" * LONG), Outcome(), 1.0).pieces())) == 1
    many = Command(("x",) * 100_000, Outcome(), 1.0)
    assert max(map(len, many.pieces())) < LONG
    assert b"".join(many.pieces()) == many.packed()


def parsed(data: bytes) -> list[bytes]:
    reader = hiredis.Reader()
    reader.feed(data)
    words: list[bytes] = reader.gets()
    return words


def test_a_call_is_sent_as_the_scripts_take_it() -> None:
    """Keys, the echo, the times of one that writes, then its words."""
    clock = ServerClock()
    clock.learn(5_000_000, 0.0, 0.0)
    request = a_request("w1", b"w2")
    request.prepare(b"7", clock, 1.0)
    assert parsed(request.packed()) == [
        *(b"EVALSHA", WRITE.sha.encode(), b"2", b"k1", b"k2"),
        *(b"7", b"6000000", b"15000000", b"w1", b"w2"),
    ]
    request.by_text = True
    assert parsed(request.packed())[:2] == [b"EVAL", WRITE.text.encode()]
    read = Request(READ, (), ("w",), Outcome(), 10.0)
    read.prepare(b"8", clock, 1.0)
    assert parsed(read.packed()) == [b"EVALSHA", READ.sha.encode(), b"0", b"8", b"w"]


def test_the_size_is_that_of_the_words_and_what_separates_them() -> None:
    """About; and nothing once they are let go."""
    request = a_request("x" * 1000, b"y" * 500)
    assert 1500 < request.size <= 1800
    request.forget()
    assert request.size == 0
    assert request.words == ()


@pytest.mark.parametrize(
    ("reply", "maybe_run", "error"),
    [
        (None, False, NotSentError),
        (None, True, NoReplyError),
        ([b"1", b"ok"], True, NotAcknowledgedError),
    ],
)
def test_a_call_that_fails_says_what_is_known(
    reply: list[bytes] | None, maybe_run: bool, error: type[Exception]
) -> None:
    """With what was met on the way as its cause."""
    request = a_request("w")
    request.reply, request.maybe_run = reply, maybe_run
    request.refusal = OSError("why")
    request.fail()
    assert type(error_of(request)) is error
    assert error_of(request).__cause__ is request.refusal


def test_a_call_ends_once() -> None:
    """What comes later is dropped."""
    request = a_request("w")
    request.future.set_result([b"1", "mine"])
    request.fail()
    request.refuse(ServerError("ERR"))
    assert result_of(request) == "mine"


def test_nobody_waits_for_nobody() -> None:
    """What the connection asks for itself is dropped."""
    assert NOBODY.done()
    command = Command(("ASKING",), NOBODY, 1.0)
    command.refuse(ServerError("ERR"))
    command.fail()
    command.renew()
    assert command.words == ("ASKING",)
