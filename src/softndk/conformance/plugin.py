"""pytest plugin of the conformance suite: the provider under judgement, required features, the support matrix.

The suite's own conftest loads it; the options are in `pytest_softndk`. It looks only at the tests of this package.
"""

import json
import traceback
from collections.abc import Generator, Iterator
from contextlib import contextmanager
from dataclasses import asdict
from enum import Enum
from importlib import import_module
from pathlib import Path
from typing import Any, Final

import pytest

from pytest_softndk import DEFAULT_PROVIDER
from softndk.conformance.bench import Bench, Pair
from softndk.conformance.matrix import Case, Matrix
from softndk.conformance.providers import Feature, Provider, Side, advertised
from softndk.conformance.refusals import REFUSALS
from softndk.conformance.rules import all_rules

__all__ = ["bench", "both", "provider"]

_FOLDER: Final = Path(__file__).parent
_PROVIDER: Final = pytest.StashKey[Provider]()
_FEATURES: Final = pytest.StashKey[frozenset[Feature]]()
_MATRIX: Final = pytest.StashKey[Matrix]()
_MISSING: Final = pytest.StashKey[tuple[str, ...]]()
_SUITE_ALONE: Final = pytest.StashKey[bool]()


# ---- fixtures


@pytest.fixture(scope="session")
def provider(pytestconfig: pytest.Config) -> Provider:
    """The provider under judgement."""
    return _provider(pytestconfig)


@pytest.fixture
def bench(provider: Provider) -> Iterator[Bench]:
    """A workplace for one case; closes everything at its end."""
    made = Bench(provider)
    try:
        yield made
    finally:
        made.close()


@pytest.fixture
def both(bench: Bench) -> Pair:
    """Two connected ends; the regions of both may be read and written by the peer."""
    return bench.pair()


# ---- hooks


def pytest_configure(config: pytest.Config) -> None:
    """Name the markers, and make the code that the cases share tell as much as they do when an assertion fails."""
    config.addinivalue_line("markers", "rules(*names): the rules of NDKPI that the test proves")
    config.addinivalue_line(
        "markers", "requires(*features): what an adapter must advertise; else its clean refusal is checked"
    )


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Refuse a rule that is not in the list; a case without one; a provider that cannot be judged."""
    cases = [item for item in items if _is_case(item)]
    config.stash[_SUITE_ALONE] = bool(cases) and len(cases) == len(items)
    for item in cases:
        names = _rules_of(item)
        unknown = [name for name in names if name not in all_rules()]
        if unknown or not names:
            raise pytest.UsageError(f"{item.nodeid}: {f'unknown rules {unknown}' if unknown else 'names no rule'}")
    if cases and not config.option.collectonly:
        _matrix(config)


@pytest.hookimpl(tryfirst=True)
def pytest_pyfunc_call(pyfuncitem: pytest.Function) -> bool | None:
    """Run the case, or the check of a clean refusal where a feature that it requires is not advertised."""
    if not _is_case(pyfuncitem):
        return None
    required = [feature for mark in pyfuncitem.iter_markers("requires") for feature in mark.args]
    if not required:
        return None
    missing = [feature for feature in required if feature not in pyfuncitem.config.stash[_FEATURES]]
    if not missing:
        return None
    pyfuncitem.stash[_MISSING] = tuple(feature.value for feature in missing)
    workplace = Bench(_provider(pyfuncitem.config))
    try:
        for feature in missing:
            REFUSALS[feature](workplace)
    finally:
        workplace.close()
    return True


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Note what came of a case."""
    report = yield
    if _is_case(item) and (report.when == "call" or not report.passed):
        _matrix(item.config).cases.append(
            Case(
                item.nodeid.rpartition("/")[2],
                _rules_of(item),
                item.stash.get(_MISSING, ()),
                passed=report.passed,
                skipped=report.skipped,
            )
        )
    return report


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    """Print the matrix where the suite was run by itself or asked for; write it where asked for."""
    matrix = config.stash.get(_MATRIX, None)
    path = config.getoption("--ndk-matrix", None)
    if matrix is None or not matrix.cases:
        return
    if path is not None:
        Path(path).write_text(json.dumps(matrix.as_json(), indent=2, default=_plain) + "\n", encoding="utf-8")
    if path is not None or config.stash.get(_SUITE_ALONE, False):
        terminalreporter.section("NDKPI conformance")
        for line in matrix.lines():
            terminalreporter.write_line(line)


# ---- inside


def _is_case(item: pytest.Item) -> bool:
    return item.path.is_relative_to(_FOLDER)


def _rules_of(item: pytest.Item) -> tuple[str, ...]:
    return tuple(dict.fromkeys(name for mark in item.iter_markers("rules") for name in mark.args))


def _provider(config: pytest.Config) -> Provider:
    if _PROVIDER not in config.stash:
        name = config.getoption("--ndk-provider", DEFAULT_PROVIDER)
        module, _, attribute = name.partition(":")
        try:
            factory: Any = import_module(module)
            for part in attribute.split("."):
                factory = getattr(factory, part)
        except (ImportError, AttributeError, ValueError) as error:
            raise pytest.UsageError(f"--ndk-provider={name}: {error}") from None
        if not callable(factory):
            raise pytest.UsageError(f"--ndk-provider={name}: a {type(factory).__name__}, which nobody can call")
        with _usage_error(name):
            made = factory()
            is_provider = isinstance(made, Provider)
        if not is_provider:
            raise pytest.UsageError(f"--ndk-provider={name}: makes a {type(made).__name__}, not a Provider")
        config.stash[_PROVIDER] = made
    return config.stash[_PROVIDER]


def _matrix(config: pytest.Config) -> Matrix:
    if _MATRIX not in config.stash:
        provider = _provider(config)
        with _usage_error(config.getoption("--ndk-provider", DEFAULT_PROVIDER)):
            with provider.open_adapter(Side.ACTIVE) as adapter:
                info = asdict(adapter.query_info())
                config.stash[_FEATURES] = advertised(adapter)
            config.stash[_MATRIX] = Matrix(provider.name, info, all_rules())
    return config.stash[_MATRIX]


@contextmanager
def _usage_error(provider: str) -> Iterator[None]:
    """A provider that fails before the first case has nothing to be judged: one line that says where it failed."""
    try:
        yield
    except Exception as error:
        place = traceback.extract_tb(error.__traceback__)[-1]
        told = f"{place.filename}:{place.lineno}: {type(error).__name__}: {error}"
        raise pytest.UsageError(f"--ndk-provider={provider}: cannot be judged, it raises: {told}") from error


def _plain(value: object) -> object:
    return value.name if isinstance(value, Enum) else str(value)
