"""Start-up frames in any chunks, with FPDUs behind them, damaged or not, always end the same way."""

from collections.abc import Sequence

from hypothesis import given
from hypothesis import strategies as st

from softndk.iwarp.framing import Deframer, FramingFault
from softndk.iwarp.negotiation import Initiator, Negotiated, Rejection, Request, Responder, Rtr, StartupError
from softndk.wire.mpa import Enhanced, FrameKind, StartupFrame
from tests.vectors.fpdu_model import stream

FLAG = st.booleans()
U14 = st.integers(0, 40) | st.just(0x3FFF) | st.integers(0, 0x3FFF)
CHUNKS = st.lists(st.integers(1, 40), max_size=80)
OFFERS = st.frozensets(st.sampled_from([Rtr.WRITE, Rtr.READ, Rtr.SEND]))

enhanced = st.builds(Enhanced, ird=U14, ord=U14, peer_to_peer=FLAG, rtr_send=FLAG, rtr_write=FLAG, rtr_read=FLAG)


@st.composite
def startup_octets(draw: st.DrawFn, kind: FrameKind) -> bytes:
    """A frame, mostly of the right kind and revision, perhaps with one octet changed."""
    revision = draw(st.sampled_from([2, 2, 2, 1, 1, 0, 3]))
    data = draw(st.none() | enhanced) if revision >= 2 else None
    frame = StartupFrame(
        kind=draw(st.sampled_from([kind, kind, kind, *FrameKind])),
        markers=draw(FLAG),
        crc=draw(FLAG),
        reject=draw(FLAG),
        revision=revision,
        enhanced=data,
        private_data=draw(st.binary(max_size=508 if data else 512)),
    )
    octets = bytearray(frame.emit())
    if draw(st.integers(0, 3)) == 0:
        octets[draw(st.integers(0, len(octets) - 1))] ^= draw(st.integers(1, 255))
    return bytes(octets)


def chunked(octets: bytes, sizes: Sequence[int]) -> list[bytes]:
    chunks = []
    at = 0
    for size in sizes:
        chunks.append(octets[at : at + size])
        at += size
    return [chunk for chunk in [*chunks, octets[at:]] if chunk]


def failure(error: StartupError) -> tuple[object, ...]:
    return (error.reason, error.crc, error.send_markers, error.frame)


def run_initiator(end: Initiator, chunks: Sequence[bytes]) -> tuple[object, bytes]:
    """The outcome, and the octets that belong to the deframer."""
    outcome: Negotiated | Rejection | None = None
    behind = b""
    for chunk in chunks:
        if outcome is not None:
            behind += chunk
            continue
        try:
            outcome = end.receive(chunk)
        except StartupError as error:
            return failure(error), b""
        if outcome is not None:
            behind = end.leftover()
    if outcome is None:
        try:
            end.receive_eof()
        except StartupError as error:
            return (failure(error), str(error)), b""
    return outcome, behind


@given(startup_octets(FrameKind.REPLY) | st.binary(max_size=600), st.binary(max_size=60), OFFERS, FLAG, CHUNKS)
def test_initiator(octets: bytes, behind: bytes, offer: frozenset[Rtr], plain: bool, sizes: list[int]) -> None:
    def fresh() -> Initiator:
        return Initiator(b"", ird=16, ord=16, revision=1 if plain else 2, rtr_offer=offer)

    reference = run_initiator(fresh(), [octets + behind])
    assert run_initiator(fresh(), chunked(octets + behind, sizes)) == reference


def run_responder(end: Responder, chunks: Sequence[bytes]) -> object:
    request: Request | None = None
    for chunk in chunks:
        try:
            request = end.receive(chunk) or request
        except StartupError as error:
            return failure(error)[:2]
    if request is None:
        try:
            end.receive_eof()
        except StartupError as error:
            return failure(error), str(error)
    return request


@given(startup_octets(FrameKind.REQUEST) | st.binary(max_size=600), st.binary(max_size=3), CHUNKS)
def test_responder(octets: bytes, behind: bytes, sizes: list[int]) -> None:
    reference = run_responder(Responder(), [octets + behind])
    assert run_responder(Responder(), chunked(octets + behind, sizes)) == reference


def run_whole_direction(chunks: Sequence[bytes]) -> tuple[list[bytes], object]:
    """An initiator's incoming direction: Reply, then FPDUs."""
    end = Initiator(b"", ird=16, ord=16, rtr_offer=frozenset())
    deframer: Deframer | None = None
    ulpdus: list[bytes] = []
    for chunk in chunks:
        octets = chunk
        if deframer is None:
            try:
                outcome = end.receive(chunk)
            except StartupError as error:
                return [], failure(error)
            if outcome is None:
                continue
            if isinstance(outcome, Rejection):
                return [], outcome
            deframer = Deframer(crc=outcome.crc, markers=outcome.receive_markers)
            octets = end.leftover()
        deframer.feed(memoryview(octets))
        try:
            while (ulpdu := deframer.next_ulpdu()) is not None:
                ulpdus.append(bytes(ulpdu))
        except FramingFault as fault:
            return ulpdus, str(fault)
        deframer.detach()
    return ulpdus, deframer is not None and deframer.buffered


@given(st.lists(st.binary(max_size=60), max_size=5), st.none() | st.integers(0, 400), st.integers(1, 255), CHUNKS)
def test_reply_and_fpdus_in_one_stream(
    ulpdus: list[bytes], damaged_at: int | None, change: int, sizes: list[int]
) -> None:
    frame = StartupFrame(FrameKind.REPLY, False, True, False, 2, Enhanced(ird=16, ord=16), b"private")
    octets = bytearray(frame.emit() + stream(ulpdus, crc=True, markers=False))
    if damaged_at is not None:
        octets[damaged_at % len(octets)] ^= change
    reference = run_whole_direction([bytes(octets)])
    assert run_whole_direction(chunked(bytes(octets), sizes)) == reference
    if damaged_at is None:
        assert reference == (ulpdus, 0)


@given(
    st.tuples(U14, U14),
    st.tuples(st.integers(0, 0x3FFE), st.integers(0, 0x3FFE)),
    OFFERS,
    FLAG,
    FLAG,
    FLAG,
    FLAG,
)
def test_two_ends_of_ours_always_agree(
    wished: tuple[int, int],
    capacity: tuple[int, int],
    offer: frozenset[Rtr],
    crc: bool,
    peer_crc: bool,
    markers: bool,
    peer_markers: bool,
) -> None:
    one = Initiator(b"one", ird=wished[0], ord=wished[1], crc=crc, markers=markers, rtr_offer=offer)
    other = Responder(crc=peer_crc, markers=peer_markers)
    assert other.receive(one.request()) is not None
    octets, theirs = other.accept(b"other", ird=capacity[0], ord=capacity[1])
    ours = one.receive(octets)
    assert isinstance(ours, Negotiated)
    assert ours.crc == theirs.crc == (crc or peer_crc)
    assert (ours.send_markers, ours.receive_markers) == (theirs.receive_markers, theirs.send_markers)
    assert (ours.private_data, theirs.private_data) == (b"other", b"one")
    if 0x3FFF not in wished:
        assert ours.ord <= theirs.ird
        assert theirs.ord <= ours.ird
    assert (ours.rtr is Rtr.NONE) == (not offer)
    assert ours.rtr is Rtr.NONE or ours.rtr in theirs.rtr_options & offer
