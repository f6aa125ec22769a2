"""Comments of a text, handed out to the parts of it that are formatted."""

from __future__ import annotations

from bisect import bisect_left

from graphc.source import Source
from graphc.syntax.scan import scan


class Comments:
    """The comments of one source; each is handed out once, so that none is lost or doubled.

    A part of the text first takes the comments above it, then formats its inner parts (which take
    theirs), then takes what is left inside of it, and last the comment beside its end.
    """

    def __init__(self, source: Source) -> None:
        self._text = source.text
        self._places = scan(source).comments
        self._starts = [start for start, _ in self._places]
        self._taken = [False] * len(self._places)

    def take(self, start: int, end: int) -> list[tuple[int, str]]:
        """The comments that begin in ``[start, end)``, with their offsets, in order."""
        taken = []
        for index in range(bisect_left(self._starts, start), bisect_left(self._starts, end)):
            if not self._taken[index]:
                self._taken[index] = True
                taken.append((self._starts[index], self._content(index)))
        return taken

    def texts(self, start: int, end: int) -> tuple[str, ...]:
        """As :meth:`take`, without the offsets."""
        return tuple(text for _, text in self.take(start, end))

    def beside(self, end: int) -> str:
        """The comment on the line where something ends, if only a comma or space is between."""
        index = bisect_left(self._starts, end)
        if index == len(self._starts) or self._taken[index]:
            return ""
        if self._text[end : self._starts[index]].strip(" \t\r\f\ufeff,") != "":
            return ""
        self._taken[index] = True
        return self._content(index)

    def remain(self, start: int, end: int) -> bool:
        """Whether comments that begin in ``[start, end)`` are yet to be taken."""
        indices = range(bisect_left(self._starts, start), bisect_left(self._starts, end))
        return not all(self._taken[index] for index in indices)

    def end_of(self, offset: int) -> int:
        """End of the comment that begins at ``offset``."""
        return self._places[bisect_left(self._starts, offset)][1]

    def _content(self, index: int) -> str:
        start, end = self._places[index]
        return self._text[start:end].rstrip()
