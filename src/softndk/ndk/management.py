"""What the management interface tells of an adapter: connections, local endpoints, counters (NDIS_NDK_*).

Deviation: one entry each. NDKPI lists a second one with the TCP addresses where connections are mapped to TCP ones
(R-MGMT-1); on iWARP they are the same.
"""

import os
from collections.abc import Iterable
from dataclasses import asdict
from typing import Any

from softndk.ndk.connector import Connector
from softndk.ndk.endpoint import SharedEndpoint
from softndk.ndk.listener import Listener
from softndk.ndk.object import NdkObject
from softndk.results import ConnectionEntry, EndpointEntry

__all__ = ["connections", "endpoints", "snapshot"]


def connections(objects: Iterable[NdkObject]) -> tuple[ConnectionEntry, ...]:
    """One entry for each connector that has both addresses and is not over."""
    found = []
    for item in objects:
        if isinstance(item, Connector) and item._core is not None and item._stream is not None:
            local, peer = item._stream.local_address, item._stream.peer_address
            if local is not None and peer is not None and not item._core.is_over:
                qp = item._qp
                found.append(
                    ConnectionEntry(
                        local=local,
                        remote=peer,
                        owner_pid=os.getpid(),
                        state=item._core.state.value,
                        connector=item._label,
                        qp=None if qp is None else qp._label,
                    )
                )
    return tuple(found)


def endpoints(objects: Iterable[NdkObject]) -> tuple[EndpointEntry, ...]:
    """One entry for each listening listener and shared endpoint."""
    found = []
    for item in objects:
        if isinstance(item, Listener) and item._address is not None:
            found.append(EndpointEntry(local=item._address, listener=True, owner_pid=os.getpid()))
        elif isinstance(item, SharedEndpoint):
            found.append(EndpointEntry(local=item._address, listener=False, owner_pid=os.getpid()))
    return tuple(found)


def snapshot(adapter: NdkObject, objects: Iterable[NdkObject]) -> dict[str, Any]:
    """All of it, as JSON can hold it."""
    items = tuple(objects)
    context = adapter._context
    return {
        "pid": os.getpid(),
        "adapter": adapter._label,
        "addresses": list(context.addresses),
        "version": list(context.info.version),
        "datapath": context.datapath.name,
        "failure": context.failure or None,
        "statistics": asdict(context.statistics()),
        "connections": [asdict(entry) for entry in connections(items)],
        "endpoints": [asdict(entry) for entry in endpoints(items)],
        "objects": [repr(item) for item in items],
        "incidents": [{"seconds_ago": round(ago, 3), "text": text} for ago, text in context.incidents.kept()],
    }
