"""How the documentation is built: ``nox -s docs``, without a network."""

from __future__ import annotations

import ast
import importlib
import inspect
import itertools
import pkgutil
import re
from importlib.metadata import version as installed_version
from typing import TYPE_CHECKING

from sphinx.ext.autodoc.mock import mock

import agentsession

if TYPE_CHECKING:
    from types import ModuleType

    from sphinx.application import Sphinx
    from sphinx.environment import BuildEnvironment

project = "agentsession"
author = "The agentsession authors"
copyright = author  # noqa: A001 - the name that Sphinx reads
version = release = installed_version(project)

extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.napoleon"]
exclude_patterns = ["_build"]
nitpicky = True

myst_enable_extensions = ["colon_fence"]
myst_heading_anchors = 3

# Frameworks whose adapters are documented; they are not installed for it.
autodoc_mock_imports = [
    *("agent_framework", "agents", "claude_agent_sdk", "google", "langchain_core", "langgraph"),
    *("mcp", "pydantic_ai", "strands", "trpc_agent_sdk"),
]

# Names of other projects, whose documentation cannot be reached while this one is built.
nitpick_ignore_regex = [
    (r"py:.*", r"(asyncio|collections\.abc|contextlib|datetime|os|pathlib|typing)\..*"),
    (
        r"py:.*",
        r"(_pytest|ag_ui|anthropic|contextvars|fastapi|msgspec|openai|pydantic|redis|starlette)\..*",
    ),
    (r"py:.*", rf"({'|'.join(autodoc_mock_imports)})\..*"),
    (r"py:mod", r"logging"),
    # What a class is made of that users never make themselves.
    (r"py:.*", r"agentsession\.(blocking|fastapi|runner)\._.*"),
    # What frameworks name; they are not installed for the documentation.
    (r"py:class", r"RunnableConfig|CheckpointTuple"),
    (r"py:class", r"FieldInfo|NoneType"),  # of which AG-UI's union of messages is made
    (r"py:class", r"AgentRunResult|Conversation|ConversationEntry|ConversationRecord|Service"),
    (r"py:class", r"GetSessionConfig|OpenAIResponsesCompactionArgs|ServiceRegistry"),
    (r"py:class", r"SessionSettings|TResponseInputItem|types\.JSONRPCMessage"),
    (r"py:exc", r"AlreadyExistsError|ConversationConflict|StorageError"),
]

autodoc_member_order = "bysource"
autodoc_preserve_defaults = True
autodoc_typehints = "signature"
autoclass_content = "class"
python_maximum_signature_line_length = 88


def import_for_annotations() -> None:
    """Give each module the names that it imports for type checkers alone.

    Annotations hold them, and autodoc evaluates annotations.
    """
    for each in pkgutil.walk_packages(agentsession.__path__, "agentsession."):
        with mock(autodoc_mock_imports):
            module = importlib.import_module(each.name)
        for node in ast.parse(inspect.getsource(module)).body:
            if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING":
                block = ast.Module(node.body, type_ignores=[])
                code = compile(block, f"<{each.name}>", "exec")
                with mock(autodoc_mock_imports):
                    exec(code, vars(module))  # noqa: S102 - our own code


import_for_annotations()


_checked = re.compile(r"~?\w+\.Annotated\[([\w.~]+), ~?msgspec\.Meta\([^()]*\)\]")


def readable_signature(*arguments: object) -> tuple[str, str] | None:
    """Show types without what msgspec checks of them, and ``...`` for what is made anew each time.

    ``<factory>``, as msgspec has it, cannot be parsed as Python.
    """
    *_, signature, returned = arguments
    if not isinstance(signature, str):
        return None
    plain = _checked.sub(r"\1", signature.replace("<factory>", "..."))
    return plain, returned if isinstance(returned, str) else ""


def public_modules() -> list[ModuleType]:
    """Import every module whose path has no part with an underscore in front."""
    found = pkgutil.walk_packages(agentsession.__path__, "agentsession.")
    names = [each.name for each in found if "._" not in each.name]
    return [agentsession, *map(importlib.import_module, names)]


def know_every_path(_: Sphinx, env: BuildEnvironment) -> None:
    """Let a name that several modules offer, and one describes, be found by each of its paths."""
    objects = env.domains.python_domain.objects
    paths = [
        (f"{module.__name__}.{name}", getattr(module, name))
        for module in public_modules()
        for name in getattr(module, "__all__", ())
    ]
    for (path, value), (other, same) in itertools.product(paths, paths):
        if path not in objects and other in objects and same is value:
            objects[path] = objects[other]._replace(aliased=True)


def setup(app: Sphinx) -> None:
    """Connect what this file adds to Sphinx."""
    app.connect("autodoc-process-signature", readable_signature)
    app.connect("env-updated", know_every_path)


html_theme = "furo"
html_title = "agentsession"
html_static_path = ["_static"]
html_css_files = ["width.css"]
html_show_sphinx = False
