"""Rules of all posts: where requests go, what is refused in the call, order, depth, silence, fences, inline data."""

import threading
from collections.abc import Callable
from typing import Any

import pytest

from softndk import (
    BufferOverflow,
    ConnectionInvalid,
    DataOverrun,
    InvalidParameter,
    InvalidState,
    LocalToken,
    OperationType,
    OpFlag,
    QueueFull,
    Sge,
    Status,
)
from softndk.conformance.bench import (
    PATIENCE_S,
    Bench,
    End,
    Pair,
    contexts,
    delivered,
    drained,
    ended,
    one,
    refused,
    statuses,
    still_works,
    succeed,
    take,
)
from softndk.conformance.providers import Feature, Side

SILENT, FENCE, DEFER, INLINE = OpFlag.SILENT_SUCCESS, OpFlag.READ_FENCE, OpFlag.DEFER, OpFlag.INLINE

Post = Callable[[Bench, Pair, int], None]


def _bind(bench: Bench, both: Pair, flags: int) -> None:
    both.a.qp.bind(both.a.mr, both.a.pd.create_mw(), flags=flags | OpFlag.ALLOW_REMOTE_READ, context="it")


def _fast_register(bench: Bench, both: Pair, flags: int) -> None:
    mr = both.a.pd.create_mr(fast_register=True)
    mr.initialize_fast_register(1, True)
    lam = both.a.adapter.build_lam(bytearray(8)).result(PATIENCE_S)
    both.a.qp.fast_register(mr, lam.pages, fbo=lam.fbo, length=8, base_address=lam.fbo, flags=flags, context="it")


def _invalidate(bench: Bench, both: Pair, flags: int) -> None:
    region = bench.fast_region(both.a)
    both.a.qp.invalidate(region.mr, flags=flags, context="it")


def _send_and_invalidate(bench: Bench, both: Pair, flags: int) -> None:
    region = bench.fast_region(both.b)
    both.b.qp.receive(both.b.mr[0:8])
    both.a.qp.send_and_invalidate([], region.token, flags=flags, context="it")


def _send(bench: Bench, both: Pair, flags: int) -> None:
    both.b.qp.receive(both.b.mr[0:8])
    both.a.qp.send([], flags=flags, context="it")


REQUESTS: dict[OperationType, list[Post]] = {
    OperationType.SEND: [_send, _send_and_invalidate],
    OperationType.READ: [
        lambda _, both, flags: both.a.qp.read(
            both.a.mr[0:8], both.b.mr.address, both.b.mr.remote_token, flags=flags, context="it"
        )
    ],
    OperationType.WRITE: [
        lambda _, both, flags: both.a.qp.write(
            both.a.mr[0:8], both.b.mr.address, both.b.mr.remote_token, flags=flags, context="it"
        )
    ],
    OperationType.BIND: [_bind],
    OperationType.FAST_REGISTER: [_fast_register],
    OperationType.INVALIDATE: [_invalidate],
}
EVERY_REQUEST = [(kind, post) for kind, posts in REQUESTS.items() for post in posts]
NAMES = ["send", "send_and_invalidate", "read", "write", "bind", "fast_register", "invalidate"]


@pytest.mark.rules("R-WR-1", "R-WR-2", "R-COMP-1", "R-COMP-3", "R-RESX-2", "R-SENDINV-4", "R-RESX-1")
@pytest.mark.parametrize(("kind", "post"), EVERY_REQUEST, ids=NAMES)
def test_each_request_gives_one_result_of_its_type(both: Pair, bench: Bench, kind: OperationType, post: Post) -> None:
    post(bench, both, 0)
    result = one(both.a.cq)
    assert (result.type, result.status, result.request_context) == (kind, Status.SUCCESS, "it")
    assert (result.bytes_transferred, result.invalidated_token, result.provider_error_code) == (0, None, 0)
    assert (result.is_receive, result.error) == (False, None)


@pytest.mark.rules("R-WR-1", "R-COMP-3")
@pytest.mark.parametrize(("kind", "post"), EVERY_REQUEST, ids=NAMES)
def test_each_request_completes_as_the_initiator_queue_does(bench: Bench, kind: OperationType, post: Post) -> None:
    a = bench.end()
    receives = a.adapter.create_cq(8)
    a.qp = a.pd.create_qp(receives, a.cq, receive_queue_depth=4, initiator_queue_depth=4)
    both = bench.connect(a, bench.end(side=Side.PASSIVE))
    post(bench, both, 0)
    assert one(a.cq).type is kind
    a.qp.receive([])
    both.b.qp.send([])
    assert one(receives).type is OperationType.RECEIVE
    assert a.cq.get_results() == []


@pytest.mark.rules("R-WR-1", "R-WR-8")
@pytest.mark.requires(Feature.WINDOWS)
def test_each_request_takes_an_entry_of_the_initiator_queue(bench: Bench) -> None:
    """Reads that the peer does not answer fill it."""
    a, b = bench.pair(queue_depth=4)
    fresh, valid, window = bench.fast_region(a, None), bench.fast_region(a), a.pd.create_mw()
    address, token = b.mr.address, b.mr.remote_token
    bench.lose(b, silently=True)
    for number in range(4):
        a.qp.read(a.mr[0:8], address, token, context=number)
    posts: list[Callable[[], None]] = [
        lambda: a.qp.send([]),
        lambda: a.qp.send_and_invalidate([], token),
        lambda: a.qp.read([], address, token),
        lambda: a.qp.write([], address, token),
        lambda: a.qp.bind(a.mr, window, flags=OpFlag.ALLOW_REMOTE_READ),
        lambda: a.qp.fast_register(fresh.mr, fresh.lam, flags=OpFlag.ALLOW_REMOTE_READ),
        lambda: a.qp.invalidate(valid.mr),
    ]
    for post in posts:
        with refused(QueueFull, Status.NO_MORE_ENTRIES):
            post()
    for number in range(4, 8):  # the other queue has its own entries
        a.qp.receive([], context=number)
    a.qp.flush()
    assert sorted(contexts(take(a.cq, 8))) == list(range(8))


@pytest.mark.rules("R-WR-12", "R-COMP-1", "R-COMP-5")
@pytest.mark.parametrize(("kind", "post"), EVERY_REQUEST, ids=NAMES)
def test_a_request_may_be_silent_about_its_success(both: Pair, bench: Bench, kind: OperationType, post: Post) -> None:
    post(bench, both, SILENT)
    assert delivered(both.a) == []


@pytest.mark.rules("R-WR-3")
@pytest.mark.parametrize("state", ["never connected", "disconnected", "closed"])
@pytest.mark.parametrize("name", NAMES)
def test_without_a_connection_requests_are_connection_invalid(bench: Bench, state: str, name: str) -> None:
    a, b = bench.pair() if state != "never connected" else (bench.end(), bench.end())
    if state == "disconnected":
        pendings = [end.connector.disconnect() for end in (a, b)]
        for pending in pendings:
            pending.result(PATIENCE_S)
    elif state == "closed":
        a.connector.close().result(PATIENCE_S)
    qp = a.qp
    token = b.mr.remote_token
    arguments: dict[str, tuple[tuple[Any, ...], dict[str, Any]]] = {
        "send": (([],), {}),
        "send_and_invalidate": (([], token), {}),
        "read": (([], 0, token), {}),
        "write": (([], 0, token), {}),
        "bind": ((a.mr, a.pd.create_mw()), {"flags": OpFlag.ALLOW_REMOTE_READ}),
        "fast_register": ((a.mr, []), {"flags": 0}),
        "invalidate": ((a.pd.create_mw(),), {}),
    }
    positional, named = arguments[name]
    with refused(ConnectionInvalid, Status.CONNECTION_INVALID):
        getattr(qp, name)(*positional, **named)
    assert a.cq.get_results() == []


@pytest.mark.rules("R-WR-3", "R-RECV-2", "A-27")
def test_receives_may_be_posted_before_connecting_and_outlive_a_refusal(bench: Bench) -> None:
    a, b = bench.end(), bench.end(side=Side.PASSIVE)
    for end in (a, b):
        end.qp.receive(end.mr[0:16], context="early")
    listener = b.adapter.listen()
    connecting = a.adapter.connect(a.qp, listener.local_address)
    listener.next_request().result(PATIENCE_S).reject()
    assert connecting.exception(PATIENCE_S)
    assert a.cq.get_results() == []
    bench.connect(a, b)
    a.qp.send(b"hello")
    b.qp.send(b"hello")
    for end in (a, b):
        results = take(end.cq, 2)
        assert statuses(results) == [Status.SUCCESS] * 2
        assert "early" in contexts(results)


@pytest.mark.rules("R-WR-4")
def test_the_list_of_sges_is_read_only_during_the_call(both: Pair) -> None:
    a, b = both
    a.fill(b"right wrong")
    outgoing, incoming = [a.mr[0:5]], [b.mr[0:8]]
    b.qp.receive(incoming)
    incoming[0] = b.mr[100:108]
    a.qp.send(outgoing, flags=DEFER)
    outgoing[0] = a.mr[6:11]
    a.qp.write([], 0, b.mr.remote_token, flags=SILENT)
    succeed(b.cq)
    assert (b.content(5), b.content(5, 100)) == (b"right", bytes(5))


@pytest.mark.rules("R-WR-5", "R-RECV-3")
def test_requests_may_have_no_sges(both: Pair) -> None:
    a, b = both
    token = b.mr.remote_token
    b.qp.receive([])
    a.qp.send([])
    a.qp.read([], 0, token)
    a.qp.write([], 0, token)
    succeed(a.cq, 3)
    (result,) = succeed(b.cq)
    assert result.bytes_transferred == 0


@pytest.mark.rules("R-WR-6")
def test_more_sges_than_the_queue_takes_are_refused(bench: Bench) -> None:
    a, b = bench.pair(max_sge=3)
    token = b.mr.remote_token
    reads = a.adapter.query_info().max_read_request_sge
    sges = [a.mr[index : index + 1] for index in range(4)]
    b.qp.receive([b.mr[index : index + 1] for index in range(3)])
    calls: list[Callable[[], object]] = [
        lambda: a.qp.send(sges),
        lambda: a.qp.send_and_invalidate(sges, token),
        lambda: a.qp.write(sges, b.mr.address, token),
        lambda: a.qp.read([a.mr[0:1]] * (reads + 1), b.mr.address, token),
        lambda: b.qp.receive(sges),
    ]
    for call in calls:
        with refused(DataOverrun, Status.DATA_OVERRUN):
            call()
    a.qp.send(sges[:3])
    a.qp.write(sges[:3], b.mr.address, token)
    succeed(a.cq, 2)
    succeed(b.cq)


@pytest.mark.rules("R-WR-6", "R-QINFO-1")
def test_reads_go_by_the_adapters_limit_not_by_the_queues(bench: Bench) -> None:
    a, b = bench.pair(max_sge=1)
    b.fill(bytes(range(64)))
    count = a.adapter.query_info().max_read_request_sge
    sges = [a.mr[2 * index : 2 * index + 1] for index in range(count)]
    a.qp.read(sges, b.mr.address, b.mr.remote_token)
    succeed(a.cq)
    assert a.content(2 * count)[::2] == bytes(range(64))[:count]


@pytest.mark.rules("R-WR-7")
def test_more_octets_than_the_adapter_transfers_are_refused(both: Pair) -> None:
    a, b = both
    limit = a.adapter.query_info().max_transfer_length
    token = b.mr.remote_token
    sges = [Sge(0, limit, a.mr.local_token), Sge(0, 1, a.mr.local_token)]
    calls: list[Callable[[], object]] = [
        lambda: a.qp.send(sges),
        lambda: a.qp.send_and_invalidate(sges, token),
        lambda: a.qp.read(sges, 0, token),
        lambda: a.qp.write(sges, 0, token),
        lambda: a.qp.receive(sges),
    ]
    for call in calls:
        with refused(BufferOverflow, Status.BUFFER_OVERFLOW):
            call()
    still_works(both)


@pytest.mark.rules("R-WR-8", "R-QP-1")
def test_a_full_queue_refuses_and_a_finished_request_makes_room(bench: Bench) -> None:
    depth = 4
    a, b = bench.pair(queue_depth=depth)
    for _ in range(depth):
        b.qp.receive([])
        a.qp.receive([])
    for end in (a, b):
        with refused(QueueFull, Status.NO_MORE_ENTRIES):
            end.qp.receive([])
    for _ in range(depth):
        a.qp.send([])
    delivered_results = take(a.cq, depth)
    assert statuses(delivered_results) == [Status.SUCCESS] * depth
    succeed(b.cq, depth)
    for _ in range(depth):
        b.qp.receive([])
    with refused(QueueFull, Status.NO_MORE_ENTRIES):
        b.qp.receive([])


@pytest.mark.rules("R-WR-8", "R-QP-1", "R-DEFER-7")
def test_requests_that_wait_count_for_the_depth(bench: Bench) -> None:
    """Reads that the peer does not answer fill the queue: the peer's program is not needed, so it is made deaf."""
    a, b = bench.pair(queue_depth=3)
    bench.lose(b, silently=True)
    for number in range(3):
        a.qp.read(a.mr[0:8], b.mr.address, b.mr.remote_token, context=number)
    for flags in (0, SILENT, DEFER):
        with refused(QueueFull, Status.NO_MORE_ENTRIES):
            a.qp.read(a.mr[0:8], b.mr.address, b.mr.remote_token, flags=flags)
    a.qp.flush()
    assert contexts(drained(a)) == [0, 1, 2]


# ---- inline data


@pytest.mark.rules("R-WR-10", "A-15")
@pytest.mark.requires(Feature.INLINE)
@pytest.mark.parametrize("kind", ["send", "send_and_invalidate", "write"])
def test_inline_data_is_copied_in_the_call_and_needs_no_registration(both: Pair, bench: Bench, kind: str) -> None:
    a, b = both
    data = bytearray(b"as it was")
    region = bench.fast_region(b)
    b.qp.receive(b.mr[0:16])
    sges = [Sge.inline(data), Sge.inline(b"!")]
    if kind == "send":
        a.qp.send(sges, flags=INLINE | DEFER)
    elif kind == "send_and_invalidate":
        a.qp.send_and_invalidate(sges, region.token, flags=INLINE | DEFER)
    else:
        a.qp.write(sges, b.mr.address, b.mr.remote_token, flags=INLINE | DEFER)
    data[:] = b"now other"
    del sges
    data.extend(b"and free")
    delivered(a)
    assert b.content(10) == b"as it was!"


@pytest.mark.rules("R-WR-10")
@pytest.mark.requires(Feature.INLINE)
def test_inline_data_has_its_own_limit_and_no_limit_of_sges(bench: Bench) -> None:
    a, b = bench.pair(inline=100, max_sge=1)
    b.qp.receive(b.mr[0:200])
    with refused(BufferOverflow, Status.BUFFER_OVERFLOW):
        a.qp.send(bytes(101))
    with refused(BufferOverflow, Status.BUFFER_OVERFLOW):
        a.qp.write([Sge.inline(bytes(51))] * 2, b.mr.address, b.mr.remote_token, flags=INLINE)
    a.qp.send([Sge.inline(b"x" * 10)] * 10, flags=INLINE)
    (result,) = succeed(b.cq)
    assert result.bytes_transferred == 100


@pytest.mark.rules("R-WR-10")
@pytest.mark.requires(Feature.INLINE)
def test_tokens_of_inline_sges_are_not_looked_at(both: Pair) -> None:
    a, b = both
    a.fill(b"in a region")
    b.qp.receive(b.mr[0:16])
    a.qp.send(Sge(a.mr.address, 11, LocalToken(0xFFFFFFFF)), flags=INLINE)
    succeed(a.cq)
    succeed(b.cq)
    assert b.content(11) == b"in a region"


@pytest.mark.rules("R-WR-10", "R-FLAG-3")
@pytest.mark.requires(Feature.INLINE)
def test_inline_data_is_for_sends_and_writes_only(both: Pair) -> None:
    a, b = both
    with refused(InvalidParameter, Status.INVALID_PARAMETER):
        a.qp.read(a.mr[0:8], b.mr.address, b.mr.remote_token, flags=INLINE)
    calls: list[Callable[[], object]] = [
        lambda: a.qp.receive(Sge.inline(b"x")),
        lambda: a.qp.read(Sge.inline(bytearray(8)), b.mr.address, b.mr.remote_token),
        lambda: a.qp.send(Sge.inline(b"x")),
    ]
    for call in calls:
        with refused(InvalidParameter, Status.INVALID_PARAMETER):
            call()


# ---- order, silence, fences


@pytest.mark.rules("R-COMP-4", "R-COMP-5", "R-WR-14", "R-COMP-3")
def test_each_queue_completes_in_the_order_of_posting(both: Pair, bench: Bench) -> None:
    a, b = both
    token = b.mr.remote_token
    region = bench.fast_region(a, None)
    window = a.pd.create_mw()
    for number in range(3):
        b.qp.receive(b.mr[0:64], context=("receive", number))
    posts: list[Callable[[str], None]] = [
        lambda name: a.qp.read(a.mr[0:4000], b.mr.address, token, context=name),
        lambda name: a.qp.send(b"1", context=name),
        lambda name: a.qp.fast_register(region.mr, region.lam, flags=OpFlag.ALLOW_REMOTE_READ, context=name),
        lambda name: a.qp.write(a.mr[0:4000], b.mr.address, token, context=name),
        lambda name: a.qp.bind(region.mr, window, flags=OpFlag.ALLOW_REMOTE_READ, context=name),
        lambda name: a.qp.send(b"2", context=name),
        lambda name: a.qp.invalidate(window, context=name),
        lambda name: a.qp.read(a.mr[0:8], b.mr.address, token, context=name),
        lambda name: a.qp.invalidate(region.mr, context=name),
        lambda name: a.qp.send(b"3", context=name),
    ]
    for number, post in enumerate(posts):
        post(str(number))
    assert contexts(succeed(a.cq, len(posts))) == [str(number) for number in range(len(posts))]
    assert contexts(succeed(b.cq, 3)) == [("receive", number) for number in range(3)]


@pytest.mark.rules("R-COMP-2", "R-COMP-6", "R-WR-12")
def test_a_silent_request_that_fails_or_is_flushed_is_told(both: Pair) -> None:
    a, b = both
    bad = Sge(0, 8, a.mr.local_token)
    a.qp.read(a.mr[0:8], b.mr.address, b.mr.remote_token, flags=SILENT)
    a.qp.send(bad, flags=SILENT | FENCE | DEFER, context="bad")
    a.qp.send(b"x", flags=SILENT, context="flushed")
    results = take(a.cq, 2)
    assert contexts(results) == ["bad", "flushed"]
    assert statuses(results) == [Status.ACCESS_VIOLATION, Status.CANCELLED]
    assert drained(a) == []


@pytest.mark.rules("R-COMP-1", "R-COMP-6")
def test_a_post_that_fails_gives_no_result_and_harms_nothing(both: Pair) -> None:
    a, b = both
    calls: list[Callable[[], object]] = [
        lambda: a.qp.send([a.mr[0:1]] * 5),
        lambda: a.qp.send([], flags=1 << 20),
        lambda: a.qp.receive([a.mr[0:1]] * 5),
        lambda: a.qp.write([], 0, type(b.mr.remote_token)(1 << 32)),
    ]
    for call in calls:
        with pytest.raises(ValueError, match=r"\["):
            call()
    assert delivered(a) == []
    still_works(both)


@pytest.mark.rules("R-WR-11", "R-READ-1", "R-COMP-7")
def test_a_fenced_request_waits_for_earlier_reads(both: Pair) -> None:
    """What is sent behind the fence is what the read has brought."""
    a, b = both
    for turn in range(20):
        data = turn.to_bytes(4, "big") * 2000
        b.fill(data[:4000])
        b.qp.receive(b.mr[4096:8096])
        a.qp.read(a.mr[0:4000], b.mr.address, b.mr.remote_token, flags=SILENT | DEFER)
        a.qp.send(a.mr[0:4000], flags=FENCE)
        succeed(a.cq)
        succeed(b.cq)
        assert b.content(4000, 4096) == data[:4000]


@pytest.mark.rules("R-WR-11", "R-READ-4")
def test_a_fence_waits_for_all_earlier_reads_and_holds_back_what_follows(bench: Bench) -> None:
    """The peer is deaf, so its answer never comes and nothing behind the fence may get out."""
    a, b = bench.pair()
    bench.lose(b, silently=True)
    a.qp.read(a.mr[0:8], b.mr.address, b.mr.remote_token, context="read")
    a.qp.write(a.mr[0:8], b.mr.address, b.mr.remote_token, flags=FENCE, context="fenced")
    a.qp.write(a.mr[0:8], b.mr.address, b.mr.remote_token, context="behind")
    a.qp.flush()
    results = drained(a)
    assert contexts(results) == ["read", "fenced", "behind"]
    assert set(statuses(results)) == {Status.CANCELLED}


@pytest.mark.rules("R-WR-2", "R-CONC-6")
def test_a_post_does_not_wait_for_a_peer_that_reads_nothing(bench: Bench) -> None:
    """Far more than any buffer on the way holds is posted, and every post returns."""
    a, b = bench.pair(queue_depth=64, inline=0)
    bench.lose(b, silently=True)
    big = a.pd.register_mr(bytearray(8 << 20))
    finished = threading.Event()

    def post() -> None:
        for number in range(40):
            a.qp.write(big[0 : 8 << 20], b.mr.address, b.mr.remote_token, context=number)
        finished.set()

    thread = threading.Thread(target=post, daemon=True)
    thread.start()
    assert finished.wait(PATIENCE_S)
    thread.join(PATIENCE_S)
    a.qp.flush()
    assert contexts(drained(a)) == list(range(40))


@pytest.mark.rules("R-COMP-7")
def test_when_a_send_has_completed_its_buffer_may_be_used_again(both: Pair) -> None:
    a, b = both
    for number in range(30):
        b.qp.receive(b.mr[number * 100 : number * 100 + 100])
    for number in range(30):
        a.fill(bytes([number]) * 100)
        a.qp.send(a.mr[0:100])
        succeed(a.cq)
    succeed(b.cq, 30)
    assert b.content(3000) == b"".join(bytes([number]) * 100 for number in range(30))


@pytest.mark.rules("R-COMP-6", "A-3", "R-COMP-2")
def test_after_an_error_everything_later_is_cancelled(both: Pair) -> None:
    a, b = both
    a.qp.receive(a.mr[0:8], context="receive")
    a.qp.send(Sge(0, 8, a.mr.local_token), flags=DEFER, context="bad")
    a.qp.send(b"x", flags=DEFER, context="behind")
    a.qp.read(a.mr[0:8], b.mr.address, b.mr.remote_token, context="last")
    results = take(a.cq, 4)
    told = dict(zip(contexts(results), statuses(results), strict=True))
    cancelled = Status.CANCELLED
    assert told == {"bad": Status.ACCESS_VIOLATION, "behind": cancelled, "last": cancelled, "receive": cancelled}
    a.qp.send(b"later", flags=SILENT, context="later")
    assert (contexts(take(a.cq, 1)), b.cq.get_results()) == (["later"], [])
    for end in both:
        assert not ended(end).graceful


# ---- queue pairs


@pytest.mark.rules("R-QP-3", "R-CQ-4", "R-COMP-3")
def test_the_two_queues_may_have_one_queue_or_two(bench: Bench) -> None:
    a, b = bench.end(), bench.end(side=Side.PASSIVE)
    receives, initiators = (b.adapter.create_cq(4) for _ in range(2))
    qp = b.pd.create_qp(receives, initiators, receive_queue_depth=4, initiator_queue_depth=4, context="mine")
    split = End(b.adapter, b.pd, initiators, b.mr, b.buffer, qp)
    bench.connect(a, split)
    a.qp.receive(a.mr[0:8])
    qp.receive(b.mr[0:8])
    a.qp.send(b"x")
    qp.send(b"y")
    succeed(a.cq, 2)
    (received,), (sent,) = succeed(receives), succeed(initiators)
    assert (received.type, sent.type) == (OperationType.RECEIVE, OperationType.SEND)
    assert received.qp_context == sent.qp_context == "mine"


@pytest.mark.rules("R-CQ-4", "R-FLUSH-3")
def test_queue_pairs_may_share_a_queue(bench: Bench) -> None:
    cq = bench.adapter(Side.PASSIVE)
    shared = cq.create_cq(64)
    ends = [bench.end(cq, cq=shared, context=name) for name in "xyz"]
    active = bench.adapter()
    pairs = [bench.connect(bench.end(active), end) for end in ends]
    for a, b in pairs:
        b.qp.receive(b.mr[0:8])
        a.qp.send(b"x")
    results = succeed(shared, 3)
    assert {result.qp_context for result in results} == {*"xyz"}


@pytest.mark.rules("R-QP-5")
def test_parts_of_another_adapter_make_no_queue_pair(bench: Bench) -> None:
    a, b = bench.end(), bench.end()
    queues: dict[str, Any] = {"receive_queue_depth": 1, "initiator_queue_depth": 1}
    for cqs in ((a.cq, b.cq), (b.cq, a.cq)):
        with refused(InvalidParameter, Status.INVALID_PARAMETER):
            a.pd.create_qp(*cqs, **queues)
    with refused(InvalidParameter, Status.INVALID_PARAMETER):
        a.adapter.create_connector().connect(b.qp, bench.nobody(a.adapter))


@pytest.mark.rules("R-QP-6", "R-DISC-5", "A-18")
def test_a_queue_pair_has_one_connection_in_its_life(bench: Bench) -> None:
    a, b = bench.pair()
    other = bench.adapter(Side.PASSIVE).listen()
    connector = a.adapter.create_connector()
    with refused(InvalidState, Status.CONNECTION_ACTIVE):
        connector.connect(a.qp, other.local_address)
    pendings = [end.connector.disconnect() for end in (a, b)]
    for pending in pendings:
        pending.result(PATIENCE_S)
    with refused(InvalidState, Status.CONNECTION_ACTIVE):
        connector.connect(a.qp, other.local_address)
