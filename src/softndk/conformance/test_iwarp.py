"""What is particular to iWARP. On another technology these cases are skipped."""

import pytest

from softndk import RdmaTechnology, Status
from softndk.conformance.bench import (
    PATIENCE_S,
    Bench,
    End,
    Pair,
    ended,
    failure,
    one,
    statuses,
    succeed,
    take,
)
from softndk.conformance.providers import Side


@pytest.fixture(autouse=True)
def iwarp_only(bench: Bench) -> None:
    if bench.adapter().query_info().rdma_technology is not RdmaTechnology.IWARP:
        pytest.skip("the provider's technology is not iWARP")


@pytest.mark.rules("R-IW-1", "R-PDATA-4")
def test_either_side_may_send_first(bench: Bench) -> None:
    for first in range(2):
        if first and not bench.provider.choices.passive_may_send_first:
            pytest.skip("the provider leaves R-IW-1 to the program")
        pair = bench.pair()
        for end in pair:
            end.qp.receive(end.mr[0:16])
        sender, receiver = pair[first], pair[1 - first]
        sender.qp.send(b"first")
        (result,) = succeed(receiver.cq)
        assert result.bytes_transferred == 5


@pytest.mark.rules("R-IW-2", "R-DEV-1", "A-2")
def test_the_end_of_the_stream_is_graceful_and_a_terminate_or_reset_is_not(bench: Bench) -> None:
    for how, graceful in (("close", True), ("terminate", False), ("reset", False)):
        a, b = bench.pair()
        if how == "close":
            b.connector.close().result(PATIENCE_S)
        elif how == "terminate":
            b.qp.flush()
        else:
            bench.lose(b)
        assert ended(a).graceful is graceful


@pytest.mark.rules("R-IW-3", "A-5")
def test_a_send_that_is_too_large_for_the_receive_succeeds_at_the_sender(both: Pair) -> None:
    a, b = both
    b.qp.receive(b.mr[0:8])
    a.qp.send(a.mr[0:100])
    assert one(a.cq).status is Status.SUCCESS
    assert statuses(take(b.cq, 1)) == [Status.BUFFER_OVERFLOW]


@pytest.mark.rules("R-IW-4", "R-COMPCONN-1", "R-ACCEPT-4")
def test_the_accept_ends_with_the_completion_or_the_refusal_of_the_peer(bench: Bench) -> None:
    active, passive = bench.adapter(), bench.adapter(Side.PASSIVE)
    listener = passive.listen()
    for how in ("complete", "reject", "close"):
        a, b = bench.end(active), bench.end(passive)
        connector = active.create_connector()
        connecting = connector.connect(a.qp, listener.local_address)
        accepting = listener.next_request().result(PATIENCE_S).accept(b.qp)
        connecting.result(PATIENCE_S)
        assert not accepting.done()
        if how == "complete":
            connector.complete_connect().result(PATIENCE_S)
            accepting.result(PATIENCE_S)
        else:
            connector.reject() if how == "reject" else connector.close()
            assert failure(accepting).status in {Status.CONNECTION_REFUSED, Status.CONNECTION_ABORTED}
            check_unharmed(bench, b, listener.local_address)


def check_unharmed(bench: Bench, end: End, address: tuple[str, int]) -> None:
    """The QP of a failed accept may be used again, as nothing was connected (A-18)."""
    assert address
    bench.connect(bench.end(), end)
