"""The client's side of `softndk ping`: lends a window each round, and checks what comes back."""

import os
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final

from softndk import (
    Adapter,
    Address,
    ConnectionInvalid,
    InvalidState,
    NdkError,
    OperationType,
    OpFlag,
    Refused,
    Result,
    Unreachable,
)
from softndk.cli.interrupt import Interrupt
from softndk.cli.ping_endpoint import Endpoint, Interrupted, PeerLeft, PingFailed, until_done
from softndk.cli.ping_protocol import (
    SEED_SIZE,
    BadMessage,
    Hello,
    Kind,
    Message,
    Pattern,
    Reason,
    Welcome,
    readable,
)
from softndk.cli.ping_report import Totals
from softndk.flags import address_text

__all__ = ["ClientOptions", "PingClient", "connect_to_first"]

_LEND: Final = (OpFlag.ALLOW_REMOTE_READ | OpFlag.ALLOW_REMOTE_WRITE | OpFlag.SILENT_SUCCESS | OpFlag.DEFER).value


@dataclass(frozen=True, slots=True, kw_only=True)
class ClientOptions:
    """size: octets of each half. count: rounds, 0: until interrupted. timeout_s: for connecting, and for each round."""

    size: int
    count: int
    interval_s: float
    timeout_s: float


class PingClient:
    """One connection's rounds. `totals` counts them, also when `run` raises.

    tell: called with each round's number, its seconds, and what was wrong with it or "".
    """

    def __init__(
        self, endpoint: Endpoint, options: ClientOptions, stop: Interrupt, tell: Callable[[int, float, str], object]
    ) -> None:
        self.totals = Totals()
        self._endpoint = endpoint
        self._options = options
        self._stop = stop
        self._tell = tell
        self._seed = os.urandom(SEED_SIZE)
        self._pattern = Pattern(options.size, self._seed)
        self._window = endpoint.pd.create_mw()

    def connect(self, adapter: Adapter, destinations: Sequence[Address]) -> Address:
        """Connect to the first of `destinations` that answers, and return it. Raises: PingFailed, Interrupted."""
        return connect_to_first(destinations, lambda destination: self._connect_to(adapter, destination))

    def _connect_to(self, adapter: Adapter, destination: Address) -> None:
        options, endpoint = self._options, self._endpoint
        connecting = adapter.connect(
            endpoint.qp,
            destination,
            private_data=Hello(options.size, options.count, self._seed).emit(),
            on_disconnect=endpoint.peer_has_gone,
        )
        # the adapter's own limit comes first and says more
        endpoint.connector = connector = until_done(connecting, self._stop, 2 * options.timeout_s, "connect")
        try:
            welcome = Welcome.parse(connector.connection_data.private_data)
        except BadMessage as error:
            raise PingFailed(str(error)) from None
        if welcome.size != options.size:
            raise PingFailed(f"the server has agreed to {welcome.size} octets, {options.size} were asked")

    def run(self) -> None:
        """All rounds, then the goodbye. Raises: Interrupted, PingFailed; the goodbye has then been tried."""
        begin = time.monotonic()
        try:
            reason = Reason.FAILED
            try:
                self._rounds()
                reason = Reason.OK
            except Interrupted:
                reason = Reason.INTERRUPTED
                raise
            except NdkError as error:  # a request could not be posted
                failure = self._endpoint.lost(error)
                raise failure from failure.__cause__
            finally:
                self.totals.seconds = time.monotonic() - begin
                goodbye = Message(Kind.BYE, self.totals.rounds, reason, detail=self.totals.mismatches)
                self._endpoint.say_goodbye(goodbye)
        finally:
            self._endpoint.hang_up()

    def _rounds(self) -> None:
        options, totals = self._options, self.totals
        while not options.count or totals.rounds < options.count:
            if self._stop.requested:
                raise Interrupted
            begin = time.monotonic()
            seconds, wrong = self._round(totals.rounds + 1)
            totals.add(options.size, seconds, mismatch=bool(wrong))
            self._tell(totals.rounds, seconds, wrong)
            if options.interval_s and totals.rounds != options.count:
                message = self._endpoint.sleep(begin + options.interval_s - time.monotonic())
                if message is not None:
                    raise self._unexpected(message, totals.rounds)

    def _round(self, number: int) -> tuple[float, str]:
        """One round: its seconds, and what was wrong or ""."""
        endpoint, size = self._endpoint, self._options.size
        endpoint.view[:size] = self._pattern.data(number)
        token = self._window.remote_token
        advert = Message(Kind.ADVERT, number, token=token, address=endpoint.mr.address, length=size)
        begin = time.perf_counter()
        endpoint.qp.bind(endpoint.mr, self._window, flags=_LEND)
        endpoint.send(advert)
        answer, result = endpoint.next_message(self._options.timeout_s, f"round {number}")
        seconds = time.perf_counter() - begin
        self._check_answer(number, answer, result)
        if answer.reason is Reason.MISMATCH:
            return seconds, f"the server read wrong data, first at octet {answer.detail}"
        wrong = self._pattern.first_wrong_turned(number, endpoint.buffer, size)
        return seconds, "" if wrong is None else f"the server wrote wrong data, first at octet {wrong}"

    def _check_answer(self, number: int, answer: Message, result: Result) -> None:
        """It is this round's answer, and the window's token is dead. Raises: PingFailed."""
        if answer.kind is not Kind.ANSWER or answer.round != number:
            raise self._unexpected(answer, number)
        taken = result.invalidated_token
        if result.type is not OperationType.RECEIVE_AND_INVALIDATE or taken != self._window.remote_token:
            raise PingFailed(f"round {number}: the server has answered without taking the token away")
        try:
            self._endpoint.qp.invalidate(self._window)
        except (InvalidState, ConnectionInvalid):  # dead, or the connection has ended right behind the answer
            return
        raise PingFailed(f"round {number}: the token was taken away, but the window is still valid")

    def _unexpected(self, message: Message, number: int) -> PingFailed:
        if message.kind is Kind.LEAVE:
            return PeerLeft(self._endpoint.peer, message)
        return PingFailed(
            f"round {number}: the server sent {message.kind.name} for round {message.round}, not the answer"
        )


def connect_to_first(destinations: Sequence[Address], connect_to: Callable[[Address], object]) -> Address:
    """Try one after the other until one answers; that one. Raises: PingFailed, and what else `connect_to` raises."""
    for place, destination in enumerate(destinations, 1):
        try:
            connect_to(destination)
        except (Refused, Unreachable) as error:
            if error.private_data is not None or place == len(destinations):
                raise _not_connected(destination, error) from error
        except NdkError as error:
            raise _not_connected(destination, error) from error
        else:
            return destination
    raise AssertionError("no destination")


def _not_connected(destination: Address, error: NdkError) -> PingFailed:
    where = address_text(destination)
    if error.private_data:
        return PingFailed(f"{where} has refused: {readable(error.private_data)}")
    return PingFailed(f"cannot connect to {where}: {error}")
