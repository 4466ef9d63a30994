"""What the attacks share: two adapters with connections, raw peers, programs in processes of their own."""

import os
import socket
import struct
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TypeVar

from softndk import Adapter, Connector, Cq, IwarpConfig, Listener, Mr, Pd, Qp, RemoteToken, Result, open_adapter
from softndk.wire.mpa import Enhanced, FrameKind, StartupFrame

_T = TypeVar("_T")

PATIENCE_S = 30.0 * float(os.environ.get("SOFTNDK_TIMEOUT_SCALE", "1"))
"""How long a test waits for what must happen. Reaching it is a failure, so it costs nothing to be generous."""

RESET = struct.pack("ii", 1, 0)
"""SO_LINGER that makes a close a reset."""


@dataclass
class Host:
    """An adapter with what a connection needs."""

    adapter: Adapter
    pd: Pd
    cq: Cq
    mr: Mr

    def qp(self, depth: int = 16) -> Qp:
        return self.pd.create_qp(self.cq, self.cq, receive_queue_depth=depth, initiator_queue_depth=depth)


@contextmanager
def host(address: str = "127.0.0.1", *, cq_depth: int = 256, config: IwarpConfig | None = None) -> Iterator[Host]:
    with open_adapter(address, config=config) as adapter:
        yield furnish(adapter, cq_depth)


def furnish(adapter: Adapter, cq_depth: int = 256) -> Host:
    pd = adapter.create_pd()
    return Host(adapter, pd, adapter.create_cq(cq_depth), pd.register_mr(bytearray(8192)))


@contextmanager
def hosts(*, cq_depth: int = 256) -> Iterator[tuple[Host, Host]]:
    with host(cq_depth=cq_depth) as active, host(cq_depth=cq_depth) as passive:
        yield active, passive


def connect(active: Host, active_qp: Qp, passive_qp: Qp, listener: Listener) -> tuple[Connector, Connector]:
    """A connection; returns its active and passive connector."""
    connecting = active.adapter.connect(active_qp, listener.local_address)
    incoming = listener.next_request().result(PATIENCE_S)
    accepting = incoming.accept(passive_qp)
    outgoing = connecting.result(PATIENCE_S)
    accepting.result(PATIENCE_S)
    return outgoing, incoming


def post(qp: Qp, context: object = None) -> None:
    """A request that needs nothing of the peer: a Write of no octets."""
    qp.write(b"", 0, RemoteToken(1), context=context)


def take(cq: Cq, count: int) -> list[Result]:
    """The next `count` results, and no more."""
    found: list[Result] = []
    while len(found) < count:
        found += cq.wait(PATIENCE_S, max_results=count - len(found))
    return found


def callbacks_have_run(adapter: Adapter) -> None:
    """Wait until every callback that is due by now has returned: one thread runs them all, in order."""
    passed = threading.Event()
    adapter.create_pd().close(on_done=lambda _: passed.set())
    assert passed.wait(PATIENCE_S)


@contextmanager
def held_callbacks(adapter: Adapter) -> Iterator[None]:
    """Meanwhile the adapter's callback thread is busy with a callback that does not return."""
    begun, end = threading.Event(), threading.Event()

    def busy(_: object) -> None:
        begun.set()
        assert end.wait(PATIENCE_S)

    adapter.create_pd().close(on_done=busy)
    assert begun.wait(PATIENCE_S)
    try:
        yield
    finally:
        end.set()


def in_thread(fn: Callable[[], _T]) -> "Future[_T]":
    """Run `fn` in a thread of its own, which may stay behind if it hangs."""
    future: Future[_T] = Future()

    def run() -> None:
        try:
            future.set_result(fn())
        except BaseException as error:
            future.set_exception(error)

    threading.Thread(target=run, daemon=True).start()
    return future


@contextmanager
def threads(count: int) -> Iterator[ThreadPoolExecutor]:
    with ThreadPoolExecutor(count) as pool:
        yield pool


# ---- raw peers


def mpa_request(private_data: bytes = b"") -> bytes:
    """A Request that every responder takes."""
    return StartupFrame(
        kind=FrameKind.REQUEST,
        markers=False,
        crc=True,
        reject=False,
        revision=2,
        enhanced=Enhanced(ird=1, ord=1, peer_to_peer=True, rtr_send=False, rtr_write=True, rtr_read=False),
        private_data=private_data,
    ).emit()


def raw_client(address: tuple[str, int], octets: bytes = b"", *, source: str | None = None) -> socket.socket:
    """A TCP connection to a listener, from the address `source` if given, on which `octets` have been sent."""
    sock = socket.create_connection(address, PATIENCE_S, None if source is None else (source, 0))
    try:
        sock.sendall(octets)
    except BaseException:
        sock.close()
        raise
    return sock


def reset(sock: socket.socket) -> None:
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET)
    sock.close()


def ended(sock: socket.socket) -> bool:
    """Read until the peer's end: True for an end or a reset, an error if it does not come."""
    sock.settimeout(PATIENCE_S)
    try:
        while sock.recv(65536):
            continue
    except ConnectionError:
        return True
    return True


def reply_on(sock: socket.socket) -> StartupFrame:
    """The reply that comes on `sock`."""
    sock.settimeout(PATIENCE_S)
    octets = bytearray()
    while len(octets) < 20 or len(octets) < 20 + int.from_bytes(octets[18:20]):
        got = sock.recv(1024)
        assert got, "the peer closed instead of answering"
        octets += got
    return StartupFrame.parse(octets)


def hung_up_on(listener: Listener) -> bool:
    """Whether the listener ends a new connection on its own; it may do so before it is up on this side."""
    try:
        with raw_client(listener.local_address) as sock:
            return ended(sock)
    except ConnectionError:
        return True


# ---- programs


def run_program(source: str, *options: str, timeout: float = 3 * PATIENCE_S) -> subprocess.CompletedProcess[str]:
    """Run a program; a hang is an error of the test."""
    return subprocess.run(
        [sys.executable, *options, "-c", source], capture_output=True, text=True, timeout=timeout, check=False
    )


def until(condition: Callable[[], bool]) -> None:
    """Look again and again until `condition` holds; for what nothing tells of."""
    pause = threading.Event()
    end = time.monotonic() + PATIENCE_S
    while not condition():
        assert time.monotonic() < end, "it has not come about"
        pause.wait(0.001)
