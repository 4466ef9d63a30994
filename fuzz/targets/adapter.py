"""Adapter: a real adapter on real sockets, through its public objects, between hostile peers and a busy program.

An input is one program of both sides. The peers connect (or are connected to), send almost-right streams cut anywhere, FIN
and RST; the program accepts, rejects, posts, invalidates, closes, waits and looks. Engine and callbacks are stepped by
hand, time is a number (`fuzz.stepped`), so an input is one order of events. Checked: every request completes once, in
order, with a documented status, also when the adapter fails as a whole; calls and Pendings fail with documented errors
only; objects are made exactly as long as their limits have room; octets that were sent are counted or still in TCP; the
good connection beside goes on; and at the end the adapter is as before (`fuzz.world`).
"""

import fcntl
import os
import select
import socket
import sys
import termios
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from typing import Final

from fuzz import era
from fuzz import peer as peers
from fuzz.hostile import Hostile
from fuzz.peer import IMMEDIATE, MESSAGES, SPOIL, SPOILS
from fuzz.program import POSTS, READ_LIMITS, Link, Program
from fuzz.records import Record, head_of, join, records_of
from fuzz.world import IPV6, KINDS, LIMITS, SMALL, World, make_small, no_descriptors
from softndk import AdapterUnavailable, Connector, InsufficientResources, InvalidHandle, Listener, Qp, Status
from softndk.iwarp.qp_state import State
from softndk.testing import fail_adapter

__all__ = ["OPERATIONS", "check", "seeds"]

DELIVER: Final = 9
CONNECT: Final = 10
ANSWER: Final = 11
DIAL: Final = 12
START: Final = 13
COMPLETE: Final = 14
FIN: Final = 15
RESET: Final = 16
DEAF: Final = 17
SELECT: Final = 18
TIME: Final = 19
GOOD: Final = 20
RECEIVE: Final = 21
POST: Final = 22
FLUSH: Final = 23
DISCONNECT: Final = 24
CLOSE: Final = 25
PAUSE: Final = 26
QUEUE: Final = 27
MEMORY: Final = 28
LOOK: Final = 29
STEP: Final = 30
LISTEN: Final = 31
HOARD: Final = 35
FAIL: Final = 36
STARVE: Final = 37

OPERATIONS: Final = (
    *MESSAGES,
    *[SPOIL] * 5,
    *[DELIVER] * 5,
    *[CONNECT] * 3,
    *[ANSWER] * 3,
    *[DIAL] * 2,
    *[COMPLETE] * 2,
    *[RECEIVE] * 3,
    *[POST] * 6,
    *[CLOSE] * 2,
    *[QUEUE] * 2,
    *[MEMORY] * 2,
    *(HOARD, HOARD, FAIL, STARVE),
    *(START, FIN, RESET, DEAF, SELECT, TIME, TIME, GOOD, FLUSH, DISCONNECT, PAUSE, LOOK, STEP, LISTEN),
)

MAX_LINKS: Final = 5
MAX_CHUNKS: Final = 96
"""Of one delivery: long messages octet by octet take long and show nothing that short ones do not."""
ALL: Final = 1 << 20
ROUND: Final = 16
"""Steps of an input between two looks at the good connection."""
LONGEST_END_S: Final = 10.0
"""After everything has been closed: the drain limit is the longest that still runs then."""
_TRAFFIC: Final = ("rdma_in_frames", "rdma_out_frames", "rdma_in_octets", "rdma_out_octets")
_GLOBAL, _OF_STARTUP = bytes.fromhex("02080000"), bytes.fromhex("20050000")
"""With what a failing adapter ends a connection, and one whose start-up is not complete; without headers."""
_LOOKS, _LOOK_S = 100, 0.1
_TIMES: Final = (0.006, 0.3, 2.5, 6.0, 11.0, 31.0, 0.05, 1.0)
_SPELLINGS: Final = {
    socket.AF_INET: ("127.0.0.1", "127.0.0.1", "0.0.0.0"),
    socket.AF_INET6: ("::1", "0:0:0:0:0:0:0:1", "::"),
}
"""The adapter's address, the same written in another way, and all addresses of the family."""
SIOCOUTQNSD: Final = 0x894B
"""Linux: how many octets TCP has taken and not sent."""


def check(data: bytes) -> None:
    """Run one input. Raises: AssertionError, or whatever escapes from the code under test."""
    head = head_of(data)
    kind = head[0] % KINDS
    with era.watched():
        run = _Run(era.world(kind), head)
        try:
            for record in records_of(data):
                run.do(record)
            run.finish()
            if run.failed:
                era.replace(kind)
        except BaseException:
            run.abandon()
            raise


class _Run:
    """One input being run."""

    def __init__(self, world: World, head: bytes) -> None:
        modes = head[1]
        self.world = world
        world.begin()
        self.before = world.adapter.query_statistics()
        self.traffic = world.good.traffic
        self.program = Program(world, modes)
        self.accounts = self.program.accounts
        self.links = self.program.links
        self.calls_back, self.small, self.raises = bool(modes & 4), bool(modes & 8), bool(modes & 16)
        self.ending = head[2]
        self.failed = False
        """The adapter, as a whole."""
        self.queues = 0
        """CQs that have failed with it, and before."""
        self.at = 0
        self.steps = 0
        self.starving = False
        """The process has no descriptor for what the adapter does next."""
        self.retired: list[Hostile] = []
        """Peers of first attempts, when there was a second."""
        self.listener: Listener | None = None
        """One of this input's own, which it may close."""
        self.door: socket.socket | None = None
        """Where the peers are connected to."""
        world.take = self.accounts.take

    # ---- steps

    def do(self, record: Record) -> None:
        op = record.op
        self.steps += 1
        if op <= SPOIL or IMMEDIATE <= op < IMMEDIATE + 3:
            if self.hostile is not None:
                self.hostile.peer.do(record)
        elif op in _STEPS:
            _STEPS[op](self, record)
            self.look()
        if self.steps % ROUND == 0:
            self.check_good()

    @property
    def link(self) -> Link | None:
        """The one that most steps are about."""
        return self.links[self.at] if self.links else None

    @property
    def hostile(self) -> Hostile | None:
        return None if self.link is None else self.link.hostile

    @property
    def connector(self) -> Connector | None:
        return None if self.link is None else self.link.connector

    def add(self, hostile: Hostile | None) -> Link:
        link = Link(hostile)
        self.links.append(link)
        self.at = len(self.links) - 1
        return link

    def hostiles(self) -> list[Hostile]:
        return [*self.retired, *(link.hostile for link in self.links if link.hostile is not None)]

    def select(self, record: Record) -> None:
        if self.links:
            self.at = record.flag % len(self.links)

    def go(self) -> None:
        """Everything that can happen now happens, and the peers take what has come to them."""
        moved = 1
        while moved:
            self.world.go()
            self.open_door()
            moved = sum(hostile.read() for hostile in self.hostiles() if hostile.reading)
        self.claim()

    def look(self) -> None:
        """Raises AssertionError: something is wrong already."""
        assert not era.complaints, f"nobody has caught: {era.complaints[0]}"
        for link in self.links:
            if link.hostile is not None and link.connector is not None:
                self.check_octets(link.hostile, link.connector)
        for listener in (self.world.listener, self.listener):
            if listener is not None:
                self.world.check_limits(listener)

    @staticmethod
    def check_octets(hostile: Hostile, connector: Connector) -> None:
        """What a peer has sent is counted by the adapter, or still in TCP."""
        core, stream = connector._core, connector._stream
        if not hostile.alive or hostile.reset_seen or core is None or stream is None or stream._sock is None:
            return
        if stream._send_error is not None or stream.local_address != hostile.other:
            return
        counted = core.traffic[2] - hostile.counted
        for _ in range(1000):  # almost always at once: TCP delivers in the sender's call
            try:
                in_tcp = _amount(hostile.sock, SIOCOUTQNSD) + _amount(stream._sock, termios.FIONREAD)
            except OSError:
                return
            if counted + in_tcp == hostile.sent:
                return
            os.sched_yield()
        raise AssertionError(f"{hostile.sent} octets were sent, {counted} are counted, {in_tcp} are in TCP")

    # ---- the peers

    def connect(self, record: Record) -> None:
        """A peer connects; `flag`: from where, 4: its Request waits for a DELIVER, from 8 on: of the Request."""
        if len(self.links) >= MAX_LINKS:
            return
        listener = self.listener or self.world.listener
        sock = socket.socket(self.world.family, socket.SOCK_STREAM)
        if self.small:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, SMALL // 2)
        try:
            sock.bind((self.source(2 + record.flag % 3), 0))
            sock.connect((self.world.host, listener.local_address[1]))
        except OSError:  # nobody listens any more
            sock.close()
            return
        hostile = Hostile(sock, self.program.named, self.program.memories, active=True)
        self.add(hostile)
        hostile.make_start(record._replace(flag=record.flag >> 3), strict=not record.flag & 0x80)
        with no_descriptors() if self.starving else nullcontext():
            if not record.flag & 4:
                self.send(hostile, ALL, ALL, step=True)
            self.go()

    def source(self, number: int) -> str:
        """An address of a peer: other ones in each input, so that no pair of ports has to rest. Of IPv6 there is one."""
        if self.world.family == socket.AF_INET6:
            return self.world.host
        return f"127.{1 + self.world.runs % 250}.0.{number}"

    def claim(self) -> None:
        """The requests that listeners hand out become links' connectors."""
        for listener in (self.world.listener, self.listener):
            if listener is None or (listener is self.listener and self.calls_back):
                continue
            while True:
                pending = self.accounts.call("Listener.next_request", listener.next_request)
                if pending is None or not pending.done():
                    break
                error = pending.exception(0)
                if error is not None:
                    expected = AdapterUnavailable if self.failed else InvalidHandle
                    assert isinstance(error, (expected, InvalidHandle)), f"next_request fails with {error!r}"
                    break
                self.own(pending.result(0))

    def own(self, connector: Connector) -> None:
        """Find out whose request it is."""
        address = connector.peer_address
        (link,) = [item for item in self.links if item.hostile is not None and item.hostile.address == address]
        assert link.connector is None, "two requests of one connection"
        link.connector = connector

    def on_connect(self, connector: Connector) -> None:
        self.own(connector)
        if self.program.reacts:
            self.at = [link.connector for link in self.links].index(connector)
            self.answer(Record(ANSWER, self.ending & 0x77 | 8, 0, self.ending, 0))
        if self.raises:
            raise era.WantedError

    def start(self, record: Record) -> None:
        if self.hostile is not None:
            self.hostile.make_start(record, strict=False)

    def send(self, hostile: Hostile, most: int, chunk: int, *, step: bool) -> None:
        octets = hostile.take(most)
        size = max(chunk, len(octets) // MAX_CHUNKS)
        for at in range(0, len(octets), size):
            hostile.send(octets[at : at + size])
            if step:
                self.world.engine.step()

    def deliver(self, record: Record) -> None:
        """`x`: octets of a chunk; `flag`: 1: no step between two, 2: not all, 4: nor behind them."""
        if self.hostile is not None:
            most = 1 + record.y % 64 if record.flag & 2 else ALL
            self.send(self.hostile, most, record.x % 600 or ALL, step=not record.flag & 1)
            if not record.flag & 4:
                self.go()

    def fin(self, record: Record) -> None:
        if self.hostile is not None:
            self.hostile.send_fin()
            if not record.flag & 1:
                self.go()

    def reset(self, record: Record) -> None:
        if self.hostile is not None:
            self.hostile.reset()
            if not record.flag & 1:
                self.go()

    def deaf(self, record: Record) -> None:
        """The peer reads no more, or again."""
        if self.hostile is not None:
            self.hostile.reading = not self.hostile.reading
            self.go()

    # ---- connections of the program

    def answer(self, record: Record) -> None:
        """Accept, reject (6), or close without an answer (7); `flag`: 8: and go on at once, from 16 on: receives."""
        link, connector, way = self.link, self.connector, record.flag % 8
        if link is None or connector is None:
            return
        data = b"answer" * (record.x % 90 if record.x % 3 else 0)
        if way == 6:
            self.accounts.call("Connector.reject", lambda: connector.reject(data))
        elif way == 7:
            self.program.close(connector, link)
        elif (qp := self.program.qp(link, record)) is not None:
            for _ in range(record.flag >> 4):
                self.program.receive(link, Record(RECEIVE, 0, 0, 0, 64))
            pending = self.accounts.pend(
                "Connector.accept",
                lambda: connector.accept(
                    qp,
                    inbound_read_limit=READ_LIMITS[record.y % 5],
                    outbound_read_limit=READ_LIMITS[record.y // 5 % 5],
                    private_data=data,
                    on_disconnect=self.program.hear_end(link),
                ),
            )
            if pending is not None:
                pending.add_done_callback(self.program.count_accept)
        if not record.flag & 8:
            self.go()

    def dial(self, record: Record) -> None:
        """We connect to a peer, from a shared endpoint (2), or where none is (3).

        `flag`: 4: in one step, 8: it answers at once, from 16 on: how.
        """
        if len(self.links) >= MAX_LINKS:
            return
        if self.door is None:
            self.door = socket.socket(self.world.family, socket.SOCK_STREAM)
            self.door.bind((self.source(9), 0))
            self.door.listen(8)
            self.door.setblocking(False)
        target = self.door.getsockname()[:2] if record.flag & 3 != 3 else (self.world.host, 1)
        link = self.add(None)
        qp = self.program.qp(link, record)
        if qp is None:
            return
        with no_descriptors() if self.starving else nullcontext():
            self.begin_dial(record, link, qp, target)
        self.go()
        if link.hostile is not None and record.flag & 8:
            link.hostile.make_start(record._replace(flag=record.flag >> 4, x=0), strict=True)
            self.send(link.hostile, ALL, ALL, step=True)
            self.go()

    def begin_dial(self, record: Record, link: Link, qp: Qp, target: tuple[str, int]) -> None:
        adapter, data = self.world.adapter, b"dial" * (record.x % 120 if record.x % 3 else 0)
        if record.flag & 4:
            pending = self.accounts.pend("Adapter.connect", lambda: adapter.connect(qp, target, private_data=data))
            if pending is not None:
                pending.add_done_callback(self.program.count_connect)
                link.connector = qp.connector
        elif (connector := self.accounts.call("Adapter.create_connector", adapter.create_connector)) is not None:
            link.connector = connector
            inbound, outbound = READ_LIMITS[record.y % 5], READ_LIMITS[record.y // 5 % 5]
            if record.flag & 3 == 2 and (endpoint := self.program.endpoint()) is not None:
                self.accounts.pend(
                    "Connector.connect_with_shared_endpoint",
                    lambda: connector.connect_with_shared_endpoint(
                        qp,
                        endpoint,
                        target,
                        inbound_read_limit=inbound,
                        outbound_read_limit=outbound,
                        private_data=data,
                    ),
                )
            else:
                self.accounts.pend(
                    "Connector.connect",
                    lambda: connector.connect(
                        qp, target, inbound_read_limit=inbound, outbound_read_limit=outbound, private_data=data
                    ),
                )

    def open_door(self) -> None:
        """Whom we have connected to; a second attempt of one connect has another peer."""
        while self.door is not None:
            try:
                sock, address = self.door.accept()
            except BlockingIOError:
                return
            except OSError:
                if self.starving:
                    return
                raise
            hostile = Hostile(sock, self.program.named, self.program.memories, active=False)
            link = self.dialled(address[:2])
            if link is None:  # given up meanwhile
                self.retired.append(hostile)
                continue
            if link.hostile is not None:
                self.retired.append(link.hostile)
            assert link.connector is not None
            assert link.connector._core is not None
            hostile.counted = link.connector._core.traffic[2]
            link.hostile = hostile

    def dialled(self, address: tuple[str, int]) -> Link | None:
        """Whose connector has that local address."""
        for link in self.links:
            stream = None if link.connector is None else link.connector._stream
            if stream is not None and not stream.closed and stream.local_address == address:
                return link
        return None

    def complete(self, record: Record) -> None:
        """Complete the connect, refuse (7), or give it up (6)."""
        link, connector, way = self.link, self.connector, record.flag % 8
        if link is None or connector is None:
            return
        if way == 7:
            self.accounts.call("Connector.reject", connector.reject)
        elif way == 6:
            self.cut_off(link.hostile)
            for _, pending in self.accounts.pendings[-1:]:
                pending.cancel()
        else:
            completed = self.accounts.pend(
                "Connector.complete_connect",
                lambda: connector.complete_connect(on_disconnect=self.program.hear_end(link)),
            )
            if completed is not None:
                completed.add_done_callback(self.program.count_connect)
        if not record.flag & 8:
            self.go()

    @staticmethod
    def cut_off(hostile: Hostile | None) -> None:
        if hostile is not None:
            hostile.cut_off = True

    def disconnect(self, record: Record) -> None:
        connector = self.connector
        if connector is not None:
            self.accounts.pend("Connector.disconnect", connector.disconnect)
            self.go()

    def flush(self, record: Record) -> None:
        if self.link is not None and self.link.qp is not None:
            self.cut_off(self.hostile)
            self.accounts.call("Qp.flush", self.link.qp.flush)
            self.go()

    def close(self, record: Record) -> None:
        """Close a connector, a QP, the listener, or what else the program has."""
        link, way = self.link, record.flag % 8
        if way < 4:
            if link is not None and way < 2 and link.connector is not None:
                self.program.close(link.connector, link)
            elif link is not None and way == 2 and link.qp is not None:
                self.program.close(link.qp, link)
            elif way == 3 and self.listener is not None:
                self.program.close(self.listener)
        else:
            self.program.close_some(way - 4)
        if not record.flag & 8:
            self.go()

    def listen(self, record: Record) -> None:
        """At the adapter's address in one of its spellings (`flag`, 1), or at all addresses (2)."""
        if self.listener is not None:
            return
        adapter, way = self.world.adapter, record.flag % 3
        listener = self.accounts.call(
            "Adapter.create_listener", lambda: adapter.create_listener(self.on_connect if self.calls_back else None)
        )
        if listener is None:
            return
        self.listener = listener
        own, spelt, every = _SPELLINGS[self.world.family]
        listening = self.accounts.pend("Listener.listen", lambda: listener.listen(((own, spelt, every)[way], 0)))
        assert listening is not None
        assert listening.exception(0) is None, f"listen fails: {listening.exception(0)}"
        host, port = listener.local_address
        assert host == (every if way == 2 else own), f"listens at {host}, asked was {(own, spelt, every)[way]}"
        assert (host, port) in [item.local for item in adapter.query_local_endpoints()]
        make_small(listener)
        self.go()

    def pause(self, record: Record) -> None:
        listener, pause = self.listener or self.world.listener, bool(record.flag & 1)
        self.accounts.call("Listener.control_connect_events", lambda: listener.control_connect_events(pause=pause))

    # ---- the rest of the program

    def receive(self, record: Record) -> None:
        self.program.receive(self.link, record)
        if record.flag & 2:
            self.go()

    def post(self, record: Record) -> None:
        self.program.post(self.link, record)
        if not record.flag & 0x80:
            self.go()

    def use_queue(self, record: Record) -> None:
        self.program.use_queue(record)
        if record.flag & 0x10:
            self.go()

    def use_memory(self, record: Record) -> None:
        self.program.use_memory(record)
        self.go()

    def query(self, record: Record) -> None:
        self.program.look()
        self.world.check_memory()

    def step(self, record: Record) -> None:
        for _ in range(1 + record.flag % 4):
            self.world.engine.step()
        self.world.runtime.callbacks.run()

    def time(self, record: Record) -> None:
        for hostile in self.hostiles():
            hostile.cut_off = True
        self.world.pass_time(_TIMES[record.flag % len(_TIMES)])
        self.go()

    def good(self, record: Record) -> None:
        self.check_good()

    def check_good(self) -> None:
        if self.failed:
            self.world.good.check_failed()
        else:
            self.world.good.check()

    # ---- limits, and the adapter's failure

    def hoard(self, record: Record) -> None:
        self.program.hoard(record)
        self.go()

    def starve(self, record: Record) -> None:
        """Something is done while the process has no descriptor left: a peer connects, the program connects or waits, or
        takes an address, which is refused. Then there are descriptors again, and time for what had to wait.
        """
        way, adapter, host = record.flag % 5, self.world.adapter, self.world.host
        if way < 2:
            self.starving = True
            (self.connect if way else self.dial)(record._replace(flag=record.flag >> 3))
            self.starving = False
        elif way == 2:
            with no_descriptors():
                self.program.use_queue(record._replace(flag=record.flag >> 3 & 8 | 3))
        elif way == 3:
            with no_descriptors():
                made = self.accounts.call(
                    "Adapter.create_shared_endpoint", lambda: adapter.create_shared_endpoint((host, 0))
                )
            assert made is None, f"{made} without a descriptor"
        elif (listener := self.accounts.call("Adapter.create_listener", adapter.create_listener)) is not None:
            with no_descriptors():
                listening = self.accounts.pend("Listener.listen", lambda: listener.listen((host, 0)))
            assert listening is not None
            assert isinstance(listening.exception(0), InsufficientResources), f"{listener} without a descriptor"
            self.program.close(listener)
        self.time(Record(TIME, 7))
        for acceptor in (self.world.listener, self.listener):
            resting = [] if acceptor is None else [item for item in acceptor._sockets if item._resting]
            assert not resting, f"{acceptor} accepts nothing although there are descriptors again"

    def fail(self, record: Record) -> None:
        """The adapter fails as a whole. Everything completes; each peer that has a connection hears of it, and it ends."""
        if self.failed:
            return
        self.go()
        self.program.take_all()
        told = [item for item in self.hostiles() if item.reading and item.alive and not item.terminates]
        told = [item for item in told if not (item.fin_seen or item.reset_seen or item.fin_sent)]
        assert not any(item.last_word == _GLOBAL for item in self.hostiles()), "told of a failure that was not there"
        connected = [item for item in told if self.is_connected(item)]
        failed_before = self.world.adapter.query_statistics().cq_error - self.before.cq_error
        self.queues = failed_before + self.program.good_queues()
        self.failed = True
        self.accounts.fail()
        fail_adapter(self.world.adapter, "the fuzzer has asked for it")
        self.go()
        for hostile in told:
            assert self.await_end(hostile), f"a failed adapter leaves {hostile.address} alone"
            assert hostile.last_word in (b"", _GLOBAL, _OF_STARTUP), f"it says {hostile.last_word.hex()}"
        for hostile in connected:
            assert hostile.last_word == _GLOBAL or hostile.reset_seen, f"{hostile.address} hears nothing of the failure"
        self.check_good()

    def await_end(self, hostile: Hostile) -> bool:
        """Whether its connection ends. What is before the end in TCP may have to wait for an acknowledgement, in real time."""
        for _ in range(_LOOKS):
            if hostile.fin_seen or hostile.reset_seen:
                return True
            select.select([hostile.sock], [], [], _LOOK_S)
            self.go()
        return False

    def is_connected(self, hostile: Hostile) -> bool:
        """A connection that data may pass on."""
        connectors = [link.connector for link in self.links if link.hostile is hostile and link.connector is not None]
        return any(item._core is not None and item._core.state is State.RTS for item in connectors)

    # ---- the end

    def finish(self) -> None:
        """The peers send the rest and end it, or do not; then the program closes everything, and nothing may be left."""
        way = self.ending % 4
        for hostile in self.hostiles():
            if way < 3:
                self.send(hostile, ALL, ALL, step=True)
            if way == 1:
                hostile.send_fin()
            elif way == 2:
                hostile.reset()
        self.go()
        self.look()
        self.program.close_all()
        if self.listener is not None:
            self.program.close(self.listener)
        self.world.listener.control_connect_events(pause=False)
        self.wait_for_the_end()
        self.shut()
        self.world.settle()
        if self.failed:
            self.check_failed()
        else:
            self.check_all()

    def wait_for_the_end(self) -> None:
        """All that is closed ends within its time limits."""
        engine, program = self.world.engine, self.program
        limit = engine.clock + LONGEST_END_S
        while True:
            self.go()
            program.take_all()
            if self.accounts.is_settled and program.cq is not None and not program.cq.closing:
                program.close(program.cq)
                self.go()
            lasting = self.world.lasting_channels if self.failed else self.world.channels
            if self.accounts.is_settled and len(engine.channels) == lasting:
                return
            due = engine.next_timer
            if due is None or due > limit:
                raise AssertionError(f"no end in sight: {self.accounts.waiting()}, {engine.channels}")
            engine.clock = max(due, engine.clock)

    def shut(self) -> None:
        """The peers' sockets are given back."""
        self.open_door()
        for hostile in self.hostiles():
            hostile.read()
            hostile.check_end()
            hostile.reset()
        if self.door is not None:
            self.door.close()
        self.program.release()

    def check_all(self) -> None:
        self.look()
        self.program.check()
        self.check_counters()
        self.world.check_memory()
        self.world.refill()
        self.world.good.check()
        self.world.leave()
        self.world.check_base()

    def check_failed(self) -> None:
        self.look()
        self.program.check()
        self.check_counters()
        self.world.check_memory()
        self.world.leave()
        self.world.check_failed()

    def check_counters(self) -> None:
        now, before, program = self.world.adapter.query_statistics(), self.before, self.program
        broken = sum(not how.graceful for link in self.links for how in link.ends)
        assert now.accept - before.accept == program.accepted, "accepted connections"
        assert now.connect - before.connect == program.connected, "connected connections"
        unknown = sum(link.hostile.sent for link in self.links if link.hostile is not None and link.connector is None)
        for name, total, earlier in zip(_TRAFFIC, self.moved(), self.traffic, strict=True):
            counted = getattr(now, name) - getattr(before, name)
            most = total - earlier + (unknown if name == "rdma_in_octets" else 0)  # of peers that gave up unseen
            assert total - earlier <= counted <= most, f"{name} says {counted}, the connections {total - earlier}"
        active = 0 if self.failed else before.active_connection
        assert now.active_connection == active, "active connections"
        assert now.connection_error - before.connection_error >= broken, "broken connections"
        assert now.connect_failure - before.connect_failure <= len(self.links), "failed start-ups"
        failed = program.cq is not None and program.cq.status is not Status.SUCCESS
        assert now.cq_error - before.cq_error == (self.queues if self.failed else failed), "failed queues"

    def moved(self) -> list[int]:
        """FPDUs and octets of all connections, in the order of _TRAFFIC."""
        connectors = [link.connector for link in self.links if link.connector is not None]
        traffic = [item._core.traffic for item in connectors if item._core is not None]
        return [sum(column) for column in zip(self.world.good.traffic, *traffic, strict=True)]

    def abandon(self) -> None:
        """After a finding: these adapters are used no more."""
        for hostile in self.hostiles():
            hostile.reset()
        if self.door is not None:
            self.door.close()
        self.accounts.forget()
        era.forget()


def _amount(sock: socket.socket, question: int) -> int:
    """What TCP says to that question. Raises OSError: this system does not know it."""
    answer = fcntl.ioctl(sock.fileno(), question, bytes(4))
    return int.from_bytes(answer, sys.byteorder)


_STEPS: Final[dict[int, Callable[[_Run, Record], None]]] = {
    DELIVER: _Run.deliver,
    CONNECT: _Run.connect,
    ANSWER: _Run.answer,
    DIAL: _Run.dial,
    START: _Run.start,
    COMPLETE: _Run.complete,
    FIN: _Run.fin,
    RESET: _Run.reset,
    DEAF: _Run.deaf,
    SELECT: _Run.select,
    TIME: _Run.time,
    GOOD: _Run.good,
    RECEIVE: _Run.receive,
    POST: _Run.post,
    FLUSH: _Run.flush,
    DISCONNECT: _Run.disconnect,
    CLOSE: _Run.close,
    PAUSE: _Run.pause,
    QUEUE: _Run.use_queue,
    MEMORY: _Run.use_memory,
    LOOK: _Run.query,
    STEP: _Run.step,
    LISTEN: _Run.listen,
    HOARD: _Run.hoard,
    FAIL: _Run.fail,
    STARVE: _Run.starve,
}


def seeds() -> Sequence[bytes]:
    """A right conversation in each role and kind of world, one of each wrong thing, each end, each request of ours."""
    fourteen = 14 << 8
    up = [Record(CONNECT), Record(ANSWER, 0x40), Record(peers.WRITE, 0, 8, 0, fourteen), Record(DELIVER)]
    out = [Record(DIAL, 8), Record(COMPLETE), Record(DELIVER)]
    send = Record(peers.SEND, 0, 0, 0, fourteen)
    read = Record(peers.READ, 0, 8, 0, fourteen)
    response = Record(peers.RESPONSE, 1)
    terminate = Record(peers.TERMINATE, 2)
    posts = [Record(POST, kind, 0, 7, 40) for kind in range(len(POSTS))]
    found = []
    for kind in range(KINDS):
        for way in range(4):
            found.append(join([kind, 0, way], [*up, send, Record(DELIVER, 0, 5), read, Record(DELIVER), *posts[:3]]))
            found.append(join([kind, 0, way], [*out, send, Record(DELIVER), *posts[:3], response, Record(DELIVER)]))
        for modes in (1, 2, 3, 4, 8, 12, 20, 36, 39):
            own = [Record(LISTEN)] if modes & 4 else []
            found.append(join([kind, modes], [*own, *up, send, send, Record(DELIVER), *posts, Record(DELIVER)]))
    for spoil in range(SPOILS):
        for message in (send, read, Record(peers.WRITE, 0, 8, 0, fourteen)):
            found.append(join([spoil == peers.MARKER], [*up, Record(SPOIL, spoil, 1), message, Record(DELIVER)]))
    for token in range(9):
        found.append(join([0], [*up, Record(peers.READ, token, 8, 0, fourteen), Record(DELIVER)]))
    for post in posts:
        behind = [post, post, Record(DELIVER), response, terminate]
        found.append(join([0], [*up, post._replace(flag=post.flag | 0x80), Record(CLOSE), post]))
        found.append(join([0, 0, 2], [*out, post, Record(RESET), post]))
        found.append(join([0], [*up, *behind]))
    for answer in (6, 7, 0x48):
        found.append(join([0], [Record(CONNECT), Record(ANSWER, answer, 4), Record(FIN)]))
    for way in range(8):
        window = [posts[5], posts[4], Record(CLOSE, way), posts[6], send, Record(DELIVER)]
        found.append(join([0, 6], [Record(LISTEN), *up, *window]))
    found.append(join([0], [Record(CONNECT, flag) for flag in (0, 1, 2, 4, 5)]))
    found.append(join([0], [*[Record(CONNECT, 4)] * 4, Record(TIME, 3), Record(GOOD)]))
    found.append(join([0], [Record(PAUSE, 1), Record(CONNECT), Record(PAUSE), Record(CONNECT), Record(ANSWER)]))
    found.append(
        join([2], [Record(DIAL), Record(FIN), Record(DIAL, 4), Record(RESET), Record(START), Record(COMPLETE)])
    )
    for flag in (0, 2, 3, 4, 10, 12):
        found.append(
            join([0], [Record(DIAL, flag), Record(COMPLETE, 6), Record(DIAL, flag), Record(CLOSE), Record(TIME, 4)])
        )
    deaf = [Record(DEAF), *[Record(POST, 0, 0xC0, 0, 40)] * 12]
    for end in ([Record(TIME, 1), Record(DEAF), Record(TIME, 2)], [Record(DISCONNECT)], [Record(FIN), Record(CLOSE)]):
        found.append(join([0, 8], [*up, *deaf, *end, Record(TIME, 4)]))
    for way in range(8):
        earlier, later = Record(QUEUE, way, 2, 3), Record(QUEUE, way | 16, 4)
        found.append(join([0, 1], [*up, send, earlier, send, Record(DELIVER), later]))
        found.append(join([0], [*up, send, earlier, Record(DELIVER, 4), later]))
    found.append(join([0], [*up, Record(FIN), posts[1], Record(RESET), Record(TIME, 2)]))
    for kind, modes in ((1, 0), (0, 2)):  # a message that waits for a receive, and what is behind it when TCP is lost
        waiting = [Record(CONNECT), Record(ANSWER), *up[2:], send, Record(DELIVER), terminate, Record(DELIVER)]
        found.append(join([kind, modes], [*waiting, Record(RESET), Record(TIME, 1)]))
        found.append(join([kind, modes], [*waiting, Record(RECEIVE, 2, 0, 0, 64), Record(TIME, 3)]))
    for last in ([terminate, Record(DELIVER, 4)], [send, Record(DELIVER, 4), Record(FIN, 1)], []):
        found.append(join([0], [*up, *last, Record(RESET, 1), posts[0], posts[1], Record(TIME, 1)]))
    found.append(join([0], [*[Record(CONNECT, flag) for flag in (0, 0, 1, 1, 0)], Record(LOOK)]))
    found.append(join([0], [*up, Record(DISCONNECT), Record(FIN), Record(LOOK)]))
    found.append(join([0], [*up, Record(FIN), Record(DISCONNECT), Record(STEP, 3)]))
    for reason in (Record(FIN), Record(RESET), terminate):
        found.append(join([0, 32], [*up, send, reason, Record(DELIVER), Record(TIME, 2)]))
    found.append(join([0], [*up, Record(FLUSH), posts[0], Record(RECEIVE, 0, 0, 0, 9)]))
    for way in range(4):
        found.append(join([0], [*up, Record(MEMORY, 2), Record(MEMORY, way), read, Record(DELIVER), Record(SELECT)]))
    # the adapter fails: while nothing, a start-up, or data are under way; and what is done then
    for kind in range(KINDS):
        for before in (
            [],
            [Record(CONNECT, 4)] * 2,
            up[:1],
            up,
            out[:1],
            out,
            [*up, *posts],
            [*out, send, Record(DELIVER), posts[2], *out],
        ):
            after = [
                Record(FAIL),
                posts[0],
                Record(RECEIVE),
                *up,
                *out,
                Record(LISTEN),
                Record(MEMORY, 2),
                Record(QUEUE),
            ]
            found.append(join([kind, 0, 1], [*before, *after]))
        found.append(join([kind, 7], [Record(LISTEN), *up, Record(QUEUE, 2), *posts, Record(FAIL), Record(QUEUE, 3)]))
        found.append(join([kind], [Record(DIAL, 3), Record(RECEIVE, 0, 0, 0, 64), Record(FAIL)]))
    for kind in range(len(LIMITS)):
        full = [Record(HOARD, kind, 7), *up, *out, Record(LISTEN), Record(MEMORY), Record(MEMORY, 2), posts[4]]
        found.append(join([0], [*full, Record(HOARD, 128), Record(HOARD, kind, 7), Record(GOOD)]))
    for way in range(5):
        for before in ([], up, out):
            found.append(join([0], [*before, Record(STARVE, way), Record(LOOK), *up, Record(STARVE, way | 64), *out]))
    for way in range(3):
        found.append(join([IPV6, 4], [Record(LISTEN, way), *up, send, Record(DELIVER), *out, Record(DIAL, 2), *posts]))
    return found
