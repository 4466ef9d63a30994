"""Waiting for messages, for results, and for the end of the connection, and what is said of it."""

import time
from collections.abc import Iterator

import pytest

from softndk import Aborted, NdkError, OpFlag, open_adapter
from softndk.cli.interrupt import Interrupt
from softndk.cli.ping_endpoint import Endpoint, Interrupted, PeerLeft, PingFailed, ProtocolBroken, until_done
from softndk.cli.ping_protocol import Kind, Message

WAIT_S = 10.0
FAILED = Aborted("whatever the request says")


@pytest.fixture
def ends() -> Iterator[tuple[Endpoint, Endpoint]]:
    """Two connected ends: the one under test, and its peer. Neither has `peer_has_gone` as its callback."""
    with open_adapter() as one, open_adapter() as two, one.listen() as listener:
        mine, other = Endpoint(one, 64, Interrupt(), "the peer"), Endpoint(two, 64, Interrupt(), "me")
        connecting = two.connect(other.qp, listener.local_address)
        mine.connector = listener.next_request().result(WAIT_S)
        accepting = mine.connector.accept(mine.qp)
        other.connector = connecting.result(WAIT_S)
        accepting.result(WAIT_S)
        yield mine, other


def ended(end: Endpoint) -> None:
    assert end.connector is not None
    end.connector.disconnected.result(WAIT_S)


def leave(end: Endpoint) -> None:
    assert end.connector is not None
    end.connector.disconnect()


def test_messages_come_in_order(ends: tuple[Endpoint, Endpoint]) -> None:
    mine, other = ends
    for number in range(20):
        other.send(Message(Kind.BYE, number))
        assert mine.next_message(WAIT_S, "test")[0].round == number


def test_a_message_before_a_result_is_kept(ends: tuple[Endpoint, Endpoint]) -> None:
    mine, other = ends
    other.send(Message(Kind.BYE, 7))
    window = mine.pd.create_mw()
    mine.qp.bind(mine.mr, window, flags=OpFlag.ALLOW_REMOTE_READ, context="bound")
    assert mine.next_result(WAIT_S, "test").request_context == "bound"
    assert mine.next_message(WAIT_S, "test")[0].round == 7


def test_what_does_not_come_is_told_with_its_name(ends: tuple[Endpoint, Endpoint]) -> None:
    with pytest.raises(PingFailed, match=r"^round 5: nothing within 0\.01 s$"):
        ends[0].next_message(0.01, "round 5")


def test_sleep_passes_the_time(ends: tuple[Endpoint, Endpoint]) -> None:
    begin = time.monotonic()
    assert ends[0].sleep(0.05) is None
    assert time.monotonic() - begin >= 0.05


def test_sleep_ends_with_a_message(ends: tuple[Endpoint, Endpoint]) -> None:
    mine, other = ends
    other.send(Message(Kind.LEAVE, text="enough"))
    message = mine.sleep(WAIT_S)
    assert message is not None
    assert message.text == "enough"


def test_an_interruption_ends_every_wait(ends: tuple[Endpoint, Endpoint]) -> None:
    mine, _ = ends
    mine.stop.requested = True
    for wait in (mine.next_message, mine.next_result):
        with pytest.raises(Interrupted):
            wait(WAIT_S, "test")
    with pytest.raises(Interrupted):
        mine.sleep(WAIT_S)
    assert mine.connector is not None
    with pytest.raises(Interrupted):
        until_done(mine.connector.disconnected, mine.stop, WAIT_S, "test")


def test_what_has_come_is_taken_before_an_interruption(ends: tuple[Endpoint, Endpoint]) -> None:
    mine, other = ends
    mine.stop.requested = True
    other.send(Message(Kind.BYE, 3))
    assert mine.next_message(WAIT_S, "test")[0].round == 3


def test_no_message_of_the_protocol(ends: tuple[Endpoint, Endpoint]) -> None:
    mine, other = ends
    other.qp.send(b"hello")
    with pytest.raises(ProtocolBroken, match="the peer does not keep to the protocol: a message of 5 octets"):
        mine.next_message(WAIT_S, "test")


def test_an_end_without_a_goodbye(ends: tuple[Endpoint, Endpoint]) -> None:
    mine, other = ends
    leave(other)
    ended(mine)
    assert "the peer has closed the connection without a word" in str(mine.lost(FAILED))


@pytest.mark.parametrize("kind", [Kind.BYE, Kind.LEAVE])
def test_a_goodbye_that_nobody_has_read_yet_is_the_reason(ends: tuple[Endpoint, Endpoint], kind: Kind) -> None:
    mine, other = ends
    other.send(Message(kind, text="closing time"))
    leave(other)
    ended(mine)
    failure = mine.lost(FAILED)
    assert isinstance(failure, PeerLeft)
    assert (failure.message.kind, failure.message.text) == (kind, "closing time")
    assert str(failure) == "the peer has ended the test: closing time"


def test_another_last_message_is_no_goodbye(ends: tuple[Endpoint, Endpoint]) -> None:
    mine, other = ends
    other.send(Message(Kind.ANSWER))
    leave(other)
    ended(mine)
    assert not isinstance(mine.lost(FAILED), PeerLeft)


def test_a_broken_connection_is_explained(ends: tuple[Endpoint, Endpoint]) -> None:
    mine, other = ends
    other.qp.flush()
    with pytest.raises(PingFailed, match="the connection to the peer is lost") as told:
        mine.next_message(WAIT_S, "test")
    cause = told.value.__cause__
    assert isinstance(cause, NdkError)
    assert str(told.value).endswith(str(cause))
    assert told.value.explain().startswith(str(told.value))


def test_a_goodbye_to_nobody_does_no_harm(ends: tuple[Endpoint, Endpoint]) -> None:
    mine, other = ends
    other.qp.flush()
    ended(mine)
    mine.say_goodbye(Message(Kind.LEAVE))
    mine.hang_up()
