"""`softndk ping` where all goes well: rounds, options, output, exit status 0."""

import json
import os
import signal
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from softndk.trace import read_frames
from tests.cli.processes import COMMAND, environment, run, server, started

KEYS = {
    "role",
    "server",
    "size",
    "end",
    "error",
    "rounds",
    "octets",
    "mismatches",
    "seconds",
    "rounds_per_second",
    "octets_per_second",
    "round_trip_us",
    "peak_rss_octets",
}


@pytest.fixture(scope="module")
def target() -> Iterator[str]:
    """A server for the whole module: it outlives every client."""
    with server() as (process, where):
        yield where
        process.signal(signal.SIGINT)
        assert process.end() == 130
        assert "0 failed" in process.output


def test_ten_rounds_of_64_octets_unless_told_otherwise(target: str) -> None:
    done = run("ping", target)
    assert (done.returncode, done.stderr) == (0, "")
    first, *rest = done.stdout.splitlines()
    assert first.startswith(f"{target}: 10 rounds of 64 octets")
    assert rest[0].startswith("10 rounds, no mismatch; 1280 octets compared in ")
    assert "rounds/s" in rest[1]
    assert "MB/s" in rest[1]
    assert rest[2].startswith("round trip min/avg/max/p99 ")
    assert rest[3].startswith("peak memory ")


@pytest.mark.parametrize(
    ("size", "octets"),
    [("1", 1), ("2", 2), ("3", 3), ("64", 64), ("4095", 4095), ("64k", 65536), ("1M", 1 << 20), ("16m", 1 << 24)],
)
def test_sizes(target: str, size: str, octets: int) -> None:
    done = run("ping", target, "--size", size, "--count", 3, "--json")
    assert (done.returncode, done.stderr) == (0, "")
    found = json.loads(done.stdout)
    assert (found["size"], found["rounds"], found["mismatches"]) == (octets, 3, 0)
    assert found["octets"] == 3 * 2 * octets


def test_json_of_the_client(target: str) -> None:
    done = run("ping", target, "--count", 5, "--json", "--verbose")
    assert (done.returncode, done.stderr, done.stdout.count("\n")) == (0, "", 1)
    found = json.loads(done.stdout)
    assert set(found) == KEYS
    assert (found["role"], found["server"], found["end"], found["error"]) == ("client", target, "done", None)
    times = found["round_trip_us"]
    assert set(times) == {"min", "avg", "max", "p99"}
    assert 0 < times["min"] <= times["avg"] <= times["max"]
    assert times["min"] <= times["p99"] <= times["max"]
    assert found["octets_per_second"] == pytest.approx(found["octets"] / found["seconds"], rel=0.01)
    assert found["rounds_per_second"] == pytest.approx(found["rounds"] / found["seconds"], rel=0.01)
    assert 1 << 20 < found["peak_rss_octets"] < 1 << 30


def test_json_of_the_server() -> None:
    with server("--once", "--json") as (process, where):
        listening = json.loads(process.lines[0])
        assert where == f"{listening['host']}:{listening['port']}"
        assert run("ping", where, "--count", 4, "--size", "100").returncode == 0
        assert process.end() == 0
        assert len(process.lines) == 2
        found = process.result()
    assert set(found) == (KEYS - {"server", "size", "end", "error", "round_trip_us"}) | {
        "clients",
        "refused",
        "failed",
        "service_us",
        "sessions",
    }
    assert (found["role"], found["clients"], found["refused"], found["failed"]) == ("server", 1, 0, 0)
    assert (found["rounds"], found["octets"], found["mismatches"]) == (4, 800, 0)
    [session] = found["sessions"]
    assert (session["size"], session["rounds"], session["end"], session["error"]) == (100, 4, "done", None)


def test_once_ends_after_the_first_client() -> None:
    with server("--once") as (process, where):
        assert run("ping", where).returncode == 0
        assert process.end() == 0
        assert "the client has finished; 10 rounds of 64 octets, no mismatch" in process.output


def test_verbose_prints_each_round(target: str) -> None:
    lines = run("ping", target, "--count", 4, "-v").stdout.splitlines()
    assert [line.partition(":")[0] for line in lines if line.startswith("round ") and " us" in line][:4] == [
        "round 1",
        "round 2",
        "round 3",
        "round 4",
    ]


def test_quiet_prints_the_result_only(target: str) -> None:
    lines = run("ping", target, "--quiet").stdout.splitlines()
    assert len(lines) == 4
    assert lines[0].startswith("10 rounds, no mismatch")


def test_quiet_server_prints_where_it_listens_and_the_result() -> None:
    with server("--once", "--quiet") as (process, where):
        assert run("ping", where).returncode == 0
        assert process.end() == 0
        assert [line.partition(" ")[0] for line in process.lines[:2]] == ["listening", "1"]


def test_interval_is_kept(target: str) -> None:
    found = json.loads(run("ping", target, "--count", 4, "--interval", "0.1", "--json").stdout)
    assert 0.3 <= found["seconds"] < 3


def test_host_and_port_apart(target: str) -> None:
    host, _, port = target.rpartition(":")
    assert run("ping", host, "--port", port, "--count", 1).returncode == 0


def test_a_name_is_resolved(target: str) -> None:
    assert run("ping", f"localhost:{target.rpartition(':')[2]}", "--count", 1).returncode == 0


@pytest.mark.parametrize("form", ["[::1]:{port}", "[::1] --port {port}", "::1 --port {port}"])
def test_ipv6(form: str) -> None:
    with server("--bind", "::1", "--once") as (process, where):
        assert where.startswith("[::1]:")
        done = run("ping", *form.format(port=where.rpartition(":")[2]).split(), "--json")
        assert (done.returncode, done.stderr) == (0, "")
        assert json.loads(done.stdout)["server"] == where
        assert process.end() == 0
        assert "[::1]:" in process.lines[1]


@pytest.mark.parametrize(("every", "one"), [("0.0.0.0", "127.0.0.1"), ("::", "::1")])
def test_a_server_on_all_addresses(every: str, one: str) -> None:
    with server("--bind", every, "--once") as (process, where):
        assert run("ping", one, "--port", where.rpartition(":")[2]).returncode == 0
        assert process.end() == 0


def test_own_address_of_the_client(target: str) -> None:
    assert run("ping", target, "--bind", "127.0.0.1", "--count", 1).returncode == 0


def test_many_clients_at_once_and_one_after_the_other() -> None:
    with server("--json") as (process, where):
        with (
            started("ping", where, "--count", 200, "--json") as one,
            started("ping", where, "--count", 20, "--size", "1M", "--json") as two,
            started("ping", where, "--count", 200, "--size", "5000", "--json") as three,
        ):
            clients = (one, two, three)
            assert [client.end() for client in clients] == [0, 0, 0]
            assert [client.result()["rounds"] for client in clients] == [200, 20, 200]
        assert run("ping", where).returncode == 0
        process.signal(signal.SIGINT)
        assert process.end() == 130
        found = process.result()
    assert (found["clients"], found["rounds"], found["failed"], found["mismatches"]) == (4, 430, 0, 0)
    assert sorted(session["rounds"] for session in found["sessions"]) == [10, 20, 200, 200]


def test_trace(target: str, tmp_path: Path) -> None:
    path = tmp_path / "ping.pcapng"
    assert run("ping", target, "--count", 2, "--size", "1000", "--trace", path).returncode == 0
    kinds = [frame.kind for frame in read_frames(path)]
    assert kinds[:2] == ["MPA request", "MPA reply"]
    one_round = ["Send", "RDMA Read Request", "RDMA Read Response", "RDMA Write", "Send with Invalidate"]
    start = kinds.index("Send")
    assert kinds[start : start + 11] == [*one_round, *one_round, "Send"]


def test_trace_of_the_server(tmp_path: Path) -> None:
    path = tmp_path / "server.pcapng"
    with server("--once", "--trace", path) as (process, where):
        assert run("ping", where, "--count", 2).returncode == 0
        assert process.end() == 0
    assert [frame.kind for frame in read_frames(path)].count("Send with Invalidate") == 2


@pytest.mark.skipif(sys.platform == "win32", reason="needs a pseudo-terminal")
@pytest.mark.parametrize(("option", "shown"), [(None, True), ("--json", False), ("--quiet", False), ("-v", False)])
def test_progress_on_a_terminal_only(target: str, option: str | None, shown: bool) -> None:
    import pty
    import subprocess

    main_end, terminal = pty.openpty()
    try:
        options = [] if option is None else [option]
        done = subprocess.run(
            [*COMMAND, "ping", target, "--count", "30", "--interval", "0.01", *options],
            stdout=subprocess.PIPE,
            stderr=terminal,
            env=environment(),
            timeout=30,
            check=True,
        )
    finally:
        os.close(terminal)
    try:
        drawn = os.read(main_end, 65536)
    except OSError:  # Linux: nothing was written before the other end closed
        drawn = b""
    os.close(main_end)
    assert (b"30" in drawn and b"\x1b[" in drawn) is shown
    assert b"\x1b" not in done.stdout
