"""Local addresses: who holds them and for how long; shared endpoints."""

import pytest

from softndk import Adapter, AddressUnavailable, InvalidHandle, Listener, Status
from softndk.conformance.bench import (
    PATIENCE_S,
    Bench,
    End,
    Pair,
    ended,
    failure,
    join,
    refused,
    still_works,
    until,
)
from softndk.conformance.providers import Side

DYNAMIC_PORTS = range(49152, 65536)


def own_address(bench: Bench, side: Side = Side.ACTIVE) -> tuple[str, int]:
    """The first address, with port 0."""
    return bench.provider.addresses(side)[0], 0


def connect_from(bench: Bench, end: End, other: End, listener: Listener, endpoint: object) -> Pair:
    """Connect over a shared endpoint."""
    connector = end.adapter.create_connector()
    connecting = connector.connect_with_shared_endpoint(end.qp, endpoint, listener.local_address)  # type: ignore[arg-type]
    incoming = listener.next_request().result(PATIENCE_S)
    accepting = incoming.accept(other.qp)
    connecting.result(PATIENCE_S)
    connector.complete_connect().result(PATIENCE_S)
    accepting.result(PATIENCE_S)
    end._connector, other._connector = connector, incoming
    return Pair(end, other)


@pytest.mark.rules("R-SE-1", "R-SE-2", "R-PORT-1", "R-ADDR-2")
def test_a_shared_endpoint_takes_its_address_when_it_is_made(bench: Bench) -> None:
    adapter, other = bench.adapter(), bench.adapter()
    endpoint = adapter.create_shared_endpoint(own_address(bench))
    host, port = endpoint.local_address
    assert host == own_address(bench)[0]
    assert port in DYNAMIC_PORTS
    for again in (adapter, other):
        with refused(AddressUnavailable, Status.SHARING_VIOLATION):
            again.create_shared_endpoint((host, port))
        assert failure(again.create_listener().listen((host, port))).status is Status.SHARING_VIOLATION
    endpoint.close().result(PATIENCE_S)
    other.create_shared_endpoint((host, port))


@pytest.mark.rules("A-22", "R-SE-1")
@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.0.2.77"])
def test_an_address_that_is_not_the_adapters_or_the_wildcard_is_invalid(bench: Bench, host: str) -> None:
    with refused(AddressUnavailable, Status.INVALID_ADDRESS):
        bench.adapter().create_shared_endpoint((host, 0))


@pytest.mark.rules("R-CONNSE-1", "R-SE-2", "E-13", "R-CONN-1")
def test_connections_to_different_destinations_leave_from_one_address(bench: Bench) -> None:
    active, passive = bench.adapter(), bench.adapter(Side.PASSIVE)
    endpoint = active.create_shared_endpoint(own_address(bench))
    for _ in range(3):
        pair = connect_from(bench, bench.end(active), bench.end(passive), passive.listen(), endpoint)
        assert pair.b.connector.peer_address == pair.a.connector.local_address == endpoint.local_address
        still_works(pair)


@pytest.mark.rules("R-CONNSE-1", "R-CONN-6")
def test_the_same_destination_again_exists_already_until_the_first_connector_is_closed(bench: Bench) -> None:
    active, passive = bench.adapter(), bench.adapter(Side.PASSIVE)
    endpoint = active.create_shared_endpoint(own_address(bench))
    listener = passive.listen()
    pair = connect_from(bench, bench.end(active), bench.end(passive), listener, endpoint)
    second = bench.end(active)
    again = active.create_connector().connect_with_shared_endpoint(second.qp, endpoint, listener.local_address)
    error = failure(again)
    assert (type(error), error.status) == (AddressUnavailable, Status.ADDRESS_ALREADY_EXISTS)
    still_works(pair)
    other_listener = passive.listen()
    still_works(connect_from(bench, second, bench.end(passive), other_listener, endpoint))


@pytest.mark.rules("R-CONNSE-2", "R-EP-1", "R-EP-2", "R-CLOSE-5")
def test_a_connector_holds_its_shared_endpoint_until_it_is_closed(bench: Bench) -> None:
    active, passive = bench.adapter(), bench.adapter(Side.PASSIVE)
    endpoint = active.create_shared_endpoint(own_address(bench))
    address = endpoint.local_address
    pair = connect_from(bench, bench.end(active), bench.end(passive), passive.listen(), endpoint)
    closing = endpoint.close()
    still_works(pair)
    pair.b.qp.flush()
    assert not ended(pair.a).graceful
    assert not closing.done(), "an end that is over still holds it"
    with refused(AddressUnavailable, Status.SHARING_VIOLATION):
        active.create_shared_endpoint(address)
    pair.a.connector.close().result(PATIENCE_S)
    closing.result(PATIENCE_S)
    until(lambda: free(active, address))


def free(adapter: Adapter, address: tuple[str, int]) -> bool:
    """Whether the address can be had; on TCP the system may need a moment after the last close."""
    try:
        adapter.create_shared_endpoint(address).close().result(PATIENCE_S)
    except AddressUnavailable:
        return False
    return True


@pytest.mark.rules("R-CLOSE-6", "R-CONNSE-2")
def test_a_closing_endpoint_takes_no_connect(bench: Bench) -> None:
    end = bench.end()
    endpoint = end.adapter.create_shared_endpoint(own_address(bench))
    endpoint.close()
    with refused(InvalidHandle, Status.INVALID_HANDLE):
        end.adapter.create_connector().connect_with_shared_endpoint(end.qp, endpoint, bench.nobody(end.adapter))


@pytest.mark.rules("R-CONNSE-1", "R-CONN-6")
def test_after_a_refused_connect_the_endpoint_goes_on(bench: Bench) -> None:
    active, passive = bench.adapter(), bench.adapter(Side.PASSIVE)
    endpoint = active.create_shared_endpoint(own_address(bench))
    end = bench.end(active)
    connector = active.create_connector()
    refused_one = connector.connect_with_shared_endpoint(end.qp, endpoint, bench.nobody(passive))
    assert failure(refused_one).status is Status.CONNECTION_REFUSED
    connector.close().result(PATIENCE_S)
    still_works(connect_from(bench, end, bench.end(passive), passive.listen(), endpoint))


@pytest.mark.rules("R-EP-1", "R-EP-2", "R-LISTEN-1")
def test_accepted_connectors_hold_the_address_of_their_listener(bench: Bench) -> None:
    """Even after the listener is asked to close and the connection is over."""
    active, passive = bench.adapter(), bench.adapter(Side.PASSIVE)
    listener = passive.listen()
    address = listener.local_address
    a, b = bench.end(active), bench.end(passive)
    outgoing, incoming = join(active, a.qp, b.qp, address, listener.next_request)
    closing = listener.close()
    for pending in [connector.disconnect() for connector in (outgoing, incoming)]:
        pending.result(PATIENCE_S)
    outgoing.close().result(PATIENCE_S)
    assert not closing.done()
    for adapter in (passive, bench.adapter(Side.PASSIVE)):
        assert failure(adapter.create_listener().listen(address)).status is Status.SHARING_VIOLATION
    incoming.close().result(PATIENCE_S)
    closing.result(PATIENCE_S)
    passive.listen(address)


@pytest.mark.rules("R-EP-1", "R-EP-2")
def test_a_connector_holds_its_own_address_until_it_is_closed(bench: Bench) -> None:
    pair = bench.pair()
    a, b = pair
    address = a.connector.local_address
    b.qp.flush()
    assert not ended(a).graceful
    assert failure(a.adapter.create_listener().listen(address)).status is Status.SHARING_VIOLATION
    with refused(AddressUnavailable, Status.SHARING_VIOLATION):
        a.adapter.create_shared_endpoint(address)
    other = bench.end(a.adapter)
    connecting = a.adapter.create_connector().connect(other.qp, bench.nobody(b.adapter), source=address)
    assert failure(connecting).status is Status.SHARING_VIOLATION
