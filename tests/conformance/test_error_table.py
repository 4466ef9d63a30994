"""Every way in which a peer can break the rules, and the exact octets with which the stream ends.

One case for each row of the error table (RFC 5040 4.8, RFC 5041 8, RFC 5044 8): a raw peer breaks one rule; compared are
the whole Terminate FPDU, all completions of both queues, the memory, and the end of the stream. The expected octets are
put together here from the table's numbers, not by the code under test.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import pytest

from softndk.config import IwarpConfig
from softndk.flags import OperationType, OpFlag
from softndk.iwarp.events import Aborted, Finish
from softndk.iwarp.faults import Cause, ProtocolFault, terminate_for
from softndk.iwarp.qp_state import State
from softndk.memory.buffers import Mdl
from softndk.memory.regions import FastRegion, Window
from softndk.memory.sge import Sge
from softndk.memory.tokens import ProtectionDomain, Right, Scope
from softndk.queues.pair import QueuePair
from softndk.status import Status
from softndk.wire.mpa import Enhanced
from softndk.wire.rdmap import Opcode
from tests.pair.core_pair import ALL_RIGHTS, Side
from tests.pair.raw_peer import RawPeer, read_request, tagged, untagged
from tests.vectors.fpdu_model import crc32c_bitwise, fpdu
from tests.vectors.iwarp_vectors import named

CANCELLED = Status.CANCELLED
FILL = 0xEE
TOP = 1 << 64


class Lab:
    """A passive side with a connection to a raw peer: receives R1 and R2 of 64 octets at 0 and 64, a read of 16 octets
    into 512 that waits for its response, and a send that is fenced behind it.
    """

    def __init__(self, *, receives: int = 2, reads: bool = True, ird: int = 16, markers: bool = False) -> None:
        self.side = Side("lab", active=False, ird=ird, config=IwarpConfig(markers=markers), size=4096)
        self.side.memory[:] = bytes([FILL]) * 4096
        self.peer = RawPeer(self.side, enhanced=Enhanced(ird=16, ord=16, peer_to_peer=True, rtr_write=True))
        self.peer.establish()
        self.receives = [f"R{number + 1}" for number in range(receives)]
        for number, context in enumerate(self.receives):
            self.side.receive(64 * number, 64, context)
        self.requests: list[str] = []
        self.sink_stag = 0
        if reads:
            self.side.read([self.side.sge(512, 16)], 0x9000, 0x5501, "RD1")
            self.side.send(b"behind", "S2", flags=OpFlag.READ_FENCE)
            self.peer.pump()
            (request,) = self.peer.take()
            self.sink_stag = int.from_bytes(request[18:22], "big")
            self.requests = ["RD1", "S2"]

    # ---- things for a peer to name

    def spare(self, rights: Right = ALL_RIGHTS, *, pd: ProtectionDomain | None = None) -> int:
        """Remote token of another region, 256 octets numbered from 0x70000."""
        region = self.side.register(bytearray(256), 0x70000, rights, pd=pd, name="spare")
        assert region.remote is not None
        return region.remote.stag

    def deregistered(self) -> int:
        region = self.side.register(bytearray(256), 0x70000, ALL_RIGHTS, name="gone")
        assert region.remote is not None
        stag = region.remote.stag
        region.deregister()
        return stag

    def window(self, *, bound: bool = True, rights: Right = ALL_RIGHTS, stream: object = None) -> int:
        """A window over the first 256 octets of the memory."""
        window = Window(self.side.datapath.tokens, self.side.pd, "mw")
        window.bind(self.side.region, self.side.base, 256, rights, stream or self.side.pair)
        if not bound:
            window.invalidate()
        return window.token.stag

    def fast_region(
        self,
        *,
        rights: Right = ALL_RIGHTS,
        valid: bool = True,
        pd: ProtectionDomain | None = None,
        window: bool = False,
        local: bool = False,
    ) -> int:
        region = FastRegion(self.side.datapath.tokens, pd or self.side.pd, "frmr")
        region.initialize(4, True)
        region.fast_register(0x80000, Mdl(bytearray(256), address=0).byte_range(256), rights)
        if not valid:
            region.invalidate()
        if window:
            Window(self.side.datapath.tokens, self.side.pd, "mw").bind(
                region, 0x80000, 16, Right.REMOTE_READ, self.side.pair
            )
        assert region.local is not None
        assert region.remote is not None
        return region.local.stag if local else region.remote.stag

    def privileged(self) -> int:
        return self.side.datapath.tokens.create(Scope.PRIVILEGED, self.side.pd, "pd").stag

    def wrong_key(self, stag: int) -> int:
        return stag ^ 0x01

    @staticmethod
    def other_pd() -> ProtectionDomain:
        return ProtectionDomain("other")

    def other_pair(self) -> QueuePair:
        return QueuePair(
            "other", None, self.side.receive_ring, self.side.initiator_ring, receive_depth=1, initiator_depth=1
        )


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


@dataclass(frozen=True)
class Row:
    """`sent` makes the peer's ULPDUs; the last one is the offender. `placed`: what the ones before it leave in memory."""

    number: int
    name: str
    code: tuple[int, int, int]
    sent: Callable[[Lab], Sequence[bytes]]
    echo: str = "ddp"
    receive: Status = CANCELLED
    read: Status = CANCELLED
    receives: int = 2
    reads: bool = True
    ird: int = 16
    placed: tuple[tuple[int, bytes], ...] = ()
    taken: int = 0
    """Receives that complete with success before the fault."""
    answers: int = 0
    """FPDUs that go out before the Terminate."""

    def __str__(self) -> str:
        return f"row {self.number}: {self.name}"


def with_control(ulpdu: bytes, octet: int) -> bytes:
    """The ULPDU with another RDMAP control octet."""
    return ulpdu[:1] + bytes([octet]) + ulpdu[2:]


def send(payload: bytes = b"x" * 8, msn: int = 1, **fields: int) -> bytes:
    return untagged(Opcode.SEND, msn, payload, mo=fields.get("mo", 0), last=bool(fields.get("last", 1)))


def write(stag: int, to: int, payload: bytes = b"X" * 8) -> bytes:
    return tagged(Opcode.WRITE, stag, to, payload)


def invalidating(stag: int, opcode: Opcode = Opcode.SEND_INVALIDATE) -> bytes:
    return untagged(opcode, 1, b"done", stag=stag)


SHORT = [
    Row(5, f"segment of {len(octets)} octets", (1, 0, 0), lambda lab, octets=octets: [octets], echo="none")  # type: ignore[misc]
    for octets in (b"", b"\x41", b"\x41\x43", tagged(Opcode.WRITE, 1, 0)[:13], untagged(Opcode.SEND, 1)[:17])
]

VERSIONS = [
    row
    for version in (0, 2, 3)
    for row in (
        Row(
            6,
            f"DDP version {version}, tagged",
            (1, 1, 4),
            lambda lab, v=version: [tagged(Opcode.WRITE, 1, 0, version=v)],
        ),  # type: ignore[misc]
        Row(
            6,
            f"DDP version {version}, untagged",
            (1, 2, 6),
            lambda lab, v=version: [untagged(Opcode.SEND, 1, version=v)],
        ),  # type: ignore[misc]
        Row(
            7, f"RDMAP version {version}, tagged", (0, 2, 5), lambda lab, v=version: [with_control(write(1, 0), v << 6)]
        ),  # type: ignore[misc]
        Row(
            7,
            f"RDMAP version {version}, untagged",
            (0, 2, 5),
            lambda lab, v=version: [with_control(send(), v << 6 | 3)],
        ),  # type: ignore[misc]
    )
]
OPCODES = [
    row
    for opcode in range(8, 16)
    for row in (
        Row(8, f"opcode {opcode}, untagged", (0, 2, 6), lambda lab, o=opcode: [with_control(send(), 0x40 | o)]),  # type: ignore[misc]
        Row(8, f"opcode {opcode}, tagged", (0, 2, 6), lambda lab, o=opcode: [with_control(write(1, 0), 0x40 | o)]),  # type: ignore[misc]
    )
]
MODELS = [
    *(
        Row(9, f"{opcode.name} untagged", (0, 2, 6), lambda lab, o=opcode: [with_control(send(), 0x40 | o)])  # type: ignore[misc]
        for opcode in (Opcode.WRITE, Opcode.READ_RESPONSE)
    ),
    *(
        Row(9, f"{opcode.name} tagged", (0, 2, 6), lambda lab, o=opcode: [with_control(write(1, 0), 0x40 | o)])  # type: ignore[misc]
        for opcode in (Opcode.READ_REQUEST, Opcode.SEND, Opcode.SEND_SE_INVALIDATE, Opcode.TERMINATE)
    ),
    *(
        Row(9, f"{opcode.name} on queue {qn}", (0, 2, 6), lambda lab, o=opcode, q=qn: [untagged(o, 1, bytes(28), qn=q)])  # type: ignore[misc]
        for opcode, qn in (
            (Opcode.SEND, 1),
            (Opcode.SEND, 2),
            (Opcode.SEND_INVALIDATE, 1),
            (Opcode.READ_REQUEST, 0),
            (Opcode.READ_REQUEST, 2),
            (Opcode.TERMINATE, 0),
            (Opcode.TERMINATE, 1),
        )
    ),
    *(
        Row(10, f"queue {qn}", (1, 2, 1), lambda lab, q=qn: [untagged(Opcode.SEND, 1, qn=q)])  # type: ignore[misc]
        for qn in (3, 4, 0xFFFFFFFF)
    ),
]

UNTAGGED = [
    Row(11, "Send, MSN 2 first", (1, 2, 3), lambda lab: [send(msn=2)]),
    Row(11, "Send, MSN 0", (1, 2, 3), lambda lab: [send(msn=0)]),
    Row(
        11,
        "Send, MSN twice",
        (1, 2, 3),
        lambda lab: [send(b"first"), send(b"again")],
        placed=((0, b"first"),),
        taken=1,
    ),
    Row(
        11,
        "Send, MSN changes inside the message",
        (1, 2, 3),
        lambda lab: [send(b"head", last=0), send(b"tail", msn=2, mo=4)],
        placed=((0, b"head"),),
    ),
    Row(11, "Read Request, MSN 2 first", (1, 2, 3), lambda lab: [read_request(2, 8, lab.side.stag, lab.side.base)]),
    Row(12, "Send without a receive", (1, 2, 2), lambda lab: [send()], receives=0),
    Row(12, "zero-length Send without a receive", (1, 2, 2), lambda lab: [send(b"")], receives=0),
    Row(
        12,
        "one Send too many",
        (1, 2, 2),
        lambda lab: [send(b"one"), send(b"two", msn=2)],
        receives=1,
        placed=((0, b"one"),),
        taken=1,
    ),
    Row(13, "Read Request, IRD 0", (1, 2, 2), lambda lab: [read_request(1, 8, lab.side.stag, lab.side.base)], ird=0),
    Row(
        13,
        "third Read Request, IRD 2",
        (1, 2, 2),
        lambda lab: [read_request(msn, 8, lab.side.stag, lab.side.base) for msn in (1, 2, 3)],
        ird=2,
    ),
    Row(14, "first segment at MO 4", (1, 2, 4), lambda lab: [send(mo=4)]),
    Row(
        14,
        "gap between segments",
        (1, 2, 4),
        lambda lab: [send(b"head", last=0), send(b"tail", mo=5)],
        placed=((0, b"head"),),
    ),
    Row(
        14,
        "segments overlap",
        (1, 2, 4),
        lambda lab: [send(b"head", last=0), send(b"tail", mo=3)],
        placed=((0, b"head"),),
    ),
    Row(
        14,
        "Read Request at MO 4",
        (1, 2, 4),
        lambda lab: [untagged(Opcode.READ_REQUEST, 1, bytes(28), mo=4)],
    ),
    Row(15, "Send of 65 octets into 64", (1, 2, 5), lambda lab: [send(b"y" * 65)], receive=Status.BUFFER_OVERFLOW),
    Row(
        15,
        "second segment goes beyond the receive",
        (1, 2, 5),
        lambda lab: [send(b"a" * 40, last=0), send(b"b" * 25, mo=40)],
        receive=Status.BUFFER_OVERFLOW,
        placed=((0, b"a" * 40),),
    ),
    Row(16, "Read Request body of 29 octets", (1, 2, 5), lambda lab: [untagged(Opcode.READ_REQUEST, 1, bytes(29))]),
    Row(
        16,
        "Read Request with more to come",
        (1, 2, 5),
        lambda lab: [untagged(Opcode.READ_REQUEST, 1, bytes(28), last=False)],
    ),
    Row(17, "Read Request body of 27 octets", (0, 2, 7), lambda lab: [untagged(Opcode.READ_REQUEST, 1, bytes(27))]),
    Row(17, "Read Request without a body", (0, 2, 7), lambda lab: [untagged(Opcode.READ_REQUEST, 1)]),
]

INVALID: dict[str, Callable[[Lab], int]] = {
    "unknown": lambda lab: 0xDEADBE01,
    "zero": lambda lab: 0,
    "wrong key": lambda lab: lab.wrong_key(lab.side.stag),
    "local token": lambda lab: lab.side.local_token,
    "privileged token": lambda lab: lab.privileged(),
    "unbound window": lambda lab: lab.window(bound=False),
    "invalidated fast-register region": lambda lab: lab.fast_region(valid=False),
    "local token of a fast-register region": lambda lab: lab.fast_region(local=True),
    "deregistered": lambda lab: lab.deregistered(),
    "sink of an outstanding read": lambda lab: lab.sink_stag,
}
FOREIGN: dict[str, Callable[[Lab], int]] = {
    "region of another PD": lambda lab: lab.spare(pd=lab.other_pd()),
    "fast-register region of another PD": lambda lab: lab.fast_region(pd=lab.other_pd()),
    "window bound to another QP": lambda lab: lab.window(stream=lab.other_pair()),
}
PLACES: dict[str, tuple[int, int]] = {  # offset from the spare region's base, length: outside its 256 octets
    "one octet before": (-1, 1),
    "begins before": (-4, 8),
    "one octet behind": (256, 1),
    "ends one octet behind": (249, 8),
    "far behind": (1 << 40, 8),
}

WRITES = [
    *(
        Row(18, f"Write, {name}", (1, 1, 0), lambda lab, s=stag: [write(s(lab), lab.side.base)])  # type: ignore[misc]
        for name, stag in INVALID.items()
    ),
    *(
        Row(19, f"Write, {name}", (1, 1, 2), lambda lab, s=stag: [write(s(lab), lab.side.base)])  # type: ignore[misc]
        for name, stag in FOREIGN.items()
    ),
    Row(20, "Write, right missing", (0, 1, 2), lambda lab: [write(lab.spare(Right.REMOTE_READ), 0x70000)]),
    Row(20, "Write, only local write", (0, 1, 2), lambda lab: [write(lab.spare(Right.LOCAL_WRITE), 0x70000)]),
    Row(20, "Write, window without it", (0, 1, 2), lambda lab: [write(lab.window(rights=Right.REMOTE_READ), 0x10000)]),
    Row(21, "Write wraps", (1, 1, 3), lambda lab: [write(lab.side.stag, TOP - 4)]),
    *(
        Row(22, f"Write, {name}", (1, 1, 1), lambda lab, p=place: [write(lab.spare(), 0x70000 + p[0], b"X" * p[1])])  # type: ignore[misc]
        for name, place in PLACES.items()
    ),
    Row(22, "Write, ends at the top of the addresses", (1, 1, 1), lambda lab: [write(lab.side.stag, TOP - 8)]),
    Row(22, "Write, outside the window", (1, 1, 1), lambda lab: [write(lab.window(), 0x10000 + 256)]),
]

READS = [
    *(
        Row(
            24, f"Read, {name}", (0, 1, 0), lambda lab, s=stag: [read_request(1, 8, s(lab), lab.side.base)], echo="read"
        )  # type: ignore[misc]
        for name, stag in INVALID.items()
    ),
    *(
        Row(
            25, f"Read, {name}", (0, 1, 3), lambda lab, s=stag: [read_request(1, 8, s(lab), lab.side.base)], echo="read"
        )  # type: ignore[misc]
        for name, stag in FOREIGN.items()
    ),
    Row(
        26,
        "Read, right missing",
        (0, 1, 2),
        lambda lab: [read_request(1, 8, lab.spare(Right.REMOTE_WRITE | Right.LOCAL_WRITE), 0x70000)],
        echo="read",
    ),
    Row(27, "Read wraps", (0, 1, 4), lambda lab: [read_request(1, 8, lab.side.stag, TOP - 4)], echo="read"),
    *(
        Row(
            28,
            f"Read, {name}",
            (0, 1, 1),
            lambda lab, p=place: [read_request(1, p[1], lab.spare(), 0x70000 + p[0])],  # type: ignore[misc]
            echo="read",
        )
        for name, place in PLACES.items()
    ),
    Row(
        28,
        "Read, largest size",
        (0, 1, 1),
        lambda lab: [read_request(1, 0xFFFFFFFF, lab.side.stag, lab.side.base)],
        echo="read",
    ),
]


def response(lab: Lab, payload: bytes, *, to: int = 0, last: bool = True, stag: int | None = None) -> bytes:
    """A Read Response to RD1."""
    return tagged(Opcode.READ_RESPONSE, lab.sink_stag if stag is None else stag, to, payload, last=last)


def close_sink(lab: Lab) -> Sequence[bytes]:
    lab.side.region.deregister()
    return [response(lab, b"r" * 16)]


FAILED_READ = Status.INTERNAL_ERROR
RESPONSES = [
    Row(30, "Read Response, nothing outstanding", (0, 2, 6), lambda lab: [response(lab, b"r" * 16)], reads=False),
    Row(30, "zero-length Read Response, nothing outstanding", (0, 2, 6), lambda lab: [response(lab, b"")], reads=False),
    Row(31, "another sink", (1, 1, 0), lambda lab: [response(lab, b"r" * 16, stag=0x112201)], read=FAILED_READ),
    Row(
        31,
        "a registered region as sink",
        (1, 1, 0),
        lambda lab: [response(lab, b"r" * 16, stag=lab.side.stag)],
        read=FAILED_READ,
    ),
    Row(31, "sink no longer valid", (1, 1, 0), close_sink, read=Status.ACCESS_VIOLATION),
    Row(32, "does not begin at 0", (1, 1, 1), lambda lab: [response(lab, b"r" * 8, to=8)], read=FAILED_READ),
    Row(
        32,
        "gap",
        (1, 1, 1),
        lambda lab: [response(lab, b"r" * 4, last=False), response(lab, b"s" * 11, to=5)],
        read=FAILED_READ,
        placed=((512, b"r" * 4),),
    ),
    Row(32, "more than asked for", (1, 1, 1), lambda lab: [response(lab, b"r" * 17)], read=FAILED_READ),
    Row(
        32,
        "more than asked for, second segment",
        (1, 1, 1),
        lambda lab: [response(lab, b"r" * 16, last=False), response(lab, b"s", to=16)],
        read=FAILED_READ,
        placed=((512, b"r" * 16),),
    ),
    Row(32, "ends early", (1, 1, 1), lambda lab: [response(lab, b"r" * 15)], read=FAILED_READ),
    Row(32, "ends at once", (1, 1, 1), lambda lab: [response(lab, b"")], read=FAILED_READ),
]

CANNOT_INVALIDATE: dict[str, Callable[[Lab], int]] = {
    **INVALID,
    "normal region": lambda lab: lab.side.stag,
    "wrong key of a window": lambda lab: lab.wrong_key(lab.window()),
    "fast-register region without remote rights": lambda lab: lab.fast_region(rights=Right.LOCAL_WRITE),
    "fast-register region with a window bound": lambda lab: lab.fast_region(window=True),
}
INVALIDATES = [
    *(
        Row(
            33,
            f"invalidate, {name}",
            (0, 2, 9),
            lambda lab, s=stag: [invalidating(s(lab))],  # type: ignore[misc]
            receive=Status.INVALID_DEVICE_REQUEST,
            placed=((0, b"done"),),
        )
        for name, stag in CANNOT_INVALIDATE.items()
    ),
    Row(
        33,
        "invalidate with solicited event, unknown",
        (0, 2, 9),
        lambda lab: [invalidating(0x99999901, Opcode.SEND_SE_INVALIDATE)],
        receive=Status.INVALID_DEVICE_REQUEST,
        placed=((0, b"done"),),
    ),
    *(
        Row(
            34,
            f"invalidate, {name}",
            (0, 1, 9),
            lambda lab, s=stag: [invalidating(s(lab))],  # type: ignore[misc]
            receive=Status.INVALID_DEVICE_REQUEST,
            placed=((0, b"done"),),
        )
        for name, stag in FOREIGN.items()
    ),
]
CHANGED_OPCODE = Row(
    9,
    "opcode changes inside a message",
    (0, 2, 6),
    lambda lab: [send(b"head", last=0), untagged(Opcode.SEND_SE, 1, b"tail", mo=4)],
    placed=((0, b"head"),),
)

ROWS = [
    *SHORT,
    *VERSIONS,
    *OPCODES,
    *MODELS,
    *UNTAGGED,
    *WRITES,
    *READS,
    *RESPONSES,
    *INVALIDATES,
    CHANGED_OPCODE,
]


@dataclass
class Ended:
    """What is left of a lab's stream after its end."""

    lab: Lab
    initiator: list[tuple[object, Status]] = field(default_factory=list)
    receives: list[tuple[object, Status]] = field(default_factory=list)


def check_flushed(lab: Lab, *, receive: Status = CANCELLED, read: Status = CANCELLED, taken: int = 0) -> None:
    """Everything posted has come back once, in order, and whatever is posted now is cancelled at once (R-FLUSH, A-3)."""
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
    assert side.core.state is State.TERMINATE
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
    assert side.core.state is State.ERROR
    assert side.take_events() == []


@pytest.mark.parametrize("row", ROWS, ids=str)
def test_peer_breaks_a_rule(row: Row) -> None:
    lab = Lab(receives=row.receives, reads=row.reads, ird=row.ird)
    sent = row.sent(lab)
    lab.peer.received.clear()
    lab.peer.send(*sent)
    expected = bytearray([FILL]) * 4096
    for offset, octets in row.placed:
        expected[offset : offset + len(octets)] = octets
    assert lab.side.memory == expected
    assert bytes(lab.peer.received).hex(" ") == terminate_octets(row.code, sent[-1], row.echo).hex(" ")
    check_flushed(lab, receive=row.receive, read=row.read, taken=row.taken)
    check_ended(lab, row.code)


@pytest.mark.parametrize("row", ROWS, ids=str)
def test_a_fault_is_told_in_words(row: Row) -> None:
    lab = Lab(receives=row.receives, reads=row.reads, ird=row.ird)
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
        octets[at] ^= 0x04 if at == 1 else 0x01  # at 1: a length that still fits what has come
        if at == 0:
            octets += bytes(300)  # its length field says 282 now
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
        assert lab.side.core.state is State.ERROR
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
        assert lab.side.core.state is State.RTS
        assert lab.peer.received == b""

    def test_zero_length_read_is_not_checked_and_is_answered(self) -> None:
        lab = Lab()
        lab.peer.received.clear()
        lab.peer.send(read_request(1, 0, 0, TOP - 1))
        assert lab.peer.take() == [tagged(Opcode.READ_RESPONSE, 0x112201, 0x2000)]
        assert lab.side.core.state is State.RTS

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
        side = Side("lab", active=False, config=IwarpConfig(send_buffer=65600, max_fpdu=1014), size=1 << 17)
        peer = RawPeer(side)
        peer.establish()
        request = read_request(1, 100_000, side.stag, side.base + 7)
        side.core.receive_data(memoryview(peer.frame(request)), peer.now)
        peer.pump(40_000)
        side.region.deregister()
        peer.pump()
        *responses, terminate = peer.take()
        got = sum(len(segment) - 14 for segment in responses)
        assert 40_000 <= got < 100_000
        assert got % 1000 == 0
        assert all(segment[0] == 0x81 for segment in responses)
        assert [int.from_bytes(segment[6:14], "big") for segment in responses] == [
            0x2000 + at for at in range(0, got, 1000)
        ]
        updated = (
            request[18:22]
            + (0x2000 + got).to_bytes(8, "big")
            + (100_000 - got).to_bytes(4, "big")
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

    def test_row_41_adapter_wide_fault_has_its_own_code(self) -> None:
        message = terminate_for(ProtocolFault(Cause.NIC_FAILURE, "out of memory", send()))
        assert message.emit() == bytes.fromhex("02080000")

    @pytest.mark.parametrize("operation", ["send", "write", "read"])
    @pytest.mark.parametrize("trouble", ["unknown token", "outside", "deregistered"])
    def test_row_42_local_memory_of_a_request(self, operation: str, trouble: str) -> None:
        lab = Lab(reads=False)
        side = lab.side
        sges = [side.sge(4090, 7)]
        if trouble == "unknown token":
            sges = [Sge(side.base, 8, type(side.local_token)(0x12345678))]
        elif trouble == "deregistered":
            side.region.deregister()
            sges = (
                [Sge(side.base, 8, side.local_token)]
                if side.region.local
                else [Sge(side.base, 8, type(sges[0].token)(1))]
            )
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
        assert side.core.state is State.RTS


def test_the_completion_of_a_refused_invalidation_is_a_receive_without_a_token() -> None:
    """R-RESX-5."""
    lab = Lab()
    lab.peer.send(invalidating(0x99999901))
    failed, cancelled = lab.side.receive_results()
    assert (failed.type, failed.invalidated_token, failed.bytes_transferred) == (OperationType.RECEIVE, None, 0)
    assert failed.provider_error_code == 0x20209
    assert cancelled.status is CANCELLED


def test_every_reachable_row_is_here() -> None:
    """Rows that need atomics or immediate data, and those without octets, are tested elsewhere or not at all."""
    assert {row.number for row in ROWS} == {*range(5, 12), 12, *range(13, 23), *range(24, 29), *range(30, 35)}
