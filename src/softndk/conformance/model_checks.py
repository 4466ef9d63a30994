"""The model's answer to a call: with which statuses a post may be refused at once.

No rule orders the checks, so all reasons count. Looks at an end and its memory, and changes nothing.
"""

from softndk.conformance.model_atomics import WIDTH
from softndk.conformance.model_end import DENIED, MALFORMED, ModelEnd, rights_of
from softndk.conformance.model_memory import ATOMIC, LOCAL_WRITE, REMOTE, WRITE, Denied, ModelMemory
from softndk.conformance.model_queues import ATOMICS, FETCHES, ModelReceive, Posted
from softndk.flags import OpFlag
from softndk.status import Status

__all__ = ["cannot_bind", "cannot_invalidate", "may_fail_later", "receive_refusals", "refusals"]

_ANY_REQUEST = int(OpFlag.SILENT_SUCCESS | OpFlag.READ_FENCE | OpFlag.DEFER)
_REMOTE = int(OpFlag.ALLOW_REMOTE_READ | OpFlag.ALLOW_REMOTE_WRITE | OpFlag.ALLOW_REMOTE_ATOMIC)
FLAGS = {  # the table of operation flags (R-FLAG-3)
    "send": _ANY_REQUEST | OpFlag.SEND_AND_SOLICIT_EVENT | OpFlag.INLINE,
    "write": _ANY_REQUEST | OpFlag.INLINE,
    "read": _ANY_REQUEST | OpFlag.RDMA_READ_LOCAL_INVALIDATE,
    "bind": _ANY_REQUEST | _REMOTE,
    "fast_register": _ANY_REQUEST | _REMOTE | OpFlag.RDMA_READ_SINK,
    "invalidate": _ANY_REQUEST,
    "send_immediate": _ANY_REQUEST | OpFlag.SEND_AND_SOLICIT_EVENT,
    "fetch_add": _ANY_REQUEST,
    "compare_swap": _ANY_REQUEST,
}


def refusals(end: ModelEnd, post: Posted) -> frozenset[Status]:
    """Statuses with which the post may be refused at once; none: it is accepted. No rule orders the checks."""
    found: set[Status] = set()
    whole = (0, OpFlag.ALLOW_REMOTE_WRITE, OpFlag.ALLOW_LOCAL_WRITE if post.kind == "fast_register" else 0)
    if post.flags & ~FLAGS[post.kind] or post.flags & OpFlag.ALLOW_REMOTE_WRITE not in whole:
        found.add(Status.INVALID_PARAMETER)  # R-FLAG-3, R-FLAG-1
    if end.qp_closing.asked or any(end.closings()[name].asked for name in (post.target, post.mw) if name):
        found.add(Status.INVALID_HANDLE)  # R-CLOSE-6
    if end.not_connected():
        found.add(Status.CONNECTION_INVALID)
    if len(end.waiting) + len(end.active) >= end.depth and not end.flushed:
        found.add(Status.NO_MORE_ENTRIES)  # R-WR-8
    if post.inline is not None and post.kind != "send_immediate" and len(post.inline) > end.inline_size:
        found.add(Status.BUFFER_OVERFLOW)  # R-WR-10
    if len(post.sges) > (end.max_read_sge if post.kind in FETCHES else end.max_sge):
        found.add(Status.DATA_OVERRUN)  # R-WR-6
    if post.kind in FETCHES and not end.read_limit and not end.flushed:
        found.add(Status.INVALID_DEVICE_REQUEST)  # R-LIM-4
    if post.kind in ("send_immediate", *ATOMICS) and post.size != WIDTH:
        found.add(Status.INVALID_PARAMETER)  # RFC 7306 5, 6
    if post.kind in ATOMICS and (post.address % WIDTH or not all(0 <= number < 1 << 64 for number in post.operands)):
        found.add(Status.INVALID_PARAMETER)  # RFC 7306 5
    if post.kind == "read" and post.has(OpFlag.RDMA_READ_LOCAL_INVALIDATE) and post.sges:
        mr = end.memory.fast(post.sges[0].token)
        if mr is None or not mr.own_pd or not post.sges[0].token.startswith("L:"):
            found.add(Status.INVALID_DEVICE_REQUEST)  # R-READ-5, A-13
    elif post.kind == "bind":
        found |= _refuse_bind(end, post)
    elif post.kind == "fast_register":
        found |= _refuse_fast_register(end, post)
    elif post.kind == "invalidate":
        mr = end.memory.mrs.get(post.target)
        if mr is not None and not mr.fast:
            found.add(Status.INVALID_PARAMETER)  # R-INV-2
        elif not end.may_still_change(post.target, windows=True):
            found |= cannot_invalidate(end.memory, post.target)
    return frozenset(found)


def may_fail_later(end: ModelEnd, post: Posted, reasons: frozenset[Status]) -> bool:
    """A-6, A-9, R-WR-16: what an earlier request may still change need not be refused at once."""
    if post.kind not in ("bind", "fast_register", "invalidate"):
        return False
    open_ = any(end.may_still_change(name, windows=True, by_reads=True) for name in (post.target, post.mw))
    return open_ and reasons <= {Status.ACCESS_VIOLATION, Status.INVALID_DEVICE_REQUEST} - _never_later(post)


def _never_later(post: Posted) -> frozenset[Status]:
    """R-FRINIT-3: a right that the region was not initialised for is refused at once."""
    return DENIED if post.kind == "fast_register" else frozenset()


def receive_refusals(end: ModelEnd, receive: ModelReceive, depth: int) -> frozenset[Status]:
    found = set()
    if end.qp_closing.asked:
        found.add(Status.INVALID_HANDLE)  # R-CLOSE-6
    if end.receive_cq.failed or end.initiator_cq.failed:
        found.add(Status.CONNECTION_INVALID)  # R-CQERR-4
    if end.srq is not None:
        found.add(Status.INVALID_DEVICE_REQUEST)  # R-QP-4
    if len(end.receives) >= depth:
        found.add(Status.NO_MORE_ENTRIES)
    if len(receive.sges) > end.max_sge:
        found.add(Status.DATA_OVERRUN)
    return frozenset(found)


def _refuse_bind(end: ModelEnd, post: Posted) -> frozenset[Status]:
    mr = end.memory.mrs[post.target]
    found = set()
    if not mr.own_pd:
        found.add(Status.INVALID_PARAMETER)
    if not rights_of(post.flags) & REMOTE or not post.length:
        found.add(Status.INVALID_PARAMETER)  # R-BIND-1, A-24
    if not end.may_still_change(post.mw) and not end.may_still_change(post.target):
        found |= cannot_bind(end.memory, post)
    return frozenset(found)


def cannot_bind(memory: ModelMemory, post: Posted) -> frozenset[Status]:
    mr, mw = memory.mrs[post.target], memory.mws[post.mw]
    found = set()
    if mw.valid:
        found.add(Status.INVALID_DEVICE_REQUEST)  # R-BIND-5
    inside = mr.base <= post.address and post.address + post.length <= mr.base + mr.length
    writes = rights_of(post.flags) & {WRITE, ATOMIC}
    if not mr.valid or not inside or (writes and LOCAL_WRITE not in mr.rights):
        found.add(Status.ACCESS_VIOLATION)  # R-BIND-1, -2, A-6
    return frozenset(found)


def _refuse_fast_register(end: ModelEnd, post: Posted) -> frozenset[Status]:
    mr = end.memory.mrs[post.target]
    found = set()
    if not 0 < len(post.pages) <= mr.page_limit:
        found.add(Status.INVALID_PARAMETER)  # R-FREG-2
    if post.length <= 0 or (post.address - post.fbo) % 4096 or post.address < post.fbo:
        found.add(Status.INVALID_PARAMETER)  # R-FREG-4
    try:
        end.memory.fast_register_chunks(post.pages, post.fbo, post.length)
    except Denied:
        found.add(Status.INVALID_PARAMETER)  # R-FREG-3
    if rights_of(post.flags) & REMOTE and not mr.remote_access:
        found.add(Status.ACCESS_VIOLATION)  # R-FRINIT-3
    if mr.valid and not end.may_still_change(post.target, by_reads=True):
        found.add(Status.INVALID_DEVICE_REQUEST)  # R-FREG-6
    return frozenset(found)


def cannot_invalidate(memory: ModelMemory, name: str) -> frozenset[Status]:
    mw, mr = memory.mws.get(name), memory.mrs.get(name)
    if mw is not None:
        return frozenset() if mw.valid else MALFORMED
    assert mr is not None
    return frozenset() if mr.valid and not memory.windows_on(mr) else MALFORMED  # R-INVAL-4
