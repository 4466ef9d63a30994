"""tshark as an outside judge: what it sees in a capture, by its own reading and its default options.

Knows tshark's names of things, and nothing of softndk. Personal settings of whoever runs the tests have no effect.
"""

import os
import shutil
import subprocess
import tempfile
from dataclasses import dataclass, field
from pathlib import Path
from xml.etree import ElementTree

import pytest

HEURISTICS_FIRST = ("-o", "tcp.try_heuristic_first:TRUE")
"""For captures on ports that belong to other protocols."""

CHECKSUMS = ("-o", "ip.check_checksum:TRUE", "-o", "tcp.check_checksum:TRUE")

OPERATIONS = {
    0: "RDMA Write",
    1: "RDMA Read Request",
    2: "RDMA Read Response",
    3: "Send",
    4: "Send with Invalidate",
    5: "Send with Solicited Event",
    6: "Send with SE and Invalidate",
    7: "Terminate",
    8: "Immediate Data",
    9: "Immediate Data with SE",
    10: "Atomic Request",
    11: "Atomic Response",
}
"""RDMAP opcodes as RFC 5040 and RFC 7306 number them."""


KNOWN_REMARKS = (
    # RFC 6581 made a flag of a reserved bit and raised the revision to 2; this dissector knows RFC 5044 only.
    "Res field is NOT set to zero as required by RFC 5044",
    "Rev field is NOT set to one as required by RFC 5044",
    # True, and no fault.
    "This frame initiates the connection closing",
    "This frame undergoes the connection closing",
    "Connection reset (RST)",
    "A new tcp session is started with the same ports as an earlier session in this trace",
)


@dataclass
class Operation:
    """One start-up frame or FPDU. `crc`: "good", "bad", or "" where tshark does not check one."""

    packet: int
    name: str
    crc: str = ""
    fields: dict[str, str] = field(default_factory=dict)


@dataclass
class Verdict:
    """What the tests ask for. `complaints`: malformed packets, bad checksums, remarks that mean a fault."""

    operations: list[Operation] = field(default_factory=list)
    complaints: list[str] = field(default_factory=list)
    protocols: list[str] = field(default_factory=list)
    comments: list[str] = field(default_factory=list)

    @property
    def names(self) -> list[str]:
        return [operation.name for operation in self.operations]

    @property
    def crcs(self) -> list[str]:
        return [operation.crc for operation in self.operations if not operation.name.startswith("MPA")]


def tshark_path() -> str:
    """Where tshark is; without it the test is skipped, in CI it fails."""
    path = shutil.which("tshark")
    if path is None:
        reason = "tshark is not installed"
        if os.environ.get("CI", "").lower() not in ("", "0", "false"):
            pytest.fail(f"{reason}, and CI needs its judgement")
        pytest.skip(reason)
    return path


def tshark(capture: Path, *arguments: str) -> str:
    """What tshark prints about a capture. It must say nothing on the error channel but who runs it."""
    with tempfile.TemporaryDirectory() as settings:
        done = subprocess.run(
            [tshark_path(), "-r", str(capture), *arguments],
            capture_output=True,
            text=True,
            check=False,
            env={"PATH": os.environ["PATH"], "HOME": settings, "WIRESHARK_CONFIG_DIR": settings, "LC_ALL": "C"},
        )
    said = [line for line in done.stderr.splitlines() if "could be dangerous" not in line]
    assert done.returncode == 0, done.stderr
    assert not said, done.stderr
    return done.stdout


def judge(capture: Path, *options: str) -> Verdict:
    """Let tshark dissect a whole capture."""
    verdict = Verdict()
    for packet in ElementTree.fromstring(tshark(capture, *options, "-T", "pdml")).iter("packet"):
        number = 0
        for proto in packet.findall("proto"):
            name = proto.get("name", "")
            shown = {each.get("name", ""): each for each in proto.iter("field")}
            if name == "geninfo":
                number = int(shown["num"].get("show", ""))
            elif name == "frame":
                verdict.protocols.append(shown["frame.protocols"].get("show", ""))
            elif name == "pkt_comment":
                verdict.comments.append(shown["frame.comment"].get("show", ""))
            elif name == "iwarp_mpa":
                _mpa(verdict, number, shown)
            elif name == "iwarp_ddp_rdmap":
                _ddp(verdict, shown)
        verdict.complaints += _complaints(packet, number)
    return verdict


def _mpa(verdict: Verdict, number: int, shown: dict[str, ElementTree.Element]) -> None:
    if "iwarp_mpa.key.req" in shown:
        verdict.operations.append(Operation(number, "MPA request"))
    elif "iwarp_mpa.key.rep" in shown:
        verdict.operations.append(Operation(number, "MPA reply"))
    else:
        check = shown.get("iwarp_mpa.crc_check")
        text = check.get("showname", "") if check is not None else ""
        crc = "good" if "Good CRC32" in text else "bad" if "Bad CRC32" in text else ""
        verdict.operations.append(Operation(number, "FPDU", crc, _iwarp_fields(shown)))


def _ddp(verdict: Verdict, shown: dict[str, ElementTree.Element]) -> None:
    operation = verdict.operations[-1]
    if "iwarp_rdma.opcode" not in shown:
        operation.name = "cut off"
        return
    operation.name = OPERATIONS.get(int(shown["iwarp_rdma.opcode"].get("show", ""), 16), "unknown opcode")
    operation.fields |= _iwarp_fields(shown)


def _iwarp_fields(shown: dict[str, ElementTree.Element]) -> dict[str, str]:
    return {name: each.get("show", "") for name, each in shown.items() if name.startswith("iwarp_")}


def _complaints(packet: ElementTree.Element, number: int) -> list[str]:
    found = [f"packet {number}: malformed" for proto in packet.iter("proto") if proto.get("name") == "_ws.malformed"]
    for each in packet.iter("field"):
        name = each.get("name", "")
        if name == "_ws.expert":
            text = each.get("showname", "").removeprefix("Expert Info ")
            if not text.startswith(("(Chat", "(Comment")) and not text.endswith(KNOWN_REMARKS):
                found.append(f"packet {number}: {text}")
        elif name.endswith(".checksum.status") and each.get("show") == "0":
            found.append(f"packet {number}: {name} {each.get('showname')}")
    return found
