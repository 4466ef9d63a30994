"""The parts of the documents that are made from the code are up to date, and nothing is left out of them."""

import subprocess
import sys

import pytest

from scripts.docs import error_table
from scripts.docs.error_reference import CAUSES
from scripts.docs.generated import ROOT, Page
from scripts.docs.update import PAGES
from softndk.iwarp.faults import Cause
from softndk.iwarp.qp_state import TRANSITIONS, State
from tests.conformance.error_cases import CASES
from tests.conformance.error_rows import ROWS
from tests.docs.markdown_pages import blocks


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.path)
def test_a_generated_page_is_up_to_date(page: Page) -> None:
    assert page.fresh() == page.current(), f"{page.path}: run python -m scripts.docs.update"


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.path)
def test_making_a_page_twice_gives_the_same(page: Page) -> None:
    assert page.fresh() == page.fresh()


def test_every_cause_is_explained() -> None:
    assert set(CAUSES) == set(Cause)


def test_every_row_of_the_error_table_has_a_test_or_a_reason() -> None:
    played = {row.number for row in ROWS} | {case.number for case in CASES}
    error_table.check(played, error_table.NOT_PLAYED)
    with pytest.raises(ValueError, match=r"without a test: \[18\]"):
        error_table.check(played - {18}, error_table.NOT_PLAYED)
    with pytest.raises(ValueError, match=r"\[18\]"):
        error_table.check(played, [*error_table.NOT_PLAYED, 18])
    with pytest.raises(ValueError, match=r"does not have: \[44\]"):
        error_table.check([*played, 44], error_table.NOT_PLAYED)


def test_the_tests_that_the_error_table_names_exist() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "--collect-only", "-q", "-p", "no:cacheprovider", error_table.TEST_FILE],
        capture_output=True,
        text=True,
        check=True,
        cwd=ROOT,
    )
    named = [f"{error_table.TEST_FILE}::{test}" for test in error_table.tests()]
    assert len(set(named)) == len(named)
    assert set(named) <= set(done.stdout.splitlines())


def test_the_diagram_and_its_table_have_every_transition() -> None:
    page = next(page for page in PAGES if page.script == "state_diagram")
    (diagram,) = [block for block in blocks(page.file) if block.language == "mermaid"]
    text = page.current()
    for (source, step), target in TRANSITIONS.items():
        arrow = f"{source.name} --> {target.name}: {step.value}"
        rows = [line.strip("| ").split(" | ") for line in text.splitlines() if line.startswith(f"| {step.value} |")]
        told = any(source.value in row[1].split(", ") and row[2] == target.value for row in rows)
        assert arrow in diagram.text or told, f"{source.value}, {step.value}"


def test_the_diagram_has_every_state() -> None:
    page = next(page for page in PAGES if page.script == "state_diagram")
    (diagram,) = [block for block in blocks(page.file) if block.language == "mermaid"]
    assert all(f'state "{state.value}" as {state.name}' in diagram.text for state in State)
