"""Makes docs/reference/api.md: every public name, and the members of those that have no page of their own.

Run: ``python -m scripts.docs.api_reference`` from the project's root; ``--check`` only compares.
"""

import functools
import inspect
import re
import sys
from collections.abc import Iterator
from dataclasses import fields, is_dataclass
from enum import Enum
from typing import Any

import softndk
import softndk.testing
from scripts.docs.generated import Page, first_sentence, table
from scripts.docs.ndkpi import objects

PLAIN_NAMES = {  # what has no docstring at run time
    "Address": "A numeric IPv4 or IPv6 address (with %scope where needed) and a port; nothing is ever resolved",
    "LocalToken": "An int that goes into SGEs and never to a peer",
    "RemoteToken": "An int that goes to the peer",
    "Memory": "What can be registered: anything with the buffer protocol, or a NumPy array",
    "Sgl": "One Sge or a sequence of them",
    "MAXULONG": "0xFFFFFFFF: no limit, in interrupt moderation",
    "PAGE_SIZE": "4096: the page of logical addresses and fast registers",
}

ATTRIBUTES = {  # set by the constructor, so that the class alone does not show them
    "Mdl": ("address", "length"),
    "LogicalAddressMapping": ("pages", "fbo", "length", "address"),
    "NdkError": ("status", "provider_error_code", "fault", "private_data"),
}

GROUPS = (
    ("Adapter", ("open_adapter", "Adapter")),
    ("Memory", ("Pd", "Mr", "Mw", "Mdl", "LogicalAddressMapping", "Sge", "Memory", "Sgl", "LocalToken", "RemoteToken")),
    ("Queues", ("Qp", "Srq", "Cq", "Result")),
    (
        "Connections",
        ("Connector", "Listener", "SharedEndpoint", "ConnectionData", "Disconnect", "Address"),
    ),
    ("Every object, and waiting", ("NdkObject", "Pending")),
    (
        "Settings and information",
        (
            "IwarpConfig",
            "TransportConfig",
            "AdapterInfo",
            "AdapterStatistics",
            "ConnectionEntry",
            "EndpointEntry",
            "NdkVersion",
        ),
    ),
    (
        "Flags and types",
        (
            "OpFlag",
            "MrFlag",
            "CqNotify",
            "OperationType",
            "ObjectType",
            "RdmaTechnology",
            "AdapterFlag",
            "Status",
            "MAXULONG",
            "PAGE_SIZE",
        ),
    ),
)


def parts() -> dict[str, str]:
    """One table of names, then one of members for each class."""
    grouped = {name for _, names in GROUPS for name in names}
    rest = [name for name in softndk.__all__ if name not in grouped]
    errors = tuple(name for name in rest if _is_error(name) or name == "Fault")
    others = tuple(name for name in rest if name not in errors)
    text = []
    for title, names in (*GROUPS, *([("Others", others)] if others else []), ("Errors", errors)):
        text += [f"## {title}", table(("Name", "What it is"), [(_link(name), _line(name)) for name in names])]
        for name in filter(lambda name: name not in PAGES, names):
            rows = [] if _is_error(name) and name != "NdkError" else list(_members(getattr(softndk, name)))
            if rows:
                text += [f"### {name}", table(("Member", "What it does"), rows)]
    rows = [(f"`{name}`", first_sentence(inspect.getdoc(getattr(softndk.testing, name)))) for name in TESTING]
    text += ["## softndk.testing", table(("Name", "What it is"), rows)]
    return {"names": "\n\n".join(text)}


TESTING = softndk.testing.__all__
PAGES = {item.cls.__name__: item.page for item in objects().values()} | {"NdkObject": "object", "Pending": "object"}


def _link(name: str) -> str:
    return f"[`{name}`](objects/{PAGES[name]}.md)" if name in PAGES else f"`{name}`"


def _is_error(name: str) -> bool:
    thing = getattr(softndk, name)
    return isinstance(thing, type) and issubclass(thing, softndk.NdkError)


def _line(name: str) -> str:
    """One line on a public name; a class whose docstring sends the reader to its module gets the module's."""
    if name in PLAIN_NAMES:
        return PLAIN_NAMES[name]
    thing = getattr(softndk, name)
    text = inspect.getdoc(thing) or ""
    if text.startswith("See the module."):
        module = inspect.getmodule(thing)
        made = first_sentence(text.removeprefix("See the module.").strip())
        return ". ".join(filter(None, (first_sentence(module.__doc__ if module else ""), made)))
    return first_sentence(text)


def _members(thing: Any) -> Iterator[tuple[str, str]]:
    """Members that a class defines itself, in the order of its source."""
    if not isinstance(thing, type):
        return
    if issubclass(thing, Enum):
        for name, member in thing.__members__.items():
            yield f"`{name}`", hex(member.value)
        return
    if thing in (softndk.IwarpConfig, softndk.AdapterInfo):
        yield "fields", "see [limits](limits.md)"
    elif is_dataclass(thing):
        yield "fields", ", ".join(f"`{item.name}`" for item in fields(thing) if not item.name.startswith("_"))
    elif thing.__name__ in ATTRIBUTES:
        yield "attributes", ", ".join(f"`{name}`" for name in ATTRIBUTES[thing.__name__])
    for name, member in vars(thing).items():
        if name.startswith("_") and name not in ("__getitem__", "__iter__", "__aiter__", "__await__"):
            continue
        if isinstance(member, (property, functools.cached_property)):
            yield f"`{name}`", first_sentence(inspect.getdoc(member))
        elif isinstance(member, (staticmethod, classmethod)) or inspect.isfunction(member):
            function = member.__func__ if isinstance(member, (staticmethod, classmethod)) else member
            yield f"`{name}({_arguments(function)})`", first_sentence(inspect.getdoc(function))


def _arguments(function: Any) -> str:
    """The parameters without types: defaults as they are, `self` left out."""
    shown = []
    star = False
    for name, parameter in inspect.signature(function).parameters.items():
        if name == "self":
            continue
        if parameter.kind is parameter.KEYWORD_ONLY and not star:
            shown.append("*")
            star = True
        if parameter.default is parameter.empty:
            shown.append(name)
        else:
            shown.append(f"{name}={_default(parameter.default)}")
    return ", ".join(shown)


def _default(value: Any) -> str:
    if isinstance(value, Enum):
        return f"{type(value).__name__}.{value.name}"
    return re.sub(r"^NdkVersion\(major=(\d+), minor=(\d+)\)$", r"NdkVersion(\1, \2)", repr(value))


PAGE = Page("docs/reference/api.md", "api_reference", parts)

if __name__ == "__main__":
    sys.exit(PAGE.main())
