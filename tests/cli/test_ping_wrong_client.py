"""A `softndk ping` server and a client that does something wrong, by itself or to its data."""

from collections.abc import Callable, Iterator

import pytest

from softndk import Refused
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
)

PATTERN = Pattern(64, SEED)


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
