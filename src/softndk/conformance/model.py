"""NDKPI's rules of queues and connections as plain lists: what two connected ends must do.

The model is written from the rules, which each step names. It predicts results per CQ with their order, notifications,
memory, inline refusals and how the connection ends, also where a rule leaves freedom: there it has a set of statuses.
`settle` runs both ends in rounds until they are quiet, so that the caller compares then. What the rules leave to chance
is which part of what is under way one end sees before it answers: `outcomes` goes through all of that. Must not know how
anything is implemented; it shares with the program it judges the numbers of flags and statuses only.
"""

import pickle
from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from itertools import product
from typing import Any, Literal

from softndk.conformance.model_memory import LOCAL_WRITE, READ, WRITE, Chunk, Denied, ModelMemory, ModelMr
from softndk.conformance.model_queues import ModelCq, ModelReceive, ModelSrq, Posted, Sge, one_of
from softndk.flags import OperationType, OpFlag
from softndk.status import Status

__all__ = ["ModelEnd", "ModelPair"]

SUCCESS, CANCELLED = one_of(Status.SUCCESS), one_of(Status.CANCELLED)
DENIED = one_of(Status.ACCESS_VIOLATION)
MALFORMED = one_of(Status.INVALID_DEVICE_REQUEST)
BEHIND_A_FAULT = one_of(Status.CANCELLED, Status.REMOTE_RESOURCES)
"""What the oldest unfinished request says when the peer ends the connection: the peer's reason, or nothing (A-4)."""
BEHIND_A_DENIAL = one_of(Status.CANCELLED, Status.ACCESS_VIOLATION)
"""The same where the reason is a token or a right."""
MOST_ORDERS = 20_000

_ANY_REQUEST = int(OpFlag.SILENT_SUCCESS | OpFlag.READ_FENCE | OpFlag.DEFER)
_REMOTE = int(OpFlag.ALLOW_REMOTE_READ | OpFlag.ALLOW_REMOTE_WRITE)
FLAGS = {  # the table of operation flags (R-FLAG-3)
    "send": _ANY_REQUEST | OpFlag.SEND_AND_SOLICIT_EVENT | OpFlag.INLINE,
    "write": _ANY_REQUEST | OpFlag.INLINE,
    "read": _ANY_REQUEST | OpFlag.RDMA_READ_LOCAL_INVALIDATE,
    "bind": _ANY_REQUEST | _REMOTE,
    "fast_register": _ANY_REQUEST | _REMOTE | OpFlag.RDMA_READ_SINK,
    "invalidate": _ANY_REQUEST,
}
State = Literal["up", "peer closed", "closing", "closed", "failed", "gone"]
UP = ("up", "peer closed", "closing")


def rights_of(flags: int) -> frozenset[str]:
    """R-FLAG-1: ALLOW_REMOTE_WRITE contains ALLOW_LOCAL_WRITE."""
    table = (
        (OpFlag.ALLOW_REMOTE_READ, READ),
        (OpFlag.ALLOW_LOCAL_WRITE, LOCAL_WRITE),
        (OpFlag.ALLOW_REMOTE_WRITE, WRITE),
    )
    return frozenset(name for flag, name in table if flags & flag == flag)


@dataclass(frozen=True)
class Carried:
    """One thing on its way. `whole`: False if the sender had to give up after `data`, some leading segments."""

    kind: Literal["send", "write", "read", "response", "terminate", "fin", "reset"]
    request: Posted | None = None
    data: bytes = b""
    status: frozenset[Status] = CANCELLED
    whole: bool = True


@dataclass
class ModelEnd:
    """One end of a connection with its QP. `rooms`: octets in one segment of a send, and of a write or response; segments
    are placed one by one, each whole or not at all (RFC 5041).
    """

    name: str
    memory: ModelMemory
    qp: int
    receive_cq: ModelCq
    initiator_cq: ModelCq
    srq: ModelSrq | None
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
    flushed: bool = False
    fin_sent: bool = False
    fin_received: bool = False
    incoming: deque[Carried] = field(default_factory=deque)
    held: bool = False
    unheard: bool = False
    events: list[str] = field(default_factory=list)
    told: bool = False
    disconnect: str | None = None

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

    # ---- posts

    def refusals(self, post: Posted) -> frozenset[Status]:
        """Statuses with which the post may be refused at once; none: it is accepted. No rule orders the checks."""
        found: set[Status] = set()
        whole = (0, OpFlag.ALLOW_REMOTE_WRITE, OpFlag.ALLOW_LOCAL_WRITE if post.kind == "fast_register" else 0)
        if post.flags & ~FLAGS[post.kind] or post.flags & OpFlag.ALLOW_REMOTE_WRITE not in whole:
            found.add(Status.INVALID_PARAMETER)  # R-FLAG-3, R-FLAG-1
        if self._not_connected():
            found.add(Status.CONNECTION_INVALID)
        if len(self.waiting) + len(self.active) >= self.depth and not self.flushed:
            found.add(Status.NO_MORE_ENTRIES)  # R-WR-8
        if post.inline is not None and len(post.inline) > self.inline_size:
            found.add(Status.BUFFER_OVERFLOW)  # R-WR-10
        if len(post.sges) > (self.max_read_sge if post.kind == "read" else self.max_sge):
            found.add(Status.DATA_OVERRUN)  # R-WR-6
        if post.kind == "read" and post.has(OpFlag.RDMA_READ_LOCAL_INVALIDATE) and post.sges:
            if self.memory.fast(post.sges[0].token) is None:
                found.add(Status.INVALID_DEVICE_REQUEST)
        elif post.kind == "bind":
            found |= self._refuse_bind(post)
        elif post.kind == "fast_register":
            found |= self._refuse_fast_register(post)
        elif post.kind == "invalidate":
            mr = self.memory.mrs.get(post.target)
            if mr is not None and not mr.fast:
                found.add(Status.INVALID_PARAMETER)  # R-INV-2
            elif not self._may_still_change(post.target, windows=True):
                found |= self._cannot_invalidate(post.target)
        return frozenset(found)

    def may_fail_later(self, post: Posted, reasons: frozenset[Status]) -> bool:
        """A-6, A-9, R-WR-16: what an earlier request may still change need not be refused at once."""
        if post.kind not in ("bind", "fast_register", "invalidate"):
            return False
        open_ = any(self._may_still_change(name, windows=True, by_reads=True) for name in (post.target, post.mw))
        return open_ and reasons <= {Status.ACCESS_VIOLATION, Status.INVALID_DEVICE_REQUEST} - self._never_later(post)

    def _never_later(self, post: Posted) -> frozenset[Status]:
        """R-FRINIT-3: a right that the region was not initialised for is refused at once."""
        return DENIED if post.kind == "fast_register" else frozenset()

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

    def receive_refusals(self, receive: ModelReceive, depth: int) -> frozenset[Status]:
        found = set()
        if self.receive_cq.failed or self.initiator_cq.failed:
            found.add(Status.CONNECTION_INVALID)  # R-CQERR-4
        if self.srq is not None:
            found.add(Status.INVALID_DEVICE_REQUEST)  # R-QP-4
        if len(self.receives) >= depth:
            found.add(Status.NO_MORE_ENTRIES)
        if len(receive.sges) > self.max_sge:
            found.add(Status.DATA_OVERRUN)
        return frozenset(found)

    def post_receive(self, receive: ModelReceive) -> None:
        self.receives.append(receive)
        if self.flushed:
            self._cancel_receives()

    def _not_connected(self) -> bool:
        """R-WR-3. A-3: after an error or a flush posts succeed and are cancelled; after a disconnect, whatever came of it
        (R-DISC-4), and after a close they do not. R-CQERR-4: nor with a CQ in error.
        """
        if self.receive_cq.failed or self.initiator_cq.failed:
            return True
        return not (self.state in ("up", "peer closed") or (self.state == "failed" and self.disconnect is None))

    def _may_still_change(self, name: str, *, windows: bool = False, by_reads: bool = False) -> bool:
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

    def _refuse_bind(self, post: Posted) -> frozenset[Status]:
        mr = self.memory.mrs[post.target]
        found = set()
        if not mr.own_pd:
            found.add(Status.INVALID_PARAMETER)
        if not rights_of(post.flags) & {READ, WRITE} or not post.length:
            found.add(Status.INVALID_PARAMETER)  # R-BIND-1, A-24
        if not self._may_still_change(post.mw) and not self._may_still_change(post.target):
            found |= self._cannot_bind(post)
        return frozenset(found)

    def _cannot_bind(self, post: Posted) -> frozenset[Status]:
        mr, mw = self.memory.mrs[post.target], self.memory.mws[post.mw]
        found = set()
        if mw.valid:
            found.add(Status.INVALID_DEVICE_REQUEST)  # R-BIND-5
        inside = mr.base <= post.address and post.address + post.length <= mr.base + mr.length
        writes = WRITE in rights_of(post.flags)
        if not mr.valid or not inside or (writes and LOCAL_WRITE not in mr.rights):
            found.add(Status.ACCESS_VIOLATION)  # R-BIND-1, -2, A-6
        return frozenset(found)

    def _refuse_fast_register(self, post: Posted) -> frozenset[Status]:
        mr = self.memory.mrs[post.target]
        found = set()
        if not 0 < len(post.pages) <= mr.page_limit:
            found.add(Status.INVALID_PARAMETER)  # R-FREG-2
        if post.length <= 0 or (post.address - post.fbo) % 4096 or post.address < post.fbo:
            found.add(Status.INVALID_PARAMETER)  # R-FREG-4
        try:
            self.memory.fast_register_chunks(post.pages, post.fbo, post.length)
        except Denied:
            found.add(Status.INVALID_PARAMETER)  # R-FREG-3
        if rights_of(post.flags) & {READ, WRITE} and not mr.remote_access:
            found.add(Status.ACCESS_VIOLATION)  # R-FRINIT-3
        if mr.valid and not self._may_still_change(post.target, by_reads=True):
            found.add(Status.INVALID_DEVICE_REQUEST)  # R-FREG-6
        return frozenset(found)

    def _cannot_invalidate(self, name: str) -> frozenset[Status]:
        mw, mr = self.memory.mws.get(name), self.memory.mrs.get(name)
        if mw is not None:
            return frozenset() if mw.valid else MALFORMED
        assert mr is not None
        return frozenset() if mr.valid and not self.memory.windows_on(mr) else MALFORMED  # R-INVAL-4

    # ---- completing

    def finish(self, post: Posted, status: frozenset[Status] = SUCCESS) -> None:
        """R-COMP-4: results come in posting order."""
        if post.status is None:
            post.status = status
        while self.active and self.active[0].status is not None:
            self._complete(self.active.popleft())

    def _complete(self, post: Posted) -> None:
        assert post.status is not None
        if post.status != SUCCESS or not post.has(OpFlag.SILENT_SUCCESS):  # R-COMP-1, -2
            self.initiator_cq.push("initiator", post.type, post.status, post.context)

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


class ModelPair:
    """Both ends; `settle` runs them until nothing moves."""

    def __init__(self, a: ModelEnd, b: ModelEnd) -> None:
        self.ends = (a, b)

    def peer(self, end: ModelEnd) -> ModelEnd:
        return self.ends[1] if end is self.ends[0] else self.ends[0]

    def settle(self) -> None:
        """In the order that is most likely: everything arrives at once, an overrun is acted upon in the end."""
        while self._round():
            pass
        for end in self.ends:
            self._act_on_overrun(end)
        while self._round():
            pass

    def _round(self) -> bool:
        moved = [self._run(end) for end in self.ends]
        return any([self._deliver(end, len(end.incoming)) for end in self.ends] + moved)

    @classmethod
    def outcomes(cls, state: bytes) -> Iterator["tuple[ModelPair, Any]"]:
        """Every end that the story so far can have. `state`: a pair and what belongs to it, pickled together.

        Free is how much of what is under way has arrived when an end looks, and so which of its answers come before
        the rest (RFC 5040 5.5: a response is made some time after its request has come), whether a response or an own
        request goes out first (no rule orders them), how much a TCP reset destroys of what comes before it (RFC 9293
        3.10.7.4), and when an overrun is acted upon (R-CQERR-1 says no time). The
        order within each direction is not free.
        """
        story = pickle.loads(state)
        for end in story[0].ends:
            story[0]._run(end)
        seen: set[bytes] = set()
        left = [pickle.dumps(story)]
        while left:
            before = left.pop()
            if before not in seen:
                seen.add(before)
                assert len(seen) < MOST_ORDERS, "too many orders to look at all of them"
                moves = cls._moves(before)
                if not moves:
                    yield pickle.loads(before)
                left += moves

    @staticmethod
    def _moves(before: bytes) -> list[bytes]:
        """The states that an arrival, the reaction to an overrun, or both lead to."""
        found: list[bytes] = []
        coming = [len(end.incoming) for end in pickle.loads(before)[0].ends]
        for side in (0, 1):
            for count, reacts, responses_first in product(range(coming[side] + 1), (False, True), (False, True)):
                story = pickle.loads(before)
                pair, end = story[0], story[0].ends[side]
                moved = pair._deliver(end, count)
                if pair._act_on_overrun(end) if reacts else moved:
                    end.responses_first = responses_first
                    pair._run(end)
                    found.append(pickle.dumps(story))
            story = pickle.loads(before)
            if story[0]._lose_to_reset(story[0].ends[side]):
                found.append(pickle.dumps(story))
        return found

    def _lose_to_reset(self, end: ModelEnd) -> bool:
        """The reset destroys what came before it and has not been read (RFC 9293 3.10.7.4)."""
        due = end.state in UP and not end.held and any(item.kind == "reset" for item in end.incoming)
        if due:
            end.incoming.clear()
            self._lose(end)
        return due

    def _act_on_overrun(self, end: ModelEnd) -> bool:
        """R-CQERR-1, -4."""
        due = (end.receive_cq.overrun or end.initiator_cq.overrun) and end.state in UP
        if due:
            self.fault(end)
        return due

    # ---- verbs of the connection

    def disconnect(self, end: ModelEnd) -> bool:
        """False: not connected, CONNECTION_INVALID (A-14)."""
        if end.state not in ("up", "peer closed"):
            return False
        end.state, end.disconnect, end.told = "closing", "pending", True
        end.release()
        return True

    def close(self, end: ModelEnd) -> None:
        """R-CLOSE-10: no event here; the peer sees a graceful end."""
        if end.state in UP:
            end.flush()
            if not end.fin_sent:
                self._carry(end, Carried("fin"))
            end.fin_sent = True
        if end.disconnect == "pending":
            end.disconnect = "CANCELLED"
        end.state = "gone"

    def flush(self, end: ModelEnd) -> None:
        """NdkFlush on a connected QP aborts the connection (A-3)."""
        if end.state in UP:
            self.fault(end)

    def cut(self, end: ModelEnd) -> None:
        """TCP resets: this end knows at once, the other when it has read what came before, or sends."""
        end.incoming.clear()
        self._lose(end)
        self._carry(end, Carried("reset"))

    def fault(self, end: ModelEnd, status: frozenset[Status] = BEHIND_A_FAULT, about: Posted | None = None) -> None:
        """R-MEM-5, R-COMP-6: flush, tell the peer why, end. After the own FIN nothing can be said: reset."""
        if end.fin_sent:
            self._lose(end)
            self._carry(end, Carried("reset"))
            return
        end.flush()
        self._carry(end, Carried("terminate", request=about, status=status))
        end.ended()

    def _lose(self, end: ModelEnd) -> None:
        if end.state in UP:
            end.flush()
            end.ended()

    def _carry(self, end: ModelEnd, item: Carried) -> None:
        if any(waiting.kind == "reset" for waiting in end.incoming):
            end.unheard = end.unheard or item.kind not in ("fin", "reset")
        else:
            self.peer(end).incoming.append(item)

    # ---- the initiator's side

    def _run(self, end: ModelEnd) -> bool:
        moved = False
        while end.state in UP and not end.fin_sent:
            head = self._startable(end)
            if end.responses and (end.responses_first or head is None):
                end.responses_first = False
                self._respond(end, end.responses.popleft())
            elif head is not None:
                end.responses_first = True
                self._start(end, head)
            else:
                end.responses_first = True
                break
            moved = True
        if end.unheard:  # what the peer said before its reset is still read, unless it is held back
            self._deliver(end, len(end.incoming))
            self._lose(end)
        return self._advance_disconnect(end) or moved

    def _startable(self, end: ModelEnd) -> Posted | None:
        """R-WR-11: a fence waits for all earlier reads. R-READ-4: the read limit holds up all that follows. An
        invalidation of an FRMR waits for reads that may still write there.
        """
        if not end.released:
            return None
        head = end.waiting[0]
        if end.reads:
            if head.has(OpFlag.READ_FENCE) or (head.kind == "read" and len(end.reads) >= end.read_limit):
                return None
            if head.kind == "invalidate" and head.target in end.memory.mrs:
                return None
        return head

    def _start(self, end: ModelEnd, post: Posted) -> None:
        end.waiting.popleft()
        end.released -= 1
        end.active.append(post)
        try:
            if post.kind == "read":
                for sge in post.sges:
                    if sge.length:
                        end.memory.local(sge.token, sge.address, sge.length, write=True)  # R-WR-15
                end.reads.append(post)
                self._carry(end, Carried("read", post))
                return
        except Denied:
            post.failed(DENIED)
            self.fault(end)
            return
        if post.kind in ("send", "write"):
            self._say(end, post)
            return
        refused = self._execute(end, post)
        if refused:
            post.failed(refused)
            self.fault(end)
        else:
            end.finish(post)

    def _say(self, end: ModelEnd, post: Posted) -> None:
        """A message goes out segment by segment, as far as its memory may be used (R-WR-15)."""
        kind: Literal["send", "write"] = "send" if post.kind == "send" else "write"
        room, data = end.rooms[kind == "write"], post.inline or b""
        while post.inline is None and len(data) < post.size:
            take = min(room, post.size - len(data))
            try:
                data += end.memory.get(end.sgl_chunks(post.sges, len(data), take, write=False))
            except Denied:
                if data:
                    self._carry(end, Carried(kind, post, data, whole=False))
                post.failed(DENIED)
                self.fault(end)
                return
        self._carry(end, Carried(kind, post, data))
        if not end.unheard:
            end.finish(post)  # R-COMP-7

    def _execute(self, end: ModelEnd, post: Posted) -> frozenset[Status]:
        """R-WR-14: bind, fast register and invalidate take effect in their turn."""
        memory = end.memory
        if post.kind == "bind":
            refused = end._cannot_bind(post)
            if not refused:
                mw = memory.mws[post.mw]
                mw.mr, mw.qp, mw.base, mw.length = memory.mrs[post.target], end.qp, post.address, post.length
                mw.rights = rights_of(post.flags) & {READ, WRITE}
            return refused
        if post.kind == "fast_register":
            mr = memory.mrs[post.target]
            if mr.valid:
                return MALFORMED  # R-FREG-6
            mr.valid, mr.base, mr.rights = True, post.address, rights_of(post.flags)
            mr.chunks = memory.fast_register_chunks(post.pages, post.fbo, post.length)
            return frozenset()
        refused = end._cannot_invalidate(post.target)
        if not refused and post.target in memory.mws:
            memory.mws[post.target].mr = None
        elif not refused:
            memory.mrs[post.target].valid = False
        return refused

    def _respond(self, end: ModelEnd, read: Posted) -> None:
        try:
            chunks = end.memory.remote(read.token, end.qp, read.address, read.size, READ) if read.size else []
        except Denied as denied:
            self.fault(end, _read_status(denied), read)
            return
        self._carry(end, Carried("response", read, end.memory.get(chunks)))

    def _advance_disconnect(self, end: ModelEnd) -> bool:
        """R-DISC-1 to -3: what was posted goes out, then the notice; over when both notices are there."""
        if end.state != "closing":
            return False
        moved = False
        quiet = not (end.waiting or end.active or end.responses)
        if not end.fin_sent and (quiet or end.fin_received):
            end.fin_sent = moved = True
            self._carry(end, Carried("fin"))
        if end.fin_sent and end.fin_received:
            end.flush()
            end.state, end.disconnect, moved = "closed", "SUCCESS", True
        return moved

    # ---- the receiving side

    def kick(self, end: ModelEnd) -> None:
        """A receive was posted: the message that was held back is taken at once (R-SRQ-3)."""
        if end.held and end.srq is not None and end.srq.receives:
            end.held = False
            self._deliver(end, 1)

    def _deliver(self, end: ModelEnd, count: int) -> bool:
        """The next `count` things arrive; False: none may."""
        moved = False
        while count and end.incoming and not (end.held and end.state in UP):
            item = end.incoming[0]
            if end.state in UP and self._hold(end, item):
                end.held = moved = True
                break
            end.incoming.popleft()
            count -= 1
            moved = True
            if end.state in UP:
                self._take(end, item)
        return moved

    def _hold(self, end: ModelEnd, item: Carried) -> bool:
        """R-SRQ-3: an empty SRQ holds the message, and what follows, back."""
        return item.kind == "send" and end.srq is not None and not end.srq.receives

    def _take(self, end: ModelEnd, item: Carried) -> None:
        if item.kind == "reset":
            self._lose(end)
        elif item.kind == "fin":
            end.fin_received = True
            if end.state == "up":
                end.state = "peer closed"  # R-DEV-4, A-2: no flush
                if not end.told:
                    end.told = True
                    end.events.append("graceful")
            self._advance_disconnect(end)
        elif item.kind == "terminate":
            culprit = item.request if item.request in end.reads else None
            if culprit is None:
                culprit = next((post for post in (*end.active, *end.waiting) if post.status is None), None)
            if culprit is not None and item.status != CANCELLED:
                culprit.failed(item.status)
            end.flush()
            end.ended()
        else:
            assert item.request is not None
            self._take_data(end, item, item.request)

    def _take_data(self, end: ModelEnd, item: Carried, post: Posted) -> None:
        if item.kind == "send":
            self._take_send(end, item, post)
        elif item.kind == "write":
            offset = 0
            for part in _segments(item.data, end.rooms[1]):  # none of an empty one: R-MEM-4
                try:
                    end.memory.put(end.memory.remote(post.token, end.qp, post.address + offset, len(part), WRITE), part)
                except Denied as denied:
                    self.fault(end, BEHIND_A_FAULT if denied.why == "bounds" else BEHIND_A_DENIAL)
                    return
                offset += len(part)
        elif item.kind == "read":
            try:
                if post.size:
                    end.memory.remote(post.token, end.qp, post.address, post.size, READ)
            except Denied as denied:
                self.fault(end, _read_status(denied), post)
                return
            if end.fin_sent:
                self.fault(end)  # it can't be answered any more
            else:
                end.responses.append(post)
        else:
            self._take_response(end, item, post)

    def _take_send(self, end: ModelEnd, item: Carried, post: Posted) -> None:
        if not end.receives and end.srq is not None:
            end.receives.append(end.srq.take())
        if not end.receives:
            self.fault(end)  # R-RECV-2, A-10
            return
        receive, offset = end.receives[0], 0
        for part in _segments(item.data, end.rooms[0]):
            if offset + len(part) > receive.size:
                receive.status = one_of(Status.BUFFER_OVERFLOW)
            else:
                try:
                    end.memory.put(end.sgl_chunks(receive.sges, offset, len(part), write=True), part)
                except Denied:
                    receive.status = DENIED  # R-WR-15
            if receive.status is not None:
                self.fault(end)
                return
            offset += len(part)
        if not item.whole:
            return
        kind, token = OperationType.RECEIVE, ""
        if post.token:
            kind, token = OperationType.RECEIVE_AND_INVALIDATE, post.token
            try:
                end.memory.invalidate_from_peer(post.token, end.qp)  # R-INVAL-2: after the placement
            except Denied:
                receive.status = MALFORMED
                self.fault(end, CANCELLED)  # R-SENDINV-2
                return
        end.receives.popleft()
        solicited = post.has(OpFlag.SEND_AND_SOLICIT_EVENT)
        end.receive_cq.push(
            "receive", kind, SUCCESS, receive.context, size=len(item.data), token=token, solicited=solicited
        )

    def _take_response(self, end: ModelEnd, item: Carried, read: Posted) -> None:
        offset = 0
        for part in _segments(item.data, end.rooms[1]):
            try:
                end.memory.put(end.sgl_chunks(read.sges, offset, len(part), write=True), part)
            except Denied:
                read.failed(DENIED)  # R-INV-3: the sink has gone meanwhile
                self.fault(end, BEHIND_A_DENIAL)
                return
            offset += len(part)
        if read.has(OpFlag.RDMA_READ_LOCAL_INVALIDATE) and read.sges:
            mr = end.memory.fast(read.sges[0].token)
            if mr is not None and mr.valid and self._invalidation_fails(end, mr):
                read.failed(MALFORMED)
                self.fault(end)
                return
        end.reads.popleft()
        end.finish(read)

    @staticmethod
    def _invalidation_fails(end: ModelEnd, mr: ModelMr) -> bool:
        """R-READ-5: a read that succeeds has invalidated the token; R-INVAL-4: not with windows bound."""
        if end.memory.windows_on(mr):
            return True
        mr.valid = False
        return False


def _segments(data: bytes, room: int) -> list[bytes]:
    return [data[start : start + room] for start in range(0, len(data), room)]


def _read_status(denied: Denied) -> frozenset[Status]:
    """A-4: too far is REMOTE_RESOURCES; an unknown token or a missing right ACCESS_VIOLATION."""
    return one_of(Status.REMOTE_RESOURCES) if denied.why == "bounds" else DENIED
