"""What the protocol core tells its driver: plain values, and what is to become of the TCP connection."""

from dataclasses import dataclass
from enum import Enum

from softndk.errors import NdkError

__all__ = [
    "Aborted",
    "Disconnected",
    "Established",
    "Event",
    "Finish",
    "PeerDisconnected",
    "ReplyReceived",
    "RequestReceived",
    "StartupFailed",
]


class Finish(Enum):
    """What the driver does with the TCP connection once everything ready has been sent."""

    KEEP = "keep it"
    SHUTDOWN = "shut down writing, go on reading"
    CLOSE = "close it"
    RESET = "reset it"
    RECONNECT = "close it and connect again, from and to the same addresses"


@dataclass(frozen=True, slots=True)
class RequestReceived:
    """Passive side: a complete MPA Request; accept or reject it.

    The limits are what NdkGetConnectionData tells before the accept (R-LIM-5).
    """

    private_data: bytes
    inbound_read_limit: int
    outbound_read_limit: int


@dataclass(frozen=True, slots=True)
class ReplyReceived:
    """Active side: the peer has accepted; complete_connect or reject comes next (R-CONN-3)."""

    private_data: bytes
    inbound_read_limit: int
    outbound_read_limit: int


@dataclass(frozen=True, slots=True)
class Established:
    """The connection is up: requests may be posted."""

    inbound_read_limit: int
    outbound_read_limit: int


@dataclass(frozen=True, slots=True)
class StartupFailed:
    """The connection never came up; `error` is the outcome of the request that waits."""

    error: NdkError


@dataclass(frozen=True, slots=True)
class PeerDisconnected:
    """The peer's graceful disconnect notice: a FIN between two messages (R-IW-2)."""


@dataclass(frozen=True, slots=True)
class Disconnected:
    """The local disconnect has finished: `error` None, or why it was not graceful (R-DISC-2)."""

    error: NdkError | None


@dataclass(frozen=True, slots=True)
class Aborted:
    """An established connection ended by error, reset, Terminate or time-out; everything has been flushed."""

    error: NdkError


Event = RequestReceived | ReplyReceived | Established | StartupFailed | PeerDisconnected | Disconnected | Aborted
