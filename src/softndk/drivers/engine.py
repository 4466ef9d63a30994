"""The engine: one thread per adapter that serves descriptors and timers when nobody else does.

A thread that waits for something takes the descriptors concerned out of the engine's hands and serves them
itself until it leaves (`block`), and one that polls serves them in passing (`poll`): no thread is woken in a
ping-pong. What it served is then *on loan* for a few milliseconds, because it will probably be back, and
nobody serves it meanwhile; the engine takes it back when it was not.

Timers are always the engine's. Everything of a channel is called under the adapter's lock. What a channel is,
TCP or not, is not known here.
"""

import atexit
import heapq
import itertools
import math
import select
import socket
import threading
import time
import weakref
from collections.abc import Callable, Iterable
from contextlib import suppress
from errno import ECONNABORTED, ETIMEDOUT
from typing import TYPE_CHECKING, Final

from softndk.drivers.channel import READ, WRITE, Channel, Timer
from softndk.drivers.dispatch import report_unraisable
from softndk.drivers.seats import LIVE_SELECTOR, Seat, Station
from softndk.drivers.waiters import ThreadWaiter

if TYPE_CHECKING:
    from _thread import RLock

__all__ = ["Engine"]

ASK_FIRST: Final = 8
"""From how many channels on one system call asks which of them have something to read, instead of trying each."""
_CAN_LEND: Final = LIVE_SELECTOR and hasattr(select, "poll")
LOAN_S: Final = 0.005
"""How long a descriptor stays unserved after the thread that served it: many round trips, yet not long for a
peer.
"""
READ_SIZE: Final = 256 * 1024
"""Octets of one read: the most that one channel may do before the next has its turn."""
TURN_S: Final = 0.002
PAUSE_S: Final = 0.0001
"""Where many channels are ready, the engine leaves the lock for PAUSE_S after each TURN_S. To let go of it between two
channels is not enough: the engine has it again before a thread that sleeps on it has woken up.
"""
LONGEST_SLEEP_S: Final = 3600.0
"""Bound for one system call's timeout; longer waits are made of several."""
TIMERS_KEPT: Final = 1024
"""So many timers may lie there before the cancelled ones among them are taken out."""
EXIT_WAIT_S: Final = 2.0
"""How long the interpreter's exit waits for engines that still have to send."""


class Engine:
    """Serves the channels of one adapter. Its thread is a daemon, starts with the first channel or timer, and
    ends after `stop` or `linger` with the last channel.
    """

    def __init__(self, lock: "RLock", name: str) -> None:
        self._lock = lock
        self._name = name
        self._station: Station | None = None
        self._thread: threading.Thread | None = None
        self._channels: dict[int, Channel] = {}
        self._timers: list[tuple[float, int, Timer]] = []
        self._tidy_at = TIMERS_KEPT
        self._numbers = itertools.count()
        self._sleeping = False
        self._wakes_at = math.inf
        self._stopping = False
        self._ended = False
        self._stop_at = math.inf
        self._loans: dict[Channel, float] = {}
        self._reclaiming = False
        self._last_leave = -math.inf
        self._deserted: list[Seat] = []
        self._interrupted = False
        self._buffer: memoryview | None = None

    # ---- getters

    def now(self) -> float:
        """The clock of all deadlines."""
        return time.monotonic()

    @property
    def buffer(self) -> memoryview:
        """READ_SIZE octets that every channel reads into, one at a time, under the lock."""
        if self._buffer is None:
            self._buffer = memoryview(bytearray(READ_SIZE))
        return self._buffer

    @property
    def channels(self) -> tuple[Channel, ...]:
        """What is being served. Under the lock."""
        return tuple(self._channels.values())

    @property
    def count(self) -> int:
        """How many channels are being served. Under the lock."""
        return len(self._channels)

    # ---- verbs; under the lock but for `block`, `join`

    def add(self, channel: Channel, sock: socket.socket) -> None:
        """Serve `channel`, whose non-blocking socket is `sock`, until `remove`."""
        if self._stopping:
            raise AssertionError(f"engine of {self._name}: a new channel after its stop")
        station = self._started()
        channel._fd = fd = sock.fileno()
        self._channels[fd] = channel
        station.sockets[fd] = sock
        self.update(channel)

    def update(self, channel: Channel) -> None:
        """The channel's interest or deadline may have changed."""
        if channel._fd < 0:
            return
        mask = channel.interest()
        if mask != channel._mask:
            channel._mask = mask
            if channel._seat is not None:
                channel._seat.watch(channel._fd, mask)
                channel._seat.ring()
            elif not channel._loaned:
                self._register(channel)
            elif mask & WRITE:
                self._end_loan(channel)  # output must not wait for a loan to run out
        when = channel.deadline()
        if when is not None and when < channel._timer_at:
            if channel._timer is not None:
                channel._timer.cancel()
            channel._timer_at = when
            channel._timer = Timer(lambda: self._deadline_of(channel))
            self._push(when, channel._timer)

    def remove(self, channel: Channel) -> None:
        """Stop serving; before the socket is closed. A second call does nothing."""
        fd, channel._fd = channel._fd, -1
        if fd < 0:
            return
        del self._channels[fd]
        self._loans.pop(channel, None)
        channel._loaned = False
        if channel._timer is not None:
            channel._timer.cancel()  # or the channel would be kept until then
            channel._timer = None
        station = self._station
        if station is None:
            return
        station.sockets.pop(fd, None)
        seat, channel._seat = channel._seat, None
        if seat is not None:
            seat.channels.pop(fd, None)
            seat.watch(fd, 0)
            seat.ring()  # a file that a system call waits on is not closed, and no FIN goes out, until that returns
        if channel._registered:
            with suppress(KeyError):  # a signal has come between the two steps of registering
                station.selector.unregister(fd)
            self._kick_if_blind()
        channel._registered = channel._mask = 0
        if self._stopping and not self._channels:
            self._kick()

    def call_at(self, when: float, fn: Callable[[], object]) -> Timer:
        """Have `fn()` called in the engine's thread, under the lock, at `when` on the engine's clock."""
        timer = Timer(fn)
        if not self._stopping:
            self._started()
            self._push(when, timer)
        return timer

    def poll(self, channels: Iterable[Channel]) -> None:
        """Read, in the calling thread and without waiting, what has come for `channels`."""
        for channel in _with_input([item for item in channels if item._fd >= 0 and item._mask & READ]):
            if channel._fd >= 0:
                self._serve(channel, READ)
                if channel._fd >= 0 and channel._seat is None:
                    self._lend(channel)
        self._last_leave = self.now()

    def block(self, waiter: ThreadWaiter, deadline: float | None, channels: Callable[[], Iterable[Channel]]) -> None:
        """Sleep until `waiter` is woken or `deadline`; meanwhile serve those of `channels()` that no other
        thread serves. Without the lock; may return too early. Looks at the channels at least once.
        """
        seat: Seat | None = None
        try:
            with self._lock:
                if waiter.woken:
                    return
                free = [channel for channel in channels() if channel._fd >= 0 and channel._seat is None]
                if free and _CAN_LEND and self._station is not None and not self._ended:
                    seat = self._station.take_seat()
                if seat is not None:
                    self._sit_down(seat, free)
                    waiter.alarm = seat.ring
            if seat is None:
                waiter.park(None if deadline is None else deadline - self.now())
                return
            self._drive(seat, waiter, deadline)
            with self._lock:
                waiter.alarm = None
                self._give_back(seat)
        except BaseException:
            if seat is not None:
                self._deserted.append(seat)
                self.interrupted()
            raise
        with self._lock:
            self._keep(seat)

    def interrupted(self) -> None:
        """A thread leaves its work here by an exception, a signal's most likely, which may have come between any two
        steps on seat, selector and loans: have the engine's thread put them right, where no signal comes.
        """
        self._interrupted = True
        self._wake_thread()

    def stop(self) -> None:
        """Drop every channel that is left and end the thread."""
        self.linger(0.0)

    def linger(self, timeout: float) -> None:
        """Take no new channels; end the thread with the last of the present ones, or after `timeout` seconds
        with all.
        """
        if self._ended:
            return
        self._stop_at = min(self._stop_at, self.now() + timeout)
        if self._stopping and timeout > 0:
            self._kick()
            return
        self._stopping = True
        for channel in tuple(self._loans):
            self._end_loan(channel)
        if timeout <= 0:
            self._fail_all("the adapter has been closed")
        if self._station is None:
            self._ended = True
            return
        _lingering.add(self)
        self._kick()

    def join(self, timeout: float | None = None) -> bool:
        """After `stop` or `linger`, without the lock: wait for the thread's end; False if it still runs.

        In the engine's thread itself it is False at once.
        """
        thread = self._thread
        if thread is None or not thread.is_alive():
            return True
        if thread is threading.current_thread():
            return False
        thread.join(timeout)
        return not thread.is_alive()

    def after_fork(self) -> None:
        """In a forked child: give back the copies of the descriptors. Nothing is sent or shut down by
        that.
        """
        self._stopping = self._ended = True
        self._thread = None
        _lingering.discard(self)
        occupied = {channel._seat for channel in self._channels.values() if channel._seat is not None}
        for channel in self._channels.values():
            channel._fd = -1
            channel._seat = None
        self._channels.clear()
        self._timers.clear()
        self._loans.clear()
        station, self._station = self._station, None
        if station is not None:
            station.after_fork(occupied)

    # ---- who serves a channel: the engine's selector, a seat, or nobody for the time of a loan

    def _register(self, channel: Channel) -> None:
        station = self._station
        if station is None or channel._mask == channel._registered:
            return
        if not channel._mask:
            station.selector.unregister(channel._fd)
        elif channel._registered:
            station.selector.modify(channel._fd, channel._mask)
        else:
            station.selector.register(channel._fd, channel._mask)
        channel._registered = channel._mask
        self._kick_if_blind()

    def _unregister(self, channel: Channel) -> None:
        if channel._registered and self._station is not None:
            self._station.selector.unregister(channel._fd)
            channel._registered = 0
            self._kick_if_blind()

    def _sit_down(self, seat: Seat, channels: Iterable[Channel]) -> None:
        for channel in channels:
            seat.channels[channel._fd] = channel
            channel._seat = seat
            self._loans.pop(channel, None)
            channel._loaned = False
            self._unregister(channel)
            seat.watch(channel._fd, channel._mask)

    def _give_back(self, seat: Seat) -> None:
        seat.sleeping = False
        for fd, channel in list(seat.channels.items()):
            seat.watch(fd, 0)
            channel._seat = None
            self._lend(channel)
            seat.channels.pop(fd, None)
        self._last_leave = self.now()

    def _recover(self) -> None:
        """Make everything anew from what the channels want."""
        self._interrupted = False
        station = self._station
        if station is None:
            return
        left, self._deserted = self._deserted, []
        station.renew_selector()
        self._loans.clear()
        for channel in self._channels.values():
            if channel._seat in left:
                channel._seat = None
            channel._loaned = False
            channel._registered = channel._mask = 0
            self.update(channel)
        for seat in left:
            seat.alarm.close()

    def _keep(self, seat: Seat) -> None:
        if self._station is None or self._ended:
            seat.alarm.close()
        else:
            self._station.seats.append(seat)

    def _lend(self, channel: Channel) -> None:
        """Leave `channel`, just served by a user's thread, to that thread's next visit or to the engine."""
        if channel._loaned:
            self._loans[channel] = self.now()
        elif _CAN_LEND and not channel._mask & WRITE and self._expects_visit():
            self._unregister(channel)
            channel._loaned = True
            self._loans[channel] = self.now()
        else:
            self._register(channel)

    def _expects_visit(self) -> bool:
        if self._stopping:
            return False
        now = self.now()
        if not self._reclaiming:
            if now - self._last_leave > LOAN_S:
                return False
            self._reclaiming = True
            self.call_at(now + LOAN_S, self._reclaim)
        return True

    def _reclaim(self) -> None:
        self._reclaiming = False
        now = self.now()
        for channel, since in list(self._loans.items()):
            if now - since >= LOAN_S:
                self._end_loan(channel)
        if not self._stopping and (self._loans or now - self._last_leave < LOAN_S):
            self._reclaiming = True
            self.call_at(now + LOAN_S, self._reclaim)

    def _end_loan(self, channel: Channel) -> None:
        del self._loans[channel]
        channel._loaned = False
        self._register(channel)

    def _drive(self, seat: Seat, waiter: ThreadWaiter, deadline: float | None) -> None:
        expired = False
        while True:
            with self._lock:
                if waiter.woken or expired or not seat.channels:
                    return
                timeout = LONGEST_SLEEP_S if deadline is None else max(0.0, deadline - self.now())
                seat.sleeping = True
            ready = seat.wait(min(timeout, LONGEST_SLEEP_S))
            expired = deadline is not None and self.now() >= deadline
            for fd, mask in ready:
                with self._lock:
                    seat.sleeping = False
                    channel = seat.channels.get(fd)
                    if channel is not None:
                        self._serve(channel, mask)

    # ---- the thread

    def _started(self) -> Station:
        station = self._station
        if station is None:
            station = self._station = Station()
            weakref.finalize(self, station.abandon).atexit = False
        if self._thread is None:
            thread = threading.Thread(
                target=_run,
                args=(weakref.ref(self), station),
                name=f"softndk-engine-{self._name}",
                daemon=True,
            )
            thread.start()
            station.threaded = True
            self._thread = thread
        return station

    def _before_sleep(self) -> float | None:
        """Seconds that the thread may sleep; None: it is to end."""
        with self._lock:
            if self._interrupted:
                self._recover()
            now = self.now()
            if self._stopping:
                if now >= self._stop_at:
                    self._fail_all("the time to finish after the adapter's close is over")
                if not self._channels:
                    self._ended = True
                    self._timers.clear()
                    _lingering.discard(self)
                    return None
            self._wakes_at = min(self._timers[0][0] if self._timers else math.inf, self._stop_at)
            self._sleeping = True
            return min(max(0.0, self._wakes_at - now), LONGEST_SLEEP_S)

    def _after_sleep(self, fds: list[tuple[int, int]]) -> None:
        turn_ends = self.now() + TURN_S
        for fd, mask in fds:
            if self.now() >= turn_ends:
                time.sleep(PAUSE_S)
                turn_ends = self.now() + TURN_S
            with self._lock:
                self._sleeping = False
                channel = self._channels.get(fd)
                if channel is not None:  # if it is served elsewhere since, one more look does no harm
                    self._serve(channel, mask)
        with self._lock:
            self._sleeping = False
            self._run_timers()

    def _run_timers(self) -> None:
        now = self.now()
        while self._timers and self._timers[0][0] <= now:
            timer = heapq.heappop(self._timers)[2]
            fn, timer.fn = timer.fn, None
            if fn is not None:
                try:
                    fn()
                except Exception as error:
                    report_unraisable(error, fn, "Exception ignored in softndk timer")

    def _deadline_of(self, channel: Channel) -> None:
        channel._timer = None
        channel._timer_at = math.inf
        try:
            channel.on_deadline()
        except BaseException as error:
            self._broken(channel, error)
        self.update(channel)

    def _serve(self, channel: Channel, mask: int) -> None:
        try:
            channel.on_ready(mask)
        except BaseException as error:
            self._broken(channel, error)

    def _broken(self, channel: Channel, error: BaseException) -> None:
        """One channel's exception, our own bug, must not take the others with it; a KeyboardInterrupt goes
        on.
        """
        channel.fail(OSError(ECONNABORTED, "softndk has failed internally"))
        if not isinstance(error, Exception):
            self.interrupted()
            raise error
        report_unraisable(error, channel, "Exception ignored in softndk engine; its connection is dropped")

    def _fail_all(self, reason: str) -> None:
        for channel in self.channels:
            channel.fail(OSError(ETIMEDOUT, reason))

    def _push(self, when: float, timer: Timer) -> None:
        if len(self._timers) >= self._tidy_at:
            self._timers = [entry for entry in self._timers if entry[2].fn is not None]
            heapq.heapify(self._timers)
            self._tidy_at = max(TIMERS_KEPT, 2 * len(self._timers))
        heapq.heappush(self._timers, (when, next(self._numbers), timer))
        if when < self._wakes_at:
            self._kick()

    def _kick(self) -> None:
        if self._sleeping:
            self._sleeping = False
            self._wake_thread()

    def _wake_thread(self) -> None:
        if self._station is not None:
            self._station.alarm.ring()

    def _kick_if_blind(self) -> None:
        if not LIVE_SELECTOR:
            self._kick()


def _with_input(channels: list[Channel]) -> list[Channel]:
    """Those that may have something to read: all of a few, else what the system says."""
    if len(channels) < ASK_FIRST or not hasattr(select, "poll"):
        return channels
    poller = select.poll()
    for channel in channels:
        poller.register(channel._fd, select.POLLIN)
    ready = {fd for fd, _ in poller.poll(0)}
    return [channel for channel in channels if channel._fd in ready]


def _run(reference: "weakref.ref[Engine]", station: Station) -> None:
    """The engine's thread. It holds the engine only while there is something to do."""
    alarm = station.alarm.fileno()
    try:
        while (engine := reference()) is not None:
            timeout = engine._before_sleep()
            del engine
            if timeout is None or station.abandoned:
                break
            ready = station.wait(timeout)
            if any(fd == alarm for fd, _ in ready):
                station.alarm.silence()
            engine = reference()
            if engine is None:
                break
            engine._after_sleep(ready)
            del engine
    finally:
        station.close()


_lingering: Final[set[Engine]] = set()


def _finish_lingering() -> None:
    """At the interpreter's exit: what has been closed may still send its last words."""
    deadline = time.monotonic() + EXIT_WAIT_S
    for engine in list(_lingering):
        engine.join(max(0.0, deadline - time.monotonic()))


atexit.register(_finish_lingering)
