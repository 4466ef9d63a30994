"""perftest with `-R`: sends, RDMA Writes and RDMA Reads up to 4 MiB, as fast as they go and one after the other.

perftest does not look at what arrives; these tests look at what it reports, and at every completion of this side. With
the tests of reads its memory may be written too: there every octet is compared, in both directions.
"""

import random
import re
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Final

import pytest

from scripts.interop.channel import Finished
from scripts.interop.guest import HOST_ADDRESS, Guest
from softndk import Adapter, OperationType, OpFlag
from tests.interop.cases import CRC_OFF, DEFAULTS, SIW_CRC_P2P, Active, Case
from tests.interop.peer import PATIENCE_S, Peer
from tests.interop.perftest import Barriers, Destination, Mirror, exchange_start

KIB: Final = 1 << 10
MIB: Final = 1 << 20
WINDOW: Final = 16
"""Requests of this side under way at once."""
LEAST: Final = 4 * KIB
"""perftest spreads small requests over a page."""
BARRIERS: Final = {
    "ib_send_lat": Barriers(4, 1),
    "ib_send_bw": Barriers(4, 1),
    "ib_write_lat": Barriers(4, 0),
    "ib_write_bw": Barriers(3, 2, 5),
    "ib_read_lat": Barriers(4, 1),
    "ib_read_bw": Barriers(3, 2, 5),
}
ROUNDS: Final = {64: 100, 64 * KIB: 20, MIB: 5, 4 * MIB: 5}
"""Size: how often; five is the least that perftest takes."""
SMOKE: Final = ("ib_send_lat", "ib_write_bw", "ib_read_bw")


def cases(active: Active) -> Iterator[Case]:
    for program in BARRIERS:
        # the server of ib_write_lat speaks first, which RFC 5044 7.1.3 allows to the accepting side with p2p only
        first = active is Active.SIW and program == "ib_write_lat"
        for variant in (SIW_CRC_P2P,) if first else (DEFAULTS, SIW_CRC_P2P, CRC_OFF):
            sizes = [64, 64 * KIB, MIB]
            if variant is CRC_OFF:
                sizes = [64, MIB]
            elif (program, variant) == ("ib_read_bw", DEFAULTS):
                sizes.append(4 * MIB)
            for size in sizes:
                smoke = size == MIB and program in SMOKE and variant is not CRC_OFF
                yield Case(program, active, variant, f"{ROUNDS[size]} x {size}", smoke)


def numbers(case: Case) -> tuple[int, int]:
    rounds, size = case.detail.split(" x ")
    return int(rounds), int(size)


def options(rounds: int, size: int) -> tuple[str | int, ...]:
    return ("-R", "-F", "-n", rounds, "-s", size)


@contextmanager
def peers(adapter: Adapter, size: int) -> Iterator[tuple[Peer, Peer]]:
    """For the exchange of parameters, and for the test. The test's messages arrive behind what the peer may touch."""
    room = 2 * max(size, LEAST)
    with (
        Peer(adapter) as control,
        Peer(adapter, size=room + size, inbox=room, message_size=size, depth=256) as data,
    ):
        yield control, data


def check_report(ended: Finished, rounds: int, size: int) -> None:
    assert ended.status == 0, ended.output + ended.errors
    assert re.search(rf"^\s*{size}\s+{rounds}\s", ended.output, re.MULTILINE), ended.output


# ---- what the two sides do in a test; `theirs` is the other side's memory

Step = Callable[[Peer, Destination, int, int], None]


def windowed(data: Peer, rounds: int, post: Callable[[], None], kind: OperationType) -> None:
    """Keep up to WINDOW requests under way until `rounds` have succeeded."""
    posted = finished = 0
    while finished < rounds:
        while posted < rounds and posted - finished < WINDOW:
            post()
            posted += 1
        assert data.result().type is kind
        finished += 1


def write_all(data: Peer, theirs: Destination, rounds: int, size: int) -> None:
    """A write completes in the transport; the server ends when it is told to, whatever it has not read by then. Only
    the answer to a read behind the writes says that they are there.
    """
    windowed(data, rounds, lambda: data.qp.write(data.mr[0:size], theirs.address, theirs.token), OperationType.WRITE)
    read_behind(data, theirs)


def read_behind(data: Peer, theirs: Destination) -> None:
    """When the answer is here, siw has taken in all that was sent to it, and has finished all that it sent before."""
    data.qp.read(data.mr[0:0], theirs.address, theirs.token)
    assert data.result().type is OperationType.READ


def read_all(data: Peer, theirs: Destination, rounds: int, size: int) -> None:
    fill(data, theirs, size)
    windowed(data, rounds, lambda: data.qp.read(data.mr[0:size], theirs.address, theirs.token), OperationType.READ)
    assert data.mr.view[:size] == pattern(size)


def read_in_turn(data: Peer, theirs: Destination, rounds: int, size: int) -> None:
    fill(data, theirs, size)
    for _ in range(rounds):
        data.mr.view[:size] = bytes(size)
        data.qp.read(data.mr[0:size], theirs.address, theirs.token)
        assert data.result().type is OperationType.READ
        assert data.mr.view[:size] == pattern(size)


def fill(data: Peer, theirs: Destination, size: int) -> None:
    """Write into the other side's memory, which over iWARP whoever may read may write too."""
    source = data.mr.length - size
    data.mr.view[source:] = pattern(size)
    data.qp.write(data.mr[source:], theirs.address, theirs.token)
    assert data.result().type is OperationType.WRITE


def pattern(size: int) -> bytes:
    return random.Random(size).randbytes(size)


def compare_sink(data: Peer, theirs: Destination, size: int) -> None:
    """What perftest's client has read lies one of its buffers below the address that it tells."""
    sink = data.mr.length - size
    data.qp.read(data.mr[sink:], theirs.address - max(size, LEAST), theirs.token)
    assert data.result().type is OperationType.READ
    assert data.mr.view[sink:] == pattern(size)


def send_all(data: Peer, theirs: Destination, rounds: int, size: int) -> None:
    windowed(data, rounds, lambda: data.qp.send(data.mr[0:size]), OperationType.SEND)


def receive_all(data: Peer, theirs: Destination, rounds: int, size: int) -> None:
    """The sender goes on only if it is told, by a write into its memory, how many have come."""
    for number in range(1, rounds + 1):
        assert data.receive() == size
        data.qp.write(number.to_bytes(4, "little"), theirs.address, theirs.token, flags=OpFlag.SILENT_SUCCESS)


def send_and_receive(data: Peer, theirs: Destination, rounds: int, size: int) -> None:
    for _ in range(rounds):
        data.send(size)
        assert data.receive() == size
        data.post_receives(1)


def receive_and_send(data: Peer, theirs: Destination, rounds: int, size: int) -> None:
    for _ in range(rounds):
        assert data.receive() == size
        data.post_receives(1)
        data.send(size)


def answer_writes(data: Peer, theirs: Destination, rounds: int, size: int, *, first: bool = False) -> None:
    """Each side writes into the other's memory, in turn; the last octet counts the writes."""
    source = data.mr[data.mr.length - size :]
    for number in range(1, rounds + 1):
        if not first:
            wait_for_octet(data, size - 1, number & 0xFF)
        data.mr.view[-1] = number & 0xFF
        data.qp.write(source, theirs.address, theirs.token)
        assert data.result().type is OperationType.WRITE
        if first:
            wait_for_octet(data, size - 1, number & 0xFF)
    if (
        not first
    ):  # siw flushes what it has sent and not finished when the end comes, and perftest takes that for a failure
        read_behind(data, theirs)


def wait_for_octet(data: Peer, place: int, value: int) -> None:
    deadline = time.monotonic() + PATIENCE_S
    while data.mr.view[place] != value:
        assert time.monotonic() < deadline
        assert data.cq.get_results() == []  # looks at the socket too


def nothing(data: Peer, theirs: Destination, rounds: int, size: int) -> None:
    """The other side does it all."""


AS_CLIENT: Final[dict[str, Step]] = {
    "ib_send_lat": send_and_receive,
    "ib_send_bw": send_all,
    "ib_write_lat": answer_writes,
    "ib_write_bw": write_all,
    "ib_read_lat": read_in_turn,
    "ib_read_bw": read_all,
}
AS_SERVER: Final[dict[str, Step]] = {
    "ib_send_lat": receive_and_send,
    "ib_send_bw": receive_all,
    "ib_write_lat": lambda *test: answer_writes(*test, first=True),
    "ib_write_bw": nothing,
    "ib_read_lat": nothing,
    "ib_read_bw": nothing,
}


@pytest.mark.parametrize("case", list(cases(Active.SOFTNDK)), indirect=True, ids=str)
def test_as_client(case: Case, guest: Guest, adapter: Adapter) -> None:
    rounds, size = numbers(case)
    port = guest.next_port()
    barriers = BARRIERS[case.program]
    version = guest.run(case.program, "-V").output.split()[-1]
    command = (case.program, *options(rounds, size), "-p", port.guest)
    with guest.serving(port, *command) as program, peers(adapter, size) as (control, data):
        own = Destination.of(data)
        data.post_receives(min(rounds, 200))
        control.post_receives(2)
        control.connect(port.here)
        exchange_start(control, version)
        guest.wait_for_listener(port)  # the server listens anew for its second connection
        data.connect(port.here)
        theirs = barriers.enter(control, own)
        AS_CLIENT[case.program](data, theirs, rounds, size)
        barriers.leave(control, own)
        data.disconnect()
        control.disconnect()
        ended = program.wait(PATIENCE_S)
    assert ended.status == 0, ended.output + ended.errors


@pytest.mark.parametrize("case", list(cases(Active.SIW)), indirect=True, ids=str)
def test_as_server(case: Case, guest: Guest, adapter: Adapter) -> None:
    rounds, size = numbers(case)
    listener = adapter.listen()
    command = (case.program, *options(rounds, size), "-p", listener.local_address[1], HOST_ADDRESS)
    with guest.start(*command) as program, peers(adapter, size) as (control, data):
        control.post_receives(2)
        control.take(listener)
        own = Destination.of(data, adapter.query_info().max_inbound_read_limit)
        data.mr.view[:size] = pattern(size)
        reads = "read" in case.program
        mirror = Mirror(control, own, held=BARRIERS[case.program].before if reads else None)
        data.post_receives(min(rounds, 200))
        data.take(listener)
        AS_SERVER[case.program](data, mirror.theirs(), rounds, size)
        if reads:
            mirror.wait_for_the_tests_end()
            compare_sink(data, mirror.theirs(), size)
            mirror.go_on()
        ended = program.wait(PATIENCE_S)
        mirror.join()
        assert data.wait_for_end().graceful
    check_report(ended, rounds, size)
