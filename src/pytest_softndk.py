"""The command-line options of softndk's conformance suite, for pytest.

pytest loads this module by itself wherever softndk is installed, so that `pytest --pyargs softndk.conformance
--ndk-provider=...` knows its options before it has found the suite. So it imports nothing of softndk: whoever runs
pytest for other tests pays nothing. The suite itself brings everything else (softndk.conformance.plugin).
"""

import pytest

__all__ = ["DEFAULT_PROVIDER", "pytest_addoption"]

DEFAULT_PROVIDER = "softndk.conformance.providers:python_iwarp"


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add the options of the suite."""
    group = parser.getgroup("softndk", "conformance to NDKPI (pytest --pyargs softndk.conformance)")
    group.addoption(
        "--ndk-provider",
        metavar="MODULE:NAME",
        default=DEFAULT_PROVIDER,
        help="the provider to be judged: a callable without arguments that returns a Provider (default: %(default)s)",
    )
    group.addoption("--ndk-matrix", metavar="FILE", default=None, help="write the support matrix as JSON into FILE")
