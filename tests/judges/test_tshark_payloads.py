"""Which Sends and which ports tshark takes for something else: the rules of docs/explain/wireshark.md hold.

Only what is safe is tested: that other payloads are taken for other protocols is a habit of some versions of tshark.
"""

from collections.abc import Sequence
from pathlib import Path

import pytest

from softndk.trace import CaptureWriter
from tests.tshark_judge import HEURISTICS_FIRST, judge
from tests.vectors.fpdu_model import stream
from tests.vectors.iwarp_vectors import named

pytestmark = pytest.mark.judge

REQUEST = named("MPA v2 request").octets
REPLY = named("MPA v2 reply: C=1 S=1").octets

SEND, SEND_INVALIDATE, SEND_SE, SEND_SE_INVALIDATE = 3, 4, 5, 6
NAMES = {
    SEND: "Send",
    SEND_INVALIDATE: "Send with Invalidate",
    SEND_SE: "Send with Solicited Event",
    SEND_SE_INVALIDATE: "Send with SE and Invalidate",
}
HEURISTICS_OFF = ("--disable-heuristic", "rpcrdma_iwarp", "--disable-heuristic", "smb_direct_iwarp")


def record(path: Path, messages: Sequence[tuple[int, bytes]], ports: tuple[int, int] = (40001, 5791)) -> None:
    """A stream of Sends: opcode and payload of each."""
    ulpdus = []
    for msn, (opcode, payload) in enumerate(messages, 1):
        words = (0x1234, 0, msn, 0)
        ulpdus.append(bytes([0x41, 0x40 | opcode]) + b"".join(word.to_bytes(4, "big") for word in words) + payload)
    with CaptureWriter(path) as writer:
        tap = writer.stream(("10.1.0.1", ports[0]), ("10.1.0.2", ports[1]), active=True)
        tap.sent(REQUEST)
        tap.received(REPLY)
        tap.sent(stream(ulpdus, crc=True, markers=False))
        tap.closed()


def safe(opcode: int, payload: bytes) -> bool:
    """The rule that the documentation gives: does tshark leave a Send with this payload alone?"""
    if opcode in (SEND, SEND_INVALIDATE) and (len(payload) < 16 or int.from_bytes(payload[12:16], "big") <= 4):
        return False
    return not (len(payload) >= 20 and payload[1] <= 1 and payload[3] <= 1)


PAYLOADS = [
    *(b"softndk: some text that is long enough for each of these lengths "[:size] for size in range(65)),
    *(b"\xff" * size for size in (16, 20, 24, 28, 32, 64)),
    *(bytes([0, 1] * 40)[:size] for size in (16, 17, 19)),
    *(bytes(range(1, 41))[:size] for size in (16, 20, 32, 40)),
    *(b"x" * 12 + word.to_bytes(4, "big") + b"y" * 48 for word in (0, 1, 2, 3, 4, 5, 255, 0x80000000)),
    bytes(16),
    bytes(20),
    bytes(64),
]


@pytest.mark.parametrize("opcode", NAMES)
def test_payloads_that_the_rule_calls_safe(tmp_path: Path, opcode: int) -> None:
    payloads = [payload for payload in PAYLOADS if safe(opcode, payload)]
    assert len(payloads) > 50
    path = tmp_path / "safe.pcapng"
    record(path, [(opcode, payload) for payload in payloads])
    verdict = judge(path)
    assert verdict.names == ["MPA request", "MPA reply", *[NAMES[opcode]] * len(payloads)]
    assert verdict.complaints == []
    ends = {protocols.split(":tcp:")[-1] for protocols in verdict.protocols[5:]}
    assert ends <= {"iwarp_mpa:iwarp_ddp_rdmap:data", "iwarp_mpa:iwarp_ddp_rdmap"}


def test_any_payload_with_the_two_heuristics_off(tmp_path: Path) -> None:
    messages = [(opcode, payload) for opcode in NAMES for payload in PAYLOADS]
    path = tmp_path / "any.pcapng"
    record(path, messages)
    verdict = judge(path, *HEURISTICS_OFF)
    assert verdict.names[2:] == [NAMES[opcode] for opcode, _ in messages]
    assert verdict.complaints == []
    for (_, payload), protocols in zip(messages, verdict.protocols[5:], strict=True):
        assert protocols.endswith("iwarp_ddp_rdmap:data" if payload else "iwarp_ddp_rdmap")


@pytest.mark.parametrize("port", [1024, 4791, 5791, 7174, 18515, 20049, 50000])
def test_ports_of_no_other_protocol(tmp_path: Path, port: int) -> None:
    path = tmp_path / "port.pcapng"
    record(path, [(SEND, b"sixteen octets and more")], (40001, port))
    assert judge(path).names == ["MPA request", "MPA reply", "Send"]


@pytest.mark.parametrize("ports", [(40001, 4420), (40001, 445), (40001, 5445), (34980, 5791)])
def test_taken_ports_with_heuristics_first(tmp_path: Path, ports: tuple[int, int]) -> None:
    path = tmp_path / "port.pcapng"
    record(path, [(SEND, b"sixteen octets and more")], ports)
    assert judge(path, *HEURISTICS_FIRST).names == ["MPA request", "MPA reply", "Send"]
