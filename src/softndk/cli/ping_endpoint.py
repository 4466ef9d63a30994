"""One side's objects for `softndk ping`, and its waiting: for messages, for results, for the end of the connection.

Client and server share it. Knows the protocol's messages, not their order.
"""

import time
from collections import deque
from contextlib import suppress
from types import TracebackType
from typing import Final, Self, TypeVar

from softndk import (
    Adapter,
    Connector,
    Disconnect,
    InvalidHandle,
    NdkError,
    OpFlag,
    Pending,
    RemoteToken,
    Result,
    Sge,
)
from softndk.cli.interrupt import POLL_S, Interrupt
from softndk.cli.ping_protocol import MESSAGE_SIZE, BadMessage, Kind, Message

__all__ = ["Endpoint", "Interrupted", "PeerLeft", "PingFailed", "ProtocolBroken", "until_done"]

RECEIVES: Final = 4
"""Messages that the peer may send ahead; the protocol needs two."""
REQUESTS: Final = 16
LEAVE_S: Final = 1.0
"""How long a goodbye may take; then the connection is closed without one."""

_SILENT: Final = OpFlag.SILENT_SUCCESS.value
_T = TypeVar("_T")


class PingFailed(Exception):
    """The test cannot go on; the text says why. `__cause__`: what the adapter says of it, if it is the adapter's."""

    def explain(self) -> str:
        """The text, with all that is known of the cause."""
        cause = self.__cause__
        if not isinstance(cause, NdkError):
            return str(self)
        lines = cause.explain().splitlines()
        return "\n".join([str(self), *(lines[1:] if str(cause) in str(self) else lines)])


class ProtocolBroken(PingFailed):
    """`peer` has said something that it may not say."""

    def __init__(self, peer: str, error: BadMessage) -> None:
        super().__init__(f"{peer} does not keep to the protocol: {error}")
        self.reason = str(error)


class PeerLeft(PingFailed):
    """`peer` has ended the test with a goodbye, `message`."""

    def __init__(self, peer: str, message: Message) -> None:
        super().__init__(f"{peer} has ended the test: {message.text or message.reason.name.lower()}")
        self.message = message


class Interrupted(Exception):
    """The user wants to end."""


def until_done(pending: Pending[_T], stop: Interrupt, seconds: float, what: str) -> _T:
    """`pending`'s value. Raises: Interrupted, PingFailed after `seconds`, and what it failed with."""
    deadline = time.monotonic() + seconds
    while not pending.done():
        left = deadline - time.monotonic()
        if stop.requested or left <= 0:
            pending.cancel()
            raise Interrupted if stop.requested else PingFailed(f"{what}: nothing within {seconds:g} s")
        with suppress(TimeoutError):
            pending.exception(min(POLL_S, left))
    return pending.result(0)


class Endpoint:
    """PD, queues, the buffer that the peer works on, and receives for messages. `with` closes it all.

    buffer: `size` octets; also seen through `view`. `mr`: registered for this side's own use; lending is the client's
    business. peer: for texts, "the server".
    """

    def __init__(self, adapter: Adapter, size: int, stop: Interrupt, peer: str) -> None:
        self.stop = stop
        self.peer = peer
        self.buffer = bytearray(size)
        self.view = memoryview(self.buffer)
        self.pd = adapter.create_pd()
        self.cq = adapter.create_cq(2 * (RECEIVES + REQUESTS))
        self.qp = self.pd.create_qp(
            self.cq, self.cq, receive_queue_depth=RECEIVES, initiator_queue_depth=REQUESTS, max_initiator_sge=2
        )
        self.mr = self.pd.register_mr(self.buffer)
        self.connector: Connector | None = None
        self._inbox = bytearray(RECEIVES * MESSAGE_SIZE)
        region = self.pd.register_mr(self._inbox)
        self._slots: list[Sge] = [
            region[start : start + MESSAGE_SIZE] for start in range(0, len(self._inbox), MESSAGE_SIZE)
        ]
        self._results: deque[Result] = deque()
        self._messages: deque[tuple[Message, Result]] = deque()
        for slot in range(RECEIVES):
            self._post_receive(slot)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, t: type[BaseException] | None, e: BaseException | None, tb: TracebackType | None) -> None:
        self.cq.__exit__(t, e, tb)
        self.pd.__exit__(t, e, tb)

    # ---- messages and results

    def send(self, message: Message, *, take: int | None = None) -> None:
        """Send a message; `take`: the peer's token to invalidate with it."""
        if take is None:
            self.qp.send(message.emit(), flags=_SILENT)
        else:
            self.qp.send_and_invalidate(message.emit(), RemoteToken(take), flags=_SILENT)

    def next_message(self, seconds: float, what: str) -> tuple[Message, Result]:
        """The next message, with its result. Raises: as `next_result`; ProtocolBroken."""
        if self._messages:
            return self._messages.popleft()
        deadline = time.monotonic() + seconds
        while True:
            result = self._take(deadline, seconds, what)
            if result.is_receive:
                return self._open(result)

    def next_result(self, seconds: float, what: str) -> Result:
        """The next result of an own request; messages that come meanwhile are kept.

        Raises: Interrupted; PingFailed: the connection has ended, a request has failed, or nothing came in time.
        """
        deadline = time.monotonic() + seconds
        while True:
            result = self._take(deadline, seconds, what)
            if not result.is_receive:
                return result
            self._messages.append(self._open(result))

    def sleep(self, seconds: float) -> Message | None:
        """Pass the time; a message that comes ends it and is returned. Raises: as `next_result`, but for the time."""
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline:
            if self._messages:
                return self._messages.popleft()[0]
            if self._results or self._poll(deadline):
                result = self._checked(self._results.popleft())
                if result.is_receive:
                    self._messages.append(self._open(result))
        return None

    def _take(self, deadline: float, seconds: float, what: str) -> Result:
        while not self._results:
            if not self._poll(deadline) and time.monotonic() >= deadline:
                raise PingFailed(f"{what}: nothing within {seconds:g} s")
        return self._checked(self._results.popleft())

    def _poll(self, deadline: float) -> bool:
        """Wait a little; False if nothing has come. What is under way may end before an interruption counts."""
        try:
            self._results.extend(self.cq.wait(max(0.0, min(POLL_S, deadline - time.monotonic()))))
        except TimeoutError:
            if self.stop.requested:
                raise Interrupted from None
            return False
        return True

    def _checked(self, result: Result) -> Result:
        error = result.error
        if error is not None:
            raise self.lost(error)
        return result

    def _open(self, result: Result) -> tuple[Message, Result]:
        slot: int = result.request_context
        start = slot * MESSAGE_SIZE
        data = bytes(self._inbox[start : start + result.bytes_transferred])
        self._post_receive(slot)
        try:
            return Message.parse(data), result
        except BadMessage as error:
            raise ProtocolBroken(self.peer, error) from None

    def _post_receive(self, slot: int) -> None:
        self.qp.receive(self._slots[slot], context=slot)

    # ---- the connection's end

    def peer_has_gone(self, connector: Connector, how: Disconnect) -> None:
        """For `on_disconnect`: end this side too, so that everything posted is flushed and a waiting thread sees it."""
        if how.graceful:  # else all is flushed already
            with suppress(InvalidHandle):  # closed by its own thread meanwhile
                connector.disconnect().add_done_callback(_forget)

    def say_goodbye(self, message: Message) -> None:
        """Send a last message, if there is still a connection."""
        with suppress(NdkError):  # that it is gone is told elsewhere
            self.send(message)

    def hang_up(self) -> None:
        """End the connection gracefully, if it is still there."""
        if self.connector is not None:
            with suppress(NdkError, TimeoutError):  # ended already, or the peer does not answer: closing will do
                self.connector.disconnect().result(LEAVE_S)

    def lost(self, error: NdkError) -> PingFailed:
        """Why a request has failed: the peer's goodbye, or the end of the connection, where there is one."""
        goodbye = self._goodbye()
        if goodbye is not None:
            return PeerLeft(self.peer, goodbye)
        if self.connector is not None and self.connector.disconnected.done():
            how = self.connector.disconnected.result(0)
            if how.error is None:
                return PingFailed(f"{self.peer} has closed the connection without a word: it was stopped or killed")
            error = how.error
        elif isinstance(error.__cause__, NdkError):
            error = error.__cause__
        failure = PingFailed(f"the connection to {self.peer} is lost: {error}")
        failure.__cause__ = error
        return failure

    def _goodbye(self) -> Message | None:
        """The peer's last message, if it has come and says goodbye."""
        try:
            self._results.extend(self.cq.get_results())
        except NdkError:
            return None
        for result in self._results:
            if result.is_receive and result.error is None:
                self._messages.append(self._open(result))
        self._results.clear()
        last = self._messages[-1][0] if self._messages else None
        return last if last is not None and last.kind in (Kind.BYE, Kind.LEAVE) else None


def _forget(pending: Pending[None]) -> None:
    """Somebody asks for the outcome, whatever it is: it is told elsewhere."""
    pending.exception(0)
