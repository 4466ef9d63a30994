"""The adapters of the target `adapter` live as long as a test, and leave nothing behind."""

from collections.abc import Iterator

import pytest

from fuzz import era


@pytest.fixture(autouse=True)
def nothing_left() -> Iterator[None]:
    yield
    era.end()
