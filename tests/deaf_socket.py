"""A TCP socket whose machine seems to be dead: nothing that is sent to it arrives, so nothing is answered. Linux, no root."""

import ctypes
import os
import socket
import struct
import time

PATIENCE_S = 30.0 * float(os.environ.get("SOFTNDK_TIMEOUT_SCALE", "1"))
_SO_ATTACH_FILTER = 26
_DROP_ALL = ctypes.create_string_buffer(struct.pack("HBBI", 0x06, 0, 0, 0), 8)  # the one instruction "return 0"


def deafen(sock: socket.socket) -> None:
    """Have the kernel drop everything that arrives from now on. What `sock` has sent itself is acknowledged before: its
    kernel, which lives, would send it again and again.
    """
    deadline = time.monotonic() + PATIENCE_S
    while _unacknowledged(sock):
        assert time.monotonic() < deadline
    program = struct.pack("HxxxxxxP", 1, ctypes.addressof(_DROP_ALL))
    sock.setsockopt(socket.SOL_SOCKET, _SO_ATTACH_FILTER, program)


def _unacknowledged(sock: socket.socket) -> int:
    """Packets, from the kernel."""
    (packets,) = struct.unpack_from("I", sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 104), 24)
    assert isinstance(packets, int)
    return packets
