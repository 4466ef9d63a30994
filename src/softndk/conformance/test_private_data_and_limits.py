"""Private data and read limits: what each side is told, and what holds in the end."""

import pytest

from softndk import ConnectionInvalid, Connector, InvalidParameter, InvalidState, Pending, Status
from softndk.conformance.bench import PATIENCE_S, Bench, End, failure, refused, succeed
from softndk.conformance.providers import Side


class Meeting:
    """A request with given limits and private data, told to the passive side."""

    def __init__(
        self, bench: Bench, *, inbound: int | None = None, outbound: int | None = None, private_data: bytes = b""
    ) -> None:
        self.a, self.b = bench.end(), bench.end(side=Side.PASSIVE)
        self.listener = self.b.adapter.listen()
        self.connector = self.a.adapter.create_connector()
        self.connecting = self.connector.connect(
            self.a.qp,
            self.listener.local_address,
            inbound_read_limit=inbound,
            outbound_read_limit=outbound,
            private_data=private_data,
        )
        self.incoming = self.listener.next_request().result(PATIENCE_S)

    def accept(
        self, *, inbound: int | None = None, outbound: int | None = None, private_data: bytes = b""
    ) -> Pending[None]:
        """Accept, and let the connect be done."""
        accepting = self.incoming.accept(
            self.b.qp, inbound_read_limit=inbound, outbound_read_limit=outbound, private_data=private_data
        )
        self.connecting.result(PATIENCE_S)
        return accepting

    def finish(self, accepting: Pending[None]) -> tuple[End, End]:
        """Complete."""
        self.connector.complete_connect().result(PATIENCE_S)
        accepting.result(PATIENCE_S)
        return self.a, self.b


def told(connector: Connector) -> tuple[int, int]:
    """The limits in the connection data: inbound, outbound."""
    data = connector.connection_data
    return data.inbound_read_limit, data.outbound_read_limit


def check_data(bench: Bench, connector: Connector, sent: bytes) -> None:
    """The peer's private data came."""
    data = connector.connection_data.private_data
    assert data == sent if bench.provider.choices.exact_private_data else data.startswith(sent)


# ---- private data


@pytest.mark.rules("R-PDATA-1", "R-PDATA-2", "R-PDATA-3", "R-PDATA-4", "R-CDATA-2", "R-CDATA-3", "E-2", "R-QINFO-1")
@pytest.mark.parametrize("size", ["none", "one", "all"])
def test_private_data_up_to_the_maximum_gets_through_both_ways(bench: Bench, size: str) -> None:
    with bench.provider.open_adapter() as adapter:
        info = adapter.query_info()
    count = {"none": (0, 0), "one": (1, 1), "all": (info.max_caller_data, info.max_callee_data)}[size]
    caller = bytes(index % 255 + 1 for index in range(count[0]))
    callee = bytes(7 * index % 251 + 3 for index in range(count[1]))
    meeting = Meeting(bench, private_data=caller)
    check_data(bench, meeting.incoming, caller)
    accepting = meeting.accept(private_data=callee)
    check_data(bench, meeting.connector, callee)
    meeting.finish(accepting)


@pytest.mark.rules("R-PDATA-1")
def test_more_private_data_than_the_maximum_is_refused_in_the_call(bench: Bench) -> None:
    meeting = Meeting(bench)
    info = meeting.b.adapter.query_info()
    other = bench.end(meeting.a.adapter)
    too_much = bytes(info.max_callee_data + 1)
    for call in (
        lambda: other.adapter.create_connector().connect(
            other.qp, meeting.listener.local_address, private_data=bytes(info.max_caller_data + 1)
        ),
        lambda: meeting.incoming.accept(meeting.b.qp, private_data=too_much),
        lambda: meeting.incoming.reject(too_much),
    ):
        with refused(InvalidParameter, Status.INVALID_BUFFER_SIZE):
            call()
    meeting.finish(meeting.accept())


@pytest.mark.rules("A-8", "R-REJECT-1", "R-CDATA-2", "R-PDATA-3")
def test_the_private_data_of_a_rejection_is_there_after_the_refused_connect(bench: Bench) -> None:
    meeting = Meeting(bench)
    limit = meeting.b.adapter.query_info().max_callee_data
    reason = bytes(index % 255 + 1 for index in range(limit))
    meeting.incoming.reject(reason)
    error = failure(meeting.connecting)
    assert error.status is Status.CONNECTION_REFUSED
    assert error.private_data is not None
    assert error.private_data.startswith(reason)
    check_data(bench, meeting.connector, reason)


@pytest.mark.rules("A-8", "R-CDATA-3")
def test_the_connection_data_stays_until_the_close(bench: Bench) -> None:
    meeting = Meeting(bench, private_data=b"from the caller")
    for connector in (meeting.a.adapter.create_connector(), meeting.connector):
        with refused(ConnectionInvalid, Status.CONNECTION_INVALID):
            connector.connection_data  # noqa: B018
    a, b = meeting.finish(meeting.accept(private_data=b"from the callee"))
    check_data(bench, meeting.incoming, b"from the caller")
    check_data(bench, meeting.connector, b"from the callee")
    a.qp.flush()
    meeting.incoming.disconnected.result(PATIENCE_S)
    check_data(bench, meeting.incoming, b"from the caller")
    assert b.qp.connector is meeting.incoming


# ---- read limits


@pytest.mark.rules("R-LIM-5", "R-CDATA-2", "R-CDATA-4", "R-CONN-5")
@pytest.mark.parametrize(("inbound", "outbound"), [(3, 5), (0, 0), (1, 0), (1000, 1000)])
def test_before_the_accept_the_passive_side_is_told_what_was_asked_turned_round(
    bench: Bench, inbound: int, outbound: int
) -> None:
    meeting = Meeting(bench, inbound=inbound, outbound=outbound)
    info = meeting.b.adapter.query_info()
    expected = min(outbound, info.max_inbound_read_limit), min(inbound, info.max_outbound_read_limit)
    assert told(meeting.incoming) == expected


@pytest.mark.rules("R-LIM-1", "R-LIM-2", "R-LIM-3", "R-LIM-6", "R-CONN-5", "R-CDATA-4")
@pytest.mark.parametrize(
    ("active", "passive", "expected_active", "expected_passive"),
    [
        ((8, 8), (8, 8), (8, 8), (8, 8)),
        ((3, 5), (8, 8), (3, 5), (5, 3)),
        ((8, 8), (2, 4), (4, 2), (2, 4)),
        ((2, 6), (4, 4), (2, 4), (4, 2)),
        ((0, 8), (8, 8), (0, 8), (8, 0)),
        ((8, 8), (0, 0), (0, 0), (0, 0)),
    ],
)
def test_in_the_end_each_limit_is_the_least_of_all(
    bench: Bench,
    active: tuple[int, int],
    passive: tuple[int, int],
    expected_active: tuple[int, int],
    expected_passive: tuple[int, int],
) -> None:
    """Pairs are (inbound, outbound)."""
    meeting = Meeting(bench, inbound=active[0], outbound=active[1])
    accepting = meeting.accept(inbound=passive[0], outbound=passive[1])
    assert told(meeting.connector) == expected_active
    meeting.finish(accepting)
    assert told(meeting.connector) == expected_active
    assert told(meeting.incoming) == expected_passive


@pytest.mark.rules("R-LIM-3", "R-CONN-5", "R-QINFO-1")
def test_limits_above_the_adapters_are_lowered_without_a_word(bench: Bench) -> None:
    meeting = Meeting(bench, inbound=0xFFFFFFFF, outbound=0xFFFFFFFF)
    meeting.finish(meeting.accept(inbound=0xFFFFFFFF, outbound=0xFFFFFFFF))
    for connector, end in ((meeting.connector, meeting.a), (meeting.incoming, meeting.b)):
        info = end.adapter.query_info()
        inbound, outbound = told(connector)
        assert inbound <= info.max_inbound_read_limit
        assert outbound <= info.max_outbound_read_limit


@pytest.mark.rules("R-LIM-5", "R-LIM-6")
def test_the_passive_side_may_pass_on_what_it_was_told(bench: Bench) -> None:
    meeting = Meeting(bench, inbound=3, outbound=5)
    inbound, outbound = told(meeting.incoming)
    meeting.finish(meeting.accept(inbound=inbound, outbound=outbound))
    assert (told(meeting.incoming), told(meeting.connector)) == ((5, 3), (3, 5))


@pytest.mark.rules("R-LIM-7")
def test_limits_hold_for_each_queue_pair_by_itself(bench: Bench) -> None:
    a, b = bench.end(), bench.end(side=Side.PASSIVE)
    narrow = bench.connect(bench.sibling(a), bench.sibling(b), outbound_read_limit=1)
    wide = bench.connect(bench.sibling(a), bench.sibling(b), outbound_read_limit=4)
    assert told(narrow.a.connector)[1] == 1
    assert told(wide.a.connector)[1] == 4


@pytest.mark.rules("R-LIM-7", "R-LIM-4")
def test_a_queue_pair_without_reads_takes_none_from_its_neighbour(bench: Bench) -> None:
    a, b = bench.end(), bench.end(side=Side.PASSIVE)
    b.fill(b"readable")
    barred = bench.connect(bench.sibling(a), bench.sibling(b), outbound_read_limit=0)
    free = bench.connect(bench.sibling(a), bench.sibling(b), outbound_read_limit=4)
    with refused(InvalidState, Status.INVALID_DEVICE_REQUEST):
        barred.a.qp.read(barred.a.mr[0:8], b.mr.address, b.mr.remote_token)
    free.a.qp.read(free.a.mr[0:8], b.mr.address, b.mr.remote_token)
    succeed(free.a.cq)
    assert free.a.content(8) == b"readable"


@pytest.mark.rules("R-CONN-5", "R-LIM-3")
def test_a_limit_below_0_is_refused(bench: Bench) -> None:
    end = bench.end()
    with refused(InvalidParameter, Status.INVALID_PARAMETER):
        end.adapter.create_connector().connect(end.qp, bench.nobody(end.adapter), inbound_read_limit=-1)
