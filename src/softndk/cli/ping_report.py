"""What `softndk ping` has measured: round trips in constant memory, totals, and both as text and as a JSON object."""

import math
import sys
from array import array
from dataclasses import dataclass, field
from typing import Any, Final

__all__ = ["RoundTrips", "Totals", "peak_rss_octets", "plural"]


class RoundTrips:
    """Any number of durations: shortest, mean, longest, and percentiles to 1 %.

    They are counted in buckets that lie 1 % apart, from 0.1 us to beyond an hour: memory does not grow with them.
    """

    _LOWEST_S: Final = 1e-7
    _RATIO: Final = math.log(1.01)
    _BUCKETS: Final = 2500

    def __init__(self) -> None:
        self.count = 0
        self.shortest_s = math.inf
        self.longest_s = 0.0
        self._sum_s = 0.0
        self._buckets = array("Q", bytes(8 * self._BUCKETS))

    def add(self, seconds: float) -> None:
        self.count += 1
        self._sum_s += seconds
        if seconds < self.shortest_s:
            self.shortest_s = seconds
        if seconds > self.longest_s:
            self.longest_s = seconds
        place = int(math.log(max(seconds, self._LOWEST_S) / self._LOWEST_S) / self._RATIO)
        self._buckets[min(place, self._BUCKETS - 1)] += 1

    def merge(self, other: "RoundTrips") -> None:
        """Add all of `other`."""
        self.count += other.count
        self._sum_s += other._sum_s
        self.shortest_s = min(self.shortest_s, other.shortest_s)
        self.longest_s = max(self.longest_s, other.longest_s)
        for place, count in enumerate(other._buckets):
            self._buckets[place] += count

    @property
    def mean_s(self) -> float:
        return self._sum_s / self.count if self.count else 0.0

    def percentile_s(self, percent: float) -> float:
        """The duration that `percent` % do not exceed, at most 1 % too long; 0 without any."""
        wanted, seen = math.ceil(self.count * percent / 100), 0
        for place, count in enumerate(self._buckets):
            seen += count
            if count and seen >= wanted:
                if place == self._BUCKETS - 1:
                    return self.longest_s
                return min(self.longest_s, self._LOWEST_S * math.exp((place + 1) * self._RATIO))
        return 0.0

    def as_dict(self) -> dict[str, float] | None:
        """Microseconds; None without any."""
        if not self.count:
            return None
        found = {
            "min": self.shortest_s,
            "avg": self.mean_s,
            "max": self.longest_s,
            "p99": self.percentile_s(99),
        }
        return {name: round(value * 1e6, 1) for name, value in found.items()}


@dataclass(slots=True)
class Totals:
    """What one side has done. `seconds`: while there was a connection; `octets`: compared, both directions.

    `mismatches`: rounds in which either side found wrong data. `times`: at the client from lending to the answer, at
    the server from the advert to the answer's post.
    """

    rounds: int = 0
    octets: int = 0
    mismatches: int = 0
    seconds: float = 0.0
    times: RoundTrips = field(default_factory=RoundTrips)

    @property
    def rounds_per_second(self) -> float:
        return self.rounds / self.seconds if self.seconds else 0.0

    @property
    def octets_per_second(self) -> float:
        return self.octets / self.seconds if self.seconds else 0.0

    def add(self, size: int, seconds: float, *, mismatch: bool) -> None:
        """Count one round of `size` octets each way."""
        self.rounds += 1
        self.octets += 2 * size
        self.mismatches += mismatch
        self.times.add(seconds)

    def merge(self, other: "Totals") -> None:
        """Add all of `other` but its seconds, which may have been the same ones."""
        self.rounds += other.rounds
        self.octets += other.octets
        self.mismatches += other.mismatches
        self.times.merge(other.times)

    def as_dict(self, times: str) -> dict[str, Any]:
        """For JSON; `times`: the key of the durations."""
        return {
            "rounds": self.rounds,
            "octets": self.octets,
            "mismatches": self.mismatches,
            "seconds": round(self.seconds, 6),
            "rounds_per_second": round(self.rounds_per_second, 1),
            "octets_per_second": round(self.octets_per_second),
            times: self.times.as_dict(),
            "peak_rss_octets": peak_rss_octets(),
        }

    def lines(self, times: str) -> list[str]:
        """For a person; `times`: what the durations are."""
        verdict = f"{self.mismatches} with a mismatch" if self.mismatches else "no mismatch"
        lines = [
            f"{plural(self.rounds, 'round')}, {verdict}; {self.octets} octets compared in {self.seconds:.3f} s",
            f"{self.rounds_per_second:.1f} rounds/s, {self.octets_per_second / 1e6:.2f} MB/s",
        ]
        found = self.times.as_dict()
        if found is not None:
            lines.append(f"{times} min/avg/max/p99 {'/'.join(f'{value:.1f}' for value in found.values())} us")
        rss = peak_rss_octets()
        if rss is not None:
            lines.append(f"peak memory {rss / 2**20:.1f} MiB")
        return lines


def peak_rss_octets() -> int | None:
    """The most memory that this process has had resident; None where the system does not tell."""
    if sys.platform == "win32":
        return None
    import resource

    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024


def plural(count: int, what: str) -> str:
    """A number with its noun: "1 round", "2 rounds"."""
    return f"{count} {what}" if count == 1 else f"{count} {what}s"
