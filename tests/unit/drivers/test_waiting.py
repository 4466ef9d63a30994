"""softndk.drivers.waiting: api-rules "Waiting on a CQ", sentence by sentence.

A sleeper that is woken but has not run yet is made on purpose: a thread cannot run while the test holds the lock, an
asyncio task cannot while the test's own task does not yield.
"""

import asyncio
import gc
import threading
import time
from collections.abc import Callable, Coroutine, Iterator
from concurrent.futures import CancelledError, Future, ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any, TypeVar

import pytest
import trio

import softndk.drivers.waiting
from softndk.drivers.pending import Pending
from softndk.drivers.runtime import Runtime
from softndk.drivers.waiters import ThreadWaiter
from softndk.drivers.waiting import OVERDUE_S
from softndk.errors import InvalidHandle
from tests.unit.drivers.driver_parts import PATIENCE_S, Entries, running, until

_T = TypeVar("_T")
ANY = 1
EVEN = 2


@pytest.fixture
def runtime() -> Iterator[Runtime]:
    with running() as made:
        yield made


@pytest.fixture(autouse=True)
def no_second_chance(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Switch off the watch over batons that nobody picks up: it would hide those that nobody passes on."""
    if "moment" not in request.node.name:
        monkeypatch.setattr(softndk.drivers.waiting, "OVERDUE_S", 1e6)


@pytest.fixture
def source(runtime: Runtime) -> Entries:
    return Entries(runtime)


@pytest.fixture
def pool(source: Entries) -> Iterator[ThreadPoolExecutor]:
    """Threads to wait in; those that still do at the end are released."""
    with ThreadPoolExecutor(16) as made:
        yield made
        source.fail(InvalidHandle("the test is over"))


def wait(source: Entries, timeout: float | None = 3 * PATIENCE_S, *, limit: int = 64, kind: int = ANY) -> list[int]:
    return source.line.call(kind, limit).result(timeout)


def sleeping(
    pool: ThreadPoolExecutor,
    source: Entries,
    timeout: float | None = 3 * PATIENCE_S,
    *,
    limit: int = 64,
    kind: int = ANY,
) -> "Future[list[int]]":
    """A thread that stands in line, after all that did before."""
    before = source.waiting()
    future = pool.submit(wait, source, timeout, limit=limit, kind=kind)
    until(lambda: source.waiting() == before + 1)
    return future


def outcome(future: "Future[list[int]]") -> list[int]:
    return future.result(PATIENCE_S)


def run(main: Callable[[], Coroutine[Any, Any, _T]]) -> _T:
    return asyncio.run(asyncio.wait_for(main(), 2 * PATIENCE_S))


def task(source: Entries, *, limit: int = 64, kind: int = ANY) -> "asyncio.Task[list[int]]":
    async def awaiting() -> list[int]:
        return await source.line.call(kind, limit)

    return asyncio.ensure_future(awaiting())


def baton_is_free(source: Entries) -> bool:
    with source.runtime.lock:
        return source.line._baton is None


def get_results(source: Entries) -> list[int]:
    with source.runtime.lock:
        return source.take(1000)


class TestTheLevel:
    def test_an_entry_that_is_there_is_taken_at_once(self, source: Entries) -> None:
        source.put(1, 2, 3)
        assert wait(source) == [1, 2, 3]

    def test_up_to_max_results_are_taken_oldest_first(self, source: Entries) -> None:
        source.put(1, 2, 3)
        assert wait(source, limit=2) == [1, 2]
        assert wait(source, limit=2) == [3]

    def test_a_thread_is_woken_by_an_entry(self, source: Entries, pool: ThreadPoolExecutor) -> None:
        sleeper = sleeping(pool, source)
        source.put(1)
        assert outcome(sleeper) == [1]
        assert source.waiting() == 0

    def test_a_task_is_woken_by_an_entry(self, source: Entries) -> None:
        async def main() -> list[int]:
            threading.Timer(0.01, source.put, (1,)).start()
            return await source.line.call(ANY, 64)

        assert run(main) == [1]
        assert trio.run(main) == [1]

    def test_only_a_matching_entry_ends_the_wait_but_then_all_types_are_taken(
        self, source: Entries, pool: ThreadPoolExecutor
    ) -> None:
        sleeper = sleeping(pool, source, kind=EVEN)
        source.put(1, 3)
        with pytest.raises(TimeoutError):
            wait(source, 0, kind=EVEN)
        assert not sleeper.done()
        source.put(4)
        assert outcome(sleeper) == [1, 3, 4]

    def test_an_entry_is_for_the_first_whose_kind_it_matches(self, source: Entries, pool: ThreadPoolExecutor) -> None:
        even = sleeping(pool, source, kind=EVEN)
        anything = sleeping(pool, source)
        source.put(1)
        assert outcome(anything) == [1]
        assert not even.done()
        source.put(2)
        assert outcome(even) == [2]

    def test_who_waits_for_another_kind_does_not_hold_up_a_new_one(
        self, source: Entries, pool: ThreadPoolExecutor
    ) -> None:
        even = sleeping(pool, source, kind=EVEN)
        source.put(1)
        assert wait(source, 0) == [1]
        source.put(2)
        assert outcome(even) == [2]


class TestTakingAtTheMomentOfReturn:
    def test_a_woken_thread_that_finds_nothing_waits_on(
        self, runtime: Runtime, source: Entries, pool: ThreadPoolExecutor
    ) -> None:
        sleeper = sleeping(pool, source)
        with runtime.lock:
            source.put(1)
            assert get_results(source) == [1]
        until(lambda: baton_is_free(source))
        assert not sleeper.done()
        source.put(2)
        assert outcome(sleeper) == [2]

    def test_it_waits_on_with_the_same_deadline(
        self, runtime: Runtime, source: Entries, pool: ThreadPoolExecutor
    ) -> None:
        begin = time.monotonic()
        sleeper = sleeping(pool, source, 0.2)
        pause = threading.Event()
        while not sleeper.done():
            with runtime.lock:
                source.put(1)
                get_results(source)
            pause.wait(0.01)
        with pytest.raises(TimeoutError):
            outcome(sleeper)
        assert 0.2 <= time.monotonic() - begin < 0.2 + PATIENCE_S

    def test_it_keeps_its_place(self, runtime: Runtime, source: Entries, pool: ThreadPoolExecutor) -> None:
        first = sleeping(pool, source)
        second = sleeping(pool, source)
        with runtime.lock:
            source.put(1)
            get_results(source)
        until(lambda: baton_is_free(source))
        source.put(2)
        assert outcome(first) == [2]
        source.put(3)
        assert outcome(second) == [3]

    def test_a_woken_task_takes_what_is_there_when_it_runs(self, source: Entries) -> None:
        async def main() -> list[int]:
            waiting = task(source)
            await asyncio.sleep(0)
            source.put(1)
            assert get_results(source) == [1]
            source.put(2)
            source.put(3)
            return await waiting

        assert run(main) == [2, 3]

    def test_a_woken_task_that_finds_nothing_waits_on(self, source: Entries) -> None:
        async def main() -> list[int]:
            waiting = task(source)
            await asyncio.sleep(0)
            for number in range(3):
                source.put(number)
                get_results(source)
                for _ in range(5):
                    await asyncio.sleep(0)
            assert not waiting.done()
            source.put(7)
            return await waiting

        assert run(main) == [7]

    def test_a_woken_trio_task_that_finds_nothing_waits_on(self, source: Entries) -> None:
        async def main() -> list[int]:
            got: list[int] = []

            async def waiting() -> None:
                got.extend(await source.line.call(ANY, 64))

            async with trio.open_nursery() as nursery:
                nursery.start_soon(waiting)
                await trio.testing.wait_all_tasks_blocked()
                for number in range(3):
                    source.put(number)
                    get_results(source)
                    await trio.testing.wait_all_tasks_blocked()
                assert got == []
                source.put(7)
            return got

        assert trio.run(main) == [7]


class TestTheLine:
    def test_first_come_first_served(self, source: Entries, pool: ThreadPoolExecutor) -> None:
        sleepers = [sleeping(pool, source, limit=1) for _ in range(5)]
        for number, sleeper in enumerate(sleepers):
            source.put(number)
            assert outcome(sleeper) == [number]

    def test_who_leaves_some_wakes_the_next(self, source: Entries, pool: ThreadPoolExecutor) -> None:
        sleepers = [sleeping(pool, source, limit=2) for _ in range(3)]
        source.put(1, 2, 3, 4, 5)
        assert [outcome(sleeper) for sleeper in sleepers] == [[1, 2], [3, 4], [5]]

    def test_who_finds_nothing_for_itself_wakes_the_next_for_whom_there_is(
        self, runtime: Runtime, source: Entries, pool: ThreadPoolExecutor
    ) -> None:
        even = sleeping(pool, source, kind=EVEN)
        anything = sleeping(pool, source)
        with runtime.lock:
            source.put(2)
            get_results(source)
            source.put(1)
        assert outcome(anything) == [1]
        assert not even.done()

    def test_one_entry_wakes_one_sleeper_only(
        self, runtime: Runtime, source: Entries, pool: ThreadPoolExecutor
    ) -> None:
        woken: list[ThreadWaiter] = []
        for _ in range(4):
            sleeping(pool, source)
        with runtime.lock:
            source.put(1)
            source.put(2)
            for call in source.line._line:
                woken += [each for each in call._waiters if isinstance(each, ThreadWaiter) and each.woken]
        assert len(woken) == 1

    def test_a_pending_that_nobody_waits_for_takes_nothing_and_holds_up_nobody(
        self, source: Entries, pool: ThreadPoolExecutor
    ) -> None:
        abandoned = source.line.call(ANY, 64)
        assert source.waiting() == 0
        sleeper = sleeping(pool, source)
        source.put(1)
        assert outcome(sleeper) == [1]
        assert not abandoned.done()

    def test_a_new_wait_does_not_overtake_one_that_has_been_woken(self, source: Entries) -> None:
        async def main() -> list[int]:
            waiting = task(source)
            await asyncio.sleep(0)
            source.put(1)
            assert not source.line.call(ANY, 64).done()
            return await waiting

        assert run(main) == [1]

    def test_each_entry_reaches_exactly_one(self, source: Entries, pool: ThreadPoolExecutor) -> None:
        sleepers = [sleeping(pool, source, limit=3) for _ in range(10)]
        source.put(*range(25))
        until(lambda: source.waiting() == 1)
        source.put(25)
        got = [entry for sleeper in sleepers for entry in outcome(sleeper)]
        assert sorted(got) == list(range(26))


class TestExpiry:
    def test_a_plain_timeouterror_with_a_text_never_an_empty_list(self, source: Entries) -> None:
        with pytest.raises(TimeoutError, match="cq1 wait: 0 entries") as caught:
            wait(source, 0.01)
        assert type(caught.value) is TimeoutError
        assert source.waiting() == 0

    def test_nobody_expires_while_a_matching_entry_is_there(self, source: Entries) -> None:
        async def main() -> list[int]:
            waiting = task(source)
            await asyncio.sleep(0)
            source.put(1)  # for the task, which cannot run yet
            with ThreadPoolExecutor(1) as one:
                assert one.submit(wait, source, 0).result() == [1]
            source.put(2)
            return await waiting

        assert run(main) == [2]

    def test_who_expires_once_woken_takes_what_is_there(
        self, runtime: Runtime, source: Entries, pool: ThreadPoolExecutor
    ) -> None:
        sleeper = sleeping(pool, source, 0.05)
        with runtime.lock:
            threading.Event().wait(0.06)  # its time is over, but it cannot say so
            source.put(1)
        assert outcome(sleeper) == [1]

    def test_who_expires_once_woken_and_finds_nothing_wakes_the_next(
        self, runtime: Runtime, source: Entries, pool: ThreadPoolExecutor
    ) -> None:
        first = sleeping(pool, source, 0.05, kind=EVEN)
        second = sleeping(pool, source)
        with runtime.lock:
            source.put(2)
            get_results(source)
            source.put(1)
            threading.Event().wait(0.06)
        assert outcome(second) == [1]
        with pytest.raises(TimeoutError):
            outcome(first)


class TestCancelledOnceWoken:
    """The next in line is woken whatever becomes of the one that was."""

    def test_an_asyncio_task(self, source: Entries) -> None:
        async def main() -> list[int]:
            first, second = task(source), task(source)
            await asyncio.sleep(0)
            source.put(1)
            first.cancel()
            got = await second
            assert first.cancelled()
            return got

        assert run(main) == [1]

    def test_an_asyncio_task_whose_wakeup_is_already_under_way(self, source: Entries) -> None:
        async def main() -> list[int]:
            first, second = task(source), task(source)
            await asyncio.sleep(0)
            source.put(1)
            await asyncio.sleep(0)  # now its future is done, but it has not run
            first.cancel()
            got = await second
            assert first.cancelled()
            return got

        assert run(main) == [1]

    def test_wait_for_that_expires_at_the_same_time_loses_nothing(self, source: Entries) -> None:
        async def main() -> None:
            for number in range(200):
                call = source.line.call(ANY, 64)
                waiting = asyncio.ensure_future(asyncio.wait_for(call, (number % 7) * 1e-5))
                for _ in range(number % 5):
                    await asyncio.sleep(0)
                source.put(number)
                try:
                    got = await waiting
                except TimeoutError:
                    got = get_results(source)
                assert got == [number]

        run(main)

    def test_a_trio_task(self, source: Entries) -> None:
        async def main() -> list[int]:
            got: list[int] = []
            scope = trio.CancelScope()

            async def first() -> None:
                with scope:
                    got.extend(await source.line.call(ANY, 64))

            async def second() -> None:
                got.extend([100, *await source.line.call(ANY, 64)])

            async with trio.open_nursery() as nursery:
                nursery.start_soon(first)
                await trio.testing.wait_all_tasks_blocked()
                nursery.start_soon(second)
                await trio.testing.wait_all_tasks_blocked()
                source.put(1)
                scope.cancel()
            return got

        assert trio.run(main) == [100, 1]

    def test_a_closed_coroutine(self, source: Entries, pool: ThreadPoolExecutor) -> None:
        async def main() -> None:
            awaiting = source.line.call(ANY, 64).__await__()
            next(awaiting)
            sleeper = sleeping(pool, source)
            source.put(1)
            assert not sleeper.done()
            awaiting.close()
            assert await asyncio.wrap_future(sleeper) == [1]

        run(main)

    def test_a_loop_closed_before_the_entry_came(self, source: Entries, pool: ThreadPoolExecutor) -> None:
        with closed_loop_in_line(source) as close:
            close()
            sleeper = sleeping(pool, source)
            source.put(1)
            assert outcome(sleeper) == [1]
            assert source.waiting() == 0

    def test_a_loop_closed_after_the_wakeup_holds_up_another_for_a_moment_only(
        self, source: Entries, pool: ThreadPoolExecutor
    ) -> None:
        with closed_loop_in_line(source) as close:
            sleeper = sleeping(pool, source)
            source.put(1)
            close()
            assert outcome(sleeper) == [1]

    def test_a_loop_closed_after_the_wakeup_before_another_waits(self, source: Entries) -> None:
        with closed_loop_in_line(source) as close:
            source.put(1)
            close()
            assert source.line.call(ANY, 64).done()

    def test_an_interrupted_thread(
        self, runtime: Runtime, source: Entries, pool: ThreadPoolExecutor, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        block = Runtime.block
        with monkeypatch.context() as patch:

            def interrupted(self: Runtime, *args: Any) -> None:
                block(self, *args)
                raise KeyboardInterrupt

            patch.setattr(Runtime, "block", interrupted)
            first = sleeping(pool, source)
            patch.setattr(Runtime, "block", block)
            second = sleeping(pool, source)
            source.put(1)
            with pytest.raises(KeyboardInterrupt):
                outcome(first)
            assert outcome(second) == [1]

    def test_a_task_behind_a_computation_holds_up_the_others_for_a_moment_only(
        self, source: Entries, pool: ThreadPoolExecutor
    ) -> None:
        async def main() -> list[int]:
            waiting = task(source)
            await asyncio.sleep(0)
            sleeper = sleeping(pool, source)
            begin = time.monotonic()
            source.put(1)
            assert outcome(sleeper) == [1]  # this blocks the loop
            assert time.monotonic() - begin >= OVERDUE_S * 0.9
            source.put(2)
            return await waiting

        assert run(main) == [2]

    def test_a_busy_callback_thread_holds_up_the_others_for_a_moment_only(
        self, runtime: Runtime, source: Entries, pool: ThreadPoolExecutor
    ) -> None:
        release = threading.Event()
        runtime.dispatcher.submit(release.wait)
        got: list[list[int]] = []
        source.line.call(ANY, 64).add_done_callback(lambda pending: got.append(pending.result()))
        sleeper = sleeping(pool, source)
        source.put(1)
        assert outcome(sleeper) == [1]
        source.put(2)
        release.set()
        until(lambda: got == [[2]])


@contextmanager
def closed_loop_in_line(source: Entries) -> Iterator[Callable[[], None]]:
    """Somebody stands in line whose loop can be closed under him, without his task's being cancelled."""
    loop = asyncio.new_event_loop()
    awaiting = source.line.call(ANY, 64).__await__()

    async def start() -> None:
        next(awaiting)

    loop.run_until_complete(start())
    assert source.waiting() == 1
    try:
        yield loop.close
    finally:
        loop.close()
        awaiting.close()


class TestFailureAndClose:
    def test_after_a_failure_the_remaining_entries_come_first_then_every_wait_raises(self, source: Entries) -> None:
        source.put(1, 2, 3)
        source.fail(InvalidHandle("cq1: closed"))
        assert wait(source, limit=2) == [1, 2]
        assert wait(source, limit=2) == [3]
        for _ in range(3):
            with pytest.raises(InvalidHandle):
                wait(source, limit=2)

    def test_close_wakes_every_waiter_each_with_its_own_instance(
        self, source: Entries, pool: ThreadPoolExecutor
    ) -> None:
        sleepers = [sleeping(pool, source) for _ in range(3)]

        async def main() -> list[BaseException | list[int]]:
            tasks = [task(source, kind=EVEN) for _ in range(2)]
            await asyncio.sleep(0)
            source.fail(InvalidHandle("cq1: closed"))
            return await asyncio.gather(*tasks, return_exceptions=True)

        errors = [*run(main), *(sleeper.exception(PATIENCE_S) for sleeper in sleepers)]
        assert [type(error) for error in errors] == [InvalidHandle] * 5
        assert len({id(error) for error in errors}) == 5
        assert source.waiting() == 0

    def test_close_wakes_all_at_once_not_one_by_one(
        self, runtime: Runtime, source: Entries, pool: ThreadPoolExecutor
    ) -> None:
        for _ in range(3):
            sleeping(pool, source)
        with runtime.lock:
            sleepers = [each for call in source.line._line for each in call._waiters]
            source.fail(InvalidHandle("cq1: closed"))
            assert [isinstance(each, ThreadWaiter) and each.woken for each in sleepers] == [True] * 3

    def test_a_failure_that_nobody_fetched_is_not_logged(
        self, source: Entries, caplog: pytest.LogCaptureFixture
    ) -> None:
        call = source.line.call(ANY, 1)
        source.fail(InvalidHandle("cq1: closed"))
        assert call.done()
        del call
        gc.collect()
        assert caplog.records == []

    def test_close_reaches_callbacks(self, runtime: Runtime, source: Entries) -> None:
        got: list[BaseException | None] = []
        source.line.call(ANY, 1).add_done_callback(lambda pending: got.append(pending.exception()))
        source.fail(InvalidHandle("cq1: closed"))
        assert runtime.dispatcher.drain(PATIENCE_S)
        assert [type(error) for error in got] == [InvalidHandle]


class TestOnePendingManyWaiters:
    def test_they_share_its_one_result(self, source: Entries, pool: ThreadPoolExecutor) -> None:
        call = source.line.call(ANY, 64)
        threads = [pool.submit(call.result, 3 * PATIENCE_S) for _ in range(3)]

        async def awaiting() -> list[int]:
            return await call

        loops = [pool.submit(asyncio.run, awaiting()), pool.submit(trio.run, awaiting)]
        until(lambda: len(call._waiters) == 5)
        assert source.waiting() == 1
        source.put(1)
        assert [outcome(each) for each in [*threads, *loops]] == [[1]] * 5
        source.put(2)
        assert call.result() == [1]
        assert get_results(source) == [2]

    def test_one_that_leaves_once_woken_leaves_the_turn_to_the_others(
        self, source: Entries, pool: ThreadPoolExecutor
    ) -> None:
        async def main() -> None:
            call = source.line.call(ANY, 64)

            async def awaiting() -> list[int]:
                return await call

            first = asyncio.ensure_future(awaiting())
            await asyncio.sleep(0)
            source.put(1)  # for the task, which cannot run yet
            get_results(source)
            thread = pool.submit(call.result, 3 * PATIENCE_S)
            until(lambda: len(call._waiters) == 2)
            source.put(2)
            first.cancel()
            assert await asyncio.wrap_future(thread) == [2]

        run(main)

    def test_one_that_leaves_does_not_end_the_others_wait(self, source: Entries, pool: ThreadPoolExecutor) -> None:
        call = source.line.call(ANY, 64)
        thread = pool.submit(call.result, 3 * PATIENCE_S)
        until(lambda: source.waiting() == 1)
        with pytest.raises(TimeoutError):
            call.result(0.01)
        assert source.waiting() == 1
        source.put(1)
        assert outcome(thread) == [1]


class TestDone:
    def test_it_takes_if_nobody_is_ahead(self, source: Entries) -> None:
        call = source.line.call(ANY, 2)
        assert not call.done()
        source.put(1, 2, 3)
        assert call.done()
        assert call.result() == [1, 2]
        assert get_results(source) == [3]

    def test_it_takes_nothing_if_somebody_is(self, runtime: Runtime, source: Entries, pool: ThreadPoolExecutor) -> None:
        sleeper = sleeping(pool, source)
        call = source.line.call(ANY, 2)
        with runtime.lock:
            source.put(1)
            assert not call.done()
        assert outcome(sleeper) == [1]

    def test_result_is_allowed_where_blocking_is_not_if_entries_are_there(
        self, runtime: Runtime, source: Entries
    ) -> None:
        source.put(1, 2)

        async def main() -> list[int]:
            return wait(source, limit=1)

        assert run(main) == [1]
        got: list[list[int]] = []
        runtime.dispatcher.submit(lambda: got.append(wait(source, limit=1)))
        assert runtime.dispatcher.drain(PATIENCE_S)
        assert got == [[2]]


class TestCancel:
    def test_it_takes_nothing_and_releases_the_waiters(self, source: Entries, pool: ThreadPoolExecutor) -> None:
        call = source.line.call(ANY, 64)
        thread = pool.submit(call.result, 3 * PATIENCE_S)
        until(lambda: source.waiting() == 1)
        assert call.cancel() is True
        with pytest.raises(CancelledError):
            outcome(thread)
        assert source.waiting() == 0
        source.put(1)
        assert get_results(source) == [1]

    def test_it_is_false_once_entries_have_been_taken(self, source: Entries) -> None:
        source.put(1)
        call = source.line.call(ANY, 64)
        assert call.result() == [1]
        assert call.cancel() is False
        assert call.result() == [1]

    def test_cancelled_once_woken_it_wakes_the_next(
        self, runtime: Runtime, source: Entries, pool: ThreadPoolExecutor
    ) -> None:
        call = source.line.call(ANY, 64)
        first = pool.submit(call.result, 3 * PATIENCE_S)
        until(lambda: source.waiting() == 1)
        second = sleeping(pool, source)
        with runtime.lock:
            source.put(1)
            assert call.cancel()
        assert outcome(second) == [1]
        with pytest.raises(CancelledError):
            outcome(first)

    def test_its_callbacks_are_told(self, runtime: Runtime, source: Entries) -> None:
        call = source.line.call(ANY, 64)
        got: list[BaseException | None] = []
        call.add_done_callback(lambda pending: got.append(pending.exception()))
        assert call.cancel()
        assert runtime.dispatcher.drain(PATIENCE_S)
        assert [type(error) for error in got] == [CancelledError]

    def test_cancelling_the_await_leaves_the_pending_usable(self, source: Entries) -> None:
        call = source.line.call(ANY, 64)

        async def main() -> None:
            with pytest.raises(TimeoutError):
                await asyncio.wait_for(call, 0.01)
            source.put(1)
            assert await call == [1]

        run(main)


class TestCallbacks:
    def test_entries_are_taken_when_the_callback_is_dispatched_not_before(
        self, runtime: Runtime, source: Entries
    ) -> None:
        release = threading.Event()
        runtime.dispatcher.submit(release.wait)
        got: list[list[int]] = []
        source.line.call(ANY, 64).add_done_callback(lambda pending: got.append(pending.result()))
        source.put(1)
        assert get_results(source) == [1]
        source.put(2)
        source.put(3)
        release.set()
        until(lambda: got == [[2, 3]])

    def test_a_callback_that_finds_nothing_waits_on(self, runtime: Runtime, source: Entries) -> None:
        got: list[list[int]] = []
        source.line.call(ANY, 64).add_done_callback(lambda pending: got.append(pending.result()))
        for number in range(3):
            with runtime.lock:
                source.put(number)
                get_results(source)
            assert runtime.dispatcher.drain(PATIENCE_S)
        assert got == []
        source.put(7)
        assert runtime.dispatcher.drain(PATIENCE_S)
        assert got == [[7]]

    def test_several_callbacks_see_the_same_result_in_order(self, runtime: Runtime, source: Entries) -> None:
        call = source.line.call(ANY, 64)
        got: list[tuple[int, list[int]]] = []
        for number in range(3):
            call.add_done_callback(lambda pending, number=number: got.append((number, pending.result())))  # type: ignore[misc]
        source.put(5)
        assert runtime.dispatcher.drain(PATIENCE_S)
        call.add_done_callback(lambda pending: got.append((3, pending.result())))
        assert runtime.dispatcher.drain(PATIENCE_S)
        assert got == [(0, [5]), (1, [5]), (2, [5]), (3, [5])]

    def test_a_callback_and_a_thread_share_the_result(
        self, runtime: Runtime, source: Entries, pool: ThreadPoolExecutor
    ) -> None:
        call = source.line.call(ANY, 64)
        got: list[list[int]] = []
        call.add_done_callback(lambda pending: got.append(pending.result()))
        thread = pool.submit(call.result, 3 * PATIENCE_S)
        until(lambda: len(call._waiters) == 1)
        source.put(5)
        assert outcome(thread) == [5]
        until(lambda: got == [[5]])

    def test_a_callback_is_reached_though_the_only_thread_gave_up(self, runtime: Runtime, source: Entries) -> None:
        call = source.line.call(ANY, 64)
        got: list[list[int]] = []
        call.add_done_callback(lambda pending: got.append(pending.result()))
        with pytest.raises(TimeoutError):
            call.result(0.01)
        source.put(5)
        until(lambda: got == [[5]])

    def test_one_given_when_entries_are_there_already(self, runtime: Runtime, source: Entries) -> None:
        source.put(1)
        got: list[list[int]] = []
        source.line.call(ANY, 64).add_done_callback(lambda pending: got.append(pending.result()))
        until(lambda: got == [[1]])

    def test_a_callback_may_wait_for_the_next_by_a_callback(self, runtime: Runtime, source: Entries) -> None:
        got: list[int] = []

        def again(pending: Pending[list[int]]) -> None:
            got.extend(pending.result())
            source.line.call(ANY, 1).add_done_callback(again)

        source.line.call(ANY, 1).add_done_callback(again)
        source.put(*range(50))
        until(lambda: got == list(range(50)))

    def test_a_coroutine_function_is_refused(self, source: Entries) -> None:
        async def callback(pending: Pending[list[int]]) -> None: ...

        with pytest.raises(TypeError):
            source.line.call(ANY, 1).add_done_callback(callback)
        assert source.waiting() == 0


class TestOneByOne:
    def test_call_one_gives_the_entry_itself(self, source: Entries) -> None:
        source.put(4, 5)
        assert source.line.call_one(ANY).result() == 4
        assert get_results(source) == [5]

    def test_a_task_that_takes_one_a_step_loses_nothing_when_it_stops(self, source: Entries) -> None:
        async def main() -> None:
            source.put(1, 2, 3)
            async for entry in steps(source):
                if entry == 2:
                    break
            assert get_results(source) == [3]

        run(main)


async def steps(source: Entries) -> Any:
    while True:
        yield await source.line.call_one(ANY)


def test_an_unused_line_costs_no_thread(runtime: Runtime, source: Entries) -> None:
    before = threading.active_count()
    source.put(1, 2)
    assert wait(source) == [1, 2]
    assert threading.active_count() == before
