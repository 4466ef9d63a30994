"""Parts that the tests of the drivers share: small protocol cores, a source of entries, two connected ends.

The cores are real ones in that they obey the interface of a protocol core; their protocol is trivial.
"""

import os
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from softndk.drivers.channel import Channel
from softndk.drivers.runtime import Runtime
from softndk.drivers.sockets import Address, TcpOptions
from softndk.drivers.tcp import TcpStream
from softndk.drivers.tcp_listener import TcpListener
from softndk.drivers.waiting import WaitQueue
from softndk.iwarp.events import Finish

PATIENCE_S = 30.0 * float(os.environ.get("SOFTNDK_TIMEOUT_SCALE", "1"))
"""How long a test waits for what must happen. Reaching it is a failure, so it costs nothing to be generous."""


class ByteCore:
    """Collects what comes, sends what it is given, and notes everything it is told."""

    def __init__(self, *, echo: bool = False) -> None:
        self.echo = echo
        self.log: list[str] = []
        self.received = bytearray()
        self.rest = bytearray()
        self.outgoing = bytearray()
        self.sent = 0
        self.error: OSError | None = None
        self.mss = 0
        self.readable = True
        self.at_most = 1 << 20
        self.ending = Finish.KEEP
        self.timeout: float | None = None
        self.on_data: Callable[[], None] | None = None

    def connected(self, now: float, mss: int) -> None:
        self.log.append("connected")
        self.mss = mss

    def receive_data(self, data: memoryview, now: float) -> None:
        self.log.append("data")
        if self.on_data is not None:
            self.on_data()
        if self.echo:
            self.outgoing += data
        else:
            self.received += data

    def receive_eof(self, now: float) -> None:
        self.log.append("eof")

    def receive_rest(self, data: memoryview, now: float) -> None:
        self.rest += data

    def connection_lost(self, error: OSError, now: float) -> None:
        self.log.append("lost")
        self.error = error

    def wants_read(self) -> bool:
        return self.readable

    def read_size(self) -> int:
        return self.at_most

    def data_to_send(self, now: float) -> list[memoryview | bytes | bytearray]:
        return [bytes(self.outgoing[:65536])] if self.outgoing else []

    def data_sent(self, count: int, now: float) -> None:
        self.sent += count
        del self.outgoing[:count]

    def finish(self) -> Finish:
        return Finish.KEEP if self.outgoing and self.ending is Finish.SHUTDOWN else self.ending

    def next_timeout(self) -> float | None:
        return self.timeout

    def handle_timeout(self, now: float) -> None:
        self.log.append("timeout")
        self.timeout = None


class End:
    """One end of a connection: a stream, its core, and a way to wait for what happens to it."""

    def __init__(self, runtime: Runtime, core: ByteCore, options: TcpOptions | None = None) -> None:
        self.runtime = runtime
        self.core = core
        self.activity = 0
        self.changed = threading.Condition(runtime.lock)
        self.stream = TcpStream(runtime.engine, core, self._active, options=options)

    def _active(self) -> None:
        self.activity += 1
        self.changed.notify_all()

    def send(self, data: bytes) -> None:
        with self.runtime.lock:
            self.core.outgoing += data
            self.stream.pump()

    def end(self, how: Finish) -> None:
        with self.runtime.lock:
            self.core.ending = how
            self.stream.pump()

    def wait_for(self, condition: Callable[[], bool]) -> None:
        """Wait until `condition` holds after some activity; the engine's thread has to bring it about."""
        with self.changed:
            assert self.changed.wait_for(condition, PATIENCE_S), f"{self.core.log} {self.stream}"


@contextmanager
def running(name: str = "test") -> Iterator[Runtime]:
    """A runtime whose threads are gone when the block is left."""
    runtime = Runtime(name)
    try:
        yield runtime
    finally:
        with runtime.lock:
            runtime.engine.stop()
        runtime.dispatcher.stop()
        assert runtime.engine.join(PATIENCE_S)
        assert runtime.dispatcher.join(PATIENCE_S)


def listening(
    runtime: Runtime,
    make_core: Callable[[], ByteCore],
    accepted: list[End],
    host: str = "127.0.0.1",
    on_trouble: Callable[[OSError], None] | None = None,
) -> TcpListener:
    """A listener on any port; each connection becomes an `End` in `accepted`."""

    def accept(sock: object, peer: Address) -> None:
        end = End(runtime, make_core())
        end.stream.attach(sock)  # type: ignore[arg-type]
        accepted.append(end)

    with runtime.lock:
        listener = TcpListener(runtime.engine, accept, on_trouble)
        listener.open((host, 0))
    return listener


@contextmanager
def pair(*, echo: bool = False) -> Iterator[tuple[End, End]]:
    """Two connected ends in two runtimes; with `echo` the second sends everything back."""
    with running("near") as near, running("far") as far:
        accepted: list[End] = []
        listener = listening(far, lambda: ByteCore(echo=echo), accepted)
        assert listener.local_address is not None
        end = End(near, ByteCore())
        with near.lock:
            end.stream.connect(listener.local_address)
        end.wait_for(lambda: "connected" in end.core.log)
        until(lambda: bool(accepted))
        yield end, accepted[0]


def until(condition: Callable[[], bool]) -> None:
    """Wait for what only a look can tell: a thread's end, a system's counter."""
    deadline = time.monotonic() + PATIENCE_S
    pause = threading.Event()
    while not condition():
        assert time.monotonic() < deadline, "waited too long"
        pause.wait(0.001)


class Entries:
    """A source of entries as a CQ is one. An entry is an int; kind 1 is matched by all, kind 2 by even ones."""

    def __init__(self, runtime: Runtime, streams: Callable[[], list[Channel]] | None = None) -> None:
        self.runtime = runtime
        self.entries: deque[int] = deque()
        self.error: BaseException | None = None
        self.line: WaitQueue[int] = WaitQueue(
            runtime, self, "cq1 wait", holders=lambda: f"{len(self.entries)} entries", streams=streams
        )

    def ready(self, kind: int) -> bool:
        return self.error is not None or any(kind == 1 or entry % 2 == 0 for entry in self.entries)

    def take(self, max_results: int) -> list[int]:
        count = min(max_results, len(self.entries))
        return [self.entries.popleft() for _ in range(count)]

    def failure(self) -> BaseException | None:
        return self.error

    def put(self, *entries: int) -> None:
        with self.runtime.lock:
            self.entries.extend(entries)
            self.line.notify()

    def fail(self, error: BaseException) -> None:
        with self.runtime.lock:
            self.error = error
            self.line.notify_all()

    def waiting(self) -> int:
        with self.runtime.lock:
            return len(self.line)
