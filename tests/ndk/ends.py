"""What the tests of the NDKPI objects share: results in full count, connected ends of one's own making, memory objects.

Uses the public names only.
"""

import os
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from softndk import (
    Adapter,
    AdapterStatistics,
    Connector,
    Cq,
    Disconnect,
    Fault,
    LogicalAddressMapping,
    Mr,
    MrFlag,
    Mw,
    OperationType,
    OpFlag,
    Qp,
    RemoteToken,
    Result,
    Status,
)
from softndk.testing import End

PATIENCE_S = 30.0 * float(os.environ.get("SOFTNDK_TIMEOUT_SCALE", "1"))
"""How long a test waits for what must happen. Reaching it is a failure, so it costs nothing to be generous."""

EVERY_RIGHT = MrFlag.ALLOW_REMOTE_READ | MrFlag.ALLOW_REMOTE_WRITE
FAST_RIGHTS = OpFlag.ALLOW_REMOTE_READ | OpFlag.ALLOW_REMOTE_WRITE


# ---- results


def take(cq: Cq, count: int) -> list[Result]:
    """The next `count` results, and no more."""
    found: list[Result] = []
    while len(found) < count:
        found += cq.wait(PATIENCE_S, max_results=count - len(found))
    return found


def one(cq: Cq) -> Result:
    """The only result that is there."""
    (result,) = take(cq, 1)
    assert cq.get_results() == []
    return result


def succeed(cq: Cq, count: int = 1) -> None:
    """Take `count` results, all successes."""
    assert [result.status for result in take(cq, count)] == [Status.SUCCESS] * count


def contexts(results: Sequence[Result]) -> list[object]:
    return [result.request_context for result in results]


def receives(results: Sequence[Result]) -> list[Result]:
    return [result for result in results if result.is_receive]


def initiators(results: Sequence[Result]) -> list[Result]:
    return [result for result in results if not result.is_receive]


def callbacks_have_run(adapter: Adapter) -> None:
    """Wait until every callback that is due by now has returned: one thread runs them all, in order."""
    passed = threading.Event()
    adapter.create_pd().close(on_done=lambda _: passed.set())
    assert passed.wait(PATIENCE_S)


# ---- ends


def connect(active: Adapter, active_qp: Qp, passive: Adapter, passive_qp: Qp) -> tuple[Connector, Connector]:
    """Connect two QPs; returns the active and the passive connector."""
    listener = passive.listen()
    connecting = active.connect(active_qp, listener.local_address)
    incoming = listener.next_request().result(PATIENCE_S)
    accepting = incoming.accept(passive_qp)
    outgoing = connecting.result(PATIENCE_S)
    accepting.result(PATIENCE_S)
    listener.close()
    return outgoing, incoming


def loose_end(adapter: Adapter, *, cq_depth: int = 256, queue_depth: int = 64, max_sge: int = 4) -> End:
    """Everything but a connection; its connector is idle."""
    pd = adapter.create_pd()
    cq = adapter.create_cq(cq_depth)
    qp = pd.create_qp(
        cq,
        cq,
        receive_queue_depth=queue_depth,
        initiator_queue_depth=queue_depth,
        max_receive_sge=max_sge,
        max_initiator_sge=max_sge,
    )
    return End(adapter, pd, cq, pd.register_mr(bytearray(8192), EVERY_RIGHT), qp, adapter.create_connector())


def sibling(end: End) -> tuple[Qp, Cq]:
    """Another QP of the same PD, with a CQ of its own."""
    cq = end.adapter.create_cq(64)
    return end.pd.create_qp(cq, cq, receive_queue_depth=16, initiator_queue_depth=16), cq


def still_works(sender: End, receiver: End) -> None:
    """A message from `sender` reaches `receiver`; their CQs are empty before and after."""
    receiver.qp.receive(receiver.mr[0:16], context="still works")
    sender.qp.send(b"still works", context="still works")
    arrived, sent = one(receiver.cq), one(sender.cq)
    assert (arrived.request_context, arrived.status, arrived.bytes_transferred) == ("still works", Status.SUCCESS, 11)
    assert (sent.request_context, sent.status) == ("still works", Status.SUCCESS)


def ended(end: End) -> Disconnect:
    """How the connection ended for this end."""
    return end.connector.disconnected.result(PATIENCE_S)


def fault_of(end: End) -> Fault:
    """The fault that ended the connection, as this end knows it."""
    error = ended(end).error
    assert error is not None
    assert error.fault is not None
    return error.fault


def triple(fault: Fault) -> tuple[int, int, int]:
    return fault.layer, fault.etype, fault.code


def statistics(end: End) -> AdapterStatistics:
    return end.adapter.query_statistics()


# ---- memory objects


@dataclass(frozen=True)
class FastRegister:
    """A fast-register region and what it is mapped to."""

    mr: Mr
    buffer: bytearray
    lam: LogicalAddressMapping

    @property
    def token(self) -> RemoteToken:
        return self.mr.remote_token


def fast_region(
    end: End, flags: int | None = FAST_RIGHTS, *, size: int = 4096, pages: int = 4, remote_access: bool = True
) -> FastRegister:
    """A fast-register region over a buffer of its own; with `flags` None it is initialised only."""
    mr = end.pd.create_mr(fast_register=True)
    mr.initialize_fast_register(pages, remote_access).result(PATIENCE_S)
    buffer = bytearray(size)
    lam = end.adapter.build_lam(buffer).result(PATIENCE_S)
    if flags is not None:
        end.qp.fast_register(mr, lam, flags=flags)
        succeed(end.cq)
    return FastRegister(mr, buffer, lam)


def window(end: End, flags: int = FAST_RIGHTS, mr: Mr | None = None) -> Mw:
    """A window bound to all of `mr`, or of the end's own region."""
    mw = end.pd.create_mw()
    end.qp.bind(end.mr if mr is None else mr, mw, flags=flags & FAST_RIGHTS)
    succeed(end.cq)
    return mw


# ---- accounts of what was posted


@dataclass
class Ledger:
    """What was posted on one QP whose queues share one CQ, in order per queue; each request's context is its number."""

    end: End
    posted_receives: list[int] = field(default_factory=list)
    posted_requests: list[int] = field(default_factory=list)
    silent: set[int] = field(default_factory=set)
    results: list[Result] = field(default_factory=list)

    @property
    def next_number(self) -> int:
        return len(self.posted_receives) + len(self.posted_requests)

    def receive(self, length: int = 64, at: int = 0) -> None:
        number = self.next_number
        self.end.qp.receive(self.end.mr[at : at + length], context=number)
        self.posted_receives.append(number)

    def post(self, request: Callable[[int, int], None], flags: int = 0) -> int:
        """Call `request(flags, context)`, which posts one initiator request; raises what it raises."""
        number = self.next_number
        request(flags, number)
        self.posted_requests.append(number)
        if flags & OpFlag.SILENT_SUCCESS:
            self.silent.add(number)
        return number

    def send(self, data: bytes = b"x", flags: int = 0) -> int:
        return self.post(lambda bits, number: self.end.qp.send(data, flags=bits, context=number), flags)

    def drain(self) -> list[Result]:
        """Take what is there."""
        found = self.end.cq.get_results()
        self.results += found
        return found

    def close_account(self) -> list[Result]:
        """With the connection over: collect every result, and prove that none is missing, doubled or out of order.

        A receive can always be posted; on a QP whose connection is over it is flushed at once, behind all others.
        """
        last = object()
        self.end.qp.receive([], context=last)
        while not any(result.request_context is last for result in self.results):
            self.results += self.end.cq.wait(PATIENCE_S)
        self.drain()
        self.results = [result for result in self.results if result.request_context is not last]
        self.check()
        return self.results

    def check(self) -> None:
        arrived = receives(self.results)
        assert contexts(arrived) == self.posted_receives
        _in_turn(arrived)

        finished = initiators(self.results)
        told = {result.request_context for result in finished}
        assert contexts(finished) == [n for n in self.posted_requests if n in told or n not in self.silent]
        assert not [r for r in finished if r.request_context in self.silent and r.status is Status.SUCCESS]
        _in_turn([r for r in finished if r.type in (OperationType.SEND, OperationType.WRITE)])
        _in_turn([r for r in finished if r.type is OperationType.READ])
        assert len(_culprits(finished)) <= 1


def _in_turn(results: Sequence[Result]) -> None:
    """Successes, then failures only, all but one of them CANCELLED (R-COMP-6, R-FLUSH-7).

    True within one kind that is carried out in order; a send behind an unfinished read may be finished before it.
    """
    statuses = [result.status for result in results]
    while statuses and statuses[0] is Status.SUCCESS:
        statuses.pop(0)
    assert Status.SUCCESS not in statuses
    assert len(_culprits(results)) <= 1


def _culprits(results: Sequence[Result]) -> list[Result]:
    return [result for result in results if result.status not in (Status.SUCCESS, Status.CANCELLED)]
