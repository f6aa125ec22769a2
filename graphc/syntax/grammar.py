"""Loads ``grammar/nn.lark`` and builds the parser from it, once per process."""

from __future__ import annotations

from collections.abc import Iterator
from functools import lru_cache
from importlib import resources

from lark import Lark, Token


@lru_cache(maxsize=1)
def grammar_text() -> str:
    """The grammar, as it lies beside the reference in ``grammar/``."""
    return (resources.files("graphc") / "grammar" / "nn.lark").read_text(encoding="utf-8")


@lru_cache(maxsize=1)
def parser() -> Lark:
    """The LALR parser; start rules are ``file`` and ``hole`` (a value in braces)."""
    return Lark(
        grammar_text(),
        parser="lalr",
        lexer="contextual",
        start=["file", "hole"],
        propagate_positions=True,
        maybe_placeholders=False,
        postlex=_NewlineFilter(),
    )


def terminal_pattern(name: str) -> str:
    """The regular expression of a terminal, for code that must agree with the grammar."""
    return str(parser().get_terminal(name).pattern.to_regexp())


class _NewlineFilter:
    """Drops newlines between parentheses and square brackets."""

    # The lexer must see a newline even where the parser could not take one.
    always_accept = ("_NEWLINE",)

    def process(self, stream: Iterator[Token]) -> Iterator[Token]:
        """Yield the tokens that the parser is to see."""
        brackets: list[str] = []
        for token in stream:
            if token.type in ("LPAR", "LSQB", "LBRACE"):
                brackets.append(token.type)
            elif token.type in ("RPAR", "RSQB", "RBRACE") and brackets:
                brackets.pop()
            elif token.type == "_NEWLINE" and brackets and brackets[-1] != "LBRACE":
                continue
            yield token
