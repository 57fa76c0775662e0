"""Sessions out of a store and into another: all of an application, of a user, or one.

What is exported is lines of JSON, the same whatever store they come from::

    with open("shop.jsonl", "wb") as file:
        await export_to(service, "shop", file)

    with open("shop.jsonl", "rb") as file:
        report = await import_from(another_service, file)

``python -m agentsession export`` and ``import`` do the same.
"""

from __future__ import annotations

from contextlib import aclosing
from typing import TYPE_CHECKING, BinaryIO

from agentsession.transfer._arguments import check_file, check_lines, check_service
from agentsession.transfer._exporting import Exporter, Scope
from agentsession.transfer._files import Output, go_on_with, lines_of
from agentsession.transfer._importing import Existing, Importer
from agentsession.transfer._reports import (
    ExportReport,
    FormatError,
    ImportReport,
    LineError,
    Problem,
    SessionConflictError,
    Subject,
)

if TYPE_CHECKING:
    from collections.abc import AsyncIterable, AsyncIterator, Callable

    from agentsession.service import SessionService

__all__ = [
    "Existing",
    "ExportReport",
    "FormatError",
    "ImportReport",
    "LineError",
    "Problem",
    "Scope",
    "SessionConflictError",
    "Subject",
    "export_lines",
    "export_to",
    "import_from",
    "import_lines",
]


def export_lines(
    service: SessionService, scope: Scope, report: ExportReport | None = None
) -> AsyncIterator[bytes]:
    """Export, and yield pieces of whole lines, as :func:`export_to` writes them.

    Args:
        service: Whose sessions.
        scope: What to export.
        report: Counts, while the pieces are read.

    Raises:
        TypeError: *service* is no :class:`~agentsession.SessionService`.
        SessionNotFoundError: The scope is a session that does not exist.
    """
    check_service(service)
    return Exporter(service, ExportReport() if report is None else report).lines(scope)


async def export_to(
    service: SessionService,
    scope: Scope,
    file: BinaryIO,
    *,
    resume: bool = False,
    on_progress: Callable[[ExportReport], None] | None = None,
) -> ExportReport:
    """Write sessions to a file.

    Each session is as it was at one moment, whoever writes to it meanwhile. A session that is made
    or deleted meanwhile may be there or not. Sessions of a user come in the order of their last
    activity, those first that were written to longest ago.

    It takes some megabytes, and the ids of one user's sessions at a time; what the state of a
    session was, of which there is much in a long log, waits in a temporary file.

    Args:
        service: Whose sessions.
        scope: The name of an application, for all of it; a :class:`~agentsession.UserKey`, for the
            user's sessions and state; or a :class:`~agentsession.SessionKey`, for a session alone.
        file: A file that is open for writing bytes. It is read and written in a thread.
        resume: Whether *file* holds the beginning of an export of the same scope, from a run that
            was stopped. It is open for reading, too; what is whole in it stays, and is not exported
            again.
        on_progress: Is called now and then with the counts so far, which it does not keep.

    Returns:
        What was exported by this call.

    Raises:
        TypeError: *service* is no :class:`~agentsession.SessionService`, or *file* is not open for
            bytes.
        SessionNotFoundError: The scope is a session that does not exist.
        FormatError: The file to go on with is no export.
        OSError: The file cannot be written.
    """
    check_service(service)
    check_file(file, "r+b" if resume else "wb")
    report = ExportReport()
    done = await go_on_with(file) if resume else None
    output = Output(file)
    exporter = Exporter(service, report, done=done, on_progress=on_progress)
    try:
        async with aclosing(exporter.lines(scope)) as pieces:
            async for piece in pieces:
                await output.write(piece)
    finally:
        await output.flush()
    return report


async def import_from(
    service: SessionService,
    file: BinaryIO,
    *,
    to_app: str | None = None,
    to_user: str | None = None,
    existing: Existing = "continue",
    keep_going: bool = False,
    on_progress: Callable[[ImportReport], None] | None = None,
) -> ImportReport:
    """Import what :func:`export_to` has written, from the file's place on.

    An imported session has the same events at the same positions, the same state, and the same
    moment of creation; it goes back, and goes on with a turn that waits, as the other one does. Its
    life begins anew, by the service's own retention, and it was written to last now.

    It may be stopped and run again: what is there is compared, and nothing is there twice. Nothing
    may write to a session before its import is done.

    State of applications and users is added to what is there; a value that is there and differs
    stays, and is counted and named.

    Args:
        service: Takes the sessions.
        file: A file that is open for reading bytes. It is read in a thread.
        to_app: The application that takes all of it, whatever it was exported from.
        to_user: The user who takes all of it.
        existing: What to do with a session that is there already.
        keep_going: Whether to go on after a line that cannot be imported, without the rest of its
            session. The report names it.
        on_progress: Is called after each session with the counts so far, which it does not keep.

    Raises:
        TypeError: *service* is no :class:`~agentsession.SessionService`, or *file* is not open for
            bytes.
        ValueError: *existing* is none of these.
        FormatError: The file is no export, or one of a newer format; nothing was imported.
        LineError: A line cannot be imported; what comes before it was.
        SessionConflictError: Another session has the id of one that is imported.
    """
    check_file(file, "rb")
    return await import_lines(
        service,
        lines_of(file),
        to_app=to_app,
        to_user=to_user,
        existing=existing,
        keep_going=keep_going,
        on_progress=on_progress,
    )


async def import_lines(
    service: SessionService,
    lines: AsyncIterable[bytes],
    *,
    to_app: str | None = None,
    to_user: str | None = None,
    existing: Existing = "continue",
    keep_going: bool = False,
    on_progress: Callable[[ImportReport], None] | None = None,
) -> ImportReport:
    """Import from lines, one at a time; as :func:`import_from` otherwise.

    Args:
        service: Takes the sessions.
        lines: The lines, with or without their ends.
        to_app: As for :func:`import_from`, and so are the others.
        to_user: See there.
        existing: See there.
        keep_going: See there.
        on_progress: See there.
    """
    check_service(service)
    check_lines(lines)
    await service.__aenter__()  # Which refuses one that is closed, or of another loop.
    report = ImportReport()
    importer = Importer(
        service,
        report,
        to_app=to_app,
        to_user=to_user,
        existing=existing,
        keep_going=keep_going,
        on_progress=on_progress,
    )
    async for line in lines:
        await importer.take_line(line)
    await importer.end()
    return report
