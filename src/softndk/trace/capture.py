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
from softndk.trace.packets import ACK, FIN, LINK_ETHERNET, MAX_PAYLOAD, PSH, RST, SYN, SYN_OPTIONS, Address, HeaderMaker
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
        self._taps: set[StreamTap] = set()
        self._streams = 0
        self._closing = threading.Event()
        self._flusher: threading.Thread | None = None
        self._put(section_header(_application()))
        self._write_out()
        atexit.register(self.close)

    def stream(self, local: Address, peer: Address, *, active: bool, name: str = "") -> "StreamTap":
        """A tap for one TCP connection. `active`: our side connected. `name`: becomes the comment of its first packet.

        Raises: ValueError: an address is not numeric, or the two are of different families.
        """
        with self._lock:
            host = local[0]
            interface = self._interfaces.get(host)
            tap = StreamTap(
                self,
                HeaderMaker(local, peer),
                HeaderMaker(peer, local),
                len(self._interfaces) if interface is None else interface,
                self._streams * _ISN_STEP % _ISN_RANGE,
                active,
                name,
            )
            if self._closing.is_set():
                tap._over = True
                return tap
            if interface is None:
                self._interfaces[host] = len(self._interfaces)
                self._put(interface_description(host, LINK_ETHERNET))
            self._streams += 1
            self._taps.add(tap)
            return tap

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
            for tap in self._taps:
                tap._over = True
            self._taps.clear()
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

    def _put(self, block: bytes) -> None:
        if self.error is not None or self._closing.is_set():
            return
        self._blocks.append(block)
        self._octets += len(block)
        if self._octets >= BUFFER_OCTETS:
            self._write_out()
        self._flush_soon()

    def _write_all(self) -> None:
        for tap in self._taps:
            tap._write_held()
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
                for tap in self._taps:
                    idle &= not tap._holds
                    tap._write_held(limit)
                self._write_out()
                if idle:
                    self._flusher = None
                    return


class _Direction:
    """One direction of one stream: its packets' headers, its sequence number, the unit that is not complete yet."""

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


class StreamTap:
    """What one connection did, told by whoever did it. No call blocks on anything but the file; none raises.

    Buffers are read during the call only. Octets are held until their start-up frame or FPDU is complete (at most one
    per direction), the stream ends, or the flush interval is over.
    """

    def __init__(
        self,
        writer: CaptureWriter,
        outbound: HeaderMaker,
        inbound: HeaderMaker,
        interface: int,
        initial_sequence: int,
        active: bool,
        name: str,
    ) -> None:
        self._writer = writer
        self._interface = interface
        self._active = active
        self._name = name
        self._ours = _Direction(outbound, initial_sequence)
        self._theirs = _Direction(inbound, initial_sequence)
        self._opened = False
        self._over = False

    def opened(self) -> None:
        """TCP is established. Left out, the first other call stands for it."""
        with self._writer._lock:
            if not self._over:
                self._open(self._writer._clock())

    def sent(self, data: Buffer) -> None:
        """The socket has taken these octets."""
        self._octets(self._ours, data)

    def received(self, data: Buffer) -> None:
        """The socket has given these octets."""
        self._octets(self._theirs, data)

    def fin_sent(self) -> None:
        """Our direction was shut down, after everything in `sent`."""
        self._fin(self._ours)

    def fin_received(self) -> None:
        """The peer's FIN was read, after everything in `received`."""
        self._fin(self._theirs)

    def reset(self, by_peer: bool) -> None:
        """The connection was reset, or an attempt to connect ended: by the peer, or by us. Ends the stream."""
        with self._writer._lock:
            if self._over:
                return
            now = self._writer._clock()
            attempt = self._active and not self._opened
            if attempt:
                self._syn(self._ours, now)
            else:
                self._open(now)
                self._write_held()
            if by_peer or not attempt:
                self._segment(self._theirs if by_peer else self._ours, now, RST | ACK, _NO_OCTETS)
            self._end()

    def closed(self) -> None:
        """The socket is gone; what is held is written. Ends the stream."""
        with self._writer._lock:
            if not self._over:
                self._write_held()
                self._end()

    # All below: with the writer's lock held, except the first lines of _octets and _fin.

    def _octets(self, direction: _Direction, data: Buffer) -> None:
        with memoryview(data) as given, given.cast("B") as view, self._writer._lock:
            if self._over or not view:
                return
            now = self._writer._clock()
            self._open(now)
            place = self._complete_held(direction, view, now)
            cutter = direction.cutter
            size = len(view)
            while place < size:
                length = cutter.wanted(view[place:])
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
            other = self._theirs if direction is self._ours else self._ours
            other.cutter.marked = asks_for_markers(unit)
        elif cutter.is_terminate(unit):
            comment = terminate_sentence(cutter.unmarked(unit))
        cutter.passed(len(unit))
        self._pieces(direction, unit[written:], now, comment)
        if comment:
            self._writer._write_out()

    def _pieces(self, direction: _Direction, octets: memoryview, now: int, comment: str = "") -> None:
        for place in range(0, len(octets), MAX_PAYLOAD):
            self._segment(direction, now, PSH | ACK, octets[place : place + MAX_PAYLOAD], comment=comment)
            comment = ""

    def _segment(
        self,
        direction: _Direction,
        now: int,
        flags: int,
        payload: memoryview,
        options: bytes = b"",
        comment: str = "",
    ) -> None:
        acknowledged = 0
        if flags & ACK:
            acknowledged = (self._theirs if direction is self._ours else self._ours).sequence
        headers = direction.headers.make(direction.sequence, acknowledged, flags, payload, options)
        size = len(payload)
        direction.sequence = direction.sequence + size + bool(flags & (SYN | FIN)) & 0xFFFFFFFF
        self._writer._put(enhanced_packet(self._interface, now, headers, payload, size, comment))

    @property
    def _holds(self) -> bool:
        return len(self._ours.held) > self._ours.written or len(self._theirs.held) > self._theirs.written

    def _write_held(self, not_after: float | None = None) -> None:
        """Write the beginnings of units that are held: all, or those held since a time (monotonic) or longer."""
        for direction in (self._ours, self._theirs):
            if len(direction.held) > direction.written and (not_after is None or direction.held_since <= not_after):
                with memoryview(direction.held) as held, held[direction.written :] as rest:
                    self._pieces(direction, rest, self._writer._clock())
                direction.written = len(direction.held)

    def _syn(self, direction: _Direction, now: int) -> None:
        self._opened = True
        self._segment(direction, now, SYN, _NO_OCTETS, SYN_OPTIONS, self._name)

    def _open(self, now: int) -> None:
        if self._opened:
            return
        first, second = (self._ours, self._theirs) if self._active else (self._theirs, self._ours)
        self._syn(first, now)
        self._segment(second, now, SYN | ACK, _NO_OCTETS, SYN_OPTIONS)
        self._segment(first, now, ACK, _NO_OCTETS)

    def _fin(self, direction: _Direction) -> None:
        with self._writer._lock:
            if self._over or direction.ended:
                return
            now = self._writer._clock()
            self._open(now)
            self._write_held()
            direction.ended = True
            self._segment(direction, now, FIN | ACK, _NO_OCTETS)
            other = self._theirs if direction is self._ours else self._ours
            if other.ended:
                self._segment(other, now, ACK, _NO_OCTETS)
            self._writer._write_out()

    def _end(self) -> None:
        self._over = True
        self._writer._taps.discard(self)
        self._writer._write_out()
