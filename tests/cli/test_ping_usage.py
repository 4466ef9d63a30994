"""`softndk ping` told what makes no sense, or what this machine does not have."""

import socket
from pathlib import Path

import pytest
from click.testing import CliRunner

from softndk.cli import main
from tests.cli.processes import run, server


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        ([], "HOST:PORT"),
        (["127.0.0.1"], "no port"),
        (["::1"], "no port"),
        (["[::1]"], "no port"),
        (["127.0.0.1:1", "--port", "2"], "--port"),
        (["127.0.0.1:0"], "outside 1 to 65535"),
        (["127.0.0.1:65536"], "outside 1 to 65535"),
        (["127.0.0.1:" + "9" * 5000], "outside 1 to 65535"),
        (["127.0.0.1:http"], "not a port"),
        (["127.0.0.1:-5"], "not a port"),
        (["127.0.0.1:٤"], "not a port"),
        ([":4711"], "not HOST:PORT"),
        (["[:4711"], "not HOST:PORT"),
        (["http://127.0.0.1:80"], "not HOST:PORT"),
        (["127.0.0.1:1", "--size", "0"], "outside 1 to 256M"),
        (["127.0.0.1:1", "--size", "1G"], "outside 1 to 256M"),
        (["127.0.0.1:1", "--size", "999999999999999999G"], "outside 1 to 256M"),
        (["127.0.0.1:1", "--size", "-1"], "not a size"),
        (["127.0.0.1:1", "--size", "64 octets"], "not a size"),
        (["127.0.0.1:1", "--size", ""], "not a size"),
        (["127.0.0.1:1", "--size", "1.5M"], "not a size"),
        (["127.0.0.1:1", "--count", "-1"], "--count"),
        (["127.0.0.1:1", "--count", "1" + "0" * 30], "--count"),
        (["127.0.0.1:1", "--count", "many"], "--count"),
        (["127.0.0.1:1", "--timeout", "0"], "--timeout"),
        (["127.0.0.1:1", "--timeout", "nan"], "--timeout"),
        (["127.0.0.1:1", "--timeout", "inf"], "--timeout"),
        (["127.0.0.1:1", "--timeout", "soon"], "--timeout"),
        (["127.0.0.1:1", "--interval", "-1"], "--interval"),
        (["127.0.0.1:1", "--interval", "nan"], "--interval"),
        (["127.0.0.1:1", "--quiet", "--verbose"], "exclude each other"),
        (["127.0.0.1:1", "--once"], "--once is for the server"),
        (["127.0.0.1:1", "--max-size", "1k"], "--max-size is for the server"),
        (["--server", "127.0.0.1:1"], "--server takes no HOST:PORT"),
        (["--server", "--port", "70000"], "--port"),
        (["--server", "--count", "1"], "--count is for the client"),
        (["--server", "--size", "64"], "--size is for the client"),
        (["--server", "--interval", "1"], "--interval is for the client"),
        (["127.0.0.1:1", "127.0.0.1:2"], "unexpected extra argument"),
    ],
)
def test_wrong_usage(arguments: list[str], complaint: str) -> None:
    done = CliRunner().invoke(main, ["ping", *arguments])
    assert (done.exit_code, done.stdout) == (2, "")
    assert complaint in " ".join(done.stderr.split())


@pytest.mark.parametrize("role", [["127.0.0.1:1"], ["--server"]])
def test_a_trace_file_that_cannot_be_written(role: list[str], tmp_path: Path) -> None:
    done = run("ping", *role, "--trace", tmp_path / "missing" / "ping.pcapng")
    assert (done.returncode, done.stdout) == (2, "")
    assert "--trace" in done.stderr
    assert "No such file or directory" in done.stderr


def test_a_trace_file_that_is_a_directory(tmp_path: Path) -> None:
    done = run("ping", "127.0.0.1:1", "--trace", tmp_path)
    assert done.returncode == 2
    assert "--trace" in done.stderr


def test_nobody_listens() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        port = taken.getsockname()[1]
        done = run("ping", f"127.0.0.1:{port}")
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr.startswith(f"softndk ping: cannot connect to 127.0.0.1:{port}: ")
    assert "refused" in done.stderr
    assert done.stderr.count("\n") == 1


def test_an_address_that_is_taken() -> None:
    with server() as (_, target):
        done = run("ping", "--server", "--port", target.rpartition(":")[2])
    assert (done.returncode, done.stdout) == (1, "")
    assert "Address already in use" in done.stderr


@pytest.mark.parametrize("role", [["127.0.0.1:1"], ["--server"]])
def test_an_own_address_that_is_none(role: list[str]) -> None:
    done = run("ping", *role, "--bind", "192.0.2.1")
    assert (done.returncode, done.stdout) == (1, "")
    assert "192.0.2.1" in done.stderr


def test_an_own_address_of_the_other_family() -> None:
    done = run("ping", "[::1]:1", "--bind", "127.0.0.1")
    assert (done.returncode, done.stdout) == (1, "")
    assert "no IPv6 address" in done.stderr


def test_a_name_that_nobody_has() -> None:
    done = run("ping", "no-such-host.invalid:4711")
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr.startswith("Error: no-such-host.invalid: ")


@pytest.mark.parametrize("host", ["a" * 300, "\N{FULLWIDTH FULL STOP}" * 3])
def test_a_name_that_is_none(host: str) -> None:
    done = run("ping", host, "--port", "4711")
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr.startswith("Error: ")
