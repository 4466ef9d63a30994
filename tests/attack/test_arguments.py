"""Every public call with values of wrong types and out of range.

Only TypeError, the ValueError family and NdkError may come out, with a text that names what is wrong; and nothing has
changed then: no state of any object, no results, no connection.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, fields
from typing import Any

import pytest

from softndk import (
    Adapter,
    InvalidParameter,
    IwarpConfig,
    LocalToken,
    Mdl,
    NdkError,
    NdkVersion,
    OpFlag,
    Sge,
    Status,
    open_adapter,
)
from softndk.testing import Pair, pair
from tests.attack.attack_tools import PATIENCE_S


class Odd:
    """An object of no use."""


NO_INTEGERS: list[Any] = ["4", 1.0, 1.5, float("nan"), float("inf"), [], (1,), {}, b"\0", Odd(), object, 2j]
NO_ADDRESSES: list[Any] = [
    *(5, "127.0.0.1", [], ("127.0.0.1",), ("127.0.0.1", 1, 2), (1, 2), (b"\x7f\0\0\1", 5), ("127.0.0.1", "5")),
    *(("127.0.0.1", -1), ("127.0.0.1", 65536), ("127.0.0.1", 1.5), ("127.0.0.1", True), ("localhost", 5), ("", 5)),
    *(("127.1", 5), ("::1%", 5), ("256.0.0.1", 5), (None, None), Odd()),
]
NO_BYTES: list[Any] = ["text", 5, 1.5, [1, 2], Odd(), object]
NO_CALLABLES: list[Any] = ["print", 5, [], Odd()]


@dataclass
class World:
    """Two connected ends, and of the first one an instance of everything."""

    ends: Pair

    def __post_init__(self) -> None:
        end = self.ends.a
        self.adapter, self.pd, self.cq, self.mr, self.qp = end.adapter, end.pd, end.cq, end.mr, end.qp
        self.connector = end.connector
        self.frmr = self.pd.create_mr(fast_register=True)
        self.frmr.initialize_fast_register(4, True).result(0)
        self.mw = self.pd.create_mw()
        self.idle_mr = self.pd.create_mr()
        self.idle_frmr = self.pd.create_mr(fast_register=True)
        self.idle_connector = self.adapter.create_connector()
        self.idle_qp = self.pd.create_qp(self.cq, self.cq, receive_queue_depth=1, initiator_queue_depth=1)
        self.idle_listener = self.adapter.create_listener()
        self.listener = self.adapter.listen()
        self.lam = self.adapter.build_lam(bytearray(8192)).result(0)
        self.srq = self.pd.create_srq(8)
        self.endpoint = self.adapter.create_shared_endpoint(("127.0.0.1", 0))

    def state(self) -> object:
        """Everything that a failed call might have changed."""
        return [repr(item) for end in self.ends for item in (end.adapter, *end.adapter.open_objects)]

    def check_that_it_works(self) -> None:
        a, b = self.ends
        b.qp.receive(b.mr[0:16], context="proof")
        a.qp.send(b"proof")
        assert [result.request_context for result in b.cq.wait(PATIENCE_S)] == ["proof"]
        assert [result.status for result in a.cq.wait(PATIENCE_S)] == [Status.SUCCESS]


@pytest.fixture(scope="module")
def world() -> Iterator[World]:
    with pair() as ends:
        yield World(ends)


Call = Callable[..., object]
CALLS: dict[str, tuple[Callable[[World], Call], str, list[Any]]] = {
    # name: how to get the method, its arguments but the bad one, values that are bad
}


def attack(name: str, method: Callable[[World], Call], parameter: str, bad: list[Any], **good: Any) -> None:
    CALLS[f"{name} {parameter}"] = (
        lambda world: (
            lambda value: method(world)(
                **{**{key: item(world) if callable(item) else item for key, item in good.items()}, parameter: value}
            )
        ),
        parameter,
        bad,
    )


attack("cq.get_results", lambda w: w.cq.get_results, "max_results", NO_INTEGERS)
attack("cq.wait", lambda w: w.cq.wait, "max_results", [*NO_INTEGERS, None], timeout=0)
attack("cq.wait", lambda w: w.cq.wait, "timeout", ["4", [], Odd(), 2j, float("nan")])
attack("cq.next_results", lambda w: w.cq.next_results, "max_results", [*NO_INTEGERS, None, 0])
attack("cq.resize", lambda w: w.cq.resize, "depth", [*NO_INTEGERS, None, 0, -1, 1 << 40])
attack("adapter.create_cq", lambda w: w.adapter.create_cq, "depth", [*NO_INTEGERS, None, 0, -1, 1 << 40])
attack("adapter.create_cq", lambda w: w.adapter.create_cq, "on_notify", NO_CALLABLES, depth=4)
attack("adapter.create_listener", lambda w: w.adapter.create_listener, "on_connect", NO_CALLABLES)
attack("adapter.build_lam", lambda w: w.adapter.build_lam, "length", [*NO_INTEGERS, 0, 9], buffer=bytes(8))
attack("adapter.build_lam", lambda w: w.adapter.build_lam, "buffer", [*NO_BYTES, b""])
attack("adapter.listen", lambda w: w.adapter.listen, "address", NO_ADDRESSES)
attack("listener.listen", lambda w: w.idle_listener.listen, "address", NO_ADDRESSES)
attack("adapter.create_shared_endpoint", lambda w: w.adapter.create_shared_endpoint, "address", NO_ADDRESSES)
for _name, _method in (
    ("adapter.connect", lambda w: w.adapter.connect),
    ("connector.connect", lambda w: w.idle_connector.connect),
):
    _good = {"qp": lambda w: w.idle_qp, "destination": lambda w: w.listener.local_address}
    attack(_name, _method, "destination", NO_ADDRESSES, qp=_good["qp"])
    attack(_name, _method, "private_data", [*NO_BYTES, bytes(513)], **_good)
    attack(_name, _method, "inbound_read_limit", [*NO_INTEGERS, -1], **_good)
    attack(_name, _method, "outbound_read_limit", [*NO_INTEGERS, -1], **_good)
    attack(_name, _method, "qp", [None, 5, Odd()], destination=_good["destination"])
attack("connector.connect", lambda w: w.idle_connector.connect, "source", NO_ADDRESSES, **_good)
attack("adapter.connect", lambda w: w.adapter.connect, "on_disconnect", NO_CALLABLES, **_good)
attack("connector.complete_connect", lambda w: w.idle_connector.complete_connect, "on_disconnect", NO_CALLABLES)
attack("connector.accept", lambda w: w.idle_connector.accept, "on_disconnect", NO_CALLABLES, qp=_good["qp"])
attack("connector.reject", lambda w: w.idle_connector.reject, "private_data", NO_BYTES)
attack("pd.register_mr", lambda w: w.pd.register_mr, "length", [*NO_INTEGERS, 0, 9, -1], buffer=bytes(8))
attack("pd.register_mr", lambda w: w.pd.register_mr, "flags", [*NO_INTEGERS, 0x10, 4, -1], buffer=bytes(8))
attack("pd.register_mr", lambda w: w.pd.register_mr, "buffer", [*NO_BYTES, None, b"", memoryview(bytes(8))[::2]])
attack("mr.register", lambda w: w.idle_mr.register, "length", [*NO_INTEGERS, 0, 9, -1], buffer=bytes(8), flags=0)
attack("mr.register", lambda w: w.idle_mr.register, "flags", [*NO_INTEGERS, None, 0x10, 4, -1], buffer=bytes(8))
attack(
    "mr.initialize_fast_register",
    lambda w: w.idle_frmr.initialize_fast_register,
    "page_count",
    [*NO_INTEGERS, None],
    allow_remote_access=True,
)
attack("mr[]", lambda w: lambda stop: w.mr[slice(0, stop)], "stop", NO_INTEGERS)
attack("mr[]", lambda w: lambda start: w.mr[slice(start, None)], "start", NO_INTEGERS)
attack("mr[]", lambda w: lambda index: w.mr[index], "index", [0, None, "0:4", (slice(0, 4),)])
for _parameter in ("receive_queue_depth", "initiator_queue_depth", "max_receive_sge", "max_initiator_sge"):
    _depths = {"receive_queue_depth": 1, "initiator_queue_depth": 1, "inline_data_size": 1}
    _depths |= {"max_receive_sge": 1, "max_initiator_sge": 1}
    _cqs = {"receive_cq": lambda w: w.cq, "initiator_cq": lambda w: w.cq}
    del _depths[_parameter]
    attack("pd.create_qp", lambda w: w.pd.create_qp, _parameter, [*NO_INTEGERS, None, -1, 1 << 30], **_cqs, **_depths)
attack(
    "pd.create_qp",
    lambda w: w.pd.create_qp,
    "receive_cq",
    [None, 5, Odd()],
    initiator_cq=lambda w: w.cq,
    receive_queue_depth=1,
    initiator_queue_depth=1,
)
attack("pd.create_srq", lambda w: w.pd.create_srq, "depth", [*NO_INTEGERS, None, 0, -1, 1 << 30])
attack("srq.modify", lambda w: w.srq.modify, "depth", [*NO_INTEGERS, None, -1, 1 << 30])
attack("object.close", lambda w: w.idle_mr.close, "on_done", NO_CALLABLES)

BAD_SGES: list[Any] = [
    *(5, Odd(), [None], [5], ["x"], {1: 2}, Sge(1.5, 4, LocalToken(1)), [Sge(0, 2.0, LocalToken(1))]),  # type: ignore[arg-type]
    *(Sge("0", 4, LocalToken(1)), Sge(0, None, LocalToken(1)), Sge(0, 4, 1.0), Sge(0, 4, "1")),  # type: ignore[arg-type]
    *(Sge(-1, 4, LocalToken(1)), Sge(1 << 64, 4, LocalToken(1)), Sge(0, -4, LocalToken(1)), Sge(0, 4, LocalToken(-1))),
]
TOO_MANY = [Sge(0, 1, LocalToken(1))] * 40
attack("qp.receive", lambda w: w.qp.receive, "sgl", [*BAD_SGES, b"bytes", Sge.inline(b"x"), TOO_MANY])
attack("qp.send", lambda w: w.qp.send, "sgl", [*BAD_SGES, "text", bytes(9000), TOO_MANY])
attack("qp.send inline", lambda w: w.qp.send, "sgl", [*BAD_SGES, "text"], flags=OpFlag.INLINE)
attack("qp.send", lambda w: w.qp.send, "flags", [*NO_INTEGERS, None, True, -1, 1 << 20, OpFlag.RDMA_READ_SINK], sgl=[])
attack("qp.send_and_invalidate", lambda w: w.qp.send_and_invalidate, "sgl", BAD_SGES, remote_token=1)
attack(
    "qp.send_and_invalidate",
    lambda w: w.qp.send_and_invalidate,
    "remote_token",
    [*NO_INTEGERS, None, -1, 1 << 32],
    sgl=[],
)
for _name, _method in (("qp.write", lambda w: w.qp.write), ("qp.read", lambda w: w.qp.read)):
    attack(_name, _method, "sgl", BAD_SGES, remote_address=0, remote_token=1)
    attack(_name, _method, "remote_address", [*NO_INTEGERS, None, -1, 1 << 64], sgl=[], remote_token=1)
    attack(_name, _method, "remote_token", [*NO_INTEGERS, None, -1, 1 << 32], sgl=[], remote_address=0)
_bind = {"mr": lambda w: w.mr, "mw": lambda w: w.mw}
attack("qp.bind", lambda w: w.qp.bind, "length", [*NO_INTEGERS, 0, -1, 8193, 1 << 70], **_bind, flags=8)
attack("qp.bind", lambda w: w.qp.bind, "address", [*NO_INTEGERS, 0, -1, 1 << 70], **_bind, flags=8, length=1)
attack("qp.bind", lambda w: w.qp.bind, "flags", [*NO_INTEGERS, 0, 0x20, 0x10], **_bind)
attack("qp.bind", lambda w: w.qp.bind, "mr", [None, 5, lambda w: w.mw], mw=_bind["mw"], flags=8)
attack("qp.bind", lambda w: w.qp.bind, "mw", [None, 5, lambda w: w.mr], mr=_bind["mr"], flags=8)
_register = {"mr": lambda w: w.frmr, "flags": 8}
_lam = {"pages": lambda w: w.lam}
attack("qp.fast_register", lambda w: w.qp.fast_register, "fbo", [*NO_INTEGERS, -1, 4096], **_register, **_lam)
attack("qp.fast_register", lambda w: w.qp.fast_register, "length", [*NO_INTEGERS, 0, -1, 1 << 40], **_register, **_lam)
attack(
    "qp.fast_register", lambda w: w.qp.fast_register, "base_address", [*NO_INTEGERS, -1, 1 << 64], **_register, **_lam
)
attack(
    "qp.fast_register",
    lambda w: w.qp.fast_register,
    "pages",
    [None, 5, Odd(), [], [1.0], ["x"], [None], [1], [-4096], [1 << 80], {1: 2}, iter([4096])],
    **_register,
    fbo=0,
    length=4096,
    base_address=0,
)
attack("qp.invalidate", lambda w: w.qp.invalidate, "target", [None, 5, Odd()])
attack("lam.sges", lambda w: w.lam.sges, "offset", [*NO_INTEGERS, None, -1, 9000], length=1, token=1)
attack("lam.sges", lambda w: w.lam.sges, "length", [*NO_INTEGERS, None, -1, 9000], offset=0, token=1)
attack("Mdl", lambda w: Mdl, "address", [*NO_INTEGERS, -1, 1 << 64], buffers=bytes(4))
attack("Mdl", lambda w: Mdl, "buffers", [None, 5, "text", [5], [None], []])
attack("Sge.inline", lambda w: Sge.inline, "data", NO_BYTES)
attack("open_adapter", lambda w: open_adapter, "address", [None, 5, 1.5, [], [5], ["x"], Odd(), "localhost", [[]]])
attack("open_adapter", lambda w: open_adapter, "version", [None, 5, (), (1,), (1, 2, 3), ("a", "b"), (1, "b"), (3, 0)])
attack("open_adapter", lambda w: open_adapter, "config", [5, {}, "x", Odd()])
attack("open_adapter", lambda w: open_adapter, "transport", [None, 5, "verbs", []])
attack("open_adapter", lambda w: open_adapter, "datapath", [5, "cobol", []])
attack("open_adapter", lambda w: open_adapter, "trace", [5, True, 1.5, [], Odd()])
attack("object.name", lambda w: lambda name: setattr(w.idle_mr, "name", name), "name", [None, 5, b"x", Odd()])


@pytest.mark.parametrize("name", CALLS)
def test_a_bad_value_is_refused_by_name_and_changes_nothing(world: World, name: str) -> None:
    call, parameter, values = CALLS[name]
    before = world.state()
    for value in values:
        with pytest.raises((TypeError, ValueError, IndexError, NdkError)) as refusal:
            call(world)(value(world) if callable(value) and value is not object else value)
        text = str(refusal.value)
        assert any(word in text for word in (parameter, *NAMED_OTHERWISE.get(parameter, ()))), (value, text)
        assert not text.startswith(("'", "unsupported", "object")), (value, text)  # the interpreter's own words
        assert world.state() == before, value
    world.check_that_it_works()


NAMED_OTHERWISE = {
    "buffer": ("register_mr",),
    "buffers": ("Mdl",),
    "sgl": ("qp1 ",),
    "stop": ("mr1[",),
    "start": ("mr1[",),
    "index": ("mr1[",),
    "on_done": ("callback",),
    "on_notify": ("callback",),
    "on_connect": ("callback",),
    "on_disconnect": ("callback",),
    "mr": ("is not Mr",),
    "mw": ("is not Mw",),
    "pages": ("page",),
    "target": ("is not Mr",),
    "data": ("Sge.inline",),
    "length": ("not inside mr1",),
    "address": ("not inside mr1",),
    "qp": ("is not a Qp",),
}
"""What a message may say instead of the parameter's name."""


class TestConfig:
    @pytest.mark.parametrize("field", [item.name for item in fields(IwarpConfig)])
    def test_of_wrong_types(self, field: str) -> None:
        bad: list[Any] = ["x", [], Odd(), 2j, float("nan")]
        for value in bad:
            with pytest.raises((TypeError, InvalidParameter), match=field):
                IwarpConfig(**{field: value})

    @pytest.mark.parametrize("field", ["max_pending_requests", "max_handshakes", "send_buffer", "max_fpdu"])
    def test_sizes_are_whole_numbers(self, field: str) -> None:
        bad: list[Any] = [70000.5, float("inf"), 1e9, True]
        for value in bad:
            with pytest.raises((TypeError, InvalidParameter), match=field):
                IwarpConfig(**{field: value})

    @pytest.mark.parametrize(("seconds", "taken"), [(0, True), (0.1, False), (1.99, False), (2, True), (1e6, True)])
    def test_a_dead_peer_gets_the_time_to_answer_a_retransmission(self, seconds: float, taken: bool) -> None:
        if taken:
            assert IwarpConfig(dead_peer_timeout_s=seconds).dead_peer_timeout_s == seconds
        else:
            with pytest.raises(InvalidParameter, match=r"dead_peer_timeout_s=.*must be 0 \(off\), or 2 or more"):
                IwarpConfig(dead_peer_timeout_s=seconds)


def test_a_version_may_be_any_pair() -> None:
    adapter: Adapter = open_adapter(version=(2, 0))  # type: ignore[arg-type]
    assert adapter.version == NdkVersion(2, 1)
    adapter.close().result(PATIENCE_S)


def test_private_data_is_counted_in_octets_and_copied(world: World) -> None:
    """An array of 4-octet numbers, a slice with a step, a bytearray that changes after the call."""
    listener = world.listener
    numbers = memoryview(bytearray(range(80))).cast("I")[::2]
    connecting = world.adapter.connect(world.idle_qp, listener.local_address, private_data=numbers)  # type: ignore[arg-type]
    incoming = listener.next_request().result(PATIENCE_S)
    assert incoming.connection_data.private_data == numbers.tobytes()
    answer = bytearray(b"answer")
    incoming.reject(answer)  # type: ignore[arg-type]
    answer[:] = b"------"
    error = connecting.exception(PATIENCE_S)
    assert isinstance(error, NdkError)
    assert error.private_data == b"answer"
