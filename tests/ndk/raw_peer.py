"""A plain TCP peer that speaks MPA, DDP and RDMAP by the codecs, and can say things that no NIC would say.

It knows nothing of states: a test says what is sent and what is expected next. `raw_client` and `raw_server` put
one opposite an end of softndk.
"""

import ipaddress
import socket
import struct
from collections.abc import Iterator
from contextlib import contextmanager
from types import TracebackType
from typing import Final, Self

from softndk import Address, IwarpConfig, open_adapter
from softndk.testing import End
from softndk.wire import ddp, mpa, rdmap
from softndk.wire.crc32c import CRC_OCTETS, crc32c
from softndk.wire.ddp import QueueNumber, TaggedHeader, UntaggedHeader
from softndk.wire.mpa import Enhanced, FrameKind, StartupFrame
from softndk.wire.rdmap import Opcode, ReadRequest
from softndk.wire.terminate import Terminate
from tests.ndk.ends import PATIENCE_S, loose_end

ABORTIVE: Final = struct.pack("ii", 1, 0)
USUAL: Final = Enhanced(ird=16, ord=16, peer_to_peer=True, rtr_write=True)
"""Read limits of 16, and a zero-length Write as ready-to-receive indication."""


class RawPeer:
    """One TCP connection. `crc`: put in and check the CRCs of FPDUs."""

    def __init__(self, sock: socket.socket, *, crc: bool = True) -> None:
        self.sock = sock
        self.crc = crc
        self._msn: dict[int, int] = {}
        sock.settimeout(PATIENCE_S)
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

    @classmethod
    def to(cls, address: Address) -> Self:
        """A TCP connection to a listener; nothing has been said yet."""
        return cls(socket.create_connection(address, PATIENCE_S))

    def __enter__(self) -> Self:
        return self

    def __exit__(self, t: type[BaseException] | None, e: BaseException | None, tb: TracebackType | None) -> None:
        self.sock.close()

    # ---- octets

    def send(self, octets: bytes) -> None:
        self.sock.sendall(octets)

    def take(self, count: int) -> bytes:
        """Exactly `count` octets. Raises: EOFError: the peer's FIN comes before."""
        found = b""
        while len(found) < count:
            more = self.sock.recv(count - len(found))
            if not more:
                raise EOFError(f"FIN after {len(found)} of {count} octets")
            found += more
        return found

    def at_end(self) -> bool:
        """Wait: True for a FIN, False for another octet."""
        return not self.sock.recv(1)

    def finish(self) -> None:
        """FIN; reading goes on."""
        self.sock.shutdown(socket.SHUT_WR)

    def reset(self) -> None:
        """RST."""
        self.sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, ABORTIVE)
        self.sock.close()

    # ---- start-up

    def send_request(
        self,
        private_data: bytes = b"",
        *,
        revision: int = 2,
        enhanced: Enhanced | None = USUAL,
        markers: bool = False,
    ) -> None:
        self._send_startup(FrameKind.REQUEST, private_data, revision, enhanced, markers=markers, reject=False)

    def send_reply(
        self,
        private_data: bytes = b"",
        *,
        revision: int = 2,
        enhanced: Enhanced | None = USUAL,
        markers: bool = False,
        reject: bool = False,
    ) -> None:
        self._send_startup(FrameKind.REPLY, private_data, revision, enhanced, markers=markers, reject=reject)

    def read_startup(self) -> StartupFrame:
        """The peer's Request or Reply."""
        head = self.take(mpa.STARTUP_HEADER)
        return StartupFrame.parse(head + self.take(mpa.frame_length(head) - len(head)))

    def _send_startup(
        self,
        kind: FrameKind,
        private_data: bytes,
        revision: int,
        enhanced: Enhanced | None,
        *,
        markers: bool,
        reject: bool,
    ) -> None:
        frame = StartupFrame(
            kind=kind,
            markers=markers,
            crc=self.crc,
            reject=reject,
            revision=revision,
            enhanced=enhanced if revision >= 2 else None,
            private_data=private_data,
        )
        self.send(frame.emit())

    # ---- FPDUs

    def fpdu(self, ulpdu: bytes, *, damaged: bool = False) -> bytes:
        """One FPDU. damaged: its CRC is wrong, in whatever way CRCs are used."""
        covered = len(ulpdu).to_bytes(mpa.LENGTH_FIELD, "big") + ulpdu + bytes(mpa.pad_length(len(ulpdu)))
        checksum = crc32c(covered) if self.crc else 0
        return covered + CRC_OCTETS.pack(checksum ^ 1 if damaged else checksum)

    def send_ulpdu(self, ulpdu: bytes) -> None:
        self.send(self.fpdu(ulpdu))

    def read_ulpdu(self) -> bytes:
        """The next ULPDU; its CRC must be right, or zero without CRC. Raises: EOFError: FIN."""
        head = self.take(mpa.LENGTH_FIELD)
        length = int.from_bytes(head, "big")
        rest = self.take(mpa.fpdu_length(length) - len(head))
        covered, (checksum,) = head + rest[:-4], CRC_OCTETS.unpack(rest[-4:])
        assert checksum == (crc32c(covered) if self.crc else 0)
        return rest[:length]

    def read_untagged(self, opcode: Opcode) -> tuple[UntaggedHeader, bytes]:
        """The next ULPDU, which must be an untagged one with that opcode."""
        ulpdu = self.read_ulpdu()
        assert not ddp.is_tagged(ulpdu[0])
        header = ddp.parse_untagged(ulpdu)
        assert Opcode(rdmap.opcode_of(header.rsvdulp)) is opcode
        return header, ulpdu[ddp.UNTAGGED_HEADER :]

    def read_tagged(self, opcode: Opcode) -> tuple[TaggedHeader, bytes]:
        """The next ULPDU, which must be a tagged one with that opcode."""
        ulpdu = self.read_ulpdu()
        assert ddp.is_tagged(ulpdu[0])
        header = ddp.parse_tagged(ulpdu)
        assert Opcode(rdmap.opcode_of(header.rsvdulp)) is opcode
        return header, ulpdu[ddp.TAGGED_HEADER :]

    def read_terminate(self) -> Terminate:
        """The next ULPDU, which must be a Terminate, the last before the peer's FIN."""
        _, body = self.read_untagged(Opcode.TERMINATE)
        assert self.at_end()
        return Terminate.parse(body)

    # ---- messages

    def untagged(
        self, opcode: Opcode, queue: QueueNumber, payload: bytes, *, stag: int = 0, mo: int = 0, last: bool = True
    ) -> bytes:
        """A segment of the next message of that queue."""
        msn = self._msn.setdefault(queue, 1)
        if last:
            self._msn[queue] += 1
        return UntaggedHeader(last, rdmap.control(opcode), stag, queue, msn, mo).emit() + payload

    def send_message(self, payload: bytes, opcode: Opcode = Opcode.SEND, *, stag: int = 0) -> None:
        """A Send of any kind, in one segment."""
        self.send_ulpdu(self.untagged(opcode, QueueNumber.SEND, payload, stag=stag))

    def send_write(self, stag: int, to: int, payload: bytes) -> None:
        """An RDMA Write in one segment."""
        self.send_ulpdu(TaggedHeader(True, rdmap.control(Opcode.WRITE), stag, to).emit() + payload)

    def send_ready(self) -> None:
        """The ready-to-receive indication: a zero-length RDMA Write."""
        self.send_write(1, 0, b"")

    def send_read_request(self, size: int, source_stag: int, source_to: int, *, sink_stag: int = 0x500) -> None:
        body = ReadRequest(sink_stag, 0, size, source_stag, source_to).emit()
        self.send_ulpdu(self.untagged(Opcode.READ_REQUEST, QueueNumber.READ_REQUEST, body))

    def read_request(self) -> ReadRequest:
        """The next ULPDU, which must be a Read Request."""
        _, body = self.read_untagged(Opcode.READ_REQUEST)
        return ReadRequest.parse(body)

    def answer(self, read: ReadRequest, payload: bytes) -> None:
        """The Read Response to it, in one segment."""
        header = TaggedHeader(True, rdmap.control(Opcode.READ_RESPONSE), read.sink_stag, read.sink_to)
        self.send_ulpdu(header.emit() + payload)

    def send_terminate(self, message: Terminate) -> None:
        self.send_ulpdu(self.untagged(Opcode.TERMINATE, QueueNumber.TERMINATE, message.emit()))


class RawListener:
    """A listening TCP socket; `accept` gives a RawPeer that has heard nothing yet."""

    def __init__(self, host: str = "127.0.0.1") -> None:
        family = socket.AF_INET6 if ipaddress.ip_address(host).version == 6 else socket.AF_INET
        self.sock = socket.create_server((host, 0), family=family)
        self.sock.settimeout(PATIENCE_S)

    @property
    def address(self) -> Address:
        host, port = self.sock.getsockname()[:2]
        return host, port

    def accept(self, *, crc: bool = True) -> RawPeer:
        return RawPeer(self.sock.accept()[0], crc=crc)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, t: type[BaseException] | None, e: BaseException | None, tb: TracebackType | None) -> None:
        self.sock.close()


@contextmanager
def raw_client(
    config: IwarpConfig | None = None, *, receives: int = 0, crc: bool = True
) -> Iterator[tuple[RawPeer, End]]:
    """A raw initiator and the passive end of softndk that it is connected to, with `receives` receives of 64 octets."""
    with open_adapter(config=config) as adapter:
        end = loose_end(adapter)
        for number in range(receives):
            end.qp.receive(end.mr[64 * number : 64 * (number + 1)], context=number)
        listener = adapter.listen()
        with RawPeer.to(listener.local_address) as peer:
            peer.crc = crc
            peer.send_request()
            incoming = listener.next_request().result(PATIENCE_S)
            accepting = incoming.accept(end.qp)
            listener.close()
            assert not peer.read_startup().reject
            peer.send_ready()
            accepting.result(PATIENCE_S)
            yield peer, End(adapter, end.pd, end.cq, end.mr, end.qp, incoming)


@contextmanager
def raw_server(
    config: IwarpConfig | None = None, *, enhanced: Enhanced | None = None, crc: bool = True
) -> Iterator[tuple[RawPeer, End]]:
    """A raw responder and the active end of softndk that is connected to it; `enhanced`: its answer."""
    with open_adapter(config=config) as adapter, RawListener() as listener:
        end = loose_end(adapter)
        connecting = adapter.connect(end.qp, listener.address)
        with listener.accept(crc=crc) as peer:
            asked = peer.read_startup()
            answer = enhanced or USUAL
            peer.send_reply(enhanced=answer, revision=asked.revision)
            connector = connecting.result(PATIENCE_S)
            if asked.enhanced is not None and asked.enhanced.peer_to_peer:
                _, payload = peer.read_tagged(Opcode.WRITE)
                assert payload == b""
            yield peer, End(adapter, end.pd, end.cq, end.mr, end.qp, connector)
