"""A whole adapter with a good connection, in which one input after the other is run; none may leave anything behind.

The good connection has both its ends at this adapter, and shares protection domain, completion queues and engine with
the bad ones. `Base` is what the adapter holds and has counted: after each input it is as before.
"""

import os
import resource
import socket
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Final

from fuzz.judge import Memory
from fuzz.numbers import draw_from
from fuzz.stepped import open_stepped
from softndk import (
    Aborted,
    ConnectionInvalid,
    IwarpConfig,
    Listener,
    LocalToken,
    Mdl,
    Mr,
    MrFlag,
    ObjectType,
    OperationType,
    RemoteToken,
    Result,
    Sge,
    Status,
)
from softndk.conformance.providers import has_ipv6
from softndk.memory.tokens import TokenTable
from softndk.ndk.endpoints import ENDPOINTS
from softndk.ndk.object import NdkObject

__all__ = ["ARENA", "IPV6", "KINDS", "LIMITS", "SECRET", "SMALL", "World", "make_small", "no_descriptors"]

ARENA: Final = 8192
SECRET: Final = b"\xe7secret!"
"""What is in memory that no peer may read; repeated, so any 15 octets of it in a row show a leak."""
_NONE, _READ = MrFlag.ALLOW_LOCAL_WRITE, MrFlag.ALLOW_REMOTE_READ
_WRITE: Final = MrFlag.ALLOW_REMOTE_WRITE
_ATOMIC: Final = MrFlag.ALLOW_REMOTE_ATOMIC
_REGIONS: Final = (  # name, place in the arena, octets, rights
    ("main", 512, 1024, _READ | _WRITE),
    ("readable", 2048, 256, _READ),
    ("writable", 2560, 256, _WRITE),
    ("secret", 3072, 256, _NONE),
    ("inbox", 4096, 1024, _NONE),
    ("sink", 5632, 512, _NONE),
    ("top", 6400, 256, _READ | _WRITE),
)
TOP: Final = 1 << 64
SMALL: Final = 4608
"""Octets that a socket with a small buffer takes; the system has its own mind about that."""
_HIDDEN: Final = ("writable", "secret", "inbox", "sink")
"""Regions whose octets no peer may see."""
_PATIENCE: Final = 3000
"""Steps of the engine with something to do, one after the other: more is no progress any more."""
ROUNDS: Final = 6
"""Looks at the queues until all is there: what a program's thread has served stays its business for a while (loans)."""
_CONFIGS: Final[tuple[dict[str, object], ...]] = (  # the last one speaks IPv6
    {},
    {"markers": True, "receive_wait_s": 5.0},
    {"crc": False, "rfc7306": False, "fallback_revision_1": True},
    {"max_fpdu": 128, "mpa_revision": 1, "peer_to_peer": False},
    {},
)
KINDS: Final = len(_CONFIGS)
IPV6: Final = KINDS - 1
"""The kind whose adapter is on ::1, where the machine has that."""
LIMITS: Final = {
    ObjectType.PD: 4,
    ObjectType.CQ: 6,
    ObjectType.QP: 8,
    ObjectType.SRQ: 3,
    ObjectType.MR: 15,
    ObjectType.MW: 3,
    ObjectType.CONNECTOR: 8,
    ObjectType.LISTENER: 3,
    ObjectType.SHARED_ENDPOINT: 3,
}
"""So many objects of a kind may be open: what a world needs, and a few."""
_LIMITS: Final = {
    "max_pending_requests": 3,
    "max_pending_requests_per_address": 2,
    "max_handshakes": 3,
    "max_handshakes_per_address": 2,
    "send_buffer": 65600,
    **{f"max_{kind.name.lower()}_count": count for kind, count in LIMITS.items()},
}


class World:
    """An adapter of one of KINDS settings, stepped by hand. `memories`: what tokens stand for, by number; `named`: those
    that a peer knows.
    """

    def __init__(self, kind: int) -> None:
        self.config = IwarpConfig(**_CONFIGS[kind], **_LIMITS)  # type: ignore[arg-type]
        descriptors = len(os.listdir("/proc/self/fd"))
        self.host = "::1" if kind == IPV6 and has_ipv6() else "127.0.0.1"
        self.family = socket.AF_INET6 if ":" in self.host else socket.AF_INET
        self.adapter, self.runtime = open_stepped(self.host, self.config)
        self.engine = self.runtime.stepped
        self.adapter._context.datapath.tokens = TokenTable(draw_from(7))
        self.runs = 0
        self.pd = self.adapter.create_pd()
        self.receive_cq = self.adapter.create_cq(4096)
        self.initiator_cq = self.adapter.create_cq(4096)
        self.arena = bytearray(ARENA)
        self.regions: dict[str, Mr] = {}
        self.memories: dict[int, Memory] = {}
        self.named: list[int] = []
        atomic = _ATOMIC if self.config.rfc7306 else MrFlag(0)
        for name, place, length, flags in _REGIONS:
            rights = flags | atomic if name == "main" else flags
            octets = memoryview(self.arena)[place : place + length]
            address = TOP - length if name == "top" else place << 8
            region = self.pd.register_mr(Mdl(octets, address=address), rights)
            self.regions[name] = region
            self.named.append(region.remote_token)
            self.memories[region.remote_token] = Memory(name, region.remote_token, region.address, place, length)
        self.named += [self.regions["main"].local_token, self.regions["inbox"].local_token, 0]
        self.big = self.pd.register_mr(Mdl(bytes(65536), address=1 << 32))
        self.listener = self.adapter.listen()
        make_small(self.listener)
        self.good = Good(self)
        self.take: Callable[[list[Result]], None] = _nothing_else
        self.refill()
        self.settle()
        self.base = self.state()
        self._own_descriptors = self._descriptors() - descriptors

    # ---- time

    def go(self) -> None:
        """Let everything happen that can happen now. Raises AssertionError: it goes on and on."""
        for _ in range(_PATIENCE):
            if not self.engine.step() + self.runtime.callbacks.run():
                return
        raise AssertionError(f"the engine is still busy after {_PATIENCE} steps: {self.engine.channels}")

    def pass_time(self, seconds: float) -> None:
        """Let time pass, from one timer to the next."""
        end = self.engine.clock + seconds
        for _ in range(_PATIENCE):
            self.go()
            due = self.engine.next_timer
            if due is None or due > end:
                self.engine.clock = end
                return
            self.engine.clock = max(self.engine.clock, due)
        raise AssertionError(f"{_PATIENCE} timers within {seconds} s")

    def settle(self) -> None:
        """Loans and the like run out."""
        self.pass_time(0.2)

    # ---- memory

    def refill(self) -> None:
        """Every octet of the arena as at the beginning."""
        self.arena[:] = SECRET * (ARENA // len(SECRET))
        for name, place, length, _ in _REGIONS:
            if name not in _HIDDEN:
                self.arena[place : place + length] = bytes(length)

    def check_memory(self) -> None:
        """Raises AssertionError: something is written where nobody may write."""
        at = 0
        for name, place, length, _ in (*_REGIONS, ("the end", ARENA, 0, _NONE)):
            self._check_secret(at, place, f"the gap before {name}")
            if name == "readable":
                assert not any(self.arena[place : place + length]), "a region that may only be read was written"
            elif name == "secret":
                self._check_secret(place, place + length, name)
            at = place + length

    def check_limits(self, listener: Listener) -> None:
        """Raises AssertionError: more is kept of peers than the settings allow."""
        config, context = self.config, self.adapter._context
        waiting = Counter(item._source_host for item in listener._unanswered if item._unanswered)
        starting = listener._handshakes_of
        for what, count, limit in (
            ("requests", waiting.total(), config.max_pending_requests),
            ("requests of one address", max(waiting.values(), default=0), config.max_pending_requests_per_address),
            ("start-ups", len(listener._handshakes), config.max_handshakes),
            ("start-ups of one address", max(starting.values(), default=0), config.max_handshakes_per_address),
            ("connectors", context._open.get(ObjectType.CONNECTOR, 0), config.max_connector_count),
        ):
            assert count <= limit, f"{count} {what} wait, limit {limit}"

    def _check_secret(self, start: int, end: int, what: str) -> None:
        assert self.arena[start:end] == (SECRET * (ARENA // len(SECRET)))[start:end], f"{what} was written"

    def sge(self, name: str, offset: int, length: int) -> Sge:
        """An SGE over a region, from `offset`, cut off at its end."""
        region = self.big if name == "big" else self.regions[name]
        offset = min(offset, region.length)
        return Sge(region.address + offset, min(length, region.length - offset), LocalToken(region.local_token))

    # ---- what is left

    def state(self) -> dict[str, object]:
        """All that an input must leave as it was. The token table and the lists are looked at from inside."""
        context, engine, listener = self.adapter._context, self.engine, self.listener
        return {
            "objects": self.adapter.open_objects,
            "counts": {kind: count for kind, count in context._open.items() if count},
            "tokens": len(context.datapath.tokens),
            "channels": sorted(type(channel).__name__ for channel in engine.channels),
            "loans": len(engine._loans),
            "start-ups": (len(listener._handshakes), dict(listener._handshakes_of)),
            "requests": (len(listener._requests), len(listener._untold)),
            "endpoints": self._endpoints(),
            "queues": (len(self.receive_cq._ring), len(self.initiator_cq._ring), len(self.receive_cq._line)),
            "statuses": (self.receive_cq.status, self.initiator_cq.status),
            "connections": len(self.adapter.query_connections()),
            "active_connection": self.adapter.query_statistics().active_connection,
            "descriptors": self._descriptors(),
            "threads": threading.active_count(),
            "regions": [(region.address, region.remote_token) for region in self.regions.values()],
        }

    @property
    def channels(self) -> int:
        """How many the engine serves between two inputs."""
        found = self.base["channels"]
        assert isinstance(found, list)
        return len(found)

    @property
    def lasting_channels(self) -> int:
        """How many of them outlive the adapter's failure: what answers `softndk status`."""
        found = self.base["channels"]
        assert isinstance(found, list)
        return found.count("StatusChannel")

    def leave(self) -> None:
        """The input is over: results that still come are nobody's."""
        self.take = _nothing_else

    def begin(self) -> None:
        """Before an input: other adapters may have been opened and closed meanwhile."""
        self.base["descriptors"] = self._descriptors()

    def _descriptors(self) -> int:
        """Of this process, without those of seats, which the engine keeps for the next wait."""
        assert self.engine._station is not None
        return len(os.listdir("/proc/self/fd")) - len(self.engine._station.seats)

    def _endpoints(self) -> set[tuple[str, int]]:
        """Addresses that objects of this adapter hold."""
        found = ENDPOINTS._holders.items()
        return {address for address, holders in found if any(_runtime_of(item) is self.runtime for item in holders)}

    def check_base(self) -> None:
        """Raises AssertionError: an input has left something behind."""
        now = self.state()
        for name, value in self.base.items():
            assert now[name] == value, f"left behind, {name}: {now[name]}, before {value}"
        self.runs += 1

    def check_failed(self) -> None:
        """After the adapter has failed. Raises AssertionError: what was made before is not closed completely."""
        self.good.check_failed()
        now = self.state()
        for name in (
            "objects",
            "counts",
            "tokens",
            "loans",
            "start-ups",
            "requests",
            "endpoints",
            "threads",
            "regions",
        ):
            assert now[name] == self.base[name], f"left behind, {name}: {now[name]}, before {self.base[name]}"
        assert now["connections"] == 0, f"a failed adapter has {now['connections']} connections"
        closing, _ = self.adapter._close_tree()
        self.pass_time(self.config.terminate_drain_s + 1.0)
        assert closing.done(), f"a failed adapter does not close: {closing!r}"
        assert not self.adapter.open_objects, f"behind the close: {self.adapter.open_objects}"
        assert self.engine.ended, f"the engine of a failed adapter goes on: {self.engine.channels}"
        assert not self._endpoints(), f"behind the close addresses are held: {self._endpoints()}"
        left, expected = len(os.listdir("/proc/self/fd")), self.base["descriptors"]
        assert isinstance(expected, int)
        assert left == expected - self._own_descriptors, f"behind the close {left} descriptors, before {expected}"

    def close(self) -> None:
        """Give everything back, in whatever state it is."""
        self.adapter._close_tree()
        self.runtime.callbacks.run()
        self.adapter._runtime.engine.stop()
        for _ in range(3):
            self.engine.step()


@contextmanager
def no_descriptors() -> Iterator[None]:
    """Inside, this process can open no descriptor."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    lowest = os.open(os.devnull, os.O_RDONLY)
    os.close(lowest)
    resource.setrlimit(resource.RLIMIT_NOFILE, (lowest, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def make_small(listener: Listener) -> None:
    """What it accepts has small buffers to send: a peer that does not read is soon felt."""
    for channel in listener._sockets:
        assert channel._sock is not None
        channel._sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, SMALL)


class Good:
    """The connection beside: a Send, a Write and a Read, and what they must come to; the other way each time."""

    def __init__(self, world: World) -> None:
        self._world = world
        self._octets = bytearray(2 * 256)
        self._number = 0
        self._regions = [
            world.pd.register_mr(Mdl(memoryview(self._octets)[at : at + 256], address=1 << 40), _READ | _WRITE)
            for at in (0, 256)
        ]
        self._qps = [
            world.pd.create_qp(
                world.receive_cq,
                world.initiator_cq,
                receive_queue_depth=4,
                initiator_queue_depth=4,
                context=self,
            )
            for _ in range(2)
        ]
        connecting = world.adapter.connect(self._qps[0], world.listener.local_address)
        world.go()
        self._passive = world.listener.next_request().result(0)
        accepting = self._passive.accept(self._qps[1])
        world.go()
        self._active = connecting.result(0)
        accepting.result(0)

    @property
    def traffic(self) -> tuple[int, ...]:
        """FPDUs in and out, octets in and out, of both ends."""
        cores = [end._core for end in (self._active, self._passive) if end._core is not None]
        return tuple(sum(column) for column in zip(*(core.traffic for core in cores), strict=True))

    def check(self) -> None:
        """Raises AssertionError: the connection is disturbed. What other results there are goes to `world.take`."""
        world = self._world
        self._number += 1
        here, there = 1 - self._number % 2, self._number % 2  # the active side first: it may have to (RFC 5044 7.1.3)
        word = self._number.to_bytes(8, "big") * 2
        mine, theirs = self._regions[here], self._regions[there]
        near, far = memoryview(self._octets)[256 * here :], memoryview(self._octets)[256 * there :]
        near[:16] = word
        token, address = RemoteToken(theirs.remote_token), theirs.address
        self._qps[there].receive(theirs[64:96], context=("receive", self._number))
        self._qps[here].write(mine[0:16], address + 128, token, context=("write", self._number))
        self._qps[here].send(mine[0:16], context=("send", self._number))
        self._qps[here].read(mine[192:208], address + 128, token, context=("read", self._number))
        found: list[Result] = []
        for _ in range(ROUNDS):
            world.go()
            others: list[Result] = []
            for cq in (world.receive_cq, world.initiator_cq):
                for result in cq.get_results():
                    (found if result.qp_context is self else others).append(result)
            world.take(others)
            if len(found) >= 4:
                break
        due = [
            (OperationType.RECEIVE, Status.SUCCESS, 16, ("receive", self._number)),
            (OperationType.WRITE, Status.SUCCESS, 0, ("write", self._number)),
            (OperationType.SEND, Status.SUCCESS, 0, ("send", self._number)),
            (OperationType.READ, Status.SUCCESS, 0, ("read", self._number)),
        ]
        found.sort(key=lambda item: not item.is_receive)
        got = [(item.type, item.status, item.bytes_transferred, item.request_context) for item in found]
        assert got == due, f"the good connection has {got}"
        for octets in (far[64:80], far[128:144], near[192:208]):
            assert octets == word, f"the good connection's data are {octets.hex()}, sent were {word.hex()}"
        assert not self._active.disconnected.done(), "the good connection has ended"

    def check_failed(self) -> None:
        """Raises AssertionError: the adapter has failed, and this does not say so."""
        for end, qp in ((self._active, self._qps[0]), (self._passive, self._qps[1])):
            assert end.disconnected.done(), f"{end} of a failed adapter goes on"
            how = end.disconnected.result(0)
            assert how.error is not None, f"{end} of a failed adapter has ended gracefully"
            assert isinstance(how.error, Aborted), f"{end} of a failed adapter says {how.error!r}"
            try:
                qp.send(b"")
            except ConnectionInvalid:
                continue
            raise AssertionError(f"{qp} of a failed adapter takes a request")


def _runtime_of(item: object) -> object:
    return item._context.runtime if isinstance(item, NdkObject) else None


def _nothing_else(results: list[Result]) -> None:
    assert not results, f"results of nobody: {results}"
