"""A peer that leaves our first FPDU unread until more comes, as Linux's siw may: zero-length RDMA Writes follow it.

RFC 5040 5.1 and RFC 5041 5.2 allow such a Write between any two messages, and it is checked against no memory.
"""

import pytest

from softndk.config import IwarpConfig
from softndk.status import Status
from softndk.wire.rdmap import Opcode
from tests.pair.core_pair import CorePair, Side

WRITE = 0x40 | Opcode.WRITE
SEND = 0x40 | Opcode.SEND
EMPTY_WRITE = 14
"""Octets of a tagged ULPDU without payload."""
NUDGE_S = 0.5


def connected(*, peer_to_peer: bool = True, nudge_s: float = NUDGE_S) -> CorePair:
    config = IwarpConfig(peer_to_peer=peer_to_peer, nudge_s=nudge_s)
    pair = CorePair(Side("A", active=True, config=config), Side("B", active=False, config=config))
    pair.connect()
    return pair


def sent(pair: CorePair) -> list[tuple[int, int]]:
    """(RDMAP control octet, ULPDU length) of all that the active side has sent."""
    return [(ulpdu[1], len(ulpdu)) for ulpdu in pair.a_to_b.ulpdus()]


def test_a_silent_peer_is_nudged_four_times_each_after_twice_the_time() -> None:
    pair = connected()
    before = bytes(pair.b.memory)
    assert sent(pair) == [(WRITE, EMPTY_WRITE)]  # the ready-to-receive indication
    for number in range(4):
        pair.advance(NUDGE_S * 2**number - 0.01)
        assert len(sent(pair)) == 1 + number
        pair.advance(0.01)
        assert sent(pair) == [(WRITE, EMPTY_WRITE)] * (2 + number)
    pair.advance(1000)
    assert len(sent(pair)) == 5
    assert pair.a.core.next_timeout() is None
    for side in (pair.a, pair.b):
        assert side.take_events() == []
        assert side.finished() == ([], [])
    assert pair.b.memory == before


def test_a_peer_that_speaks_after_the_first_is_not_nudged_again() -> None:
    pair = connected()
    pair.a.receive(0, 64)
    pair.advance(NUDGE_S)
    assert len(sent(pair)) == 2
    pair.b.send(b"awake")
    pair.drive()
    pair.advance(1000)
    assert len(sent(pair)) == 2


def test_a_peer_that_overlooks_the_first_too_is_woken_by_the_second() -> None:
    """It was not yet ready to look when the first came."""
    pair = connected(peer_to_peer=False)
    pair.b.receive(0, 64, "r")
    pair.a.send(b"hello", "s")
    kept: list[bytes] = []

    def overlook(octets: bytes) -> bytes:
        kept.append(octets)
        return b"" if len(kept) < 3 else b"".join(kept)

    pair.a_to_b.alter = overlook
    pair.drive()
    pair.advance(NUDGE_S)
    assert pair.b.finished()[1] == []
    pair.advance(2 * NUDGE_S)
    assert pair.b.finished()[1] == [("r", Status.SUCCESS)]


def test_a_first_message_that_is_overlooked_arrives_by_it() -> None:
    """What siw does, played by the wire: nothing is delivered until a second piece has come."""
    pair = connected(peer_to_peer=False)
    pair.b.receive(0, 64, "r")
    pair.a.send(b"hello", "s")
    kept: list[bytes] = []

    def overlook(octets: bytes) -> bytes:
        kept.append(octets)
        return b"" if len(kept) == 1 else b"".join(kept)

    pair.a_to_b.alter = overlook
    pair.drive()
    assert pair.b.finished()[1] == []
    pair.advance(NUDGE_S)
    assert pair.b.finished()[1] == [("r", Status.SUCCESS)]
    assert pair.b.memory[:5] == b"hello"


def test_a_peer_that_has_said_something_needs_none() -> None:
    pair = connected()
    pair.a.receive(0, 64)
    pair.b.send(b"hello")
    pair.drive()
    pair.advance(1000)
    assert len(sent(pair)) == 1


def test_time_counts_from_the_first_fpdu() -> None:
    """Before it the active side has said nothing that could be overlooked."""
    pair = connected(peer_to_peer=False)
    pair.advance(1000)
    assert sent(pair) == []
    pair.b.receive(0, 64)
    pair.a.send(b"hello")
    pair.drive()
    pair.advance(NUDGE_S)
    assert sent(pair) == [(SEND, 18 + 5), (WRITE, EMPTY_WRITE)]


def test_zero_means_never() -> None:
    pair = connected(nudge_s=0)
    pair.advance(1000)
    assert len(sent(pair)) == 1


def test_the_passive_side_does_not_nudge() -> None:
    pair = connected()
    pair.a.receive(0, 64)
    pair.b.send(b"hello")
    pair.drive()
    pair.advance(1000)
    assert len(pair.b_to_a.ulpdus()) == 1


def test_not_inside_a_message() -> None:
    """RFC 5041 5.3: the segments of a message follow each other; what is left of it wakes the peer as well."""
    config = IwarpConfig(nudge_s=NUDGE_S, send_buffer=65600)
    size = 1 << 18
    pair = CorePair(Side("A", active=True, config=config, size=size), Side("B", active=False, config=config, size=size))
    pair.connect()
    pair.a_to_b.capacity = 0
    pair.a.write([pair.a.sge(0, size)], pair.b.base, pair.b.stag)
    pair.drive()
    pair.advance(NUDGE_S)
    pair.a_to_b.capacity = None
    pair.drive()
    segments = sent(pair)[1:]
    assert sum(length - EMPTY_WRITE for _, length in segments) == size
    assert (WRITE, EMPTY_WRITE) not in segments


@pytest.mark.parametrize("end", ["disconnect", "close", "peer"])
def test_not_after_the_end_has_begun(end: str) -> None:
    pair = connected()
    if end == "disconnect":
        pair.a.core.disconnect(pair.now)
    elif end == "close":
        pair.a.core.close(pair.now)
    else:
        pair.b.core.disconnect(pair.now)
    pair.drive()
    pair.advance(NUDGE_S)
    assert len(sent(pair)) == 1
