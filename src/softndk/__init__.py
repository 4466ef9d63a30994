"""softndk: a software RDMA NIC for Python, with the verbs of NDKPI on a real iWARP wire."""

from softndk.config import IwarpConfig, TransportConfig
from softndk.drivers.pending import Pending
from softndk.errors import (
    Aborted,
    AccessViolation,
    AdapterUnavailable,
    AddressUnavailable,
    BufferOverflow,
    ConnectionInvalid,
    DataOverrun,
    Fault,
    InsufficientResources,
    InternalError,
    InvalidHandle,
    InvalidParameter,
    InvalidState,
    IoTimeout,
    NdkError,
    NotSupported,
    QueueFull,
    Refused,
    RemoteError,
    RequestCancelled,
    Unreachable,
)
from softndk.flags import (
    MAXULONG,
    PAGE_SIZE,
    AdapterFlag,
    Address,
    CqNotify,
    Extension,
    LocalToken,
    MrFlag,
    NdkVersion,
    ObjectType,
    OperationType,
    OpFlag,
    RdmaTechnology,
    RemoteToken,
)
from softndk.memory.buffers import Mdl, Memory
from softndk.memory.sge import Sge, Sgl
from softndk.ndk.adapter import Adapter, open_adapter
from softndk.ndk.connector import Connector
from softndk.ndk.cq import Cq
from softndk.ndk.endpoint import SharedEndpoint
from softndk.ndk.lam import LogicalAddressMapping
from softndk.ndk.listener import Listener
from softndk.ndk.mr import Mr
from softndk.ndk.mw import Mw
from softndk.ndk.object import NdkObject
from softndk.ndk.pd import Pd
from softndk.ndk.qp import Qp
from softndk.ndk.srq import Srq
from softndk.results import (
    AdapterInfo,
    AdapterStatistics,
    ConnectionData,
    ConnectionEntry,
    Disconnect,
    EndpointEntry,
    Result,
)
from softndk.status import Status

__version__ = "0.1.0"

__all__ = [
    "MAXULONG",
    "PAGE_SIZE",
    "Aborted",
    "AccessViolation",
    "Adapter",
    "AdapterFlag",
    "AdapterInfo",
    "AdapterStatistics",
    "AdapterUnavailable",
    "Address",
    "AddressUnavailable",
    "BufferOverflow",
    "ConnectionData",
    "ConnectionEntry",
    "ConnectionInvalid",
    "Connector",
    "Cq",
    "CqNotify",
    "DataOverrun",
    "Disconnect",
    "EndpointEntry",
    "Extension",
    "Fault",
    "InsufficientResources",
    "InternalError",
    "InvalidHandle",
    "InvalidParameter",
    "InvalidState",
    "IoTimeout",
    "IwarpConfig",
    "Listener",
    "LocalToken",
    "LogicalAddressMapping",
    "Mdl",
    "Memory",
    "Mr",
    "MrFlag",
    "Mw",
    "NdkError",
    "NdkObject",
    "NdkVersion",
    "NotSupported",
    "ObjectType",
    "OpFlag",
    "OperationType",
    "Pd",
    "Pending",
    "Qp",
    "QueueFull",
    "RdmaTechnology",
    "Refused",
    "RemoteError",
    "RemoteToken",
    "RequestCancelled",
    "Result",
    "Sge",
    "Sgl",
    "SharedEndpoint",
    "Srq",
    "Status",
    "TransportConfig",
    "Unreachable",
    "open_adapter",
]
