"""The good client: moves data over one connection all the time, and checks every octet of it in both directions.

Usage: python -m scripts.hostile.good PORT. Each round writes 64 KiB into the server's memory, has the server check them,
reads them back and checks them here. Every SLICE_S one JSON object: when, how many octets were right, how many not.
Ends with its standard input.
"""

import json
import random
import struct
import sys
import threading
import time
from typing import Final

from scripts.hostile.wire import LEASE
from softndk import Cq, RemoteToken, open_adapter

__all__ = ["GOOD", "SLICE_S", "SLOT", "SLOTS", "content"]

GOOD: Final = b"the good one"
SLOT: Final = 64 * 1024
SLOTS: Final = 4
SLICE_S: Final = 0.5
WAIT_S: Final = 60.0
_BASE: Final = memoryview(random.Random(7).randbytes(1 << 20))


def content(number: int) -> memoryview:
    """What round `number` writes; both sides can make it."""
    start = number * 4099 % (len(_BASE) - SLOT)
    return _BASE[start : start + SLOT]


def finish(cq: Cq, count: int) -> None:
    """Take `count` results, all successes."""
    while count:
        for result in cq.wait(WAIT_S, max_results=count):
            result.check()
            count -= 1


def main() -> None:
    port = int(sys.argv[1])
    ended = threading.Event()

    def watch() -> None:
        sys.stdin.read()
        ended.set()

    threading.Thread(target=watch, daemon=True).start()
    with open_adapter() as adapter:
        pd, cq = adapter.create_pd(), adapter.create_cq(64)
        qp = pd.create_qp(cq, cq, receive_queue_depth=4, initiator_queue_depth=8)
        source, sink, answer = (pd.register_mr(bytearray(size)) for size in (SLOT, SLOT, 64))
        connector = adapter.connect(qp, ("127.0.0.1", port), private_data=GOOD).result(WAIT_S)
        token, _, address = LEASE.unpack_from(connector.connection_data.private_data)
        right = wrong = number = 0
        since, slowest, begun = time.monotonic(), 0.0, time.monotonic()
        while not ended.is_set():
            data = content(number)
            there = address + number % SLOTS * SLOT
            source.view[:] = data
            qp.receive(answer[:])
            qp.write(source[:], there, RemoteToken(token))
            qp.send(struct.pack(">Q", number))
            qp.read(sink[:], there, RemoteToken(token))
            finish(cq, 4)
            said, good = struct.unpack(">QB", answer.view[:9])
            if said == number and good and sink.view == data:
                right += 2 * SLOT
            else:
                wrong += 1
            number += 1
            now = time.monotonic()
            slowest, begun = max(slowest, now - begun), now
            if now - since >= SLICE_S:
                line = {"at": now, "seconds": now - since, "right": right, "wrong": wrong, "slowest_s": slowest}
                print(json.dumps(line), flush=True)
                since, right, slowest = now, 0, 0.0
        connector.disconnect()


if __name__ == "__main__":
    main()
