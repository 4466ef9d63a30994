"""What a run of the error table really does: the Terminate's octets, and what both ends are told.

`of_row` plays one row of `error_rows` and `CASES` are the errors that a single bad ULPDU does not show: framing, start-up,
this side's own failures, closes. The page docs/reference/error-table.md is made of both; the tests compare them with the
standards' numbers.
"""

import errno
import os
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from softndk.config import IwarpConfig
from softndk.errors import NdkError
from softndk.iwarp import events
from softndk.iwarp.events import Finish
from softndk.status import Status
from softndk.wire.mpa import Enhanced, FrameKind, StartupFrame
from softndk.wire.rdmap import Opcode
from tests.conformance.error_rows import Lab, Row, send, write
from tests.pair.core_pair import Side, split
from tests.pair.established import raw
from tests.pair.raw_peer import RawPeer, read_request, tagged, untagged
from tests.vectors.fpdu_model import crc32c_bitwise, fpdu

__all__ = ["CASES", "Case", "Outcome", "of_row"]

SEED: Final = 7306
"""Of the tokens, so that the octets are the same in every run."""
NOW: Final = 1000.0
NO_CODE: Final = ""


@dataclass(frozen=True, slots=True)
class Outcome:
    """`octets`: the Terminate FPDU, empty if none was sent. `here`, `there`: what each end's program is told."""

    octets: bytes
    here: str
    there: str

    @property
    def ulpdu(self) -> bytes:
        (ulpdu,) = split(self.octets, crc=True, markers=False)
        return ulpdu

    @property
    def code(self) -> str:
        """Layer, type and code in hexadecimal, or nothing."""
        if not self.octets:
            return NO_CODE
        first, code = self.ulpdu[18:20]
        return f"{first >> 4:x}/{first & 15:x}/{code:x}"

    @property
    def headers(self) -> str:
        """Which headers the Terminate returns."""
        if not self.octets:
            return ""
        flags = self.ulpdu[20]
        return {0x00: "none", 0xC0: "DDP", 0xE0: "DDP, Read Request"}[flags]


@dataclass(frozen=True, slots=True)
class Case:
    """One way to meet row `number`. `code` is what must be sent, `here` and `there` what must be told."""

    number: int
    name: str
    code: str
    here: str
    there: str
    run: Callable[[], Outcome]

    def __str__(self) -> str:
        return f"row {self.number}: {self.name}"


# ---- what the ends are told


def of_row(row: Row) -> Outcome:
    """Play one row."""
    lab = row.lab(seed=SEED)
    sent = row.sent(lab)
    lab.peer.received.clear()
    lab.peer.send(*sent)
    return outcome(lab.side, lab.peer)


def outcome(side: Side, peer: RawPeer) -> Outcome:
    """What has been sent last, and what is told at both ends of an established connection."""
    ulpdus = peer.take()
    octets = fpdu(ulpdus[-1], position=0, crc=True, markers=False) if ulpdus and is_terminate(ulpdus[-1]) else b""
    return Outcome(octets, told(side), told_to_the_peer(octets, peer.closed))


def is_terminate(ulpdu: bytes) -> bool:
    return ulpdu[:2] == b"\x41\x47"


def told(side: Side) -> str:
    """Requests that failed by name, how many others were cancelled, and how the connection ended."""
    initiator, receives = side.finished()
    failed = [f"{context} {status.name}" for context, status in (*receives, *initiator) if is_own(status)]
    cancelled = sum(status is Status.CANCELLED for _, status in (*receives, *initiator))
    parts = [*failed, *([f"{cancelled} CANCELLED"] if cancelled else []), how_it_ended(side)]
    return "; ".join(parts)


def is_own(status: Status) -> bool:
    return status not in (Status.SUCCESS, Status.CANCELLED)


def how_it_ended(side: Side) -> str:
    ends = []
    for event in side.take_events():
        if isinstance(event, events.Aborted):
            ends.append(f"connection: {words(event.error)}")
        elif isinstance(event, events.StartupFailed):
            ends.append(f"start-up: {words(event.error)}")
        elif isinstance(event, events.PeerDisconnected):
            ends.append("connection: peer closed")
    return ", ".join(ends) or "connection: up"


def words(error: NdkError) -> str:
    code = error.provider_error_code
    return error.status.name + (f" {code:#x}" if code else "")


def told_to_the_peer(octets: bytes, closed: Finish) -> str:
    """At a softndk peer with a receive R and a read RD outstanding, which gets these octets and this end."""
    peer = raw()
    side = peer.side
    side.receive(0, 64, "R")
    side.read([side.sge(64, 8)], 0x9000, 0x5501, "RD")
    peer.pump()
    if octets:
        peer.send_octets(octets)
    elif closed is Finish.RESET:
        lose(side)
    elif closed is not Finish.KEEP:
        peer.send_fin()
    return told(side)


def lose(side: Side, number: int = errno.ECONNRESET) -> None:
    side.core.connection_lost(OSError(number, os.strerror(number)), NOW)
    side.collect()


# ---- cases


def bad_crc() -> Outcome:
    lab = Lab(seed=SEED)
    octets = bytearray(lab.peer.frame(send(b"ABCDEFGH")))
    octets[-1] ^= 0x80
    lab.peer.received.clear()
    lab.peer.send_octets(bytes(octets))
    return outcome(lab.side, lab.peer)


def bad_marker() -> Outcome:
    lab = Lab(markers=True, seed=SEED)
    octets = bytearray(lab.peer.frame(write(lab.side.stag, lab.side.base, b"m" * 600)))
    octets[512 - 24 + 3] ^= 0x04  # the indication had 20 octets and marker 0
    octets[-4:] = crc32c_bitwise(octets[:-4]).to_bytes(4, "little")
    lab.peer.received.clear()
    lab.peer.send_octets(bytes(octets))
    return outcome(lab.side, lab.peer)


def fin_inside_an_fpdu() -> Outcome:
    lab = Lab(seed=SEED)
    lab.peer.received.clear()
    lab.peer.send_octets(lab.peer.frame(send(b"ABCDEFGH"))[:20])
    lab.peer.send_fin()
    return outcome(lab.side, lab.peer)


def fin_inside_a_message() -> Outcome:
    lab = Lab(seed=SEED)
    lab.peer.received.clear()
    lab.peer.send(send(b"first segment", last=0))
    lab.peer.send_fin()
    return outcome(lab.side, lab.peer)


def reset_by_peer() -> Outcome:
    lab = Lab(seed=SEED)
    lab.peer.received.clear()
    lose(lab.side)
    return Outcome(b"", told(lab.side), "it has done so itself")


def tcp_timed_out() -> Outcome:
    lab = Lab(seed=SEED)
    lab.peer.received.clear()
    lose(lab.side, errno.ETIMEDOUT)
    return Outcome(b"", told(lab.side), "it is gone")


def fpdu_never_finished() -> Outcome:
    lab = Lab(seed=SEED)
    lab.peer.received.clear()
    lab.peer.send_octets(lab.peer.frame(send(b"ABCDEFGH"))[:20])
    lab.peer.advance(lab.side.config.stall_timeout_s)
    return outcome(lab.side, lab.peer)


def malformed_request() -> Outcome:
    side = Side("lab", active=False, seed=SEED)
    side.core.connected(NOW, 1460)
    return _startup(side, b"GET / HTTP/1.1\r\nHost", other=_asking())


def malformed_reply() -> Outcome:
    side = _asking()
    return _startup(side, b"HTTP/1.1 400 Bad Request", other=_waiting())


def early_data() -> Outcome:
    side = Side("lab", active=False, seed=SEED)
    side.core.connected(NOW, 1460)
    request = StartupFrame(FrameKind.REQUEST, False, True, False, 2, Enhanced(16, 16), b"").emit()
    return _startup(side, request + bytes(20), other=_asking())


def _asking() -> Side:
    """An active side whose Request is out."""
    side = Side("lab", active=True, seed=SEED)
    side.core.start_timer(NOW)
    side.core.connected(NOW, 1460)
    _ready(side)
    return side


def _answered() -> Side:
    """An active side that has the Reply, and whose program has not completed the connect."""
    side = _asking()
    reply = StartupFrame(FrameKind.REPLY, False, True, False, 2, Enhanced(16, 16, True, rtr_write=True), b"").emit()
    side.core.receive_data(memoryview(reply), NOW)
    side.take_events()
    return side


def _waiting() -> Side:
    """A passive side that has accepted and waits for the ready-to-receive indication."""
    return RawPeer(Side("lab", active=False, seed=SEED)).side


def _ready(side: Side) -> bytes:
    octets = b""
    while parts := side.core.data_to_send(NOW):
        octets += b"".join(parts)
        side.core.data_sent(sum(map(len, parts)), NOW)
    side.collect()
    return octets


def _startup(side: Side, octets: bytes, *, other: Side) -> Outcome:
    """`side` gets `octets`; `other` is what the peer would be, and gets what comes of it."""
    side.core.receive_data(memoryview(octets), NOW)
    answer = _ready(side)
    other.take_events()
    if answer:
        other.core.receive_data(memoryview(answer), NOW)
    else:
        assert side.core.finish() is Finish.CLOSE
        other.core.receive_eof(NOW)
    side.collect()
    side.events = side.events[-1:]  # a Request that was offered and withdrawn at once is not told
    return Outcome(answer, told(side), told(other))


def refused_reply(ird_needed: int, *, send_only: bool = False) -> Outcome:
    """The Reply asks for something that the active side does not have."""
    answer = Enhanced(16, ird_needed, peer_to_peer=True, rtr_send=send_only, rtr_write=not send_only)
    reply = StartupFrame(FrameKind.REPLY, False, True, False, 2, answer, b"").emit()
    return _startup(_asking(), reply, other=_waiting())


def zero_length_write() -> Outcome:
    lab = Lab(seed=SEED)
    lab.peer.received.clear()
    lab.peer.send(tagged(Opcode.WRITE, 0xDEADBEEF, 2**64 - 1))
    return outcome(lab.side, lab.peer)


def source_dies() -> Outcome:
    side = Side("lab", active=False, config=IwarpConfig(send_buffer=65600, max_fpdu=1014), size=1 << 18, seed=SEED)
    peer = RawPeer(side)
    peer.establish()
    side.core.receive_data(memoryview(peer.frame(read_request(1, 200_000, side.stag, side.base))), peer.now)
    peer.pump(40_000)
    side.region.deregister()
    peer.pump()
    return outcome(side, peer)


def source_dies_at_once() -> Outcome:
    side = Side("lab", active=False, seed=SEED)
    peer = RawPeer(side)
    peer.establish()
    side.core.receive_data(memoryview(peer.frame(read_request(1, 500, side.stag, side.base))), peer.now)
    side.region.deregister()
    peer.pump()
    return outcome(side, peer)


def after_a_terminate() -> Outcome:
    lab = Lab(seed=SEED)
    lab.peer.received.clear()
    last_word = untagged(Opcode.TERMINATE, 1, bytes.fromhex("11000000"))
    lab.peer.send(last_word, write(lab.side.stag, lab.side.base), untagged(Opcode.TERMINATE, 2, bytes(4)))
    here = told(lab.side)
    assert lab.peer.received == b""
    return Outcome(b"", here, "it has ended the connection itself")


def data_after_fin() -> Outcome:
    """No TCP socket hands these octets over; a wire in memory may."""
    lab = Lab(seed=SEED)
    lab.peer.send_fin()
    lab.peer.received.clear()
    memory = bytes(lab.side.memory)
    lab.peer.closed = Finish.KEEP
    lab.peer.send(write(lab.side.stag, lab.side.base, b"late"))
    assert bytes(lab.side.memory) == memory
    return outcome(lab.side, lab.peer)


def completion_queue_overrun() -> Outcome:
    side = Side("lab", active=False, cq_depth=2, seed=SEED)
    peer = RawPeer(side)
    side.receive_ring.on_overrun.append(lambda: side.core.abort("its completion queue has overrun", peer.now))
    peer.establish()
    for number in range(4):
        side.receive(64 * number, 64, f"R{number + 1}")
    peer.received.clear()
    peer.send(send(b"1"), send(b"2", msn=2), send(b"3", msn=3))
    return outcome(side, peer)


def adapter_fails() -> Outcome:
    lab = Lab(seed=SEED)
    lab.peer.received.clear()
    lab.side.core.fail_adapter("the adapter has failed", lab.peer.now)
    lab.peer.pump()
    return outcome(lab.side, lab.peer)


def adapter_fails_before_it_may_send() -> Outcome:
    """The passive side waits for the peer's first FPDU (RFC 5044 7.1.3)."""
    side = _waiting()
    side.core.fail_adapter("the adapter has failed", NOW)
    assert _ready(side) == b""
    assert side.core.finish() is Finish.RESET
    other = _answered()
    lose(other)
    return Outcome(b"", told(side), told(other))


def adapter_fails_after_the_reply() -> Outcome:
    side = _answered()
    side.core.fail_adapter("the adapter has failed", NOW)
    answer = _ready(side)
    other = _waiting()
    other.take_events()
    other.core.receive_data(memoryview(answer), NOW)
    other.collect()
    return Outcome(answer, told(side), told(other))


def local_memory(operation: str) -> Outcome:
    lab = Lab(reads=False, seed=SEED)
    side, sges = lab.side, [lab.side.sge(4090, 7)]
    lab.peer.received.clear()
    if operation == "send":
        side.send(sges, "W")
    elif operation == "write":
        side.write(sges, 0x9000, 0x5501, "W")
    else:
        side.read(sges, 0x9000, 0x5501, "W")
    lab.peer.pump()
    return outcome(side, lab.peer)


def flushed() -> Outcome:
    lab = Lab(seed=SEED)
    lab.peer.received.clear()
    lab.side.core.abort("flushed by this side", lab.peer.now)
    lab.peer.pump()
    return outcome(lab.side, lab.peer)


def read_after_our_fin() -> Outcome:
    lab = Lab(reads=False, seed=SEED)
    lab.peer.received.clear()
    lab.side.core.disconnect(lab.peer.now)
    lab.peer.pump()
    lab.peer.closed = Finish.KEEP
    lab.peer.send(read_request(1, 8, lab.side.stag, lab.side.base))
    (event,) = lab.side.take_events()
    assert isinstance(event, events.Disconnected)
    assert event.error is not None
    return Outcome(
        b"",
        f"{told(lab.side).partition(';')[0]}; disconnect: {words(event.error)}",
        told_to_the_peer(b"", lab.side.core.finish()),
    )


CANCELLED_4 = "4 CANCELLED; connection: CONNECTION_ABORTED"
PEER_FAILED = "RD REMOTE_RESOURCES; 1 CANCELLED; connection: CONNECTION_ABORTED"
PEER_RESET = "2 CANCELLED; connection: CONNECTION_RESET 0x30068"

CASES: Final = (
    Case(1, "one bit of a Send's FPDU is wrong", "2/0/2", f"{CANCELLED_4} 0x22002", f"{PEER_FAILED} 0x12002", bad_crc),
    Case(2, "a marker's pointer is wrong", "2/0/3", f"{CANCELLED_4} 0x22003", f"{PEER_FAILED} 0x12003", bad_marker),
    Case(3, "FIN after 20 octets of an FPDU", NO_CODE, f"{CANCELLED_4} 0x22001", PEER_RESET, fin_inside_an_fpdu),
    Case(
        3, "FIN between two segments of a message", NO_CODE, f"{CANCELLED_4} 0x22001", PEER_RESET, fin_inside_a_message
    ),
    Case(
        3, "reset", NO_CODE, "4 CANCELLED; connection: CONNECTION_RESET 0x30068", "it has done so itself", reset_by_peer
    ),
    Case(3, "TCP has timed out", NO_CODE, "4 CANCELLED; connection: IO_TIMEOUT 0x3006e", "it is gone", tcp_timed_out),
    Case(
        3,
        "an FPDU is not finished within stall_timeout_s",
        NO_CODE,
        "4 CANCELLED; connection: IO_TIMEOUT",
        PEER_RESET,
        fpdu_never_finished,
    ),
    Case(
        4,
        "another protocol's octets instead of a Request",
        NO_CODE,
        "start-up: CONNECTION_ABORTED 0x22004",
        "start-up: CONNECTION_REFUSED 0x22001",
        malformed_request,
    ),
    Case(
        4,
        "another protocol's octets instead of a Reply",
        NO_CODE,
        "start-up: CONNECTION_ABORTED 0x22004",
        "start-up: CONNECTION_REFUSED",
        malformed_reply,
    ),
    Case(
        4,
        "octets behind the Request before the Reply",
        NO_CODE,
        "start-up: CONNECTION_ABORTED 0x22004",
        "start-up: CONNECTION_REFUSED 0x22001",
        early_data,
    ),
    Case(23, "zero-length Write to anywhere", NO_CODE, "connection: up", "connection: up", zero_length_write),
    Case(
        29,
        "source deregistered after a part of the response",
        "0/1/0",
        "connection: CONNECTION_ABORTED 0x20100",
        "RD ACCESS_VIOLATION; 1 CANCELLED; connection: CONNECTION_ABORTED 0x10100",
        source_dies,
    ),
    Case(
        29,
        "source deregistered before the response",
        "0/1/0",
        "connection: CONNECTION_ABORTED 0x20100",
        "RD ACCESS_VIOLATION; 1 CANCELLED; connection: CONNECTION_ABORTED 0x10100",
        source_dies_at_once,
    ),
    Case(
        38,
        "a Write and a second Terminate behind a Terminate 1/1/0",
        NO_CODE,
        "RD1 ACCESS_VIOLATION; 3 CANCELLED; connection: CONNECTION_ABORTED 0x11100",
        "it has ended the connection itself",
        after_a_terminate,
    ),
    Case(
        39,
        "a Write behind the FIN (not over TCP, which answers it with a reset)",
        NO_CODE,
        "4 CANCELLED; connection: peer closed, connection: CONNECTION_ABORTED",
        PEER_RESET,
        data_after_fin,
    ),
    Case(
        40,
        "a completion queue of 2 gets a third completion",
        "0/0/0",
        "connection: CONNECTION_ABORTED 0x20000",
        f"{PEER_FAILED} 0x10000",
        completion_queue_overrun,
    ),
    Case(41, "the adapter fails", "0/2/8", f"{CANCELLED_4} 0x20208", f"{PEER_FAILED} 0x10208", adapter_fails),
    Case(
        41,
        "the adapter fails before the passive side may send",
        NO_CODE,
        "start-up: DEVICE_REMOVED",
        "start-up: CONNECTION_ABORTED 0x30068",
        adapter_fails_before_it_may_send,
    ),
    *(
        Case(
            42,
            f"{operation} outside its own region",
            "0/0/0",
            "W ACCESS_VIOLATION; 2 CANCELLED; connection: CONNECTION_ABORTED 0x20000",
            f"{PEER_FAILED} 0x10000",
            lambda operation=operation: local_memory(operation),  # type: ignore[misc]
        )
        for operation in ("send", "write", "read")
    ),
    Case(42, "flush by the program", "0/0/0", f"{CANCELLED_4} 0x20000", f"{PEER_FAILED} 0x10000", flushed),
    Case(
        42,
        "Read Request after our FIN: no answer is possible",
        NO_CODE,
        "2 CANCELLED; disconnect: CONNECTION_ABORTED 0x20000",
        PEER_RESET,
        read_after_our_fin,
    ),
    Case(
        43,
        "the Reply needs 17 reads at once, 16 are offered",
        "2/0/6",
        "start-up: CONNECTION_ABORTED 0x22006",
        "start-up: CONNECTION_ABORTED 0x12006",
        lambda: refused_reply(17),
    ),
    Case(
        43,
        "the Reply takes a Send only as indication",
        "2/0/7",
        "start-up: CONNECTION_ABORTED 0x22007",
        "start-up: CONNECTION_ABORTED 0x12007",
        lambda: refused_reply(16, send_only=True),
    ),
    Case(
        43,
        "the adapter fails between the Reply and the end of the connect",
        "2/0/5",
        "start-up: CONNECTION_ABORTED 0x22005",
        "start-up: CONNECTION_ABORTED 0x12005",
        adapter_fails_after_the_reply,
    ),
)
