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


CONFORMANCE = "src/softndk/conformance"
PROOFS = {
    Status.SUCCESS: f"{CONFORMANCE}/test_iwarp.py::test_a_send_that_is_too_large_for_the_receive_succeeds_at_the_sender",
    Status.BUFFER_OVERFLOW: f"{CONFORMANCE}/test_completion_and_arming.py"
    "::test_one_result_too_many_makes_the_queue_and_its_queue_pairs_unusable",
    Status.DEVICE_BUSY: f"{CONFORMANCE}/test_memory_objects.py::test_a_region_with_a_bound_window_cannot_be_deregistered",
    Status.NO_MORE_ENTRIES: f"{CONFORMANCE}/test_posting.py"
    "::test_a_full_queue_refuses_and_a_finished_request_makes_room",
    Status.ACCESS_VIOLATION: f"{CONFORMANCE}/test_memory_objects.py::test_after_deregistration_the_local_token_is_dead",
    Status.INVALID_HANDLE: f"{CONFORMANCE}/test_closing.py::test_an_object_that_is_closed_or_closing_takes_no_calls",
    Status.INVALID_PARAMETER: f"{CONFORMANCE}/test_completion_and_arming.py"
    "::test_the_depth_is_from_1_to_the_adapters_maximum",
    Status.INVALID_DEVICE_REQUEST: f"{CONFORMANCE}/test_fast_register.py"
    "::test_two_fast_registers_in_the_queue_fail_in_the_second_result",
    Status.INVALID_PARAMETER_MIX: f"{CONFORMANCE}/test_cq_resize_moderation.py"
    "::test_an_interval_and_a_count_without_limit_are_refused_together",
    Status.DATA_OVERRUN: f"{CONFORMANCE}/test_posting.py::test_more_sges_than_the_queue_takes_are_refused",
    Status.SHARING_VIOLATION: f"{CONFORMANCE}/test_listeners.py::test_an_address_in_use_is_a_sharing_violation",
    Status.INSUFFICIENT_RESOURCES: "tests/rules/test_resources.py"
    "::test_creations_that_need_a_descriptor_fail_with_insufficient_resources",
    Status.IO_TIMEOUT: f"{CONFORMANCE}/test_time_limits.py::test_a_connect_that_is_not_answered_times_out",
    Status.NOT_SUPPORTED: f"{CONFORMANCE}/test_objects.py::test_there_is_no_extension",
    Status.INTERNAL_ERROR: "tests/ndk/test_adapter_fault.py::TestRequests::test_each_completes_once_and_in_order",
    Status.CANCELLED: f"{CONFORMANCE}/test_closing.py::test_closing_a_queue_pair_flushes_it_and_its_results_stay",
    Status.REMOTE_RESOURCES: "tests/ndk/test_atomics.py::test_a_peer_without_rfc_7306",
    Status.INVALID_ADDRESS: f"{CONFORMANCE}/test_listeners.py::test_an_address_that_is_not_the_adapters_is_invalid",
    Status.INVALID_DEVICE_STATE: f"{CONFORMANCE}/test_listeners.py::test_a_listener_listens_once",
    Status.INVALID_BUFFER_SIZE: f"{CONFORMANCE}/test_private_data_and_limits.py"
    "::test_more_private_data_than_the_maximum_is_refused_in_the_call",
    Status.TOO_MANY_ADDRESSES: "tests/unit/iwarp/test_connection_startup.py::TestEnds::test_no_port_is_left",
    Status.ADDRESS_ALREADY_EXISTS: f"{CONFORMANCE}/test_shared_endpoints.py"
    "::test_the_same_destination_again_exists_already_until_the_first_connector_is_closed",
    Status.CONNECTION_DISCONNECTED: "tests/unit/iwarp/test_connection_disconnect.py"
    "::TestGracefulDisconnect::test_a_cancelled_request_names_the_disconnect",
    Status.CONNECTION_RESET: "tests/ndk/test_last_words.py::test_a_reset_behind_a_held_message_is_a_reset",
    Status.CONNECTION_REFUSED: f"{CONFORMANCE}/test_connections.py"
    "::test_with_nobody_listening_the_connect_is_refused_and_the_queue_pair_is_as_before",
    Status.CONNECTION_INVALID: f"{CONFORMANCE}/test_disconnect.py::test_a_second_disconnect_is_refused",
    Status.CONNECTION_ACTIVE: f"{CONFORMANCE}/test_posting.py::test_a_queue_pair_has_one_connection_in_its_life",
    Status.NETWORK_UNREACHABLE: "tests/unit/iwarp/test_connection_startup.py::TestEnds::test_tcp_does_not_come_up",
    Status.HOST_UNREACHABLE: "tests/unit/iwarp/test_connection_startup.py::TestEnds::test_tcp_does_not_come_up",
    Status.CONNECTION_ABORTED: f"{CONFORMANCE}/test_disconnect.py"
    "::test_a_disconnect_that_the_peer_answers_by_a_failure_is_aborted",
    Status.DEVICE_REMOVED: "tests/ndk/test_adapter_fault.py"
    "::TestLater::test_what_needs_a_working_adapter_says_that_there_is_none",
    Status.IMPLEMENTATION_LIMIT: f"{CONFORMANCE}/test_fast_register.py"
    "::test_the_page_count_of_the_adapter_is_the_limit",
    Status.NDIS_BAD_VERSION: "tests/ndk/test_objects.py::test_a_version_that_is_not_offered_is_bad_version",
}
"""Of each status a test that asserts it: of an exception, of a result, or of a queue."""


def test_every_status_has_a_proof_or_a_reason() -> None:
    assert set(PROOFS) | set(NEVER) == set(Status)
    assert not set(PROOFS) & set(NEVER)


@pytest.mark.parametrize("status", PROOFS, ids=lambda status: status.name)
def test_the_proof_asserts_the_status(status: Status) -> None:
    """It is there, and what it asserts would fail with any other status."""
    name = PROOFS[status]
    assert status.name in asserted_by(definition_of(name)), f"{name} does not assert Status.{status.name}"


def definition_of(name: str) -> ast.FunctionDef:
    """The definition of the test "path::Class::function"."""
    path, *parts = name.split("::")
    place: ast.Module | ast.ClassDef = ast.parse((ROOT / path).read_text(encoding="utf-8"))
    for part in parts:
        found = [item for item in place.body if getattr(item, "name", None) == part]
        assert len(found) == 1, f"{name}: there is no {part}"
        if isinstance(found[0], ast.FunctionDef):
            return found[0]
        assert isinstance(found[0], ast.ClassDef), name
        place = found[0]
    raise AssertionError(f"{name} names no test")


def asserted_by(test: ast.FunctionDef) -> set[str]:
    """Names of statuses that the test compares with (`is`, `==`) in an `assert`, or gives to `refused`; also by a parameter
    that has them. A status that may be one of several (`in`), or must not be (`is not`), is not asserted.
    """
    compared: list[ast.expr] = []
    for node in ast.walk(test):
        if isinstance(node, ast.Assert):
            for inner in ast.walk(node.test):
                if isinstance(inner, ast.Compare) and all(isinstance(op, (ast.Is, ast.Eq)) for op in inner.ops):
                    compared += [inner.left, *inner.comparators]
        elif isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "refused":
            compared += node.args
    used = {node.id for part in compared for node in ast.walk(part) if isinstance(node, ast.Name)}
    for decorator in test.decorator_list:
        if isinstance(decorator, ast.Call) and ast.unparse(decorator.func) == "pytest.mark.parametrize":
            names = {str(node.value) for node in ast.walk(decorator.args[0]) if isinstance(node, ast.Constant)}
            if names & used:
                compared.append(decorator.args[1])
    return {
        node.attr
        for part in compared
        for node in ast.walk(part)
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id == "Status"
    }


@pytest.mark.parametrize(
    ("body", "asserted"),
    [
        ("assert error.status is Status.CANCELLED", {"CANCELLED"}),
        ("assert results == [('R', Status.CANCELLED), ('S', Status.SUCCESS)]", {"CANCELLED", "SUCCESS"}),
        ("with refused(Refused, Status.CONNECTION_REFUSED):\n        connect()", {"CONNECTION_REFUSED"}),
        ("assert error.status is not Status.CANCELLED", set()),
        ("assert error.status in (Status.CANCELLED, Status.SUCCESS)", set()),
        ("queue.fail(Status.CANCELLED)", set()),
        ("expected = Status.CANCELLED", set()),
    ],
)
def test_what_asserts_a_status(body: str, asserted: set[str]) -> None:
    (test,) = ast.parse(f"def test():\n    {body}").body
    assert isinstance(test, ast.FunctionDef)
    assert asserted_by(test) == asserted


def test_what_asserts_a_status_by_a_parameter() -> None:
    head = "@pytest.mark.parametrize('status', [Status.CANCELLED])\ndef test(status):\n    "
    for body, asserted in (("assert error.status is status", {"CANCELLED"}), ("queue.fail(status)", set[str]())):
        (test,) = ast.parse(head + body).body
        assert isinstance(test, ast.FunctionDef)
        assert asserted_by(test) == asserted


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
