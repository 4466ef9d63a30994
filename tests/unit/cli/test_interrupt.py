"""Signals as a flag."""

import os
import signal
import sys
import threading

import pytest

from softndk.cli.interrupt import Interrupt

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="needs os.kill with signals")


@pytest.mark.parametrize(("number", "status"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_the_first_signal_sets_the_flag(number: signal.Signals, status: int) -> None:
    with Interrupt() as stop:
        assert (stop.requested, stop.exit_status) == (False, 0)
        signal.raise_signal(number)
        assert (stop.requested, stop.exit_status) == (True, status)


def test_the_second_one_raises() -> None:
    with Interrupt():
        signal.raise_signal(signal.SIGINT)
        with pytest.raises(KeyboardInterrupt):
            signal.raise_signal(signal.SIGINT)


def test_handlers_are_put_back() -> None:
    before = [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)]
    with Interrupt():
        assert signal.getsignal(signal.SIGINT) is not before[0]
    assert [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)] == before


def interrupt_and_write(descriptor: int) -> None:
    os.kill(os.getpid(), signal.SIGINT)
    os.write(descriptor, b"x")


def test_a_system_call_goes_on_after_the_signal() -> None:
    """What waits is not torn out of its wait (PEP 475); it looks at the flag when it is through."""
    reading, writing = os.pipe()
    try:
        with Interrupt() as stop:
            interrupter = threading.Thread(target=interrupt_and_write, args=(writing,))
            interrupter.start()
            assert os.read(reading, 1) == b"x"
            assert stop.requested
            interrupter.join()
    finally:
        os.close(reading)
        os.close(writing)


def test_outside_the_main_thread_it_does_nothing() -> None:
    before = signal.getsignal(signal.SIGINT)
    seen: list[object] = []

    def body() -> None:
        with Interrupt() as stop:
            seen.append((signal.getsignal(signal.SIGINT), stop.requested))

    thread = threading.Thread(target=body)
    thread.start()
    thread.join()
    assert seen == [(before, False)]
