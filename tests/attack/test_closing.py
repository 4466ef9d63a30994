"""Attacks on close: from callbacks, from many threads, in event loops, under warnings as errors, in the midst of all."""

import asyncio
import gc
import logging
import threading
import warnings
from concurrent.futures import Future
from typing import Any

import pytest

from softndk import (
    Adapter,
    Connector,
    InvalidHandle,
    NdkError,
    NdkObject,
    Pending,
    Qp,
    Status,
    open_adapter,
)
from softndk.testing import pair
from tests.attack.attack_tools import (
    PATIENCE_S,
    callbacks_have_run,
    connect,
    held_callbacks,
    hosts,
    in_thread,
    post,
    take,
    threads,
)


class TestWithBlocks:
    def test_in_a_thread_with_an_event_loop_it_waits_for_callbacks_as_elsewhere(self) -> None:
        """A sync with block in a coroutine: bounded, so it may wait; nothing is left open and nothing warned of."""

        async def main() -> Adapter:
            with open_adapter() as adapter:
                cq = adapter.create_cq(1, lambda *_: None)
                for _ in range(100):
                    adapter.create_pd().close(on_done=lambda _: None)
                cq.arm()
                return adapter

        assert asyncio.run(main()).closed

    def test_in_a_callback_of_the_adapter_it_does_not_wait_for_that_callback(self) -> None:
        left: list[bool] = []
        with open_adapter() as adapter:
            inner = adapter.create_pd()

            def leave(_: object) -> None:
                with inner:
                    inner.create_mr()
                left.append(True)

            with warnings.catch_warnings(record=True) as caught:
                warnings.simplefilter("always")
                adapter.create_pd().close(on_done=leave)
                callbacks_have_run(adapter)
            assert left == [True]
            assert inner.closed
            assert caught == []

    def test_of_a_connector_inside_its_own_disconnect_callback(self) -> None:
        done = threading.Event()

        def gone(connector: Connector, _: object) -> None:
            with connector:
                pass
            done.set()

        with hosts() as (active, passive), warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            listener = passive.adapter.listen()
            connecting = active.adapter.connect(active.qp(), listener.local_address, on_disconnect=gone)
            incoming = listener.next_request().result(PATIENCE_S)
            accepting = incoming.accept(passive.qp())
            connector = connecting.result(PATIENCE_S)
            accepting.result(PATIENCE_S)
            incoming.close()
            assert done.wait(PATIENCE_S)
            callbacks_have_run(active.adapter)
            assert connector.closed
            assert caught == []

    def test_strict_under_warnings_as_errors_still_closes(self) -> None:
        adapter = open_adapter(strict=True)
        pd = adapter.create_pd()
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            with pytest.raises(ResourceWarning, match="pd1"):
                adapter.__exit__(None, None, None)
        assert pd.closed
        assert adapter.closed

    def test_strict_warns_at_the_place_of_the_block(self) -> None:
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            with open_adapter(strict=True) as adapter:
                adapter.create_pd()
        assert [(str(item.message), item.filename) for item in caught] == [
            (f"{adapter.name}: closed for you: pd1", __file__),
        ]

    def test_a_warning_that_waits_for_another_thread_does_not_deadlock(self) -> None:
        """Warnings call the program's code: no lock of ours may be held."""
        adapter = open_adapter(strict=True)
        adapter.create_pd()
        seen: list[object] = []

        def show(*_: object, **__: object) -> None:
            seen.append(in_thread(lambda: adapter.open_objects).result(PATIENCE_S))

        with warnings.catch_warnings():
            warnings.simplefilter("always")
            warnings.showwarning = show
            adapter.__exit__(None, None, None)
        assert seen == [()]

    def test_an_exception_in_the_block_comes_out_and_all_is_closed(self) -> None:
        adapter = open_adapter()
        pd = adapter.create_pd()

        def fail() -> None:
            with adapter:
                raise ZeroDivisionError

        with pytest.raises(ZeroDivisionError):
            fail()
        assert pd.closed

    def test_async_in_asyncio_cancelled_while_it_waits(self) -> None:
        adapter = open_adapter()

        async def leave() -> None:
            async with adapter:
                pass

        async def main() -> None:
            task = asyncio.ensure_future(leave())
            await asyncio.sleep(0)
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task

        with held_callbacks(adapter):
            asyncio.run(main())
        assert adapter.close().result(PATIENCE_S) is None


class TestCloseIsSafeAnywhere:
    def test_every_object_closed_inside_the_connect_callback(self) -> None:
        with hosts() as (active, passive):
            closed: list[Pending[None]] = []
            done = threading.Event()

            def close_it(connector: Connector) -> None:
                closed.extend(item.close() for item in (connector, listener, passive.cq, passive.pd, passive.adapter))
                done.set()

            listener = passive.adapter.create_listener(close_it)
            listener.listen(("127.0.0.1", 0)).result(0)
            with pytest.raises(NdkError):
                active.adapter.connect(active.qp(), listener.local_address).result(PATIENCE_S)
            passive.mr.close()
            assert done.wait(PATIENCE_S)
            assert [pending.exception(PATIENCE_S) for pending in closed] == [None] * 5

    def test_the_queue_closed_inside_its_own_notification(self) -> None:
        with hosts() as (active, passive):
            calls: list[Status] = []
            noted = threading.Event()

            def notify(cq: object, status: Status) -> None:
                calls.append(status)
                assert isinstance(cq, NdkObject)
                cq.close()
                noted.set()

            cq = active.adapter.create_cq(16, notify)
            active.cq = cq
            qp = active.qp()
            listener = passive.adapter.listen()
            connect(active, qp, passive.qp(), listener)
            cq.arm()
            qp.send(b"")
            assert noted.wait(PATIENCE_S)
            qp.__exit__(None, None, None)
            assert cq.close().result(PATIENCE_S) is None
            assert calls == [Status.SUCCESS]

    def test_from_many_threads_at_once(self) -> None:
        ends = pair()
        objects: list[NdkObject] = [*ends.a.adapter.open_objects, ends.a.adapter]
        start = threading.Barrier(8)

        def close_all(order: int) -> set[int]:
            start.wait(PATIENCE_S)
            return {id(item.close()) for item in (objects if order % 2 else objects[::-1])}

        with threads(8) as pool:
            found = list(pool.map(close_all, range(8)))
        assert all(ids == found[0] for ids in found)
        assert ends.a.adapter.close().result(PATIENCE_S) is None
        ends.close()

    def test_while_another_thread_posts(self) -> None:
        """R-CONC-3: a post may fail with CONNECTION_INVALID or INVALID_HANDLE then, with nothing else."""
        with hosts(cq_depth=1 << 16) as (active, passive):
            listener = passive.adapter.listen()
            for _ in range(10):
                qp = active.qp(depth=64)
                outgoing, incoming = connect(active, qp, passive.qp(), listener)
                started = threading.Event()

                def post_on(qp: Qp = qp, started: threading.Event = started) -> int:
                    count = 0
                    while True:
                        try:
                            post(qp)
                            count += 1
                        except BlockingIOError:
                            pass
                        except NdkError as error:
                            if error.status not in (Status.CONNECTION_INVALID, Status.INVALID_HANDLE):
                                raise
                            return count
                        started.set()

                sending = in_thread(post_on)
                assert started.wait(PATIENCE_S)
                outgoing.close()
                posted = sending.result(PATIENCE_S)
                assert len(take(active.cq, posted)) == posted
                assert active.cq.get_results() == []
                incoming.close()

    def test_a_second_close_gives_the_same_pending(self) -> None:
        with open_adapter() as adapter:
            pd = adapter.create_pd()
            assert pd.close() is pd.close()

    def test_on_done_of_a_child_has_returned_before_the_parents_is_called(self) -> None:
        order: list[str] = []
        adapter = open_adapter()
        pd = adapter.create_pd()
        mr = pd.register_mr(bytearray(8))
        adapter.close(on_done=lambda _: order.append("adapter"))
        pd.close(on_done=lambda _: order.append("pd 1"))
        pd.close(on_done=lambda _: order.append("pd 2"))
        last = mr.close(on_done=lambda _: order.append("mr"))
        adapter.close().result(PATIENCE_S)
        done = threading.Event()
        last.add_done_callback(lambda _: done.set())
        assert done.wait(PATIENCE_S)
        assert order[:3] == ["mr", "pd 1", "pd 2"]
        adapter.close(on_done=lambda _: done.set())

    def test_on_done_that_raises_does_not_keep_the_parent_open(self, monkeypatch: pytest.MonkeyPatch) -> None:
        unraisable: list[object] = []
        monkeypatch.setattr("sys.unraisablehook", lambda details: unraisable.append(details.exc_type))

        def bad(_: object) -> None:
            raise ZeroDivisionError

        adapter = open_adapter()
        pd = adapter.create_pd()
        closing = adapter.close()
        pd.close(on_done=bad)
        assert closing.result(PATIENCE_S) is None
        assert unraisable == [ZeroDivisionError]


class TestCloseWhileThingsAreUnderWay:
    def test_adapter_during_connects_accepts_and_waits(self, caplog: pytest.LogCaptureFixture) -> None:
        with hosts() as (active, passive):
            listener = passive.adapter.listen()
            connecting = active.adapter.connect(active.qp(), listener.local_address)
            separate = active.adapter.create_connector()
            connecting_too = separate.connect(active.qp(), listener.local_address)
            accepting = listener.next_request().result(PATIENCE_S).accept(passive.qp())
            idle = passive.adapter.listen()
            waits: list[Future[Any]] = [
                in_thread(lambda: active.cq.wait()),
                in_thread(lambda: idle.next_request().result()),
            ]
            ends: list[Pending[Any]] = [connecting, connecting_too, accepting, separate.disconnected]
        for wait in waits:
            with pytest.raises((InvalidHandle, NdkError)):
                wait.result(PATIENCE_S)
        assert all(pending.done() for pending in ends)
        errors = [pending.exception(0) for pending in ends]
        assert [type(error) for error in errors if not isinstance(error, (NdkError, type(None)))] == []
        del connecting, connecting_too, accepting, ends, errors, separate
        gc.collect()
        assert [record.message for record in caplog.records if record.levelno >= logging.ERROR] == []

    @pytest.mark.parametrize("how", ["cancel", "close"])
    def test_a_connect_that_this_side_gave_up_is_not_logged(self, how: str, caplog: pytest.LogCaptureFixture) -> None:
        """api-rules: a failure that nobody retrieved is logged, but not after a local close."""
        with hosts() as (active, passive):
            listener = passive.adapter.listen()
            connecting = active.adapter.connect(active.qp(), listener.local_address)
            if how == "cancel":
                assert connecting.cancel()
            else:
                active.adapter.__exit__(None, None, None)
            assert connecting.done()
            del connecting
            gc.collect()
        assert [record.message for record in caplog.records] == []

    def test_every_event_after_the_close_of_a_connector_is_silent(self) -> None:
        events: list[object] = []
        with hosts() as (active, passive):
            listener = passive.adapter.listen()
            connecting = active.adapter.connect(
                active.qp(), listener.local_address, on_disconnect=lambda *how: events.append(how)
            )
            incoming = listener.next_request().result(PATIENCE_S)
            incoming.accept(passive.qp())
            outgoing = connecting.result(PATIENCE_S)
            with held_callbacks(active.adapter):
                incoming.close()
                outgoing.disconnected.result(PATIENCE_S)  # the event is on its way
                outgoing.close()
            callbacks_have_run(active.adapter)
        assert events == []


class TestNeverFails:
    """R-CLOSE-1: whatever breaks inside is reported, the close completes, and what depends on it goes on."""

    @pytest.mark.parametrize("step", ["_begin_close", "_finish_close"])
    def test_when_our_own_work_breaks(self, step: str, monkeypatch: pytest.MonkeyPatch) -> None:
        reported: list[object] = []
        monkeypatch.setattr("sys.unraisablehook", lambda details: reported.append(details.exc_type))

        def broken(_: object) -> None:
            raise AssertionError("a bug of ours")

        with open_adapter() as adapter:
            pd = adapter.create_pd()
            mr = pd.register_mr(bytearray(8))
            monkeypatch.setattr(type(mr), step, broken)
            assert mr.close().result(0) is None
            assert pd.close().result(PATIENCE_S) is None
        assert reported == [AssertionError]
