"""Time limits: the provider's own, and that it does not hurry the program."""

import pytest

from softndk import IoTimeout, Status
from softndk.conformance.bench import PATIENCE_S, Bench, Pair, failure, still_works
from softndk.conformance.providers import Side


@pytest.mark.rules("R-TIME-1", "R-CONN-3")
def test_a_connect_that_is_not_answered_times_out(bench: Bench) -> None:
    a, b = bench.end(bench.adapter(hurry=True)), bench.end(side=Side.PASSIVE)
    listener = b.adapter.listen()
    connecting = a.adapter.create_connector().connect(a.qp, listener.local_address)
    incoming = listener.next_request().result(PATIENCE_S)
    error = failure(connecting)
    assert (type(error), error.status) == (IoTimeout, Status.IO_TIMEOUT)
    assert failure(incoming.accept(b.qp)).status in {Status.CONNECTION_ABORTED, Status.CONNECTION_REFUSED}


@pytest.mark.rules("R-TIME-1", "R-ACCEPT-4", "R-IW-4")
def test_an_accept_that_is_not_completed_times_out(bench: Bench) -> None:
    a, b = bench.end(), bench.end(bench.adapter(Side.PASSIVE, hurry=True))
    listener = b.adapter.listen()
    connector = a.adapter.create_connector()
    connecting = connector.connect(a.qp, listener.local_address)
    accepting = listener.next_request().result(PATIENCE_S).accept(b.qp)
    connecting.result(PATIENCE_S)
    error = accepting.exception(PATIENCE_S)
    if error is None:
        pytest.skip("the transport has no word for the completion, so the accept does not wait for it (R-IW-4)")
    assert (type(error), failure(accepting).status) == (IoTimeout, Status.IO_TIMEOUT)


@pytest.mark.rules("R-TIME-2", "R-COMPCONN-3")
def test_the_own_adapter_does_not_time_its_program_out(bench: Bench) -> None:
    """Each waiting side's adapter has limits of a fraction of a second, and outlives those of a third connection.

    The time between connect event and accept, and between connect and complete, is the program's.
    """
    slow = bench.end(bench.adapter(Side.PASSIVE, hurry=True))
    a = bench.end()
    listener = slow.adapter.listen()
    connector = a.adapter.create_connector()
    connecting = connector.connect(a.qp, listener.local_address)
    incoming = listener.next_request().result(PATIENCE_S)

    hurried = bench.end(bench.adapter(hurry=True))
    patient = bench.end(side=Side.PASSIVE)
    other_listener = patient.adapter.listen()
    waiting = hurried.adapter.create_connector()
    answered = waiting.connect(hurried.qp, other_listener.local_address)
    accepting = other_listener.next_request().result(PATIENCE_S).accept(patient.qp)
    answered.result(PATIENCE_S)

    for adapter in (hurried.adapter, slow.adapter):  # a limit of each has certainly passed when this one has
        clock = bench.end(adapter)
        third = bench.end(side=Side.PASSIVE).adapter.listen()
        assert failure(adapter.connect(clock.qp, third.local_address)).status is Status.IO_TIMEOUT

    waiting.complete_connect().result(PATIENCE_S)
    accepting.result(PATIENCE_S)
    hurried._connector, patient._connector = waiting, patient.qp.connector
    still_works(Pair(hurried, patient))
    done = incoming.accept(slow.qp)
    connecting.result(PATIENCE_S)
    connector.complete_connect().result(PATIENCE_S)
    done.result(PATIENCE_S)
    a._connector, slow._connector = connector, incoming
    still_works(Pair(a, slow))
