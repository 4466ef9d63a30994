"""The one access check: which token, whose, which right, where (R-MEM, R-WR-15, R-INVAL-1)."""

from collections.abc import Callable
from functools import partial

import pytest

from softndk.memory.access import AccessDenied, Denial, MemoryAccess
from softndk.memory.buffers import Mdl
from softndk.memory.logical import LogicalSpace
from softndk.memory.regions import FastRegion, Region, Window
from softndk.memory.tokens import ProtectionDomain, Right, Scope, TokenEntry, TokenTable

ALL = Right.LOCAL_WRITE | Right.REMOTE_READ | Right.REMOTE_WRITE
BASE, SIZE = 0x1000, 64
TOP = 1 << 64


class Memory:
    """A table with one region of 64 octets at 0x1000, and accesses for one QP."""

    def __init__(self, rights: Right = ALL, *, base: int = BASE) -> None:
        self.table = TokenTable()
        self.logical = LogicalSpace()
        self.pd = ProtectionDomain("pd1")
        self.qp = object()
        self.buffer = bytearray(range(SIZE))
        self.region = self.register(self.buffer, base, rights)
        self.access = self.for_qp(self.qp)

    def register(self, buffer: bytearray, base: int, rights: Right, pd: ProtectionDomain | None = None) -> Region:
        region = Region(self.table, pd or self.pd, "mr1")
        region.register(base, Mdl(buffer, address=base).byte_range(len(buffer)), rights)
        return region

    def for_qp(self, qp: object, pd: ProtectionDomain | None = None) -> MemoryAccess:
        return MemoryAccess(self.table, self.logical, pd or self.pd, qp)

    def window(self, rights: Right = ALL, *, base: int = BASE, length: int = 16, qp: object = None) -> Window:
        window = Window(self.table, self.pd, "mw1")
        window.bind(self.region, base, length, rights, qp or self.qp)
        return window

    def fast_region(self, rights: Right = ALL) -> FastRegion:
        region = FastRegion(self.table, self.pd, "frmr1")
        region.initialize(4, True)
        region.fast_register(0x9000, Mdl(bytearray(32), address=0).byte_range(32), rights)
        return region

    @property
    def local(self) -> int:
        return number(self.region.local)

    @property
    def remote(self) -> int:
        return number(self.region.remote)


def number(entry: TokenEntry | None) -> int:
    assert entry is not None
    return entry.stag


def denied(call: Callable[[], object]) -> Denial:
    with pytest.raises(AccessDenied) as caught:
        call()
    assert caught.value.text == str(caught.value)
    return caught.value.denial


class TestRemote:
    @pytest.mark.rules("R-MEM-2")
    @pytest.mark.parametrize("right", [Right.REMOTE_READ, Right.REMOTE_WRITE])
    def test_right_by_right(self, right: Right) -> None:
        """R-MEM-2: each right alone gives that access and no other."""
        memory = Memory(right)
        assert bytes(memory.access.remote(memory.remote, BASE, SIZE, right)[0]) == bytes(range(SIZE))
        other = Right.REMOTE_READ | Right.REMOTE_WRITE
        other ^= right
        assert denied(lambda: memory.access.remote(memory.remote, BASE, 1, other)) is Denial.MISSING_RIGHT

    @pytest.mark.parametrize("rights", [Right.NONE, Right.LOCAL_WRITE])
    @pytest.mark.parametrize("right", [Right.REMOTE_READ, Right.REMOTE_WRITE])
    def test_local_rights_give_a_peer_nothing(self, rights: Right, right: Right) -> None:
        memory = Memory(rights)
        assert denied(lambda: memory.access.remote(memory.remote, BASE, 1, right)) is Denial.MISSING_RIGHT

    @pytest.mark.parametrize(("offset", "length"), [(0, SIZE), (0, 1), (SIZE - 1, 1), (SIZE, 0), (0, 0), (5, 7)])
    def test_inside(self, offset: int, length: int) -> None:
        memory = Memory()
        views = memory.access.remote(memory.remote, BASE + offset, length, Right.REMOTE_READ)
        assert b"".join(views) == bytes(range(offset, offset + length))

    @pytest.mark.rules("R-MEM-3")
    @pytest.mark.parametrize(
        ("offset", "length"), [(-1, 1), (-1, 2), (SIZE, 1), (SIZE - 1, 2), (0, SIZE + 1), (-1, SIZE + 2), (1 << 62, 1)]
    )
    def test_outside_by_one_octet(self, offset: int, length: int) -> None:
        """R-MEM-3: octet granular, no rounding to pages."""
        memory = Memory()
        call = partial(memory.access.remote, memory.remote, BASE + offset, length, Right.REMOTE_READ)
        assert denied(call) is Denial.OUT_OF_BOUNDS

    @pytest.mark.rules("R-MEM-3")
    @pytest.mark.parametrize(("address", "length"), [(TOP - 1, 2), (TOP - SIZE, SIZE + 1), (TOP - 4, 0xFFFFFFFF)])
    def test_wraps(self, address: int, length: int) -> None:
        memory = Memory(base=TOP - SIZE)
        call = partial(memory.access.remote, memory.remote, address, length, Right.REMOTE_READ)
        assert denied(call) is Denial.WRAP

    def test_up_to_the_top_does_not_wrap(self) -> None:
        memory = Memory(base=TOP - SIZE)
        assert memory.access.remote(memory.remote, TOP - 1, 1, Right.REMOTE_READ)[0][0] == SIZE - 1

    @pytest.mark.rules("A-16")
    @pytest.mark.parametrize("base", [0, 4096])
    def test_base_zero_is_an_ordinary_base(self, base: int) -> None:
        """A-16."""
        memory = Memory(base=base)
        assert memory.access.remote(memory.remote, base + 3, 1, Right.REMOTE_READ)[0][0] == 3

    @pytest.mark.rules("R-PRIV-3")
    def test_local_tokens_are_never_honoured(self) -> None:
        """R-PRIV-3; also for tokens that are valid, of the right PD and with all rights."""
        memory = Memory()
        privileged = memory.table.create(Scope.PRIVILEGED, memory.pd, "pd1")
        privileged.valid = True
        fast = memory.fast_region()
        for token in (memory.local, privileged.stag, number(fast.local)):
            call = partial(memory.access.remote, token, BASE, 1, Right.REMOTE_READ)
            assert denied(call) is Denial.INVALID_TOKEN
            assert denied(partial(memory.access.invalidate, token)) is Denial.INVALID_TOKEN

    def test_unknown_wrong_key_and_dead_tokens(self) -> None:
        memory = Memory()
        for token in (0, 0xDEADBE01, memory.remote ^ 1, memory.remote ^ 0x100):
            call = partial(memory.access.remote, token, BASE, 1, Right.REMOTE_READ)
            assert denied(call) is Denial.INVALID_TOKEN
        stag = memory.remote
        memory.region.deregister()
        assert denied(lambda: memory.access.remote(stag, BASE, 1, Right.REMOTE_READ)) is Denial.INVALID_TOKEN

    def test_refused_guesses_are_counted(self) -> None:
        memory = Memory()
        for token in (1, memory.local, memory.window(qp=object()).token.stag):
            with pytest.raises(AccessDenied):
                memory.access.remote(token, BASE, 1, Right.REMOTE_READ)
        with pytest.raises(AccessDenied):
            memory.for_qp(object(), ProtectionDomain("pd2")).remote(memory.remote, BASE, 1, Right.REMOTE_READ)
        assert memory.table.refused == 4

    @pytest.mark.rules("R-MEM-1", "A-13")
    def test_another_pd(self) -> None:
        """R-MEM-1, A-13."""
        memory = Memory()
        other = memory.for_qp(object(), ProtectionDomain("pd2"))
        assert denied(lambda: other.remote(memory.remote, BASE, 1, Right.REMOTE_READ)) is Denial.NOT_ASSOCIATED

    def test_a_region_serves_every_qp_of_its_pd(self) -> None:
        memory = Memory()
        assert memory.for_qp(object()).remote(memory.remote, BASE, 1, Right.REMOTE_READ)

    @pytest.mark.rules("R-MEM-1", "A-13")
    def test_a_window_serves_only_its_qp(self) -> None:
        memory = Memory()
        window = memory.window()
        assert memory.access.remote(window.token.stag, BASE, 16, Right.REMOTE_WRITE)
        other = memory.for_qp(object())
        assert denied(lambda: other.remote(window.token.stag, BASE, 1, Right.REMOTE_WRITE)) is Denial.NOT_ASSOCIATED

    @pytest.mark.rules("R-BIND-4")
    def test_a_window_has_its_own_rights_and_bounds(self) -> None:
        """R-BIND-4, -5."""
        memory = Memory(Right.LOCAL_WRITE)
        stag = memory.window(Right.REMOTE_READ, base=BASE + 8, length=8).token.stag
        assert bytes(memory.access.remote(stag, BASE + 8, 8, Right.REMOTE_READ)[0]) == bytes(range(8, 16))
        assert denied(lambda: memory.access.remote(stag, BASE + 8, 1, Right.REMOTE_WRITE)) is Denial.MISSING_RIGHT
        for address, length in ((BASE + 7, 1), (BASE + 16, 1), (BASE + 8, 9)):
            call = partial(memory.access.remote, stag, address, length, Right.REMOTE_READ)
            assert denied(call) is Denial.OUT_OF_BOUNDS

    def test_overlapping_windows_keep_apart(self) -> None:
        memory = Memory()
        reading = memory.window(Right.REMOTE_READ).token.stag
        writing = memory.window(Right.REMOTE_WRITE, base=BASE + 4).token.stag
        assert memory.access.remote(reading, BASE + 4, 4, Right.REMOTE_READ)
        assert memory.access.remote(writing, BASE + 4, 4, Right.REMOTE_WRITE)
        assert denied(lambda: memory.access.remote(writing, BASE + 4, 4, Right.REMOTE_READ)) is Denial.MISSING_RIGHT

    def test_validity_comes_before_association_before_right_before_place(self) -> None:
        """4.7: the first check that fails is the one that is reported."""
        memory = Memory(Right.REMOTE_READ)
        other = memory.for_qp(object(), ProtectionDomain("pd2"))
        assert denied(lambda: other.remote(memory.remote, TOP - 1, 9, Right.REMOTE_WRITE)) is Denial.NOT_ASSOCIATED
        assert (
            denied(lambda: memory.access.remote(memory.remote, TOP - 1, 9, Right.REMOTE_WRITE)) is Denial.MISSING_RIGHT
        )
        assert denied(lambda: memory.access.remote(memory.remote, TOP - 1, 9, Right.REMOTE_READ)) is Denial.WRAP
        window = memory.window(Right.REMOTE_READ, qp=object())
        window.invalidate()
        assert denied(lambda: other.remote(window.token.stag, BASE, 1, Right.REMOTE_READ)) is Denial.INVALID_TOKEN


class TestLocal:
    @pytest.mark.rules("R-WR-15")
    def test_source_needs_no_right(self) -> None:
        """R-WR-15: local read is always there."""
        memory = Memory(Right.NONE)
        assert bytes(memory.access.local(memory.local, BASE + 1, 3, write=False)[0]) == b"\1\2\3"

    @pytest.mark.rules("R-WR-15")
    @pytest.mark.parametrize("rights", [Right.NONE, Right.REMOTE_READ, Right.REMOTE_WRITE])
    def test_target_needs_local_write(self, rights: Right) -> None:
        memory = Memory(rights)
        assert denied(lambda: memory.access.local(memory.local, BASE, 1, write=True)) is Denial.MISSING_RIGHT

    def test_target(self) -> None:
        memory = Memory(Right.LOCAL_WRITE)
        memory.access.local(memory.local, BASE + 60, 4, write=True)[0][:] = b"last"
        assert memory.buffer[60:] == b"last"

    def test_remote_tokens_are_no_local_ones(self) -> None:
        memory = Memory()
        for token in (memory.remote, memory.window().token.stag, number(memory.fast_region().remote), 0, 0xDEADBE01):
            call = partial(memory.access.local, token, BASE, 1, write=False)
            assert denied(call) is Denial.INVALID_TOKEN

    @pytest.mark.rules("R-MEM-1", "A-13")
    def test_another_pd(self) -> None:
        memory = Memory()
        other = memory.for_qp(object(), ProtectionDomain("pd2"))
        assert denied(lambda: other.local(memory.local, BASE, 1, write=False)) is Denial.NOT_ASSOCIATED

    def test_an_invalid_fast_region(self) -> None:
        memory = Memory()
        region = memory.fast_region()
        token = number(region.local)
        assert memory.access.local(token, 0x9000, 32, write=True)
        region.invalidate()
        assert denied(lambda: memory.access.local(token, 0x9000, 1, write=False)) is Denial.INVALID_TOKEN

    @pytest.mark.parametrize(("address", "length"), [(BASE - 1, 1), (BASE + SIZE, 1), (BASE, SIZE + 1), (TOP - 1, 1)])
    def test_outside(self, address: int, length: int) -> None:
        memory = Memory()
        assert denied(lambda: memory.access.local(memory.local, address, length, write=False)) is Denial.OUT_OF_BOUNDS

    @pytest.mark.rules("R-MEM-3")
    def test_wraps(self) -> None:
        memory = Memory()
        assert denied(lambda: memory.access.local(memory.local, TOP - 1, 2, write=False)) is Denial.WRAP


class TestPrivileged:
    """R-PRIV: logical addresses, local read and write, on every mapping of the adapter."""

    def make(self, buffer: bytearray | bytes, fbo: int = 0) -> tuple[Memory, int, list[int]]:
        memory = Memory()
        token = memory.table.create(Scope.PRIVILEGED, memory.pd, "pd1").stag
        mdl = Mdl(buffer, address=fbo)
        return memory, token, memory.logical.map(mdl.byte_range(mdl.length), fbo)

    def test_read_and_write(self) -> None:
        buffer = bytearray(b"0123456789")
        memory, token, pages = self.make(buffer)
        assert bytes(memory.access.local(token, pages[0] + 2, 3, write=False)[0]) == b"234"
        memory.access.local(token, pages[0], 1, write=True)[0][:] = b"X"
        assert buffer[:1] == b"X"

    def test_outside_the_mapped_buffer(self) -> None:
        memory, token, pages = self.make(bytearray(10), fbo=100)
        for address, length in ((pages[0] + 99, 1), (pages[0] + 110, 1), (pages[0] + 100, 11), (BASE, 1), (0, 1)):
            call = partial(memory.access.local, token, address, length, write=False)
            assert denied(call) is Denial.OUT_OF_BOUNDS

    def test_read_only_buffer(self) -> None:
        memory, token, pages = self.make(b"read only")
        assert memory.access.local(token, pages[0], 4, write=False)
        assert denied(lambda: memory.access.local(token, pages[0], 4, write=True)) is Denial.MISSING_RIGHT

    @pytest.mark.rules("R-MEM-1", "A-13")
    def test_another_pd(self) -> None:
        memory, token, pages = self.make(bytearray(10))
        other = memory.for_qp(object(), ProtectionDomain("pd2"))
        assert denied(lambda: other.local(token, pages[0], 1, write=False)) is Denial.NOT_ASSOCIATED


class TestInline:
    """R-WR-10: the token does not matter, only that there is memory behind the address."""

    def test_by_token(self) -> None:
        memory = Memory()
        assert bytes(memory.access.inline(memory.local, BASE + 1, 2)[0]) == b"\1\2"

    @pytest.mark.parametrize("token", [0, 0xDEADBE01])
    def test_by_address(self, token: int) -> None:
        memory = Memory()
        assert bytes(memory.access.inline(token, BASE + 1, 2)[0]) == b"\1\2"

    def test_a_token_whose_region_lies_elsewhere(self) -> None:
        memory = Memory()
        other = memory.register(bytearray(b"other"), 0x8000, Right.NONE)
        assert bytes(memory.access.inline(number(other.local), BASE, 1)[0]) == b"\0"

    def test_a_privileged_token(self) -> None:
        memory = Memory()
        token = memory.table.create(Scope.PRIVILEGED, memory.pd, "pd1").stag
        assert bytes(memory.access.inline(token, BASE, 1)[0]) == b"\0"

    def test_nowhere(self) -> None:
        memory = Memory()
        for address, length in ((BASE - 1, 2), (BASE + SIZE, 1), (5, 1)):
            call = partial(memory.access.inline, memory.local, address, length)
            assert denied(call) is Denial.OUT_OF_BOUNDS

    def test_memory_of_another_pd_cannot_be_read(self) -> None:
        memory = Memory()
        other = memory.for_qp(object(), ProtectionDomain("pd2"))
        assert denied(lambda: other.inline(0, BASE, 1)) is Denial.OUT_OF_BOUNDS


class TestInvalidate:
    """R-INVAL-1: a peer may take away windows and fast-register regions that it may use, nothing else."""

    def test_window_and_fast_region(self) -> None:
        memory = Memory()
        window, region = memory.window(), memory.fast_region()
        memory.access.invalidate(window.token.stag)
        memory.access.invalidate(number(region.remote))
        assert not window.valid
        assert not region.valid
        assert memory.region.windows == 0

    def test_twice(self) -> None:
        memory = Memory()
        stag = memory.window().token.stag
        memory.access.invalidate(stag)
        assert denied(lambda: memory.access.invalidate(stag)) is Denial.INVALID_TOKEN

    @pytest.mark.rules("R-INVAL-1")
    def test_normal_region(self) -> None:
        memory = Memory()
        assert denied(lambda: memory.access.invalidate(memory.remote)) is Denial.NOT_INVALIDATABLE
        assert memory.region.valid

    def test_windows_bound(self) -> None:
        memory = Memory()
        region = memory.fast_region()
        window = Window(memory.table, memory.pd, "mw")
        window.bind(region, 0x9000, 8, Right.REMOTE_READ, memory.qp)
        stag = number(region.remote)
        assert denied(lambda: memory.access.invalidate(stag)) is Denial.NOT_INVALIDATABLE
        window.invalidate()
        memory.access.invalidate(stag)

    @pytest.mark.rules("R-INVAL-1")
    def test_without_remote_rights(self) -> None:
        memory = Memory()
        stag = number(memory.fast_region(Right.LOCAL_WRITE).remote)
        assert denied(lambda: memory.access.invalidate(stag)) is Denial.NOT_INVALIDATABLE

    @pytest.mark.parametrize("rights", [Right.REMOTE_READ, Right.REMOTE_WRITE | Right.LOCAL_WRITE])
    def test_one_remote_right_is_enough(self, rights: Right) -> None:
        memory = Memory()
        memory.access.invalidate(number(memory.fast_region(rights).remote))

    def test_another_pd_or_qp(self) -> None:
        memory = Memory()
        window, region = memory.window(), memory.fast_region()
        foreign = memory.for_qp(memory.qp, ProtectionDomain("pd2"))
        assert denied(lambda: foreign.invalidate(number(region.remote))) is Denial.NOT_ASSOCIATED
        assert denied(lambda: memory.for_qp(object()).invalidate(window.token.stag)) is Denial.NOT_ASSOCIATED
        assert window.valid
        assert region.valid


def test_texts_never_show_a_whole_token() -> None:
    memory = Memory()
    stag = memory.remote
    for call in (
        lambda: memory.access.remote(stag ^ 1, BASE, 1, Right.REMOTE_READ),
        lambda: memory.access.local(stag, BASE, 1, write=False),
        lambda: memory.access.invalidate(stag),
    ):
        with pytest.raises(AccessDenied) as caught:
            call()
        assert f"{stag:x}" not in caught.value.text
        assert f"{stag ^ 1:x}" not in caught.value.text
