"""Every example in the language reference parses and stands there in canonical form.

A block marked ``nn`` is a whole file, ``nn-fragment`` the body of a model, ``nn-fragments`` items of a file.
"""

from __future__ import annotations

import re
from importlib import resources

import pytest

from graphc.source import Source
from graphc.syntax import ast
from graphc.syntax.formatter import format_source
from graphc.syntax.grammar import parser
from graphc.syntax.words import DEFINITIONS, STATEMENTS, TRAIN_STATEMENTS

REFERENCE = (resources.files("graphc") / "grammar" / "README.md").read_text(encoding="utf-8")
EXAMPLES = [
    (match[1], match[2], REFERENCE.count("\n", 0, match.start()) + 2)
    for match in re.finditer(r"```([\w-]+)\n(.*?)```", REFERENCE, re.S)
]


def test_the_reference_has_examples() -> None:
    assert {kind for kind, _, _ in EXAMPLES} == {"nn", "nn-fragment", "nn-fragments"}
    assert REFERENCE.count("```") == 2 * len(EXAMPLES)


@pytest.mark.parametrize(
    ("kind", "text"),
    [(kind, text) for kind, text, _ in EXAMPLES],
    ids=[f"line {line}" for _, _, line in EXAMPLES],
)
def test_example(kind: str, text: str) -> None:
    if kind == "nn-fragment":
        body = "".join("    " + line if line.strip() else line for line in text.splitlines(True))
        text = f"model Example {{\n{body}}}\n"
    assert format_source(Source("README.md", text)) == text


def test_the_reference_names_every_type_and_statement() -> None:
    words = set(re.findall(r"\w+", " ".join(re.findall(r"`([^`\n]+)`", REFERENCE))))
    assert set(ast.DTYPES) | set(ast.KINDS) <= words
    assert {*DEFINITIONS, *STATEMENTS, *TRAIN_STATEMENTS} <= words


def test_words_are_the_keywords_of_the_grammar() -> None:
    keywords = {
        terminal.pattern.value
        for terminal in parser().terminals
        if re.fullmatch(r"[a-z]+", terminal.pattern.value)
    }
    more = {"import", "as", "else", "in", "with", "reversed", "true", "false", "none", "and"}
    assert keywords == {*DEFINITIONS, *STATEMENTS, *TRAIN_STATEMENTS, *more, "or", "not"}
