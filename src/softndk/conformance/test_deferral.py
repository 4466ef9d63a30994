"""Deferred processing."""

from typing import Any

import pytest

from softndk import AccessViolation, DataOverrun, LogicalAddressMapping, Mr, OpFlag, QueueFull, Status
from softndk.conformance.bench import (
    PATIENCE_S,
    Bench,
    End,
    Pair,
    contexts,
    delivered,
    drained,
    ended,
    refused,
    statuses,
    succeed,
    take,
)

DEFER, READ = OpFlag.DEFER, OpFlag.ALLOW_REMOTE_READ


def region_of(end: End, *, remote: bool = True) -> tuple[Mr, LogicalAddressMapping]:
    """A fast-register region and pages for it."""
    mr = end.pd.create_mr(fast_register=True)
    mr.initialize_fast_register(1, remote).result(PATIENCE_S)
    return mr, end.adapter.build_lam(bytearray(8)).result(PATIENCE_S)


def flat(lam: LogicalAddressMapping) -> dict[str, Any]:
    """The first octet of a mapping, with any base."""
    return {"pages": lam.pages[:1], "fbo": lam.fbo, "length": 1, "base_address": lam.fbo}


@pytest.mark.rules("R-DEFER-1", "R-DEFER-2", "R-DEFER-5", "R-WR-13", "R-WR-14")
def test_all_seven_requests_may_be_deferred_and_the_eighth_starts_them(both: Pair, bench: Bench) -> None:
    a, b = both
    token = b.mr.remote_token
    theirs = bench.fast_region(b)
    mr, lam = region_of(a)
    window = a.pd.create_mw()
    for _ in range(3):
        b.qp.receive(b.mr[0:8])
    a.qp.send(b"1", flags=DEFER, context="send")
    a.qp.send_and_invalidate(b"2", theirs.token, flags=DEFER, context="send_and_invalidate")
    a.qp.read(a.mr[0:8], b.mr.address, token, flags=DEFER, context="read")
    a.qp.write(b"written", b.mr.address + 100, token, flags=DEFER, context="write")
    a.qp.fast_register(mr, **flat(lam), flags=DEFER | READ, context="fast_register")
    a.qp.bind(a.mr, window, flags=DEFER | READ, context="bind")
    a.qp.invalidate(window, flags=DEFER, context="invalidate")
    a.qp.send(b"3", context="last")
    results = succeed(a.cq, 8)
    assert contexts(results) == [
        *("send", "send_and_invalidate", "read", "write", "fast_register", "bind", "invalidate"),
        "last",
    ]
    assert [result.bytes_transferred for result in succeed(b.cq, 3)] == [1, 1, 1]
    assert b.content(7, 100) == b"written"


@pytest.mark.rules("R-DEFER-3", "R-DEFER-6", "R-DEFER-2")
def test_when_the_second_fast_register_fails_in_the_call_the_first_one_runs(both: Pair) -> None:
    a, b = both
    good, lam = region_of(a)
    bad, other = region_of(a, remote=False)
    a.qp.fast_register(good, **flat(lam), flags=DEFER | READ, context="good")
    with refused(AccessViolation, Status.ACCESS_VIOLATION):
        a.qp.fast_register(bad, **flat(other), flags=DEFER | READ, context="bad")
    assert contexts(succeed(a.cq)) == ["good"]
    assert a.cq.get_results() == []
    b.qp.read(b.mr[0:1], lam.fbo, good.remote_token)
    succeed(b.cq)


@pytest.mark.rules("R-DEFER-3")
def test_any_post_that_fails_starts_what_was_deferred(both: Pair) -> None:
    a, b = both
    for number in range(3):
        b.qp.receive(b.mr[0:8])
        a.qp.send(b"x", flags=DEFER, context=number)
    with refused(DataOverrun, Status.DATA_OVERRUN):
        a.qp.send([a.mr[0:1]] * 5)
    assert contexts(succeed(a.cq, 3)) == [0, 1, 2]
    succeed(b.cq, 3)


@pytest.mark.rules("R-DEFER-7", "R-WR-8", "R-DEFER-3")
def test_a_full_queue_strands_nothing(bench: Bench) -> None:
    a, b = bench.pair(queue_depth=3)
    for number in range(3):
        b.qp.receive(b.mr[0:8])
        a.qp.send(b"x", flags=DEFER, context=number)
    assert contexts(succeed(a.cq, 3)) == [0, 1, 2]
    succeed(b.cq, 3)


@pytest.mark.rules("R-DEFER-7", "R-WR-8")
def test_deferred_requests_count_for_the_depth(bench: Bench) -> None:
    """Behind a fence that waits for a deaf peer's answer nothing can finish."""
    a, b = bench.pair(queue_depth=3)
    bench.lose(b, silently=True)
    a.qp.read(a.mr[0:8], b.mr.address, b.mr.remote_token)
    for _ in range(2):
        a.qp.write([], 0, b.mr.remote_token, flags=DEFER | OpFlag.READ_FENCE)
    with refused(QueueFull, Status.NO_MORE_ENTRIES):
        a.qp.write([], 0, b.mr.remote_token, flags=DEFER)
    a.qp.flush()
    assert len(drained(a)) == 3


@pytest.mark.rules("R-DEFER-7", "R-FLUSH-1", "R-COMP-2")
@pytest.mark.parametrize("how", ["flush", "close the connector", "close the queue pair"])
def test_deferred_requests_are_flushed_like_others(both: Pair, how: str) -> None:
    a, b = both
    for number in range(3):
        a.qp.write(b"x", b.mr.address, b.mr.remote_token, flags=DEFER | OpFlag.SILENT_SUCCESS, context=number)
    if how == "flush":
        a.qp.flush()
    else:
        a.connector.close().result(PATIENCE_S)
        if how == "close the queue pair":
            a.qp.close().result(PATIENCE_S)
    results = a.cq.get_results()
    told = [result.request_context for result in results if result.status is Status.CANCELLED]
    assert told == list(range(3 - len(told), 3)), "silent ones that had started by then are not told"


@pytest.mark.rules("R-DEFER-7", "R-DISC-2")
def test_a_disconnect_sends_what_was_deferred(both: Pair) -> None:
    a, b = both
    b.qp.receive(b.mr[0:8])
    a.qp.send(b"last one", flags=DEFER, context="deferred")
    disconnecting = a.connector.disconnect()
    assert contexts(succeed(a.cq)) == ["deferred"]
    succeed(b.cq)
    assert b.content(8) == b"last one"
    assert ended(b).graceful
    b.connector.disconnect().result(PATIENCE_S)
    disconnecting.result(PATIENCE_S)


@pytest.mark.rules("R-DEFER-7", "R-COMP-4")
def test_deferral_changes_no_order(both: Pair) -> None:
    a, b = both
    for number in range(6):
        b.qp.receive(b.mr[number * 8 : number * 8 + 8], context=number)
    for number in range(6):
        a.qp.send(bytes([65 + number]), flags=DEFER if number % 3 else 0, context=number)
    delivered_results = delivered(a)
    assert contexts(delivered_results) == list(range(6))
    assert contexts(succeed(b.cq, 6)) == list(range(6))
    assert b.content(48)[::8] == b"ABCDEF"


@pytest.mark.rules("R-DEFER-2", "R-COMP-1")
def test_a_deferred_request_that_fails_gives_its_result(both: Pair) -> None:
    a, _ = both
    mr, lam = region_of(a)
    a.qp.fast_register(mr, **flat(lam), flags=DEFER | READ)
    a.qp.fast_register(mr, **flat(lam), flags=DEFER | READ)
    a.qp.send([])
    results = take(a.cq, 3)
    assert statuses(results) == [Status.SUCCESS, Status.INVALID_DEVICE_REQUEST, Status.CANCELLED]
