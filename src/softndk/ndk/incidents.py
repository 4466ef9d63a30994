"""What peers do wrong, in the log: one line each, only so many in a while, and how many were left out. The last few are
kept, log or no log, for whoever asks later (`softndk status`).

Lines go to the logger "softndk", at level INFO where a peer is the cause, from the callback thread: a log handler is
the program's code, and no lock may be held while it runs. Whoever floods this side with faults gets few lines for many
of them (RFC 5042 6.4); the adapter's counters have them all.
"""

import logging
from collections import deque
from typing import Final

from softndk.drivers.runtime import Runtime

__all__ = ["IncidentLog"]

LOG_LINES: Final = 20
"""Lines of one adapter in LOG_PERIOD_S seconds."""
LOG_PERIOD_S: Final = 10.0
INCIDENTS_KEPT: Final = 16
"""Lines of one adapter that are kept for `softndk status`."""
_log: Final = logging.getLogger("softndk")


class IncidentLog:
    """The incidents of one adapter. Under its lock."""

    def __init__(self, runtime: Runtime) -> None:
        self._runtime = runtime
        self._now = runtime.now
        self._since = -LOG_PERIOD_S
        self._lines = 0
        self._left_out = 0
        self._kept: deque[tuple[float, str]] = deque(maxlen=INCIDENTS_KEPT)

    def kept(self) -> list[tuple[float, str]]:
        """The last incidents, oldest first: how many seconds ago, and the line."""
        now = self._now()
        return [(now - when, line) for when, line in self._kept]

    def tell(self, text: str, *, level: int = logging.INFO) -> None:
        """One line, or one more of those that were left out. `text` says which peer it is about."""
        now = self._now()
        self._kept.append((now, text))
        if not _log.isEnabledFor(level):
            return
        if now - self._since >= LOG_PERIOD_S:
            self._tell_left_out()
            self._since, self._lines = now, 0
        if self._lines == LOG_LINES:
            if not self._left_out:
                self._runtime.engine.call_at(self._since + LOG_PERIOD_S, self._tell_left_out)
            self._left_out += 1
            return
        self._lines += 1
        self._runtime.dispatcher.submit(_log.log, level, "%s", text)

    def _tell_left_out(self) -> None:
        count, self._left_out = self._left_out, 0
        if count:
            self._runtime.dispatcher.submit(
                _log.info, "%d more incidents within %g s are not logged", count, LOG_PERIOD_S
            )
