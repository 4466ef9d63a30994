"""Durations in constant memory, and totals."""

import math
import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st

from softndk.cli.ping_report import RoundTrips, Totals, peak_rss_octets, plural


def filled(values: list[float]) -> RoundTrips:
    times = RoundTrips()
    for value in values:
        times.add(value)
    return times


def test_nothing() -> None:
    times = RoundTrips()
    assert times.as_dict() is None
    assert (times.mean_s, times.percentile_s(99)) == (0.0, 0.0)


def test_a_hundred_durations() -> None:
    times = filled([count / 1e6 for count in range(1, 101)])
    found = times.as_dict()
    assert found is not None
    assert (found["min"], found["max"]) == (1.0, 100.0)
    assert found["avg"] == pytest.approx(50.5)
    assert found["p99"] == pytest.approx(99, rel=0.011)


@given(
    st.lists(st.floats(1e-7, 3600), min_size=1, max_size=200),
    st.sampled_from([1, 50, 90, 99, 100]),
)
def test_percentiles_are_right_to_one_percent(values: list[float], percent: int) -> None:
    exact = sorted(values)[math.ceil(len(values) * percent / 100) - 1]
    found = filled(values).percentile_s(percent)
    assert exact * 0.999999 <= found <= exact * 1.0101
    assert found <= max(values)


@pytest.mark.parametrize("value", [0.0, 1e-12, 1e9])
def test_durations_beyond_the_buckets_are_counted(value: float) -> None:
    times = filled([value])
    assert times.count == 1
    assert times.percentile_s(99) == value


@given(st.lists(st.floats(0, 100)), st.lists(st.floats(0, 100)))
def test_merging_is_adding_all(one: list[float], two: list[float]) -> None:
    merged, together = filled(one), filled(one + two)
    merged.merge(filled(two))
    assert merged.count == together.count
    assert merged.mean_s == pytest.approx(together.mean_s)
    assert merged.percentile_s(90) == together.percentile_s(90)
    assert (merged.shortest_s, merged.longest_s) == (together.shortest_s, together.longest_s)


def test_memory_does_not_grow() -> None:
    times = RoundTrips()
    before = sys.getsizeof(times._buckets)
    for count in range(10000):
        times.add(count * 1e-5)
    assert sys.getsizeof(times._buckets) == before


def test_totals() -> None:
    totals = Totals()
    totals.add(100, 0.5, mismatch=False)
    totals.add(100, 1.5, mismatch=True)
    totals.seconds = 4.0
    found = totals.as_dict("round_trip_us")
    assert (found["rounds"], found["octets"], found["mismatches"]) == (2, 400, 1)
    assert (found["rounds_per_second"], found["octets_per_second"]) == (0.5, 100)
    assert found["round_trip_us"] == {"min": 5e5, "avg": 1e6, "max": 1.5e6, "p99": 1.5e6}
    lines = totals.lines("round trip")
    assert lines[0] == "2 rounds, 1 with a mismatch; 400 octets compared in 4.000 s"
    assert lines[2] == "round trip min/avg/max/p99 500000.0/1000000.0/1500000.0/1500000.0 us"


def test_totals_of_nothing() -> None:
    found = Totals().as_dict("round_trip_us")
    assert (found["rounds_per_second"], found["octets_per_second"], found["round_trip_us"]) == (0.0, 0, None)


def test_merged_totals_keep_their_time() -> None:
    one, two = Totals(seconds=1.0), Totals(seconds=2.0)
    two.add(10, 0.1, mismatch=True)
    one.merge(two)
    assert (one.rounds, one.octets, one.mismatches, one.seconds, one.times.count) == (1, 20, 1, 1.0, 1)


def test_peak_memory_is_that_of_a_python_process() -> None:
    peak = peak_rss_octets()
    assert peak is None or 4 << 20 < peak < 8 << 30


def test_numbers_with_nouns() -> None:
    assert [plural(count, "round") for count in (0, 1, 2)] == ["0 rounds", "1 round", "2 rounds"]
