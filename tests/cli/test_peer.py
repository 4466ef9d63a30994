"""`softndk peer` as a program: its output, its files, its exit status."""

import json
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from softndk.peer import Role, shipped
from softndk.trace import read_frames
from tests.cli.processes import COMMAND, environment, run, server, started


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port: int = listener.getsockname()[1]
        return port


def test_list() -> None:
    done = run("peer", "list")
    assert done.returncode == 0
    lines = done.stdout.splitlines()
    assert len(lines) == len(shipped())
    [line] = [line for line in lines if line.startswith("wrong-msn ")]
    assert line.split()[1] == "IR"
    assert "RFC 5041 5.3 and 8.2; error table row 11" in line


def test_list_json() -> None:
    found = [json.loads(line) for line in run("peer", "list", "--json").stdout.splitlines()]
    assert [one["name"] for one in found] == list(shipped())
    [one] = [one for one in found if one["name"] == "bad-crc"]
    assert one["required"] == ["terminate 2/0/2"]
    assert one["roles"] == ["initiator", "responder"]


def test_show_and_play_it(tmp_path: Path) -> None:
    shown = run("peer", "show", "wrong-msn").stdout
    path = tmp_path / "mine.yaml"
    path.write_text(shown.replace("name: wrong-msn", "name: mine"), encoding="utf-8")
    with server("--rping", "--port", 0) as (_, target):
        done = run("peer", "run", path, target)
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines() == ["as required  mine  Terminate 1/2/3", "1 scenario: 1 as required"]


def test_steps() -> None:
    assert "read_request" in run("peer", "steps").stdout
    fields = run("peer", "steps", "send").stdout
    assert "bad_crc" in fields
    assert "a number from 0 to 0xffffffff" in fields


def test_verbose_and_trace(tmp_path: Path) -> None:
    """-v shows every frame, and the capture has the same ones."""
    capture = tmp_path / "peer.pcapng"
    with server("--rping", "--port", 0) as (_, target):
        done = run("peer", "run", "bad-crc", "wrong-msn", target, "-v", "--trace", capture)
    assert done.returncode == 0, done.stderr
    assert "> RDMA Write" in done.stdout
    assert "[BAD CRC]" in done.stdout
    assert "< Terminate                  MPA error: FPDU CRC mismatch (2/0/2) L" in done.stdout
    frames = list(read_frames(capture))
    assert {frame.stream for frame in frames} == {0, 1}
    assert [frame.crc_ok for frame in frames if frame.kind == "RDMA Write"] == [False]
    assert [frame.kind for frame in frames].count("Terminate") == 2


def test_json() -> None:
    with server("--rping", "--port", 0) as (_, target):
        done = run("peer", "run", "bad-crc", "zero-length", target, "--json")
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert (found["target"], found["role"], found["good"]) == (target, "initiator", True)
    assert found["verdicts"]["as required"] == 2
    first, second = found["outcomes"]
    assert set(first) == {
        "scenario", "title", "rule", "role", "verdict", "good", "reaction", "required", "allowed", "text", "form",
        "notes", "seconds", "frames",
    }  # fmt: skip
    assert (first["reaction"], first["verdict"]) == ("terminate 2/0/2", "as required")
    assert second["reaction"] == "accepts"
    assert [frame["frame"] for frame in first["frames"]][:3] == ["mpa_request", "mpa_reply", "write"]


WRONG = """\
name: too-strict
title: A good write
rule: RFC 5040 4.4
required: terminate 1/2/3
steps:
  - start
  - write
  - fin
"""


def test_a_difference_is_exit_status_1(tmp_path: Path) -> None:
    path = tmp_path / "wrong.yaml"
    path.write_text(WRONG, encoding="utf-8")
    with server("--rping", "--port", 0) as (_, target):
        done = run("peer", "run", path, "bad-crc", target)
    assert done.returncode == 1
    assert "DIFFERENT    too-strict  got closed TCP; RFC 5040 4.4 says terminate 1/2/3" in done.stdout
    assert done.stdout.splitlines()[-1] == "2 scenarios: 1 as required, 1 DIFFERENT"


def test_a_python_scenario(tmp_path: Path) -> None:
    path = tmp_path / "mine.py"
    path.write_text(
        "from softndk.peer import scenario\n\n"
        "@scenario(title='t', rule='r', required='terminate 1/2/4')\n"
        "def offset(peer):\n    peer.start()\n    peer.send(b'x', mo=8)\n",
        encoding="utf-8",
    )
    with server("--rping", "--port", 0) as (_, target):
        done = run("peer", "run", path, target)
    assert (done.returncode, done.stdout.splitlines()[0]) == (0, "as required  offset  Terminate 1/2/4")


def test_listen() -> None:
    """The other side is started anew for each scenario."""
    client = f"{' '.join(COMMAND)} ping --rping {{host}}:{{port}} --count 1"
    done = run("peer", "run", "--listen", free_port(), "--rping", "--start", client, "bad-crc", "region-write-beyond")
    assert done.returncode == 0, done.stdout
    lines = done.stdout.splitlines()
    assert lines[0].startswith("listening on 127.0.0.1:")
    assert lines[0].endswith("for 2 connections")
    assert lines[1:] == [
        "as required  bad-crc              Terminate 2/0/2",
        "as required  region-write-beyond  Terminate 1/1/1",
        "2 scenarios: 2 as required",
    ]


def test_listen_for_a_client_that_comes_by_itself() -> None:
    with started("peer", "run", "--listen", "127.0.0.1:0", "wrong-mo", "--json") as process:
        target = json.loads(process.wait_for("listening"))["listening"]
        client = run("ping", "--rping", target, "--count", 1)
        assert client.returncode == 1
        assert process.end() == 0
    assert process.result()["outcomes"][0]["role"] == Role.RESPONDER.value


@pytest.mark.parametrize("listen", [True, False])
@pytest.mark.parametrize(
    ("says", "told"), [("cannot load the key; ", "cannot load the key"), ("", "(it printed nothing)")]
)
def test_a_program_that_fails_at_once_is_told_with_its_last_words(listen: bool, says: str, told: str) -> None:
    """Not after the 30 s of --wait only, and not as if nobody had tried."""
    words = f"echo starting; echo; echo {says}echo >&2; exit 7" if says else "exit 7"
    place = ("--listen", free_port()) if listen else (f"127.0.0.1:{free_port()}",)
    done = run("peer", "run", "bad-crc", *place, "--start", f"sh -c '{words}'")
    assert done.returncode == 2
    assert done.stderr == f"softndk peer: the program of --start has ended with status 7: {told}\n"


def test_a_server_that_is_started_for_each_scenario() -> None:
    port = free_port()
    command = f"{' '.join(COMMAND)} ping --rping --server --once --bind {{host}} --port {{port}}"
    done = run("peer", "run", "bad-crc", "wrong-qn", f"127.0.0.1:{port}", "--start", command)
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize(
    ("arguments", "problem"),
    [
        (("127.0.0.1:1",), "name a scenario (or all) and HOST:PORT, or --listen"),
        (("bad-crc", "nowhere"), "'nowhere' has no port; write HOST:PORT"),
        (("bad-crcs", "127.0.0.1:1"), "'bad-crcs' is neither a scenario of softndk peer list nor a .yaml or .py file"),
        (("none.yaml", "127.0.0.1:1"), "none.yaml: No such file or directory"),
        (("mpa-reply-rejects", "127.0.0.1:1"), "mpa-reply-rejects is played by the responder: with --listen"),
        (("--listen", "0", "mpa-bad-key"), "mpa-bad-key is played by the initiator: without --listen"),
        (
            ("rping-client", "127.0.0.1:1"),
            "rping-client needs a side that speaks rping's protocol; say so with --rping",
        ),
        (("--listen", "70000", "bad-crc"), "'70000' is not a port, 0 to 65535"),
        (("bad-crc", "127.0.0.1:1", "--start", "'"), "--start: No closing quotation"),
        (("bad-crc", "127.0.0.1:1", "--start", "/no/such/program"), "--start: "),
    ],
)
def test_wrong_usage(arguments: tuple[str, ...], problem: str) -> None:
    done = run("peer", "run", *arguments)
    assert done.returncode == 2
    assert problem in done.stderr


def test_a_mistake_in_a_file(tmp_path: Path) -> None:
    path = tmp_path / "wrong.yaml"
    path.write_text(WRONG.replace("- write", "- wrte"), encoding="utf-8")
    done = run("peer", "run", path, "127.0.0.1:1")
    assert done.returncode == 2
    assert "wrong.yaml:7: step 2: 'wrte' is not a step; there are: atomic_request, expect" in done.stderr


def test_nobody_listens() -> None:
    port = free_port()
    done = run("peer", "run", "bad-crc", f"127.0.0.1:{port}", "--wait", "0.2")
    assert done.returncode == 2
    assert f"softndk peer: 127.0.0.1:{port}: Connection refused for 0.2 s (--wait)" in done.stderr


def test_nobody_connects() -> None:
    done = run("peer", "run", "--listen", "0", "bad-crc", "--wait", "0.2")
    assert done.returncode == 2
    assert "nobody has connected for 0.2 s (--wait)" in done.stderr


def test_unknown_names() -> None:
    assert "softndk peer list names them" in run("peer", "show", "nothing").stderr
    assert "'nothing' is not a step; there are: start" in run("peer", "steps", "nothing").stderr


def test_a_silent_side_costs_the_time_limit_only() -> None:
    """It accepts TCP and says nothing."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        target = f"127.0.0.1:{listener.getsockname()[1]}"
        done = run("peer", "run", "zero-length", "wrong-msn", target, "--timeout", "0.3")
    assert done.returncode == 1
    assert "DIFFERENT    zero-length  got no MPA Reply within 0.3 s" in done.stdout
    assert "NOT REACHED  wrong-msn    no MPA Reply within 0.3 s" in done.stdout


def test_the_command_needs_no_test_tools() -> None:
    """Scenarios, YAML and all come with a plain installation."""
    code = (
        "import sys, softndk.cli.peer, softndk.peer;"
        "assert len(softndk.peer.shipped()) > 60;"
        "bad = {'pytest', 'hypothesis', 'numpy', 'trio'} & set(sys.modules); assert not bad, bad"
    )
    done = subprocess.run([sys.executable, "-c", code], env=environment(), capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
