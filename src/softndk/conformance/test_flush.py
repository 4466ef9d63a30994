"""Flush: what is cancelled, what is not, and what is possible afterwards."""

import pytest

from softndk import ConnectionInvalid, OperationType, OpFlag, Status
from softndk.conformance.bench import (
    PATIENCE_S,
    Bench,
    Pair,
    callbacks_have_run,
    contexts,
    drained,
    ended,
    refused,
    statuses,
    still_works,
    succeed,
    take,
)
from softndk.conformance.providers import Side


@pytest.mark.rules("R-FLUSH-1", "R-FLUSH-2", "R-COMP-2", "R-COMP-4", "R-FLUSH-7")
def test_a_flush_cancels_both_queues_in_their_order(bench: Bench) -> None:
    a, b = bench.pair()
    bench.lose(b, silently=True)
    for number in range(6):  # the first three are under way, the others wait for them
        a.qp.receive(a.mr[0:8], context=("receive", number))
        flags = OpFlag.SILENT_SUCCESS if number < 3 else OpFlag.SILENT_SUCCESS | OpFlag.READ_FENCE
        a.qp.read(a.mr[0:8], b.mr.address, b.mr.remote_token, flags=flags, context=("read", number))
    a.qp.flush()
    results = drained(a)
    assert set(statuses(results)) == {Status.CANCELLED}
    receives = [result for result in results if result.is_receive]
    others = [result for result in results if not result.is_receive]
    assert contexts(receives) == [("receive", number) for number in range(6)]
    assert contexts(others) == [("read", number) for number in range(6)]
    assert {result.type for result in others} == {OperationType.READ}


@pytest.mark.rules("R-FLUSH-1")
def test_a_flush_without_a_connection_cancels_and_leaves_the_queue_pair_usable(bench: Bench) -> None:
    a, b = bench.end(), bench.end(side=Side.PASSIVE)
    a.qp.receive(a.mr[0:8], context="before")
    a.qp.flush()
    (result,) = take(a.cq, 1)
    assert (result.status, result.request_context) == (Status.CANCELLED, "before")
    still_works(bench.connect(a, b))


@pytest.mark.rules("R-FLUSH-3")
def test_other_queue_pairs_on_the_same_queue_are_left_alone(bench: Bench) -> None:
    passive = bench.adapter(Side.PASSIVE)
    cq = passive.create_cq(64)
    first, second = (bench.connect(bench.end(), bench.end(passive, cq=cq)) for _ in range(2))
    for pair, name in ((first, "flushed"), (second, "kept")):
        pair.b.qp.receive(pair.b.mr[0:16], context=name)
    first.b.qp.flush()
    assert contexts(take(cq, 1)) == ["flushed"]
    assert cq.get_results() == []
    second.a.qp.send(b"still there")
    (result,) = succeed(cq)
    assert result.request_context == "kept"


@pytest.mark.rules("R-FLUSH-7", "R-COMP-4")
def test_what_had_finished_keeps_its_status(both: Pair) -> None:
    a, b = both
    for number in range(4):
        b.qp.receive(b.mr[0:8], context=number)
    for number in range(2):
        a.qp.send(b"x", context=number)
    succeed(a.cq, 2)
    while len(seen := b.cq.wait(PATIENCE_S, max_results=1)) != 1:
        pytest.fail(f"{seen}")
    b.qp.flush()
    results = seen + take(b.cq, 3)
    assert contexts(results) == [0, 1, 2, 3]
    first, *rest = statuses(results)
    assert first is Status.SUCCESS
    assert rest[1:] == [Status.CANCELLED] * 2


@pytest.mark.rules("R-FLUSH-9", "A-3", "R-COMP-1")
def test_after_a_flush_posts_succeed_and_are_cancelled_and_the_connection_is_over(both: Pair) -> None:
    a, b = both
    a.qp.flush()
    for end in both:
        assert not ended(end).graceful
    a.qp.send(b"later", context="send", flags=OpFlag.SILENT_SUCCESS)
    a.qp.receive(a.mr[0:8], context="receive")
    a.qp.read(a.mr[0:8], b.mr.address, b.mr.remote_token, context="read", flags=OpFlag.DEFER)
    results = take(a.cq, 3)
    assert set(contexts(results)) == {"send", "receive", "read"}
    assert set(statuses(results)) == {Status.CANCELLED}
    a.connector.close().result(PATIENCE_S)
    with refused(ConnectionInvalid, Status.CONNECTION_INVALID):
        a.qp.send(b"even later")


@pytest.mark.rules("R-FLUSH-5", "R-DISC-3")
def test_a_graceful_disconnect_flushes_what_is_left(both: Pair) -> None:
    for end in both:
        for number in range(2):
            end.qp.receive(end.mr[0:8], context=number)
    pendings = [end.connector.disconnect() for end in both]
    for pending in pendings:
        pending.result(PATIENCE_S)
    for end in both:
        results = take(end.cq, 2)
        assert (contexts(results), set(statuses(results))) == ([0, 1], {Status.CANCELLED})


@pytest.mark.rules("R-FLUSH-5")
def test_the_close_of_the_connector_flushes(both: Pair) -> None:
    a, _ = both
    a.qp.receive(a.mr[0:8], context="posted")
    a.connector.close().result(PATIENCE_S)
    assert contexts(take(a.cq, 1)) == ["posted"]


@pytest.mark.rules("R-FLUSH-6", "R-DEV-4", "A-2")
def test_the_graceful_notice_of_the_peer_flushes_nothing(both: Pair, bench: Bench) -> None:
    a, b = both
    if bench.provider.choices.notice_flushes:
        pytest.skip("the provider flushes for the peer's notice, which decision A-2 leaves open")
    b.qp.receive(b.mr[0:8], context="posted")
    disconnecting = a.connector.disconnect()
    assert ended(b).graceful
    callbacks_have_run(b.adapter)
    assert b.cq.get_results() == []
    b.qp.flush()
    assert contexts(take(b.cq, 1)) == ["posted"]
    disconnecting.exception(PATIENCE_S)


@pytest.mark.rules("A-2", "R-FLUSH-5", "R-DEV-1", "R-IW-2")
def test_a_lost_connection_flushes_everything_and_is_told(both: Pair, bench: Bench) -> None:
    a, b = both
    for end in both:
        end.qp.receive(end.mr[0:8], context="posted")
    bench.lose(b)
    results = take(a.cq, 1)
    assert (contexts(results), statuses(results)) == (["posted"], [Status.CANCELLED])
    how = ended(a)
    assert not how.graceful
    assert how.error is not None
    assert how.error.status is Status.CONNECTION_RESET
