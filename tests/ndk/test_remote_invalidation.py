"""What the receiving side does about the token of a Send with Invalidate (R-SENDINV-2, R-INVAL-1 to -4).

A valid token of a window or of a fast-register region dies and may be used again. With any other the receiver ends the
connection by the Terminate that RFC 5040 prescribes, both sides flush, and every request comes back once.
"""

from collections.abc import Callable

import pytest

from softndk import (
    ConnectionInvalid,
    InvalidState,
    MrFlag,
    NdkError,
    OperationType,
    OpFlag,
    RemoteToken,
    RequestCancelled,
    Status,
    open_adapter,
)
from softndk.testing import End, Pair
from softndk.wire.rdmap import Opcode
from tests.ndk.ends import (
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
    still_works,
    succeed,
    take,
    triple,
    window,
)
from tests.ndk.raw_peer import raw_client

CANNOT_INVALIDATE = (0, 2, 9)
NOT_ASSOCIATED = (0, 1, 9)


def taken_back(both: Pair, token: RemoteToken) -> None:
    """The active side invalidates a token of the passive side."""
    a, b = both
    b.qp.receive(b.mr[0:64])
    a.qp.send_and_invalidate(b"x", token)
    assert one(b.cq).invalidated_token == token
    succeed(a.cq)


# ---- what may be invalidated, and what is left afterwards


@pytest.mark.rules("R-INVAL-1")
@pytest.mark.parametrize("rights", [OpFlag.ALLOW_REMOTE_READ, OpFlag.ALLOW_REMOTE_WRITE, FAST_RIGHTS])
def test_a_valid_window_may_be_invalidated_whatever_its_rights(both: Pair, rights: int) -> None:
    taken_back(both, window(both.b, rights).remote_token)


@pytest.mark.rules("R-INVAL-1")
@pytest.mark.parametrize(
    "rights",
    [
        OpFlag.ALLOW_REMOTE_READ,
        OpFlag.ALLOW_REMOTE_WRITE,
        FAST_RIGHTS,
        OpFlag.ALLOW_REMOTE_READ | OpFlag.ALLOW_LOCAL_WRITE,
    ],
)
def test_a_valid_fast_register_region_with_a_remote_right_may_be_invalidated(both: Pair, rights: int) -> None:
    taken_back(both, fast_region(both.b, rights).token)


def test_a_window_over_a_fast_register_region_may_be_invalidated(both: Pair) -> None:
    _, b = both
    target = fast_region(b)
    taken_back(both, window(b, mr=target.mr).remote_token)
    b.qp.invalidate(target.mr)  # no window is left on it
    succeed(b.cq)


def test_both_sides_may_invalidate(both: Pair) -> None:
    a, b = both
    taken_back(both, window(b).remote_token)
    taken_back(Pair(b, a), window(a).remote_token)


@pytest.mark.rules("A-7", "R-INV-4")
def test_a_window_can_be_bound_again_with_the_same_token(both: Pair) -> None:
    a, b = both
    mw = window(b)
    token = mw.remote_token
    for _ in range(3):
        taken_back(both, token)
        b.qp.bind(b.mr, mw, flags=FAST_RIGHTS)
        succeed(b.cq)
        assert mw.remote_token == token
    a.qp.write(b"again", b.mr.address, token)
    a.qp.read(a.mr[0:5], b.mr.address, token)
    succeed(a.cq, 2)
    assert bytes(a.mr.view[:5]) == b"again"


@pytest.mark.rules("A-7", "R-TOK-4", "R-INV-4")
def test_a_region_can_be_fast_registered_again_with_the_same_token(both: Pair) -> None:
    a, b = both
    target = fast_region(b)
    token = target.token
    for turn in range(3):
        a.qp.write(bytes([turn]), target.mr.address, token)
        succeed(a.cq)
        taken_back(both, token)
        assert target.buffer[0] == turn
        b.qp.fast_register(target.mr, target.lam, flags=FAST_RIGHTS)
        succeed(b.cq)
        assert target.token == token


def test_one_of_two_windows_over_the_same_memory_goes_alone(both: Pair) -> None:
    a, b = both
    first, second = window(b), window(b)
    taken_back(both, first.remote_token)
    a.qp.write(b"second", b.mr.address, second.remote_token)
    succeed(a.cq)
    taken_back(both, second.remote_token)
    assert bytes(b.mr.view[1:6]) == b"econd"


@pytest.mark.rules("R-INVAL-3")
def test_invalidating_a_window_leaves_its_region(both: Pair) -> None:
    a, b = both
    taken_back(both, window(b).remote_token)
    a.qp.read(a.mr[0:8], b.mr.address, b.mr.remote_token)
    succeed(a.cq)


@pytest.mark.rules("R-INVAL-3")
def test_the_memory_stays_the_owners_to_give_back(both: Pair) -> None:
    """R-INVAL-3: neither the buffer nor the mapping is freed by the peer."""
    target = fast_region(both.b)
    taken_back(both, target.token)
    with pytest.raises(BufferError):
        target.buffer.append(0)
    assert target.lam.sges(0, 8, both.b.pd.privileged_token)
    target.lam.release()
    target.buffer.append(0)


def test_a_region_whose_last_window_the_peer_took_can_be_deregistered(both: Pair) -> None:
    _, b = both
    mr = b.pd.register_mr(bytearray(64))
    mw = window(b, mr=mr)
    with pytest.raises(InvalidState) as busy:
        mr.deregister()
    assert busy.value.status is Status.DEVICE_BUSY
    taken_back(both, mw.remote_token)
    mr.deregister().result(0)


@pytest.mark.rules("R-INVAL-2")
def test_the_payload_is_placed_before_the_token_dies(both: Pair) -> None:
    """R-INVAL-2: even into the very region that the message invalidates."""
    a, b = both
    target = fast_region(b)
    b.qp.receive(target.mr[0:64])
    a.qp.send_and_invalidate(b"into itself", target.token)
    assert one(b.cq).status is Status.SUCCESS
    assert target.buffer[:11] == b"into itself"


# ---- a token that is not valid


Token = Callable[[End, End], RemoteToken]


def _unknown(b: End, spare: End) -> RemoteToken:
    known = {b.mr.remote_token >> 8, b.mr.local_token >> 8}
    return next(RemoteToken(index << 8 | 0x5A) for index in range(0x0BADF0, 0x0BADF8) if index not in known)


def _wrong_key(b: End, spare: End) -> RemoteToken:
    return RemoteToken(window(b).remote_token ^ 1)


def _invalidated(b: End, spare: End) -> RemoteToken:
    target = fast_region(b)
    b.qp.invalidate(target.mr)
    succeed(b.cq)
    return target.token


def _never_registered(b: End, spare: End) -> RemoteToken:
    return fast_region(b, None).token


def _never_bound(b: End, spare: End) -> RemoteToken:
    return b.pd.create_mw().remote_token


def _closed(b: End, spare: End) -> RemoteToken:
    mw = window(b)
    token = mw.remote_token
    mw.close().result(PATIENCE_S)
    return token


def _with_windows_bound(b: End, spare: End) -> RemoteToken:
    target = fast_region(b)
    window(b, mr=target.mr)
    return target.token


def _window_of_another_qp(b: End, spare: End) -> RemoteToken:
    qp, cq = sibling(b)
    connect(spare.adapter, spare.qp, b.adapter, qp)
    mw = b.pd.create_mw()
    qp.bind(b.mr, mw, flags=FAST_RIGHTS)
    succeed(cq)
    return mw.remote_token


def _of_another_pd(b: End, spare: End) -> RemoteToken:
    other = loose_end(b.adapter)
    connect(spare.adapter, spare.qp, b.adapter, other.qp)
    return fast_region(other).token


BAD_TOKENS: dict[str, tuple[Token, tuple[int, int, int]]] = {
    "unknown": (_unknown, CANNOT_INVALIDATE),
    "zero": (lambda b, _: RemoteToken(0), CANNOT_INVALIDATE),
    "wrong key": (_wrong_key, CANNOT_INVALIDATE),
    "invalidated": (_invalidated, CANNOT_INVALIDATE),
    "region never registered": (_never_registered, CANNOT_INVALIDATE),
    "window never bound": (_never_bound, CANNOT_INVALIDATE),
    "window closed": (_closed, CANNOT_INVALIDATE),
    "normal region": (lambda b, _: b.mr.remote_token, CANNOT_INVALIDATE),
    "region with windows bound": (_with_windows_bound, CANNOT_INVALIDATE),
    "region without remote rights": (lambda b, _: fast_region(b, OpFlag.ALLOW_LOCAL_WRITE).token, CANNOT_INVALIDATE),
    "local token of a fast region": (lambda b, _: RemoteToken(fast_region(b).mr.local_token), CANNOT_INVALIDATE),
    "local token of a normal region": (lambda b, _: RemoteToken(b.mr.local_token), CANNOT_INVALIDATE),
    "privileged": (lambda b, _: RemoteToken(b.pd.privileged_token), CANNOT_INVALIDATE),
    "window of another QP": (_window_of_another_qp, NOT_ASSOCIATED),
    "of another PD": (_of_another_pd, NOT_ASSOCIATED),
}


@pytest.mark.rules("R-SENDINV-2", "R-INVAL-1")
@pytest.mark.parametrize("name", BAD_TOKENS)
def test_an_invalid_token_ends_the_connection_by_the_right_terminate_and_nothing_is_lost(both: Pair, name: str) -> None:
    a, b = both
    make, expected = BAD_TOKENS[name]
    with open_adapter() as third:
        bad = make(b, loose_end(third))
        accounts = Ledger(a), Ledger(b)
        for account in accounts:
            for _ in range(5):
                account.receive()
        for account in accounts:
            account.send(b"good")
        guilty = accounts[0].post(lambda flags, context: a.qp.send_and_invalidate(b"bad", bad, context=context))
        for _ in range(3):
            accounts[0].send(b"behind it", OpFlag.SILENT_SUCCESS)

        found, told = fault_of(b), fault_of(a)
        assert (triple(found), found.received) == (expected, False)
        assert (triple(told), told.received) == (expected, True)

        sent, arrived = accounts[0].close_account(), accounts[1].close_account()
        (sender,) = (r for r in sent if r.request_context == guilty)
        assert sender.status in (Status.SUCCESS, Status.CANCELLED)
        assert sender.type is OperationType.SEND
        hit = receives(arrived)[1]  # the first one has the good message
        assert (hit.status, hit.type) == (Status.INVALID_DEVICE_REQUEST, OperationType.RECEIVE)
        assert (hit.invalidated_token, hit.bytes_transferred) == (None, 0)
        assert [r.status for r in receives(arrived)[2:]] == [Status.CANCELLED] * 3
        assert [r.status for r in receives(sent)] == [Status.SUCCESS] + [Status.CANCELLED] * 4


@pytest.mark.parametrize("name", BAD_TOKENS)
def test_the_errors_say_whose_token_it_was_and_which_rule_and_never_the_whole_token(both: Pair, name: str) -> None:
    a, b = both
    make, _ = BAD_TOKENS[name]
    with open_adapter() as third:
        bad = make(b, loose_end(third))
        b.qp.receive(b.mr[0:64])
        a.qp.send_and_invalidate(b"bad", bad)
        error = one(b.cq).error
        assert error is not None
        here, there = ended(b).error, ended(a).error
        assert here is not None
        assert there is not None
        texts = [str(error), error.explain(), str(here), here.explain()]
        for text in texts:
            assert "qp1" in text
            assert "Send with Invalidate" in text
            assert "R-SENDINV-2" in text
        for text in (*texts, str(there), there.explain()):
            if bad:
                assert f"{bad:08x}" not in text.replace(" ", "").lower()
                assert str(bad) not in text
        assert f"0x{bad >> 16:04x}****" in texts[0]


def test_the_owner_of_the_token_is_named(both: Pair) -> None:
    a, b = both
    b.mr.name = "inbox"
    b.qp.receive(b.mr[0:64])
    a.qp.send_and_invalidate(b"bad", b.mr.remote_token)
    assert "mr1 'inbox'" in str(one(b.cq).error)
    assert "normal region" in str(ended(b).error) or "registered region" in str(ended(b).error)


def test_the_sender_can_tell_why_its_connection_ended(both: Pair) -> None:
    a, b = both
    a.qp.receive(a.mr[0:64])
    b.qp.receive(b.mr[0:64])
    a.qp.send_and_invalidate(b"bad", b.mr.remote_token)
    error = next(r for r in take(a.cq, 2) if r.is_receive).error
    assert isinstance(error, RequestCancelled)
    cause = error.__cause__
    assert isinstance(cause, NdkError)
    assert cause.fault is not None
    assert triple(cause.fault) == CANNOT_INVALIDATE
    assert cause.fault.received
    assert "STag cannot be invalidated" in error.explain()


def test_the_offending_header_with_the_token_is_returned(both: Pair) -> None:
    """RFC 5040 4.8: the header of the offending segment goes into the Terminate; octets 2 to 5 are the token."""
    a, b = both
    b.qp.receive(b.mr[0:64])
    a.qp.send_and_invalidate(b"bad", b.mr.remote_token)
    for end in both:
        header = fault_of(end).header
        assert len(header) == 18
        assert int.from_bytes(header[2:6], "big") == b.mr.remote_token


def test_the_provider_codes_carry_the_terminate(both: Pair) -> None:
    a, b = both
    for end in both:
        end.qp.receive(end.mr[0:64], context="receive")
    a.qp.send_and_invalidate(b"bad", b.mr.remote_token)
    assert ended(b).provider_reason == 0x2_0209
    assert ended(a).provider_reason == 0x1_0209
    assert one(b.cq).provider_error_code == 0x2_0209
    assert next(r for r in take(a.cq, 2) if r.is_receive).provider_error_code == 0x1_0209


@pytest.mark.rules("A-3")
def test_later_posts_succeed_and_are_cancelled(both: Pair) -> None:
    """A-3: after an error completion."""
    a, b = both
    b.qp.receive(b.mr[0:64])
    a.qp.send_and_invalidate(b"bad", b.mr.remote_token)
    for end in both:
        ended(end)
        end.qp.send(b"late", flags=OpFlag.SILENT_SUCCESS, context="late")
        while (late := take(end.cq, 1)[0]).request_context != "late":
            pass
        assert late.status is Status.CANCELLED
    assert b.cq.get_results() == []


@pytest.mark.rules("A-3", "R-WR-3")
def test_after_the_connectors_close_posts_are_connection_invalid(both: Pair) -> None:
    a, b = both
    b.qp.receive(b.mr[0:64])
    a.qp.send_and_invalidate(b"bad", b.mr.remote_token)
    ended(b)
    b.connector.close()
    with pytest.raises(ConnectionInvalid):
        b.qp.send(b"late")


def test_other_connections_of_the_adapter_go_on(both: Pair) -> None:
    a, b = both
    with open_adapter() as third:
        spare = loose_end(third)
        other = loose_end(b.adapter)
        connect(third, spare.qp, b.adapter, other.qp)
        b.qp.receive(b.mr[0:64])
        a.qp.send_and_invalidate(b"bad", b.mr.remote_token)
        ended(b)
        still_works(spare, other)


@pytest.mark.rules("R-SENDINV-2")
def test_a_refused_invalidation_changes_nothing(both: Pair) -> None:
    """The token of another PD is as good as before for those it belongs to."""
    a, b = both
    with open_adapter() as third:
        spare, other = loose_end(third), loose_end(b.adapter)
        connect(third, spare.qp, b.adapter, other.qp)
        target = fast_region(other)
        b.qp.receive(b.mr[0:64])
        a.qp.send_and_invalidate(b"bad", target.token)
        ended(b)
        spare.qp.write(b"works", target.mr.address, target.token)
        spare.qp.read(spare.mr[0:5], target.mr.address, target.token)
        succeed(spare.cq, 2)
        assert target.buffer[:5] == b"works"


@pytest.mark.rules("R-RESX-5")
def test_the_payload_of_a_refused_message_is_placed_but_its_receive_fails(both: Pair) -> None:
    """RFC 5040 5.1: the token is looked at when the message is delivered, after it has been placed."""
    a, b = both
    b.qp.receive(b.mr[0:64])
    a.qp.send_and_invalidate(b"bad", b.mr.remote_token)
    assert one(b.cq).status is Status.INVALID_DEVICE_REQUEST
    assert bytes(b.mr.view[:3]) == b"bad"


@pytest.mark.rules("R-SENDINV-2")
def test_the_same_token_twice_ends_the_connection(both: Pair) -> None:
    a, b = both
    token = window(b).remote_token
    for number in range(2):
        b.qp.receive(b.mr[0:64], context=number)
    for _ in range(2):
        a.qp.send_and_invalidate(b"x", token)
    first, second = take(b.cq, 2)
    assert first.invalidated_token == token
    assert second.status is Status.INVALID_DEVICE_REQUEST
    assert triple(fault_of(b)) == CANNOT_INVALIDATE


@pytest.mark.rules("R-INV-3")
@pytest.mark.parametrize("kind", ["write", "read"])
def test_the_peer_that_uses_a_token_it_took_away_loses_the_connection(both: Pair, kind: str) -> None:
    a, b = both
    token = window(b).remote_token
    taken_back(both, token)
    if kind == "write":
        a.qp.write(b"x", b.mr.address, token)
        expected = (1, 1, 0)
    else:
        a.qp.read(a.mr[0:1], b.mr.address, token)
        expected = (0, 1, 0)
    assert triple(fault_of(b)) == expected


def test_a_write_before_it_in_the_queue_still_gets_through(both: Pair) -> None:
    """The natural use: write the data, then give the window back in the same breath."""
    a, b = both
    mw = window(b)
    b.qp.receive([])
    a.qp.write(b"the data", b.mr.address + 100, mw.remote_token, flags=OpFlag.DEFER)
    a.qp.send_and_invalidate([], mw.remote_token)
    assert one(b.cq).invalidated_token == mw.remote_token
    assert bytes(b.mr.view[100:108]) == b"the data"


@pytest.mark.rules("R-INV-3")
def test_a_read_in_progress_through_the_token_is_not_answered_from_dead_memory() -> None:
    """A fenced invalidation comes after the read; an unfenced one may kill the read, never corrupt it."""
    with raw_client(receives=1) as (peer, end):
        mw = window(end)
        peer.send_read_request(8, mw.remote_token, end.mr.address)
        peer.read_tagged(Opcode.READ_RESPONSE)
        peer.send_message(b"", Opcode.SEND_INVALIDATE, stag=mw.remote_token)
        assert one(end.cq).invalidated_token == mw.remote_token
        peer.send_read_request(8, mw.remote_token, end.mr.address)
        body = peer.read_terminate()
        assert (body.layer, body.etype, body.code) == (0, 1, 0)


def test_an_invalidation_in_a_message_without_a_receive_does_not_happen() -> None:
    with raw_client() as (peer, end):
        mw = window(end)
        peer.send_message(b"x", Opcode.SEND_INVALIDATE, stag=mw.remote_token)
        body = peer.read_terminate()
        assert (body.layer, body.etype, body.code) == (1, 2, 2)
        assert "invalid" not in repr(mw)


def test_an_invalidation_in_a_message_too_long_for_its_receive_does_not_happen() -> None:
    with raw_client(receives=1) as (peer, end):
        mw = window(end)
        peer.send_message(bytes(65), Opcode.SEND_INVALIDATE, stag=mw.remote_token)
        body = peer.read_terminate()
        assert (body.layer, body.etype, body.code) == (1, 2, 5)
        assert "invalid" not in repr(mw)


def test_a_terminate_is_the_last_thing_that_goes_out() -> None:
    with raw_client(receives=2) as (peer, end):
        peer.send_message(b"x", Opcode.SEND_INVALIDATE, stag=end.mr.remote_token)
        body = peer.read_terminate()  # and then FIN
        assert (body.layer, body.etype, body.code) == CANNOT_INVALIDATE
        assert body.segment_length == 19
        assert int.from_bytes(body.ddp_header[2:6], "big") == end.mr.remote_token


def test_only_one_of_the_initiators_own_requests_is_lost_to_the_fault(both: Pair) -> None:
    """What this side had under way comes back cancelled, with the fault as its cause."""
    a, b = both
    account = Ledger(b)
    account.receive()
    for _ in range(3):
        account.send(b"x", OpFlag.DEFER)
    a.qp.send_and_invalidate(b"bad", b.mr.remote_token)
    results = account.close_account()
    assert [r.status for r in initiators(results)] == [Status.CANCELLED] * 3
    for result in initiators(results):
        assert result.error is not None
        assert isinstance(result.error.__cause__, NdkError)
        assert result.error.__cause__.fault is not None
    assert contexts(receives(results)) == account.posted_receives


def test_a_region_registered_for_remote_access_is_still_no_target(both: Pair) -> None:
    a, b = both
    mr = b.pd.register_mr(bytearray(64), MrFlag.ALLOW_REMOTE_WRITE | MrFlag.ALLOW_REMOTE_READ)
    b.qp.receive(b.mr[0:64])
    a.qp.send_and_invalidate(b"bad", mr.remote_token)
    assert triple(fault_of(b)) == CANNOT_INVALIDATE
    assert (mr.length, bytes(mr.view[:1])) == (64, b"\0")  # it is as registered as before
