"""Addresses that a program gives: numeric, and in one spelling, so that they can be compared."""

import ipaddress
import socket

from softndk.errors import InvalidParameter
from softndk.flags import Address

__all__ = ["check_address", "one_spelling", "source_of"]


def check_address(what: str, address: Address) -> Address:
    """A numeric (host, port) in one spelling, or InvalidParameter. Nothing is resolved."""
    try:
        host, port = address
        if isinstance(port, bool) or not isinstance(port, int) or not 0 <= port <= 65535:
            raise ValueError("port")
        return one_spelling(host), port
    except (TypeError, ValueError):
        raise InvalidParameter(
            f"{what} {address!r}: give (numeric IPv4 or IPv6 address, port 0 to 65535); nothing is resolved"
            " [INVALID_PARAMETER, R-CONN-1]"
        ) from None


def one_spelling(host: str) -> str:
    """The usual spelling of a numeric IP address, a scope by the interface's name. Raises ValueError: not numeric."""
    if not isinstance(host, str):
        raise ValueError(f"{host!r} is no text")
    ip = ipaddress.ip_address(host)
    if isinstance(ip, ipaddress.IPv6Address) and ip.scope_id is not None and ip.scope_id.isdecimal():
        bare = str(ip).partition("%")[0]
        try:
            return f"{bare}%{socket.if_indextoname(int(ip.scope_id))}"
        except (OSError, OverflowError):  # no such interface; using it will say so
            return str(ip)
    return str(ip)


def source_of(host: str) -> str:
    """Who counts as one source of connections: an IPv4 address, the /64 network of an IPv6 one, which one host may own."""
    ip = ipaddress.ip_address(host.partition("%")[0])
    return str(ip) if ip.version == 4 else str(ipaddress.IPv6Network((int(ip), 64), strict=False))
