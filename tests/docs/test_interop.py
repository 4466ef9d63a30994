"""The page about Linux names the tests that are there, all of them, and tells of a whole run without failures."""

import ast
import json
import re
from pathlib import Path

import pytest

from scripts.interop import matrix
from tests.docs.markdown_pages import ROOT

TEXT = matrix.PAGE.read_text(encoding="utf-8")
FOUND = {
    "date": "2026-01-02",
    "softndk": "1.0",
    "versions": {"linux": "6.1 (6.1-1)", "perftest": "4"},
    "accelerator": "kvm",
}
ROW = {
    "program": "p",
    "direction": "d",
    "variant": "v",
    "detail": "1 x 2",
    "result": "passed",
    "seconds": 1.5,
    "test": "t",
}


def names_in(pattern: str) -> set[str]:
    names: set[str] = set()
    for path in (ROOT / "tests/interop").glob(pattern):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.FunctionDef) and node.name.startswith("test_"):
                names.add(node.name)
    return names


def test_every_test_that_the_page_names_exists() -> None:
    named = set(re.findall(r"`(test_\w+)`", TEXT))
    assert named
    assert named <= names_in("test_*.py")


def test_every_departure_that_is_tested_is_on_the_page() -> None:
    assert {name for name in names_in("test_siw.py") if f"`{name}`" not in TEXT} == set()


def test_the_page_tells_of_a_whole_run() -> None:
    results = TEXT.partition(matrix.BEGIN)[2].partition(matrix.END)[0]
    counts = re.search(r"^(\d+) of (\d+) passed, in \d+ s\.$", results, re.MULTILINE)
    assert counts is not None
    assert counts[1] == counts[2]
    assert int(counts[1]) >= matrix.WHOLE


def test_a_row_for_each_program_and_direction() -> None:
    rows = [ROW, {**ROW, "detail": "3 x 4"}, {**ROW, "variant": "w", "result": "failed"}, {**ROW, "direction": "e"}]
    assert matrix.lines({**FOUND, "results": rows}) == [
        "Run on 2026-01-02: softndk 1.0 with Linux 6.1 (6.1-1), perftest 4; the guest under KVM.",
        "3 of 4 passed, in 6 s.",
        "",
        "| Program | Who connects | v | w | What |",
        "|---|---|---|---|---|",
        "| p | d | 2 | **0 of 1** | 1 x 2; 3 x 4 |",
        "| p | e | 1 |  | 1 x 2 |",
    ]


def test_many_cases_are_counted() -> None:
    rows = [{**ROW, "detail": str(number)} for number in range(matrix.NAMED + 1)]
    assert matrix.lines({**FOUND, "results": rows})[-1] == f"| p | d | {len(rows)} | {len(rows)} cases |"


@pytest.mark.parametrize(
    "rows", [[ROW], [*[ROW] * matrix.WHOLE, {**ROW, "result": "failed"}]], ids=["partial", "failures"]
)
def test_a_partial_or_failed_run_is_not_written(
    rows: list[dict[str, object]], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    results = tmp_path / "results.json"
    results.write_text(json.dumps({**FOUND, "results": rows}), encoding="utf-8")
    monkeypatch.setattr(matrix, "RESULTS", results)
    before = matrix.PAGE.read_bytes()
    assert matrix.main() == 1
    assert matrix.PAGE.read_bytes() == before
