"""Queue pair (NDK_QP): the initiator requests, receive, flush.

A method checks the call and raises; what it posts can only fail as a result. A post that raises starts everything
that was posted with DEFER before it (R-DEFER-3).
"""

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, Final, TypeVar

from softndk.drivers.channel import Channel
from softndk.errors import (
    Aborted,
    ConnectionInvalid,
    InvalidParameter,
    InvalidState,
)
from softndk.flags import ObjectType, OpFlag, RemoteToken
from softndk.memory.access import MemoryAccess
from softndk.memory.buffers import Memory
from softndk.memory.sge import Sge, Sgl
from softndk.memory.tokens import ProtectionDomain
from softndk.ndk.context import AdapterContext
from softndk.ndk.cq import Cq
from softndk.ndk.extension_requests import atomic_request, immediate_request
from softndk.ndk.lam import LogicalAddressMapping
from softndk.ndk.limits import check_int
from softndk.ndk.memory_requests import bind_request, fast_register_request, invalidate_request
from softndk.ndk.mr import Mr
from softndk.ndk.mw import Mw
from softndk.ndk.object import NdkObject
from softndk.ndk.sges import checked_sges
from softndk.ndk.srq import Srq
from softndk.ndk.strict import watch_overlaps
from softndk.ndk.transfer_requests import read_request, send_request, write_request
from softndk.queues.pair import QueuePair
from softndk.queues.work import InitiatorRequest, ReceiveRequest
from softndk.status import Status

if TYPE_CHECKING:
    from softndk.ndk.connector import Connector

__all__ = ["Qp"]

_COMMON: Final = (OpFlag.SILENT_SUCCESS | OpFlag.READ_FENCE | OpFlag.DEFER).value
_REMOTE: Final = OpFlag.ALLOW_REMOTE_READ | OpFlag.ALLOW_REMOTE_WRITE | OpFlag.ALLOW_REMOTE_ATOMIC
_FLAGS: Final = {  # which flags each request lists (R-FLAG-3)
    "send": _COMMON | OpFlag.SEND_AND_SOLICIT_EVENT.value | OpFlag.INLINE.value,
    "write": _COMMON | OpFlag.INLINE.value,
    "read": _COMMON | OpFlag.RDMA_READ_LOCAL_INVALIDATE.value,
    "bind": _COMMON | _REMOTE.value,
    "fast_register": _COMMON | (_REMOTE | OpFlag.ALLOW_LOCAL_WRITE | OpFlag.RDMA_READ_SINK).value,
    "invalidate": _COMMON,
    "send_immediate": _COMMON | OpFlag.SEND_AND_SOLICIT_EVENT.value,
    "fetch_add": _COMMON,
    "compare_swap": _COMMON,
}
_FLAGS["send_and_invalidate"] = _FLAGS["send"]
_DEFER: Final = OpFlag.DEFER.value
_U64: Final = 1 << 64
_ONES: Final = _U64 - 1
_T = TypeVar("_T", Mr, Mw)


class Qp(NdkObject):
    """See the module. Made by Pd.create_qp. `context` comes back in every result as `qp_context`."""

    _type = ObjectType.QP
    _prefix = "qp"

    def __init__(
        self,
        context_: AdapterContext,
        pd: NdkObject,
        domain: ProtectionDomain,
        receive_cq: Cq,
        initiator_cq: Cq,
        *,
        receive_depth: int,
        initiator_depth: int,
        max_receive_sge: int,
        max_initiator_sge: int,
        inline_data_size: int,
        context: Any,
        srq: Srq | None = None,
    ) -> None:
        antecedents = (pd, receive_cq, initiator_cq) if srq is None else (pd, receive_cq, initiator_cq, srq)
        super().__init__(context_, dict.fromkeys(antecedents))
        self._srq = srq
        self._domain = domain
        self._rings = tuple(dict.fromkeys((receive_cq._ring, initiator_cq._ring)))
        self._pair = QueuePair(
            self._label,
            context,
            receive_cq._ring,
            initiator_cq._ring,
            receive_depth=receive_depth,
            initiator_depth=initiator_depth,
            shared=None if srq is None else srq._shared,
            provider_codes=context_.tells_provider_codes,
        )
        self._access = MemoryAccess(context_.datapath.tokens, context_.datapath.logical, domain, self._pair)
        self._max_receive_sge = max_receive_sge
        self._max_initiator_sge = max_initiator_sge
        self._inline_data_size = inline_data_size
        self._connector: Connector | None = None
        for ring in self._rings:
            ring.on_overrun.append(self._cq_failed)
        if context_.strict:
            watch_overlaps(self, "R-CONC-1", *_FLAGS)
            watch_overlaps(self, "R-CONC-1", "receive")

    @property
    def context(self) -> Any:
        """What create_qp was given (QPContext); comes back in results as qp_context. May be set at any time."""
        return self._pair.context

    @context.setter
    def context(self, value: Any) -> None:
        self._pair.context = value

    @property
    def connector(self) -> "Connector | None":
        """The connector this QP is or was last used with; None before the first connect or accept."""
        return self._connector

    # ---- requests

    def send(self, sgl: Sgl | Memory, *, flags: int = 0, context: Any = None) -> None:
        """Send a message into the peer's oldest receive (NdkSend, R-SEND).

        sgl: SGEs, gathered in order; [] sends an empty message. A bytes-like object is sent inline: copied now.
        With OpFlag.INLINE tokens are not looked at, the SGE limit does not apply and the data is copied before the
        call returns; at most inline_data_size octets (R-WR-10). Otherwise the memory belongs to the NIC until the
        result. flags: SILENT_SUCCESS, READ_FENCE, SEND_AND_SOLICIT_EVENT, INLINE, DEFER. context: any object; comes back
        as `request_context`.

        Raises: ConnectionInvalid: not connected (R-WR-3), or a CQ of this QP has failed (R-CQERR-4). DataOverrun: more
        SGEs than max_initiator_sge (R-WR-6). BufferOverflow: more octets than max_transfer_length (R-WR-7), or inline
        than inline_data_size (R-WR-10). QueueFull: initiator_queue_depth requests are unfinished (R-WR-8).
        InvalidParameter: a flag that this request does not have (R-FLAG-3), an SGE whose numbers are out of range, or
        inline octets that lie in no region. Nothing is posted, and no result follows (R-COMP-1). What was deferred before
        is started (R-DEFER-3).
        Results: SUCCESS: TCP has taken the octets; the memory may be used again (R-COMP-7). ACCESS_VIOLATION: an SGE was
        not valid when the request's turn came (R-WR-15), or the peer's NIC refused this or an earlier request for a token
        or right (A-4). REMOTE_RESOURCES: the peer's NIC refused it for another reason. CANCELLED: flushed (R-FLUSH-1).
        """
        self._post(send_request, "send", flags, sgl, context, None)

    def send_and_invalidate(
        self, sgl: Sgl | Memory, remote_token: RemoteToken, *, flags: int = 0, context: Any = None
    ) -> None:
        """Send, and invalidate a token of the peer in the same step (NdkSendAndInvalidate, R-SENDINV).

        The peer's receive completes as RECEIVE_AND_INVALIDATE with the token, which is dead by then. A token that is
        not valid there, or not to be invalidated, makes the peer end the connection (R-SENDINV-2). Our own result has
        type SEND (R-SENDINV-4). remote_token: a 32-bit number as the peer gave it. All else, flags included, as `send`.

        Raises: InvalidParameter: remote_token is not a number of 32 bits; as `send` otherwise.
        Results: as `send`
        """
        self._post(send_request, "send_and_invalidate", flags, sgl, context, remote_token)

    def write(
        self,
        sgl: Sgl | Memory,
        remote_address: int,
        remote_token: RemoteToken,
        *,
        flags: int = 0,
        context: Any = None,
    ) -> None:
        """Store into the peer's memory (NdkWrite, R-WRITE). Nothing completes there; a refusal shows as the end of the
        connection, usually after this request has completed (A-4).

        remote_address: 64-bit, as the peer numbers its memory. sgl and inline data as `send`; an empty write is legal and
        checks no token (R-MEM-4). flags: SILENT_SUCCESS, READ_FENCE, INLINE, DEFER.

        Raises: InvalidParameter: remote_address is not a number of 64 bits, or remote_token of 32; as `send` otherwise.
        Results: as `send`
        """
        self._post(write_request, "write", flags, sgl, context, remote_address, remote_token)

    def read(
        self, sgl: Sgl, remote_address: int, remote_token: RemoteToken, *, flags: int = 0, context: Any = None
    ) -> None:
        """Fetch from the peer's memory into `sgl` (NdkRead, R-READ). The sum of the SGEs is what is read.

        The sink needs local write only. At most the effective outbound read limit are in progress; a further one
        waits at the head of the queue (R-READ-4). flags: SILENT_SUCCESS, READ_FENCE, RDMA_READ_LOCAL_INVALIDATE (the
        first SGE's fast-register token is dead when the read has succeeded, R-READ-5), DEFER.

        Raises: InvalidState (INVALID_DEVICE_REQUEST): the connection's outbound read limit is 0 (R-LIM-4), or
        RDMA_READ_LOCAL_INVALIDATE without a fast-register region of this PD in the first SGE (R-READ-5). DataOverrun: more
        SGEs than the adapter's max_read_request_sge (R-WR-6). InvalidParameter: inline data, or a number out of range; as
        `send` otherwise.
        Results: SUCCESS: the octets are here (R-COMP-7). ACCESS_VIOLATION: the sink has no local write or is gone
        (R-WR-15), or the peer refused its token or right (A-4). REMOTE_RESOURCES: beyond the peer's memory, or another
        refusal of its NIC (A-4). INVALID_DEVICE_REQUEST: the local invalidation found windows bound to the region
        (R-INVAL-4). INTERNAL_ERROR: the peer's answer broke a rule of the wire. CANCELLED: flushed (R-FLUSH-1).
        """
        self._post(read_request, "read", flags, sgl, context, remote_address, remote_token)

    def bind(
        self,
        mr: Mr,
        mw: Mw,
        address: int | None = None,
        length: int | None = None,
        *,
        flags: int,
        context: Any = None,
    ) -> None:
        """Put a window on `length` octets of a region from `address`; left out: the whole region (NdkBind, R-BIND).

        flags: ALLOW_REMOTE_READ, ALLOW_REMOTE_WRITE, ALLOW_REMOTE_ATOMIC (the last two need local write on the region);
        SILENT_SUCCESS, READ_FENCE, DEFER. The window's token may be sent right behind the bind (R-WR-14). Windows may
        overlap and have different rights (R-BIND-5). address: as `mr.address` numbers the region, 64-bit; length in octets.

        Raises: AccessViolation: a range or right that the region does not have, or a region that is not valid, as far as
        it is known now (R-BIND-1, R-BIND-2, A-6). InvalidState (INVALID_DEVICE_REQUEST): bound already (R-BIND-5).
        InvalidState: address or length is left out, and the region is not registered. InvalidParameter: no right asked
        (R-BIND-1), a length that is not 1 to max_window_size (A-24), a flag that bind does not have, or objects of another
        PD (A-13). ConnectionInvalid: not connected (R-WR-3). QueueFull. Nothing is posted.
        Results: SUCCESS: the window is valid. ACCESS_VIOLATION: as above, found when its turn came (A-6), or
        the peer's NIC refused an earlier request for a token or right (A-4). REMOTE_RESOURCES: the peer's NIC refused an
        earlier request for another reason. INVALID_DEVICE_REQUEST: bound already when its turn came. CANCELLED: flushed;
        the window is as it was.
        """
        self._post(bind_request, "bind", flags, mr, context, mw, address, length)

    def fast_register(
        self,
        mr: Mr,
        pages: LogicalAddressMapping | Sequence[int],
        *,
        fbo: int | None = None,
        length: int | None = None,
        base_address: int | None = None,
        flags: int,
        context: Any = None,
    ) -> None:
        """Map pages onto a fast-register region (NdkFastRegister, R-FREG). With a mapping, its own fbo, length and address
        are taken where left out.

        base_address: number of the first octet, fbo + n * PAGE_SIZE. flags: ALLOW_REMOTE_READ, ALLOW_LOCAL_WRITE,
        ALLOW_REMOTE_WRITE, ALLOW_REMOTE_ATOMIC, RDMA_READ_SINK (accepted, not needed); SILENT_SUCCESS, READ_FENCE, DEFER.
        fbo, length: octets.
        Once the call has returned the region has its address, and its token may be sent behind it (R-TOK-2).

        Raises: AccessViolation: a remote right on a region that was initialised without (R-FRINIT-3). InvalidState
        (INVALID_DEVICE_REQUEST): not initialised, or registered now and nothing queued can change that (R-FREG-6).
        InvalidParameter: pages that are not from build_lam or more than initialised (R-FREG-2), fbo or length outside of
        them (R-FREG-3), base_address not fbo + n * PAGE_SIZE (R-FREG-4), a write right over a read-only buffer, a flag
        that it does not have, or a region of another PD (A-13). ConnectionInvalid: not connected (R-WR-3). QueueFull.
        Nothing is posted.
        Results: SUCCESS: the region is valid. INVALID_DEVICE_REQUEST: registered already when its turn came (R-FREG-6).
        ACCESS_VIOLATION: the peer's NIC refused an earlier request for a token or right (A-4). REMOTE_RESOURCES: the peer's
        NIC refused an earlier request for another reason. CANCELLED: flushed; the region is as it was.
        """
        self._post(fast_register_request, "fast_register", flags, mr, context, pages, fbo, length, base_address)

    def invalidate(self, target: Mr | Mw, *, flags: int = 0, context: Any = None) -> None:
        """Make a window or a fast-register region unusable (NdkInvalidate, R-INV).

        A peer that uses the token afterwards loses the connection. flags: SILENT_SUCCESS, READ_FENCE, DEFER. The memory
        may be freed when the request has completed, not when it is posted (R-INV-6).

        Raises: InvalidState (INVALID_DEVICE_REQUEST): invalid already, the peer's invalidation included, and nothing
        queued can change that; the connection is unharmed (A-9), or a region with windows bound (R-INVAL-4).
        InvalidParameter: a normal region, which is deregistered (R-INV-2), a flag that it does not have, or an object of
        another PD (A-13). ConnectionInvalid: not connected (R-WR-3). QueueFull. Nothing is posted.
        Results: SUCCESS: the token is dead. INVALID_DEVICE_REQUEST: invalid already, or windows bound, when its turn came;
        the connection ends (A-9). ACCESS_VIOLATION: the peer's NIC refused an earlier request for a token or right (A-4).
        REMOTE_RESOURCES: the peer's NIC refused an earlier request for another reason. CANCELLED: flushed; the object is as
        it was.
        """
        self._post(invalidate_request, "invalidate", flags, target, context)

    # ---- softndk's own requests: RFC 7306, which a peer need not have (Terminate 0/2/6 then)

    def send_immediate(self, data: Memory | int, *, flags: int = 0, context: Any = None) -> None:
        """Send 8 octets into the completion of the peer's oldest receive (RFC 7306, Immediate Data).

        data: a bytes-like object of exactly 8 octets, copied now, or an int from 0 to 2^64-1, sent big-endian. The peer's
        receive, of any length, completes as RECEIVE_IMMEDIATE with `immediate_data`; its buffer is not touched. In order
        with sends, so writes posted before it are placed by then; our own result has type SEND_IMMEDIATE.
        flags: SILENT_SUCCESS, READ_FENCE, SEND_AND_SOLICIT_EVENT, DEFER.

        Raises: NotSupported: IwarpConfig.rfc7306 is off. InvalidParameter: data of another length, an int out of range, or
        a flag that it does not have (R-FLAG-3). ConnectionInvalid: not connected (R-WR-3). QueueFull. Nothing is posted.
        Results: SUCCESS: TCP has taken the octets (R-COMP-7). ACCESS_VIOLATION: the peer's NIC refused an earlier request
        for a token or right (A-4). REMOTE_RESOURCES: the peer's NIC refused it, for want of a receive or of RFC 7306, or an
        earlier request (A-4). CANCELLED: flushed (R-FLUSH-1).
        """
        self._post(immediate_request, "send_immediate", flags, data, context)

    def fetch_add(
        self,
        sgl: Sgl,
        remote_address: int,
        remote_token: RemoteToken,
        add: int,
        *,
        mask: int = 0,
        flags: int = 0,
        context: Any = None,
    ) -> None:
        """Add to a 64-bit number at the peer, and fetch what it was (RFC 7306, FetchAdd).

        add: from 0 to 2^64-1; the sum wraps (2^64-1 takes 1 away). mask: a 1 marks the top bit of a field whose carry is
        dropped, so several counters can share the 64 bits; 0: one field. The number is at the peer in its native order, its
        address a multiple of 8, its token with ALLOW_REMOTE_ATOMIC.
        sgl: 8 octets with local write, where the original value is stored in this machine's order; the result has it too,
        as `original_value`. Atomic towards other atomics through the peer's adapter, nothing else.
        An atomic counts as a read: against the outbound read limit, for READ_FENCE, and in the order of completion.
        flags: SILENT_SUCCESS, READ_FENCE, DEFER.

        Raises: NotSupported: IwarpConfig.rfc7306 is off. InvalidParameter: a number out of range, an address that is no
        multiple of 8, SGEs that have not 8 octets together, or a flag that it does not have (R-FLAG-3). InvalidState
        (INVALID_DEVICE_REQUEST): the connection's outbound read limit is 0 (R-LIM-4). As `read` otherwise.
        Results: SUCCESS: it has been carried out once, and the original value is here. ACCESS_VIOLATION: the SGEs have no
        local write or are gone (R-WR-15), or the peer refused its token or right (A-4). REMOTE_RESOURCES: beyond the
        peer's memory, or another refusal of its NIC, such as a peer without RFC 7306 (A-4). CANCELLED: flushed; whether it
        has been carried out is not known.
        """
        self._post(
            atomic_request,
            "fetch_add",
            flags,
            sgl,
            context,
            remote_address,
            remote_token,
            ("add", add),
            ("mask", mask),
            ("compare", 0),
            ("compare_mask", _ONES),
        )

    def compare_swap(
        self,
        sgl: Sgl,
        remote_address: int,
        remote_token: RemoteToken,
        compare: int,
        swap: int,
        *,
        compare_mask: int = (1 << 64) - 1,
        swap_mask: int = (1 << 64) - 1,
        flags: int = 0,
        context: Any = None,
    ) -> None:
        """Replace a 64-bit number at the peer if it is what is expected, and fetch what it was (RFC 7306, CmpSwap).

        The bits of compare_mask must be as in `compare`; then the bits of swap_mask become those of `swap`. All four from
        0 to 2^64-1. It has been replaced if `original_value`, under compare_mask, equals `compare`: a difference is no
        failure. All else as `fetch_add`.

        Raises: as `fetch_add`
        Results: as `fetch_add`
        """
        self._post(
            atomic_request,
            "compare_swap",
            flags,
            sgl,
            context,
            remote_address,
            remote_token,
            ("swap", swap),
            ("swap_mask", swap_mask),
            ("compare", compare),
            ("compare_mask", compare_mask),
        )

    # ---- receives, flush

    def receive(self, sgl: Sgl, *, context: Any = None) -> None:
        """Post a buffer for one message (NdkReceive, R-RECV). Legal before connecting too (R-WR-3).

        sgl: where the message goes, in order; needs local write. The memory belongs to the NIC until the result.

        Raises: DataOverrun: more SGEs than max_receive_sge (R-WR-6). BufferOverflow: more octets than
        max_transfer_length (R-WR-7). QueueFull: receive_queue_depth receives are unfinished (R-WR-8). InvalidParameter:
        inline data, or an SGE whose numbers are out of range. InvalidState (INVALID_DEVICE_REQUEST): the QP has an SRQ
        (R-QP-4). ConnectionInvalid: a CQ of this QP has failed (R-CQERR-4). Nothing is posted.
        Results: SUCCESS: the whole message is here, of `bytes_transferred` octets (R-RECV-3). BUFFER_OVERFLOW: the message
        was longer than the receive (A-5). ACCESS_VIOLATION: the memory has no local write, or is gone (R-WR-15).
        INVALID_DEVICE_REQUEST: the message asked to invalidate what may not be (R-SENDINV-2). CANCELLED: flushed.
        """
        with self._lock:
            self._check_usable("receive")
            if self._srq is not None:
                raise InvalidState(
                    f"{self._label} receive: its receives come from {self._srq._label}; post them there"
                    " [INVALID_DEVICE_REQUEST, R-QP-4]",
                    Status.INVALID_DEVICE_REQUEST,
                )
            self._check_cqs("receive")
            sges = self._sges("receive", sgl, self._max_receive_sge, "max_receive_sge")
            self._pair.post_receive(ReceiveRequest(sges, context))
            if self._connector is not None:
                self._connector._kick()

    def flush(self) -> None:
        """Cancel everything that is pending (NdkFlush, R-FLUSH). Returns before the results have been taken.

        Each pending request completes as CANCELLED, silent ones too (R-COMP-2); what has finished keeps its status
        (R-FLUSH-7). On a connected QP the connection is aborted with it, and later posts succeed and are cancelled (A-3).
        Receives that wait in an SRQ stay there (R-FLUSH-8).
        """
        with self._lock:
            self._check_usable("flush")
            self._flush("flushed by this side")

    # ---- posting

    def _post(self, make: Callable[..., InitiatorRequest], operation: str, flags: int, *arguments: Any) -> None:
        with self._lock:
            try:
                self._check_usable(operation)
                if type(flags) is not int and (isinstance(flags, bool) or not isinstance(flags, int)):
                    raise TypeError(f"{self._label} {operation}: flags={flags!r} is not an int")
                bits = int(flags)
                if bits & ~_FLAGS[operation]:
                    raise InvalidParameter(
                        f"{self._label} {operation}: flags {bits:#x}, allowed are {_FLAGS[operation]:#x}"
                        " [INVALID_PARAMETER, R-FLAG-3]"
                    )
                self._check_connected(operation)
                request = make(self, operation, bits, *arguments)
                self._pair.post_initiator(request, deferred=bool(bits & _DEFER))
            except Exception:
                if not self._runtime.forked:
                    self._pair.release_deferred()
                    self._pump()
                raise
            if self._pair.released:  # without DEFER, or the queue is full and starts what was deferred (R-DEFER-7)
                self._pump()

    # ---- checks

    def _sges(self, operation: str, sgl: Sgl, limit: int, limit_name: str) -> Sequence[Sge]:
        return checked_sges(
            f"{self._label} {operation}", sgl, limit, limit_name, self._context.info.max_transfer_length
        )

    def _check_number(self, operation: str, name: str, value: int | None, bound: int) -> None:
        check_int(f"{self._label} {operation}", name, value)
        if value is None or not 0 <= value < bound:
            raise InvalidParameter(
                f"{self._label} {operation}: {name} is outside 0 to {bound - 1:#x} [INVALID_PARAMETER]"
            )

    def _check_read_limit(self, operation: str) -> None:
        if self._pair.outbound_read_limit == 0 and not self._pair.flushing:
            raise InvalidState(
                f"{self._label} {operation}: the connection's outbound read limit is 0"
                " [INVALID_DEVICE_REQUEST, R-LIM-4]",
                Status.INVALID_DEVICE_REQUEST,
            )

    def _check_connected(self, operation: str) -> None:
        self._check_cqs(operation)
        connector = self._connector
        if connector is not None and connector._takes_posts:
            return
        raise ConnectionInvalid(
            f"{self._label} {operation}: not connected ({self._connection_text()}) [CONNECTION_INVALID, R-WR-3]"
        )

    def _check_cqs(self, operation: str) -> None:
        for ring in self._rings:
            if ring.status is not Status.SUCCESS:
                why = f" ({self._context.failure})" if self._context.failure else ""
                raise ConnectionInvalid(
                    f"{self._label} {operation}: its completion queue has failed with {ring.status.name}{why}; no request"
                    " can complete any more [CONNECTION_INVALID, R-CQERR-4]"
                )

    def _own(self, operation: str, item: object, kind: type[_T]) -> _T:
        """`item`, checked to be usable and of this QP's PD."""
        if not isinstance(item, kind):
            raise TypeError(f"{self._label} {operation}: {type(item).__name__} is not {kind.__name__}")
        item._check_usable(operation)
        domain = item._region.pd if isinstance(item, Mr) else item._window.pd
        if domain is not self._domain:
            raise InvalidParameter(
                f"{self._label} {operation}: {item._label} belongs to {domain.name}, the QP to {self._domain.name}"
                " [INVALID_PARAMETER, A-13]"
            )
        return item

    # ---- inside

    @property
    def _channel(self) -> Channel | None:
        return None if self._connector is None else self._connector._channel

    def _pump(self) -> None:
        if self._connector is not None:
            self._connector._pump()

    def _flush(self, why: str) -> None:
        connector = self._connector
        if connector is not None and connector._is_up:
            connector._abort(f"{self._label}: {why}")
        else:
            self._pair.cancel_pending(
                Aborted(f"{self._label}: {why} [CONNECTION_DISCONNECTED, R-FLUSH-1]", Status.CONNECTION_DISCONNECTED)
            )

    def _adapter_failed(self) -> None:
        if not self._pair.flushing:  # a connection has done so already
            self._pair.flush(self._adapter_error("flush"))

    def _cq_failed(self) -> None:
        """A CQ of this QP is full: the QP can't be used any more (R-CQERR-1). Not now: a ring is being filled."""
        self._runtime.engine.call_at(self._runtime.now(), lambda: self._flush("its completion queue has overrun"))

    def _connection_text(self) -> str:
        return "never connected" if self._connector is None else self._connector._state_text()

    def _state_text(self) -> str:
        pair = self._pair
        return (
            f"{self._connection_text()} sends {pair.sends_in_use}/{pair.initiator_depth}"
            f" receives {len(pair.receives)}/{pair.receive_depth}"
        )

    def _renamed(self) -> None:
        self._pair.name = self._label

    def _finish_close(self) -> None:
        self._flush("closed by this side")
        for ring in self._rings:
            if self._cq_failed in ring.on_overrun:
                ring.on_overrun.remove(self._cq_failed)
