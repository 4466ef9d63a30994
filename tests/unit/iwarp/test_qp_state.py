"""The table of states: every pair of state and step is refused or leads where the standards say."""

import pytest

from softndk.iwarp.qp_state import TRANSITIONS, IllegalStep, State, Step, next_state

S, T = State, Step
OVER = {S.CLOSED, S.ERROR}
ALIVE = [state for state in State if state not in OVER]

EXPECTED = {
    (S.IDLE, T.OPEN_ACTIVE): S.REQUESTING,
    (S.IDLE, T.OPEN_PASSIVE): S.AWAITING,
    (S.REQUESTING, T.REPLY): S.ANSWERED,
    (S.REQUESTING, T.FALL_BACK): S.IDLE,
    (S.ANSWERED, T.COMPLETE): S.RTS,
    (S.AWAITING, T.REQUEST): S.OFFERED,
    (S.OFFERED, T.ACCEPT): S.READYING,
    (S.OFFERED, T.ACCEPT_READY): S.RTS,
    (S.READYING, T.READY): S.RTS,
    (S.RTS, T.PEER_FIN): S.PEER_CLOSED,
    (S.RTS, T.DISCONNECT): S.CLOSING,
    (S.PEER_CLOSED, T.DISCONNECT): S.CLOSING,
    (S.CLOSING, T.FINISHED): S.CLOSED,
    (S.TERMINATE, T.FINISHED): S.ERROR,
}


@pytest.mark.parametrize("step", Step, ids=lambda step: step.name)
@pytest.mark.parametrize("state", State, ids=lambda state: state.name)
def test_every_state_and_step(state: State, step: Step) -> None:
    expected = EXPECTED.get((state, step))
    if step is Step.LOST and state not in OVER:
        expected = State.ERROR
    if step is Step.LAST_WORDS and state not in OVER | {S.IDLE, S.AWAITING, S.TERMINATE}:
        expected = State.TERMINATE
    if expected is not None:
        assert next_state(state, step) is expected
        return
    with pytest.raises(IllegalStep) as caught:
        next_state(state, step)
    assert step.value in str(caught.value)
    assert state.value in str(caught.value)


def reachable(start: State) -> set[State]:
    found = {start}
    while more := {after for (before, _), after in TRANSITIONS.items() if before in found} - found:
        found |= more
    return found


def test_every_state_can_be_reached() -> None:
    assert reachable(State.IDLE) == set(State)


@pytest.mark.rules("R-DISC-5")
@pytest.mark.parametrize("state", [S.CLOSED, S.ERROR], ids=lambda state: state.name)
def test_nothing_follows_an_end(state: State) -> None:
    """R-DISC-5: a connection is used once."""
    assert reachable(state) == {state}


@pytest.mark.parametrize("state", ALIVE, ids=lambda state: state.name)
def test_from_every_other_state_there_is_a_way_to_an_end(state: State) -> None:
    assert reachable(state) & OVER


def test_an_illegal_step_is_a_bug_of_ours() -> None:
    assert issubclass(IllegalStep, AssertionError)
