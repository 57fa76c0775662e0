"""Every cell of the tables that say what carries over between frameworks."""

from __future__ import annotations

import importlib
from typing import Any, Protocol

import pytest

from adapters.canonical import Said
from adapters.together.carried import ARRIVES, FRAMEWORKS, IS_SEEN, KINDS, LEAVES_OUT, OBJECTS
from adapters.together.test_conversations import FRAMEWORKS as NEEDS
from agentsession import Event, SessionKey, SessionService, Text

KEY = SessionKey("shop", "ada", "chat")

each_cell = pytest.mark.parametrize(
    ("row", "head"), [(row, head) for row, cells in ARRIVES.items() for head in cells]
)
each_cell_of_content = pytest.mark.parametrize(
    ("row", "head"),
    [(row, head) for row, cells in ARRIVES.items() for head in cells if not KINDS[row].mark],
)
each_cell_back = pytest.mark.parametrize(
    ("row", "head"), [(row, head) for row, cells in IS_SEEN.items() for head in cells]
)


class Framework(Protocol):
    """A module of ``adapters.frameworks``."""

    OBJECTS: dict[str, Any]

    async def store(self, service: SessionService, key: SessionKey, given: Any) -> None:
        """Store an object of the framework."""

    async def objects(self, service: SessionService, key: SessionKey) -> list[Any]:
        """Read the framework's own objects."""
        ...

    def marks(self, found: list[Any]) -> list[Said]:
        """Return what stands beside what is said."""
        ...

    def told(self, found: list[Any]) -> list[Any]:
        """Return what is said to be left out."""
        ...

    async def read(self, service: SessionService, key: SessionKey) -> list[Said]:
        """Read what is said."""
        ...


def framework(head: str) -> Framework:
    name = FRAMEWORKS[head]
    pytest.importorskip(NEEDS[name])
    found: Any = importlib.import_module(f"adapters.frameworks.{name}")
    module: Framework = found
    return module


async def stored(service: SessionService, row: str) -> None:
    await service.create_session(KEY)
    for event in KINDS[row].events:
        await service.append_event(KEY, event)


def in_letters(found: list[Any]) -> str:
    """Return all that objects hold."""
    return "".join(str(each.to_dict() if hasattr(each, "to_dict") else each) for each in found)


@each_cell
async def test_it_arrives_as_the_cell_says(row: str, head: str, service: SessionService) -> None:
    """By these cells somebody chooses a framework, or a second one beside the first."""
    reader, kind, cell = framework(head), KINDS[row], ARRIVES[row][head]
    await stored(service, row)
    found = await reader.objects(service, KEY)
    lines = [] if kind.mark else await reader.read(service, KEY)
    wanted = {line[0] for expected in kind.arrives.values() for line in expected}
    lines += [line for line in reader.marks(found) if line[0] in wanted]
    assert lines == kind.arrives[cell]
    if cell in LEAVES_OUT:
        assert (kind.trace in in_letters(found)) == (cell == "in `metadata`")


@each_cell_of_content
async def test_what_is_left_out_of_the_content_is_told(
    row: str, head: str, service: SessionService
) -> None:
    """Nothing is lost in silence but what the page says so of: Pydantic AI tells whole parts."""
    reader, kind, cell = framework(head), KINDS[row], ARRIVES[row][head]
    await stored(service, row)
    told = reader.told(await reader.objects(service, KEY))
    if reader is framework("Pydantic AI"):
        assert (kind.trace in str(told)) == bool(told) == (cell == "in `metadata`")
    else:
        assert bool(told) == (cell in LEAVES_OUT)


@each_cell_back
async def test_others_see_what_the_cell_says(row: str, head: str, service: SessionService) -> None:
    """A framework's own is a part of the event, or only in the original that it gets back."""
    writer, cell = framework(head), IS_SEEN[row][head]
    name, trace = OBJECTS[row]
    if cell == "none":
        assert name not in writer.OBJECTS
        return
    await writer.store(service, KEY, writer.OBJECTS[name])
    (event,) = await service.get_events(KEY)
    assert places_of(trace, event, FRAMEWORKS[head]) == cell


def places_of(trace: str, event: Event, name: str) -> str:
    """Return where something is that others see, as a cell says it."""
    if event.author == trace:
        return "`author`"
    content = [Text(event.content)] if isinstance(event.content, str) else event.content
    (*parts,) = (part for part in content if trace in repr(part))
    original = event.metadata[name]
    others = {each: value for each, value in event.metadata.items() if each != name}
    assert trace not in str(others)
    if not parts:
        assert trace in str(original)
        return "original"
    return ", ".join(f"`{type(part).__name__}`" for part in parts)


def test_the_tables_have_these_rows_and_columns() -> None:
    """So that no cell is without a test, and no kind without a row."""
    assert list(ARRIVES) == list(KINDS)
    assert list(IS_SEEN) == list(OBJECTS)
    assert all([*cells] == [*FRAMEWORKS] for cells in [*ARRIVES.values(), *IS_SEEN.values()])
