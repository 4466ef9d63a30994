"""What every NDKPI object has: a name, a header, a life (R-OBJ, R-CLOSE), and a place in the tree of dependence.

`antecedents` must outlive an object, `successors` depend on it. A close pends while a successor is open, a request or
callback of the object is unfinished, or a successor's close callback has not returned (R-CLOSE-2).

Deviation: requests and closes return a `Pending`, which serves threads, tasks and callbacks; nobody has to give a
completion callback (R-ASYNC-2).

Deviation: the close of an adapter does not block; it returns a `Pending`, and leaving a `with` block waits (R-CLOSE-7).
"""

import threading
import warnings
from collections.abc import Callable, Iterable
from types import TracebackType
from typing import Any, ClassVar, Final, Self, TypeVar
from uuid import UUID

from softndk.drivers.alarm import Alarm
from softndk.drivers.dispatch import check_callback, report_unraisable
from softndk.drivers.pending import Pending, Promise
from softndk.errors import AdapterUnavailable, InvalidHandle, NdkError, NotSupported, error_from_os
from softndk.flags import NdkVersion, ObjectType
from softndk.ndk.context import AdapterContext
from softndk.status import Status

__all__ = ["NdkObject"]

_T = TypeVar("_T")

EXIT_WAIT_S: Final = 5.0
"""How long leaving a `with` block waits for running callbacks before it warns."""

_CLOSING_ORDER: Final = {  # R-CLOSE-14
    ObjectType.CONNECTOR: 0,
    ObjectType.QP: 1,
    ObjectType.CQ: 2,
    ObjectType.SRQ: 2,
    ObjectType.MW: 3,
    ObjectType.MR: 4,
    ObjectType.PD: 5,
    ObjectType.LISTENER: 6,
    ObjectType.SHARED_ENDPOINT: 7,
    ObjectType.ADAPTER: 8,
}


class NdkObject:
    """Base of all objects. Lock-holding is the subclass's business; methods with a leading underscore expect it held."""

    _type: ClassVar[ObjectType]
    _prefix: ClassVar[str]

    def __init__(self, context: AdapterContext, antecedents: Iterable["NdkObject"]) -> None:
        context.opened(self._type, self._prefix)
        self._context = context
        self._runtime = context.runtime
        self._lock = context.runtime.lock
        self._identity = self._new_identity()
        self._name = self._identity
        self._antecedents: dict[NdkObject, None] = {}
        self._successors: dict[NdkObject, None] = {}
        self._busy = 0
        self._closing = False
        self._closed = False
        self._close_promise: Promise[None] | None = None
        self._close_callbacks: list[Callable[[Pending[None]], object]] = []
        self._close_told = False  # somebody has a callback at the close's Pending
        for antecedent in antecedents:
            self._depend_on(antecedent)

    # ---- for users

    @property
    def name(self) -> str:
        """Shown in reprs, errors and traces; "qp3" unless set. What is set is shown behind it. Objects are numbered
        per adapter, adapters per process: the lowest number that no other open one has.

        Raises: TypeError: no str.
        """
        return self._name

    @name.setter
    def name(self, value: str) -> None:
        if not isinstance(value, str):
            raise TypeError(f"{self._label}: name={value!r} is no str")
        self._name = value
        self._renamed()

    @property
    def version(self) -> NdkVersion:
        """The interface version of the adapter (R-OBJ-2)."""
        return self._context.info.version

    @property
    def object_type(self) -> ObjectType:
        """NDK_OBJECT_TYPE of this object."""
        return self._type

    @property
    def closing(self) -> bool:
        """Close has been called."""
        return self._closing

    @property
    def closed(self) -> bool:
        """The close is complete."""
        return self._closed

    def close(self, *, on_done: Callable[[Pending[None]], object] | None = None) -> Pending[None]:
        """Close the object (NdkCloseXxx). Never fails; a second call returns the same Pending.

        Pends while something that depends on the object is open, or a callback of it or of one of its requests has not
        returned (R-CLOSE-1, -2, -5).
        on_done: called on the callback thread when closed; what this object depended on stays until it has returned. From
        the call on the object's other methods raise InvalidHandle (R-CLOSE-6) and no event callback of it starts.

        Raises: TypeError: on_done is a coroutine function.
        """
        if on_done is not None:
            check_callback(on_done)
        with self._lock:
            if on_done is not None and not self._closed:
                self._close_callbacks.append(on_done)
            elif on_done is not None and self._close_promise is not None:
                self._close_promise.pending.add_done_callback(on_done)
            return self._close()

    def query_extension(self, interface_id: UUID, version: NdkVersion) -> Any:
        """NdkQueryExtension: no extension exists.

        Raises: NotSupported: always (R-EXT-1).
        """
        raise NotSupported(f"{self._label} query_extension: {interface_id} is unknown here [NOT_SUPPORTED, R-EXT-1]")

    def __enter__(self) -> Self:
        return self

    def __exit__(self, t: type[BaseException] | None, e: BaseException | None, tb: TracebackType | None) -> None:
        pending, complaint = self._close_tree()
        if not pending.done() and self._waits_on_exit and not self._runtime.dispatcher.in_callback():
            # Bounded, so it may be done where Pending.result would refuse; what it waits for are callbacks.
            closed = threading.Event()
            pending.add_done_callback(lambda _: closed.set())
            if not closed.wait(EXIT_WAIT_S):
                complaint = f"{complaint}; {self._still_open_text()}".removeprefix("; ")
        if complaint:
            warnings.warn(complaint, ResourceWarning, stacklevel=2)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, t: type[BaseException] | None, e: BaseException | None, tb: TracebackType | None) -> None:
        pending, complaint = self._close_tree()
        if not pending.done() and self._waits_on_exit:
            with self._lock:
                either: Promise[bool] = Promise(self._runtime, f"{self._label} close")
                timer = self._runtime.engine.call_at(
                    self._runtime.now() + EXIT_WAIT_S, lambda: None if either.done else either.set_result(False)
                )
            pending.add_done_callback(lambda _: self._settle(either))
            try:
                if not await either.pending:
                    complaint = f"{complaint}; {self._still_open_text()}".removeprefix("; ")
            finally:
                with self._lock:
                    timer.cancel()
        if complaint:
            warnings.warn(complaint, ResourceWarning, stacklevel=2)

    def __repr__(self) -> str:
        state = "closed" if self._closed else "closing" if self._closing else self._state_text()
        return f"<{type(self).__name__} {self._label} {state}>".replace(" >", ">")

    # ---- for subclasses; lock held

    _waits_on_exit = True

    def _new_identity(self) -> str:
        """Kind and number: what the object is called in all messages."""
        return self._context.next_name(self._prefix)

    def _renamed(self) -> None:
        """The name has changed: tell the parts that use it in messages."""

    def _state_text(self) -> str:
        """What the repr says of an open object."""
        return "open"

    def _begin_close(self) -> None:
        """Start what the close implies: flushing, cancelling, rejecting."""

    def _finish_close(self) -> None:
        """Nothing holds the object any more: give its resources back."""

    def _holding(self) -> list[str]:
        """What else the close waits for, in words."""
        return []

    def _dependents(self) -> Iterable["NdkObject"]:
        """What leaving a `with` block closes together with this object."""
        return tuple(self._successors)

    @property
    def _label(self) -> str:
        return self._identity if self._name == self._identity else f"{self._identity} {self._name!r}"

    def _check_usable(self, operation: str) -> None:
        if self._runtime.forked:
            raise InvalidHandle(
                f"{self._label} {operation}: belongs to the parent process; open an adapter in the child [INVALID_HANDLE]"
            )
        if self._closing:
            state = "closed" if self._closed else "closing"
            raise InvalidHandle(f"{self._label} {operation}: the object is {state} [INVALID_HANDLE, R-CLOSE-6]")

    def _check_working(self, operation: str) -> None:
        """For what needs a working adapter: also after `_check_usable` there may be nothing left but to close."""
        self._check_usable(operation)
        if self._context.failure:
            raise self._adapter_error(operation)

    def _adapter_error(self, operation: str) -> AdapterUnavailable:
        return AdapterUnavailable(
            f"{self._label} {operation}: {self._context.failure}; close it and open another [DEVICE_REMOVED]",
            Status.DEVICE_REMOVED,
        )

    def _adapter_failed(self) -> None:
        """The adapter has failed as a whole: end what is under way here."""

    def _new_alarm(self, operation: str) -> Alarm:
        try:
            return Alarm()
        except OSError as error:
            raise error_from_os(error, f"{self._label} {operation}", Status.INSUFFICIENT_RESOURCES) from None

    def _depend_on(self, antecedent: "NdkObject") -> None:
        self._antecedents[antecedent] = None
        antecedent._successors[self] = None

    def _call_back(self, fn: Callable[..., object], *args: Any) -> None:
        """Run a callback of this object on the callback thread; its close pends until it has returned (R-CLOSE-2)."""
        self._busy += 1
        dispatcher = self._runtime.dispatcher
        dispatcher.submit(self._run_callback, fn, args)
        dispatcher.submit(self._idle_again)

    def _tell_outcome(self, fn: Callable[..., object], *args: Any) -> None:
        """Run a completion callback of a request of this object; its close pends until it has returned (R-CLOSE-2). It
        comes after the close was asked for, too: each request reports its outcome (R-ASYNC-1).
        """
        self._busy += 1
        dispatcher = self._runtime.dispatcher
        dispatcher.submit(fn, *args)
        dispatcher.submit(self._idle_again)

    def _tell_closed(self, fn: Callable[..., object], *args: Any) -> None:
        self._close_told = True
        self._runtime.dispatcher.submit(fn, *args)

    def _promise(self, what: str, **options: Any) -> Promise[Any]:
        """A request of this object that is under way. `options`: as Promise takes them."""
        return Promise(self._runtime, what, tell=self._tell_outcome, **options)

    def _finished(self, what: str, value: _T) -> Pending[_T]:
        """A request of this object that is done in the call."""
        return Promise.finished(self._runtime, what, value, tell=self._tell_outcome)

    def _failed(self, what: str, error: NdkError) -> Pending[Any]:
        """A request of this object that has failed in the call."""
        return Promise.failed(self._runtime, what, error, tell=self._tell_outcome)

    def _run_callback(self, fn: Callable[..., object], args: tuple[Any, ...]) -> None:
        if not self._closing:  # R-CLOSE-11: no event callback once the close has been asked for
            self._runtime.dispatcher.run_here(fn, *args)

    def _idle_again(self) -> None:
        with self._lock:
            self._busy -= 1
            self._settle_close()

    def _close(self) -> Pending[None]:
        if self._close_promise is None:
            self._closing = True
            self._close_promise = Promise(
                self._runtime, f"{self._label} close", holders=self._still_open, tell=self._tell_closed
            )
            if self._runtime.forked:  # the parent's object: nothing here may touch what it stands for
                self._finish_in_child()
            else:
                self._carry_out(self._begin_close)
                self._settle_close()
        elif self._runtime.forked and not self._closed:
            self._finish_in_child()
        return self._close_promise.pending

    def _finish_in_child(self) -> None:
        assert self._close_promise is not None
        self._closed = True
        self._close_promise.set_result(None)
        callbacks, self._close_callbacks = self._close_callbacks, []
        for fn in callbacks:
            self._runtime.dispatcher.submit(fn, self._close_promise.pending)

    def _settle_close(self) -> None:
        if not self._closing or self._closed or self._busy or self._successors or self._holding():
            return
        self._closed = True
        self._context.forget(self._type)
        self._carry_out(self._finish_close)
        promise = self._close_promise
        assert promise is not None
        promise.set_result(None)
        callbacks, self._close_callbacks = self._close_callbacks, []
        if not callbacks and not self._close_told:
            self._release_all()
            return
        dispatcher = self._runtime.dispatcher
        for fn in callbacks:
            dispatcher.submit(fn, promise.pending)
        dispatcher.submit(self._release_after_callbacks)

    @staticmethod
    def _carry_out(step: Callable[[], None]) -> None:
        """A close never fails (R-CLOSE-1): a bug of ours in one of its steps is reported, and does not stop the others."""
        try:
            step()
        except Exception as error:
            report_unraisable(error, step, "Exception ignored in softndk close")

    def _release_after_callbacks(self) -> None:
        with self._lock:
            self._release_all()

    def _release_all(self) -> None:
        antecedents, self._antecedents = self._antecedents, {}
        for antecedent in antecedents:
            del antecedent._successors[self]
            antecedent._settle_close()

    def _still_open(self) -> str:
        held = [item._label for item in self._successors] + self._holding()
        if self._busy:
            held.append("a running callback")
        return f"still open: {', '.join(held)}" if held else "closing"

    # ---- leaving a with block

    def _close_tree(self) -> tuple[Pending[None], str]:
        """Close everything that depends on this object, then the object (R-CLOSE-14).

        Returns also what strict mode complains of: without the lock, since a warning runs the program's code.
        """
        complaint = ""
        with self._lock:
            found: dict[NdkObject, None] = {}
            queue = [self]
            while queue:
                item = queue.pop()
                if item not in found:
                    found[item] = None
                    queue.extend(item._dependents())
            left = [item for item in found if item is not self and not item._closing]
            if left and self._context.strict:
                complaint = f"{self._label}: closed for you: {', '.join(item._label for item in left)}"
            for item in sorted(found, key=lambda item: _CLOSING_ORDER[item._type]):
                item._close()
            assert self._close_promise is not None
            return self._close_promise.pending, complaint

    def _still_open_text(self) -> str:
        with self._lock:
            return f"{self._label}: not closed after {EXIT_WAIT_S:g} s; {self._still_open()}"

    def _settle(self, promise: Promise[bool]) -> None:
        with self._lock:
            if not promise.done:
                promise.set_result(True)
