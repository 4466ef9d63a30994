"""Every kept input of the fuzzer, and every one that once showed a defect, still passes."""

import pytest

from fuzz.corpus import name_of, replayed
from fuzz.targets import TARGETS


@pytest.mark.parametrize("target", TARGETS)
def test_kept_inputs(target: str) -> None:
    inputs = replayed(target)
    assert inputs, f"nothing is kept for {target}"
    for data in inputs:
        try:
            TARGETS[target].check(data)
        except Exception as error:
            error.add_note(f"input {name_of(data)} of {target}: {data.hex()}")
            raise


@pytest.mark.parametrize("target", TARGETS)
def test_seeds(target: str) -> None:
    for data in TARGETS[target].seeds():
        TARGETS[target].check(data)
