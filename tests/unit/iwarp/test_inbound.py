"""What arrives and is in order: placement, delivery, invalidation, answers. What is not stands in the error table."""

from collections.abc import Callable, Sequence

import pytest

from softndk.config import IwarpConfig
from softndk.flags import CqNotify, OperationType
from softndk.iwarp.faults import Cause, ProtocolFault
from softndk.iwarp.inbound import Inbound
from softndk.iwarp.payload import gather, scatter
from softndk.iwarp.qp_state import State
from softndk.memory.access import AccessDenied
from softndk.memory.buffers import Mdl
from softndk.memory.regions import FastRegion, Window
from softndk.memory.sge import Sge
from softndk.memory.tokens import Right
from softndk.queues.work import ReceiveRequest
from softndk.results import Result
from softndk.status import Status
from softndk.wire.rdmap import Opcode
from tests.pair.core_pair import ALL_RIGHTS, CorePair, Side
from tests.pair.raw_peer import RawPeer, read_request, tagged, untagged

SUCCESS = Status.SUCCESS


def raw(side: Side | None = None, *, config: IwarpConfig | None = None) -> RawPeer:
    peer = RawPeer(side or Side("B", active=False, config=config))
    peer.establish()
    peer.received.clear()
    return peer


def outstanding(side: Side, peer: RawPeer, sgl: Sequence[Sge], context: object = "read") -> int:
    """Post a read; returns its sink STag as seen on the wire."""
    peer.received.clear()
    side.read(sgl, 0x9000, 0x5501, context)
    peer.pump()
    (request,) = peer.take()
    return int.from_bytes(request[18:22], "big")


class TestSend:
    def test_one_segment(self) -> None:
        peer = raw()
        peer.side.receive(100, 64, "r")
        peer.send(untagged(Opcode.SEND, 1, b"hello"))
        assert peer.side.receive_results() == [
            Result(
                type=OperationType.RECEIVE,
                status=SUCCESS,
                bytes_transferred=5,
                qp_context="B",
                request_context="r",
                provider_error_code=0,
                invalidated_token=None,
            )
        ]
        assert peer.side.memory[100:106] == b"hello\0"

    def test_several_segments_complete_with_the_last(self) -> None:
        peer = raw()
        peer.side.receive(0, 64, "r")
        peer.send(untagged(Opcode.SEND, 1, b"abc", last=False))
        peer.send(untagged(Opcode.SEND, 1, b"", mo=3, last=False))
        peer.send(untagged(Opcode.SEND, 1, b"def", mo=3, last=False))
        assert peer.side.receive_results() == []
        peer.send(untagged(Opcode.SEND, 1, b"", mo=6))
        (result,) = peer.side.receive_results()
        assert result.bytes_transferred == 6
        assert peer.side.memory[:6] == b"abcdef"

    def test_one_message_of_several_segments_after_another(self) -> None:
        peer = raw()
        for number in range(3):
            peer.side.receive(64 * number, 64, number)
        for msn in (1, 2, 3):
            peer.send(untagged(Opcode.SEND, msn, b"head%d" % msn, last=False))
            assert peer.side.is_in(State.RTS)
            peer.send(untagged(Opcode.SEND, msn, b"tail", mo=5))
        assert peer.side.finished()[1] == [(number, SUCCESS) for number in range(3)]
        assert [bytes(peer.side.memory[at : at + 9]) for at in (0, 64, 128)] == [
            b"head1tail",
            b"head2tail",
            b"head3tail",
        ]

    @pytest.mark.rules("R-RECV-1")
    def test_each_message_takes_the_oldest_receive(self) -> None:
        """R-RECV-1; zero length takes one too."""
        peer = raw()
        for number in range(3):
            peer.side.receive(64 * number, 64, number)
        peer.send(untagged(Opcode.SEND, 1, b"x" * 64), untagged(Opcode.SEND, 2), untagged(Opcode.SEND, 3, b"z"))
        results = peer.side.receive_results()
        assert [(result.request_context, result.bytes_transferred) for result in results] == [(0, 64), (1, 0), (2, 1)]

    def test_a_receive_of_several_pieces(self) -> None:
        peer = raw()
        side = peer.side
        sgl = [side.sge(0, 3), side.sge(500, 0), side.sge(10, 1), side.sge(20, 60)]
        side.pair.post_receive(ReceiveRequest(sgl, "r"))
        peer.send(untagged(Opcode.SEND, 1, b"ab", last=False), untagged(Opcode.SEND, 1, b"cdefgh", mo=2))
        assert side.memory[:3] + side.memory[10:11] + side.memory[20:24] == b"abcdefgh"

    @pytest.mark.rules("R-WR-5")
    def test_an_empty_message_needs_no_memory(self) -> None:
        """R-WR-5: nothing is placed, so nothing is checked."""
        peer = raw()
        peer.side.pair.post_receive(ReceiveRequest([], "none"))
        peer.side.pair.post_receive(ReceiveRequest([peer.side.sge(1 << 30, 8)], "bad"))
        peer.send(untagged(Opcode.SEND, 1), untagged(Opcode.SEND, 2))
        assert peer.side.finished()[1] == [("none", SUCCESS), ("bad", SUCCESS)]

    def test_nothing_of_a_segment_is_placed_when_one_piece_is_bad(self) -> None:
        peer = raw()
        side = peer.side
        side.pair.post_receive(ReceiveRequest([side.sge(0, 3), side.sge(1 << 30, 8)], "r"))
        peer.send(untagged(Opcode.SEND, 1, b"abcdef"))
        assert side.finished()[1] == [("r", Status.ACCESS_VIOLATION)]
        assert side.memory[:3] == bytes(3)

    @pytest.mark.rules("R-SEND-2", "R-ARM-8", "R-ARM-10")
    @pytest.mark.parametrize(
        ("opcode", "fires"),
        [
            (Opcode.SEND, False),
            (Opcode.SEND_SE, True),
            (Opcode.SEND_INVALIDATE, False),
            (Opcode.SEND_SE_INVALIDATE, True),
        ],
    )
    def test_solicited_event(self, opcode: Opcode, fires: bool) -> None:
        """R-SEND-2, R-ARM-8, R-ARM-10."""
        peer = raw()
        side = peer.side
        window = Window(side.datapath.tokens, side.pd, "mw")
        window.bind(side.region, side.base, 8, Right.REMOTE_READ, side.pair)
        side.receive(0, 64, "r")
        side.receive_ring.arm(CqNotify.SOLICITED)
        peer.send(untagged(opcode, 1, b"x", stag=window.token.stag))
        assert side.fired == ([("receive", SUCCESS)] if fires else [])
        assert len(side.receive_results()) == 1

    def test_message_numbers_wrap(self) -> None:
        """After 0xffffffff comes 0 (RFC 5041 5.3)."""
        side = Side("B", active=False)
        inbound = Inbound(side.pair, side.access, read_limit=4)
        inbound._send_msn = inbound._request_msn = 0xFFFFFFFF
        side.receive(0, 8, 1)
        side.receive(0, 8, 2)
        for msn in (0xFFFFFFFF, 0):
            assert inbound.handle(memoryview(untagged(Opcode.SEND, msn, b"x")))
            assert inbound.handle(memoryview(read_request(msn, 1, side.stag, side.base)))
        assert side.finished()[1] == [(1, SUCCESS), (2, SUCCESS)]
        assert len(inbound.responses) == 2


class TestInvalidate:
    """R-SENDINV, R-INVAL, R-RESX-3."""

    def window(self, side: Side) -> Window:
        window = Window(side.datapath.tokens, side.pd, "mw")
        window.bind(side.region, side.base, 256, ALL_RIGHTS, side.pair)
        return window

    def fast_region(self, side: Side) -> FastRegion:
        region = FastRegion(side.datapath.tokens, side.pd, "frmr")
        region.initialize(1, True)
        region.fast_register(0x80000, Mdl(bytearray(256), address=0).byte_range(256), Right.REMOTE_READ)
        return region

    @pytest.mark.rules("R-RESX-3", "R-INVAL-2")
    @pytest.mark.parametrize("make", [window, fast_region])
    @pytest.mark.parametrize("opcode", [Opcode.SEND_INVALIDATE, Opcode.SEND_SE_INVALIDATE])
    def test_the_token_is_dead_before_the_completion_is_there(
        self, make: Callable[["TestInvalidate", Side], Window | FastRegion], opcode: Opcode
    ) -> None:
        peer = raw()
        side = peer.side
        target = make(self, side)
        token = target.token if isinstance(target, Window) else target.remote
        assert token is not None
        seen: list[bool] = []
        side.receive_ring._placed = lambda: seen.append(target.valid)
        side.receive(0, 64, "r")
        peer.send(untagged(opcode, 1, b"done", stag=token.stag))
        assert seen == [False]
        (result,) = side.receive_results()
        assert result.type is OperationType.RECEIVE_AND_INVALIDATE
        assert result.is_receive
        assert result.invalidated_token == token.stag
        assert result.bytes_transferred == 4
        assert side.memory[:4] == b"done"
        peer.send(tagged(Opcode.WRITE, token.stag, side.base, b"late"))
        assert side.is_in(State.TERMINATE)

    def test_only_the_last_segment_invalidates(self) -> None:
        peer = raw()
        side = peer.side
        window = self.window(side)
        side.receive(0, 64, "r")
        stag = window.token.stag
        peer.send(untagged(Opcode.SEND_INVALIDATE, 1, b"head", stag=stag, last=False))
        assert window.valid
        peer.send(tagged(Opcode.WRITE, stag, side.base + 100, b"still"))
        peer.send(untagged(Opcode.SEND_INVALIDATE, 1, b"tail", mo=4, stag=stag))
        assert not window.valid
        assert side.memory[100:105] == b"still"
        assert side.receive_results()[0].invalidated_token == stag

    @pytest.mark.rules("R-INVAL-3")
    def test_the_region_itself_stays_registered(self) -> None:
        """R-INVAL-3."""
        peer = raw()
        side = peer.side
        window = self.window(side)
        side.receive(0, 64, "r")
        peer.send(untagged(Opcode.SEND_INVALIDATE, 1, stag=window.token.stag))
        peer.send(tagged(Opcode.WRITE, side.stag, side.base, b"ok"))
        assert side.memory[:2] == b"ok"
        assert side.region.windows == 0


class TestWrite:
    @pytest.mark.parametrize("last", [True, False])
    def test_each_segment_is_complete_in_itself(self, last: bool) -> None:
        peer = raw()
        side = peer.side
        peer.send(
            tagged(Opcode.WRITE, side.stag, side.base + 10, b"first", last=False),
            tagged(Opcode.WRITE, side.stag, side.base + 4, b"second", last=last),
        )
        assert side.memory[4:15] == b"secondfirst"[:6] + b"first"
        assert side.finished() == ([], [])

    def test_whole_region_and_its_last_octet(self) -> None:
        side = Side("B", active=False, size=1000)
        peer = raw(side)
        peer.send(tagged(Opcode.WRITE, side.stag, side.base, b"a" * 1000))
        peer.send(tagged(Opcode.WRITE, side.stag, side.base + 999, b"b"))
        assert side.memory == b"a" * 999 + b"b"

    def test_a_region_at_the_top_of_the_addresses(self) -> None:
        side = Side("B", active=False, size=1024, base=(1 << 64) - 1024)
        peer = raw(side)
        peer.send(tagged(Opcode.WRITE, side.stag, (1 << 64) - 4, b"last"))
        assert side.memory[-4:] == b"last"

    def test_through_a_window(self) -> None:
        peer = raw()
        side = peer.side
        window = Window(side.datapath.tokens, side.pd, "mw")
        window.bind(side.region, side.base + 100, 8, Right.REMOTE_WRITE, side.pair)
        peer.send(tagged(Opcode.WRITE, window.token.stag, side.base + 100, b"ABCDEFGH"))
        assert side.memory[99:109] == b"\0ABCDEFGH\0"

    def test_into_a_chain_of_buffers(self) -> None:
        side = Side("B", active=False)
        first, second = bytearray(10), bytearray(10)
        region = FastRegion(side.datapath.tokens, side.pd, "frmr")
        region.initialize(1, True)
        region.fast_register(0x80000, Mdl([first, second], address=0).byte_range(20), ALL_RIGHTS)
        assert region.remote is not None
        raw(side).send(tagged(Opcode.WRITE, region.remote.stag, 0x80008, b"abcd"))
        assert (bytes(first), bytes(second)) == (bytes(8) + b"ab", b"cd" + bytes(8))

    def test_between_the_segments_of_a_send(self) -> None:
        """Tagged and untagged messages may interleave."""
        peer = raw()
        side = peer.side
        side.receive(0, 64, "r")
        peer.send(
            untagged(Opcode.SEND, 1, b"abc", last=False),
            tagged(Opcode.WRITE, side.stag, side.base + 100, b"write"),
            untagged(Opcode.SEND, 1, b"def", mo=3),
        )
        assert side.memory[:6] == b"abcdef"
        assert side.memory[100:105] == b"write"


class TestReadResponse:
    @pytest.mark.rules("R-SINK-6")
    def test_into_several_pieces_in_several_segments(self) -> None:
        """R-SINK-6."""
        peer = raw()
        side = peer.side
        sink = outstanding(side, peer, [side.sge(0, 3), side.sge(100, 0), side.sge(50, 5)])
        peer.send(tagged(Opcode.READ_RESPONSE, sink, 0, b"ab", last=False))
        peer.send(tagged(Opcode.READ_RESPONSE, sink, 2, b"", last=False))
        assert side.finished()[0] == []
        peer.send(tagged(Opcode.READ_RESPONSE, sink, 2, b"cdefgh"))
        assert side.finished()[0] == [("read", SUCCESS)]
        assert side.memory[:3] + side.memory[50:55] == b"abcdefgh"

    def test_a_zero_length_response_may_name_anything(self) -> None:
        peer = raw()
        outstanding(peer.side, peer, [])
        peer.send(tagged(Opcode.READ_RESPONSE, 0x77777777, 0x1234))
        assert peer.side.finished()[0] == [("read", SUCCESS)]

    @pytest.mark.rules("R-SINK-6")
    def test_the_sink_token_is_private_and_new_for_each_read(self) -> None:
        peer = raw()
        side = peer.side
        sinks = {outstanding(side, peer, [side.sge(0, 8)], number) for number in range(8)}
        assert len(sinks) == 8
        assert not sinks & {0, side.stag, side.local_token}
        assert all(side.datapath.tokens.find(sink) is None for sink in sinks)

    def test_responses_come_in_the_order_of_the_requests(self) -> None:
        peer = raw()
        side = peer.side
        first = outstanding(side, peer, [side.sge(0, 4)], "first")
        second = outstanding(side, peer, [side.sge(4, 4)], "second")
        peer.send(tagged(Opcode.READ_RESPONSE, first, 0, b"1111"), tagged(Opcode.READ_RESPONSE, second, 0, b"2222"))
        assert side.finished()[0] == [("first", SUCCESS), ("second", SUCCESS)]
        assert side.memory[:8] == b"11112222"

    @pytest.mark.rules("R-READ-5")
    def test_the_local_invalidation_precedes_the_completion(self) -> None:
        """R-READ-5."""
        pair = CorePair(Side("A", active=True), Side("B", active=False, base=0x900000))
        pair.connect()
        done: list[int] = []
        pair.a.read(
            [pair.a.sge(0, 8)],
            pair.b.base,
            pair.b.stag,
            "read",
            on_success=lambda: done.append(len(pair.a.initiator_ring)),
        )
        pair.drive()
        assert done == [0]
        assert pair.a.finished()[0] == [("read", SUCCESS)]

    @pytest.mark.rules("R-WR-15")
    def test_a_sink_without_local_write_is_refused_before_anything_is_asked(self) -> None:
        """R-WR-15."""
        peer = raw(Side("B", active=False, rights=Right.REMOTE_WRITE))
        side = peer.side
        side.read([side.sge(0, 8)], 0x9000, 0x5501, "read")
        peer.pump()
        (terminate,) = peer.take()
        assert terminate[18:20] == bytes(2)
        assert side.finished()[0] == [("read", Status.ACCESS_VIOLATION)]

    @pytest.mark.rules("R-SINK-2")
    def test_the_sink_needs_no_remote_right(self) -> None:
        """R-SINK-2, -6."""
        peer = raw(Side("B", active=False, rights=Right.LOCAL_WRITE))
        side = peer.side
        sink = outstanding(side, peer, [side.sge(0, 4)])
        peer.send(tagged(Opcode.READ_RESPONSE, sink, 0, b"data"))
        assert side.memory[:4] == b"data"


class TestReadRequest:
    def test_answered_at_the_peers_sink(self) -> None:
        peer = raw()
        side = peer.side
        side.memory[100:108] = b"ABCDEFGH"
        peer.send(read_request(1, 8, side.stag, side.base + 100, sink_stag=0xCAFE))
        assert peer.take() == [tagged(Opcode.READ_RESPONSE, 0xCAFE, 0x2000, b"ABCDEFGH")]

    def test_answers_keep_the_order(self) -> None:
        peer = raw()
        side = peer.side
        side.memory[:4] = b"abcd"
        peer.send(*(read_request(number + 1, 1, side.stag, side.base + number) for number in range(4)))
        assert [ulpdu[14:] for ulpdu in peer.take()] == [b"a", b"b", b"c", b"d"]

    def test_a_read_sees_earlier_writes(self) -> None:
        """4.5, rule 6."""
        peer = raw()
        side = peer.side
        peer.send(tagged(Opcode.WRITE, side.stag, side.base, b"new!"), read_request(1, 4, side.stag, side.base))
        assert peer.take()[0][14:] == b"new!"

    def test_a_limit_that_is_reached_and_drained_again(self) -> None:
        peer = raw(Side("B", active=False, ird=2))
        side = peer.side
        for msn in range(1, 9, 2):
            peer.send(read_request(msn, 4, side.stag, side.base), read_request(msn + 1, 4, side.stag, side.base))
        assert len(peer.take()) == 8
        assert side.core.is_up

    def test_a_large_read_is_served_in_pieces(self) -> None:
        side = Side("B", active=False, size=1 << 20)
        peer = raw(side)
        side.core.receive_data(memoryview(peer.frame(read_request(1, 1 << 20, side.stag, side.base))), peer.now)
        ready = sum(map(len, side.core.data_to_send(peer.now)))
        assert ready < 1 << 19
        peer.pump()
        assert sum(len(ulpdu) - 14 for ulpdu in peer.take()) == 1 << 20


def test_remote_read_alone_makes_a_region_readable() -> None:
    side = Side("B", active=False)
    spare = side.register(bytearray(b"secret"), 0x70000, Right.REMOTE_READ)
    assert spare.remote is not None
    peer = raw(side)
    peer.send(read_request(1, 6, spare.remote.stag, 0x70000))
    assert peer.take()[0][14:] == b"secret"


def test_a_fault_carries_no_payload() -> None:
    """Terminate messages echo headers only (RFC 5042)."""
    side = Side("B", active=False)
    inbound = Inbound(side.pair, side.access, read_limit=4)
    with pytest.raises(ProtocolFault) as caught:
        inbound.handle(memoryview(tagged(Opcode.WRITE, 0xDEADBE01, 0, b"S" * 200)))
    assert caught.value.cause is Cause.WRITE_INVALID_STAG
    assert caught.value.length == 214
    assert len(caught.value.ulpdu) <= 46


def test_scatter_and_gather_refuse_as_a_whole() -> None:
    side = Side("B", active=False)
    sgl = (side.sge(0, 4), side.sge(1 << 30, 4))
    with pytest.raises(AccessDenied):
        scatter(side.access, sgl, 0, memoryview(b"12345678"))
    assert side.memory[:4] == bytes(4)
    with pytest.raises(AccessDenied):
        gather(side.access, sgl, 0, 8)
    scatter(side.access, sgl, 0, memoryview(b"1234"))
    assert [bytes(piece) for piece in gather(side.access, sgl, 1, 3)] == [b"234"]


def test_what_was_held_back_is_not_counted_twice() -> None:
    side = Side("B", active=False)
    inbound = Inbound(side.pair, side.access, read_limit=4)
    message = memoryview(untagged(Opcode.SEND, 1, b"x"))
    assert not inbound.handle(message, hold=True)
    assert inbound.segments == 0
    side.receive(0, 8, "r")
    assert inbound.handle(message, hold=True)
    assert inbound.segments == 1
