"""Regions, fast registration, windows, mappings, slices and reads: the rules of memory, through the public objects."""

import array
import mmap
from collections.abc import Callable

import numpy as np
import pytest

from softndk import (
    PAGE_SIZE,
    AccessViolation,
    DataOverrun,
    InvalidHandle,
    InvalidParameter,
    InvalidState,
    LocalToken,
    Mdl,
    Mr,
    MrFlag,
    NdkError,
    OperationType,
    OpFlag,
    RemoteToken,
    Sge,
    Status,
    open_adapter,
)
from softndk.testing import End, Pair, kill, pair
from tests.ndk.ends import (
    EVERY_RIGHT,
    FAST_RIGHTS,
    PATIENCE_S,
    ended,
    fast_region,
    fault_of,
    loose_end,
    one,
    still_works,
    succeed,
    take,
    triple,
    window,
)


def write(sender: End, data: bytes, address: int, token: RemoteToken, receiver: End) -> None:
    """An RDMA Write that is placed when this returns."""
    sender.qp.write(data, address, token, flags=OpFlag.SILENT_SUCCESS)
    sender.qp.read([], 0, token)
    succeed(sender.cq)


def read(reader: End, length: int, address: int, token: RemoteToken) -> bytes:
    """What an RDMA Read finds there."""
    reader.qp.read(reader.mr[0:length], address, token)
    succeed(reader.cq)
    return bytes(reader.mr.view[:length])


def held(buffer: bytearray) -> bool:
    """Whether somebody holds an export of `buffer`."""
    try:
        buffer.append(0)
    except BufferError:
        return True
    buffer.pop()
    return False


# ---- registration


@pytest.mark.rules("R-REGMR-4", "R-DEREG-2")
def test_registration_holds_the_buffers_export_until_deregistration(both: Pair) -> None:
    buffer = bytearray(64)
    mr = both.a.pd.register_mr(buffer)
    assert held(buffer)
    mr.deregister().result(0)
    assert not held(buffer)


@pytest.mark.rules("R-CLOSE-12")
def test_registration_holds_the_buffers_export_until_the_close(both: Pair) -> None:
    buffer = bytearray(64)
    mr = both.a.pd.register_mr(buffer)
    mr.close().result(PATIENCE_S)
    assert not held(buffer)


def test_the_view_is_the_buffer_itself_and_holds_it_beyond_the_deregistration(both: Pair) -> None:
    buffer = bytearray(64)
    mr = both.a.pd.register_mr(buffer)
    view = mr.view
    view[0] = 7
    assert buffer[0] == 7
    mr.deregister()
    assert held(buffer)
    view.release()
    assert not held(buffer)


def test_a_refused_registration_holds_nothing(both: Pair) -> None:
    buffer = bytearray(64)
    mr = both.a.pd.create_mr()
    for length in (0, 65):
        with pytest.raises(InvalidParameter, match=r"length .*must be 1 to 64"):
            mr.register(buffer, 0, length=length)
    with pytest.raises(InvalidParameter, match="flags"):
        mr.register(buffer, 0x10)
    assert not held(buffer)


@pytest.mark.rules("R-REGMR-1", "A-24")
@pytest.mark.parametrize(
    "buffer",
    [
        pytest.param(b"", id="empty"),
        pytest.param(memoryview(bytearray(64))[::2], id="every second octet"),
        pytest.param(np.zeros((8, 8), dtype=np.uint8).T[1:], id="a transposed array"),
        pytest.param("text", id="no buffer"),
        pytest.param(64, id="a number"),
    ],
)
def test_what_is_not_contiguous_or_empty_or_no_buffer_is_refused_and_nothing_has_changed(
    both: Pair, buffer: object
) -> None:
    mr = both.a.pd.create_mr()
    with pytest.raises(InvalidParameter):
        mr.register(buffer, 0)  # type: ignore[arg-type]
    with pytest.raises(InvalidState):
        _ = mr.local_token
    mr.register(bytearray(8), 0).result(0)
    before = both.a.adapter.open_objects
    with pytest.raises(InvalidParameter):
        both.a.pd.register_mr(buffer)  # type: ignore[arg-type]
    assert both.a.adapter.open_objects == before


@pytest.mark.parametrize("flags", [MrFlag.ALLOW_LOCAL_WRITE, MrFlag.ALLOW_REMOTE_WRITE, EVERY_RIGHT])
def test_a_write_right_over_a_read_only_buffer_is_refused(both: Pair, flags: int) -> None:
    with pytest.raises(InvalidParameter, match="read-only"):
        both.a.pd.register_mr(bytes(64), flags)


@pytest.mark.parametrize(
    ("buffer", "length"),
    [
        (bytearray(100), 100),
        (memoryview(bytearray(100))[10:60], 50),
        (array.array("I", [0] * 25), 100),
        (np.zeros((5, 5), dtype=np.float64), 200),
        (mmap.mmap(-1, 8192), 8192),
    ],
    ids=["bytearray", "memoryview", "array", "ndarray", "mmap"],
)
def test_any_contiguous_buffer_can_be_registered_and_its_length_is_in_octets(
    both: Pair, buffer: bytearray, length: int
) -> None:
    a, b = both
    mr = a.pd.register_mr(buffer, EVERY_RIGHT)
    assert mr.length == length
    write(b, b"\x01\x02\x03", mr.address + length - 3, mr.remote_token, a)
    assert bytes(mr.view[length - 3 :]) == b"\x01\x02\x03"
    assert bytes(memoryview(buffer).cast("B")[-3:]) == b"\x01\x02\x03"
    mr.close()


def test_without_flags_a_writable_buffer_gets_local_write_and_no_remote_right(both: Pair) -> None:
    a, b = both
    mr = a.pd.register_mr(bytearray(64))
    a.qp.receive(mr[0:8])
    b.qp.send(b"written")
    succeed(a.cq)
    succeed(b.cq)
    b.qp.read(b.mr[0:1], mr.address, mr.remote_token)
    assert triple(fault_of(a)) == (0, 1, 2)


def test_without_flags_a_read_only_buffer_gets_read_only(both: Pair) -> None:
    a, b = both
    mr = a.pd.register_mr(b"constant")
    a.qp.receive(mr[0:8])
    b.qp.send(b"12345678")
    assert one(a.cq).status is Status.ACCESS_VIOLATION


def test_only_the_first_octets_may_be_registered(both: Pair) -> None:
    a, b = both
    mr = a.pd.register_mr(bytearray(64), EVERY_RIGHT, length=10)
    assert mr.length == 10
    b.qp.write(b"x", mr.address + 10, mr.remote_token)
    assert triple(fault_of(a)) == (1, 1, 1)


@pytest.mark.rules("R-REGMR-7")
def test_the_same_memory_may_be_registered_several_times_with_different_rights(both: Pair) -> None:
    a, b = both
    buffer = bytearray(64)
    reading = a.pd.register_mr(buffer, MrFlag.ALLOW_REMOTE_READ)
    writing = a.pd.register_mr(buffer, MrFlag.ALLOW_REMOTE_WRITE)
    assert len({reading.local_token, reading.remote_token, writing.local_token, writing.remote_token}) == 4
    write(b, b"hello", writing.address, writing.remote_token, a)
    assert read(b, 5, reading.address, reading.remote_token) == b"hello"


@pytest.mark.rules("R-REGMR-7")
def test_one_region_holds_one_registration(both: Pair) -> None:
    mr = both.a.mr
    with pytest.raises(InvalidState) as refused:
        mr.register(bytearray(8), 0)
    assert refused.value.status is Status.INVALID_DEVICE_REQUEST
    assert mr.length == 8192


@pytest.mark.rules("R-DEREG-3", "R-REGMR-6")
def test_a_region_can_be_registered_anew_and_has_new_tokens(both: Pair) -> None:
    a, b = both
    mr = a.pd.create_mr()
    mr.register(bytearray(16), EVERY_RIGHT).result(0)
    old = mr.address, mr.remote_token
    mr.deregister().result(0)
    mr.register(bytearray(32), EVERY_RIGHT).result(0)
    assert mr.length == 32
    assert mr.remote_token != old[1]
    write(b, b"new", mr.address, mr.remote_token, a)
    b.qp.write(b"old", *old)
    assert triple(fault_of(a)) == (1, 1, 0)


@pytest.mark.rules("R-DEREG-1")
def test_deregistering_what_is_not_registered_is_refused(both: Pair) -> None:
    with pytest.raises(InvalidState):
        both.a.pd.create_mr().deregister()


@pytest.mark.rules("R-TOKEN-1")
def test_tokens_are_not_0_and_local_and_remote_differ(both: Pair) -> None:
    mr, fast = both.a.mr, fast_region(both.a, None).mr
    tokens = {mr.local_token, mr.remote_token, fast.local_token, fast.remote_token, both.a.pd.privileged_token}
    assert len(tokens) == 5
    assert 0 not in tokens
    assert max(tokens) < 1 << 32


@pytest.mark.rules("R-TOK-1")
@pytest.mark.parametrize("name", ["address", "length", "local_token", "remote_token", "view"])
@pytest.mark.parametrize("fast", [False, True])
def test_reading_an_attribute_before_it_is_valid_is_invalid_state(both: Pair, name: str, fast: bool) -> None:
    mr = both.a.pd.create_mr(fast_register=fast)
    with pytest.raises(InvalidState):
        getattr(mr, name)
    with pytest.raises(InvalidState):
        mr[0:1]


@pytest.mark.parametrize("name", ["address", "length", "local_token", "remote_token", "view"])
def test_attributes_are_invalid_again_after_the_deregistration(both: Pair, name: str) -> None:
    mr = both.a.pd.register_mr(bytearray(8))
    mr.deregister()
    with pytest.raises(InvalidState):
        getattr(mr, name)


WRONG_KIND: dict[str, tuple[bool, Callable[[End, Mr], object]]] = {
    "register a fast one": (True, lambda end, mr: mr.register(bytearray(8), 0)),
    "deregister a fast one": (True, lambda end, mr: mr.deregister()),
    "initialize a normal one": (False, lambda end, mr: mr.initialize_fast_register(1, True)),
    "fast register a normal one": (
        False,
        lambda end, mr: end.qp.fast_register(mr, [], fbo=0, length=1, base_address=0, flags=0),
    ),
}


@pytest.mark.rules("R-MR-1")
@pytest.mark.parametrize("name", WRONG_KIND)
def test_the_wrong_kind_of_region_is_invalid_device_request(both: Pair, name: str) -> None:
    fast, call = WRONG_KIND[name]
    with pytest.raises(InvalidState) as refused:
        call(both.a, both.a.pd.create_mr(fast_register=fast))
    assert refused.value.status is Status.INVALID_DEVICE_REQUEST


@pytest.mark.rules("R-INV-2")
def test_invalidating_a_normal_region_is_an_invalid_parameter(both: Pair) -> None:
    with pytest.raises(InvalidParameter, match="R-INV-2"):
        both.a.qp.invalidate(both.a.mr)
    still_works(*both)


# ---- slices and SGEs


def test_a_slice_counts_octets(both: Pair) -> None:
    numbers = np.arange(10, dtype=np.uint32)
    mr = both.a.pd.register_mr(numbers)
    assert mr[4:12] == Sge(mr.address + 4, 8, mr.local_token)
    assert mr[:] == Sge(mr.address, 40, mr.local_token)
    assert mr[40:] == Sge(mr.address + 40, 0, mr.local_token)


@pytest.mark.parametrize(
    "index",
    [slice(0, 65), slice(-1, 8), slice(0, -1), slice(0, 8, 1), slice(0, 8, 2), slice(9, 8), slice(65, 65)],
    ids=str,
)
def test_a_slice_with_a_step_a_negative_or_an_outside_bound_is_an_index_error(both: Pair, index: slice) -> None:
    mr = both.a.pd.register_mr(bytearray(64))
    with pytest.raises(IndexError):
        mr[index]


def test_an_index_is_a_type_error(both: Pair) -> None:
    with pytest.raises(TypeError, match="slice"):
        both.a.mr[0]  # type: ignore[index]


def test_an_sge_keeps_nothing_alive(both: Pair) -> None:
    a, b = both
    buffer = bytearray(64)
    mr = a.pd.register_mr(buffer)
    sge = mr[0:8]
    mr.close().result(PATIENCE_S)
    assert not held(buffer)
    b.qp.receive(b.mr[0:8])
    a.qp.send(sge)
    assert one(a.cq).status is Status.ACCESS_VIOLATION


def test_an_sge_goes_outside_on_purpose(both: Pair) -> None:
    a, b = both
    b.qp.receive(b.mr[0:8])
    a.qp.send(Sge(a.mr.address + 8190, 4, a.mr.local_token))
    assert one(a.cq).status is Status.ACCESS_VIOLATION


@pytest.mark.parametrize(
    "sge", [(-1, 8, 1), (1 << 64, 8, 1), (0, -1, 1), (0, 1 << 32, 1), (0, 8, -1), (0, 8, 1 << 32)], ids=str
)
def test_numbers_that_fit_no_sge_are_refused(both: Pair, sge: tuple[int, int, int]) -> None:
    with pytest.raises(InvalidParameter):
        both.a.qp.receive(Sge(sge[0], sge[1], LocalToken(sge[2])))


@pytest.mark.rules("R-RECV-3")
def test_a_receive_is_scattered_over_its_sges_in_order(both: Pair) -> None:
    a, b = both
    other = b.pd.register_mr(bytearray(16))
    b.qp.receive([b.mr[10:13], other[0:4], b.mr[0:0], b.mr[20:40]])
    a.qp.send(bytes(range(1, 13)))
    assert one(b.cq).bytes_transferred == 12
    assert bytes(b.mr.view[10:14]) == b"\x01\x02\x03\0"
    assert bytes(other.view[:5]) == b"\x04\x05\x06\x07\0"
    assert bytes(b.mr.view[20:26]) == b"\x08\x09\x0a\x0b\x0c\0"


@pytest.mark.rules("R-WR-6")
def test_too_many_receive_sges_are_data_overrun(both: Pair) -> None:
    with pytest.raises(DataOverrun, match="max_receive_sge=4"):
        both.a.qp.receive([both.a.mr[0:1]] * 5)


# ---- Mdl


def test_an_mdls_address_is_the_real_one_of_its_first_octet() -> None:
    numbers = np.zeros(16, dtype=np.uint8)
    assert Mdl(numbers).address == numbers.ctypes.data
    assert Mdl(numbers[4:]).address == numbers.ctypes.data + 4
    assert Mdl(numbers).length == 16


@pytest.mark.rules("R-REGMR-3")
def test_an_mdls_given_address_is_only_an_index(both: Pair) -> None:
    a, b = both
    buffer = bytearray(64)
    mr = a.pd.register_mr(Mdl(buffer, address=0x10), EVERY_RIGHT)
    assert mr.address == 0x10
    write(b, b"index", 0x20, mr.remote_token, a)
    assert buffer[0x10:0x15] == b"index"


@pytest.mark.rules("R-REGMR-3", "R-MEM-3")
def test_a_region_may_begin_at_0_and_end_at_the_top(both: Pair) -> None:
    a, b = both
    low = a.pd.register_mr(Mdl(bytearray(8), address=0), EVERY_RIGHT)
    high = a.pd.register_mr(Mdl(bytearray(8), address=(1 << 64) - 8), EVERY_RIGHT)
    write(b, b"low", 0, low.remote_token, a)
    write(b, b"high", (1 << 64) - 4, high.remote_token, a)
    assert bytes(low.view[:3]) == b"low"
    assert bytes(high.view[4:]) == b"high"
    with pytest.raises(InvalidParameter):
        Mdl(bytearray(8), address=(1 << 64) - 7)
    with pytest.raises(InvalidParameter):
        Mdl(bytearray(8), address=-1)


def test_a_chain_of_several_buffers_needs_an_address() -> None:
    with pytest.raises(InvalidParameter, match="address="):
        Mdl([bytearray(8), bytearray(8)])


def test_a_chain_is_one_range_of_addresses(both: Pair) -> None:
    a, b = both
    chain = [bytearray(b"aaaa"), bytearray(b"bb"), bytearray(), bytearray(b"cccccc")]
    mr = a.pd.register_mr(Mdl(chain, address=0x5000), EVERY_RIGHT)
    assert mr.length == 12
    assert read(b, 12, 0x5000, mr.remote_token) == b"aaaabbcccccc"
    write(b, b"12345", 0x5003, mr.remote_token, a)
    assert chain == [b"aaa1", b"23", b"", b"45cccc"]
    a.qp.receive(mr[2:9])
    b.qp.send(b"ABCDEFG")
    succeed(a.cq)
    assert chain == [b"aaAB", b"CD", b"", b"EFGccc"]
    with pytest.raises(InvalidState, match="no single view"):
        _ = mr.view


def test_a_chain_with_a_read_only_link_is_read_only(both: Pair) -> None:
    with pytest.raises(InvalidParameter, match="read-only"):
        both.a.pd.register_mr(Mdl([bytearray(4), b"1234"], address=0), MrFlag.ALLOW_LOCAL_WRITE)


# ---- logical address mappings


@pytest.mark.rules("R-LAM-3", "R-LAM-4")
@pytest.mark.parametrize(("start", "length"), [(0, 1), (0, 4096), (0, 4097), (4095, 2), (100, 8192), (1, 12288)])
def test_a_mapping_has_a_page_for_each_page_spanned_and_the_offset_in_the_first(start: int, length: int) -> None:
    with open_adapter() as adapter:
        lam = adapter.build_lam(Mdl(bytearray(length), address=0x7000_0000 + start)).result(0)
        assert (lam.address, lam.length, lam.fbo) == (0x7000_0000 + start, length, start % PAGE_SIZE)
        assert len(lam.pages) == (start % PAGE_SIZE + length + PAGE_SIZE - 1) // PAGE_SIZE
        assert all(page % PAGE_SIZE == 0 for page in lam.pages)


def test_a_mapping_of_the_first_octets_only() -> None:
    with open_adapter() as adapter:
        buffer = bytearray(100)
        assert adapter.build_lam(buffer, length=10).result(0).length == 10
        for length in (0, 101, -1):
            with pytest.raises(InvalidParameter):
                adapter.build_lam(buffer, length=length)


@pytest.mark.rules("R-LAM-1")
def test_a_mapping_of_what_is_not_contiguous_is_refused() -> None:
    with open_adapter() as adapter, pytest.raises(InvalidParameter):
        adapter.build_lam(memoryview(bytearray(64))[::2])


@pytest.mark.rules("R-LAM-2", "R-LAM-9")
def test_a_mapping_holds_the_buffer_until_its_release() -> None:
    with open_adapter() as adapter:
        buffer = bytearray(100)
        lam = adapter.build_lam(buffer).result(0)
        assert held(buffer)
        lam.release()
        lam.release()
        assert not held(buffer)
        with adapter.build_lam(buffer).result(0):
            assert held(buffer)
        assert not held(buffer)


def test_a_released_mapping_gives_no_sges() -> None:
    with open_adapter() as adapter:
        pd = adapter.create_pd()
        lam = adapter.build_lam(bytearray(100)).result(0)
        lam.release()
        with pytest.raises(InvalidHandle):
            lam.sges(0, 1, pd.privileged_token)


def test_the_sges_of_a_mapping_are_one_for_each_page_touched() -> None:
    with open_adapter() as adapter:
        token = adapter.create_pd().privileged_token
        lam = adapter.build_lam(Mdl(bytearray(3 * PAGE_SIZE), address=100)).result(0)
        assert [sge.length for sge in lam.sges(0, 3 * PAGE_SIZE, token)] == [3996, 4096, 4096, 100]
        assert lam.sges(0, 1, token) == [Sge(lam.pages[0] + 100, 1, token)]
        assert lam.sges(5, 0, token) == []
        for offset, length in ((-1, 1), (0, 3 * PAGE_SIZE + 1), (3 * PAGE_SIZE, 1), (0, -1)):
            with pytest.raises(IndexError):
                lam.sges(offset, length, token)


# ---- the privileged token


@pytest.mark.rules("R-PRIV-2")
def test_the_privileged_token_reads_as_the_source_of_a_send(both: Pair) -> None:
    a, b = both
    lam = a.adapter.build_lam(bytearray(range(256)) * 40).result(0)
    b.qp.receive(b.mr[0:8192])
    a.qp.send(lam.sges(4000, 5000, a.pd.privileged_token))
    assert one(b.cq).bytes_transferred == 5000
    assert bytes(b.mr.view[:5000]) == (bytes(range(256)) * 40)[4000:9000]


@pytest.mark.rules("R-PRIV-2", "R-SINK-4")
def test_the_privileged_token_writes_as_the_sink_of_a_read_and_of_a_receive(both: Pair) -> None:
    a, b = both
    b.mr.view[:] = bytes(n * 3 % 251 for n in range(8192))
    buffer = bytearray(10000)
    lam = a.adapter.build_lam(buffer).result(0)
    a.qp.read(lam.sges(100, 8192, a.pd.privileged_token), b.mr.address, b.mr.remote_token)
    succeed(a.cq)
    assert buffer[100:8292] == b.mr.view
    a.qp.receive(lam.sges(0, 64, a.pd.privileged_token))
    b.qp.send(b"received")
    succeed(a.cq)
    assert buffer[:8] == b"received"


@pytest.mark.rules("R-PRIV-3")
def test_the_privileged_token_never_gives_remote_access(both: Pair) -> None:
    a, b = both
    lam = b.adapter.build_lam(bytearray(64)).result(0)
    a.qp.write(b"x", lam.pages[0] + lam.fbo, RemoteToken(b.pd.privileged_token))
    assert triple(fault_of(b)) == (1, 1, 0)
    assert "R-PRIV-3" in str(ended(b).error)


def test_the_privileged_token_of_a_pd_stays_the_same(both: Pair) -> None:
    assert both.a.pd.privileged_token == both.a.pd.privileged_token
    assert both.a.pd.privileged_token != both.a.adapter.create_pd().privileged_token


def test_page_octets_outside_the_mapped_buffer_do_not_exist_for_a_privileged_sge(both: Pair) -> None:
    a, b = both
    lam = a.adapter.build_lam(Mdl(bytearray(64), address=100)).result(0)
    inside = Sge(lam.pages[0] + 100, 64, a.pd.privileged_token)
    outside = Sge(lam.pages[0] + 99, 64, a.pd.privileged_token)
    b.qp.receive(b.mr[0:64])
    a.qp.send(inside)
    succeed(a.cq)
    succeed(b.cq)
    b.qp.receive(b.mr[0:64])
    a.qp.send(outside)
    assert one(a.cq).status is Status.ACCESS_VIOLATION


@pytest.mark.rules("R-WR-9")
def test_after_the_release_logical_addresses_are_an_access_violation(both: Pair) -> None:
    a, b = both
    lam = a.adapter.build_lam(bytearray(64)).result(0)
    sges = lam.sges(0, 8, a.pd.privileged_token)
    lam.release()
    b.qp.receive(b.mr[0:64])
    a.qp.send(sges)
    assert one(a.cq).status is Status.ACCESS_VIOLATION


# ---- fast registration


@pytest.mark.rules("R-TOK-4")
def test_fast_register_end_to_end(both: Pair) -> None:
    """Register, write through it, take it away, register again with the same token, write again (R-TOK-4)."""
    a, b = both
    target = fast_region(b, size=10000)
    token = target.token
    for turn in range(3):
        data = bytes([turn + 1]) * 5000
        write(a, b"", 0, token, b)
        a.mr.view[:5000] = data
        a.qp.write(a.mr[0:5000], target.mr.address + 4000, token)
        b.qp.receive([])
        a.qp.send_and_invalidate([], token)
        succeed(a.cq, 2)
        assert one(b.cq).invalidated_token == token
        assert target.buffer[4000:9000] == data
        b.qp.fast_register(target.mr, target.lam, flags=FAST_RIGHTS)
        succeed(b.cq)
        assert target.token == token


@pytest.mark.rules("R-TOK-2", "R-FREG-5")
def test_the_remote_token_is_there_when_the_fast_register_has_returned(both: Pair) -> None:
    target = fast_region(both.a, None)
    assert target.token != 0
    before = target.token
    both.a.qp.fast_register(target.mr, target.lam, flags=FAST_RIGHTS)
    assert target.token == before


def test_address_and_length_are_those_of_the_last_posted_fast_register(both: Pair) -> None:
    a, _ = both
    lam = a.adapter.build_lam(Mdl(bytearray(PAGE_SIZE), address=0)).result(0)
    mr = fast_region(a, None).mr
    a.qp.fast_register(mr, lam.pages, fbo=16, length=100, base_address=0x10010, flags=FAST_RIGHTS | OpFlag.DEFER)
    assert (mr.address, mr.length) == (0x10010, 100)
    assert mr[10:20] == Sge(0x1001A, 10, mr.local_token)


def test_a_refused_fast_register_leaves_address_and_length(both: Pair) -> None:
    a, _ = both
    target = fast_region(a)
    before = target.mr.address, target.mr.length
    with pytest.raises(InvalidState):
        a.qp.fast_register(target.mr, target.lam, length=1, flags=FAST_RIGHTS)
    assert (target.mr.address, target.mr.length) == before


def test_a_full_queue_leaves_address_and_length_unknown() -> None:
    with pair(queue_depth=1, flags=MrFlag.ALLOW_REMOTE_READ) as (a, b):
        target = fast_region(a, None)
        sink = a.pd.register_mr(bytearray(8))
        kill(b.adapter, "silence")
        a.qp.read(sink[0:8], b.mr.address, b.mr.remote_token)  # never answered: keeps the only place
        with pytest.raises(NdkError) as full:
            a.qp.fast_register(target.mr, target.lam, flags=FAST_RIGHTS)
        assert full.value.status is Status.NO_MORE_ENTRIES
        with pytest.raises(InvalidState):
            _ = target.mr.address


@pytest.mark.rules("R-FRINIT-3")
@pytest.mark.parametrize("flags", [OpFlag.ALLOW_REMOTE_READ, OpFlag.ALLOW_REMOTE_WRITE, FAST_RIGHTS])
def test_a_remote_right_needs_remote_access_at_the_initialisation(both: Pair, flags: int) -> None:
    target = fast_region(both.a, None, remote_access=False)
    with pytest.raises(AccessViolation, match="R-FRINIT-3"):
        both.a.qp.fast_register(target.mr, target.lam, flags=flags)
    both.a.qp.fast_register(target.mr, target.lam, flags=OpFlag.ALLOW_LOCAL_WRITE)
    succeed(both.a.cq)


@pytest.mark.rules("R-SINK-3", "E-8")
def test_the_read_sink_flag_is_accepted(both: Pair) -> None:
    """R-SINK-3."""
    a, b = both
    target = fast_region(a, OpFlag.ALLOW_LOCAL_WRITE | OpFlag.RDMA_READ_SINK)
    mr = a.pd.register_mr(bytearray(8), MrFlag.ALLOW_LOCAL_WRITE | MrFlag.RDMA_READ_SINK)
    a.qp.read([target.mr[0:4], mr[0:4]], b.mr.address, b.mr.remote_token)
    succeed(a.cq)


@pytest.mark.rules("R-FRINIT-2")
@pytest.mark.parametrize("pages", [0, 513])
def test_a_page_count_that_is_not_supported_is_an_implementation_limit_in_the_pending(both: Pair, pages: int) -> None:
    mr = both.a.pd.create_mr(fast_register=True)
    with pytest.raises(InvalidParameter) as refused:
        mr.initialize_fast_register(pages, True).result(PATIENCE_S)
    assert refused.value.status is Status.IMPLEMENTATION_LIMIT


def test_the_adapters_page_count_works() -> None:
    with pair() as (a, b):
        pages = a.adapter.query_info().frmr_page_count
        assert pages >= 16
        target = fast_region(a, size=pages * PAGE_SIZE - PAGE_SIZE + 1, pages=pages)
        last = target.mr.address + target.mr.length - 1
        write(b, b"!", last, target.token, a)
        assert target.buffer[-1:] == b"!"


@pytest.mark.rules("A-17")
def test_initialising_again_while_invalid_replaces_the_limit_and_keeps_the_token(both: Pair) -> None:
    target = fast_region(both.a, None, size=2 * PAGE_SIZE, pages=1)
    token = target.token
    with pytest.raises(InvalidParameter, match="R-FREG-2"):
        both.a.qp.fast_register(target.mr, target.lam, flags=FAST_RIGHTS)
    target.mr.initialize_fast_register(3, True).result(PATIENCE_S)
    assert target.token == token
    both.a.qp.fast_register(target.mr, target.lam, flags=FAST_RIGHTS)
    succeed(both.a.cq)
    with pytest.raises(InvalidState):
        target.mr.initialize_fast_register(3, True)


@pytest.mark.rules("R-FREG-6")
def test_a_second_fast_register_needs_an_invalidate_first(both: Pair) -> None:
    a, b = both
    target = fast_region(a)
    with pytest.raises(InvalidState, match="R-FREG-6") as refused:
        a.qp.fast_register(target.mr, target.lam, flags=FAST_RIGHTS)
    assert refused.value.status is Status.INVALID_DEVICE_REQUEST
    a.qp.invalidate(target.mr)
    a.qp.fast_register(target.mr, target.lam, flags=FAST_RIGHTS)
    succeed(a.cq, 2)
    still_works(a, b)


@pytest.mark.rules("R-FREG-6")
def test_a_second_fast_register_in_the_queue_fails_when_it_runs(both: Pair) -> None:
    a, _ = both
    target = fast_region(a, None)
    a.qp.fast_register(target.mr, target.lam, flags=FAST_RIGHTS | OpFlag.DEFER, context=1)
    a.qp.fast_register(target.mr, target.lam, flags=FAST_RIGHTS, context=2)
    first, second = take(a.cq, 2)
    assert (first.status, second.status) == (Status.SUCCESS, Status.INVALID_DEVICE_REQUEST)
    assert second.type is OperationType.FAST_REGISTER
    assert not ended(a).graceful


@pytest.mark.rules("R-FREG-2", "R-FREG-3", "R-FREG-4")
@pytest.mark.parametrize(
    ("fbo", "length", "base"),
    [
        (0, 0, 0),
        (0, -1, 0),
        (-1, 1, 4095),
        (4096, 1, 4096),
        (0, 8193, 0),
        (1, 8192, 1),
        (16, 8, 0),  # base 0 only with fbo 0
        (16, 8, 15),
        (16, 8, 4097),
        (0, 8, (1 << 64) - 4),
    ],
)
def test_a_layout_against_the_rules_is_refused(both: Pair, fbo: int, length: int, base: int) -> None:
    """R-FREG-3, R-FREG-4."""
    a, b = both
    target = fast_region(a, None, size=2 * PAGE_SIZE)
    lam = a.adapter.build_lam(Mdl(bytearray(2 * PAGE_SIZE), address=0)).result(0)
    with pytest.raises(InvalidParameter):
        a.qp.fast_register(target.mr, lam, fbo=fbo, length=length, base_address=base, flags=FAST_RIGHTS)
    still_works(a, b)


@pytest.mark.rules("R-FREG-4", "A-16")
@pytest.mark.parametrize(
    ("fbo", "length", "base"),
    [(0, 8192, 0), (16, 8176, 16), (16, 8, 0xFFFF_0010), (4095, 4097, 4095), (0, 8192, (1 << 64) - 8192)],
)
def test_any_base_that_fits_the_offset_names_the_first_octet(both: Pair, fbo: int, length: int, base: int) -> None:
    """R-FREG-4: it need not be a real address."""
    a, b = both
    buffer = bytearray(2 * PAGE_SIZE)
    lam = a.adapter.build_lam(Mdl(buffer, address=0)).result(0)
    mr = fast_region(a, None).mr
    a.qp.fast_register(mr, lam, fbo=fbo, length=length, base_address=base, flags=FAST_RIGHTS)
    succeed(a.cq)
    write(b, b"!", base + length - 1, mr.remote_token, a)
    assert buffer[fbo + length - 1 : fbo + length] == b"!"
    assert (mr.address, mr.length) == (base, length)


@pytest.mark.rules("R-LAM-3")
def test_pages_may_be_taken_in_any_order(both: Pair) -> None:
    a, b = both
    first, second = bytearray(b"1" * PAGE_SIZE), bytearray(b"2" * PAGE_SIZE)
    lams = [a.adapter.build_lam(Mdl(buffer, address=0)).result(0) for buffer in (first, second)]
    mr = fast_region(a, None).mr
    a.qp.fast_register(
        mr, [lams[1].pages[0], lams[0].pages[0]], fbo=0, length=2 * PAGE_SIZE, base_address=0, flags=FAST_RIGHTS
    )
    succeed(a.cq)
    assert read(b, 4, PAGE_SIZE - 2, mr.remote_token) == b"2211"


@pytest.mark.rules("R-FREG-2")
@pytest.mark.parametrize("page", [16, 0, 0x7FFF_F000])
def test_pages_that_are_no_mapped_ones_are_refused(both: Pair, page: int) -> None:
    with pytest.raises(InvalidParameter, match="R-FREG-2"):
        both.a.qp.fast_register(
            fast_region(both.a, None).mr, [page], fbo=0, length=8, base_address=0, flags=FAST_RIGHTS
        )


def test_covering_page_octets_outside_the_mapped_buffer_is_refused(both: Pair) -> None:
    a, _ = both
    lam = a.adapter.build_lam(Mdl(bytearray(64), address=100)).result(0)
    mr = fast_region(a, None).mr
    for fbo, length in ((99, 10), (100, 65)):
        with pytest.raises(InvalidParameter):
            a.qp.fast_register(mr, lam.pages, fbo=fbo, length=length, base_address=fbo, flags=FAST_RIGHTS)
    a.qp.fast_register(mr, lam.pages, fbo=100, length=64, base_address=100, flags=FAST_RIGHTS)
    succeed(a.cq)


def test_a_list_of_pages_needs_the_whole_layout(both: Pair) -> None:
    target = fast_region(both.a, None)
    with pytest.raises(InvalidParameter, match="fbo, length and base_address"):
        both.a.qp.fast_register(target.mr, target.lam.pages, fbo=0, length=8, flags=FAST_RIGHTS)


def test_a_read_only_mapping_gives_no_write_right(both: Pair) -> None:
    a, b = both
    lam = a.adapter.build_lam(b"constant").result(0)
    mr = fast_region(a, None).mr
    with pytest.raises(InvalidParameter, match="read-only"):
        a.qp.fast_register(mr, lam, flags=FAST_RIGHTS)
    a.qp.fast_register(mr, lam, flags=OpFlag.ALLOW_REMOTE_READ)
    succeed(a.cq)
    assert read(b, 8, mr.address, mr.remote_token) == b"constant"


def test_memory_is_free_when_the_invalidate_has_completed_and_the_mapping_is_released(both: Pair) -> None:
    """R-INV-6."""
    target = fast_region(both.a)
    both.a.qp.invalidate(target.mr)
    succeed(both.a.cq)
    target.lam.release()
    assert not held(target.buffer)


def test_a_cancelled_fast_register_holds_no_memory(both: Pair) -> None:
    a, _ = both
    target = fast_region(a, None)
    a.qp.fast_register(target.mr, target.lam, flags=FAST_RIGHTS | OpFlag.DEFER)
    a.qp.flush()
    result = one(a.cq)
    target.lam.release()
    assert result.status is Status.CANCELLED
    assert not held(target.buffer)


@pytest.mark.rules("R-INV-3")
def test_an_invalidated_region_is_dead_for_local_use_too(both: Pair) -> None:
    a, b = both
    target = fast_region(a)
    sge = target.mr[0:8]
    a.qp.invalidate(target.mr)
    succeed(a.cq)
    b.qp.receive(b.mr[0:8])
    a.qp.send(sge)
    assert one(a.cq).status is Status.ACCESS_VIOLATION


def test_closing_a_region_with_a_fast_register_in_the_queue_waits_for_it(both: Pair) -> None:
    a, b = both
    target = fast_region(a, None)
    b.qp.receive([])
    a.qp.fast_register(target.mr, target.lam, flags=FAST_RIGHTS | OpFlag.DEFER)
    closing = target.mr.close()
    a.qp.send([])
    succeed(a.cq, 2)
    closing.result(PATIENCE_S)
    target.lam.release()
    assert not held(target.buffer)


# ---- windows


@pytest.mark.rules("R-MW-1", "A-7")
def test_a_window_starts_invalid_and_its_token_never_changes(both: Pair) -> None:
    a, _ = both
    mw = a.pd.create_mw()
    token = mw.remote_token
    assert token != 0
    with pytest.raises(InvalidState):
        a.qp.invalidate(mw)
    for _ in range(2):
        a.qp.bind(a.mr, mw, flags=FAST_RIGHTS)
        assert mw.remote_token == token
        a.qp.invalidate(mw)
        succeed(a.cq, 2)
    assert not hasattr(mw, "local_token")


@pytest.mark.rules("R-BIND-5")
def test_windows_over_the_same_memory_may_have_different_rights(both: Pair) -> None:
    a, b = both
    reading, writing = window(b, OpFlag.ALLOW_REMOTE_READ), window(b, OpFlag.ALLOW_REMOTE_WRITE)
    write(a, b"rights", b.mr.address, writing.remote_token, b)
    assert read(a, 6, b.mr.address, reading.remote_token) == b"rights"
    a.qp.write(b"x", b.mr.address, reading.remote_token)
    assert triple(fault_of(b)) == (0, 1, 2)


@pytest.mark.rules("R-BIND-4")
def test_a_window_needs_no_remote_right_of_its_region(both: Pair) -> None:
    """R-BIND-4."""
    a, b = both
    mr = b.pd.register_mr(bytearray(64), MrFlag.ALLOW_LOCAL_WRITE)
    mw = window(b, FAST_RIGHTS, mr)
    write(a, b"lent", mr.address, mw.remote_token, b)
    assert read(a, 4, mr.address, mw.remote_token) == b"lent"


@pytest.mark.rules("R-BIND-1")
def test_remote_write_over_a_region_without_local_write_is_an_access_violation(both: Pair) -> None:
    a, _ = both
    mr = a.pd.register_mr(bytearray(64), MrFlag.ALLOW_LOCAL_READ)
    with pytest.raises(AccessViolation, match="R-BIND-1"):
        a.qp.bind(mr, a.pd.create_mw(), flags=OpFlag.ALLOW_REMOTE_WRITE)
    a.qp.bind(mr, a.pd.create_mw(), flags=OpFlag.ALLOW_REMOTE_READ)
    succeed(a.cq)


@pytest.mark.rules("R-BIND-1")
def test_a_window_without_a_right_is_refused(both: Pair) -> None:
    with pytest.raises(InvalidParameter, match="R-BIND-1"):
        both.a.qp.bind(both.a.mr, both.a.pd.create_mw(), flags=0)


def test_a_window_may_cover_a_part(both: Pair) -> None:
    a, b = both
    mw = b.pd.create_mw()
    b.qp.bind(b.mr, mw, b.mr.address + 100, 50, flags=FAST_RIGHTS)
    succeed(b.cq)
    write(a, b"x" * 50, b.mr.address + 100, mw.remote_token, b)
    a.qp.write(b"x", b.mr.address + 150, mw.remote_token)
    assert triple(fault_of(b)) == (1, 1, 1)


@pytest.mark.parametrize(
    ("address", "length", "expected"),
    [(None, None, (0, 8192)), (100, None, (100, 8092)), (None, 100, (0, 100)), (8191, 1, (8191, 1))],
)
def test_what_is_left_out_of_a_bind_means_the_whole_region(
    both: Pair, address: int | None, length: int | None, expected: tuple[int, int]
) -> None:
    a, b = both
    mw = b.pd.create_mw()
    b.qp.bind(b.mr, mw, None if address is None else b.mr.address + address, length, flags=FAST_RIGHTS)
    succeed(b.cq)
    first, size = expected
    write(a, b"[", b.mr.address + first, mw.remote_token, b)
    write(a, b"]", b.mr.address + first + size - 1, mw.remote_token, b)
    a.qp.write(b"x", b.mr.address + first + size, mw.remote_token)
    assert triple(fault_of(b)) == (1, 1, 1)


@pytest.mark.rules("R-BIND-2", "A-6")
@pytest.mark.parametrize(("offset", "length"), [(-1, 8), (8185, 8), (8192, 1), (0, 8193)])
def test_a_window_that_is_not_inside_its_region_is_an_access_violation(both: Pair, offset: int, length: int) -> None:
    a, b = both
    with pytest.raises(AccessViolation, match="R-BIND-2"):
        a.qp.bind(a.mr, a.pd.create_mw(), a.mr.address + offset, length, flags=FAST_RIGHTS)
    still_works(a, b)


@pytest.mark.rules("A-24")
@pytest.mark.parametrize("length", [0, -1])
def test_a_window_without_length_is_refused(both: Pair, length: int) -> None:
    with pytest.raises(InvalidParameter, match="A-24"):
        both.a.qp.bind(both.a.mr, both.a.pd.create_mw(), both.a.mr.address, length, flags=FAST_RIGHTS)


@pytest.mark.rules("A-6")
def test_a_window_over_an_unregistered_region_is_refused(both: Pair) -> None:
    mr = fast_region(both.a, None).mr
    with pytest.raises((AccessViolation, InvalidState)):
        both.a.qp.bind(mr, both.a.pd.create_mw(), 0, 8, flags=FAST_RIGHTS)


@pytest.mark.rules("R-BIND-5")
def test_binding_again_needs_an_invalidate_first(both: Pair) -> None:
    a, b = both
    mw = window(a)
    with pytest.raises(InvalidState, match="R-BIND-5"):
        a.qp.bind(a.mr, mw, flags=FAST_RIGHTS)
    still_works(a, b)


@pytest.mark.rules("A-6")
def test_a_bind_that_turns_out_wrong_when_it_runs_is_an_access_violation(both: Pair) -> None:
    """A-6: the invalidate before it in the queue makes it so."""
    a, _ = both
    target = fast_region(a)
    a.qp.invalidate(target.mr, flags=OpFlag.DEFER)
    a.qp.bind(target.mr, a.pd.create_mw(), flags=FAST_RIGHTS)
    first, second = take(a.cq, 2)
    assert (first.status, second.status) == (Status.SUCCESS, Status.ACCESS_VIOLATION)


@pytest.mark.rules("A-13")
def test_objects_of_another_pd_are_refused(both: Pair) -> None:
    a, _ = both
    other = a.adapter.create_pd()
    with pytest.raises(InvalidParameter, match="A-13"):
        a.qp.bind(other.register_mr(bytearray(8)), a.pd.create_mw(), flags=FAST_RIGHTS)
    with pytest.raises(InvalidParameter, match="A-13"):
        a.qp.bind(a.mr, other.create_mw(), flags=FAST_RIGHTS)
    with pytest.raises(InvalidParameter, match="A-13"):
        a.qp.invalidate(other.create_mw())


def test_objects_of_a_wrong_type_are_a_type_error(both: Pair) -> None:
    a, _ = both
    with pytest.raises(TypeError):
        a.qp.bind(a.pd.create_mw(), a.mr, flags=FAST_RIGHTS)  # type: ignore[arg-type]
    with pytest.raises(TypeError):
        a.qp.invalidate(a.cq)  # type: ignore[arg-type]


@pytest.mark.rules("R-INVAL-4")
def test_a_region_with_windows_bound_cannot_be_deregistered(both: Pair) -> None:
    a, _ = both
    mr = a.pd.register_mr(bytearray(64))
    mw = window(a, mr=mr)
    with pytest.raises(InvalidState) as busy:
        mr.deregister()
    assert busy.value.status is Status.DEVICE_BUSY
    a.qp.invalidate(mw)
    succeed(a.cq)
    mr.deregister().result(0)


@pytest.mark.rules("R-INVAL-4")
def test_a_fast_region_with_windows_bound_cannot_be_invalidated(both: Pair) -> None:
    a, b = both
    target = fast_region(a)
    mw = window(a, mr=target.mr)
    with pytest.raises(InvalidState) as refused:
        a.qp.invalidate(target.mr)
    assert refused.value.status is Status.INVALID_DEVICE_REQUEST
    still_works(a, b)
    a.qp.invalidate(mw)
    a.qp.invalidate(target.mr)
    succeed(a.cq, 2)


@pytest.mark.rules("R-MW-4")
def test_closing_a_region_pends_while_a_window_is_bound_to_it(both: Pair) -> None:
    a, _ = both
    mr = a.pd.register_mr(bytearray(64))
    mw = window(a, mr=mr)
    closing = mr.close()
    with pytest.raises(TimeoutError, match="1 bound windows"):
        closing.result(0)
    a.qp.invalidate(mw)
    succeed(a.cq)
    closing.result(PATIENCE_S)


@pytest.mark.rules("R-MW-4")
def test_closing_a_bound_window_frees_its_region(both: Pair) -> None:
    a, b = both
    mr = a.pd.register_mr(bytearray(64))
    mw = window(a, mr=mr)
    token = mw.remote_token
    closing = mr.close()
    mw.close().result(PATIENCE_S)
    closing.result(PATIENCE_S)
    b.qp.write(b"x", 0, token)
    assert triple(fault_of(a)) == (1, 1, 0)


def test_closing_a_window_with_a_bind_in_the_queue_waits_for_it(both: Pair) -> None:
    a, b = both
    mr, mw = a.pd.register_mr(bytearray(64)), a.pd.create_mw()
    b.qp.receive([])
    a.qp.bind(mr, mw, flags=FAST_RIGHTS | OpFlag.DEFER)
    closing = mw.close(), mr.close()
    a.qp.send([])
    succeed(a.cq, 2)
    for pending in closing:
        pending.result(PATIENCE_S)


def test_leaving_a_with_block_of_a_region_closes_the_windows_on_it(both: Pair) -> None:
    with both.a.pd.register_mr(bytearray(64)) as mr:
        mw = window(both.a, mr=mr)
    assert mw.closed
    assert mr.closed


# ---- reads


@pytest.mark.rules("R-SINK-6", "R-READ-2")
def test_a_read_may_fill_several_sges(both: Pair) -> None:
    a, b = both
    b.mr.view[:12] = b"abcdefghijkl"
    other = a.pd.register_mr(bytearray(8))
    a.qp.read([a.mr[100:103], other[1:6], a.mr[0:0], a.mr[0:4]], b.mr.address, b.mr.remote_token)
    succeed(a.cq)
    assert bytes(a.mr.view[99:104]) == b"\0abc\0"
    assert bytes(other.view) == b"\0defgh\0\0"
    assert bytes(a.mr.view[:5]) == b"ijkl\0"


@pytest.mark.rules("R-WR-6")
def test_the_adapters_read_sge_limit_overrides_the_queue_pairs(both: Pair) -> None:
    """R-WR-6."""
    a, b = both
    limit = a.adapter.query_info().max_read_request_sge
    assert limit > 4
    a.qp.read([a.mr[n : n + 1] for n in range(limit)], b.mr.address, b.mr.remote_token)
    succeed(a.cq)
    with pytest.raises(DataOverrun, match=f"max_read_request_sge={limit}"):
        a.qp.read([a.mr[0:1]] * (limit + 1), b.mr.address, b.mr.remote_token)


def test_a_read_of_many_fpdus(both: Pair) -> None:
    a, b = both
    size = 3_000_000
    source = b.pd.register_mr(bytes(range(250)) * 12000, MrFlag.ALLOW_REMOTE_READ)
    sink = a.pd.register_mr(bytearray(size))
    a.qp.read(sink[:], source.address, source.remote_token)
    succeed(a.cq)
    assert sink.view == source.view


@pytest.mark.rules("R-SINK-6", "R-SINK-2")
def test_the_sink_needs_local_write_only_and_no_token_of_it_works_for_the_peer(both: Pair) -> None:
    """R-SINK-6."""
    a, b = both
    sink = a.pd.register_mr(bytearray(8), MrFlag.ALLOW_LOCAL_WRITE)
    a.qp.read(sink[:], b.mr.address, b.mr.remote_token)
    succeed(a.cq)


@pytest.mark.rules("R-READ-5")
def test_a_read_with_local_invalidate_kills_the_first_sges_token_when_it_succeeds(both: Pair) -> None:
    a, b = both
    b.mr.view[:8] = b"and dead"
    first, second = fast_region(a), fast_region(a)
    a.qp.read(
        [first.mr[0:4], second.mr[0:4]],
        b.mr.address,
        b.mr.remote_token,
        flags=OpFlag.RDMA_READ_LOCAL_INVALIDATE,
    )
    succeed(a.cq)
    assert first.buffer[:4] + second.buffer[:4] == b"and dead"
    with pytest.raises(InvalidState):
        a.qp.invalidate(first.mr)
    a.qp.invalidate(second.mr)
    a.qp.fast_register(first.mr, first.lam, flags=FAST_RIGHTS)
    succeed(a.cq, 2)


def test_local_invalidate_is_announced_by_its_adapter_flag(both: Pair) -> None:
    info = both.a.adapter.query_info()
    assert info.adapter_flags & 0x10
    assert info.adapter_flags & 0x2  # no sink registration needed


def test_local_invalidate_of_what_cannot_be_invalidated_is_refused(both: Pair) -> None:
    a, b = both
    with pytest.raises(InvalidState, match="R-READ-5"):
        a.qp.read(a.mr[0:8], b.mr.address, b.mr.remote_token, flags=OpFlag.RDMA_READ_LOCAL_INVALIDATE)
    still_works(a, b)


def test_an_invalidate_waits_for_earlier_reads_into_the_region(both: Pair) -> None:
    a, b = both
    b.mr.view[:8] = b"too late"
    target = fast_region(a)
    a.qp.read(target.mr[0:8], b.mr.address, b.mr.remote_token)
    a.qp.invalidate(target.mr)
    succeed(a.cq, 2)
    assert target.buffer[:8] == b"too late"


@pytest.mark.rules("R-MEM-6")
def test_valid_remote_accesses_are_invisible_to_the_owner(both: Pair) -> None:
    """R-MEM-6: not even a receive that is posted is used up."""
    a, b = both
    b.qp.receive(b.mr[0:8])
    write(a, b"x", b.mr.address, b.mr.remote_token, b)
    read(a, 1, b.mr.address, b.mr.remote_token)
    assert b.cq.get_results() == []
    assert not b.connector.disconnected.done()


@pytest.mark.rules("A-13")
def test_a_qp_of_another_pd_cannot_use_a_local_token() -> None:
    with pair() as (a, b):
        other = loose_end(a.adapter)
        b.qp.receive(b.mr[0:8])
        a.qp.send(other.mr[0:8])
        result = one(a.cq)
        assert result.status is Status.ACCESS_VIOLATION
        assert "belongs to mr2 of pd2" in str(result.error)
