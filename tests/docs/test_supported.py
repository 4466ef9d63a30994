"""The page of supported features: complete, and what it lists by hand agrees with the package."""

import re

import pytest

import softndk
from scripts.docs.marks import KINDS, SOURCE, decisions_named, marks
from scripts.docs.ndkpi import all_entries
from scripts.docs.supported_reference import PAGE, QUESTIONS
from softndk.conformance.rules import Kind, all_rules

TEXT = PAGE.current()


def section(title: str) -> str:
    return TEXT.partition(f"## {title}\n")[2].partition("\n## ")[0]


def test_the_page_has_every_function_of_ndkpi() -> None:
    rows = re.findall(r"^\| ((?:Open|Close|Ndk|OID_)[\w, ]+) \|", section("Function by function"), re.MULTILINE)
    assert rows == [entry.name for entry in all_entries()]


def test_the_page_has_every_topic_with_all_its_rules_accounted_for() -> None:
    rows = re.findall(
        r"^\| (?:\[([^\]]+)\]\([^)]*\)|all) \| (\d+) \| (\d+) \| (.*) \|$", section("Topic by topic"), re.MULTILINE
    )
    assert [row[0] for row in rows[:-1]] == list(dict.fromkeys(rule.topic for rule in all_rules().values()))
    for topic, rules, proved, reasons in rows:
        assert int(rules) == int(proved) + sum(map(int, re.findall(r": (\d+)", reasons))), topic
        assert "not proved" not in reasons, topic
    assert sum(int(row[1]) for row in rows[:-1]) == int(rows[-1][1]) == len(all_rules())


def test_the_page_has_every_rule_that_has_no_form_here() -> None:
    for rule in all_rules().values():
        if rule.kind in (Kind.NOT_IN_PYTHON, Kind.KERNEL_ONLY):
            assert f"| {rule.name} |" in section("Topic by topic")


def test_every_mark_of_the_code_is_found_and_on_the_page() -> None:
    """Counted in the plain text of the files, so that no mark hides from the reader of docstrings and comments."""
    found = marks()
    for kind in KINDS:
        written = sum(
            len(re.findall(rf"(?<![\w\"']){kind}: ", file.read_text(encoding="utf-8"))) for file in SOURCE.rglob("*.py")
        )
        assert written == sum(mark.kind == kind for mark in found)
    shown = section("Deviations") + section("Choices")
    for mark in found:
        assert mark.text[1:].replace("|", "\\|") in shown, mark
        assert {rule for rule in mark.rules if not rule.startswith("RFC ")} <= all_rules().keys(), mark


def test_every_rule_without_a_form_in_python_is_a_deviation_or_says_why() -> None:
    for rule in all_rules().values():
        assert rule.kind is Kind.TESTABLE or rule.why, rule.name


def test_every_point_left_open_has_a_question_and_an_answer() -> None:
    points = {name for name in all_rules() if name.startswith("A-")}
    assert points == QUESTIONS.keys()
    assert decisions_named().keys() <= points
    assert re.findall(r"^\| (A-\d+) \|", section("Choices"), re.MULTILINE) == list(QUESTIONS)


def test_reserved_names_are_refused_as_the_page_says() -> None:
    for transport in ("rocev2", "shm", "verbs"):
        with pytest.raises(softndk.NotSupported):
            softndk.open_adapter(transport=transport)
    with pytest.raises(softndk.NotSupported):
        softndk.open_adapter(network=object())
