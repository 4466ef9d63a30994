"""One iWARP connection from start-up to end, as drivers and programs see it.

Sans-I/O: octets and `now` in; octets, events and the next deadline out. Four families of methods:
inputs (`connected`, `receive_data`, `receive_eof`, `connection_lost`, `handle_timeout`), user verbs (`accept`,
`complete`, `reject`, `disconnect`, `close`, `abort`, `kick`), outputs (`wants_read`, `read_size`, `data_to_send`,
`data_sent`, `finish`, `next_timeout`, `take_events`) and getters.

This file says which part's turn it is in which state. The parts share a `Standing`, and call downwards only:

    Connection -> Flow -> Startup -> Ending

It is handed its data path and does not choose it; it knows no sockets, no locks and no clock.
"""

import errno
from typing import Final

from softndk.config import IwarpConfig
from softndk.errors import Aborted, AdapterUnavailable, IoTimeout, NdkError
from softndk.iwarp.ending import Ending
from softndk.iwarp.events import Event, Finish
from softndk.iwarp.faults import Cause, ProtocolFault
from softndk.iwarp.flow import Flow
from softndk.iwarp.negotiation import Initiator, Negotiated, StartupError, StartupReason
from softndk.iwarp.qp_state import State
from softndk.iwarp.standing import UP, Standing
from softndk.iwarp.startup import EARLY_LIMIT, Startup, StreamOpener
from softndk.iwarp.time_limits import Limit
from softndk.queues.pair import QueuePair
from softndk.status import Status

__all__ = ["Connection", "StreamOpener"]

_MAX_VECTORS: Final = 64


class Connection:
    """Core of one connection. `name` is for messages; `limits` are the adapter's (inbound, outbound) read limits."""

    def __init__(self, name: str, config: IwarpConfig, *, initiator: Initiator | None, limits: tuple[int, int]) -> None:
        self._standing = Standing(name, config, is_active=initiator is not None)
        self._ending = Ending(self._standing)
        self._startup = Startup(self._standing, self._ending, initiator, limits)
        self._flow = Flow(self._standing, self._startup, self._ending)
        self._octets_in = 0
        self._octets_out = 0

    def bind(self, pair: QueuePair, open_stream: StreamOpener) -> None:
        """Give the connection its QP: before the active start, at the accept on the passive side."""
        self._standing.pair = pair
        self._startup.open_stream = open_stream

    # ---- getters, and what its owner may set

    @property
    def name(self) -> str:
        """For messages."""
        return self._standing.name

    @name.setter
    def name(self, name: str) -> None:
        self._standing.name = name

    @property
    def picks_port(self) -> bool:
        """The source port is the system's choice."""
        return self._standing.picks_port

    @picks_port.setter
    def picks_port(self, picks_port: bool) -> None:
        self._standing.picks_port = picks_port

    @property
    def state(self) -> State:
        return self._standing.state

    @property
    def negotiated(self) -> Negotiated | None:
        """What both ends have settled: after the Reply, or the accept."""
        return self._startup.negotiated

    @property
    def is_over(self) -> bool:
        """Nothing more comes of it for the program."""
        return self._standing.is_over

    @property
    def is_up(self) -> bool:
        return self._standing.is_up

    @property
    def disconnect_asked(self) -> bool:
        """This side has called `disconnect`."""
        return self._standing.disconnect_asked

    @property
    def traffic(self) -> tuple[int, int, int, int]:
        """FPDUs taken in and made, octets received and sent so far."""
        stream = self._standing.stream
        frames = (0, 0) if stream is None else (stream.frames_in, stream.frames_out)
        return (*frames, self._octets_in, self._octets_out)

    @property
    def holding_back(self) -> bool:
        """A message waits for a posted receive."""
        stream = self._standing.stream
        return stream is not None and stream.held

    # ---- inputs from network and clock

    def connected(self, now: float, mss: int) -> None:
        """TCP is up; `mss` is its effective segment size in octets."""
        self._standing.timers.learn(now)
        self._startup.begin(mss)

    def start_timer(self, now: float) -> None:
        """The active side's time limit, from the connect call to the peer's Reply."""
        self._standing.timers.learn(now)
        self._standing.timers.start(Limit.REPLY)

    def refuse_start(self, error: NdkError) -> None:
        """The active start cannot even begin, for a reason known at once."""
        self._ending.refuse(error)

    def receive_data(self, data: memoryview, now: float) -> None:
        """Octets from the peer, borrowed for the call."""
        here = self._standing
        here.timers.learn(now)
        self._octets_in += data.nbytes
        self._flow.hear()
        state = here.state
        if state is State.REQUESTING:
            self._startup.receive_reply(data)
        elif state in (State.AWAITING, State.OFFERED):
            self._startup.receive_request(data)
        elif state is State.ANSWERED:
            self._startup.early += data
        elif here.peer_fin and state in UP:  # TCP hands over no such octets, another wire may
            self._ending.lose(Aborted(f"{here.name}: octets behind the peer's FIN [CONNECTION_ABORTED, RFC 5041 6.2]"))
        elif state is State.READYING or state in UP:
            self._flow.consume(data)

    def receive_eof(self, now: float) -> None:
        """The peer's FIN, after all its data."""
        here = self._standing
        here.timers.learn(now)
        here.peer_fin = True
        self._flow.hear()
        state = here.state
        if state in (State.REQUESTING, State.AWAITING, State.OFFERED, State.ANSWERED, State.READYING):
            self._startup.receive_fin()
        elif state in (State.RTS, State.CLOSING):
            self._ending.receive_fin()
        elif state is State.TERMINATE:
            self._ending.finish_draining()

    def receive_rest(self, data: memoryview, now: float) -> None:
        """Before `connection_lost`: what has come behind a message that is held back. Only a Terminate among it counts."""
        self._standing.timers.learn(now)
        self._flow.seek_terminate(data)

    def connection_lost(self, error: OSError, now: float) -> None:
        """TCP failed: refused, unreachable, reset, timed out. Nothing can be sent any more."""
        self._standing.timers.learn(now)
        if self._standing.state in (State.CLOSED, State.ERROR):
            return
        if error.errno == errno.ECONNRESET and self._startup.may_fall_back:
            self._startup.fall_back()
        else:
            self._ending.lose_tcp(error)

    def handle_timeout(self, now: float) -> None:
        """Act on every time limit that has passed."""
        timers = self._standing.timers
        timers.learn(now)
        while limit := timers.take_expired():
            failure = timers.failure(limit)
            if failure is not None:
                self._ending.lose(IoTimeout(f"{self.name}: {failure} [IO_TIMEOUT, R-TIME-1]"))
            elif limit is Limit.DRAIN:
                self._ending.give_up(Finish.CLOSE)
            elif limit is Limit.RECEIVE:
                self._flow.stop_waiting()
            elif limit is Limit.NUDGE:
                self._flow.nudge()

    # ---- user verbs

    def accept(self, private_data: bytes, ird: int, ord_limit: int, now: float) -> None:
        """Passive side: answer the offered Request; `bind` first."""
        self._standing.timers.learn(now)
        self._startup.accept(private_data, ird, ord_limit)

    def complete(self, now: float) -> None:
        """Active side: finish the start-up after the Reply (NdkCompleteConnect)."""
        self._standing.timers.learn(now)
        early = self._startup.complete()
        if early:
            self._flow.consume(memoryview(early))
        else:
            self._flow.listen()

    def reject(self, private_data: bytes, now: float) -> None:
        """Passive side: refuse the offered Request. Active side: back out after the Reply (R-REJECT-1, -2)."""
        self._standing.timers.learn(now)
        self._startup.reject(private_data)

    def disconnect(self, now: float) -> None:
        """Graceful end: what is posted goes out, then FIN; over when the peer's FIN has come (R-DISC-1, -2)."""
        self._standing.timers.learn(now)
        self._ending.disconnect()

    def close(self, now: float) -> None:
        """The program has closed the connector: like close(2), no events any more (R-CLOSE-10).

        Choice: what has completed still goes out, then FIN, so the peer sees a graceful end and not an abort (R-CLOSE-10).
        """
        here = self._standing
        here.timers.learn(now)
        if here.state is State.OFFERED:
            self._startup.reject(b"")
        elif here.state is State.READYING or here.is_up:
            self._ending.close_gracefully()
        elif here.state is State.ANSWERED:
            self._ending.last_words()
        elif not here.is_over:
            self._ending.give_up(Finish.CLOSE)
        here.events.clear()

    def abort(self, text: str, now: float) -> None:
        """End an established connection because of something on this side (flush, CQ overrun)."""
        self._standing.timers.learn(now)
        self._ending.abort(text)

    def fail_adapter(self, text: str, now: float) -> None:
        """The adapter has failed as a whole: say so where anything may be said (error table rows 41 and 43), else reset."""
        here = self._standing
        here.timers.learn(now)
        negotiated = self.negotiated
        if here.is_up:
            self._ending.fail(ProtocolFault(Cause.NIC_FAILURE, text))
        elif here.state is State.ANSWERED and negotiated is not None and negotiated.enhanced:
            crc, markers = negotiated.crc, negotiated.send_markers
            self._startup.fail(StartupError(StartupReason.LOCAL_FAILURE, text, crc=crc, send_markers=markers))
        elif not here.is_over:
            self._ending.lose(AdapterUnavailable(f"{self.name}: {text} [DEVICE_REMOVED]", Status.DEVICE_REMOVED))

    def kick(self, now: float) -> None:
        """Something was posted: a held-back message may find its receive."""
        self._standing.timers.learn(now)
        self._flow.offer_receive()

    # ---- outputs

    def wants_read(self) -> bool:
        """False: the stream is held back; leave what comes in TCP."""
        state = self._standing.state
        if state is State.ANSWERED:
            return len(self._startup.early) < EARLY_LIMIT
        if state is State.TERMINATE:
            return True
        return not self.holding_back and state not in (State.CLOSED, State.ERROR)

    def read_size(self) -> int:
        """How many octets to read at most before others have their turn: fewer where they were many small FPDUs."""
        return self._flow.read_size

    def data_to_send(self, now: float) -> list[memoryview]:
        """Octets for the peer, at most a few frames ahead of what the socket has taken."""
        here = self._standing
        here.timers.learn(now)
        self._flow.refill()
        if here.state is State.CLOSING and not here.out:
            self._ending.advance(exhausted=True)
        return here.out.first(_MAX_VECTORS)

    def data_sent(self, count: int, now: float) -> None:
        """The socket has taken the first `count` octets of what data_to_send gave."""
        here = self._standing
        here.timers.learn(now)
        self._octets_out += count
        self._flow.taken(here.out.taken(count))
        if here.state is State.CLOSING:
            self._ending.advance()

    def finish(self) -> Finish:
        """What becomes of the TCP connection now that nothing is left to send."""
        here = self._standing
        if here.out and here.finish is not Finish.RESET:
            return Finish.KEEP
        return here.finish

    def next_timeout(self) -> float | None:
        return self._standing.timers.next_end()

    def take_events(self) -> list[Event]:
        """What has happened since the last call, in order."""
        here = self._standing
        taken, here.events = here.events, []
        return taken
