"""The passive side's fence (RFC 5044 7.1.3): nothing but the Reply before the peer's first FPDU, whatever happens here.

And the indication that lifts it where the peer can send nothing but a Send (RFC 6581 5).
"""

import pytest

from softndk.config import IwarpConfig
from softndk.errors import InvalidState
from softndk.iwarp.events import Aborted, Established, Finish
from softndk.iwarp.qp_state import State
from softndk.status import Status
from softndk.wire.mpa import Enhanced
from softndk.wire.rdmap import Opcode
from tests.pair.core_pair import Side
from tests.pair.raw_peer import RawPeer, tagged, untagged

SUCCESS, CANCELLED = Status.SUCCESS, Status.CANCELLED
CLIENT_SERVER = Enhanced(ird=16, ord=16)
SEND_READY = Enhanced(ird=16, ord=16, peer_to_peer=True, rtr_send=True)


def client_server(config: IwarpConfig | None = None) -> RawPeer:
    """A peer that has promised no indication: this side counts as connected and must not speak first."""
    peer = RawPeer(Side("B", active=False, config=config), enhanced=CLIENT_SERVER)
    assert peer.side.take_events()[1:] == [Established(16, 16)]
    return peer


class TestFaultsOfThisSide:
    """A Terminate is an FPDU too."""

    def test_an_abort_before_the_first_fpdu_is_a_reset(self) -> None:
        peer = client_server()
        peer.side.receive(0, 64, "r")
        peer.side.send(b"waits", "s")
        peer.side.core.abort("flushed by this side", peer.now)
        peer.pump()
        assert peer.received == b""
        assert peer.closed is Finish.RESET
        (event,) = peer.side.take_events()
        assert isinstance(event, Aborted)
        assert peer.side.finished() == ([("s", CANCELLED)], [("r", CANCELLED)])

    def test_a_local_request_that_fails_before_the_first_fpdu(self) -> None:
        def refuse() -> None:
            raise InvalidState("no", Status.INVALID_DEVICE_REQUEST)

        peer = client_server()
        peer.side.local(refuse, "i")
        peer.side.send(b"waits", "s")
        peer.pump()
        assert peer.received == b""
        assert peer.closed is Finish.RESET
        (event,) = peer.side.take_events()
        assert isinstance(event, Aborted)
        assert peer.side.finished()[0] == [("i", Status.INVALID_DEVICE_REQUEST), ("s", CANCELLED)]

    def test_after_the_first_fpdu_it_is_told(self) -> None:
        peer = client_server()
        peer.send(tagged(Opcode.WRITE, 1, 0))
        peer.side.core.abort("flushed by this side", peer.now)
        peer.pump()
        assert peer.take() == [untagged(Opcode.TERMINATE, 1, bytes(4))]
        assert peer.closed is Finish.SHUTDOWN

    def test_a_first_message_that_is_held_back_lifts_the_fence_too(self) -> None:
        peer = client_server(IwarpConfig(receive_wait_s=5))
        peer.send(untagged(Opcode.SEND, 1, b"hello"))
        assert peer.side.core.holding_back
        peer.side.core.abort("flushed by this side", peer.now)
        peer.pump()
        assert peer.take() == [untagged(Opcode.TERMINATE, 1, bytes(4))]

    def test_a_close_before_the_first_fpdu_is_a_fin(self) -> None:
        peer = client_server()
        peer.side.send(b"waits", "s")
        peer.side.core.close(peer.now)
        peer.pump()
        assert peer.received == b""
        assert peer.closed is Finish.SHUTDOWN


class TestFaultsOfThePeer:
    """Who has sent something has left the start-up behind: it is told what was wrong with it."""

    @pytest.mark.parametrize("at", [0, 5, -1])
    @pytest.mark.parametrize("peer_to_peer", [True, False])
    def test_a_damaged_first_fpdu(self, at: int, peer_to_peer: bool) -> None:
        peer = RawPeer(Side("B", active=False)) if peer_to_peer else client_server()
        octets = bytearray(peer.frame(tagged(Opcode.WRITE, 1, 0)))
        octets[at] ^= 1
        peer.send_octets(bytes(octets) + bytes(256))
        assert peer.take() == [untagged(Opcode.TERMINATE, 1, bytes.fromhex("20020000"))]
        assert peer.closed is Finish.SHUTDOWN


class TestSendAsIndication:
    """Choice: it has a number of its own, uses up no receive and is not delivered."""

    def peer(self, receives: int = 1) -> RawPeer:
        side = Side("B", active=False)
        for number in range(receives):
            side.receive(64 * number, 64, f"r{number}")
        peer = RawPeer(side, enhanced=SEND_READY)
        assert peer.reply.enhanced == Enhanced(ird=16, ord=16, peer_to_peer=True, rtr_send=True)
        side.take_events()
        assert side.is_in(State.READYING)
        return peer

    @pytest.mark.parametrize("receives", [0, 1])
    def test_it_is_not_delivered_and_needs_no_receive(self, receives: int) -> None:
        peer = self.peer(receives)
        peer.send(untagged(Opcode.SEND, 1))
        assert peer.side.take_events() == [Established(16, 16)]
        assert peer.side.finished() == ([], [])
        assert peer.received == b""

    def test_the_next_message_is_number_2(self) -> None:
        peer = self.peer()
        peer.send(untagged(Opcode.SEND, 1), untagged(Opcode.SEND, 2, b"first"))
        assert peer.side.finished() == ([], [("r0", SUCCESS)])
        assert peer.side.memory[:5] == b"first"

    def test_number_1_is_taken_by_it(self) -> None:
        peer = self.peer()
        peer.send(untagged(Opcode.SEND, 1), untagged(Opcode.SEND, 1, b"first"))
        assert peer.take()[0][18:20] == bytes.fromhex("1203")

    def test_only_the_first_fpdu_is_an_indication(self) -> None:
        peer = self.peer()
        peer.send(untagged(Opcode.SEND, 1), untagged(Opcode.SEND, 2))
        assert peer.side.finished() == ([], [("r0", SUCCESS)])

    @pytest.mark.parametrize("first", [untagged(Opcode.SEND, 1, b"hello"), untagged(Opcode.SEND_SE, 1)])
    def test_another_first_message_is_an_indication_and_is_delivered(self, first: bytes) -> None:
        peer = self.peer()
        peer.send(first)
        assert peer.side.take_events() == [Established(16, 16)]
        assert peer.side.finished() == ([], [("r0", SUCCESS)])

    def test_a_write_is_as_good(self) -> None:
        peer = self.peer()
        peer.send(tagged(Opcode.WRITE, 1, 0), untagged(Opcode.SEND, 1))
        assert peer.side.finished() == ([], [("r0", SUCCESS)])

    @pytest.mark.parametrize("enhanced", [CLIENT_SERVER, Enhanced(16, 16, peer_to_peer=True, rtr_write=True), None])
    def test_where_it_was_not_agreed_an_empty_message_is_a_message(self, enhanced: Enhanced | None) -> None:
        side = Side("B", active=False)
        side.receive(0, 64, "r0")
        peer = RawPeer(side, enhanced=enhanced, revision=1 if enhanced is None else 2)
        peer.send(untagged(Opcode.SEND, 1))
        assert side.finished() == ([], [("r0", SUCCESS)])
