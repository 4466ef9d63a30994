"""Where siw is not as the RFCs say, and what a peer has to know: each shown by a plain TCP socket.

docs/reference/interop.md lists these tests. One that fails says that this kernel's siw is another one than the page's.
"""

import re
import signal
import socket
import time

import pytest

from scripts.interop.channel import Program
from scripts.interop.common import LabError
from scripts.interop.guest import HOST_ADDRESS, Guest
from softndk.wire import rdmap
from softndk.wire.mpa import Enhanced, FrameKind
from tests.interop.cases import DEFAULTS, SIW_CRC, Active, Case
from tests.interop.conftest import Guests
from tests.interop.peer import PATIENCE_S
from tests.interop.raw import QUIET_S, UNKNOWN, RawPeer, listening, send, startup, write

ONE = Enhanced(ird=1, ord=1)
MESSAGES, SIZE = 10, 100_000
ATTEMPTS = 20
TERMINATE_BODY = 18
"""Where a Terminate's body begins in its ULPDU."""


def difference(detail: str, active: Active = Active.SOFTNDK, *, crc: bool = False) -> pytest.MarkDecorator:
    found = Case("siw", active, SIW_CRC if crc else DEFAULTS, detail, smoke=True)
    return pytest.mark.parametrize("case", [found], indirect=True, ids=str)


def wait_until_said(guest: Guest, command: tuple[str | int, ...], wanted: str) -> None:
    """Wait until `wanted`, a regular expression, is in what the guest's command prints."""
    deadline = time.monotonic() + PATIENCE_S
    while time.monotonic() < deadline:
        said = guest.run(*command).output
        if re.search(wanted, said):
            return
    raise AssertionError(f"{command} does not say {wanted!r} but\n{said}")


def ended(program: Program) -> str:
    return program.wait(PATIENCE_S).errors


# ---- as the side that is connected to


@difference("octets ahead of the takeover")
def test_siw_leaves_octets_unread_that_come_before_it_has_taken_the_connection_over(case: Case, guest: Guest) -> None:
    """It looks at the socket when octets arrive, not at those that are there already (softndk: `nudge_s`).

    That happens to an FPDU right behind the reply, by chance. Here rping is stopped before it can accept, so that
    the FPDU is always there first.
    """
    port = guest.next_port()
    with (
        guest.serving(port, "rping", "-s", "-a", "0.0.0.0", "-p", port.guest) as rping,
        RawPeer(socket.create_connection(("127.0.0.1", port.here), PATIENCE_S)) as peer,
    ):
        rping.signal(signal.SIGSTOP)
        peer.connection.sendall(startup(FrameKind.REQUEST, enhanced=ONE))
        wait_until_said(guest, ("rdma", "resource", "show", "cm_id"), f"state CONNECT .*:{port.guest} ")
        early = peer.frame(write(), send(UNKNOWN))
        peer.connection.sendall(early)
        wait_until_said(guest, ("ss", "-tnH", "sport", f":{port.guest}"), rf"ESTAB\s+{len(early)}\s")
        rping.signal(signal.SIGCONT)
        peer.receive_startup()
        with pytest.raises(TimeoutError):
            peer.receive(QUIET_S)
        peer.send(write())
        assert peer.receive() is None  # rping has read the message that it does not know
        assert "bogus" in ended(rping)


@difference("first frame without waiting")
def test_siw_sends_before_the_initiator_has_sent_anything(case: Case, guest: Guest) -> None:
    """RFC 5044 7.1.3: the responder waits for the first FPDU."""
    with listening(guest, "ucmatose", "-c", 1, "-C", MESSAGES, "-S", SIZE) as peer:
        peer.connection.sendall(startup(FrameKind.REQUEST, enhanced=ONE))
        peer.receive_startup()
        ulpdu = peer.receive()
        assert ulpdu is not None
        assert rdmap.opcode_of(ulpdu[1]) in (rdmap.Opcode.SEND, rdmap.Opcode.SEND_SE)


@difference("half-close")
def test_siw_stops_sending_at_the_peers_fin(case: Case, guest: Guest) -> None:
    """RFC 5041: one FIN ends one direction. siw ends both: messages that it had taken are lost."""
    with listening(guest, "ucmatose", "-c", 1, "-C", MESSAGES, "-S", SIZE) as peer:
        peer.connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        peer.connection.sendall(startup(FrameKind.REQUEST, enhanced=ONE))
        peer.receive_startup()
        peer.send(write())
        first = peer.receive()
        peer.connection.shutdown(socket.SHUT_WR)
        received = 0
        while first is not None:
            received += len(first) - TERMINATE_BODY
            first = peer.receive()
    assert 0 < received < MESSAGES * SIZE


@difference("private data")
def test_siw_takes_private_data_up_to_256_octets(case: Case, guest: Guest) -> None:
    """RFC 5044 7.1: 512. The four octets of the enhanced start-up are among the 256."""
    with listening(guest) as peer:
        peer.connection.sendall(startup(FrameKind.REQUEST, enhanced=ONE, private_data=bytes(252)))
        assert not peer.receive_startup().reject
        peer.end_gently()
    with listening(guest) as peer:
        peer.connection.sendall(startup(FrameKind.REQUEST, enhanced=ONE, private_data=bytes(253)))
        with pytest.raises(ConnectionError):
            peer.receive_startup()


@difference("markers")
def test_siw_rejects_who_asks_for_markers(case: Case, guest: Guest) -> None:
    """RFC 5044 7.1: an implementation sends markers if the receiver asks for them."""
    with listening(guest) as peer:
        peer.connection.sendall(startup(FrameKind.REQUEST, markers=True, enhanced=ONE))
        assert peer.receive_startup().reject


@difference("request without read limits")
def test_siws_program_may_not_read_after_a_request_without_read_limits(case: Case, guest: Guest) -> None:
    """Revision 1 has none, and either side keeps its own; siw takes them for 0."""
    port = guest.next_port()
    with (
        guest.serving(port, "rping", "-s", "-a", "0.0.0.0", "-p", port.guest) as rping,
        RawPeer(socket.create_connection(("127.0.0.1", port.here), PATIENCE_S)) as peer,
    ):
        peer.connection.sendall(startup(FrameKind.REQUEST, revision=1))
        assert peer.receive_startup().revision == 1
        advert = (0x1000).to_bytes(8, "big") + (0x100).to_bytes(4, "big") + (64).to_bytes(4, "big")
        peer.send(send(advert))
        assert peer.react() is None  # no Read Request, no Terminate
        assert "post send error" in ended(rping)


@difference("Terminate", crc=True)
def test_the_octets_of_siws_terminate_are_in_another_order(case: Case, guest: Guest) -> None:
    """RFC 5040 4.8: layer, type and the M, D, R bits begin at the high bit. Layer 2, type 0, code 2 is `20 02`."""
    with listening(guest) as peer:
        peer.connection.sendall(startup(FrameKind.REQUEST, crc=True, enhanced=ONE))
        assert peer.receive_startup().crc
        damaged = peer.frame(write())
        damaged[-1] ^= 1
        peer.connection.sendall(damaged)
        ulpdu = peer.react()
        assert ulpdu is not None
        assert rdmap.opcode_of(ulpdu[1]) == rdmap.Opcode.TERMINATE
        assert ulpdu[TERMINATE_BODY : TERMINATE_BODY + 4] == bytes.fromhex("02 02 00 00")


@pytest.mark.parametrize("case", [Case("siw", Active.SOFTNDK, DEFAULTS, "no first frame")], indirect=True, ids=str)
def test_linux_has_a_kernel_bug_when_a_peer_leaves_before_its_first_frame(case: Case, guests: Guests) -> None:
    """A peer-to-peer request, the reply, and then the end of the connection instead of the ready-to-receive indication:
    a BUG in iw_cm, the part of the kernel above siw. No iWARP program of that machine gets far after it.
    """
    guest = guests.running()
    guests.spoil()
    for _ in range(ATTEMPTS):  # it takes a race inside the kernel, which is lost nearly every time
        port = guest.next_port()
        rping = guest.start("rping", "-s", "-a", "0.0.0.0", "-p", port.guest)
        guest.wait_for_listener(port)
        with RawPeer(socket.create_connection(("127.0.0.1", port.here), PATIENCE_S)) as peer:
            asked = Enhanced(ird=1, ord=1, peer_to_peer=True, rtr_write=True)
            peer.connection.sendall(startup(FrameKind.REQUEST, enhanced=asked))
            assert peer.receive_startup().enhanced == asked
        deadline = time.monotonic() + PATIENCE_S
        while not guest.kernel_fault and has_not_ended(rping):
            assert time.monotonic() < deadline, "rping is not told of the end, without a fault in the kernel's log"
        if guest.kernel_fault:
            break
    else:
        pytest.skip("the race inside Linux's iw_cm was lost every time")
    assert "kernel BUG at drivers/infiniband/core/iwcm.c" in guest.kernel_fault


def has_not_ended(program: Program) -> bool:
    """After a short wait."""
    try:
        program.wait(QUIET_S)
    except LabError:
        return True
    return False


# ---- as the side that connects


@difference("frame right behind the reply", Active.SIW)
def test_siw_drops_a_connection_with_octets_right_behind_the_reply(case: Case, guest: Guest) -> None:
    """RFC 5044 7.1.3 forbids such octets, and siw is strict here, while its own passive side sends them."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        listener.settimeout(PATIENCE_S)
        address = ("-a", HOST_ADDRESS, "-p", listener.getsockname()[1])
        with guest.start("rping", "-c", *address, "-C", 1) as rping, RawPeer(listener.accept()[0]) as peer:
            peer.receive_startup()
            peer.connection.sendall(startup(FrameKind.REPLY, enhanced=ONE) + peer.frame(write()))
            assert peer.receive() is None
            assert ended(rping)
