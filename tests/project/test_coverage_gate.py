"""The gate that `make cov` ends with: it must notice one weak package among good ones."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

GATE = Path(__file__).parents[2] / "scripts" / "coverage_gate.py"


def summary(branches: int, lines: int) -> dict[str, dict[str, int]]:
    """One file's counters in the report of coverage.py, out of a hundred each."""
    counters = {"covered_branches": branches, "num_branches": 100, "covered_lines": lines}
    return {"summary": counters | {"num_statements": 100}}


def run_gate(folder: Path, files: dict[str, dict[str, dict[str, int]]]) -> subprocess.CompletedProcess[str]:
    report = folder / "coverage.json"
    report.write_text(json.dumps({"files": files}), encoding="utf-8")
    command = [sys.executable, str(GATE), str(report), "--minimum", "95"]
    return subprocess.run(command, capture_output=True, text=True, check=False)


def test_good_packages_pass(tmp_path: Path) -> None:
    done = run_gate(tmp_path, {"src/softndk/wire/ddp.py": summary(95, 95)})
    assert done.returncode == 0
    assert "src/softndk/wire" in done.stdout


@pytest.mark.parametrize("weak", [summary(94, 100), summary(100, 94)], ids=["branches", "lines"])
def test_one_weak_package_fails(tmp_path: Path, weak: dict[str, dict[str, int]]) -> None:
    good = {f"src/softndk/wire/{name}.py": summary(100, 100) for name in ("ddp", "mpa", "rdmap")}
    done = run_gate(tmp_path, good | {"src/softndk/iwarp/framing.py": weak})
    assert done.returncode == 1
    [line] = [line for line in done.stdout.splitlines() if "under 95 %" in line]
    assert line.startswith("src/softndk/iwarp ")


def test_files_of_one_package_count_together(tmp_path: Path) -> None:
    files = {"src/softndk/wire/a.py": summary(92, 92), "src/softndk/wire/b.py": summary(98, 98)}
    assert run_gate(tmp_path, files).returncode == 0


def test_nothing_measured_fails(tmp_path: Path) -> None:
    assert run_gate(tmp_path, {}).returncode == 1
