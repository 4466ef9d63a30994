"""Where threads sleep over descriptors: a seat for a user's thread, a station for the engine's own."""

import math
import select
import selectors
import socket
from collections.abc import Iterable
from typing import Final

from softndk.drivers.alarm import Alarm
from softndk.drivers.channel import READ, WRITE, Channel

__all__ = ["LIVE_SELECTOR", "Seat", "Station"]

LIVE_SELECTOR: Final = selectors.DefaultSelector.__name__ in ("EpollSelector", "KqueueSelector", "DevpollSelector")
"""A change of interest counts at once, also for a `select` that another thread is in."""
_POLLIN: Final = getattr(select, "POLLIN", 0)
_POLLOUT: Final = getattr(select, "POLLOUT", 0)


class Seat:
    """Where a waiting thread serves channels: their descriptors and an alarm in one poll object of its own.

    Unlike an epoll instance a poll object costs no system call to fill and to empty.
    """

    __slots__ = ("alarm", "channels", "masks", "poller", "sleeping")

    def __init__(self) -> None:
        self.alarm = Alarm()
        self.poller = select.poll()
        self.poller.register(self.alarm.fileno(), _POLLIN)
        self.channels: dict[int, Channel] = {}
        self.masks: dict[int, int] = {}
        self.sleeping = False

    def ring(self) -> None:
        """Under the lock: have the thread look again."""
        if self.sleeping:
            self.sleeping = False
            self.alarm.ring()

    def watch(self, fd: int, mask: int) -> None:
        """Wait for `mask` on `fd` from now on, or with 0 no longer."""
        if mask:
            self.masks[fd] = mask
            self.poller.register(fd, (_POLLIN if mask & READ else 0) | (_POLLOUT if mask & WRITE else 0))
        elif self.masks.pop(fd, 0):
            self.poller.unregister(fd)

    def wait(self, timeout: float | None) -> list[tuple[int, int]]:
        """Sleep without the lock; return descriptors with READ and WRITE. The alarm is silenced, not
        returned.
        """
        ready = []
        alarm = self.alarm.fileno()
        for fd, events in self.poller.poll(None if timeout is None else math.ceil(timeout * 1000)):
            if fd == alarm:
                self.alarm.silence()
            else:
                mask = (READ if events & ~_POLLOUT else 0) | (WRITE if events & ~_POLLIN else 0)
                ready.append((fd, mask))
        return ready


class Station:
    """What the engine's thread holds while it sleeps: descriptors, and nothing that leads to the adapter.

    So a forgotten adapter can be collected while its thread sleeps.
    """

    __slots__ = ("__weakref__", "abandoned", "alarm", "seats", "selector", "sockets", "threaded")

    def __init__(self) -> None:
        self.selector = selectors.DefaultSelector()
        self.alarm = Alarm()
        self.selector.register(self.alarm.fileno(), READ)
        self.sockets: dict[int, socket.socket] = {}
        self.seats: list[Seat] = []
        self.threaded = False
        self.abandoned = False

    def take_seat(self) -> Seat | None:
        """None: the machine has no descriptor left for one."""
        try:
            return self.seats.pop() if self.seats else Seat()
        except OSError:
            return None

    def renew_selector(self) -> None:
        self.selector.close()
        self.selector = selectors.DefaultSelector()
        self.selector.register(self.alarm.fileno(), READ)

    def wait(self, timeout: float) -> list[tuple[int, int]]:
        """Sleep, without the lock; return descriptors with READ and WRITE."""
        try:
            return [(key.fd, mask) for key, mask in self.selector.select(timeout)]
        except OSError:
            if LIVE_SELECTOR:
                raise
            return []  # plain select does not like a socket that was closed at the very moment

    def abandon(self) -> None:
        """The engine has been collected: drop the connections and have the thread end."""
        self.abandoned = True
        for sock in list(self.sockets.values()):
            sock.close()
        if self.threaded:
            self.alarm.ring()
        else:
            self.close()

    def after_fork(self, occupied: Iterable[Seat]) -> None:
        self.threaded = False
        self.alarm.after_fork()
        for seat in (*self.seats, *occupied):
            seat.alarm.after_fork()
        self.close()

    def close(self) -> None:
        for sock in list(self.sockets.values()):
            sock.close()
        self.sockets.clear()
        for seat in self.seats:
            seat.alarm.close()
        self.seats.clear()
        self.selector.close()
        self.alarm.close()
