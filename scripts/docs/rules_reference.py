"""Makes the tables of docs/reference/rules.md: every rule of NDKPI, and the tests that prove it or why none does.

Rules come from softndk.conformance.rules, proofs from the tests' markers. Run: ``make rules``, or
``python -m scripts.docs.rules_reference`` from the project's root; ``--check`` only compares.
"""

import sys
from collections import Counter
from itertools import groupby

from scripts.docs.generated import Page, table
from scripts.rule_proofs import Proofs, proofs
from softndk.conformance.rules import Kind, Rule, all_rules

KINDS = {
    Kind.TESTABLE: "proved by tests",
    Kind.CONSUMER_DUTY: "binds the program, not the provider",
    Kind.NOT_OBSERVABLE: "no program could tell",
    Kind.NOT_IN_PYTHON: "has no form in Python",
    Kind.KERNEL_ONLY: "has no meaning outside of a kernel",
}


def parts() -> dict[str, str]:
    """The summary and the tables."""
    found = proofs()
    return {"summary": _summary(), "rules": _rules(found)}


def _summary() -> str:
    kinds = Counter(rule.kind for rule in all_rules().values())
    rows = [(kinds[kind], kind.value, words) for kind, words in KINDS.items()]
    return table(("Rules", "Kind", "Meaning"), [*rows, (len(all_rules()), "all", "")])


def _rules(found: Proofs) -> str:
    sections = []
    for topic, rules in groupby(all_rules().values(), key=lambda rule: rule.topic):
        rows = [(rule.name, rule.says, _proof(rule, found)) for rule in rules]
        sections.append(f"### {topic}\n\n{table(('Rule', 'What it says', 'Proved by'), rows)}")
    return "\n\n".join(sections)


def _proof(rule: Rule, found: Proofs) -> str:
    if rule.kind is not Kind.TESTABLE:
        return f"*{rule.kind.value}*: {rule.why}"
    names = sorted({test.partition("::")[2].replace("::", ".") for test in found.tests.get(rule.name, ())})
    return "<br>".join(f"`{name}`" for name in names) or "**nothing**"


PAGE = Page("docs/reference/rules.md", "rules_reference", parts)

if __name__ == "__main__":
    sys.exit(PAGE.main())
