"""One end of a connection for the protocols of rdmacm-utils and perftest: a QP with one region, over the public API."""

from collections import deque
from contextlib import suppress
from typing import Final, Self

from softndk import Adapter, ConnectionInvalid, Connector, Cq, Disconnect, Listener, MrFlag, NdkError, OpFlag, Result

__all__ = ["PATIENCE_S", "Peer"]

PATIENCE_S: Final = 120.0
"""How long anything may take; an emulated guest on a busy machine is slow."""

_RIGHTS: Final = MrFlag.ALLOW_REMOTE_READ | MrFlag.ALLOW_REMOTE_WRITE


class Peer:
    """A QP, a CQ of its own or `cq`, and a region of `size` octets with every right. `with` closes it all.

    Messages are received into the region from `inbox` on, `message_size` octets each, in turn.
    """

    def __init__(
        self, adapter: Adapter, *, size: int = 4096, inbox: int = 0, message_size: int = 64, depth: int = 64
    ) -> None:
        self.adapter = adapter
        self.cq: Cq = adapter.create_cq(2 * depth)
        self.pd = adapter.create_pd()
        self.mr = self.pd.register_mr(bytearray(size), _RIGHTS)
        self.qp = self.pd.create_qp(self.cq, self.cq, receive_queue_depth=depth, initiator_queue_depth=depth)
        self.connector: Connector | None = None
        self._inbox = inbox
        self._message_size = message_size
        self._results: deque[Result] = deque()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *raised: object) -> None:
        if self.connector is not None:
            self.connector.close()
        self.cq.__exit__(None, None, None)
        self.pd.__exit__(None, None, None)

    # ---- the connection

    def connect(self, port: int) -> None:
        self.connector = self.adapter.connect(self.qp, ("127.0.0.1", port), on_disconnect=_answer_end).result(
            PATIENCE_S
        )

    def take(self, listener: Listener) -> None:
        """Accept the next connection of `listener`."""
        self.connector = listener.next_request().result(PATIENCE_S)
        self.connector.accept(self.qp, on_disconnect=_answer_end).result(PATIENCE_S)

    def disconnect(self) -> None:
        """End the connection from this side, unless the peer has been faster."""
        assert self.connector is not None
        with suppress(ConnectionInvalid):
            self.connector.disconnect().result(PATIENCE_S)

    def wait_for_end(self) -> Disconnect:
        """How the peer, or a failure, has ended the connection."""
        assert self.connector is not None
        return self.connector.disconnected.result(PATIENCE_S)

    # ---- messages

    def post_receives(self, count: int) -> None:
        """Make room for `count` more messages."""
        start = self._inbox
        for _ in range(count):
            self.qp.receive(self.mr[start : start + self._message_size])

    def send(self, data: bytes | int) -> None:
        """Send octets, or the first `data` ones of the region, silently."""
        self.qp.send(self.mr[0:data] if isinstance(data, int) else data, flags=OpFlag.SILENT_SUCCESS)

    def receive(self) -> int:
        """The length of the next message; it is in the region. Raises: NdkError: what has failed."""
        result = self.result()
        assert result.is_receive, result
        return result.bytes_transferred

    def receive_bytes(self) -> bytes:
        """The next message."""
        length = self.receive()
        return bytes(self.mr.view[self._inbox : self._inbox + length])

    def result(self) -> Result:
        """The next result. Raises: NdkError: the request has failed; TimeoutError: there is none."""
        if not self._results:
            self._results.extend(self.cq.wait(PATIENCE_S))
        return self._results.popleft().check()


def _answer_end(connector: Connector, how: Disconnect) -> None:
    """The peer has disconnected: so does this side, as rdma_cm's programs do."""
    try:
        connector.disconnect().add_done_callback(lambda pending: pending.exception(0))
    except NdkError:
        return  # both at once
