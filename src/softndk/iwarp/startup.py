"""How a connection comes up: the Request and the Reply of either role, until the first FPDU of the peer.

Responsible for: the states from TCP's coming up to RTS, the fallback to revision 1, opening the stream, and what a
start-up that fails is to the program.
Must not know: how start-up frames are made and judged (`negotiation`), and what the stream carries.
"""

from collections.abc import Callable
from typing import Final

from softndk.errors import Aborted, NdkError, Refused
from softndk.iwarp import events, faults
from softndk.iwarp.ending import Ending
from softndk.iwarp.events import Finish
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
from softndk.iwarp.qp_state import State, Step
from softndk.iwarp.standing import Standing
from softndk.iwarp.stream import Stream, StreamParameters
from softndk.iwarp.time_limits import Limit
from softndk.wire import ddp, mpa, rdmap

__all__ = ["Startup", "StreamOpener"]

StreamOpener = Callable[[StreamParameters], Stream]

EARLY_LIMIT: Final = 128 * 1024
"""Octets kept for an active side whose program has not completed the connect yet; then TCP holds the peer back."""
_TOLD: Final = {
    StartupReason.INSUFFICIENT_IRD: Cause.STARTUP_INSUFFICIENT_IRD,
    StartupReason.NO_MATCHING_RTR: Cause.STARTUP_NO_RTR,
    StartupReason.LOCAL_FAILURE: Cause.STARTUP_FAILED,
}
"""Reasons that the peer is told of by a Terminate."""


class Startup:
    """One start-up. `initiator`: the active side's; None: the passive side. `limits`: the adapter's, inbound and outbound."""

    def __init__(
        self, standing: Standing, ending: Ending, initiator: Initiator | None, limits: tuple[int, int]
    ) -> None:
        self.negotiated: Negotiated | None = None
        self.open_stream: StreamOpener | None = None
        self.early = bytearray()  # octets of the peer behind its Reply, before the program has completed the connect
        self._standing = standing
        self._ending = ending
        self._limits = limits
        self._initiator = initiator
        self._responder = None if initiator else Responder(crc=standing.config.crc, markers=standing.config.markers)
        self._mss = 536

    # ---- from the network

    def begin(self, mss: int) -> None:
        """TCP is up, with `mss` octets as its effective segment size: ask, or wait to be asked."""
        here = self._standing
        self._mss = mss
        here.finish = Finish.KEEP
        if self._initiator is not None:
            here.step(Step.OPEN_ACTIVE)
            here.out.add_startup(self._initiator.request())
        else:
            here.step(Step.OPEN_PASSIVE)
            here.timers.start(Limit.REQUEST)

    def receive_reply(self, data: memoryview) -> None:
        """Octets in REQUESTING."""
        assert self._initiator is not None
        here = self._standing
        try:
            answer = self._initiator.receive(data)
        except StartupError as error:
            self.fail(error)
            return
        if answer is None:
            return
        here.timers.stop(Limit.REPLY)
        if isinstance(answer, Rejection):
            self._ending.refuse(
                Refused(
                    f"{here.name}: the peer rejected the connection ({_said(answer)}) [CONNECTION_REFUSED, R-REJECT-1]",
                    private_data=answer.private_data,
                )
            )
            return
        self.negotiated = answer
        self.early += self._initiator.leftover()
        here.step(Step.REPLY)
        ird, ord_limit = self._effective(answer)
        here.tell(events.ReplyReceived(answer.private_data, ird, ord_limit))

    def receive_request(self, data: memoryview) -> None:
        """Octets in AWAITING, and in OFFERED, where the responder refuses them."""
        assert self._responder is not None
        here = self._standing
        try:
            request = self._responder.receive(data)
        except StartupError as error:
            self.fail(error)
            return
        if request is None:
            return
        here.timers.stop(Limit.REQUEST)
        here.step(Step.REQUEST)
        ird, ord_limit = self._limits
        if request.peer_ord is not None:
            ird = min(ird, request.peer_ord)
        if request.peer_ird is not None:
            ord_limit = min(ord_limit, request.peer_ird)
        here.tell(events.RequestReceived(request.private_data, ird, ord_limit))

    def receive_fin(self) -> None:
        """The peer's FIN in any state of the start-up."""
        here = self._standing
        if here.state in (State.REQUESTING, State.AWAITING):
            self._receive_fin_unanswered()
        elif here.state is State.READYING:
            self._ending.refuse(
                Refused(f"{here.name}: the peer closed instead of completing the connect [CONNECTION_REFUSED, R-IW-4]")
            )
        else:
            self._ending.refuse(
                Aborted(f"{here.name}: the peer closed before this side had answered [CONNECTION_ABORTED, A-26]")
            )

    def _receive_fin_unanswered(self) -> None:
        if self.may_fall_back:
            self.fall_back()
            return
        side = self._initiator or self._responder
        assert side is not None
        try:
            side.receive_eof()
        except StartupError as error:
            self.fail(error)

    def note_first_frame(self) -> None:
        """Any FPDU shows that the peer is ready, except a Terminate (RFC 6581 5)."""
        here = self._standing
        stream = here.stream
        assert stream is not None
        frames = stream.frames_in + stream.held - (stream.peer_terminate is not None)
        if here.state is State.READYING and frames:
            here.timers.stop(Limit.READY)
            here.step(Step.READY)
            self._establish()

    # ---- from the program

    def accept(self, private_data: bytes, ird: int, ord_limit: int) -> None:
        """Passive side: answer the offered Request.

        Choice: MPA has no message for the end of the active side's connect. The accept is complete with the
        ready-to-receive indication; where none was agreed, when the Reply is on its way (R-IW-4).
        """
        assert self._responder is not None
        here = self._standing
        reply, self.negotiated = self._responder.accept(private_data, ird=ird, ord=ord_limit)
        here.out.add_startup(reply)
        self._start_stream(self.negotiated, fenced=True)
        if self.negotiated.rtr is not Rtr.NONE:
            here.step(Step.ACCEPT)
            here.timers.start(Limit.READY)
        else:
            here.step(Step.ACCEPT_READY)
            self._establish()

    def complete(self) -> bytearray:
        """Active side: finish behind the Reply. Returns the octets of the stream that have come already."""
        assert self.negotiated is not None
        here = self._standing
        stream = self._start_stream(self.negotiated, fenced=False)
        here.step(Step.COMPLETE)
        if self.negotiated.rtr is not Rtr.NONE:
            here.out.add(stream.ready_indication(read=self.negotiated.rtr is Rtr.READ))
        self._establish()
        early, self.early = self.early, bytearray()
        return early

    def reject(self, private_data: bytes) -> None:
        """Passive side: refuse the offered Request. Active side: back out after the Reply (R-REJECT-1, -2)."""
        here = self._standing
        if here.state is State.OFFERED and self._responder is not None:
            here.out.add_startup(self._responder.reject(private_data))
        self._ending.last_words()

    # ---- fallback

    @property
    def may_fall_back(self) -> bool:
        """An end now may mean that the peer does not know revision 2."""
        initiator = self._initiator
        return (
            self._standing.config.fallback_revision_1
            and self._standing.state is State.REQUESTING
            and initiator is not None
            and initiator.revision > mpa.REVISION_RFC5044
            and initiator.is_unanswered
        )

    def fall_back(self) -> None:
        """The peer may know revision 1 only (RFC 6581 6): once more, on a new TCP connection. The time limit goes on."""
        assert self._initiator is not None
        here = self._standing
        self._initiator = self._initiator.with_revision_1()
        here.step(Step.FALL_BACK)
        here.out.clear()
        here.peer_fin = False
        here.attempt = ", with MPA revision 1 after revision 2"
        here.finish = Finish.RECONNECT

    # ---- outcomes

    def fail(self, error: StartupError) -> None:
        """The start-up is over; some reasons are told to the peer by a Terminate."""
        here = self._standing
        text = f"{here.name}: {error}{here.attempt}"
        unanswered = error.reason in (StartupReason.NO_ANSWER, StartupReason.INCOMPLETE)
        code = faults.CLOSED_EARLY if error.reason is StartupReason.NO_ANSWER else faults.MALFORMED_STARTUP
        failure: NdkError
        if unanswered and self._initiator is not None:
            failure = Refused(f"{text} [CONNECTION_REFUSED]", provider_error_code=code)
        else:
            failure = Aborted(f"{text} [CONNECTION_ABORTED, RFC 5044 7.1]", provider_error_code=code)
        cause = _TOLD.get(error.reason)
        if cause is None:
            self._ending.refuse(failure)
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
        here.out.add_startup(framer.frame(header.emit(), [memoryview(body)]))
        self._ending.last_words()
        here.tell(events.StartupFailed(failure))

    def _establish(self) -> None:
        assert self.negotiated is not None
        ird, ord_limit = self._effective(self.negotiated)
        self._standing.tell(events.Established(ird, ord_limit))

    def _effective(self, negotiated: Negotiated) -> tuple[int, int]:
        """Effective (inbound, outbound) read limits; an end that negotiated none keeps the adapter's."""
        ird = self._limits[0] if negotiated.ird == mpa.NO_NEGOTIATION else negotiated.ird
        ord_limit = self._limits[1] if negotiated.ord == mpa.NO_NEGOTIATION else negotiated.ord
        return ird, ord_limit

    def _start_stream(self, negotiated: Negotiated, *, fenced: bool) -> Stream:
        here = self._standing
        config = here.config
        assert self.open_stream is not None and here.pair is not None
        ird, ord_limit = self._effective(negotiated)
        stream = here.stream = self.open_stream(
            StreamParameters(
                crc=negotiated.crc,
                send_markers=negotiated.send_markers,
                receive_markers=negotiated.receive_markers,
                mulpdu=config.max_fpdu or mpa.mulpdu(self._mss, negotiated.send_markers),
                inbound_read_limit=ird,
                fenced=fenced,
                send_indication=fenced and Rtr.SEND in negotiated.rtr_options,
                rfc7306=config.rfc7306,
            )
        )
        here.pair.outbound_read_limit = ord_limit
        return stream


def _said(answer: Rejection) -> str:
    """What the peer sent with its rejection: its read limits may be the reason (RFC 6581 9)."""
    said = f"{len(answer.private_data)} octets of private data"
    if answer.peer_ird or answer.peer_ord:
        said += f"; its read limits: inbound {answer.peer_ird}, outbound {answer.peer_ord}"
    return said
