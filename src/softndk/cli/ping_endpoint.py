"""One side's objects for `softndk ping`, and its waiting: for messages, for results, for the end of the connection.

Client and server share it, and `Link` serves any protocol of short messages. Knows the messages, not their order.
"""

import time
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from types import TracebackType
from typing import Final, Generic, Self, TypeVar

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

__all__ = [
    "Endpoint",
    "Interrupted",
    "Link",
    "PeerClosed",
    "PeerLeft",
    "PingFailed",
    "ProtocolBroken",
    "until_done",
]

RECEIVES: Final = 4
"""Messages that the peer may send ahead; the protocol needs two."""
REQUESTS: Final = 16
LEAVE_S: Final = 1.0
"""How long a goodbye may take; then the connection is closed without one."""

_SILENT: Final = OpFlag.SILENT_SUCCESS.value
_T = TypeVar("_T")
_M = TypeVar("_M")


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


class PeerClosed(PingFailed):
    """`peer` has ended the connection gracefully, and nothing that it has sent before says why."""

    def __init__(self, peer: str) -> None:
        super().__init__(f"{peer} has closed the connection without a word: it was stopped or killed")


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


class Link(Generic[_M]):
    """PD, queues, and receives for messages of at most `message_size` octets. `with` closes it all.

    parse: a message from its octets; raises BadMessage. peer: for texts, "the server".
    """

    def __init__(
        self, adapter: Adapter, stop: Interrupt, peer: str, *, message_size: int, parse: Callable[[bytes], _M]
    ) -> None:
        self.stop = stop
        self.peer = peer
        self._message_size = message_size
        self._parse = parse
        self.pd = adapter.create_pd()
        self.cq = adapter.create_cq(2 * (RECEIVES + REQUESTS))
        self.qp = self.pd.create_qp(
            self.cq, self.cq, receive_queue_depth=RECEIVES, initiator_queue_depth=REQUESTS, max_initiator_sge=2
        )
        self.connector: Connector | None = None
        self._inbox = bytearray(RECEIVES * message_size)
        region = self.pd.register_mr(self._inbox)
        self._slots: list[Sge] = [
            region[start : start + message_size] for start in range(0, len(self._inbox), message_size)
        ]
        self._results: deque[Result] = deque()
        self._messages: deque[tuple[_M, Result]] = deque()
        for slot in range(RECEIVES):
            self._post_receive(slot)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, t: type[BaseException] | None, e: BaseException | None, tb: TracebackType | None) -> None:
        self.cq.__exit__(t, e, tb)
        self.pd.__exit__(t, e, tb)

    # ---- messages and results

    def next_message(self, seconds: float, what: str) -> tuple[_M, Result]:
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

    def sleep(self, seconds: float) -> _M | None:
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

    def _open(self, result: Result) -> tuple[_M, Result]:
        slot: int = result.request_context
        start = slot * self._message_size
        data = bytes(self._inbox[start : start + result.bytes_transferred])
        self._post_receive(slot)
        try:
            return self._parse(data), result
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

    def hang_up(self) -> None:
        """End the connection gracefully, if it is still there."""
        if self.connector is not None:
            with suppress(NdkError, TimeoutError):  # ended already, or the peer does not answer: closing will do
                self.connector.disconnect().result(LEAVE_S)

    def lost(self, error: NdkError) -> PingFailed:
        """Why a request has failed: the peer's goodbye, or the end of the connection, where there is one."""
        goodbye = self._goodbye()
        if goodbye is not None:
            return goodbye
        if self.connector is not None and self.connector.disconnected.done():
            how = self.connector.disconnected.result(0)
            if how.error is None:
                return PeerClosed(self.peer)
            error = how.error
        elif isinstance(error.__cause__, NdkError):
            error = error.__cause__
        failure = PingFailed(f"the connection to {self.peer} is lost: {error}")
        failure.__cause__ = error
        return failure

    def _goodbye(self) -> PingFailed | None:
        """What the peer's last message says, if it is a goodbye; a protocol without one has none."""
        return None

    def _last_message(self) -> _M | None:
        """The last message that has come, if there is one that nobody has looked at."""
        try:
            self._results.extend(self.cq.get_results())
        except NdkError:
            return None
        for result in self._results:
            if result.is_receive and result.error is None:
                self._messages.append(self._open(result))
        self._results.clear()
        return self._messages[-1][0] if self._messages else None


class Endpoint(Link[Message]):
    """A link with the buffer that the peer works on.

    buffer: `size` octets; also seen through `view`. `mr`: registered for this side's own use; lending is the client's
    business.
    """

    def __init__(self, adapter: Adapter, size: int, stop: Interrupt, peer: str) -> None:
        super().__init__(adapter, stop, peer, message_size=MESSAGE_SIZE, parse=Message.parse)
        self.buffer = bytearray(size)
        self.view = memoryview(self.buffer)
        self.mr = self.pd.register_mr(self.buffer)

    def send(self, message: Message, *, take: int | None = None) -> None:
        """Send a message; `take`: the peer's token to invalidate with it."""
        if take is None:
            self.qp.send(message.emit(), flags=_SILENT)
        else:
            self.qp.send_and_invalidate(message.emit(), RemoteToken(take), flags=_SILENT)

    def say_goodbye(self, message: Message) -> None:
        """Send a last message, if there is still a connection."""
        with suppress(NdkError):  # that it is gone is told elsewhere
            self.send(message)

    def _goodbye(self) -> PingFailed | None:
        last = self._last_message()
        return PeerLeft(self.peer, last) if last is not None and last.kind in (Kind.BYE, Kind.LEAVE) else None


def _forget(pending: Pending[None]) -> None:
    """Somebody asks for the outcome, whatever it is: it is told elsewhere."""
    pending.exception(0)
