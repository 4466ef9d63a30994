"""`softndk ping --rping`: both sides of the protocol that rping speaks, the ping program of the Linux RDMA libraries.

One round: the client sends an advert of its source buffer; the server reads the buffer and sends a go-ahead; the client
sends an advert of its sink; the server writes there what it has read and sends a go-ahead; the client compares. Nothing
goes before the first round, no private data either, and the end of the connection is the only goodbye.

An advert is 16 octets, big-endian: address (64 bits), token (32), length (32). A go-ahead is 16 octets too, with no
meaning. The data are a text that both sides can compute from the number of the round and the length; rping's own server
does not compare, this one does.
"""

import struct
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Final

from softndk import Adapter, Address, Connector, Mr, MrFlag, NdkError, OperationType, OpFlag, RemoteToken
from softndk.cli.interrupt import Interrupt
from softndk.cli.ping_client import ClientOptions, connect_to_first
from softndk.cli.ping_endpoint import Interrupted, Link, PeerClosed, PingFailed, ProtocolBroken, until_done
from softndk.cli.ping_protocol import BadMessage
from softndk.cli.ping_report import Totals
from softndk.cli.ping_server import ACCEPT_S, IDLE_S, End, Server, Session

__all__ = ["RPING_PORT", "Advert", "RpingClient", "RpingLink", "RpingServer", "first_wrong", "ping_data"]

RPING_PORT: Final = 7174
"""The port that rping takes unless it is told another one."""

_ADVERT: Final = struct.Struct(">QII")
_LETTERS: Final = bytes(range(65, 123))
_SILENT: Final = OpFlag.SILENT_SUCCESS.value
_U64: Final = 1 << 64


@dataclass(frozen=True, slots=True)
class Advert:
    """Memory that a client lends, or a server's go-ahead, whose fields mean nothing."""

    address: int = 0
    token: int = 0
    length: int = 0

    def emit(self) -> bytes:
        return _ADVERT.pack(self.address, self.token, self.length)

    @classmethod
    def parse(cls, data: bytes) -> "Advert":
        """From what has been received. Raises: BadMessage."""
        if len(data) != _ADVERT.size:
            raise BadMessage(f"a message of {len(data)} octets; rping's have {_ADVERT.size}")
        return cls(*_ADVERT.unpack(data))


def ping_data(number: int, size: int) -> bytes:
    """The `size` octets of round `number`, counted from 0: its name, letters from another one on each round, a NUL."""
    text = b"rdma-ping-%d: " % number
    first = number % len(_LETTERS)
    letters = _LETTERS * (size // len(_LETTERS) + 2)
    return (text + letters[first : first + size])[: size - 1] + b"\0"


def first_wrong(number: int, data: bytes | bytearray | memoryview) -> int | None:
    """The place of the first octet of `data` that does not belong to round `number`, or None."""
    expected = ping_data(number, len(data))
    if data == expected:
        return None
    return next(place for place, (wanted, found) in enumerate(zip(expected, data, strict=True)) if wanted != found)


class RpingLink(Link[Advert]):
    """A link whose messages are adverts."""

    def __init__(self, adapter: Adapter, stop: Interrupt, peer: str) -> None:
        # one octet more than a message has, so that a longer one is told from it and not a fault of the adapter
        super().__init__(adapter, stop, peer, message_size=_ADVERT.size + 1, parse=Advert.parse)

    def send(self, advert: Advert) -> None:
        self.qp.send(advert.emit(), flags=_SILENT)


class RpingClient:
    """One connection's rounds. `totals` counts them, also when `run` raises.

    tell: called with each round's number, its seconds, and what was wrong with it or "".
    """

    def __init__(
        self, link: RpingLink, options: ClientOptions, stop: Interrupt, tell: Callable[[int, float, str], object]
    ) -> None:
        self.totals = Totals()
        self._link = link
        self._options = options
        self._stop = stop
        self._tell = tell
        self._source = link.pd.register_mr(bytearray(options.size), MrFlag.ALLOW_REMOTE_READ)
        self._sink = link.pd.register_mr(bytearray(options.size), MrFlag.ALLOW_REMOTE_WRITE)

    def connect(self, adapter: Adapter, destinations: Sequence[Address]) -> Address:
        """Connect to the first of `destinations` that answers, and return it. Raises: PingFailed, Interrupted."""
        return connect_to_first(destinations, lambda destination: self._connect_to(adapter, destination))

    def _connect_to(self, adapter: Adapter, destination: Address) -> None:
        link = self._link
        connecting = adapter.connect(link.qp, destination, on_disconnect=link.peer_has_gone)
        link.connector = until_done(connecting, self._stop, 2 * self._options.timeout_s, "connect")

    def run(self) -> None:
        """All rounds, then the end of the connection. Raises: Interrupted, PingFailed."""
        begin = time.monotonic()
        try:
            self._rounds()
        except NdkError as error:  # a request could not be posted
            failure = self._link.lost(error)
            raise failure from failure.__cause__
        finally:
            self.totals.seconds = time.monotonic() - begin
            self._link.hang_up()

    def _rounds(self) -> None:
        options, totals = self._options, self.totals
        while not options.count or totals.rounds < options.count:
            if self._stop.requested:
                raise Interrupted
            begin = time.monotonic()
            seconds, wrong = self._round(totals.rounds)
            totals.add(options.size, seconds, mismatch=bool(wrong))
            self._tell(totals.rounds, seconds, wrong)
            if options.interval_s and totals.rounds != options.count:
                message = self._link.sleep(begin + options.interval_s - time.monotonic())
                if message is not None:
                    raise PingFailed(f"round {totals.rounds}: the server sent one message too many")

    def _round(self, number: int) -> tuple[float, str]:
        """One round: its seconds, and what was wrong or ""."""
        source, sink = self._source, self._sink
        source.view[:] = ping_data(number, self._options.size)
        begin = time.perf_counter()
        for region, step in ((source, "RDMA Read"), (sink, "RDMA Write")):
            self._link.send(_advert_of(region))
            self._link.next_message(
                self._options.timeout_s, f"round {number + 1}: the server's go-ahead after its {step}"
            )
        seconds = time.perf_counter() - begin
        wrong = first_wrong(number, sink.view)
        return seconds, "" if wrong is None else f"the server wrote wrong data, first at octet {wrong}"


class RpingServer(Server):
    """Serves rping's clients; each may use any size up to `max_size`, and change it from round to round."""

    def _admit(self, connector: Connector) -> Session:
        return _RpingSession(connector, self._around, size=0, plan="rping")


class _RpingSession(Session):
    """One client. It tells the size with its first advert."""

    def _serve(self) -> None:
        with RpingLink(self._adapter, self._stop, "the client") as link:
            try:
                self._talk(link)
            finally:
                link.hang_up()

    def _talk(self, link: RpingLink) -> None:
        accepting = self._connector.accept(link.qp, on_disconnect=link.peer_has_gone)
        until_done(accepting, self._stop, ACCEPT_S, "accept")
        link.connector = self._connector
        try:
            self._rounds(link)
        except NdkError as error:  # a request could not be posted
            failure = link.lost(error)
            raise failure from failure.__cause__

    def _rounds(self, link: RpingLink) -> None:
        region: Mr | None = None
        while not self._stop.requested:
            try:
                source, _ = link.next_message(IDLE_S, "waiting for the client's next round")
            except PeerClosed:
                self.end = End.DONE
                return
            self._check(link, source, "source")
            if region is None or region.length < source.length:
                if region is not None:
                    region.close()
                region = link.pd.register_mr(bytearray(source.length))
            self.size = source.length
            self._round(link, source, region)
        raise Interrupted

    def _round(self, link: RpingLink, source: Advert, region: Mr) -> None:
        begin = time.perf_counter()
        number, seconds = self.totals.rounds, self._options.timeout_s
        data = region.view[: source.length]
        link.qp.read(region[0 : source.length], source.address, RemoteToken(source.token))
        result = link.next_result(seconds, f"round {number + 1}: RDMA Read")
        assert result.type is OperationType.READ
        wrong = first_wrong(number, data)
        link.send(Advert())
        sink, _ = link.next_message(seconds, f"round {number + 1}: the client's second advert")
        self._check(link, sink, "sink")
        text = _text_length(data)
        if sink.length < text:
            raise ProtocolBroken(link.peer, BadMessage(f"a sink of {sink.length} octets for a text of {text}"))
        link.qp.write(region[0:text], sink.address, RemoteToken(sink.token), flags=_SILENT)
        link.send(Advert())
        self.totals.add(source.length, time.perf_counter() - begin, mismatch=wrong is not None)
        if wrong is not None:
            self._tell(f"{self.peer}: round {number + 1}: the client's data are wrong, first at octet {wrong}")

    def _check(self, link: RpingLink, advert: Advert, what: str) -> None:
        """Raises: ProtocolBroken: this server does not serve such memory."""
        limit = self._options.max_size
        if not 1 <= advert.length <= limit:
            reason = f"a {what} of {advert.length} octets; this server takes 1 to {limit} (its --max-size)"
            raise ProtocolBroken(link.peer, BadMessage(reason))
        if advert.address + advert.length > _U64:
            raise ProtocolBroken(link.peer, BadMessage(f"a {what} beyond the last address"))


def _advert_of(region: Mr) -> Advert:
    return Advert(region.address, region.remote_token, region.length)


def _text_length(data: memoryview) -> int:
    """How much an rping server writes back: a text with its NUL, as in C; all of it, if it has none."""
    with suppress(ValueError):
        return bytes(data).index(0) + 1
    return len(data)
