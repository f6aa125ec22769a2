"""Draws source lines with marks under them: the picture inside a diagnostic.

Knows spans and text, nothing of diagnostics. All widths are terminal columns: a tab is drawn as
spaces, a wide character takes two columns, a combining one none. Control characters are replaced,
so that no source text can send escape sequences to a terminal.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from graphc.source import Source, Span

TAB_WIDTH = 4
MAX_LINE_WIDTH = 160
"""Longer lines are drawn as a window around their marks."""

_WINDOW_BEFORE = 40

Paint = Callable[[str, str], str]
"""``paint(style, text)``; styles are ``"primary"``, ``"secondary"`` and ``"gutter"``."""


@dataclass(frozen=True)
class Mark:
    """A span to underline, with the text that stands beside the underline."""

    span: Span
    text: str
    primary: bool

    @property
    def style(self) -> str:
        """Name of the paint style."""
        return "primary" if self.primary else "secondary"

    @property
    def stroke(self) -> str:
        """The character that underlines."""
        return "^" if self.primary else "-"


@dataclass(frozen=True)
class _Stroke:
    """The part of a mark that falls on one line, in terminal columns from 0."""

    start: int
    end: int
    text: str
    mark: Mark


def char_width(char: str) -> int:
    """Terminal columns of one character, after :func:`printable`."""
    if char < "\u0300":
        return 1
    if unicodedata.category(char) in ("Mn", "Me", "Cf"):
        return 0
    return 2 if unicodedata.east_asian_width(char) in "WF" else 1


def printable(text: str) -> str:
    """``text`` with control characters (line feed excepted) replaced by U+FFFD."""
    if text.isprintable():
        return text
    return "".join(
        "\ufffd" if unicodedata.category(char) in ("Cc", "Cs", "Zl", "Zp") else _unbidi(char)
        for char in text.split("\n")[0]
    ) + "".join("\n" + printable(line) for line in text.split("\n")[1:])


def _unbidi(char: str) -> str:
    """Bidirectional controls would show the line in another order than it is read."""
    return "\ufffd" if unicodedata.bidirectional(char) in _BIDI_CONTROLS else char


_BIDI_CONTROLS = {"LRE", "RLE", "LRO", "RLO", "PDF", "LRI", "RLI", "FSI", "PDI"}


def gutter_width(marks: list[Mark]) -> int:
    """Columns of the gutter that fits the line numbers of all ``marks``."""
    return 1 + max((len(str(_last_line(mark.span))) for mark in marks), default=1)


def draw(marks: list[Mark], gutter: int, paint: Paint) -> Iterator[str]:
    """Yield the drawn lines for ``marks``, which all lie in the same source.

    Lines that carry marks are drawn in order; a gap of one line is filled, a longer one is drawn
    as ``...``.
    """
    source = marks[0].span.source
    strokes: dict[int, list[_Stroke]] = {}
    for mark in marks:
        for line, stroke in _strokes(source, mark):
            strokes.setdefault(line, []).append(stroke)
    bar = " " * gutter + " " + paint("gutter", "|")
    yield bar
    previous = 0
    for line in sorted(strokes):
        if previous and line == previous + 2:
            yield _source_line(source, previous + 1, [], gutter, paint)[0]
        elif previous and line > previous + 2:
            yield paint("gutter", "...")
        text, placed = _source_line(source, line, strokes[line], gutter, paint)
        yield text
        for marked in _underline(placed, paint):
            yield f"{bar} {marked}"
        previous = line


def _last_line(span: Span) -> int:
    """Line of the last character of a span; that of the position itself when it is empty."""
    return span.source.line_column(max(span.start, span.end - 1))[0]


def _strokes(source: Source, mark: Mark) -> Iterator[tuple[int, _Stroke]]:
    """A mark on one line is one stroke; over several lines it marks the first and the last."""
    span = mark.span
    first, last = span.line, _last_line(span)
    if first == last:
        start = span.start - source.line_start(first)
        yield (
            first,
            _Stroke(start, max(span.end - source.line_start(first), start), mark.text, mark),
        )
        return
    start = span.start - source.line_start(first)
    yield first, _Stroke(start, max(len(source.line_text(first)), start), "", mark)
    text = source.line_text(last)
    indent = len(text) - len(text.lstrip())
    yield last, _Stroke(indent, span.end - source.line_start(last), mark.text, mark)


def _source_line(
    source: Source, line: int, strokes: list[_Stroke], gutter: int, paint: Paint
) -> tuple[str, list[_Stroke]]:
    """The drawn line and its strokes, moved from character offsets to terminal columns."""
    text = source.line_text(line)
    lead = ""
    offset = 0
    if len(text) > MAX_LINE_WIDTH:
        first = min((stroke.start for stroke in strokes), default=0)
        offset = max(0, min(first - _WINDOW_BEFORE, len(text) - MAX_LINE_WIDTH))
        lead = "…" if offset else ""
        tail = "…" if offset + MAX_LINE_WIDTH < len(text) else ""
        text = text[offset : offset + MAX_LINE_WIDTH] + tail
    columns = [len(lead)]
    drawn = lead
    for char in text.lstrip("\ufeff") if line == 1 else text:
        shown = " " * (TAB_WIDTH - columns[-1] % TAB_WIDTH) if char == "\t" else printable(char)
        drawn += shown
        columns.append(columns[-1] + sum(map(char_width, shown)))
    if line == 1 and text.startswith("\ufeff"):
        columns.insert(0, 0)

    def column(position: int) -> int:
        return columns[max(0, min(position - offset, len(columns) - 1))]

    placed = []
    for stroke in strokes:
        start, end = column(stroke.start), column(stroke.end)
        placed.append(_Stroke(start, max(end, start + 1), stroke.text, stroke.mark))
    number = paint("gutter", f"{line:>{gutter}} |")
    return f"{number} {drawn}".rstrip(), placed


def _underline(strokes: list[_Stroke], paint: Paint) -> Iterator[str]:
    """The rows under one source line: the strokes, then the texts that did not fit beside them."""
    if not strokes:
        return
    ordered = sorted(strokes, key=lambda stroke: (stroke.start, stroke.end))
    cells: list[tuple[str, str]] = [(" ", "")] * max(stroke.end for stroke in ordered)
    # The primary mark is drawn last, over the others.
    for stroke in sorted(ordered, key=lambda stroke: stroke.mark.primary):
        for position in range(stroke.start, stroke.end):
            cells[position] = (stroke.mark.stroke, stroke.mark.style)
    last = ordered[-1]
    waiting = [stroke for stroke in ordered if stroke.text]
    beside = ""
    if last.text and last.end == len(cells) and "\n" not in last.text:
        waiting.remove(last)
        beside = " " + paint(last.mark.style, printable(last.text))
    yield _join(cells, paint) + beside
    if waiting:
        yield _connectors(waiting, paint)
    while waiting:
        stroke = waiting.pop()
        lead = _connectors([other for other in waiting if other.start < stroke.start], paint)
        used = max((o.start + 1 for o in waiting if o.start < stroke.start), default=0)
        for index, text in enumerate(stroke.text.split("\n")):
            indent = lead + " " * (stroke.start - used)
            yield indent + paint(stroke.mark.style, printable(text)) if text or not index else ""


def _connectors(strokes: list[_Stroke], paint: Paint) -> str:
    """A row of ``|`` under the start of every stroke."""
    if not strokes:
        return ""
    cells: list[tuple[str, str]] = [(" ", "")] * (max(stroke.start for stroke in strokes) + 1)
    for stroke in strokes:
        cells[stroke.start] = ("|", stroke.mark.style)
    return _join(cells, paint)


def _join(cells: list[tuple[str, str]], paint: Paint) -> str:
    """Cells as text, painted in runs of one style."""
    row = ""
    start = 0
    for position in range(1, len(cells) + 1):
        if position == len(cells) or cells[position][1] != cells[start][1]:
            text = "".join(char for char, _ in cells[start:position])
            style = cells[start][1]
            row += paint(style, text) if style else text
            start = position
    return row
