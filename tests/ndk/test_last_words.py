"""Over sockets: the last word of either side arrives, whatever lies unread or unsent when it is said."""

import pytest

from softndk import IwarpConfig, RemoteToken, Status
from softndk.testing import Pair
from softndk.wire.ddp import QueueNumber
from softndk.wire.rdmap import Opcode
from softndk.wire.terminate import Terminate
from tests.ndk.ends import ended, fault_of, one, take, triple
from tests.ndk.raw_peer import RawPeer, raw_client, raw_server

INVALID_STAG = (1, 1, 0)
REASON = Terminate(1, 1, 0)
FLOOD = 4 << 20


def unknown(peer: RawPeer, length: int = 8) -> bytes:
    """A Write to a token that does not exist."""
    return peer.fpdu(b"\xc1\x40\xde\xad\xbe\x01" + bytes(8) + bytes(length))


def test_a_terminate_reaches_a_peer_that_reads_nothing_before_it_has_sent_everything() -> None:
    """A socket closed with input unread would send a reset, and the Terminate would be lost."""
    with raw_client(receives=2) as (peer, end):
        peer.send(unknown(peer) + unknown(peer, 1400) * (FLOOD // 1420))
        terminate = peer.read_terminate()
        assert (terminate.layer, terminate.etype, terminate.code) == INVALID_STAG
        assert triple(fault_of(end)) == INVALID_STAG
        assert [result.status for result in take(end.cq, 2)] == [Status.CANCELLED] * 2


def test_a_terminate_reaches_a_peer_behind_what_was_being_sent_to_it() -> None:
    """The peer does not read: most of what was posted is still here. It gets whole FPDUs, then the Terminate."""
    with raw_client(IwarpConfig(terminate_drain_s=300)) as (peer, end):
        region = end.pd.register_mr(bytearray(FLOOD))
        end.qp.write(region[0:FLOOD], 0, RemoteToken(0x5501))
        peer.send(unknown(peer))
        assert triple(fault_of(end)) == INVALID_STAG
        written = 0
        while (ulpdu := peer.read_ulpdu())[0] & 0x80:
            written += len(ulpdu) - 14
        assert written < FLOOD
        assert ulpdu[18:20] == b"\x11\x00"
        assert peer.at_end()


@pytest.mark.parametrize("how", ["FIN", "RST"])
def test_a_peers_terminate_is_told_although_a_reset_is_at_its_heels(how: str) -> None:
    """What a kernel does that drops TCP at once, with our octets unread."""
    with raw_server() as (peer, end):
        end.qp.write(end.mr[0:4000], 0x9000, RemoteToken(0x5501))
        end.qp.read(end.mr[0:16], 0x9000, RemoteToken(0x5501))
        peer.send_terminate(REASON)
        if how == "RST":
            peer.reset()
        else:
            peer.sock.close()
        fault = fault_of(end)
        assert triple(fault) == INVALID_STAG
        assert fault.received
        statuses = [result.status for result in take(end.cq, 2)]
        assert statuses[-1] is Status.ACCESS_VIOLATION


def test_both_sides_end_the_connection_at_the_same_time(both: Pair) -> None:
    """Each may hear of the other's reason or of its own; neither hangs, and every request comes back."""
    for here in both:
        here.qp.receive(here.mr[0:16], context="receive")
        here.qp.write(b"no such token", 0, RemoteToken(0xDEADBE01), context="write")
    for here in both:
        assert triple(fault_of(here)) == INVALID_STAG
        results = {result.request_context: result.status for result in take(here.cq, 2)}
        assert results["receive"] is Status.CANCELLED
        assert set(results) == {"receive", "write"}


def test_a_terminate_behind_a_message_that_is_held_back_takes_its_turn() -> None:
    with raw_client(IwarpConfig(receive_wait_s=300)) as (peer, end):
        peer.send_message(b"first")
        peer.send_terminate(REASON)
        peer.finish()
        end.qp.receive(end.mr[0:16], context="late")
        result = one(end.cq)
        assert (result.request_context, result.status, result.bytes_transferred) == ("late", Status.SUCCESS, 5)
        fault = fault_of(end)
        assert fault.received
        assert triple(fault) == INVALID_STAG


@pytest.mark.parametrize("between", [0, 3])
def test_a_terminate_behind_a_held_message_is_told_when_a_reset_ends_it_all(between: int) -> None:
    """Nobody posts a receive any more: of all that lies unread the reason is what still matters."""
    with raw_client(IwarpConfig(receive_wait_s=300)) as (peer, end):
        end.qp.read(end.mr[0:16], 0x9000, RemoteToken(0x5501))
        peer.read_request()
        for _ in range(1 + between):
            peer.send_message(b"no receive is posted")
        peer.send_terminate(REASON)
        peer.reset()
        fault = fault_of(end)
        assert fault.received
        assert triple(fault) == INVALID_STAG
        assert one(end.cq).status is Status.ACCESS_VIOLATION


def test_a_reset_behind_a_held_message_is_a_reset() -> None:
    with raw_client(IwarpConfig(receive_wait_s=300)) as (peer, end):
        peer.send_message(b"no receive is posted")
        peer.send_message(b"\x41\x47 is no Terminate here")
        peer.reset()
        error = ended(end).error
        assert error is not None
        assert error.status is Status.CONNECTION_RESET


def test_a_fin_inside_an_fpdu_behind_good_messages() -> None:
    with raw_client(receives=2) as (peer, end):
        peer.send_message(b"whole")
        peer.send(peer.fpdu(peer.untagged(Opcode.SEND, QueueNumber.SEND, b"cut off"))[:-1])
        peer.finish()
        how = ended(end)
        assert not how.graceful
        assert how.provider_reason == 0x22001
        assert [result.status for result in take(end.cq, 2)] == [Status.SUCCESS, Status.CANCELLED]
