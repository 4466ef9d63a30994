"""Scenario files: what can be written, and that every mistake is told with file, line, step and field."""

import importlib
import socket
from pathlib import Path

import pytest

from softndk.peer import Kind, Peer, Reaction, Role, Scenario, ScenarioError, Verdict, load, play, shipped
from softndk.peer.vocabulary import BLOCKS, step_kinds
from tests.peer.ends import accept, judged

MODULE = importlib.import_module("softndk.peer.scenario")  # the package has a function of that name
HEAD = "title: t\nrule: RFC 1\nrequired: accepts\nsteps:\n"


def written(folder: Path, text: str, name: str = "mine.yaml") -> Path:
    path = folder / name
    path.write_text(text, encoding="utf-8")
    return path


def test_a_whole_file(tmp_path: Path) -> None:
    path = written(
        tmp_path,
        """\
# two documents
name: one
title: The first
rule: RFC 5040 4.8
why: because
roles: initiator
ulp: rping
required: [terminate 1/2/3, close]
allowed:
  terminate 0/2/ff: a reason
  terminate: ""
steps:
  - start
---
title: The second
rule: RFC 5041
roles: [initiator, responder]
required: reset
steps:
  - raw: hello
""",
    )
    one, two = load(path)
    assert (one.name, one.title, one.rule, one.why, one.rping) == ("one", "The first", "RFC 5040 4.8", "because", True)
    assert one.required == (Reaction(Kind.TERMINATE, (1, 2, 3)), Reaction(Kind.CLOSE))
    assert one.allowed == {Reaction(Kind.TERMINATE, (0, 2, 255)): "a reason", Reaction(Kind.TERMINATE): ""}
    assert one.roles == (Role.INITIATOR,)
    assert (two.name, two.roles) == ("mine", (Role.INITIATOR, Role.RESPONDER))


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("", "mine.yaml:1: there is no scenario in it"),
        ("steps: [", "mine.yaml:1: not YAML: "),
        ("a: b\n\tc: d", "mine.yaml:2: not YAML: "),
        ("just a text", "mine.yaml:1: a scenario must be a map"),
        ("title: t\nrule: r\nsteps: [start]", "mine.yaml:1: the scenario has no 'required'"),
        (HEAD + "  - start\nstep: 1", "mine.yaml:6: 'step' is not a key of a scenario; there are: name, title"),
        ("title: t\ntitle: t", "mine.yaml:2: 'title' stands here twice"),
        ("title: 7\nrule: r\nrequired: close\nsteps: [start]", "mine.yaml:1: title: 7 is not a text"),
        ("title: t\nrule: r\nrequired: explode\nsteps: [start]", "mine.yaml:3: required: 'explode' is no reaction"),
        ("title: t\nrule: r\nrequired: terminate 1/2\nsteps: [start]", "mine.yaml:3: required: 'terminate 1/2' is no"),
        (
            HEAD.replace("accepts", "close\nallowed: {reset: [1]}") + "  - start",
            "mine.yaml:4: allowed: [1] is not a reason",
        ),
        (
            HEAD.replace("accepts", "close\nroles: both") + "  - start",
            "roles: 'both' is not one of initiator, responder",
        ),
        (
            HEAD.replace("accepts", "close\nulp: smb") + "  - start",
            "mine.yaml:4: ulp: the one that is known here is 'rping'",
        ),
        (HEAD + "  start", "mine.yaml:5: steps must be a list"),
        (HEAD + "  - begin", "mine.yaml:5: step 1: 'begin' is not a step; there are: atomic_request, expect"),
        (HEAD + "  - start\n  - send:\n    payload: x", "mine.yaml:6: step 2 has 2 names (send, payload)"),
        (
            HEAD + "  - send: {mns: 1}",
            "mine.yaml:5: step 1 (send): 'mns' is not a field of it; there are: payload, solicited",
        ),
        (
            HEAD + "  - send: {msn: one}",
            "step 1 (send): msn: 'one' is not a number from 0 to 0xffffffff, or a variable",
        ),
        (HEAD + "  - send: {msn: true}", "step 1 (send): msn: True is not a number"),
        (HEAD + "  - send: {qn: 4294967296}", "step 1 (send): qn: 4294967296 is not a number from 0 to 0xffffffff"),
        (
            HEAD + "  - start\n  - write: {stag: $stag}",
            "mine.yaml:6: step 2 (write): stag: no step before captures $stag",
        ),
        (HEAD + "  - write: {stag: $ird * 2}", "step 1 (write): stag: '$ird * 2': '*' is not +, - or ^"),
        (
            HEAD + "  - write: {stag: $ird +}",
            "step 1 (write): stag: '$ird +': after '$ird +' must come $name or a number",
        ),
        (HEAD + "  - send: {payload: {hex: abc}}", "step 1 (send): payload: 'abc' is not hexadecimal"),
        (HEAD + "  - send: {payload: {base64: abc}}", "step 1 (send): payload: {'base64': 'abc'} is not a text"),
        (HEAD + "  - send: 99999999", "step 1 (send): payload: 99999999 octets, limit 16777216"),
        (HEAD + "  - send: {payload: -1}", "step 1 (send): payload: -1 octets"),
        (HEAD + "  - send: {bad_crc: 1}", "step 1 (send): bad_crc: 1 is not true or false"),
        (HEAD + "  - send: {split: 0}", "step 1 (send): split: 0 is not octets per piece"),
        (HEAD + "  - pause: long", "step 1 (pause): seconds: 'long' is not seconds, from 0 to 600"),
        (HEAD + "  - pause", "step 1 (pause): 'seconds' is missing; it is seconds, from 0 to 600"),
        (HEAD + "  - sync: 3", "step 1 (sync): takes named fields or nothing, not 3"),
        (HEAD + "  - expect: hello", "step 1 (expect): frame: 'hello' is not one of mpa_request, mpa_reply, write"),
        (HEAD + "  - expect: {frame: send, where: 3}", "step 1 (expect): where: 3 is not a map of fields"),
        (HEAD + "  - expect: {frame: send, capture: {A: msn}}", "capture: 'A' cannot be the name of a variable"),
        (
            HEAD + "  - expect: {frame: send, capture: {a: 3}}",
            "capture: 3 is neither a field nor a number in the payload",
        ),
        (
            HEAD + "  - expect: {frame: send, where: {msm: 1}}",
            "mine.yaml:5: step 1 (expect): where: 'msm' is not a field of send; there are: ",
        ),
        (HEAD + "  - expect: {frame: mpa_reply, where: {msn: 1}}", "'msn' is not a field of mpa_reply; there are: crc"),
        (
            HEAD + "  - expect: {frame: any, capture: {a: u32@1, b: sinkstag}}",
            "step 1 (expect): capture: 'sinkstag' is not a field of any",
        ),
        (
            HEAD + "  - together: {steps: [write, {repeat: {times: 2, steps: [sync]}}]}",
            "mine.yaml:5: step 1: 'sync' waits for an answer, but nothing goes out before 'together' ends",
        ),
        (HEAD + "  - start\n  -", "mine.yaml:6: step 2 is empty"),
        (f"name: two words\n{HEAD}  - start", "mine.yaml:1: name: 'two words' is more than one word"),
        (HEAD + "  - repeat: {times: 3}", "mine.yaml:5: step 1 (repeat): needs the field 'steps'"),
        (HEAD + "  - repeat: {steps: [start]}", "step 1 (repeat): 'times' is missing"),
        (HEAD + "  - repeat: {times: 3, steps: [start, nothing]}", "mine.yaml:5: step 2: 'nothing' is not a step"),
        (HEAD + "  - together", "step 1 (together): needs the field 'steps'"),
        (HEAD + "  - {1: 2}", "mine.yaml:5: 1 is not a name"),
        (HEAD + "  - send: {payload: 2026-99-99x}\n  - send: {payload: 2026-13-45}", "cannot be read as timestamp"),
        ("!!python/object/apply:os.system [id]", "mine.yaml:1: a scenario must be a map"),
        (HEAD + "  - send: !!python/name:os.system x", "mine.yaml:5: 'x' cannot be read as"),
        ("[" * 3000 + "]" * 3000, "values lie too deep inside each other"),
    ],
    ids=lambda value: value[:40] if isinstance(value, str) else None,
)
def test_a_mistake_is_told(tmp_path: Path, text: str, problem: str) -> None:
    with pytest.raises(ScenarioError) as failure:
        load(written(tmp_path, text))
    assert problem in str(failure.value).replace(f"{tmp_path}/", "")


def test_aliases_cannot_grow_without_bound(tmp_path: Path) -> None:
    parts = ["&a [1,1,1,1,1,1,1,1,1,1]"]
    parts += [f"&{chr(97 + level)} [{','.join([f'*{chr(96 + level)}'] * 10)}]" for level in range(1, 8)]
    with pytest.raises(ScenarioError, match="more than 100000 values"):
        load(written(tmp_path, HEAD + f"  - send: {{payload: [{', '.join(parts)}]}}\n"))


def nested(steps: str, *times: object) -> str:
    for count in times:
        steps = f"{{repeat: {{times: {count}, steps: [{steps}]}}}}"
    return f"  - start\n  - {steps}\n"


def test_the_steps_of_a_scenario_are_bounded(tmp_path: Path) -> None:
    """However deep `repeat` nests: the steps are counted as often as they are done, and told before anything is sent."""
    [one] = load(written(tmp_path, HEAD + nested("sync, write, send", 1000, 333)))
    assert one.name == "mine"
    for steps, count in (
        (nested("sync", 1000, 1000), 1000 * 1000 + 1),
        (nested("sync", 10_000, 10_000, 10_000), 10**12 + 1),
        (nested("{together: {steps: [write, write]}}", 10_000, 51), 2 * 510_000 + 1),
        (nested("sync", *[100_000] * 20), 10**18 + 1),  # a number of 100 digits would help nobody
        ("  - write\n" + nested("sync", 1000, 500) + nested("sync", 1000, 500), 1_000_003),
    ):
        with pytest.raises(ScenarioError) as failure:
            load(written(tmp_path, f"name: too-long\n{HEAD}{steps}"))
        problem = str(failure.value).replace(f"{tmp_path}/", "")
        assert problem.startswith(f"mine.yaml:5: scenario 'too-long': at least {count} steps, limit 1000000"), problem
        assert "repeat fewer times" in problem


def test_steps_of_variable_number_are_bounded_when_they_come(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """`times` of a variable is known only at run time; each play begins to count at 0."""
    [one] = load(written(tmp_path, HEAD + nested("{pause: 0}", "$ird", "$ord")))  # accept() says 16 and 16
    monkeypatch.setattr(MODULE, "MOST_STEPS", 257)
    for _ in range(2):
        assert judged(one, accept_and_stay).verdict is Verdict.REQUIRED
    monkeypatch.setattr(MODULE, "MOST_STEPS", 256)
    with pytest.raises(ScenarioError, match=r"mine.yaml:6: step 1 \(pause\): 257 steps, limit 256 for a scenario"):
        judged(one, accept_and_stay)


def accept_and_stay(peer: Peer) -> None:
    accept(peer)
    peer.wait_for_end()


def test_a_long_value_is_not_repeated_in_full(tmp_path: Path) -> None:
    with pytest.raises(ScenarioError) as failure:
        load(written(tmp_path, HEAD + f"  - send: {{msn: {'x' * 100_000}}}\n"))
    assert len(str(failure.value)) < 500


@pytest.mark.parametrize(
    ("name", "text", "problem"),
    [
        ("mine.txt", "", "mine.txt: a scenario's file ends in .yaml, .yml or .py"),
        ("mine.py", "x = 1", "mine.py: no scenario in it; put @scenario(...)"),
        ("mine.py", "x = (", "mine.py:1: '(' was never closed"),
        ("mine.py", "\n\nx = 1 / 0", "mine.py:3: ZeroDivisionError: division by zero"),
        (
            "mine.py",
            "from softndk.peer import scenario\n@scenario(title='t', rule='r', required='bang')\ndef f(peer): ...",
            "mine.py:2: ValueError: 'bang' is no reaction",
        ),
    ],
)
def test_a_wrong_file_is_told(tmp_path: Path, name: str, text: str, problem: str) -> None:
    with pytest.raises(ScenarioError) as failure:
        load(written(tmp_path, text, name))
    assert problem in str(failure.value).replace(f"{tmp_path}/", "")


def test_files_that_cannot_be_read(tmp_path: Path) -> None:
    with pytest.raises(ScenarioError, match="No such file"):
        load(tmp_path / "none.yaml")
    with pytest.raises(ScenarioError, match="there is no such file"):
        load(tmp_path / "none.py")
    (tmp_path / "bad.yaml").write_bytes(b"title: \xff")
    with pytest.raises(ScenarioError, match="octet 7 is not UTF-8"):
        load(tmp_path / "bad.yaml")
    (tmp_path / "big.yaml").write_bytes(b"#" * (1 << 20) + b"#")
    with pytest.raises(ScenarioError, match="longer than"):
        load(tmp_path / "big.yaml")


def test_variables_and_blocks_are_played(tmp_path: Path) -> None:
    """What is captured from one frame goes into the next ones, with sums; repeat and together nest."""
    path = written(
        tmp_path,
        HEAD
        + """\
  - start
  - expect: {frame: send, capture: {to: u64@0, stag: u32@8, size: u32@12, number: msn}}
  - together:
      split: [3]
      steps:
        - repeat:
            times: 2
            steps:
              - write: {stag: $stag ^ 0x100, to: $to + $size - 1, payload: [ab, {u16: $number}, {hex: "ff 00"}, {zeros: 2}]}
  - send: {payload: 300, segment: 200}
  - expect: send
""",
    )
    [one] = load(path)
    seen: list[object] = []

    def behave(peer: Peer) -> None:
        accept(peer)
        peer.send(bytes.fromhex("0000000000001000 00000342 00000040"))
        for _ in range(2):
            write = peer.expect("write")
            seen.append((write.number("stag"), write.number("to"), write.payload))
        first, second = peer.expect("send"), peer.expect("send")
        seen.append(
            (first.number("mo"), len(first.payload), second.number("mo"), second.payload, second.details["last"])
        )
        peer.send(b"done")
        peer.wait_for_end()

    outcome = judged(one, behave)
    assert outcome.verdict is Verdict.REQUIRED, outcome.text
    counting = bytes(number % 256 for number in range(300))
    assert seen == [
        *[(0x242, 0x1000 + 0x40 - 1, b"ab\x00\x01\xff\x00\x00\x00")] * 2,
        (0, 200, 200, counting[200:], True),
    ]


def test_a_mistake_at_run_time_is_told(tmp_path: Path) -> None:
    [one] = load(written(tmp_path, HEAD + "  - start\n  - expect: {frame: send, capture: {a: stag}}\n"))

    def behave(peer: Peer) -> None:
        accept(peer)
        peer.send(b"short")
        peer.wait_for_end()

    with pytest.raises(
        ScenarioError, match=r"mine.yaml:6: step 2 \(expect\): a Send has no number 'stag'; it has length"
    ):
        judged(one, behave)


def test_a_python_file(tmp_path: Path) -> None:
    path = written(
        tmp_path,
        """\
from softndk.peer import Peer, scenario


@scenario(title="ten octets", rule="RFC 5040", required="close", roles="initiator")
def ten_octets(peer: Peer) -> None:
    peer.start()
    length = len(peer.expect("send").payload)
    assert length == 10, length
""",
        "mine.py",
    )
    [one] = load(path)
    assert one.name == "ten-octets"

    def behave(octets: int) -> None:
        def stack(peer: Peer) -> None:
            accept(peer)
            peer.send(bytes(octets))

        outcome = judged(one, stack)
        assert outcome.verdict is Verdict.REQUIRED, outcome.text

    behave(10)
    with pytest.raises(ScenarioError, match=r"mine.py:8: AssertionError: 9"):
        behave(9)


def test_a_role_that_it_does_not_know() -> None:
    one = shipped()["mpa-bad-key"]
    assert one.roles == (Role.INITIATOR,)
    with pytest.raises(ValueError, match="cannot be played as responder"):
        one_side(one)


def one_side(one: Scenario) -> None:
    left, right = socket.socketpair()
    with left, right:
        play(one, left, Role.RESPONDER)


def test_every_step_is_described() -> None:
    """The table of steps is made of the methods: every field has a kind, every step a sentence."""
    kinds = step_kinds()
    assert {"start", "send", "write", "read_request", "read_response", "terminate", "expect", "fin", "raw"} <= set(
        kinds
    )
    for kind in (*kinds.values(), *BLOCKS.values()):
        assert kind.summary.endswith(".")
        for field in kind.fields.values():
            assert field.kind.text


def test_shipped_scenarios_are_shown_as_files(tmp_path: Path) -> None:
    """What `softndk peer show` prints can be played as a file."""
    for one in shipped().values():
        [again] = load(written(tmp_path, one.text))
        assert (again.name, again.required, dict(again.allowed)) == (one.name, one.required, dict(one.allowed))
