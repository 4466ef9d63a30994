"""Numbers of the adapters that are open in this process: messages and `softndk status` tell them apart by these.

Each adapter has the lowest number that no other open one has, so that a program which opens one at a time always has
"adapter1". References are weak: an adapter that is collected without a close gives its number back.
"""

import os
import threading
from typing import Final
from weakref import WeakValueDictionary

__all__ = ["ADAPTER_NUMBERS", "NumberTable"]


class NumberTable:
    """Who has which number. Thread-safe; its lock is a leaf: nothing is called with it held."""

    def __init__(self) -> None:
        self._holders: WeakValueDictionary[int, object] = WeakValueDictionary()
        self.renew_lock()

    def renew_lock(self) -> None:
        """In a forked child, where the thread that held it is not. The parent's adapters keep their numbers there."""
        self._lock = threading.RLock()  # garbage collection may come at any time, and with it the program's code

    def take(self, holder: object) -> int:
        """The lowest free number, which is `holder`'s from now on."""
        with self._lock:
            number = 1
            while self._holders.setdefault(number, holder) is not holder:
                number += 1
            return number

    def release(self, number: int) -> None:
        """Its holder is closed."""
        with self._lock:
            self._holders.pop(number, None)


ADAPTER_NUMBERS: Final = NumberTable()
"""Those of this process."""

if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=ADAPTER_NUMBERS.renew_lock)
