"""Message lists of OpenAI's Chat Completions, in every form in which people have them."""

from __future__ import annotations

import io
import json
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from agentsession import SessionKey, SessionService, ToolResult, UserKey
from agentsession.errors import BackendUnavailableError
from agentsession.messages import openai_chat
from agentsession.transfer import SessionConflictError
from agentsession.transfer.importers import SourceError, SourceReport, import_openai_chat
from transfer.importers.stores import everything

RECORDED = Path(__file__).parents[4] / "shared/data/airline_conversations.jsonl"
recorded = pytest.mark.skipif(
    not RECORDED.exists(), reason="the recorded conversations are not beside this checkout"
)

OWNER = UserKey("a", "u")
HELLO: list[dict[str, Any]] = [
    {"role": "user", "content": "Hello"},
    {"role": "assistant", "content": "Hi"},
]


async def imported(service: SessionService, text: str | bytes, **options: Any) -> SourceReport:
    data = text.encode() if isinstance(text, str) else text
    return await import_openai_chat(service, io.BytesIO(data), to=OWNER, **options)


async def texts(service: SessionService, session_id: str) -> list[str]:
    return [event.text for event in await service.get_events(SessionKey("a", "u", session_id))]


@recorded
async def test_recorded_conversations_come_back_as_they_were(service: SessionService) -> None:
    """All 100 of them, message by message, with as many calls and results as in the file."""
    conversations = [json.loads(line) for line in RECORDED.read_text().splitlines()]
    messages = [each for one in conversations for each in one["messages"]]
    report = await imported(service, RECORDED.read_bytes())
    assert (report.problems, report.sessions, report.events) == ([], 100, len(messages))
    calls = sum(len(each.get("tool_calls") or ()) for each in messages)
    assert report.kinds["tool calls"] == calls
    assert report.kinds["tool results"] == sum(each["role"] == "tool" for each in messages)
    for one in conversations:
        key = SessionKey("a", "u", one["conversation_id"])
        session = await service.get_session(key)
        assert session is not None
        back = [_without_nothing(each) for each in openai_chat.to_messages(session.events)]
        assert back == [_without_nothing(each) for each in one["messages"]]


def _without_nothing(message: Any) -> dict[str, Any]:
    """Leave out what a request does not tell apart, and the names of tools of results."""
    named = {name for name in message if message["role"] == "tool" and name == "name"}
    return {name: each for name, each in message.items() if each is not None and name not in named}


@recorded
async def test_a_second_run_adds_nothing(service: SessionService) -> None:
    """Though the file tells no times: they are those of the first run."""
    await imported(service, RECORDED.read_bytes())
    first = await everything(service, "a")
    report = await imported(service, RECORDED.read_bytes())
    assert (report.sessions, report.events, report.found, report.problems) == (0, 0, 100, [])
    assert await everything(service, "a") == first


@pytest.mark.parametrize(
    ("text", "ids"),
    [
        (json.dumps(HELLO), ["conversation-1"]),
        (json.dumps(HELLO, indent=2), ["conversation-1"]),
        (json.dumps({"messages": HELLO, "id": "x"}), ["x"]),
        (json.dumps({"messages": HELLO, "conversation_id": 7}, indent=1), ["7"]),
        (
            json.dumps([{"messages": HELLO, "id": "x"}, {"messages": HELLO}]),
            ["x", "conversation-2"],
        ),
        (f'{json.dumps(HELLO)}\n\n{{"session_id":"y","messages":{json.dumps(HELLO)}}}\n', None),
        ("", []),
    ],
)
async def test_every_form_is_read(
    service: SessionService, text: str, ids: list[str] | None
) -> None:
    """One list, an object, a list of objects, each on one line or on many; and JSON lines."""
    ids = ["conversation-1", "y"] if ids is None else ids
    report = await imported(service, text)
    assert (report.sessions, report.problems) == (len(ids), [])
    for session_id in ids:
        assert await texts(service, session_id) == ["Hello", "Hi"]


async def test_times_are_read_and_other_fields_are_named(service: SessionService) -> None:
    """As ISO 8601, or in seconds; what is no time is named, and so is what has no place."""
    for number, told in enumerate(["2026-01-02T03:04:05", 1767323045, 1767323045.0]):
        await imported(
            service, json.dumps({"id": f"s{number}", "messages": HELLO, "created_at": told})
        )
        session = await service.get_session(SessionKey("a", "u", f"s{number}"))
        assert session is not None
        at = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)
        assert [session.created_at, *(each.timestamp for each in session.events)] == [at] * 3
    line = {"id": "t", "messages": HELLO, "created": "soon", "reward": 1, "tools": []}
    report = await imported(service, json.dumps(line))
    assert report.unmapped == {"fields of conversations": 2, "times of conversations": 1}


async def test_tools_of_results_are_known_from_their_calls(service: SessionService) -> None:
    """As when all messages are read at once."""
    call = {"id": "c", "type": "function", "function": {"name": "now", "arguments": "{}"}}
    messages = [
        {"role": "assistant", "tool_calls": [call]},
        {"role": "tool", "tool_call_id": "c", "content": "noon"},
    ]
    await imported(service, json.dumps({"id": "s", "messages": messages}))
    (_, answer) = await service.get_events(SessionKey("a", "u", "s"))
    assert answer.content == [ToolResult("c", "noon", "now")]


async def test_a_function_says_who_takes_what(service: SessionService) -> None:
    """The source knows no users, but its ids may tell them."""
    text = json.dumps({"id": "bob/1", "messages": HELLO})

    def to(session_id: str) -> SessionKey:
        user, _, rest = session_id.partition("/")
        return SessionKey("a", user, rest)

    await import_openai_chat(service, io.BytesIO(text.encode()), to=to, agent="bot")
    events = await service.get_events(SessionKey("a", "bob", "1"))
    assert [event.author for event in events] == ["user", "bot"]


BROKEN = "\n".join(
    [
        json.dumps({"id": "one", "messages": HELLO}),
        "{oops",
        json.dumps({"id": "two", "messages": [HELLO[0], {"role": "user"}, 7, HELLO[1]]}),
        json.dumps({"id": "three"}),
        json.dumps({"id": [], "messages": HELLO}),
        json.dumps({"id": "four", "messages": [{"role": "user", "content": "\ud800"}, *HELLO]}),
        json.dumps({"id": "five", "messages": [{"role": "user", "content": "x" * 999}, *HELLO]}),
        json.dumps({"id": "six", "messages": HELLO}),
    ]
)


async def test_what_is_broken_says_where_and_the_rest_goes_on(service: SessionService) -> None:
    """Lines, messages, and what cannot be stored."""
    service._max_event_size = 900
    report = await imported(service, BROKEN, keep_going=True)
    assert report.sessions == 4
    for session_id in ("one", "two", "five", "six"):
        assert await texts(service, session_id) == ["Hello", "Hi"]
    assert report.left_out == 7
    told = "\n".join(map(str, report.problems))
    for place in (
        "line 2: ",
        "line 3, message 2: content must be",
        "line 3, message 3: it is no JSON object: 7",
        "line 4: it is neither a list of messages nor",
        "line 5: its id is neither a string nor a number",
        "line 6: ",
        "event 'message-1'",
    ):
        assert place in told


@pytest.mark.parametrize("lines", [2, 3])
async def test_a_broken_line_ends_an_import(service: SessionService, lines: int) -> None:
    """What comes before it is there, and what comes after it is not."""
    broken = BROKEN.splitlines()
    text = "\n".join([broken[0], broken[lines - 1], broken[-1]])
    with pytest.raises(SourceError, match="line 2"):
        await imported(service, text)
    assert await texts(service, "one") == ["Hello", "Hi"]
    assert await service.get_session(SessionKey("a", "u", "six")) is None


async def test_a_broken_first_line_is_told_as_such(service: SessionService) -> None:
    """It could be the beginning of a value that goes over many lines."""
    text = f"{{oops\n{json.dumps({'id': 's', 'messages': HELLO})}"
    with pytest.raises(SourceError, match="line 1: "):
        await imported(service, text)
    report = await imported(service, text, keep_going=True)
    assert (report.sessions, report.left_out) == (1, 1)


async def test_another_conversation_under_an_id_is_a_conflict(service: SessionService) -> None:
    """In one file or in two; a longer one is gone on with."""
    await imported(service, json.dumps({"id": "s", "messages": HELLO}))
    await imported(service, json.dumps({"id": "s", "messages": [*HELLO, *HELLO]}))
    assert len(await texts(service, "s")) == 4
    other = json.dumps({"id": "s", "messages": HELLO[::-1]})
    with pytest.raises(SessionConflictError, match="its event 1 is another one"):
        await imported(service, other)
    with pytest.raises(SessionConflictError, match="no session was to be there"):
        await imported(service, other, existing="refuse")
    assert (await imported(service, other, existing="skip")).found == 1
    report = await imported(service, other, existing="replace")
    assert (report.sessions, await texts(service, "s")) == (1, ["Hi", "Hello"])


@pytest.mark.parametrize("broken", [0, 1])
async def test_a_conversation_keeps_its_number_when_one_before_it_is_mended(
    service: SessionService, broken: int
) -> None:
    """Otherwise the next run would have it under two ids."""
    lines = [json.dumps([{"role": "user", "content": str(n)}]) for n in range(3)]
    wrong = [line[:-1] if n == broken else line for n, line in enumerate(lines)]
    report = await imported(service, "\ufeff\n" + "\n".join(wrong), keep_going=True)
    assert (report.sessions, report.left_out) == (2, 1)
    assert str(report.problems[0]).startswith(f"line {broken + 2}: ")
    report = await imported(service, "\n".join(lines))
    assert (report.sessions, report.found) == (1, 2)
    for number in range(3):
        assert await texts(service, f"conversation-{number + 1}") == [str(number)]


@pytest.mark.parametrize("existing", ["skip", "replace"])
async def test_two_conversations_do_not_take_one_place(
    service: SessionService, existing: Any
) -> None:
    """The second one under an id is a conflict, whatever becomes of what was there before."""
    lines = [json.dumps({"id": "s", "messages": each}) for each in (HELLO, HELLO[:1])]
    for _ in range(2):
        with pytest.raises(SessionConflictError, match="has brought another one"):
            await imported(service, "\n".join(lines), existing=existing)
        assert await texts(service, "s") == ["Hello", "Hi"]


async def test_who_takes_a_conversation_is_checked(service: SessionService) -> None:
    """A name alone, and a function that returns a user, say what they should have been."""
    file = io.BytesIO(json.dumps(HELLO).encode())
    wrong: Any = "ada"
    with pytest.raises(TypeError, match=r"to must be a UserKey, or a function .* not 'ada'"):
        await import_openai_chat(service, file, to=wrong)
    wrong = lambda _: OWNER  # noqa: E731 - as a newcomer writes it
    with pytest.raises(SourceError, match="to must return the SessionKey of session 'conver"):
        await import_openai_chat(service, file, to=wrong)


async def test_an_option_that_there_is_not_is_refused(service: SessionService) -> None:
    """A dry run that is misspelt must not write."""
    with pytest.raises(TypeError, match=r"no option 'dryrun'.*dry_run"):
        await imported(service, json.dumps(HELLO), dryrun=True)
    with pytest.raises(ValueError, match="existing must be one of"):
        await imported(service, json.dumps(HELLO), existing="overwrite")
    assert (await service.list_users("a")).users == []


async def test_a_dry_run_writes_nothing(service: SessionService) -> None:
    """It counts and names what a real one would."""
    nothing = await everything(service, "a")
    dry = await imported(service, BROKEN, keep_going=True, dry_run=True)
    assert await everything(service, "a") == nothing
    real = await imported(service, BROKEN, keep_going=True)
    assert (dry.sessions, dry.events, dry.kinds) == (real.sessions, real.events, real.kinds)
    assert dry.problems == real.problems


LONG = "\n".join(
    json.dumps(
        {
            "id": f"s{number}",
            "created_at": 1767323045 + number,
            "messages": [{"role": "user", "content": f"{number}.{each}"} for each in range(1200)],
        }
    )
    for number in range(3)
)


@pytest.mark.parametrize("calls", [0, 1, 3, 5, 8])
async def test_a_stopped_import_is_gone_on_with(
    service: SessionService, calls: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Wherever it was stopped, also within a session; nothing is there twice."""
    append = service.backend.append
    left = calls

    async def fails(*args: Any, **kwargs: Any) -> Any:
        nonlocal left
        if not left:
            msg = "test"
            raise BackendUnavailableError(msg, "it is gone")
        left -= 1
        return await append(*args, **kwargs)

    with monkeypatch.context() as patch:
        patch.setattr(service.backend, "append", fails)
        with pytest.raises(BackendUnavailableError):
            await imported(service, LONG)
    report = await imported(service, LONG)
    assert report.events + report.found_events == 3600
    assert report.found_events == calls // 3 * 1200 + (calls % 3) * 500
    for number in range(3):
        first = await texts(service, f"s{number}")
        assert first == [f"{number}.{each}" for each in range(len(first))]
        session = await service.get_session(SessionKey("a", "u", f"s{number}"), num_recent_events=0)
        assert session is not None
        assert session.last_seq == 1200


async def test_progress_is_told_after_each_session(service: SessionService) -> None:
    """With the counts so far."""
    seen: list[int] = []
    await imported(service, LONG, on_progress=lambda report: seen.append(report.events))
    assert seen == [1200, 2400, 3600]
