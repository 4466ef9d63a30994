"""Memory windows."""

import pytest

from softndk import (
    PAGE_SIZE,
    AccessViolation,
    InvalidParameter,
    InvalidState,
    MrFlag,
    OpFlag,
    Result,
    Status,
)
from softndk.conformance.bench import (
    EVERY_RIGHT,
    FAST_RIGHTS,
    PATIENCE_S,
    Bench,
    Pair,
    delivered,
    ended,
    one,
    refused,
    statuses,
    still_works,
    succeed,
    take,
)
from softndk.conformance.providers import Feature

pytestmark = pytest.mark.requires(Feature.WINDOWS)

READ, WRITE = OpFlag.ALLOW_REMOTE_READ, OpFlag.ALLOW_REMOTE_WRITE


@pytest.mark.rules("R-MW-1", "R-INV-5")
@pytest.mark.parametrize("kind", ["read", "write", "invalidate"])
def test_a_new_window_is_invalid(both: Pair, kind: str) -> None:
    a, b = both
    token = b.pd.create_mw().remote_token
    b.qp.receive(b.mr[0:8])
    if kind == "read":
        a.qp.read(a.mr[0:8], b.mr.address, token)
    elif kind == "write":
        a.qp.write(b"overwrote", b.mr.address, token)
    else:
        a.qp.send_and_invalidate(b"x", token)
    assert not ended(b).graceful
    assert b.content(9) in (bytes(9), b"x" + bytes(8))


@pytest.mark.rules("R-MW-3")
def test_a_window_has_no_local_token(bench: Bench) -> None:
    assert not hasattr(bench.end().pd.create_mw(), "local_token")


@pytest.mark.rules("R-MW-2", "R-BIND-3", "R-WR-14")
def test_the_token_may_be_sent_right_behind_the_bind(both: Pair) -> None:
    a, b = both
    window = b.pd.create_mw()
    b.fill(b"lent")
    a.qp.receive(a.mr[0:4])
    b.qp.bind(b.mr, window, flags=READ)
    b.qp.send(window.remote_token.to_bytes(4, "big"))
    succeed(a.cq)
    a.qp.read(a.mr[8:12], b.mr.address, type(window.remote_token)(int.from_bytes(a.content(4), "big")))
    succeed(a.cq)
    assert a.content(4, 8) == b"lent"


@pytest.mark.rules("R-MW-2", "R-BIND-3")
def test_the_token_is_there_although_the_bind_waits(both: Pair, bench: Bench) -> None:
    """A read of a peer that does not answer holds the bind behind it back."""
    a, b = both
    window = a.pd.create_mw()
    bench.lose(b, silently=True)
    a.qp.read(a.mr[0:8], b.mr.address, b.mr.remote_token)
    a.qp.bind(a.mr, window, flags=READ | OpFlag.READ_FENCE)
    assert a.cq.get_results() == []
    assert window.remote_token
    a.qp.flush()
    assert statuses(take(a.cq, 2)) == [Status.CANCELLED] * 2


@pytest.mark.rules("R-BIND-1")
@pytest.mark.parametrize("flags", [0, OpFlag.SILENT_SUCCESS, OpFlag.DEFER | OpFlag.READ_FENCE])
def test_a_window_without_a_right_is_refused(both: Pair, flags: int) -> None:
    a, _ = both
    with refused(InvalidParameter, Status.INVALID_PARAMETER):
        a.qp.bind(a.mr, a.pd.create_mw(), flags=flags)
    still_works(both)


@pytest.mark.rules("R-BIND-1", "A-6")
def test_remote_write_needs_local_write_on_the_region(both: Pair) -> None:
    a, _ = both
    mr = a.pd.register_mr(bytearray(64), MrFlag.ALLOW_REMOTE_READ)
    with refused(AccessViolation, Status.ACCESS_VIOLATION):
        a.qp.bind(mr, a.pd.create_mw(), flags=WRITE)
    still_works(both)


@pytest.mark.rules("R-BIND-4", "R-BIND-1")
@pytest.mark.parametrize("flags", [READ, WRITE, READ | WRITE])
def test_a_region_with_local_write_only_can_be_lent_in_every_way(both: Pair, flags: OpFlag) -> None:
    a, b = both
    memory = bytearray(b"lent out")
    mr = b.pd.register_mr(memory, MrFlag.ALLOW_LOCAL_WRITE)
    window = b.pd.create_mw()
    b.qp.bind(mr, window, flags=flags)
    succeed(b.cq)
    if READ in flags:
        a.qp.read(a.mr[0:8], mr.address, window.remote_token)
        succeed(a.cq)
        assert a.content(8) == b"lent out"
    if WRITE in flags:
        a.qp.write(b"written", mr.address, window.remote_token)
        succeed(a.cq)
        delivered(a)
        assert memory == b"writtent"


@pytest.mark.rules("R-BIND-1", "R-MEM-2")
@pytest.mark.parametrize("flags", [READ, WRITE])
def test_a_window_gives_no_more_than_it_was_bound_with(both: Pair, bench: Bench, flags: OpFlag) -> None:
    a, b = both
    window = bench.window(b, flags)
    if flags is READ:
        a.qp.write(b"overwrote", b.mr.address, window.remote_token)
    else:
        a.qp.read(a.mr[0:8], b.mr.address, window.remote_token)
        assert one(a.cq).status in bench.provider.choices.read_denied
    assert not ended(b).graceful
    assert b.content(9) == bytes(9)


@pytest.mark.rules("R-BIND-2", "R-MEM-3")
def test_a_window_is_addressed_by_the_regions_numbers_and_ends_where_it_was_told(both: Pair) -> None:
    a, b = both
    window = b.pd.create_mw()
    b.fill(b"abcdefgh", 100)
    b.qp.bind(b.mr, window, b.mr.address + 100, 8, flags=READ)
    succeed(b.cq)
    a.qp.read(a.mr[0:8], b.mr.address + 100, window.remote_token)
    a.qp.read(a.mr[8:12], b.mr.address + 104, window.remote_token)
    succeed(a.cq, 2)
    assert a.content(12) == b"abcdefghefgh"
    a.qp.read(a.mr[0:1], b.mr.address + 99, window.remote_token)
    assert one(a.cq).status is Status.REMOTE_RESOURCES


@pytest.mark.rules("R-BIND-2", "A-6", "A-24")
@pytest.mark.parametrize(
    ("start", "length"), [(-1, 8), (0, 8193), (8192, 1), (8185, 8), (1 << 32, 8)], ids=lambda value: str(value)
)
def test_a_window_must_lie_wholly_inside_the_region(both: Pair, start: int, length: int) -> None:
    a, _ = both
    with refused(AccessViolation, Status.ACCESS_VIOLATION):
        a.qp.bind(a.mr, a.pd.create_mw(), a.mr.address + start, length, flags=READ)
    still_works(both)


@pytest.mark.rules("R-BIND-2", "A-24")
@pytest.mark.parametrize("length", [0, None])
def test_a_window_of_nothing_or_of_more_than_the_adapter_can_is_refused(both: Pair, length: int | None) -> None:
    a, _ = both
    size = a.adapter.query_info().max_window_size + 1 if length is None else length
    with refused(InvalidParameter, Status.INVALID_PARAMETER):
        a.qp.bind(a.mr, a.pd.create_mw(), a.mr.address, size, flags=READ)
    still_works(both)


@pytest.mark.rules("R-BIND-5")
def test_windows_of_one_region_may_overlap_and_differ_in_their_rights(both: Pair) -> None:
    a, b = both
    readable, writable, all_of_it = (b.pd.create_mw() for _ in range(3))
    start = b.mr.address
    b.qp.bind(b.mr, readable, start, 100, flags=READ)
    b.qp.bind(b.mr, writable, start + 50, 100, flags=WRITE)
    b.qp.bind(b.mr, all_of_it, flags=READ | WRITE)
    succeed(b.cq, 3)
    a.qp.write(b"overlap", start + 60, writable.remote_token)
    a.qp.write(b"beyond", start + 140, writable.remote_token)
    succeed(a.cq, 2)
    a.qp.read(a.mr[0:7], start + 60, readable.remote_token)
    a.qp.read(a.mr[8:14], start + 140, all_of_it.remote_token)
    succeed(a.cq, 2)
    assert (a.content(7), a.content(6, 8)) == (b"overlap", b"beyond")
    a.qp.write(b"no", start + 60, readable.remote_token)
    assert not ended(b).graceful
    assert b.content(7, 60) == b"overlap"


@pytest.mark.rules("R-BIND-5", "R-INV-4")
def test_a_bound_window_must_be_invalidated_before_it_is_bound_again(both: Pair, bench: Bench) -> None:
    a, b = both
    window = bench.window(a, READ)
    with refused(InvalidState, Status.INVALID_DEVICE_REQUEST):
        a.qp.bind(a.mr, window, flags=READ)
    token = window.remote_token
    a.qp.invalidate(window)
    a.qp.bind(a.mr, window, a.mr.address + 8, 8, flags=READ)
    succeed(a.cq, 2)
    assert window.remote_token == token
    a.fill(b"eight to", 8)
    b.qp.read(b.mr[0:8], a.mr.address + 8, token)
    succeed(b.cq)
    assert b.content(8) == b"eight to"


@pytest.mark.rules("A-7", "R-MW-2")
def test_a_window_keeps_its_token_for_life(both: Pair) -> None:
    a, _ = both
    window = a.pd.create_mw()
    token = window.remote_token
    for _ in range(3):
        a.qp.bind(a.mr, window, flags=READ)
        assert window.remote_token == token
        a.qp.invalidate(window)
        succeed(a.cq, 2)


@pytest.mark.rules("A-6", "R-WR-16", "R-COMP-6")
def test_a_bind_that_only_its_turn_can_judge_fails_in_the_result(both: Pair, bench: Bench) -> None:
    """The invalidate before it takes the region away; at the post it is there."""
    a, _ = both
    region = bench.fast_region(a)
    a.qp.invalidate(region.mr, flags=OpFlag.DEFER)
    a.qp.bind(region.mr, a.pd.create_mw(), flags=READ)
    results: list[Result] = take(a.cq, 2)
    assert statuses(results) == [Status.SUCCESS, Status.ACCESS_VIOLATION]
    assert not ended(a).graceful


@pytest.mark.rules("R-WR-16", "R-WR-14", "R-INV-4", "R-BIND-5", "R-DEFER-1")
def test_what_only_becomes_right_in_its_turn_is_not_refused_at_the_post(both: Pair, bench: Bench) -> None:
    """Each request needs what the one before it, which waits in the queue, will bring about."""
    a, b = both
    region = bench.fast_region(a)
    lam = a.adapter.build_lam(region.buffer).result(PATIENCE_S)
    window = a.pd.create_mw()
    a.qp.invalidate(region.mr, flags=OpFlag.DEFER)
    a.qp.fast_register(region.mr, lam, flags=READ | OpFlag.DEFER)
    a.qp.bind(region.mr, window, flags=READ | OpFlag.DEFER)
    a.qp.invalidate(window, flags=OpFlag.DEFER)
    a.qp.invalidate(region.mr, flags=OpFlag.DEFER)
    a.qp.fast_register(region.mr, lam, base_address=lam.fbo + 16 * PAGE_SIZE, flags=READ | OpFlag.DEFER)
    a.qp.bind(region.mr, window, lam.fbo + 16 * PAGE_SIZE, 8, flags=READ)
    succeed(a.cq, 7)
    region.buffer[:8] = b"in order"
    b.qp.read(b.mr[0:8], lam.fbo + 16 * PAGE_SIZE, window.remote_token)
    succeed(b.cq)
    assert b.content(8) == b"in order"


@pytest.mark.rules("A-13", "R-MEM-1")
def test_region_and_window_belong_to_the_pd_of_the_queue_pair(both: Pair) -> None:
    a, _ = both
    other = a.adapter.create_pd()
    for mr, window in (
        (other.register_mr(bytearray(8), EVERY_RIGHT), a.pd.create_mw()),
        (a.mr, other.create_mw()),
    ):
        with refused(InvalidParameter, Status.INVALID_PARAMETER):
            a.qp.bind(mr, window, flags=READ)
    still_works(both)


@pytest.mark.rules("R-WR-14", "R-BIND-4")
def test_a_window_over_a_fast_register_region(both: Pair, bench: Bench) -> None:
    a, b = both
    region = bench.fast_region(b, OpFlag.ALLOW_LOCAL_WRITE, remote_access=False)
    region.buffer[:8] = b"fast one"
    window = bench.window(b, FAST_RIGHTS, region.mr)
    a.qp.read(a.mr[0:8], region.mr.address, window.remote_token)
    succeed(a.cq)
    assert a.content(8) == b"fast one"


@pytest.mark.rules("R-MW-4", "R-CLOSE-2")
def test_a_window_that_is_closed_sets_its_region_free(both: Pair, bench: Bench) -> None:
    a, _ = both
    window = bench.window(a)
    closing = a.mr.close()
    assert not closing.done()
    window.close().result(PATIENCE_S)
    closing.result(PATIENCE_S)
