"""Every schedule gives PyTorch's learning rate at every step, interpreted and compiled."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch.optim import lr_scheduler as peers

from graphc.ir.dtype import DType
from graphc.ir.graph import Graph, GraphBuilder
from graphc.ops import Input
from graphc.optim import (
    SCHEDULES,
    ArgumentError,
    Chain,
    ConstantFactor,
    Cosine,
    CosineRestarts,
    Exponential,
    Fixed,
    Linear,
    MultiStep,
    OneCycle,
    Polynomial,
    Schedule,
    Step,
    Warmup,
)
from graphc.reference import interpret
from tests.lowering.compiled import compile_graph

LR, STEPS = 0.3, 400
EVERY = 7  # of the steps that are interpreted, which is slow
Peer = Callable[[Any], Any]

CASES: dict[str, tuple[Schedule, Peer]] = {
    "fixed": (Fixed(), lambda o: peers.ConstantLR(o, factor=1.0)),
    "constant": (ConstantFactor(), peers.ConstantLR),
    "constant_long": (ConstantFactor(0.7, 40), lambda o: peers.ConstantLR(o, 0.7, 40)),
    "step": (Step(30), lambda o: peers.StepLR(o, 30)),
    "step_gamma": (Step(7, gamma=0.9), lambda o: peers.StepLR(o, 7, 0.9)),
    "multi_step": (
        MultiStep((200, 10, 50, 50), 0.5),
        lambda o: peers.MultiStepLR(o, [200, 10, 50, 50], 0.5),
    ),
    "multi_step_none": (MultiStep(()), lambda o: peers.MultiStepLR(o, [])),
    "exponential": (Exponential(0.98), lambda o: peers.ExponentialLR(o, 0.98)),
    "cosine": (Cosine(400), lambda o: peers.CosineAnnealingLR(o, 400)),
    "cosine_again": (Cosine(90, 0.01), lambda o: peers.CosineAnnealingLR(o, 90, 0.01)),
    "restarts": (CosineRestarts(70), lambda o: peers.CosineAnnealingWarmRestarts(o, 70)),
    "restarts_longer": (
        CosineRestarts(10, T_mult=2, eta_min=0.01),
        lambda o: peers.CosineAnnealingWarmRestarts(o, 10, 2, 0.01),
    ),
    "linear": (Linear(), peers.LinearLR),
    "linear_down": (Linear(1.0, 0.0, 250), lambda o: peers.LinearLR(o, 1.0, 0.0, 250)),
    "polynomial": (Polynomial(), peers.PolynomialLR),
    "polynomial_power": (Polynomial(300, 2.5), lambda o: peers.PolynomialLR(o, 300, 2.5)),
    "one_cycle": (
        OneCycle(400),
        lambda o: peers.OneCycleLR(o, LR, 400, cycle_momentum=False),
    ),
    "one_cycle_line": (
        OneCycle(400, 0.7, 0.1, "linear", 10.0, 100.0),
        lambda o: peers.OneCycleLR(
            o, 0.7, 400, None, None, 0.1, "linear", False, 0.85, 0.95, 10.0, 100.0
        ),
    ),
    "one_cycle_phases": (
        OneCycle(400, three_phase=True, pct_start=0.23),
        lambda o: peers.OneCycleLR(
            o, LR, 400, pct_start=0.23, cycle_momentum=False, three_phase=True
        ),
    ),
    "warmup": (Warmup(100), lambda o: peers.LinearLR(o, 0.01, 1.0, 100)),
    "warmup_cosine": (
        Chain((Warmup(20), Cosine(380))),
        lambda o: peers.SequentialLR(
            o, [peers.LinearLR(o, 0.01, 1.0, 20), peers.CosineAnnealingLR(o, 380)], [20]
        ),
    ),
    "three_stages": (
        Chain((Warmup(50, 0.1), Polynomial(100, 2.0), Step(40, 0.5))),
        lambda o: peers.SequentialLR(
            o,
            [
                peers.LinearLR(o, 0.1, 1.0, 50),
                peers.PolynomialLR(o, 100, 2.0),
                peers.StepLR(o, 40, 0.5),
            ],
            [50, 150],
        ),
    ),
}


def expected(peer: Peer) -> np.ndarray[Any, Any]:
    """PyTorch's rates of the first updates."""
    optimizer = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=LR)
    with warnings.catch_warnings():  # about the order of calls, with no gradients here
        warnings.simplefilter("ignore")
        schedule, rates = peer(optimizer), []
        for step in range(STEPS):
            rates.append(optimizer.param_groups[0]["lr"])
            optimizer.step()
            if step + 1 < STEPS:
                schedule.step()
    return np.array(rates)


@pytest.fixture(scope="module")
def graph() -> Graph:
    """All schedules as outputs of one graph of the step."""
    b = GraphBuilder("rates")
    step = b(Input("step", DType.I64, ()))
    return b.build([(name, s.rate(b, step, LR)) for name, (s, _) in CASES.items()])


def rates(
    run: Callable[[np.ndarray[Any, Any]], dict[str, Any]], every: int = 1
) -> dict[str, list[float]]:
    found: dict[str, list[float]] = {name: [] for name in CASES}
    for step in range(0, STEPS, every):
        for name, rate in run(np.array(step)).items():
            found[name].append(float(rate))
    return found


@pytest.fixture(scope="module")
def interpreted(graph: Graph) -> dict[str, list[float]]:
    return rates(lambda step: interpret(graph, {"step": step}, {}), EVERY)


@pytest.fixture(scope="module")
def compiled(graph: Graph) -> dict[str, list[float]]:
    module = compile_graph(graph, {})
    return rates(lambda step: module(step=step))


@pytest.mark.parametrize("name", CASES)
def test_rates_are_pytorch_s(
    name: str, interpreted: dict[str, list[float]], compiled: dict[str, list[float]]
) -> None:
    want = expected(CASES[name][1])
    assert np.allclose(interpreted[name], want[::EVERY], rtol=1e-11, atol=1e-13)
    assert np.allclose(compiled[name], want, rtol=1e-11, atol=1e-13)


def test_every_schedule_is_here() -> None:
    used = {type(s) for s, _ in CASES.values()}
    assert set(SCHEDULES.values()) <= used
    assert all(cls.name == name for name, cls in SCHEDULES.items())


def test_restarts_are_exact_far_out() -> None:
    """The cycle that a late step falls in is found in whole numbers."""
    b = GraphBuilder("rate")
    step = b(Input("step", DType.I64, ()))
    graph = b.build([("rate", CosineRestarts(3, T_mult=3).rate(b, step, 1.0))])
    start = 3 * (3**20 - 1) // 2
    for t, want in ((start, 1.0), (start - 1, 0.0)):
        rate = interpret(graph, {"step": np.array(t)}, {})["rate"]
        assert abs(rate - want) < 1e-9


def test_after_the_end() -> None:
    b = GraphBuilder("rate")
    step = b(Input("step", DType.I64, ()))
    graph = b.build([("rate", OneCycle(10).rate(b, step, 1.0))])
    last, later = (interpret(graph, {"step": np.array(t)}, {})["rate"] for t in (9, 50))
    assert last == later == 1.0 / 25 / 1e4


@pytest.mark.parametrize(
    ("make", "argument"),
    [
        (lambda: Step(0), "step_size"),
        (lambda: Step(3, gamma=0.0), "gamma"),
        (lambda: Cosine(0), "total"),
        (lambda: Cosine(5, eta_min=float("nan")), "eta_min"),
        (lambda: CosineRestarts(5, 0), "T_mult"),
        (lambda: Linear(0.0), "start_factor"),
        (lambda: Linear(0.5, 1.5), "end_factor"),
        (lambda: Warmup(10, -0.1), "start_factor"),
        (lambda: MultiStep((-1,)), "milestones"),
        (lambda: MultiStep(tuple(range(5000))), "milestones"),
        (lambda: OneCycle(0), "total_steps"),
        (lambda: OneCycle(5, pct_start=1.1), "pct_start"),
        (lambda: Chain(()), "stages"),
        (lambda: Chain((Exponential(0.9), Cosine(5))), "stages"),
    ],
)
def test_bad_arguments_are_named(make: Callable[[], Schedule], argument: str) -> None:
    with pytest.raises(ArgumentError) as error:
        make()
    assert error.value.argument == argument


def test_lengths() -> None:
    assert Chain((Warmup(5), Cosine(10))).length == 15
    assert Chain((Warmup(5), Exponential(0.5))).length is None
