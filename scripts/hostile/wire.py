"""One TCP connection of an attacker: blocking calls, frames by the codecs, and an account of how the other side ended it."""

import socket
import struct
import threading
from contextlib import suppress
from typing import Final

from softndk.wire import ddp, mpa, rdmap
from softndk.wire.crc32c import CRC_OCTETS, crc32c
from softndk.wire.ddp import QueueNumber, TaggedHeader, UntaggedHeader
from softndk.wire.mpa import Enhanced, FrameKind, StartupFrame
from softndk.wire.rdmap import Opcode, ReadRequest
from softndk.wire.terminate import Terminate

__all__ = ["LEASE", "Over", "Peer", "fpdu", "request"]

LEASE: Final = struct.Struct(">QIQ")
"""What the server's private data says: token, length and address of the memory that it lends to that connection."""
ABORTIVE: Final = struct.pack("ii", 1, 0)


class Over(Exception):
    """The other side has ended the connection; the text says how."""


def request(private_data: bytes = b"", *, markers: bool = False) -> bytes:
    """A Request that every responder takes: read limits of 16, a zero-length Write as ready-to-receive indication."""
    enhanced = Enhanced(ird=16, ord=64, peer_to_peer=True, rtr_write=True)
    return StartupFrame(FrameKind.REQUEST, markers, True, False, 2, enhanced, private_data).emit()


def fpdu(ulpdu: bytes, *, damaged: bool = False) -> bytes:
    """One FPDU. damaged: its CRC is wrong."""
    covered = len(ulpdu).to_bytes(mpa.LENGTH_FIELD, "big") + ulpdu + bytes(mpa.pad_length(len(ulpdu)))
    return covered + CRC_OCTETS.pack(crc32c(covered) ^ damaged)


class Peer:
    """A connection from `source` to `target`. Raises Over from every call once the other side has ended it.

    stop: when set, `wait` and the calls that it interrupts raise Over("held to the end").
    """

    def __init__(self, target: tuple[str, int], source: str, stop: threading.Event) -> None:
        self.stop = stop
        self._msn = {QueueNumber.SEND: 0, QueueNumber.READ_REQUEST: 0}
        self.sock = socket.socket()
        try:
            self.sock.setsockopt(socket.IPPROTO_IP, 24, 1)  # IP_BIND_ADDRESS_NO_PORT: choose the port late
            self.sock.settimeout(60)
            self.sock.bind((source, 0))
            self.sock.connect(target)
            self.sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        except ConnectionError:
            self.sock.close()
            raise Over("reset") from None
        except OSError as error:
            self.sock.close()
            raise Over(f"no connection: {error.strerror or error}") from None

    def close(self, *, abortive: bool = False) -> None:
        with suppress(OSError):
            if abortive:
                self.sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, ABORTIVE)
            self.sock.close()

    def interrupt(self) -> None:
        """From another thread: have what blocks now come to an end."""
        with suppress(OSError):
            self.sock.shutdown(socket.SHUT_RDWR)

    # ---- octets

    def send(self, octets: bytes) -> None:
        try:
            self.sock.sendall(octets)
        except OSError:
            raise self.ending() from None

    def take(self, count: int) -> bytes:
        found = b""
        while len(found) < count:
            try:
                more = self.sock.recv(count - len(found))
            except ConnectionError:
                raise self._over("reset") from None
            except OSError as error:
                raise self._over(f"silent: {error}") from None
            if not more:
                raise self._over("closed")
            found += more
        return found

    def pause(self, seconds: float) -> None:
        """Do nothing for a while, without reading."""
        if self.stop.wait(seconds):
            raise Over("held to the end")

    def ending(self) -> Over:
        """Read to the end and say how it came: a Terminate, a close or a reset."""
        try:
            while True:
                self.read_ulpdu()
        except Over as over:
            return over

    def _over(self, text: str) -> Over:
        return Over("held to the end") if self.stop.is_set() else Over(text)

    # ---- start-up

    def establish(self, kind: str) -> tuple[int, int, int]:
        """Be accepted and say that this end is ready. Returns the token, length and address that the server lends."""
        self.send(request(kind.encode()))
        reply = self.read_reply()
        self.write(1, 0, b"")
        token, length, address = LEASE.unpack_from(reply.private_data)
        return token, length, address

    def read_reply(self) -> StartupFrame:
        head = self.take(mpa.STARTUP_HEADER)
        reply = StartupFrame.parse(head + self.take(mpa.frame_length(head) - len(head)))
        if reply.reject:
            raise self._over("rejected")
        return reply

    # ---- FPDUs

    def read_ulpdu(self) -> bytes:
        head = self.take(mpa.LENGTH_FIELD)
        length = int.from_bytes(head, "big")
        ulpdu = self.take(mpa.fpdu_length(length) - len(head))[:length]
        if len(ulpdu) >= ddp.UNTAGGED_HEADER and not ddp.is_tagged(ulpdu[0]):
            header = ddp.parse_untagged(ulpdu)
            if rdmap.opcode_of(header.rsvdulp) == Opcode.TERMINATE:
                said = Terminate.parse(ulpdu[ddp.UNTAGGED_HEADER :])
                raise self._over(f"Terminate {said.layer}/{said.etype}/{said.code}")
        return ulpdu

    def write(self, stag: int, to: int, payload: bytes, *, damaged: bool = False) -> None:
        header = TaggedHeader(True, rdmap.control(Opcode.WRITE), stag, to).emit()
        self.send(fpdu(header + payload, damaged=damaged))

    def untagged(
        self, opcode: Opcode, payload: bytes, *, stag: int = 0, mo: int = 0, msn: int | None = None, last: bool = True
    ) -> bytes:
        """The next message of its queue as an FPDU; `msn` only where it is to be wrong."""
        queue = QueueNumber.READ_REQUEST if opcode is Opcode.READ_REQUEST else QueueNumber.SEND
        self._msn[queue] += 1
        number = self._msn[queue] if msn is None else msn
        return fpdu(UntaggedHeader(last, rdmap.control(opcode), stag, queue, number, mo).emit() + payload)

    def read_request(self, stag: int, to: int, size: int) -> bytes:
        return self.untagged(Opcode.READ_REQUEST, ReadRequest(0x500, 0, size, stag, to).emit())
