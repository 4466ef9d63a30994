"""The dispatch thread: the user's callbacks run here, one after the other, with no lock of ours held.

Knows callables only. One thread per adapter is what makes callbacks of one CQ or listener never overlap
(R-ARM-5).
"""

import inspect
import sys
import threading
import time
import traceback
import weakref
from collections import deque
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any, Final

__all__ = ["Dispatcher", "check_callback", "in_any_callback", "report_unraisable"]

_current: Final = threading.local()


def check_callback(fn: object) -> None:
    """Raise TypeError unless `fn` can be called here; a coroutine function cannot, for nobody would await
    it.
    """
    if not callable(fn):
        raise TypeError(f"callback {fn!r} is not callable")
    for part in (fn, type(fn).__call__):
        if inspect.iscoroutinefunction(part) or inspect.isasyncgenfunction(part):
            raise TypeError(f"callback {fn!r} is a coroutine function; callbacks are called, not awaited")


def in_any_callback() -> bool:
    """True in the dispatch thread of any adapter."""
    return getattr(_current, "worker", None) is not None


def report_unraisable(error: BaseException, origin: object, message: str) -> None:
    """Hand an exception that has no caller to `sys.unraisablehook`.

    The default hook accepts only arguments that the interpreter has made, so its text is written here.
    """
    hook = sys.unraisablehook
    try:
        if hook is sys.__unraisablehook__:
            lines = traceback.format_exception(error)
            print(f"{message}: {origin!r}\n{''.join(lines)}", end="", file=sys.stderr, flush=True)
        else:
            details: Any = SimpleNamespace(
                exc_type=type(error),
                exc_value=error,
                exc_traceback=error.__traceback__,
                err_msg=message,
                object=origin,
            )
            hook(details)
    except Exception:  # a broken hook or a closed stderr must not take the thread with it
        return


def _call(fn: Callable[..., object], args: tuple[Any, ...]) -> bool:
    try:
        outcome = fn(*args)
        if inspect.iscoroutine(outcome):
            outcome.close()
            raise TypeError("the callback returned a coroutine, which nobody awaits")
    except BaseException as error:
        report_unraisable(error, fn, "Exception ignored in softndk callback")
        return False
    return True


class _Worker:
    """What the thread holds: its queue, and nothing that leads to the adapter, so that a forgotten one is
    collected.
    """

    __slots__ = ("__weakref__", "changed", "name", "queue", "returned", "stopped", "submitted", "thread")

    def __init__(self, name: str) -> None:
        self.name = name
        self.changed = threading.Condition()  # re-entrant: garbage collection may call `stop` in its midst
        self.queue: deque[tuple[Callable[..., object], tuple[Any, ...]]] = deque()
        self.thread: threading.Thread | None = None
        self.submitted = 0
        self.returned = 0
        self.stopped = False

    def start_if_needed(self) -> None:
        if self.thread is None and self.queue:
            thread = threading.Thread(target=self.run, name=f"softndk-callbacks-{self.name}", daemon=True)
            self.thread = thread
            try:
                thread.start()
            except RuntimeError as error:  # no more threads, or the interpreter ends; the next submit tries again
                self.thread = None
                report_unraisable(error, self.name, "softndk cannot start its dispatch thread")

    def run(self) -> None:
        _current.worker = self
        while True:
            with self.changed:
                while not self.queue:
                    if self.stopped:
                        self.thread = None
                        self.changed.notify_all()
                        return
                    self.changed.wait()
                fn, args = self.queue.popleft()
            _call(fn, args)
            del fn, args
            with self.changed:
                self.returned += 1
                self.changed.notify_all()

    def stop(self) -> None:
        with self.changed:
            self.stopped = True
            self.changed.notify_all()


class Dispatcher:
    """Runs callables in the order of their submission in one daemon thread, started when first needed.

    Thread-safe; may be used with the adapter's lock held, for it takes only a lock of its own that is never
    held while anything else is called.
    """

    __slots__ = ("__weakref__", "_finalizer", "_worker")

    def __init__(self, name: str) -> None:
        self._worker = _Worker(name)
        self._end_with_owner()

    def submit(self, fn: Callable[..., object], *args: Any) -> None:
        """Run `fn(*args)` on the dispatch thread after everything submitted before.

        What it raises goes to `sys.unraisablehook`. After `stop` a short-lived thread runs it.
        """
        worker = self._worker
        with worker.changed:
            worker.queue.append((fn, args))
            worker.submitted += 1
            worker.start_if_needed()
            worker.changed.notify_all()

    def run_here(self, fn: Callable[..., object], *args: Any) -> bool:
        """Call `fn(*args)` now, as `submit` would have it called; False: it raised, which has been reported. Only for
        code that runs on the dispatch thread.
        """
        return _call(fn, args)

    def in_callback(self) -> bool:
        """True on this dispatcher's thread."""
        return getattr(_current, "worker", None) is self._worker

    def drain(self, timeout: float | None = None) -> bool:
        """Wait until everything submitted before this call has returned; False if `timeout` seconds were too
        short.

        On the dispatch thread itself it cannot wait and returns False at once.
        """
        worker = self._worker
        if self.in_callback():
            return False
        deadline = None if timeout is None else time.monotonic() + timeout
        with worker.changed:
            goal = worker.submitted
            while worker.returned < goal:
                remaining = None if deadline is None else deadline - time.monotonic()
                if remaining is not None and remaining <= 0:
                    return False
                worker.changed.wait(None if remaining is None else min(remaining, threading.TIMEOUT_MAX))
        return True

    def stop(self) -> None:
        """End the thread as soon as its queue is empty. Does not wait; see `join`."""
        self._worker.stop()

    def join(self, timeout: float | None = None) -> bool:
        """After `stop`: wait for the thread's end; False if it still runs (always so on that thread
        itself).
        """
        thread = self._worker.thread
        if thread is None or not thread.is_alive():
            return True
        if self.in_callback():
            return False
        thread.join(timeout)
        return not thread.is_alive()

    def _end_with_owner(self) -> None:
        self._finalizer = weakref.finalize(self, self._worker.stop)
        self._finalizer.atexit = False

    def after_fork(self) -> None:
        """In a forked child: forget the parent's thread and queue."""
        self._finalizer.detach()  # it would take a lock that a thread of the parent may hold
        self._worker = _Worker(self._worker.name)
        self._end_with_owner()
