"""Every pass keeps results, on random graphs under the NumPy interpreter."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given, settings

from graphc.ir.graph import Graph
from graphc.ir.op import Array
from graphc.ir.printer import print_graph
from graphc.ir.reader import read_graph
from graphc.ir.verify import verify
from graphc.ops import OPS
from graphc.passes import pipeline
from graphc.passes.batch_norm import fold_batch_norm
from graphc.passes.canonicalise import canonicalise
from graphc.passes.constants import fold_constants
from graphc.passes.cse import eliminate_common_subexpressions
from graphc.passes.dead_code import remove_dead_code
from graphc.passes.decompose import decompose
from graphc.passes.dilated_input import fill_holes
from graphc.passes.fuse import fuse
from graphc.passes.halo import make_halos
from graphc.passes.layout import channels_last
from graphc.passes.simplify import simplify
from graphc.passes.split import split_products
from graphc.passes.tidy import tidy
from graphc.passes.transposes import sink_transposes
from graphc.reference import interpret
from tests.strategies import Program, programs

Run = Callable[[Graph], Graph]

EXACT: list[Run] = [
    canonicalise,
    fold_constants,
    simplify,
    eliminate_common_subexpressions,
    remove_dead_code,
    tidy,
]
ROUNDED: list[Run] = [
    fold_batch_norm,
    channels_last,
    sink_transposes,
    lambda graph: sink_transposes(channels_last(graph)),
    lambda graph: make_halos(sink_transposes(channels_last(graph))),
    split_products,
    lambda graph: fill_holes(channels_last(graph)),
    fuse,
    lambda graph: decompose(graph, lambda op, operands: False),
    lambda graph: pipeline.run(graph, until="halo")[0],
    lambda graph: pipeline.run(graph)[0],
]
ROUNDED_NAMES = [
    "fold_batch_norm",
    "channels_last",
    "sink_transposes",
    "layout",
    "halo",
    "split_products",
    "fill_holes",
    "fuse",
    "decompose",
    "pipeline-halo",
    "pipeline",
]


def outputs(program: Program, graph: Graph) -> dict[str, Array]:
    return interpret(graph, program.inputs, program.parameters)


def assert_same_bits(expected: Array, found: Array, *, zeros: bool) -> None:
    """Equal numbers, NaN to NaN; `zeros` compares the signs of zeros too."""
    np.testing.assert_array_equal(found, expected)
    if zeros and expected.dtype == np.float32:
        known = ~np.isnan(expected)
        np.testing.assert_array_equal(np.signbit(found)[known], np.signbit(expected)[known])


@pytest.mark.parametrize("run", EXACT, ids=lambda run: run.__name__)
@settings(max_examples=60)
@given(program=programs())
def test_exact_passes(run: Run, program: Program) -> None:
    new = run(program.graph)
    verify(new)
    found = outputs(program, new)
    # Which zero max(0, -0) gives is not defined, and the operands may be swapped.
    zeros = not {"maximum", "minimum"} & {node.op.name for node in program.graph.nodes}
    for name, expected in outputs(program, program.graph).items():
        assert_same_bits(expected, found[name], zeros=zeros)


@pytest.mark.parametrize("run", ROUNDED, ids=ROUNDED_NAMES)
@settings(max_examples=60)
@given(program=programs(smooth=True))
def test_rounding_passes(run: Run, program: Program) -> None:
    new = run(program.graph)
    verify(new)
    found = outputs(program, new)
    for name, expected in outputs(program, program.graph).items():
        scale = max(float(np.max(np.abs(expected), initial=0)), 1.0)
        np.testing.assert_allclose(found[name], expected, rtol=1e-4, atol=1e-5 * scale)


@settings(max_examples=60)
@given(program=programs())
def test_what_prints_parses(program: Program) -> None:
    for graph in (program.graph, pipeline.run(program.graph)[0]):
        assert read_graph(print_graph(graph), OPS) == graph


@settings(max_examples=60)
@given(program=programs())
def test_passes_settle(program: Program) -> None:
    """Running the simplifications on their own result changes nothing."""
    once = tidy(program.graph)
    assert tidy(once) is once
