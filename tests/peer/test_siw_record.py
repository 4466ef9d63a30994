"""The record of siw's reactions is complete, and the page says in words every difference that is in it."""

import json

from scripts.docs.peer_siw import PAGE, RECORD
from softndk.peer import Verdict, shipped


def record() -> dict[str, list[dict[str, object]]]:
    found: dict[str, list[dict[str, object]]] = json.loads(RECORD.read_text(encoding="utf-8"))["outcomes"]
    return found


def test_every_scenario_has_been_played_in_each_role() -> None:
    wanted = {f"{name}/{role.value}" for name, one in shipped().items() for role in one.roles}
    assert set(record()) == wanted


def test_every_difference_is_explained() -> None:
    """Outside of the table, each scenario in which siw was different is named."""
    prose = PAGE.current().partition("## Every reaction")[0]
    differing = {
        key.partition("/")[0]
        for key, known in record().items()
        if any(Verdict(str(one["verdict"])) is Verdict.DIFFERENT for one in known)
    }
    assert differing
    assert [name for name in sorted(differing) if f"`{name}`" not in prose] == []


def test_every_scenario_that_the_page_names_is_there() -> None:
    prose = PAGE.current().partition("## Every reaction")[0]
    named = {word for word in prose.split("`")[1::2] if "-" in word and " " not in word}
    assert {name for name in named if name.count("-") and name not in shipped()} <= set()
