"""A program for a network namespace of its own: two connected ends there, and the loopback interface is switched off.

Run by test_dead_peers.py, with `unshare`. That is what a cable is like that has been pulled out: nothing arrives, and
there is not even a route any more.
"""

import fcntl
import socket
import struct
import sys

from softndk import IoTimeout, IwarpConfig, Status
from softndk.testing import pair
from tests.ndk.ends import PATIENCE_S, take

_SIOCGIFFLAGS, _SIOCSIFFLAGS, _IFF_UP = 0x8913, 0x8914, 1
_IFREQ = struct.Struct("16sH14x")


def switch(*, on: bool) -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        name, flags = _IFREQ.unpack(fcntl.ioctl(sock, _SIOCGIFFLAGS, _IFREQ.pack(b"lo", 0)))
        flags = flags | _IFF_UP if on else flags & ~_IFF_UP
        fcntl.ioctl(sock, _SIOCSIFFLAGS, _IFREQ.pack(name, flags))


def pulled() -> None:
    """Who has sent something misses the answer; who has not, finds it by keepalive."""
    with pair(config=IwarpConfig(keepalive_s=0, dead_peer_timeout_s=2), peer_config=IwarpConfig(keepalive_s=1)) as (
        a,
        b,
    ):
        a.qp.receive(a.mr[0:8])
        switch(on=False)
        a.qp.send(b"is anybody there?")
        error = a.connector.disconnected.result(PATIENCE_S).error
        assert isinstance(error, IoTimeout), error
        assert "dead_peer_timeout_s=2" in str(error), error
        assert [result.status for result in take(a.cq, 2)] == [Status.SUCCESS, Status.CANCELLED]
        assert isinstance(b.connector.disconnected.result(PATIENCE_S).error, IoTimeout)
        switch(on=True)


def put_in_again() -> None:
    """An outage that is far shorter than the limit: what was sent meanwhile arrives."""
    with pair() as (a, b):
        b.qp.receive(b.mr[0:64])
        switch(on=False)
        a.qp.send(b"late, but here")
        assert take(a.cq, 1)[0].status is Status.SUCCESS
        switch(on=True)
        (arrived,) = take(b.cq, 1)
        assert (arrived.status, bytes(b.mr.view[:14])) == (Status.SUCCESS, b"late, but here")


if __name__ == "__main__":
    switch(on=True)
    {"pulled": pulled, "put in again": put_in_again}[sys.argv[1]]()
