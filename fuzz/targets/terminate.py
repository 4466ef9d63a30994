"""Terminate: any body, read and shown. It is lenient where the standard and siw leave room, and never trusts a length.

Checked: only the documented error; what was read can be written again and read to the same; every text can be made;
and the trace shows a segment with this body, or with any other, without failing.
"""

from collections.abc import Sequence

from fuzz.octets import untagged
from softndk.iwarp.faults import received_code, received_value, status_for_received
from softndk.trace.fields import segment_fields, terminate_sentence
from softndk.wire import WireError
from softndk.wire.terminate import MAX_BODY, Terminate

__all__ = ["check", "seeds"]


def check(data: bytes) -> None:
    """Run one input: the body of a Terminate. Raises: AssertionError, or whatever escapes."""
    for kind in (bytes, memoryview, bytearray):
        _parse(kind(data))
    _show(data)
    _show(bytes(untagged(7, 2, 1, 0, data)))


def _parse(body: bytes | bytearray | memoryview) -> None:
    flags = body[2] if len(body) > 2 else 0
    lenient = Terminate.parse_leniently(body)
    if len(body) >= 4:
        assert {lenient.layer, lenient.etype} == {body[0] >> 4, body[0] & 15}, "layer and type of what is cut off"
        assert lenient.code == body[1], "code of what is cut off"
    try:
        message = Terminate.parse(body)
    except WireError as error:
        assert len(body) < MAX_BODY or flags & 0x24, f"a body of {len(body)} octets is too short: {error}"
        return
    assert len(body) >= 4, "read from nothing"
    assert lenient == message, "read leniently to something else"
    assert {body[0] >> 4, body[0] & 15} == {message.layer, message.etype}, "layer and type"
    assert message.code == body[1], "code"
    given = message.ddp_header + message.read_header
    assert given == bytes(body[6 : 6 + len(given)]), "headers"
    assert len(message.ddp_header) in (0, 14, 18), "DDP header"
    again = Terminate.parse(message.emit())
    if not again.scrambled:
        assert again == message, "not the same when written and read again"
    value = received_value(message)
    assert value.header == given, "header shown"
    assert 0x10000 <= received_code(message) <= 0x1FFFF, "provider code"
    status_for_received(message)
    assert str(message), "no text"


def _show(ulpdu: bytes) -> None:
    fields = segment_fields(memoryview(ulpdu))
    assert fields.kind, "no kind"
    assert len(fields.payload) <= len(ulpdu), "payload out of nothing"
    framed = len(ulpdu).to_bytes(2, "big") + ulpdu
    assert terminate_sentence(memoryview(framed)), "no sentence"


def seeds() -> Sequence[bytes]:
    """Bodies of each size there is, in both bit orders, and some that are cut off."""
    tagged = bytes.fromhex("c140deadbe010000000000001000")
    read = bytes.fromhex("414100000000000000010000000100000000") + bytes(range(28))
    whole = [
        bytes.fromhex("20020000"),
        bytes.fromhex("02020000"),
        bytes.fromhex("1100c0000016") + tagged,
        bytes.fromhex("0209c000002a") + read[:18],
        bytes.fromhex("0100e000002e") + read,
        bytes.fromhex("1000070000") + b"\x2e" + read,
    ]
    return [*whole, *(body[: len(body) // 2] for body in whole)]
