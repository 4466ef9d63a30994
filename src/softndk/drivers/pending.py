"""`Pending`: an outcome that comes later, for any number of threads, tasks and event loops at once.

`Pending` is what the user holds; `Promise` is the other half, with which the provider completes it. What is
waited for, and what it depends on, is told by the maker as text and callables; nothing of NDKPI is known
here.
"""

import logging
import math
import weakref
from collections.abc import Awaitable, Callable, Generator, Iterable
from concurrent.futures import CancelledError
from enum import Enum
from typing import Any, Final, Generic, TypeVar, cast

from softndk.drivers.channel import Channel
from softndk.drivers.dispatch import check_callback
from softndk.drivers.runtime import Runtime
from softndk.drivers.waiters import (
    ThreadWaiter,
    Waiter,
    async_waiter,
    check_may_block,
    current_library,
    in_trio,
)
from softndk.errors import InvalidHandle, fresh_copy

__all__ = ["Pending", "Promise"]

_T = TypeVar("_T")
_T_co = TypeVar("_T_co", covariant=True)
_log: Final = logging.getLogger("softndk")


class _State(Enum):
    OPEN = "pending"
    VALUE = "done"
    FAILED = "failed"


class Pending(Awaitable[_T_co], Generic[_T_co]):
    """A request that has been started and whose outcome comes later (STATUS_PENDING and its completion
    callback).

    Any number of threads may call `result`, any number of asyncio and trio tasks may await it, also at the
    same time; all get the one outcome, a failure as an exception instance of their own. Callbacks run on the
    adapter's callback thread.
    """

    __slots__ = (
        "__weakref__",
        "_callbacks",
        "_forgiven",
        "_holders",
        "_on_cancel",
        "_outcome",
        "_retrieved",
        "_runtime",
        "_state",
        "_streams",
        "_tell",
        "_waiters",
        "_what",
    )

    def __init__(
        self,
        runtime: Runtime,
        what: str,
        *,
        holders: Callable[[], str] | None = None,
        on_cancel: Callable[[], bool] | None = None,
        streams: Callable[[], Iterable[Channel]] | None = None,
        tell: Callable[..., None] | None = None,
    ) -> None:
        """Not for users; see `Promise` for the arguments."""
        self._state = _State.OPEN
        self._retrieved = False
        self._forgiven = False
        self._outcome: object = None
        self._runtime = runtime
        self._what = what
        self._holders = holders
        self._on_cancel = on_cancel
        self._streams = streams
        self._tell = None if tell is None else weakref.WeakMethod(tell)
        self._waiters: dict[Waiter, None] = {}
        self._callbacks: list[Callable[[Any], object]] = []

    # ---- for users

    def result(self, timeout: float | None = None) -> _T_co:
        """Wait in this thread and return the value, or raise the failure.

        timeout: seconds; None waits for ever, 0 only looks.

        Raises: TimeoutError: not done in time; it is no NdkError, and the request goes on. RuntimeError: not done, and
        called in a callback of softndk's or in a thread with a running event loop, where waiting would deadlock. NdkError:
        the request failed; an exception of its own for each caller.
        """
        self._wait(timeout)
        return self._retrieve()

    def exception(self, timeout: float | None = None) -> BaseException | None:
        """Wait as `result` does and return the failure, or None after a success.

        Raises: TimeoutError: as `result`. RuntimeError: as `result`.
        """
        self._wait(timeout)
        self._retrieved = True
        self._on_cancel = None
        return fresh_copy(cast(BaseException, self._outcome)) if self._state is _State.FAILED else None

    def done(self) -> bool:
        """True once there is an outcome; then `result()` returns or raises at once, anywhere."""
        return self._state is not _State.OPEN

    def cancel(self) -> bool:
        """Give the request up if it is one of the few that can be; else return False, for NDKPI has no cancel.

        After True `result` raises `concurrent.futures.CancelledError`, or what the request says of its end.
        """
        with self._runtime.lock:
            return self._state is _State.OPEN and self._give_up()

    def add_done_callback(self, fn: Callable[["Pending[_T_co]"], object]) -> None:
        """Have `fn(self)` called on the adapter's callback thread, once, when there is an outcome or as there is one.

        Raises: TypeError: `fn` is a coroutine function or cannot be called.
        """
        check_callback(fn)
        with self._runtime.lock:
            if self._state is _State.OPEN:
                self._callbacks.append(fn)
                return
            self._on_cancel = None
            self._submit(fn, self)

    def __await__(self) -> Generator[Any, Any, _T_co]:
        """Wait in an asyncio or trio task. Cancelling the task stops the waiting, not the request."""
        if self._state is _State.OPEN or in_trio():
            yield from self._sleep()
        return self._retrieve()

    def __repr__(self) -> str:
        return f"<Pending {self._what}: {self._state.value}>"

    # ---- waiting

    def _wait(self, timeout: float | None) -> None:
        if self._state is not _State.OPEN:
            return
        runtime = self._runtime
        self._check_forked()
        with runtime.lock:
            if self._attempt():
                return
        check_may_block(self._what)
        deadline = None if timeout is None else runtime.now() + _checked(timeout)
        waiter = ThreadWaiter(self._what)
        try:
            with runtime.lock:
                if self._attempt():
                    return
                self._join(waiter)
            while True:
                runtime.block(waiter, deadline, self._streams)
                with runtime.lock:
                    if self._resume():
                        return
                    if deadline is not None and runtime.now() >= deadline:
                        raise TimeoutError(self._timeout_text(timeout))
                    waiter.reset()
        finally:
            with runtime.lock:
                self._leave(waiter)

    def _sleep(self) -> Generator[Any, Any, None]:
        runtime = self._runtime
        library = current_library()
        if library == "trio":  # whose convention is that every await is a checkpoint
            import trio

            try:
                yield from trio.lowlevel.checkpoint_if_cancelled().__await__()
            except BaseException:
                with runtime.lock:
                    self._await_stopped()
                raise
        self._check_forked()
        waiter = None
        with runtime.lock:
            if not self._attempt():
                waiter = async_waiter(library)
                self._join(waiter)
        if waiter is None:
            if library == "trio":
                yield from trio.lowlevel.cancel_shielded_checkpoint().__await__()
            return
        try:
            while True:
                yield from waiter.park()
                with runtime.lock:
                    if self._resume():
                        break
                    waiter.reset()
        except BaseException:
            with runtime.lock:
                self._leave(waiter)
                self._await_stopped()
            raise
        with runtime.lock:
            self._leave(waiter)

    def _check_forked(self) -> None:
        if self._runtime.forked and self._state is _State.OPEN:
            raise InvalidHandle(f"{self._what}: belongs to the parent process, which forked this one [INVALID_HANDLE]")

    def _timeout_text(self, timeout: float | None) -> str:
        detail = self._holders() if self._holders is not None else ""
        return f"{self._what}: {detail or 'not completed'} (waited {timeout:g} s)"

    # ---- what a special kind of Pending does otherwise; all with the lock held

    def _attempt(self) -> bool:
        """About to wait: is there an outcome, or can there be one now?"""
        return self._state is not _State.OPEN

    def _resume(self) -> bool:
        """A sleeper of this object runs again: is there an outcome?"""
        return self._state is not _State.OPEN

    def _join(self, waiter: Waiter) -> None:
        self._waiters[waiter] = None

    def _leave(self, waiter: Waiter) -> None:
        self._waiters.pop(waiter, None)

    def _await_stopped(self) -> None:
        """A task has stopped awaiting before it saw the outcome."""
        if not self._waiters:
            self._give_up()

    def _give_up(self) -> bool:
        if self._on_cancel is None or not self._on_cancel():
            return False
        if self._state is _State.OPEN:
            self._forgiven = True
            self._finish(_State.FAILED, CancelledError(f"{self._what}: cancelled"))
        return True

    # ---- the outcome

    def _finish(self, state: _State, outcome: object) -> None:
        if self._state is not _State.OPEN:
            raise AssertionError(f"{self._what}: completed twice")
        self._outcome = outcome
        self._state = state
        self._holders = self._streams = None
        callbacks, self._callbacks = self._callbacks, []
        if callbacks or state is _State.FAILED:
            self._on_cancel = None  # the outcome is being told, or there is nothing to give up
        for fn in callbacks:
            self._submit(fn, self)
        for waiter in tuple(self._waiters):
            if not waiter.wake():
                self._waiters.pop(waiter, None)

    def _submit(self, fn: Callable[..., object], *args: Any) -> None:
        """Have `fn` run on the dispatch thread; whoever the request belongs to knows of it."""
        tell = None if self._tell is None else self._tell()
        if tell is None:
            tell = self._runtime.dispatcher.submit
        tell(fn, *args)

    def _retrieve(self) -> _T_co:
        self._retrieved = True
        self._on_cancel = None
        if self._state is _State.VALUE:
            return cast(_T_co, self._outcome)
        error = fresh_copy(cast(BaseException, self._outcome))
        try:
            raise error
        finally:
            del error  # it holds this frame

    def __del__(self) -> None:
        if getattr(self, "_state", None) is _State.FAILED and not self._retrieved and not self._forgiven:
            error = cast(BaseException, self._outcome)
            _log.error("%s failed and nobody asked for the outcome: %s", self._what, error, exc_info=error)


def _checked(timeout: float) -> float:
    try:
        if not math.isnan(timeout):
            return timeout
    except TypeError:
        raise TypeError(f"timeout={timeout!r} is no number of seconds") from None
    except OverflowError:  # an int beyond all floats
        return math.copysign(math.inf, timeout > 0 or -1)
    raise ValueError("timeout is not a number")


class Promise(Generic[_T]):
    """The provider's half of a Pending: `pending` goes to the user, this object stays with who will complete
    it.

    Args of the constructor:
        runtime: the adapter's; its lock guards the Pending.
        what: object and operation, for texts: "qp3 'client-7' connect".
        holders: called under the lock when a wait expires: who or what is waited for, "still open: qp3".
        on_cancel: called under the lock to give the request up: by `cancel()`, and when an await is cancelled
        that
            nobody shares, also if the outcome has come meanwhile but has been told to nobody. Returns whether
            it did; a Pending that is still open then ends in CancelledError. None: cannot be given up.
        streams: called under the lock when a thread begins to wait: the connections that this thread may
        serve
            meanwhile, instead of the engine's thread.
        tell: a method, kept weakly, that is called under the lock to have a callback run on the dispatch
            thread, for an owner whose end waits for its callbacks. None: the dispatcher's `submit`.
    """

    __slots__ = ("pending",)

    def __init__(
        self,
        runtime: Runtime,
        what: str,
        *,
        holders: Callable[[], str] | None = None,
        on_cancel: Callable[[], bool] | None = None,
        streams: Callable[[], Iterable[Channel]] | None = None,
        tell: Callable[..., None] | None = None,
    ) -> None:
        self.pending: Pending[_T] = Pending(
            runtime, what, holders=holders, on_cancel=on_cancel, streams=streams, tell=tell
        )

    @property
    def done(self) -> bool:
        """True once completed."""
        return self.pending._state is not _State.OPEN

    def set_result(self, value: _T) -> None:
        """Complete with `value`. Under the lock; AssertionError if completed before."""
        self.pending._finish(_State.VALUE, value)

    def set_exception(self, error: BaseException) -> None:
        """Complete with a failure, which is kept; waiters get copies. Under the lock; AssertionError if
        completed before.
        """
        self.pending._finish(_State.FAILED, error)

    def forgive(self) -> None:
        """A failure, past or to come, is the user's own doing (a local close): do not log it if nobody asks
        for it.
        """
        self.pending._forgiven = True

    @classmethod
    def finished(
        cls, runtime: Runtime, what: str, value: _T, *, tell: Callable[..., None] | None = None
    ) -> Pending[_T]:
        """A Pending that has its value already. Needs no lock."""
        promise = cls(runtime, what, tell=tell)
        promise.set_result(value)
        return promise.pending

    @classmethod
    def failed(
        cls, runtime: Runtime, what: str, error: BaseException, *, tell: Callable[..., None] | None = None
    ) -> Pending[_T]:
        """A Pending that has failed already. Needs no lock."""
        promise = cls(runtime, what, tell=tell)
        promise.set_exception(error)
        return promise.pending
