"""Every scenario that comes with softndk, against our own NIC: what the standards require, in every detail."""

from collections.abc import Iterator

import pytest

from softndk import Address
from softndk.peer import Role, Scenario, Verdict, connect, play, shipped
from softndk.peer.report import frame_line
from tests.peer.ends import own_server, play_to_client

SCENARIOS = list(shipped().values())
FREE = {"zero-length-send", "mpa-reply-early-fpdu", "rping-server"}
"""Where the standards leave room and our side, or its program, uses it."""


def as_is(role: Role) -> pytest.MarkDecorator:
    found = [one for one in SCENARIOS if role in one.roles]
    return pytest.mark.parametrize("one", found, ids=lambda one: one.name)


@pytest.fixture(scope="module")
def server() -> Iterator[Address]:
    with own_server() as address:
        yield address


@as_is(Role.INITIATOR)
def test_as_initiator(one: Scenario, server: Address) -> None:
    outcome = play(one, connect(server, 5.0), Role.INITIATOR, timeout_s=20.0)
    told = "\n".join([outcome.text, *map(frame_line, outcome.story)])
    assert outcome.verdict is Verdict.REQUIRED or (one.name in FREE and outcome.good), told
    assert not outcome.form
    assert not outcome.notes


@as_is(Role.RESPONDER)
def test_as_responder(one: Scenario) -> None:
    outcome = play_to_client(one)
    told = "\n".join([outcome.text, *map(frame_line, outcome.story)])
    assert outcome.verdict is Verdict.REQUIRED or (one.name in FREE and outcome.good), told
    assert not outcome.form
    assert not outcome.notes


def test_the_names_are_unique_and_the_kinds_are_there() -> None:
    """The error rows, the start-up, framing, rping's memory: nothing is left out by a file that is not found."""
    assert len(SCENARIOS) >= 60
    wanted = {"bad-crc", "wrong-msn", "wrong-mo", "wrong-qn", "unknown-opcode", "write-unknown-token", "no-receive"}
    wanted |= {"region-write-beyond", "read-unknown-token", "send-too-long", "invalidate-unknown-token"}
    wanted |= {"mpa-early-fpdu", "mpa-bad-key", "mpa-private-data-too-long", "mpa-revision-1", "mpa-markers"}
    wanted |= {"fin-inside-fpdu", "split-octets", "terminate-twice", "data-after-terminate", "read-beyond-ird"}
    wanted |= {"zero-length", "region-write-wrap", "connect-and-close"}
    assert wanted <= {one.name for one in SCENARIOS}


def test_every_error_that_a_scenario_expects_has_a_row() -> None:
    """A rule names the RFC, and the row of the error table where the reaction is a Terminate."""
    for one in SCENARIOS:
        terminates = all(reaction.code is not None for reaction in one.required)
        assert not terminates or "error table row" in one.rule or "RFC 5044 4.2" in one.rule, one.name
