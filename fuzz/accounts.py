"""Accounts of what a program has asked for: requests that complete once and in order, calls and Pendings that fail only
as their documentation says.
"""

from collections.abc import Callable
from concurrent.futures import CancelledError
from typing import Any, Final, TypeVar

from fuzz import documented
from softndk import AdapterUnavailable, Cq, InvalidHandle, NdkError, OpFlag, Pending, Result, Status

__all__ = ["Accounts", "Queue", "Request"]

_T = TypeVar("_T")

_WORKING: Final = frozenset(
    {
        *(f"Adapter.{name}" for name in ("connect", "create_connector", "create_listener", "create_shared_endpoint")),
        *(f"Adapter.{name}" for name in ("build_lam", "create_cq", "create_pd")),
        *(f"Pd.{name}" for name in ("create_mr", "register_mr", "create_mw", "create_srq", "create_qp")),
        *(f"Connector.{name}" for name in ("connect", "connect_with_shared_endpoint", "complete_connect")),
        *(f"Connector.{name}" for name in ("accept", "reject")),
        *("Pd.create_qp_with_srq", "Listener.listen", "Mr.initialize_fast_register"),
    }
)
"""Calls that need a working adapter; posts are told apart by `post`."""


class Request:
    """A request that was posted; it is its own context. `member`: what it was posted with, as "Qp.send"."""

    __slots__ = ("completed", "member", "number", "queue", "silent")

    def __init__(self, queue: "Queue", member: str, *, silent: bool) -> None:
        self.queue = queue
        self.member = member
        self.silent = silent
        self.completed = False
        self.number = len(queue.posted)
        queue.posted.append(self)

    def __repr__(self) -> str:
        return f"{self.member} number {self.number} of {self.queue.name}"


class Queue:
    """Requests of one queue in the order of posting; its results come to `cq`. `shared`: an SRQ's, whose QPs each have an
    order of their own. `unread`: the program has closed the CQ and cannot take results any more.
    """

    def __init__(self, name: str, cq: Cq, *, shared: bool = False) -> None:
        self.name = name
        self.cq = cq
        self.shared = shared
        self.unread = False
        self.promised = False
        """The adapter has failed, and the CQ was good until then: everything completes although it has failed now."""
        self.posted: list[Request] = []
        self._newest = -1

    def complete(self, request: Request, result: Result) -> None:
        """Raises AssertionError: not now, or not so."""
        assert not request.completed, f"{request} has completed twice"
        request.completed = True
        status = result.status.name
        assert status in documented.results(request.member), f"{request} has completed with {status}"
        if request.silent:
            assert result.status is not Status.SUCCESS, f"{request} was to be silent"
        if not self.shared:
            assert request.number > self._newest, f"{request} has completed out of order"
            skipped = [other for other in self.posted[self._newest + 1 : request.number] if not other.silent]
            assert not skipped, f"{request} has completed before {skipped[0]}"
            self._newest = request.number
        error = result.error
        assert (error is None) == (result.status is Status.SUCCESS), f"{request}: {status} is explained by {error!r}"

    def check(self) -> None:
        """At the end. Raises AssertionError: something has never completed. A CQ that has overrun excuses it."""
        whole = self.cq.status is Status.SUCCESS or (self.promised and self.cq.status is Status.INTERNAL_ERROR)
        if whole and not (self.shared or self.unread):
            missing = [request for request in self.posted if not (request.completed or request.silent)]
            assert not missing, f"never completed: {missing}"


class Accounts:
    """All that one program has under way."""

    def __init__(self) -> None:
        self.queues: list[Queue] = []
        self.pendings: list[tuple[str, Pending[Any]]] = []
        self.adapter_failed = False

    def queue(self, name: str, cq: Cq, *, shared: bool = False) -> Queue:
        """Open an account for one more queue."""
        queue = Queue(name, cq, shared=shared)
        self.queues.append(queue)
        return queue

    def call(self, member: str, fn: Callable[[], _T]) -> _T | None:
        """`fn()`, which calls `member`; None: it was refused. Raises AssertionError: not as its documentation says."""
        try:
            result = fn()
        except InvalidHandle:
            return None  # of an object that is closed, or being closed (R-CLOSE-6)
        except NdkError as error:
            if self._is_end_of_adapter(error):
                return None
            kind = type(error).__name__, error.status.name
            if kind not in documented.failures(member):
                raise AssertionError(f"{member} raises {kind[0]} ({kind[1]}): {error}") from error
            return None
        assert not (self.adapter_failed and member in _WORKING), f"{member} is possible on an adapter that has failed"
        return result

    def fail(self) -> None:
        """The adapter fails as a whole: no request can be posted, no object made from now on, and all completes."""
        self.adapter_failed = True
        for queue in self.queues:
            queue.promised = queue.cq.status is Status.SUCCESS

    def _is_end_of_adapter(self, error: BaseException) -> bool:
        return self.adapter_failed and isinstance(error, AdapterUnavailable) and error.status is Status.DEVICE_REMOVED

    def pend(self, member: str, fn: Callable[[], Pending[Any]]) -> Pending[Any] | None:
        """The same for a call whose outcome comes later; it is looked at in the end."""
        pending = self.call(member, fn)
        if pending is not None:
            self.pendings.append((member, pending))
        return pending

    def post(self, queue: Queue, member: str, fn: Callable[..., None], *arguments: Any, **more: Any) -> None:
        """Post a request, which is refused or will complete."""
        request = Request(queue, member, silent=bool(more.get("flags", 0) & OpFlag.SILENT_SUCCESS))

        def call() -> bool:
            fn(*arguments, context=request, **more)
            return True

        if self.call(member, call) is not None:
            assert not self.adapter_failed, f"{request} is posted on an adapter that has failed"
            return
        assert queue.posted.pop() is request
        assert not request.completed, f"{request} was refused and has completed"

    def take(self, results: list[Result]) -> None:
        """Results of any of the queues."""
        for result in results:
            request = result.request_context
            assert isinstance(request, Request), f"a result of nobody: {result}"
            request.queue.complete(request, result)

    @property
    def is_settled(self) -> bool:
        """Every Pending has its outcome."""
        return all(pending.done() for _, pending in self.pendings)

    def waiting(self) -> list[str]:
        """The others, for messages."""
        return [repr(pending) for _, pending in self.pendings if not pending.done()]

    def check(self) -> None:
        """At the end. Raises AssertionError: something has no outcome, or one that is not documented."""
        for queue in self.queues:
            queue.check()
        for member, pending in self.pendings:
            self._check_outcome(member, pending)

    def _check_outcome(self, member: str, pending: Pending[Any]) -> None:
        error = pending.exception(0)
        if error is None or isinstance(error, CancelledError) or self._is_end_of_adapter(error):
            return
        assert isinstance(error, NdkError), f"{member} fails with {error!r}"
        kind = type(error).__name__, error.status.name
        if kind not in documented.outcomes(member):
            raise AssertionError(f"{member} fails with {kind[0]} ({kind[1]}): {error}") from error

    def forget(self) -> None:
        """Nobody asks any more: what has failed is not to be logged."""
        for _, pending in self.pendings:
            if pending.done():
                pending.exception(0)
        self.pendings.clear()
        self.queues.clear()
