"""Connector (NDK_CONNECTOR): one connection, from connect or accept to disconnect or close."""

from collections.abc import Callable
from typing import TYPE_CHECKING, Final

from softndk.drivers.dispatch import check_callback
from softndk.drivers.pending import Pending, Promise
from softndk.drivers.tcp import TcpStream
from softndk.errors import (
    ConnectionInvalid,
    InvalidHandle,
    InvalidParameter,
    InvalidState,
    NdkError,
    RequestCancelled,
    error_for,
)
from softndk.flags import Address, ObjectType, address_text
from softndk.iwarp import events, faults
from softndk.iwarp.connection import Connection
from softndk.iwarp.negotiation import Initiator, Rtr
from softndk.iwarp.qp_state import State
from softndk.iwarp.stream import Stream, StreamParameters
from softndk.ndk.addresses import check_address, source_of
from softndk.ndk.connect_arguments import checked_private_data, checked_read_limits, local_end, shared_end
from softndk.ndk.context import AdapterContext
from softndk.ndk.endpoint import SharedEndpoint
from softndk.ndk.endpoints import ENDPOINTS
from softndk.ndk.object import NdkObject
from softndk.ndk.qp import Qp
from softndk.ndk.streams import make_stream
from softndk.results import ConnectionData, Disconnect
from softndk.status import Status

if TYPE_CHECKING:
    from softndk.ndk.listener import Listener

__all__ = ["Connector"]

DisconnectCallback = Callable[["Connector", Disconnect], object]
Outcome = Callable[[NdkError | None], None]
_AWAITED: Final = {
    State.IDLE: "no TCP connection yet",
    State.REQUESTING: "the peer has not answered",
    State.READYING: "the peer has not completed the connect",
    State.CLOSING: "the peer has not disconnected",
}


class Connector(NdkObject):
    """See the module. Made by Adapter.create_connector, or by a listener for each connection request."""

    _type = ObjectType.CONNECTOR
    _prefix = "connector"

    def __init__(self, context: AdapterContext, adapter: NdkObject, listener: "Listener | None" = None) -> None:
        super().__init__(context, [adapter] if listener is None else [adapter, listener])
        self._is_passive = listener is not None
        self._core: Connection | None = None
        self._stream: TcpStream | None = None
        self._peer_text = ""
        self._qp: Qp | None = None
        self._waiting: Promise[None] | None = None  # the request that is under way
        self._then: Outcome | None = None  # told of its outcome, lock held
        self._data: ConnectionData | None = None
        self._on_disconnect: DisconnectCallback | None = None
        self._disconnected: Promise[Disconnect] = self._promise(
            f"{self._label} disconnected", holders=lambda: f"no end yet, {self._state_text()}", streams=self._streams
        )
        self._disconnected.forgive()
        self._told_end = False
        self._peer_gave_up = False  # between its answer and this side's
        self._counted = False
        self._traffic = (0, 0, 0, 0)
        self._held: Address | None = None  # the local endpoint that this connector holds until its close (R-EP-1)
        self._endpoint: SharedEndpoint | None = None
        self._destination: Address | None = None  # taken at the shared endpoint

    # ---- active side

    def connect(
        self,
        qp: Qp,
        destination: Address,
        *,
        source: Address | None = None,
        inbound_read_limit: int | None = None,
        outbound_read_limit: int | None = None,
        private_data: bytes = b"",
    ) -> Pending[None]:
        """Ask a listener for a connection (NdkConnect). Done when the peer has accepted; complete_connect comes next.

        destination, source: numeric address and port; source left out: the adapter's address, any port. Read limits
        left out: the adapter's maxima; larger ones are capped silently (R-CONN-5). private_data: at most
        max_caller_data octets. After a failure the QP may be given to a new connector, this one only be closed
        (R-CONN-6); receives stay posted (A-27).

        Raises: InvalidParameter: an address that is not numeric, families that differ (R-CONN-1), a negative limit, a QP
        of another adapter. InvalidParameter (INVALID_BUFFER_SIZE): private_data too long (R-PDATA-1). InvalidState
        (CONNECTION_ACTIVE): the connector or the QP is in use, or the QP has been connected before (R-QP-6).
        ConnectionInvalid: the connector was used before (A-18). Nothing has changed.
        The Pending fails with: Refused: nobody listens, the backlog is full, or the peer rejected; then `private_data` is
        what it sent (R-REJECT-1). IoTimeout: no answer within connect_timeout_s. Unreachable (NETWORK_UNREACHABLE): no
        route. Unreachable (HOST_UNREACHABLE): the host does not answer. AddressUnavailable (SHARING_VIOLATION): the source
        port is held (R-EP-2). AddressUnavailable (INVALID_ADDRESS): the source is not the adapter's. AddressUnavailable
        (ADDRESS_ALREADY_EXISTS): these two addresses and ports are connected already. AddressUnavailable
        (TOO_MANY_ADDRESSES): no source port is free (R-PORT-1). InsufficientResources: no descriptor is left. Aborted: the
        peer gave up, or broke a rule of the start-up. RequestCancelled: this connector was closed meanwhile (R-CONN-7).
        """
        with self._lock:
            self._check_working("connect")
            return self._connect(
                qp, destination, source, None, inbound_read_limit, outbound_read_limit, private_data, None
            )

    def connect_with_shared_endpoint(
        self,
        qp: Qp,
        endpoint: SharedEndpoint,
        destination: Address,
        *,
        inbound_read_limit: int | None = None,
        outbound_read_limit: int | None = None,
        private_data: bytes = b"",
    ) -> Pending[None]:
        """As connect, from a shared endpoint's address (NdkConnectWithSharedEndpoint). The connector holds the endpoint until
        it is closed (R-CONNSE-2).

        Raises: InvalidParameter: an endpoint of another adapter; as `connect` otherwise.
        The Pending fails with: AddressUnavailable (ADDRESS_ALREADY_EXISTS): a connector of this endpoint with the same
        destination is not closed (R-CONNSE-1); as `connect` otherwise.
        """
        if not isinstance(endpoint, SharedEndpoint):
            raise TypeError(
                f"{self._label} connect_with_shared_endpoint: {type(endpoint).__name__} is no SharedEndpoint"
            )
        with self._lock:
            self._check_working("connect_with_shared_endpoint")
            endpoint._check_usable("connect_with_shared_endpoint")
            return self._connect(
                qp, destination, None, endpoint, inbound_read_limit, outbound_read_limit, private_data, None
            )

    def complete_connect(self, *, on_disconnect: DisconnectCallback | None = None) -> Pending[None]:
        """Finish the active side's connect (NdkCompleteConnect, R-COMPCONN): the QP may be used when it is done.

        on_disconnect(connector, Disconnect): called once, on the callback thread, if the peer disconnects or the
        connection fails (R-DEV-1); not after this side's own disconnect or close (A-19).

        Raises: TypeError: on_disconnect is a coroutine function. Nothing has changed.
        The Pending fails with: ConnectionInvalid: there is no answer to complete (R-COMPCONN-1). Aborted: the peer gave up
        meanwhile. RequestCancelled: this connector was closed meanwhile.
        """
        if on_disconnect is not None:
            check_callback(on_disconnect)
        with self._lock:
            self._check_working("complete_connect")
            what = f"{self._label} complete_connect"
            core = self._core
            if core is None or core.state is not State.ANSWERED:
                return self._failed(what, self._not_answered(what))
            self._on_disconnect = on_disconnect
            pending = self._request(what)
            self._complete()
            return pending

    # ---- passive side

    def accept(
        self,
        qp: Qp,
        *,
        inbound_read_limit: int | None = None,
        outbound_read_limit: int | None = None,
        private_data: bytes = b"",
        on_disconnect: DisconnectCallback | None = None,
    ) -> Pending[None]:
        """Take the request of a connector that a listener gave (NdkAccept). Done when the connection is up: with the
        peer's ready-to-receive indication, or at once where it sends none (R-IW-4).

        Do not wait for it before the active side can complete: in one thread that would deadlock (R-ACCEPT-3). It may be
        called inside on_connect. Arguments as connect's, private_data of at most max_callee_data octets; on_disconnect as
        complete_connect's.

        Raises: InvalidState: not an unanswered connector of a listener (R-ACCEPT-1). InvalidState (CONNECTION_ACTIVE): the
        QP is in use, or has been connected before (R-QP-6). InvalidParameter: a negative limit, or a QP of another
        adapter. InvalidParameter (INVALID_BUFFER_SIZE): private_data too long (R-PDATA-1). Nothing has changed.
        The Pending fails with: Aborted: the peer gave up (A-26). Refused: the peer rejected the answer. IoTimeout: the peer
        did not complete within ready_timeout_s. RequestCancelled: this connector was closed meanwhile.
        """
        if on_disconnect is not None:
            check_callback(on_disconnect)
        with self._lock:
            self._check_working("accept")
            what = f"{self._label} accept"
            core = self._core
            if core is None or core.state is not State.OFFERED:
                if self._peer_gave_up and self._is_passive:
                    return self._failed(
                        what,
                        error_for(
                            Status.CONNECTION_ABORTED, f"{what}: the peer has given up [CONNECTION_ABORTED, A-26]"
                        ),
                    )
                raise InvalidState(
                    f"{what}: no request to accept ({self._state_text()}) [INVALID_DEVICE_STATE, R-ACCEPT-1]"
                )
            info = self._context.info
            octets = checked_private_data(f"{self._label} accept", private_data, info, "max_callee_data")
            limits = checked_read_limits(f"{self._label} accept", inbound_read_limit, outbound_read_limit, info)
            self._take_qp("accept", qp)
            self._on_disconnect = on_disconnect
            pending = self._request(what)
            core.bind(qp._pair, self._open_stream)
            core.accept(octets, *limits, self._runtime.now())
            self._pump()
            return pending

    def reject(self, private_data: bytes = b"") -> None:
        """Refuse: the incoming request, or on the active side the peer's accept (NdkReject, R-REJECT-1, -2).

        private_data: at most max_callee_data octets; the active side's cannot travel on iWARP. Afterwards the
        connector can only be closed (R-REJECT-3).

        Raises: InvalidState: there is nothing to refuse. Aborted: the peer has gone already. InvalidParameter
        (INVALID_BUFFER_SIZE): private_data too long (R-PDATA-1). Nothing has changed.
        """
        with self._lock:
            self._check_working("reject")
            octets = checked_private_data(f"{self._label} reject", private_data, self._context.info, "max_callee_data")
            core = self._core
            if self._peer_gave_up:
                raise error_for(
                    Status.CONNECTION_ABORTED, f"{self._label} reject: the peer has given up [CONNECTION_ABORTED]"
                )
            if core is None or core.state not in (State.OFFERED, State.ANSWERED):
                raise InvalidState(
                    f"{self._label} reject: nothing to refuse ({self._state_text()}) [INVALID_DEVICE_STATE]"
                )
            core.reject(octets, self._runtime.now())
            self._pump()

    # ---- end

    def disconnect(self) -> Pending[None]:
        """End gracefully (NdkDisconnect): posted requests go out, then the notice. Done when the peer has disconnected too
        and nothing is under way any more; then everything left is flushed (R-DISC-1 to -4).

        The peer's program has to react to its disconnect event: neither side's disconnect is done before the other's
        (R-DISC-7).

        Choice: between connect and complete_connect it is a `reject`, and done at once (R-REJECT-2). On a connector that is
        not up otherwise it fails (A-14).

        The Pending fails with: ConnectionInvalid: not connected (A-14). IoTimeout: no answer within disconnect_timeout_s.
        Aborted: the connection failed meanwhile. RequestCancelled: this connector was closed meanwhile.
        """
        with self._lock:
            self._check_usable("disconnect")
            what = f"{self._label} disconnect"
            core = self._core
            if core is not None and core.state is State.ANSWERED:
                core.reject(b"", self._runtime.now())
                self._pump()
                return self._finished(what, None)
            if core is None or core.state not in (State.RTS, State.PEER_CLOSED):
                error = ConnectionInvalid(f"{what}: not connected ({self._state_text()}) [CONNECTION_INVALID, A-14]")
                return self._failed(what, error)
            pending = self._request(what)
            self._told_end = True  # no event after the local disconnect
            core.disconnect(self._runtime.now())
            self._pump()
            return pending

    @property
    def disconnected(self) -> Pending[Disconnect]:
        """Done when the disconnect event is due, whether or not a callback was given (R-DEV-1).

        The Pending fails with: InvalidHandle: this side has closed the connector.
        """
        return self._disconnected.pending

    # ---- getters

    @property
    def connection_data(self) -> ConnectionData:
        """The peer's private data and the effective read limits (NdkGetConnectionData), kept until the close (A-8).

        The active side has it from the end of the connect on, the passive side at once.

        Raises: ConnectionInvalid: nothing has come from the peer yet (R-CDATA-3).
        """
        with self._lock:
            if self._data is None:
                raise ConnectionInvalid(
                    f"{self._label} connection_data: nothing has come yet [CONNECTION_INVALID, R-CDATA-3]"
                )
            return self._data

    @property
    def local_address(self) -> Address:
        """Own address and port (R-ADDR-3).

        Raises: ConnectionInvalid: there is none yet (R-ADDR-4).
        """
        return self._address("local_address", None if self._stream is None else self._stream.local_address)

    @property
    def peer_address(self) -> Address:
        """The peer's address and port; there inside on_connect already (R-ADDR-3).

        Raises: ConnectionInvalid: there is none yet (R-ADDR-4).
        """
        return self._address("peer_address", None if self._stream is None else self._stream.peer_address)

    # ---- for the adapter, the listener and the QP; lock held

    @property
    def _channel(self) -> TcpStream | None:
        return self._stream

    @property
    def _is_up(self) -> bool:
        return self._core is not None and (self._core.is_up or self._core.state is State.READYING)

    @property
    def _takes_posts(self) -> bool:
        """Initiator posts are taken: connected, or failed after that (then they are cancelled, A-3).

        Not after a disconnect, whether it succeeds or fails: the connection is closed by that (R-DISC-4).
        """
        core = self._core
        if core is None or self._closing or core.disconnect_asked:
            return False
        if core.state in (State.RTS, State.PEER_CLOSED):
            return True
        return core.state in (State.TERMINATE, State.ERROR) and self._qp is not None and self._qp._pair.flushing

    def _pump(self) -> None:
        if self._stream is not None and not self._stream.closed:
            self._stream.pump()
        self._on_activity()

    def _kick(self) -> None:
        """A receive was posted."""
        core = self._core
        if core is not None and core.holding_back:
            core.kick(self._runtime.now())
            self._pump()

    def _abort(self, text: str) -> None:
        if self._core is not None:
            self._core.abort(text, self._runtime.now())
            self._pump()

    def _adapter_failed(self) -> None:
        if self._core is not None:
            self._core.fail_adapter(self._context.failure, self._runtime.now())
            self._pump()

    def _take_over(self, core: Connection, stream: TcpStream, request: events.RequestReceived) -> None:
        """Passive side: become the connector of a connection whose request has come."""
        self._core = core
        self._stream = stream
        assert stream.peer_address is not None
        self._peer_text = f" from {address_text(stream.peer_address)}"
        core.name = self._connection_name
        self._hold(stream.local_address)
        self._data = ConnectionData(
            private_data=request.private_data,
            inbound_read_limit=request.inbound_read_limit,
            outbound_read_limit=request.outbound_read_limit,
        )

    @property
    def _unanswered(self) -> bool:
        return self._core is not None and self._core.state is State.OFFERED

    @property
    def _source_host(self) -> str:
        """Where its TCP connection comes from, as the limits for one address count; empty: nowhere yet."""
        peer = None if self._stream is None else self._stream.peer_address
        return "" if peer is None else source_of(peer[0])

    def _connect(
        self,
        qp: Qp,
        destination: Address,
        source: Address | None,
        endpoint: SharedEndpoint | None,
        inbound_read_limit: int | None,
        outbound_read_limit: int | None,
        private_data: bytes,
        then: Outcome | None,
    ) -> Pending[None]:
        what = f"{self._label} connect"
        context = self._context
        core = self._core
        if core is not None:
            if core.is_over:
                raise ConnectionInvalid(f"{what}: a connector is used once; make a new one [CONNECTION_INVALID, A-18]")
            raise InvalidState(f"{what}: {self._state_text()} [CONNECTION_ACTIVE]", Status.CONNECTION_ACTIVE)
        octets = checked_private_data(f"{self._label} connect", private_data, context.info, "max_caller_data")
        limits = checked_read_limits(f"{self._label} connect", inbound_read_limit, outbound_read_limit, context.info)
        target = check_address(f"{what}: destination", destination)
        origin = (
            local_end(what, context, target, source)
            if endpoint is None
            else shared_end(what, context, target, endpoint)
        )
        self._take_qp("connect", qp)
        config = context.config
        initiator = Initiator(
            octets,
            ird=limits[0],
            ord=limits[1],
            revision=config.mpa_revision,
            crc=config.crc,
            markers=config.markers,
            rtr_offer=frozenset({Rtr.WRITE, Rtr.READ}) if config.peer_to_peer else frozenset(),
        )
        self._peer_text = f" to {address_text(target)}"
        core = Connection(
            self._connection_name,
            config,
            initiator=initiator,
            limits=(context.info.max_inbound_read_limit, context.info.max_outbound_read_limit),
        )
        core.bind(qp._pair, self._open_stream)
        core.start_timer(self._runtime.now())
        self._core = core
        pending = self._request(what)
        self._then = then
        if isinstance(origin, NdkError):
            core.refuse_start(origin)
            self._on_activity()
            return pending
        if endpoint is not None:
            self._endpoint = endpoint
            self._destination = target
            endpoint._destinations.add(target)
            self._depend_on(endpoint)
        core.picks_port = origin[1] == 0
        self._stream = make_stream(context, core, self._on_activity, active=True)
        self._stream.connect(target, origin, shared=endpoint is not None)
        self._hold(self._stream.local_address)
        return pending

    def _hold(self, address: Address | None) -> None:
        """Keep the local address for the life of this connector; a second attempt to connect may have another one."""
        if address is None or address == self._held:
            return
        if self._held is not None:
            ENDPOINTS.release(self._held, self)
        ENDPOINTS.share(address, self)
        self._held = address

    def _complete(self) -> None:
        assert self._core is not None
        self._core.complete(self._runtime.now())
        self._pump()

    def _take_qp(self, operation: str, qp: Qp) -> None:
        if not isinstance(qp, Qp):
            raise TypeError(f"{self._label} {operation}: {type(qp).__name__} is not a Qp")
        qp._check_usable(operation)
        if qp._context is not self._context:
            raise InvalidParameter(
                f"{self._label} {operation}: {qp._label} belongs to another adapter [INVALID_PARAMETER]"
            )
        other = qp._connector
        if other is not None and other is not self and not (other._core is None or other._core.is_over):
            raise InvalidState(
                f"{self._label} {operation}: {qp._label} is in use by {other._label} [CONNECTION_ACTIVE]",
                Status.CONNECTION_ACTIVE,
            )
        if qp._pair.flushing:
            raise InvalidState(
                f"{self._label} {operation}: {qp._label} has been connected before; one QP, one connection"
                " [CONNECTION_ACTIVE, R-QP-6]",
                Status.CONNECTION_ACTIVE,
            )
        qp._connector = self
        qp._pair.on_receive = self._kick
        self._qp = qp
        self._depend_on(qp)

    def _open_stream(self, parameters: StreamParameters) -> Stream:
        assert self._qp is not None
        return self._context.datapath.open_stream(self._qp._pair, self._qp._access, parameters)

    def _request(self, what: str) -> Pending[None]:
        """Begin a request of this connector; its outcome comes with the core's events."""
        self._waiting = self._promise(what, holders=self._awaited, streams=self._streams)
        return self._waiting.pending

    def _awaited(self) -> str:
        """What the request under way waits for, and who holds it, for a wait that expires."""
        state = State.IDLE if self._core is None else self._core.state
        if state is State.CLOSING and self._qp is not None and not self._qp._pair.idle:
            return f"{self._qp._pair.sends_in_use} requests of {self._qp._label} are not finished"
        return f"{_AWAITED.get(state, 'no outcome yet')}, {self._state_text()}"

    def _streams(self) -> tuple[TcpStream, ...]:
        return () if self._stream is None else (self._stream,)

    # ---- what the core tells

    def _on_activity(self) -> None:
        core = self._core
        if core is None:
            return
        for event in core.take_events():
            if isinstance(event, events.ReplyReceived):
                self._data = ConnectionData(
                    private_data=event.private_data,
                    inbound_read_limit=event.inbound_read_limit,
                    outbound_read_limit=event.outbound_read_limit,
                )
                assert self._stream is not None
                self._hold(self._stream.local_address)
                self._outcome(None)
            elif isinstance(event, events.Established):
                self._established(event)
            elif isinstance(event, events.StartupFailed):
                if self._is_passive:
                    self._context.note_failure(event.error)
                self._startup_failed(event.error)
            elif isinstance(event, events.PeerDisconnected):
                self._tell_end(Disconnect(graceful=True, provider_reason=self._code(faults.GRACEFUL), error=None))
            elif isinstance(event, events.Aborted):
                self._context.counters.connection_error += 1
                self._context.note_failure(event.error)
                code = self._code(event.error.provider_error_code)
                self._tell_end(Disconnect(graceful=False, provider_reason=code, error=event.error))
            elif isinstance(event, events.Disconnected):
                if event.error is not None:
                    self._context.note_failure(event.error)
                self._outcome(event.error)
        self._count(core)

    def _established(self, event: events.Established) -> None:
        counters = self._context.counters
        counters.active_connection += 1
        self._counted = True
        if self._data is not None:
            self._data = ConnectionData(
                private_data=self._data.private_data,
                inbound_read_limit=event.inbound_read_limit,
                outbound_read_limit=event.outbound_read_limit,
            )
        if self._is_passive:
            counters.accept += 1
        else:
            counters.connect += 1
        self._outcome(None)

    def _startup_failed(self, error: NdkError) -> None:
        self._context.counters.connect_failure += 1
        self._peer_gave_up = self._waiting is None
        if error.private_data is not None:
            self._data = ConnectionData(private_data=error.private_data, inbound_read_limit=0, outbound_read_limit=0)
        self._outcome(error)

    def _outcome(self, error: NdkError | None) -> None:
        promise, self._waiting = self._waiting, None
        then, self._then = self._then, None
        if promise is not None:
            if error is None:
                promise.set_result(None)
            else:
                if then is not None:
                    promise.forgive()
                promise.set_exception(error)
        if then is not None:
            then(error)

    def _tell_end(self, how: Disconnect) -> None:
        """The disconnect event, at most once per connection (R-DEV-1)."""
        if self._told_end:
            return
        self._told_end = True
        self._disconnected.set_result(how)
        if self._on_disconnect is not None:
            self._call_back(self._on_disconnect, self, how)

    def _code(self, code: int) -> int:
        return code if self._context.tells_provider_codes else 0

    def _count(self, core: Connection) -> None:
        counters = self._context.counters
        before, self._traffic = self._traffic, core.traffic
        counters.rdma_in_frames += self._traffic[0] - before[0]
        counters.rdma_out_frames += self._traffic[1] - before[1]
        counters.rdma_in_octets += self._traffic[2] - before[2]
        counters.rdma_out_octets += self._traffic[3] - before[3]
        if self._counted and core.is_over:
            self._counted = False
            counters.active_connection -= 1

    # ---- object

    def _not_answered(self, what: str) -> NdkError:
        if self._peer_gave_up and not self._is_passive:
            return error_for(Status.CONNECTION_ABORTED, f"{what}: the accepting peer gave up [CONNECTION_ABORTED]")
        return ConnectionInvalid(
            f"{what}: nothing to complete ({self._state_text()}) [CONNECTION_INVALID, R-COMPCONN-1]"
        )

    def _address(self, what: str, address: Address | None) -> Address:
        if address is None:
            raise ConnectionInvalid(f"{self._label} {what}: there is none yet [CONNECTION_INVALID, R-ADDR-4]")
        return address

    def _state_text(self) -> str:
        core, stream = self._core, self._stream
        if core is None:
            return "idle"
        peer = None if stream is None else stream.peer_address
        if peer is None:
            return core.state.value
        return f"{core.state.value} {address_text(peer)}"

    @property
    def _connection_name(self) -> str:
        """What the messages of the connection begin with; whoever reads them at night asks first which peer it is."""
        return self._label + self._peer_text

    def _renamed(self) -> None:
        if self._core is not None:
            self._core.name = self._connection_name

    def _begin_close(self) -> None:
        core, stream = self._core, self._stream
        if core is not None:
            core.close(self._runtime.now())
            if stream is not None and not stream.closed:
                stream.pump()
            self._count(core)
        if self._waiting is not None:
            self._waiting.forgive()
            self._outcome(RequestCancelled(f"{self._label}: closed by this side [CANCELLED, R-CONN-7]"))
        if not self._disconnected.done:
            self._disconnected.set_exception(
                InvalidHandle(f"{self._label} disconnected: closed by this side [INVALID_HANDLE]")
            )

    def _finish_close(self) -> None:
        if self._held is not None:
            ENDPOINTS.release(self._held, self)
        if self._endpoint is not None and self._destination is not None:
            self._endpoint._destinations.discard(self._destination)
