"""Every way in which a peer can break the rules, and the exact octets with which the stream ends.

A raw peer breaks one rule; compared are the whole Terminate FPDU, all completions of both queues, the memory, and the
end of the stream. The expected octets are put together here from the table's numbers, not by the code under test.
"""

import pytest

from softndk.config import IwarpConfig
from softndk.flags import LocalToken, OperationType
from softndk.iwarp.events import Aborted, Finish
from softndk.iwarp.qp_state import State
from softndk.memory.sge import Sge
from softndk.memory.tokens import Right
from softndk.status import Status
from softndk.wire.rdmap import Opcode
from tests.conformance.error_cases import CASES, Case, of_row
from tests.conformance.error_rows import CANCELLED, FILL, ROWS, TOP, Lab, Row, invalidating, send, write
from tests.conformance.rfc7306_rows import RFC7306_ROWS
from tests.pair.core_pair import Side
from tests.pair.raw_peer import RawPeer, atomic_request, read_request, tagged, untagged
from tests.vectors.fpdu_model import crc32c_bitwise, fpdu
from tests.vectors.iwarp_vectors import named

DENIED = {(0, 1, 0), (0, 1, 2), (0, 1, 3), (1, 1, 0), (1, 1, 2)}
"""A token that is not valid, not for this stream, or without the right (A-4)."""
ALL_ROWS = [*ROWS, *RFC7306_ROWS]


def terminate_octets(code: tuple[int, int, int], offender: bytes, echo: str) -> bytes:
    """The Terminate FPDU: QN 2, MSN 1, MO 0, last; then the body with the headers that `echo` asks for."""
    layer, etype, number = code
    body = bytes([layer << 4 | etype, number])
    if echo == "none":
        body += bytes([0x00, 0])
    else:
        header = 14 if offender[0] & 0x80 else 18
        body += bytes([0xE0 if echo == "read" else 0xC0, 0]) + len(offender).to_bytes(2, "big") + offender[:header]
        if echo == "read":
            body += offender[header : header + 28]
    ulpdu = bytes.fromhex("4147 00000000 00000002 00000001 00000000") + body
    return fpdu(ulpdu, position=0, crc=True, markers=False)


def check_flushed(lab: Lab, *, receive: Status = CANCELLED, read: Status = CANCELLED, taken: int = 0) -> None:
    """Everything posted has come back once, in order; whatever is posted now is cancelled at once (R-FLUSH, A-3)."""
    initiator, receives = lab.side.finished()
    statuses = [*[Status.SUCCESS] * taken, receive, *[CANCELLED] * 2]
    assert receives == list(zip(lab.receives, statuses, strict=False))
    assert initiator == list(zip(lab.requests, [read, CANCELLED], strict=False))
    lab.side.send(b"later", "later")
    lab.side.receive(0, 64, "later")
    assert lab.side.finished() == ([("later", CANCELLED)], [("later", CANCELLED)])


def check_ended(lab: Lab, code: tuple[int, int, int]) -> None:
    """FIN behind the Terminate, input is thrown away until the peer's FIN, one event, then all is over (4.8)."""
    layer, etype, number = code
    side, peer = lab.side, lab.peer
    assert peer.closed is Finish.SHUTDOWN
    assert side.is_in(State.TERMINATE)
    (event,) = side.take_events()
    assert isinstance(event, Aborted)
    fault = event.error.fault
    assert fault is not None
    assert (fault.layer, fault.etype, fault.code, fault.received) == (layer, etype, number, False)
    assert event.error.provider_error_code == 0x20000 | layer << 12 | etype << 8 | number
    assert side.core.wants_read()
    before = bytes(side.memory)
    peer.closed = Finish.KEEP
    peer.send(write(side.stag, side.base, b"late"), send(b"late"))
    assert bytes(side.memory) == before
    peer.send_fin()
    assert side.core.finish() is Finish.CLOSE
    assert side.is_in(State.ERROR)
    assert side.take_events() == []


@pytest.mark.parametrize("row", ALL_ROWS, ids=str)
def test_peer_breaks_a_rule(row: Row) -> None:
    lab = row.lab()
    sent = row.sent(lab)
    lab.peer.received.clear()
    lab.peer.send(*sent)
    expected = bytearray([FILL]) * 4096
    for offset, octets in row.placed:
        expected[offset : offset + len(octets)] = octets
    assert lab.side.memory == expected
    assert lab.spare_memory == bytes(256)
    assert bytes(lab.peer.received).hex(" ") == terminate_octets(row.code, sent[-1], row.echo).hex(" ")
    check_flushed(lab, receive=row.receive, read=row.read, taken=row.taken)
    check_ended(lab, row.code)


@pytest.mark.parametrize("row", ALL_ROWS, ids=str)
def test_a_fault_is_told_in_words(row: Row) -> None:
    lab = row.lab()
    lab.peer.send(*row.sent(lab))
    (event,) = lab.side.take_events()
    assert isinstance(event, Aborted)
    assert event.error.fault is not None
    assert event.error.fault.rule
    assert event.error.fault.text in str(event.error)
    assert f"{row.code[0]:x}/{row.code[1]:x}/{row.code[2]:x}" in event.error.explain()
    for result in lab.side.receive_results():
        error = result.error
        assert error is not None or result.status is Status.SUCCESS
        if error is not None and result.status is CANCELLED:
            assert error.__cause__ is event.error


class TestFraming:
    """Rows 1 to 3: found before any header is looked at."""

    @pytest.mark.parametrize("at", [0, 1, 2, 9, 20, 27, 28, 31])
    def test_row_1_bad_crc(self, at: int) -> None:
        lab = Lab()
        octets = bytearray(lab.peer.frame(send(b"ABCDEFGH")))
        assert len(octets) == 32
        octets[at] ^= 0x01
        octets += bytes(300)  # the length field may say up to 282 now
        lab.peer.received.clear()
        lab.peer.send_octets(bytes(octets))
        assert lab.side.memory == bytes([FILL]) * 4096
        assert bytes(lab.peer.received) == terminate_octets((2, 0, 2), b"", "none")
        check_flushed(lab)
        check_ended(lab, (2, 0, 2))

    def test_row_1_what_came_before_is_used(self) -> None:
        lab = Lab()
        good = lab.peer.frame(send(b"good"))
        bad = bytearray(lab.peer.frame(send(b"bad!", msn=2)))
        bad[-1] ^= 0x80
        lab.peer.send_octets(good + bytes(bad))
        assert lab.side.memory[:4] == b"good"
        check_flushed(lab, taken=1)
        check_ended(lab, (2, 0, 2))

    def test_row_2_marker_and_length_disagree(self) -> None:
        lab = Lab(markers=True)
        octets = bytearray(lab.peer.frame(write(lab.side.stag, lab.side.base, b"m" * 600)))
        at = 512 - 24  # the ready-to-receive indication had 20 octets and marker 0
        assert int.from_bytes(octets[at : at + 4], "big") == at
        octets[at + 3] ^= 0x04
        octets[-4:] = crc32c_bitwise(octets[:-4]).to_bytes(4, "little")
        lab.peer.received.clear()
        lab.peer.send_octets(bytes(octets))
        assert lab.side.memory == bytes([FILL]) * 4096
        assert bytes(lab.peer.received) == terminate_octets((2, 0, 3), b"", "none")
        check_flushed(lab)
        check_ended(lab, (2, 0, 3))

    @pytest.mark.parametrize("cut", [1, 2, 3, 20, 31])
    def test_row_3_fin_inside_an_fpdu(self, cut: int) -> None:
        lab = Lab()
        lab.peer.received.clear()
        lab.peer.send_octets(lab.peer.frame(send(b"ABCDEFGH"))[:cut])
        lab.peer.send_fin()
        assert lab.peer.received == b""
        assert lab.peer.closed is Finish.RESET
        assert lab.side.is_in(State.ERROR)
        (event,) = lab.side.take_events()
        assert isinstance(event, Aborted)
        assert event.error.status is Status.CONNECTION_ABORTED
        check_flushed(lab)


class TestNoError:
    """Row 23 and its twin: what looks wrong and is not."""

    @pytest.mark.parametrize("stag", [0, 1, 0xFFFFFFFF])
    @pytest.mark.parametrize("to", [0, TOP - 1])
    def test_row_23_zero_length_write_is_not_checked(self, stag: int, to: int) -> None:
        lab = Lab()
        lab.peer.received.clear()
        lab.peer.send(tagged(Opcode.WRITE, stag, to))
        assert lab.side.is_in(State.RTS)
        assert lab.peer.received == b""

    def test_zero_length_read_is_not_checked_and_is_answered(self) -> None:
        lab = Lab()
        lab.peer.received.clear()
        lab.peer.send(read_request(1, 0, 0, TOP - 1))
        assert lab.peer.take() == [tagged(Opcode.READ_RESPONSE, 0x112201, 0x2000)]
        assert lab.side.is_in(State.RTS)

    def test_reserved_bits_are_ignored(self) -> None:
        lab = Lab()
        octets = bytearray(send(b"ok"))
        octets[0] |= 0x3C
        octets[1] |= 0x30
        octets[2:6] = b"\xff" * 4
        lab.peer.send(bytes(octets))
        assert lab.side.finished()[1] == [("R1", Status.SUCCESS)]


class TestOwnSide:
    """Rows 29, 40, 41, 42: the fault lies on this side."""

    def test_row_29_source_dies_while_the_response_is_under_way(self) -> None:
        side = Side("lab", active=False, config=IwarpConfig(send_buffer=65600, max_fpdu=1014), size=1 << 18)
        peer = RawPeer(side)
        peer.establish()
        request = read_request(1, 200_000, side.stag, side.base + 7)
        side.core.receive_data(memoryview(peer.frame(request)), peer.now)
        peer.pump(40_000)
        side.region.deregister()
        peer.pump()
        *responses, terminate = peer.take()
        got = sum(len(segment) - 14 for segment in responses)
        assert 40_000 <= got < 200_000
        assert got % 1000 == 0
        assert all(segment[0] == 0x81 for segment in responses)
        assert [int.from_bytes(segment[6:14], "big") for segment in responses] == [
            0x2000 + at for at in range(0, got, 1000)
        ]
        updated = (
            request[18:22]
            + (0x2000 + got).to_bytes(8, "big")
            + (200_000 - got).to_bytes(4, "big")
            + request[34:38]
            + (side.base + 7 + got).to_bytes(8, "big")
        )
        assert terminate[18:] == bytes.fromhex("0100e000002e") + request[:18] + updated

    def test_row_29_nothing_of_the_response_sent(self) -> None:
        side = Side("lab", active=False)
        peer = RawPeer(side)
        peer.establish()
        request = read_request(1, 500, side.stag, side.base)
        side.core.receive_data(memoryview(peer.frame(request)), peer.now)
        side.region.deregister()
        peer.received.clear()
        peer.pump()
        assert bytes(peer.received) == terminate_octets((0, 1, 0), request, "read")

    def test_row_29_target_of_an_atomic_dies_before_its_turn(self) -> None:
        """The codes of row 36; a read that came before it is answered whole."""
        side = Side("lab", active=False)
        peer = RawPeer(side)
        peer.establish()
        numbers = bytearray(64)
        region = side.register(numbers, 0x70000, Right.REMOTE_ATOMIC | Right.LOCAL_WRITE)
        assert region.remote is not None
        read = read_request(1, 4, side.stag, side.base)
        atomic = atomic_request(2, region.remote.stag, 0x70000)
        side.core.receive_data(memoryview(peer.frame(read) + peer.frame(atomic)), peer.now)
        region.deregister()
        peer.received.clear()
        peer.pump()
        octets = bytes(peer.received)
        assert octets.endswith(terminate_octets((0, 1, 0), atomic, "ddp"))
        assert len(octets) == 24 + len(terminate_octets((0, 1, 0), atomic, "ddp"))
        assert numbers == bytes(64)

    def test_row_40_completion_queue_overrun(self) -> None:
        side = Side("lab", active=False, cq_depth=2)
        overrun: list[str] = []
        side.receive_ring.on_overrun.append(lambda: overrun.append("overrun"))
        peer = RawPeer(side)
        peer.establish()
        for number in range(4):
            side.receive(64 * number, 64, number)
        peer.received.clear()
        peer.send(send(b"1"), send(b"2", msn=2), send(b"3", msn=3))
        assert overrun == ["overrun"]
        side.core.abort("its completion queue has overrun", peer.now)
        peer.pump()
        assert bytes(peer.received) == terminate_octets((0, 0, 0), b"", "none")
        assert side.receive_ring.status is Status.BUFFER_OVERFLOW
        assert [context for context, _ in side.finished()[1]] == [0, 1]
        assert peer.closed is Finish.SHUTDOWN

    def test_row_41_adapter_wide_fault(self) -> None:
        lab = Lab()
        lab.peer.received.clear()
        lab.side.core.fail_adapter("the adapter has failed", lab.peer.now)
        lab.peer.pump()
        assert bytes(lab.peer.received) == terminate_octets((0, 2, 8), b"", "none")
        check_flushed(lab)
        check_ended(lab, (0, 2, 8))

    def test_row_41_after_our_fin_nothing_can_be_said(self) -> None:
        lab = Lab(reads=False)
        lab.side.core.disconnect(lab.peer.now)
        lab.peer.pump()
        lab.peer.received.clear()
        lab.side.core.fail_adapter("the adapter has failed", lab.peer.now)
        lab.peer.pump()
        assert lab.peer.received == b""
        assert lab.side.core.finish() is Finish.RESET

    def test_row_41_a_connection_that_is_over_stays_as_it_is(self) -> None:
        lab = Lab()
        lab.side.core.abort("first fault", lab.peer.now)
        lab.peer.pump()
        lab.side.take_events()
        lab.peer.received.clear()
        lab.side.core.fail_adapter("the adapter has failed", lab.peer.now)
        lab.peer.pump()
        assert lab.peer.received == b""
        assert lab.side.take_events() == []

    @pytest.mark.parametrize("operation", ["send", "write", "read"])
    @pytest.mark.parametrize("trouble", ["unknown token", "outside", "deregistered"])
    def test_row_42_local_memory_of_a_request(self, operation: str, trouble: str) -> None:
        lab = Lab(reads=False)
        side = lab.side
        sges = [side.sge(4090, 7)]
        if trouble == "unknown token":
            sges = [Sge(side.base, 8, LocalToken(0x12345678))]
        elif trouble == "deregistered":
            sges = [side.sge(0, 8)]
            side.region.deregister()
        lab.peer.received.clear()
        if operation == "send":
            side.send(sges, "W")
        elif operation == "write":
            side.write(sges, 0x9000, 0x5501, "W")
        else:
            side.read(sges, 0x9000, 0x5501, "W")
        side.send(b"behind", "S2")
        lab.peer.pump()
        assert bytes(lab.peer.received) == terminate_octets((0, 0, 0), b"", "none")
        lab.requests = ["W", "S2"]
        check_flushed(lab, read=Status.ACCESS_VIOLATION)
        check_ended(lab, (0, 0, 0))

    def test_row_42_what_was_posted_before_still_goes_out_whole(self) -> None:
        lab = Lab(reads=False)
        lab.peer.received.clear()
        lab.side.send(b"before", "S1")
        lab.side.send([lab.side.sge(4090, 7)], "S2")
        lab.side.send(b"behind", "S3")
        lab.peer.pump()
        first, terminate = lab.peer.take()
        assert first == untagged(Opcode.SEND, 1, b"before")
        assert terminate[18:] == bytes(4)
        lab.requests = ["S1", "S2", "S3"]
        assert lab.side.finished()[0] == [
            ("S1", Status.SUCCESS),
            ("S2", Status.ACCESS_VIOLATION),
            ("S3", CANCELLED),
        ]

    def test_receive_into_memory_without_local_write(self) -> None:
        side = Side("lab", active=False, rights=Right.REMOTE_READ)
        peer = RawPeer(side)
        peer.establish()
        side.receive(0, 64, "R1")
        side.receive(64, 64, "R2")
        peer.received.clear()
        peer.send(send(b"no"))
        assert bytes(peer.received) == terminate_octets((0, 0, 0), b"", "none")
        assert side.finished()[1] == [("R1", Status.ACCESS_VIOLATION), ("R2", CANCELLED)]
        assert side.memory[:2] == bytes(2)


class TestAfterTerminate:
    """Row 38: nothing counts any more."""

    def test_what_follows_a_terminate_is_ignored(self) -> None:
        lab = Lab()
        lab.peer.received.clear()
        terminate = untagged(Opcode.TERMINATE, 1, bytes.fromhex("00000000"))
        lab.peer.send(
            terminate, write(lab.side.stag, lab.side.base, b"late"), send(b"late"), untagged(Opcode.TERMINATE, 2, b"")
        )
        assert lab.side.memory == bytes([FILL]) * 4096
        assert lab.peer.received == b""
        assert len(lab.side.take_events()) == 1
        assert lab.side.finished()[1] == [("R1", CANCELLED), ("R2", CANCELLED)]

    def test_a_second_terminate_is_ignored(self) -> None:
        lab = Lab()
        lab.peer.received.clear()
        lab.peer.send(untagged(Opcode.TERMINATE, 1, bytes.fromhex("11000000")))
        (event,) = lab.side.take_events()
        assert isinstance(event, Aborted)
        lab.peer.closed = Finish.KEEP
        lab.peer.send(untagged(Opcode.TERMINATE, 2, bytes.fromhex("12000000")))
        assert lab.side.take_events() == []
        assert lab.peer.received == b""

    def test_a_terminate_is_never_answered_with_one(self) -> None:
        lab = Lab()
        lab.peer.send(write(0xDEADBE01, 0))
        lab.peer.received.clear()
        lab.peer.closed = Finish.KEEP
        lab.peer.send(untagged(Opcode.TERMINATE, 1, bytes.fromhex("11000000")))
        assert lab.peer.received == b""


class TestWorkedExamples:
    """Whole octets in, whole octets out."""

    @pytest.mark.parametrize(
        ("offender", "terminate"),
        [
            ("RDMA Write with an unknown STag", "Terminate for it: DDP (1)"),
            ("RDMA Read Request naming an unknown", "Terminate for it: RDMAP (0) / Remote Protection"),
            ("Zero-length Send with Invalidate", "Terminate for it: RDMAP (0) / Remote Operation"),
        ],
    )
    def test_example(self, offender: str, terminate: str) -> None:
        lab = Lab()
        lab.peer.received.clear()
        lab.peer.send_octets(named(offender).octets)
        assert bytes(lab.peer.received).hex(" ") == named(terminate).octets.hex(" ")

    def test_example_bad_crc(self) -> None:
        lab = Lab()
        lab.peer.received.clear()
        octets = bytearray(named("Send, 8 octets").octets)
        octets[-4] ^= 0x01
        lab.peer.send_octets(bytes(octets))
        assert bytes(lab.peer.received) == named("Terminate for a bad CRC").octets

    def test_example_send(self) -> None:
        lab = Lab(reads=False)
        lab.peer.received.clear()
        lab.side.send(b"ABCDEFGH")
        lab.peer.pump()
        assert bytes(lab.peer.received) == named("Send, 8 octets").octets

    def test_example_indication(self) -> None:
        side = Side("lab", active=False)
        peer = RawPeer(side)
        peer.send_octets(named("RTR indication").octets)
        assert side.is_in(State.RTS)


def test_the_completion_of_a_refused_invalidation_is_a_receive_without_a_token() -> None:
    """R-RESX-5."""
    lab = Lab()
    lab.peer.send(invalidating(0x99999901))
    failed, cancelled = lab.side.receive_results()
    assert (failed.type, failed.invalidated_token, failed.bytes_transferred) == (OperationType.RECEIVE, None, 0)
    assert failed.provider_error_code == 0x20209
    assert cancelled.status is CANCELLED


def test_every_reachable_row_is_here() -> None:
    """Those without octets of the peer are tested by themselves."""
    assert {row.number for row in ALL_ROWS} == {*range(5, 23), *range(24, 29), *range(30, 38)}


@pytest.mark.parametrize("case", CASES, ids=str)
def test_what_a_single_segment_does_not_show(case: Case) -> None:
    """Framing, start-up, closes and this side's own failures: the code that is sent, and what both ends are told."""
    seen = case.run()
    assert (seen.code, seen.here, seen.there) == (case.code, case.here, case.there)


@pytest.mark.parametrize("row", ALL_ROWS, ids=str)
def test_what_a_peer_of_softndk_is_told(row: Row) -> None:
    """The other end of each row: the same triple as its provider code, and a request of its own only where A-4 says so."""
    seen = of_row(row)
    triple = f"{row.code[0]:x}/{row.code[1]:x}/{row.code[2]:x}"
    status = f"RD {'ACCESS_VIOLATION' if row.code in DENIED else 'REMOTE_RESOURCES'}; 1 CANCELLED"
    if row.code in ((0, 2, 9), (0, 1, 9)):
        status = "2 CANCELLED"
    code = row.code[0] << 12 | row.code[1] << 8 | row.code[2]
    assert seen.code == triple
    assert seen.there == f"{status}; connection: CONNECTION_ABORTED {0x10000 | code:#x}"
    assert seen.here.endswith(f"connection: CONNECTION_ABORTED {0x20000 | code:#x}")
