"""Values of command line options: sizes, seconds, hosts and ports. Says what is wrong with one; knows no command."""

import math
import re
import socket
from typing import Any, Final

import click

from softndk import Address

__all__ = ["Octets", "Seconds", "local_address_for", "parse_target", "resolve"]

_UNITS: Final = {"": 1, "k": 1 << 10, "m": 1 << 20, "g": 1 << 30}
_SIZE: Final = re.compile(r"([0-9]{1,18})\s*([kmg]?)(?:i?b)?", re.IGNORECASE | re.ASCII)


def size_text(octets: int) -> str:
    """`octets` in the notation of the options: 1048576 is "1M"."""
    for unit in ("g", "m", "k"):
        if octets and octets % _UNITS[unit] == 0:
            return f"{octets // _UNITS[unit]}{unit.upper() if unit != 'k' else unit}"
    return str(octets)


class Octets(click.ParamType[int]):
    """A number of octets from `low` to `high`: 64, 64k (65,536), 1M (1,048,576), 1G."""

    name = "octets"

    def __init__(self, low: int, high: int) -> None:
        self.low = low
        self.high = high

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> int:
        if isinstance(value, int):
            return value
        match = _SIZE.fullmatch(value.strip())
        if match is None:
            self.fail(f"{value!r} is not a size; write 64, 64k, 1M or 1G", param, ctx)
        octets = int(match[1]) * _UNITS[match[2].lower()]
        if not self.low <= octets <= self.high:
            self.fail(f"{value} is outside {size_text(self.low)} to {size_text(self.high)}", param, ctx)
        return octets


class Seconds(click.ParamType[float]):
    """Seconds from 0, or from above 0, to one day."""

    name = "seconds"
    longest: Final = 86400.0

    def __init__(self, *, zero: bool) -> None:
        self.zero = zero

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> float:
        try:
            seconds = float(value)
        except ValueError:
            self.fail(f"{value!r} is not a number of seconds", param, ctx)
        if not (math.isfinite(seconds) and 0 <= seconds <= self.longest) or (seconds == 0 and not self.zero):
            self.fail(f"{value} is outside {'0' if self.zero else 'more than 0'} to {self.longest:g}", param, ctx)
        return seconds


def parse_target(text: str, port: int | None, *, default: int | None = None) -> tuple[str, int]:
    """Host and port from HOST:PORT, [HOST]:PORT, or HOST and the option `--port`.

    A host with two colons or more is an IPv6 address without a port. default: the port where neither has one.
    Raises: click.UsageError.
    """
    bracketed = re.fullmatch(r"\[([^\[\]]+)\](?::([0-9]+))?", text, re.ASCII)
    if bracketed is not None:
        host, tail = bracketed[1], bracketed[2]
    elif text.count(":") == 1:
        host, tail = text.split(":")
    else:
        host, tail = text, None
    if not host or any(mark in host for mark in "[]/ "):
        raise click.UsageError(f"{text!r} is not HOST:PORT")
    if tail is None:
        if port is None:
            port = default
        if port is None:
            raise click.UsageError(f"{text!r} has no port; write HOST:PORT, [HOST]:PORT or add --port")
        return host, _target_port(port)
    if port is not None:
        raise click.UsageError(f"{text!r} has a port, and so has --port")
    if not (tail.isascii() and tail.isdigit()):
        raise click.UsageError(f"{text!r}: {tail!r} is not a port")
    return host, _target_port(int(tail[:9]))


def _target_port(port: int) -> int:
    if not 1 <= port <= 65535:
        raise click.UsageError(f"port {port} is outside 1 to 65535")
    return port


def resolve(host: str, port: int) -> list[Address]:
    """The numeric addresses of a host, in the machine's order of preference. Raises: click.ClickException."""
    try:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    except (OSError, UnicodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "not a name"
        raise click.ClickException(f"{host}: {reason}") from None
    addresses = [
        (_scoped(name), port) for family, _, _, _, name in found if family in (socket.AF_INET, socket.AF_INET6)
    ]
    if not addresses:
        raise click.ClickException(f"{host}: has neither an IPv4 nor an IPv6 address")
    return list(dict.fromkeys(addresses))


def local_address_for(destination: Address) -> str | None:
    """The own address from which packets to `destination` leave; None: there is no route. Nothing is sent."""
    host, port = destination
    family, _, _, _, name = socket.getaddrinfo(host, port, type=socket.SOCK_DGRAM, flags=socket.AI_NUMERICHOST)[0]
    with socket.socket(family, socket.SOCK_DGRAM) as probe:
        try:
            probe.connect(name)
        except OSError:
            return None
        return _scoped(probe.getsockname())


def _scoped(name: tuple[Any, ...]) -> str:
    """The host of a socket's name, with its scope where it has one."""
    host = str(name[0])
    if len(name) == 4 and name[3] and "%" not in host:
        return f"{host}%{socket.if_indextoname(name[3])}"
    return host
