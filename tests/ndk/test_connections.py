"""Connecting, start-up on the wire, read limits, time limits, disconnecting: sections 4 and 8 of the NDKPI rules."""

import array
import asyncio
import select
import socket
import sys
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import CancelledError
from contextlib import contextmanager, suppress

import pytest

from softndk import (
    Aborted,
    Address,
    AddressUnavailable,
    ConnectionInvalid,
    Connector,
    Disconnect,
    InvalidHandle,
    InvalidParameter,
    InvalidState,
    IoTimeout,
    IwarpConfig,
    Listener,
    NdkError,
    OpFlag,
    Refused,
    RemoteToken,
    RequestCancelled,
    Status,
    open_adapter,
)
from softndk.conformance.providers import has_ipv6
from softndk.testing import End, Pair, kill, pair
from softndk.wire.ddp import QueueNumber
from softndk.wire.mpa import Enhanced, FrameKind, StartupFrame
from softndk.wire.rdmap import Opcode
from tests.ndk.ends import (
    EVERY_RIGHT,
    PATIENCE_S,
    Ledger,
    callbacks_have_run,
    connect,
    contexts,
    ended,
    loose_end,
    one,
    statistics,
    still_works,
    succeed,
    take,
)
from tests.ndk.raw_peer import RawListener, RawPeer, raw_client, raw_server

UNKNOWN = RemoteToken(0x0000_0100)
SOON_S = 0.05


needs_ipv6 = pytest.mark.skipif(not has_ipv6(), reason="this machine has no ::1")
HOSTS = ["127.0.0.1", pytest.param("::1", marks=needs_ipv6)]


@contextmanager
def two_loose_ends(
    config: IwarpConfig | None = None, peer_config: IwarpConfig | None = None
) -> Iterator[tuple[End, End, Listener]]:
    """Two ends without a connection, and a listener of the second one's adapter."""
    with open_adapter(config=config) as active, open_adapter(config=peer_config or config) as passive:
        yield loose_end(active), loose_end(passive), passive.listen()


def request_from(a: End, listener: Listener) -> Connector:
    """The connector of a's request, which is under way."""
    a.connector.connect(a.qp, listener.local_address).add_done_callback(lambda _: None)
    return listener.next_request().result(PATIENCE_S)


# ---- both roles, both revisions, both families


@pytest.mark.parametrize("host", HOSTS)
@pytest.mark.parametrize("revision", [1, 2])
def test_two_adapters_connect_and_talk_both_ways(host: str, revision: int) -> None:
    with pair(address=host, config=IwarpConfig(mpa_revision=revision)) as (a, b):
        still_works(a, b)
        still_works(b, a)
        for end, other in ((a, b), (b, a)):
            assert end.connector.peer_address == other.connector.local_address
            assert end.connector.local_address[0] == host


@pytest.mark.parametrize("host", HOSTS)
@pytest.mark.parametrize("revision", [1, 2])
def test_the_active_sides_request_frame(host: str, revision: int) -> None:
    config = IwarpConfig(mpa_revision=revision)
    with open_adapter(host, config=config) as adapter, RawListener(host) as listener:
        end = loose_end(adapter)
        end.connector.connect(
            end.qp, listener.address, private_data=b"hello", inbound_read_limit=3, outbound_read_limit=5
        ).add_done_callback(lambda _: None)
        with listener.accept() as peer:
            frame = peer.read_startup()
            assert (frame.revision, frame.crc, frame.markers, frame.reject) == (revision, True, False, False)
            assert frame.private_data == b"hello"
            if revision == 2:
                assert frame.enhanced == Enhanced(
                    ird=3, ord=5, peer_to_peer=True, rtr_send=False, rtr_write=True, rtr_read=True
                )
            else:
                assert frame.enhanced is None


@pytest.mark.parametrize("host", HOSTS)
@pytest.mark.parametrize("revision", [1, 2])
def test_the_passive_side_answers_a_raw_request_of_either_revision(host: str, revision: int) -> None:
    with open_adapter(host) as adapter:
        end = loose_end(adapter)
        listener = adapter.listen()
        with RawPeer.to(listener.local_address) as peer:
            peer.send_request(b"hello", revision=revision)
            incoming = listener.next_request().result(PATIENCE_S)
            assert incoming.connection_data.private_data == b"hello"
            end.qp.receive(end.mr[0:8])
            accepting = incoming.accept(end.qp, private_data=b"welcome")
            frame = peer.read_startup()
            assert (frame.revision, frame.reject, frame.private_data) == (revision, False, b"welcome")
            assert (frame.enhanced is not None) == (revision == 2)
            if revision == 2:
                peer.send_ready()
            accepting.result(PATIENCE_S)
            peer.send_message(b"first")
            assert one(end.cq).bytes_transferred == 5


def test_the_start_up_may_come_octet_by_octet() -> None:
    frame = StartupFrame(FrameKind.REQUEST, False, True, False, 1, None, b"slow").emit()
    with open_adapter() as adapter:
        listener = adapter.listen()
        with RawPeer.to(listener.local_address) as peer:
            for octet in frame:
                peer.send(bytes([octet]))
            assert listener.next_request().result(PATIENCE_S).connection_data.private_data == b"slow"


@pytest.mark.rules("R-CONN-1")
@pytest.mark.parametrize("family", [4, pytest.param(6, marks=needs_ipv6)])
def test_an_adapter_of_both_families_connects_to_either(family: int) -> None:
    hosts = ("127.0.0.1", "::1") if has_ipv6() else ("127.0.0.1",)
    with open_adapter(hosts) as adapter:
        a, b = loose_end(adapter), loose_end(adapter)
        host = "127.0.0.1" if family == 4 else "::1"
        listener = adapter.listen((host, 0))
        connecting = adapter.connect(a.qp, listener.local_address)
        accepting = listener.next_request().result(PATIENCE_S).accept(b.qp)
        assert connecting.result(PATIENCE_S).local_address[0] == host
        accepting.result(PATIENCE_S)


@pytest.mark.rules("A-22")
def test_a_wildcard_listener_takes_requests_at_every_address_of_its_family() -> None:
    with open_adapter(("127.0.0.1", "127.0.0.2")) as adapter:
        listener = adapter.listen(("0.0.0.0", 0))
        port = listener.local_address[1]
        for host in ("127.0.0.1", "127.0.0.2"):
            with RawPeer.to((host, port)) as peer:
                peer.send_request()
                assert listener.next_request().result(PATIENCE_S).local_address == (host, port)
        with pytest.raises(ConnectionRefusedError):
            RawPeer.to(("127.0.0.3", port))


# ---- the peer's frames that are wrong


BAD_REQUESTS: dict[str, bytes] = {
    "a Reply": b"MPA ID Rep Frame\x40\x02\0\0",
    "a wrong key": b"MPA ID Req Framf\x40\x02\0\0",
    "revision 3": b"MPA ID Req Frame\x40\x03\0\0",
    "revision 0": b"MPA ID Req Frame\x40\x00\0\0",
    "too much private data": b"MPA ID Req Frame\x40\x02\x02\x01",
    "enhanced without its data": b"MPA ID Req Frame\x50\x02\0\x03abc",
    "data behind it": b"MPA ID Req Frame\x40\x01\0\0behind",
    "HTTP": b"GET / HTTP/1.1\r\nHost: x\r\n\r\n",
}


@pytest.mark.parametrize("name", BAD_REQUESTS)
def test_a_bad_request_is_closed_without_an_answer_and_nobody_is_told(name: str) -> None:
    with open_adapter() as adapter:
        listener = adapter.listen()
        with RawPeer.to(listener.local_address) as peer:
            peer.send(BAD_REQUESTS[name])
            with suppress(ConnectionResetError):
                assert peer.at_end()
        if name != "data behind it":  # which may come after the request has been indicated
            assert not listener.next_request().done()


@pytest.mark.parametrize("how", ["finish", "reset"])
@pytest.mark.parametrize("octets", [0, 10, 19])
def test_a_peer_that_leaves_within_its_request_is_forgotten(how: str, octets: int) -> None:
    with open_adapter() as adapter:
        listener = adapter.listen()
        with RawPeer.to(listener.local_address) as peer:
            peer.send(b"MPA ID Req Frame\x40\x02\0\0"[:octets])
            if how == "finish":
                peer.finish()
                assert peer.at_end()
            else:
                peer.reset()
        with RawPeer.to(listener.local_address) as peer:
            peer.send_request(b"next")
            assert listener.next_request().result(PATIENCE_S).connection_data.private_data == b"next"


BAD_REPLIES: dict[str, tuple[bytes, type[NdkError]]] = {
    "a Request": (b"MPA ID Req Frame\x40\x02\0\0", Aborted),
    "a wrong key": (b"MPA ID Rep Framf\x40\x02\0\0", Aborted),
    "revision 3": (b"MPA ID Rep Frame\x50\x03\0\x04\0\0\0\0", Aborted),
    "not enhanced": (b"MPA ID Rep Frame\x40\x02\0\0", Aborted),
    "too much private data": (b"MPA ID Rep Frame\x40\x02\x02\x01", Aborted),
}


@pytest.mark.parametrize("name", BAD_REPLIES)
def test_a_bad_reply_fails_the_connect_and_closes_tcp(name: str) -> None:
    octets, error = BAD_REPLIES[name]
    with open_adapter() as adapter, RawListener() as listener:
        end = loose_end(adapter)
        connecting = end.connector.connect(end.qp, listener.address)
        with listener.accept() as peer:
            peer.read_startup()
            peer.send(octets)
            with pytest.raises(error):
                connecting.result(PATIENCE_S)
            assert peer.at_end()


@pytest.mark.parametrize(
    ("answer", "code"),
    [
        (Enhanced(ird=16, ord=9, peer_to_peer=True, rtr_write=True), 6),  # more reads than we hold
        (Enhanced(ird=16, ord=4, peer_to_peer=True, rtr_send=True), 7),  # an indication that we cannot send
        (Enhanced(ird=0, ord=4, peer_to_peer=True, rtr_read=True), 7),  # a read without room for it
    ],
)
def test_a_reply_that_does_not_fit_is_answered_with_a_terminate(answer: Enhanced, code: int) -> None:
    with open_adapter() as adapter, RawListener() as listener:
        end = loose_end(adapter)
        connecting = end.connector.connect(end.qp, listener.address, inbound_read_limit=8)
        with listener.accept() as peer:
            peer.read_startup()
            peer.send_reply(enhanced=answer)
            body = peer.read_terminate()
            assert (body.layer, body.etype, body.code) == (2, 0, code)
        with pytest.raises(Aborted) as failed:
            connecting.result(PATIENCE_S)
        assert failed.value.provider_error_code == 0x2_2000 | code


# ---- the ready-to-receive indication, and who may send first


@pytest.mark.rules("R-IW-1")
def test_the_indication_lets_the_passive_side_send_first() -> None:
    with two_loose_ends() as (a, b, listener):
        a.qp.receive(a.mr[0:16])
        connecting = a.adapter.connect(a.qp, listener.local_address)
        accepting = listener.next_request().result(PATIENCE_S).accept(b.qp)
        connecting.result(PATIENCE_S)
        accepting.result(PATIENCE_S)
        b.qp.send(b"passive first")
        assert one(a.cq).bytes_transferred == 13


@pytest.mark.rules("R-IW-1")
@pytest.mark.parametrize("revision", [1, 2])
def test_without_the_indication_the_passive_side_sends_when_it_has_heard_the_active_side(revision: int) -> None:
    with open_adapter() as adapter:
        end = loose_end(adapter)
        listener = adapter.listen()
        with RawPeer.to(listener.local_address) as peer:
            peer.send_request(revision=revision, enhanced=Enhanced(ird=4, ord=4))
            end.qp.receive(end.mr[0:16])
            listener.next_request().result(PATIENCE_S).accept(end.qp).result(PATIENCE_S)
            peer.read_startup()
            end.qp.send(b"passive", context="sent")
            assert end.cq.get_results() == []
            peer.send_message(b"active first")
            received, sent = take(end.cq, 2)
            assert (received.bytes_transferred, sent.request_context) == (12, "sent")


@pytest.mark.parametrize(
    ("answer", "opcode"),
    [
        (Enhanced(ird=4, ord=4, peer_to_peer=True, rtr_write=True, rtr_read=True), Opcode.WRITE),
        (Enhanced(ird=4, ord=4, peer_to_peer=True, rtr_read=True), Opcode.READ_REQUEST),
        (Enhanced(ird=4, ord=4, peer_to_peer=True, rtr_write=True, rtr_send=True), Opcode.WRITE),
    ],
)
def test_the_active_side_sends_an_indication_that_the_reply_allows_and_nothing_before_it(
    answer: Enhanced, opcode: Opcode
) -> None:
    with open_adapter() as adapter, RawListener() as listener:
        end = loose_end(adapter)
        connecting = end.connector.connect(end.qp, listener.address)
        with listener.accept() as peer:
            peer.read_startup()
            peer.send_reply(enhanced=answer)
            connecting.result(PATIENCE_S)
            assert select.select([peer.sock], [], [], 0)[0] == []  # it goes out with complete_connect (R-IW-4)
            end.connector.complete_connect().result(PATIENCE_S)
            end.qp.send(b"after it")
            if opcode is Opcode.WRITE:
                assert peer.read_tagged(Opcode.WRITE)[1] == b""
            else:
                read = peer.read_request()
                assert read.size == 0
                peer.answer(read, b"")
            assert peer.read_untagged(Opcode.SEND)[1] == b"after it"
            succeed(end.cq)


@pytest.mark.rules("R-IW-4")
def test_the_accept_completes_with_the_indication() -> None:
    with open_adapter() as adapter:
        end = loose_end(adapter)
        listener = adapter.listen()
        with RawPeer.to(listener.local_address) as peer:
            peer.send_request()
            accepting = listener.next_request().result(PATIENCE_S).accept(end.qp)
            peer.read_startup()
            assert not accepting.done()
            peer.send_ready()
            accepting.result(PATIENCE_S)


@pytest.mark.parametrize("first", ["send", "write", "read"])
def test_any_first_fpdu_is_an_indication(first: str) -> None:
    with open_adapter() as adapter:
        end = loose_end(adapter)
        end.qp.receive(end.mr[0:8], context="first")
        listener = adapter.listen()
        with RawPeer.to(listener.local_address) as peer:
            peer.send_request()
            accepting = listener.next_request().result(PATIENCE_S).accept(end.qp)
            peer.read_startup()
            if first == "send":
                peer.send_message(b"first")
            elif first == "write":
                peer.send_write(end.mr.remote_token, end.mr.address, b"first")
            else:
                peer.send_read_request(0, 0, 0)
            accepting.result(PATIENCE_S)
            if first == "send":
                assert one(end.cq).request_context == "first"


@pytest.mark.parametrize("revision", [1, 2])
def test_without_an_indication_the_accept_completes_at_once_and_sends_wait_for_the_first_fpdu(revision: int) -> None:
    with open_adapter() as adapter:
        end = loose_end(adapter)
        end.qp.receive(end.mr[0:8], context="first")
        listener = adapter.listen()
        with RawPeer.to(listener.local_address) as peer:
            peer.send_request(revision=revision, enhanced=Enhanced(ird=4, ord=4))
            listener.next_request().result(PATIENCE_S).accept(end.qp).result(PATIENCE_S)
            end.qp.send(b"fenced", context="fenced")
            peer.read_startup()
            assert select.select([peer.sock], [], [], 0)[0] == []
            peer.send_message(b"first")
            assert peer.read_untagged(Opcode.SEND)[1] == b"fenced"
            assert set(contexts(take(end.cq, 2))) == {"first", "fenced"}


def test_fpdus_right_behind_the_reply_are_kept_until_the_connect_is_completed() -> None:
    """siw as a responder may send that early."""
    with open_adapter() as adapter, RawListener() as listener:
        end = loose_end(adapter)
        end.qp.receive(end.mr[0:8], context="early")
        connecting = end.connector.connect(end.qp, listener.address)
        with listener.accept() as peer:
            peer.read_startup()
            peer.send_reply()
            peer.send_message(b"early")
            connecting.result(PATIENCE_S)
            assert end.cq.get_results() == []
            end.connector.complete_connect().result(PATIENCE_S)
            assert one(end.cq).request_context == "early"


# ---- CRC and markers


@pytest.mark.parametrize(("ours", "theirs"), [(True, True), (True, False), (False, True), (False, False)])
@pytest.mark.parametrize("role", ["active", "passive"])
def test_crc_is_off_only_when_both_sides_say_so(role: str, ours: bool, theirs: bool) -> None:
    """With it on, ours are right and a damaged one ends the connection; with it off, ours are 0 and nobody looks."""
    config = IwarpConfig(crc=ours)
    used = ours or theirs
    opposite = raw_server(config, crc=used) if role == "active" else raw_client(config, receives=2, crc=used)
    with opposite as (peer, end):
        if role == "active":
            end.qp.receive(end.mr[0:8])
        end.qp.send(b"ours")
        assert peer.read_untagged(Opcode.SEND)[1] == b"ours"
        succeed(end.cq)
        peer.send(peer.fpdu(peer.untagged(Opcode.SEND, QueueNumber.SEND, b"damaged"), damaged=True))
        if used:
            body = peer.read_terminate()
            assert (body.layer, body.etype, body.code) == (2, 0, 2)
        else:
            assert take(end.cq, 1)[0].bytes_transferred == 7


@pytest.mark.parametrize(("ours", "theirs"), [(True, False), (False, True), (False, False)])
def test_adapters_with_different_crc_settings_understand_each_other(ours: bool, theirs: bool) -> None:
    with pair(config=IwarpConfig(crc=ours), peer_config=IwarpConfig(crc=theirs)) as (a, b):
        still_works(a, b)
        still_works(b, a)


@pytest.mark.parametrize(("ours", "theirs"), [(True, False), (False, True), (True, True)])
def test_adapters_that_ask_for_markers_get_them(ours: bool, theirs: bool) -> None:
    config, peer_config = IwarpConfig(markers=ours, max_fpdu=600), IwarpConfig(markers=theirs, max_fpdu=600)
    with pair(config=config, peer_config=peer_config, flags=EVERY_RIGHT) as (a, b):
        data = bytes(n * 7 % 256 for n in range(8192))
        for sender, receiver in ((a, b), (b, a)):
            sender.mr.view[:] = data
            receiver.mr.view[:] = bytes(8192)
            sender.qp.write(sender.mr[:], receiver.mr.address, receiver.mr.remote_token)
            sender.qp.read([], 0, UNKNOWN)
            succeed(sender.cq, 2)
            assert receiver.mr.view == data


# ---- private data


@pytest.mark.rules("R-PDATA-1", "R-PDATA-3")
@pytest.mark.parametrize("revision", [1, 2])
@pytest.mark.parametrize("share", [0, 1])
def test_private_data_of_any_legal_length_arrives_exactly_both_ways(revision: int, share: int) -> None:
    with two_loose_ends(IwarpConfig(mpa_revision=revision)) as (a, b, listener):
        caller, callee = a.adapter.query_info().max_caller_data, b.adapter.query_info().max_callee_data
        assert (caller, callee) == ({1: 512, 2: 508}[revision], 508)
        hello, welcome = bytes(range(256)) * 2, bytes(range(255, -1, -1)) * 2
        hello, welcome = hello[: caller * share], welcome[: callee * share]
        connecting = a.connector.connect(a.qp, listener.local_address, private_data=hello)
        incoming = listener.next_request().result(PATIENCE_S)
        assert incoming.connection_data.private_data == hello
        incoming.accept(b.qp, private_data=welcome)
        connecting.result(PATIENCE_S)
        assert a.connector.connection_data.private_data == welcome
        a.connector.complete_connect().result(PATIENCE_S)
        assert a.connector.connection_data.private_data == welcome
        assert incoming.connection_data.private_data == hello


@pytest.mark.rules("R-PDATA-1")
@pytest.mark.parametrize("revision", [1, 2])
def test_private_data_over_the_limit_is_invalid_buffer_size_and_changes_nothing(revision: int) -> None:
    with two_loose_ends(IwarpConfig(mpa_revision=revision)) as (a, b, listener):
        info = a.adapter.query_info()
        hello, welcome = bytes(info.max_caller_data + 1), bytes(info.max_callee_data + 1)
        incoming = request_from(loose_end(a.adapter), listener)
        calls: dict[str, list[Callable[[], object]]] = {
            "max_caller_data": [
                lambda: a.connector.connect(a.qp, listener.local_address, private_data=hello),
                lambda: a.adapter.connect(a.qp, listener.local_address, private_data=hello),
            ],
            "max_callee_data": [
                lambda: incoming.accept(b.qp, private_data=welcome),
                lambda: incoming.reject(welcome),
            ],
        }
        for name, refused_calls in calls.items():
            for call in refused_calls:
                with pytest.raises(InvalidParameter, match=name) as refused:
                    call()
                assert refused.value.status is Status.INVALID_BUFFER_SIZE
        incoming.accept(b.qp)
        request_from(a, listener)


def test_the_answer_to_an_enhanced_request_has_room_for_the_enhanced_data() -> None:
    """A passive adapter that would ask with revision 1 answers a revision 2 request all the same."""
    with two_loose_ends(IwarpConfig(mpa_revision=2), IwarpConfig(mpa_revision=1)) as (a, b, listener):
        connecting = a.connector.connect(a.qp, listener.local_address)
        incoming = listener.next_request().result(PATIENCE_S)
        with pytest.raises(InvalidParameter) as refused:
            incoming.accept(b.qp, private_data=bytes(509))
        assert refused.value.status is Status.INVALID_BUFFER_SIZE
        incoming.accept(b.qp, private_data=bytes(508))
        connecting.result(PATIENCE_S)
        assert a.connector.connection_data.private_data == bytes(508)


# ---- reject


@pytest.mark.rules("R-REJECT-1", "A-8")
@pytest.mark.parametrize("data", [b"", b"no room", bytes(508)])
def test_a_reject_is_connection_refused_with_the_data(data: bytes) -> None:
    with two_loose_ends() as (a, _, listener):
        connecting = a.connector.connect(a.qp, listener.local_address)
        listener.next_request().result(PATIENCE_S).reject(data)
        with pytest.raises(Refused, match="R-REJECT-1") as refused:
            connecting.result(PATIENCE_S)
        assert refused.value.status is Status.CONNECTION_REFUSED
        assert refused.value.private_data == data
        assert a.connector.connection_data.private_data == data


def test_a_raw_reject_with_data_is_connection_refused() -> None:
    with open_adapter() as adapter, RawListener() as listener:
        end = loose_end(adapter)
        connecting = adapter.connect(end.qp, listener.address)
        with listener.accept() as peer:
            peer.read_startup()
            peer.send_reply(b"no", reject=True)
            with pytest.raises(Refused) as refused:
                connecting.result(PATIENCE_S)
            assert refused.value.private_data == b"no"


def test_a_reject_is_a_reply_with_the_flag_and_the_enhanced_data_and_then_fin() -> None:
    with open_adapter() as adapter:
        listener = adapter.listen()
        with RawPeer.to(listener.local_address) as peer:
            peer.send_request()
            listener.next_request().result(PATIENCE_S).reject(b"no")
            frame = peer.read_startup()
            assert (frame.reject, frame.private_data) == (True, b"no")
            assert frame.enhanced is not None
            assert peer.at_end()


@pytest.mark.rules("R-REJECT-2", "R-IW-4")
def test_the_active_side_may_reject_the_accept_and_the_accept_fails() -> None:
    """R-REJECT-2; with an indication negotiated the passive side notices (R-IW-4)."""
    with two_loose_ends() as (a, b, listener):
        connecting = a.connector.connect(a.qp, listener.local_address)
        incoming = listener.next_request().result(PATIENCE_S)
        accepting = incoming.accept(b.qp)
        connecting.result(PATIENCE_S)
        a.connector.reject(b"cannot travel")
        with pytest.raises((Refused, Aborted)):
            accepting.result(PATIENCE_S)
        with pytest.raises(ConnectionInvalid):
            a.connector.complete_connect().result(PATIENCE_S)


@pytest.mark.rules("R-CONN-4", "R-CONN-7")
def test_the_active_side_may_close_instead_of_completing_and_the_accept_fails() -> None:
    with two_loose_ends() as (a, b, listener):
        connecting = a.connector.connect(a.qp, listener.local_address)
        accepting = listener.next_request().result(PATIENCE_S).accept(b.qp)
        connecting.result(PATIENCE_S)
        a.connector.close().result(PATIENCE_S)
        with pytest.raises((Refused, Aborted)):
            accepting.result(PATIENCE_S)


@pytest.mark.rules("R-REJECT-3")
def test_after_a_reject_the_connector_is_only_good_for_closing() -> None:
    with two_loose_ends() as (a, b, listener):
        incoming = request_from(a, listener)
        incoming.reject()
        with pytest.raises(InvalidState):
            incoming.reject()
        with pytest.raises(InvalidState):
            incoming.accept(b.qp)
        incoming.close().result(PATIENCE_S)


@pytest.mark.rules("R-CLOSE-10")
def test_closing_an_unanswered_connector_rejects() -> None:
    with two_loose_ends() as (a, _, listener):
        connecting = a.connector.connect(a.qp, listener.local_address)
        listener.next_request().result(PATIENCE_S).close()
        with pytest.raises(Refused):
            connecting.result(PATIENCE_S)


@pytest.mark.rules("A-26")
def test_a_peer_that_gives_up_before_the_accept_makes_it_connection_aborted() -> None:
    """A-26: and there is no disconnect event."""
    with open_adapter() as adapter:
        end = loose_end(adapter)
        listener = adapter.listen()
        with RawPeer.to(listener.local_address) as peer:
            peer.send_request()
            incoming = listener.next_request().result(PATIENCE_S)
            peer.reset()
            with pytest.raises(Aborted) as aborted:
                incoming.accept(end.qp).result(PATIENCE_S)
        assert aborted.value.status in (Status.CONNECTION_ABORTED, Status.CONNECTION_RESET)
        assert not incoming.disconnected.done()


def test_a_reject_after_the_peer_has_given_up_is_connection_aborted() -> None:
    with open_adapter() as adapter:
        listener = adapter.listen()
        with RawPeer.to(listener.local_address) as peer:
            peer.send_request()
            incoming = listener.next_request().result(PATIENCE_S)
            peer.finish()
            assert peer.at_end()  # so it has been noticed
        with pytest.raises(Aborted) as aborted:
            incoming.reject()
        assert aborted.value.status is Status.CONNECTION_ABORTED


def test_private_data_may_be_any_buffer() -> None:
    with two_loose_ends() as (a, b, listener):
        numbers = array.array("I", range(127))  # 508 octets
        connecting = a.connector.connect(a.qp, listener.local_address, private_data=numbers)  # type: ignore[arg-type]
        incoming = listener.next_request().result(PATIENCE_S)
        assert incoming.connection_data.private_data == numbers.tobytes()
        incoming.accept(b.qp, private_data=numbers)  # type: ignore[arg-type]
        connecting.result(PATIENCE_S)
        assert a.connector.connection_data.private_data == numbers.tobytes()
        numbers.append(0)
        with pytest.raises(InvalidParameter, match="512 octets"):
            a.adapter.connect(a.qp, listener.local_address, private_data=numbers)  # type: ignore[arg-type]


@pytest.mark.rules("R-CONN-6", "A-27")
def test_a_refused_connect_leaves_queue_pair_and_receives_for_a_new_connector() -> None:
    """R-CONN-6, A-27."""
    with two_loose_ends() as (a, b, listener):
        a.qp.receive(a.mr[0:16], context="posted before")
        for _ in range(2):
            connector = a.adapter.create_connector()
            connecting = connector.connect(a.qp, listener.local_address)
            listener.next_request().result(PATIENCE_S).reject()
            with pytest.raises(Refused):
                connecting.result(PATIENCE_S)
            with pytest.raises(ConnectionInvalid):
                connector.connect(a.qp, listener.local_address)
        assert a.cq.get_results() == []
        connect(a.adapter, a.qp, b.adapter, b.qp)
        b.qp.send(b"at last")
        assert one(a.cq).request_context == "posted before"


@pytest.mark.rules("R-CONN-3")
def test_nobody_listening_is_connection_refused() -> None:
    with open_adapter() as adapter, socket.create_server(("127.0.0.1", 0)) as taken:
        end = loose_end(adapter)
        address = taken.getsockname()
        taken.close()
        with pytest.raises(Refused) as refused:
            end.connector.connect(end.qp, address).result(PATIENCE_S)
        assert refused.value.errno == 111
        assert refused.value.private_data is None


def test_a_peer_that_closes_without_an_answer_is_connection_refused() -> None:
    with open_adapter() as adapter, RawListener() as listener:
        end = loose_end(adapter)
        connecting = end.connector.connect(end.qp, listener.address)
        with listener.accept() as peer:
            peer.read_startup()
            peer.finish()
            with pytest.raises(Refused):
                connecting.result(PATIENCE_S)


# ---- time limits


@pytest.mark.rules("R-TIME-1")
def test_a_listener_that_never_answers_is_io_timeout_after_connect_timeout_s() -> None:
    with open_adapter(config=IwarpConfig(connect_timeout_s=SOON_S)) as adapter, RawListener() as listener:
        end = loose_end(adapter)
        with pytest.raises(IoTimeout, match=f"connect_timeout_s={SOON_S}") as late:
            end.connector.connect(end.qp, listener.address).result(PATIENCE_S)
        assert late.value.status is Status.IO_TIMEOUT
        assert statistics(end).connect_failure == 1


def test_a_client_that_never_speaks_is_dropped_after_accept_timeout_s() -> None:
    with open_adapter(config=IwarpConfig(accept_timeout_s=SOON_S)) as adapter:
        listener = adapter.listen()
        with RawPeer.to(listener.local_address) as peer, suppress(ConnectionResetError):
            assert peer.at_end()
        assert adapter.query_statistics().connect_failure == 1


@pytest.mark.rules("R-TIME-2")
def test_a_program_may_think_longer_than_accept_timeout_s() -> None:
    """R-TIME-2: once the request is complete, nobody is timed out for the consumer's slowness."""
    with two_loose_ends(IwarpConfig(accept_timeout_s=SOON_S)) as (a, b, listener):
        connecting = a.connector.connect(a.qp, listener.local_address)
        incoming = listener.next_request().result(PATIENCE_S)
        with RawPeer.to(listener.local_address) as other, suppress(ConnectionResetError):
            assert other.at_end()  # this one is dropped meanwhile
        incoming.accept(b.qp)
        connecting.result(PATIENCE_S)


@pytest.mark.rules("R-COMPCONN-3", "R-TIME-2")
def test_a_program_may_complete_later_than_connect_timeout_s() -> None:
    with two_loose_ends(IwarpConfig(connect_timeout_s=SOON_S)) as (a, b, listener):
        connecting = a.connector.connect(a.qp, listener.local_address)
        accepting = listener.next_request().result(PATIENCE_S).accept(b.qp)
        connecting.result(PATIENCE_S)
        with RawListener() as silent:
            other = loose_end(a.adapter)
            with pytest.raises(IoTimeout):
                other.connector.connect(other.qp, silent.address).result(PATIENCE_S)
        a.connector.complete_connect().result(PATIENCE_S)
        accepting.result(PATIENCE_S)


@pytest.mark.rules("R-TIME-1")
def test_a_peer_that_never_completes_is_io_timeout_after_ready_timeout_s() -> None:
    with open_adapter(config=IwarpConfig(ready_timeout_s=SOON_S)) as adapter:
        end = loose_end(adapter)
        listener = adapter.listen()
        with RawPeer.to(listener.local_address) as peer:
            peer.send_request()
            incoming = listener.next_request().result(PATIENCE_S)
            with pytest.raises(IoTimeout, match=f"ready_timeout_s={SOON_S}"):
                incoming.accept(end.qp).result(PATIENCE_S)
        assert not incoming.disconnected.done()  # R-DEV-6


@pytest.mark.rules("R-TIME-1", "A-14")
def test_a_peer_that_never_disconnects_is_io_timeout_after_disconnect_timeout_s() -> None:
    with raw_client(IwarpConfig(disconnect_timeout_s=SOON_S), receives=2) as (_, end):
        with pytest.raises(IoTimeout, match=f"disconnect_timeout_s={SOON_S}"):
            end.connector.disconnect().result(PATIENCE_S)
        assert [r.status for r in take(end.cq, 2)] == [Status.CANCELLED] * 2
        with pytest.raises(ConnectionInvalid):
            end.connector.disconnect().result(PATIENCE_S)


def test_a_peer_that_hangs_does_not_hang_the_disconnect() -> None:
    with pair(config=IwarpConfig(disconnect_timeout_s=SOON_S), flags=EVERY_RIGHT) as (a, b):
        account = Ledger(a)
        account.receive()
        kill(b.adapter, "silence")
        account.post(lambda flags, n: a.qp.read(a.mr[0:8], b.mr.address, b.mr.remote_token, context=n))
        account.send(flags=OpFlag.READ_FENCE)
        with pytest.raises(IoTimeout):
            a.connector.disconnect().result(PATIENCE_S)
        results = account.close_account()
        assert [r.status for r in results] == [Status.CANCELLED] * 3


# ---- read limits


@pytest.mark.rules("R-LIM-1", "R-LIM-2", "R-LIM-6")
@pytest.mark.parametrize(
    ("caller", "callee", "before", "expected_a", "expected_b"),
    [
        # asked (inbound, outbound); what the passive side is told before the accept; effective on both sides
        ((None, None), (None, None), (64, 64), (64, 64), (64, 64)),
        ((8, 4), (None, None), (4, 8), (8, 4), (4, 8)),
        ((8, 4), (2, 3), (4, 8), (3, 2), (2, 3)),
        ((100, 1000), (1000, 100), (64, 64), (64, 64), (64, 64)),
        ((5, 5), (9, 9), (5, 5), (5, 5), (5, 5)),
    ],
)
def test_read_limits_are_the_least_of_what_is_asked_held_and_offered(
    caller: tuple[int | None, int | None],
    callee: tuple[int | None, int | None],
    before: tuple[int, int],
    expected_a: tuple[int, int],
    expected_b: tuple[int, int],
) -> None:
    """R-LIM-1 to R-LIM-6; the capping is silent."""
    with two_loose_ends() as (a, b, listener):
        connecting = a.connector.connect(
            a.qp, listener.local_address, inbound_read_limit=caller[0], outbound_read_limit=caller[1]
        )
        incoming = listener.next_request().result(PATIENCE_S)
        assert limits(incoming) == before
        accepting = incoming.accept(b.qp, inbound_read_limit=callee[0], outbound_read_limit=callee[1])
        connecting.result(PATIENCE_S)
        assert limits(a.connector) == expected_a
        a.connector.complete_connect().result(PATIENCE_S)
        accepting.result(PATIENCE_S)
        assert limits(a.connector) == expected_a
        assert limits(incoming) == expected_b


def limits(connector: Connector) -> tuple[int, int]:
    data = connector.connection_data
    return data.inbound_read_limit, data.outbound_read_limit


@pytest.mark.rules("R-LIM-4")
def test_an_outbound_limit_of_0_means_no_reads() -> None:
    with two_loose_ends() as (a, b, listener):
        connecting = a.adapter.connect(a.qp, listener.local_address, outbound_read_limit=0)
        accepting = listener.next_request().result(PATIENCE_S).accept(b.qp)
        connecting.result(PATIENCE_S)
        accepting.result(PATIENCE_S)
        with pytest.raises(InvalidState, match="R-LIM-4") as refused:
            a.qp.read(a.mr[0:8], b.mr.address, b.mr.remote_token)
        assert refused.value.status is Status.INVALID_DEVICE_REQUEST
        still_works(a, b)
        b.qp.read(b.mr[0:8], a.mr.address, a.mr.remote_token)
        succeed(b.cq)


@pytest.mark.rules("R-LIM-4")
def test_an_inbound_limit_of_0_means_that_the_peer_cannot_read() -> None:
    with two_loose_ends() as (a, b, listener):
        connecting = a.adapter.connect(a.qp, listener.local_address)
        accepting = listener.next_request().result(PATIENCE_S).accept(b.qp, inbound_read_limit=0)
        connecting.result(PATIENCE_S)
        accepting.result(PATIENCE_S)
        with pytest.raises(InvalidState, match="R-LIM-4"):
            a.qp.read(a.mr[0:8], b.mr.address, b.mr.remote_token)


@pytest.mark.parametrize("limit", [-1, 1.5, True, "4"])
def test_a_read_limit_that_is_no_number_is_refused(limit: int) -> None:
    with two_loose_ends() as (a, _, listener), pytest.raises((InvalidParameter, TypeError)):
        a.connector.connect(a.qp, listener.local_address, inbound_read_limit=limit)


@pytest.mark.rules("R-READ-4")
@pytest.mark.parametrize("limit", [1, 3])
def test_never_more_reads_in_progress_than_the_outbound_limit(limit: int) -> None:
    """R-READ-4: the next one waits at the head of the queue and blocks what follows."""
    answer = Enhanced(ird=limit, ord=4, peer_to_peer=True, rtr_write=True)
    with raw_server(enhanced=answer) as (peer, end):
        assert limits(end.connector)[1] == limit
        for number in range(6):
            end.qp.read(end.mr[number : number + 1], 0, UNKNOWN, context=number)
        end.qp.send(b"last", context="last")
        waiting = [peer.read_request() for _ in range(limit)]
        for number in range(6):
            peer.send_read_request(1, end.mr.remote_token, end.mr.address)
            peer.read_tagged(Opcode.READ_RESPONSE)  # nothing else could go
            peer.answer(waiting.pop(0), bytes([number]))
            if number + limit < 6:
                waiting.append(peer.read_request())
            if number + limit == 5:
                assert peer.read_untagged(Opcode.SEND)[1] == b"last"
        assert contexts(take(end.cq, 7)) == [0, 1, 2, 3, 4, 5, "last"]
        assert bytes(end.mr.view[:6]) == bytes(range(6))


# ---- disconnecting


@pytest.mark.rules("R-DISC-2", "R-DISC-7")
def test_the_disconnect_completes_when_both_sides_have_disconnected(both: Pair) -> None:
    a, b = both
    going = a.connector.disconnect()
    assert ended(b) == Disconnect(graceful=True, provider_reason=0x4_0000, error=None)
    assert not going.done()  # R-DISC-7
    b.connector.disconnect().result(PATIENCE_S)
    going.result(PATIENCE_S)


@pytest.mark.rules("R-DISC-2")
def test_both_sides_may_disconnect_at_once(both: Pair) -> None:
    first, second = both.a.connector.disconnect(), both.b.connector.disconnect()
    first.result(PATIENCE_S)
    second.result(PATIENCE_S)


@pytest.mark.rules("R-DISC-7")
def test_the_peers_close_lets_the_disconnect_complete(both: Pair) -> None:
    going = both.a.connector.disconnect()
    both.b.connector.close()
    going.result(PATIENCE_S)


@pytest.mark.rules("A-14")
def test_an_abort_during_the_disconnect_is_its_failure(both: Pair) -> None:
    a, b = both
    going = a.connector.disconnect()
    kill(b.adapter, "reset")
    with pytest.raises(Aborted):
        going.result(PATIENCE_S)


@pytest.mark.rules("R-DISC-2")
def test_posted_requests_go_out_before_the_disconnect(both: Pair) -> None:
    a, b = both
    for number in range(20):
        b.qp.receive(b.mr[0:8], context=number)
        a.qp.send(b"x", context=number, flags=OpFlag.SILENT_SUCCESS)
    going = a.connector.disconnect()
    assert contexts(take(b.cq, 20)) == list(range(20))
    b.connector.disconnect().result(PATIENCE_S)
    going.result(PATIENCE_S)


@pytest.mark.rules("R-DISC-2")
def test_reads_under_way_finish_before_the_disconnect(both: Pair) -> None:
    a, b = both
    b.mr.view[:4] = b"data"
    a.qp.read(a.mr[0:4], b.mr.address, b.mr.remote_token)
    going = a.connector.disconnect()
    succeed(a.cq)
    assert bytes(a.mr.view[:4]) == b"data"
    b.connector.disconnect().result(PATIENCE_S)
    going.result(PATIENCE_S)


def test_messages_that_come_during_the_disconnect_are_received(both: Pair) -> None:
    """RFC 5041: reception goes on after a local half-close."""
    a, b = both
    a.qp.receive(a.mr[0:16], context="late")
    going = a.connector.disconnect()
    assert ended(b).graceful
    b.qp.send(b"a late answer")
    assert one(a.cq).bytes_transferred == 13
    b.connector.disconnect().result(PATIENCE_S)
    going.result(PATIENCE_S)


@pytest.mark.rules("R-DISC-3")
def test_what_is_left_is_flushed_when_the_disconnect_is_complete(both: Pair) -> None:
    a, b = both
    for end in both:
        end.qp.receive(end.mr[0:8])
    going = a.connector.disconnect()
    b.connector.disconnect().result(PATIENCE_S)
    going.result(PATIENCE_S)
    for end in both:
        assert one(end.cq).status is Status.CANCELLED


@pytest.mark.rules("R-DEV-4", "R-FLUSH-6", "A-2")
def test_the_peers_disconnect_flushes_nothing(both: Pair) -> None:
    """R-DEV-4, R-FLUSH-6."""
    a, b = both
    b.qp.receive(b.mr[0:8])
    a.connector.disconnect()
    assert ended(b).graceful
    assert b.cq.get_results() == []
    b.connector.disconnect().result(PATIENCE_S)
    assert one(b.cq).status is Status.CANCELLED


def test_after_the_peers_disconnect_a_flush_or_close_gives_the_receives_back(both: Pair) -> None:
    a, b = both
    b.qp.receive(b.mr[0:8])
    a.connector.close()
    ended(b)
    b.connector.close().result(PATIENCE_S)
    assert one(b.cq).status is Status.CANCELLED


def test_after_the_peers_close_the_disconnect_does_not_wait_for_reads_that_nobody_can_answer() -> None:
    with raw_server(IwarpConfig(disconnect_timeout_s=3 * PATIENCE_S)) as (peer, end):
        end.qp.read(end.mr[0:8], 0, UNKNOWN, context="never answered")
        peer.read_request()
        peer.finish()
        assert ended(end).graceful
        assert end.cq.get_results() == []
        end.connector.disconnect().exception(PATIENCE_S)
        assert one(end.cq).status is Status.CANCELLED


@pytest.mark.rules("A-19", "R-CLOSE-10", "R-DEV-1")
def test_no_event_comes_for_the_own_disconnect_or_close() -> None:
    """R-DEV-1, A-19."""
    told: list[Disconnect] = []
    for how in ("disconnect", "close"):
        with two_loose_ends() as (a, b, listener):
            connecting = a.adapter.connect(
                a.qp, listener.local_address, on_disconnect=lambda _, event: told.append(event)
            )
            accepting = listener.next_request().result(PATIENCE_S).accept(b.qp)
            outgoing = connecting.result(PATIENCE_S)
            accepting.result(PATIENCE_S)
            if how == "disconnect":
                going = outgoing.disconnect()
                b.qp.connector.disconnect().result(PATIENCE_S)  # type: ignore[union-attr]
                going.result(PATIENCE_S)
            else:
                outgoing.close().result(PATIENCE_S)
                with pytest.raises(InvalidHandle):
                    outgoing.disconnected.result(PATIENCE_S)
            callbacks_have_run(a.adapter)
    assert told == []


@pytest.mark.rules("R-DEV-1")
@pytest.mark.parametrize("how", ["disconnect", "close", "reset"])
def test_the_event_is_called_once_with_the_connector(how: str) -> None:
    told: list[tuple[Connector, Disconnect]] = []
    heard = threading.Event()

    def on_disconnect(connector: Connector, event: Disconnect) -> None:
        told.append((connector, event))
        heard.set()

    with two_loose_ends() as (a, b, listener):
        connecting = a.adapter.connect(a.qp, listener.local_address)
        incoming = listener.next_request().result(PATIENCE_S)
        accepting = incoming.accept(b.qp, on_disconnect=on_disconnect)
        outgoing = connecting.result(PATIENCE_S)
        accepting.result(PATIENCE_S)
        if how == "disconnect":
            outgoing.disconnect().add_done_callback(lambda _: None)
        elif how == "close":
            outgoing.close()
        else:
            kill(a.adapter, "reset")
        assert heard.wait(PATIENCE_S)
        kill(a.adapter, "reset")  # no second event
        incoming.disconnect().exception(PATIENCE_S)
        callbacks_have_run(b.adapter)
        assert len(told) == 1
        assert told[0][0] is incoming
        assert told[0][1].graceful == (how != "reset")
        assert incoming.disconnected.result(0) is told[0][1]


def test_closing_a_connected_connector_lets_completed_sends_arrive(both: Pair) -> None:
    """Like close(2): what was completed still goes out, then FIN."""
    a, b = both
    for number in range(10):
        b.qp.receive(b.mr[0:8], context=number)
        a.qp.send(b"x", context=number)
    succeed(a.cq, 10)
    a.connector.close().result(PATIENCE_S)
    assert contexts(take(b.cq, 10)) == list(range(10))
    assert ended(b).graceful


def test_closing_does_not_wait_for_the_peer() -> None:
    with raw_client() as (_, end):
        end.connector.close().result(PATIENCE_S)


@pytest.mark.rules("A-14")
def test_disconnecting_what_is_not_connected_is_connection_invalid() -> None:
    with open_adapter() as adapter:
        with pytest.raises(ConnectionInvalid) as refused:
            adapter.create_connector().disconnect().result(PATIENCE_S)
        assert refused.value.status is Status.CONNECTION_INVALID


def test_a_second_disconnect_is_connection_invalid(both: Pair) -> None:
    both.a.connector.disconnect().add_done_callback(lambda _: None)
    with pytest.raises(ConnectionInvalid):
        both.a.connector.disconnect().result(PATIENCE_S)
    both.b.connector.disconnect().result(PATIENCE_S)


@pytest.mark.rules("R-QP-6")
def test_a_queue_pair_is_connected_once(both: Pair) -> None:
    a, b = both
    going = a.connector.disconnect()
    b.connector.disconnect().result(PATIENCE_S)
    going.result(PATIENCE_S)
    with pytest.raises(InvalidState) as refused:
        a.adapter.create_connector().connect(a.qp, ("127.0.0.1", 1))
    assert refused.value.status is Status.CONNECTION_ACTIVE


# ---- the connector's states (8.2)


def test_calls_on_an_idle_connector() -> None:
    with open_adapter() as adapter:
        end = loose_end(adapter)
        connector = end.connector
        for invalid in (lambda: connector.accept(end.qp), lambda: connector.reject()):
            with pytest.raises(InvalidState):
                invalid()
        for pending in (connector.complete_connect(), connector.disconnect()):
            with pytest.raises(ConnectionInvalid):
                pending.result(PATIENCE_S)
        for name in ("connection_data", "local_address", "peer_address"):
            with pytest.raises(ConnectionInvalid):
                getattr(connector, name)


def test_calls_on_a_connecting_connector() -> None:
    with open_adapter() as adapter, RawListener() as listener:
        end = loose_end(adapter)
        connector = end.connector
        connector.connect(end.qp, listener.address).add_done_callback(lambda _: None)
        with pytest.raises(InvalidState) as refused:
            connector.connect(end.qp, listener.address)
        assert refused.value.status is Status.CONNECTION_ACTIVE
        for invalid in (lambda: connector.accept(end.qp), lambda: connector.reject()):
            with pytest.raises(InvalidState):
                invalid()
        for pending in (connector.complete_connect(), connector.disconnect()):
            with pytest.raises(ConnectionInvalid):
                pending.result(PATIENCE_S)
        with pytest.raises(ConnectionInvalid):
            _ = connector.connection_data


def test_calls_on_a_connected_connector(both: Pair) -> None:
    connector, qp = both.a.connector, both.a.qp
    with pytest.raises(InvalidState) as refused:
        connector.connect(qp, ("127.0.0.1", 1))
    assert refused.value.status is Status.CONNECTION_ACTIVE
    for invalid in (lambda: connector.accept(qp), lambda: connector.reject()):
        with pytest.raises(InvalidState):
            invalid()
    with pytest.raises(ConnectionInvalid):
        connector.complete_connect().result(PATIENCE_S)
    still_works(*both)


@pytest.mark.rules("R-COMPCONN-1")
def test_a_lost_peer_before_the_completion_makes_it_connection_aborted() -> None:
    with open_adapter() as adapter, RawListener() as listener:
        end = loose_end(adapter)
        connecting = end.connector.connect(end.qp, listener.address)
        with listener.accept() as peer:
            peer.read_startup()
            peer.send_reply()
            connecting.result(PATIENCE_S)
            peer.finish()
            assert peer.at_end()  # so the loss has been noticed
        with pytest.raises(Aborted) as aborted:
            end.connector.complete_connect().result(PATIENCE_S)
        assert aborted.value.status is Status.CONNECTION_ABORTED


def test_a_queue_pair_in_use_is_connection_active(both: Pair) -> None:
    a, _ = both
    with pytest.raises(InvalidState, match="in use by connector1") as refused:
        a.adapter.create_connector().connect(a.qp, ("127.0.0.1", 1))
    assert refused.value.status is Status.CONNECTION_ACTIVE


def test_a_queue_pair_of_another_adapter_is_refused(both: Pair) -> None:
    a, b = both
    with pytest.raises(InvalidParameter, match="another adapter"):
        a.adapter.create_connector().connect(loose_end(b.adapter).qp, ("127.0.0.1", 1))


@pytest.mark.parametrize(
    "address",
    [
        ("localhost", 1),
        ("127.0.0.1", -1),
        ("127.0.0.1", 65536),
        ("127.0.0.1", "1"),
        ("127.0.0.1",),
        "127.0.0.1:1",
        None,
    ],
    ids=str,
)
def test_an_address_that_is_not_numeric_is_refused_and_nothing_is_resolved(address: Address) -> None:
    with open_adapter() as adapter:
        end = loose_end(adapter)
        with pytest.raises(InvalidParameter):
            end.connector.connect(end.qp, address)
        with pytest.raises(InvalidParameter):
            adapter.create_listener().listen(address)
        with RawListener() as listener:  # nothing has changed: the connector is as new
            end.connector.connect(end.qp, listener.address).add_done_callback(lambda _: None)


@pytest.mark.rules("R-CONN-1")
def test_a_source_that_is_not_the_adapters_is_invalid_address() -> None:
    with open_adapter() as adapter:
        end = loose_end(adapter)
        with pytest.raises(AddressUnavailable) as refused:
            end.connector.connect(end.qp, ("127.0.0.1", 1), source=("127.0.0.9", 0)).result(PATIENCE_S)
        assert refused.value.status is Status.INVALID_ADDRESS


def test_the_source_may_be_chosen() -> None:
    with two_loose_ends() as (a, b, listener):
        with socket.create_server(("127.0.0.1", 0)) as probe:
            port = probe.getsockname()[1]
        connecting = a.connector.connect(a.qp, listener.local_address, source=("127.0.0.1", port))
        incoming = listener.next_request().result(PATIENCE_S)
        assert incoming.peer_address == ("127.0.0.1", port)
        incoming.accept(b.qp)
        connecting.result(PATIENCE_S)
        assert a.connector.local_address == ("127.0.0.1", port)


@pytest.mark.rules("R-CONN-7")
def test_closing_a_connecting_connector_abandons_the_attempt() -> None:
    with open_adapter() as adapter, RawListener() as listener:
        end = loose_end(adapter)
        connecting = end.connector.connect(end.qp, listener.address)
        with listener.accept() as peer:
            peer.read_startup()
            end.connector.close().result(PATIENCE_S)
            with pytest.raises(RequestCancelled):
                connecting.result(PATIENCE_S)
            with suppress(ConnectionResetError):
                assert peer.at_end()


def test_cancelling_the_short_connect_closes_the_half_made_connector() -> None:
    with open_adapter() as adapter, RawListener() as listener:
        end = loose_end(adapter)
        before = adapter.open_objects
        connecting = adapter.connect(end.qp, listener.address)
        assert len(adapter.open_objects) == len(before) + 1
        assert connecting.cancel()
        with pytest.raises((RequestCancelled, CancelledError)):
            connecting.result(PATIENCE_S)
        assert adapter.open_objects == before


def test_cancelling_the_await_of_the_short_connect_closes_the_half_made_connector() -> None:
    async def main() -> None:
        task = asyncio.ensure_future(waiting(adapter.connect(end.qp, listener.address)))
        await asyncio.sleep(0)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    async def waiting(pending: object) -> object:
        return await pending  # type: ignore[misc]

    with open_adapter() as adapter, RawListener() as listener:
        end = loose_end(adapter)
        before = adapter.open_objects
        asyncio.run(main())
        assert adapter.open_objects == before


def test_a_failed_short_connect_leaves_no_connector() -> None:
    with two_loose_ends() as (a, _, listener):
        before = a.adapter.open_objects
        connecting = a.adapter.connect(a.qp, listener.local_address)
        listener.next_request().result(PATIENCE_S).reject(b"no")
        with pytest.raises(Refused) as refused:
            connecting.result(PATIENCE_S)
        assert refused.value.private_data == b"no"
        assert a.adapter.open_objects == before


# ---- listeners


@pytest.mark.rules("R-PORT-1")
def test_a_port_that_is_asked_for_as_0_is_a_dynamic_one() -> None:
    with open_adapter() as adapter:
        for _ in range(5):
            assert 49152 <= adapter.listen().local_address[1] <= 65535


@pytest.mark.rules("R-LISTEN-1", "R-EP-2")
def test_a_listeners_address_in_use_is_a_sharing_violation() -> None:
    with open_adapter() as adapter:
        first = adapter.listen()
        pending = adapter.create_listener().listen(first.local_address)
        with pytest.raises(AddressUnavailable) as refused:
            pending.result(PATIENCE_S)
        assert refused.value.status is Status.SHARING_VIOLATION


def test_a_plain_sockets_address_is_a_sharing_violation() -> None:
    with open_adapter() as adapter, RawListener() as taken, pytest.raises(AddressUnavailable) as refused:
        adapter.listen(taken.address)
    assert refused.value.status is Status.SHARING_VIOLATION


def test_an_address_of_somebody_else_is_invalid_address() -> None:
    with open_adapter() as adapter, pytest.raises(AddressUnavailable) as refused:
        adapter.listen(("127.0.0.9", 0))
    assert refused.value.status is Status.INVALID_ADDRESS


@pytest.mark.rules("R-LISTEN-3")
def test_one_listen_per_listener() -> None:
    with open_adapter() as adapter:
        listener = adapter.listen()
        with pytest.raises(InvalidState, match="R-LISTEN-3"):
            listener.listen(("127.0.0.1", 0))


@pytest.mark.rules("R-ADDR-4")
def test_a_listener_that_does_not_listen_has_no_address() -> None:
    with open_adapter() as adapter, pytest.raises(InvalidState, match="R-ADDR-4"):
        _ = adapter.create_listener().local_address


@pytest.mark.rules("R-PAUSE-1", "R-PAUSE-2")
def test_a_paused_listener_is_as_if_nobody_listened() -> None:
    with two_loose_ends() as (a, b, listener):
        listener.control_connect_events(pause=True)
        with pytest.raises(Refused):
            a.connector.connect(a.qp, listener.local_address).result(PATIENCE_S)
        listener.control_connect_events(pause=False)
        connecting = a.adapter.connect(a.qp, listener.local_address)
        listener.next_request().result(PATIENCE_S).accept(b.qp)
        connecting.result(PATIENCE_S)


@pytest.mark.rules("R-PAUSE-3")
def test_a_pause_does_not_affect_requests_that_were_indicated() -> None:
    with two_loose_ends() as (a, b, listener):
        connecting = a.connector.connect(a.qp, listener.local_address)
        incoming = listener.next_request().result(PATIENCE_S)
        listener.control_connect_events(pause=True)
        incoming.accept(b.qp)
        connecting.result(PATIENCE_S)


@pytest.mark.rules("R-CLOSE-9", "A-21")
def test_closing_a_listener_rejects_unclaimed_requests_and_keeps_claimed_ones() -> None:
    """R-CLOSE-9, A-21."""
    with two_loose_ends() as (a, b, listener):
        other = loose_end(a.adapter)
        claimed = a.connector.connect(a.qp, listener.local_address)
        incoming = listener.next_request().result(PATIENCE_S)
        readable = listener.fileno()
        unclaimed = other.connector.connect(other.qp, listener.local_address)
        assert select.select([readable], [], [], PATIENCE_S)[0]
        closing = listener.close()
        with pytest.raises(Refused):
            unclaimed.result(PATIENCE_S)
        incoming.accept(b.qp)
        claimed.result(PATIENCE_S)
        assert not closing.done()  # until its connectors are closed
        third = loose_end(a.adapter)
        with pytest.raises(Refused):
            third.connector.connect(third.qp, a.connector.peer_address).result(PATIENCE_S)
        incoming.close()
        closing.result(PATIENCE_S)


@pytest.mark.rules("R-EP-1", "R-EP-2")
def test_the_port_stays_taken_until_listener_and_accepted_connectors_are_closed() -> None:
    """R-EP-2."""
    with two_loose_ends() as (a, b, listener):
        address = listener.local_address
        _, incoming = connect_by(listener, a, b)
        listener.close()
        with pytest.raises(AddressUnavailable) as refused:
            b.adapter.listen(address)
        assert refused.value.status is Status.SHARING_VIOLATION
        incoming.close().result(PATIENCE_S)
        b.adapter.listen(address)


@pytest.mark.rules("R-EP-1", "R-EP-2")
def test_a_connector_holds_its_own_address_whatever_tcp_does(both: Pair) -> None:
    """The words tell who holds it: TCP may still keep the address of a connection that is over, or have let it go."""
    a, b = both
    held = "is held by objects that are not closed"
    address = a.connector.local_address
    b.qp.flush()
    assert not ended(a).graceful
    with pytest.raises(AddressUnavailable, match=held):
        a.adapter.listen(address)
    with pytest.raises(AddressUnavailable, match=held):
        a.adapter.create_shared_endpoint(address)
    qp = a.pd.create_qp(a.cq, a.cq, receive_queue_depth=1, initiator_queue_depth=1)
    connecting = a.adapter.create_connector().connect(qp, b.connector.local_address, source=address)
    with pytest.raises(AddressUnavailable, match=held):
        connecting.result(PATIENCE_S)


@pytest.mark.rules("R-EP-1")
@pytest.mark.skipif(sys.platform != "linux", reason="how long an address rests is the system's business")
def test_an_address_that_tcp_still_keeps_is_told_as_that() -> None:
    """The deviation: this side was the first to end a connection from there."""
    with two_loose_ends() as (a, b, listener):
        endpoint = a.adapter.create_shared_endpoint(("127.0.0.1", 0))
        address = endpoint.local_address
        outgoing = a.adapter.create_connector()
        connecting = outgoing.connect_with_shared_endpoint(a.qp, endpoint, listener.local_address)
        incoming = listener.next_request().result(PATIENCE_S)
        accepting = incoming.accept(b.qp)
        connecting.result(PATIENCE_S)
        outgoing.complete_connect().result(PATIENCE_S)
        accepting.result(PATIENCE_S)
        going = outgoing.disconnect()
        assert incoming.disconnected.result(PATIENCE_S).graceful
        incoming.disconnect().result(PATIENCE_S)
        going.result(PATIENCE_S)
        outgoing.close().result(PATIENCE_S)
        endpoint.close().result(PATIENCE_S)
        with pytest.raises(AddressUnavailable, match="by TCP itself for a minute") as refused:
            a.adapter.create_shared_endpoint(address)
        assert refused.value.status is Status.SHARING_VIOLATION


def connect_by(listener: Listener, a: End, b: End) -> tuple[Connector, Connector]:
    connecting = a.adapter.connect(a.qp, listener.local_address)
    incoming = listener.next_request().result(PATIENCE_S)
    accepting = incoming.accept(b.qp)
    outgoing = connecting.result(PATIENCE_S)
    accepting.result(PATIENCE_S)
    return outgoing, incoming


def test_while_a_next_request_is_unfinished_every_call_returns_that_same_one() -> None:
    with two_loose_ends() as (a, _, listener):
        first = listener.next_request()
        assert listener.next_request() is first
        with pytest.raises(TimeoutError):
            first.result(0)
        assert listener.next_request() is first
        a.connector.connect(a.qp, listener.local_address).add_done_callback(lambda _: None)
        assert select.select([listener.fileno()], [], [], PATIENCE_S)[0]
        incoming = listener.next_request().result(PATIENCE_S)
        assert first.result(0) is incoming
        assert listener.next_request() is not first


def test_cancelling_a_next_request_takes_nothing() -> None:
    with two_loose_ends() as (a, _, listener):
        waiting = listener.next_request()
        assert waiting.cancel()
        a.connector.connect(a.qp, listener.local_address).add_done_callback(lambda _: None)
        assert listener.next_request().result(PATIENCE_S).peer_address[0] == "127.0.0.1"


def test_the_listeners_descriptor_is_readable_while_a_request_waits() -> None:
    with two_loose_ends() as (a, _, listener):
        fd = listener.fileno()
        assert select.select([fd], [], [], 0)[0] == []
        a.connector.connect(a.qp, listener.local_address).add_done_callback(lambda _: None)
        assert select.select([fd], [], [], PATIENCE_S)[0] == [fd]
        listener.next_request().result(0)
        assert select.select([fd], [], [], 0)[0] == []


def test_iterating_over_a_listener_ends_with_its_close() -> None:
    with two_loose_ends() as (a, _, listener):
        a.connector.connect(a.qp, listener.local_address).add_done_callback(lambda _: None)
        seen = []
        for connector in listener:
            seen.append(connector)
            connector.reject()
            connector.close()
            listener.close()
        assert len(seen) == 1


def test_more_unanswered_requests_than_the_limit_are_refused() -> None:
    with two_loose_ends(IwarpConfig(max_pending_requests=2)) as (a, _, listener):
        ends = [loose_end(a.adapter) for _ in range(3)]
        waiting = [request_from(end, listener) for end in ends[:2]]
        with pytest.raises(Refused):
            ends[2].connector.connect(ends[2].qp, listener.local_address).result(PATIENCE_S)
        waiting[0].reject()  # makes room
        request_from(a, listener)


@pytest.mark.rules("R-CEV-1", "R-ACCEPT-3", "R-ADDR-3")
def test_the_connect_callback_gets_each_request_and_may_accept_inside() -> None:
    """R-ACCEPT-3, R-CEV-1, R-ADDR-3."""
    seen: list[tuple[Address, bytes]] = []
    with open_adapter() as active, open_adapter() as passive:
        a, b = loose_end(active), loose_end(passive)

        def on_connect(connector: Connector) -> None:
            seen.append((connector.peer_address, connector.connection_data.private_data))
            connector.accept(b.qp)

        listener = passive.create_listener(on_connect)
        listener.listen(("127.0.0.1", 0)).result(PATIENCE_S)
        outgoing = active.connect(a.qp, listener.local_address, private_data=b"hi").result(PATIENCE_S)
        assert seen == [(outgoing.local_address, b"hi")]
        still_works(a, End(passive, b.pd, b.cq, b.mr, b.qp, b.connector))
        with pytest.raises(InvalidState):
            listener.next_request()


def test_a_connect_callback_that_raises_rejects_and_the_listener_goes_on(monkeypatch: pytest.MonkeyPatch) -> None:
    told: list[object] = []
    monkeypatch.setattr("sys.unraisablehook", told.append)
    with open_adapter() as active, open_adapter() as passive:
        a = loose_end(active)

        def on_connect(connector: Connector) -> None:
            raise ZeroDivisionError("in the callback")

        listener = passive.create_listener(on_connect)
        listener.listen(("127.0.0.1", 0)).result(PATIENCE_S)
        for _ in range(2):
            with pytest.raises(Refused):
                active.connect(a.qp, listener.local_address).result(PATIENCE_S)
    assert len(told) == 2


# ---- counters


def test_connections_are_counted() -> None:
    with two_loose_ends() as (a, b, listener):
        outgoing, _ = connect_by(listener, a, b)
        assert (statistics(a).connect, statistics(a).accept, statistics(a).active_connection) == (1, 0, 1)
        assert (statistics(b).connect, statistics(b).accept, statistics(b).active_connection) == (0, 1, 1)
        b.qp.receive(b.mr[0:8])
        a.qp.send(b"12345678")
        succeed(b.cq)
        assert statistics(b).rdma_in_octets == statistics(a).rdma_out_octets > 0
        assert statistics(b).rdma_in_frames > 0
        outgoing.close()
        assert ended(End(b.adapter, b.pd, b.cq, b.mr, b.qp, b.qp.connector or b.connector)).graceful
        assert statistics(a).active_connection == 0
        assert statistics(a).connection_error == statistics(b).connection_error == 0
