"""`softndk ping` against a peer that does something wrong, by itself or to its data."""

import json
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import pytest

from softndk import NdkError, OpFlag, Refused, RemoteToken
from softndk.cli.ping_protocol import Pattern
from tests.cli.processes import Process, run, server
from tests.cli.raw_peer import (
    ADVERT,
    ANSWER,
    BYE,
    INTERRUPTED,
    LEAVE,
    MISMATCH,
    OK,
    SEED,
    WAIT_S,
    Peer,
    fields,
    hello,
    message,
    welcome,
)

PATTERN = Pattern(64, SEED)


# ---- a real server, a wrong client


@pytest.fixture(scope="module")
def shared() -> Iterator[tuple[Process, str]]:
    """One server for all wrong clients; in the end it must still serve a right one."""
    with server("--max-size", "4k") as both:
        yield both
        assert run("ping", both[1]).returncode == 0


def one_round(client: Peer, number: int, data: bytes) -> tuple[int, int]:
    """Reason and detail of the answer."""
    client.buffer[:64] = data
    client.advertise(number)
    answer, result = client.receive()
    kind, reason, _, told, _, _, detail = fields(answer)
    assert (kind, told, result.invalidated_token) == (ANSWER, number, client.window.remote_token)
    return reason, detail


def test_a_client_that_keeps_to_the_protocol(shared: tuple[Process, str]) -> None:
    """What the other tests vary: the data are those of the seed, and come back turned round."""
    with Peer() as client:
        client.connect(shared[1], hello())
        for number in (1, 2, 3):
            data, turn = bytes(PATTERN.data(number)), PATTERN.turn(number)
            assert one_round(client, number, data) == (OK, 0)
            assert client.buffer[64:] == data[turn:] + data[:turn]
        client.qp.send(message(BYE, 3))
        assert client.connector is not None
        client.connector.disconnect().result(WAIT_S)
    shared[0].wait_for("the client has finished; 3 rounds of 64 octets, no mismatch")


@pytest.mark.parametrize("place", [0, 1, 31, 62, 63])
def test_one_wrong_octet_of_the_client(place: int) -> None:
    with server("--once", "--json") as (process, target):
        with Peer() as client:
            client.connect(target, hello())
            assert one_round(client, 1, bytes(PATTERN.data(1))) == (OK, 0)
            data = bytearray(PATTERN.data(2))
            data[place] ^= 0x40
            assert one_round(client, 2, bytes(data)) == (MISMATCH, place)
            assert one_round(client, 3, bytes(PATTERN.data(3))) == (OK, 0)
            client.qp.send(message(BYE, 3, detail=1))
            assert client.connector is not None
            client.connector.disconnect().result(WAIT_S)
        assert process.end() == 1
        found = process.result()
    assert (found["rounds"], found["mismatches"], found["failed"]) == (3, 1, 0)


def test_data_of_the_round_before_are_wrong_data(shared: tuple[Process, str]) -> None:
    with Peer() as client:
        client.connect(shared[1], hello())
        assert one_round(client, 1, bytes(PATTERN.data(1))) == (OK, 0)
        assert one_round(client, 2, bytes(PATTERN.data(1)))[0] == MISMATCH
    shared[0].wait_for("round 2: the client's data are wrong")


def test_mismatches_that_the_client_has_found_count() -> None:
    with server("--once", "--json") as (process, target):
        with Peer() as client:
            client.connect(target, hello())
            assert one_round(client, 1, bytes(PATTERN.data(1))) == (OK, 0)
            client.qp.send(message(BYE, 1, INTERRUPTED, detail=1 << 60))
            assert client.connector is not None
            client.connector.disconnect().result(WAIT_S)
        assert process.end() == 1
        found = process.result()
    assert found["mismatches"] == 1
    assert found["sessions"][0]["end"] == "left"


@pytest.mark.parametrize(
    ("private_data", "complaint"),
    [
        (b"", "0 octets of private data"),
        (b"rping", "5 octets of private data"),
        (hello(magic=b"softndk ping v2\n"), "not those of softndk ping version 1"),
        (hello(size=0), "size 0, must be 1 to"),
        (hello(size=4097), "size 4097 is over this server's limit of 4096"),
        (hello(size=1 << 30), "size 1073741824, must be 1 to"),
        (hello(size=(1 << 64) - 1), "size 18446744073709551615, must be 1 to"),
        (hello()[:47], "47 octets of private data"),
    ],
)
def test_a_wrong_hello_is_refused_with_a_reason(
    shared: tuple[Process, str], private_data: bytes, complaint: str
) -> None:
    with Peer() as client:
        with pytest.raises(Refused) as refusal:
            client.connect(shared[1], private_data)
        assert refusal.value.private_data is not None
        assert complaint in refusal.value.private_data.decode()
    shared[0].wait_for(f"refused: {complaint}" if complaint[0] != "n" else complaint)


def raw(client: Peer, data: bytes) -> None:
    client.qp.send(data)


WRONG: dict[str, tuple[Callable[[Peer], None], str]] = {
    "other round": (lambda client: client.advertise(2), "round 2, expected 1"),
    "round 0": (lambda client: client.advertise(0), "round 0, expected 1"),
    "length": (lambda client: raw(client, message(ADVERT, 1, length=65)), "lends 65 octets, agreed are 64"),
    "length 0": (lambda client: raw(client, message(ADVERT, 1)), "lends 0 octets, agreed are 64"),
    "address": (
        lambda client: raw(client, message(ADVERT, 1, address=(1 << 64) - 127, length=64)),
        "beyond the last address",
    ),
    "an answer": (lambda client: raw(client, message(ANSWER, 1)), "ANSWER is not for a client"),
    "unknown kind": (lambda client: raw(client, message(77, 1)), "unknown number"),
    "unknown reason": (lambda client: raw(client, message(BYE, 1, 99)), "unknown number"),
    "empty": (lambda client: raw(client, b""), "a message of 0 octets"),
    "short": (lambda client: raw(client, message(ADVERT, 1)[:63]), "a message of 63 octets"),
    "other protocol": (lambda client: raw(client, b"GET / HTTP/1.1\r\n" * 4), "a message begins with"),
}


@pytest.mark.parametrize("name", WRONG)
def test_a_wrong_message_ends_the_session_with_a_reason(shared: tuple[Process, str], name: str) -> None:
    act, complaint = WRONG[name]
    with Peer() as client:
        client.connect(shared[1], hello())
        act(client)
        said, _ = client.receive()
        assert fields(said)[0] == LEAVE
        assert complaint in said[64:].decode()
    told = shared[0].wait_for(complaint)
    assert "the client does not keep to the protocol" in told


def test_a_token_that_is_none(shared: tuple[Process, str]) -> None:
    """The client's adapter refuses the server's read and ends the connection; the server tells why and goes on."""
    with Peer() as client:
        client.connect(shared[1], hello())
        client.qp.send(message(ADVERT, 1, token=0x12345678, address=client.mr.address, length=64))
        assert client.connector is not None
        assert not client.connector.disconnected.result(WAIT_S).graceful
    shared[0].wait_for("the connection to the client is lost")


def test_a_message_too_long_for_the_server(shared: tuple[Process, str]) -> None:
    with Peer() as client:
        client.connect(shared[1], hello())
        client.qp.send(b"x" * 257)
        assert client.connector is not None
        assert not client.connector.disconnected.result(WAIT_S).graceful
    shared[0].wait_for("the connection to the client is lost")


def test_a_client_that_never_lends_leaves_room_for_others() -> None:
    """Only so many clients are served at once; the next is told so."""
    with server() as (_, target):
        peers = [Peer() for _ in range(16)]
        try:
            for peer in peers:
                peer.connect(target, hello())
            with Peer() as late:
                with pytest.raises(Refused) as refusal:
                    late.connect(target, hello())
                assert refusal.value.private_data == b"busy: 16 clients are being served"
        finally:
            for peer in peers:
                peer.adapter.__exit__(None, None, None)


def test_once_refuses_a_second_client() -> None:
    with server("--once") as (process, target), Peer() as first, Peer() as second:
        first.connect(target, hello())
        with pytest.raises(Refused) as refusal:
            second.connect(target, hello())
        assert refusal.value.private_data == b"this server serves one client only, and has it"
        first.qp.send(message(BYE, 0))
        assert first.connector is not None
        first.connector.disconnect().result(WAIT_S)
        assert process.end() == 0


def test_once_goes_on_waiting_after_a_refusal() -> None:
    with server("--once") as (process, target):
        with Peer() as wrong, pytest.raises(Refused):
            wrong.connect(target, b"wrong")
        assert run("ping", target).returncode == 0
        assert process.end() == 0
        assert "1 client, 1 refused, 0 failed" in process.lines


# ---- a real client, a wrong server


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
