"""The parser: text to syntax tree, or all independent syntax errors of the file at once."""

from __future__ import annotations

from typing import Any

from lark import Lark, Token, Tree
from lark.exceptions import UnexpectedInput, UnexpectedToken

from graphc.diagnostics import Collector, Diagnostic, DiagnosticError, Label
from graphc.limits import MAX_ERRORS, MAX_SOURCE
from graphc.source import Source
from graphc.syntax import ast
from graphc.syntax.build import Builder
from graphc.syntax.friendly import explain
from graphc.syntax.grammar import parser
from graphc.syntax.scan import Scan, scan


def parse(source: Source) -> ast.File:
    """Parse one file.

    Raises:
        DiagnosticError: The text is not a well-formed file; carries every independent mistake, at
            most :data:`~graphc.limits.MAX_ERRORS`.
    """
    if len(source.text) > MAX_SOURCE:
        raise DiagnosticError([_too_large(source, f"{len(source.text):,} characters")])
    seen = scan(source)
    collector = Collector()
    collector.extend(seen.diagnostics)
    if not seen.readable:
        collector.raise_if_errors()
    tree, errors = _Recovery(parser(), seen).run()
    lines = {d.primary.span.line for d in seen.diagnostics if d.primary}
    builder = Builder(source)
    file = builder.build(tree) if tree is not None else None
    for diagnostic in [*errors, *builder.diagnostics]:
        # Where a character or string was wrong already, what follows from it says nothing new.
        if diagnostic.primary is None or diagnostic.primary.span.line not in lines:
            collector.add(diagnostic)
    collector.raise_if_errors()
    assert isinstance(file, ast.File), "without errors there is a tree"
    return file


def parse_bytes(name: str, data: bytes) -> ast.File:
    """Parse the content of a file as it lies on disk: UTF-8, with or without a byte order mark.

    Raises:
        DiagnosticError: As :func:`parse`; also if the bytes are no UTF-8 or too many.
    """
    return parse(decode(name, data))


def decode(name: str, data: bytes) -> Source:
    """The source text in ``data``, which must be UTF-8.

    Raises:
        DiagnosticError: The bytes are no UTF-8 or too many.
    """
    if len(data) > MAX_SOURCE:
        raise DiagnosticError([_too_large(Source(name, ""), f"{len(data):,} bytes")])
    try:
        return Source(name, data.decode("utf-8"))
    except UnicodeDecodeError as error:
        start = len(data[: error.start].decode("utf-8"))
        source = Source(name, data.decode("utf-8", errors="replace"))
        byte = data[error.start]
        diagnostic = Diagnostic(
            "E0102",
            f"{name} is not UTF-8 text",
            Label(source.span(start, start + 1), f"byte 0x{byte:02X} begins no character"),
            help=("save the file as UTF-8",),
        )
        raise DiagnosticError([diagnostic]) from None


def _too_large(source: Source, size: str) -> Diagnostic:
    return Diagnostic(
        "E0105",
        f"{source.name} holds {size}; the limit is {MAX_SOURCE:,}",
        None,
        help=("split the file; blocks can be imported from another one",),
    )


_CONTINUING = ("and", "or", "else", "{")
"""Besides operators, what at the start of a line belongs to the statement before it."""


class _Recovery:
    """Runs the parser over a text and past its errors.

    After an error the parser is wound back to where the statement began, and reading goes on at
    the next one. That keeps one mistake from being reported as many.
    """

    def __init__(self, lark: Lark, seen: Scan) -> None:
        self._lark = lark
        self._scan = seen
        self._errors: list[Diagnostic] = []
        self._position = -1

    def run(self) -> tuple[Tree[Token] | None, list[Diagnostic]]:
        """The tree (None if there was no way on) and the errors."""
        try:
            tree = self._lark.parse(self._scan.text, start="file", on_error=self._on_error)
        except UnexpectedInput:
            return None, self._errors
        return tree, self._errors

    def _on_error(self, error: UnexpectedInput) -> bool:
        """Note the error and wind back; False gives up."""
        state = error.interactive_parser.parser_state
        lexer = error.interactive_parser.lexer_thread.state
        start = _offset(error, len(self._scan.text))
        expected = frozenset(error.interactive_parser.accepts())
        self._errors.append(explain(self._scan, start, expected))
        if start <= self._position or len(self._errors) >= MAX_ERRORS:
            return False
        self._position = start
        while state.value_stack and not _begins_statement(state):
            del state.state_stack[-1]
            del state.value_stack[-1]
        depth = 0
        if state.value_stack:
            boundary = self._scan.tokens[self._scan.index_at(state.value_stack[-1].start_pos)]
            depth = boundary.depth + (boundary.kind == "open")
        lexer.line_ctr.char_pos = self._next_statement(start, depth)
        return True

    def _next_statement(self, start: int, depth: int) -> int:
        """Where reading goes on: at the next statement, or at the brace that ends the body."""
        scan = self._scan
        at_line_end = False
        for token in scan.tokens[scan.index_at(start) :]:
            if token.kind == "close" and token.depth < depth:
                return token.start
            if token.depth == depth:
                continues = token.kind == "operator" or scan.word(token) in _CONTINUING
                if at_line_end and token.kind != "newline" and not continues:
                    return token.start
                at_line_end = token.kind == "newline"
        return len(scan.text)


def _offset(error: UnexpectedInput, end: int) -> int:
    """Where the parser stopped."""
    if isinstance(error, UnexpectedToken):
        return end if error.token.type == "$END" else int(error.token.start_pos)
    return int(error.pos_in_stream)


def _begins_statement(state: Any) -> bool:
    """Whether the parser stands where a statement or definition may begin."""
    last = state.value_stack[-1]
    if not isinstance(last, Token) or last.type not in ("_NEWLINE", "LBRACE"):
        return False
    choices = state.parse_conf.states[state.position]
    return "INPUT" in choices or "MODEL" in choices
