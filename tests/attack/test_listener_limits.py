"""Attacks on a listener: requests that get lost, peers that flood, stall, vanish or come while it pauses."""

import select
import socket

import pytest

from softndk import Adapter, Connector, IwarpConfig, Listener, Refused, open_adapter
from tests.attack.attack_tools import (
    PATIENCE_S,
    callbacks_have_run,
    ended,
    held_callbacks,
    hosts,
    hung_up_on,
    in_thread,
    mpa_request,
    raw_client,
    reply_on,
    reset,
    until,
)


def request_waits(listener: Listener) -> None:
    """Until a request waits for next_request."""
    assert select.select([listener.fileno()], [], [], PATIENCE_S)[0]


def asking(adapter: Adapter) -> list[bytes]:
    """Private data of every connector that is there."""
    return [item.connection_data.private_data for item in adapter.open_objects if isinstance(item, Connector)]


def refused(sock: socket.socket) -> bool:
    """Whether the listener says no, by a rejecting reply or by hanging up."""
    try:
        return reply_on(sock).reject
    except (AssertionError, ConnectionError):
        return True


class TestNoRequestIsLost:
    @pytest.mark.parametrize("kept", [False, True])
    def test_one_that_comes_between_two_calls_of_next_request(self, kept: bool) -> None:
        with open_adapter() as adapter:
            listener = adapter.listen()
            earlier = listener.next_request()
            with pytest.raises(TimeoutError):
                earlier.result(0)
            if not kept:
                del earlier
            with raw_client(listener.local_address, mpa_request(b"here I am")):
                request_waits(listener)
                connector = listener.next_request().result(PATIENCE_S)
                assert connector.connection_data.private_data == b"here I am"

    def test_one_that_comes_when_the_wait_for_it_has_been_cancelled(self) -> None:
        with open_adapter() as adapter:
            listener = adapter.listen()
            waiting = listener.next_request()
            assert waiting.cancel()
            with raw_client(listener.local_address, mpa_request(b"here I am")):
                connector = listener.next_request().result(PATIENCE_S)
                assert connector.connection_data.private_data == b"here I am"

    def test_an_unfinished_call_is_returned_again(self) -> None:
        with open_adapter() as adapter:
            listener = adapter.listen()
            assert listener.next_request() is listener.next_request()

    def test_the_descriptor_tells_of_requests_that_still_wait(self) -> None:
        with open_adapter() as adapter:
            listener = adapter.listen()
            with raw_client(listener.local_address, mpa_request()), raw_client(listener.local_address, mpa_request()):
                for _ in range(2):
                    request_waits(listener)
                    listener.next_request().result(PATIENCE_S)
                assert not select.select([listener.fileno()], [], [], 0)[0]


class TestFloods:
    CONFIG = IwarpConfig(max_pending_requests=2)

    def test_requests_beyond_the_limit_are_refused_while_the_callback_is_busy(self) -> None:
        told: list[Connector] = []
        with open_adapter(config=self.CONFIG) as adapter:
            listener = adapter.create_listener(told.append)
            listener.listen(("127.0.0.1", 0)).result(0)
            with held_callbacks(adapter):
                flood = [raw_client(listener.local_address, mpa_request()) for _ in range(5)]
                assert sum(refused(sock) for sock in flood[2:]) == 3
            callbacks_have_run(adapter)
            assert len(told) == 2
            for sock in flood:
                sock.close()

    def test_claimed_requests_that_are_not_answered_count(self) -> None:
        """max_pending_requests: "waiting for accept or reject"."""
        told: list[Connector] = []
        with open_adapter(config=self.CONFIG) as adapter:
            listener = adapter.create_listener(told.append)
            listener.listen(("127.0.0.1", 0)).result(0)
            first = raw_client(listener.local_address, mpa_request())
            second = raw_client(listener.local_address, mpa_request())
            until(lambda: len(told) == 2)
            with raw_client(listener.local_address, mpa_request()) as third:
                assert refused(third)
            told[0].reject()
            with raw_client(listener.local_address, mpa_request()):
                until(lambda: len(told) == 3)
            first.close()
            second.close()

    def test_peers_that_have_gone_do_not_fill_the_queue(self) -> None:
        with open_adapter(config=self.CONFIG) as adapter:
            listener = adapter.listen()
            for count in (1, 2):
                peer = raw_client(listener.local_address, mpa_request(b"gone"))
                until(lambda count=count: len(asking(adapter)) == count)  # type: ignore[misc]
                reset(peer)
                until(lambda count=count: adapter.query_statistics().connect_failure == count)  # type: ignore[misc]
            with raw_client(listener.local_address, mpa_request(b"alive")):
                until(lambda: b"alive" in asking(adapter))
                assert listener.next_request().result(PATIENCE_S).connection_data.private_data == b"alive"

    def test_a_dead_request_of_the_callback_kind_counts_until_it_is_told(self) -> None:
        """A peer that asks and vanishes, over and over, may not fill the memory of a busy program."""
        told: list[Connector] = []
        with open_adapter(config=self.CONFIG) as adapter:
            listener = adapter.create_listener(told.append)
            listener.listen(("127.0.0.1", 0)).result(0)
            with held_callbacks(adapter):
                for count in range(1, 7):
                    sock = raw_client(listener.local_address, mpa_request())
                    if count <= 2:
                        until(lambda count=count: len(asking(adapter)) == count)  # type: ignore[misc]
                        reset(sock)
                        until(lambda count=count: adapter.query_statistics().connect_failure == count)  # type: ignore[misc]
                    else:
                        assert refused(sock)
                        sock.close()
            callbacks_have_run(adapter)
            assert len(told) == 2


class TestHandshakes:
    def test_one_too_many_is_reset_and_a_place_is_free_again_later(self) -> None:
        with open_adapter(config=IwarpConfig(max_handshakes=2)) as adapter:
            listener = adapter.listen()
            first, second = raw_client(listener.local_address), raw_client(listener.local_address)
            assert hung_up_on(listener)
            first.sendall(mpa_request(b"first"))
            assert listener.next_request().result(PATIENCE_S).connection_data.private_data == b"first"
            with raw_client(listener.local_address, mpa_request(b"fourth")):
                assert listener.next_request().result(PATIENCE_S).connection_data.private_data == b"fourth"
            first.close()
            second.close()

    def test_a_peer_that_sends_octet_by_octet_gets_no_more_time(self) -> None:
        with open_adapter(config=IwarpConfig(accept_timeout_s=0.3, max_handshakes=1)) as adapter:
            listener = adapter.listen()
            with raw_client(listener.local_address) as slow:
                slow.sendall(mpa_request()[:1])
                slow.sendall(mpa_request()[1:2])
                assert ended(slow)
            assert adapter.query_statistics().connect_failure == 1
            with raw_client(listener.local_address, mpa_request(b"quick")):
                assert listener.next_request().result(PATIENCE_S).connection_data.private_data == b"quick"

    def test_refused_peers_that_stay_count_as_handshakes(self) -> None:
        """Who is told no and does not hang up holds a socket here until the drain limit: those are limited too."""
        config = IwarpConfig(max_handshakes=2, max_pending_requests=1, terminate_drain_s=60.0, accept_timeout_s=60.0)
        with open_adapter(config=config) as adapter:
            listener = adapter.listen()
            taken = raw_client(listener.local_address, mpa_request())
            request_waits(listener)
            stubborn = [raw_client(listener.local_address, mpa_request()) for _ in range(2)]
            assert all(reply_on(sock).reject for sock in stubborn)
            assert hung_up_on(listener)
            for sock in (taken, *stubborn):
                sock.close()

    def test_closing_the_listener_hangs_up_on_all_of_them(self) -> None:
        with open_adapter() as adapter:
            listener = adapter.listen()
            silent = raw_client(listener.local_address)
            asking = raw_client(listener.local_address, mpa_request())
            request_waits(listener)
            closing = listener.close()
            assert ended(silent)
            assert reply_on(asking).reject
            assert ended(asking)
            assert closing.result(PATIENCE_S) is None
            assert adapter.open_objects == ()
            silent.close()
            asking.close()


class TestPausing:
    def test_who_comes_during_a_pause_is_refused_and_who_comes_after_it_is_not(self) -> None:
        with hosts() as (active, passive):
            listener = passive.adapter.listen()
            listener.control_connect_events(pause=True)
            qp = active.qp()
            with pytest.raises(Refused):
                active.adapter.connect(qp, listener.local_address).result(PATIENCE_S)
            listener.control_connect_events(pause=False)
            connecting = active.adapter.connect(qp, listener.local_address)
            listener.next_request().result(PATIENCE_S).accept(passive.qp())
            connecting.result(PATIENCE_S)

    def test_a_reset_before_the_active_side_has_seen_the_connection_is_a_refusal_too(self) -> None:
        """The reset may come so soon that for the active side TCP never was up (R-PAUSE-1)."""
        with hosts() as (active, _), socket.create_server(("127.0.0.1", 0)) as server:
            with active.adapter._lock:  # the engine cannot look at the socket meanwhile
                connecting = active.adapter.connect(active.qp(), server.getsockname())
                reset(server.accept()[0])
            with pytest.raises(Refused):
                connecting.result(PATIENCE_S)

    def test_a_request_that_has_begun_before_the_pause_is_refused(self) -> None:
        with open_adapter() as adapter:
            listener = adapter.listen()
            with raw_client(listener.local_address, mpa_request()[:10]) as peer:
                until(lambda: len(listener._handshakes) == 1)
                listener.control_connect_events(pause=True)
                peer.sendall(mpa_request()[10:])
                assert reply_on(peer).reject


class TestIterating:
    def test_iteration_gives_what_comes_and_ends_with_the_listener(self) -> None:
        with open_adapter() as adapter:
            listener = adapter.listen()
            requests = iter(listener)
            with raw_client(listener.local_address, mpa_request(b"1")):
                assert in_thread(lambda: next(requests)).result(PATIENCE_S).connection_data.private_data == b"1"
            rest = in_thread(lambda: list(requests))
            until(lambda: len(listener._line) == 1)
            listener.close()
            assert rest.result(PATIENCE_S) == []
