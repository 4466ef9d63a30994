"""Reads: their sinks, their limits, and the local invalidation."""

import pytest

from softndk import InvalidState, MrFlag, OpFlag, Sge, Status
from softndk.conformance.bench import (
    PATIENCE_S,
    Bench,
    Pair,
    contexts,
    drained,
    ended,
    one,
    refused,
    statuses,
    still_works,
    succeed,
    take,
)
from softndk.conformance.providers import Feature, Side


@pytest.mark.rules("R-READ-2", "R-READ-3", "R-COMP-7")
@pytest.mark.parametrize("length", [1, 1000, 8192])
def test_a_read_brings_as_many_octets_as_its_sges_have(both: Pair, length: int) -> None:
    a, b = both
    b.fill(bytes(index % 253 for index in range(8192)))
    a.qp.read(a.mr[0:length], b.mr.address + 8192 - length, b.mr.remote_token)
    succeed(a.cq)
    assert a.content(length) == b.content(length, 8192 - length)
    assert a.content(8192 - length, length) == bytes(8192 - length)


@pytest.mark.rules("R-READ-2", "R-SINK-6", "R-WR-6")
@pytest.mark.requires(Feature.FREE_READ_SINK)
def test_a_sink_may_have_several_sges_of_several_regions(both: Pair) -> None:
    a, b = both
    b.fill(b"0123456789" * 300)
    other = bytearray(2000)
    mr = a.pd.register_mr(other, MrFlag.ALLOW_LOCAL_WRITE)
    a.qp.read([a.mr[0:7], mr[0:2000], a.mr[50:50], a.mr[100:193]], b.mr.address, b.mr.remote_token)
    succeed(a.cq)
    source = b.content(2100)
    assert a.content(7) == source[:7]
    assert other == source[7:2007]
    assert a.content(93, 100) == source[2007:2100]


@pytest.mark.rules("R-SINK-2", "R-SINK-6", "R-READ-6", "R-WR-15")
@pytest.mark.requires(Feature.FREE_READ_SINK)
def test_a_sink_needs_local_write_and_nothing_else(both: Pair) -> None:
    a, b = both
    b.fill(b"readable")
    target = bytearray(8)
    mr = a.pd.register_mr(target, MrFlag.ALLOW_LOCAL_WRITE)
    a.qp.read(mr[0:8], b.mr.address, b.mr.remote_token)
    succeed(a.cq)
    assert target == b"readable"
    untouched = bytearray(8)
    source_only = a.pd.register_mr(untouched, MrFlag.ALLOW_LOCAL_READ)
    a.qp.read(source_only[0:8], b.mr.address, b.mr.remote_token)
    assert one(a.cq).status is Status.ACCESS_VIOLATION
    assert untouched == bytes(8)


@pytest.mark.rules("R-SINK-3", "R-REGMR-5")
def test_the_read_sink_flag_is_taken_at_the_registration(both: Pair) -> None:
    a, b = both
    b.fill(b"readable")
    target = bytearray(8)
    mr = a.pd.register_mr(target, MrFlag.ALLOW_LOCAL_WRITE | MrFlag.RDMA_READ_SINK)
    a.qp.read(mr[0:8], b.mr.address, b.mr.remote_token)
    succeed(a.cq)
    assert target == b"readable"


@pytest.mark.rules("R-READ-4", "R-LIM-2", "R-COMP-4")
@pytest.mark.parametrize("limit", [1, 2, 5])
def test_more_reads_than_the_limit_wait_and_all_are_served(bench: Bench, limit: int) -> None:
    """The peer's adapter ends the connection if one too many is under way."""
    a, b = bench.connect(bench.end(), bench.end(side=Side.PASSIVE), outbound_read_limit=limit)
    assert a.connector.connection_data.outbound_read_limit == limit
    b.fill(bytes(range(200)))
    for number in range(40):
        a.qp.read(a.mr[number : number + 1], b.mr.address + number, b.mr.remote_token, context=number)
    assert contexts(succeed(a.cq, 40)) == list(range(40))
    assert a.content(40) == bytes(range(40))
    still_works(Pair(a, b))


@pytest.mark.rules("R-READ-4")
def test_a_read_over_the_limit_holds_back_what_follows(bench: Bench) -> None:
    """The peer is deaf: the second read waits at the head, and the write behind it cannot get out."""
    a, b = bench.connect(bench.end(), bench.end(side=Side.PASSIVE), outbound_read_limit=1)
    bench.lose(b, silently=True)
    a.qp.write(a.mr[0:8], b.mr.address, b.mr.remote_token, context="before")
    for name in ("under way", "waits"):
        a.qp.read(a.mr[0:8], b.mr.address, b.mr.remote_token, context=name)
    a.qp.write(a.mr[0:8], b.mr.address, b.mr.remote_token, context="behind")
    a.qp.flush()
    results = drained(a)
    assert contexts(results) == ["before", "under way", "waits", "behind"]
    assert statuses(results)[0] is Status.SUCCESS
    assert set(statuses(results)[1:]) == {Status.CANCELLED}


@pytest.mark.rules("R-LIM-4", "R-CONN-5")
def test_with_an_outbound_limit_of_0_no_read_is_taken(bench: Bench) -> None:
    a, b = both = bench.connect(bench.end(), bench.end(side=Side.PASSIVE), outbound_read_limit=0)
    with refused(InvalidState, Status.INVALID_DEVICE_REQUEST):
        a.qp.read(a.mr[0:8], b.mr.address, b.mr.remote_token)
    still_works(both)
    b.qp.read(b.mr[0:8], a.mr.address, a.mr.remote_token)
    succeed(b.cq)


@pytest.mark.rules("R-LIM-4", "R-LIM-2")
def test_with_an_inbound_limit_of_0_the_peer_can_read_nothing(bench: Bench) -> None:
    a, b = bench.connect(bench.end(), bench.end(side=Side.PASSIVE), inbound_read_limit=0)
    with refused(InvalidState, Status.INVALID_DEVICE_REQUEST):
        b.qp.read(b.mr[0:8], a.mr.address, a.mr.remote_token)
    a.qp.read(a.mr[0:8], b.mr.address, b.mr.remote_token)
    succeed(a.cq)


@pytest.mark.rules("A-4", "R-COMP-6")
@pytest.mark.parametrize("what", ["beyond", "no right", "no token"])
def test_a_read_that_the_peer_refuses_has_its_status(both: Pair, bench: Bench, what: str) -> None:
    a, b = both
    choices = bench.provider.choices
    mr = b.pd.register_mr(bytearray(64), MrFlag.ALLOW_REMOTE_WRITE if what == "no right" else 7)
    address = mr.address + (60 if what == "beyond" else 0)
    token = type(mr.remote_token)(mr.remote_token ^ 0x55AA5500) if what == "no token" else mr.remote_token
    a.qp.read(a.mr[0:8], address, token)
    result = one(a.cq)
    assert result.status in (choices.read_beyond if what == "beyond" else choices.read_denied)
    error = result.error
    assert error is not None
    assert error.status is result.status
    assert result.bytes_transferred == 0
    assert ended(a).error is not None


@pytest.mark.rules("R-READ-5")
@pytest.mark.requires(Feature.READ_LOCAL_INVALIDATE)
def test_local_invalidation_is_for_a_fast_register_region_in_the_first_sge(both: Pair) -> None:
    a, b = both
    with refused(InvalidState, Status.INVALID_DEVICE_REQUEST):
        a.qp.read(a.mr[0:8], b.mr.address, b.mr.remote_token, flags=OpFlag.RDMA_READ_LOCAL_INVALIDATE)
    still_works(both)


@pytest.mark.rules("A-13", "R-READ-5")
@pytest.mark.requires(Feature.READ_LOCAL_INVALIDATE)
@pytest.mark.parametrize("octets", [0, 8])
def test_a_region_of_another_pd_cannot_be_invalidated_by_a_read(both: Pair, bench: Bench, octets: int) -> None:
    """Not even where no octet goes into it."""
    a, b = both
    stranger = bench.connect(bench.end(a.adapter), bench.end(b.adapter)).a
    region = bench.fast_region(stranger)
    sgl = [region.mr[0:octets], a.mr[0:8]]
    flags = OpFlag.RDMA_READ_LOCAL_INVALIDATE
    with refused(InvalidState, Status.INVALID_DEVICE_REQUEST):
        a.qp.read(sgl, b.mr.address, b.mr.remote_token, flags=flags)
    still_works(both)
    stranger.qp.invalidate(region.mr)
    succeed(stranger.cq)


@pytest.mark.rules("R-READ-5", "R-INV-3")
@pytest.mark.requires(Feature.READ_LOCAL_INVALIDATE)
def test_after_a_read_with_local_invalidate_the_peer_cannot_use_the_token(both: Pair, bench: Bench) -> None:
    a, b = both
    b.fill(b"readable")
    region = bench.fast_region(a)
    address = region.mr.address
    b.qp.write(b"wr", address, region.token)
    succeed(b.cq)
    a.qp.read(region.mr[0:8], b.mr.address, b.mr.remote_token, flags=OpFlag.RDMA_READ_LOCAL_INVALIDATE)
    succeed(a.cq)
    assert region.buffer[:8] == b"readable"
    b.qp.write(b"overwrote", address, region.token)
    assert not ended(a).graceful
    assert region.buffer[:8] == b"readable"


@pytest.mark.rules("R-COMP-7", "R-DEREG-2")
def test_reads_both_ways_at_once(both: Pair) -> None:
    a, b = both
    a.fill(b"A" * 4096)
    b.fill(b"B" * 4096)
    for _ in range(10):
        for this, other in ((a, b), (b, a)):
            this.qp.read(this.mr[4096:8192], other.mr.address, other.mr.remote_token)
    for end in both:
        succeed(end.cq, 10)
    assert a.content(4096, 4096) == b"B" * 4096
    assert b.content(4096, 4096) == b"A" * 4096


@pytest.mark.rules("R-WR-9", "R-SINK-6")
def test_a_sink_that_is_not_there_is_refused_before_anything_is_asked_of_the_peer(both: Pair) -> None:
    a, b = both
    a.qp.read(Sge(0, 8, a.mr.local_token), b.mr.address, b.mr.remote_token)
    assert statuses(take(a.cq, 1)) == [Status.ACCESS_VIOLATION]
    how = ended(b)
    assert not how.graceful
    assert a.connector.close().result(PATIENCE_S) is None
