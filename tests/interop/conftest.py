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
MOST_BOOTS = 5
"""When it has failed this often, the fault is not the guest's."""
RESULTS = Path(os.environ.get("SOFTNDK_INTEROP_RESULTS", "interop-results.json"))

_rows = pytest.StashKey[list[dict[str, Any]]]()
_guests = pytest.StashKey["Guests"]()


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if HERE in item.path.parents:
            item.add_marker(pytest.mark.interop)
            case = case_of(item)
            if case is not None and case.smoke:
                item.add_marker(pytest.mark.smoke)


def case_of(item: pytest.Item) -> Case | None:
    """The row that a test is, if it is one."""
    found = (
        item.callspec.params.get("case") if isinstance(item, pytest.Function) and hasattr(item, "callspec") else None
    )
    return found if isinstance(found, Case) else None


class Guests:
    """The guest for the next test: the running one, or a new one after a failure.

    A failure may come from a kernel that is damaged, or leave one behind; the tests after it are not to suffer.
    """

    def __init__(self, folder: Path) -> None:
        self.about: dict[str, Any] = {}
        self._folder = folder
        self._running: Guest | None = None
        self._boots = 0
        self._spoilt = False

    def running(self) -> Guest:
        """Raises: LabError: no guest can be booted."""
        if self._running is not None and self._spoilt and self._boots < MOST_BOOTS:
            self.close()
        if self._running is None:
            self._boots += 1
            self._spoilt = False
            self._running = Guest(image.find(), self._folder / f"serial.{self._boots}.log")
            self.about = {
                "versions": self._running.image.versions,
                "accelerator": self._running.accelerator,
                "boot_s": round(self._running.boot_s, 1),
            }
        return self._running

    def spoil(self) -> None:
        """A test has failed."""
        self._spoilt = True

    def close(self) -> None:
        if self._running is not None:
            self._running.close()
            self._running = None


@pytest.fixture(scope="session")
def guests(pytestconfig: pytest.Config, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Guests]:
    keeper = Guests(tmp_path_factory.mktemp("guest"))
    pytestconfig.stash[_guests] = keeper
    yield keeper
    keeper.close()


@pytest.fixture
def guest(guests: Guests) -> Iterator[Guest]:
    """The booted guest. One that can't be booted is an error of every test, with the reason and the end of its log."""
    running = guests.running()
    yield running
    if running.kernel_fault:
        pytest.fail(f"the guest's kernel has a fault: {running.kernel_fault}; its log: {running.log}")


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
    if report.failed and _guests in item.config.stash:
        item.config.stash[_guests].spoil()
    case = case_of(item)
    if case is not None and (report.when == "call" or report.failed):
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
    about = config.stash[_guests].about if _guests in config.stash else {}
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
