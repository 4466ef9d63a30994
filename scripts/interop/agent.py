"""Runs inside the guest: starts programs and touches files there, as the host asks.

The host sends this file over a virtio port and leaves the port behind in the global `port`. A request is one line, the
repr of a dict with the operation's name as "do" and its arguments; the answer is one line, the repr of a dict with
"error" if it failed. The guest's Python is a small one, without `json`; reprs of plain values need no module.

An end of file says that the host has gone: the guest is powered off then.
"""

import ast
import os
import signal
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from typing import IO, Any

_programs: dict[int, subprocess.Popen[bytes]] = {}
_POLL_S = 0.02


def _file(number: int, channel: str) -> Path:
    return Path(f"/tmp/{channel}.{number}")


def start(argv: list[str]) -> int:
    """Start a program with no input. The number names it from now on."""
    number = len(_programs)
    with open(_file(number, "output"), "wb") as output, open(_file(number, "errors"), "wb") as errors:
        _programs[number] = subprocess.Popen(
            argv, stdin=subprocess.DEVNULL, stdout=output, stderr=errors, start_new_session=True
        )
    return number


def wait(number: int, seconds: float) -> int | None:
    """The program's exit status, -n for signal n; None: it still runs after `seconds`."""
    try:
        return _programs[number].wait(seconds)
    except subprocess.TimeoutExpired:
        return None


def output(number: int) -> tuple[bytes, bytes]:
    """What the program has printed so far, and its error channel."""
    return _file(number, "output").read_bytes(), _file(number, "errors").read_bytes()


def signal_all(number: int, number_of_signal: int) -> None:
    """Send a signal to the program and all that it has started."""
    if _programs[number].poll() is None:
        os.killpg(_programs[number].pid, signal.Signals(number_of_signal))


def where(number: int) -> bytes:
    """Where each thread of the program is inside the kernel, and what TCP and the RDMA CM have open: for a program that
    does not answer.
    """
    found = b""
    for task in sorted(Path(f"/proc/{_programs[number].pid}/task").glob("*")):
        found += (task / "comm").read_bytes() + (task / "stack").read_bytes()
    found += Path("/proc/net/tcp").read_bytes()
    return found + subprocess.run(["rdma", "resource", "show", "cm_id"], capture_output=True, check=False).stdout


def read(path: str) -> bytes:
    return Path(path).read_bytes()


def write(path: str, data: bytes) -> None:
    Path(path).write_bytes(data)


def listening(port_number: int, seconds: float) -> bool:
    """Wait until somebody, kernel included, listens on a TCP port over IPv4 or IPv6."""
    end = time.monotonic() + seconds
    wanted = f":{port_number:04X}"
    while time.monotonic() < end:
        for table in ("/proc/net/tcp", "/proc/net/tcp6"):
            if not os.path.exists(table):
                continue
            rows = (line.split() for line in Path(table).read_text().splitlines()[1:])
            if any(row[1].endswith(wanted) and row[3] == "0A" for row in rows):
                return True
        time.sleep(_POLL_S)
    return False


_OPERATIONS: dict[str, Callable[..., object]] = {
    operation.__name__: operation for operation in (start, wait, output, signal_all, where, read, write, listening)
}


def _answer(request: dict[str, Any]) -> dict[str, object]:
    try:
        return {"value": _OPERATIONS[request.pop("do")](**request)}
    except Exception as error:  # whatever it is, the host is to hear of it
        return {"error": f"{type(error).__name__}: {error}"}


def main(channel: IO[bytes]) -> None:
    """Answer requests until the host closes the port."""
    pending = b""
    while True:
        chunk = channel.read(65536)
        if not chunk:
            return
        *lines, pending = (pending + chunk).split(b"\n")
        for line in lines:
            answer = memoryview(repr(_answer(ast.literal_eval(line.decode()))).encode() + b"\n")
            while answer:
                answer = answer[channel.write(answer) :]


if __name__ == "__main__":
    main(globals()["port"])
