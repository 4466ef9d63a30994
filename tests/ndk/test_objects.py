"""What every object has: a name, a header, a life; and what Python adds: with blocks, waiting, pickling, forking."""

import asyncio
import copy
import gc
import logging
import os
import pickle
import re
import subprocess
import sys
import threading
import warnings
import weakref
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import asdict
from typing import Any
from uuid import UUID

import pytest
import trio

from softndk import (
    AdapterFlag,
    AdapterUnavailable,
    AddressUnavailable,
    Cq,
    InvalidHandle,
    InvalidParameter,
    IwarpConfig,
    MrFlag,
    NdkError,
    NdkObject,
    NdkVersion,
    NotSupported,
    ObjectType,
    OperationType,
    OpFlag,
    Pending,
    RdmaTechnology,
    Result,
    Status,
    open_adapter,
)
from softndk import errors as error_module
from softndk.testing import End, Pair, kill, pair
from tests.ndk.ends import (
    FAST_RIGHTS,
    PATIENCE_S,
    callbacks_have_run,
    connect,
    contexts,
    ended,
    fast_region,
    loose_end,
    one,
    sibling,
    still_works,
    succeed,
    take,
    window,
)
from tests.ndk.raw_peer import RawListener


def one_of_each(end: End) -> dict[ObjectType, NdkObject]:
    """An object of every type, all on one adapter."""
    adapter = end.adapter
    return {
        ObjectType.ADAPTER: adapter,
        ObjectType.QP: end.qp,
        ObjectType.CQ: end.cq,
        ObjectType.MR: end.mr,
        ObjectType.MW: end.pd.create_mw(),
        ObjectType.PD: end.pd,
        ObjectType.SHARED_ENDPOINT: adapter.create_shared_endpoint(("127.0.0.1", 0)),
        ObjectType.CONNECTOR: end.connector,
        ObjectType.LISTENER: adapter.create_listener(),
        ObjectType.SRQ: end.pd.create_srq(8),
    }


# ---- header and name


@pytest.mark.rules("R-OBJ-2")
def test_every_object_tells_its_type_and_the_adapters_version(both: Pair) -> None:
    for kind, item in one_of_each(both.a).items():
        assert item.object_type is kind
        assert item.version == NdkVersion(2, 1)


@pytest.mark.rules("R-OPEN-2", "R-OBJ-2")
@pytest.mark.parametrize(
    ("asked", "got"), [((1, 0), (1, 2)), ((1, 2), (1, 2)), ((2, 0), (2, 1)), ((2, 1), (2, 1))], ids=str
)
def test_the_adapter_works_with_its_own_highest_minor_of_the_major(
    asked: tuple[int, int], got: tuple[int, int]
) -> None:
    """R-OPEN-2, R-OBJ-2."""
    with open_adapter(version=NdkVersion(*asked)) as adapter:
        assert adapter.query_info().version == got
        assert adapter.create_pd().version == got


@pytest.mark.rules("R-OPEN-2")
@pytest.mark.parametrize("version", [(0, 9), (1, 3), (2, 2), (3, 0)], ids=str)
def test_a_version_that_is_not_offered_is_bad_version(version: tuple[int, int]) -> None:
    with pytest.raises(NotSupported) as refused:
        open_adapter(version=NdkVersion(*version))
    assert refused.value.status is Status.NDIS_BAD_VERSION


@pytest.mark.rules("R-EXT-1")
def test_no_extension_is_known(both: Pair) -> None:
    for item in one_of_each(both.a).values():
        with pytest.raises(NotSupported, match="R-EXT-1"):
            item.query_extension(UUID(int=1), NdkVersion(1, 0))


def test_default_names_are_numbered_by_kind() -> None:
    with open_adapter() as adapter:
        assert re.fullmatch(r"adapter\d+", adapter.name)  # its number: tests/ndk/test_adapter_numbers.py
        assert [adapter.create_pd().name for _ in range(2)] == ["pd1", "pd2"]
        assert [adapter.create_cq(1).name for _ in range(2)] == ["cq1", "cq2"]
        assert adapter.create_listener().name == "listener1"
        assert adapter.create_connector().name == "connector1"


def test_a_name_shows_in_reprs_and_errors(both: Pair) -> None:
    a, b = both
    a.qp.name = "client-7"
    assert "'client-7'" in repr(a.qp)
    with pytest.raises(InvalidParameter, match=r"^qp1 'client-7' send: "):
        a.qp.send(b"x", flags=0x400)
    b.mr.name = "inbox"
    a.qp.write(b"x", 0, b.mr.remote_token)
    assert "mr1 'inbox'" in str(ended(b).error)


def test_messages_name_object_operation_value_limit_remedy_status_and_rule(both: Pair) -> None:
    with pytest.raises(NdkError) as refused:
        both.a.qp.send([both.a.mr[0:1]] * 5)
    assert re.fullmatch(
        r"qp1 send: 5 SGEs, limit max_initiator_sge=4; raise it .+ \[DATA_OVERRUN, R-WR-6\]", str(refused.value)
    )


def test_reprs_tell_state() -> None:
    with pair(queue_depth=16) as (_, b):
        b.qp.name = "server"
        b.qp.receive(b.mr[0:8])
        port = b.connector.peer_address[1]
        assert repr(b.qp) == f"<Qp qp1 'server' connected 127.0.0.1:{port} sends 0/16 receives 1/16>"
        b.cq.arm()
        assert repr(b.cq) == "<Cq cq1 0/256 armed ANY>"
        assert repr(b.mr) == f"<Mr mr1 8192 octets at {b.mr.address:#x}>"
        mw = b.pd.create_mw()
        assert repr(mw) == "<Mw mw1 invalid>"
        assert repr(b.pd) == "<Pd pd1 open>"
        assert re.fullmatch(r"<Listener listener\d listening 127\.0\.0\.1:\d+ waiting 0>", repr(b.adapter.listen()))
        mw.close()
        assert repr(mw) == "<Mw mw1 closed>"
        b.pd.close()
        assert repr(b.pd) == "<Pd pd1 closing>"


def test_reprs_never_raise(both: Pair) -> None:
    objects = one_of_each(both.a)
    loose = loose_end(both.a.adapter)
    for item in [*objects.values(), loose.connector, loose.qp, both.a.pd.create_mr(), fast_region(both.a, None).mr]:
        assert repr(item).startswith(f"<{type(item).__name__} {item.name}")
        item.close()
        assert repr(item).startswith(f"<{type(item).__name__} {item.name}")


# ---- closing


@pytest.mark.rules("R-CLOSE-1")
def test_close_of_a_leaf_is_done_at_once(both: Pair) -> None:
    mw = both.a.pd.create_mw()
    pending = mw.close()
    assert pending.done()
    assert (mw.closing, mw.closed) == (True, True)


def test_a_second_close_returns_the_same_pending(both: Pair) -> None:
    for item in one_of_each(both.a).values():
        assert item.close() is item.close()


@pytest.mark.parametrize(
    ("call", "text"),
    [
        (
            lambda end: end.adapter.create_cq(0),
            "{adapter} create_cq: depth=0, must be 1 to {max_cq_depth} (max_cq_depth",
        ),
        (lambda end: end.cq.resize(1 << 30), "cq1 resize: depth=1073741824, must be 1 to {max_cq_depth} (max_cq_depth"),
        (lambda end: end.cq.control_interrupt_moderation(-1, 1), "interval_us=-1, must be 0 to 4294967295 ["),
        (lambda end: end.pd.create_srq(-1), "pd1 create_srq: depth=-1, must be 1 to {max_srq_depth} (max_srq_depth"),
        (lambda end: end.pd.create_srq(1).modify(-1), "depth=-1, must be 0 to {max_srq_depth} (max_srq_depth"),
        (lambda end: end.pd.register_mr(["x"]), "pd1 register_mr: list is no buffer"),
        (lambda end: end.pd.register_mr(bytearray()), "the buffer is empty"),
    ],
)
def test_a_number_out_of_range_is_told_with_the_range_and_where_it_comes_from(
    both: Pair, call: Callable[[End], object], text: str
) -> None:
    with pytest.raises(InvalidParameter) as refused:
        call(both.a)
    adapter = both.a.adapter
    assert text.format_map({"adapter": adapter.name, **asdict(adapter.query_info())}) in str(refused.value)


@pytest.mark.rules("R-CLOSE-2", "R-CLOSE-5")
def test_close_pends_while_a_successor_is_open(both: Pair) -> None:
    """R-CLOSE-2, R-CLOSE-5: the order does not matter."""
    a, _ = both
    pending = {item.name: item.close() for item in (a.adapter, a.pd, a.cq, a.qp)}
    assert not any(item.done() for item in pending.values())
    a.connector.close()
    assert pending["qp1"].done()
    assert pending["cq1"].done()
    assert not pending["pd1"].done()
    a.mr.close()
    pending["pd1"].result(PATIENCE_S)
    pending[a.adapter.name].result(PATIENCE_S)


def test_a_close_that_expires_says_who_is_still_open(both: Pair) -> None:
    both.a.qp.name = "client-7"
    pending = both.a.pd.close()
    with pytest.raises(TimeoutError, match=r"pd1 close: still open: .*qp1 'client-7'") as expired:
        pending.result(0.01)
    assert not isinstance(expired.value, NdkError)


def test_a_wait_that_expires_says_what_is_awaited_and_who_holds_it(both: Pair) -> None:
    a, b = both
    listener = b.adapter.listen()
    third, fourth = loose_end(a.adapter), loose_end(b.adapter)
    connector = a.adapter.create_connector()
    connecting = connector.connect(third.qp, listener.local_address)
    incoming = listener.next_request().result(PATIENCE_S)
    expect_expiry(connecting, "connect: the peer has not answered, requesting 127.0.0.1:")
    accepting = incoming.accept(fourth.qp)
    expect_expiry(accepting, "accept: the peer has not completed the connect, accepting 127.0.0.1:")
    expect_expiry(listener.next_request(), "next_request: no request has come, listening 127.0.0.1:")
    expect_expiry(a.cq.next_results(), "cq1 wait: no result has come (waited")
    expect_expiry(a.connector.disconnected, "connector1 disconnected: no end yet, connected 127.0.0.1:")
    expect_expiry(a.connector.disconnect(), "connector1 disconnect: the peer has not disconnected, disconnecting 127")
    connector.close()
    accepting.exception(PATIENCE_S)


def expect_expiry(pending: Pending[Any], text: str) -> None:
    with pytest.raises(TimeoutError) as expired:
        pending.result(0.01)
    assert text in str(expired.value)
    assert not isinstance(expired.value, NdkError)


@pytest.mark.rules("R-CLOSE-6")
@pytest.mark.parametrize("kind", list(ObjectType), ids=lambda kind: kind.name.lower())
def test_a_closed_object_is_an_invalid_handle(both: Pair, kind: ObjectType) -> None:
    objects = one_of_each(both.a)
    uses: dict[ObjectType, list[Callable[[], object]]] = {
        ObjectType.ADAPTER: [
            both.a.adapter.create_pd,
            both.a.adapter.query_info,
            both.a.adapter.query_statistics,
            lambda: both.a.adapter.create_cq(1),
            both.a.adapter.create_connector,
            both.a.adapter.create_listener,
            both.a.adapter.listen,
            lambda: both.a.adapter.build_lam(bytearray(1)),
        ],
        ObjectType.QP: [lambda: both.a.qp.send(b""), lambda: both.a.qp.receive([]), both.a.qp.flush],
        ObjectType.CQ: [both.a.cq.get_results, both.a.cq.arm, both.a.cq.wait, both.a.cq.next_results, both.a.cq.fileno],
        ObjectType.MR: [lambda: both.a.mr.register(bytearray(1), 0), both.a.mr.deregister],
        ObjectType.MW: [lambda: both.a.qp.bind(both.a.mr, objects[ObjectType.MW], flags=FAST_RIGHTS)],  # type: ignore[arg-type]
        ObjectType.PD: [both.a.pd.create_mr, both.a.pd.create_mw, lambda: both.a.pd.register_mr(bytearray(1))],
        ObjectType.SHARED_ENDPOINT: [
            lambda: both.a.adapter.create_connector().connect_with_shared_endpoint(
                loose_end(both.a.adapter).qp,
                objects[ObjectType.SHARED_ENDPOINT],  # type: ignore[arg-type]
                ("127.0.0.1", 1),
            )
        ],
        ObjectType.CONNECTOR: [both.a.connector.disconnect, both.a.connector.reject, both.a.connector.complete_connect],
        ObjectType.LISTENER: [
            lambda: objects[ObjectType.LISTENER].listen(("127.0.0.1", 0)),  # type: ignore[attr-defined]
            lambda: objects[ObjectType.LISTENER].next_request(),  # type: ignore[attr-defined]
        ],
        ObjectType.SRQ: [lambda: objects[ObjectType.SRQ].receive([])],  # type: ignore[attr-defined]
    }
    objects[kind].close()
    for use in uses[kind]:
        with pytest.raises(InvalidHandle) as refused:
            use()
        assert refused.value.status is Status.INVALID_HANDLE


def test_an_object_that_is_being_closed_cannot_be_built_upon(both: Pair) -> None:
    a, _ = both
    cq = a.adapter.create_cq(8)
    cq.close()
    with pytest.raises(InvalidHandle):
        a.pd.create_qp(cq, a.cq, receive_queue_depth=1, initiator_queue_depth=1)
    qp, _ = sibling(a)
    qp.close()
    with pytest.raises(InvalidHandle):
        a.adapter.create_connector().connect(qp, ("127.0.0.1", 1))


def test_on_done_is_called_once_on_the_callback_thread_with_the_pending(both: Pair) -> None:
    seen: list[tuple[Pending[None], int]] = []
    mw = both.a.pd.create_mw()

    def on_done(pending: Pending[None]) -> None:
        seen.append((pending, threading.get_ident()))

    pending = mw.close(on_done=on_done)
    callbacks_have_run(both.a.adapter)
    assert [item for item, _ in seen] == [pending]
    assert seen[0][1] != threading.get_ident()
    mw.close(on_done=on_done)  # closed already: told all the same
    callbacks_have_run(both.a.adapter)
    assert len(seen) == 2


@pytest.mark.rules("R-CLOSE-2")
def test_what_an_object_depended_on_stays_until_its_close_callback_has_returned(both: Pair) -> None:
    """R-CLOSE-2: a successor's close-completion callback counts."""
    pd = both.a.adapter.create_pd()
    mw = pd.create_mw()
    closing = pd.close()
    inside, leave = threading.Event(), threading.Event()

    def on_done(_: Pending[None]) -> None:
        inside.set()
        assert leave.wait(PATIENCE_S)

    mw.close(on_done=on_done)
    assert inside.wait(PATIENCE_S)
    assert not closing.done()
    leave.set()
    closing.result(PATIENCE_S)


@pytest.mark.rules("R-CLOSE-2", "R-CLOSE-11")
def test_a_close_pends_while_a_callback_of_the_object_runs(both: Pair) -> None:
    """R-CLOSE-11."""
    a, _ = both
    inside, leave = threading.Event(), threading.Event()

    def on_notify(cq: Cq, status: Status) -> None:
        inside.set()
        assert leave.wait(PATIENCE_S)

    cq = a.adapter.create_cq(8, on_notify)
    qp = a.pd.create_qp(cq, cq, receive_queue_depth=1, initiator_queue_depth=1)
    cq.arm()
    qp.receive([])
    qp.flush()
    assert inside.wait(PATIENCE_S)
    qp.close()
    closing = cq.close()
    with pytest.raises(TimeoutError, match="a running callback"):
        closing.result(0)
    leave.set()
    closing.result(PATIENCE_S)


@pytest.mark.rules("R-CONC-6")
def test_everything_that_does_not_block_is_legal_in_a_callback(both: Pair) -> None:
    """Close and arm included."""
    a, b = both
    outcome: list[object] = []

    def on_notify(cq: Cq, status: Status) -> None:
        try:
            outcome.extend(contexts(cq.get_results()))
            cq.arm()
            mr = pd.register_mr(bytearray(8))
            qp.receive(mr[:], context="posted inside")
            mw = pd.create_mw()
            mw.close()
            qp.flush()
            outcome.append("done")
        except BaseException as error:
            outcome.append(error)

    pd = a.adapter.create_pd()
    cq = a.adapter.create_cq(8, on_notify)
    qp = pd.create_qp(cq, cq, receive_queue_depth=4, initiator_queue_depth=1)
    cq.arm()
    qp.receive([], context="first")
    qp.flush()
    callbacks_have_run(a.adapter)
    cq.close()
    assert outcome[:2] == ["first", "done"]
    still_works(a, b)


def test_waiting_in_a_callback_is_a_runtime_error_instead_of_a_deadlock(both: Pair) -> None:
    errors: list[BaseException] = []

    def on_done(_: Pending[None]) -> None:
        for wait in (lambda: both.a.cq.wait(PATIENCE_S), lambda: both.a.pd.close().result(PATIENCE_S)):
            try:
                wait()
            except RuntimeError as error:
                errors.append(error)

    both.a.pd.create_mw().close(on_done=on_done)
    callbacks_have_run(both.a.adapter)
    assert len(errors) == 2


def test_waiting_under_a_running_event_loop_is_a_runtime_error(both: Pair) -> None:
    async def main() -> None:
        with pytest.raises(RuntimeError):
            both.a.cq.wait(PATIENCE_S)
        assert both.a.pd.create_mw().close().result() is None  # done already: returns at once, anywhere

    asyncio.run(main())


def test_a_callback_that_raises_goes_to_the_unraisable_hook_and_changes_nothing(
    both: Pair, monkeypatch: pytest.MonkeyPatch
) -> None:
    told: list[object] = []
    monkeypatch.setattr("sys.unraisablehook", told.append)
    mw = both.a.pd.create_mw()
    mw.close(on_done=lambda _: 1 // 0)
    callbacks_have_run(both.a.adapter)
    assert len(told) == 1
    assert mw.closed
    still_works(*both)


async def _coroutine(*_: object) -> None:
    raise AssertionError("never called")


class _AsyncCallable:
    async def __call__(self, *_: object) -> None:
        raise AssertionError("never called")


GIVEN: dict[str, Callable[[Pair, Callable[..., object]], object]] = {
    "create_cq": lambda both, fn: both.a.adapter.create_cq(8, fn),
    "create_listener": lambda both, fn: both.a.adapter.create_listener(fn),
    "create_srq": lambda both, fn: both.a.pd.create_srq(8, on_notify=fn),
    "adapter.connect": lambda both, fn: both.a.adapter.connect(
        loose_end(both.a.adapter).qp, ("127.0.0.1", 1), on_disconnect=fn
    ),
    "complete_connect": lambda both, fn: both.a.adapter.create_connector().complete_connect(on_disconnect=fn),
    "accept": lambda both, fn: both.a.adapter.create_connector().accept(both.a.qp, on_disconnect=fn),
    "close": lambda both, fn: both.a.pd.close(on_done=fn),
    "add_done_callback": lambda both, fn: both.a.pd.create_mw().close().add_done_callback(fn),
}


@pytest.mark.parametrize("name", GIVEN)
@pytest.mark.parametrize("fn", [_coroutine, _AsyncCallable()], ids=["function", "object"])
def test_a_coroutine_function_as_a_callback_is_refused_when_it_is_given(
    both: Pair, name: str, fn: Callable[..., object]
) -> None:
    with pytest.raises(TypeError, match="coroutine"):
        GIVEN[name](both, fn)
    assert not both.a.pd.closing
    still_works(*both)


def test_what_cannot_be_called_is_refused_as_a_callback(both: Pair) -> None:
    with pytest.raises(TypeError):
        both.a.adapter.create_cq(8, 7)  # type: ignore[arg-type]


# ---- results outlive their objects


@pytest.mark.rules("R-CLOSE-13")
def test_results_stay_fetchable_after_their_queue_pair_is_closed(both: Pair) -> None:
    """R-CLOSE-13."""
    a, _ = both
    qp, cq = sibling(a)
    qp.context = "whose"
    qp.receive(a.mr[0:8], context="flushed")
    qp.close().result(PATIENCE_S)
    result = one(cq)
    assert (result.qp_context, result.request_context, result.status) == ("whose", "flushed", Status.CANCELLED)
    assert result.error is not None


@pytest.mark.rules("R-CLOSE-2", "R-CONN-2")
def test_closing_a_connected_queue_pair_waits_for_its_connector(both: Pair) -> None:
    closing = both.a.qp.close()
    assert not closing.done()
    both.a.connector.close().result(PATIENCE_S)
    closing.result(PATIENCE_S)


def test_a_result_explains_its_failure_on_access_and_check_raises_it(both: Pair) -> None:
    a, _ = both
    qp, cq = sibling(a)
    qp.receive([])
    qp.flush()
    result = one(cq)
    first, second = result.error, result.error
    assert first is not second
    assert str(first) == str(second)
    with pytest.raises(NdkError) as raised:
        result.check()
    assert str(raised.value) == str(first)
    good = Result(type=result.type)
    assert good.check() is good
    assert good.error is None


# ---- with blocks and open_objects


@pytest.mark.rules("R-CLOSE-14")
def test_leaving_a_with_block_closes_the_object_and_everything_on_it() -> None:
    with open_adapter() as adapter:
        objects = one_of_each(loose_end(adapter))
        objects[ObjectType.CONNECTOR] = adapter.create_connector()
    for item in objects.values():
        assert item.closed, item


@pytest.mark.parametrize("leave", ["qp", "cq", "pd", "connector", "mr", "mw", "srq"])
def test_leaving_a_with_block_takes_what_depends_on_the_object_and_nothing_else(both: Pair, leave: str) -> None:
    a, _ = both
    mw = window(a)
    srq = a.pd.create_srq(8)
    shared = a.pd.create_qp_with_srq(a.cq, a.cq, srq, initiator_queue_depth=1)
    objects: dict[str, NdkObject] = {
        "qp": a.qp,
        "cq": a.cq,
        "pd": a.pd,
        "connector": a.connector,
        "mr": a.mr,
        "mw": mw,
        "srq": srq,
        "shared": shared,
    }
    goes = {
        "qp": {"qp", "connector"},
        "cq": {"cq", "qp", "connector", "shared"},
        "pd": {"pd", "qp", "connector", "mr", "mw", "srq", "shared"},
        "connector": {"connector"},
        "mr": {"mr", "mw"},
        "mw": {"mw"},
        "srq": {"srq", "shared"},
    }[leave]
    with objects[leave]:
        pass
    assert {name for name, item in objects.items() if item.closed} == goes
    assert {name for name, item in objects.items() if item.closing} == goes
    assert not a.adapter.closing


def test_a_listener_stops_at_the_end_of_its_with_block_and_its_connectors_live_on() -> None:
    with open_adapter() as active, open_adapter() as passive:
        a, b = loose_end(active), loose_end(passive)
        with passive.listen() as listener:
            connecting = active.connect(a.qp, listener.local_address)
            incoming = listener.next_request().result(PATIENCE_S)
            accepting = incoming.accept(b.qp)
            connecting.result(PATIENCE_S)
            accepting.result(PATIENCE_S)
        assert listener.closing
        assert not incoming.closing
        still_works(a, b)


def test_leaving_a_with_block_does_not_wait_for_a_peer() -> None:
    with open_adapter() as adapter, RawListener() as listener:
        end = loose_end(adapter)
        with end.connector as connector:
            connector.connect(end.qp, listener.address).add_done_callback(lambda _: None)


def test_a_with_block_that_is_left_by_an_exception_closes_and_lets_it_through() -> None:
    left: list[NdkObject] = []

    def leave() -> None:
        with open_adapter() as adapter:
            left.append(adapter.create_pd())
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        leave()
    assert left[0].closed


@pytest.mark.parametrize("library", ["asyncio", "trio"])
def test_async_with_closes_everything(library: str) -> None:
    async def main() -> tuple[NdkObject, ...]:
        async with open_adapter() as adapter:
            async with adapter.create_pd() as pd:
                mw = pd.create_mw()
            assert pd.closed
            return (adapter, pd, mw, adapter.create_cq(8))

    closed = asyncio.run(main()) if library == "asyncio" else trio.run(main)
    assert all(item.closed for item in closed)


def test_strict_mode_says_what_had_to_be_closed_for_the_program() -> None:
    with (
        pytest.warns(ResourceWarning, match=r"adapter\d+: closed for you: .*pd1"),
        open_adapter(strict=True) as adapter,
    ):
        adapter.create_pd()


def test_strict_mode_is_silent_when_all_was_closed() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        with open_adapter(strict=True) as adapter:
            pd = adapter.create_pd()
            pd.create_mw().close()
            pd.close()


def test_open_objects_tells_what_is_open() -> None:
    with open_adapter() as adapter:
        assert len(adapter.open_objects) == 0
        pd = adapter.create_pd()
        mw = pd.create_mw()
        cq = adapter.create_cq(8)
        qp = pd.create_qp(cq, cq, receive_queue_depth=1, initiator_queue_depth=1)
        assert set(adapter.open_objects) == {pd, mw, cq, qp}
        assert adapter.open_objects.index(pd) < adapter.open_objects.index(mw)
        mw.close()
        closing = pd.close()
        assert set(adapter.open_objects) == {pd, cq, qp}  # the close of pd pends
        qp.close()
        closing.result(PATIENCE_S)
        assert list(adapter.open_objects) == [cq]


def test_a_forgotten_adapter_is_collected_with_a_resource_warning() -> None:
    adapter = open_adapter()
    adapter.create_pd().create_mw()
    reference = weakref.ref(adapter)
    del adapter
    with pytest.warns(ResourceWarning, match="was never closed"):
        gc.collect()
    assert reference() is None


def test_garbage_collection_closes_no_single_object(both: Pair) -> None:
    a, _ = both
    before = len(a.adapter.open_objects)
    a.pd.create_mw()
    gc.collect()
    assert len(a.adapter.open_objects) == before + 1


# ---- creation


@pytest.mark.rules("R-QP-1")
@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("receive_queue_depth", 16385),
        ("initiator_queue_depth", 16385),
        ("max_receive_sge", 33),
        ("max_initiator_sge", 33),
        ("inline_data_size", 8193),
        ("receive_queue_depth", -1),
    ],
)
def test_a_value_over_the_adapters_limit_is_refused_and_the_limit_is_named(both: Pair, name: str, value: int) -> None:
    a, _ = both
    settings = {"receive_queue_depth": 1, "initiator_queue_depth": 1, name: value}
    before = a.adapter.open_objects
    with pytest.raises(InvalidParameter, match=f"{name}={value}, must be 0 to .*of query_info"):
        a.pd.create_qp(a.cq, a.cq, **settings)
    assert a.adapter.open_objects == before


@pytest.mark.rules("R-CQ-5")
@pytest.mark.parametrize("depth", [0, -1, (1 << 20) + 1])
def test_a_completion_queue_depth_outside_the_limits_is_refused(depth: int) -> None:
    with open_adapter() as adapter, pytest.raises(InvalidParameter, match="depth"):
        adapter.create_cq(depth)


@pytest.mark.rules("R-QP-5")
def test_queues_of_another_adapter_are_refused(both: Pair) -> None:
    a, b = both
    with pytest.raises(InvalidParameter, match="R-QP-5"):
        a.pd.create_qp(a.cq, b.cq, receive_queue_depth=1, initiator_queue_depth=1)


@pytest.mark.rules("R-QP-3", "R-CQ-4")
def test_a_queue_pair_may_use_two_queues(both: Pair) -> None:
    a, b = both
    receive_cq, initiator_cq = a.adapter.create_cq(8), a.adapter.create_cq(8)
    qp = a.pd.create_qp(receive_cq, initiator_cq, receive_queue_depth=1, initiator_queue_depth=1)
    other, other_cq = sibling(b)
    connect(a.adapter, qp, b.adapter, other)
    qp.receive(a.mr[0:8], context="received")
    other.receive(b.mr[0:8])
    qp.send(b"x", context="sent")
    other.send(b"y")
    assert contexts(take(initiator_cq, 1)) == ["sent"]
    assert contexts(take(receive_cq, 1)) == ["received"]
    succeed(other_cq, 2)


def test_the_adapter_tells_its_limits_and_capabilities() -> None:
    with open_adapter() as adapter:
        info = adapter.query_info()
        assert info.rdma_technology is RdmaTechnology.IWARP
        assert info.adapter_flags & AdapterFlag.RDMA_READ_SINK_NOT_REQUIRED
        assert info.adapter_flags & AdapterFlag.LOOPBACK_CONNECTIONS_SUPPORTED
        assert info.frmr_page_count >= 16
        assert info.max_read_request_sge <= info.max_initiator_request_sge
        assert adapter.datapath in ("python", "native")


@pytest.mark.parametrize("address", ["localhost", "", "127.0.0.1:80", "256.0.0.1"])
def test_an_adapter_address_that_is_not_numeric_is_refused(address: str) -> None:
    with pytest.raises(InvalidParameter):
        open_adapter(address)


def test_an_adapter_address_of_another_machine_is_refused() -> None:
    with pytest.raises((AddressUnavailable, AdapterUnavailable)):
        open_adapter("192.0.2.1")


def test_an_adapter_needs_an_address() -> None:
    with pytest.raises(InvalidParameter):
        open_adapter(())


@pytest.mark.parametrize(
    "option", [{"transport": "verbs"}, {"transport": "x"}, {"datapath": "x"}, {"network": object()}]
)
def test_what_this_version_does_not_have_is_not_supported(option: dict[str, object]) -> None:
    with pytest.raises(NotSupported):
        open_adapter(**option)  # type: ignore[arg-type]


@pytest.mark.rules("R-OPEN-4")
def test_several_adapters_may_be_open_on_one_address() -> None:
    with open_adapter() as first, open_adapter() as second:
        connect(first, loose_end(first).qp, second, loose_end(second).qp)


@pytest.mark.rules("R-PORT-3")
def test_two_queue_pairs_of_one_adapter_can_be_connected() -> None:
    """R-PORT-3."""
    with open_adapter() as adapter:
        a, b = loose_end(adapter), loose_end(adapter)
        connect(adapter, a.qp, adapter, b.qp)
        still_works(a, b)


# ---- errors as Python objects


def every_error_class() -> list[type[NdkError]]:
    return [
        item
        for item in vars(error_module).values()
        if isinstance(item, type) and issubclass(item, NdkError) and item is not NdkError
    ]


@pytest.mark.parametrize("kind", every_error_class(), ids=lambda kind: kind.__name__)
def test_errors_pickle_and_copy_with_all_they_carry(kind: type[NdkError]) -> None:
    original = kind("what happened", provider_error_code=0x1_0209, private_data=b"data")
    for twin in (pickle.loads(pickle.dumps(original)), copy.copy(original), copy.deepcopy(original)):
        assert type(twin) is kind
        assert str(twin) == "what happened"
        assert (twin.status, twin.provider_error_code, twin.private_data) == (original.status, 0x1_0209, b"data")
        if issubclass(kind, OSError):
            assert getattr(twin, "errno") == getattr(original, "errno") != 0  # noqa: B009


def test_a_real_failure_survives_pickling(both: Pair) -> None:
    a, b = both
    b.qp.receive(b.mr[0:8])
    a.qp.send_and_invalidate(b"x", b.mr.remote_token)
    error = ended(b).error
    twin = pickle.loads(pickle.dumps(error))
    assert error is not None
    assert (str(twin), twin.fault, twin.explain()) == (str(error), error.fault, error.explain())


def test_a_successful_result_pickles() -> None:
    good = Result(type=OperationType.READ, request_context=7)
    assert pickle.loads(pickle.dumps(good)) == good


def test_no_class_shadows_a_builtin() -> None:
    import builtins

    import softndk

    assert not [name for name in softndk.__all__ if hasattr(builtins, name)]


def test_each_waiter_gets_a_fresh_exception(both: Pair) -> None:
    pending = both.a.adapter.create_connector().disconnect()
    caught = []
    for _ in range(2):
        with pytest.raises(NdkError) as error:
            pending.result(PATIENCE_S)
        caught.append(error.value)
    assert caught[0] is not caught[1]
    assert str(caught[0]) == str(caught[1])
    assert pending.exception() is not pending.exception()


def test_a_failure_that_nobody_retrieves_is_logged_once(both: Pair, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING, logger="softndk"):
        both.a.adapter.create_connector().disconnect()
        gc.collect()
    (record,) = caplog.records
    assert "disconnect" in record.getMessage()


def test_a_failure_by_a_local_close_is_not_logged(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING, logger="softndk"):
        with RawListener() as listener, open_adapter() as adapter:
            end = loose_end(adapter)
            end.connector.connect(end.qp, listener.address)
            adapter.connect(loose_end(adapter).qp, listener.address)
        gc.collect()
    assert caplog.records == []


# ---- waiting


def test_one_pending_may_be_awaited_by_threads_tasks_and_loops_at_once(both: Pair) -> None:
    a, _ = both
    waiting = a.pd.close()
    started = threading.Barrier(5)

    async def wait_async() -> str:
        await waiting
        return "done"

    def in_asyncio() -> str:
        started.wait(PATIENCE_S)
        return asyncio.run(wait_async())

    def in_trio() -> str:
        started.wait(PATIENCE_S)
        return trio.run(wait_async)

    def in_thread() -> str:
        started.wait(PATIENCE_S)
        waiting.result(PATIENCE_S)
        return "done"

    with ThreadPoolExecutor(4) as pool:
        futures = [pool.submit(fn) for fn in (in_asyncio, in_trio, in_thread, in_thread)]
        started.wait(PATIENCE_S)
        for item in (a.connector, a.qp, a.mr):
            item.close()
        assert [future.result(PATIENCE_S) for future in futures] == ["done"] * 4


def test_cancelling_an_await_stops_the_waiting_not_the_request(both: Pair) -> None:
    a, b = both

    async def main() -> None:
        going = a.connector.disconnect()
        with pytest.raises(asyncio.TimeoutError):
            await asyncio.wait_for(_wait(going), 0.01)
        b.connector.disconnect().add_done_callback(lambda _: None)
        await going

    async def _wait(pending: Pending[None]) -> None:
        await pending

    asyncio.run(main())


def test_cancel_of_what_cannot_be_cancelled_is_false(both: Pair) -> None:
    going = both.a.connector.disconnect()
    assert not going.cancel()
    both.b.connector.disconnect().result(PATIENCE_S)
    going.result(PATIENCE_S)


def test_an_expired_wait_leaves_the_request_going(both: Pair) -> None:
    going = both.a.connector.disconnect()
    with pytest.raises(TimeoutError, match="connector1 disconnect"):
        going.result(0)
    both.b.connector.disconnect().result(PATIENCE_S)
    going.result(PATIENCE_S)


# ---- programs may wrap methods


@pytest.mark.rules("R-OBJ-3")
def test_nothing_inside_calls_a_public_method_of_an_object(monkeypatch: pytest.MonkeyPatch) -> None:
    """R-OBJ-3: so a program may wrap or replace any of them."""
    calls: list[str] = []
    for kind in {type(item) for item in _samples()}:
        for name in dir(kind):
            member = getattr(kind, name)
            if not name.startswith("_") and callable(member):
                monkeypatch.setattr(kind, name, _counting(member, f"{kind.__name__}.{name}", calls))
    with open_adapter() as adapter:
        a, b = loose_end(adapter), loose_end(adapter)
        connect(adapter, a.qp, adapter, b.qp)
        mw = window(b)
        fast = fast_region(b)
        b.qp.receive(b.mr[0:8])
        a.qp.send_and_invalidate(b"x", mw.remote_token)
        succeed(b.cq)
        b.qp.invalidate(fast.mr)
        b.qp.flush()
        mine = list(calls)
    inside = [name for name in mine if name.startswith("(nested) ")]
    assert inside == []


_depth = threading.local()


def _counting(member: Callable[..., object], name: str, calls: list[str]) -> Callable[..., object]:
    def wrapper(*arguments: object, **named: object) -> object:
        nested = getattr(_depth, "value", 0)
        calls.append(f"(nested) {name}" if nested and name not in _SHORT_WAYS else name)
        _depth.value = 0 if name in _SHORT_WAYS else nested + 1
        try:
            return member(*arguments, **named)
        finally:
            _depth.value = nested

    return wrapper


_SHORT_WAYS = {"Adapter.listen", "Adapter.connect", "Pd.register_mr", "Cq.wait"}
"""Several NDKPI calls in one, by their contract."""


def _samples() -> list[NdkObject]:
    with open_adapter() as adapter:
        return list(one_of_each(loose_end(adapter)).values())


# ---- forked children

forks = pytest.mark.skipif(not hasattr(os, "fork"), reason="this system has no fork")


def in_child(work: Callable[[], str]) -> str:
    """What `work` returns in a forked child, which ends without any clean-up."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # "multi-threaded process": that is the point
        reader, writer = os.pipe()
        child = os.fork()
    if child == 0:
        try:
            text = work()
        except BaseException as error:
            text = f"raised {error!r}"
        os.write(writer, text.encode())
        os._exit(0)
    os.close(writer)
    with os.fdopen(reader) as pipe:
        text = pipe.read()
    os.waitpid(child, 0)
    return text


def outcome_of(call: Callable[[], object]) -> str:
    try:
        return f"returned {call()!r}"
    except NdkError as error:
        return type(error).__name__


@forks
def test_objects_are_unusable_in_a_forked_child(both: Pair) -> None:
    a, b = both
    calls: list[Callable[[], object]] = [
        lambda: a.qp.send(b"from the child"),
        lambda: a.qp.receive([]),
        a.qp.flush,
        a.cq.get_results,
        a.cq.arm,
        lambda: a.cq.wait(PATIENCE_S),
        a.cq.next_results,
        a.adapter.create_pd,
        a.adapter.query_info,
        lambda: a.pd.register_mr(bytearray(8)),
        a.connector.disconnect,
    ]
    told = in_child(lambda: " ".join(outcome_of(call) for call in calls))
    assert told == " ".join(["InvalidHandle"] * len(calls))
    still_works(a, b)
    still_works(b, a)


@forks
def test_the_child_sends_nothing_that_the_parent_deferred(both: Pair) -> None:
    a, b = both
    b.qp.receive(b.mr[0:16], context="once")
    a.qp.send(b"deferred", flags=OpFlag.DEFER | OpFlag.SILENT_SUCCESS)
    assert in_child(lambda: outcome_of(lambda: a.qp.send(b"x"))) == "InvalidHandle"
    assert b.cq.get_results() == []
    b.qp.receive(b.mr[0:16], context="twice")
    a.qp.send(b"now")
    assert contexts(take(b.cq, 2)) == ["once", "twice"]


@forks
def test_a_child_that_leaves_the_with_block_does_the_parent_no_harm() -> None:
    with open_adapter() as active, open_adapter() as passive:
        a, b = loose_end(active), loose_end(passive)
        connect(active, a.qp, passive, b.qp)
        in_child(lambda: outcome_of(lambda: [ExitStack().push(item).close() for item in (active, passive)]))
        still_works(a, b)


@forks
def test_a_fork_while_another_thread_is_inside_calls_leaves_a_child_that_does_not_hang(both: Pair) -> None:
    a, b = both
    stop = threading.Event()

    def use() -> None:
        while not stop.is_set():
            a.cq.get_results()

    def work() -> str:
        answers: list[str] = []
        worker = threading.Thread(target=lambda: answers.append(outcome_of(a.cq.get_results)), daemon=True)
        worker.start()
        worker.join(PATIENCE_S / 4)
        return answers[0] if answers else "hangs"

    with ThreadPoolExecutor() as pool:
        running = pool.submit(use)
        try:
            assert {in_child(work) for _ in range(20)} == {"InvalidHandle"}
        finally:
            stop.set()
            running.result(PATIENCE_S)
    still_works(a, b)


# ---- whole programs


def test_a_program_that_ends_without_closing_ends() -> None:
    program = """
from softndk import *
from softndk.testing import pair
ends = pair()
ends.b.qp.receive(ends.b.mr[0:8])
ends.a.qp.send(b"x")
ends.b.cq.wait(10)
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60, check=False)
    assert (done.returncode, done.stderr) == (0, "")


def test_a_connection_that_was_reset_can_be_closed_in_any_order(both: Pair) -> None:
    a, b = both
    kill(b.adapter, "reset")
    ended(a)
    for item in (a.adapter, a.cq, a.mr, a.pd, a.qp, a.connector):
        item.close()
    a.adapter.close().result(PATIENCE_S)


def test_a_config_that_makes_no_sense_is_refused() -> None:
    for settings in ({"mpa_revision": 3}, {"max_fpdu": 100}, {"connect_timeout_s": -1}, {"max_pending_requests": 0}):
        with pytest.raises(InvalidParameter, match=next(iter(settings))):
            IwarpConfig(**settings)  # type: ignore[arg-type]


@pytest.mark.rules("R-FLAG-1")
def test_remote_write_contains_local_write() -> None:
    """R-FLAG-1."""
    assert MrFlag.ALLOW_REMOTE_WRITE & MrFlag.ALLOW_LOCAL_WRITE
    assert OpFlag.ALLOW_REMOTE_WRITE & OpFlag.ALLOW_LOCAL_WRITE
