"""NDKPI's objects, the entries of their dispatch tables, and what stands for each in Python: reads ndkpi.toml.

Knows nothing of pages and of how the tables are shown.
"""

import functools
import inspect
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType
from typing import Any, Final

import softndk

__all__ = ["DATA", "Entry", "NdkpiObject", "Others", "all_entries", "objects", "others", "public_members", "resolve"]

DATA: Final = Path(__file__).with_name("ndkpi.toml")


@dataclass(frozen=True, slots=True)
class Entry:
    """One function of NDKPI. `python`: "Qp.send", or "" where it has no form in Python; then `why`.

    `lacks`: what is missing in it. `note`: what differs without being missing.
    """

    name: str
    python: str = ""
    lacks: str = ""
    note: str = ""
    why: str = ""

    @property
    def state(self) -> str:
        return "no" if not self.python else "partly" if self.lacks else "yes"

    @property
    def remark(self) -> str:
        return "; ".join(filter(None, (self.lacks, self.note, self.why)))


@dataclass(frozen=True, slots=True)
class NdkpiObject:
    """One object, as ndkpi.toml describes it. `added`: members that no entry stands for, with the reason."""

    page: str
    cls: type
    ndkpi: str
    dispatch: str
    made_by: str
    parent: str
    antecedents: str
    freed: str
    topics: tuple[str, ...]
    entries: tuple[Entry, ...]
    added: Mapping[str, str] = field(default_factory=dict)

    def entries_of(self, member: str) -> list[Entry]:
        """What the member stands for."""
        return [entry for entry in self.entries if entry.python == f"{self.cls.__name__}.{member}"]


@dataclass(frozen=True, slots=True)
class Others:
    """Functions of NDKPI that stand in no dispatch table."""

    title: str
    entries: tuple[Entry, ...]


@functools.cache
def _data() -> dict[str, Any]:
    return tomllib.loads(DATA.read_text(encoding="utf-8"))


@functools.cache
def objects() -> Mapping[str, NdkpiObject]:
    """Every object by the name of its page. Raises KeyError, TypeError: the file has a mistake."""
    found = {}
    for page, item in _data()["objects"].items():
        values = dict(item)
        values["cls"] = getattr(softndk, values.pop("class"))
        values["topics"] = tuple(values["topics"])
        values["entries"] = tuple(Entry(**entry) for entry in values["entries"])
        found[page] = NdkpiObject(page, **values)
    return MappingProxyType(found)


@functools.cache
def others() -> Mapping[str, Others]:
    """Handlers, callbacks and OIDs."""
    return MappingProxyType(
        {
            name: Others(item["title"], tuple(Entry(**entry) for entry in item["entries"]))
            for name, item in _data()["others"].items()
        }
    )


def all_entries() -> list[Entry]:
    """Every entry of every table, objects first."""
    tables = [item.entries for item in objects().values()] + [item.entries for item in others().values()]
    return [entry for entries in tables for entry in entries]


def resolve(python: str) -> Any:
    """What a name like "Qp.send" means. Raises AttributeError."""
    found: Any = softndk
    for part in python.split("."):
        found = inspect.getattr_static(found, part) if isinstance(found, type) else getattr(found, part)
    return found


PROTOCOLS: Final = ("__getitem__", "__iter__", "__aiter__", "__await__")
"""Members with two underscores that a program uses in a special syntax."""


def public_members(cls: type) -> dict[str, Any]:
    """Methods and properties that a class defines itself, in the order of its source."""
    found = {}
    for name, member in vars(cls).items():
        if name.startswith("_") and name not in PROTOCOLS:
            continue
        if isinstance(member, (property, functools.cached_property, staticmethod, classmethod)) or inspect.isfunction(
            member
        ):
            found[name] = member
    return found
