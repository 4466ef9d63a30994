"""The targets: one file each. `TARGETS` lists them; each gives `check(data)` and what its inputs are made of."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from fuzz.targets import capture, framing, inbound, startup, terminate

__all__ = ["TARGETS", "Target"]


@dataclass(frozen=True)
class Target:
    """`check`: runs one input, raises on a finding. `operations`: for the record mutator; empty: plain octets.

    `seeds`: inputs that a campaign begins with. `longest`: octets of an input.
    """

    name: str
    check: Callable[[bytes], None]
    operations: Sequence[int]
    seeds: Callable[[], Sequence[bytes]]
    longest: int = 8 + 48 * 16


TARGETS: dict[str, Target] = {
    target.name: target
    for target in (
        Target("startup", startup.check, startup.OPERATIONS, startup.seeds),
        Target("framing", framing.check, framing.OPERATIONS, framing.seeds),
        Target("inbound", inbound.check, inbound.OPERATIONS, inbound.seeds),
        Target("terminate", terminate.check, (), terminate.seeds, 128),
        Target("capture", capture.check, capture.OPERATIONS, capture.seeds, 2500),
    )
}
