"""The fuzzer's oracles notice: with one thing broken, the seeds of a target are enough to fail."""

from collections.abc import Callable
from typing import Any

import pytest

from fuzz.targets import TARGETS
from softndk.drivers.engine import Engine
from softndk.drivers.tcp import TcpStream
from softndk.errors import Aborted, InternalError
from softndk.iwarp import faults, framing, negotiation
from softndk.iwarp.connection import Connection, StreamOpener
from softndk.iwarp.ending import Ending
from softndk.iwarp.events import Finish
from softndk.iwarp.faults import Cause
from softndk.iwarp.time_limits import TimeLimits
from softndk.memory.access import Denial, MemoryAccess
from softndk.memory.regions import FastRegion
from softndk.memory.tokens import TokenEntry
from softndk.ndk.connector import Connector
from softndk.ndk.listener import Listener, _Handshake
from softndk.ndk.object import NdkObject
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
    pairs: list[QueuePair] = []
    made, failed = Connection.bind, Ending.fail

    def bind(core: Connection, pair: QueuePair, open_stream: StreamOpener) -> None:
        pairs.append(pair)
        made(core, pair, open_stream)

    def fail(ending: Ending, fault: faults.ProtocolFault) -> None:
        failed(ending, fault)
        for other in pairs[-2:]:
            other.flush(Aborted("all of them"))

    patch.setattr(Connection, "bind", bind)
    patch.setattr(Ending, "fail", fail)


def no_end(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(Ending, "finish_draining", lambda ending: None)
    patch.setattr(TimeLimits, "take_expired", lambda limits: None)


def ord_as_wished(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(negotiation, "min", lambda first, second: first, raising=False)


def frames_are_lost(patch: pytest.MonkeyPatch) -> None:
    units = decode._Side._units

    def fewer(side: Any) -> list[Any]:
        return units(side)[:1]

    patch.setattr(decode._Side, "_units", fewer)


def sockets_stay_open(patch: pytest.MonkeyPatch) -> None:
    """Those whose peer has gone before its start-up was complete."""
    close = TcpStream._close

    def closed(stream: TcpStream) -> None:
        if stream._eof and stream.core.finish() is Finish.CLOSE and stream._sock is not None:
            stream._engine.remove(stream)
            stream._sock.detach()
            stream._sock = None
        close(stream)

    patch.setattr(TcpStream, "_close", closed)


def loans_are_kept(patch: pytest.MonkeyPatch) -> None:
    """What a waiting thread has served nobody serves again, but whoever polls."""
    patch.setattr(Engine, "_end_loan", lambda engine, channel: engine._loans.pop(channel))


def one_failure_is_everybodys(patch: pytest.MonkeyPatch) -> None:
    lost = TcpStream._lost

    def all_lost(stream: TcpStream, error: OSError) -> None:
        lost(stream, error)
        stream._engine._fail_all("one of them has failed")

    patch.setattr(TcpStream, "_lost", all_lost)


def start_ups_count_for_ever(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(_Handshake, "_forget", lambda handshake: None)


def an_undocumented_error(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(Connector, "_not_answered", lambda connector, what: InternalError(f"{what}: nothing to complete"))


def a_result_too_many(patch: pytest.MonkeyPatch) -> None:
    once = QueuePair._flush_receives

    def twice(pair: QueuePair) -> None:
        pair.receives.extend(list(pair.receives)[:1])
        once(pair)

    patch.setattr(QueuePair, "_flush_receives", twice)


def an_end_is_missing(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(NdkObject, "_idle_again", lambda item: None)


def too_many_wait(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(Listener, "_is_full_for", lambda listener, stream: False)


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
    ("adapter", sockets_stay_open),
    ("adapter", loans_are_kept),
    ("adapter", one_failure_is_everybodys),
    ("adapter", start_ups_count_for_ever),
    ("adapter", an_undocumented_error),
    ("adapter", a_result_too_many),
    ("adapter", an_end_is_missing),
    ("adapter", too_many_wait),
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
