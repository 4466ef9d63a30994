"""One iWARP connection from start-up to end: glue of negotiation, states, a data path's stream, and time limits.

Sans-I/O: octets and `now` in; octets, events and the next deadline out. Four families of methods:
inputs (`connected`, `receive_data`, `receive_eof`, `connection_lost`, `handle_timeout`), user verbs (`accept`,
`complete`, `reject`, `disconnect`, `close`, `abort`, `kick`), outputs (`wants_read`, `read_size`, `data_to_send`,
`data_sent`, `finish`, `next_timeout`, `take_events`) and getters.

It is handed its data path and does not choose it; it knows no sockets, no locks and no clock.
"""

import errno
from collections.abc import Callable
from typing import Final

from softndk.config import IwarpConfig
from softndk.errors import Aborted, AdapterUnavailable, AddressUnavailable, IoTimeout, NdkError, Refused, error_from_os
from softndk.flags import OperationType
from softndk.iwarp import events, faults
from softndk.iwarp.events import Event, Finish
from softndk.iwarp.faults import Cause, ProtocolFault
from softndk.iwarp.framing import Framer
from softndk.iwarp.negotiation import (
    Initiator,
    Negotiated,
    Rejection,
    Responder,
    Rtr,
    StartupError,
    StartupReason,
)
from softndk.iwarp.outgoing import Outgoing
from softndk.iwarp.qp_state import State, Step, next_state
from softndk.iwarp.stream import Stream, StreamParameters
from softndk.iwarp.time_limits import Limit, TimeLimits
from softndk.queues.pair import QueuePair
from softndk.queues.work import FetchWork
from softndk.status import Status
from softndk.wire import ddp, mpa, rdmap
from softndk.wire.terminate import Terminate

__all__ = ["Connection", "StreamOpener"]

StreamOpener = Callable[[StreamParameters], Stream]

EARLY_LIMIT: Final = 128 * 1024
"""Octets kept for an active side whose program has not completed the connect yet; then TCP holds the peer back."""
READ_FIRST: Final = 16 * 1024
READ_MOST: Final = 256 * 1024
"""Octets that a driver may read at once: of a peer that nobody knows yet, and of one that sends large FPDUs."""
FRAMES_PER_READ: Final = 512
"""FPDUs that one read should not exceed: some milliseconds of work, then others have their turn."""
NUDGES: Final = 4
"""Zero-length RDMA Writes to a peer that stays silent, each after twice the time of the one before."""
_READ_LEAST: Final = 2048
_GRACEFUL: Final = 0x40000
_CLOSED_EARLY: Final = 0x22001  # MPA's own codes (RFC 5044 8), which no Terminate can carry any more, or yet
_MALFORMED: Final = 0x22004
_STARTUP_CAUSES: Final = {
    StartupReason.INSUFFICIENT_IRD: Cause.STARTUP_INSUFFICIENT_IRD,
    StartupReason.NO_MATCHING_RTR: Cause.STARTUP_NO_RTR,
    StartupReason.LOCAL_FAILURE: Cause.STARTUP_FAILED,
}
"""Those that the peer is told of by a Terminate."""
_OWN_CAUSES: Final = frozenset({Cause.LOCAL_ERROR, Cause.NIC_FAILURE})
_MAX_VECTORS: Final = 64
_OVER: Final = frozenset({State.TERMINATE, State.CLOSED, State.ERROR})
_UP: Final = frozenset({State.RTS, State.PEER_CLOSED, State.CLOSING})


class Connection:
    """Core of one connection. `name` is for messages; `limits` are the adapter's (inbound, outbound) read limits."""

    def __init__(self, name: str, config: IwarpConfig, *, initiator: Initiator | None, limits: tuple[int, int]) -> None:
        self.name = name
        self.state = State.IDLE
        self.picks_port = False  # the source port is the system's choice
        self.negotiated: Negotiated | None = None
        self.pair: QueuePair | None = None
        self._config = config
        self._limits = limits
        self._initiator = initiator
        self._responder = None if initiator else Responder(crc=config.crc, markers=config.markers)
        self._open_stream: StreamOpener | None = None
        self._stream: Stream | None = None
        self._mss = 536
        self._early = bytearray()
        self._out = Outgoing()
        self._second_attempt = ""  # for messages
        self._timers = TimeLimits(config)
        self._events: list[Event] = []
        self._finish = Finish.KEEP
        self._peer_fin = False
        self._local_fin = False
        self._disconnect_asked = False
        self._nudges = 0
        self._unheard = False  # the active side has begun to send and has not heard of the peer since
        self._frames_seen = 0
        self._read_size = READ_FIRST
        self._octets_in = 0
        self._octets_out = 0

    def bind(self, pair: QueuePair, open_stream: StreamOpener) -> None:
        """Give the connection its QP: before the active start, at the accept on the passive side."""
        self.pair = pair
        self._open_stream = open_stream

    # ---- getters

    @property
    def is_over(self) -> bool:
        """Nothing more comes of it for the program."""
        return self.state in _OVER

    @property
    def is_up(self) -> bool:
        return self.state in _UP

    @property
    def disconnect_asked(self) -> bool:
        """This side has called `disconnect`."""
        return self._disconnect_asked

    @property
    def traffic(self) -> tuple[int, int, int, int]:
        """FPDUs taken in and made, octets received and sent so far."""
        stream = self._stream
        frames = (0, 0) if stream is None else (stream.frames_in, stream.frames_out)
        return (*frames, self._octets_in, self._octets_out)

    @property
    def holding_back(self) -> bool:
        """A message waits for a posted receive."""
        return self._stream is not None and self._stream.held

    # ---- inputs from network and clock

    def connected(self, now: float, mss: int) -> None:
        """TCP is up; `mss` is its effective segment size in octets."""
        self._timers.learn(now)
        self._mss = mss
        self._finish = Finish.KEEP
        if self._initiator is not None:
            self._step(Step.OPEN_ACTIVE)
            self._out.add_startup(self._initiator.request())
        else:
            self._step(Step.OPEN_PASSIVE)
            self._timers.start(Limit.REQUEST)

    def start_timer(self, now: float) -> None:
        """The active side's time limit, from the connect call to the peer's Reply."""
        self._timers.learn(now)
        self._timers.start(Limit.REPLY)

    def refuse_start(self, error: NdkError) -> None:
        """The active start cannot even begin, for a reason known at once."""
        self._fail_startup(error)

    def receive_data(self, data: memoryview, now: float) -> None:
        """Octets from the peer, borrowed for the call."""
        self._timers.learn(now)
        self._octets_in += data.nbytes
        self._hear()
        state = self.state
        if state is State.REQUESTING:
            self._receive_reply(data)
        elif state in (State.AWAITING, State.OFFERED):
            self._receive_request(data)
        elif state is State.ANSWERED:
            self._early += data
        elif self._peer_fin and state in _UP:  # TCP hands over no such octets, another wire may
            self._lose(Aborted(f"{self.name}: octets behind the peer's FIN [CONNECTION_ABORTED, RFC 5041 6.2]"))
        elif state is State.READYING or state in _UP:
            self._consume(data)

    def receive_eof(self, now: float) -> None:
        """The peer's FIN, after all its data."""
        self._timers.learn(now)
        self._peer_fin = True
        self._hear()
        state = self.state
        if state in (State.REQUESTING, State.AWAITING):
            self._startup_eof()
        elif state in (State.ANSWERED, State.OFFERED):
            self._fail_startup(
                Aborted(f"{self.name}: the peer closed before this side had answered [CONNECTION_ABORTED, A-26]")
            )
        elif state is State.READYING:
            self._fail_startup(
                Refused(f"{self.name}: the peer closed instead of completing the connect [CONNECTION_REFUSED, R-IW-4]")
            )
        elif state in (State.RTS, State.CLOSING):
            self._stream_eof()
        elif state is State.TERMINATE:
            self._finish_draining()

    def receive_rest(self, data: memoryview, now: float) -> None:
        """Before `connection_lost`: what has come behind a message that is held back. Only a Terminate among it counts."""
        self._timers.learn(now)
        stream = self._stream
        if stream is None or not stream.held or self.state not in _UP:
            return
        message = stream.seek_terminate(data)
        if message is not None:
            self._take_terminate(message)

    def connection_lost(self, error: OSError, now: float) -> None:
        """TCP failed: refused, unreachable, reset, timed out. Nothing can be sent any more."""
        self._timers.learn(now)
        if self.state in (State.CLOSED, State.ERROR):
            return
        if error.errno == errno.ECONNRESET and self._may_fall_back:
            self._fall_back()
            return
        what = ("cannot connect" if self.state is State.IDLE else "connection lost") + self._second_attempt
        failure = error_from_os(error, f"{self.name}: {what}")
        if self.picks_port and self.state is State.IDLE and error.errno in (errno.EADDRINUSE, errno.EADDRNOTAVAIL):
            failure = AddressUnavailable(
                f"{self.name}: no local port is free [TOO_MANY_ADDRESSES, R-PORT-1]",
                Status.TOO_MANY_ADDRESSES,
                provider_error_code=failure.provider_error_code,
            )
        unanswered = self._initiator is not None and self.state in (State.IDLE, State.REQUESTING)
        if unanswered and failure.status is Status.CONNECTION_RESET:
            failure = Refused(f"{failure.text}; nobody takes connections there [CONNECTION_REFUSED, R-PAUSE-1]")
        elif failure.status is Status.CONNECTION_RESET and (self.state is State.CLOSING or self.state not in _UP):
            when = "before its disconnect" if self.state is State.CLOSING else "before the connection was up"
            rule = "A-14" if self.state is State.CLOSING else "A-26"
            failure = Aborted(
                f"{failure.text}; {when} [CONNECTION_ABORTED, {rule}]",
                provider_error_code=failure.provider_error_code,
            )
        self._lose(failure)

    def handle_timeout(self, now: float) -> None:
        """Act on every time limit that has passed."""
        self._timers.learn(now)
        while limit := self._timers.take_expired():
            self._expire(limit)

    # ---- user verbs

    def accept(self, private_data: bytes, ird: int, ord_limit: int, now: float) -> None:
        """Passive side: answer the offered Request; `bind` first.

        Choice: MPA has no message for the end of the active side's connect. The accept is complete with the
        ready-to-receive indication; where none was agreed, when the Reply is on its way (R-IW-4).
        """
        self._timers.learn(now)
        assert self._responder is not None
        reply, self.negotiated = self._responder.accept(private_data, ird=ird, ord=ord_limit)
        self._out.add_startup(reply)
        self._start_stream(fenced=True)
        if self.negotiated.rtr is not Rtr.NONE:
            self._step(Step.ACCEPT)
            self._timers.start(Limit.READY)
        else:
            self._step(Step.ACCEPT_READY)
            self._establish()

    def complete(self, now: float) -> None:
        """Active side: finish the start-up after the Reply (NdkCompleteConnect)."""
        self._timers.learn(now)
        assert self.negotiated is not None
        stream = self._start_stream(fenced=False)
        self._step(Step.COMPLETE)
        if self.negotiated.rtr is not Rtr.NONE:
            self._out.add(stream.ready_indication(read=self.negotiated.rtr is Rtr.READ))
        self._establish()
        early, self._early = self._early, bytearray()
        self._unheard = not early and self._config.nudge_s > 0
        if early:
            self._consume(memoryview(early))

    def reject(self, private_data: bytes, now: float) -> None:
        """Passive side: refuse the offered Request. Active side: back out after the Reply (R-REJECT-1, -2)."""
        self._timers.learn(now)
        if self.state is State.OFFERED and self._responder is not None:
            self._out.add_startup(self._responder.reject(private_data))
        self._begin_last_words()

    def disconnect(self, now: float) -> None:
        """Graceful end: what is posted goes out, then FIN; over when the peer's FIN has come (R-DISC-1, -2)."""
        self._timers.learn(now)
        self._step(Step.DISCONNECT)
        self._disconnect_asked = True
        self._timers.start(Limit.DISCONNECT)
        if self.pair is not None:
            self.pair.release_deferred()
        self._advance_disconnect()

    def close(self, now: float) -> None:
        """The program has closed the connector: like close(2), no events any more (R-CLOSE-10).

        Choice: what has completed still goes out, then FIN, so the peer sees a graceful end and not an abort (R-CLOSE-10).
        """
        self._timers.learn(now)
        if self.state is State.OFFERED:
            self.reject(b"", now)
        elif self.state in _UP or self.state is State.READYING:
            if self.pair is not None:
                self.pair.flush(
                    Aborted(
                        f"{self.name}: closed by this side [CONNECTION_DISCONNECTED]",
                        Status.CONNECTION_DISCONNECTED,
                        provider_error_code=_GRACEFUL,
                    )
                )
            self._begin_last_words()
        elif self.state is State.ANSWERED:
            self._begin_last_words()
        elif self.state not in _OVER:
            self._give_up(Finish.CLOSE)
        self._events.clear()

    def abort(self, text: str, now: float) -> None:
        """End an established connection because of something on this side (flush, CQ overrun)."""
        self._timers.learn(now)
        if self.state in _UP:
            self._fail(ProtocolFault(Cause.LOCAL_ERROR, text))
        elif self.state is State.READYING:
            error = Aborted(f"{self.name}: {text} [CONNECTION_ABORTED]")
            self._flush(error)
            self._lose(error)

    def fail_adapter(self, text: str, now: float) -> None:
        """The adapter has failed as a whole: say so where anything may be said (error table rows 41 and 43), else reset."""
        self._timers.learn(now)
        negotiated = self.negotiated
        if self.state in _UP:
            self._fail(ProtocolFault(Cause.NIC_FAILURE, text))
        elif self.state is State.ANSWERED and negotiated is not None and negotiated.enhanced:
            crc, markers = negotiated.crc, negotiated.send_markers
            self._startup_error(StartupError(StartupReason.LOCAL_FAILURE, text, crc=crc, send_markers=markers))
        elif self.state not in _OVER:
            self._lose(AdapterUnavailable(f"{self.name}: {text} [DEVICE_REMOVED]", Status.DEVICE_REMOVED))

    def kick(self, now: float) -> None:
        """Something was posted: a held-back message may find its receive."""
        self._timers.learn(now)
        if self._stream is not None and self._stream.held and self.pair is not None and self.pair.has_receive:
            self._timers.stop(Limit.RECEIVE)
            self._resume(hold=self._may_hold())

    # ---- outputs

    def wants_read(self) -> bool:
        """False: the stream is held back; leave what comes in TCP."""
        if self.state is State.ANSWERED:
            return len(self._early) < EARLY_LIMIT
        if self.state is State.TERMINATE:
            return True
        return not self.holding_back and self.state not in (State.CLOSED, State.ERROR)

    def read_size(self) -> int:
        """How many octets to read at most before others have their turn: fewer where they were many small FPDUs."""
        return self._read_size

    def data_to_send(self, now: float) -> list[memoryview]:
        """Octets for the peer, at most a few frames ahead of what the socket has taken."""
        self._timers.learn(now)
        self._refill()
        if self.state is State.CLOSING and not self._out:
            self._advance_disconnect(exhausted=True)
        return self._out.first(_MAX_VECTORS)

    def data_sent(self, count: int, now: float) -> None:
        """The socket has taken the first `count` octets of what data_to_send gave."""
        self._timers.learn(now)
        self._octets_out += count
        of_stream = self._out.taken(count)
        if self._stream is not None and of_stream:
            self._stream.transmitted(of_stream)
            if self._unheard:
                self._timers.keep_or_start(Limit.NUDGE)
        if self.state is State.CLOSING:
            self._advance_disconnect()

    def finish(self) -> Finish:
        """What becomes of the TCP connection now that nothing is left to send."""
        if self._out and self._finish is not Finish.RESET:
            return Finish.KEEP
        return self._finish

    def next_timeout(self) -> float | None:
        return self._timers.next_end()

    def take_events(self) -> list[Event]:
        """What has happened since the last call, in order."""
        taken, self._events = self._events, []
        return taken

    # ---- start-up

    def _receive_reply(self, data: memoryview) -> None:
        assert self._initiator is not None
        try:
            answer = self._initiator.receive(data)
        except StartupError as error:
            self._startup_error(error)
            return
        if answer is None:
            return
        self._timers.stop(Limit.REPLY)
        if isinstance(answer, Rejection):
            self._fail_startup(
                Refused(
                    f"{self.name}: the peer rejected the connection ({_said(answer)}) [CONNECTION_REFUSED, R-REJECT-1]",
                    private_data=answer.private_data,
                )
            )
            return
        self.negotiated = answer
        self._early += self._initiator.leftover()
        self._step(Step.REPLY)
        ird, ord_limit = self._effective(answer)
        self._events.append(events.ReplyReceived(answer.private_data, ird, ord_limit))

    def _receive_request(self, data: memoryview) -> None:
        assert self._responder is not None
        try:
            request = self._responder.receive(data)
        except StartupError as error:
            self._startup_error(error)
            return
        if request is None:
            return
        self._timers.stop(Limit.REQUEST)
        self._step(Step.REQUEST)
        ird, ord_limit = self._limits
        if request.peer_ord is not None:
            ird = min(ird, request.peer_ord)
        if request.peer_ird is not None:
            ord_limit = min(ord_limit, request.peer_ird)
        self._events.append(events.RequestReceived(request.private_data, ird, ord_limit))

    def _startup_eof(self) -> None:
        if self._may_fall_back:
            self._fall_back()
            return
        side = self._initiator or self._responder
        assert side is not None
        try:
            side.receive_eof()
        except StartupError as error:
            self._startup_error(error)

    @property
    def _may_fall_back(self) -> bool:
        initiator = self._initiator
        return (
            self._config.fallback_revision_1
            and self.state is State.REQUESTING
            and initiator is not None
            and initiator.revision > mpa.REVISION_RFC5044
            and initiator.is_unanswered
        )

    def _fall_back(self) -> None:
        """The peer may know revision 1 only (RFC 6581 6): once more, on a new TCP connection. The time limit goes on."""
        assert self._initiator is not None
        self._initiator = self._initiator.with_revision_1()
        self._step(Step.FALL_BACK)
        self._out.clear()
        self._peer_fin = False
        self._second_attempt = ", with MPA revision 1 after revision 2"
        self._finish = Finish.RECONNECT

    def _startup_error(self, error: StartupError) -> None:
        text = f"{self.name}: {error}{self._second_attempt}"
        unanswered = error.reason in (StartupReason.NO_ANSWER, StartupReason.INCOMPLETE)
        code = _CLOSED_EARLY if error.reason is StartupReason.NO_ANSWER else _MALFORMED
        failure: NdkError
        if unanswered and self._initiator is not None:
            failure = Refused(f"{text} [CONNECTION_REFUSED]", provider_error_code=code)
        else:
            failure = Aborted(f"{text} [CONNECTION_ABORTED, RFC 5044 7.1]", provider_error_code=code)
        cause = _STARTUP_CAUSES.get(error.reason)
        if cause is None:
            self._fail_startup(failure)
            return
        fault = ProtocolFault(cause, text)
        failure = Aborted(
            f"{text} [CONNECTION_ABORTED, {cause.value.rule}]",
            provider_error_code=faults.sent_code(fault),
            fault=faults.fault_value(fault),
        )
        framer = Framer(crc=error.crc, markers=error.send_markers)
        header = ddp.UntaggedHeader(True, rdmap.control(rdmap.Opcode.TERMINATE), 0, ddp.QueueNumber.TERMINATE, 1, 0)
        body = faults.terminate_for(fault).emit()
        self._out.add_startup(framer.frame(header.emit(), [memoryview(body)]))
        self._begin_last_words()
        self._events.append(events.StartupFailed(failure))

    def _fail_startup(self, error: NdkError) -> None:
        self._give_up(Finish.CLOSE)
        self._events.append(events.StartupFailed(error))

    def _effective(self, negotiated: Negotiated) -> tuple[int, int]:
        """Effective (inbound, outbound) read limits; an end that negotiated none keeps the adapter's."""
        ird = self._limits[0] if negotiated.ird == mpa.NO_NEGOTIATION else negotiated.ird
        ord_limit = self._limits[1] if negotiated.ord == mpa.NO_NEGOTIATION else negotiated.ord
        return ird, ord_limit

    def _start_stream(self, *, fenced: bool) -> Stream:
        negotiated = self.negotiated
        assert negotiated is not None and self._open_stream is not None and self.pair is not None
        ird, ord_limit = self._effective(negotiated)
        mulpdu = self._config.max_fpdu or mpa.mulpdu(self._mss, negotiated.send_markers)
        self._stream = self._open_stream(
            StreamParameters(
                crc=negotiated.crc,
                send_markers=negotiated.send_markers,
                receive_markers=negotiated.receive_markers,
                mulpdu=mulpdu,
                inbound_read_limit=ird,
                fenced=fenced,
                send_indication=fenced and Rtr.SEND in negotiated.rtr_options,
                rfc7306=self._config.rfc7306,
            )
        )
        self.pair.outbound_read_limit = ord_limit
        return self._stream

    def _establish(self) -> None:
        assert self.negotiated is not None
        ird, ord_limit = self._effective(self.negotiated)
        self._events.append(events.Established(ird, ord_limit))

    # ---- the stream

    def _consume(self, data: memoryview) -> None:
        assert self._stream is not None
        before = self._stream.frames_in
        try:
            self._stream.consume(data, hold=self._may_hold())
        except ProtocolFault as fault:
            self._note_first_frame()
            self._fail(fault)
            return
        except MemoryError:
            self._note_first_frame()
            self.abort("out of memory for what has come", self._timers.now)
            return
        self._adapt_read_size(data.nbytes, self._stream.frames_in - before)
        self._after_input()

    def _adapt_read_size(self, octets: int, frames: int) -> None:
        if frames > FRAMES_PER_READ:
            self._read_size = max(_READ_LEAST, octets * FRAMES_PER_READ // frames)
        elif octets >= self._read_size and 2 * frames <= FRAMES_PER_READ:
            self._read_size = min(2 * self._read_size, READ_MOST)

    def _resume(self, *, hold: bool) -> None:
        assert self._stream is not None
        try:
            self._stream.resume(hold=hold)
        except ProtocolFault as fault:
            self._fail(fault)
            return
        self._after_input()

    def _may_hold(self) -> bool:
        return self._config.receive_wait_s > 0

    def _after_input(self) -> None:
        stream = self._stream
        assert stream is not None
        self._note_first_frame()
        if stream.peer_terminate is not None:
            self._take_terminate(stream.peer_terminate)
            return
        if stream.held and self.pair is not None and self.pair.shared is None:
            self._timers.keep_or_start(Limit.RECEIVE)
        if stream.frames_in != self._frames_seen or stream.held or not stream.inside_fpdu:
            self._frames_seen = stream.frames_in
            self._timers.stop(Limit.STALL)
        if stream.inside_fpdu and not stream.held:
            self._timers.keep_or_start(Limit.STALL)
        if self.state is State.CLOSING:
            self._advance_disconnect()

    @property
    def _is_fenced(self) -> bool:
        """Passive side: no FPDU has come, so none may be sent."""
        stream = self._stream
        return self._responder is not None and stream is not None and not stream.frames_in and not stream.held

    def _note_first_frame(self) -> None:
        """Any FPDU shows that the peer is ready, except a Terminate (RFC 6581 5)."""
        stream = self._stream
        assert stream is not None
        frames = stream.frames_in + stream.held - (stream.peer_terminate is not None)
        if self.state is State.READYING and frames:
            self._timers.stop(Limit.READY)
            self._step(Step.READY)
            self._establish()

    def _hear(self) -> None:
        """The peer lives."""
        if self._unheard:
            self._unheard = False
            self._timers.stop(Limit.NUDGE)

    def _nudge(self) -> None:
        """Our first FPDU may lie unread at the peer until more comes (see IwarpConfig.nudge_s): send what does no harm.

        Inside a message more comes anyway. A peer that was not ready to look may overlook the first of them as well.
        """
        if self._stream is None or self.state not in _UP or self._local_fin:
            return
        frame = self._stream.nudge()
        if frame is not None:
            self._out.add(frame)
        self._nudges += 1
        self._unheard = self._nudges < NUDGES
        if self._unheard:
            self._timers.start(Limit.NUDGE, times=2**self._nudges)

    def _refill(self) -> None:
        stream = self._stream
        if stream is None or self.state not in _UP or self._local_fin:
            return
        have = self._out.octets
        if have >= self._config.send_buffer // 2:
            return
        try:
            frames = stream.produce(self._config.send_buffer - have)
        except ProtocolFault as fault:
            self._fail(fault)
            return
        except MemoryError:
            self._fail(ProtocolFault(Cause.LOCAL_ERROR, "out of memory for what is to be sent"))
            return
        self._out.extend(frames)

    def _stream_eof(self) -> None:
        """A FIN between two messages is the graceful notice; anywhere else the connection is broken (R-IW-2)."""
        stream = self._stream
        assert stream is not None
        self._timers.stop(Limit.STALL)
        if stream.inside_fpdu or stream.inside_message:
            where = "an FPDU" if stream.inside_fpdu else "a message"
            text = f"{self.name}: the peer closed inside {where} [CONNECTION_ABORTED, RFC 5044 8]"
            self._lose(Aborted(text, provider_error_code=_CLOSED_EARLY))
        elif self.state is State.CLOSING:
            self._advance_disconnect()
        else:
            self._step(Step.PEER_FIN)
            self._events.append(events.PeerDisconnected())

    def _advance_disconnect(self, *, exhausted: bool = False) -> None:
        """FIN when all is done; over when the peer's FIN is here too (R-DISC-2).

        exhausted: nothing can be sent now. What is left then waits for the peer, and in vain if its FIN has come.
        """
        stream = self._stream
        assert stream is not None
        done = stream.quiet or (exhausted and self._peer_fin)
        if not self._local_fin and done and not self._out:
            self._local_fin = True
            stream.refuse_reads = True
            self._finish = Finish.SHUTDOWN
        if self._local_fin and self._peer_fin:
            self._step(Step.FINISHED)
            self._timers.stop_all()
            self._finish = Finish.CLOSE
            self._flush(
                Aborted(
                    f"{self.name}: disconnected [CONNECTION_DISCONNECTED, R-DISC-3]",
                    Status.CONNECTION_DISCONNECTED,
                    provider_error_code=_GRACEFUL,
                )
            )
            self._events.append(events.Disconnected(None))

    # ---- failures

    def _fail(self, fault: ProtocolFault) -> None:
        """A fault found here: flush, Terminate as the last frame, then the end (RFC 5040 4.8).

        After our FIN there is no way to say it, nor may it be said before the peer's first FPDU, since a Terminate is one
        too (RFC 5044 7.1.3): the connection is reset.
        """
        error = Aborted(
            f"{self.name}: {fault.text} [CONNECTION_ABORTED, {fault.cause.value.rule}]",
            provider_error_code=faults.sent_code(fault),
            fault=faults.fault_value(fault),
        )
        if self._local_fin or (self._is_fenced and fault.cause in _OWN_CAUSES):
            self._lose(error)
            return
        assert self._stream is not None
        self._out.add(self._stream.terminate(faults.terminate_for(fault)))
        self._end_stream(error)
        self._begin_last_words()

    def _take_terminate(self, message: Terminate) -> None:
        """The peer's last word: fail the request it is about, cancel the others, answer with a FIN (A-4)."""
        stream, pair = self._stream, self.pair
        assert stream is not None and pair is not None
        value = faults.received_value(message, extended=pair.extended)
        code = faults.received_code(message)
        text = f"{self.name}: the peer ended the connection: {value.text}"
        error = Aborted(f"{text} [CONNECTION_ABORTED]", provider_error_code=code, fault=value)
        status = faults.status_for_received(message)
        if status is not None:
            culprit = _culprit(stream, message)
            target = culprit or next((r for r in (*pair.active, *pair.waiting) if r.status is None), None)
            if target is not None:
                name = OperationType(target.type).name.lower()
                target.fail(
                    status, f"{pair.name} {name}: refused by the peer: {value.text} [{status.name}, A-4]", error, code
                )
        stream.stop()
        self._out.clear()
        self._end_stream(error)
        self._begin_last_words()

    def _lose(self, error: NdkError) -> None:
        """TCP is gone or is given up; nothing can be said any more."""
        established = self.state in _UP
        if self._stream is not None:
            self._stream.stop()
        if established or self.state is State.READYING:
            self._end_stream(error)
        elif self.state not in _OVER:
            self._events.append(events.StartupFailed(error))
        self._give_up(Finish.RESET)

    def _end_stream(self, error: NdkError) -> None:
        """Tell the program how an established (or nearly established) stream ended, after the flush."""
        ready = self.state in _UP
        if ready:  # receives outlive a start-up that failed
            self._flush(error)
        if self._disconnect_asked:
            self._events.append(events.Disconnected(error))
        elif ready:
            self._events.append(events.Aborted(error))
        else:
            self._events.append(events.StartupFailed(error))

    def _flush(self, error: NdkError) -> None:
        if self.pair is not None:
            self.pair.flush(error)

    def _begin_last_words(self) -> None:
        """Send what is queued, FIN, read and throw away until the peer's FIN or the drain limit."""
        self._step(Step.LAST_WORDS)
        if self._stream is not None:
            self._stream.stop()
        self._timers.stop_all()
        self._timers.start(Limit.DRAIN)
        self._finish = Finish.SHUTDOWN
        if self._peer_fin:
            self._finish_draining()

    def _finish_draining(self) -> None:
        self._step(Step.FINISHED)
        if not self._out:  # else the drain limit goes on: the peer may never read it
            self._timers.stop_all()
        self._finish = Finish.CLOSE

    def _give_up(self, finish: Finish) -> None:
        if self.state not in (State.CLOSED, State.ERROR):
            self._step(Step.LOST)
        self._timers.stop_all()
        self._finish = finish
        self._out.clear()

    def _expire(self, limit: Limit) -> None:
        failure = self._timers.failure(limit)
        if failure is not None:
            self._lose(IoTimeout(f"{self.name}: {failure} [IO_TIMEOUT, R-TIME-1]"))
        elif limit is Limit.DRAIN:
            self._give_up(Finish.CLOSE)
        elif limit is Limit.RECEIVE:
            self._resume(hold=False)
        elif limit is Limit.NUDGE:
            self._nudge()

    def _step(self, step: Step) -> None:
        self.state = next_state(self.state, step)


def _said(answer: Rejection) -> str:
    """What the peer sent with its rejection: its read limits may be the reason (RFC 6581 9)."""
    said = f"{len(answer.private_data)} octets of private data"
    if answer.peer_ird or answer.peer_ord:
        said += f"; its read limits: inbound {answer.peer_ird}, outbound {answer.peer_ord}"
    return said


def _culprit(stream: Stream, message: Terminate) -> FetchWork | None:
    """The request that the peer's Terminate names by the headers that it returns."""
    if len(message.read_header) == rdmap.READ_REQUEST_LENGTH:
        return stream.read_of(rdmap.ReadRequest.parse(message.read_header).sink_stag)
    header = message.ddp_header
    if len(header) == ddp.UNTAGGED_HEADER and rdmap.opcode_of(header[1]) == rdmap.Opcode.ATOMIC_REQUEST:
        return stream.atomic_of(ddp.parse_untagged(header).msn)
    return None
