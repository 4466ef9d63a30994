"""Help for tests of programs that use softndk: two connected ends in one call, and ways to lose a peer or an adapter."""

from softndk.testing.adapter_fault import fail_adapter
from softndk.testing.pair import End, Pair, kill, pair

__all__ = ["End", "Pair", "fail_adapter", "kill", "pair"]
