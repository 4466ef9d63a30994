"""What one connection costs the server, by what its peer does, against the bounds that docs/reference/limits.md states.

Usage: memory.py [CONNECTIONS]   (default 200). The server is an adapter, the peers are raw TCP in another process. Each
case is a process of its own, opens that many connections, has all of them do the same, and measures how much the
resident memory has grown. Exit status 1 if a case costs more than its bound.
"""

import gc
import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Final, NamedTuple

ROOT: Final = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))

from scripts.hostile.wire import LEASE, Peer, request  # noqa: E402
from softndk import Adapter, Connector, IwarpConfig, Listener, MrFlag, NdkObject, Srq, open_adapter  # noqa: E402
from softndk.wire.rdmap import Opcode  # noqa: E402

WAIT_S: Final = 60.0
KIB: Final = 1024
LENT: Final = 1024 * 1024
CONFIG: Final = IwarpConfig(
    accept_timeout_s=600.0,
    stall_timeout_s=600.0,
    ready_timeout_s=600.0,
    max_handshakes=10_000,
    max_handshakes_per_address=10_000,
    max_pending_requests=10_000,
    max_pending_requests_per_address=10_000,
)
OBJECTS_KIB: Final = 24
"""What the Python objects of one connection may cost: connector, QP with its queues, CQ, PD and regions."""


class Case(NamedTuple):
    """What the peers do, what of it the server has when all have done it, and how much each may cost in KiB."""

    does: Callable[[Peer], None]
    done: Callable[[Adapter, Listener, int], bool]
    accepts: bool
    bound_kib: int


def silent_tcp(peer: Peer) -> None:
    pass


def request_unanswered(peer: Peer) -> None:
    peer.send(request(bytes(508)))


def idle(peer: Peer) -> None:
    peer.establish("idle")


def unfinished_fpdu(peer: Peer) -> None:
    peer.establish("unfinished")
    peer.send(b"\xff\xff" + bytes(65_000))


def read_requests(peer: Peer) -> None:
    """As many reads as agreed; the answers stay unread, so that the send buffer is full too."""
    token, length, address = peer.establish("reads")
    for _ in range(CONFIG.max_inbound_read_limit):
        peer.send(peer.read_request(token, address, length))


def message_held_back(peer: Peer) -> None:
    """Messages for an SRQ that has no receive: what one read takes in is kept, then TCP holds the peer back."""
    peer.establish("held")
    peer.sock.settimeout(0.5)
    message = peer.untagged(Opcode.SEND, bytes(60_000))
    for _ in range(12):
        try:
            peer.sock.sendall(message)
        except TimeoutError:
            break


def _handshakes(adapter: Adapter, listener: Listener, count: int) -> bool:
    return len(listener._handshakes) == count


def _requests(adapter: Adapter, listener: Listener, count: int) -> bool:
    return len(listener._requests) == count


def _up(octets: int) -> Callable[[Adapter, Listener, int], bool]:
    """All are up and have brought that many octets."""

    def done(adapter: Adapter, listener: Listener, count: int) -> bool:
        statistics = adapter.query_statistics()
        return statistics.active_connection == count and statistics.rdma_in_octets >= octets * count

    return done


CASES: Final = {
    "TCP and no word": Case(silent_tcp, _handshakes, False, 16),
    "a request, unanswered": Case(request_unanswered, _requests, False, 16),
    "established, idle": Case(idle, _up(1), True, OBJECTS_KIB),
    "an FPDU of 64 KiB, unfinished": Case(unfinished_fpdu, _up(65_000), True, OBJECTS_KIB + 72),
    "64 reads, their answers unread": Case(read_requests, _up(64 * 50), True, OBJECTS_KIB + 256 + 64 + 64),
    "messages for an empty SRQ": Case(message_held_back, _up(16 * KIB), True, OBJECTS_KIB + 256 + 64),
}


class Server:
    """Accepts every connection with a QP of its own."""

    def __init__(self, adapter: Adapter) -> None:
        self.objects: list[tuple[NdkObject, ...]] = []
        self._adapter = adapter
        self._pd = adapter.create_pd()
        self._srq: Srq = self._pd.create_srq(1)
        self._lent = self._pd.register_mr(bytearray(LENT), MrFlag.ALLOW_REMOTE_READ)

    def accept(self, connector: Connector) -> None:
        pd, cq = self._pd, self._adapter.create_cq(16)
        if connector.connection_data.private_data == b"held":
            qp = pd.create_qp_with_srq(cq, cq, self._srq, initiator_queue_depth=8)
        else:
            qp = pd.create_qp(cq, cq, receive_queue_depth=8, initiator_queue_depth=8)
        lease = LEASE.pack(self._lent.remote_token, self._lent.length, self._lent.address)
        accepting = connector.accept(qp, private_data=lease)
        accepting.add_done_callback(lambda done: done.exception())
        self.objects.append((connector, qp, cq))

    def close(self) -> None:
        for objects in self.objects:
            for item in objects:
                item.close()
        for objects in self.objects:
            for item in objects:
                item.close().result(WAIT_S)
        self.objects.clear()


def resident() -> int:
    gc.collect()
    with open("/proc/self/statm") as file:
        return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def measure(name: str, case: Case, count: int) -> float:
    """KiB resident for each of `count` connections."""
    with open_adapter(config=CONFIG) as adapter:
        server = Server(adapter)
        listener = adapter.create_listener(server.accept if case.accepts else None)
        listener.listen(("127.0.0.1", 0)).result(WAIT_S)
        port = listener.local_address[1]
        level = resident()
        with subprocess.Popen([sys.executable, __file__, "--peers", name, str(port), str(count)], stdin=-1) as peers:
            end = time.monotonic() + WAIT_S
            while not case.done(adapter, listener, count):
                if time.monotonic() > end or peers.poll() is not None:
                    peers.kill()
                    raise SystemExit(f"{name}: the peers have not done it: {adapter.query_statistics()}")
                time.sleep(0.05)
            used = resident() - level
            peers.communicate()
        server.close()
        return used / count / KIB


def be_peers(name: str, port: int, count: int) -> None:
    """In a process of its own: `count` peers that do it, until the standard input ends."""
    never = threading.Event()
    peers = [Peer(("127.0.0.1", port), "127.0.0.1", never) for _ in range(count)]
    for peer in peers:
        CASES[name].does(peer)
    sys.stdin.read()


def main() -> int:
    if sys.argv[1:2] == ["--peers"]:
        be_peers(sys.argv[2], int(sys.argv[3]), int(sys.argv[4]))
        return 0
    if sys.argv[1:2] == ["--case"]:
        name, count = sys.argv[2], int(sys.argv[3])
        measure(name, CASES[name], 10)  # what is needed once only
        print(measure(name, CASES[name], count))
        return 0
    count = int(sys.argv[1]) if len(sys.argv) > 1 else 200
    print(f"resident memory of the server for each of {count} connections")
    excess = []
    for name, case in CASES.items():
        command = [sys.executable, __file__, "--case", name, str(count)]
        cost = float(subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True).stdout)
        print(f"  {name:32s} {cost:7.1f} KiB   bound {case.bound_kib:4d} KiB", flush=True)
        if cost > case.bound_kib:
            excess.append(name)
    print(f"over the bound: {', '.join(excess)}" if excess else "all within their bounds")
    return 1 if excess else 0


if __name__ == "__main__":
    sys.exit(main())
