"""Other tests run once more, every connection recorded, and tshark judges what our ends have sent.

The raw peers of these tests break rules on purpose; what they send is not judged. Of ours nothing may be malformed, no CRC
bad, and tshark and our reader must see the same operations, packet by packet. Left out is what tshark is known to misread
(docs/explain/wireshark.md): connections with markers, and Terminates of RDMAP that return a tagged header.
"""

import json
import os
import subprocess
import sys
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

import pytest

from softndk.trace import Frame, read_frames
from tests.tshark_judge import CHECKSUMS, HEURISTICS_FIRST, judge, tshark, tshark_path

pytestmark = pytest.mark.judge

ROOT = Path(__file__).parents[2]
OPTIONS = (
    *CHECKSUMS,
    *HEURISTICS_FIRST,
    *("--disable-heuristic", "rpcrdma_iwarp"),  # they take short Sends for their own (docs/explain/wireshark.md)
    *("--disable-heuristic", "smb_direct_iwarp"),
)
SOON = ["tests/ndk/test_send_and_invalidate.py", "tests/ndk/test_deferred.py"]
LATER = {
    "objects": ["tests/ndk"],
    "conformance": ["src/softndk/conformance"],
    "attacks": [
        f"tests/attack/test_{name}.py" for name in ("callbacks", "closing", "monkeys", "queues_under_fire", "tasks")
    ],
}
ENDS = ("FIN", "reset")


@dataclass(frozen=True)
class Judgement:
    """Of one capture: the operations that our ends have sent, and what is wrong with them."""

    names: Counter[str]
    faults: list[str]


def run(directory: Path, tests: list[str]) -> list[Path]:
    """Run these tests with a capture for each module."""
    tshark_path()
    environment = {name: value for name, value in os.environ.items() if not name.startswith("PYTEST_")}
    command = [sys.executable, "-m", "pytest", "-q", "-p", "tests.capturing", "-p", "no:cacheprovider"]
    done = subprocess.run(
        [*command, "--captures", str(directory), *tests],
        capture_output=True,
        text=True,
        check=False,
        cwd=ROOT,
        env=environment,
    )
    assert done.returncode == 0, done.stdout[-4000:]
    return sorted(directory.glob("*.pcapng"))


def judged(capture: Path) -> Judgement:
    ends = {(tuple(local), tuple(peer)) for local, peer in json.loads(capture.with_suffix(".json").read_text())}
    frames = list(read_frames(capture))
    way_of = ways(capture)
    marked = {frozenset(way_of[frame.number]) for frame in frames if frame.details.get("markers")}
    sent = {number for number, way in way_of.items() if way in ends and frozenset(way) not in marked}
    misread = {frame.number for frame in frames if misread_terminate(frame)}
    verdict = judge(capture, *OPTIONS)
    theirs = {(each.packet, each.name) for each in verdict.operations if each.packet in sent}
    ours = {(frame.number, frame.kind) for frame in frames if frame.number in sent and frame.kind not in ENDS}
    faults = [
        *(complaint for complaint in verdict.complaints if packet_of(complaint) in sent - misread),
        *(f"packet {each.packet}: bad CRC" for each in verdict.operations if each.crc == "bad" and each.packet in sent),
        *(f"packet {number}: only our reader sees {name}" for number, name in sorted(ours - theirs)),
        *(f"packet {number}: only tshark sees {name}" for number, name in sorted(theirs - ours)),
    ]
    return Judgement(Counter(name for _, name in theirs), [f"{capture.name}: {fault}" for fault in faults])


def misread_terminate(frame: Frame) -> bool:
    details = frame.details
    header = bytes.fromhex(str(details.get("ddp_header", "")))
    return details.get("layer") == 0 and len(header) == 14


def packet_of(complaint: str) -> int:
    return int(complaint.removeprefix("packet ").partition(":")[0])


Way = tuple[tuple[str, int], tuple[str, int]]


def ways(capture: Path) -> dict[int, Way]:
    """From where to where each packet goes, by its number."""
    names = ("frame.number", "ip.src", "ipv6.src", "tcp.srcport", "ip.dst", "ipv6.dst", "tcp.dstport")
    columns = [argument for name in names for argument in ("-e", name)]
    found = {}
    for line in tshark(capture, "-T", "fields", *columns).splitlines():
        number, source, source6, port, target, target6, target_port = line.split("\t")
        found[int(number)] = (source or source6, int(port)), (target or target6, int(target_port))
    return found


def test_what_some_tests_emit(tmp_path: Path) -> None:
    judgements = [judged(capture) for capture in run(tmp_path, SOON)]
    assert [fault for judgement in judgements for fault in judgement.faults] == []
    names = sum((judgement.names for judgement in judgements), Counter[str]())
    assert {
        "MPA request",
        "MPA reply",
        "Send",
        "Send with Invalidate",
        "Send with Solicited Event",
        "Send with SE and Invalidate",
        "RDMA Write",
        "RDMA Read Request",
        "RDMA Read Response",
        "Terminate",
    } <= set(names)
    assert names.total() > 500


@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.parametrize("tests", LATER)
def test_what_the_others_emit(tmp_path: Path, tests: str) -> None:
    judgements = [judged(capture) for capture in run(tmp_path, LATER[tests])]
    assert [fault for judgement in judgements for fault in judgement.faults] == []
    assert sum(judgement.names.total() for judgement in judgements) > 3000
