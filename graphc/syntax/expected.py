"""What the grammar would have taken, in words."""

from __future__ import annotations

from graphc.diagnostics import Diagnostic
from graphc.syntax.place import Place

_SYMBOLS = {
    "COLON": "`:`",
    "ASSIGN": "`=`",
    "COMMA": "`,`",
    "ARROW": "`->`",
    "LBRACE": "`{`",
    "RPAR": "`)`",
    "RSQB": "`]`",
    "RBRACE": "`}`",
    "IN": "`in`",
    "IMPORT": "`import`",
    "ELSE": "`else`",
}


def unexpected(place: Place) -> Diagnostic:
    """The error that says what would have fitted and what was found."""
    found = f"found `{place.word}`"
    if place.token.kind == "newline":
        found = "the line ends"
    elif place.token.kind == "end":
        found = "the file ends"
    elif place.token.kind == "string":
        found = "found a string"
    wanted = _expectations(place.expected)
    if not wanted:
        return place.error("E0101", f"{found} where it does not fit")
    choice = wanted[0] if len(wanted) == 1 else ", ".join(wanted[:-1]) + " or " + wanted[-1]
    if place.kind_at(-1) not in ("newline", "end") and not place.at_begin:
        after = f" after `{place.word_at(-1)}`" if len(place.word_at(-1)) < 30 else ""
    else:
        after = ""
    return place.error("E0101", f"expected {choice}{after}, {found}", "unexpected")


def _expectations(expected: frozenset[str]) -> list[str]:
    if "MODEL" in expected:
        return ["`model`", "`block`", "`train`", "`from`"]
    if {"IF", "FOR"} <= expected or "LOSS" in expected:
        return ["a statement", "`}`"]
    wanted = []
    if "LPAR" in expected and "NAME" in expected:
        wanted.append("a value")
    elif "NAME" in expected and "LSQB" in expected:
        wanted.append("a layer")
    elif "NAME" in expected:
        wanted.append("a name")
    elif "PATTERN" in expected:
        wanted.append("a label pattern")
    if "STRING" in expected and "LPAR" not in expected:
        wanted.append("a string")
    if "LPAR" in expected and "NAME" not in expected and "PLUS" not in expected:
        wanted.append("`(`")
    wanted += [text for terminal, text in _SYMBOLS.items() if terminal in expected]
    if "a value" not in wanted and "PLUS" in expected:
        wanted.append("an operator")
    if "_NEWLINE" in expected or "$END" in expected:
        wanted.append("the end of the line")
    if "a value" in wanted:
        wanted = [text for text in wanted if text not in ("`->`", "`:`")]
    return wanted
