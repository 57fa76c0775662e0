"""What an adapter asks a service for."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from agentsession.observers import Notice, Observer, Operation

__all__ = ["Operations"]


class Operations(Observer):
    """The names of the operations of a service, in their order."""

    def __init__(self) -> None:
        self.names: list[str] = []

    @contextmanager
    def on_operation(self, operation: Operation) -> Iterator[None]:
        self.names.append(operation.name)
        yield

    def on_notice(self, notice: Notice) -> None:
        """Connections are of no interest."""
