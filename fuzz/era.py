"""For how long adapters are used: many inputs, behind which nothing of them may live; and who hears what nobody catches."""

import atexit
import gc
import logging
import sys
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from enum import Enum
from typing import Final

from fuzz.world import KINDS, World

__all__ = ["WantedError", "complaints", "end", "forget", "replace", "watched", "world"]

INPUTS: Final = 1000
"""So many are run before there are new adapters, and a count of everything that lives."""
FEW: Final = 8
"""Objects of a class that an open adapter may keep for the next time: seats, alarms."""
_TIMERS: Final = "softndk.drivers.channel.Timer"
"""An engine keeps a limited number of them that were cancelled."""


class WantedError(Exception):
    """Raised in a callback on purpose: it is to go to `sys.unraisablehook`."""


class _Era:
    """Adapters of all kinds, for a while."""

    def __init__(self) -> None:
        self._outside = _instances()
        self.worlds = [World(kind) for kind in range(KINDS)]
        self._inside = _instances()
        self.inputs = 0

    def check(self) -> None:
        """Raises AssertionError: objects have been left behind, while the adapters are there, or when they are closed."""
        self._compare(self._inside, FEW, "while the adapters are open")
        self.close()
        self._compare(self._outside, 0, "behind the close of the adapters")

    def close(self) -> None:
        for item in self.worlds:
            item.close()
        self.worlds.clear()

    @staticmethod
    def _compare(before: Counter[str], few: int, when: str) -> None:
        now = _instances()
        del now[_TIMERS]
        grown = {name: count - before[name] for name, count in now.items() if count > before[name] + few}
        assert not grown, f"after some inputs there are more objects than before, {when}: {grown}"


_era: _Era | None = None


def world(kind: int) -> World:
    """The adapter of that kind. Raises AssertionError: the earlier ones have left something behind."""
    global _era
    era = _era
    if era is not None and era.inputs >= INPUTS:
        end()
        era = None
    if era is None:
        era = _era = _Era()
    era.inputs += 1
    return era.worlds[kind]


def replace(kind: int) -> None:
    """The adapter of that kind is closed: the next input has a new one."""
    if _era is not None:
        _era.worlds[kind] = World(kind)


def end() -> None:
    """Use these adapters no more. Raises AssertionError: they have left something behind."""
    global _era
    era, _era = _era, None
    if era is not None:
        era.check()


def forget() -> None:
    """The same after a finding: they may be in any state."""
    global _era
    era, _era = _era, None
    if era is not None:
        with suppress(Exception):
            era.close()


atexit.register(forget)


def _instances() -> Counter[str]:
    """How many objects of each of the package's classes live in this process, but for flags, which Python keeps. Slow."""
    gc.collect()
    kinds = Counter(type(item) for item in gc.get_objects())
    found: Counter[str] = Counter()
    for kind, count in kinds.items():
        module = str(kind.__module__)  # of some classes it is not even a str
        if module.startswith("softndk.") and not issubclass(kind, Enum):
            found[f"{module}.{kind.__qualname__}"] += count
    return found


# ---- what nobody catches

complaints: Final[list[str]] = []
"""Of the present input: exceptions that nobody caught, errors in the log."""


class _Listener(logging.Handler):
    def emit(self, record: logging.LogRecord) -> None:
        text = record.getMessage()
        if record.levelno >= logging.ERROR:
            complaints.append(text)


_listener: Final = _Listener()


def _note(details: "sys.UnraisableHookArgs") -> None:
    if not isinstance(details.exc_value, WantedError):
        complaints.append(f"{details.err_msg}: {details.exc_value!r} of {details.object!r}")


@contextmanager
def watched() -> Iterator[None]:
    """Meanwhile `complaints` has them, and incidents are logged to nobody."""
    log, hook = logging.getLogger("softndk"), sys.unraisablehook
    level, propagates = log.level, log.propagate
    complaints.clear()
    sys.unraisablehook = _note
    log.addHandler(_listener)
    log.setLevel(logging.INFO)
    log.propagate = False
    try:
        yield
    finally:
        sys.unraisablehook = hook
        log.removeHandler(_listener)
        log.setLevel(level)
        log.propagate = propagates
