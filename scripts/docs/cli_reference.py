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
    return {"help": "\n\n".join(_texts(main, context, "softndk"))}


def _texts(command: click.Command, context: click.Context, title: str) -> list[str]:
    """The help of a command, then, each under its title, that of its subcommands."""
    text = [_block(command, context)]
    if isinstance(command, click.Group):
        for name in command.list_commands(context):
            inner = command.get_command(context, name)
            assert inner is not None
            below = click.Context(
                inner, parent=context, info_name=name, terminal_width=WIDTH, max_content_width=WIDTH
            )  # fmt: skip
            text += [f"## {title} {name}", *_texts(inner, below, f"{title} {name}")]
    return text


def _block(command: click.Command, context: click.Context) -> str:
    lines = [line.rstrip() for line in command.get_help(context).splitlines()]
    return "\n".join(["```text", *lines, "```"])


PAGE = Page("docs/reference/cli.md", "cli_reference", parts)

if __name__ == "__main__":
    sys.exit(PAGE.main())
