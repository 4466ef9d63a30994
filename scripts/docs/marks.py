"""Finds what the code marks as ``Deviation:`` and ``Choice:`` in docstrings and comments. Knows nothing of pages."""

import ast
import functools
import io
import re
import tokenize
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from scripts.docs.generated import ROOT

__all__ = ["Mark", "decisions_named", "marks"]

SOURCE: Final = ROOT / "src" / "softndk"
KINDS: Final = ("Deviation", "Choice")
_RULE: Final = r"\b(?:(?:R-[A-Z]+|A)-\d+|RFC \d+(?: \d+(?:\.\d+)*)?)\b"


@dataclass(frozen=True, slots=True)
class Mark:
    """One mark. `text`: what it says, on one line. `rules`: the rules and sections of RFCs that it names."""

    kind: str
    text: str
    module: str
    rules: tuple[str, ...]


@functools.cache
def marks() -> tuple[Mark, ...]:
    """Every mark of the code, sorted by module. Raises ValueError: one that names no rule."""
    found = []
    for file in sorted(SOURCE.rglob("*.py")):
        module = ".".join(file.relative_to(SOURCE.parent).with_suffix("").parts)
        for paragraph in _paragraphs(file):
            _, *pieces = re.split(rf"(?:^|(?<=[.;)] ))({'|'.join(KINDS)}): ", paragraph)
            for kind, text in zip(pieces[::2], pieces[1::2], strict=True):
                rules = tuple(re.findall(_RULE, text))
                if not rules:
                    raise ValueError(f"{module}: a mark that names no rule and no RFC: {paragraph}")
                found.append(Mark(kind, text.strip(), module, rules))
    return tuple(found)


@functools.cache
def decisions_named() -> dict[str, list[str]]:
    """The points that NDKPI leaves open (A-n), and the modules that name each."""
    found: dict[str, list[str]] = {}
    for file in sorted(SOURCE.rglob("*.py")):
        if "conformance" in file.parts:
            continue
        module = ".".join(file.relative_to(SOURCE.parent).with_suffix("").parts)
        for name in sorted(set(re.findall(r"\bA-\d+\b", file.read_text(encoding="utf-8")))):
            found.setdefault(name, []).append(module)
    return found


def _paragraphs(file: Path) -> Iterator[str]:
    """Of a file with marks: paragraphs of docstrings, and comments whose lines belong together, each on one line."""
    text = file.read_text(encoding="utf-8")
    if not any(f"{kind}: " in text for kind in KINDS):
        return
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
            for paragraph in (ast.get_docstring(node) or "").split("\n\n"):
                yield " ".join(paragraph.split())
    held: list[str] = []
    last = 0
    for token in tokenize.generate_tokens(io.StringIO(text).readline):
        if token.type != tokenize.COMMENT:
            continue
        words = token.string.lstrip("#").strip()
        if held and token.start[0] == last + 1 and not words.startswith(KINDS):
            held.append(words)
        else:
            yield " ".join(held)
            held = [words]
        last = token.start[0]
    yield " ".join(held)
