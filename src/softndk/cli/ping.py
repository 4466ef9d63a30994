"""`softndk ping`: options, output and exit status.

Client and server are in ping_client.py and ping_server.py, those of `--rping` in rping.py.
"""

import json
import time
from pathlib import Path
from types import TracebackType
from typing import Any, Final, Self

import click
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

import softndk
from softndk import Adapter, Address, IwarpConfig, NdkError
from softndk.cli.failure import ask_for_detail, message
from softndk.cli.interrupt import Interrupt
from softndk.cli.options import Octets, Seconds, local_address_for, parse_target, resolve
from softndk.cli.ping_client import ClientOptions, PingClient
from softndk.cli.ping_endpoint import Endpoint, Interrupted, PingFailed
from softndk.cli.ping_protocol import MAX_COUNT, MAX_SIZE
from softndk.cli.ping_report import plural
from softndk.cli.ping_server import PingServer, Server, ServerOptions, Session
from softndk.cli.rping import RPING_PORT, RpingClient, RpingLink, RpingServer
from softndk.flags import address_text

__all__ = ["ping"]

PROGRESS_S: Final = 0.1
"""Time between two states of the progress bar."""

_CLIENT_ONLY: Final = ("count", "size", "interval")
_SERVER_ONLY: Final = ("once", "max_size")
_EXAMPLES: Final = """\b
Examples:
  softndk ping --server --port 4711                       on this machine only
  softndk ping --server --bind 0.0.0.0 --port 4711        for others too
  softndk ping 127.0.0.1:4711
  softndk ping [::1]:4711 --size 1M --count 100 --json
  softndk ping rnic.example --port 4711 --count 0 --interval 1 -v
  softndk ping --rping --server --bind 0.0.0.0            then elsewhere: rping -c -a <this machine> -C 10 -v
  softndk ping --rping rnic.example                       there before: rping -s -a 0.0.0.0 -P
"""


@click.command(epilog=_EXAMPLES)
@click.argument("target", required=False, metavar="[HOST:PORT]")
@click.option("--server", is_flag=True, help="Wait for clients instead of being one.")
@click.option("--bind", metavar="HOST", help="Own address. Server: 127.0.0.1 unless given; 0.0.0.0 or :: for all.")
@click.option(
    "--port", type=click.IntRange(0, 65535), help="Port, where HOST has none. Server: a free one unless given."
)
@click.option(
    "--count", type=click.IntRange(0, MAX_COUNT), default=10, show_default=True, help="Rounds; 0: until Ctrl-C."
)
@click.option("--size", type=Octets(1, MAX_SIZE), default="64", show_default=True, help="Octets each way: 64, 64k, 1M.")
@click.option(
    "--interval", type=Seconds(zero=True), default="0", help="Seconds from round to round.", show_default=True
)
@click.option("--timeout", type=Seconds(zero=False), default="10", help="Seconds for one round.", show_default=True)
@click.option("--once", is_flag=True, help="Server: end after the first client.")
@click.option(
    "--max-size", type=Octets(1, MAX_SIZE), default="16M", show_default=True, help="Server: largest size to serve."
)
@click.option("--rping", is_flag=True, help="Speak the protocol of rping, so that it can be the other side.")
@click.option("--trace", type=click.Path(dir_okay=False, path_type=Path), help="Write a pcapng capture to this file.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object at the end.")
@click.option("-q", "--quiet", is_flag=True, help="Print the result only.")
@click.option("-v", "--verbose", is_flag=True, help="Print each round; explain failures.")
@click.pass_context
def ping(
    ctx: click.Context,
    target: str | None,
    server: bool,
    bind: str | None,
    port: int | None,
    count: int,
    size: int,
    interval: float,
    timeout: float,
    once: bool,
    max_size: int,
    rping: bool,
    trace: Path | None,
    as_json: bool,
    quiet: bool,
    verbose: bool,
) -> None:
    """Test the path between two adapters, like rping.

    Each round a client lends memory to a server and tells it so with a send. The server reads the client's data,
    writes them back changed, and answers by send_and_invalidate. Both compare every octet. The data change each round.

    Exit status: 0 all well; 1 mismatch, or the test has failed; 2 wrong usage; 130 Ctrl-C.
    """
    if verbose:
        ask_for_detail(ctx)
    _check_usage(ctx, target, server, quiet, verbose)
    out = _Output(as_json=as_json, quiet=quiet, verbose=verbose)
    config = IwarpConfig(connect_timeout_s=timeout)
    with Interrupt() as stop:
        if server:
            host, _ = resolve(bind or "127.0.0.1", 0)[0]
            with _open([host], config, trace) as adapter:
                options = ServerOptions(max_size=max_size, timeout_s=timeout, once=once)
                default = RPING_PORT if rping else 0
                make = RpingServer if rping else PingServer
                status = _serve(
                    make(adapter, options, stop, out.session), adapter, (host, default if port is None else port), out
                )
        else:
            assert target is not None
            destinations = resolve(*parse_target(target, port, default=RPING_PORT if rping else None))
            own = [resolve(bind, 0)[0][0]] if bind else _own_addresses(destinations)
            with _open(own, config, trace) as adapter:
                wanted = ClientOptions(size=size, count=count, interval_s=interval, timeout_s=timeout)
                if rping:
                    with RpingLink(adapter, stop, "the server") as link:
                        status = _ping(RpingClient(link, wanted, stop, out.round), adapter, destinations, wanted, out)
                else:
                    with Endpoint(adapter, 2 * size, stop, "the server") as endpoint:
                        client = PingClient(endpoint, wanted, stop, out.round)
                        status = _ping(client, adapter, destinations, wanted, out)
    ctx.exit(stop.exit_status or status)


def _check_usage(ctx: click.Context, target: str | None, server: bool, quiet: bool, verbose: bool) -> None:
    """Raises: click.UsageError."""
    if server and target is not None:
        raise click.UsageError("--server takes no HOST:PORT; its own address is --bind and --port")
    if not server and target is None:
        raise click.UsageError("give HOST:PORT of a server, or --server to be one")
    if quiet and verbose:
        raise click.UsageError("--quiet and --verbose exclude each other")
    other = _CLIENT_ONLY if server else _SERVER_ONLY
    for name in other:
        if ctx.get_parameter_source(name) is click.core.ParameterSource.COMMANDLINE:
            role = "client" if server else "server"
            raise click.UsageError(f"--{name.replace('_', '-')} is for the {role}")


def _own_addresses(destinations: list[Address]) -> list[str]:
    own = [address for address in map(local_address_for, destinations) if address is not None]
    if not own:
        raise click.ClickException(f"no route to {destinations[0][0]}")
    return list(dict.fromkeys(own))


def _open(addresses: list[str], config: IwarpConfig, trace: Path | None) -> Adapter:
    """Open the adapter. Raises: NdkError; click.BadParameter: the trace file."""
    try:
        return softndk.open_adapter(addresses, config=config, trace=trace)
    except NdkError:
        raise
    except OSError as error:
        raise click.BadParameter(f"{trace}: {error.strerror}", param_hint="--trace") from None


def _serve(server: Server, adapter: Adapter, address: Address, out: "_Output") -> int:
    """The server's exit status."""
    listener = adapter.listen(address)
    out.listening(listener.local_address)
    server.run(listener)
    found = {
        "role": "server",
        "clients": server.clients,
        "refused": server.refused,
        "failed": server.failed,
        **server.totals.as_dict("service_us"),
        "sessions": [session.as_dict() for session in server.sessions],
    }
    head = f"{plural(server.clients, 'client')}, {server.refused} refused, {server.failed} failed"
    out.result(found, [head, *server.totals.lines("service time")])
    failed = server.totals.mismatches or (server.once and server.failed)
    return 1 if failed else 0


def _ping(
    client: PingClient | RpingClient,
    adapter: Adapter,
    destinations: list[Address],
    options: ClientOptions,
    out: "_Output",
) -> int:
    """Connect, do all rounds and report; the client's exit status."""
    error: PingFailed | None = None
    end = "done"
    server = destinations[0]
    try:
        server = client.connect(adapter, destinations)
        out.connected(adapter, server, options)
        with out.progress(options.count):
            client.run()
    except Interrupted:
        end = "interrupted"
    except PingFailed as failure:
        end, error = "failed", failure
    totals = client.totals
    found = {
        "role": "client",
        "server": address_text(server),
        "size": options.size,
        "end": end,
        "error": None if error is None else {"text": str(error), "explanation": error.explain()},
        **totals.as_dict("round_trip_us"),
    }
    if error is not None:
        out.failure(error)
    if totals.rounds or error is None or out.as_json:
        lines = ["interrupted"] if end == "interrupted" else []
        out.result(found, lines + totals.lines("round trip") if totals.rounds else lines)
    return 1 if error is not None or totals.mismatches else 0


class _Output:
    """What the person, or the program that asked for JSON, gets to see."""

    def __init__(self, *, as_json: bool, quiet: bool, verbose: bool) -> None:
        self.as_json = as_json
        self._talks = not (as_json or quiet)
        self._verbose = verbose and not as_json
        self._detail = verbose
        self._progress: _Bar | None = None

    def listening(self, address: Address) -> None:
        text = address_text(address)
        if self.as_json:
            click.echo(json.dumps({"listening": text, "host": address[0], "port": address[1]}))
        else:
            click.echo(f"listening on {text}")

    def session(self, line: str, session: Session | None) -> None:
        if self._talks:
            click.echo(line)
            cause = session.error.__cause__ if session is not None and session.error is not None else None
            if self._verbose and isinstance(cause, NdkError):
                click.echo(message(cause, detail=True))

    def connected(self, adapter: Adapter, server: Address, options: ClientOptions) -> None:
        if self._talks:
            rounds = plural(options.count, "round") if options.count else "rounds until Ctrl-C"
            click.echo(f"{address_text(server)}: {rounds} of {options.size} octets, data path {adapter.datapath}")

    def progress(self, count: int) -> "_Bar":
        console = Console(stderr=True)
        shown = self._talks and not self._verbose and console.is_terminal
        self._progress = _Bar(console, count) if shown else _Bar(None, count)
        return self._progress

    def round(self, number: int, seconds: float, wrong: str) -> None:
        if self._verbose:
            click.echo(f"round {number}: {seconds * 1e6:.1f} us{', ' + wrong if wrong else ''}")
        elif wrong:
            click.echo(f"round {number}: {wrong}", err=True)
        if self._progress is not None:
            self._progress.show(number)

    def failure(self, error: PingFailed) -> None:
        click.echo(f"softndk ping: {error.explain() if self._detail else error}", err=True)

    def result(self, found: dict[str, Any], lines: list[str]) -> None:
        if self.as_json:
            click.echo(json.dumps(found))
        else:
            for line in lines:
                click.echo(line)


class _Bar:
    """A progress bar on a terminal; nothing without one."""

    def __init__(self, console: Console | None, count: int) -> None:
        self._progress: Progress | None = None
        self._due = 0.0
        if console is not None:
            self._progress = Progress(
                TextColumn("rounds"),
                BarColumn(),
                MofNCompleteColumn(),
                TimeRemainingColumn(),
                console=console,
                transient=True,
                auto_refresh=False,
            )
            self._task = self._progress.add_task("rounds", total=count or None)

    def __enter__(self) -> Self:
        if self._progress is not None:
            self._progress.start()
        return self

    def __exit__(self, t: type[BaseException] | None, e: BaseException | None, tb: TracebackType | None) -> None:
        if self._progress is not None:
            self._progress.stop()

    def show(self, number: int) -> None:
        if self._progress is not None and time.monotonic() >= self._due:
            self._due = time.monotonic() + PROGRESS_S
            self._progress.update(self._task, completed=number, refresh=True)
