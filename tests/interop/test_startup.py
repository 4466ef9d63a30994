"""What siw says at the start-up with each of its settings, octet by octet: that the variants are what they are called.

The other side is a plain TCP socket.
"""

import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from scripts.interop.guest import HOST_ADDRESS, Guest
from softndk.iwarp.framing import Framer
from softndk.wire import rdmap
from softndk.wire.ddp import QueueNumber, TaggedHeader, UntaggedHeader
from softndk.wire.mpa import Enhanced, FrameKind, StartupFrame, frame_length
from tests.interop.cases import DEFAULTS, REVISION_1, SIW_CRC, SIW_CRC_P2P, SIW_STRICT, Active, Case
from tests.interop.peer import PATIENCE_S

HEAD = 20
NUDGE_S = 0.5


def cases(active: Active) -> list[Case]:
    return [Case("start-up", active, variant) for variant in (DEFAULTS, SIW_CRC, SIW_CRC_P2P, REVISION_1)]


def receive_frame(connection: socket.socket) -> StartupFrame:
    connection.settimeout(PATIENCE_S)
    data = connection.recv(HEAD, socket.MSG_WAITALL)
    more = frame_length(data) - HEAD
    return StartupFrame.parse(data + (connection.recv(more, socket.MSG_WAITALL) if more else b""))


@contextmanager
def listening(guest: Guest, case: Case) -> Iterator[socket.socket]:
    """A connection to an rping server, before the first octet."""
    port = guest.next_port()
    with (
        guest.settings(**case.variant.siw),
        guest.serving(port, "rping", "-s", "-a", "0.0.0.0", "-p", port.guest),
        socket.create_connection(("127.0.0.1", port.here), PATIENCE_S) as connection,
    ):
        yield connection


def request(case: Case, *, crc: bool = False, enhanced: Enhanced | None = None) -> bytes:
    revision = 1 if case.variant is REVISION_1 else 2
    return StartupFrame(
        kind=FrameKind.REQUEST,
        markers=False,
        crc=crc,
        reject=False,
        revision=revision,
        enhanced=None if revision == 1 else enhanced or Enhanced(ird=1, ord=1),
        private_data=b"",
    ).emit()


def end_gently(connection: socket.socket, frame: StartupFrame) -> None:
    """Give rping a message that it does not know, so that it ends the connection.

    Closing right behind the start-up instead can make Linux 6.12 wait for ever for the end of rping's QP.
    """
    framer = Framer(crc=frame.crc, markers=False)
    empty_write = framer.frame(TaggedHeader(True, rdmap.control(rdmap.Opcode.WRITE), 1, 0).emit(), [])
    header = UntaggedHeader(True, rdmap.control(rdmap.Opcode.SEND), 0, QueueNumber.SEND, 1, 0).emit()
    connection.sendall(empty_write + framer.frame(header, [memoryview(b"what")]))
    connection.settimeout(NUDGE_S)
    deadline = time.monotonic() + PATIENCE_S
    while time.monotonic() < deadline:
        try:
            if not connection.recv(4096):
                return
        except TimeoutError:
            connection.sendall(empty_write)  # what came right behind the reply may lie unread
    raise AssertionError("rping does not end the connection")


@pytest.mark.parametrize("case", cases(Active.SIW), indirect=True, ids=str)
def test_the_request(case: Case, guest: Guest) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener, guest.settings(**case.variant.siw):
        listener.settimeout(PATIENCE_S)
        address = ("-a", HOST_ADDRESS, "-p", listener.getsockname()[1])
        with guest.start("rping", "-c", *address, "-C", 1), listener.accept()[0] as connection:
            frame = receive_frame(connection)
    assert frame.kind is FrameKind.REQUEST
    assert (frame.markers, frame.reject, frame.private_data) == (False, False, b"")
    assert frame.crc is ("mpa_crc_required" in case.variant.siw)
    if case.variant is REVISION_1:
        assert (frame.revision, frame.enhanced) == (1, None)
    else:
        p2p = "peer_to_peer" in case.variant.siw
        assert frame.revision == 2
        assert frame.enhanced == Enhanced(ird=1, ord=1, peer_to_peer=p2p, rtr_write=p2p, rtr_read=p2p)


@pytest.mark.parametrize("crc", [False, True], ids=["crc_off", "crc_on"])
@pytest.mark.parametrize("case", cases(Active.SOFTNDK), indirect=True, ids=str)
def test_the_reply(case: Case, guest: Guest, crc: bool) -> None:
    """siw answers as it is asked, whatever its own settings are: mpa_crc_required is for its requests only."""
    with listening(guest, case) as connection:
        connection.sendall(request(case, crc=crc))
        frame = receive_frame(connection)
        end_gently(connection, frame)
    assert frame.kind is FrameKind.REPLY
    assert (frame.markers, frame.reject, frame.private_data) == (False, False, b"")
    assert frame.crc is crc
    assert frame.revision == (1 if case.variant is REVISION_1 else 2)
    assert frame.enhanced == (None if case.variant is REVISION_1 else Enhanced(ird=1, ord=1))


@pytest.mark.parametrize("case", [Case("start-up", Active.SOFTNDK, SIW_STRICT)], indirect=True, ids=str)
def test_a_request_with_crc_is_rejected(case: Case, guest: Guest) -> None:
    with listening(guest, case) as connection:
        connection.sendall(request(case, crc=True))
        frame = receive_frame(connection)
    assert frame.reject
    assert not frame.crc


@pytest.mark.parametrize("case", [Case("start-up", Active.SOFTNDK, DEFAULTS, "p2p asked")], indirect=True, ids=str)
def test_the_reply_to_a_peer_to_peer_request(case: Case, guest: Guest) -> None:
    """siw picks the RDMA Write, also without its own peer-to-peer mode."""
    with listening(guest, case) as connection:
        asked = Enhanced(ird=4, ord=4, peer_to_peer=True, rtr_write=True, rtr_read=True)
        connection.sendall(request(case, enhanced=asked))
        frame = receive_frame(connection)
        end_gently(connection, frame)
    assert frame.enhanced == Enhanced(ird=4, ord=4, peer_to_peer=True, rtr_write=True)
