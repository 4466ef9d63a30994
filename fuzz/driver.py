"""Runs targets for a given time, one after the other, and says what came of it.

With atheris each target runs in a process of its own (fuzz.worker) and is guided by coverage; without it, random changes of
the kept inputs are run in this process.
"""

import os
import random
import re
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from importlib.util import find_spec
from pathlib import Path
from typing import Final

from fuzz import corpus
from fuzz.records import mutate
from fuzz.signatures import signature
from fuzz.targets import TARGETS, Target

__all__ = ["Outcome", "keep", "run", "show_table"]

ROOT: Final = Path(__file__).parent.parent
WORK: Final = ROOT / ".fuzz"
"""Inputs found and findings, kept from one run to the next; not in the repository."""
MAX_FINDINGS: Final = 20
"""A target with more different findings is given up."""
INPUT_LIMIT_S: Final = 20
MEMORY_LIMIT_MB: Final = 2000
_STATUS: Final = re.compile(r"^#(\d+)\s+(\w+).*? cov: (\d+) ft: (\d+) corp: (\d+)/\S+.*? exec/s: (\d+) rss: (\d+)Mb")
_DONE: Final = re.compile(r"^stat::number_of_executed_units: (\d+)")
_PLAIN_DONE: Final = re.compile(r"^Done (\d+) runs")
_ARTIFACT: Final = re.compile(r"Test unit written to (\S+)")


@dataclass
class Outcome:
    """What a run of one target has come to. `edges`, `features`: atheris' coverage of softndk; None without it."""

    target: str
    seconds: float = 0.0
    executions: int = 0
    edges: int | None = None
    features: int | None = None
    new_inputs: int = 0
    findings: list[tuple[str, Path]] = field(default_factory=list)
    """Signature of each different failure, and the input that shows it."""

    def as_dict(self) -> dict[str, object]:
        """All of it, in types that JSON knows."""
        return {**vars(self), "findings": [{"what": text, "input": str(path)} for text, path in self.findings]}


Progress = Callable[[str], None]


def run(
    names: Sequence[str], seconds: float, *, seed: int, guided: bool | None = None, work: Path = WORK
) -> list[Outcome]:
    """Fuzz these targets, each for its share of the time. `guided`: with atheris; None: if it is there."""
    if guided is None:
        guided = find_spec("atheris") is not None
    how = "guided by coverage (atheris)" if guided else "random changes of the kept inputs (no atheris here)"
    print(f"fuzzing {', '.join(names)}: {seconds:g} s in all, {how}, seed {seed}", flush=True)
    outcomes = []
    shares = sum(TARGETS[name].share for name in names)
    for name in names:
        fuzz_one = _guided if guided else _unguided
        outcomes.append(fuzz_one(TARGETS[name], seconds * TARGETS[name].share / shares, seed, work))
    return outcomes


# ---- with atheris


def _guided(target: Target, seconds: float, seed: int, work: Path) -> Outcome:
    outcome = Outcome(target.name)
    folder, findings = work / "corpus" / target.name, work / "findings"
    findings.mkdir(parents=True, exist_ok=True)
    corpus.unpack([*target.seeds(), *corpus.replayed(target.name)], folder)
    before = len(list(folder.iterdir()))
    known = work / f"known-{target.name}.txt"
    known.write_text("", encoding="utf-8")
    begun = time.monotonic()
    while (left := seconds - (time.monotonic() - begun)) > 0.5 and len(outcome.findings) < MAX_FINDINGS:
        options = [
            f"-max_len={target.longest}",
            f"-timeout={INPUT_LIMIT_S}",
            f"-rss_limit_mb={MEMORY_LIMIT_MB}",
            f"-seed={seed + len(outcome.findings)}",
            f"-artifact_prefix={findings}/{target.name}-",
            "-print_final_stats=1",
        ]
        end = str(time.time() + left)
        command = [sys.executable, "-m", "fuzz.worker", target.name, str(known), end, *options, str(folder)]
        if not _watch(command, outcome, known, begun, seconds):
            break
    outcome.seconds = time.monotonic() - begun
    outcome.new_inputs = max(0, len(list(folder.iterdir())) - before)
    return outcome


def _watch(command: Sequence[str], outcome: Outcome, known: Path, begun: float, seconds: float) -> bool:
    """Run one worker to its end; True: it has found something new and may be started again."""
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(ROOT), *_inherited_path()])}
    told = time.monotonic()
    finding, executions, tail = "", 0, list[str]()
    with subprocess.Popen(
        command, cwd=ROOT, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True
    ) as process:
        assert process.stderr is not None
        for line in process.stderr:
            tail = [*tail[-40:], line]
            if line.startswith("FINDING "):
                finding = line.removeprefix("FINDING ").strip()
            elif match := _ARTIFACT.search(line):
                text = finding or _native_signature(tail)
                outcome.findings.append((text, Path(match[1])))
                print(f"   {outcome.target:10} FINDING: {text}", flush=True)
                with known.open("a", encoding="utf-8") as file:
                    file.write(text + "\n")
            elif match := _STATUS.match(line):
                executions = int(match[1])
                outcome.edges = max(outcome.edges or 0, int(match[3]))
                outcome.features = max(outcome.features or 0, int(match[4]))
                if time.monotonic() - told > max(5, seconds / 10):
                    told = time.monotonic()
                    print(
                        f"   {outcome.target:10} {told - begun:5.0f} s  {outcome.executions + executions:9,} executions"
                        f"  {match[6]:>5}/s  coverage {match[3]}/{match[4]}  inputs {match[5]}",
                        flush=True,
                    )
            elif match := _DONE.match(line) or _PLAIN_DONE.match(line):
                executions = int(match[1])
    outcome.executions += executions
    if process.returncode and not any("Test unit written" in line for line in tail):
        sys.stderr.writelines(tail)
        raise RuntimeError(f"the worker of {outcome.target} ended with status {process.returncode}")
    return process.returncode != 0


def _native_signature(tail: Sequence[str]) -> str:
    """What libFuzzer itself complains about: time, memory, a crash of the interpreter."""
    errors = [line for line in tail if "ERROR: libFuzzer" in line]
    return errors[-1].split("ERROR: ")[-1].strip() if errors else "unknown failure"


def _inherited_path() -> list[str]:
    path = os.environ.get("PYTHONPATH")
    return [path] if path else []


# ---- without


def _unguided(target: Target, seconds: float, seed: int, work: Path) -> Outcome:
    outcome = Outcome(target.name)
    rng = random.Random(seed)
    inputs = [*target.seeds(), *corpus.replayed(target.name)]
    begun = time.monotonic()
    known: set[str] = set()
    while time.monotonic() - begun < seconds and len(outcome.findings) < MAX_FINDINGS:
        if outcome.executions < len(inputs):
            data = inputs[outcome.executions]
        else:
            data = mutate(rng.choice(inputs), rng, target.operations or (0,), lambda octets: _scramble(octets, rng))
        outcome.executions += 1
        try:
            target.check(data[: target.longest])
        except Exception as error:
            text = signature(error)
            if text not in known:
                known.add(text)
                path = work / "findings" / f"{target.name}-{corpus.name_of(data)}"
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_bytes(data)
                outcome.findings.append((text, path))
                print(f"   {target.name:10} FINDING: {text}", flush=True)
    outcome.seconds = time.monotonic() - begun
    return outcome


def _scramble(data: bytes, rng: random.Random) -> bytes:
    """A few octets changed, added or taken away."""
    octets = bytearray(data)
    for _ in range(rng.randint(1, 4)):
        at = rng.randrange(len(octets) + 1)
        if rng.randrange(3) and octets:
            octets[at % len(octets)] = rng.getrandbits(8)
        elif rng.randrange(2):
            octets[at:at] = rng.randbytes(rng.randint(1, 4))
        else:
            del octets[at : at + rng.randint(1, 4)]
    return bytes(octets)


# ---- results


def show_table(outcomes: Sequence[Outcome]) -> None:
    """Print what came of each target, and how to see each finding again."""
    print()
    print(
        f"{'target':10} {'seconds':>7} {'executions':>11} {'exec/s':>7} {'edges':>6} {'features':>8} {'new':>5} findings"
    )
    for outcome in outcomes:
        rate = outcome.executions / outcome.seconds if outcome.seconds else 0
        edges = "-" if outcome.edges is None else str(outcome.edges)
        features = "-" if outcome.features is None else str(outcome.features)
        print(
            f"{outcome.target:10} {outcome.seconds:7.0f} {outcome.executions:11,} {rate:7.0f} {edges:>6}"
            f" {features:>8} {outcome.new_inputs:5} {len(outcome.findings)}"
        )
    total = sum(outcome.executions for outcome in outcomes)
    print(f"{'total':10} {sum(outcome.seconds for outcome in outcomes):7.0f} {total:11,}")
    for outcome in outcomes:
        for text, path in outcome.findings:
            print(f"\n{outcome.target}: {text}\n  input:  {path}\n  replay: python -m fuzz replay {path}")


def keep(names: Sequence[str], work: Path = WORK) -> None:
    """Make the smallest inputs that reach all that was reached the kept corpus. Needs atheris."""
    for name in names:
        target = TARGETS[name]
        folder, smaller = work / "corpus" / name, work / "smaller" / name
        corpus.unpack([*target.seeds(), *corpus.kept(name)], folder)
        smaller.mkdir(parents=True, exist_ok=True)
        for path in smaller.iterdir():
            path.unlink()
        known = work / f"known-{name}.txt"
        known.write_text("", encoding="utf-8")
        command = [sys.executable, "-m", "fuzz.worker", name, str(known), "0", "-merge=1", f"-max_len={target.longest}"]
        environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(ROOT), *_inherited_path()])}
        subprocess.run(
            [*command, str(smaller), str(folder)], cwd=ROOT, env=environment, check=True, capture_output=True
        )
        count = corpus.write(name, [path.read_bytes() for path in smaller.iterdir()])
        print(f"{name}: {count} inputs kept of {len(list(folder.iterdir()))}", flush=True)
