"""The guest that all interoperability tests share, and the table of what came of them.

The guest is booted once, when the first test asks for it. Its image has to be there: `make interop` builds it.
"""

import json
import os
from collections.abc import Generator, Iterator
from pathlib import Path
from typing import Any

import pytest

from scripts.interop import image
from scripts.interop.guest import Guest
from softndk import Adapter, open_adapter
from tests.interop.cases import Case

HERE = Path(__file__).parent
RESULTS = Path(os.environ.get("SOFTNDK_INTEROP_RESULTS", "interop-results.json"))

_rows = pytest.StashKey[list[dict[str, Any]]]()
_guest = pytest.StashKey[dict[str, Any]]()


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if HERE in item.path.parents:
            item.add_marker(pytest.mark.interop)


@pytest.fixture(scope="session")
def guest(pytestconfig: pytest.Config, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Guest]:
    """The booted guest. One that can't be booted is an error of every test, with the reason and the end of its log."""
    log = tmp_path_factory.mktemp("guest") / "serial.log"
    with Guest(image.find(), log) as running:
        pytestconfig.stash[_guest] = {
            "versions": running.image.versions,
            "accelerator": running.accelerator,
            "boot_s": round(running.boot_s, 1),
        }
        yield running


@pytest.fixture
def case(request: pytest.FixtureRequest) -> Case:
    """The row that this test is."""
    found: Case = request.param
    return found


@pytest.fixture
def adapter(case: Case, guest: Guest, tmp_path: Path) -> Iterator[Adapter]:
    """An adapter with the case's settings, siw with its own ones; everything on the wire goes to tmp_path."""
    with (
        guest.settings(**case.variant.siw),
        open_adapter("127.0.0.1", config=case.variant.ours, trace=tmp_path / "softndk.pcapng") as opened,
    ):
        yield opened


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    report = yield
    case = item.callspec.params.get("case") if isinstance(item, pytest.Function) and hasattr(item, "callspec") else None
    if isinstance(case, Case) and (report.when == "call" or report.failed):
        rows = item.config.stash.setdefault(_rows, [])
        rows.append(
            {
                "program": case.program,
                "direction": case.active.value,
                "variant": case.variant.name,
                "detail": case.detail,
                "result": report.outcome if report.when == "call" else f"error in {report.when}",
                "seconds": round(report.duration, 2),
            }
        )
    return report


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    rows = config.stash.get(_rows, [])
    if not rows:
        return
    about = config.stash.get(_guest, {})
    terminalreporter.section("interoperability")
    for name, version in about.get("versions", {}).items():
        terminalreporter.write_line(f"{name} {version}")
    if about:
        terminalreporter.write_line(f"accelerator {about['accelerator']}, booted in {about['boot_s']} s")
    heads = {name: name for name in rows[0]}
    texts = [{name: f"{row[name]:.2f}" if name == "seconds" else str(row[name]) for name in row} for row in rows]
    widths = {name: max(len(row[name]) for row in [heads, *texts]) for name in heads}
    for row in [heads, *texts]:
        line = "  ".join(
            row[name].rjust(widths[name]) if name == "seconds" else row[name].ljust(widths[name]) for name in row
        )
        terminalreporter.write_line(line)
    RESULTS.write_text(json.dumps({**about, "results": rows}, indent=1) + "\n", encoding="utf-8")
    terminalreporter.write_line(f"written to {RESULTS}")
