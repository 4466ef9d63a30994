"""Fixtures of the tests of the NDKPI objects."""

from collections.abc import Iterator

import pytest

from softndk.testing import Pair, pair
from tests.ndk.ends import EVERY_RIGHT


@pytest.fixture
def both() -> Iterator[Pair]:
    """Two connected ends; the regions of both may be read and written by the peer."""
    with pair(flags=EVERY_RIGHT) as ends:
        yield ends
