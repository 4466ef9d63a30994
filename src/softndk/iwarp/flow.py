"""Octets of an established connection, through its stream and under its time limits.

Responsible for: what is taken in and made, what a stream that stops at a fault leads to, how much is read at once, and the
nudges to a peer that stays silent.
Must not know: what the octets mean (the stream's business), and how a connection ends (it calls `Ending`).
"""

from typing import Final

from softndk.iwarp.ending import Ending
from softndk.iwarp.faults import Cause, ProtocolFault
from softndk.iwarp.qp_state import State
from softndk.iwarp.standing import UP, Standing
from softndk.iwarp.startup import Startup
from softndk.iwarp.time_limits import Limit

__all__ = ["Flow"]

READ_FIRST: Final = 16 * 1024
READ_MOST: Final = 256 * 1024
"""Octets that a driver may read at once: of a peer that nobody knows yet, and of one that sends large FPDUs."""
FRAMES_PER_READ: Final = 512
"""FPDUs that one read should not exceed: some milliseconds of work, then others have their turn."""
NUDGES: Final = 4
"""Zero-length RDMA Writes to a peer that stays silent, each after twice the time of the one before."""
_READ_LEAST: Final = 2048


class Flow:
    """`read_size`: how many octets to read at most before others have their turn; fewer where they were many small FPDUs."""

    def __init__(self, standing: Standing, startup: Startup, ending: Ending) -> None:
        self.read_size = READ_FIRST
        self._standing = standing
        self._startup = startup
        self._ending = ending
        self._frames_seen = 0
        self._nudges = 0
        self._unheard = False  # the active side has begun to send and has not heard of the peer since

    # ---- in

    def consume(self, data: memoryview) -> None:
        """Octets of the stream, borrowed."""
        stream = self._standing.stream
        assert stream is not None
        before = stream.frames_in
        try:
            stream.consume(data, hold=self._may_hold())
        except ProtocolFault as fault:
            self._startup.note_first_frame()
            self._ending.fail(fault)
            return
        except MemoryError:
            self._startup.note_first_frame()
            self._ending.abort("out of memory for what has come")
            return
        self._adapt_read_size(data.nbytes, stream.frames_in - before)
        self._after_input()

    def seek_terminate(self, data: memoryview) -> None:
        """What has come behind a message that is held back, where nothing can be taken in any more."""
        here = self._standing
        if here.stream is None or not here.stream.held or not here.is_up:
            return
        message = here.stream.seek_terminate(data)
        if message is not None:
            self._ending.take_terminate(message)

    def offer_receive(self) -> None:
        """Something was posted: a held-back message may find its receive."""
        here = self._standing
        if here.stream is not None and here.stream.held and here.pair is not None and here.pair.has_receive:
            here.timers.stop(Limit.RECEIVE)
            self._resume(hold=self._may_hold())

    def stop_waiting(self) -> None:
        """A held-back message has waited long enough: it is taken, or it is a fault."""
        self._resume(hold=False)

    def _resume(self, *, hold: bool) -> None:
        stream = self._standing.stream
        assert stream is not None
        try:
            stream.resume(hold=hold)
        except ProtocolFault as fault:
            self._ending.fail(fault)
            return
        self._after_input()

    def _may_hold(self) -> bool:
        return self._standing.config.receive_wait_s > 0

    def _after_input(self) -> None:
        here = self._standing
        stream = here.stream
        assert stream is not None
        self._startup.note_first_frame()
        if stream.peer_terminate is not None:
            self._ending.take_terminate(stream.peer_terminate)
            return
        if stream.held and here.pair is not None and here.pair.shared is None:
            here.timers.keep_or_start(Limit.RECEIVE)
        if stream.frames_in != self._frames_seen or stream.held or not stream.inside_fpdu:
            self._frames_seen = stream.frames_in
            here.timers.stop(Limit.STALL)
        if stream.inside_fpdu and not stream.held:
            here.timers.keep_or_start(Limit.STALL)
        if here.state is State.CLOSING:
            self._ending.advance()

    def _adapt_read_size(self, octets: int, frames: int) -> None:
        if frames > FRAMES_PER_READ:
            self.read_size = max(_READ_LEAST, octets * FRAMES_PER_READ // frames)
        elif octets >= self.read_size and 2 * frames <= FRAMES_PER_READ:
            self.read_size = min(2 * self.read_size, READ_MOST)

    # ---- out

    def refill(self) -> None:
        """Have the next frames made, if few are left."""
        here = self._standing
        stream = here.stream
        if stream is None or here.state not in UP or here.local_fin:
            return
        have = here.out.octets
        room = here.config.send_buffer
        if have >= room // 2:
            return
        try:
            frames = stream.produce(room - have)
        except ProtocolFault as fault:
            self._ending.fail(fault)
            return
        except MemoryError:
            self._ending.fail(ProtocolFault(Cause.LOCAL_ERROR, "out of memory for what is to be sent"))
            return
        here.out.extend(frames)

    def taken(self, octets: int) -> None:
        """The socket has taken so many octets of the stream."""
        here = self._standing
        if here.stream is None or not octets:
            return
        here.stream.transmitted(octets)
        if self._unheard:
            here.timers.keep_or_start(Limit.NUDGE)

    # ---- nudges

    def listen(self) -> None:
        """The active side begins to send, and the peer has said nothing yet."""
        self._unheard = self._standing.config.nudge_s > 0

    def hear(self) -> None:
        """The peer lives."""
        if self._unheard:
            self._unheard = False
            self._standing.timers.stop(Limit.NUDGE)

    def nudge(self) -> None:
        """Our first FPDU may lie unread at the peer until more comes (see IwarpConfig.nudge_s): send what does no harm.

        Inside a message more comes anyway. A peer that was not ready to look may overlook the first of them as well.
        """
        here = self._standing
        if here.stream is None or here.local_fin or not here.is_up:
            return
        frame = here.stream.nudge()
        if frame is not None:
            here.out.add(frame)
        self._nudges += 1
        self._unheard = self._nudges < NUDGES
        if self._unheard:
            here.timers.start(Limit.NUDGE, times=2**self._nudges)
