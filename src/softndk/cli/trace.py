"""`softndk trace FILE`: prints a capture file, a line per start-up frame and FPDU. `softndk.trace` does the reading."""

import json
import os
import sys
from collections.abc import Iterator
from typing import Final

import click

from softndk.flags import address_text
from softndk.trace import Frame, TraceError, read_frames

__all__ = ["trace"]

SHOWN_OCTETS: Final = 32
"""How much `--payload` shows of one frame."""

_COLORS: Final = {
    "MPA request": "cyan",
    "MPA reply": "cyan",
    "Terminate": "red",
    "reset": "red",
    "gap": "yellow",
    "unfinished frame": "yellow",
    "malformed FPDU": "red",
    "malformed start-up frame": "red",
}
_CRC: Final = {True: "CRC good", False: "CRC BAD ", None: "        "}
_KIND_WIDTH: Final = len("Send with SE and Invalidate")


@click.command()
@click.argument("file", type=click.Path(exists=True, dir_okay=False))
@click.option("--json", "as_json", is_flag=True, help="One JSON object per line.")
@click.option("--payload", is_flag=True, help=f"Show the first {SHOWN_OCTETS} octets of each payload.")
def trace(file: str, as_json: bool, payload: bool) -> None:
    """Print the iWARP frames of a capture FILE (pcapng or pcap).

    Each line: packet number, seconds since the first frame, source > destination, whether the CRC is right, what it is,
    and its fields: STag and TO (tagged offset), MSN and MO (message number and offset), len (payload octets), L (last
    segment of its message).
    """
    frames = read_frames(file)
    count = 0
    try:
        for line in _json_lines(frames, payload) if as_json else _text_lines(frames, payload):
            click.echo(line)
            count += 1
        if not count:
            click.echo(f"{file}: no iWARP stream in it", err=True)
    except BrokenPipeError:
        # The reader of our output has gone. What is still buffered must not fail at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    except (TraceError, OSError) as error:
        raise click.ClickException(f"{file}: {error}") from None


def _json_lines(frames: Iterator[Frame], payload: bool) -> Iterator[str]:
    for frame in frames:
        fields = frame.as_dict()
        if payload:
            fields["payload"] = frame.payload[:SHOWN_OCTETS].hex()
        yield json.dumps(fields)


def _text_lines(frames: Iterator[Frame], payload: bool) -> Iterator[str]:
    start_ns: int | None = None
    path_width = 0
    for frame in frames:
        if start_ns is None:
            start_ns = frame.time_ns
        path = f"{address_text(frame.source)} > {address_text(frame.destination)}"
        path_width = max(path_width, len(path))
        kind = click.style(f"{frame.kind:{_KIND_WIDTH}}", fg=_COLORS.get(frame.kind))
        crc = click.style(_CRC[frame.crc_ok], fg="red" if frame.crc_ok is False else None)
        seconds = (frame.time_ns - start_ns) / 1e9
        yield f"{frame.number:5} {seconds:11.6f}  {path:{path_width}}  {crc}  {kind}  {frame.summary}"
        if payload and frame.payload:
            shown = frame.payload[:SHOWN_OCTETS]
            more = " ..." if len(frame.payload) > SHOWN_OCTETS else ""
            yield f"{'':19}{shown.hex(' ', 4)}{more}"
