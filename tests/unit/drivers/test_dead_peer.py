"""softndk.drivers.dead_peer: the judgement case by case, and on whole histories of made-up connections."""

import math
from bisect import bisect_right
from collections.abc import Iterable
from dataclasses import dataclass

import pytest

from softndk.drivers.dead_peer import LEAST_UNANSWERED, LOOK_S, DeadPeerWatch, is_dead, suspected_since
from softndk.drivers.tcp_info import TcpInfo

HOUR_S = 3600.0
LIMITS_S = [2.0, 10.0, 60.0, 600.0]


@pytest.mark.parametrize(
    ("earlier", "outstanding", "unanswered", "silent_s", "expected"),
    [
        pytest.param(None, 1000, 0, HOUR_S, None, id="silent, but not asked"),
        pytest.param(
            None, 1000, 1, HOUR_S, 100.0, id="asked after a long silence: from now on, not from the silence on"
        ),
        pytest.param(None, 1000, 1, 0.3, 100.0, id="the first question that is unanswered"),
        pytest.param(90.0, 1000, 5, 10.5, 90.0, id="nothing has come since"),
        pytest.param(90.0, 1000, 0, 10.5, 90.0, id="the kernel's counter has wrapped: no answer either"),
        pytest.param(90.0, 1000, 1, 9.0, 100.0, id="an answer, and a new question"),
        pytest.param(90.0, 1000, 0, 9.0, None, id="an answer"),
        pytest.param(90.0, 0, 0, 0.0, None, id="all is acknowledged"),
    ],
)
def test_suspicion(
    earlier: float | None, outstanding: int, unanswered: int, silent_s: float, expected: float | None
) -> None:
    assert suspected_since(earlier, TcpInfo(outstanding, unanswered, silent_s), 100.0) == expected


@pytest.mark.parametrize(
    ("since", "unanswered", "dead"),
    [
        pytest.param(None, 9, False, id="no suspicion"),
        pytest.param(40.1, 9, False, id="not for long enough"),
        pytest.param(40.0, 9, True, id="for as long as the limit says"),
        pytest.param(-HOUR_S, LEAST_UNANSWERED, True, id="asked just often enough"),
        pytest.param(-HOUR_S, LEAST_UNANSWERED - 1, False, id="asked too rarely, as long as it may be"),
    ],
)
def test_judgement(since: float | None, unanswered: int, dead: bool) -> None:
    assert is_dead(since, TcpInfo(1000, unanswered, 60.0), 100.0, 60.0) is dead


# ---- histories


@dataclass
class History:
    """A connection with octets outstanding all the time, sent at 0. asked: when TCP sent them again, or probed. heard: when
    something came from the peer. Both in order.
    """

    asked: list[float]
    heard: list[float]

    def info(self, now: float) -> TcpInfo:
        answers = bisect_right(self.heard, now)
        last = self.heard[answers - 1] if answers else -1000.0
        return TcpInfo(1000, bisect_right(self.asked, now) - bisect_right(self.asked, last), now - last)


def death(history: History, limit_s: float, until_s: float) -> float | None:
    """When the watch finds the peer dead; None: not before `until_s`. No look comes sooner than the one before allows."""
    watch = DeadPeerWatch(limit_s)
    watch.sent(0.0)
    now = 0.0
    while watch.look_at <= until_s:
        assert watch.look_at > now
        now = watch.look_at
        if watch.look(history.info(now), now) is not None:
            return now
    assert watch.look_at < math.inf
    return None


def backoff(first_s: float, *, until_s: float, begin: float = 0.0) -> list[float]:
    """When TCP asks: at intervals that double up to two minutes (TCP_RTO_MAX of Linux)."""
    times = []
    wait = first_s
    while (begin := begin + wait) <= until_s:
        times.append(begin)
        wait = min(2 * wait, 120.0)
    return times


@pytest.mark.parametrize("limit_s", LIMITS_S)
@pytest.mark.parametrize("rto_s", [0.2, 0.5, 3.0])
def test_a_dead_peer_is_found_soon_after_the_limit(limit_s: float, rto_s: float) -> None:
    asked = backoff(rto_s, until_s=HOUR_S)
    found = death(History(asked, []), limit_s, HOUR_S)
    assert found is not None
    interval_s = min(LOOK_S, limit_s / 8)
    assert limit_s <= found <= max(limit_s + rto_s, asked[LEAST_UNANSWERED - 1]) + 2 * interval_s


@pytest.mark.parametrize("limit_s", LIMITS_S)
@pytest.mark.parametrize("rtt_s", [0.0001, 0.3])
def test_a_window_that_stays_closed_is_no_death(limit_s: float, rtt_s: float) -> None:
    """Probes come at growing intervals, whether answered or not: soon the silence between two is longer than any limit."""
    probes = backoff(0.2 + 2 * rtt_s, until_s=9 * HOUR_S)
    assert death(History(probes, [at + rtt_s for at in probes]), limit_s, 9 * HOUR_S) is None


@pytest.mark.parametrize("limit_s", LIMITS_S)
def test_answers_to_probes_may_be_left_out_as_often_as_linux_does(limit_s: float) -> None:
    """It answers such probes at most every 0.5 s (net.ipv4.tcp_invalid_ratelimit)."""
    probes = backoff(0.2, until_s=HOUR_S)
    heard: list[float] = [0.0]
    for at in probes:
        if at - heard[-1] >= 0.5:
            heard.append(at)
    assert death(History(probes, heard), limit_s, HOUR_S) is None


@pytest.mark.parametrize("limit_s", LIMITS_S)
def test_one_probe_that_is_lost_is_no_death(limit_s: float) -> None:
    """Two minutes apart, the next one comes long after the limit."""
    probes = backoff(0.2, until_s=9 * HOUR_S)
    heard = [at for number, at in enumerate(probes) if number % 5]
    assert death(History(probes, heard), limit_s, 9 * HOUR_S) is None


@pytest.mark.parametrize("limit_s", LIMITS_S)
def test_death_behind_a_closed_window_is_found_when_three_probes_are_unanswered(limit_s: float) -> None:
    probes = backoff(0.2, until_s=2 * HOUR_S)
    lived_until = HOUR_S
    found = death(History(probes, [at for at in probes if at < lived_until]), limit_s, 2 * HOUR_S)
    assert found is not None
    assert lived_until + limit_s < found <= lived_until + max(3 * 120.0, 120.0 + limit_s) + 2 * LOOK_S


@pytest.mark.parametrize("limit_s", LIMITS_S)
def test_an_outage_up_to_half_of_the_limit_is_no_death(limit_s: float) -> None:
    """Whatever interval has been reached at its end, the next retransmission comes before the limit."""
    for percent in range(5, 50, 5):
        outage_s = limit_s * percent / 100
        asked = backoff(0.2, until_s=2 * outage_s + 1)
        heard = [at + 0.001 for at in asked if at > outage_s][:1]
        assert heard
        assert death(History(asked, heard), limit_s, 10 * limit_s) is None, outage_s


@pytest.mark.parametrize("limit_s", LIMITS_S)
def test_a_slow_path_is_no_death(limit_s: float) -> None:
    """Each answer takes longer than TCP expects, so everything is sent again."""
    period_s = limit_s * 0.8
    asked = [beginning + at for beginning in steps(period_s) for at in backoff(0.2, until_s=period_s)]
    assert death(History(asked, list(steps(period_s))), limit_s, HOUR_S) is None


def steps(period_s: float) -> Iterable[float]:
    return (period_s * number for number in range(int(HOUR_S / period_s) + 1))


# ---- the watch


class TestTheWatch:
    def test_it_rests_until_something_is_sent(self) -> None:
        watch = DeadPeerWatch(60.0)
        assert watch.look_at == math.inf
        watch.sent(1000.0)
        assert watch.look_at == 1000.0 + LOOK_S

    def test_it_rests_again_when_all_is_acknowledged(self) -> None:
        watch = DeadPeerWatch(60.0)
        watch.sent(0.0)
        assert watch.look(TcpInfo(0, 0, 0.0), 5.0) is None
        assert watch.look_at == math.inf

    def test_it_rests_where_the_system_tells_nothing(self) -> None:
        watch = DeadPeerWatch(60.0)
        watch.sent(0.0)
        assert watch.look(None, 5.0) is None
        assert watch.look_at == math.inf

    def test_sending_more_does_not_put_off_the_look(self) -> None:
        watch = DeadPeerWatch(60.0)
        watch.sent(0.0)
        watch.sent(4.0)
        assert watch.look_at == LOOK_S

    def test_with_limit_0_it_rests_for_ever(self) -> None:
        watch = DeadPeerWatch(0.0)
        watch.sent(0.0)
        assert watch.look_at == math.inf

    def test_an_earlier_suspicion_does_not_count_after_a_rest(self) -> None:
        watch = DeadPeerWatch(60.0)
        watch.sent(0.0)
        assert watch.look(TcpInfo(10, 3, 5.0), 5.0) is None
        watch.rest()
        watch.sent(100.0)
        assert watch.look(TcpInfo(10, 3, 105.0), 105.0) is None

    def test_what_it_says(self) -> None:
        """The silence counts from the sending: before that nobody had to answer."""
        watch = DeadPeerWatch(60.0)
        watch.sent(1000.0)
        assert watch.look(TcpInfo(12345, 3, HOUR_S), 1005.0) is None
        assert watch.look(TcpInfo(12345, 9, HOUR_S), 1065.0) == (
            "no ACK for 65 s, 9 retransmissions or probes unanswered, 12,345 octets unacknowledged:"
            " the peer's machine or the network is down;"
            " limit dead_peer_timeout_s=60, raise it if the network may be away for longer"
        )
