"""Peers that are no longer there: no FIN, no RST, no acknowledgement. They are found, whatever this side does; and peers
that only do not read are left alone.

A peer dies here by a socket filter that drops everything which arrives for it; its kernel answers nothing from then on.
"""

import errno
import shutil
import socket
import subprocess
import sys
import threading
from contextlib import ExitStack, suppress
from pathlib import Path

import pytest

from softndk import Disconnect, IoTimeout, IwarpConfig, MrFlag, RemoteToken, Status
from softndk.testing import End
from tests.deaf_socket import deafen
from tests.ndk.ends import PATIENCE_S, Ledger, ended, take
from tests.ndk.raw_peer import RawPeer, raw_client, raw_server

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="socket filters are Linux's")

ROOT = Path(__file__).parents[2]
TIMED_OUT = 0x30000 | errno.ETIMEDOUT
LIMIT_S = 2
"""The shortest limit for octets that stay unacknowledged."""
LARGE = 1 << 20
FULL_S = 0.5
"""A large write that is not complete after this time: TCP takes no more. A test that finds out too early tries less."""


def die(peer: RawPeer) -> None:
    """Nothing that is sent to this peer arrives any more."""
    deafen(peer.sock)


def fill(peer: RawPeer, end: End) -> Ledger:
    """Post RDMA Writes until TCP takes no more, and some that wait behind: the peer does not read."""
    peer.sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 18)
    large = end.pd.register_mr(bytearray(LARGE), MrFlag(0))
    ledger = Ledger(end)

    def write() -> None:
        ledger.post(
            lambda flags, number: end.qp.write(large[:], 0x9000, RemoteToken(0x5501), flags=flags, context=number)
        )

    with suppress(TimeoutError):
        while True:
            write()
            ledger.results += end.cq.wait(FULL_S)
    write()
    write()
    return ledger


def swallow(peer: RawPeer) -> None:
    """Read until the FIN."""
    while peer.sock.recv(LARGE):
        continue


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
    what is sent the acknowledgement is missed (dead_peer_timeout_s).
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


def test_a_peer_that_dies_with_octets_unacknowledged_is_found_in_every_state_of_a_connection() -> None:
    """All at once. No keepalive: it is for connections that are idle."""
    config = IwarpConfig(keepalive_s=0, dead_peer_timeout_s=LIMIT_S, receive_wait_s=300, nudge_s=0)
    with ExitStack() as stack:
        quiet_peer, quiet = stack.enter_context(raw_client(config, receives=1))
        reading_peer, reading = stack.enter_context(raw_server(config))
        busy_peer, busy = stack.enter_context(raw_client(config))
        held_peer, held = stack.enter_context(raw_client(config))
        gone_peer, gone = stack.enter_context(raw_client(config, receives=1))
        held_peer.send_message(b"no receive is posted: the stream is held back")
        gone_peer.finish()
        assert ended(gone).graceful
        for peer in (quiet_peer, reading_peer, held_peer, gone_peer):
            die(peer)
        ledger = fill(busy_peer, busy)
        die(busy_peer)
        quiet.qp.send(b"nobody is there")
        reading.qp.read(reading.mr[0:16], 0x9000, RemoteToken(0x5501))
        held.qp.send(b"nobody is there")
        gone.qp.send(b"nobody is there")

        for end in (quiet, reading, busy, held):
            how = ended(end)
            assert_timed_out(how)
            text = str(how.error)
            assert "connection lost: no ACK for " in text
            assert " octets unacknowledged" in text
            assert f"limit dead_peer_timeout_s={LIMIT_S}, raise it" in text
        assert [result.status for result in take(quiet.cq, 2)] == [Status.SUCCESS, Status.CANCELLED]
        assert_cancelled(reading, 1)
        assert [result.status for result in take(held.cq, 1)] == [Status.SUCCESS]
        assert [result.status for result in take(gone.cq, 2)] == [Status.SUCCESS, Status.CANCELLED]
        failed = [result for result in ledger.close_account() if result.status is not Status.SUCCESS]
        assert {result.provider_error_code for result in failed} <= {TIMED_OUT}


def test_who_lives_and_does_not_read_is_left_alone() -> None:
    """Over several limits: a closed window (a program that is stopped in a debugger looks the same), and one that opens
    from time to time. A third peer is dead, but nobody is to look for it.
    """
    config = IwarpConfig(keepalive_s=0, dead_peer_timeout_s=LIMIT_S)
    with ExitStack() as stack:
        still_peer, still = stack.enter_context(raw_client(config))
        slow_peer, slow = stack.enter_context(raw_client(config))
        dead_peer, dead = stack.enter_context(raw_client(IwarpConfig(keepalive_s=0, dead_peer_timeout_s=0)))
        die(dead_peer)
        dead.qp.send(b"nobody is there")
        accounts = [fill(still_peer, still), fill(slow_peer, slow)]
        for _ in range(4 * 4 * LIMIT_S):
            slow_peer.sock.recv(3000)
            with pytest.raises(TimeoutError):
                slow.connector.disconnected.result(0.25)
        for end in (still, slow, dead):
            assert not end.connector.disconnected.done()
        readers = [threading.Thread(target=swallow, args=(peer,)) for peer in (still_peer, slow_peer)]
        for reader in readers:
            reader.start()
        for end, ledger in zip((still, slow), accounts, strict=True):
            ledger.results += take(end.cq, len(ledger.posted_requests) - len(ledger.results))
            ledger.check()
            assert {result.status for result in ledger.results} == {Status.SUCCESS}
            end.connector.close()
        for reader in readers:
            reader.join(PATIENCE_S)
            assert not reader.is_alive()


@pytest.mark.parametrize("what", ["pulled", "put in again"])
def test_a_cable_that_is(what: str) -> None:
    """Its other end may be here or there; see pulled_cable.py."""
    own_network = ["unshare", "--user", "--map-root-user", "--net"]
    if shutil.which("unshare") is None or subprocess.run([*own_network, "true"], capture_output=True).returncode:
        pytest.skip("no network namespaces on this machine")
    command = [*own_network, sys.executable, "-m", "tests.ndk.pulled_cable", what]
    ran = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=3 * PATIENCE_S)
    assert ran.returncode == 0, ran.stderr


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
