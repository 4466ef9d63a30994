"""A store of values for clients that lend their memory: the program that docs/tutorial.md builds.

A client lends its buffer to the server for one request, through a memory window. The server reads or writes the buffer
by RDMA and gives the token back with its answer (send_and_invalidate). Both sides run in this process here.

It prints:
    b'hello, world'
    None
    1048576 octets come back unchanged
"""

# [imports]
import logging
import os
import struct
import threading
from typing import NamedTuple

from softndk import (
    Adapter,
    Address,
    Connector,
    Disconnect,
    NdkError,
    OpFlag,
    RemoteToken,
    Result,
    open_adapter,
)

# [messages]
LAYOUT = struct.Struct(">8s16sIIQ")  # verb, key, token, length, address


class Message(NamedTuple):
    """A request or an answer: 40 octets, big-endian. Token, length and address name the memory that is lent."""

    verb: str
    key: str
    token: int = 0
    length: int = 0
    address: int = 0

    def emit(self) -> bytes:
        words = self.verb.encode().ljust(8), self.key.encode().ljust(16)
        return LAYOUT.pack(*words, self.token, self.length, self.address)

    @classmethod
    def parse(cls, data: bytes) -> "Message":
        verb, key, token, length, address = LAYOUT.unpack(data)
        return cls(verb.decode().rstrip(), key.decode().rstrip(), token, length, address)


# [side]
SLOTS = 4


class Side:
    """What one connection needs on one side: queues, and receives that are always posted."""

    def __init__(self, adapter: Adapter) -> None:
        self.pd = adapter.create_pd()
        self.received = adapter.create_cq(SLOTS)
        self.done = adapter.create_cq(SLOTS)
        self.qp = self.pd.create_qp(self.received, self.done, receive_queue_depth=SLOTS, initiator_queue_depth=SLOTS)
        self.inbox = self.pd.register_mr(bytearray(SLOTS * LAYOUT.size))
        for slot in range(SLOTS):
            self.post_receive(slot)

    def post_receive(self, slot: int) -> None:
        start = slot * LAYOUT.size
        self.qp.receive(self.inbox[start : start + LAYOUT.size], context=slot)

    def next_message(self, timeout: float | None = 5.0) -> tuple[Message, Result]:
        (result,) = self.received.wait(timeout, max_results=1)
        result.check()
        start = result.request_context * LAYOUT.size
        message = Message.parse(bytes(self.inbox.view[start : start + result.bytes_transferred]))
        self.post_receive(result.request_context)
        return message, result


# [client]
class Client:
    """Asks a server for values. One request at a time."""

    def __init__(self, adapter: Adapter, server: Address, room: int = 1 << 20) -> None:
        self.side = Side(adapter)
        self.buffer = self.side.pd.register_mr(bytearray(room))
        self.window = self.side.pd.create_mw()
        self.connector = adapter.connect(self.side.qp, server).result(5)

    def put(self, key: str, data: bytes) -> None:
        self.buffer.view[: len(data)] = data
        self.request("put", key, len(data), OpFlag.ALLOW_REMOTE_READ)

    def get(self, key: str) -> bytes | None:
        answer = self.request("get", key, self.buffer.length, OpFlag.ALLOW_REMOTE_WRITE)
        return bytes(self.buffer.view[: answer.length]) if answer.verb == "ok" else None

    def request(self, verb: str, key: str, length: int, right: OpFlag) -> Message:
        token, address = self.window.remote_token, self.buffer.address
        flags = right | OpFlag.SILENT_SUCCESS | OpFlag.DEFER
        self.side.qp.bind(self.buffer, self.window, address, length, flags=flags)
        self.side.qp.send(Message(verb, key, token, length, address).emit(), flags=OpFlag.SILENT_SUCCESS)
        answer, result = self.side.next_message()
        if result.invalidated_token != token:
            raise ValueError("the server has answered and kept the token")
        return answer


# [server]
LARGEST = 1 << 24
log = logging.getLogger("store")


class Server:
    """Keeps values. A thread for each client."""

    def __init__(self, adapter: Adapter) -> None:
        self.adapter = adapter
        self.listener = adapter.listen()
        self.values: dict[str, bytes] = {}

    def run(self) -> None:
        for incoming in self.listener:
            threading.Thread(target=self.serve, args=(incoming,)).start()

    def serve(self, incoming: Connector) -> None:
        side = Side(self.adapter)
        try:
            with side.pd, side.received, side.done, incoming:
                incoming.accept(side.qp, on_disconnect=self.client_left).result(5)
                while True:
                    request, _ = side.next_message(None)
                    self.answer(side, request)
        except (NdkError, ValueError, struct.error) as error:
            log.info("%s: %s", incoming.name, error)

    @staticmethod
    def client_left(connector: Connector, how: Disconnect) -> None:
        connector.close()

    def answer(self, side: Side, request: Message) -> None:
        token = RemoteToken(request.token)
        if request.verb == "put" and request.length <= LARGEST:
            with side.pd.register_mr(bytearray(request.length)) as sink:
                side.qp.read(sink[:], request.address, token)
                side.done.wait(5)[0].check()
                self.values[request.key] = bytes(sink.view)
            self.reply(side, Message("ok", request.key), token)
            return
        value = self.values.get(request.key)
        if request.verb != "get" or value is None or len(value) > request.length:
            self.reply(side, Message("refused", request.key), token)
            return
        with side.pd.register_mr(value) as source:
            side.qp.write(source[:], request.address, token, flags=OpFlag.SILENT_SUCCESS | OpFlag.DEFER)
            self.reply(side, Message("ok", request.key, length=len(value)), token)

    def reply(self, side: Side, message: Message, token: RemoteToken) -> None:
        side.qp.send_and_invalidate(message.emit(), token)
        side.done.wait(5)[0].check()


# [main]
def main() -> None:
    with open_adapter() as server_adapter, open_adapter(trace="client.pcapng") as client_adapter:
        server = Server(server_adapter)
        threading.Thread(target=server.run).start()
        client = Client(client_adapter, server.listener.local_address)
        client.put("greeting", b"hello, world")
        print(client.get("greeting"))
        print(client.get("something else"))
        block = os.urandom(1 << 20)
        client.put("block", block)
        if client.get("block") == block:
            print(len(block), "octets come back unchanged")


# [end]
if __name__ == "__main__":
    main()
