"""What long runs report: how often things were done and seen."""

from collections import Counter


class Tally:
    """Counts of one machine's runs."""

    def __init__(self) -> None:
        self.steps: Counter[str] = Counter()
        self.requests: Counter[str] = Counter()
        self.refusals: Counter[str] = Counter()
        self.results: Counter[str] = Counter()
        self.notified: Counter[str] = Counter()
        self.ends: Counter[str] = Counter()
        self.examples = 0
        self.connections = 0
        self.held = 0
        self.other_orders = 0
        self.given_up = 0
        self.too_many_orders = 0
        self.waiting_closes = 0
        self.first_difference = 0

    def lines(self) -> list[str]:
        return [
            f"connections {self.connections}, of their ends: {_listed(self.ends)}",
            f"steps {self.steps.total()}: {_listed(self.steps)}",
            f"requests posted {self.requests.total()}: {_listed(self.requests)}",
            f"refused at once {self.refusals.total()}: {_listed(self.refusals)}",
            f"results compared {self.results.total()}: {_listed(self.results)}",
            f"notifications compared {self.notified.total()}: {_listed(self.notified)}",
            f"steps that ended with a message held back for an empty SRQ: {self.held}",
            f"steps that ended with a close that waits: {self.waiting_closes}",
            f"connections left because what was held back could no longer be known: {self.given_up}",
            f"connections left because there were too many orders to look at: {self.too_many_orders}",
            f"steps that went another way than the likeliest, one that the rules allow: {self.other_orders}",
        ]


def _listed(counts: Counter[str]) -> str:
    return ", ".join(f"{name} {count}" for name, count in counts.most_common()) or "none"
