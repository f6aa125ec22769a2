"""Clipping, accumulation and weight averaging against PyTorch's, alone and in a whole rule."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import torch
from torch.nn import utils
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from graphc.ir.dtype import DType
from graphc.ir.graph import GraphBuilder, Value
from graphc.ir.types import TensorType
from graphc.ops import Input
from graphc.optim import SGD, AdamW, ArgumentError, Rule, clip_grad_norm, clip_grad_value
from graphc.reference import interpret

Array = np.ndarray[Any, np.dtype[Any]]
RNG = np.random.default_rng(0)
SHAPES = {"a": (4, 3), "b": (5,), "c": ()}
TYPES = {k: TensorType(DType.F32, s) for k, s in SHAPES.items()}


def normal() -> dict[str, Array]:
    return {k: RNG.normal(size=s).astype(np.float32) for k, s in SHAPES.items()}


def inputs(b: GraphBuilder, prefix: str = "") -> dict[str, Value]:
    return {k: b(Input(prefix + k, DType.F32, s)) for k, s in SHAPES.items()}


@pytest.mark.parametrize("norm_type", [2.0, 1.0, 3.5, math.inf])
@pytest.mark.parametrize("max_norm", [0.5, 100.0])
def test_clip_grad_norm(norm_type: float, max_norm: float) -> None:
    b = GraphBuilder("clip")
    grads = inputs(b)
    clipped, norm = clip_grad_norm(b, list(grads.values()), max_norm, norm_type)
    graph = b.build([*zip(SHAPES, clipped, strict=True), ("norm", norm)])
    given = normal()
    found = interpret(graph, given, {})
    params = [torch.zeros(s, requires_grad=True) for s in SHAPES.values()]
    for p, g in zip(params, given.values(), strict=True):
        p.grad = torch.tensor(g)
    total = utils.clip_grad_norm_(params, max_norm, norm_type)
    assert np.allclose(found["norm"], total.numpy(), rtol=1e-6)
    for p, k in zip(params, SHAPES, strict=True):
        assert np.allclose(found[k], p.grad.numpy(), rtol=1e-5)


def test_clip_grad_value() -> None:
    b = GraphBuilder("clip")
    grads = inputs(b)
    clipped = clip_grad_value(b, list(grads.values()), 0.3)
    given = normal()
    found = interpret(b.build(list(zip(SHAPES, clipped, strict=True))), given, {})
    assert all(np.array_equal(found[k], np.clip(given[k], -0.3, 0.3)) for k in SHAPES)


def test_no_gradients_at_all() -> None:
    b = GraphBuilder("clip")
    clipped, norm = clip_grad_norm(b, [], 1.0)
    assert clipped == [] and interpret(b.build([("norm", norm)]), {}, {})["norm"] == 0


@pytest.mark.parametrize("bad", [(-1.0, 2.0), (1.0, 0.0), (1.0, math.nan)])
def test_bad_norms(bad: tuple[float, float]) -> None:
    with pytest.raises(ArgumentError):
        clip_grad_norm(GraphBuilder("clip"), [], *bad)


def test_half_precision_squares_do_not_overflow() -> None:
    b = GraphBuilder("clip")
    grad = b(Input("g", DType.F16, (4,)))
    (clipped,), norm = clip_grad_norm(b, [grad], 1.0)
    graph = b.build([("g", clipped), ("norm", norm)])
    found = interpret(graph, {"g": np.full(4, 30000, np.float16)}, {})
    assert found["norm"] == 60000 and np.allclose(found["g"], 0.5)


def steps(rule: Rule, start: dict[str, Array], grads: list[dict[str, Array]]) -> dict[str, Array]:
    """Parameters and state after all gradients, interpreted."""
    b = GraphBuilder("update")
    params, given = inputs(b), inputs(b, "grad.")
    slots = rule.state(TYPES)
    state = {k: b(Input(k, s.type.dtype, s.type.shape)) for k, s in slots.items()}
    done = rule.apply(b, params, dict(zip(SHAPES, given.values(), strict=True)), state)
    graph = b.build([*done.parameters.items(), *done.state.items()])
    values = {**start}
    for k, s in slots.items():
        values[k] = np.full(s.type.concrete({}), s.init, s.type.dtype.numpy)
    for each in grads:
        values = interpret(graph, {**values, **{f"grad.{k}": g for k, g in each.items()}}, {})
    return values


def test_a_whole_rule() -> None:
    """Micro-batches, both ways of clipping and an average of the weights, all at once."""
    every, start = 3, normal()
    grads = [normal() for _ in range(31)]  # the last one waits for two more
    rule = Rule(AdamW(0.1), clip_norm=0.7, clip_value=0.4, ema=0.9, accumulate=every)
    found = steps(rule, start, grads)
    params = torch.nn.ParameterDict(
        {k: torch.nn.Parameter(torch.tensor(x)) for k, x in start.items()}
    )
    average = AveragedModel(params, multi_avg_fn=get_ema_multi_avg_fn(0.9))
    optimizer = torch.optim.AdamW(params.values(), 0.1)
    for n in range(10):
        for k, p in params.items():
            p.grad = torch.tensor(sum(g[k] for g in grads[n * every : (n + 1) * every]) / every)
        utils.clip_grad_value_(params.values(), 0.4)
        utils.clip_grad_norm_(params.values(), 0.7)
        optimizer.step()
        average.update_parameters(params)
    assert found["step"] == 10 and found["optimizer.micro_batch"] == 1
    for k, p in params.items():
        assert np.allclose(found[k], p.detach().numpy(), rtol=1e-5, atol=1e-6)
        mean = dict(average.module.items())[k].detach().numpy()
        assert np.allclose(found[f"ema.{k}"], mean, rtol=1e-5, atol=1e-6)
        assert np.allclose(found[f"optimizer.grad.{k}"], grads[-1][k] / every)


def test_an_average_of_one_update_is_the_weights() -> None:
    found = steps(Rule(SGD(0.1), ema=0.99), normal(), [normal()])
    assert all(np.array_equal(found[k], found[f"ema.{k}"]) for k in SHAPES)


def test_what_is_not_due_stays_bit_for_bit() -> None:
    start = normal()
    found = steps(Rule(AdamW(0.1), accumulate=2), start, [normal()])
    assert all(np.array_equal(found[k], start[k]) for k in SHAPES)
    assert found["step"] == 0 and not found["optimizer.exp_avg.a"].any()


def test_scalars_are_computed_once_for_all_parameters() -> None:
    b = GraphBuilder("update")
    rule = Rule(AdamW(0.1))
    state = {k: b(Input(k, s.type.dtype, s.type.shape)) for k, s in rule.state(TYPES).items()}
    params, grads = inputs(b), inputs(b, "grad.")
    rule.apply(b, params, dict(zip(SHAPES, grads.values(), strict=True)), state)
    powers = [n for n in b.nodes if n.op.name == "power"]
    assert len(powers) == 2  # one bias correction each of both averages
