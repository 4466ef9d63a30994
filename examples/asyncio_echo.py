"""An echo server and a client in asyncio, explained in docs/howto/async.md.

It prints:
    b'one'
    b'two'
    b'three'
"""

# [imports]
import asyncio

from softndk import Adapter, Address, Connector, Disconnect, Listener, OpFlag, Status, open_adapter

SLOTS = 4
ROOM = 1024


# [server]
async def serve(adapter: Adapter, listener: Listener) -> None:
    async with asyncio.TaskGroup() as clients:
        async for incoming in listener:  # ends when the listener is closed
            clients.create_task(echo(adapter, incoming))


async def echo(adapter: Adapter, incoming: Connector) -> None:
    pd, cq = adapter.create_pd(), adapter.create_cq(2 * SLOTS)
    async with pd, cq, incoming:
        qp = pd.create_qp(cq, cq, receive_queue_depth=SLOTS, initiator_queue_depth=SLOTS)
        inbox = pd.register_mr(bytearray(SLOTS * ROOM))
        for slot in range(SLOTS):
            qp.receive(inbox[slot * ROOM : (slot + 1) * ROOM], context=slot)
        await incoming.accept(qp, on_disconnect=client_left)
        async for result in cq:
            if result.status is Status.CANCELLED:
                break
            result.check()
            start = result.request_context * ROOM
            if result.is_receive:  # send it back from where it lies
                qp.send(inbox[start : start + result.bytes_transferred], context=result.request_context)
            else:  # it has been sent: the place is free for the next message
                qp.receive(inbox[start : start + ROOM], context=result.request_context)


def client_left(connector: Connector, how: Disconnect) -> None:
    connector.close()


# [client]
async def talk(adapter: Adapter, server: Address) -> None:
    pd, cq = adapter.create_pd(), adapter.create_cq(4)
    qp = pd.create_qp(cq, cq, receive_queue_depth=1, initiator_queue_depth=1)
    answer = pd.register_mr(bytearray(ROOM))
    await adapter.connect(qp, server)
    for word in (b"one", b"two", b"three"):
        qp.receive(answer[:])
        qp.send(word, flags=OpFlag.SILENT_SUCCESS)
        async with asyncio.timeout(5):
            (result,) = await cq.next_results()
        print(bytes(answer.view[: result.check().bytes_transferred]))


# [main]
async def main() -> None:
    async with open_adapter() as server_adapter, asyncio.TaskGroup() as group:
        listener = server_adapter.listen()
        group.create_task(serve(server_adapter, listener))
        async with open_adapter() as client_adapter:
            await talk(client_adapter, listener.local_address)
        listener.close()


# [end]
if __name__ == "__main__":
    asyncio.run(main())
