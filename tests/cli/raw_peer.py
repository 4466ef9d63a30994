"""One side of `softndk ping` by the public API, step by step, so that a test can do any step wrongly."""

import struct
from types import TracebackType
from typing import Final, Self

from softndk import (
    Adapter,
    Connector,
    Listener,
    MrFlag,
    OpFlag,
    RemoteToken,
    Result,
    open_adapter,
)

MAGIC: Final = b"softndk ping v1\n"
ADVERT, ANSWER, BYE, LEAVE = 1, 2, 3, 4
OK, MISMATCH, INTERRUPTED, FAILED = 0, 1, 2, 3
WAIT_S: Final = 20.0
SEED: Final = bytes(range(16))

_MESSAGE: Final = struct.Struct(">16sHHIQQQQ8x")


def hello(size: int = 64, count: int = 3, seed: bytes = SEED, magic: bytes = MAGIC) -> bytes:
    return struct.pack(">16sQQ16s", magic, size, count, seed)


def welcome(size: int = 64) -> bytes:
    return struct.pack(">16sQ", MAGIC, size)


def message(
    kind: int, number: int, reason: int = 0, *, token: int = 0, address: int = 0, length: int = 0, detail: int = 0
) -> bytes:
    return _MESSAGE.pack(MAGIC, kind, reason, token, number, address, length, detail)


def fields(data: bytes) -> tuple[int, int, int, int, int, int, int]:
    """kind, reason, token, round, address, length, detail."""
    magic, *rest = _MESSAGE.unpack_from(data)
    assert magic == MAGIC
    kind, reason, token, number, address, length, detail = rest
    return kind, reason, token, number, address, length, detail


class Peer:
    """An adapter with a QP, a buffer, and receives for messages. `with` closes all of it."""

    def __init__(self, size: int = 64) -> None:
        self.adapter: Adapter = open_adapter()
        self.size = size
        self.buffer = bytearray(2 * size)
        self.connector: Connector | None = None
        pd = self.adapter.create_pd()
        self.cq = self.adapter.create_cq(64)
        self.qp = pd.create_qp(self.cq, self.cq, receive_queue_depth=8, initiator_queue_depth=8, inline_data_size=1024)
        self.mr = pd.register_mr(self.buffer, MrFlag.ALLOW_LOCAL_WRITE)
        self.window = pd.create_mw()
        self._inbox = bytearray(8 * 256)
        inbox = pd.register_mr(self._inbox)
        for slot in range(8):
            self.qp.receive(inbox[slot * 256 : (slot + 1) * 256], context=slot)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, t: type[BaseException] | None, e: BaseException | None, tb: TracebackType | None) -> None:
        self.adapter.__exit__(t, e, tb)

    def results(self) -> Result:
        """The next result, whatever it is."""
        return self.cq.wait(WAIT_S, max_results=1)[0]

    def receive(self) -> tuple[bytes, Result]:
        """The next message; every other result must be a success."""
        while True:
            result = self.results().check()
            if result.is_receive:
                start = result.request_context * 256
                return bytes(self._inbox[start : start + result.bytes_transferred]), result

    # ---- as a client

    def connect(self, target: str, private_data: bytes) -> None:
        host, _, port = target.rpartition(":")
        self.connector = self.adapter.connect(self.qp, (host.strip("[]"), int(port)), private_data=private_data).result(
            WAIT_S
        )

    def lend(self) -> RemoteToken:
        """Bind the window over the whole buffer."""
        flags = OpFlag.ALLOW_REMOTE_READ | OpFlag.ALLOW_REMOTE_WRITE | OpFlag.SILENT_SUCCESS
        self.qp.bind(self.mr, self.window, flags=flags)
        return self.window.remote_token

    def advertise(self, number: int) -> None:
        """A correct advert of the buffer as it is."""
        token = self.lend()
        self.qp.send(message(ADVERT, number, token=token, address=self.mr.address, length=self.size))

    # ---- as a server

    def listen(self) -> tuple[Listener, str]:
        listener = self.adapter.listen()
        host, port = listener.local_address
        return listener, f"{host}:{port}"

    def accept(self, listener: Listener, private_data: bytes) -> None:
        self.connector = listener.next_request().result(WAIT_S)
        self.connector.accept(self.qp, private_data=private_data).result(WAIT_S)
