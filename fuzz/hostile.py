"""The hostile side of a TCP connection: a raw socket, what it sends (`fuzz.peer`), and what it makes of the answers.

Everything that the adapter sends is read and judged: a start-up frame, then well-formed FPDUs, at most one Terminate and
nothing behind it, and no octet of what no peer may see.
"""

import socket
import struct
from collections.abc import Mapping
from contextlib import suppress
from typing import Final

from fuzz.judge import Memory
from fuzz.octets import REPLY_KEY, REQUEST_KEY, Divider, startup_frame
from fuzz.peer import Peer
from fuzz.records import Record
from fuzz.world import SECRET

__all__ = ["Hostile"]

_RESET: Final = struct.pack("ii", 1, 0)
_MOST: Final = 65536
_WINDOW: Final = SECRET + SECRET[:7]
"""Any octets of the secret in a row contain it, if they are enough."""


class Hostile:
    """One peer. `active`: it has connected to us, else we to it. `sent`: octets that TCP has taken from it."""

    def __init__(self, sock: socket.socket, named: list[int], memories: Mapping[int, Memory], *, active: bool) -> None:
        sock.setblocking(False)
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.sock = sock
        self.active = active
        self.address: tuple[str, int] = sock.getsockname()[:2]
        self.other: tuple[str, int] = sock.getpeername()[:2]
        self.counted = 0
        """Octets that the adapter had counted before: a second attempt of one connect goes on with that."""
        self.peer = Peer(named, dict(memories), crc=True, markers=False)
        self.start = bytearray()
        """A start-up frame that is not sent yet."""
        self.sent = 0
        self.alive = True
        """Neither reset nor closed by us."""
        self.fin_sent = False
        self.fin_seen = False
        self.reset_seen = False
        self.cut_off = False
        """The adapter may stop in the middle of a frame: its time is up, or its program has lost interest."""
        self.reading = True
        self.answered = False
        """The adapter's start-up frame has come."""
        self.terminates = 0
        self.last_word = b""
        """Of the Terminate: layer, type, code and which headers follow."""
        self._wants: tuple[bool, bool] | None = None
        """CRC and markers, as its first start-up frame says."""
        self._has: tuple[bool, bool] | None = None
        """The same of the adapter's."""
        self._got = bytearray()
        self._tail = b""
        self._output = Divider(True, False)

    # ---- what it sends

    def make_start(self, record: Record, *, strict: bool) -> None:
        """A Request or Reply that is right unless the numbers say otherwise; see the target `startup`."""
        flags = record.x & 0xFF if record.flag & 1 and not strict else 0x50 | record.x & 0x80
        revision = record.x >> 8 & 0xFF if record.flag & 2 and not strict else 1 + (record.x >> 8 & 1 ^ 1)
        size = record.z % 530 if record.flag & 4 else record.z % 9
        body = bytes([record.z >> 8 & 0xFF]) * size
        if revision < 2:
            flags &= ~0x10
        if flags & 0x10 and revision >= 2:
            words = record.y or (0xC010_C010 if self.active else 0x8010_8010)
            body = words.to_bytes(4, "big") + body
        length = record.z >> 16 & 0xFFFF if record.flag & 8 and not strict else None
        mine, other = (REQUEST_KEY, REPLY_KEY) if self.active else (REPLY_KEY, REQUEST_KEY)
        key = other if record.flag & 16 and not strict else mine
        self.start += startup_frame(key, flags, revision, body, length)
        if self._wants is None:
            self._wants = (bool(flags & 0x40), bool(flags & 0x80))
            self._agree()

    def _agree(self) -> None:
        """CRC by either side, markers for who asked; as far as the frames are known."""
        wants, has = self._wants or (False, False), self._has or (False, False)
        self.peer.crc = self._output.crc = wants[0] or has[0]
        self.peer.markers, self._output.markers = has[1], wants[1]

    def take(self, most: int) -> bytes:
        """Up to `most` octets that are made and not sent, the start-up first."""
        waiting = bytes(self.start) + bytes(self.peer.out)
        piece = waiting[:most]
        first = min(len(piece), len(self.start))
        del self.start[:first]
        del self.peer.out[: len(piece) - first]
        return piece

    def send(self, octets: bytes) -> None:
        """As far as TCP takes them; the others are made again by nobody."""
        if not self.alive or self.fin_sent:
            return
        try:
            self.sent += self.sock.send(octets)
        except (BlockingIOError, InterruptedError):
            return
        except OSError:
            self.alive = False

    def send_fin(self) -> None:
        if self.alive and not self.fin_sent:
            self.fin_sent = True
            with suppress(OSError):  # reset meanwhile
                self.sock.shutdown(socket.SHUT_WR)

    def reset(self) -> None:
        """An RST, whatever is on its way; nothing more is known of the connection."""
        if self.sock.fileno() >= 0:
            self.alive = False
            with suppress(OSError):
                self.sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
            self.sock.close()

    # ---- what it gets

    def read(self) -> int:
        """Take what has come. Raises AssertionError: it is not what an adapter may send. How many octets it was."""
        count = 0
        while self.sock.fileno() >= 0 and not (self.fin_seen or self.reset_seen):
            try:
                octets = self.sock.recv(_MOST)
            except (BlockingIOError, InterruptedError):
                break
            except OSError:
                self.reset_seen = True
                break
            if not octets:
                self.fin_seen = True
                break
            count += len(octets)
            self._look_at(octets)
        return count

    def _look_at(self, octets: bytes) -> None:
        window = self._tail + octets
        assert _WINDOW not in window, "octets that no peer may see"
        self._tail = window[-len(_WINDOW) :]
        self._got += octets
        if not self.answered and not self._take_start():
            return
        self._output.feed(self._got)
        self._got.clear()
        for ulpdu in self._output:
            self._look_at_ulpdu(ulpdu)

    def _take_start(self) -> bool:
        got = self._got
        if len(got) < 20:
            return False
        key, flags, length = bytes(got[:16]), got[16], int.from_bytes(got[18:20], "big")
        assert key == (REPLY_KEY if self.active else REQUEST_KEY), f"a start-up frame with key {key!r}"
        assert length <= 512, f"PD_Length {length}"
        assert not flags & 0x0F, f"reserved bits, flags {flags:#x}"
        if len(got) < 20 + length:
            return False
        del got[: 20 + length]
        self.answered = True
        self._has = (bool(flags & 0x40), bool(flags & 0x80))
        self._agree()
        return True

    def _look_at_ulpdu(self, ulpdu: bytes) -> None:
        assert not self.terminates, "something behind the Terminate"
        assert len(ulpdu) >= 14, f"a ULPDU of {len(ulpdu)} octets"
        opcode = ulpdu[1] & 15
        assert ulpdu[0] & 0x3F == 1, "version or reserved bits of DDP"
        assert ulpdu[1] & 0xF0 == 0x40, "version or reserved bits of RDMAP"
        assert opcode <= 11, f"opcode {opcode}"
        if opcode == 7:
            self.terminates += 1
            self.last_word = ulpdu[18:22]
        elif opcode == 1:
            size = int.from_bytes(ulpdu[30:34], "big")
            self.peer.sinks.append([int.from_bytes(ulpdu[18:22], "big"), size, 0])
        elif opcode == 10:
            self.peer.atomics.append(int.from_bytes(ulpdu[22:26], "big"))

    def check_end(self) -> None:
        """Raises AssertionError: the adapter has closed in the midst of a frame."""
        if self.fin_seen and not self.cut_off:
            assert not self._output.held, f"the last frame is cut off: {len(self._output.held)} octets"
            assert not self._got, "the start-up frame is cut off"
