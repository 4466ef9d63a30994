"""`softndk ping --rping` and rping: every octet of every round, on both sides."""

import threading
from collections.abc import Iterator

import pytest

from scripts.interop.common import LabError
from scripts.interop.guest import HOST_ADDRESS, Guest
from softndk import Adapter
from softndk.cli.interrupt import Interrupt
from softndk.cli.ping_client import ClientOptions
from softndk.cli.ping_server import End, ServerOptions
from softndk.cli.rping import RpingClient, RpingLink, RpingServer, ping_data
from tests.interop.cases import CRC_OFF, DEFAULTS, NO_P2P, REVISION_1, SIW_CRC, SIW_CRC_P2P, Active, Case
from tests.interop.peer import PATIENCE_S

LIMIT_S = PATIENCE_S
RPING_MAX = 65535
"""rping's largest size, whatever its message says (test_rping_refuses_more); perftest's programs take more."""
CONNECTIONS = 20
SIZES = (64, 4096, RPING_MAX)
SMOKE = (DEFAULTS, SIW_CRC_P2P, CRC_OFF)
ROUNDS = {64: 50, 4096: 20, RPING_MAX: 5}


def cases(active: Active) -> Iterator[Case]:
    for variant in (DEFAULTS, SIW_CRC, SIW_CRC_P2P, CRC_OFF):
        for size in SIZES:
            smoke = variant in SMOKE and size == 4096
            yield Case("rping", active, variant, f"{ROUNDS[size]} x {size}", smoke)
    yield Case("rping", active, NO_P2P, f"{ROUNDS[4096]} x 4096")
    if active is Active.SIW:  # without the enhanced start-up siw's own program may not read (its ORD is 0)
        yield Case("rping", active, REVISION_1, f"{ROUNDS[4096]} x 4096")


def sizes_of(case: Case) -> tuple[int, int]:
    rounds, size = case.detail.split(" x ")
    return int(rounds), int(size)


def lines(head: str, rounds: int, size: int) -> list[str]:
    """What rping prints with -v, if the data are right."""
    return [head + ping_data(number, size)[:-1].decode() for number in range(rounds)]


@pytest.mark.parametrize("case", list(cases(Active.SOFTNDK)), indirect=True, ids=str)
def test_as_client(case: Case, guest: Guest, adapter: Adapter) -> None:
    """The server reads what this side lends, and writes it back; rping prints what it has read."""
    rounds, size = sizes_of(case)
    port = guest.next_port()
    seen: list[tuple[int, str]] = []
    options = ClientOptions(size=size, count=rounds, interval_s=0, timeout_s=LIMIT_S)
    command = ("rping", "-s", "-a", "0.0.0.0", "-p", port.guest, "-S", size, "-v")
    with guest.serving(port, *command) as rping, RpingLink(adapter, Interrupt(), "rping") as link:
        client = RpingClient(link, options, Interrupt(), lambda number, _, wrong: seen.append((number, wrong)))
        client.connect(adapter, [("127.0.0.1", port.here)])
        client.run()
        ended = rping.wait(LIMIT_S)
    assert seen == [(number, "") for number in range(1, rounds + 1)]
    assert [line for line in ended.output.splitlines() if "ping data" in line] == lines(
        "server ping data: ", rounds, size
    )
    assert ended.status == 0


@pytest.mark.parametrize("size", [RPING_MAX + 1, 1 << 20])
def test_rping_refuses_more(guest: Guest, size: int) -> None:
    done = guest.run("rping", "-s", "-a", "0.0.0.0", "-p", guest.next_port().guest, "-S", size)
    assert done.status
    assert done.errors.startswith(f"Invalid size {size} ")


@pytest.mark.parametrize(
    "case",
    [
        Case("rping", Active.SOFTNDK, variant, f"{CONNECTIONS} connections", smoke=variant is DEFAULTS)
        for variant in (DEFAULTS, NO_P2P)
    ],
    indirect=True,
    ids=str,
)
def test_no_connection_stalls(case: Case, guest: Guest, adapter: Adapter) -> None:
    """Now and then siw leaves what comes right behind its reply unread until more comes (test_siw.py)."""
    port = guest.next_port()
    options = ClientOptions(size=64, count=1, interval_s=0, timeout_s=LIMIT_S)
    with guest.serving(port, "rping", "-s", "-P", "-a", "0.0.0.0", "-p", port.guest, "-S", RPING_MAX):
        for _ in range(CONNECTIONS):
            with RpingLink(adapter, Interrupt(), "rping") as link:
                client = RpingClient(link, options, Interrupt(), lambda *_: None)
                client.connect(adapter, [("127.0.0.1", port.here)])
                client.run()
            assert (client.totals.rounds, client.totals.mismatches) == (1, 0)


@pytest.mark.parametrize("case", list(cases(Active.SIW)), indirect=True, ids=str)
def test_as_server(case: Case, guest: Guest, adapter: Adapter) -> None:
    """This side reads what rping lends, compares, and writes it back; rping compares (-V) and prints it."""
    rounds, size = sizes_of(case)
    stop = Interrupt()
    options = ServerOptions(max_size=RPING_MAX, timeout_s=LIMIT_S, once=True)
    server = RpingServer(adapter, options, stop, lambda *_: None)
    listener = adapter.listen()
    serving = threading.Thread(target=server.run, args=(listener,))
    serving.start()
    address = ("-a", HOST_ADDRESS, "-p", listener.local_address[1])
    try:
        ended = guest.run("rping", "-c", *address, "-S", size, "-C", rounds, "-v", "-V", seconds=LIMIT_S)
    except LabError:
        stop.requested = True
        raise
    finally:
        serving.join(LIMIT_S)
    assert ended.status == 0, ended.errors
    assert [line for line in ended.output.splitlines() if "ping data" in line] == lines("ping data: ", rounds, size)
    (session,) = server.sessions
    assert session.end is End.DONE
    assert (session.totals.rounds, session.totals.mismatches, session.size) == (rounds, 0, size)
