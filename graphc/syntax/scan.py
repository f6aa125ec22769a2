"""A first look at the text, before the grammar: characters, strings, brackets, nesting.

What is wrong at this level would only confuse the parser: an unclosed bracket is reported at the
bracket, not at the end of the file where a parser notices. The scan also makes the text one that
the parser can read on: a stray character becomes a space, single quotes become double ones. The
length never changes, so offsets stay true.
"""

from __future__ import annotations

import re
from bisect import bisect_right
from dataclasses import dataclass, field
from functools import cached_property, lru_cache
from typing import Literal

from graphc.diagnostics import Diagnostic, Label
from graphc.limits import MAX_ERRORS, MAX_NESTING
from graphc.source import Source, Span
from graphc.syntax.grammar import terminal_pattern

TokenKind = Literal["name", "number", "string", "operator", "open", "close", "newline", "end"]

_CLOSER = {"(": ")", "[": "]", "{": "}"}
_OPENER = {closer: opener for opener, closer in _CLOSER.items()}

_CHARACTER_HELP = {
    ";": "a statement ends at the end of its line; leave the `;` out",
    "!": "write `not` (or `logical_not(x)` on tensors)",
    "&": "write `and` (or `logical_and(a, b)` on tensors)",
    "|": "write `or` (or `logical_or(a, b)` on tensors)",
    "?": "a choice is written `a if condition else b`",
    "$": "a value in a label or a string is written in braces: `layer{i}`",
    "→": "write the arrow as `->`",
    "×": "write `*`",
    "·": "write `*`",
    "÷": "write `/`",
    "−": "write `-`",
    "–": "write `-`",
    "—": "write `-`",
    "≤": "write `<=`",
    "≥": "write `>=`",
    "≠": "write `!=`",
    "“": 'strings stand in straight double quotes: `"text"`',
    "”": 'strings stand in straight double quotes: `"text"`',
    "‘": 'strings stand in straight double quotes: `"text"`',
    "’": 'strings stand in straight double quotes: `"text"`',
    "…": "write three dots: `...`",
    "\u00a0": "this is a no-break space; write an ordinary one",
    "\x00": "this looks like a binary file",
}


@dataclass(frozen=True)
class ScanToken:
    """A piece of the text that is no space or comment; ``depth`` counts the brackets around it."""

    kind: TokenKind
    start: int
    end: int
    depth: int


@dataclass
class Scan:
    """What the first look found.

    Attributes:
        source: The text as written.
        text: The text for the parser, of the same length.
        tokens: Its tokens in order, an ``end`` token last.
        diagnostics: Mistakes found so far.
        readable: False if brackets are so wrong that parsing would only mislead.
        comments: Start and end of every comment.
    """

    source: Source
    text: str
    tokens: list[ScanToken] = field(default_factory=list)
    diagnostics: list[Diagnostic] = field(default_factory=list)
    readable: bool = True
    comments: list[tuple[int, int]] = field(default_factory=list)

    def report(self, diagnostic: Diagnostic) -> None:
        """Keep a diagnostic, up to :data:`MAX_ERRORS`."""
        if len(self.diagnostics) < MAX_ERRORS:
            self.diagnostics.append(diagnostic)

    def index_at(self, offset: int) -> int:
        """Index of the first token that starts at ``offset`` or later."""
        return bisect_right(self._starts, offset - 1)

    @cached_property
    def _starts(self) -> list[int]:
        return [token.start for token in self.tokens]

    def word(self, token: ScanToken) -> str:
        """The text of a token."""
        return self.text[token.start : token.end]


@lru_cache(maxsize=1)
def _token_pattern() -> re.Pattern[str]:
    name = terminal_pattern("NAME")
    number = f"(?:{terminal_pattern('FLOAT')}|{terminal_pattern('INT')})"
    return re.compile(
        rf"(?P<space>[ \t\r\f\ufeff]+)|(?P<comment>#[^\n]*)|(?P<newline>\n)|(?P<name>{name})"
        rf"|(?P<number>{number})|(?P<string>{terminal_pattern('STRING')})"
        r"|(?P<open>[(\[{])|(?P<close>[)\]}])"
        r"|(?P<operator>->|\.\.\.|\*\*|//|[=!<>]=|[-+*/%@<>=.,:])"
        r"|(?P<unclosed>\"[^\n]*)|(?P<quoted>'[^'\"\\\n{}]*')|(?P<bad>.)",
        re.DOTALL,
    )


def scan(source: Source) -> Scan:
    """Look at every character of ``source`` once; time and memory are linear in its length."""
    result = Scan(source, source.text)
    repairs: list[tuple[int, int, str]] = []
    brackets: list[tuple[str, int]] = []
    at_line_start = True
    for match in _token_pattern().finditer(source.text):
        kind, start, end = match.lastgroup, match.start(), match.end()
        if kind in ("space", "comment"):
            at_line_start = False
            if kind == "comment":
                result.comments.append((start, end))
            continue
        if kind in ("bad", "unclosed", "quoted"):
            repair = _mistaken(result, kind, start, end)
            repairs.append((start, end, repair))
            if kind == "quoted":
                result.tokens.append(ScanToken("string", start, end, len(brackets)))
            at_line_start = False
            continue
        if kind == "name" and at_line_start and brackets and _starts_definition(result, match):
            _report_unclosed(result, brackets, start, end)
            brackets.clear()
        if kind == "open":
            result.tokens.append(ScanToken("open", start, end, len(brackets)))
            brackets.append((match.group(), start))
            if len(brackets) > MAX_NESTING:
                result.report(too_deep(source.span(start, end)))
                result.readable = False
                break
        elif kind == "close":
            _close(result, brackets, match.group(), start)
            result.tokens.append(ScanToken("close", start, end, len(brackets)))
        else:
            result.tokens.append(ScanToken(kind, start, end, len(brackets)))  # type: ignore[arg-type]
        at_line_start = kind == "newline"
    else:
        if brackets:
            _report_unclosed(result, brackets, len(source.text), len(source.text))
    end = len(source.text)
    result.tokens.append(ScanToken("end", end, end, len(brackets)))
    result.text = _repaired(source.text, repairs)
    return result


def too_deep(span: Span) -> Diagnostic:
    """The diagnostic for nesting beyond :data:`MAX_NESTING`."""
    return Diagnostic(
        "E0104",
        f"nested more than {MAX_NESTING} levels deep",
        Label(span, "too deep from here"),
        help=("give an inner part a name of its own, or move it into a block",),
    )


def _starts_definition(result: Scan, match: re.Match[str]) -> bool:
    """Whether an unindented word opens a definition, which cannot stand inside another."""
    if match.group() not in ("model", "block", "train"):
        return False
    return re.compile(r"[ \t]+\w+[ \t]*[({]").match(result.source.text, match.end()) is not None


def _mistaken(result: Scan, kind: str, start: int, end: int) -> str:
    """Report a character or string that the language does not have; return what to read for it."""
    text = result.source.text[start:end]
    span = result.source.span(start, end)
    if kind == "quoted":
        result.report(
            Diagnostic(
                "E0109",
                "strings stand in double quotes",
                Label(span, "single quotes"),
                help=(f'write `"{text[1:-1]}"`',),
            )
        )
        return f'"{text[1:-1]}"'
    if kind == "unclosed":
        result.report(
            Diagnostic(
                "E0106",
                "this string is not closed on its line",
                Label(span, "opened here"),
                help=('close it with `"`; a line break inside a string is written `\\n`',),
            )
        )
        return '"' + " " * (len(text) - 2) + '"' if len(text) > 1 else " "
    last = result.diagnostics[-1] if result.diagnostics else None
    if last and last.code == "E0103" and last.primary and last.primary.span.end == start:
        return " "
    result.report(_unknown_character(span, text))
    return " "


def _unknown_character(span: Span, char: str) -> Diagnostic:
    shown = f"`{char}`" if char.isprintable() else f"U+{ord(char):04X}"
    help_text = _CHARACTER_HELP.get(char)
    if char == "'":
        return Diagnostic(
            "E0109",
            "strings stand in double quotes",
            Label(span, "single quote"),
            help=('write `"text"`',),
        )
    return Diagnostic(
        "E0103",
        f"the character {shown} means nothing here",
        Label(span, ""),
        help=(help_text,) if help_text else (),
    )


def _close(result: Scan, brackets: list[tuple[str, int]], closer: str, position: int) -> None:
    """Match a closing bracket with what is open."""
    source = result.source
    opener = _OPENER[closer]
    span = source.span(position, position + 1)
    # A closing parenthesis does not reach out of the braces it stands in.
    reachable = [bracket for bracket, _ in brackets]
    if closer != "}" and "{" in reachable:
        reachable = reachable[len(reachable) - reachable[::-1].index("{") :]
    if opener in reachable:
        while brackets[-1][0] != opener:
            bracket, start = brackets.pop()
            _unclosed(result, bracket, start, position, position + 1)
        brackets.pop()
        return
    result.readable = False
    if reachable and closer != "}":
        bracket, start = brackets.pop()
        label = Label(span, f"expected `{_CLOSER[bracket]}`")
        opened = Label(source.span(start, start + 1), "opened here")
        message = f"`{bracket}` is closed by `{closer}`"
        result.report(Diagnostic("E0108", message, label, (opened,)))
        return
    label = Label(span, f"no `{opener}` is open here")
    result.report(Diagnostic("E0108", f"`{closer}` closes nothing", label))


def _report_unclosed(result: Scan, brackets: list[tuple[str, int]], start: int, end: int) -> None:
    """Report what is open where a definition starts or the file ends: the innermost will do."""
    bracket, position = brackets[-1]
    _unclosed(result, bracket, position, start, end)


def _unclosed(result: Scan, bracket: str, opened: int, start: int, end: int) -> None:
    result.readable = False
    source = result.source
    closer = _CLOSER[bracket]
    at_end = start == len(source.text)
    result.report(
        Diagnostic(
            "E0107",
            f"`{bracket}` is never closed",
            Label(source.span(opened, opened + 1), "opened here"),
            () if at_end else (Label(source.span(start, end), f"expected `{closer}` before this"),),
            help=(f"add the missing `{closer}`",) if at_end else (),
        )
    )


def _repaired(text: str, repairs: list[tuple[int, int, str]]) -> str:
    pieces = []
    position = 0
    for start, end, repair in repairs:
        pieces += [text[position:start], repair]
        position = end
    return "".join([*pieces, text[position:]])
