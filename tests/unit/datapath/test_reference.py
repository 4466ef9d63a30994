"""The reference stream by itself: bounds, faults in the middle of a batch, what it tells about its state."""

import pytest

from softndk.errors import InvalidState
from softndk.iwarp.faults import Cause, ProtocolFault
from softndk.iwarp.stream import Stream, StreamParameters
from softndk.status import Status
from softndk.wire.rdmap import Opcode
from softndk.wire.terminate import Terminate
from tests.pair.core_pair import Side, split
from tests.pair.raw_peer import read_request, tagged, untagged
from tests.vectors.fpdu_model import stream


def opened(*, fenced: bool = False, markers: bool = False, mulpdu: int = 1000) -> tuple[Side, Stream]:
    side = Side("B", active=False)
    parameters = StreamParameters(
        crc=True, send_markers=markers, receive_markers=False, mulpdu=mulpdu, inbound_read_limit=4, fenced=fenced
    )
    side.pair.outbound_read_limit = 4
    return side, side.open_stream(parameters)


def give(target: Stream, *ulpdus: bytes, hold: bool = False) -> None:
    target.consume(memoryview(stream(ulpdus, crc=True, markers=False)), hold=hold)


def produced(target: Stream, limit: int = 1 << 20) -> bytes:
    return b"".join(target.produce(limit))


def test_it_stops_at_the_limit_behind_a_whole_frame() -> None:
    side, target = opened()
    side.send(bytes(10_000))
    frame = 1008  # length field, 1000 octets, 2 of padding, CRC
    assert len(produced(target, 3000)) == 3 * frame
    assert len(produced(target, 3 * frame)) == 3 * frame
    assert len(produced(target, 1)) == frame
    assert produced(target, 0) == b""


def test_a_fault_behind_good_frames_waits_for_its_turn() -> None:
    """What has been made goes out, with markers too: the Terminate's own markers stand where the peer counts them."""
    side, target = opened(markers=True)
    side.send(b"x" * 600)
    side.send([side.sge(1 << 30, 1)])
    first = produced(target)
    with pytest.raises(ProtocolFault) as caught:
        target.produce(1 << 20)
    assert caught.value.cause is Cause.LOCAL_ERROR
    terminate = bytes(target.terminate(Terminate(0, 0, 0)))
    send, last = split(first + terminate, crc=True, markers=True)
    assert send == untagged(Opcode.SEND, 1, b"x" * 600)
    assert last == untagged(Opcode.TERMINATE, 1, bytes(4))


def test_it_is_not_quiet_while_a_fault_waits_for_its_turn() -> None:
    """Or a disconnect would send its FIN, and the fault would never be told."""
    side, target = opened()

    def refuse() -> None:
        raise InvalidState("already invalid", Status.INVALID_DEVICE_REQUEST)

    side.send(b"x" * 600)
    side.local(refuse)
    target.transmitted(len(produced(target)))
    assert not target.quiet
    with pytest.raises(ProtocolFault, match="already invalid"):
        target.produce(1 << 20)


def test_a_fault_at_once_is_raised_at_once() -> None:
    side, target = opened()
    side.send([side.sge(1 << 30, 1)])
    with pytest.raises(ProtocolFault):
        target.produce(1 << 20)


def test_after_a_terminate_nothing_is_made() -> None:
    side, target = opened()
    side.send(b"x")
    target.terminate(Terminate(0, 0, 0))
    assert produced(target) == b""
    assert target.frames_out == 1


def test_stop() -> None:
    side, target = opened()
    side.send(bytes(5000))
    produced(target, 1)
    target.stop()
    assert produced(target) == b""
    target.transmitted(1000)
    assert side.finished() == ([], [])


def test_fenced_until_the_first_fpdu() -> None:
    side, target = opened(fenced=True)
    side.send(b"x")
    assert produced(target) == b""
    give(target, tagged(Opcode.WRITE, 1, 0))
    assert produced(target) != b""


def test_a_fpdu_that_is_held_back_lifts_the_fence() -> None:
    side, target = opened(fenced=True)
    side.send(b"x")
    give(target, untagged(Opcode.SEND, 1), hold=True)
    assert target.held
    assert produced(target) != b""


def test_held_back_and_resumed() -> None:
    side, target = opened()
    give(target, untagged(Opcode.SEND, 1, b"one"), untagged(Opcode.SEND, 2, b"two"), hold=True)
    target.resume(hold=True)
    assert target.held
    side.receive(0, 8, 1)
    target.resume(hold=True)
    assert target.held
    side.receive(8, 8, 2)
    target.resume(hold=True)
    assert not target.held
    target.resume(hold=True)
    assert [context for context, _ in side.finished()[1]] == [1, 2]


def test_more_octets_while_held_are_kept() -> None:
    side, target = opened()
    octets = stream([untagged(Opcode.SEND, 1, b"one"), untagged(Opcode.SEND, 2, b"two")], crc=True, markers=False)
    target.consume(memoryview(octets[:28]), hold=True)
    target.consume(memoryview(octets[28:]), hold=True)
    side.receive(0, 8, 1)
    side.receive(8, 8, 2)
    target.resume(hold=True)
    assert side.memory[:11] == b"one\0\0\0\0\0two"


def test_when_the_hold_ends_it_is_a_fault() -> None:
    _, target = opened()
    give(target, untagged(Opcode.SEND, 1, b"one"), hold=True)
    with pytest.raises(ProtocolFault) as caught:
        target.resume(hold=False)
    assert caught.value.cause is Cause.NO_RECEIVE


def test_inside() -> None:
    side, target = opened()
    octets = stream([untagged(Opcode.SEND, 1, b"half", last=False)], crc=True, markers=False)
    side.receive(0, 8)
    target.consume(memoryview(octets[:9]), hold=False)
    assert target.inside_fpdu
    assert not target.inside_message
    target.consume(memoryview(octets[9:]), hold=False)
    assert not target.inside_fpdu
    assert target.inside_message


def test_quiet() -> None:
    """Nothing under way: no request unfinished, no read to answer, every octet taken."""
    side, target = opened()
    assert target.quiet
    side.write(b"x", 0, 1)
    assert not target.quiet
    octets = produced(target)
    assert not target.quiet
    target.transmitted(len(octets) - 1)
    assert not target.quiet
    target.transmitted(1)
    assert target.quiet
    give(target, read_request(1, 4, side.stag, side.base))
    assert not target.quiet
    target.transmitted(len(produced(target)))
    assert target.quiet


def test_the_read_that_a_sink_belongs_to() -> None:
    side, target = opened()
    request = side.read([side.sge(0, 4)], 0, 1)
    sink = int.from_bytes(split(produced(target), crc=True, markers=False)[0][18:22], "big")
    assert target.read_of(sink) is request
    assert target.read_of(sink ^ 1) is None


def test_after_the_fin_reads_are_refused() -> None:
    side, target = opened()
    target.refuse_reads = True
    assert target.refuse_reads
    with pytest.raises(ProtocolFault) as caught:
        give(target, read_request(1, 0, 0, 0))
    assert caught.value.cause is Cause.LOCAL_ERROR
    assert side.core.traffic == (0, 0, 0, 0)


@pytest.mark.parametrize("read", [True, False])
def test_indication(read: bool) -> None:
    _, target = opened()
    (ulpdu,) = split(bytes(target.ready_indication(read=read)), crc=True, markers=False)
    assert ulpdu[1] & 0x0F == (Opcode.READ_REQUEST if read else Opcode.WRITE)
    assert target.frames_out == 1


@pytest.mark.parametrize("octets", ["20060000", "02060000"])
@pytest.mark.parametrize("held", [False, True])
def test_a_terminate_that_can_be_read_both_ways_is_about_what_was_sent(octets: str, held: bool) -> None:
    """Before an FPDU of ours it is about the start-up (RFC 6581 9), then never: 2/0/6, 0/2/6, in either order of nibbles."""
    for sent, meant in ((False, (2, 0, 6)), (True, (0, 2, 6))):
        side, target = opened()
        if sent:
            side.send(b"x")
            produced(target)
        terminate = untagged(Opcode.TERMINATE, 1, bytes.fromhex(octets))
        if held:
            give(target, untagged(Opcode.SEND, 1, b"waits"), hold=True)
            assert target.held
            octets_behind = stream([terminate], crc=True, markers=False)
            message = target.seek_terminate(memoryview(octets_behind))
        else:
            give(target, terminate)
            message = target.peer_terminate
        assert message is not None
        assert (message.layer, message.etype, message.code) == meant
