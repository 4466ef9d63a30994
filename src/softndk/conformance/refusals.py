"""What a provider must do with a feature that it does not advertise: refuse it cleanly, or ignore it where it should.

One check per feature. It runs in place of every case that requires the feature.
"""

from collections.abc import Callable, Mapping
from typing import Final

import pytest

from softndk import InvalidParameter, MrFlag, NdkError, NotSupported, OpFlag, Status
from softndk.conformance.bench import FAST_RIGHTS, Bench, failure, refused, succeed
from softndk.conformance.providers import NEWEST, Feature, Side

__all__ = ["REFUSALS"]


def _srq(bench: Bench) -> None:
    """The maximum depth is 0, so every depth is above it."""
    end = bench.end()
    with refused(InvalidParameter, Status.INVALID_PARAMETER):
        end.pd.create_srq(1)


def _resize(bench: Bench) -> None:
    """R-RESIZE-1."""
    end = bench.end(cq_depth=16)
    with refused(NotSupported, Status.NOT_SUPPORTED):
        end.cq.resize(8)
    assert end.cq.depth == 16


def _moderation(bench: Bench) -> None:
    """The only answer of a provider without the capability."""
    end = bench.end()
    with refused(NotSupported, Status.NOT_SUPPORTED):
        end.cq.control_interrupt_moderation(100, 2)


def _read_local_invalidate(bench: Bench) -> None:
    """The flag is ignored: the read succeeds and the token stays valid (R-READ-5)."""
    a, b = bench.pair()
    region = bench.fast_region(a)
    for _ in range(2):
        sink = region.mr[0:8]
        a.qp.read(sink, b.mr.address, b.mr.remote_token, flags=OpFlag.RDMA_READ_LOCAL_INVALIDATE)
        succeed(a.cq)
    a.qp.invalidate(region.mr)
    succeed(a.cq)


def _free_read_sink(bench: Bench) -> None:
    """Memory that was registered as a sink takes reads (R-SINK-1)."""
    a, b = bench.pair()
    b.fill(b"readable")
    target = bytearray(64)
    sink = a.pd.register_mr(target, MrFlag.ALLOW_LOCAL_WRITE | MrFlag.RDMA_READ_SINK)
    a.qp.read(sink[0:8], b.mr.address, b.mr.remote_token)
    succeed(a.cq)
    assert target[:8] == b"readable"


def _loopback(bench: Bench) -> None:
    """A connect to an own address fails as a connect does."""
    end = bench.end()
    listener = end.adapter.listen()
    failure(end.adapter.create_connector().connect(end.qp, listener.local_address))


def _windows(bench: Bench) -> None:
    """A window of the maximum size cannot be, so no bind is taken."""
    a, _ = bench.pair()
    window = a.pd.create_mw()
    with pytest.raises(NdkError):
        a.qp.bind(a.mr, window, flags=FAST_RIGHTS)


def _inline(bench: Bench) -> None:
    """The limit is 0, so every inline size is above it."""
    end = bench.end()
    with refused(InvalidParameter, Status.INVALID_PARAMETER):
        end.pd.create_qp(end.cq, end.cq, receive_queue_depth=1, initiator_queue_depth=1, inline_data_size=1)


def _provider_codes(bench: Bench) -> None:
    """Version 2.1 is not there (R-OPEN-2)."""
    with refused(NotSupported, Status.NDIS_BAD_VERSION):
        bench.provider.open_adapter(Side.ACTIVE, version=NEWEST)


REFUSALS: Final[Mapping[Feature, Callable[[Bench], None]]] = {
    Feature.SRQ: _srq,
    Feature.CQ_RESIZE: _resize,
    Feature.MODERATION: _moderation,
    Feature.READ_LOCAL_INVALIDATE: _read_local_invalidate,
    Feature.FREE_READ_SINK: _free_read_sink,
    Feature.LOOPBACK: _loopback,
    Feature.WINDOWS: _windows,
    Feature.INLINE: _inline,
    Feature.PROVIDER_CODES: _provider_codes,
}
