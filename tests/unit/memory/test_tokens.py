"""Tokens: numbers that nobody can guess, that are never 0, and that come back late (R-TOKEN, RFC 5042 6.2)."""

import itertools
from collections.abc import Callable, Iterator

import pytest

from softndk.memory.buffers import ByteRange
from softndk.memory.tokens import RESTING_INDICES, ProtectionDomain, Right, Scope, TokenTable, masked

PD = ProtectionDomain("pd")


def drawing(*numbers: int) -> Callable[[int], int]:
    """A generator of "random" numbers that gives these; it checks that they are asked for in range."""
    left: Iterator[int] = iter(numbers)

    def draw(bound: int) -> int:
        number = next(left)
        assert 0 <= number < bound
        return number

    return draw


def test_index_and_key() -> None:
    entry = TokenTable(drawing(0x123455, 0x67)).create(Scope.WINDOW, PD, "mw")
    assert entry.stag == 0x12345667


@pytest.mark.rules("R-TOKEN-1")
def test_never_zero_even_with_the_lowest_numbers() -> None:
    """STag 0 is the local all-memory tag."""
    assert TokenTable(drawing(0, 0)).create(Scope.WINDOW, PD, "mw").stag == 0x100
    assert TokenTable(drawing(0, 0)).draw_private() == 0x100


def test_the_highest_number_fits_32_bits() -> None:
    assert TokenTable(drawing((1 << 24) - 2, 255)).create(Scope.WINDOW, PD, "mw").stag == 0xFFFFFFFF


def test_an_index_in_use_is_not_given_twice() -> None:
    table = TokenTable(drawing(7, 1, 7, 8, 2))
    assert table.create(Scope.WINDOW, PD, "a").stag == 0x801
    assert table.create(Scope.WINDOW, PD, "b").stag == 0x902


@pytest.mark.rules("R-TOKEN-3")
def test_the_default_numbers_are_spread_and_different() -> None:
    """Both parts are drawn at random: no counter, no pattern in the key."""
    table = TokenTable()
    stags = [table.create(Scope.WINDOW, PD, "mw").stag for _ in range(2000)]
    assert len(set(stags)) == len(stags)
    assert len({stag >> 8 for stag in stags}) == len(stags)
    assert len({stag & 0xFF for stag in stags}) > 200
    assert max(stags) - min(stags) > 1 << 31
    steps = {after - before for before, after in itertools.pairwise(stags)}
    assert len(steps) > 1900


@pytest.mark.rules("R-TOKEN-3")
def test_a_freed_index_rests() -> None:
    table = TokenTable(drawing(7, 1, 7, 8, 2))
    first = table.create(Scope.WINDOW, PD, "a")
    table.remove(first)
    second = table.create(Scope.WINDOW, PD, "b")
    assert second.stag >> 8 == 9
    assert table.find(first.stag) is None


def test_it_may_come_back_after_thousands_of_others() -> None:
    numbers = [7, 1]
    for index in range(100, 100 + RESTING_INDICES):
        numbers += [index, 1]
    table = TokenTable(drawing(*numbers, 7, 2))
    table.remove(table.create(Scope.WINDOW, PD, "first"))
    for _ in range(RESTING_INDICES):
        table.remove(table.create(Scope.WINDOW, PD, "other"))
    assert table.create(Scope.WINDOW, PD, "again").stag == 0x802


def test_many_regions_never_share_a_number_soon() -> None:
    table = TokenTable()
    recent: list[int] = []
    for _ in range(3000):
        entry = table.create(Scope.WINDOW, PD, "mw")
        recent.append(entry.stag >> 8)
        table.remove(entry)
    assert len(set(recent)) == len(recent)
    assert len(table) == 0


def test_private_numbers_name_nothing() -> None:
    table = TokenTable(drawing(7, 1, 7, 8, 3))
    table.create(Scope.WINDOW, PD, "a")
    private = table.draw_private()
    assert private == 0x903
    assert table.find(private) is None
    assert len(table) == 1


def test_find_wants_the_whole_number() -> None:
    table = TokenTable()
    entry = table.create(Scope.WINDOW, PD, "mw")
    assert table.find(entry.stag) is entry
    assert table.find(entry.stag ^ 1) is None
    assert table.has_index(entry.stag ^ 1)
    assert not table.has_index(entry.stag ^ 0x100)


def test_entries_of_a_domain() -> None:
    table, other = TokenTable(), ProtectionDomain("other")
    mine = table.create(Scope.WINDOW, PD, "a")
    table.create(Scope.WINDOW, other, "b")
    assert list(table.entries_of(PD)) == [mine]


def test_a_token_is_born_invalid_and_can_be_opened_and_closed() -> None:
    entry = TokenTable().create(Scope.WINDOW, PD, "mw")
    assert not entry.valid
    memory = ByteRange([memoryview(bytearray(64))])
    entry.open(0x1000, memory, Right.REMOTE_READ, memory_offset=16, length=32)
    assert (entry.valid, entry.base, entry.length, entry.memory_offset) == (True, 0x1000, 32, 16)
    entry.stream = object()
    entry.close()
    assert (entry.valid, entry.memory, entry.rights, entry.stream) == (False, None, Right.NONE, None)


def test_removing_closes() -> None:
    table = TokenTable()
    entry = table.create(Scope.WINDOW, PD, "mw")
    entry.open(0, ByteRange([memoryview(bytearray(8))]), Right.REMOTE_READ, length=8)
    table.remove(entry)
    assert not entry.valid


@pytest.mark.rules("R-MW-3", "R-PRIV-3")
@pytest.mark.parametrize("scope", Scope)
def test_which_tokens_are_local(scope: Scope) -> None:
    """A window has a remote token only (R-MW-3); the privileged token never gives remote access (R-PRIV-3)."""
    entry = TokenTable().create(scope, PD, "x")
    assert entry.is_local == (scope in (Scope.REGION_LOCAL, Scope.FAST_LOCAL, Scope.PRIVILEGED))


def test_tokens_are_never_printed_whole() -> None:
    assert masked(0x12345678) == "0x1234****"
    assert masked(0) == "0x0000****"
