"""``python -m agentsession export`` and ``import``: their options, and what they tell."""

from __future__ import annotations

import argparse
import os
import sys
from contextlib import contextmanager
from pathlib import Path
from time import monotonic
from typing import TYPE_CHECKING, BinaryIO, Final, TextIO

from agentsession.errors import AgentSessionError, SessionNotFoundError
from agentsession.sessions import SessionKey, UserKey
from agentsession.stores import open_service
from agentsession.transfer import ExportReport, ImportReport, Problem, export_to, import_from
from agentsession.transfer._records import HEADER
from agentsession.transfer._source_command import check_sources, describe_sources, import_source
from agentsession.transfer.importers import SourceReport

if TYPE_CHECKING:
    from collections.abc import Generator, Iterator, Mapping

    from agentsession.service import SessionService
    from agentsession.stores import ServiceOptions
    from agentsession.transfer import Scope

__all__ = ["describe_export", "describe_import", "run_export", "run_import"]

_ENDS: Final = (
    "Exit code 0 if all went well, 1 if it came to its end and something could not be carried over "
    "as it is{}, 2 if it was stopped by an error."
)
# Between two words on how far it is, in seconds: on a terminal, and in a log.
_SOON: Final = 0.5
_LATER: Final = 10.0
# So many problems are shown.
_SHOWN: Final = 20


def describe_export(parser: argparse.ArgumentParser) -> None:
    """Add the options of ``export``."""
    parser.description = (
        "Writes sessions as lines of JSON: all of an application, of a user, or one. Each is as it "
        "was at one moment, whoever writes to it meanwhile. "
        + _ENDS.format(", or there was nothing to export")
    )
    _describe_both(parser, "the file to write, which must not exist; - for standard output")
    parser.add_argument("--app", required=True, metavar="NAME", help="the application")
    parser.add_argument("--user", metavar="ID", help="this user alone")
    parser.add_argument("--session", metavar="ID", help="this session of the user alone")
    parser.add_argument(
        "--resume", action="store_true", help="go on with a file that a stopped export has left"
    )


def describe_import(parser: argparse.ArgumentParser) -> None:
    """Add the options of ``import``."""
    parser.description = (
        "Imports what export has written. It may be stopped, and run again: nothing is there twice."
        " With the URL memory:// a file is only looked through. " + _ENDS.format("")
    )
    _describe_both(parser, "the file to read; - for standard input")
    parser.add_argument("--to-app", metavar="NAME", help="the application that takes all of it")
    parser.add_argument("--to-user", metavar="ID", help="the user who takes all of it")
    parser.add_argument(
        "--existing",
        choices=("continue", "skip", "replace", "refuse"),
        default="continue",
        help="what to do with a session that is there: go on if it is the beginning of this one, "
        "which is the default; leave it; delete it first; or stop",
    )
    parser.add_argument(
        "--keep-going",
        action="store_true",
        help="leave out what cannot be imported, and tell of it in the end",
    )
    parser.add_argument(
        "--event-limit",
        type=positive,
        metavar="N",
        help="keep at most this many events of a session; all by default",
    )
    for scope in ("session", "user-state", "app-state"):
        parser.add_argument(
            f"--{scope}-ttl",
            type=float,
            metavar="SECONDS",
            help="how long it lives after the last write to it; for ever by default, until the "
            "application writes to it",
        )
    for what in ("event", "value"):
        parser.add_argument(
            f"--max-{what}-size", type=positive, metavar="BYTES", help="as of the service"
        )
    describe_sources(parser)


def _describe_both(parser: argparse.ArgumentParser, file: str) -> None:
    parser.add_argument("url", metavar="URL", help="the store, as open_service() takes it")
    parser.add_argument("file", metavar="FILE", help=file)
    parser.add_argument(
        "--key-prefix", default="", metavar="PREFIX", help="that of the service, on Redis"
    )
    parser.add_argument(
        "--quiet", action="store_true", help="tell nothing but errors and what was not carried over"
    )


def positive(text: str) -> int:
    """Read a number from 1 on."""
    if not text.isdecimal() or int(text) < 1:
        msg = f"must be a number from 1 on, not {text!r}"
        raise argparse.ArgumentTypeError(msg)
    return int(text)


async def run_export(options: argparse.Namespace, out: TextIO) -> int:
    """Export, tell of it on a stream, and return the exit code."""
    told = _Told(out, "exported", quiet=options.quiet)
    try:
        service = open_service(options.url, key_prefix=options.key_prefix)
        if (missing := _missing_file(service)) is not None:
            msg = f"{missing}: there is no such file to export from; look at the URL"
            raise ValueError(msg)
        async with service:
            report = await _exported(options, service, told)
    except _NothingThereError as exc:
        told.failed(exc)
        return 1
    except (AgentSessionError, OSError, ValueError) as exc:
        return told.failed(exc)
    return told.done(report)


async def _exported(
    options: argparse.Namespace, service: SessionService, told: _Told
) -> ExportReport:
    scope = _scope(options)
    with _written(options.file, resume=options.resume) as file:
        # First, since an empty file, or a line in a pipe, would be taken for a backup.
        if not await _may_be_there(service, scope):
            raise _NothingThereError(scope)
        try:
            return await export_to(
                service, scope, file, resume=options.resume, on_progress=told.progress
            )
        except SessionNotFoundError as exc:
            raise _NothingThereError(scope) from exc


async def _may_be_there(service: SessionService, scope: Scope) -> bool:
    """Tell whether an application or a user has anything; of a session its export tells."""
    match scope:
        case SessionKey():
            return True
        case UserKey():
            listed = await service.backend.list_sessions(scope, 1, None)
            found = listed.sessions or listed.unreadable or listed.next
            return bool(found or await service.backend.get_user_state(scope))
        case _:
            page = await service.list_users(scope, limit=1)
            return bool(page.users or await service.backend.get_app_state(scope))


def _missing_file(service: SessionService) -> Path | None:
    """Return the file of a store in a file, if it is not there; the first call would make it."""
    path: Path | None = getattr(service.backend, "path", None)
    return None if path is None or path.exists() else path


async def run_import(options: argparse.Namespace, out: TextIO) -> int:
    """Import, tell of it on a stream, and return the exit code."""
    told = _Told(out, "read" if options.dry_run else "imported", quiet=options.quiet)
    try:
        check_sources(options)
        service = open_service(options.url, **_taking(options))
        if options.dry_run and _missing_file(service) is not None:
            # As empty as the file would be, which is not made.
            service = open_service("memory://", **_taking(options))
        async with service:
            report = await _imported(options, service, told)
    except (AgentSessionError, OSError, ValueError) as exc:
        return told.failed(exc)
    return told.done(report)


async def _imported(
    options: argparse.Namespace, service: SessionService, told: _Told
) -> ImportReport:
    if options.source is not None:
        return await import_source(options, service, told.progress, _read)
    with _read(options.file) as file:
        return await import_from(
            service,
            file,
            to_app=options.to_app,
            to_user=options.to_user,
            existing=options.existing,
            keep_going=options.keep_going,
            on_progress=told.progress,
        )


def _scope(options: argparse.Namespace) -> Scope:
    if options.session is not None and options.user is None:
        msg = "--session needs --user, whose session it is"
        raise ValueError(msg)
    if options.session is not None:
        return SessionKey(options.app, options.user, options.session)
    return options.app if options.user is None else UserKey(options.app, options.user)


def _taking(options: argparse.Namespace) -> ServiceOptions:
    """Return the options of the service that takes an import."""
    taking: ServiceOptions = {
        "key_prefix": options.key_prefix,
        "session_event_limit": options.event_limit,
        "session_ttl": options.session_ttl,
        "user_state_ttl": options.user_state_ttl,
        "app_state_ttl": options.app_state_ttl,
    }
    if options.max_event_size is not None:
        taking["max_event_size"] = options.max_event_size
        taking["max_read_size"] = None
    if options.max_value_size is not None:
        taking["max_value_size"] = options.max_value_size
    return taking


@contextmanager
def _written(name: str, *, resume: bool) -> Generator[BinaryIO]:
    """Open the file to write."""
    if name == "-":
        if resume:
            msg = "an export to standard output cannot be resumed"
            raise ValueError(msg)
        yield sys.stdout.buffer
        return
    path = Path(name)
    if path.is_dir():
        msg = f"{name} is a directory, not a file to write"
        raise ValueError(msg)
    if path.exists() and not resume:
        msg = f"{name} exists already; --resume goes on with it"
        raise ValueError(msg)
    if path.exists():
        with path.open("r+b") as file:
            yield file
        return
    with path.open("x+b") as file:
        try:
            yield file
        except BaseException:
            if file.seek(0, os.SEEK_END) <= len(HEADER):
                path.unlink()  # Nothing in it is worth going on with.
            raise


@contextmanager
def _read(name: str) -> Generator[BinaryIO]:
    """Open the file to read."""
    if name == "-":
        # Not buffered, so that to wait for more may be cancelled.
        with open(sys.stdin.fileno(), "rb", buffering=0, closefd=False) as file:
            yield file
        return
    with Path(name).open("rb") as file:
        yield file


class _NothingThereError(Exception):
    """There is nothing to export, most likely since something is misspelt."""

    def __init__(self, scope: Scope) -> None:
        super().__init__(scope)
        self.scope = scope

    def __str__(self) -> str:
        options = ["--app", "--user", "--session"]
        match self.scope:
            case SessionKey():
                pass
            case UserKey():
                del options[2:]
            case _:
                del options[1:]
        named = ", ".join(options)
        reason = f"there is nothing to export; look at {named}, --key-prefix and the URL"
        return str(Problem(reason, self.scope))


class _Told:
    """Tells how far it is, and what came of it.

    Args:
        out: Where.
        verb: What is done.
        quiet: Whether to tell of problems alone.
    """

    def __init__(self, out: TextIO, verb: str, *, quiet: bool) -> None:
        self._out = out
        self._verb = verb
        self._quiet = quiet
        self._interval = _SOON if out.isatty() else _LATER
        self._last = monotonic()

    def progress(self, report: ExportReport | ImportReport) -> None:
        """Tell how far it is, if that was not told just now."""
        if self._quiet or monotonic() - self._last < self._interval:
            return
        self._last = monotonic()
        text = f"{self._verb} so far: {_counted(report)}"
        self._out.write(f"\r{text}\x1b[K" if self._out.isatty() else f"{text}\n")
        self._out.flush()

    def done(self, report: ExportReport | ImportReport) -> int:
        """Tell what came of it; return the exit code."""
        if self._out.isatty():
            self._out.write("\r\x1b[K")
        for problem in report.problems[:_SHOWN]:
            self._out.write(f"{problem}\n")
        if report.problem_count > _SHOWN:
            self._out.write(f"... and {report.problem_count - _SHOWN:,} more\n")
        if not self._quiet:
            self._out.write(f"{self._verb}: {_counted(report)}\n")
            if isinstance(report, SourceReport):
                self._out.write("".join(f"{line}\n" for line in _told_of_source(report)))
        return 1 if report.problem_count else 0

    def failed(self, exc: Exception) -> int:
        """Tell what has stopped it; return the exit code."""
        told = ". ".join([str(exc), *getattr(exc, "__notes__", ())])
        self._out.write(f"error: {told}\n")
        return 2


def _counted(report: ExportReport | ImportReport) -> str:
    """Word the counts that are not 0."""
    counts = {
        "sessions": report.sessions,
        "events": report.events,
        "users with state": report.users,
        "applications with state": report.apps,
        "unreadable": report.unreadable,
    }
    if isinstance(report, ExportReport):
        counts["sessions that were in the file"] = report.skipped
    else:
        counts |= {
            "sessions that were there": report.found,
            "events that were there": report.found_events,
            "events over the limit": report.trimmed,
            "values of state that were left": report.kept,
            "lines that were left out": report.skipped_lines,
        }
    if isinstance(report, SourceReport):
        counts["entries that were left out"] = report.left_out
    return _listed(counts) or "nothing"


def _told_of_source(report: SourceReport) -> Iterator[str]:
    """Word what a source held, and what of it has no place here."""
    for what, counts in (("events hold", report.kinds), ("not imported", report.unmapped)):
        if counts:
            yield f"{what}: {_listed(counts)}"
    if report.first_expiry is not None and report.last_expiry is not None:
        first, last = (
            f"{each:%Y-%m-%d %H:%M:%S}" for each in (report.first_expiry, report.last_expiry)
        )
        yield (
            f"{report.expiring:,} sessions and states were to expire there between {first} and "
            f"{last} UTC; here they live as --session-ttl and the like say"
        )


def _listed(counts: Mapping[str, int]) -> str:
    return ", ".join(f"{count:,} {what}" for what, count in counts.items() if count)
