"""Revision 1 after revision 2 (RFC 6581 6): only if asked for, only once, only after a close without an answer."""

import errno
import os

import pytest

from softndk.config import IwarpConfig
from softndk.errors import IoTimeout, Refused
from softndk.iwarp.events import Finish, ReplyReceived, StartupFailed
from softndk.iwarp.qp_state import State
from softndk.wire.mpa import Enhanced, FrameKind, StartupFrame
from tests.pair.core_pair import Side

NOW = 1000.0
FALLBACK = IwarpConfig(fallback_revision_1=True)


def ready(side: Side) -> bytes:
    octets = b"".join(side.core.data_to_send(NOW))
    side.core.data_sent(len(octets), NOW)
    return octets


def asking(config: IwarpConfig = FALLBACK) -> Side:
    """An active side whose Request of revision 2 is out."""
    side = Side("A", active=True, config=config, private_data=b"hi")
    side.core.start_timer(NOW)
    side.core.connected(NOW, 1460)
    request = StartupFrame.parse(ready(side))
    assert request.revision == config.mpa_revision
    return side


def end(side: Side, how: str) -> None:
    if how == "FIN":
        side.core.receive_eof(NOW + 1)
    else:
        side.core.connection_lost(OSError(errno.ECONNRESET, os.strerror(errno.ECONNRESET)), NOW + 1)


def reply(revision: int) -> bytes:
    enhanced = Enhanced(16, 16, peer_to_peer=True, rtr_write=True) if revision == 2 else None
    return StartupFrame(FrameKind.REPLY, False, True, False, revision, enhanced, b"yes").emit()


@pytest.mark.parametrize("how", ["FIN", "RST"])
def test_the_second_request_is_of_revision_1(how: str) -> None:
    side = asking()
    end(side, how)
    assert side.core.finish() is Finish.RECONNECT
    assert side.take_events() == []
    assert ready(side) == b""
    side.core.connected(NOW + 2, 1460)
    assert side.core.finish() is Finish.KEEP
    assert StartupFrame.parse(ready(side)) == StartupFrame(FrameKind.REQUEST, False, True, False, 1, None, b"hi")
    side.core.receive_data(memoryview(reply(1)), NOW + 3)
    (event,) = side.take_events()
    assert isinstance(event, ReplyReceived)
    assert event.private_data == b"yes"
    side.core.complete(NOW + 4)
    assert side.is_in(State.RTS)


@pytest.mark.parametrize("how", ["FIN", "RST"])
def test_it_is_tried_once(how: str) -> None:
    side = asking()
    end(side, how)
    side.core.connected(NOW + 2, 1460)
    ready(side)
    end(side, how)
    assert side.core.finish() in (Finish.CLOSE, Finish.RESET)
    (event,) = side.take_events()
    assert isinstance(event, StartupFailed)
    assert isinstance(event.error, Refused)
    assert "revision 1" in str(event.error)


@pytest.mark.parametrize("how", ["FIN", "RST"])
@pytest.mark.parametrize("config", [IwarpConfig(), IwarpConfig(mpa_revision=1, fallback_revision_1=True)])
def test_not_where_nothing_is_to_be_gained(config: IwarpConfig, how: str) -> None:
    side = asking(config)
    end(side, how)
    (event,) = side.take_events()
    assert isinstance(event, StartupFailed)
    assert side.core.finish() is not Finish.RECONNECT


@pytest.mark.parametrize("how", ["FIN", "RST"])
def test_not_after_the_beginning_of_an_answer(how: str) -> None:
    side = asking()
    side.core.receive_data(memoryview(reply(2)[:1]), NOW)
    end(side, how)
    (event,) = side.take_events()
    assert isinstance(event, StartupFailed)
    assert side.core.finish() is not Finish.RECONNECT


@pytest.mark.parametrize("number", [errno.ECONNREFUSED, errno.ETIMEDOUT, errno.EHOSTUNREACH])
def test_not_where_nobody_was_reached(number: int) -> None:
    side = Side("A", active=True, config=FALLBACK)
    side.core.start_timer(NOW)
    side.core.connection_lost(OSError(number, os.strerror(number)), NOW)
    (event,) = side.take_events()
    assert isinstance(event, StartupFailed)
    assert side.core.finish() is not Finish.RECONNECT


def test_the_time_limit_counts_from_the_first_attempt() -> None:
    side = asking()
    limit = side.core.next_timeout()
    end(side, "FIN")
    assert side.core.next_timeout() == limit == NOW + FALLBACK.connect_timeout_s
    side.core.connected(NOW + 2, 1460)
    assert side.core.next_timeout() == limit
    side.core.handle_timeout(limit)
    (event,) = side.take_events()
    assert isinstance(event, StartupFailed)
    assert isinstance(event.error, IoTimeout)


@pytest.mark.parametrize("then", ["close", "refused", "time"])
def test_what_may_come_before_the_second_connection(then: str) -> None:
    side = asking()
    end(side, "FIN")
    if then == "close":
        side.core.close(NOW)
        assert side.take_events() == []
        assert side.core.finish() is Finish.CLOSE
        return
    if then == "refused":
        side.core.connection_lost(OSError(errno.ECONNREFUSED, os.strerror(errno.ECONNREFUSED)), NOW)
    else:
        side.core.handle_timeout(NOW + FALLBACK.connect_timeout_s)
    (event,) = side.take_events()
    assert isinstance(event, StartupFailed)
    assert isinstance(event.error, Refused if then == "refused" else IoTimeout)
    assert side.core.finish() is Finish.RESET
