"""Checkpoints of LangGraph in the sessions of this library.

It needs an extra: ``pip install 'agentsession[langgraph]'``.

::

    async with InMemorySessionService(session_event_limit=None) as service:
        graph = builder.compile(checkpointer=Checkpointer(service))
        await graph.ainvoke(inputs, {"configurable": {"thread_id": "42"}})

A thread of LangGraph is no conversation: it is what the channels of a graph held after each of its
steps. So this adapter keeps it as LangGraph's serializer writes it, as bytes: other readers of the
session see :class:`~agentsession.Data` with media types that begin with
``application/vnd.langgraph.``, and no messages.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Concatenate, Final, ParamSpec, TypeVar

from agentsession._extras import what_to_install

try:
    from langgraph.checkpoint.base import (
        BaseCheckpointSaver,
        Checkpoint,
        CheckpointMetadata,
        CheckpointTuple,
        DeltaChannelHistory,
    )
except ImportError as _cause:
    raise ImportError(what_to_install("this adapter", "langgraph", _cause)) from _cause

from agentsession.adapters._langgraph import checkpoints, objects, upkeep
from agentsession.adapters._langgraph import writes as pending
from agentsession.adapters._langgraph.access import Access
from agentsession.adapters._langgraph.channels import history
from agentsession.adapters._langgraph.listing import Listing
from agentsession.adapters._langgraph.records import CheckpointIncompleteError
from agentsession.adapters._sessions.logs import Service, awaitable
from agentsession.blocking import BlockingSessionService
from agentsession.errors import EventLoopError
from agentsession.events import new_id
from agentsession.sessions import SessionKey

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Coroutine, Iterator, Mapping, Sequence

    from langchain_core.runnables import RunnableConfig
    from langgraph.checkpoint.base import ChannelVersions
    from langgraph.checkpoint.serde.base import SerializerProtocol

    from agentsession.service import SessionService

__all__ = ["CheckpointIncompleteError", "Checkpointer"]

_P = ParamSpec("_P")
_T = TypeVar("_T")

_APP_NAME: Final = "langgraph"


class Checkpointer(BaseCheckpointSaver[str]):
    """Keeps the threads of graphs, each in a session of its own.

    It has all that LangGraph asks of a checkpointer, for ``ainvoke()`` and its like with any
    service, and for ``invoke()`` and its like with a
    :class:`~agentsession.blocking.BlockingSessionService`. Any number of processes may use one
    store.

    Guarantees, the same on every store:

    - A checkpoint, the writes of a task, a deletion and a copy of a thread are stored whole or not
      at all. (More than 900 checkpoints of a thread are hidden in several steps.)
    - A checkpoint comes back with the values that it was stored with. The value of a channel is
      stored when it has changed, and not again with each checkpoint.
    - Writes are stored once for each task and index; of the special ones, such as interrupts, the
      last counts.
    - The newest checkpoint is the one with the largest id. To read it takes as long in a long
      thread as in a short one.
    - Values may be larger than ``max_event_size``: they are stored in parts.

    The service must have ``session_event_limit=None``: a limit would take old checkpoints out of
    the store, and values that newer ones need. Where another process has used the session with a
    limit, to read such a checkpoint raises :exc:`CheckpointIncompleteError`.

    Checkpoints that are pruned, or deleted for their run, are hidden: they are in no list any more,
    and are not found by their ids. Their bytes stay in the session until the thread is deleted.

    A thread id has no user. By default each thread is a user of its own in the application
    *app_name*, so that a cluster spreads them. With a *key*, threads belong to the users whom they
    are of, so that ``delete_user`` deletes their threads::

        def key(thread_id: str) -> SessionKey:
            user_id, _, session_id = thread_id.partition("/")
            return SessionKey("shop", user_id, session_id)

        Checkpointer(service, key=key, app_name="shop")

    Args:
        service: Keeps the sessions. It stays the caller's, who closes it.
        key: Tells which session holds the thread of an id; always the same, and another one for
            each thread.
        app_name: The application of the threads: ``delete_for_runs()``, and ``list()`` without a
            thread, look through all sessions of it, and through no others.
        serde: Makes bytes of values; LangGraph's own serializer by default.

    Raises:
        TypeError: *service* is no service.
    """

    def __init__(
        self,
        service: Service,
        *,
        key: Callable[[str], SessionKey] | None = None,
        app_name: str = _APP_NAME,
        serde: SerializerProtocol | None = None,
    ) -> None:
        super().__init__(serde=serde)
        awaitable(service)
        self._service = service
        self._access = Access(key or (lambda each: SessionKey(app_name, each, each)), app_name)

    def __repr__(self) -> str:
        return f"<{type(self).__name__} on {self._service!r}>"

    def get_next_version(self, current: str | None, channel: None) -> str:  # noqa: ARG002 - LangGraph passes it
        """Return the version after another one; in a fork of the thread it is another one."""
        number = 0 if current is None else int(str(current).partition(".")[0])
        return f"{number + 1:032}.{new_id()[:16]}"

    # -- awaited

    async def aget_tuple(self, config: RunnableConfig) -> CheckpointTuple | None:
        """Return the checkpoint that *config* names, or the newest one of its namespace.

        Raises:
            CheckpointIncompleteError: The event limit has trimmed something that it needs.
            ValueError: *config* names no thread.
        """
        place = objects.place_of(config)
        loaded = await self._await(checkpoints.get, self._access, *place)
        return None if loaded is None else objects.tuple_of(self.serde, loaded)

    async def alist(
        self,
        config: RunnableConfig | None,
        *,
        filter: dict[str, Any] | None = None,  # noqa: A002 - LangGraph's name
        before: RunnableConfig | None = None,
        limit: int | None = None,
    ) -> AsyncIterator[CheckpointTuple]:
        """Give checkpoints one after the other, the largest id first.

        Args:
            config: Names the thread, and perhaps a namespace and a checkpoint; without it those of
                all threads are given.
            filter: Values that the metadata has.
            before: Names a checkpoint: only those with smaller ids are given.
            limit: The most to give.

        Raises:
            CheckpointIncompleteError: As for :meth:`aget_tuple`.
        """
        wanted = objects.wanted(self.serde, config, filter, before, limit)
        listing = Listing(self._access, wanted)
        while some := await self._await(listing.more):
            for loaded in some:
                yield objects.tuple_of(self.serde, loaded)

    async def aput(
        self,
        config: RunnableConfig,
        checkpoint: Checkpoint,
        metadata: CheckpointMetadata,
        new_versions: ChannelVersions,
    ) -> RunnableConfig:
        """Store a checkpoint after the one that *config* names, and return a config that names it.

        Raises:
            ValueError: Another checkpoint with its id is stored, or it was deleted; *config* names
                no thread; the service has an event limit; or the thread's session holds another.
        """
        thread_id, namespace, _ = objects.place_of(config)
        new = objects.new_checkpoint(self.serde, config, checkpoint, metadata, new_versions)
        await self._await(checkpoints.put, self._access, thread_id, new)
        return objects.config_of(thread_id, namespace, checkpoint["id"])

    async def aput_writes(
        self,
        config: RunnableConfig,
        writes: Sequence[tuple[str, Any]],
        task_id: str,
        task_path: str = "",
    ) -> None:
        """Store what a task has written at the checkpoint that *config* names."""
        packed = objects.new_writes(self.serde, writes, task_id, task_path)
        place = objects.named_place(config)
        await self._await(pending.put_writes, self._access, *place, packed)

    async def adelete_thread(self, thread_id: str) -> None:
        """Delete a thread with all that it holds; an absent one is no error."""
        await self._await(self._access.delete, str(thread_id))

    async def adelete_for_runs(self, run_ids: Sequence[str]) -> None:
        """Hide the checkpoints that some runs have made, in all threads of the application.

        The lists of all these threads are read for that.
        """
        if runs := frozenset(run_ids):
            await self._await(upkeep.delete_runs, self._access, runs)

    async def acopy_thread(self, source_thread_id: str, target_thread_id: str) -> None:
        """Copy a thread; an absent one is no error.

        Raises:
            SessionExistsError: The target exists; nothing was changed.
        """
        threads = str(source_thread_id), str(target_thread_id)
        await self._await(upkeep.copy, self._access, *threads)

    async def aprune(self, thread_ids: Sequence[str], *, strategy: str = "keep_latest") -> None:
        """Hide all but the newest checkpoint of each namespace, or delete threads.

        Args:
            thread_ids: The threads; absent ones are no error.
            strategy: ``"keep_latest"`` or ``"delete"``.

        Raises:
            ValueError: *strategy* is none of these.
        """
        call = self._pruning(strategy)
        for thread_id in thread_ids:
            await self._await(call, str(thread_id))

    async def aget_delta_channel_history(
        self, *, config: RunnableConfig, channels: Sequence[str]
    ) -> Mapping[str, DeltaChannelHistory]:
        """Return for each channel its last value before a checkpoint, and what came since.

        Raises:
            CheckpointIncompleteError: As for :meth:`aget_tuple`.
        """
        place = objects.place_of(config)
        found = await self._await(history, self._access, *place, channels)
        return {each: objects.delta_history(self.serde, found[each]) for each in found}

    # -- blocking, each as the one above that is awaited

    def get_tuple(self, config: RunnableConfig) -> CheckpointTuple | None:
        place = objects.place_of(config)
        loaded = self._wait("aget_tuple", checkpoints.get, self._access, *place)
        return None if loaded is None else objects.tuple_of(self.serde, loaded)

    def list(
        self,
        config: RunnableConfig | None,
        *,
        filter: dict[str, Any] | None = None,  # noqa: A002 - LangGraph's name
        before: RunnableConfig | None = None,
        limit: int | None = None,
    ) -> Iterator[CheckpointTuple]:
        wanted = objects.wanted(self.serde, config, filter, before, limit)
        listing = Listing(self._access, wanted)
        while some := self._wait("alist", listing.more):
            for loaded in some:
                yield objects.tuple_of(self.serde, loaded)

    def put(
        self,
        config: RunnableConfig,
        checkpoint: Checkpoint,
        metadata: CheckpointMetadata,
        new_versions: ChannelVersions,
    ) -> RunnableConfig:
        thread_id, namespace, _ = objects.place_of(config)
        new = objects.new_checkpoint(self.serde, config, checkpoint, metadata, new_versions)
        self._wait("aput", checkpoints.put, self._access, thread_id, new)
        return objects.config_of(thread_id, namespace, checkpoint["id"])

    def put_writes(
        self,
        config: RunnableConfig,
        writes: Sequence[tuple[str, Any]],
        task_id: str,
        task_path: str = "",
    ) -> None:
        packed = objects.new_writes(self.serde, writes, task_id, task_path)
        place = objects.named_place(config)
        self._wait("aput_writes", pending.put_writes, self._access, *place, packed)

    def delete_thread(self, thread_id: str) -> None:
        self._wait("adelete_thread", self._access.delete, str(thread_id))

    def delete_for_runs(self, run_ids: Sequence[str]) -> None:
        if runs := frozenset(run_ids):
            self._wait("adelete_for_runs", upkeep.delete_runs, self._access, runs)

    def copy_thread(self, source_thread_id: str, target_thread_id: str) -> None:
        threads = str(source_thread_id), str(target_thread_id)
        self._wait("acopy_thread", upkeep.copy, self._access, *threads)

    def prune(self, thread_ids: Sequence[str], *, strategy: str = "keep_latest") -> None:
        call = self._pruning(strategy)
        for thread_id in thread_ids:
            self._wait("aprune", call, str(thread_id))

    def get_delta_channel_history(
        self, *, config: RunnableConfig, channels: Sequence[str]
    ) -> Mapping[str, DeltaChannelHistory]:
        place = objects.place_of(config)
        awaited = "aget_delta_channel_history"
        found = self._wait(awaited, history, self._access, *place, channels)
        return {each: objects.delta_history(self.serde, found[each]) for each in found}

    # -- calls

    async def _await(
        self,
        call: Callable[Concatenate[SessionService, _P], Coroutine[Any, Any, _T]],
        *args: _P.args,
        **kwargs: _P.kwargs,
    ) -> _T:
        """Make a call on the loop of the service."""
        if isinstance(self._service, BlockingSessionService):
            return await self._service.any_loop.call(call, *args, **kwargs)
        return await call(self._service, *args, **kwargs)

    def _wait(
        self,
        awaited: str,
        call: Callable[Concatenate[SessionService, _P], Coroutine[Any, Any, _T]],
        *args: _P.args,
        **kwargs: _P.kwargs,
    ) -> _T:
        """Make a call on the loop of the service, and block until it is done."""
        instead = f"await {awaited}(), or run the graph with ainvoke() or astream()"
        if not isinstance(self._service, BlockingSessionService):
            msg = (
                f"the service of this Checkpointer has to be awaited: {instead}; or make the "
                "Checkpointer with a service of agentsession.blocking.open_service()"
            )
            raise RuntimeError(msg)  # noqa: TRY004 - the type is right, and the call is not
        try:
            return self._service.call(call, *args, **kwargs)
        except EventLoopError as exc:
            exc.add_note(f"Of a Checkpointer: {instead}.")
            raise

    def _pruning(self, strategy: str) -> Callable[[SessionService, str], Coroutine[Any, Any, None]]:
        if strategy == "keep_latest":
            return lambda service, thread_id: upkeep.keep_newest(service, self._access, thread_id)
        if strategy == "delete":
            return self._access.delete
        msg = f"strategy must be 'keep_latest' or 'delete', not {strategy!r:.80}"
        raise ValueError(msg)
