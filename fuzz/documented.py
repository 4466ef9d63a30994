"""Which failures and results the documentation of a member promises: its docstring, with what that refers to.

The lists are those of which the pages of the objects are made. A failure that is in none of them is a finding.
"""

import re
from functools import cache
from typing import Final

import softndk
from scripts.docs.docstrings import parse

__all__ = ["failures", "outcomes", "results"]

_REFERENCE: Final = re.compile(r"\b[Aa]s ((?:`?[A-Za-z_.]+`?(?:,| and)? ?)+)")
_NAME: Final = re.compile(r"[A-Za-z]+\.[a-z_]+|[a-z_]+")


def failures(member: str) -> frozenset[tuple[str, str]]:
    """Class and status of each NdkError that a call of `member`, such as "Qp.send", may raise."""
    return _listed(member, "Raises")


def outcomes(member: str) -> frozenset[tuple[str, str]]:
    """The same of the Pending that it returns."""
    return _listed(member, "The Pending fails with")


def results(member: str) -> frozenset[str]:
    """Names of the statuses with which what it posts may complete."""
    return frozenset(name for name, _ in _listed(member, "Results"))


@cache
def _listed(member: str, label: str) -> frozenset[tuple[str, str]]:
    holder, _, name = member.partition(".")
    found: set[tuple[str, str]] = set()
    for item in parse(getattr(getattr(softndk, holder), name)).lists.get(label, []):
        if item.name:
            found.add((item.name, item.status))
        for reference in _REFERENCE.finditer(item.when):
            for other in _NAME.findall(reference[1]):
                found |= _of(other, holder, member, label)
    return frozenset(found)


def _of(name: str, holder: str, member: str, label: str) -> frozenset[tuple[str, str]]:
    """What a name stands for: a member of the same object, or of the one that is said before ("Connector.connect and
    complete_connect"); nothing, if it is just a word.
    """
    places = (name,) if "." in name else (f"{holder}.{name}", f"Connector.{name}", f"Qp.{name}")
    for place in places:
        owner, _, own = place.partition(".")
        if place != member and callable(getattr(getattr(softndk, owner, None), own, None)):
            return _listed(place, label)
    return frozenset()
