"""The fields by which scenarios know frames are those that decoded frames have."""

import pytest

from softndk.peer.frames import FRAME_FIELDS, FRAME_NAMES, Seen, can_have, segment, startup
from softndk.wire.mpa import Enhanced, FrameKind, StartupFrame
from softndk.wire.rdmap import Opcode
from tests.pair.raw_peer import atomic_request, read_request, tagged, untagged

NOT_COMPARABLE = {"ready_to_receive"}
"""A list, which a scenario file cannot name."""


def of(ulpdu: bytes) -> Seen:
    return segment(ulpdu, sent=False, seconds=0.0)


def started(kind: FrameKind) -> Seen:
    frame = StartupFrame(kind, False, True, False, 2, Enhanced(1, 2, True, rtr_write=True), b"hi")
    return startup(frame, sent=False, seconds=0.0)


FRAMES = [
    started(FrameKind.REQUEST),
    started(FrameKind.REPLY),
    of(tagged(Opcode.WRITE, 1, 2, b"x")),
    of(read_request(1, 8, 0x77, 0x1000)),
    of(tagged(Opcode.READ_RESPONSE, 1, 2, b"x")),
    of(untagged(Opcode.SEND_INVALIDATE, 1, b"x")),
    of(untagged(Opcode.TERMINATE, 1, bytes.fromhex("11000000"))),
    of(untagged(Opcode.IMMEDIATE, 1, bytes(8))),
    of(atomic_request(1, 0x77, 0x1000)),
    of(untagged(Opcode.ATOMIC_RESPONSE, 1, bytes(12))),
    of(b"\x41"),
]


def test_each_frame_has_its_fields() -> None:
    assert {seen.frame for seen in FRAMES} == set(FRAME_NAMES) == set(FRAME_FIELDS)


@pytest.mark.parametrize("seen", FRAMES, ids=lambda seen: seen.frame)
def test_the_fields_are_those_of_a_decoded_frame(seen: Seen) -> None:
    length = set() if seen.frame.startswith("mpa_") or seen.frame == "unknown" else {"length"}
    assert set(FRAME_FIELDS[seen.frame]) == set(seen.details) - NOT_COMPARABLE | length


def test_a_wrong_side_may_send_a_write_with_the_fields_of_a_send() -> None:
    assert {"qn", "msn", "problem", "stag"} <= can_have("write")
    assert "msn" not in can_have("mpa_reply")
    assert can_have("any") == can_have("send") | can_have("mpa_request")
