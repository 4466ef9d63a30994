"""The support matrix: what came of the cases, topic by topic and rule by rule. Knows no pytest.

A case that passed with everything it requires advertised counts as supported; one whose missing feature was refused as
the rules want, as refused cleanly; any other that did not pass, as failing.
"""

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from enum import Enum
from typing import Any, Final

from softndk.conformance.rules import Kind, Rule

__all__ = ["Case", "Matrix", "Outcome"]


class Outcome(Enum):
    """What came of a case; the value is a column's head."""

    SUPPORTED = "supported"
    REFUSED = "refused cleanly"
    FAILS = "advertised but fails"
    SKIPPED = "not run"


_WORST_FIRST: Final = (Outcome.FAILS, Outcome.REFUSED, Outcome.SUPPORTED, Outcome.SKIPPED)


@dataclass(frozen=True, slots=True)
class Case:
    """One case that was run. `missing`: required features that the provider does not advertise."""

    name: str
    rules: tuple[str, ...]
    missing: tuple[str, ...]
    passed: bool
    skipped: bool = False

    @property
    def outcome(self) -> Outcome:
        if self.skipped:
            return Outcome.SKIPPED
        if not self.passed:
            return Outcome.FAILS
        return Outcome.REFUSED if self.missing else Outcome.SUPPORTED


@dataclass(slots=True)
class Matrix:
    """Everything that a run tells about one provider. `adapter`: what it says of itself."""

    provider: str
    adapter: Mapping[str, Any]
    rules: Mapping[str, Rule]
    cases: list[Case] = field(default_factory=list)

    def rows(self) -> list[tuple[str, Counter[Outcome]]]:
        """Cases per topic and outcome. A case counts once for each topic that it proves a rule of."""
        found = {rule.topic: Counter[Outcome]() for rule in self.rules.values()}
        for case in self.cases:
            for topic in {self.rules[name].topic for name in case.rules}:
                found[topic][case.outcome] += 1
        return list(found.items())

    def by_rule(self) -> dict[str, Outcome]:
        """The worst outcome of the cases of each rule that had one."""
        found: dict[str, set[Outcome]] = {}
        for case in self.cases:
            for name in case.rules:
                found.setdefault(name, set()).add(case.outcome)
        return {
            name: next(outcome for outcome in _WORST_FIRST if outcome in found[name])
            for name in self.rules
            if name in found
        }

    def lines(self) -> list[str]:
        """The table for a person."""
        rows = [row for row in self.rows() if row[1]]
        columns = [
            outcome for outcome in Outcome if outcome is not Outcome.SKIPPED or any(row[1][outcome] for row in rows)
        ]
        table = [["topic", *(outcome.value for outcome in columns)]]
        table += [[topic, *(str(counts[outcome] or "-") for outcome in columns)] for topic, counts in rows]
        by_rule = Counter(self.by_rule().values())
        testable = sum(rule.kind is Kind.TESTABLE for rule in self.rules.values())
        told = ", ".join(f"{by_rule[outcome]} {outcome.value}" for outcome in Outcome if by_rule[outcome])
        return [
            f"provider: {self.provider}",
            *_aligned(table),
            f"cases: {len(self.cases)}; rules with a case: {sum(by_rule.values())} of {testable} testable ({told})",
            *self._failing(),
        ]

    def _failing(self) -> Iterator[str]:
        """Each rule that a case has failed, with what it says and the functions of these cases."""
        failing: dict[str, list[str]] = {}
        for case in self.cases:
            if case.outcome is Outcome.FAILS:
                for name in case.rules:
                    failing.setdefault(name, []).append(case.name.partition("[")[0].rpartition("::")[2])
        for name, rule in self.rules.items():
            if name in failing:
                yield f"{name} fails: {rule.says}"
                yield from (f"    {function}" for function in dict.fromkeys(failing[name]))

    def as_json(self) -> dict[str, Any]:
        """The matrix for a program."""
        return {
            "provider": self.provider,
            "adapter": dict(self.adapter),
            "topics": {topic: {outcome.value: counts[outcome] for outcome in Outcome} for topic, counts in self.rows()},
            "rules": {name: outcome.value for name, outcome in self.by_rule().items()},
            "cases": [
                {
                    "case": case.name,
                    "rules": list(case.rules),
                    "missing": list(case.missing),
                    "outcome": case.outcome.value,
                }
                for case in self.cases
            ],
        }


def _aligned(table: Sequence[Sequence[str]]) -> Iterable[str]:
    widths = [max(len(row[index]) for row in table) for index in range(len(table[0]))]
    for number, row in enumerate(table):
        first = row[0].ljust(widths[0])
        rest = (cell.rjust(width) for cell, width in zip(row[1:], widths[1:], strict=True))
        yield "  ".join((first, *rest))
        if not number:
            yield "  ".join("-" * width for width in widths)
