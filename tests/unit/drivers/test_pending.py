"""softndk.drivers.pending: api-rules "Pending", paragraph by paragraph."""

import asyncio
import contextlib
import gc
import logging
import os
import threading
import traceback
import weakref
from collections.abc import Callable, Coroutine, Generator, Iterator
from concurrent.futures import CancelledError, ThreadPoolExecutor
from typing import Any

import pytest
import trio

from softndk.drivers.pending import Pending, Promise
from softndk.drivers.runtime import Runtime
from softndk.errors import InvalidHandle, NdkError, Refused
from tests.unit.drivers.driver_parts import PATIENCE_S, running, until


@pytest.fixture
def runtime() -> Iterator[Runtime]:
    with running() as made:
        yield made


def complete(promise: Promise[int], value: int = 7) -> None:
    with promise.pending._runtime.lock:
        promise.set_result(value)


def fail(promise: Promise[Any], error: BaseException) -> None:
    with promise.pending._runtime.lock:
        promise.set_exception(error)


def waiters(pending: Pending[Any]) -> int:
    with pending._runtime.lock:
        return len(pending._waiters)


def noting(calls: list[int]) -> Callable[[], bool]:
    def agree() -> bool:
        calls.append(1)
        return True

    return agree


async def await_it(pending: Pending[int]) -> int:
    return await pending


def run_asyncio(main: Callable[[], Coroutine[Any, Any, Any]]) -> Any:
    return asyncio.run(main())


RUNNERS = pytest.mark.parametrize("run", [run_asyncio, trio.run], ids=["asyncio", "trio"])


class _Owner:
    """Somebody who wants to know of the callbacks of his requests."""

    def __init__(self, runtime: Runtime) -> None:
        self.runtime = runtime
        self.told: list[object] = []

    def tell(self, fn: Callable[..., object], *args: object) -> None:
        self.told.append(fn)
        self.runtime.dispatcher.submit(fn, *args)


class TestWhoseRequestItIs:
    def test_the_owner_hands_over_the_callbacks_whenever_they_are_given(self, runtime: Runtime) -> None:
        owner = _Owner(runtime)
        promise: Promise[int] = Promise(runtime, "qp1 connect", tell=owner.tell)
        seen: list[str] = []

        def early(_: object) -> None:
            seen.append("early")

        def late(_: object) -> None:
            seen.append("late")

        promise.pending.add_done_callback(early)
        assert owner.told == []
        complete(promise)
        promise.pending.add_done_callback(late)
        assert owner.told == [early, late]
        assert runtime.dispatcher.drain(PATIENCE_S)
        assert seen == ["early", "late"]

    @pytest.mark.parametrize("outcome", ["finished", "failed"])
    def test_a_request_that_is_done_in_the_call_has_an_owner_too(self, runtime: Runtime, outcome: str) -> None:
        owner = _Owner(runtime)
        pending: Pending[Any]
        if outcome == "finished":
            pending = Promise.finished(runtime, "mr1 register", None, tell=owner.tell)
        else:
            pending = Promise.failed(runtime, "mr1 register", Refused("no"), tell=owner.tell)
            pending.exception()
        pending.add_done_callback(id)
        assert owner.told == [id]

    def test_a_pending_that_is_kept_does_not_keep_the_owner(self, runtime: Runtime) -> None:
        owner = _Owner(runtime)
        gone = weakref.ref(owner)
        pending = Promise.finished(runtime, "mr1 register", None, tell=owner.tell)
        del owner
        gc.collect()
        assert gone() is None
        called = threading.Event()
        pending.add_done_callback(lambda _: called.set())
        assert called.wait(PATIENCE_S)


class TestAnyNumberMayWait:
    def test_threads_tasks_and_loops_at_once_all_get_the_one_result(self, runtime: Runtime) -> None:
        promise: Promise[int] = Promise(runtime, "qp1 connect")
        pending = promise.pending

        async def three_tasks() -> list[int]:
            return await asyncio.gather(*(await_it(pending) for _ in range(3)))

        async def three_trio_tasks() -> list[int]:
            got: list[int] = []

            async def one() -> None:
                got.append(await pending)

            async with trio.open_nursery() as nursery:
                for _ in range(3):
                    nursery.start_soon(one)
            return got

        with ThreadPoolExecutor(8) as pool:
            singles = [pool.submit(pending.result, PATIENCE_S) for _ in range(4)]
            groups = [pool.submit(asyncio.run, three_tasks()) for _ in range(2)]
            groups += [pool.submit(trio.run, three_trio_tasks) for _ in range(2)]
            until(lambda: waiters(pending) == 16)
            complete(promise)
            assert [single.result() for single in singles] == [7] * 4
            assert [group.result() for group in groups] == [[7] * 3] * 4
        assert waiters(pending) == 0

    @RUNNERS
    def test_await_in_asyncio_and_trio(self, runtime: Runtime, run: Any) -> None:
        promise: Promise[int] = Promise(runtime, "x")

        async def main() -> int:
            threading.Timer(0.01, complete, (promise,)).start()
            return await promise.pending

        assert run(main) == 7

    @RUNNERS
    def test_await_of_what_is_done_already(self, runtime: Runtime, run: Any) -> None:
        pending = Promise.finished(runtime, "x", 5)

        async def main() -> int:
            return await pending + await pending

        assert run(main) == 10

    def test_await_outside_asyncio_and_trio_is_refused(self, runtime: Runtime) -> None:
        promise: Promise[int] = Promise(runtime, "x")
        with pytest.raises(RuntimeError, match="asyncio or trio"):
            next(promise.pending.__await__())

    def test_every_await_is_a_checkpoint_in_trio(self, runtime: Runtime) -> None:
        pending = Promise.finished(runtime, "x", 5)

        async def main() -> None:
            with trio.testing.assert_checkpoints():
                await pending
            with trio.CancelScope() as scope:
                scope.cancel()
                await pending
            assert scope.cancelled_caught

        trio.run(main)

    def test_a_result_may_be_asked_for_again_and_again(self, runtime: Runtime) -> None:
        pending = Promise.finished(runtime, "x", 5)
        assert [pending.result(), pending.result(0), pending.exception()] == [5, 5, None]
        assert pending.done()


class TestResultWhereItWouldDeadlock:
    def test_runtimeerror_in_a_task_of_asyncio(self, runtime: Runtime) -> None:
        promise: Promise[int] = Promise(runtime, "qp1 connect")

        async def main() -> None:
            for ask in (promise.pending.result, promise.pending.exception):
                for timeout in (None, 0, 1.0):
                    with pytest.raises(RuntimeError, match=r"qp1 connect.*await"):
                        ask(timeout)

        asyncio.run(main())
        assert waiters(promise.pending) == 0

    def test_runtimeerror_in_a_plain_callback_of_a_loop(self, runtime: Runtime) -> None:
        promise: Promise[int] = Promise(runtime, "x")

        async def main() -> None:
            caught: asyncio.Future[BaseException] = asyncio.get_running_loop().create_future()

            def callback() -> None:
                try:
                    promise.pending.result(1)
                except BaseException as error:
                    caught.set_result(error)

            asyncio.get_running_loop().call_soon(callback)
            assert type(await caught) is RuntimeError

        asyncio.run(main())

    def test_runtimeerror_in_trio(self, runtime: Runtime) -> None:
        promise: Promise[int] = Promise(runtime, "x")

        async def main() -> None:
            with pytest.raises(RuntimeError, match="await"):
                promise.pending.result(1)

        trio.run(main)

    def test_runtimeerror_inside_a_callback_also_of_another_adapter(self, runtime: Runtime) -> None:
        promise: Promise[int] = Promise(runtime, "x")
        caught: list[BaseException] = []

        def callback() -> None:
            try:
                promise.pending.result(1)
            except BaseException as error:
                caught.append(error)

        with running("other") as other:
            for dispatcher in (runtime.dispatcher, other.dispatcher):
                dispatcher.submit(callback)
                assert dispatcher.drain(PATIENCE_S)
        assert [type(error) for error in caught] == [RuntimeError, RuntimeError]

    def test_allowed_everywhere_once_done(self, runtime: Runtime) -> None:
        pending = Promise.finished(runtime, "x", 5)

        async def main() -> int:
            return pending.result()

        got: list[int] = []
        runtime.dispatcher.submit(lambda: got.append(pending.result()))
        assert runtime.dispatcher.drain(PATIENCE_S)
        assert [asyncio.run(main()), trio.run(main), *got] == [5, 5, 5]

    @RUNNERS
    def test_allowed_in_a_worker_thread_of_a_loop(self, runtime: Runtime, run: Any) -> None:
        promise: Promise[int] = Promise(runtime, "x")

        async def main() -> int:
            threading.Timer(0.01, complete, (promise,)).start()
            if run is run_asyncio:
                return await asyncio.to_thread(promise.pending.result, PATIENCE_S)
            return await trio.to_thread.run_sync(promise.pending.result, PATIENCE_S)

        assert run(main) == 7


class TestExpiry:
    def test_a_plain_timeouterror_that_says_what_and_who(self, runtime: Runtime) -> None:
        promise: Promise[int] = Promise(runtime, "pd1", holders=lambda: "still open: qp3 'client-7'")
        with pytest.raises(TimeoutError) as caught:
            promise.pending.result(0.01)
        assert type(caught.value) is TimeoutError
        assert not isinstance(caught.value, NdkError)
        assert "pd1: still open: qp3 'client-7'" in str(caught.value)
        with pytest.raises(TimeoutError, match="pd1"):
            promise.pending.exception(0)

    def test_the_holders_are_asked_at_the_moment_of_expiry(self, runtime: Runtime) -> None:
        holder = "qp1"
        promise: Promise[int] = Promise(runtime, "pd1", holders=lambda: f"still open: {holder}")
        holder = "qp2"
        with pytest.raises(TimeoutError, match="qp2"):
            promise.pending.result(0)

    def test_without_holders_the_text_still_says_what(self, runtime: Runtime) -> None:
        with pytest.raises(TimeoutError, match="qp3 connect: not completed"):
            Promise[int](runtime, "qp3 connect").pending.result(0)

    @pytest.mark.parametrize("timeout", [0, -1, -1e300])
    def test_zero_and_less_only_look(self, runtime: Runtime, timeout: float) -> None:
        promise: Promise[int] = Promise(runtime, "x")
        with pytest.raises(TimeoutError):
            promise.pending.result(timeout)
        complete(promise)
        assert promise.pending.result(timeout) == 7

    def test_the_request_goes_on(self, runtime: Runtime) -> None:
        promise: Promise[int] = Promise(runtime, "x")
        with pytest.raises(TimeoutError):
            promise.pending.result(0)
        assert not promise.pending.done()
        complete(promise)
        assert promise.pending.result() == 7

    @pytest.mark.parametrize("timeout", [1e9, 1e300, float("inf")])
    def test_very_long_times_are_waited_for(self, runtime: Runtime, timeout: float) -> None:
        promise: Promise[int] = Promise(runtime, "x")
        threading.Timer(0.01, complete, (promise,)).start()
        assert promise.pending.result(timeout) == 7

    def test_not_a_number_is_refused(self, runtime: Runtime) -> None:
        with pytest.raises(ValueError, match="not a number"):
            Promise[int](runtime, "x").pending.result(float("nan"))


class TestCancelling:
    @RUNNERS
    def test_cancelling_an_await_stops_the_waiting_not_the_request(self, runtime: Runtime, run: Any) -> None:
        promise: Promise[int] = Promise(runtime, "x")

        async def main() -> None:
            if run is run_asyncio:
                with pytest.raises(TimeoutError):
                    await asyncio.wait_for(promise.pending, 0.01)
            else:
                with trio.move_on_after(0.01) as scope:
                    await promise.pending
                assert scope.cancelled_caught

        run(main)
        assert not promise.pending.done()
        assert waiters(promise.pending) == 0
        complete(promise)
        assert promise.pending.result() == 7

    def test_cancel_returns_false_for_ndkpi_has_none(self, runtime: Runtime) -> None:
        promise: Promise[int] = Promise(runtime, "x")
        assert promise.pending.cancel() is False
        complete(promise)
        assert promise.pending.result() == 7

    @RUNNERS
    def test_an_await_that_can_give_up_the_request_does(self, runtime: Runtime, run: Any) -> None:
        asked: list[int] = []
        promise: Promise[int] = Promise(runtime, "x", on_cancel=noting(asked))

        async def main() -> None:
            if run is run_asyncio:
                with contextlib.suppress(TimeoutError):
                    await asyncio.wait_for(promise.pending, 0.01)
            else:
                with trio.move_on_after(0.01):
                    await promise.pending

        run(main)
        assert asked == [1]
        with pytest.raises(CancelledError):
            promise.pending.result(0)

    def test_cancel_from_a_thread_does_the_same_and_releases_everybody(self, runtime: Runtime) -> None:
        promise: Promise[int] = Promise(runtime, "qp1 connect", on_cancel=lambda: True)
        pending = promise.pending

        async def main() -> int:
            return await pending

        with ThreadPoolExecutor(2) as pool:
            thread = pool.submit(pending.result, PATIENCE_S)
            task = pool.submit(asyncio.run, main())
            until(lambda: waiters(pending) == 2)
            assert pending.cancel() is True
            for waiting in (thread, task):
                with pytest.raises(CancelledError, match="qp1 connect"):
                    waiting.result()
        assert pending.done()
        assert pending.cancel() is False

    def test_the_request_may_end_itself_when_given_up(self, runtime: Runtime) -> None:
        def give_up() -> bool:
            promise.set_exception(Refused("closed by the user"))
            return True

        promise: Promise[int] = Promise(runtime, "x", on_cancel=give_up)
        assert promise.pending.cancel()
        with pytest.raises(Refused):
            promise.pending.result()

    def test_the_request_may_decline(self, runtime: Runtime) -> None:
        promise: Promise[int] = Promise(runtime, "x", on_cancel=lambda: False)
        assert promise.pending.cancel() is False
        assert not promise.pending.done()

    def test_one_of_two_awaits_cancelled_leaves_the_request_to_the_other(self, runtime: Runtime) -> None:
        asked: list[int] = []
        promise: Promise[int] = Promise(runtime, "x", on_cancel=noting(asked))

        async def main() -> int:
            first = asyncio.ensure_future(await_it(promise.pending))
            second = asyncio.ensure_future(await_it(promise.pending))
            await asyncio.sleep(0)
            first.cancel()
            await asyncio.sleep(0)
            assert asked == []
            complete(promise)
            return await second

        assert asyncio.run(main()) == 7

    def test_an_outcome_that_came_too_late_for_the_cancelled_await_is_given_up(self, runtime: Runtime) -> None:
        given_up: list[int] = []
        promise: Promise[int] = Promise(runtime, "x", on_cancel=noting(given_up))

        async def main() -> None:
            task = asyncio.ensure_future(await_it(promise.pending))
            await asyncio.sleep(0)
            complete(promise)
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task

        asyncio.run(main())
        assert given_up == [1]

    def test_an_outcome_that_somebody_has_seen_is_not_given_up(self, runtime: Runtime) -> None:
        given_up: list[int] = []
        promise: Promise[int] = Promise(runtime, "x", on_cancel=noting(given_up))

        async def main() -> None:
            task = asyncio.ensure_future(await_it(promise.pending))
            await asyncio.sleep(0)
            complete(promise)
            assert promise.pending.result() == 7
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task

        asyncio.run(main())
        assert given_up == []

    @pytest.mark.parametrize("told", ["callback before", "callback after", "exception()", "failure"])
    def test_an_outcome_that_is_told_otherwise_or_a_failure_is_not_given_up(self, runtime: Runtime, told: str) -> None:
        given_up: list[int] = []
        promise: Promise[int] = Promise(runtime, "x", on_cancel=noting(given_up))

        async def main() -> None:
            task = asyncio.ensure_future(await_it(promise.pending))
            await asyncio.sleep(0)
            if told == "callback before":
                promise.pending.add_done_callback(lambda _: None)
            if told == "failure":
                fail(promise, Refused("no"))
            else:
                complete(promise)
            if told == "callback after":
                promise.pending.add_done_callback(lambda _: None)
            if told == "exception()":
                assert promise.pending.exception() is None
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
            promise.forgive()

        asyncio.run(main())
        assert given_up == []

    def test_a_closed_coroutine_leaves_no_waiter(self, runtime: Runtime) -> None:
        promise: Promise[int] = Promise(runtime, "x")

        async def main() -> None:
            awaiting = promise.pending.__await__()
            next(awaiting)
            assert waiters(promise.pending) == 1
            awaiting.close()

        asyncio.run(main())
        assert waiters(promise.pending) == 0


class TestFailures:
    def test_each_waiter_gets_a_fresh_instance(self, runtime: Runtime) -> None:
        cause = OSError(104, "reset")
        error = Refused("nobody listens", private_data=b"why")
        error.__cause__ = cause
        promise: Promise[int] = Promise(runtime, "x")
        fail(promise, error)
        caught: list[BaseException] = []
        for _ in range(3):
            with pytest.raises(Refused) as info:
                promise.pending.result()
            caught.append(info.value)
            again = promise.pending.exception()
            assert again is not None
            assert again.__traceback__ is None
            caught.append(again)
        assert len({id(each) for each in [error, *caught]}) == 7
        assert all(each.__cause__ is cause for each in caught)
        assert all(isinstance(each, Refused) and each.private_data == b"why" for each in caught)
        assert error.__traceback__ is None

    def test_the_traceback_of_one_waiter_does_not_grow_with_the_others(self, runtime: Runtime) -> None:
        promise: Promise[int] = Promise(runtime, "x")
        fail(promise, Refused("no"))
        lengths = set()
        for _ in range(5):
            with pytest.raises(Refused) as info:
                promise.pending.result()
            lengths.add(len(traceback.extract_tb(info.value.__traceback__)))
        assert len(lengths) == 1

    def test_an_exception_that_cannot_be_copied_is_given_as_it_is(self, runtime: Runtime) -> None:
        class Odd(Exception):
            def __reduce__(self) -> Any:
                raise TypeError("not me")

        odd = Odd()
        promise: Promise[int] = Promise(runtime, "x")
        fail(promise, odd)
        with pytest.raises(Odd) as info:
            promise.pending.result()
        assert info.value is odd

    @RUNNERS
    def test_await_raises_it(self, runtime: Runtime, run: Any) -> None:
        promise: Promise[int] = Promise(runtime, "x")

        async def main() -> None:
            threading.Timer(0.01, fail, (promise, Refused("no"))).start()
            with pytest.raises(Refused):
                await promise.pending

        run(main)

    def test_what_nobody_retrieved_is_logged_once(self, runtime: Runtime, caplog: pytest.LogCaptureFixture) -> None:
        promise: Promise[int] = Promise(runtime, "qp3 connect")
        with pytest.raises(TimeoutError):
            promise.pending.result(0)
        fail(promise, Refused("nobody listens"))
        assert caplog.records == []
        del promise
        gc.collect()
        (record,) = caplog.records
        assert record.name == "softndk"
        assert record.levelno == logging.ERROR
        assert "qp3 connect" in record.getMessage()
        assert "nobody listens" in record.getMessage()

    @pytest.mark.parametrize("way", ["result", "exception", "await", "forgiven before", "forgiven after"])
    def test_what_was_retrieved_or_ended_by_a_local_close_is_not_logged(
        self, runtime: Runtime, caplog: pytest.LogCaptureFixture, way: str
    ) -> None:
        promise: Promise[int] = Promise(runtime, "x")
        if way == "forgiven before":
            promise.forgive()
        fail(promise, Refused("no"))
        if way == "forgiven after":
            promise.forgive()
        elif way == "exception":
            promise.pending.exception()
        elif way == "result":
            with pytest.raises(Refused):
                promise.pending.result()
        elif way == "await":
            with pytest.raises(Refused):
                asyncio.run(await_it(promise.pending))
        del promise
        gc.collect()
        assert caplog.records == []

    def test_a_cancelled_one_is_not_logged(self, runtime: Runtime, caplog: pytest.LogCaptureFixture) -> None:
        promise: Promise[int] = Promise(runtime, "x", on_cancel=lambda: True)
        assert promise.pending.cancel()
        del promise
        gc.collect()
        assert caplog.records == []

    def test_raising_leaves_no_cycle_that_keeps_the_pending(self, runtime: Runtime) -> None:
        promise: Promise[int] = Promise(runtime, "x")
        fail(promise, Refused("no"))
        gc.collect()
        gc.disable()
        try:
            with contextlib.suppress(Refused):
                promise.pending.result()
            reference = weakref.ref(promise.pending)
            del promise
            assert reference() is None
        finally:
            gc.enable()


class TestDoneCallbacks:
    def test_they_run_on_the_callback_thread_with_the_pending(self, runtime: Runtime) -> None:
        promise: Promise[int] = Promise(runtime, "x")
        seen: list[tuple[bool, bool, int]] = []

        def callback(pending: Pending[int]) -> None:
            seen.append((pending is promise.pending, runtime.dispatcher.in_callback(), pending.result()))

        promise.pending.add_done_callback(callback)
        complete(promise)
        promise.pending.add_done_callback(callback)
        assert runtime.dispatcher.drain(PATIENCE_S)
        assert seen == [(True, True, 7)] * 2

    def test_they_run_without_the_lock(self, runtime: Runtime) -> None:
        promise: Promise[int] = Promise(runtime, "x")
        called = threading.Event()
        promise.pending.add_done_callback(lambda _: called.set())
        with runtime.lock:
            promise.set_result(7)
            assert called.wait(PATIENCE_S)

    def test_they_keep_their_order(self, runtime: Runtime) -> None:
        promise: Promise[int] = Promise(runtime, "x")
        seen: list[int] = []
        for number in range(5):
            promise.pending.add_done_callback(lambda _, number=number: seen.append(number))  # type: ignore[misc]
        complete(promise)
        promise.pending.add_done_callback(lambda _: seen.append(5))
        assert runtime.dispatcher.drain(PATIENCE_S)
        assert seen == [0, 1, 2, 3, 4, 5]

    def test_a_coroutine_function_is_refused(self, runtime: Runtime) -> None:
        async def callback(pending: Pending[int]) -> None: ...

        promise: Promise[int] = Promise(runtime, "x")
        with pytest.raises(TypeError, match="coroutine"):
            promise.pending.add_done_callback(callback)
        complete(promise)
        with pytest.raises(TypeError, match="coroutine"):
            promise.pending.add_done_callback(callback)


class TestThePromise:
    def test_a_second_completion_is_an_assertionerror_and_changes_nothing(self, runtime: Runtime) -> None:
        promise: Promise[int] = Promise(runtime, "x")
        assert not promise.done
        complete(promise)
        assert promise.done
        with pytest.raises(AssertionError, match="twice"):
            complete(promise, 8)
        with pytest.raises(AssertionError, match="twice"):
            fail(promise, Refused("no"))
        assert promise.pending.result() == 7

    def test_ready_made_ones(self, runtime: Runtime) -> None:
        assert Promise.finished(runtime, "x", None).result(0) is None
        failed: Pending[int] = Promise.failed(runtime, "x", Refused("no"))
        assert failed.done()
        with pytest.raises(Refused):
            failed.result()

    def test_the_public_class_has_the_contracts_names_only(self) -> None:
        public = {name for name in dir(Pending) if not name.startswith("_")}
        assert public == {"result", "exception", "done", "cancel", "add_done_callback"}

    def test_once_completed_it_keeps_nothing_alive_but_the_outcome(self, runtime: Runtime) -> None:
        class Owner:
            def text(self) -> str:
                return ""

            def agree(self) -> bool:
                return True

            def streams(self) -> tuple[()]:
                return ()

        owner = Owner()
        promise: Promise[int] = Promise(runtime, "x", holders=owner.text, on_cancel=owner.agree, streams=owner.streams)
        reference = weakref.ref(owner)
        del owner
        assert reference() is not None
        complete(promise)
        assert promise.pending.result() == 7
        assert reference() is None

    def test_its_repr_tells_state_and_what(self, runtime: Runtime) -> None:
        promise: Promise[int] = Promise(runtime, "qp1 connect")
        assert repr(promise.pending) == "<Pending qp1 connect: pending>"
        complete(promise)
        assert "done" in repr(promise.pending)


class TestSleepersThatWentAway:
    def test_a_loop_that_was_closed_meanwhile_is_passed_over(self, runtime: Runtime) -> None:
        promise: Promise[int] = Promise(runtime, "x")
        loop = asyncio.new_event_loop()

        async def step(awaiting: Generator[Any, Any, int]) -> None:
            next(awaiting)

        awaiting = promise.pending.__await__()
        loop.run_until_complete(step(awaiting))
        loop.close()
        with ThreadPoolExecutor(1) as pool:
            other = pool.submit(promise.pending.result, PATIENCE_S)
            until(lambda: waiters(promise.pending) == 2)
            complete(promise)
            assert other.result() == 7
        assert waiters(promise.pending) == 0
        awaiting.close()

    def test_a_trio_run_that_has_ended_is_passed_over(self, runtime: Runtime) -> None:
        promise: Promise[int] = Promise(runtime, "x")
        awaiting = promise.pending.__await__()

        async def main() -> None:
            next(awaiting)  # the run ends although this wait is not over

        trio.run(main)
        assert waiters(promise.pending) == 1
        complete(promise)
        assert waiters(promise.pending) == 0
        assert promise.pending.result() == 7
        awaiting.close()

    def test_an_interrupted_thread_leaves_no_waiter(self, runtime: Runtime, monkeypatch: pytest.MonkeyPatch) -> None:
        promise: Promise[int] = Promise(runtime, "x")

        def interrupted(self: Runtime, *args: object) -> None:
            raise KeyboardInterrupt

        monkeypatch.setattr(Runtime, "block", interrupted)
        with pytest.raises(KeyboardInterrupt):
            promise.pending.result()
        assert waiters(promise.pending) == 0


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork on this system")
def test_in_a_forked_child_waiting_is_an_invalid_handle_and_outcomes_stay_readable(runtime: Runtime) -> None:
    open_one: Promise[int] = Promise(runtime, "qp1 connect")
    done = Promise.finished(runtime, "x", 5)
    held = threading.Event()
    release = threading.Event()

    def hold_the_lock() -> None:
        with runtime.lock:
            held.set()
            release.wait(PATIENCE_S)

    holder = threading.Thread(target=hold_the_lock)
    holder.start()
    assert held.wait(PATIENCE_S)
    threading.Timer(0.02, release.set).start()
    child = os.fork()
    if child == 0:
        code = 1
        try:
            with pytest.raises(InvalidHandle, match="parent"):
                open_one.pending.result(1)
            assert not open_one.pending.cancel()
            assert done.result() == 5
            code = 0
        finally:
            os._exit(code)
    holder.join()
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
