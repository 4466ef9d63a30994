"""Flags, object and operation types of ndkpi.h, with its values."""

from enum import IntEnum, IntFlag
from typing import Final, NamedTuple, NewType

__all__ = [
    "MAXULONG",
    "PAGE_SIZE",
    "AdapterFlag",
    "Address",
    "CqNotify",
    "Extension",
    "LocalToken",
    "MrFlag",
    "NdkVersion",
    "ObjectType",
    "OpFlag",
    "OperationType",
    "RdmaTechnology",
    "RemoteToken",
    "address_text",
]

PAGE_SIZE: Final = 4096
MAXULONG: Final = 0xFFFFFFFF

Address = tuple[str, int]
"""Numeric IPv4 or IPv6 address (optional %scope) and port. Nothing is ever resolved."""


def address_text(address: Address) -> str:
    """An address as messages show it and command lines take it: "127.0.0.1:4711", "[::1]:4711"."""
    host, port = address
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


LocalToken = NewType("LocalToken", int)
RemoteToken = NewType("RemoteToken", int)


class NdkVersion(NamedTuple):
    """NDK_VERSION."""

    major: int
    minor: int


class OpFlag(IntFlag):
    """NDK_OP_FLAG_*. Test with ``(flags & F) == F``: ALLOW_REMOTE_WRITE contains ALLOW_LOCAL_WRITE (R-FLAG-1).

    ALLOW_REMOTE_ATOMIC is softndk's own: the peer may use FetchAdd and CmpSwap; a fast register gives local write with it.
    """

    SILENT_SUCCESS = 0x001
    READ_FENCE = 0x002
    SEND_AND_SOLICIT_EVENT = 0x004
    ALLOW_REMOTE_READ = 0x008
    ALLOW_LOCAL_WRITE = 0x010
    ALLOW_REMOTE_WRITE = 0x030
    INLINE = 0x040
    RDMA_READ_SINK = 0x080
    RDMA_READ_LOCAL_INVALIDATE = 0x100
    DEFER = 0x200
    ALLOW_REMOTE_ATOMIC = 0x10000


class MrFlag(IntFlag):
    """NDK_MR_FLAG_*.

    ALLOW_REMOTE_ATOMIC is softndk's own: the peer may use FetchAdd and CmpSwap. It gives local write too, as
    ALLOW_REMOTE_WRITE does, and no other remote right.
    """

    ALLOW_LOCAL_READ = 0x0
    ALLOW_LOCAL_WRITE = 0x1
    ALLOW_REMOTE_READ = 0x2
    ALLOW_REMOTE_WRITE = 0x5
    RDMA_READ_SINK = 0x8
    ALLOW_REMOTE_ATOMIC = 0x10000


class CqNotify(IntEnum):
    """NDK_CQ_NOTIFY_*: what satisfies an arm (R-ARM-8)."""

    ERRORS = 0
    ANY = 1
    SOLICITED = 2


class OperationType(IntEnum):
    """NDK_OPERATION_TYPE. The Receive bit is set in all receive kinds. Values from 0x10000 on are softndk's own."""

    RECEIVE = 1
    SEND = 2
    FAST_REGISTER = 4
    BIND = 8
    INVALIDATE = 16
    READ = 32
    WRITE = 64
    RECEIVE_AND_INVALIDATE = 0x8001
    RECEIVE_IMMEDIATE = 0x10001
    SEND_IMMEDIATE = 0x10002
    FETCH_ADD = 0x10100
    COMPARE_SWAP = 0x10200


class ObjectType(IntEnum):
    """NDK_OBJECT_TYPE."""

    ADAPTER = 1
    QP = 2
    CQ = 3
    MR = 4
    MW = 5
    PD = 6
    SHARED_ENDPOINT = 7
    CONNECTOR = 8
    LISTENER = 9
    SRQ = 10


class RdmaTechnology(IntEnum):
    """NDK_RDMA_TECHNOLOGY."""

    UNDEFINED = 0
    IWARP = 1
    INFINIBAND = 2
    ROCE = 3
    ROCE_V2 = 4


class AdapterFlag(IntFlag):
    """NDK_ADAPTER_FLAG_*."""

    IN_ORDER_DMA_SUPPORTED = 0x00000001
    RDMA_READ_SINK_NOT_REQUIRED = 0x00000002
    CQ_INTERRUPT_MODERATION_SUPPORTED = 0x00000004
    MULTI_ENGINE_SUPPORTED = 0x00000008
    RDMA_READ_LOCAL_INVALIDATE_SUPPORTED = 0x00000010
    CQ_RESIZE_SUPPORTED = 0x00000100
    LOOPBACK_CONNECTIONS_SUPPORTED = 0x00010000


class Extension(IntFlag):
    """Verbs of softndk that NDKPI does not have (AdapterInfo.extensions); on the wire they are RFC 7306.

    IMMEDIATE_DATA: Qp.send_immediate. ATOMIC_FETCH_ADD: Qp.fetch_add. ATOMIC_COMPARE_SWAP: Qp.compare_swap.
    """

    IMMEDIATE_DATA = 0x1
    ATOMIC_FETCH_ADD = 0x2
    ATOMIC_COMPARE_SWAP = 0x4
