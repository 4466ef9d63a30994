"""The rows of the error table that Immediate Data and atomics add (RFC 7306), and a side that has neither."""

import sys
from collections.abc import Sequence

from softndk.memory.tokens import Right
from softndk.status import Status
from softndk.wire.rdmap import Opcode
from tests.conformance.error_rows import (
    FOREIGN,
    INVALID,
    TOP,
    Lab,
    Row,
    Sent,
    Stag,
    just,
    response,
    send,
    with_control,
    write,
)
from tests.pair.core_pair import ALL_RIGHTS
from tests.pair.raw_peer import atomic_request, atomic_response, read_request, untagged

EXTENSIONS = (Opcode.IMMEDIATE, Opcode.IMMEDIATE_SE, Opcode.ATOMIC_REQUEST, Opcode.ATOMIC_RESPONSE)
BODIES = {8: 8, 9: 8, 10: 52, 11: 12}
ATOMIC = Right.REMOTE_ATOMIC | Right.LOCAL_WRITE
SPARE = 0x70000


def immediate(length: int = 8, msn: int = 1, *, mo: int = 0, last: bool = True) -> bytes:
    return untagged(Opcode.IMMEDIATE, msn, bytes(range(length)), mo=mo, last=last)


def atomic_spare(to: int, rights: Right = ATOMIC) -> Sent:
    """A FetchAdd at that distance from the spare region's base."""
    return lambda lab: [atomic_request(1, lab.spare(rights), SPARE + to)]


def atomic_through(stag: Stag) -> Sent:
    return lambda lab: [atomic_request(1, stag(lab), lab.side.base)]


def fetch(kind: Opcode, msn: int, lab: Lab, stag: int) -> bytes:
    if kind is Opcode.ATOMIC_REQUEST:
        return atomic_request(msn, stag, SPARE)
    return read_request(msn, 8, lab.side.stag, lab.side.base)


def fetches(*kinds: Opcode) -> Sent:
    """Reads and atomics that are all allowed, in one delivery."""

    def sent(lab: Lab) -> Sequence[bytes]:
        stag = lab.spare(ATOMIC)
        return [fetch(kind, number, lab, stag) for number, kind in enumerate(kinds, 1)]

    return sent


READ, ADD = Opcode.READ_REQUEST, Opcode.ATOMIC_REQUEST

WITHOUT = [
    *(
        Row(
            8,
            f"{opcode.name} at a side without RFC 7306",
            (0, 2, 6),
            just(untagged(opcode, 1, bytes(BODIES[opcode]))),
            rfc7306=False,
        )
        for opcode in EXTENSIONS
    ),
    Row(
        10,
        "queue 3 at a side without RFC 7306",
        (1, 2, 1),
        just(untagged(Opcode.SEND, 1, qn=3)),
        rfc7306=False,
    ),
]

MODELS = [
    *(
        Row(9, f"{opcode.name} tagged", (0, 2, 6), just(with_control(write(1, 0), 0x40 | opcode)))
        for opcode in EXTENSIONS
    ),
    *(
        Row(9, f"{opcode.name} on queue {qn}", (0, 2, 6), just(untagged(opcode, 1, bytes(BODIES[opcode]), qn=qn)))
        for opcode, qn in (
            (Opcode.IMMEDIATE, 1),
            (Opcode.IMMEDIATE_SE, 3),
            (Opcode.ATOMIC_REQUEST, 0),
            (Opcode.ATOMIC_REQUEST, 3),
            (Opcode.ATOMIC_RESPONSE, 1),
            (Opcode.ATOMIC_RESPONSE, 2),
        )
    ),
    *(
        Row(
            8,
            f"atomic operation {operation}",
            (0, 2, 6),
            lambda lab, operation=operation: [  # type: ignore[misc]
                atomic_request(1, lab.spare(ATOMIC), SPARE, operation=operation)
            ],
        )
        for operation in (1, 3, 15)
    ),
    Row(
        9,
        "Immediate Data inside a Send",
        (0, 2, 6),
        lambda lab: [send(b"head", last=0), immediate(8, mo=4)],
        placed=((0, b"head"),),
    ),
]

IMMEDIATES = [
    Row(11, "Immediate Data, MSN 2 first", (1, 2, 3), just(immediate(msn=2))),
    Row(
        11, "Immediate Data, MSN of a Send", (1, 2, 3), just(send(b"one"), immediate()), placed=((0, b"one"),), taken=1
    ),
    Row(12, "Immediate Data without a receive", (1, 2, 2), just(immediate()), receives=0),
    Row(
        12,
        "one Immediate Data too many",
        (1, 2, 2),
        just(immediate(), immediate(msn=2)),
        receives=1,
        taken=1,
    ),
    Row(12, "Immediate Data of 9 octets without a receive", (1, 2, 2), just(immediate(9)), receives=0),
    Row(14, "Immediate Data at MO 4", (1, 2, 4), just(immediate(mo=4))),
    *(
        Row(17, f"Immediate Data of {length} octets", (0, 2, 7), just(immediate(length)))
        for length in (0, 7, 9, 64, 65)
    ),
    Row(17, "Immediate Data with more to come", (0, 2, 7), just(immediate(last=False))),
]

REQUESTS = [
    Row(11, "Atomic Request, MSN 2 first", (1, 2, 3), lambda lab: [atomic_request(2, lab.spare(ATOMIC), SPARE)]),
    Row(
        11,
        "Atomic Request with the MSN of a Read Request",
        (1, 2, 3),
        lambda lab: [fetch(READ, 1, lab, 0), atomic_request(1, lab.spare(ATOMIC), SPARE)],
    ),
    Row(13, "Atomic Request, IRD 0", (1, 2, 2), fetches(ADD), ird=0),
    Row(13, "an atomic behind two reads, IRD 2", (1, 2, 2), fetches(READ, READ, ADD), ird=2),
    Row(13, "a read behind two atomics, IRD 2", (1, 2, 2), fetches(ADD, ADD, READ), ird=2),
    Row(14, "Atomic Request at MO 4", (1, 2, 4), just(untagged(ADD, 1, bytes(52), mo=4))),
    Row(16, "Atomic Request body of 53 octets", (1, 2, 5), just(untagged(ADD, 1, bytes(53)))),
    Row(16, "Atomic Request with more to come", (1, 2, 5), just(untagged(ADD, 1, bytes(52), last=False))),
    *(
        Row(17, f"Atomic Request body of {length} octets", (0, 2, 7), just(untagged(ADD, 1, bytes(length))))
        for length in (0, 28, 51)
    ),
    *(Row(35, f"atomic at {to} behind the base", (0, 2, 7), atomic_spare(to)) for to in (1, 4, 7, 12, 247)),
    *(Row(36, f"atomic, {name}", (0, 1, 0), atomic_through(stag)) for name, stag in INVALID.items()),
    *(Row(36, f"atomic, {name}", (0, 1, 3), atomic_through(stag)) for name, stag in FOREIGN.items()),
    Row(36, "atomic, read and write rights only", (0, 1, 2), atomic_spare(0, ALL_RIGHTS)),
    Row(36, "atomic, local write only", (0, 1, 2), atomic_spare(0, Right.LOCAL_WRITE)),
    Row(36, "atomic, window without it", (0, 1, 2), lambda lab: [atomic_request(1, lab.window(), lab.side.base)]),
    Row(36, "atomic wraps", (0, 1, 4), atomic_spare(TOP - SPARE - 4)),
    *(
        Row(36, f"atomic at {to} from the base", (0, 1, 1), atomic_spare(to))
        for to in (-8, -4, 249, 252, 256, 1 << 40, TOP - SPARE - 8)
    ),
    Row(
        20,
        "Write through the right for atomics",
        (0, 1, 2),
        lambda lab: [write(lab.spare(ATOMIC), SPARE)],
    ),
    Row(
        26,
        "Read through the right for atomics",
        (0, 1, 2),
        lambda lab: [read_request(1, 8, lab.spare(ATOMIC), SPARE)],
        echo="read",
    ),
]


def answer(lab: Lab, *, msn: int = 1, other: int = 0, original: int = 0x0102030405060708) -> bytes:
    """The Atomic Response to A1."""
    return atomic_response(msn, lab.identifier + other, original)


ANSWERED = (0x0102030405060708).to_bytes(8, sys.byteorder)
ANSWERS = [
    Row(11, "Atomic Response, MSN 2 first", (1, 2, 3), lambda lab: [answer(lab, msn=2)], atomics=True),
    Row(
        14,
        "Atomic Response at MO 4",
        (1, 2, 4),
        just(untagged(Opcode.ATOMIC_RESPONSE, 1, bytes(12), mo=4)),
        atomics=True,
    ),
    Row(
        16,
        "Atomic Response of 13 octets",
        (1, 2, 5),
        just(untagged(Opcode.ATOMIC_RESPONSE, 1, bytes(13))),
        atomics=True,
    ),
    Row(
        17,
        "Atomic Response of 11 octets",
        (0, 2, 7),
        just(untagged(Opcode.ATOMIC_RESPONSE, 1, bytes(11))),
        atomics=True,
    ),
    Row(30, "Read Response to an atomic", (0, 2, 6), lambda lab: [response(lab, b"r" * 8)], atomics=True),
    Row(37, "Atomic Response, nothing outstanding", (0, 2, 6), lambda lab: [answer(lab)], reads=False),
    Row(37, "Atomic Response to a read", (0, 2, 6), lambda lab: [answer(lab)]),
    Row(37, "another identifier", (0, 2, 6), lambda lab: [answer(lab, other=1)], atomics=True),
    Row(
        37,
        "Atomic Response twice",
        (0, 2, 6),
        lambda lab: [answer(lab), answer(lab, msn=2)],
        atomics=True,
        read=Status.SUCCESS,
        placed=((512, ANSWERED),),
    ),
]

RFC7306_ROWS = [*WITHOUT, *MODELS, *IMMEDIATES, *REQUESTS, *ANSWERS]
