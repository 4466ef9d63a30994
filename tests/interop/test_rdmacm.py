"""Programs of rdmacm-utils besides rping: messages both ways, many connections, either side first."""

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest

from scripts.interop.channel import Finished
from scripts.interop.common import LabError
from scripts.interop.guest import HOST_ADDRESS, Guest
from softndk import Adapter
from softndk.trace import read_frames
from tests.interop.cases import CRC_OFF, DEFAULTS, NO_P2P, REVISION_1, SIW_CRC, SIW_CRC_P2P, Active, Case, Variant
from tests.interop.peer import PATIENCE_S, Peer
from tests.interop.raw import QUIET_S

MESSAGE = bytes(16)
"""What rdma_client and rdma_server send: 16 octets which they never set."""
SMOKE = ("rdma_server", "rdma_client")
CONNECTIONS = 3
MESSAGES = 10
CM_CONNECTIONS = 20


def cases(*programs: str, active: Active, variants: tuple[Variant, ...], detail: str = "") -> list[Case]:
    return [
        Case(program, active, variant, detail, smoke=program in SMOKE and variant is DEFAULTS)
        for program in programs
        for variant in variants
    ]


@contextmanager
def running(guest: Guest, *argv: str | int) -> Iterator[list[Finished]]:
    """A program of the guest that connects to this side; its end is in the list after the `with`."""
    ended: list[Finished] = []
    with guest.start(*argv) as program:
        yield ended
        ended.append(program.wait(PATIENCE_S))


# ---- one message each way, the client first


@pytest.mark.parametrize(
    "case",
    cases("rdma_server", active=Active.SOFTNDK, variants=(DEFAULTS, SIW_CRC, SIW_CRC_P2P, CRC_OFF, REVISION_1)),
    indirect=True,
    ids=str,
)
def test_one_message_each_way_as_client(case: Case, guest: Guest, adapter: Adapter) -> None:
    port = guest.next_port()
    with guest.serving(port, case.program, "-p", port.guest) as program, Peer(adapter) as peer:
        peer.post_receives(1)
        peer.connect(port.here)
        peer.send(MESSAGE)
        assert peer.receive_bytes() == MESSAGE
        peer.disconnect()
        ended = program.wait(PATIENCE_S)
    assert (ended.status, ended.errors) == (0, "")
    assert f"{case.program}: end 0" in ended.output


@pytest.mark.parametrize(
    "case",
    cases("rdma_client", active=Active.SIW, variants=(DEFAULTS, SIW_CRC, SIW_CRC_P2P, CRC_OFF, REVISION_1)),
    indirect=True,
    ids=str,
)
def test_one_message_each_way_as_server(case: Case, guest: Guest, adapter: Adapter) -> None:
    listener = adapter.listen()
    command = (case.program, "-s", HOST_ADDRESS, "-p", listener.local_address[1])
    with running(guest, *command) as ended, Peer(adapter) as peer:
        peer.post_receives(1)
        peer.take(listener)
        assert peer.receive_bytes() == MESSAGE
        peer.send(MESSAGE)
        assert peer.wait_for_end().graceful
    assert (ended[0].status, ended[0].errors) == (0, "")
    assert f"{case.program}: end 0" in ended[0].output


# ---- one message from the client alone; "-c r" is a reliable connection, the programs' other kind is not iWARP's


@pytest.mark.parametrize(
    "case", cases("rdma_xserver", active=Active.SOFTNDK, variants=(DEFAULTS, SIW_CRC_P2P)), indirect=True, ids=str
)
def test_one_message_as_client(case: Case, guest: Guest, adapter: Adapter) -> None:
    port = guest.next_port()
    with guest.serving(port, "rdma_xserver", "-p", port.guest, "-c", "r") as program, Peer(adapter) as peer:
        peer.connect(port.here)
        peer.send(MESSAGE)
        assert peer.wait_for_end().graceful
        ended = program.wait(PATIENCE_S)
    assert (ended.status, ended.errors) == (0, "")
    assert "rdma_xserver: end 0" in ended.output


@pytest.mark.parametrize(
    "case", cases("rdma_xclient", active=Active.SIW, variants=(DEFAULTS, SIW_CRC_P2P)), indirect=True, ids=str
)
def test_one_message_as_server(case: Case, guest: Guest, adapter: Adapter) -> None:
    listener = adapter.listen()
    command = ("rdma_xclient", "-s", HOST_ADDRESS, "-p", listener.local_address[1], "-c", "r")
    with running(guest, *command) as ended, Peer(adapter) as peer:
        peer.post_receives(1)
        peer.take(listener)
        assert peer.receive_bytes() == MESSAGE
        assert peer.wait_for_end().graceful
    assert (ended[0].status, ended[0].errors) == (0, "")
    assert "rdma_xclient: end 0" in ended[0].output


# ---- many connections with many messages, the server first


@pytest.mark.parametrize(
    "case",
    [
        Case("ucmatose", Active.SOFTNDK, variant, f"{CONNECTIONS} x {MESSAGES} x {size}", variant is DEFAULTS)
        for variant in (DEFAULTS, SIW_CRC, SIW_CRC_P2P, CRC_OFF, NO_P2P)
        for size in (100, 100_000)
    ],
    indirect=True,
    ids=str,
)
def test_ucmatose_as_client(case: Case, guest: Guest, adapter: Adapter) -> None:
    """The server's messages may come right behind its reply, where no ready-to-receive indication was agreed on."""
    size = int(case.detail.rpartition(" ")[2])
    port = guest.next_port()
    command = ("ucmatose", "-p", port.guest, "-c", CONNECTIONS, "-C", MESSAGES, "-S", size)
    with guest.serving(port, *command) as program, ExitStack() as stack:
        peers = [stack.enter_context(Peer(adapter, size=size, message_size=size)) for _ in range(CONNECTIONS)]
        for peer in peers:
            peer.post_receives(MESSAGES)
            peer.connect(port.here)
        for peer in peers:
            assert [peer.receive() for _ in range(MESSAGES)] == [size] * MESSAGES
        for peer in peers:
            for _ in range(MESSAGES):
                peer.send(size)
        assert all(peer.wait_for_end().graceful for peer in peers)
        ended = program.wait(PATIENCE_S)
    assert (ended.status, ended.errors) == (0, "")
    assert "data transfers complete" in ended.output
    assert "return status 0" in ended.output


@pytest.mark.parametrize(
    "case",
    [
        Case("ucmatose", Active.SIW, SIW_CRC_P2P, f"{CONNECTIONS} x {MESSAGES} x {size}", smoke=True)
        for size in (100, 100_000)
    ],
    indirect=True,
    ids=str,
)
def test_ucmatose_as_server(case: Case, guest: Guest, adapter: Adapter) -> None:
    """Only with siw's peer-to-peer mode: else the side that accepts may not send first (RFC 5044 7.1.3)."""
    size = int(case.detail.rpartition(" ")[2])
    listener = adapter.listen()
    command = ("ucmatose", "-s", HOST_ADDRESS, "-p", listener.local_address[1], "-c", CONNECTIONS)
    with running(guest, *command, "-C", MESSAGES, "-S", size) as ended, ExitStack() as stack:
        peers = [stack.enter_context(Peer(adapter, size=size, message_size=size)) for _ in range(CONNECTIONS)]
        for peer in peers:
            peer.post_receives(MESSAGES)
            peer.take(listener)
        for peer in peers:
            for _ in range(MESSAGES):
                peer.send(size)
        for peer in peers:
            assert [peer.receive() for _ in range(MESSAGES)] == [size] * MESSAGES
        for peer in peers:
            peer.disconnect()
    assert (ended[0].status, ended[0].errors) == (0, "")
    assert "data transfers complete" in ended[0].output
    assert "return status 0" in ended[0].output


@pytest.mark.parametrize("case", [Case("ucmatose", Active.SIW, DEFAULTS, "held back")], indirect=True, ids=str)
def test_ucmatose_waits_for_a_server_that_may_not_send_yet(
    case: Case, guest: Guest, adapter: Adapter, tmp_path: Path
) -> None:
    """Without siw's peer-to-peer mode nobody may begin here: ucmatose's client waits for a message, and this side for
    the first FPDU (RFC 5044 7.1.3). That the octets are held back is the rule; siw in this place sends them.
    """
    listener = adapter.listen()
    command = ("ucmatose", "-s", HOST_ADDRESS, "-p", listener.local_address[1], "-c", 1, "-C", 1)
    with guest.start(*command) as program, Peer(adapter) as peer:
        peer.take(listener)
        peer.send(MESSAGE)
        with pytest.raises(LabError, match="still runs"):
            program.wait(QUIET_S)
        program.stop()
        how = peer.wait_for_end()
        assert how.graceful
        assert [frame.kind for frame in read_frames(tmp_path / "softndk.pcapng")] == [
            "MPA request",
            "MPA reply",
            "FIN",
        ]


# ---- connections alone


@pytest.mark.parametrize(
    "case",
    cases("cmtime", active=Active.SOFTNDK, variants=(NO_P2P,), detail=f"{CM_CONNECTIONS} connections"),
    indirect=True,
    ids=str,
)
def test_connections_alone_as_client(case: Case, guest: Guest, adapter: Adapter) -> None:
    """cmtime's server accepts and disconnects for ever; it does not tell what it has seen.

    Without a ready-to-receive indication: a connection that ends before siw has seen it stops Linux 6.12's iw_cm.
    """
    port = guest.next_port()
    with guest.serving(port, "cmtime", "-p", port.guest, "-c", CM_CONNECTIONS), ExitStack() as stack:
        peers = [stack.enter_context(Peer(adapter)) for _ in range(CM_CONNECTIONS)]
        for peer in peers:
            peer.connect(port.here)
        for peer in peers:
            peer.disconnect()


@pytest.mark.parametrize(
    "case",
    cases("cmtime", active=Active.SIW, variants=(DEFAULTS, SIW_CRC_P2P), detail=f"{CM_CONNECTIONS} connections"),
    indirect=True,
    ids=str,
)
def test_connections_alone_as_server(case: Case, guest: Guest, adapter: Adapter) -> None:
    listener = adapter.listen()
    command = ("cmtime", "-s", HOST_ADDRESS, "-p", listener.local_address[1], "-c", CM_CONNECTIONS)
    with running(guest, *command) as ended, ExitStack() as stack:
        peers = [stack.enter_context(Peer(adapter)) for _ in range(CM_CONNECTIONS)]
        for peer in peers:
            peer.take(listener)
        assert all(peer.wait_for_end().graceful for peer in peers)
    assert (ended[0].status, ended[0].errors) == (0, "")
    assert "disconnect" in ended[0].output
