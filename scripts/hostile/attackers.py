"""A process full of attackers: one thread for each hostile connection.

Usage: python -m scripts.hostile.attackers PORT SHARE SHARES COUNT SEED. It is share SHARE of SHARES and has its part of
COUNT connections. Runs until its standard input ends; then one JSON object: kind to how its attempts ended and how often.
"""

import json
import os
import random
import sys
import threading
import time
from collections import Counter

from scripts.hostile.attacks import KINDS, Kind
from scripts.hostile.wire import Over, Peer

Outcomes = dict[str, Counter[str]]


class Attacker:
    """One hostile connection that comes again whenever it has been ended."""

    def __init__(self, name: str, kind: Kind, target: tuple[str, int], seed: int, stop: threading.Event) -> None:
        self.name = name
        self.outcomes: Counter[str] = Counter()
        self._kind = kind
        self._target = target
        self._chance = random.Random(seed)
        self._stop = stop
        self._peer: Peer | None = None
        self.thread = threading.Thread(target=self._run, daemon=True)

    def interrupt(self) -> None:
        if self._peer is not None:
            self._peer.interrupt()

    def _run(self) -> None:
        self._stop.wait(self._chance.uniform(0, 3))
        while not self._stop.is_set():
            try:
                self._peer = peer = Peer(self._target, self._kind.source, self._stop)
                try:
                    self._kind.attack(peer, self._chance)
                    self.outcomes["left on its own"] += 1
                finally:
                    peer.close()
            except Over as over:
                self.outcomes[str(over)] += 1
            self._stop.wait(self._kind.rest_s * self._chance.uniform(0.5, 1.5))


def roles(count: int) -> list[str]:
    """The kinds of `count` attackers, or of a few more where that is too few for every kind."""
    whole = sum(kind.weight for kind in KINDS.values())
    return [name for name, kind in KINDS.items() for _ in range(max(1, round(kind.weight * count / whole)))]


def main() -> None:
    port, share, shares, count, seed = map(int, sys.argv[1:])
    os.nice(
        5
    )  # what attackers compute, they compute on machines of their own; here they only may not starve the server
    threading.stack_size(256 * 1024)
    stop = threading.Event()
    attackers = [
        Attacker(name, KINDS[name], ("127.0.0.1", port), seed * 100_000 + number, stop)
        for number, name in enumerate(roles(count))
        if number % shares == share
    ]
    for attacker in attackers:
        attacker.thread.start()
    print("attacking", flush=True)
    sys.stdin.read()
    stop.set()
    end = time.monotonic() + 10
    for attacker in attackers:
        attacker.interrupt()
    for attacker in attackers:
        attacker.thread.join(max(0.0, end - time.monotonic()))
    outcomes: Outcomes = {}
    for attacker in attackers:
        outcomes.setdefault(attacker.name, Counter()).update(attacker.outcomes)
    print(json.dumps(outcomes), flush=True)
    os._exit(0)


if __name__ == "__main__":
    main()
