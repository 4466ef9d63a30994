"""One TCP connection of the player: octets out in any pieces, frames in, never stuck and never full.

Knows where start-up frames and FPDUs end, so that what comes can be named. What goes out is octets: whether they are
right is somebody else's purpose. Everything is bounded by a deadline, and what is kept of a flood by `KEPT_FRAMES`.
"""

import select
import socket
import struct
import sys
import time
from collections import deque
from collections.abc import Callable, Iterable
from contextlib import suppress
from typing import Final

from softndk.iwarp.framing import Deframer, FramingFault, FramingReason
from softndk.peer import frames
from softndk.peer.frames import Seen
from softndk.trace.capture import StreamTap
from softndk.trace.fields import is_plausible
from softndk.wire import WireError, ddp
from softndk.wire.mpa import STARTUP_HEADER, StartupFrame, frame_length, may_begin_startup
from softndk.wire.rdmap import Opcode, opcode_of
from softndk.wire.terminate import Terminate

__all__ = ["Ended", "Link", "OutOfTime"]

KEPT_FRAMES: Final = 512
"""Received frames that wait to be looked at, and frames of the story; of a flood the oldest go."""
HELD_OCTETS: Final = 1 << 20
"""Octets that are kept before the start-up is complete and they can be divided."""
READ_OCTETS: Final = 1 << 17
ACK_WAIT_S: Final = 0.1
"""How long a piece may stay unacknowledged before the next one follows anyway."""
_ABORTIVE: Final = struct.pack("ii", 1, 0)
_TIOCOUTQ: Final = 0x5411


class Ended(Exception):
    """The other side has ended the stream: nothing more can be sent or expected."""


class OutOfTime(Exception):
    """The scenario's time is over; the text says what has been waited for."""


class Link:
    """A connected socket; it becomes ours. `seconds`: the time for all of the scenario, from now on.

    listener: called with each frame as it passes. tap: takes the octets for a capture.
    """

    def __init__(
        self,
        sock: socket.socket,
        seconds: float,
        *,
        listener: Callable[[Seen], object] | None = None,
        tap: StreamTap | None = None,
    ) -> None:
        sock.setblocking(False)
        with suppress(OSError):
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.began = time.monotonic()
        self.deadline = self.began + seconds
        self.story: deque[Seen] = deque(maxlen=KEPT_FRAMES)
        self.inbox: deque[Seen] = deque(maxlen=KEPT_FRAMES)
        """Received frames that no step has looked at."""
        self.received = 0
        """Frames received, start-up frame included."""
        self.sent_fpdus = 0
        self.theirs: StartupFrame | None = None
        self.our_markers = False
        self.our_crc: bool | None = None
        """C and M of the start-up frame that has been sent, whatever else was wrong with it."""
        self.our_startup_valid = False
        self.terminate: Terminate | None = None
        self.terminate_header: ddp.UntaggedHeader | None = None
        self.after_terminate = 0
        """Frames that came behind the peer's Terminate."""
        self.no_crc = False
        """The other side's FPDUs have zeros where CRCs were settled."""
        self.garbage = ""
        self.got_fin = False
        self.got_reset = False
        self.fin_sent = False
        self._socket = sock
        self._listener = listener
        self._tap = tap
        self._held = bytearray()
        self._deframer: Deframer | None = None
        if tap is not None:
            tap.opened()

    # ---- state

    @property
    def over(self) -> bool:
        """The other side has sent its last octet, or what it sends cannot be read any more."""
        return self.got_fin or self.got_reset or bool(self.garbage)

    @property
    def ended(self) -> bool:
        """Nothing that matters can follow: it is over, or the other side's Terminate has come."""
        return self.over or self.terminate is not None

    @property
    def seconds(self) -> float:
        return time.monotonic() - self.began

    @property
    def crc(self) -> bool:
        """CRCs are used if either start-up frame asks for them (RFC 5044 7.1)."""
        return bool(self.our_crc) or (self.theirs is not None and self.theirs.crc)

    @property
    def started(self) -> bool:
        """Both start-up frames have passed."""
        return self.our_crc is not None and self.theirs is not None

    def tell(self, seen: Seen) -> None:
        """Put it into the story."""
        self.story.append(seen)
        if self._listener is not None:
            self._listener(seen)

    def we_said(self, *, markers: bool, crc: bool, valid: bool) -> None:
        """Our start-up frame has gone. valid: it can be read as one."""
        self.our_markers, self.our_crc, self.our_startup_valid = markers, crc, valid
        self._parse()

    # ---- out

    def send(self, pieces: Iterable[bytes]) -> None:
        """Send the pieces, each in a TCP segment of its own if there are several: the next one goes when the other
        side's TCP has the one before. Raises: Ended, OutOfTime.
        """
        several = False
        for piece in pieces:
            if several:
                self._wait_for_ack()
            self._send_all(memoryview(piece))
            several = True

    def _send_all(self, octets: memoryview) -> None:
        while octets:
            if self.got_reset:
                raise Ended
            self._wait(write=True, doing="room in TCP: the other side does not read")
            try:
                count = self._socket.send(octets[:READ_OCTETS])
            except BlockingIOError:
                continue
            except OSError:
                self._read_rest()
                raise Ended from None
            if self._tap is not None:
                self._tap.sent(octets[:count])
            octets = octets[count:]

    def _wait_for_ack(self) -> None:
        limit = min(self.deadline, time.monotonic() + ACK_WAIT_S)
        while self._unacknowledged() and time.monotonic() < limit and not self.got_reset:
            self.read(0.001)

    def _unacknowledged(self) -> int:
        if not sys.platform.startswith("linux"):
            return 0
        import fcntl

        count = bytearray(4)
        with suppress(OSError):
            fcntl.ioctl(self._socket, _TIOCOUTQ, count)
        return int.from_bytes(count, sys.byteorder)

    def finish(self) -> None:
        """Send FIN; reading goes on."""
        with suppress(OSError):
            self._socket.shutdown(socket.SHUT_WR)
            if self._tap is not None and not self.fin_sent:
                self._tap.fin_sent()
        self.fin_sent = True
        self.tell(frames.bare("fin", "FIN", "no more octets from us", sent=True, seconds=self.seconds))

    def reset(self) -> None:
        """Send RST: nothing can be seen any more."""
        self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _ABORTIVE)
        self.tell(frames.bare("reset", "reset", "the connection, by us", sent=True, seconds=self.seconds))
        if self._tap is not None:
            self._tap.reset(by_peer=False)
        self._socket.close()
        self.got_reset = True

    def close(self) -> None:
        """Let go of the socket."""
        self._socket.close()
        if self._tap is not None:
            self._tap.closed()

    # ---- in

    def read(self, seconds: float) -> bool:
        """Take in what comes within `seconds`, once; True if something came or the stream has ended."""
        if self.over or not select.select([self._socket], [], [], max(0.0, seconds))[0]:
            return self.over
        self._receive()
        return True

    def _wait(self, *, write: bool, doing: str) -> None:
        """Until octets can be sent, taking in what comes meanwhile."""
        while True:
            left = self.deadline - time.monotonic()
            reading = [] if self.over else [self._socket]
            readable, writable, _ = select.select(reading, [self._socket] if write else [], [], max(0.0, left))
            if readable:
                self._receive()
            if writable or self.got_reset:
                return
            if left <= 0:
                raise OutOfTime(f"{doing}, within {self.seconds:.1f} s")

    def _read_rest(self) -> None:
        """Sending has failed: what the other side said before may still be there."""
        while self.read(min(0.2, max(0.0, self.deadline - time.monotonic()))) and not self.over:
            pass
        if not self.over:
            self.got_reset = True

    def _receive(self) -> None:
        try:
            octets = self._socket.recv(READ_OCTETS)
        except BlockingIOError:
            return
        except OSError as error:
            self.got_reset = True
            if self._tap is not None:
                self._tap.reset(by_peer=True)
            self.tell(frames.bare("reset", "reset", error.strerror or str(error), sent=False, seconds=self.seconds))
            return
        if not octets:
            self.got_fin = True
            if self._tap is not None:
                self._tap.fin_received()
            rest = len(self._held) or (self._deframer.buffered if self._deframer else 0)
            self.tell(
                frames.bare(
                    "fin", "FIN", f"inside a frame, after {rest} octets of it" if rest else "", sent=False,
                    seconds=self.seconds,
                )
            )  # fmt: skip
            return
        if self._tap is not None:
            self._tap.received(octets)
        if self.garbage:
            return
        if self._deframer is None:
            self._held += octets
            if len(self._held) > HELD_OCTETS:
                self._give_up(f"more than {HELD_OCTETS} octets before the start-up is complete")
            self._parse()
        else:
            self._take_fpdus(octets)

    def _parse(self) -> None:
        """Cut off the start-up frame, then FPDUs as soon as both start-up frames are known."""
        if self.theirs is None and self._held:
            head = self._held[: STARTUP_HEADER + 4]
            if not may_begin_startup(head):
                if len(head) < 4:
                    return
                if is_plausible(head):  # an FPDU, where there should be a start-up frame
                    self._begin_fpdus(crc=False)
                else:
                    self._give_up(f"{len(self._held)} octets that begin with {bytes(head[:8]).hex(' ')}: no MPA frame")
                return
            if len(head) < STARTUP_HEADER:
                return
            try:
                length = frame_length(head)
                if len(self._held) < length:
                    return
                self.theirs = StartupFrame.parse(self._held[:length])
            except WireError as error:
                self._give_up(str(error))
                return
            del self._held[:length]
            self._note(frames.startup(self.theirs, sent=False, seconds=self.seconds))
        if self.started and self._deframer is None:
            self._begin_fpdus(crc=self.crc)

    def _begin_fpdus(self, *, crc: bool) -> None:
        self._deframer = Deframer(crc=crc, markers=self.our_markers)
        held, self._held = bytes(self._held), bytearray()
        if held:
            self._take_fpdus(held)

    def _take_fpdus(self, octets: bytes) -> None:
        deframer = self._deframer
        assert deframer is not None
        try:
            deframer.feed(memoryview(octets))
            while (ulpdu := deframer.next_ulpdu()) is not None:
                self._segment(bytes(ulpdu))
            deframer.detach()
        except FramingFault as fault:
            if fault.reason is FramingReason.BAD_CRC and not (fault.received or fault.offset or self.our_markers):
                self._begin_without_crc(octets)
            else:
                self._give_up(str(fault))

    def _begin_without_crc(self, octets: bytes) -> None:
        """The first FPDU has no CRC, though there should be one: it may come from a side that did not take our start-up
        frame for one.
        """
        self.no_crc = True
        self._deframer = Deframer(crc=False, markers=False)
        self._take_fpdus(octets)

    def _segment(self, ulpdu: bytes) -> None:
        started = self.sent_fpdus > 0
        if self.terminate is not None:
            self.after_terminate += 1
        elif len(ulpdu) >= 2 and not ddp.is_tagged(ulpdu[0]) and opcode_of(ulpdu[1]) == Opcode.TERMINATE:
            try:
                self.terminate_header = ddp.parse_untagged(ulpdu)
                message = Terminate.parse(ulpdu[ddp.UNTAGGED_HEADER :])
                self.terminate = message.settled(started=started)
            except WireError as error:
                self._give_up(f"a Terminate that cannot be read: {error}")
        self._note(frames.segment(ulpdu, sent=False, seconds=self.seconds, started=started))

    def _note(self, seen: Seen) -> None:
        self.received += 1
        self.inbox.append(seen)
        self.tell(seen)

    def _give_up(self, problem: str) -> None:
        """What comes cannot be read from here on."""
        self.garbage = problem
        self._held.clear()
        self.tell(frames.bare("garbage", "unreadable", problem, sent=False, seconds=self.seconds))
