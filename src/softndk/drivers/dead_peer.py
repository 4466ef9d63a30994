"""When a peer is dead that leaves octets of ours unacknowledged: cut off, or without power. Neither sockets nor a clock here.

A peer whose window is closed is alive as long as its kernel answers TCP's probes, be it for hours: an empty SRQ holds
messages back (R-SRQ-3), and so does a debugger. So silence alone proves nothing. Nobody is suspected before TCP has sent
something again, or probed, without an answer; and any segment of the peer ends the suspicion.
"""

import math
from typing import Final

from softndk.drivers.tcp_info import TcpInfo

__all__ = ["DeadPeerWatch", "is_dead", "suspected_since"]

LOOK_S: Final = 5.0
"""Seconds between two looks at a connection with octets outstanding; short limits have an eighth of theirs."""
LEAST_UNANSWERED: Final = 3
"""So many retransmissions and probes must be unanswered. One may be lost on its way, and the probes of a window that has
been closed for long are two minutes apart.
"""


def suspected_since(earlier: float | None, info: TcpInfo, now: float) -> float | None:
    """Since when the peer has been under suspicion, on the clock of `now`; None: it is not.

    `earlier`: what this function gave at the look before. Suspicion begins with the first look that sees something
    unanswered, and is over when anything has come from the peer since, or all is acknowledged.
    """
    if not info.outstanding_octets:
        return None
    if earlier is not None and now - info.silent_s <= earlier:
        return earlier
    return now if info.unanswered else None


def is_dead(since: float | None, info: TcpInfo, now: float, limit_s: float) -> bool:
    """The judgement on a peer that is suspected since `since`."""
    return since is not None and now - since >= limit_s and info.unanswered >= LEAST_UNANSWERED


class DeadPeerWatch:
    """When to look at one connection, and what the looks have shown. `limit_s`: 0 switches it off.

    A connection with nothing outstanding is not looked at.
    """

    __slots__ = ("_began", "_interval_s", "_limit_s", "_since", "look_at")

    def __init__(self, limit_s: float) -> None:
        self.look_at = math.inf
        self._limit_s = limit_s
        self._interval_s = min(LOOK_S, limit_s / 8)
        self._began = 0.0
        self._since: float | None = None

    def sent(self, now: float) -> None:
        """TCP has taken octets."""
        if self.look_at == math.inf and self._limit_s > 0:
            self._began = now
            self._since = None
            self.look_at = now + self._interval_s

    def rest(self) -> None:
        """Look no more, until something is sent."""
        self.look_at = math.inf

    def look(self, info: TcpInfo | None, now: float) -> str | None:
        """Take note of what TCP says; returns why the peer is dead, or None. None for `info`: the system does not tell."""
        if info is None or not info.outstanding_octets:
            self.rest()
            return None
        since = self._since = suspected_since(self._since, info, now)
        if is_dead(since, info, now, self._limit_s):
            return self._explain(info, now)
        self.look_at = now + self._interval_s
        if since is not None and now < since + self._limit_s:
            self.look_at = min(self.look_at, since + self._limit_s)
        return None

    def _explain(self, info: TcpInfo, now: float) -> str:
        silent_s = min(info.silent_s, now - self._began)  # before that nobody had to answer
        return (
            f"no ACK for {silent_s:.0f} s, {info.unanswered} retransmissions or probes unanswered,"
            f" {info.outstanding_octets:,} octets unacknowledged: the peer's machine or the network is down;"
            f" limit dead_peer_timeout_s={self._limit_s:g}, raise it if the network may be away for longer"
        )
