"""Every mistake at its exact place, in its exact words: `errors/*.nn` and what is reported for them."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from graphc import frontend
from graphc.codes import CODES
from graphc.diagnostics import DiagnosticError
from tests.golden import check_golden

ERRORS = Path(__file__).parent / "errors"
TOPS = sorted(p for p in ERRORS.glob("*.nn") if p.stem != "cycle_b")


@pytest.mark.parametrize("path", TOPS, ids=lambda path: path.stem)
def test_golden(request: pytest.FixtureRequest, path: Path) -> None:
    with pytest.raises(DiagnosticError) as caught:
        frontend.load(path, mode="train" if path.stem.startswith("train") else "infer")
    check_golden(request, path.with_suffix(".txt"), str(caught.value) + "\n")


def test_every_code_has_a_golden_test() -> None:
    shown = {
        code
        for path in ERRORS.glob("*.txt")
        for code in re.findall(r"^\w+\[(E\d+)\]", path.read_text(encoding="utf-8"), re.M)
    }
    ops_only = {"E0201", "E0214", "E0811"}  # the layers check before the ops do; see tests/ops
    elsewhere = {"E0407", "E0408", "E0509", "E0510", "E0601"}  # about no line of a file
    mine = {c for c in CODES if c[:3] in ("E02", "E03", "E04", "E05", "E06", "E08")}
    assert mine - shown == ops_only | elsewhere
