"""Choices on a GPU against the interpreter: both ways, forward and back, in loops and with loops in them."""

from __future__ import annotations

import numpy as np

from graphc.reference import interpret
from tests.frontend.helpers import load
from tests.lowering.compiled import random_parameters
from tests.lowering.cuda.emulated import compare, compile_device, execute
from tests.lowering.test_conds import FAULTS, LAYERS, LOOPS, random_choices


def test_random_choices_and_their_gradients() -> None:
    graph, runs = random_choices()
    spec, program = compile_device(graph, {})
    for inputs in runs:
        found, _ = execute(spec, program, graph, inputs)
        compare(found, interpret(graph, inputs, {}), 2e-5)


def test_layers_named_dims_and_gradients() -> None:
    graph = load(LAYERS).graph
    weights = random_parameters(graph)
    spec, program = compile_device(graph, weights)
    rng = np.random.default_rng(1)
    for rows, height, big, sign in ((1, 2, True, 1), (4, 6, False, 1), (2, 4, False, -1)):
        x = rng.normal(size=(rows, 3, height, 8)).astype(np.float32)
        inputs = {"x": x - x.mean() + np.float32(sign), "big": np.array(big)}
        found, _ = execute(spec, program, graph, inputs)
        compare(found, interpret(graph, inputs, weights), 2e-5)


def test_choices_in_loops_and_loops_in_choices() -> None:
    graph = load(LOOPS).graph
    weights = random_parameters(graph)
    spec, program = compile_device(graph, weights)
    rng = np.random.default_rng(3)
    for steps, rows, shift in ((1, 1, 1), (4, 2, 0), (5, 2, -2)):
        x = rng.normal(size=(steps, rows, 6)).astype(np.float32) + np.float32(shift)
        found, _ = execute(spec, program, graph, {"x": x})
        compare(found, interpret(graph, {"x": x}, weights), 1e-4)


def test_only_what_the_branch_that_runs_looks_up_is_a_fault() -> None:
    graph = load(FAULTS).graph
    spec, program = compile_device(graph, {})
    rng = np.random.default_rng(4)
    tables = {
        n: rng.normal(size=(k, 4)).astype(np.float32) for n, k in (("table", 5), ("other", 3))
    }
    for first, index, line in ((True, 5, 7), (False, 3, 9), (True, 3, None), (False, 1, None)):
        inputs = {"ids": np.array([0, index]), "first": np.array(first), **tables}
        _, (id, *_) = execute(spec, program, graph, inputs)
        assert (id == 0) == (line is None)
        assert line is None or f"test.nn:{line}:" in spec.faults[id - 1].message
