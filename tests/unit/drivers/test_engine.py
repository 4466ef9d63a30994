"""softndk.drivers.engine: who serves a connection, timers, and the end.

The thread that serves is told from the others by where the core's `receive_data` runs.
"""

import errno
import gc
import os
import selectors
import socket
import subprocess
import sys
import textwrap
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from typing import Any

import pytest

import softndk.drivers.engine
import softndk.drivers.seats
from softndk.drivers.engine import LOAN_S, TIMERS_KEPT, Engine
from softndk.drivers.runtime import Runtime
from softndk.drivers.seats import Seat
from softndk.drivers.waiters import ThreadWaiter
from softndk.iwarp.events import Finish
from tests.unit.drivers.driver_parts import PATIENCE_S, ByteCore, End, Entries, listening, pair, running, until

ANY = 1


@pytest.fixture
def runtime() -> Iterator[Runtime]:
    with running() as made:
        yield made


@pytest.fixture
def unraisable(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    seen: list[Any] = []
    monkeypatch.setattr(sys, "unraisablehook", seen.append)
    return seen


class Waited:
    """An end whose octets become entries of a line: what a QP and its CQ are to a user. Notes who reads."""

    def __init__(self, end: End) -> None:
        self.end = end
        self.runtime = end.runtime
        self.readers: list[str] = []
        self.source = Entries(end.runtime, lambda: [end.stream])
        end.core.on_data = lambda: self.readers.append(threading.current_thread().name)
        with end.runtime.lock:
            end.stream._on_activity = self._active

    def _active(self) -> None:
        self.end._active()
        octets = bytes(self.end.core.received)
        del self.end.core.received[:]
        self.source.entries.extend(octets)
        self.source.line.notify()

    def wait(self, timeout: float = PATIENCE_S) -> list[int]:
        return self.source.line.call(ANY, 64).result(timeout)

    def served_by_engine(self) -> bool:
        with self.runtime.lock:
            channel = self.end.stream
            return channel._seat is None and not channel._loaned and channel._registered != 0


@contextmanager
def on_loan(waited: Waited, visit: Callable[[], object] | None = None) -> Iterator[None]:
    """Visit the connection until it is on loan; it stays so within the block, which holds the lock."""
    deadline = time.monotonic() + PATIENCE_S
    begin = time.monotonic()
    while True:
        if visit is None:
            with pytest.raises(TimeoutError):
                waited.wait(0)
        else:
            visit()
        with waited.runtime.lock:
            if waited.end.stream._loaned and time.monotonic() - begin > 3 * LOAN_S:
                yield
                return
        assert time.monotonic() < deadline


def me() -> str:
    return threading.current_thread().name


def driven(end: End) -> bool:
    with end.runtime.lock:
        return end.stream._seat is not None


class TestWhoServes:
    def test_the_engines_thread_when_nobody_else_does(self) -> None:
        with pair() as (near, far):
            waited = Waited(near)
            far.send(b"x")
            near.wait_for(lambda: bool(waited.readers))
            assert waited.readers == ["softndk-engine-near"]

    def test_a_thread_that_waits_serves_its_own_connection(self) -> None:
        with pair() as (near, far), ThreadPoolExecutor(1, "user") as pool:
            waited = Waited(near)
            sleeper = pool.submit(waited.wait)
            until(lambda: driven(near))
            far.send(b"x")
            assert sleeper.result(PATIENCE_S) == [ord("x")]
            assert waited.readers == ["user_0"]

    def test_no_thread_but_the_waiting_ones_has_to_run_in_a_ping_pong(self) -> None:
        with pair(echo=True) as (near, far), pair() as (_, _):
            waited = Waited(near)
            for number in range(200):
                near.send(bytes([number]))
                assert waited.wait() == [number]
            mine = waited.readers.count(me())
            assert mine > 100, f"{mine} of 200"  # on a busy machine the engine may take a loan back at times
            assert far.core.log.count("data") == 200

    def test_a_thread_that_polls_reads_for_itself(self) -> None:
        with pair(echo=True) as (near, _):
            waited = Waited(near)
            for number in range(200):
                near.send(bytes([number]))
                got: list[int] = []
                while not got:
                    with near.runtime.lock:
                        near.runtime.engine.poll([near.stream])
                        got = waited.source.take(1)
                assert got == [number]
            assert waited.readers.count(me()) > 100

    def test_after_it_has_left_the_engine_serves_again(self) -> None:
        with pair() as (near, far):
            waited = Waited(near)
            with pytest.raises(TimeoutError):
                waited.wait(0.01)
            far.send(b"x")
            near.wait_for(lambda: bool(waited.source.entries))
            assert waited.readers == ["softndk-engine-near"]

    @pytest.mark.parametrize("way", ["wait", "poll"])
    def test_a_loan_ends_when_the_thread_does_not_come_back(self, way: str) -> None:
        with pair() as (near, far):
            waited = Waited(near)

            def poll() -> None:
                with near.runtime.lock:
                    near.runtime.engine.poll([near.stream])

            with on_loan(waited, poll if way == "poll" else None):
                pass
            far.send(b"x")
            near.wait_for(lambda: bool(waited.source.entries))
            assert waited.readers == ["softndk-engine-near"]
            until(waited.served_by_engine)

    def test_one_serves_and_the_others_are_woken(self) -> None:
        with pair() as (near, far), ThreadPoolExecutor(4, "user") as pool:
            waited = Waited(near)
            sleepers = [pool.submit(waited.source.line.call(ANY, 1).result, PATIENCE_S)]
            until(lambda: driven(near))
            seat = near.stream._seat
            sleepers += [pool.submit(waited.source.line.call(ANY, 1).result, PATIENCE_S) for _ in range(3)]
            until(lambda: waited.source.waiting() == 4)
            assert near.stream._seat is seat
            far.send(b"abcd")
            assert sorted(sleeper.result()[0] for sleeper in sleepers) == list(b"abcd")

    def test_the_engine_serves_all_the_others_meanwhile(self) -> None:
        with running("near") as near, running("far") as far, ThreadPoolExecutor(1) as pool:
            accepted: list[End] = []
            listener = listening(far, lambda: ByteCore(echo=True), accepted)
            assert listener.local_address is not None
            ends = [End(near, ByteCore()) for _ in range(3)]
            for end in ends:
                with near.lock:
                    end.stream.connect(listener.local_address)
                end.wait_for(lambda end=end: "connected" in end.core.log)  # type: ignore[misc]
            waited = Waited(ends[0])
            sleeper = pool.submit(waited.wait)
            until(lambda: driven(ends[0]))
            for end in ends[1:]:
                end.send(b"x")
                end.wait_for(lambda end=end: end.core.received == b"x")  # type: ignore[misc]
            assert not sleeper.done()
            ends[0].send(b"y")
            assert sleeper.result(PATIENCE_S) == [ord("y")]

    def test_a_thread_that_serves_is_woken_by_others_too(self) -> None:
        with pair() as (near, _), ThreadPoolExecutor(1) as pool:
            waited = Waited(near)
            sleeper = pool.submit(waited.wait)
            until(lambda: driven(near))
            waited.source.put(7)
            assert sleeper.result(PATIENCE_S) == [7]

    def test_its_time_ends_although_nothing_comes(self) -> None:
        with pair() as (near, _):
            begin = time.monotonic()
            with pytest.raises(TimeoutError):
                Waited(near).wait(0.05)
            assert time.monotonic() - begin >= 0.05

    def test_output_of_another_thread_goes_on_while_one_serves(self) -> None:
        data = os.urandom(8 << 20)
        with pair() as (near, far), ThreadPoolExecutor(1) as pool:
            waited = Waited(near)
            sleeper = pool.submit(waited.wait)
            until(lambda: driven(near))
            near.send(data)  # more than the socket takes at once
            far.wait_for(lambda: len(far.core.received) == len(data))
            assert far.core.received == data
            assert not sleeper.done()
            far.send(b"x")
            assert sleeper.result(PATIENCE_S) == [ord("x")]

    def test_output_goes_on_while_the_connection_is_on_loan(self) -> None:
        data = os.urandom(8 << 20)
        with pair() as (near, far):
            waited = Waited(near)
            with on_loan(waited):
                near.send(data)
                assert near.stream._blocked
                assert not near.stream._loaned
            far.wait_for(lambda: len(far.core.received) == len(data))

    def test_a_core_that_wants_to_read_again_is_served_by_the_thread_that_waits(self) -> None:
        with pair() as (near, far), ThreadPoolExecutor(1) as pool:
            waited = Waited(near)
            with near.runtime.lock:
                near.core.readable = False
                near.stream.pump()
            sleeper = pool.submit(waited.wait)
            until(lambda: driven(near))
            far.send(b"x")
            with near.runtime.lock:
                near.core.readable = True
                near.stream.pump()
            assert sleeper.result(PATIENCE_S) == [ord("x")]

    def test_an_end_reaches_the_peer_at_once_although_a_thread_sleeps_on_the_socket(self) -> None:
        with pair() as (near, far), ThreadPoolExecutor(1) as pool:
            waited = Waited(near)
            sleeper = pool.submit(waited.wait, 3 * PATIENCE_S)
            until(lambda: driven(near))
            near.end(Finish.CLOSE)
            far.wait_for(lambda: "eof" in far.core.log)
            assert not sleeper.done()
            waited.source.put(1)
            assert sleeper.result(PATIENCE_S) == [1]

    def test_the_connection_may_end_under_a_thread_that_serves_it(self) -> None:
        with pair() as (near, far), ThreadPoolExecutor(1) as pool:
            waited = Waited(near)
            sleeper = pool.submit(waited.wait)
            until(lambda: driven(near))
            far.end(Finish.RESET)
            near.wait_for(lambda: near.stream.closed)
            waited.source.put(1)
            assert sleeper.result(PATIENCE_S) == [1]


class TestInterrupted:
    """A thread may leave at any point by an exception; what it served is served on."""

    @pytest.mark.parametrize("where", ["asleep", "sitting down", "watching", "getting up"])
    def test_by_a_signal(self, monkeypatch: pytest.MonkeyPatch, where: str) -> None:
        def interrupted(*args: object) -> None:
            raise KeyboardInterrupt

        with pair() as (near, far):
            waited = Waited(near)
            with monkeypatch.context() as patch:
                if where == "asleep":
                    patch.setattr(Seat, "wait", interrupted)
                elif where == "sitting down":
                    patch.setattr(Engine, "_unregister", interrupted)
                elif where == "watching":
                    patch.setattr(Seat, "watch", once(interrupted, Seat.watch))
                else:
                    patch.setattr(Engine, "_give_back", once(interrupted, Engine._give_back))
                with pytest.raises(KeyboardInterrupt):
                    waited.wait(0.01)
            far.send(b"x")
            near.wait_for(lambda: bool(waited.source.entries))
            assert waited.readers == ["softndk-engine-near"]
            assert waited.wait() == [ord("x")]

    def test_in_the_core_itself_its_connection_is_reset_and_no_other(self, runtime: Runtime) -> None:
        with pair() as (near, far), pair(echo=True) as (other, _):
            waited = Waited(near)

            def interrupted() -> None:
                if me() == "MainThread":
                    raise KeyboardInterrupt

            near.core.on_data = interrupted
            threading.Timer(0.02, far.send, (b"x",)).start()
            with pytest.raises(KeyboardInterrupt):
                waited.wait()
            assert near.stream.closed
            assert near.core.error is not None
            assert near.core.error.errno == errno.ECONNABORTED
            far.wait_for(lambda: far.stream.closed)
            other.send(b"y")
            other.wait_for(lambda: other.core.received == b"y")


def once(first: Callable[..., None], then: Callable[..., None]) -> Callable[..., None]:
    calls: list[int] = []

    def call(*args: object) -> None:
        calls.append(1)
        (first if len(calls) == 1 else then)(*args)

    return call


class TestFairness:
    def test_a_flood_on_one_connection_does_not_starve_another(self, runtime: Runtime) -> None:
        accepted: list[End] = []
        listener = listening(runtime, lambda: ByteCore(echo=bool(accepted)), accepted)
        assert listener.local_address is not None
        stop = threading.Event()
        with socket.create_connection(listener.local_address, PATIENCE_S) as flood:
            until(lambda: len(accepted) == 1)

            def pour() -> None:
                while not stop.is_set():
                    flood.sendall(bytes(1 << 20))
                    with runtime.lock:
                        del accepted[0].core.received[:]

            pouring = threading.Thread(target=pour)
            pouring.start()
            try:
                with socket.create_connection(listener.local_address, PATIENCE_S) as client:
                    for _ in range(20):
                        client.sendall(b"x")
                        assert client.recv(1) == b"x"
            finally:
                stop.set()
                pouring.join(PATIENCE_S)

    def test_threads_that_wait_for_the_lock_have_their_turn_between_two_channels(
        self, runtime: Runtime, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(softndk.drivers.engine, "TURN_S", 0.0)
        monkeypatch.setattr(softndk.drivers.engine, "PAUSE_S", 1.0)
        accepted: list[End] = []
        listener = listening(runtime, ByteCore, accepted)
        address = listener.local_address
        assert address is not None
        begun = threading.Event()
        with ExitStack() as stack:
            clients = [stack.enter_context(socket.create_connection(address, PATIENCE_S)) for _ in range(3)]
            until(lambda: len(accepted) == len(clients))
            with runtime.lock:  # so that all are ready at once
                for end in accepted:
                    end.core.on_data = begun.set
                for client in clients:
                    client.sendall(b"x")
            assert begun.wait(PATIENCE_S)
            with runtime.lock:
                assert sum(len(end.core.received) for end in accepted) < len(clients)

    def test_a_flood_does_not_keep_the_lock_from_others(self, runtime: Runtime) -> None:
        accepted: list[End] = []
        listener = listening(runtime, ByteCore, accepted)
        assert listener.local_address is not None
        stop = threading.Event()
        with socket.create_connection(listener.local_address, PATIENCE_S) as flood:

            def pour() -> None:
                while not stop.is_set():
                    flood.sendall(bytes(1 << 20))

            pouring = threading.Thread(target=pour)
            pouring.start()
            try:
                longest = 0.0
                for _ in range(50):
                    begin = time.monotonic()
                    with runtime.lock:
                        longest = max(longest, time.monotonic() - begin)
                        for end in accepted:
                            del end.core.received[:]
                    threading.Event().wait(0.001)
                assert longest < PATIENCE_S / 10
            finally:
                stop.set()
                pouring.join(PATIENCE_S)


class TestTimers:
    def test_calls_come_in_the_order_of_their_times_under_the_lock(self, runtime: Runtime) -> None:
        seen: list[int] = []
        done = threading.Event()
        with runtime.lock:
            now = runtime.now()
            for number in (3, 1, 2):
                runtime.engine.call_at(now + 0.005 * number, lambda number=number: seen.append(number))  # type: ignore[misc]
            runtime.engine.call_at(now + 0.02, done.set)
        assert done.wait(PATIENCE_S)
        assert runtime.now() >= now + 0.02
        assert seen == [1, 2, 3]

    def test_an_earlier_one_is_not_held_up_by_a_sleep_until_a_later_one(self, runtime: Runtime) -> None:
        done = threading.Event()
        with runtime.lock:
            runtime.engine.call_at(runtime.now() + 3600, lambda: None)
        until(lambda: runtime.engine._sleeping)
        with runtime.lock:
            runtime.engine.call_at(runtime.now() + 0.01, done.set)
        assert done.wait(PATIENCE_S)

    def test_cancelled_ones_do_not_pile_up_until_their_time(self, runtime: Runtime) -> None:
        """Peers that come and go leave time limits behind, which may be hours away."""
        alive: list[int] = []
        with runtime.lock:
            later = runtime.now() + 3600
            kept = [runtime.engine.call_at(later - number, lambda: None) for number in range(100)]
            for _ in range(20 * TIMERS_KEPT):
                runtime.engine.call_at(later, lambda: None).cancel()
            assert len(runtime.engine._timers) <= 2 * TIMERS_KEPT
            assert {id(timer) for timer in kept} <= {id(entry[2]) for entry in runtime.engine._timers}
            runtime.engine.call_at(runtime.now(), lambda: alive.append(1))
        until(lambda: alive == [1])

    def test_a_cancelled_one_does_not_come(self, runtime: Runtime) -> None:
        seen: list[int] = []
        done = threading.Event()
        with runtime.lock:
            timer = runtime.engine.call_at(runtime.now(), lambda: seen.append(1))
            timer.cancel()
            runtime.engine.call_at(runtime.now() + 0.01, done.set)
        assert done.wait(PATIENCE_S)
        assert seen == []

    def test_one_that_raises_is_reported_and_the_others_come(self, runtime: Runtime, unraisable: list[Any]) -> None:
        done = threading.Event()
        with runtime.lock:
            runtime.engine.call_at(runtime.now(), lambda: 1 // 0)
            runtime.engine.call_at(runtime.now(), done.set)
        assert done.wait(PATIENCE_S)
        assert [seen.exc_type for seen in unraisable] == [ZeroDivisionError]

    @pytest.mark.parametrize("served_by", ["engine", "waiting thread"])
    def test_a_cores_deadline_is_kept_whoever_serves_it(self, served_by: str) -> None:
        with pair() as (near, _), ThreadPoolExecutor(1) as pool:
            waited = Waited(near)
            if served_by == "waiting thread":
                sleeper = pool.submit(waited.wait)
                until(lambda: driven(near))
            with near.runtime.lock:
                when = near.core.timeout = near.runtime.now() + 0.02
                near.stream.pump()
            near.wait_for(lambda: "timeout" in near.core.log)
            assert near.runtime.now() >= when
            if served_by == "waiting thread":
                waited.source.put(1)
                assert sleeper.result(PATIENCE_S) == [1]

    def test_a_deadline_that_is_put_off_does_not_come_early(self) -> None:
        with pair() as (near, _):
            with near.runtime.lock:
                near.core.timeout = near.runtime.now() + 0.01
                near.stream.pump()
                when = near.core.timeout = near.runtime.now() + 0.05
                near.stream.pump()
            near.wait_for(lambda: "timeout" in near.core.log)
            assert near.runtime.now() >= when
            assert near.core.log.count("timeout") == 1

    def test_a_deadline_that_is_brought_forward_comes_early(self) -> None:
        with pair() as (near, _):
            for distance in (3600.0, 0.01):
                with near.runtime.lock:
                    near.core.timeout = near.runtime.now() + distance
                    near.stream.pump()
            near.wait_for(lambda: "timeout" in near.core.log)

    def test_deadlines_that_were_replaced_leave_nothing_behind(self) -> None:
        with pair() as (near, _):
            passed = threading.Event()
            with near.runtime.lock:
                now = near.runtime.now()
                for distance in (0.03, 0.02, 0.01):
                    near.core.timeout = now + distance
                    near.stream.pump()
                near.runtime.engine.call_at(now + 0.04, passed.set)
            near.wait_for(lambda: "timeout" in near.core.log)
            with near.runtime.lock:
                near.core.timeout = now + 3600
                near.stream.pump()
            assert passed.wait(PATIENCE_S)
            with near.runtime.lock:
                assert len(near.runtime.engine._timers) == 1

    def test_a_deadline_that_is_taken_back_does_not_come(self) -> None:
        with pair() as (near, _):
            with near.runtime.lock:
                near.core.timeout = near.runtime.now() + 0.01
                near.stream.pump()
                near.core.timeout = None
                near.stream.pump()
                passed = threading.Event()
                near.runtime.engine.call_at(near.runtime.now() + 0.02, passed.set)
            assert passed.wait(PATIENCE_S)
            assert "timeout" not in near.core.log


class TestOurOwnBugs:
    def test_one_costs_its_connection_only_and_is_reported(self, unraisable: list[Any]) -> None:
        with running("near") as near, running("far") as far:
            accepted: list[End] = []
            listener = listening(far, lambda: ByteCore(echo=True), accepted)
            assert listener.local_address is not None
            ends = [End(near, ByteCore()) for _ in range(2)]
            for end in ends:
                with near.lock:
                    end.stream.connect(listener.local_address)
                end.wait_for(lambda end=end: "connected" in end.core.log)  # type: ignore[misc]

            def bug() -> None:
                raise AssertionError("bug")

            ends[0].core.on_data = bug
            for end in ends:
                end.send(b"x")
            ends[0].wait_for(lambda: ends[0].stream.closed)
            ends[1].wait_for(lambda: ends[1].core.received == b"x")
            assert ends[0].core.log[-1] == "lost"
        assert [seen.exc_type for seen in unraisable] == [AssertionError]

    def test_one_in_a_post_is_raised_to_the_caller_and_ends_the_connection(
        self, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        def bug(self: ByteCore, count: int, now: float) -> None:
            raise AssertionError("bug")

        with pair() as (near, far):
            monkeypatch.setattr(ByteCore, "data_sent", bug)
            with pytest.raises(AssertionError, match="bug"):
                near.send(b"x")
            assert near.stream.closed
            far.wait_for(lambda: far.stream.closed)

    def test_one_at_a_deadline(self, unraisable: list[Any], monkeypatch: pytest.MonkeyPatch) -> None:
        def bug(self: ByteCore, now: float) -> None:
            raise AssertionError("bug")

        with pair() as (near, _):
            monkeypatch.setattr(ByteCore, "handle_timeout", bug)
            with near.runtime.lock:
                near.core.timeout = near.runtime.now()
                near.stream.pump()
            near.wait_for(lambda: near.stream.closed)
        assert [seen.exc_type for seen in unraisable] == [AssertionError]


class TestTheEnd:
    def test_without_any_channel_there_is_no_thread_and_no_descriptor(self) -> None:
        before = descriptors(), threading.active_count()
        with running() as runtime:
            assert (descriptors(), threading.active_count()) == before
            assert runtime.engine.join(0)
        assert (descriptors(), threading.active_count()) == before

    def test_threads_and_descriptors_are_gone_after_stop(self) -> None:
        before = descriptors(), threading.active_count()
        with pair(echo=True) as (near, _):
            waited = Waited(near)
            near.send(b"x")
            assert waited.wait() == [ord("x")]
            assert descriptors() > before[0]
        assert (descriptors(), threading.active_count()) == before

    def test_stop_drops_what_is_open_and_tells_it(self) -> None:
        with pair() as (near, far):
            with near.runtime.lock:
                near.runtime.engine.stop()
            assert near.core.log == ["connected", "lost"]
            far.wait_for(lambda: far.stream.closed)
            with near.runtime.lock:
                near.runtime.engine.stop()
                near.runtime.engine.linger(1)

    def test_lingering_sends_the_rest_then_ends_by_itself(self) -> None:
        data = os.urandom(8 << 20)
        with pair() as (near, far):
            with far.runtime.lock:
                far.core.readable = False
                far.stream.pump()
            with near.runtime.lock:
                near.core.ending = Finish.SHUTDOWN
                near.core.timeout = near.runtime.now() + 3600
                near.core.on_data = None
                near.core.outgoing += data
                near.stream.pump()
                near.runtime.engine.linger(PATIENCE_S)
            assert not near.runtime.engine.join(0.01)
            with far.runtime.lock:
                far.core.readable = True
                far.stream.pump()
            far.wait_for(lambda: "eof" in far.core.log)
            assert far.core.received == data
            near.end(Finish.CLOSE)
            assert near.runtime.engine.join(PATIENCE_S)

    def test_lingering_is_bounded(self) -> None:
        with pair() as (near, far):
            with near.runtime.lock:
                near.runtime.engine.linger(0.02)
            assert near.runtime.engine.join(PATIENCE_S)
            assert near.core.log == ["connected", "lost"]
            far.wait_for(lambda: far.stream.closed)

    def test_a_loan_does_not_outlive_the_beginning_of_lingering(self) -> None:
        with pair() as (near, far):
            waited = Waited(near)
            with on_loan(waited):
                near.runtime.engine.linger(PATIENCE_S)
            assert waited.served_by_engine()
            far.send(b"x")
            near.wait_for(lambda: bool(waited.source.entries))

    def test_a_thread_may_wait_on_while_the_engine_lingers_and_ends(self) -> None:
        with pair() as (near, far), ThreadPoolExecutor(1) as pool:
            waited = Waited(near)
            sleeper = pool.submit(waited.wait)
            until(lambda: driven(near))
            with near.runtime.lock:
                near.runtime.engine.linger(PATIENCE_S)
            far.send(b"x")
            assert sleeper.result(PATIENCE_S) == [ord("x")]
            sleeper = pool.submit(waited.wait)
            until(lambda: driven(near))
            near.end(Finish.CLOSE)
            assert near.runtime.engine.join(PATIENCE_S)
            waited.source.put(1)
            assert sleeper.result(PATIENCE_S) == [1]

    def test_join_in_the_engines_own_thread_returns_at_once(self, runtime: Runtime) -> None:
        seen: list[bool] = []
        done = threading.Event()

        def look() -> None:
            seen.append(runtime.engine.join())
            done.set()

        with runtime.lock:
            runtime.engine.call_at(0, look)
        assert done.wait(PATIENCE_S)
        assert seen == [False]

    def test_a_forgotten_engine_is_collected_with_its_thread_and_its_sockets(self) -> None:
        before = descriptors(), threading.active_count()
        with running("far") as far:
            accepted: list[End] = []
            listener = listening(far, ByteCore, accepted)
            assert listener.local_address is not None

            def forget() -> None:
                assert listener.local_address is not None
                end = End(Runtime("forgotten"), ByteCore())
                with end.runtime.lock:
                    end.stream.connect(listener.local_address)
                end.wait_for(lambda: "connected" in end.core.log)
                until(lambda: end.runtime.engine._sleeping)

            forget()
            until(lambda: len(accepted) == 1)
            gc.collect()
            accepted[0].wait_for(lambda: accepted[0].stream.closed or "eof" in accepted[0].core.log)
        until(lambda: (descriptors(), threading.active_count()) == before)

    def test_last_words_still_get_out_at_the_interpreters_exit(self) -> None:
        with socket.create_server(("127.0.0.1", 0)) as server:
            server.settimeout(PATIENCE_S)
            child = subprocess.Popen([sys.executable, "-c", LAST_WORDS, str(server.getsockname()[1])], cwd=os.getcwd())
            peer, _ = server.accept()
            with peer:
                peer.settimeout(PATIENCE_S)
                assert peer.recv(1) == b"."  # the rest does not fit the sockets' buffers
                count = 1
                while part := peer.recv(1 << 20):
                    count += len(part)
            assert child.wait(PATIENCE_S) == 0
        assert count == 32 << 20


LAST_WORDS = textwrap.dedent("""
    import sys
    from softndk.iwarp.events import Finish
    from tests.unit.drivers.driver_parts import ByteCore, End, Runtime

    class Leaving(ByteCore):
        def finish(self):
            return Finish.CLOSE if self.ending is Finish.SHUTDOWN and not self.outgoing else Finish.KEEP

    end = End(Runtime("leaving"), Leaving())
    with end.runtime.lock:
        end.stream.connect(("127.0.0.1", int(sys.argv[1])))
    end.wait_for(lambda: "connected" in end.core.log)
    with end.runtime.lock:
        end.core.outgoing += b"." * (32 << 20)
        end.core.ending = Finish.SHUTDOWN
        end.stream.pump()
        assert end.core.outgoing
        end.runtime.engine.linger(60)
""")


def descriptors() -> int:
    gc.collect()
    return len(os.listdir("/proc/self/fd")) if os.path.isdir("/proc/self/fd") else 0


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork on this system")
class TestFork:
    def test_the_child_gives_back_its_copies_and_disturbs_nothing(self) -> None:
        with pair(echo=True) as (near, _):
            waited = Waited(near)
            near.send(b"x")
            assert waited.wait() == [ord("x")]
            child = os.fork()
            if child == 0:
                code = 1
                try:
                    assert near.runtime.forked
                    assert near.stream._sock is not None
                    assert near.stream._sock.fileno() == -1
                    with near.runtime.lock:
                        assert near.runtime.engine.channels == ()
                    code = 0
                finally:
                    os._exit(code)
            assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
            assert not near.runtime.forked
            near.send(b"y")
            assert waited.wait() == [ord("y")]

    def test_a_connection_can_be_ended_while_a_child_lives(self) -> None:
        with pair() as (near, far):
            ready, go = os.pipe()
            child = os.fork()
            if child == 0:
                os.close(go)
                os.read(ready, 1)  # until the parent has closed its end
                os._exit(0)
            os.close(ready)
            near.end(Finish.RESET)
            far.wait_for(lambda: far.stream.closed)
            os.close(go)
            assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0


class TouchySelector(selectors.SelectSelector):
    """Fails now and then as `select` does when another thread has closed a socket just before the call."""

    calls = 0

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        self.calls += 1
        if self.calls % 3 == 0:
            raise OSError(errno.EBADF, "Bad file descriptor")
        return super().select(timeout)


class TestWithoutLending:
    """Selectors that cannot be changed while another thread is in them: everything works, by the engine's thread."""

    @pytest.fixture(autouse=True)
    def plain_select(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(selectors, "DefaultSelector", TouchySelector)
        monkeypatch.setattr(softndk.drivers.engine, "LIVE_SELECTOR", False)
        monkeypatch.setattr(softndk.drivers.seats, "LIVE_SELECTOR", False)
        monkeypatch.setattr(softndk.drivers.engine, "_CAN_LEND", False)

    def test_waiting(self) -> None:
        with pair(echo=True) as (near, _):
            waited = Waited(near)
            for number in range(50):
                near.send(bytes([number]))
                assert waited.wait() == [number]
            assert set(waited.readers) == {"softndk-engine-near"}

    def test_big_output_and_holding_back(self) -> None:
        data = os.urandom(8 << 20)
        with pair() as (near, far):
            with far.runtime.lock:
                far.core.readable = False
                far.stream.pump()
            near.send(data)
            with far.runtime.lock:
                far.core.readable = True
                far.stream.pump()
            far.wait_for(lambda: len(far.core.received) == len(data))


def test_a_waiter_that_is_already_woken_does_not_sleep(runtime: Runtime) -> None:
    waiter = ThreadWaiter()
    with runtime.lock:
        waiter.wake()
    runtime.block(waiter, None, list)
