"""softndk.drivers.tcp: sockets under a core. Real ones, on loopback."""

import errno
import os
import resource
import select
import socket
import struct
import sys
import threading
from collections.abc import Iterator
from typing import Any

import pytest

from softndk.drivers.channel import WRITE
from softndk.drivers.runtime import Runtime
from softndk.drivers.sockets import Address, TcpOptions, socket_address
from softndk.drivers.tcp import IOV_MAX, SEND_BUDGET, SEND_BUFFERS, Octets, TcpStream
from softndk.drivers.tcp_listener import ACCEPT_BATCH, TcpListener
from softndk.iwarp.events import Finish
from tests.deaf_socket import deafen
from tests.unit.drivers.driver_parts import PATIENCE_S, ByteCore, End, listening, pair, running, until

ABORTIVE = struct.pack("ii", 1, 0)


@pytest.fixture
def runtime() -> Iterator[Runtime]:
    with running() as made:
        yield made


@pytest.fixture
def unraisable(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    seen: list[Any] = []
    monkeypatch.setattr(sys, "unraisablehook", seen.append)
    return seen


@pytest.fixture
def plain_listener() -> Iterator[socket.socket]:
    with socket.create_server(("127.0.0.1", 0)) as sock:
        sock.settimeout(PATIENCE_S)
        yield sock


def connected(
    runtime: Runtime,
    plain_listener: socket.socket,
    kind: type[ByteCore] = ByteCore,
    options: TcpOptions | None = None,
) -> tuple[End, socket.socket]:
    """An end of ours and a plain socket as its peer."""
    end = End(runtime, kind(), options)
    with runtime.lock:
        end.stream.connect(plain_listener.getsockname())
    peer, _ = plain_listener.accept()
    peer.settimeout(PATIENCE_S)
    end.wait_for(lambda: "connected" in end.core.log)
    return end, peer


def receive_all(sock: socket.socket) -> bytes:
    """Everything until the peer's FIN."""
    parts = []
    while part := sock.recv(1 << 20):
        parts.append(part)
    return b"".join(parts)


def receive_exactly(sock: socket.socket, count: int) -> bytes:
    data = bytearray()
    while len(data) < count:
        part = sock.recv(count - len(data))
        assert part, "ended early"
        data += part
    return bytes(data)


def reset(peer: socket.socket, end: End) -> None:
    """Reset by `peer`, and wait until it has come."""
    peer.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, ABORTIVE)
    peer.close()
    poll = select.poll()
    poll.register(end.stream._open_socket(), select.POLLERR)
    assert poll.poll(PATIENCE_S * 1000)


class BeginsAnew(ByteCore):
    """Answers a FIN with a new connection."""

    def connected(self, now: float, mss: int) -> None:
        super().connected(now, mss)
        self.ending = Finish.KEEP

    def receive_eof(self, now: float) -> None:
        super().receive_eof(now)
        self.outgoing.clear()
        self.ending = Finish.RECONNECT


class Pieces(ByteCore):
    """Gives what it sends in small pieces of changing types."""

    def __init__(self, size: int = 999) -> None:
        super().__init__()
        self.size = size

    def data_to_send(self, now: float) -> list[memoryview | bytes | bytearray]:
        views = (bytearray, bytes, memoryview)
        ready = bytes(self.outgoing[: 300 * 1000])
        return [
            views[n % 3](ready[start : start + self.size]) for n, start in enumerate(range(0, len(ready), self.size))
        ]


class TestAddresses:
    @pytest.mark.parametrize(
        ("address", "expected"),
        [
            (("127.0.0.1", 4791), (socket.AF_INET, ("127.0.0.1", 4791))),
            (("0.0.0.0", 0), (socket.AF_INET, ("0.0.0.0", 0))),
            (("::1", 65535), (socket.AF_INET6, ("::1", 65535, 0, 0))),
            (("fe80::1%7", 1), (socket.AF_INET6, ("fe80::1", 1, 0, 7))),
        ],
    )
    def test_numeric_ones_are_taken_as_they_are(self, address: Address, expected: object) -> None:
        assert socket_address(address) == expected

    def test_a_scope_may_be_an_interface_of_this_machine(self) -> None:
        index, name = socket.if_nameindex()[0]
        assert socket_address((f"fe80::1%{name}", 1))[1] == ("fe80::1", 1, 0, index)

    def test_a_scope_that_names_no_interface_is_an_oserror(self) -> None:
        with pytest.raises(OSError, match="no network interface") as caught:
            socket_address(("fe80::1%nosuchif0", 1))
        assert caught.value.errno == errno.ENODEV

    @pytest.mark.parametrize(
        "address",
        [
            ("localhost", 1),
            ("example.org", 1),
            ("", 1),
            ("127.1", 1),
            ("127.0.0.1", -1),
            ("127.0.0.1", 65536),
            ("127.0.0.1", "http"),
            (None, 1),
        ],
    )
    def test_nothing_is_ever_resolved(self, address: Any, monkeypatch: pytest.MonkeyPatch) -> None:
        def no_lookup(*args: object) -> None:
            pytest.fail("a name was looked up")

        monkeypatch.setattr(socket, "getaddrinfo", no_lookup)
        with pytest.raises(ValueError, match="address"):
            socket_address(address)


class TestConnecting:
    @pytest.mark.parametrize("host", ["127.0.0.1", "::1"])
    def test_both_ends_learn_that_tcp_is_up(self, host: str) -> None:
        accepted: list[End] = []
        with running("near") as near, running("far") as far:
            listener = listening(far, ByteCore, accepted, host)
            end = End(near, ByteCore())
            assert listener.local_address is not None
            with near.lock:
                end.stream.connect(listener.local_address, (host, 0))
            end.wait_for(lambda: "connected" in end.core.log)
            until(lambda: bool(accepted))
            other = accepted[0]
            assert end.core.log == other.core.log == ["connected"]
            assert end.stream.peer_address == listener.local_address == other.stream.local_address
            assert end.stream.local_address == other.stream.peer_address
            end.send(b"ping")
            other.wait_for(lambda: other.core.received == b"ping")

    def test_the_mss_is_the_connections_own(self, runtime: Runtime, plain_listener: socket.socket) -> None:
        end, peer = connected(runtime, plain_listener)
        with peer, runtime.lock:
            assert end.stream._sock is not None
            assert end.core.mss == end.stream._sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_MAXSEG)

    def test_refusal_reaches_the_core_with_its_errno(self, runtime: Runtime) -> None:
        with socket.create_server(("127.0.0.1", 0)) as sock:
            nobody = sock.getsockname()
        end = End(runtime, ByteCore())
        with runtime.lock:
            end.stream.connect(nobody)
        end.wait_for(lambda: end.stream.closed)
        assert end.core.log == ["lost"]
        assert end.core.error is not None
        assert end.core.error.errno == errno.ECONNREFUSED

    @pytest.mark.parametrize(
        ("destination", "source", "expected"),
        [
            (("127.0.0.1", 9), ("192.0.2.1", 0), errno.EADDRNOTAVAIL),
            (("fe80::1%nosuchif0", 9), None, errno.ENODEV),
        ],
    )
    def test_what_is_known_at_once_reaches_the_core_too(
        self, runtime: Runtime, destination: Address, source: Address | None, expected: int
    ) -> None:
        end = End(runtime, ByteCore())
        with runtime.lock:
            end.stream.connect(destination, source)
        assert end.core.log == ["lost"]
        assert end.core.error is not None
        assert end.core.error.errno == expected
        assert end.stream.closed
        assert end.activity == 1

    def test_a_source_port_in_use(self, runtime: Runtime, plain_listener: socket.socket) -> None:
        end = End(runtime, ByteCore())
        with runtime.lock:
            end.stream.connect(("127.0.0.1", 9), plain_listener.getsockname())
        assert end.core.error is not None
        assert end.core.error.errno == errno.EADDRINUSE

    @pytest.mark.parametrize(("destination", "source"), [("::1", "127.0.0.1"), ("127.0.0.1", "::1"), ("here", None)])
    def test_a_wrong_address_is_the_callers_error(self, runtime: Runtime, destination: str, source: str | None) -> None:
        end = End(runtime, ByteCore())
        with runtime.lock, pytest.raises(ValueError, match=r"address|famil"):
            end.stream.connect((destination, 1), None if source is None else (source, 0))
        assert end.core.log == []

    @pytest.mark.parametrize("how", [Finish.CLOSE, Finish.RESET])
    def test_giving_up_while_connecting(self, runtime: Runtime, how: Finish) -> None:
        with socket.socket() as full:  # a queue of connections that is full lets further ones wait
            full.bind(("127.0.0.1", 0))
            full.listen(0)
            others = [socket.socket() for _ in range(3)]
            for other in others:
                other.setblocking(False)
                other.connect_ex(full.getsockname())
            end = End(runtime, ByteCore())
            with runtime.lock:
                end.stream.connect(full.getsockname())
                end.stream.on_ready(WRITE)  # an event of an earlier socket under the same number
                assert end.core.log == []
                assert not end.stream.closed
            end.end(how)
            assert end.stream.closed
            assert "lost" not in end.core.log
            for other in others:
                other.close()

    def test_options(self, plain_listener: socket.socket, runtime: Runtime) -> None:
        end = End(runtime, ByteCore(), TcpOptions(keepalive_s=8, user_timeout_s=16))
        with runtime.lock:
            end.stream.connect(plain_listener.getsockname())
            sock = end.stream._sock
            assert sock is not None
            assert sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)
            assert sock.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE)
            assert sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE) == 8
            if hasattr(socket, "TCP_USER_TIMEOUT"):
                assert sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT) == 16000
            assert not sock.getblocking()

    def test_without_keepalive_the_systems_defaults_stay(self, plain_listener: socket.socket, runtime: Runtime) -> None:
        end, peer = connected(runtime, plain_listener)
        with peer, runtime.lock:
            assert end.stream._sock is not None
            assert not end.stream._sock.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE)


class TestSending:
    def test_what_the_socket_takes_leaves_in_the_calling_thread(
        self, runtime: Runtime, plain_listener: socket.socket
    ) -> None:
        end, peer = connected(runtime, plain_listener)
        with peer:
            with runtime.lock:
                end.core.outgoing += b"x" * 1000
                end.stream.pump()
                assert end.core.sent == 1000  # no other thread could: the lock is held
            assert receive_exactly(peer, 1000) == b"x" * 1000

    def test_what_it_does_not_take_follows_when_it_does(self) -> None:
        data = os.urandom(16 << 20)
        with pair() as (near, far):
            with far.runtime.lock:
                far.core.readable = False
                far.stream.pump()
            near.send(data)
            until(lambda: near.stream._blocked and near.core.sent > 0)
            assert near.core.sent < len(data)
            with far.runtime.lock:
                far.core.readable = True
                far.stream.pump()
            far.wait_for(lambda: len(far.core.received) == len(data))
            assert far.core.received == data
            assert near.core.sent == len(data)

    def test_one_call_sends_a_bounded_amount_then_others_have_their_turn(
        self, runtime: Runtime, plain_listener: socket.socket
    ) -> None:
        end, peer = connected(runtime, plain_listener)

        def swallow() -> None:
            while peer.recv(1 << 20):
                continue

        reader = threading.Thread(target=swallow)
        reader.start()
        with runtime.lock:
            end.core.outgoing += bytes(64 << 20)
            end.stream.pump()
            assert end.core.sent <= SEND_BUDGET + 65536
        end.wait_for(lambda: end.core.sent == 64 << 20)
        end.end(Finish.SHUTDOWN)
        reader.join(PATIENCE_S)
        peer.close()

    def test_one_call_sends_a_bounded_number_of_small_frames_too(
        self, runtime: Runtime, plain_listener: socket.socket
    ) -> None:
        """A peer that asks for tiny TCP segments gets tiny FPDUs; making them takes the time, not their octets."""

        class Tiny(ByteCore):
            def data_to_send(self, now: float) -> list[memoryview | bytes | bytearray]:
                return [bytes(self.outgoing[at : at + 10]) for at in range(0, min(640, len(self.outgoing)), 10)]

        end = End(runtime, Tiny())
        with runtime.lock:
            end.stream.connect(plain_listener.getsockname())
        peer, _ = plain_listener.accept()
        peer.settimeout(PATIENCE_S)
        end.wait_for(lambda: "connected" in end.core.log)
        total = 30 * SEND_BUFFERS
        with peer:
            with runtime.lock:
                end.core.outgoing += bytes(total)
                end.stream.pump()
                assert end.core.sent <= 10 * (SEND_BUFFERS + 64)
            assert len(receive_exactly(peer, total)) == total

    def test_more_buffers_than_one_call_takes(self, runtime: Runtime, plain_listener: socket.socket) -> None:
        end = End(runtime, Pieces(size=1))
        with runtime.lock:
            end.stream.connect(plain_listener.getsockname())
        peer, _ = plain_listener.accept()
        end.wait_for(lambda: "connected" in end.core.log)
        data = os.urandom(IOV_MAX * 2 + 7)
        with peer:
            end.send(data)
            assert receive_exactly(peer, len(data)) == data

    def test_activity_is_told_after_sending(self, runtime: Runtime, plain_listener: socket.socket) -> None:
        end, peer = connected(runtime, plain_listener)
        with peer:
            before = end.activity
            end.send(b"x")
            assert end.activity == before + 1

    def test_new_work_given_on_activity_leaves_in_the_same_call(
        self, runtime: Runtime, plain_listener: socket.socket
    ) -> None:
        end, peer = connected(runtime, plain_listener)
        more = [b"two", b"three"]

        def active() -> None:
            if more:
                end.core.outgoing += more.pop(0)
                end.stream.pump()

        with peer:
            with runtime.lock:
                end.stream._on_activity = active
                end.core.outgoing += b"one"
                end.stream.pump()
                assert end.core.sent == len(b"onetwothree")
            assert receive_exactly(peer, 11) == b"onetwothree"


class TestReading:
    @pytest.mark.parametrize("at_most", [1 << 20, 5000])
    def test_all_arrives_in_order_in_bounded_reads(
        self, runtime: Runtime, plain_listener: socket.socket, at_most: int
    ) -> None:
        sizes: list[int] = []

        class Sizes(ByteCore):
            def receive_data(self, data: memoryview, now: float) -> None:
                sizes.append(len(data))
                super().receive_data(data, now)

        end = End(runtime, Sizes())
        end.core.at_most = at_most
        with runtime.lock:
            end.stream.connect(plain_listener.getsockname())
        peer, _ = plain_listener.accept()
        data = os.urandom(4 << 20)
        with peer:
            peer.sendall(data)
        end.wait_for(lambda: "eof" in end.core.log)
        assert end.core.received == data
        assert max(sizes) <= min(at_most, 256 * 1024)

    def test_a_core_that_holds_the_stream_back_gets_nothing_until_it_wants(
        self, runtime: Runtime, plain_listener: socket.socket
    ) -> None:
        end, peer = connected(runtime, plain_listener)
        with peer:
            with runtime.lock:
                end.core.readable = False
                end.stream.pump()
            peer.sendall(b"later")
            end.send(b"x")
            with runtime.lock:
                runtime.engine.poll([end.stream])
                assert end.core.received == b""
                end.core.readable = True
                end.stream.pump()
            end.wait_for(lambda: end.core.received == b"later")

    def test_a_core_that_has_others_read_meanwhile_keeps_its_octets(
        self, runtime: Runtime, plain_listener: socket.socket
    ) -> None:
        end, peer = connected(runtime, plain_listener)
        data = os.urandom(1 << 20)
        end.core.on_data = lambda: runtime.engine.poll([end.stream])
        with peer:
            peer.sendall(data)
            end.wait_for(lambda: len(end.core.received) == len(data))
        assert end.core.received == data

    def test_the_peers_fin_comes_after_all_its_data_and_sending_goes_on(
        self, runtime: Runtime, plain_listener: socket.socket
    ) -> None:
        end, peer = connected(runtime, plain_listener)
        with peer:
            peer.sendall(b"last")
            peer.shutdown(socket.SHUT_WR)
            end.wait_for(lambda: "eof" in end.core.log)
            assert end.core.received == b"last"
            assert end.core.log.count("eof") == 1
            end.send(b"answer")
            assert receive_exactly(peer, 6) == b"answer"
            assert not end.stream.closed


class TestEnding:
    def test_shutdown_sends_fin_after_the_last_octet_and_reading_goes_on(
        self, runtime: Runtime, plain_listener: socket.socket
    ) -> None:
        end, peer = connected(runtime, plain_listener)
        data = os.urandom(4 << 20)
        with peer:
            with runtime.lock:
                end.core.ending = Finish.SHUTDOWN
            end.send(data)
            assert receive_all(peer) == data
            peer.sendall(b"still")
            end.wait_for(lambda: end.core.received == b"still")
            assert not end.stream.closed

    def test_close_ends_it_and_tells_once(self, runtime: Runtime, plain_listener: socket.socket) -> None:
        end, peer = connected(runtime, plain_listener)
        with peer:
            before = end.activity
            end.send(b"bye")
            end.end(Finish.CLOSE)
            assert end.stream.closed
            assert end.activity == before + 2
            assert receive_all(peer) == b"bye"
            end.end(Finish.CLOSE)
            assert end.activity == before + 2
            assert "lost" not in end.core.log

    def test_reset_is_a_reset(self, runtime: Runtime, plain_listener: socket.socket) -> None:
        end, peer = connected(runtime, plain_listener)
        with peer:
            end.end(Finish.RESET)
            assert end.stream.closed
            with pytest.raises(ConnectionResetError):
                peer.recv(1)

    def test_a_reset_by_the_peer_is_a_loss_with_its_errno(
        self, runtime: Runtime, plain_listener: socket.socket
    ) -> None:
        end, peer = connected(runtime, plain_listener)
        peer.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, ABORTIVE)
        peer.close()
        end.wait_for(lambda: end.stream.closed)
        assert end.core.error is not None
        assert end.core.error.errno == errno.ECONNRESET

    def test_when_sending_fails_the_peers_last_words_are_read_first(
        self, runtime: Runtime, plain_listener: socket.socket
    ) -> None:
        end, peer = connected(runtime, plain_listener)
        with runtime.lock:  # so that nobody reads before we send
            peer.sendall(b"terminate")
            peer.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, ABORTIVE)
            peer.close()
            end.core.outgoing += b"x" * 1000
            end.stream.pump()
            if not end.stream.closed:
                end.core.outgoing += b"y"
                end.stream.pump()
            assert end.stream.closed
        assert end.core.received == b"terminate"
        assert end.core.log[-1] == "lost"
        assert "eof" not in end.core.log
        assert end.core.error is not None
        assert end.core.error.errno in (errno.ECONNRESET, errno.EPIPE)

    @pytest.mark.parametrize("unread", [b"", b"unread"])
    def test_when_sending_fails_a_fin_that_came_before_the_reset_is_still_told(
        self, runtime: Runtime, plain_listener: socket.socket, unread: bytes
    ) -> None:
        """The reset leaves both in the socket, as far as the kernel keeps what it has acknowledged; Linux does."""
        end, peer = connected(runtime, plain_listener)
        with runtime.lock:  # so that nobody reads before we send
            peer.sendall(unread)
            peer.shutdown(socket.SHUT_WR)
            reset(peer, end)
            end.core.outgoing += b"x"
            end.stream.pump()
            assert end.stream.closed
        assert end.core.received == unread
        assert end.core.log == ["connected", *(["data"] if unread else []), "eof", "lost"]

    def test_the_end_of_file_of_a_reset_is_no_fin(self, runtime: Runtime, plain_listener: socket.socket) -> None:
        """When sending has taken the error of a reset, reading gives an end of file all the same."""
        end, peer = connected(runtime, plain_listener)
        with runtime.lock:
            reset(peer, end)
            end.core.outgoing += b"x"
            end.stream.pump()
        assert end.core.log == ["connected", "lost"]

    def test_a_core_that_begins_anew_on_a_fin_is_not_told_the_reset_behind_it(
        self, runtime: Runtime, plain_listener: socket.socket
    ) -> None:
        end, peer = connected(runtime, plain_listener, kind=BeginsAnew)
        with runtime.lock:
            peer.shutdown(socket.SHUT_WR)
            reset(peer, end)
            end.core.outgoing += b"x"
            end.stream.pump()
        again, _ = plain_listener.accept()
        with again:
            end.wait_for(lambda: end.core.log == ["connected", "eof", "connected"])

    def test_a_core_that_holds_the_stream_back_is_told_the_loss_all_the_same(
        self, runtime: Runtime, plain_listener: socket.socket
    ) -> None:
        end, peer = connected(runtime, plain_listener)
        with runtime.lock:
            end.core.readable = False
            end.stream.pump()
            peer.sendall(b"unread")
            peer.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, ABORTIVE)
            peer.close()
            end.core.outgoing += b"x"
            end.stream.pump()
            assert end.core.log[-1] == "lost"
            assert end.core.received == b""

    @pytest.mark.parametrize("unread", [b"", b"unread"])
    def test_a_reset_is_noticed_while_the_core_holds_the_stream_back(
        self, runtime: Runtime, plain_listener: socket.socket, unread: bytes
    ) -> None:
        """Nothing is read and nothing is sent, so nothing but a look at the socket tells it."""
        end, peer = connected(runtime, plain_listener)
        with runtime.lock:
            end.core.readable = False
            end.stream.pump()
        peer.sendall(unread)
        peer.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, ABORTIVE)
        peer.close()
        end.wait_for(lambda: end.stream.closed)
        assert end.core.log == ["connected", "lost"]
        assert end.core.error is not None
        assert end.core.error.errno == errno.ECONNRESET
        assert end.core.received == b""
        assert end.core.rest == unread

    def test_a_fin_waits_behind_the_octets_that_are_held_back(
        self, runtime: Runtime, plain_listener: socket.socket
    ) -> None:
        end, peer = connected(runtime, plain_listener)
        with runtime.lock:
            end.core.readable = False
            end.stream.pump()
        peer.sendall(b"unread")
        peer.shutdown(socket.SHUT_WR)
        with peer, runtime.lock:
            end.stream.on_deadline()
            assert not end.stream.closed
            end.core.readable = True
            end.stream.pump()
        end.wait_for(lambda: "eof" in end.core.log)
        assert end.core.received == b"unread"

    def test_everything_is_legal_after_the_end(self, runtime: Runtime, plain_listener: socket.socket) -> None:
        end, peer = connected(runtime, plain_listener)
        with peer, runtime.lock:
            end.stream.fail(OSError(errno.ETIMEDOUT, "x"))
            activity = end.activity
            end.core.outgoing += b"x"
            end.stream.pump()
            end.stream.fail(OSError(errno.ETIMEDOUT, "x"))
            runtime.engine.poll([end.stream])
            runtime.engine.update(end.stream)
            assert end.activity == activity
            assert end.core.log == ["connected", "lost"]

    def test_no_descriptor_is_left(self) -> None:
        with pair() as (near, far):  # whatever is opened once for all is open now
            near.end(Finish.CLOSE)
            far.wait_for(lambda: "eof" in far.core.log)
        before = len(os.listdir("/proc/self/fd")) if os.path.isdir("/proc/self/fd") else 0
        for how in (Finish.CLOSE, Finish.RESET):
            with pair(echo=True) as (near, far):
                near.send(b"x")
                near.wait_for(lambda near=near: near.core.received == b"x")  # type: ignore[misc]
                near.end(how)
        if before:
            assert len(os.listdir("/proc/self/fd")) == before


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere nobody looks for dead peers")
class TestDeadPeers:
    def test_a_core_that_holds_the_stream_back_gets_the_rest_and_the_loss(
        self, runtime: Runtime, plain_listener: socket.socket
    ) -> None:
        """The peer's reason may lie unread in the socket. What is told names the limit."""
        end, peer = connected(runtime, plain_listener, options=TcpOptions(dead_peer_timeout_s=1))
        with runtime.lock:
            end.core.readable = False
            end.stream.pump()
        with peer:
            peer.sendall(b"last words")
            deafen(peer)
            end.send(b"x" * 1234)
            end.wait_for(lambda: end.stream.closed)
        assert end.core.log == ["connected", "lost"]
        assert end.core.rest == b"last words"
        assert end.core.error is not None
        assert end.core.error.errno == errno.ETIMEDOUT
        assert "1,234 octets unacknowledged" in str(end.core.error)
        assert "dead_peer_timeout_s=1" in str(end.core.error)

    def test_nobody_looks_at_an_idle_connection(self, runtime: Runtime, plain_listener: socket.socket) -> None:
        end, peer = connected(runtime, plain_listener, options=TcpOptions(dead_peer_timeout_s=1))
        with peer:
            assert end.stream.deadline() is None
            for _ in range(2):
                with runtime.lock:
                    end.send(b"x")
                    assert end.stream.deadline() is not None
                until(lambda: end.stream.deadline() is None)
            assert not end.stream.closed
            assert receive_exactly(peer, 2) == b"xx"

    def test_a_new_connection_of_the_same_core_is_under_no_suspicion(
        self, runtime: Runtime, plain_listener: socket.socket
    ) -> None:
        end, peer = connected(runtime, plain_listener, options=TcpOptions(dead_peer_timeout_s=1))
        with peer:
            end.send(b"x")
            end.core.ending = Finish.RECONNECT
            with runtime.lock:
                end.stream.pump()
                assert end.stream.deadline() is None
                end.core.ending = Finish.KEEP


class NotedTap:
    def __init__(self) -> None:
        self.log: list[str] = []
        self.out = bytearray()
        self.inn = bytearray()

    def opened(self) -> None:
        self.log.append("opened")

    def sent(self, data: Octets) -> None:
        self.out += data

    def received(self, data: Octets) -> None:
        self.inn += data

    def fin_sent(self) -> None:
        self.log.append("fin sent")

    def fin_received(self) -> None:
        self.log.append("fin received")

    def reset(self, by_peer: bool) -> None:
        self.log.append(f"reset by peer: {by_peer}")

    def closed(self) -> None:
        self.log.append("closed")


class TestTheTap:
    def tapped(
        self, runtime: Runtime, plain_listener: socket.socket, tap: NotedTap, options: TcpOptions | None = None
    ) -> tuple[End, socket.socket]:
        end = End(runtime, Pieces())
        seen: list[tuple[Address, Address]] = []

        def make(local: Address, peer: Address) -> NotedTap:
            seen.append((local, peer))
            return tap

        end.stream = TcpStream(runtime.engine, end.core, end._active, tap=make, options=options)
        with runtime.lock:
            end.stream.connect(plain_listener.getsockname())
        peer, name = plain_listener.accept()
        end.wait_for(lambda: "connected" in end.core.log)
        assert seen == [(name, plain_listener.getsockname())]
        return end, peer

    def test_it_sees_exactly_what_went_over_the_wire(self, runtime: Runtime, plain_listener: socket.socket) -> None:
        tap = NotedTap()
        end, peer = self.tapped(runtime, plain_listener, tap)
        data = os.urandom(8 << 20)
        with peer:
            with runtime.lock:
                assert end.stream._sock is not None
                end.stream._sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 100_000)  # less than one call gives
            end.send(data)
            assert receive_exactly(peer, len(data)) == data
            peer.sendall(b"answer")
            peer.shutdown(socket.SHUT_WR)
            end.wait_for(lambda: "eof" in end.core.log)
            end.end(Finish.SHUTDOWN)
            end.end(Finish.CLOSE)
        assert tap.out == data
        assert tap.inn == b"answer"
        assert tap.log == ["opened", "fin received", "fin sent", "closed"]

    @pytest.mark.parametrize("by_peer", [True, False])
    def test_it_sees_who_reset(self, runtime: Runtime, plain_listener: socket.socket, by_peer: bool) -> None:
        tap = NotedTap()
        end, peer = self.tapped(runtime, plain_listener, tap)
        with peer:
            if by_peer:
                peer.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, ABORTIVE)
                peer.close()
                end.wait_for(lambda: end.stream.closed)
            else:
                end.end(Finish.RESET)
        assert tap.log == ["opened", f"reset by peer: {by_peer}"]

    @pytest.mark.skipif(sys.platform != "linux", reason="elsewhere nobody looks for dead peers")
    def test_a_dead_peers_connection_is_reset_by_this_side(
        self, runtime: Runtime, plain_listener: socket.socket
    ) -> None:
        tap = NotedTap()
        end, peer = self.tapped(runtime, plain_listener, tap, TcpOptions(dead_peer_timeout_s=1))
        with peer:
            deafen(peer)
            end.send(b"x")
            end.wait_for(lambda: end.stream.closed)
        assert tap.log == ["opened", "reset by peer: False"]

    @pytest.mark.parametrize("method", ["opened", "sent", "received", "fin_received"])
    def test_a_trace_that_fails_is_reported_and_the_connection_goes_on(
        self,
        runtime: Runtime,
        plain_listener: socket.socket,
        unraisable: list[Any],
        monkeypatch: pytest.MonkeyPatch,
        method: str,
    ) -> None:
        def full(*args: object) -> None:
            raise OSError(errno.ENOSPC, "disk full")

        tap = NotedTap()
        monkeypatch.setattr(tap, method, full)
        end, peer = self.tapped(runtime, plain_listener, tap)
        with peer:
            end.send(b"o")
            end.send(b"ne")
            assert receive_exactly(peer, 3) == b"one"
            peer.sendall(b"two")
            peer.shutdown(socket.SHUT_WR)
            end.wait_for(lambda: "eof" in end.core.log)
            assert end.core.received == b"two"
        assert [seen.exc_value.errno for seen in unraisable] == [errno.ENOSPC]


class TestTheListener:
    def test_an_address_in_use_is_an_oserror_and_leaves_nothing_open(self, runtime: Runtime) -> None:
        with runtime.lock:
            first = listening(runtime, ByteCore, [])
            second = TcpListener(runtime.engine, lambda sock, peer: None)
            assert first.local_address is not None
            with pytest.raises(OSError, match="in use") as caught:
                second.open(first.local_address)
            assert caught.value.errno == errno.EADDRINUSE
            first.close()
            first.close()
            second.open(first.local_address)

    def test_any_address_of_this_machine_and_no_other(self, runtime: Runtime) -> None:
        listener = TcpListener(runtime.engine, lambda sock, peer: None)
        with runtime.lock, pytest.raises(OSError) as caught:  # noqa: PT011 - the errno is asked for below
            listener.open(("192.0.2.1", 0))
        assert caught.value.errno == errno.EADDRNOTAVAIL

    def test_a_port_can_be_listened_on_again_at_once(self, runtime: Runtime) -> None:
        accepted: list[End] = []
        with runtime.lock:
            listener = listening(runtime, ByteCore, accepted)
        assert listener.local_address is not None
        with socket.create_connection(listener.local_address):
            until(lambda: bool(accepted))
            accepted[0].end(Finish.CLOSE)  # we close first: our side keeps the port in TIME_WAIT
        with runtime.lock:
            listener.close()
            again = TcpListener(runtime.engine, lambda sock, peer: None)
            again.open(listener.local_address)

    def test_more_at_once_than_one_turn_accepts(self, runtime: Runtime) -> None:
        accepted: list[End] = []
        listener = listening(runtime, ByteCore, accepted)
        assert listener.local_address is not None
        count = ACCEPT_BATCH * 2 + 3
        with runtime.lock:  # so that they come all at once
            clients = [socket.create_connection(listener.local_address) for _ in range(count)]
        until(lambda: len(accepted) == count)
        for client in clients:
            client.close()

    def test_paused_it_leaves_connections_to_the_system(self, runtime: Runtime) -> None:
        accepted: list[End] = []
        listener = listening(runtime, lambda: ByteCore(echo=True), accepted)
        assert listener.local_address is not None
        with runtime.lock:
            listener.pause(True)
        with socket.create_connection(listener.local_address, PATIENCE_S) as client:
            client.sendall(b"x")
            barrier(runtime)
            assert accepted == []
            with runtime.lock:
                listener.pause(False)
            assert client.recv(1) == b"x"

    def test_a_handler_that_fails_costs_its_connection_only(self, runtime: Runtime, unraisable: list[Any]) -> None:
        accepted: list[socket.socket] = []

        def accept(sock: socket.socket, peer: Address) -> None:
            accepted.append(sock)
            if len(accepted) == 1:
                raise AssertionError("bug")

        listener = TcpListener(runtime.engine, accept)
        with runtime.lock:
            listener.open(("127.0.0.1", 0))
        assert listener.local_address is not None
        with socket.create_connection(listener.local_address, PATIENCE_S) as first:
            assert first.recv(1) == b""
        with socket.create_connection(listener.local_address, PATIENCE_S):
            until(lambda: len(accepted) == 2)
        accepted[1].close()
        assert [seen.exc_type for seen in unraisable] == [AssertionError]

    def test_out_of_descriptors_it_rests_and_goes_on_later(self, runtime: Runtime) -> None:
        accepted: list[End] = []
        troubles: list[OSError] = []
        listener = listening(runtime, lambda: ByteCore(echo=True), accepted, on_trouble=troubles.append)
        assert listener.local_address is not None
        limits = resource.getrlimit(resource.RLIMIT_NOFILE)
        with socket.socket() as client, runtime.lock:
            client.settimeout(PATIENCE_S)
            resource.setrlimit(resource.RLIMIT_NOFILE, (client.fileno(), limits[1]))
            try:
                client.connect(listener.local_address)
                listener.on_ready(1)
                listener.on_ready(1)
                assert listener._resting
                assert accepted == []
                assert [error.errno for error in troubles] == [errno.EMFILE, errno.EMFILE]
            finally:
                resource.setrlimit(resource.RLIMIT_NOFILE, limits)
            client.sendall(b"x")
            runtime.lock.release()
            try:
                assert client.recv(1) == b"x"
            finally:
                runtime.lock.acquire()


def barrier(runtime: Runtime) -> None:
    """Return when the engine's thread has been through its loop once more."""
    done = threading.Event()
    with runtime.lock:
        runtime.engine.call_at(0, done.set)
    assert done.wait(PATIENCE_S)
