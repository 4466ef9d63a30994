"""The conformance suite as a product: run from elsewhere, against good and bad providers, with its matrix."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from softndk.conformance.matrix import Case, Matrix, Outcome
from softndk.conformance.rules import all_rules

ROOT = Path(__file__).parents[2]


def run(tmp_path: Path, *arguments: str, provider: str | None = None) -> tuple[int, str, dict[str, Any]]:
    """Run the installed suite from another folder; exit status, what was printed, the matrix."""
    matrix = tmp_path / "matrix.json"
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "--pyargs", "softndk.conformance"]
    command += [f"--ndk-matrix={matrix}", *arguments]
    if provider is not None:
        command.append(f"--ndk-provider={provider}")
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "CI": ""}
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False)
    data = json.loads(matrix.read_text(encoding="utf-8")) if matrix.exists() else {}
    return done.returncode, done.stdout + done.stderr, data


def test_the_suite_runs_from_anywhere_and_prints_its_matrix(tmp_path: Path) -> None:
    status, told, data = run(tmp_path, "-k", "test_listeners")
    assert status == 0, told
    assert "NDKPI conformance" in told
    assert "provider: softndk iWARP" in told
    assert data["topics"]["Listeners"]["supported"] > 5
    assert data["topics"]["Listeners"]["advertised but fails"] == 0
    assert data["rules"]["R-PAUSE-1"] == "supported"
    assert data["adapter"]["max_cq_depth"] > 0


def test_a_feature_that_is_not_advertised_has_to_be_refused_cleanly(tmp_path: Path) -> None:
    status, told, data = run(tmp_path, "-k", "test_srq", provider="tests.rules.lying_providers:without_srq")
    assert status == 0, told
    cases = data["topics"]["Shared receive queues"]
    assert cases["refused cleanly"] > 5
    assert cases["supported"] == cases["advertised but fails"] == 0
    assert {case["outcome"] for case in data["cases"]} == {"refused cleanly"}
    assert {tuple(case["missing"]) for case in data["cases"]} == {("shared receive queues",)}


@pytest.mark.parametrize("provider", ["advertises_too_much", "advertises_too_little"])
def test_a_provider_that_does_not_do_what_it_advertises_fails(tmp_path: Path, provider: str) -> None:
    status, told, data = run(tmp_path, "-k", "test_srq", provider=f"tests.rules.lying_providers:{provider}")
    assert status == 1, told
    cases = data["topics"]["Shared receive queues"]
    assert cases["advertised but fails"] > 5
    assert cases["supported"] == cases["refused cleanly"] == 0
    assert data["rules"]["R-SRQ-3"] == "advertised but fails"


@pytest.mark.parametrize(
    "provider",
    ["tests.rules.lying_providers:nothing", "no.such.module:factory", "nonsense", "os:path", "os:getcwd"],
)
def test_a_provider_that_is_not_there_or_is_none_is_a_usage_error(tmp_path: Path, provider: str) -> None:
    status, told, _ = run(tmp_path, "-k", "test_listeners", provider=provider)
    assert status == pytest.ExitCode.USAGE_ERROR, told
    assert provider in told


@pytest.mark.parametrize(
    ("provider", "error"),
    [
        ("cannot_be_made", "RuntimeError: the driver is not loaded"),
        ("opens_nothing", "OSError: no such device"),
        ("tells_no_info", "NotImplementedError: query_info is not there yet"),
    ],
)
def test_a_provider_that_fails_before_the_first_case_is_told_with_its_error_and_place(
    tmp_path: Path, provider: str, error: str
) -> None:
    status, told, data = run(tmp_path, "-k", "test_listeners", provider=f"tests.rules.lying_providers:{provider}")
    assert status == pytest.ExitCode.USAGE_ERROR, told
    assert error in told
    assert "lying_providers.py:" in told
    assert "INTERNALERROR" not in told
    assert not data


def test_the_matrix_counts_a_case_once_a_topic_and_a_rule_by_its_worst_case() -> None:
    matrix = Matrix("somebody's", {}, all_rules())
    matrix.cases = [
        Case("good", ("R-ARM-1", "R-ARM-2", "R-MOD-1"), (), passed=True),
        Case("refused", ("R-MOD-1",), ("interrupt moderation",), passed=True),
        Case("bad", ("R-ARM-2",), (), passed=False),
        Case("bad refusal", ("R-MOD-2",), ("interrupt moderation",), passed=False),
        Case("skipped", ("R-ARM-1",), (), passed=False, skipped=True),
    ]
    rows = {topic: dict(counts) for topic, counts in matrix.rows() if counts}
    assert rows == {
        "Arming": {Outcome.SUPPORTED: 1, Outcome.FAILS: 1, Outcome.SKIPPED: 1},
        "Interrupt moderation": {Outcome.SUPPORTED: 1, Outcome.REFUSED: 1, Outcome.FAILS: 1},
    }
    assert matrix.by_rule() == {
        "R-MOD-1": Outcome.REFUSED,
        "R-MOD-2": Outcome.FAILS,
        "R-ARM-1": Outcome.SUPPORTED,
        "R-ARM-2": Outcome.FAILS,
    }
    lines = matrix.lines()
    assert lines[0] == "provider: somebody's"
    assert any(line.split() == ["Arming", "1", "-", "1", "1"] for line in lines)


def test_the_matrix_names_each_rule_that_fails_with_its_words_and_cases() -> None:
    matrix = Matrix("somebody's", {}, all_rules())
    matrix.cases = [
        Case("test_arm.py::test_one[1-plain]", ("R-ARM-1", "R-ARM-2"), (), passed=False),
        Case("test_arm.py::test_one[2-plain]", ("R-ARM-1", "R-ARM-2"), (), passed=False),
        Case("test_arm.py::test_two", ("R-ARM-2",), (), passed=False),
        Case("test_arm.py::test_three", ("R-ARM-2", "R-ARM-3"), (), passed=True),
        Case("test_arm.py::test_four", ("R-ARM-4",), (), passed=False, skipped=True),
    ]
    lines = matrix.lines()
    says = all_rules()
    assert lines[-5:] == [
        f"R-ARM-1 fails: {says['R-ARM-1'].says}",
        "    test_one",
        f"R-ARM-2 fails: {says['R-ARM-2'].says}",
        "    test_one",
        "    test_two",
    ]
    matrix.cases = matrix.cases[3:]
    assert not any("fails:" in line for line in matrix.lines())
