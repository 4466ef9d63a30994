"""Loads the suite's plugin and, where pytest has not found them by itself, its options."""

import pytest

import pytest_softndk


def pytest_addoption(pluginmanager: pytest.PytestPluginManager) -> None:
    """Called early where the suite is named on the command line, late where pytest comes upon it."""
    pytest.register_assert_rewrite("softndk.conformance.bench", "softndk.conformance.refusals")
    if not pluginmanager.is_registered(pytest_softndk):
        pluginmanager.register(pytest_softndk)
    pluginmanager.import_plugin("softndk.conformance.plugin")
