"""Checks of whole sessions, and of errors. Each takes the ledger and the event limit, but one."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterator

from agentsession import SessionKey
from reliability.checker.ledger import APPENDS, CREATIONS, READS, Effort, Ledger
from reliability.checker.timeline import Timeline
from reliability.history import Operation, View
from reliability.workers.plan import MADE, is_mortal

_MISSING = "SessionNotFoundError"
_PRESENT = ("SessionExistsError", "RevisionConflictError")
_GIVING_UP = ("BackendUnavailableError", "OutcomeUnknownError")


class _Existence:
    """What is known of when a session was there; it may be made and deleted any number of times.

    Each of these facts is of a moment between two others, and which is the question. Something was
    there at a moment after the *sighting* began that had begun the latest of those that have ended;
    it is there no more if a *deletion* may have come since: one that has begun by now, and was not
    over by then. The same the other way round.

    Attributes:
        sightings: It was there, from when those had ended, by when they had begun.
        absences: It was not.
        creations: What may have made it, from when it had begun, by when it was over.
        deletions: What may have deleted it.
    """

    def __init__(self) -> None:
        self.sightings: Timeline[Operation] = Timeline()
        self.absences: Timeline[Operation] = Timeline()
        self.creations: Timeline[Operation] = Timeline()
        self.deletions: Timeline[Operation] = Timeline()

    def note(self, operation: Operation) -> None:
        kind = operation.step.kind
        if operation.outcome != "failed" and kind in CREATIONS:
            self.creations.add(operation.started, operation.over, operation)
        if operation.outcome != "failed" and kind in ("delete", "erase"):
            self.deletions.add(operation.started, operation.over, operation)
        if _finds(operation):
            self.saw(operation)
        elif _misses(operation) or (operation.acknowledged and kind in ("delete", "erase")):
            self.missed(operation)

    def saw(self, operation: Operation) -> None:
        self.sightings.add(operation.ended or math.inf, operation.started, operation)

    def missed(self, operation: Operation) -> None:
        self.absences.add(operation.ended or math.inf, operation.started, operation)

    def why_not_missing(self, operation: Operation) -> str | None:
        """Say why it cannot be that the session is not there, if it cannot."""
        seen = self.sightings.before(operation.started)
        deleted = self.deletions.before(operation.ended or math.inf)
        if seen is None or (deleted is not None and deleted[0] > seen[0]):
            return None
        if deleted is None:
            return f"lost: {{}}, though {seen[1]} found it, and nobody deletes it"
        return f"late: {{}}, though {seen[1]} found it after {deleted[1]} was over"

    def why_not_there(self, operation: Operation) -> str | None:
        """Say why it cannot be that the session is there, if it cannot."""
        gone = self.absences.before(operation.started)
        made = self.creations.before(operation.ended or math.inf)
        if gone is None or (made is not None and made[0] > gone[0]):
            return None
        if made is None:
            return f"ghost: {{}}, which {gone[1]} left or found absent, and nobody makes"
        kind = "ghost" if gone[1].step.kind in ("delete", "erase") else "late"
        return f"{kind}: {{}}, which {gone[1]} left or found absent after {made[1]} was over"


def _finds(operation: Operation) -> bool:
    """Tell whether it shows that its session was there."""
    if operation.error in _PRESENT:
        return True
    kind = operation.step.kind
    return operation.acknowledged and (
        kind in (*APPENDS, *CREATIONS, "update") or operation.view is not None
    )


def _misses(operation: Operation) -> bool:
    """Tell whether it shows that its session was not there."""
    reads = operation.step.kind in READS and operation.acknowledged
    return operation.error == _MISSING or (reads and operation.view is None)


def _existences(ledger: Ledger) -> dict[SessionKey, _Existence]:
    keys = {operation.step.key for operation in ledger.operations}
    found = {key: _Existence() for key in keys}
    of_user: dict[object, list[SessionKey]] = defaultdict(list)
    for key in found:
        of_user[key.user].append(key)
    for operation in ledger.operations:
        key = operation.step.key
        if operation.step.kind == "erase":
            for each in of_user[key.user]:
                found[each].note(operation)
        elif operation.listed is not None and operation.acknowledged:
            for each in of_user[key.user]:
                listed = each.session_id in operation.listed
                (found[each].saw if listed else found[each].missed)(operation)
        else:
            found[key].note(operation)
    return found


def errors_are_excused(ledger: Ledger, _: int) -> Iterator[str]:
    """Nothing is raised but what the contract names."""
    for operation in ledger.operations:
        if operation.outcome == "wrong":
            yield f"wrong: {operation} on {operation.step.key}: {operation.error}"


def sessions_live_and_die(ledger: Ledger, _: int) -> Iterator[str]:
    """A session is found from its creation to its deletion, not before and not afterwards."""
    existences = _existences(ledger)
    for operation in ledger.operations:
        key = operation.step.key
        why = None
        if _finds(operation):
            why = existences[key].why_not_there(operation)
            found = f"{operation} finds {key}"
        elif _misses(operation):
            why = existences[key].why_not_missing(operation)
            found = f"{operation} does not find {key}"
        if why:
            yield why.format(found)


def listings_are_complete(ledger: Ledger, _: int) -> Iterator[str]:
    """A listing holds every session of its user that is surely there, and none that is not."""
    existences = _existences(ledger)
    for operation in ledger.operations:
        if operation.listed is None or not operation.acknowledged:
            continue
        user = operation.step.key.user
        mine = {key.session_id: key for key in existences if key.user == user}
        for session_id, key in mine.items():
            if session_id in operation.listed:
                why = existences[key].why_not_there(operation)
                found = f"{operation} finds {key} in the list"
            else:
                why = existences[key].why_not_missing(operation)
                found = f"{operation} does not find {key} in the list"
            if why:
                yield why.format(found)
        for session_id in operation.listed.keys() - mine:
            yield f"foreign: {operation} finds {session_id!r} in the list of {user}"


def lives_follow_each_other(ledger: Ledger, _: int) -> Iterator[str]:
    """A mortal session is of a creation that was not over when it was last surely absent.

    And all that is in it was not over when that creation began.
    """
    existences = _existences(ledger)
    makers: dict[object, Effort] = defaultdict(Effort)
    writers: dict[object, Effort] = defaultdict(Effort)
    for operation in ledger.operations:
        step = operation.step
        if step.kind in CREATIONS and MADE in step.values:
            makers[step.values[MADE]].note(operation)
        if step.kind == "update" and is_mortal(step.key):
            writers[step.values["n"]].note(operation)
    for event in ledger.written.values():
        if is_mortal(event.key) and "n" in event.sent.delta:
            writers[event.sent.delta["n"]] = event
    for (key, label, _life), log in ledger.lives.items():
        maker = makers.get(label)
        for operation, view in log.reads:
            if maker is None or maker.refused:
                yield f"ghost: {operation} finds {key} made by {label}, who never did"
                continue
            gone = existences[key].absences.before(operation.started)
            if gone is not None and gone[0] > maker.over:
                yield (
                    f"late: {operation} finds {key} as {maker} made it, "
                    f"which was over before {gone[1]} left or found it absent"
                )
            contents: list[Effort | None] = [ledger.written.get(seen.id) for seen in view.events]
            contents.append(writers.get((view.state or {}).get("n")))
            for each in contents:
                if each is not None and each.over < maker.started:
                    yield (
                        f"late: {operation} finds what {each} wrote in {key} as {maker} made it, "
                        "which began when that was over"
                    )


def mortals_keep_what_they_live_with(ledger: Ledger, _: int) -> Iterator[str]:
    """An event is found that was acknowledged, as long as nobody may have deleted its session."""
    existences = _existences(ledger)
    events: dict[SessionKey, list[str]] = defaultdict(list)
    for event in ledger.acknowledged():
        if is_mortal(event.key):
            events[event.key].append(event.sent.id)
    for (key, _label, _life), log in ledger.lives.items():
        for operation, view in log.reads:
            if operation.step.kind == "whole":
                held = {seen.id for seen in view.events}
                deleted = existences[key].deletions.before(operation.ended or math.inf)
                for event_id in events[key]:
                    event = ledger.written[event_id]
                    surely = event.acknowledged < operation.started and (
                        deleted is None or deleted[0] <= event.started
                    )
                    if surely and event_id not in held and not _trimmed(view):
                        yield f"lost: {operation} does not find {event_id} in {key}"


def _trimmed(view: View) -> bool:
    return bool(view.events) and view.events[0].seq > 1


def who_has_time_gets_an_answer(ledger: Ledger, hasty: str) -> Iterator[str]:
    """Faults that pass within the time that a call has cost it no more than time.

    But who finds a session gone, or made anew, after a lost reply may have written to the one
    before, and cannot know. It is taken for made anew if it was made a moment before the call, by
    the caller's notion of the server's clock.

    Args:
        ledger: What was done.
        hasty: How the names of workers begin that gave their calls no time.
    """
    existences = _existences(ledger)
    for operation in ledger.operations:
        if operation.error not in _GIVING_UP or operation.worker.startswith(hasty):
            continue
        step = operation.step
        writes = operation.error == "OutcomeUnknownError" and step.kind in (*APPENDS, "update")
        gone = is_mortal(step.key) or existences[step.key].why_not_missing(operation) is None
        if not (writes and gone):
            yield f"gave up: {operation} on {step.key}: {operation.error}"
