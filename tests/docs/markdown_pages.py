"""The documents as the tests see them: fenced blocks with what their info string asks for, headings and links.

Knows the few marks that this project puts behind a fence's language, and nothing of what is done with them:

    python               runs; the python blocks of a page are one program, from top to bottom
    python file=F#part   the same, and equals the part of that name in the file F
    python test          a test module, given to pytest
    python signature     the head of a definition, made from the code; it only has to be Python
    console              each line that begins with "$ " is run in a shell, the lines below it are its output
    console cut          the same, of which the page shows some lines
    text output          what the python block before it has printed
    text message=name    a message that tests/docs/failures.py can provoke
    no-run: reason       (behind python or console) is not run, and why
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

ROOT: Final = Path(__file__).parents[2]
FENCE: Final = re.compile(r"^```(\S*)[ \t]*(.*)$")
_LINK: Final = re.compile(r"(?<!!)\[(?:[^\[\]]|\[[^\]]*\])*\]\(([^()\s]+)\)")
_PICTURE: Final = re.compile(r"!\[([^\]]*)\]\(([^()\s]+)\)")
_CODE: Final = re.compile(r"`[^`\n]*(?:\n(?!\n)[^`\n]*)?`")
_HEADING: Final = re.compile(r"^#{1,6} +(.*?)\s*$")


@dataclass(frozen=True, slots=True)
class Block:
    """One fenced block. `line`: of its first line of text, from 1. `marks`: what stands behind the language."""

    page: Path
    line: int
    language: str
    marks: str
    text: str

    @property
    def where(self) -> str:
        return f"{self.page.relative_to(ROOT)}:{self.line}"

    @property
    def skipped(self) -> bool:
        return self.marks.startswith("no-run:")

    def mark(self, name: str) -> str | None:
        """The value of ``name=value`` among the marks."""
        found = re.search(rf"(?:^|\s){name}=(\S+)", self.marks)
        return found[1] if found else None


def pages() -> list[Path]:
    """Every document, README first."""
    return [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").rglob("*.md"))]


def blocks(page: Path) -> list[Block]:
    """The fenced blocks of a page, in order. Raises ValueError if one is not closed."""
    found: list[Block] = []
    fence: re.Match[str] | None = None
    start = 0
    held: list[str] = []
    for number, line in enumerate(page.read_text(encoding="utf-8").splitlines(), 1):
        if fence is None:
            fence = FENCE.match(line)
            start, held = number + 1, []
        elif line.rstrip() == "```":
            found.append(Block(page, start, fence[1], fence[2].strip(), "".join(f"{item}\n" for item in held)))
            fence = None
        else:
            held.append(line)
    if fence is not None:
        raise ValueError(f"{page}: the block that begins in line {start} is not closed")
    return found


def prose(page: Path) -> Iterator[tuple[int, str]]:
    """The lines outside fenced blocks, with their numbers."""
    inside = False
    for number, line in enumerate(page.read_text(encoding="utf-8").splitlines(), 1):
        if line.startswith("```"):
            inside = not inside
        elif not inside:
            yield number, line


def links(page: Path) -> list[tuple[int, str]]:
    """Line and target of every link outside code; the words of a link may be on several lines."""
    lines = dict(prose(page))
    text = "\n".join(lines.get(number, "") for number in range(1, max(lines, default=0) + 1))
    text = _CODE.sub(lambda code: re.sub(r"[^\n]", "_", code[0]), text)
    return [(text.count("\n", 0, found.start()) + 1, found[1]) for found in _LINK.finditer(text)]


def pictures(page: Path) -> list[tuple[int, str, str]]:
    """Line, words and target of every picture outside code."""
    return [(number, found[1], found[2]) for number, line in prose(page) for found in _PICTURE.finditer(line)]


def anchors(page: Path) -> set[str]:
    """The names that headings get: lower case, punctuation gone, spaces to hyphens; the second of a name gets "-1"."""
    found: set[str] = set()
    for _, line in prose(page):
        heading = _HEADING.match(line)
        if heading:
            text = re.sub(r"\[([^\]]*)\]\([^)]*\)", r"\1", heading[1]).lower()
            base = re.sub(r"[^\w\- ]", "", text).replace(" ", "-")
            name, count = base, 0
            while name in found:
                count += 1
                name = f"{base}-{count}"
            found.add(name)
    return found


def section(path: Path, name: str) -> str:
    """The lines between ``# [name]`` and the next such mark of an example file, without empty lines around them."""
    held: list[str] | None = None
    for line in path.read_text(encoding="utf-8").splitlines():
        mark = re.fullmatch(r"# \[(.+)\]", line)
        if mark and held is not None:
            break
        if mark and mark[1] == name:
            held = []
        elif held is not None:
            held.append(line)
    if held is None:
        raise ValueError(f"{path}: has no part [{name}]")
    return "\n".join(held).strip("\n") + "\n"
