"""Numbers that are the same in every run."""

from collections.abc import Callable

__all__ = ["draw_from"]


def draw_from(seed: int) -> Callable[[int], int]:
    """Numbers that look random enough for tokens, and cost little (Knuth's linear congruential generator)."""
    state = seed

    def draw(limit: int) -> int:
        nonlocal state
        state = state * 6364136223846793005 + 1442695040888963407 & (1 << 64) - 1
        return (state >> 24) % limit

    return draw
