"""Ctrl-C and SIGTERM as a flag, so that a command ends between two steps and never in the midst of one.

An exception raised by a signal could hit the adapter while it is half way through a frame. The second signal raises one
all the same: who presses Ctrl-C twice wants out.
"""

import signal
import threading
from types import FrameType, TracebackType
from typing import Any, Final, Self

__all__ = ["POLL_S", "Interrupt"]

POLL_S: Final = 0.2
"""How long a wait may last before it looks at the flag again. A signal handler may not wake a completion queue."""

_SIGNALS: Final = (signal.SIGINT, signal.SIGTERM)


class Interrupt:
    """While entered, a first SIGINT or SIGTERM only sets `requested`. Outside the main thread it does nothing."""

    def __init__(self) -> None:
        self.requested = False
        self._number = 0
        self._before: dict[signal.Signals, Any] = {}

    @property
    def exit_status(self) -> int:
        """128 + the signal's number, as shells have it; 0 if there was none."""
        return 128 + self._number if self._number else 0

    def __enter__(self) -> Self:
        if threading.current_thread() is threading.main_thread():
            for number in _SIGNALS:
                self._before[number] = signal.signal(number, self._on_signal)
        return self

    def __exit__(self, t: type[BaseException] | None, e: BaseException | None, tb: TracebackType | None) -> None:
        self._restore()

    def _on_signal(self, number: int, frame: FrameType | None) -> None:
        self._number = number
        self.requested = True
        self._restore()

    def _restore(self) -> None:
        before, self._before = self._before, {}
        for number, handler in before.items():
            signal.signal(number, handler)
