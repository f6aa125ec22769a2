"""String literals: escapes and the values in braces."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass

ESCAPES = {"n": "\n", "t": "\t", "r": "\r", '"': '"', "\\": "\\"}
"""What may follow a backslash; ``\\u{1F600}`` is the other form."""

_PIECE = re.compile(
    r"(?P<escape>\\(?:u\{(?P<code>[0-9a-fA-F]{1,6})\}|(?P<char>.)))"
    r"|(?P<brace>\{\{|\}\})|(?P<hole>\{[^{}]*\})|(?P<stray>[{}])|(?P<text>[^\\{}]+)"
)


@dataclass(frozen=True)
class Piece:
    """Part of a string literal at ``[start, end)`` of the literal's text.

    ``text`` is the resolved text; it is None for a hole (a value in braces, braces included) and
    for a mistake, which ``problem`` describes.
    """

    start: int
    end: int
    text: str | None
    problem: str | None = None


def pieces(literal: str) -> Iterator[Piece]:
    """Take apart the text of a STRING token, quotes included."""
    for match in _PIECE.finditer(literal, 1, len(literal) - 1):
        start, end = match.span()
        if match["text"] is not None:
            yield Piece(start, end, match["text"])
        elif match["brace"] is not None:
            yield Piece(start, end, match["brace"][0])
        elif match["hole"] is not None:
            yield Piece(start, end, None)
        elif match["stray"] is not None:
            yield Piece(start, end, None, f"write `{match['stray'] * 2}` for a plain brace")
        elif match["code"] is not None:
            code = int(match["code"], 16)
            if code > 0x10FFFF or 0xD800 <= code <= 0xDFFF:
                yield Piece(start, end, None, "there is no such Unicode character")
            else:
                yield Piece(start, end, chr(code))
        elif match["char"] in ESCAPES:
            yield Piece(start, end, ESCAPES[match["char"]])
        else:
            yield Piece(start, end, None, 'the escapes are \\n \\t \\r \\" \\\\ and \\u{1F600}')
