"""tshark's view of what `softndk peer` sends: what is meant to be right is, and what is meant to be wrong is in just that."""

from pathlib import Path

import pytest

from tests.cli.processes import run, server
from tests.tshark_judge import judge

pytestmark = pytest.mark.judge


def test_a_right_scenario(tmp_path: Path) -> None:
    path = tmp_path / "peer.pcapng"
    with server("--rping", "--port", 0) as (_, target):
        assert run("peer", "run", "--rping", "rping-client", target, "--trace", path).returncode == 0
    verdict = judge(path)
    assert verdict.names[:4] == ["MPA request", "MPA reply", "Send", "RDMA Read Request"]
    assert verdict.names[4:] == ["RDMA Read Response", "Send", "Send", "RDMA Write", "Send"]
    assert set(verdict.crcs) == {"good"}
    assert verdict.complaints == []
    assert "scenario rping-client" in verdict.comments


def test_wrong_ones(tmp_path: Path) -> None:
    """A damaged CRC is the only one; a wrong MSN comes with a good CRC and the number that was asked for."""
    path = tmp_path / "peer.pcapng"
    with server("--rping", "--port", 0) as (_, target):
        assert run("peer", "run", "bad-crc", "wrong-msn", target, "--trace", path).returncode == 0
    verdict = judge(path)
    bad = [operation for operation in verdict.operations if operation.crc == "bad"]
    assert [operation.name for operation in bad] == ["RDMA Write"]
    [send] = [operation for operation in verdict.operations if operation.name == "Send"]
    assert (send.crc, int(send.fields["iwarp_ddp.msn"], 0)) == ("good", 7)
