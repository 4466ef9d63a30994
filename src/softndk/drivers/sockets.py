"""TCP sockets: numeric addresses, options, source ports. Nothing is resolved, and nothing is known of who uses them."""

import errno
import ipaddress
import os
import socket
import struct
import sys
from contextlib import suppress
from dataclasses import dataclass
from typing import Final, cast

__all__ = [
    "Address",
    "TcpOptions",
    "choose_port_late",
    "connect_error",
    "new_socket",
    "numeric_address",
    "reserve",
    "segment_size",
    "set_options",
    "socket_address",
]

Address = tuple[str, int]

DEFAULT_MSS: Final = 1440
"""Where the system does not tell: Ethernet with IPv6."""
_IP_BIND_ADDRESS_NO_PORT: Final = 24
_IP_LOCAL_PORT_RANGE: Final = 51


@dataclass(frozen=True, slots=True, kw_only=True)
class TcpOptions:
    """keepalive_s: idle time before a silent peer is probed. user_timeout_s: how long sent data may stay
    unacknowledged or untransmitted. 0 leaves the system's defaults. dead_peer_timeout_s: how long a peer may leave
    retransmissions and probes unanswered; no option of the socket, `dead_peer` watches it.
    """

    keepalive_s: float = 0.0
    user_timeout_s: float = 0.0
    dead_peer_timeout_s: float = 0.0


def socket_address(address: Address) -> tuple[socket.AddressFamily, tuple[str, int] | tuple[str, int, int, int]]:
    """The socket module's form of a numeric `(host, port)`; the host may carry a scope: "fe80::1%eth0",
    "fe80::1%2".

    Raises: ValueError: not numeric, or no port. OSError (ENODEV): the scope names no interface of this
    machine.
    """
    host, port = cast("tuple[object, object]", address)
    if not isinstance(host, str) or not isinstance(port, int) or not 0 <= port <= 0xFFFF:
        raise ValueError(f"address {address!r}: must be (numeric host, port from 0 to 65535)")
    try:
        ip = ipaddress.ip_address(host)
    except ValueError:
        raise ValueError(f"address {address!r}: the host must be a numeric IPv4 or IPv6 address") from None
    if isinstance(ip, ipaddress.IPv4Address):
        return socket.AF_INET, (host, port)
    bare, _, scope = host.partition("%")
    return socket.AF_INET6, (bare, port, 0, _scope_id(scope))


def _scope_id(scope: str) -> int:
    if not scope:
        return 0
    if scope.isdecimal():
        return int(scope)
    try:
        return socket.if_nametoindex(scope)
    except OSError:
        raise OSError(errno.ENODEV, f"no network interface {scope!r}") from None


def numeric_address(name: tuple[str, int] | tuple[str, int, int, int]) -> Address:
    host, port = name[0], name[1]
    if len(name) == 4 and name[3] and "%" not in host:
        host = f"{host}%{_interface(name[3])}"
    return host, port


def _interface(scope_id: int) -> str:
    try:
        return socket.if_indextoname(scope_id)
    except OSError:
        return str(scope_id)


def reserve(address: Address) -> socket.socket:
    """A socket that keeps `address` for connections made with `shared`; close it to give the address back.

    Raises: ValueError: not numeric. OSError: in use, or not of this machine.
    """
    family, target = socket_address(address)
    sock = new_socket(family)
    try:
        sock.bind(target)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # after the bind: others in use are still refused
    except BaseException:
        sock.close()
        raise
    return sock


def choose_port_late(sock: socket.socket) -> None:
    """Have the system pick the source port when it connects: then only the pair of addresses must be new, and ports
    that rest after earlier connections can be used again.

    Deviation: it is a port from 49152 to 65535 (R-PORT-1) on Linux from 6.3 on; elsewhere one from the range that the
    system uses, which it tells nobody how to change.
    """
    if sys.platform == "linux":
        with suppress(OSError):
            sock.setsockopt(socket.IPPROTO_IP, _IP_BIND_ADDRESS_NO_PORT, 1)
        with suppress(OSError):
            sock.setsockopt(socket.IPPROTO_IP, _IP_LOCAL_PORT_RANGE, struct.pack("I", 65535 << 16 | 49152))


def new_socket(family: socket.AddressFamily) -> socket.socket:
    sock = socket.socket(family, socket.SOCK_STREAM)
    sock.setblocking(False)
    return sock


def connect_error(code: int, destination: Address, source: Address | None) -> OSError:
    """Why a connect failed at once, in the system's words; of a loopback address they say too little."""
    reason = os.strerror(code)
    if source is not None and _is_loopback(source) and not _is_loopback(destination):
        reason += f"; from {source[0]}, a loopback address, nothing outside can be reached: open the adapter on another"
    return OSError(code, reason)


def _is_loopback(address: Address) -> bool:
    return ipaddress.ip_address(address[0].partition("%")[0]).is_loopback


def set_options(sock: socket.socket, options: TcpOptions) -> None:
    if sock.family not in (socket.AF_INET, socket.AF_INET6):
        return
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    if options.user_timeout_s > 0 and hasattr(socket, "TCP_USER_TIMEOUT"):
        with suppress(OSError):
            milliseconds = max(1, round(options.user_timeout_s * 1000))
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, milliseconds)
    if options.keepalive_s <= 0:
        return
    idle = max(1, round(options.keepalive_s))
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    wanted = (
        ("TCP_KEEPIDLE", idle),
        ("TCP_KEEPINTVL", max(1, idle // 4)),
        ("TCP_KEEPCNT", 4),
    )
    for name, value in wanted:
        if hasattr(socket, name):
            with suppress(OSError):  # known by name, but not by this system
                sock.setsockopt(socket.IPPROTO_TCP, getattr(socket, name), value)


def segment_size(sock: socket.socket) -> int:
    if hasattr(socket, "TCP_MAXSEG"):
        with suppress(OSError):
            return sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_MAXSEG) or DEFAULT_MSS
    return DEFAULT_MSS
