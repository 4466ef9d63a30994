"""The lab by hand: `python -m scripts.interop build`, or a command of the guest: `python -m scripts.interop run rping -h`.

What a command of the guest prints comes out here, and its exit status is this program's. In the guest, this machine's
127.0.0.1 is 10.0.2.2.
"""

import argparse
import sys
import tempfile
from pathlib import Path

from scripts.interop import image
from scripts.interop.common import LabError, Progress
from scripts.interop.guest import HOST_ADDRESS, Guest


def main(arguments: list[str]) -> int:
    """The exit status: the command's; 2 if the lab could not do it."""
    parser = argparse.ArgumentParser(prog="python -m scripts.interop", description="The guest of the interop lab.")
    commands = parser.add_subparsers(dest="do", required=True)
    commands.add_parser("build", help="build the guest's image, unless it is in the cache")
    run = commands.add_parser("run", help=f"boot a guest and run a command in it; {HOST_ADDRESS} is this machine")
    run.add_argument("--seconds", type=float, default=600.0, help="limit for the command (600)")
    run.add_argument("--set", action="append", default=[], metavar="NAME=N", help="a setting of siw: peer_to_peer=1")
    run.add_argument("command", nargs=argparse.REMAINDER, metavar="COMMAND ...")
    asked = parser.parse_args(arguments)
    progress = Progress()
    try:
        built = image.build(progress)
        if asked.do == "build":
            print(built.folder)
            return 0
        settings = {name: int(value) for name, _, value in (one.partition("=") for one in asked.set)}
        with (
            tempfile.TemporaryDirectory(prefix="softndk-lab-") as folder,
            Guest(built, Path(folder) / "serial.log") as guest,
            guest.settings(**settings),
        ):
            progress(f"the guest is up ({guest.accelerator})")
            done = guest.run(*asked.command, seconds=asked.seconds)
    except LabError as error:
        print(f"interop: {error}", file=sys.stderr)
        return 2
    sys.stdout.write(done.output)
    sys.stderr.write(done.errors)
    return done.status if done.status >= 0 else 128 - done.status


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
