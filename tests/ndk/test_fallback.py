"""fallback_revision_1 over sockets: a peer that knows revision 1 only closes, and is asked again."""

import threading

import pytest

from softndk import IwarpConfig, Refused, Status, open_adapter
from softndk.wire.mpa import StartupFrame
from softndk.wire.rdmap import Opcode
from tests.ndk.ends import PATIENCE_S, loose_end, one
from tests.ndk.raw_peer import RawListener, RawPeer

FALLBACK = IwarpConfig(fallback_revision_1=True)


def ask(listener: RawListener) -> tuple[RawPeer, StartupFrame]:
    peer = listener.accept()
    return peer, peer.read_startup()


@pytest.mark.parametrize("how", ["FIN", "RST"])
@pytest.mark.parametrize("waits", [True, False])
@pytest.mark.parametrize("port", ["any", "chosen"])
def test_a_peer_of_revision_1_is_connected(how: str, waits: bool, port: str) -> None:
    """Waiting for the connect or not makes a different thread serve the sockets."""
    with open_adapter(config=FALLBACK) as adapter, RawListener() as listener:
        end = loose_end(adapter)
        source = None
        if port == "chosen":
            with RawListener() as other:
                source = other.address
        connecting = end.connector.connect(end.qp, listener.address, source=source, private_data=b"hi")
        if waits:
            waiter = threading.Thread(target=connecting.result, args=(PATIENCE_S,))
            waiter.start()
        first, request = ask(listener)
        assert (request.revision, request.private_data) == (2, b"hi")
        if how == "FIN":
            first.finish()
            assert first.at_end()
            first.sock.close()
        else:
            first.reset()
        second, request = ask(listener)
        with second:
            assert (request.revision, request.enhanced, request.private_data) == (1, None, b"hi")
            second.send_reply(b"yes", revision=1)
            connecting.result(PATIENCE_S)
            end.connector.complete_connect().result(PATIENCE_S)
            if waits:
                waiter.join(PATIENCE_S)
            assert end.connector.connection_data.private_data == b"yes"
            assert end.connector.local_address == second.sock.getpeername()[:2]
            assert source is None or end.connector.local_address == source
            end.qp.send(b"over revision 1")
            header, payload = second.read_untagged(Opcode.SEND)
            assert (header.msn, payload) == (1, b"over revision 1")
            assert one(end.cq).status is Status.SUCCESS


def test_without_the_setting_the_connect_is_refused() -> None:
    with open_adapter() as adapter, RawListener() as listener:
        connecting = adapter.connect(loose_end(adapter).qp, listener.address)
        peer, _ = ask(listener)
        with peer:
            peer.finish()
            with pytest.raises(Refused):
                connecting.result(PATIENCE_S)


def test_two_closes_are_a_refusal() -> None:
    with open_adapter(config=FALLBACK) as adapter, RawListener() as listener:
        connecting = adapter.connect(loose_end(adapter).qp, listener.address)
        for revision in (2, 1):
            peer, request = ask(listener)
            assert request.revision == revision
            peer.sock.close()
        with pytest.raises(Refused, match="revision 1"):
            connecting.result(PATIENCE_S)


def test_the_second_attempt_finds_nobody() -> None:
    with open_adapter(config=FALLBACK) as adapter:
        with RawListener() as listener:
            connecting = adapter.connect(loose_end(adapter).qp, listener.address)
            peer = listener.accept()
        with peer:
            peer.read_startup()
        with pytest.raises(Refused):
            connecting.result(PATIENCE_S)
