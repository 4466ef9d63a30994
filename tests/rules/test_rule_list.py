"""The list of rules: it is whole, it contradicts nothing, and nothing in the project names a rule that it lacks."""

import re
from collections.abc import Iterator
from pathlib import Path

from scripts.rule_proofs import proofs
from softndk.conformance.rules import Kind, all_rules

ROOT = Path(__file__).parents[2]
NAME = re.compile(r"\b(?:R-[A-Z]+|[AE])-\d+\b")
PLACES = ("src", "tests", "docs", "scripts", "examples", "README.md", "CONTRIBUTING.md")


def files() -> Iterator[Path]:
    for place in PLACES:
        path = ROOT / place
        for found in sorted(path.rglob("*")) if path.is_dir() else [path]:
            if found.suffix in (".py", ".md", ".toml") and found.name != Path(__file__).name:
                yield found


def numbers_of(prefix: str) -> list[int]:
    return sorted(int(name.rpartition("-")[2]) for name in all_rules() if name.rpartition("-")[0] == prefix)


def test_every_topic_is_numbered_without_a_gap() -> None:
    for prefix in {name.rpartition("-")[0] for name in all_rules()}:
        numbers = numbers_of(prefix)
        assert numbers == list(range(1, len(numbers) + 1)), prefix


def test_a_rule_without_a_test_has_a_reason_and_every_text_is_whole_sentences() -> None:
    for rule in all_rules().values():
        for text in filter(None, (rule.says, rule.why)):
            assert text[0].isupper() or text[0].isdigit() or text.split()[0].islower(), rule.name
            assert text.endswith("."), rule.name
        assert bool(rule.why) == (rule.kind is not Kind.TESTABLE), rule.name


def test_every_rule_that_is_named_somewhere_is_in_the_list() -> None:
    known = set(all_rules())
    wrong = {
        str(path.relative_to(ROOT)): sorted(unknown)
        for path in files()
        if (unknown := set(NAME.findall(path.read_text(encoding="utf-8"))) - known)
    }
    assert wrong == {}


def test_every_rule_has_a_test_or_a_reason() -> None:
    assert [rule.name for rule in proofs().uncovered()] == []


def test_no_test_names_a_rule_that_does_not_exist_or_has_a_reason() -> None:
    assert proofs().contradictions() == []
