"""Every limit that a peer can lean on, and every time limit, with its default, unit and reason."""

from dataclasses import dataclass, fields
from typing import Final

from softndk.errors import InvalidParameter

__all__ = ["IwarpConfig", "TransportConfig"]


@dataclass(frozen=True, slots=True, kw_only=True)
class TransportConfig:
    """Base of all transports' settings."""


@dataclass(frozen=True, slots=True, kw_only=True)
class IwarpConfig(TransportConfig):
    """Settings of the iWARP transport. Times in seconds, sizes in octets.

    crc: ask for CRC. CRC is off only when both sides say so (RFC 5044 7.1).
    markers: ask the peer to send markers; sending them on the peer's request is not optional.
    mpa_revision: 2 (enhanced, with IRD/ORD) or 1; what the active side asks for. The passive side answers both.
    fallback_revision_1: as initiator with mpa_revision=2, try once more with revision 1 on a new TCP connection if the peer
        closes instead of answering (RFC 6581 6); all within connect_timeout_s.
    max_fpdu: largest ULPDU to send; None: what fits one TCP segment (RFC 5044 appendix).
    peer_to_peer: as initiator offer a ready-to-receive indication, so that the passive side may send first.
    rfc7306: take in Immediate Data and atomics, and allow posting them; False: be a peer without RFC 7306.
    connect_timeout_s: from connect to the peer's MPA reply.
    accept_timeout_s: from the TCP accept to the complete MPA request.
    ready_timeout_s: from our MPA reply to the ready-to-receive indication, where one was negotiated.
    nudge_s: as initiator, how long the peer may stay silent after our first FPDU before a zero-length RDMA Write
        follows it, and three more if it stays silent, each after twice the time; 0: never. Linux's siw can leave an FPDU
        that comes right behind its reply unread until more comes.
    disconnect_timeout_s: from the local disconnect to the peer's.
    terminate_drain_s: how long input is read and thrown away after a Terminate or a close, so that a TCP reset does
        not destroy what we sent last.
    receive_wait_s: grace for a message that finds no posted receive; 0: Terminate at once (RFC 5041 7.1).
    stall_timeout_s: how long a peer may leave an FPDU unfinished.
    keepalive_s: idle time before TCP probes a silent peer; 0 switches it off.
    dead_peer_timeout_s: how long the peer's TCP may leave retransmissions and probes of a closed window unanswered while
        octets of ours are unacknowledged; 0 leaves it to user_timeout_s and the system. A peer that only does not read
        answers. 2 or more; does nothing on systems other than Linux.
    user_timeout_s: how long sent data may stay unacknowledged, or unsent because the peer does not read, before TCP gives
        up; 0 leaves it to dead_peer_timeout_s and the system. A peer may hold back for long (an empty SRQ, R-SRQ-3),
        hence 0.
    max_pending_requests: connection requests waiting for accept or reject, per listener; further ones are refused.
    max_pending_requests_per_address: the same from one source address (IPv6: one /64 network); further ones are refused.
    max_handshakes: TCP connections per listener whose MPA request is not complete; further ones are closed.
    max_handshakes_per_address: the same from one source address (IPv6: one /64 network); further ones are closed.
    send_buffer: octets made ready for the socket ahead of what it has taken, per connection.
    max_inbound_read_limit: the adapter's MaxInboundReadLimit: reads of the peer that one connection answers at a time.
    max_outbound_read_limit: the adapter's MaxOutboundReadLimit: reads that one connection has on the wire at a time.
    max_connector_count: open connectors of the adapter; at the limit connection requests are rejected. Together with
        max_handshakes it also limits the TCP connections that are open, those included that are about to end.
    max_listener_count: open listeners of the adapter.
    max_shared_endpoint_count: open shared endpoints of the adapter.
    max_pd_count: open protection domains of the adapter.
    max_cq_count: open completion queues of the adapter.
    max_qp_count: open queue pairs of the adapter.
    max_srq_count: open shared receive queues of the adapter.
    max_mr_count: open memory regions of the adapter.
    max_mw_count: open memory windows of the adapter.
    """

    crc: bool = True
    markers: bool = False
    mpa_revision: int = 2
    fallback_revision_1: bool = False
    max_fpdu: int | None = None
    peer_to_peer: bool = True
    rfc7306: bool = True
    connect_timeout_s: float = 10.0
    accept_timeout_s: float = 5.0
    ready_timeout_s: float = 30.0
    nudge_s: float = 0.2
    disconnect_timeout_s: float = 10.0
    terminate_drain_s: float = 2.0
    receive_wait_s: float = 0.0
    stall_timeout_s: float = 30.0
    keepalive_s: float = 30.0
    dead_peer_timeout_s: float = 60.0
    user_timeout_s: float = 0.0
    max_pending_requests: int = 256
    max_pending_requests_per_address: int = 128
    max_handshakes: int = 256
    max_handshakes_per_address: int = 128
    send_buffer: int = 256 * 1024
    max_inbound_read_limit: int = 64
    max_outbound_read_limit: int = 64
    max_connector_count: int = 16384
    max_listener_count: int = 256
    max_shared_endpoint_count: int = 256
    max_pd_count: int = 16384
    max_cq_count: int = 16384
    max_qp_count: int = 16384
    max_srq_count: int = 16384
    max_mr_count: int = 262144
    max_mw_count: int = 262144

    def __post_init__(self) -> None:
        for item in fields(self):
            value = getattr(self, item.name)
            if item.name.endswith("_s") and not (isinstance(value, (int, float)) and 0 <= value < 1e9):
                raise InvalidParameter(f"IwarpConfig: {item.name}={value!r}; must be seconds from 0 to 1e9")
        if 0 < self.dead_peer_timeout_s < _LEAST_DEAD_PEER_S:
            raise InvalidParameter(
                f"IwarpConfig: dead_peer_timeout_s={self.dead_peer_timeout_s!r}; must be 0 (off), or"
                f" {_LEAST_DEAD_PEER_S:g} or more: TCP needs time to send again"
            )
        for name in ("crc", "markers", "fallback_revision_1", "peer_to_peer", "rfc7306"):
            if not isinstance(getattr(self, name), bool):
                raise TypeError(f"IwarpConfig: {name}={getattr(self, name)!r} is no bool")
        for name in ("mpa_revision", "max_fpdu", "send_buffer", *_READ_LIMITS, *_COUNTS):
            value = getattr(self, name)
            if type(value) is not int and not (name == "max_fpdu" and value is None):
                raise TypeError(f"IwarpConfig: {name}={value!r} is not an int")
        if self.mpa_revision not in (1, 2):
            raise InvalidParameter(f"IwarpConfig: mpa_revision={self.mpa_revision!r}; must be 1 or 2")
        if self.max_fpdu is not None and not 128 <= self.max_fpdu <= 64768:
            raise InvalidParameter(f"IwarpConfig: max_fpdu={self.max_fpdu}; must be 128 to 64768 (RFC 5044 4.2)")
        for name in _COUNTS:
            if getattr(self, name) < 1:
                raise InvalidParameter(f"IwarpConfig: {name}={getattr(self, name)}; must be 1 or more")
        for name in _READ_LIMITS:
            if not 0 <= getattr(self, name) <= _MOST_READS:
                raise InvalidParameter(
                    f"IwarpConfig: {name}={getattr(self, name)}; must be 0 to {_MOST_READS} (RFC 6581 9.1)"
                )
        if self.send_buffer < 65536 + 64:
            raise InvalidParameter(f"IwarpConfig: send_buffer={self.send_buffer}; must hold one FPDU (65600 or more)")


_MOST_READS: Final = 0x3FFE
"""What 14 bits of IRD and ORD can say; 0x3fff stands for "not negotiated"."""
_LEAST_DEAD_PEER_S: Final = 2.0
"""Linux sends again after 0.2 s at the earliest, and at twice the distance each time."""
_READ_LIMITS: Final = ("max_inbound_read_limit", "max_outbound_read_limit")
_COUNTS: Final = (
    "max_pending_requests",
    "max_pending_requests_per_address",
    "max_handshakes",
    "max_handshakes_per_address",
    "max_connector_count",
    "max_listener_count",
    "max_shared_endpoint_count",
    "max_pd_count",
    "max_cq_count",
    "max_qp_count",
    "max_srq_count",
    "max_mr_count",
    "max_mw_count",
)
