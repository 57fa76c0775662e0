"""Sessions of other stores, which are read where they are and never written.

Each source has one function, and needs none of the frameworks::

    ada = UserKey("shop", "ada")
    report = await import_openai_agents_sqlite(service, "conversations.db", to=ada)
    report = await import_trpc_agent_go(service, "redis://old:6379/0", "shop")

``python -m agentsession import --from`` does the same.

What is the same for all of them: a session gets the events, the order, the state and the moment of
creation that it has in the source; its life begins anew, by the service's own retention, and it was
written to last now. A session is gathered whole, in a temporary file if it is large, before any of
it is stored; how many sessions and events there are does not matter. An import may be stopped and
run again: events have the ids of the source, or ids made of their places in it, and what is there
is compared, so that nothing is there twice. Nothing may write to a session, here or there, before
its import is done.

What cannot be read raises :class:`SourceError`, which says where it is; with ``keep_going`` it is
left out and named. What has no place here is counted and named in any case. An application's or a
user's value of state that is here already and differs stays, and is counted and named.
"""

from __future__ import annotations

from contextlib import aclosing
from typing import TYPE_CHECKING, BinaryIO

from agentsession.transfer._arguments import check_file, check_service
from agentsession.transfer._importing import check_existing
from agentsession.transfer.importers._account import Account
from agentsession.transfer.importers._found import To, check_to
from agentsession.transfer.importers._redis import Server
from agentsession.transfer.importers._reports import SourceError, SourceReport
from agentsession.transfer.importers._sources import (
    adk,
    openai_agents,
    openai_chat,
    trpc_agent_go,
)
from agentsession.transfer.importers._writing import ImportOptions, Writer

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path
    from typing import Unpack

    from agentsession.service import SessionService
    from agentsession.transfer.importers._found import Sessions

__all__ = [
    "ImportOptions",
    "Server",
    "SourceError",
    "SourceReport",
    "To",
    "import_adk_sqlite",
    "import_openai_agents_redis",
    "import_openai_agents_sqlite",
    "import_openai_chat",
    "import_trpc_agent_go",
]


async def import_openai_chat(
    service: SessionService,
    file: BinaryIO,
    *,
    to: To,
    agent: str = "assistant",
    **options: Unpack[ImportOptions],
) -> SourceReport:
    """Import message lists of OpenAI's Chat Completions.

    The file is JSON: a list of messages, ``{"messages": [...]}``, or a list of such objects; or it
    is JSON lines, each of which is one of these. A conversation's id is its ``conversation_id``,
    ``session_id`` or ``id``; one without gets ``conversation-`` and its number in the file. Its
    ``created_at`` or ``created`` is read too; without, it was made when it was first imported.

    Lines are read one at a time. JSON that goes over many lines is held in memory.

    Args:
        service: Takes the sessions.
        file: A file that is open for reading bytes. It is read in a thread.
        to: The user who takes all of it; or a function that is given the id of a conversation, and
            returns the key of the session.
        agent: The author of what the assistant says.
        **options: See :class:`ImportOptions`.

    Raises:
        SourceError: Something cannot be read or stored; what comes before its session was imported.
        SessionConflictError: Another session has the id of one that is imported.
    """
    check_to(to)
    check_file(file, "rb")
    return await _import(
        service, lambda account: openai_chat.conversations(account, file, to, agent), options
    )


async def import_openai_agents_sqlite(
    service: SessionService,
    path: str | Path,
    *,
    to: To,
    sessions_table: str = "agent_sessions",
    messages_table: str = "agent_messages",
    agent: str = "assistant",
    **options: Unpack[ImportOptions],
) -> SourceReport:
    """Import sessions of OpenAI Agents from a file of its ``SQLiteSession``.

    Or from one of its ``AdvancedSQLiteSession``: the branch ``main`` of a session becomes the
    session, and each other branch a session of its own, whose id ends with a colon and the branch's
    name. What it has counted of used tokens has no place here, and is named.

    :class:`agentsession.adapters.openai_agents.AgentSession` gives the items back as they were.
    The file is read as it is at one moment, also while it is written to.

    Args:
        service: Takes the sessions.
        path: The file.
        to: The user who takes all of it; or a function that is given the id of a session, and
            returns the key of the session.
        sessions_table: The name of the table of sessions.
        messages_table: The name of the table of items.
        agent: The author of what the assistant says.
        **options: See :class:`ImportOptions`.

    Raises:
        FormatError: It is no such file; nothing was imported.
        SourceError: As for :func:`import_openai_chat`.
        SessionConflictError: As for :func:`import_openai_chat`.
    """
    check_to(to)

    def sessions(account: Account) -> Sessions:
        return openai_agents.in_sqlite(
            account,
            path,
            to,
            sessions_table=sessions_table,
            messages_table=messages_table,
            agent=agent,
        )

    return await _import(service, sessions, options)


async def import_openai_agents_redis(
    service: SessionService,
    server: Server,
    *,
    to: To,
    key_prefix: str = "agents:session",
    agent: str = "assistant",
    **options: Unpack[ImportOptions],
) -> SourceReport:
    """Import sessions of OpenAI Agents from the keys of its ``RedisSession``.

    Otherwise as :func:`import_openai_agents_sqlite`. Its items have no times; here they have that
    of the session's creation.

    Args:
        service: Takes the sessions.
        server: The URL of the server that holds the keys, or of a cluster as
            :func:`agentsession.open_service` takes it; or a client of redis-py for either, which is
            not closed.
        to: As for :func:`import_openai_agents_sqlite`.
        key_prefix: With what the keys begin, without the colon behind it.
        agent: The author of what the assistant says.
        **options: See :class:`ImportOptions`.

    Raises:
        SourceError: As for :func:`import_openai_chat`; or the server does not answer.
        SessionConflictError: As for :func:`import_openai_chat`.
    """
    check_to(to)

    def sessions(account: Account) -> Sessions:
        return openai_agents.in_redis(account, server, to, key_prefix=key_prefix, agent=agent)

    return await _import(service, sessions, options)


async def import_adk_sqlite(
    service: SessionService,
    path: str | Path,
    *,
    app_name: str | None = None,
    user_id: str | None = None,
    to_app: str | None = None,
    to_user: str | None = None,
    **options: Unpack[ImportOptions],
) -> SourceReport:
    """Import sessions of Google's ADK from the SQLite file of one of its session services.

    Of ``SqliteSessionService``, or of ``DatabaseSessionService`` since ADK 1.22. State of
    applications, users and sessions comes with them. An event that rewinds takes back here what it
    takes back there. :class:`agentsession.adapters.google_adk.SessionService` gives the events back
    equal to what they were.

    Args:
        service: Takes the sessions.
        path: The file. It is read as it is at one moment. Meanwhile nobody can write to it, unless
            somebody has put it into SQLite's WAL mode; import a copy if an agent goes on with it.
        app_name: The application to import; ``None`` for all.
        user_id: The user to import, with the state of applications; ``None`` for all.
        to_app: The application that takes all of it, whatever it is there.
        to_user: The user who takes all of it.
        **options: See :class:`ImportOptions`.

    Raises:
        FormatError: It is no such file, or one of an older ADK; nothing was imported.
        SourceError: As for :func:`import_openai_chat`.
        SessionConflictError: As for :func:`import_openai_chat`.
    """
    return await _import(
        service,
        lambda account: adk.in_sqlite(account, path, app_name, user_id),
        options,
        to_app=to_app,
        to_user=to_user,
    )


async def import_trpc_agent_go(
    service: SessionService,
    server: Server,
    app_name: str,
    *,
    key_prefix: str = "",
    json_state: bool = False,
    to_app: str | None = None,
    to_user: str | None = None,
    **options: Unpack[ImportOptions],
) -> SourceReport:
    """Import an application of tRPC-Agent-Go from its keys, in both of their layouts.

    Events keep ids, authors, invocations and branches, and their originals; of their times the
    nanoseconds are cut off. They come in the order of these times, also where their scores are
    equal. A session that is in both layouts is read from the newer one, as the framework does.
    Summaries, tracks and revisions have no place here, and are named.

    How long something was to live is told in the report. Here the service's own times to live hold.

    Args:
        service: Takes the sessions.
        server: As for :func:`import_openai_agents_redis`.
        app_name: The application. Its keys are found by ``SCAN``, which goes through all keys of
            the server and takes those of this application.
        key_prefix: As for the framework's ``WithKeyPrefix``.
        json_state: Whether values of state that are JSON are read as such. Otherwise they are
            text, or bytes if they are no UTF-8, as the framework has them.
        to_app: The application that takes all of it.
        to_user: The user who takes all of it.
        **options: See :class:`ImportOptions`.

    Raises:
        SourceError: As for :func:`import_openai_agents_redis`.
        SessionConflictError: As for :func:`import_openai_chat`.
    """

    def sessions(account: Account) -> Sessions:
        return trpc_agent_go.in_redis(
            account, server, app_name, key_prefix=key_prefix, json_state=json_state
        )

    return await _import(service, sessions, options, to_app=to_app, to_user=to_user)


async def _import(
    service: SessionService,
    source: Callable[[Account], Sessions],
    options: ImportOptions,
    *,
    to_app: str | None = None,
    to_user: str | None = None,
) -> SourceReport:
    if unknown := options.keys() - ImportOptions.__annotations__.keys():
        msg = (
            f"an import has no option {min(unknown)!r}; {', '.join(ImportOptions.__annotations__)}"
        )
        raise TypeError(msg)
    check_service(service)
    check_existing(options.get("existing", "continue"))
    report = SourceReport()
    account = Account(report, keep_going=options.get("keep_going", False))
    writer = Writer(service, account, options, to_app=to_app, to_user=to_user)
    async with aclosing(source(account)) as found:
        await writer.write(found)
    return report
