"""Plays one scenario on one connection, and says what came of it."""

import socket
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from softndk.peer.frames import Seen
from softndk.peer.link import Ended, Link, OutOfTime
from softndk.peer.peer import Peer, Role
from softndk.peer.reactions import ACCEPTS, Kind, Reaction, Verdict, form_differences, judge
from softndk.peer.scenario import Scenario, ScenarioError, python_problem
from softndk.trace.capture import StreamTap
from softndk.wire.terminate import describe

__all__ = ["Outcome", "connect", "play"]

SHOWN_FRAMES: Final = 3
CLOSE_S: Final = 5.0
"""After a Terminate: how long the other side may take to close."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """What came of one scenario. text: one sentence. notes: what else is worth knowing. story: every frame that passed
    (the last 512 of them).
    """

    scenario: Scenario
    role: Role
    reaction: Reaction
    verdict: Verdict
    text: str
    form: tuple[str, ...]
    notes: tuple[str, ...]
    seconds: float
    story: tuple[Seen, ...]

    @property
    def good(self) -> bool:
        """The other side did what the standards ask for or allow."""
        return self.verdict.good

    def as_dict(self) -> dict[str, object]:
        """In types that JSON knows."""
        return {
            "scenario": self.scenario.name,
            "title": self.scenario.title,
            "rule": self.scenario.rule,
            "role": self.role.value,
            "verdict": self.verdict.value,
            "good": self.good,
            "reaction": self.reaction.words,
            "required": [one.words for one in self.scenario.required],
            "allowed": [one.words for one in self.scenario.allowed],
            "text": self.text,
            "form": list(self.form),
            "notes": list(self.notes),
            "seconds": round(self.seconds, 3),
            "frames": [seen.as_dict() for seen in self.story],
        }


def connect(address: tuple[str, int], seconds: float) -> socket.socket:
    """A TCP connection to play on. Raises: OSError."""
    return socket.create_connection(address, seconds)


def play(
    scenario: Scenario,
    sock: socket.socket,
    role: Role,
    *,
    timeout_s: float = 5.0,
    listener: Callable[[Seen], object] | None = None,
    tap: StreamTap | None = None,
) -> Outcome:
    """Play `scenario` on a connected socket, which is closed in the end, whatever happens.

    timeout_s: for all of it. Raises: ScenarioError: the scenario itself cannot be played, such as a captured value that
        does not fit; ValueError: it does not know this role.
    """
    if role not in scenario.roles:
        raise ValueError(f"{scenario.name} cannot be played as {role.value}")
    begin = time.monotonic()
    link = Link(sock, timeout_s, listener=listener, tap=tap)
    try:
        peer = Peer(link, role)
        reaction = _reaction(scenario, peer, link)
        form: list[str] = []
        notes: list[str] = []
        if link.terminate is not None:
            form = form_differences(link.terminate, link.terminate_header, peer.sent)
            notes = _after_terminate(link)
        if link.no_crc and link.our_startup_valid:
            form.append("its FPDUs have no CRC, although one side has asked for it (RFC 5044 7.1.1)")
        verdict, text = judge(reaction, scenario.required, scenario.allowed, scenario.rule, form)
        return Outcome(
            scenario,
            role,
            reaction,
            verdict,
            text,
            tuple(form),
            tuple(notes),
            time.monotonic() - begin,
            tuple(link.story),
        )
    finally:
        link.close()


def _reaction(scenario: Scenario, peer: Peer, link: Link) -> Reaction:
    try:
        scenario.play(peer)
    except Ended:
        return _end(scenario, peer, link)
    except OutOfTime as missing:
        return _missing(scenario, peer, link, str(missing))
    except ScenarioError:
        raise
    except Exception as error:
        raise ScenarioError(python_problem(scenario.source, error)) from error
    if scenario.accepts and not link.ended:
        return Reaction(Kind.ACCEPTS)
    before = link.received
    try:
        peer.wait_for_end()
    except OutOfTime as missing:
        return Reaction(Kind.SILENCE, detail=f"no {missing}{_came_instead(link, before)}")
    return _how(link)


def _came_instead(link: Link, before: int) -> str:
    """What has come behind that many frames, for a person."""
    count = link.received - before
    frames = [seen for seen in link.story if not seen.sent and seen.frame not in ("fin", "reset", "garbage")]
    came = [f"{seen.title} ({seen.summary})" for seen in frames[len(frames) - min(count, len(frames)) :]]
    if not came:
        return ""
    more = f" and {len(came) - SHOWN_FRAMES} more" if len(came) > SHOWN_FRAMES else ""
    return f"; it sent {', '.join(came[:SHOWN_FRAMES])}{more}"


def _end(scenario: Scenario, peer: Peer, link: Link) -> Reaction:
    """How the other side has ended it."""
    reaction = _how(link)
    unreached = ACCEPTS not in scenario.required if peer.starting else not (peer.offended or scenario.accepts)
    if unreached:
        return Reaction(Kind.UNREACHED, detail=f"{_told(reaction)} before the step that matters")
    return reaction


def _told(reaction: Reaction) -> str:
    if reaction.code is not None:
        return f"{reaction} ({describe(*reaction.code)})"
    return f"the other side sent {reaction}" if reaction.kind is Kind.GARBAGE else f"the other side {reaction}"


def _how(link: Link) -> Reaction:
    if link.terminate is not None:
        return Reaction(Kind.TERMINATE, (link.terminate.layer, link.terminate.etype, link.terminate.code))
    if link.garbage:
        return Reaction(Kind.GARBAGE, detail=f"octets that cannot be read: {link.garbage}")
    if link.theirs is not None and link.theirs.reject:
        return Reaction(Kind.REJECT)
    return Reaction(Kind.CLOSE if link.got_fin else Kind.RESET)


def _missing(scenario: Scenario, peer: Peer, link: Link, text: str) -> Reaction:
    if scenario.accepts:
        return Reaction(Kind.SILENCE, detail=f"no {text}{_came_instead(link, peer.received_before)}")
    return Reaction(Kind.UNREACHED, detail=f"no {text}, so the step that matters was not reached")


def _after_terminate(link: Link) -> list[str]:
    """What the other side does behind its Terminate: it has to close, and to send nothing more."""
    begin = time.monotonic()
    end = min(link.deadline, begin + CLOSE_S)
    while not link.over and time.monotonic() < end:
        link.read(end - time.monotonic())
    notes = []
    if link.after_terminate:
        notes.append(f"{link.after_terminate} more FPDUs came behind its Terminate")
    if not link.over:
        notes.append(f"TCP still open {time.monotonic() - begin:.1f} s after its Terminate")
    return notes
