"""Draws the life of a connection from the table that the code obeys (softndk.iwarp.qp_state) as Mermaid.

Run: ``python -m scripts.docs.state_diagram`` from the project's root; ``--check`` only compares.
"""

import sys
from collections import defaultdict

from scripts.docs.generated import Page, table
from softndk.iwarp.qp_state import TRANSITIONS, State, Step

MANY = 4
"""A step that leads from so many states into one is told in a table: as arrows it would hide the others."""


def parts() -> dict[str, str]:
    """The diagram, and the steps that it leaves out."""
    sources: dict[tuple[Step, State], list[State]] = defaultdict(list)
    for (source, step), target in TRANSITIONS.items():
        sources[step, target].append(source)
    drawn = {edge for edge, origins in sources.items() if len(origins) < MANY}
    return {"diagram": _diagram(sources, drawn), "other steps": _other_steps(sources, drawn)}


def _diagram(sources: dict[tuple[Step, State], list[State]], drawn: set[tuple[Step, State]]) -> str:
    lines = ["```mermaid", "stateDiagram-v2"]
    lines += [f'    state "{state.value}" as {state.name}' for state in State]
    lines.append("    [*] --> IDLE")
    for (step, target), origins in sources.items():
        if (step, target) in drawn:
            lines += [f"    {origin.name} --> {target.name}: {step.value}" for origin in origins]
    ends = set(State) - {source for source, _ in TRANSITIONS}
    lines += [f"    {state.name} --> [*]" for state in State if state in ends]
    lines.append("```")
    return "\n".join(lines)


def _other_steps(sources: dict[tuple[Step, State], list[State]], drawn: set[tuple[Step, State]]) -> str:
    rows = [
        (step.value, ", ".join(origin.value for origin in origins), target.value)
        for (step, target), origins in sources.items()
        if (step, target) not in drawn
    ]
    return table(("Step", "From", "To"), rows)


PAGE = Page("docs/explain/connection.md", "state_diagram", parts)

if __name__ == "__main__":
    sys.exit(PAGE.main())
