"""Invalidation: by the owner, by the peer, and what is left afterwards."""

import pytest

from softndk import InvalidState, MrFlag, Mw, OperationType, OpFlag, RemoteToken, Result, Sge, Status
from softndk.conformance.bench import (
    PATIENCE_S,
    Bench,
    End,
    FastRegion,
    Pair,
    delivered,
    ended,
    one,
    refused,
    statuses,
    still_works,
    succeed,
    take,
)
from softndk.conformance.providers import Feature

READ = OpFlag.ALLOW_REMOTE_READ


def peer_takes(taker: End, owner: End, token: RemoteToken) -> Result:
    """The peer sends and invalidates; the owner's result."""
    owner.qp.receive(owner.mr[7000:7064])
    taker.qp.send_and_invalidate(b"give it back", token)
    succeed(taker.cq)
    return one(owner.cq)


# ---- by the owner


@pytest.mark.rules("R-INV-3", "R-MEM-1")
@pytest.mark.parametrize("kind", ["read", "write"])
def test_after_an_invalidate_the_peers_access_ends_the_connection(both: Pair, bench: Bench, kind: str) -> None:
    a, b = both
    region = bench.fast_region(b)
    address = region.mr.address
    b.qp.invalidate(region.mr)
    succeed(b.cq)
    if kind == "read":
        a.qp.read(a.mr[0:8], address, region.token)
        assert one(a.cq).status in bench.provider.choices.read_denied
    else:
        a.qp.write(b"overwrote", address, region.token)
    for end in both:
        assert not ended(end).graceful
    assert region.buffer[:9] == bytes(9)


@pytest.mark.rules("R-INV-3", "R-WR-15")
def test_after_an_invalidate_the_local_token_is_dead(both: Pair, bench: Bench) -> None:
    a, _ = both
    region = bench.fast_region(a)
    sge = region.mr[0:8]
    a.qp.invalidate(region.mr)
    succeed(a.cq)
    a.qp.send(sge)
    assert one(a.cq).status is Status.ACCESS_VIOLATION


@pytest.mark.rules("R-INV-2", "R-INV-1")
@pytest.mark.requires(Feature.WINDOWS)
@pytest.mark.parametrize("flags", [0, OpFlag.READ_FENCE, OpFlag.DEFER])
def test_windows_and_fast_register_regions_can_be_invalidated(both: Pair, bench: Bench, flags: int) -> None:
    a, b = both
    for item in (bench.fast_region(a).mr, bench.window(a)):
        a.qp.invalidate(item, flags=flags, context=item)
        if flags & OpFlag.DEFER:
            a.qp.write([], 0, b.mr.remote_token, flags=OpFlag.SILENT_SUCCESS)
        result = one(a.cq)
        assert (result.type, result.status) == (OperationType.INVALIDATE, Status.SUCCESS)
        assert result.request_context is item


@pytest.mark.rules("R-INV-4", "R-INVAL-3")
def test_after_an_invalidate_the_region_can_be_registered_again(both: Pair, bench: Bench) -> None:
    a, b = both
    region = bench.fast_region(b)
    for turn in (b"one", b"two"):
        region.buffer[:3] = turn
        a.qp.read(a.mr[0:3], region.mr.address, region.token)
        succeed(a.cq)
        assert a.content(3) == turn
        b.qp.invalidate(region.mr)
        b.qp.fast_register(region.mr, region.lam, flags=READ)
        succeed(b.cq, 2)


@pytest.mark.rules("R-INV-5", "A-9", "R-COMP-6")
@pytest.mark.requires(Feature.WINDOWS)
def test_invalidating_what_is_invalid_is_refused_in_the_call_and_harms_nothing(both: Pair, bench: Bench) -> None:
    a, _ = both
    fresh = bench.fast_region(a, None).mr
    for item in (fresh, a.pd.create_mw()):
        with refused(InvalidState, Status.INVALID_DEVICE_REQUEST):
            a.qp.invalidate(item)
    still_works(both)


@pytest.mark.rules("A-9", "R-COMP-6")
def test_invalidating_twice_in_one_chain_fails_in_the_second_result(both: Pair, bench: Bench) -> None:
    a, _ = both
    region = bench.fast_region(a)
    a.qp.invalidate(region.mr, flags=OpFlag.DEFER)
    a.qp.invalidate(region.mr)
    assert statuses(take(a.cq, 2)) == [Status.SUCCESS, Status.INVALID_DEVICE_REQUEST]
    assert not ended(a).graceful


@pytest.mark.rules("R-INVAL-4")
@pytest.mark.requires(Feature.WINDOWS)
def test_a_region_with_a_bound_window_cannot_be_invalidated(both: Pair, bench: Bench) -> None:
    a, _ = both
    region = bench.fast_region(a)
    window = bench.window(a, READ, region.mr)
    with refused(InvalidState, Status.INVALID_DEVICE_REQUEST):
        a.qp.invalidate(region.mr)
    a.qp.invalidate(window)
    a.qp.invalidate(region.mr)
    succeed(a.cq, 2)


# ---- by the peer


@pytest.mark.rules("R-INVAL-1", "R-INVAL-2", "R-SENDINV-1", "R-SENDINV-5", "R-RESX-3", "R-SENDINV-7")
@pytest.mark.parametrize("flags", [READ, OpFlag.ALLOW_REMOTE_WRITE, READ | OpFlag.ALLOW_REMOTE_WRITE])
def test_the_peer_may_take_back_a_fast_register_region_with_a_remote_right(
    both: Pair, bench: Bench, flags: OpFlag
) -> None:
    a, b = both
    region = bench.fast_region(b, flags)
    result = peer_takes(a, b, region.token)
    assert (result.type, result.status) == (OperationType.RECEIVE_AND_INVALIDATE, Status.SUCCESS)
    assert result.invalidated_token == region.token
    assert b.content(12, 7000) == b"give it back"
    with refused(InvalidState, Status.INVALID_DEVICE_REQUEST):
        b.qp.invalidate(region.mr)
    still_works(both)


@pytest.mark.rules("R-INVAL-1", "R-BIND-5", "R-SENDINV-7")
@pytest.mark.requires(Feature.WINDOWS)
def test_the_peer_may_take_back_a_window(both: Pair, bench: Bench) -> None:
    a, b = both
    window = bench.window(b, READ)
    assert peer_takes(a, b, window.remote_token).invalidated_token == window.remote_token
    b.qp.bind(b.mr, window, flags=READ)
    succeed(b.cq)
    still_works(both)


@pytest.mark.rules("R-SENDINV-6", "A-9")
def test_what_the_peer_took_back_cannot_be_invalidated_again_and_no_harm_is_done(both: Pair, bench: Bench) -> None:
    """A harmless race for the owner, who meant to invalidate it anyway."""
    a, b = both
    region = bench.fast_region(b)
    peer_takes(a, b, region.token)
    for _ in range(2):
        with refused(InvalidState, Status.INVALID_DEVICE_REQUEST):
            b.qp.invalidate(region.mr)
    still_works(both)


@pytest.mark.rules("R-INVAL-3", "R-LAM-9")
def test_memory_and_mapping_stay_the_owners(both: Pair, bench: Bench) -> None:
    a, b = both
    region = bench.fast_region(b)
    region.buffer[:4] = b"kept"
    peer_takes(a, b, region.token)
    assert region.buffer[:4] == b"kept"
    b.qp.fast_register(region.mr, region.lam, flags=READ)
    succeed(b.cq)
    a.qp.read(a.mr[0:4], region.mr.address, region.token)
    succeed(a.cq)
    assert a.content(4) == b"kept"
    b.qp.invalidate(region.mr)
    succeed(b.cq)
    region.lam.release()
    region.buffer.append(0)


def _not_to_be_taken(bench: Bench, owner: End) -> dict[str, RemoteToken]:
    """Tokens that a peer may not invalidate, by what they are."""
    plain = owner.pd.register_mr(bytearray(8), MrFlag.ALLOW_REMOTE_READ | MrFlag.ALLOW_REMOTE_WRITE)
    unregistered = bench.fast_region(owner, None)
    local_only = bench.fast_region(owner, OpFlag.ALLOW_LOCAL_WRITE)
    other = bench.end(owner.adapter)
    pair = bench.connect(bench.end(), bench.sibling(owner))
    foreign = bench.connect(bench.end(), other).b
    under_window = bench.fast_region(owner)
    bench.window(owner, READ, under_window.mr)
    gone = bench.fast_region(owner)
    owner.qp.invalidate(gone.mr)
    succeed(owner.cq)
    return {
        "a plain region": plain.remote_token,
        "a region that is not registered": unregistered.token,
        "a region that was invalidated": gone.token,
        "a region without remote rights": local_only.token,
        "a region with a bound window": under_window.token,
        "a window that was never bound": owner.pd.create_mw().remote_token,
        "a window of another queue pair": bench.window(pair.b, READ, owner.mr).remote_token,
        "a region of another PD": bench.fast_region(foreign).token,
        "a local token": RemoteToken(bench.fast_region(owner).mr.local_token),
        "nothing": RemoteToken(gone.token ^ 0x0F0F0F00),
    }


@pytest.mark.rules("R-INVAL-1", "R-SENDINV-2", "R-RESX-5", "R-RESX-2", "R-FLUSH-5")
@pytest.mark.requires(Feature.WINDOWS)
@pytest.mark.parametrize(
    "what",
    [
        "a plain region",
        "a region that is not registered",
        "a region that was invalidated",
        "a region without remote rights",
        "a region with a bound window",
        "a window that was never bound",
        "a window of another queue pair",
        "a region of another PD",
        "a local token",
        "nothing",
    ],
)
def test_any_other_token_ends_the_connection(both: Pair, bench: Bench, what: str) -> None:
    a, b = both
    token = _not_to_be_taken(bench, b)[what]
    b.qp.receive(b.mr[0:16], context="its receive")
    b.qp.receive(b.mr[0:16], context="the next one")
    a.qp.send_and_invalidate(b"x", token)
    sent = one(a.cq)
    assert sent.status in {Status.SUCCESS, Status.CANCELLED}
    first, second = take(b.cq, 2)
    assert (first.request_context, second.request_context) == ("its receive", "the next one")
    assert first.status is not Status.SUCCESS
    assert (first.type, first.invalidated_token, first.bytes_transferred) == (OperationType.RECEIVE, None, 0)
    assert second.status is Status.CANCELLED
    for end in both:
        assert not ended(end).graceful


@pytest.mark.rules("R-SENDINV-2", "R-INVAL-1")
def test_a_refused_invalidation_leaves_the_token_as_it_was(both: Pair, bench: Bench) -> None:
    a, b = both
    memory = bytearray(b"still here")
    plain = b.pd.register_mr(memory, MrFlag.ALLOW_REMOTE_READ)
    others = bench.connect(bench.sibling(a), bench.sibling(b))
    b.qp.receive(b.mr[0:16])
    a.qp.send_and_invalidate(b"x", plain.remote_token)
    assert not ended(b).graceful
    others.a.qp.read(others.a.mr[0:10], plain.address, plain.remote_token)
    succeed(others.a.cq)
    assert others.a.content(10) == memory


@pytest.mark.rules("R-INVAL-2", "R-RESX-3", "R-SENDINV-5")
def test_when_the_result_is_seen_the_token_is_dead_and_the_payload_there(both: Pair, bench: Bench) -> None:
    """As often as it takes: between the result and the look at the token nothing else happens."""
    a, b = both
    region: FastRegion = bench.fast_region(b)
    for turn in range(20):
        b.qp.receive(b.mr[0:4])
        a.qp.send_and_invalidate(turn.to_bytes(4, "big"), region.token, flags=OpFlag.SILENT_SUCCESS)
        result = one(b.cq)
        assert result.invalidated_token == region.token
        assert b.content(4) == turn.to_bytes(4, "big")
        with refused(InvalidState, Status.INVALID_DEVICE_REQUEST):
            b.qp.invalidate(region.mr)
        b.qp.fast_register(region.mr, region.lam, flags=READ)
        succeed(b.cq)


@pytest.mark.rules("R-INV-3", "R-SENDINV-1")
@pytest.mark.requires(Feature.WINDOWS)
def test_a_peer_that_uses_a_token_after_taking_it_back_loses_its_connection(both: Pair, bench: Bench) -> None:
    a, b = both
    window: Mw = bench.window(b)
    b.qp.receive(b.mr[0:16])
    a.qp.send_and_invalidate(b"done with it", window.remote_token, flags=OpFlag.DEFER)
    a.qp.write(b"one more", b.mr.address + 100, window.remote_token)
    result = one(b.cq)
    assert result.type is OperationType.RECEIVE_AND_INVALIDATE
    assert not ended(b).graceful
    assert b.content(8, 100) == bytes(8)


@pytest.mark.rules("R-WR-11", "R-INV-1", "R-INV-3")
def test_a_fenced_invalidate_lets_earlier_reads_finish(both: Pair, bench: Bench) -> None:
    a, b = both
    b.fill(b"r" * 4096)
    region = bench.fast_region(a)
    sink: Sge = region.mr[0:4096]
    a.qp.read(sink, b.mr.address, b.mr.remote_token, flags=OpFlag.DEFER)
    a.qp.invalidate(region.mr, flags=OpFlag.READ_FENCE)
    succeed(a.cq, 2)
    assert region.buffer == b"r" * 4096
    delivered(a)


@pytest.mark.rules("R-INV-2", "R-CLOSE-12")
def test_a_region_may_be_closed_while_it_is_registered(both: Pair, bench: Bench) -> None:
    a, b = both
    region = bench.fast_region(b)
    address = region.mr.address
    token = region.token
    region.mr.close().result(PATIENCE_S)
    a.qp.read(a.mr[0:8], address, token)
    assert one(a.cq).status in bench.provider.choices.read_denied
