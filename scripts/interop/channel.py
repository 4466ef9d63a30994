"""The host's end of the agent: one request at a time over QEMU's virtio port, and programs that run in the guest.

What the lines mean stands in agent.py. Knows neither QEMU nor siw.
"""

import ast
import signal
import socket
import time
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Self

from scripts.interop.common import LabError, tail

__all__ = ["Channel", "Finished", "Program"]

ANSWER_S: Final = 60.0
"""How long the agent may take for an answer, its own waiting not counted; a busy emulated machine is slow."""
_SLICE_S: Final = 5.0
_AGENT: Final = Path(__file__).with_name("agent.py")


@dataclass(frozen=True, slots=True)
class Finished:
    """A program that has ended. status: -n after signal n. errors: its error channel."""

    status: int
    output: str
    errors: str


class Channel:
    """Requests to the agent of one guest; not for several threads."""

    def __init__(self, connection: socket.socket) -> None:
        self._connection = connection
        self._pending = b""

    def begin(self, seconds: float) -> None:
        """Wait for the guest to be up, and give it the agent. Raises: TimeoutError, ConnectionError."""
        if self._line(time.monotonic() + seconds) != b"ready":
            raise ConnectionError("the guest does not begin with 'ready'")
        code = _AGENT.read_bytes()
        self._connection.settimeout(ANSWER_S)
        self._connection.sendall(b"%d\n" % len(code) + code)

    def call(self, what: str, *, wait_s: float = 0.0, **arguments: Any) -> Any:
        """Have the agent do `what`; wait_s: how long it may wait by itself. Raises: LabError."""
        request = repr({"do": what, **arguments}).encode() + b"\n"
        try:
            self._connection.settimeout(ANSWER_S)
            self._connection.sendall(request)
            answer = ast.literal_eval(self._line(time.monotonic() + wait_s + ANSWER_S).decode())
        except OSError as error:
            raise LabError(f"the guest does not answer ({what}): {error}") from error
        if "error" in answer:
            raise LabError(f"in the guest, {what}({arguments}): {answer['error']}")
        return answer["value"]

    def close(self) -> None:
        """Let go of the guest; it powers itself off."""
        self._connection.close()

    def _line(self, deadline: float) -> bytes:
        while b"\n" not in self._pending:
            self._connection.settimeout(max(0.01, deadline - time.monotonic()))
            chunk = self._connection.recv(1 << 16)
            if not chunk:
                raise ConnectionError("the guest has gone")
            self._pending += chunk
        line, self._pending = self._pending.split(b"\n", 1)
        return line


class Program:
    """A program in the guest. `with` stops it at the end, if it still runs."""

    def __init__(self, channel: Channel, argv: list[str]) -> None:
        self.argv = argv
        self._channel = channel
        self._number: int = channel.call("start", argv=argv)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: object) -> None:
        where = "" if error is None else self._where()
        ended = self.stop()
        if error is not None:
            said = tail(ended.output + ended.errors) or "(nothing)"
            error.add_note(f"{' '.join(self.argv)}, status {ended.status}, has printed:\n{said}\nIt was here:\n{where}")

    def _where(self) -> str:
        """What the kernel says of a program that is about to be stopped since something has failed."""
        with suppress(LabError, OSError):  # the failure itself is what has to be told
            told: bytes = self._channel.call("where", number=self._number)
            return told.decode(errors="replace")
        return "(the guest does not say)"

    def printed(self) -> tuple[str, str]:
        """What it has printed so far on its two channels. A program that fills a buffer first may have said more."""
        output, errors = self._channel.call("output", number=self._number)
        return output.decode(errors="replace"), errors.decode(errors="replace")

    def wait(self, seconds: float) -> Finished:
        """Wait for its end. Raises: LabError: it still runs, and what it has printed."""
        deadline = time.monotonic() + seconds
        status = None
        while status is None:
            left = deadline - time.monotonic()
            if left <= 0:
                said = "\n".join(self.printed())
                raise LabError(f"{' '.join(self.argv)} still runs after {seconds:g} s; it has printed:\n{said}")
            part = min(_SLICE_S, left)
            status = self._channel.call("wait", wait_s=part, number=self._number, seconds=part)
        return Finished(status, *self.printed())

    def stop(self, number: signal.Signals = signal.SIGKILL) -> Finished:
        """Send a signal, and wait for the end."""
        self.signal(number)
        return self.wait(ANSWER_S)

    def signal(self, number: signal.Signals) -> None:
        """Send a signal; nothing happens if the program has ended."""
        self._channel.call("signal_all", number=self._number, number_of_signal=int(number))
