"""The group of subcommands: loads the one that is called, and turns failures into a message and an exit status.

Exit status: 0 success, 1 failure, 2 wrong usage, 128 + n after signal n (130: Ctrl-C). What a subcommand does is not
known here.
"""

import importlib
from typing import Any, Final, NamedTuple

import click

import softndk
from softndk.cli.failure import Failure, ask_for_detail

__all__ = ["Commands", "main"]

CTRL_C_STATUS: Final = 130


class _Entry(NamedTuple):
    """Where a subcommand is and what `--help` says of it, without having to load it."""

    module: str
    help: str


_ENTRIES: Final = {
    "demo": _Entry("softndk.cli.demo", "Show what send_and_invalidate protects from."),
    "info": _Entry("softndk.cli.info", "Show an adapter's limits and settings."),
    "peer": _Entry("softndk.cli.peer", "Play an iWARP peer, right or wrong on purpose, against any stack."),
    "ping": _Entry("softndk.cli.ping", "Test a path: send, read, write, invalidate; every octet compared."),
    "status": _Entry("softndk.cli.status", "Show connections and counters of running processes."),
    "trace": _Entry("softndk.cli.trace", "Print the iWARP frames of a capture file."),
}

_EXAMPLES: Final = """\b
Examples:
  softndk demo                            two adapters in this machine, one late RDMA Write
  softndk info --json                     limits and settings for programs
  softndk peer run all 127.0.0.1:4711     what an iWARP stack does with wrong frames
  softndk ping --server --port 4711       wait for clients
  softndk ping 127.0.0.1:4711 --size 1M   ten rounds with a server
  softndk status                          what running processes do
  softndk trace ping.pcapng               what went over the wire
"""


class Commands(click.Group):
    """A group that loads a subcommand when it is called, so that each starts fast and fails alone."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return sorted(_ENTRIES)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        entry = _ENTRIES.get(cmd_name)
        if entry is None:
            return None
        try:
            module = importlib.import_module(entry.module)
        except ModuleNotFoundError as error:
            if error.name != entry.module:
                raise
            raise click.ClickException(f"this build has no {cmd_name!r}") from None
        command = getattr(module, cmd_name)
        assert isinstance(command, click.Command)
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Commands"):
            formatter.write_dl([(name, _ENTRIES[name].help) for name in self.list_commands(ctx)])

    def invoke(self, ctx: click.Context) -> Any:
        """Run the subcommand. A failure of adapter, peer or machine becomes a `Failure`, which click shows."""
        try:
            return super().invoke(ctx)
        except softndk.NdkError as error:
            raise Failure.of(error, ctx) from error
        except BrokenPipeError:
            raise  # the reader of our output has gone; click ends quietly
        except OSError as error:
            raise Failure(str(error)) from error
        except KeyboardInterrupt:
            ctx.exit(CTRL_C_STATUS)


@click.command(cls=Commands, epilog=_EXAMPLES, context_settings={"help_option_names": ["-h", "--help"]})
@click.option("-v", "--verbose", is_flag=True, help="Explain failures: rule, side, cause.")
@click.version_option(softndk.__version__, prog_name="softndk")
@click.pass_context
def main(ctx: click.Context, verbose: bool) -> None:
    """A software RDMA NIC: NDKPI verbs over iWARP, without hardware, driver or root."""
    if verbose:
        ask_for_detail(ctx)
