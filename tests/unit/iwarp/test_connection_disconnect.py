"""The graceful disconnect (R-DISC, R-DEV), with work under way in both directions."""

import errno
import os

import pytest

from softndk.config import IwarpConfig
from softndk.errors import Aborted as AbortedError
from softndk.flags import OpFlag
from softndk.iwarp.events import Disconnected, Finish, PeerDisconnected
from softndk.iwarp.qp_state import State
from softndk.status import Status
from softndk.wire.rdmap import Opcode
from tests.pair.core_pair import Side
from tests.pair.established import connected, outcome_of, raw
from tests.pair.raw_peer import RawPeer, read_request, tagged, untagged

CANCELLED = Status.CANCELLED
SUCCESS = Status.SUCCESS
FENCED = OpFlag.READ_FENCE
SILENT = OpFlag.SILENT_SUCCESS


class TestGracefulDisconnect:
    """R-DISC, R-DEV."""

    @pytest.mark.rules("R-DISC-2", "R-DISC-7", "R-DISC-1")
    def test_it_completes_only_when_the_peer_has_disconnected_too(self) -> None:
        """R-DISC-1, -2, -7."""
        pair = connected()
        pair.a.core.disconnect(pair.now)
        pair.drive()
        assert pair.a.take_events() == []
        assert pair.b.take_events() == [PeerDisconnected()]
        assert pair.a.is_in(State.CLOSING)
        assert pair.b.is_in(State.PEER_CLOSED)
        pair.b.core.disconnect(pair.now)
        pair.drive()
        assert outcome_of(pair.a) is None
        assert outcome_of(pair.b) is None
        for side in (pair.a, pair.b):
            assert side.is_in(State.CLOSED)
            assert side.closed
            assert side.core.is_over
            assert side.core.next_timeout() is None
        assert not pair.a_to_b.reset
        assert not pair.b_to_a.reset

    @pytest.mark.rules("A-19")
    def test_crossing_disconnects(self) -> None:
        """A-19: no event after the local disconnect."""
        pair = connected()
        pair.a.core.disconnect(pair.now)
        pair.b.core.disconnect(pair.now)
        pair.drive()
        assert outcome_of(pair.a) is None
        assert outcome_of(pair.b) is None

    @pytest.mark.rules("R-DEV-4", "A-2", "R-FLUSH-6", "R-DISC-3")
    def test_the_peers_disconnect_flushes_nothing(self) -> None:
        """R-DEV-4, A-2, R-FLUSH-6: the local disconnect does (R-DISC-3)."""
        pair = connected()
        pair.b.receive(0, 64, "r")
        pair.b.read([pair.b.sge(0, 8)], pair.a.base, pair.a.stag, "read")
        pair.drive()
        pair.b.finished()
        pair.a.core.disconnect(pair.now)
        pair.drive()
        assert pair.b.take_events() == [PeerDisconnected()]
        assert pair.b.finished() == ([], [])
        pair.b.core.disconnect(pair.now)
        pair.drive()
        assert pair.b.finished() == ([], [("r", CANCELLED)])
        assert pair.b.pair.flushing

    @pytest.mark.rules("R-DISC-2")
    def test_posted_work_goes_out_first(self) -> None:
        """R-DISC-2: silent requests count too."""
        pair = connected()
        pair.b.receive(0, 60_000, "r")
        pair.a_to_b.capacity = 0
        pair.a.send(bytes(range(200)) * 300, "s")
        pair.a.write(b"silent", pair.b.base + 60_000, pair.b.stag, flags=SILENT)
        pair.a.core.disconnect(pair.now)
        pair.drive()
        assert not pair.a_to_b.fin
        assert pair.b.take_events() == []
        pair.a_to_b.capacity = None
        pair.drive()
        assert pair.b.take_events() == [PeerDisconnected()]
        assert pair.b.memory[60_000:60_006] == b"silent"
        assert pair.a.finished()[0] == [("s", SUCCESS)]
        assert pair.b.finished()[1] == [("r", SUCCESS)]

    @pytest.mark.rules("R-DEFER-7")
    def test_deferred_requests_are_started(self) -> None:
        """R-DEFER-7."""
        pair = connected()
        pair.b.receive(0, 64, "r")
        pair.a.send(b"deferred", "s", deferred=True)
        pair.drive()
        assert pair.a.finished()[0] == []
        pair.a.core.disconnect(pair.now)
        pair.drive()
        assert pair.a.finished()[0] == [("s", SUCCESS)]
        assert pair.b.take_events() == [PeerDisconnected()]

    def test_local_requests_alone_do_not_hold_it_up(self) -> None:
        pair = connected()
        ran: list[str] = []
        pair.a.local(lambda: ran.append("bind"), "bind", deferred=True)
        pair.a.core.disconnect(pair.now)
        pair.drive()
        assert ran == ["bind"]
        assert pair.b.take_events() == [PeerDisconnected()]

    def test_a_local_request_that_waits_for_a_read_does_not_hold_it_up(self) -> None:
        pair = connected()
        pair.a.read([pair.a.sge(0, 8)], pair.b.base, pair.b.stag, "read")
        pair.a.local(lambda: None, "invalidate", waits_for_reads=True)
        pair.a.core.disconnect(pair.now)
        pair.drive()
        assert pair.a.finished()[0] == [("read", SUCCESS), ("invalidate", SUCCESS)]
        assert pair.b.take_events() == [PeerDisconnected()]

    def test_a_message_that_ends_where_the_send_buffer_does(self) -> None:
        """That it was the last one is noticed without a further one."""
        pair = connected(IwarpConfig(send_buffer=65600, max_fpdu=64768))
        pair.b.receive(0, 1 << 16, "r1")
        pair.b.receive(0, 1 << 16, "r2")
        pair.a.send(bytes(64768 - 18), "s1")
        pair.a.send(bytes(1000), "s2")
        pair.a.core.disconnect(pair.now)
        pair.drive()
        assert pair.a.finished()[0] == [("s1", SUCCESS), ("s2", SUCCESS)]
        assert pair.b.take_events() == [PeerDisconnected()]

    def test_own_reads_complete_before_the_fin(self) -> None:
        pair = connected()
        pair.b.memory[:4] = b"data"
        pair.a.read([pair.a.sge(0, 4)], pair.b.base, pair.b.stag, "read")
        pair.a.core.disconnect(pair.now)
        pair.drive()
        assert pair.a.finished()[0] == [("read", SUCCESS)]
        assert pair.a.memory[:4] == b"data"
        assert pair.b.take_events() == [PeerDisconnected()]

    def test_reads_of_the_peer_are_answered_before_the_fin(self) -> None:
        pair = connected()
        pair.a.memory[:4] = b"data"
        pair.a_to_b.capacity = 0
        pair.b.read([pair.b.sge(0, 4)], pair.a.base, pair.a.stag, "read")
        pair.drive()
        pair.a.core.disconnect(pair.now)
        pair.a_to_b.capacity = None
        pair.drive()
        assert pair.b.finished()[0] == [("read", SUCCESS)]
        assert pair.b.take_events() == [PeerDisconnected()]

    @pytest.mark.rules("R-DISC-2")
    def test_what_the_peer_can_no_longer_answer_is_flushed(self) -> None:
        """A read outstanding when the peer's FIN comes: the disconnect succeeds at once (R-DISC-2, -3, -6)."""
        peer = raw()
        side = peer.side
        side.read([side.sge(0, 8)], 0x9000, 0x5501, "read")
        side.send(b"fenced", "s", flags=FENCED)
        peer.pump()
        peer.send_fin()
        assert side.take_events() == [PeerDisconnected()]
        assert side.finished() == ([], [])
        side.core.disconnect(peer.now)
        peer.pump()
        assert outcome_of(side) is None
        assert side.finished()[0] == [("read", CANCELLED), ("s", CANCELLED)]
        assert peer.closed is Finish.CLOSE

    def test_the_peers_fin_while_this_side_waits_for_its_read(self) -> None:
        peer = raw()
        side = peer.side
        side.read([side.sge(0, 8)], 0x9000, 0x5501, "read")
        side.core.disconnect(peer.now)
        peer.pump()
        assert peer.closed is Finish.KEEP
        peer.send_fin()
        assert outcome_of(side) is None
        assert side.finished()[0] == [("read", CANCELLED)]

    def test_what_is_ready_still_goes_out_after_the_peers_fin(self) -> None:
        """RFC 5041: one FIN ends one direction only."""
        peer = raw()
        side = peer.side
        peer.send_fin()
        side.send(b"half open", "s1")
        peer.pump()
        assert side.finished()[0] == [("s1", SUCCESS)]
        side.send(b"last", "s2")
        side.core.disconnect(peer.now)
        peer.pump()
        assert side.finished()[0] == [("s2", SUCCESS)]
        assert peer.take() == [untagged(Opcode.SEND, 1, b"half open"), untagged(Opcode.SEND, 2, b"last")]
        assert [type(event) for event in side.take_events()] == [PeerDisconnected, Disconnected]

    def test_the_fence_before_the_first_fpdu_does_not_outlive_the_peers_fin(self) -> None:
        peer = RawPeer(Side("B", active=False), enhanced=None, revision=1)
        side = peer.side
        side.take_events()
        side.send(b"never", "s")
        peer.send_fin()
        side.core.disconnect(peer.now)
        peer.pump()
        assert [type(event) for event in side.take_events()] == [PeerDisconnected, Disconnected]
        assert side.finished()[0] == [("s", CANCELLED)]
        assert peer.received == b""

    def test_messages_are_taken_while_this_side_waits(self) -> None:
        pair = connected()
        pair.a.receive(0, 64, "r")
        pair.a.core.disconnect(pair.now)
        pair.drive()
        pair.b.send(b"bye", "s")
        pair.b.write(b"more", pair.a.base + 100, pair.a.stag)
        pair.drive()
        assert pair.a.finished()[1] == [("r", SUCCESS)]
        assert pair.a.memory[100:104] == b"more"
        pair.b.core.disconnect(pair.now)
        pair.drive()
        assert outcome_of(pair.a) is None

    def test_a_read_of_the_peer_after_our_fin_cannot_be_answered(self) -> None:
        """The connection is reset: nothing can follow our FIN, a Terminate neither."""
        peer = raw()
        side = peer.side
        side.receive(0, 64, "r")
        side.core.disconnect(peer.now)
        peer.pump()
        assert peer.closed is Finish.SHUTDOWN
        peer.closed = Finish.KEEP
        peer.send(read_request(1, 8, side.stag, side.base))
        assert peer.received == b""
        assert side.core.finish() is Finish.RESET
        error = outcome_of(side)
        assert error is not None
        assert error.status is Status.CONNECTION_ABORTED
        assert side.finished()[1] == [("r", CANCELLED)]

    def test_a_fault_before_our_fin_is_told_by_a_terminate(self) -> None:
        """The response that would let the FIN out comes together with the fault."""
        peer = raw()
        side = peer.side
        side.read([side.sge(0, 4)], 0x9000, 0x5501, "read")
        peer.pump()
        sink = int.from_bytes(peer.take()[0][18:22], "big")
        peer.received.clear()
        side.core.disconnect(peer.now)
        peer.send(tagged(Opcode.READ_RESPONSE, sink, 0, b"data"), tagged(Opcode.WRITE, 0xDEADBE01, 0, b"x"))
        (terminate,) = peer.take()
        assert terminate[18:20] == bytes.fromhex("1100")
        assert side.finished()[0] == [("read", SUCCESS)]
        assert outcome_of(side) is not None

    @pytest.mark.rules("A-14")
    def test_no_answer(self) -> None:
        pair = connected(IwarpConfig(disconnect_timeout_s=10))
        pair.a.receive(0, 64, "r")
        pair.a.core.disconnect(pair.now)
        pair.drive()
        pair.advance(9.9)
        assert pair.a.take_events() == []
        pair.advance(0.2)
        error = outcome_of(pair.a)
        assert error is not None
        assert error.status is Status.IO_TIMEOUT
        assert pair.a.finished()[1] == [("r", CANCELLED)]
        assert pair.a_to_b.reset

    @pytest.mark.rules("A-14")
    @pytest.mark.parametrize(
        ("number", "status"),
        [(errno.ECONNRESET, Status.CONNECTION_ABORTED), (errno.ETIMEDOUT, Status.IO_TIMEOUT)],
    )
    def test_the_connection_is_lost_meanwhile(self, number: int, status: Status) -> None:
        """A-14."""
        pair = connected()
        pair.a.core.disconnect(pair.now)
        pair.a.core.connection_lost(OSError(number, os.strerror(number)), pair.now)
        error = outcome_of(pair.a)
        assert error is not None
        assert error.status is status
        assert error.provider_error_code == 0x30000 | number

    def test_a_terminate_meanwhile(self) -> None:
        peer = raw()
        peer.side.read([peer.side.sge(0, 4)], 0x9000, 0x5501, "read")
        peer.side.core.disconnect(peer.now)
        peer.send(untagged(Opcode.TERMINATE, 1, bytes.fromhex("01010000")))
        error = outcome_of(peer.side)
        assert error is not None
        assert error.status is Status.CONNECTION_ABORTED
        assert error.fault is not None
        assert error.fault.received

    def test_close_meanwhile_raises_no_event(self) -> None:
        pair = connected()
        pair.a.receive(0, 64, "r")
        pair.a.core.disconnect(pair.now)
        pair.drive()
        pair.a.core.close(pair.now)
        pair.drive()
        assert pair.a.take_events() == []
        assert pair.a.finished()[1] == [("r", CANCELLED)]

    def test_a_cancelled_request_names_the_disconnect(self) -> None:
        pair = connected()
        pair.a.receive(0, 64, "r")
        pair.a.core.disconnect(pair.now)
        pair.b.core.disconnect(pair.now)
        pair.drive()
        (result,) = pair.a.receive_results()
        error = result.error
        assert error is not None
        assert isinstance(error.__cause__, AbortedError)
        assert error.__cause__.status is Status.CONNECTION_DISCONNECTED
        assert result.provider_error_code == 0x40000
