"""Completion queue (NDK_CQ): results, arming, waiting.

Two things stay apart: the arm (`arm`, told to `on_notify` and `fileno`), and the line of waiters (`wait`,
`next_results`, `async for`). Neither touches the other.

Deviation: one form of record, that of NdkGetCqResultsEx; it serves both (R-GETCQ-2, R-GETCQ-3).
"""

from collections.abc import AsyncIterator, Callable, Iterable

from softndk.drivers.alarm import Alarm
from softndk.drivers.channel import Channel
from softndk.drivers.pending import Pending
from softndk.drivers.waiting import WaitQueue
from softndk.errors import BufferOverflow, InternalError, InvalidHandle, InvalidParameter, error_for
from softndk.flags import MAXULONG, CqNotify, ObjectType
from softndk.ndk.context import AdapterContext
from softndk.ndk.limits import check_capacity, check_int, check_limit
from softndk.ndk.object import NdkObject
from softndk.ndk.strict import watch_overlaps
from softndk.queues.completion import CompletionRing
from softndk.results import Result
from softndk.status import Status

__all__ = ["Cq"]


class Cq(NdkObject):
    """See the module. Made by Adapter.create_cq."""

    _type = ObjectType.CQ
    _prefix = "cq"

    def __init__(
        self,
        context: AdapterContext,
        adapter: NdkObject,
        depth: int,
        on_notify: "Callable[[Cq, Status], object] | None",
    ) -> None:
        super().__init__(context, [adapter])
        self._on_notify = on_notify
        self._alarm: Alarm | None = None
        self._ring = CompletionRing(depth, self._fire, self._placed, self._delay)
        self._ring.on_overrun.append(self._count_failure)
        self._line: WaitQueue[Result] = WaitQueue(
            self._runtime,
            _Source(self),
            f"{self._label} wait",
            holders=lambda: "no result has come",
            streams=self._streams,
            tell=self._tell_outcome,
        )
        if context.strict:
            watch_overlaps(self, "R-CONC-2", "get_results", "arm")

    # ---- NDKPI

    @property
    def depth(self) -> int:
        """Completions that the queue can hold (R-CQ-1)."""
        return self._ring.depth

    @property
    def status(self) -> Status:
        """SUCCESS, or for good BUFFER_OVERFLOW after an overrun, INTERNAL_ERROR after another failure (R-CQERR)."""
        return self._ring.status

    def get_results(self, max_results: int | None = None) -> list[Result]:
        """Take up to `max_results` completions, all if left out, oldest first; [] if there is none (NdkGetCqResultsEx).

        Never blocks (R-GETCQ-1). Finding none, it looks at the sockets of the queue's connections first.

        Raises: InvalidParameter: max_results is negative. Nothing is taken.
        """
        if max_results is not None:
            check_int(f"{self._label} get_results", "max_results", max_results)
            if max_results < 0:
                raise InvalidParameter(
                    f"{self._label} get_results: max_results={max_results} is negative [INVALID_PARAMETER]"
                )
        with self._lock:
            self._check_usable("get_results")
            if self._alarm is not None:
                self._alarm.silence()
            if not self._ring:
                self._runtime.engine.poll(self._streams())
            return self._ring.take(max_results)

    def arm(self, kind: CqNotify = CqNotify.ANY) -> None:
        """Ask for one notification through `on_notify` and `fileno` (NdkArmCq, R-ARM-1 to -9).

        kind: what satisfies it (R-ARM-8). A matching result that came since the last notification satisfies it at once
        (R-ARM-3); a second arm before that widens the first (R-ARM-7). The callback runs on the callback thread, never
        inside this call (R-ARM-12). Without a callback and without fileno it has no effect (A-23).

        Raises: InvalidParameter: kind is none of CqNotify. Nothing has changed.
        """
        kind = _notify_kind(self._label, "arm", kind)
        with self._lock:
            self._check_usable("arm")
            if self._alarm is not None:
                self._alarm.silence()
            self._ring.arm(kind)

    def resize(self, depth: int) -> Pending[None]:
        """Change the depth (NdkResizeCq). Nothing is lost, traffic goes on, the arm stays (R-RESIZE-3).

        Raises: InvalidParameter: depth 0 or over max_cq_depth (R-CQ-5). Nothing has changed.
        The Pending fails with: BufferOverflow: more results are present than the new depth; the queue is unchanged
        (R-RESIZE-2).
        """
        with self._lock:
            self._check_usable("resize")
            what = f"{self._label} resize"
            check_capacity(what, "depth", depth, self._context.info, "max_cq_depth", least=1)
            if len(self._ring) > depth:
                error = BufferOverflow(
                    f"{what}: {len(self._ring)} entries are present, depth={depth}; take them first"
                    " [BUFFER_OVERFLOW, R-RESIZE-2]"
                )
                return self._failed(what, error)
            self._ring.resize(depth)
            return self._finished(what, None)

    def control_interrupt_moderation(self, interval_us: int, count: int) -> None:
        """Delay notifications: at the latest `interval_us` microseconds after the completion that satisfied an arm, or when
        `count` completions have gathered, whichever comes first (NdkControlCqInterruptModeration, R-MOD).

        interval 0, or count 0 or 1: at once. MAXULONG (or a count over the depth): no limit of that kind. Takes effect for
        a notification that is being delayed, too (R-MOD-2). Delays no result and no `wait`.

        Raises: InvalidParameter (INVALID_PARAMETER_MIX): no limit of either kind. InvalidParameter: a number outside of 0
        to MAXULONG. Nothing has changed.
        """
        with self._lock:
            self._check_usable("control_interrupt_moderation")
            what = f"{self._label} control_interrupt_moderation"
            check_limit(what, "interval_us", interval_us, 0, MAXULONG)
            check_limit(what, "count", count, 0, MAXULONG)
            if interval_us == MAXULONG and count > self._ring.depth:
                raise InvalidParameter(
                    f"{what}: interval_us=MAXULONG and count={count} over the depth of {self._ring.depth} would never notify"
                    " [INVALID_PARAMETER_MIX]",
                    Status.INVALID_PARAMETER_MIX,
                )
            self._ring.moderate(interval_us, count)

    # ---- waiting

    def wait(
        self, timeout: float | None = None, *, max_results: int = 64, kind: CqNotify = CqNotify.ANY
    ) -> list[Result]:
        """Block until an entry that matches `kind` is present, then take up to `max_results` of every type.

        timeout: seconds; None waits for ever. Touches no arm. Never returns [].

        Raises: TimeoutError: nothing came in time; it is no NdkError. BufferOverflow: the queue has overrun and is empty
        (R-CQERR-1). InternalError: the queue has failed otherwise and is empty (R-CQERR-2). InvalidHandle: the queue is
        being closed (R-CLOSE-6). InvalidParameter: max_results below 1, or kind. RuntimeError: in a callback, or in a
        thread with a running event loop. Nothing is taken.
        """
        return self._next("wait", max_results, kind).result(timeout)

    def next_results(self, *, max_results: int = 64, kind: CqNotify = CqNotify.ANY) -> Pending[list[Result]]:
        """What `wait` waits for, to be awaited or asked later; takes nothing until somebody does.

        Cancelling the task that awaits it loses no result.

        Raises: InvalidParameter: max_results below 1, or kind. InvalidHandle: closed.
        The Pending fails with: BufferOverflow: the queue has overrun and is empty (R-CQERR-1). InternalError: it has failed
        otherwise and is empty (R-CQERR-2). InvalidHandle: it is being closed meanwhile.
        """
        return self._next("next_results", max_results, kind)

    def __aiter__(self) -> AsyncIterator[Result]:
        """One result a step, in asyncio and trio; ends when the queue is closed. A break loses nothing.

        Raises: BufferOverflow: the queue has overrun and is empty (R-CQERR-1). InternalError: it has failed otherwise.
        """
        return _Results(self)

    def fileno(self) -> int:
        """A descriptor that is readable from an arm's firing until the next get_results() or arm().

        For event loops; never read it yourself. It belongs to the queue and is closed with it.

        Raises: InsufficientResources: the process has no descriptor left.
        """
        with self._lock:
            self._check_usable("fileno")
            if self._alarm is None:
                self._alarm = self._new_alarm("fileno")
            return self._alarm.fileno()

    # ---- inside

    def _next(self, operation: str, max_results: int, kind: CqNotify) -> Pending[list[Result]]:
        kind = _notify_kind(self._label, operation, kind)
        check_int(f"{self._label} {operation}", "max_results", max_results)
        if max_results < 1:
            raise InvalidParameter(
                f"{self._label} {operation}: max_results={max_results}, must be 1 or more [INVALID_PARAMETER]"
            )
        self._check_usable(operation)
        return self._line.call(kind, max_results)

    def _fire(self, status: Status) -> None:
        if self._alarm is not None:
            self._alarm.ring()
        if self._on_notify is not None:
            self._call_back(self._on_notify, self, status)

    def _delay(self, microseconds: int) -> None:
        engine = self._runtime.engine
        engine.call_at(self._runtime.now() + microseconds / 1e6, self._ring.mature)

    def _placed(self) -> None:
        self._line.notify()

    def _count_failure(self) -> None:
        self._context.counters.cq_error += 1

    def _fail(self, status: Status) -> None:
        self._ring.fail(status)

    def _adapter_failed(self) -> None:
        self._fail(Status.INTERNAL_ERROR)

    def _streams(self) -> Iterable[Channel]:
        """The connections whose traffic fills this queue."""
        for item in self._successors:
            channel = item._channel  # type: ignore[attr-defined]
            if channel is not None:
                yield channel

    def _state_text(self) -> str:
        armed = "" if self._ring.armed is None else f" armed {self._ring.armed.name}"
        status = self._ring.status
        failed = "" if status is Status.SUCCESS else f" {status.name}"
        return f"{len(self._ring)}/{self._ring.depth}{armed}{failed}"

    def _renamed(self) -> None:
        self._line.what = f"{self._label} wait"

    def _begin_close(self) -> None:
        self._line.notify_all()

    def _finish_close(self) -> None:
        if self._alarm is not None:
            self._alarm.close()


class _Source:
    """The queue as its line of waiters sees it."""

    def __init__(self, cq: Cq) -> None:
        self._cq = cq

    def ready(self, kind: int) -> bool:
        cq = self._cq
        return cq._closing or cq._ring.status is not Status.SUCCESS or cq._ring.holds(kind)

    def take(self, max_results: int) -> list[Result]:
        return [] if self._cq._closing else self._cq._ring.take(max_results)

    def failure(self) -> BaseException | None:
        cq = self._cq
        if cq._closing:
            return InvalidHandle(f"{cq._label} wait: the queue is being closed [INVALID_HANDLE, R-CLOSE-6]")
        if cq._ring.status is Status.INTERNAL_ERROR:
            why = cq._context.failure or "inside"
            return InternalError(f"{cq._label} wait: the queue has failed: {why} [INTERNAL_ERROR, R-CQERR-2]")
        if cq._ring.status is not Status.SUCCESS:
            return error_for(
                cq._ring.status,
                f"{cq._label} wait: the queue has failed: more completions than its depth of {cq.depth}; create it"
                f" deeper or take results sooner [{cq._ring.status.name}, R-CQERR-1]",
            )
        return None


class _Results:
    """`async for` over a queue."""

    def __init__(self, cq: Cq) -> None:
        self._cq = cq

    def __aiter__(self) -> "_Results":
        return self

    async def __anext__(self) -> Result:
        if self._cq._closing:
            raise StopAsyncIteration
        try:
            return await self._cq._line.call_one(CqNotify.ANY)
        except InvalidHandle:
            raise StopAsyncIteration from None


def _notify_kind(who: str, operation: str, kind: int) -> CqNotify:
    try:
        return CqNotify(kind)
    except ValueError:
        raise InvalidParameter(
            f"{who} {operation}: kind={kind!r}; ERRORS, ANY or SOLICITED [INVALID_PARAMETER]"
        ) from None
