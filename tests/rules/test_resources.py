"""What happens when the machine has nothing left to give, and when a completion queue fails for another reason."""

import os
import resource
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import pytest

from softndk import CqNotify, InsufficientResources, InternalError, OperationType, Result, Status, open_adapter
from softndk.errors import error_for
from softndk.queues.completion import CompletionRing


@contextmanager
def no_descriptor_left() -> Iterator[None]:
    """Inside, no descriptor can be opened."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    taken: list[int] = []
    lowest = os.open(os.devnull, os.O_RDONLY)
    os.close(lowest)
    resource.setrlimit(resource.RLIMIT_NOFILE, (lowest + 16, hard))
    try:
        try:
            while True:
                taken.append(os.open(os.devnull, os.O_RDONLY))
        except OSError:
            pass
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
        for descriptor in taken:
            os.close(descriptor)


@pytest.mark.rules("R-CREATE-5", "R-CREATE-2")
def test_creations_that_need_a_descriptor_fail_with_insufficient_resources() -> None:
    with open_adapter() as adapter:
        listener = adapter.create_listener()
        before = adapter.open_objects
        calls: list[Callable[[], object]] = [
            lambda: adapter.create_shared_endpoint(("127.0.0.1", 0)),
            lambda: adapter.listen(),
            lambda: listener.listen(("127.0.0.1", 0)).result(0),
            open_adapter,
        ]
        with no_descriptor_left():
            for call in calls:
                with pytest.raises(InsufficientResources) as caught:
                    call()
                assert caught.value.status is Status.INSUFFICIENT_RESOURCES
        assert adapter.open_objects == before
        adapter.create_shared_endpoint(("127.0.0.1", 0))


@pytest.mark.rules("R-CONN-6")
def test_a_connect_that_needs_a_descriptor_fails_with_insufficient_resources() -> None:
    """The QP is as before, and may be given to a new connector."""
    with open_adapter() as adapter:
        cq = adapter.create_cq(2)
        qp = adapter.create_pd().create_qp(cq, cq, receive_queue_depth=1, initiator_queue_depth=1)
        listener = adapter.listen()
        connector = adapter.create_connector()
        with no_descriptor_left():
            error = connector.connect(qp, listener.local_address).exception(10)
        assert isinstance(error, InsufficientResources)
        assert error.status is Status.INSUFFICIENT_RESOURCES
        connector.close()
        again = adapter.create_connector()
        connecting = again.connect(qp, listener.local_address)
        assert listener.next_request().result(10).peer_address == again.local_address
        connecting.cancel()


@pytest.mark.rules("R-CQERR-2", "R-CQERR-3")
@pytest.mark.parametrize("kind", list(CqNotify))
def test_another_failure_of_a_queue_has_the_consequences_of_an_overrun(kind: CqNotify) -> None:
    fired: list[Status] = []
    told: list[str] = []
    ring = CompletionRing(4, fired.append, lambda: told.append("placed"))
    ring.on_overrun.append(lambda: told.append("QP told"))
    ring.push(Result(type=OperationType.SEND, request_context="before"))
    told.clear()
    ring.fail(Status.INTERNAL_ERROR)
    assert told == ["QP told", "placed"]
    assert fired == []
    ring.arm(kind)
    ring.arm(kind)
    assert fired == [Status.INTERNAL_ERROR]
    ring.push(Result(type=OperationType.SEND, request_context="after"))
    assert [result.request_context for result in ring.take(None)] == ["before"]
    ring.fail(Status.BUFFER_OVERFLOW)
    assert ring.status is Status.INTERNAL_ERROR
    assert isinstance(error_for(ring.status, ""), InternalError)
