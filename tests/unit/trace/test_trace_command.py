"""`softndk trace FILE` as a person uses it."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from softndk.cli import main
from softndk.trace import CaptureWriter
from tests.vectors.iwarp_vectors import named

DATA = Path(__file__).parents[2] / "data"


def run(*arguments: str | Path) -> Result:
    return CliRunner().invoke(main, ["trace", *map(str, arguments)])


@pytest.fixture
def capture(tmp_path: Path) -> Path:
    path = tmp_path / "trace.pcapng"
    stamps = iter(range(1_000_000_000, 9_000_000_000, 1_500_000))
    with CaptureWriter(path, clock=lambda: next(stamps)) as writer:
        tap = writer.stream(("fd00::1", 40001), ("fd00::2", 5791), active=True)
        tap.sent(named("MPA v2 request").octets)
        tap.received(named("MPA v2 reply: C=1 S=1").octets)
        tap.sent(named("Send with SE and Invalidate").octets)
        tap.received(named("Terminate for it: RDMAP (0) / Remote Operation").octets[:-1] + b"\0")
    return path


def test_one_aligned_line_per_frame(capture: Path) -> None:
    result = run(capture)
    assert result.exit_code == 0
    lines = result.stdout.splitlines()
    assert [line.split()[0] for line in lines] == ["4", "5", "6", "7"]
    assert lines[0].split()[1:5] == ["0.000000", "[fd00::1]:40001", ">", "[fd00::2]:5791"]
    assert lines[1].split()[1] == "0.001500"
    assert len({line.index("[") for line in lines}) == 1
    summaries = [
        "revision 2",
        "revision 2",
        "MSN 2 invalidates 0x12345678",
        "RDMAP remote operation error: STag cannot",
    ]
    places = {line.index(summary) for line, summary in zip(lines, summaries, strict=True)}
    assert len(places) == 1
    assert ["CRC good" in line for line in lines] == [False, False, True, False]
    assert ["CRC BAD" in line for line in lines] == [False, False, False, True]
    assert "\x1b" not in result.stdout


def test_json(capture: Path) -> None:
    frames = [json.loads(line) for line in run(capture, "--json").stdout.splitlines()]
    assert [frame["kind"] for frame in frames] == [
        "MPA request",
        "MPA reply",
        "Send with SE and Invalidate",
        "Terminate",
    ]
    assert frames[2]["details"]["invalidate_stag"] == 0x12345678
    assert "payload" not in frames[2]
    frames = [json.loads(line) for line in run(capture, "--json", "--payload").stdout.splitlines()]
    assert bytes.fromhex(frames[2]["payload"]) == b"DONE"


def test_payload() -> None:
    lines = run("--payload", DATA / "siw_rping_plain.pcap").stdout.splitlines()
    shown = [line.split() for line in lines if line.startswith(" " * 19)]
    assert [len(words) for words in shown[:3]] == [4, 7, 9]
    assert shown[2][-1] == "..."


@pytest.mark.parametrize(
    ("content", "complaint"),
    [(b"no capture", "not a capture file"), (b"", "not a capture file"), (b"\xd4\xc3\xb2\xa1\x02", "file header")],
)
def test_bad_files(tmp_path: Path, content: bytes, complaint: str) -> None:
    path = tmp_path / "bad"
    path.write_bytes(content)
    result = run(path)
    assert result.exit_code == 1
    assert complaint in result.output
    assert "Traceback" not in result.output
    assert isinstance(result.exception, SystemExit)


def test_a_file_that_ends_in_a_packet_is_shown_so_far(capture: Path) -> None:
    capture.write_bytes(capture.read_bytes()[:-3])
    result = run(capture)
    assert result.exit_code == 1
    assert len(result.stdout.splitlines()) == 3
    assert "ends inside" in result.stderr


def test_files_that_are_not_there_and_files_without_iwarp(tmp_path: Path) -> None:
    assert run(tmp_path / "missing").exit_code == 2
    path = tmp_path / "empty.pcapng"
    CaptureWriter(path).close()
    result = run(path)
    assert (result.exit_code, result.stdout) == (0, "")
    assert "no iWARP stream" in result.stderr


def test_a_reader_that_goes_away() -> None:
    """As in `softndk trace FILE | head -1`: no complaint."""
    program = "from softndk.cli.trace import trace; trace()"
    command = [sys.executable, "-c", program, str(DATA / "siw_nvme_crc_p2p.pcap"), "--payload"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        assert b"MPA request" in process.stdout.readline()
        process.stdout.close()
        assert process.stderr.read() == b""
        assert process.wait() == 0
