"""Adapter (NDK_ADAPTER): the root of all objects.

Deviation: create calls return the object and never pend; there is no out parameter and no completion callback
(R-CREATE-1, R-CREATE-3).

Deviation: values have their size. query_info, connection_data, build_lam and the addresses take and tell no buffer sizes
(R-QINFO-2, R-CDATA-1, R-LAM-8, R-ADDR-1).

Deviation: CQs and SRQs take no affinity; NDKPI lets a provider ignore it (R-CQ-3).
"""

import errno
import logging
import os
import socket
import warnings
import weakref
from collections.abc import Callable, Sequence
from typing import Any, Final

from softndk.config import IwarpConfig, TransportConfig
from softndk.datapath import open_datapath
from softndk.drivers.dispatch import check_callback
from softndk.drivers.pending import Pending, Promise
from softndk.drivers.runtime import Runtime
from softndk.drivers.sockets import socket_address
from softndk.drivers.status import StatusChannel, offer
from softndk.drivers.tcp import TcpStream
from softndk.errors import (
    AdapterUnavailable,
    InvalidParameter,
    NdkError,
    NotSupported,
    error_for,
    error_from_os,
)
from softndk.flags import Address, NdkVersion, ObjectType
from softndk.memory.buffers import Mdl, Memory
from softndk.ndk.adapter_numbers import ADAPTER_NUMBERS
from softndk.ndk.addresses import check_address, one_spelling
from softndk.ndk.connector import Connector, DisconnectCallback
from softndk.ndk.context import VERSIONS, AdapterContext, adapter_info
from softndk.ndk.cq import Cq
from softndk.ndk.endpoint import SharedEndpoint
from softndk.ndk.lam import LogicalAddressMapping
from softndk.ndk.limits import check_capacity, check_int
from softndk.ndk.listener import Listener
from softndk.ndk.management import connections, endpoints, snapshot
from softndk.ndk.object import NdkObject
from softndk.ndk.pd import Pd
from softndk.ndk.qp import Qp
from softndk.results import AdapterInfo, AdapterStatistics, ConnectionEntry, EndpointEntry
from softndk.status import Status
from softndk.trace.capture import CaptureWriter

__all__ = ["Adapter", "open_adapter"]

NEWEST: Final = NdkVersion(2, 1)
_RESERVED_TRANSPORTS: Final = ("rocev2", "shm", "verbs")
_FAILING_ORDER: Final = (ObjectType.LISTENER, ObjectType.CONNECTOR, ObjectType.QP, ObjectType.SRQ, ObjectType.CQ)


def open_adapter(
    address: str | Sequence[str] = "127.0.0.1",
    *,
    version: NdkVersion = NEWEST,
    transport: str = "iwarp",
    datapath: str | None = None,
    config: TransportConfig | None = None,
    network: Any = None,
    strict: bool = False,
    trace: str | os.PathLike[str] | None = None,
) -> "Adapter":
    """Open a software RDMA adapter on one or several local numeric IP addresses (OpenNDKAdapter).

    version: major and the lowest acceptable minor; the adapter works with its own highest minor of that major (R-OPEN).
    transport: "iwarp". datapath: "python", or None for the best available (or SOFTNDK_DATAPATH). config: IwarpConfig.
    strict: warn of objects that a `with` block has to close for the program, and of overlapping calls that it has to
    serialise (R-CONC). trace: path of a pcapng file to write.
    Raises: NotSupported: version, transport or data path. InvalidParameter: address or config. AddressUnavailable: not an
    address of this machine. OSError: the trace file.
    """
    if transport != "iwarp":
        hint = "reserved for later" if transport in _RESERVED_TRANSPORTS else "unknown"
        raise NotSupported(f"open_adapter: transport={transport!r} is {hint}; 'iwarp' is offered [NOT_SUPPORTED]")
    if network is not None:
        raise NotSupported(
            "open_adapter: network= needs the simulator, which this version does not have [NOT_SUPPORTED]"
        )
    if config is None:
        config = IwarpConfig()
    elif not isinstance(config, IwarpConfig):
        raise InvalidParameter(f"open_adapter: config is a {type(config).__name__}, iwarp needs IwarpConfig")
    if trace is not None and not isinstance(trace, (str, bytes, os.PathLike)):
        raise TypeError(f"open_adapter: trace={trace!r} is no path")
    working = _agree_on_version(version)
    addresses = _check_addresses(address)
    path = open_datapath(datapath)
    return Adapter(path, config, addresses, working, strict=strict, trace=trace)


class Adapter(NdkObject):
    """See the module. Made by open_adapter."""

    _type = ObjectType.ADAPTER
    _prefix = "adapter"

    def __init__(
        self,
        datapath: Any,
        config: IwarpConfig,
        addresses: tuple[str, ...],
        version: NdkVersion,
        *,
        strict: bool,
        trace: str | os.PathLike[str] | None,
    ) -> None:
        capture = None if trace is None else CaptureWriter(trace)
        context = AdapterContext(
            runtime=Runtime(addresses[0]),
            datapath=datapath,
            config=config,
            addresses=addresses,
            info=adapter_info(version, config),
            strict=strict,
            capture=capture,
        )
        super().__init__(context, [])
        context.label = self._label
        self._muted: list[TcpStream] = []

        self._status: StatusChannel | None = None

    # ---- queries

    @property
    def datapath(self) -> str:
        """ "python" or "native"."""
        return self._context.datapath.name

    @property
    def open_objects(self) -> tuple[NdkObject, ...]:
        """Everything on this adapter that is not closed, antecedents first."""
        with self._lock:
            return self._open_objects()

    def query_info(self) -> AdapterInfo:
        """Limits and capabilities (NdkQueryAdapterInfo), always the same for one adapter."""
        self._check_usable("query_info")
        return self._context.info

    def query_statistics(self) -> AdapterStatistics:
        """Counters since the adapter was opened (OID_NDK_STATISTICS)."""
        with self._lock:
            self._check_usable("query_statistics")
            return self._context.statistics()

    def query_connections(self) -> tuple[ConnectionEntry, ...]:
        """Connections that are being made or are up (OID_NDK_CONNECTIONS)."""
        with self._lock:
            self._check_usable("query_connections")
            return connections(self._open_objects())

    def query_local_endpoints(self) -> tuple[EndpointEntry, ...]:
        """Listening listeners and shared endpoints (OID_NDK_LOCAL_ENDPOINTS)."""
        with self._lock:
            self._check_usable("query_local_endpoints")
            return endpoints(self._open_objects())

    # ---- NDKPI's creations

    def create_cq(self, depth: int, on_notify: Callable[[Cq, Status], object] | None = None) -> Cq:
        """A completion queue for `depth` completions (NdkCreateCq). on_notify(cq, status): called after arm (R-CQ-2).

        Size it for everything that may complete into it: an overrun ends all its QPs (R-COMP-8).

        Raises: InvalidParameter: depth 0 or over max_cq_depth (R-CQ-5). InsufficientResources: max_cq_count are open
        (R-CREATE-5). TypeError: on_notify is a coroutine function. Nothing is made.
        """
        if on_notify is not None:
            check_callback(on_notify)
        with self._lock:
            self._check_working("create_cq")
            check_capacity(f"{self._label} create_cq", "depth", depth, self._context.info, "max_cq_depth", least=1)
            return Cq(self._context, self, depth, on_notify)

    def create_pd(self) -> Pd:
        """A protection domain (NdkCreatePd).

        Raises: InsufficientResources: max_pd_count are open (R-CREATE-5). Nothing is made.
        """
        with self._lock:
            self._check_working("create_pd")
            return Pd(self._context, self)

    def create_connector(self) -> Connector:
        """A connector for the active side (NdkCreateConnector).

        Raises: InsufficientResources: max_connector_count are open (R-CREATE-5). Nothing is made.
        """
        with self._lock:
            self._check_working("create_connector")
            self._offer_status()
            return Connector(self._context, self)

    def create_listener(self, on_connect: Callable[[Connector], object] | None = None) -> Listener:
        """A listener (NdkCreateListener). on_connect(connector): called for each request; left out: next_request().

        The program owns each connector: it must accept, reject or close it, and close it in the end (R-CEV-2). A request
        for which on_connect raises is rejected.

        Raises: InsufficientResources: max_listener_count are open (R-CREATE-5). TypeError: on_connect is a coroutine
        function. Nothing is made.
        """
        if on_connect is not None:
            check_callback(on_connect)
        with self._lock:
            return self._create_listener("create_listener", on_connect)

    def create_shared_endpoint(self, address: Address) -> SharedEndpoint:
        """One local address for many outgoing connections (NdkCreateSharedEndpoint). Port 0: one is picked (R-SE-2).

        Raises: InvalidParameter: the address is not numeric. AddressUnavailable (SHARING_VIOLATION): in use, or held by
        objects that are not closed (R-EP-2). AddressUnavailable (INVALID_ADDRESS): not this adapter's, or the wildcard
        (A-22). AddressUnavailable (TOO_MANY_ADDRESSES): port 0, and none is free (R-PORT-1). InsufficientResources:
        max_shared_endpoint_count are open, or no descriptor is left (R-CREATE-5). Nothing is made.
        """
        with self._lock:
            self._check_working("create_shared_endpoint")
            what = f"{self._label} create_shared_endpoint"
            wanted = check_address(what, address)
            if wanted[0] not in self._context.addresses:
                own = ", ".join(self._context.addresses)
                raise error_for(
                    Status.INVALID_ADDRESS,
                    f"{what}: {wanted[0]} is not an address of this adapter ({own}) [INVALID_ADDRESS, A-22]",
                )
            return SharedEndpoint(self._context, self, wanted)

    def build_lam(self, buffer: Memory | Mdl, *, length: int | None = None) -> Pending[LogicalAddressMapping]:
        """Logical addresses for the first `length` octets of a buffer, all if left out (NdkBuildLAM).

        The buffer's export is held until release(). It is always done when the call returns; the Pending is NDKPI's shape.

        Raises: InvalidParameter: not a buffer, not contiguous, or a length that is not 1 to the buffer's (R-LAM-1).
        Nothing is mapped.
        """
        with self._lock:
            self._check_working("build_lam")
            mdl = buffer if isinstance(buffer, Mdl) else Mdl(buffer)
            size = mdl.length if length is None else length
            check_int(f"{self._label} build_lam", "length", size)
            if not 0 < size <= mdl.length:
                raise InvalidParameter(
                    f"{self._label} build_lam: the buffer's length {size}, must be 1 to {mdl.length}"
                    " [INVALID_PARAMETER, R-LAM-1]"
                )
            mapping = LogicalAddressMapping(self._context, mdl.byte_range(size), mdl.address)
            return self._finished(f"{self._label} build_lam", mapping)

    # ---- conveniences

    def listen(self, address: Address | None = None) -> Listener:
        """Create a listener that listens: at `address`, or at the adapter's first one on a free port.

        Raises: as `create_listener`; as Listener.listen, and what its Pending would fail with. Nothing is left.
        """
        with self._lock:
            listener = self._create_listener("listen", None)
            try:
                listener._listen((self._context.addresses[0], 0) if address is None else address).result(0)
            except BaseException:
                listener._close()
                raise
            return listener

    def connect(
        self,
        qp: Qp,
        destination: Address,
        *,
        private_data: bytes = b"",
        inbound_read_limit: int | None = None,
        outbound_read_limit: int | None = None,
        on_disconnect: DisconnectCallback | None = None,
    ) -> Pending[Connector]:
        """Create a connector, connect and complete in one step; done when the QP may be used.

        On failure, and when the waiting is cancelled, the connector is closed. Arguments as Connector.connect and
        complete_connect.

        Raises: as `create_connector`; as Connector.connect. Nothing is left.
        The Pending fails with: as Connector.connect and complete_connect.
        """
        if on_disconnect is not None:
            check_callback(on_disconnect)
        with self._lock:
            self._check_working("connect")
            self._offer_status()
            connector = Connector(self._context, self)
            promise: Promise[Connector] = connector._promise(
                f"{connector._label} connect",
                holders=connector._awaited,
                on_cancel=lambda: _give_up(connector),
                streams=connector._streams,
            )

            def answered(error: NdkError | None) -> None:
                if error is not None:
                    settled(error)
                    return
                connector._on_disconnect = on_disconnect
                connector._request(f"{connector._label} complete_connect")
                connector._then = settled
                connector._complete()

            def settled(error: NdkError | None) -> None:
                if promise.done:
                    return
                if error is None:
                    promise.set_result(connector)
                else:
                    if connector._closing:
                        promise.forgive()
                    promise.set_exception(error)
                    connector._close()

            try:
                connector._connect(
                    qp, destination, None, None, inbound_read_limit, outbound_read_limit, private_data, answered
                )
            except BaseException:
                promise.forgive()
                connector._close()
                raise
            return promise.pending

    # ---- object

    def _kill(self, *, silently: bool) -> None:
        """Lose every connection, for tests of the peers (softndk.testing.kill)."""
        with self._lock:
            for channel in self._runtime.engine.channels:
                if isinstance(channel, TcpStream):
                    if silently:
                        channel.mute()
                        self._muted.append(channel)
                    else:
                        channel.fail(OSError(errno.ECONNRESET, "killed by softndk.testing.kill"))

    def _fail(self, why: str) -> None:
        """A fault of the whole adapter, for tests of what depends on it (softndk.testing.fail_adapter).

        Completion queues fail last: what is cancelled before has room in them.
        """
        with self._lock:
            self._check_usable("fail_adapter")
            context = self._context
            if context.failure:
                return
            context.failure = f"{self._label} on {context.addresses[0]} has failed: {why}"
            context.incidents.tell(context.failure, level=logging.WARNING)
            for kind in _FAILING_ORDER:
                for item in self._open_objects():
                    if item.object_type is kind:
                        item._adapter_failed()

    def _offer_status(self) -> None:
        """From the first connector or listener on another process of the user may ask (softndk status)."""
        if self._status is None:
            reference = weakref.ref(self)
            self._status = offer(self._runtime.engine, lambda: _tell(reference))

    def _new_identity(self) -> str:
        self._number = ADAPTER_NUMBERS.take(self)
        return f"{self._prefix}{self._number}"

    def _renamed(self) -> None:
        self._context.label = self._label

    def _open_objects(self) -> tuple[NdkObject, ...]:
        found: dict[NdkObject, None] = {}
        queue: list[NdkObject] = list(self._successors)
        while queue:
            item = queue.pop(0)
            if item not in found and not item._closed:
                found[item] = None
                queue.extend(item._successors)
        return tuple(found)

    def _create_listener(self, operation: str, on_connect: Callable[[Connector], object] | None) -> Listener:
        self._check_working(operation)
        self._offer_status()
        return Listener(self._context, self, on_connect)

    def _state_text(self) -> str:
        failed = " failed" if self._context.failure else ""
        return f"{', '.join(self._context.addresses)} {self._context.datapath.name} objects {len(self._successors)}{failed}"

    def _finish_close(self) -> None:
        context = self._context
        runtime = self._runtime
        ADAPTER_NUMBERS.release(self._number)
        if self._status is not None:
            self._status.close()
        for stream in self._muted:  # nobody serves them any more, so nobody else would close them
            stream.fail(OSError(errno.ECONNRESET, "killed by softndk.testing.kill"))
        runtime.engine.linger(context.config.terminate_drain_s + 0.5)
        runtime.dispatcher.stop()
        context.closed = True
        context.end_capture()

    def __del__(self) -> None:
        if getattr(self, "_closed", True) or self._runtime.forked:
            return
        warnings.warn(f"{self!r} was never closed; use `with` or close()", ResourceWarning, source=self, stacklevel=2)
        if self._context.capture is not None:
            self._context.capture.close()


def _tell(reference: "weakref.ref[Adapter]") -> dict[str, Any]:
    adapter = reference()
    return {} if adapter is None else snapshot(adapter, adapter._open_objects())


def _give_up(connector: Connector) -> bool:
    connector._close()
    return True


def _agree_on_version(version: NdkVersion) -> NdkVersion:
    try:
        major, minor = version
        if not (isinstance(major, int) and isinstance(minor, int)):
            raise TypeError
    except (TypeError, ValueError):
        raise TypeError(f"open_adapter: version={version!r} is no NdkVersion(major, minor)") from None
    for offered in VERSIONS:
        if offered.major == major and minor <= offered.minor:
            return offered
    names = ", ".join(f"{offered.major}.{offered.minor}" for offered in VERSIONS)
    raise error_for(
        Status.NDIS_BAD_VERSION, f"open_adapter: version {major}.{minor}; offered are {names} [BAD_VERSION, R-OPEN-2]"
    )


def _check_addresses(address: str | Sequence[str]) -> tuple[str, ...]:
    """The adapter's addresses, each one of this machine's."""
    try:
        given = (address,) if isinstance(address, str) else tuple(address)
    except TypeError:
        raise TypeError(f"open_adapter: address={address!r} is no address and no sequence of them") from None
    if not given:
        raise InvalidParameter("open_adapter: no address given [INVALID_PARAMETER]")
    addresses = []
    for item in given:
        try:
            addresses.append(one_spelling(item))
            family, name = socket_address((addresses[-1], 0))
        except ValueError:
            raise InvalidParameter(
                f"open_adapter: address {item!r} is not a numeric IPv4 or IPv6 address [INVALID_PARAMETER]"
            ) from None
        except OSError as error:
            raise AdapterUnavailable(f"open_adapter: address {item!r}: {error.strerror} [DEVICE_NOT_READY]") from None
        try:
            with socket.socket(family, socket.SOCK_STREAM) as probe:
                probe.bind(name)
        except OSError as error:
            raise error_from_os(error, f"open_adapter: address {item!r}", Status.INVALID_ADDRESS) from None
    return tuple(addresses)
