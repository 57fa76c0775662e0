"""``python -m agentsession export`` and ``import``: between stores, stopped, and what they tell."""

from __future__ import annotations

import asyncio
import io
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from agentsession import Event, RedisSessionService, SessionKey, UserKey
from agentsession.__main__ import main
from agentsession.blocking import open_service
from agentsession.events import new_id
from agentsession.transfer import _command

APP = "shop"
COMMAND = [sys.executable, "-m", "agentsession"]
EVENTS = 100


class Place:
    """A part of a server.

    Args:
        url: The server.
    """

    def __init__(self, url: str) -> None:
        self.url = url
        self.prefix = f"test-{new_id()}:"

    def words(self, command: str, file: Path | str, *words: str) -> list[str]:
        scope = ["--app", APP] if command == "export" else []
        return [command, self.url, str(file), *scope, "--key-prefix", self.prefix, *words]

    def service(self) -> RedisSessionService:
        return RedisSessionService(url=self.url, key_prefix=self.prefix)

    def fill(self, sessions: int, events: int = 3) -> None:
        async def fill() -> None:
            async with self.service() as service:
                for number in range(sessions):
                    key = SessionKey(APP, f"user {number % 3}", f"session {number}")
                    await service.create_session(key, {"n": number, "app:n": 1, "user:n": 1})
                    said = [Event(author="user", content=f"{n}") for n in range(events)]
                    await service.append_events(key, said)

        asyncio.run(fill())

    def count(self) -> int:
        """Count the sessions that have events."""

        async def count() -> int:
            async with self.service() as service:
                page = await service.list_sessions(APP, limit=1000)
                return sum(session.last_seq > 0 for session in page.sessions)

        return asyncio.run(count())


@pytest.fixture
def here(valkey_url: str) -> Place:
    return Place(valkey_url)


@pytest.fixture
def there(valkey_url: str) -> Place:
    return Place(valkey_url)


def killed(words: list[str], when: Callable[[], bool]) -> None:
    """Run the command, and kill it when it is time; it must not have come to its end."""
    process = subprocess.Popen([*COMMAND, *words], stderr=subprocess.PIPE)
    deadline = time.monotonic() + 30
    while not when() and time.monotonic() < deadline:
        assert process.poll() is None, process.stderr
    process.send_signal(signal.SIGKILL)
    process.communicate()
    assert process.returncode == -signal.SIGKILL


def test_sessions_move_from_place_to_place(
    here: Place, there: Place, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Out of one, into another, out of that: the same file; a second import finds all of it."""
    here.fill(5)
    first, second = tmp_path / "first", tmp_path / "second"
    assert main(here.words("export", first)) == 0
    told = capsys.readouterr().err
    counts = "5 sessions, 15 events, 3 users with state, 1 applications with state"
    assert told == f"exported: {counts}\n"
    assert main(there.words("import", first)) == 0
    assert capsys.readouterr().err == told.replace("exported", "imported")
    assert main(there.words("export", second, "--quiet")) == 0
    assert capsys.readouterr() == ("", "")
    assert second.read_bytes() == first.read_bytes()
    assert main(there.words("import", first)) == 0
    assert "5 sessions that were there, 15 events that were there" in capsys.readouterr().err


def test_sessions_move_between_files_and_servers(
    here: Place, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A server, a file, a copy of that, by URLs alone: the same bytes all the way."""
    here.fill(5)
    urls = [f"sqlite:///{tmp_path}/{name}.db" for name in ("one", "two")]
    files = [tmp_path / f"{number}" for number in range(3)]
    assert main(here.words("export", files[0])) == 0
    for url, read, written in zip(urls, files, files[1:], strict=False):
        assert main(["import", url, str(read)]) == 0
        assert main(["export", url, str(written), "--app", APP]) == 0
        assert written.read_bytes() == files[0].read_bytes()
    assert "imported: 5 sessions, 15 events" in capsys.readouterr().err
    assert main(["import", urls[0], str(files[0])]) == 0
    assert "5 sessions that were there, 15 events that were there" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("url", "says"),
    [
        ("sqlite://sessions.db", "error: the URL of a file is sqlite:/// and its path, as in"),
        ("sqlite:///", "error: the URL of a file is sqlite:/// and its path, as in"),
        ("sqlite:///{folder}", "' is a folder\n"),
        ("sqlite:///{folder}/missing/a.db", "/missing/a.db"),
        ("sqlite:///{folder}/file", "/file: file is not a database; it is no database of SQLite"),
        ("{folder}/sessions.db", "it must begin with one of memory://, sqlite://"),
    ],
)
@pytest.mark.parametrize("command", ["export", "import"])
def test_a_wrong_url_of_a_file_is_told(
    command: str, url: str, says: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """In one line, with exit code 2."""
    (tmp_path / "file").write_text('{"format":"agentsession","version":1}\n' * 9)
    good = f"sqlite:///{tmp_path}/good.db"
    with open_service(good) as service:
        service.create_session(SessionKey(APP, "ada", "s"))
    assert main(["export", good, str(tmp_path / "lines"), "--app", APP, "--quiet"]) == 0
    scope = ["out", "--app", APP] if command == "export" else ["lines"]
    file = str(tmp_path / scope[0])
    assert main([command, url.format(folder=tmp_path), file, *scope[1:]]) == 2
    told = capsys.readouterr().err
    assert says in told
    assert told.count("\n") == 1


def test_an_import_that_was_killed_is_gone_on_with(
    here: Place, there: Place, tmp_path: Path
) -> None:
    """The process is gone in the middle of it; the next run makes what one would have made."""
    here.fill(200, EVENTS)
    first, second = tmp_path / "first", tmp_path / "second"
    assert main(here.words("export", first)) == 0
    killed(there.words("import", first), lambda: there.count() > 20)
    assert 20 < there.count() < 200
    assert main(there.words("import", first)) == 0
    assert main(there.words("export", second)) == 0
    assert second.read_bytes() == first.read_bytes()


def test_an_export_that_was_killed_is_gone_on_with(here: Place, tmp_path: Path) -> None:
    """With --resume, which makes the file that one run would have made."""
    here.fill(200, EVENTS)
    first, second = tmp_path / "first", tmp_path / "second"
    assert main(here.words("export", first)) == 0
    size = first.stat().st_size
    killed(here.words("export", second), lambda: second.exists() and second.stat().st_size > 0)
    assert 0 < second.stat().st_size < size
    assert main(here.words("export", second, "--resume")) == 0
    assert second.read_bytes() == first.read_bytes()


def test_a_pipe_takes_it_over(here: Place, there: Place) -> None:
    """Standard output and input are files, too."""
    here.fill(3)
    exporting = subprocess.run(
        [*COMMAND, *here.words("export", "-", "--quiet")], capture_output=True, check=True
    )
    assert exporting.stdout.endswith(b'{"kind":"complete"}\n')
    subprocess.run([*COMMAND, *there.words("import", "-")], input=exporting.stdout, check=True)
    assert there.count() == 3


def test_a_conversation_is_given_to_another_user(here: Place, there: Place, tmp_path: Path) -> None:
    """One session, with the user and the application that take it."""
    here.fill(4)
    file = tmp_path / "file"
    scope = ["--user", "user 0", "--session", "session 3"]
    assert main(here.words("export", file, *scope)) == 0
    assert main(there.words("import", file, "--to-user", "friend", "--to-app", "other")) == 0

    async def given() -> list[str]:
        async with there.service() as service:
            page = await service.list_sessions(UserKey("other", "friend"))
            return [session.id for session in page.sessions]

    assert asyncio.run(given()) == ["session 3"]
    assert there.count() == 0


def test_what_is_kept_is_for_the_caller_to_say(
    here: Place, there: Place, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A limit of events, which is told of, times to live, and sizes."""
    here.fill(1, events=10)
    file = tmp_path / "file"
    assert main(here.words("export", file)) == 0
    assert main(there.words("import", file, "--max-event-size", "50")) == 2
    assert "max_event_size" in capsys.readouterr().err
    assert main(there.words("import", file, "--max-value-size", "1", "--existing", "replace")) == 0
    kept = ["--event-limit", "4", "--session-ttl", "60", "--user-state-ttl", "60"]
    kept += ["--app-state-ttl", "60", "--existing", "replace"]
    assert main(there.words("import", file, *kept)) == 0
    assert "6 events over the limit" in capsys.readouterr().err


def test_what_cannot_be_imported_is_told(
    here: Place, there: Place, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The line, and exit code 2; to keep going tells of it in the end, with exit code 1."""
    here.fill(30)
    file = tmp_path / "file"
    assert main(here.words("export", file)) == 0
    capsys.readouterr()
    lines = [
        line.replace(b'"seq":2', b'"seq":9') for line in file.read_bytes().splitlines(keepends=True)
    ]
    file.write_bytes(b"".join(lines))
    assert main(there.words("import", file)) == 2
    told = capsys.readouterr().err
    assert told.startswith("error: line 6: session 'session 0', app 'shop', user 'user 0': event 2")
    assert main(there.words("import", file, "--keep-going")) == 1
    told = capsys.readouterr().err
    assert told.count("event 2 is missing") == 20
    assert "... and 10 more\n" in told
    assert "lines that were left out" in told
    assert main(there.words("import", file, "--keep-going", "--quiet")) == 1
    assert "event 2 is missing" in capsys.readouterr().err


def test_another_session_is_told_with_its_line(
    here: Place, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Which one is there, and what to do."""
    here.fill(1)
    file = tmp_path / "file"
    assert main(here.words("export", file)) == 0
    assert main(here.words("import", file, "--existing", "refuse")) == 2
    told = capsys.readouterr().err
    assert "session 'session 0'" in told
    assert told.endswith("import under another user or application. This was line 4.\n")


def test_a_file_is_looked_through(
    here: Place, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """In this process's memory: every line is read, and nothing is written anywhere."""
    here.fill(2)
    file = tmp_path / "file"
    assert main(here.words("export", file)) == 0
    assert main(["import", "memory://", str(file)]) == 0
    assert "imported: 2 sessions, 6 events" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("words", "match"),
    [
        (["export", "memory://", "file", "--app", "a", "--session", "s"], "--session needs --user"),
        (["export", "memory://", "there", "--app", "a"], "exists already; --resume"),
        (["export", "memory://", ".", "--app", "a"], ". is a directory"),
        (["export", "memory://", ".", "--app", "a", "--resume"], ". is a directory"),
        (["export", "memory://", "-", "--app", "a", "--resume"], "cannot be resumed"),
        (["export", "sqlite:///no.db", "file", "--app", "a"], "no.db: there is no such file"),
        (["export", "nowhere://", "file", "--app", "a"], "no store"),
        (["export", "memory://", "no/such/file", "--app", "a"], "No such file"),
        (["import", "memory://", "file"], "No such file"),
        (["import", "memory://", "there"], "this is no export"),
        (["import", "unix://no.sock", "there"], "this is no export"),
        (["export", "unix://no.sock", "file", "--app", "a"], "cannot be reached"),
    ],
)
def test_mistakes_are_told(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    words: list[str],
    match: str,
) -> None:
    """One line that says what is wrong, exit code 2, no traceback."""
    monkeypatch.chdir(tmp_path)
    Path("there").write_text("something else\n")
    assert main(words) == 2
    told = capsys.readouterr().err
    assert told.startswith("error: ")
    assert match in told
    assert Path("there").read_text() == "something else\n"
    assert [each.name for each in tmp_path.iterdir()] == ["there"]


def test_the_commands_describe_themselves(capsys: pytest.CaptureFixture[str]) -> None:
    """With the exit codes."""
    for command in ("export", "import"):
        with pytest.raises(SystemExit):
            main([command, "--help"])
        assert "Exit code 0" in " ".join(capsys.readouterr().out.split())


def test_a_stop_by_hand_shows_no_traceback(
    here: Place, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The exit code is that of a process that was interrupted."""

    async def interrupted(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(_command, "export_to", interrupted)
    here.fill(1)
    assert main(here.words("export", "-")) == 130
    assert capsys.readouterr().err == "stopped\n"


@pytest.mark.parametrize("source", [[], ["--from", "openai-chat", "--to-app", APP, "--to-user=u"]])
def test_an_import_that_waits_for_its_input_is_stopped_by_hand(
    here: Place, there: Place, source: list[str]
) -> None:
    """At once, though nothing more has come; what was imported by then is gone on with."""
    data = b'{"messages":[{"role":"user","content":"1"}]}\n' * 3
    if not source:
        here.fill(3)
        export = [*COMMAND, *here.words("export", "-", "--quiet")]
        data = subprocess.run(export, capture_output=True, check=True).stdout
    words = [*COMMAND, *there.words("import", "-", *source)]
    process = subprocess.Popen(words, stdin=subprocess.PIPE, stderr=subprocess.PIPE)
    assert process.stdin is not None
    process.stdin.write(data.removesuffix(b'{"kind":"complete"}\n'))
    process.stdin.flush()
    deadline = time.monotonic() + 30
    while there.count() < 3 and time.monotonic() < deadline:
        assert process.poll() is None
    process.send_signal(signal.SIGINT)
    assert process.wait(30) == 130  # Its input is open still.
    assert process.communicate()[1] == b"stopped\n"
    done = subprocess.run(words, input=data, capture_output=True, check=True)
    assert b"3 sessions that were there" in done.stderr


def test_an_export_that_brings_nothing_leaves_no_file(here: Place, tmp_path: Path) -> None:
    """So the next one need not go on with it; a file that was there stays as it is."""
    here.fill(1)
    file = tmp_path / "file"
    missing = ["--user", "user 0", "--session", "missing"]
    for words in ([], ["--resume"]):
        assert main(here.words("export", file, *missing, *words)) == 1
        assert not file.exists()
    assert main(["export", "unix://no.sock", str(file), "--app", APP]) == 2
    assert not file.exists()
    file.touch()
    assert main(here.words("export", file, *missing, "--resume")) == 1
    assert file.exists()
    file.unlink()
    assert main(here.words("export", file)) == 0


@pytest.mark.parametrize("in_a_file", [False, True])
@pytest.mark.parametrize(
    ("scope", "says"),
    [
        (["--app", "shpo"], "app 'shpo': there is nothing to export; look at --app, --key-prefix"),
        (["--user", "user 7"], "user 'user 7': there is nothing to export; look at --app, --user,"),
        (["--user", "user 0", "--session", "x"], "; look at --app, --user, --session, --key"),
    ],
)
def test_an_export_of_what_is_not_there_fails(
    scope: list[str],
    says: str,
    in_a_file: bool,
    here: Place,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """A backup with a misspelt name saves nothing, and must not look like one."""
    here.fill(1)
    file, lines = tmp_path / "file", tmp_path / "lines"
    assert main(here.words("export", lines)) == 0
    words = here.words("export", file, *scope, "--quiet")
    if in_a_file:
        words[1] = f"sqlite:///{tmp_path}/sessions.db"
        assert main(["import", words[1], str(lines)]) == 0
    for name in (str(file), "-"):
        capsys.readouterr()
        assert main([*words[:2], name, *words[3:]]) == 1
        told, error = capsys.readouterr()
        assert '"complete"' not in told
        assert error.startswith("error: ")
        assert says in error
        assert error.count("\n") == 1
    assert not file.exists()


@pytest.mark.parametrize(
    ("state", "scope"),
    [
        ({"app:a": 1}, ["--app", "state"]),
        ({"user:a": 1}, ["--app", "state", "--user", "u"]),
        ({}, ["--app", "state", "--user", "u"]),
    ],
)
def test_what_has_state_or_sessions_alone_is_there(
    state: dict[str, int], scope: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Also to an export that goes on, and has nothing left to do."""
    url = f"sqlite:///{tmp_path}/sessions.db"
    with open_service(url) as service:
        key = SessionKey("state", "u", "s")
        service.create_session(key, state)
        if state:
            service.delete_session(key)
    for more in ([], ["--resume"]):
        assert main(["export", url, str(tmp_path / "file"), *scope, *more]) == 0
    assert "exported: 1 " in capsys.readouterr().err


def test_limits_are_numbers(capsys: pytest.CaptureFixture[str]) -> None:
    """From 1 on."""
    with pytest.raises(SystemExit):
        main(["import", "memory://", "file", "--event-limit", "0"])
    assert "from 1 on" in capsys.readouterr().err


class Terminal(io.StringIO):
    """A stream that is a terminal."""

    def isatty(self) -> bool:
        return True


@pytest.mark.parametrize("out", [Terminal(), io.StringIO()])
def test_it_tells_how_far_it_is(
    out: io.StringIO, here: Place, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """On a terminal in one line that changes, else in lines; and nothing of it to be quiet."""

    for name in ("_SOON", "_LATER"):
        monkeypatch.setattr(_command, name, 0.0)
    monkeypatch.setattr(sys, "stderr", out)
    here.fill(2)
    assert main(here.words("export", tmp_path / "file")) == 0
    assert main(here.words("export", tmp_path / "quiet", "--quiet")) == 0
    beginning = "\r" if out.isatty() else ""
    assert f"{beginning}exported so far: 1 sessions, 3 events" in out.getvalue()
    assert out.getvalue().count("exported: 2 sessions") == 1
