"""Recordings of the Linux driver played into our core in the place of either end, in the recorded pieces and in others.

tshark says what each end was told; the core must be told the same, get the same octets, and send what the replaced end
sent, octet for octet but for the sinks of its reads.
"""

from functools import cache
from pathlib import Path

import pytest

from softndk.iwarp import events
from softndk.wire.mpa import Enhanced, StartupFrame
from tests.judges.replay import (
    READ_REQUEST,
    READ_RESPONSE,
    SEND,
    SEND_INVALIDATE,
    TERMINATE,
    WRITE,
    Fpdu,
    Recording,
    Replay,
    random_sizes,
    recordings,
    split_fpdus,
    told_by_tshark,
)

pytestmark = pytest.mark.judge

DATA = Path(__file__).parents[1] / "data"
CAPTURES = {  # name: its connections
    "siw_rping_plain": 1,
    "siw_rping_big_plain": 1,
    "siw_rping_big_crc_p2p": 1,
    "siw_nvme_plain": 3,
    "siw_nvme_crc_p2p": 3,
    "siw_terminate_read_bounds_crc_p2p": 1,
}
SEEDS = (1, 2, 3)

each_end = pytest.mark.parametrize("as_initiator", [True, False], ids=["as initiator", "as responder"])
each_connection = pytest.mark.parametrize(
    ("name", "number"), [(name, number) for name, count in CAPTURES.items() for number in range(count)]
)


@cache
def connections(name: str) -> list[Recording]:
    return recordings(DATA / f"{name}.pcap")


@cache
def replay(name: str, number: int, *, as_initiator: bool, seed: int = 0) -> Replay:
    played = Replay(connections(name)[number], as_initiator=as_initiator, split=random_sizes(seed) if seed else None)
    played.run()
    return played


def test_every_capture_is_played() -> None:
    assert {path.stem for path in DATA.glob("siw_*.pcap")} == set(CAPTURES)
    assert {name: len(connections(name)) for name in CAPTURES} == CAPTURES


@each_connection
@each_end
def test_the_core_is_told_what_tshark_sees(name: str, number: int, as_initiator: bool) -> None:
    played = replay(name, number, as_initiator=as_initiator)
    expected = told_by_tshark(played.recording, by_initiator=not as_initiator)
    assert played.told == expected
    assert expected
    assert played.failures() == []


@each_connection
@each_end
@pytest.mark.parametrize("seed", SEEDS)
def test_in_any_pieces(name: str, number: int, as_initiator: bool, seed: int) -> None:
    whole = replay(name, number, as_initiator=as_initiator)
    pieces = replay(name, number, as_initiator=as_initiator, seed=seed)
    assert pieces.told == whole.told
    assert pieces.received == whole.received
    assert pieces.read == whole.read
    assert pieces.memory.written == whole.memory.written
    assert pieces.sent == whole.sent


@each_connection
@each_end
def test_every_octet_is_where_it_belongs(name: str, number: int, as_initiator: bool) -> None:
    played = replay(name, number, as_initiator=as_initiator)
    theirs = played.recording.end(not as_initiator).fpdus
    assert played.received == messages(theirs, SEND, SEND_INVALIDATE)
    assert played.memory.written == [fpdu.payload for fpdu in theirs if fpdu.opcode == WRITE and fpdu.payload]
    assert b"".join(played.read) == b"".join(messages(theirs, READ_RESPONSE))


@each_connection
@each_end
def test_the_core_sends_what_the_kernel_sent(name: str, number: int, as_initiator: bool) -> None:
    """Answers to reads may come elsewhere between the other messages: there is no order between the two."""
    played = replay(name, number, as_initiator=as_initiator)
    kernels = played.recording.end(as_initiator).fpdus
    ours = split_fpdus(played.sent)
    recorded = [fpdu for fpdu in kernels if fpdu.opcode != TERMINATE]  # its sink was too small, ours is not
    assert answers(ours) == answers(recorded)
    assert others(ours) == others(recorded)


@each_connection
@each_end
def test_the_start_up_is_the_kernels(name: str, number: int, as_initiator: bool) -> None:
    played = replay(name, number, as_initiator=as_initiator)
    kernels = StartupFrame.parse(played.recording.end(as_initiator).startup)
    ours = StartupFrame.parse(played.sent[: len(played.recording.end(as_initiator).startup)])
    assert ours.enhanced is not None
    assert kernels.enhanced is not None
    if not as_initiator and kernels.enhanced.peer_to_peer:  # the kernel takes a Write only, we a Read as well
        assert not kernels.enhanced.rtr_read
        ours = replaced(ours, ours.enhanced)
    assert ours == kernels


@each_connection
@each_end
def test_it_ends_as_it_did(name: str, number: int, as_initiator: bool) -> None:
    played = replay(name, number, as_initiator=as_initiator)
    if name.startswith("siw_terminate") and as_initiator:
        (aborted,) = played.ends
        assert isinstance(aborted, events.Aborted)
        return
    *first, last = played.ends
    assert isinstance(last, events.Disconnected)
    assert last.error is None
    initiator_was_first = next(is_initiator for is_initiator, octets in played.recording.packets if octets is None)
    peer_was_first = initiator_was_first is not as_initiator
    assert [type(event) for event in first] == [events.PeerDisconnected] * peer_was_first


def messages(fpdus: list[Fpdu], *opcodes: int) -> list[bytes]:
    """The payloads of these messages."""
    found, open_message = [], b""
    for fpdu in fpdus:
        if fpdu.opcode in opcodes:
            open_message += fpdu.payload
            if fpdu.is_last:
                found.append(open_message)
                open_message = b""
    return found


def answers(fpdus: list[Fpdu]) -> list[bytes]:
    return [fpdu.ulpdu for fpdu in fpdus if fpdu.opcode == READ_RESPONSE]


def others(fpdus: list[Fpdu]) -> list[bytes]:
    """All but the answers; of Read Requests the sink's offset is left out, which is private here."""
    found = []
    for fpdu in fpdus:
        if fpdu.opcode == READ_REQUEST:
            found.append(fpdu.ulpdu[:22] + bytes(8) + fpdu.ulpdu[30:])
        elif fpdu.opcode != READ_RESPONSE:
            found.append(fpdu.ulpdu)
    return found


def replaced(frame: StartupFrame, enhanced: Enhanced) -> StartupFrame:
    other = Enhanced(enhanced.ird, enhanced.ord, enhanced.peer_to_peer, enhanced.rtr_send, enhanced.rtr_write, False)
    return StartupFrame(frame.kind, frame.markers, frame.crc, frame.reject, frame.revision, other, frame.private_data)
