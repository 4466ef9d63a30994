"""Kinds of attack: what one hostile connection does. Each runs in a thread of its own until the other side ends it.

`KINDS` says how many connections of each kind there are beside the others, from which address they come, and how long
one rests before it comes again.
"""

import random
from collections.abc import Callable
from typing import Final, NamedTuple

from scripts.hostile.wire import Peer, fpdu, request
from softndk.wire import rdmap
from softndk.wire.ddp import QueueNumber, TaggedHeader, UntaggedHeader
from softndk.wire.rdmap import Opcode
from softndk.wire.terminate import Terminate

__all__ = ["KINDS", "SLOW_STARTERS", "Kind"]

SLOW_STARTERS: Final = "127.0.0.2"
"""All that leave their start-up unfinished come from here: the limit for one address must leave places for others."""


class Kind(NamedTuple):
    """One kind of attack. `weight`: how many such connections in about 1,600; `rest_s`: before the next attempt."""

    attack: Callable[[Peer, random.Random], None]
    weight: int
    rest_s: float = 1.0
    source: str = "127.0.0.3"


# ---- before the start-up is complete


def silent_tcp(peer: Peer, chance: random.Random) -> None:
    raise peer.ending()


def half_request(peer: Peer, chance: random.Random) -> None:
    peer.send(request()[: chance.randrange(1, 20)])
    raise peer.ending()


def trickled_request(peer: Peer, chance: random.Random) -> None:
    for octet in request(bytes(400)):
        peer.send(bytes((octet,)))
        peer.pause(0.5)
    raise peer.ending()


def no_request_at_all(peer: Peer, chance: random.Random) -> None:
    peer.send(
        chance.choice((b"GET / HTTP/1.1\r\nHost: x\r\n\r\n", chance.randbytes(64), b"MPA ID Rep Frame" + bytes(4)))
    )
    raise peer.ending()


def private_data_too_long(peer: Peer, chance: random.Random) -> None:
    head = bytearray(request())
    head[18:20] = chance.choice((b"\xff\xff", b"\x02\x01", b"\x80\x00"))
    peer.send(bytes(head) + bytes(2000))
    raise peer.ending()


def early_fpdu(peer: Peer, chance: random.Random) -> None:
    peer.send(request(b"early fpdu") + fpdu(TaggedHeader(True, rdmap.control(Opcode.WRITE), 1, 0).emit()) * 50)
    raise peer.ending()


def request_and_reset(peer: Peer, chance: random.Random) -> None:
    peer.send(request(b"request and reset"))
    peer.close(abortive=True)


def connect_and_reset(peer: Peer, chance: random.Random) -> None:
    peer.close(abortive=True)


def connect_and_close(peer: Peer, chance: random.Random) -> None:
    peer.close()


def never_ready(peer: Peer, chance: random.Random) -> None:
    """Accepted, and no ready-to-receive indication follows."""
    peer.send(request(b"never ready"))
    peer.read_reply()
    raise peer.ending()


# ---- legal, but a burden


def established_silent(peer: Peer, chance: random.Random) -> None:
    peer.establish("established silent")
    raise peer.ending()


def reader_that_never_reads(peer: Peer, chance: random.Random) -> None:
    """Asks for its whole lease again and again and leaves the answers unread."""
    token, length, address = peer.establish("reader that never reads")
    for _ in range(16):
        peer.send(peer.read_request(token, address, length))
    peer.pause(1e6)


def greedy_reader(peer: Peer, chance: random.Random) -> None:
    token, length, address = peer.establish("greedy reader")
    for _ in range(8):
        peer.send(peer.read_request(token, address, length))
    got = 0
    while True:
        ulpdu = peer.read_ulpdu()
        got += len(ulpdu) - 14
        if got >= length:
            got -= length
            peer.send(peer.read_request(token, address, length))


def flood_of_empty_writes(peer: Peer, chance: random.Random) -> None:
    peer.establish("flood of empty writes")
    block = fpdu(TaggedHeader(True, rdmap.control(Opcode.WRITE), 1, 0).emit()) * 1000
    while True:
        peer.send(block)
        peer.pause(0.01)


# ---- FPDUs that do not end


def unfinished_fpdu(peer: Peer, chance: random.Random) -> None:
    peer.establish("unfinished fpdu")
    peer.send(b"\xff\xff" + chance.randbytes(65000))
    raise peer.ending()


def trickled_fpdu(peer: Peer, chance: random.Random) -> None:
    peer.establish("trickled fpdu")
    for octet in b"\xff\xff" + bytes(600):
        peer.send(bytes((octet,)))
        peer.pause(0.25)
    raise peer.ending()


def fin_inside_fpdu(peer: Peer, chance: random.Random) -> None:
    peer.establish("fin inside fpdu")
    peer.send(b"\x01\x00" + bytes(20))
    peer.sock.shutdown(1)
    raise peer.ending()


# ---- broken rules


def bad_crc(peer: Peer, chance: random.Random) -> None:
    peer.establish("bad crc")
    peer.write(chance.getrandbits(32), 0, chance.randbytes(100), damaged=True)
    raise peer.ending()


def guessed_write(peer: Peer, chance: random.Random) -> None:
    peer.establish("guessed write")
    peer.write(chance.getrandbits(32), chance.getrandbits(64), b"x")
    raise peer.ending()


def guessed_read(peer: Peer, chance: random.Random) -> None:
    peer.establish("guessed read")
    peer.send(peer.read_request(chance.getrandbits(32), 0, 64))
    raise peer.ending()


def guessed_key(peer: Peer, chance: random.Random) -> None:
    """Its own token, with another key octet."""
    token, _, address = peer.establish("guessed key")
    peer.write(token ^ chance.randrange(1, 256), address, b"x")
    raise peer.ending()


def guessed_invalidation(peer: Peer, chance: random.Random) -> None:
    peer.establish("guessed invalidation")
    peer.send(peer.untagged(Opcode.SEND_INVALIDATE, b"x", stag=chance.getrandbits(32)))
    raise peer.ending()


def giant_read(peer: Peer, chance: random.Random) -> None:
    token, length, address = peer.establish("giant read")
    peer.send(peer.read_request(token, address, chance.choice((length + 1, 1 << 31, (1 << 32) - 1))))
    raise peer.ending()


def wrapping_write(peer: Peer, chance: random.Random) -> None:
    token, _, _ = peer.establish("wrapping write")
    peer.write(token, (1 << 64) - chance.randrange(1, 8), bytes(16))
    raise peer.ending()


def write_beyond(peer: Peer, chance: random.Random) -> None:
    token, length, address = peer.establish("write beyond")
    peer.write(token, address + length - 1, b"xy")
    raise peer.ending()


def more_reads_than_agreed(peer: Peer, chance: random.Random) -> None:
    token, length, address = peer.establish("more reads than agreed")
    peer.send(b"".join(peer.read_request(token, address, length) for _ in range(500)))
    raise peer.ending()


def more_sends_than_receives(peer: Peer, chance: random.Random) -> None:
    peer.establish("more sends than receives")
    peer.send(b"".join(peer.untagged(Opcode.SEND, b"x") for _ in range(100)))
    raise peer.ending()


def endless_message(peer: Peer, chance: random.Random) -> None:
    peer.establish("endless message")
    for number in range(1000):
        peer.send(peer.untagged(Opcode.SEND, bytes(1000), mo=1000 * number, msn=1, last=False))
    raise peer.ending()


def wrong_numbers(peer: Peer, chance: random.Random) -> None:
    peer.establish("wrong numbers")
    if chance.random() < 0.5:
        peer.send(peer.untagged(Opcode.SEND, b"x", msn=chance.choice((0, 2, (1 << 32) - 1))))
    else:
        peer.send(peer.untagged(Opcode.SEND, b"x", mo=chance.choice((1, 1 << 31, (1 << 32) - 1))))
    raise peer.ending()


def flood_of_terminates(peer: Peer, chance: random.Random) -> None:
    peer.establish("flood of terminates")
    header = UntaggedHeader(True, rdmap.control(Opcode.TERMINATE), 0, QueueNumber.TERMINATE, 1, 0).emit()
    peer.send(fpdu(header + Terminate(0, 0, 0, None, b"", b"").emit()) * 10_000)
    raise peer.ending()


def noise(peer: Peer, chance: random.Random) -> None:
    """FPDUs with a right CRC around anything."""
    peer.establish("noise")
    peer.send(b"".join(fpdu(chance.randbytes(chance.randrange(200))) for _ in range(20)))
    raise peer.ending()


KINDS: Final = {
    "silent tcp": Kind(silent_tcp, 110, source=SLOW_STARTERS),
    "half request": Kind(half_request, 50, source=SLOW_STARTERS),
    "trickled request": Kind(trickled_request, 50, source=SLOW_STARTERS),
    "no request at all": Kind(no_request_at_all, 20),
    "private data too long": Kind(private_data_too_long, 20),
    "early fpdu": Kind(early_fpdu, 20),
    "request and reset": Kind(request_and_reset, 10),
    "connect and reset": Kind(connect_and_reset, 10, 0.2),
    "connect and close": Kind(connect_and_close, 10, 0.2),
    "never ready": Kind(never_ready, 60),
    "established silent": Kind(established_silent, 840),
    "reader that never reads": Kind(reader_that_never_reads, 80),
    "greedy reader": Kind(greedy_reader, 2),
    "flood of empty writes": Kind(flood_of_empty_writes, 3),
    "unfinished fpdu": Kind(unfinished_fpdu, 80),
    "trickled fpdu": Kind(trickled_fpdu, 40),
    "fin inside fpdu": Kind(fin_inside_fpdu, 10),
    "bad crc": Kind(bad_crc, 20),
    "guessed write": Kind(guessed_write, 20),
    "guessed read": Kind(guessed_read, 20),
    "guessed key": Kind(guessed_key, 10),
    "guessed invalidation": Kind(guessed_invalidation, 10),
    "giant read": Kind(giant_read, 10),
    "wrapping write": Kind(wrapping_write, 10),
    "write beyond": Kind(write_beyond, 10),
    "more reads than agreed": Kind(more_reads_than_agreed, 10),
    "more sends than receives": Kind(more_sends_than_receives, 10),
    "endless message": Kind(endless_message, 10),
    "wrong numbers": Kind(wrong_numbers, 20),
    "flood of terminates": Kind(flood_of_terminates, 5),
    "noise": Kind(noise, 20),
}
