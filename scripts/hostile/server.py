"""The server under attack: one adapter, one listener; it accepts everybody and lends each connection some memory.

Usage: python -m scripts.hostile.server. Prints its port, then for each line on standard input one JSON object with what
it holds and has counted; the line "trim" has free memory given back before. Ends, and closes its adapter, with its
standard input. The good client is told apart by its private data; its messages are checked here.
"""

import ctypes
import gc
import json
import os
import resource
import struct
import sys
import threading
from collections import Counter
from contextlib import suppress
from dataclasses import asdict
from pathlib import Path
from typing import Any

from scripts.hostile.good import GOOD, SLOT, SLOTS, content
from scripts.hostile.wire import LEASE
from softndk import (
    Adapter,
    Connector,
    Cq,
    IwarpConfig,
    Mr,
    MrFlag,
    NdkError,
    NdkObject,
    Pending,
    Qp,
    open_adapter,
)

EVERYTHING = MrFlag.ALLOW_REMOTE_READ | MrFlag.ALLOW_REMOTE_WRITE
HOSTILE_LEASE = 64 * 1024
CONFIG = IwarpConfig(stall_timeout_s=6.0, ready_timeout_s=4.0, max_handshakes_per_address=100)
"""Times shorter than the defaults, so that every limit shows within a minute. The attackers have two addresses, which even
together may not take all places for start-ups.
"""


class Server:
    """Takes connections until the process ends."""

    def __init__(self, adapter: Adapter) -> None:
        self.adapter = adapter
        self.endings: Counter[str] = Counter()
        self.checked = 0
        self.wrong = 0
        self.complaints: list[str] = []
        self.listener = adapter.create_listener(self._requested)
        self.listener.listen(("127.0.0.1", 0)).result(10)

    def report(self) -> dict[str, Any]:
        pages = int(Path("/proc/self/statm").read_text().split()[1])
        with self.adapter._lock:
            handshakes = len(self.listener._handshakes)
        return {
            "rss": pages * os.sysconf("SC_PAGE_SIZE"),
            "fds": len(os.listdir("/proc/self/fd")),
            "threads": threading.active_count(),
            "objects": len(self.adapter.open_objects),
            "connections": len(self.adapter.query_connections()),
            "handshakes": handshakes,
            "cpu_s": sum(resource.getrusage(resource.RUSAGE_SELF)[:2]),
            "statistics": asdict(self.adapter.query_statistics()),
            "endings": dict(self.endings),
            "checked": self.checked,
            "wrong": self.wrong,
            "complaints": self.complaints[:10],
        }

    def _requested(self, connector: Connector) -> None:
        """On the callback thread."""
        try:
            kind = connector.connection_data.private_data
            good = kind == GOOD
            pd, cq = self.adapter.create_pd(), self.adapter.create_cq(64)
            lent = pd.register_mr(bytearray(SLOT * SLOTS if good else HOSTILE_LEASE), EVERYTHING)
            inbox = pd.register_mr(bytearray(4 * 64))
            qp = pd.create_qp(cq, cq, receive_queue_depth=16, initiator_queue_depth=16)
            for number in range(4):
                qp.receive(inbox[64 * number : 64 * (number + 1)], context=number)
            objects: tuple[NdkObject, ...] = (connector, qp, cq, lent, inbox, pd)
            accepting = connector.accept(
                qp,
                private_data=LEASE.pack(lent.remote_token, lent.length, lent.address),
                on_disconnect=lambda _, how: self._ended(objects, how.error),
            )
        except NdkError as error:  # it has gone meanwhile
            self._ended((connector,), error)
            return
        accepting.add_done_callback(lambda done: self._accepted(done, objects))
        if good:
            threading.Thread(target=self._serve_good, args=(qp, cq, lent, inbox), daemon=True).start()

    def _accepted(self, done: Pending[None], objects: tuple[NdkObject, ...]) -> None:
        error = done.exception()
        if isinstance(error, NdkError):
            self._ended(objects, error)
        elif error is not None:
            self.complaints.append(repr(error))

    def _ended(self, objects: tuple[NdkObject, ...], error: NdkError | None) -> None:
        fault = None if error is None else error.fault
        if fault is not None:
            said = "received" if fault.received else "sent"
            self.endings[f"Terminate {fault.layer}/{fault.etype}/{fault.code} {said}"] += 1
        else:
            self.endings["graceful" if error is None else error.status.name] += 1
        for item in objects:
            item.close()

    def _serve_good(self, qp: Qp, cq: Cq, lent: Mr, inbox: Mr) -> None:
        try:
            while True:
                for result in cq.wait():
                    if not result.is_receive:
                        continue
                    result.check()
                    slot = inbox[64 * result.request_context : 64 * result.request_context + 64]
                    start = 64 * result.request_context
                    (number,) = struct.unpack(">Q", inbox.view[start : start + 8])
                    at = number % SLOTS * SLOT
                    right = lent.view[at : at + SLOT] == content(number)
                    self.checked += 1
                    self.wrong += not right
                    qp.receive(slot, context=result.request_context)
                    qp.send(struct.pack(">QB", number, right))
        except (NdkError, ConnectionError) as error:
            self.complaints.append(f"the good connection: {error}")


def main() -> None:
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    with suppress(ValueError, OSError):
        resource.setrlimit(resource.RLIMIT_NOFILE, (min(hard, 16384), hard))
    with open_adapter(config=CONFIG) as adapter:
        server = Server(adapter)
        print(server.listener.local_address[1], flush=True)
        for line in sys.stdin:
            if line.strip() == "trim":
                give_back()
            print(json.dumps(server.report()), flush=True)


def give_back() -> None:
    """Have the C library return what nobody holds any more, so that what is resident is what is held."""
    gc.collect()
    with suppress(OSError, AttributeError):
        ctypes.CDLL(None).malloc_trim(0)


if __name__ == "__main__":
    main()
