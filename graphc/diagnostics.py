"""Diagnostics: what is wrong, where, why, and what to do about it.

A :class:`Diagnostic` is data: the terminal (:func:`render`), ``--json`` (:func:`to_json`) and
Python exceptions (:class:`DiagnosticError`) all carry the same one.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any, Literal

from graphc import snippet
from graphc.source import Source, Span

MAX_FRAMES = 8
"""A longer call stack of blocks is drawn with its middle left out."""


@dataclass(frozen=True)
class Label:
    """A place and what is to be said about it; the text may be empty."""

    span: Span
    text: str


@dataclass(frozen=True)
class Frame:
    """One level of the call stack of blocks: ``while expanding `Bottleneck``` at a place."""

    description: str
    span: Span


@dataclass(frozen=True)
class Diagnostic:
    """One mistake (or warning).

    Attributes:
        code: ``E0204``; a key of :data:`graphc.codes.CODES`.
        message: One line that says what is wrong, with names in backquotes.
        primary: Where the author made it; None only for what has no place in a file.
        secondary: Related places, such as the one a shape comes from.
        notes: Facts that explain the rule which failed.
        help: What to write instead, when something near is known to work.
        trace: The blocks being expanded, innermost first.
        severity: A warning stops nothing.
    """

    code: str
    message: str
    primary: Label | None
    secondary: tuple[Label, ...] = ()
    notes: tuple[str, ...] = ()
    help: tuple[str, ...] = ()
    trace: tuple[Frame, ...] = ()
    severity: Literal["error", "warning"] = "error"


class DiagnosticError(Exception):
    """One or more diagnostics as an exception; its text is their plain rendering."""

    def __init__(self, diagnostics: Iterable[Diagnostic]) -> None:
        self.diagnostics: tuple[Diagnostic, ...] = tuple(diagnostics)
        super().__init__(self.diagnostics)

    def __str__(self) -> str:
        return render(self.diagnostics, color=False)


class Collector:
    """Gathers diagnostics, so that all independent mistakes are reported in one go.

    Equal diagnostics count once. The order is that of the text: sources in the order in which
    they first appear, places within a source from top to bottom, ties as added.
    """

    def __init__(self) -> None:
        self._diagnostics: dict[Diagnostic, None] = {}

    def add(self, diagnostic: Diagnostic) -> None:
        """Keep ``diagnostic`` unless an equal one is there already."""
        self._diagnostics.setdefault(diagnostic)

    def extend(self, diagnostics: Iterable[Diagnostic]) -> None:
        """Add each of ``diagnostics``."""
        for diagnostic in diagnostics:
            self.add(diagnostic)

    @property
    def diagnostics(self) -> tuple[Diagnostic, ...]:
        """Everything collected, ordered."""
        return _in_text_order(self._diagnostics)

    @property
    def errors(self) -> tuple[Diagnostic, ...]:
        """The collected errors, ordered."""
        return tuple(d for d in self.diagnostics if d.severity == "error")

    @property
    def warnings(self) -> tuple[Diagnostic, ...]:
        """The collected warnings, ordered."""
        return tuple(d for d in self.diagnostics if d.severity == "warning")

    def raise_if_errors(self) -> None:
        """Raise everything collected if at least one of it is an error.

        Raises:
            DiagnosticError: An error was added.
        """
        if self.errors:
            raise DiagnosticError(self.diagnostics)


def _in_text_order(diagnostics: Iterable[Diagnostic]) -> tuple[Diagnostic, ...]:
    sources: dict[str, int] = {}
    keyed = []
    for diagnostic in diagnostics:
        if diagnostic.primary is None:
            keyed.append((-1, 0, diagnostic))
            continue
        span = diagnostic.primary.span
        rank = sources.setdefault(span.source.name, len(sources))
        keyed.append((rank, span.start, diagnostic))
    return tuple(diagnostic for *_, diagnostic in sorted(keyed, key=lambda item: item[:2]))


# ---------------------------------------------------------------------------------------------
# Names that are near


def nearest(name: str, candidates: Iterable[str]) -> str | None:
    """The candidate that ``name`` most likely is a slip of, or None if none is near.

    Distance is the restricted Damerau-Levenshtein distance (insert, delete, replace, swap
    neighbours; R. A. Wagner and R. Lowrance, 1975) with letter case ignored first. At most a third
    of the longer name may differ. Ties go to the alphabetically first.
    """
    best: tuple[int, int, str] | None = None
    for candidate in sorted(set(candidates)):
        if candidate == name or max(len(name), len(candidate)) > 64:
            continue
        limit = max(1, max(len(name), len(candidate)) // 3)
        distance = _edit_distance(name.casefold(), candidate.casefold(), limit)
        if distance is None or (len(name) <= 2 and distance):
            continue
        key = (distance, _edit_distance(name, candidate, 64) or 0, candidate)
        if best is None or key < best:
            best = key
    return best[2] if best else None


def _edit_distance(a: str, b: str, limit: int) -> int | None:
    """Restricted Damerau-Levenshtein distance, or None if it is above ``limit``."""
    if abs(len(a) - len(b)) > limit:
        return None
    before: list[int] = []
    row = list(range(len(b) + 1))
    for i, char in enumerate(a, 1):
        current = [i]
        for j, other in enumerate(b, 1):
            cost = min(row[j] + 1, current[-1] + 1, row[j - 1] + (char != other))
            if i > 1 and j > 1 and char == b[j - 2] and a[i - 2] == other:
                cost = min(cost, before[j - 2] + 1)
            current.append(cost)
        before, row = row, current
        if min(row) > limit:
            return None
    return row[-1] if row[-1] <= limit else None


# ---------------------------------------------------------------------------------------------
# Renderers

_COLORS = {
    "error": "1;31",
    "warning": "1;33",
    "primary": "1;31",
    "secondary": "1;34",
    "gutter": "1;34",
    "bold": "1",
}


def render(diagnostics: Iterable[Diagnostic], *, color: bool) -> str:
    """Diagnostics as text for a terminal, in the order given, an empty line between them.

    ``color`` adds ANSI colours; without it the text is plain.
    """

    def paint(style: str, text: str) -> str:
        return f"\x1b[{_COLORS[style]}m{text}\x1b[0m" if color and text else text

    return "\n\n".join("\n".join(_rendered(diagnostic, paint)) for diagnostic in diagnostics)


def _rendered(diagnostic: Diagnostic, paint: snippet.Paint) -> Iterator[str]:
    head = paint(diagnostic.severity, f"{diagnostic.severity}[{diagnostic.code}]")
    yield head + paint("bold", f": {snippet.printable(diagnostic.message)}")
    marks = []
    if diagnostic.primary is not None:
        marks.append(snippet.Mark(diagnostic.primary.span, diagnostic.primary.text, primary=True))
    marks += [snippet.Mark(label.span, label.text, primary=False) for label in diagnostic.secondary]
    gutter = snippet.gutter_width(marks)
    by_source: dict[Source, list[snippet.Mark]] = {}
    for mark in marks:
        by_source.setdefault(mark.span.source, []).append(mark)
    for index, group in enumerate(by_source.values()):
        arrow = ":::" if index else "-->"
        yield " " * gutter + paint("gutter", arrow) + f" {_place(group[0].span)}"
        yield from snippet.draw(group, gutter, paint)
    bullet = " " * gutter + " " + paint("gutter", "=") + " "
    for line in _trace_lines(diagnostic.trace):
        yield bullet + line
    for kind, texts in (("note", diagnostic.notes), ("help", diagnostic.help)):
        for text in texts:
            first, *rest = snippet.printable(text).split("\n")
            yield f"{bullet}{paint('bold', kind)}: {first}"
            yield from (" " * (gutter + len(kind) + 5) + line for line in rest)


def _place(span: Span) -> str:
    return snippet.printable(str(span)).replace("\n", "\ufffd")


def _trace_lines(trace: tuple[Frame, ...]) -> Iterator[str]:
    keep = MAX_FRAMES // 2
    for index, frame in enumerate(trace):
        if len(trace) > MAX_FRAMES and keep <= index < len(trace) - keep:
            if index == keep:
                yield f"... {len(trace) - 2 * keep} more levels ..."
            continue
        yield f"{snippet.printable(frame.description)} at {_place(frame.span)}"


def to_json(diagnostics: Iterable[Diagnostic]) -> list[dict[str, Any]]:
    """Diagnostics as JSON-ready data, in the order given.

    A place is ``{"file", "line", "column", "end_line", "end_column", "start", "end"}``: lines and
    columns from 1, offsets in characters from 0, ends excluded.
    """
    return [
        {
            "code": diagnostic.code,
            "severity": diagnostic.severity,
            "message": diagnostic.message,
            "primary": _label_json(diagnostic.primary) if diagnostic.primary else None,
            "secondary": [_label_json(label) for label in diagnostic.secondary],
            "notes": list(diagnostic.notes),
            "help": list(diagnostic.help),
            "trace": [
                {"description": frame.description, **_span_json(frame.span)}
                for frame in diagnostic.trace
            ],
        }
        for diagnostic in diagnostics
    ]


def _label_json(label: Label) -> dict[str, Any]:
    return {**_span_json(label.span), "text": label.text}


def _span_json(span: Span) -> dict[str, Any]:
    return {
        "file": span.source.name,
        "line": span.line,
        "column": span.column,
        "end_line": span.end_line,
        "end_column": span.end_column,
        "start": span.start,
        "end": span.end,
    }
