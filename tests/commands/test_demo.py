"""The demo: it finds what is wrong when something is, and says how it went."""

from __future__ import annotations

import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import msgspec
import pytest

from agentsession import InMemorySessionService, SessionKey, SessionService
from agentsession.__main__ import main
from agentsession.backend import (
    ANYTHING,
    Entry,
    EventSlice,
    Expected,
    Receipt,
    Snapshot,
    Standing,
    Then,
    Window,
)
from agentsession.blocking import open_service
from agentsession.demo import SHIPPED_CONVERSATIONS
from agentsession.demo import _player as player
from agentsession.demo._conversations import (
    DataError,
    Message,
    from_event,
    read_conversations,
    to_event,
)
from agentsession.demo._player import Report, replay
from agentsession.events import Data, Event
from agentsession.memory import MemoryBackend
from agentsession.retention import Retention


async def replayed(backend: MemoryBackend) -> Report:
    conversations = read_conversations(SHIPPED_CONVERSATIONS, 3)
    services = [SessionService(backend), SessionService(backend)]
    return await replay(conversations, services, services[0], lambda: None)


class Forgetful(MemoryBackend):
    """Loses the fifth event of every session, and says that it was stored."""

    async def append(
        self,
        key: SessionKey,
        entries: Sequence[Entry],
        *,
        expected: Expected = ANYTHING,
        then: Then = "keep",
    ) -> Receipt:
        receipt = await super().append(key, entries, expected=expected, then=then)
        if receipt.last_seq == 5:
            log = self._users.get_or_add(key.user).sessions[key.session_id].log
            log._payloads[-1] = log._payloads[-2]
        return receipt


class Swapping(MemoryBackend):
    """Reads two events in the wrong order."""

    async def get(self, key: SessionKey, window: Window) -> Snapshot | None:
        snapshot = await super().get(key, window)
        if snapshot is None or len(snapshot.events) < 4:
            return snapshot
        first, second, third, *rest = snapshot.events
        return msgspec.structs.replace(snapshot, events=[first, third, second, *rest])


class Blind(MemoryBackend):
    """Finds no session again, once no turn runs."""

    turns = 0

    async def acquire(self, *args: Any, **options: Any) -> Standing:
        self.turns += 1
        return await super().acquire(*args, **options)

    async def get(self, key: SessionKey, window: Window) -> Snapshot | None:
        return await super().get(key, window) if self.turns else None

    async def append(self, *args: Any, **options: Any) -> Receipt:
        self.turns -= options.get("then") == "end"
        return await super().append(*args, **options)

    async def read(self, key: SessionKey, **_: object) -> EventSlice:
        return EventSlice([], [], "")


@pytest.mark.parametrize(
    ("backend", "place"), [(Forgetful, "message 5"), (Swapping, "message 2"), (Blind, "session")]
)
async def test_a_wrong_backend_is_found_out(backend: type[MemoryBackend], place: str) -> None:
    """A backend that loses, swaps or does not find is reported, with the place."""
    report = await replayed(backend(Retention()))
    assert place in {each.place for each in report.differences}


async def test_a_right_backend_shows_no_difference() -> None:
    """All that was recorded is counted and comes back."""
    async with InMemorySessionService() as service:
        backend = service.backend
        assert isinstance(backend, MemoryBackend)
        report = await replayed(backend)
    assert report.differences == []
    recorded = read_conversations(SHIPPED_CONVERSATIONS, 3)
    assert report.events == sum(len(each.messages) for each in recorded)
    assert report.turns == sum(
        message.role == "user" for each in recorded for message in each.messages
    )
    assert report.tool_calls > 0
    assert report.chunks > 0


def test_every_shipped_message_survives_being_an_event() -> None:
    """To an event and back changes no message of the shipped conversations."""
    for conversation in read_conversations(SHIPPED_CONVERSATIONS):
        for message in conversation.messages:
            assert from_event(to_event(message)) == message
    unusual = Message("assistant", None, None)
    assert from_event(to_event(unusual)) == unusual
    assert from_event(Event(author="assistant", content=[Data(1)])) == unusual


def test_the_command_shows_a_table(valkey_url: str, capsys: pytest.CaptureFixture[str]) -> None:
    """On a server by URL it ends with a table, exit code 0, and nothing left on the server."""
    assert main(["demo", "--redis", valkey_url, "--conversations", "2"]) == 0
    shown = capsys.readouterr().out
    for word in (
        "conversations",
        "tool calls",
        "appends per second",
        "differences",
        "on the server",
    ):
        assert word in shown


@pytest.mark.parametrize(
    ("store", "name"), [("sqlite", "in a file"), ("sqlite:///{folder}/a%20b.db", "in the file")]
)
def test_the_command_replays_in_a_file(
    store: str,
    name: str,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A temporary one that is gone afterwards, or one that is named, where nothing is left."""
    (tmp_path / "temporary").mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "temporary"))
    url = store.format(folder=tmp_path)
    for _ in range(2):
        assert main(["demo", "--store", url, "--conversations", "2"]) == 0
        shown = capsys.readouterr().out
        assert name in shown
        assert "differences" in shown
    assert list((tmp_path / "temporary").iterdir()) == []
    if url == store:
        return
    with open_service(url) as service:
        assert service.list_users(player.APP_NAME).users == []


def test_a_demo_that_was_killed_is_no_hindrance(tmp_path: Path) -> None:
    """What it left in a file is in nobody's way."""
    url = f"sqlite:///{tmp_path}/sessions.db"
    (first,) = read_conversations(SHIPPED_CONVERSATIONS, 1)
    with open_service(url) as service:
        service.create_session(player._key(first), {"turns": 7, "user:answered": 7})
    assert main(["demo", "--store", url, "--conversations", "1"]) == 0


@pytest.mark.parametrize(
    ("store", "says"),
    [
        ("memory://", "--store names another store"),
        ("sqlite://", "the path is missing"),
        ("sqlite:///{folder}", "is a folder"),
        ("sqlite:///{folder}/missing/a.db", "check that the folder is there"),
        ("valkey", "it must begin with one of memory://, sqlite://"),
    ],
)
def test_a_store_that_cannot_be_used_is_told(
    store: str, says: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """In one line, with exit code 2."""
    url = store.format(folder=tmp_path)
    assert main(["demo", "--store", url, "--conversations", "1"]) == 2
    shown = capsys.readouterr().out
    assert says in shown
    assert "Traceback" not in shown


def test_the_command_runs_as_a_module() -> None:
    """``python -m agentsession demo`` works; without a command it says how."""
    command = [sys.executable, "-m", "agentsession"]
    done = subprocess.run(
        [*command, "demo", "--conversations", "1"], capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    assert "on embedded Valkey" in done.stdout
    assert subprocess.run(command, capture_output=True).returncode == 2


def test_differences_end_with_one(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Any difference is shown with what was expected and found, and the exit code is 1."""
    monkeypatch.setattr(player, "from_event", lambda event: Message("user", "wrong"))
    assert main(["demo", "--conversations", "3"]) == 1
    shown = capsys.readouterr().out
    assert "expected" in shown
    assert "found" in shown
    assert "more" in shown


@pytest.mark.parametrize(
    ("text", "match"),
    [
        ("", "no conversations"),
        ('{"conversation_id": "x", "messages": []}\n{"conversation_id"', "line 2"),
        ('{"conversation_id": "x", "messages": [{"role": "robot"}]}', "robot"),
        ('{"conversation_id": "x", "messages": [{"role": "user", "audio": 1}]}', "audio"),
    ],
)
def test_a_bad_file_is_told(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], text: str, match: str
) -> None:
    """A file that cannot be read ends with 2 and the place; so does one that is not there."""
    path = tmp_path / "data.jsonl"
    with pytest.raises(DataError, match="No such file"):
        read_conversations(path)
    path.write_text(text)
    assert main(["demo", "--data", str(path)]) == 2
    assert match in capsys.readouterr().out.replace("\n", "")


def test_a_server_that_is_not_there_is_told(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A wrong URL ends with 2 and a message, not with a traceback."""
    assert main(["demo", "--redis", f"unix://{tmp_path}/no", "--conversations", "1"]) == 2
    assert "cannot be reached" in capsys.readouterr().out.replace("\n", " ")
    assert main(["demo", "--redis", "localhost", "--conversations", "1"]) == 2
    with pytest.raises(SystemExit):
        main(["demo", "--conversations", "0"])


@pytest.mark.parametrize(("given", "hinted"), [("sqlite", True), ("--stores=x", False)])
def test_a_store_without_its_option_is_told_what_it_is(
    given: str, hinted: bool, capsys: pytest.CaptureFixture[str]
) -> None:
    """Export and import take theirs by its place."""
    with pytest.raises(SystemExit):
        main(["demo", given])
    assert ("its store is given by --store" in capsys.readouterr().err) is hinted


def test_a_missing_extra_is_told(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without the extra the command says what to install."""
    for name in [name for name in sys.modules if name.startswith(("agentsession.demo", "rich"))]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.delattr("agentsession.demo")
    monkeypatch.setitem(sys.modules, "rich", None)
    assert main(["demo"]) == 2
    assert "agentsession[demo]" in capsys.readouterr().err
