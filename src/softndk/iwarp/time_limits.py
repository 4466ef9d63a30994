"""The time limits of one connection: which run, when the next one ends, and what to say when it has.

Has no clock: it is told what time it is.
"""

from enum import Enum
from typing import Final

from softndk.config import IwarpConfig

__all__ = ["Limit", "TimeLimits"]


class Limit(Enum):
    """What is waited for. The value is the field of IwarpConfig that says how long."""

    REPLY = "connect_timeout_s"
    REQUEST = "accept_timeout_s"
    READY = "ready_timeout_s"
    NUDGE = "nudge_s"
    RECEIVE = "receive_wait_s"
    STALL = "stall_timeout_s"
    DISCONNECT = "disconnect_timeout_s"
    DRAIN = "terminate_drain_s"


_FAILURES: Final = {
    Limit.REPLY: "no MPA reply within",
    Limit.REQUEST: "no MPA request within",
    Limit.READY: "no ready-to-receive indication within",
    Limit.DISCONNECT: "the peer did not disconnect within",
    Limit.STALL: "an FPDU is unfinished since",
}
"""Those whose end is the connection's; after the others it goes on."""


class TimeLimits:
    """`now`: seconds on a clock that never goes back, as last told."""

    def __init__(self, config: IwarpConfig) -> None:
        self.now = 0.0
        self._config = config
        self._ends: dict[Limit, float] = {}

    def learn(self, now: float) -> None:
        """Note what time it is."""
        self.now = now

    def start(self, limit: Limit, *, times: int = 1) -> None:
        """From now, also if it runs already; `times` as long as its setting says."""
        self._ends[limit] = self.now + times * self._seconds(limit)

    def keep_or_start(self, limit: Limit) -> None:
        """Start it unless it runs."""
        self._ends.setdefault(limit, self.now + self._seconds(limit))

    def stop(self, limit: Limit) -> None:
        self._ends.pop(limit, None)

    def stop_all(self) -> None:
        self._ends.clear()

    def next_end(self) -> float | None:
        return min(self._ends.values(), default=None)

    def take_expired(self) -> Limit | None:
        """The first of those that have ended by now; it does not run any more."""
        expired = [limit for limit, end in self._ends.items() if end <= self.now]
        if not expired:
            return None
        first = min(expired, key=self._ends.__getitem__)
        del self._ends[first]
        return first

    def failure(self, limit: Limit) -> str | None:
        """What has gone wrong if that limit has ended; None: nothing has."""
        if limit not in _FAILURES:
            return None
        return f"{_FAILURES[limit]} {limit.value}={self._seconds(limit):g}"

    def _seconds(self, limit: Limit) -> float:
        seconds: float = getattr(self._config, limit.value)
        return seconds
