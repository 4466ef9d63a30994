"""MPA start-up: Request, Reply and what they settle (RFC 5044 section 7.1, RFC 6581).

Responsible for: what is sent, what is accepted, and what both ends have agreed on.
Must not know: time limits, TCP, what is done with private data, how the indication is sent. The owner closes
TCP after every `StartupError`; if the peer is to be told by a Terminate, it is framed as the error says.

    initiator: request() -> octets out; receive(octets in) until not None; leftover()
    responder: receive(octets in) until not None; accept() or reject() -> octets out
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum
from typing import Final, NoReturn

from softndk.wire import WireError
from softndk.wire.mpa import (
    MAX_PRIVATE_DATA,
    MAX_PRIVATE_DATA_ENHANCED,
    NO_NEGOTIATION,
    REVISION_RFC5044,
    REVISION_RFC6581,
    STARTUP_HEADER,
    Enhanced,
    FrameKind,
    StartupFrame,
    frame_length,
    may_begin_startup,
)


class Rtr(Enum):
    """The ready-to-receive indication: in peer-to-peer mode the initiator's first FPDU, of zero length."""

    NONE = "none"
    WRITE = "write"
    READ = "read"
    SEND = "send"


_PREFERENCE: Final = (Rtr.WRITE, Rtr.READ, Rtr.SEND)


class StartupReason(Enum):
    """Why a start-up failed."""

    MALFORMED = "malformed start-up frame"
    INCOMPLETE = "connection closed within the start-up frame"
    NO_ANSWER = "connection closed without a start-up frame"
    BOTH_INITIATORS = "both ends sent a Request"
    UNSUPPORTED_REVISION = "unsupported MPA revision"
    NOT_ENHANCED = "the Reply to an enhanced Request is not enhanced"
    INSUFFICIENT_IRD = "insufficient IRD"
    NO_MATCHING_RTR = "no matching ready-to-receive option"
    EARLY_DATA = "data behind the Request before the Reply"
    LOCAL_FAILURE = "local failure after the Reply"


class StartupError(Exception):
    """The start-up failed; the connection must be closed.

    `frame` is the peer's start-up frame if it could be read. The FPDU of a Terminate about it has a CRC if `crc` and
    markers if `send_markers`.
    """

    def __init__(
        self,
        reason: StartupReason,
        text: str,
        *,
        frame: StartupFrame | None = None,
        crc: bool = False,
        send_markers: bool = False,
    ) -> None:
        super().__init__(text)
        self.reason = reason
        self.frame = frame
        self.crc = crc
        self.send_markers = send_markers


@dataclass(frozen=True, slots=True)
class Negotiated:
    """What both ends have agreed on; it holds for the life of the stream.

    `ird` and `ord` are this end's limits; NO_NEGOTIATION if this end asked for none, which then keeps its own
    value. `rtr` is the indication that the initiator sends first; as responder the preferred one of
    `rtr_options`, the kinds that the peer may choose from (any first FPDU counts as the indication all the
    same; of these, only a Send would otherwise be taken for the upper layer's). With a READ indication the
    initiator may have `ord` 0: that one read is covered by the responder's IRD. `peer_ird` and `peer_ord` are
    the peer's raw values, None if its frame had none.
    """

    crc: bool
    send_markers: bool
    receive_markers: bool
    revision: int
    enhanced: bool
    ird: int
    ord: int
    rtr: Rtr
    rtr_options: frozenset[Rtr]
    private_data: bytes
    peer_ird: int | None
    peer_ord: int | None


@dataclass(frozen=True, slots=True)
class Rejection:
    """The responder has refused. `peer_ord` may be the reads it needs; None: it gave no limits."""

    private_data: bytes
    peer_ird: int | None
    peer_ord: int | None


@dataclass(frozen=True, slots=True)
class Request:
    """What an initiator asks for. `peer_ird` and `peer_ord` are raw, None without enhanced data.

    NO_NEGOTIATION in them is larger than any capacity, so `min(peer_ord, own)` needs no special case.
    """

    private_data: bytes
    revision: int
    enhanced: bool
    peer_ird: int | None
    peer_ord: int | None
    peer_to_peer: bool
    rtr_requested: frozenset[Rtr]


def max_private_data(revision: int) -> int:
    """Return the limit of private data in octets: 508 from revision 2 on (with enhanced data), else 512."""
    return MAX_PRIVATE_DATA if revision < REVISION_RFC6581 else MAX_PRIVATE_DATA_ENHANCED


class Initiator:
    """The end that opened the TCP connection.

    Args: private_data: for the peer's upper layer, at most `max_private_data(revision)`. ird, ord: inbound
        reads that can be held, outbound reads wished, 0 to 0x3ffe, or NO_NEGOTIATION. revision: 1, or 2 with
        enhanced data. crc: insist on CRC. markers: ask for markers. rtr_offer: the indications that can be
        sent; empty for the client-server model, in which this end's upper layer must send first. Revision 1
        has none and does not use it.
    Raises: ValueError: a value over its limit.
    """

    def __init__(
        self,
        private_data: bytes,
        *,
        ird: int,
        ord: int,
        revision: int = REVISION_RFC6581,
        crc: bool = True,
        markers: bool = False,
        rtr_offer: frozenset[Rtr] = frozenset({Rtr.WRITE, Rtr.READ}),
    ) -> None:
        if revision not in (REVISION_RFC5044, REVISION_RFC6581):
            raise ValueError(f"MPA revision {revision} is not implemented, only 1 and 2 are")
        enhanced = Enhanced(
            ird=ird,
            ord=ord,
            peer_to_peer=bool(rtr_offer - {Rtr.NONE}),
            rtr_send=Rtr.SEND in rtr_offer,
            rtr_write=Rtr.WRITE in rtr_offer,
            rtr_read=Rtr.READ in rtr_offer,
        )
        self._wanted = enhanced
        self._offer = _offered(enhanced)
        self._request = StartupFrame(
            kind=FrameKind.REQUEST,
            markers=markers,
            crc=crc,
            reject=False,
            revision=revision,
            enhanced=enhanced if revision >= REVISION_RFC6581 else None,
            private_data=private_data,
        )
        self._reader = _FrameReader(FrameKind.REPLY, max_revision=REVISION_RFC6581)
        self._leftover = b""

    @property
    def revision(self) -> int:
        """Of the Request."""
        return self._request.revision

    @property
    def is_unanswered(self) -> bool:
        """Not one octet has come from the peer."""
        return self._reader.is_empty

    def with_revision_1(self) -> Initiator:
        """Another initiator that asks for the same in revision 1, as far as it can be said there."""
        return Initiator(
            self._request.private_data,
            ird=self._wanted.ird,
            ord=self._wanted.ord,
            revision=REVISION_RFC5044,
            crc=self._request.crc,
            markers=self._request.markers,
        )

    def request(self) -> bytes:
        """Return the Request frame. Nothing else may be sent before `receive` has returned a `Negotiated`."""
        return self._request.emit()

    def receive(self, data: bytes | bytearray | memoryview) -> Negotiated | Rejection | None:
        """Take octets from the peer; None until its Reply is whole. Next: `leftover`, then feed the deframer.

        Raises: StartupError: the Reply is unusable (RFC 5044 section 7.1.2, RFC 6581 sections 6 and 9).
            RuntimeError: the start-up is already over.
        """
        taken = self._reader.take(memoryview(data))
        reply = self._reader.frame
        if reply is None:
            return None
        self._leftover = bytes(data[taken:])
        if reply.reject:
            return Rejection(reply.private_data, *_raw_limits(reply))
        return self._agree(reply)

    def receive_eof(self) -> NoReturn:
        """The peer has closed before its Reply was whole. Raises: StartupError: always, INCOMPLETE or NO_ANSWER."""
        self._reader.cut_off()

    def leftover(self) -> bytes:
        """Return the octets behind the Reply in the data last received: the start of the first FPDU."""
        return self._leftover

    def _agree(self, reply: StartupFrame) -> Negotiated:
        crc = self._request.crc or reply.crc
        ird, ord_ = self._wanted.ird, self._wanted.ord
        rtr = Rtr.NONE

        def failure(reason: StartupReason, text: str) -> StartupError:
            return StartupError(reason, text, frame=reply, crc=crc, send_markers=reply.markers)

        if self._request.enhanced is None:
            if reply.enhanced is not None:
                raise failure(StartupReason.MALFORMED, "enhanced Reply to a Request that was not enhanced")
        elif reply.enhanced is None:
            raise failure(StartupReason.NOT_ENHANCED, "the Reply has no IRD and ORD although the Request had them")
        else:
            answer = reply.enhanced
            ord_ = min(ord_, answer.ird)
            if answer.ord != NO_NEGOTIATION:
                if answer.ord > ird:
                    text = f"the peer needs {answer.ord} reads at once, this end can hold {ird}"
                    raise failure(StartupReason.INSUFFICIENT_IRD, text)
                ird = answer.ord
            if self._offer:
                rtr = self._choose(answer)
                if rtr is Rtr.NONE:
                    taken = f"{_names(_offered(answer))} with IRD {answer.ird}"
                    text = f"offered {_names(self._offer)}, the peer takes {taken}"
                    raise failure(StartupReason.NO_MATCHING_RTR, text)
        peer_ird, peer_ord = _raw_limits(reply)
        return Negotiated(
            crc=crc,
            send_markers=reply.markers,
            receive_markers=self._request.markers,
            revision=reply.revision,
            enhanced=reply.enhanced is not None,
            ird=ird,
            ord=ord_,
            rtr=rtr,
            rtr_options=frozenset() if rtr is Rtr.NONE else frozenset({rtr}),
            private_data=reply.private_data,
            peer_ird=peer_ird,
            peer_ord=peer_ord,
        )

    def _choose(self, answer: Enhanced) -> Rtr:
        """Return the best option of the Reply that this end can generate; a Read needs a slot at the responder."""
        for option in _PREFERENCE:
            if option in self._offer and option in _offered(answer) and (option is not Rtr.READ or answer.ird > 0):
                return option
        return Rtr.NONE


class Responder:
    """The end that accepted the TCP connection.

    Args: crc: insist on CRC. markers: ask for markers. max_revision: highest MPA revision understood, 1 or 2.
    """

    def __init__(self, *, crc: bool = True, markers: bool = False, max_revision: int = REVISION_RFC6581) -> None:
        self._crc = crc
        self._markers = markers
        self._reader = _FrameReader(FrameKind.REQUEST, max_revision)
        self._answered = False

    def receive(self, data: bytes | bytearray | memoryview) -> Request | None:
        """Take octets from the peer; None until its Request is whole.

        Raises: StartupError: the Request is unusable, or octets follow it before the answer (RFC 5044 section
            7.1.2: the initiator waits for the Reply). RuntimeError: already answered; later octets are FPDUs.
        """
        if self._answered:
            raise RuntimeError("the start-up is over: octets behind it belong to the deframer")
        view = memoryview(data)
        frame = self._reader.frame
        taken = 0 if frame is not None else self._reader.take(view)
        if taken < len(view):
            text = f"{len(view) - taken} octets behind the Request before the Reply"
            raise StartupError(StartupReason.EARLY_DATA, text, frame=self._reader.frame)
        if frame is not None or self._reader.frame is None:
            return None
        frame = self._reader.frame
        peer_ird, peer_ord = _raw_limits(frame)
        return Request(
            private_data=frame.private_data,
            revision=frame.revision,
            enhanced=frame.enhanced is not None,
            peer_ird=peer_ird,
            peer_ord=peer_ord,
            peer_to_peer=frame.enhanced is not None and frame.enhanced.peer_to_peer,
            rtr_requested=_offered(frame.enhanced),
        )

    def receive_eof(self) -> NoReturn:
        """The peer has closed before its Request was whole. Raises: StartupError: always, INCOMPLETE or NO_ANSWER."""
        self._reader.cut_off()

    def accept(self, private_data: bytes, *, ird: int, ord: int) -> tuple[bytes, Negotiated]:
        """Return the accepting Reply and the agreement. No FPDU may be sent before one has been received.

        Args: private_data: at most 512 octets, 508 if the Request was enhanced. ird, ord: inbound reads that
            can be held, outbound reads wished, 0 to 0x3ffe. The agreement's are lower where the initiator
            asks for less or holds less; its IRD is at least 1 if the initiator may send a zero-length Read as
            indication.
        Raises: ValueError: a value over its limit; nothing has been answered then. RuntimeError: no Request
            yet, or answered before.
        Rule: RFC 6581 section 9.
        """
        request = self._unanswered()
        for name, value in (("IRD", ird), ("ORD", ord)):
            if not 0 <= value < NO_NEGOTIATION:
                raise ValueError(f"{name} {value} is outside 0 to {NO_NEGOTIATION - 1}")
        asked = request.enhanced
        options: frozenset[Rtr] = frozenset()
        answer: Enhanced | None = None
        if asked is not None:
            options = _acceptable(asked, ird) if asked.peer_to_peer else options
            ird, ord = min(ird, asked.ord), min(ord, asked.ird)
            if Rtr.READ in options:
                ird = max(ird, 1)
            answer = self._enhanced_answer(
                ird=NO_NEGOTIATION if asked.ord == NO_NEGOTIATION else ird,
                ord=NO_NEGOTIATION if asked.ird == NO_NEGOTIATION else ord,
                peer_to_peer=asked.peer_to_peer,
                options=options,
            )
        reply = self._reply(request, private_data, answer, reject=False)
        peer_ird, peer_ord = _raw_limits(request)
        self._answered = True
        return reply.emit(), Negotiated(
            crc=reply.crc,
            send_markers=request.markers,
            receive_markers=self._markers,
            revision=request.revision,
            enhanced=asked is not None,
            ird=ird,
            ord=ord,
            rtr=next((option for option in _PREFERENCE if option in options), Rtr.NONE),
            rtr_options=options,
            private_data=request.private_data,
            peer_ird=peer_ird,
            peer_ord=peer_ord,
        )

    def reject(self, private_data: bytes = b"", *, ird: int = 0, ord: int = 0) -> bytes:
        """Return the rejecting Reply; an enhanced Request is told `ird` and `ord`, the latter perhaps the
        reads needed.

        Raises: as `accept`, but NO_NEGOTIATION is allowed.
        """
        request = self._unanswered()
        answer: Enhanced | None = None
        if request.enhanced is not None:
            asked = request.enhanced
            options = _acceptable(asked, ird) if asked.peer_to_peer else frozenset[Rtr]()
            answer = self._enhanced_answer(ird=ird, ord=ord, peer_to_peer=asked.peer_to_peer, options=options)
        reply = self._reply(request, private_data, answer, reject=True).emit()
        self._answered = True
        return reply

    def _unanswered(self) -> StartupFrame:
        if self._answered:
            raise RuntimeError("the Request has been answered")
        if self._reader.frame is None:
            raise RuntimeError("there is no Request to answer")
        return self._reader.frame

    def _enhanced_answer(self, *, ird: int, ord: int, peer_to_peer: bool, options: frozenset[Rtr]) -> Enhanced:
        return Enhanced(
            ird=ird,
            ord=ord,
            peer_to_peer=peer_to_peer,
            rtr_send=Rtr.SEND in options,
            rtr_write=Rtr.WRITE in options,
            rtr_read=Rtr.READ in options,
        )

    def _reply(
        self, request: StartupFrame, private_data: bytes, answer: Enhanced | None, *, reject: bool
    ) -> StartupFrame:
        return StartupFrame(
            kind=FrameKind.REPLY,
            markers=self._markers,
            # The outcome, not only this end's wish: the standard allows both, and it spares the peer the
            # "or".
            crc=self._crc or request.crc,
            reject=reject,
            revision=request.revision,
            enhanced=answer,
            private_data=private_data,
        )


def _offered(enhanced: Enhanced | None) -> frozenset[Rtr]:
    """Return the indications a frame names; without peer-to-peer the bits mean nothing."""
    if enhanced is None or not enhanced.peer_to_peer:
        return frozenset()
    flags = ((Rtr.WRITE, enhanced.rtr_write), (Rtr.READ, enhanced.rtr_read), (Rtr.SEND, enhanced.rtr_send))
    return frozenset(option for option, is_set in flags if is_set)


def _acceptable(asked: Enhanced, ird: int) -> frozenset[Rtr]:
    """Return the indications to allow to a peer-to-peer initiator; never none (RFC 6581 section 9.2).

    A Read only if there is a slot for it or nothing else will do. A Send only if nothing else was asked for,
    since the standard does not say whether it uses up a posted receive. If nothing was asked for: a Write,
    which costs nothing.
    """
    if asked.rtr_write:
        return frozenset({Rtr.WRITE, Rtr.READ}) if asked.rtr_read and ird > 0 else frozenset({Rtr.WRITE})
    if asked.rtr_read:
        return frozenset({Rtr.READ})
    return frozenset({Rtr.SEND}) if asked.rtr_send else frozenset({Rtr.WRITE})


def _raw_limits(frame: StartupFrame) -> tuple[int | None, int | None]:
    return (None, None) if frame.enhanced is None else (frame.enhanced.ird, frame.enhanced.ord)


def _names(options: frozenset[Rtr]) -> str:
    return " or ".join(option.value for option in _PREFERENCE if option in options) or "none"


class _FrameReader:
    """Collects one start-up frame of a given kind, at most 532 octets, and judges what its header alone can tell."""

    def __init__(self, kind: FrameKind, max_revision: int) -> None:
        self._kind = kind
        self._max_revision = max_revision
        self._held = bytearray()
        self._length: int | None = None
        self.frame: StartupFrame | None = None

    @property
    def is_empty(self) -> bool:
        return not self._held

    def take(self, view: memoryview) -> int:
        """Copy what belongs to the frame, return how many octets that was; set `frame` when it is whole."""
        if self.frame is not None:
            raise RuntimeError("the start-up is over: octets behind it belong to the deframer")
        taken = 0
        if self._length is None:
            taken = self._fill(view, STARTUP_HEADER)
            if not may_begin_startup(self._held):  # a peer of another protocol may send less than a header, and wait
                raise StartupError(
                    StartupReason.MALFORMED,
                    f"not an MPA start-up frame: it begins with {bytes(self._held[: len(self._kind.value)])!r}",
                )
            if len(self._held) < STARTUP_HEADER:
                return taken
            self._length = self._judge_header()
        taken += self._fill(view[taken:], self._length)
        if len(self._held) == self._length:
            self.frame = StartupFrame.parse(self._held)
        return taken

    def cut_off(self) -> NoReturn:
        if not self._held:
            raise StartupError(StartupReason.NO_ANSWER, f"the peer closed without a {self._kind.name.title()}")
        text = f"the peer closed after {len(self._held)} octets of its {self._kind.name.title()}"
        raise StartupError(StartupReason.INCOMPLETE, text)

    def _fill(self, view: memoryview, until: int) -> int:
        piece = view[: until - len(self._held)]
        self._held += piece
        return len(piece)

    def _judge_header(self) -> int:
        try:
            length = frame_length(self._held)
        except WireError as error:
            raise StartupError(StartupReason.MALFORMED, str(error)) from None
        if not self._held.startswith(self._kind.value):
            if self._kind is FrameKind.REPLY:
                raise StartupError(
                    StartupReason.BOTH_INITIATORS, "the peer sent a Request too: both ends are initiators"
                )
            raise StartupError(StartupReason.MALFORMED, "the peer sent a Reply where a Request is due")
        revision = self._held[17]
        if not REVISION_RFC5044 <= revision <= self._max_revision:
            text = f"MPA revision {revision}, understood are {REVISION_RFC5044} to {self._max_revision}"
            raise StartupError(StartupReason.UNSUPPORTED_REVISION, text)
        return length
