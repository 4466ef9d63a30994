"""Draws the state machines (scripts.docs.machines) into docs/pictures/*.svg, and puts them and their tables into pages.

Where a state stands in a picture is said here; which states and steps there are is not: a state without a place is an
error. Run: ``python -m scripts.docs.state_diagram`` from the project's root; ``--check`` only compares.
"""

import functools
import sys
import textwrap
from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from scripts.docs.generated import File, Page, table
from scripts.docs.machines import MACHINES, Machine
from scripts.docs.pictures import Arrow, Drawing, draw

SCRIPT: Final = "state_diagram"
FOLDER: Final = "docs/pictures"
WIDEST: Final = 38
"""Letters of one line at an arrow."""
APART: Final = 20
"""Pixels by which two arrows between the same two states swing apart, unless the layout says otherwise."""


@dataclass(frozen=True, slots=True)
class Layout:
    """How a machine is drawn. `places`: column and row by state. `bends`, `at`: of single arrows, by their two states.

    `hidden`: steps that are told in the table only. `gather`: the place of the box of a step that leads from many states.
    """

    title: str
    file: str
    places: Mapping[str, tuple[float, float]]
    bends: Mapping[tuple[str, str], float]
    at: Mapping[tuple[str, str], float]
    cell: tuple[int, int] = (230, 92)
    hidden: frozenset[str] = frozenset()
    gather: Mapping[str, tuple[float, float]] | None = None


LAYOUTS: Final = {
    "connection": Layout(
        "The states of a connection",
        "connection",
        {
            "idle": (1, 0),
            "requesting": (0, 1.3),
            "awaiting request": (2, 1.3),
            "accepted": (0, 2.3),
            "incoming": (2, 2.3),
            "accepting": (2, 3.3),
            "connected": (0.9, 3.8),
            "peer closed": (0.2, 4.9),
            "disconnecting": (1.6, 4.9),
            "closed": (1.6, 5.9),
            "terminating": (4.7, 1.1),
            "failed": (4.7, 4.3),
        },
        {("idle", "requesting"): 26, ("requesting", "idle"): 26},
        {("incoming", "connected"): 0.42, ("requesting", "idle"): 0.45},
        gather={"Terminate or last frames to send": (2.9, 1.1), "TCP lost, or given up": (2.9, 4.3)},
    ),
    "region": Layout(
        "The states of a normal region",
        "region",
        {"not registered": (0, 0), "registered": (1.3, 0), "closed": (0.65, 1.2)},
        {("not registered", "registered"): -18, ("registered", "not registered"): -18},
        {},
    ),
    "fast-register region": Layout(
        "The states of a fast-register region",
        "fast-register-region",
        {"new": (0, 0), "invalid": (1.3, 0), "valid": (3, 0), "closed": (1.3, 1.7)},
        {("invalid", "valid"): -24, ("valid", "invalid"): -34, ("valid", "closed"): -20},
        {("valid", "closed"): 0.6},
    ),
    "window": Layout(
        "The states of a memory window",
        "window",
        {"invalid": (0, 0), "bound": (1.5, 0), "closed": (0.75, 1.3)},
        {("invalid", "bound"): -20, ("bound", "invalid"): -24},
        {},
    ),
    "deferral": Layout(
        "What is held back in an initiator queue",
        "deferral",
        {
            "nothing held back": (0, 0),
            "held back": (2.2, 0),
            "posts are refused": (0, 1.6),
            "posts are cancelled": (2.2, 1.6),
        },
        {("nothing held back", "held back"): -40, ("held back", "nothing held back"): -40},
        {("nothing held back", "posts are cancelled"): 0.75, ("held back", "posts are refused"): 0.75},
        cell=(260, 110),
    ),
    "arm": Layout(
        "The arm of a completion queue",
        "arm",
        {"not armed": (0, 1.5), "armed ERRORS": (2.2, 0), "armed SOLICITED": (2.2, 1.5), "armed ANY": (2.2, 3.5)},
        {
            ("not armed", "armed ERRORS"): -26,
            ("armed ERRORS", "not armed"): -26,
            ("not armed", "armed SOLICITED"): -24,
            ("armed SOLICITED", "not armed"): -34,
            ("not armed", "armed ANY"): -16,
            ("armed ANY", "not armed"): -56,
            ("armed ERRORS", "armed ANY"): -120,
        },
        {
            ("not armed", "armed ERRORS"): 0.6,
            ("armed ERRORS", "not armed"): 0.4,
            ("not armed", "armed SOLICITED"): 0.6,
            ("armed SOLICITED", "not armed"): 0.28,
            ("not armed", "armed ANY"): 0.72,
            ("armed ANY", "not armed"): 0.45,
        },
        cell=(300, 104),
    ),
    "shared receive queue": Layout(
        "The notification of a shared receive queue",
        "shared-receive-queue",
        {"armed": (0, 0), "not armed": (1.9, 0)},
        {("armed", "not armed"): -34, ("not armed", "armed"): -30},
        {},
    ),
    "listener": Layout(
        "The states of a listener",
        "listener",
        {
            "idle": (0, 0),
            "listening": (1.4, 0),
            "idle, paused": (0, 1.2),
            "listening, paused": (1.4, 1.2),
            "closing": (3.1, 0.6),
            "closed": (3.1, 2.5),
        },
        {
            ("idle", "idle, paused"): 22,
            ("idle, paused", "idle"): 22,
            ("listening", "listening, paused"): 22,
            ("listening, paused", "listening"): 22,
        },
        {},
        gather={"close, its connectors closed": (1.4, 2.5)},
    ),
    "close": Layout(
        "The close of an object",
        "close",
        {"open": (0, 0), "open, needed": (1.6, 0), "closing": (1.6, 1.3), "closed": (0, 1.3)},
        {("open", "open, needed"): -24, ("open, needed", "open"): -24},
        {},
    ),
}


def picture(name: str) -> str:
    """The SVG of one machine. Raises KeyError: a state has no place in the layout."""
    layout, machine = LAYOUTS[name], MACHINES[name]()
    gather = layout.gather or {}
    words: dict[tuple[str, str], list[str]] = defaultdict(list)
    many: dict[tuple[str, str], list[str]] = defaultdict(list)
    for (source, step), outcome in machine.moves.items():
        if source != outcome.state and step not in layout.hidden:
            (many[step, outcome.state] if step in gather else words[source, outcome.state]).append(
                source if step in gather else step
            )
    places = {state: layout.places[state] for state in machine.states}
    arrows = [
        Arrow(
            source,
            target,
            tuple(line for step in steps for line in _wrapped(step)),
            layout.bends.get((source, target), APART if (target, source) in words else 0),
            layout.at.get((source, target), 0.5),
        )
        for (source, target), steps in words.items()
    ]
    groups = []
    for (step, target), sources in many.items():
        box = "\n".join(["from any of", *sources])
        groups.append(box)
        places[box] = gather[step]
        arrows.append(Arrow(box, target, (step,)))
    ends = frozenset(machine.states) - {source for source, outcome in _moving(machine)}
    return draw(Drawing(layout.title, places, tuple(arrows), layout.cell, tuple(groups), ends))


def _wrapped(words: str) -> list[str]:
    """Words for an arrow: on two lines of like length where one would be too long."""
    return [words] if len(words) <= WIDEST else textwrap.wrap(words, len(words) // 2 + 4)


def _moving(machine: Machine) -> list[tuple[str, str]]:
    return [(source, outcome.state) for (source, _), outcome in machine.moves.items() if source != outcome.state]


def picture_link(name: str, up: str) -> str:
    """The picture in Markdown. `up`: from the page's folder to docs/."""
    layout = LAYOUTS[name]
    return f"![{layout.title}]({up}pictures/{layout.file}.svg)"


def step_table(name: str) -> str:
    """What each step does in each state."""
    machine = MACHINES[name]()
    rows = [(step, *(_cell(machine, state, step) for state in machine.states)) for step in machine.steps]
    return table(("", *machine.states), rows)


def _cell(machine: Machine, state: str, step: str) -> str:
    outcome = machine.moves.get((state, step))
    if outcome is None:
        return ""
    told = ", notification" if outcome.told else ""
    if outcome.refusal:
        return outcome.refusal
    return f"stays{told}" if outcome.state == state else f"{outcome.state}{told}"


def steps_of_connection() -> str:
    """Every step of a connection, one line each."""
    machine = MACHINES["connection"]()
    found: dict[tuple[str, str], list[str]] = defaultdict(list)
    for (source, step), outcome in machine.moves.items():
        found[step, outcome.state].append(source)
    return table(("Step", "From", "To"), [(step, ", ".join(origins), to) for (step, to), origins in found.items()])


def _parts(up: str, *names: str, pictures: bool = True, tables: bool = True) -> dict[str, str]:
    made = {}
    for name in names:
        if pictures:
            made[f"{name} picture"] = picture_link(name, up)
        if tables:
            made[f"{name} steps"] = steps_of_connection() if name == "connection" else step_table(name)
    return made


def _page(path: str, *names: str, tables: bool = True) -> Page:
    up = "../" * (path.count("/") - 1)
    return Page(path, SCRIPT, functools.partial(_parts, up, *names, tables=tables))


PAGES: Final = (
    *(
        File(f"{FOLDER}/{layout.file}.svg", SCRIPT, functools.partial(picture, name))
        for name, layout in LAYOUTS.items()
    ),
    _page("docs/explain/connection.md", "connection", "listener", tables=False),
    _page("docs/explain/memory.md", "region", "fast-register region", "window", tables=False),
    _page("docs/explain/completion.md", "arm", "shared receive queue", tables=False),
    _page("docs/explain/deferral.md", "deferral"),
    _page("docs/explain/closing.md", "close"),
    _page("docs/reference/objects/connector.md", "connection"),
    _page("docs/reference/objects/listener.md", "listener"),
    _page("docs/reference/objects/mr.md", "region", "fast-register region"),
    _page("docs/reference/objects/mw.md", "window"),
    _page("docs/reference/objects/cq.md", "arm"),
    _page("docs/reference/objects/srq.md", "shared receive queue"),
    _page("docs/reference/objects/object.md", "close"),
)

if __name__ == "__main__":
    sys.exit(max(page.main() for page in PAGES))
