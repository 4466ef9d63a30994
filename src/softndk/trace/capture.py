"""Records iWARP streams as a pcapng file that Wireshark decodes without a hint.

A socket user sees octets and no packets, so Ethernet, IP and TCP are made up around what each stream sent and received:
handshake, running sequence numbers, one start-up frame or FPDU per segment, FIN, reset. The octets themselves are
exactly those of the stream. Must not know sockets, queue pairs or NDKPI; whoever moves the octets calls the tap.

Nothing here raises into the stream that it watches: after a write error the file ends, the reason is in
`CaptureWriter.error` and is logged once.
"""

import atexit
import importlib.metadata
import logging
import os
import threading
import time
from collections.abc import Callable
from types import TracebackType
from typing import Final, Self

from typing_extensions import Buffer

from softndk.trace.fields import terminate_sentence
from softndk.trace.packets import (
    ACK,
    FIN,
    LINK_ETHERNET,
    MAX_PAYLOAD,
    PSH,
    RST,
    SYN,
    SYN_OPTIONS,
    Address,
    HeaderMaker,
    canonical,
)
from softndk.trace.pcapng import enhanced_packet, interface_description, section_header
from softndk.trace.units import UnitCutter, asks_for_markers

__all__ = ["CaptureWriter", "StreamTap"]

BUFFER_OCTETS: Final = 64 << 10
"""A crash loses at most this much, or what came within the flush interval."""

FLUSH_INTERVAL_S: Final = 1.0

_ISN_STEP: Final = 65_537
_ISN_RANGE: Final = 1 << 30
"""Initial sequence numbers differ, or a port used again would look like a repeated SYN; they stay low, so that
readers that are weak at the 2**32 wrap get 3 GiB per direction."""

_NO_OCTETS: Final = memoryview(b"")
_log = logging.getLogger("softndk")


def _application() -> str:
    try:
        return f"softndk {importlib.metadata.version('softndk')}"
    except importlib.metadata.PackageNotFoundError:
        return "softndk"


class CaptureWriter:
    """One capture file. May be used from any thread; usable as a context manager.

    Args: path: created or overwritten. clock: nanoseconds since 1970, for the time stamps.
        flush_interval_s: after how long at most everything seen is in the file, also without further traffic.
    Raises: OSError: the file cannot be created.
    """

    def __init__(
        self,
        path: str | os.PathLike[str],
        *,
        clock: Callable[[], int] = time.time_ns,
        flush_interval_s: float = FLUSH_INTERVAL_S,
    ) -> None:
        self.path = os.fspath(path)
        self.error: OSError | None = None
        self._clock = clock
        self._flush_interval_s = flush_interval_s
        self._file = open(self.path, "wb", buffering=0)  # noqa: SIM115 (closed by close())
        self._owner = os.getpid()
        self._lock = threading.Lock()
        self._blocks: list[bytes] = []
        self._octets = 0
        self._interfaces: dict[str, int] = {}
        self._connections: dict[tuple[Address, Address], _Connection] = {}
        self._streams = 0
        self._closing = threading.Event()
        self._flusher: threading.Thread | None = None
        self._put(section_header(_application()))
        self._write_out()
        atexit.register(self.close)

    def stream(self, local: Address, peer: Address, *, active: bool, name: str = "") -> "StreamTap":
        """A tap for one end of a TCP connection. `active`: our side connected. `name`: comment of its first packet.

        Raises: ValueError: an address is not numeric, or the two are of different families.
        """
        here, there = canonical(local), canonical(peer)
        with self._lock:
            connection = self._connections.get((there, here))
            if connection is not None and connection.taps == 1 and not connection.both_ends and here != there:
                connection.both_ends = True
                return StreamTap(self, connection, local=False, active=active)
            connection = self._connect(here, there, name)
            return StreamTap(self, connection, local=True, active=active)

    def flush(self) -> None:
        """Write everything seen so far to the file, unfinished FPDUs included (as the first part of a segment)."""
        if os.getpid() == self._owner:
            with self._lock:
                self._write_all()

    def close(self) -> None:
        """Write everything, close the file. A second call does nothing; the taps turn into no-ops."""
        if os.getpid() != self._owner:
            return  # In a forked child the lock may stay held for ever, and the buffer is the parent's.
        with self._lock:
            self._write_all()
            self._closing.set()
            for connection in self._connections.values():
                connection.over = True
            self._connections.clear()
            self._file.close()
            flusher, self._flusher = self._flusher, None
        atexit.unregister(self.close)
        if flusher is not None:
            flusher.join()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, t: type[BaseException] | None, e: BaseException | None, tb: TracebackType | None) -> None:
        self.close()

    # All below: with the lock held.

    def _connect(self, local: Address, peer: Address, name: str) -> "_Connection":
        host = local[0]
        interface = self._interfaces.get(host, len(self._interfaces))
        connection = _Connection(self, interface, self._streams * _ISN_STEP % _ISN_RANGE, local, peer, name)
        if self._closing.is_set():
            connection.over = True
            return connection
        if host not in self._interfaces:
            self._interfaces[host] = interface
            self._put(interface_description(host, LINK_ETHERNET))
        predecessor = self._connections.get(connection.key)
        if predecessor is not None:
            predecessor.write_held()
            predecessor.end()
        self._streams += 1
        self._connections[connection.key] = connection
        return connection

    def _put(self, block: bytes) -> None:
        if self.error is not None or self._closing.is_set():
            return
        self._blocks.append(block)
        self._octets += len(block)
        if self._octets >= BUFFER_OCTETS:
            self._write_out()
        self._flush_soon()

    def _write_all(self) -> None:
        for connection in self._connections.values():
            connection.write_held()
        self._write_out()

    def _write_out(self) -> None:
        if not self._blocks:
            return
        rest = memoryview(b"".join(self._blocks))
        self._blocks.clear()
        self._octets = 0
        try:
            while rest:
                rest = rest[self._file.write(rest) :]
        except OSError as error:
            self.error = error
            _log.warning("capture %s ends here: %s", self.path, error)

    def _flush_soon(self) -> None:
        """Something waits to be written: let it be in the file within the interval, also if nothing follows."""
        if self._flusher is not None or self._closing.is_set():
            return
        self._flusher = threading.Thread(target=self._flush_later, name="softndk-capture", daemon=True)
        try:
            self._flusher.start()
        except RuntimeError:  # No threads any more: the interpreter is ending.
            self._flusher = None
            self._write_out()

    def _flush_later(self) -> None:
        """The flusher: goes on while there is something to write, and ends after an interval without."""
        while not self._closing.wait(self._flush_interval_s):
            with self._lock:
                idle = not self._blocks
                limit = time.monotonic() - self._flush_interval_s
                for connection in self._connections.values():
                    idle &= not connection.holds
                    connection.write_held(limit)
                self._write_out()
                if idle:
                    self._flusher = None
                    return


class _Direction:
    """One direction of one connection: its packets' headers, its sequence number, the unit that is not complete yet."""

    __slots__ = ("cutter", "ended", "headers", "held", "held_since", "sequence", "written")

    def __init__(self, headers: HeaderMaker, initial_sequence: int) -> None:
        self.headers = headers
        self.sequence = initial_sequence
        self.cutter = UnitCutter()
        self.held = bytearray()
        self.written = 0
        """Octets of `held` that are in the file already."""
        self.held_since = 0.0
        self.ended = False


class _Connection:
    """One TCP connection in the file. All methods: with the writer's lock held."""

    def __init__(
        self, writer: CaptureWriter, interface: int, initial_sequence: int, local: Address, peer: Address, name: str
    ) -> None:
        self.key = (local, peer)
        self.from_local = _Direction(HeaderMaker(local, peer), initial_sequence)
        self.from_peer = _Direction(HeaderMaker(peer, local), initial_sequence)
        self.both_ends = False
        self.opened = False
        self.over = False
        self.taps = 0
        self._writer = writer
        self._interface = interface
        self._name = name

    def opposite(self, direction: _Direction) -> _Direction:
        return self.from_peer if direction is self.from_local else self.from_local

    def syn(self, opener: _Direction, now: int) -> None:
        self.opened = True
        self.segment(opener, now, SYN, options=SYN_OPTIONS, comment=self._name)

    def open(self, opener: _Direction, now: int) -> None:
        """The handshake, if it is not there yet."""
        if not self.opened:
            other = self.opposite(opener)
            self.syn(opener, now)
            self.segment(other, now, SYN | ACK, options=SYN_OPTIONS)
            self.segment(opener, now, ACK)

    def octets(self, direction: _Direction, view: memoryview, now: int) -> None:
        place = self._complete_held(direction, view, now)
        size = len(view)
        while place < size:
            length = direction.cutter.wanted(view[place:])
            if length > size - place:
                direction.held += view[place:]
                direction.held_since = time.monotonic()
                self._writer._flush_soon()
                break
            self._unit(direction, view[place : place + length], 0, now)
            place += length

    def _complete_held(self, direction: _Direction, view: memoryview, now: int) -> int:
        """Add to the unit that is held what belongs to it; say how many octets of `view` that took."""
        held = direction.held
        if not held:
            return 0
        place = 0
        while (length := direction.cutter.wanted(held)) > len(held):
            more = view[place : place + length - len(held)]
            if not more:
                return place
            held += more
            place += len(more)
        with memoryview(held) as unit:
            self._unit(direction, unit, direction.written, now)
        held.clear()
        direction.written = 0
        return place

    def _unit(self, direction: _Direction, unit: memoryview, written: int, now: int) -> None:
        """A start-up frame or FPDU is complete; its first `written` octets are in the file already."""
        cutter = direction.cutter
        comment = ""
        if not cutter.started and not cutter.lost:
            self.opposite(direction).cutter.marked = asks_for_markers(unit)
        elif cutter.is_terminate(unit):
            started = self.opposite(direction).cutter.position > 0
            comment = terminate_sentence(cutter.unmarked(unit), started=started)
        cutter.passed(len(unit))
        self._pieces(direction, unit[written:], now, comment)
        if comment:
            self._writer._write_out()

    def _pieces(self, direction: _Direction, octets: memoryview, now: int, comment: str = "") -> None:
        for place in range(0, len(octets), MAX_PAYLOAD):
            self.segment(direction, now, PSH | ACK, octets[place : place + MAX_PAYLOAD], comment=comment)
            comment = ""

    def segment(
        self,
        direction: _Direction,
        now: int,
        flags: int,
        payload: memoryview = _NO_OCTETS,
        *,
        options: bytes = b"",
        comment: str = "",
    ) -> None:
        acknowledged = self.opposite(direction).sequence if flags & ACK else 0
        headers = direction.headers.make(direction.sequence, acknowledged, flags, payload, options)
        size = len(payload)
        direction.sequence = direction.sequence + size + bool(flags & (SYN | FIN)) & 0xFFFFFFFF
        self._writer._put(enhanced_packet(self._interface, now, headers, payload, size, comment))

    @property
    def holds(self) -> bool:
        """Whether octets wait for the rest of their unit, not written."""
        return any(len(each.held) > each.written for each in (self.from_local, self.from_peer))

    def write_held(self, not_after: float | None = None) -> None:
        """Write the beginnings of units that are held: all, or those held since a time (monotonic) or longer."""
        for direction in (self.from_local, self.from_peer):
            if len(direction.held) > direction.written and (not_after is None or direction.held_since <= not_after):
                with memoryview(direction.held) as held, held[direction.written :] as rest:
                    self._pieces(direction, rest, self._writer._clock())
                direction.written = len(direction.held)

    def fin(self, direction: _Direction, now: int) -> None:
        if direction.ended:
            return
        self.write_held()
        direction.ended = True
        self.segment(direction, now, FIN | ACK)
        if self.opposite(direction).ended:
            self.segment(self.opposite(direction), now, ACK)
        self._writer._write_out()

    def end(self) -> None:
        self.over = True
        self._writer._connections.pop(self.key, None)
        self._writer._write_out()


class StreamTap:
    """What one end of a connection did, told by whoever did it. No call blocks on anything but the file; none raises.

    Buffers are read during the call only. Octets are held until their start-up frame or FPDU is complete (at most one
    per direction), the stream ends, or the flush interval is over. A connection between two taps of one writer is in
    the file once, as its senders see it.
    """

    def __init__(self, writer: CaptureWriter, connection: _Connection, *, local: bool, active: bool) -> None:
        """For CaptureWriter.stream, with the lock held. `local`: whether ours is the connection's local end."""
        self._writer = writer
        self._connection = connection
        self._ours = connection.from_local if local else connection.from_peer
        self._theirs = connection.opposite(self._ours)
        self._opener = self._ours if active else self._theirs
        self._closed = False
        connection.taps += 1

    def opened(self) -> None:
        """TCP is established. Left out, the first other call stands for it."""
        with self._writer._lock:
            if not self._connection.over:
                self._connection.open(self._opener, self._writer._clock())

    def sent(self, data: Buffer) -> None:
        """The socket has taken these octets."""
        self._octets(self._ours, data)

    def received(self, data: Buffer) -> None:
        """The socket has given these octets."""
        if not self._connection.both_ends:
            self._octets(self._theirs, data)

    def fin_sent(self) -> None:
        """Our direction was shut down, after everything in `sent`."""
        self._fin(self._ours)

    def fin_received(self) -> None:
        """The peer's FIN was read, after everything in `received`."""
        if not self._connection.both_ends:
            self._fin(self._theirs)

    def reset(self, by_peer: bool) -> None:
        """The connection was reset, or an attempt to connect ended: by the peer, or by us. Ends the stream."""
        with self._writer._lock:
            connection = self._connection
            if connection.over:
                return
            now = self._writer._clock()
            attempt = self._opener is self._ours and not connection.opened
            if attempt:
                connection.syn(self._ours, now)
            else:
                connection.open(self._opener, now)
                connection.write_held()
            if by_peer or not attempt:
                connection.segment(self._theirs if by_peer else self._ours, now, RST | ACK)
            connection.end()

    def closed(self) -> None:
        """The socket is gone; what is held is written. Ends the stream, with the other end's tap if there is one."""
        with self._writer._lock:
            if self._closed or self._connection.over:
                return
            self._closed = True
            self._connection.write_held()
            self._connection.taps -= 1
            if not self._connection.taps:
                self._connection.end()

    def _octets(self, direction: _Direction, data: Buffer) -> None:
        with memoryview(data) as given, given.cast("B") as view, self._writer._lock:
            if view and not self._connection.over:
                now = self._writer._clock()
                self._connection.open(self._opener, now)
                self._connection.octets(direction, view, now)

    def _fin(self, direction: _Direction) -> None:
        with self._writer._lock:
            if not self._connection.over:
                now = self._writer._clock()
                self._connection.open(self._opener, now)
                self._connection.fin(direction, now)
