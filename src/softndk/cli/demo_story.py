"""The demonstration's two programs: a client that lends a buffer to a server, and a server that writes too late.

Uses the public API only. Each side tells what happens through `Tell`; nothing here prints.

One request: the client lends 64 octets and sends the request; hearing nothing, it sends it again (a retry). So the
server has it queued twice. It answers the first copy: RDMA Write of the answer into the buffer, then a message. The
client takes the answer and puts the buffer to another use. Then the server comes to the second copy and writes again.
"""

import struct
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from enum import IntEnum
from typing import Final

import softndk
from softndk import (
    Adapter,
    Connector,
    Cq,
    Disconnect,
    InvalidState,
    MrFlag,
    NdkError,
    OperationType,
    OpFlag,
    Qp,
    RemoteToken,
    Result,
)

__all__ = ["LATE_WRITE", "NEW_CONTENT", "Outcome", "Run", "Tell", "run_client", "serve"]

Tell = Callable[[str], None]

ANSWER: Final = b"answer to request 7: balance 1,024.00 EUR".ljust(64, b".")
NEW_CONTENT: Final = b"NEW: the next customer's order, 3 crates of apples".ljust(64, b".")
LATE_WRITE: Final = ANSWER
STEP_S: Final = 10.0

_MESSAGE: Final = struct.Struct(">16sIIQII24x")
_MAGIC: Final = b"lend-a-buffer 1\n"  # printable text in front: Wireshark takes some Sends for other protocols


class Run(IntEnum):
    """The three runs; the number travels as private data of the connect."""

    PLAIN = 1
    WINDOW = 2
    TIMEOUT = 3


class Kind(IntEnum):
    """Messages between the two programs."""

    REQUEST = 1
    ANSWER = 2
    GO_ON = 3


@dataclass(frozen=True, slots=True)
class Message:
    """64 octets, big-endian: magic (16), kind, token, address, length, request number, zeros (24)."""

    kind: Kind
    token: int = 0
    address: int = 0
    length: int = 0
    request: int = 7

    def emit(self) -> bytes:
        return _MESSAGE.pack(_MAGIC, self.kind, self.token, self.address, self.length, self.request)

    @classmethod
    def parse(cls, data: bytes) -> "Message":
        magic, kind, token, address, length, request = _MESSAGE.unpack(data)
        if magic != _MAGIC:
            raise ValueError(f"not a message of the demonstration: {data[:16]!r}")
        return cls(Kind(kind), token, address, length, request)


@dataclass(frozen=True, slots=True)
class Outcome:
    """How one run ended at the client. `before`, `after`: the buffer when it was put to its new use, and at the end."""

    run: Run
    before: bytes
    after: bytes
    disconnect: Disconnect | None

    @property
    def intact(self) -> bool:
        return self.before == self.after


class _Side:
    """Queues, one region for messages, and the buffer, on one adapter."""

    def __init__(self, adapter: Adapter) -> None:
        self.pd = adapter.create_pd()
        self.cq: Cq = adapter.create_cq(64)
        self.qp: Qp = self.pd.create_qp(self.cq, self.cq, receive_queue_depth=8, initiator_queue_depth=16)
        self.inbox = self.pd.register_mr(bytearray(8 * _MESSAGE.size))
        for slot in range(8):
            self.post_receive(slot)

    def post_receive(self, slot: int) -> None:
        self.qp.receive(self.inbox[slot * _MESSAGE.size : (slot + 1) * _MESSAGE.size], context=slot)

    def message(self, timeout: float = STEP_S) -> tuple[Message, Result]:
        """The next message that comes in; results of own requests are only checked. Raises what failed."""
        while True:
            for result in self.cq.wait(timeout, max_results=1):
                result.check()
                if result.is_receive:
                    slot = result.request_context
                    data = bytes(self.inbox.view[slot * _MESSAGE.size : (slot + 1) * _MESSAGE.size])
                    self.post_receive(slot)
                    return Message.parse(data), result


# ---- client


def run_client(adapter: Adapter, server: softndk.Address, run: Run, tell: Tell) -> Outcome:
    """One run against `server`. Returns when the connection has ended, or after the duplicate answer (first run)."""
    side = _Side(adapter)
    with side.pd, side.cq:
        connector = adapter.connect(side.qp, server, private_data=bytes([run])).result(STEP_S)
        return _Client(side, connector, run, tell).play()


class _Client:
    def __init__(self, side: _Side, connector: Connector, run: Run, tell: Tell) -> None:
        self.side = side
        self.connector = connector
        self.run = run
        self.tell = tell
        self.storage = bytearray(b"free".ljust(64, b"."))
        rights = MrFlag.ALLOW_REMOTE_WRITE if run is Run.PLAIN else MrFlag.ALLOW_LOCAL_WRITE
        self.region = side.pd.register_mr(self.storage, rights)

    def play(self) -> Outcome:
        self.lend()
        if self.run is Run.TIMEOUT:
            self.give_up()
        else:
            self.take_answer()
        self.storage[:] = NEW_CONTENT
        before = bytes(self.storage)
        self.tell(f"puts the buffer to another use: {_text(before)}")
        self.side.qp.send(Message(Kind.GO_ON).emit(), flags=OpFlag.SILENT_SUCCESS)
        ended = self.see_the_end()
        return Outcome(self.run, before, bytes(self.storage), ended)

    def lend(self) -> None:
        """Lend the buffer and send the request, twice."""
        if self.run is Run.PLAIN:
            token = self.region.remote_token
            self.tell("lends the whole region: its token stays valid as long as the region is registered")
        else:
            self.window = self.side.pd.create_mw()
            self.side.qp.bind(self.region, self.window, flags=OpFlag.ALLOW_REMOTE_WRITE | OpFlag.SILENT_SUCCESS)
            token = self.window.remote_token
            self.tell("lends a memory window: one token for this one request")
        request = Message(Kind.REQUEST, token, self.region.address, len(self.storage))
        self.side.qp.send(request.emit(), flags=OpFlag.SILENT_SUCCESS)
        self.tell("sends request 7")
        self.side.qp.send(request.emit(), flags=OpFlag.SILENT_SUCCESS)
        self.tell("hears nothing yet, sends request 7 again (a retry)")

    def take_answer(self) -> None:
        message, result = self.side.message()
        assert message.kind is Kind.ANSWER
        self.tell(f"answer for request {message.request}: {_text(bytes(self.storage))}")
        if result.type is OperationType.RECEIVE_AND_INVALIDATE:
            self.tell("the answer took the token away: RECEIVE_AND_INVALIDATE, the window is dead")
            try:
                self.side.qp.invalidate(self.window)
            except InvalidState as error:
                self.tell(f"to be sure, invalidates the window too: refused\n{error}")

    def give_up(self) -> None:
        try:
            self.side.message(0.2)
        except TimeoutError:
            self.tell("no answer within 0.2 s: gives the request up")
        self.side.qp.invalidate(self.window)
        for result in self.side.cq.wait(STEP_S):
            result.check()
        self.tell("invalidates the window itself: the token is dead")

    def see_the_end(self) -> Disconnect | None:
        """The duplicate answer (first run), or the end of the connection."""
        try:
            message, _ = self.side.message()
        except NdkError:
            ended = self.connector.disconnected.result(STEP_S)
            self.tell(_why("refuses the late Write and ends the connection", ended))
            return ended
        self.tell(
            f"a second answer for request {message.request}: ignored, it has been answered. Nothing else is seen."
        )
        return None


# ---- server


def serve(adapter: Adapter, listener: softndk.Listener, tell: Tell) -> Iterator[Run]:
    """Serve one connection after the other until the listener is closed; yields each run when it is over."""
    for incoming in listener:
        run = Run(incoming.connection_data.private_data[0])
        side = _Side(adapter)
        with side.pd, side.cq, incoming:
            incoming.accept(side.qp).result(STEP_S)
            _Server(side, incoming, run, tell).play()
        yield run


class _Server:
    def __init__(self, side: _Side, connector: Connector, run: Run, tell: Tell) -> None:
        self.side = side
        self.connector = connector
        self.run = run
        self.tell = tell
        self.answer = side.pd.register_mr(bytearray(ANSWER))

    def play(self) -> None:
        queue = [self.side.message()[0], self.side.message()[0]]
        self.tell(f"request {queue[0].request} is queued twice")
        if self.run is Run.TIMEOUT:
            self.tell("is stuck: answers nothing")
        else:
            self.serve(queue.pop(0), "first")
        self.wait_for_go_on()
        self.serve(queue.pop(0), "late" if self.run is Run.TIMEOUT else "second")
        ended = self.connector.disconnected.result(STEP_S)
        if not ended.graceful:
            self.tell(_why("its Write had completed as handed to TCP; now it learns that the client refused it", ended))

    def serve(self, request: Message, which: str) -> None:
        """RDMA Write of the answer, then the message that says so."""
        token = RemoteToken(request.token)
        qp = self.side.qp
        answer = "a plain send" if self.run is Run.PLAIN else "send_and_invalidate"
        self.tell(f"serves the {which} copy: RDMA Write of {len(ANSWER)} octets, then {answer}")
        qp.write(self.answer[: len(ANSWER)], request.address, token, flags=OpFlag.SILENT_SUCCESS)
        message = Message(Kind.ANSWER, request=request.request).emit()
        if self.run is Run.PLAIN:
            qp.send(message, flags=OpFlag.SILENT_SUCCESS)
        else:
            qp.send_and_invalidate(message, token, flags=OpFlag.SILENT_SUCCESS)

    def wait_for_go_on(self) -> None:
        while self.side.message()[0].kind is not Kind.GO_ON:
            pass


def _why(what: str, ended: Disconnect) -> str:
    """What happened in the first line, the NIC's reason in the others."""
    return what if ended.error is None else f"{what}\n{ended.error.explain()}"


def _text(data: bytes) -> str:
    return repr(data.rstrip(b".").decode("ascii", "replace"))
