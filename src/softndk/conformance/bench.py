"""What the cases share: ends and their connections, results in full count, bounded waiting.

Uses the public names only. A `Bench` belongs to one case and closes every adapter that it has opened.
"""

import os
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any, Final, NamedTuple

import pytest

from softndk import (
    Adapter,
    Connector,
    Cq,
    Disconnect,
    LogicalAddressMapping,
    Mr,
    MrFlag,
    Mw,
    NdkError,
    NdkVersion,
    OpFlag,
    Pd,
    Pending,
    Qp,
    RemoteToken,
    Result,
    Status,
)
from softndk.conformance.providers import NEWEST, Provider, Side

__all__ = [
    "EVERY_RIGHT",
    "FAST_RIGHTS",
    "PATIENCE_S",
    "REGION_SIZE",
    "Bench",
    "End",
    "FastRegion",
    "OwnLock",
    "Pair",
    "callbacks_have_run",
    "contexts",
    "delivered",
    "drained",
    "ended",
    "failure",
    "join",
    "one",
    "refused",
    "statuses",
    "still_works",
    "succeed",
    "take",
    "until",
]

PATIENCE_S: Final = 10.0 * float(os.environ.get("SOFTNDK_TIMEOUT_SCALE", "1"))
"""How long a case waits for what must happen. Reaching it is a failure, so it costs nothing to be generous."""

REGION_SIZE: Final = 8192
EVERY_RIGHT: Final = MrFlag.ALLOW_REMOTE_READ | MrFlag.ALLOW_REMOTE_WRITE
FAST_RIGHTS: Final = OpFlag.ALLOW_REMOTE_READ | OpFlag.ALLOW_REMOTE_WRITE


# ---- results


def take(cq: Cq, count: int) -> list[Result]:
    """The next `count` results, and no more."""
    found: list[Result] = []
    while len(found) < count:
        found += cq.wait(PATIENCE_S, max_results=count - len(found))
    return found


def one(cq: Cq) -> Result:
    """The only result that is there."""
    (result,) = take(cq, 1)
    assert cq.get_results() == []
    return result


def succeed(cq: Cq, count: int = 1) -> list[Result]:
    """The next `count` results, which must be successes."""
    results = take(cq, count)
    assert statuses(results) == [Status.SUCCESS] * count, results
    return results


def contexts(results: Sequence[Result]) -> list[Any]:
    """The request contexts."""
    return [result.request_context for result in results]


def statuses(results: Sequence[Result]) -> list[Status]:
    """The statuses."""
    return [result.status for result in results]


@contextmanager
def refused(cls: type[NdkError], status: Status) -> Iterator[None]:
    """What is done inside raises exactly this class and status."""
    with pytest.raises(cls) as caught:
        yield
    assert caught.value.status is status, caught.value


def failure(pending: Pending[Any]) -> NdkError:
    """The failure of a Pending that must fail."""
    error = pending.exception(PATIENCE_S)
    assert isinstance(error, NdkError), error
    return error


# ---- waiting


def until(condition: Callable[[], object]) -> None:
    """Wait for what can only be asked for."""
    deadline = time.monotonic() + PATIENCE_S
    pause = threading.Event()
    while not condition():
        assert time.monotonic() < deadline, "it did not happen"
        pause.wait(0.001)


def callbacks_have_run(adapter: Adapter) -> None:
    """Wait until every callback of the adapter that is due by now has returned: they run one after the other."""
    passed = threading.Event()
    adapter.create_pd().close(on_done=lambda _: passed.set())
    assert passed.wait(PATIENCE_S)


class OwnLock:
    """A lock of the program's own, which it holds around its calls and takes in its callbacks.

    A callback that runs inside such a call, or that such a call waits for, would never get it. Here it gives up and
    notes that; `check` then tells.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._holder = 0
        self._faults: list[str] = []

    @contextmanager
    def around_a_call(self) -> Iterator[None]:
        """Hold the lock for what is done inside."""
        with self._lock:
            self._holder = threading.get_ident()
            try:
                yield
            finally:
                self._holder = 0

    def in_a_callback(self) -> None:
        """Take the lock and give it back, as a callback does that shares data with its program."""
        if self._holder == threading.get_ident():
            self._faults.append("the callback runs inside the call")
        elif self._lock.acquire(timeout=PATIENCE_S):
            self._lock.release()
        else:
            self._faults.append("the call does not return before the callback does")

    def check(self) -> None:
        """Every callback has got the lock."""
        assert not self._faults, self._faults


# ---- ends


@dataclass(slots=True)
class End:
    """One end. `cq` serves both queues of `qp`; `mr` is REGION_SIZE octets over `buffer`, with every right."""

    adapter: Adapter
    pd: Pd
    cq: Cq
    mr: Mr
    buffer: bytearray
    qp: Qp
    _connector: Connector | None = None

    @property
    def connector(self) -> Connector:
        """The connector of the connected end."""
        assert self._connector is not None
        return self._connector

    def fill(self, data: bytes, at: int = 0) -> None:
        """Put octets into the region."""
        self.buffer[at : at + len(data)] = data

    def content(self, length: int, at: int = 0) -> bytes:
        """Octets of the region."""
        return bytes(self.buffer[at : at + length])


class Pair(NamedTuple):
    """Two connected ends: the active and the passive one."""

    a: End
    b: End


@dataclass(frozen=True, slots=True)
class FastRegion:
    """A fast-register region and what it is mapped to."""

    mr: Mr
    buffer: bytearray
    lam: LogicalAddressMapping

    @property
    def token(self) -> RemoteToken:
        """For the peer."""
        return self.mr.remote_token


class Bench:
    """The workplace of one case."""

    def __init__(self, provider: Provider) -> None:
        self.provider = provider
        self._open = ExitStack()

    def close(self) -> None:
        """Close every adapter with everything on it."""
        self._open.close()

    def adapter(
        self, side: Side = Side.ACTIVE, *, version: NdkVersion = NEWEST, hurry: bool = False, strict: bool = False
    ) -> Adapter:
        """A new adapter, closed at the end of the case."""
        try:
            adapter = self.provider.open_adapter(side, version=version, hurry=hurry, strict=strict)
        except NotImplementedError:
            if not hurry:
                raise
            pytest.skip("the provider has no time limits that could be set")
        return self._open.enter_context(adapter)

    def nobody(self, adapter: Adapter) -> tuple[str, int]:
        """An address of the adapter where nobody listens."""
        listener = adapter.listen()
        address = listener.local_address
        listener.close()
        return address

    def lose(self, end: End, *, silently: bool = False) -> None:
        """Make an end vanish as its peer sees it."""
        try:
            self.provider.lose(end.adapter, "silence" if silently else "reset")
        except NotImplementedError:
            pytest.skip("the provider's adapters cannot be made to vanish")

    def end(
        self,
        adapter: Adapter | None = None,
        side: Side = Side.ACTIVE,
        *,
        cq: Cq | None = None,
        cq_depth: int = 256,
        queue_depth: int = 64,
        max_sge: int = 4,
        inline: int = 256,
        context: Any = None,
        flags: int = EVERY_RIGHT,
    ) -> End:
        """Everything but a connection."""
        if adapter is None:
            adapter = self.adapter(side)
        pd = adapter.create_pd()
        cq = adapter.create_cq(cq_depth) if cq is None else cq
        buffer = bytearray(REGION_SIZE)
        mr = pd.register_mr(buffer, flags)
        qp = pd.create_qp(
            cq,
            cq,
            receive_queue_depth=queue_depth,
            initiator_queue_depth=queue_depth,
            max_receive_sge=max_sge,
            max_initiator_sge=max_sge,
            inline_data_size=min(inline, adapter.query_info().max_inline_data_size),
            context=context,
        )
        return End(adapter, pd, cq, mr, buffer, qp)

    def connect(self, a: End, b: End, **options: Any) -> Pair:
        """Connect two ends. options: for Adapter.connect."""
        listener = b.adapter.listen()
        a._connector, b._connector = join(
            a.adapter, a.qp, b.qp, listener.local_address, listener.next_request, **options
        )
        listener.close()
        return Pair(a, b)

    def pair(self, **options: Any) -> Pair:
        """Two ends on two adapters, connected. options: of both ends."""
        return self.connect(self.end(side=Side.ACTIVE, **options), self.end(side=Side.PASSIVE, **options))

    def sibling(self, end: End, **options: Any) -> End:
        """One more end on the PD of another, with a QP and a CQ of its own."""
        cq = end.adapter.create_cq(64)
        values: dict[str, Any] = {"receive_queue_depth": 16, "initiator_queue_depth": 16, **options}
        return End(end.adapter, end.pd, cq, end.mr, end.buffer, end.pd.create_qp(cq, cq, **values))

    # ---- memory

    def fast_region(
        self,
        end: End,
        flags: int | None = FAST_RIGHTS,
        *,
        size: int = 4096,
        pages: int = 4,
        remote_access: bool = True,
    ) -> FastRegion:
        """A fast-register region over a buffer of its own; with `flags` None it is initialised only."""
        mr = end.pd.create_mr(fast_register=True)
        mr.initialize_fast_register(pages, remote_access).result(PATIENCE_S)
        buffer = bytearray(size)
        lam = end.adapter.build_lam(buffer).result(PATIENCE_S)
        if flags is not None:
            end.qp.fast_register(mr, lam, flags=flags)
            succeed(end.cq)
        return FastRegion(mr, buffer, lam)

    def window(self, end: End, flags: int = FAST_RIGHTS, mr: Mr | None = None) -> Mw:
        """A window bound to all of `mr`, or of the end's own region."""
        mw = end.pd.create_mw()
        end.qp.bind(end.mr if mr is None else mr, mw, flags=flags)
        succeed(end.cq)
        return mw


def join(
    adapter: Adapter,
    active: Qp,
    passive: Qp,
    destination: tuple[str, int],
    next_request: Callable[[], Pending[Connector]],
    **options: Any,
) -> tuple[Connector, Connector]:
    """Connect two QPs through a listener; the connectors of the active and the passive side."""
    connecting = adapter.connect(active, destination, **options)
    incoming = next_request().result(PATIENCE_S)
    accepting = incoming.accept(passive)
    outgoing = connecting.result(PATIENCE_S)
    accepting.result(PATIENCE_S)
    return outgoing, incoming


# ---- judging


def delivered(end: End) -> list[Result]:
    """Wait until the peer has taken in everything that this end has sent; returns the results that came meanwhile.

    A read of no octets is answered only after what was sent before it.
    """
    here = object()
    end.qp.read([], 0, end.mr.remote_token, context=here)
    found: list[Result] = []
    while not any(result.request_context is here for result in found):
        found += end.cq.wait(PATIENCE_S)
    (own,) = [result for result in found if result.request_context is here]
    own.check()
    return [result for result in found if result is not own]


def drained(end: End) -> list[Result]:
    """With the QP flushed: every result that is left, oldest first.

    A receive can always be posted; on a QP that was flushed it comes back behind all others.
    """
    last = object()
    end.qp.receive([], context=last)
    found: list[Result] = []
    while not any(result.request_context is last for result in found):
        found += end.cq.wait(PATIENCE_S)
    return [result for result in found + end.cq.get_results() if result.request_context is not last]


def ended(end: End) -> Disconnect:
    """How the connection ended for this end."""
    return end.connector.disconnected.result(PATIENCE_S)


def still_works(pair: Pair) -> None:
    """A message goes each way; the CQs are empty before and after."""
    for sender, receiver in (pair, pair[::-1]):
        receiver.qp.receive(receiver.mr[8000:8016], context="still works")
        sender.fill(b"still works", 8032)
        sender.qp.send(sender.mr[8032:8043], context="still works")
        arrived, sent = one(receiver.cq), one(sender.cq)
        assert (arrived.status, arrived.bytes_transferred) == (Status.SUCCESS, 11)
        assert sent.status is Status.SUCCESS
        assert contexts([arrived, sent]) == ["still works"] * 2
