"""Faults: each posted request completes exactly once, in order, with the documented status, and the error says why.

The peer is a second adapter, a raw TCP peer that breaks a rule, or a process of its own that is killed.
"""

import random
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from functools import partial

import pytest

from softndk import (
    Aborted,
    AccessViolation,
    BufferOverflow,
    IwarpConfig,
    LocalToken,
    Mr,
    MrFlag,
    Mw,
    OperationType,
    OpFlag,
    QueueFull,
    RemoteError,
    RemoteToken,
    RequestCancelled,
    Sge,
    Sgl,
    Status,
    open_adapter,
)
from softndk.testing import End, Pair, kill, pair
from softndk.wire import rdmap
from softndk.wire.ddp import QueueNumber, TaggedHeader, UntaggedHeader
from softndk.wire.rdmap import Opcode
from softndk.wire.terminate import Terminate
from tests.ndk.ends import (
    EVERY_RIGHT,
    FAST_RIGHTS,
    PATIENCE_S,
    Ledger,
    connect,
    contexts,
    ended,
    fast_region,
    fault_of,
    initiators,
    loose_end,
    one,
    receives,
    sibling,
    statistics,
    still_works,
    succeed,
    take,
    triple,
    window,
)
from tests.ndk.raw_peer import RawPeer, raw_client, raw_server
from tests.stopped_process import stop

UNKNOWN = RemoteToken(0x0000_0100)


def codes(message: Terminate) -> tuple[int, int, int]:
    return message.layer, message.etype, message.code


# ---- a peer in a process of its own

PEER = f"""
import sys
from softndk import *

rights = MrFlag.ALLOW_REMOTE_READ | MrFlag.ALLOW_REMOTE_WRITE
with open_adapter() as adapter:
    pd = adapter.create_pd()
    cq = adapter.create_cq(1024)
    mr = pd.register_mr(bytearray(65536), rights)
    qp = pd.create_qp(cq, cq, receive_queue_depth=256, initiator_queue_depth=256)
    for number in range(256):
        qp.receive(mr[64 * number : 64 * number + 64])
    listener = adapter.listen()
    print(listener.local_address[1], flush=True)
    connector = listener.next_request().result()
    connector.accept(qp, private_data=mr.address.to_bytes(8, "big") + mr.remote_token.to_bytes(4, "big")).result()
    while True:
        for result in cq.wait({PATIENCE_S * 10}):
            if result.is_receive:
                qp.receive(mr[0:64])
                qp.send(b"answer")
"""


@contextmanager
def other_process() -> Iterator[tuple[subprocess.Popen[str], End, int, RemoteToken]]:
    """A process that answers each message, an end connected to it, address and token of the process's memory."""
    with subprocess.Popen([sys.executable, "-c", PEER], stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None
            port = int(process.stdout.readline())
            with open_adapter() as adapter:
                end = loose_end(adapter)
                connector = adapter.connect(end.qp, ("127.0.0.1", port)).result(PATIENCE_S)
                told = connector.connection_data.private_data
                yield (
                    process,
                    End(adapter, end.pd, end.cq, end.mr, end.qp, connector),
                    int.from_bytes(told[:8], "big"),
                    RemoteToken(int.from_bytes(told[8:12], "big")),
                )
        finally:
            process.kill()


def post_all_kinds(account: Ledger, rng: random.Random, address: int, token: RemoteToken) -> None:
    """One request, of any kind but an invalidating send; raises what the post raises."""
    end = account.end
    flags = rng.choice([0, 0, 0, OpFlag.SILENT_SUCCESS, OpFlag.READ_FENCE]) | rng.choice([0, 0, 0, OpFlag.DEFER])
    length = rng.choice([0, 1, 64, 1000])
    kinds: list[Callable[[int, int], None]] = [
        lambda bits, n: end.qp.send(b"x" * min(length, 64), flags=bits, context=n),
        lambda bits, n: end.qp.send(end.mr[0 : min(length, 64)], flags=bits, context=n),
        lambda bits, n: end.qp.write(end.mr[0:length], address, token, flags=bits, context=n),
        lambda bits, n: end.qp.read(end.mr[0:length], address, token, flags=bits, context=n),
        lambda bits, n: end.qp.bind(end.mr, end.pd.create_mw(), flags=bits | OpFlag.ALLOW_REMOTE_READ, context=n),
    ]
    account.post(rng.choice(kinds), flags)


@pytest.mark.rules("A-2")
def test_a_killed_peer_that_had_read_everything_is_a_disconnect_and_the_local_one_gives_every_request_back() -> None:
    """The system of the killed process ends the connection in good order, so it looks graceful (A-2)."""
    with other_process() as (process, end, _, _):
        account = Ledger(end)
        for _ in range(8):
            account.receive()
        account.send()
        account.results += take(end.cq, 2)  # sent and answered: nothing is under way
        process.send_signal(signal.SIGKILL)
        assert ended(end).graceful
        assert account.drain() == []  # R-DEV-4
        end.connector.disconnect().result(PATIENCE_S)
        results = account.close_account()
        assert [r.status for r in receives(results)] == [Status.SUCCESS] + [Status.CANCELLED] * 7


def test_a_peer_killed_with_data_unread_is_a_reset_and_every_request_comes_back_once() -> None:
    with other_process() as (process, end, address, token):
        account = Ledger(end)
        for _ in range(8):
            account.receive()
        stop(process)
        account.post(lambda flags, n: end.qp.read(end.mr[0:8], address, token, context=n))
        for _ in range(4):
            account.send()
        account.post(lambda flags, n: end.qp.send(b"", flags=flags, context=n), OpFlag.READ_FENCE)
        process.send_signal(signal.SIGKILL)
        how = ended(end)
        assert not how.graceful
        assert how.provider_reason >> 16 == 3  # an errno of the socket
        assert isinstance(how.error, Aborted)
        failed = [r for r in account.close_account() if r.status is not Status.SUCCESS]
        assert len(failed) == 8 + 2  # the receives, the read and what is fenced behind it
        assert {r.status for r in failed} == {Status.CANCELLED}
        assert {r.provider_error_code for r in failed} == {how.provider_reason}


@pytest.mark.rules("R-COMP-1")
@pytest.mark.parametrize("turn", range(4))
def test_every_request_of_every_kind_comes_back_once_when_the_peer_is_killed_at_a_random_point(turn: int) -> None:
    seed = random.SystemRandom().getrandbits(32)
    print(f"seed {seed}")
    rng = random.Random(seed)
    with other_process() as (process, end, address, token):
        account = Ledger(end)
        for _ in range(32):
            account.receive()
        last_words = rng.randrange(60)
        for number in range(60):
            if number == last_words:
                process.send_signal(rng.choice([signal.SIGKILL, signal.SIGSTOP]))
            if len(account.posted_requests) - len(initiators(account.results)) > 40:
                account.drain()
            with suppress(QueueFull):
                post_all_kinds(account, rng, address, token)
            for result in account.drain():
                if result.is_receive and result.status is Status.SUCCESS:
                    account.receive()
        process.send_signal(signal.SIGKILL)
        if ended(end).graceful:
            end.qp.flush()
        account.close_account()


# ---- a peer that vanishes


def test_a_reset_cancels_everything_with_the_errno_in_the_provider_code(both: Pair) -> None:
    a, b = both
    account = Ledger(a)
    for _ in range(3):
        account.receive()
    kill(b.adapter, "reset")
    how = ended(a)
    assert (how.graceful, how.provider_reason) == (False, 0x3_0000 | 104)
    assert isinstance(how.error, Aborted)
    assert how.error.status is Status.CONNECTION_RESET
    for result in account.close_account():
        assert (result.status, result.provider_error_code) == (Status.CANCELLED, 0x3_0068)
        assert isinstance(result.error, RequestCancelled)


def test_the_cause_of_a_cancelled_request_is_the_first_failure_of_its_queue_pair(both: Pair) -> None:
    a, b = both
    for _ in range(2):
        a.qp.receive(a.mr[0:8])
    kill(b.adapter, "reset")
    first = ended(a).error
    errors = [r.error for r in take(a.cq, 2)]
    for error in errors:
        assert error is not None
        assert isinstance(error.__cause__, Aborted)
        assert str(error.__cause__) == str(first)


def test_a_reset_by_a_raw_peer_in_the_middle_of_an_fpdu_cancels_everything() -> None:
    with raw_client(receives=4) as (peer, end):
        peer.send(peer.fpdu(peer.untagged(Opcode.SEND, QueueNumber.SEND, b"half"))[:9])
        peer.reset()
        assert not ended(end).graceful
        assert [r.status for r in take(end.cq, 4)] == [Status.CANCELLED] * 4


def test_a_close_in_the_middle_of_an_fpdu_is_an_abort() -> None:
    with raw_client(receives=4) as (peer, end):
        peer.send(peer.fpdu(peer.untagged(Opcode.SEND, QueueNumber.SEND, b"half"))[:9])
        peer.finish()
        how = ended(end)
        assert not how.graceful
        assert "inside an FPDU" in str(how.error)
        assert [r.status for r in take(end.cq, 4)] == [Status.CANCELLED] * 4


def test_a_close_in_the_middle_of_a_message_is_an_abort() -> None:
    with raw_client(receives=4) as (peer, end):
        peer.send_ulpdu(peer.untagged(Opcode.SEND, QueueNumber.SEND, b"half", last=False))
        peer.finish()
        assert not ended(end).graceful
        assert [r.status for r in take(end.cq, 4)] == [Status.CANCELLED] * 4


@pytest.mark.rules("R-IW-2", "A-2")
def test_a_close_between_two_messages_is_graceful_and_flushes_nothing() -> None:
    with raw_client(receives=4) as (peer, end):
        peer.send_message(b"whole")
        peer.finish()
        how = ended(end)
        assert (how.graceful, how.error, how.provider_reason) == (True, None, 0x4_0000)
        assert contexts(end.cq.get_results()) == [0]


@pytest.mark.rules("R-DEV-4")
def test_after_the_peers_graceful_close_sends_still_go_out() -> None:
    """Half-close: RFC 5041 lets the other direction go on."""
    with raw_client(receives=1) as (peer, end):
        peer.finish()
        assert ended(end).graceful
        end.qp.send(b"still there?")
        assert peer.read_untagged(Opcode.SEND)[1] == b"still there?"
        succeed(end.cq)


def test_an_fpdu_that_stays_unfinished_ends_the_connection_after_the_stall_limit() -> None:
    with raw_client(IwarpConfig(stall_timeout_s=0.05), receives=2) as (peer, end):
        peer.send(peer.fpdu(peer.untagged(Opcode.SEND, QueueNumber.SEND, b"half"))[:9])
        how = ended(end)
        assert not how.graceful
        assert how.error is not None
        assert how.error.status is Status.IO_TIMEOUT
        assert "stall_timeout_s=0.05" in str(how.error)
        assert [r.status for r in take(end.cq, 2)] == [Status.CANCELLED] * 2


# ---- damaged or impossible FPDUs


def test_a_crc_error_is_terminated_with_2_0_2_and_nothing_of_the_fpdu_is_used() -> None:
    with raw_client(receives=2) as (peer, end):
        peer.send_message(b"good")
        peer.send(peer.fpdu(peer.untagged(Opcode.SEND, QueueNumber.SEND, b"damaged"), damaged=True))
        peer.send_message(b"too late")
        body = peer.read_terminate()
        assert (codes(body), body.ddp_header) == ((2, 0, 2), b"")
        good, flushed = take(end.cq, 2)
        assert (good.status, good.bytes_transferred) == (Status.SUCCESS, 4)
        assert flushed.status is Status.CANCELLED
        assert bytes(end.mr.view[64:72]) == bytes(8)
        assert ended(end).provider_reason == 0x2_2002
        assert "CRC" in str(ended(end).error)


def test_a_damaged_write_does_not_touch_memory() -> None:
    with raw_client() as (peer, end):
        header = TaggedHeader(True, rdmap.control(Opcode.WRITE), end.mr.remote_token, end.mr.address)
        peer.send(peer.fpdu(header.emit() + b"damaged", damaged=True))
        assert codes(peer.read_terminate()) == (2, 0, 2)
        assert bytes(end.mr.view[:8]) == bytes(8)


def _untagged(peer: RawPeer, opcode: int, queue: int, *, msn: int = 1, mo: int = 0, payload: bytes = b"x") -> bytes:
    return UntaggedHeader(True, rdmap.control(opcode), 0, queue, msn, mo).emit() + payload


IMPOSSIBLE: dict[str, tuple[Callable[[RawPeer], bytes], tuple[int, int, int]]] = {
    "shorter than its header": (lambda peer: b"\x41\x43", (1, 0, 0)),
    "empty": (lambda peer: b"", (1, 0, 0)),
    "tagged, DDP version 2": (lambda peer: TaggedHeader(True, 0x40, 1, 0, 2).emit() + b"x", (1, 1, 4)),
    "untagged, DDP version 0": (lambda peer: UntaggedHeader(True, 0x43, 0, 0, 1, 0, 0).emit(), (1, 2, 6)),
    "RDMAP version 0": (lambda peer: UntaggedHeader(True, 0x03, 0, 0, 1, 0).emit(), (0, 2, 5)),
    "opcode 13": (lambda peer: _untagged(peer, 13, 0), (0, 2, 6)),
    "immediate data of 7 octets": (lambda peer: _untagged(peer, Opcode.IMMEDIATE, 0, payload=bytes(7)), (0, 2, 7)),
    "an atomic through token 0": (lambda peer: _untagged(peer, Opcode.ATOMIC_REQUEST, 1, payload=bytes(52)), (0, 1, 0)),
    "a Send in a tagged segment": (
        lambda peer: TaggedHeader(True, rdmap.control(Opcode.SEND), 1, 0).emit(),
        (0, 2, 6),
    ),
    "a Write in an untagged segment": (lambda peer: _untagged(peer, Opcode.WRITE, 0), (0, 2, 6)),
    "a Send on queue 1": (lambda peer: _untagged(peer, Opcode.SEND, 1), (0, 2, 6)),
    "a Send on queue 7": (lambda peer: _untagged(peer, Opcode.SEND, 7), (1, 2, 1)),
    "MSN 2 first": (lambda peer: _untagged(peer, Opcode.SEND, 0, msn=2), (1, 2, 3)),
    "MO 1 first": (lambda peer: _untagged(peer, Opcode.SEND, 0, mo=1), (1, 2, 4)),
    "a Read Request of 27 octets": (lambda peer: _untagged(peer, Opcode.READ_REQUEST, 1, payload=bytes(27)), (0, 2, 7)),
    "a Read Request of 29 octets": (lambda peer: _untagged(peer, Opcode.READ_REQUEST, 1, payload=bytes(29)), (1, 2, 5)),
    "a Read Response without a read": (
        lambda peer: TaggedHeader(True, rdmap.control(Opcode.READ_RESPONSE), 1, 0).emit() + b"x",
        (0, 2, 6),
    ),
}


@pytest.mark.parametrize("name", IMPOSSIBLE)
def test_a_segment_against_the_rules_is_terminated_and_everything_is_flushed(name: str) -> None:
    make, expected = IMPOSSIBLE[name]
    with raw_client(receives=3) as (peer, end):
        peer.send_ulpdu(make(peer))
        assert codes(peer.read_terminate()) == expected
        assert triple(fault_of(end)) == expected
        assert fault_of(end).rule
        assert [r.status for r in take(end.cq, 3)] == [Status.CANCELLED] * 3


def test_more_reads_than_the_inbound_limit_are_terminated_with_1_2_2() -> None:
    with raw_client() as (peer, end):
        limit = end.connector.connection_data.inbound_read_limit
        assert limit == 16
        body = b"".join(
            peer.fpdu(
                peer.untagged(
                    Opcode.READ_REQUEST,
                    QueueNumber.READ_REQUEST,
                    rdmap.ReadRequest(0x500, 0, 8192, end.mr.remote_token, end.mr.address).emit(),
                )
            )
            for _ in range(limit + 1)
        )
        peer.send(body)  # they arrive together
        while True:
            ulpdu = peer.read_ulpdu()
            if rdmap.opcode_of(ulpdu[1]) == Opcode.TERMINATE:
                break
        assert codes(Terminate.parse(ulpdu[18:])) == (1, 2, 2)
        assert "inbound read limit of 16" in str(ended(end).error)


# ---- receives that are missing or too small


@pytest.mark.rules("A-10")
def test_a_message_without_a_receive_is_terminated_with_1_2_2(both: Pair) -> None:
    a, b = both
    a.qp.send(b"nobody expects it")
    assert triple(fault_of(b)) == (1, 2, 2)
    assert triple(fault_of(a)) == (1, 2, 2)
    assert fault_of(a).received
    assert "no receive is posted" in str(ended(b).error)
    assert "receive_wait_s" in str(ended(b).error)  # what to do


@pytest.mark.rules("A-10")
def test_a_message_without_a_receive_waits_as_long_as_the_grace_time() -> None:
    with pair(config=IwarpConfig(receive_wait_s=PATIENCE_S)) as (a, b):
        a.qp.send(b"early")
        a.qp.send(b"second")
        succeed(a.cq, 2)
        assert b.cq.get_results() == []
        b.qp.receive(b.mr[0:8], context="late")
        assert one(b.cq).request_context == "late"
        assert bytes(b.mr.view[:5]) == b"early"
        b.qp.receive(b.mr[0:8])
        assert one(b.cq).bytes_transferred == 6


def test_a_message_without_a_receive_is_terminated_when_the_grace_time_is_over() -> None:
    with pair(config=IwarpConfig(receive_wait_s=0.05)) as (a, b):
        a.qp.send(b"early")
        assert triple(fault_of(b)) == (1, 2, 2)


def test_an_empty_message_needs_a_receive_too(both: Pair) -> None:
    both.a.qp.send([])
    assert triple(fault_of(both.b)) == (1, 2, 2)


@pytest.mark.rules("A-5")
def test_a_receive_that_is_too_small_fails_with_buffer_overflow_and_the_others_are_flushed(both: Pair) -> None:
    a, b = both
    account = Ledger(b)
    account.receive(length=15)
    account.receive()
    account.send(flags=OpFlag.DEFER)
    a.qp.send(bytes(16), context="sender")
    results = account.close_account()
    assert [r.status for r in receives(results)] == [Status.BUFFER_OVERFLOW, Status.CANCELLED]
    assert [r.status for r in initiators(results)] == [Status.CANCELLED]
    assert [r.bytes_transferred for r in receives(results)] == [0, 0]
    error = receives(results)[0].error
    assert isinstance(error, BufferOverflow)
    assert "16 octets" in str(error)
    assert "room for 15" in str(error)
    assert triple(fault_of(b)) == (1, 2, 5)


@pytest.mark.rules("R-IW-3")
def test_the_sender_of_a_message_too_long_sees_success_and_then_the_end(both: Pair) -> None:
    a, b = both
    b.qp.receive(b.mr[0:15])
    a.qp.send(bytes(16), context="sender")
    sent = take(a.cq, 1)[0]
    assert (sent.request_context, sent.status) == ("sender", Status.SUCCESS)  # R-IW-3
    assert triple(fault_of(a)) == (1, 2, 5)


def test_a_message_that_fits_exactly_is_no_fault(both: Pair) -> None:
    a, b = both
    b.qp.receive([b.mr[0:10], b.mr[20:26]])
    a.qp.send(bytes(range(16)))
    assert one(b.cq).bytes_transferred == 16
    assert bytes(b.mr.view[:10]) + bytes(b.mr.view[20:26]) == bytes(range(16))


# ---- Write and Read where they must not go


Target = Callable[[End, End], tuple[int, RemoteToken, int]]  # address, token, length


def _fast(b: End, flags: int) -> tuple[int, RemoteToken, int]:
    target = fast_region(b, flags)
    return target.mr.address, target.token, 8


def _window(b: End, flags: int) -> tuple[int, RemoteToken, int]:
    return b.mr.address, window(b, flags).remote_token, 8


def _window_part(b: End, offset: int, length: int) -> tuple[int, RemoteToken, int]:
    mw = b.pd.create_mw()
    b.qp.bind(b.mr, mw, b.mr.address + 100, 50, flags=FAST_RIGHTS)
    succeed(b.cq)
    return b.mr.address + offset, mw.remote_token, length


def _other_pd(b: End, spare: End) -> tuple[int, RemoteToken, int]:
    mr = b.adapter.create_pd().register_mr(bytearray(64), EVERY_RIGHT)
    return mr.address, mr.remote_token, 8


def _other_qps_window(b: End, spare: End) -> tuple[int, RemoteToken, int]:
    qp, cq = sibling(b)
    connect(spare.adapter, spare.qp, b.adapter, qp)
    mw = b.pd.create_mw()
    qp.bind(b.mr, mw, flags=FAST_RIGHTS)
    succeed(cq)
    return b.mr.address, mw.remote_token, 8


def _deregistered(b: End, spare: End) -> tuple[int, RemoteToken, int]:
    mr = b.pd.register_mr(bytearray(64), EVERY_RIGHT)
    found = mr.address, mr.remote_token, 8
    mr.deregister()
    return found


def _top_of_the_world(b: End, spare: End) -> tuple[int, RemoteToken, int]:
    return (1 << 64) - 4, b.mr.remote_token, 8


UNKNOWN_TOKEN = ((1, 1, 0), (0, 1, 0), Status.ACCESS_VIOLATION)
NO_RIGHT = ((0, 1, 2), (0, 1, 2), Status.ACCESS_VIOLATION)
OUTSIDE = ((1, 1, 1), (0, 1, 1), Status.REMOTE_RESOURCES)
FOREIGN = ((1, 1, 2), (0, 1, 3), Status.ACCESS_VIOLATION)
WRAP = ((1, 1, 3), (0, 1, 4), Status.REMOTE_RESOURCES)

WHERE: dict[str, tuple[Target, tuple[tuple[int, int, int], tuple[int, int, int], Status]]] = {
    "unknown token": (lambda b, _: (b.mr.address, UNKNOWN, 8), UNKNOWN_TOKEN),
    "wrong key": (lambda b, _: (b.mr.address, RemoteToken(b.mr.remote_token ^ 1), 8), UNKNOWN_TOKEN),
    "token of a deregistered region": (_deregistered, UNKNOWN_TOKEN),
    "local token": (lambda b, _: (b.mr.address, RemoteToken(b.mr.local_token), 8), UNKNOWN_TOKEN),
    "privileged token": (lambda b, _: (0, RemoteToken(b.pd.privileged_token), 8), UNKNOWN_TOKEN),
    "one octet too far": (lambda b, _: (b.mr.address + 8185, b.mr.remote_token, 8), OUTSIDE),
    "one octet too early": (lambda b, _: (b.mr.address - 1, b.mr.remote_token, 8), OUTSIDE),
    "far away": (lambda b, _: (0, b.mr.remote_token, 8), OUTSIDE),
    "one octet past a window": (lambda b, _: _window_part(b, 143, 8), OUTSIDE),
    "one octet before a window": (lambda b, _: _window_part(b, 99, 8), OUTSIDE),
    "around the end of the addresses": (_top_of_the_world, WRAP),
    "region of another PD": (_other_pd, FOREIGN),
    "window of another QP": (_other_qps_window, FOREIGN),
}
WRONG_RIGHT: dict[str, dict[str, Target]] = {
    "write": {
        "region for reading": lambda b, _: _registered(b, MrFlag.ALLOW_REMOTE_READ | MrFlag.ALLOW_LOCAL_WRITE),
        "fast region for reading": lambda b, _: _fast(b, OpFlag.ALLOW_REMOTE_READ | OpFlag.ALLOW_LOCAL_WRITE),
        "window for reading": lambda b, _: _window(b, OpFlag.ALLOW_REMOTE_READ),
    },
    "read": {
        "region for writing": lambda b, _: _registered(b, MrFlag.ALLOW_REMOTE_WRITE),
        "fast region for writing": lambda b, _: _fast(b, OpFlag.ALLOW_REMOTE_WRITE),
        "window for writing": lambda b, _: _window(b, OpFlag.ALLOW_REMOTE_WRITE),
    },
}


def _registered(b: End, flags: int) -> tuple[int, RemoteToken, int]:
    mr = b.pd.register_mr(bytearray(64), flags)
    return mr.address, mr.remote_token, 8


CASES = [
    *((kind, name, where, expected) for kind in ("write", "read") for name, (where, expected) in WHERE.items()),
    *((kind, name, where, NO_RIGHT) for kind, rights in WRONG_RIGHT.items() for name, where in rights.items()),
]


@pytest.mark.rules("R-MEM-1", "R-MEM-2", "R-MEM-3", "R-MEM-5")
@pytest.mark.parametrize(
    ("kind", "where", "expected"),
    [pytest.param(kind, where, expected, id=f"{kind} {name}") for kind, name, where, expected in CASES],
)
def test_a_remote_access_that_must_not_happen(
    both: Pair, kind: str, where: Target, expected: tuple[tuple[int, int, int], tuple[int, int, int], Status]
) -> None:
    """The right Terminate; nothing done to the memory; each request once, in order; texts that say what and whose."""
    a, b = both
    of_write, of_read, status = expected
    b.mr.view[:] = bytes(8192)
    a.mr.view[:8] = b"attacker"
    with open_adapter() as third:
        address, token, length = where(b, loose_end(third))
        accounts = Ledger(a), Ledger(b)
        for account in accounts:
            for _ in range(3):
                account.receive(at=4096)
        accounts[1].send(b"from the target")
        accounts[0].send(b"before")
        if kind == "write":
            guilty = accounts[0].post(lambda flags, n: a.qp.write(a.mr[0:length], address, token, context=n))
        else:
            guilty = accounts[0].post(lambda flags, n: a.qp.read(a.mr[8 : 8 + length], address, token, context=n))
        for _ in range(3):
            accounts[0].send(b"behind", OpFlag.SILENT_SUCCESS | OpFlag.READ_FENCE)

        found, told = fault_of(b), fault_of(a)
        right = of_write if kind == "write" else of_read
        assert (triple(found), found.received) == (right, False)
        assert (triple(told), told.received) == (right, True)
        here, there = accounts[0].close_account(), accounts[1].close_account()

        (result,) = (r for r in here if r.request_context == guilty)
        if kind == "read":
            assert result.status is status
            assert isinstance(result.error, AccessViolation if status is Status.ACCESS_VIOLATION else RemoteError)
            assert "refused by the peer" in str(result.error)
            assert bytes(a.mr.view[8:16]) == bytes(8)
            assert [r.status for r in initiators(here)] == [Status.SUCCESS, status] + [Status.CANCELLED] * 3
        else:
            assert result.status in (Status.SUCCESS, Status.CANCELLED, status)
        assert bytes(b.mr.view[:4096]) == bytes(4096)
        assert receives(there)[0].status is Status.SUCCESS

        text = str(ended(b).error)
        assert ("RDMA Write of 8 octets" if kind == "write" else "Read Request for 8 octets") in text
        assert "R-MEM-" in text or "R-INV-3" in text or "R-PRIV-3" in text
        if right in (OUTSIDE[0], OUTSIDE[1], WRAP[0], WRAP[1]):
            assert f"{address:#x}" in text
            assert "mr1" in text or "mw1" in text
        else:
            assert f"0x{token >> 16:04x}****" in text
        assert f"{token:08x}" not in text


def test_an_access_outside_names_the_region_its_range_and_its_owner(both: Pair) -> None:
    a, b = both
    b.mr.name = "inbox"
    a.qp.write(b"x", b.mr.address + 8192, b.mr.remote_token)
    text = str(ended(b).error)
    assert "mr1 'inbox'" in text
    assert f"[{b.mr.address + 8192:#x}, +1)" in text
    assert f"[{b.mr.address:#x}, +8192)" in text


@pytest.mark.rules("R-MEM-4")
@pytest.mark.parametrize("kind", ["write", "read"])
def test_an_access_of_length_0_is_not_looked_at(both: Pair, kind: str) -> None:
    """R-MEM-4."""
    a, b = both
    if kind == "write":
        a.qp.write([], 0, UNKNOWN, context="empty")
    else:
        a.qp.read([], 0, UNKNOWN, context="empty")
    result = one(a.cq)
    assert (result.request_context, result.status) == ("empty", Status.SUCCESS)
    still_works(a, b)


@pytest.mark.rules("R-MEM-3")
@pytest.mark.parametrize("kind", ["write", "read"])
def test_an_access_up_to_the_last_octet_is_allowed(both: Pair, kind: str) -> None:
    a, b = both
    if kind == "write":
        a.qp.write(b"12345678", b.mr.address + 8184, b.mr.remote_token)
    else:
        a.qp.read(a.mr[0:8], b.mr.address + 8184, b.mr.remote_token)
    succeed(a.cq)
    still_works(a, b)
    assert b.cq.get_results() == []  # R-MEM-6: the target's program sees nothing


@pytest.mark.rules("A-4")
def test_of_several_reads_the_one_that_failed_has_the_status(both: Pair) -> None:
    a, b = both
    a.qp.read(a.mr[0:8], b.mr.address, b.mr.remote_token, context=1)
    a.qp.read(a.mr[8:16], b.mr.address + 8192, b.mr.remote_token, context=2)
    a.qp.read(a.mr[16:24], b.mr.address, b.mr.remote_token, context=3)
    first, second, third = take(a.cq, 3)
    assert first.status in (Status.SUCCESS, Status.CANCELLED)  # a response that waits may be given up for the fault
    assert (second.request_context, second.status) == (2, Status.REMOTE_RESOURCES)
    assert (third.request_context, third.status) == (3, Status.CANCELLED)


def test_memory_that_dies_while_it_is_read_ends_the_read() -> None:
    """iWARP error table, row 29: 0/1/0 with the header brought up to date."""
    size = 1 << 24
    with raw_client() as (peer, end):
        mr = end.pd.register_mr(bytearray(size), EVERY_RIGHT)
        peer.send_read_request(size, mr.remote_token, mr.address)
        header, payload = peer.read_tagged(Opcode.READ_RESPONSE)
        got = len(payload)
        mr.deregister().result(0)
        while True:
            ulpdu = peer.read_ulpdu()
            if rdmap.opcode_of(ulpdu[1]) == Opcode.TERMINATE:
                break
            got += len(ulpdu) - 14
        body = Terminate.parse(ulpdu[18:])
        left = rdmap.ReadRequest.parse(body.read_header)
        assert codes(body) == (0, 1, 0)
        assert 0 < got < size
        assert (left.size, left.sink_to) == (size - got, header.to + got)
        assert not ended(end).graceful


# ---- local memory that must not be used


Bad = Callable[[End], Sge]
LOCAL: dict[str, tuple[Bad, str]] = {
    "unknown token": (lambda a: Sge(a.mr.address, 8, LocalToken(0x100)), "names nothing registered"),
    "remote token": (lambda a: Sge(a.mr.address, 8, LocalToken(a.mr.remote_token)), "names nothing registered"),
    "outside": (lambda a: Sge(a.mr.address + 8185, 8, a.mr.local_token), "is not inside mr1"),
    "another PD": (lambda a: a.adapter.create_pd().register_mr(bytearray(8))[0:8], "belongs to"),
    "invalid fast region": (lambda a: Sge(0, 8, fast_region(a, None).mr.local_token), "is not valid now"),
    "logical address of nothing": (lambda a: Sge(0, 8, a.pd.privileged_token), "not mapped by build_lam"),
}


@pytest.mark.rules("R-WR-15")
@pytest.mark.parametrize("kind", ["send", "write", "read", "receive"])
@pytest.mark.parametrize("name", LOCAL)
def test_local_memory_that_must_not_be_used_is_an_access_violation_of_that_request(
    both: Pair, kind: str, name: str
) -> None:
    a, b = both
    make, text = LOCAL[name]
    bad = make(a)
    account = Ledger(a)
    if kind == "receive":
        number = account.next_number
        a.qp.receive(bad, context=number)
        account.posted_receives.append(number)
        b.qp.send(b"12345678")
    else:
        post: dict[str, Callable[[int, int], None]] = {
            "send": lambda flags, n: a.qp.send(bad, context=n),
            "write": lambda flags, n: a.qp.write(bad, b.mr.address, b.mr.remote_token, context=n),
            "read": lambda flags, n: a.qp.read(bad, b.mr.address, b.mr.remote_token, context=n),
        }
        b.qp.receive(b.mr[0:8])
        number = account.post(post[kind])
    account.receive()
    assert not ended(a).graceful
    results = account.close_account()
    (hit,) = (r for r in results if r.request_context == number)
    assert hit.status is Status.ACCESS_VIOLATION
    assert text in str(hit.error)
    assert f"qp1 {kind}" in str(hit.error)
    assert [r.status for r in results if r.request_context != number] == [Status.CANCELLED]
    assert triple(fault_of(b)) == (0, 0, 0)  # RFC 5040 4.8: local catastrophic


@pytest.mark.rules("R-WR-15")
@pytest.mark.parametrize("kind", ["read", "receive"])
def test_a_target_without_local_write_is_an_access_violation(both: Pair, kind: str) -> None:
    a, b = both
    mr = a.pd.register_mr(bytes(64))
    if kind == "receive":
        a.qp.receive(mr[0:8])
        b.qp.send(b"12345678")
    else:
        a.qp.read(mr[0:8], b.mr.address, b.mr.remote_token)
    result = one(a.cq)
    assert result.status is Status.ACCESS_VIOLATION
    assert "R-WR-15" in str(result.error)


@pytest.mark.rules("R-WR-15")
def test_a_source_needs_no_right(both: Pair) -> None:
    a, b = both
    mr = a.pd.register_mr(b"read only")
    b.qp.receive(b.mr[0:16])
    a.qp.send(mr[0:9])
    succeed(a.cq)
    succeed(b.cq)
    assert bytes(b.mr.view[:9]) == b"read only"


@pytest.mark.rules("R-COMP-6")
def test_requests_before_a_local_failure_succeed_and_those_behind_it_are_cancelled(both: Pair) -> None:
    a, b = both
    for _ in range(2):
        b.qp.receive(b.mr[0:8])
    for number in range(2):
        a.qp.send(b"good", flags=OpFlag.DEFER, context=number)
    a.qp.send(Sge(0, 1, LocalToken(0x100)), flags=OpFlag.DEFER, context=2)
    a.qp.send(b"good", context=3)
    assert [(r.request_context, r.status) for r in take(a.cq, 4)] == [
        (0, Status.SUCCESS),
        (1, Status.SUCCESS),
        (2, Status.ACCESS_VIOLATION),
        (3, Status.CANCELLED),
    ]


@pytest.mark.rules("R-WR-15")
def test_the_right_is_looked_at_when_the_request_runs_not_when_it_is_posted(both: Pair) -> None:
    """R-WR-15: a fast register earlier in the queue makes it good."""
    a, b = both
    target = fast_region(a, None)
    b.qp.receive(b.mr[0:8])
    a.qp.fast_register(target.mr, target.lam, flags=OpFlag.ALLOW_LOCAL_WRITE | OpFlag.DEFER)
    a.qp.send(target.mr[0:8])
    succeed(a.cq, 2)


# ---- answers that the peer owes us


def _wrong_sink(peer: RawPeer, read: rdmap.ReadRequest) -> None:
    peer.answer(read._replace(sink_stag=read.sink_stag ^ 0x100), b"12345678")


def _wrong_offset(peer: RawPeer, read: rdmap.ReadRequest) -> None:
    peer.answer(read._replace(sink_to=read.sink_to + 1), b"12345678")


RESPONSES: dict[str, tuple[Callable[[RawPeer, rdmap.ReadRequest], None], tuple[int, int, int]]] = {
    "another sink": (_wrong_sink, (1, 1, 0)),
    "another offset": (_wrong_offset, (1, 1, 1)),
    "too much": (lambda peer, read: peer.answer(read, b"123456789"), (1, 1, 1)),
    "too little": (lambda peer, read: peer.answer(read, b"1234567"), (1, 1, 1)),
}


@pytest.mark.parametrize("name", RESPONSES)
def test_a_wrong_read_response_fails_that_read_and_flushes_the_others(name: str) -> None:
    answer, expected = RESPONSES[name]
    with raw_server() as (peer, end):
        for number in range(3):
            end.qp.read(end.mr[0:8], 0x1000, UNKNOWN, context=number)
        first = peer.read_request()
        for _ in range(2):
            peer.read_request()
        answer(peer, first)
        assert codes(peer.read_terminate()) == expected
        results = take(end.cq, 3)
        assert contexts(results) == [0, 1, 2]
        assert [r.status for r in results] == [Status.INTERNAL_ERROR, Status.CANCELLED, Status.CANCELLED]
        assert bytes(end.mr.view[:8]) == bytes(8)


@pytest.mark.parametrize(
    ("code", "status"),
    [
        ((0, 1, 1), Status.REMOTE_RESOURCES),
        ((0, 1, 0), Status.ACCESS_VIOLATION),
        ((0, 1, 2), Status.ACCESS_VIOLATION),
        ((0, 1, 4), Status.REMOTE_RESOURCES),
        ((0, 2, 7), Status.REMOTE_RESOURCES),
        ((15, 15, 255), Status.REMOTE_RESOURCES),
    ],
)
def test_the_peers_terminate_fails_the_read_that_it_names(code: tuple[int, int, int], status: Status) -> None:
    with raw_server() as (peer, end):
        end.qp.receive(end.mr[0:8], context="receive")
        for number in range(3):
            end.qp.read(end.mr[0:8], 0x1000, UNKNOWN, context=number)
        reads = [peer.read_request() for _ in range(3)]
        peer.answer(reads[0], b"12345678")
        header = UntaggedHeader(True, rdmap.control(Opcode.READ_REQUEST), 0, 1, 2, 0).emit()
        peer.send_terminate(Terminate(*code, 46, header, reads[1].emit()))
        results = take(end.cq, 4)
        assert [(r.request_context, r.status) for r in initiators(results)] == [
            (0, Status.SUCCESS),
            (1, status),
            (2, Status.CANCELLED),
        ]
        assert receives(results)[0].status is Status.CANCELLED
        assert triple(fault_of(end)) == code
        assert ended(end).provider_reason == 0x1_0000 | code[0] << 12 | code[1] << 8 | code[2]
        assert peer.at_end()  # a Terminate is never answered with a Terminate


def test_a_terminate_that_is_cut_off_still_ends_the_connection() -> None:
    with raw_server() as (peer, end):
        end.qp.receive(end.mr[0:8])
        peer.send_ulpdu(peer.untagged(Opcode.TERMINATE, QueueNumber.TERMINATE, b"\x00"))
        assert not ended(end).graceful
        assert one(end.cq).status is Status.CANCELLED


# ---- versions


@pytest.mark.rules("R-DEV-5")
def test_below_version_2_1_provider_codes_and_reasons_are_0() -> None:
    with pair(version=(1, 2)) as (a, b):
        for end in (a, b):
            end.qp.receive(end.mr[0:8])
        a.qp.send_and_invalidate(b"x", UNKNOWN)
        for end in (a, b):
            assert ended(end).provider_reason == 0
            (result,) = receives(take(end.cq, 2 if end is a else 1))
            assert result.status is not Status.SUCCESS
            assert result.provider_error_code == 0
            assert result.error is not None
            assert result.error.provider_error_code == 0


# ---- counters


def test_a_connection_that_fails_is_counted_as_an_error(both: Pair) -> None:
    a, b = both
    assert (statistics(a).active_connection, statistics(a).connection_error) == (1, 0)
    kill(b.adapter, "reset")
    ended(a)
    assert (statistics(a).active_connection, statistics(a).connection_error) == (0, 1)


# ---- flush


@pytest.mark.rules("R-FLUSH-1", "A-3")
def test_a_flush_cancels_everything_aborts_the_connection_and_later_posts_are_cancelled(both: Pair) -> None:
    a, b = both
    account = Ledger(a)
    for _ in range(3):
        account.receive()
    for _ in range(3):
        account.send(flags=OpFlag.DEFER | OpFlag.SILENT_SUCCESS)
    a.qp.flush()
    account.send(b"late")
    account.receive()
    results = account.close_account()
    assert [r.status for r in results] == [Status.CANCELLED] * 8
    assert not ended(b).graceful


@pytest.mark.rules("R-FLUSH-1")
def test_a_flush_before_the_connection_cancels_the_receives_and_the_queue_pair_stays_usable() -> None:
    with open_adapter() as active, open_adapter() as passive:
        a, b = loose_end(active), loose_end(passive)
        b.qp.receive(b.mr[0:8], context="flushed")
        b.qp.flush()
        assert one(b.cq).status is Status.CANCELLED
        connect(active, a.qp, passive, b.qp)
        still_works(a, b)


@pytest.mark.rules("R-FLUSH-7")
def test_a_request_that_was_finished_keeps_its_status_in_a_flush(both: Pair) -> None:
    a, b = both
    b.qp.receive(b.mr[0:8], context="done")
    b.qp.receive(b.mr[0:8], context="flushed")
    a.qp.send(b"x")
    a.qp.read([], 0, UNKNOWN)
    succeed(a.cq, 2)
    b.qp.flush()
    assert [(r.request_context, r.status) for r in take(b.cq, 2)] == [
        ("done", Status.SUCCESS),
        ("flushed", Status.CANCELLED),
    ]


# ---- everything at once, at random


class Side:
    """One end that posts at random, with what it may do next."""

    def __init__(self, end: End, rng: random.Random) -> None:
        self.end = end
        self.rng = rng
        self.account = Ledger(end)
        self.mappings = {target.mr: target.lam for target in (fast_region(end, None) for _ in range(4))}
        self.free: list[Mr | Mw] = [*(end.pd.create_mw() for _ in range(4)), *self.mappings]
        self.making: dict[object, Mr | Mw] = {}  # context of the request -> object
        self.given: list[RemoteToken] = []  # tokens that the peer may take away
        self.owner = {item.remote_token: item for item in self.free}
        self.credits = 0  # receives of the peer

    def drain(self) -> None:
        for result in self.account.drain():
            item = self.making.pop(result.request_context, None)
            if item is not None and result.status is Status.SUCCESS:
                if result.type is OperationType.INVALIDATE:
                    self.free.append(item)
                else:
                    self.given.append(item.remote_token)
            if result.invalidated_token is not None:
                self.free.append(self.owner[result.invalidated_token])

    def step(self, peer: "Side") -> None:
        rng, end, account = self.rng, self.end, self.account
        flags = rng.choice([0, 0, OpFlag.READ_FENCE]) | rng.choice([0, 0, 0, OpFlag.DEFER])
        silent = flags | rng.choice([0, 0, OpFlag.SILENT_SUCCESS])
        length = rng.choice([0, 1, 64, 3000])
        offset = rng.randrange(4096)
        to = peer.end.mr.address + offset, peer.end.mr.remote_token
        kind = rng.choice(["receive", "receive", "send", "take", "write", "read", "make", "unmake"])
        if kind == "receive" and len(account.posted_receives) - len(receives(account.results)) < 60:
            account.receive(4096)
            peer.credits += 1
        elif kind == "send" and self.credits:
            messages: list[Sgl | bytes] = [b"inline" * 9, end.mr[0:length], [end.mr[0:9], end.mr[5:70]]]
            message = rng.choice(messages)
            account.post(lambda bits, n: end.qp.send(message, flags=bits, context=n), silent)
            self.credits -= 1
        elif kind == "take" and self.credits and peer.given:
            token = peer.given.pop(rng.randrange(len(peer.given)))
            data = end.mr[0:length]
            account.post(lambda bits, n: end.qp.send_and_invalidate(data, token, flags=bits, context=n), silent)
            self.credits -= 1
        elif kind == "write":
            account.post(lambda bits, n: end.qp.write(end.mr[0:length], *to, flags=bits, context=n), silent)
        elif kind == "read":
            account.post(lambda bits, n: end.qp.read(end.mr[4096 : 4096 + length], *to, flags=bits, context=n), silent)
        elif kind == "make" and self.free:
            item = self.free.pop(rng.randrange(len(self.free)))
            self.making[account.post(partial(self.make, item), flags)] = item
        elif kind == "unmake" and self.given:
            item = self.owner[self.given.pop(rng.randrange(len(self.given)))]
            self.making[account.post(lambda bits, n: end.qp.invalidate(item, flags=bits, context=n), flags)] = item

    def make(self, item: Mr | Mw, flags: int, number: int) -> None:
        if isinstance(item, Mw):
            self.end.qp.bind(self.end.mr, item, flags=flags | FAST_RIGHTS, context=number)
        else:
            self.end.qp.fast_register(item, self.mappings[item], flags=flags | FAST_RIGHTS, context=number)


def _bad_write(side: Side) -> None:
    side.account.post(lambda bits, n: side.end.qp.write(b"x", 0, UNKNOWN, flags=bits, context=n))


def _bad_token(side: Side) -> None:
    side.account.post(lambda bits, n: side.end.qp.send_and_invalidate(b"", UNKNOWN, flags=bits, context=n))


def _bad_memory(side: Side) -> None:
    side.account.post(lambda bits, n: side.end.qp.send(Sge(0, 1, LocalToken(0x100)), flags=bits, context=n))


DEATHS: dict[str, Callable[[Side], object]] = {
    "reset": lambda side: kill(side.end.adapter, "reset"),
    "flush": lambda side: side.end.qp.flush(),
    "close of the connector": lambda side: side.end.connector.close(),
    "bad write": _bad_write,
    "bad token": _bad_token,
    "bad memory": _bad_memory,
}


@pytest.mark.rules("R-COMP-1", "R-COMP-4")
@pytest.mark.parametrize("turn", range(4))
@pytest.mark.parametrize("death", DEATHS)
def test_every_request_comes_back_once_and_in_order_however_the_connection_dies(death: str, turn: int) -> None:
    """Both sides post requests of all kinds, then one of them ends it at a random point."""
    seed = random.SystemRandom().getrandbits(32)
    print(f"seed {seed}")
    rng = random.Random(seed)
    with pair(flags=EVERY_RIGHT, cq_depth=4096, config=IwarpConfig(max_fpdu=rng.choice([None, 128, 1000]))) as both:
        sides = [Side(end, rng) for end in both]
        for _ in range(rng.randrange(250)):
            side = sides[rng.randrange(2)]
            with suppress(QueueFull):
                side.step(sides[1 - sides.index(side)])
            if rng.random() < 0.3:
                side.drain()
        killer, victim = rng.sample(sides, 2)
        DEATHS[death](killer)
        if ended(victim.end).graceful:
            victim.end.qp.flush()
        for side in sides:
            side.account.close_account()
