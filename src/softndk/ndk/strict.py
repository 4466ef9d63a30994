"""Strict mode: tells of overlapping calls that the program has to serialise (R-CONC-1, R-CONC-2). Nothing else knows it."""

import functools
import threading
import warnings
from collections.abc import Callable
from typing import Any

from softndk.ndk.object import NdkObject

__all__ = ["watch_overlaps"]


def watch_overlaps(item: NdkObject, rule: str, *methods: str) -> None:
    """Have a RuntimeWarning given when two threads are in any of these methods of `item` at once."""
    turn = _Turn()
    for name in methods:
        setattr(item, name, _watched(item, rule, name, turn))


class _Turn:
    """Whose turn it is: the thread in one of the methods, and in which."""

    __slots__ = ("lock", "method", "thread")

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.thread = 0
        self.method = ""


def _watched(item: NdkObject, rule: str, name: str, turn: _Turn) -> Callable[..., Any]:
    method = getattr(item, name)

    @functools.wraps(method)
    def call(*args: Any, **kwargs: Any) -> Any:
        mine = turn.lock.acquire(blocking=False)
        if not mine and turn.thread != threading.get_ident():  # else a signal handler, or a finalizer
            warnings.warn(
                f"{item._label} {name}: another thread is in {turn.method} meanwhile; these calls are to be serialised"
                f" by the program [{rule}]",
                RuntimeWarning,
                stacklevel=2,
            )
        if not mine:
            return method(*args, **kwargs)
        turn.thread, turn.method = threading.get_ident(), name
        try:
            return method(*args, **kwargs)
        finally:
            turn.thread = 0
            turn.lock.release()

    return call
