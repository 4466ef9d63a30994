"""`softndk status`: what another process of the same user sees of a running one."""

import json
import os
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any

import pytest

import softndk
from softndk.drivers.status import ask
from softndk.ndk.incidents import INCIDENTS_KEPT
from softndk.testing import fail_adapter, pair
from tests.ndk.raw_peer import raw_client as raw_initiator
from tests.stopped_process import stop

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="softndk status needs Linux")


def run_status(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "softndk.cli", "status", *arguments],
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )


def answers() -> list[dict[str, Any]]:
    """What the command says of this very process, one object per adapter."""
    done = run_status(str(os.getpid()), "--json")
    assert done.returncode == 0, done.stderr
    return [json.loads(line) for line in done.stdout.splitlines()]


def test_connections_of_both_adapters_are_told_with_addresses_state_and_owner() -> None:
    with pair() as (a, b):
        told = {tuple(entry["local"]): entry for answer in answers() for entry in answer["connections"]}
        for end in (a, b):
            entry = told[end.connector.local_address]
            assert tuple(entry["remote"]) == end.connector.peer_address
            assert entry["state"] == "connected"
            assert entry["owner_pid"] == os.getpid()
            assert entry["qp"] == end.qp.name


def test_adapters_of_one_process_are_told_apart() -> None:
    with pair() as (a, b):
        of_connector = {
            tuple(entry["local"]): answer["adapter"] for answer in answers() for entry in answer["connections"]
        }
        assert a.adapter.name != b.adapter.name
        for end in (a, b):
            assert of_connector[end.connector.local_address] == end.adapter.name
        printed = run_status(str(os.getpid())).stdout
        for end in (a, b):
            assert f"process {os.getpid()}, {end.adapter.name} on 127.0.0.1" in printed


def test_statistics_are_those_that_the_process_itself_sees() -> None:
    with pair() as (a, b):
        for here, there in ((a, b), (b, a)):  # both ways, or a side that has heard nothing may send more meanwhile
            there.qp.receive(there.mr[0:64])
            here.qp.send(b"x" * 64)
            here.cq.wait(10)
            there.cq.wait(10)
        seen = [answer["statistics"] for answer in answers()]
        for end in (a, b):
            own = end.adapter.query_statistics()
            assert any(item["rdma_in_octets"] == own.rdma_in_octets and item["connect"] == own.connect for item in seen)


def test_listeners_and_shared_endpoints_are_endpoints() -> None:
    with softndk.open_adapter() as adapter:
        listener = adapter.listen()
        endpoint = adapter.create_shared_endpoint(("127.0.0.1", 0))
        (answer,) = answers()
        kinds = {tuple(entry["local"]): entry["listener"] for entry in answer["endpoints"]}
        assert kinds == {listener.local_address: True, endpoint.local_address: False}
        assert [item.local for item in adapter.query_local_endpoints() if item.listener] == [listener.local_address]


def test_the_last_incidents_are_told_with_reason_and_peer_though_nobody_has_set_up_a_log() -> None:
    with raw_initiator() as (peer, end):
        host, port = peer.sock.getsockname()
        peer.send_write(0xDEADBE01, 0, b"x")
        peer.read_terminate()
        error = end.connector.disconnected.result(10).error
        (answer,) = answers()
        (incident,) = answer["incidents"]
        assert incident["text"] == str(error)
        assert f" from {host}:{port}: " in incident["text"]
        assert incident["seconds_ago"] >= 0
        assert str(error) in run_status(str(os.getpid())).stdout


def test_of_many_incidents_the_last_ones_are_kept() -> None:
    with softndk.open_adapter() as adapter:
        adapter.listen()
        with adapter._lock:
            for number in range(INCIDENTS_KEPT + 5):
                adapter._context.incidents.tell(f"incident {number}")
        (answer,) = answers()
        assert [incident["text"] for incident in answer["incidents"]] == [
            f"incident {number}" for number in range(5, INCIDENTS_KEPT + 5)
        ]


def test_an_adapter_that_has_failed_says_so_and_why() -> None:
    with pair() as (a, _):
        fail_adapter(a.adapter, why="it got too hot")
        well, failed = sorted(answer["failure"] or "" for answer in answers())
        assert (well, "it got too hot" in failed) == ("", True)
        assert "it got too hot" in " ".join(run_status(str(os.getpid())).stdout.split())


def test_a_closed_adapter_is_not_told_any_more() -> None:
    with softndk.open_adapter() as adapter:
        adapter.listen()
    done = run_status(str(os.getpid()))
    assert done.returncode == 1
    assert str(os.getpid()) in done.stderr


@contextmanager
def impostor(said: bytes, *, user: int | None = None) -> Iterator[None]:
    """Something that has the name of an adapter of this process, and says `said`. user: whose it claims to be."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as taken:
        taken.bind(f"\0softndk/{os.getuid() if user is None else user}/{os.getpid()}/900001")
        taken.listen(1)

        def answer() -> None:
            with suppress(OSError):  # nobody has asked, or who asked has gone again
                asking, _ = taken.accept()
                with asking:
                    asking.sendall(said)

        thread = threading.Thread(target=answer, daemon=True)
        thread.start()
        yield
        taken.shutdown(socket.SHUT_RDWR)
        thread.join(10)


@pytest.mark.parametrize("said", [b"", b'{"pid": 1', b"[]", b'{"pid": 1}', b"\xff\xfe"])
def test_an_answer_that_is_none_is_told_in_a_line_and_the_others_are_shown(said: bytes) -> None:
    with impostor(said):
        alone = run_status(str(os.getpid()))
    assert alone.returncode == 1
    assert "Traceback" not in alone.stderr
    assert f"process {os.getpid()}" in alone.stderr
    with softndk.open_adapter() as adapter, impostor(said):
        adapter.listen()
        done = run_status(str(os.getpid()), "--json")
    assert done.returncode == 0
    assert [json.loads(line)["pid"] for line in done.stdout.splitlines()] == [os.getpid()]
    assert f"process {os.getpid()}" in done.stderr


def test_a_name_that_another_user_has_taken_is_not_believed() -> None:
    other = os.getuid() + 1
    with impostor(b"{}", user=other), pytest.raises(PermissionError, match=f"user {os.getuid()}, not to user {other}"):
        ask(f"\0softndk/{other}/{os.getpid()}/900001")


def test_a_process_that_is_stopped_is_told() -> None:
    program = "import softndk, sys; a = softndk.open_adapter(); a.listen(); print('up', flush=True); sys.stdin.read()"
    with subprocess.Popen([sys.executable, "-c", program], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"up\n"
        stop(process)
        try:
            done = run_status(str(process.pid))
        finally:
            process.send_signal(signal.SIGCONT)
            process.kill()
    assert done.returncode == 1
    assert f"process {process.pid} does not answer within" in done.stderr
    assert "no process" not in done.stdout


def test_for_people_it_prints_tables() -> None:
    with pair() as (a, _):
        done = run_status(str(os.getpid()), "--objects")
        assert done.returncode == 0
        host, port = a.connector.local_address
        assert f"{host}:{port}" in done.stdout
        assert "rdma in octets" in done.stdout
        assert repr(a.cq).split()[1] in done.stdout
