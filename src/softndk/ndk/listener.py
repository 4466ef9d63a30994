"""Listener (NDK_LISTENER): takes connection requests at one address and hands out connectors."""

import ipaddress
import logging
import socket
from collections import deque
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from weakref import WeakSet, ref

from softndk.drivers.alarm import Alarm
from softndk.drivers.pending import Pending
from softndk.drivers.tcp import TcpStream
from softndk.drivers.tcp_listener import TcpListener
from softndk.drivers.waiting import WaitQueue
from softndk.errors import InvalidHandle, InvalidState, NdkError, error_for, error_from_os
from softndk.flags import Address, ObjectType, address_text
from softndk.iwarp import events
from softndk.iwarp.connection import Connection
from softndk.ndk.addresses import check_address, source_of
from softndk.ndk.connector import Connector
from softndk.ndk.context import AdapterContext
from softndk.ndk.endpoints import ENDPOINTS
from softndk.ndk.object import NdkObject
from softndk.ndk.ports import candidate_ports, no_port_free
from softndk.ndk.streams import make_stream
from softndk.status import Status

__all__ = ["Listener"]


class Listener(NdkObject):
    """See the module. Made by Adapter.create_listener or Adapter.listen."""

    _type = ObjectType.LISTENER
    _prefix = "listener"

    def __init__(
        self, context: AdapterContext, adapter: NdkObject, on_connect: Callable[[Connector], object] | None
    ) -> None:
        super().__init__(context, [adapter])
        self._adapter = adapter
        self._on_connect = on_connect
        self._sockets: list[TcpListener] = []
        self._address: Address | None = None
        self._held: list[Address] = []
        self._paused = False
        self._handshakes: set[_Handshake] = set()
        self._handshakes_of: dict[str, int] = {}  # the same, counted by source address
        self._requests: deque[Connector] = deque()  # not claimed by next_request
        self._untold: set[Connector] = set()  # on their way to on_connect
        self._unanswered: WeakSet[Connector] = WeakSet()  # the above and those claimed, some answered meanwhile
        self._alarm: Alarm | None = None
        self._line: WaitQueue[Connector] = WaitQueue(
            self._runtime,
            _Source(self),
            f"{self._label} next_request",
            holders=lambda: f"no request has come, {self._state_text()}",
            tell=self._tell_outcome,
        )
        self._next: ref[Pending[Connector]] | None = None

    # ---- NDKPI

    @property
    def local_address(self) -> Address:
        """Address and port, useful after asking for port 0 (R-ADDR-2).

        Raises: InvalidState: not listening (R-ADDR-4).
        """
        if self._address is None:
            raise InvalidState(f"{self._label} local_address: not listening [INVALID_DEVICE_STATE, R-ADDR-4]")
        return self._address

    def listen(self, address: Address) -> Pending[None]:
        """Listen at `address` (NdkListen): one of the adapter's, or the wildcard for all of that family (A-22). Port 0:
        one from 49152 to 65535 is picked.

        Raises: InvalidParameter: the address is not numeric. InvalidState: listening already (R-LISTEN-3). Nothing has
        changed.
        The Pending fails with: AddressUnavailable (SHARING_VIOLATION): the address is in use, or held by objects that are
        not closed (R-EP-2). AddressUnavailable (INVALID_ADDRESS): not one of the adapter's. AddressUnavailable
        (TOO_MANY_ADDRESSES): port 0, and none is free (R-PORT-1). InsufficientResources: no descriptor is left.
        """
        with self._lock:
            self._check_working("listen")
            return self._listen(address)

    def control_connect_events(self, *, pause: bool) -> None:
        """Pause: further requests are refused as if nobody listened; or take them again (NdkControlConnectEvents).

        Requests that have been handed out are not affected (R-PAUSE-3). Legal before `listen`, too.
        """
        with self._lock:
            self._check_usable("control_connect_events")
            self._paused = pause

    # ---- waiting for requests

    def next_request(self) -> Pending[Connector]:
        """The next connection request, where no `on_connect` was given.

        While one such Pending is unfinished every call returns that same one. Cancelling it takes nothing. Legal before
        `listen`, too.

        Raises: InvalidState: requests go to on_connect.
        The Pending fails with: InvalidHandle: the listener is being closed.
        """
        with self._lock:
            self._check_usable("next_request")
            if self._on_connect is not None:
                raise InvalidState(f"{self._label} next_request: requests go to on_connect [INVALID_DEVICE_STATE]")
            pending = None if self._next is None else self._next()
            if pending is None or not self._line.is_open(pending):
                pending = self._line.call_one(0)
                self._next = ref(pending)
            return pending

    def __iter__(self) -> Iterator[Connector]:
        """Connectors as they come, for threads; ends when the listener is closed."""
        while not self._closing:
            try:
                yield self._line.call_one(0).result()
            except InvalidHandle:
                return

    async def __aiter__(self) -> AsyncIterator[Connector]:
        """Connectors as they come, in asyncio and trio; ends when the listener is closed."""
        while not self._closing:
            try:
                connector = await self._line.call_one(0)
            except InvalidHandle:
                return
            yield connector

    def fileno(self) -> int:
        """A descriptor that is readable while a request waits for next_request. For event loops; never read it yourself.

        Raises: InsufficientResources: the process has no descriptor left.
        """
        with self._lock:
            self._check_usable("fileno")
            if self._alarm is None:
                self._alarm = self._new_alarm("fileno")
                if self._requests:
                    self._alarm.ring()
            return self._alarm.fileno()

    # ---- inside

    def _listen(self, address: Address) -> Pending[None]:
        what = f"{self._label} listen"
        if self._sockets:
            raise InvalidState(f"{what}: listens at {self._address} already [INVALID_DEVICE_STATE, R-LISTEN-3]")
        wanted = check_address(what, address)
        try:
            self._open(what, wanted)
        except NdkError as error:
            return self._failed(what, error)
        return self._finished(what, None)

    def _open(self, what: str, wanted: Address) -> None:
        host, port = wanted
        family = ipaddress.ip_address(host)
        own = self._context.addresses
        if family.is_unspecified:
            hosts = [item for item in own if ipaddress.ip_address(item).version == family.version]
        else:
            hosts = [item for item in own if item == host]
        if not hosts:
            raise error_for(
                Status.INVALID_ADDRESS,
                f"{what}: {host} is not an address of this adapter ({', '.join(own)}) [INVALID_ADDRESS, R-LISTEN-4]",
            )
        for candidate in candidate_ports(port):
            failure = self._open_all(what, [(item, candidate) for item in hosts])
            if failure is None:
                self._address = (host, candidate)
                return
            if port or failure.status is not Status.SHARING_VIOLATION:
                raise failure
        raise no_port_free(what)

    def _open_all(self, what: str, addresses: Sequence[Address]) -> NdkError | None:
        """Listen at all of `addresses`, or at none and return why."""
        for address in addresses:
            if not ENDPOINTS.take(address, self):
                self._close_sockets()
                self._release_endpoints()
                return error_for(
                    Status.SHARING_VIOLATION,
                    f"{what}: {address[0]}:{address[1]} is held by objects that are not closed"
                    " [SHARING_VIOLATION, R-EP-2]",
                )
            self._held.append(address)
            try:
                listener = TcpListener(self._runtime.engine, self._accepted, self._cannot_accept)
                listener.open(address)
            except OSError as error:
                self._close_sockets()
                self._release_endpoints()
                return error_from_os(error, f"{what} {address[0]}:{address[1]}")
            self._sockets.append(listener)
        return None

    def _close_sockets(self) -> None:
        sockets, self._sockets = self._sockets, []
        for listener in sockets:
            listener.close()

    def _release_endpoints(self) -> None:
        held, self._held = self._held, []
        for address in held:
            ENDPOINTS.release(address, self)

    def _accepted(self, sock: socket.socket, peer: Address) -> None:
        """TCP has a new connection. Refuse it at once where nobody may listen or too many are unfinished."""
        config = self._context.config
        why = ""
        if self._paused or self._closing:
            why = "it takes no connections now"
        elif len(self._handshakes) >= config.max_handshakes:
            why = f"{len(self._handshakes)} start-ups are unfinished, limit max_handshakes"
        elif self._handshakes_of.get(source_of(peer[0]), 0) >= config.max_handshakes_per_address:
            why = "too many start-ups of its address are unfinished, limit max_handshakes_per_address"
        elif self._runtime.engine.count >= config.max_connector_count + config.max_handshakes + len(self._sockets) + 1:
            why = "too many connections are open or end, limit max_connector_count + max_handshakes"
        if why:
            _refuse(sock)
            self._note_refusal(why, peer)
            return
        _Handshake(self, sock, peer)

    def _cannot_accept(self, error: OSError) -> None:
        self._context.incidents.tell(
            f"{self._label} cannot accept now and tries again soon: {error.strerror}", level=logging.WARNING
        )

    def _note_refusal(self, why: str, peer: Address) -> None:
        self._context.counters.refused_connections += 1
        self._context.incidents.tell(f"{self._label} from {address_text(peer)}: refused: {why}")

    def _requested(self, core: Connection, stream: TcpStream, request: events.RequestReceived) -> Connector | None:
        """A complete request: make its connector and hand it out. None: refused."""
        why = ""
        if self._paused or self._closing:
            why = "it takes no connections now"
        elif self._is_full():
            why = f"{len(self._unanswered)} requests are unanswered, limit max_pending_requests"
        elif self._is_full_for(stream):
            why = "too many of its address are unanswered, limit max_pending_requests_per_address"
        elif not self._context.has_room(ObjectType.CONNECTOR):
            why = "as many connectors as max_connector_count allows are open"
        if why:
            core.reject(b"", self._runtime.now())
            assert stream.peer_address is not None
            self._note_refusal(why, stream.peer_address)
            return None
        connector = Connector(self._context, self._adapter, self)
        connector._take_over(core, stream, request)
        self._unanswered.add(connector)
        if self._on_connect is not None:
            self._untold.add(connector)
            self._call_back(self._tell, connector)
        else:
            self._requests.append(connector)
            if self._alarm is not None:
                self._alarm.ring()
            self._line.notify()
        return connector

    def _is_full(self) -> bool:
        """Whether max_pending_requests wait for the program. Peers that have gone meanwhile make room."""
        limit = self._context.config.max_pending_requests
        if len(self._unanswered) >= limit:
            self._forget_answered()
        return len(self._unanswered) >= limit

    def _is_full_for(self, stream: TcpStream) -> bool:
        """Whether max_pending_requests_per_address of the stream's source wait for the program."""
        limit = self._context.config.max_pending_requests_per_address
        if len(self._unanswered) >= limit and self._waiting_from(stream) >= limit:
            self._forget_answered()
            return self._waiting_from(stream) >= limit
        return False

    def _waiting_from(self, stream: TcpStream) -> int:
        assert stream.peer_address is not None
        source = source_of(stream.peer_address[0])
        return sum(item._source_host == source for item in self._unanswered)

    def _forget_answered(self) -> None:
        for connector in [item for item in self._requests if not item._unanswered]:
            self._requests.remove(connector)
            connector._close()
        self._unanswered = WeakSet(item for item in self._unanswered if item._unanswered or item in self._untold)

    def _tell(self, connector: Connector) -> None:
        """On the callback thread: the program's callback; if it raises, an unanswered request is rejected."""
        assert self._on_connect is not None
        with self._lock:
            self._untold.discard(connector)
        if not self._runtime.dispatcher.run_here(self._on_connect, connector):
            with self._lock:
                if connector._unanswered:
                    connector._close()

    def _dependents(self) -> tuple[NdkObject, ...]:
        return ()  # a listener stops; its connectors live on

    _waits_on_exit = False

    def _state_text(self) -> str:
        if self._address is None:
            return "idle"
        paused = " paused" if self._paused else ""
        return f"listening {address_text(self._address)}{paused} waiting {len(self._requests)}"

    def _renamed(self) -> None:
        self._line.what = f"{self._label} next_request"

    def _begin_close(self) -> None:
        self._close_sockets()
        for handshake in tuple(self._handshakes):
            handshake.drop()
        while self._requests:
            self._requests.popleft()._close()
        self._line.notify_all()

    def _run_callback(self, fn: Callable[..., object], args: tuple[object, ...]) -> None:
        if not self._closing:
            fn(*args)
            return
        with self._lock:
            for item in args:  # a request that came before the close and was not told to anybody
                if isinstance(item, Connector):
                    self._untold.discard(item)
                    item._close()

    def _adapter_failed(self) -> None:
        self._close_sockets()
        for handshake in tuple(self._handshakes):
            handshake.fail()
        while self._requests:
            connector = self._requests.popleft()
            connector._adapter_failed()
            connector._close()
        self._line.notify_all()

    def _finish_close(self) -> None:
        self._release_endpoints()
        if self._alarm is not None:
            self._alarm.close()


class _Handshake:
    """A TCP connection without a connector: its MPA request is not complete, or has been refused and the peer stays.

    The listener counts them and drops them when it closes.
    """

    def __init__(self, listener: Listener, sock: socket.socket, peer: Address) -> None:
        context = listener._context
        self._listener = listener
        self._connector: Connector | None = None
        self._source = source_of(peer[0])
        self._core = Connection(
            f"{listener._label} from {address_text(peer)}",
            context.config,
            initiator=None,
            limits=(context.info.max_inbound_read_limit, context.info.max_outbound_read_limit),
        )
        listener._handshakes.add(self)
        listener._handshakes_of[self._source] = listener._handshakes_of.get(self._source, 0) + 1
        self._stream = make_stream(context, self._core, self._on_activity, active=False)
        self._stream.attach(sock)

    def drop(self) -> None:
        self._core.close(self._listener._runtime.now())
        self._stream.pump()
        self._forget()

    def fail(self) -> None:
        """The adapter has failed."""
        self._core.fail_adapter(self._listener._context.failure, self._listener._runtime.now())
        self._stream.pump()
        self._on_activity()

    def _on_activity(self) -> None:
        if self._connector is not None:
            self._connector._on_activity()
            return
        if self._stream.closed:
            self._forget()
        for event in self._core.take_events():
            if isinstance(event, events.RequestReceived):
                self._connector = self._listener._requested(self._core, self._stream, event)
                if self._connector is not None:
                    self._forget()
            elif isinstance(event, events.StartupFailed):
                context = self._listener._context
                context.counters.connect_failure += 1
                context.note_failure(event.error)

    def _forget(self) -> None:
        listener = self._listener
        if self in listener._handshakes:
            listener._handshakes.remove(self)
            listener._handshakes_of[self._source] -= 1
            if not listener._handshakes_of[self._source]:
                del listener._handshakes_of[self._source]


class _Source:
    """The listener's requests as its line of waiters sees them."""

    def __init__(self, listener: Listener) -> None:
        self._listener = listener

    def ready(self, kind: int) -> bool:
        listener = self._listener
        return bool(listener._requests) or listener._closing or bool(listener._context.failure)

    def take(self, max_results: int) -> list[Connector]:
        listener = self._listener
        found = [listener._requests.popleft() for _ in range(min(max_results, len(listener._requests)))]
        if listener._alarm is not None and not listener._requests:
            listener._alarm.silence()
        return found

    def failure(self) -> BaseException | None:
        if self._listener._closing:
            return InvalidHandle(f"{self._listener._label} next_request: the listener is being closed [INVALID_HANDLE]")
        if self._listener._context.failure:
            return self._listener._adapter_error("next_request")
        return None


def _refuse(sock: socket.socket) -> None:
    """As if nobody listened.

    Deviation: TCP is accepted and reset at once (R-PAUSE-1). A listening socket cannot be silent for a while; the peer sees
    a refused connection or a reset.
    """
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\x01\x00\x00\x00\x00\x00\x00\x00")
    sock.close()
