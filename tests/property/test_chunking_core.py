"""Any division of the octets into chunks gives the same events, memory, completions and answers.

First one core against the stream of a raw peer, with everything that may stand in it, valid or not; then two cores over
a wire that delivers and takes as little at a time as it likes.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import cycle
from typing import Any, Final

from hypothesis import given, settings
from hypothesis import strategies as st

from softndk.config import IwarpConfig
from softndk.flags import OpFlag
from softndk.iwarp.framing import Framer
from softndk.memory.regions import Window
from softndk.memory.tokens import Right
from softndk.results import Result
from softndk.wire.mpa import Enhanced, FrameKind, StartupFrame
from softndk.wire.rdmap import Opcode
from tests.pair.core_pair import ALL_RIGHTS, CorePair, Side, split
from tests.pair.raw_peer import atomic_request, read_request, tagged, untagged

NOW: Final = 1000.0
READS: Final = 3
READ_SIZE: Final = 50
SIZE: Final = 4096
ROOM: Final = 200
SENDS: Final = {"send": Opcode.SEND, "solicited": Opcode.SEND_SE, "invalidate": Opcode.SEND_INVALIDATE}

CHUNKS = st.lists(st.integers(1, 400) | st.integers(1, 5), max_size=20)


@dataclass(frozen=True)
class Scenario:
    """What a raw peer sends, as (kind, octets, segments), how it ends, and how many receives it finds."""

    actions: tuple[tuple[str, int, int], ...]
    ending: str
    receives: int
    hold: bool
    markers: bool
    crc: bool


@st.composite
def scenarios(draw: st.DrawFn) -> Scenario:
    kinds = st.sampled_from([*SENDS, "send", "write", "write", "read", "response", "immediate", "add"])
    return Scenario(
        actions=tuple(draw(st.lists(st.tuples(kinds, st.integers(0, ROOM), st.integers(1, 4)), max_size=10))),
        ending=draw(st.sampled_from(["none", "fin", "cut", "crc", "stag", "terminate", "short", "bounds"])),
        receives=draw(st.sampled_from([8, 8, 2])),
        hold=draw(st.booleans()),
        markers=draw(st.booleans()),
        crc=draw(st.booleans()),
    )


class Subject:
    """A passive side with the same tokens in every run, and what it has sent."""

    def __init__(self, scenario: Scenario) -> None:
        self.scenario = scenario
        config = IwarpConfig(
            markers=scenario.markers, crc=scenario.crc, receive_wait_s=5 if scenario.hold else 0, max_fpdu=256
        )
        self.side = Side("B", active=False, config=config, seed=1, size=SIZE)
        self.side.memory[:] = bytes(index % 253 for index in range(SIZE))
        self.window = Window(self.side.datapath.tokens, self.side.pd, "mw")
        self.window.bind(self.side.region, self.side.base, SIZE, ALL_RIGHTS, self.side.pair)
        self.number, self.number_stag = a_number(self.side)
        self.sent = bytearray()
        self.posted = 0
        self.side.core.connected(NOW, 1460)

    def start(self, request: bytes, indication: bytes, sizes: Iterator[int]) -> None:
        """The start-up; then the reads, and the receives unless they are to come late."""
        side = self.side
        self.feed(request, sizes)
        side.bind_queues()
        side.core.accept(b"", 16, 16, NOW)
        self.pump()
        self.feed(indication, sizes)
        for number in range(READS):
            side.read([side.sge(3000 + 100 * number, READ_SIZE)], 0x9000, 0x5501, f"read{number}")
        self.pump()
        while not self.scenario.hold and self.posted < self.scenario.receives:
            self.post_receive()

    def post_receive(self) -> None:
        self.side.receive(ROOM * self.posted, ROOM, f"receive{self.posted}")
        self.posted += 1
        self.pump()

    def feed(self, octets: bytes, sizes: Iterator[int]) -> None:
        """Give the octets in chunks; a message that is held back finds its receive a little later."""
        at = 0
        while at < len(octets) and self.side.core.wants_read():
            chunk = bytearray(octets[at : at + next(sizes, len(octets))])
            at += len(chunk)
            self.side.core.receive_data(memoryview(chunk), NOW)
            chunk[:] = bytes(len(chunk))
            self.pump()
            while self.side.core.holding_back and self.posted < self.scenario.receives:
                self.post_receive()

    def finish(self) -> None:
        if self.scenario.ending in ("fin", "cut") and self.side.core.wants_read():
            self.side.core.receive_eof(NOW)
            self.pump()

    def pump(self) -> None:
        while parts := self.side.core.data_to_send(NOW):
            self.sent += b"".join(parts)
            self.side.core.data_sent(sum(map(len, parts)), NOW)
        self.side.collect()

    def outcome(self) -> dict[str, Any]:
        """Everything that anybody can see of it.

        But not how many reads and atomics were answered before the stream broke: a response that waits when a fault is met
        is abandoned, and whether one waits is a matter of time.
        """
        side = self.side
        sent = split(bytes(self.sent[24:]), crc=self.scenario.crc, markers=False)
        if side.core.is_over:
            sent = [ulpdu for ulpdu in sent if ulpdu[1] & 0x0F not in (Opcode.READ_RESPONSE, Opcode.ATOMIC_RESPONSE)]
        return {
            "events": list(map(repr, side.events)),
            "memory": bytes(side.memory),
            "number": None if side.core.is_over else bytes(self.number),
            "initiator": side.initiator_results(),
            "receives": list(map(explained, side.receive_results())),
            "sent": sent,
            "state": side.core.state,
            "finish": side.core.finish(),
            "window": self.window.valid,
            "held": side.core.holding_back,
            "frames": side.core.traffic[0],
        }


def a_number(side: Side) -> tuple[bytearray, int]:
    """Eight octets at 0x70000 that the peer may change by atomics, and their token."""
    number = bytearray(8)
    region = side.register(number, 0x70000, Right.REMOTE_ATOMIC | Right.LOCAL_WRITE, name="number")
    assert region.remote is not None
    return number, region.remote.stag


def explained(result: Result) -> tuple[Result, str]:
    return result, repr(result.error)


def again(chunks: Sequence[int]) -> Iterator[int]:
    """These sizes, over and over; none: everything at once."""
    return cycle(chunks) if chunks else iter(())


Segment = Callable[[int, bytes, bool], bytes]


def segments(make: Segment, data: bytes, count: int) -> list[bytes]:
    """A message in `count` segments, or fewer if it is too short."""
    size = max(1, -(-len(data) // count))
    return [make(at, data[at : at + size], at + size >= len(data)) for at in range(0, max(len(data), 1), size)]


def tagged_segment(opcode: Opcode, stag: int, base: int, at: int, part: bytes, last: bool) -> bytes:
    return tagged(opcode, stag, base + at, part, last=last)


def send_segment(opcode: Opcode, msn: int, stag: int, at: int, part: bytes, last: bool) -> bytes:
    return untagged(opcode, msn, part, mo=at, stag=stag, last=last)


def ulpdus(scenario: Scenario, subject: Subject, sinks: Sequence[int]) -> list[bytes]:
    """Everything behind the indication."""
    side = subject.side
    found: list[bytes] = []
    msn = asked = 0
    open_sinks = list(sinks)
    for kind, size, count in scenario.actions:
        data = bytes((size + index) % 256 for index in range(size))
        if kind == "write":
            found += segments(partial(tagged_segment, Opcode.WRITE, side.stag, side.base + 2000), data, count)
        elif kind == "read":
            asked += 1
            found.append(read_request(asked, size, side.stag, side.base + 3500))
        elif kind == "add":
            asked += 1
            found.append(atomic_request(asked, subject.number_stag, 0x70000, size, identifier=asked))
        elif kind == "immediate":
            msn += 1
            found.append(untagged(Opcode.IMMEDIATE_SE if count > 2 else Opcode.IMMEDIATE, msn, size.to_bytes(8, "big")))
        elif kind in SENDS:
            msn += 1
            stag = subject.window.token.stag if kind == "invalidate" else 0
            found += segments(partial(send_segment, SENDS[kind], msn, stag), data, count)
        elif open_sinks:
            response = partial(tagged_segment, Opcode.READ_RESPONSE, open_sinks.pop(0), 0)
            found += segments(response, bytes(range(READ_SIZE)), count)
    return found + {
        "stag": [tagged(Opcode.WRITE, 0xDEADBE01, 0, b"x" * 70)],
        "terminate": [untagged(Opcode.TERMINATE, 1, bytes.fromhex("11000000")), untagged(Opcode.SEND, 77, b"late")],
        "short": [b"\x41\x43\x00"],
        "bounds": [tagged(Opcode.WRITE, side.stag, side.base + SIZE - 1, b"xx")],
    }.get(scenario.ending, [tagged(Opcode.WRITE, 5, 5)])


def record(scenario: Scenario) -> tuple[bytes, bytes, bytes]:
    """The peer's octets: its Request, its indication, the rest."""
    enhanced = Enhanced(ird=16, ord=16, peer_to_peer=True, rtr_write=True)
    request = StartupFrame(FrameKind.REQUEST, False, scenario.crc, False, 2, enhanced, b"hi").emit()
    framer = Framer(crc=scenario.crc, markers=scenario.markers)
    indication = bytes(framer.frame(tagged(Opcode.WRITE, 1, 0), []))
    subject = Subject(scenario)
    subject.start(request, indication, again(()))
    reads = split(bytes(subject.sent[24:]), crc=scenario.crc, markers=False)
    sinks = [int.from_bytes(read[18:22], "big") for read in reads]
    rest = b"".join(bytes(framer.frame(ulpdu, [])) for ulpdu in ulpdus(scenario, subject, sinks))
    if scenario.ending == "crc":
        rest = rest[:-1] + bytes([rest[-1] ^ 1])
    return request, indication, rest[:-3] if scenario.ending == "cut" else rest


def run(scenario: Scenario, octets: tuple[bytes, bytes, bytes], chunks: Sequence[int]) -> dict[str, Any]:
    request, indication, rest = octets
    sizes = again(chunks)
    subject = Subject(scenario)
    subject.start(request, indication, sizes)
    subject.feed(rest, sizes)
    subject.finish()
    return subject.outcome()


@settings(max_examples=250)
@given(scenarios(), CHUNKS)
def test_one_core_any_chunks(scenario: Scenario, chunks: list[int]) -> None:
    octets = record(scenario)
    assert run(scenario, octets, chunks) == run(scenario, octets, ())


@settings(max_examples=40)
@given(scenarios())
def test_one_core_octet_by_octet(scenario: Scenario) -> None:
    octets = record(scenario)
    assert run(scenario, octets, [1]) == run(scenario, octets, ())


# ---- two cores

POST = st.tuples(
    st.sampled_from("ab"),
    st.sampled_from(["send", "write", "read", "immediate", "add", "swap"]),
    st.integers(0, 700),
)


def exchange(
    posts: Sequence[tuple[str, str, int]], chunks: Sequence[int], capacity: int | None, *, markers: bool
) -> dict[str, Any]:
    """Two cores that post all this, then disconnect; what both programs see."""
    sizes = again(chunks)
    config = IwarpConfig(max_fpdu=300, markers=markers)
    pair = CorePair(
        Side("A", active=True, config=config, seed=1),
        Side("B", active=False, config=config, seed=2, base=0x900000),
        chunk=lambda: next(sizes, 1 << 20),
    )
    pair.connect()
    for wire in (pair.a_to_b, pair.b_to_a):
        wire.capacity = capacity
    for side in (pair.a, pair.b):
        side.memory[:8192] = bytes(index * (3 if side is pair.a else 5) % 256 for index in range(8192))
        for number in range(16):
            side.receive(16384 + 1024 * number, 1000, number)
    numbers = {side.name: a_number(side) for side in (pair.a, pair.b)}
    for number, (who, kind, size) in enumerate(posts):
        side, other = (pair.a, pair.b) if who == "a" else (pair.b, pair.a)
        if kind == "send":
            side.send([side.sge(number, size)], number)
        elif kind == "write":
            side.write([side.sge(number, size)], other.base + 40_000 + 1000 * number, other.stag, number)
        elif kind == "immediate":
            side.immediate(size.to_bytes(8, "big"), number)
        elif kind == "add":
            side.fetch_add([side.sge(30_000 + 8 * number, 8)], 0x70000, numbers[other.name][1], size, number)
        elif kind == "swap":
            sink = [side.sge(30_000 + 8 * number, 8)]
            stag = numbers[other.name][1]
            side.compare_swap(sink, 0x70000, stag, 0, size, number, compare_mask=size)
        else:
            fence = int(OpFlag.READ_FENCE) if number % 2 else 0
            side.read([side.sge(8192 + 10 * number, size)], other.base + number, other.stag, number, flags=fence)
    pair.drive()
    for side in (pair.a, pair.b):
        side.core.disconnect(pair.now)
    pair.drive()
    return {
        side.name: (
            bytes(side.memory),
            bytes(numbers[side.name][0]),
            side.initiator_results(),
            side.receive_results(),
            list(map(repr, side.take_events())),
            side.core.state,
        )
        for side in (pair.a, pair.b)
    }


@settings(max_examples=60)
@given(st.lists(POST, max_size=12), CHUNKS, st.sampled_from([None, 30, 500, 5000]), st.booleans())
def test_two_cores_any_wire(
    posts: list[tuple[str, str, int]], chunks: list[int], capacity: int | None, markers: bool
) -> None:
    """Sources of reads and of sends stay the same, so that when they are read does not show."""
    assert exchange(posts, chunks, capacity, markers=markers) == exchange(posts, (), None, markers=markers)
