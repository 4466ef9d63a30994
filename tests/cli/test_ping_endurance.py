"""Long runs of `softndk ping` between two processes: no mismatch, and no memory that grows.

`pytest -m slow -s tests/cli/test_ping_endurance.py` shows the numbers as they come; the report's "Captured stdout" and
the properties of each test (`--junit-xml`) have them too.
"""

import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.cli.processes import Process, server, started

pytestmark = [
    pytest.mark.slow,
    pytest.mark.timeout(1800),
    pytest.mark.skipif(not sys.platform.startswith("linux"), reason="reads /proc"),
]

SAMPLE_S = 0.05
ALLOWED_GROWTH = 1 << 20
"""Octets between a tenth of the run and its end: allocators breathe, a leak of 10 octets a round would be caught."""


def rss_octets(process: Process) -> int | None:
    """Resident memory now; None once the process has ended."""
    try:
        lines = Path(f"/proc/{process.process.pid}/status").read_text(encoding="ascii").splitlines()
    except OSError:
        return None
    for line in lines:
        if line.startswith("VmRSS:"):
            return int(line.split()[1]) * 1024
    return None


@dataclass(frozen=True)
class Sample:
    """Memory of both sides at one time."""

    at: float
    client: int
    server: int


def watch(client: Process, serving: Process) -> list[Sample]:
    """Memory of both, until the client has ended."""
    samples: list[Sample] = []
    while True:
        try:
            client.process.wait(SAMPLE_S)
        except subprocess.TimeoutExpired:
            mine, other = rss_octets(client), rss_octets(serving)
            if mine is not None and other is not None:
                samples.append(Sample(time.monotonic(), mine, other))
        else:
            return samples


@pytest.mark.parametrize(
    ("count", "size", "octets"), [(100_000, "64", 64), (1_000, "1M", 1 << 20)], ids=["100000x64", "1000x1M"]
)
def test_endurance(count: int, size: str, octets: int, record_property: Callable[[str, object], None]) -> None:
    with (
        server("--once", "--json") as (serving, target),
        started("ping", target, "--count", count, "--size", size, "--json") as client,
    ):
        samples = watch(client, serving)
        assert client.end() == 0
        assert serving.end() == 0
        mine, other = client.result(), serving.result()
    last = samples[-1]
    first = next(sample for sample in samples if sample.at >= last.at - 0.9 * mine["seconds"])
    times = mine["round_trip_us"]
    told = {
        "rounds/s": mine["rounds_per_second"],
        "MB/s": round(mine["octets_per_second"] / 1e6, 2),
        "round trip us min/avg/max/p99": "/".join(str(times[name]) for name in ("min", "avg", "max", "p99")),
        "client RSS MiB at 10 %, at the end": f"{first.client / 2**20:.2f}, {last.client / 2**20:.2f}",
        "server RSS MiB at 10 %, at the end": f"{first.server / 2**20:.2f}, {last.server / 2**20:.2f}",
    }
    print(f"\n{count} rounds of {octets} octets each way in {mine['seconds']:.1f} s")
    for name, value in told.items():
        print(f"  {name}: {value}")
        record_property(name, value)
    for found in (mine, other):
        assert (found["rounds"], found["mismatches"]) == (count, 0)
        assert found["octets"] == 2 * octets * count
    assert len(samples) > 10
    assert last.client - first.client < ALLOWED_GROWTH
    assert last.server - first.server < ALLOWED_GROWTH
