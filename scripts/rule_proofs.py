"""Which tests prove which rule: asks pytest for every test of the project, and reads the marker `rules`.

Run as a program (``python -m scripts.rule_proofs``) it prints that as JSON. `proofs` does so in a process of its own, so
that a test may ask, too. Knows nothing of how the answer is shown.
"""

import contextlib
import functools
import io
import json
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

import pytest

from softndk.conformance.rules import Kind, Rule, all_rules

__all__ = ["ROOT", "Proofs", "proofs"]

ROOT: Final = Path(__file__).parents[1]


@dataclass(frozen=True, slots=True)
class Proofs:
    """`tests`: rule name -> tests that prove it, as "path::function", sorted. `count`: tests with all their parameters.

    `marked`: how many different tests prove some rule.
    """

    tests: Mapping[str, tuple[str, ...]]
    count: Mapping[str, int]
    marked: int

    def uncovered(self) -> list[Rule]:
        """Testable rules that no test proves."""
        return [rule for rule in all_rules().values() if rule.kind is Kind.TESTABLE and rule.name not in self.tests]

    def contradictions(self) -> list[str]:
        """Names that are no rule, and rules that have both a test and a reason why there is none."""
        rules = all_rules()
        found = [f"{name} is no rule: {', '.join(tests)}" for name, tests in self.tests.items() if name not in rules]
        for name, tests in self.tests.items():
            if name in rules and rules[name].kind is not Kind.TESTABLE:
                found.append(f"{name} is {rules[name].kind.value}, but has a test: {', '.join(tests)}")
        return sorted(found)


@functools.cache
def proofs() -> Proofs:
    """Ask pytest. Raises RuntimeError: some test file cannot be collected."""
    done = subprocess.run(
        [sys.executable, "-m", "scripts.rule_proofs"], cwd=ROOT, capture_output=True, text=True, check=False
    )
    if done.returncode:
        raise RuntimeError(f"the tests cannot be collected:\n{done.stdout}{done.stderr}")
    data = json.loads(done.stdout)
    return Proofs({name: tuple(tests) for name, tests in data["tests"].items()}, data["count"], data["marked"])


@dataclass
class _Collector:
    """A pytest plugin that only looks."""

    tests: dict[str, set[str]] = field(default_factory=dict)
    count: dict[str, int] = field(default_factory=dict)
    marked: int = 0

    @pytest.hookimpl(trylast=True)
    def pytest_collection_modifyitems(self, items: list[pytest.Item]) -> None:
        for item in items:
            names = {name for mark in item.iter_markers("rules") for name in mark.args}
            self.marked += bool(names)
            for name in names:
                self.tests.setdefault(name, set()).add(item.nodeid.partition("[")[0])
                self.count[name] = self.count.get(name, 0) + 1


def main() -> int:
    """Print the proofs as JSON; the result is the exit status."""
    collector = _Collector()
    told = io.StringIO()
    with contextlib.redirect_stdout(told):
        status = pytest.main(["--collect-only", "-qq", "-p", "no:cacheprovider"], plugins=[collector])
    if status is not pytest.ExitCode.OK:
        print(told.getvalue(), file=sys.stderr)
        return 1
    tests = {name: sorted(found) for name, found in sorted(collector.tests.items())}
    print(json.dumps({"tests": tests, "count": collector.count, "marked": collector.marked}))
    return 0


if __name__ == "__main__":
    sys.exit(main())
