"""Loss and metric curves as an SVG picture: one panel for each number, training and validation in it together.

The same history gives the same bytes. Colours follow the reader's light or dark scheme. Blue and orange (Okabe & Ito's
colour-blind safe palette) tell training from validation, and so does the dashed line.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from xml.sax.saxutils import escape

from graphc.train.axes import Axis, count_axis, values_axis
from graphc.train.history import History

WIDTH, HEIGHT = 460, 300
"""Size of a panel."""
LEFT, RIGHT, TOP, BOTTOM = 62, 22, 48, 44
"""Room around a panel's plot."""
HEAD = 58
COLUMNS = 2
HIDDEN = frozenset(("epoch", "step", "seconds", "images_per_second"))
MAX_POINTS = 400
"""Points of a line; longer histories are thinned, and keep the lowest and highest of every stretch."""

_STYLE = """\
text { font: 12px system-ui, -apple-system, "Segoe UI", Roboto, "Helvetica Neue", Arial, sans-serif; fill: #52514e }
.page { fill: #ffffff } .title { font-size: 17px; font-weight: 600; fill: #1a1a19 }
.name { font-size: 14px; font-weight: 600; fill: #1a1a19 }
.tick { font-size: 11px; fill: #75736d; font-variant-numeric: tabular-nums }
.grid { stroke: #e6e4de } .axis { stroke: #b5b2aa }
.train { stroke: #0072b2 } .val { stroke: #d55e00; stroke-dasharray: 6 3 }
.train.dot { fill: #0072b2 } .val.dot { fill: #d55e00 }
.line { fill: none; stroke-width: 2; stroke-linejoin: round; stroke-linecap: round }
.dot { stroke: #ffffff; stroke-width: 2; stroke-dasharray: none }
.best { stroke: #75736d; stroke-dasharray: 2 3 } .note { font-size: 11px; fill: #52514e }
@media (prefers-color-scheme: dark) {
text { fill: #c3c2b7 } .page { fill: #1a1a19 } .title, .name { fill: #f4f3ee } .tick { fill: #98968d }
.grid { stroke: #33322f } .axis { stroke: #5c5a54 }
.train { stroke: #56b4e9 } .val { stroke: #f0994d } .train.dot { fill: #56b4e9 } .val.dot { fill: #f0994d }
.dot { stroke: #1a1a19 } .best { stroke: #98968d } .note { fill: #c3c2b7 }
}
"""


def draw(history: History, *, title: str = "", best: int | None = None) -> str:
    """The picture of a history as SVG text.

    Args:
        history: with at least an epoch.
        title: of the page; usually the model's name.
        best: the epoch to mark, from 1.
    """
    names = _panels(history)
    columns = min(COLUMNS, max(len(names), 1))
    rows = -(-len(names) // columns)
    width, height = columns * WIDTH, HEAD + max(rows, 1) * HEIGHT
    body = [
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{width}" height="{height}" viewBox="0 0 {width} {height}" '
        f'role="img" aria-label="{escape(title or "training", {chr(34): "&quot;"})}: curves by epoch">',
        f"<style>\n{_STYLE}</style>",
        f'<rect class="page" width="{width}" height="{height}"/>',
        f'<text class="title" x="{LEFT}" y="34">{escape(title or "Training")}</text>',
        *_legend(history, width),
    ]
    for i, name in enumerate(names):
        x, y = i % columns * WIDTH, HEAD + i // columns * HEIGHT
        body.append(f'<g transform="translate({x} {y})">')
        body += _panel(history, name, best)
        body.append("</g>")
    return "\n".join([*body, "</svg>", ""])


def _panels(history: History) -> list[str]:
    """The names of numbers, without `val_`: losses first."""
    names = dict.fromkeys(c.removeprefix("val_") for c in history.columns if c not in HIDDEN)
    return sorted(names, key=lambda n: (n == "lr", n != "loss"))


def _series(history: History, name: str) -> list[tuple[str, list[float]]]:
    found = [("train", name), ("val", f"val_{name}")]
    return [(kind, history[c]) for kind, c in found if c in history.columns]


def _legend(history: History, width: int) -> list[str]:
    kinds = {kind for name in _panels(history) for kind, _ in _series(history, name)}
    texts = [(k, t) for k, t in (("train", "training"), ("val", "validation")) if k in kinds]
    x = width - RIGHT - 92 * len(texts)
    out = []
    for kind, text in texts:
        out.append(f'<path class="line {kind}" d="M{x} 30h24"/>')
        out.append(f'<text x="{x + 30}" y="34">{text}</text>')
        x += 92
    return out


def _panel(history: History, name: str, best: int | None) -> list[str]:
    series = _series(history, name)
    epochs = [int(e) for e in history["epoch"]]
    across = count_axis(max(epochs))
    up = values_axis([v for _, values in series for v in values])
    plot = _Plot(across, up)
    out = [f'<text class="name" x="{LEFT}" y="26">{escape(name)}</text>']
    if up.log:
        wide = LEFT + 8 * len(name) + 14
        out.append(f'<text class="tick" x="{wide}" y="26">logarithmic</text>')
    out += plot.frame()
    marked = next((i for i, e in enumerate(epochs) if e == best), None)
    if marked is not None:
        out += plot.mark(epochs[marked], label=name == _panels(history)[0])
    for kind, values in series:
        out += plot.line(kind, epochs, values)
    for kind, values in series:
        if marked is not None and math.isfinite(values[marked]):
            out.append(plot.dot(kind, epochs[marked], values[marked]))
    return out


class _Plot:
    """Positions within a panel, and the marks there."""

    def __init__(self, across: Axis, up: Axis) -> None:
        self._across, self._up = across, up

    def x(self, epoch: float) -> float:
        return LEFT + self._across.at(epoch) * (WIDTH - LEFT - RIGHT)

    def y(self, value: float) -> float:
        return HEIGHT - BOTTOM - self._up.at(value) * (HEIGHT - TOP - BOTTOM)

    def frame(self) -> list[str]:
        """Grid, axis and tick labels."""
        out = []
        right, bottom = WIDTH - RIGHT, HEIGHT - BOTTOM
        for value, text in zip(self._up.ticks, self._up.labels(), strict=True):
            y = _n(self.y(value))
            out.append(f'<path class="grid" d="M{LEFT} {y}H{right}"/>')
            out.append(
                f'<text class="tick" x="{LEFT - 8}" y="{y}" dy="4" text-anchor="end">{text}</text>'
            )
        out.append(f'<path class="axis" d="M{LEFT} {bottom}H{right}"/>')
        for value, text in zip(self._across.ticks, self._across.labels(), strict=True):
            x = _n(self.x(value))
            out.append(f'<path class="axis" d="M{x} {bottom}v4"/>')
            out.append(
                f'<text class="tick" x="{x}" y="{bottom + 17}" text-anchor="middle">{text}</text>'
            )
        middle = _n((LEFT + right) / 2)
        out.append(
            f'<text class="tick" x="{middle}" y="{bottom + 34}" text-anchor="middle">epoch</text>'
        )
        return out

    def mark(self, epoch: int, *, label: bool) -> list[str]:
        """A line at the best epoch."""
        x = self.x(epoch)
        out = [f'<path class="best" d="M{_n(x)} {TOP - 4}V{HEIGHT - BOTTOM}"/>']
        if label:
            anchor = "end" if x > (LEFT + WIDTH - RIGHT) / 2 else "start"
            shift = -6 if anchor == "end" else 6
            place = f'x="{_n(x + shift)}" y="{TOP - 8}" text-anchor="{anchor}"'
            out.append(f'<text class="note" {place}>best: epoch {epoch}</text>')
        return out

    def line(self, kind: str, epochs: Sequence[int], values: Sequence[float]) -> list[str]:
        """A line, broken where values are missing; a value between two gaps is a dot."""
        out = []
        for part in _runs(epochs, values):
            if len(part) == 1:
                out.append(self.dot(kind, *part[0]))
                continue
            points = " ".join(f"{_n(self.x(e))},{_n(self.y(v))}" for e, v in _thinned(part))
            out.append(f'<polyline class="line {kind}" points="{points}"/>')
        return out

    def dot(self, kind: str, epoch: float, value: float) -> str:
        """A point."""
        return f'<circle class="{kind} dot" cx="{_n(self.x(epoch))}" cy="{_n(self.y(value))}" r="4.5"/>'


def _runs(epochs: Sequence[int], values: Sequence[float]) -> list[list[tuple[int, float]]]:
    runs: list[list[tuple[int, float]]] = [[]]
    for epoch, value in zip(epochs, values, strict=True):
        if math.isfinite(value):
            runs[-1].append((epoch, value))
        elif runs[-1]:
            runs.append([])
    return [run for run in runs if run]


def _thinned(points: list[tuple[int, float]]) -> list[tuple[int, float]]:
    if len(points) <= MAX_POINTS:
        return points
    size = -(-len(points) // (MAX_POINTS // 2))
    out = []
    for i in range(0, len(points), size):
        part = points[i : i + size]
        out += sorted({min(part, key=lambda p: p[1]), max(part, key=lambda p: p[1])})
    return [points[0], *(p for p in out if points[0][0] < p[0] < points[-1][0]), points[-1]]


def _n(value: float) -> str:
    return f"{value:.1f}".removesuffix(".0")
