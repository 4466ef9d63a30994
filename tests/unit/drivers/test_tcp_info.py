"""softndk.drivers.tcp_info, asked about real connections."""

import socket
import struct
import sys
from collections.abc import Iterator
from contextlib import suppress

import pytest

from softndk.drivers.tcp_info import CAN_READ, TcpInfo, parse, read_tcp_info
from tests.deaf_socket import deafen
from tests.unit.drivers.driver_parts import PATIENCE_S, until

linux = pytest.mark.skipif(sys.platform != "linux", reason="struct tcp_info is Linux's")


@pytest.fixture
def ends() -> Iterator[tuple[socket.socket, socket.socket]]:
    """Two connected sockets; the first does not block."""
    with socket.create_server(("127.0.0.1", 0)) as listener, socket.create_connection(listener.getsockname()) as near:
        far, _ = listener.accept()
        with far:
            near.setblocking(False)
            far.settimeout(PATIENCE_S)
            yield near, far


def test_it_can_be_read_on_linux_only() -> None:
    assert (sys.platform == "linux") == CAN_READ


@linux
class TestRealConnections:
    def test_nothing_outstanding(self, ends: tuple[socket.socket, socket.socket]) -> None:
        near, far = ends
        near.send(b"x" * 1000)
        until(
            lambda: read_tcp_info(near) == TcpInfo(0, 0, 0.0)
        )  # acknowledged by the kernel, though nobody has read it
        assert len(far.recv(1000)) == 1000

    def test_a_peer_that_answers_nothing(self, ends: tuple[socket.socket, socket.socket]) -> None:
        near, far = ends
        deafen(far)
        near.send(b"x" * 1000)
        seen = []

        def sent_again_three_times() -> bool:
            info = read_tcp_info(near)
            assert info is not None
            seen.append(info)
            return info.unanswered >= 3

        until(sent_again_three_times)
        assert {info.outstanding_octets for info in seen} == {1000}
        assert [info.unanswered for info in seen] == sorted(info.unanswered for info in seen)
        assert seen[-1].silent_s >= 0.6  # 0.2 and 0.4 s at least lie between three retransmissions

    def test_a_peer_that_does_not_read_answers_the_probes(self, ends: tuple[socket.socket, socket.socket]) -> None:
        near, _ = ends
        with suppress(BlockingIOError):
            while True:
                near.send(bytes(65536))
        heard: list[float] = []

        def silence_has_ended_three_times() -> bool:
            info = read_tcp_info(near)
            assert info is not None
            assert info.outstanding_octets > 0
            if not heard or info.silent_s > heard[-1]:
                heard.append(info.silent_s)
            elif info.silent_s < heard[-1] / 2:
                ended.append(heard.pop())
            return len(ended) >= 3

        ended: list[float] = []
        until(silence_has_ended_three_times)

    def test_a_fin_is_outstanding_too(self, ends: tuple[socket.socket, socket.socket]) -> None:
        near, far = ends
        deafen(far)
        near.shutdown(socket.SHUT_WR)
        info = read_tcp_info(near)
        assert info is not None
        assert info.outstanding_octets == 1

    def test_data_of_the_peer_end_its_silence(self, ends: tuple[socket.socket, socket.socket]) -> None:
        near, far = ends
        deafen(far)
        near.send(b"x")

        def silent_s() -> float:
            info = read_tcp_info(near)
            assert info is not None
            return info.silent_s

        until(lambda: silent_s() > 0.5)
        far.send(b"I speak, but I hear nothing")
        until(lambda: silent_s() < 0.5)


@linux
def test_what_is_no_tcp_connection_tells_nothing() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        assert read_tcp_info(listener) is None
    near, far = socket.socketpair()
    with near, far:
        near.send(b"x")
        assert read_tcp_info(near) is None


@pytest.mark.parametrize(("data_ms", "ack_ms", "silent_s"), [(4000, 1500, 1.5), (700, 9000, 0.7)])
def test_the_fields_of_the_kernel(data_ms: int, ack_ms: int, silent_s: float) -> None:
    """include/uapi/linux/tcp.h: eight octets, then 32-bit fields; the first is tcpi_rto, the 12th tcpi_last_data_recv,
    the 13th tcpi_last_ack_recv.
    """
    octets = bytes([1, 2, 5, 3, 9, 9, 9, 9])  # tcpi_state, tcpi_ca_state, tcpi_retransmits, tcpi_probes, ...
    fields = [999] * 24
    fields[11], fields[12] = data_ms, ack_ms
    data = octets + struct.pack("=24I", *fields)
    assert parse(77, data) == TcpInfo(77, 8, silent_s)
    assert parse(77, data[:59]) is None
