"""What leaves, and in which order requests complete: segmentation, opcodes, fences, the read limit, local requests."""

import itertools
import os

import pytest

from softndk.config import IwarpConfig
from softndk.errors import AccessViolation, InvalidState, QueueFull
from softndk.flags import LocalToken, OperationType, OpFlag
from softndk.iwarp.framing import Framer
from softndk.iwarp.inbound import Inbound
from softndk.iwarp.outbound import Outbound
from softndk.iwarp.qp_state import State
from softndk.memory.buffers import Mdl
from softndk.memory.regions import FastRegion, Window
from softndk.memory.sge import Sge
from softndk.memory.tokens import Right
from softndk.status import Status
from softndk.wire.rdmap import Opcode
from tests.pair.core_pair import ALL_RIGHTS, CorePair, Side, split
from tests.pair.raw_peer import RawPeer, read_request, tagged, untagged

CANCELLED = Status.CANCELLED
SUCCESS = Status.SUCCESS
FENCED = OpFlag.READ_FENCE
SILENT = OpFlag.SILENT_SUCCESS
SOLICIT = OpFlag.SEND_AND_SOLICIT_EVENT
SINK, SOURCE = 0x5501, 0x9000


def raw(side: Side | None = None, *, config: IwarpConfig | None = None, mss: int = 1460) -> RawPeer:
    peer = RawPeer(side or Side("B", active=False, config=config), mss=mss)
    peer.establish()
    peer.received.clear()
    return peer


def sent(peer: RawPeer) -> list[bytes]:
    """The ULPDUs that have come since the last look."""
    peer.pump()
    ulpdus = peer.take()
    peer.received.clear()
    return ulpdus


def connected() -> CorePair:
    pair = CorePair(Side("A", active=True), Side("B", active=False, base=0x900000))
    pair.connect()
    return pair


def opcodes(ulpdus: list[bytes]) -> list[Opcode]:
    return [Opcode(ulpdu[1] & 0x0F) for ulpdu in ulpdus]


class Reads:
    """A raw peer that answers reads when the test says so."""

    def __init__(self, limit: int = 16) -> None:
        self.peer = raw(Side("B", active=False, ord_limit=limit))
        self.side = self.peer.side
        self.open: list[tuple[int, int]] = []

    def post(self, context: object, *, flags: int = 0) -> None:
        self.side.read([self.side.sge(0, 4)], SOURCE, SINK, context, flags=flags)

    def sent(self) -> list[Opcode]:
        """What has gone out since the last look; Read Requests are remembered."""
        ulpdus = sent(self.peer)
        for ulpdu in ulpdus:
            if ulpdu[1] & 0x0F == Opcode.READ_REQUEST:
                self.open.append((int.from_bytes(ulpdu[18:22], "big"), int.from_bytes(ulpdu[30:34], "big")))
        return opcodes(ulpdus)

    def answer(self) -> None:
        """The response to the oldest read that has gone out."""
        sink, size = self.open.pop(0)
        self.peer.send(tagged(Opcode.READ_RESPONSE, sink, 0, bytes(size)))


class TestMessages:
    def test_worked_example_of_segmentation(self) -> None:
        """MULPDU 1500: 2048 octets as 1482 + 566 and, tagged, as 1486 + 562 (RFC 5041 5.2)."""
        peer = raw(config=IwarpConfig(max_fpdu=1500))
        data = os.urandom(2048)
        peer.side.send(data)
        peer.side.write(data, 16384, SINK)
        assert sent(peer) == [
            untagged(Opcode.SEND, 1, data[:1482], last=False),
            untagged(Opcode.SEND, 1, data[1482:], mo=1482),
            tagged(Opcode.WRITE, SINK, 16384, data[:1486], last=False),
            tagged(Opcode.WRITE, SINK, 17870, data[1486:]),
        ]

    @pytest.mark.parametrize("room", [1, 2])
    def test_a_message_that_fills_its_segments(self, room: int) -> None:
        peer = raw(config=IwarpConfig(max_fpdu=1018))
        peer.side.send(bytes(1000 * room))
        segments = sent(peer)
        assert [len(segment) for segment in segments] == [1018] * room
        assert [segment[0] for segment in segments] == [0x01] * (room - 1) + [0x41]

    @pytest.mark.rules("R-WR-5")
    def test_zero_length(self) -> None:
        """R-WR-5."""
        peer = raw()
        side = peer.side
        side.send([])
        side.write([], 0x1234, SINK)
        side.read([], 0x1234, SINK)
        send, write, read = sent(peer)
        assert send == untagged(Opcode.SEND, 1)
        assert write == tagged(Opcode.WRITE, SINK, 0x1234)
        assert read[:18] == untagged(Opcode.READ_REQUEST, 1)
        assert read[30:34] == bytes(4)

    @pytest.mark.parametrize(
        ("flags", "invalidate", "opcode"),
        [
            (0, None, Opcode.SEND),
            (SOLICIT, None, Opcode.SEND_SE),
            (0, 0x12345678, Opcode.SEND_INVALIDATE),
            (SOLICIT, 0x12345678, Opcode.SEND_SE_INVALIDATE),
            (0, 0, Opcode.SEND_INVALIDATE),
        ],
    )
    def test_opcodes_of_sends(self, flags: int, invalidate: int | None, opcode: Opcode) -> None:
        peer = raw(config=IwarpConfig(max_fpdu=128))
        peer.side.send(bytes(200), flags=flags, invalidate=invalidate)
        assert sent(peer) == [
            untagged(opcode, 1, bytes(110), stag=invalidate or 0, last=False),
            untagged(opcode, 1, bytes(90), mo=110, stag=invalidate or 0),
        ]
        assert peer.side.initiator_results()[0].type is OperationType.SEND

    def test_message_numbers_count_per_queue(self) -> None:
        reads = Reads()
        reads.side.send(b"1")
        reads.post("r1")
        reads.side.send(b"2")
        reads.post("r2")
        ulpdus = sent(reads.peer)
        assert [(ulpdu[9], ulpdu[13]) for ulpdu in ulpdus] == [(0, 1), (1, 1), (0, 2), (1, 2)]

    def test_message_numbers_wrap(self) -> None:
        side = Side("B", active=False)
        inbound = Inbound(side.pair, side.access, read_limit=4)
        outbound = Outbound(side.pair, inbound, Framer(crc=True, markers=False), mulpdu=1000, draw_sink=lambda: 1)
        outbound._send_msn = outbound._request_msn = 0xFFFFFFFF
        side.pair.outbound_read_limit = 4
        for _ in range(2):
            side.send(b"x")
            side.read([side.sge(0, 1)], SOURCE, SINK)
        frames = b"".join(iter(outbound.next_frame, None))
        assert [ulpdu[10:14] for ulpdu in split(frames, crc=True, markers=False)] == [b"\xff" * 4] * 2 + [bytes(4)] * 2

    def test_pieces_are_gathered_in_order(self) -> None:
        peer = raw(config=IwarpConfig(max_fpdu=128))
        side = peer.side
        side.memory[:512] = os.urandom(512)
        side.send([side.sge(300, 100), side.sge(0, 0), side.sge(7, 1), side.sge(50, 150)])
        expected = bytes(side.memory[300:400] + side.memory[7:8] + side.memory[50:200])
        assert b"".join(ulpdu[18:] for ulpdu in sent(peer)) == expected

    def test_the_read_request(self) -> None:
        peer = raw()
        side = peer.side
        side.read([side.sge(0, 10), side.sge(100, 20)], 0x1_0000_0001, 0xABCD1234)
        (request,) = sent(peer)
        assert request[22:30] == bytes(8)
        assert int.from_bytes(request[30:34], "big") == 30
        assert int.from_bytes(request[34:38], "big") == 0xABCD1234
        assert int.from_bytes(request[38:46], "big") == 0x1_0000_0001

    def test_messages_are_never_interleaved(self) -> None:
        """Responses and own messages take turns, whole messages at a time."""
        peer = raw(Side("B", active=False, config=IwarpConfig(max_fpdu=128)))
        side = peer.side
        side.send(bytes(300), 1)
        side.send(bytes(300), 2)
        requests = b"".join(peer.frame(read_request(msn, 300, side.stag, side.base)) for msn in (1, 2, 3))
        side.core.receive_data(memoryview(requests), peer.now)
        kinds = opcodes(sent(peer))
        assert [kind for kind, _ in itertools.groupby(kinds)] == [
            Opcode.READ_RESPONSE,
            Opcode.SEND,
            Opcode.READ_RESPONSE,
            Opcode.SEND,
            Opcode.READ_RESPONSE,
        ]
        assert len(kinds) == 15

    def test_what_is_sent_is_what_was_there_when_it_was_framed(self) -> None:
        """The octets and their checksum agree whatever the program does to its buffer meanwhile."""
        peer = raw()
        side = peer.side
        side.memory[:4] = b"good"
        side.send([side.sge(0, 4)])
        ready = side.core.data_to_send(peer.now)
        side.memory[:4] = b"evil"
        octets = b"".join(ready)
        side.core.data_sent(len(octets), peer.now)
        assert split(octets, crc=True, markers=False) == [untagged(Opcode.SEND, 1, b"good")]


class TestOrder:
    """R-COMP-4, -5; R-WR-11 to -14; R-READ-4."""

    @pytest.mark.rules("R-COMP-4")
    def test_completions_come_in_posting_order_whatever_ends_first(self) -> None:
        reads = Reads()
        reads.post("read")
        reads.side.send(b"x", "send")
        reads.side.local(lambda: None, "bind")
        reads.side.write(b"x", SOURCE, SINK, "write")
        assert reads.sent() == [Opcode.READ_REQUEST, Opcode.SEND, Opcode.WRITE]
        assert reads.side.finished()[0] == []
        reads.answer()
        assert reads.side.finished()[0] == [
            ("read", SUCCESS),
            ("send", SUCCESS),
            ("bind", SUCCESS),
            ("write", SUCCESS),
        ]

    def test_a_silent_success_is_not_seen_and_holds_nothing_up(self) -> None:
        reads = Reads()
        reads.side.send(b"x", 1, flags=SILENT)
        reads.post(2, flags=SILENT)
        reads.side.local(lambda: None, 3, flags=SILENT)
        reads.side.send(b"x", 4)
        reads.sent()
        assert reads.side.finished()[0] == []
        reads.answer()
        assert reads.side.finished()[0] == [(4, SUCCESS)]

    @pytest.mark.rules("R-COMP-2")
    def test_a_silent_failure_is_seen(self) -> None:
        """R-COMP-2."""
        peer = raw()
        side = peer.side
        side.send([side.sge(1 << 30, 1)], "bad", flags=SILENT)
        side.send(b"x", "flushed", flags=SILENT)
        peer.pump()
        assert side.finished()[0] == [("bad", Status.ACCESS_VIOLATION), ("flushed", CANCELLED)]

    @pytest.mark.rules("R-WR-11")
    @pytest.mark.parametrize("kind", ["send", "write", "read", "local"])
    def test_read_fence(self, kind: str) -> None:
        """Not started before all earlier reads are complete; what follows waits behind it."""
        reads = Reads()
        ran: list[str] = []
        reads.post("r1")
        reads.post("r2")
        if kind == "send":
            reads.side.send(b"x", "fenced", flags=FENCED)
        elif kind == "write":
            reads.side.write(b"x", SOURCE, SINK, "fenced", flags=FENCED)
        elif kind == "read":
            reads.post("fenced", flags=FENCED)
        else:
            reads.side.local(lambda: ran.append("fenced"), "fenced", flags=FENCED)
        reads.side.send(b"x", "behind")
        assert reads.sent() == [Opcode.READ_REQUEST] * 2
        reads.answer()
        assert reads.sent() == []
        assert ran == []
        reads.answer()
        expected = {"send": [Opcode.SEND], "write": [Opcode.WRITE], "read": [Opcode.READ_REQUEST], "local": []}[kind]
        assert reads.sent() == [*expected, Opcode.SEND]
        assert ran == (["fenced"] if kind == "local" else [])

    def test_a_fence_waits_for_nothing_else(self) -> None:
        reads = Reads()
        reads.side.send(b"x", 1)
        reads.side.send(b"x", 2, flags=FENCED)
        assert reads.sent() == [Opcode.SEND] * 2

    def test_without_a_fence_a_send_overtakes_nothing_but_is_not_held_up(self) -> None:
        reads = Reads()
        reads.post("r")
        reads.side.send(b"x", "s")
        assert reads.sent() == [Opcode.READ_REQUEST, Opcode.SEND]

    @pytest.mark.rules("R-READ-4")
    @pytest.mark.parametrize("limit", [1, 2, 5])
    def test_the_read_limit_blocks_the_head_and_all_behind_it(self, limit: int) -> None:
        reads = Reads(limit)
        for number in range(limit + 1):
            reads.post(number)
        reads.side.send(b"x", "behind")
        assert reads.sent() == [Opcode.READ_REQUEST] * limit
        reads.answer()
        assert reads.sent() == [Opcode.READ_REQUEST, Opcode.SEND]
        for _ in range(limit):
            reads.answer()
        assert reads.side.finished()[0] == [(number, SUCCESS) for number in range(limit + 1)] + [("behind", SUCCESS)]

    @pytest.mark.rules("R-WR-14")
    def test_local_requests_take_their_turn(self) -> None:
        """R-WR-14: a send behind a fast register may use its token, one before it may not."""
        peer = raw()
        side = peer.side
        region = FastRegion(side.datapath.tokens, side.pd, "frmr")
        region.initialize(1, False)
        assert region.local is not None
        memory = Mdl(bytearray(b"fast"), address=0).byte_range(4)
        token = LocalToken(region.local.stag)
        sge = Sge(0x80000, 4, token)
        side.local(lambda: region.fast_register(0x80000, memory, Right.NONE), "register", deferred=True)
        side.send([sge], "send", deferred=True)
        side.local(region.invalidate, "invalidate", deferred=True)
        side.send([sge], "too late")
        before, terminate = sent(peer)
        assert before == untagged(Opcode.SEND, 1, b"fast")
        assert terminate[1] & 0x0F == Opcode.TERMINATE
        assert side.finished()[0] == [
            ("register", SUCCESS),
            ("send", SUCCESS),
            ("invalidate", SUCCESS),
            ("too late", Status.ACCESS_VIOLATION),
        ]

    def test_a_local_request_waits_for_the_message_before_it(self) -> None:
        """It runs between messages, after the octets of the one before have been taken from memory."""
        peer = raw(config=IwarpConfig(send_buffer=65600))
        side = peer.side
        ran: list[int] = []
        side.memory[:] = b"x" * len(side.memory)
        side.send([side.sge(0, 60_000), side.sge(0, 60_000)])
        side.local(lambda: ran.append(1), "local")
        side.core.data_to_send(peer.now)
        assert ran == []
        peer.pump()
        assert ran == [1]

    def test_an_invalidate_waits_for_reads_into_its_region(self) -> None:
        """4.6: otherwise the response would be refused."""
        pair = connected()
        side = pair.a
        region = FastRegion(side.datapath.tokens, side.pd, "frmr")
        region.initialize(1, False)
        memory = bytearray(8)
        region.fast_register(0x80000, Mdl(memory, address=0).byte_range(8), Right.LOCAL_WRITE)
        assert region.local is not None
        pair.b.memory[:8] = b"ABCDEFGH"
        token = LocalToken(region.local.stag)
        side.read([Sge(0x80000, 8, token)], pair.b.base, pair.b.stag, "read")
        side.local(region.invalidate, "invalidate", waits_for_reads=True)
        pair.drive()
        assert side.finished()[0] == [("read", SUCCESS), ("invalidate", SUCCESS)]
        assert memory == b"ABCDEFGH"
        assert not region.valid

    def test_a_bind_does_not_wait_for_reads(self) -> None:
        reads = Reads()
        window = Window(reads.side.datapath.tokens, reads.side.pd, "mw")
        reads.post("read")
        reads.side.local(
            lambda: window.bind(reads.side.region, reads.side.base, 8, Right.REMOTE_READ, reads.side.pair), "bind"
        )
        reads.sent()
        assert window.valid

    @pytest.mark.rules("A-6", "A-9", "R-COMP-6")
    @pytest.mark.parametrize("error", [AccessViolation("no"), InvalidState("no", Status.INVALID_DEVICE_REQUEST)])
    def test_a_local_request_that_fails_ends_the_connection(self, error: AccessViolation | InvalidState) -> None:
        """A-6, A-9, R-COMP-6."""
        peer = raw()
        side = peer.side

        def fail() -> None:
            raise error

        side.receive(0, 8, "r")
        side.send(b"before", "s1")
        side.local(fail, "local")
        side.send(b"behind", "s2")
        send, terminate = sent(peer)
        assert send == untagged(Opcode.SEND, 1, b"before")
        assert terminate[18:] == bytes(4)
        assert side.finished() == (
            [("s1", SUCCESS), ("local", error.status), ("s2", CANCELLED)],
            [("r", CANCELLED)],
        )
        assert side.is_in(State.TERMINATE)


class TestDeferred:
    """R-DEFER: a request may wait for the next one that is not deferred."""

    @pytest.mark.rules("R-DEFER-1")
    def test_nothing_starts_until_the_doorbell(self) -> None:
        """R-DEFER-1, -5."""
        peer = raw()
        side = peer.side
        side.send(b"1", 1, deferred=True)
        side.send(b"2", 2, deferred=True)
        assert sent(peer) == []
        side.send(b"3", 3)
        assert sent(peer) == [untagged(Opcode.SEND, number, b"%d" % number) for number in (1, 2, 3)]
        assert side.finished()[0] == [(1, SUCCESS), (2, SUCCESS), (3, SUCCESS)]

    def test_a_started_chain_does_not_start_the_next(self) -> None:
        peer = raw()
        side = peer.side
        side.send(b"1", 1)
        side.send(b"2", 2, deferred=True)
        assert opcodes(sent(peer)) == [Opcode.SEND]
        side.pair.release_deferred()
        assert opcodes(sent(peer)) == [Opcode.SEND]

    @pytest.mark.rules("R-DEFER-3")
    def test_the_documented_example(self) -> None:
        """R-DEFER-3, -6: the second fast register fails inline; the first one must run and complete."""
        side = Side("B", active=False, depth=1)
        peer = raw(side)
        ran: list[str] = []
        side.local(lambda: ran.append("first"), "first", kind=OperationType.FAST_REGISTER, deferred=True)
        with pytest.raises(QueueFull):
            side.local(lambda: ran.append("second"), "second", kind=OperationType.FAST_REGISTER, deferred=True)
        side.pair.release_deferred()
        peer.pump()
        assert ran == ["first"]
        results = side.initiator_results()
        assert [(result.type, result.request_context) for result in results] == [(OperationType.FAST_REGISTER, "first")]

    @pytest.mark.rules("R-DEFER-7")
    def test_a_full_queue_starts_what_is_in_it(self) -> None:
        """R-DEFER-7: nothing is stranded."""
        side = Side("B", active=False, depth=3)
        peer = raw(side)
        for number in range(3):
            side.send(b"x", number, deferred=True)
        assert len(sent(peer)) == 3

    @pytest.mark.rules("R-DEFER-7")
    def test_fences_and_limits_hold_all_the_same(self) -> None:
        """R-DEFER-7."""
        reads = Reads(1)
        side = reads.side
        side.read([side.sge(0, 4)], SOURCE, SINK, 1, deferred=True)
        side.read([side.sge(0, 4)], SOURCE, SINK, 2, deferred=True)
        side.send(b"x", 3, flags=FENCED)
        assert reads.sent() == [Opcode.READ_REQUEST]
        reads.answer()
        assert reads.sent() == [Opcode.READ_REQUEST]
        reads.answer()
        assert reads.sent() == [Opcode.SEND]

    def test_deferred_requests_are_flushed_like_others(self) -> None:
        peer = raw()
        side = peer.side
        side.send(b"x", "s", deferred=True)
        side.core.abort("flushed", peer.now)
        assert side.finished()[0] == [("s", CANCELLED)]
        side.send(b"x", "later", deferred=True)
        assert side.finished()[0] == [("later", CANCELLED)]

    def test_deferred_local_requests_run_with_the_chain(self) -> None:
        """The documented pattern: register and send its token in one chain."""
        pair = connected()
        side = pair.a
        region = FastRegion(side.datapath.tokens, side.pd, "frmr")
        region.initialize(1, True)
        memory = bytearray(8)
        pair.b.receive(0, 64, "r")
        side.local(
            lambda: region.fast_register(0x80000, Mdl(memory, address=0).byte_range(8), ALL_RIGHTS),
            "register",
            deferred=True,
        )
        assert region.remote is not None
        side.send(region.remote.stag.to_bytes(4, "big"), "send")
        pair.drive()
        stag = int.from_bytes(pair.b.memory[:4], "big")
        pair.b.write(b"ABCDEFGH", 0x80000, stag)
        pair.drive()
        assert memory == b"ABCDEFGH"


def test_requests_are_not_started_faster_than_octets_leave() -> None:
    """Framing ahead is bounded: a peer that does not read blocks only itself."""
    peer = raw(config=IwarpConfig(send_buffer=65600))
    side = peer.side
    for number in range(32):
        side.send(bytes(20_000), number)
    ready = sum(map(len, side.core.data_to_send(peer.now)))
    assert 65600 <= ready <= 2 * 65600
    assert len(side.pair.waiting) > 20
    peer.pump()
    assert [context for context, _ in side.finished()[0]] == list(range(32))
