"""What the state machine has found, each as a program that it would break again."""

import select

import pytest

from softndk import Aborted, ConnectionInvalid, NdkError, OpFlag, Status
from softndk.testing import pair
from tests.ndk.ends import EVERY_RIGHT, FAST_RIGHTS, PATIENCE_S, contexts, ended, fast_region, take, window

DEFER, FENCE = OpFlag.DEFER.value, OpFlag.READ_FENCE.value


def test_a_region_can_be_closed_after_a_local_request_on_it_failed_behind_a_send() -> None:
    """The failed bind stayed counted as queued when the send before it completed first (R-CLOSE-2)."""
    with pair(flags=EVERY_RIGHT) as (a, b):
        b.qp.receive(b.mr[0:64])
        area, mw = fast_region(a, None), a.pd.create_mw()
        a.qp.send(b"x", flags=DEFER)
        a.qp.fast_register(area.mr, area.lam, flags=OpFlag.ALLOW_REMOTE_READ | DEFER)
        a.qp.bind(area.mr, mw, area.lam.address, 64, flags=OpFlag.ALLOW_REMOTE_WRITE)  # no local write there
        statuses = [result.status for result in take(a.cq, 3)]
        assert statuses == [Status.SUCCESS, Status.SUCCESS, Status.ACCESS_VIOLATION]
        mw.close().result(PATIENCE_S)
        area.mr.close().result(PATIENCE_S)


def test_a_failed_disconnect_closes_the_connection_for_posts_too() -> None:
    """A-3, R-DISC-4: closed by the disconnect, with success or failure."""
    with pair() as (a, b):
        pending = a.connector.disconnect()
        ended(b)
        b.qp.flush()
        error = pending.exception(PATIENCE_S)
        assert isinstance(error, NdkError)
        assert error.status is Status.CONNECTION_ABORTED
        with pytest.raises(ConnectionInvalid):
            a.qp.send(b"x")


def test_a_fast_register_may_be_posted_behind_the_read_that_invalidates_the_region() -> None:
    """R-READ-5, R-WR-14: with a fence it runs when the read has ended the registration (A-9: not refused at once)."""
    with pair(flags=EVERY_RIGHT) as (a, b):
        area = fast_region(a)
        flags = OpFlag.RDMA_READ_LOCAL_INVALIDATE | DEFER
        a.qp.read(area.mr[0:64], b.mr.address, b.mr.remote_token, flags=flags, context=1)
        a.qp.fast_register(area.mr, area.lam, flags=FAST_RIGHTS | FENCE, context=2)
        results = take(a.cq, 2)
        assert contexts(results) == [1, 2]
        assert [result.status for result in results] == [Status.SUCCESS] * 2


def test_a_region_may_be_invalidated_behind_the_invalidation_of_its_window() -> None:
    """R-WR-14: both take effect in queue order (A-9: not refused at once)."""
    with pair() as (a, _):
        area = fast_region(a)
        mw = window(a, mr=area.mr)
        a.qp.invalidate(mw, flags=DEFER, context=1)
        a.qp.invalidate(area.mr, context=2)
        results = take(a.cq, 2)
        assert contexts(results) == [1, 2]
        assert [result.status for result in results] == [Status.SUCCESS] * 2


def test_a_reset_behind_the_peers_notice_is_seen() -> None:
    """R-COMP-1: a read that the peer can't answer any more completes all the same, and the queues are flushed."""
    with pair(flags=EVERY_RIGHT) as (a, b):
        a.connector.disconnect()
        assert ended(b).graceful
        b.qp.receive(b.mr[0:64], context=1)
        b.qp.read(b.mr[0:64], a.mr.address, a.mr.remote_token, context=2)
        results = take(b.cq, 2)
        assert {(result.request_context, result.status) for result in results} == {
            (1, Status.CANCELLED),
            (2, Status.CANCELLED),
        }


def test_a_graceful_notice_is_told_though_a_reset_behind_it_came_before_anybody_read() -> None:
    """R-DEV-1: sending is the first to notice; the peer's FIN lies in the socket, and the reset after it."""
    with pair(flags=EVERY_RIGHT) as (a, b):
        with a.adapter._lock:  # nobody reads before we send
            b.connector.disconnect()
            b.qp.flush()  # after the FIN nothing can be said any more: a reset
            poll = select.poll()
            stream = a.connector._stream
            assert stream is not None
            poll.register(stream._open_socket(), select.POLLERR)
            assert poll.poll(PATIENCE_S * 1000)
            a.qp.send(b"x", context=1)
        assert ended(a).graceful
        results = take(a.cq, 1)
        assert [(result.request_context, result.status) for result in results] == [(1, Status.CANCELLED)]


@pytest.mark.rules("R-DISC-2", "R-SENDINV-6")
def test_a_request_that_fails_during_the_disconnect_ends_the_connection() -> None:
    """Also behind a message that goes out first: the fault was passed over, and the end called graceful."""
    with pair(flags=EVERY_RIGHT) as (a, b):
        mw = a.pd.create_mw()
        a.qp.bind(a.mr, mw, flags=OpFlag.ALLOW_REMOTE_WRITE | OpFlag.SILENT_SUCCESS)
        a.qp.receive([], context="taken away")
        b.qp.receive([])
        a.qp.send([], flags=OpFlag.SILENT_SUCCESS | DEFER)
        a.qp.invalidate(mw, flags=DEFER, context="already invalid")
        b.qp.send_and_invalidate(b"", mw.remote_token)
        assert contexts(take(a.cq, 1)) == ["taken away"]
        disconnecting = a.connector.disconnect()
        (failed,) = take(a.cq, 1)
        assert (failed.request_context, failed.status) == ("already invalid", Status.INVALID_DEVICE_REQUEST)
        with pytest.raises(Aborted, match="already invalid"):
            disconnecting.result(PATIENCE_S)
        assert ended(b).graceful is False
