"""docs/reference/security.md: every line of the check-list has a test that exists, or a stated reason."""

import ast
import re
from functools import cache

import pytest

from tests.docs.markdown_pages import ROOT

PAGE = ROOT / "docs/reference/security.md"


def rows() -> list[tuple[str, str, str]]:
    found = []
    for line in PAGE.read_text(encoding="utf-8").splitlines():
        cells = [cell.strip() for cell in line.strip("|").split("|")]
        if line.startswith("|") and len(cells) == 3 and cells[0] != "What must hold" and set(cells[0]) != {"-"}:
            found.append((cells[0], cells[1], cells[2]))
    return found


@cache
def known(path: str) -> frozenset[str]:
    """Names as pytest gives them, without parameters."""
    tree = ast.parse((ROOT / path).read_text(encoding="utf-8"))
    names = set()
    for item in tree.body:
        if isinstance(item, ast.FunctionDef):
            names.add(item.name)
        elif isinstance(item, ast.ClassDef):
            names |= {f"{item.name}::{part.name}" for part in item.body if isinstance(part, ast.FunctionDef)}
    return frozenset(names)


def test_the_check_list_is_there() -> None:
    assert len(rows()) > 40


@pytest.mark.parametrize("row", rows(), ids=lambda row: row[0][:40])
def test_a_line_of_the_check_list_has_a_test_that_exists_or_a_reason(row: tuple[str, str, str]) -> None:
    proofs = re.findall(r"`([^`]+)`", row[2])
    assert proofs or row[2].startswith("reason: ")
    for proof in proofs:
        path, _, name = proof.partition("::")
        assert (ROOT / path).is_file(), proof
        if path.startswith("scripts/proofs/"):
            assert not name
        else:
            assert re.search(r"(^|::)test_", name), proof
            assert name in known(path), proof
