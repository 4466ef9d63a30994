"""The rows of the error table (RFC 5040 4.8, RFC 5041 8, RFC 5044 8) as values, and the connection to try them on.

One row is one way in which a peer breaks one rule: what it sends, and the Terminate, statuses and memory that follow.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from softndk.config import IwarpConfig
from softndk.flags import OpFlag
from softndk.memory.buffers import Mdl
from softndk.memory.regions import FastRegion, Window
from softndk.memory.tokens import ProtectionDomain, Right, Scope
from softndk.queues.pair import QueuePair
from softndk.status import Status
from softndk.wire.rdmap import Opcode
from tests.pair.core_pair import ALL_RIGHTS, Side
from tests.pair.raw_peer import RawPeer, read_request, tagged, untagged

CANCELLED = Status.CANCELLED
FILL = 0xEE
TOP = 1 << 64


class Lab:
    """A passive side with a connection to a raw peer: receives R1 and R2 of 64 octets at 0 and 64, a read of 16 octets
    into 512 that waits for its response, and a send that is fenced behind it.

    atomics: instead of the read a FetchAdd, whose original value goes to 512. rfc7306: False: a side without both.
    `spare_memory`: the last spare region's octets, all 0 at first.
    """

    def __init__(
        self,
        *,
        receives: int = 2,
        reads: bool = True,
        ird: int = 16,
        markers: bool = False,
        atomics: bool = False,
        rfc7306: bool = True,
        seed: int | None = None,
    ) -> None:
        config = IwarpConfig(markers=markers, rfc7306=rfc7306)
        self.side = Side("lab", active=False, ird=ird, config=config, size=4096, seed=seed)
        self.side.memory[:] = bytes([FILL]) * 4096
        self.peer = RawPeer(self.side)
        self.peer.establish()
        self.receives = [f"R{number + 1}" for number in range(receives)]
        for number, context in enumerate(self.receives):
            self.side.receive(64 * number, 64, context)
        self.requests: list[str] = []
        self.sink_stag = 0
        self.identifier = 0
        self.spare_memory = bytearray(256)
        if atomics:
            self.side.fetch_add([self.side.sge(512, 8)], 0x9000, 0x5501, 1, "A1")
            self.side.send(b"behind", "S2", flags=OpFlag.READ_FENCE)
            self.peer.pump()
            (request,) = self.peer.take()
            self.identifier = int.from_bytes(request[22:26], "big")
            self.requests = ["A1", "S2"]
        elif reads:
            self.side.read([self.side.sge(512, 16)], 0x9000, 0x5501, "RD1")
            self.side.send(b"behind", "S2", flags=OpFlag.READ_FENCE)
            self.peer.pump()
            (request,) = self.peer.take()
            self.sink_stag = int.from_bytes(request[18:22], "big")
            self.requests = ["RD1", "S2"]

    # ---- things for a peer to name

    def spare(self, rights: Right = ALL_RIGHTS, *, pd: ProtectionDomain | None = None) -> int:
        """Remote token of another region, 256 octets numbered from 0x70000."""
        self.spare_memory = bytearray(256)
        region = self.side.register(self.spare_memory, 0x70000, rights, pd=pd, name="spare")
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


Sent = Callable[[Lab], Sequence[bytes]]
Stag = Callable[[Lab], int]


@dataclass(frozen=True)
class Row:
    """`sent` makes the peer's ULPDUs, the last one is the offender. `placed`: what the others leave in memory."""

    number: int
    name: str
    code: tuple[int, int, int]
    sent: Sent
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
    atomics: bool = False
    """A FetchAdd is outstanding in place of the read; `read` is its status then."""
    rfc7306: bool = True

    def lab(self, *, seed: int | None = None) -> Lab:
        """The connection that this row needs. seed: of its tokens."""
        return Lab(
            receives=self.receives,
            reads=self.reads,
            ird=self.ird,
            atomics=self.atomics,
            rfc7306=self.rfc7306,
            seed=seed,
        )

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


def just(*ulpdus: bytes) -> Sent:
    return lambda lab: ulpdus


def write_through(stag: Stag) -> Sent:
    return lambda lab: [write(stag(lab), lab.side.base)]


def write_spare(offset: int, length: int) -> Sent:
    return lambda lab: [write(lab.spare(), 0x70000 + offset, b"X" * length)]


def read_through(stag: Stag) -> Sent:
    return lambda lab: [read_request(1, 8, stag(lab), lab.side.base)]


def read_spare(offset: int, length: int) -> Sent:
    return lambda lab: [read_request(1, length, lab.spare(), 0x70000 + offset)]


def invalidate_through(stag: Stag) -> Sent:
    return lambda lab: [invalidating(stag(lab))]


SHORT = [
    Row(5, f"segment of {len(octets)} octets", (1, 0, 0), just(octets), echo="none")
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
            just(tagged(Opcode.WRITE, 1, 0, version=version)),
        ),
        Row(
            6,
            f"DDP version {version}, untagged",
            (1, 2, 6),
            just(untagged(Opcode.SEND, 1, version=version)),
        ),
        Row(7, f"RDMAP version {version}, tagged", (0, 2, 5), just(with_control(write(1, 0), version << 6))),
        Row(
            7,
            f"RDMAP version {version}, untagged",
            (0, 2, 5),
            just(with_control(send(), version << 6 | 3)),
        ),
    )
]
OPCODES = [
    row
    for opcode in range(12, 16)
    for row in (
        Row(8, f"opcode {opcode}, untagged", (0, 2, 6), just(with_control(send(), 0x40 | opcode))),
        Row(8, f"opcode {opcode}, tagged", (0, 2, 6), just(with_control(write(1, 0), 0x40 | opcode))),
    )
]
MODELS = [
    *(
        Row(9, f"{opcode.name} untagged", (0, 2, 6), just(with_control(send(), 0x40 | opcode)))
        for opcode in (Opcode.WRITE, Opcode.READ_RESPONSE)
    ),
    *(
        Row(9, f"{opcode.name} tagged", (0, 2, 6), just(with_control(write(1, 0), 0x40 | opcode)))
        for opcode in (Opcode.READ_REQUEST, Opcode.SEND, Opcode.SEND_SE_INVALIDATE, Opcode.TERMINATE)
    ),
    *(
        Row(9, f"{opcode.name} on queue {qn}", (0, 2, 6), just(untagged(opcode, 1, bytes(28), qn=qn)))
        for opcode, qn in (
            (Opcode.SEND, 1),
            (Opcode.SEND, 2),
            (Opcode.SEND, 3),
            (Opcode.SEND_INVALIDATE, 1),
            (Opcode.READ_REQUEST, 0),
            (Opcode.READ_REQUEST, 2),
            (Opcode.READ_REQUEST, 3),
            (Opcode.TERMINATE, 0),
            (Opcode.TERMINATE, 1),
        )
    ),
    *(Row(10, f"queue {qn}", (1, 2, 1), just(untagged(Opcode.SEND, 1, qn=qn))) for qn in (4, 5, 0xFFFFFFFF)),
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
    Row(
        17,
        "Read Request body of 20 octets with more to come",
        (0, 2, 7),
        lambda lab: [untagged(Opcode.READ_REQUEST, 1, bytes(20), last=False)],
    ),
]

INVALID: dict[str, Stag] = {
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
FOREIGN: dict[str, Stag] = {
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
    *(Row(18, f"Write, {name}", (1, 1, 0), write_through(stag)) for name, stag in INVALID.items()),
    *(Row(19, f"Write, {name}", (1, 1, 2), write_through(stag)) for name, stag in FOREIGN.items()),
    Row(20, "Write, right missing", (0, 1, 2), lambda lab: [write(lab.spare(Right.REMOTE_READ), 0x70000)]),
    Row(20, "Write, only local write", (0, 1, 2), lambda lab: [write(lab.spare(Right.LOCAL_WRITE), 0x70000)]),
    Row(20, "Write, window without it", (0, 1, 2), lambda lab: [write(lab.window(rights=Right.REMOTE_READ), 0x10000)]),
    Row(21, "Write wraps", (1, 1, 3), lambda lab: [write(lab.side.stag, TOP - 4)]),
    *(Row(22, f"Write, {name}", (1, 1, 1), write_spare(*place)) for name, place in PLACES.items()),
    Row(22, "Write, ends at the top of the addresses", (1, 1, 1), lambda lab: [write(lab.side.stag, TOP - 8)]),
    Row(22, "Write, outside the window", (1, 1, 1), lambda lab: [write(lab.window(), 0x10000 + 256)]),
]

READS = [
    *(Row(24, f"Read, {name}", (0, 1, 0), read_through(stag), echo="read") for name, stag in INVALID.items()),
    *(Row(25, f"Read, {name}", (0, 1, 3), read_through(stag), echo="read") for name, stag in FOREIGN.items()),
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
            read_spare(*place),
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
    Row(
        32,
        "ends at once, to another sink: nothing of an empty segment is looked at",
        (1, 1, 1),
        lambda lab: [response(lab, b"", stag=0x112201, to=99)],
        read=FAILED_READ,
    ),
]

CANNOT_INVALIDATE: dict[str, Stag] = {
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
            invalidate_through(stag),
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
            invalidate_through(stag),
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
