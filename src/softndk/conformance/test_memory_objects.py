"""Memory regions and logical addresses: what may be registered and mapped, and what becomes of it."""

from collections.abc import Callable

import pytest

from softndk import (
    PAGE_SIZE,
    InvalidParameter,
    InvalidState,
    Mdl,
    MrFlag,
    OpFlag,
    RemoteToken,
    Sge,
    Status,
)
from softndk.conformance.bench import (
    EVERY_RIGHT,
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

# ---- regions


@pytest.mark.rules("R-MR-1", "R-DEREG-1", "R-FRINIT-1")
def test_each_kind_of_region_takes_only_its_own_calls(bench: Bench) -> None:
    end = bench.end()
    fast, plain = end.pd.create_mr(fast_register=True), end.pd.create_mr()
    calls: list[Callable[[], object]] = [
        lambda: fast.register(bytearray(8), 0),
        fast.deregister,
        lambda: plain.initialize_fast_register(1, True),
    ]
    for call in calls:
        with refused(InvalidState, Status.INVALID_DEVICE_REQUEST):
            call()


@pytest.mark.rules("R-MR-1", "R-FREG-6", "R-INV-2")
def test_a_plain_region_is_not_for_requests(both: Pair) -> None:
    a, _ = both
    with a.adapter.build_lam(bytearray(8)).result(PATIENCE_S) as lam:
        with refused(InvalidState, Status.INVALID_DEVICE_REQUEST):
            a.qp.fast_register(a.mr, lam, flags=OpFlag.ALLOW_LOCAL_WRITE)
        with refused(InvalidParameter, Status.INVALID_PARAMETER):
            a.qp.invalidate(a.mr)
    still_works(both)


@pytest.mark.rules("R-REGMR-1", "R-REGMR-3", "R-READ-3", "R-WRITE-2")
def test_a_region_is_addressed_from_the_start_address_of_its_memory(both: Pair) -> None:
    """The start address is a number of the program's choice, and nobody reads memory through it."""
    a, b = both
    buffer = bytearray(b"0123456789" * 10)
    base = 0xDEAD_0000_1230
    mr = b.pd.create_mr()
    mr.register(Mdl(buffer, address=base), EVERY_RIGHT).result(PATIENCE_S)
    assert (mr.address, mr.length) == (base, 100)
    a.qp.read(a.mr[0:10], base + 5, mr.remote_token)
    a.qp.write(b"written", base + 90, mr.remote_token)
    succeed(a.cq, 2)
    delivered(a)
    assert a.content(10) == b"5678901234"
    b.qp.receive(Sge(base + 10, 4, mr.local_token))
    a.qp.send(b"sent")
    succeed(b.cq)
    assert buffer[10:14] == b"sent"
    assert buffer[90:97] == b"written"


@pytest.mark.rules("R-REGMR-2", "R-MEM-3")
def test_no_region_is_addressed_from_0(both: Pair) -> None:
    a, b = both
    a.qp.read(a.mr[0:8], 0, b.mr.remote_token)
    assert statuses(take(a.cq, 1)) != [Status.SUCCESS]
    assert not ended(b).graceful


@pytest.mark.rules("R-REGMR-1", "R-LAM-1")
def test_a_chain_of_buffers_is_one_range(both: Pair) -> None:
    a, b = both
    parts = [bytearray(b"aaa"), bytearray(b"bbbb"), bytearray(b"ccccc")]
    mr = b.pd.create_mr()
    mr.register(Mdl(parts, address=0x5000), EVERY_RIGHT).result(PATIENCE_S)
    a.qp.read(a.mr[0:8], 0x5002, mr.remote_token)
    succeed(a.cq)
    assert a.content(8) == b"abbbbccc"
    a.qp.write(b"XYZ", 0x5006, mr.remote_token)
    succeed(a.cq)
    delivered(a)
    assert [bytes(part) for part in parts] == [b"aaa", b"bbbX", b"YZccc"]


@pytest.mark.rules("R-REGMR-1", "R-REGMR-4", "A-24")
@pytest.mark.parametrize("length", [0, 101])
def test_a_length_that_is_nothing_or_passes_the_end_is_refused(bench: Bench, length: int) -> None:
    end = bench.end()
    buffer = bytearray(100)
    mr = end.pd.create_mr()
    with refused(InvalidParameter, Status.INVALID_PARAMETER):
        mr.register(buffer, 0, length=length)
    buffer.extend(b"nothing holds it")
    mr.register(buffer, 0, length=100).result(PATIENCE_S)
    assert mr.length == 100


@pytest.mark.rules("R-REGMR-1", "R-LAM-1")
def test_memory_with_gaps_is_refused(bench: Bench) -> None:
    end = bench.end()
    gaps = memoryview(bytearray(100))[::2]
    with refused(InvalidParameter, Status.INVALID_PARAMETER):
        end.pd.create_mr().register(gaps, 0)
    with refused(InvalidParameter, Status.INVALID_PARAMETER):
        end.adapter.build_lam(gaps)


@pytest.mark.rules("R-REGMR-4", "R-DEREG-2", "R-DEREG-3")
def test_memory_stays_in_place_until_it_is_deregistered(bench: Bench) -> None:
    end = bench.end()
    buffer = bytearray(100)
    mr = end.pd.create_mr()
    for _ in range(2):
        mr.register(buffer, 0).result(PATIENCE_S)
        with pytest.raises(BufferError):
            buffer.append(0)
        mr.deregister().result(PATIENCE_S)
        buffer.append(0)


@pytest.mark.rules("R-REGMR-5")
def test_unknown_flags_and_write_rights_on_memory_that_cannot_be_written_are_refused(bench: Bench) -> None:
    mr = bench.end().pd.create_mr()
    for flags in (0x10, 0x20, 1 << 30):
        with refused(InvalidParameter, Status.INVALID_PARAMETER):
            mr.register(bytearray(8), flags)
    for flags in (MrFlag.ALLOW_LOCAL_WRITE, MrFlag.ALLOW_REMOTE_WRITE):
        with refused(InvalidParameter, Status.INVALID_PARAMETER):
            mr.register(b"read only", flags)
    mr.register(b"read only", MrFlag.ALLOW_REMOTE_READ).result(PATIENCE_S)


@pytest.mark.rules("R-REGMR-5", "R-MEM-2")
@pytest.mark.parametrize(
    ("flags", "may_read", "may_write"),
    [
        (MrFlag.ALLOW_LOCAL_READ, False, False),
        (MrFlag.ALLOW_LOCAL_WRITE, False, False),
        (MrFlag.ALLOW_REMOTE_READ, True, False),
        (MrFlag.ALLOW_REMOTE_WRITE, False, True),
        (MrFlag.ALLOW_REMOTE_READ | MrFlag.ALLOW_REMOTE_WRITE, True, True),
        (MrFlag.ALLOW_REMOTE_READ | MrFlag.ALLOW_LOCAL_WRITE | MrFlag.RDMA_READ_SINK, True, False),
    ],
)
@pytest.mark.parametrize("kind", ["read", "write"])
def test_a_peer_may_do_what_the_flags_say(
    both: Pair, flags: MrFlag, may_read: bool, may_write: bool, kind: str
) -> None:
    a, b = both
    memory = bytearray(b"untouched")
    mr = b.pd.register_mr(memory, flags)
    if kind == "read":
        a.qp.read(a.mr[0:9], mr.address, mr.remote_token)
        allowed = may_read
    else:
        a.qp.write(b"overwrote", mr.address, mr.remote_token)
        allowed = may_write
    if allowed:
        succeed(a.cq)
        still_works(both)
        assert (a.content(9) if kind == "read" else bytes(memory)) == (b"untouched" if kind == "read" else b"overwrote")
    else:
        assert not ended(b).graceful
        assert bytes(memory) == b"untouched"
        assert a.content(9) == bytes(9)


@pytest.mark.rules("R-REGMR-7")
def test_the_same_memory_may_be_registered_several_times_with_different_rights(both: Pair) -> None:
    a, b = both
    memory = bytearray(b"0" * 16)
    readable = b.pd.register_mr(memory, MrFlag.ALLOW_REMOTE_READ)
    writable = b.pd.register_mr(memory, MrFlag.ALLOW_REMOTE_WRITE)
    a.qp.write(b"through one", writable.address, writable.remote_token)
    a.qp.read(a.mr[0:11], readable.address, readable.remote_token)
    succeed(a.cq, 2)
    assert a.content(11) == b"through one"
    writable.deregister().result(PATIENCE_S)
    a.qp.read(a.mr[0:1], readable.address, readable.remote_token)
    succeed(a.cq)


@pytest.mark.rules("R-REGMR-7", "R-DEREG-1")
def test_one_region_holds_one_registration(bench: Bench) -> None:
    mr = bench.end().pd.create_mr()
    with refused(InvalidState, Status.INVALID_DEVICE_REQUEST):
        mr.deregister()
    mr.register(bytearray(8), 0).result(PATIENCE_S)
    with refused(InvalidState, Status.INVALID_DEVICE_REQUEST):
        mr.register(bytearray(8), 0)
    mr.deregister().result(PATIENCE_S)
    with refused(InvalidState, Status.INVALID_DEVICE_REQUEST):
        mr.deregister()


@pytest.mark.rules("R-DEREG-2")
@pytest.mark.parametrize("kind", ["read", "write"])
def test_after_deregistration_the_remote_token_is_dead(both: Pair, kind: str) -> None:
    a, b = both
    memory = bytearray(b"untouched")
    mr = b.pd.register_mr(memory, EVERY_RIGHT)
    address, token = mr.address, mr.remote_token
    mr.deregister().result(PATIENCE_S)
    if kind == "read":
        a.qp.read(a.mr[0:8], address, token)
        assert one(a.cq).status in {Status.ACCESS_VIOLATION, Status.REMOTE_RESOURCES}
    else:
        a.qp.write(b"overwrote", address, token)
    assert not ended(b).graceful
    assert memory == b"untouched"


@pytest.mark.rules("R-DEREG-2", "R-WR-15")
def test_after_deregistration_the_local_token_is_dead(both: Pair) -> None:
    a, _ = both
    mr = a.pd.register_mr(bytearray(8))
    sge = mr[0:8]
    mr.deregister().result(PATIENCE_S)
    a.qp.send(sge)
    assert one(a.cq).status is Status.ACCESS_VIOLATION


@pytest.mark.rules("R-DEREG-3", "R-REGMR-6")
def test_a_region_can_be_registered_anew_for_other_memory(both: Pair) -> None:
    a, b = both
    mr = b.pd.create_mr()
    for data in (b"first", b"second"):
        mr.register(bytearray(data), MrFlag.ALLOW_REMOTE_READ).result(PATIENCE_S)
        a.qp.read(a.mr[0 : len(data)], mr.address, mr.remote_token)
        succeed(a.cq)
        assert a.content(len(data)) == data
        mr.deregister().result(PATIENCE_S)


@pytest.mark.rules("R-INVAL-4")
@pytest.mark.requires(Feature.WINDOWS)
def test_a_region_with_a_bound_window_cannot_be_deregistered(both: Pair, bench: Bench) -> None:
    a, _ = both
    window = bench.window(a)
    with refused(InvalidState, Status.DEVICE_BUSY):
        a.mr.deregister()
    a.qp.invalidate(window)
    succeed(a.cq)
    a.mr.deregister().result(PATIENCE_S)


# ---- logical addresses


@pytest.mark.rules("R-LAM-3", "R-LAM-4", "R-LAM-5")
@pytest.mark.parametrize(
    ("address", "length", "pages"),
    [
        (0x10000, 1, 1),
        (0x10000, PAGE_SIZE, 1),
        (0x10000, PAGE_SIZE + 1, 2),
        (0x10FFF, 1, 1),
        (0x10FFF, 2, 2),
        (0x10010, 2 * PAGE_SIZE, 3),
        (0x10010, 2 * PAGE_SIZE - 0x10, 2),
    ],
)
def test_a_mapping_has_one_address_for_each_page(bench: Bench, address: int, length: int, pages: int) -> None:
    adapter = bench.adapter()
    lam = adapter.build_lam(Mdl(bytearray(length), address=address)).result(PATIENCE_S)
    assert len(lam.pages) == pages
    assert all(page % PAGE_SIZE == 0 for page in lam.pages)
    assert lam.fbo == address % PAGE_SIZE
    assert (lam.address, lam.length) == (address, length)


@pytest.mark.rules("R-LAM-1", "R-LAM-6", "A-24")
@pytest.mark.parametrize("length", [0, 101])
def test_a_mapping_of_nothing_or_past_the_end_is_refused_and_holds_nothing(bench: Bench, length: int) -> None:
    buffer = bytearray(100)
    with refused(InvalidParameter, Status.INVALID_PARAMETER):
        bench.adapter().build_lam(buffer, length=length)
    buffer.append(0)


@pytest.mark.rules("R-LAM-2", "R-LAM-9")
def test_a_mapping_keeps_the_memory_in_place_and_leaves_it_as_it_was(bench: Bench) -> None:
    buffer = bytearray(b"content")
    lam = bench.adapter().build_lam(buffer).result(PATIENCE_S)
    with pytest.raises(BufferError):
        buffer.append(0)
    lam.release()
    assert buffer == b"content"
    buffer.append(0)


@pytest.mark.rules("R-PRIV-1", "R-PRIV-2", "R-WR-9", "R-LAM-3", "R-LAM-7")
def test_the_privileged_token_reads_and_writes_what_is_mapped(both: Pair) -> None:
    a, b = both
    source, target = bytearray(b"x" * 3000 + b"y" * 3000), bytearray(6000)
    outgoing = a.adapter.build_lam(Mdl(source, address=0x7FFF_FF00)).result(PATIENCE_S)
    incoming = b.adapter.build_lam(target).result(PATIENCE_S)
    b.qp.receive(incoming.sges(0, 6000, b.pd.privileged_token))
    a.qp.send(outgoing.sges(0, 6000, a.pd.privileged_token))
    succeed(b.cq)
    assert target == source


@pytest.mark.rules("R-LAM-7", "R-WR-9", "R-PRIV-1")
@pytest.mark.parametrize("what", ["an address of memory", "an address past the mapping", "an address given back"])
def test_the_privileged_token_takes_nothing_but_mapped_addresses(both: Pair, what: str) -> None:
    a, _ = both
    lam = a.adapter.build_lam(Mdl(bytearray(PAGE_SIZE), address=PAGE_SIZE)).result(PATIENCE_S)
    a.adapter.build_lam(Mdl(bytearray(PAGE_SIZE), address=PAGE_SIZE)).result(PATIENCE_S)
    (sge, *_) = lam.sges(0, 8, a.pd.privileged_token)
    if what == "an address of memory":
        sge = Sge(a.mr.address, 8, a.pd.privileged_token)
    elif what == "an address past the mapping":
        sge = Sge(lam.pages[-1] + PAGE_SIZE, 8, a.pd.privileged_token)
    else:
        lam.release()
    a.qp.send(sge)
    assert one(a.cq).status is Status.ACCESS_VIOLATION


@pytest.mark.rules("R-WR-9")
def test_a_registered_token_takes_no_logical_address(both: Pair) -> None:
    a, _ = both
    lam = a.adapter.build_lam(bytearray(8)).result(PATIENCE_S)
    a.qp.send(Sge(lam.pages[0] + lam.fbo, 8, a.mr.local_token))
    assert one(a.cq).status is Status.ACCESS_VIOLATION


@pytest.mark.rules("R-PRIV-3", "R-MEM-1", "R-INVAL-1")
@pytest.mark.parametrize("kind", ["read", "write", "invalidate"])
def test_the_privileged_token_lets_no_peer_in(both: Pair, bench: Bench, kind: str) -> None:
    """It is refused like a token that was never given, and for the same reason."""
    told: list[object] = []
    for pair, known in ((both, True), (bench.pair(), False)):
        a, b = pair
        memory = bytearray(b"untouched")
        lam = b.adapter.build_lam(memory).result(PATIENCE_S)
        address, token = lam.pages[0] + lam.fbo, RemoteToken(b.pd.privileged_token ^ (0 if known else 0x33CC3300))
        b.qp.receive(b.mr[0:16])
        if kind == "read":
            a.qp.read(a.mr[0:8], address, token)
        elif kind == "write":
            a.qp.write(b"overwrote", address, token)
        else:
            a.qp.send_and_invalidate(b"x", token)
        how = ended(b)
        assert not how.graceful
        assert memory == b"untouched"
        assert a.content(8) == bytes(8)
        fault = None if how.error is None else how.error.fault
        told.append(None if fault is None else (fault.layer, fault.etype, fault.code))
    assert told[0] == told[1]


@pytest.mark.rules("R-PRIV-4", "R-SINK-4")
@pytest.mark.requires(Feature.FREE_READ_SINK)
def test_the_privileged_token_may_be_the_sink_of_a_read(both: Pair) -> None:
    a, b = both
    b.fill(b"readable")
    target = bytearray(16)
    lam = a.adapter.build_lam(Mdl(target, address=PAGE_SIZE - 4)).result(PATIENCE_S)
    a.qp.read(lam.sges(0, 8, a.pd.privileged_token), b.mr.address, b.mr.remote_token)
    succeed(a.cq)
    assert target[:8] == b"readable"
