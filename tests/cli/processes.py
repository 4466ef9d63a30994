"""The real command in processes of its own: start it, wait for what it prints, signal it, take its exit status.

Every wait has a limit and is for something that the process does; nothing here sleeps.
"""

import json
import os
import queue
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

SOURCE = Path(__file__).parents[2] / "src"
COMMAND = (sys.executable, "-m", "softndk.cli")
LIMIT_S = 30.0


def environment() -> dict[str, str]:
    """Without settings of the person who runs the tests that would change what is printed."""
    kept = {name: value for name, value in os.environ.items() if name not in ("FORCE_COLOR", "COLUMNS", "NO_COLOR")}
    return kept | {"PYTHONPATH": str(SOURCE), "PYTHONUNBUFFERED": "1", "TERM": "xterm"}


def run(*arguments: object, timeout: float = LIMIT_S) -> subprocess.CompletedProcess[str]:
    """Run the command to its end. No run may end in a traceback."""
    done = subprocess.run(
        [*COMMAND, *map(str, arguments)],
        capture_output=True,
        text=True,
        timeout=timeout,
        env=environment(),
        check=False,
    )
    assert "Traceback" not in done.stderr, done.stderr
    return done


class Process:
    """A running command. Its output is read by threads, so that it never blocks and can be waited for."""

    def __init__(self, *arguments: object) -> None:
        self.process = subprocess.Popen(
            [*COMMAND, *map(str, arguments)],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env=environment(),
        )
        self.lines: list[str] = []
        self.errors: list[str] = []
        self._fresh: queue.SimpleQueue[str | None] = queue.SimpleQueue()
        assert self.process.stdout is not None
        assert self.process.stderr is not None
        self._readers = [
            threading.Thread(target=self._read, args=(self.process.stdout, self.lines), daemon=True),
            threading.Thread(target=self._read, args=(self.process.stderr, self.errors), daemon=True),
        ]
        for reader in self._readers:
            reader.start()

    def _read(self, stream: IO[str], lines: list[str]) -> None:
        for line in stream:
            lines.append(line.rstrip("\n"))
            self._fresh.put(line)
        self._fresh.put(None)

    @property
    def output(self) -> str:
        return "\n".join(self.lines)

    @property
    def error_output(self) -> str:
        return "\n".join(self.errors)

    def wait_for(self, text: str) -> str:
        """The first line on either channel that has `text` in it, once it is there."""
        ended = 0
        while True:
            for line in self.lines + self.errors:
                if text in line:
                    return line
            if ended == 2:
                raise AssertionError(f"ended without {text!r}:\n{self.output}\n{self.error_output}")
            ended += self._fresh.get(timeout=LIMIT_S) is None

    def signal(self, number: int = signal.SIGINT) -> None:
        self.process.send_signal(number)

    def end(self) -> int:
        """Wait for its exit status; no traceback may have been printed."""
        status = self.process.wait(LIMIT_S)
        for reader in self._readers:
            reader.join(LIMIT_S)
        assert "Traceback" not in self.error_output, self.error_output
        return status

    def result(self) -> dict[str, Any]:
        """The JSON object of the last line."""
        found = json.loads(self.lines[-1])
        assert isinstance(found, dict)
        return found

    def close(self) -> None:
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait()
        for reader in self._readers:
            reader.join(LIMIT_S)
        for stream in (self.process.stdout, self.process.stderr):
            if stream is not None:
                stream.close()


@contextmanager
def started(*arguments: object) -> Iterator[Process]:
    """A command that is killed in the end if it still runs."""
    process = Process(*arguments)
    try:
        yield process
    finally:
        process.close()


@contextmanager
def server(*arguments: object) -> Iterator[tuple[Process, str]]:
    """A ping server that listens, and its HOST:PORT."""
    with started("ping", "--server", *arguments) as process:
        line = process.wait_for("listening")
        target = json.loads(line)["listening"] if line.startswith("{") else line.rpartition(" ")[2]
        assert isinstance(target, str)
        yield process, target
