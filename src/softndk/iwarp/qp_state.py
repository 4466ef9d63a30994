"""States of a connection's core and the one table of what is legal in each.

The states follow the RFCs' QP states: IDLE before start-up, RTS, CLOSING, TERMINATE, ERROR; start-up and the passive
wait for the ready-to-receive indication are told apart because the caller sees the difference.
"""

from enum import Enum
from typing import Final

__all__ = ["TRANSITIONS", "IllegalStep", "State", "Step", "next_state"]


class State(Enum):
    """Where the connection stands. The value is the word that people read."""

    IDLE = "idle"
    REQUESTING = "requesting"  # active: Request out, Reply awaited
    AWAITING = "awaiting request"  # passive: Request awaited
    OFFERED = "incoming"  # passive: the program has to accept or reject
    ANSWERED = "accepted"  # active: the program has to complete or reject
    READYING = "accepting"  # passive: Reply out, ready-to-receive awaited
    RTS = "connected"
    PEER_CLOSED = "peer closed"  # the peer's graceful notice has come
    CLOSING = "disconnecting"
    TERMINATE = "terminating"  # a Terminate or the last frames go out, input is thrown away
    CLOSED = "closed"  # gracefully over
    ERROR = "failed"  # over by a failure


class Step(Enum):
    """What can happen to a connection."""

    OPEN_ACTIVE = "TCP up, this side asks"
    OPEN_PASSIVE = "TCP up, the peer asks"
    REQUEST = "Request received"
    REPLY = "Reply received"
    FALL_BACK = "closed without a Reply, revision 1 is tried"
    ACCEPT = "accept"
    ACCEPT_READY = "accept, nothing to wait for"
    COMPLETE = "complete_connect"
    READY = "first FPDU received"
    PEER_FIN = "peer's FIN"
    DISCONNECT = "disconnect"
    LAST_WORDS = "Terminate or last frames to send"
    FINISHED = "both sides done"
    LOST = "TCP lost, or given up"


_S = State
TRANSITIONS: Final[dict[tuple[State, Step], State]] = {
    (_S.IDLE, Step.OPEN_ACTIVE): _S.REQUESTING,
    (_S.IDLE, Step.OPEN_PASSIVE): _S.AWAITING,
    (_S.REQUESTING, Step.REPLY): _S.ANSWERED,
    (_S.REQUESTING, Step.FALL_BACK): _S.IDLE,
    (_S.AWAITING, Step.REQUEST): _S.OFFERED,
    (_S.OFFERED, Step.ACCEPT): _S.READYING,
    (_S.OFFERED, Step.ACCEPT_READY): _S.RTS,
    (_S.ANSWERED, Step.COMPLETE): _S.RTS,
    (_S.READYING, Step.READY): _S.RTS,
    (_S.RTS, Step.PEER_FIN): _S.PEER_CLOSED,
    (_S.RTS, Step.DISCONNECT): _S.CLOSING,
    (_S.PEER_CLOSED, Step.DISCONNECT): _S.CLOSING,
    (_S.CLOSING, Step.FINISHED): _S.CLOSED,
    (_S.TERMINATE, Step.FINISHED): _S.ERROR,
    **{
        (state, Step.LAST_WORDS): _S.TERMINATE
        for state in (
            _S.REQUESTING,
            _S.OFFERED,
            _S.ANSWERED,
            _S.READYING,
            _S.RTS,
            _S.PEER_CLOSED,
            _S.CLOSING,
        )
    },
    **{(state, Step.LOST): _S.ERROR for state in State if state not in (_S.CLOSED, _S.ERROR)},
}
"""(state, step) -> state. A missing key is an illegal step."""


class IllegalStep(AssertionError):
    """A step that the table does not have: a bug of this program, not of the peer."""


def next_state(state: State, step: Step) -> State:
    """Where `step` leads from `state`. Raises IllegalStep."""
    try:
        return TRANSITIONS[state, step]
    except KeyError:
        raise IllegalStep(f"{step.value!r} in state {state.value!r}") from None
