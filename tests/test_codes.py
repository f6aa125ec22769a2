"""Every code that is used is explained, and every explained code is used."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

import graphc
from graphc.codes import CODES

PACKAGE = Path(graphc.__file__).parent


def used() -> set[str]:
    """Codes that stand in the package's sources outside of the explanations."""
    found: set[str] = set()
    for path in PACKAGE.rglob("*.py"):
        if PACKAGE / "codes" not in path.parents:
            found |= set(re.findall(r'"(E0\d{3})"', path.read_text(encoding="utf-8")))
    return found


def test_used_codes_are_explained() -> None:
    assert sorted(used() - set(CODES)) == []


def test_explained_codes_are_used() -> None:
    assert sorted(set(CODES) - used()) == []


@pytest.mark.parametrize("code", CODES)
def test_explanation(code: str) -> None:
    info = CODES[code]
    assert re.fullmatch(r"E0[1-9]\d\d", code)
    assert info.title
    assert not info.title.endswith(".")
    assert info.explanation.strip()
    assert all(len(line) <= 160 for line in info.explanation.split("\n"))
