"""What one adapter has for waiting and waking: its lock, its callback thread, its engine, its clock.

The lock guards everything of the adapter. Two adapters' locks are never held together.
"""

import os
import threading
import time
import weakref
from collections.abc import Callable, Iterable
from typing import Final

from softndk.drivers.channel import Channel
from softndk.drivers.dispatch import Dispatcher
from softndk.drivers.engine import Engine
from softndk.drivers.waiters import ThreadWaiter

__all__ = ["Runtime"]


class Runtime:
    """The machinery of one adapter. `forked` is True in a child process, where none of it may be used.

    A simulated adapter derives from this and replaces `now` and `block`.
    """

    __slots__ = ("__weakref__", "dispatcher", "engine", "forked", "lock", "name")

    def __init__(self, name: str) -> None:
        self.name = name
        self.lock = threading.RLock()
        self.dispatcher = Dispatcher(name)
        self.engine = Engine(self.lock, name)
        self.forked = False
        _runtimes.add(self)

    def now(self) -> float:
        """The adapter's clock in seconds: that of every deadline."""
        return time.monotonic()

    def block(
        self,
        waiter: ThreadWaiter,
        deadline: float | None,
        streams: Callable[[], Iterable[Channel]] | None = None,
    ) -> None:
        """Put the calling thread, which holds no lock, to sleep until `waiter` is woken or the clock shows
        `deadline`.

        It may return too early; the caller looks again. `streams` is called under the lock: what the thread
        may serve while it waits.
        """
        if streams is None:
            waiter.park(None if deadline is None else deadline - self.now())
        else:
            self.engine.block(waiter, deadline, streams)

    def after_fork(self) -> None:
        """In a forked child: become unusable, and give back the copies of the parent's descriptors."""
        self.forked = True
        self.dispatcher.after_fork()
        self.engine.after_fork()


_runtimes: Final[weakref.WeakSet[Runtime]] = weakref.WeakSet()
_forking: Final = threading.Lock()  # one thread at a time
_held: Final[list[Runtime]] = []
"""Whose locks the forking thread holds: in the child they would else be held for ever by threads that do not exist
there.

All locks at once, but this is no deadlock: whoever holds one of them never waits for another.
"""


def _before_fork() -> None:
    _forking.acquire()
    for runtime in list(_runtimes):
        runtime.lock.acquire()
        _held.append(runtime)


def _after_fork_in_parent() -> None:
    while _held:
        _held.pop().lock.release()
    _forking.release()


def _after_fork_in_child() -> None:
    for runtime in _held:
        runtime.after_fork()
    _after_fork_in_parent()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(before=_before_fork, after_in_parent=_after_fork_in_parent, after_in_child=_after_fork_in_child)
