"""A whole adapter without threads: its engine and its callbacks go on only when told to, and its clock is a number.

All of it is the real thing, sockets included, but for the two threads and the clock. So one input of the fuzzer is one
order of events, and time limits cost no time.
"""

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Final

from softndk import Adapter, IwarpConfig, open_adapter
from softndk.drivers import dispatch
from softndk.drivers.dispatch import Dispatcher
from softndk.drivers.engine import Engine
from softndk.drivers.runtime import Runtime
from softndk.drivers.seats import Station
from softndk.ndk import adapter as adapter_module

if TYPE_CHECKING:
    from _thread import RLock

__all__ = ["SteppedDispatcher", "SteppedEngine", "SteppedRuntime", "open_stepped"]

START_S: Final = 1000.0


class SteppedEngine(Engine):
    """An engine whose thread is whoever calls `step`. `clock`: what it takes for the time."""

    def __init__(self, lock: "RLock", name: str) -> None:
        super().__init__(lock, name)
        self.clock = START_S

    def now(self) -> float:
        return self.clock

    @property
    def next_timer(self) -> float | None:
        """When the next call is due; None: there is none."""
        due = [when for when, _, timer in self._timers if timer.fn is not None]
        return min(due, default=None)

    def step(self, wait_s: float = 0.0) -> int:
        """What the thread does between two sleeps; `wait_s`: seconds of real time that it may sleep. How many descriptors
        were ready.
        """
        station = self._station
        if station is None:
            return 0
        if self._before_sleep() is None:
            self._station = None
            station.close()
            return 0
        ready = station.wait(wait_s)
        alarm = station.alarm.fileno()
        if any(fd == alarm for fd, _ in ready):
            station.alarm.silence()
        self._after_sleep(ready)
        return sum(fd != alarm for fd, _ in ready)

    @property
    def ended(self) -> bool:
        return self._ended

    def _started(self) -> Station:
        if self._station is None:
            self._station = Station()
        return self._station


class SteppedDispatcher(Dispatcher):
    """A dispatch thread that is whoever calls `run`."""

    __slots__ = ()

    def submit(self, fn: Callable[..., object], *args: Any) -> None:
        self._worker.queue.append((fn, args))
        self._worker.submitted += 1

    def run(self) -> int:
        """Call what has been submitted, and what that submits; how many calls it were."""
        worker, count = self._worker, 0
        dispatch._current.worker = worker
        try:
            while worker.queue:
                fn, args = worker.queue.popleft()
                dispatch._call(fn, args)
                worker.returned += 1
                count += 1
        finally:
            dispatch._current.worker = None
        return count


class SteppedRuntime(Runtime):
    """The two of them."""

    __slots__ = ("callbacks", "stepped")

    def __init__(self, name: str) -> None:
        super().__init__(name)
        self.callbacks = SteppedDispatcher(name)
        self.stepped = SteppedEngine(self.lock, name)
        self.dispatcher = self.callbacks
        self.engine = self.stepped

    def now(self) -> float:
        return self.stepped.clock


def open_stepped(address: str, config: IwarpConfig) -> tuple[Adapter, SteppedRuntime]:
    """An adapter of that kind, and what makes it go on."""
    usual = vars(adapter_module)["Runtime"]
    vars(adapter_module)["Runtime"] = SteppedRuntime
    try:
        adapter = open_adapter(address, config=config)
    finally:
        vars(adapter_module)["Runtime"] = usual
    runtime = adapter._runtime
    assert isinstance(runtime, SteppedRuntime)
    return adapter, runtime
