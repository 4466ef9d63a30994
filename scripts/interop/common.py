"""What every part of the lab uses: its one exception, progress on stderr, and running a program.

Knows neither kernels nor guests.
"""

import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Final

__all__ = ["LabError", "Progress", "call", "tail"]

TAIL_LINES: Final = 25
"""Lines of a failed program's output that a person gets to see."""


class LabError(Exception):
    """The lab can't do what was asked; the text says why and, where there is one, the remedy."""


class Progress:
    """Lines on stderr with the seconds since the start, for steps that take long."""

    def __init__(self) -> None:
        self._begun = time.monotonic()

    def __call__(self, text: str) -> None:
        print(f"[{time.monotonic() - self._begun:5.1f} s] {text}", file=sys.stderr, flush=True)


def tail(text: str, lines: int = TAIL_LINES) -> str:
    """The last lines of `text`."""
    return "\n".join(text.rstrip().splitlines()[-lines:])


def call(
    argv: Sequence[str | Path], *, cwd: Path | None = None, env: Mapping[str, str] | None = None, octets: bytes = b""
) -> bytes:
    """Run a program with `octets` as its input and return its output. Raises: LabError: its command and last lines."""
    try:
        done = subprocess.run(argv, cwd=cwd, env=env, input=octets, capture_output=True, check=False)
    except FileNotFoundError as error:
        raise LabError(f"{argv[0]} is not installed") from error
    if done.returncode:
        said = (done.stdout + done.stderr).decode(errors="replace")
        raise LabError(f"{' '.join(map(str, argv))}: exit status {done.returncode}\n{tail(said)}")
    return done.stdout
