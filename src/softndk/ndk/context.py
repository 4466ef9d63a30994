"""What all objects of one adapter share: runtime, data path, settings, limits, names, counters. No object itself."""

from dataclasses import asdict, dataclass, field
from typing import Final

from softndk.config import IwarpConfig
from softndk.datapath import DataPath
from softndk.drivers.runtime import Runtime
from softndk.errors import InsufficientResources, NdkError, NotSupported
from softndk.flags import AdapterFlag, Extension, NdkVersion, ObjectType, RdmaTechnology
from softndk.iwarp.negotiation import max_private_data
from softndk.ndk.incidents import IncidentLog
from softndk.results import AdapterInfo, AdapterStatistics
from softndk.trace.capture import CaptureWriter
from softndk.wire.mpa import REVISION_RFC6581

__all__ = ["VERSIONS", "AdapterContext", "Counters", "adapter_info"]

VERSIONS: Final = (NdkVersion(1, 2), NdkVersion(2, 1))
"""The highest minor of each major that is offered (R-OPEN-2, A-20)."""

VENDOR_ID: Final = 0x000000
"""No OUI is assigned to this project."""
DEVICE_ID: Final = 0x6E646B
_EXTENSIONS: Final = Extension.IMMEDIATE_DATA | Extension.ATOMIC_FETCH_ADD | Extension.ATOMIC_COMPARE_SWAP

_OWN_FAULTS: Final = frozenset({(0, 0, 0), (0, 2, 8), (2, 0, 5)})
"""Terminates of ours that are not about the peer: a failure of one stream, of the adapter, of a start-up here."""

_LIMIT_OF: Final = {
    ObjectType.CONNECTOR: "max_connector_count",
    ObjectType.LISTENER: "max_listener_count",
    ObjectType.SHARED_ENDPOINT: "max_shared_endpoint_count",
    ObjectType.PD: "max_pd_count",
    ObjectType.CQ: "max_cq_count",
    ObjectType.QP: "max_qp_count",
    ObjectType.SRQ: "max_srq_count",
    ObjectType.MR: "max_mr_count",
    ObjectType.MW: "max_mw_count",
}
"""The setting that limits how many objects of a kind one adapter has."""


@dataclass(slots=True)
class Counters:
    """Statistics since the adapter was opened: those of OID_NDK_STATISTICS, then softndk's own."""

    connect: int = 0
    accept: int = 0
    connect_failure: int = 0
    connection_error: int = 0
    active_connection: int = 0
    cq_error: int = 0
    rdma_in_octets: int = 0
    rdma_out_octets: int = 0
    rdma_in_frames: int = 0
    rdma_out_frames: int = 0
    refused_connections: int = 0
    peer_faults: int = 0


@dataclass(slots=True)
class AdapterContext:
    """Shared by the objects of one adapter."""

    runtime: Runtime
    datapath: DataPath
    config: IwarpConfig
    addresses: tuple[str, ...]
    info: AdapterInfo
    strict: bool
    capture: CaptureWriter | None
    counters: Counters = field(default_factory=Counters)
    traced_streams: int = 0
    closed: bool = False
    label: str = "adapter"  # of the adapter, for messages
    failure: str = ""  # of the adapter as a whole; nothing but closing is left then
    incidents: IncidentLog = field(init=False)
    _numbers: dict[str, int] = field(default_factory=dict)
    _open: dict[ObjectType, int] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.incidents = IncidentLog(self.runtime)

    def statistics(self) -> AdapterStatistics:
        """All counters as they are now."""
        return AdapterStatistics(**asdict(self.counters), refused_tokens=self.datapath.tokens.refused)

    def note_failure(self, error: NdkError) -> None:
        """A connection has failed: count it if the peer broke a rule, and tell the log."""
        fault = error.fault
        if fault is not None and not fault.received and (fault.layer, fault.etype, fault.code) not in _OWN_FAULTS:
            self.counters.peer_faults += 1
        self.incidents.tell(str(error))

    def next_name(self, prefix: str) -> str:
        """A default name: "qp1", "qp2", ..."""
        number = self._numbers.get(prefix, 0) + 1
        self._numbers[prefix] = number
        return f"{prefix}{number}"

    def has_room(self, kind: ObjectType) -> bool:
        """Whether one more object of that kind may be open."""
        return kind not in _LIMIT_OF or self._open.get(kind, 0) < getattr(self.config, _LIMIT_OF[kind])

    def opened(self, kind: ObjectType, word: str) -> None:
        """Count one more open object, or raise InsufficientResources: the limit of its kind is reached."""
        if not self.has_room(kind):
            name = _LIMIT_OF[kind]
            raise InsufficientResources(
                f"{self.label} on {self.addresses[0]}: no further {word}: {self._open.get(kind, 0)} are open, limit"
                f" {name}={getattr(self.config, name)} of IwarpConfig; close some or raise it [INSUFFICIENT_RESOURCES]"
            )
        self._open[kind] = self._open.get(kind, 0) + 1

    def forget(self, kind: ObjectType) -> None:
        """An object has been closed."""
        self._open[kind] -= 1

    def end_capture(self) -> None:
        """Write out what has been seen, and close the file once the adapter and its last connection have ended."""
        if self.capture is not None and self.closed:
            if self.traced_streams:
                self.capture.flush()
            else:
                self.capture.close()

    def check_extension(self, who: str, extension: Extension) -> None:
        """Raise NotSupported unless this adapter has `extension`. `who`: object and operation."""
        if not self.info.extensions & extension:
            raise NotSupported(
                f"{who}: this adapter has no {extension.name} (query_info().extensions): IwarpConfig.rfc7306 is off"
                " [NOT_SUPPORTED]"
            )

    @property
    def tells_provider_codes(self) -> bool:
        """Provider codes and disconnect reasons exist from 2.1 on."""
        return self.info.version >= NdkVersion(2, 1)


def adapter_info(version: NdkVersion, config: IwarpConfig) -> AdapterInfo:
    """NDK_ADAPTER_INFO of the software adapter. The limits are generous but finite: each bounds what one object holds."""
    return AdapterInfo(
        version=version,
        vendor_id=VENDOR_ID,
        device_id=DEVICE_ID,
        max_registration_size=1 << 40,
        max_window_size=1 << 40,
        frmr_page_count=512,
        max_initiator_request_sge=32,
        max_receive_request_sge=32,
        max_read_request_sge=32,
        max_transfer_length=1 << 30,
        max_inline_data_size=8192,
        max_inbound_read_limit=config.max_inbound_read_limit,
        max_outbound_read_limit=config.max_outbound_read_limit,
        max_receive_queue_depth=16384,
        max_initiator_queue_depth=16384,
        max_srq_depth=16384,
        max_cq_depth=1 << 20,
        large_request_threshold=65536,
        max_caller_data=max_private_data(config.mpa_revision),
        max_callee_data=max_private_data(REVISION_RFC6581),  # the peer chooses the revision; this much always fits
        adapter_flags=(
            AdapterFlag.IN_ORDER_DMA_SUPPORTED
            | AdapterFlag.CQ_INTERRUPT_MODERATION_SUPPORTED
            | AdapterFlag.CQ_RESIZE_SUPPORTED
            | AdapterFlag.MULTI_ENGINE_SUPPORTED
            | AdapterFlag.RDMA_READ_SINK_NOT_REQUIRED
            | AdapterFlag.RDMA_READ_LOCAL_INVALIDATE_SUPPORTED
            | AdapterFlag.LOOPBACK_CONNECTIONS_SUPPORTED
        ),
        rdma_technology=RdmaTechnology.IWARP,
        extensions=_EXTENSIONS if config.rfc7306 else Extension(0),
    )
