"""Makes docs/reference/error-table.md: every error of the wire, what was sent for it, and what both ends are told.

The octets and statuses are those of a run: each line plays its case (tests/conformance) and names the test that plays it
too. An error without a case and without a stated reason is an error here. Run: ``python -m scripts.docs.error_table`` from
the project's root; ``--check`` only compares.
"""

import sys
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Final

from scripts.docs.generated import Page, table
from tests.conformance.error_cases import CASES, Outcome, of_row
from tests.conformance.error_rows import ROWS
from tests.conformance.rfc7306_rows import RFC7306_ROWS

TEST_FILE: Final = "tests/conformance/test_error_table.py"

ERRORS: Final = {
    1: ("FPDU with a wrong CRC", "MPA"),
    2: ("marker and length disagree", "MPA"),
    3: ("FIN inside an FPDU or message, reset, time-out", "MPA"),
    4: ("malformed start-up frame", "MPA"),
    5: ("segment shorter than its DDP header", "DDP"),
    6: ("DDP version is not 1", "DDP"),
    7: ("RDMAP version is not 1", "RDMAP"),
    8: ("opcode unknown, or not implemented", "RDMAP"),
    9: ("opcode with the wrong model, or on another queue than its own; changed inside a message", "RDMAP"),
    10: ("queue number that does not exist", "DDP"),
    11: ("message sequence number is not the next one", "DDP"),
    12: ("no receive is posted", "DDP"),
    13: ("more Read and Atomic Requests than the inbound read limit", "DDP"),
    14: ("message offset does not continue the message", "DDP"),
    15: ("message longer than the posted receive", "DDP"),
    16: ("Read or Atomic Request longer than it can be, or not one segment", "DDP"),
    17: ("Read or Atomic Request too short; Immediate Data that is not 8 octets", "RDMAP"),
    18: ("Write: token not valid", "DDP"),
    19: ("Write: token of another protection domain or queue pair", "DDP"),
    20: ("Write: right missing", "RDMAP"),
    21: ("Write: offset and length pass 2^64", "DDP"),
    22: ("Write: outside the range", "DDP"),
    23: ("Write of no octets: no error", "nobody"),
    24: ("Read Request: source token not valid", "RDMAP"),
    25: ("Read Request: source token of another protection domain or queue pair", "RDMAP"),
    26: ("Read Request: right missing", "RDMAP"),
    27: ("Read Request: offset and length pass 2^64", "RDMAP"),
    28: ("Read Request: outside the range", "RDMAP"),
    29: ("the source becomes invalid while the response is sent", "RDMAP"),
    30: ("Read Response, but no read is outstanding", "RDMAP"),
    31: ("Read Response to another sink, or to one that has become invalid", "DDP"),
    32: ("Read Response with a gap, or of another length", "DDP"),
    33: ("Send with Invalidate: token that cannot be invalidated", "RDMAP"),
    34: ("Send with Invalidate: token of another protection domain or queue pair", "RDMAP"),
    35: ("atomic: target not aligned", "RDMAP"),
    36: ("atomic: token, right, wrap or range", "RDMAP"),
    37: ("Atomic Response, but no atomic is outstanding, or it has another identifier", "RDMAP"),
    38: ("anything after a Terminate", "RDMAP"),
    39: ("data after the peer's FIN", "DDP"),
    40: ("completion queue overrun, or a fault of one stream", "this side"),
    41: ("fault of the whole adapter", "this side"),
    42: ("an own request that cannot be carried out; flush", "this side"),
    43: ("start-up: too many reads asked for, no indication in common, or a failure of this side", "MPA"),
}
"""Row: what happens, and which layer finds it."""

NOT_PLAYED: Final[dict[int, str]] = {}
"""Rows without a case, and why."""


@dataclass(frozen=True, slots=True)
class _Line:
    number: int
    name: str
    test: str
    seen: Outcome


def _lines() -> list[_Line]:
    rows = [
        _Line(row.number, row.name, f"test_peer_breaks_a_rule[{row}]", of_row(row)) for row in (*ROWS, *RFC7306_ROWS)
    ]
    cases = [
        _Line(case.number, case.name, f"test_what_a_single_segment_does_not_show[{case}]", case.run()) for case in CASES
    ]
    return sorted([*rows, *cases], key=lambda line: line.number)


def tests() -> list[str]:
    """The tests that the page names, without their file."""
    return [line.test for line in _lines()]


def check(numbers: Iterable[int], reasons: Iterable[int]) -> None:
    """Raises ValueError: a row of the table with neither cases nor a reason, or with both, or cases of no row."""
    played, excused = set(numbers), set(reasons)
    if missing := set(ERRORS) - played - excused:
        raise ValueError(f"the error table has rows without a test: {sorted(missing)}")
    if both := played & excused:
        raise ValueError(f"the error table has rows with a test and a reason for having none: {sorted(both)}")
    if unknown := played - set(ERRORS):
        raise ValueError(f"there are tests of rows that the error table does not have: {sorted(unknown)}")


def parts() -> dict[str, str]:
    """The summary and the cases."""
    lines = _lines()
    check((line.number for line in lines), NOT_PLAYED)
    return {"error rows": _summary(lines), "error cases": _sections(lines)}


def _summary(lines: Sequence[_Line]) -> str:
    rows = []
    for number, (what, layer) in ERRORS.items():
        mine = [line.seen for line in lines if line.number == number]
        codes = _distinct(seen.code or "none" for seen in mine)
        headers = _distinct(seen.headers for seen in mine if seen.octets)
        link = f"[{len(mine)}](#row-{number})" if mine else f"[why none](#row-{number})"
        rows.append((number, what, layer, codes, headers, link))
    return table(("Row", "Error", "Found by", "Terminate", "Headers returned", "Cases"), rows)


def _sections(lines: Sequence[_Line]) -> str:
    sections = []
    for number, (what, _) in ERRORS.items():
        heading = f"### Row {number}\n\n{what[0].upper()}{what[1:]}.\n\n"
        mine = [line for line in lines if line.number == number]
        if not mine:
            sections.append(heading + NOT_PLAYED[number])
            continue
        rows = [(line.name, _octets(line.seen), line.seen.here, line.seen.there, f"`{line.test}`") for line in mine]
        head = ("Case", "Terminate, octets sent", "Told here", "Told at the peer", "Test")
        sections.append(heading + table(head, rows))
    return "\n\n".join(sections)


def _octets(seen: Outcome) -> str:
    return f"{seen.code}: `{seen.octets.hex(' ', 4)}`" if seen.octets else "none"


def _distinct(words: Iterable[str]) -> str:
    return ", ".join(dict.fromkeys(words))


PAGE = Page("docs/reference/error-table.md", "error_table", parts)

if __name__ == "__main__":
    sys.exit(PAGE.main())
