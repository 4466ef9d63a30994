"""An adapter that fails as a whole: what its program and its peers see (error table row 41; R-CQERR)."""

import threading
from collections.abc import Callable
from contextlib import AbstractContextManager

import pytest

from softndk import (
    Aborted,
    Adapter,
    AdapterUnavailable,
    ConnectionInvalid,
    Cq,
    CqNotify,
    InternalError,
    InvalidHandle,
    IwarpConfig,
    MrFlag,
    OperationType,
    OpFlag,
    Pd,
    RemoteToken,
    RequestCancelled,
    Srq,
    Status,
    open_adapter,
)
from softndk.testing import End, fail_adapter, pair
from tests.ndk.ends import (
    EVERY_RIGHT,
    PATIENCE_S,
    connect,
    contexts,
    ended,
    fault_of,
    initiators,
    loose_end,
    receives,
    still_works,
    take,
    triple,
)
from tests.ndk.raw_peer import USUAL, RawListener, RawPeer, raw_client, raw_server

GLOBAL = bytes.fromhex("00164147 00000000 00000002 00000001 00000000 02080000 bdbf599a")
"""Terminate 0/2/8, no headers: RDMAP, remote operation error, catastrophic, global."""
STARTUP = bytes.fromhex("00164147 00000000 00000002 00000001 00000000 20050000 1680d5f1")
"""Terminate 2/0/5, no headers: MPA, local catastrophic error of the start-up."""
NO_REVISION_2 = IwarpConfig(mpa_revision=1)
WHY = "test of a dead NIC"
Opposite = Callable[[], AbstractContextManager[tuple[RawPeer, End]]]


def callbacks_are_done(spare: Pd) -> None:
    """Wait until every callback that is due by now has returned. Nothing new can be made, so `spare` is closed for it."""
    done = threading.Event()
    spare.close(on_done=lambda _: done.set())
    assert done.wait(PATIENCE_S)


def is_reset(peer: RawPeer) -> bool:
    """Wait for the end; True for a RST with nothing before it."""
    try:
        peer.at_end()
    except ConnectionResetError:
        return True
    return False


class TestPeers:
    @pytest.mark.parametrize("opposite", [raw_client, raw_server], ids=["passive", "active"])
    def test_the_last_octets_are_terminate_0_2_8_and_fin(self, opposite: Opposite) -> None:
        """Row 41: no header is returned, since no message of the peer has caused it."""
        with opposite() as (peer, end):
            fail_adapter(end.adapter, WHY)
            assert peer.take(len(GLOBAL)) == GLOBAL
            assert peer.at_end()

    def test_every_connection_ends_so_with_nothing_of_the_others_in_it(self) -> None:
        with open_adapter() as adapter:
            ends = [loose_end(adapter) for _ in range(5)]
            listener = adapter.listen()
            peers = []
            for end in ends:
                peer = RawPeer.to(listener.local_address)
                peers.append(peer)
                peer.send_request()
                accepting = listener.next_request().result(PATIENCE_S).accept(end.qp)
                assert not peer.read_startup().reject
                peer.send_ready()
                accepting.result(PATIENCE_S)
            fail_adapter(adapter, WHY)
            for peer in peers:
                with peer:
                    assert peer.take(len(GLOBAL)) == GLOBAL
                    assert peer.at_end()

    def test_what_has_been_handed_to_tcp_comes_before_it(self) -> None:
        with raw_client() as (peer, end):
            end.qp.send(b"before")
            assert take(end.cq, 1)[0].status is Status.SUCCESS
            fail_adapter(end.adapter, WHY)
            assert peer.read_ulpdu()[18:] == b"before"
            assert peer.take(len(GLOBAL)) == GLOBAL

    def test_a_passive_side_that_may_not_send_yet_resets(self) -> None:
        """MPA fencing holds for a Terminate too (RFC 5044 7.1.3), with and without an indication to come."""
        for enhanced in (USUAL, None):
            with open_adapter() as adapter:
                listener = adapter.listen()
                with RawPeer.to(listener.local_address) as peer:
                    peer.send_request(enhanced=enhanced, revision=2 if enhanced else 1)
                    accepting = listener.next_request().result(PATIENCE_S).accept(loose_end(adapter).qp)
                    peer.read_startup()
                    fail_adapter(adapter, WHY)
                    assert is_reset(peer)
                    if enhanced:
                        with pytest.raises(AdapterUnavailable, match=WHY):
                            accepting.result(PATIENCE_S)

    @pytest.mark.parametrize("config", [None, NO_REVISION_2], ids=["revision 2", "revision 1"])
    def test_an_active_side_between_reply_and_complete_connect(self, config: IwarpConfig | None) -> None:
        """Row 43: 2/0/5 exists in the enhanced start-up (RFC 6581 10); before that there is no word for it."""
        with open_adapter(config=config) as adapter, RawListener() as listener:
            end = loose_end(adapter)
            connecting = end.connector.connect(end.qp, listener.address)
            with listener.accept() as peer:
                asked = peer.read_startup()
                peer.send_reply(revision=asked.revision)
                connecting.result(PATIENCE_S)
                fail_adapter(adapter, WHY)
                if config is None:
                    assert peer.take(len(STARTUP)) == STARTUP
                    assert peer.at_end()
                else:
                    assert is_reset(peer)
                with pytest.raises(AdapterUnavailable, match=WHY):
                    end.connector.complete_connect()

    def test_start_ups_that_are_not_complete_are_reset(self) -> None:
        with open_adapter() as adapter, RawListener() as elsewhere:
            listener = adapter.listen()
            end = loose_end(adapter)
            connecting = end.connector.connect(end.qp, elsewhere.address)
            with (
                elsewhere.accept() as asked,
                RawPeer.to(listener.local_address) as half,
                RawPeer.to(listener.local_address) as offered,
            ):
                asked.read_startup()
                half.send(b"MPA ID")
                offered.send_request()
                handed_out = listener.next_request().result(PATIENCE_S)
                fail_adapter(adapter, WHY)
                assert [is_reset(peer) for peer in (asked, half, offered)] == [True] * 3
                with pytest.raises(AdapterUnavailable, match=WHY):
                    connecting.result(PATIENCE_S)
                for answer in (lambda: handed_out.accept(end.qp), handed_out.reject):
                    with pytest.raises(AdapterUnavailable, match=WHY):
                        answer()
            with pytest.raises(ConnectionRefusedError):
                RawPeer.to(listener.local_address)

    def test_a_softndk_peer_is_told_whose_fault_it_was(self) -> None:
        with pair() as (a, b):
            a.qp.receive(a.mr[0:64], context="R")
            fail_adapter(b.adapter, WHY)
            (cancelled,) = take(a.cq, 1)
            assert (cancelled.request_context, cancelled.status) == ("R", Status.CANCELLED)
            error = ended(a).error
            assert isinstance(error, Aborted)
            assert error.provider_error_code == 0x10208
            fault = fault_of(a)
            assert (triple(fault), fault.received) == ((0, 2, 8), True)
            assert "global" in fault.text

    def test_other_adapters_go_on(self) -> None:
        with pair() as (a, b), pair() as (c, d):
            fail_adapter(b.adapter, WHY)
            ended(a)
            still_works(c, d)
            with open_adapter() as fresh:
                end = loose_end(fresh)
                second = loose_end(a.adapter)
                connect(fresh, end.qp, a.adapter, second.qp)
                still_works(end, second)


class TestRequests:
    @pytest.mark.rules("R-CQERR-2", "R-CQERR-4", "R-COMP-1")
    def test_each_completes_once_and_in_order(self) -> None:
        """Connected or not, receives, reads, fenced, deferred and silent requests."""
        with raw_server() as (peer, end):
            other = loose_end(end.adapter)
            other.qp.receive(other.mr[0:64], context="lonely")
            for number in range(3):
                end.qp.receive(end.mr[64 * number : 64 * (number + 1)], context=f"R{number}")
            end.qp.read(end.mr[256:264], 0x9000, RemoteToken(0x5501), context="RD")
            end.qp.send(b"fenced", flags=OpFlag.READ_FENCE, context="fenced")
            end.qp.send(b"silent", flags=OpFlag.SILENT_SUCCESS, context="silent")
            end.qp.send(b"deferred", flags=OpFlag.DEFER, context="deferred")
            peer.read_request()
            fail_adapter(end.adapter, WHY)
            results = end.cq.get_results()
            assert contexts(initiators(results)) == ["RD", "fenced", "silent", "deferred"]
            assert contexts(receives(results)) == ["R0", "R1", "R2"]
            assert contexts(other.cq.get_results()) == ["lonely"]
            assert {result.status for result in results} == {Status.CANCELLED}
            for result in results:
                assert isinstance(result.error, RequestCancelled)
                assert result.error.__cause__ is not None
                assert WHY in str(result.error.__cause__)
            for cq in (end.cq, other.cq):
                assert cq.get_results() == []
                assert cq.status is Status.INTERNAL_ERROR

    def test_what_had_succeeded_keeps_its_result(self) -> None:
        with raw_client(receives=2) as (peer, end):
            peer.send_message(b"here")
            (first,) = take(end.cq, 1)
            fail_adapter(end.adapter, WHY)
            (second,) = end.cq.get_results()
            assert (first.status, second.status) == (Status.SUCCESS, Status.CANCELLED)
            assert bytes(end.mr.view[:4]) == b"here"

    def test_the_disconnect_event_and_a_disconnect_under_way(self) -> None:
        with raw_client() as (_, end), raw_client() as (_, other):
            pending = other.connector.disconnect()
            fail_adapter(end.adapter, WHY)
            fail_adapter(other.adapter, WHY)
            how = ended(end)
            assert not how.graceful
            assert how.provider_reason == 0x20208
            assert isinstance(how.error, Aborted)
            fault = fault_of(end)
            assert (triple(fault), fault.received, fault.header) == ((0, 2, 8), False, b"")
            assert WHY in how.error.explain()
            with pytest.raises(Aborted, match=WHY):
                pending.result(PATIENCE_S)

    def test_it_is_no_fault_of_the_peer(self) -> None:
        with raw_client() as (_, end):
            fail_adapter(end.adapter, WHY)
            numbers = end.adapter.query_statistics()
            assert (numbers.peer_faults, numbers.connection_error, numbers.active_connection) == (0, 1, 0)


class TestQueues:
    @pytest.mark.rules("R-CQERR-2", "R-CQERR-3")
    def test_an_armed_cq_is_told_once(self) -> None:
        told: list[Status] = []
        with open_adapter() as adapter:
            pd = adapter.create_pd()
            cq = adapter.create_cq(4, on_notify=lambda _, status: told.append(status))
            late = adapter.create_cq(4, on_notify=lambda _, status: told.append(status))
            cq.arm(CqNotify.ERRORS)
            cq.arm(CqNotify.ANY)
            fail_adapter(adapter, WHY)
            late.arm(CqNotify.ANY)
            late.arm(CqNotify.ANY)
            callbacks_are_done(pd)
            assert told == [Status.INTERNAL_ERROR] * 2

    @pytest.mark.rules("R-CQERR-2")
    def test_who_waits_is_told(self) -> None:
        with open_adapter() as adapter:
            cq = adapter.create_cq(4)
            waiting = cq.next_results()
            fail_adapter(adapter, WHY)
            with pytest.raises(InternalError, match=WHY):
                waiting.result(PATIENCE_S)
            with pytest.raises(InternalError, match=WHY):
                cq.wait(PATIENCE_S)

    @pytest.mark.rules("R-CQERR-5")
    def test_a_shared_receive_queue_fails_with_its_qps(self) -> None:
        told: list[tuple[Srq, Status]] = []
        with open_adapter() as adapter:
            spare, pd, cq = adapter.create_pd(), adapter.create_pd(), adapter.create_cq(8)
            srq = pd.create_srq(8, on_notify=lambda queue, status: told.append((queue, status)))
            mr = pd.register_mr(bytearray(64))
            qp = pd.create_qp_with_srq(cq, cq, srq, initiator_queue_depth=4)
            srq.receive(mr[0:8])
            fail_adapter(adapter, WHY)
            with pytest.raises(InternalError, match="R-CQERR-5"):
                srq.receive(mr[0:8])
            with pytest.raises(ConnectionInvalid):
                qp.send(b"no")
            assert cq.get_results() == []
            callbacks_are_done(spare)
            assert told == [(srq, Status.INTERNAL_ERROR)]

    @pytest.mark.rules("R-CQERR-4")
    def test_posts_say_why(self) -> None:
        with raw_client() as (_, end):
            fail_adapter(end.adapter, WHY)
            posts: list[Callable[[], None]] = [
                lambda: end.qp.send(b"no"),
                lambda: end.qp.receive(end.mr[0:8]),
                lambda: end.qp.write(b"no", 0, RemoteToken(1)),
                lambda: end.qp.read(end.mr[0:8], 0, RemoteToken(1)),
            ]
            for post in posts:
                with pytest.raises(ConnectionInvalid, match=WHY):
                    post()
            end.qp.flush()
            assert end.cq.get_results() == []


CALLS: dict[str, Callable[[End, Cq], object]] = {
    "create_cq": lambda end, cq: end.adapter.create_cq(4),
    "create_pd": lambda end, cq: end.adapter.create_pd(),
    "create_connector": lambda end, cq: end.adapter.create_connector(),
    "create_listener": lambda end, cq: end.adapter.create_listener(),
    "listen": lambda end, cq: end.adapter.listen(),
    "create_shared_endpoint": lambda end, cq: end.adapter.create_shared_endpoint(("127.0.0.1", 0)),
    "build_lam": lambda end, cq: end.adapter.build_lam(bytearray(8)),
    "connect": lambda end, cq: end.adapter.connect(end.qp, ("127.0.0.1", 1)),
    "connector connect": lambda end, cq: end.connector.connect(end.qp, ("127.0.0.1", 1)),
    "complete_connect": lambda end, cq: end.connector.complete_connect(),
    "accept": lambda end, cq: end.connector.accept(end.qp),
    "reject": lambda end, cq: end.connector.reject(),
    "create_mr": lambda end, cq: end.pd.create_mr(),
    "register_mr": lambda end, cq: end.pd.register_mr(bytearray(8)),
    "register": lambda end, cq: end.mr.register(bytearray(8), MrFlag.ALLOW_LOCAL_WRITE),
    "create_mw": lambda end, cq: end.pd.create_mw(),
    "create_srq": lambda end, cq: end.pd.create_srq(4),
    "create_qp": lambda end, cq: end.pd.create_qp(cq, cq, receive_queue_depth=1, initiator_queue_depth=1),
}


class TestLater:
    @pytest.mark.parametrize("name", CALLS)
    def test_what_needs_a_working_adapter_says_that_there_is_none(self, name: str) -> None:
        with open_adapter() as adapter:
            end = loose_end(adapter)
            before = adapter.open_objects
            fail_adapter(adapter, WHY)
            with pytest.raises(AdapterUnavailable) as caught:
                CALLS[name](end, end.cq)
            assert caught.value.status is Status.DEVICE_REMOVED
            assert WHY in str(caught.value)
            assert "close it" in str(caught.value)
            assert adapter.open_objects == before

    def test_a_listener_without_requests(self) -> None:
        with open_adapter() as adapter:
            listener = adapter.listen()
            waiting = listener.next_request()
            fail_adapter(adapter, WHY)
            with pytest.raises(AdapterUnavailable, match=WHY):
                waiting.result(PATIENCE_S)
            with pytest.raises(AdapterUnavailable, match=WHY):
                listener.next_request().result(PATIENCE_S)
            with pytest.raises(AdapterUnavailable, match=WHY):
                next(iter(listener))

    def test_requests_that_nobody_has_fetched_are_gone(self) -> None:
        with open_adapter() as adapter:
            listener = adapter.listen()
            with RawPeer.to(listener.local_address) as peer, RawPeer.to(listener.local_address) as second:
                peer.send_request()
                second.send_request()
                listener.next_request().result(PATIENCE_S)
                fail_adapter(adapter, WHY)
                assert is_reset(peer)
                assert is_reset(second)
            with pytest.raises(AdapterUnavailable):
                listener.next_request().result(PATIENCE_S)

    def test_memory_is_given_back_and_all_can_be_closed(self) -> None:
        memory = bytearray(64)
        with open_adapter() as adapter:
            end = loose_end(adapter)
            mr = end.pd.register_mr(memory, EVERY_RIGHT)
            fail_adapter(adapter, WHY)
            mr.deregister().result(PATIENCE_S)
            memory += b"may grow again"
            end.connector.close().result(PATIENCE_S)
        assert adapter.closed

    def test_queries_still_answer(self) -> None:
        with open_adapter() as adapter:
            listener = adapter.listen()
            fail_adapter(adapter, WHY)
            assert adapter.query_info().max_cq_depth
            assert adapter.query_connections() == ()
            assert adapter.query_statistics().connect == 0
            assert "failed" in repr(adapter)
            assert listener.local_address

    def test_a_second_call_does_nothing_and_a_closed_adapter_is_refused(self) -> None:
        with open_adapter() as adapter:
            fail_adapter(adapter, WHY)
            fail_adapter(adapter, "another reason")
            with pytest.raises(AdapterUnavailable, match=WHY):
                adapter.create_pd()
        with pytest.raises(InvalidHandle):
            fail_adapter(adapter)
        with pytest.raises(TypeError):
            fail_adapter(adapter, 7)  # type: ignore[arg-type]

    def test_in_a_callback(self) -> None:
        """As a watchdog would: from the program's own callback, with requests posted."""
        failed = threading.Event()

        def on_notify(cq: Cq, status: Status) -> None:
            if not failed.is_set():
                fail_adapter(adapters[0], WHY)
                failed.set()

        adapters: list[Adapter] = []
        with open_adapter() as adapter, open_adapter() as other:
            adapters.append(adapter)
            end, far = loose_end(adapter), loose_end(other)
            cq = adapter.create_cq(8, on_notify=on_notify)
            qp = end.pd.create_qp(cq, cq, receive_queue_depth=4, initiator_queue_depth=4)
            connect(adapter, qp, other, far.qp)
            qp.receive(end.mr[0:8], context="first")
            qp.receive(end.mr[8:16], context="second")
            cq.arm()
            far.qp.send(b"go")
            assert failed.wait(PATIENCE_S)
            first, second = take(cq, 2)
            assert (first.type, first.status) == (OperationType.RECEIVE, Status.SUCCESS)
            assert second.status is Status.CANCELLED


def test_callbacks_of_a_failed_adapter_still_come() -> None:
    told: list[object] = []
    with open_adapter() as adapter, open_adapter() as other:
        end, far = loose_end(adapter), loose_end(other)
        listener = other.listen()
        connecting = adapter.connect(
            end.qp, listener.local_address, on_disconnect=lambda connector, how: told.append(how.error)
        )
        listener.next_request().result(PATIENCE_S).accept(far.qp)
        connecting.result(PATIENCE_S)
        spare = adapter.create_pd()
        fail_adapter(adapter, WHY)
        callbacks_are_done(spare)
        (error,) = told
        assert isinstance(error, Aborted)
