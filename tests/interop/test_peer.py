"""Every scenario of `softndk peer` against siw, as rping's partner: it reacts as it is recorded to do.

peer_siw.json is the record, and docs/reference/peer-siw.md is made of it. A scenario may have several known outcomes: some
of siw's reactions depend on what its threads, or rping's, do at that moment; so one that the standards ask for or allow
passes, also if it is not on the record. SOFTNDK_PEER_RECORD=1 adds what comes to the record; look at the difference before
it is committed.
"""

import json
import os
import socket
from pathlib import Path
from typing import Any

import pytest

from scripts.interop.guest import HOST_ADDRESS, Guest
from softndk.peer import Outcome, Role, connect, play, shipped
from softndk.peer.report import frame_line
from tests.interop.cases import DEFAULTS, Active, Case
from tests.interop.peer import PATIENCE_S

RECORD = Path(__file__).with_name("peer_siw.json")
SCENARIOS = shipped()
TIMEOUT_S = 8.0
"""Longer than siw's own 5 s for a Request."""
SMOKE = ("bad-crc", "invalidate-unknown-token", "region-write-beyond")


def cases(role: Role, active: Active) -> pytest.MarkDecorator:
    found = [
        Case("softndk peer", active, DEFAULTS, name, smoke=name in SMOKE)
        for name, one in SCENARIOS.items()
        if role in one.roles
    ]
    return pytest.mark.parametrize("case", found, indirect=True, ids=str)


@cases(Role.INITIATOR, Active.SOFTNDK)
def test_as_initiator(case: Case, guest: Guest) -> None:
    """Against `rping -s`, a new one for each scenario."""
    port = guest.next_port()
    with guest.serving(port, "rping", "-s", "-a", "0.0.0.0", "-p", port.guest):
        sock = connect(("127.0.0.1", port.here), PATIENCE_S)
        outcome = play(SCENARIOS[case.detail], sock, Role.INITIATOR, timeout_s=TIMEOUT_S)
    judge(outcome, guest)


@cases(Role.RESPONDER, Active.SIW)
def test_as_responder(case: Case, guest: Guest) -> None:
    """Against `rping -c -C 1`, which connects to the player."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        listener.settimeout(PATIENCE_S)
        address = ("-a", HOST_ADDRESS, "-p", listener.getsockname()[1])
        with guest.start("rping", "-c", *address, "-C", 1):
            sock, _ = listener.accept()
            outcome = play(SCENARIOS[case.detail], sock, Role.RESPONDER, timeout_s=TIMEOUT_S)
    judge(outcome, guest)


def judge(outcome: Outcome, guest: Guest) -> None:
    """The outcome must be a known one, or as good as one that is; or it becomes one."""
    record: dict[str, Any] = json.loads(RECORD.read_text(encoding="utf-8")) if RECORD.exists() else {}
    known = record.get("outcomes", {}).get(f"{outcome.scenario.name}/{outcome.role.value}", [])
    found = as_recorded(outcome)
    if is_known(found, known):
        return
    if os.environ.get("SOFTNDK_PEER_RECORD"):
        versions = guest.image.versions
        record["versions"] = {name: versions[name] for name in ("linux", "rdmacm-utils", "ibverbs-providers")}
        record.setdefault("outcomes", {})[f"{outcome.scenario.name}/{outcome.role.value}"] = [*known, found]
        RECORD.write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")
        return
    if outcome.good and known:
        return
    story = "\n".join(map(frame_line, outcome.story))
    pytest.fail(f"{outcome.verdict.value}: {outcome.text}\n{story}\nknown: {known}")


def as_recorded(outcome: Outcome) -> dict[str, Any]:
    return {
        "verdict": outcome.verdict.value,
        "reaction": outcome.reaction.words,
        "form": list(outcome.form),
        "notes": list(outcome.notes),
        "text": outcome.text,
    }


def is_known(found: dict[str, Any], known: list[dict[str, Any]]) -> bool:
    """Texts hold times and addresses, and do not count."""
    keys = ("verdict", "reaction", "form", "notes")
    return any(all(found[key] == one[key] for key in keys) for one in known)
