"""Loops on a GPU against the interpreter: forward and back, reversed, in each other, of any length."""

from __future__ import annotations

import numpy as np

from graphc.reference import interpret
from tests.frontend.helpers import load
from tests.lowering.compiled import random_parameters
from tests.lowering.cuda.emulated import check, compare, compile_device, execute
from tests.lowering.test_scans import CELLS, CHECKED, LENGTHS, NESTED, random_loops


def test_random_loops_and_their_gradients() -> None:
    graph, inputs = random_loops()
    check(graph, inputs, tolerance=2e-5)


def test_carries_stacks_and_gradients_of_any_length() -> None:
    graph = load(CELLS + LENGTHS).graph
    weights = random_parameters(graph)
    spec, program = compile_device(graph, weights)
    rng = np.random.default_rng(1)
    for steps, rows in ((1, 1), (2, 3), (9, 2)):
        x = rng.normal(size=(steps, rows, 20)).astype(np.float32)
        found, _ = execute(spec, program, graph, {"x": x}, reverse=steps == 2)
        compare(found, interpret(graph, {"x": x}, weights), 2e-5)


def test_a_loop_in_a_loop_and_its_gradient() -> None:
    graph = load(NESTED).graph
    spec, program = compile_device(graph, {})
    rng = np.random.default_rng(2)
    for steps in (1, 4):
        inputs = {
            "x": rng.normal(size=(steps, 2, 3)).astype(np.float32),
            "w": rng.normal(size=(3, 3)).astype(np.float32),
        }
        found, _ = execute(spec, program, graph, inputs)
        compare(found, interpret(graph, inputs, {}), 1e-4)


def test_an_index_out_of_range_in_a_loop_is_reported() -> None:
    graph = load(CHECKED).graph
    spec, program = compile_device(graph, {})
    table = np.random.default_rng(3).normal(size=(5, 4)).astype(np.float32)
    good = {"ids": np.array([[0, 1], [3, 2]]), "table": table}
    found, fault = execute(spec, program, graph, good)
    assert not any(fault)
    compare(found, interpret(graph, good, {}), 2e-6)
    bad = {"ids": good["ids"] + np.array([[0], [1]]), "table": table}
    _, (id, value, _, limit) = execute(spec, program, graph, bad)
    assert (value, limit) == (5, 5)
    assert "index < {limit} (test.nn:5:" in spec.faults[id - 1].message
