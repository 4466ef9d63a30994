"""softndk.drivers.dispatch: api-rules "Callbacks"."""

import functools
import gc
import sys
import threading
from collections.abc import AsyncIterator, Callable, Iterator
from typing import Any

import pytest

from softndk.drivers.dispatch import Dispatcher, check_callback, in_any_callback
from tests.unit.drivers.driver_parts import PATIENCE_S, until


@pytest.fixture
def dispatcher() -> Iterator[Dispatcher]:
    made = Dispatcher("test")
    yield made
    made.stop()
    assert made.join(PATIENCE_S)


@pytest.fixture
def unraisable(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    seen: list[Any] = []
    monkeypatch.setattr(sys, "unraisablehook", seen.append)
    return seen


def callback_threads() -> int:
    return sum(thread.name.startswith("softndk-callbacks-") for thread in threading.enumerate())


def test_callables_run_in_order_in_one_thread_that_is_not_the_callers(dispatcher: Dispatcher) -> None:
    seen: list[tuple[int, int]] = []
    for number in range(100):
        dispatcher.submit(lambda number: seen.append((number, threading.get_ident())), number)
    assert dispatcher.drain(PATIENCE_S)
    assert [number for number, _ in seen] == list(range(100))
    assert len({thread for _, thread in seen}) == 1
    assert seen[0][1] != threading.get_ident()


def test_callables_never_overlap(dispatcher: Dispatcher) -> None:
    running = 0
    overlaps = 0

    def enter() -> None:
        nonlocal running, overlaps
        running += 1
        overlaps += running > 1
        threading.Event().wait(0.001)
        running -= 1

    def submit_some() -> None:
        for _ in range(10):
            dispatcher.submit(enter)

    threads = [threading.Thread(target=submit_some) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert dispatcher.drain(PATIENCE_S)
    assert overlaps == 0


def test_no_thread_runs_before_the_first_callable() -> None:
    before = callback_threads()
    dispatcher = Dispatcher("lazy")
    assert callback_threads() == before
    assert dispatcher.drain(0)
    dispatcher.submit(lambda: None)
    assert callback_threads() == before + 1
    dispatcher.stop()
    assert dispatcher.join(PATIENCE_S)
    assert callback_threads() == before


@pytest.mark.parametrize("error", [ValueError("x"), SystemExit(3), KeyboardInterrupt()])
def test_what_a_callable_raises_goes_to_unraisablehook_and_changes_nothing(
    dispatcher: Dispatcher, unraisable: list[Any], error: BaseException
) -> None:
    after: list[int] = []

    def broken() -> None:
        raise error

    dispatcher.submit(broken)
    dispatcher.submit(after.append, 1)
    assert dispatcher.drain(PATIENCE_S)
    assert after == [1]
    assert [(seen.exc_value, seen.exc_type, seen.object) for seen in unraisable] == [(error, type(error), broken)]
    assert unraisable[0].exc_traceback is not None


def test_the_default_hook_gets_the_traceback_and_the_callback_on_stderr(
    dispatcher: Dispatcher, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "unraisablehook", sys.__unraisablehook__)

    def broken_by_user() -> None:
        raise ValueError("told")

    dispatcher.submit(broken_by_user)
    assert dispatcher.drain(PATIENCE_S)
    text = capsys.readouterr().err
    assert "broken_by_user" in text
    assert "ValueError: told" in text
    assert "Traceback" in text


def test_a_hook_that_raises_does_not_end_the_thread(dispatcher: Dispatcher, monkeypatch: pytest.MonkeyPatch) -> None:
    def hook(details: object) -> None:
        raise RuntimeError("the hook is broken too")

    monkeypatch.setattr(sys, "unraisablehook", hook)
    seen: list[int] = []
    dispatcher.submit(lambda: 1 // 0)
    dispatcher.submit(seen.append, 1)
    assert dispatcher.drain(PATIENCE_S)
    assert seen == [1]


async def _coroutine() -> None: ...


async def _generator() -> AsyncIterator[int]:
    yield 1


class _AsyncCallable:
    async def __call__(self) -> None: ...

    async def method(self) -> None: ...


@pytest.mark.parametrize(
    "fn",
    [
        _coroutine,
        _generator,
        functools.partial(_coroutine),
        _AsyncCallable(),
        _AsyncCallable().method,
        "not callable",
        None,
    ],
)
def test_a_coroutine_function_as_a_callback_is_refused_with_typeerror(fn: object) -> None:
    with pytest.raises(TypeError):
        check_callback(fn)


@pytest.mark.parametrize("fn", [print, lambda: None, _AsyncCallable, functools.partial(print, 1), [].append])
def test_what_can_be_called_is_not_refused(fn: Callable[..., object]) -> None:
    check_callback(fn)


def test_a_callback_that_returns_a_coroutine_is_reported_and_leaves_none_unawaited(
    dispatcher: Dispatcher, unraisable: list[Any]
) -> None:
    dispatcher.submit(lambda: _coroutine())
    assert dispatcher.drain(PATIENCE_S)
    gc.collect()  # "was never awaited" would be an error here
    assert [seen.exc_type for seen in unraisable] == [TypeError]


def test_in_callback_is_true_on_that_thread_only(dispatcher: Dispatcher) -> None:
    other = Dispatcher("other")
    seen: list[tuple[bool, bool, bool]] = []
    dispatcher.submit(lambda: seen.append((dispatcher.in_callback(), other.in_callback(), in_any_callback())))
    assert dispatcher.drain(PATIENCE_S)
    assert seen == [(True, False, True)]
    assert not dispatcher.in_callback()
    assert not in_any_callback()


def test_drain_waits_for_the_running_callable_and_tells_when_time_was_too_short(
    dispatcher: Dispatcher,
) -> None:
    go = threading.Event()
    dispatcher.submit(go.wait)
    assert not dispatcher.drain(0.01)
    go.set()
    assert dispatcher.drain(PATIENCE_S)


def test_drain_waits_for_each_and_every_callable(dispatcher: Dispatcher) -> None:
    go = threading.Event()
    dispatcher.submit(lambda: None)
    dispatcher.submit(go.wait)
    dispatcher.submit(lambda: None)
    assert not dispatcher.drain(0.02)
    go.set()
    assert dispatcher.drain(PATIENCE_S)


def test_drain_inside_a_callable_returns_false_instead_of_deadlocking(dispatcher: Dispatcher) -> None:
    seen: list[bool] = []
    dispatcher.submit(lambda: seen.append(dispatcher.drain(PATIENCE_S)))
    assert dispatcher.drain(PATIENCE_S)
    assert seen == [False]


def test_stop_lets_the_queue_run_empty_and_ends_the_thread() -> None:
    dispatcher = Dispatcher("stopping")
    seen: list[int] = []
    go = threading.Event()
    dispatcher.submit(go.wait)
    for number in range(10):
        dispatcher.submit(seen.append, number)
    dispatcher.stop()
    assert not dispatcher.join(0.01)
    go.set()
    assert dispatcher.join(PATIENCE_S)
    assert seen == list(range(10))


def test_after_stop_a_late_callable_still_runs_and_leaves_no_thread() -> None:
    dispatcher = Dispatcher("late")
    dispatcher.stop()
    seen: list[int] = []
    dispatcher.submit(seen.append, 1)
    assert dispatcher.drain(PATIENCE_S)
    assert dispatcher.join(PATIENCE_S)
    assert seen == [1]


def test_join_inside_a_callable_returns_false(dispatcher: Dispatcher) -> None:
    seen: list[bool] = []
    dispatcher.submit(lambda: seen.append(dispatcher.join()))
    assert dispatcher.drain(PATIENCE_S)
    assert seen == [False]


def test_the_thread_of_a_forgotten_dispatcher_ends() -> None:
    before = callback_threads()
    dispatcher = Dispatcher("forgotten")
    dispatcher.submit(lambda: None)
    assert dispatcher.drain(PATIENCE_S)
    del dispatcher
    gc.collect()
    until(lambda: callback_threads() == before)


def test_a_callable_and_its_arguments_are_not_kept_after_the_call(dispatcher: Dispatcher) -> None:
    class Thing:
        alive = 0

        def __init__(self) -> None:
            Thing.alive += 1

        def __del__(self) -> None:
            Thing.alive -= 1

    dispatcher.submit(lambda thing: None, Thing())
    assert dispatcher.drain(PATIENCE_S)
    until(lambda: Thing.alive == 0)


def test_a_thread_that_cannot_start_is_reported_and_tried_again(
    dispatcher: Dispatcher, unraisable: list[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[int] = []
    with monkeypatch.context() as patch:
        patch.setattr(threading.Thread, "start", _cannot_start)
        dispatcher.submit(seen.append, 1)
    assert [entry.exc_type for entry in unraisable] == [RuntimeError]
    dispatcher.submit(seen.append, 2)
    assert dispatcher.drain(PATIENCE_S)
    assert seen == [1, 2]


def _cannot_start(thread: threading.Thread) -> None:
    raise RuntimeError("can't start new thread")
