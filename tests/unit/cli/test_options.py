"""Sizes, hosts and ports as people write them."""

import click
import pytest
from hypothesis import given
from hypothesis import strategies as st

from softndk.cli.options import Octets, local_address_for, parse_target, resolve, size_text
from softndk.flags import address_text

SIZE = Octets(1, 1 << 40)


@pytest.mark.parametrize(
    ("text", "octets"),
    [
        ("1", 1),
        ("64", 64),
        (" 64 ", 64),
        ("64k", 65536),
        ("64K", 65536),
        ("64kB", 65536),
        ("64KiB", 65536),
        ("1M", 1 << 20),
        ("2 g", 2 << 30),
        ("100b", 100),
    ],
)
def test_sizes(text: str, octets: int) -> None:
    assert SIZE.convert(text, None, None) == octets


@pytest.mark.parametrize("text", ["", "k", "-1", "+1", "1.5k", "1e3", "0x10", "1T", "1 2", "\u0661", "1" * 19])
def test_what_is_no_size(text: str) -> None:
    with pytest.raises(click.BadParameter):
        SIZE.convert(text, None, None)


@given(st.integers(1, 1 << 40))
def test_a_size_as_text_is_that_size(octets: int) -> None:
    assert SIZE.convert(size_text(octets), None, None) == octets


@pytest.mark.parametrize(("octets", "text"), [(0, "0"), (64, "64"), (65536, "64k"), (16 << 20, "16M"), (1 << 30, "1G")])
def test_sizes_as_text(octets: int, text: str) -> None:
    assert size_text(octets) == text


@pytest.mark.parametrize(
    ("text", "port", "found"),
    [
        ("127.0.0.1:4711", None, ("127.0.0.1", 4711)),
        ("127.0.0.1", 4711, ("127.0.0.1", 4711)),
        ("[::1]:4711", None, ("::1", 4711)),
        ("[::1]", 4711, ("::1", 4711)),
        ("::1", 4711, ("::1", 4711)),
        ("fe80::1%eth0", 1, ("fe80::1%eth0", 1)),
        ("[fe80::1%eth0]:65535", None, ("fe80::1%eth0", 65535)),
        ("rnic.example:1", None, ("rnic.example", 1)),
    ],
)
def test_targets(text: str, port: int | None, found: tuple[str, int]) -> None:
    assert parse_target(text, port) == found


@pytest.mark.parametrize(
    ("text", "port"),
    [
        ("", 1),
        (":1", None),
        ("host:", None),
        ("[]:1", None),
        ("[::1]1", 1),
        ("a b", 1),
        ("host:1", 1),
        ("host:0", None),
    ],
)
def test_what_is_no_target(text: str, port: int | None) -> None:
    with pytest.raises(click.UsageError):
        parse_target(text, port)


@given(st.text(max_size=20))
def test_any_text_is_a_target_or_wrong_usage(text: str) -> None:
    try:
        host, port = parse_target(text, None)
    except click.UsageError:
        return
    assert host
    assert 1 <= port <= 65535


@pytest.mark.parametrize("host", ["127.0.0.1", "::1"])
def test_a_numeric_address_is_itself(host: str) -> None:
    assert resolve(host, 4711) == [(host, 4711)]
    assert parse_target(address_text((host, 4711)), None) == (host, 4711)


def test_the_own_address_towards_this_machine() -> None:
    assert local_address_for(("127.0.0.1", 1)) == "127.0.0.1"
    assert local_address_for(("::1", 1)) == "::1"


def test_no_route() -> None:
    assert local_address_for(("240.0.0.1", 1)) in (None, *_all_own_addresses())


def _all_own_addresses() -> list[str]:
    """A machine with a default route has one towards anywhere."""
    found = local_address_for(("192.0.2.1", 1))
    return [] if found is None else [found]
