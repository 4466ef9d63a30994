"""The command `softndk`. Subcommands are built on the public names of the package and hold no logic of their own."""

from softndk.cli.main import main

__all__ = ["main"]
