"""What a pipelined connection makes of answers: refusals, times, redirections, barriers. No I/O."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from msgspec import structs

from agentsession.redis._core.acknowledgement import Acknowledgement
from agentsession.redis._core.errors import NoReplyError, NotAcknowledgedError, ServerError
from agentsession.redis._core.request import LARGE, REFUSALS, Command, Request
from agentsession.redis._core.slots import SlotMap, redirection
from agentsession.redis._scripts import Script
from harness.conversation import (
    EPOCH,
    READ,
    WRITE,
    Conversation,
    cancel,
    error_of,
    result_of,
    server_time,
)

ELSEWHERE = ["MASTERDOWN", "READONLY", "UNBLOCKED"]
LATER = ["BUSY", "CLUSTERDOWN", "LOADING", "NOREPLICAS", "TRYAGAIN"]
MARGIN = 60.0
"""Seconds for which the store remembers a call after its deadline."""


def maybe_run(
    line: Conversation, name: str, script: Script = WRITE, *, deadline: float = 10.0
) -> Request:
    """Make a call whose first reply was lost, and which is in flight again."""
    call = line.call(name, script, deadline=deadline)
    line.send()
    line.lose()
    line.send()
    return call


# -- refusals


def test_a_refusal_is_handed_on_and_the_connection_goes_on() -> None:
    """Nothing was run, and it is no use to repeat it."""
    line = Conversation()
    a, b = line.call("a"), line.call("b")
    line.send()
    line.refuse("OOM command not allowed")
    line.answer()
    assert str(error_of(a)) == "OOM command not allowed"
    assert isinstance(error_of(a), ServerError)
    assert result_of(b) == "b"
    assert line.ended == [a, b]
    assert line.pipeline.broken is None


def test_a_refusal_after_a_lost_reply_says_nothing_of_the_first_attempt() -> None:
    """The outcome is unknown at the deadline, until which a copy before it may yet be run."""
    line = Conversation()
    write = maybe_run(line, "w")
    line.refuse("OOM no memory")
    assert not write.future.done()
    line.pipeline.expire(write.deadline)
    assert isinstance(error_of(write), NoReplyError)
    assert str(error_of(write).__cause__) == "OOM no memory"
    read = maybe_run(line, "r", READ)
    line.refuse("WRONGTYPE")
    assert isinstance(error_of(read), ServerError)
    assert line.ended == [write, read]


def test_a_script_that_the_server_does_not_know_is_sent_as_text() -> None:
    """Behind what waits; from then on always as text, should the server forget it again."""
    line = Conversation()
    call = line.call("a")
    [first] = line.send()
    assert first.words[:2] == [b"EVALSHA", WRITE.sha.encode()]
    line.call("b")
    line.refuse("NOSCRIPT No matching script")
    second, third = line.send()
    assert (second.name, third.name) == ("b", "a")
    assert third.words[:2] == [b"EVAL", WRITE.text.encode()]
    assert third.words[5:7] == first.words[5:7]
    assert third.echo != first.echo
    line.answer()
    line.answer()
    assert result_of(call) == "a"


def test_another_command_may_well_be_refused_with_that_word() -> None:
    """It has no text to send."""
    line = Conversation()
    command = line.ask("CLUSTER", "SLOTS")
    line.send()
    line.refuse("NOSCRIPT")
    assert result_of(command) == "ServerError"


@pytest.mark.parametrize("code", LATER)
def test_what_cannot_be_run_now_is_sent_again_later(code: str) -> None:
    """The others go on meanwhile, and it is not taken for one that may have been run."""
    line = Conversation()
    call, other = line.call("a"), line.call("b")
    line.send()
    line.refuse(f"{code} not now")
    line.answer()
    assert result_of(other) == "b"
    assert line.pipeline.broken is None
    assert not line.pipeline.idle
    due = line.pipeline.next_put_off
    assert due is not None
    assert 0.005 <= due <= 0.01
    assert line.pipeline.next_moment(0.0) == due
    line.pipeline.expire(due - 0.001)
    assert line.sent_names() == []
    line.pipeline.expire(due)
    assert line.sent_names(due) == ["a"]
    assert line.pipeline.next_put_off is None
    assert not call.maybe_run
    line.answer(now=due)
    assert result_of(call) == "a"
    assert line.ended == [other, call]


def test_it_is_put_off_longer_each_time() -> None:
    """Up to half a second, each time less by chance, so that not all come at once."""
    line = Conversation()
    line.call("a", deadline=1000.0)
    pauses: list[float] = []
    for now in range(40):
        line.send(float(now))
        line.refuse("BUSY", float(now))
        due = line.pipeline.next_put_off
        assert due is not None
        longest = min(0.5, 0.01 * 2**now)
        assert longest / 2 <= due - now <= longest
        pauses.append((due - now) / longest)
        line.pipeline.expire(due)
    assert len(set(pauses)) > 30


@pytest.mark.parametrize("code", LATER)
def test_what_could_never_be_run_was_not_sent(code: str) -> None:
    """The outcome of a call that was refused each time is known, and the reason is told."""
    line = Conversation()
    call = line.call("a", deadline=1.0)
    line.send()
    line.refuse(f"{code} not now")
    line.pipeline.expire(1.0)
    assert result_of(call) == "NotSentError"
    assert str(error_of(call).__cause__) == f"{code} not now"
    assert line.ended == [call]
    assert line.pipeline.idle


def test_what_was_put_off_is_not_sent_again_near_its_deadline() -> None:
    """An answer took a second, so that one more would hardly come in the two that are left."""
    line = Conversation()
    near, far = line.call("near", deadline=103.9), line.call("far", deadline=104.1)
    line.send(100.0)
    line.refuse("BUSY", 101.0)
    line.refuse("BUSY", 101.0)
    line.pipeline.expire(101.5)
    assert line.sent_names(101.5) == ["far"]
    line.pipeline.expire(103.9)
    assert result_of(near) == "NotSentError"
    assert not far.future.done()


def test_what_was_put_off_and_cancelled_ends_when_it_is_looked_at() -> None:
    """It is not sent."""
    line = Conversation()
    call = line.call("a")
    line.send()
    line.refuse("BUSY")
    cancel(call)
    line.pipeline.expire(0.0)
    assert line.sent_names() == []
    assert line.ended == [call]


def test_of_several_that_were_put_off_the_first_decides_when_to_look() -> None:
    """Whichever it is."""
    line = Conversation()
    line.call("a")
    line.call("b")
    line.send()
    line.refuse("BUSY", 1.0)
    line.refuse("BUSY", 0.5)
    due = line.pipeline.next_put_off
    assert due is not None
    assert due < 1.0
    line.pipeline.expire(due)
    assert line.sent_names(due) == ["b"]
    assert not line.pipeline.idle


@pytest.mark.parametrize("code", ELSEWHERE)
def test_a_server_that_was_demoted_is_given_up(code: str) -> None:
    """Order is kept, and what it refused was not run by it, unlike what it did not answer."""
    line = Conversation()
    calls = [line.call(name) for name in "abc"]
    line.send()
    line.answer()
    line.refuse(f"{code} demoted")
    assert str(line.pipeline.broken) == f"{code} demoted"
    line.lose()
    assert line.pipeline.broken is None
    assert line.sent_names() == ["b", "c"]
    assert [call.maybe_run for call in calls[1:]] == [False, True]
    assert line.ended == calls[:1]
    line.lose()
    assert calls[1].maybe_run, "the exemption was for one connection"


def test_a_demoted_server_does_not_undo_a_lost_reply() -> None:
    """The first copy may have been run all the same."""
    line = Conversation()
    call = maybe_run(line, "a", deadline=1.0)
    line.refuse("READONLY")
    line.lose()
    line.pipeline.expire(1.0)
    assert result_of(call) == "NoReplyError"


# -- times


def test_a_call_carries_its_times_on_the_servers_clock() -> None:
    """When it was issued, and its deadline."""
    line = Conversation()
    line.call("a", deadline=7.0)
    [sent] = line.send(2.0)
    assert (sent.issued, sent.expires) == (server_time(2), server_time(7))


def test_after_a_lost_reply_the_times_are_those_of_the_first_sending() -> None:
    """By these the store tells a copy from another call, and from another life of the session."""
    line = Conversation()
    line.call("a")
    line.call("r", READ)
    [first, _] = line.send(1.0)
    line.lose()
    line.clock.learn(server_time(50), 2.0, 2.0)
    [second, _] = line.send(2.0)
    assert (second.issued, second.expires) == (first.issued, first.expires)


def test_the_clock_is_learned_from_the_replies_to_writes() -> None:
    """A reply to a read tells no time."""
    line = Conversation()
    line.call("r", READ)
    line.call("a")
    line.send()
    line.answer(now=1.0)
    assert line.clock.at(1.0) == server_time(1)
    line.answer(now=1.0, told=server_time(100))
    assert line.clock.at(1.0) == server_time(100)


def test_a_call_that_is_late_by_a_wrong_clock_is_sent_with_new_times() -> None:
    """One round trip is lost; the deadline on the right clock is what it was on the wrong one."""
    line = Conversation(told=False)
    call = line.call("a", deadline=7.0)
    [first] = line.send(1.0)
    assert (first.issued, first.expires) == (0, 0)
    line.answer(b"late", now=2.0)
    assert not line.ended
    [second] = line.send(3.0)
    assert (second.issued, second.expires) == (server_time(3), server_time(7))
    line.answer(now=3.0)
    assert result_of(call) == "a"
    assert line.ended == [call]


def test_a_late_call_keeps_the_time_at_which_it_was_issued() -> None:
    """It is the same call, and its first copy was sent then."""
    line = Conversation()
    line.call("a", deadline=7.0)
    line.send(1.0)
    line.answer(b"late", now=2.0, told=server_time(8))
    [second] = line.send(2.0)
    assert second.issued == server_time(1)
    assert second.expires == server_time(13)


def test_what_is_late_is_sent_behind_what_waits() -> None:
    """As all that goes again without a lost connection."""
    line = Conversation()
    line.call("a")
    line.send()
    line.call("b")
    line.answer(b"late")
    assert line.sent_names() == ["b", "a"]


@pytest.mark.parametrize(
    ("late_by", "lost_before", "outcome"),
    [
        (MARGIN, True, "waiting"),
        (MARGIN + 0.000_001, True, "NoReplyError"),
        (MARGIN + 100, False, "waiting"),
    ],
    ids=["remembered", "forgotten", "no copy before"],
)
def test_a_late_call_whose_copy_is_not_remembered_is_unknown(
    late_by: float, lost_before: bool, outcome: str
) -> None:
    """For a minute the store knows what it has run: until then late means that no copy was."""
    line = Conversation()
    call = line.call("a", deadline=7.0)
    line.send()
    if lost_before:
        line.lose()
        line.send()
    line.answer(b"late", told=server_time(7 + late_by))
    assert result_of(call) == outcome
    assert line.sent_names() == (["a"] if outcome == "waiting" else [])
    assert len(line.ended) == (outcome != "waiting")


def test_a_copy_without_a_deadline_was_never_run() -> None:
    """It is late by every clock, so that its lost reply leaves nothing unknown."""
    line = Conversation(told=False)
    call = maybe_run(line, "a")
    line.answer(b"late")
    assert result_of(call) == "waiting"
    line.send()
    line.answer()
    assert result_of(call) == "a"


def test_a_call_that_is_too_early_is_sent_with_the_time_that_it_is_told() -> None:
    """The session was made after it was issued, on this server's clock; its deadline stays."""
    line = Conversation()
    call = line.call("a", deadline=7.0)
    line.send()
    line.call("b")
    line.answer(b"early", b"%d" % server_time(3), now=1.0)
    assert not line.ended
    _, second = line.send(1.0)
    assert (second.name, second.issued, second.expires) == ("a", server_time(3), server_time(7))
    line.answer()
    line.answer()
    assert result_of(call) == "a"


def test_a_call_that_is_too_early_after_a_lost_reply_is_unknown() -> None:
    """Its copy may have been run in an earlier life of the session."""
    line = Conversation()
    call = maybe_run(line, "a")
    line.answer(b"early", b"%d" % server_time(3))
    assert result_of(call) == "NoReplyError"
    assert line.sent_names() == []
    assert line.ended == [call]


@pytest.mark.parametrize(
    ("told", "outcome"), [(2.8, "a"), (2.7, "NoReplyError"), (3.1, "NoReplyError")]
)
def test_a_call_that_only_seemed_too_early_goes_again(told: float, outcome: str) -> None:
    """It was known of the clock that it is behind by a second at most, and now it is known better.

    One that is ahead by more is another server's, and tells nothing of when the call was issued.
    """
    line = Conversation()
    line.clock.learn(server_time(0), -1.0, 0.0)
    call = maybe_run(line, "a")
    line.answer(b"early", b"%d" % server_time(0.75), now=2.0, told=server_time(told))
    for sent in line.send(2.0):
        assert sent.issued == server_time(0.75)
        line.answer()
    assert result_of(call) == outcome
    assert line.ended == [call]


def test_a_call_that_the_server_remembers_is_answered_for_good() -> None:
    """Also after a lost reply: had a copy of it been run, it would be known."""
    line = Conversation()
    call = maybe_run(line, "a", structs.replace(WRITE, header=("id",)))
    line.answer(b"missing")
    assert result_of(call) == "a"


@pytest.mark.parametrize("word", [b"missing", b"replaced"])
def test_what_is_gone_after_a_lost_reply_may_have_been_there(word: bytes) -> None:
    """Without one before it is the answer; a read has done nothing in any case."""
    line = Conversation()
    call = line.call("a")
    line.send()
    line.answer(word)
    assert result_of(call) == "a"
    again = maybe_run(line, "b")
    line.answer(word)
    assert result_of(again) == "NoReplyError"
    read = maybe_run(line, "r", READ)
    line.answer(word)
    assert result_of(read) == "r"
    assert line.ended == [call, again, read]


@pytest.mark.parametrize("word", [b"ok", b"conflict", b"gone"])
def test_other_answers_after_a_lost_reply_are_handed_on(word: bytes) -> None:
    """The scripts know their repeats."""
    line = Conversation()
    call = maybe_run(line, "a")
    line.answer(word)
    assert result_of(call) == "a"


# -- redirections


class Cluster:
    """Two nodes, of which each says of some calls that the other one has them."""

    def __init__(self) -> None:
        self.moved: list[tuple[Command, str]] = []
        self.first = Conversation(redirect=self._redirect)
        self.second = Conversation(redirect=self._redirect, told=False)
        self.second.clock.learn(server_time(500), 0.0, 0.0)

    def _redirect(self, command: Command, error: ServerError) -> None:
        self.moved.append((command, str(error)))


def test_without_a_cluster_a_redirection_is_an_error() -> None:
    """There is nobody to ask."""
    line = Conversation()
    call = line.call("a")
    line.send()
    line.refuse("MOVED 1 host:1")
    assert result_of(call) == "ServerError"


@pytest.mark.parametrize("text", ["MOVED 1 host:1", "ASK 1 host:1"])
def test_what_belongs_elsewhere_is_handed_over(text: str) -> None:
    """It has not ended, begins anew on the other node's clock, and the next call goes on."""
    cluster = Cluster()
    call, other = cluster.first.call("a"), cluster.first.call("b")
    cluster.first.send()
    cluster.first.refuse(text)
    cluster.first.answer()
    assert cluster.moved == [(call, text)]
    assert cluster.first.ended == [other]
    assert cluster.first.pipeline.idle
    cluster.second.pipeline.submit(call)
    [sent] = cluster.second.send()
    assert (sent.issued, sent.expires) == (server_time(500), server_time(510))


def test_what_may_have_been_run_keeps_its_times_when_redirected() -> None:
    """It was run on the node that owned the slot before, or was not."""
    cluster = Cluster()
    call = maybe_run(cluster.first, "a")
    cluster.first.refuse("MOVED 1 host:1")
    assert (call.issued, call.expires) == (server_time(0), server_time(10))


def test_a_node_that_is_about_to_own_a_slot_is_asked_with_asking() -> None:
    """Right before the call, each time that it is sent there."""
    line = Conversation()
    line.call("a")
    call = line.call("b")
    call.asking = True
    assert line.sent_names() == ["a", "ASKING", "b"]
    line.lose()
    assert line.sent_names() == ["a", "ASKING", "b"]
    line.answer()
    line.reply(b"OK")
    line.answer()
    assert result_of(call) == "b"
    assert len(line.ended) == 2


def test_asking_goes_before_the_pieces_of_a_large_call() -> None:
    """Nothing may come between the two."""
    line = Conversation()
    call = line.call("large", size=LARGE + 1)
    call.asking = True
    assert line.sent_names() == ["ASKING", "large"]
    line.reply(b"OK")
    line.answer()
    assert result_of(call) == "large"


def test_a_redirected_call_does_not_ask_any_more() -> None:
    """Unless it is told to."""
    cluster = Cluster()
    call = cluster.first.call("a")
    call.asking = True
    cluster.first.send()
    cluster.first.reply(b"OK")
    cluster.first.refuse("MOVED 1 host:1")
    assert not call.asking


def test_a_node_that_refuses_to_be_asked_ends_the_call() -> None:
    """Otherwise it would be redirected without an end."""
    cluster = Cluster()
    line = cluster.first
    call, other = line.call("a"), line.call("b")
    call.asking = True
    line.send()
    line.refuse("NOPERM no rights")
    assert not call.future.done()
    line.refuse("MOVED 1 host:1")
    assert str(error_of(call)) == "NOPERM no rights"
    line.answer()
    assert result_of(other) == "b"
    assert cluster.moved == []
    assert line.ended == [call, other]


def test_a_node_that_refuses_to_be_asked_may_own_the_slot_by_now() -> None:
    """The answer to the call is what counts."""
    line = Cluster().first
    call = line.call("a")
    call.asking = True
    line.send()
    line.refuse("NOPERM no rights")
    line.answer()
    assert result_of(call) == "a"


def test_a_node_that_cannot_be_asked_now_may_name_another() -> None:
    """Which is followed."""
    cluster = Cluster()
    call = cluster.first.call("a")
    call.asking = True
    cluster.first.send()
    cluster.first.refuse("LOADING")
    cluster.first.refuse("MOVED 1 host:1")
    assert cluster.moved == [(call, "MOVED 1 host:1")]


@pytest.mark.parametrize("asking", [True, False])
def test_a_refusal_to_be_asked_is_about_one_call(asking: bool) -> None:
    """One that was asked for, or did not need to be, is redirected as before."""
    cluster = Cluster()
    line = cluster.first
    a, b = line.call("a"), line.call("b")
    a.asking = True
    b.asking = asking
    line.send()
    line.refuse("NOPERM no rights")
    line.refuse("MOVED 1 host:1")
    if asking:
        line.reply(b"OK")
    line.refuse("MOVED 2 host:2")
    assert cluster.moved == [(b, "MOVED 2 host:2")]


@pytest.mark.parametrize("code", LATER)
def test_a_node_that_cannot_be_asked_now_is_asked_later(code: str) -> None:
    """What it says to the call decides."""
    line = Conversation()
    call = line.call("a")
    call.asking = True
    line.send()
    line.refuse(f"{code} not now")
    line.refuse(f"{code} not now")
    assert line.ended == []
    line.pipeline.expire(0.5)
    assert line.sent_names(0.5) == ["ASKING", "a"]
    line.reply(b"OK")
    line.answer()
    assert result_of(call) == "a"


def test_after_six_redirections_in_a_row_there_is_a_pause() -> None:
    """Nodes that disagree should come to terms; then six more are followed."""
    cluster = Cluster()
    line = cluster.first
    call = line.call("a")
    for round_ in (1, 2):
        for n in range(5):
            line.send()
            line.refuse("MOVED 1 host:1")
            assert len(cluster.moved) == n + 1
            line.pipeline.submit(call)
        line.send()
        line.refuse("MOVED 1 host:1", float(round_))
        assert len(cluster.moved) == 5
        assert not line.pipeline.has_something_to_send
        line.pipeline.expire(round_ + 0.5)
        assert line.pipeline.has_something_to_send
        cluster.moved.clear()
    assert not call.maybe_run


# -- acknowledgement

REPLICA = Acknowledgement(1)
DISK = Acknowledgement(1, fsync=True)
WAIT = [b"WAIT", b"1", b"100"]


def test_one_barrier_follows_a_batch_that_writes() -> None:
    """Calls end when it is answered, in order; a read ends at once and asks for none."""
    line = Conversation(REPLICA)
    a, r, b = line.call("a"), line.call("r", READ), line.call("b")
    received = line.send()
    assert [sent.name for sent in received] == ["a", "r", "b", "WAIT"]
    assert received[-1].words == WAIT
    line.answer()
    line.answer()
    line.answer()
    assert line.ended == [r]
    assert not line.pipeline.idle
    assert repr(line.pipeline) == "waiting=0 in_flight=3"
    line.reply(1)
    assert [result_of(a), result_of(b)] == ["a", "b"]
    assert line.ended == [r, a, b]
    assert line.pipeline.idle
    line.call("r", READ)
    assert line.sent_names() == ["r"]


def test_without_an_acknowledgement_there_is_no_barrier() -> None:
    """The server's memory is enough."""
    line = Conversation()
    line.call("a")
    assert line.sent_names() == ["a"]


def test_one_barrier_is_in_flight_at_a_time() -> None:
    """The next one speaks of all that was written since; what reads waits for one at most."""
    line = Conversation(REPLICA)
    a = line.call("a")
    line.send()
    b, r, c = line.call("b"), line.call("r", READ), line.call("c")
    assert line.sent_names() == ["b", "r", "c"]
    assert not line.pipeline.has_something_to_send
    line.answer()
    line.reply(1)
    assert line.ended == [a]
    assert line.sent_names() == ["WAIT"]
    line.answer()
    line.answer()
    line.answer()
    assert line.ended == [a, r]
    line.reply(1)
    assert line.ended == [a, r, b, c]


def test_a_barrier_that_falls_short_is_followed_by_another_one() -> None:
    """As often as it takes; at the deadline the outcome is unknown, and what lacks is told."""
    line = Conversation(REPLICA)
    a, b = line.call("a", deadline=1.0), line.call("b", deadline=2.0)
    line.send()
    line.answer()
    line.answer()
    for answers in (1, 2, 3):
        line.reply(0)
        assert line.pipeline.answered == answers
        assert not line.pipeline.idle
        assert line.pipeline.has_something_to_send
        assert line.sent_names() == ["WAIT"]
    assert line.pipeline.next_moment(0.0) == 1.0
    line.pipeline.expire(1.0)
    assert isinstance(error_of(a), NotAcknowledgedError)
    assert str(error_of(a).__cause__) == "0 of 1 replicas have it"
    assert line.ended == [a]
    line.reply(1)
    assert result_of(b) == "b"
    assert line.ended == [a, b]


def test_a_barrier_that_nobody_needs_any_more_is_not_sent() -> None:
    """Nor does the connection owe its reply to anybody."""
    line = Conversation(REPLICA)
    a = line.call("a")
    line.send()
    b = line.call("b")
    line.send()
    line.answer()
    line.reply(1)
    line.answer(b"missing")
    assert line.ended == [a, b]
    assert line.send() == []
    assert line.pipeline.head is None
    assert not line.pipeline.has_something_to_send


@pytest.mark.parametrize("refusal", sorted(REFUSALS), ids=bytes.decode)
def test_a_refusal_waits_for_no_barrier(refusal: bytes) -> None:
    """Nothing was written that could be lost."""
    line = Conversation(REPLICA)
    call = line.call("a")
    line.send()
    line.answer(refusal)
    assert line.ended == [call]
    assert call.future.done()


def test_a_barrier_that_fell_short_for_nobody_is_not_repeated() -> None:
    """What was before it was refused."""
    line = Conversation(REPLICA)
    line.call("a")
    line.send()
    line.refuse("OOM no memory")
    line.reply(0)
    assert not line.pipeline.has_something_to_send


def test_a_connection_owes_the_reply_to_a_barrier() -> None:
    """Until the deadline of the last call before it."""
    line = Conversation(REPLICA)
    line.call("a", deadline=1.0)
    line.call("b", deadline=2.0)
    line.send()
    line.answer()
    line.answer()
    assert not line.pipeline.expire(1.0)
    assert line.pipeline.expire(2.0)


@pytest.mark.parametrize("reply", [[1, 1], [0, 1], [1, 0]], ids=str)
def test_a_write_to_disk_is_waited_for_on_the_server_and_its_replicas(reply: list[int]) -> None:
    """Both have to have it."""
    line = Conversation(DISK)
    call = line.call("a")
    received = line.send()
    assert received[-1].words == [b"WAITAOF", b"1", b"1", b"100"]
    line.answer()
    line.reply(reply)
    assert result_of(call) == ("a" if reply == [1, 1] else "waiting")


def test_a_server_that_cannot_acknowledge_says_so_for_good() -> None:
    """What it has answered is written and not acknowledged, and no repeat would help."""
    line = Conversation(DISK)
    a, b = line.call("a"), line.call("b")
    line.send()
    cancel(b)
    line.answer()
    line.answer()
    line.refuse("ERR WAITAOF cannot be used when appendonly is disabled")
    assert isinstance(error_of(a), NotAcknowledgedError)
    assert "appendonly is disabled" in str(error_of(a).__cause__)
    assert sorted(map(id, line.ended)) == sorted(map(id, (a, b)))
    assert not line.pipeline.has_something_to_send
    assert line.pipeline.broken is None


@pytest.mark.parametrize("code", [*LATER, *ELSEWHERE])
def test_a_barrier_that_cannot_be_run_now_gives_the_connection_up(code: str) -> None:
    """Only the connection that wrote can wait for it, so what was written is written again."""
    line = Conversation(REPLICA)
    a, b = line.call("a"), line.call("b")
    line.send()
    line.answer()
    line.answer()
    line.refuse(f"{code} demoted")
    assert str(line.pipeline.broken) == f"{code} demoted"
    assert not line.ended
    line.lose()
    assert line.sent_names() == ["a", "b", "WAIT"]
    assert (a.maybe_run, b.maybe_run) == (True, True)


def test_a_connection_lost_before_the_barrier_was_answered_repeats_what_was_written() -> None:
    """In the order of all that goes again; the old answer does not count any more."""
    line = Conversation(REPLICA)
    a, b = line.call("a", deadline=1.0), line.call("b")
    line.send()
    line.answer()
    line.lose()
    assert line.sent_names() == ["a", "b", "WAIT"]
    line.pipeline.expire(1.0)
    assert isinstance(error_of(a), NoReplyError)
    line.answer()
    line.answer()
    line.reply(1)
    assert result_of(b) == "b"
    assert line.ended == [a, b]


def test_a_barrier_that_was_due_is_not_sent_on_the_next_connection_alone() -> None:
    """There it would speak of nothing."""
    line = Conversation(REPLICA)
    call = line.call("a")
    line.send()
    line.answer()
    line.reply(0)
    cancel(call)
    line.lose()
    assert line.ended == [call]
    assert not line.pipeline.has_something_to_send


def test_a_cancelled_write_waits_for_no_barrier() -> None:
    """Its place is free when it is answered."""
    line = Conversation(REPLICA)
    call = line.call("a")
    line.send()
    cancel(call)
    line.answer()
    assert line.ended == [call]


def test_what_failed_waits_for_no_barrier() -> None:
    """Its outcome is unknown already."""
    line = Conversation(REPLICA)
    call = maybe_run(line, "a")
    line.answer(b"missing")
    assert result_of(call) == "NoReplyError"
    assert line.ended == [call]


def test_the_barrier_of_a_large_write_follows_its_last_piece() -> None:
    """Before it there would be nothing to wait for."""
    line = Conversation(REPLICA)
    call = line.call("large", size=LARGE + 1)
    line.call("b", READ)
    assert line.sent_names() == ["large", "b", "WAIT"]
    line.answer()
    line.answer()
    line.reply(1)
    assert result_of(call) == "large"


def test_what_was_written_before_a_large_call_does_not_wait_for_it() -> None:
    """Its barrier goes first, and the other one when that is answered."""
    line = Conversation(REPLICA)
    line.call("a")
    line.call("large", size=LARGE + 1)
    assert line.sent_names() == ["a", "WAIT", "large"]
    line.answer()
    line.reply(1)
    assert line.sent_names() == ["WAIT"]


def test_a_large_read_is_followed_by_no_barrier() -> None:
    """It writes nothing."""
    line = Conversation(REPLICA)
    line.call("large", READ, size=LARGE + 1)
    assert line.sent_names() == ["large"]


@pytest.mark.parametrize("first", ["refused", "written"])
def test_a_large_write_has_its_barrier_whatever_the_one_before_it_says(first: str) -> None:
    """One that is answered while pieces leave speaks of what was before them."""
    line = Conversation(REPLICA)
    line.call("a")
    line.send()
    large = line.call("large", size=LARGE + 1)
    line.send_some()
    if first == "refused":
        line.refuse("OOM no memory")
    else:
        line.answer()
    line.reply(0)
    if first == "written":
        assert line.pipeline.has_something_to_send
    assert line.sent_names() == ["large", "WAIT"]
    line.answer()
    line.reply(1)
    assert result_of(large) == "large"


def test_closing_says_what_was_not_acknowledged() -> None:
    """The barrier itself is nobody's, and nobody is told of its end."""
    line = Conversation(REPLICA)
    answered, flying = line.call("a"), line.call("b")
    flying.asking = True
    line.send()
    line.answer()
    line.pipeline.fail_all()
    assert [result_of(answered), result_of(flying)] == ["NotAcknowledgedError", "NoReplyError"]
    assert sorted(map(id, line.ended)) == sorted(map(id, (answered, flying)))
    assert not line.pipeline.has_something_to_send
    assert line.pipeline.idle


@pytest.mark.parametrize("end", [Conversation.lose, lambda line: line.pipeline.fail_all()])
def test_an_owned_command_is_never_handed_out(end: Callable[[Conversation], None]) -> None:
    """Neither a barrier nor an ASKING ends as a command does, or is sent again by itself."""
    line = Conversation(REPLICA)
    call = line.call("a")
    call.asking = True
    line.send()
    cancel(call)
    end(line)
    assert line.ended == [call]
    assert not line.pipeline.has_something_to_send


# -- what is no answer at all


@pytest.mark.parametrize("text", ["MOVED x", "MOVED 1 nowhere", "MOVED 99999 host:1"])
def test_a_redirection_that_cannot_be_read_costs_the_connection_alone(text: str) -> None:
    """The call is not lost with it: it is sent again on another one."""
    slots = SlotMap()

    def follow(_: Command, error: ServerError) -> None:
        slots.move(*redirection(str(error), ("host", 1)))

    line = Conversation(redirect=follow)
    call = line.call("a")
    line.send()
    line.refuse(text)
    assert line.pipeline.broken is not None
    assert not call.future.done()
    line.lose()
    line.send()
    line.answer()
    assert result_of(call) == "a"


def test_half_an_answer_costs_the_connection_alone() -> None:
    """A script's answer that lacks its word and its time is none."""
    line = Conversation()
    call = line.call("a")
    (sent,) = line.send()
    line.reply([sent.echo])
    assert line.pipeline.broken is not None
    line.lose()
    line.send()
    line.answer()
    assert result_of(call) == "a"


def test_no_copy_may_be_run_longer_than_the_call_lasts() -> None:
    """Also on a server whose clock is behind that of the one that the first copy went to."""
    line = Conversation()
    line.call("a", deadline=10.0)
    (first,) = line.send()
    line.lose()
    line.clock.learn(EPOCH - 30_000_000, 0.0, 0.0)
    (second,) = line.send()
    assert first.expires == server_time(10.0)
    assert second.expires == server_time(10.0) - 30_000_000
    assert second.issued == first.issued


def test_what_is_put_off_is_known_to_be_due_when_a_barrier_breaks_the_connection() -> None:
    """A busy server refuses both, and the call is sent again before its deadline."""
    line = Conversation(Acknowledgement(1))
    call = line.call("a")
    line.send()
    line.refuse("BUSY script")
    line.refuse("BUSY script")
    assert line.pipeline.broken is not None
    due = line.pipeline.next_put_off
    assert due is not None
    line.lose()
    line.pipeline.expire(due)
    assert line.sent_names() == ["a", "WAIT"]
    assert call.future in line.pipeline.awaited
