"""What siw says at the start-up with each of its settings, octet by octet: that the variants are what they are called.

The other side is a plain TCP socket.
"""

import socket

import pytest

from scripts.interop.guest import HOST_ADDRESS, Guest
from softndk.wire.mpa import Enhanced, FrameKind
from tests.interop.cases import DEFAULTS, REVISION_1, SIW_CRC, SIW_CRC_P2P, SIW_STRICT, Active, Case
from tests.interop.peer import PATIENCE_S
from tests.interop.raw import RawPeer, listening, startup


def cases(active: Active) -> list[Case]:
    return [Case("start-up", active, variant) for variant in (DEFAULTS, SIW_CRC, SIW_CRC_P2P, REVISION_1)]


def request(case: Case, *, crc: bool = False, enhanced: Enhanced | None = None) -> bytes:
    revision = 1 if case.variant is REVISION_1 else 2
    asked = None if revision == 1 else enhanced or Enhanced(ird=1, ord=1)
    return startup(FrameKind.REQUEST, crc=crc, revision=revision, enhanced=asked)


@pytest.mark.parametrize("case", cases(Active.SIW), indirect=True, ids=str)
def test_the_request(case: Case, guest: Guest) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener, guest.settings(**case.variant.siw):
        listener.settimeout(PATIENCE_S)
        address = ("-a", HOST_ADDRESS, "-p", listener.getsockname()[1])
        with guest.start("rping", "-c", *address, "-C", 1), RawPeer(listener.accept()[0]) as peer:
            frame = peer.receive_startup()
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
    with listening(guest, **case.variant.siw) as peer:
        peer.connection.sendall(request(case, crc=crc))
        frame = peer.receive_startup()
        peer.end_gently()
    assert frame.kind is FrameKind.REPLY
    assert (frame.markers, frame.reject, frame.private_data) == (False, False, b"")
    assert frame.crc is crc
    assert frame.revision == (1 if case.variant is REVISION_1 else 2)
    assert frame.enhanced == (None if case.variant is REVISION_1 else Enhanced(ird=1, ord=1))


@pytest.mark.parametrize("case", [Case("start-up", Active.SOFTNDK, SIW_STRICT)], indirect=True, ids=str)
def test_a_request_with_crc_is_rejected(case: Case, guest: Guest) -> None:
    with listening(guest, **case.variant.siw) as peer:
        peer.connection.sendall(request(case, crc=True))
        frame = peer.receive_startup()
    assert frame.reject
    assert not frame.crc


@pytest.mark.parametrize("case", [Case("start-up", Active.SOFTNDK, DEFAULTS, "p2p asked")], indirect=True, ids=str)
def test_the_reply_to_a_peer_to_peer_request(case: Case, guest: Guest) -> None:
    """siw picks the RDMA Write, also without its own peer-to-peer mode."""
    with listening(guest, **case.variant.siw) as peer:
        asked = Enhanced(ird=4, ord=4, peer_to_peer=True, rtr_write=True, rtr_read=True)
        peer.connection.sendall(request(case, enhanced=asked))
        frame = peer.receive_startup()
        peer.end_gently()
    assert frame.enhanced == Enhanced(ird=4, ord=4, peer_to_peer=True, rtr_write=True)
