"""Every status of NDKPI is raised or completed where the rules say so: some test asserts it, or it has no place here."""

import ast
from pathlib import Path

import pytest

from softndk import NdkError, Status, Unreachable, open_adapter
from softndk.errors import error_for

ROOT = Path(__file__).parents[2]

NEVER = {
    Status.TIMEOUT: "of the user-mode interface; an expired wait is Python's TimeoutError",
    Status.PENDING: "a Pending stands for it",
    Status.UNSUCCESSFUL: "of the user-mode interface, for what has no better name",
    Status.NO_MEMORY: "Python's MemoryError",
    Status.BUFFER_TOO_SMALL: "no call fills a buffer of the program's",
    Status.DATA_ERROR: "InfiniBand's status of a send whose receive was too small",
    Status.DEVICE_NOT_READY: "an address whose interface has gone between two system calls",
    Status.NDIS_ADAPTER_NOT_READY: "there is no NDK function to switch off (R-OPEN-7)",
    **{
        status: "of the user-mode interface, which numbers the parameter at fault; the message names it here"
        for status in Status
        if status.name.startswith("INVALID_PARAMETER_") and status is not Status.INVALID_PARAMETER_MIX
    },
}


def asserted() -> set[Status]:
    """Statuses that some test names."""
    found: set[str] = set()
    for folder in ("src/softndk/conformance", "tests"):
        for path in (ROOT / folder).rglob("test_*.py"):
            if path.samefile(__file__):
                continue
            for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
                if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id == "Status":
                    found.add(node.attr)
    return {Status[name] for name in found if name in Status.__members__}


def test_every_status_has_a_test_or_a_reason() -> None:
    assert asserted() | set(NEVER) == set(Status)


@pytest.mark.rules("R-CONN-3", "R-CONN-6")
def test_a_destination_without_a_route_is_unreachable() -> None:
    with open_adapter() as adapter:
        cq = adapter.create_cq(1)
        qp = adapter.create_pd().create_qp(cq, cq, receive_queue_depth=1, initiator_queue_depth=1)
        error = adapter.create_connector().connect(qp, ("255.255.255.255", 5000)).exception(10)
        assert isinstance(error, Unreachable)
        assert error.status in {Status.NETWORK_UNREACHABLE, Status.HOST_UNREACHABLE}


@pytest.mark.parametrize("status", [status for status in Status if not status.is_success], ids=lambda item: item.name)
def test_every_failing_status_has_its_exception(status: Status) -> None:
    error = error_for(status, "text")
    assert type(error) is not NdkError
    assert error.status is status
