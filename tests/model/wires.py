"""Two ways to carry octets between two ends: `MemoryWire` from one protocol core to the other in this thread, `SocketWire`
over real TCP. Both let the whole public face run.
"""

import errno
import os
import select
import socket
import struct
import time
from dataclasses import replace
from functools import cached_property
from typing import Protocol

from softndk import (
    Adapter,
    open_adapter,
)
from softndk.conformance.model import ModelPair
from softndk.drivers.channel import Channel
from softndk.iwarp.connection import Connection
from softndk.iwarp.events import Finish
from softndk.iwarp.negotiation import Initiator, Rtr
from softndk.wire.mpa import mulpdu
from tests.model.ends import CONFIG, PATIENCE_S, End, Shape


class Carrier(Protocol):
    """Joins two prepared ends, and carries octets until both are quiet."""

    exact: bool
    """One order of events only; else what the model leaves open is left open."""

    @property
    def resets_destroy(self) -> bool:
        """What has come and has not been read may be lost to a reset behind it."""

    def adapter(self, name: str, mss: int) -> Adapter: ...
    def connect(self, a: End, b: End, shape: Shape) -> None: ...
    def settle(self, a: End, b: End) -> None: ...
    def cut(self, end: End, peer: End) -> None: ...


class _Adapters:
    """Adapters that outlive the examples."""

    def __init__(self) -> None:
        self._open: dict[tuple[str, int], Adapter] = {}

    def adapter(self, name: str, mss: int) -> Adapter:
        """The adapter of end `name`, which makes segments as for `mss`."""
        if (name, mss) not in self._open:
            config = replace(CONFIG, max_fpdu=mulpdu(mss))
            self._open[name, mss] = open_adapter("127.0.0.1", config=config)
        return self._open[name, mss]

    def close(self) -> None:
        for adapter in self._open.values():
            adapter.__exit__(None, None, None)
        self._open.clear()


class _Plug(Channel):
    """Stands where a TcpStream would: moves nothing by itself."""

    def __init__(self, core: Connection) -> None:
        super().__init__()
        self.core = core
        self.closed = False
        self.inbox = bytearray()
        self.fin = self.fin_taken = self.fin_sent = self.reset = False
        self.local_address = self.peer_address = None

    def pump(self) -> None:
        """Only `settle` moves octets."""

    def interest(self) -> int:
        return 0

    def deadline(self) -> float | None:
        return None

    def on_ready(self, mask: int) -> None:
        raise AssertionError

    def on_deadline(self) -> None:
        raise AssertionError

    def fail(self, error: OSError) -> None:
        self.closed = True


class MemoryWire(_Adapters):
    """Both cores in this thread; each round carries all that is ready, first from `a`, then from `b`."""

    exact = True
    resets_destroy = False

    def connect(self, a: End, b: End, shape: Shape) -> None:
        plugs = []
        for end, limit in zip((a, b), shape.read_limits, strict=True):
            adapter, line = end.adapter, end.line
            connector = line.connector = adapter.create_connector()
            context = connector._context
            active = end is a
            initiator = None
            if active:
                offer = frozenset({Rtr.WRITE, Rtr.READ})
                initiator = Initiator(b"", ird=limit, ord=limit, revision=2, crc=True, markers=False, rtr_offer=offer)
            maxima = (context.info.max_inbound_read_limit, context.info.max_outbound_read_limit)
            core = Connection(connector._label, context.config, initiator=initiator, limits=maxima)
            with connector._lock:
                if active:
                    connector._take_qp("connect", line.qp)
                    core.bind(line.qp._pair, connector._open_stream)
                connector._core = core
                plug = _Plug(core)
                connector._stream = plug  # type: ignore[assignment]
                core.connected(time.monotonic(), shape.mss)
            plugs.append(plug)
        self._carry(a, b)
        plugs[1].core.take_events()
        limit = shape.read_limits[1]
        accepting = b.line.connector.accept(
            b.line.qp, inbound_read_limit=limit, outbound_read_limit=limit, on_disconnect=b.told
        )
        self._carry(a, b)
        completing = a.line.connector.complete_connect(on_disconnect=a.told)
        self._carry(a, b)
        assert completing.done()
        assert accepting.done()

    def settle(self, a: End, b: End) -> None:
        for _ in range(3):  # an overrun is acted upon later, in another thread
            self._carry(a, b)
            a.drain()
            b.drain()

    def cut(self, end: End, peer: End) -> None:
        self._lose(end)
        self._plug(peer).reset = True

    def _carry(self, a: End, b: End) -> None:
        for _ in range(1000):
            moved = [self._transmit(a, b), self._transmit(b, a), self._deliver(a), self._deliver(b)]
            if not any(moved):
                return
        raise AssertionError("never quiet")

    @staticmethod
    def _plug(end: End) -> _Plug:
        plug = end.line.connector._stream
        assert isinstance(plug, _Plug)
        return plug

    def _transmit(self, end: End, peer: End) -> bool:
        connector = end.line.connector
        with connector._lock:
            plug = self._plug(end)
            if plug.closed:
                return False
            if plug.reset and plug.core.data_to_send(time.monotonic()):
                self._lose(end)
                return True
            out = bytearray()
            while parts := plug.core.data_to_send(time.monotonic()):
                octets = b"".join(parts)
                out += octets
                plug.core.data_sent(len(octets), time.monotonic())
            connector._on_activity()
            finish = plug.core.finish()
        other = self._plug(peer)
        moved = bool(out)
        if finish is Finish.RESET:
            plug.closed = other.reset = moved = True
        else:
            other.inbox += out
            if finish is not Finish.KEEP and not plug.fin_sent:
                plug.fin_sent = other.fin = moved = True
            plug.closed = finish is Finish.CLOSE
        return moved

    def _deliver(self, end: End) -> bool:
        connector = end.line.connector
        with connector._lock:
            plug = self._plug(end)
            if plug.closed:
                return False
            if not plug.core.wants_read():
                return False
            if plug.inbox:
                octets, plug.inbox = plug.inbox, bytearray()
                plug.core.receive_data(memoryview(octets), time.monotonic())
            elif plug.fin and not plug.fin_taken:
                plug.fin_taken = True
                plug.core.receive_eof(time.monotonic())
            elif plug.reset:
                self._lose(end)
            else:
                return False
            connector._on_activity()
        return True

    def _lose(self, end: End) -> None:
        connector = end.line.connector
        with connector._lock:
            plug = self._plug(end)
            if not plug.closed:
                plug.closed = True
                error = ConnectionResetError(errno.ECONNRESET, os.strerror(errno.ECONNRESET))
                plug.core.connection_lost(error, time.monotonic())
                connector._on_activity()


class SocketWire(_Adapters):
    """Real TCP on this machine. Quiet is when all octets, and the ends of the stream, have come."""

    exact = False

    @cached_property
    def resets_destroy(self) -> bool:
        """Whether this system flushes what has come at a reset, as RFC 9293 says, or leaves it to be read, as Linux does."""
        with socket.create_server(("127.0.0.1", 0)) as server, socket.create_connection(server.getsockname()) as near:
            far, _ = server.accept()
            far.sendall(b"unread")
            far.shutdown(socket.SHUT_WR)
            far.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            far.close()
            poll = select.poll()
            poll.register(near, select.POLLERR)
            assert poll.poll(PATIENCE_S * 1000)
            try:
                return (near.recv(16), near.recv(16)) != (b"unread", b"")
            except ConnectionResetError:
                return True

    def connect(self, a: End, b: End, shape: Shape) -> None:
        listener = b.adapter.listen()
        one, two = shape.read_limits
        connector = a.line.connector = a.adapter.create_connector()
        asking = connector.connect(a.line.qp, listener.local_address, inbound_read_limit=one, outbound_read_limit=one)
        b.line.connector = listener.next_request().result(PATIENCE_S)
        accepting = b.line.connector.accept(
            b.line.qp, inbound_read_limit=two, outbound_read_limit=two, on_disconnect=b.told
        )
        asking.result(PATIENCE_S)
        connector.complete_connect(on_disconnect=a.told).result(PATIENCE_S)
        accepting.result(PATIENCE_S)
        listener.close()

    def settle(self, a: End, b: End) -> None:
        for _ in range(3):  # as above
            self._until_quiet(a, b)
            a.drain()
            b.drain()

    def _until_quiet(self, a: End, b: End) -> None:
        deadline = time.monotonic() + PATIENCE_S
        while not self._both_quiet(a, b):
            assert time.monotonic() < deadline, "never quiet"
            for end in (a, b):
                stream = end.line.connector._stream
                assert stream is not None
                with end.adapter._lock:
                    end.adapter._runtime.engine.poll([stream])
            os.sched_yield()

    def cut(self, end: End, peer: End) -> None:
        with end.adapter._lock:
            stream = end.line.connector._stream
            assert stream is not None
            stream.fail(ConnectionResetError(errno.ECONNRESET, os.strerror(errno.ECONNRESET)))

    def _both_quiet(self, a: End, b: End) -> bool:
        """Looked at one after the other; so nothing may have moved between the two looks."""
        before = self._moved(a), self._moved(b)
        return self._quiet(a, b) and self._quiet(b, a) and before == (self._moved(a), self._moved(b))

    @staticmethod
    def _moved(end: End) -> tuple[int, int, int, int]:
        core = end.line.connector._core
        assert core is not None
        with end.adapter._lock:
            return core.traffic

    @staticmethod
    def _quiet(sender: End, receiver: End) -> bool:
        one, two = sender.line.connector, receiver.line.connector
        assert one._stream is not None
        assert two._stream is not None
        assert one._core is not None
        assert two._core is not None
        with sender.adapter._lock:
            if one._core._standing.out and not one._stream.closed:
                return False
            sent, ended = one._core.traffic[3], one._stream.closed or one._stream._fin_sent
            reset = one._stream.closed and one._core.finish() is Finish.RESET
        with receiver.adapter._lock:
            over = two._stream.closed or (two._stream._eof and not reset) or two._core.holding_back
            return over or (two._core.traffic[2] == sent and not ended)


def make_pair(a: End, b: End, shape: Shape, numbers: tuple[int, int], carrier: Carrier) -> ModelPair:
    """Connect two ends and their models."""
    models = [end.prepare(number, shape) for end, number in zip((a, b), numbers, strict=True)]
    carrier.connect(a, b, shape)
    for model in models:
        model.read_limit = min(shape.read_limits)
    return ModelPair(models[0], models[1])
