"""The command: a run prints its table, a finding its input and how to see it again; planted bugs fit the code."""

import json
from pathlib import Path

import pytest

from fuzz import __main__ as command
from fuzz import driver
from fuzz.planted import BUGS, Bug
from fuzz.targets import TARGETS, Target


def broken(data: bytes) -> None:
    if len(data) > 5:
        raise IndexError("out of range")


def test_a_run_without_findings(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    outcomes = driver.run(["terminate", "framing"], 0.4, seed=1, guided=False, work=tmp_path)
    driver.show_table(outcomes)
    printed = capsys.readouterr().out
    assert [outcome.target for outcome in outcomes] == ["terminate", "framing"]
    assert all(outcome.executions and not outcome.findings for outcome in outcomes)
    assert "seed 1" in printed
    assert printed.count("terminate") == 2


def test_a_finding(tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    """It is told once however often it happens, its input fails again, and the status says so."""
    target = Target("terminate", broken, (), TARGETS["terminate"].seeds, 1)
    monkeypatch.setitem(TARGETS, "terminate", target)
    monkeypatch.setattr(driver, "WORK", tmp_path)
    outcomes = driver.run(["terminate"], 0.2, seed=1, guided=False, work=tmp_path)
    ((text, path),) = outcomes[0].findings
    assert "IndexError" in text
    driver.show_table(outcomes)
    assert f"python -m fuzz replay {path}" in capsys.readouterr().out
    assert command.main(["replay", str(path)]) == 1
    assert "terminate fails" in capsys.readouterr().out
    monkeypatch.undo()
    assert command.main(["replay", str(path)]) == 0


def test_json(tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(driver, "WORK", tmp_path)
    assert command.main(["run", "--seconds", "0.1", "--unguided", "--json", "terminate"]) == 0
    (outcome,) = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert outcome["target"] == "terminate"
    assert outcome["executions"] > 0
    assert outcome["findings"] == []


def test_unknown_target() -> None:
    with pytest.raises(SystemExit):
        command.main(["run", "--seconds", "1", "nothing"])


@pytest.mark.parametrize("bug", BUGS, ids=lambda bug: bug.name)
def test_planted_bugs_fit(bug: Bug) -> None:
    text = (driver.ROOT / "src" / "softndk" / bug.file).read_text(encoding="utf-8")
    assert bug.applied_to(text) != text
