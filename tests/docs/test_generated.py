"""The parts of the documents that are made from the code are up to date, and nothing is left out of them."""

import re
import subprocess
import sys
from dataclasses import replace
from html import escape

import pytest

from scripts.docs import error_table, store_picture
from scripts.docs.error_reference import CAUSES
from scripts.docs.generated import ROOT, Generated
from scripts.docs.machines import MACHINES
from scripts.docs.state_diagram import LAYOUTS, picture, steps_of_connection
from scripts.docs.update import PAGES
from softndk.iwarp.faults import Cause
from softndk.iwarp.qp_state import TRANSITIONS, State
from tests.conformance.error_cases import CASES
from tests.conformance.error_rows import ROWS
from tests.conformance.rfc7306_rows import RFC7306_ROWS


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.path)
def test_a_generated_page_is_up_to_date(page: Generated) -> None:
    assert page.fresh() == page.current(), f"{page.path}: run python -m scripts.docs.update"


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.path)
def test_making_a_page_twice_gives_the_same(page: Generated) -> None:
    assert page.fresh() == page.fresh()


def test_every_cause_is_explained() -> None:
    assert set(CAUSES) == set(Cause)


def test_every_row_of_the_error_table_has_a_test_or_a_reason() -> None:
    played = {row.number for row in (*ROWS, *RFC7306_ROWS)} | {case.number for case in CASES}
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


@pytest.mark.parametrize("name", MACHINES)
def test_a_picture_has_every_state_and_every_step_that_leads_to_another(name: str) -> None:
    machine = MACHINES[name]()
    drawn = re.findall(r"<text[^>]*>([^<]*)</text>", picture(name))
    assert {escape(state) for state in machine.states} <= set(drawn)
    for (state, step), outcome in machine.moves.items():
        assert outcome.state == state or escape(step) in " ".join(drawn), step


def test_the_picture_of_the_connection_is_that_of_the_codes_table() -> None:
    machine = MACHINES["connection"]()
    assert set(machine.states) == {state.value for state in State}
    assert len(machine.moves) == len(TRANSITIONS)
    rows = [line.strip("| ").split(" | ") for line in steps_of_connection().splitlines()[2:]]
    told = {(origin, row[0], row[2]) for row in rows for origin in row[1].split(", ")}
    assert told == {(source.value, step.value, target.value) for (source, step), target in TRANSITIONS.items()}


def test_a_state_without_a_place_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    layout = LAYOUTS["window"]
    places = {state: place for state, place in layout.places.items() if state != "bound"}
    monkeypatch.setitem(LAYOUTS, "window", replace(layout, places=places))
    with pytest.raises(KeyError, match="bound"):
        picture("window")


def test_exploring_finds_the_states_of_memory_objects_that_ndkpi_has() -> None:
    """What NDKPI's pages say of the states of regions and windows, beside what the objects have been seen to do."""
    fast = MACHINES["fast-register region"]()
    assert fast.moves["invalid", "fast_register"].state == "valid"
    for step in ("invalidate", "peer's send_and_invalidate", "read with local invalidate"):
        assert fast.moves["valid", step].state == "invalid"
    window = MACHINES["window"]()
    assert window.moves["invalid", "bind"].state == "bound"
    assert window.moves["bound", "bind"].refusal
    assert window.moves["bound", "peer's send_and_invalidate"].state == "invalid"
    region = MACHINES["region"]()
    assert region.moves["registered", "deregister"].state == "not registered"
    assert region.moves["registered", "register"].refusal


@pytest.mark.parametrize(
    ("first", "second", "result"),
    [
        ("ANY", "ANY", "ANY"),
        ("ANY", "ERRORS", "ANY"),
        ("ANY", "SOLICITED", "ANY"),
        ("ERRORS", "ANY", "ANY"),
        ("ERRORS", "ERRORS", "ERRORS"),
        ("ERRORS", "SOLICITED", "SOLICITED"),
        ("SOLICITED", "ANY", "ANY"),
        ("SOLICITED", "ERRORS", "SOLICITED"),
        ("SOLICITED", "SOLICITED", "SOLICITED"),
    ],
)
def test_the_arm_as_drawn_is_that_of_r_arm_7(first: str, second: str, result: str) -> None:
    assert MACHINES["arm"]().moves[f"armed {first}", f"arm({second})"].state == f"armed {result}"


def test_the_deferral_as_drawn_is_that_of_the_rules() -> None:
    """R-DEFER-3, -5, -7; A-3 for what comes after the end."""
    moves = MACHINES["deferral"]().moves
    assert moves["nothing held back", "post with DEFER"].state == "held back"
    assert moves["held back", "post with DEFER"].state == "held back"
    for step in ("post without DEFER", "post that raises", "post with DEFER that fills the queue"):
        assert moves["held back", step].state == "nothing held back", step
    for state in ("nothing held back", "held back"):
        assert moves[state, "flush"].state == moves[state, "the connection fails"].state == "posts are cancelled"
        assert moves[state, "disconnect"].state == "posts are refused"
    assert "CONNECTION_INVALID" in moves["posts are refused", "post without DEFER"].refusal


def test_the_tutorials_picture_shows_a_put_and_a_get_with_windows_and_remote_invalidation() -> None:
    """What the tutorial's text says of the two requests."""
    drawn = re.findall(r'<text class="label"[^>]*>([^<]*)</text>', store_picture.picture())
    kinds = [re.split("[:,]", words)[0] for words in drawn]
    put = ["Send", "RDMA Read Request", "RDMA Read Response", "Send with Invalidate"]
    get = ["Send", "RDMA Write", "Send with Invalidate"]
    assert kinds == put + get
    assert (
        sum("lends a token" in words for words in drawn) == sum("takes the token back" in words for words in drawn) == 2
    )
