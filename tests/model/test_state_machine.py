"""Two connected ends do what the model of NDKPI's rules says, step by step; `make model` goes on for longer."""

from collections.abc import Iterator

import pytest
from hypothesis import HealthCheck, settings

from tests.model.machine import MemoryMachine, SocketMachine


@pytest.fixture(scope="module", autouse=True)
def adapters() -> Iterator[None]:
    yield
    MemoryMachine.carrier.close()
    SocketMachine.carrier.close()


TestInMemory = MemoryMachine.TestCase
TestInMemory.settings = settings(
    max_examples=60, stateful_step_count=40, deadline=None, suppress_health_check=list(HealthCheck), print_blob=True
)
TestOverSockets = SocketMachine.TestCase
TestOverSockets.settings = settings(
    max_examples=15, stateful_step_count=30, deadline=None, suppress_health_check=list(HealthCheck), print_blob=True
)
