"""Hostile peers beside a good connection of the same adapter: how each kind ends, and that nobody else feels it.

The kinds are those of scripts/proofs/hostile.py, which runs a thousand of them at once.
"""

import random
import socket
import sys
import threading
from collections.abc import Iterator
from contextlib import closing
from typing import Any

import pytest

from scripts.hostile.attacks import KINDS
from scripts.hostile.server import HOSTILE_LEASE, Server
from scripts.hostile.wire import Over, Peer, request
from softndk import IwarpConfig, LocalToken, MrFlag, Status, open_adapter
from softndk.testing import End, pair
from softndk.wire.rdmap import Opcode
from tests.attack.attack_tools import PATIENCE_S, callbacks_have_run, connect, hosts, post, take, until
from tests.ndk.raw_peer import raw_client as raw_initiator

ENDINGS = {
    "half request": {"reset"},
    "trickled request": {"reset", "closed"},
    "silent tcp": {"reset"},
    "no request at all": {"closed"},
    "private data too long": {"closed"},
    "early fpdu": {"closed"},
    "never ready": {"reset"},
    "unfinished fpdu": {"reset"},
    "trickled fpdu": {"reset", "closed"},
    "fin inside fpdu": {"reset"},
    "bad crc": {"Terminate 2/0/2"},
    "guessed write": {"Terminate 1/1/0"},
    "guessed read": {"Terminate 0/1/0"},
    "guessed key": {"Terminate 1/1/0"},
    "guessed invalidation": {"Terminate 0/2/9"},
    "giant read": {"Terminate 0/1/1"},
    "wrapping write": {"Terminate 1/1/3"},
    "write beyond": {"Terminate 1/1/1"},
    "more reads than agreed": {"Terminate 1/2/2"},
    "more sends than receives": {"Terminate 1/2/2"},
    "endless message": {"Terminate 1/2/5"},
    "wrong numbers": {"Terminate 1/2/3", "Terminate 1/2/4"},
    "flood of terminates": {"closed"},
}
HASTY = {
    "half request": IwarpConfig(accept_timeout_s=1.0),
    "trickled request": IwarpConfig(accept_timeout_s=1.0),
    "silent tcp": IwarpConfig(accept_timeout_s=1.0),
    "never ready": IwarpConfig(ready_timeout_s=1.0),
    "unfinished fpdu": IwarpConfig(stall_timeout_s=0.1),
    "trickled fpdu": IwarpConfig(stall_timeout_s=0.5),
}
"""What only a time limit ends gets a short one."""
MOST_UNREAD = 256 << 20
"""Octets; more than the buffers of two sockets ever hold."""


@pytest.fixture
def unraisable(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[Any]]:
    """What no caller has caught; nothing may be in it at the end."""
    seen: list[Any] = []
    monkeypatch.setattr(sys, "unraisablehook", seen.append)
    yield seen
    assert seen == []


def talk(a: End, b: End) -> None:
    """One message, checked."""
    b.qp.receive(b.mr[0:8])
    a.qp.send(b"I'm fine")
    (received,) = b.cq.wait(PATIENCE_S)
    assert (received.check().bytes_transferred, bytes(b.mr.view[:8])) == (8, b"I'm fine")
    (sent,) = a.cq.wait(PATIENCE_S)
    sent.check()


@pytest.mark.parametrize("kind", ENDINGS)
def test_each_kind_of_attack_ends_as_documented_and_only_its_own_connection(kind: str, unraisable: list[Any]) -> None:
    never = threading.Event()
    with pair(config=HASTY.get(kind)) as (a, b):
        server = Server(b.adapter)
        for seed in range(1 if kind in HASTY else 5):
            talk(a, b)
            with closing(Peer(server.listener.local_address, KINDS[kind].source, never)) as peer:
                with pytest.raises(Over) as ending:
                    KINDS[kind].attack(peer, random.Random(seed))
                assert str(ending.value) in ENDINGS[kind]
        talk(a, b)
        until(lambda: len(b.adapter.query_connections()) == 1)
        callbacks_have_run(b.adapter)
        assert server.complaints == []


def test_every_kind_that_is_ended_is_here() -> None:
    harmless = {"established silent", "reader that never reads", "greedy reader", "flood of empty writes", "noise"}
    left = {"request and reset", "connect and reset", "connect and close"}
    assert set(ENDINGS) | harmless | left == set(KINDS)


def test_a_peer_that_never_reads_holds_a_send_buffer_and_blocks_only_itself(unraisable: list[Any]) -> None:
    never = threading.Event()
    config = IwarpConfig(send_buffer=65600)
    with pair(config=config) as (a, b):
        server = Server(b.adapter)
        with closing(Peer(server.listener.local_address, "127.0.0.1", never)) as peer:
            token, length, address = peer.establish("reader that never reads")
            assert length == HOSTILE_LEASE
            blocked = next(
                item
                for item in b.adapter._runtime.engine.channels
                if getattr(item, "peer_address", None) == peer_name(peer)
            )
            core: Any = blocked.core  # type: ignore[attr-defined]

            peer.sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
            unanswered = 0
            for number in range(1, MOST_UNREAD // length):
                frames_out = core.traffic[1]
                peer.send(peer.read_request(token, address, length))
                until(lambda: core.traffic[0] > number)  # noqa: B023
                unanswered += core.traffic[1] == frames_out
                if unanswered == 32:
                    break  # the buffers of TCP are full, whatever this kernel makes of them
            else:
                pytest.fail(f"{MOST_UNREAD} octets were sent to a peer that reads none")
            for _ in range(64):
                talk(a, b)
            with b.adapter._lock:
                assert 0 < sum(part.nbytes for part in core._standing.out) <= config.send_buffer + 65536 + 32


def peer_name(peer: Peer) -> tuple[str, int]:
    host, port = peer.sock.getsockname()
    return host, port


def test_who_reads_again_gets_everything() -> None:
    """What was held up by a full socket is neither lost nor doubled."""
    never = threading.Event()
    with open_adapter() as adapter:
        server = Server(adapter)
        with closing(Peer(server.listener.local_address, "127.0.0.1", never)) as peer:
            token, length, address = peer.establish("late reader")
            for _ in range(16):
                peer.send(peer.read_request(token, address, length))
            got = 0
            while got < 16 * length:
                got += len(peer.read_ulpdu()) - 14
            assert got == 16 * length


def test_a_full_completion_queue_harms_only_the_connections_attached_to_it() -> None:
    with hosts() as (active, passive):
        listener = passive.adapter.listen()
        calm = active.qp()
        connect(active, calm, passive.qp(), listener)
        other_cq = active.cq
        active.cq = active.adapter.create_cq(2)
        doomed = active.qp(depth=8)
        outgoing, _ = connect(active, doomed, passive.qp(), listener)
        for _ in range(3):
            post(doomed)
        assert outgoing.disconnected.result(PATIENCE_S).graceful is False
        assert active.cq.status is Status.BUFFER_OVERFLOW
        post(calm)
        assert take(other_cq, 1)[0].status is Status.SUCCESS


@pytest.mark.parametrize("which", ["zero", "unknown", "wrong key", "local", "closed"])
def test_a_guesser_cannot_tell_why_a_token_does_not_work(which: str) -> None:
    with raw_initiator() as (peer, end):
        mr = end.pd.register_mr(bytearray(64), MrFlag.ALLOW_REMOTE_READ | MrFlag.ALLOW_REMOTE_WRITE)
        gone = end.pd.register_mr(bytearray(64), MrFlag.ALLOW_REMOTE_READ | MrFlag.ALLOW_REMOTE_WRITE)
        closed = int(gone.remote_token)
        gone.close().result(PATIENCE_S)
        stags = {
            "zero": 0,
            "unknown": int(mr.remote_token) ^ 0x40000000,
            "wrong key": int(mr.remote_token) ^ 1,
            "local": int(LocalToken(mr.local_token)),
            "closed": closed,
        }
        peer.send_write(stags[which], mr.address, b"x")
        said = peer.read_terminate()
        assert (said.layer, said.etype, said.code) == (1, 1, 0)
        end.connector.disconnected.result(PATIENCE_S)
        assert end.adapter.query_statistics().refused_tokens == 1
        assert bytes(mr.view) == bytes(64)


def test_a_length_that_is_only_promised_takes_no_memory() -> None:
    with raw_initiator(receives=1) as (peer, end):
        peer.send(b"\xff\xff")
        until(lambda: end.connector._core is not None and end.connector._core.next_timeout() is not None)
        stream: Any = end.connector._core and end.connector._core._standing.stream
        assert stream._deframer.buffered == 2
        assert len(stream._deframer._carry) == 2


def test_by_default_an_adapter_can_be_reached_from_this_machine_only() -> None:
    with open_adapter() as adapter:
        assert adapter.listen().local_address[0] == "127.0.0.1"


def test_a_start_up_frame_is_all_that_is_kept_before_somebody_accepts() -> None:
    """Octets behind an unanswered request end the connection; they are not kept for later."""
    never = threading.Event()
    with open_adapter() as adapter:
        listener = adapter.listen()
        with closing(Peer(listener.local_address, "127.0.0.1", never)) as peer:
            peer.send(request(bytes(508)))
            listener.next_request().result(PATIENCE_S)
            try:
                peer.send(peer.untagged(Opcode.SEND, bytes(1000)) * 1000)
            except Over as over:  # in the middle, where the buffers of TCP are small
                ending = over
            else:
                ending = peer.ending()
            assert str(ending) in ("closed", "reset")
