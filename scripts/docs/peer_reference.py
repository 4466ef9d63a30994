"""Makes the tables of docs/reference/peer.md: the scenarios that come with softndk, the steps, and their fields.

Run: ``python -m scripts.docs.peer_reference`` from the project's root; ``--check`` only compares.
"""

import sys
from collections import Counter

from scripts.docs.generated import Page, table
from softndk.peer import Role, shipped
from softndk.peer.fields import OctetString
from softndk.peer.frames import FRAME_FIELDS
from softndk.peer.vocabulary import BLOCKS, Field, step_kinds

COMMON_FROM = 5
"""A field that so many steps have is described once for all."""


def parts() -> dict[str, str]:
    return {"scenarios": _scenarios(), "steps": _steps(), "frames": _frames()}


def _scenarios() -> str:
    rows = []
    for one in shipped().values():
        roles = "".join("I" if role is Role.INITIATOR else "R" for role in one.roles)
        required = " or ".join(reaction.words for reaction in one.required)
        allowed = ", ".join(reaction.words for reaction in one.allowed)
        name = f"`{one.name}`" + (" (rping)" if one.rping else "")
        rows.append((name, roles, one.title, one.rule, required, allowed))
    return table(("Scenario", "", "What is tried", "Rule", "Required", "Allowed"), rows)


def _steps() -> str:
    kinds = {**step_kinds(), **BLOCKS}
    shared = Counter(name for kind in kinds.values() for name in kind.fields)
    startup = set(kinds["mpa_request"].fields)
    common = {name for name, count in shared.items() if count >= COMMON_FROM} - {"payload"}
    rows = []
    single: dict[tuple[str, str], list[str]] = {}
    for kind in kinds.values():
        grouped = startup if startup <= set(kind.fields) else common if "bad_crc" in kind.fields else set()
        own = [_field(field) for field in kind.fields.values() if field.name not in grouped]
        if startup <= set(kind.fields):
            own.append("fields of start-up frames")
        elif "bad_crc" in kind.fields:
            own.append("fields of segments")
        if kind.name in BLOCKS:
            own.append("`steps`")
        for field in kind.fields.values():
            if field.name not in grouped:
                single.setdefault((field.name, _kind(field)), []).append(f"`{kind.name}`")
        rows.append((f"`{kind.name}`", kind.summary.replace("`split`", "split"), "; ".join(own)))
    text = [table(("Step", "What it does", "Fields"), rows)]
    for title, names, source in (
        ("start-up frames", startup, "mpa_request"),
        ("segments and FPDUs", common, "write"),
    ):
        fields = [field for field in kinds[source].fields.values() if field.name in names]
        text += [f"Fields of {title}:", table(("Field", "Value"), [(f"`{f.name}`", _kind(f)) for f in fields])]
    rest = [(f"`{name}`", value, ", ".join(steps)) for (name, value), steps in single.items()]
    text += ["All other fields:", table(("Field", "Value", "Of"), rest)]
    return "\n\n".join(text)


def _frames() -> str:
    rows = [(f"`{frame}`", ", ".join(f"`{name}`" for name in names)) for frame, names in FRAME_FIELDS.items()]
    return table(("Frame", "Fields"), rows)


def _kind(field: Field) -> str:
    return "octets" if isinstance(field.kind, OctetString) else field.kind.text


def _field(field: Field) -> str:
    return f"`{field.name}`" + (" (needed)" if field.needed else "")


PAGE = Page("docs/reference/peer.md", "peer_reference", parts)

if __name__ == "__main__":
    sys.exit(PAGE.main())
