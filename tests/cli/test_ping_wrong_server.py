"""A `softndk ping` client and a server that does something wrong, by itself or to its data."""

import json
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import pytest

from softndk import NdkError, OpFlag, RemoteToken
from tests.cli.processes import run
from tests.cli.raw_peer import (
    ADVERT,
    ANSWER,
    BYE,
    LEAVE,
    MISMATCH,
    OK,
    WAIT_S,
    Peer,
    fields,
    message,
    welcome,
)


class Run:
    """A run of the client to its end, as JSON and on the error channel."""

    def __init__(self, *options: str, target: str) -> None:
        done = run("ping", target, "--json", *options)
        self.status = done.returncode
        self.found = json.loads(done.stdout)
        self.errors = done.stderr


@contextmanager
def client_of(play: Callable[[Peer], None], *options: str, data: bytes | None = None) -> Iterator[Callable[[], Run]]:
    """A raw server that accepts one client with `data` and then does `play`, in a thread of its own."""
    failures: list[BaseException] = []
    with Peer() as peer:
        listener, target = peer.listen()

        def serve() -> None:
            try:
                peer.accept(listener, welcome() if data is None else data)
                play(peer)
            except BaseException as error:
                failures.append(error)

        thread = threading.Thread(target=serve)
        thread.start()
        yield lambda: Run(*options, target=target)
        thread.join(WAIT_S)
    if failures:
        raise failures[0]


def take_advert(peer: Peer) -> tuple[int, RemoteToken, int]:
    """Number, token and address of the next advert, its data read into the buffer."""
    said, _ = peer.receive()
    kind, _, token, number, address, length, _ = fields(said)
    assert (kind, length) == (ADVERT, 64)
    peer.qp.read(peer.mr[0:64], address, RemoteToken(token))
    peer.results().check()
    return number, RemoteToken(token), address


def answer(peer: Peer, *, spoil: int | None = None, take: bool = True, reason: int = OK, other: int = 0) -> None:
    """Serve one round; `spoil`: flip a bit of that octet of what is written."""
    number, token, address = take_advert(peer)
    turn = 1 + number % 63
    data = bytearray(peer.buffer[turn:64] + peer.buffer[:turn])
    if spoil is not None:
        data[spoil] ^= 1
    peer.qp.write(bytes(data), address + 64, token, flags=OpFlag.SILENT_SUCCESS)
    said = message(ANSWER, number + other, reason, detail=7)
    if take:
        peer.qp.send_and_invalidate(said, token, flags=OpFlag.SILENT_SUCCESS)
    else:
        peer.qp.send(said, flags=OpFlag.SILENT_SUCCESS)


def goodbye(peer: Peer) -> tuple[int, int, int]:
    """Reason, rounds and mismatches of the client's goodbye."""
    said, _ = peer.receive()
    kind, reason, _, rounds, _, _, mismatches = fields(said)
    assert kind == BYE
    assert peer.connector is not None
    peer.connector.disconnect().result(WAIT_S)
    return reason, rounds, mismatches


@pytest.mark.parametrize("place", [0, 1, 30, 62, 63])
def test_one_wrong_octet_of_the_server(place: int) -> None:
    said: list[tuple[int, int, int]] = []

    def play(peer: Peer) -> None:
        answer(peer)
        answer(peer, spoil=place)
        answer(peer)
        said.append(goodbye(peer))

    with client_of(play, "--count", "3") as client:
        done = client()
    assert (done.status, done.found["rounds"], done.found["mismatches"]) == (1, 3, 1)
    assert done.found["end"] == "done"
    assert done.errors == f"round 2: the server wrote wrong data, first at octet {place}\n"
    assert said == [(OK, 3, 1)]


def test_data_that_were_not_written() -> None:
    def play(peer: Peer) -> None:
        number, token, _ = take_advert(peer)
        peer.qp.send_and_invalidate(message(ANSWER, number), token, flags=OpFlag.SILENT_SUCCESS)
        goodbye(peer)

    with client_of(play, "--count", "1") as client:
        done = client()
    assert (done.status, done.found["mismatches"]) == (1, 1)


def test_a_server_that_has_read_wrong_data() -> None:
    def play(peer: Peer) -> None:
        answer(peer, reason=MISMATCH)
        goodbye(peer)

    with client_of(play, "--count", "1") as client:
        done = client()
    assert (done.status, done.found["mismatches"]) == (1, 1)
    assert "round 1: the server read wrong data, first at octet 7" in done.errors


def test_a_server_that_leaves_the_token_alive() -> None:
    def play(peer: Peer) -> None:
        answer(peer, take=False)
        goodbye(peer)

    with client_of(play) as client:
        done = client()
    assert (done.status, done.found["end"], done.found["rounds"]) == (1, "failed", 0)
    assert done.found["error"]["text"] == "round 1: the server has answered without taking the token away"


def test_an_answer_to_another_round() -> None:
    def play(peer: Peer) -> None:
        answer(peer, other=1)
        goodbye(peer)

    with client_of(play) as client:
        done = client()
    assert done.status == 1
    assert "round 1: the server sent ANSWER for round 2" in done.errors


def test_a_server_that_ends_the_test() -> None:
    def play(peer: Peer) -> None:
        answer(peer)
        peer.receive()
        peer.qp.send(message(LEAVE, 1) + b"so much for today")
        goodbye(peer)

    with client_of(play) as client:
        done = client()
    assert (done.status, done.found["rounds"]) == (1, 1)
    assert done.errors == "softndk ping: the server has ended the test: so much for today\n"


def test_control_characters_of_a_server_do_not_reach_the_terminal() -> None:
    def play(peer: Peer) -> None:
        peer.receive()
        peer.qp.send(message(LEAVE, 1) + b"\x1b[2J")
        goodbye(peer)

    with client_of(play) as client:
        done = client()
    assert "octets 1b 5b 32 4a" in done.errors
    assert "\x1b" not in done.errors


def test_a_server_that_disconnects_without_a_word() -> None:
    def play(peer: Peer) -> None:
        answer(peer)
        assert peer.connector is not None
        peer.connector.disconnect().result(WAIT_S)

    with client_of(play) as client:
        done = client()
    assert (done.status, done.found["rounds"]) == (1, 1)
    assert "the server has closed the connection without a word" in done.errors


def test_a_server_that_reads_too_much() -> None:
    """The client's adapter ends the connection and says why."""

    def play(peer: Peer) -> None:
        said, _ = peer.receive()
        _, _, token, _, address, _, _ = fields(said)
        peer.qp.read(peer.mr[0:128], address + 1, RemoteToken(token))
        with pytest.raises(NdkError):
            peer.results().check()

    with client_of(play, "--verbose") as client:
        done = client()
    assert (done.status, done.found["end"]) == (1, "failed")
    assert "the connection to the server is lost" in done.errors
    assert "this side ended the connection with Terminate" in done.errors


@pytest.mark.parametrize(
    ("data", "complaint"),
    [
        (b"", "is not a softndk ping server"),
        (b"rping", "is not a softndk ping server"),
        (welcome(65), "has agreed to 65 octets, 64 were asked"),
    ],
)
def test_what_has_accepted_is_no_ping_server(data: bytes, complaint: str) -> None:
    def play(peer: Peer) -> None:
        assert peer.connector is not None
        peer.connector.disconnected.result(WAIT_S)
        peer.connector.disconnect().result(WAIT_S)

    with client_of(play, data=data) as client:
        done = client()
    assert (done.status, done.found["end"], done.found["rounds"]) == (1, "failed", 0)
    assert complaint in done.errors


@pytest.mark.parametrize(
    ("reason", "shown"),
    [
        (b"not today", "has refused: not today\n"),
        (
            "h\N{LATIN SMALL LETTER O WITH DIAERESIS}chstens".encode(),
            "has refused: h\N{LATIN SMALL LETTER O WITH DIAERESIS}chstens\n",
        ),
        (b"\x1b[31mred", "has refused: octets 1b 5b 33 31 6d 72 65 64\n"),
        (b"\xff\x00", "has refused: octets ff 00\n"),
        (b"x" * 500, f"has refused: {'x' * 200}\n"),
    ],
)
def test_the_reason_of_a_refusal_is_shown(reason: bytes, shown: str) -> None:
    with Peer() as peer:
        listener, target = peer.listen()

        def refuse() -> None:
            connector = listener.next_request().result(WAIT_S)
            connector.reject(reason)
            connector.close()

        thread = threading.Thread(target=refuse)
        thread.start()
        done = Run(target=target)
        thread.join(WAIT_S)
    assert done.status == 1
    assert done.errors == f"softndk ping: {target} {shown}"
    assert done.found["error"]["text"] == f"{target} {shown.strip()}"
