"""A machine without descriptors: nothing that works is harmed, nobody spins, and it is told."""

import sys

import pytest

from tests.attack.attack_tools import run_program

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="limits descriptors and reads /proc")

FULL = """
import logging, os, resource, socket, sys, time
import softndk
from softndk.testing import pair
sys.path.insert(0, ".")
from tests.attack.attack_tools import PATIENCE_S, mpa_request, raw_client, reply_on, until

logging.basicConfig(level=logging.WARNING, format="%(levelname)s %(message)s")

def full():
    held = []
    try:
        while True:
            held.append(os.open("/dev/null", os.O_RDONLY))
    except OSError:
        return held

resource.setrlimit(resource.RLIMIT_NOFILE, (200, resource.getrlimit(resource.RLIMIT_NOFILE)[1]))
with pair() as (a, b):
"""

RECOVERS = (
    FULL
    + """
    listener = b.adapter.listen()
    clients = [socket.socket() for _ in range(20)]
    held = full()
    for client in clients:
        client.connect(listener.local_address)
        client.sendall(mpa_request(b"patient"))
    used = time.process_time()
    for number in range(50):  # the connection that is there goes on as if nothing were
        b.qp.receive(b.mr[0:8])
        a.qp.send(number.to_bytes(8, "big"))
        b.cq.wait(PATIENCE_S)
        a.cq.wait(PATIENCE_S)
        assert bytes(b.mr.view[:8]) == number.to_bytes(8, "big")
    begun = time.monotonic()
    until(lambda: time.monotonic() - begun > 0.5)
    for fd in held:
        os.close(fd)
    for _ in clients:
        connector = listener.next_request().result(PATIENCE_S)
        assert connector.connection_data.private_data == b"patient"
        connector.reject()
    for client in clients:
        assert reply_on(client).reject
        client.close()
print("recovered")
"""
)

RESTS = (
    FULL
    + """
    question = socket.socket(socket.AF_UNIX)
    name = next(line.split("@")[1] for line in open("/proc/net/unix") if f"@softndk/{os.getuid()}/{os.getpid()}/" in line)
    held = full()
    question.connect("\\0" + name.strip())
    before = time.process_time()
    begun = time.monotonic()
    while time.monotonic() - begun < 1.0:
        time.sleep(0.05)
    print("busy" if time.process_time() - before > 0.1 else "at rest")
    for fd in held:
        os.close(fd)
    question.settimeout(PATIENCE_S)
    print("answered" if question.recv(1) == b"{" else "silent")
"""
)


def test_a_listener_without_descriptors_says_so_and_takes_everybody_later() -> None:
    done = run_program(RECOVERS)
    assert (done.returncode, done.stdout) == (0, "recovered\n"), done.stderr
    lines = done.stderr.splitlines()
    assert lines
    assert all("cannot accept now and tries again soon: Too many open files" in line for line in lines), done.stderr


def test_a_question_about_the_status_waits_until_there_is_a_descriptor() -> None:
    done = run_program(RESTS)
    assert (done.returncode, done.stdout, done.stderr) == (0, "at rest\nanswered\n", "")
