"""Other sides for the player: our own NIC behind rping's protocol, and small stacks that are wrong in one way each."""

import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress

from softndk import Address, open_adapter
from softndk.cli.interrupt import Interrupt
from softndk.cli.ping_client import ClientOptions
from softndk.cli.ping_endpoint import Interrupted, PingFailed
from softndk.cli.ping_server import ServerOptions
from softndk.cli.rping import RpingClient, RpingLink, RpingServer
from softndk.peer import Outcome, Peer, Role, Scenario, play, scenario
from softndk.peer.link import Link

PATIENCE_S = 20.0


@contextmanager
def own_server() -> Iterator[Address]:
    """Our NIC with an rping server; its address."""
    with open_adapter() as adapter, adapter.listen() as listener:
        stop = Interrupt()
        server = RpingServer(
            adapter, ServerOptions(max_size=1 << 20, timeout_s=PATIENCE_S, once=False), stop, lambda *_: None
        )
        serving = threading.Thread(target=server.run, args=(listener,))
        serving.start()
        try:
            yield listener.local_address
        finally:
            stop.requested = True
            serving.join(PATIENCE_S)
            assert not serving.is_alive()


@contextmanager
def own_client(address: Address) -> Iterator[None]:
    """Our NIC with an rping client that connects there and wants one round."""
    stop = Interrupt()

    def client() -> None:
        with open_adapter() as adapter, RpingLink(adapter, stop, "the player") as link:
            options = ClientOptions(size=64, count=1, interval_s=0, timeout_s=PATIENCE_S)
            rping = RpingClient(link, options, stop, lambda *_: None)
            with suppress(PingFailed, Interrupted):  # that the player is a bad server is the purpose
                rping.connect(adapter, [address])
                rping.run()

    running = threading.Thread(target=client)
    running.start()
    try:
        yield
    finally:
        stop.requested = True
        running.join(PATIENCE_S)
        assert not running.is_alive()


def play_to_client(one: Scenario) -> Outcome:
    """Play as responder against our own client."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        listener.settimeout(PATIENCE_S)
        with own_client(listener.getsockname()):
            return play(one, listener.accept()[0], Role.RESPONDER, timeout_s=PATIENCE_S)


@contextmanager
def stack(behave: Callable[[Peer], None]) -> Iterator[socket.socket]:
    """A connection to a responder that does what `behave` says, and closes then.

    It is played by the player itself, whose octets tshark and our NIC have judged.
    """
    ours, theirs = socket.socketpair()

    def run() -> None:
        link = Link(theirs, PATIENCE_S)
        with suppress(Exception):  # the side under test sees what it sees; a test asserts on that alone
            behave(Peer(link, Role.RESPONDER))
        link.close()

    thread = threading.Thread(target=run)
    thread.start()
    try:
        yield ours
    finally:
        ours.close()
        thread.join(PATIENCE_S)
        assert not thread.is_alive()


def judged(one: Scenario, behave: Callable[[Peer], None], *, timeout_s: float = PATIENCE_S) -> Outcome:
    """Play `one` as initiator against such a responder."""
    with stack(behave) as sock:
        return play(one, sock, Role.INITIATOR, timeout_s=timeout_s)


def accept(peer: Peer) -> None:
    """The start-up, as it should be."""
    peer.expect("mpa_request")
    peer.mpa_reply()


@scenario(title="a Send with a wrong MSN", rule="RFC 5041 8.2", required="terminate 1/2/3", allowed={"close": "quiet"})
def wrong_msn(peer: Peer) -> None:
    peer.start()
    peer.send(b"hello", msn=7)


@scenario(title="nothing wrong", rule="RFC 5040 4.4", required="accepts")
def harmless(peer: Peer) -> None:
    peer.start()
    peer.sync()


__all__ = ["accept", "harmless", "judged", "own_client", "own_server", "play_to_client", "stack", "wrong_msn"]
