"""Breaks the code in one place at a time and says in which example the state machine notices it.

Run as a program: python -m tests.model.mutants [--only SocketMachine] [--examples 100] [--seed 7] [WORD ...]
WORD: a rule, or a part of what is wrong; without any, all. Exit status 1 if one goes unnoticed.
"""

import argparse
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from scripts.rules_mutants import MUTANTS, Mutant

__all__ = ["BREAKS"]

ROOT = Path(__file__).resolve().parents[2]
COVERED = {  # of the rules' mutants those whose rule the model knows
    *(
        "R-ARM-1",
        "R-ARM-3",
        "R-ARM-7",
        "R-ARM-8",
        "R-ARM-9",
        "R-CQ-1",
        "R-CQERR-3",
        "R-GETCQ-1",
        "R-COMP-2",
        "R-COMP-3",
    ),
    *(
        "R-COMP-4",
        "R-WR-3",
        "R-WR-6",
        "R-WR-8",
        "R-WR-11",
        "R-READ-4",
        "R-READ-5",
        "R-FLUSH-1",
        "R-FLUSH-6",
        "R-SENDINV-5",
    ),
    *("R-SRQ-1", "R-SRQ-3", "R-DEFER-3", "R-FREG-4", "R-FRINIT-3", "A-9", "R-MEM-1", "R-MEM-2", "R-MEM-3", "R-BIND-5"),
    *("R-INVAL-1", "R-INVAL-4", "R-RESX-3", "R-DISC-2", "R-DEV-1", "R-CLOSE-5", "R-CLOSE-6", "R-CLOSE-11"),
}
BREAKS = (
    *(mutant for mutant in MUTANTS if mutant.rule in COVERED),
    Mutant(
        "R-FLUSH-1",
        "queues/pair.py",
        'request.fail(Status.CANCELLED, "", cause, code)',
        'request.fail(Status.INTERNAL_ERROR, "", cause, code)',
        "what is flushed has another status",
    ),
    Mutant(
        "R-COMP-1",
        "queues/pair.py",
        "        elif not request.silent:",
        "        else:",
        "a silent success is told",
    ),
    Mutant(
        "R-LIM-1",
        "iwarp/inbound.py",
        "if len(self.responses) >= self.read_limit:",
        "if len(self.responses) >= self.read_limit - 1:",
        "one read less than the limit may come",
    ),
    Mutant(
        "R-SRQ-3",
        "queues/shared.py",
        "            wake()\n",
        "            pass\n",
        "a receive at an empty SRQ wakes no message",
    ),
    Mutant(
        "R-ARM-3",
        "queues/completion.py",
        "stronger_arm(self.armed, kind)\n        self._notify_if_due()",
        "stronger_arm(self.armed, kind)",
        "an arm behind a new result is not satisfied",
    ),
    Mutant(
        "R-MEM-3",
        "memory/access.py",
        "        if offset < 0 or offset + length > entry.length:",
        "        if offset < 0 or offset + length > entry.length + 1:",
        "one octet beyond the region is let through",
    ),
    Mutant(
        "A-4",
        "iwarp/faults.py",
        "        return Status.ACCESS_VIOLATION\n    return Status.REMOTE_RESOURCES",
        "        return Status.REMOTE_RESOURCES\n    return Status.REMOTE_RESOURCES",
        "a token that the peer refuses is no access violation",
    ),
    Mutant(
        "A-5",
        "iwarp/inbound.py",
        "receive.fail(Status.BUFFER_OVERFLOW,",
        "receive.fail(Status.ACCESS_VIOLATION,",
        "too small a receive has another status",
    ),
    Mutant(
        "R-SEND-2",
        "iwarp/inbound.py",
        "self.pair.complete_receive(receive, end, solicited=opcode in rdmap.SOLICITING",
        "self.pair.complete_receive(receive, end, solicited=False",
        "a solicited event is lost",
    ),
    Mutant(
        "R-CQERR-1",
        "queues/completion.py",
        "            tell()\n",
        "            pass\n",
        "an overrun leaves the QPs alone",
    ),
    Mutant(
        "R-INV-3",
        "queues/pair.py",
        "isinstance(head, LocalRequest) and head.waits_for_reads",
        "False",
        "an invalidation does not wait for reads into the region",
    ),
    Mutant(
        "RFC 7306 5",
        "iwarp/atomics.py",
        "    tops = mask | 1 << 63\n",
        "    tops = 1 << 63\n",
        "the fields of a FetchAdd carry into each other",
    ),
    Mutant(
        "RFC 7306 5",
        "iwarp/atomics.py",
        "    if (compare ^ old) & compare_mask:",
        "    if compare ^ old:",
        "a CmpSwap compares all bits",
    ),
    Mutant(
        "RFC 7306 5",
        "iwarp/atomics.py",
        "    return old & ~swap_mask & _ONES | swap & swap_mask",
        "    return swap",
        "a CmpSwap replaces all bits",
    ),
    Mutant(
        "RFC 7306 5",
        "iwarp/atomics.py",
        "request.stag, request.to, WIDTH, Right.REMOTE_ATOMIC)",
        "request.stag, request.to, WIDTH, Right.REMOTE_WRITE)",
        "remote write lets the peer do atomics",
    ),
    Mutant(
        "RFC 7306 5",
        "queues/pair.py",
        "            if isinstance(head, FetchWork):\n",
        "            if isinstance(head, FetchWork) and not isinstance(head, AtomicWork):\n",
        "an atomic goes beyond the read limit",
    ),
    Mutant(
        "RFC 7306 5",
        "ndk/extension_requests.py",
        "    if remote_address % _WIDTH:",
        "    if False:",
        "an atomic at an odd address is posted",
    ),
    Mutant(
        "RFC 7306 6",
        "iwarp/inbound.py",
        "complete_receive(receive, 0, solicited=solicited, immediate=data)",
        "complete_receive(receive, 8, solicited=solicited, immediate=data)",
        "Immediate Data has a length",
    ),
    Mutant(
        "RFC 7306 6",
        "iwarp/inbound.py",
        "self._deliver_immediate(header, receive, ulpdu, solicited=opcode in rdmap.SOLICITING)",
        "self._deliver_immediate(header, receive, ulpdu, solicited=False)",
        "the solicited event of Immediate Data is lost",
    ),
    Mutant(
        "R-MW-4",
        "ndk/mr.py",
        '[f"{region.windows} bound windows"] if region.windows else []',
        "[]",
        "the close of a region does not wait for the windows on it",
    ),
    Mutant(
        "R-MW-4",
        "memory/regions.py",
        "        if not self.windows and self.on_idle is not None:\n            self.on_idle()",
        "        pass",
        "the close of a region is not done when the last window has gone",
    ),
    Mutant(
        "R-CLOSE-2",
        "ndk/mw.py",
        'return [f"{self._window.posted} queued requests"] if self._window.posted else []',
        "return []",
        "the close of a window does not wait for the requests that are to change it",
    ),
    Mutant(
        "R-CLOSE-4",
        "ndk/object.py",
        "                self._close_callbacks.append(on_done)",
        "                pass",
        "the end of a close is not told",
    ),
    Mutant(
        "R-CLOSE-5",
        "ndk/qp.py",
        "    def _finish_close(self) -> None:\n",
        '    def _begin_close(self) -> None:\n        self._flush("closed")\n\n    def _finish_close(self) -> None:\n',
        "a close that waits flushes the QP already",
    ),
    Mutant(
        "R-CLOSE-12",
        "ndk/mr.py",
        "    def _finish_close(self) -> None:\n        self._region.destroy()",
        "    def _finish_close(self) -> None:\n        pass",
        "a closed region stays registered",
    ),
    Mutant(
        "R-DEFER-7",
        "queues/pair.py",
        "elif not deferred or self.sends_in_use == self.initiator_depth:",
        "elif not deferred:",
        "a full queue leaves what was deferred",
    ),
)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("words", nargs="*", metavar="WORD")
    parser.add_argument("--only", default="MemoryMachine", choices=("MemoryMachine", "SocketMachine"))
    parser.add_argument("--examples", type=int, default=100, help="after which it counts as unnoticed")
    parser.add_argument("--seed", type=int, default=7)
    options = parser.parse_args()
    chosen = [
        each
        for each in BREAKS
        if not options.words or any(w in (each.rule, *each.what.split(" ")) for w in options.words)
    ]
    unnoticed = 0
    for mutant in chosen:
        begun = time.monotonic()
        example, why = _first_difference(mutant, options)
        unnoticed += not example
        where = f"example {example}: {why}" if example else f"NOT in {options.examples} examples"
        print(f"{mutant.rule:12} {mutant.what}: {where} ({time.monotonic() - begun:.0f} s)", flush=True)
    print(f"{options.only}, seed {options.seed}: {len(chosen) - unnoticed} of {len(chosen)} noticed")
    return unnoticed > 0


def _first_difference(mutant: Mutant, options: argparse.Namespace) -> tuple[int, str]:
    """The example in which the machine notices, 0 for none, and what it says."""
    with tempfile.TemporaryDirectory(prefix="softndk-mutant-") as folder:
        copy = Path(folder)
        for name in ("src", "tests/model"):
            shutil.copytree(ROOT / name, copy / name, ignore=shutil.ignore_patterns("__pycache__"))
        path = copy / "src" / "softndk" / mutant.file
        path.write_text(mutant.applied_to(path.read_text(encoding="utf-8")), encoding="utf-8")
        command = [sys.executable, "-m", "tests.model.machine", "--minutes", "60", "--only", options.only]
        command += ["--examples", str(options.examples), "--seed", str(options.seed)]
        environment = {**os.environ, "PYTHONPATH": str(copy / "src"), "SOFTNDK_TIMEOUT_SCALE": "0.2"}
        done = subprocess.run(command, cwd=copy, env=environment, capture_output=True, text=True, check=False)
    noticed = re.search(r"^failed in example (\d+)", done.stdout, re.MULTILINE)
    if noticed is None:
        return 0, ""
    said = re.search(r"^ *\|? *(?:AssertionError|softndk\S*): (.*)$", done.stderr, re.MULTILINE)
    return int(noticed[1]), (said[1] if said else done.stderr.strip().splitlines()[-1])[:90]


if __name__ == "__main__":
    sys.exit(main())
