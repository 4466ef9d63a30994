"""The rule table: prints every rule of NDKPI with the tests that prove it, and writes it into docs/reference/rules.md.

Fails if a rule has neither a test nor a stated reason, or a test names a rule that does not exist.
Run: ``make rules``, or ``python -m scripts.rules`` from the project's root; ``--json`` prints JSON and writes nothing.
"""

import json
import sys
from collections import Counter

from rich.console import Console
from rich.table import Table

from scripts.docs.rules_reference import PAGE
from scripts.rule_proofs import Proofs, proofs
from softndk.conformance.rules import Kind, all_rules


def main() -> int:
    """Do what the command line asks; the result is the exit status."""
    found = proofs()
    problems = found.contradictions()
    problems += [f"{rule.name} has neither a test nor a reason: {rule.says}" for rule in found.uncovered()]
    if "--json" in sys.argv[1:]:
        print(json.dumps(as_json(found, problems), indent=2))
    else:
        show(found)
        PAGE.main()
    for problem in problems:
        print(problem, file=sys.stderr)
    return bool(problems)


def as_json(found: Proofs, problems: list[str]) -> dict[str, object]:
    """The table for a program."""
    return {
        "rules": {
            rule.name: {
                "topic": rule.topic,
                "says": rule.says,
                "kind": rule.kind.value,
                "why": rule.why,
                "tests": list(found.tests.get(rule.name, ())),
                "cases": found.count.get(rule.name, 0),
            }
            for rule in all_rules().values()
        },
        "tests": found.marked,
        "problems": problems,
    }


def show(found: Proofs) -> None:
    """The table for a person, and the sums."""
    rules = list(all_rules().values())
    shown = Table("rule", "what it says", "tests", "proved by, or why not", title="The rules of NDKPI", show_lines=True)
    for rule in rules:
        names = [test.partition("::")[2] for test in found.tests.get(rule.name, ())]
        proof = "\n".join(names) if rule.kind is Kind.TESTABLE else f"{rule.kind.value}: {rule.why}"
        shown.add_row(rule.name, rule.says, str(found.count.get(rule.name, 0)), proof or "NOTHING")
    console = Console(width=None if sys.stdout.isatty() else 160)
    console.print(shown)
    kinds = Counter(rule.kind for rule in rules)
    reasons = ", ".join(f"{kinds[kind]} {kind.value}" for kind in Kind if kind is not Kind.TESTABLE)
    covered = kinds[Kind.TESTABLE] - len(found.uncovered())
    console.print(
        f"{len(rules)} rules: {covered} proved by {found.marked} tests, {len(rules) - kinds[Kind.TESTABLE]} with a reason"
        f" ({reasons}), {len(found.uncovered())} uncovered",
        highlight=False,
    )


if __name__ == "__main__":
    sys.exit(main())
