"""Stacks that are wrong in one way each are told apart from right ones, with the reason."""

import socket
import struct

import pytest

from softndk.peer import Outcome, Peer, Role, Verdict, play, scenario
from softndk.peer.reactions import Kind
from softndk.wire.terminate import Terminate
from tests.peer.ends import accept, harmless, judged, stack, wrong_msn

INVALID_MSN = {"layer": 1, "type": 2, "code": 3}


def about_the_send(**code: int) -> bytes:
    """The body of a Terminate that returns the header of `wrong_msn`'s Send."""
    header = bytes.fromhex("4143 00000000 00000000 00000007 00000000")
    return Terminate(code["layer"], code["type"], code["code"], 23, header).emit()


def answer(peer: Peer, body: bytes) -> None:
    """Refuse the next Send, and close when the other side has."""
    accept(peer)
    peer.expect("send")
    peer.terminate(body=body)
    peer.fin()
    peer.wait_for_end()


def test_a_right_stack() -> None:
    outcome = judged(wrong_msn, lambda peer: answer(peer, about_the_send(**INVALID_MSN)))
    assert (outcome.verdict, outcome.text) == (Verdict.REQUIRED, "Terminate 1/2/3")
    assert outcome.good


def test_another_code() -> None:
    outcome = judged(wrong_msn, lambda peer: answer(peer, about_the_send(layer=1, type=2, code=1)))
    assert outcome.verdict is Verdict.DIFFERENT
    assert not outcome.good
    assert outcome.text == (
        "got terminate 1/2/1 (DDP untagged buffer error: invalid QN); RFC 5041 8.2 says terminate 1/2/3"
    )


def test_no_terminate() -> None:
    """Closed without a word: the scenario allows it, and says why."""

    def behave(peer: Peer) -> None:
        accept(peer)
        peer.expect("send")

    outcome = judged(wrong_msn, behave)
    assert (outcome.verdict, outcome.text) == (Verdict.ALLOWED, "closed TCP: quiet")


def test_a_reset_is_not_a_close() -> None:
    def behave(peer: Peer) -> None:
        accept(peer)
        peer.expect("send")
        peer.reset()

    with socket.create_server(("127.0.0.1", 0)) as listener, socket.create_connection(listener.getsockname()) as ours:
        theirs, _ = listener.accept()
        theirs.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        theirs.close()
        outcome = play(wrong_msn, ours, Role.INITIATOR)
    assert outcome.reaction.kind is Kind.UNREACHED
    assert "reset TCP before the step that matters" in outcome.text


def test_silence() -> None:
    """It takes the wrong Send as if nothing had happened."""

    def behave(peer: Peer) -> None:
        accept(peer)
        peer.wait_for_end()

    outcome = judged(wrong_msn, behave, timeout_s=0.5)
    assert outcome.verdict is Verdict.DIFFERENT
    assert outcome.text.startswith("got no reaction within 0.5 s; RFC 5041 8.2 says")


def test_silence_with_words() -> None:
    """What it does instead of a reaction is told."""

    def behave(peer: Peer) -> None:
        accept(peer)
        peer.expect("send")
        peer.send(b"welcome")
        peer.wait_for_end()

    outcome = judged(wrong_msn, behave, timeout_s=0.5)
    assert "it sent Send" in outcome.text


def test_a_scrambled_terminate() -> None:
    """The code is right, its octets are siw's."""
    body = bytearray(about_the_send(**INVALID_MSN))
    body[0] = 0x21
    body[2] = 0x03
    outcome = judged(wrong_msn, lambda peer: answer(peer, bytes(body)))
    assert outcome.verdict is Verdict.OTHER_FORM
    assert outcome.reaction.code == (1, 2, 3)
    assert "exchanged order" in outcome.text


@pytest.mark.parametrize("code", [4, 5, 6, 7])
def test_a_scrambled_terminate_without_headers(code: int) -> None:
    """0/2/6 in exchanged nibbles reads as 2/0/6, insufficient IRD: not what can come behind the start-up."""
    outcome = judged(wrong_msn, lambda peer: answer(peer, bytes([0x20, code, 0, 0])))
    expected = (0, 2, code) if code != 4 else (2, 0, 4)  # 0/2/4 is no code
    assert outcome.reaction.code == expected
    assert codes_shown(outcome) == [expected]


def test_a_scrambled_terminate_of_the_start_up() -> None:
    """2/0/6 in exchanged nibbles reads as 0/2/6, unexpected opcode: there has been no opcode."""

    @scenario(title="t", rule="r", required="terminate 2/0/6", roles="responder")
    def too_many_reads(peer: Peer) -> None:
        peer.expect("mpa_request")
        peer.mpa_reply(ord=16000)

    def behave(peer: Peer) -> None:
        peer.role = Role.INITIATOR
        peer.mpa_request()
        peer.expect("mpa_reply")
        peer.terminate(body=bytes([0x02, 6, 0, 0]))

    with stack(behave) as sock:
        outcome = play(too_many_reads, sock, Role.RESPONDER, timeout_s=10.0)
    assert outcome.reaction.code == (2, 0, 6)
    assert outcome.verdict is Verdict.OTHER_FORM
    assert codes_shown(outcome) == [(2, 0, 6)]


def codes_shown(outcome: Outcome) -> list[tuple[object, ...]]:
    """The codes of the Terminates among the frames that are shown."""
    frames = [seen.details for seen in outcome.story if seen.frame == "terminate"]
    return [(details["layer"], details["type"], details["code"]) for details in frames]


def test_a_terminate_without_the_header() -> None:
    outcome = judged(wrong_msn, lambda peer: answer(peer, bytes([0x12, 3, 0, 0])))
    assert outcome.verdict is Verdict.OTHER_FORM
    assert outcome.form == ("the header of the refused segment is not returned (RFC 5040 4.8)",)


def test_a_terminate_about_something_else() -> None:
    body = Terminate(1, 2, 3, 18, bytes.fromhex("4143 00000000 00000000 00000009 00000000")).emit()
    outcome = judged(wrong_msn, lambda peer: answer(peer, body))
    assert outcome.form == ("the returned DDP header has another MSN than was sent (RFC 5040 4.8)",)


def test_a_terminate_with_a_wrong_number() -> None:
    def behave(peer: Peer) -> None:
        accept(peer)
        peer.expect("send")
        peer.terminate(body=about_the_send(**INVALID_MSN), msn=2)

    assert "MSN 2" in judged(wrong_msn, behave).text


def test_more_behind_a_terminate() -> None:
    def behave(peer: Peer) -> None:
        accept(peer)
        peer.expect("send")
        with peer.together():
            peer.terminate(body=about_the_send(**INVALID_MSN))
            peer.write()
            peer.write()

    assert judged(wrong_msn, behave).notes == ("2 more FPDUs came behind its Terminate",)


def test_a_stack_that_never_closes() -> None:
    def behave(peer: Peer) -> None:
        accept(peer)
        peer.expect("send")
        peer.terminate(body=about_the_send(**INVALID_MSN))
        peer.wait_for_end()

    outcome = judged(wrong_msn, behave, timeout_s=1.0)
    assert outcome.verdict is Verdict.REQUIRED
    [note] = outcome.notes
    assert note.startswith("TCP still open ")


def test_bad_crcs_from_the_other_side() -> None:
    def behave(peer: Peer) -> None:
        accept(peer)
        peer.write()
        peer.read_response(b"", bad_crc=True)
        peer.wait_for_end()

    outcome = judged(harmless, behave)
    assert outcome.reaction.kind is Kind.GARBAGE
    assert outcome.verdict is Verdict.DIFFERENT
    assert "received, 0x" in outcome.text


def test_no_crcs_from_the_other_side() -> None:
    """C is set, and its FPDUs have zeros there."""

    def behave(peer: Peer) -> None:
        peer.expect("mpa_request")
        peer.mpa_reply()
        asked = peer.expect("read_request")
        peer.raw(bytes.fromhex("000e c142") + struct.pack(">IQI", asked.number("sink_stag"), 0x2000, 0))
        peer.wait_for_end()

    outcome = judged(harmless, behave)
    assert outcome.verdict is Verdict.OTHER_FORM
    assert outcome.form == ("its FPDUs have no CRC, although one side has asked for it (RFC 5044 7.1.1)",)


def test_octets_that_are_no_mpa() -> None:
    outcome = judged(wrong_msn, lambda peer: peer.raw(b"HTTP/1.1 400 Bad Request\r\n\r\n"))
    assert outcome.reaction.kind in (Kind.UNREACHED, Kind.GARBAGE)
    assert not outcome.good
    assert "no MPA frame" in outcome.text


def test_an_echo_service() -> None:
    """It sends our own Request back; what it does with a wrong Send says nothing about iWARP."""
    outcome = judged(wrong_msn, lambda peer: peer.mpa_request())
    assert outcome.verdict is Verdict.UNREACHED
    assert outcome.text == (
        "the other side sent octets that cannot be read: an MPA Request where a Reply is due"
        " before the step that matters"
    )


def test_a_rejection() -> None:
    def behave(peer: Peer) -> None:
        peer.expect("mpa_request")
        peer.mpa_reply(reject=True)

    outcome = judged(harmless, behave)
    assert outcome.verdict is Verdict.DIFFERENT
    assert "an MPA Reply that rejects" in outcome.text
    assert judged(wrong_msn, behave).verdict is Verdict.UNREACHED


def test_a_wrong_answer_is_no_answer() -> None:
    """A zero-length read that is answered with octets, to another sink."""

    def behave(peer: Peer) -> None:
        accept(peer)
        peer.expect("read_request")
        peer.read_response(b"octets", stag=0x99)
        peer.wait_for_end()

    outcome = judged(harmless, behave, timeout_s=0.5)
    assert outcome.verdict is Verdict.DIFFERENT
    assert "no read_response" in outcome.text


def test_a_flood_is_bounded() -> None:
    """Of frames without end the newest are kept, and the time limit holds."""

    def behave(peer: Peer) -> None:
        accept(peer)
        while True:
            with peer.together():
                for _ in range(100):
                    peer.write()

    with stack(behave) as sock:
        outcome = play(harmless, sock, Role.INITIATOR, timeout_s=1.0)
    assert outcome.verdict is Verdict.DIFFERENT
    assert len(outcome.story) <= 512
    assert outcome.seconds < 15


def test_octets_without_a_start_up_are_bounded() -> None:
    """As responder, before we have replied, nothing can be cut; what comes is refused at a limit."""

    @scenario(title="t", rule="r", required="close", roles="responder")
    def waiting(peer: Peer) -> None:
        peer.expect("send")

    def flood(peer: Peer) -> None:
        peer.role = Role.INITIATOR
        peer.mpa_request()
        while True:
            peer.raw(bytes(1 << 16))

    with stack(flood) as sock:
        outcome = play(waiting, sock, Role.RESPONDER, timeout_s=10.0)
    assert "before the start-up is complete" in outcome.text
