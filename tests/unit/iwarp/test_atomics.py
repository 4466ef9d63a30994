"""Atomics: the arithmetic against a naive model, the target's side, the requester's side."""

import struct
import sys
from collections.abc import Sequence

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from softndk.config import IwarpConfig
from softndk.flags import LocalToken, OperationType, OpFlag
from softndk.iwarp.atomics import compare_swap, fetch_add
from softndk.iwarp.events import Aborted
from softndk.iwarp.qp_state import State
from softndk.memory.buffers import Mdl
from softndk.memory.regions import FastRegion, Region, Window
from softndk.memory.sge import Sge
from softndk.memory.tokens import Right
from softndk.status import Status
from softndk.wire.rdmap import Opcode
from tests.pair.core_pair import CorePair, Side
from tests.pair.raw_peer import RawPeer, atomic_request, atomic_response, read_request, tagged, untagged
from tests.vectors.iwarp_vectors import named

ONES = (1 << 64) - 1
ATOMIC = Right.REMOTE_ATOMIC | Right.LOCAL_WRITE
NUMBERS = st.integers(0, ONES) | st.sampled_from([0, 1, ONES, 1 << 63, (1 << 63) - 1])
U64 = struct.Struct("=Q")


def add_bit_by_bit(old: int, add: int, mask: int) -> int:
    """A ripple-carry adder: behind a bit that the mask marks, the carry is forgotten."""
    result = carry = 0
    for place in range(64):
        total = (old >> place & 1) + (add >> place & 1) + carry
        result |= (total & 1) << place
        carry = 0 if mask >> place & 1 else total >> 1
    return result


def swap_bit_by_bit(old: int, swap: int, swap_mask: int, compare: int, compare_mask: int) -> int:
    bits = range(64)
    if any(compare_mask >> place & 1 and (compare ^ old) >> place & 1 for place in bits):
        return old
    return sum(((swap if swap_mask >> place & 1 else old) >> place & 1) << place for place in bits)


class TestArithmetic:
    @given(NUMBERS, NUMBERS, NUMBERS)
    @example(ONES, 1, 0)
    @example(ONES, ONES, ONES)
    def test_fetch_add(self, old: int, add: int, mask: int) -> None:
        assert fetch_add(old, add, mask) == add_bit_by_bit(old, add, mask)

    @given(NUMBERS, NUMBERS)
    def test_without_a_mask_it_is_addition(self, old: int, add: int) -> None:
        assert fetch_add(old, add, 0) == (old + add) % (1 << 64)

    @pytest.mark.parametrize(
        ("old", "add", "mask", "new"),
        [
            (0x00000000_FFFFFFFF, 1, 0, 0x00000001_00000000),
            (0x00000000_FFFFFFFF, 1, 0x00000000_80000000, 0),  # two counters of 32 bits: the low one wraps alone
            (0x00000007_FFFFFFFF, 0x00000001_00000002, 0x80000000_80000000, 0x00000008_00000001),
            (0xFF_FF, 0x01_01, 0x80_80, 0x00_00),
            (0xFF_FF, 0x01_01, 0x80_00, 0x01_00),
            (ONES, ONES, ONES, 0),  # 64 fields of one bit: exclusive or
        ],
    )
    def test_fields(self, old: int, add: int, mask: int, new: int) -> None:
        assert fetch_add(old, add, mask) == new

    @given(NUMBERS, NUMBERS, NUMBERS, NUMBERS, NUMBERS)
    def test_compare_swap(self, old: int, swap: int, swap_mask: int, compare: int, compare_mask: int) -> None:
        assert compare_swap(old, swap, swap_mask, compare, compare_mask) == swap_bit_by_bit(
            old, swap, swap_mask, compare, compare_mask
        )

    @given(NUMBERS, NUMBERS, NUMBERS, NUMBERS)
    def test_compare_swap_that_fits(self, old: int, swap: int, swap_mask: int, compare_mask: int) -> None:
        new = compare_swap(old, swap, swap_mask, old & compare_mask, compare_mask)
        assert new & swap_mask == swap & swap_mask
        assert new & ~swap_mask == old & ~swap_mask

    @pytest.mark.parametrize(
        ("old", "swap", "swap_mask", "compare", "compare_mask", "new"),
        [
            (7, 9, ONES, 7, ONES, 9),
            (7, 9, ONES, 8, ONES, 7),
            (0xAB07, 0x0009, 0x00FF, 0x0007, 0x00FF, 0xAB09),  # only the low octet is compared and replaced
            (0xAB08, 0x0009, 0x00FF, 0x0007, 0x00FF, 0xAB08),
            (ONES, 0, ONES, 0, 0, 0),  # nothing compared: a swap
            (5, ONES, 0, 5, ONES, 5),  # nothing replaced: a fetch
        ],
    )
    def test_swaps(self, old: int, swap: int, swap_mask: int, compare: int, compare_mask: int, new: int) -> None:
        assert compare_swap(old, swap, swap_mask, compare, compare_mask) == new


class Target:
    """A passive side with eight numbers at 0x70000 that a raw peer may change."""

    def __init__(
        self, *values: int, rights: Right = ATOMIC, config: IwarpConfig | None = None, size: int = 1 << 16
    ) -> None:
        self.side = Side("T", active=False, config=config, size=size)
        self.numbers = bytearray(struct.pack("=8Q", *values, *[0] * (8 - len(values))))
        self.region = self.side.register(self.numbers, 0x70000, rights)
        assert self.region.remote is not None
        self.stag = self.region.remote.stag
        self.peer = RawPeer(self.side)
        self.peer.establish()
        self.peer.received.clear()

    @property
    def values(self) -> tuple[int, ...]:
        return struct.unpack("=8Q", self.numbers)

    def add(self, msn: int, index: int, value: int, identifier: int = 0) -> bytes:
        return atomic_request(msn, self.stag, 0x70000 + 8 * index, value, identifier=identifier)

    def arrive(self, *ulpdus: bytes) -> None:
        """Received, but nothing is sent yet."""
        octets = b"".join(self.peer.frame(ulpdu) for ulpdu in ulpdus)
        self.side.core.receive_data(memoryview(octets), self.peer.now)


class TestTarget:
    def test_fetch_add(self) -> None:
        target = Target(5, 6)
        target.peer.send(target.add(1, 1, 10, identifier=0xDEADBEEF))
        assert target.peer.take() == [atomic_response(1, 0xDEADBEEF, 6)]
        assert target.values[:3] == (5, 16, 0)

    def test_compare_swap(self) -> None:
        target = Target(5)
        request = atomic_request(1, target.stag, 0x70000, 9, ONES, 5, ONES, operation=2, identifier=1)
        again = atomic_request(2, target.stag, 0x70000, 11, ONES, 5, ONES, operation=2, identifier=1)
        target.peer.send(request, again)
        assert target.peer.take() == [atomic_response(1, 1, 5), atomic_response(2, 1, 9)]
        assert target.values[0] == 9

    def test_comparison_fields_of_a_fetch_add_and_reserved_bits_are_ignored(self) -> None:
        target = Target(5)
        request = bytearray(atomic_request(1, target.stag, 0x70000, 1, 0, 77, 0, identifier=3))
        request[18:22] = bytes.fromhex("fffffff0")
        target.peer.send(bytes(request))
        assert target.peer.take() == [atomic_response(1, 3, 5)]
        assert target.values[0] == 6

    def test_worked_example(self) -> None:
        """The request of RFC 7306 as the second of its queue, its answer as the first of the other one."""
        side = Side("T", active=False)
        numbers = bytearray((7).to_bytes(8, sys.byteorder))
        region = side.register(numbers, 0x0000700000001008, ATOMIC)
        assert region.remote is not None
        peer = RawPeer(side)
        peer.establish()
        peer.received.clear()
        example_ = bytearray(named("Atomic Request").octets[2:72])
        example_[26:30] = region.remote.stag.to_bytes(4, "big")
        peer.send(read_request(1, 0, 0, 0), bytes(example_))
        response = named("Atomic Response")
        assert bytes(peer.received[20:]) == response.octets
        assert int.from_bytes(numbers, sys.byteorder) == 8

    def test_several_buffers(self) -> None:
        """A number that lies across two buffers of one region."""
        side = Side("T", active=False)
        head, tail = bytearray(3), bytearray(13)
        head[0] = 0xFF if sys.byteorder == "little" else 0
        region = Region(side.datapath.tokens, side.pd, "chain")
        region.register(0x70000, Mdl([head, tail], address=0x70000).byte_range(16), ATOMIC)
        assert region.remote is not None
        peer = RawPeer(side)
        peer.establish()
        peer.received.clear()
        before = int.from_bytes(bytes(head + tail[:5]), sys.byteorder)
        peer.send(atomic_request(1, region.remote.stag, 0x70000, 0x0101_0000_0001, identifier=2))
        assert peer.take() == [atomic_response(1, 2, before)]
        assert int.from_bytes(bytes(head + tail[:5]), sys.byteorder) == before + 0x0101_0000_0001
        assert tail[5:] == bytes(8)

    def test_windows_and_fast_register_regions(self) -> None:
        target = Target()
        side = target.side
        memory = bytearray(64)
        fast = FastRegion(side.datapath.tokens, side.pd, "frmr")
        fast.initialize(1, True)
        fast.fast_register(0x80000, Mdl(memory, address=0).byte_range(64), ATOMIC)
        assert fast.remote is not None
        window = Window(side.datapath.tokens, side.pd, "mw")
        window.bind(target.region, 0x70008, 8, Right.REMOTE_ATOMIC, side.pair)
        target.peer.send(
            atomic_request(1, fast.remote.stag, 0x80000, 3, identifier=1),
            atomic_request(2, window.token.stag, 0x70008, 4, identifier=2),
        )
        assert target.peer.take() == [atomic_response(1, 1, 0), atomic_response(2, 2, 0)]
        assert int.from_bytes(memory[:8], sys.byteorder) == 3
        assert target.values[:3] == (0, 4, 0)

    def test_order_of_reads_and_atomics(self) -> None:
        """Answers come in the order of the requests, and each sees what those before it have done (RFC 7306 7)."""
        target = Target(1, rights=ATOMIC | Right.REMOTE_READ, config=IwarpConfig(max_fpdu=128))
        read = 8
        target.arrive(
            read_request(1, read, target.stag, 0x70000),
            target.add(2, 0, 1, identifier=2),
            read_request(3, read, target.stag, 0x70000),
            target.add(4, 0, 1, identifier=4),
            target.add(5, 0, 1, identifier=5),
            read_request(6, read, target.stag, 0x70000),
        )
        assert target.values[0] == 1  # nothing is carried out before its turn
        target.peer.pump()
        assert target.peer.take() == [
            tagged(Opcode.READ_RESPONSE, 0x112201, 0x2000, U64.pack(1)),
            atomic_response(1, 2, 1),
            tagged(Opcode.READ_RESPONSE, 0x112201, 0x2000, U64.pack(2)),
            atomic_response(2, 4, 2),
            atomic_response(3, 5, 3),
            tagged(Opcode.READ_RESPONSE, 0x112201, 0x2000, U64.pack(4)),
        ]

    def test_an_atomic_waits_for_the_whole_response_before_it(self) -> None:
        target = Target(1, config=IwarpConfig(send_buffer=65600), size=1 << 18)
        memory = target.side.memory
        memory[:200_000] = bytes(index % 251 for index in range(200_000))
        target.arrive(read_request(1, 200_000, target.side.stag, target.side.base), target.add(2, 0, 1))
        target.peer.pump(40_000)
        assert target.values[0] == 1
        target.peer.pump()
        *responses, answer = target.peer.take()
        assert b"".join(segment[14:] for segment in responses) == memory[:200_000]
        assert answer == atomic_response(1, 0, 1)
        assert target.values[0] == 2

    def test_the_read_limit_counts_both(self) -> None:
        target = Target(rights=ATOMIC | Right.REMOTE_READ)
        for round_ in range(5):  # slots become free with the answers
            first = 16 * round_ + 1
            target.peer.send(
                *(
                    target.add(msn, 0, 1) if msn % 2 else read_request(msn, 8, target.stag, 0x70000)
                    for msn in range(first, first + 16)
                )
            )
        assert target.side.is_in(State.RTS)
        assert target.values[0] == 40

    def test_after_this_sides_fin_it_cannot_be_answered(self) -> None:
        target = Target()
        target.side.core.disconnect(target.peer.now)
        target.peer.pump()
        target.peer.send(target.add(1, 0, 1))
        assert target.values[0] == 0
        assert any(isinstance(event, Aborted) or "Disconnected" in type(event).__name__ for event in target.side.events)
        assert not target.side.core.is_up

    def test_a_peers_send_with_invalidate_ends_the_right(self) -> None:
        """The token dies with the Send; an atomic that came before it and still waits is refused."""
        target = Target()
        side = target.side
        window = Window(side.datapath.tokens, side.pd, "mw")
        window.bind(target.region, 0x70000, 8, Right.REMOTE_ATOMIC, side.pair)
        side.receive(0, 64, "R1")
        target.arrive(
            atomic_request(1, window.token.stag, 0x70000),
            untagged(Opcode.SEND_INVALIDATE, 1, b"", stag=window.token.stag),
        )
        target.peer.pump()
        (terminate,) = target.peer.take()
        assert terminate[18:20] == bytes([0x01, 0x00])
        assert target.values[0] == 0
        assert side.finished()[1] == [("R1", Status.SUCCESS)]


class Requester:
    """A passive side that may send, with 8-octet sinks, opposite a raw peer."""

    def __init__(self, *, ord_limit: int = 16) -> None:
        self.side = Side("R", active=False, ord_limit=ord_limit)
        self.peer = RawPeer(self.side)
        self.peer.establish()
        self.peer.received.clear()

    def sent(self) -> list[bytes]:
        self.peer.pump()
        found = self.peer.take()
        self.peer.received.clear()
        return found

    def add(self, context: object, sgl: Sequence[Sge] | None = None, *, flags: int = 0) -> None:
        sges = [self.side.sge(0, 8)] if sgl is None else sgl
        self.side.fetch_add(sges, 0x9008, 0x5501, 3, context, flags=flags)

    def results(self) -> list[tuple[object, Status, int | None]]:
        return [(r.request_context, r.status, r.original_value) for r in self.side.initiator_results()]


def identifier_of(request: bytes) -> int:
    return int.from_bytes(request[22:26], "big")


class TestRequester:
    def test_fetch_add_on_the_wire(self) -> None:
        requester = Requester()
        requester.side.fetch_add([requester.side.sge(0, 8)], 0x9008, 0x5501, 3, mask=0x8000)
        (request,) = requester.sent()
        assert request == atomic_request(1, 0x5501, 0x9008, 3, 0x8000, identifier=identifier_of(request))

    def test_compare_swap_on_the_wire(self) -> None:
        requester = Requester()
        requester.side.compare_swap(
            [requester.side.sge(0, 8)], 0x9008, 0x5501, 5, 9, compare_mask=0xFF, swap_mask=0xFFFF
        )
        (request,) = requester.sent()
        assert request == atomic_request(
            1, 0x5501, 0x9008, 9, 0xFFFF, 5, 0xFF, operation=2, identifier=identifier_of(request)
        )

    def test_the_answer_goes_into_the_sges_and_the_result(self) -> None:
        requester = Requester()
        side = requester.side
        requester.add("A", [side.sge(100, 3), side.sge(0, 0), side.sge(200, 5)])
        (request,) = requester.sent()
        original = 0x0102030405060708
        requester.peer.send(atomic_response(1, identifier_of(request), original))
        (result,) = side.initiator_results()
        assert (result.type, result.status, result.original_value) == (
            OperationType.FETCH_ADD,
            Status.SUCCESS,
            original,
        )
        assert result.bytes_transferred == 0
        stored = original.to_bytes(8, sys.byteorder)
        assert side.memory[100:103] + side.memory[200:205] == stored
        assert sum(side.memory) == sum(stored)

    def test_reads_and_atomics_share_numbers_and_limit(self) -> None:
        requester = Requester(ord_limit=2)
        side = requester.side
        side.read([side.sge(8, 4)], 0x9000, 0x5501, "R1")
        requester.add("A2")
        side.read([side.sge(16, 4)], 0x9000, 0x5501, "R3")
        requester.add("A4")
        side.send(b"S5", "S5")
        first, second = requester.sent()
        assert first[:14] == untagged(Opcode.READ_REQUEST, 1)[:14]
        assert second[:14] == untagged(Opcode.ATOMIC_REQUEST, 2)[:14]
        requester.peer.send(tagged(Opcode.READ_RESPONSE, int.from_bytes(first[18:22], "big"), 0, b"read"))
        (third,) = requester.sent()
        assert third[:14] == untagged(Opcode.READ_REQUEST, 3)[:14]
        requester.peer.send(atomic_response(1, identifier_of(second), 7))
        fourth, send = requester.sent()
        assert fourth[:14] == untagged(Opcode.ATOMIC_REQUEST, 4)[:14]
        assert send == untagged(Opcode.SEND, 1, b"S5")
        requester.peer.send(
            tagged(Opcode.READ_RESPONSE, int.from_bytes(third[18:22], "big"), 0, b"more"),
            atomic_response(2, identifier_of(fourth), 10),
        )
        success = Status.SUCCESS
        assert requester.results() == [
            ("R1", success, None),
            ("A2", success, 7),
            ("R3", success, None),
            ("A4", success, 10),
            ("S5", success, None),
        ]

    def test_completion_is_in_posting_order(self) -> None:
        """An atomic whose answer overtakes the rest of a read's completes behind the read."""
        requester = Requester()
        side = requester.side
        side.read([side.sge(8, 8)], 0x9000, 0x5501, "R1")
        requester.add("A2")
        read, atomic = requester.sent()
        sink = int.from_bytes(read[18:22], "big")
        requester.peer.send(
            tagged(Opcode.READ_RESPONSE, sink, 0, b"half", last=False), atomic_response(1, identifier_of(atomic), 7)
        )
        assert requester.results() == []
        requester.peer.send(tagged(Opcode.READ_RESPONSE, sink, 4, b"rest"))
        assert requester.results() == [("R1", Status.SUCCESS, None), ("A2", Status.SUCCESS, 7)]
        assert side.memory[8:16] == b"halfrest"

    @pytest.mark.parametrize("fenced", ["send", "write", "read", "atomic", "immediate"])
    def test_a_fence_waits_for_atomics(self, fenced: str) -> None:
        requester = Requester()
        side = requester.side
        requester.add("A1")
        fence = OpFlag.READ_FENCE
        if fenced == "send":
            side.send(b"x", "F", flags=fence)
        elif fenced == "write":
            side.write(b"x", 0x9000, 0x5501, "F", flags=fence)
        elif fenced == "read":
            side.read([side.sge(8, 8)], 0x9000, 0x5501, "F", flags=fence)
        elif fenced == "atomic":
            requester.add("F", flags=fence)
        else:
            side.immediate(b"8 octets", "F", flags=fence)
        (atomic,) = requester.sent()
        requester.peer.send(atomic_response(1, identifier_of(atomic), 7))
        assert len(requester.sent()) == 1

    def test_an_invalidation_waits_for_atomics(self) -> None:
        requester = Requester()
        done: list[str] = []
        requester.add("A1")
        requester.side.local(lambda: done.append("invalidated"), "I", waits_for_reads=True)
        (atomic,) = requester.sent()
        assert done == []
        requester.peer.send(atomic_response(1, identifier_of(atomic), 7))
        assert done == ["invalidated"]

    def test_silent_success(self) -> None:
        requester = Requester()
        requester.add("A1", flags=OpFlag.SILENT_SUCCESS)
        (atomic,) = requester.sent()
        requester.peer.send(atomic_response(1, identifier_of(atomic), 7))
        assert requester.results() == []
        assert requester.side.pair.idle
        assert requester.side.memory[:8] == (7).to_bytes(8, sys.byteorder)

    @pytest.mark.parametrize("trouble", ["unknown token", "outside", "no local write"])
    def test_a_bad_sink_asks_nothing_of_the_peer(self, trouble: str) -> None:
        requester = Requester()
        side = requester.side
        sges = [side.sge((1 << 16) - 4, 8)]
        if trouble == "unknown token":
            sges = [Sge(side.base, 8, LocalToken(0x12345678))]
        elif trouble == "no local write":
            region = side.register(bytearray(8), 0x50000, Right.REMOTE_READ, name="ro")
            assert region.local is not None
            sges = [Sge(0x50000, 8, LocalToken(region.local.stag))]
        requester.add("A1", sges)
        (terminate,) = requester.sent()
        assert terminate[18:] == bytes(4)
        assert requester.results() == [("A1", Status.ACCESS_VIOLATION, None)]

    def test_a_sink_that_is_gone_when_the_answer_comes(self) -> None:
        """Nothing that the peer did wrong: it knows no token of ours (row 42)."""
        requester = Requester()
        side = requester.side
        side.receive(0, 8, "R")
        requester.add("A1")
        requester.add("A2")
        atomic, _ = requester.sent()
        side.region.deregister()
        requester.peer.send(atomic_response(1, identifier_of(atomic), 7))
        (terminate,) = requester.peer.take()
        assert terminate[18:] == bytes(4)
        assert requester.results() == [("A1", Status.ACCESS_VIOLATION, None), ("A2", Status.CANCELLED, None)]
        assert side.memory[:8] == bytes(8)

    def test_message_numbers_of_the_answers_wrap(self) -> None:
        requester = Requester()
        stream = requester.side.core._standing.stream
        stream._inbound._atomic_response_msn = 0xFFFFFFFF  # type: ignore[union-attr]
        for _ in range(2):
            requester.add("A")
        first, second = requester.sent()
        requester.peer.send(
            atomic_response(0xFFFFFFFF, identifier_of(first), 1), atomic_response(0, identifier_of(second), 2)
        )
        assert [original for _, _, original in requester.results()] == [1, 2]


class TestTerminates:
    """What the peer's refusal means (A-4)."""

    def refused(
        self, body: str, *, header: int | None = None
    ) -> tuple[Requester, list[tuple[object, Status, int | None]]]:
        """Two reads' worth of atomics outstanding; the peer ends it with that body, and the header of one of them."""
        requester = Requester()
        requester.add("A1")
        requester.add("A2")
        requests = requester.sent()
        octets = bytes.fromhex(body)
        if header is not None:
            octets += (70).to_bytes(2, "big") + requests[header][:18]
        requester.peer.send(untagged(Opcode.TERMINATE, 1, octets))
        return requester, requester.results()

    def test_a_refused_right_fails_the_atomic_that_it_names(self) -> None:
        _, results = self.refused("0102c000", header=1)
        assert results == [("A1", Status.CANCELLED, None), ("A2", Status.ACCESS_VIOLATION, None)]

    def test_bounds(self) -> None:
        _, results = self.refused("0101c000", header=0)
        assert results == [("A1", Status.REMOTE_RESOURCES, None), ("A2", Status.CANCELLED, None)]

    def test_a_peer_without_rfc_7306_is_told_as_that(self) -> None:
        requester, results = self.refused("0206c000", header=0)
        assert results[0] == ("A1", Status.REMOTE_RESOURCES, None)
        (event,) = requester.side.take_events()
        assert isinstance(event, Aborted)
        assert "to our ATOMIC_REQUEST: this peer has no RFC 7306" in str(event.error)

    def test_a_peer_without_it_that_returns_no_header(self) -> None:
        requester, _ = self.refused("02060000")
        (event,) = requester.side.take_events()
        assert isinstance(event, Aborted)
        assert "perhaps this peer has no RFC 7306" in str(event.error)

    def test_without_having_used_it_nothing_is_said_about_it(self) -> None:
        requester = Requester()
        requester.side.send(b"x")
        requester.sent()
        requester.peer.send(untagged(Opcode.TERMINATE, 1, bytes.fromhex("02060000")))
        (event,) = requester.side.take_events()
        assert isinstance(event, Aborted)
        assert "7306" not in str(event.error)


def test_two_sides_at_once() -> None:
    """Both ends add to a number of the other: every request counts once, and the originals are all the steps."""
    a, b = Side("A", active=True, ord_limit=4), Side("B", active=False, ird=4)
    pair = CorePair(a, b, chunk=lambda: 7)
    pair.connect()
    numbers = {side: bytearray(8) for side in (a, b)}
    stags = {}
    for side in (a, b):
        region = side.register(numbers[side], 0x70000, ATOMIC, name="number")
        assert region.remote is not None
        stags[side] = region.remote.stag
    for index in range(30):
        a.fetch_add([a.sge(8 * index, 8)], 0x70000, stags[b], 3, index)
        b.fetch_add([b.sge(8 * index, 8)], 0x70000, stags[a], 5, index)
    pair.drive()
    for side, step in ((a, 3), (b, 5)):
        results = side.initiator_results()
        assert [result.request_context for result in results] == list(range(30))
        assert [result.original_value for result in results] == [step * index for index in range(30)]
        assert struct.unpack_from("=30Q", side.memory) == tuple(step * index for index in range(30))
    assert U64.unpack(numbers[b]) == (90,)
    assert U64.unpack(numbers[a]) == (150,)
