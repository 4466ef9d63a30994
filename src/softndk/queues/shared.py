"""A shared receive queue without threads: receives for many QPs, low-water notification, and who waits for one."""

from collections import deque
from collections.abc import Callable

from softndk.errors import BufferOverflow, QueueFull
from softndk.queues.work import ReceiveRequest
from softndk.status import Status

__all__ = ["SharedReceives"]


class SharedReceives:
    """Receives of one SRQ, oldest first.

    `fire(status)` is called when the number of queued receives falls below `threshold` while armed (R-SRQ-1); one shot,
    armed at creation and by each `modify` with a threshold (A-12, R-MODSRQ-4). A QP that finds the queue empty leaves
    `wake`, called once when there is a receive for it: its message is held back meanwhile (R-SRQ-3).
    """

    def __init__(self, name: str, depth: int, threshold: int, fire: Callable[[Status], None]) -> None:
        self.name = name
        self.depth = depth
        self.threshold = threshold
        self.status = Status.SUCCESS
        self.armed = threshold > 0
        self._fire = fire
        self._receives: deque[ReceiveRequest] = deque()
        self._waiting: dict[Callable[[], None], None] = {}

    def __len__(self) -> int:
        return len(self._receives)

    def post(self, request: ReceiveRequest) -> None:
        """Queue a receive; whoever waits longest gets it. Raises QueueFull."""
        if len(self._receives) >= self.depth:
            raise QueueFull(
                f"{self.name} receive: {len(self._receives)} receives queued, limit depth={self.depth}; modify it"
                " or post fewer [NO_MORE_ENTRIES, R-WR-8]"
            )
        self._receives.append(request)
        while self._waiting and self._receives:
            wake = next(iter(self._waiting))
            del self._waiting[wake]
            wake()

    def take(self, wake: Callable[[], None]) -> ReceiveRequest | None:
        """The oldest receive; None: there is none, `wake` is called when that changes."""
        if not self._receives:
            self._waiting[wake] = None
            return None
        request = self._receives.popleft()
        if self.armed and len(self._receives) == self.threshold - 1:
            self.armed = False
            self._fire(Status.SUCCESS)
        return request

    def forget(self, wake: Callable[[], None]) -> None:
        """A QP no longer waits."""
        self._waiting.pop(wake, None)

    def modify(self, depth: int, threshold: int) -> None:
        """New depth and threshold, 0 keeps either (R-MODSRQ-1 to -3). Raises BufferOverflow and changes nothing."""
        if 0 < depth < len(self._receives):
            raise BufferOverflow(
                f"{self.name} modify: depth {depth} is below the {len(self._receives)} receives queued"
                " [BUFFER_OVERFLOW, R-MODSRQ-1]"
            )
        if depth:
            self.depth = depth
        if threshold:
            self.threshold = threshold
            self.armed = True
            if len(self._receives) < threshold:
                self.armed = False
                self._fire(Status.SUCCESS)

    def fail(self, status: Status) -> None:
        """The SRQ is unusable for good (R-CQERR-5)."""
        if self.status is Status.SUCCESS:
            self.status = status
            self._fire(status)
