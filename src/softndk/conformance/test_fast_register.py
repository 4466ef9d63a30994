"""Fast-register regions: initialisation, pages, offsets and base addresses, tokens, turns."""

import pytest

from softndk import (
    PAGE_SIZE,
    AccessViolation,
    InvalidParameter,
    InvalidState,
    LogicalAddressMapping,
    Mdl,
    Mr,
    OpFlag,
    Sge,
    Status,
)
from softndk.conformance.bench import (
    PATIENCE_S,
    Bench,
    End,
    Pair,
    delivered,
    ended,
    failure,
    one,
    refused,
    statuses,
    still_works,
    succeed,
    take,
)
from softndk.conformance.providers import NEWEST, Feature, Side

READ, WRITE, LOCAL = OpFlag.ALLOW_REMOTE_READ, OpFlag.ALLOW_REMOTE_WRITE, OpFlag.ALLOW_LOCAL_WRITE


def initialised(end: End, pages: int = 8, *, remote: bool = True) -> Mr:
    """A region that takes fast registers."""
    mr = end.pd.create_mr(fast_register=True)
    mr.initialize_fast_register(pages, remote).result(PATIENCE_S)
    return mr


def mapped(end: End, buffer: bytearray, address: int = 0x10000) -> LogicalAddressMapping:
    """A mapping whose first octet has this number."""
    return end.adapter.build_lam(Mdl(buffer, address=address)).result(PATIENCE_S)


# ---- initialisation


@pytest.mark.rules("R-FRINIT-1", "R-FRINIT-4", "R-FREG-6")
def test_before_the_initialisation_no_fast_register_is_taken(both: Pair) -> None:
    a, _ = both
    mr = a.pd.create_mr(fast_register=True)
    lam = mapped(a, bytearray(8))
    with refused(InvalidState, Status.INVALID_DEVICE_REQUEST):
        a.qp.fast_register(mr, lam, flags=READ)
    mr.initialize_fast_register(1, True).result(PATIENCE_S)
    a.qp.fast_register(mr, lam, flags=READ)
    succeed(a.cq)


@pytest.mark.rules("R-FRINIT-2", "R-QINFO-1")
def test_the_page_count_of_the_adapter_is_the_limit(bench: Bench) -> None:
    end = bench.end()
    limit = end.adapter.query_info().frmr_page_count
    mr = end.pd.create_mr(fast_register=True)
    error = failure(mr.initialize_fast_register(limit + 1, False))
    assert (type(error), error.status) == (InvalidParameter, Status.IMPLEMENTATION_LIMIT)
    mr.initialize_fast_register(limit, False).result(PATIENCE_S)


@pytest.mark.rules("R-FRINIT-2", "R-FREG-2")
def test_no_more_pages_than_initialised_for(both: Pair) -> None:
    a, _ = both
    mr = initialised(a, 2)
    with refused(InvalidParameter, Status.INVALID_PARAMETER):
        a.qp.fast_register(mr, mapped(a, bytearray(2 * PAGE_SIZE + 1)), flags=READ)
    a.qp.fast_register(mr, mapped(a, bytearray(2 * PAGE_SIZE)), flags=READ)
    succeed(a.cq)


@pytest.mark.rules("R-FRINIT-3")
@pytest.mark.parametrize("flags", [READ, WRITE, READ | WRITE, LOCAL])
def test_remote_rights_need_remote_access_at_the_initialisation(both: Pair, flags: OpFlag) -> None:
    a, _ = both
    mr, lam = initialised(a, remote=False), mapped(a, bytearray(8))
    if flags is LOCAL:
        a.qp.fast_register(mr, lam, flags=flags)
        succeed(a.cq)
    else:
        with refused(AccessViolation, Status.ACCESS_VIOLATION):
            a.qp.fast_register(mr, lam, flags=flags)
    still_works(both)


@pytest.mark.rules("R-FRINIT-5", "A-17")
def test_several_regions_may_be_initialised_at_once_and_one_several_times(both: Pair) -> None:
    a, _ = both
    regions = [a.pd.create_mr(fast_register=True) for _ in range(5)]
    for pending in [mr.initialize_fast_register(pages, True) for pages, mr in enumerate(regions, 1)]:
        pending.result(PATIENCE_S)  # each with a limit of its own
    mr, lam = regions[0], mapped(a, bytearray(2 * PAGE_SIZE))
    token = mr.remote_token
    with refused(InvalidParameter, Status.INVALID_PARAMETER):
        a.qp.fast_register(mr, lam, flags=READ)
    mr.initialize_fast_register(2, True).result(PATIENCE_S)
    assert mr.remote_token == token
    a.qp.fast_register(mr, lam, flags=READ)
    succeed(a.cq)
    with refused(InvalidState, Status.INVALID_DEVICE_REQUEST):
        mr.initialize_fast_register(3, True)
    a.qp.invalidate(mr)
    succeed(a.cq)
    mr.initialize_fast_register(1, False).result(PATIENCE_S)  # less than before, both of it
    with refused(InvalidParameter, Status.INVALID_PARAMETER):
        a.qp.fast_register(mr, lam, flags=OpFlag.ALLOW_LOCAL_WRITE)
    with refused(AccessViolation, Status.ACCESS_VIOLATION):
        a.qp.fast_register(mr, lam.pages[:1], fbo=lam.fbo, length=1, base_address=lam.fbo, flags=READ)
    assert mr.remote_token == token


# ---- pages, offset, base address


@pytest.mark.rules("R-FREG-3", "R-FREG-4", "R-LAM-3", "R-LAM-4")
@pytest.mark.parametrize("address", [0x10000, 0x10FFF, 0x10010])
def test_a_mapping_brings_its_own_offset_length_and_address(both: Pair, address: int) -> None:
    a, b = both
    buffer = bytearray(b"0123456789" * 600)
    mr = initialised(b)
    b.qp.fast_register(mr, mapped(b, buffer, address), flags=READ | WRITE)
    succeed(b.cq)
    assert (mr.address, mr.length) == (address, 6000)
    a.qp.read(a.mr[0:6000], address, mr.remote_token)
    succeed(a.cq)
    assert a.content(6000) == buffer


@pytest.mark.rules("R-FREG-3", "R-FREG-4", "R-REGMR-1")
def test_the_region_begins_at_the_offset_and_is_addressed_from_the_base(both: Pair) -> None:
    """A list of pages from a mapping, a part of it, and a base that is no real address."""
    a, b = both
    buffer = bytearray(range(256)) * 64  # four pages
    lam = mapped(b, buffer, 0x40000)
    base = 0xABCD_EF00_0000 + 0x123
    mr = initialised(b)
    b.qp.fast_register(mr, lam.pages[1:3], fbo=0x123, length=5000, base_address=base, flags=READ)
    succeed(b.cq)
    a.qp.read(a.mr[0:5000], base, mr.remote_token)
    succeed(a.cq)
    start = PAGE_SIZE + 0x123
    assert a.content(5000) == buffer[start : start + 5000]
    a.qp.read(a.mr[0:1], base + 5000, mr.remote_token)
    assert one(a.cq).status is Status.REMOTE_RESOURCES


@pytest.mark.rules("R-FREG-2", "R-LAM-3")
def test_pages_of_several_mappings_in_any_order_make_one_region(both: Pair) -> None:
    a, b = both
    buffers = [bytearray(letter * PAGE_SIZE) for letter in (b"a", b"b", b"c")]
    pages = [mapped(b, buffer).pages[0] for buffer in buffers]
    mr = initialised(b)
    b.qp.fast_register(
        mr, [pages[2], pages[0], pages[1]], fbo=0, length=3 * PAGE_SIZE, base_address=PAGE_SIZE, flags=READ | WRITE
    )
    succeed(b.cq)
    a.qp.read(a.mr[0:3], 2 * PAGE_SIZE - 1, mr.remote_token)
    a.qp.read(a.mr[3:6], 3 * PAGE_SIZE - 1, mr.remote_token)
    succeed(a.cq, 2)
    assert a.content(6) == b"caaabb"


@pytest.mark.rules("R-FREG-2", "R-LAM-7")
@pytest.mark.parametrize("what", ["not page-aligned", "not mapped", "none"])
def test_pages_come_from_mappings_and_nowhere_else(both: Pair, what: str) -> None:
    a, _ = both
    lam = mapped(a, bytearray(PAGE_SIZE))
    pages = {"not page-aligned": [lam.pages[0] + 8], "not mapped": [lam.pages[0] + 64 * PAGE_SIZE], "none": []}[what]
    with refused(InvalidParameter, Status.INVALID_PARAMETER):
        a.qp.fast_register(initialised(a), pages, fbo=0, length=8, base_address=0, flags=READ)
    still_works(both)


@pytest.mark.rules("R-FREG-3", "A-24")
@pytest.mark.parametrize(
    ("fbo", "length"), [(0, 0), (0, PAGE_SIZE + 1), (1, PAGE_SIZE), (PAGE_SIZE, 1), (-1, 1), (8, PAGE_SIZE - 7)]
)
def test_offset_and_length_must_fit_the_pages(both: Pair, fbo: int, length: int) -> None:
    a, _ = both
    lam = mapped(a, bytearray(PAGE_SIZE))
    with refused(InvalidParameter, Status.INVALID_PARAMETER):
        a.qp.fast_register(
            initialised(a), lam.pages, fbo=fbo, length=length, base_address=PAGE_SIZE + max(fbo, 0), flags=READ
        )
    still_works(both)


@pytest.mark.rules("R-FREG-4", "A-16")
@pytest.mark.parametrize(
    ("fbo", "base", "good"),
    [
        (0, 0, True),
        (0, PAGE_SIZE, True),
        (0, 1, False),
        (16, 16, True),
        (16, 0, False),
        (16, PAGE_SIZE + 16, True),
        (16, PAGE_SIZE, False),
        (0, (1 << 64) - PAGE_SIZE, True),
        (0, 1 << 64, False),
    ],
)
def test_the_base_is_the_offset_plus_whole_pages(both: Pair, fbo: int, base: int, good: bool) -> None:
    a, b = both
    buffer = bytearray(b"content " * 512)
    mr, lam = initialised(b), mapped(b, buffer)
    if not good:
        with refused(InvalidParameter, Status.INVALID_PARAMETER):
            b.qp.fast_register(mr, lam.pages, fbo=fbo, length=64, base_address=base, flags=READ)
        return
    b.qp.fast_register(mr, lam.pages, fbo=fbo, length=64, base_address=base, flags=READ)
    succeed(b.cq)
    a.qp.read(a.mr[0:64], base, mr.remote_token)
    succeed(a.cq)
    assert a.content(64) == buffer[fbo : fbo + 64]


# ---- flags and rights


@pytest.mark.rules("R-FREG-1", "R-MEM-2", "R-WR-15")
@pytest.mark.parametrize("flags", [READ, LOCAL, WRITE, READ | WRITE, 0])
def test_the_region_gives_what_the_flags_say(both: Pair, bench: Bench, flags: int) -> None:
    a, b = both
    mr, buffer = initialised(b), bytearray(b"content.")
    b.qp.fast_register(mr, mapped(b, buffer), flags=flags)
    succeed(b.cq)
    if flags & LOCAL:
        b.qp.receive(mr[0:8])
        a.qp.send(b"received")
        succeed(a.cq)
        succeed(b.cq)
        assert buffer == b"received"
    if (flags & WRITE) == WRITE:
        a.qp.write(b"written!", mr.address, mr.remote_token)
        succeed(a.cq)
        delivered(a)
        assert buffer == b"written!"
    if flags & READ:
        a.qp.read(a.mr[0:8], mr.address, mr.remote_token)
        succeed(a.cq)
        assert a.content(8) == buffer
    else:
        a.qp.read(a.mr[0:8], mr.address, mr.remote_token)
        assert one(a.cq).status in bench.provider.choices.read_denied


@pytest.mark.rules("R-FREG-1", "R-SINK-3", "E-8")
def test_the_read_sink_flag_is_taken(both: Pair) -> None:
    a, b = both
    b.fill(b"readable")
    mr, buffer = initialised(a), bytearray(8)
    a.qp.fast_register(mr, mapped(a, buffer), flags=LOCAL | OpFlag.RDMA_READ_SINK)
    succeed(a.cq)
    a.qp.read(mr[0:8], b.mr.address, b.mr.remote_token)
    succeed(a.cq)
    assert buffer == b"readable"


# ---- tokens and turns


@pytest.mark.rules("R-TOK-2", "R-FREG-5", "R-WR-14")
def test_the_token_may_be_used_right_behind_the_fast_register(both: Pair) -> None:
    a, b = both
    mr, buffer = initialised(b), bytearray(b"advertised")
    a.qp.receive(a.mr[0:4])
    b.qp.fast_register(mr, mapped(b, buffer), flags=READ, context="register")
    b.qp.send(mr.remote_token.to_bytes(4, "big"), context="advert")
    succeed(a.cq)
    a.qp.read(a.mr[8:18], 0x10000, type(mr.remote_token)(int.from_bytes(a.content(4), "big")))
    succeed(a.cq)
    assert a.content(10, 8) == b"advertised"


@pytest.mark.rules("R-TOK-4", "A-7", "R-INV-4")
def test_the_token_stays_the_same_for_life(both: Pair) -> None:
    a, _ = both
    mr, lam = initialised(a), mapped(a, bytearray(8))
    local, remote = mr.local_token, mr.remote_token
    assert remote
    for _ in range(3):
        a.qp.fast_register(mr, lam, flags=READ)
        assert (mr.local_token, mr.remote_token) == (local, remote)
        a.qp.invalidate(mr)
        succeed(a.cq, 2)


@pytest.mark.rules("R-FREG-6")
def test_a_region_that_is_registered_takes_no_fast_register(both: Pair) -> None:
    a, _ = both
    mr, lam = initialised(a), mapped(a, bytearray(8))
    a.qp.fast_register(mr, lam, flags=READ)
    succeed(a.cq)
    with refused(InvalidState, Status.INVALID_DEVICE_REQUEST):
        a.qp.fast_register(mr, lam, flags=READ)
    still_works(both)


@pytest.mark.rules("R-FREG-6", "R-COMP-6", "R-WR-16")
def test_two_fast_registers_in_the_queue_fail_in_the_second_result(both: Pair) -> None:
    a, _ = both
    mr, lam = initialised(a), mapped(a, bytearray(8))
    a.qp.fast_register(mr, lam, flags=READ | OpFlag.DEFER)
    a.qp.fast_register(mr, lam, flags=READ)
    assert statuses(take(a.cq, 2)) == [Status.SUCCESS, Status.INVALID_DEVICE_REQUEST]
    assert not ended(a).graceful


@pytest.mark.rules("R-FREG-7", "R-WR-14")
def test_nothing_before_it_in_the_queue_sees_the_region(both: Pair) -> None:
    a, _ = both
    mr, lam = initialised(a), mapped(a, bytearray(b"content."))
    early = Sge(0x10000, 8, mr.local_token)
    a.qp.send(early, flags=OpFlag.DEFER)
    a.qp.fast_register(mr, lam, flags=READ)
    assert statuses(take(a.cq, 2)) == [Status.ACCESS_VIOLATION, Status.CANCELLED]


@pytest.mark.rules("R-FREG-7", "R-WR-14", "R-WR-15", "R-DEFER-7")
def test_what_follows_it_in_the_queue_may_use_the_local_token(both: Pair) -> None:
    a, b = both
    mr, lam = initialised(a), mapped(a, bytearray(b"content."))
    b.qp.receive(b.mr[0:8])
    a.qp.fast_register(mr, lam, flags=LOCAL | OpFlag.DEFER)
    a.qp.send(Sge(0x10000, 8, mr.local_token), flags=OpFlag.DEFER)
    a.qp.invalidate(mr)
    succeed(a.cq, 3)
    succeed(b.cq)
    assert b.content(8) == b"content."


@pytest.mark.rules("A-13", "R-FREG-2")
def test_a_region_of_another_pd_is_refused(both: Pair, bench: Bench) -> None:
    a, _ = both
    other = bench.end(a.adapter)
    with refused(InvalidParameter, Status.INVALID_PARAMETER):
        a.qp.fast_register(initialised(other), mapped(a, bytearray(8)), flags=READ)
    still_works(both)


@pytest.mark.rules("R-READ-5", "R-INVAL-3")
@pytest.mark.requires(Feature.READ_LOCAL_INVALIDATE)
def test_a_read_with_local_invalidate_ends_the_registration_of_its_first_sge(both: Pair) -> None:
    a, b = both
    b.fill(b"readable")
    mr, buffer = initialised(a), bytearray(8)
    other = initialised(a)
    a.qp.fast_register(mr, mapped(a, buffer), flags=LOCAL)
    a.qp.fast_register(other, mapped(a, bytearray(8)), flags=LOCAL)
    succeed(a.cq, 2)
    a.qp.read(
        [mr[0:4], other[0:4]], b.mr.address, b.mr.remote_token, flags=OpFlag.RDMA_READ_LOCAL_INVALIDATE, context="read"
    )
    succeed(a.cq)
    assert buffer == b"read\0\0\0\0"
    with refused(InvalidState, Status.INVALID_DEVICE_REQUEST):
        a.qp.invalidate(mr)
    a.qp.invalidate(other)
    a.qp.fast_register(mr, mapped(a, buffer), flags=LOCAL)
    succeed(a.cq, 2)
    still_works(both)


@pytest.mark.rules("R-OPEN-3", "R-FREG-1")
def test_it_works_with_the_lowest_version_too(bench: Bench) -> None:
    lowest = NEWEST._replace(major=1, minor=2)
    ends = [bench.end(bench.adapter(side, version=lowest)) for side in Side]
    a, b = bench.connect(ends[0], ends[1])
    region = bench.fast_region(b)
    a.qp.write(b"stored", region.mr.address, region.token)
    succeed(a.cq)
    delivered(a)
    assert region.buffer[:6] == b"stored"
