"""How an established connection ends: FIN, reset, abort, close, Terminates of both sides; when a send is complete."""

import errno

import pytest

from softndk.config import IwarpConfig
from softndk.flags import OpFlag
from softndk.iwarp.events import Established, Finish, PeerDisconnected, StartupFailed
from softndk.iwarp.qp_state import State
from softndk.status import Status
from softndk.wire.rdmap import Opcode
from tests.pair.core_pair import CorePair, Side
from tests.pair.established import connected, end_of, raw
from tests.pair.raw_peer import RawPeer, read_request, tagged, untagged

CANCELLED = Status.CANCELLED
SUCCESS = Status.SUCCESS
FENCED = OpFlag.READ_FENCE


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

    @pytest.mark.rules("R-FLUSH-1", "A-3")
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

    @pytest.mark.rules("R-CLOSE-3")
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
        """The fault is met while octets are made, and that call is the first to be told the time."""
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
        peer.now += 500
        side.send([side.sge(1 << 20, 1)], "s")
        ready = b"".join(side.core.data_to_send(peer.now))
        side.core.handle_timeout(peer.now + 1)
        assert b"".join(side.core.data_to_send(peer.now + 1)) == ready != b""
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
        assert side.core.data_to_send(peer.now) == []
        assert side.core.next_timeout() is None


class TestTerminateReceived:
    """A-4: which request shows it, with which status and which code."""

    @pytest.mark.parametrize("octets", ["20060000", "02060000"])
    def test_one_in_the_start_up_is_about_the_start_up(self, octets: str) -> None:
        """RFC 6581 9: insufficient IRD, also from a peer that exchanges layer and type: nothing else can be meant yet."""
        peer = RawPeer(Side("B", active=False))
        peer.side.take_events()
        peer.send(untagged(Opcode.TERMINATE, 1, bytes.fromhex(octets)))
        (event,) = peer.side.take_events()
        assert isinstance(event, StartupFailed)
        assert event.error.fault is not None
        assert (event.error.fault.layer, event.error.fault.etype, event.error.fault.code) == (2, 0, 6)

    @pytest.mark.parametrize("octets", ["20060000", "02060000"])
    def test_one_behind_the_start_up_is_not(self, octets: str) -> None:
        peer = raw()
        peer.side.send(b"x")
        peer.pump()
        peer.send(untagged(Opcode.TERMINATE, 1, bytes.fromhex(octets)))
        error = end_of(peer.side)
        assert error.provider_error_code == 0x10206
        assert "unexpected opcode" in str(error)

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

    @pytest.mark.parametrize(
        ("body", "code"),
        [
            ("1100c000", 0x11100),  # both lengths announced, nothing there
            ("1103c0000016c140", 0x11103),  # cut off in the DDP header
            ("0101e000002e" + "41" * 18 + "00" * 27, 0x10101),  # cut off in the Read Request header
            ("11022000", 0x11102),  # a Read Request header without a DDP header
            ("11000600", 0x11100),  # the Linux driver's bit order, cut off
        ],
    )
    def test_of_a_terminate_that_is_cut_off_the_codes_are_kept(self, body: str, code: int) -> None:
        peer = raw()
        peer.send(untagged(Opcode.TERMINATE, 1, bytes.fromhex(body)))
        assert end_of(peer.side).provider_error_code == code

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
        total = sum(map(len, side.core.data_to_send(peer.now)))
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
