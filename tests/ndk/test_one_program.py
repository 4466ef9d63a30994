"""One program, four ways to wait: in threads, in asyncio tasks, in trio tasks, and mixed. It must see the same.

The two sides are generators that yield what they wait for. Who runs them decides how that is done; nothing else differs.
"""

import asyncio
import threading
from collections.abc import Callable, Generator
from typing import Any

import pytest
import trio

from softndk import Address, Connector, Cq, MrFlag, NdkError, OpFlag, Pending, RemoteToken, Result, open_adapter
from tests.ndk.ends import PATIENCE_S

Side = Generator[Pending[Any], Any, list[object]]
ROUNDS = 20


def line(result: Result) -> tuple[object, ...]:
    return result.type, result.status, result.bytes_transferred, result.request_context


def collect(cq: Cq, count: int) -> Generator[Pending[Any], Any, list[tuple[object, ...]]]:
    """The next `count` results, in the order of each queue: which of two queues is first is nobody's promise."""
    found: list[Result] = []
    while len(found) < count:
        found += yield cq.next_results(max_results=count - len(found))
    return [line(result) for result in sorted(found, key=lambda result: result.is_receive)]


def server(listener_ready: Callable[[Address], object]) -> Side:
    seen: list[object] = []
    with open_adapter() as adapter:
        pd, received, done = adapter.create_pd(), adapter.create_cq(64), adapter.create_cq(64)
        qp = pd.create_qp(received, done, receive_queue_depth=4, initiator_queue_depth=8)
        inbox, data = pd.register_mr(bytearray(64)), pd.register_mr(bytes(range(200)))
        qp.receive(inbox[:], context="request 0")
        listener = adapter.listen()
        listener_ready(listener.local_address)
        connector = yield listener.next_request()
        seen.append(connector.connection_data.private_data)
        yield connector.accept(qp)
        for number in range(ROUNDS):
            seen += yield from collect(received, 1)
            address, token = (int(part) for part in bytes(inbox.view).rstrip(b"\0").split())
            inbox.view[:] = bytes(64)
            qp.receive(inbox[:], context=f"request {number + 1}")
            qp.write(data[number : number + 100], address, RemoteToken(token), context="fill")
            qp.send_and_invalidate(b"done", RemoteToken(token), flags=OpFlag.SEND_AND_SOLICIT_EVENT, context="answer")
            seen += yield from collect(done, 2)
        how = yield connector.disconnected
        seen.append(how.graceful)
        yield connector.disconnect()
        seen += yield from collect(received, 1)
    return seen


def client(destination: Address) -> Side:
    seen: list[object] = []
    with open_adapter() as adapter:
        pd, cq = adapter.create_pd(), adapter.create_cq(64)
        qp = pd.create_qp(cq, cq, receive_queue_depth=4, initiator_queue_depth=8)
        inbox = pd.register_mr(bytearray(16))
        lent = pd.register_mr(bytearray(100), MrFlag.ALLOW_LOCAL_WRITE)
        connector: Connector = yield adapter.connect(qp, destination, private_data=b"one program")
        window = pd.create_mw()
        for number in range(ROUNDS):
            qp.receive(inbox[:], context=f"answer {number}")
            qp.bind(lent, window, flags=OpFlag.ALLOW_REMOTE_WRITE, context="lend")
            qp.send(b"%20d %10d" % (lent.address, window.remote_token), context="ask")
            seen += yield from collect(cq, 3)
            assert bytes(lent.view) == bytes(range(number, number + 100))
        try:
            qp.invalidate(window)
        except NdkError as error:
            seen.append(error.status)
        yield connector.disconnect()
        seen.append(cq.get_results())
    return seen


# ---- ways to run a side


def in_this_thread(side: Side) -> list[object]:
    value: Any = None
    while True:
        try:
            value = side.send(value).result(PATIENCE_S)
        except StopIteration as end:
            return list(end.value)


async def in_this_task(side: Side) -> list[object]:
    value: Any = None
    while True:
        try:
            value = await side.send(value)
        except StopIteration as end:
            return list(end.value)


def by_threads() -> tuple[list[object], list[object]]:
    found: list[list[object]] = [[]]
    where: list[Address] = []
    ready = threading.Event()

    def listening(address: Address) -> None:
        where.append(address)
        ready.set()

    def serve() -> None:
        found[0] = in_this_thread(server(listening))

    thread = threading.Thread(target=serve)
    thread.start()
    assert ready.wait(PATIENCE_S)
    mine = in_this_thread(client(where[0]))
    thread.join(PATIENCE_S)
    return found[0], mine


def by_asyncio() -> tuple[list[object], list[object]]:
    async def main() -> tuple[list[object], list[object]]:
        where: asyncio.Future[Address] = asyncio.get_running_loop().create_future()
        async with asyncio.timeout(PATIENCE_S), asyncio.TaskGroup() as group:
            theirs = group.create_task(in_this_task(server(where.set_result)))
            mine = group.create_task(in_this_task(client(await where)))
        return theirs.result(), mine.result()

    return asyncio.run(main())


def by_trio() -> tuple[list[object], list[object]]:
    async def main() -> tuple[list[object], list[object]]:
        found: dict[str, list[object]] = {}
        send, receive = trio.open_memory_channel[Address](1)

        async def serve() -> None:
            found["server"] = await in_this_task(server(send.send_nowait))

        with trio.fail_after(PATIENCE_S):
            async with trio.open_nursery() as nursery:
                nursery.start_soon(serve)
                found["client"] = await in_this_task(client(await receive.receive()))
        return found["server"], found["client"]

    return trio.run(main)


def by_a_thread_and_a_task() -> tuple[list[object], list[object]]:
    async def main() -> tuple[list[object], list[object]]:
        loop = asyncio.get_running_loop()
        where: asyncio.Future[Address] = loop.create_future()
        serving = loop.run_in_executor(
            None,
            lambda: in_this_thread(server(lambda address: loop.call_soon_threadsafe(where.set_result, address))),
        )
        async with asyncio.timeout(PATIENCE_S):
            mine = await in_this_task(client(await where))
            return await serving, mine

    return asyncio.run(main())


@pytest.mark.parametrize("run", [by_asyncio, by_trio, by_a_thread_and_a_task])
def test_the_same_program_sees_the_same_whoever_waits(run: Callable[[], tuple[list[object], list[object]]]) -> None:
    theirs, mine = by_threads()
    assert len(theirs) == 1 + 3 * ROUNDS + 2
    assert len(mine) == 3 * ROUNDS + 2
    assert run() == (theirs, mine)
