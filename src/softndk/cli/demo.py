"""`softndk demo`: why send_and_invalidate exists, shown by two processes over TCP."""

import json
import os
import subprocess
import sys
import threading
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any, Final

import click
from rich.console import Console
from rich.markup import escape
from rich.table import Table

import softndk
from softndk.cli.demo_story import Outcome, Run, run_client, serve

__all__ = ["demo"]

_TITLES: Final = {
    Run.PLAIN: "Run 1: the answer comes by a plain send",
    Run.WINDOW: "Run 2: a memory window per request, the answer comes by send_and_invalidate",
    Run.TIMEOUT: "Run 3: the answer never comes, the client times out and invalidates the window itself",
}
_COLOURS: Final = {"client": "cyan", "server": "magenta"}
_SERVER_END_S: Final = 10.0
_PLAIN_WIDTH: Final = 118


@dataclass(frozen=True, slots=True)
class Event:
    """One thing that happened. `at`: seconds of the machine's monotonic clock, the same in both processes."""

    at: float
    side: str
    text: str


@dataclass
class Timeline:
    """Events of both sides; the server's come in through its standard output."""

    events: list[Event] = field(default_factory=list)
    lock: threading.Lock = field(default_factory=threading.Lock)

    def add(self, event: Event) -> None:
        with self.lock:
            self.events.append(event)

    def tell(self, text: str) -> None:
        self.add(Event(time.monotonic(), "client", text))

    def since(self, start: float) -> list[Event]:
        with self.lock:
            return sorted((event for event in self.events if event.at >= start), key=lambda event: event.at)


@click.command()
@click.option(
    "--trace",
    type=click.Path(dir_okay=False, path_type=Path),
    default=Path("softndk-demo.pcapng"),
    show_default=True,
    help="Where the capture of all three runs goes.",
)
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object instead of the story.")
@click.option("--role", type=click.Choice(["both", "server"]), default="both", hidden=True)
@click.pass_context
def demo(context: click.Context, trace: Path, as_json: bool, role: str) -> None:
    """Show why send_and_invalidate exists: a late RDMA Write, with and without protection.

    A client lends a buffer to a server for one request. The server has the request queued twice; the second copy's RDMA
    Write arrives after the client has put the buffer to another use.
    """
    if role == "server":
        _be_server()
        return
    started = time.monotonic()
    timeline = Timeline()
    outcomes: list[Outcome] = []
    console = Console(quiet=as_json, highlight=False)
    if not console.is_terminal:
        console.width = _PLAIN_WIDTH
    console.print("A client lends a 64-octet buffer to a server, two processes, real iWARP over TCP on this machine.\n")
    server = _Server(timeline)
    try:
        with softndk.open_adapter(trace=trace) as adapter:
            for run in Run:
                begun = time.monotonic()
                outcomes.append(run_client(adapter, server.address, run, timeline.tell))
                server.wait_for_end_of_run()
                _show_run(console, outcomes[-1], timeline.since(begun), begun)
    finally:
        server.stop()
    seconds = time.monotonic() - started
    if as_json:
        click.echo(json.dumps(_as_object(outcomes, timeline, started, trace, seconds)))
    else:
        _show_timeline(console, timeline, started)
        _show_summary(console, outcomes, trace, seconds)
    expected = [run is not Run.PLAIN for run in Run]
    if [outcome.intact for outcome in outcomes] != expected:
        context.exit(1)


# ---- the server process


def _be_server() -> None:
    """The server's side: prints one JSON object a line, ends when its standard input does."""

    def say(**what: Any) -> None:
        print(json.dumps(what), flush=True)

    with softndk.open_adapter() as adapter, adapter.listen() as listener:
        say(listening=listener.local_address, pid=os.getpid())
        threading.Thread(target=lambda: (sys.stdin.read(), listener.close()), daemon=True).start()

        def tell(text: str) -> None:
            say(at=time.monotonic(), text=text)

        for run in serve(adapter, listener, tell):
            say(end_of_run=run)


class _Server:
    """The child process and the thread that reads what it tells."""

    def __init__(self, timeline: Timeline) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-m", "softndk.cli", "demo", "--role", "server"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            raise click.ClickException("the server process did not start")
        host, port = json.loads(line)["listening"]
        self.address: softndk.Address = (host, port)
        self._end_of_run = threading.Semaphore(0)
        self._reader = threading.Thread(target=self._read, args=(self._process.stdout, timeline), daemon=True)
        self._reader.start()

    def wait_for_end_of_run(self) -> None:
        if not self._end_of_run.acquire(timeout=_SERVER_END_S):
            raise click.ClickException("the server process does not answer")

    def stop(self) -> None:
        assert self._process.stdin is not None
        self._process.stdin.close()
        try:
            self._process.wait(_SERVER_END_S)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._reader.join()

    def _read(self, lines: IO[str], timeline: Timeline) -> None:
        for line in lines:
            told = json.loads(line)
            if "text" in told:
                timeline.add(Event(told["at"], "server", told["text"]))
            elif "end_of_run" in told:
                self._end_of_run.release()


# ---- what is shown


def _show_run(console: Console, outcome: Outcome, events: list[Event], begun: float) -> None:
    console.print(f"[bold]{_TITLES[outcome.run]}[/bold]")
    lines = Table.grid(padding=(0, 2))
    lines.add_column(justify="right", no_wrap=True)
    lines.add_column(no_wrap=True)
    lines.add_column()
    for event in events:
        colour = _COLOURS[event.side]
        first, *rest = event.text.splitlines()
        lines.add_row(f"{(event.at - begun) * 1000:9.1f} ms", f"[{colour}]{event.side}[/{colour}]", escape(first))
        for line in rest:
            lines.add_row("", "", f"[dim]{escape(line)}[/dim]")
    console.print(lines)
    console.print("  the buffer when it was put to its new use:")
    _show_octets(console, outcome.before, outcome.before)
    console.print("  the buffer at the end:")
    _show_octets(console, outcome.after, outcome.before)
    if outcome.intact:
        console.print("  [bold green]INTACT[/bold green]: the late Write was refused before it touched an octet\n")
    else:
        console.print("  [bold red]DESTROYED[/bold red]: the late Write went through, and nothing told the client\n")


def _show_octets(console: Console, data: bytes, reference: bytes) -> None:
    for start in range(0, len(data), 32):
        row, good = data[start : start + 32], reference[start : start + 32]
        cells = [
            f"{value:02x}" if value == was else f"[red]{value:02x}[/red]" for value, was in zip(row, good, strict=True)
        ]
        text = "".join(chr(value) if 32 <= value < 127 else "." for value in row)
        console.print(f"    {start:02x}  {''.join(cells)}  {escape(text)}")


def _show_timeline(console: Console, timeline: Timeline, started: float) -> None:
    table = Table(title="Timeline of both sides", title_justify="left", show_lines=False, expand=True)
    table.add_column("ms", justify="right", no_wrap=True)
    table.add_column("client", style=_COLOURS["client"], ratio=1)
    table.add_column("server", style=_COLOURS["server"], ratio=1)
    for event in timeline.since(started):
        text = escape(event.text.splitlines()[0])
        at = f"{(event.at - started) * 1000:.1f}"
        table.add_row(at, text if event.side == "client" else "", text if event.side == "server" else "")
    console.print(table)


def _show_summary(console: Console, outcomes: list[Outcome], trace: Path, seconds: float) -> None:
    table = Table(title="What became of the buffer", title_justify="left")
    for name in ("run", "how the token ended", "late Write", "buffer", "connection"):
        table.add_column(name)
    ways = {
        Run.PLAIN: "it did not: plain send",
        Run.WINDOW: "by the answer: send_and_invalidate",
        Run.TIMEOUT: "by the client: invalidate",
    }
    for outcome in outcomes:
        error = None if outcome.disconnect is None else outcome.disconnect.error
        fault = None if error is None else error.fault
        ended = "goes on" if fault is None else f"Terminate {fault.layer:x}/{fault.etype:x}/{fault.code:x}"
        table.add_row(
            str(outcome.run.value),
            ways[outcome.run],
            "refused" if outcome.intact else "placed",
            "[green]intact[/green]" if outcome.intact else "[red]destroyed[/red]",
            ended,
        )
    console.print(table)
    name = escape(str(trace))
    console.print(f"{seconds:.1f} s. Every frame of the client's three connections is in [bold]{name}[/bold]:")
    console.print(f"  softndk trace {name}      or open it in Wireshark", soft_wrap=True)


def _as_object(
    outcomes: list[Outcome], timeline: Timeline, started: float, trace: Path, seconds: float
) -> dict[str, Any]:
    runs = []
    for outcome in outcomes:
        error = None if outcome.disconnect is None else outcome.disconnect.error
        fault = None if error is None else error.fault
        runs.append(
            {
                "run": outcome.run.value,
                "title": _TITLES[outcome.run],
                "before": outcome.before.hex(),
                "after": outcome.after.hex(),
                "intact": outcome.intact,
                "terminate": None if fault is None else [fault.layer, fault.etype, fault.code],
                "reason": None if error is None else str(error),
            }
        )
    events = [
        {"ms": round((event.at - started) * 1000, 3), "side": event.side, "text": event.text}
        for event in timeline.since(started)
    ]
    return {"runs": runs, "timeline": events, "trace": str(trace), "seconds": round(seconds, 3)}
