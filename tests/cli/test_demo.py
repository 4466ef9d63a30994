"""`softndk demo`: what it claims happens, seen in its own account and by tshark on its capture."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.tshark_judge import HEURISTICS_FIRST, judge

RUNS = 3
TERMINATE_INVALID_STAG = [1, 1, 0]


def run_demo(*arguments: str) -> str:
    done = subprocess.run(
        [sys.executable, "-m", "softndk.cli", "demo", *arguments],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    return done.stdout


@pytest.fixture(scope="module")
def story(tmp_path_factory: pytest.TempPathFactory) -> tuple[dict[str, Any], Path]:
    """The demonstration's account of itself, and its capture."""
    capture = tmp_path_factory.mktemp("demo") / "demo.pcapng"
    account = json.loads(run_demo("--json", "--trace", str(capture)))
    assert isinstance(account, dict)
    return account, capture


def texts(account: dict[str, Any], side: str) -> list[str]:
    return [event["text"] for event in account["timeline"] if event["side"] == side]


def test_answer_by_plain_send_leaves_the_buffer_open_to_the_late_write(story: tuple[dict[str, Any], Path]) -> None:
    run = story[0]["runs"][0]
    assert not run["intact"]
    assert bytes.fromhex(run["before"]).startswith(b"NEW:")
    assert bytes.fromhex(run["after"]).startswith(b"answer to request 7")
    assert run["terminate"] is None


@pytest.mark.parametrize("number", [2, 3])
def test_dead_token_stops_the_late_write_with_a_terminate(story: tuple[dict[str, Any], Path], number: int) -> None:
    run = story[0]["runs"][number - 1]
    assert run["intact"]
    assert bytes.fromhex(run["after"]).startswith(b"NEW:")
    assert run["terminate"] == TERMINATE_INVALID_STAG
    assert "is not valid" in run["reason"]


def test_both_sides_print_why(story: tuple[dict[str, Any], Path]) -> None:
    account, _ = story
    ours = [text for text in texts(account, "client") if "this side ended the connection with Terminate 1/1/0" in text]
    theirs = [text for text in texts(account, "server") if "the peer ended the connection with Terminate 1/1/0" in text]
    assert len(ours) == len(theirs) == 2


def test_timeline_has_both_sides_in_order_of_time(story: tuple[dict[str, Any], Path]) -> None:
    times = [event["ms"] for event in story[0]["timeline"]]
    assert times == sorted(times)
    assert {event["side"] for event in story[0]["timeline"]} == {"client", "server"}


@pytest.mark.judge
def test_tshark_sees_the_whole_story_in_the_capture(story: tuple[dict[str, Any], Path]) -> None:
    verdict = judge(story[1], *HEURISTICS_FIRST)
    assert verdict.complaints == []
    assert set(verdict.crcs) == {"good"}
    assert verdict.names.count("MPA request") == verdict.names.count("MPA reply") == RUNS
    assert "Send with Invalidate" in verdict.names
    terminates = [operation for operation in verdict.operations if operation.name == "Terminate"]
    assert len(terminates) == 2
    for operation in terminates:
        before = verdict.operations[: verdict.operations.index(operation)]
        late = next(item for item in reversed(before) if item.name == "RDMA Write")
        stag = int(late.fields["iwarp_ddp.stag"], 16)
        echoed = operation.fields["iwarp_rdma.term_ddp_h"].replace(":", "")
        assert f"{stag:08x}" == echoed[4:12], "the Terminate echoes the late Write's token"
        codes = [
            operation.fields[f"iwarp_rdma.{name}"]
            for name in ("term_layer", "term_etype_ddp", "term_errcode_ddp_tagged")
        ]
        assert [int(code, 0) for code in codes] == TERMINATE_INVALID_STAG


def test_told_to_people_it_ends_with_a_timeline_and_the_path_of_the_capture(tmp_path: Path) -> None:
    capture = tmp_path / "story.pcapng"
    shown = run_demo("--trace", str(capture))
    assert shown.index("Run 1") < shown.index("DESTROYED") < shown.index("Run 2") < shown.index("Run 3")
    assert shown.count("INTACT") == 2
    assert shown.index("Timeline of both sides") > shown.rindex("INTACT")
    assert str(capture) in shown.splitlines()[-1]
    assert capture.stat().st_size > 0
