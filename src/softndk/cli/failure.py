"""How a failed command tells why: one readable message on the error channel, more on request, never a traceback."""

from typing import Final, Self

import click

from softndk import NdkError

__all__ = ["Failure", "ask_for_detail", "message"]

_DETAIL: Final = "softndk.cli.detail"


def ask_for_detail(ctx: click.Context) -> None:
    """`--verbose` was given: failures are to be explained. Holds for the group and all subcommands."""
    ctx.meta[_DETAIL] = True


def message(error: NdkError, *, detail: bool) -> str:
    """What a person is told of `error`: one line, or with `detail` all that `NdkError.explain` knows."""
    return error.explain() if detail else str(error) or error.status.name


class Failure(click.ClickException):
    """The command has failed; exit status 1."""

    def show(self, file: object = None) -> None:
        click.echo(f"softndk: {self.message}", err=True)

    @classmethod
    def of(cls, error: NdkError, ctx: click.Context) -> Self:
        """The failure that `error` is, in as many words as were asked for."""
        return cls(message(error, detail=bool(ctx.meta.get(_DETAIL))))
