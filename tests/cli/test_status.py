"""`softndk status`: what another process of the same user sees of a running one."""

import json
import os
import subprocess
import sys
from typing import Any

import pytest

import softndk
from softndk.testing import fail_adapter, pair

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="softndk status needs Linux")


def run_status(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "softndk.cli", "status", *arguments],
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )


def answers() -> list[dict[str, Any]]:
    """What the command says of this very process, one object per adapter."""
    done = run_status(str(os.getpid()), "--json")
    assert done.returncode == 0, done.stderr
    return [json.loads(line) for line in done.stdout.splitlines()]


def test_connections_of_both_adapters_are_told_with_addresses_state_and_owner() -> None:
    with pair() as (a, b):
        told = {tuple(entry["local"]): entry for answer in answers() for entry in answer["connections"]}
        for end in (a, b):
            entry = told[end.connector.local_address]
            assert tuple(entry["remote"]) == end.connector.peer_address
            assert entry["state"] == "connected"
            assert entry["owner_pid"] == os.getpid()
            assert entry["qp"] == end.qp.name


def test_adapters_of_one_process_are_told_apart() -> None:
    with pair() as (a, b):
        of_connector = {
            tuple(entry["local"]): answer["adapter"] for answer in answers() for entry in answer["connections"]
        }
        assert a.adapter.name != b.adapter.name
        for end in (a, b):
            assert of_connector[end.connector.local_address] == end.adapter.name
        printed = run_status(str(os.getpid())).stdout
        for end in (a, b):
            assert f"process {os.getpid()}, {end.adapter.name} on 127.0.0.1" in printed


def test_statistics_are_those_that_the_process_itself_sees() -> None:
    with pair() as (a, b):
        for here, there in ((a, b), (b, a)):  # both ways, or a side that has heard nothing may send more meanwhile
            there.qp.receive(there.mr[0:64])
            here.qp.send(b"x" * 64)
            here.cq.wait(10)
            there.cq.wait(10)
        seen = [answer["statistics"] for answer in answers()]
        for end in (a, b):
            own = end.adapter.query_statistics()
            assert any(item["rdma_in_octets"] == own.rdma_in_octets and item["connect"] == own.connect for item in seen)


def test_listeners_and_shared_endpoints_are_endpoints() -> None:
    with softndk.open_adapter() as adapter:
        listener = adapter.listen()
        endpoint = adapter.create_shared_endpoint(("127.0.0.1", 0))
        (answer,) = answers()
        kinds = {tuple(entry["local"]): entry["listener"] for entry in answer["endpoints"]}
        assert kinds == {listener.local_address: True, endpoint.local_address: False}
        assert [item.local for item in adapter.query_local_endpoints() if item.listener] == [listener.local_address]


def test_an_adapter_that_has_failed_says_so_and_why() -> None:
    with pair() as (a, _):
        fail_adapter(a.adapter, why="it got too hot")
        well, failed = sorted(answer["failure"] or "" for answer in answers())
        assert (well, "it got too hot" in failed) == ("", True)
        assert "it got too hot" in " ".join(run_status(str(os.getpid())).stdout.split())


def test_a_closed_adapter_is_not_told_any_more() -> None:
    with softndk.open_adapter() as adapter:
        adapter.listen()
    done = run_status(str(os.getpid()))
    assert done.returncode == 1
    assert str(os.getpid()) in done.stderr


def test_for_people_it_prints_tables() -> None:
    with pair() as (a, _):
        done = run_status(str(os.getpid()), "--objects")
        assert done.returncode == 0
        host, port = a.connector.local_address
        assert f"{host}:{port}" in done.stdout
        assert "rdma in octets" in done.stdout
        assert repr(a.cq).split()[1] in done.stdout
