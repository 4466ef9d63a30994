"""tshark's view of a whole `softndk ping`: right CRCs, right operations, and no message taken for another protocol."""

from pathlib import Path

import pytest

from tests.cli.processes import run, server
from tests.tshark_judge import judge

pytestmark = pytest.mark.judge

ONE_ROUND = ["Send", "RDMA Read Request", "RDMA Read Response", "RDMA Write", "Send with Invalidate"]


@pytest.mark.parametrize("size", [1, 64, 1000])
def test_ping(tmp_path: Path, size: int) -> None:
    path = tmp_path / "ping.pcapng"
    with server("--once") as (process, target):
        assert run("ping", target, "--count", 20, "--size", size, "--trace", path).returncode == 0
        assert process.end() == 0
    verdict = judge(path)
    names = verdict.names
    assert names[:2] == ["MPA request", "MPA reply"]
    start = names.index("Send")
    assert names[start:] == [*ONE_ROUND * 20, "Send"]
    assert set(verdict.crcs) == {"good"}
    assert verdict.complaints == []
    carried = {protocols.split(":tcp")[-1] for protocols in verdict.protocols if "ddp" in protocols}
    assert all(each.endswith(("iwarp_ddp_rdmap", "iwarp_ddp_rdmap:data")) for each in carried)
