"""`softndk peer`: options, connections and output. `softndk.peer` knows what is played and how it is judged."""

import json
import os
import shlex
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import click

from softndk import Address
from softndk.cli.options import Seconds, parse_target, resolve
from softndk.flags import address_text
from softndk.peer import Outcome, Role, Scenario, ScenarioError, Seen, Verdict, load, play, shipped
from softndk.peer.report import COLORS, VERDICT_WIDTH, frame_line, list_lines, outcome_lines, summary_lines
from softndk.peer.vocabulary import BLOCKS, step_kinds
from softndk.trace.capture import CaptureWriter

__all__ = ["peer"]

DIFFERENT, CANNOT = 1, 2
RETRY_S: Final = 0.05
LAST_WORDS: Final = 4096
"""Octets at the end of what a program has printed, in which its last line is looked for."""
ALL: Final = "all"
_EXAMPLES: Final = """\b
Examples:
  softndk peer list
  softndk peer run all 192.0.2.7:4711                    every scenario that fits any program
  softndk peer run --rping all 192.0.2.7                 there before: rping -s -a 0.0.0.0 -P
  softndk peer run bad-crc wrong-msn 192.0.2.7:4711 -v --trace bad.pcapng
  softndk peer run mine.yaml 192.0.2.7:4711
  softndk peer run --listen 0.0.0.0:4711 all             then let the other side connect, again and again
  softndk peer run --listen 4711 --start 'my-client {host} {port}' all
"""


@click.group(epilog=_EXAMPLES)
def peer() -> None:
    """A peer that is wrong on purpose: plays scenarios against any iWARP stack and judges what it does.

    A scenario is a list of MPA, DDP and RDMAP steps, right or wrong, and the reactions that the standards ask for. Many
    come with softndk; others are YAML or Python files.
    """


@peer.command("list")
@click.option("--json", "as_json", is_flag=True, help="One JSON object per line.")
def list_command(as_json: bool) -> None:
    """List the scenarios that come with softndk.

    The columns: name; I if the player can be the initiator, R if it can be the responder; rping if the other side must
    speak that protocol; what is tried; the rule.
    """
    scenarios = list(shipped().values())
    if as_json:
        for one in scenarios:
            click.echo(json.dumps(_description(one)))
        return
    for line in list_lines(scenarios):
        click.echo(line)


@peer.command()
@click.argument("name")
def show(name: str) -> None:
    """Print a scenario that comes with softndk, as a file to begin one's own with."""
    found = shipped().get(name)
    if found is None:
        raise click.UsageError(f"there is no scenario {name!r}; softndk peer list names them")
    click.echo(found.text, nl=False)


@peer.command()
@click.argument("name", required=False)
def steps(name: str | None) -> None:
    """List the steps of scenarios, or the fields of the step NAME."""
    kinds = {**step_kinds(), **BLOCKS}
    if name is None:
        width = max(map(len, kinds))
        for kind in kinds.values():
            click.echo(f"{kind.name:{width}}  {kind.summary}")
        return
    if name not in kinds:
        raise click.UsageError(f"{name!r} is not a step; there are: {', '.join(kinds)}")
    kind = kinds[name]
    click.echo(kind.summary)
    width = max(map(len, kind.fields), default=0)
    for field in kind.fields.values():
        click.echo(f"  {field.name:{width}}  {field.kind.text}{' (needed)' if field.needed else ''}")


@peer.command()
@click.argument("arguments", nargs=-1, required=True, metavar="SCENARIO... [HOST:PORT]")
@click.option("--listen", metavar="[HOST:]PORT", help="Wait for the other side to connect, once per scenario.")
@click.option("--port", type=click.IntRange(1, 65535), help="Port, where HOST has none; 7174, rping's, with --rping.")
@click.option("--rping", is_flag=True, help="The other side speaks rping's protocol: play what needs it, too.")
@click.option(
    "--timeout", type=Seconds(zero=False), default="5", show_default=True, help="Seconds for one scenario, from TCP on."
)
@click.option(
    "--wait",
    type=Seconds(zero=False),
    default="30",
    show_default=True,
    help="Seconds for each TCP connection to come up.",
)
@click.option(
    "--start",
    metavar="COMMAND",
    help="Start this program before each scenario and end it afterwards; {host} and {port} are put in.",
)
@click.option("--trace", type=click.Path(dir_okay=False, path_type=Path), help="Write a pcapng capture to this file.")
@click.option(
    "--json",
    "as_json",
    is_flag=True,
    help="Print one JSON object at the end; with --listen another before, that tells where.",
)
@click.option("-v", "--verbose", is_flag=True, help="Print every frame that is sent and received.")
@click.pass_context
def run(
    ctx: click.Context,
    arguments: tuple[str, ...],
    listen: str | None,
    port: int | None,
    rping: bool,
    timeout: float,
    wait: float,
    start: str | None,
    trace: Path | None,
    as_json: bool,
    verbose: bool,
) -> None:
    """Play scenarios against HOST:PORT, or against whoever connects to --listen.

    SCENARIO is a name of `softndk peer list`, "all", or a .yaml or .py file. Each is played on a connection of its own.

    Verdicts: "as required"; "allowed", where the standards leave room; "OTHER FORM", the right reaction in octets that are
    not as the standards draw them; "DIFFERENT"; "NOT REACHED", the connection ended before the step that matters.

    Exit status: 0 every reaction as required or allowed; 1 some were not; 2 wrong usage, or no connection.
    """
    role = Role.INITIATOR if listen is None else Role.RESPONDER
    names = arguments if listen is not None else arguments[:-1]
    if not names:
        raise click.UsageError("name a scenario (or all) and HOST:PORT, or --listen")
    try:
        scenarios = _chosen(names, role, rping)
        place = _Listening(listen, wait) if listen is not None else _Target(arguments[-1], port, rping, wait)
        with place, _capture(trace) as writer:
            screen = _Screen(scenarios, as_json=as_json, verbose=verbose)
            screen.begin(place.text, role)
            for one in scenarios:
                with _program(start, place.address) as program:
                    sock = place.connection(program)
                    screen.outcome(_play(one, sock, role, timeout, writer, screen.frame))
            screen.end(place.text)
    except ScenarioError as error:
        raise click.UsageError(str(error)) from None
    except _NoConnection as error:
        click.echo(f"softndk peer: {error}", err=True)
        ctx.exit(CANNOT)
    ctx.exit(0 if screen.good else DIFFERENT)


def _play(
    one: Scenario,
    sock: socket.socket,
    role: Role,
    timeout: float,
    writer: CaptureWriter | None,
    listener: Callable[[Seen], object],
) -> Outcome:
    tap = None
    if writer is not None:
        ours, theirs = sock.getsockname()[:2], sock.getpeername()[:2]
        tap = writer.stream(ours, theirs, active=role is Role.INITIATOR, name=f"scenario {one.name}")
    return play(one, sock, role, timeout_s=timeout, listener=listener, tap=tap)


@contextmanager
def _capture(path: Path | None) -> Iterator[CaptureWriter | None]:
    if path is None:
        yield None
        return
    with CaptureWriter(path) as writer:
        yield writer


def _chosen(names: Sequence[str], role: Role, rping: bool) -> list[Scenario]:
    """The scenarios of the command line. "all": those that fit role and protocol."""
    known = shipped()
    found: list[Scenario] = []
    for name in names:
        if name == ALL:
            found += [one for one in known.values() if role in one.roles and (rping or not one.rping)]
        elif name in known:
            found.append(known[name])
        elif Path(name).suffix in (".yaml", ".yml", ".py"):
            found += load(Path(name))
        else:
            raise click.UsageError(f"{name!r} is neither a scenario of softndk peer list nor a .yaml or .py file")
    for one in found:
        if role not in one.roles:
            other = "without --listen" if role is Role.RESPONDER else "with --listen"
            raise click.UsageError(f"{one.name} is played by the {one.roles[0].value}: {other}")
        if one.rping and not rping:
            raise click.UsageError(f"{one.name} needs a side that speaks rping's protocol; say so with --rping")
    return found


def _description(one: Scenario) -> dict[str, object]:
    return {
        "name": one.name,
        "title": one.title,
        "rule": one.rule,
        "why": one.why,
        "roles": [role.value for role in one.roles],
        "rping": one.rping,
        "required": [reaction.words for reaction in one.required],
        "allowed": {reaction.words: reason for reaction, reason in one.allowed.items()},
    }


class _NoConnection(Exception):
    """TCP did not come up."""


class _Target:
    """Where to connect to."""

    def __init__(self, target: str, port: int | None, rping: bool, wait_s: float) -> None:
        self.address = parse_target(target, port, default=7174 if rping else None)
        self.text = address_text(self.address)
        self._wait_s = wait_s

    def __enter__(self) -> "_Target":
        return self

    def __exit__(self, *_: object) -> None:
        pass

    def connection(self, program: "_Program | None") -> socket.socket:
        """A TCP connection. While nobody listens it is tried again: a server may have to start anew. Raises:
        _NoConnection.
        """
        end = time.monotonic() + self._wait_s
        while True:
            for address in resolve(*self.address):
                try:
                    return socket.create_connection(address, max(0.1, end - time.monotonic()))
                except ConnectionRefusedError as error:
                    problem: OSError = error
                except OSError as error:
                    raise _NoConnection(f"{address_text(address)}: {error.strerror or error}") from None
            if program is not None:
                program.check_not_failed()
            if time.monotonic() >= end:
                raise _NoConnection(f"{self.text}: {problem.strerror} for {self._wait_s:g} s (--wait)")
            time.sleep(RETRY_S)


def _own_address(listen: str) -> Address:
    """From PORT, HOST:PORT or [HOST]:PORT; port 0 stands for a free one."""
    host, _, port = listen.rpartition(":")
    if not (port.isascii() and port.isdigit()) or not 0 <= int(port[:6]) <= 65535:
        raise click.UsageError(f"--listen {listen}: {port!r} is not a port, 0 to 65535")
    return host.strip("[]") or "127.0.0.1", int(port)


class _Listening:
    """Where to wait for the other side."""

    def __init__(self, listen: str, wait_s: float) -> None:
        host, port = _own_address(listen)
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        try:
            self._socket = socket.create_server((host, port), family=family)
        except OSError as error:
            raise _NoConnection(f"--listen {listen}: {error.strerror or error}") from None
        self._wait_s = wait_s
        self.address: Address = self._socket.getsockname()[:2]
        self.text = address_text(self.address)

    def __enter__(self) -> "_Listening":
        return self

    def __exit__(self, *_: object) -> None:
        self._socket.close()

    def connection(self, program: "_Program | None") -> socket.socket:
        """The next connection. Raises: _NoConnection."""
        end = time.monotonic() + self._wait_s
        while True:
            left = end - time.monotonic()
            self._socket.settimeout(max(0.0, left if program is None else min(left, RETRY_S)))
            try:
                return self._socket.accept()[0]
            except (TimeoutError, BlockingIOError):
                if left <= 0:
                    text = f"{self.text}: nobody has connected for {self._wait_s:g} s (--wait)"
                    raise _NoConnection(text) from None
            if program is not None:
                program.check_not_failed()


class _Program:
    """A program of --start, while it runs. What it prints is kept for the case that it fails."""

    def __init__(self, words: Sequence[str]) -> None:
        self._output = tempfile.TemporaryFile()  # noqa: SIM115 (closed by end())
        try:
            self._process = subprocess.Popen(
                words, stdin=subprocess.DEVNULL, stdout=self._output, stderr=self._output, start_new_session=True
            )
        except BaseException:
            self._output.close()
            raise

    def check_not_failed(self) -> None:
        """Raises _NoConnection: it has ended with a failure. One that ends well may have left another behind."""
        status = self._process.poll()
        if status:
            self._output.seek(max(0, self._output.seek(0, os.SEEK_END) - LAST_WORDS))
            lines = self._output.read().decode(errors="replace").split("\n")
            last = next((line for line in reversed(lines) if line.strip()), "(it printed nothing)")
            raise _NoConnection(f"the program of --start has ended with status {status}: {last.strip()}")

    def end(self) -> None:
        """End it, with all its children."""
        with suppress(ProcessLookupError):
            os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait()
        self._output.close()


@contextmanager
def _program(command: str | None, address: Address) -> Iterator[_Program | None]:
    """The other side's program, if it is ours to start."""
    if command is None:
        yield None
        return
    host, port = address
    try:
        program = _Program([word.replace("{host}", host).replace("{port}", str(port)) for word in shlex.split(command)])
    except (OSError, ValueError) as error:
        raise click.UsageError(f"--start: {error}") from None
    try:
        yield program
    finally:
        program.end()


@dataclass
class _Screen:
    """What the command prints."""

    scenarios: Sequence[Scenario]
    as_json: bool
    verbose: bool

    def __post_init__(self) -> None:
        self._outcomes: list[Outcome] = []
        self._width = max((len(one.name) for one in self.scenarios), default=0)

    @property
    def good(self) -> bool:
        return all(outcome.good for outcome in self._outcomes)

    def begin(self, place: str, role: Role) -> None:
        self._role = role
        if role is Role.RESPONDER and not self.as_json:
            click.echo(f"listening on {place}, for {len(self.scenarios)} connections")
        elif role is Role.RESPONDER:
            click.echo(json.dumps({"listening": place}))

    def frame(self, seen: Seen) -> None:
        if self.verbose and not self.as_json:
            click.echo(frame_line(seen))

    def outcome(self, outcome: Outcome) -> None:
        self._outcomes.append(outcome)
        if self.as_json:
            return
        first, *more = outcome_lines(outcome, self._width)
        verdict = click.style(first[:VERDICT_WIDTH], fg=COLORS[outcome.verdict])
        for line in [verdict + first[VERDICT_WIDTH:], *more]:
            click.echo(line)

    def end(self, place: str) -> None:
        if self.as_json:
            counts = {one.value: sum(outcome.verdict is one for outcome in self._outcomes) for one in Verdict}
            click.echo(
                json.dumps(
                    {
                        "target": place,
                        "role": self._role.value,
                        "good": self.good,
                        "verdicts": counts,
                        "outcomes": [outcome.as_dict() for outcome in self._outcomes],
                    }
                )
            )
            return
        for line in summary_lines(self._outcomes):
            click.echo(line)
