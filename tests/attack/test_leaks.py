"""What stays behind: descriptors, threads, objects and memory after many lives and big transfers."""

import gc
import os
import threading
import tracemalloc
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import pytest

from softndk import Connector, IwarpConfig, Mr, MrFlag, Mw, NdkObject, Pending, Qp, Refused, open_adapter
from softndk.drivers.tcp import TcpStream
from softndk.iwarp.connection import Connection
from softndk.testing import kill, pair
from tests.attack.attack_tools import (
    PATIENCE_S,
    Host,
    callbacks_have_run,
    connect,
    furnish,
    host,
    hosts,
    raw_client,
    take,
    until,
)

KINDS = (NdkObject, Pending, Connection, TcpStream)


def census() -> Counter[str]:
    """Living objects of ours by class, and what the process holds."""
    gc.collect()
    found = Counter(type(item).__name__ for item in gc.get_objects() if isinstance(item, KINDS))
    found["threads"] = threading.active_count()
    if os.path.isdir("/proc/self/fd"):
        found["descriptors"] = len(os.listdir("/proc/self/fd"))
    return found


def life(active: Host, passive: Host, listener_address: tuple[str, int], accept: Callable[[Qp], Connector]) -> None:
    """Connect, exchange, disconnect, close."""
    qp, peer = active.qp(), passive.qp()
    connecting = active.adapter.connect(qp, listener_address)
    incoming = accept(peer)
    outgoing = connecting.result(PATIENCE_S)
    peer.receive(passive.mr[0:100])
    qp.send(active.mr[0:100])
    take(active.cq, 1)
    take(passive.cq, 1)
    ending = outgoing.disconnect()
    incoming.disconnected.result(PATIENCE_S)
    incoming.disconnect().result(PATIENCE_S)
    ending.result(PATIENCE_S)
    for item in (outgoing, incoming, qp, peer):
        item.close().result(PATIENCE_S)


def check(active: Host, passive: Host, run: Callable[[], object], rounds: int) -> None:
    """After `rounds` times of `run` no more is there than after a few."""
    for _ in range(3):
        run()
    before = census()
    for _ in range(rounds):
        run()
    after: Counter[str] = Counter()

    def settled() -> bool:
        after.clear()
        after.update(census())
        return all(after[kind] < before[kind] + rounds // 10 for kind in after)  # some wait for the next round

    try:
        until(settled)
    except AssertionError:
        pytest.fail(f"more than before: {after - before}")


class TestLives:
    def test_of_connections(self) -> None:
        with hosts() as (active, passive):
            listener = passive.adapter.listen()

            def accept(qp: Qp) -> Connector:
                connector = listener.next_request().result(PATIENCE_S)
                connector.accept(qp)
                return connector

            check(active, passive, lambda: life(active, passive, listener.local_address, accept), 300)

    def test_of_connections_that_never_came_up(self) -> None:
        with hosts() as (active, passive):
            listener, qp = passive.adapter.listen(), active.qp()

            def refused() -> None:
                connecting = active.adapter.connect(qp, listener.local_address, private_data=b"refuse me")
                while (request := listener.next_request().result(PATIENCE_S)).connection_data.private_data == b"":
                    request.close()
                request.reject()
                request.close()
                with pytest.raises(Refused):
                    connecting.result(PATIENCE_S)
                given_up = active.adapter.connect(qp, listener.local_address)
                given_up.cancel()
                with pytest.raises(Refused):
                    active.adapter.connect(qp, ("127.0.0.1", 1)).result(PATIENCE_S)
                raw_client(listener.local_address, b"garbage" * 10).close()
                while (waiting := listener.next_request()).done():
                    waiting.result().close()

            check(active, passive, refused, 60)

    def test_of_memory_objects(self) -> None:
        with pair() as (a, _):
            tokens = a.adapter._context.datapath.tokens

            def objects() -> None:
                with a.pd.register_mr(bytearray(64)) as mr, a.pd.create_mw() as mw:
                    assert isinstance(mr, Mr)
                    assert isinstance(mw, Mw)
                    a.qp.bind(mr, mw, flags=8)
                    a.cq.wait(PATIENCE_S)
                    a.qp.invalidate(mw)
                    a.cq.wait(PATIENCE_S)
                with a.adapter.build_lam(bytearray(9000)).result(0), a.pd.create_mr(fast_register=True) as frmr:
                    frmr.initialize_fast_register(4, True)

            objects()
            before, count = census(), len(tokens)
            for _ in range(200):
                objects()
            assert census() <= before
            assert len(tokens) == count

    def test_of_waits(self) -> None:
        with pair() as (a, _):

            def waits() -> None:
                with pytest.raises(TimeoutError):
                    a.cq.wait(0)
                a.cq.next_results().add_done_callback(id)
                for call in list(a.cq._line._line):
                    call.cancel()
                a.cq.next_results()

            waits()
            callbacks_have_run(a.adapter)
            before = census()
            for _ in range(200):
                waits()
            until(lambda: census() <= before)
            assert len(a.cq._line) == 0


def test_memory_after_big_transfers_is_given_back() -> None:
    size = 16 << 20
    rights = MrFlag.ALLOW_REMOTE_READ | MrFlag.ALLOW_REMOTE_WRITE
    with pair() as (a, b):
        near, far = (end.pd.register_mr(bytearray(size), rights) for end in (a, b))
        tracemalloc.start()
        try:
            gc.collect()
            before = tracemalloc.get_traced_memory()[0]
            b.qp.receive(far[:])
            a.qp.send(near[:])
            a.qp.write(near[:], far.address, far.remote_token)
            a.qp.read(near[:], far.address, far.remote_token)
            take(a.cq, 3)
            take(b.cq, 1)
            gc.collect()
            held, peak = tracemalloc.get_traced_memory()
        finally:
            tracemalloc.stop()
    assert held - before < 256 * 1024
    assert peak - before < 4 << 20, "what is under way is bounded, however large the message"


def test_a_buffer_is_free_after_its_region_whoever_looks_at_it() -> None:
    """Exports that the program has taken out of `view` keep the buffer, never the close from succeeding."""
    numpy = pytest.importorskip("numpy")
    buffer = bytearray(64)
    with pair() as (a, _):
        mr = a.pd.register_mr(buffer)
        view = mr.view
        array = numpy.frombuffer(view, dtype="u1")
        part = memoryview(mr.view)[1:5]
        assert mr.close().result(PATIENCE_S) is None
        with pytest.raises(BufferError):
            buffer.append(1)
        del array, view, part
        buffer.append(1)


def test_a_listener_keeps_no_connector_that_it_has_handed_out() -> None:
    with hosts() as (active, passive):
        listener = passive.adapter.listen()
        for _ in range(5):
            with active.qp() as qp, passive.qp() as peer:
                connect(active, qp, peer, listener)
        del qp, peer
        until(lambda: census()["Connector"] == 0)


@pytest.mark.parametrize("life", ["none", "refused", "cancelled", "garbage", "normal", "killed"])
def test_a_trace_is_closed_with_its_adapter(tmp_path: Path, life: str) -> None:
    """Whatever became of the connections: when the adapter and its last connection have ended, the file is whole."""
    config = IwarpConfig(terminate_drain_s=0.1)
    with host(config=config) as passive:
        listener = passive.adapter.listen()
        with open_adapter(config=config, trace=tmp_path / "trace.pcapng") as adapter:
            active = furnish(adapter)
            capture = adapter._context.capture
            assert capture is not None
            own = adapter.listen()
            if life == "refused":
                active.adapter.connect(active.qp(), ("127.0.0.1", 1)).exception(PATIENCE_S)
            elif life == "cancelled":
                active.adapter.connect(active.qp(), listener.local_address).cancel()
            elif life == "garbage":
                raw_client(own.local_address, b"garbage" * 9).close()
                until(lambda: adapter.query_statistics().connect_failure == 1)
            elif life in ("normal", "killed"):
                connect(active, active.qp(), passive.qp(), listener)
            if life == "killed":
                kill(adapter, "reset")
        until(lambda: capture._file.closed)
