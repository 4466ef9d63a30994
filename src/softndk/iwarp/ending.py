"""How a connection ends: gracefully, by a fault of either side, by the loss of TCP, or by giving up.

Responsible for: what is flushed, what the peer and the program are told, and what becomes of TCP.
Must not know: how the connection came up, and what was found in the octets of the stream. It calls neither.

    graceful: disconnect(), then advance() whenever something has moved; receive_fin()
    a last word: fail(), take_terminate() -> last_words() -> finish_draining()
    none: lose(), lose_tcp(), refuse(), give_up()
"""

import errno
from typing import Final

from softndk.errors import Aborted, AddressUnavailable, NdkError, Refused, error_from_os
from softndk.flags import OperationType
from softndk.iwarp import events, faults
from softndk.iwarp.events import Finish
from softndk.iwarp.faults import Cause, ProtocolFault
from softndk.iwarp.qp_state import State, Step
from softndk.iwarp.standing import Standing
from softndk.iwarp.stream import Stream
from softndk.iwarp.time_limits import Limit
from softndk.queues.work import FetchWork
from softndk.status import Status
from softndk.wire import ddp, rdmap
from softndk.wire.terminate import Terminate

__all__ = ["Ending"]

_OWN_CAUSES: Final = frozenset({Cause.LOCAL_ERROR, Cause.NIC_FAILURE})


class Ending:
    """The ends of the connection that stands as `standing` says."""

    def __init__(self, standing: Standing) -> None:
        self._standing = standing

    # ---- graceful

    def disconnect(self) -> None:
        """What is posted goes out, then FIN; over when the peer's FIN has come (R-DISC-1, -2)."""
        here = self._standing
        here.step(Step.DISCONNECT)
        here.disconnect_asked = True
        here.timers.start(Limit.DISCONNECT)
        if here.pair is not None:
            here.pair.release_deferred()
        self.advance()

    def advance(self, *, exhausted: bool = False) -> None:
        """FIN when all is done; over when the peer's FIN is here too (R-DISC-2).

        exhausted: nothing can be sent now. What is left then waits for the peer, and in vain if its FIN has come.
        """
        here = self._standing
        stream = here.stream
        assert stream is not None
        done = stream.quiet or (exhausted and here.peer_fin)
        if not here.local_fin and done and not here.out:
            here.local_fin = True
            stream.refuse_reads = True
            here.finish = Finish.SHUTDOWN
        if here.local_fin and here.peer_fin:
            here.step(Step.FINISHED)
            here.timers.stop_all()
            here.finish = Finish.CLOSE
            self._flush(
                Aborted(
                    f"{here.name}: disconnected [CONNECTION_DISCONNECTED, R-DISC-3]",
                    Status.CONNECTION_DISCONNECTED,
                    provider_error_code=faults.GRACEFUL,
                )
            )
            here.tell(events.Disconnected(None))

    def receive_fin(self) -> None:
        """A FIN between two messages is the graceful notice; anywhere else the connection is broken (R-IW-2)."""
        here = self._standing
        stream = here.stream
        assert stream is not None
        here.timers.stop(Limit.STALL)
        if stream.inside_fpdu or stream.inside_message:
            where = "an FPDU" if stream.inside_fpdu else "a message"
            text = f"{here.name}: the peer closed inside {where} [CONNECTION_ABORTED, RFC 5044 8]"
            self.lose(Aborted(text, provider_error_code=faults.CLOSED_EARLY))
        elif here.state is State.CLOSING:
            self.advance()
        else:
            here.step(Step.PEER_FIN)
            here.tell(events.PeerDisconnected())

    def close_gracefully(self) -> None:
        """The program wants no more of an established connection: what has completed still goes out, then FIN."""
        here = self._standing
        self._flush(
            Aborted(
                f"{here.name}: closed by this side [CONNECTION_DISCONNECTED]",
                Status.CONNECTION_DISCONNECTED,
                provider_error_code=faults.GRACEFUL,
            )
        )
        self.last_words()

    # ---- with a last word

    def fail(self, fault: ProtocolFault) -> None:
        """A fault found here: flush, Terminate as the last frame, then the end (RFC 5040 4.8).

        After our FIN there is no way to say it, nor may it be said before the peer's first FPDU, since a Terminate is one
        too (RFC 5044 7.1.3): the connection is reset.
        """
        here = self._standing
        error = Aborted(
            f"{here.name}: {fault.text} [CONNECTION_ABORTED, {fault.cause.value.rule}]",
            provider_error_code=faults.sent_code(fault),
            fault=faults.fault_value(fault),
        )
        if here.local_fin or (here.is_fenced and fault.cause in _OWN_CAUSES):
            self.lose(error)
            return
        assert here.stream is not None
        here.out.add(here.stream.terminate(faults.terminate_for(fault)))
        self._end_stream(error)
        self.last_words()

    def abort(self, text: str) -> None:
        """The connection ends because of something on this side."""
        here = self._standing
        if here.is_up:
            self.fail(ProtocolFault(Cause.LOCAL_ERROR, text))
        elif here.state is State.READYING:
            error = Aborted(f"{here.name}: {text} [CONNECTION_ABORTED]")
            self._flush(error)
            self.lose(error)

    def take_terminate(self, message: Terminate) -> None:
        """The peer's last word: fail the request it is about, cancel the others, answer with a FIN (A-4)."""
        here = self._standing
        stream, pair = here.stream, here.pair
        assert stream is not None and pair is not None
        value = faults.received_value(message, extended=pair.extended)
        code = faults.received_code(message)
        text = f"{here.name}: the peer ended the connection: {value.text}"
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
        here.out.clear()
        self._end_stream(error)
        self.last_words()

    def last_words(self) -> None:
        """Send what is queued, FIN, read and throw away until the peer's FIN or the drain limit."""
        here = self._standing
        here.step(Step.LAST_WORDS)
        if here.stream is not None:
            here.stream.stop()
        here.timers.stop_all()
        here.timers.start(Limit.DRAIN)
        here.finish = Finish.SHUTDOWN
        if here.peer_fin:
            self.finish_draining()

    def finish_draining(self) -> None:
        """The peer has said its last word too."""
        here = self._standing
        here.step(Step.FINISHED)
        if not here.out:  # else the drain limit goes on: the peer may never read it
            here.timers.stop_all()
        here.finish = Finish.CLOSE

    # ---- without one

    def lose_tcp(self, error: OSError) -> None:
        """TCP has failed: say what that means where the connection stands."""
        here = self._standing
        what = ("cannot connect" if here.state is State.IDLE else "connection lost") + here.attempt
        failure = error_from_os(error, f"{here.name}: {what}")
        if here.picks_port and here.state is State.IDLE and error.errno in (errno.EADDRINUSE, errno.EADDRNOTAVAIL):
            failure = AddressUnavailable(
                f"{here.name}: no local port is free [TOO_MANY_ADDRESSES, R-PORT-1]",
                Status.TOO_MANY_ADDRESSES,
                provider_error_code=failure.provider_error_code,
            )
        unanswered = here.is_active and here.state in (State.IDLE, State.REQUESTING)
        if unanswered and failure.status is Status.CONNECTION_RESET:
            failure = Refused(f"{failure.text}; nobody takes connections there [CONNECTION_REFUSED, R-PAUSE-1]")
        elif failure.status is Status.CONNECTION_RESET and (here.state is State.CLOSING or not here.is_up):
            when = "before its disconnect" if here.state is State.CLOSING else "before the connection was up"
            rule = "A-14" if here.state is State.CLOSING else "A-26"
            failure = Aborted(
                f"{failure.text}; {when} [CONNECTION_ABORTED, {rule}]",
                provider_error_code=failure.provider_error_code,
            )
        self.lose(failure)

    def lose(self, error: NdkError) -> None:
        """TCP is gone or is given up; nothing can be said any more."""
        here = self._standing
        if here.stream is not None:
            here.stream.stop()
        if here.is_up or here.state is State.READYING:
            self._end_stream(error)
        elif not here.is_over:
            here.tell(events.StartupFailed(error))
        self.give_up(Finish.RESET)

    def refuse(self, error: NdkError) -> None:
        """Nothing comes of the start-up, and nothing is said."""
        self.give_up(Finish.CLOSE)
        self._standing.tell(events.StartupFailed(error))

    def give_up(self, finish: Finish) -> None:
        """Send nothing more and tell nobody."""
        here = self._standing
        if here.state not in (State.CLOSED, State.ERROR):
            here.step(Step.LOST)
        here.timers.stop_all()
        here.finish = finish
        here.out.clear()

    def _end_stream(self, error: NdkError) -> None:
        """Tell the program how an established (or nearly established) stream ended, after the flush."""
        here = self._standing
        ready = here.is_up
        if ready:  # receives outlive a start-up that failed
            self._flush(error)
        if here.disconnect_asked:
            here.tell(events.Disconnected(error))
        elif ready:
            here.tell(events.Aborted(error))
        else:
            here.tell(events.StartupFailed(error))

    def _flush(self, error: NdkError) -> None:
        if self._standing.pair is not None:
            self._standing.pair.flush(error)


def _culprit(stream: Stream, message: Terminate) -> FetchWork | None:
    """The request that the peer's Terminate names by the headers that it returns."""
    if len(message.read_header) == rdmap.READ_REQUEST_LENGTH:
        return stream.read_of(rdmap.ReadRequest.parse(message.read_header).sink_stag)
    header = message.ddp_header
    if len(header) == ddp.UNTAGGED_HEADER and rdmap.opcode_of(header[1]) == rdmap.Opcode.ATOMIC_REQUEST:
        return stream.atomic_of(ddp.parse_untagged(header).msn)
    return None
