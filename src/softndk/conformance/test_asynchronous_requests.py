"""Asynchronous requests, their callbacks, and calls that run at the same time."""

import threading
from typing import Any

import pytest

from softndk import ConnectionInvalid, Connector, Cq, InvalidParameter, NdkError, Pending, Status
from softndk.conformance.bench import (
    FAST_RIGHTS,
    PATIENCE_S,
    Bench,
    OwnLock,
    Pair,
    callbacks_have_run,
    contexts,
    ended,
    failure,
    statuses,
    succeed,
    take,
    until,
)
from softndk.conformance.providers import Side


@pytest.mark.rules("R-ASYNC-1")
def test_a_request_tells_its_outcome_exactly_once(bench: Bench) -> None:
    a, b = bench.end(), bench.end(side=Side.PASSIVE)
    told: list[object] = []
    listener = b.adapter.create_listener()
    listening = listener.listen((bench.provider.addresses(Side.PASSIVE)[0], 0))
    connector = a.adapter.create_connector()
    connecting = connector.connect(a.qp, listener.local_address)
    incoming = listener.next_request().result(PATIENCE_S)
    accepting = incoming.accept(b.qp)
    connecting.result(PATIENCE_S)
    completing = connector.complete_connect()
    accepting.result(PATIENCE_S)
    pendings: list[Pending[Any]] = [listening, connecting, accepting, completing]
    pendings += [incoming.disconnect(), connector.disconnect()]
    for pending in pendings:
        pending.add_done_callback(told.append)
        pending.result(PATIENCE_S)
    for adapter in (a.adapter, b.adapter):
        callbacks_have_run(adapter)
    assert sorted(map(id, told)) == sorted(map(id, pendings))
    assert [pending.exception(0) for pending in pendings] == [None] * len(pendings)


@pytest.mark.rules("R-ASYNC-1", "R-ASYNC-3")
def test_a_call_that_raises_calls_nothing_back_and_has_changed_nothing(bench: Bench) -> None:
    end = bench.end()
    connector = end.adapter.create_connector()
    limit = end.adapter.query_info().max_caller_data
    with pytest.raises(InvalidParameter):
        connector.connect(end.qp, bench.nobody(end.adapter), private_data=bytes(limit + 1))
    assert end.qp.connector is None
    assert failure(connector.connect(end.qp, bench.nobody(end.adapter))).status is Status.CONNECTION_REFUSED


@pytest.mark.rules("R-ASYNC-3", "A-25")
def test_a_callback_never_runs_inside_the_call(bench: Bench) -> None:
    """Neither for a request that has finished at once; the program may hold a lock around the call."""
    end = bench.end()
    own = OwnLock()
    threads: list[int] = []
    told = threading.Semaphore(0)

    def note(_: object) -> None:
        threads.append(threading.get_ident())
        own.in_a_callback()
        told.release()

    mr = end.pd.create_mr()
    with own.around_a_call():
        mr.register(bytearray(8), 0).add_done_callback(note)
        end.adapter.create_connector().connect(end.qp, bench.nobody(end.adapter)).add_done_callback(note)
        end.adapter.build_lam(bytearray(8)).add_done_callback(note)
        mr.close(on_done=note)
    for _ in range(4):
        assert told.acquire(timeout=PATIENCE_S)
    own.check()
    assert threading.get_ident() not in threads


@pytest.mark.rules("R-ASYNC-4", "R-ASYNC-5")
def test_the_object_may_be_closed_in_the_callback_of_its_failed_request(bench: Bench) -> None:
    """The worked case: a connect fails, and its callback closes the connector."""
    end = bench.end()
    connector = end.adapter.create_connector()
    closings: list[Pending[None]] = []
    closed = threading.Event()

    def close(_: Pending[None]) -> None:
        closings.append(connector.close(on_done=lambda _: closed.set()))

    pending = connector.connect(end.qp, bench.nobody(end.adapter))
    pending.add_done_callback(close)
    assert failure(pending).status is Status.CONNECTION_REFUSED
    assert closed.wait(PATIENCE_S)
    closings[0].result(PATIENCE_S)
    assert connector.closed


@pytest.mark.rules("R-ASYNC-4")
def test_the_object_may_be_closed_in_the_callback_of_a_request_that_succeeds(bench: Bench) -> None:
    a, b = bench.end(), bench.end(side=Side.PASSIVE)
    listener = b.adapter.listen()
    connector = a.adapter.create_connector()
    closed = threading.Event()
    connecting = connector.connect(a.qp, listener.local_address)
    connecting.add_done_callback(lambda _: connector.close(on_done=lambda _: closed.set()))
    accepting = listener.next_request().result(PATIENCE_S).accept(b.qp)
    assert closed.wait(PATIENCE_S)
    assert isinstance(failure(accepting), NdkError)


@pytest.mark.rules("R-ASYNC-6")
def test_other_functions_may_be_called_while_the_callback_runs(bench: Bench) -> None:
    a, b = bench.end(), bench.end(side=Side.PASSIVE)
    listener = b.adapter.listen()
    connector = a.adapter.create_connector()
    found: list[Any] = []
    up = threading.Event()

    def go_on(_: Pending[None]) -> None:
        found.append((connector.connection_data.private_data, connector.peer_address, connector.local_address))
        connector.complete_connect().add_done_callback(lambda _: up.set())

    connector.connect(a.qp, listener.local_address).add_done_callback(go_on)
    accepting = listener.next_request().result(PATIENCE_S).accept(b.qp, private_data=b"hello")
    assert up.wait(PATIENCE_S)
    accepting.result(PATIENCE_S)
    assert found[0][0].startswith(b"hello")
    assert found[0][1] == listener.local_address
    a.qp.send([])
    assert statuses(take(a.cq, 1)) == [Status.SUCCESS]


@pytest.mark.rules("R-CONC-6", "R-ACCEPT-3", "R-ARM-6")
def test_every_call_that_does_not_wait_is_legal_in_a_callback(bench: Bench) -> None:
    a, b = bench.end(), bench.end(side=Side.PASSIVE)
    done = threading.Event()
    accepted: list[Connector] = []

    def on_connect(connector: Connector) -> None:
        pd, cq = b.adapter.create_pd(), b.adapter.create_cq(8)
        mr = pd.register_mr(bytearray(64))
        qp = pd.create_qp(cq, cq, receive_queue_depth=4, initiator_queue_depth=4)
        cq.arm()
        qp.receive(mr[0:8])
        qp.flush()
        assert statuses(cq.get_results()) == [Status.CANCELLED]
        window, region = pd.create_mw(), pd.create_mr(fast_register=True)
        region.initialize_fast_register(1, True)
        b.adapter.build_lam(bytearray(8)).result().release()
        b.adapter.create_listener().listen((connector.local_address[0], 0)).result()
        b.adapter.create_connector().close()
        for item in (window, region, qp, cq, mr, pd):
            item.close()
        assert connector.peer_address
        connector.accept(b.qp)
        accepted.append(connector)
        done.set()

    listener = b.adapter.create_listener(on_connect)
    listener.listen((bench.provider.addresses(Side.PASSIVE)[0], 0)).result(PATIENCE_S)
    a.adapter.connect(a.qp, listener.local_address).result(PATIENCE_S)
    assert done.wait(PATIENCE_S)


@pytest.mark.rules("R-CONC-6", "R-ARM-6")
def test_posts_and_what_ends_a_connection_are_legal_in_a_callback(bench: Bench) -> None:
    passive, found, ends = bench.adapter(Side.PASSIVE), list[object](), list[Pending[None]]()

    def on_notify(cq: Cq, _: Status) -> None:
        if not found:
            found.extend(contexts(cq.get_results()))
            b.qp.send([], context="send")
            b.qp.write([], 0, a.mr.remote_token, context="write")
            b.qp.read([], 0, a.mr.remote_token, context="read")
            b.qp.fast_register(fast, lam, flags=FAST_RIGHTS, context="fast register")
            b.qp.invalidate(fast, context="invalidate")
            b.qp.receive([], context="receive")
            cq.resize(128).result()
            cq.control_interrupt_moderation(0, 0)
            found.append("end")

    def disconnect(_: Pending[None]) -> None:
        ends.append(b.connector.disconnect())

    cq = passive.create_cq(64, on_notify)
    a, b = bench.connect(bench.end(), bench.end(passive, cq=cq))
    region = bench.fast_region(b, None)
    fast, lam = region.mr, region.lam
    a.qp.receive([])
    b.qp.receive([], context="asked")
    cq.arm()
    a.qp.send([])
    until(lambda: len(found) == 2)
    assert found == ["asked", "end"]
    assert contexts(succeed(cq, 5)) == ["send", "write", "read", "fast register", "invalidate"]
    b.pd.create_mw().close(on_done=disconnect)
    assert ended(a).graceful
    a.connector.disconnect().result(PATIENCE_S)
    callbacks_have_run(passive)
    ends[0].result(PATIENCE_S)
    assert contexts(take(cq, 1)) == ["receive"]


@pytest.mark.rules("R-CONC-1")
def test_different_queues_of_a_queue_pair_may_be_posted_to_at_the_same_time(bench: Bench) -> None:
    count = 300
    a, b = bench.pair(queue_depth=count, cq_depth=4 * count)
    start = threading.Barrier(3)

    def post_receives() -> None:
        start.wait(PATIENCE_S)
        for number in range(count):
            a.qp.receive(a.mr[0:8], context=("receive", number))

    def post_sends() -> None:
        start.wait(PATIENCE_S)
        for number in range(count):
            a.qp.send(b"x", context=("send", number))

    for _ in range(count):
        b.qp.receive(b.mr[0:8])
    threads = [threading.Thread(target=target) for target in (post_receives, post_sends)]
    for thread in threads:
        thread.start()
    start.wait(PATIENCE_S)
    for thread in threads:
        thread.join(PATIENCE_S)
    assert contexts(take(a.cq, count)) == [("send", number) for number in range(count)]
    a.qp.flush()
    results = take(a.cq, count)
    assert contexts(results) == [("receive", number) for number in range(count)]
    assert set(statuses(results)) == {Status.CANCELLED}


@pytest.mark.rules("R-CONC-3", "R-FLUSH-4", "R-COMP-1")
@pytest.mark.parametrize("how", ["flush", "close"])
def test_a_flush_or_a_close_during_posts_loses_and_doubles_nothing(bench: Bench, how: str) -> None:
    a, b = bench.pair(queue_depth=2000, cq_depth=20000)
    for _ in range(2000):
        b.qp.receive(b.mr[0:1])
    posted: list[int] = []
    running, enough = threading.Event(), threading.Event()

    def post() -> None:
        for number in range(2000):
            try:
                a.qp.send(b"x", context=number)
            except ConnectionInvalid:
                break
            posted.append(number)
            if number == 50:
                running.set()
        enough.set()

    thread = threading.Thread(target=post)
    thread.start()
    assert running.wait(PATIENCE_S)
    if how == "flush":
        a.qp.flush()
    else:
        a.connector.close()
    assert enough.wait(PATIENCE_S)
    thread.join(PATIENCE_S)
    results = take(a.cq, len(posted))
    assert contexts(results) == posted
    assert set(statuses(results)) <= {Status.SUCCESS, Status.CANCELLED}
    assert a.cq.get_results() == []


@pytest.mark.rules("R-CONC-5", "R-ARM-5")
def test_the_notification_callbacks_of_a_queue_never_overlap(both: Pair) -> None:
    a, _ = both
    inside, most = [0], [0]
    entered, leave = threading.Semaphore(0), threading.Semaphore(0)

    def on_notify(*_: object) -> None:
        inside[0] += 1
        most[0] = max(most[0], inside[0])
        entered.release()
        leave.acquire(timeout=PATIENCE_S)
        inside[0] -= 1

    cq = a.adapter.create_cq(16, on_notify)
    qp = a.pd.create_qp(cq, cq, receive_queue_depth=4, initiator_queue_depth=4)
    for turn in range(3):  # all but the first one fall due while the first one runs
        cq.arm()
        qp.receive([], context=turn)
        qp.flush()
        if not turn:
            assert entered.acquire(timeout=PATIENCE_S)
    leave.release()
    assert entered.acquire(timeout=PATIENCE_S)
    for _ in range(3):
        leave.release()
    callbacks_have_run(a.adapter)
    assert most == [1]
