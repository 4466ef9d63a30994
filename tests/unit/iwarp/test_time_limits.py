"""Time limits by name: when they end, in which order, and what their end says."""

import pytest

from softndk import IwarpConfig
from softndk.iwarp.time_limits import Limit, TimeLimits

CONFIG = IwarpConfig(connect_timeout_s=3.0, stall_timeout_s=5.0, terminate_drain_s=1.0, receive_wait_s=0.0)


@pytest.fixture
def limits() -> TimeLimits:
    found = TimeLimits(CONFIG)
    found.learn(100.0)
    return found


def test_none_runs_at_first(limits: TimeLimits) -> None:
    assert limits.next_end() is None
    assert limits.take_expired() is None


def test_a_limit_ends_after_the_time_that_its_setting_says_and_once(limits: TimeLimits) -> None:
    limits.start(Limit.REPLY)
    assert limits.next_end() == 103.0
    limits.learn(102.9)
    assert limits.take_expired() is None
    limits.learn(103.0)
    assert limits.take_expired() is Limit.REPLY
    assert limits.take_expired() is None


def test_those_that_have_ended_come_in_the_order_of_their_ends(limits: TimeLimits) -> None:
    limits.start(Limit.STALL)
    limits.start(Limit.REPLY)
    limits.start(Limit.DRAIN)
    limits.learn(1000.0)
    assert [limits.take_expired() for _ in range(4)] == [Limit.DRAIN, Limit.REPLY, Limit.STALL, None]


def test_starting_again_counts_from_now_and_keeping_does_not(limits: TimeLimits) -> None:
    limits.start(Limit.STALL)
    limits.keep_or_start(Limit.DRAIN)
    limits.learn(100.5)
    limits.keep_or_start(Limit.DRAIN)
    limits.start(Limit.STALL)
    assert limits.next_end() == 101.0
    limits.stop(Limit.DRAIN)
    assert limits.next_end() == 105.5
    limits.stop_all()
    assert limits.next_end() is None


def test_a_limit_of_no_time_has_ended_when_it_starts(limits: TimeLimits) -> None:
    limits.start(Limit.RECEIVE)
    assert limits.take_expired() is Limit.RECEIVE


@pytest.mark.parametrize("limit", Limit)
def test_each_has_a_setting_and_a_failure_names_it(limit: Limit) -> None:
    assert hasattr(CONFIG, limit.value)
    failure = TimeLimits(CONFIG).failure(limit)
    if limit in (Limit.NUDGE, Limit.RECEIVE, Limit.DRAIN):
        assert failure is None
    else:
        assert failure is not None
        assert failure.endswith(f"{limit.value}={getattr(CONFIG, limit.value):g}")
