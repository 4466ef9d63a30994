"""Attacks out of callbacks: they raise, hang, re-enter, hand out coroutines; and what they may not hold up."""

import asyncio
import sys
import threading
from collections.abc import Callable
from typing import Any

import pytest

from softndk import Connector, Cq, CqNotify, NdkError, Pending, Refused, Status, open_adapter
from softndk.testing import pair
from tests.attack.attack_tools import (
    PATIENCE_S,
    Host,
    callbacks_have_run,
    connect,
    held_callbacks,
    hosts,
    in_thread,
    post,
    take,
    until,
)


class Oops(Exception):
    """What callbacks raise here."""


@pytest.fixture
def reported(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    found: list[Any] = []
    monkeypatch.setattr(sys, "unraisablehook", found.append)
    return found


def bad(*_: object) -> None:
    raise Oops


async def forgotten() -> None:
    raise AssertionError("never awaited")


class TestRaising:
    """Each kind of callback raises: the hook is told of the program's own function, and everything else goes on."""

    def check(self, reported: list[Any], fn: Callable[..., object], side: Host) -> None:
        callbacks_have_run(side.adapter)
        assert [(type(item.exc_value), item.object) for item in reported] == [(Oops, fn)]
        other = side.qp()
        with open_adapter() as adapter:
            connecting = adapter.create_listener()
            connecting.listen(("127.0.0.1", 0)).result(0)
            connecting.close()
        other.__exit__(None, None, None)

    def test_on_done(self, reported: list[Any]) -> None:
        with hosts() as (active, _):
            active.adapter.create_pd().close(on_done=bad)
            self.check(reported, bad, active)

    def test_a_done_callback(self, reported: list[Any]) -> None:
        with hosts() as (active, _):
            active.adapter.build_lam(bytearray(1)).add_done_callback(bad)
            self.check(reported, bad, active)

    def test_on_notify(self, reported: list[Any]) -> None:
        with hosts() as (active, passive):
            active.cq = active.adapter.create_cq(16, bad)
            qp = active.qp()
            connect(active, qp, passive.qp(), passive.adapter.listen())
            active.cq.arm()
            post(qp)
            self.check(reported, bad, active)
            assert [result.status for result in take(active.cq, 1)] == [Status.SUCCESS]
            active.cq.arm()
            post(qp)
            until(lambda: len(reported) == 2)

    def test_on_connect(self, reported: list[Any]) -> None:
        with hosts() as (active, passive):
            listener = passive.adapter.create_listener(bad)
            listener.listen(("127.0.0.1", 0)).result(0)
            with pytest.raises(Refused):
                active.adapter.connect(active.qp(), listener.local_address).result(PATIENCE_S)
            self.check(reported, bad, passive)
            assert not any(isinstance(item, Connector) for item in passive.adapter.open_objects)

    def test_on_connect_after_it_has_accepted(self, reported: list[Any]) -> None:
        with hosts() as (active, passive):
            accepted: list[Connector] = []

            def accept(connector: Connector) -> None:
                connector.accept(passive.qp())
                accepted.append(connector)
                raise Oops

            listener = passive.adapter.create_listener(accept)
            listener.listen(("127.0.0.1", 0)).result(0)
            active.adapter.connect(active.qp(), listener.local_address).result(PATIENCE_S)
            self.check(reported, accept, passive)
            assert not accepted[0].closing

    def test_on_disconnect(self, reported: list[Any]) -> None:
        with hosts() as (active, passive):
            listener = passive.adapter.listen()
            connecting = active.adapter.connect(active.qp(), listener.local_address, on_disconnect=bad)
            incoming = listener.next_request().result(PATIENCE_S)
            incoming.accept(passive.qp())
            connector = connecting.result(PATIENCE_S)
            incoming.close()
            assert connector.disconnected.result(PATIENCE_S).graceful
            self.check(reported, bad, active)
            assert connector.close().result(PATIENCE_S) is None

    def test_of_a_shared_receive_queue(self, reported: list[Any]) -> None:
        with hosts() as (active, _):
            srq = active.pd.create_srq(4, on_notify=bad)
            srq.modify(notify_threshold=1)
            self.check(reported, bad, active)
            assert srq.close().result(PATIENCE_S) is None

    @pytest.mark.parametrize("error", [KeyboardInterrupt, SystemExit, GeneratorExit])
    def test_what_ends_threads_elsewhere_does_not_end_the_callbacks(
        self, reported: list[Any], error: type[BaseException]
    ) -> None:
        def leave(_: object) -> None:
            raise error

        with open_adapter() as adapter:
            adapter.create_pd().close(on_done=leave)
            callbacks_have_run(adapter)
        assert [type(item.exc_value) for item in reported] == [error]

    def test_a_hook_that_raises_itself(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(sys, "unraisablehook", bad)
        with open_adapter() as adapter:
            adapter.create_pd().close(on_done=bad)
            callbacks_have_run(adapter)


class TestCoroutines:
    def test_one_that_a_callback_returns_is_reported_and_closed(self, reported: list[Any]) -> None:
        """A lambda hides the coroutine function; nobody awaits what it gives, and nobody is warned otherwise."""
        with hosts() as (active, passive):
            active.cq = active.adapter.create_cq(16, lambda *_: forgotten())
            listener = passive.adapter.create_listener(lambda connector: forgotten())
            listener.listen(("127.0.0.1", 0)).result(0)
            with pytest.raises(Refused):
                active.adapter.connect(active.qp(), listener.local_address).result(PATIENCE_S)
            active.adapter.create_pd().close(on_done=lambda _: forgotten())
            active.cq._ring.fail(Status.INTERNAL_ERROR)
            active.cq.arm()
            callbacks_have_run(active.adapter)
            callbacks_have_run(passive.adapter)
        assert [type(item.exc_value) for item in reported] == [TypeError] * 3
        assert all("coroutine" in str(item.exc_value) for item in reported)


class TestReentering:
    def test_all_that_does_not_wait_may_be_called_and_no_lock_is_held(self) -> None:
        """Another thread gets through every call while the callback is in progress."""
        with hosts() as (active, passive):
            done = threading.Event()
            outcome: list[object] = []

            def notify(cq: Cq, _: Status) -> None:
                outcome.append(in_thread(lambda: cq.get_results()).result(PATIENCE_S))
                if len(outcome) < 4:
                    cq.arm()
                    post(qp)
                qp.receive([])
                active.adapter.create_pd().close()
                outcome.append(in_thread(lambda: active.adapter.open_objects).result(PATIENCE_S))
                if len(outcome) == 4:  # the write in the first call has made the second
                    done.set()

            active.cq = active.adapter.create_cq(64, notify)
            qp = active.qp()
            connect(active, qp, passive.qp(), passive.adapter.listen())
            active.cq.arm()
            post(qp, "first")
            assert done.wait(PATIENCE_S)
            callbacks_have_run(active.adapter)
            assert [result.request_context for result in outcome[0]] == ["first"]  # type: ignore[attr-defined]

    def test_waiting_in_a_callback_of_another_adapter_is_refused_too(self) -> None:
        """It could wait for a callback that waits for this one."""
        refused: list[BaseException] = []
        with open_adapter() as adapter, hosts() as (active, _):

            def wait(_: object) -> None:
                try:
                    active.cq.wait(PATIENCE_S)
                except BaseException as error:
                    refused.append(error)

            adapter.create_pd().close(on_done=wait)
            callbacks_have_run(adapter)
        assert [type(error) for error in refused] == [RuntimeError]

    def test_leaving_the_adapters_own_block_inside_a_callback(self) -> None:
        with open_adapter() as adapter:
            inside: list[Pending[None]] = []

            def leave(_: object) -> None:
                adapter.__exit__(None, None, None)
                inside.append(adapter.close())

            adapter.create_pd().close(on_done=leave)
            until(lambda: bool(inside))
            assert inside[0].result(PATIENCE_S) is None


class TestHanging:
    """A callback that does not return holds up other callbacks of its adapter, and nothing else."""

    def test_traffic_waits_and_disconnects_go_on(self) -> None:
        with pair() as (a, b), held_callbacks(a.adapter), held_callbacks(b.adapter):
            for number in range(3):
                b.qp.receive(b.mr[0:8], context=number)
                a.qp.send(b"ping")
                assert [result.request_context for result in b.cq.wait(PATIENCE_S)] == [number]
                a.cq.wait(PATIENCE_S)
            ending = a.connector.disconnect()
            assert b.connector.disconnected.result(PATIENCE_S).graceful
            b.connector.disconnect().result(PATIENCE_S)
            ending.result(PATIENCE_S)

    def test_connecting_goes_on(self) -> None:
        with hosts() as (active, passive), held_callbacks(active.adapter), held_callbacks(passive.adapter):
            connect(active, active.qp(), passive.qp(), passive.adapter.listen())

    def test_a_failed_queue_still_takes_its_connections_with_it(self) -> None:
        """R-CQERR-1 does not wait for the program."""
        with hosts() as (active, passive):
            active.cq = active.adapter.create_cq(1)
            qp = active.qp()
            outgoing, incoming = connect(active, qp, passive.qp(), passive.adapter.listen())
            with held_callbacks(active.adapter):
                for _ in range(2):
                    post(qp)
                assert not incoming.disconnected.result(PATIENCE_S).graceful
                assert not outgoing.disconnected.result(PATIENCE_S).graceful

    def test_closing_without_a_block_pends_and_says_why(self) -> None:
        with open_adapter() as adapter:
            begun, end = threading.Event(), threading.Event()

            def hang(*_: object) -> None:
                begun.set()
                end.wait(PATIENCE_S)

            cq = adapter.create_cq(4, hang)
            cq._ring.fail(Status.INTERNAL_ERROR)
            cq.arm()
            assert begun.wait(PATIENCE_S)
            closing = cq.close()
            with pytest.raises(TimeoutError, match="callback"):
                closing.result(0.01)
            end.set()
            assert closing.result(PATIENCE_S) is None


class TestArmingUnderFire:
    def test_no_completion_is_missed_by_who_drains_and_arms(self) -> None:
        total = 500
        found: list[object] = []
        enough = threading.Event()
        with hosts(cq_depth=1024) as (active, passive):

            def drain(cq: Cq, _: Status) -> None:
                while results := cq.get_results(7):
                    found.extend(result.request_context for result in results)
                cq.arm(CqNotify.ANY)
                if len(found) >= total:
                    enough.set()

            active.cq = active.adapter.create_cq(1024, drain)
            qp = active.qp(depth=64)
            connect(active, qp, passive.qp(), passive.adapter.listen())
            active.cq.arm()
            sent = 0
            while sent < total:
                try:
                    post(qp, sent)
                    sent += 1
                except BlockingIOError:
                    pass
            assert enough.wait(PATIENCE_S)
            assert found == list(range(total))

    def test_the_descriptor_never_misses_one_either(self) -> None:
        total = 300
        found: list[object] = []
        with hosts(cq_depth=1024) as (active, passive):
            qp = active.qp(depth=64)
            connect(active, qp, passive.qp(), passive.adapter.listen())

            async def main() -> None:
                loop, done = asyncio.get_running_loop(), asyncio.Event()

                def readable() -> None:
                    while results := active.cq.get_results(3):
                        found.extend(result.request_context for result in results)
                    active.cq.arm()
                    if len(found) == total:
                        done.set()

                loop.add_reader(active.cq.fileno(), readable)
                active.cq.arm()
                sending = in_thread(send)
                await asyncio.wait_for(done.wait(), PATIENCE_S)
                loop.remove_reader(active.cq.fileno())
                sending.result(0)

            def send() -> None:
                sent = 0
                while sent < total:
                    try:
                        post(qp, sent)
                        sent += 1
                    except BlockingIOError:
                        pass

            asyncio.run(main())
            assert found == list(range(total))


def test_callbacks_come_in_the_order_of_their_causes() -> None:
    """Connect's outcome, then the disconnect of that connection, then the close: each told by a callback."""
    order: list[str] = []
    with hosts() as (active, passive):
        listener = passive.adapter.listen()
        connecting = active.adapter.connect(
            active.qp(), listener.local_address, on_disconnect=lambda *_: order.append("disconnect")
        )
        with held_callbacks(active.adapter):
            connecting.add_done_callback(lambda _: order.append("connect"))
            incoming = listener.next_request().result(PATIENCE_S)
            incoming.accept(passive.qp())
            connector = connecting.result(PATIENCE_S)
            incoming.close()
            connector.disconnected.result(PATIENCE_S)
        callbacks_have_run(active.adapter)
        connector.close(on_done=lambda _: order.append("close"))
        callbacks_have_run(active.adapter)
    assert order == ["connect", "disconnect", "close"]


def test_an_error_in_a_result_of_a_callback_is_the_programs(reported: list[Any]) -> None:
    """add_done_callback gives the Pending; asking it for a failure in the callback raises there and is reported."""
    with hosts() as (active, _):
        connecting = active.adapter.connect(active.qp(), ("127.0.0.1", 1))
        connecting.add_done_callback(lambda done: done.result())
        until(lambda: bool(reported))
    assert isinstance(reported[0].exc_value, NdkError)
