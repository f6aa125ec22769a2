"""The tables beside the grammar are the grammar's."""

from __future__ import annotations

import json
from functools import lru_cache
from pathlib import Path

import pytest

from graphc.syntax import grammar

ROOT = Path(__file__).parents[2]


def test_the_tables_are_made_from_the_grammar(request: pytest.FixtureRequest) -> None:
    stored = ROOT / "grammar" / grammar.TABLES
    if request.config.getoption("--update-golden"):
        stored.write_text(grammar.tables(), encoding="utf-8")
    # Their numbers of states differ from run to run, so that texts cannot be compared.
    assert json.loads(stored.read_text(encoding="utf-8"))["made_from"] == grammar.made_from()


@pytest.mark.parametrize("path", sorted((ROOT / "examples").rglob("*.nn")), ids=lambda p: p.name)
def test_loaded_tables_parse_as_the_grammar_does(path: Path) -> None:
    text, loaded = path.read_text(encoding="utf-8"), grammar.parser()
    assert loaded.source_path == "<deserialized>"
    assert loaded.parse(text, start="file") == _built().parse(text, start="file")


def test_tables_of_another_grammar_are_not_used(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(grammar, "made_from", lambda: "a newer grammar")
    assert grammar.parser.__wrapped__().source_path != "<deserialized>"


@lru_cache
def _built() -> grammar.Lark:
    return grammar.build()
