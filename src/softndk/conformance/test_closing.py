"""Closing: never fails, waits for what depends on the object, and is the last that is heard of it."""

import threading
from collections.abc import Callable
from typing import Any

import pytest

from softndk import (
    Connector,
    Cq,
    InvalidHandle,
    Listener,
    NdkObject,
    Pending,
    Refused,
    RequestCancelled,
    Status,
)
from softndk.conformance.bench import (
    PATIENCE_S,
    Bench,
    Pair,
    callbacks_have_run,
    contexts,
    ended,
    failure,
    refused,
    statuses,
    still_works,
    take,
    until,
)
from softndk.conformance.providers import Feature, Side, advertised


@pytest.mark.rules("R-CLOSE-1", "A-1")
def test_an_idle_object_is_closed_at_once_and_a_second_close_is_the_same(bench: Bench) -> None:
    end = bench.end()
    adapter, pd = end.adapter, end.pd
    items: list[NdkObject] = [adapter.create_connector(), adapter.create_listener(), pd.create_mw(), pd.create_mr()]
    items += [pd.create_mr(fast_register=True), adapter.create_cq(1), adapter.create_pd(), end.qp]
    for item in items:
        pending = item.close()
        assert pending.result(PATIENCE_S) is None
        assert (item.closing, item.closed) == (True, True)
        assert item.close() is pending
    assert not {*items} & {*adapter.open_objects}


@pytest.mark.rules("R-CLOSE-1", "A-1")
@pytest.mark.parametrize("state", ["connecting", "incoming", "accepted", "connected", "peer closed", "failed"])
def test_a_connector_may_be_closed_in_every_state(bench: Bench, state: str) -> None:
    a, b = bench.end(), bench.end(side=Side.PASSIVE)
    listener = b.adapter.listen()
    connector = a.adapter.create_connector()
    connecting = connector.connect(a.qp, listener.local_address)
    incoming = listener.next_request().result(PATIENCE_S)
    if state == "incoming":
        connector = incoming
    elif state != "connecting":
        accepting = incoming.accept(b.qp)
        connecting.result(PATIENCE_S)
        if state != "accepted":
            connector.complete_connect().result(PATIENCE_S)
            accepting.result(PATIENCE_S)
        if state == "peer closed":
            incoming.close().result(PATIENCE_S)
            connector.disconnected.result(PATIENCE_S)
        elif state == "failed":
            b.qp.flush()
            connector.disconnected.result(PATIENCE_S)
    assert connector.close().result(PATIENCE_S) is None
    assert connector.closed


def _parents(bench: Bench) -> dict[str, tuple[NdkObject, Callable[[], Pending[None]]]]:
    """Antecedent, and what closes its only successor, by what the two are."""
    pair = bench.pair()
    a, b = pair
    window_end = bench.end(a.adapter)
    listener = b.adapter.listen()
    c = bench.end()
    connecting = c.adapter.connect(c.qp, listener.local_address)
    incoming = listener.next_request().result(PATIENCE_S)
    accepting = incoming.accept(bench.end(b.adapter).qp)
    connecting.result(PATIENCE_S)
    accepting.result(PATIENCE_S)
    pds = [a.adapter.create_pd() for _ in range(4)]
    cq = a.adapter.create_cq(4)
    loose = window_end.pd.create_qp(cq, cq, receive_queue_depth=1, initiator_queue_depth=1)
    adapter = bench.adapter()
    found: dict[str, tuple[NdkObject, Callable[[], Pending[None]]]] = {
        "adapter, pd": (adapter, adapter.create_pd().close),
        "pd, mr": (pds[0], pds[0].create_mr().close),
        "pd, mw": (pds[1], pds[1].create_mw().close),
        "pd, qp": (pds[2], pds[2].create_qp(a.cq, a.cq, receive_queue_depth=1, initiator_queue_depth=1).close),
        "cq, qp": (cq, loose.close),
        "qp, connector": (a.qp, a.connector.close),
        "listener, connector": (listener, incoming.close),
    }
    if Feature.SRQ in advertised(a.adapter):
        srq = pds[3].create_srq(1)
        qp = pds[3].create_qp_with_srq(a.cq, a.cq, srq, initiator_queue_depth=1)
        found["srq, qp"] = (srq, qp.close)
    return found


@pytest.mark.rules("R-CLOSE-2", "R-CLOSE-5", "R-OBJ-1", "R-CONN-2", "R-CEV-3")
def test_the_close_of_an_antecedent_waits_for_its_successor(bench: Bench) -> None:
    for what, (antecedent, close_successor) in _parents(bench).items():
        pending = antecedent.close()
        assert not pending.done(), what
        assert (antecedent.closing, antecedent.closed) == (True, False), what
        close_successor().result(PATIENCE_S)
        pending.result(PATIENCE_S)
        assert antecedent.closed, what


@pytest.mark.rules("R-MW-4", "R-CLOSE-2", "R-OBJ-1")
@pytest.mark.requires(Feature.WINDOWS)
def test_the_close_of_a_region_waits_for_its_windows(both: Pair, bench: Bench) -> None:
    a, b = both
    window = bench.window(a)
    pending = a.mr.close()
    assert not pending.done()
    b.fill(b"through it")
    b.qp.write(b.mr[0:10], a.mr.address, window.remote_token)
    assert statuses(take(b.cq, 1)) == [Status.SUCCESS]
    a.qp.invalidate(window)
    assert statuses(take(a.cq, 1)) == [Status.SUCCESS]
    pending.result(PATIENCE_S)


@pytest.mark.rules("R-CLOSE-2")
def test_the_close_waits_for_the_close_callback_of_a_successor(bench: Bench) -> None:
    adapter = bench.adapter()
    pd = adapter.create_pd()
    mr = pd.create_mr()
    inside, leave = threading.Event(), threading.Event()

    def linger(_: Pending[None]) -> None:
        inside.set()
        leave.wait(PATIENCE_S)

    parent = pd.close()
    mr.close(on_done=linger)
    assert inside.wait(PATIENCE_S)
    assert not parent.done()
    leave.set()
    parent.result(PATIENCE_S)


@pytest.mark.rules("R-CLOSE-2", "R-CLOSE-4")
@pytest.mark.parametrize("kind", ["register", "connect", "resize", "listen", "next_request"])
def test_the_close_waits_for_the_callback_of_a_request(bench: Bench, kind: str) -> None:
    """A callback that runs, and one whose request the close itself ends."""
    end = bench.end()
    inside, leave = threading.Event(), threading.Event()
    order: list[str] = []

    def linger(_: Pending[Any]) -> None:
        inside.set()
        leave.wait(PATIENCE_S)
        order.append("request")

    item: NdkObject
    pending: Pending[Any]
    if kind == "register":
        item = mr = end.pd.create_mr()
        pending = mr.register(bytearray(8), 0)
    elif kind == "connect":
        item = connector = end.adapter.create_connector()
        pending = connector.connect(end.qp, bench.adapter(Side.PASSIVE).listen().local_address)
    elif kind == "resize":
        item = cq = end.adapter.create_cq(1)
        pending = cq.resize(2)
    else:
        item = listener = end.adapter.create_listener()
        pending = listener.listen((bench.provider.addresses(Side.ACTIVE)[0], 0))
        pending = pending if kind == "listen" else listener.next_request()
    pending.add_done_callback(linger)
    if kind not in ("connect", "next_request"):
        assert inside.wait(PATIENCE_S)
    closing = item.close(on_done=lambda _: order.append("closed"))
    assert inside.wait(PATIENCE_S)
    assert not closing.done()
    assert not item.closed
    leave.set()
    closing.result(PATIENCE_S)
    callbacks_have_run(end.adapter)
    assert order == ["request", "closed"]


@pytest.mark.rules("R-CLOSE-2")
def test_a_callback_at_the_pending_of_a_close_is_a_close_callback_too(both: Pair) -> None:
    a, _ = both
    inside, leave = threading.Event(), threading.Event()

    def linger(_: Pending[None]) -> None:
        inside.set()
        leave.wait(PATIENCE_S)

    parent, child = a.pd.close(), a.qp.close()
    child.add_done_callback(linger)
    a.mr.close().result(PATIENCE_S)
    a.connector.close()
    assert inside.wait(PATIENCE_S)
    assert child.done()
    assert not parent.done()
    leave.set()
    parent.result(PATIENCE_S)


@pytest.mark.rules("R-CLOSE-2", "R-MW-4")
@pytest.mark.requires(Feature.WINDOWS)
def test_the_close_of_a_region_waits_for_the_close_callback_of_its_window(both: Pair, bench: Bench) -> None:
    """A region is an antecedent of the windows that are bound to it."""
    a, _ = both
    window = bench.window(a)
    inside, leave = threading.Event(), threading.Event()

    def linger(_: Pending[None]) -> None:
        inside.set()
        leave.wait(PATIENCE_S)

    window.close(on_done=linger)
    assert inside.wait(PATIENCE_S)
    pending = a.mr.close()
    assert not pending.done()
    leave.set()
    pending.result(PATIENCE_S)


@pytest.mark.rules("R-CLOSE-3", "R-CONN-7")
def test_closing_a_connector_ends_its_unfinished_request(bench: Bench) -> None:
    a, b = bench.end(), bench.end(side=Side.PASSIVE)
    listener = b.adapter.listen()
    connector = a.adapter.create_connector()
    connecting = connector.connect(a.qp, listener.local_address)
    incoming = listener.next_request().result(PATIENCE_S)
    connector.close().result(PATIENCE_S)
    assert isinstance(failure(connecting), RequestCancelled)
    assert failure(incoming.accept(b.qp)).status in (Status.CONNECTION_ABORTED, Status.CONNECTION_REFUSED)


@pytest.mark.rules("R-CLOSE-3", "R-CLOSE-13", "R-FLUSH-5", "R-FLUSH-1")
def test_closing_a_queue_pair_flushes_it_and_its_results_stay(bench: Bench) -> None:
    end = bench.end(context="the context")
    for number in range(3):
        end.qp.receive(end.mr[0:8], context=number)
    end.qp.close().result(PATIENCE_S)
    results = end.cq.get_results()
    assert contexts(results) == [0, 1, 2]
    assert statuses(results) == [Status.CANCELLED] * 3
    assert {result.qp_context for result in results} == {"the context"}


@pytest.mark.rules("R-CLOSE-13", "R-CLOSE-10", "R-FLUSH-5")
def test_closing_connector_and_queue_pair_of_a_connection_loses_no_result(both: Pair) -> None:
    a, _ = both
    for number in range(3):
        a.qp.receive(a.mr[0:8], context=number)
    a.connector.close().result(PATIENCE_S)
    a.qp.close().result(PATIENCE_S)
    assert contexts(a.cq.get_results()) == [0, 1, 2]


@pytest.mark.rules("R-CLOSE-4", "R-CLOSE-11", "R-CQ-2")
def test_nothing_is_called_back_after_the_close_completion(both: Pair, bench: Bench) -> None:
    a, _ = both
    told: list[str] = []
    cq = a.adapter.create_cq(8, lambda *_: told.append("notified"))
    qp = a.pd.create_qp(cq, cq, receive_queue_depth=4, initiator_queue_depth=4)
    cq.arm()
    qp.close()
    cq.close(on_done=lambda _: told.append("closed")).result(PATIENCE_S)
    callbacks_have_run(a.adapter)
    assert told == ["closed"]


@pytest.mark.rules("R-CLOSE-4", "R-CLOSE-11")
def test_a_notification_that_is_due_but_has_not_begun_does_not_come_after_the_close(bench: Bench) -> None:
    """The callback before it is still running when the close is asked for."""
    end = bench.end()
    told: list[str] = []
    inside, leave = threading.Event(), threading.Event()

    def linger(_: object) -> None:
        inside.set()
        leave.wait(PATIENCE_S)

    cq = end.adapter.create_cq(4, lambda *_: told.append("notified"))
    qp = end.pd.create_qp(cq, cq, receive_queue_depth=1, initiator_queue_depth=1)
    end.adapter.create_pd().close(on_done=linger)
    assert inside.wait(PATIENCE_S)
    cq.arm()
    qp.receive([])
    qp.flush()
    qp.close().result(PATIENCE_S)
    closing = cq.close(on_done=lambda _: told.append("closed"))
    assert not closing.done()
    leave.set()
    closing.result(PATIENCE_S)
    callbacks_have_run(end.adapter)
    assert told == ["closed"]


@pytest.mark.rules("R-CLOSE-4", "R-CLOSE-10", "R-DEV-1", "A-19")
def test_no_event_comes_after_the_close_of_a_connector(bench: Bench) -> None:
    a, b = bench.end(), bench.end(side=Side.PASSIVE)
    told: list[str] = []
    bench.connect(a, b, on_disconnect=lambda *_: told.append("disconnected"))
    a.connector.close(on_done=lambda _: told.append("closed")).result(PATIENCE_S)
    assert ended(b).graceful
    b.connector.close().result(PATIENCE_S)
    callbacks_have_run(a.adapter)
    assert told == ["closed"]


@pytest.mark.rules("R-CLOSE-5")
def test_an_antecedent_that_is_closing_changes_nothing_for_its_successors(bench: Bench) -> None:
    pair = bench.pair()
    pendings = [end.pd.close() for end in pair]
    still_works(pair)
    assert not any(pending.done() for pending in pendings)


@pytest.mark.rules("R-CLOSE-6")
def test_an_object_that_is_closed_or_closing_takes_no_calls(bench: Bench) -> None:
    a, b = bench.pair()
    closing = a.pd
    closing.close()
    calls: list[Callable[[], object]] = [closing.create_mr, closing.create_mw]
    listener = b.adapter.create_listener()
    connector = b.adapter.create_connector()
    for item in (listener, connector, b.adapter.create_cq(1)):
        item.close().result(PATIENCE_S)
        if isinstance(item, Cq):
            calls += [item.get_results, item.arm, lambda item=item: item.resize(2)]  # type: ignore[misc]
    calls += [lambda: listener.listen(("127.0.0.1", 0)), connector.disconnect, connector.reject]
    for call in calls:
        with refused(InvalidHandle, Status.INVALID_HANDLE):
            call()


@pytest.mark.rules("R-CLOSE-7", "R-OPEN-6")
def test_when_an_adapter_is_closed_all_its_callbacks_have_returned(bench: Bench) -> None:
    adapter = bench.provider.open_adapter()
    inside, leave = threading.Event(), threading.Event()
    order: list[str] = []

    def linger(_: object) -> None:
        inside.set()
        leave.wait(PATIENCE_S)
        order.append("callback")

    def close() -> None:
        with adapter:
            adapter.create_cq(4)
        order.append("closed")

    adapter.create_pd().close(on_done=linger)
    assert inside.wait(PATIENCE_S)
    closer = threading.Thread(target=close)
    closer.start()
    until(lambda: adapter.closing)
    assert not adapter.closed
    leave.set()
    closer.join(PATIENCE_S)
    assert order == ["callback", "closed"]
    assert adapter.closed


@pytest.mark.rules("R-CLOSE-8")
def test_the_end_of_a_parents_close_is_the_end_of_all_its_childrens(bench: Bench) -> None:
    pd = bench.adapter().create_pd()
    regions = [pd.register_mr(bytearray(8)) for _ in range(10)]
    pending = pd.close()
    for mr in regions:
        assert not pending.done()
        mr.close()
    pending.result(PATIENCE_S)
    assert all(mr.closed for mr in regions)


@pytest.mark.rules("R-CLOSE-9", "R-PAUSE-1", "R-CEV-3")
def test_a_listener_refuses_from_the_moment_of_its_close_and_waits_for_its_connectors(bench: Bench) -> None:
    a, b = bench.end(), bench.end(side=Side.PASSIVE)
    listener = b.adapter.listen()
    address = listener.local_address
    connecting = a.adapter.connect(a.qp, address)
    incoming = listener.next_request().result(PATIENCE_S)
    closing = listener.close()
    other = bench.end(a.adapter)
    assert isinstance(failure(a.adapter.connect(other.qp, address)), Refused)
    accepting = incoming.accept(b.qp)
    a._connector, b._connector = connecting.result(PATIENCE_S), incoming
    accepting.result(PATIENCE_S)
    still_works(Pair(a, b))
    assert not closing.done()
    incoming.close().result(PATIENCE_S)
    closing.result(PATIENCE_S)


@pytest.mark.rules("A-21", "R-CLOSE-9")
def test_a_request_that_was_told_may_be_accepted_while_the_listener_closes(bench: Bench) -> None:
    a, b = bench.end(), bench.end(side=Side.PASSIVE)
    listener = b.adapter.listen()
    connecting = a.adapter.connect(a.qp, listener.local_address)
    incoming = listener.next_request().result(PATIENCE_S)
    listener.close()
    accepting = incoming.accept(b.qp)
    connecting.result(PATIENCE_S)
    accepting.result(PATIENCE_S)


@pytest.mark.rules("R-CLOSE-10")
def test_closing_an_unanswered_request_rejects_it(bench: Bench) -> None:
    a, b = bench.end(), bench.end(side=Side.PASSIVE)
    listener = b.adapter.listen()
    connecting = a.adapter.connect(a.qp, listener.local_address)
    listener.next_request().result(PATIENCE_S).close().result(PATIENCE_S)
    assert failure(connecting).status is Status.CONNECTION_REFUSED


@pytest.mark.rules("R-CLOSE-10", "R-CLOSE-9")
def test_closing_a_listener_rejects_requests_that_nobody_has_taken(bench: Bench) -> None:
    """The request is in the callback of another one's time, so it cannot have been told."""
    a, b = bench.end(), bench.end(side=Side.PASSIVE)
    entered, leave = threading.Event(), threading.Event()
    taken: list[Connector] = []

    def on_connect(connector: Connector) -> None:
        taken.append(connector)
        entered.set()
        leave.wait(PATIENCE_S)

    listener = b.adapter.create_listener(on_connect)
    listener.listen((bench.provider.addresses(Side.PASSIVE)[0], 0)).result(PATIENCE_S)
    first = a.adapter.connect(a.qp, listener.local_address)
    assert entered.wait(PATIENCE_S)
    second = a.adapter.connect(bench.end(a.adapter).qp, listener.local_address)
    listener.close()
    leave.set()
    assert failure(second).status is Status.CONNECTION_REFUSED
    taken[0].close()
    assert failure(first).status is Status.CONNECTION_REFUSED
    assert len(taken) == 1


@pytest.mark.rules("R-CLOSE-11", "R-CLOSE-2")
def test_the_close_of_a_queue_waits_for_its_running_callback(bench: Bench) -> None:
    end = bench.end()
    inside, leave = threading.Event(), threading.Event()

    def linger(*_: object) -> None:
        inside.set()
        leave.wait(PATIENCE_S)

    cq = end.adapter.create_cq(4, linger)
    qp = end.pd.create_qp(cq, cq, receive_queue_depth=1, initiator_queue_depth=1)
    cq.arm()
    qp.receive([])
    qp.flush()
    assert inside.wait(PATIENCE_S)
    qp.close().result(PATIENCE_S)
    pending = cq.close()
    assert not pending.done()
    leave.set()
    pending.result(PATIENCE_S)


@pytest.mark.rules("R-CLOSE-12", "R-REGMR-4", "R-DEREG-2")
def test_closing_a_region_ends_its_registration(both: Pair) -> None:
    a, b = both
    buffer = bytearray(64)
    mr = b.pd.register_mr(buffer, 0x7)
    address, token = mr.address, mr.remote_token
    with pytest.raises(BufferError):
        buffer.extend(b"x")
    mr.close().result(PATIENCE_S)
    buffer.extend(b"x")
    a.qp.read(a.mr[0:8], address, token)
    assert statuses(take(a.cq, 1)) != [Status.SUCCESS]
    assert not ended(b).graceful


@pytest.mark.rules("R-CLOSE-14", "R-CLOSE-1")
def test_in_the_usual_order_no_close_waits(both: Pair, bench: Bench) -> None:
    a, b = both
    mw = a.pd.create_mw()
    lam = a.adapter.build_lam(bytearray(8)).result(PATIENCE_S)
    lam.release()
    items: list[NdkObject] = [a.connector, a.qp, a.cq, mw, a.mr, a.pd]
    for item in items:
        item.close().result(PATIENCE_S)
    a.adapter.close().result(PATIENCE_S)
    assert a.adapter.closed
    assert ended(b).graceful


@pytest.mark.rules("R-CLOSE-14", "R-CLOSE-7")
def test_leaving_the_block_of_an_adapter_closes_everything_on_it(bench: Bench) -> None:
    pair = bench.pair()
    a, b = pair
    others: list[NdkObject] = [a.pd.create_mw(), a.adapter.create_connector(), a.adapter.listen()]
    with a.adapter:
        items = [*a.adapter.open_objects, a.adapter]
    assert {a.connector, a.qp, a.cq, a.pd, a.mr, *others} <= {*items}
    assert all(item.closed for item in items)
    assert ended(b).graceful


@pytest.mark.rules("R-CLOSE-14", "R-CLOSE-2")
def test_the_whole_tree_may_be_closed_from_its_root(both: Pair) -> None:
    a, _ = both
    order: list[NdkObject] = [a.adapter, a.pd, a.cq, a.mr, a.qp]
    pendings = [item.close() for item in order]
    assert [pending.done() for pending in pendings] == [False, False, False, True, False]
    a.connector.close().result(PATIENCE_S)
    for pending in pendings:
        pending.result(PATIENCE_S)


@pytest.mark.rules("R-CLOSE-2", "R-CEV-3")
def test_a_listener_without_connectors_is_closed_at_once(bench: Bench) -> None:
    listener: Listener = bench.adapter().listen()
    assert listener.close().done()
