"""Our side of a connection under fuzz: a program that posts, invalidates, takes memory away, waits, looks and closes.

What it does comes from records; whether it makes sense is not its concern. Everything that it asks for is in its accounts.
"""

from collections.abc import Callable
from contextlib import suppress
from typing import Any, Final

from fuzz.accounts import Accounts, Queue
from fuzz.hostile import Hostile
from fuzz.judge import Memory
from fuzz.records import Record
from fuzz.world import LIMITS, World
from softndk import (
    MAXULONG,
    Connector,
    Cq,
    CqNotify,
    Disconnect,
    InvalidHandle,
    LogicalAddressMapping,
    Mdl,
    Mr,
    MrFlag,
    Mw,
    NdkObject,
    ObjectType,
    OpFlag,
    Pending,
    Qp,
    RemoteToken,
    SharedEndpoint,
    Srq,
    Status,
)

__all__ = ["POSTS", "READ_LIMITS", "Link", "Program"]

POSTS: Final = (
    "send",
    "write",
    "read",
    "send_and_invalidate",
    "bind",
    "fast_register",
    "invalidate",
    "send_immediate",
    "fetch_add",
    "compare_swap",
)
READ_LIMITS: Final = (None, 0, 1, 2, 5)
MAX_POSTS: Final = 60
"""Of one queue."""
MAX_HOARD: Final = 8
_FLAGS: Final = (
    OpFlag.SILENT_SUCCESS,
    OpFlag.READ_FENCE,
    OpFlag.DEFER,
    OpFlag.SEND_AND_SOLICIT_EVENT,
    OpFlag.INLINE,
    OpFlag.RDMA_READ_LOCAL_INVALIDATE,
)
_REMOTE: Final = OpFlag.ALLOW_REMOTE_READ | OpFlag.ALLOW_REMOTE_WRITE
_SOURCES: Final = ("main", "readable", "main", "big")
_SINKS: Final = ("main", "sink", "readable", "inbox")
_KINDS: Final = (CqNotify.ERRORS, CqNotify.ANY, CqNotify.SOLICITED)


class Link:
    """A connector and a QP of ours, and the peer if there is one. `ends`: what the disconnect event has told."""

    def __init__(self, hostile: Hostile | None) -> None:
        self.hostile = hostile
        self.connector: Connector | None = None
        self.qp: Qp | None = None
        self.initiator: Queue | None = None
        self.receives: Queue | None = None
        self.ends: list[Disconnect] = []


class Program:
    """`modes`: bit 0: its QPs share a small CQ of its own, bit 1: an SRQ, bit 5: it acts in its callbacks. `memories`,
    `named`: tokens as the peers know them.
    """

    def __init__(self, world: World, modes: int) -> None:
        self.world = world
        self.accounts = Accounts()
        self.links: list[Link] = []
        self.memories: dict[int, Memory] = dict(world.memories)
        self.named = list(world.named)
        self.cq: Cq | None = world.adapter.create_cq(4, self._note) if modes & 1 else None
        self.srq: Srq | None = world.pd.create_srq(8, notify_threshold=3) if modes & 2 else None
        self._shared = None if self.srq is None else self.accounts.queue("srq", world.receive_cq, shared=True)
        self._fast: Mr | None = None
        self._window: Mw | None = None
        self._short: Mr | None = None
        self._pages: LogicalAddressMapping | None = None
        self._endpoint: SharedEndpoint | None = None
        self._hoard: list[NdkObject] = []
        """Objects that are there to use up a limit."""
        self.reacts = bool(modes & 32)
        self._arms = 0
        self._told = 0
        self.accepted = 0
        self.connected = 0

    # ---- queue pairs

    def qp(self, link: Link, record: Record) -> Qp | None:
        """The link's QP, made when first needed. None: its queue is closed already, or there is no room for one."""
        if link.qp is not None or (self.cq is not None and self.cq.closing):
            return link.qp
        pd, srq = self.world.pd, self.srq
        world = self.world
        receive_cq, initiator_cq = (self.cq, self.cq) if self.cq else (world.receive_cq, world.initiator_cq)
        name = f"the QP of link {self.links.index(link)}"
        depth = 4 if self.cq is not None else 2 + record.z % 14
        if srq is not None and not srq.closing:
            link.qp = self.accounts.call(
                "Pd.create_qp_with_srq",
                lambda: pd.create_qp_with_srq(receive_cq, initiator_cq, srq, initiator_queue_depth=depth, context=link),
            )
            link.receives = self._shared
        else:
            link.qp = self.accounts.call(
                "Pd.create_qp",
                lambda: pd.create_qp(
                    receive_cq,
                    initiator_cq,
                    receive_queue_depth=depth,
                    initiator_queue_depth=depth,
                    max_receive_sge=2,
                    context=link,
                ),
            )
        if link.qp is None:
            link.receives = None
            return None
        if link.receives is None:
            link.receives = self.accounts.queue(f"{name}, receives", receive_cq)
        link.initiator = self.accounts.queue(f"{name}, requests", initiator_cq)
        return link.qp

    def endpoint(self) -> SharedEndpoint | None:
        """A local address that several connections share, made when first needed. None: there is no port for it."""
        if self._endpoint is None:
            adapter = self.world.adapter
            self._endpoint = self.accounts.call(
                "Adapter.create_shared_endpoint", lambda: adapter.create_shared_endpoint((self.world.host, 0))
            )
        return self._endpoint

    def hear_end(self, link: Link) -> Callable[[Connector, Disconnect], None]:
        """The disconnect callback of a link."""

        def hear(connector: Connector, how: Disconnect) -> None:
            link.ends.append(how)
            if self.reacts and how.graceful:
                self.accounts.pend("Connector.disconnect", connector.disconnect)
            elif self.reacts:
                self.close(connector, link)

        return hear

    def count_accept(self, pending: Pending[None]) -> None:
        """A done callback."""
        self.accepted += pending.exception(0) is None

    def count_connect(self, pending: Pending[Any]) -> None:
        """A done callback."""
        self.connected += pending.exception(0) is None

    # ---- requests

    def receive(self, link: Link | None, record: Record) -> None:
        """Post a receive, to the SRQ if there is one. `z`: its size."""
        queue = self._shared if self.srq is not None or link is None else link.receives
        if queue is None or len(queue.posted) >= MAX_POSTS:
            return
        sgl = [self.world.sge("readable" if record.flag & 4 else "inbox", record.x % 1024, record.z % 257)]
        if record.flag & 1:
            sgl.append(self.world.sge("inbox", record.y % 1024, 16))
        if self.srq is not None:
            self.accounts.post(queue, "Srq.receive", self.srq.receive, sgl)
        elif link is not None and link.qp is not None:
            self.accounts.post(queue, "Qp.receive", link.qp.receive, sgl)

    def post(self, link: Link | None, record: Record) -> None:
        """Post one of POSTS. `x`: flags, and where in the memory; `y`, `z`: the peer's token and address, sizes."""
        if link is None or link.qp is None or link.initiator is None or len(link.initiator.posted) >= MAX_POSTS:
            return
        kind = POSTS[record.flag % len(POSTS)]
        flags = 0
        for bit, flag in enumerate(_FLAGS):
            if record.x >> bit & 1:
                flags |= flag
        if kind == "bind":
            flags |= _REMOTE if record.y & 4 else OpFlag.ALLOW_REMOTE_READ
        elif kind == "fast_register":
            flags |= _REMOTE | OpFlag.ALLOW_LOCAL_WRITE if record.y & 4 else OpFlag.ALLOW_REMOTE_READ
        make, arguments = getattr(link.qp, kind), self._arguments(kind, record)
        if None not in arguments:
            self.accounts.post(link.initiator, f"Qp.{kind}", make, *arguments, flags=flags)

    def _arguments(self, kind: str, record: Record) -> tuple[Any, ...]:
        """None among them: there is no room for what it needs."""
        token, address, size = RemoteToken(record.y), record.z, record.z % 1025
        name = (_SINKS if kind == "read" else _SOURCES)[record.x >> 6 & 3]
        place = record.x >> 8
        sgl = [self.world.sge(name, place, 65536 if name == "big" else size)]
        if kind == "send":
            return (sgl if size else [],)
        if kind == "send_and_invalidate":
            return (sgl, token)
        if kind in ("write", "read"):
            return (sgl, address, token)
        if kind == "bind":
            return self._binding(record)
        if kind == "fast_register":
            return (self._fast_region(), self._pages)
        if kind == "invalidate":
            return (self._bound_window() if record.y & 1 else self._fast_region(),)
        if kind == "send_immediate":
            return (record.z,)
        word = [self.world.sge("sink", place, 8)]
        if kind == "fetch_add":
            return (word, address & ~7, token, record.z)
        return (word, address & ~7, token, record.z, record.y)

    def _binding(self, record: Record) -> tuple[Any, ...]:
        region = self._fast_region() if record.y & 1 else self.world.regions["main"]
        if not record.y & 2:
            return (region, self._bound_window())
        if region is None:
            return (None,)
        base = self.accounts.call("Mr.address", lambda: region.address)
        return (region, self._bound_window(), (base or 0) + record.z % 64, 1 + record.y % 1024)

    # ---- memory

    def _fast_region(self) -> Mr | None:
        """Made when first needed; None: there is no room for it."""
        if self._fast is None:
            world = self.world
            region = self.accounts.call("Pd.create_mr", lambda: world.pd.create_mr(fast_register=True))
            if region is None:
                return None
            self._fast = region
            region.initialize_fast_register(2, True).result(0)
            self._pages = world.adapter.build_lam(Mdl(bytearray(512), address=0x5000)).result(0)
            self._learn(region.remote_token, "fast", self._pages.address, 512)
        return self._fast

    def _bound_window(self) -> Mw | None:
        """Made when first needed; None: there is no room for it."""
        if self._window is None:
            main = self.world.regions["main"]
            self._window = self.accounts.call("Pd.create_mw", self.world.pd.create_mw)
            if self._window is not None:
                self._learn(self._window.remote_token, "window", main.address, main.length)
        return self._window

    def _learn(self, token: int, name: str, base: int, length: int) -> None:
        """The peers hear of a token."""
        memory = Memory(name, token, base, 0, length)
        self.memories[token] = memory
        self.named.append(token)
        for link in self.links:
            if link.hostile is not None:
                link.hostile.peer.memories[token] = memory

    def use_memory(self, record: Record) -> None:
        """Initialise the fast region again, or register and take away a region."""
        way = record.flag % 4
        if way < 2:
            region = self._fast_region()
            pages, remote = 1 + record.x % 4, bool(record.y & 1)
            if region is not None:
                self.accounts.pend(
                    "Mr.initialize_fast_register", lambda: region.initialize_fast_register(pages, remote)
                )
        elif way == 2 and self._short is None:
            pd, mdl = self.world.pd, Mdl(bytearray(64), address=0x7000)
            self._short = self.accounts.call("Pd.register_mr", lambda: pd.register_mr(mdl, MrFlag.ALLOW_REMOTE_READ))
            if self._short is not None:
                self._learn(self._short.remote_token, "short-lived", self._short.address, 64)
        elif way == 3 and self._short is not None:
            short, self._short = self._short, None
            self.accounts.call("Mr.deregister", short.deregister)
            self.close(short)

    # ---- limits

    def hoard(self, record: Record) -> None:
        """Make objects of one kind until there is no room for more, or give all of them back.

        `flag`: which kind; from 128 on: back. `x`: at most so many. Each is made exactly if the limit has room for it.
        """
        if record.flag & 128:
            for item in self._hoard:
                self.close(item)
            self._hoard.clear()
            return
        kind, member, make = self._makers()[record.flag % len(LIMITS)]
        for _ in range(1 + record.x % MAX_HOARD):
            room = self._count(kind) < LIMITS[kind]
            made = self.accounts.call(member, make)
            if not self.accounts.adapter_failed:
                assert (made is not None) == room, f"{member}: {self._count(kind)} open, limit {LIMITS[kind]}, {made}"
            if made is None:
                return
            self._hoard.append(made)

    def good_queues(self) -> int:
        """CQs that have not failed, of all that are open."""
        queues = [item for item in self.world.adapter.open_objects if isinstance(item, Cq)]
        return sum(cq.status is Status.SUCCESS for cq in queues)

    def _count(self, kind: ObjectType) -> int:
        return sum(item.object_type is kind for item in self.world.adapter.open_objects)

    def _makers(self) -> tuple[tuple[ObjectType, str, Callable[[], NdkObject]], ...]:
        world = self.world
        adapter, pd, cqs = world.adapter, world.pd, (world.receive_cq, world.initiator_cq)
        return (
            (ObjectType.PD, "Adapter.create_pd", adapter.create_pd),
            (ObjectType.CQ, "Adapter.create_cq", lambda: adapter.create_cq(4)),
            (
                ObjectType.QP,
                "Pd.create_qp",
                lambda: pd.create_qp(*cqs, receive_queue_depth=1, initiator_queue_depth=1),
            ),
            (ObjectType.SRQ, "Pd.create_srq", lambda: pd.create_srq(2)),
            (ObjectType.MR, "Pd.register_mr", lambda: pd.register_mr(bytearray(8))),
            (ObjectType.MW, "Pd.create_mw", pd.create_mw),
            (ObjectType.CONNECTOR, "Adapter.create_connector", adapter.create_connector),
            (ObjectType.LISTENER, "Adapter.create_listener", adapter.create_listener),
            (
                ObjectType.SHARED_ENDPOINT,
                "Adapter.create_shared_endpoint",
                lambda: adapter.create_shared_endpoint((world.host, 0)),
            ),
        )

    # ---- waiting and looking

    def use_queue(self, record: Record) -> None:
        """Something with a CQ or the SRQ."""
        accounts = self.accounts
        cq = self.cq or (self.world.receive_cq if record.flag & 8 else self.world.initiator_cq)
        way, x = record.flag % 8, record.x
        if way < 2:
            accounts.take(accounts.call("Cq.get_results", lambda: cq.get_results(x % 5 or None)) or [])
        elif way == 2:
            self._arms += cq is self.cq
            accounts.call("Cq.arm", lambda: cq.arm(_KINDS[x % 3]))
        elif way < 5:
            with suppress(TimeoutError):
                accounts.take(accounts.call("Cq.wait", lambda: cq.wait(0.0, max_results=1 + x % 9)) or [])
        elif way == 5 and self.cq is not None:
            accounts.pend("Cq.resize", lambda: cq.resize(1 + x % 9))
        elif way == 6:
            count = MAXULONG if record.y & 1 else record.y % 9
            accounts.call("Cq.control_interrupt_moderation", lambda: cq.control_interrupt_moderation(x, count))
        elif self.srq is not None:
            srq = self.srq
            accounts.pend("Srq.modify", lambda: srq.modify(x % 12, record.y % 5))

    def _note(self, cq: Cq, status: Status) -> None:
        self._told += 1

    def look(self) -> None:
        """Every query and every repr."""
        adapter = self.world.adapter
        adapter.query_info()
        adapter.query_connections()
        adapter.query_local_endpoints()
        for item in adapter.open_objects:
            repr(item)
        for connector in [link.connector for link in self.links if link.connector is not None]:
            self.accounts.call("Connector.connection_data", lambda: connector.connection_data)  # noqa: B023 - at once
            if connector.disconnected.done():
                with suppress(InvalidHandle):
                    check_end(connector.disconnected.result(0))

    # ---- the end

    def close(self, item: Any, link: Link | None = None) -> None:
        """Close an object of NDKPI; its peer may then find the last frame cut off."""
        if link is not None and link.hostile is not None:
            link.hostile.cut_off = True
        self.accounts.pendings.append(("NdkObject.close", item.close()))

    def close_some(self, which: int) -> None:
        """One of what the program has beside its links."""
        item = (self._window, self._fast, self.srq, self.cq)[which]
        if item is not None:
            self.close(item)
            for queue in self.accounts.queues:
                queue.unread |= queue.cq is item

    def close_all(self) -> None:
        """Everything but the queue that takes the last results."""
        for link in self.links:
            if link.connector is not None:
                self.close(link.connector, link)
        for link in self.links:
            if link.qp is not None:
                self.close(link.qp, link)
        for item in (self.srq, self._window, self._fast, self._short, self._endpoint):
            if item is not None:
                self.close(item)
        for hoarded in self._hoard:
            self.close(hoarded)

    def take_all(self) -> None:
        """All results that are there."""
        for cq in (self.cq, self.world.receive_cq, self.world.initiator_cq):
            if cq is not None and not cq.closing and len(cq._ring):  # an empty queue would look at the sockets
                self.accounts.take(cq.get_results())

    def release(self) -> None:
        """Behind the close of all objects."""
        if self._pages is not None:
            self._pages.release()

    def check(self) -> None:
        """Raises AssertionError: something has not ended, or not as it should."""
        self.accounts.check()
        assert self._told <= self._arms, f"a queue that was armed {self._arms} times has told {self._told} times"
        for link in self.links:
            assert len(link.ends) <= 1, f"an end that is told {len(link.ends)} times"
            for how in link.ends:
                check_end(how)


def check_end(how: Disconnect) -> None:
    """Raises AssertionError: a disconnect event that contradicts itself."""
    assert (how.error is None) == how.graceful, f"an end that is graceful={how.graceful} with {how.error!r}"
