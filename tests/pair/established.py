"""Established connections to begin a test with, and what is expected at their end."""

from softndk.config import IwarpConfig
from softndk.errors import NdkError
from softndk.iwarp.events import Aborted, Disconnected
from tests.pair.core_pair import CorePair, Side
from tests.pair.raw_peer import RawPeer

__all__ = ["connected", "end_of", "outcome_of", "raw"]


def connected(config: IwarpConfig | None = None) -> CorePair:
    config = config or IwarpConfig()
    pair = CorePair(Side("A", active=True, config=config), Side("B", active=False, config=config, base=0x900000))
    pair.connect()
    return pair


def raw(config: IwarpConfig | None = None) -> RawPeer:
    """A raw peer with an established connection to `peer.side`."""
    peer = RawPeer(Side("B", active=False, config=config))
    peer.establish()
    peer.received.clear()
    return peer


def end_of(side: Side) -> NdkError:
    """The error of the only event, the end of an established connection."""
    (event,) = side.take_events()
    assert isinstance(event, Aborted)
    return event.error


def outcome_of(side: Side) -> NdkError | None:
    """How the local disconnect has ended: its error is in the only event."""
    (event,) = side.take_events()
    assert isinstance(event, Disconnected)
    return event.error
