"""Attacks from event loops: tasks that are cancelled at the worst moment, loops that are closed, many loops at once."""

import asyncio
import gc
import random
import threading
from collections.abc import Awaitable, Callable
from typing import Any

import pytest
import trio

from softndk import Connector, InvalidHandle, Refused, RequestCancelled
from tests.attack.attack_tools import (
    PATIENCE_S,
    Host,
    callbacks_have_run,
    connect,
    hosts,
    in_thread,
    mpa_request,
    post,
    raw_client,
    take,
    until,
)


def run_asyncio(fn: Callable[[], Awaitable[Any]]) -> Any:
    async def main() -> Any:
        return await asyncio.wait_for(fn(), PATIENCE_S)

    return asyncio.run(main())


def run_trio(fn: Callable[[], Awaitable[Any]]) -> Any:
    async def main() -> Any:
        with trio.fail_after(PATIENCE_S):
            return await fn()

    return trio.run(main)


async def expire_asyncio(awaitable: Awaitable[Any], seconds: float) -> Any:
    async def wait() -> Any:
        return await awaitable

    try:
        return await asyncio.wait_for(wait(), seconds)
    except TimeoutError:
        return None


async def expire_trio(awaitable: Awaitable[Any], seconds: float) -> Any:
    with trio.move_on_after(seconds):
        return await awaitable
    return None


LIBRARIES = pytest.mark.parametrize(
    ("run", "expire"), [(run_asyncio, expire_asyncio), (run_trio, expire_trio)], ids=["asyncio", "trio"]
)


def connectors(side: Host) -> list[Connector]:
    return [item for item in side.adapter.open_objects if isinstance(item, Connector)]


class TestCancelledConnects:
    @LIBRARIES
    def test_the_half_made_connector_is_closed_and_the_qp_is_free(
        self, run: Any, expire: Any, caplog: pytest.LogCaptureFixture
    ) -> None:
        with hosts() as (active, passive):
            listener, qp = passive.adapter.listen(), active.qp()

            async def main() -> None:
                assert await expire(active.adapter.connect(qp, listener.local_address), 0.01) is None

            run(main)
            assert connectors(active) == []
            gone = listener.next_request().result(PATIENCE_S)
            gone.close().result(PATIENCE_S)
            connect(active, qp, passive.qp(), listener)
            gc.collect()
        assert [record.message for record in caplog.records] == []

    @LIBRARIES
    def test_a_connect_that_succeeds_at_the_very_moment_is_closed_too(self, run: Any, expire: Any) -> None:
        """Cancelled between the outcome and the task's next step: nobody would ever know of the connector."""
        with hosts() as (active, passive):
            listener = passive.adapter.create_listener(lambda connector: connector.accept(passive.qp()))
            listener.listen(("127.0.0.1", 0)).result(0)
            rounds = 40

            async def main() -> None:
                # In asyncio a task may be cancelled before its first step: then nothing has been awaited.
                for number in range(1 if run is run_asyncio else 0, rounds):
                    qp = active.qp()
                    pending = active.adapter.connect(qp, listener.local_address)
                    connector = await expire(pending, number * 0.0002)
                    if connector is not None:
                        assert not connector.closing
                        connector.close()
                    assert connectors(active) == []

            run(main)

    def test_cancel_from_a_thread_while_a_task_waits(self) -> None:
        with hosts() as (active, passive):
            listener = passive.adapter.listen()

            async def main() -> None:
                pending = active.adapter.connect(active.qp(), listener.local_address)

                def cancel() -> bool:
                    until(lambda: bool(pending._waiters))
                    return pending.cancel()

                cancelling = in_thread(cancel)
                with pytest.raises(RequestCancelled, match="closed by this side"):
                    await pending
                assert cancelling.result(PATIENCE_S)

            run_asyncio(main)
            assert connectors(active) == []

    def test_a_cancelled_one_of_two_waiters_takes_nothing_from_the_other(self) -> None:
        with hosts() as (active, passive):
            listener = passive.adapter.listen()

            async def main() -> None:
                pending = active.adapter.connect(active.qp(), listener.local_address)
                impatient = asyncio.ensure_future(expire_asyncio(pending, 0.01))
                patient = asyncio.ensure_future(expire_asyncio(pending, PATIENCE_S))
                assert await impatient is None
                (await listener.next_request()).accept(passive.qp())
                assert not (await patient).closing

            run_asyncio(main)


class TestNothingIsLostOrDoubled:
    @LIBRARIES
    def test_requests_when_the_waits_for_them_expire(self, run: Any, expire: Any) -> None:
        with hosts() as (_, passive):
            listener = passive.adapter.listen()
            total = 30
            found: list[bytes] = []

            async def main() -> None:
                while len(found) < total:
                    connector = await expire(listener.next_request(), 0.0005)
                    if connector is not None:
                        found.append(connector.connection_data.private_data)
                        connector.close()

            def clients() -> None:
                for number in range(total):
                    raw_client(listener.local_address, mpa_request(b"%d" % number)).close()

            passive.adapter  # noqa: B018
            sending = in_thread(clients)
            run(main)
            sending.result(PATIENCE_S)
            assert sorted(found) == sorted(b"%d" % number for number in range(total))

    @LIBRARIES
    def test_results_when_the_waits_for_them_are_cancelled_at_random(self, run: Any, expire: Any) -> None:
        """Several tasks whose awaits expire all the time, against a stream of results: each context exactly once."""
        seed = random.randrange(1 << 32)
        print("seed", seed)
        chance = random.Random(seed)
        total = 400
        with hosts(cq_depth=1024) as (active, passive):
            qp, peer = active.qp(depth=512), passive.qp(depth=512)
            connect(active, qp, peer, passive.adapter.listen())
            found: list[object] = []

            async def collect() -> None:
                while len(found) < total:
                    limit = chance.randint(1, 5)
                    results = await expire(active.cq.next_results(max_results=limit), chance.random() * 0.002)
                    found.extend(result.request_context for result in results or ())

            async def main() -> None:
                sending = in_thread(send)
                if run is run_asyncio:
                    await asyncio.gather(*(collect() for _ in range(4)))
                else:
                    async with trio.open_nursery() as nursery:
                        for _ in range(4):
                            nursery.start_soon(collect)
                sending.result(PATIENCE_S)

            def send() -> None:
                sent = 0
                while sent < total:
                    try:
                        post(qp, sent)
                        sent += 1
                    except BlockingIOError:
                        pass

            run(main)
            assert sorted(found, key=lambda item: int(str(item))) == list(range(total))
            assert active.cq.get_results() == []

    def test_a_task_that_is_cancelled_once_woken_wakes_the_next(self) -> None:
        with hosts() as (active, passive):
            qp = active.qp()
            connect(active, qp, passive.qp(), passive.adapter.listen())

            async def main() -> None:
                first = asyncio.ensure_future(expire_asyncio(active.cq.next_results(), PATIENCE_S))
                await asyncio.sleep(0)
                await asyncio.sleep(0)
                second = in_thread(lambda: active.cq.wait(PATIENCE_S))
                until(lambda: len(active.cq._line) == 2)
                post(qp, "one")  # wakes the first, whose task has not run yet
                first.cancel()
                with pytest.raises(asyncio.CancelledError):
                    await first
                results = await asyncio.to_thread(second.result, PATIENCE_S)
                assert [result.request_context for result in results] == ["one"]

            run_asyncio(main)


class TestDyingLoops:
    def test_a_loop_that_is_closed_while_its_task_waits_first_in_line(self) -> None:
        with hosts() as (active, passive):
            qp = active.qp()
            connect(active, qp, passive.qp(), passive.adapter.listen())
            loop = asyncio.new_event_loop()

            async def wait() -> None:
                await active.cq.next_results()

            task = loop.create_task(wait())
            loop.run_until_complete(asyncio.sleep(0))
            until(lambda: len(active.cq._line) == 1)
            loop.close()
            waiting = in_thread(lambda: active.cq.wait(PATIENCE_S))
            post(qp, "for the living")
            assert [result.request_context for result in waiting.result(PATIENCE_S)] == ["for the living"]
            task._log_destroy_pending = False  # type: ignore[attr-defined]

    def test_a_loop_that_stands_still_holds_nobody_up_for_long(self) -> None:
        with hosts() as (active, passive):
            qp = active.qp()
            connect(active, qp, passive.qp(), passive.adapter.listen())

            async def main() -> None:
                sleeping = asyncio.ensure_future(expire_asyncio(active.cq.next_results(), PATIENCE_S))
                await asyncio.sleep(0)
                await asyncio.sleep(0)
                until(lambda: len(active.cq._line) == 1)
                other = in_thread(lambda: active.cq.wait(PATIENCE_S))
                until(lambda: len(active.cq._line) == 2)
                post(qp, 1)
                assert [result.request_context for result in other.result(PATIENCE_S)] == [1]  # blocks this loop
                post(qp, 2)
                assert [result.request_context for result in await sleeping] == [2]

            run_asyncio(main)

    def test_many_loops_and_threads_on_one_queue(self) -> None:
        total = 300
        with hosts(cq_depth=1024) as (active, passive):
            qp, peer = active.qp(depth=512), passive.qp(depth=512)
            connect(active, qp, peer, passive.adapter.listen())
            found: list[object] = []
            lock = threading.Lock()

            def note(results: Any) -> None:
                with lock:
                    found.extend(result.request_context for result in results)

            async def loop_main() -> None:
                while True:
                    try:
                        note(await active.cq.next_results(max_results=3))
                    except InvalidHandle:
                        return

            def thread_main() -> None:
                while True:
                    try:
                        note(active.cq.wait(max_results=3))
                    except InvalidHandle:
                        return

            runners: list[Callable[[], Any]] = [
                *[lambda: asyncio.run(loop_main())] * 3,
                *[lambda: trio.run(loop_main)] * 3,
                *[thread_main] * 3,
            ]
            futures = [in_thread(runner) for runner in runners]
            for number in range(total):
                while True:
                    try:
                        post(qp, number)
                        break
                    except BlockingIOError:
                        continue
            until(lambda: len(found) >= total)
            qp.__exit__(None, None, None)
            active.cq.close()
            for future in futures:
                future.result(PATIENCE_S)
            assert sorted(found, key=lambda item: int(str(item))) == list(range(total))


class TestIteration:
    @LIBRARIES
    def test_a_break_out_of_async_for_loses_nothing(self, run: Any, expire: Any) -> None:
        with hosts() as (active, passive):
            qp = active.qp()
            connect(active, qp, passive.qp(), passive.adapter.listen())
            for number in range(4):
                post(qp, number)
            seen = []

            async def main() -> None:
                for _ in range(4):
                    async for result in active.cq:
                        seen.append(result.request_context)
                        break

            run(main)
            assert seen == [0, 1, 2, 3]

    @LIBRARIES
    def test_async_for_over_a_listener_ends_with_it(self, run: Any, expire: Any) -> None:
        with hosts() as (active, passive):
            listener = passive.adapter.listen()

            async def main() -> None:
                connecting = active.adapter.connect(active.qp(), listener.local_address)
                async for connector in listener:
                    connector.reject()
                    listener.close()
                with pytest.raises(Refused):
                    await connecting

            run(main)


class TestDoneCallbacks:
    def test_of_a_wait_take_the_results_once(self) -> None:
        with hosts() as (active, passive):
            qp = active.qp()
            connect(active, qp, passive.qp(), passive.adapter.listen())
            got: list[object] = []
            pending = active.cq.next_results()
            for _ in range(2):
                pending.add_done_callback(lambda done: got.append(done.result()))
            post(qp, "x")
            until(lambda: len(got) == 2)
            assert got[0] == got[1] == pending.result(0)
            assert active.cq.get_results() == []

    def test_of_a_wait_that_is_cancelled_leave_the_results_to_others(self) -> None:
        with hosts() as (active, passive):
            qp = active.qp()
            connect(active, qp, passive.qp(), passive.adapter.listen())
            told: list[object] = []
            pending = active.cq.next_results()
            pending.add_done_callback(told.append)
            assert pending.cancel()
            post(qp, "x")
            assert [result.request_context for result in take(active.cq, 1)] == ["x"]
            callbacks_have_run(active.adapter)
            assert told == [pending]
