"""Draws what the tutorial's program sends: runs examples/store.py over a captured connection, draws the frames as arrows.

Nothing in the picture is made up: arrows, sizes and messages are those of the capture. Run:
``python -m scripts.docs.store_picture`` from the project's root; ``--check`` only compares.
"""

import runpy
import sys
import tempfile
import threading
from collections.abc import Iterable
from html import escape
from pathlib import Path
from typing import Any, Final

from scripts.docs.generated import ROOT, File
from scripts.docs.pictures import STYLE
from softndk import open_adapter
from softndk.trace import Direction, Frame, read_frames

KEY: Final = "greeting"
VALUE: Final = b"hello, world"
LEFT, RIGHT, WIDTH = 130, 590, 720
ROW: Final = 40
TOP: Final = 52


def picture() -> str:
    """The SVG: one put and one get."""
    store = runpy.run_path(str(ROOT / "examples" / "store.py"), run_name="store")
    rows: list[tuple[str, str, bool]] = []  # heading, words, towards the server
    for frame in _frames(store):
        to_server = frame.direction is Direction.INITIATOR
        words, verb = _words(frame, store["Message"])
        rows.append((f"client.{verb}(...)" if to_server and verb else "", words, to_server))
    return _draw(rows)


def _frames(store: dict[str, Any]) -> list[Frame]:
    """What goes over the wire for a put and a get, without start-up and end."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "client.pcapng"
        with open_adapter() as server_adapter, open_adapter(trace=path) as client_adapter:
            server = store["Server"](server_adapter)
            threading.Thread(target=server.run).start()
            client = store["Client"](client_adapter, server.listener.local_address)
            client.put(KEY, VALUE)
            assert client.get(KEY) == VALUE
        shown = ("Send", "Send with Invalidate", "RDMA Write", "RDMA Read Request", "RDMA Read Response")
        frames = [frame for frame in read_frames(path) if frame.kind in shown]
    indication = frames.pop(0)
    assert indication.kind == "RDMA Write"
    assert not indication.payload
    return frames


def _words(frame: Frame, message: Any) -> tuple[str, str]:
    """What stands at the arrow, and the verb of a message."""
    if frame.kind.startswith("Send"):
        parsed = message.parse(frame.payload)
        lends = ", lends a token" if parsed.token else ""
        takes = ", takes the token back" if "Invalidate" in frame.kind else ""
        key = f" {parsed.key!r}" if parsed.key else ""
        return f"{frame.kind}: {parsed.verb}{key}{lends}{takes}", parsed.verb
    if frame.kind == "RDMA Read Request":
        return f"{frame.kind}: {frame.details['size']} octets, by the token", ""
    return f"{frame.kind}: {len(frame.payload)} octets{', by the token' if frame.kind == 'RDMA Write' else ''}", ""


def _draw(rows: Iterable[tuple[str, str, bool]]) -> str:
    held = list(rows)
    y: float = TOP
    body: list[str] = []
    for heading, words, to_server in held:
        if heading:
            y += ROW * 0.55
            body.append(f'<text class="call" x="{LEFT - 12}" y="{y + 4:.0f}">{escape(heading)}</text>')
        begin, end = (LEFT, RIGHT) if to_server else (RIGHT, LEFT)
        body.append(f'<path class="arrow" d="M{begin} {y:.0f}L{end} {y:.0f}" marker-end="url(#head)"/>')
        body.append(f'<text class="label" x="{(LEFT + RIGHT) / 2:.0f}" y="{y - 6:.0f}">{escape(words)}</text>')
        y += ROW
    title = "One put and one get of the store: what goes over the wire"
    lines = [
        f'<path class="group" d="M{x} 40L{x} {y - ROW / 2:.0f}"/><text x="{x}" y="28">{name}</text>'
        for x, name in ((LEFT, "client"), (RIGHT, "server"))
    ]
    return "\n".join(
        [
            f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {y:.0f}" width="{WIDTH}" role="img"'
            f' aria-label="{title}">',
            f"<title>{title}</title>",
            f"<style>{STYLE}  .call {{ text-anchor: end; font-size: 12px }}\n</style>",
            '<defs><marker id="head" viewBox="0 0 10 10" refX="9" refY="5" markerWidth="8" markerHeight="8"'
            ' orient="auto-start-reverse"><path class="head" d="M0 0L10 5L0 10z"/></marker></defs>',
            '<rect class="ground" width="100%" height="100%"/>',
            *lines,
            *body,
            "</svg>",
            "",
        ]
    )


PICTURE: Final = File("docs/pictures/store.svg", "store_picture", picture)

if __name__ == "__main__":
    sys.exit(PICTURE.main())
