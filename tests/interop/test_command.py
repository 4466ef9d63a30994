"""The command itself, `softndk ping --rping`, as rping's partner."""

import pytest

from scripts.interop.guest import HOST_ADDRESS, Guest
from softndk.cli.rping import ping_data
from tests.cli.processes import run, server
from tests.interop.cases import Active, Case
from tests.interop.peer import PATIENCE_S

ROUNDS = 10
SIZE = 1000
LIMIT_S = PATIENCE_S


def case(active: Active) -> pytest.MarkDecorator:
    found = Case("softndk ping --rping", active, detail=f"{ROUNDS} x {SIZE}", smoke=True)
    return pytest.mark.parametrize("case", [found], indirect=True, ids=str)


@case(Active.SOFTNDK)
def test_the_client(case: Case, guest: Guest) -> None:
    port = guest.next_port()
    with guest.serving(port, "rping", "-s", "-a", "0.0.0.0", "-p", port.guest, "-S", SIZE, "-v") as rping:
        done = run("ping", "--rping", f"127.0.0.1:{port.here}", "--size", SIZE, "--count", ROUNDS, timeout=LIMIT_S)
        ended = rping.wait(LIMIT_S)
    assert done.returncode == 0, done.stderr
    assert f"{ROUNDS} rounds, no mismatch" in done.stdout
    assert ended.output.count("server ping data: ") == ROUNDS
    assert ping_data(ROUNDS - 1, SIZE)[:-1].decode() in ended.output


@case(Active.SIW)
def test_the_server(case: Case, guest: Guest) -> None:
    with server("--rping", "--port", 0, "--once", "--json") as (process, target):
        address = ("-a", HOST_ADDRESS, "-p", target.rpartition(":")[2])
        ended = guest.run("rping", "-c", *address, "-S", SIZE, "-C", ROUNDS, "-V", seconds=LIMIT_S)
        assert process.end() == 0
    assert ended.status == 0, ended.errors
    found = process.result()
    assert (found["rounds"], found["mismatches"], found["sessions"][0]["end"]) == (ROUNDS, 0, "done")
