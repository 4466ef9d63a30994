"""Tokens, and what a peer may do with them."""

from itertools import pairwise

import pytest

from softndk import InvalidState, MrFlag, OpFlag, RemoteToken, Sge, Status
from softndk.conformance.bench import (
    EVERY_RIGHT,
    PATIENCE_S,
    REGION_SIZE,
    Bench,
    End,
    Pair,
    callbacks_have_run,
    contexts,
    delivered,
    ended,
    one,
    refused,
    statuses,
    still_works,
    succeed,
    take,
)
from softndk.conformance.providers import Feature, Side

TOP = 1 << 64


# ---- when tokens are there


@pytest.mark.rules("R-TOK-1", "R-TOK-2", "R-REGMR-6")
def test_tokens_are_there_from_the_registration_on(bench: Bench) -> None:
    pd = bench.end().pd
    plain, fast = pd.create_mr(), pd.create_mr(fast_register=True)
    for mr in (plain, fast):
        with refused(InvalidState, Status.INVALID_DEVICE_STATE):
            mr.local_token  # noqa: B018
        with refused(InvalidState, Status.INVALID_DEVICE_STATE):
            mr.remote_token  # noqa: B018
    plain.register(bytearray(8), 0).result(PATIENCE_S)
    fast.initialize_fast_register(1, True).result(PATIENCE_S)
    assert all([plain.local_token, plain.remote_token, fast.local_token, fast.remote_token])


@pytest.mark.rules("R-TOKEN-1", "R-TOK-4", "R-TOKEN-3")
def test_tokens_are_32_bit_numbers_other_than_0_and_do_not_come_back_soon(bench: Bench) -> None:
    end = bench.end()
    seen: list[int] = [end.pd.privileged_token]
    for _ in range(200):
        mr = end.pd.register_mr(bytearray(8), EVERY_RIGHT)
        seen += {mr.local_token, mr.remote_token}
        mr.close().result(PATIENCE_S)
        mw = end.pd.create_mw()
        seen.append(mw.remote_token)
        mw.close().result(PATIENCE_S)
    assert all(0 < token < 1 << 32 for token in seen)
    assert len(set(seen)) == len(seen)


@pytest.mark.rules("R-TOKEN-3")
def test_tokens_are_not_a_row_of_numbers(bench: Bench) -> None:
    """A peer that knows some tokens finds no other one by counting on, with the low octet known or not.

    Of 100 tokens drawn at random less than one pair in a hundred draws lies as near together as 16 in the upper octets.
    """
    end = bench.end()
    tokens = sorted(end.pd.register_mr(bytearray(8), EVERY_RIGHT).remote_token for _ in range(100))
    near = [token for token, following in pairwise(tokens) if (following >> 8) - (token >> 8) <= 16]
    assert len(near) < 5, near


@pytest.mark.rules("R-TOK-3", "R-TOKEN-2", "E-6", "R-READ-3", "R-WRITE-2")
def test_a_remote_token_is_for_the_peer_who_gets_it_as_plain_data(both: Pair) -> None:
    a, b = both
    told = b.mr.remote_token.to_bytes(4, "big") + b.mr.address.to_bytes(8, "big")
    a.qp.receive(a.mr[0:12])
    b.qp.send(told)
    succeed(a.cq)
    token = RemoteToken(int.from_bytes(a.content(4), "big"))
    address = int.from_bytes(a.content(8, 4), "big")
    a.qp.write(b"stored", address + 100, token)
    a.qp.read(a.mr[64:70], address + 100, token)
    succeed(a.cq, 2)
    assert b.content(6, 100) == a.content(6, 64) == b"stored"


# ---- remote access


def read(a: End, address: int, token: int, length: int = 8) -> None:
    """Read into the start of the own region."""
    a.qp.read(a.mr[0:length], address, RemoteToken(token))


def write(a: End, address: int, token: int, length: int = 8) -> None:
    """Write that many "w"."""
    a.qp.write(b"w" * length, address, RemoteToken(token))


KINDS = pytest.mark.parametrize("access", [read, write])


def check_refused(pair: Pair, access: object, *, status: frozenset[Status]) -> None:
    """The access was the active side's only request: nothing was touched, and the connection is over on both sides."""
    a, b = pair
    if access is read:
        assert one(a.cq).status in status
        assert a.content(16) == bytes(16)
    else:
        assert one(a.cq).status in {*status, Status.SUCCESS, Status.CANCELLED, Status.REMOTE_RESOURCES}
    assert b.content(REGION_SIZE) == bytes(REGION_SIZE)
    for end in pair:
        how = ended(end)
        assert not how.graceful
        assert how.error is not None


@pytest.mark.rules("R-MEM-1", "R-MEM-5", "A-4")
@KINDS
@pytest.mark.parametrize("what", ["unknown", "never given", "of another PD", "a local one"])
def test_a_token_must_be_a_valid_one_of_the_connections_pd(both: Pair, bench: Bench, access: object, what: str) -> None:
    a, b = both
    memory = bytearray(b"untouched")
    other = b.adapter.create_pd().register_mr(memory, EVERY_RIGHT)
    own = b.pd.register_mr(memory, EVERY_RIGHT)
    token = {
        "unknown": own.remote_token ^ 0x5A5A5A00,
        "never given": 0,
        "of another PD": other.remote_token,
        "a local one": own.local_token,
    }[what]
    if what == "a local one" and int(own.local_token) == int(own.remote_token):
        pytest.skip("local and remote tokens are the same numbers")
    if access is read:
        read(a, own.address, token)
    else:
        write(a, own.address, token)
    check_refused(both, access, status=bench.provider.choices.read_denied)
    assert memory == b"untouched"


@pytest.mark.rules("R-MEM-1", "A-13", "R-BIND-5")
@pytest.mark.requires(Feature.WINDOWS)
@KINDS
def test_a_window_works_only_on_its_queue_pair(both: Pair, bench: Bench, access: object) -> None:
    a, b = both
    others = bench.connect(bench.sibling(a), bench.sibling(b))
    window = b.pd.create_mw()
    others.b.qp.bind(b.mr, window, flags=OpFlag.ALLOW_REMOTE_READ | OpFlag.ALLOW_REMOTE_WRITE)
    succeed(others.b.cq)
    others.a.qp.read(others.a.mr[0:8], b.mr.address, window.remote_token)
    succeed(others.a.cq)
    if access is read:
        read(a, b.mr.address, window.remote_token)
    else:
        write(a, b.mr.address, window.remote_token)
    check_refused(both, access, status=bench.provider.choices.read_denied)
    still_works(others)


@pytest.mark.rules("R-MEM-1", "A-13", "R-REGMR-7")
def test_a_region_works_on_every_connection_of_its_pd(both: Pair, bench: Bench) -> None:
    a, b = both
    others = bench.connect(bench.sibling(a), bench.sibling(b))
    b.fill(b"shared")
    for end in (a, others.a):
        end.qp.read(end.mr[0:6], b.mr.address, b.mr.remote_token)
        succeed(end.cq)
        assert end.content(6) == b"shared"


@pytest.mark.rules("R-MEM-2", "R-MEM-5", "A-4")
@KINDS
def test_the_right_must_be_there(both: Pair, bench: Bench, access: object) -> None:
    a, b = both
    memory = bytearray(b"untouched")
    flags = MrFlag.ALLOW_REMOTE_WRITE if access is read else MrFlag.ALLOW_REMOTE_READ
    mr = b.pd.register_mr(memory, flags)
    if access is read:
        read(a, mr.address, mr.remote_token)
    else:
        write(a, mr.address, mr.remote_token)
    check_refused(both, access, status=bench.provider.choices.read_denied)
    assert memory == b"untouched"


@pytest.mark.rules("R-MEM-3", "R-MEM-5", "A-4")
@KINDS
@pytest.mark.parametrize(
    ("start", "length"), [(-1, 8), (REGION_SIZE - 7, 8), (REGION_SIZE, 1), (-8, 8), (1 << 40, 8), (0, REGION_SIZE + 1)]
)
def test_every_octet_must_lie_inside(bench: Bench, access: object, start: int, length: int) -> None:
    a, b = both = bench.pair(inline=0)
    big = a.pd.register_mr(bytearray(REGION_SIZE + 8))
    if access is read:
        a.qp.read(big[0:length], b.mr.address + start, b.mr.remote_token)
    else:
        a.qp.write(big[0:length], b.mr.address + start, b.mr.remote_token)
    check_refused(both, access, status=bench.provider.choices.read_beyond)


@pytest.mark.rules("R-MEM-3", "R-MEM-5")
@KINDS
def test_addresses_do_not_wrap(both: Pair, bench: Bench, access: object) -> None:
    a, b = both
    if access is read:
        read(a, TOP - 4, b.mr.remote_token)
    else:
        write(a, TOP - 4, b.mr.remote_token)
    check_refused(both, access, status=bench.provider.choices.read_beyond | bench.provider.choices.read_denied)


@pytest.mark.rules("R-MEM-3")
def test_the_first_and_the_last_octet_are_inside(both: Pair) -> None:
    a, b = both
    b.fill(b"first")
    b.fill(b"last", REGION_SIZE - 4)
    a.qp.read(a.mr[0:5], b.mr.address, b.mr.remote_token)
    a.qp.read(a.mr[8:12], b.mr.address + REGION_SIZE - 4, b.mr.remote_token)
    succeed(a.cq, 2)
    a.qp.write(b"F", b.mr.address, b.mr.remote_token)
    a.qp.write(b"T", b.mr.address + REGION_SIZE - 1, b.mr.remote_token)
    succeed(a.cq, 2)
    delivered(a)
    assert (a.content(5), a.content(4, 8)) == (b"first", b"last")
    assert (b.content(5), b.content(4, REGION_SIZE - 4)) == (b"First", b"lasT")


@pytest.mark.rules("R-MEM-4", "R-WR-5")
def test_an_access_of_no_octets_needs_no_token(both: Pair) -> None:
    a, b = both
    for token in (0, b.mr.remote_token ^ 0xFFFFFFFF):
        a.qp.read([], TOP - 1, RemoteToken(token))
        a.qp.write([], TOP - 1, RemoteToken(token))
    succeed(a.cq, 4)
    still_works(both)


@pytest.mark.rules("R-MEM-5", "R-FLUSH-5", "R-COMP-6", "R-DEV-1")
def test_a_refused_access_flushes_both_sides_and_is_told_to_both(both: Pair) -> None:
    a, b = both
    for end in both:
        end.qp.receive(end.mr[0:8], context="receive")
    a.qp.read(a.mr[0:8], b.mr.address, RemoteToken(0), context="read")
    a.qp.send(b"behind it", context="send", flags=OpFlag.READ_FENCE)
    results = take(a.cq, 3)
    assert {result.request_context for result in results if result.status is Status.CANCELLED} == {"receive", "send"}
    assert contexts([result for result in results if result.status is Status.ACCESS_VIOLATION]) == ["read"]
    result = one(b.cq)
    assert (result.request_context, result.status) == ("receive", Status.CANCELLED)
    for end in both:
        assert not ended(end).graceful


@pytest.mark.rules("R-MEM-6", "R-WRITE-3")
def test_a_granted_access_shows_nowhere_on_the_other_side(bench: Bench) -> None:
    told: list[object] = []
    passive = bench.adapter(Side.PASSIVE)
    cq = passive.create_cq(16, lambda *_: told.append("notified"))
    a, b = bench.connect(bench.end(), bench.end(passive, cq=cq))
    b.qp.receive(b.mr[4096:4104], context="for a message")
    cq.arm()
    a.qp.write(b"w" * 100, b.mr.address, b.mr.remote_token)
    a.qp.read(a.mr[0:100], b.mr.address, b.mr.remote_token)
    succeed(a.cq, 2)
    assert a.content(100) == b"w" * 100
    assert cq.get_results() == []
    callbacks_have_run(passive)
    assert told == []
    assert not b.connector.disconnected.done()
    a.qp.send(b"now")
    assert contexts(succeed(cq)) == ["for a message"]


# ---- local access


@pytest.mark.rules("R-WR-15", "R-WR-9")
@pytest.mark.parametrize("what", ["no right", "no such token", "outside", "of another PD"])
@pytest.mark.parametrize("request_kind", ["receive", "read"])
def test_memory_that_is_to_be_written_needs_the_local_right(both: Pair, what: str, request_kind: str) -> None:
    a, b = both
    target = bytearray(16)
    mr = a.pd.register_mr(target, MrFlag.ALLOW_LOCAL_READ if what == "no right" else MrFlag.ALLOW_LOCAL_WRITE)
    other = a.adapter.create_pd().register_mr(target)
    sge = {
        "no right": mr[0:8],
        "no such token": Sge(mr.address, 8, type(mr.local_token)(mr.local_token ^ 0x3C3C3C00)),
        "outside": Sge(mr.address + 9, 8, mr.local_token),
        "of another PD": other[0:8],
    }[what]
    if request_kind == "read":
        a.qp.read(sge, b.mr.address, b.mr.remote_token)
    else:
        a.qp.receive(sge)
        b.qp.send(b"too late")
    assert one(a.cq).status is Status.ACCESS_VIOLATION
    assert target == bytes(16)
    assert not ended(a).graceful


@pytest.mark.rules("R-WR-15", "R-REGMR-5")
def test_memory_that_is_only_read_needs_no_right(both: Pair) -> None:
    a, b = both
    mr = a.pd.register_mr(b"read only", MrFlag.ALLOW_LOCAL_READ)
    b.qp.receive(b.mr[0:16])
    a.qp.send(mr[0:9])
    a.qp.write(mr[0:9], b.mr.address + 100, b.mr.remote_token)
    succeed(a.cq, 2)
    assert statuses(take(b.cq, 1)) == [Status.SUCCESS]
    delivered(a)
    assert b.content(9) == b.content(9, 100) == b"read only"


@pytest.mark.rules("R-WR-15", "R-COMP-6", "R-RECV-3")
def test_local_memory_is_looked_at_when_the_request_is_carried_out(both: Pair) -> None:
    """A receive whose memory goes after the post fails when its message comes; posting it was fine."""
    a, b = both
    mr = b.pd.register_mr(bytearray(16))
    b.qp.receive(mr[0:16])
    mr.deregister().result(PATIENCE_S)
    a.qp.send(b"x")
    assert one(b.cq).status is Status.ACCESS_VIOLATION
