"""Runs the blocks of one page in order, as a reader would, and compares what they print with what the page shows."""

import ast
import contextlib
import doctest
import io
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any, Final

from tests.docs.markdown_pages import ROOT, Block, section

_CHECKER: Final = doctest.OutputChecker()
_VARIES: Final = tuple(
    (re.compile(pattern), mask)
    for pattern, mask in (
        (r"0x[0-9a-f]{4}\*{4}", "(token)"),
        (r"0x[0-9a-f]{7,16}\b", "(number)"),
        (r"((?:127\.0\.0\.\d+|\[?::1\]?)(?::|', ))\d{4,5}\b", r"\1(port)"),
        (r"\b\d+\.\d{6}\b", "(seconds)"),
        (r"\b\d+\.\d+ ms\b", "(time)"),
        (r"\b[0-9a-f]{2} (?:(?:[0-9a-f]{2}|\*\*) ){6,}[0-9a-f]{2}\b", "(octets)"),
        (r"\b\d+\.\d+s\b", "(duration)"),
        (r"\badapter\d+\b", "(adapter)"),
    )
)
"""What differs from run to run: tokens, addresses, ports, times, numbers of adapters (others may be open)."""
_SWAPPED: Final = 3


def masked(text: str) -> str:
    """`text` with everything that differs from run to run made equal."""
    for pattern, mask in _VARIES:
        text = pattern.sub(mask, text)
    return text


def assert_shown(want: str, got: str, where: str) -> None:
    """Compare, as doctest does: ``...`` stands for anything, runs of white space count as one space. Tokens, addresses,
    ports and times may differ.
    """
    options = doctest.ELLIPSIS | doctest.NORMALIZE_WHITESPACE
    assert _CHECKER.check_output(masked(want), masked(got), options), f"{where} shows\n{want}\nbut this came:\n{got}"


def assert_contains(want: str, got: str, where: str) -> None:
    """The lines of `want` are in `got` in this order, whatever lies between them (``...`` tells the reader so).

    Where two processes tell their story at once, a line may come up to `_SWAPPED` lines before its predecessor.
    """
    have: list[str | None] = [" ".join(line.split()) for line in masked(got).splitlines()]
    place = 0
    for line in masked(want).splitlines():
        wanted = " ".join(line.split())
        if wanted in ("", "..."):
            continue
        start = max(0, place - _SWAPPED)
        assert wanted in have[start:], f"{where}: {line!r} is missing or comes too early in\n{got}"
        found = have.index(wanted, start)
        have[found] = None
        place = max(place, found + 1)


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
        elif block.language == "python" and block.marks == "signature":
            ast.parse(block.text)
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
                compare = assert_contains if block.marks == "cut" else assert_shown
                compare("".join(f"{item}\n" for item in want), done.stdout, f"{block.where}: `{command}`")
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
