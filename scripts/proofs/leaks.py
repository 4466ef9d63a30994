"""Create, connect, transfer, disconnect, close, many times over in one process: nothing may grow.

Usage: leaks.py [ROUNDS]   (default 10,000). Prints descriptors, threads, tokens, objects and memory on the way; exit
status 1 if they end higher than after the first tenth (memory: by more than a tenth plus 2 MiB of noise).
"""

import gc
import os
import sys
import threading
import time
from dataclasses import astuple, dataclass

import softndk
from softndk import Adapter, OpFlag

WAIT_S = 20.0


@dataclass(frozen=True)
class Level:
    """What one process holds at one moment."""

    descriptors: int
    threads: int
    objects: int
    resident_kib: int


def level(adapters: tuple[Adapter, Adapter]) -> Level:
    gc.collect()
    with open("/proc/self/statm") as file:
        pages = int(file.read().split()[1])
    return Level(
        len(os.listdir("/proc/self/fd")),
        threading.active_count(),
        sum(len(adapter.open_objects) for adapter in adapters),
        pages * os.sysconf("SC_PAGE_SIZE") // 1024,
    )


def one_round(a: Adapter, b: Adapter, listener: softndk.Listener, number: int) -> None:
    """Two fresh ends; a message with an invalidation; a graceful end on both sides, or an abrupt one every tenth time."""
    ends = []
    for adapter in (a, b):
        pd = adapter.create_pd()
        cq = adapter.create_cq(16)
        mr = pd.register_mr(bytearray(256))
        qp = pd.create_qp(cq, cq, receive_queue_depth=4, initiator_queue_depth=4)
        ends.append((pd, cq, mr, qp))
    (pd_a, cq_a, _, qp_a), (pd_b, cq_b, mr_b, qp_b) = ends
    connecting = a.connect(qp_a, listener.local_address)
    passive = listener.next_request().result(WAIT_S)
    qp_b.receive(mr_b[0:64])
    accepting = passive.accept(qp_b)
    active = connecting.result(WAIT_S)
    accepting.result(WAIT_S)
    window = pd_b.create_mw()
    qp_b.bind(mr_b, window, flags=OpFlag.ALLOW_REMOTE_WRITE | OpFlag.SILENT_SUCCESS)
    qp_a.send_and_invalidate(number.to_bytes(8, "big"), window.remote_token)
    (received,) = cq_b.wait(WAIT_S)
    received.check()
    assert bytes(mr_b.view[:8]) == number.to_bytes(8, "big")
    cq_a.wait(WAIT_S)
    if number % 10:
        mine = active.disconnect()
        passive.disconnected.result(WAIT_S)
        passive.disconnect().result(WAIT_S)
        mine.result(WAIT_S)
    closing = []
    for item in (active, passive, qp_a, qp_b, cq_a, cq_b, window, mr_b, ends[0][2], pd_a, pd_b):
        closing.append(item.close())
    for pending in closing:
        pending.result(WAIT_S)


def main() -> int:
    rounds = int(sys.argv[1]) if len(sys.argv) > 1 else 10_000
    step = max(1, rounds // 10)
    levels = []
    started = time.monotonic()
    with softndk.open_adapter() as a, softndk.open_adapter() as b, b.listen() as listener:
        for number in range(1, rounds + 1):
            one_round(a, b, listener, number)
            if number % step == 0:
                levels.append(level((a, b)))
                seconds = time.monotonic() - started
                print(f"{number:6d} rounds {seconds:6.1f} s  {levels[-1]}", flush=True)
    first, last = levels[0], levels[-1]
    allowed = (first.descriptors + 2, first.threads, first.objects, first.resident_kib * 1.1 + 2048)
    grown = [name for name, now, top in zip(vars(last), astuple(last), allowed, strict=True) if now > top]
    print(f"grown: {', '.join(grown)}" if grown else f"no growth in {rounds} rounds")
    return 1 if grown else 0


if __name__ == "__main__":
    sys.exit(main())
