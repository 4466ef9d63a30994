"""One target under atheris, in a process of its own: libFuzzer ends the process when it is done.

Run by the driver: python -m fuzz.worker TARGET KNOWN_FILE END [libFuzzer options and folders]
KNOWN_FILE holds signatures of findings, one a line: an input that fails in such a way again is passed over.
END: when to stop, in seconds since 1970 (imports take their time, under coverage); 0: libFuzzer decides.
"""

import random
import shlex
import sys
import time
from pathlib import Path

import atheris

# What a target does not reach is not instrumented: that takes seconds.
_NOT_TESTED = ["softndk.conformance", "softndk.testing"]
if sys.argv[1:2] == ["adapter"]:
    _NOT_TESTED += ["softndk.trace"]
else:
    _NOT_TESTED += ["softndk.drivers", "softndk.ndk"]

with atheris.instrument_imports(include=["softndk"], exclude=_NOT_TESTED):
    from fuzz.records import mutate
    from fuzz.signatures import signature
    from fuzz.targets import TARGETS, Target


def main(arguments: list[str]) -> None:
    """Fuzz until libFuzzer has had enough."""
    target: Target = TARGETS[arguments[1]]
    known = set(Path(arguments[2]).read_text(encoding="utf-8").splitlines())

    def run(data: bytes) -> None:
        try:
            target.check(data)
        except Exception as error:
            if signature(error) not in known:
                print(f"FINDING {signature(error)}", file=sys.stderr, flush=True)
                raise

    def change(data: bytes, longest: int, seed: int) -> bytes:
        rng = random.Random(seed)

        def other(octets: bytes) -> bytes:
            return bytes(atheris.Mutate(octets, longest))

        return mutate(data, rng, target.operations, other)[:longest]

    # libFuzzer calls itself for a merge: what it takes for its program is put in front of its own options, in a shell.
    itself = shlex.join([sys.executable, "-m", "fuzz.worker", target.name, arguments[2], "0"])
    options = [itself, *arguments[4:]]
    end = float(arguments[3])
    if end:
        options.append(f"-max_total_time={max(1, round(end - time.time()))}")
    if target.operations:
        atheris.Setup(options, run, custom_mutator=change)
    else:
        atheris.Setup(options, run)
    atheris.Fuzz()


if __name__ == "__main__":
    main(sys.argv)
