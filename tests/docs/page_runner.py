"""Runs the blocks of one page in order, as a reader would, and compares what they print with what the page shows."""

import contextlib
import doctest
import io
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

from tests.docs.markdown_pages import ROOT, Block, section

_CHECKER = doctest.OutputChecker()


def assert_shown(want: str, got: str, where: str) -> None:
    """Compare, as doctest does: ``...`` stands for anything, runs of white space count as one space."""
    options = doctest.ELLIPSIS | doctest.NORMALIZE_WHITESPACE
    assert _CHECKER.check_output(want, got, options), f"{where} shows\n{want}\nbut this came:\n{got}"


class PageRunner:
    """The state of one page: names that its python blocks have made, and what the last of them has printed.

    `folder` is the current directory of everything that runs.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._names: dict[str, Any] = {"__name__": "__page__"}
        self._printed: str | None = None

    def run(self, block: Block) -> None:
        """Carry out one block; whatever it raises comes out."""
        if block.skipped:
            return
        if block.language == "python" and block.marks == "test":
            self._run_test(block)
        elif block.language == "python":
            self._run_python(block)
        elif block.language == "console":
            self._run_console(block)
        elif block.language == "text" and block.marks == "output":
            assert self._printed is not None, f"{block.where}: there is no python block before this output"
            assert_shown(block.text, self._printed, block.where)
            self._printed = None

    def _run_python(self, block: Block) -> None:
        file = block.mark("file")
        if file is not None:
            path, _, part = file.partition("#")
            assert block.text == section(ROOT / path, part), f"{block.where} differs from part [{part}] of {path}"
        source = "\n" * (block.line - 1) + block.text  # so that a traceback names the page's lines
        out = io.StringIO()
        with contextlib.chdir(self._folder), contextlib.redirect_stdout(out):
            exec(compile(source, str(block.page), "exec"), self._names)
        self._printed = out.getvalue()

    def _run_test(self, block: Block) -> None:
        path = self._folder / f"test_line_{block.line}.py"
        path.write_text(block.text, encoding="utf-8")
        done = self._shell([sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", str(path)])
        assert done.returncode == 0, f"{block.where}:\n{done.stdout}"
        self._printed = done.stdout

    def _run_console(self, block: Block) -> None:
        command: str | None = None
        want: list[str] = []
        for line in [*block.text.splitlines(), "$ "]:
            if not line.startswith("$ "):
                want.append(line)
                continue
            if command is not None:
                done = self._shell(["sh", "-c", command])
                assert_shown("".join(f"{item}\n" for item in want), done.stdout, f"{block.where}: `{command}`")
            command, want = line[2:], []

    def _shell(self, arguments: list[str]) -> subprocess.CompletedProcess[str]:
        tools = Path(sys.executable).parent
        environment = os.environ | {"PATH": f"{tools}{os.pathsep}{os.environ['PATH']}", "COLUMNS": "118"}
        return subprocess.run(
            arguments,
            cwd=self._folder,
            env=environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=60,
            check=False,
        )
