"""Writes."""

import pytest

from softndk import OperationType, OpFlag, RemoteToken, Status
from softndk.conformance.bench import (
    Bench,
    Pair,
    callbacks_have_run,
    contexts,
    delivered,
    ended,
    one,
    succeed,
    take,
)
from softndk.conformance.providers import Side


@pytest.mark.rules("R-WRITE-2", "R-WRITE-3", "R-COMP-7")
@pytest.mark.parametrize("length", [1, 1000, 8000])
def test_a_write_stores_where_it_is_told_and_gives_no_result_there(both: Pair, length: int) -> None:
    a, b = both
    a.fill(bytes(index % 247 for index in range(length)))
    a.qp.write(a.mr[0:length], b.mr.address + 100, b.mr.remote_token)
    (result,) = succeed(a.cq)
    assert (result.type, result.bytes_transferred) == (OperationType.WRITE, 0)
    delivered(a)
    assert b.content(length, 100) == a.content(length)
    assert b.content(100) == bytes(100)
    assert b.cq.get_results() == []


@pytest.mark.rules("R-WRITE-3", "R-COMP-4")
def test_the_peer_learns_of_it_by_a_later_message(both: Pair) -> None:
    a, b = both
    for turn in range(30):
        data = bytes([turn]) * 500
        b.qp.receive(b.mr[8000:8008])
        a.fill(data)
        a.qp.write(a.mr[0:500], b.mr.address, b.mr.remote_token, flags=OpFlag.SILENT_SUCCESS)
        a.qp.send(b"written", flags=OpFlag.SILENT_SUCCESS)
        succeed(b.cq)
        assert b.content(500) == data
        delivered(a)


@pytest.mark.rules("R-WRITE-1", "A-15")
@pytest.mark.parametrize("flags", [OpFlag.SILENT_SUCCESS, OpFlag.READ_FENCE, OpFlag.INLINE, OpFlag.DEFER])
def test_the_flags_of_a_write_are_taken(both: Pair, flags: OpFlag) -> None:
    a, b = both
    a.fill(b"written")
    a.qp.write(a.mr[0:7], b.mr.address, b.mr.remote_token, flags=flags)
    results = delivered(a)
    assert len(results) == (flags is not OpFlag.SILENT_SUCCESS)
    assert b.content(7) == b"written"


@pytest.mark.rules("R-WRITE-3", "A-4", "R-MEM-5")
def test_a_refused_write_shows_at_the_latest_at_the_end_of_the_connection(both: Pair) -> None:
    a, b = both
    a.qp.write(b"nowhere", b.mr.address, RemoteToken(0), context="write")
    result = one(a.cq)
    assert result.status in {Status.SUCCESS, Status.CANCELLED, Status.ACCESS_VIOLATION, Status.REMOTE_RESOURCES}
    how = ended(a)
    assert not how.graceful
    assert how.error is not None


@pytest.mark.rules("R-WRITE-3", "R-MEM-6")
def test_a_write_notifies_nobody(bench: Bench) -> None:
    told: list[object] = []
    passive = bench.adapter(Side.PASSIVE)
    cq = passive.create_cq(4, lambda *_: told.append("notified"))
    a, b = bench.connect(bench.end(), bench.end(passive, cq=cq))
    cq.arm()
    for number in range(10):
        a.qp.write(b"x" * 100, b.mr.address, b.mr.remote_token, context=number)
    assert contexts(take(a.cq, 10)) == list(range(10))
    delivered(a)
    callbacks_have_run(passive)
    assert told == []
