"""The guest that all interoperability tests share, and the table of what came of them.

The guest is booted once, when the first test asks for it. Its image has to be there: `make interop` builds it. A guest
that can't be booted fails every test, with the reason.
"""

import os
import subprocess
import sys
from collections.abc import Generator, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from scripts.interop import image
from scripts.interop.common import LabError, tail
from scripts.interop.guest import Guest
from softndk import Adapter, open_adapter
from tests.interop.cases import Case
from tests.interop.results import Results

HERE = Path(__file__).parent
MOST_BOOTS = 5
"""Guests for one run: after so many failures the fault is not the guest's."""
STARTUP_S = 60.0
"""Limit for each side of a start-up: an emulated guest on a busy machine may stand still for seconds."""
SHOWN_FRAMES = 60
"""Of the wire of a failed test."""
RESULTS = Path(os.environ.get("SOFTNDK_INTEROP_RESULTS", "interop-results.json"))

_results = pytest.StashKey[Results]()
_guests = pytest.StashKey["Guests"]()
_failed = pytest.StashKey[bool]()


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
        self._refused: LabError | None = None
        self._boots = 0
        self._spoilt = False

    def running(self) -> Guest:
        """Raises: LabError: no guest can be booted; found out once, then known."""
        if self._refused is not None:
            raise LabError(str(self._refused))
        if self._running is not None and self._spoilt and self._boots < MOST_BOOTS:
            self.close()
        if self._running is None:
            self._boots += 1
            self._spoilt = False
            try:
                self._running = Guest(image.find(), self._folder / f"serial.{self._boots}.log")
            except LabError as error:
                self._refused = error
                raise
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
def adapter(request: pytest.FixtureRequest, case: Case, guest: Guest, tmp_path: Path) -> Iterator[Adapter]:
    """An adapter with the case's settings, siw with its own ones. What was on the wire is told if the test fails."""
    trace = tmp_path / "softndk.pcapng"
    patient = replace(case.variant.ours, connect_timeout_s=STARTUP_S, accept_timeout_s=STARTUP_S)
    with (
        guest.settings(**case.variant.siw),
        open_adapter("127.0.0.1", config=patient, trace=trace) as opened,
    ):
        yield opened
    if request.node.stash.get(_failed, False):
        command = (sys.executable, "-m", "softndk.cli", "trace", trace)
        told = subprocess.run(command, capture_output=True, text=True, check=False)
        print(f"the wire, the last frames of {trace}:\n{tail(told.stdout + told.stderr, SHOWN_FRAMES)}")
        said = guest.log.read_text(encoding="utf-8", errors="replace")
        print(f"the end of the guest's log, {guest.log}:\n{tail(said)}")


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    report = yield
    if report.failed:
        item.stash[_failed] = True
        if _guests in item.config.stash:
            item.config.stash[_guests].spoil()
    case = case_of(item)
    if case is not None:
        results = item.config.stash.setdefault(_results, Results())
        results.add(case, item.nodeid, report.when, report.outcome, report.duration)
    return report


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    results = config.stash.get(_results, Results())
    if not results.rows:
        return
    if _guests in config.stash:
        results.about = config.stash[_guests].about
    terminalreporter.section("interoperability")
    for line in [*results.head(), "", *results.lines()]:
        terminalreporter.write_line(line)
    results.write(RESULTS)
    terminalreporter.write_line(f"written to {RESULTS}")
