"""Captures: pcapng and pcap files with iWARP in them, or with nothing sensible at all, read by the trace's decoder.

A capture is somebody else's file: nothing in it may do more than be refused with TraceError. Records build conversations,
packets, blocks, and damage at every level; an input that builds only good ones must come out as it was sent.
"""

import json
import os
import struct
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import Final

from fuzz.octets import REPLY_KEY, REQUEST_KEY, Damage, Divider, startup_frame
from fuzz.peer import ATOMIC, ATOMIC_RESPONSE, DROP, IMMEDIATE, MESSAGES, READ, SEND, SPOIL, TERMINATE, WRITE, Peer
from fuzz.records import Record, head_of, join, records_of
from softndk.cli.trace import _json_lines, _text_lines
from softndk.trace import Frame, TraceError, read_frames
from softndk.trace.merge import merge

__all__ = ["OPERATIONS", "check", "seeds"]

STARTUP: Final = 9
SEGMENT: Final = 10
TURN: Final = 11
SWAP: Final = 12
BLOCK: Final = 13
INTERFACE: Final = 14
REPEAT: Final = 15
CUT: Final = 16
FLIP: Final = 17
SIMPLE: Final = 18
KERNEL: Final = Path(__file__).parents[2] / "tests" / "data" / "siw_terminate_read_bounds_crc_p2p.pcap"
"""A small capture of Linux's siw: an input as a file."""
OPERATIONS: Final = (
    *MESSAGES,
    SPOIL,
    *[STARTUP] * 2,
    *[SEGMENT] * 6,
    *(TURN, TURN, SWAP, BLOCK, INTERFACE, INTERFACE, REPEAT, CUT, FLIP, FLIP, SIMPLE),
)

_LINKS: Final = (1, 0, 101, 113, 276, 108, 228, 147)
_NAMES: Final = {
    0: "RDMA Write",
    1: "RDMA Read Request",
    3: "Send",
    4: "Send with Invalidate",
    5: "Send with Solicited Event",
    6: "Send with SE and Invalidate",
    7: "Terminate",
    8: "Immediate Data",
    9: "Immediate Data with SE",
    10: "Atomic Request",
    11: "Atomic Response",
}
_ENDS: Final = ((bytes([10, 0, 0, 1]), 40001), (bytes([10, 0, 0, 2]), 5791))


def check(data: bytes) -> None:
    """Run one input. Raises: AssertionError, or whatever escapes from the code under test."""
    head = head_of(data)
    if head[0] & 0x80:  # a file as it is
        read(data[8:])
        return
    maker = _Maker(head)
    for record in records_of(data):
        maker.do(record)
    frames = read(maker.file())
    if maker.clean:
        maker.compare(frames)


@cache
def _files() -> tuple[int, int]:
    return os.memfd_create("fuzz capture"), os.memfd_create("fuzz merged")


def read(octets: bytes) -> list[Frame]:
    """Read a capture as `softndk trace` does, whatever is in it."""
    source, target = _files()
    for descriptor, content in ((source, octets), (target, b"")):
        os.ftruncate(descriptor, 0)
        os.pwrite(descriptor, content, 0)
    path, merged = f"/proc/self/fd/{source}", f"/proc/self/fd/{target}"
    frames: list[Frame] = []
    damaged = False
    try:
        frames.extend(read_frames(path))
    except TraceError as error:
        assert str(error), "no text"
        damaged = True
    if not damaged:
        assert sum(frame.payload_length for frame in frames) <= len(octets), "payload out of nothing"
    assert len(frames) <= len(octets), "frames out of nothing"
    for line in (*_text_lines(iter(frames), True), *_json_lines(iter(frames), True)):
        assert line
    for frame in frames:
        json.dumps(frame.as_dict())
        assert frame.time == frame.time_ns / 1e9, "time"
    try:
        merge([path], merged)
    except TraceError:
        return frames
    again = list(read_frames(merged)) if frames else []
    # The packets are numbered anew and sorted by time, so only what there is is compared.
    assert bool(again) == bool(frames), "merged into nothing"
    return frames


class _Maker:
    """Builds a capture file of one conversation. `clean`: nothing in it is wrong, and all of it was captured."""

    def __init__(self, head: bytes) -> None:
        self.order = ">" if head[0] & 1 else "<"
        self.classic, self.nano = bool(head[0] & 2), bool(head[0] & 4)
        self.link = _LINKS[head[1] % len(_LINKS)]
        self.v6, self.vlan = bool(head[0] & 8), bool(head[0] & 16)
        crc, markers = not head[2] & 1, bool(head[2] & 2)
        self.flags = (0x40 if crc else 0) | (0x80 if markers else 0)
        self.peers = [Peer([0x1234_5678, 0x99], {}, crc, markers) for _ in range(2)]
        self.startups = [bytearray(), bytearray()]
        self.offsets = [0, 0]
        self.finished = [False, False]
        self.turn = 0
        self.blocks: list[bytes] = []
        self.cut: int | None = None
        self.flips: list[int] = []
        self.clean = self.link != 147 and (self.link != 228 or not self.v6)
        self.begun = False
        self.made: list[list[bytes]] = [[], []]
        self.interface = 0
        self.time = 0
        if not self.classic:
            self.add_interface(b"")

    # ---- steps

    def do(self, record: Record) -> None:
        op = record.op
        if op <= SPOIL or op in (IMMEDIATE, ATOMIC, ATOMIC_RESPONSE):
            self.message(record)
        elif op == STARTUP:
            self.startup(record)
        elif op == SEGMENT:
            self.segment(record)
        elif op == TURN:
            self.turn ^= 1
        elif op == SWAP and len(self.blocks) > 2:
            self.clean = False
            at = 1 + record.x % (len(self.blocks) - 1)
            self.blocks[at - 1], self.blocks[at] = self.blocks[at], self.blocks[at - 1]
        elif op == REPEAT and self.blocks:
            self.clean = False
            self.blocks.append(self.blocks[record.x % len(self.blocks)])
        elif op == BLOCK:
            self.clean = False
            body = record.z.to_bytes(8, "big") * (record.flag % 12)
            self.blocks.append(self.block(record.x, body, record.y if record.flag & 0x80 else None))
        elif op == INTERFACE:
            self.clean = False
            if not self.classic:
                options = struct.pack(self.order + "HH", record.flag, record.x % 40) + record.z.to_bytes(8, "big") * 5
                self.add_interface(options[: 4 + (record.x % 40 + 3 & ~3)])
        elif op == CUT:
            self.clean, self.cut = False, record.y
        elif op == FLIP:
            self.clean = False
            self.flips.append(record.y)
        elif op == SIMPLE and not self.classic:
            self.clean = False
            self.blocks.append(self.block(3, struct.pack(self.order + "I", record.y) + record.z.to_bytes(8, "big")))

    def message(self, record: Record) -> None:
        good = self.begun and record.op in (WRITE, SEND, READ, TERMINATE, IMMEDIATE, ATOMIC, ATOMIC_RESPONSE)
        if record.op == TERMINATE and record.flag & 0x80:
            good = False
        self.clean &= good
        self.peers[self.turn].do(record)

    def startup(self, record: Record) -> None:
        if self.begun:
            self.clean = False
        self.begun = True
        words = (0x8010, 0x8010) if record.flag & 1 else (record.x, record.y & 0xFFFF)
        body = struct.pack(">HH", *words) + bytes(record.z % 8)
        self.startups[0] += startup_frame(REQUEST_KEY, self.flags | 0x10, 2, body)
        self.startups[1] += startup_frame(REPLY_KEY, self.flags | 0x10 | (record.flag & 2) << 4, 2, body)

    def segment(self, record: Record) -> None:
        """A packet with what the sender whose turn it is has made, or the first part of it."""
        turn = self.turn
        startup, peer = self.startups[turn], self.peers[turn]
        source = startup if startup else peer.out
        size = record.x % 1461 or len(source)
        piece = bytes(source[:size])
        del source[:size]
        if source is peer.out:
            self.clean &= not any(self.startups)  # an FPDU before the Reply
            self.made[turn].append(piece)
        sequence = 1000 + self.offsets[turn]
        flags = 0x10 | (record.flag & 7 if record.flag & 0x80 else 0)
        if record.flag & 0x40:
            sequence += record.y
        if self.finished[turn] or flags not in (0x10, 0x11) or (record.flag & 0x40 and record.y):
            self.clean = False
        self.finished[turn] |= flags != 0x10
        self.offsets[turn] += len(piece)
        for at in range(0, max(1, len(piece)), 20000):
            self.packet(self.headers(turn, sequence + at, flags, piece[at : at + 20000]), record)

    # ---- packets and blocks

    def headers(self, turn: int, sequence: int, flags: int, payload: bytes) -> bytes:
        (here, port), (there, peer_port) = _ENDS[turn], _ENDS[1 - turn]
        tcp = struct.pack(">HHIIHHHH", port, peer_port, sequence & 0xFFFFFFFF, 1, 5 << 12 | flags, 65535, 0, 0)
        if self.v6:
            inner = tcp + payload
            prefix = bytes(12)
            ip = struct.pack(">IHBB", 6 << 28, len(inner), 6, 64) + prefix + here + prefix + there + inner
        else:
            length = 20 + len(tcp) + len(payload)
            ip = struct.pack(">BBHHHBBH", 0x45, 0, length, 1, 0x4000, 64, 6, 0) + here + there + tcp + payload
        kind = b"\x86\xdd" if self.v6 else b"\x08\x00"
        if self.link == 1:
            return bytes(12) + (b"\x81\x00\x00\x05" if self.vlan else b"") + kind + ip
        if self.link == 113:
            return bytes(14) + kind + ip
        if self.link == 276:
            return kind + bytes(18) + ip
        return bytes(4) + ip if self.link in (0, 108) else ip

    def packet(self, octets: bytes, record: Record) -> None:
        self.time += 1 + record.z % 1000
        captured = len(octets)
        if record.flag & 0x20:
            captured = record.y % (captured + 1)
            self.clean = False
        kept = octets[:captured]
        if self.classic:
            unit = 1_000_000_000 if self.nano else 1_000_000
            seconds, fraction = divmod(self.time, unit)
            self.blocks.append(struct.pack(self.order + "IIII", seconds, fraction, captured, len(octets)) + kept)
            return
        head = (self.time >> 32, self.time & 0xFFFFFFFF, captured, len(octets))
        body = kept + bytes(-captured % 4)
        if record.flag & 0x10:
            self.blocks.append(self.block(2, struct.pack(self.order + "HHIIII", self.interface, 0, *head) + body))
        else:
            self.blocks.append(self.block(6, struct.pack(self.order + "IIIII", self.interface, *head) + body))

    def block(self, kind: int, body: bytes, length: int | None = None) -> bytes:
        body += bytes(-len(body) % 4)
        size = struct.pack(self.order + "I", 12 + len(body) if length is None else length)
        return struct.pack(self.order + "I", kind) + size + body + size

    def add_interface(self, options: bytes) -> None:
        self.blocks.append(self.block(1, struct.pack(self.order + "HHI", self.link, 0, 0) + options))

    def file(self) -> bytes:
        if self.classic:
            magic = 0xA1B23C4D if self.nano else 0xA1B2C3D4
            out = struct.pack(self.order + "IHHiIII", magic, 2, 4, 0, 0, 65535, self.link)
        else:
            out = self.block(0x0A0D0D0A, struct.pack(self.order + "IHHq", 0x1A2B3C4D, 1, 0, -1))
        whole = bytearray(out + b"".join(self.blocks))
        for flip in self.flips:
            whole[flip // 8 % len(whole)] ^= 1 << flip % 8
        return bytes(whole if self.cut is None else whole[: self.cut % (len(whole) + 1)])

    # ---- what must come out

    def compare(self, frames: list[Frame]) -> None:
        """Every whole FPDU in the packets is a frame, in order, with its payload and a good CRC."""
        if not self.begun or any(self.startups):
            return
        crc, markers = bool(self.flags & 0x40), bool(self.flags & 0x80)
        for turn in (0, 1):
            divider = Divider(crc, markers)
            divider.feed(b"".join(self.made[turn]))
            try:
                ulpdus = list(divider)
            except Damage as damage:
                raise AssertionError("the fuzzer makes bad streams") from damage
            due = [(_NAMES[ulpdu[1] & 15], ulpdu[14 if ulpdu[0] & 0x80 else 18 :]) for ulpdu in ulpdus]
            port = _ENDS[turn][1]
            shown = [frame for frame in frames if frame.source[1] == port and frame.kind in _NAMES.values()]
            assert [(frame.kind, frame.payload) for frame in shown] == due, "other frames than were sent"
            for frame in shown:
                assert frame.crc_ok is (True if crc else None), f"CRC shown as {frame.crc_ok}"


def seeds() -> Sequence[bytes]:
    """One conversation in every format and over every link; then with damage of every kind."""
    say = [Record(WRITE, 0, 8, 0, 30 << 8), Record(SEND, 0, 1, 0, 9 << 8), Record(READ, 0, 0, 0, 9 << 8)]
    say += [Record(IMMEDIATE, 0, 1, 0, 5), Record(ATOMIC, 0, 8, 2, 5), Record(ATOMIC_RESPONSE, 0, 0, 1, 5)]
    begin = [Record(STARTUP, 1), Record(SEGMENT), Record(TURN), Record(SEGMENT), Record(TURN)]
    end = [Record(TERMINATE, 2), Record(SEGMENT, 0x81)]
    talk = [*begin, *say, Record(SEGMENT, 0, 50), Record(SEGMENT), Record(TURN), *say, Record(SEGMENT), *end]
    found = [join([format_, link], talk) for format_ in range(8) for link in range(len(_LINKS))]
    found += [join([8 | 16, 0, modes], talk) for modes in range(4)]
    damage = (
        Record(SWAP, 0, 4),
        Record(SWAP, 0, 6),
        Record(REPEAT, 0, 4),
        Record(BLOCK, 0x83, 6, 4096),
        Record(BLOCK, 3, 5, 0, 9),
        Record(INTERFACE, 9, 8, 0, 0xFF << 56),
        Record(INTERFACE, 9, 1, 0, 0x09 << 56),
        Record(INTERFACE, 14, 8, 0, 1 << 63),
        Record(CUT, 0, 0, 300),
        Record(FLIP, 0, 0, 2000),
        Record(SIMPLE, 0, 0, 60),
        Record(SEGMENT, 0x20, 0, 60),
        Record(SEGMENT, 0x40, 0, 5000),
        Record(SEGMENT, 0x84),
    )
    found += [join([0], [*talk[:9], bad, *talk[9:]]) for bad in damage]
    found += [join([0], [*talk[5:9], bad, *talk[9:]]) for bad in damage]
    found.append(join([0], [*begin, Record(SPOIL, DROP), *talk[5:]]))
    if KERNEL.exists():
        found.append(join([0x80], []) + KERNEL.read_bytes())
    return found
