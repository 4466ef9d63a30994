"""Makes docs/reference/cli.md: the help texts of the command `softndk` and its subcommands, as they are printed.

Run: ``python -m scripts.docs.cli_reference`` from the project's root; ``--check`` only compares.
"""

import sys

import click

from scripts.docs.generated import Page
from softndk.cli import main

WIDTH = 100


def parts() -> dict[str, str]:
    """The command's help, then that of each subcommand."""
    assert isinstance(main, click.Group)
    context = click.Context(
        main, info_name="softndk", terminal_width=WIDTH, max_content_width=WIDTH, **main.context_settings
    )
    text = [_block(main, context)]
    for name in main.list_commands(context):
        command = main.get_command(context, name)
        assert command is not None
        inner = click.Context(command, parent=context, info_name=name, terminal_width=WIDTH, max_content_width=WIDTH)
        text += [f"## softndk {name}", _block(command, inner)]
    return {"help": "\n\n".join(text)}


def _block(command: click.Command, context: click.Context) -> str:
    lines = [line.rstrip() for line in command.get_help(context).splitlines()]
    return "\n".join(["```text", *lines, "```"])


PAGE = Page("docs/reference/cli.md", "cli_reference", parts)

if __name__ == "__main__":
    sys.exit(PAGE.main())
