"""How `softndk ping` ends when it does not end by itself: Ctrl-C, SIGTERM, SIGKILL, silence, at either side."""

import signal
import socket
import sys
import time
from collections.abc import Iterator

import pytest

from tests.cli.processes import Process, run, server, started
from tests.stopped_process import stop

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="needs signals")

BUSY = ("--count", "0", "--verbose")
IDLE = ("--count", "0", "--verbose", "--interval", "60")
QUICK_S = 20.0
"""More than any of these ends may take; less than the connection's own time limits."""


@pytest.fixture
def running() -> Iterator[tuple[Process, str]]:
    with server() as both:
        yield both


def assert_still_serves(target: str) -> None:
    assert run("ping", target, "--count", 1).returncode == 0


# ---- Ctrl-C


@pytest.mark.parametrize("options", [BUSY, IDLE], ids=["busy", "idle"])
@pytest.mark.parametrize(("number", "status"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_signal_at_the_client(
    running: tuple[Process, str], options: tuple[str, ...], number: signal.Signals, status: int
) -> None:
    process, target = running
    with started("ping", target, *options) as client:
        client.wait_for("round 1:")
        begin = time.monotonic()
        client.signal(number)
        assert client.end() == status
        assert time.monotonic() - begin < QUICK_S
        assert client.errors == []
        rounds = sum(line.startswith("round ") and ":" in line for line in client.lines)
        result = client.wait_for("no mismatch")
        assert client.lines[client.lines.index(result) - 1] == "interrupted"
        left = process.wait_for("the client has left before its end")
    told = int(result.split()[0])
    assert told <= rounds
    assert f"; {told} round{'' if told == 1 else 's'} of 64 octets" in left
    assert_still_serves(target)


@pytest.mark.parametrize("options", [BUSY, IDLE], ids=["busy", "idle"])
@pytest.mark.parametrize(("number", "status"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_signal_at_the_server(
    running: tuple[Process, str], options: tuple[str, ...], number: signal.Signals, status: int
) -> None:
    process, target = running
    with started("ping", target, *options) as client:
        client.wait_for("round 1:")
        begin = time.monotonic()
        process.signal(number)
        assert client.end() == 1
        assert process.end() == status
        assert time.monotonic() - begin < QUICK_S
        assert "softndk ping: the server has ended the test: it was stopped" in client.errors
        assert "no mismatch" in client.output
    assert process.errors == []
    assert "stopped by this side" in process.output


def test_ctrl_c_at_a_server_without_clients(running: tuple[Process, str]) -> None:
    process, _ = running
    process.signal()
    assert process.end() == 130
    assert process.errors == []
    assert "0 clients, 0 refused, 0 failed" in process.lines


def test_ctrl_c_at_a_server_with_several_clients(running: tuple[Process, str]) -> None:
    process, target = running
    with started("ping", target, *BUSY) as one, started("ping", target, *IDLE) as two:
        one.wait_for("round 1:")
        two.wait_for("round 1:")
        process.signal()
        assert process.end() == 130
        assert (one.end(), two.end()) == (1, 1)
    assert process.output.count("stopped by this side") == 2


def test_json_after_ctrl_c(running: tuple[Process, str]) -> None:
    _, target = running
    with started("ping", target, "--count", 0, "--json", "--trace", "/dev/null") as client:
        running[0].wait_for("connected")
        client.signal()
        assert client.end() == 130
        assert len(client.lines) == 1
        found = client.result()
    assert (found["end"], found["error"], found["mismatches"]) == ("interrupted", None, 0)


def test_ctrl_c_while_connecting() -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        target = f"127.0.0.1:{silent.getsockname()[1]}"
        with started("ping", target) as client, silent.accept()[0]:
            begin = time.monotonic()
            client.signal()
            assert client.end() == 130
            assert time.monotonic() - begin < QUICK_S
            assert (client.lines, client.errors) == (["interrupted"], [])


# ---- killed


@pytest.mark.parametrize("options", [BUSY, IDLE], ids=["busy", "idle"])
def test_the_client_is_killed(running: tuple[Process, str], options: tuple[str, ...]) -> None:
    process, target = running
    with started("ping", target, *options) as client:
        client.wait_for("round 1:")
        client.signal(signal.SIGKILL)
        assert client.end() == -signal.SIGKILL
        told = process.wait_for("the connection")
    assert (
        "the client has closed the connection without a word" in told or "the connection to the client is lost" in told
    )
    assert_still_serves(target)
    process.signal()
    assert process.end() == 130
    assert process.errors == []
    assert "2 clients, 0 refused, 1 failed" in process.lines


@pytest.mark.parametrize("options", [BUSY, IDLE], ids=["busy", "idle"])
def test_the_server_is_killed(running: tuple[Process, str], options: tuple[str, ...]) -> None:
    process, target = running
    with started("ping", target, *options) as client:
        client.wait_for("round 1:")
        begin = time.monotonic()
        process.signal(signal.SIGKILL)
        assert client.end() == 1
        assert time.monotonic() - begin < QUICK_S
        [told, *_] = client.errors
    assert (
        "the server has closed the connection without a word" in told or "the connection to the server is lost" in told
    )


def test_once_with_a_client_that_is_killed() -> None:
    with server("--once") as (process, target), started("ping", target, *IDLE) as client:
        client.wait_for("round 1:")
        client.signal(signal.SIGKILL)
        assert process.end() == 1
        assert "1 client, 0 refused, 1 failed" in process.lines


# ---- silence


def test_a_server_that_hangs(running: tuple[Process, str]) -> None:
    process, target = running
    with started("ping", target, *BUSY, "--timeout", "0.5") as client:
        client.wait_for("round 1:")
        stop(process.process)
        try:
            assert client.end() == 1
        finally:
            process.signal(signal.SIGCONT)
        assert "nothing within 0.5 s" in client.error_output
        assert client.errors[0].startswith("softndk ping: round ")


def test_a_client_that_hangs_can_be_left(running: tuple[Process, str]) -> None:
    process, target = running
    with started("ping", target, *BUSY) as client:
        client.wait_for("round 1:")
        stop(client.process)
        begin = time.monotonic()
        process.signal()
        assert process.end() == 130
        assert time.monotonic() - begin < 2 * QUICK_S
        client.signal(signal.SIGCONT)
        assert client.end() == 1


def test_nothing_comes_from_what_listens() -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        done = run("ping", f"127.0.0.1:{silent.getsockname()[1]}", "--timeout", "0.5")
    assert (done.returncode, done.stdout) == (1, "")
    assert "no MPA reply within connect_timeout_s=0.5" in done.stderr
