"""`WaitQueue`: the line of those who wait for entries of one source, a CQ above all.

The source's state is a level, asked under the lock; nothing here counts events. One *call* (one `wait` or
`next_results`) stands in line only while somebody really waits for it. At most one call at a time is
*signalled*: it holds the baton, and whoever of its sleepers runs first takes the entries at that moment.
Whatever ends a call's turn (it took, it found nothing, it expired, it was cancelled, its event loop is
closed) passes the baton on to the first in line whose condition holds. So an entry is never there without
somebody on his way to it, and two never run for the same one. Arming is not known here.

Between two uses of the lock this holds: without a baton no call in line has its condition met, but for those
that were signalled and did not come in time.
"""

from collections.abc import Callable, Iterable
from typing import Any, Final, Generic, Protocol, TypeVar
from weakref import WeakMethod

from softndk.drivers.channel import Channel, Timer
from softndk.drivers.dispatch import check_callback
from softndk.drivers.pending import Pending, _State
from softndk.drivers.runtime import Runtime
from softndk.drivers.waiters import Waiter

__all__ = ["Source", "WaitQueue"]

_T = TypeVar("_T")
_R = TypeVar("_R")

OVERDUE_S: Final = 0.05
"""How long a signalled sleeper may stay away while others wait: a task or callback may sit behind a
computation.
"""


class Source(Protocol[_T]):
    """Where the entries are. Every method is called with the adapter's lock held."""

    def ready(self, kind: int) -> bool:
        """True if an entry that matches `kind` is present, or if the source has failed or is closing."""

    def take(self, max_results: int) -> list[_T]:
        """Remove and return up to `max_results` entries of every kind, oldest first."""

    def failure(self) -> BaseException | None:
        """What a waiter gets when the source is `ready` and gave nothing."""


class WaitQueue(Generic[_T]):
    """The line of waiters of one `Source`. Every method is called with the adapter's lock held, but for
    `call`s.

    Args of the constructor: what: for texts, "cq1 wait". streams: the connections whose traffic brings
    entries; a
        thread that waits serves them meanwhile. None: the engine's thread does.
    """

    def __init__(
        self,
        runtime: Runtime,
        source: Source[_T],
        what: str,
        *,
        holders: Callable[[], str] | None = None,
        streams: Callable[[], Iterable[Channel]] | None = None,
        tell: Callable[..., None] | None = None,
    ) -> None:
        self.runtime = runtime
        self.source = source
        self.what = what
        self.holders = holders
        self.streams = streams
        self.tell = None if tell is None else WeakMethod(tell)
        self._line: dict[_Call[Any, Any], None] = {}
        self._baton: _Call[Any, Any] | None = None
        self._guard: Timer | None = None
        self._guarded = 0
        self._turns = 0

    def __len__(self) -> int:
        """Calls that somebody waits for now."""
        return len(self._line)

    def call(self, kind: int, max_results: int) -> Pending[list[_T]]:
        """A wait for up to `max_results` entries (1 or more). Needs no lock; stands in line only once waited
        for.

        The Pending takes entries when a sleeper of its runs, when its callback is dispatched, or when
        `done()` finds entries that nobody in line is about to take. `cancel()` takes nothing.
        """
        return _Call(self, kind, max_results, _all)

    def call_one(self, kind: int) -> Pending[_T]:
        """As `call`, for one entry as it is."""
        return _Call(self, kind, 1, _first)

    def is_open(self, call: Pending[Any]) -> bool:
        """True if `call`, one of this line's, has no outcome. Unlike `done()` this takes nothing."""
        return call._state is _State.OPEN

    def notify(self) -> None:
        """Entries have come, or some condition has changed: let the first in line that it concerns run."""
        if self._line:
            self._pass_on()

    def notify_all(self) -> None:
        """The source has failed or is closing: let everybody run."""
        for call in tuple(self._line):
            if not call._signal():
                self._remove(call)
        self._watch()

    # ---- the baton

    def _pass_on(self) -> None:
        baton = self._baton
        if baton is not None:
            if baton._signal():
                self._watch()
                return
            self._remove(baton)
        for call in tuple(self._line):
            if call._signalled:
                if not call._signal():
                    self._remove(call)
            elif self.source.ready(call._kind):
                if call._signal():
                    self._baton = call
                    break
                self._remove(call)
        self._watch()

    def _enter(self, call: "_Call[Any, Any]") -> None:
        self._line[call] = None
        self._pass_on()

    def _remove(self, call: "_Call[Any, Any]") -> None:
        self._line.pop(call, None)
        self._release(call)

    def _release(self, call: "_Call[Any, Any]") -> None:
        """The call's turn is over."""
        call._signalled = False
        if self._baton is call:
            self._baton = None

    # ---- a baton that nobody picks up

    def _watch(self) -> None:
        baton = self._baton
        if self._guard is None and baton is not None and len(self._line) > 1:
            self._guarded = baton._turn
            runtime = self.runtime
            self._guard = runtime.engine.call_at(runtime.now() + OVERDUE_S, self._overdue)

    def _overdue(self) -> None:
        self._guard = None
        baton = self._baton
        if baton is not None and baton._turn == self._guarded:
            self._baton = None  # it stays signalled: when it runs after all, it may take what is there
        self._pass_on()


class _Call(Pending[_R], Generic[_T, _R]):
    """One wait. All its waiters, and its callbacks, share its one outcome."""

    __slots__ = ("_collector", "_kind", "_limit", "_queue", "_shape", "_signalled", "_turn")

    def __init__(self, queue: WaitQueue[_T], kind: int, limit: int, shape: Callable[[list[_T]], _R]) -> None:
        super().__init__(queue.runtime, queue.what, holders=queue.holders, on_cancel=_agree, streams=queue.streams)
        self._tell = queue.tell
        self._forgiven = True
        self._queue = queue
        self._kind = kind
        self._limit = limit
        self._shape = shape
        self._signalled = False
        self._turn = 0
        self._collector: _Collector | None = None

    # ---- for users

    def done(self) -> bool:
        """True if the entries are taken; takes them if they are there and nobody in line is about to."""
        if self._state is not _State.OPEN:
            return True
        self._check_forked()
        with self._runtime.lock:
            return self._attempt()

    def add_done_callback(self, fn: Callable[[Pending[_R]], object]) -> None:
        """Have `fn(self)` called on the adapter's callback thread; the entries are taken at that moment, not
        before.
        """
        check_callback(fn)
        with self._runtime.lock:
            if self._state is _State.OPEN:
                self._callbacks.append(fn)
                if self._collector is None:
                    self._collector = _Collector(self)
                    self._queue._enter(self)
                return
            self._submit(fn, self)

    # ---- seen from the line

    def _signal(self) -> bool:
        """Wake all sleepers of this call; those already awake stay so. False if none of them can ever run."""
        if not self._signalled:
            self._signalled = True
            self._queue._turns += 1
            self._turn = self._queue._turns
        alive = self._collector is not None
        for waiter in tuple(self._waiters):
            if waiter.wake():
                alive = True
            else:
                self._waiters.pop(waiter, None)
        if self._collector is not None:
            self._collector.wake()
        return alive

    # ---- seen from the sleepers; all with the lock held

    def _attempt(self) -> bool:
        if self._state is not _State.OPEN:
            return True
        queue = self._queue
        if not self._signalled and queue._baton is not None:
            queue._pass_on()  # its holder may be gone for good
        return (self._signalled or queue._baton is None) and self._claim()

    def _resume(self) -> bool:
        if self._state is not _State.OPEN:
            return True
        # it takes without having been signalled, too: nobody's time runs out while an entry is there
        self._queue._release(self)
        if self._claim():
            return True
        self._queue._pass_on()
        return False

    def _claim(self) -> bool:
        """Take what is there and finish, or find nothing and stay as it is."""
        queue = self._queue
        if not queue.source.ready(self._kind):
            return False
        entries = queue.source.take(self._limit)
        if entries:
            self._finish(_State.VALUE, self._shape(entries))
            return True
        failure = queue.source.failure()
        if failure is None:
            return False
        self._finish(_State.FAILED, failure)
        return True

    def _finish(self, state: _State, outcome: object) -> None:
        super()._finish(state, outcome)
        self._collector = None
        self._queue._remove(self)
        self._queue._pass_on()

    def _join(self, waiter: Waiter) -> None:
        super()._join(waiter)
        self._queue._enter(self)

    def _leave(self, waiter: Waiter) -> None:
        joined = waiter in self._waiters
        super()._leave(waiter)
        if not joined or self._state is not _State.OPEN:
            return
        if not self._waiters and self._collector is None:
            self._queue._remove(self)
        self._queue._pass_on()

    def _await_stopped(self) -> None:
        return  # nothing has been taken, and the Pending can be waited for again

    # ---- seen from the dispatch thread

    def _collect(self) -> None:
        with self._runtime.lock:
            collector = self._collector
            if collector is None:
                return
            callbacks, self._callbacks = self._callbacks, []
            if not self._resume():
                self._callbacks = callbacks
                collector.reset()
                return
        for fn in callbacks:
            self._runtime.dispatcher.run_here(fn, self)


class _Collector:
    """The sleeper that stands for a call's callbacks: it runs when the dispatch thread gets to it."""

    __slots__ = ("_call", "_woken")

    def __init__(self, call: _Call[Any, Any]) -> None:
        self._call = call
        self._woken = False

    def wake(self) -> bool:
        if not self._woken:
            self._woken = True
            self._call._submit(self._call._collect)
        return True

    def reset(self) -> None:
        self._woken = False


def _all(entries: list[_T]) -> list[_T]:
    return entries


def _first(entries: list[_T]) -> _T:
    return entries[0]


def _agree() -> bool:
    return True
