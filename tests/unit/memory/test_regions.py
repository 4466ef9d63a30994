"""States of regions and windows (spec table of memory states), and what their tokens do in each."""

import pytest

from softndk.errors import AccessViolation, InvalidState, NdkError
from softndk.memory.access import AccessDenied, MemoryAccess
from softndk.memory.buffers import Mdl
from softndk.memory.logical import LogicalSpace
from softndk.memory.regions import FastRegion, Region, Window
from softndk.memory.tokens import ProtectionDomain, Right, TokenEntry, TokenTable
from softndk.status import Status

ALL = Right.LOCAL_WRITE | Right.REMOTE_READ | Right.REMOTE_WRITE
REMOTE = Right.REMOTE_READ
PD = ProtectionDomain("pd1")
QP = object()


def memory(size: int = 64) -> Mdl:
    return Mdl(bytearray(size), address=0x1000)


def registered(table: TokenTable, rights: Right = ALL, size: int = 64) -> Region:
    region = Region(table, PD, "mr1")
    region.register(0x1000, memory(size).byte_range(size), rights)
    return region


def fast(table: TokenTable, rights: Right = ALL) -> FastRegion:
    region = FastRegion(table, PD, "frmr1")
    region.initialize(4, True)
    region.fast_register(0x1000, memory().byte_range(64), rights)
    return region


def bound(table: TokenTable, region: Region | FastRegion, *, name: str = "mw1") -> Window:
    window = Window(table, PD, name)
    window.bind(region, region.base, 16, REMOTE, QP)
    return window


def tokens(region: Region | FastRegion) -> tuple[TokenEntry, TokenEntry]:
    assert region.local is not None
    assert region.remote is not None
    return region.local, region.remote


def works(table: TokenTable, stag: int) -> bool:
    """Whether a peer gets at the first octet."""
    try:
        MemoryAccess(table, LogicalSpace(), PD, QP).remote(stag, 0x1000, 1, Right.REMOTE_READ)
    except AccessDenied:
        return False
    return True


def failure(call: object, *arguments: object) -> NdkError:
    assert callable(call)
    with pytest.raises(NdkError) as caught:
        call(*arguments)
    return caught.value


class TestRegion:
    @pytest.mark.rules("R-REGMR-6")
    def test_registration_makes_two_different_tokens(self) -> None:
        """R-REGMR-6."""
        table = TokenTable()
        region = Region(table, PD, "mr1")
        assert not region.valid
        assert (region.local, region.remote) == (None, None)
        region.register(0x1000, memory().byte_range(64), ALL)
        local, remote = tokens(region)
        assert local.stag != remote.stag
        assert region.valid
        assert (region.base, region.length, region.rights) == (0x1000, 64, ALL)
        assert works(table, remote.stag)

    @pytest.mark.rules("R-REGMR-7")
    def test_one_registration_at_a_time(self) -> None:
        """R-REGMR-7."""
        region = registered(TokenTable())
        before = tokens(region)
        error = failure(region.register, 0x2000, memory().byte_range(64), ALL)
        assert error.status is Status.INVALID_DEVICE_REQUEST
        assert tokens(region) == before
        assert region.base == 0x1000

    @pytest.mark.rules("R-DEREG-2")
    def test_deregistration_kills_both_tokens(self) -> None:
        """R-DEREG-2."""
        table = TokenTable()
        region = registered(table)
        local, remote = tokens(region)
        region.deregister()
        assert not works(table, remote.stag)
        assert table.find(local.stag) is None
        assert table.find(remote.stag) is None
        assert len(table) == 0

    def test_deregistration_gives_the_memory_back(self) -> None:
        """The buffer can be resized again."""
        buffer = bytearray(64)
        region = Region(TokenTable(), PD, "mr1")
        region.register(0x1000, Mdl(buffer, address=0x1000).byte_range(64), ALL)
        with pytest.raises(BufferError):
            buffer.extend(b"x")
        region.deregister()
        buffer.extend(b"x")

    @pytest.mark.rules("R-DEREG-3", "R-TOKEN-3")
    def test_a_new_registration_has_new_tokens(self) -> None:
        """R-DEREG-3, R-TOKEN-3."""
        table = TokenTable()
        region = registered(table)
        before = {entry.stag for entry in tokens(region)}
        region.deregister()
        region.register(0x1000, memory().byte_range(64), ALL)
        assert not before & {entry.stag for entry in tokens(region)}

    @pytest.mark.rules("R-DEREG-1")
    def test_deregistration_of_what_is_not_registered(self) -> None:
        """R-DEREG-1."""
        region = Region(TokenTable(), PD, "mr1")
        assert failure(region.deregister).status is Status.INVALID_DEVICE_REQUEST
        region.register(0x1000, memory().byte_range(64), ALL)
        region.deregister()
        assert failure(region.deregister).status is Status.INVALID_DEVICE_REQUEST

    @pytest.mark.rules("R-INVAL-4")
    def test_deregistration_with_windows_bound(self) -> None:
        """R-INVAL-4."""
        table = TokenTable()
        region = registered(table)
        first, second = bound(table, region), bound(table, region, name="mw2")
        assert failure(region.deregister).status is Status.DEVICE_BUSY
        first.invalidate()
        assert failure(region.deregister).status is Status.DEVICE_BUSY
        assert works(table, tokens(region)[1].stag)
        second.invalidate()
        region.deregister()

    @pytest.mark.rules("R-CLOSE-12")
    def test_destroying(self) -> None:
        """R-CLOSE-12: closing a registered region deregisters it."""
        table = TokenTable()
        region = registered(table)
        region.destroy()
        region.destroy()
        assert not region.valid
        assert len(table) == 0

    @pytest.mark.rules("R-REGMR-7")
    def test_the_same_memory_twice(self) -> None:
        """R-REGMR-7: through different regions, with different rights."""
        table, buffer = TokenTable(), bytearray(64)
        stags = []
        for rights in (Right.NONE, ALL):
            region = Region(table, PD, "mr")
            region.register(0x1000, Mdl(buffer, address=0x1000).byte_range(64), rights)
            stags.append(tokens(region)[1].stag)
        assert [works(table, stag) for stag in stags] == [False, True]


class TestFastRegion:
    def test_the_states(self) -> None:
        table = TokenTable()
        region = FastRegion(table, PD, "frmr1")
        assert region.local is None
        region.initialize(4, True)
        assert not region.valid
        region.fast_register(0x1000, memory().byte_range(64), ALL)
        assert region.valid
        region.invalidate()
        assert not region.valid
        region.fast_register(0x5000, memory(8).byte_range(8), REMOTE)
        assert (region.valid, region.base, region.length, region.rights) == (True, 0x5000, 8, REMOTE)

    @pytest.mark.rules("R-TOK-4", "A-7")
    def test_its_tokens_never_change(self) -> None:
        """R-TOK-4, A-7: known after initialisation, not 0, the same for ever."""
        table = TokenTable()
        region = FastRegion(table, PD, "frmr1")
        region.initialize(4, True)
        before = tokens(region)
        assert 0 not in {entry.stag for entry in before}
        for _ in range(3):
            region.fast_register(0x1000, memory().byte_range(64), ALL)
            assert works(table, before[1].stag)
            region.invalidate()
            assert not works(table, before[1].stag)
        region.initialize(8, False)
        assert tokens(region) == before

    @pytest.mark.rules("A-17")
    def test_initialising_again_replaces_the_limit(self) -> None:
        """A-17: while invalid."""
        region = FastRegion(TokenTable(), PD, "frmr1")
        region.initialize(4, True)
        region.initialize(8, False)
        assert (region.page_limit, region.remote_access) == (8, False)
        region.fast_register(0x1000, memory().byte_range(64), Right.NONE)
        assert failure(region.initialize, 16, True).status is Status.INVALID_DEVICE_REQUEST
        assert region.page_limit == 8

    @pytest.mark.rules("R-FREG-6")
    def test_registering_what_is_registered(self) -> None:
        """R-FREG-6."""
        region = fast(TokenTable())
        error = failure(region.fast_register, 0x9000, memory().byte_range(64), ALL)
        assert error.status is Status.INVALID_DEVICE_REQUEST
        assert region.base == 0x1000
        assert failure(region.check_fast_register).status is Status.INVALID_DEVICE_REQUEST

    @pytest.mark.rules("A-9", "R-INV-5")
    def test_invalidating_what_is_invalid(self) -> None:
        """A-9, R-INV-5."""
        region = fast(TokenTable())
        region.check_invalidate()
        region.invalidate()
        assert failure(region.check_invalidate).status is Status.INVALID_DEVICE_REQUEST
        assert failure(region.invalidate).status is Status.INVALID_DEVICE_REQUEST

    @pytest.mark.rules("R-INVAL-4")
    def test_invalidating_with_windows_bound(self) -> None:
        """R-INVAL-4; both tokens know of the windows."""
        table = TokenTable()
        region = fast(table)
        window = bound(table, region)
        assert [entry.bound_windows for entry in tokens(region)] == [1, 1]
        assert failure(region.invalidate).status is Status.INVALID_DEVICE_REQUEST
        assert region.valid
        window.invalidate()
        assert [entry.bound_windows for entry in tokens(region)] == [0, 0]
        region.invalidate()

    @pytest.mark.rules("R-INV-3")
    def test_invalidating_gives_the_memory_back(self) -> None:
        """R-INV-3, -6."""
        buffer = bytearray(64)
        region = FastRegion(TokenTable(), PD, "frmr1")
        region.initialize(1, True)
        region.fast_register(0x1000, Mdl(buffer, address=0).byte_range(64), ALL)
        region.invalidate()
        buffer.extend(b"x")

    @pytest.mark.rules("R-READ-5")
    def test_both_tokens_end_it(self) -> None:
        """The local one for a read with local invalidation (R-READ-5), the remote one for the peer."""
        for which in (0, 1):
            region = fast(TokenTable())
            invalidate = tokens(region)[which].invalidate
            assert invalidate is not None
            invalidate()
            assert not region.valid

    @pytest.mark.parametrize("valid", [True, False])
    def test_destroying(self, valid: bool) -> None:
        table = TokenTable()
        region = fast(table)
        if not valid:
            region.invalidate()
        region.destroy()
        assert len(table) == 0
        FastRegion(table, PD, "never initialised").destroy()


class TestWindow:
    @pytest.mark.rules("R-MW-1", "R-BIND-5")
    def test_the_states(self) -> None:
        """R-MW-1, R-BIND-5."""
        table = TokenTable()
        region = registered(table)
        window = Window(table, PD, "mw1")
        assert not window.valid
        assert not works(table, window.token.stag)
        window.bind(region, 0x1000, 16, REMOTE, QP)
        assert window.valid
        assert window.region is region
        assert works(table, window.token.stag)
        window.invalidate()
        assert not window.valid
        assert window.region is None
        assert not works(table, window.token.stag)
        window.bind(region, 0x1010, 48, REMOTE, QP)
        assert window.valid

    def test_rebinding_needs_an_invalidation(self) -> None:
        table = TokenTable()
        region = registered(table)
        window = bound(table, region)
        assert failure(window.bind, region, 0x1000, 8, REMOTE, QP).status is Status.INVALID_DEVICE_REQUEST
        assert region.windows == 1

    @pytest.mark.rules("R-BIND-2")
    @pytest.mark.parametrize(
        ("base", "length"), [(0xFFF, 1), (0x1000, 65), (0x1040, 1), (0xFFF, 66), (0x103F, 2), (0, 1 << 60)]
    )
    def test_it_lies_inside_its_region(self, base: int, length: int) -> None:
        """R-BIND-2."""
        table = TokenTable()
        region = registered(table)
        window = Window(table, PD, "mw1")
        error = failure(window.bind, region, base, length, REMOTE, QP)
        assert isinstance(error, AccessViolation)
        assert not window.valid
        assert region.windows == 0

    @pytest.mark.parametrize(("base", "length"), [(0x1000, 64), (0x1000, 1), (0x103F, 1)])
    def test_up_to_the_edges(self, base: int, length: int) -> None:
        table = TokenTable()
        window = Window(table, PD, "mw1")
        window.bind(registered(table), base, length, REMOTE, QP)
        assert (window.token.base, window.token.length) == (base, length)

    @pytest.mark.parametrize("rights", [Right.REMOTE_WRITE, ALL])
    def test_remote_write_needs_local_write_on_the_region(self, rights: Right) -> None:
        table = TokenTable()
        window = Window(table, PD, "mw1")
        error = failure(window.bind, registered(table, Right.REMOTE_READ), 0x1000, 8, rights, QP)
        assert error.status is Status.ACCESS_VIOLATION
        window.bind(registered(table, Right.LOCAL_WRITE), 0x1000, 8, rights, QP)

    @pytest.mark.rules("R-BIND-4")
    def test_remote_read_needs_no_right_on_the_region(self) -> None:
        """R-BIND-4."""
        table = TokenTable()
        window = Window(table, PD, "mw1")
        window.bind(registered(table, Right.NONE), 0x1000, 8, Right.REMOTE_READ, QP)
        assert works(table, window.token.stag)

    @pytest.mark.rules("A-6")
    def test_a_region_that_is_not_registered(self) -> None:
        """A-6."""
        table = TokenTable()
        window = Window(table, PD, "mw1")
        error = failure(window.bind, Region(table, PD, "mr"), 0, 1, REMOTE, QP)
        assert error.status is Status.ACCESS_VIOLATION
        region = fast(table)
        region.invalidate()
        assert failure(window.bind, region, 0x1000, 1, REMOTE, QP).status is Status.ACCESS_VIOLATION

    @pytest.mark.rules("A-9")
    def test_invalidating_what_is_invalid(self) -> None:
        """A-9."""
        window = Window(TokenTable(), PD, "mw1")
        assert isinstance(failure(window.invalidate), InvalidState)
        assert failure(window.check_invalidate).status is Status.INVALID_DEVICE_REQUEST

    @pytest.mark.rules("A-7")
    def test_its_token_stays_the_same(self) -> None:
        """A-7."""
        table = TokenTable()
        region = registered(table)
        window = bound(table, region)
        stag = window.token.stag
        window.invalidate()
        window.bind(region, 0x1000, 8, REMOTE, QP)
        assert window.token.stag == stag

    @pytest.mark.rules("R-MW-4")
    def test_the_region_hears_of_the_last_one(self) -> None:
        """R-MW-4: until then its close has to wait."""
        table = TokenTable()
        region = registered(table)
        heard: list[int] = []
        region.on_idle = lambda: heard.append(region.windows)
        first, second = bound(table, region), bound(table, region, name="mw2")
        first.invalidate()
        assert heard == []
        second.destroy()
        assert heard == [0]

    def test_destroying(self) -> None:
        table = TokenTable()
        window = Window(table, PD, "mw1")
        window.destroy()
        assert len(table) == 0


@pytest.mark.parametrize("make", [Region, FastRegion, Window])
def test_the_object_hears_when_nothing_queued_can_change_it_any_more(
    make: type[Region] | type[FastRegion] | type[Window],
) -> None:
    """Its close waits for that."""
    item = make(TokenTable(), PD, "x")
    item.posted += 1
    item.posted -= 1
    heard: list[int] = []
    item.on_idle = lambda: heard.append(item.posted)
    item.posted += 2
    item.posted -= 1
    assert heard == []
    item.posted -= 1
    assert heard == [0]


def test_names_follow() -> None:
    """They stand in every message about the object."""
    table = TokenTable()
    region = Region(table, PD, "mr1")
    region.rename("first")
    region.register(0x1000, memory().byte_range(64), ALL)
    region.rename("second")
    window = Window(table, PD, "mw1")
    window.rename("mw 'third'")
    assert [entry.owner for entry in tokens(region)] == ["second", "second"]
    assert window.token.owner == "mw 'third'"
    assert "second" in failure(region.register, 0, memory().byte_range(8), ALL).text
    assert "mw 'third'" in failure(window.invalidate).text
