"""The parts of the documents that are made from the code are up to date, and nothing is left out of them."""

import pytest

from scripts.docs.error_reference import CAUSES
from scripts.docs.generated import Page
from scripts.docs.update import PAGES
from softndk.iwarp.faults import Cause
from softndk.iwarp.qp_state import TRANSITIONS, State
from tests.docs.markdown_pages import blocks


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.path)
def test_a_generated_page_is_up_to_date(page: Page) -> None:
    assert page.fresh() == page.current(), f"{page.path}: run python -m scripts.docs.update"


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.path)
def test_making_a_page_twice_gives_the_same(page: Page) -> None:
    assert page.fresh() == page.fresh()


def test_every_cause_is_explained() -> None:
    assert set(CAUSES) == set(Cause)


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
