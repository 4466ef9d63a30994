"""softndk.drivers.alarm: a descriptor with two states."""

import os
import select
from collections.abc import Iterator

import pytest

from softndk.drivers.alarm import Alarm


@pytest.fixture(params=["eventfd", "socketpair"])
def alarm(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[Alarm]:
    if request.param == "socketpair":
        monkeypatch.delattr(os, "eventfd", raising=False)
    made = Alarm()
    yield made
    made.close()


def readable(alarm: Alarm) -> bool:
    return bool(select.select([alarm.fileno()], [], [], 0)[0])


def test_it_is_readable_from_ring_to_silence(alarm: Alarm) -> None:
    assert not readable(alarm)
    alarm.ring()
    assert readable(alarm)
    alarm.silence()
    assert not readable(alarm)


def test_both_verbs_are_idempotent(alarm: Alarm) -> None:
    for _ in range(3):
        alarm.ring()
    alarm.silence()
    alarm.silence()
    assert not readable(alarm)


def test_ringing_more_often_than_the_system_buffers_does_not_block(alarm: Alarm) -> None:
    for _ in range(5000):
        alarm.ring()
    alarm.silence()
    assert not readable(alarm)


def test_after_close_the_descriptor_is_gone_and_verbs_do_nothing(alarm: Alarm) -> None:
    number = alarm.fileno()
    alarm.close()
    alarm.close()
    alarm.ring()
    alarm.silence()
    assert alarm.fileno() == -1
    with pytest.raises(OSError, match="Bad file descriptor"):
        os.fstat(number)
