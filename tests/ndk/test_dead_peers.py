"""Peers that are no longer there: no FIN, no RST, no acknowledgement. TCP's probes find them, whatever this side does.

A peer dies here by a socket filter that drops everything which arrives for it; its kernel answers nothing from then on.
"""

import ctypes
import errno
import socket
import struct
import sys
import time
from contextlib import ExitStack

import pytest

from softndk import Disconnect, IoTimeout, IwarpConfig, RemoteToken, Status
from softndk.testing import End
from tests.ndk.ends import PATIENCE_S, ended, take
from tests.ndk.raw_peer import RawPeer, raw_client, raw_server

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="socket filters are Linux's")

_SO_ATTACH_FILTER = 26
_DROP_ALL = ctypes.create_string_buffer(struct.pack("HBBI", 0x06, 0, 0, 0), 8)  # the one instruction "return 0"
TIMED_OUT = 0x30000 | errno.ETIMEDOUT


def die(peer: RawPeer) -> None:
    """Nothing that is sent to this peer arrives any more. What it has sent itself is acknowledged before: its kernel, which
    lives, would send it again and again.
    """
    deadline = time.monotonic() + PATIENCE_S
    while unacknowledged(peer):
        assert time.monotonic() < deadline
    program = struct.pack("HxxxxxxP", 1, ctypes.addressof(_DROP_ALL))
    peer.sock.setsockopt(socket.SOL_SOCKET, _SO_ATTACH_FILTER, program)


def unacknowledged(peer: RawPeer) -> int:
    (packets,) = struct.unpack_from("I", peer.sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 104), 24)
    assert isinstance(packets, int)
    return packets


def assert_timed_out(how: Disconnect) -> None:
    assert not how.graceful
    assert isinstance(how.error, IoTimeout)
    assert how.provider_reason == TIMED_OUT


def assert_cancelled(end: End, count: int) -> None:
    results = take(end.cq, count)
    assert [result.status for result in results] == [Status.CANCELLED] * count
    assert {result.provider_error_code for result in results} == {TIMED_OUT}


def test_keepalive_finds_a_dead_peer_in_every_state_of_a_connection() -> None:
    """All at once, since each takes as long as the probes do: some five seconds. No nudges: probes are for idle peers, of
    what is sent the acknowledgement is missed (user_timeout_s).
    """
    config = IwarpConfig(keepalive_s=1, receive_wait_s=300, nudge_s=0)
    with ExitStack() as stack:
        idle_peer, idle = stack.enter_context(raw_client(config, receives=2))
        reading_peer, reading = stack.enter_context(raw_server(config))
        held_peer, held = stack.enter_context(raw_client(config))
        gone_peer, gone = stack.enter_context(raw_client(config, receives=1))
        reading.qp.read(reading.mr[0:16], 0x9000, RemoteToken(0x5501))
        reading_peer.read_request()
        held_peer.send_message(b"no receive is posted: the stream is held back")
        gone_peer.finish()
        assert ended(gone).graceful
        for peer in (idle_peer, reading_peer, held_peer, gone_peer):
            die(peer)
        assert_timed_out(ended(idle))
        assert_cancelled(idle, 2)
        assert_timed_out(ended(reading))
        assert_cancelled(reading, 1)
        assert_timed_out(ended(held))
        assert_cancelled(gone, 1)


def test_the_user_timeout_finds_a_peer_that_acknowledges_nothing() -> None:
    with raw_client(IwarpConfig(keepalive_s=0, user_timeout_s=0.5), receives=1) as (peer, end):
        die(peer)
        end.qp.send(b"nobody is there")
        assert_timed_out(ended(end))
        assert [result.status for result in take(end.cq, 2)] == [Status.SUCCESS, Status.CANCELLED]


def test_the_disconnect_of_a_dead_peer_ends() -> None:
    with raw_client(IwarpConfig(disconnect_timeout_s=0.3), receives=1) as (peer, end):
        die(peer)
        with pytest.raises(IoTimeout):
            end.connector.disconnect().result(PATIENCE_S)
        assert [result.status for result in take(end.cq, 1)] == [Status.CANCELLED]
