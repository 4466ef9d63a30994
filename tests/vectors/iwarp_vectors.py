"""Reads iwarp.json: start-up frames, FPDUs and checksums with the values they stand for.

The octets are worked examples, not recordings of this code's output. Each FPDU's `expected` names its opcode,
its DDP header (`tagged` or `untagged`), its payload in hex, and for some the meaning of the payload.
"""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

_DATA: dict[str, list[dict[str, Any]]] = json.loads(Path(__file__).with_name("iwarp.json").read_text(encoding="utf-8"))


@dataclass(frozen=True)
class Frame:
    """A start-up frame or an FPDU: `octets` as on the wire, `expected` its fields."""

    name: str
    octets: bytes
    expected: dict[str, Any]

    def __str__(self) -> str:
        return self.name


@dataclass(frozen=True)
class Checksum:
    """`value` is the number, `sent` its octets as on the wire."""

    name: str
    data: bytes
    value: int
    sent: bytes

    def __str__(self) -> str:
        return self.name


def _frames(kind: str) -> list[Frame]:
    return [
        Frame(entry["name"], bytes.fromhex(entry["hex"]), entry["expected"])
        for entry in _DATA["frames"]
        if entry["kind"] == kind
    ]


STARTUP_FRAMES = _frames("startup")
FPDUS = _frames("fpdu")
CHECKSUMS = [
    Checksum(
        entry["name"],
        bytes.fromhex(entry["data"]),
        int(entry["value"], 16),
        bytes.fromhex(entry["sent"]),
    )
    for entry in _DATA["crc32c"]
]


def named(beginning: str) -> Frame:
    """The one frame whose name begins like that."""
    (frame,) = [frame for frame in STARTUP_FRAMES + FPDUS if frame.name.startswith(beginning)]
    return frame


def ulpdu_of(fpdu: Frame) -> bytes:
    """The ULPDU of an FPDU without markers, taken out by its length field alone."""
    assert "markers" not in fpdu.expected
    return fpdu.octets[2 : 2 + int.from_bytes(fpdu.octets[:2], "big")]


UNMARKED_FPDUS = [fpdu for fpdu in FPDUS if "markers" not in fpdu.expected]
MARKED_FPDUS = [fpdu for fpdu in FPDUS if "markers" in fpdu.expected]
