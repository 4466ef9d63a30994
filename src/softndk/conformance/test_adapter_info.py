"""The adapter: versions, limits that hold, statistics, several adapters."""

from dataclasses import fields
from typing import Any

import pytest

from softndk import (
    AdapterFlag,
    InvalidParameter,
    NdkVersion,
    NotSupported,
    OpFlag,
    RdmaTechnology,
    Status,
)
from softndk.conformance.bench import (
    PATIENCE_S,
    Bench,
    delivered,
    ended,
    failure,
    one,
    refused,
    still_works,
    succeed,
    take,
)
from softndk.conformance.providers import NEWEST, Feature, Side


@pytest.mark.rules("R-OPEN-1", "R-OPEN-2", "R-OPEN-5", "A-20")
@pytest.mark.parametrize(
    ("asked", "agreed"),
    [
        ((1, 0), (1, 2)),
        ((1, 1), (1, 2)),
        ((1, 2), (1, 2)),
        ((1, 3), None),
        ((2, 0), (2, 1)),
        ((2, 1), (2, 1)),
        ((2, 2), None),
        ((0, 0), None),
        ((3, 0), None),
    ],
)
def test_the_highest_minor_of_the_major_asked_for(
    bench: Bench, asked: tuple[int, int], agreed: tuple[int, int] | None
) -> None:
    if agreed is None:
        with refused(NotSupported, Status.NDIS_BAD_VERSION):
            bench.provider.open_adapter(version=NdkVersion(*asked))
    else:
        assert bench.adapter(version=NdkVersion(*asked)).query_info().version == agreed


@pytest.mark.rules("R-OPEN-3", "R-RESX-1", "R-OPEN-5")
@pytest.mark.parametrize("asked", [NdkVersion(1, 0), NdkVersion(2, 0)])
def test_every_version_that_is_offered_has_all_requests(bench: Bench, asked: NdkVersion) -> None:
    a, b = both = bench.connect(
        bench.end(bench.adapter(version=asked)), bench.end(bench.adapter(Side.PASSIVE, version=asked))
    )
    region = bench.fast_region(b)
    b.qp.receive(b.mr[0:8])
    a.qp.write(b"w", region.mr.address, region.token, flags=OpFlag.DEFER)
    a.qp.send_and_invalidate(b"x", region.token)
    succeed(a.cq, 2)
    (result,) = succeed(b.cq)
    assert result.invalidated_token == region.token
    still_works(both)


@pytest.mark.rules("R-OPEN-5", "R-DEV-5", "R-RESX-2", "R-OPEN-2")
def test_below_2_1_there_are_no_provider_codes(bench: Bench) -> None:
    version = NdkVersion(1, 2)
    a, b = bench.connect(
        bench.end(bench.adapter(version=version)), bench.end(bench.adapter(Side.PASSIVE, version=version))
    )
    b.qp.receive(b.mr[0:8])
    a.qp.send(bytes(20))
    assert one(b.cq).provider_error_code == 0
    for end in (a, b):
        assert ended(end).provider_reason == 0


@pytest.mark.rules("R-DEV-5", "R-RESX-2")
@pytest.mark.requires(Feature.PROVIDER_CODES)
def test_from_2_1_on_failures_may_have_provider_codes_and_successes_have_none(bench: Bench) -> None:
    a, b = bench.pair()
    b.qp.receive(b.mr[0:8])
    b.qp.receive(b.mr[0:8])
    a.qp.send(b"x")
    assert one(a.cq).provider_error_code == one(b.cq).provider_error_code == 0
    a.qp.send(bytes(20))
    failed = one(b.cq)
    assert 0 <= failed.provider_error_code < 1 << 32
    assert 0 <= ended(a).provider_reason < 1 << 32


@pytest.mark.rules("R-OPEN-4")
def test_several_adapters_may_be_open_at_once(bench: Bench) -> None:
    adapters = [bench.adapter(Side.PASSIVE) for _ in range(3)]
    addresses = {adapter.listen().local_address for adapter in adapters}
    assert len(addresses) == 3
    pair = bench.connect(bench.end(adapters[1]), bench.end(adapters[2]))
    still_works(pair)


@pytest.mark.rules("R-OPEN-6", "R-CLOSE-5")
def test_an_adapter_has_a_close_that_waits_for_everything_on_it(bench: Bench) -> None:
    adapter = bench.adapter()
    cq = adapter.create_cq(1)
    pending = adapter.close()
    assert not pending.done()
    cq.close()
    pending.result(PATIENCE_S)
    assert adapter.closed


@pytest.mark.rules("R-QINFO-1", "R-FRINIT-2", "R-WR-6")
def test_the_information_makes_sense(bench: Bench) -> None:
    info = bench.adapter().query_info()
    for field in fields(info):
        value = getattr(info, field.name)
        assert value is not None, field.name
        if isinstance(value, int) and field.name.startswith("max_"):
            assert value >= 0, field.name
    assert info.frmr_page_count >= 16
    assert info.max_read_request_sge <= info.max_initiator_request_sge
    for name in ("initiator_request_sge", "receive_request_sge", "transfer_length", "cq_depth", "registration_size"):
        assert getattr(info, f"max_{name}") > 0
    known = AdapterFlag(0)
    for flag in AdapterFlag:
        known |= flag
    assert not info.adapter_flags & ~known
    assert info.rdma_technology in set(RdmaTechnology) - {RdmaTechnology.UNDEFINED}


LIMITS = {
    "max_receive_queue_depth": "receive_queue_depth",
    "max_initiator_queue_depth": "initiator_queue_depth",
    "max_receive_request_sge": "max_receive_sge",
    "max_initiator_request_sge": "max_initiator_sge",
    "max_inline_data_size": "inline_data_size",
}
"""What limits which parameter of create_qp."""


@pytest.mark.rules("R-QP-1", "R-QINFO-1")
@pytest.mark.parametrize("limit", LIMITS)
def test_a_queue_pair_goes_up_to_the_limits_and_no_further(bench: Bench, limit: str) -> None:
    adapter = bench.adapter()
    pd, cq = adapter.create_pd(), adapter.create_cq(4)
    most = getattr(adapter.query_info(), limit)
    sizes: dict[str, Any] = {"receive_queue_depth": 1, "initiator_queue_depth": 1, LIMITS[limit]: most}
    pd.create_qp(cq, cq, **sizes)
    for wrong in (most + 1, -1):
        with refused(InvalidParameter, Status.INVALID_PARAMETER):
            pd.create_qp(cq, cq, **{**sizes, LIMITS[limit]: wrong})


@pytest.mark.rules("R-QINFO-1", "R-REGMR-4")
def test_no_more_can_be_registered_than_the_adapter_says(bench: Bench) -> None:
    adapter = bench.adapter()
    most = adapter.query_info().max_registration_size
    with refused(InvalidParameter, Status.INVALID_PARAMETER):
        adapter.create_pd().create_mr().register(bytearray(8), 0, length=most + 1)


@pytest.mark.rules("R-QINFO-1")
def test_statistics_count_connections_and_traffic(bench: Bench) -> None:
    active, passive = bench.adapter(), bench.adapter(Side.PASSIVE)
    before = active.query_statistics()
    assert set(vars_of(before).values()) == {0}
    pair = bench.connect(bench.end(active), bench.end(passive))
    a, b = pair
    assert (active.query_statistics().connect, passive.query_statistics().accept) == (1, 1)
    assert active.query_statistics().active_connection == 1
    a.qp.write(a.mr[0:8000], b.mr.address, b.mr.remote_token)
    succeed(a.cq)
    delivered(a)
    sent, received = active.query_statistics(), passive.query_statistics()
    assert sent.rdma_out_octets >= 8000
    assert received.rdma_in_octets >= 8000
    assert sent.rdma_out_frames >= 1
    assert received.rdma_in_frames >= 1
    failure(active.create_connector().connect(bench.end(active).qp, bench.nobody(passive)))
    assert active.query_statistics().connect_failure == 1
    b.qp.flush()
    assert not ended(a).graceful
    after = active.query_statistics()
    assert (after.connection_error, after.active_connection, after.connect) == (1, 0, 1)


@pytest.mark.rules("R-QINFO-1", "R-CQERR-1")
def test_statistics_count_failed_queues(bench: Bench) -> None:
    end = bench.end(cq_depth=1)
    for _ in range(2):
        end.qp.receive([])
    assert end.adapter.query_statistics().cq_error == 0
    end.qp.flush()
    assert end.adapter.query_statistics().cq_error == 1
    assert len(take(end.cq, 1)) == 1


def vars_of(record: object) -> dict[str, int]:
    """The fields of a dataclass with slots."""
    return {field.name: getattr(record, field.name) for field in fields(record)}  # type: ignore[arg-type]


@pytest.mark.rules("R-OPEN-2")
def test_the_newest_version_is_what_an_adapter_is_opened_with_by_default(bench: Bench) -> None:
    assert bench.adapter().query_info().version >= (1, 2)
    assert NEWEST == (2, 1)
