"""A small pretty printer: text with places where a line may break.

A document is a string, a tuple of documents, or one of the classes here. :func:`render` breaks as
few groups as it takes to keep lines within the width, outermost first (P. Wadler, "A prettier
printer", 2003; D. C. Oppen, "Prettyprinting", 1980).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

MAX_PADDING = 12
"""Rows of a chain are aligned if no cell needs more spaces than this."""

MAX_HANG = 48
"""Rows of a chain hang under their first arrow up to this column."""


@dataclass(frozen=True)
class Line:
    """A place to break: ``flat`` if the group fits on its line, else a new line."""

    flat: str = " "
    hard: bool = False


@dataclass(frozen=True)
class Group:
    """Either all of its own lines break or none."""

    content: Doc
    hard: bool = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "hard", must_break(self.content))


@dataclass(frozen=True)
class Indent:
    """Lines inside begin four columns further right."""

    content: Doc


@dataclass(frozen=True)
class IfBroken:
    """One text if the group around it is broken, another if not."""

    broken: str
    flat: str = ""


@dataclass(frozen=True)
class Fill:
    """Items with as many on each line as fit; each but the last is followed by a comma."""

    items: tuple[Doc, ...]


@dataclass(frozen=True)
class Comment:
    """A comment at the end of a line; it counts for no width and the line must break after it."""

    text: str


@dataclass(frozen=True)
class Row:
    """A row of a chain: comment lines above it, stages (arrow included), a comment beside it."""

    above: tuple[str, ...]
    cells: tuple[Doc, ...]
    beside: str = ""


@dataclass(frozen=True)
class Rows:
    """The stages of a chain, in the rows in which the author set them.

    With ``hang`` they begin on the line of the chain's input and go on below the first arrow;
    without it they begin on a line of their own. Neighbouring rows with the same number of stages
    are aligned as columns.
    """

    rows: tuple[Row, ...]
    hang: bool

    @property
    def one_line(self) -> bool:
        """Whether the chain may stand on one line with its input."""
        row = self.rows[0]
        return self.hang and len(self.rows) == 1 and not (row.above or row.beside)


Doc = Any
"""``str``, a tuple of documents, or one of the classes above."""


def must_break(doc: Doc) -> bool:
    """Whether a document holds a line that always breaks."""
    if isinstance(doc, tuple):
        return any(map(must_break, doc))
    if isinstance(doc, Comment):
        return True
    if isinstance(doc, Line | Group):
        return doc.hard
    if isinstance(doc, Indent):
        return must_break(doc.content)
    if isinstance(doc, Fill):
        return must_break(doc.items)
    if isinstance(doc, Rows):
        return not doc.one_line or must_break(doc.rows[0].cells)
    return False


def flat(doc: Doc) -> str:
    """A document on one line, whatever its width; it must have no line that always breaks."""
    if isinstance(doc, str):
        return doc
    if isinstance(doc, tuple):
        return "".join(map(flat, doc))
    if isinstance(doc, Line | IfBroken):
        return doc.flat
    if isinstance(doc, Fill):
        return ", ".join(map(flat, doc.items))
    if isinstance(doc, Rows):
        return "".join(" " + flat(cell) for row in doc.rows for cell in row.cells)
    return flat(doc.content)


_Command = tuple[int, bool, Doc]  # indentation, broken, document


def render(doc: Doc, indent: int, width: int) -> str:
    """Lay out ``doc`` from column ``indent`` on; lines end without spaces.

    The first line is not indented: the caller has written what stands before it.
    """
    return _Printer(indent, width).run(doc)


class _Printer:
    """The state of one layout: what is written and what is yet to be."""

    def __init__(self, indent: int, width: int) -> None:
        self._width = width
        self._column = indent
        self._indent = indent
        self._out: list[str] = []
        self._stack: list[_Command] = []

    def run(self, doc: Doc) -> str:
        self._stack = [(self._indent, True, doc)]
        while self._stack:
            indent, broken, doc = self._stack.pop()
            if isinstance(doc, str):
                self._write(doc)
            elif isinstance(doc, tuple):
                self._push(indent, broken, doc)
            elif isinstance(doc, Line):
                if broken:
                    self._newline(indent)
                else:
                    self._write(doc.flat)
            elif isinstance(doc, Group):
                fits = not doc.hard and self._fits(flat(doc.content))
                self._stack.append((indent, not fits, doc.content))
            elif isinstance(doc, Indent):
                self._stack.append((indent + 4, broken, doc.content))
            elif isinstance(doc, IfBroken):
                self._write(doc.broken if broken else doc.flat)
            elif isinstance(doc, Comment):
                self._write("  " + doc.text)
            elif isinstance(doc, Fill):
                self._fill(indent, broken, doc)
            else:
                self._rows(indent, broken, doc)
        return "".join(self._out)

    def _push(self, indent: int, broken: bool, docs: Sequence[Doc]) -> None:
        self._stack.extend((indent, broken, doc) for doc in reversed(docs))

    def _write(self, text: str) -> None:
        self._out.append(text)
        self._column += len(text)

    def _newline(self, indent: int) -> None:
        self._out.append("\n" + " " * indent)
        self._column = indent

    def _fits(self, text: str) -> bool:
        """Whether ``text`` and what must follow it on the same line stay within the width."""
        room = self._width - self._column - len(text)
        for length in self._following():
            room -= length
            if room < 0:
                return False
        return room >= 0

    def _following(self) -> Iterator[int]:
        """Lengths of what is written after this up to the next place where a line may break."""
        pending = list(self._stack)
        while pending:
            indent, broken, doc = pending.pop()
            if isinstance(doc, str):
                yield len(doc)
            elif isinstance(doc, tuple):
                pending.extend((indent, broken, part) for part in reversed(doc))
            elif isinstance(doc, Line):
                if broken:
                    return
                yield len(doc.flat)
            elif isinstance(doc, IfBroken):
                yield len(doc.broken if broken else doc.flat)
            elif isinstance(doc, Indent):
                pending.append((indent, broken, doc.content))
            elif isinstance(doc, Group):
                # It may still break; only what stands before its first line is certain.
                pending.append((indent, True, doc.content))
            elif isinstance(doc, Fill):
                yield len(flat(doc.items[0])) if not must_break(doc.items[0]) else 0
                return
            else:
                return

    def _fill(self, indent: int, broken: bool, doc: Fill) -> None:
        if not broken:
            self._write(flat(doc))
            return
        for index, item in enumerate(doc.items):
            text = flat(item)
            last = index == len(doc.items) - 1
            if index and self._column + 1 + len(text) + 1 > self._width:
                self._newline(indent)
            elif index:
                self._write(" ")
            self._write(text if last else text + ",")

    def _rows(self, indent: int, broken: bool, doc: Rows) -> None:
        if doc.one_line and not must_break(doc.rows[0].cells):
            text = flat(doc)
            if not broken or self._fits(text):
                self._write(text)
                return
        base = self._column + 1 if doc.hang else indent + 4
        packed = _packed(doc.rows, self._width - base)
        if base > MAX_HANG and len(packed) > 1:
            base = indent + 4
            packed = _packed(doc.rows, self._width - base)
        starts_line = base != self._column + 1
        output: list[Doc] = []
        widths = _column_widths(packed, self._width - base)
        newline = Line(hard=True)
        for index, (row, padded) in enumerate(zip(packed, widths, strict=True)):
            output.append(newline if starts_line or index else " ")
            for comment in row.above:
                output += [comment, newline]
            for position, cell in enumerate(row.cells):
                last = position == len(row.cells) - 1
                text = cell if last or not padded else flat(cell).ljust(padded[position])
                output += [Group(text), "" if last else " "]
            if row.beside:
                output.append(Comment(row.beside))
        self._push(base, True, output)


def _packed(rows: tuple[Row, ...], width: int) -> list[Row]:
    """Rows split further where they are wider than ``width``."""
    packed: list[Row] = []
    for row in rows:
        above, cells, used = row.above, [row.cells[0]], _cell_width(row.cells[0])
        for cell in row.cells[1:]:
            needed = 1 + _cell_width(cell)
            if used + needed > width:
                packed.append(Row(above, tuple(cells)))
                above, cells, used = (), [cell], needed - 1
            else:
                cells.append(cell)
                used += needed
        packed.append(Row(above, tuple(cells), row.beside))
    return packed


def _cell_width(cell: Doc) -> int:
    """Width on one line; beyond any width if it cannot stand on one."""
    return 10**9 if must_break(cell) else len(flat(cell))


def _column_widths(rows: list[Row], width: int) -> list[list[int]]:
    """For each row the widths to which its cells are padded; empty where rows do not align."""
    result: list[list[int]] = [[] for _ in rows]
    start = 0
    for end in range(1, len(rows) + 1):
        if end < len(rows) and len(rows[end].cells) == len(rows[start].cells):
            continue
        run = rows[start:end]
        widths = [[_cell_width(cell) for cell in row.cells] for row in run]
        columns = list(zip(*widths, strict=True))
        padded = [max(column) for column in columns]
        close = all(max(column) - min(column) <= MAX_PADDING for column in columns[:-1])
        if len(run) > 1 and close and sum(padded) + len(padded) - 1 <= width:
            result[start:end] = [padded] * len(run)
        start = end
    return result
