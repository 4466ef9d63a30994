"""The table of docs/reference/interop.md, from the results that `make interop` has left.

`python -m scripts.interop.matrix` puts it between the page's two marks. A run that was partial or had failures is
refused: the page tells of whole runs.
"""

import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

ROOT: Final = Path(__file__).parents[2]
PAGE: Final = ROOT / "docs/reference/interop.md"
RESULTS: Final = ROOT / "interop-results.json"
BEGIN: Final = "<!-- results: by scripts/interop/matrix.py -->\n"
END: Final = "<!-- end of results -->\n"
ELSEWHERE: Final = "softndk peer"
"""Its scenarios have a page of their own, docs/reference/peer-siw.md."""
NAMED: Final = 12
"""Cases of a program that are told one by one; more are counted."""
WHOLE: Final = 150
"""Rows that a whole run has at least."""


def lines(found: dict[str, Any]) -> list[str]:
    """What met what, then a row for each program and direction, a column for each variant, in the order of the run."""
    rows = rows_of(found)
    versions = found["versions"]
    variants = list(dict.fromkeys(row["variant"] for row in rows))
    others = ", ".join(
        f"{name} {version}" for name, version in versions.items() if name in ("rdmacm-utils", "perftest")
    )
    passed = sum(row["result"] == "passed" for row in rows)
    seconds = sum(row["seconds"] for row in rows)
    text = [
        f"Run on {found['date']}: softndk {found['softndk']} with Linux {versions['linux']}, {others}; the guest under"
        f" {found['accelerator'].upper()}.",
        f"{passed} of {len(rows)} passed, in {seconds:.0f} s.",
        "",
        _row(["Program", "Who connects", *variants, "What"]),
        "|" + "---|" * (len(variants) + 3),
    ]
    for program, direction in dict.fromkeys((row["program"], row["direction"]) for row in rows):
        group = [row for row in rows if (row["program"], row["direction"]) == (program, direction)]
        cells = [_cell([row["result"] for row in group if row["variant"] == variant]) for variant in variants]
        details = list(dict.fromkeys(row["detail"] for row in group if row["detail"]))
        what = "; ".join(details) if len(details) <= NAMED else f"{len(details)} cases"
        text.append(_row([program, direction, *cells, what]))
    return text


def rows_of(found: dict[str, Any]) -> list[dict[str, Any]]:
    """The rows of the programs that this page is about."""
    return [row for row in found["results"] if row["program"] != ELSEWHERE]


def _cell(results: Sequence[str]) -> str:
    passed = sum(result == "passed" for result in results)
    if not results:
        return ""
    return f"{passed}" if passed == len(results) else f"**{passed} of {len(results)}**"


def _row(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cells)} |"


def main() -> int:
    """Write the page; the exit status."""
    found = json.loads(RESULTS.read_text(encoding="utf-8"))
    rows = rows_of(found)
    if len(rows) < WHOLE:
        print(f"{RESULTS.name} has {len(rows)} rows, of a partial run; run `make interop`", file=sys.stderr)
        return 1
    if any(row["result"] != "passed" for row in rows):
        print(f"{RESULTS.name} tells of failures; the page is not written", file=sys.stderr)
        return 1
    before, _, rest = PAGE.read_text(encoding="utf-8").partition(BEGIN)
    after = rest.partition(END)[2]
    if not after:
        print(f"{PAGE} lacks the lines\n{BEGIN}{END}", file=sys.stderr)
        return 1
    PAGE.write_text(before + BEGIN + "\n" + "\n".join(lines(found)) + "\n\n" + END + after, encoding="utf-8")
    print(f"{PAGE.relative_to(ROOT)}: written")
    return 0


if __name__ == "__main__":
    sys.exit(main())
