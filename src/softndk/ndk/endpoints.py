"""Local endpoints and who holds them (R-EP): an address and port may be used again when its last holder is closed.

TCP forgets an address with its socket; NDKPI keeps it until the objects that used it are closed, on every adapter of
the process. So the holders are counted here.
"""

import threading
from typing import Final

from softndk.flags import Address

__all__ = ["ENDPOINTS", "EndpointTable"]


class EndpointTable:
    """Holders per address. Thread-safe; its lock is a leaf: nothing is called with it held."""

    def __init__(self) -> None:
        self._holders: dict[Address, int] = {}
        self._lock = threading.Lock()

    def take(self, address: Address) -> bool:
        """Become the first holder; False: it is held already."""
        with self._lock:
            if address in self._holders:
                return False
            self._holders[address] = 1
            return True

    def share(self, address: Address) -> None:
        """Become one more holder, or the first."""
        with self._lock:
            self._holders[address] = self._holders.get(address, 0) + 1

    def release(self, address: Address) -> None:
        """One holder less."""
        with self._lock:
            left = self._holders[address] - 1
            if left:
                self._holders[address] = left
            else:
                del self._holders[address]

    def is_held(self, address: Address) -> bool:
        """Somebody holds the address."""
        with self._lock:
            return address in self._holders


ENDPOINTS: Final = EndpointTable()
"""Those of this process."""
