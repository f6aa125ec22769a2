"""Every pass as text before and after: `cases/PASS/*.txt`.

A case is a graph, a line of dashes, and the graph that the pass makes of it. To add one, write the
first graph and run `pytest tests/passes/test_text.py --update-golden`.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from graphc.ir.graph import Graph
from graphc.ir.printer import print_graph
from graphc.ir.reader import read_graph
from graphc.ir.verify import verify
from graphc.ops import OPS
from graphc.passes.batch_norm import fold_batch_norm
from graphc.passes.bodies import everywhere
from graphc.passes.branches import settle
from graphc.passes.canonicalise import canonicalise
from graphc.passes.constants import fold_constants
from graphc.passes.cse import eliminate_common_subexpressions
from graphc.passes.dead_code import remove_dead_code
from graphc.passes.decompose import decompose
from graphc.passes.dilated_input import fill_holes
from graphc.passes.fuse import fuse
from graphc.passes.halo import make_halos
from graphc.passes.layout import channels_last
from graphc.passes.loops import lighten, merge
from graphc.passes.pipeline import row_kernels
from graphc.passes.simplify import simplify
from graphc.passes.split import split_products
from graphc.passes.transposes import sink_transposes
from tests.golden import check_golden

CASES = Path(__file__).parent / "cases"
LINE = "-" * 40 + "\n"
PASSES: dict[str, Callable[[Graph], Graph]] = {
    "branches": everywhere(settle),
    "canonicalise": canonicalise,
    "channels_last": channels_last,
    "cse": eliminate_common_subexpressions,
    "dead_code": remove_dead_code,
    "decompose": lambda graph: decompose(graph, row_kernels),
    "fill_holes": fill_holes,
    "fold_batch_norm": fold_batch_norm,
    "fold_constants": fold_constants,
    "fuse": fuse,
    "halo": make_halos,
    "loops": everywhere(lighten),
    "merge_loops": merge,
    "layout": lambda graph: canonicalise(sink_transposes(channels_last(graph))),
    "simplify": simplify,
    "split": split_products,
    "transposes": sink_transposes,
}


@pytest.mark.parametrize(
    "path", sorted(CASES.rglob("*.txt")), ids=lambda path: f"{path.parent.name}/{path.stem}"
)
def test_pass(request: pytest.FixtureRequest, path: Path) -> None:
    before = path.read_text(encoding="utf-8").split(LINE)[0]
    graph = read_graph(before, OPS, name=path.name)
    after = PASSES[path.parent.name](graph)
    verify(after, path.parent.name)
    check_golden(request, path, before + LINE + print_graph(after))


def test_every_pass_has_a_case() -> None:
    assert {path.name for path in CASES.iterdir()} == set(PASSES)
