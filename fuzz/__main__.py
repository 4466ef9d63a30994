"""The command: python -m fuzz run | replay | keep | planted; `make fuzz` calls it."""

import argparse
import json
import random
import sys
import traceback
from pathlib import Path

from fuzz import driver, planted
from fuzz.targets import TARGETS

__all__ = ["main"]


def main(arguments: list[str] | None = None) -> int:
    """Run a command; the exit status: 1 after a finding, or a planted bug that was not found."""
    parser = argparse.ArgumentParser(prog="python -m fuzz", description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True)
    run = commands.add_parser("run", help="fuzz every target, or those named, for a time")
    run.add_argument("--seconds", type=float, default=60.0, help="for all of them together (60)")
    run.add_argument("--minutes", type=float, help="the same in minutes")
    run.add_argument("--seed", type=int, help="repeat a run as far as time allows")
    run.add_argument("--json", action="store_true", help="at the end one line of JSON instead of the table")
    run.add_argument("--unguided", action="store_true", help="without atheris even if it is there")
    run.add_argument("targets", nargs="*", metavar="TARGET", help=", ".join(TARGETS))
    replay = commands.add_parser("replay", help="run inputs that were written by a finding")
    replay.add_argument("--target", choices=TARGETS, help="if the file's name does not begin with it")
    replay.add_argument("files", nargs="+", type=Path)
    keep = commands.add_parser("keep", help="put the inputs that the runs have found into the repository, reduced")
    keep.add_argument("targets", nargs="*", metavar="TARGET")
    bugs = commands.add_parser("planted", help="put known bugs into a copy of the code and see how soon they are found")
    bugs.add_argument("--seconds", type=float, default=120.0, help="patience with each (120)")
    bugs.add_argument("names", nargs="*", metavar="BUG", help=", ".join(bug.name for bug in planted.BUGS))
    options = parser.parse_args(arguments)

    names = _names(parser, getattr(options, "targets", []))
    if options.command == "run":
        seed = random.SystemRandom().getrandbits(30) if options.seed is None else options.seed
        seconds = options.seconds if options.minutes is None else 60 * options.minutes
        outcomes = driver.run(names, seconds, seed=seed, guided=False if options.unguided else None)
        if options.json:
            print(json.dumps([outcome.as_dict() for outcome in outcomes]))
        else:
            driver.show_table(outcomes)
        return 1 if any(outcome.findings for outcome in outcomes) else 0
    if options.command == "keep":
        driver.keep(names)
        return 0
    if options.command == "planted":
        return planted.run(options.names, options.seconds)
    return _replay(options.files, options.target)


def _names(parser: argparse.ArgumentParser, given: list[str]) -> list[str]:
    for name in given:
        if name not in TARGETS:
            parser.error(f"no target {name!r}; there are {', '.join(TARGETS)}")
    return given or list(TARGETS)


def _replay(files: list[Path], target: str | None) -> int:
    status = 0
    for path in files:
        name = target or path.name.partition("-")[0]
        if name not in TARGETS:
            print(f"{path}: of no known target; give --target", file=sys.stderr)
            return 2
        try:
            TARGETS[name].check(path.read_bytes())
        except Exception:
            traceback.print_exc()
            print(f"{path}: {name} fails")
            status = 1
        else:
            print(f"{path}: {name} passes")
    return status


if __name__ == "__main__":
    sys.exit(main())
