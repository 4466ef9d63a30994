"""Messages: send, receive, send-and-invalidate."""

import pytest

from softndk import CqNotify, MrFlag, OperationType, OpFlag, Status
from softndk.conformance.bench import (
    Bench,
    Pair,
    callbacks_have_run,
    contexts,
    delivered,
    ended,
    one,
    statuses,
    succeed,
    take,
)
from softndk.conformance.providers import Side

SOLICIT = OpFlag.SEND_AND_SOLICIT_EVENT


@pytest.mark.rules("R-RECV-1", "R-COMP-4")
def test_each_message_takes_the_oldest_receive(both: Pair) -> None:
    a, b = both
    for number in range(3):
        b.qp.receive(b.mr[number * 8 : number * 8 + 8], context=number)
    for word in (b"zero", b"one", b"two"):
        a.qp.send(word)
    results = succeed(b.cq, 3)
    assert contexts(results) == [0, 1, 2]
    assert [result.bytes_transferred for result in results] == [4, 3, 3]
    assert [b.content(4), b.content(3, 8), b.content(3, 16)] == [b"zero", b"one", b"two"]


@pytest.mark.rules("R-RECV-3", "R-COMP-7", "R-RESX-2")
@pytest.mark.parametrize("length", [0, 1, 100, 8000])
def test_the_result_tells_the_length_of_the_message(bench: Bench, length: int) -> None:
    a, b = bench.pair()
    a.fill(bytes(index % 251 for index in range(length)))
    b.qp.receive(b.mr[0:8192])
    a.qp.send(a.mr[0:length])
    (result,) = succeed(b.cq)
    assert (result.type, result.bytes_transferred) == (OperationType.RECEIVE, length)
    assert (result.invalidated_token, result.provider_error_code) == (None, 0)
    assert b.content(length) == a.content(length)
    assert b.content(8192 - length, length) == bytes(8192 - length)


@pytest.mark.rules("R-RECV-3", "R-WR-6", "R-COMP-7")
def test_a_message_is_gathered_and_scattered_piece_by_piece(both: Pair) -> None:
    a, b = both
    a.fill(b"abcdefghijklmnop")
    b.qp.receive([b.mr[0:3], b.mr[100:101], b.mr[50:50], b.mr[200:220]])
    a.qp.send([a.mr[10:14], a.mr[0:0], a.mr[0:2], a.mr[4:7]])
    (result,) = succeed(b.cq)
    assert result.bytes_transferred == 9
    assert (b.content(3), b.content(1, 100), b.content(5, 200)) == (b"klm", b"n", b"abefg")


@pytest.mark.rules("R-RECV-2", "A-5", "R-IW-3", "R-RESX-2")
def test_a_message_larger_than_its_receive_ends_the_connection(both: Pair, bench: Bench) -> None:
    a, b = both
    b.qp.receive(b.mr[0:8], context="small")
    b.qp.receive(b.mr[100:200], context="next")
    a.qp.send(b"nine octs")
    sent = one(a.cq)
    assert sent.status in {Status.SUCCESS, Status.CANCELLED}
    results = take(b.cq, 2)
    assert contexts(results) == ["small", "next"]
    assert results[0].status in bench.provider.choices.receive_too_small
    assert results[0].bytes_transferred == 0
    assert results[1].status is Status.CANCELLED
    assert b.content(100, 100) == bytes(100)
    for end in both:
        assert not ended(end).graceful


@pytest.mark.rules("A-10", "R-RECV-2")
def test_a_message_without_a_receive(both: Pair, bench: Bench) -> None:
    a, b = both
    a.qp.send(b"too early")
    if bench.provider.choices.unposted_receive_ends:
        for end in both:
            assert not ended(end).graceful
    else:
        b.qp.receive(b.mr[0:16])
        succeed(b.cq)


@pytest.mark.rules("R-SEND-2", "R-SEND-3", "R-ARM-8", "R-ARM-10")
@pytest.mark.parametrize("kind", [CqNotify.ANY, CqNotify.SOLICITED, None])
def test_a_solicited_send_satisfies_the_peers_arm_and_changes_nothing_else(bench: Bench, kind: CqNotify | None) -> None:
    told: list[list[object]] = []
    passive = bench.adapter(Side.PASSIVE)
    cq = passive.create_cq(16, lambda cq, _: told.append(contexts(cq.get_results())))
    a, b = bench.connect(bench.end(), bench.end(passive, cq=cq))
    for number in range(3):
        b.qp.receive(b.mr[0:8], context=number)
    if kind is not None:
        cq.arm(kind)
    a.qp.send(b"1")
    a.qp.send(b"2")
    succeed(a.cq, 2)
    delivered(a)
    callbacks_have_run(passive)
    before = [number for batch in told for number in batch]
    a.qp.send(b"3", flags=SOLICIT)
    succeed(a.cq)
    delivered(a)
    callbacks_have_run(passive)
    if kind is CqNotify.SOLICITED:
        assert told == [[0, 1, 2]]
    else:
        assert len(told) == (kind is CqNotify.ANY)
        assert sorted([*before, *contexts(cq.get_results())], key=str) == [0, 1, 2]


@pytest.mark.rules("R-SENDINV-1", "R-SENDINV-4", "R-SENDINV-5", "R-RESX-2", "E-7")
def test_send_and_invalidate_is_a_send_that_takes_a_token_away(both: Pair, bench: Bench) -> None:
    a, b = both
    region = bench.fast_region(b)
    b.qp.receive(b.mr[0:32], context="receive")
    a.fill(b"two pieces")
    a.qp.send_and_invalidate([a.mr[0:4], a.mr[4:10]], region.token, context="send")
    sent, received = one(a.cq), one(b.cq)
    assert (sent.type, sent.request_context, sent.invalidated_token) == (OperationType.SEND, "send", None)
    assert (received.type, received.request_context) == (OperationType.RECEIVE_AND_INVALIDATE, "receive")
    assert (received.bytes_transferred, received.invalidated_token) == (10, region.token)
    assert received.is_receive
    assert received.type & OperationType.RECEIVE
    assert b.content(10) == b"two pieces"


@pytest.mark.rules("R-SENDINV-1", "R-SEND-1", "R-WR-10")
@pytest.mark.parametrize("flags", [SOLICIT, OpFlag.SILENT_SUCCESS, OpFlag.READ_FENCE, OpFlag.DEFER, OpFlag.INLINE])
@pytest.mark.parametrize("invalidating", [False, True])
def test_both_kinds_take_the_flags_of_a_send(both: Pair, bench: Bench, flags: OpFlag, invalidating: bool) -> None:
    a, b = both
    region = bench.fast_region(b)
    b.qp.receive(b.mr[0:32])
    a.fill(b"flagged")
    if invalidating:
        a.qp.send_and_invalidate(a.mr[0:7], region.token, flags=flags)
    else:
        a.qp.send(a.mr[0:7], flags=flags)
    results = delivered(a)
    assert statuses(results) == ([] if flags is OpFlag.SILENT_SUCCESS else [Status.SUCCESS])
    (received,) = succeed(b.cq)
    assert received.bytes_transferred == 7
    assert received.invalidated_token == (region.token if invalidating else None)


@pytest.mark.rules("R-SENDINV-1", "R-ARM-8")
def test_a_solicited_send_and_invalidate_satisfies_an_arm(bench: Bench) -> None:
    told: list[Status] = []
    passive = bench.adapter(Side.PASSIVE)
    cq = passive.create_cq(16, lambda _, status: told.append(status))
    a, b = bench.connect(bench.end(), bench.end(passive, cq=cq))
    regions = [bench.fast_region(b) for _ in range(2)]
    cq.arm(CqNotify.SOLICITED)
    for region, flags, count in zip(regions, (0, SOLICIT), (0, 1), strict=True):
        b.qp.receive([])
        a.qp.send_and_invalidate([], region.token, flags=flags | OpFlag.SILENT_SUCCESS)
        delivered(a)
        callbacks_have_run(passive)
        assert len(told) == count


@pytest.mark.rules("R-SENDINV-2", "R-SENDINV-4", "A-4")
def test_the_sender_of_an_invalid_token_never_hangs(both: Pair) -> None:
    a, b = both
    plain = b.pd.register_mr(bytearray(8), MrFlag.ALLOW_REMOTE_READ)
    b.qp.receive(b.mr[0:8])
    a.qp.receive(a.mr[0:8], context="receive")
    a.qp.send_and_invalidate(b"x", plain.remote_token, context="send", flags=OpFlag.DEFER)
    a.qp.read(a.mr[0:8], b.mr.address, b.mr.remote_token, context="read", flags=OpFlag.READ_FENCE)
    results = take(a.cq, 3)
    assert {*contexts(results)} == {"receive", "send", "read"}
    assert {result.status for result in results if result.request_context != "send"} == {Status.CANCELLED}
    how = ended(a)
    assert not how.graceful
    assert how.error is not None
    assert how.error.fault is None or how.error.fault.received


@pytest.mark.rules("R-RESX-3", "R-INVAL-2", "R-COMP-4")
def test_messages_of_every_kind_keep_their_order(both: Pair, bench: Bench) -> None:
    a, b = both
    regions = [bench.fast_region(b) for _ in range(4)]
    for number in range(12):
        b.qp.receive(b.mr[number * 8 : number * 8 + 8], context=number)
    expected: list[int | None] = []
    for number in range(12):
        data = bytes([number]) * 8
        if number % 3:
            a.qp.send(data, flags=SOLICIT if number % 2 else 0, context=number)
            expected.append(None)
        else:
            token = regions[number // 3].token
            a.qp.send_and_invalidate(data, token, context=number)
            expected.append(token)
    assert contexts(succeed(a.cq, 12)) == list(range(12))
    results = succeed(b.cq, 12)
    assert contexts(results) == list(range(12))
    assert [result.invalidated_token for result in results] == expected
    assert b.content(96) == b"".join(bytes([number]) * 8 for number in range(12))
