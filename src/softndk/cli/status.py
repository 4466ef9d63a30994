"""`softndk status`: what the adapters of running processes do."""

import json
from typing import Any, Final

import click
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from softndk.drivers.status import ANSWER_S, ask, processes
from softndk.flags import address_text

__all__ = ["status"]

_FIELDS: Final = frozenset(
    (
        "pid",
        "adapter",
        "addresses",
        "version",
        "datapath",
        "failure",
        "statistics",
        "connections",
        "endpoints",
        "objects",
        "incidents",
    )
)
"""What an answer has (softndk.ndk.management.snapshot)."""


@click.command()
@click.argument("pid", type=int, required=False)
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object per adapter, one a line.")
@click.option("--objects", is_flag=True, help="List every open object too.")
def status(pid: int | None, as_json: bool, objects: bool) -> None:
    """Show connections, endpoints, counters and the last incidents of running processes that use softndk: of PID, or of all
    you may see.

    Incidents are connections that failed or were refused, with the reason. A process can be asked while one of its adapters
    listens or has a connection. Linux only.
    """
    found = processes()
    if pid is not None:
        if pid not in found:
            raise click.ClickException(f"process {pid} has no adapter that listens or is connected, or is not yours")
        found = {pid: found[pid]}
    answers, problems = _ask_all(found)
    for problem in problems:
        click.echo(f"softndk status: {problem}", err=True)
    if as_json:
        for answer in answers:
            click.echo(json.dumps(answer))
    else:
        console = Console(highlight=False)
        if not answers and not problems:
            console.print("no process with a listening or connected adapter")
        for answer in answers:
            _show(console, answer, objects)
    if problems and not answers:
        raise click.exceptions.Exit(1)


def _ask_all(found: dict[int, list[str]]) -> tuple[list[dict[str, Any]], list[str]]:
    """What the adapters of these processes say; and why some say nothing, in words."""
    answers: list[dict[str, Any]] = []
    problems: list[str] = []
    for pid, names in found.items():
        for name in names:
            try:
                answer = ask(name)
            except ConnectionRefusedError:
                continue  # it has ended meanwhile
            except TimeoutError:
                problems.append(
                    f"process {pid} does not answer within {ANSWER_S:g} s: it is stopped, or has no CPU time"
                )
            except (OSError, ValueError) as error:
                problems.append(f"process {pid} cannot be asked: {error}")
            else:
                if isinstance(answer, dict) and answer.keys() >= _FIELDS:
                    answers.append(answer)
                else:
                    problems.append(f"process {pid} answers in another form: another version of softndk?")
    return answers, problems


def _show(console: Console, answer: dict[str, Any], objects: bool) -> None:
    major, minor = answer["version"]
    console.print(
        f"[bold]process {answer['pid']}, {escape(answer['adapter'])}[/bold] on {', '.join(answer['addresses'])},"
        f" NDKPI {major}.{minor}, data path {answer['datapath']}"
    )
    if answer["failure"] is not None:
        console.print(f"[red]{escape(answer['failure'])}[/red]")
    table = Table("local", "remote", "state", "connector", "QP", title="connections", title_justify="left")
    for entry in answer["connections"]:
        local, remote = _address(entry["local"]), _address(entry["remote"])
        table.add_row(local, remote, entry["state"], escape(entry["connector"]), escape(entry["qp"] or "-"))
    console.print(table)
    table = Table("local", "kind", title="endpoints", title_justify="left")
    for entry in answer["endpoints"]:
        table.add_row(_address(entry["local"]), "listener" if entry["listener"] else "shared endpoint")
    console.print(table)
    table = Table("counter", "value", title="statistics", title_justify="left")
    for name, value in answer["statistics"].items():
        table.add_row(name.replace("_", " "), f"{value:,}")
    console.print(table)
    if answer["incidents"]:
        console.print("last incidents", style="italic")
        for entry in answer["incidents"]:
            console.print(f"  {entry['seconds_ago']:.0f} s ago: {escape(entry['text'])}", soft_wrap=True)
    if objects:
        for text in answer["objects"]:
            console.print("  " + escape(text))


def _address(address: list[Any]) -> str:
    host, port = address
    return address_text((host, port))
