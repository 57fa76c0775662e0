"""What events of tRPC-Agent-Go may hold besides what its own runner writes."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from agentsession.events import Data
from agentsession.transfer.importers._sources import trpc_agent_go_events as go

WHEN = "2025-03-04T05:06:07.123456789Z"


def event(**told: Any) -> dict[str, Any]:
    return {"id": "e1", "timestamp": WHEN, **told}


def test_a_message_of_an_unknown_role_is_kept_as_it_is() -> None:
    """And it is counted as what has no part here."""
    message = {"role": "oracle", "content": "forty-two"}
    made, lost = go.event_of(event(choices=[{"message": message}]), msgspec.json.decode)
    assert isinstance(made.content, list)
    (part,) = made.content
    assert isinstance(part, Data)
    assert part.data == message
    assert lost == ["the parts of messages that are none of OpenAI's"]


def test_an_event_without_an_id_has_the_same_one_each_time() -> None:
    """So a second import adds nothing; another event has another id."""
    ids = [go.event_of(event(id="", author=who), bytes)[0].id for who in ("a", "a", "b")]
    assert ids[0] == ids[1] != ids[2]
    assert all(ids)


@pytest.mark.parametrize("value", [5, ["YQ=="], {"a": "YQ=="}])
def test_state_that_is_not_in_base64_is_refused(value: object) -> None:
    """It was written by something else."""
    with pytest.raises(ValueError, match="state 'a' is not in base64"):
        go.state_of({"a": value}, bytes)


@pytest.mark.parametrize("told", [None, 5, "yesterday"])
def test_a_time_that_is_none_is_refused(told: object) -> None:
    """An event has to have one."""
    with pytest.raises(ValueError, match=r"time|isoformat"):
        go.moment_of(told)


def test_times_are_ordered_to_the_nanosecond() -> None:
    """What has none comes first."""
    stored = [b"{", b'{"timestamp": 5}', *(
        msgspec.json.encode({"timestamp": f"2025-03-04T05:06:07{rest}"})
        for rest in ("Z", ".5Z", ".500000001Z", ".6+00:00")
    )]  # fmt: skip
    moments = [go.nanoseconds_of(data) for data in stored]
    assert moments[:2] == [0, 0]
    assert moments[2:] == sorted(moments[2:])
    assert moments[4] - moments[3] == 1
