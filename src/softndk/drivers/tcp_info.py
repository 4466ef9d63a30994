"""What Linux knows of a TCP connection's silence: what is unacknowledged, what was sent again, when the peer was last heard.

Reads numbers only; what they mean for the connection is judged elsewhere (`dead_peer`).
"""

import socket
import struct
import sys
from dataclasses import dataclass
from typing import Final

if sys.platform == "linux":
    import fcntl
    import termios

__all__ = ["CAN_READ", "TcpInfo", "read_tcp_info"]

CAN_READ: Final = sys.platform == "linux"
"""Whether this system tells. Others have no TCP_INFO, or another one."""
_FORMAT: Final = struct.Struct("=2x2B48x2I")
"""The beginning of `struct tcp_info`: tcpi_retransmits, tcpi_probes; tcpi_last_data_recv and tcpi_last_ack_recv, both in
milliseconds.
"""


@dataclass(frozen=True, slots=True)
class TcpInfo:
    """outstanding_octets: given to TCP and not acknowledged, those included that could not be sent yet; a FIN counts as
    one. unanswered: how often TCP has sent some of them again, or has probed a closed window, since the peer's last
    acknowledgement. silent_s: seconds since the peer's last segment, with or without data.
    """

    outstanding_octets: int
    unanswered: int
    silent_s: float


def read_tcp_info(sock: socket.socket) -> TcpInfo | None:
    """Ask the kernel; None: it does not tell. With nothing outstanding the rest is not asked for and 0."""
    if sys.platform != "linux":
        return None
    try:
        (outstanding,) = struct.unpack("i", fcntl.ioctl(sock, termios.TIOCOUTQ, bytes(4)))
        if not outstanding:
            return TcpInfo(0, 0, 0.0)
        data = sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, _FORMAT.size)
    except OSError:
        return None
    return parse(outstanding, data)


def parse(outstanding_octets: int, data: bytes) -> TcpInfo | None:
    """`data`: the beginning of `struct tcp_info`; None: too little of it."""
    if len(data) < _FORMAT.size:
        return None
    retransmits, probes, data_ms, ack_ms = _FORMAT.unpack_from(data)
    return TcpInfo(outstanding_octets, retransmits + probes, min(data_ms, ack_ms) / 1000)
