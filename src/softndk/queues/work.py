"""Work requests as the data path sees them: checked by the post, executed in queue order."""

from collections.abc import Callable, Sequence
from typing import Any, Protocol

from softndk.errors import NdkError
from softndk.flags import OperationType, OpFlag
from softndk.memory.sge import Sge
from softndk.status import Status

__all__ = [
    "AtomicWork",
    "FetchWork",
    "ImmediateWork",
    "InitiatorRequest",
    "LocalRequest",
    "ReadWork",
    "ReceiveRequest",
    "Request",
    "SendWork",
    "WriteWork",
]


class Request:
    """What every posted request has. `status` is None until the request has finished.

    `explanation`: text and cause for Result.error of a failed request, built when somebody looks.
    """

    __slots__ = ("context", "explanation", "provider_error_code", "status", "type")

    def __init__(self, kind: OperationType, context: Any) -> None:
        self.type = kind
        self.context = context
        self.status: Status | None = None
        self.provider_error_code = 0
        self.explanation: Callable[[], tuple[str, NdkError | None]] | None = None

    def fail(self, status: Status, text: str, cause: NdkError | None = None, code: int = 0) -> None:
        """Give the request its final, failing status; the first one counts."""
        if self.status is None:
            self.status = status
            self.provider_error_code = code
            self.explanation = lambda: (text, cause)


class ReceiveRequest(Request):
    """A posted receive: room for one message. `sgl` is read only at the post; `length` is its total in octets."""

    __slots__ = ("length", "sgl")

    def __init__(self, sgl: Sequence[Sge], context: Any) -> None:
        super().__init__(OperationType.RECEIVE, context)
        self.sgl = tuple(sgl)
        self.length = sum(sge.length for sge in self.sgl)


class InitiatorRequest(Request):
    """A request of the initiator queue."""

    __slots__ = ("flags",)

    def __init__(self, kind: OperationType, flags: int, context: Any) -> None:
        super().__init__(kind, context)
        self.flags = flags

    @property
    def silent(self) -> bool:
        return bool(self.flags & OpFlag.SILENT_SUCCESS.value)

    @property
    def fenced(self) -> bool:
        return bool(self.flags & OpFlag.READ_FENCE.value)

    def entered(self) -> None:
        """The request is in the queue now."""

    def left(self) -> None:
        """The request can change nothing any more: it has been carried out or cancelled. A second call does nothing."""


class _Outgoing(InitiatorRequest):
    """A request with octets for the peer: `inline` (copied by the post) or `sgl`."""

    __slots__ = ("inline", "length", "sgl")

    def __init__(self, kind: OperationType, flags: int, context: Any, sgl: Sequence[Sge], inline: bytes | None) -> None:
        super().__init__(kind, flags, context)
        self.sgl = tuple(sgl)
        self.inline = inline
        self.length = sum(sge.length for sge in self.sgl) if inline is None else len(inline)


class SendWork(_Outgoing):
    """NdkSend, or NdkSendAndInvalidate when `invalidate_stag` is a number (its completion is a SEND, R-SENDINV-4)."""

    __slots__ = ("invalidate_stag",)

    def __init__(
        self,
        flags: int,
        context: Any,
        sgl: Sequence[Sge],
        inline: bytes | None,
        invalidate_stag: int | None = None,
    ) -> None:
        super().__init__(OperationType.SEND, flags, context, sgl, inline)
        self.invalidate_stag = invalidate_stag

    @property
    def solicited(self) -> bool:
        return bool(self.flags & OpFlag.SEND_AND_SOLICIT_EVENT.value)


class ImmediateWork(InitiatorRequest):
    """8 octets for the completion of the peer's oldest receive (RFC 7306, Immediate Data)."""

    __slots__ = ("data",)

    def __init__(self, flags: int, context: Any, data: bytes) -> None:
        super().__init__(OperationType.SEND_IMMEDIATE, flags, context)
        self.data = data

    @property
    def solicited(self) -> bool:
        return bool(self.flags & OpFlag.SEND_AND_SOLICIT_EVENT.value)


class WriteWork(_Outgoing):
    """NdkWrite."""

    __slots__ = ("remote_address", "remote_stag")

    def __init__(
        self,
        flags: int,
        context: Any,
        sgl: Sequence[Sge],
        inline: bytes | None,
        remote_address: int,
        remote_stag: int,
    ) -> None:
        super().__init__(OperationType.WRITE, flags, context, sgl, inline)
        self.remote_address = remote_address
        self.remote_stag = remote_stag


class FetchWork(InitiatorRequest):
    """A request that the peer answers with octets for `sgl`: it counts against the read limit, and fences wait for it."""

    __slots__ = ("length", "remote_address", "remote_stag", "sgl")

    def __init__(
        self,
        kind: OperationType,
        flags: int,
        context: Any,
        sgl: Sequence[Sge],
        remote_address: int,
        remote_stag: int,
    ) -> None:
        super().__init__(kind, flags, context)
        self.sgl = tuple(sgl)
        self.length = sum(sge.length for sge in self.sgl)
        self.remote_address = remote_address
        self.remote_stag = remote_stag


class AtomicWork(FetchWork):
    """FETCH_ADD or COMPARE_SWAP of 64 bits at the peer (RFC 7306), with operands as they go on the wire.

    `original`: what was there before, once the response is in; it goes into `sgl` too.
    """

    __slots__ = ("compare", "compare_mask", "data", "mask", "original")

    def __init__(
        self,
        kind: OperationType,
        flags: int,
        context: Any,
        sgl: Sequence[Sge],
        remote_address: int,
        remote_stag: int,
        *,
        data: int,
        mask: int,
        compare: int = 0,
        compare_mask: int = (1 << 64) - 1,
    ) -> None:
        super().__init__(kind, flags, context, sgl, remote_address, remote_stag)
        self.data = data
        self.mask = mask
        self.compare = compare
        self.compare_mask = compare_mask
        self.original: int | None = None


class ReadWork(FetchWork):
    """NdkRead. `on_success`: what the local-invalidate flag asks for (R-READ-5), run before the completion; it may raise
    NdkError, then the read fails after all. `subject`: the region that it changes.
    """

    __slots__ = ("on_success", "subject")

    def __init__(
        self,
        flags: int,
        context: Any,
        sgl: Sequence[Sge],
        remote_address: int,
        remote_stag: int,
        on_success: Callable[[], None] | None = None,
        subject: "Subject | None" = None,
    ) -> None:
        super().__init__(OperationType.READ, flags, context, sgl, remote_address, remote_stag)
        self.subject = subject
        self.on_success = on_success

    def entered(self) -> None:
        if self.subject is not None:
            self.subject.posted += 1

    def left(self) -> None:
        subject, self.subject = self.subject, None
        if subject is not None:
            self.on_success = None  # a result that is kept must not keep the memory
            subject.posted -= 1


class Subject(Protocol):
    """What a local request changes. `posted`: requests in queues that will change it."""

    posted: int


class LocalRequest(InitiatorRequest):
    """Bind, fast register or invalidate: nothing on the wire, executed in its turn (R-WR-14).

    `execute` raises NdkError to fail the request. `subjects`: the objects that it changes, which count what is queued
    on them. `waits_for_reads`: an invalidate of memory that earlier reads may still write into is held back until they
    are complete.
    """

    __slots__ = ("execute", "subjects", "waits_for_reads")

    def __init__(
        self,
        kind: OperationType,
        flags: int,
        context: Any,
        execute: Callable[[], None],
        subjects: Sequence[Subject] = (),
        *,
        waits_for_reads: bool = False,
    ) -> None:
        super().__init__(kind, flags, context)
        self.execute = execute
        self.subjects = subjects
        self.waits_for_reads = waits_for_reads

    def entered(self) -> None:
        for subject in self.subjects:
            subject.posted += 1

    def left(self) -> None:
        subjects, self.subjects = self.subjects, ()
        self.execute = _nothing  # a result that is kept must not keep the memory (R-INV-6)
        for subject in subjects:
            subject.posted -= 1


def _nothing() -> None:
    return
