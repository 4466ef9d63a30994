"""Connecting: connect, complete, accept, reject, and the addresses of both ends."""

import threading
from collections.abc import Callable

import pytest

from softndk import (
    Aborted,
    AddressUnavailable,
    ConnectionInvalid,
    Connector,
    InvalidParameter,
    InvalidState,
    NdkError,
    Pending,
    Refused,
    Status,
)
from softndk.conformance.bench import (
    PATIENCE_S,
    Bench,
    End,
    Pair,
    callbacks_have_run,
    ended,
    failure,
    refused,
    still_works,
    until,
)
from softndk.conformance.providers import Feature, Side

GIVEN_UP = {Status.CONNECTION_ABORTED, Status.CONNECTION_REFUSED}


class Halfway:
    """A connection in the making: the request has reached the passive side."""

    def __init__(self, bench: Bench, *, private_data: bytes = b"") -> None:
        self.a, self.b = bench.end(), bench.end(side=Side.PASSIVE)
        self.listener = self.b.adapter.listen()
        self.connector = self.a.adapter.create_connector()
        self.connecting = self.connector.connect(self.a.qp, self.listener.local_address, private_data=private_data)
        self.incoming = self.listener.next_request().result(PATIENCE_S)

    def accept(self, private_data: bytes = b"") -> Pending[None]:
        """Accept, and let the connect be done."""
        accepting = self.incoming.accept(self.b.qp, private_data=private_data)
        self.connecting.result(PATIENCE_S)
        return accepting

    def finish(self) -> Pair:
        """Go on to the end."""
        accepting = self.accept()
        self.connector.complete_connect().result(PATIENCE_S)
        accepting.result(PATIENCE_S)
        return self.pair

    @property
    def pair(self) -> Pair:
        """Both ends with their connectors."""
        self.a._connector, self.b._connector = self.connector, self.incoming
        return Pair(self.a, self.b)


@pytest.fixture
def halfway(bench: Bench) -> Halfway:
    return Halfway(bench)


# ---- step by step


@pytest.mark.rules("R-CONN-3", "R-CONN-4", "R-COMPCONN-1", "R-ACCEPT-2", "E-4")
def test_a_connection_is_made_step_by_step(halfway: Halfway) -> None:
    assert not halfway.connecting.done()
    accepting = halfway.accept()
    with refused(ConnectionInvalid, Status.CONNECTION_INVALID):
        halfway.a.qp.send([])
    halfway.connector.complete_connect().result(PATIENCE_S)
    accepting.result(PATIENCE_S)
    still_works(halfway.pair)


@pytest.mark.rules("R-CONN-2", "R-OBJ-1")
def test_from_the_connect_on_the_connector_depends_on_its_queue_pair(halfway: Halfway) -> None:
    closing = halfway.a.qp.close()
    assert not closing.done()
    halfway.connector.close().result(PATIENCE_S)
    closing.result(PATIENCE_S)


@pytest.mark.rules("R-CONN-3", "R-REJECT-1")
@pytest.mark.parametrize("side", list(Side))
def test_a_queue_pair_or_connector_that_is_connecting_takes_no_second_connect(halfway: Halfway, side: Side) -> None:
    end = halfway.a if side is Side.ACTIVE else halfway.b
    connector = halfway.connector if side is Side.ACTIVE else halfway.incoming
    if side is Side.PASSIVE:
        halfway.accept()
    with refused(InvalidState, Status.CONNECTION_ACTIVE):
        connector.connect(end.qp, halfway.listener.local_address)
    with refused(InvalidState, Status.CONNECTION_ACTIVE):
        end.adapter.create_connector().connect(end.qp, halfway.listener.local_address)


@pytest.mark.rules("R-COMPCONN-1", "A-14")
@pytest.mark.parametrize("state", ["idle", "connecting", "incoming", "connected"])
def test_complete_and_disconnect_need_their_state(halfway: Halfway, state: str) -> None:
    connector = {
        "idle": halfway.a.adapter.create_connector(),
        "connecting": halfway.connector,
        "incoming": halfway.incoming,
        "connected": halfway.connector,
    }[state]
    if state == "connected":
        halfway.finish()
    else:
        assert failure(connector.disconnect()).status is Status.CONNECTION_INVALID
    error = failure(connector.complete_connect())
    assert (type(error), error.status) == (ConnectionInvalid, Status.CONNECTION_INVALID)


@pytest.mark.rules("A-26", "R-COMPCONN-1", "R-ACCEPT-1")
@pytest.mark.parametrize("gone", list(Side))
def test_only_the_call_that_is_due_is_aborted_when_the_peer_has_given_up(halfway: Halfway, gone: Side) -> None:
    """The other side's call is as wrong as before."""
    if gone is Side.ACTIVE:
        left, end = halfway.incoming, halfway.b
        halfway.connector.close()
    else:
        left, end = halfway.connector, halfway.a
        halfway.accept()
        halfway.incoming.close()

    def has_heard() -> bool:
        try:
            left.connect(end.qp, halfway.listener.local_address)
        except NdkError as error:
            return error.status is Status.CONNECTION_INVALID
        return False

    until(has_heard)
    if gone is Side.ACTIVE:
        assert failure(left.complete_connect()).status is Status.CONNECTION_INVALID
        assert failure(left.accept(end.qp)).status is Status.CONNECTION_ABORTED
    else:
        with refused(InvalidState, Status.INVALID_DEVICE_STATE):
            left.accept(end.qp)
        assert failure(left.complete_connect()).status is Status.CONNECTION_ABORTED


@pytest.mark.rules("R-ACCEPT-1", "R-REJECT-1", "R-REJECT-2")
@pytest.mark.parametrize("state", ["idle", "connecting", "accepted", "connected"])
def test_accept_and_reject_need_their_state(halfway: Halfway, state: str) -> None:
    connector = halfway.a.adapter.create_connector() if state == "idle" else halfway.connector
    if state == "accepted":
        halfway.accept()
    elif state == "connected":
        halfway.finish()
    other = halfway.a.pd.create_qp(halfway.a.cq, halfway.a.cq, receive_queue_depth=1, initiator_queue_depth=1)
    with refused(InvalidState, Status.INVALID_DEVICE_STATE):
        connector.accept(other)
    if state != "accepted":
        with refused(InvalidState, Status.INVALID_DEVICE_STATE):
            connector.reject()


@pytest.mark.rules("R-ACCEPT-3")
def test_a_request_may_be_accepted_in_the_callback_and_from_another_thread(bench: Bench) -> None:
    active, passive = bench.adapter(), bench.adapter(Side.PASSIVE)
    address = (bench.provider.addresses(Side.PASSIVE)[0], 0)
    accepted: list[Pending[None]] = []
    later: list[Connector] = []
    told = threading.Event()
    ends = [bench.end(passive) for _ in range(2)]

    def on_connect(connector: Connector) -> None:
        if not accepted:
            accepted.append(connector.accept(ends[0].qp))
        else:
            later.append(connector)
        told.set()

    listener = passive.create_listener(on_connect)
    listener.listen(address).result(PATIENCE_S)
    active.connect(bench.end(active).qp, listener.local_address).result(PATIENCE_S)
    told.clear()
    second = active.connect(bench.end(active).qp, listener.local_address)
    assert told.wait(PATIENCE_S)
    thread = threading.Thread(target=lambda: accepted.append(later[0].accept(ends[1].qp)))
    thread.start()
    thread.join(PATIENCE_S)
    second.result(PATIENCE_S)
    for accepting in accepted:
        accepting.result(PATIENCE_S)


# ---- refusals


@pytest.mark.rules("R-CONN-6", "R-CONN-3")
def test_with_nobody_listening_the_connect_is_refused_and_the_queue_pair_is_as_before(bench: Bench) -> None:
    a, b = bench.end(), bench.end(side=Side.PASSIVE)
    a.qp.receive(a.mr[8000:8016], context="kept")
    connector = a.adapter.create_connector()
    error = failure(connector.connect(a.qp, bench.nobody(b.adapter)))
    assert (type(error), error.status) == (Refused, Status.CONNECTION_REFUSED)
    with refused(ConnectionInvalid, Status.CONNECTION_INVALID):
        connector.connect(a.qp, b.adapter.listen().local_address)
    assert a.cq.get_results() == []
    pair = bench.connect(a, b)
    pair.b.qp.send(b"hello")
    assert [result.request_context for result in a.cq.wait(PATIENCE_S)] == ["kept"]


@pytest.mark.rules("R-REJECT-1", "R-REJECT-3", "A-18", "R-CONN-6")
def test_a_rejected_connect_is_refused_and_both_connectors_are_over(halfway: Halfway, bench: Bench) -> None:
    halfway.incoming.reject(b"not you")
    error = failure(halfway.connecting)
    assert (type(error), error.status) == (Refused, Status.CONNECTION_REFUSED)
    assert error.private_data is not None
    assert error.private_data.startswith(b"not you")
    for connector in (halfway.connector, halfway.incoming):
        with refused(ConnectionInvalid, Status.CONNECTION_INVALID):
            connector.connect(halfway.a.qp, halfway.listener.local_address)
        assert failure(connector.disconnect()).status is Status.CONNECTION_INVALID
    with pytest.raises(NdkError):
        halfway.incoming.reject()
    still_works(bench.connect(halfway.a, halfway.b))


@pytest.mark.rules("R-REJECT-2", "R-ACCEPT-4", "R-IW-4", "R-CONN-4")
@pytest.mark.parametrize("how", ["reject", "disconnect"])
def test_the_active_side_may_refuse_after_the_accept(halfway: Halfway, how: str) -> None:
    accepting = halfway.accept()
    if how == "reject":
        halfway.connector.reject()
    else:
        halfway.connector.disconnect().result(PATIENCE_S)
    assert failure(accepting).status in GIVEN_UP
    assert failure(halfway.connector.complete_connect()).status in {
        Status.CONNECTION_INVALID,
        Status.CONNECTION_ABORTED,
    }
    with refused(ConnectionInvalid, Status.CONNECTION_INVALID):
        halfway.incoming.connect(halfway.b.qp, halfway.listener.local_address)


@pytest.mark.rules("R-CONN-7", "A-26", "R-ACCEPT-4", "R-DEV-6")
def test_an_accept_whose_peer_has_gone_is_aborted_without_an_event(halfway: Halfway) -> None:
    told: list[object] = []
    halfway.connector.close().result(PATIENCE_S)
    error = failure(halfway.incoming.accept(halfway.b.qp, on_disconnect=lambda *_: told.append("event")))
    assert error.status in GIVEN_UP
    assert isinstance(error, (Aborted, Refused))
    callbacks_have_run(halfway.b.adapter)
    assert told == []


@pytest.mark.rules("R-COMPCONN-1", "R-DEV-6")
def test_a_complete_whose_peer_has_given_up_is_aborted(halfway: Halfway, bench: Bench) -> None:
    halfway.accept()
    bench.lose(halfway.b)
    told: list[object] = []
    pending = halfway.connector.complete_connect(on_disconnect=lambda *_: told.append("event"))
    error = pending.exception(PATIENCE_S)
    if error is None:  # it may have been quicker than the news
        assert not halfway.connector.disconnected.result(PATIENCE_S).graceful
    else:
        assert isinstance(error, NdkError)
        assert error.status in {Status.CONNECTION_ABORTED, Status.CONNECTION_INVALID, Status.CONNECTION_RESET}
        callbacks_have_run(halfway.a.adapter)
        assert told == []


@pytest.mark.rules("R-CONN-7", "R-CLOSE-10")
@pytest.mark.parametrize("when", ["before the accept", "after the accept"])
def test_closing_the_connector_gives_the_attempt_up(halfway: Halfway, when: str) -> None:
    accepting = halfway.accept() if when == "after the accept" else None
    halfway.connector.close().result(PATIENCE_S)
    error = failure(accepting if accepting is not None else halfway.incoming.accept(halfway.b.qp))
    assert error.status in GIVEN_UP


@pytest.mark.rules("A-27", "R-CONN-6")
def test_receives_outlive_a_connection_that_was_refused(halfway: Halfway, bench: Bench) -> None:
    halfway.a.qp.receive(halfway.a.mr[0:16], context="kept")
    halfway.incoming.reject()
    failure(halfway.connecting)
    assert halfway.a.cq.get_results() == []
    _, b = bench.connect(halfway.a, halfway.b)
    b.qp.send(b"hello")
    assert [result.request_context for result in halfway.a.cq.wait(PATIENCE_S)] == ["kept"]


@pytest.mark.rules("A-18", "R-DISC-5")
def test_after_the_end_neither_connector_nor_queue_pair_can_be_used_again(both: Pair, bench: Bench) -> None:
    a, b = both
    a.qp.flush()
    for end in both:
        assert not ended(end).graceful
    listener = bench.adapter(Side.PASSIVE).listen()
    for end in (a, b):
        with refused(ConnectionInvalid, Status.CONNECTION_INVALID):
            end.connector.connect(end.qp, listener.local_address)
        with refused(InvalidState, Status.CONNECTION_ACTIVE):
            end.adapter.create_connector().connect(end.qp, listener.local_address)


# ---- disconnect callbacks


@pytest.mark.rules("R-COMPCONN-2", "R-ACCEPT-5", "E-11", "R-DEV-1")
@pytest.mark.parametrize("given", [True, False])
def test_the_disconnect_callback_is_given_at_complete_and_accept_or_left_out(halfway: Halfway, given: bool) -> None:
    told: list[Connector] = []
    callback: Callable[[Connector, object], None] | None = (lambda item, _: told.append(item)) if given else None
    accepting = halfway.incoming.accept(halfway.b.qp, on_disconnect=callback)
    halfway.connecting.result(PATIENCE_S)
    halfway.connector.complete_connect(on_disconnect=callback).result(PATIENCE_S)
    accepting.result(PATIENCE_S)
    halfway.a.qp.flush()
    for end in halfway.pair:
        assert not ended(end).graceful
        callbacks_have_run(end.adapter)
    assert set(told) == ({halfway.connector, halfway.incoming} if given else set())
    assert len(told) == len(set(told))


# ---- addresses


@pytest.mark.rules("R-ADDR-3", "R-ADDR-2")
def test_both_ends_know_their_addresses(halfway: Halfway) -> None:
    assert halfway.incoming.local_address == halfway.listener.local_address
    peer = halfway.incoming.peer_address
    halfway.finish()
    assert halfway.connector.local_address == peer == halfway.incoming.peer_address
    assert halfway.connector.peer_address == halfway.listener.local_address


@pytest.mark.rules("R-ADDR-3", "R-CEV-1")
def test_the_peers_address_is_known_inside_the_connect_callback(bench: Bench) -> None:
    a, b = bench.end(), bench.end(side=Side.PASSIVE)
    found: list[tuple[str, int]] = []
    told = threading.Event()

    def on_connect(connector: Connector) -> None:
        found.append(connector.peer_address)
        connector.accept(b.qp)
        told.set()

    listener = b.adapter.create_listener(on_connect)
    listener.listen((bench.provider.addresses(Side.PASSIVE)[0], 0)).result(PATIENCE_S)
    connector = a.adapter.connect(a.qp, listener.local_address).result(PATIENCE_S)
    assert told.wait(PATIENCE_S)
    assert found == [connector.local_address]


@pytest.mark.rules("R-ADDR-4")
def test_before_there_is_an_address_there_is_none(bench: Bench) -> None:
    adapter = bench.adapter()
    connector, listener = adapter.create_connector(), adapter.create_listener()
    for name in ("local_address", "peer_address", "connection_data"):
        with refused(ConnectionInvalid, Status.CONNECTION_INVALID):
            getattr(connector, name)
    with refused(InvalidState, Status.INVALID_DEVICE_STATE):
        listener.local_address  # noqa: B018


@pytest.mark.rules("R-CONN-1", "R-PORT-3")
@pytest.mark.requires(Feature.LOOPBACK)
def test_addresses_of_each_family_can_be_connected(bench: Bench) -> None:
    active, passive = bench.adapter(), bench.adapter(Side.PASSIVE)
    for host in bench.provider.addresses(Side.PASSIVE):
        listener = passive.listen((host, 0))
        a, b = bench.end(active), bench.end(passive)
        connecting = active.connect(a.qp, listener.local_address)
        incoming = listener.next_request().result(PATIENCE_S)
        incoming.accept(b.qp)
        connector = connecting.result(PATIENCE_S)
        assert connector.peer_address == listener.local_address
        assert connector.local_address[0] in bench.provider.addresses(Side.ACTIVE)


@pytest.mark.rules("R-PORT-3")
@pytest.mark.requires(Feature.LOOPBACK)
def test_an_adapter_can_connect_to_itself(bench: Bench) -> None:
    adapter = bench.adapter()
    still_works(bench.connect(bench.end(adapter), bench.end(adapter)))


@pytest.mark.rules("R-CONN-1")
@pytest.mark.parametrize("destination", [("localhost", 1), ("127.0.0.1", 65536), ("127.0.0.1", -1), ("", 5)])
def test_what_is_no_address_is_refused_in_the_call(bench: Bench, destination: tuple[str, int]) -> None:
    end = bench.end()
    with refused(InvalidParameter, Status.INVALID_PARAMETER):
        end.adapter.create_connector().connect(end.qp, destination)


@pytest.mark.rules("R-CONN-1", "R-EP-2")
def test_the_source_may_be_given_and_must_be_the_adapters_and_free(bench: Bench) -> None:
    a, b = bench.end(), bench.end(side=Side.PASSIVE)
    listener = b.adapter.listen()
    host = bench.provider.addresses(Side.ACTIVE)[0]
    own = a.adapter.create_connector()
    connecting = own.connect(a.qp, listener.local_address, source=(host, 0))
    incoming = listener.next_request().result(PATIENCE_S)
    assert incoming.peer_address[0] == host
    foreign = bench.end(a.adapter)
    for source, status in (
        (("192.0.2.77", 0), Status.INVALID_ADDRESS),
        ((host, incoming.peer_address[1]), Status.SHARING_VIOLATION),
    ):
        error = failure(a.adapter.create_connector().connect(foreign.qp, listener.local_address, source=source))
        assert (type(error), error.status) == (AddressUnavailable, status)
    incoming.accept(b.qp)
    connecting.result(PATIENCE_S)


@pytest.mark.rules("R-CONN-2", "E-13", "R-CREATE-2")
def test_many_connections_between_two_adapters(bench: Bench) -> None:
    active, passive = bench.adapter(), bench.adapter(Side.PASSIVE)
    pairs: list[tuple[End, End]] = []
    for number in range(20):
        pairs.append(bench.connect(bench.end(active, context=number), bench.end(passive)))
    for a, b in pairs:
        b.qp.receive(b.mr[0:8])
        a.qp.send(b"x")
    for number, (a, b) in enumerate(pairs):
        assert a.cq.wait(PATIENCE_S)[0].qp_context == number
        assert b.cq.wait(PATIENCE_S)[0].bytes_transferred == 1
