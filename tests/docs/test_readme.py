"""The README: its program works as it stands in a fresh process, and its size is as announced."""

import subprocess
import sys
import tomllib
from pathlib import Path

from tests.docs.markdown_pages import ROOT, blocks
from tests.docs.page_runner import assert_shown

README = ROOT / "README.md"


def test_the_program_of_the_readme_prints_what_the_readme_shows(tmp_path: Path) -> None:
    found = blocks(README)
    at = next(index for index, block in enumerate(found) if block.language == "python")
    program, shown = found[at], found[at + 1]
    assert (shown.language, shown.marks) == ("text", "output")
    file = tmp_path / "snippet.py"
    file.write_text(program.text, encoding="utf-8")
    done = subprocess.run(
        [sys.executable, "-W", "error", str(file)], capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    assert_shown(shown.text, done.stdout, program.where)


def test_the_program_of_the_readme_is_about_twenty_lines() -> None:
    program = next(block for block in blocks(README) if block.language == "python")
    assert len([line for line in program.text.splitlines() if line.strip()]) <= 24


def test_the_package_shows_the_readme() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    assert project["readme"] == "README.md"
