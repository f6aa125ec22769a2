"""The place of a syntax error: the tokens around it and the statement it stands in."""

from __future__ import annotations

from dataclasses import dataclass

from graphc.diagnostics import Diagnostic, Label
from graphc.source import Span
from graphc.syntax.scan import Scan, ScanToken


@dataclass(frozen=True)
class Place:
    """The tokens around an error."""

    scan: Scan
    index: int
    begin: int
    expected: frozenset[str]

    @classmethod
    def at(cls, scan: Scan, offset: int, expected: frozenset[str]) -> Place:
        """The place of the token at ``offset``."""
        index = min(scan.index_at(offset), len(scan.tokens) - 1)
        return cls(scan, index, _statement_begin(scan, index), expected)

    @property
    def token(self) -> ScanToken:
        """The token that does not fit."""
        return self.scan.tokens[self.index]

    @property
    def word(self) -> str:
        """Its text; empty at a line's or file's end."""
        return self.word_at(0)

    def word_at(self, step: int) -> str:
        """Text of the token ``step`` after (or before) the one that does not fit."""
        index = self.index + step
        if not 0 <= index < len(self.scan.tokens):
            return ""
        token = self.scan.tokens[index]
        return "" if token.kind == "newline" else self.scan.word(token)

    def kind_at(self, step: int) -> str:
        """Kind of the token ``step`` after (or before) the one that does not fit."""
        index = self.index + step
        return self.scan.tokens[index].kind if 0 <= index < len(self.scan.tokens) else "end"

    @property
    def first(self) -> str:
        """First word of the statement."""
        return self.scan.word(self.scan.tokens[self.begin])

    @property
    def at_begin(self) -> bool:
        """Whether the first token of a statement is the one that does not fit."""
        return self.begin == self.index

    @property
    def bracket(self) -> str:
        """The innermost bracket around the place within its statement, or nothing."""
        depth = self.token.depth
        for token in reversed(self.scan.tokens[self.begin : self.index]):
            if token.kind == "open" and token.depth < depth:
                return self.scan.word(token)
        return ""

    @property
    def before(self) -> list[str]:
        """Words of the statement before the place."""
        return [self.scan.word(token) for token in self.scan.tokens[self.begin : self.index]]

    @property
    def in_train(self) -> bool:
        """Whether the place lies in a train block."""
        for token in reversed(self.scan.tokens[: self.index]):
            if token.depth == 0 and token.kind == "name":
                word = self.scan.word(token)
                if word in ("model", "block", "train"):
                    return word == "train"
        return False

    def span(self, step: int = 0) -> Span:
        """Span of a token near the place."""
        token = self.scan.tokens[self.index + step]
        return self.scan.source.span(token.start, token.end)

    def error(
        self, code: str, message: str, label: str = "", *help: str, step: int = 0
    ) -> Diagnostic:
        """A diagnostic at the token ``step`` from the place."""
        span = self.span(step)
        if self.scan.tokens[self.index + step].kind in ("newline", "end"):
            span = self.scan.source.span(span.start, span.start)
        return Diagnostic(code, message, Label(span, label), help=help)


def _statement_begin(scan: Scan, index: int) -> int:
    """Index of the first token of the statement that holds token ``index``."""
    depth = scan.tokens[index].depth
    begin = index
    while begin > 0:
        before = scan.tokens[begin - 1]
        depth = min(depth, before.depth)
        if before.kind == "newline" and _ends_statement(scan, begin - 1):
            break
        if before.kind == "open" and scan.word(before) == "{" and _opens_body(scan, begin - 1):
            break
        begin -= 1
    return begin


def _ends_statement(scan: Scan, index: int) -> bool:
    """Whether the newline at ``index`` stands in braces or outside of everything."""
    depth = scan.tokens[index].depth
    for token in reversed(scan.tokens[:index]):
        if token.kind == "open" and token.depth == depth - 1:
            return scan.word(token) == "{"
    return True


def _opens_body(scan: Scan, index: int) -> bool:
    """A brace with a space before it opens a body; one in a label touches its word."""
    start = scan.tokens[index].start
    return start == 0 or scan.text[start - 1] in " \t\n)"
