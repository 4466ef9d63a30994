"""What holds for every test run: Hypothesis profiles, the report's header, and no unnoticed skip in CI.

Knows pytest and Hypothesis, and of softndk only how to ask which data path would be used. Fixtures that one
test folder needs belong into that folder's own conftest.
"""

import os
import random
import signal
from collections.abc import Generator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import settings

IN_CI = os.environ.get("CI", "").lower() not in ("", "0", "false")
SKIPS_ALLOWED = Path(__file__).parent / "project" / "skips_allowed.txt"

settings.register_profile("default", deadline=None)
settings.register_profile("ci", deadline=None, derandomize=False, print_blob=True)
settings.load_profile("ci" if IN_CI else "default")


@pytest.hookimpl(tryfirst=True)
def pytest_configure(config: pytest.Config) -> None:
    """In CI, draw Hypothesis' seed here, so that the header can print it.

    Elsewhere Hypothesis draws one per test: under a fixed seed it would not replay the failures it has kept.
    """
    if IN_CI and config.getoption("hypothesis_seed", None) is None:
        config.option.hypothesis_seed = str(random.SystemRandom().getrandbits(32))
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:  # a shell starts background jobs so; tests interrupt programs
        signal.signal(signal.SIGINT, signal.default_int_handler)


def pytest_report_header(config: pytest.Config) -> list[str]:
    """The data path, and what is needed to repeat a run of Hypothesis."""
    seed = config.getoption("hypothesis_seed", None)
    repeat = f"{seed} (repeat with --hypothesis-seed={seed})" if seed else "one per test (--hypothesis-seed sets it)"
    profile = settings.get_current_profile_name()
    return [f"datapath: {_datapath_name()}", f"hypothesis: profile {profile}, seed {repeat}"]


def _datapath_name() -> str:
    """The data path that adapters get when none is asked for; a broken import is for the tests to report."""
    try:
        from softndk.datapath import open_datapath
    except ImportError as error:
        return f"none ({error})"
    return open_datapath(None).name


# ---- skips in CI ------------------------------------------------------------------------------------------


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_runtest_makereport() -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Turn a test's skip into a failure where CI does not allow it; an expected failure is no skip."""
    report = yield
    if not hasattr(report, "wasxfail"):
        _refuse_skip(report)
    return report


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_make_collect_report() -> Generator[None, pytest.CollectReport, pytest.CollectReport]:
    """The same for a module that skips itself as a whole."""
    report = yield
    _refuse_skip(report)
    return report


def _refuse_skip(report: pytest.TestReport | pytest.CollectReport) -> None:
    if not (IN_CI and report.skipped):
        return
    reason = _skip_reason(report.longrepr)
    if reason not in _allowed_reasons():
        report.outcome = "failed"
        report.longrepr = f"skipped in CI for a reason that {SKIPS_ALLOWED.name} does not list: {reason}"


def _skip_reason(longrepr: Any) -> str:
    """pytest reports a skip as (file, line, "Skipped: reason")."""
    text = longrepr[2] if isinstance(longrepr, tuple) else str(longrepr)
    return text.removeprefix("Skipped: ").strip()


def _allowed_reasons() -> frozenset[str]:
    lines = (line.strip() for line in SKIPS_ALLOWED.read_text(encoding="utf-8").splitlines())
    return frozenset(line for line in lines if line and not line.startswith("#"))
