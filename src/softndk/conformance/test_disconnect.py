"""The end of a connection: graceful on both sides, or not."""

import threading

import pytest

from softndk import Connector, Disconnect, InvalidHandle, IoTimeout, NdkError, OpFlag, Pending, Status
from softndk.conformance.bench import (
    PATIENCE_S,
    Bench,
    Pair,
    callbacks_have_run,
    contexts,
    ended,
    failure,
    statuses,
    succeed,
    take,
)
from softndk.conformance.providers import Feature, Side


def disconnect_both(both: Pair) -> list[Pending[None]]:
    """Start at the first end, go on at the other when it has heard of it; wait for both."""
    first = both.a.connector.disconnect()
    assert ended(both.b).graceful
    second = both.b.connector.disconnect()
    for pending in (first, second):
        pending.result(PATIENCE_S)
    return [first, second]


def told_pair(bench: Bench) -> tuple[Pair, dict[Connector, list[Disconnect]]]:
    """A pair, and what the disconnect callbacks of both sides were told."""
    a, b = bench.end(), bench.end(side=Side.PASSIVE)
    told: dict[Connector, list[Disconnect]] = {}

    def note(connector: Connector, how: Disconnect) -> None:
        told.setdefault(connector, []).append(how)

    listener = b.adapter.listen()
    connecting = a.adapter.connect(a.qp, listener.local_address, on_disconnect=note)
    incoming = listener.next_request().result(PATIENCE_S)
    accepting = incoming.accept(b.qp, on_disconnect=note)
    a._connector, b._connector = connecting.result(PATIENCE_S), incoming
    accepting.result(PATIENCE_S)
    return Pair(a, b), told


@pytest.mark.rules("R-DISC-1", "R-DISC-2", "R-DISC-4", "R-DISC-7", "R-DEV-1", "R-DEV-2", "A-19")
@pytest.mark.parametrize("first", list(Side))
def test_a_graceful_end_takes_both_sides(bench: Bench, first: Side) -> None:
    pair, told = told_pair(bench)
    one, other = pair if first is Side.ACTIVE else pair[::-1]
    disconnecting = one.connector.disconnect()
    assert ended(other) == Disconnect(graceful=True, provider_reason=ended(other).provider_reason, error=None)
    assert not disconnecting.done()
    other.connector.disconnect().result(PATIENCE_S)
    disconnecting.result(PATIENCE_S)
    for end in pair:
        callbacks_have_run(end.adapter)
    assert list(told) == [other.connector]
    assert [how.graceful for how in told[other.connector]] == [True]


@pytest.mark.rules("R-DISC-2", "R-DISC-7")
def test_a_disconnect_ends_when_the_peer_closes(both: Pair) -> None:
    disconnecting = both.a.connector.disconnect()
    assert ended(both.b).graceful
    both.b.connector.close().result(PATIENCE_S)
    disconnecting.result(PATIENCE_S)


@pytest.mark.rules("R-DISC-2", "R-DISC-1")
def test_both_sides_may_disconnect_at_the_same_time(bench: Bench) -> None:
    pair, told = told_pair(bench)
    for pending in [end.connector.disconnect() for end in pair]:
        pending.result(PATIENCE_S)
    for end in pair:
        callbacks_have_run(end.adapter)
    assert not any(how.error for hows in told.values() for how in hows)


@pytest.mark.rules("R-DISC-2", "R-COMP-5", "R-DISC-1")
def test_a_disconnect_is_done_when_everything_that_was_posted_is(both: Pair) -> None:
    """Silent requests too; the peer has every octet before it hears of the end."""
    a, b = both
    count = 30
    for number in range(count):
        b.qp.receive(b.mr[number * 200 : number * 200 + 200], context=number)
    a.fill(b"z" * 200)
    for _ in range(count):
        a.qp.send(a.mr[0:200], flags=OpFlag.SILENT_SUCCESS)
    a.qp.read(a.mr[4096:8192], b.mr.address, b.mr.remote_token, context="read")
    disconnecting = a.connector.disconnect()
    assert contexts(succeed(b.cq, count)) == list(range(count))
    assert ended(b).graceful
    b.connector.disconnect().result(PATIENCE_S)
    disconnecting.result(PATIENCE_S)
    assert contexts(a.cq.get_results()) == ["read"]


@pytest.mark.rules("R-DISC-3", "R-FLUSH-5", "R-COMP-2")
def test_after_the_disconnect_the_queue_pair_is_flushed(both: Pair) -> None:
    for end in both:
        end.qp.receive(end.mr[0:8], context="left")
    disconnect_both(both)
    for end in both:
        results = take(end.cq, 1)
        assert (contexts(results), statuses(results)) == (["left"], [Status.CANCELLED])


@pytest.mark.rules("R-DISC-4", "R-WR-3", "A-3")
def test_after_the_disconnect_nothing_goes_in_either_direction(both: Pair) -> None:
    disconnect_both(both)
    for end, other in (both, both[::-1]):
        with pytest.raises(NdkError) as caught:
            end.qp.write([], 0, other.mr.remote_token)
        assert caught.value.status is Status.CONNECTION_INVALID
        assert failure(end.connector.disconnect()).status is Status.CONNECTION_INVALID


@pytest.mark.rules("R-DEV-4", "R-FLUSH-6", "R-DISC-7", "A-2")
def test_after_the_peers_notice_this_side_may_still_send(both: Pair, bench: Bench) -> None:
    a, b = both
    if bench.provider.choices.notice_flushes:
        pytest.skip("the provider flushes for the peer's notice, which decision A-2 leaves open")
    a.qp.receive(a.mr[0:16])
    disconnecting = a.connector.disconnect()
    assert ended(b).graceful
    b.qp.send(b"one more thing")
    (result,) = succeed(a.cq)
    assert result.bytes_transferred == 14
    b.connector.disconnect().result(PATIENCE_S)
    disconnecting.result(PATIENCE_S)


@pytest.mark.rules("R-DEV-1", "A-2", "R-IW-2")
@pytest.mark.parametrize("how", ["flush", "reset", "bad access"])
def test_a_failure_is_told_once_with_its_reason(bench: Bench, how: str) -> None:
    pair, told = told_pair(bench)
    a, b = pair
    for end in pair:
        end.qp.receive(end.mr[0:8], context="posted")
    if how == "flush":
        b.qp.flush()
    elif how == "reset":
        bench.lose(b)
    else:
        b.qp.read(b.mr[0:8], a.mr.address, type(a.mr.remote_token)(0))
    how_it_ended = ended(a)
    assert not how_it_ended.graceful
    assert how_it_ended.error is not None
    assert str(how_it_ended.error)
    assert contexts([result for result in take(a.cq, 1) if result.status is Status.CANCELLED]) == ["posted"]
    callbacks_have_run(a.adapter)
    assert [item.graceful for item in told[a.connector]] == [False]


@pytest.mark.rules("R-DEV-5")
@pytest.mark.requires(Feature.PROVIDER_CODES)
def test_the_reason_of_the_end_is_a_number(bench: Bench) -> None:
    pair, _ = told_pair(bench)
    pair.b.qp.flush()
    reason = ended(pair.a).provider_reason
    assert 0 <= reason < 1 << 32


@pytest.mark.rules("R-DEV-1", "R-DEV-2", "A-19")
def test_no_event_for_the_own_disconnect_or_close(bench: Bench) -> None:
    for own in ("disconnect", "close"):
        pair, told = told_pair(bench)
        a, b = pair
        pending = a.connector.disconnect() if own == "disconnect" else a.connector.close()
        assert ended(b).graceful
        b.connector.close().result(PATIENCE_S)
        pending.result(PATIENCE_S)
        callbacks_have_run(a.adapter)
        assert a.connector not in told
        if own == "close":
            assert isinstance(a.connector.disconnected.exception(PATIENCE_S), InvalidHandle)


@pytest.mark.rules("R-DEV-6")
def test_the_event_comes_after_the_request_that_registered_it(bench: Bench) -> None:
    """The peer closes as soon as it is connected; the order is the same every time."""
    for _ in range(10):
        a, b = bench.end(), bench.end(side=Side.PASSIVE)
        order: list[str] = []
        done = threading.Event()
        listener = b.adapter.listen()
        connecting = a.adapter.connect(a.qp, listener.local_address)
        incoming = listener.next_request().result(PATIENCE_S)

        def on_disconnect(*_: object, order: list[str] = order, done: threading.Event = done) -> None:
            order.append("event")
            done.set()

        def on_accepted(_: Pending[None], order: list[str] = order) -> None:
            order.append("accepted")

        accepting = incoming.accept(b.qp, on_disconnect=on_disconnect)
        accepting.add_done_callback(on_accepted)
        connecting.result(PATIENCE_S).close()
        assert done.wait(PATIENCE_S)
        assert order == ["accepted", "event"]
        listener.close()


@pytest.mark.rules("A-14", "R-DISC-2", "A-19")
def test_a_disconnect_that_the_peer_answers_by_a_failure_is_aborted(bench: Bench) -> None:
    """The failure goes to the request, not into an event (A-19)."""
    (a, b), told = told_pair(bench)
    disconnecting = a.connector.disconnect()
    assert ended(b).graceful
    bench.lose(b)
    assert failure(disconnecting).status is Status.CONNECTION_ABORTED
    callbacks_have_run(a.adapter)
    assert a.connector not in told


@pytest.mark.rules("R-DEV-1", "A-2")
def test_a_failure_after_the_peers_notice_is_no_second_event(bench: Bench) -> None:
    (a, b), told = told_pair(bench)
    b.qp.receive(b.mr[0:8], context="posted")
    a.connector.disconnect()
    assert ended(b).graceful
    bench.lose(a)
    b.qp.read(b.mr[0:8], a.mr.address, a.mr.remote_token, context="read")
    assert {*contexts(take(b.cq, 2))} == {"posted", "read"}
    callbacks_have_run(b.adapter)
    assert [how.graceful for how in told[b.connector]] == [True]


@pytest.mark.rules("A-14", "R-TIME-1", "R-DISC-2")
def test_a_disconnect_that_the_peer_does_not_answer_times_out(bench: Bench) -> None:
    a, b = bench.connect(bench.end(bench.adapter(hurry=True)), bench.end(side=Side.PASSIVE))
    a.qp.receive(a.mr[0:8], context="left")
    error = failure(a.connector.disconnect())
    assert (type(error), error.status) == (IoTimeout, Status.IO_TIMEOUT)
    assert contexts(take(a.cq, 1)) == ["left"]
    assert ended(b).graceful


@pytest.mark.rules("R-DISC-5")
def test_a_second_disconnect_is_refused(both: Pair) -> None:
    first = both.a.connector.disconnect()
    assert failure(both.a.connector.disconnect()).status is Status.CONNECTION_INVALID
    both.b.connector.close()
    first.result(PATIENCE_S)
