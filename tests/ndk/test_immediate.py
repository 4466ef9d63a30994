"""Immediate data between two adapters (RFC 7306 6): 8 octets into the completion of the peer's oldest receive."""

import array
import struct
import threading
from collections.abc import Callable
from typing import Any

import pytest

from softndk import (
    ConnectionInvalid,
    Cq,
    CqNotify,
    Extension,
    InvalidParameter,
    IwarpConfig,
    MrFlag,
    NotSupported,
    OperationType,
    OpFlag,
    QueueFull,
    Sgl,
    Status,
    open_adapter,
)
from softndk.testing import Pair, kill, pair
from softndk.wire.rdmap import Opcode
from tests.ndk.ends import (
    EVERY_RIGHT,
    PATIENCE_S,
    Ledger,
    connect,
    contexts,
    ended,
    fault_of,
    loose_end,
    one,
    still_works,
    succeed,
    take,
    triple,
)
from tests.ndk.raw_peer import raw_client, raw_server

EIGHT = bytes(range(1, 9))
BAD_FLAGS = [
    flag
    for flag in OpFlag
    if flag & ~(OpFlag.SILENT_SUCCESS | OpFlag.READ_FENCE | OpFlag.SEND_AND_SOLICIT_EVENT | OpFlag.DEFER)
]


# ---- what arrives


@pytest.mark.parametrize(
    ("data", "octets"),
    [
        (EIGHT, EIGHT),
        (bytearray(EIGHT), EIGHT),
        (memoryview(b"xx" + EIGHT)[2:], EIGHT),
        (array.array("B", EIGHT), EIGHT),
        (array.array("I", [0, 0]), bytes(8)),
        (0, bytes(8)),
        (0x0102030405060708, EIGHT),
        ((1 << 64) - 1, b"\xff" * 8),
    ],
    ids=["bytes", "bytearray", "memoryview", "octets", "words", "0", "big-endian", "largest"],
)
def test_the_octets_stand_in_the_completion(data: Any, octets: bytes) -> None:
    with pair() as (a, b):
        b.mr.view[:64] = b"." * 64
        b.qp.receive(b.mr[0:64], context="R")
        a.qp.send_immediate(data, context="S")
        arrived, sent = one(b.cq), one(a.cq)
        assert (arrived.type, arrived.status, arrived.request_context) == (
            OperationType.RECEIVE_IMMEDIATE,
            Status.SUCCESS,
            "R",
        )
        assert arrived.immediate_data == octets
        assert arrived.is_receive
        assert arrived.type & OperationType.RECEIVE
        assert (arrived.bytes_transferred, arrived.invalidated_token, arrived.original_value) == (0, None, None)
        assert bytes(b.mr.view[:64]) == b"." * 64
        assert (sent.type, sent.status, sent.request_context) == (OperationType.SEND_IMMEDIATE, Status.SUCCESS, "S")
        assert not sent.is_receive
        assert sent.immediate_data is None
        still_works(a, b)


def test_the_data_is_copied_by_the_post() -> None:
    with pair() as (a, b):
        b.qp.receive([])
        data = bytearray(EIGHT)
        a.qp.send_immediate(data, flags=OpFlag.DEFER)
        data[:] = bytes(8)
        a.qp.send_immediate(data, flags=OpFlag.SILENT_SUCCESS | OpFlag.DEFER)
        b.qp.receive([])
        a.qp.send(b"", flags=OpFlag.SILENT_SUCCESS)
        b.qp.receive([])
        assert [result.immediate_data for result in take(b.cq, 3)] == [EIGHT, bytes(8), None]


def test_any_receive_is_large_enough_and_its_memory_does_not_matter() -> None:
    with pair() as (a, b):
        unwritable = b.pd.register_mr(bytearray(8), MrFlag.ALLOW_LOCAL_READ)
        gone = b.pd.register_mr(bytearray(8))
        sgls: list[Sgl] = [[], b.mr[0:7], unwritable[:], gone[:]]
        for sgl in sgls:
            b.qp.receive(sgl)
        gone.deregister()
        for number in range(4):
            a.qp.send_immediate(number)
        assert [result.immediate_data for result in take(b.cq, 4)] == [struct.pack(">Q", number) for number in range(4)]
        succeed(a.cq, 4)


def test_on_the_wire_it_is_one_segment_of_eight_octets() -> None:
    with raw_server() as (peer, end):
        end.qp.send(b"first")
        end.qp.send_immediate(EIGHT)
        end.qp.send_immediate(EIGHT, flags=OpFlag.SEND_AND_SOLICIT_EVENT)
        peer.read_untagged(Opcode.SEND)
        plain, data = peer.read_untagged(Opcode.IMMEDIATE)
        solicited, _ = peer.read_untagged(Opcode.IMMEDIATE_SE)
        assert data == EIGHT
        assert [(header.last, header.qn, header.mo) for header in (plain, solicited)] == [(True, 0, 0)] * 2
        assert (plain.msn, solicited.msn) == (2, 3)
        succeed(end.cq, 3)


# ---- order


def test_it_keeps_its_place_among_sends_and_comes_behind_writes() -> None:
    with pair(flags=EVERY_RIGHT) as (a, b):
        for number in range(9):
            b.qp.receive(b.mr[64 * number : 64 * (number + 1)], context=number)
        for number in range(0, 9, 3):
            a.qp.write(b"written%d" % number, b.mr.address + 4096 + number, b.mr.remote_token)
            a.qp.send_immediate(number, context=number)
            a.qp.send(b"sent", context=number + 1)
            a.qp.send_immediate(number + 2, context=number + 2)
        arrived = take(b.cq, 9)
        assert contexts(arrived) == list(range(9))
        assert [result.type for result in arrived] == [
            OperationType.RECEIVE_IMMEDIATE,
            OperationType.RECEIVE,
            OperationType.RECEIVE_IMMEDIATE,
        ] * 3
        assert [result.bytes_transferred for result in arrived] == [0, 4, 0] * 3
        assert bytes(b.mr.view[4096:4111]) == b"wriwriwritten6" + b"\0"


def test_a_fence_waits_for_reads() -> None:
    with raw_server() as (peer, end):
        end.qp.read(end.mr[0:4], 0x9000, end.mr.remote_token)
        end.qp.send_immediate(1, flags=OpFlag.READ_FENCE)
        read = peer.read_request()
        peer.sock.setblocking(False)
        with pytest.raises(BlockingIOError):
            peer.sock.recv(1)
        peer.sock.settimeout(PATIENCE_S)
        peer.answer(read, b"here")
        peer.read_untagged(Opcode.IMMEDIATE)
        succeed(end.cq, 2)


# ---- completion queues


@pytest.mark.parametrize("solicited", [False, True])
def test_the_solicited_flag_fires_an_arm_for_solicited_events(solicited: bool) -> None:
    with open_adapter() as passive, open_adapter() as active:
        fired = threading.Event()
        here, there = loose_end(active), loose_end(passive)
        receive_cq = passive.create_cq(16, lambda cq, status: fired.set())
        qp = there.pd.create_qp(receive_cq, there.cq, receive_queue_depth=4, initiator_queue_depth=4)
        connect(active, here.qp, passive, qp)
        receive_cq.arm(CqNotify.SOLICITED)
        qp.receive([])
        qp.receive([])
        here.qp.send_immediate(1, flags=OpFlag.SEND_AND_SOLICIT_EVENT if solicited else 0)
        if solicited:
            assert fired.wait(PATIENCE_S)
        else:
            while not (found := receive_cq.get_results()):
                _wait_a_turn(here.cq)
            assert found[0].immediate_data == bytes(7) + b"\1"
            assert not fired.is_set()
            here.qp.send_immediate(2, flags=OpFlag.SEND_AND_SOLICIT_EVENT)
            assert fired.wait(PATIENCE_S)


def _wait_a_turn(cq: Cq) -> None:
    """Until something has completed here, at most a moment."""
    try:
        cq.wait(0.05)
    except TimeoutError:
        return


def test_silent_success_leaves_no_result() -> None:
    with pair() as (a, b):
        for _ in range(2):
            b.qp.receive([])
        a.qp.send_immediate(1, flags=OpFlag.SILENT_SUCCESS)
        a.qp.send_immediate(2, context="told")
        succeed(b.cq, 2)
        assert one(a.cq).request_context == "told"


def test_a_shared_receive_queue_serves_it_and_an_empty_one_holds_it_back() -> None:
    with open_adapter() as passive, open_adapter() as active:
        here, there = loose_end(active), loose_end(passive)
        srq = there.pd.create_srq(4)
        qp = there.pd.create_qp_with_srq(there.cq, there.cq, srq, initiator_queue_depth=4)
        connect(active, here.qp, passive, qp)
        here.qp.send_immediate(7)
        here.qp.send(b"behind")
        succeed(here.cq, 2)
        assert there.cq.get_results() == []
        srq.receive([], context="first")
        srq.receive(there.mr[0:16], context="second")
        first, second = take(there.cq, 2)
        assert (first.type, first.request_context, first.immediate_data) == (
            OperationType.RECEIVE_IMMEDIATE,
            "first",
            bytes(7) + b"\7",
        )
        assert (second.type, second.request_context, second.bytes_transferred) == (OperationType.RECEIVE, "second", 6)


# ---- refused calls


@pytest.mark.parametrize(
    ("data", "error"),
    [
        (b"", InvalidParameter),
        (b"1234567", InvalidParameter),
        (b"123456789", InvalidParameter),
        (-1, InvalidParameter),
        (1 << 64, InvalidParameter),
        (True, TypeError),
        (1.5, InvalidParameter),
        ("8 octets", InvalidParameter),
        (None, InvalidParameter),
    ],
)
def test_what_is_not_eight_octets_is_refused_and_nothing_is_posted(data: Any, error: type[Exception]) -> None:
    with pair() as (a, b):
        with pytest.raises(error) as refused:
            a.qp.send_immediate(data)
        assert "send_immediate" in str(refused.value)
        still_works(a, b)


@pytest.mark.parametrize("flag", [*BAD_FLAGS, OpFlag(0x20000)], ids=repr)
def test_flags_of_other_requests_are_refused(flag: int) -> None:
    with pair() as (a, b):
        with pytest.raises(InvalidParameter, match="R-FLAG-3"):
            a.qp.send_immediate(1, flags=flag)
        still_works(a, b)


def test_without_a_connection_it_is_refused() -> None:
    with open_adapter() as adapter:
        end = loose_end(adapter)
        with pytest.raises(ConnectionInvalid):
            end.qp.send_immediate(1)


def test_a_full_queue_refuses_it() -> None:
    with raw_server() as (_, end):
        end.qp.read(end.mr[0:4], 0x9000, end.mr.remote_token)
        for _ in range(63):
            end.qp.send_immediate(1)
        with pytest.raises(QueueFull, match="initiator_queue_depth=64"):
            end.qp.send_immediate(1)


# ---- failures


def test_without_a_receive_the_peer_ends_the_connection() -> None:
    with pair() as (a, b):
        a.qp.send_immediate(1)
        assert triple(fault_of(b)) == (1, 2, 2)
        assert triple(fault_of(a)) == (1, 2, 2)
        assert fault_of(a).received


def test_the_grace_time_for_a_receive_counts_for_it_too() -> None:
    with pair(peer_config=IwarpConfig(receive_wait_s=PATIENCE_S)) as (a, b):
        a.qp.send_immediate(5)
        succeed(a.cq)
        b.qp.receive([])
        assert one(b.cq).immediate_data == bytes(7) + b"\5"


def test_a_peer_without_rfc_7306_is_told_by_the_error() -> None:
    with pair(peer_config=IwarpConfig(rfc7306=False)) as (a, b):
        account, there = Ledger(a), Ledger(b)
        there.receive()
        account.receive()
        account.post(lambda flags, context: a.qp.send_immediate(1, flags=flags, context=context))
        assert triple(fault_of(b)) == (0, 2, 6)
        assert triple(fault_of(a)) == (0, 2, 6)
        assert "to our IMMEDIATE: this peer has no RFC 7306" in str(ended(a).error)
        account.close_account()
        assert [result.status for result in there.close_account()] == [Status.CANCELLED]


def test_an_adapter_without_it_says_so_and_refuses_to_post() -> None:
    with pair(config=IwarpConfig(rfc7306=False)) as (a, b):
        assert not a.adapter.query_info().extensions
        with pytest.raises(NotSupported, match=r"IMMEDIATE_DATA .*rfc7306 is off"):
            a.qp.send_immediate(1)
        still_works(a, b)
    with open_adapter() as adapter:
        assert Extension.IMMEDIATE_DATA in adapter.query_info().extensions


ENDS: dict[str, Callable[[Pair], None]] = {
    "flush here": lambda both: both.a.qp.flush(),
    "flush there": lambda both: both.b.qp.flush(),
    "reset": lambda both: kill(both.b.adapter, "reset"),
    "close of the connector": lambda both: both.a.connector.close().result(PATIENCE_S) and None,
    "a write that is refused": lambda both: both.a.qp.write(
        b"x", 0, both.a.mr.remote_token, flags=OpFlag.SILENT_SUCCESS
    ),
}


@pytest.mark.parametrize("end", ENDS)
def test_whatever_ends_the_connection_each_post_completes_once_and_in_order(end: str) -> None:
    with pair() as both:
        here, there = Ledger(both.a), Ledger(both.b)
        for _ in range(40):
            there.receive(0)
        for number in range(60):
            here.post(
                lambda flags, context: both.a.qp.send_immediate(context, flags=flags, context=context),
                OpFlag.SILENT_SUCCESS if number % 5 == 0 else 0,
            )
            if number == 30:
                ENDS[end](both)
                if end.startswith("close"):
                    break
        here.close_account()
        both.b.qp.flush()  # a graceful end cancels nothing there
        results = there.close_account()
        arrived = [result for result in results if result.status is Status.SUCCESS]
        assert [result.immediate_data for result in arrived] == [
            struct.pack(">Q", number) for number in range(len(arrived))
        ]


# ---- a peer that breaks the rules


@pytest.mark.parametrize(("octets", "code"), [(b"", (0, 2, 7)), (b"1234567", (0, 2, 7)), (b"9 octets!", (0, 2, 7))])
def test_another_length_is_a_fault_and_the_receive_is_not_used(octets: bytes, code: tuple[int, int, int]) -> None:
    with raw_client(receives=1) as (peer, end):
        peer.send_message(octets, Opcode.IMMEDIATE)
        terminate = peer.read_terminate()
        assert (terminate.layer, terminate.etype, terminate.code) == code
        assert one(end.cq).status is Status.CANCELLED
        assert bytes(end.mr.view[:64]) == bytes(64)
