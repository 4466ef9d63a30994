"""NdkSendAndInvalidate between two adapters: the page of the function, sentence by sentence, with a valid token.

What the receiving side does about a token that is not valid is in test_remote_invalidation.
"""

import array
from collections.abc import Callable
from itertools import product

import pytest

from softndk import (
    BufferOverflow,
    ConnectionInvalid,
    CqNotify,
    DataOverrun,
    InvalidParameter,
    InvalidState,
    IwarpConfig,
    LocalToken,
    NdkError,
    OperationType,
    OpFlag,
    QueueFull,
    RemoteToken,
    Result,
    Sge,
    Status,
    open_adapter,
)
from softndk.testing import End, Pair, pair
from softndk.wire.rdmap import Opcode
from tests.ndk.ends import (
    EVERY_RIGHT,
    FAST_RIGHTS,
    PATIENCE_S,
    callbacks_have_run,
    connect,
    contexts,
    fast_region,
    loose_end,
    one,
    still_works,
    succeed,
    take,
    window,
)
from tests.ndk.raw_peer import raw_server

UNKNOWN = RemoteToken(0x0BAD_0100)

Post = Callable[[End, int], None]
SEVEN_REQUESTS: dict[str, Post] = {
    "send": lambda end, flags: end.qp.send(b"x", flags=flags, context="late"),
    "send_and_invalidate": lambda end, flags: end.qp.send_and_invalidate(b"x", UNKNOWN, flags=flags, context="late"),
    "write": lambda end, flags: end.qp.write(b"x", 0, UNKNOWN, flags=flags, context="late"),
    "read": lambda end, flags: end.qp.read(end.mr[0:1], 0, UNKNOWN, flags=flags, context="late"),
    "bind": lambda end, flags: end.qp.bind(
        end.mr, end.pd.create_mw(), flags=flags | OpFlag.ALLOW_REMOTE_READ, context="late"
    ),
    "fast_register": lambda end, flags: end.qp.fast_register(
        end.pd.create_mr(fast_register=True), [], fbo=0, length=1, base_address=0, flags=flags, context="late"
    ),
    "invalidate": lambda end, flags: end.qp.invalidate(end.pd.create_mw(), flags=flags, context="late"),
}


def invalidating_send(
    both: Pair, payload: bytes = b"take it back", flags: int = 0
) -> tuple[Result, Result, RemoteToken]:
    """One exchange with a window's token: the result here, the result there, the token."""
    sender, receiver = both
    token = window(receiver).remote_token
    receiver.qp.receive(receiver.mr[0:64])
    sender.qp.send_and_invalidate(payload, token, flags=flags)
    arrived = one(receiver.cq)
    return (one(sender.cq), arrived, token)


# ---- results


@pytest.mark.rules("R-COMP-1")
def test_the_request_context_comes_back_in_the_result(both: Pair) -> None:
    a, b = both
    mine, theirs = object(), object()
    token = window(b).remote_token
    b.qp.receive(b.mr[0:64], context=theirs)
    a.qp.send_and_invalidate(b"x", token, context=mine)
    assert one(b.cq).request_context is theirs
    assert one(a.cq).request_context is mine


def test_the_qp_context_comes_back_in_the_result(both: Pair) -> None:
    a, b = both
    a.qp.context, b.qp.context = object(), object()
    sent, arrived, _ = invalidating_send(both)
    assert sent.qp_context is a.qp.context
    assert arrived.qp_context is b.qp.context


@pytest.mark.rules("R-SENDINV-4")
def test_the_senders_result_has_type_send_and_no_token(both: Pair) -> None:
    sent, _, _ = invalidating_send(both)
    assert (sent.type, sent.status, sent.invalidated_token) == (OperationType.SEND, Status.SUCCESS, None)


@pytest.mark.rules("R-RESX-2")
def test_bytes_transferred_and_the_provider_code_of_the_senders_success_are_0(both: Pair) -> None:
    sent, _, _ = invalidating_send(both)
    assert (sent.bytes_transferred, sent.provider_error_code) == (0, 0)


@pytest.mark.rules("R-SENDINV-5")
def test_the_receivers_result_has_type_receive_and_invalidate_with_the_token(both: Pair) -> None:
    _, arrived, token = invalidating_send(both)
    assert (arrived.type, arrived.status) == (OperationType.RECEIVE_AND_INVALIDATE, Status.SUCCESS)
    assert arrived.invalidated_token == token
    assert arrived.is_receive
    assert arrived.bytes_transferred == len(b"take it back")


def test_a_plain_send_is_a_receive_without_a_token(both: Pair) -> None:
    a, b = both
    b.qp.receive(b.mr[0:64])
    a.qp.send(b"keep it")
    arrived = one(b.cq)
    assert (arrived.type, arrived.invalidated_token) == (OperationType.RECEIVE, None)


@pytest.mark.rules("R-SENDINV-1")
def test_the_message_is_placed_as_by_a_send(both: Pair) -> None:
    invalidating_send(both, b"take it back")
    assert bytes(both.b.mr.view[:13]) == b"take it back\0"


@pytest.mark.rules("R-RESX-1", "R-OPEN-3")
def test_it_works_with_the_lowest_version_that_has_it() -> None:
    with pair(version=(1, 2)) as both:
        assert both.a.adapter.version == (1, 2)
        assert invalidating_send(both)[1].type is OperationType.RECEIVE_AND_INVALIDATE


# ---- the token dies before the result is visible


@pytest.mark.rules("R-RESX-3", "R-INVAL-2")
@pytest.mark.parametrize("kind", ["window", "fast-register region"])
def test_the_token_is_dead_before_the_result_is_visible(kind: str) -> None:
    """The notification is the earliest moment at which a program can know of the result (R-RESX-3)."""
    seen: list[Status] = []
    with open_adapter() as active, open_adapter() as passive:
        a, b = loose_end(active), loose_end(passive)
        cq = passive.create_cq(8, lambda *_: seen.append(refusal()))
        qp = b.pd.create_qp(cq, b.cq, receive_queue_depth=8, initiator_queue_depth=8)
        connect(active, a.qp, passive, qp)
        b = End(passive, b.pd, b.cq, b.mr, qp, b.connector)
        target = window(b) if kind == "window" else fast_region(b).mr

        def refusal() -> Status:
            with pytest.raises(InvalidState) as refused:
                qp.invalidate(target)
            return refused.value.status

        qp.receive(b.mr[0:64])
        cq.arm()
        a.qp.send_and_invalidate(b"x", target.remote_token)
        succeed(cq)
        callbacks_have_run(passive)
    assert seen == [Status.INVALID_DEVICE_REQUEST]


@pytest.mark.rules("R-SENDINV-6", "A-9")
def test_a_later_invalidate_of_the_token_fails_and_harms_nothing(both: Pair) -> None:
    a, b = both
    mw = window(b)
    b.qp.receive(b.mr[0:64])
    a.qp.send_and_invalidate(b"x", mw.remote_token)
    succeed(b.cq)
    succeed(a.cq)
    with pytest.raises(InvalidState, match="R-SENDINV-6") as refused:
        b.qp.invalidate(mw, context="never seen")
    assert refused.value.status is Status.INVALID_DEVICE_REQUEST
    still_works(a, b)
    still_works(b, a)


# ---- gathering


def test_the_message_is_gathered_from_many_sges_in_order() -> None:
    with pair(max_sge=32) as both:
        a, b = both
        second = a.pd.register_mr(bytes(range(256)))
        a.mr.view[:] = bytes(255 - n % 256 for n in range(len(a.mr.view)))
        sgl = [(a.mr, second)[n % 2][5 * n : 5 * n + n] for n in range(32)]
        expected = b"".join(bytes((a.mr, second)[n % 2].view[5 * n : 5 * n + n]) for n in range(32))
        token = window(b).remote_token
        b.qp.receive(b.mr[0:1024])
        a.qp.send_and_invalidate(sgl, token)
        assert one(b.cq).bytes_transferred == len(expected)
        assert bytes(b.mr.view[: len(expected)]) == expected


def test_the_gathered_message_may_take_many_fpdus() -> None:
    with pair(config=IwarpConfig(max_fpdu=128)) as both:
        a, b = both
        a.mr.view[:] = bytes(n * 7 % 251 for n in range(8192))
        expected = bytes(a.mr.view[1:4000]) + bytes(a.mr.view[5000:8191])
        big = b.pd.register_mr(bytearray(8192))
        token = window(b).remote_token
        b.qp.receive(big[0:8192])
        a.qp.send_and_invalidate([a.mr[1:4000], a.mr[5000:8191]], token)
        arrived = one(b.cq)
        assert (arrived.bytes_transferred, arrived.invalidated_token) == (len(expected), token)
        assert bytes(big.view[: len(expected)]) == expected


def test_a_single_sge_needs_no_list(both: Pair) -> None:
    a, b = both
    a.mr.view[10:15] = b"alone"
    token = window(b).remote_token
    b.qp.receive(b.mr[0:64])
    a.qp.send_and_invalidate(a.mr[10:15], token)
    succeed(b.cq)
    assert bytes(b.mr.view[:5]) == b"alone"


@pytest.mark.rules("R-WR-5")
def test_an_empty_message_is_legal(both: Pair) -> None:
    a, b = both
    token = window(b).remote_token
    b.qp.receive(b.mr[0:64])
    a.qp.send_and_invalidate([], token)
    arrived = one(b.cq)
    assert (arrived.bytes_transferred, arrived.invalidated_token) == (0, token)


def test_an_empty_message_uses_a_receive_without_sges(both: Pair) -> None:
    a, b = both
    token = window(b).remote_token
    b.qp.receive([])
    a.qp.send_and_invalidate([], token)
    assert one(b.cq).invalidated_token == token


# ---- what is refused at the call, and then posts nothing


def refused(end: End, error: type[NdkError], post: Callable[[], None]) -> NdkError:
    """`post` raises `error`; no result follows (R-COMP-1)."""
    with pytest.raises(error) as caught:
        post()
    end.qp.send([], flags=OpFlag.SILENT_SUCCESS)
    assert end.cq.get_results() == []
    return caught.value


@pytest.mark.rules("R-WR-6")
def test_too_many_sges_are_refused(both: Pair) -> None:
    a, b = both
    b.qp.receive([])
    error = refused(a, DataOverrun, lambda: a.qp.send_and_invalidate([a.mr[0:1]] * 5, UNKNOWN))
    assert error.status is Status.DATA_OVERRUN
    assert "5 SGEs, limit max_initiator_sge=4" in str(error)
    assert "R-WR-6" in str(error)


@pytest.mark.rules("R-WR-6")
def test_as_many_sges_as_the_queue_pair_has_are_taken(both: Pair) -> None:
    a, b = both
    token = window(b).remote_token
    b.qp.receive(b.mr[0:64])
    a.qp.send_and_invalidate([a.mr[0:1]] * 4, token)
    assert one(b.cq).bytes_transferred == 4


@pytest.mark.rules("R-WR-7")
def test_more_octets_than_the_adapter_transfers_are_refused(both: Pair) -> None:
    a, b = both
    limit = a.adapter.query_info().max_transfer_length
    b.qp.receive([])
    too_much = [Sge(0, limit, a.mr.local_token), Sge(0, 1, a.mr.local_token)]
    error = refused(a, BufferOverflow, lambda: a.qp.send_and_invalidate(too_much, UNKNOWN))
    assert error.status is Status.BUFFER_OVERFLOW
    assert f"max_transfer_length={limit}" in str(error)


@pytest.mark.rules("R-FLAG-3", "R-SENDINV-1")
@pytest.mark.parametrize(
    "flag",
    [
        OpFlag.ALLOW_REMOTE_READ,
        OpFlag.ALLOW_LOCAL_WRITE,
        OpFlag.ALLOW_REMOTE_WRITE,
        OpFlag.RDMA_READ_SINK,
        OpFlag.RDMA_READ_LOCAL_INVALIDATE,
        0x400,
        -1,
    ],
)
def test_flags_that_it_does_not_list_are_refused(both: Pair, flag: int) -> None:
    a, b = both
    b.qp.receive([])
    error = refused(a, InvalidParameter, lambda: a.qp.send_and_invalidate(b"x", UNKNOWN, flags=flag))
    assert "R-FLAG-3" in str(error)


@pytest.mark.rules("R-SENDINV-1", "R-SEND-1")
def test_every_flag_that_it_lists_is_taken_together(both: Pair) -> None:
    a, b = both
    token = window(b).remote_token
    b.qp.receive(b.mr[0:64])
    a.qp.send_and_invalidate(
        [Sge.inline(b"all")],
        token,
        flags=OpFlag.SILENT_SUCCESS | OpFlag.READ_FENCE | OpFlag.SEND_AND_SOLICIT_EVENT | OpFlag.INLINE | OpFlag.DEFER,
    )
    b.qp.receive([])
    a.qp.send([], flags=OpFlag.SILENT_SUCCESS)
    assert [r.invalidated_token for r in take(b.cq, 2)] == [token, None]


@pytest.mark.parametrize("token", [-1, 1 << 32])
def test_a_token_that_is_no_32_bit_number_is_refused(both: Pair, token: int) -> None:
    a, b = both
    b.qp.receive([])
    refused(a, InvalidParameter, lambda: a.qp.send_and_invalidate(b"x", RemoteToken(token)))


@pytest.mark.parametrize("token", ["1", 1.0, None, True])
def test_a_token_of_a_wrong_type_is_a_type_error(both: Pair, token: object) -> None:
    with pytest.raises(TypeError, match="remote_token"):
        both.a.qp.send_and_invalidate(b"x", token)  # type: ignore[arg-type]


@pytest.mark.rules("R-WR-8")
def test_a_full_queue_refuses_and_goes_on() -> None:
    with raw_server() as (peer, end):
        depth = 64
        for number in range(depth):
            end.qp.read(end.mr[0:1], 0, UNKNOWN, context=number)  # they wait for an answer
        with pytest.raises(QueueFull, match=r"64 requests outstanding, limit initiator_queue_depth=64.*R-WR-8") as full:
            end.qp.send_and_invalidate(b"x", UNKNOWN)
        assert full.value.status is Status.NO_MORE_ENTRIES
        peer.answer(peer.read_request(), b"1")
        assert contexts(take(end.cq, 1)) == [0]
        end.qp.send_and_invalidate(b"x", UNKNOWN, context="fits now")
        for _ in range(depth - 1):
            peer.answer(peer.read_request(), b"1")
        assert contexts(take(end.cq, depth)) == [*range(1, depth), "fits now"]


@pytest.mark.rules("R-COMP-6")
def test_an_inline_refusal_does_the_connection_no_harm(both: Pair) -> None:
    a, b = both
    with pytest.raises(DataOverrun):
        a.qp.send_and_invalidate([a.mr[0:1]] * 5, UNKNOWN)
    still_works(a, b)


# ---- not connected


@pytest.mark.rules("R-WR-3")
@pytest.mark.parametrize("name", SEVEN_REQUESTS)
def test_a_request_on_a_queue_pair_that_never_connected_is_connection_invalid(name: str) -> None:
    with open_adapter() as adapter:
        end = loose_end(adapter)
        with pytest.raises(ConnectionInvalid, match=f"{name}: not connected .*R-WR-3") as caught:
            SEVEN_REQUESTS[name](end, 0)
        assert caught.value.status is Status.CONNECTION_INVALID
        assert end.cq.get_results() == []


@pytest.mark.rules("R-WR-3", "A-3")
@pytest.mark.parametrize("name", SEVEN_REQUESTS)
def test_a_request_after_the_disconnect_is_connection_invalid(both: Pair, name: str) -> None:
    a, b = both
    going = a.connector.disconnect()
    b.connector.disconnect().result(PATIENCE_S)
    going.result(PATIENCE_S)
    with pytest.raises(ConnectionInvalid):
        SEVEN_REQUESTS[name](a, 0)
    assert a.cq.get_results() == []


@pytest.mark.rules("R-WR-3", "A-3")
def test_a_request_after_the_connectors_close_is_connection_invalid(both: Pair) -> None:
    both.a.connector.close().result(PATIENCE_S)
    with pytest.raises(ConnectionInvalid):
        both.a.qp.send_and_invalidate(b"x", UNKNOWN)


@pytest.mark.rules("R-WR-3")
def test_a_request_before_the_connect_is_completed_is_connection_invalid() -> None:
    with open_adapter() as active, open_adapter() as passive:
        a, b = loose_end(active), loose_end(passive)
        listener = passive.listen()
        connecting = a.connector.connect(a.qp, listener.local_address)
        with pytest.raises(ConnectionInvalid):
            a.qp.send_and_invalidate(b"x", UNKNOWN)
        incoming = listener.next_request().result(PATIENCE_S)
        with pytest.raises(ConnectionInvalid):
            b.qp.send_and_invalidate(b"x", UNKNOWN)
        incoming.accept(b.qp)
        connecting.result(PATIENCE_S)
        with pytest.raises(ConnectionInvalid):
            a.qp.send_and_invalidate(b"x", UNKNOWN)
        a.connector.complete_connect().result(PATIENCE_S)
        b.qp.receive([])
        a.qp.send([], context="connected")
        assert contexts(take(a.cq, 1)) == ["connected"]


# ---- SILENT_SUCCESS


@pytest.mark.rules("R-WR-12", "R-COMP-1")
def test_a_silent_success_gives_no_result(both: Pair) -> None:
    a, b = both
    token = window(b).remote_token
    for _ in range(2):
        b.qp.receive(b.mr[0:64])
    a.qp.send_and_invalidate(b"silent", token, flags=OpFlag.SILENT_SUCCESS, context="silent")
    a.qp.send(b"loud", context="loud")
    assert [r.invalidated_token for r in take(b.cq, 2)] == [token, None]
    assert one(a.cq).request_context == "loud"  # so the silent one, posted before, is finished (R-COMP-5)


@pytest.mark.rules("R-COMP-2")
def test_a_silent_failure_gives_one_result(both: Pair) -> None:
    a, b = both
    b.qp.receive(b.mr[0:64])
    bad = Sge(a.mr.address, 1, LocalToken(0x0BAD_0100))
    a.qp.send_and_invalidate(bad, UNKNOWN, flags=OpFlag.SILENT_SUCCESS, context="failed")
    a.qp.send(b"behind it", flags=OpFlag.SILENT_SUCCESS, context="cancelled")
    failed, cancelled = take(a.cq, 2)
    assert (failed.request_context, failed.status) == ("failed", Status.ACCESS_VIOLATION)
    assert (cancelled.request_context, cancelled.status) == ("cancelled", Status.CANCELLED)
    assert failed.type is OperationType.SEND
    assert a.cq.get_results() == []


# ---- READ_FENCE


@pytest.mark.rules("R-WR-11")
def test_a_fenced_request_is_not_started_before_all_earlier_reads_are_complete() -> None:
    with raw_server() as (peer, end):
        end.qp.read(end.mr[0:4], 0x1000, UNKNOWN, context="first read")
        end.qp.read(end.mr[4:8], 0x2000, UNKNOWN, context="second read")
        end.qp.send_and_invalidate(b"fenced", RemoteToken(0x0123_4567), flags=OpFlag.READ_FENCE, context="fenced")
        first, second = peer.read_request(), peer.read_request()
        peer.answer(first, b"1111")
        peer.send_read_request(1, end.mr.remote_token, end.mr.address)
        peer.read_tagged(Opcode.READ_RESPONSE)  # what comes next from this end: the Send has had its chance
        peer.answer(second, b"2222")
        header, payload = peer.read_untagged(Opcode.SEND_INVALIDATE)
        assert (header.rsvdulp_word, payload) == (0x0123_4567, b"fenced")
        assert contexts(take(end.cq, 3)) == ["first read", "second read", "fenced"]


def test_a_request_without_the_fence_does_not_wait_for_reads() -> None:
    with raw_server() as (peer, end):
        end.qp.read(end.mr[0:4], 0x1000, UNKNOWN)
        end.qp.send_and_invalidate(b"not fenced", RemoteToken(0x0123_4567))
        read = peer.read_request()
        peer.read_untagged(Opcode.SEND_INVALIDATE)
        peer.answer(read, b"1111")
        assert [r.type for r in take(end.cq, 2)] == [OperationType.READ, OperationType.SEND]


# ---- SEND_AND_SOLICIT_EVENT


@pytest.mark.parametrize(("solicited", "invalidating"), list(product([False, True], repeat=2)))
def test_each_kind_of_send_has_its_opcode_on_the_wire(solicited: bool, invalidating: bool) -> None:
    flags = OpFlag.SEND_AND_SOLICIT_EVENT.value if solicited else 0
    opcode = {
        (False, False): Opcode.SEND,
        (True, False): Opcode.SEND_SE,
        (False, True): Opcode.SEND_INVALIDATE,
        (True, True): Opcode.SEND_SE_INVALIDATE,
    }[solicited, invalidating]
    with raw_server() as (peer, end):
        if invalidating:
            end.qp.send_and_invalidate(b"abc", RemoteToken(0x89AB_CDEF), flags=flags)
        else:
            end.qp.send(b"abc", flags=flags)
        header, payload = peer.read_untagged(opcode)
        assert header.rsvdulp_word == (0x89AB_CDEF if invalidating else 0)
        assert payload == b"abc"


@pytest.mark.rules("R-SEND-2", "R-ARM-8")
@pytest.mark.parametrize(
    ("armed", "solicited", "fires"),
    [
        (CqNotify.SOLICITED, True, True),
        (CqNotify.SOLICITED, False, False),
        (CqNotify.ANY, True, True),
        (CqNotify.ANY, False, True),
        (CqNotify.ERRORS, True, False),
        (CqNotify.ERRORS, False, False),
        (None, True, False),
        (None, False, False),
    ],
)
def test_the_peers_queue_fires_as_it_is_armed_and_the_flag_says(
    armed: CqNotify | None, solicited: bool, fires: bool
) -> None:
    told: list[Status] = []
    with open_adapter() as active, open_adapter() as passive:
        a, b = loose_end(active), loose_end(passive)
        cq = passive.create_cq(8, lambda _, status: told.append(status))
        qp = b.pd.create_qp(cq, b.cq, receive_queue_depth=8, initiator_queue_depth=8)
        connect(active, a.qp, passive, qp)
        token = window(End(passive, b.pd, b.cq, b.mr, qp, b.connector)).remote_token
        qp.receive(b.mr[0:64])
        if armed is not None:
            cq.arm(armed)
        a.qp.send_and_invalidate(b"x", token, flags=OpFlag.SEND_AND_SOLICIT_EVENT if solicited else 0)
        assert one(cq).invalidated_token == token
        callbacks_have_run(passive)
        assert told == [Status.SUCCESS] * fires


@pytest.mark.rules("R-ARM-8", "A-11")
@pytest.mark.parametrize("armed", [CqNotify.SOLICITED, CqNotify.ANY])
@pytest.mark.parametrize("solicited", [True, False])
def test_an_error_completion_always_matches(armed: CqNotify, solicited: bool) -> None:
    """The receive fails because of the token; with or without the flag the queue fires."""
    told: list[Status] = []
    with open_adapter() as active, open_adapter() as passive:
        a, b = loose_end(active), loose_end(passive)
        cq = passive.create_cq(8, lambda _, status: told.append(status))
        qp = b.pd.create_qp(cq, b.cq, receive_queue_depth=8, initiator_queue_depth=8)
        connect(active, a.qp, passive, qp)
        qp.receive(b.mr[0:64])
        cq.arm(armed)
        a.qp.send_and_invalidate(b"x", UNKNOWN, flags=OpFlag.SEND_AND_SOLICIT_EVENT if solicited else 0)
        assert one(cq).status is Status.INVALID_DEVICE_REQUEST
        callbacks_have_run(passive)
        assert told == [Status.SUCCESS]


# ---- INLINE


@pytest.mark.rules("R-WR-10")
def test_inline_data_need_not_be_registered(both: Pair) -> None:
    a, b = both
    token = window(b).remote_token
    b.qp.receive(b.mr[0:64])
    a.qp.send_and_invalidate(
        [Sge.inline(b"one "), Sge.inline(bytearray(b"two ")), Sge.inline(array.array("H", [0x3333]))],
        token,
        flags=OpFlag.INLINE,
    )
    assert one(b.cq).bytes_transferred == 10
    assert bytes(b.mr.view[:10]) == b"one two 33"


def test_a_bytes_like_object_in_place_of_an_sgl_is_sent_inline(both: Pair) -> None:
    invalidating_send(both, memoryview(b"...inline...")[3:9])  # type: ignore[arg-type]
    assert bytes(both.b.mr.view[:6]) == b"inline"


@pytest.mark.rules("R-WR-10")
@pytest.mark.parametrize("token", [0, 0x0BAD_0100, 0xFFFF_FFFF])
def test_inline_tokens_are_not_looked_at(both: Pair, token: int) -> None:
    a, b = both
    a.mr.view[100:106] = b"inline"
    taken = window(b).remote_token
    b.qp.receive(b.mr[0:64])
    a.qp.send_and_invalidate(Sge(a.mr.address + 100, 6, LocalToken(token)), taken, flags=OpFlag.INLINE)
    succeed(b.cq)
    assert bytes(b.mr.view[:6]) == b"inline"


def test_inline_memory_that_no_region_holds_cannot_be_read(both: Pair) -> None:
    a, _ = both
    with pytest.raises(InvalidParameter, match=r"Sge\.inline"):
        a.qp.send_and_invalidate(Sge(16, 6, a.mr.local_token), UNKNOWN, flags=OpFlag.INLINE)


def test_an_inline_sge_without_the_flag_is_refused(both: Pair) -> None:
    with pytest.raises(InvalidParameter, match="R-WR-10"):
        both.a.qp.send_and_invalidate([Sge.inline(b"x")], UNKNOWN)


@pytest.mark.rules("R-WR-10")
def test_inline_lifts_the_sge_limit(both: Pair) -> None:
    a, b = both
    a.mr.view[:50] = bytes(range(50))
    token = window(b).remote_token
    b.qp.receive(b.mr[0:64])
    a.qp.send_and_invalidate([a.mr[n : n + 1] for n in range(50)], token, flags=OpFlag.INLINE)
    assert one(b.cq).bytes_transferred == 50
    assert bytes(b.mr.view[:50]) == bytes(range(50))


@pytest.mark.rules("R-WR-10")
@pytest.mark.parametrize("size", [0, 7])
def test_as_much_inline_data_as_the_queue_pair_takes(size: int) -> None:
    with open_adapter() as active, open_adapter() as passive:
        a, b = loose_end(active), loose_end(passive)
        qp = a.pd.create_qp(a.cq, a.cq, receive_queue_depth=1, initiator_queue_depth=1, inline_data_size=size)
        connect(active, qp, passive, b.qp)
        b.qp.receive(b.mr[0:64])
        qp.send(bytes(size))
        assert one(b.cq).bytes_transferred == size


@pytest.mark.rules("R-WR-10")
@pytest.mark.parametrize("size", [0, 7])
def test_more_inline_data_than_the_queue_pair_takes_is_refused(size: int) -> None:
    with open_adapter() as active, open_adapter() as passive:
        a, b = loose_end(active), loose_end(passive)
        qp = a.pd.create_qp(a.cq, a.cq, receive_queue_depth=1, initiator_queue_depth=1, inline_data_size=size)
        connect(active, qp, passive, b.qp)
        with pytest.raises(BufferOverflow, match=f"{size + 1} octets inline, limit inline_data_size={size};.*R-WR-10"):
            qp.send_and_invalidate([Sge.inline(b"1"), Sge.inline(bytes(size))], UNKNOWN, flags=OpFlag.INLINE)
        assert a.cq.get_results() == []


@pytest.mark.rules("R-WR-10")
def test_inline_data_is_copied_before_the_call_returns(both: Pair) -> None:
    a, b = both
    token = window(b).remote_token
    for _ in range(3):
        b.qp.receive(b.mr[0:64])
    data = bytearray(b"before")
    a.mr.view[:6] = b"before"
    a.qp.send_and_invalidate(data, token, flags=OpFlag.DEFER)  # deferred: it has not gone yet
    a.qp.send(a.mr[0:6], flags=OpFlag.DEFER | OpFlag.INLINE)
    data[:] = a.mr.view[:6] = b"after!"
    a.qp.send([])
    for _ in range(2):
        succeed(b.cq)
        assert bytes(b.mr.view[:6]) == b"before"


def test_inline_data_is_free_when_the_call_returns(both: Pair) -> None:
    a, b = both
    b.qp.receive(b.mr[0:64])
    data = bytearray(b"before")
    a.qp.send(data, flags=OpFlag.DEFER)
    data.clear()  # BufferError while anybody holds it
    b.qp.receive([])
    a.qp.send([])
    assert take(b.cq, 2)[0].bytes_transferred == 6


# ---- order


@pytest.mark.rules("R-COMP-4")
def test_sends_of_every_kind_complete_in_posting_order_on_both_sides() -> None:
    with pair(flags=EVERY_RIGHT) as both:
        a, b = both
        tokens = [window(b, FAST_RIGHTS).remote_token for _ in range(10)]
        for number in range(30):
            b.qp.receive(b.mr[0:64], context=number)
        for number in range(30):
            if number % 3:
                a.qp.send(b"plain", context=number)
            else:
                a.qp.send_and_invalidate(b"taken", tokens[number // 3], context=number)
        assert contexts(take(a.cq, 30)) == list(range(30))
        arrived = take(b.cq, 30)
        assert contexts(arrived) == list(range(30))
        assert [r.invalidated_token for r in arrived] == [None if n % 3 else tokens[n // 3] for n in range(30)]
