"""A scriptable iWARP peer for other people's stacks: right or wrong on purpose, and a judge of what comes back.

    from softndk.peer import Role, connect, play, shipped

    outcome = play(shipped()["bad-crc"], connect(("127.0.0.1", 7174), 5.0), Role.INITIATOR)
    assert outcome.good, outcome.text

A scenario is a YAML file, or a function that takes a `Peer` and is marked with `scenario`. `softndk peer` plays them from
the command line. Nothing here uses the adapter of softndk: only its codecs, so that anything wrong can be said.
"""

from softndk.peer.frames import Seen
from softndk.peer.link import Ended, OutOfTime
from softndk.peer.peer import Peer, Role
from softndk.peer.player import Outcome, connect, play
from softndk.peer.reactions import Kind, Reaction, Verdict
from softndk.peer.scenario import Scenario, ScenarioError, load, scenario, shipped

__all__ = [
    "Ended",
    "Kind",
    "OutOfTime",
    "Outcome",
    "Peer",
    "Reaction",
    "Role",
    "Scenario",
    "ScenarioError",
    "Seen",
    "Verdict",
    "connect",
    "load",
    "play",
    "scenario",
    "shipped",
]
