"""More than a thousand hostile connections beside one good one that moves data all the time.

Usage: hostile.py [--connections N] [--seconds S] [--processes P] [--seed N] [--waves N] [--json]   (1600, 30, 4, random,
1: one attack after another, of which the last is shown).
Prints the good connection's rate before, during and after the attack, what the server held, and how each kind of attack
was answered. Meanwhile newcomers connect from another address. Exit status 1 if anything of the good connection was
wrong or stood still for long, if a newcomer was turned away, if the server printed anything (a traceback above all),
held more than its documented limits, or kept something afterwards.
"""

import argparse
import json
import random
import resource
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from contextlib import suppress
from pathlib import Path
from typing import IO, Any, Final

ROOT: Final = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))

from scripts.hostile.attacks import KINDS  # noqa: E402
from scripts.hostile.wire import Over, Peer  # noqa: E402
from softndk import IwarpConfig  # noqa: E402

CALM_S: Final = 6.0
SETTLE_S: Final = 20.0
STANDSTILL_S: Final = 10.0
"""A round of the good connection that takes longer is a failure; a busy machine alone does not make it so long."""
KEPT_OCTETS: Final = 64 * 1024 * 1024
"""What may be resident afterwards beyond what was before: Python keeps pages that have one living object on them."""
GROWN_OCTETS: Final = 8 * 1024 * 1024
"""What may be resident after another attack beyond what was after the first."""
PER_CONNECTION: Final = 640 * 1024
"""What one connection may cost the server at most: see docs/reference/limits.md, and 64 KiB that it lends."""


class Process:
    """One of ours, spoken to by lines."""

    def __init__(self, *arguments: object, stderr: IO[bytes] | None = None) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-m", *map(str, arguments)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=stderr,
            text=True,
            cwd=ROOT,
        )
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.stdin, self.stdout = self.process.stdin, self.process.stdout

    def line(self) -> str:
        line = self.stdout.readline()
        if not line:
            raise SystemExit(f"a process has ended early, status {self.process.wait()}: {self.process.args!r}")
        return line

    def ask(self, what: str = "report") -> dict[str, Any]:
        self.stdin.write(f"{what}\n")
        self.stdin.flush()
        found = json.loads(self.line())
        assert isinstance(found, dict)
        return found

    def end(self) -> None:
        with suppress(OSError):
            self.stdin.close()


class Good:
    """The good client's account, read as it comes."""

    def __init__(self, port: int) -> None:
        self.process = Process("scripts.hostile.good", port)
        self.slices: list[dict[str, float]] = []
        threading.Thread(target=self._read, daemon=True).start()

    def _read(self) -> None:
        for line in self.process.stdout:
            self.slices.append(json.loads(line))

    def rates(self, since: float, until: float) -> list[float]:
        """MB/s of each slice that lies in between."""
        return [
            part["right"] / part["seconds"] / 1e6
            for part in self.slices
            if part["at"] - part["seconds"] >= since and part["at"] <= until
        ]


class Newcomers(threading.Thread):
    """One after the other, from an address of their own: connect, be accepted, leave."""

    def __init__(self, port: int) -> None:
        super().__init__(daemon=True)
        self._port = port
        self.stop = threading.Event()
        self.times: list[float] = []
        self.failures: Counter[str] = Counter()

    def run(self) -> None:
        while not self.stop.is_set():
            begun = time.monotonic()
            try:
                peer = Peer(("127.0.0.1", self._port), "127.0.0.9", threading.Event())
                try:
                    peer.establish("newcomer")
                    self.times.append(time.monotonic() - begun)
                finally:
                    peer.close()
            except Over as over:
                self.failures[str(over)] += 1
            self.stop.wait(0.25)


def spread(values: list[float]) -> str:
    if not values:
        return "nothing"
    return f"min {min(values):7.1f}  median {statistics.median(values):7.1f}  max {max(values):7.1f}"


def holding(report: dict[str, Any]) -> str:
    return (
        f"{report['rss'] / 1e6:7.1f} MB resident  {report['fds']:5d} descriptors  {report['threads']:3d} threads"
        f"  {report['connections']:5d} connections  {report['handshakes']:4d} unfinished start-ups"
        f"  {report['objects']:6d} objects"
    )


def attack(
    server: Process, good: Good, port: int, options: argparse.Namespace
) -> tuple[dict[str, Any], dict[str, Counter[str]], Newcomers, tuple[float, float]]:
    """Returns the fullest report of the server, the attackers' account, the newcomers and when it all was."""
    attackers = [
        Process("scripts.hostile.attackers", port, share, options.processes, options.connections, options.seed)
        for share in range(options.processes)
    ]
    for process in attackers:
        process.line()
    newcomers = Newcomers(port)
    newcomers.start()
    begun = time.monotonic()
    fullest = server.ask()
    while time.monotonic() - begun < options.seconds:
        newcomers.stop.wait(1.0)
        now = server.ask()
        if now["rss"] >= fullest["rss"]:
            fullest = now
        fullest["most_connections"] = max(fullest.get("most_connections", 0), now["connections"] + now["handshakes"])
        fullest["most_handshakes"] = max(fullest.get("most_handshakes", 0), now["handshakes"])
    newcomers.stop.set()
    ended = time.monotonic()
    fullest["cpu_in_all_s"] = server.ask()["cpu_s"]
    for process in attackers:
        process.end()
    outcomes: dict[str, Counter[str]] = {}
    for process in attackers:
        for kind, found in json.loads(process.line()).items():
            outcomes.setdefault(kind, Counter()).update(found)
    newcomers.join(10)
    return fullest, outcomes, newcomers, (begun, ended)


def settled(server: Process, connections: int) -> dict[str, Any]:
    """The server's report when it holds no more than `connections`, or after SETTLE_S."""
    end = time.monotonic() + SETTLE_S
    while True:
        report = server.ask()
        if (report["connections"], report["handshakes"]) <= (connections, 0) or time.monotonic() > end:
            return report
        time.sleep(0.25)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--connections", type=int, default=1600)
    parser.add_argument("--seconds", type=float, default=30.0)
    parser.add_argument("--processes", type=int, default=4)
    parser.add_argument("--seed", type=int, default=random.randrange(10_000))
    parser.add_argument("--waves", type=int, default=1)
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    descriptors = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    if 0 <= descriptors < options.connections + 300:
        options.connections = descriptors - 300
        print(f"fewer connections: this machine allows {descriptors} descriptors a process", file=sys.stderr)
    with tempfile.TemporaryFile() as said:
        return run(options, said)


def run(options: argparse.Namespace, said: IO[bytes]) -> int:
    server = Process("scripts.hostile.server", stderr=said)
    port = int(server.line())
    good = Good(port)
    started = time.monotonic()
    while not good.rates(0, time.monotonic()):
        time.sleep(0.1)
        if time.monotonic() - started > 60:
            raise SystemExit("the good client does not get going")
    calm = time.monotonic()
    time.sleep(CALM_S)
    before = server.ask()
    trimmed = []
    for _ in range(options.waves):
        fullest, outcomes, newcomers, (begun, ended) = attack(server, good, port, options)
        after = settled(server, before["connections"])
        trimmed.append(server.ask("trim")["rss"])
    after["rss_trimmed"] = trimmed
    calm_again = time.monotonic()
    time.sleep(CALM_S)
    last = time.monotonic()
    final = server.ask()
    good.process.end()
    if good.process.process.wait(60):
        raise SystemExit("the good client has failed")
    server.end()
    status = server.process.wait(60)
    said.seek(0)
    stderr = said.read().decode(errors="replace")

    phases = {
        "before": good.rates(calm, begun),
        "during": good.rates(begun, ended),
        "after": good.rates(calm_again, last),
    }
    wrong = sum(int(part["wrong"]) for part in good.slices) + final["wrong"]
    slowest = max((part["slowest_s"] for part in good.slices), default=0.0)
    limits = IwarpConfig()
    most = fullest["most_connections"]
    bound = before["rss"] + most * PER_CONNECTION
    failures = [
        text
        for failed, text in (
            (wrong > 0, f"{wrong} rounds of the good connection had wrong data"),
            (not all(phases.values()), "the good connection had a phase without any slice"),
            (any(rate == 0 for rates in phases.values() for rate in rates), "a slice without any octet"),
            (slowest > STANDSTILL_S, f"a round of the good connection took {slowest:.1f} s"),
            (bool(final["complaints"]), f"the server complains: {final['complaints']}"),
            (bool(newcomers.failures), f"newcomers were turned away: {dict(newcomers.failures)}"),
            (not newcomers.times, "no newcomer came through"),
            (bool(stderr), f"the server printed:\n{stderr[-4000:]}"),
            (status != 0, f"the server ended with status {status}"),
            (fullest["rss"] > bound, f"{fullest['rss']} octets resident, bound {bound}"),
            (
                fullest["most_handshakes"] > limits.max_handshakes,
                f"{fullest['most_handshakes']} unfinished start-ups, limit {limits.max_handshakes}",
            ),
            (after["connections"] > before["connections"], f"{after['connections']} connections are left"),
            (after["handshakes"] > 0, f"{after['handshakes']} unfinished start-ups are left"),
            (after["objects"] > before["objects"], f"{after['objects']} objects, {before['objects']} before"),
            (
                trimmed[0] > before["rss"] + KEPT_OCTETS or trimmed[-1] > trimmed[0] + GROWN_OCTETS,
                f"{trimmed} octets resident afterwards, {before['rss']} before",
            ),
            (after["fds"] > before["fds"] + 2, f"{after['fds']} descriptors, {before['fds']} before"),
            (set(outcomes) != set(KINDS), f"kinds that did not attack: {set(KINDS) - set(outcomes)}"),
        )
        if failed
    ]
    found = {
        "seed": options.seed,
        "seconds": ended - begun,
        "rates_mb_s": phases,
        "wrong": wrong,
        "slowest_round_s": slowest,
        "server": {"before": before, "during": fullest, "after": after, "end": final},
        "outcomes": outcomes,
        "newcomers": {"times_s": newcomers.times, "failures": newcomers.failures},
        "failures": failures,
    }
    if options.json:
        print(json.dumps(found))
    else:
        show(found, options)
    return 1 if failures else 0


def show(found: dict[str, Any], options: argparse.Namespace) -> None:
    phases, reports, outcomes = found["rates_mb_s"], found["server"], found["outcomes"]
    print(f"{options.connections} hostile connections in {options.processes} processes, seed {found['seed']}")
    print("\nthe good connection, MB/s over slices of half a second, both directions, every octet checked")
    for phase, rates in phases.items():
        print(f"  {phase:7s} {spread(rates)}")
    if phases["before"] and phases["during"]:
        calm = statistics.median(phases["before"] + phases["after"])
        print(f"  during / calm: {statistics.median(phases['during']) / calm:.2f}", end="   ")
        print(f"wrong rounds: {found['wrong']}   slowest round:", end=" ")
        print(f"{found['slowest_round_s'] * 1000:.0f} ms")
    times = sorted(found["newcomers"]["times_s"])
    if times:
        refused = dict(found["newcomers"]["failures"]) or "none"
        print(f"\nnewcomers during the attack: {len(times)} connected, {refused} turned away;", end="")
        print(f" median {statistics.median(times) * 1000:.0f} ms, longest {times[-1] * 1000:.0f} ms")
    print("\nthe server")
    for when in ("before", "during", "after"):
        print(f"  {when:7s} {holding(reports[when])}")
    for trimmed in reports["after"]["rss_trimmed"]:
        print(f"  after   {trimmed / 1e6:7.1f} MB resident when the C library has given back what is free")
    most = reports["during"]["most_connections"]
    grown = reports["during"]["rss"] - reports["before"]["rss"]
    print(
        f"  at most {most} connections and start-ups at a time; {grown / max(1, most) / 1024:.1f} KiB resident for each"
    )
    used = reports["during"]["cpu_in_all_s"] - reports["before"]["cpu_s"]
    print(f"  {used:.1f} s of CPU during the attack of {found['seconds']:.0f} s")
    counted = reports["end"]["statistics"]
    print("  counted:", ", ".join(f"{counted[name]:,} {name}" for name in COUNTERS))
    total = sum(sum(ways.values()) for ways in outcomes.values())
    print(f"\n{total:,} attacks in {found['seconds']:.0f} s, and how each ended for the attacker")
    for kind, ways in sorted(outcomes.items()):
        print(f"  {kind:26s} {', '.join(f'{count:,} {way}' for way, count in Counter(ways).most_common())}")
    print()
    for text in found["failures"]:
        print(f"FAILED: {text}")
    if not found["failures"]:
        print("nothing wrong, nothing lost, nothing left behind")


COUNTERS: Final = (
    "accept",
    "connect_failure",
    "connection_error",
    "refused_connections",
    "peer_faults",
    "refused_tokens",
    "rdma_in_frames",
)

if __name__ == "__main__":
    sys.exit(main())
