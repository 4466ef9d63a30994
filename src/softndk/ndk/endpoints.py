"""Local endpoints and who holds them (R-EP): an address and port may be used again when its last holder is closed.

TCP forgets an address with its socket; NDKPI keeps it until the objects that used it are closed, on every adapter of
the process. So the holders are kept here, by weak references: what is collected without a close holds nothing.
"""

import os
import threading
from typing import Final
from weakref import WeakSet

from softndk.flags import Address

__all__ = ["ENDPOINTS", "EndpointTable"]


class EndpointTable:
    """Holders per address. Thread-safe; its lock is a leaf: nothing is called with it held."""

    def __init__(self) -> None:
        self.reset()

    def reset(self) -> None:
        """Nobody holds anything: in a forked child, to which the parent's objects are of no use."""
        self._holders: dict[Address, WeakSet[object]] = {}
        self._lock = threading.RLock()  # garbage collection may come at any time, and with it the program's code

    def take(self, address: Address, holder: object) -> bool:
        """Become the first holder; False: somebody holds it already."""
        with self._lock:
            if self.is_held(address):
                return False
            self.share(address, holder)
            return True

    def share(self, address: Address, holder: object) -> None:
        """Become one more holder, or the first."""
        with self._lock:
            self._holders.setdefault(address, WeakSet()).add(holder)

    def release(self, address: Address, holder: object) -> None:
        """Hold it no longer."""
        with self._lock:
            self._holders[address].discard(holder)
            self.is_held(address)

    def is_held(self, address: Address) -> bool:
        """Somebody holds the address."""
        with self._lock:
            if self._holders.get(address):
                return True
            self._holders.pop(address, None)
            return False


ENDPOINTS: Final = EndpointTable()
"""Those of this process."""

if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=ENDPOINTS.reset)
