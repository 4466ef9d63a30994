"""How one sleeper waits and is woken: a thread, an asyncio task, a trio task.

A waiter is made by whoever is going to sleep. `wake` and `reset` are called with the adapter's lock held,
sleeping is done without it. Between two `reset`s any number of `wake`s counts as one, and none is lost if it
comes before the sleeper sleeps. What is waited for is not known here.
"""

import sys
import threading
from collections.abc import Callable, Generator
from typing import TYPE_CHECKING, Any, Protocol

import sniffio

from softndk.drivers.dispatch import in_any_callback

if TYPE_CHECKING:
    import trio

__all__ = [
    "AsyncWaiter",
    "AsyncioWaiter",
    "ThreadWaiter",
    "TrioWaiter",
    "Waiter",
    "async_waiter",
    "check_may_block",
    "current_library",
    "in_trio",
]


class Waiter(Protocol):
    """What a waker sees of a sleeper."""

    def wake(self) -> bool:
        """Let it run. False if it never will: its event loop is closed."""

    def reset(self) -> None:
        """Forget an earlier `wake`, so that the sleeper can sleep again."""


class AsyncWaiter(Waiter, Protocol):
    """A waiter that sleeps by `yield from waiter.park()`, inside the task that made it."""

    def park(self) -> Generator[Any, Any, object]:
        """Sleep until `wake`. Raises whatever the event loop throws in, cancellation above all."""


class ThreadWaiter:
    """A sleeping thread. `alarm`, if set under the lock, replaces the way in which the thread is woken."""

    __slots__ = ("_gate", "alarm", "what", "woken")

    def __init__(self, what: str = "") -> None:
        self.what = what
        self.woken = False
        self.alarm: Callable[[], None] | None = None
        self._gate = threading.Lock()
        self._gate.acquire()

    def wake(self) -> bool:
        if not self.woken:
            self.woken = True
            if self.alarm is None:
                self._gate.release()
            else:
                self.alarm()
        return True

    def reset(self) -> None:
        self.woken = False
        self._gate.acquire(blocking=False)

    def park(self, timeout: float | None) -> None:
        """Sleep, without the lock, until woken or for `timeout` seconds. May be too early after very long
        times.
        """
        if timeout is None:
            self._gate.acquire()
        elif timeout > 0:
            self._gate.acquire(timeout=min(timeout, threading.TIMEOUT_MAX))


class AsyncioWaiter:
    """An asyncio task. Made in the task's own loop."""

    __slots__ = ("_future", "_loop", "_woken")

    def __init__(self) -> None:
        import asyncio

        self._loop = asyncio.get_running_loop()
        self._future: asyncio.Future[None] = self._loop.create_future()
        self._woken = False

    def wake(self) -> bool:
        if self._woken:
            return not self._loop.is_closed()
        try:
            self._loop.call_soon_threadsafe(_set_done, self._future)
        except RuntimeError:  # the loop has been closed; so much is documented
            return False
        self._woken = True
        return True

    def reset(self) -> None:
        self._woken = False
        self._future = self._loop.create_future()

    def park(self) -> Generator[Any, Any, object]:
        return self._future.__await__()


def _set_done(future: Any) -> None:
    if not future.done():
        future.set_result(None)


class TrioWaiter:
    """A trio task. Made in that task."""

    __slots__ = ("_parked", "_task", "_token", "_woken")

    def __init__(self) -> None:
        import trio

        self._token = trio.lowlevel.current_trio_token()
        self._task = trio.lowlevel.current_task()
        self._parked = False
        self._woken = False

    def wake(self) -> bool:
        if self._woken:
            return True
        import trio

        try:
            self._token.run_sync_soon(self._deliver)
        except trio.RunFinishedError:
            return False
        self._woken = True
        return True

    def _deliver(self) -> None:
        if self._parked:
            import trio

            self._parked = False
            trio.lowlevel.reschedule(self._task)

    def reset(self) -> None:
        self._woken = False

    def _abort(self, raise_cancel: object) -> "trio.lowlevel.Abort":
        import trio

        self._parked = False
        return trio.lowlevel.Abort.SUCCEEDED

    def park(self) -> Generator[Any, Any, object]:
        import trio

        self._parked = True
        return trio.lowlevel.wait_task_rescheduled(self._abort).__await__()


def current_library() -> str:
    """ "asyncio" or "trio": what runs the calling task.

    Raises: RuntimeError: called in no task of these two.
    """
    try:
        library = sniffio.current_async_library()
    except sniffio.AsyncLibraryNotFoundError:
        raise RuntimeError("a Pending is awaited in an asyncio or trio task; elsewhere use result()") from None
    if library not in ("asyncio", "trio"):
        raise RuntimeError(f"a Pending can be awaited in asyncio and trio, not in {library}")
    return library


def async_waiter(library: str) -> AsyncWaiter:
    """A waiter for the calling task; `library` from `current_library`."""
    return TrioWaiter() if library == "trio" else AsyncioWaiter()


def check_may_block(what: str) -> None:
    """Raise RuntimeError where blocking for `what` would deadlock: in a callback of ours, under an event
    loop.
    """
    if in_any_callback():
        raise RuntimeError(f"{what}: blocking inside a softndk callback would deadlock; use add_done_callback")
    if _event_loop_runs_here():
        raise RuntimeError(f"{what}: blocking would stop the event loop of this thread; await it instead")


def in_trio() -> bool:
    """True in a thread that runs trio now."""
    trio = sys.modules.get("trio")
    return trio is not None and bool(trio.lowlevel.in_trio_run())


def _event_loop_runs_here() -> bool:
    asyncio = sys.modules.get("asyncio")
    if asyncio is not None and asyncio._get_running_loop() is not None:
        return True
    return in_trio()
