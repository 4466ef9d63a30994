"""A consumer in the manner of a kernel driver: callbacks only, nothing waits, one call leads to the next.

Microsoft's sample for NDKPI is such a consumer. Its sequence of calls, as far as a provider can tell, is this:

* it opens with version 1.0 and decides by the version that is reported (R-OPEN-5); without read sinks in plain memory it
  does not run at all (R-SINK-5);
* it prepares its fast-register region, reads the remote token once and keeps it for ever (R-TOK-4);
* active side: connect, get the connection data without its private data (only the limits), complete the connect, get
  the connection data again (A-8); passive side: peer address and connection data inside the connect callback (R-ADDR-3),
  QP and receives there too, then accept with the very limits that it was told (R-LIM-5);
* the CQ callback drains until empty, posts receives again, arms and returns (R-ARM-6); it looks at one bit of the type
  to know a receive (1.4);
* to lend memory it builds a mapping (R-LAM-3, R-LAM-4), posts the fast register with DEFER and a base address that is no
  real address (R-FREG-4), and right behind it the send that carries the token (R-WR-14);
* it gives the memory and the mapping back when the invalidation has completed, its own or the peer's (R-INV-6);
* it answers a disconnect event with a disconnect and closes when that has completed; it pauses the listener just before
  it closes it (R-PAUSE-3), closes regions without caring when that is done, and learns it from its PD (R-CLOSE-8).
"""

import struct
import threading
from collections.abc import Callable
from typing import Final

import pytest

from softndk import (
    Adapter,
    AdapterFlag,
    Address,
    Connector,
    Cq,
    Disconnect,
    Listener,
    LogicalAddressMapping,
    Mdl,
    Mr,
    NdkVersion,
    OperationType,
    OpFlag,
    Pending,
    Qp,
    RemoteToken,
    Result,
    Status,
    open_adapter,
)
from softndk.flags import PAGE_SIZE
from tests.ndk.ends import PATIENCE_S

SLOTS: Final = 4
SLOT_OCTETS: Final = 64
OFFER: Final = struct.Struct("<QII")  # address, token, length: what a peer may write to; its order is the program's own
LENT: Final = 3 * PAGE_SIZE - 100
SCRAMBLE: Final = 0x5A5A_0000_0000_0000


class Driver:
    """An adapter, as the consumer holds it: opened with the oldest version, used by what is reported."""

    def __init__(self) -> None:
        self.adapter: Adapter = open_adapter(version=NdkVersion(1, 0))
        self.info = self.adapter.query_info()
        assert self.info.adapter_flags & AdapterFlag.RDMA_READ_SINK_NOT_REQUIRED
        self.can_invalidate_remotely = self.info.version >= NdkVersion(1, 2)
        self.pd = self.adapter.create_pd()
        self.problems: list[BaseException] = []

    def guard(self, step: Callable[[], object]) -> None:
        """Nothing may escape from a callback; the test wants to hear of it all the same."""
        try:
            step()
        except BaseException as error:
            self.problems.append(error)


class Socket:
    """One connection: QP, CQ, message slots in one region, one fast-register region to lend."""

    def __init__(
        self,
        driver: Driver,
        on_message: Callable[["Socket", bytes], None],
        on_up: Callable[["Socket"], None] = lambda _: None,
    ) -> None:
        self.driver = driver
        self.gone = threading.Event()
        self.returned = threading.Event()
        self.invalidated: list[RemoteToken] = []
        self.statuses: list[Status] = []
        self.connector: Connector | None = None
        self.mapping: LogicalAddressMapping | None = None
        self.lent = bytearray(LENT + PAGE_SIZE)
        self._on_message = on_message
        self._on_up = on_up
        self.token = RemoteToken(0)
        self.cq: Cq = driver.adapter.create_cq(4 * SLOTS, self._notified)
        self.qp: Qp = driver.pd.create_qp(
            self.cq, self.cq, receive_queue_depth=SLOTS, initiator_queue_depth=2 * SLOTS, context=self
        )
        self.slots: Mr = driver.pd.register_mr(bytearray(SLOTS * SLOT_OCTETS))
        self.fast: Mr = driver.pd.create_mr(fast_register=True)
        for slot in range(SLOTS):
            self._post(slot)
        self.cq.arm()

    def prepare(self, then: Callable[[], object]) -> None:
        """Initialise the fast-register region; its token is read here and never again."""

        def prepared(outcome: Pending[None]) -> None:
            outcome.result()
            self.token = self.fast.remote_token
            assert self.token != 0
            then()

        pages = LENT // PAGE_SIZE + 2
        self.fast.initialize_fast_register(pages, True).add_done_callback(
            lambda outcome: self.driver.guard(lambda: prepared(outcome))
        )

    # ---- connecting

    def connect(self, destination: Address) -> None:
        """Active side."""
        connector = self.connector = self.driver.adapter.create_connector()

        def completed(outcome: Pending[None]) -> None:
            outcome.result()
            data = connector.connection_data  # the sample asks once more here
            assert (data.inbound_read_limit, data.outbound_read_limit) == self._limits
            self._on_up(self)

        def accepted(outcome: Pending[None]) -> None:
            outcome.result()
            data = connector.connection_data
            self._limits = data.inbound_read_limit, data.outbound_read_limit
            connector.complete_connect(on_disconnect=self._disconnected).add_done_callback(
                lambda outcome: self.driver.guard(lambda: completed(outcome))
            )

        connector.connect(self.qp, destination, private_data=b"from the active side").add_done_callback(
            lambda outcome: self.driver.guard(lambda: accepted(outcome))
        )

    def take(self, connector: Connector) -> None:
        """Passive side, inside the connect callback."""
        self.connector = connector
        assert connector.peer_address[0] == "127.0.0.1"
        data = connector.connection_data
        assert data.private_data.startswith(b"from the active side")

        def established(outcome: Pending[None]) -> None:
            outcome.result()
            self._on_up(self)

        connector.accept(
            self.qp,
            inbound_read_limit=data.inbound_read_limit,
            outbound_read_limit=data.outbound_read_limit,
            on_disconnect=self._disconnected,
        ).add_done_callback(lambda outcome: self.driver.guard(lambda: established(outcome)))

    # ---- lending, messages

    def lend(self) -> None:
        """Fast register and the message that carries the token, in one chain."""

        def mapped(outcome: Pending[LogicalAddressMapping]) -> None:
            mapping = self.mapping = outcome.result()
            start = mapping.address
            assert mapping.fbo == start % PAGE_SIZE
            assert len(mapping.pages) == (start % PAGE_SIZE + LENT + PAGE_SIZE - 1) // PAGE_SIZE
            base = start ^ SCRAMBLE
            self.qp.fast_register(
                self.fast,
                list(mapping.pages),
                fbo=mapping.fbo,
                length=LENT,
                base_address=base,
                flags=OpFlag.ALLOW_REMOTE_WRITE | OpFlag.DEFER,
                context="register",
            )
            self.qp.send(OFFER.pack(base, self.token, LENT), flags=OpFlag.INLINE, context="offer")

        self.driver.adapter.build_lam(Mdl(self.lent), length=LENT).add_done_callback(
            lambda outcome: self.driver.guard(lambda: mapped(outcome))
        )

    def _notified(self, cq: Cq, status: Status) -> None:
        def drain() -> None:
            assert status is Status.SUCCESS
            while results := cq.get_results(3):
                for result in results:
                    self._one(result)
            cq.arm()

        self.driver.guard(drain)

    def _one(self, result: Result) -> None:
        assert result.qp_context is self
        self.statuses.append(result.status)
        if result.status is not Status.SUCCESS:
            return
        if result.type & OperationType.RECEIVE:
            slot = result.request_context
            assert isinstance(slot, int)
            at = slot * SLOT_OCTETS
            message = bytes(self.slots.view[at : at + result.bytes_transferred])
            if result.type is OperationType.RECEIVE_AND_INVALIDATE:
                assert result.invalidated_token is not None
                self.invalidated.append(result.invalidated_token)
                self._memory_is_back()
            self._post(slot)
            self._on_message(self, message)
        elif result.type is OperationType.INVALIDATE:
            self._memory_is_back()

    def _memory_is_back(self) -> None:
        assert self.mapping is not None
        self.mapping.release()
        self.mapping = None
        self.returned.set()

    def _post(self, slot: int) -> None:
        at = slot * SLOT_OCTETS
        self.qp.receive(self.slots[at : at + SLOT_OCTETS], context=slot)

    # ---- the end

    def disconnect(self) -> None:
        assert self.connector is not None
        self.connector.disconnect().add_done_callback(lambda _: self.driver.guard(self._close))

    def _disconnected(self, _connector: Connector, _end: Disconnect) -> None:
        self.driver.guard(self.disconnect)

    def _close(self) -> None:
        """Connector, QP, CQ in turn; the regions without caring when."""
        assert self.connector is not None
        self.connector.close(
            on_done=lambda _: self.qp.close(on_done=lambda _: self.cq.close(on_done=lambda _: self.gone.set()))
        )
        for region in (self.slots, self.fast):
            region.close()


class Exchange:
    """Client and server: the client lends memory, the server fills it and gives the token back or has it taken back."""

    def __init__(self, *, remotely: bool) -> None:
        self.remotely = remotely
        self.data = bytes(index * 31 % 251 for index in range(LENT))
        self.client, self.server = Driver(), Driver()
        self.served: list[Socket] = []
        self.source = self.server.pd.register_mr(self.data)
        self.active = Socket(self.client, self.client_heard, Socket.lend)

    def run(self) -> None:
        listener = self.server.adapter.create_listener(self.request_came)
        listener.listen(("127.0.0.1", 0)).add_done_callback(
            lambda outcome: self.server.guard(lambda: self.listening(listener, outcome))
        )
        assert self.active.returned.wait(PATIENCE_S), self.problems
        self.active.disconnect()
        for socket in (self.active, *self.served):
            assert socket.gone.wait(PATIENCE_S), self.problems
        listener.control_connect_events(pause=True)
        self.source.close()
        done = [threading.Event() for _ in range(3)]
        listener.close(on_done=lambda _: done[0].set())
        self.client.pd.close(on_done=lambda _: done[1].set())
        self.server.pd.close(on_done=lambda _: done[2].set())
        assert all(event.wait(PATIENCE_S) for event in done)
        assert self.problems == []
        assert self.client.adapter.open_objects == self.server.adapter.open_objects == ()
        self.client.adapter.close().result(PATIENCE_S)
        self.server.adapter.close().result(PATIENCE_S)

    @property
    def problems(self) -> list[BaseException]:
        return self.client.problems + self.server.problems

    def listening(self, listener: Listener, outcome: Pending[None]) -> None:
        outcome.result()
        self.active.prepare(lambda: self.active.connect(listener.local_address))

    def request_came(self, connector: Connector) -> None:
        def take() -> None:
            socket = Socket(self.server, self.server_heard)
            self.served.append(socket)
            socket.take(connector)

        self.server.guard(take)

    def server_heard(self, socket: Socket, message: bytes) -> None:
        """An offer: fill the memory, then answer."""
        address, token, length = OFFER.unpack(message)
        filling = OpFlag.SILENT_SUCCESS | OpFlag.DEFER
        socket.qp.write(self.source[0:length], address, RemoteToken(token), flags=filling, context="fill")
        if self.remotely and self.server.can_invalidate_remotely:
            socket.qp.send_and_invalidate(b"filled", RemoteToken(token), flags=OpFlag.INLINE, context="answer")
        else:
            socket.qp.send(b"filled", flags=OpFlag.INLINE, context="answer")

    def client_heard(self, socket: Socket, message: bytes) -> None:
        """The server's answer."""
        assert message == b"filled"
        assert bytes(socket.lent[:LENT]) == self.data
        if not self.remotely:
            socket.qp.invalidate(socket.fast, context="take back")


@pytest.mark.rules(
    *("R-OPEN-5", "R-TOK-4", "R-LAM-3", "R-LAM-4", "R-FREG-4", "R-WR-14"),
    *("R-ADDR-3", "R-LIM-5", "R-ARM-6", "R-CLOSE-8", "A-8"),
)
@pytest.mark.parametrize("remotely", [True, False], ids=["the peer invalidates", "the owner invalidates"])
def test_a_consumer_of_callbacks_only_runs_its_sequence_of_calls(remotely: bool) -> None:
    exchange = Exchange(remotely=remotely)
    exchange.run()
    assert exchange.active.invalidated == ([exchange.active.token] if remotely else [])
    cancelled = exchange.active.statuses.count(Status.CANCELLED)
    assert cancelled == SLOTS  # the receives that were posted when the connection ended
