"""A cluster: one shared connection to each node, and the map of which node owns which slot.

Everything about a call but its way is the business of
:class:`~agentsession.redis._links.server.ServerLink`, one a node. What a node says belongs
elsewhere (``MOVED``, ``ASK``) was not run there and goes on to the node that it names; ``MOVED``
also has the whole map read anew. While a slot moves key by key, a call whose keys are partly here
and partly there is answered ``TRYAGAIN`` by both nodes: nothing was run, and it is sent again until
the move has ended, or its time is up.

When a node cannot be reached, others are asked for the map until it names another owner, and what
waits for the one that is lost goes there: that is a failover.
"""

from __future__ import annotations

import asyncio
import random
from functools import partial
from typing import TYPE_CHECKING, Any, Final

from agentsession.observers import SlotsMoved
from agentsession.redis._addresses import described
from agentsession.redis._core.acknowledgement import SERVER_MEMORY, Acknowledgement
from agentsession.redis._core.errors import NotSentError, ServerError
from agentsession.redis._core.request import Command, Request
from agentsession.redis._core.slots import SlotMap, redirection, slot_of
from agentsession.redis._links.backlog import Backlog
from agentsession.redis._links.counted import CountedLink
from agentsession.redis._links.inbox import Inbox
from agentsession.redis._links.server import ServerLink
from agentsession.redis._links.sharded import ShardedInbox

if TYPE_CHECKING:
    from collections.abc import Sequence

    from agentsession._journal import Journal
    from agentsession.redis._addresses import Host
    from agentsession.redis._links.endpoint import Endpoint

__all__ = ["ClusterLink"]

# Seconds between two reads of the map while a node cannot be reached.
_PAUSE: Final = 0.1
# The share of the deadline that one node may take to answer with its map; then the next is asked.
_PATIENCE: Final = 1 / 10


class ClusterLink(CountedLink):
    """A :class:`~agentsession.redis._links.link.Link` to a cluster.

    Args:
        endpoint: Opens connections; each node has an address of its own.
        hosts: Nodes by which the others are found.
        timeout: Seconds that a call may take, retries included.
        acknowledgement: How far a write must have got before its call returns.
        journal: Is told of what happens to connections and slots.
    """

    def __init__(
        self,
        endpoint: Endpoint,
        hosts: Sequence[Host],
        *,
        timeout: float,
        acknowledgement: Acknowledgement = SERVER_MEMORY,
        journal: Journal,
    ) -> None:
        super().__init__(timeout, Backlog())
        self._endpoint = endpoint
        self._known = list(hosts)
        self._acknowledgement = acknowledgement
        self._journal = journal
        self._slots = SlotMap()
        self._nodes: dict[Host, ServerLink] = {}
        # Commands whose slot has no known owner.
        self._homeless: list[Command] = []
        self._deadlines: asyncio.TimerHandle | None = None
        self._reading: asyncio.Task[None] | None = None
        self._read_at = 0.0
        # A node that refused a slot which it owns by the map.
        self._doubted: Host | None = None
        self._over = False
        self._inbox = Inbox(self._some_node, timeout / 2)
        self._news = ShardedInbox(
            self._slots.owner, endpoint.at, timeout / 2, read_the_map=self._read_the_map
        )

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {list(self._nodes.values())!r}>"

    @property
    def inbox(self) -> Inbox:
        return self._inbox

    @property
    def news(self) -> ShardedInbox:
        return self._news

    def _some_node(self) -> Endpoint:
        """Return where any node is: what is published at one is told at all of them."""
        hosts = sorted({*self._slots.hosts} or {*self._known})
        return self._endpoint.at(random.choice(hosts))  # noqa: S311 - no secret

    @property
    def layout(self) -> object:
        changed = [(host, node.layout) for host, node in self._nodes.items() if node.layout]
        return self._slots.owners, changed

    # -- the way of a call

    def take(self, command: Command) -> None:
        """Hand a script to the node that owns its slot, or let it wait for the map."""
        assert isinstance(command, Request)  # noqa: S101 - nothing else is for a cluster as a whole
        owner = self._slots.owner(slot_of(command.keys[0]))
        if owner is None:
            self._wait_for_the_map(command)
        else:
            self._node(owner).take(command)

    def _wait_for_the_map(self, command: Command) -> None:
        self._homeless.append(command)
        if self._deadlines is None or self._deadlines.when() > command.deadline:
            self._look_at_deadlines_at(command.deadline)
        self._read_the_map()

    def _node(self, host: Host) -> ServerLink:
        node = self._nodes.get(host)
        if node is None:
            node = self._nodes[host] = ServerLink(
                self._endpoint.at(host),
                timeout=self._timeout,
                acknowledgement=self._acknowledgement,
                backlog=self._backlog,
                patient=True,
                redirect=partial(self._redirect, host),
                troubled=self._read_the_map,
                journal=self._journal,
            )
        return node

    def _redirect(self, asked: Host, command: Command, error: ServerError) -> None:
        """Send a command to the node that it belongs to; it was not run at this one."""
        command.refusal = error
        if error.is_not_owned:
            self._doubted = asked
            self._wait_for_the_map(command)
            return
        slot, host = redirection(str(error), asked)
        if error.code == "ASK":
            command.asking = True
        else:
            self._slots.move(slot, host)
            self._note_moved([host])
            self._read_the_map()
        self._node(host).take(command)

    # -- the map

    def _read_the_map(self) -> None:
        if self._reading is None and not self._over:
            self._reading = asyncio.create_task(self._read_until_all_is_well())

    async def _read_until_all_is_well(self) -> None:
        """Read the map, and again as long as a node is wanted that cannot be reached."""
        loop = asyncio.get_running_loop()
        try:
            # Nodes that disagree redirect at once; without a pause this would ask without end.
            await asyncio.sleep(self._read_at + _PAUSE / 2 - loop.time())
            while True:
                failure = await self._read_once()
                self._read_at = loop.time()
                if failure is None:
                    self._move_what_waits()
                    self._news.rearrange()
                    await self._leave_who_is_gone()
                elif not self._slots.hosts:
                    # Never reached: more likely a wrong address than a failover.
                    self._fail_the_homeless(failure)
                if not self._is_at_a_loss:
                    return
                await asyncio.sleep(_PAUSE * random.uniform(0.5, 1.0))  # noqa: S311 - no secret
                self._end_late_ones()
        finally:
            self._reading = None

    @property
    def _is_at_a_loss(self) -> bool:
        """Whether something waits for a node that is not known, or cannot be reached."""
        nodes = self._nodes.values()
        return bool(self._homeless) or self._news.has_homeless or any(n.at_a_loss for n in nodes)

    async def _read_once(self) -> BaseException | None:
        """Ask the nodes one after the other, the likeliest to answer first; return why none did."""
        failure: BaseException | None = None
        hosts = list({*self._slots.hosts, *self._known})
        # In another order each time: a single node may know nothing, or an outdated map.
        random.shuffle(hosts)
        for host in sorted(hosts, key=self._is_worse):
            loop = asyncio.get_running_loop()
            asked: asyncio.Future[Any] = loop.create_future()
            question = Command(("CLUSTER", "SLOTS"), asked, loop.time() + self._timeout * _PATIENCE)
            # A node that nothing else goes to is asked by a link of its own, which says soon that
            # it cannot be reached.
            node = self._nodes.get(host) or ServerLink(
                self._endpoint.at(host), timeout=self._timeout, journal=self._journal
            )
            try:
                node.submit(question)
                self._note_moved(self._slots.read(await asked, host))
                self._doubted = None
            except Exception as exc:  # noqa: BLE001 - the next node may know
                failure = exc
            else:
                failure = None
            finally:
                if self._nodes.get(host) is not node:
                    await node.let_go()
            if failure is None:
                return None
        return failure

    def _note_moved(self, owners: Sequence[Host]) -> None:
        """Tell which nodes own slots now that were another's, each as often as it owns one."""
        if owners:
            servers = tuple(described((host,)) for host in sorted(set(owners)))
            self._journal.note(SlotsMoved(slots=len(owners), servers=servers))

    def _is_worse(self, host: Host) -> tuple[bool, bool]:
        """Order nodes by how likely they are to answer, and to know the map."""
        node = self._nodes.get(host)
        lost = node is not None and node.at_a_loss
        return lost or host == self._doubted, host not in self._slots.hosts

    async def _leave_who_is_gone(self) -> None:
        """Close the connections to nodes that have left the cluster."""
        for host in [*self._nodes]:
            if host not in self._slots.hosts and self._nodes[host].idle:
                await self._nodes.pop(host).let_go()

    def _move_what_waits(self) -> None:
        """Hand what waits for a node that does not own its slot to the one that does."""
        homeless, self._homeless = self._homeless, []
        for command in homeless:
            self.take(command)
        for node in list(self._nodes.values()):
            if node.at_a_loss:
                for command in node.withdraw():
                    (self if isinstance(command, Request) else node).take(command)

    def _fail_the_homeless(self, failure: BaseException) -> None:
        homeless, self._homeless = self._homeless, []
        for command in homeless:
            command.refusal = failure.__cause__ or failure
            command.fail()
            self._backlog.leave(command.size)
            command.size = 0

    def _look_at_deadlines_at(self, moment: float) -> None:
        if self._deadlines is not None:
            self._deadlines.cancel()
        self._deadlines = asyncio.get_running_loop().call_at(moment, self._end_late_ones)

    def _end_late_ones(self) -> None:
        now = asyncio.get_running_loop().time()
        homeless, self._homeless = self._homeless, []
        for command in homeless:
            if command.deadline <= now or command.future.done():
                command.fail()
                self._backlog.leave(command.size)
                command.size = 0
            else:
                self._homeless.append(command)
        if self._deadlines is not None:
            self._deadlines.cancel()
            self._deadlines = None
        if self._homeless:
            self._look_at_deadlines_at(min(command.deadline for command in self._homeless))

    # -- the end

    async def drain(self) -> None:
        # The nodes are not closed meanwhile: they can be asked for the map, and take what others
        # send them.
        while awaited := self._awaited():
            await asyncio.wait(awaited)

    def _awaited(self) -> list[Any]:
        homeless = [each.future for each in self._homeless if not each.future.done()]
        return [*homeless, *(future for node in self._nodes.values() for future in node.awaited)]

    async def let_go(self) -> None:
        self._over = True
        await self._inbox.aclose()
        await self._news.aclose()
        if self._reading is not None:
            self._reading.cancel()
            await asyncio.wait([self._reading])
        # One by one, since as long as one is open it may send calls on to another, or to none.
        while self._nodes:
            _, node = self._nodes.popitem()
            await node.let_go()
        self._fail_the_homeless(NotSentError("the connection is closed"))
        if self._deadlines is not None:
            self._deadlines.cancel()
