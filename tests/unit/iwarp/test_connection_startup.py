"""Start-up of two cores: both roles and revisions, indications, limits, refusals, early data, and every way to fail."""

import errno
import os
from collections.abc import Callable

import pytest

from softndk.config import IwarpConfig
from softndk.errors import Aborted, IoTimeout, NdkError, Refused
from softndk.iwarp.events import Established, Event, Finish, ReplyReceived, RequestReceived, StartupFailed
from softndk.iwarp.negotiation import Rtr
from softndk.iwarp.qp_state import State
from softndk.status import Status
from softndk.wire.mpa import Enhanced, FrameKind, StartupFrame
from softndk.wire.rdmap import Opcode
from tests.pair.core_pair import CorePair, Side, split
from tests.pair.raw_peer import RawPeer, tagged, untagged
from tests.vectors.fpdu_model import fpdu, stream

NOW = 1000.0


def two(
    *,
    config: IwarpConfig | None = None,
    passive_config: IwarpConfig | None = None,
    rtr: frozenset[Rtr] = frozenset({Rtr.WRITE, Rtr.READ}),
    a_limits: tuple[int, int] = (16, 16),
    b_limits: tuple[int, int] = (16, 16),
) -> CorePair:
    config = config or IwarpConfig()
    return CorePair(
        Side(
            "A", active=True, config=config, rtr_offer=rtr, private_data=b"hi", ird=a_limits[0], ord_limit=a_limits[1]
        ),
        Side("B", active=False, config=passive_config or config, ird=b_limits[0], ord_limit=b_limits[1], base=0x900000),
    )


def failure(events: list[Event]) -> NdkError:
    """The error of the only event, a failed start-up."""
    (event,) = events
    assert isinstance(event, StartupFailed)
    return event.error


def active(config: IwarpConfig | None = None, **options: int) -> Side:
    """An active side whose Request is out."""
    side = Side("A", active=True, config=config, ird=options.get("ird", 16), ord_limit=options.get("ord", 16))
    side.core.start_timer(NOW)
    side.core.connected(NOW, 1460)
    sent = b"".join(side.core.data_to_send(NOW))
    side.core.data_sent(len(sent), NOW)
    return side


def passive(config: IwarpConfig | None = None) -> Side:
    side = Side("B", active=False, config=config)
    side.core.connected(NOW, 1460)
    return side


def offered(config: IwarpConfig | None = None) -> Side:
    """A passive side whose program has to accept or reject."""
    side = passive(config)
    give(side, request())
    (event,) = side.take_events()
    assert isinstance(event, RequestReceived)
    return side


def answered(config: IwarpConfig | None = None) -> Side:
    """An active side whose program has to complete or reject."""
    side = active(config)
    give(side, reply())
    (event,) = side.take_events()
    assert isinstance(event, ReplyReceived)
    return side


def readying(config: IwarpConfig | None = None) -> Side:
    """A passive side that has accepted and waits for the ready-to-receive indication."""
    side = offered(config)
    side.bind_queues()
    side.core.accept(b"", 16, 16, NOW)
    taken(side)
    assert side.take_events() == []
    return side


def request(*, revision: int = 2, enhanced: Enhanced | None = None, private: bytes = b"") -> bytes:
    if revision == 2 and enhanced is None:
        enhanced = Enhanced(ird=16, ord=16, peer_to_peer=True, rtr_write=True)
    return StartupFrame(FrameKind.REQUEST, False, True, False, revision, enhanced, private).emit()


def reply(*, enhanced: Enhanced | None = None, reject: bool = False, private: bytes = b"", crc: bool = True) -> bytes:
    enhanced = enhanced or Enhanced(ird=16, ord=16, peer_to_peer=True, rtr_write=True)
    return StartupFrame(FrameKind.REPLY, False, crc, reject, 2, enhanced, private).emit()


def give(side: Side, octets: bytes) -> None:
    side.core.receive_data(memoryview(octets), NOW)


def taken(side: Side) -> bytes:
    """Everything the side has ready."""
    octets = b""
    while parts := side.core.data_to_send(NOW):
        octets += b"".join(parts)
        side.core.data_sent(sum(map(len, parts)), NOW)
    return octets


def reset(side: Side, number: int = errno.ECONNRESET) -> None:
    side.core.connection_lost(OSError(number, os.strerror(number)), NOW)


class TestBothRoles:
    def test_events_in_order(self) -> None:
        pair = two()
        pair.open()
        assert pair.a.take_events() == []
        assert pair.b.take_events() == [RequestReceived(b"hi", 16, 16)]
        assert pair.b.is_in(State.OFFERED)
        pair.accept(b"yo")
        assert pair.a.take_events() == [ReplyReceived(b"yo", 16, 16)]
        assert pair.b.take_events() == []
        assert pair.b.is_in(State.READYING)
        pair.complete()
        assert pair.a.take_events() == [Established(16, 16)]
        assert pair.b.take_events() == [Established(16, 16)]
        assert pair.a.is_in(State.RTS)
        assert pair.b.is_in(State.RTS)
        assert pair.a.core.is_up
        assert not pair.a.core.is_over

    @pytest.mark.parametrize("options", [{Rtr.WRITE, Rtr.READ}, {Rtr.WRITE}])
    def test_indication_write(self, options: set[Rtr]) -> None:
        pair = two(rtr=frozenset(options))
        pair.connect()
        assert pair.a_to_b.ulpdus() == [tagged(Opcode.WRITE, 1, 0)]
        assert pair.b_to_a.ulpdus() == []

    def test_indication_read(self) -> None:
        pair = two(rtr=frozenset({Rtr.READ}))
        pair.connect()
        (indication,) = pair.a_to_b.ulpdus()
        assert indication[:18] == untagged(Opcode.READ_REQUEST, 1)
        assert indication[30:34] == bytes(4)
        assert pair.b_to_a.ulpdus() == [tagged(Opcode.READ_RESPONSE, int.from_bytes(indication[18:22], "big"), 0)]
        assert pair.a.pair.reads_outstanding == 0
        pair.a.read([pair.a.sge(0, 8)], pair.b.base, pair.b.stag, "second")
        pair.drive()
        assert pair.a.finished()[0] == [("second", Status.SUCCESS)]

    def test_indication_read_with_no_room_for_reads_otherwise(self) -> None:
        pair = two(rtr=frozenset({Rtr.READ}), a_limits=(0, 0), b_limits=(0, 0))
        pair.connect()

    def test_without_indication_the_passive_side_waits_for_the_first_fpdu(self) -> None:
        pair = two(rtr=frozenset())
        pair.open()
        pair.accept()
        assert pair.b.take_events()[-1] == Established(16, 16)
        pair.complete()
        pair.a.receive(0, 64, "r")
        pair.b.send(b"too early", "s")
        pair.drive()
        assert pair.b_to_a.ulpdus() == []
        pair.a.write(b"x", pair.b.base, pair.b.stag)
        pair.drive()
        assert pair.b.finished()[0] == [("s", Status.SUCCESS)]
        assert pair.a.finished()[1] == [("r", Status.SUCCESS)]

    def test_local_requests_need_no_first_fpdu(self) -> None:
        pair = two(rtr=frozenset())
        pair.open()
        pair.accept()
        done: list[str] = []
        pair.b.local(lambda: done.append("ran"), "bind")
        pair.drive()
        assert done == ["ran"]
        assert pair.b.finished()[0] == [("bind", Status.SUCCESS)]

    @pytest.mark.parametrize("peer_to_peer", [True, False])
    def test_revision_1(self, peer_to_peer: bool) -> None:
        config = IwarpConfig(mpa_revision=1, peer_to_peer=peer_to_peer)
        pair = two(config=config, a_limits=(3, 5), b_limits=(7, 2))
        pair.open()
        assert pair.b.take_events() == [RequestReceived(b"hi", 7, 2)]
        pair.accept(b"yo")
        pair.complete()
        assert pair.a.take_events() == [ReplyReceived(b"yo", 3, 5), Established(3, 5)]
        assert pair.b.take_events() == [Established(7, 2)]
        assert pair.a_to_b.ulpdus() == []

    @pytest.mark.rules("R-LIM-1")
    def test_effective_read_limits(self) -> None:
        """R-LIM-1, -2, -5, -6."""
        pair = two(a_limits=(4, 9), b_limits=(5, 2))
        pair.open()
        assert pair.b.take_events() == [RequestReceived(b"hi", 5, 2)]
        pair.accept()
        pair.complete()
        assert pair.a.take_events() == [ReplyReceived(b"", 2, 5), Established(2, 5)]
        assert pair.b.take_events() == [Established(5, 2)]
        assert (pair.a.pair.outbound_read_limit, pair.b.pair.outbound_read_limit) == (5, 2)

    def test_a_peer_that_does_not_negotiate_limits(self) -> None:
        """0x3fff: this side keeps its own values (RFC 6581 9)."""
        side = passive()
        give(side, request(enhanced=Enhanced(ird=0x3FFF, ord=0x3FFF)))
        assert side.take_events() == [RequestReceived(b"", 16, 16)]
        side.bind_queues()
        side.core.accept(b"", 16, 16, NOW)
        assert side.take_events() == [Established(16, 16)]

    def test_an_end_that_asked_for_no_negotiation_keeps_its_own_limits(self) -> None:
        side = Side("A", active=True, ird=0x3FFF, ord_limit=0x3FFF)
        side.core.connected(NOW, 1460)
        give(side, reply(enhanced=Enhanced(ird=0x3FFF, ord=0x3FFF, peer_to_peer=True, rtr_write=True)))
        assert side.take_events() == [ReplyReceived(b"", 0x3FFF, 0x3FFF)]

    @pytest.mark.parametrize("markers", [(True, False), (False, True), (True, True)])
    def test_markers(self, markers: tuple[bool, bool]) -> None:
        pair = two(config=IwarpConfig(markers=markers[0]), passive_config=IwarpConfig(markers=markers[1]))
        pair.connect()
        pair.a.memory[:5000] = os.urandom(5000)
        pair.a.write([pair.a.sge(0, 5000)], pair.b.base, pair.b.stag)
        pair.a.read([pair.a.sge(10_000, 5000)], pair.b.base, pair.b.stag, "read")
        pair.drive()
        assert pair.a.finished()[0] == [(None, Status.SUCCESS), ("read", Status.SUCCESS)]
        assert pair.b.memory[:5000] == pair.a.memory[:5000] == pair.a.memory[10_000:15_000]
        assert len(pair.a_to_b.ulpdus(markers=markers[1])) > 4
        assert len(pair.b_to_a.ulpdus(markers=markers[0])) >= 4

    @pytest.mark.parametrize("crc", [(True, False), (False, True), (False, False)])
    def test_crc_is_off_only_when_both_say_so(self, crc: tuple[bool, bool]) -> None:
        pair = two(config=IwarpConfig(crc=crc[0]), passive_config=IwarpConfig(crc=crc[1]))
        pair.connect()
        indication = bytes(pair.a_to_b.carried[-20:])
        assert indication == fpdu(tagged(Opcode.WRITE, 1, 0), position=0, crc=any(crc), markers=False)

    @pytest.mark.parametrize(("mss", "size"), [(1460, 1436), (1448, 1424), (100, 110)])
    def test_segments_fit_the_tcp_segment(self, mss: int, size: int) -> None:
        pair = two()
        pair.mss = mss
        pair.connect()
        pair.b.receive(0, 10_000)
        pair.a.send(bytes(10_000))
        pair.drive()
        sends = pair.a_to_b.ulpdus()[1:]
        assert {len(ulpdu) - 18 for ulpdu in sends[:-1]} == {size}

    def test_max_fpdu_overrides_the_segment_size(self) -> None:
        pair = two(config=IwarpConfig(max_fpdu=64768))
        pair.connect()
        pair.b.receive(0, 60_000)
        pair.a.send(bytes(60_000))
        pair.drive()
        assert len(pair.a_to_b.ulpdus()) == 2

    def test_traffic_is_counted(self) -> None:
        pair = two()
        pair.connect()
        pair.b.receive(0, 10)
        pair.a.send(b"0123456789")
        pair.drive()
        assert pair.a.core.traffic == (0, 2, len(pair.b_to_a.carried), len(pair.a_to_b.carried))
        assert pair.b.core.traffic == (2, 0, len(pair.a_to_b.carried), len(pair.b_to_a.carried))
        assert Side("A", active=True).core.traffic == (0, 0, 0, 0)


class TestRefusals:
    @pytest.mark.rules("R-REJECT-1")
    def test_the_passive_side_rejects(self) -> None:
        """R-REJECT-1."""
        pair = two()
        pair.open()
        pair.b.take_events()
        pair.b.core.reject(b"no, because", pair.now)
        pair.drive()
        error = failure(pair.a.take_events())
        assert isinstance(error, Refused)
        assert error.private_data == b"no, because"
        assert pair.b.take_events() == []
        assert pair.a.closed
        assert pair.b.closed
        assert not pair.b_to_a.reset
        assert pair.a.core.is_over
        assert pair.b.core.is_over

    def test_the_read_limits_of_a_rejection_are_told(self) -> None:
        """RFC 6581 9: the responder may reject for want of reads, and says so in its Reply."""
        side = active()
        give(side, reply(enhanced=Enhanced(ird=3, ord=77, peer_to_peer=True, rtr_write=True), reject=True))
        text = str(failure(side.take_events()))
        assert "inbound 3" in text
        assert "outbound 77" in text

    def test_a_rejecting_side_reads_until_the_peer_has_closed(self) -> None:
        side = offered()
        side.core.reject(b"", NOW)
        assert side.core.finish() is Finish.KEEP
        taken(side)
        assert side.core.finish() is Finish.SHUTDOWN
        assert side.core.wants_read()
        give(side, b"what ever")
        side.core.receive_eof(NOW)
        assert side.core.finish() is Finish.CLOSE

    @pytest.mark.rules("R-REJECT-2", "R-IW-4")
    def test_the_active_side_rejects_after_the_reply(self) -> None:
        """R-REJECT-2, R-IW-4."""
        pair = two()
        pair.open()
        pair.accept(b"yo")
        pair.a.take_events()
        pair.b.take_events()
        pair.a.core.reject(b"", pair.now)
        pair.drive()
        error = failure(pair.b.take_events())
        assert error.status is Status.CONNECTION_REFUSED
        assert pair.a.take_events() == []
        assert pair.a_to_b.ulpdus() == []

    @pytest.mark.rules("A-27")
    def test_receives_outlive_a_start_up_that_failed(self) -> None:
        """A-27."""
        side = readying()
        side.receive(0, 64, "r")
        side.core.receive_eof(NOW)
        assert failure(side.take_events()).status is Status.CONNECTION_REFUSED
        assert side.finished() == ([], [])
        assert len(side.pair.receives) == 1


class TestEarlyData:
    def early(self, count: int) -> bytes:
        frames = stream(
            [untagged(Opcode.SEND, msn, b"%04d" % msn) for msn in range(1, count + 1)], crc=True, markers=False
        )
        return frames

    def test_fpdus_behind_the_reply_wait_for_the_program(self) -> None:
        side = active()
        side.receive(0, 64, "r1")
        side.receive(64, 64, "r2")
        give(side, reply() + self.early(1))
        assert isinstance(side.take_events()[0], ReplyReceived)
        give(side, self.early(2)[len(self.early(1)) :])
        assert side.finished() == ([], [])
        side.core.complete(NOW)
        assert side.take_events() == [Established(16, 16)]
        assert side.finished()[1] == [("r1", Status.SUCCESS), ("r2", Status.SUCCESS)]
        assert side.memory[:4] == b"0001"

    def test_only_so_much_is_kept(self) -> None:
        side = answered()
        octets = self.early(6000)
        given = 0
        while side.core.wants_read():
            give(side, octets[given : given + 4096])
            given += 4096
        assert 64 * 1024 <= given <= 256 * 1024
        side.core.complete(NOW)
        assert side.core.wants_read()

    def test_a_fault_among_them_ends_the_connection_when_it_is_completed(self) -> None:
        side = answered()
        give(side, self.early(1))
        side.core.complete(NOW)
        established, aborted = side.take_events()
        assert isinstance(established, Established)
        assert not isinstance(aborted, Established)
        indication, terminate = split(taken(side), crc=True, markers=False)
        assert indication == tagged(Opcode.WRITE, 1, 0)
        assert terminate[18:20] == bytes.fromhex("1202")

    def test_data_behind_the_request_is_a_violation(self) -> None:
        side = passive()
        give(side, request() + b"\0")
        assert isinstance(failure(side.take_events()), Aborted)
        assert side.core.finish() is Finish.CLOSE
        assert taken(side) == b""

    def test_data_after_the_request_and_before_the_answer_is_a_violation(self) -> None:
        side = offered()
        give(side, b"\0")
        assert isinstance(failure(side.take_events()), Aborted)


class TestMalformed:
    """Row 4, and the rest of what start-up can find."""

    @pytest.mark.parametrize(
        "octets",
        [
            b"GET / HTTP/1.1\r\nHost: x\r\n\r\n",
            reply(),
            request()[:17] + b"\x03" + request()[18:],
            request()[:17] + b"\x00" + request()[18:],
            request()[:18] + b"\x02\x01" + request()[20:],
            request()[:18] + b"\x00\x03" + request()[20:],
        ],
        ids=["http", "reply", "revision 3", "revision 0", "too much private data", "S without its four octets"],
    )
    def test_request(self, octets: bytes) -> None:
        side = passive()
        give(side, octets)
        error = failure(side.take_events())
        assert error.status is Status.CONNECTION_ABORTED
        assert taken(side) == b""
        assert side.core.finish() is Finish.CLOSE
        assert side.is_in(State.ERROR)
        assert side.core.next_timeout() is None

    @pytest.mark.parametrize(
        "octets",
        [
            b"HTTP/1.1 400 Bad Request\r\n\r\n",
            request(),
            StartupFrame(FrameKind.REPLY, False, True, False, 2, None, b"").emit(),
            reply()[:17] + b"\x03" + reply()[18:],
        ],
        ids=["http", "request", "not enhanced", "revision 3"],
    )
    def test_reply(self, octets: bytes) -> None:
        side = active()
        give(side, octets)
        assert failure(side.take_events()).status is Status.CONNECTION_ABORTED
        assert taken(side) == b""
        assert side.core.finish() is Finish.CLOSE

    @pytest.mark.parametrize(
        ("enhanced", "code"),
        [
            (Enhanced(ird=16, ord=17, peer_to_peer=True, rtr_write=True), "2006"),
            (Enhanced(ird=16, ord=16, peer_to_peer=True, rtr_send=True), "2007"),
        ],
        ids=["insufficient IRD", "no matching indication"],
    )
    def test_row_43_a_terminate_ends_the_start_up(self, enhanced: Enhanced, code: str) -> None:
        side = active()
        give(side, reply(enhanced=enhanced))
        error = failure(side.take_events())
        assert error.provider_error_code == 0x20000 | int(code, 16)
        fault = error.fault
        assert fault is not None
        assert (fault.layer << 12 | fault.etype << 8 | fault.code, fault.received) == (int(code, 16), False)
        assert fault.rule.startswith("RFC 6581")
        assert fault.rule in str(error)
        body = bytes.fromhex(f"4147 00000000 00000002 00000001 00000000 {code} 0000")
        assert taken(side) == fpdu(body, position=0, crc=True, markers=False)
        assert side.core.finish() is Finish.SHUTDOWN
        side.core.receive_eof(NOW)
        assert side.core.finish() is Finish.CLOSE

    @pytest.mark.parametrize("code", ["2005", "2006", "2007"])
    def test_row_43_the_accept_fails(self, code: str) -> None:
        """A Terminate is no ready-to-receive indication."""
        side = readying()
        body = untagged(Opcode.TERMINATE, 1, bytes.fromhex(code + "0000"))
        give(side, fpdu(body, position=0, crc=True, markers=False))
        error = failure(side.take_events())
        assert error.status is Status.CONNECTION_ABORTED
        assert error.provider_error_code == 0x10000 | int(code, 16)
        assert taken(side) == b""
        assert side.core.finish() is Finish.SHUTDOWN

    def test_a_terminate_behind_the_indication_comes_after_the_accept(self) -> None:
        side = readying()
        frames = [tagged(Opcode.WRITE, 1, 0), untagged(Opcode.TERMINATE, 1, bytes(4))]
        give(side, stream(frames, crc=True, markers=False))
        established, aborted = side.take_events()
        assert isinstance(established, Established)
        assert not isinstance(aborted, (Established, StartupFailed))

    def test_a_damaged_first_fpdu_fails_the_accept(self) -> None:
        side = readying()
        octets = bytearray(fpdu(tagged(Opcode.WRITE, 1, 0), position=0, crc=True, markers=False))
        octets[-1] ^= 1
        give(side, bytes(octets))
        assert failure(side.take_events()).status is Status.CONNECTION_ABORTED

    def test_any_first_fpdu_is_the_indication(self) -> None:
        side = readying()
        side.receive(0, 64, "r")
        give(side, fpdu(untagged(Opcode.SEND, 1, b"hello"), position=0, crc=True, markers=False))
        assert side.take_events() == [Established(16, 16)]
        assert side.finished()[1] == [("r", Status.SUCCESS)]

    def test_a_first_message_that_is_held_back_is_the_indication(self) -> None:
        side = readying(IwarpConfig(receive_wait_s=5))
        give(side, fpdu(untagged(Opcode.SEND, 1, b"hello"), position=0, crc=True, markers=False))
        assert side.take_events() == [Established(16, 16)]
        assert side.core.holding_back
        side.send(b"this side may send now", "s")
        taken(side)
        assert side.finished()[0] == [("s", Status.SUCCESS)]


class TestEnds:
    """The peer's FIN, the loss of TCP and a close by this side in every state of the start-up."""

    def test_fin_instead_of_a_reply(self) -> None:
        side = active()
        side.core.receive_eof(NOW)
        assert failure(side.take_events()).status is Status.CONNECTION_REFUSED
        assert side.core.finish() is Finish.CLOSE

    def test_fin_inside_the_reply(self) -> None:
        side = active()
        give(side, reply()[:21])
        side.core.receive_eof(NOW)
        assert failure(side.take_events()).status is Status.CONNECTION_REFUSED

    @pytest.mark.parametrize("octets", [b"", request()[:19], request()[:-1]])
    def test_fin_instead_of_a_request(self, octets: bytes) -> None:
        side = passive()
        give(side, octets)
        side.core.receive_eof(NOW)
        assert failure(side.take_events()).status is Status.CONNECTION_ABORTED
        assert side.core.finish() is Finish.CLOSE

    @pytest.mark.rules("A-26")
    def test_fin_before_the_accept(self) -> None:
        """A-26."""
        side = offered()
        side.core.receive_eof(NOW)
        assert failure(side.take_events()).status is Status.CONNECTION_ABORTED

    def test_fin_before_complete_connect(self) -> None:
        side = answered()
        side.core.receive_eof(NOW)
        assert failure(side.take_events()).status is Status.CONNECTION_ABORTED
        assert side.is_in(State.ERROR)

    def test_fin_instead_of_the_indication(self) -> None:
        side = readying()
        side.core.receive_eof(NOW)
        assert failure(side.take_events()).status is Status.CONNECTION_REFUSED

    @pytest.mark.parametrize(
        ("number", "status"),
        [
            (errno.ECONNREFUSED, Status.CONNECTION_REFUSED),
            (errno.ENETUNREACH, Status.NETWORK_UNREACHABLE),
            (errno.EHOSTUNREACH, Status.HOST_UNREACHABLE),
            (errno.ETIMEDOUT, Status.IO_TIMEOUT),
            (errno.EADDRINUSE, Status.SHARING_VIOLATION),
            (errno.EADDRNOTAVAIL, Status.INVALID_ADDRESS),
            (errno.EIO, Status.CONNECTION_ABORTED),
        ],
    )
    def test_tcp_does_not_come_up(self, number: int, status: Status) -> None:
        side = Side("A", active=True)
        side.core.start_timer(NOW)
        reset(side, number)
        error = failure(side.take_events())
        assert error.status is status
        assert error.provider_error_code == 0x30000 | number
        assert side.is_in(State.ERROR)
        assert side.core.next_timeout() is None

    @pytest.mark.rules("R-PORT-1")
    @pytest.mark.parametrize("number", [errno.EADDRINUSE, errno.EADDRNOTAVAIL])
    def test_no_port_is_left(self, number: int) -> None:
        """R-PORT-1: the port was to be chosen here."""
        side = Side("A", active=True)
        side.core.picks_port = True
        reset(side, number)
        error = failure(side.take_events())
        assert error.status is Status.TOO_MANY_ADDRESSES
        assert error.provider_error_code == 0x30000 | number

    @pytest.mark.rules("R-PAUSE-1")
    def test_a_reset_instead_of_a_reply_means_that_nobody_listens(self) -> None:
        """R-PAUSE-1."""
        side = active()
        reset(side)
        assert failure(side.take_events()).status is Status.CONNECTION_REFUSED

    @pytest.mark.rules("A-26")
    @pytest.mark.parametrize("make", [passive, offered, answered, readying])
    def test_a_reset(self, make: Callable[[], Side]) -> None:
        """The peer has given up (A-26): accept and complete_connect know no other word for it."""
        side = make()
        reset(side)
        assert failure(side.take_events()).status is Status.CONNECTION_ABORTED
        assert side.core.finish() is Finish.RESET
        reset(side)
        assert side.take_events() == []

    def test_a_start_that_cannot_begin(self) -> None:
        side = Side("A", active=True)
        side.core.refuse_start(IoTimeout("no"))
        assert isinstance(failure(side.take_events()), IoTimeout)

    @pytest.mark.parametrize(
        ("make", "finish"),
        [
            (passive, Finish.CLOSE),
            (active, Finish.CLOSE),
            (offered, Finish.SHUTDOWN),
            (answered, Finish.SHUTDOWN),
            (readying, Finish.SHUTDOWN),
        ],
    )
    def test_close(self, make: Callable[[], Side], finish: Finish) -> None:
        side = make()
        side.receive(0, 64, "r")
        side.core.close(NOW)
        octets = taken(side)
        assert side.core.finish() is finish
        assert side.take_events() == []
        if make is offered:
            assert StartupFrame.parse(octets).reject
        else:
            assert octets == b""
        side.core.close(NOW)
        assert side.take_events() == []

    def test_close_of_a_connect_that_has_not_begun(self) -> None:
        side = Side("A", active=True)
        side.core.close(NOW)
        assert side.is_in(State.ERROR)

    def test_close_while_accepting_flushes_the_receives(self) -> None:
        side = readying()
        side.receive(0, 64, "r")
        side.core.close(NOW)
        assert side.finished()[1] == [("r", Status.CANCELLED)]

    @pytest.mark.rules("R-FLUSH-1")
    def test_abort_while_accepting_sends_nothing_before_the_first_fpdu(self) -> None:
        """MPA fencing holds for a Terminate as well; NdkFlush cancels what is pending (R-FLUSH-1)."""
        side = readying()
        side.receive(0, 64, "r")
        side.core.abort("flushed by this side", NOW)
        assert taken(side) == b""
        assert side.core.finish() is Finish.RESET
        assert failure(side.take_events()).status is Status.CONNECTION_ABORTED
        assert side.finished()[1] == [("r", Status.CANCELLED)]

    def test_abort_of_what_is_not_up_does_nothing(self) -> None:
        side = offered()
        side.core.abort("flushed", NOW)
        assert side.is_in(State.OFFERED)


class TestTimeLimits:
    config = IwarpConfig(connect_timeout_s=7, accept_timeout_s=3, ready_timeout_s=11, stall_timeout_s=11)

    def expire(self, side: Side, after: float) -> NdkError:
        """Nothing happens just before the limit; at the limit the start-up fails."""
        assert side.core.next_timeout() == NOW + after
        side.core.handle_timeout(NOW + after - 0.001)
        assert side.take_events() == []
        side.core.handle_timeout(NOW + after)
        error = failure(side.take_events())
        assert side.core.next_timeout() is None
        assert side.core.finish() is Finish.RESET
        return error

    def test_no_reply(self) -> None:
        assert isinstance(self.expire(active(self.config), 7), IoTimeout)

    def test_no_tcp_connection(self) -> None:
        side = Side("A", active=True, config=self.config)
        side.core.start_timer(NOW)
        assert isinstance(self.expire(side, 7), IoTimeout)

    def test_no_request(self) -> None:
        side = passive(self.config)
        give(side, request()[:19])
        assert isinstance(self.expire(side, 3), IoTimeout)

    @pytest.mark.rules("R-IW-4")
    def test_no_indication(self) -> None:
        """R-IW-4."""
        assert self.expire(readying(self.config), 11).status is Status.IO_TIMEOUT

    def test_two_limits_at_the_same_moment(self) -> None:
        """A clock that jumps, a machine that slept: the start-up fails once."""
        side = readying(self.config)
        give(side, b"\0\x20")  # an FPDU begins: it has the same limit of 11 seconds
        assert side.core.next_timeout() == NOW + 11
        side.core.handle_timeout(NOW + 100)
        assert failure(side.take_events()).status is Status.IO_TIMEOUT

    @pytest.mark.rules("R-TIME-2")
    @pytest.mark.parametrize("make", [offered, answered])
    def test_slow_programs_are_not_punished(self, make: Callable[[], Side]) -> None:
        """R-TIME-2."""
        assert make().core.next_timeout() is None


def test_a_reply_after_the_end_changes_nothing() -> None:
    side = active()
    side.core.close(NOW)
    give(side, reply())
    assert side.take_events() == []
    assert side.is_in(State.ERROR)


def test_the_reply_chooses_the_indication_for_a_raw_initiator() -> None:
    peer = RawPeer(Side("B", active=False), enhanced=Enhanced(ird=1, ord=1, peer_to_peer=True, rtr_read=True))
    assert peer.reply.enhanced == Enhanced(ird=1, ord=1, peer_to_peer=True, rtr_read=True)
