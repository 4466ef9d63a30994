"""The server's side of `softndk ping`: for each client a thread that reads, compares, writes and takes the token away.

A client is untrusted: what it asks for is checked, refused with a reason, and bounded by the constants below. `Server`
and `Session` are what a server of another protocol has in common with this one.
"""

import threading
import time
from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from enum import Enum
from typing import Any, Final

from softndk import (
    Adapter,
    Connector,
    Listener,
    NdkError,
    OperationType,
    OpFlag,
    RemoteToken,
    Sge,
)
from softndk.cli.interrupt import POLL_S, Interrupt
from softndk.cli.ping_endpoint import LEAVE_S, Endpoint, Interrupted, PeerLeft, PingFailed, ProtocolBroken, until_done
from softndk.cli.ping_protocol import BadMessage, Hello, Kind, Message, Pattern, Reason, Welcome
from softndk.cli.ping_report import Totals, plural
from softndk.flags import address_text

__all__ = ["ACCEPT_S", "IDLE_S", "BusyClock", "End", "PingServer", "Server", "ServerOptions", "Session"]

MAX_CLIENTS: Final = 16
"""Clients at once; times twice the largest size this is what they can make the server hold."""
IDLE_S: Final = 600.0
"""How long a client may pause between two rounds."""
ACCEPT_S: Final = 60.0
"""Bound for an accept; the adapter's own limit comes before it and says more."""
KEPT_SESSIONS: Final = 100
"""Of how many ended sessions the report tells."""

_WRITE: Final = (OpFlag.SILENT_SUCCESS | OpFlag.DEFER).value
_U64: Final = 1 << 64


class End(Enum):
    """How a session ended."""

    DONE = "done"
    LEFT = "left"
    STOPPED = "stopped"
    FAILED = "failed"


@dataclass(frozen=True, slots=True, kw_only=True)
class ServerOptions:
    """max_size: what a client may ask for at most. timeout_s: for each step of a round. once: one client only."""

    max_size: int
    timeout_s: float
    once: bool


class BusyClock:
    """How long there was a session at all: overlapping ones count once. For any thread."""

    def __init__(self) -> None:
        self.seconds = 0.0
        self._lock = threading.Lock()
        self._sessions = 0
        self._since = 0.0

    def enter(self) -> float:
        """A session begins; the time."""
        now = time.monotonic()
        with self._lock:
            if not self._sessions:
                self._since = now
            self._sessions += 1
        return now

    def leave(self) -> float:
        """A session ends; the time."""
        now = time.monotonic()
        with self._lock:
            self._sessions -= 1
            if not self._sessions:
                self.seconds += now - self._since
        return now


@dataclass(frozen=True, slots=True, kw_only=True)
class Surroundings:
    """What a session gets of its server. tell: called with a line for the person at the server."""

    adapter: Adapter
    options: ServerOptions
    stop: Interrupt
    tell: Callable[[str], object]
    clock: BusyClock


class Session(ABC):
    """One client. `run` is its thread's body; the other attributes are for reading once it has ended.

    size: octets of a round's data. plan: what the client wants, for the person at the server.
    """

    def __init__(self, connector: Connector, around: Surroundings, *, size: int, plan: str) -> None:
        self.peer = address_text(connector.peer_address)
        self.size = size
        self.plan = plan
        self.totals = Totals()
        self.end = End.FAILED
        self.error: PingFailed | None = None
        self._connector = connector
        self._adapter = around.adapter
        self._options = around.options
        self._stop = around.stop
        self._tell = around.tell
        self._clock = around.clock

    @abstractmethod
    def _serve(self) -> None:
        """Accept, serve rounds until the client leaves, set `end`, close everything.

        Raises: Interrupted, PingFailed, NdkError.
        """

    def run(self) -> None:
        """Serve the client; nothing is raised."""
        begin = self._clock.enter()
        try:
            self._serve()
        except Interrupted:
            self.end = End.STOPPED
        except PingFailed as failure:
            self.error = failure
        except NdkError as error:
            self.error = PingFailed(str(error))
            self.error.__cause__ = error
        except Exception as error:
            self.error = PingFailed(f"internal error: {error!r}")
            raise
        finally:
            self.totals.seconds = self._clock.leave() - begin
            self._connector.close()

    def summary(self) -> str:
        """One line about the ended session."""
        how = {
            End.DONE: "the client has finished",
            End.LEFT: "the client has left before its end",
            End.STOPPED: "stopped by this side",
            End.FAILED: str(self.error),
        }[self.end]
        totals = self.totals
        found = f"{totals.mismatches} with a mismatch" if totals.mismatches else "no mismatch"
        return f"{self.peer}: {how}; {plural(totals.rounds, 'round')} of {self.size} octets, {found}"

    def as_dict(self) -> dict[str, Any]:
        """For JSON."""
        return {
            "peer": self.peer,
            "size": self.size,
            "end": self.end.value,
            "error": None if self.error is None else str(self.error),
            "rounds": self.totals.rounds,
            "mismatches": self.totals.mismatches,
            "seconds": round(self.totals.seconds, 6),
        }


class _PingSession(Session):
    """A client of this project's own protocol, which has introduced itself with `hello`."""

    def __init__(self, connector: Connector, around: Surroundings, hello: Hello) -> None:
        rounds = plural(hello.count, "round") if hello.count else "rounds without end"
        super().__init__(connector, around, size=hello.size, plan=f"{rounds} of {hello.size} octets")
        self._seed = hello.seed

    def _serve(self) -> None:
        with Endpoint(self._adapter, self.size, self._stop, "the client") as endpoint:
            try:
                self._talk(endpoint)
            finally:
                endpoint.hang_up()

    def _talk(self, endpoint: Endpoint) -> None:
        accepting = self._connector.accept(
            endpoint.qp, private_data=Welcome(self.size).emit(), on_disconnect=endpoint.peer_has_gone
        )
        until_done(accepting, self._stop, ACCEPT_S, "accept")
        endpoint.connector = self._connector
        pattern = Pattern(self.size, self._seed)
        try:
            try:
                self._rounds(endpoint, pattern)
            except NdkError as error:  # a request could not be posted
                failure = endpoint.lost(error)
                raise failure from failure.__cause__
        except PeerLeft as left:
            if left.message.kind is not Kind.BYE:
                raise
            self._client_left(left.message)
        except Interrupted:
            endpoint.say_goodbye(Message(Kind.LEAVE, self.totals.rounds, Reason.INTERRUPTED, text="it was stopped"))
            raise
        except ProtocolBroken as broken:
            endpoint.say_goodbye(Message(Kind.LEAVE, self.totals.rounds, Reason.FAILED, text=broken.reason))
            raise

    def _rounds(self, endpoint: Endpoint, pattern: Pattern) -> None:
        while True:
            if self._stop.requested:
                raise Interrupted
            message, _ = endpoint.next_message(IDLE_S, "waiting for the client's next round")
            if message.kind is Kind.BYE:
                self._client_left(message)
                return
            try:
                self._check_advert(message)
            except BadMessage as error:
                raise ProtocolBroken(endpoint.peer, error) from None
            self._round(endpoint, pattern, message)

    def _round(self, endpoint: Endpoint, pattern: Pattern, advert: Message) -> None:
        begin = time.perf_counter()
        number, size, token = advert.round, self.size, RemoteToken(advert.token)
        endpoint.qp.read(endpoint.mr[0:size], advert.address, token)
        result = endpoint.next_result(self._options.timeout_s, f"round {number}: RDMA Read")
        assert result.type is OperationType.READ
        wrong = pattern.first_wrong(number, endpoint.buffer)
        turn = pattern.turn(number)
        parts: list[Sge] = [endpoint.mr[turn:size], endpoint.mr[0:turn]] if turn else [endpoint.mr[0:size]]
        endpoint.qp.write(parts, advert.address + size, token, flags=_WRITE)
        reason = Reason.OK if wrong is None else Reason.MISMATCH
        endpoint.send(Message(Kind.ANSWER, number, reason, detail=wrong or 0), take=token)
        self.totals.add(size, time.perf_counter() - begin, mismatch=wrong is not None)
        if wrong is not None:
            self._tell(f"{self.peer}: round {number}: the client's data are wrong, first at octet {wrong}")

    def _check_advert(self, advert: Message) -> None:
        """Raises: BadMessage."""
        expected = self.totals.rounds + 1
        if advert.kind is not Kind.ADVERT:
            raise BadMessage(f"{advert.kind.name} is not for a client to send")
        if advert.round != expected:
            raise BadMessage(f"round {advert.round}, expected {expected}")
        if advert.length != self.size:
            raise BadMessage(f"round {advert.round} lends {advert.length} octets, agreed are {self.size}")
        if advert.address + 2 * self.size > _U64:
            raise BadMessage(f"round {advert.round} lends memory beyond the last address")

    def _client_left(self, goodbye: Message) -> None:
        self.end = End.DONE if goodbye.reason is Reason.OK else End.LEFT
        self.totals.mismatches = max(self.totals.mismatches, min(goodbye.detail, self.totals.rounds))


class Server(ABC):
    """Takes clients until interrupted, or one with `once`. `totals`: all ended sessions together.

    tell: called with lines for the person at the server, in the thread that runs `run`.
    """

    def __init__(
        self, adapter: Adapter, options: ServerOptions, stop: Interrupt, tell: Callable[[str, Session | None], object]
    ) -> None:
        self.totals = Totals()
        self.once = options.once
        self.clients = 0
        self.refused = 0
        self.failed = 0
        self.sessions: deque[Session] = deque(maxlen=KEPT_SESSIONS)
        self._options = options
        self._stop = stop
        self._tell = tell
        self._lines: deque[str] = deque()
        self._running: dict[Session, threading.Thread] = {}
        self._clock = BusyClock()
        self._around = Surroundings(
            adapter=adapter, options=options, stop=stop, tell=self._lines.append, clock=self._clock
        )

    @abstractmethod
    def _admit(self, connector: Connector) -> Session:
        """A session for this request. Raises: BadMessage: it is refused, with this text."""

    def run(self, listener: Listener) -> None:
        """Serve; returns when `once` is fulfilled or the user has interrupted and the clients have been told."""
        try:
            while not self._stop.requested and not (self._options.once and self.clients and not self._running):
                try:
                    connector = listener.next_request().result(POLL_S)
                except TimeoutError:
                    connector = None
                if connector is not None:
                    self._answer(connector)
                self._collect()
        finally:
            listener.close()
            deadline = time.monotonic() + 2 * LEAVE_S
            for thread in self._running.values():
                thread.join(max(0.0, deadline - time.monotonic()))
            self._collect()

    def _answer(self, connector: Connector) -> None:
        """Check a request, then refuse it with a text or start its session."""
        try:
            session = self._admit(connector)
            self._check_room()
        except BadMessage as error:
            self._refuse(connector, str(error))
            return
        thread = threading.Thread(target=session.run, name=f"ping {session.peer}", daemon=True)
        self._running[session] = thread
        self.clients += 1
        self._tell(f"{session.peer}: connected, {session.plan}", None)
        thread.start()

    def _check_room(self) -> None:
        """Raises: BadMessage."""
        if self._options.once and self.clients:
            raise BadMessage("this server serves one client only, and has it")
        if len(self._running) >= MAX_CLIENTS:
            raise BadMessage(f"busy: {MAX_CLIENTS} clients are being served")

    def _refuse(self, connector: Connector, reason: str) -> None:
        self.refused += 1
        try:
            self._tell(f"{address_text(connector.peer_address)}: refused: {reason}", None)
            connector.reject(reason.encode())
        except NdkError:
            return  # it has gone meanwhile
        finally:
            connector.close()

    def _collect(self) -> None:
        """Tell what the sessions' threads have said, and take in the sessions that have ended."""
        ended = [session for session, thread in self._running.items() if not thread.is_alive()]
        while self._lines:
            self._tell(self._lines.popleft(), None)
        for session in ended:
            del self._running[session]
            self.sessions.append(session)
            self.failed += session.end is End.FAILED
            self.totals.merge(session.totals)
            self._tell(session.summary(), session)
        self.totals.seconds = self._clock.seconds


class PingServer(Server):
    """Serves this project's own protocol."""

    def _admit(self, connector: Connector) -> Session:
        hello = Hello.parse(connector.connection_data.private_data)
        if hello.size > self._options.max_size:
            raise BadMessage(
                f"size {hello.size} is over this server's limit of {self._options.max_size} (its --max-size)"
            )
        return _PingSession(connector, self._around, hello)
