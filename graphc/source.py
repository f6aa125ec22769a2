"""Source text and spans: every later thing can say where in a ``.nn`` file it came from."""

from __future__ import annotations

from bisect import bisect_right
from dataclasses import dataclass
from functools import cached_property


@dataclass(frozen=True)
class Source:
    """One piece of source text under the name that diagnostics show.

    Offsets count characters (not bytes) from 0; lines and columns count from 1. Only ``\\n`` ends a
    line, so a file with ``\\r\\n`` endings has the same line numbers as everywhere else.

    Equality and hash go by name and text; Python caches the hash of a string, so both are cheap.
    """

    name: str
    text: str

    def __repr__(self) -> str:
        return f"Source({self.name!r}, {len(self.text)} characters)"

    @cached_property
    def _line_starts(self) -> list[int]:
        starts = [0]
        position = self.text.find("\n")
        while position >= 0:
            starts.append(position + 1)
            position = self.text.find("\n", position + 1)
        return starts

    @property
    def line_count(self) -> int:
        """Number of lines; the empty line after a final newline counts."""
        return len(self._line_starts)

    def line_column(self, offset: int) -> tuple[int, int]:
        """Line and column, both from 1, of the character at ``offset`` (clamped to the text)."""
        offset = max(0, min(offset, len(self.text)))
        line = bisect_right(self._line_starts, offset)
        return line, offset - self._line_starts[line - 1] + 1

    def line_start(self, line: int) -> int:
        """Offset of the first character of line ``line`` (from 1)."""
        return self._line_starts[line - 1]

    def line_text(self, line: int) -> str:
        """Text of line ``line`` (from 1) without its line ending."""
        start = self._line_starts[line - 1]
        end = self._line_starts[line] - 1 if line < len(self._line_starts) else len(self.text)
        return self.text[start:end].rstrip("\r")

    def span(self, start: int, end: int) -> Span:
        """The span of the characters ``start`` (included) to ``end`` (excluded)."""
        return Span(self, start, end)


@dataclass(frozen=True)
class Span:
    """A half-open range of characters ``[start, end)`` of one source."""

    source: Source
    start: int
    end: int

    def __repr__(self) -> str:
        return f"Span({self})"

    def __str__(self) -> str:
        """``file:line:column``, the form terminals and editors turn into a link."""
        return f"{self.source.name}:{self.line}:{self.column}"

    @property
    def line(self) -> int:
        """Line of the first character, from 1."""
        return self.source.line_column(self.start)[0]

    @property
    def column(self) -> int:
        """Column of the first character, from 1."""
        return self.source.line_column(self.start)[1]

    @property
    def end_line(self) -> int:
        """Line of the position just after the last character, from 1."""
        return self.source.line_column(self.end)[0]

    @property
    def end_column(self) -> int:
        """Column of the position just after the last character, from 1."""
        return self.source.line_column(self.end)[1]

    @property
    def text(self) -> str:
        """The characters the span covers."""
        return self.source.text[self.start : self.end]

    def join(self, other: Span) -> Span:
        """The smallest span that covers both; ``other`` must lie in the same source.

        Raises:
            ValueError: The spans lie in different sources.
        """
        if self.source != other.source:
            raise ValueError(f"cannot join spans of {self.source.name} and {other.source.name}")
        return Span(self.source, min(self.start, other.start), max(self.end, other.end))
