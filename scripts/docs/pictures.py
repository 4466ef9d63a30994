"""Draws a state machine as SVG: boxes on a grid, arrows between them. Knows nothing of what the states mean.

A picture is readable on light and dark pages, needs no renderer of its own, and is the same each time it is made.
"""

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from html import escape
from typing import Final

__all__ = ["Arrow", "Drawing", "draw"]

FONT: Final = 13
LETTER: Final = 7.0
"""Width of a letter, estimated on the safe side."""
LINE: Final = 16
BOX: Final = 34
MARGIN: Final = 14
STYLE: Final = """
  text { font: 13px "DejaVu Sans", Verdana, sans-serif; fill: #1f2328; text-anchor: middle }
  .box { fill: #eef3fb; stroke: #3f62a0; stroke-width: 1.4 }
  .end { fill: #f3f3f3; stroke: #6e7781; stroke-width: 1.4 }
  .group { fill: none; stroke: #8a94a0; stroke-width: 1.2; stroke-dasharray: 5 4 }
  .arrow { fill: none; stroke: #57606a; stroke-width: 1.3 }
  .label { font-size: 12px; fill: #3d444d }
  .head { fill: #57606a }
  .ground { fill: #ffffff }
  @media (prefers-color-scheme: dark) {
    text { fill: #e6edf3 }
    .box { fill: #1b2a44; stroke: #6f9ae8 }
    .end { fill: #262c36; stroke: #9198a1 }
    .arrow { stroke: #9198a1 }
    .head { fill: #9198a1 }
    .label { fill: #c9d1d9 }
    .ground { fill: #0d1117 }
  }
"""


@dataclass(frozen=True, slots=True)
class Arrow:
    """From one state to another. `lines`: what is written at it. `bend`: how far to its right it swings, in pixels.

    `at`: where on its way the words stand, from 0 to 1. A state's arrow to itself is a loop above its box.
    """

    source: str
    target: str
    lines: tuple[str, ...]
    bend: float = 0
    at: float = 0.5


@dataclass(frozen=True, slots=True)
class Drawing:
    """`places`: column and row of each state; parts of a cell are allowed. `groups`: places of dashed boxes, by their
    text; `ends`: states that nothing leads out of. `cell`: width and height of a cell in pixels.
    """

    title: str
    places: Mapping[str, tuple[float, float]]
    arrows: tuple[Arrow, ...]
    cell: tuple[int, int] = (200, 100)
    groups: tuple[str, ...] = ()
    ends: frozenset[str] = frozenset()


@dataclass(frozen=True, slots=True)
class _Box:
    x: float
    y: float
    width: float
    height: float
    lines: tuple[str, ...]

    def edge_towards(self, x: float, y: float) -> tuple[float, float]:
        """Where the line from the box's middle to a point leaves the box."""
        dx, dy = x - self.x, y - self.y
        scale = min(self.width / 2 / abs(dx) if dx else math.inf, self.height / 2 / abs(dy) if dy else math.inf)
        return self.x + dx * scale, self.y + dy * scale


def draw(drawing: Drawing) -> str:
    """The SVG. Raises KeyError: an arrow leads from or to a state that has no place."""
    boxes = {name: _box(drawing, name) for name in drawing.places}
    pieces = [_arrow(arrow, boxes) for arrow in drawing.arrows]
    shapes = [part for shape, _ in pieces for part in shape]
    words = [part for _, word in pieces for part in word]
    for name, box in boxes.items():
        kind = "group" if name in drawing.groups else "end" if name in drawing.ends else "box"
        shapes.append(
            f'<rect class="{kind}" x="{box.x - box.width / 2:.1f}" y="{box.y - box.height / 2:.1f}"'
            f' width="{box.width:.1f}" height="{box.height:.1f}" rx="7"/>'
        )
        words += _text(box.x, box.y, box.lines)
    left, top, right, bottom = _bounds(boxes.values(), drawing.arrows, boxes)
    size = f'viewBox="{left:.0f} {top:.0f} {right - left:.0f} {bottom - top:.0f}" width="{right - left:.0f}"'
    return "\n".join(
        [
            f'<svg xmlns="http://www.w3.org/2000/svg" {size} role="img" aria-label="{escape(drawing.title)}">',
            f"<title>{escape(drawing.title)}</title>",
            f"<style>{STYLE}</style>",
            '<defs><marker id="head" viewBox="0 0 10 10" refX="9" refY="5" markerWidth="8" markerHeight="8"'
            ' orient="auto-start-reverse"><path class="head" d="M0 0L10 5L0 10z"/></marker></defs>',
            f'<rect class="ground" x="{left:.0f}" y="{top:.0f}" width="100%" height="100%"/>',
            *shapes,
            *words,
            "</svg>",
            "",
        ]
    )


def _box(drawing: Drawing, name: str) -> _Box:
    column, row = drawing.places[name]
    lines = tuple(name.split("\n"))
    width = max(80.0, max(map(len, lines)) * LETTER + 26)
    height = BOX + (len(lines) - 1) * LINE
    return _Box(column * drawing.cell[0], row * drawing.cell[1], width, height, lines)


def _arrow(arrow: Arrow, boxes: Mapping[str, _Box]) -> tuple[list[str], list[str]]:
    """Shape and words."""
    source, target = boxes[arrow.source], boxes[arrow.target]
    if arrow.source == arrow.target:
        x, y = source.x, source.y - source.height / 2
        shape = f"M{x - 18:.1f} {y:.1f}C{x - 26:.1f} {y - 34:.1f} {x + 26:.1f} {y - 34:.1f} {x + 18:.1f} {y:.1f}"
        return [_path(shape)], _text(x, y - 34 - (len(arrow.lines) - 1) * LINE / 2, arrow.lines, "label")
    dx, dy = target.x - source.x, target.y - source.y
    length = math.hypot(dx, dy)
    middle = (source.x + target.x) / 2 - dy / length * arrow.bend, (source.y + target.y) / 2 + dx / length * arrow.bend
    begin = source.edge_towards(*middle)
    end = target.edge_towards(*middle)
    # The curve's control point lies twice as far out as the curve itself.
    control = 2 * middle[0] - (begin[0] + end[0]) / 2, 2 * middle[1] - (begin[1] + end[1]) / 2
    path = f"M{begin[0]:.1f} {begin[1]:.1f}Q{control[0]:.1f} {control[1]:.1f} {end[0]:.1f} {end[1]:.1f}"
    t = arrow.at
    place = [
        (1 - t) ** 2 * start + 2 * t * (1 - t) * via + t**2 * stop
        for start, via, stop in zip(begin, control, end, strict=True)
    ]
    return [_path(path)], _text(place[0], place[1], arrow.lines, "label")


def _path(shape: str) -> str:
    return f'<path class="arrow" d="{shape}" marker-end="url(#head)"/>'


def _text(x: float, y: float, lines: Iterable[str], kind: str = "") -> list[str]:
    """Lines of text around a middle."""
    held = list(lines)
    first = y + FONT * 0.35 - (len(held) - 1) * LINE / 2
    mark = f' class="{kind}"' if kind else ""
    found = []
    for number, line in enumerate(held):
        base = first + number * LINE
        if kind:  # the arrow is not to run through the words
            width = len(line) * LETTER * 0.93
            found.append(
                f'<rect class="ground" x="{x - width / 2:.1f}" y="{base - 11:.1f}" width="{width:.1f}" height="15"/>'
            )
        found.append(f'<text{mark} x="{x:.1f}" y="{base:.1f}">{escape(line)}</text>')
    return found


def _bounds(
    shown: Iterable[_Box], arrows: Iterable[Arrow], boxes: Mapping[str, _Box]
) -> tuple[float, float, float, float]:
    rects = [(box.x, box.y, box.width / 2, box.height / 2) for box in shown]
    for arrow in arrows:
        source, target = boxes[arrow.source], boxes[arrow.target]
        half = max(map(len, arrow.lines), default=0) * LETTER / 2
        if source is target:
            rects.append((source.x, source.y - source.height / 2 - 36, half, len(arrow.lines) * LINE))
            continue
        dx, dy = target.x - source.x, target.y - source.y
        length = math.hypot(dx, dy)
        t = arrow.at
        x = source.x + dx * t - dy / length * arrow.bend
        y = source.y + dy * t + dx / length * arrow.bend
        rects.append((x, y, half, len(arrow.lines) * LINE / 2))
    return (
        min(x - width for x, _, width, _ in rects) - MARGIN,
        min(y - height for _, y, _, height in rects) - MARGIN,
        max(x + width for x, _, width, _ in rects) + MARGIN,
        max(y + height for _, y, _, height in rects) + MARGIN,
    )
