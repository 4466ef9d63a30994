"""The mutations that show the worth of the rules' tests: they fit the code as it is, and every one is noticed."""

import subprocess
import sys
from pathlib import Path

import pytest

from scripts.rule_proofs import proofs
from scripts.rules_mutants import MUTANTS, Mutant
from softndk.conformance.rules import all_rules

ROOT = Path(__file__).parents[2]


@pytest.mark.parametrize("mutant", MUTANTS, ids=lambda mutant: f"{mutant.rule}: {mutant.what}")
def test_a_mutation_fits_the_code_and_names_a_rule_with_tests(mutant: Mutant) -> None:
    text = (ROOT / "src" / "softndk" / mutant.file).read_text(encoding="utf-8")
    assert mutant.applied_to(text) != text
    assert mutant.rule in all_rules()
    assert proofs().tests[mutant.rule]


def test_the_mutations_break_more_than_twenty_rules() -> None:
    assert len({mutant.rule for mutant in MUTANTS}) > 20


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_every_mutation_is_noticed() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "scripts.rules_mutants"], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
