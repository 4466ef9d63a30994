"""Lets another process of the same user ask a running one what its adapters do: a Unix socket in the abstract namespace.

No file is left behind, nobody else's process is answered. What is told is made by the owner; here it is only carried.
Linux only: elsewhere `offer` gives None and `processes` nothing.
"""

import itertools
import json
import os
import re
import socket
import struct
import sys
import threading
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any, Final

from softndk.drivers.channel import READ, Channel
from softndk.drivers.engine import Engine
from softndk.drivers.tcp_listener import ACCEPT_PAUSE_S, OUT_OF_RESOURCES

__all__ = ["StatusChannel", "ask", "offer", "processes"]

ANSWER_S: Final = 2.0
"""How long an answer may take to be sent, or to come."""
ANSWER_LIMIT: Final = 16 * 1024 * 1024
_CREDENTIALS: Final = struct.Struct("3i")  # pid, uid, gid
_NAME: Final = re.compile(r"@softndk/([0-9]+)/([0-9]+)/([0-9]+)$")
_numbers: Final = itertools.count(1)


class StatusChannel(Channel):
    """The listening socket of one adapter. `tell` is called under the lock and gives what JSON can hold."""

    __slots__ = ("_engine", "_resting", "_sock", "_tell")

    def __init__(self, engine: Engine, sock: socket.socket, tell: Callable[[], Any]) -> None:
        super().__init__()
        self._engine = engine
        self._sock = sock
        self._tell = tell
        self._resting = False

    def close(self) -> None:
        """Give the name back. Under the lock."""
        self._engine.remove(self)
        self._sock.close()

    def interest(self) -> int:
        return 0 if self._resting else READ

    def deadline(self) -> float | None:
        return None

    def on_deadline(self) -> None:
        return

    def on_ready(self, mask: int) -> None:
        try:
            sock, _ = self._sock.accept()
        except OSError as error:
            if error.errno in OUT_OF_RESOURCES:  # the question still waits, and the descriptor is still readable
                self._resting = True
                self._engine.call_at(self._engine.now() + ACCEPT_PAUSE_S, self._rested)
                self._engine.update(self)
            return
        try:
            _, uid, _ = _CREDENTIALS.unpack(sock.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _CREDENTIALS.size))
            if uid in (0, os.getuid()):
                text = json.dumps(self._tell()).encode()
                threading.Thread(target=_answer, args=(sock, text), name="softndk-status", daemon=True).start()
                return
        except (OSError, RuntimeError):  # RuntimeError: no more threads
            pass
        sock.close()

    def _rested(self) -> None:
        self._resting = False
        self._engine.update(self)

    def fail(self, error: OSError) -> None:
        self.close()


def offer(engine: Engine, tell: Callable[[], Any]) -> StatusChannel | None:
    """Answer questions about one adapter from now on, under the lock; None: this system has no such sockets, or none left."""
    if sys.platform != "linux":
        return None
    sock: socket.socket | None = None
    try:
        sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        sock.setblocking(False)
        sock.bind(f"\0softndk/{os.getuid()}/{os.getpid()}/{next(_numbers)}")
        sock.listen(4)
        channel = StatusChannel(engine, sock, tell)
        engine.add(channel, sock)
    except (OSError, RuntimeError):  # RuntimeError: no more threads
        if sock is not None:
            sock.close()
        return None
    return channel


def processes() -> dict[int, list[str]]:
    """Processes of this user (all, for root) that can be asked: process id to socket names, one an adapter."""
    found: dict[int, list[str]] = {}
    with suppress(OSError):
        for line in Path("/proc/net/unix").read_text().splitlines():
            match = _NAME.search(line)
            if match is not None and int(match[1]) in (os.getuid(), *([int(match[1])] if os.getuid() == 0 else [])):
                names = found.setdefault(int(match[2]), [])
                name = "\0" + match[0][1:]
                if name not in names:
                    names.append(name)
    return found


def ask(name: str) -> Any:
    """What one adapter says.

    Raises: ConnectionRefusedError: it has gone. TimeoutError: no answer within ANSWER_S. OSError: otherwise.
    PermissionError: the name is another user's than it says: anybody can take a name in that namespace.
    ValueError: not an answer.
    """
    match = _NAME.fullmatch("@" + name[1:])
    if match is None:
        raise ValueError(f"{name!r} is not the name of an adapter's status socket")
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as sock:
        sock.settimeout(ANSWER_S)
        sock.connect(name)
        _, uid, _ = _CREDENTIALS.unpack(sock.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _CREDENTIALS.size))
        if uid != int(match[1]):
            raise PermissionError(f"its socket belongs to user {uid}, not to user {match[1]} as its name says")
        text = bytearray()
        while part := sock.recv(65536):
            text += part
            if len(text) > ANSWER_LIMIT:
                raise ValueError(f"an answer of more than {ANSWER_LIMIT} octets")
    return json.loads(text)


def _answer(sock: socket.socket, text: bytes) -> None:
    with sock, suppress(OSError):
        sock.settimeout(ANSWER_S)
        sock.sendall(text)
