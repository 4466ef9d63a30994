"""Limits of a whole adapter: how many objects, how many reads, how many unfinished start-ups of one source address."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest

from softndk import (
    Adapter,
    InsufficientResources,
    InvalidParameter,
    IwarpConfig,
    LocalToken,
    MrFlag,
    NdkObject,
    Refused,
    RemoteToken,
    Sge,
    open_adapter,
)
from softndk.ndk.addresses import source_of
from softndk.testing import pair
from tests.attack.attack_tools import PATIENCE_S, furnish, hung_up_on, mpa_request, raw_client, reply_on, reset, until
from tests.ndk.raw_peer import raw_client as raw_initiator

MAKERS: dict[str, Callable[[Adapter], NdkObject]] = {
    "max_connector_count": lambda adapter: adapter.create_connector(),
    "max_listener_count": lambda adapter: adapter.create_listener(),
    "max_shared_endpoint_count": lambda adapter: adapter.create_shared_endpoint(("127.0.0.1", 0)),
    "max_pd_count": lambda adapter: adapter.create_pd(),
    "max_cq_count": lambda adapter: adapter.create_cq(1),
    "max_qp_count": lambda adapter: parents(adapter)[0].create_qp(
        parents(adapter)[1], parents(adapter)[1], receive_queue_depth=1, initiator_queue_depth=1
    ),
    "max_srq_count": lambda adapter: parents(adapter)[0].create_srq(1),
    "max_mr_count": lambda adapter: parents(adapter)[0].register_mr(bytearray(8)),
    "max_mw_count": lambda adapter: parents(adapter)[0].create_mw(),
}


def parents(adapter: Adapter) -> tuple[Any, Any]:
    """A PD and a CQ, made once per adapter."""
    found = {type(item).__name__: item for item in adapter.open_objects}
    if "Pd" not in found:
        found = {"Pd": adapter.create_pd(), "Cq": adapter.create_cq(8)}
    return found["Pd"], found["Cq"]


class TestObjects:
    @pytest.mark.rules("R-CREATE-5")
    @pytest.mark.parametrize("name", MAKERS)
    def test_one_too_many_is_refused_and_a_close_makes_room(self, name: str) -> None:
        make = MAKERS[name]
        config = replace(IwarpConfig(), **{name: 2})  # type: ignore[arg-type]
        with open_adapter(config=config) as adapter:
            if name in ("max_qp_count", "max_srq_count", "max_mr_count", "max_mw_count"):
                parents(adapter)
            first, _ = make(adapter), make(adapter)
            before = adapter.open_objects
            with pytest.raises(InsufficientResources, match=f"limit {name}=2"):
                make(adapter)
            assert adapter.open_objects == before
            first.close().result(PATIENCE_S)
            make(adapter)

    def test_a_failed_endpoint_leaves_its_address_free(self) -> None:
        with open_adapter(config=IwarpConfig(max_shared_endpoint_count=1)) as adapter:
            first = adapter.create_shared_endpoint(("127.0.0.1", 0))
            address = first.local_address
            first.close().result(PATIENCE_S)
            other = adapter.create_shared_endpoint(("127.0.0.1", 0))
            assert other.local_address != address
            with pytest.raises(InsufficientResources):
                adapter.create_shared_endpoint(address)
            other.close().result(PATIENCE_S)
            assert adapter.create_shared_endpoint(address).local_address == address

    def test_a_request_that_finds_no_room_for_its_connector_is_rejected(self) -> None:
        with open_adapter(config=IwarpConfig(max_connector_count=1)) as adapter:
            listener = adapter.listen()
            with raw_client(listener.local_address, mpa_request()) as first:
                connector = listener.next_request().result(PATIENCE_S)
                with raw_client(listener.local_address, mpa_request()) as second:
                    assert reply_on(second).reject
                connector.close().result(PATIENCE_S)
                assert reply_on(first).reject
                with raw_client(listener.local_address, mpa_request(b"third")):
                    assert listener.next_request().result(PATIENCE_S).connection_data.private_data == b"third"
            assert adapter.query_statistics().refused_connections == 1

    def test_connections_that_end_slowly_count_too(self) -> None:
        """Who breaks a rule and never closes holds a socket until the drain limit, although its connector is closed."""
        config = IwarpConfig(max_connector_count=2, max_handshakes=1, terminate_drain_s=60.0)
        with open_adapter(config=config) as adapter:
            listener = adapter.listen()
            stubborn = []
            for _ in range(2 + 1):
                stubborn.append(raw_client(listener.local_address, mpa_request()))
                listener.next_request().result(PATIENCE_S).close().result(PATIENCE_S)
                assert reply_on(stubborn[-1]).reject
            assert hung_up_on(listener)
            assert adapter.query_statistics().refused_connections == 1
            reset(stubborn.pop())
            until(lambda: adapter._runtime.engine.count <= 4)  # listener, status and two that end
            with raw_client(listener.local_address, mpa_request(b"next")):
                assert listener.next_request().result(PATIENCE_S).connection_data.private_data == b"next"
            for sock in stubborn:
                sock.close()


class TestReadLimits:
    def test_the_adapter_offers_what_the_settings_say(self) -> None:
        config = IwarpConfig(max_inbound_read_limit=3, max_outbound_read_limit=5)
        with pair(config=config, peer_config=IwarpConfig()) as (a, b):
            info = a.adapter.query_info()
            assert (info.max_inbound_read_limit, info.max_outbound_read_limit) == (3, 5)
            data = b.connector.connection_data
            assert (data.inbound_read_limit, data.outbound_read_limit) == (5, 3)

    @pytest.mark.parametrize("value", [-1, 0x3FFF])
    def test_what_14_bits_cannot_say_is_refused(self, value: int) -> None:
        with pytest.raises(InvalidParameter, match="max_inbound_read_limit"):
            IwarpConfig(max_inbound_read_limit=value)


class TestHandshakesPerAddress:
    def test_one_address_cannot_take_all_places(self) -> None:
        with open_adapter(config=IwarpConfig(max_handshakes=8, max_handshakes_per_address=2)) as adapter:
            listener = adapter.listen()
            silent = [raw_client(listener.local_address) for _ in range(2)]
            until(lambda: len(listener._handshakes) == 2)
            assert hung_up_on(listener)
            assert adapter.query_statistics().refused_connections == 1
            with raw_client(listener.local_address, mpa_request(b"neighbour"), source="127.0.0.2"):
                assert listener.next_request().result(PATIENCE_S).connection_data.private_data == b"neighbour"
            silent[0].close()
            until(lambda: len(listener._handshakes) == 1)
            with raw_client(listener.local_address, mpa_request(b"again")):
                assert listener.next_request().result(PATIENCE_S).connection_data.private_data == b"again"
            silent[1].close()
            until(lambda: not listener._handshakes)
            assert listener._handshakes_of == {}


@pytest.mark.parametrize(
    ("host", "source"),
    [
        ("127.0.0.1", "127.0.0.1"),
        ("::1", "::/64"),
        ("2001:db8:1:2:3:4:5:6", "2001:db8:1:2::/64"),
        ("2001:db8:1:2:ffff::1", "2001:db8:1:2::/64"),
        ("2001:db8:1:3::1", "2001:db8:1:3::/64"),
        ("fe80::1%lo", "fe80::/64"),
    ],
)
def test_of_ipv6_a_network_is_one_source(host: str, source: str) -> None:
    """One customer usually has all addresses of a /64 network: a limit for each of them would be none."""
    assert source_of(host) == source


class TestRequestsPerAddress:
    def test_one_address_cannot_fill_the_queue(self) -> None:
        config = IwarpConfig(max_pending_requests=8, max_pending_requests_per_address=2)
        with open_adapter(config=config) as adapter:
            listener = adapter.listen()
            asking = [raw_client(listener.local_address, mpa_request(b"many")) for _ in range(2)]
            until(lambda: len(listener._requests) == 2)
            with raw_client(listener.local_address, mpa_request()) as third:
                assert reply_on(third).reject
            assert adapter.query_statistics().refused_connections == 1
            with raw_client(listener.local_address, mpa_request(b"neighbour"), source="127.0.0.2"):
                until(lambda: len(listener._requests) == 3)
                for waiting in (b"many", b"many", b"neighbour"):
                    connector = listener.next_request().result(PATIENCE_S)
                    assert connector.connection_data.private_data == waiting
                    connector.reject()
            with raw_client(listener.local_address, mpa_request(b"again")):
                assert listener.next_request().result(PATIENCE_S).connection_data.private_data == b"again"
            for sock in asking:
                sock.close()

    def test_requests_of_one_address_that_has_gone_make_room(self) -> None:
        config = IwarpConfig(max_pending_requests=8, max_pending_requests_per_address=1)
        with open_adapter(config=config) as adapter:
            listener = adapter.listen()
            gone = raw_client(listener.local_address, mpa_request(b"gone"))
            until(lambda: len(listener._requests) == 1)
            reset(gone)
            until(lambda: adapter.query_statistics().connect_failure == 1)
            with raw_client(listener.local_address, mpa_request(b"alive")):
                until(lambda: [item.connection_data.private_data for item in tuple(listener._requests)] == [b"alive"])


class TestCounters:
    def test_a_guessed_token_is_counted_as_a_guess_and_as_a_fault(self) -> None:
        with raw_initiator() as (peer, end):
            peer.send_write(0xDEADBE01, 0, b"x")
            assert (peer.read_terminate().layer, end.connector.disconnected.result(PATIENCE_S).graceful) == (1, False)
            statistics = end.adapter.query_statistics()
            assert (statistics.refused_tokens, statistics.peer_faults) == (1, 1)

    def test_a_fault_that_is_no_guess(self) -> None:
        with raw_initiator() as (peer, end):
            peer.send(peer.fpdu(b"\x41\x43" + bytes(12), damaged=True))
            peer.read_terminate()
            end.connector.disconnected.result(PATIENCE_S)
            statistics = end.adapter.query_statistics()
            assert (statistics.refused_tokens, statistics.peer_faults) == (0, 1)

    def test_what_this_side_does_wrong_is_no_fault_of_the_peer(self) -> None:
        with pair() as (a, b):
            gone = a.pd.register_mr(bytearray(8), MrFlag.ALLOW_LOCAL_WRITE)
            token, address = gone.local_token, gone.address
            gone.close().result(PATIENCE_S)
            a.qp.send(Sge(address, 8, LocalToken(token)))
            assert not b.connector.disconnected.result(PATIENCE_S).graceful
            for end in (a, b):
                assert end.adapter.query_statistics().peer_faults == 0

    def test_the_guesser_itself_has_done_nothing_to_its_own_adapter(self) -> None:
        with pair() as (a, b):
            a.qp.write(b"x", 0, RemoteToken(0xDEADBE01))
            b.connector.disconnected.result(PATIENCE_S)
            a.connector.disconnected.result(PATIENCE_S)
            assert a.adapter.query_statistics().peer_faults == 0
            assert a.adapter.query_statistics().refused_tokens == 0
            assert b.adapter.query_statistics().refused_tokens == 1

    def test_a_pause_counts_those_that_it_turns_away(self) -> None:
        with open_adapter() as active, open_adapter() as passive:
            listener = passive.listen()
            listener.control_connect_events(pause=True)
            with pytest.raises(Refused):
                active.connect(furnish(active).qp(), listener.local_address).result(PATIENCE_S)
            assert passive.query_statistics().refused_connections == 1
