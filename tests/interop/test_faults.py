"""Faults from the other side, and what send_and_invalidate does to the memory of a program on siw.

rping's peer is played by hand: it has the token and the address of rping's memory, and gives rping wrong ones.
"""

from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from scripts.interop.channel import Program
from scripts.interop.guest import HOST_ADDRESS, Guest
from softndk import AccessViolation, Adapter, Fault, NdkError, OperationType, OpFlag, RemoteError, RemoteToken
from softndk.cli.rping import Advert
from tests.interop.cases import DEFAULTS, SIW_CRC_P2P, Active, Case
from tests.interop.peer import PATIENCE_S, Peer

SIZE = 1000
OTHER_TOKEN = 1 << 24
"""Differs from a token in this bit: names nothing, except by a chance of one in millions."""


def cases(detail: str, active: Active) -> pytest.MarkDecorator:
    found = [Case("rping", active, variant, detail) for variant in (DEFAULTS, SIW_CRC_P2P)]
    return pytest.mark.parametrize("case", found, indirect=True, ids=str)


@contextmanager
def lent(guest: Guest, adapter: Adapter) -> Iterator[tuple[Peer, int, RemoteToken, Program]]:
    """rping's client has connected to this side and lends SIZE octets, at this address with this token."""
    listener = adapter.listen()
    command = ("rping", "-c", "-a", HOST_ADDRESS, "-p", listener.local_address[1], "-S", SIZE, "-C", 1)
    with guest.start(*command) as program, Peer(adapter, size=2 * SIZE) as peer:
        peer.post_receives(1)
        peer.take(listener)
        advert = Advert.parse(peer.receive_bytes())
        assert advert.length == SIZE
        yield peer, advert.address, RemoteToken(advert.token), program


def fault_of(peer: Peer) -> Fault:
    """Why the connection has ended."""
    how = peer.wait_for_end()
    assert not how.graceful
    assert how.error is not None
    assert how.error.fault is not None
    return how.error.fault


def refused(peer: Peer) -> tuple[NdkError, tuple[int, int, int, bool]]:
    """The next result, a failure; layer, type and code of the peer's Terminate, and that it was the peer's."""
    with pytest.raises(NdkError) as failure:
        peer.result()
    fault = fault_of(peer)
    return failure.value, (fault.layer, fault.etype, fault.code, fault.received)


@cases("read beyond siw's memory", Active.SIW)
def test_a_read_beyond_siws_memory(case: Case, guest: Guest, adapter: Adapter) -> None:
    with lent(guest, adapter) as (peer, address, token, program):
        peer.qp.read(peer.mr[0 : SIZE + 1], address, token)
        error, terminate = refused(peer)
        program.wait(PATIENCE_S)
    assert isinstance(error, RemoteError)
    assert terminate == (0, 1, 1, True)  # RDMAP, remote protection, base or bounds


@cases("read with an unknown token", Active.SIW)
def test_a_read_with_a_token_that_siw_does_not_know(case: Case, guest: Guest, adapter: Adapter) -> None:
    with lent(guest, adapter) as (peer, address, token, program):
        peer.qp.read(peer.mr[0:SIZE], address, RemoteToken(token ^ OTHER_TOKEN))
        error, terminate = refused(peer)
        program.wait(PATIENCE_S)
    assert isinstance(error, AccessViolation)
    assert terminate == (0, 1, 0, True)  # RDMAP, remote protection, invalid STag


@cases("write beyond siw's memory", Active.SIW)
def test_a_write_beyond_siws_memory(case: Case, guest: Guest, adapter: Adapter) -> None:
    """A write completes with its last octet in the transport; only the end of the connection tells."""
    with lent(guest, adapter) as (peer, address, token, program):
        peer.qp.write(peer.mr[0 : SIZE + 1], address, token)
        assert peer.result().type is OperationType.WRITE
        fault = fault_of(peer)
        program.wait(PATIENCE_S)
    assert (fault.layer, fault.etype, fault.code, fault.received) == (1, 1, 1, True)  # DDP, tagged, base or bounds


@cases("send_and_invalidate", Active.SIW)
def test_send_and_invalidate_takes_memory_away(case: Case, guest: Guest, adapter: Adapter) -> None:
    """rping takes it for the go-ahead and lends its sink; the first token is good for nothing any more."""
    with lent(guest, adapter) as (peer, address, token, program):
        peer.qp.read(peer.mr[0:SIZE], address, token)
        assert peer.result().type is OperationType.READ
        peer.post_receives(1)
        peer.qp.send_and_invalidate(Advert().emit(), token, flags=OpFlag.SILENT_SUCCESS)
        assert Advert.parse(peer.receive_bytes()).token != token
        peer.qp.read(peer.mr[0:SIZE], address, token)
        error, terminate = refused(peer)
        program.wait(PATIENCE_S)
    assert isinstance(error, AccessViolation)
    assert terminate == (0, 1, 0, True)


@cases("send_and_invalidate, unknown token", Active.SIW)
def test_send_and_invalidate_of_a_token_that_siw_does_not_know(case: Case, guest: Guest, adapter: Adapter) -> None:
    with lent(guest, adapter) as (peer, _, token, program):
        peer.qp.send_and_invalidate(Advert().emit(), RemoteToken(token ^ OTHER_TOKEN))
        assert peer.result().type is OperationType.SEND
        fault = fault_of(peer)
        ended = program.wait(PATIENCE_S)
    assert (fault.layer, fault.etype, fault.code, fault.received) == (0, 2, 9, True)  # STag can't be invalidated
    assert "cq completion failed" in ended.errors


@pytest.mark.parametrize(("token_differs", "more", "code"), [(OTHER_TOKEN, 0, 0), (0, 1, 1)], ids=["token", "length"])
@cases("siw reads what is not lent", Active.SOFTNDK)
def test_siw_reads_what_is_not_lent(
    case: Case, guest: Guest, adapter: Adapter, token_differs: int, more: int, code: int
) -> None:
    """This side ends the connection with a Terminate; rping is told that it has ended."""
    port = guest.next_port()
    command = ("rping", "-s", "-a", "0.0.0.0", "-p", port.guest, "-S", 2 * SIZE)
    with guest.serving(port, *command) as program, Peer(adapter, size=SIZE) as peer:
        peer.connect(port.here)
        peer.send(Advert(peer.mr.address, peer.mr.remote_token ^ token_differs, SIZE + more).emit())
        fault = fault_of(peer)
        ended = program.wait(PATIENCE_S)
    assert (fault.layer, fault.etype, fault.code, fault.received) == (0, 1, code, False)
    assert "DISCONNECT EVENT" in ended.errors
