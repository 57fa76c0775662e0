"""``python -m agentsession import --from``: what can be said of sources that are no exports."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final, NotRequired, TypedDict

from agentsession.sessions import SessionKey, UserKey
from agentsession.transfer import importers

if TYPE_CHECKING:
    import argparse
    from collections.abc import Callable
    from contextlib import AbstractContextManager
    from typing import BinaryIO

    from agentsession.service import SessionService
    from agentsession.transfer.importers import ImportOptions, SourceReport, To

__all__ = ["check_sources", "describe_sources", "import_source"]

_CHAT: Final = "openai-chat"
_AGENTS_SQLITE: Final = "openai-agents-sqlite"
_AGENTS_REDIS: Final = "openai-agents-redis"
_ADK: Final = "adk-sqlite"
_GO: Final = "trpc-agent-go"
_OPENAI: Final = (_CHAT, _AGENTS_SQLITE, _AGENTS_REDIS)


class _Option(TypedDict):
    """How argparse is told of an option."""

    metavar: NotRequired[str]
    help: str
    action: NotRequired[str]


# Which sources know an option, and what it says.
_OPTIONS: Final[dict[str, tuple[tuple[str, ...], _Option]]] = {
    "--app": (
        (_ADK, _GO),
        {"metavar": "NAME", "help": "the application to import; of adk-sqlite all by default"},
    ),
    "--user": ((_ADK,), {"metavar": "ID", "help": "the user to import; all by default"}),
    "--user-before": (
        _OPENAI,
        {
            "metavar": "SEPARATOR",
            "help": "the user is what stands in a session's id before this; --to-user takes the "
            "sessions without it",
        },
    ),
    "--agent": (
        _OPENAI,
        {
            "metavar": "NAME",
            "help": "the author of what the assistant says; 'assistant' by default",
        },
    ),
    "--sessions-table": (
        (_AGENTS_SQLITE,),
        {"metavar": "NAME", "help": "the table of sessions; 'agent_sessions' by default"},
    ),
    "--messages-table": (
        (_AGENTS_SQLITE,),
        {"metavar": "NAME", "help": "the table of items; 'agent_messages' by default"},
    ),
    "--source-prefix": (
        (_AGENTS_REDIS, _GO),
        {
            "metavar": "PREFIX",
            "help": "with what the keys of the source begin; of openai-agents-redis "
            "'agents:session' by default",
        },
    ),
    "--json-state": (
        (_GO,),
        {"action": "store_true", "help": "read values of state that are JSON as such"},
    ),
    "--dry-run": (
        (*_OPENAI, _ADK, _GO),
        {"action": "store_true", "help": "read everything, and write nothing"},
    ),
}


def describe_sources(parser: argparse.ArgumentParser) -> None:
    """Add the options of ``import`` that are for other sources."""
    sources = parser.add_argument_group(
        "sources that are no exports",
        "FILE is then a file, or the URL of a Redis server. Message lists and sessions of OpenAI "
        "have no users: --to-app and --to-user say who takes them.",
    )
    sources.add_argument(
        "--from",
        dest="source",
        choices=(*_OPENAI, _ADK, _GO),
        help="what FILE is; an export by default",
    )
    for name, (known_to, described) in _OPTIONS.items():
        option: dict[str, Any] = {**described, "help": f"{described['help']} ({_listed(known_to)})"}
        sources.add_argument(name, **option)


def _listed(sources: tuple[str, ...]) -> str:
    if sources == _OPENAI:
        return "openai-*"
    return "all other sources" if len(sources) > len(_OPENAI) else ", ".join(sources)


def _value(options: argparse.Namespace, name: str) -> Any:
    return getattr(options, name.removeprefix("--").replace("-", "_"))


def check_sources(options: argparse.Namespace) -> None:
    """Refuse what cannot be said of a source, or has to be.

    Raises:
        ValueError: An option is missing, or is for another source.
    """
    for name, (known_to, _) in _OPTIONS.items():
        if _value(options, name) not in (None, False) and options.source not in known_to:
            msg = f"{name} is for --from {_listed(known_to)}"
            if options.source is None and name == "--dry-run":
                msg = (
                    "--dry-run is for --from; an export is looked through, and nothing is written "
                    "anywhere, by importing it into memory://"
                )
            raise ValueError(msg)
    if options.source in _OPENAI and (options.to_app is None or options.to_user is None):
        msg = f"--from {options.source} needs --to-app and --to-user, who take the sessions"
        raise ValueError(msg)
    if options.user_before == "":
        msg = "--user-before needs a separator that is not empty"
        raise ValueError(msg)
    if options.source == _GO and options.app is None:
        msg = f"--from {_GO} needs --app, the application to import"
        raise ValueError(msg)


async def import_source(
    options: argparse.Namespace,
    service: SessionService,
    on_progress: Callable[[SourceReport], None],
    opened: Callable[[str], AbstractContextManager[BinaryIO]],
) -> SourceReport:
    """Import from another source.

    Args:
        options: What was said.
        service: Takes the sessions.
        on_progress: Is told how far it is.
        opened: Opens a file for reading.
    """
    common: ImportOptions = {
        "existing": options.existing,
        "keep_going": options.keep_going,
        "dry_run": options.dry_run,
        "on_progress": on_progress,
    }
    given = _given(options)
    match options.source:
        case "openai-chat":
            with opened(options.file) as file:
                return await importers.import_openai_chat(
                    service, file, to=_to(options), **given, **common
                )
        case "openai-agents-sqlite":
            return await importers.import_openai_agents_sqlite(
                service, options.file, to=_to(options), **given, **common
            )
        case "openai-agents-redis":
            return await importers.import_openai_agents_redis(
                service, options.file, to=_to(options), **given, **common
            )
        case "adk-sqlite":
            given |= {"to_app": options.to_app, "to_user": options.to_user}
            return await importers.import_adk_sqlite(service, options.file, **given, **common)
        case _:
            given |= {"to_app": options.to_app, "to_user": options.to_user}
            return await importers.import_trpc_agent_go(service, options.file, **given, **common)


_NAMES: Final = {
    "--agent": "agent",
    "--sessions-table": "sessions_table",
    "--messages-table": "messages_table",
    "--source-prefix": "key_prefix",
    "--app": "app_name",
    "--user": "user_id",
    "--json-state": "json_state",
}


def _given(options: argparse.Namespace) -> dict[str, Any]:
    """Return what was said of the source, by the names that the functions have for it."""
    told = {ours: _value(options, name) for name, ours in _NAMES.items()}
    return {name: value for name, value in told.items() if value not in (None, False)}


def _to(options: argparse.Namespace) -> To:
    """Return who takes the sessions of a source without users."""
    owner = UserKey(options.to_app, options.to_user)
    separator: str | None = options.user_before
    if separator is None:
        return owner

    def key_of(session_id: str) -> SessionKey:
        user_id, found, _ = session_id.partition(separator)
        user_id = user_id if found and user_id else owner.user_id
        return SessionKey(owner.app_name, user_id, session_id)

    return key_of
