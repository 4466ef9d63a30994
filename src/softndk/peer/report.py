"""Outcomes for people: a line per scenario, frames as they pass, a summary, a table for documents."""

from collections import Counter
from collections.abc import Sequence
from typing import Final

from softndk.peer.frames import Seen
from softndk.peer.player import Outcome
from softndk.peer.reactions import Verdict
from softndk.peer.scenario import Scenario

__all__ = ["COLORS", "frame_line", "list_lines", "outcome_lines", "summary_lines"]

COLORS: Final = {
    Verdict.REQUIRED: "green",
    Verdict.ALLOWED: "green",
    Verdict.OTHER_FORM: "yellow",
    Verdict.DIFFERENT: "red",
    Verdict.UNREACHED: "red",
}
VERDICT_WIDTH: Final = max(len(verdict.value) for verdict in Verdict)
ROLE_LETTERS: Final = {"initiator": "I", "responder": "R"}


def outcome_lines(outcome: Outcome, width: int) -> list[str]:
    """What came of a scenario; width: of the column of names."""
    head = f"{outcome.verdict.value:{VERDICT_WIDTH}}  {outcome.scenario.name:{width}}  "
    lines = [f"{head}{outcome.text}"]
    lines += [f"{'':{len(head)}}{note}" for note in outcome.notes]
    return lines


def frame_line(seen: Seen) -> str:
    """One frame, as it has passed: `>` we sent it, `<` the other side did."""
    return f"    {seen.seconds:9.6f} {'>' if seen.sent else '<'} {seen.title:26} {seen.summary}".rstrip()


def list_lines(scenarios: Sequence[Scenario]) -> list[str]:
    """Name, sides that the player can be (I initiator, R responder), what it needs, title, rule."""
    width = max(len(scenario.name) for scenario in scenarios)
    title_width = max(len(scenario.title) for scenario in scenarios)
    lines = []
    for scenario in scenarios:
        roles = "".join(ROLE_LETTERS[role.value] for role in scenario.roles)
        ulp = "rping" if scenario.rping else ""
        lines.append(f"{scenario.name:{width}}  {roles:2}  {ulp:5}  {scenario.title:{title_width}}  {scenario.rule}")
    return lines


def summary_lines(outcomes: Sequence[Outcome]) -> list[str]:
    """How many of each verdict; each unusual form once."""
    verdicts = Counter(outcome.verdict for outcome in outcomes)
    counts = ", ".join(f"{verdicts[verdict]} {verdict.value}" for verdict in Verdict if verdicts[verdict])
    plural = "" if len(outcomes) == 1 else "s"
    lines = [f"{len(outcomes)} scenario{plural}: {counts}"]
    forms = Counter(text for outcome in outcomes for text in outcome.form)
    lines += [f"  in {count} of them: {text}" for text, count in forms.most_common()]
    return lines
