"""Scatter/gather elements: three numbers, or bytes that travel with them until the post has copied them."""

import copy
import dataclasses

import pytest

from softndk.errors import InvalidParameter
from softndk.flags import LocalToken
from softndk.memory.sge import InlineSge, Sge


def test_three_numbers() -> None:
    sge = Sge(0x1000, 64, LocalToken(7))
    assert (sge.address, sge.length, sge.token) == (0x1000, 64, 7)
    assert sge == copy.copy(sge) == Sge(0x1000, 64, LocalToken(7))
    with pytest.raises(dataclasses.FrozenInstanceError):
        sge.length = 1  # type: ignore[misc]


def test_inline() -> None:
    data = bytearray(b"hello")
    sge = Sge.inline(data)
    assert isinstance(sge, InlineSge)
    assert sge.length == 5
    data[0:1] = b"J"
    assert bytes(sge.data) == b"Jello"


def test_inline_wants_a_buffer() -> None:
    with pytest.raises(InvalidParameter, match=r"Sge\.inline"):
        Sge.inline("text")  # type: ignore[arg-type]
