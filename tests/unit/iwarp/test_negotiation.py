"""MPA start-up: every row of what initiator and responder must do, read limits, ready-to-receive options."""

from typing import Any

import pytest

from softndk.iwarp.negotiation import (
    Initiator,
    Negotiated,
    Rejection,
    Request,
    Responder,
    Rtr,
    StartupError,
    StartupReason,
    max_private_data,
)
from softndk.wire.mpa import NO_NEGOTIATION, Enhanced, FrameKind, StartupFrame
from tests.vectors.iwarp_vectors import named

W, R, S = Rtr.WRITE, Rtr.READ, Rtr.SEND
CLIENT_SERVER: frozenset[Rtr] = frozenset()

REQUEST_KEY = b"MPA ID Req Frame"
REPLY_KEY = b"MPA ID Rep Frame"


def startup(kind: FrameKind, **changes: Any) -> bytes:
    """The octets of a plain revision 2 frame with enhanced data (IRD 16, ORD 16), changed as told."""
    fields: dict[str, Any] = {
        "kind": kind,
        "markers": False,
        "crc": False,
        "reject": False,
        "revision": 2,
        "enhanced": Enhanced(ird=16, ord=16),
        "private_data": b"",
    }
    return StartupFrame(**(fields | changes)).emit()


def reply(**changes: Any) -> bytes:
    return startup(FrameKind.REPLY, **changes)


def request(**changes: Any) -> bytes:
    return startup(FrameKind.REQUEST, **changes)


def initiator(**changes: Any) -> Initiator:
    arguments: dict[str, Any] = {"ird": 16, "ord": 16, "rtr_offer": CLIENT_SERVER}
    return Initiator(**({"private_data": b""} | arguments | changes))


def agreed(outcome: Negotiated | Rejection | None) -> Negotiated:
    assert isinstance(outcome, Negotiated)
    return outcome


def asked(octets: bytes, **arguments: Any) -> Responder:
    """A responder that has read this Request."""
    responder = Responder(**arguments)
    assert responder.receive(octets) is not None
    return responder


def initiator_fails(end: Initiator, octets: bytes) -> StartupError:
    with pytest.raises(StartupError) as caught:
        end.receive(octets)
    assert str(caught.value)
    return caught.value


def responder_fails(octets: bytes, **arguments: Any) -> StartupError:
    with pytest.raises(StartupError) as caught:
        Responder(**arguments).receive(octets)
    assert str(caught.value)
    return caught.value


def handshake(one: Initiator, other: Responder, *, ird: int = 16, ord: int = 16) -> tuple[Negotiated, Negotiated]:
    assert other.receive(one.request()) is not None
    octets, theirs = other.accept(b"", ird=ird, ord=ord)
    return agreed(one.receive(octets)), theirs


class TestVectors:
    def test_revision_1(self) -> None:
        asking, answering = named("MPA v1 request").octets, named("MPA v1 reply").octets
        one = Initiator(b"client", ird=4, ord=4, revision=1)
        assert one.request() == asking
        other = Responder()
        assert other.receive(asking) == Request(
            private_data=b"client",
            revision=1,
            enhanced=False,
            peer_ird=None,
            peer_ord=None,
            peer_to_peer=False,
            rtr_requested=frozenset(),
        )
        octets, theirs = other.accept(b"server", ird=8, ord=2)
        assert octets == answering
        ours = agreed(one.receive(answering))
        assert (ours.private_data, theirs.private_data) == (b"server", b"client")
        for end in (ours, theirs):
            assert (end.crc, end.revision, end.enhanced, end.rtr) == (True, 1, False, Rtr.NONE)
            assert (end.peer_ird, end.peer_ord) == (None, None)
        assert (ours.ird, ours.ord, theirs.ird, theirs.ord) == (4, 4, 8, 2)

    def test_revision_2_client_server(self) -> None:
        asking, answering = named("MPA v2 request").octets, named("MPA v2 reply").octets
        one = Initiator(b"hi", ird=16, ord=16, rtr_offer=CLIENT_SERVER)
        assert one.request() == asking
        other = Responder()
        assert other.receive(asking) == Request(
            private_data=b"hi",
            revision=2,
            enhanced=True,
            peer_ird=16,
            peer_ord=16,
            peer_to_peer=False,
            rtr_requested=frozenset(),
        )
        octets, theirs = other.accept(b"", ird=16, ord=8)
        assert octets == answering
        assert (theirs.ird, theirs.ord) == (16, 8)
        ours = agreed(one.receive(answering))
        assert (ours.ird, ours.ord) == (8, 16)
        assert (ours.peer_ird, ours.peer_ord) == (16, 8)
        assert (ours.rtr, theirs.rtr) == (Rtr.NONE, Rtr.NONE)

    def test_peer_to_peer(self) -> None:
        asking = named("MPA v2 peer-to-peer request").octets
        one = Initiator(b"", ird=1, ord=1, crc=False)
        assert one.request() == asking
        seen = Responder().receive(asking)
        assert seen is not None
        assert seen.peer_to_peer
        assert seen.rtr_requested == {W, R}
        ours = agreed(one.receive(named("Reply choosing the zero-length Write").octets))
        assert (ours.rtr, ours.crc, ours.ird, ours.ord) == (W, True, 1, 1)

    def test_the_zero_length_write_alone_is_answered_like_the_vector(self) -> None:
        asking = request(crc=True, enhanced=Enhanced(ird=1, ord=1, peer_to_peer=True, rtr_write=True))
        octets, _ = asked(asking).accept(b"", ird=1, ord=1)
        assert octets == named("Reply choosing the zero-length Write").octets


class TestRequest:
    def test_defaults_ask_for_crc_and_no_markers_and_offer_write_and_read(self) -> None:
        frame = StartupFrame.parse(Initiator(b"data", ird=3, ord=5).request())
        assert frame == StartupFrame(
            kind=FrameKind.REQUEST,
            markers=False,
            crc=True,
            reject=False,
            revision=2,
            enhanced=Enhanced(ird=3, ord=5, peer_to_peer=True, rtr_write=True, rtr_read=True),
            private_data=b"data",
        )

    def test_each_wish_sets_its_own_bit(self) -> None:
        assert initiator(crc=False).request()[16] == 0x10
        assert initiator(crc=True).request()[16] == 0x50
        assert initiator(crc=False, markers=True).request()[16] == 0x90
        assert initiator(rtr_offer=frozenset({S})).request()[20:] == bytes.fromhex("c0100010")

    @pytest.mark.parametrize(("revision", "limit"), [(1, 512), (2, 508)])
    def test_private_data_limit(self, revision: int, limit: int) -> None:
        assert max_private_data(revision) == limit
        assert len(initiator(private_data=bytes(limit), revision=revision).request()) == 532
        with pytest.raises(ValueError, match=str(limit)):
            initiator(private_data=bytes(limit + 1), revision=revision)

    @pytest.mark.parametrize(
        "changes", [{"ird": 0x4000}, {"ord": 0x4000}, {"ird": -1}, {"revision": 0}, {"revision": 3}]
    )
    def test_what_cannot_be_asked(self, changes: dict[str, int]) -> None:
        with pytest.raises(ValueError, match=r"14-bit|revision"):
            initiator(**changes)


class TestInitiatorReadsTheReply:
    """One test for each row of what the initiator decides on."""

    def test_own_key_means_both_are_initiators(self) -> None:
        error = initiator_fails(initiator(), request())
        assert error.reason is StartupReason.BOTH_INITIATORS

    @pytest.mark.parametrize(
        "octets",
        [
            pytest.param(b"HTTP/1.1 400 Bad Request\r\n", id="another protocol"),
            pytest.param(b"MPA ID Rex Frame" + bytes([0, 2, 0, 0]), id="other key"),
            pytest.param(REPLY_KEY + bytes([0x40, 2, 2, 1]), id="PD_Length 513"),
            pytest.param(REPLY_KEY + bytes([0x50, 2, 0, 3]), id="S and PD_Length 3"),
            pytest.param(REPLY_KEY + bytes([0x70, 2, 0, 0]), id="rejection, S and PD_Length 0"),
        ],
    )
    def test_malformed(self, octets: bytes) -> None:
        error = initiator_fails(initiator(), octets)
        assert error.reason is StartupReason.MALFORMED

    @pytest.mark.parametrize("octets", [b"SSH-2.0-OpenSSH\r\n", b"220 ready\r\n", b"\0", b"MPA ID Rex"])
    def test_another_protocol_that_speaks_first_and_waits_is_told_at_once(self, octets: bytes) -> None:
        """No start-up frame begins so, and the rest of a header may never come."""
        error = initiator_fails(initiator(), octets)
        assert error.reason is StartupReason.MALFORMED
        assert str(octets[:16]) in str(error)

    def test_one_octet_after_the_other_it_is_told_at_the_first_wrong_one(self) -> None:
        end = initiator()
        for octet in b"MPA ID Re":
            assert end.receive(bytes([octet])) is None
        assert initiator_fails(end, b"x").reason is StartupReason.MALFORMED

    def test_closed_before_the_reply(self) -> None:
        end = initiator()
        with pytest.raises(StartupError) as caught:
            end.receive_eof()
        assert caught.value.reason is StartupReason.NO_ANSWER

    @pytest.mark.parametrize("length", [1, 19, 20, 23])
    def test_closed_within_the_reply(self, length: int) -> None:
        end = initiator()
        assert end.receive(reply()[:length]) is None
        with pytest.raises(StartupError, match=f"{length} octets") as caught:
            end.receive_eof()
        assert caught.value.reason is StartupReason.INCOMPLETE

    def test_rejection(self) -> None:
        octets = reply(reject=True, private_data=b"no room", enhanced=Enhanced(ird=2, ord=40))
        assert initiator().receive(octets) == Rejection(private_data=b"no room", peer_ird=2, peer_ord=40)

    def test_rejection_that_is_not_enhanced(self) -> None:
        octets = reply(reject=True, private_data=b"old", enhanced=None)
        assert initiator().receive(octets) == Rejection(private_data=b"old", peer_ird=None, peer_ord=None)

    def test_rejection_of_markers_as_the_linux_driver_does_it(self) -> None:
        assert isinstance(initiator(markers=True).receive(reply(reject=True)), Rejection)

    @pytest.mark.parametrize("revision", [1, 2])
    def test_an_enhanced_request_needs_an_enhanced_reply(self, revision: int) -> None:
        error = initiator_fails(initiator(), reply(revision=revision, enhanced=None))
        assert error.reason is StartupReason.NOT_ENHANCED

    def test_s_in_a_revision_1_reply_is_a_reserved_bit(self) -> None:
        error = initiator_fails(initiator(), REPLY_KEY + bytes([0x10, 1, 0, 4, 0, 1, 0, 1]))
        assert error.reason is StartupReason.NOT_ENHANCED

    @pytest.mark.parametrize("revision", [0, 3, 255])
    def test_revision_that_is_not_implemented(self, revision: int) -> None:
        error = initiator_fails(initiator(), REPLY_KEY + bytes([0x40, revision, 0, 0]))
        assert error.reason is StartupReason.UNSUPPORTED_REVISION

    @pytest.mark.parametrize("revision", [1, 2])
    def test_plain_reply_to_a_plain_request(self, revision: int) -> None:
        ours = agreed(initiator(revision=1).receive(reply(revision=revision, enhanced=None)))
        assert (ours.revision, ours.enhanced, ours.ird, ours.ord) == (revision, False, 16, 16)

    def test_enhanced_reply_to_a_plain_request(self) -> None:
        assert initiator_fails(initiator(revision=1), reply()).reason is StartupReason.MALFORMED

    @pytest.mark.parametrize("wanted", [True, False])
    def test_m_in_the_reply_makes_us_send_markers(self, wanted: bool) -> None:
        ours = agreed(initiator().receive(reply(markers=wanted)))
        assert (ours.send_markers, ours.receive_markers) == (wanted, False)

    def test_markers_asked_for_are_received(self) -> None:
        ours = agreed(initiator(markers=True).receive(reply()))
        assert (ours.send_markers, ours.receive_markers) == (False, True)

    @pytest.mark.parametrize("own", [True, False])
    @pytest.mark.parametrize("peer", [True, False])
    def test_crc_if_either_wants_it(self, own: bool, peer: bool) -> None:
        assert agreed(initiator(crc=own).receive(reply(crc=peer))).crc == (own or peer)

    def test_octets_behind_the_reply_are_the_first_fpdu(self) -> None:
        end = initiator()
        assert end.receive(reply() + b"first FPDU") is not None
        assert end.leftover() == b"first FPDU"

    def test_nothing_behind_the_reply(self) -> None:
        end = initiator()
        assert end.receive(reply()[:21]) is None
        assert end.receive(reply()[21:]) is not None
        assert end.leftover() == b""

    def test_octets_behind_a_rejection_are_kept_apart_too(self) -> None:
        end = initiator()
        outcome = end.receive(reply(reject=True, private_data=b"no") + b"rest")
        assert isinstance(outcome, Rejection)
        assert (outcome.private_data, end.leftover()) == (b"no", b"rest")

    def test_over_is_over(self) -> None:
        end = initiator()
        end.receive(reply())
        with pytest.raises(RuntimeError):
            end.receive(b"x")

    def test_longest_private_data(self) -> None:
        ours = agreed(initiator().receive(reply(private_data=bytes(range(254)) * 2)))
        assert ours.private_data == bytes(range(254)) * 2


class TestReadLimitsOfTheInitiator:
    @pytest.mark.rules("R-LIM-2")
    @pytest.mark.parametrize(
        ("own", "answer", "result"),
        [
            # own (IRD, ORD), the Reply's (IRD, ORD), what holds for us
            ((16, 16), (16, 8), (8, 16)),
            ((16, 16), (16, 16), (16, 16)),
            ((16, 16), (4, 16), (16, 4)),
            ((16, 4), (128, 16), (16, 4)),
            ((16, 16), (0, 0), (0, 0)),
            ((0, 0), (16, 0), (0, 0)),
            ((NO_NEGOTIATION, 16), (16, NO_NEGOTIATION), (NO_NEGOTIATION, 16)),
            ((16, NO_NEGOTIATION), (NO_NEGOTIATION, 16), (16, NO_NEGOTIATION)),
            ((16, 16), (NO_NEGOTIATION, NO_NEGOTIATION), (16, 16)),
            # A peer that knows no 0x3fff takes it for a number and answers with its own.
            ((NO_NEGOTIATION, NO_NEGOTIATION), (128, 128), (128, 128)),
        ],
    )
    def test_table(self, own: tuple[int, int], answer: tuple[int, int], result: tuple[int, int]) -> None:
        end = initiator(ird=own[0], ord=own[1])
        ours = agreed(end.receive(reply(enhanced=Enhanced(ird=answer[0], ord=answer[1]))))
        assert (ours.ird, ours.ord) == result
        assert (ours.peer_ird, ours.peer_ord) == answer

    @pytest.mark.parametrize(("own", "needed"), [(16, 17), (0, 1), (127, 128)])
    @pytest.mark.parametrize("markers", [True, False])
    def test_more_reads_than_we_can_hold(self, own: int, needed: int, markers: bool) -> None:
        octets = reply(enhanced=Enhanced(ird=1, ord=needed), markers=markers, crc=True, private_data=b"pd")
        error = initiator_fails(initiator(ird=own, crc=False), octets)
        assert error.reason is StartupReason.INSUFFICIENT_IRD
        assert (error.crc, error.send_markers) == (True, markers)
        assert error.frame == StartupFrame.parse(octets)


def p2p(options: str, *, ird: int = 16, ord: int = 16) -> Enhanced:
    """Enhanced data with A set and those of B, C, D that `options` names."""
    return Enhanced(
        ird=ird,
        ord=ord,
        peer_to_peer=True,
        rtr_send="B" in options,
        rtr_write="C" in options,
        rtr_read="D" in options,
    )


class TestReadyToReceiveOfTheInitiator:
    @pytest.mark.parametrize(
        ("offer", "answer", "chosen"),
        [
            ({W, R}, "CD", W),
            ({W, R}, "C", W),
            ({W, R}, "D", R),
            ({W, R}, "BCD", W),
            ({W, R}, "BD", R),
            ({W}, "CD", W),
            ({R}, "CD", R),
            ({S}, "BCD", S),
            ({R, S}, "BC", S),
        ],
    )
    def test_picks_what_it_can_send(self, offer: set[Rtr], answer: str, chosen: Rtr) -> None:
        ours = agreed(initiator(rtr_offer=frozenset(offer)).receive(reply(enhanced=p2p(answer))))
        assert ours.rtr is chosen
        assert ours.rtr_options == {chosen}

    @pytest.mark.parametrize(
        ("offer", "answer"), [({W, R}, "B"), ({W, R}, ""), ({W}, "D"), ({R}, "C"), ({S}, "CD"), ({R}, "BC")]
    )
    def test_nothing_in_common(self, offer: set[Rtr], answer: str) -> None:
        octets = reply(enhanced=p2p(answer), crc=True)
        error = initiator_fails(initiator(rtr_offer=frozenset(offer)), octets)
        assert error.reason is StartupReason.NO_MATCHING_RTR
        assert error.crc

    def test_without_a_in_the_reply_its_options_mean_nothing(self) -> None:
        octets = reply(enhanced=Enhanced(ird=16, ord=16, rtr_write=True, rtr_read=True))
        error = initiator_fails(initiator(rtr_offer=frozenset({W, R})), octets)
        assert error.reason is StartupReason.NO_MATCHING_RTR

    @pytest.mark.parametrize(("answer", "chosen"), [("CD", W), ("D", None)])
    def test_a_read_needs_a_slot_at_the_responder(self, answer: str, chosen: Rtr | None) -> None:
        end = initiator(rtr_offer=frozenset({W, R}))
        octets = reply(enhanced=p2p(answer, ird=0))
        if chosen is None:
            assert initiator_fails(end, octets).reason is StartupReason.NO_MATCHING_RTR
        else:
            assert agreed(end.receive(octets)).rtr is chosen

    def test_a_read_indication_does_not_need_own_ord(self) -> None:
        ours = agreed(initiator(ord=0, rtr_offer=frozenset({R})).receive(reply(enhanced=p2p("D", ird=1))))
        assert (ours.rtr, ours.ord) == (R, 0)

    @pytest.mark.parametrize("answer", ["CD", ""])
    def test_nobody_asked(self, answer: str) -> None:
        assert agreed(initiator().receive(reply(enhanced=p2p(answer)))).rtr is Rtr.NONE

    def test_revision_1_has_none(self) -> None:
        end = initiator(revision=1, rtr_offer=frozenset({W, R}))
        assert agreed(end.receive(reply(revision=1, enhanced=None))).rtr is Rtr.NONE


class TestResponderReadsTheRequest:
    """One test for each row of what the responder decides on."""

    @pytest.mark.parametrize(
        "octets",
        [
            pytest.param(b"GET / HTTP/1.1\r\nHost: example\r\n\r\n", id="another protocol"),
            pytest.param(b"MPA ID Rex Frame" + bytes([0, 2, 0, 0]), id="other key"),
            pytest.param(reply(), id="a Reply"),
            pytest.param(REQUEST_KEY + bytes([0x40, 2, 2, 1]), id="PD_Length 513"),
            pytest.param(REQUEST_KEY + bytes([0x50, 2, 0, 3]), id="S and PD_Length 3"),
        ],
    )
    def test_malformed(self, octets: bytes) -> None:
        assert responder_fails(octets).reason is StartupReason.MALFORMED

    @pytest.mark.parametrize("revision", [0, 3, 255])
    def test_revision_that_is_not_implemented(self, revision: int) -> None:
        error = responder_fails(REQUEST_KEY + bytes([0x40, revision, 0, 0]))
        assert error.reason is StartupReason.UNSUPPORTED_REVISION

    @pytest.mark.parametrize("enhanced", [None, Enhanced(ird=1, ord=1)])
    def test_revision_2_at_a_responder_limited_to_1(self, enhanced: Enhanced | None) -> None:
        error = responder_fails(request(enhanced=enhanced), max_revision=1)
        assert error.reason is StartupReason.UNSUPPORTED_REVISION

    def test_closed_before_and_within_the_request(self) -> None:
        for octets, reason in ((b"", StartupReason.NO_ANSWER), (request()[:22], StartupReason.INCOMPLETE)):
            responder = Responder()
            assert responder.receive(octets) is None
            with pytest.raises(StartupError) as caught:
                responder.receive_eof()
            assert caught.value.reason is reason

    def test_r_is_ignored(self) -> None:
        assert Responder().receive(request(reject=True)) is not None

    def test_without_a_the_options_are_ignored(self) -> None:
        octets = request(enhanced=Enhanced(ird=16, ord=16, rtr_send=True, rtr_write=True, rtr_read=True))
        responder = Responder()
        seen = responder.receive(octets)
        assert seen is not None
        assert (seen.peer_to_peer, seen.rtr_requested) == (False, frozenset())
        answer, ours = responder.accept(b"", ird=16, ord=16)
        assert answer[20:] == bytes.fromhex("00100010")
        assert (ours.rtr, ours.rtr_options) == (Rtr.NONE, frozenset())

    def test_raw_values_are_handed_up(self) -> None:
        seen = Responder().receive(request(enhanced=Enhanced(ird=NO_NEGOTIATION, ord=9000), private_data=b"pd"))
        assert seen is not None
        assert (seen.peer_ird, seen.peer_ord, seen.private_data) == (NO_NEGOTIATION, 9000, b"pd")

    @pytest.mark.parametrize("cut", [0, 1, 24])
    def test_octets_behind_the_request(self, cut: int) -> None:
        octets = request()
        responder = Responder()
        responder.receive(octets[:cut])
        with pytest.raises(StartupError, match="1 octets") as caught:
            responder.receive(octets[cut:] + b"x")
        assert caught.value.reason is StartupReason.EARLY_DATA

    def test_nothing_more_is_no_early_data(self) -> None:
        assert asked(request()).receive(b"") is None

    def test_order_of_calls(self) -> None:
        early = Responder()
        with pytest.raises(RuntimeError):
            early.accept(b"", ird=1, ord=1)
        with pytest.raises(RuntimeError):
            early.reject()
        accepted, rejected = asked(request()), asked(request())
        accepted.accept(b"", ird=1, ord=1)
        rejected.reject()
        for answered in (accepted, rejected):
            with pytest.raises(RuntimeError):
                answered.receive(b"x")
            with pytest.raises(RuntimeError):
                answered.reject()
            with pytest.raises(RuntimeError):
                answered.accept(b"", ird=1, ord=1)


class TestReply:
    @pytest.mark.parametrize(
        ("revision", "enhanced"), [(1, None), (2, None), (2, Enhanced(ird=5, ord=6))], ids=["1", "2", "2 with S"]
    )
    def test_revision_and_s_are_those_of_the_request(self, revision: int, enhanced: Enhanced | None) -> None:
        octets = request(revision=revision, enhanced=enhanced)
        accepted, ours = asked(octets).accept(b"yes", ird=3, ord=3)
        rejected = asked(octets).reject(b"no", ird=1, ord=40)
        for frame, private in ((StartupFrame.parse(accepted), b"yes"), (StartupFrame.parse(rejected), b"no")):
            assert frame.kind is FrameKind.REPLY
            assert frame.revision == revision == ours.revision
            assert (frame.enhanced is not None) == (enhanced is not None) == ours.enhanced
            assert frame.private_data == private
            assert frame.reject == (private == b"no")

    def test_rejection_tells_what_would_be_needed(self) -> None:
        outcome = initiator().receive(asked(initiator().request()).reject(b"more", ird=1, ord=40))
        assert outcome == Rejection(private_data=b"more", peer_ird=1, peer_ord=40)

    def test_rejection_without_words_still_has_the_four_octets(self) -> None:
        assert asked(request()).reject() == REPLY_KEY + bytes([0x70, 2, 0, 4, 0, 0, 0, 0])

    def test_rejection_of_revision_1(self) -> None:
        octets = asked(request(revision=1, enhanced=None)).reject(bytes(512))
        assert initiator(revision=1).receive(octets) == Rejection(bytes(512), None, None)

    @pytest.mark.parametrize("own", [True, False])
    @pytest.mark.parametrize("peer", [True, False])
    def test_crc_if_either_wants_it(self, own: bool, peer: bool) -> None:
        octets, ours = asked(request(crc=peer), crc=own).accept(b"", ird=1, ord=1)
        assert ours.crc == (own or peer)
        assert StartupFrame.parse(octets).crc == ours.crc

    @pytest.mark.parametrize("own", [True, False])
    @pytest.mark.parametrize("peer", [True, False])
    def test_markers_are_settled_each_way(self, own: bool, peer: bool) -> None:
        octets, ours = asked(request(markers=peer), markers=own).accept(b"", ird=1, ord=1)
        assert StartupFrame.parse(octets).markers == own
        assert (ours.send_markers, ours.receive_markers) == (peer, own)

    @pytest.mark.parametrize(("enhanced", "limit"), [(None, 512), (Enhanced(ird=1, ord=1), 508)])
    def test_private_data_limit(self, enhanced: Enhanced | None, limit: int) -> None:
        responder = asked(request(enhanced=enhanced))
        with pytest.raises(ValueError, match=str(limit)):
            responder.accept(bytes(limit + 1), ird=1, ord=1)
        with pytest.raises(ValueError, match=str(limit)):
            responder.reject(bytes(limit + 1))
        octets, _ = responder.accept(bytes(limit), ird=1, ord=1)
        assert len(octets) == 532

    @pytest.mark.parametrize(("ird", "ord_"), [(-1, 0), (0, -1), (NO_NEGOTIATION, 0), (0, NO_NEGOTIATION)])
    def test_capacities_are_real(self, ird: int, ord_: int) -> None:
        responder = asked(request())
        with pytest.raises(ValueError, match="outside"):
            responder.accept(b"", ird=ird, ord=ord_)
        responder.accept(b"", ird=1, ord=1)


class TestReadLimitsOfTheResponder:
    @pytest.mark.parametrize(
        ("asked_for", "own", "answer", "result"),
        [
            # Request's (IRD, ORD), own (IRD, ORD), the Reply's, what holds for us
            ((16, 16), (16, 8), (16, 8), (16, 8)),
            ((16, 16), (4, 4), (4, 4), (4, 4)),
            ((2, 3), (16, 16), (3, 2), (3, 2)),
            ((0, 0), (16, 16), (0, 0), (0, 0)),
            ((128, 128), (0, 0), (0, 0), (0, 0)),
            ((16, NO_NEGOTIATION), (7, 9), (NO_NEGOTIATION, 9), (7, 9)),
            ((NO_NEGOTIATION, 16), (7, 9), (7, NO_NEGOTIATION), (7, 9)),
            ((NO_NEGOTIATION, NO_NEGOTIATION), (7, 9), (NO_NEGOTIATION, NO_NEGOTIATION), (7, 9)),
        ],
    )
    def test_table(
        self, asked_for: tuple[int, int], own: tuple[int, int], answer: tuple[int, int], result: tuple[int, int]
    ) -> None:
        responder = asked(request(enhanced=Enhanced(ird=asked_for[0], ord=asked_for[1])))
        octets, ours = responder.accept(b"", ird=own[0], ord=own[1])
        assert StartupFrame.parse(octets).enhanced == Enhanced(ird=answer[0], ord=answer[1])
        assert (ours.ird, ours.ord) == result
        assert (ours.peer_ird, ours.peer_ord) == asked_for

    @pytest.mark.parametrize("one", [(0, 0), (1, 5), (16, 16), (128, 3)])
    @pytest.mark.parametrize("other", [(0, 0), (5, 1), (16, 8), (3, 128)])
    def test_nobody_may_have_more_outstanding_than_the_other_holds(
        self, one: tuple[int, int], other: tuple[int, int]
    ) -> None:
        ours, theirs = handshake(initiator(ird=one[0], ord=one[1]), Responder(), ird=other[0], ord=other[1])
        assert ours.ord <= theirs.ird <= max(other[0], 0)
        assert theirs.ord <= ours.ird <= max(one[0], 0)


class TestReadyToReceiveOfTheResponder:
    @pytest.mark.parametrize(
        ("requested", "own_ird", "peer_ord", "answered", "ird"),
        [
            ("C", 16, 16, {W}, 16),
            ("D", 16, 16, {R}, 16),
            ("CD", 16, 16, {W, R}, 16),
            ("BCD", 16, 16, {W, R}, 16),
            ("BC", 16, 16, {W}, 16),
            ("BD", 16, 16, {R}, 16),
            ("B", 16, 16, {S}, 16),  # the only thing asked for
            ("", 16, 16, {W}, 16),  # nothing asked for: propose what costs nothing
            ("D", 16, 0, {R}, 1),  # raised, so that the zero-length Read has a slot
            ("CD", 16, 0, {W, R}, 1),
            ("D", 0, 16, {R}, 1),  # nothing else will do
            ("CD", 0, 16, {W}, 0),  # no slot of our own: the Write will do
            ("C", 16, 0, {W}, 0),
        ],
    )
    def test_table(self, requested: str, own_ird: int, peer_ord: int, answered: set[Rtr], ird: int) -> None:
        responder = asked(request(enhanced=p2p(requested, ord=peer_ord)))
        octets, ours = responder.accept(b"", ird=own_ird, ord=16)
        frame = StartupFrame.parse(octets)
        assert frame.enhanced is not None
        assert frame.enhanced.peer_to_peer
        flags = {W: frame.enhanced.rtr_write, R: frame.enhanced.rtr_read, S: frame.enhanced.rtr_send}
        assert {option for option, is_set in flags.items() if is_set} == answered == ours.rtr_options
        assert frame.enhanced.ird == ird == ours.ird
        assert ours.rtr in answered

    def test_write_is_preferred(self) -> None:
        _, ours = asked(request(enhanced=p2p("CD"))).accept(b"", ird=1, ord=1)
        assert ours.rtr is W

    def test_no_negotiation_of_reads_and_a_read_indication(self) -> None:
        octets, ours = asked(request(enhanced=p2p("D", ord=NO_NEGOTIATION))).accept(b"", ird=0, ord=0)
        assert octets[20:22] == bytes.fromhex("bfff")
        assert ours.ird == 1

    def test_a_rejection_answers_a_too(self) -> None:
        frame = StartupFrame.parse(asked(request(enhanced=p2p("CD"))).reject())
        assert frame.enhanced is not None
        assert frame.enhanced.peer_to_peer
        assert frame.enhanced.rtr_write

    @pytest.mark.parametrize("offer", [{W}, {R}, {S}, {W, R}, {W, S}, {R, S}, {W, R, S}], ids=str)
    @pytest.mark.parametrize("ird", [0, 1, 16])
    @pytest.mark.parametrize("ord_", [0, 1, 16])
    def test_our_own_ends_always_find_one(self, offer: set[Rtr], ird: int, ord_: int) -> None:
        ours, theirs = handshake(initiator(ord=ord_, rtr_offer=frozenset(offer)), Responder(), ird=ird, ord=16)
        assert ours.rtr in theirs.rtr_options & offer
        assert theirs.ird >= (1 if ours.rtr is R else 0)
