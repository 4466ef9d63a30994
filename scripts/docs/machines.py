"""The state machines of the objects: the connection's from its table, the others by trying every step in every state.

Where the code has no table of states, the objects themselves are asked: `explore` brings a fresh object into each state
that it can find, does each step there and looks at what has become of it. So what is shown is what the code does. Knows
nothing of pictures and pages.
"""

from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any, Final

from softndk import (
    CqNotify,
    Mr,
    NdkError,
    OperationType,
    OpFlag,
    Pending,
    Result,
    Status,
    open_adapter,
)
from softndk.iwarp.qp_state import TRANSITIONS
from softndk.queues.completion import CompletionRing
from softndk.queues.shared import SharedReceives
from softndk.queues.work import ReceiveRequest
from softndk.testing import kill, pair

__all__ = ["MACHINES", "Machine", "Outcome", "connection", "explore"]

WAIT_S: Final = 10.0
Step = Callable[[Any], object]


@dataclass(frozen=True, slots=True)
class Outcome:
    """What a step did: the state afterwards, and the failure if it was refused. `told`: a notification was made."""

    state: str
    refusal: str = ""
    told: bool = False


@dataclass(frozen=True, slots=True)
class Machine:
    """`moves`: (state, step) -> what becomes of it. A key that is missing: the step does not exist in that state."""

    states: tuple[str, ...]
    steps: tuple[str, ...]
    moves: Mapping[tuple[str, str], Outcome]


class Impossible(Exception):
    """The step does not exist in this state."""


class ConnectionEnded(Exception):
    """The step is the peer's, and has cost it the connection."""


def explore(
    make: Callable[[], AbstractContextManager[Any]],
    look: Callable[[Any], str],
    steps: Mapping[str, Step],
    told: Callable[[Any], int] = lambda _: 0,
) -> Machine:
    """Find every state that `steps` reach from a fresh object, and what each step does in each.

    look: names the state that the object is in. told: how many notifications there have been. A step raises NdkError if
    it is refused, ConnectionEnded if the peer loses the connection by it, Impossible if it does not exist.
    """
    with make() as fresh:
        first = look(fresh)
    ways: dict[str, tuple[str, ...]] = {first: ()}
    moves: dict[tuple[str, str], Outcome] = {}
    for state in (queue := [first]):
        for name, step in steps.items():
            with make() as item:
                for earlier in ways[state]:
                    steps[earlier](item)
                assert look(item) == state, f"{state}: {look(item)} by the same way"
                refusal, before = "", told(item)
                try:
                    step(item)
                except Impossible:
                    continue
                except NdkError as error:
                    refusal = f"{type(error).__name__} ({error.status.name})"
                except ConnectionEnded:
                    refusal = "the connection ends"
                reached = look(item)
                moves[state, name] = Outcome(reached, refusal, told(item) > before)
            if reached not in ways:
                ways[reached] = (*ways[state], name)
                queue.append(reached)
    return Machine(tuple(ways), tuple(steps), moves)


def connection() -> Machine:
    """The life of a connection, from the table that the code obeys."""
    moves = {(source.value, step.value): Outcome(target.value) for (source, step), target in TRANSITIONS.items()}
    states = dict.fromkeys(state for source, outcome in moves.items() for state in (source[0], outcome.state))
    return Machine(tuple(states), tuple(dict.fromkeys(step for _, step in moves)), moves)


# ---- memory


@contextmanager
def _normal_region() -> Iterator[Any]:
    with open_adapter() as adapter:
        yield SimpleNamespace(mr=adapter.create_pd().create_mr(), buffer=bytearray(64))


def _region_state(mr: Mr) -> str:
    if mr.closed:
        return "closed"
    return "not registered" if mr._region.local is None else "registered" if mr._region.valid else "invalid"


def normal_region() -> Machine:
    """A region that is registered by a call."""
    return explore(
        _normal_region,
        lambda item: _region_state(item.mr),
        {
            "register": lambda item: item.mr.register(item.buffer, 0).result(WAIT_S),
            "deregister": lambda item: item.mr.deregister().result(WAIT_S),
            "close": lambda item: item.mr.close(),
        },
    )


@contextmanager
def _ends() -> Iterator[Any]:
    with pair() as (a, b), a.adapter.build_lam(bytearray(64)).result(WAIT_S) as mapping:
        fast = a.pd.create_mr(fast_register=True)
        yield SimpleNamespace(a=a, b=b, mapping=mapping, fast=fast, window=a.pd.create_mw())


def _done(item: Any) -> None:
    """The result of the request that `a` has posted."""
    item.a.cq.wait(WAIT_S)[0].check()


def _peer_invalidates(item: Any, token: Callable[[], int]) -> None:
    item.a.qp.receive(item.a.mr[0:64])
    item.b.qp.send_and_invalidate(b"", token())
    try:
        _done(item)
    except NdkError as error:
        item.b.connector.disconnected.result(WAIT_S)
        raise ConnectionEnded from error


_RIGHTS: Final = OpFlag.ALLOW_REMOTE_READ | OpFlag.ALLOW_REMOTE_WRITE


def _fast_register(item: Any) -> None:
    item.a.qp.fast_register(item.fast, item.mapping, flags=_RIGHTS)
    _done(item)


def _invalidate(item: Any, what: Any) -> None:
    item.a.qp.invalidate(what)
    _done(item)


def _read_and_invalidate(item: Any) -> None:
    fast = item.fast
    if not fast._region.valid:
        raise Impossible
    remote = item.b.pd.register_mr(bytearray(8), 3)
    item.a.qp.read(fast[0:8], remote.address, remote.remote_token, flags=OpFlag.RDMA_READ_LOCAL_INVALIDATE)
    _done(item)


def fast_region() -> Machine:
    """A region that is registered by a request in the queue."""

    def look(item: Any) -> str:
        state = _region_state(item.fast)
        return {"not registered": "new", "registered": "valid"}.get(state, state)

    def taken_by_peer(item: Any) -> None:
        if item.fast.closed or item.fast._region.remote is None:
            raise Impossible
        _peer_invalidates(item, lambda: item.fast.remote_token)

    return explore(
        _ends,
        look,
        {
            "initialize_fast_register": lambda item: item.fast.initialize_fast_register(4, True).result(WAIT_S),
            "fast_register": _fast_register,
            "invalidate": lambda item: _invalidate(item, item.fast),
            "peer's send_and_invalidate": taken_by_peer,
            "read with local invalidate": _read_and_invalidate,
            "close": lambda item: item.fast.close(),
        },
    )


def window() -> Machine:
    """A memory window."""

    def look(item: Any) -> str:
        mw = item.window
        return "closed" if mw.closed else "bound" if mw._window.valid else "invalid"

    def bind(item: Any) -> None:
        item.a.qp.bind(item.a.mr, item.window, flags=_RIGHTS)
        _done(item)

    def taken_by_peer(item: Any) -> None:
        if item.window.closed:
            raise Impossible
        _peer_invalidates(item, lambda: item.window.remote_token)

    return explore(
        _ends,
        look,
        {
            "bind": bind,
            "invalidate": lambda item: _invalidate(item, item.window),
            "peer's send_and_invalidate": taken_by_peer,
            "close": lambda item: item.window.close(),
        },
    )


# ---- deferral


@contextmanager
def _queue() -> Iterator[Any]:
    with pair(queue_depth=3) as (a, b):
        yield SimpleNamespace(a=a, b=b)


def deferral() -> Machine:
    """What is held back in an initiator queue, and what starts or cancels it."""

    def look(item: Any) -> str:
        qp, connector = item.a.qp, item.a.connector
        if connector.closing or connector._core.disconnect_asked:
            return "posts are refused"
        if qp._pair.flushing:
            return "posts are cancelled"
        return "held back" if len(qp._pair.waiting) > qp._pair.released else "nothing held back"

    def post(item: Any, flags: int = 0) -> None:
        item.a.qp.write(b"", 0, 0, flags=flags)

    def fill(item: Any) -> None:
        if look(item).startswith("posts are"):
            raise Impossible
        for _ in range(3 - item.a.qp._pair.sends_in_use):
            post(item, OpFlag.DEFER)

    def wrong(item: Any) -> None:
        try:
            post(item, OpFlag.RDMA_READ_SINK)
        except NdkError:
            return

    def lose(item: Any) -> None:
        if item.a.connector.closing:
            raise Impossible
        kill(item.b.adapter, "reset")
        if look(item) != "posts are refused":
            item.a.connector.disconnected.result(WAIT_S)

    return explore(
        _queue,
        look,
        {
            "post with DEFER": lambda item: post(item, OpFlag.DEFER),
            "post with DEFER that fills the queue": fill,
            "post without DEFER": post,
            "post that raises": wrong,
            "flush": lambda item: item.a.qp.flush(),
            "the connection fails": lose,
            "disconnect": lambda item: item.a.connector.disconnect().add_done_callback(Pending.exception),
            "close of the connector": lambda item: item.a.connector.close(),
        },
    )


# ---- notification


@contextmanager
def _ring() -> Iterator[Any]:
    fired: list[Status] = []
    yield SimpleNamespace(ring=CompletionRing(2, fired.append, lambda: None), fired=fired)


def arming() -> Machine:
    """The arm of a completion queue: what widens it, and what satisfies it."""

    def push(item: Any, *, solicited: bool = False, status: Status = Status.SUCCESS) -> None:
        item.ring.push(Result(type=OperationType.RECEIVE, status=status), solicited=solicited)

    return explore(
        _ring,
        lambda item: "not armed" if item.ring.armed is None else f"armed {item.ring.armed.name}",
        {
            "arm(ERRORS)": lambda item: item.ring.arm(CqNotify.ERRORS),
            "arm(SOLICITED)": lambda item: item.ring.arm(CqNotify.SOLICITED),
            "arm(ANY)": lambda item: item.ring.arm(CqNotify.ANY),
            "solicited message received": lambda item: push(item, solicited=True),
            "other success": push,
            "failed request": lambda item: push(item, status=Status.CANCELLED),
            "overrun or failure of the queue": lambda item: item.ring.fail(Status.BUFFER_OVERFLOW),
        },
        lambda item: len(item.fired),
    )


@contextmanager
def _shared() -> Iterator[Any]:
    fired: list[Status] = []
    yield SimpleNamespace(shared=SharedReceives("srq1", 8, 2, fired.append), fired=fired)


def shared_queue() -> Machine:
    """The notification of a shared receive queue whose threshold is 2."""

    def fill(shared: SharedReceives, count: int) -> None:
        while len(shared) > count:
            shared._receives.pop()
        while len(shared) < count:
            shared.post(ReceiveRequest((), None))

    def modify(shared: SharedReceives, queued: int) -> None:
        fill(shared, queued)
        shared.modify(0, 2)

    def take(shared: SharedReceives, queued: int) -> None:
        fill(shared, queued)
        shared.take(lambda: None)

    return explore(
        _shared,
        lambda item: "armed" if item.shared.armed else "not armed",
        {
            "receive": lambda item: item.shared.post(ReceiveRequest((), None)),
            "message, enough left": lambda item: take(item.shared, 4),
            "message, count falls below threshold": lambda item: take(item.shared, 2),
            "modify(threshold), enough queued": lambda item: modify(item.shared, 2),
            "modify(threshold), too few queued": lambda item: modify(item.shared, 1),
        },
        lambda item: len(item.fired),
    )


# ---- life


@contextmanager
def _listener() -> Iterator[Any]:
    with open_adapter() as adapter, open_adapter() as client:
        yield SimpleNamespace(
            listener=adapter.create_listener(),
            client=client,
            requests=[],
            cq=client.create_cq(4),
            pd=client.create_pd(),
        )


def listener() -> Machine:
    """A listener, from its creation to the end of its close."""

    def look(item: Any) -> str:
        it = item.listener
        if it.closing:
            return "closed" if it.closed else "closing"
        name = "listening" if it._sockets else "idle"
        return f"{name}, paused" if it._paused else name

    def close_with_connector(item: Any) -> None:
        it = item.listener
        if it.closing or it._address is None:
            raise Impossible
        was_paused = it._paused
        it.control_connect_events(pause=False)
        qp = item.pd.create_qp(item.cq, item.cq, receive_queue_depth=1, initiator_queue_depth=1)
        item.connecting = item.client.create_connector().connect(qp, it.local_address)
        item.requests.append(it.next_request().result(WAIT_S))
        it.control_connect_events(pause=was_paused)
        it.close()

    def last_connector(item: Any) -> None:
        if not item.requests:
            raise Impossible
        item.requests.pop().close().result(WAIT_S)
        item.connecting.exception(WAIT_S)

    return explore(
        _listener,
        look,
        {
            "listen": lambda item: item.listener.listen(("127.0.0.1", 0)).result(WAIT_S),
            "pause": lambda item: item.listener.control_connect_events(pause=True),
            "go on": lambda item: item.listener.control_connect_events(pause=False),
            "close, its connectors closed": lambda item: item.listener.close(),
            "close, a connector open": close_with_connector,
            "its last connector closes": last_connector,
        },
    )


@contextmanager
def _domain() -> Iterator[Any]:
    with open_adapter() as adapter:
        yield SimpleNamespace(pd=adapter.create_pd(), held=[])


def closing() -> Machine:
    """The close of an object on which others may depend, shown by a protection domain and a region."""

    def look(item: Any) -> str:
        pd = item.pd
        if pd.closing:
            return "closed" if pd.closed else "closing"
        return "open, needed" if item.held else "open"

    def need(item: Any) -> None:
        made = item.pd.create_mr()
        if item.held:
            made.close()
        else:
            item.held.append(made)

    def free(item: Any) -> None:
        if not item.held:
            raise Impossible
        item.held.pop().close()

    return explore(
        _domain,
        look,
        {
            "something is made that needs it": need,
            "the last that needs it is closed": free,
            "close": lambda item: item.pd.close(),
        },
    )


MACHINES: Final[Mapping[str, Callable[[], Machine]]] = {
    "connection": connection,
    "region": normal_region,
    "fast-register region": fast_region,
    "window": window,
    "deferral": deferral,
    "arm": arming,
    "shared receive queue": shared_queue,
    "listener": listener,
    "close": closing,
}
