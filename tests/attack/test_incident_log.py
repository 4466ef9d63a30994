"""What peers do wrong is logged, and a flood of it gives few lines (RFC 5042 6.4)."""

import logging
from collections.abc import Iterator

import pytest

from softndk import Adapter, IwarpConfig, open_adapter
from softndk.ndk.incidents import LOG_LINES, LOG_PERIOD_S, IncidentLog
from tests.attack.attack_tools import PATIENCE_S, callbacks_have_run, ended, raw_client, until
from tests.ndk.raw_peer import raw_client as raw_initiator


@pytest.fixture
def lines(caplog: pytest.LogCaptureFixture) -> Iterator[pytest.LogCaptureFixture]:
    with caplog.at_level(logging.INFO, "softndk"):
        yield caplog


def test_a_fault_is_told_with_the_peer_and_the_rule_and_without_the_token(lines: pytest.LogCaptureFixture) -> None:
    with raw_initiator() as (peer, end):
        name = end.connector.name
        host, port = peer.sock.getsockname()
        peer.send_write(0xDEADBE01, 0, b"x")
        peer.read_terminate()
        end.connector.disconnected.result(PATIENCE_S)
        callbacks_have_run(end.adapter)
        (record,) = lines.records
        text = record.getMessage()
        assert record.levelno == logging.INFO
        assert text.startswith(f"{name} from {host}:{port}: RDMA Write of 1 octets: token 0xdead****")
        assert "deadbe01" not in text.lower()


def test_without_interest_nothing_is_made_up(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING, "softndk"), raw_initiator() as (peer, end):
        peer.send_write(0xDEADBE01, 0, b"x")
        peer.read_terminate()
        end.connector.disconnected.result(PATIENCE_S)
        callbacks_have_run(end.adapter)
        assert caplog.records == []


def test_a_flood_of_broken_requests_gives_a_bounded_number_of_lines(lines: pytest.LogCaptureFixture) -> None:
    flood = LOG_LINES + 10
    with open_adapter(config=IwarpConfig()) as adapter:
        listener = adapter.listen()
        for _ in range(flood):
            with raw_client(listener.local_address, b"GET / HTTP/1.1\r\n\r\n\r\n") as sock:
                assert ended(sock)
        until(lambda: adapter.query_statistics().connect_failure == flood)
        callbacks_have_run(adapter)
        assert len(lines.records) <= LOG_LINES


class Time:
    """An incident log with a clock that is set by hand; timers run by the real one."""

    def __init__(self, adapter: Adapter, offset: float) -> None:
        self.now = adapter._runtime.now() + offset
        self.adapter = adapter
        self.log = IncidentLog(adapter._runtime)
        self.log._now = lambda: self.now
        self.log._since = self.now - LOG_PERIOD_S

    def tell(self, count: int) -> None:
        with self.adapter._lock:
            for number in range(count):
                self.log.tell(f"incident {number}")
        callbacks_have_run(self.adapter)


def test_the_next_period_begins_with_how_many_were_left_out(lines: pytest.LogCaptureFixture) -> None:
    with open_adapter() as adapter:
        time = Time(adapter, 1e6)
        time.tell(LOG_LINES + 7)
        assert [record.getMessage() for record in lines.records] == [f"incident {n}" for n in range(LOG_LINES)]
        time.now += LOG_PERIOD_S
        lines.clear()
        time.tell(1)
        assert [record.getMessage() for record in lines.records] == [
            f"7 more incidents within {LOG_PERIOD_S:g} s are not logged",
            "incident 0",
        ]


def test_what_was_left_out_is_told_when_the_period_ends_even_if_nothing_follows(
    lines: pytest.LogCaptureFixture,
) -> None:
    with open_adapter() as adapter:
        time = Time(adapter, -1e6)
        time.tell(LOG_LINES + 7)
        until(lambda: sum("more incidents" in record.getMessage() for record in lines.records) >= 1)


def test_a_handler_that_uses_the_adapter_does_not_hang(lines: pytest.LogCaptureFixture) -> None:
    """A handler is the program's code: it runs on the callback thread and without a lock."""
    seen: list[int] = []
    with raw_initiator() as (peer, end):

        class Asking(logging.Handler):
            def emit(self, record: logging.LogRecord) -> None:
                seen.append(end.adapter.query_statistics().peer_faults)

        handler = Asking()
        logging.getLogger("softndk").addHandler(handler)
        try:
            peer.send_write(0xDEADBE01, 0, b"x")
            peer.read_terminate()
            callbacks_have_run(end.adapter)
            until(lambda: seen == [1])
        finally:
            logging.getLogger("softndk").removeHandler(handler)
