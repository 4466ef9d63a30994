"""Listeners: where they listen, whom they tell, pausing."""

import threading

import pytest

from softndk import AddressUnavailable, Connector, InvalidParameter, InvalidState, Refused, Status
from softndk.conformance.bench import PATIENCE_S, Bench, Pair, failure, refused, still_works
from softndk.conformance.providers import Side

DYNAMIC_PORTS = range(49152, 65536)


@pytest.mark.rules("R-LISTEN-1", "R-ADDR-2", "R-PORT-1")
def test_port_0_gets_a_dynamic_port_which_the_listener_tells(bench: Bench) -> None:
    adapter = bench.adapter(Side.PASSIVE)
    host = bench.provider.addresses(Side.PASSIVE)[0]
    ports = set()
    for _ in range(10):
        listener = adapter.create_listener()
        listener.listen((host, 0)).result(PATIENCE_S)
        assert listener.local_address[0] == host
        ports.add(listener.local_address[1])
    assert len(ports) == 10
    assert all(port in DYNAMIC_PORTS for port in ports)


@pytest.mark.rules("R-LISTEN-1", "R-EP-2")
def test_an_address_in_use_is_a_sharing_violation(bench: Bench) -> None:
    """Of the own adapter as of another one."""
    first, other = bench.adapter(Side.PASSIVE), bench.adapter(Side.PASSIVE)
    address = first.listen().local_address
    for adapter in (first, other):
        error = failure(adapter.create_listener().listen(address))
        assert (type(error), error.status) == (AddressUnavailable, Status.SHARING_VIOLATION)
        with refused(AddressUnavailable, Status.SHARING_VIOLATION):
            adapter.listen(address)


@pytest.mark.rules("R-LISTEN-3")
def test_a_listener_listens_once(bench: Bench) -> None:
    listener = bench.adapter(Side.PASSIVE).listen()
    with refused(InvalidState, Status.INVALID_DEVICE_STATE):
        listener.listen((listener.local_address[0], 0))


@pytest.mark.rules("R-LISTEN-3")
def test_after_a_failed_listen_another_one_is_possible(bench: Bench) -> None:
    adapter = bench.adapter(Side.PASSIVE)
    taken = adapter.listen().local_address
    listener = adapter.create_listener()
    failure(listener.listen(taken))
    listener.listen((taken[0], 0)).result(PATIENCE_S)


@pytest.mark.rules("R-LISTEN-1", "R-LISTEN-4")
def test_an_address_that_is_not_the_adapters_is_invalid(bench: Bench) -> None:
    error = failure(bench.adapter(Side.PASSIVE).create_listener().listen(("192.0.2.77", 0)))
    assert (type(error), error.status) == (AddressUnavailable, Status.INVALID_ADDRESS)


@pytest.mark.rules("R-LISTEN-4", "R-CONN-1")
@pytest.mark.parametrize("address", [("localhost", 0), ("127.0.0.1", 70000), ("127.0.0.1", -1)])
def test_what_is_no_address_is_refused_in_the_call(bench: Bench, address: tuple[str, int]) -> None:
    with refused(InvalidParameter, Status.INVALID_PARAMETER):
        bench.adapter(Side.PASSIVE).create_listener().listen(address)


@pytest.mark.rules("A-22", "R-LISTEN-4")
def test_the_wildcard_covers_the_adapters_addresses(bench: Bench) -> None:
    active, passive = bench.adapter(), bench.adapter(Side.PASSIVE)
    for host in bench.provider.addresses(Side.PASSIVE):
        listener = passive.create_listener()
        listener.listen(("::" if ":" in host else "0.0.0.0", 0)).result(PATIENCE_S)
        a, b = bench.end(active), bench.end(passive)
        connecting = active.connect(a.qp, (host, listener.local_address[1]))
        incoming = listener.next_request().result(PATIENCE_S)
        incoming.accept(b.qp)
        connecting.result(PATIENCE_S)
        assert incoming.local_address == (host, listener.local_address[1])


@pytest.mark.rules("R-CEV-1", "R-CEV-3")
def test_each_request_gives_one_connector_of_its_own(bench: Bench) -> None:
    active, passive = bench.adapter(), bench.adapter(Side.PASSIVE)
    told: list[Connector] = []
    all_told = threading.Event()

    def on_connect(connector: Connector) -> None:
        told.append(connector)
        if len(told) == 5:
            all_told.set()

    listener = passive.create_listener(on_connect)
    listener.listen((bench.provider.addresses(Side.PASSIVE)[0], 0)).result(PATIENCE_S)
    pendings = [
        active.connect(bench.end(active).qp, listener.local_address, private_data=bytes([number]))
        for number in range(5)
    ]
    assert all_told.wait(PATIENCE_S)
    assert len(set(told)) == 5
    assert {connector.connection_data.private_data[0] for connector in told} == set(range(5))
    for connector in told:
        connector.reject()
    for pending in pendings:
        failure(pending)


@pytest.mark.rules("R-CEV-4")
def test_events_of_one_listener_do_not_overlap(bench: Bench) -> None:
    active, passive = bench.adapter(), bench.adapter(Side.PASSIVE)
    inside, most = [0], [0]
    entered, leave = threading.Semaphore(0), threading.Semaphore(0)

    def on_connect(connector: Connector) -> None:
        inside[0] += 1
        most[0] = max(most[0], inside[0])
        entered.release()
        leave.acquire(timeout=PATIENCE_S)
        inside[0] -= 1
        connector.reject()

    listener = passive.create_listener(on_connect)
    listener.listen((bench.provider.addresses(Side.PASSIVE)[0], 0)).result(PATIENCE_S)
    pendings = [active.connect(bench.end(active).qp, listener.local_address) for _ in range(3)]
    for _ in range(3):
        assert entered.acquire(timeout=PATIENCE_S)
        leave.release()
    for pending in pendings:
        failure(pending)
    assert most == [1]


@pytest.mark.rules("R-PAUSE-1", "R-PAUSE-2", "R-PAUSE-3")
def test_a_paused_listener_is_as_if_it_were_not_there(bench: Bench) -> None:
    active, passive = bench.adapter(), bench.adapter(Side.PASSIVE)
    listener = passive.listen()
    early = bench.end(active)
    early_connecting = active.connect(early.qp, listener.local_address)
    incoming = listener.next_request().result(PATIENCE_S)
    listener.control_connect_events(pause=True)
    for _ in range(3):
        error = failure(active.connect(bench.end(active).qp, listener.local_address))
        assert (type(error), error.status) == (Refused, Status.CONNECTION_REFUSED)
    accepted = bench.end(passive)
    incoming.accept(accepted.qp)
    early._connector, accepted._connector = early_connecting.result(PATIENCE_S), incoming
    still_works(Pair(early, accepted))
    assert not listener.next_request().done(), "no request was queued"
    listener.control_connect_events(pause=False)
    late = bench.end(active)
    connecting = active.connect(late.qp, listener.local_address)
    taken = listener.next_request().result(PATIENCE_S)
    taken.accept(bench.end(passive).qp)
    connecting.result(PATIENCE_S)
