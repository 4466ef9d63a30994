"""Shared receive queue (NDK_SRQ): receives for several QPs of one PD."""

from collections.abc import Callable

from softndk.drivers.pending import Pending
from softndk.errors import InvalidParameter, NdkError, error_for
from softndk.flags import ObjectType
from softndk.memory.sge import Sgl
from softndk.ndk.context import AdapterContext
from softndk.ndk.limits import check_int
from softndk.ndk.object import NdkObject
from softndk.ndk.sges import checked_sges
from softndk.ndk.strict import watch_overlaps
from softndk.queues.shared import SharedReceives
from softndk.queues.work import ReceiveRequest
from softndk.status import Status

__all__ = ["Srq"]

SrqCallback = Callable[["Srq", Status], object]


class Srq(NdkObject):
    """See the module. Made by Pd.create_srq."""

    _type = ObjectType.SRQ
    _prefix = "srq"

    def __init__(
        self,
        context: AdapterContext,
        pd: NdkObject,
        depth: int,
        max_receive_sge: int,
        notify_threshold: int,
        on_notify: SrqCallback | None,
    ) -> None:
        super().__init__(context, [pd])
        self._on_notify = on_notify
        self._max_receive_sge = max_receive_sge
        self._shared = SharedReceives(self._label, depth, notify_threshold, self._fire)
        if context.strict:
            watch_overlaps(self, "R-CONC-1", "receive")

    @property
    def depth(self) -> int:
        """Receives that the queue can hold."""
        return self._shared.depth

    def receive(self, sgl: Sgl, *, context: object = None) -> None:
        """Post a buffer for one message of any of the QPs (NdkSrqReceive, R-RECV). Its result comes to the receive CQ of
        the QP on which the message arrived, with that QP's context (R-RES-1).

        A message that was held back for want of a receive goes on with it (R-SRQ-3). The memory belongs to the NIC until
        the result.

        Raises: DataOverrun: more SGEs than max_receive_sge (R-WR-6). BufferOverflow: more octets than
        max_transfer_length (R-WR-7). QueueFull: depth receives are queued (R-WR-8). InvalidParameter: inline data, or an
        SGE whose numbers are out of range. InternalError: the SRQ has failed (R-CQERR-5). Nothing is posted.
        Results: as Qp.receive. A receive that no message has taken has no result: no flush reaches it (R-FLUSH-8).
        """
        with self._lock:
            self._check_usable("receive")
            if self._shared.status is not Status.SUCCESS:
                raise error_for(
                    self._shared.status,
                    f"{self._label} receive: the queue has failed [{self._shared.status.name}, R-CQERR-5]",
                )
            limit = self._context.info.max_transfer_length
            sges = checked_sges(f"{self._label} receive", sgl, self._max_receive_sge, "max_receive_sge", limit)
            self._shared.post(ReceiveRequest(sges, context))

    def modify(self, depth: int = 0, notify_threshold: int = 0) -> Pending[None]:
        """New depth and threshold; 0 keeps either (NdkModifySrq, R-MODSRQ). A threshold arms the notification, which
        fires at once if fewer receives are queued.

        Raises: InvalidParameter: depth over max_srq_depth, or a negative number. Nothing has changed.
        The Pending fails with: BufferOverflow: more receives are queued than the new depth; nothing has changed
        (R-MODSRQ-1).
        """
        with self._lock:
            self._check_usable("modify")
            what = f"{self._label} modify"
            limit = self._context.info.max_srq_depth
            check_int(what, "depth", depth)
            check_int(what, "notify_threshold", notify_threshold)
            if not 0 <= depth <= limit:
                raise InvalidParameter(
                    f"{what}: depth={depth}, must be 0 to {limit} (max_srq_depth of query_info) [INVALID_PARAMETER]"
                )
            if notify_threshold < 0:
                raise InvalidParameter(f"{what}: notify_threshold={notify_threshold} is negative [INVALID_PARAMETER]")
            try:
                self._shared.modify(depth, notify_threshold)
            except NdkError as error:
                return self._failed(what, error)
            return self._finished(what, None)

    def _adapter_failed(self) -> None:
        self._shared.fail(Status.INTERNAL_ERROR)

    def _fire(self, status: Status) -> None:
        if self._on_notify is not None:
            self._call_back(self._on_notify, self, status)

    def _state_text(self) -> str:
        shared = self._shared
        failed = "" if shared.status is Status.SUCCESS else f" {shared.status.name}"
        return f"{len(shared)}/{shared.depth}{failed}"

    def _renamed(self) -> None:
        self._shared.name = self._label
