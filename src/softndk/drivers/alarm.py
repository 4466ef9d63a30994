"""A descriptor that becomes readable on request: it ends a `select` in another thread, or tells a user's
event loop.

It knows nothing of who waits on it.
"""

import os
import socket
import threading
from contextlib import suppress

__all__ = ["Alarm"]


class Alarm:
    """One descriptor with two states; `ring` and `silence` are idempotent, never block and are thread-safe.

    The descriptor belongs to this object until `close`. An eventfd where the system has it, else a socket
    pair.
    """

    __slots__ = ("_eventfd", "_far", "_fileno", "_lock", "_near")

    def __init__(self) -> None:
        self._lock = threading.RLock()  # after a close meanwhile the number may be another file's
        self._eventfd = -1
        self._fileno = -1
        self._near: socket.socket | None = None
        self._far: socket.socket | None = None
        if hasattr(os, "eventfd"):
            self._fileno = self._eventfd = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)
        else:
            self._near, self._far = socket.socketpair()
            self._near.setblocking(False)
            self._far.setblocking(False)
            self._fileno = self._near.fileno()

    def fileno(self) -> int:
        """The descriptor to wait on; -1 once closed. Nobody but this object may read it."""
        return self._fileno

    def ring(self) -> None:
        """Make the descriptor readable. Does nothing once closed."""
        with self._lock, suppress(BlockingIOError):  # full means readable
            if self._eventfd >= 0:
                os.eventfd_write(self._eventfd, 1)
            elif self._far is not None:
                self._far.send(b"\0")

    def silence(self) -> None:
        """Make the descriptor unreadable. Does nothing once closed."""
        with self._lock, suppress(BlockingIOError):
            if self._eventfd >= 0:
                os.eventfd_read(self._eventfd)
            elif self._near is not None:
                while self._near.recv(4096):
                    continue

    def __del__(self) -> None:
        if getattr(self, "_fileno", -1) >= 0:  # forgotten with its adapter, or not made whole
            self.close()

    def after_fork(self) -> None:
        """In a forked child: give the copy of the descriptor back, whatever another thread of the parent was doing."""
        self._lock = threading.RLock()
        self.close()

    def close(self) -> None:
        """Give the descriptor back to the system. A second call does nothing."""
        with self._lock:
            eventfd, self._eventfd, self._fileno = self._eventfd, -1, -1
            if eventfd >= 0:
                os.close(eventfd)
            for end in (self._near, self._far):
                if end is not None:
                    end.close()
            self._near = self._far = None
