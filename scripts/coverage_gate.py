"""Fail when the branch coverage of the protocol core is too low.

Reads the JSON report of coverage.py. Prints, for each package measured, the share of branches and of lines
that ran; fails when the branches of one package, or its lines, stay under the minimum. coverage.py's own
threshold mixes lines and branches of everything into one number, in which a weak package can hide.

    python scripts/coverage_gate.py coverage.json --minimum 95
"""

import argparse
import json
import sys
from collections import Counter, defaultdict
from pathlib import Path, PurePath
from typing import Any

COUNTERS = ("covered_branches", "num_branches", "covered_lines", "num_statements")


def main() -> int:
    """Print the table; the exit status is 1 if a package is under the minimum or nothing was measured."""
    parser = argparse.ArgumentParser(description="Check the branch coverage of each package.")
    parser.add_argument("report", type=Path)
    parser.add_argument("--minimum", type=float, required=True, metavar="PERCENT")
    arguments = parser.parse_args()

    packages = totals_by_package(json.loads(arguments.report.read_text(encoding="utf-8")))
    if not packages:
        print(f"{arguments.report}: nothing was measured", file=sys.stderr)
        return 1
    low = False
    for package, totals in sorted(packages.items()):
        branches = percent(totals["covered_branches"], totals["num_branches"])
        lines = percent(totals["covered_lines"], totals["num_statements"])
        verdict = "" if min(branches, lines) >= arguments.minimum else f"  under {arguments.minimum:g} %"
        low = low or bool(verdict)
        print(f"{package:<24} branches {branches:6.2f} %  lines {lines:6.2f} %{verdict}")
    return int(low)


def totals_by_package(report: dict[str, Any]) -> dict[str, Counter[str]]:
    """Sum up the files' counters, for each folder."""
    packages: defaultdict[str, Counter[str]] = defaultdict(Counter)
    for name, file in report["files"].items():
        folder = packages[str(PurePath(name).parent)]
        for counter in COUNTERS:
            folder[counter] += file["summary"][counter]
    return packages


def percent(covered: int, possible: int) -> float:
    """Nothing to cover counts as covered."""
    return 100.0 * covered / possible if possible else 100.0


if __name__ == "__main__":
    sys.exit(main())
