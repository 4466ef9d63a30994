"""The other side of siw as a plain TCP socket: start-up frames and FPDUs octet by octet, right or wrong on purpose."""

import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final, Self

from scripts.interop.guest import Guest, Port
from softndk.iwarp.framing import Deframer, Framer
from softndk.wire import rdmap
from softndk.wire.ddp import QueueNumber, TaggedHeader, UntaggedHeader
from softndk.wire.mpa import Enhanced, FrameKind, StartupFrame, frame_length
from tests.interop.peer import PATIENCE_S

__all__ = ["HEAD", "QUIET_S", "UNKNOWN", "RawPeer", "listening", "send", "startup", "write"]

HEAD: Final = 20
"""Octets of a start-up frame before its private data."""
UNKNOWN: Final = b"what"
"""A message that rping does not know; rping ends the connection then."""
QUIET_S: Final = 1.0
"""How long siw must have said nothing to count as silent."""


def startup(
    kind: FrameKind,
    *,
    crc: bool = False,
    markers: bool = False,
    revision: int = 2,
    enhanced: Enhanced | None = None,
    private_data: bytes = b"",
) -> bytes:
    """A start-up frame; with revision 2 it carries `enhanced`, if given."""
    return StartupFrame(
        kind=kind,
        markers=markers,
        crc=crc,
        reject=False,
        revision=revision,
        enhanced=enhanced,
        private_data=private_data,
    ).emit()


def write() -> bytes:
    """The ULPDU of an RDMA Write of no octets, which does nothing."""
    return TaggedHeader(True, rdmap.control(rdmap.Opcode.WRITE), 1, 0).emit()


def send(payload: bytes, msn: int = 1) -> bytes:
    """The ULPDU of a Send."""
    return UntaggedHeader(True, rdmap.control(rdmap.Opcode.SEND), 0, QueueNumber.SEND, msn, 0).emit() + payload


class RawPeer:
    """One TCP connection with siw at its other end. `with` closes it."""

    def __init__(self, connection: socket.socket) -> None:
        self.connection = connection
        connection.settimeout(PATIENCE_S)
        self._framer = Framer(crc=False, markers=False)
        self._deframer = Deframer(crc=False, markers=False)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.connection.close()

    def receive_startup(self) -> StartupFrame:
        """The peer's start-up frame; what it says of CRC holds from here on. Raises: ConnectionError: it has closed."""
        data = self._exactly(HEAD)
        frame = StartupFrame.parse(data + self._exactly(frame_length(data) - HEAD))
        self._framer = Framer(crc=frame.crc, markers=False)
        self._deframer = Deframer(crc=frame.crc, markers=False)
        return frame

    def frame(self, *ulpdus: bytes) -> bytearray:
        """FPDUs, not yet sent."""
        return bytearray().join(self._framer.frame(ulpdu, []) for ulpdu in ulpdus)

    def send(self, *ulpdus: bytes) -> None:
        self.connection.sendall(self.frame(*ulpdus))

    def receive(self, seconds: float = PATIENCE_S) -> bytes | None:
        """The next ULPDU; None: the peer has closed. Raises: TimeoutError: nothing comes."""
        self.connection.settimeout(seconds)
        while (ulpdu := self._deframer.next_ulpdu()) is None:
            try:
                chunk = self.connection.recv(65536)
            except ConnectionResetError:
                return None
            if not chunk:
                return None
            self._deframer.feed(memoryview(chunk))
        found = bytes(ulpdu)
        self._deframer.detach()
        return found

    def react(self) -> bytes | None:
        """As `receive`, but what was sent right behind siw's reply may lie unread there, so more is sent in silence."""
        deadline = time.monotonic() + PATIENCE_S
        while time.monotonic() < deadline:
            try:
                return self.receive(QUIET_S)
            except TimeoutError:
                self.send(write())
        raise TimeoutError(f"siw has been silent for {PATIENCE_S:g} s")

    def end_gently(self) -> None:
        """Give rping a message that it does not know, so that it ends the connection.

        Closing right behind the start-up instead can make Linux 6.12 wait for ever for the end of rping's QP.
        """
        self.send(write(), send(UNKNOWN))
        while self.react() is not None:
            pass

    def _exactly(self, count: int) -> bytes:
        data = self.connection.recv(count, socket.MSG_WAITALL) if count else b""
        if len(data) < count:
            raise ConnectionError(f"siw has closed the connection after {len(data)} of {count} octets")
        return data


@contextmanager
def listening(guest: Guest, *command: str | int, **settings: int) -> Iterator[RawPeer]:
    """A connection to a server of the guest (rping's, unless told), before the first octet."""
    port: Port = guest.next_port()
    program = command or ("rping", "-s", "-a", "0.0.0.0")
    with (
        guest.settings(**settings),
        guest.serving(port, *program, "-p", port.guest),
        RawPeer(socket.create_connection(("127.0.0.1", port.here), PATIENCE_S)) as peer,
    ):
        yield peer
