"""The two connections of perftest with `-R`: one on which both sides exchange parameters, one for what is measured.

On the first one the client sends and the server answers with a message of the same length: a version, three numbers,
then the sides' memory and barriers in turn. How many there are depends on the test. Taken from what the programs of
perftest 4.5 send to each other; nothing of it is documented.
"""

import struct
import threading
from dataclasses import dataclass
from typing import Final, Self

from softndk import NdkError, RemoteToken
from tests.interop.peer import PATIENCE_S, Peer

__all__ = ["Barriers", "Destination", "Mirror", "exchange_start"]

_DESTINATION: Final = struct.Struct(">5I4xQ16s2I")
_NUMBERS: Final = (b"\0\0\x10\0", b"\0\0\0\x40", b"3\0")
"""The page size, the size of a cache line, and the MTU as a digit."""
_NOTHING: Final = bytes(_DESTINATION.size)
_REPORT: Final = bytes(8)


@dataclass(frozen=True, slots=True)
class Destination:
    """A side's memory. reads: how many reads it takes at once."""

    token: RemoteToken
    address: int
    reads: int = 1

    def emit(self) -> bytes:
        return _DESTINATION.pack(0, self.reads, 1, 0, self.token, self.address, bytes(16), 0, 0)

    @classmethod
    def parse(cls, data: bytes) -> Self:
        _, reads, _, _, token, address, _, _, _ = _DESTINATION.unpack(data)
        return cls(RemoteToken(token), address, reads)

    @classmethod
    def of(cls, peer: Peer, reads: int = 1) -> Self:
        """All of a peer's region."""
        return cls(peer.mr.remote_token, peer.mr.address, reads)


@dataclass(frozen=True, slots=True)
class Barriers:
    """How often the destinations are exchanged before a test, and after it; reports: numbers exchanged in between."""

    before: int
    after: int
    reports: int = 0

    def enter(self, control: Peer, own: Destination) -> Destination:
        """The client's side of what comes between the second connection and the test; the server's memory."""
        _exchange(control, _NOTHING)
        for _ in range(self.before):
            theirs = Destination.parse(_exchange(control, own.emit()))
        return theirs

    def leave(self, control: Peer, own: Destination) -> None:
        """The client's side of what follows it."""
        if self.after:
            _exchange(control, own.emit())
        for _ in range(self.reports):
            _exchange(control, _REPORT)
        for _ in range(self.after - 1):
            _exchange(control, own.emit())


def exchange_start(control: Peer, version: str) -> None:
    """The client's side of everything between the two connections."""
    assert _exchange(control, version.encode().ljust(16, b"\0")).rstrip(b"\0").decode() == version
    for number in _NUMBERS:
        _exchange(control, number)
    _exchange(control, _NOTHING)


def _exchange(control: Peer, message: bytes) -> bytes:
    control.send(message)
    answer = control.receive_bytes()
    assert len(answer) == len(message)
    control.post_receives(1)
    return answer


class Mirror:
    """The server's side of the first connection, in a thread: answers until the client ends the connection.

    held: destinations to answer before the thread stops at the next one, the client's first word after the test.
    """

    def __init__(self, control: Peer, own: Destination, *, held: int | None = None) -> None:
        self._control = control
        self._own = own
        self._left = held
        self._client_is_done = threading.Event()
        self._may_go_on = threading.Event()
        self._theirs: Destination | None = None
        self._know_theirs = threading.Event()
        self._thread = threading.Thread(target=self._run, name="perftest mirror", daemon=True)
        self._thread.start()

    def theirs(self) -> Destination:
        """The client's memory, once it has told it."""
        assert self._know_theirs.wait(PATIENCE_S)
        assert self._theirs is not None
        return self._theirs

    def wait_for_the_tests_end(self) -> None:
        """Wait for the client's first word after the test, which stays without an answer until `go_on`."""
        assert self._client_is_done.wait(PATIENCE_S)

    def go_on(self) -> None:
        self._may_go_on.set()

    def join(self) -> None:
        """Wait for the client's end of the connection."""
        self._thread.join(PATIENCE_S)
        assert not self._thread.is_alive()

    def _run(self) -> None:
        while True:
            try:
                message = self._control.receive_bytes()
            except NdkError:
                return  # cancelled: the connection has ended
            self._control.post_receives(1)
            if len(message) != _DESTINATION.size or message == _NOTHING:
                self._control.send(message)
                continue
            self._theirs = Destination.parse(message)
            self._know_theirs.set()
            if self._left is not None:
                self._left -= 1
                if self._left < 0:
                    self._client_is_done.set()
                    self._may_go_on.wait(PATIENCE_S)
            self._control.send(self._own.emit())
