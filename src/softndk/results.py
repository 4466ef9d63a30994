"""What a completed request leaves in a completion queue, and what else NDKPI hands out as values."""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Self

from softndk.errors import NdkError, error_for
from softndk.flags import AdapterFlag, Address, Extension, NdkVersion, OperationType, RdmaTechnology, RemoteToken
from softndk.status import Status

__all__ = [
    "AdapterInfo",
    "AdapterStatistics",
    "ConnectionData",
    "ConnectionEntry",
    "Disconnect",
    "EndpointEntry",
    "Result",
]


@dataclass(frozen=True, slots=True, kw_only=True)
class Result:
    """NDK_RESULT_EX: one completed request.

    `bytes_transferred`: octets received, for successful receives; 0 elsewhere. `request_context` is the very object
    given to the post. `invalidated_token`: the token that the peer took away (RECEIVE_AND_INVALIDATE only, R-RESX-3).

    softndk's own: `immediate_data`: the 8 octets of a RECEIVE_IMMEDIATE; they are in no buffer, so bytes_transferred is
    0. `original_value`: what was at the peer before a FETCH_ADD or COMPARE_SWAP that succeeded.
    """

    type: OperationType
    status: Status = Status.SUCCESS
    bytes_transferred: int = 0
    qp_context: Any = None
    request_context: Any = None
    provider_error_code: int = 0
    invalidated_token: RemoteToken | None = None
    immediate_data: bytes | None = None
    original_value: int | None = None
    _explain: Callable[[], tuple[str, NdkError | None]] | None = field(default=None, repr=False, compare=False)

    @property
    def is_receive(self) -> bool:
        """True for all receive kinds."""
        return bool(self.type & OperationType.RECEIVE)

    @property
    def error(self) -> NdkError | None:
        """The failure, explained; a new exception at each access, None after success."""
        if self.status is Status.SUCCESS:
            return None
        text, cause = self._explain() if self._explain is not None else ("", None)
        fault = None if cause is None else cause.fault
        error = error_for(
            self.status,
            text or f"{self.type.name.lower()} failed [{self.status.name}]",
            provider_error_code=self.provider_error_code,
            fault=fault,
        )
        error.__cause__ = cause
        return error

    def check(self) -> Self:
        """This result, or its `error` raised."""
        error = self.error
        if error is not None:
            raise error
        return self


@dataclass(frozen=True, slots=True, kw_only=True)
class Disconnect:
    """How a connection ended, as the disconnect event tells it (R-DEV-1)."""

    graceful: bool
    provider_reason: int
    error: NdkError | None


@dataclass(frozen=True, slots=True, kw_only=True)
class ConnectionData:
    """NdkGetConnectionData: the peer's private data and the effective read limits (R-LIM-5, R-LIM-6)."""

    private_data: bytes
    inbound_read_limit: int
    outbound_read_limit: int


@dataclass(frozen=True, slots=True, kw_only=True)
class ConnectionEntry:
    """One connection, as OID_NDK_CONNECTIONS tells it, with its state and the names of its objects."""

    local: Address
    remote: Address
    owner_pid: int
    state: str
    connector: str
    qp: str | None


@dataclass(frozen=True, slots=True, kw_only=True)
class EndpointEntry:
    """One local endpoint, as OID_NDK_LOCAL_ENDPOINTS tells it: a listener, else a shared endpoint."""

    local: Address
    listener: bool
    owner_pid: int


@dataclass(frozen=True, slots=True, kw_only=True)
class AdapterInfo:
    """NDK_ADAPTER_INFO. Sizes in octets, depths in entries.

    `extensions`: verbs beyond NDKPI that this adapter has, softndk's own field. It says nothing of the peer: iWARP does
    not negotiate them, and a peer without them ends the connection with Terminate 0/2/6 (RFC 7306).
    """

    version: NdkVersion
    vendor_id: int
    device_id: int
    max_registration_size: int
    max_window_size: int
    frmr_page_count: int
    max_initiator_request_sge: int
    max_receive_request_sge: int
    max_read_request_sge: int
    max_transfer_length: int
    max_inline_data_size: int
    max_inbound_read_limit: int
    max_outbound_read_limit: int
    max_receive_queue_depth: int
    max_initiator_queue_depth: int
    max_srq_depth: int
    max_cq_depth: int
    large_request_threshold: int
    max_caller_data: int
    max_callee_data: int
    adapter_flags: AdapterFlag
    rdma_technology: RdmaTechnology
    extensions: Extension


@dataclass(frozen=True, slots=True, kw_only=True)
class AdapterStatistics:
    """The counters of NDIS_NDK_STATISTICS_INFO.

    Frames and octets are those of the synthetic layer 2: one frame per transmitted or received FPDU or start-up frame
    is counted, octets without Ethernet, IP and TCP headers (a user-space NIC does not see them).

    The last three are softndk's own. `refused_connections`: turned away by a limit or a pause before the program heard of
    them. `peer_faults`: connections that this side ended because the peer broke a rule. `refused_tokens`: accesses by
    peers through a token that names nothing usable, a count of guesses; each also ends its connection.
    """

    connect: int
    accept: int
    connect_failure: int
    connection_error: int
    active_connection: int
    cq_error: int
    rdma_in_octets: int
    rdma_out_octets: int
    rdma_in_frames: int
    rdma_out_frames: int
    refused_connections: int = 0
    peer_faults: int = 0
    refused_tokens: int = 0
