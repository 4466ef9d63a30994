"""The targets: one file each. `TARGETS` lists them; each gives `check(data)` and what its inputs are made of."""

import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from fuzz.targets import capture, framing, inbound, startup, terminate

__all__ = ["TARGETS", "Target"]


@dataclass(frozen=True)
class Target:
    """`check`: runs one input, raises on a finding. `operations`: for the record mutator; empty: plain octets.

    `seeds`: inputs that a campaign begins with. `share`: of the time, towards the others. `longest`: octets of an input.
    """

    name: str
    check: Callable[[bytes], None]
    operations: Sequence[int]
    seeds: Callable[[], Sequence[bytes]]
    share: int
    longest: int = 8 + 48 * 16


TARGETS: dict[str, Target] = {
    target.name: target
    for target in (
        Target("startup", startup.check, startup.OPERATIONS, startup.seeds, 4),
        Target("framing", framing.check, framing.OPERATIONS, framing.seeds, 2),
        Target("inbound", inbound.check, inbound.OPERATIONS, inbound.seeds, 8),
        Target("terminate", terminate.check, (), terminate.seeds, 1, 128),
        Target("capture", capture.check, capture.OPERATIONS, capture.seeds, 5, 2500),
    )
}

if sys.platform == "linux":  # it needs the whole net 127.0.0.0/8, and asks TCP how much it holds
    from fuzz.targets import adapter

    TARGETS["adapter"] = Target("adapter", adapter.check, adapter.OPERATIONS, adapter.seeds, 8)
