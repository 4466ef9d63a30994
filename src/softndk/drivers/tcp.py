"""TCP under a protocol core: a connection as a channel of the engine.

Moves octets and tells what happened to the connection. What the octets mean, and when a connection may end,
is the core's business. Addresses are numeric: nothing is resolved.
"""

import errno
import math
import os
import socket
import struct
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import Final, Protocol

from softndk.drivers.channel import READ, WRITE, Channel
from softndk.drivers.dead_peer import DeadPeerWatch
from softndk.drivers.dispatch import report_unraisable
from softndk.drivers.engine import Engine
from softndk.drivers.sockets import (
    Address,
    TcpOptions,
    choose_port_late,
    connect_error,
    new_socket,
    numeric_address,
    segment_size,
    set_options,
    socket_address,
)
from softndk.drivers.tcp_info import CAN_READ, read_tcp_info
from softndk.iwarp.events import Finish

__all__ = ["StreamCore", "Tap", "TcpStream"]

Octets = memoryview | bytes | bytearray

IOV_MAX: Final = min(1024, os.sysconf("SC_IOV_MAX")) if hasattr(os, "sysconf") else 1
"""Buffers that one send call takes."""
SEND_BUDGET: Final = 1024 * 1024
"""Octets that one call of `pump` sends at most, so that neither a caller nor another connection waits for
long.
"""
SEND_BUFFERS: Final = 1024
"""Buffers, mostly FPDUs, that it sends at most: small ones take as long to make as large ones."""
PROBE_FIRST_S: Final = 0.05
PROBE_LAST_S: Final = 2.0
"""How soon, and how rarely at the end, a connection is looked at from which nothing is read."""
_INTERNAL: Final = "softndk has failed internally"
_ABORTIVE: Final = struct.pack("ii", 1, 0)


class StreamCore(Protocol):
    """A protocol core as the driver sees it. Called under the adapter's lock; `now` is the driver's clock in
    seconds.
    """

    def connected(self, now: float, mss: int) -> None:
        """TCP is up; `mss` is its effective maximum segment size in octets."""

    def receive_data(self, data: memoryview, now: float) -> None:
        """Octets have come; `data` is borrowed during the call only."""

    def receive_eof(self, now: float) -> None:
        """The peer's FIN, after all its data."""

    def receive_rest(self, data: memoryview, now: float) -> None:
        """Octets that the core had not wanted to read yet; `connection_lost` comes next. `data` is borrowed."""

    def connection_lost(self, error: OSError, now: float) -> None:
        """Reset, time-out, or no connection in the first place. Nothing can be sent any more."""

    def wants_read(self) -> bool:
        """False: the core holds the stream back."""

    def read_size(self) -> int:
        """How many octets the next read may take."""

    def data_to_send(self, now: float) -> Sequence[Octets]:
        """What is ready, a bounded amount; empty: nothing. Octets not reported as sent are given again."""

    def data_sent(self, count: int, now: float) -> None:
        """The socket has taken `count` octets of what `data_to_send` gave."""

    def finish(self) -> Finish:
        """What is to become of the connection now."""

    def next_timeout(self) -> float | None:
        """When to call `handle_timeout`."""

    def handle_timeout(self, now: float) -> None:
        """The time of `next_timeout` has come."""


class Tap(Protocol):
    """Who looks on at one connection, a trace above all. `data` is borrowed during the call only."""

    def opened(self) -> None: ...
    def sent(self, data: Octets) -> None: ...
    def received(self, data: Octets) -> None: ...
    def fin_sent(self) -> None: ...
    def fin_received(self) -> None: ...
    def reset(self, by_peer: bool) -> None: ...
    def closed(self) -> None: ...


class TcpStream(Channel):
    """One TCP connection with its core.

    Every method is called under the adapter's lock. `on_activity` is called, under the lock, after each input
    to the core, and once more when the stream has closed; it may give the core new work and call `pump`, but
    not wait. `tap(local, peer)` is called when TCP is up and gives the onlooker.
    """

    __slots__ = (
        "_blocked",
        "_busy",
        "_connecting",
        "_engine",
        "_eof",
        "_fin_sent",
        "_local",
        "_muted",
        "_on_activity",
        "_options",
        "_peer",
        "_probe_at",
        "_probe_wait",
        "_pump_again",
        "_pumping",
        "_send_error",
        "_shared",
        "_sock",
        "_source",
        "_tap",
        "_tap_factory",
        "_watch",
        "closed",
        "core",
    )

    def __init__(
        self,
        engine: Engine,
        core: StreamCore,
        on_activity: Callable[[], None],
        *,
        tap: Callable[[Address, Address], Tap] | None = None,
        options: TcpOptions | None = None,
    ) -> None:
        super().__init__()
        self.core = core
        self.closed = False
        self._engine = engine
        self._on_activity = on_activity
        self._tap_factory = tap
        self._tap: Tap | None = None
        self._options = options or TcpOptions()
        self._sock: socket.socket | None = None
        self._local: Address | None = None
        self._peer: Address | None = None
        self._source: Address | None = None
        self._shared = False
        self._connecting = False
        self._blocked = False
        self._eof = False
        self._probe_at = math.inf
        self._probe_wait = PROBE_FIRST_S
        self._watch = DeadPeerWatch(self._options.dead_peer_timeout_s if CAN_READ else 0.0)
        self._fin_sent = False
        self._send_error: OSError | None = None
        self._busy = False
        self._muted = False
        self._pumping = False
        self._pump_again = False

    def __repr__(self) -> str:
        state = "closed" if self.closed else "connecting" if self._connecting else "open"
        return f"<TcpStream {state} {self._local} -> {self._peer}>"

    # ---- getters

    @property
    def local_address(self) -> Address | None:
        """Known from the moment the connection is being made; kept after its end."""
        return self._local

    @property
    def peer_address(self) -> Address | None:
        return self._peer

    # ---- verbs

    def connect(self, destination: Address, source: Address | None = None, *, shared: bool = False) -> None:
        """Begin to connect, from `source` if given (port 0: any of the dynamic range, where the system lets us choose).
        Never blocks. `shared`: `source` is one that `reserve` has reserved.

        Failures of machine and network, known at once or later, reach the core through `connection_lost`.
        Raises: ValueError: an address that is not numeric, or two of different families; nothing has happened
        then.
        """
        try:
            family, target = socket_address(destination)
            bound = None if source is None else socket_address(source)
        except OSError as error:
            self._lost(error)
            return
        if bound is not None and bound[0] != family:
            raise ValueError(f"source {source} and destination {destination} are of different families")
        self._peer = destination
        self._source, self._shared = source, shared
        try:
            sock = self._sock = new_socket(family)
            set_options(sock, self._options)
            if bound is not None:
                if shared:
                    sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                else:
                    choose_port_late(sock)
                sock.bind(bound[1])
            code = sock.connect_ex(target)
            if code not in (0, errno.EINPROGRESS, errno.EWOULDBLOCK, errno.EINTR):
                raise connect_error(code, destination, source)
            self._local = numeric_address(sock.getsockname())
            self._connecting = True
            self._engine.add(self, sock)
        except (OSError, RuntimeError) as error:  # RuntimeError: no more threads
            self._lost(error if isinstance(error, OSError) else OSError(errno.EAGAIN, str(error)))

    def attach(self, sock: socket.socket) -> None:
        """Take over an accepted connection, which is owned from now on; the core is told `connected`."""
        self._sock = sock
        try:
            sock.setblocking(False)
            set_options(sock, self._options)
            self._peer = numeric_address(sock.getpeername())
            self._engine.add(self, sock)
        except OSError as error:
            self._lost(error)
            return
        try:
            self._up(sock)
        except BaseException:
            self.fail(OSError(errno.ECONNABORTED, _INTERNAL))
            raise

    def pump(self) -> None:
        """Send what the core has ready, in the calling thread, as far as the socket takes it, and do as
        `finish` says.

        To be called after everything that may have given the core something to send or to end, or may have
        made it want to read again. What the
        socket does not take now is sent when it does, by whoever serves this stream then.
        """
        if self._muted:
            return
        if self._is_unwatched:
            self._probe_wait = PROBE_FIRST_S
            self._probe_at = self._engine.now() + PROBE_FIRST_S
        if self._pumping:
            self._pump_again = True
            return
        self._pumping = True
        try:
            self._pump_again = True
            while self._pump_again and not self.closed:
                self._pump_again = False
                if not self._connecting and self._send_ready() and not self.closed:
                    self._on_activity()
                if not self.closed:
                    self._do_finish()
        except BaseException as error:
            self.fail(OSError(errno.ECONNABORTED, _INTERNAL))
            if not isinstance(error, Exception):
                self._engine.interrupted()
            raise
        finally:
            self._pumping = False
        self._engine.update(self)

    def mute(self) -> None:
        """Neither read nor send any more, but keep the connection: what a peer that hangs looks like (for
        tests).
        """
        self._engine.remove(self)
        self._muted = True

    # ---- what the engine calls

    def interest(self) -> int:
        if self._connecting:
            return WRITE
        reading = not self._eof and self.core.wants_read()
        return (READ if reading else 0) | (WRITE if self._blocked else 0)

    def deadline(self) -> float | None:
        when = self.core.next_timeout()
        own = min(self._watch.look_at, self._probe_at) if self._is_unwatched else self._watch.look_at
        if own == math.inf:
            return when
        return own if when is None else min(when, own)

    def on_ready(self, mask: int) -> None:
        if self._busy or self.closed:
            return
        self._busy = True
        try:
            if self._connecting:
                self._finish_connect()
            elif mask & READ:
                self._read()
            if mask & WRITE:
                self._blocked = False
        finally:
            self._busy = False
        if not self.closed:
            self.pump()

    def on_deadline(self) -> None:
        now = self._engine.now()
        if self._is_unwatched and self._probe_at <= now and not self._survives(now):
            return
        if self._watch.look_at <= now and not self._is_answered(now):
            return
        when = self.core.next_timeout()
        if when is not None and when <= now:
            self.core.handle_timeout(now)
            self._on_activity()
            if not self.closed:
                self.pump()

    def fail(self, error: OSError) -> None:
        """Reset the connection and tell the core, whose own exceptions are no longer of interest."""
        if self.closed:
            return
        try:
            self._reset()
            self.core.connection_lost(error, self._engine.now())
            self._on_activity()
        except Exception as second:
            report_unraisable(second, self, "Exception ignored in softndk while dropping a connection")

    # ---- connecting

    def _finish_connect(self) -> None:
        sock = self._open_socket()
        code = sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
        if code:
            self._lost(OSError(code, os.strerror(code)))
            return
        try:
            sock.getpeername()
        except OSError as error:
            if error.errno != errno.ENOTCONN:
                self._lost(error)
            return  # ready for another reason; it is still being made
        self._connecting = False
        self._up(sock)

    def _up(self, sock: socket.socket) -> None:
        self._local = numeric_address(sock.getsockname())
        if self._tap_factory is not None and self._peer is not None:
            try:
                self._tap = self._tap_factory(self._local, self._peer)
            except Exception as error:
                report_unraisable(error, self, "softndk cannot trace a connection")
            self._tell_tap("opened")
        self.core.connected(self._engine.now(), segment_size(sock))
        self._on_activity()
        self.pump()

    # ---- reading

    def _read(self) -> bool:
        """One read of up to READ_SIZE octets; returns whether there was anything, an end included."""
        if self._eof or not self.core.wants_read():
            return False
        sock = self._open_socket()
        buffer = self._engine.buffer
        try:
            count = sock.recv_into(buffer, min(len(buffer), self.core.read_size()))
        except (BlockingIOError, InterruptedError):
            return False
        except OSError as error:
            earlier = self._send_error
            self._lost(error if earlier is None or earlier.errno == errno.EPIPE else earlier)
            return True
        now = self._engine.now()
        if count:
            data = buffer[:count]
            if self._tap is not None:
                self._tell_tap("received", data)
            self.core.receive_data(data, now)
            self._on_activity()
            return True
        self._eof = True
        if self._send_error is not None and self._send_error.errno != errno.EPIPE:
            self._lost(self._send_error)  # this end of file is the reset's; behind a FIN a reset would be EPIPE
            return True
        self._tell_tap("fin_received")
        self.core.receive_eof(now)
        self._on_activity()
        return True

    @property
    def _is_unwatched(self) -> bool:
        """Nothing is waited for: after the peer's FIN, since at an end of file a descriptor is always readable, and while
        the core holds the stream back.
        """
        return self._eof or not (self._connecting or self.core.wants_read())

    def _survives(self, now: float) -> bool:
        """An unwatched connection may have been reset, or its peer may be dead. So that has to be looked for, at growing
        intervals; everything that is sent makes them short again.
        """
        self._probe_wait = min(2 * self._probe_wait, PROBE_LAST_S)
        self._probe_at = now + self._probe_wait
        code = self._open_socket().getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
        if code:
            code = errno.ECONNRESET if code == errno.EPIPE else code  # EPIPE: a reset after a FIN
            self._lost(OSError(code, os.strerror(code)))
        return not self.closed

    def _is_answered(self, now: float) -> bool:
        """Octets of ours were unacknowledged at the last look; False: the peer is dead, and so is the connection now."""
        verdict = self._watch.look(read_tcp_info(self._open_socket()), now)
        if verdict is not None:
            self._lost(OSError(errno.ETIMEDOUT, verdict), abort=True)
        return not self.closed

    # ---- sending

    def _send_ready(self) -> bool:
        """Send until nothing is ready, the socket is full or the budget is spent; returns whether anything
        was sent.
        """
        if self._blocked:
            return False
        sock = self._open_socket()
        total = pieces = 0
        now = self._engine.now()
        while buffers := self.core.data_to_send(now):
            if total >= SEND_BUDGET or pieces >= SEND_BUFFERS:
                self._blocked = True  # not really, but others come first
                break
            offered = buffers[:IOV_MAX]
            try:
                count = sock.send(offered[0]) if len(offered) == 1 else sock.sendmsg(offered)
            except (BlockingIOError, InterruptedError):
                self._blocked = True
                break
            except OSError as error:
                self._read_last_words(error)
                break
            if self._tap is not None:
                self._tap_sent(offered, count)
            now = self._engine.now()
            self.core.data_sent(count, now)
            total += count
            pieces += len(offered)
            if self.closed:
                break
            if count < sum(map(_size, offered)):
                self._blocked = True
                break
        if total:
            self._watch.sent(now)
        return total > 0

    def _read_last_words(self, error: OSError) -> None:
        """Sending fails, but the peer's reason, or its FIN, may lie unread in the socket: first that, then the loss."""
        self._send_error = error
        sock = self._sock
        while self._sock is sock and not self._eof and self.core.wants_read():
            if not self._read():
                break
        if self._sock is sock and self.core.finish() is not Finish.RECONNECT:
            self._lost(error)

    # ---- ending

    def _do_finish(self) -> None:
        finish = self.core.finish()
        if finish is Finish.RESET:
            self._reset()
            self._on_activity()
        elif finish is Finish.CLOSE:
            self._tell_tap("closed")
            self._close()
            self._on_activity()
        elif finish is Finish.RECONNECT and not self._connecting:
            self._tell_tap("closed")
            self._reconnect()
        elif finish is Finish.SHUTDOWN and not self._fin_sent and not self._connecting:
            self._fin_sent = True
            with suppress(OSError):  # the connection is gone; reading will say so
                self._open_socket().shutdown(socket.SHUT_WR)
            self._tell_tap("fin_sent")

    def _lost(self, error: OSError, *, abort: bool = False) -> None:
        """Tell the core. `abort`: TCP itself has not given up yet."""
        if not self._connecting and not self._eof and not self.core.wants_read():
            self._give_rest()
        if abort:
            self._reset()
        else:
            self._tell_tap("reset", True)
            self._close()
        self.core.connection_lost(error, self._engine.now())
        if self.core.finish() is Finish.RECONNECT:
            self._reconnect()
        self._on_activity()

    def _give_rest(self) -> None:
        """One read's worth of what the core did not want yet: the reason of the loss may be in it."""
        with suppress(OSError):
            data = self._engine.buffer[: self._open_socket().recv_into(self._engine.buffer)]
            if self._tap is not None:
                self._tell_tap("received", data)
            self.core.receive_rest(data, self._engine.now())

    def _reconnect(self) -> None:
        """The same core on a new TCP connection."""
        assert self._peer is not None
        self._close()
        self.closed = False
        self._blocked = self._eof = self._fin_sent = False
        self._probe_at = math.inf
        self._watch.rest()
        self._send_error = None
        self._tap = None
        self.connect(self._peer, self._source, shared=self._shared)

    def _reset(self) -> None:
        if self._sock is not None:
            with suppress(OSError):
                self._sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _ABORTIVE)
        self._tell_tap("reset", False)
        self._close()

    def _close(self) -> None:
        self.closed = True
        self._connecting = False
        self._engine.remove(self)
        sock, self._sock = self._sock, None
        if sock is not None:
            sock.close()

    def _open_socket(self) -> socket.socket:
        if self._sock is None:
            raise AssertionError(f"{self!r} has no socket")
        return self._sock

    # ---- the onlooker, whose failures are not the connection's

    def _tell_tap(self, method: str, *args: object) -> None:
        tap = self._tap
        if tap is None:
            return
        try:
            getattr(tap, method)(*args)
        except Exception as error:
            self._tap = None
            report_unraisable(error, tap, "Exception ignored in softndk trace, which ends for this connection")

    def _tap_sent(self, buffers: Sequence[Octets], count: int) -> None:
        for buffer in buffers:
            if count <= 0:
                return
            view = memoryview(buffer).cast("B")
            self._tell_tap("sent", view[:count])
            count -= len(view)


def _size(data: Octets) -> int:
    return data.nbytes if isinstance(data, memoryview) else len(data)
