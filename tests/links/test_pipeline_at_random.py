"""Random things happen to a pipelined connection, beside a server that runs what it is sent.

The server is honest: it runs a copy only until its deadline, and remembers what it has run. The
callers may trust what they are told, whatever happens on the way.
"""

from __future__ import annotations

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

from agentsession.redis._core.acknowledgement import SERVER_MEMORY, Acknowledgement
from agentsession.redis._core.errors import ServerError
from agentsession.redis._core.request import LARGE, Command
from harness.conversation import (
    EPOCH,
    READ,
    WRITE,
    Conversation,
    Outcome,
    Sent,
    cancel,
    result_of,
    server_time,
)

REFUSALS = st.sampled_from(
    ["OOM", "NOSCRIPT", "BUSY", "LOADING", "TRYAGAIN", "READONLY", "MOVED 1 h:1", "ASK 1 h:1"]
)
SECONDS = st.sampled_from([0.0, 0.001, 0.3, 1.0, 4.0])
PROOF = {"NotSentError", "ServerError"}
"""Ends that say: nothing was run."""


class Calls(RuleBasedStateMachine):
    """One connection after the other, the calls on them, and what the server has run."""

    acknowledgement = SERVER_MEMORY

    @initialize(told=st.booleans())
    def begin(self, told: bool) -> None:
        self.now = 0.0
        self.line = Conversation(self.acknowledgement, self._redirected, told=told)
        self.calls: dict[str, Command] = {}
        self.first_sent: list[str] = []
        self.run: set[str] = set()
        self.moved: set[str] = set()

    def _redirected(self, command: Command, error: ServerError) -> None:
        command.asking = error.code == "ASK"
        self.line.pipeline.submit(command)

    # -- callers

    @rule(write=st.booleans(), large=st.booleans(), patience=st.sampled_from([1.0, 5.0, 30.0]))
    def call(self, write: bool, large: bool, patience: float) -> None:
        name = f"call-{len(self.calls)}"
        script = WRITE if write else READ
        size = LARGE + 1 if large else 0
        self.calls[name] = self.line.call(name, script, deadline=self.now + patience, size=size)

    @precondition(lambda self: self.calls)
    @rule(data=st.data())
    def cancel(self, data: st.DataObject) -> None:
        cancel(self.calls[data.draw(st.sampled_from(sorted(self.calls)))])

    # -- the way

    @precondition(lambda self: self.line.pipeline.has_something_to_send)
    @rule(all_of_it=st.booleans())
    def send(self, all_of_it: bool) -> None:
        received = self.line.send(self.now) if all_of_it else self.line.send_some(self.now)
        for sent in received:
            if sent.is_call:
                self._check_copy(sent)

    def _check_copy(self, sent: Sent) -> None:
        call = self.calls[sent.name]
        if sent.writes:
            assert sent.expires <= server_time(call.deadline)
        if sent.name not in self.first_sent:
            self.first_sent.append(sent.name)

    @precondition(lambda self: self.line.unanswered)
    @rule(short=st.booleans())
    def answer(self, short: bool) -> None:
        sent = self.line.unanswered[0]
        if sent.verb == "WAIT":
            self.line.reply(int(not short), self.now)
        elif sent.verb == "ASKING":
            self.line.reply(b"OK", self.now)
        else:
            word = b"ok" if self._runs(sent) else b"late"
            self.line.answer(word, now=self.now)
        self._give_up_if_broken()

    def _runs(self, sent: Sent) -> bool:
        """Run a copy, as a server does that remembers what it ran."""
        if sent.writes and sent.expires < server_time(self.now) and sent.name not in self.run:
            return False
        self.run.add(sent.name)
        return True

    @precondition(lambda self: self.line.unanswered)
    @rule(text=REFUSALS)
    def refuse(self, text: str) -> None:
        sent = self.line.unanswered[0]
        if sent.verb == "WAIT":
            text = "READONLY" if text.startswith(("NOSCRIPT", "MOVED", "ASK")) else text
        self.line.refuse(text, self.now)
        self._give_up_if_broken()

    @precondition(lambda self: self.line.unanswered)
    @rule()
    def answer_another(self) -> None:
        sent = self.line.unanswered.popleft()
        if sent.is_call:
            self.line.pipeline.received([b"0", b"ok", EPOCH, "another's"], self.now)
        else:
            self.line.pipeline.received(ServerError("ERR"), self.now)
        self._give_up_if_broken()

    def _give_up_if_broken(self) -> None:
        if self.line.pipeline.broken is not None:
            self.line.lose()

    @rule(run=st.booleans())
    def lose(self, run: bool) -> None:
        for sent in self.line.unanswered:
            if run and sent.is_call:
                self._runs(sent)
        self.line.lose()

    @rule(seconds=SECONDS)
    def wait(self, seconds: float) -> None:
        self.now += seconds
        self.line.pipeline.expire(self.now)
        moment = self.line.pipeline.next_moment(self.now)
        assert moment is None or moment > self.now

    @rule()
    def withdraw(self) -> None:
        """As if another connection had taken them, behind what it has itself."""
        for command in self.line.pipeline.withdraw():
            self.line.pipeline.submit(command)

    # -- what holds

    @invariant()
    def each_call_ends_once(self) -> None:
        ended = self.line.ended
        assert len(set(map(id, ended))) == len(ended)
        assert set(map(id, ended)) <= set(map(id, self.calls.values()))
        assert all(command.future.done() for command in ended)

    @invariant()
    def replies_go_to_their_own_call(self) -> None:
        for name, call in self.calls.items():
            if isinstance(call.future, Outcome) and call.future.result is not None:
                assert result_of(call) == name
                assert name in self.run

    @invariant()
    def what_is_told_is_true(self) -> None:
        for name, call in self.calls.items():
            result = result_of(call)
            assert result not in PROOF or not self.calls_writes(name) or name not in self.run
            assert result != "NotAcknowledgedError" or name in self.run

    def calls_writes(self, name: str) -> bool:
        return self.calls[name].writes

    def teardown(self) -> None:
        if not hasattr(self, "line"):
            return
        self.line.pipeline.fail_all()
        self.each_call_ends_once()
        self.replies_go_to_their_own_call()
        self.what_is_told_is_true()
        assert len(self.line.ended) == len(self.calls)
        assert self.line.pipeline.idle
        assert not self.line.pipeline.has_something_to_send


class AcknowledgedCalls(Calls):
    """The same, with barriers."""

    acknowledgement = Acknowledgement(1)


@pytest.mark.parametrize("machine", [Calls, AcknowledgedCalls])
def test_callers_may_trust_what_they_are_told(machine: type[Calls]) -> None:
    """Each call ends once, with its own reply or with the truth."""
    run_state_machine_as_test(
        machine, settings=settings(max_examples=300, stateful_step_count=40, deadline=None)
    )


class OrderedCalls(RuleBasedStateMachine):
    """Connections are lost, and answers come: nothing that sends a call again behind others."""

    @initialize()
    def begin(self) -> None:
        self.line = Conversation()
        self.submitted: list[str] = []
        self.received: list[str] = []

    @rule(large=st.booleans())
    def call(self, large: bool) -> None:
        self.submitted.append(f"call-{len(self.submitted)}")
        self.line.call(self.submitted[-1], size=LARGE + 1 if large else 0)

    @precondition(lambda self: self.line.pipeline.has_something_to_send)
    @rule()
    def send(self) -> None:
        names = [sent.name for sent in self.line.send_some()]
        self.received += [name for name in names if name not in self.received]

    @precondition(lambda self: self.line.unanswered)
    @rule()
    def answer(self) -> None:
        self.line.answer()

    @rule()
    def lose(self) -> None:
        self.line.lose()

    @invariant()
    def first_copies_are_in_order(self) -> None:
        assert self.received == self.submitted[: len(self.received)]

    @invariant()
    def what_is_in_flight_is_in_order(self) -> None:
        names = [sent.name for sent in self.line.unanswered]
        assert names == sorted(names, key=self.submitted.index)


def test_calls_are_received_in_the_order_in_which_they_were_made() -> None:
    """However often the connection is lost."""
    run_state_machine_as_test(
        OrderedCalls, settings=settings(max_examples=200, stateful_step_count=40, deadline=None)
    )
