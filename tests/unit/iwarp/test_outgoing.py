"""Octets that wait for the socket: in order, whatever it takes at once; start-up frames counted apart."""

import random

from hypothesis import given
from hypothesis import strategies as st

from softndk.iwarp.outgoing import Outgoing


def test_pieces_come_as_they_were_made() -> None:
    out = Outgoing()
    assert not out
    out.add_startup(b"request")
    out.add(bytearray(b"frame"))
    out.extend([b"a", b"b"])
    assert out
    assert out.octets == 14
    assert [bytes(part) for part in out.first(3)] == [b"request", b"frame", b"a"]
    assert [bytes(part) for part in out] == [b"request", b"frame", b"a", b"b"]


def test_start_up_octets_are_not_of_the_stream() -> None:
    out = Outgoing()
    out.add_startup(b"request")
    out.add(b"frame")
    assert out.taken(3) == 0
    assert [bytes(part) for part in out] == [b"uest", b"frame"]
    assert out.taken(6) == 2
    assert [bytes(part) for part in out] == [b"ame"]


def test_what_was_cleared_counts_no_more() -> None:
    out = Outgoing()
    out.add_startup(b"request")
    out.clear()
    assert not out
    out.add(b"frame")
    assert out.taken(5) == 5
    assert not out


@given(st.binary(max_size=20), st.lists(st.binary(min_size=1, max_size=20), max_size=8), st.randoms())
def test_nothing_is_lost_or_doubled_whatever_the_socket_takes(
    startup: bytes, frames: list[bytes], draw: random.Random
) -> None:
    out = Outgoing()
    if startup:
        out.add_startup(startup)
    out.extend(frames)
    seen, of_stream = b"", 0
    while out:
        count = draw.randint(1, out.octets)
        seen += b"".join(out.first(1000))[:count]
        of_stream += out.taken(count)
    assert seen == startup + b"".join(frames)
    assert of_stream == sum(map(len, frames))
