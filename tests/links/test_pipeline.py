"""What a pipelined connection decides about order, lost connections and time. No I/O."""

from __future__ import annotations

import pytest

from agentsession.redis._core.errors import NoReplyError, NotSentError, ServerError
from agentsession.redis._core.request import LARGE
from harness.conversation import READ, WRITE, Conversation, cancel, error_of, result_of, server_time

# -- order


def test_calls_are_sent_and_answered_in_order() -> None:
    """Those of one turn leave together; each gets the reply to itself, and ends once."""
    line = Conversation()
    calls = [line.call(name, script) for name, script in (("a", WRITE), ("b", READ), ("c", WRITE))]
    assert [sent.name for sent in line.send_some()] == ["a", "b", "c"]
    assert not line.pipeline.has_something_to_send
    assert not line.pipeline.idle
    for _ in calls:
        line.answer()
    assert [result_of(call) for call in calls] == ["a", "b", "c"]
    assert line.ended == calls
    assert line.pipeline.idle


def test_each_copy_has_an_echo_of_its_own() -> None:
    """Also one that is sent again, so that the reply to an older copy cannot pass for its own."""
    line = Conversation()
    line.call("a")
    line.call("b")
    echoes = [sent.echo for sent in line.send()]
    line.lose()
    echoes += [sent.echo for sent in line.send()]
    assert len(set(echoes)) == 4


def test_a_command_of_the_connections_own_gets_its_reply_as_it_is() -> None:
    """Which has no echo, whatever else it is."""
    line = Conversation()
    command = line.ask("CLUSTER", "SLOTS")
    [sent] = line.send()
    assert sent.words == [b"CLUSTER", b"SLOTS"]
    line.reply([])
    assert command.future.result == []  # type: ignore[attr-defined]  # of the fake
    assert line.ended == [command]


def test_a_read_carries_no_times() -> None:
    """It may be run at any time."""
    line = Conversation()
    line.call("r", READ)
    [sent] = line.send()
    assert sent.words[5:] == [b"r"]


def test_many_small_calls_leave_in_several_batches() -> None:
    """What cannot leave is not packed yet, so that it can be cancelled, and costs no memory."""
    line = Conversation()
    for n in range(8):
        line.call(str(n), size=LARGE // 4)
    assert len(line.send_some()) == 4
    assert line.pipeline.has_something_to_send
    assert [sent.name for sent in line.send_some()] == ["4", "5", "6", "7"]


# -- cancelled callers


def test_what_is_cancelled_before_it_is_sent_is_not_sent() -> None:
    """It has ended when its turn comes, and the others go on."""
    line = Conversation()
    a, b, c = (line.call(name) for name in "abc")
    cancel(b)
    assert line.sent_names() == ["a", "c"]
    assert line.ended == [b]
    line.answer()
    line.answer()
    assert line.ended == [b, a, c]
    assert [result_of(call) for call in (a, b, c)] == ["a", "cancelled", "c"]


@pytest.mark.parametrize("reply", ["ok", "late", "early", "NOSCRIPT", "BUSY", "MOVED", "ERR"])
def test_the_reply_to_a_cancelled_call_is_dropped(reply: str) -> None:
    """Whatever it is: the call is not sent again, ends once, and the next has its own reply."""
    line = Conversation()
    a, b = line.call("a"), line.call("b")
    line.send()
    cancel(a)
    if reply.isupper():
        line.refuse(f"{reply} 1 host:1")
    else:
        line.answer(reply.encode(), server_time(9))
    line.answer()
    assert result_of(b) == "b"
    line.pipeline.expire(1.0)
    assert line.sent_names() == []
    assert sorted(map(id, line.ended)) == sorted(map(id, (a, b)))
    assert line.pipeline.idle


def test_what_is_cancelled_in_flight_is_not_sent_again() -> None:
    """It ends when the connection is lost."""
    line = Conversation()
    a, b = line.call("a"), line.call("b")
    line.send()
    cancel(a)
    line.lose()
    assert line.ended == [a]
    assert line.sent_names() == ["b"]
    assert not b.future.done()


# -- lost connections


def test_what_was_in_flight_is_sent_again_before_all_others() -> None:
    """In its order; and that it may have been run already is known of it alone."""
    line = Conversation()
    for name in "abc":
        line.call(name)
    line.send()
    waiting = line.call("d")
    line.answer()
    line.lose()
    assert line.pipeline.has_something_to_send
    line.call("e")
    assert line.sent_names() == ["b", "c", "d", "e"]
    assert not waiting.maybe_run


def test_a_connection_that_is_lost_before_anything_left_leaves_nothing_unknown() -> None:
    """What waits was not run."""
    line = Conversation()
    call = line.call("a", deadline=1.0)
    line.lose()
    line.pipeline.expire(1.0)
    assert result_of(call) == "NotSentError"


def test_what_was_sent_on_a_lost_connection_may_have_been_run() -> None:
    """So its outcome is unknown if nothing more is heard of it, and the reason is told."""
    line = Conversation()
    call = line.call("a", deadline=1.0)
    line.send()
    line.lose()
    line.pipeline.expire(1.0)
    assert isinstance(error_of(call), NoReplyError)
    assert str(error_of(call).__cause__) == "lost"


def test_a_second_loss_forgets_nothing() -> None:
    """A call that waited on the second connection was still sent on the first."""
    line = Conversation()
    call = line.call("a", deadline=1.0)
    line.send()
    line.lose()
    line.lose()
    line.pipeline.expire(1.0)
    assert result_of(call) == "NoReplyError"


@pytest.mark.parametrize("reply", ["another's", "empty", "text", "nothing"])
def test_a_reply_to_another_call_breaks_the_connection(reply: str) -> None:
    """Nobody gets it; everything is sent again, and may have been run."""
    line = Conversation()
    a, b = line.call("a"), line.call("b")
    _, second = line.send()
    wrong = {
        "another's": [second.echo, b"ok", server_time(0), "b"],
        "empty": [],
        "text": b"OK",
        "nothing": None,
    }
    line.reply(wrong[reply])
    assert "answers another call" in str(line.pipeline.broken)
    assert not line.ended
    line.lose()
    assert line.pipeline.broken is None
    assert line.sent_names() == ["a", "b"]
    assert a.maybe_run
    line.answer()
    line.answer()
    assert [result_of(a), result_of(b)] == ["a", "b"]


def test_a_reply_that_nobody_asked_for_breaks_the_connection() -> None:
    """Whatever comes after it could be anybody's."""
    line = Conversation()
    line.pipeline.received(b"OK", 0.0)
    assert "nobody asked" in str(line.pipeline.broken)


def test_replies_are_counted_for_each_connection() -> None:
    """One that gave some is worth keeping; a call that goes again is no such reply."""
    line = Conversation()
    line.call("a")
    line.call("b", READ)
    line.call("c")
    line.send()
    line.answer(b"late")
    assert line.pipeline.answered == 0
    line.answer()
    line.answer()
    assert line.pipeline.answered == 2
    line.lose()
    assert line.pipeline.answered == 0


# -- large commands


def test_a_large_command_leaves_in_pieces_without_a_copy_of_its_words() -> None:
    """One piece is the very word; what was sent before it was not held up."""
    line = Conversation()
    line.call("a")
    large = line.call("large", size=LARGE + 1)
    assert [sent.name for sent in line.send_some()] == ["a"]
    assert line.sent_names() == ["large"]
    assert any(piece is large.words[0] for piece in line.pieces)


def test_what_follows_a_large_command_waits_for_its_last_piece() -> None:
    """It leaves then, and replies come in order."""
    line = Conversation()
    line.call("large", size=LARGE + 1)
    while not line.unanswered:
        line.send_some()
    assert not line.pipeline.has_something_to_send
    line.answer()
    line.call("large", size=LARGE + 1)
    after = line.call("b")
    while not line.unanswered:
        line.send_some()
        assert line.pipeline.has_something_to_send
    assert [sent.name for sent in line.unanswered] == ["large"]
    assert line.sent_names() == ["b"]
    line.answer()
    line.answer()
    assert result_of(after) == "b"


def test_a_large_command_that_was_not_sent_whole_was_not_run() -> None:
    """The server knows no half commands; what was sent before it may have been run."""
    line = Conversation()
    before, large = line.call("a"), line.call("large", size=LARGE + 1)
    line.send_some()
    line.send_some()
    assert line.pipeline.head is before
    line.lose()
    assert (before.maybe_run, large.maybe_run) == (True, False)
    assert line.sent_names() == ["a", "large"]
    line.lose()
    assert large.maybe_run


def test_a_large_command_that_was_run_before_stays_so() -> None:
    """Though its second copy was cut off."""
    line = Conversation()
    large = line.call("large", size=LARGE + 1)
    line.send()
    line.lose()
    line.send_some()
    line.lose()
    assert large.maybe_run


def test_a_large_command_may_be_refused_before_it_was_sent_whole() -> None:
    """A server that takes no words so long says so at once, and closes the connection."""
    line = Conversation()
    large = line.call("large", size=LARGE + 1)
    line.send_some()
    line.pipeline.received(ServerError("ERR Protocol error: invalid bulk length"), 0.0)
    assert result_of(large) == "ServerError"
    line.lose()
    after = line.call("b")
    assert line.sent_names() == ["b"]
    line.answer()
    assert line.ended == [large, after]


# -- deadlines


@pytest.mark.parametrize(
    ("sent", "outcome"), [(False, NotSentError), (True, NoReplyError)], ids=["waiting", "in flight"]
)
def test_at_its_deadline_a_call_ends_with_what_is_known(
    sent: bool, outcome: type[Exception]
) -> None:
    """It ends at the deadline, not before, and not without its place in the line."""
    line = Conversation()
    call, later = line.call("a", deadline=1.0), line.call("b", deadline=2.0)
    if sent:
        line.send()
    assert line.pipeline.next_moment(0.0) == 1.0
    assert not line.pipeline.expire(0.999)
    assert not call.future.done()
    assert line.pipeline.expire(1.0) is sent
    assert type(error_of(call)) is outcome
    assert not later.future.done()
    assert line.pipeline.next_moment(1.0) == 2.0
    if sent:
        # Its reply still has to come.
        assert not line.ended
        line.answer()
        assert line.ended == [call]
        line.answer()
        assert result_of(later) == "b"
    else:
        assert line.ended == [call]
        assert line.sent_names() == ["b"]


def test_the_connection_owes_a_reply_to_a_cancelled_caller_too() -> None:
    """The next one should find a better connection."""
    line = Conversation()
    call = line.call("a", deadline=1.0)
    line.send()
    cancel(call)
    assert line.pipeline.expire(1.0)


def test_what_is_late_and_lost_is_not_sent_again() -> None:
    """Its caller has gone."""
    line = Conversation()
    call = line.call("a", deadline=1.0)
    line.send()
    line.pipeline.expire(1.0)
    line.lose()
    assert line.ended == [call]
    assert line.sent_names() == []


def test_why_a_call_could_not_be_sent_is_its_cause() -> None:
    """Who reads the error wants to know why there was no connection."""
    line = Conversation()
    call = line.call("a", deadline=1.0)
    line.pipeline.unreachable(OSError("refused"))
    line.pipeline.expire(1.0)
    assert str(error_of(call).__cause__) == "refused"


def test_there_is_no_moment_to_look_at_without_calls() -> None:
    """And a deadline that is over needs no second look."""
    line = Conversation()
    assert line.pipeline.next_moment(0.0) is None
    line.call("a", deadline=1.0)
    line.send()
    line.pipeline.expire(1.0)
    assert line.pipeline.next_moment(1.0) is None


# -- another connection, and the end


def test_what_is_withdrawn_begins_anew_elsewhere() -> None:
    """What waits and what was put off goes; what is in flight stays."""
    line, other = Conversation(), Conversation(told=False)
    other.clock.learn(server_time(500), 0.0, 0.0)
    put_off = line.call("a")
    line.send()
    line.refuse("BUSY")
    flying = line.call("b")
    line.send()
    waiting = line.call("c")
    assert line.pipeline.withdraw() == [waiting, put_off]
    assert not line.pipeline.has_something_to_send
    assert line.pipeline.next_put_off is None
    assert line.pipeline.head is flying
    assert not line.ended
    other.pipeline.submit(put_off)
    [sent] = other.send()
    assert (sent.issued, sent.expires) == (server_time(500), server_time(510))


def test_what_cannot_be_sent_fails_alone() -> None:
    """It is its caller's mistake, and nothing of it is on the line."""
    line = Conversation()
    wrong, right = line.call("\ud800"), line.call("a")
    assert line.sent_names() == ["a"]
    line.answer()
    assert result_of(right) == "a"
    assert result_of(wrong) == "UnicodeEncodeError"
    assert line.ended == [wrong, right]


def test_what_cannot_be_sent_whole_costs_the_connection() -> None:
    """A large call leaves before all of it was looked at; it is not run, and the others are."""
    line = Conversation()
    before = line.call("a")
    large, after = line.call("\ud800", size=LARGE + 1), line.call("b")
    assert line.sent_names() == ["a"]
    assert line.pipeline.broken is not None
    assert result_of(large) == "UnicodeEncodeError"
    line.lose()
    assert line.sent_names() == ["a", "b"]
    line.answer()
    line.answer()
    assert (result_of(before), result_of(after)) == ("a", "b")
    assert set(line.ended) == {before, large, after}


def test_what_may_have_been_run_keeps_its_times_when_withdrawn() -> None:
    """A copy with these may still be run, and the store knows them by it."""
    line, other = Conversation(), Conversation(told=False)
    other.clock.learn(server_time(500), 0.0, 0.0)
    call = line.call("a")
    [first] = line.send()
    line.lose()
    assert line.pipeline.withdraw() == [call]
    other.pipeline.submit(call)
    [sent] = other.send()
    assert (sent.issued, sent.expires) == (first.issued, first.expires)


def test_ending_everything_says_of_each_what_is_known() -> None:
    """Each ends once, the connection's own commands not at all."""
    line = Conversation()
    cancelled, flying, large = line.call("a"), line.call("b"), line.call("l", size=LARGE + 1)
    line.send_some()
    line.send_some()
    cancel(cancelled)
    line.pipeline.fail_all()
    calls = (cancelled, flying, large)
    results = [result_of(call) for call in calls]
    assert results == ["cancelled", "NoReplyError", "NotSentError"]
    assert sorted(map(id, line.ended)) == sorted(map(id, calls))
    assert line.pipeline.idle
    assert not line.pipeline.has_something_to_send
    assert line.pipeline.next_moment(0.0) is None


def test_ending_everything_ends_what_waits_and_what_was_put_off() -> None:
    """Neither was run."""
    line = Conversation()
    put_off = line.call("a")
    line.send()
    line.refuse("BUSY")
    waiting = line.call("b")
    line.pipeline.fail_all()
    assert [result_of(put_off), result_of(waiting)] == ["NotSentError", "NotSentError"]
    assert sorted(map(id, line.ended)) == sorted(map(id, (put_off, waiting)))
    assert line.pipeline.idle


def test_a_pipeline_shows_how_much_is_under_way() -> None:
    """Numbers only: no data is in it."""
    line = Conversation()
    line.call("secret")
    assert repr(line.pipeline) == "waiting=1 in_flight=0"
    line.send()
    assert repr(line.pipeline) == "waiting=0 in_flight=1"
    line.refuse("BUSY")
    assert repr(line.pipeline) == "waiting=1 in_flight=0"
    assert not line.pipeline.idle
