"""The gate of tests/conftest.py: in CI a skip fails, unless skips_allowed.txt lists its reason."""

from pathlib import Path

import pytest

pytest_plugins = ["pytester"]

CONFTEST = Path(__file__).parents[1] / "conftest.py"

SKIPPING_TESTS = """
import pytest

def test_passes(): pass

@pytest.mark.skip(reason="no such tool here")
def test_marked(): pass

def test_inside(): pytest.skip("listed: no IPv6")

@pytest.mark.xfail(reason="known")
def test_known(): assert False
"""


@pytest.fixture
def run_elsewhere(pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch) -> pytest.Pytester:
    """A folder of its own with this project's conftest and one listed reason."""
    monkeypatch.delenv("CI", raising=False)
    pytester.makeconftest(CONFTEST.read_text(encoding="utf-8"))
    pytester.mkdir("project").joinpath("skips_allowed.txt").write_text("# why\nlisted: no IPv6\n", encoding="utf-8")
    return pytester


def test_an_unlisted_skip_fails_in_ci(run_elsewhere: pytest.Pytester, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CI", "true")
    run_elsewhere.makepyfile(SKIPPING_TESTS)
    result = run_elsewhere.runpytest_subprocess()
    assert result.ret == pytest.ExitCode.TESTS_FAILED
    result.assert_outcomes(passed=1, skipped=1, errors=1, xfailed=1)
    result.stdout.fnmatch_lines(["*test_marked*no such tool here*"])
    result.stdout.fnmatch_lines(["hypothesis: profile ci, seed *--hypothesis-seed=*"])


def test_a_module_that_skips_itself_fails_in_ci(
    run_elsewhere: pytest.Pytester, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CI", "true")
    run_elsewhere.makepyfile("import pytest; pytest.importorskip('no_such_module_anywhere')")
    result = run_elsewhere.runpytest_subprocess()
    assert result.ret == pytest.ExitCode.INTERRUPTED
    result.stdout.fnmatch_lines(["*no_such_module_anywhere*"])


def test_outside_ci_a_skip_is_a_skip(run_elsewhere: pytest.Pytester) -> None:
    run_elsewhere.makepyfile(SKIPPING_TESTS)
    result = run_elsewhere.runpytest_subprocess()
    assert result.ret == pytest.ExitCode.OK
    result.assert_outcomes(passed=1, skipped=2, xfailed=1)
