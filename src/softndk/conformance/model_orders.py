"""What the rules leave to chance: every end that the story of two ends can have.

Free is how much of what is under way has arrived when an end looks, and so which of its answers come before the rest
(RFC 5040 5.5: a response is made some time after its request has come), whether a response or an own request goes out
first (no rule orders them), how much a TCP reset destroys of what comes before it (RFC 9293 3.10.7.4; some systems keep it
all), when an end that holds the stream back hears of a reset, when an overrun is acted upon (R-CQERR-1 says no time), and
how soon a close takes effect whose last obstacle has gone (a window's close ends with a callback, and its region's waits
for that: R-CLOSE-2), so that a request may still find memory that is being closed.
The order within each direction is not free.
"""

import pickle
from collections.abc import Iterator
from itertools import product
from typing import Any

from softndk.conformance.model import ModelPair

__all__ = ["TooManyOrders", "outcomes"]

MOST_ORDERS = 2_000
"""Most stories have fewer than fifty; one look at so many takes a busy machine half a minute."""


class TooManyOrders(Exception):
    """The story is too tangled to look at all of its ends."""


def outcomes(state: bytes, *, resets_destroy: bool) -> Iterator[tuple[ModelPair, Any]]:
    """Every end. `state`: a pair and what belongs to it, pickled together. `resets_destroy`: what has come and has not been
    read may be lost to a reset behind it. Raises TooManyOrders.
    """
    left = [state]
    for side in (0, 1):
        left = [ran for before in left for ran in _runs(pickle.loads(before), side)]
    seen: set[bytes] = set()
    while left:
        before = left.pop()
        if before not in seen:
            seen.add(before)
            if len(seen) > MOST_ORDERS:
                raise TooManyOrders
            moves = _moves(before, resets_destroy=resets_destroy)
            if not moves:
                yield pickle.loads(before)
            left += moves + _what_may_wait(before)


def _runs(story: tuple[ModelPair, Any], side: int) -> list[bytes]:
    """The states that the end's own requests lead to: with closes that take effect at once, or by a move of their own."""
    found: list[bytes] = []
    before = pickle.dumps(story)
    end = story[0].ends[side]
    for late in {end.closes_late, end.closes_wait}:
        story = pickle.loads(before)
        end = story[0].ends[side]
        end.closes_late = late
        story[0].run(end)
        found.append(pickle.dumps(story))
    return found


def _what_may_wait(before: bytes) -> list[bytes]:
    """An end that holds the stream back may learn of a reset now or later: nothing is read meanwhile."""
    found: list[bytes] = []
    for side in (0, 1):
        story = pickle.loads(before)
        if story[0].hear_of_reset(story[0].ends[side]):
            found.append(pickle.dumps(story))
    return found


def _moves(before: bytes, *, resets_destroy: bool) -> list[bytes]:
    """The states that an arrival, the reaction to an overrun, both, or closes that take effect lead to."""
    found: list[bytes] = []
    coming = [len(end.incoming) for end in pickle.loads(before)[0].ends]
    for side in (0, 1):
        for count, reacts, responses_first in product(range(coming[side] + 1), (False, True), (False, True)):
            story = pickle.loads(before)
            pair, end = story[0], story[0].ends[side]
            moved = pair.deliver(end, count)
            if responses_first and not (end.responses and pair.startable(end)):
                continue  # it is the same without
            if pair.act_on_overrun(end) if reacts else moved:
                end.responses_first = responses_first
                found += _runs(story, side)
        story = pickle.loads(before)
        if story[0].ends[side].closes_late:
            story[0].ends[side].closes_late = False
            story[0].ends[side].settle_closes()
            story[0].run(story[0].ends[side])
            found.append(pickle.dumps(story))
        story = pickle.loads(before)
        if resets_destroy and story[0].lose_to_reset(story[0].ends[side]):
            found.append(pickle.dumps(story))
    return found
