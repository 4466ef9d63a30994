"""Parts of documents that are made from the code: where they stand in a page, and how they are brought up to date.

A page holds a part between two lines::

    <!-- generated: NAME, by scripts/docs/SCRIPT.py -->
    <!-- end of NAME -->

A script of this folder gives its parts as a `Page`. Run as a program it writes them into the page; with ``--check`` it
writes nothing and fails if the page is not up to date. Knows nothing of what the parts contain.
"""

import sys
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

ROOT: Final = Path(__file__).parents[2]


@dataclass(frozen=True, slots=True)
class Generated:
    """What is made from the code. `path`: from the project's root. `script`: which script of this folder makes it."""

    path: str
    script: str

    @property
    def file(self) -> Path:
        return ROOT / self.path

    def current(self) -> str:
        """The file as it stands; "" if there is none."""
        return self.file.read_text(encoding="utf-8") if self.file.exists() else ""

    def fresh(self) -> str:
        """The file as it has to be."""
        raise NotImplementedError

    def main(self) -> int:
        """Write or check, as the command line asks; the result is the exit status."""
        fresh = self.fresh()
        if fresh == self.current():
            print(f"{self.path}: up to date")
            return 0
        if "--check" in sys.argv[1:]:
            print(f"{self.path}: not up to date; run python -m scripts.docs.{self.script}", file=sys.stderr)
            return 1
        self.file.parent.mkdir(parents=True, exist_ok=True)
        self.file.write_text(fresh, encoding="utf-8")
        print(f"{self.path}: written")
        return 0


@dataclass(frozen=True, slots=True)
class Page(Generated):
    """One document with generated parts. `parts`: makes the text of each, by name."""

    parts: Callable[[], dict[str, str]]

    def fresh(self) -> str:
        """The page as it has to be. Raises ValueError: the page lacks the lines that enclose a part."""
        text = self.current()
        for name, part in self.parts().items():
            text = _replaced(text, name, self.script, part, self.path)
        return text


@dataclass(frozen=True, slots=True)
class File(Generated):
    """A file that is generated as a whole, such as a picture."""

    make: Callable[[], str]

    def fresh(self) -> str:
        """The file as it has to be."""
        return self.make()


def _replaced(text: str, name: str, script: str, part: str, page: str) -> str:
    begin = f"<!-- generated: {name}, by scripts/docs/{script}.py -->\n"
    end = f"<!-- end of {name} -->\n"
    before, found_begin, rest = text.partition(begin)
    _, found_end, after = rest.partition(end)
    if not found_begin or not found_end:
        raise ValueError(f"{page}: lacks the lines\n{begin}{end}")
    return f"{before}{begin}\n{part.strip()}\n\n{end}{after}"


def table(head: Sequence[str], rows: Iterable[Sequence[object]]) -> str:
    """A Markdown table. Bars in cells are escaped."""
    lines = [f"| {' | '.join(head)} |", f"|{'---|' * len(head)}"]
    for row in rows:
        cells = [str(cell).replace("|", "\\|").replace("\n", " ") for cell in row]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def first_sentence(text: str | None) -> str:
    """The first sentence of a docstring, on one line, without its full stop."""
    if not text:
        return ""
    paragraph = " ".join(text.strip().split("\n\n")[0].split())
    for index, letter in enumerate(paragraph):
        if letter == "." and (index + 1 == len(paragraph) or paragraph[index + 1] == " "):
            if paragraph[:index].endswith(("e.g", "i.e")):
                continue
            return paragraph[:index]
    return paragraph
