"""Strict mode: what the program has to serialise and does not is told, and nothing else."""

import sys
import threading
import warnings
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import pytest

from softndk import OperationType, RemoteToken
from softndk.testing import End, Pair, pair
from tests.attack.attack_tools import PATIENCE_S, in_thread, until


@pytest.fixture
def ends() -> Iterator[Pair]:
    both = pair(strict=True)
    yield both
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ResourceWarning)
        both.close()


def is_inside(thread: int) -> bool:
    """The thread is in a method of one of the objects: past what strict mode looks at."""
    frame = sys._current_frames().get(thread)
    while frame is not None:
        code = frame.f_code
        if "/softndk/ndk/" in code.co_filename.replace("\\", "/") and not code.co_filename.endswith("strict.py"):
            return True
        frame = frame.f_back
    return False


def overlapping(end: End, first: Callable[[], Any], second: Callable[[], Any], *, reported: bool) -> list[str]:
    """Warnings when both are called at once: each gets as far as the adapter's lock, which is free when both are there."""
    seen: list[str] = []

    def note(message: Warning | str, *_: object, **__: object) -> None:
        seen.append(str(message))

    with warnings.catch_warnings():
        warnings.simplefilter("always")
        warnings.showwarning = note
        calls = (first, second)
        with end.adapter._lock:
            threads: list[int] = []

            def run(call: Callable[[], Any]) -> None:
                threads.append(threading.get_ident())
                call()

            running = [in_thread(partial(run, call)) for call in calls]
            until(lambda: len(threads) == 2 and all(map(is_inside, threads)))
            if reported:
                until(lambda: bool(seen))
        for future in running:
            future.result(PATIENCE_S)
    return seen


def serialised(end: End, first: Callable[[], Any], second: Callable[[], Any]) -> None:
    (text,) = overlapping(end, first, second, reported=True)
    assert "R-CONC-" in text


class TestReported:
    def test_two_posts_on_one_initiator_queue(self, ends: Pair) -> None:
        qp = ends.a.qp
        serialised(ends.a, lambda: qp.send(b""), lambda: qp.write(b"", 0, RemoteToken(1)))

    def test_two_receives(self, ends: Pair) -> None:
        qp = ends.a.qp
        serialised(ends.a, lambda: qp.receive([]), lambda: qp.receive([]))

    def test_two_receives_on_a_shared_queue(self, ends: Pair) -> None:
        srq = ends.a.pd.create_srq(4)
        serialised(ends.a, lambda: srq.receive([]), lambda: srq.receive([]))

    def test_taking_results_and_arming(self, ends: Pair) -> None:
        cq = ends.a.cq
        serialised(ends.a, cq.get_results, lambda: cq.arm())

    def test_the_call_is_carried_out_all_the_same(self, ends: Pair) -> None:
        qp = ends.a.qp
        serialised(ends.a, lambda: qp.write(b"", 0, RemoteToken(1)), lambda: qp.write(b"", 0, RemoteToken(1)))
        assert len(ends.a.cq.get_results()) == 2


class TestNotReported:
    @pytest.mark.rules("R-CONC-1")
    def test_posts_on_the_two_queues_of_a_queue_pair(self, ends: Pair) -> None:
        qp = ends.a.qp
        ends.b.qp.receive([])
        assert overlapping(ends.a, lambda: qp.receive([]), lambda: qp.send(b""), reported=False) == []
        assert [result.type for result in ends.a.cq.get_results()] == [OperationType.SEND]

    def test_calls_on_different_queues_and_flush_and_close(self, ends: Pair) -> None:
        qp = ends.a.qp
        for other in (lambda: qp.receive([]), qp.flush, qp.close, ends.a.connector.close):
            spare = overlapping(ends.a, ends.a.cq.get_results, other, reported=False)
            assert spare == []

    def test_one_call_after_the_other(self, ends: Pair) -> None:
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            for _ in range(3):
                in_thread(lambda: ends.a.qp.receive([])).result(PATIENCE_S)

    def test_without_strict_mode_nothing_at_all(self) -> None:
        with pair() as both:
            qp = both.a.qp
            assert overlapping(both.a, lambda: qp.receive([]), lambda: qp.receive([]), reported=False) == []
