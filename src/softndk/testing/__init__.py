"""Help for tests of programs that use softndk: two connected ends in one call, and ways to lose a peer."""

from softndk.testing.pair import End, Pair, kill, pair

__all__ = ["End", "Pair", "kill", "pair"]
