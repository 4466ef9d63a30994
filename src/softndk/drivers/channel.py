"""What the engine serves: a descriptor with interest and a deadline, and a call at a time."""

import math
import selectors
from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from softndk.drivers.seats import Seat

__all__ = ["READ", "WRITE", "Channel", "Timer"]

READ: Final = selectors.EVENT_READ
WRITE: Final = selectors.EVENT_WRITE


class Channel(ABC):
    """A descriptor with interest and a deadline, as the engine sees it. Every method is called under the
    lock.
    """

    __slots__ = ("_fd", "_loaned", "_mask", "_registered", "_seat", "_timer", "_timer_at")

    def __init__(self) -> None:
        self._fd = -1
        self._mask = 0
        self._registered = 0
        self._seat: Seat | None = None
        self._loaned = False
        self._timer: Timer | None = None
        self._timer_at = math.inf

    @abstractmethod
    def interest(self) -> int:
        """READ and WRITE, or'ed: what to wait for. Asked again by `Engine.update`."""

    @abstractmethod
    def deadline(self) -> float | None:
        """When to call `on_deadline`, on the engine's clock; None: never. Asked again by `Engine.update`."""

    @abstractmethod
    def on_ready(self, mask: int) -> None:
        """READ, WRITE or both are possible, or an error is there to be found. Must not block; READ_SIZE at
        most.
        """

    @abstractmethod
    def on_deadline(self) -> None:
        """The deadline has come, or has been put off since."""

    @abstractmethod
    def fail(self, error: OSError) -> None:
        """Drop the descriptor at once: it cannot be served any more."""


class Timer:
    """A call to come; see `Engine.call_at`."""

    __slots__ = ("fn",)

    def __init__(self, fn: Callable[[], object]) -> None:
        self.fn: Callable[[], object] | None = fn

    def cancel(self) -> None:
        """Under the lock: the call will not come. After the call it does nothing."""
        self.fn = None
