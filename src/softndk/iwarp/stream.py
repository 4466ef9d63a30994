"""The contract between the connection logic and whoever moves the octets of an established stream.

A stream owns framing, checks, placement, segmentation and completion. It does not own start-up, states, time, or what
follows from a fault: it stops at the first one and hands it up.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from typing_extensions import Buffer

from softndk.queues.work import AtomicWork, ReadWork
from softndk.wire.terminate import Terminate

__all__ = ["Stream", "StreamParameters"]


@dataclass(frozen=True, slots=True, kw_only=True)
class StreamParameters:
    """What start-up has settled for one stream.

    mulpdu: largest ULPDU to send, octets. inbound_read_limit: IRD, for reads and atomics together. fenced: nothing may
    be sent before the first FPDU has come. send_indication: an empty Send that comes first says that the peer is ready,
    and is no message. rfc7306: Immediate Data and atomics are taken in; False: they are unknown opcodes.
    """

    crc: bool
    send_markers: bool
    receive_markers: bool
    mulpdu: int
    inbound_read_limit: int
    fenced: bool
    send_indication: bool = False
    rfc7306: bool = True


class Stream(Protocol):
    """One established stream. Octets in and out, no socket.

    `consume`, `resume` and `produce` raise ProtocolFault (iwarp/faults.py) at the first fault; after it only
    `terminate` and `transmitted` may be called.
    """

    held: bool
    """A message waits for a receive; nothing more is taken in until `resume`."""
    refuse_reads: bool
    """Set when this side can't answer any more, neither reads nor atomics."""

    def consume(self, data: memoryview, *, hold: bool) -> None:
        """Take received octets (borrowed). `hold`: a message without a receive waits instead of being a fault."""

    def resume(self, *, hold: bool) -> None:
        """Offer what was held again."""

    def seek_terminate(self, data: memoryview) -> Terminate | None:
        """The peer's Terminate among what follows a held message, where nothing more can be taken in (TCP is lost)."""

    def produce(self, limit: int) -> Sequence[Buffer]:
        """Frames to send, at least one if anything may be sent, until `limit` octets are reached.

        A fault met behind frames of this call is raised by the next one: what has been made goes out.
        """

    def transmitted(self, count: int) -> None:
        """The transport has taken `count` octets of what was produced."""

    def ready_indication(self, *, read: bool) -> Buffer:
        """The ready-to-receive FPDU."""

    def nudge(self) -> Buffer | None:
        """A zero-length RDMA Write, which changes nothing at the peer; None inside a message, where none may go."""

    def terminate(self, message: Terminate) -> Buffer:
        """The Terminate FPDU, the last frame; nothing is produced after it."""

    def stop(self) -> None:
        """Produce nothing more."""

    @property
    def peer_terminate(self) -> Terminate | None:
        """The peer's Terminate, once it has come; what follows it is not looked at.

        Its octets alone do not always say what is meant: see Terminate.settled.
        """

    @property
    def frames_in(self) -> int:
        """FPDUs taken in so far."""

    @property
    def frames_out(self) -> int:
        """FPDUs made so far."""

    @property
    def inside_fpdu(self) -> bool:
        """Octets of an unfinished FPDU are held."""

    @property
    def inside_message(self) -> bool:
        """A message has begun and is not complete."""

    @property
    def quiet(self) -> bool:
        """Nothing is under way: no unfinished own request, no read or atomic to answer, every frame taken, and no fault that
        `produce` has still to raise.
        """

    def read_of(self, sink_stag: int) -> ReadWork | None:
        """Our outstanding read whose sink has this STag (a Terminate names it), or None."""

    def atomic_of(self, msn: int) -> AtomicWork | None:
        """Our outstanding atomic whose request had this MSN (a Terminate names it), or None."""
