"""A listening TCP socket as a channel of the engine."""

import errno
import os
import socket
from collections.abc import Callable
from typing import Final

from softndk.drivers.channel import READ, Channel
from softndk.drivers.dispatch import report_unraisable
from softndk.drivers.engine import Engine
from softndk.drivers.sockets import Address, new_socket, numeric_address, socket_address

__all__ = ["TcpListener"]

ACCEPT_BATCH: Final = 16
"""Connections accepted before other channels have their turn."""
BACKLOG: Final = 1024
"""Connections that wait in the system to be accepted; Linux cuts it to net.core.somaxconn."""
ACCEPT_PAUSE_S: Final = 0.1
"""How long a listener rests when the machine has run out of descriptors or memory."""
OUT_OF_RESOURCES: Final = (errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM)


class TcpListener(Channel):
    """A listening socket. Every method is called under the adapter's lock.

    `on_accept(sock, peer)` is called, under the lock, for each connection; it owns the socket, which is
    non-blocking. `on_trouble(error)` is called, under the lock, each time that the machine has no descriptor or
    memory for one more; the connections stay in the system's queue until it has.
    """

    __slots__ = ("_engine", "_local", "_on_accept", "_on_trouble", "_paused", "_resting", "_sock", "closed")

    def __init__(
        self,
        engine: Engine,
        on_accept: Callable[[socket.socket, Address], None],
        on_trouble: Callable[[OSError], None] | None = None,
    ) -> None:
        super().__init__()
        self.closed = False
        self._engine = engine
        self._on_accept = on_accept
        self._on_trouble = on_trouble
        self._sock: socket.socket | None = None
        self._local: Address | None = None
        self._paused = False
        self._resting = False

    @property
    def local_address(self) -> Address | None:
        """Known once `open` has returned; kept after `close`."""
        return self._local

    def open(self, address: Address, *, backlog: int = BACKLOG) -> None:
        """Bind and listen; port 0: any.

        Raises: ValueError: not numeric. OSError: in use, not of this machine, no rights, no resources.
        RuntimeError:
            no more threads. Nothing is open then.
        """
        family, target = socket_address(address)
        sock = new_socket(family)
        try:
            if os.name == "posix":
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            if family == socket.AF_INET6:
                sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
            sock.bind(target)
            sock.listen(backlog)
            self._local = numeric_address(sock.getsockname())
            self._sock = sock
            self._engine.add(self, sock)
        except BaseException:
            self._sock = None
            sock.close()
            raise

    def pause(self, paused: bool) -> None:
        """Leave connections in the system's queue, or take them again."""
        self._paused = paused
        self._engine.update(self)

    def close(self) -> None:
        """Connections in the system's queue are reset. A second call does nothing."""
        self.closed = True
        self._engine.remove(self)
        sock, self._sock = self._sock, None
        if sock is not None:
            sock.close()

    def interest(self) -> int:
        return 0 if self._paused or self._resting else READ

    def deadline(self) -> float | None:
        return None

    def on_deadline(self) -> None:
        return

    def on_ready(self, mask: int) -> None:
        for _ in range(ACCEPT_BATCH):
            sock = self._sock
            if sock is None or self._paused:
                return
            try:
                accepted, name = sock.accept()
            except (BlockingIOError, InterruptedError):
                return
            except OSError as error:
                if error.errno in OUT_OF_RESOURCES:
                    self._rest()
                    if self._on_trouble is not None:
                        self._on_trouble(error)
                    return
                continue  # that one connection has failed already
            accepted.setblocking(False)
            try:
                self._on_accept(accepted, numeric_address(name))
            except Exception as error:
                accepted.close()
                report_unraisable(error, self._on_accept, "Exception ignored in softndk while accepting")

    def fail(self, error: OSError) -> None:
        self.close()

    def _rest(self) -> None:
        self._resting = True
        self._engine.update(self)
        self._engine.call_at(self._engine.now() + ACCEPT_PAUSE_S, self._rested)

    def _rested(self) -> None:
        self._resting = False
        self._engine.update(self)
