"""Bugs planted on purpose, one at a time, in a copy of the code: shows that the fuzzer finds such things, and how soon."""

import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from fuzz.driver import ROOT

__all__ = ["BUGS", "Bug", "run"]


@dataclass(frozen=True, slots=True)
class Bug:
    """In `file`, below src/softndk, `old` becomes `new`. `target`: the one that has to find it."""

    name: str
    target: str
    file: str
    old: str
    new: str
    what: str

    def applied_to(self, text: str) -> str:
        """The code with the bug. Raises ValueError: `old` is not there, or not only once."""
        if text.count(self.old) != 1:
            raise ValueError(f"{self.name}: {self.file} has {text.count(self.old)} places like {self.old!r}")
        return text.replace(self.old, self.new)


BUGS: Final = (
    Bug(
        "bounds",
        "inbound",
        "memory/access.py",
        "        if offset < 0 or offset + length > entry.length:\n            raise AccessDenied(\n"
        '                Denial.OUT_OF_BOUNDS,\n                f"[{address:#x}',
        "        if offset < 0 or offset + length > entry.length + 1:\n            raise AccessDenied(\n"
        '                Denial.OUT_OF_BOUNDS,\n                f"[{address:#x}',
        "an access may end one octet behind the region",
    ),
    Bug(
        "crc",
        "framing",
        "iwarp/framing.py",
        "if self._crc and crc32c(view[start:end]) != RESIDUE:",
        "if self._crc and size > 8 and crc32c(view[start:end]) != RESIDUE:",
        "the CRC of an FPDU with an empty ULPDU is not checked",
    ),
    Bug(
        "msn",
        "inbound",
        "iwarp/inbound.py",
        "        if header.msn != self._request_msn:\n",
        "        if False:\n",
        "the MSN of a Read Request is not compared",
    ),
    Bug(
        "marker",
        "framing",
        "iwarp/framing.py",
        "            if pointer != expected:\n",
        "            if False:\n",
        "the pointer of a marker is not compared",
    ),
    Bug(
        "terminate",
        "inbound",
        "iwarp/ending.py",
        "        stream.stop()\n        here.out.clear()\n        self._end_stream(error)\n",
        "        here.out.add(stream.terminate(message))\n        self._end_stream(error)\n",
        "a Terminate is answered with a Terminate",
    ),
    Bug(
        "length",
        "startup",
        "wire/mpa.py",
        "    if length > MAX_PRIVATE_DATA:\n",
        "    if length > 65535:\n",
        "PD_Length of a start-up frame is not bounded",
    ),
    Bug(
        "twice",
        "inbound",
        "iwarp/inbound.py",
        "        self._receive = None\n        self._send_msn",
        "        self._receive = receive if end == receive.length > 60 else None\n        self._send_msn",
        "a message that fills its receive leaves the message open",
    ),
    Bug(
        "leak",
        "inbound",
        "memory/access.py",
        "        if not entry.rights & right:",
        "        if right is Right.REMOTE_WRITE and not entry.rights & right:",
        "a region without the right may be read",
    ),
    Bug(
        "descriptor",
        "adapter",
        "drivers/tcp.py",
        "        sock, self._sock = self._sock, None\n        if sock is not None:\n            sock.close()\n",
        "        sock, self._sock = self._sock, None\n        if sock is not None and not self._blocked:\n"
        "            sock.close()\n        elif sock is not None:\n            sock.detach()\n",
        "a socket that is closed while it is full stays open",
    ),
    Bug(
        "octet",
        "adapter",
        "drivers/tcp.py",
        "            data = buffer[:count]\n",
        "            data = buffer[: max(count, 2)]\n",
        "of a read that gives one octet, two are handed on: the second is another connection's",
    ),
    Bug(
        "loan",
        "adapter",
        "drivers/engine.py",
        "            self._lend(channel)\n            seat.channels.pop(fd, None)\n",
        "            seat.channels.pop(fd, None)\n",
        "behind a wait nobody serves the connections that the waiting thread has served",
    ),
    Bug(
        "source",
        "adapter",
        "ndk/listener.py",
        "            listener._handshakes_of[self._source] -= 1\n",
        "            listener._handshakes_of[self._source] -= self._connector is not None\n",
        "a start-up that fails counts for ever towards the limit of its address",
    ),
    Bug(
        "active",
        "adapter",
        "ndk/connector.py",
        "        if self._counted and core.is_over:\n",
        "        if self._counted and core.is_over and not self._closing:\n",
        "a connection that the program closes counts as active for ever",
    ),
    Bug(
        "end",
        "adapter",
        "ndk/connector.py",
        "        if self._told_end:\n            return\n        self._told_end = True\n",
        "        if self._told_end and how.graceful:\n            return\n        self._told_end = True\n",
        "a reset behind a graceful end is told as a second end",
    ),
    Bug(
        "pending",
        "adapter",
        "ndk/listener.py",
        "        if len(self._unanswered) >= limit and self._waiting_from(stream) >= limit:\n",
        "        if len(self._unanswered) > limit and self._waiting_from(stream) >= limit:\n",
        "one address may have one more request waiting than the limit",
    ),
    Bug(
        "failure",
        "adapter",
        "ndk/qp.py",
        "        if not self._pair.flushing:  # a connection has done so already\n",
        "        if not self._pair.flushing and self._connector is not None:\n",
        "when the adapter fails, what was posted to a QP without a connection never completes",
    ),
    Bug(
        "survivor",
        "adapter",
        "ndk/listener.py",
        "        for handshake in tuple(self._handshakes):\n            handshake.fail()\n",
        "",
        "a start-up goes on although the adapter has failed",
    ),
    Bug(
        "spelling",
        "adapter",
        "ndk/addresses.py",
        "    return str(ip)\n\n\ndef source_of",
        "    return host\n\n\ndef source_of",
        "an IPv6 address is not known again when it is written in another way",
    ),
    Bug(
        "limit",
        "adapter",
        "ndk/context.py",
        "self._open.get(kind, 0) < getattr",
        "self._open.get(kind, 0) <= getattr",
        "one object more than the limit can be open",
    ),
    Bug(
        "room",
        "adapter",
        "ndk/listener.py",
        "        elif not self._context.has_room(ObjectType.CONNECTOR):\n",
        "        elif False:\n",
        "a request that finds no room for its connector is not refused, and fails inside",
    ),
    Bug(
        "rest",
        "adapter",
        "drivers/tcp_listener.py",
        "        self._engine.call_at(self._engine.now() + ACCEPT_PAUSE_S, self._rested)\n",
        "",
        "a listener that once had no descriptor for a connection never accepts again",
    ),
)


def run(names: Sequence[str], patience_s: float) -> int:
    """Plant each bug and wait for its target to find it. Prints a table; 1 if one was not found in time."""
    print(f"{'bug':10} {'target':9} {'found after':>11}  what", flush=True)
    status = 0
    for bug in BUGS:
        if names and bug.name not in names:
            continue
        seconds = _hunt(bug, patience_s)
        after = "not found" if seconds is None else f"{seconds:.1f} s"
        status |= seconds is None
        print(f"{bug.name:10} {bug.target:9} {after:>11}  {bug.what}", flush=True)
    return int(status)


def _hunt(bug: Bug, patience_s: float) -> float | None:
    """Seconds until the fuzzer, beginning with no kept input but its seeds, has found the bug; None: it has not."""
    with tempfile.TemporaryDirectory() as temporary:
        copy = Path(temporary)
        for name in ("src", "fuzz", "scripts"):
            shutil.copytree(
                ROOT / name, copy / name, ignore=shutil.ignore_patterns("__pycache__", "corpus", "findings")
            )
        path = copy / "src" / "softndk" / bug.file
        path.write_text(bug.applied_to(path.read_text(encoding="utf-8")), encoding="utf-8")
        command = [sys.executable, "-m", "fuzz", "run", "--seconds", str(patience_s), bug.target]
        environment = {**os.environ, "PYTHONPATH": f"{copy / 'src'}{os.pathsep}{copy}", "PYTHONUNBUFFERED": "1"}
        begun = time.monotonic()
        found = False
        with subprocess.Popen(command, cwd=copy, env=environment, stdout=subprocess.PIPE, text=True) as process:
            assert process.stdout is not None
            for line in process.stdout:
                if "FINDING" in line:
                    found = True
                    break
            seconds = time.monotonic() - begun
            process.stdout.close()
            process.terminate()
        return seconds if found else None
