"""Atomics between two adapters (RFC 7306 5): what they do, rights, order, limits, and every way in which they can fail."""

import struct
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import pytest

from softndk import (
    AccessViolation,
    ConnectionInvalid,
    DataOverrun,
    InvalidParameter,
    InvalidState,
    IwarpConfig,
    LocalToken,
    Mr,
    MrFlag,
    NotSupported,
    OperationType,
    OpFlag,
    QueueFull,
    RemoteToken,
    Result,
    Sge,
    Status,
    open_adapter,
)
from softndk.testing import End, Pair, kill, pair
from softndk.wire.ddp import QueueNumber
from softndk.wire.mpa import Enhanced
from softndk.wire.rdmap import Opcode
from softndk.wire.terminate import Terminate
from tests.ndk.ends import (
    EVERY_RIGHT,
    PATIENCE_S,
    Ledger,
    connect,
    contexts,
    ended,
    fast_region,
    fault_of,
    initiators,
    loose_end,
    one,
    statistics,
    still_works,
    succeed,
    take,
    triple,
)
from tests.ndk.raw_peer import RawPeer, raw_client, raw_server

ONES = (1 << 64) - 1
ATOMIC = MrFlag.ALLOW_REMOTE_ATOMIC
UNKNOWN = RemoteToken(0x0BAD_0100)
SEVERAL = 8


def numbers(end: End, *values: int, flags: int = ATOMIC) -> Mr:
    """A region of eight numbers."""
    return end.pd.register_mr(bytearray(struct.pack("=8Q", *values, *[0] * (SEVERAL - len(values)))), flags)


def values_of(mr: Mr) -> tuple[int, ...]:
    return struct.unpack("=8Q", mr.view)


def add(end: End, mr: Mr, value: int, *, index: int = 0, **options: Any) -> None:
    end.qp.fetch_add(end.mr[0:8], mr.address + 8 * index, mr.remote_token, value, **options)


def swap(end: End, mr: Mr, compare: int, new: int, **options: Any) -> None:
    end.qp.compare_swap(end.mr[0:8], mr.address, mr.remote_token, compare, new, **options)


@pytest.fixture
def ends() -> Iterator[Pair]:
    with pair() as both:
        yield both


# ---- what they do


def test_fetch_add(ends: Pair) -> None:
    a, b = ends
    mr = numbers(b, 5, 6)
    a.qp.fetch_add(a.mr[100:108], mr.address + 8, mr.remote_token, 10, context="A")
    result = one(a.cq)
    assert (result.type, result.status, result.request_context) == (OperationType.FETCH_ADD, Status.SUCCESS, "A")
    assert (result.original_value, result.bytes_transferred, result.immediate_data) == (6, 0, None)
    assert not result.is_receive
    assert values_of(mr)[:3] == (5, 16, 0)
    assert bytes(a.mr.view[100:109]) == (6).to_bytes(8, sys.byteorder) + b"\0"
    assert b.cq.get_results() == []


@pytest.mark.parametrize(
    ("old", "value", "mask", "new"),
    [
        (0, 0, 0, 0),
        (ONES, 1, 0, 0),
        (1, ONES, 0, 0),
        (0x00000001_FFFFFFFF, 0x00000001_00000001, 1 << 31 | 1 << 63, 0x00000002_00000000),
        (0xFF_FF, 0x01_01, 0x80_80, 0),
        (5, 3, ONES, 6),
    ],
)
def test_sums(ends: Pair, old: int, value: int, mask: int, new: int) -> None:
    a, b = ends
    mr = numbers(b, old)
    add(a, mr, value, mask=mask)
    assert one(a.cq).original_value == old
    assert values_of(mr)[:2] == (new, 0)


@pytest.mark.parametrize(
    ("old", "compare", "new", "masks", "left"),
    [
        (7, 7, 9, {}, 9),
        (7, 8, 9, {}, 7),
        (0xAB07, 7, 9, {"compare_mask": 0xFF}, 9),
        (0xAB07, 7, 9, {"compare_mask": 0xFF, "swap_mask": 0xFF}, 0xAB09),
        (7, 0, 9, {"compare_mask": 0}, 9),
        (7, 7, 9, {"swap_mask": 0}, 7),
        (ONES, ONES, 0, {}, 0),
    ],
)
def test_swaps(ends: Pair, old: int, compare: int, new: int, masks: dict[str, int], left: int) -> None:
    a, b = ends
    mr = numbers(b, old)
    swap(a, mr, compare, new, **masks)
    result = one(a.cq)
    assert (result.type, result.original_value) == (OperationType.COMPARE_SWAP, old)
    assert values_of(mr)[:2] == (left, 0)


def test_the_original_value_may_go_into_several_places(ends: Pair) -> None:
    a, b = ends
    mr = numbers(b, 0x0102030405060708)
    a.qp.fetch_add([a.mr[0:1], a.mr[50:50], a.mr[100:107]], mr.address, mr.remote_token, 0)
    succeed(a.cq)
    assert bytes(a.mr.view[0:1]) + bytes(a.mr.view[100:107]) == (0x0102030405060708).to_bytes(8, sys.byteorder)


def test_both_sides_at_once(ends: Pair) -> None:
    regions = {end: numbers(end) for end in ends}
    for _ in range(50):
        for end, other in (ends, ends[::-1]):
            add(end, regions[other], 1)
    for end in ends:
        assert [result.original_value for result in take(end.cq, 50)] == list(range(50))
    assert [values_of(mr)[0] for mr in regions.values()] == [50, 50]


def test_a_counter_of_several_connections_and_threads_counts_each_once() -> None:
    """The originals of all of them together are every number once: no two saw the same, none is missing."""
    rounds, clients = 60, 4
    with open_adapter() as server:
        home = loose_end(server)
        mr = numbers(home)
        seen: list[int] = []
        held: list[Any] = []

        def count(end: End) -> None:
            mine = []
            for _ in range(rounds):
                add(end, mr, 1)
                value = one(end.cq).original_value
                assert value is not None
                mine.append(value)
            assert mine == sorted(mine)
            seen.extend(mine)

        with open_adapter() as first, open_adapter() as second:
            for adapter in (first, second, first, second):
                end = loose_end(adapter)
                qp = home.pd.create_qp(home.cq, home.cq, receive_queue_depth=1, initiator_queue_depth=1)
                held += connect(adapter, end.qp, server, qp)
                held.append(threading.Thread(target=count, args=(end,)))
            threads = [item for item in held if isinstance(item, threading.Thread)]
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join(PATIENCE_S * 3)
                assert not thread.is_alive()
        assert sorted(seen) == list(range(rounds * clients))
        assert values_of(mr)[0] == rounds * clients


def test_a_lock_excludes() -> None:
    """Each holder reads, thinks, writes back by plain RDMA; nothing is lost, since only one does at a time."""
    rounds, clients = 8, 3
    with open_adapter() as server:
        home = loose_end(server)
        lock = numbers(home)
        data = home.pd.register_mr(bytearray(8), EVERY_RIGHT)
        failures: list[BaseException] = []

        def work(end: End, name: int) -> None:
            try:
                for _ in range(rounds):
                    while True:
                        swap(end, lock, 0, name)
                        if one(end.cq).check().original_value == 0:
                            break
                    end.qp.read(end.mr[8:16], data.address, data.remote_token)
                    one(end.cq).check()
                    (value,) = struct.unpack("=Q", end.mr.view[8:16])
                    end.qp.write(struct.pack("=Q", value + 1), data.address, data.remote_token)
                    one(end.cq).check()
                    swap(end, lock, name, 0)  # behind the write, in the same direction
                    assert one(end.cq).check().original_value == name
            except BaseException as error:
                failures.append(error)

        with open_adapter() as adapter:
            threads = []
            held = []
            for name in range(1, clients + 1):
                end = loose_end(adapter)
                qp = home.pd.create_qp(home.cq, home.cq, receive_queue_depth=1, initiator_queue_depth=1)
                held.append(connect(adapter, end.qp, server, qp))
                threads.append(threading.Thread(target=work, args=(end, name)))
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join(PATIENCE_S * 3)
            assert failures == []
        assert struct.unpack("=Q", data.view) == (rounds * clients,)
        assert values_of(lock)[0] == 0


# ---- rights


@pytest.mark.parametrize("flags", [0, MrFlag.ALLOW_LOCAL_WRITE, MrFlag.ALLOW_REMOTE_READ, EVERY_RIGHT])
def test_no_other_right_lets_an_atomic_in(ends: Pair, flags: int) -> None:
    a, b = ends
    mr = numbers(b, 5, flags=flags)
    add(a, mr, 1)
    assert one(a.cq).status is Status.ACCESS_VIOLATION
    assert triple(fault_of(b)) == (0, 1, 2)
    assert "gives no remote atomic" in str(ended(b).error)
    assert values_of(mr)[0] == 5


def test_the_right_lets_nothing_else_in() -> None:
    posts: list[Callable[[End, Mr], None]] = [
        lambda end, mr: end.qp.read(end.mr[0:8], mr.address, mr.remote_token),
        lambda end, mr: end.qp.write(b"x", mr.address, mr.remote_token),
    ]
    for post in posts:
        with pair() as (a, b):
            mr = numbers(b, 5)
            post(a, mr)
            assert triple(fault_of(b)) == (0, 1, 2)
            assert values_of(mr)[0] == 5


def test_the_right_gives_local_write(ends: Pair) -> None:
    a, b = ends
    mr = numbers(b)
    b.qp.receive(mr[0:8])
    a.qp.send(b"8 octets")
    succeed(b.cq)
    assert bytes(mr.view[:8]) == b"8 octets"


@pytest.mark.parametrize("flags", [ATOMIC, ATOMIC | MrFlag.ALLOW_REMOTE_READ])
def test_read_only_memory_is_refused(ends: Pair, flags: int) -> None:
    with pytest.raises(InvalidParameter, match="read-only"):
        ends.b.pd.register_mr(bytes(64), flags)


def test_a_window_needs_local_write_below_it(ends: Pair) -> None:
    a, b = ends
    readable = b.pd.register_mr(bytearray(64), MrFlag.ALLOW_REMOTE_READ)
    with pytest.raises(AccessViolation, match="remote atomic over"):
        b.qp.bind(readable, b.pd.create_mw(), flags=OpFlag.ALLOW_REMOTE_ATOMIC)
    window = b.pd.create_mw()
    b.qp.bind(b.mr, window, b.mr.address + 8, 8, flags=OpFlag.ALLOW_REMOTE_ATOMIC)
    succeed(b.cq)
    a.qp.fetch_add(a.mr[0:8], b.mr.address + 8, window.remote_token, 3)
    succeed(a.cq)
    assert int.from_bytes(b.mr.view[8:16], sys.byteorder) == 3
    a.qp.fetch_add(a.mr[0:8], b.mr.address + 16, window.remote_token, 3)
    assert triple(fault_of(b)) == (0, 1, 1)
    assert one(a.cq).status is Status.REMOTE_RESOURCES


def test_a_fast_register_region(ends: Pair) -> None:
    a, b = ends
    fast = fast_region(b, OpFlag.ALLOW_REMOTE_ATOMIC)
    a.qp.fetch_add(a.mr[0:8], fast.mr.address, fast.mr.remote_token, 3)
    succeed(a.cq)
    assert int.from_bytes(fast.buffer[:8], sys.byteorder) == 3
    b.qp.receive(Sge(fast.mr.address + 8, 8, fast.mr.local_token))  # the right gives local write
    a.qp.send(b"8 octets")
    succeed(b.cq)
    succeed(a.cq)
    assert fast.buffer[8:16] == b"8 octets"
    b.qp.invalidate(fast.mr)
    succeed(b.cq)
    a.qp.fetch_add(a.mr[0:8], fast.mr.address, fast.mr.remote_token, 3)
    assert triple(fault_of(b)) == (0, 1, 0)
    assert int.from_bytes(fast.buffer[:8], sys.byteorder) == 3


def test_a_fast_register_region_without_remote_access_refuses_the_right(ends: Pair) -> None:
    fast = fast_region(ends.b, remote_access=False, flags=None)
    with pytest.raises(AccessViolation, match="R-FRINIT-3"):
        ends.b.qp.fast_register(fast.mr, fast.lam, flags=OpFlag.ALLOW_REMOTE_ATOMIC)


def test_a_fast_register_region_with_this_right_alone_may_be_taken_back(ends: Pair) -> None:
    a, b = ends
    fast = fast_region(b, OpFlag.ALLOW_REMOTE_ATOMIC)
    token = fast.mr.remote_token
    b.qp.receive([])
    a.qp.fetch_add(a.mr[0:8], fast.mr.address, token, 3)
    a.qp.send_and_invalidate(b"", token, flags=OpFlag.READ_FENCE)
    succeed(a.cq, 2)
    assert one(b.cq).invalidated_token == token
    a.qp.fetch_add(a.mr[0:8], fast.mr.address, token, 3)
    assert one(a.cq).status is Status.ACCESS_VIOLATION
    assert triple(fault_of(b)) == (0, 1, 0)
    assert int.from_bytes(fast.buffer[:8], sys.byteorder) == 3


@pytest.mark.parametrize("unknown", ["token", "address", "far address", "wrap"])
def test_what_does_not_exist_there(ends: Pair, unknown: str) -> None:
    a, b = ends
    mr = numbers(b, 5)
    address, token = mr.address, mr.remote_token
    if unknown == "token":
        token = UNKNOWN
    elif unknown == "address":
        address += 64
    elif unknown == "far address":
        address = 0
    else:
        address = ONES - 7
    a.qp.fetch_add(a.mr[0:8], address, token, 1)
    status = Status.ACCESS_VIOLATION if unknown == "token" else Status.REMOTE_RESOURCES
    result = one(a.cq)
    assert (result.status, result.original_value) == (status, None)
    assert triple(fault_of(a)) == triple(fault_of(b)) == (0, 1, 0 if unknown == "token" else 1)
    assert values_of(mr)[0] == 5
    assert statistics(b).connection_error >= 1


def test_a_token_of_another_protection_domain(ends: Pair) -> None:
    a, b = ends
    mr = b.adapter.create_pd().register_mr(bytearray(8), ATOMIC)
    a.qp.fetch_add(a.mr[0:8], mr.address, mr.remote_token, 1)
    assert one(a.cq).status is Status.ACCESS_VIOLATION
    assert triple(fault_of(b)) == (0, 1, 3)


# ---- refused calls


@contextmanager
def nothing_posted(error: type[Exception], match: str, both: Pair) -> Iterator[None]:
    with pytest.raises(error, match=match):
        yield
    still_works(*both)


@pytest.mark.parametrize("name", ["fetch_add", "compare_swap"])
@pytest.mark.parametrize("length", [0, 7, 9, 16])
def test_the_sges_have_eight_octets(ends: Pair, name: str, length: int) -> None:
    a = ends.a
    operands = (1,) if name == "fetch_add" else (1, 2)
    with nothing_posted(InvalidParameter, rf"{name}: the SGEs have {length} octets", ends):
        getattr(a.qp, name)(a.mr[0:length], 0, UNKNOWN, *operands)


@pytest.mark.parametrize("address", [1, 4, 7, 0x1001, ONES])
def test_an_address_that_is_not_aligned_is_refused_at_once(ends: Pair, address: int) -> None:
    a = ends.a
    with nothing_posted(InvalidParameter, "no multiple of 8", ends):
        a.qp.fetch_add(a.mr[0:8], address, UNKNOWN, 1)


CALLS: dict[str, tuple[Callable[[End, Any], None], str]] = {
    "add": (lambda end, value: end.qp.fetch_add(end.mr[0:8], 0, UNKNOWN, value), "add"),
    "mask": (lambda end, value: end.qp.fetch_add(end.mr[0:8], 0, UNKNOWN, 1, mask=value), "mask"),
    "compare": (lambda end, value: end.qp.compare_swap(end.mr[0:8], 0, UNKNOWN, value, 1), "compare"),
    "swap": (lambda end, value: end.qp.compare_swap(end.mr[0:8], 0, UNKNOWN, 1, value), "swap"),
    "compare_mask": (
        lambda end, value: end.qp.compare_swap(end.mr[0:8], 0, UNKNOWN, 1, 2, compare_mask=value),
        "compare_mask",
    ),
    "swap_mask": (
        lambda end, value: end.qp.compare_swap(end.mr[0:8], 0, UNKNOWN, 1, 2, swap_mask=value),
        "swap_mask",
    ),
    "remote_address": (lambda end, value: end.qp.fetch_add(end.mr[0:8], value, UNKNOWN, 1), "remote_address"),
    "remote_token": (lambda end, value: end.qp.fetch_add(end.mr[0:8], 0, value, 1), "remote_token"),
}


@pytest.mark.parametrize("name", CALLS)
@pytest.mark.parametrize(
    ("value", "error"),
    [(-1, InvalidParameter), (1 << 64, InvalidParameter), (True, TypeError), (1.0, TypeError), (None, TypeError)],
)
def test_numbers_out_of_range(ends: Pair, name: str, value: Any, error: type[Exception]) -> None:
    call, operand = CALLS[name]
    with nothing_posted(error, operand, ends):
        call(ends.a, value)


@pytest.mark.parametrize(
    "flag",
    [
        OpFlag.SEND_AND_SOLICIT_EVENT,
        OpFlag.INLINE,
        OpFlag.RDMA_READ_LOCAL_INVALIDATE,
        OpFlag.ALLOW_REMOTE_ATOMIC,
        OpFlag.RDMA_READ_SINK,
    ],
    ids=lambda flag: flag.name,
)
def test_flags_of_other_requests_are_refused(ends: Pair, flag: int) -> None:
    with nothing_posted(InvalidParameter, "R-FLAG-3", ends):
        ends.a.qp.fetch_add(ends.a.mr[0:8], 0, UNKNOWN, 1, flags=flag)


def test_inline_data_is_no_sink(ends: Pair) -> None:
    with nothing_posted(InvalidParameter, "R-WR-10", ends):
        ends.a.qp.fetch_add(Sge.inline(bytes(8)), 0, UNKNOWN, 1)
    with pytest.raises(TypeError):
        ends.a.qp.fetch_add(bytearray(8), 0, UNKNOWN, 1)  # type: ignore[arg-type]


def test_too_many_sges(ends: Pair) -> None:
    limit = ends.a.adapter.query_info().max_read_request_sge
    sges = [ends.a.mr[0:0]] * limit + [ends.a.mr[0:8]]
    with nothing_posted(DataOverrun, "max_read_request_sge", ends):
        ends.a.qp.fetch_add(sges, 0, UNKNOWN, 1)


def test_without_a_connection() -> None:
    with open_adapter() as adapter:
        end = loose_end(adapter)
        with pytest.raises(ConnectionInvalid):
            end.qp.fetch_add(end.mr[0:8], 0, UNKNOWN, 1)


def test_without_reads_there_are_no_atomics() -> None:
    with raw_server(enhanced=Enhanced(ird=0, ord=0, peer_to_peer=True, rtr_write=True)) as (_, end):
        assert end.connector.connection_data.outbound_read_limit == 0
        with pytest.raises(InvalidState, match="fetch_add: the connection's outbound read limit is 0"):
            end.qp.fetch_add(end.mr[0:8], 0, UNKNOWN, 1)
        with pytest.raises(InvalidState, match="compare_swap: the connection's outbound read limit is 0"):
            end.qp.compare_swap(end.mr[0:8], 0, UNKNOWN, 1, 2)


def test_an_adapter_without_rfc_7306_refuses_requests_and_rights() -> None:
    with pair(config=IwarpConfig(rfc7306=False)) as (a, b):
        window, fast = a.pd.create_mw(), fast_region(a, None)
        calls: list[Callable[[], object]] = [
            lambda: a.qp.fetch_add(a.mr[0:8], 0, UNKNOWN, 1),
            lambda: a.qp.compare_swap(a.mr[0:8], 0, UNKNOWN, 1, 2),
            lambda: a.pd.register_mr(bytearray(8), ATOMIC),
            lambda: a.qp.bind(a.mr, window, flags=OpFlag.ALLOW_REMOTE_ATOMIC),
            lambda: a.qp.fast_register(fast.mr, fast.lam, flags=OpFlag.ALLOW_REMOTE_ATOMIC),
        ]
        for call in calls:
            with pytest.raises(NotSupported, match="rfc7306 is off"):
                call()
        still_works(a, b)


# ---- order, limits, fences


def test_more_than_the_read_limit_wait_and_complete_in_order() -> None:
    with pair(flags=EVERY_RIGHT, peer_config=IwarpConfig(max_inbound_read_limit=2)) as (a, b):
        assert a.connector.connection_data.outbound_read_limit == 2
        mr = numbers(b, flags=ATOMIC | MrFlag.ALLOW_REMOTE_READ)
        for number in range(30):
            if number % 3:
                add(a, mr, 1, context=number)
            else:
                a.qp.read(a.mr[8 * number : 8 * number + 8], mr.address, mr.remote_token, context=number)
        results = take(a.cq, 30)
        assert contexts(results) == list(range(30))
        assert [result.original_value for result in results if result.original_value is not None] == list(range(20))
        seen = [struct.unpack_from("=Q", a.mr.view, 8 * number)[0] for number in range(3, 30, 3)]
        assert seen == [2 * index for index in range(1, 10)]


def test_a_fence_makes_a_write_wait_for_the_atomic(ends: Pair) -> None:
    a, b = ends
    mr = numbers(b, 5, flags=ATOMIC | MrFlag.ALLOW_REMOTE_WRITE)
    for _ in range(20):
        add(a, mr, 1)
        a.qp.write(struct.pack("=Q", 100), mr.address, mr.remote_token, flags=OpFlag.READ_FENCE)
    originals = [result.original_value for result in take(a.cq, 40) if result.type is OperationType.FETCH_ADD]
    assert originals == [5] + [100] * 19


def test_deferred_atomics_start_with_the_next_post(ends: Pair) -> None:
    a, b = ends
    mr = numbers(b)
    for number in range(3):
        add(a, mr, 1, context=number, flags=OpFlag.DEFER)
    add(a, mr, 1, context=3)
    assert contexts(take(a.cq, 4)) == [0, 1, 2, 3]
    assert values_of(mr)[0] == 4


def test_silent_success_leaves_the_value_in_memory_only(ends: Pair) -> None:
    a, b = ends
    mr = numbers(b, 5)
    a.qp.fetch_add(a.mr[8:16], mr.address, mr.remote_token, 1, flags=OpFlag.SILENT_SUCCESS)
    add(a, mr, 1, context="told")
    result = one(a.cq)
    assert (result.request_context, result.original_value) == ("told", 6)
    assert struct.unpack("=Q", a.mr.view[8:16]) == (5,)


def test_a_full_queue_refuses_one_more() -> None:
    with raw_server() as (_, end):
        for number in range(64):
            end.qp.fetch_add(end.mr[0:8], 0x9000, UNKNOWN, 1, context=number)
        with pytest.raises(QueueFull, match=r"fetch_add.*initiator_queue_depth=64"):
            end.qp.fetch_add(end.mr[0:8], 0x9000, UNKNOWN, 1)


# ---- failures: each post completes once, in order


def answer(peer: RawPeer, original: int) -> None:
    """Take the next request, which must be an atomic, and answer it."""
    _, body = peer.read_untagged(Opcode.ATOMIC_REQUEST)
    peer.send_ulpdu(
        peer.untagged(Opcode.ATOMIC_RESPONSE, QueueNumber.ATOMIC_RESPONSE, body[4:8] + struct.pack(">Q", original))
    )


def account(end: End, count: int) -> Ledger:
    """Atomics, reads and sends posted in turn."""
    ledger = Ledger(end)
    posts: Sequence[Callable[[int, int], None]] = (
        lambda flags, number: end.qp.fetch_add(end.mr[0:8], 0x9000, UNKNOWN, 1, flags=flags, context=number),
        lambda flags, number: end.qp.read(end.mr[8:16], 0x9000, UNKNOWN, flags=flags, context=number),
        lambda flags, number: end.qp.compare_swap(end.mr[0:8], 0x9000, UNKNOWN, 1, 2, flags=flags, context=number),
        lambda flags, number: end.qp.send(b"x", flags=flags | OpFlag.READ_FENCE, context=number),
    )
    for index in range(count):
        ledger.post(posts[index % len(posts)], OpFlag.SILENT_SUCCESS if index % 5 == 0 else 0)
    return ledger


def test_flush_with_atomics_outstanding() -> None:
    with raw_server() as (peer, end):
        ledger = account(end, 12)
        answer(peer, 7)
        end.qp.flush()
        results = ledger.close_account()
        assert {result.status for result in results[1:]} <= {Status.CANCELLED}
        assert all(result.original_value is None for result in results if result.status is not Status.SUCCESS)


@pytest.mark.parametrize("how", ["reset", "fin and reset", "terminate"])
def test_the_peer_ends_it_with_atomics_outstanding(how: str) -> None:
    with raw_server() as (peer, end):
        ledger = account(end, 12)
        answer(peer, 7)
        peer.read_request()
        if how == "reset":
            peer.reset()
        elif how == "fin and reset":
            peer.finish()
            peer.reset()
        else:
            header, _ = peer.read_untagged(Opcode.ATOMIC_REQUEST)
            peer.send_terminate(Terminate(0, 1, 2, 70, header.emit()))
        results = ledger.close_account()
        failed = [result for result in results if result.status not in (Status.SUCCESS, Status.CANCELLED)]
        if how == "terminate":
            (refused,) = failed
            assert (refused.type, refused.request_context) == (OperationType.COMPARE_SWAP, 2)
            assert refused.status is Status.ACCESS_VIOLATION
        else:
            assert failed == []


@pytest.mark.parametrize("how", ["reset", "flush there", "token taken away"])
def test_what_was_carried_out_and_what_was_told_fit_together(how: str) -> None:
    """The number says how many have been carried out: all that succeeded, at most all that were posted, each once."""
    with pair() as both:
        a, b = both
        mr = numbers(b)
        window = b.pd.create_mw()
        b.qp.bind(b.mr, window, flags=OpFlag.ALLOW_REMOTE_ATOMIC)
        succeed(b.cq)
        ledger = Ledger(a)
        target = (b.mr.address, window.remote_token) if how == "token taken away" else (mr.address, mr.remote_token)
        for number in range(60):
            ledger.post(
                lambda flags, context: a.qp.fetch_add(a.mr[0:8], *target, 1, flags=flags, context=context),
            )
            if number == 40:
                if how == "reset":
                    kill(b.adapter, "reset")
                elif how == "flush there":
                    b.qp.flush()
                else:
                    b.qp.invalidate(window)
        results = initiators(ledger.close_account())
        told = [result.original_value for result in results if result.status is Status.SUCCESS]
        assert told == list(range(len(told)))
        done = int.from_bytes(b.mr.view[:8], sys.byteorder) if how == "token taken away" else values_of(mr)[0]
        assert len(told) <= done <= 60
        if how == "token taken away":
            assert triple(fault_of(b)) == (0, 1, 0)


def test_a_sink_that_goes_while_the_atomic_is_out() -> None:
    with raw_server() as (peer, end):
        sink = end.pd.register_mr(bytearray(8))
        end.qp.fetch_add(sink[:], 0x9000, UNKNOWN, 1, context="A")
        end.qp.send(b"x", flags=OpFlag.READ_FENCE, context="S")
        _, body = peer.read_untagged(Opcode.ATOMIC_REQUEST)
        sink.deregister()
        peer.send_ulpdu(
            peer.untagged(Opcode.ATOMIC_RESPONSE, QueueNumber.ATOMIC_RESPONSE, body[4:8] + struct.pack(">Q", 7))
        )
        terminate = peer.read_terminate()
        assert (terminate.layer, terminate.etype, terminate.code) == (0, 0, 0)
        atomic, send = take(end.cq, 2)
        assert (atomic.request_context, atomic.status, atomic.original_value) == ("A", Status.ACCESS_VIOLATION, None)
        assert (send.request_context, send.status) == ("S", Status.CANCELLED)


@pytest.mark.parametrize("token", ["none", "without local write"])
def test_a_sink_that_is_not_valid_asks_nothing_of_the_peer(ends: Pair, token: str) -> None:
    a, b = ends
    mr = numbers(b, 5)
    sink = a.pd.register_mr(bytearray(8), MrFlag.ALLOW_LOCAL_READ)
    sge = sink[:] if token == "without local write" else Sge(sink.address, 8, LocalToken(0x01020300))
    a.qp.fetch_add(sge, mr.address, mr.remote_token, 1)
    result: Result = one(a.cq)
    assert result.status is Status.ACCESS_VIOLATION
    assert "R-WR-15" in str(result.error)
    assert triple(fault_of(b)) == (0, 0, 0)
    assert values_of(mr)[0] == 5


def test_a_peer_without_rfc_7306() -> None:
    with pair(peer_config=IwarpConfig(rfc7306=False)) as (a, b):
        a.qp.fetch_add(a.mr[0:8], b.mr.address, b.mr.remote_token, 0)
        result = one(a.cq)
        assert result.status is Status.REMOTE_RESOURCES
        assert "to our ATOMIC_REQUEST: this peer has no RFC 7306" in str(result.error)
        assert triple(fault_of(a)) == (0, 2, 6)
        assert fault_of(a).received


def test_disconnect_waits_for_atomics() -> None:
    with raw_server() as (peer, end):
        end.qp.fetch_add(end.mr[0:8], 0x9000, UNKNOWN, 1)
        ending = end.connector.disconnect()
        answer(peer, 7)
        assert peer.at_end()
        peer.finish()
        ending.result(PATIENCE_S)
        assert one(end.cq).original_value == 7


def test_an_answer_that_nobody_waits_for() -> None:
    with raw_client(receives=1) as (peer, end):
        body = struct.pack(">IQ", 1, 7)
        peer.send_ulpdu(peer.untagged(Opcode.ATOMIC_RESPONSE, QueueNumber.ATOMIC_RESPONSE, body))
        terminate = peer.read_terminate()
        assert (terminate.layer, terminate.etype, terminate.code) == (0, 2, 6)
        assert one(end.cq).status is Status.CANCELLED
