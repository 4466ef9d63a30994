"""Ports that are picked for the program when it asks for port 0 (R-PORT-1)."""

import secrets
from collections.abc import Sequence
from typing import Final

from softndk.errors import NdkError, error_for
from softndk.status import Status

__all__ = ["DYNAMIC_PORTS", "candidate_ports", "no_port_free"]

DYNAMIC_PORTS: Final = range(49152, 65536)
TRIES: Final = 128


def candidate_ports(port: int) -> Sequence[int]:
    """The port that is asked for, or for 0 a number of random ones of the dynamic range, to be tried in order."""
    return (port,) if port else [secrets.choice(DYNAMIC_PORTS) for _ in range(TRIES)]


def no_port_free(what: str) -> NdkError:
    """None of the candidates could be had."""
    return error_for(
        Status.TOO_MANY_ADDRESSES,
        f"{what}: {TRIES} ports tried between {DYNAMIC_PORTS[0]} and {DYNAMIC_PORTS[-1]}, none is free"
        " [TOO_MANY_ADDRESSES, R-PORT-1]",
    )
