"""Shared endpoint (NDK_SHARED_ENDPOINT): one local address for many outgoing connections to different destinations.

Deviation: TCP keeps an address for about a minute after a connection that this side was the first to end (TIME_WAIT). So
long a new shared endpoint there, or a connect from there, is a SHARING_VIOLATION, although every holder is closed (R-EP-1).
"""

import socket
from errno import EADDRINUSE
from typing import Final

from softndk.drivers.sockets import reserve
from softndk.errors import InsufficientResources, error_for, error_from_os
from softndk.flags import Address, ObjectType, address_text
from softndk.ndk.context import AdapterContext
from softndk.ndk.endpoints import ENDPOINTS
from softndk.ndk.object import NdkObject
from softndk.ndk.ports import candidate_ports, no_port_free
from softndk.status import Status

__all__ = ["SharedEndpoint"]

_HINT: Final = " (by another program, or by TCP itself for a minute after a connection that this side ended)"


class SharedEndpoint(NdkObject):
    """See the module. Made by Adapter.create_shared_endpoint; held by its connectors until they are closed (R-CONNSE-2)."""

    _type = ObjectType.SHARED_ENDPOINT
    _prefix = "endpoint"

    def __init__(self, context: AdapterContext, adapter: NdkObject, address: Address) -> None:
        self._socket, self._address = self._reserve(f"{adapter._label} create_shared_endpoint", address)
        try:
            super().__init__(context, [adapter])
        except InsufficientResources:
            self._socket.close()
            ENDPOINTS.release(self._address, self)
            raise
        self._destinations: set[Address] = set()

    @property
    def local_address(self) -> Address:
        """Address and port, useful after asking for port 0 (R-SE-2)."""
        return self._address

    _waits_on_exit = False

    def _dependents(self) -> tuple[NdkObject, ...]:
        return ()  # an endpoint stops; its connectors live on

    def _reserve(self, what: str, address: Address) -> tuple[socket.socket, Address]:
        host, port = address
        for candidate in candidate_ports(port):
            found = (host, candidate)
            if not ENDPOINTS.take(found, self):
                if port:
                    raise error_for(
                        Status.SHARING_VIOLATION,
                        f"{what}: {host}:{port} is held by objects that are not closed [SHARING_VIOLATION, R-EP-2]",
                    )
                continue
            try:
                return reserve(found), found
            except OSError as error:
                ENDPOINTS.release(found, self)
                hint = _HINT if error.errno == EADDRINUSE else ""
                failure = error_from_os(error, f"{what} {host}:{candidate}{hint}")
                if port or failure.status is not Status.SHARING_VIOLATION:
                    raise failure from None
        raise no_port_free(what)

    def _state_text(self) -> str:
        return f"{address_text(self._address)} connections {len(self._successors)}"

    def _finish_close(self) -> None:
        self._socket.close()
        ENDPOINTS.release(self._address, self)
