"""An established connection: disconnects, ends of every kind, Terminates received, held-back messages, time limits."""

import errno
import os

import pytest

from softndk.config import IwarpConfig
from softndk.errors import Aborted as AbortedError
from softndk.errors import NdkError
from softndk.flags import OpFlag
from softndk.iwarp.events import Aborted, Disconnected, Established, Finish, PeerDisconnected
from softndk.iwarp.qp_state import State
from softndk.status import Status
from softndk.wire.rdmap import Opcode
from tests.pair.core_pair import CorePair, Side
from tests.pair.raw_peer import RawPeer, read_request, tagged, untagged

CANCELLED = Status.CANCELLED
SUCCESS = Status.SUCCESS
FENCED = OpFlag.READ_FENCE
SILENT = OpFlag.SILENT_SUCCESS


def connected(config: IwarpConfig | None = None) -> CorePair:
    config = config or IwarpConfig()
    pair = CorePair(Side("A", active=True, config=config), Side("B", active=False, config=config, base=0x900000))
    pair.connect()
    return pair


def raw(config: IwarpConfig | None = None) -> RawPeer:
    """A raw peer with an established connection to `peer.side`."""
    peer = RawPeer(Side("B", active=False, config=config))
    peer.establish()
    peer.received.clear()
    return peer


def end_of(side: Side) -> NdkError:
    """The error of the only event, the end of an established connection."""
    (event,) = side.take_events()
    assert isinstance(event, Aborted)
    return event.error


def outcome_of(side: Side) -> NdkError | None:
    """How the local disconnect has ended: its error is in the only event."""
    (event,) = side.take_events()
    assert isinstance(event, Disconnected)
    return event.error


class TestGracefulDisconnect:
    """R-DISC, R-DEV."""

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

    def test_crossing_disconnects(self) -> None:
        """A-19: no event after the local disconnect."""
        pair = connected()
        pair.a.core.disconnect(pair.now)
        pair.b.core.disconnect(pair.now)
        pair.drive()
        assert outcome_of(pair.a) is None
        assert outcome_of(pair.b) is None

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


class TestEnds:
    def test_fin_between_messages_is_graceful(self) -> None:
        peer = raw()
        peer.send_fin()
        assert peer.side.take_events() == [PeerDisconnected()]
        assert peer.closed is Finish.KEEP

    def test_fin_inside_a_message(self) -> None:
        peer = raw()
        peer.side.receive(0, 64, "r")
        peer.send(untagged(Opcode.SEND, 1, b"head", last=False))
        peer.send_fin()
        assert end_of(peer.side).status is Status.CONNECTION_ABORTED
        assert peer.side.finished()[1] == [("r", CANCELLED)]
        assert peer.closed is Finish.RESET

    def test_fin_inside_a_response(self) -> None:
        peer = raw()
        side = peer.side
        side.read([side.sge(0, 8)], 0x9000, 0x5501, "read")
        peer.pump()
        sink = int.from_bytes(peer.take()[0][18:22], "big")
        peer.send(tagged(Opcode.READ_RESPONSE, sink, 0, b"half", last=False))
        peer.send_fin()
        assert end_of(side).status is Status.CONNECTION_ABORTED
        assert side.finished()[0] == [("read", CANCELLED)]

    def test_reset(self) -> None:
        pair = connected()
        pair.a.receive(0, 64, "r")
        pair.a.read([pair.a.sge(0, 8)], pair.b.base, pair.b.stag, "read")
        pair.a.core.connection_lost(ConnectionResetError(errno.ECONNRESET, "reset"), pair.now)
        pair.a.collect()
        error = end_of(pair.a)
        assert error.status is Status.CONNECTION_RESET
        assert error.provider_error_code == 0x30000 | errno.ECONNRESET
        assert pair.a.finished() == ([("read", CANCELLED)], [("r", CANCELLED)])
        assert not pair.a.core.wants_read()

    def test_reset_after_the_peers_fin(self) -> None:
        peer = raw()
        peer.send_fin()
        peer.side.take_events()
        peer.side.receive(0, 64, "r")
        peer.side.core.connection_lost(ConnectionResetError(errno.ECONNRESET, "reset"), peer.now)
        peer.side.collect()
        assert end_of(peer.side).status is Status.CONNECTION_RESET
        assert peer.side.finished()[1] == [("r", CANCELLED)]

    def test_reset_after_a_terminate_raises_no_second_event(self) -> None:
        peer = raw()
        peer.send(tagged(Opcode.WRITE, 0xDEADBE01, 0, b"x"))
        end_of(peer.side)
        peer.side.core.connection_lost(ConnectionResetError(errno.ECONNRESET, "reset"), peer.now)
        assert peer.side.take_events() == []
        assert peer.side.is_in(State.ERROR)

    def test_abort_by_this_side(self) -> None:
        """NdkFlush on a connected QP: everything is cancelled, the peer gets a Terminate (R-FLUSH-1, A-3)."""
        pair = connected()
        pair.a.receive(0, 64, "r")
        pair.a.read([pair.a.sge(0, 8)], pair.b.base, pair.b.stag, "read")
        pair.a.core.abort("flushed by this side", pair.now)
        assert pair.a.finished() == ([("read", CANCELLED)], [("r", CANCELLED)])
        pair.drive()
        assert end_of(pair.a).status is Status.CONNECTION_ABORTED
        assert end_of(pair.b).provider_error_code == 0x10000
        pair.a.core.abort("again", pair.now)
        assert pair.a.take_events() == []

    def test_close_in_the_middle_of_everything(self) -> None:
        """R-CLOSE-3, -10: all is flushed, no event here; a message that was cut off is an abort for the peer."""
        sides = (Side("A", active=True, size=1 << 19), Side("B", active=False, base=0x900000, size=1 << 19))
        pair = CorePair(*sides)
        pair.connect()
        pair.a_to_b.capacity = 3000
        pair.b.receive(0, 400_000, "r")
        pair.a.receive(0, 64, "r")
        pair.a.send(bytes(400_000), "s")
        pair.a.read([pair.a.sge(0, 8)], pair.b.base, pair.b.stag, "read")
        pair.transmit(pair.a)
        pair.a.core.close(pair.now)
        assert pair.a.finished() == ([("s", CANCELLED), ("read", CANCELLED)], [("r", CANCELLED)])
        pair.drive()
        assert pair.a.take_events() == []
        assert end_of(pair.b).status is Status.CONNECTION_ABORTED
        assert pair.b.finished()[1] == [("r", CANCELLED)]

    def test_close_sends_what_is_ready(self) -> None:
        pair = connected()
        pair.a_to_b.capacity = 3000
        pair.b.receive(0, 60_000, "r")
        pair.a.send(bytes(60_000), "s")
        pair.transmit(pair.a)
        pair.a.core.close(pair.now)
        assert pair.a.finished()[0] == [("s", CANCELLED)]
        pair.drive()
        assert pair.b.take_events() == [PeerDisconnected()]
        assert pair.b.finished()[1] == [("r", SUCCESS)]

    def test_close_between_messages_is_a_graceful_notice(self) -> None:
        pair = connected()
        pair.b.receive(0, 64, "r")
        pair.a.send(b"last words", "s")
        pair.transmit(pair.a)
        assert pair.a.finished()[0] == [("s", SUCCESS)]
        pair.a.core.close(pair.now)
        pair.drive()
        assert pair.b.finished()[1] == [("r", SUCCESS)]
        assert pair.b.take_events() == [PeerDisconnected()]
        pair.b.core.close(pair.now)
        pair.drive()
        assert pair.a.closed
        assert pair.b.closed
        assert not pair.a_to_b.reset

    def test_after_a_close_input_is_thrown_away(self) -> None:
        peer = raw()
        side = peer.side
        side.core.close(peer.now)
        peer.pump()
        peer.closed = Finish.KEEP
        peer.send(tagged(Opcode.WRITE, side.stag, side.base, b"late"))
        assert side.memory[:4] == bytes(4)
        assert side.take_events() == []

    def test_the_end_of_a_drain(self) -> None:
        """4.4: after the last word input is thrown away until the peer's FIN or the limit."""
        peer = raw(IwarpConfig(terminate_drain_s=2))
        peer.send(tagged(Opcode.WRITE, 0xDEADBE01, 0, b"x"))
        end_of(peer.side)
        peer.closed = Finish.KEEP
        peer.advance(1.9)
        assert peer.side.core.finish() is Finish.SHUTDOWN
        peer.advance(0.1)
        assert peer.side.core.finish() is Finish.CLOSE
        assert peer.side.is_in(State.ERROR)
        assert peer.side.take_events() == []

    def test_a_drain_that_begins_after_a_long_silence(self) -> None:
        """The fault is met while octets are made, in a call that does not know what time it is."""
        peer = raw(IwarpConfig(terminate_drain_s=2))
        side = peer.side
        peer.now += 500
        side.send([side.sge(1 << 20, 1)], "s")
        peer.pump()
        (terminate,) = peer.take()
        assert terminate[18:22] == bytes(4)
        side.core.handle_timeout(peer.now + 1.9)
        assert side.core.finish() is Finish.SHUTDOWN
        side.core.handle_timeout(peer.now + 2)
        assert side.core.finish() is Finish.CLOSE

    def test_a_last_word_that_cannot_be_sent_at_once_after_a_long_silence(self) -> None:
        peer = raw(IwarpConfig(terminate_drain_s=2))
        side = peer.side
        side.send([side.sge(1 << 20, 1)], "s")
        ready = b"".join(side.core.data_to_send())
        peer.now += 500
        side.core.handle_timeout(peer.now)
        assert b"".join(side.core.data_to_send()) == ready
        assert side.core.next_timeout() == peer.now + 2

    def test_a_peer_that_never_reads_our_last_word(self) -> None:
        """Its FIN is here, our Terminate is not taken: the limit holds all the same."""
        peer = raw(IwarpConfig(terminate_drain_s=2))
        side = peer.side
        side.core.receive_data(memoryview(peer.frame(tagged(Opcode.WRITE, 0xDEADBE01, 0, b"x"))), peer.now)
        side.core.receive_eof(peer.now)
        assert side.core.finish() is Finish.KEEP
        assert side.core.next_timeout() == peer.now + 2
        side.core.handle_timeout(peer.now + 2)
        assert side.core.finish() is Finish.CLOSE
        assert side.core.data_to_send() == []
        assert side.core.next_timeout() is None


class TestTerminateReceived:
    """A-4: which request shows it, with which status and which code."""

    def blamed(self, code: str) -> list[tuple[object, Status]]:
        peer = raw()
        side = peer.side
        side.receive(0, 64, "r")
        side.read([side.sge(0, 8)], 0x9000, 0x5501, "oldest")
        side.send(b"fenced", "behind", flags=FENCED)
        peer.pump()
        peer.send(untagged(Opcode.TERMINATE, 1, bytes.fromhex(code + "0000")))
        error = end_of(side)
        assert error.provider_error_code == 0x10000 | int(code, 16)
        assert error.fault is not None
        assert error.fault.received
        assert (error.fault.layer << 4 | error.fault.etype, error.fault.code) == tuple(bytes.fromhex(code))
        assert peer.closed is Finish.SHUTDOWN
        initiator = side.initiator_results()
        assert [result.status for result in side.receive_results()] == [CANCELLED]
        for result in initiator:
            assert result.provider_error_code == 0x10000 | int(code, 16)
            assert result.error is not None
            assert result.error.__cause__ is error
        return [(result.request_context, result.status) for result in initiator]

    @pytest.mark.parametrize("code", ["0101", "0104", "1101", "1103", "1202", "1205", "2002", "0000", "0207", "01ff"])
    def test_the_oldest_request_has_remote_resources(self, code: str) -> None:
        assert self.blamed(code) == [("oldest", Status.REMOTE_RESOURCES), ("behind", CANCELLED)]

    @pytest.mark.parametrize("code", ["0100", "0102", "0103", "1100", "1102"])
    def test_an_unknown_token_or_a_missing_right_is_an_access_violation(self, code: str) -> None:
        assert self.blamed(code) == [("oldest", Status.ACCESS_VIOLATION), ("behind", CANCELLED)]

    @pytest.mark.parametrize("code", ["0209", "0109"])
    def test_a_refused_invalidation_is_no_other_requests_fault(self, code: str) -> None:
        assert self.blamed(code) == [("oldest", CANCELLED), ("behind", CANCELLED)]

    @pytest.mark.parametrize("code", ["f7ee", "0342", "2208"])
    def test_unknown_codes_are_kept_as_numbers(self, code: str) -> None:
        assert self.blamed(code) == [("oldest", Status.REMOTE_RESOURCES), ("behind", CANCELLED)]

    def test_a_returned_read_request_names_the_read(self) -> None:
        peer = raw()
        side = peer.side
        for number in range(3):
            side.read([side.sge(8 * number, 8)], 0x9000, 0x5501, number)
        peer.pump()
        second = peer.take()[1]
        body = bytes.fromhex("0101e000002e") + second
        peer.send(untagged(Opcode.TERMINATE, 1, body))
        assert side.finished()[0] == [(0, CANCELLED), (1, Status.REMOTE_RESOURCES), (2, CANCELLED)]

    def test_a_returned_read_request_that_nobody_knows(self) -> None:
        peer = raw()
        side = peer.side
        side.read([side.sge(0, 8)], 0x9000, 0x5501, "oldest")
        peer.pump()
        body = bytes.fromhex("0101e000002e") + read_request(1, 8, 0x5501, 0x9000)
        peer.send(untagged(Opcode.TERMINATE, 1, body))
        assert side.finished()[0] == [("oldest", Status.REMOTE_RESOURCES)]

    def test_with_nothing_outstanding_only_the_event_tells(self) -> None:
        peer = raw()
        peer.send(untagged(Opcode.TERMINATE, 1, bytes.fromhex("11000000")))
        assert end_of(peer.side).status is Status.CONNECTION_ABORTED
        assert peer.side.finished() == ([], [])

    def test_the_linux_drivers_octets_are_understood(self) -> None:
        """Its nibbles are exchanged: 02 02 00 00 is a CRC error."""
        peer = raw()
        peer.send(untagged(Opcode.TERMINATE, 1, bytes.fromhex("02020000")))
        assert end_of(peer.side).provider_error_code == 0x12002

    @pytest.mark.parametrize("body", [b"", b"\x11", bytes.fromhex("1100c000")])
    def test_a_malformed_terminate_ends_the_stream_too(self, body: bytes) -> None:
        peer = raw()
        peer.send(untagged(Opcode.TERMINATE, 1, body))
        assert end_of(peer.side).status is Status.CONNECTION_ABORTED
        assert peer.closed is Finish.SHUTDOWN

    def test_nothing_more_is_sent(self) -> None:
        peer = raw()
        side = peer.side
        side.send(bytes(50_000), "s")
        peer.pump(2000)
        sent = len(peer.received)
        peer.send(untagged(Opcode.TERMINATE, 1, bytes.fromhex("12050000")))
        assert len(peer.received) == sent
        assert side.finished()[0] == [("s", Status.REMOTE_RESOURCES)]

    def test_both_ends(self) -> None:
        pair = connected()
        pair.a.write(b"x", 0, 0xDEADBE01, "w")
        pair.a.read([pair.a.sge(0, 8)], pair.b.base, pair.b.stag, "read")
        pair.drive()
        assert pair.a.finished()[0] == [("w", SUCCESS), ("read", Status.ACCESS_VIOLATION)]
        assert pair.a.closed
        assert pair.b.closed
        assert not pair.a_to_b.reset
        assert not pair.b_to_a.reset


class TestHeldBack:
    """A-10: a message without a receive waits `receive_wait_s` for one."""

    config = IwarpConfig(receive_wait_s=5)

    def test_without_a_grace_time_the_stream_ends_at_once(self) -> None:
        peer = raw()
        peer.send(untagged(Opcode.SEND, 1, b"x"))
        assert end_of(peer.side).provider_error_code == 0x21202

    def test_a_receive_posted_in_time(self) -> None:
        pair = connected(self.config)
        pair.a.send(b"one", 1)
        pair.a.send(b"two", 2)
        pair.a.write(b"after", pair.b.base + 1000, pair.b.stag, 3)
        pair.drive()
        assert pair.b.core.holding_back
        assert not pair.b.core.wants_read()
        assert pair.b.memory[1000:1005] == bytes(5)
        pair.advance(4)
        pair.b.receive(0, 64, "r1")
        pair.drive()
        assert pair.b.finished()[1] == [("r1", SUCCESS)]
        assert pair.b.core.holding_back
        pair.advance(4)
        pair.b.receive(64, 64, "r2")
        pair.drive()
        assert pair.b.finished()[1] == [("r2", SUCCESS)]
        assert pair.b.memory[:3] + pair.b.memory[64:67] + pair.b.memory[1000:1005] == b"onetwoafter"
        assert not pair.b.core.holding_back
        assert pair.b.core.next_timeout() is None

    def test_the_time_runs_out(self) -> None:
        pair = connected(self.config)
        pair.a.send(b"one")
        pair.drive()
        pair.advance(4.99)
        assert pair.b.take_events() == []
        pair.advance(0.02)
        error = end_of(pair.b)
        assert error.provider_error_code == 0x21202
        assert pair.a.closed
        assert pair.b.closed
        assert not pair.b_to_a.reset

    def test_a_fault_behind_the_message(self) -> None:
        pair = connected(self.config)
        pair.a.send(b"one")
        pair.a.write(b"x", 0, 0xDEADBE01)
        pair.drive()
        pair.b.receive(0, 64, "r1")
        pair.b.receive(0, 64, "r2")
        pair.drive()
        assert end_of(pair.b).provider_error_code == 0x21100
        assert pair.b.finished()[1] == [("r1", SUCCESS), ("r2", CANCELLED)]

    def test_what_this_side_sends_is_not_held_up(self) -> None:
        pair = connected(self.config)
        pair.a.receive(0, 64, "r")
        pair.a.send(b"waits")
        pair.drive()
        pair.b.send(b"goes on", "s")
        pair.drive()
        assert pair.b.finished()[0] == [("s", SUCCESS)]
        assert pair.a.finished()[1] == [("r", SUCCESS)]

    def test_kick_without_a_receive_changes_nothing(self) -> None:
        pair = connected(self.config)
        pair.a.send(b"waits")
        pair.drive()
        pair.b.core.kick()
        pair.a.core.kick()
        assert pair.b.core.holding_back
        assert pair.b.core.next_timeout() == pair.now + 5

    @pytest.mark.parametrize("end", ["close", "abort"])
    def test_after_the_end_input_is_read_again(self, end: str) -> None:
        """Unread input would turn the close into a reset, which can destroy what was sent last."""
        pair = connected(self.config)
        pair.a.send(bytes(5000))
        pair.drive()
        assert not pair.b.core.wants_read()
        if end == "close":
            pair.b.core.close(pair.now)
        else:
            pair.b.core.abort("flushed", pair.now)
        assert pair.b.core.wants_read()
        pair.drive()
        pair.a.core.close(pair.now)
        pair.drive()
        assert pair.b.closed
        assert not pair.b_to_a.reset


class TestStall:
    config = IwarpConfig(stall_timeout_s=30)

    def test_an_fpdu_that_is_never_finished(self) -> None:
        peer = raw(self.config)
        peer.side.receive(0, 64, "r")
        octets = peer.frame(untagged(Opcode.SEND, 1, b"ABCDEFGH"))
        peer.send_octets(octets[:1])
        peer.advance(29)
        peer.send_octets(octets[1:20])
        peer.advance(0.99)
        assert peer.side.core.is_up
        peer.advance(0.01)
        assert end_of(peer.side).status is Status.IO_TIMEOUT
        assert peer.closed is Finish.RESET
        assert peer.side.finished()[1] == [("r", CANCELLED)]

    def test_each_fpdu_has_its_own_time(self) -> None:
        peer = raw(self.config)
        octets = b"".join(peer.frame(tagged(Opcode.WRITE, 1, 0)) for _ in range(4))
        for at in range(0, 80, 20):
            peer.send_octets(octets[at : at + 10])
            peer.advance(29)
            peer.send_octets(octets[at + 10 : at + 20])
            assert peer.side.core.next_timeout() is None
            peer.advance(29)
        assert peer.side.take_events() == []

    def test_the_next_fpdu_begins_in_the_same_chunk(self) -> None:
        peer = raw(self.config)
        octets = b"".join(peer.frame(tagged(Opcode.WRITE, 1, 0)) for _ in range(3))
        peer.send_octets(octets[:10])
        peer.advance(29)
        peer.send_octets(octets[10:30])
        peer.advance(29)
        assert peer.side.take_events() == []
        peer.send_octets(octets[30:])
        assert peer.side.core.next_timeout() is None

    def test_between_fpdus_there_is_no_limit(self) -> None:
        peer = raw(self.config)
        peer.side.receive(0, 64, "r")
        peer.send(untagged(Opcode.SEND, 1, b"head", last=False))
        assert peer.side.core.next_timeout() is None


class TestCompletionOfSends:
    """R-COMP-7, RFC 5041 5.4: complete when the transport has taken the last octet, not before."""

    @pytest.mark.parametrize("operation", ["send", "write"])
    def test_the_last_octet_decides(self, operation: str) -> None:
        peer = raw()
        side = peer.side
        if operation == "send":
            side.send(bytes(3000), "w")
        else:
            side.write(bytes(3000), 0x9000, 0x5501, "w")
        total = sum(map(len, side.core.data_to_send()))
        peer.pump(total - 1)
        assert side.finished()[0] == []
        peer.pump(1)
        assert side.finished()[0] == [("w", SUCCESS)]

    def test_octets_of_the_start_up_do_not_count(self) -> None:
        peer = RawPeer(Side("B", active=False))
        side = peer.side
        side.core.receive_data(memoryview(peer.frame(tagged(Opcode.WRITE, 1, 0))), peer.now)
        side.send(b"x", "s")
        peer.received.clear()
        peer.pump(27)
        assert side.finished()[0] == []
        peer.pump(1)
        assert side.finished()[0] == [("s", SUCCESS)]

    def test_the_reply_and_the_first_message_leave_together(self) -> None:
        """Revision 1: nothing has been taken when the first FPDU comes in."""
        side = Side("A", active=True, config=IwarpConfig(mpa_revision=1))
        pair = CorePair(side, Side("B", active=False, base=0x900000))
        pair.open()
        pair.accept()
        pair.complete()
        side.send(b"first", "s")
        pair.a_to_b.capacity = 27
        pair.b.receive(0, 8)
        pair.transmit(side)
        assert side.finished()[0] == []
        pair.drive()
        assert side.finished()[0] == [("s", SUCCESS)]


def test_established_tells_the_limits_of_both_directions() -> None:
    peer = RawPeer(Side("B", active=False, ird=3, ord_limit=5))
    peer.send(tagged(Opcode.WRITE, 1, 0))
    assert peer.side.take_events()[-1] == Established(3, 5)
