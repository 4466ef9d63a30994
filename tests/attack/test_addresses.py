"""Attacks with addresses: other spellings, scopes, wildcards, families, ports in use and ports of the dead."""

import gc
import socket
import warnings
from contextlib import suppress

import pytest

from softndk import Adapter, AddressUnavailable, InvalidParameter, NdkError, Status, Unreachable, open_adapter
from softndk.conformance.providers import has_ipv6
from tests.attack.attack_tools import PATIENCE_S, Host, connect, furnish, host, until


def link_local() -> str | None:
    """A link-local address of this machine, with its interface's name."""
    try:
        with open("/proc/net/if_inet6", encoding="ascii") as table:
            rows = [line.split() for line in table]
    except OSError:
        return None
    for digits, _, _, scope, _, name in rows:
        if scope == "20":
            return f"{':'.join(digits[at : at + 4] for at in range(0, 32, 4))}%{name}"
    return None


ipv6 = pytest.mark.skipif(not has_ipv6(), reason="no IPv6 on this machine")


def refusal(error: BaseException | None) -> Status:
    assert isinstance(error, NdkError)
    return error.status


def round_trip(active: Host, passive: Host, address: tuple[str, int]) -> None:
    """A connection to a listener at `address` comes up."""
    with passive.adapter.listen(address) as listener:
        outgoing, incoming = connect(active, active.qp(), passive.qp(), listener)
        assert outgoing.peer_address == incoming.local_address
        assert outgoing.local_address == incoming.peer_address


class TestSpellings:
    @ipv6
    def test_of_one_ipv6_address_mean_the_same(self) -> None:
        with host("0:0:0:0:0:0:0:1") as active, host("::1") as passive:
            round_trip(active, passive, ("0::0001", 0))
            connector = active.adapter.create_connector()
            connecting = connector.connect(active.qp(), ("::1", 9), source=("0:0::1", 0))
            assert refusal(connecting.exception(PATIENCE_S)) is Status.CONNECTION_REFUSED

    @ipv6
    def test_of_one_port_in_use_mean_the_same(self) -> None:
        with open_adapter("::1") as adapter:
            port = adapter.listen().local_address[1]
            with pytest.raises(AddressUnavailable):
                adapter.listen(("0:0:0:0:0:0:0:1", port))

    @pytest.mark.skipif(link_local() is None, reason="no link-local IPv6 address on this machine")
    def test_of_a_scope_by_number_and_by_name_mean_the_same(self) -> None:
        address = link_local()
        assert address is not None
        bare, _, name = address.partition("%")
        by_number = f"{bare}%{socket.if_nametoindex(name)}"
        with host(address) as active, host(by_number) as passive:
            assert active.adapter.open_objects
            round_trip(active, passive, (by_number, 0))
            round_trip(active, passive, (address, 0))

    @ipv6
    def test_a_scope_that_names_no_interface(self) -> None:
        with host("::1") as active:
            connecting = active.adapter.connect(active.qp(), ("fe80::1%no-such-if", 5))
            assert isinstance(connecting.exception(PATIENCE_S), NdkError)
            with pytest.raises(NdkError):
                open_adapter("fe80::1%no-such-if")
            with pytest.raises(AddressUnavailable):
                active.adapter.listen(("fe80::1%no-such-if", 0))


class TestWildcards:
    def test_a_listener_at_the_wildcard_is_at_the_adapters_addresses_only(self) -> None:
        with host(), open_adapter(("127.0.0.2", "127.0.0.3")) as adapter, host() as other:
            passive = furnish(adapter)
            listener = adapter.listen(("0.0.0.0", 0))
            port = listener.local_address[1]
            for address in ("127.0.0.2", "127.0.0.3"):
                connecting = other.adapter.connect(other.qp(), (address, port))
                incoming = listener.next_request().result(PATIENCE_S)
                assert incoming.local_address == (address, port)
                incoming.accept(passive.qp())
                connecting.result(PATIENCE_S)
            elsewhere = other.adapter.connect(other.qp(), ("127.0.0.1", port))
            assert refusal(elsewhere.exception(PATIENCE_S)) is Status.CONNECTION_REFUSED

    def test_a_taken_port_on_one_of_the_addresses_leaves_nothing_open(self) -> None:
        with open_adapter(("127.0.0.2", "127.0.0.3")) as adapter, open_adapter("127.0.0.3") as other:
            port = other.listen().local_address[1]
            with pytest.raises(AddressUnavailable):
                adapter.listen(("0.0.0.0", port))
            assert adapter.open_objects == ()
            with open_adapter("127.0.0.2") as third:
                assert third.listen(("127.0.0.2", port)).local_address == ("127.0.0.2", port)

    def test_none_for_the_local_end_of_a_connect(self) -> None:
        """A-22."""
        with host() as active:
            connecting = active.adapter.create_connector().connect(active.qp(), ("127.0.0.1", 9), source=("0.0.0.0", 0))
            assert refusal(connecting.exception(PATIENCE_S)) is Status.INVALID_ADDRESS

    @ipv6
    def test_of_a_family_that_the_adapter_does_not_have(self) -> None:
        with open_adapter() as adapter, pytest.raises(AddressUnavailable) as refused:
            adapter.listen(("::", 0))
        assert refused.value.status is Status.INVALID_ADDRESS


class TestFamilies:
    @ipv6
    def test_source_and_destination_of_different_ones_are_the_callers_error(self) -> None:
        with open_adapter(("127.0.0.1", "::1")) as adapter:
            active = furnish(adapter)
            connector, qp = adapter.create_connector(), active.qp()
            before = repr(connector), repr(qp)
            with pytest.raises(InvalidParameter, match="families"):
                connector.connect(qp, ("127.0.0.1", 9), source=("::1", 0))
            assert (repr(connector), repr(qp)) == before
            connecting = connector.connect(qp, ("::1", 9))
            assert refusal(connecting.exception(PATIENCE_S)) is Status.CONNECTION_REFUSED

    def test_a_destination_that_the_adapter_cannot_reach_from_its_address(self) -> None:
        with host() as active:
            error = active.adapter.connect(active.qp(), ("192.0.2.1", 9)).exception(PATIENCE_S)
            assert isinstance(error, (Unreachable, AddressUnavailable))


class TestHeldEndpoints:
    """R-EP: an address is free again when all that used it are closed, or forgotten."""

    def test_of_a_forgotten_adapter_are_free_again(self) -> None:
        def forget() -> tuple[str, int]:
            adapter = open_adapter()
            adapter.create_shared_endpoint(("127.0.0.1", 0))
            return adapter.listen().local_address

        def listens(adapter: Adapter) -> bool:
            gc.collect()
            with suppress(AddressUnavailable):
                return adapter.listen(address).local_address == address
            return False

        with warnings.catch_warnings(), open_adapter() as adapter:
            warnings.simplefilter("ignore")
            address = forget()
            until(lambda: listens(adapter))  # an engine's thread may hold the forgotten one for a moment

    def test_of_a_connection_are_held_until_both_are_closed(self) -> None:
        with host() as active, host() as passive:
            listener = passive.adapter.listen()
            address = listener.local_address
            _, incoming = connect(active, active.qp(), passive.qp(), listener)
            closing = listener.close()
            with pytest.raises(AddressUnavailable) as refused:
                passive.adapter.listen(address)
            assert refused.value.status is Status.SHARING_VIOLATION
            incoming.close().result(PATIENCE_S)
            closing.result(PATIENCE_S)
            assert passive.adapter.listen(address).local_address == address

    @ipv6
    def test_after_a_connect_whose_destination_has_an_unknown_scope(self) -> None:
        with host("::1") as active:
            endpoint = active.adapter.create_shared_endpoint(("::1", 0))
            destination = ("fe80::1%no-such-if", 5)
            for _ in range(2):
                connector = active.adapter.create_connector()
                connecting = connector.connect_with_shared_endpoint(active.qp(), endpoint, destination)
                assert refusal(connecting.exception(PATIENCE_S)) is not Status.ADDRESS_ALREADY_EXISTS
                connector.close().result(PATIENCE_S)
            endpoint.close().result(PATIENCE_S)

    @ipv6
    def test_a_shared_one_of_another_family_than_the_destination(self) -> None:
        with host() as active:
            endpoint = active.adapter.create_shared_endpoint(("127.0.0.1", 0))
            connector, qp = active.adapter.create_connector(), active.qp()
            with pytest.raises(InvalidParameter, match="families"):
                connector.connect_with_shared_endpoint(qp, endpoint, ("::1", 5))
            connector.close().result(PATIENCE_S)
            assert endpoint.close().result(PATIENCE_S) is None
