"""Makes the table of docs/reference/peer-siw.md: what Linux's soft-iWARP did in every scenario of `softndk peer`.

The results are those that tests/interop/test_peer.py has recorded and compares with. Run: ``python -m
scripts.docs.peer_siw`` from the project's root; ``--check`` only compares.
"""

import json
import re
import sys
from collections import Counter
from typing import Any

from scripts.docs.generated import ROOT, Page, table
from softndk.peer import Verdict, shipped

RECORD = ROOT / "tests/interop/peer_siw.json"


def parts() -> dict[str, str]:
    record = json.loads(RECORD.read_text(encoding="utf-8"))
    return {"versions": _versions(record), "summary": _summary(record), "reactions": _reactions(record)}


def _versions(record: dict[str, Any]) -> str:
    names = {
        "linux": "Linux",
        "rdmacm-utils": "rping (rdmacm-utils)",
        "ibverbs-providers": "libsiw (ibverbs-providers)",
    }
    versions = record["versions"]
    return ", ".join(f"{text} {versions[name]}" for name, text in names.items())


def _summary(record: dict[str, Any]) -> str:
    outcomes = list(record["outcomes"].values())
    worst = Counter(max((Verdict(one["verdict"]) for one in known), key=list(Verdict).index) for known in outcomes)
    lines = [f"{len(outcomes)} played (a scenario that both sides can begin counts twice):", ""]
    lines += [f"* {worst[verdict]} {verdict.value}" for verdict in Verdict if worst[verdict]]
    forms = Counter(text for known in outcomes for text in {text for one in known for text in one["form"]})
    lines += ["", "Unusual forms, and in how many of them:", ""]
    lines += [f"* {count}: {text}" for text, count in forms.most_common()]
    return "\n".join(lines)


def _reactions(record: dict[str, Any]) -> str:
    rows = []
    for one in shipped().values():
        for role in one.roles:
            known = record["outcomes"].get(f"{one.name}/{role.value}", [])
            verdicts = "; at times: ".join(outcome["verdict"] for outcome in known) or "not played"
            texts = "; at times: ".join(_text(outcome) for outcome in known)
            required = " or ".join(reaction.words for reaction in one.required)
            rows.append((f"`{one.name}`", role.value[0].upper(), one.title, required, texts, verdicts))
    return table(("Scenario", "", "What is tried", "Required", "siw", "Verdict"), rows)


def _text(outcome: dict[str, Any]) -> str:
    """The reaction, without what the other columns say and without what differs from run to run."""
    text: str = outcome["text"]
    if outcome["verdict"] == Verdict.DIFFERENT.value:
        text = text.removeprefix("got ").partition("; RFC ")[0].partition("; rping's ")[0]
    elif outcome["verdict"] == Verdict.OTHER_FORM.value:
        text = text.partition(", but ")[0]
    text = re.sub(r" within \d+\.\d s", "", text)
    return re.sub(r"\b0x[0-9a-f]{5,16}\b", "0x...", text)


PAGE = Page("docs/reference/peer-siw.md", "peer_siw", parts)

if __name__ == "__main__":
    sys.exit(PAGE.main())
