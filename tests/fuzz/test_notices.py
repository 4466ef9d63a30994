"""The fuzzer's oracles notice: with one thing broken, the seeds of a target are enough to fail."""

from collections.abc import Callable
from typing import Any

import pytest

from fuzz.targets import TARGETS
from softndk.errors import Aborted
from softndk.iwarp import faults, framing, negotiation
from softndk.iwarp.connection import Connection
from softndk.iwarp.faults import Cause
from softndk.memory.access import Denial, MemoryAccess
from softndk.memory.regions import FastRegion
from softndk.memory.tokens import TokenEntry
from softndk.queues.pair import QueuePair
from softndk.trace import decode
from softndk.wire import rdmap


class Whatever:
    """Equal to everything."""

    def __eq__(self, other: object) -> bool:
        return True

    def __hash__(self) -> int:
        return 0


def no_crc(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(framing, "RESIDUE", Whatever())


def wide_bounds(patch: pytest.MonkeyPatch) -> None:
    def slices(entry: TokenEntry, address: int, length: int) -> list[memoryview]:
        assert entry.memory is not None
        return entry.memory.slices(max(0, entry.memory_offset + address - entry.base), length)

    patch.setattr(MemoryAccess, "_slices", staticmethod(slices))


def no_solicited_events(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(rdmap, "SOLICITING", frozenset())


def another_code(patch: pytest.MonkeyPatch) -> None:
    patch.setitem(faults._WRITE, Denial.MISSING_RIGHT, Cause.WRITE_INVALID_STAG)  # what siw sends


def completions_twice(patch: pytest.MonkeyPatch) -> None:
    once: Callable[..., None] = QueuePair.complete_receive

    def twice(pair: QueuePair, request: Any, *values: Any, **names: Any) -> None:
        once(pair, request, *values, **names)
        pair.receives.appendleft(request)
        once(pair, request, *values, **names)

    patch.setattr(QueuePair, "complete_receive", twice)


def tokens_live_on(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(FastRegion, "invalidate", lambda region: None)


def the_neighbour_is_hit(patch: pytest.MonkeyPatch) -> None:
    """A fault of one connection flushes both."""
    cores: list[Connection] = []
    made, failed = Connection.bind, Connection._fail

    def bind(core: Connection, *values: Any) -> None:
        cores.append(core)
        made(core, *values)

    def fail(core: Connection, fault: faults.ProtocolFault) -> None:
        failed(core, fault)
        for other in cores[-2:]:
            other._flush(Aborted("all of them"))

    patch.setattr(Connection, "bind", bind)
    patch.setattr(Connection, "_fail", fail)


def no_end(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(Connection, "_finish_draining", lambda core: None)
    patch.setattr(Connection, "_expire", lambda core, name: None)


def ord_as_wished(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(negotiation, "min", lambda first, second: first, raising=False)


def frames_are_lost(patch: pytest.MonkeyPatch) -> None:
    units = decode._Side._units

    def fewer(side: Any) -> list[Any]:
        return units(side)[:1]

    patch.setattr(decode._Side, "_units", fewer)


BROKEN = [
    ("framing", no_crc),
    ("inbound", wide_bounds),
    ("inbound", no_solicited_events),
    ("inbound", another_code),
    ("inbound", completions_twice),
    ("inbound", tokens_live_on),
    ("inbound", the_neighbour_is_hit),
    ("inbound", no_end),
    ("startup", ord_as_wished),
    ("capture", frames_are_lost),
]


@pytest.mark.parametrize(("target", "break_it"), BROKEN, ids=lambda value: getattr(value, "__name__", value))
def test_the_seeds_fail(
    target: str, break_it: Callable[[pytest.MonkeyPatch], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    break_it(monkeypatch)
    failed = 0
    for data in TARGETS[target].seeds():
        try:
            TARGETS[target].check(data)
        except Exception:
            failed += 1
            break
    assert failed, f"{target} notices nothing"
