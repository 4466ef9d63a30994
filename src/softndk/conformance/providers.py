"""What the suite needs to know of a provider: how to open its adapters, and what it chose where it was free to choose.

`python_iwarp` is the provider of this project. Another one is a class of the same shape as `Provider`; its adapters
have the methods of softndk.Adapter. Knows nothing of the cases.
"""

import socket
from collections.abc import Sequence
from dataclasses import dataclass
from enum import Enum
from typing import Literal, Protocol, runtime_checkable

from softndk import Adapter, AdapterFlag, IwarpConfig, NdkVersion, Status, open_adapter
from softndk.testing import kill

__all__ = ["NEWEST", "Choices", "Feature", "Provider", "PythonIwarp", "Side", "advertised", "has_ipv6", "python_iwarp"]

NEWEST = NdkVersion(2, 1)


class Side(Enum):
    """Which end of a connection an adapter is for."""

    ACTIVE = "active"
    PASSIVE = "passive"


class Feature(Enum):
    """What an adapter may lack; the value is how the matrix says it."""

    SRQ = "shared receive queues"
    CQ_RESIZE = "CQ resize"
    MODERATION = "interrupt moderation"
    READ_LOCAL_INVALIDATE = "read with local invalidate"
    FREE_READ_SINK = "read sinks without conditions"
    LOOPBACK = "loopback connections"
    WINDOWS = "memory windows"
    INLINE = "inline data"
    PROVIDER_CODES = "provider codes and reasons (2.1)"


@dataclass(frozen=True, slots=True, kw_only=True)
class Choices:
    """What a provider does where the rules leave it free. The defaults are this project's decisions.

    receive_too_small: statuses that a too small receive may end with (A-5). read_beyond, read_denied: of a read beyond
    the remote memory, and of one without a right or a valid token (A-4). notice_flushes: the peer's graceful notice
    cancels what is posted (A-2). exact_private_data: the peer gets exactly the octets sent, not padded (R-PDATA-3).
    passive_may_send_first: R-IW-1 is lifted. unposted_receive_ends: a message without a receive ends the connection
    soon; False: it is held back (A-10).
    """

    receive_too_small: frozenset[Status] = frozenset({Status.BUFFER_OVERFLOW})
    read_beyond: frozenset[Status] = frozenset({Status.REMOTE_RESOURCES})
    read_denied: frozenset[Status] = frozenset({Status.ACCESS_VIOLATION})
    notice_flushes: bool = False
    exact_private_data: bool = True
    passive_may_send_first: bool = True
    unposted_receive_ends: bool = True


@runtime_checkable
class Provider(Protocol):
    """One implementation of the public objects."""

    @property
    def name(self) -> str:
        """For the report."""

    @property
    def choices(self) -> Choices:
        """Where the rules leave a choice."""

    def addresses(self, side: Side) -> Sequence[str]:
        """The numeric addresses that an adapter of this side has; the first one is used by most cases."""

    def open_adapter(
        self, side: Side = Side.ACTIVE, *, version: NdkVersion = NEWEST, hurry: bool = False, strict: bool = False
    ) -> Adapter:
        """Open an adapter. Adapters of the two sides can be connected; one side may have several open at once.

        hurry: with time limits of a fraction of a second. Raises NotImplementedError: time limits cannot be set; the
        cases that need it are skipped. Otherwise raises as softndk.open_adapter.
        """

    def lose(self, adapter: Adapter, how: Literal["reset", "silence"]) -> None:
        """Make the adapter vanish as its peers see it: by a reset, or by answering nothing any more.

        Raises NotImplementedError: there is no way to do that; the cases that need it are skipped.
        """


class PythonIwarp:
    """softndk itself over iWARP. datapath: as for open_adapter; None: the best available."""

    def __init__(self, datapath: str | None = None) -> None:
        self._datapath = datapath
        self._addresses = ("127.0.0.1", "::1") if has_ipv6() else ("127.0.0.1",)

    @property
    def name(self) -> str:
        """With the data path that is used."""
        with self.open_adapter() as adapter:
            return f"softndk iWARP, {adapter.datapath} data path"

    @property
    def choices(self) -> Choices:
        """The project's own decisions."""
        return Choices()

    def addresses(self, side: Side) -> Sequence[str]:
        """Both sides are on the loopback interface."""
        return self._addresses

    def open_adapter(
        self, side: Side = Side.ACTIVE, *, version: NdkVersion = NEWEST, hurry: bool = False, strict: bool = False
    ) -> Adapter:
        """See Provider."""
        limit = 0.2
        config = IwarpConfig(
            connect_timeout_s=limit, accept_timeout_s=limit, ready_timeout_s=limit, disconnect_timeout_s=limit
        )
        return open_adapter(
            self._addresses,
            version=version,
            datapath=self._datapath,
            config=config if hurry else None,
            strict=strict,
        )

    def lose(self, adapter: Adapter, how: Literal["reset", "silence"]) -> None:
        """See Provider."""
        kill(adapter, how)


def python_iwarp() -> Provider:
    """The provider of this project, on the data path that adapters get when none is asked for."""
    return PythonIwarp()


def advertised(adapter: Adapter) -> frozenset[Feature]:
    """What the adapter says that it can do."""
    info = adapter.query_info()
    flags = info.adapter_flags
    found = {
        Feature.SRQ: info.max_srq_depth > 0,
        Feature.CQ_RESIZE: AdapterFlag.CQ_RESIZE_SUPPORTED in flags,
        Feature.MODERATION: AdapterFlag.CQ_INTERRUPT_MODERATION_SUPPORTED in flags,
        Feature.READ_LOCAL_INVALIDATE: AdapterFlag.RDMA_READ_LOCAL_INVALIDATE_SUPPORTED in flags,
        Feature.FREE_READ_SINK: AdapterFlag.RDMA_READ_SINK_NOT_REQUIRED in flags,
        Feature.LOOPBACK: AdapterFlag.LOOPBACK_CONNECTIONS_SUPPORTED in flags,
        Feature.WINDOWS: info.max_window_size > 0,
        Feature.INLINE: info.max_inline_data_size > 0,
        Feature.PROVIDER_CODES: info.version >= NEWEST,
    }
    return frozenset(feature for feature, there in found.items() if there)


def has_ipv6() -> bool:
    """Whether this machine has ::1."""
    if not socket.has_ipv6:
        return False
    with socket.socket(socket.AF_INET6, socket.SOCK_STREAM) as probe:
        try:
            probe.bind(("::1", 0))
        except OSError:
            return False
    return True
