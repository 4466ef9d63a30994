"""The deferred processing scheme (R-DEFER-1 to -8).

The flag is a hint: the provider may start a deferred request at any time. So nothing here expects a request to be held
back; what is proved is that it runs when it must, in its place, and that its result comes.
"""

from collections.abc import Callable

import pytest

from softndk import (
    AccessViolation,
    BufferOverflow,
    DataOverrun,
    InvalidHandle,
    InvalidParameter,
    InvalidState,
    NdkError,
    OperationType,
    OpFlag,
    RemoteToken,
    Status,
    open_adapter,
)
from softndk.testing import End, Pair, kill
from softndk.wire.rdmap import Opcode
from tests.ndk.ends import (
    FAST_RIGHTS,
    PATIENCE_S,
    Ledger,
    connect,
    contexts,
    ended,
    fast_region,
    loose_end,
    one,
    sibling,
    still_works,
    succeed,
    take,
    window,
)
from tests.ndk.raw_peer import raw_server

DEFER = OpFlag.DEFER.value
UNKNOWN = RemoteToken(0x0BAD_0100)

Post = Callable[[End, End, int, object], None]


def _bind(a: End, b: End, flags: int, context: object) -> None:
    a.qp.bind(a.mr, a.pd.create_mw(), flags=flags | OpFlag.ALLOW_REMOTE_READ, context=context)


def _fast_register(a: End, b: End, flags: int, context: object) -> None:
    target = fast_region(a, None)
    a.qp.fast_register(target.mr, target.lam, flags=flags | FAST_RIGHTS, context=context)


def _invalidate(a: End, b: End, flags: int, context: object) -> None:
    a.qp.invalidate(window(a), flags=flags, context=context)


SEVEN_REQUESTS: dict[OperationType, Post] = {
    OperationType.SEND: lambda a, b, flags, context: a.qp.send(b"x", flags=flags, context=context),
    OperationType.WRITE: lambda a, b, flags, context: a.qp.write(
        b"x", b.mr.address, b.mr.remote_token, flags=flags, context=context
    ),
    OperationType.READ: lambda a, b, flags, context: a.qp.read(
        a.mr[0:8], b.mr.address, b.mr.remote_token, flags=flags, context=context
    ),
    OperationType.BIND: _bind,
    OperationType.FAST_REGISTER: _fast_register,
    OperationType.INVALIDATE: _invalidate,
}
PARAMETERS = [pytest.param(kind, post, id=kind.name.lower()) for kind, post in SEVEN_REQUESTS.items()]


# ---- who may be deferred, and what starts it


@pytest.mark.rules("R-DEFER-1", "R-DEFER-2")
@pytest.mark.parametrize(("kind", "post"), PARAMETERS)
def test_every_initiator_request_may_be_deferred_and_gives_its_one_result(
    both: Pair, kind: OperationType, post: Post
) -> None:
    a, b = both
    for _ in range(2):
        b.qp.receive(b.mr[0:8])
    post(a, b, DEFER, "deferred")
    a.qp.send([], context="the end of the chain")
    deferred, last = take(a.cq, 2)
    assert (deferred.request_context, deferred.type, deferred.status) == ("deferred", kind, Status.SUCCESS)
    assert last.request_context == "the end of the chain"
    assert a.cq.get_results() == []


def test_a_deferred_send_and_invalidate_invalidates(both: Pair) -> None:
    a, b = both
    token = window(b).remote_token
    for _ in range(2):
        b.qp.receive(b.mr[0:8])
    a.qp.send_and_invalidate(b"x", token, flags=DEFER)
    a.qp.send([])
    assert [r.invalidated_token for r in take(b.cq, 2)] == [token, None]


@pytest.mark.rules("R-DEFER-5")
@pytest.mark.parametrize(("kind", "post"), PARAMETERS)
def test_any_request_without_the_flag_starts_everything_before_it(both: Pair, kind: OperationType, post: Post) -> None:
    a, b = both
    for _ in range(4):
        b.qp.receive(b.mr[0:8])
    if kind is OperationType.INVALIDATE:
        target = window(a)
        a.qp.send(b"1", flags=DEFER, context=1)
        a.qp.invalidate(target, context=2)
    else:
        a.qp.send(b"1", flags=DEFER, context=1)
        post(a, b, 0, 2)
    assert contexts(take(a.cq, 2)) == [1, 2]


@pytest.mark.rules("R-DEFER-7")
def test_a_chain_runs_in_posting_order(both: Pair) -> None:
    a, b = both
    for number in range(20):
        b.qp.receive(b.mr[0:8], context=number)
    for number in range(19):
        a.qp.send(bytes([number]), flags=DEFER, context=number)
    a.qp.send(b"\x13", context=19)
    assert contexts(take(b.cq, 20)) == list(range(20))
    assert contexts(take(a.cq, 20)) == list(range(20))


@pytest.mark.rules("R-WR-14", "R-TOK-2")
def test_fast_register_deferred_then_a_send_that_carries_its_token(both: Pair) -> None:
    """The documented pattern: one doorbell for both, the token is good when the message is there (R-WR-14)."""
    a, b = both
    target = fast_region(a, None)
    b.qp.receive(b.mr[0:8])
    a.qp.fast_register(target.mr, target.lam, flags=FAST_RIGHTS | DEFER | OpFlag.SILENT_SUCCESS)
    a.qp.send(target.token.to_bytes(4, "big"))
    succeed(b.cq)
    token = RemoteToken(int.from_bytes(b.mr.view[:4], "big"))
    b.qp.write(b"written", target.mr.address, token)
    succeed(b.cq)
    a.qp.receive(a.mr[0:8])
    b.qp.send([])
    succeed(a.cq, 2)
    assert target.buffer[:7] == b"written"


@pytest.mark.rules("R-COMP-1")
def test_silent_and_deferred_gives_no_result(both: Pair) -> None:
    a, b = both
    for _ in range(2):
        b.qp.receive(b.mr[0:8])
    a.qp.send(b"1", flags=DEFER | OpFlag.SILENT_SUCCESS)
    a.qp.send(b"2", context="told")
    assert one(a.cq).request_context == "told"
    succeed(b.cq, 2)


@pytest.mark.rules("R-DEFER-7", "R-WR-11")
def test_fences_work_in_a_chain() -> None:
    with raw_server() as (peer, end):
        end.qp.read(end.mr[0:4], 0, UNKNOWN, flags=DEFER)
        end.qp.send(b"fenced", flags=DEFER | OpFlag.READ_FENCE)
        end.qp.send(b"last")
        read = peer.read_request()
        peer.send_read_request(1, end.mr.remote_token, end.mr.address)
        peer.read_tagged(Opcode.READ_RESPONSE)
        peer.answer(read, b"1111")
        assert peer.read_untagged(Opcode.SEND)[1] == b"fenced"
        assert peer.read_untagged(Opcode.SEND)[1] == b"last"


# ---- a post that fails starts what was deferred before it


Failure = tuple[type[NdkError] | type[TypeError], Callable[[End], None]]
FAILURES: dict[str, Failure] = {
    "unknown flags": (InvalidParameter, lambda a: a.qp.send(b"x", flags=0x400)),
    "too many SGEs": (DataOverrun, lambda a: a.qp.send([a.mr[0:1]] * 5)),
    "too much inline data": (BufferOverflow, lambda a: a.qp.send(bytes(257))),
    "not an SGL": (TypeError, lambda a: a.qp.send([b"x"])),  # type: ignore[list-item]
    "flags of a wrong type": (TypeError, lambda a: a.qp.send(b"x", flags="DEFER")),  # type: ignore[arg-type]
    "a window without rights": (InvalidParameter, lambda a: a.qp.bind(a.mr, a.pd.create_mw(), flags=0)),
    "a window outside its region": (
        AccessViolation,
        lambda a: a.qp.bind(a.mr, a.pd.create_mw(), a.mr.address, 8193, flags=OpFlag.ALLOW_REMOTE_READ),
    ),
    "invalid already": (InvalidState, lambda a: a.qp.invalidate(a.pd.create_mw())),
    "an object of another PD": (
        InvalidParameter,
        lambda a: a.qp.bind(a.mr, a.adapter.create_pd().create_mw(), flags=OpFlag.ALLOW_REMOTE_READ),
    ),
    "a token out of range": (InvalidParameter, lambda a: a.qp.write(b"x", 0, RemoteToken(-1))),
}


@pytest.mark.rules("R-DEFER-6", "R-DEFER-3")
def test_when_the_second_fast_register_fails_inline_the_first_runs_and_completes(both: Pair) -> None:
    """The example of the page (R-DEFER-6): no send follows."""
    a, b = both
    first, second = fast_region(a, None), fast_region(a, None, remote_access=False)
    a.qp.fast_register(first.mr, first.lam, flags=FAST_RIGHTS | DEFER, context="first")
    with pytest.raises(AccessViolation):
        a.qp.fast_register(second.mr, second.lam, flags=FAST_RIGHTS | DEFER, context="second")
    result = one(a.cq)
    assert (result.request_context, result.type, result.status) == (
        "first",
        OperationType.FAST_REGISTER,
        Status.SUCCESS,
    )
    b.qp.write(b"works", first.mr.address, first.token)
    succeed(b.cq)
    a.qp.receive(a.mr[0:8])
    still_works_back(b, a)
    assert first.buffer[:5] == b"works"


def still_works_back(sender: End, receiver: End) -> None:
    """`receiver` has a receive posted."""
    sender.qp.send([])
    succeed(sender.cq)
    succeed(receiver.cq)


@pytest.mark.rules("R-DEFER-3")
@pytest.mark.parametrize("name", FAILURES)
def test_a_post_that_fails_inline_starts_what_was_deferred_before_it(both: Pair, name: str) -> None:
    a, b = both
    error, failing = FAILURES[name]
    for _ in range(2):
        b.qp.receive(b.mr[0:8])
    a.qp.send(b"1", flags=DEFER, context=1)
    a.qp.send(b"2", flags=DEFER, context=2)
    with pytest.raises(error):
        failing(a)
    assert contexts(take(a.cq, 2)) == [1, 2]
    assert contexts(take(b.cq, 2)) == [None, None]
    assert a.cq.get_results() == []  # and nothing for the one that failed
    still_works(a, b)


@pytest.mark.rules("R-DEFER-7")
def test_a_full_queue_starts_what_was_deferred() -> None:
    with open_adapter() as active, open_adapter() as passive:
        a, b = loose_end(active, queue_depth=4), loose_end(passive)
        connect(active, a.qp, passive, b.qp)
        for _ in range(4):
            b.qp.receive(b.mr[0:8])
        for number in range(4):  # deferred requests count for the depth
            a.qp.send(b"x", flags=DEFER, context=number)
        assert contexts(take(a.cq, 4)) == [0, 1, 2, 3]
        succeed(b.cq, 4)


def test_a_post_on_a_closing_queue_pair_strands_nothing(both: Pair) -> None:
    a, b = both
    qp, _ = sibling(b)
    other, other_cq = sibling(a)
    connect(a.adapter, other, b.adapter, qp)
    qp.receive(b.mr[0:8])
    other.send(b"x", flags=DEFER, context="deferred")
    closing = other.close()
    with pytest.raises(InvalidHandle):
        other.send(b"y")
    assert not closing.done()
    assert other_cq.wait(PATIENCE_S)[0].request_context == "deferred"


# ---- the other ways out


@pytest.mark.rules("R-DEFER-7")
def test_deferred_requests_are_flushed_like_others(both: Pair) -> None:
    a, _ = both
    account = Ledger(a)
    for _ in range(3):
        account.send(flags=DEFER)
    a.qp.flush()
    results = account.close_account()
    assert [r.status for r in results] == [Status.CANCELLED] * 3


@pytest.mark.rules("R-COMP-2")
def test_silent_deferred_requests_are_told_when_flushed(both: Pair) -> None:
    a, _ = both
    account = Ledger(a)
    for _ in range(3):
        account.send(flags=DEFER | OpFlag.SILENT_SUCCESS)
    a.qp.flush()
    assert [r.status for r in account.close_account()] == [Status.CANCELLED] * 3


def test_a_reset_flushes_deferred_requests(both: Pair) -> None:
    a, b = both
    account = Ledger(a)
    account.send(flags=DEFER)
    kill(b.adapter, "reset")
    assert not ended(a).graceful
    assert [r.status for r in account.close_account()] == [Status.CANCELLED]


@pytest.mark.rules("R-DEFER-7")
def test_the_disconnect_starts_deferred_requests(both: Pair) -> None:
    a, b = both
    b.qp.receive(b.mr[0:8], context="arrived")
    account = Ledger(a)
    account.send(flags=DEFER)
    going = a.connector.disconnect()
    assert one(b.cq).request_context == "arrived"
    b.connector.disconnect().result(PATIENCE_S)
    going.result(PATIENCE_S)
    assert [r.status for r in account.close_account()] == [Status.SUCCESS]


def test_closing_the_connector_strands_nothing(both: Pair) -> None:
    a, _ = both
    account = Ledger(a)
    for _ in range(3):
        account.send(flags=DEFER)
    a.connector.close().result(PATIENCE_S)
    assert len(account.close_account()) == 3


@pytest.mark.rules("R-FLUSH-6")
def test_the_peers_disconnect_does_not_flush_deferred_requests(both: Pair) -> None:
    a, b = both
    account = Ledger(a)
    account.send(flags=DEFER)
    b.connector.disconnect()
    assert ended(a).graceful
    assert account.drain() == [] or account.results[0].status is Status.SUCCESS
    a.connector.disconnect().result(PATIENCE_S)
    account.close_account()
