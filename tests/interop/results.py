"""What came of the interoperability tests: one row for each, as a table for people and as a file for programs."""

import datetime
import json
from collections import Counter
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import softndk
from tests.interop.cases import Case

__all__ = ["Results", "Row"]


@dataclass(slots=True)
class Row:
    """One test. result: "passed", "failed", "skipped", or "error in setup" or "teardown". seconds: without those two."""

    program: str
    direction: str
    variant: str
    detail: str
    result: str
    seconds: float
    test: str


@dataclass(slots=True)
class Results:
    """Of one run. about: of the guest, once there was one."""

    rows: dict[str, Row] = field(default_factory=dict)
    about: dict[str, Any] = field(default_factory=dict)

    def add(self, case: Case, test: str, when: str, outcome: str, seconds: float) -> None:
        """Take one report of pytest; a test has up to three, of which the worst one counts."""
        if when == "call":
            result = outcome
        elif outcome == "passed":
            return
        else:
            result = f"error in {when}" if outcome == "failed" else outcome
        before = self.rows.get(test)
        self.rows[test] = Row(
            case.program,
            case.active.value,
            case.variant.name,
            case.detail,
            result if before is None or before.result == "passed" else before.result,
            round(seconds, 2) if before is None else before.seconds,
            test,
        )

    def lines(self) -> list[str]:
        """The table, and a sum below it."""
        heads = ["program", "direction", "variant", "detail", "result", "seconds"]
        texts = [
            [row.program, row.direction, row.variant, row.detail, row.result, f"{row.seconds:.2f}"]
            for row in self.rows.values()
        ]
        widths = [max(map(len, column)) for column in zip(heads, *texts, strict=True)]
        table = [
            "  ".join(
                [*(cell.ljust(width) for cell, width in zip(row[:-1], widths, strict=False)), row[-1].rjust(widths[-1])]
            )
            for row in [heads, *texts]
        ]
        counts = Counter(row.result for row in self.rows.values())
        total = sum(row.seconds for row in self.rows.values())
        return [*table, "", ", ".join(f"{count} {result}" for result, count in counts.items()) + f"; {total:.0f} s"]

    def head(self) -> list[str]:
        """What met what."""
        versions = self.about.get("versions", {})
        lines = [f"softndk {softndk.__version__}", *(f"{name} {version}" for name, version in versions.items())]
        if self.about:
            lines.append(f"accelerator {self.about['accelerator']}, booted in {self.about['boot_s']} s")
        return lines

    def write(self, path: Path) -> None:
        """Write a JSON object: date, softndk, versions, accelerator, boot_s, results (a list of rows)."""
        found = {
            "date": datetime.datetime.now(datetime.UTC).date().isoformat(),
            "softndk": softndk.__version__,
            **self.about,
            "results": [asdict(row) for row in self.rows.values()],
        }
        path.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")
