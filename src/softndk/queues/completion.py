"""A completion queue without threads: entries, the overrun latch, and the arming rules (R-ARM, R-CQERR).

The owner holds its lock around every call and carries out what `fire` asks for.
"""

from collections import deque
from collections.abc import Callable
from typing import Final

from softndk.flags import MAXULONG, CqNotify
from softndk.results import Result
from softndk.status import Status

__all__ = ["CompletionRing", "stronger_arm"]

_KINDS: Final = (CqNotify.ERRORS, CqNotify.ANY, CqNotify.SOLICITED)
_STRENGTH: Final = {CqNotify.ERRORS: 0, CqNotify.SOLICITED: 1, CqNotify.ANY: 2}


def stronger_arm(first: CqNotify, second: CqNotify) -> CqNotify:
    """The type of a CQ that was armed twice before it fired (R-ARM-7)."""
    return max(first, second, key=_STRENGTH.__getitem__)


class CompletionRing:
    """Completions of one CQ, oldest first.

    `fire(status)` is called when an arm is satisfied (the arm is cleared by then), `placed()` after every change that a
    waiter may look for, `delay(microseconds)` to have `mature` called at the latest that much later (moderation). All
    under the owner's lock; none may call back into the ring.
    """

    def __init__(
        self,
        depth: int,
        fire: Callable[[Status], None],
        placed: Callable[[], None],
        delay: Callable[[int], None] | None = None,
    ) -> None:
        self.depth = depth
        self.status = Status.SUCCESS
        self.armed: CqNotify | None = None
        self.on_overrun: list[Callable[[], None]] = []
        self._fire = fire
        self._placed = placed
        self._entries: deque[Result] = deque()
        self._newest: dict[int, int] = dict.fromkeys(
            _KINDS, 0
        )  # running number of the newest entry that matches each type
        self._number = 0  # running number of the newest entry
        self._seen = 0  # value of _number when the notification was last made
        self._error_told = False
        self._delay = delay
        self._interval = 0  # microseconds
        self._count = 0
        self._gathering = False

    def __len__(self) -> int:
        return len(self._entries)

    def push(self, result: Result, *, solicited: bool = False) -> None:
        """Place one completion; one too many puts the CQ into error for good (R-CQERR-1)."""
        if self.status is not Status.SUCCESS:
            return
        if len(self._entries) >= self.depth:
            self.fail(Status.BUFFER_OVERFLOW)
            return
        self._entries.append(result)
        self._number += 1
        self._newest[CqNotify.ANY] = self._number
        if solicited or result.status is not Status.SUCCESS:
            self._newest[CqNotify.SOLICITED] = self._number
        self._notify_if_due()
        self._placed()

    def take(self, limit: int | None) -> list[Result]:
        """Remove up to `limit` entries (None: all), oldest first (R-GETCQ-1)."""
        count = len(self._entries) if limit is None else min(limit, len(self._entries))
        return [self._entries.popleft() for _ in range(count)]

    @property
    def _taken(self) -> int:
        """Running number of the newest entry taken. Not counted: a take that a signal interrupts stays in step."""
        return self._number - len(self._entries)

    def holds(self, kind: int) -> bool:
        """True if an entry that matches `kind`, a CqNotify, is present."""
        return self._newest[kind] > self._taken

    def arm(self, kind: CqNotify) -> None:
        """Ask for one notification (R-ARM-1, -3, -7). Satisfied at once by a matching entry that is new."""
        self.armed = kind if self.armed is None else stronger_arm(self.armed, kind)
        self._notify_if_due()

    def resize(self, depth: int) -> None:
        """Change the depth; entries and arm stay (R-RESIZE-3). The caller has seen to it that the entries fit."""
        self.depth = depth

    def moderate(self, interval: int, count: int) -> None:
        """Delay notifications until `count` completions have gathered or `interval` microseconds have passed (R-MOD).

        MAXULONG: no limit of that kind. The newest setting applies to a notification that is being delayed too.
        """
        self._interval, self._count = interval, count
        if self._gathering:
            self._gathering = False
            self._notify_if_due()

    def mature(self) -> None:
        """The time that `delay` asked for has passed."""
        if self._gathering:
            self._notify_if_due(mature=True)

    def fail(self, status: Status) -> None:
        """Put the CQ into error: no further completions; all its QPs are told (R-CQERR-1, -2)."""
        if self.status is not Status.SUCCESS:
            return
        self.status = status
        self._notify_if_due()
        for tell in list(self.on_overrun):
            tell()
        self._placed()

    def _notify_if_due(self, *, mature: bool = False) -> None:
        kind = self.armed
        if kind is None:
            return
        if self.status is not Status.SUCCESS:
            if self._error_told:
                return
            self._error_told = True
        elif self._newest[kind] <= max(self._seen, self._taken):
            self._gathering = False
            return
        elif not mature and self._must_gather():
            return
        self._gathering = False
        self.armed = None
        self._seen = self._number
        self._fire(self.status)

    def _must_gather(self) -> bool:
        """The arm is satisfied, but the notification may wait for company (R-MOD-5)."""
        if self._delay is None or self._interval == 0 or self._count in (0, 1):
            return False
        gathered = self._number - max(self._seen, self._taken)
        if gathered >= self._count or len(self._entries) >= self.depth:  # full: no company can come any more
            return False
        if not self._gathering:
            self._gathering = True
            if self._interval != MAXULONG:
                self._delay(self._interval)
        return True
