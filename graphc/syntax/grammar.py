"""The parser of ``grammar/nn.lark``, once per process.

Building it from the grammar takes longer than all else that ``graphc check`` does, so its tables lie beside the
grammar, as data: ``grammar/nn.tables.json``, which a test keeps up to date. They are used for the very grammar and the
very version of Lark that they were made from, and built otherwise.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from functools import lru_cache
from importlib import resources
from typing import Any

import lark
from lark import Lark, Token
from lark.grammar import Rule
from lark.lexer import TerminalDef

TABLES = "nn.tables.json"


@lru_cache(maxsize=1)
def grammar_text() -> str:
    """The grammar, as it lies beside the reference in ``grammar/``."""
    return _beside("nn.lark")


@lru_cache(maxsize=1)
def parser() -> Lark:
    """The LALR parser; start rules are ``file`` and ``hole`` (a value in braces)."""
    try:
        stored = json.loads(_beside(TABLES), object_hook=_with_numbers)
    except (OSError, ValueError):
        return build()
    if stored["made_from"] != made_from():
        return build()
    empty: Any = Lark.__new__(Lark)
    loaded: Lark = empty._load(stored, postlex=_NewlineFilter())  # `load` itself takes no postlex
    return loaded


def build() -> Lark:
    """The parser, from the grammar."""
    return Lark(
        grammar_text(),
        parser="lalr",
        lexer="contextual",
        start=["file", "hole"],
        propagate_positions=True,
        maybe_placeholders=False,
        postlex=_NewlineFilter(),
    )


def tables() -> str:
    """The text of ``nn.tables.json``: what `Lark.save` would pickle."""
    data, memo = build().memo_serialize([TerminalDef, Rule])
    del data["options"]["postlex"]
    return json.dumps({"made_from": made_from(), "data": data, "memo": memo}) + "\n"


def made_from() -> str:
    """What tables must be made from to be used."""
    digest = hashlib.sha256(grammar_text().encode()).hexdigest()
    return f"nn.lark {digest} by Lark {lark.__version__}"


def _with_numbers(table: dict[str, Any]) -> dict[Any, Any]:
    """Keys as they were: numbers of states and of what is stored once; no name is one."""
    return {int(k) if k.isdecimal() else k: v for k, v in table.items()}


def _beside(name: str) -> str:
    return (resources.files("graphc") / "grammar" / name).read_text(encoding="utf-8")


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
