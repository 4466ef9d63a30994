"""`softndk info`: every limit, with its unit, for people and for programs."""

import json
from dataclasses import fields

import pytest

from softndk import AdapterInfo, IwarpConfig
from softndk.cli.info import ADAPTER_ROWS, CONFIG_ROWS
from tests.cli.processes import run


def test_every_field_has_a_row() -> None:
    assert [item.name for item in fields(AdapterInfo)] == list(ADAPTER_ROWS)
    assert [item.name for item in fields(IwarpConfig)] == list(CONFIG_ROWS)


def test_every_time_is_in_seconds() -> None:
    assert {row.unit for name, row in CONFIG_ROWS.items() if name.endswith("_s")} == {"s"}


def test_table() -> None:
    done = run("info")
    assert (done.returncode, done.stderr) == (0, "")
    rows = {
        cells[0]: cells[1:]
        for cells in ([cell.strip() for cell in line.split("│")[1:-1]] for line in done.stdout.splitlines())
        if cells
    }
    assert set(ADAPTER_ROWS) | set(CONFIG_ROWS) <= set(rows)
    assert rows["max_transfer_length"][:2] == ["1,073,741,824", "octets"]
    assert rows["connect_timeout_s"][:2] == ["10", "s"]
    assert rows["version"][0] == "2.1"
    assert rows["rdma_technology"][0] == "IWARP"
    assert "LOOPBACK_CONNECTIONS_SUPPORTED" in done.stdout
    assert "\x1b" not in done.stdout


def test_json() -> None:
    done = run("info", "--json")
    found = json.loads(done.stdout)
    assert set(found) == {"address", "datapath", "softndk", "adapter", "config"}
    assert found["address"] == "127.0.0.1"
    assert set(found["adapter"]) == set(ADAPTER_ROWS)
    assert set(found["config"]) == set(CONFIG_ROWS)
    assert found["adapter"]["version"] == "2.1"
    assert found["adapter"]["max_transfer_length"] == 1 << 30
    assert "IN_ORDER_DMA_SUPPORTED" in found["adapter"]["adapter_flags"]
    assert found["config"]["crc"] is True
    assert found["config"]["max_fpdu"] is None


@pytest.mark.parametrize("version", ["1.2", "2.1"])
def test_version_and_address(version: str) -> None:
    found = json.loads(run("info", "--json", "--version", version, "--address", "::1").stdout)
    assert (found["adapter"]["version"], found["address"]) == (version, "::1")


@pytest.mark.parametrize("address", ["nonsense", "192.0.2.1", ""])
def test_an_address_that_cannot_be(address: str) -> None:
    done = run("info", "--address", address)
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr.startswith("softndk: open_adapter: address")
