"""The generator of almost-right streams without coverage: a few hundred inputs, the same ones in each run.

New ones are what `make fuzz` is for: whether a change passes its tests should not depend on luck.
"""

import os
import random

import pytest

from fuzz.records import RECORD, mutate, random_input, records_of
from fuzz.targets import TARGETS

INPUTS = 250


def change(data: bytes, rng: random.Random) -> bytes:
    """One octet becomes another, as a mutator does that knows nothing."""
    octets = bytearray(data)
    if octets:
        octets[rng.randrange(len(octets))] = rng.getrandbits(8)
    return bytes(octets)


@pytest.mark.parametrize("target", TARGETS)
def test_random_inputs(target: str) -> None:
    """SOFTNDK_FUZZ_SEED gives others."""
    seed = int(os.environ.get("SOFTNDK_FUZZ_SEED", "1"))
    print(f"SOFTNDK_FUZZ_SEED={seed}")
    rng = random.Random(seed)
    subject = TARGETS[target]
    operations = subject.operations or (0,)
    seeds = subject.seeds()
    for _ in range(INPUTS):
        if rng.randrange(2):
            data = random_input(rng, operations)
        else:
            data = mutate(rng.choice(seeds), rng, operations, lambda octets: change(octets, rng))
        try:
            subject.check(data)
        except Exception as error:
            error.add_note(f"SOFTNDK_FUZZ_SEED={seed}, input {data.hex()} of {target}")
            raise


def test_any_octets_are_an_input() -> None:
    rng = random.Random(1)
    for length in range(80):
        data = rng.randbytes(length)
        assert len(list(records_of(data))) == max(0, -(-(length - 8) // RECORD))
        assert isinstance(mutate(data, rng, (0, 1), lambda octets: octets), bytes)
