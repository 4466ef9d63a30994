"""Attacks on queues: flushes at odd moments, overruns of shared queues, limits reached to the last entry, huge floods."""

import threading
from typing import Any

import pytest

from softndk import (
    Aborted,
    BufferOverflow,
    ConnectionInvalid,
    CqNotify,
    IwarpConfig,
    NdkError,
    OperationType,
    Qp,
    QueueFull,
    Refused,
    RequestCancelled,
    Result,
    Status,
    open_adapter,
)
from softndk.drivers.tcp import TcpStream
from softndk.testing import pair
from tests.attack.attack_tools import (
    PATIENCE_S,
    Host,
    callbacks_have_run,
    connect,
    furnish,
    hosts,
    in_thread,
    mpa_request,
    post,
    raw_client,
    take,
    until,
)


class TestFlushAtOddMoments:
    def test_while_an_accept_waits_for_the_peer(self) -> None:
        """R-FLUSH-1: every request pending at that time; the accept fails, nothing hangs."""
        with hosts() as (_, passive):
            listener = passive.adapter.listen()
            qp = passive.qp()
            qp.receive(passive.mr[0:8], context="posted before")
            with raw_client(listener.local_address, mpa_request()):
                accepting = listener.next_request().result(PATIENCE_S).accept(qp)
                assert not accepting.done()
                qp.flush()
                with pytest.raises(NdkError):
                    accepting.result(PATIENCE_S)
                (result,) = take(passive.cq, 1)
                assert (result.request_context, result.status) == ("posted before", Status.CANCELLED)

    def test_between_the_answer_and_complete_connect(self) -> None:
        with hosts() as (active, passive):
            listener = passive.adapter.listen()
            qp, connector = active.qp(), active.adapter.create_connector()
            connecting = connector.connect(qp, listener.local_address)
            listener.next_request().result(PATIENCE_S).accept(passive.qp())
            connecting.result(PATIENCE_S)
            qp.receive(active.mr[0:8], context="early")
            qp.flush()
            assert [result.status for result in take(active.cq, 1)] == [Status.CANCELLED]
            connector.complete_connect().result(PATIENCE_S)
            post(qp)
            assert [result.status for result in take(active.cq, 1)] == [Status.SUCCESS]

    def test_before_any_connection(self) -> None:
        with hosts() as (active, passive):
            qp = active.qp()
            qp.receive(active.mr[0:8])
            qp.flush()
            assert [result.status for result in take(active.cq, 1)] == [Status.CANCELLED]
            connect(active, qp, passive.qp(), passive.adapter.listen())

    def test_in_the_middle_of_posts_of_another_thread_loses_and_doubles_nothing(self) -> None:
        with hosts(cq_depth=1 << 16) as (active, passive):
            listener = passive.adapter.listen()
            for _ in range(10):
                qp = active.qp(depth=1024)
                connect(active, qp, passive.qp(), listener)
                started, stop = threading.Event(), threading.Event()

                def post_on(qp: Qp = qp, started: threading.Event = started, stop: threading.Event = stop) -> int:
                    count = 0
                    while not stop.is_set():
                        try:
                            post(qp, count)
                            count += 1
                        except QueueFull:
                            continue
                        if count == 20:
                            started.set()
                    return count

                posting = in_thread(post_on)
                assert started.wait(PATIENCE_S)
                qp.flush()
                stop.set()
                posted = posting.result(PATIENCE_S)
                found = [result.request_context for result in take(active.cq, posted)]
                assert found == list(range(posted))
                assert active.cq.get_results() == []


class TestOverruns:
    def overrun(self, depth: int = 4) -> Any:
        class World:
            def __enter__(self) -> "World":
                self.context = hosts()
                self.active, self.passive = self.context.__enter__()
                self.active.cq = self.active.adapter.create_cq(depth)
                listener = self.passive.adapter.listen()
                self.qps = [self.active.qp() for _ in range(3)]
                self.ends = [connect(self.active, qp, self.passive.qp(), listener) for qp in self.qps]
                return self

            def __exit__(self, *details: Any) -> None:
                self.context.__exit__(*details)

            def fill(self) -> None:
                for number in range(depth + 1):
                    post(self.qps[number % 2], number)

        return World()

    def test_all_queue_pairs_on_it_go_down_those_that_did_nothing_too(self) -> None:
        with self.overrun() as world:
            world.fill()
            for outgoing, incoming in world.ends:
                assert not outgoing.disconnected.result(PATIENCE_S).graceful
                assert not incoming.disconnected.result(PATIENCE_S).graceful
            for qp in world.qps:
                with pytest.raises(ConnectionInvalid):
                    post(qp)
                with pytest.raises(ConnectionInvalid):
                    qp.receive(world.active.mr[0:1])

    def test_what_was_there_stays_and_then_every_way_of_waiting_fails(self) -> None:
        with self.overrun() as world:
            world.fill()
            cq = world.active.cq
            assert [result.request_context for result in cq.wait(PATIENCE_S)] == [0, 1, 2, 3]
            sleeper = in_thread(lambda: cq.wait(PATIENCE_S))
            with pytest.raises(BufferOverflow):
                sleeper.result(PATIENCE_S)
            with pytest.raises(BufferOverflow):
                cq.next_results().result(PATIENCE_S)
            assert cq.get_results() == []
            assert cq.status is Status.BUFFER_OVERFLOW

    def test_waiters_of_any_kind_wake_up(self) -> None:
        with self.overrun() as world:
            cq = world.active.cq
            kinds = (CqNotify.ERRORS, CqNotify.SOLICITED)
            sleepers = [in_thread(lambda kind=kind: cq.wait(PATIENCE_S, kind=kind)) for kind in kinds]  # type: ignore[misc]
            until(lambda: len(cq._line) == 2)
            world.fill()
            outcomes = [sleeper.exception(PATIENCE_S) or sleeper.result(0) for sleeper in sleepers]
            assert [type(outcome) for outcome in outcomes].count(list) == 1
            assert sum(isinstance(outcome, BufferOverflow) for outcome in outcomes) == 1

    def test_closing_it_all_is_as_ever(self) -> None:
        with self.overrun() as world:
            world.fill()
            for item in (*world.qps, world.active.cq):
                item.__exit__(None, None, None)
                assert item.closed

    def test_during_a_flush_of_more_than_fits(self) -> None:
        with hosts() as (active, passive):
            active.cq = active.adapter.create_cq(4)
            qp = active.qp(depth=16)
            for number in range(16):
                qp.receive(active.mr[0:8], context=number)
            outgoing, _ = connect(active, qp, passive.qp(), passive.adapter.listen())
            qp.flush()
            assert [result.request_context for result in active.cq.get_results()] == [0, 1, 2, 3]
            assert active.cq.status is Status.BUFFER_OVERFLOW
            assert outgoing.close().result(PATIENCE_S) is None
            assert qp.close().result(PATIENCE_S) is None


class TestLimits:
    def test_depths_to_the_last_entry(self) -> None:
        with hosts() as (active, passive):
            info = active.adapter.query_info()
            depth = info.max_receive_queue_depth
            active.cq = active.adapter.create_cq(depth)
            qp = active.pd.create_qp(active.cq, active.cq, receive_queue_depth=depth, initiator_queue_depth=1)
            for number in range(depth):
                qp.receive([], context=number)
            with pytest.raises(QueueFull):
                qp.receive([])
            connect(active, qp, passive.qp(), passive.adapter.listen())
            qp.flush()
            results = active.cq.get_results()
            assert [result.request_context for result in results] == list(range(depth))
            assert active.cq.status is Status.SUCCESS

    def test_queues_of_depth_zero(self) -> None:
        with hosts() as (active, passive):
            qp = active.pd.create_qp(active.cq, active.cq, receive_queue_depth=0, initiator_queue_depth=0)
            with pytest.raises(QueueFull):
                qp.receive([])
            connect(active, qp, passive.qp(), passive.adapter.listen())
            with pytest.raises(QueueFull):
                qp.send(b"")

    def test_a_cancelled_result_is_explained_only_when_asked(self) -> None:
        with hosts() as (active, passive):
            qp = active.qp()
            qp.receive(active.mr[0:8])
            connect(active, qp, passive.qp(), passive.adapter.listen())
            qp.flush()
            (result,) = take(active.cq, 1)
            first, second = result.error, result.error
            assert isinstance(first, RequestCancelled)
            assert first is not second
            assert isinstance(first.__cause__, Aborted)


class TestContexts:
    CONTEXTS: tuple[object, ...] = (None, float("nan"), [1], {}, 0, 1 << 200, threading.Lock(), type, "text")

    def test_come_back_by_identity_whatever_they_are(self) -> None:
        with hosts() as (active, passive):
            contexts = self.CONTEXTS
            qp = active.pd.create_qp(
                active.cq, active.cq, receive_queue_depth=16, initiator_queue_depth=16, context=contexts
            )
            connect(active, qp, passive.qp(), passive.adapter.listen())
            for context in contexts:
                post(qp, context)
            results = take(active.cq, len(contexts))
            assert all(result.request_context is context for result, context in zip(results, contexts, strict=True))
            assert all(result.qp_context is contexts for result in results)

    def test_are_not_touched(self) -> None:
        """Not compared, hashed, copied or shown."""

        class Untouchable:
            def __eq__(self, other: object) -> bool:
                raise AssertionError

            __hash__ = None  # type: ignore[assignment]

            def __repr__(self) -> str:
                raise AssertionError

            def __bool__(self) -> bool:
                raise AssertionError

        context = Untouchable()
        with hosts() as (active, passive):
            qp = active.pd.create_qp(
                active.cq, active.cq, receive_queue_depth=4, initiator_queue_depth=4, context=context
            )
            qp.receive([], context=context)
            connect(active, qp, passive.qp(), passive.adapter.listen())
            post(qp, context)
            qp.flush()
            results = take(active.cq, 2)
            assert all(result.request_context is context and result.qp_context is context for result in results)
            assert all(result.error is None or str(result.error) for result in results)


class TestAfterTheEnd:
    def test_results_of_a_closed_queue_pair(self) -> None:
        with hosts() as (active, passive):
            qp = active.qp()
            outgoing, _ = connect(active, qp, passive.qp(), passive.adapter.listen())
            qp.receive([], context="receive")
            post(qp, "write")
            outgoing.close().result(PATIENCE_S)
            qp.close().result(PATIENCE_S)
            results = {result.request_context: result for result in take(active.cq, 2)}
            assert results["write"].status is Status.SUCCESS
            assert results["receive"].status is Status.CANCELLED
            assert "qp1" in str(results["receive"].error)

    def test_a_killed_adapter_closes_whole(self) -> None:
        """softndk.testing.kill(adapter, "silence"): its sockets do not outlive it."""
        from softndk.testing import kill

        with pair(config=IwarpConfig(terminate_drain_s=0.1)) as (a, b):
            kill(a.adapter, "silence")
            stream = a.connector._stream
            assert stream is not None
            a.adapter.__exit__(None, None, None)
            until(lambda: stream._sock is None)
            assert not b.connector.closing

    def test_deferred_requests_are_not_forgotten_by_a_close(self) -> None:
        from softndk import OpFlag

        with hosts() as (active, passive):
            qp = active.qp()
            outgoing, _ = connect(active, qp, passive.qp(), passive.adapter.listen())
            for number in range(3):
                qp.send(b"", flags=OpFlag.DEFER | OpFlag.SILENT_SUCCESS, context=number)
            outgoing.close()
            results = take(active.cq, 3)
            assert [result.request_context for result in results] == [0, 1, 2]
            assert {result.status for result in results} == {Status.CANCELLED}
            assert {result.type for result in results} == {OperationType.SEND}


def test_many_connections_at_once() -> None:
    count = 200
    with hosts(cq_depth=4096) as (active, passive):
        listener = passive.adapter.listen()
        ends = []
        for _ in range(count):
            qp, peer = active.qp(depth=4), passive.qp(depth=4)
            ends.append((qp, peer, *connect(active, qp, peer, listener)))
        for number, (qp, peer, _, _) in enumerate(ends):
            peer.receive(passive.mr[0:8], context=number)
            qp.send(b"x", context=number)
        assert sorted(result.request_context for result in take(passive.cq, count)) == list(range(count))
        assert sorted(result.request_context for result in take(active.cq, count)) == list(range(count))
        assert active.adapter.query_statistics().active_connection == count


def test_a_poll_over_many_connections_looks_only_at_those_that_have_something(monkeypatch: pytest.MonkeyPatch) -> None:
    looked: list[object] = []
    on_ready = TcpStream.on_ready

    def note(stream: TcpStream, mask: int) -> None:
        if threading.current_thread() is threading.main_thread():
            looked.append(stream)
        on_ready(stream, mask)

    with hosts(cq_depth=4096) as (active, passive):
        listener = passive.adapter.listen()
        ends = []
        for _ in range(50):
            qp, peer = active.qp(depth=4), passive.qp(depth=4)
            ends.append((qp, peer, *connect(active, qp, peer, listener)))
        monkeypatch.setattr(TcpStream, "on_ready", note)
        for _ in range(10):
            assert active.cq.get_results() == []
        assert len(looked) < 50
        ends[7][0].receive(active.mr[0:8], context="x")
        ends[7][1].send(b"to one of fifty")
        found: list[Result] = []

        def something_came() -> bool:
            found.extend(active.cq.get_results())
            return bool(found)

        until(something_came)
        assert [result.status for result in found] == [Status.BUFFER_OVERFLOW]


def test_connects_from_many_threads_at_once() -> None:
    count, each = 8, 10
    with hosts(cq_depth=4096) as (active, passive):
        listener = passive.adapter.create_listener(lambda connector: connector.accept(passive.qp()))
        listener.listen(("127.0.0.1", 0)).result(0)

        def run() -> int:
            made = 0
            for _ in range(each):
                qp = active.qp()
                with active.adapter.connect(qp, listener.local_address).result(PATIENCE_S), qp:
                    post(qp)
                    made += 1
            return made

        futures = [in_thread(run) for _ in range(count)]
        assert sum(future.result(3 * PATIENCE_S) for future in futures) == count * each
        take(active.cq, count * each)
        callbacks_have_run(active.adapter)
        statistics = active.adapter.query_statistics()
        assert (statistics.connect, statistics.active_connection) == (count * each, 0)


def test_two_connects_for_one_qp() -> None:
    with hosts() as (active, passive):
        listener = passive.adapter.listen()
        qp = active.qp()
        first = active.adapter.connect(qp, listener.local_address)
        with pytest.raises(RuntimeError, match="CONNECTION_ACTIVE"):
            active.adapter.connect(qp, listener.local_address)
        listener.next_request().result(PATIENCE_S).reject()
        with pytest.raises(Refused):
            first.result(PATIENCE_S)
        connect(active, qp, passive.qp(), listener)


def test_a_host_of_adapters() -> None:
    """Adapters are cheap enough to have many, and go without a trace."""
    threads = threading.active_count()
    for _ in range(20):
        adapters = [open_adapter() for _ in range(10)]
        sides: list[Host] = [furnish(adapter) for adapter in adapters]
        listener = sides[0].adapter.listen()
        for side in sides[1:3]:
            connect(side, side.qp(), sides[0].qp(), listener)
        for adapter in adapters:
            adapter.__exit__(None, None, None)
    until(lambda: threading.active_count() <= threads)
