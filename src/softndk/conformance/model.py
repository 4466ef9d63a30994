"""NDKPI's rules of queues and connections as plain lists: what two connected ends must do.

The model is written from the rules, which each step names. It predicts results per CQ with their order, notifications,
memory, inline refusals and how the connection ends, also where a rule leaves freedom: there it has a set of statuses.
`settle` runs both ends in rounds until they are quiet, so that the caller compares then. What the rules leave to chance
is which part of what is under way one end sees before it answers: `model_orders` goes through all of that. Must not know
how anything is implemented; it shares with the program it judges the numbers of flags and statuses only.
"""

from typing import Literal

from softndk.conformance.model_atomics import WIDTH, compare_swap, fetch_add, number_in, octets_of
from softndk.conformance.model_checks import cannot_bind, cannot_invalidate
from softndk.conformance.model_end import (
    CANCELLED,
    DENIED,
    MALFORMED,
    SUCCESS,
    UP,
    Carried,
    ModelEnd,
    rights_of,
)
from softndk.conformance.model_memory import ATOMIC, READ, REMOTE, WRITE, Chunk, Denied, ModelMr
from softndk.conformance.model_queues import ATOMICS, FETCHES, Posted, one_of
from softndk.flags import OperationType, OpFlag
from softndk.status import Status

__all__ = ["ModelPair"]

BEHIND_A_FAULT = one_of(Status.CANCELLED, Status.REMOTE_RESOURCES)
"""What the oldest unfinished request says when the peer ends the connection: the peer's reason, or nothing (A-4)."""
BEHIND_A_DENIAL = one_of(Status.CANCELLED, Status.ACCESS_VIOLATION)
"""The same where the reason is a token or a right."""


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
            self.act_on_overrun(end)
        while self._round():
            pass

    def _round(self) -> bool:
        moved = [self.run(end) for end in self.ends]
        return any([self.deliver(end, len(end.incoming)) for end in self.ends] + moved)

    def lose_to_reset(self, end: ModelEnd) -> bool:
        """The reset destroys what came before it and has not been read (RFC 9293 3.10.7.4)."""
        due = end.state in UP and not end.held and any(item.kind == "reset" for item in end.incoming)
        if due:
            end.incoming.clear()
            self._lose(end)
        return due

    def hear_of_reset(self, end: ModelEnd) -> bool:
        """The end, which holds a message back, learns of a reset behind it. The peer's reason is all that still counts."""
        due = end.state in UP and end.held and any(item.kind == "reset" for item in end.incoming)
        if due:
            reason = next((item for item in end.incoming if item.kind == "terminate"), None)
            end.incoming.clear()
            if reason is not None:
                self._take(end, reason)
            self._lose(end)
        return due

    def act_on_overrun(self, end: ModelEnd) -> bool:
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
        end.ask_to_close("connector")

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

    def run(self, end: ModelEnd) -> bool:
        moved = False
        while end.state in UP and not end.fin_sent:
            head = self.startable(end)
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
            self.deliver(end, len(end.incoming))
            self.hear_of_reset(end)
            self._lose(end)
        return self._advance_disconnect(end) or moved

    def startable(self, end: ModelEnd) -> Posted | None:
        """R-WR-11: a fence waits for all earlier reads. R-READ-4: the read limit holds up all that follows. An
        invalidation of an FRMR waits for reads that may still write there.
        """
        if not end.released:
            return None
        head = end.waiting[0]
        if end.reads:
            if head.has(OpFlag.READ_FENCE) or (head.kind in FETCHES and len(end.reads) >= end.read_limit):
                return None
            if head.kind == "invalidate" and head.target in end.memory.mrs:
                return None
        return head

    def _start(self, end: ModelEnd, post: Posted) -> None:
        end.waiting.popleft()
        end.released -= 1
        end.active.append(post)
        try:
            if post.kind in FETCHES:
                for sge in post.sges:
                    if sge.length:
                        end.memory.local(sge.token, sge.address, sge.length, write=True)  # R-WR-15
                end.reads.append(post)
                self._carry(end, Carried("read" if post.kind == "read" else "atomic", post))
                return
        except Denied:
            post.failed(DENIED)
            self.fault(end)
            return
        if post.kind in ("send", "send_immediate", "write"):
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
        kinds: dict[str, Literal["send", "immediate", "write"]]
        kinds = {"send": "send", "send_immediate": "immediate", "write": "write"}
        kind = kinds[post.kind]
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
            refused = cannot_bind(memory, post)
            if not refused:
                mw = memory.mws[post.mw]
                mw.mr, mw.qp, mw.base, mw.length = memory.mrs[post.target], end.qp, post.address, post.length
                mw.rights = rights_of(post.flags) & REMOTE
            return refused
        if post.kind == "fast_register":
            mr = memory.mrs[post.target]
            if mr.valid:
                return MALFORMED  # R-FREG-6
            mr.valid, mr.base, mr.rights = True, post.address, rights_of(post.flags)
            mr.chunks = memory.fast_register_chunks(post.pages, post.fbo, post.length)
            return frozenset()
        refused = cannot_invalidate(memory, post.target)
        if not refused and post.target in memory.mws:
            memory.mws[post.target].mr = None
        elif not refused:
            memory.mrs[post.target].valid = False
        return refused

    def _respond(self, end: ModelEnd, post: Posted) -> None:
        """R-MEM-1 to -3 once more: the token may have died since. An atomic is carried out now, once (RFC 7306 5)."""
        try:
            chunks = _fetched(end, post)
        except Denied as denied:
            self.fault(end, _read_status(denied), post)
            return
        data = end.memory.get(chunks)
        self._carry(end, Carried("response", post, data))
        if post.kind == "fetch_add":
            end.memory.put(chunks, octets_of(fetch_add(number_in(data), *post.operands)))
        elif post.kind == "compare_swap":
            end.memory.put(chunks, octets_of(compare_swap(number_in(data), *post.operands)))

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
            self.deliver(end, 1)

    def deliver(self, end: ModelEnd, count: int) -> bool:
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
        return item.kind in ("send", "immediate") and end.srq is not None and not end.srq.receives

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
        if item.kind in ("send", "immediate"):
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
        elif item.kind in ("read", "atomic"):
            try:
                _fetched(end, post)
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
        if item.kind == "immediate":
            self._receive(
                end, OperationType.RECEIVE_IMMEDIATE, post, immediate=item.data
            )  # RFC 7306 6: nothing is placed
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
                end.settle_closes()
            except Denied:
                receive.status = MALFORMED
                self.fault(end, CANCELLED)  # R-SENDINV-2
                return
        self._receive(end, kind, post, size=len(item.data), token=token)

    @staticmethod
    def _receive(
        end: ModelEnd,
        kind: OperationType,
        post: Posted,
        *,
        size: int = 0,
        token: str = "",
        immediate: bytes | None = None,
    ) -> None:
        """The oldest receive is complete."""
        context, solicited = end.receives.popleft().context, post.has(OpFlag.SEND_AND_SOLICIT_EVENT)
        end.receive_cq.push(
            "receive", kind, SUCCESS, context, size=size, token=token, solicited=solicited, immediate=immediate
        )

    def _take_response(self, end: ModelEnd, item: Carried, read: Posted) -> None:
        offset = 0
        for part in _segments(item.data, end.rooms[1]):
            try:
                end.memory.put(end.sgl_chunks(read.sges, offset, len(part), write=True), part)
            except Denied:
                read.failed(DENIED)  # R-INV-3: the sink has gone meanwhile; an atomic's is not known to the peer
                self.fault(end, BEHIND_A_FAULT if read.kind in ATOMICS else BEHIND_A_DENIAL)
                return
            offset += len(part)
        if read.has(OpFlag.RDMA_READ_LOCAL_INVALIDATE) and read.sges:
            mr = end.memory.fast(read.sges[0].token)
            if mr is not None and mr.valid and self._invalidation_fails(end, mr):
                read.failed(MALFORMED)
                self.fault(end)
                return
        end.reads.popleft()
        if read.kind in ATOMICS:
            read.original = number_in(item.data)
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


def _fetched(end: ModelEnd, post: Posted) -> list[Chunk]:
    """What a peer's read or atomic names at `end`; of an empty read nothing is looked at (R-MEM-4)."""
    if post.kind in ATOMICS:
        return end.memory.remote(post.token, end.qp, post.address, WIDTH, ATOMIC)
    return end.memory.remote(post.token, end.qp, post.address, post.size, READ) if post.size else []


def _read_status(denied: Denied) -> frozenset[Status]:
    """A-4: too far is REMOTE_RESOURCES; an unknown token or a missing right ACCESS_VIOLATION."""
    return one_of(Status.REMOTE_RESOURCES) if denied.why == "bounds" else DENIED
