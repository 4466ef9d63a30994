"""Imports point down only, and the protocol core can reach neither a socket nor a thread nor a clock.

The checker reads the sources with `ast` and runs nothing, so imports inside functions and under TYPE_CHECKING
count like any other.
"""

import ast
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import NamedTuple

import pytest

SOURCE_ROOT = Path(__file__).parents[2] / "src"

# Lowest layer first. "values" are the modules beside the packages; "face" is softndk/__init__.py.
LAYERS = (
    {"values"},
    {"wire"},
    {"memory", "queues"},
    {"iwarp"},
    {"datapath"},
    {"trace"},
    {"drivers"},
    {"ndk"},
    {"face"},
    {"testing", "cli", "peer", "ulp"},
    {"conformance"},
)
RANK = {package: rank for rank, layer in enumerate(LAYERS) for package in layer}

# Narrower than its rank would allow: the whole list of what such a package may import of softndk.
ONLY = {"wire": {"wire"}, "trace": {"trace", "wire", "values"}}

# Nothing below the drivers waits, sends or asks for the time.
SANS_IO = {"values", "wire", "memory", "queues", "iwarp", "datapath"}
IO_AND_CLOCKS = {
    "_socket",
    "_thread",
    "anyio",
    "asyncio",
    "concurrent",
    "datetime",
    "multiprocessing",
    "sched",
    "select",
    "selectors",
    "signal",
    "socket",
    "socketserver",
    "ssl",
    "subprocess",
    "threading",
    "time",
    "trio",
}


class Import(NamedTuple):
    """One import: `target` is the absolute dotted name, with the imported name where that may be a module."""

    path: str
    line: int
    target: str


def package_of(module: str) -> str:
    """Name the part of the project that an absolute dotted name under softndk belongs to."""
    parts = module.split(".")
    if len(parts) == 1:
        return "face"
    if parts[1] == "__main__":
        return "cli"
    return parts[1] if parts[1] in RANK else "values"


def module_of(path: str) -> str:
    """'softndk/wire/mpa.py' is softndk.wire.mpa, 'softndk/wire/__init__.py' is softndk.wire."""
    return path.removesuffix(".py").removesuffix("/__init__").replace("/", ".")


def imports_of(path: str, source: str, modules: set[str]) -> Iterator[Import]:
    """Yield every import in one file. `modules`: all of the project's; `from a import b` may name one."""
    for node in ast.walk(ast.parse(source, path)):
        if isinstance(node, ast.Import):
            for name in node.names:
                yield Import(path, node.lineno, name.name)
        elif isinstance(node, ast.ImportFrom):
            base = _absolute(path, node)
            for name in node.names:
                full = f"{base}.{name.name}"
                yield Import(path, node.lineno, full if full in modules else base)
        elif isinstance(node, ast.Call) and _is_dynamic_import(node.func):
            match node.args:
                case [ast.Constant(value=str(target)), *_]:
                    yield Import(path, node.lineno, target)


def _absolute(path: str, node: ast.ImportFrom) -> str:
    if not node.level:
        return node.module or ""
    module = module_of(path).split(".")
    package = module if path.endswith("/__init__.py") else module[:-1]
    anchor = package[: len(package) - node.level + 1]
    return ".".join([*anchor, *([node.module] if node.module else [])])


def _is_dynamic_import(function: ast.expr) -> bool:
    name = function.attr if isinstance(function, ast.Attribute) else getattr(function, "id", "")
    return name in ("import_module", "__import__")


def offences(sources: Mapping[str, str]) -> list[str]:
    """Check a tree of sources, given as path under src/ -> text. Each offence is one line for a person."""
    modules = {module_of(path) for path in sources}
    found: list[str] = []
    graph: dict[str, set[str]] = {}
    for path, source in sources.items():
        importer = package_of(module_of(path))
        for item in imports_of(path, source, modules):
            where = f"{item.path}:{item.line}: {importer}"
            top = item.target.split(".")[0]
            if top == "softndk":
                imported = package_of(item.target)
                graph.setdefault(importer, set()).add(imported)
                if RANK[imported] > RANK[importer]:
                    found.append(f"{where} imports {item.target}, which is above it")
                elif imported not in ONLY.get(importer, RANK):
                    found.append(f"{where} imports {item.target}, outside {sorted(ONLY[importer])}")
            elif importer in SANS_IO and top in IO_AND_CLOCKS:
                found.append(f"{where} imports {item.target}, but does no I/O and has no clock")
    found += [f"packages import each other in a circle: {' -> '.join(c)}" for c in cycles(graph)]
    return found


def cycles(graph: Mapping[str, set[str]]) -> list[list[str]]:
    """Each circle among packages once, from its alphabetically first member on. A self-import is none."""
    found: list[list[str]] = []

    def walk(path: list[str]) -> None:
        for following in sorted(graph.get(path[-1], ())):
            if following == path[0] and len(path) > 1:
                found.append([*path, following])
            elif following > path[0] and following not in path:
                walk([*path, following])

    for start in sorted(graph):
        walk([start])
    return found


def real_sources() -> dict[str, str]:
    return {
        path.relative_to(SOURCE_ROOT).as_posix(): path.read_text(encoding="utf-8")
        for path in SOURCE_ROOT.glob("softndk/**/*.py")
    }


def test_the_project_keeps_its_layers() -> None:
    assert offences(real_sources()) == []


def test_every_package_has_a_layer() -> None:
    """A package that LAYERS does not know would pass for one of the values, which everything may import."""
    packages = {path.split("/")[1] for path in real_sources() if path.count("/") > 1}
    assert packages <= RANK.keys()


def test_the_core_is_there() -> None:
    """An empty or moved tree must not pass for a clean one."""
    assert {"values", "wire", "memory", "queues", "iwarp", "datapath", "drivers", "ndk"} <= {
        package_of(module_of(path)) for path in real_sources()
    }


@pytest.mark.parametrize(
    ("path", "source", "complaint"),
    [
        ("softndk/iwarp/inbound.py", "import softndk.drivers.tcp", "softndk.drivers.tcp, which is above it"),
        ("softndk/iwarp/inbound.py", "from softndk import drivers", "softndk.drivers, which is above it"),
        ("softndk/iwarp/inbound.py", "from ..ndk.qp import Qp", "softndk.ndk.qp, which is above it"),
        ("softndk/iwarp/__init__.py", "from ..ndk import Qp", "softndk.ndk, which is above it"),
        ("softndk/iwarp/__init__.py", "from .. import Status", "imports softndk, which is above it"),
        ("softndk/errors.py", "from softndk.wire import mpa", "softndk.wire, which is above it"),
        ("softndk/ndk/qp.py", "from softndk.cli import main", "softndk.cli, which is above it"),
        ("softndk/ndk/qp.py", "from softndk.testing import pair", "softndk.testing, which is above it"),
        ("softndk/wire/ddp.py", "from softndk.errors import Fault", "softndk.errors, outside ['wire']"),
        ("softndk/trace/decode.py", "from softndk.iwarp import framing", "softndk.iwarp, outside"),
        ("softndk/iwarp/framing.py", "import socket", "socket, but does no I/O"),
        ("softndk/iwarp/framing.py", "from time import monotonic", "time, but does no I/O"),
        ("softndk/memory/tokens.py", "import threading as t", "threading, but does no I/O"),
        ("softndk/queues/work.py", "def f():\n    import asyncio.events", "asyncio.events, but does no I/O"),
        ("softndk/datapath/abc.py", "if TYPE_CHECKING:\n    import selectors", "selectors, but does no I/O"),
        (
            "softndk/wire/mpa.py",
            "import importlib\nimportlib.import_module('select')",
            "select, but does no I/O",
        ),
        ("softndk/errors.py", "__import__('softndk.ndk')", "softndk.ndk, which is above it"),
    ],
)
def test_an_offending_import_is_found(path: str, source: str, complaint: str) -> None:
    tree = {"softndk/drivers/__init__.py": "", path: f'"""Head."""\n{source}\n'}
    [found] = offences(tree)
    assert found.startswith(f"{path}:")
    assert complaint in found


def test_packages_of_one_layer_may_not_import_each_other() -> None:
    """Each import alone is allowed: only the two together make the circle."""
    there = {"softndk/memory/sge.py": "from softndk.queues import work"}
    back = {"softndk/queues/work.py": "from softndk.memory import sge"}
    assert offences(there) == []
    assert offences(back) == []
    assert offences(there | back) == ["packages import each other in a circle: memory -> queues -> memory"]


def test_what_is_allowed_is_not_reported() -> None:
    tree = {
        "softndk/__init__.py": "from softndk.ndk.qp import Qp\nfrom softndk.status import Status",
        "softndk/status.py": "from enum import IntEnum",
        "softndk/wire/crc32c.py": "import crc32c\nfrom . import ddp",
        "softndk/wire/ddp.py": "import struct",
        "softndk/trace/decode.py": "import time\nfrom softndk.wire import ddp\nfrom ..status import Status",
        "softndk/drivers/tcp.py": "import socket\nfrom softndk.iwarp import events",
        "softndk/ndk/qp.py": "from softndk.drivers import tcp\nfrom .pd import Pd",
        "softndk/testing/pair.py": "import softndk",
    }
    assert offences(tree) == []
