"""Reads a docstring of a public member: its prose, and its lists of failures and results.

A list begins a line with its label and ends with the paragraph::

    Raises: ConnectionInvalid: not connected (R-WR-3). InvalidState (CONNECTION_ACTIVE): in use. QueueFull.
    The Pending fails with: IoTimeout: no answer. Refused: the peer rejected.
    Results: ACCESS_VIOLATION: an SGE outside its region.

Each item is the name of an exception or a status, in brackets a status other than the exception's own, and when it comes.
An item that begins with "as" refers to another member. A sentence that begins with "Nothing", "Unchanged" or "What" says
what a failure leaves. Knows nothing of pages.
"""

import builtins
import inspect
import re
from dataclasses import dataclass, field
from typing import Any, Final

import softndk
from softndk import NdkError, Status

__all__ = ["LABELS", "Item", "Parts", "parse"]

LABELS: Final = ("Raises", "The Pending fails with", "Results")
_BEGIN: Final = re.compile(rf"^(?P<label>{'|'.join(LABELS)}): ?(?P<rest>.*)$")
_NAMES: Final = r"(?P<name>[A-Z]\w+)(?: \((?P<status>[A-Z_]+)\))?(?P<colon>:)?"


@dataclass(frozen=True, slots=True)
class Item:
    """One failure or result. `name`: an exception's class, or a status; "" for a reference. `when`: "" if it goes without
    saying."""

    name: str
    status: str
    when: str


@dataclass(slots=True)
class Parts:
    """`prose`: paragraphs. `lists`: label -> items. `unchanged`: sentences on what a failure leaves."""

    prose: list[str] = field(default_factory=list)
    lists: dict[str, list[Item]] = field(default_factory=dict)
    unchanged: list[str] = field(default_factory=list)


def parse(member: Any) -> Parts:
    """The parts of a member's docstring. Raises ValueError: a list that does not read as one."""
    parts = Parts()
    for paragraph in (inspect.getdoc(member) or "").split("\n\n"):
        held: list[str] = []
        label = ""
        for line in paragraph.splitlines():
            begin = _BEGIN.match(line)
            if begin:
                _close(parts, label, held)
                label, held = begin["label"], [begin["rest"]]
            else:
                held.append(line)
        _close(parts, label, held)
    return parts


def _close(parts: Parts, label: str, lines: list[str]) -> None:
    text = " ".join(" ".join(lines).split())
    if not text:
        return
    if not label:
        parts.prose.append(text)
        return
    items = parts.lists.setdefault(label, [])
    for sentence in re.split(r"(?<=[.;]) (?=[A-Z]|as )", text):
        words = sentence.rstrip(".;")
        found = re.match(_NAMES, words)
        if words.startswith("as "):
            items.append(Item("", "", words))
        elif words.startswith(("Nothing", "Unchanged", "What ")):
            parts.unchanged.append(words)
        elif found and (found["colon"] or found.end() == len(words)) and _is_known(found["name"]):
            items.append(Item(found["name"], _status(found["name"], found["status"]), words[found.end() :].strip()))
        elif items:
            last = items.pop()
            items.append(Item(last.name, last.status, f"{last.when}. {words}"))
        else:
            raise ValueError(f"{label}: {sentence!r} names neither an exception nor a status")


def _is_known(name: str) -> bool:
    return name in Status.__members__ or isinstance(_exception(name), type)


def _exception(name: str) -> Any:
    return getattr(softndk, name, None) or getattr(builtins, name, None)


def _status(name: str, given: str | None) -> str:
    if given is not None:
        return Status[given].name
    cls = _exception(name)
    return cls.default_status.name if isinstance(cls, type) and issubclass(cls, NdkError) else ""
