"""One end of the model: its queues, and what is due when a request finishes, is flushed, or the connection ends.

Knows its memory and completion queues, and what is on its way to it; what goes on between the ends is `model.ModelPair`'s.
"""

from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Literal

from softndk.conformance.model_closing import Closing
from softndk.conformance.model_memory import ATOMIC, LOCAL_WRITE, READ, WRITE, Chunk, ModelMemory
from softndk.conformance.model_queues import ModelCq, ModelReceive, ModelSrq, Posted, Sge, one_of
from softndk.flags import OperationType, OpFlag
from softndk.status import Status

__all__ = ["CANCELLED", "DENIED", "MALFORMED", "SUCCESS", "UP", "Carried", "ModelEnd", "rights_of"]

SUCCESS, CANCELLED = one_of(Status.SUCCESS), one_of(Status.CANCELLED)
DENIED = one_of(Status.ACCESS_VIOLATION)
MALFORMED = one_of(Status.INVALID_DEVICE_REQUEST)
State = Literal["up", "peer closed", "closing", "closed", "failed", "gone"]
UP = ("up", "peer closed", "closing")


def rights_of(flags: int) -> frozenset[str]:
    """R-FLAG-1: ALLOW_REMOTE_WRITE contains ALLOW_LOCAL_WRITE. ALLOW_REMOTE_ATOMIC, which is softndk's own, gives it too."""
    table = (
        (OpFlag.ALLOW_REMOTE_READ, READ),
        (OpFlag.ALLOW_LOCAL_WRITE, LOCAL_WRITE),
        (OpFlag.ALLOW_REMOTE_WRITE, WRITE),
        (OpFlag.ALLOW_REMOTE_ATOMIC, ATOMIC),
        (OpFlag.ALLOW_REMOTE_ATOMIC, LOCAL_WRITE),
    )
    return frozenset(name for flag, name in table if flags & flag == flag)


@dataclass(frozen=True)
class Carried:
    """One thing on its way. `whole`: False if the sender had to give up after `data`, some leading segments."""

    kind: Literal["send", "immediate", "write", "read", "atomic", "response", "terminate", "fin", "reset"]
    request: Posted | None = None
    data: bytes = b""
    status: frozenset[Status] = CANCELLED
    whole: bool = True


@dataclass
class ModelEnd:
    """One end of a connection with its QP. `rooms`: octets in one segment of a send, and of a write or response; segments
    are placed one by one, each whole or not at all (RFC 5041). `shared`: the SRQ of the PD; `on_srq`: the QP is on it.
    """

    name: str
    memory: ModelMemory
    qp: int
    receive_cq: ModelCq
    initiator_cq: ModelCq
    shared: ModelSrq
    on_srq: bool
    depth: int
    max_sge: int
    max_read_sge: int
    inline_size: int
    read_limit: int
    rooms: tuple[int, int]
    state: State = "up"
    receives: deque[ModelReceive] = field(default_factory=deque)
    waiting: deque[Posted] = field(default_factory=deque)
    active: deque[Posted] = field(default_factory=deque)
    reads: deque[Posted] = field(default_factory=deque)
    responses: deque[Posted] = field(default_factory=deque)
    released: int = 0
    responses_first: bool = True
    closes_late: bool = False
    """What a close waits for may have gone for a while before the close takes effect."""
    flushed: bool = False
    fin_sent: bool = False
    fin_received: bool = False
    incoming: deque[Carried] = field(default_factory=deque)
    held: bool = False
    unheard: bool = False
    events: list[str] = field(default_factory=list)
    told: bool = False
    disconnect: str | None = None
    connector_closing: Closing = field(default_factory=Closing)
    qp_closing: Closing = field(default_factory=Closing)

    def __str__(self) -> str:
        """Where the end stands, for people who look at a difference."""
        under_way = [f"{item.kind} {item.request.context if item.request else ''}".strip() for item in self.incoming]
        return (
            f"{self.name}: {self.state}{', holds back' if self.held else ''}"
            f"; to start {[post.context for post in self.waiting]}, {self.released} of them released"
            f"; started {[post.context for post in self.active]}, reads among them {[post.context for post in self.reads]}"
            f"; receives {[receive.context for receive in self.receives]}"
            f"{f' and {len(self.srq.receives)} in the SRQ' if self.srq else ''}; to answer {len(self.responses)}"
            f"; coming {under_way}"
        )

    @property
    def srq(self) -> ModelSrq | None:
        return self.shared if self.on_srq else None

    # ---- posts

    def post(self, post: Posted) -> None:
        """Queue an accepted request. R-DEFER-5, -7: one without DEFER, or a full queue, starts all before it."""
        self.waiting.append(post)
        if self.flushed:
            self._cancel_initiator()
        elif not post.has(OpFlag.DEFER) or len(self.waiting) + len(self.active) == self.depth:
            self.release()

    def release(self) -> None:
        """R-DEFER-3, -5: everything posted may start."""
        self.released = len(self.waiting)

    def post_receive(self, receive: ModelReceive) -> None:
        self.receives.append(receive)
        if self.flushed:
            self._cancel_receives()

    def not_connected(self) -> bool:
        """R-WR-3. A-3: after an error or a flush posts succeed and are cancelled; after a disconnect, whatever came of it
        (R-DISC-4), and after a close they do not. R-CQERR-4: nor with a CQ in error.
        """
        if self.receive_cq.failed or self.initiator_cq.failed:
            return True
        return not (self.state in ("up", "peer closed") or (self.state == "failed" and self.disconnect is None))

    def may_still_change(self, name: str, *, windows: bool = False, by_reads: bool = False) -> bool:
        """A-9, R-WR-16: an earlier request of this queue can still change the object; with `windows` one that lies on
        it, with `by_reads` also a read that is to invalidate it.
        """
        names = {name}
        if windows:
            names |= {mw.name for mw in self.memory.mws.values() if mw.mr is not None and mw.mr.name == name}
        for post in (*self.active, *self.waiting):
            if post.status is not None:
                continue
            if {post.target, post.mw} & names:
                return True
            if by_reads and post.kind == "read" and post.has(OpFlag.RDMA_READ_LOCAL_INVALIDATE) and post.sges:
                mr = self.memory.fast(post.sges[0].token)
                if mr is not None and mr.name == name:
                    return True
        return False

    # ---- completing

    def finish(self, post: Posted, status: frozenset[Status] = SUCCESS) -> None:
        """R-COMP-4: results come in posting order."""
        if post.status is None:
            post.status = status
        while self.active and self.active[0].status is not None:
            self._complete(self.active.popleft())
        self.settle_closes()

    def _complete(self, post: Posted) -> None:
        assert post.status is not None
        if post.status != SUCCESS or not post.has(OpFlag.SILENT_SUCCESS):  # R-COMP-1, -2
            original = post.original if post.status == SUCCESS else None
            self.initiator_cq.push("initiator", post.type, post.status, post.context, original=original)

    def flush(self) -> None:
        """R-FLUSH-1, R-COMP-6: everything unfinished is cancelled, now and from now on (A-3)."""
        self.flushed = True
        self.reads.clear()
        self.responses.clear()
        self.held = False
        self._cancel_initiator()
        self._cancel_receives()

    def _cancel_initiator(self) -> None:
        for post in (*self.active, *self.waiting):
            self._complete(post if post.status is not None else post.failed(CANCELLED))
        self.active.clear()
        self.waiting.clear()
        self.released = 0
        self.settle_closes()

    def _cancel_receives(self) -> None:
        for receive in self.receives:
            status = CANCELLED if receive.status is None else receive.status
            self.receive_cq.push("receive", OperationType.RECEIVE, status, receive.context)
        self.receives.clear()

    def ended(self) -> None:
        """R-DEV-1, A-19: the event comes once, and not after the local disconnect, whose outcome tells (A-14)."""
        self.state = "failed"
        if self.disconnect == "pending":
            self.disconnect = "CONNECTION_ABORTED"
        elif not self.told:
            self.told = True
            self.events.append("abort")

    # ---- closing

    def closings(self) -> dict[str, Closing]:
        """Every object's, by name; whoever depends on another stands before it."""
        memory = self.memory
        return {
            "connector": self.connector_closing,
            "qp": self.qp_closing,
            "receive cq": self.receive_cq.closing,
            "initiator cq": self.initiator_cq.closing,
            "srq": self.shared.closing,
            **{mw.name: mw.closing for mw in memory.mws.values()},
            **{mr.name: mr.closing for mr in memory.mrs.values()},
            "pd": memory.pd,
            "other pd": memory.other_pd,
        }

    def settle_closes(self) -> None:
        """R-CLOSE-2, -5: who depends on whom is the table of objects; a queued request needs what it is to change."""
        if self.closes_late:
            return
        memory, qp = self.memory, self.qp_closing
        self.connector_closing.finish()
        if qp.finish(self.connector_closing):
            self.flush()  # R-CLOSE-13
        self.receive_cq.closing.finish(qp)
        self.initiator_cq.closing.finish(qp)
        self.shared.closing.finish(*[qp] if self.on_srq else [])
        for mw in memory.mws.values():
            if mw.closing.finish(busy=self.may_still_change(mw.name)):
                mw.mr = None
        for mr in memory.mrs.values():
            needed = memory.windows_on(mr) > 0 or self.may_still_change(mr.name, by_reads=True)
            if mr.closing.finish(busy=needed):
                mr.valid = False  # R-CLOSE-12
        regions = {own: [mr.closing for mr in memory.mrs.values() if mr.own_pd is own] for own in (True, False)}
        memory.pd.finish(qp, self.shared.closing, *(mw.closing for mw in memory.mws.values()), *regions[True])
        memory.other_pd.finish(*regions[False])

    @property
    def closes_wait(self) -> bool:
        """A close has been asked for and has not taken effect."""
        return any(closing.asked and not closing.done for closing in self.closings().values())

    def ask_to_close(self, *names: str) -> None:
        """All but the connector, whose close ends the connection too."""
        for name in names:
            self.closings()[name].asked = True
        self.settle_closes()

    # ---- memory

    def sgl_chunks(self, sges: Sequence[Sge], offset: int, length: int, *, write: bool) -> list[Chunk]:
        """Where `length` octets from `offset` of a message lie. SGEs that none of them reach are not looked at."""
        found: list[Chunk] = []
        for sge in sges:
            take = min(length, sge.length - offset)
            if take > 0:
                inside = self.memory.local(sge.token, sge.address, sge.length, write=write)
                found += ModelMemory._inside(inside, offset, take, sge.length)
                length -= take
            offset = max(0, offset - sge.length)
        return found
