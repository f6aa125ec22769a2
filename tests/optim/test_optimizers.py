"""Every optimizer with all its arguments ends where PyTorch's does after 100 updates, interpreted and compiled."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch

from graphc.ir.dtype import DType
from graphc.ir.graph import Graph, GraphBuilder, Value
from graphc.ir.op import Pattern
from graphc.ir.types import TensorType
from graphc.ops import Input
from graphc.optim import (
    NO_DECAY,
    OPTIMIZERS,
    SGD,
    Adadelta,
    Adagrad,
    Adam,
    AdamW,
    ArgumentError,
    Cosine,
    Lamb,
    Lion,
    NAdam,
    Optimizer,
    ParamGroup,
    RAdam,
    RMSprop,
    Rule,
    Slot,
    matches,
)
from graphc.passes import pipeline
from graphc.reference import interpret
from tests.lowering.compiled import compile_graph
from tests.optim import numpy_optimizers

Array = np.ndarray[Any, np.dtype[Any]]
STEPS = 100
FEW = 12  # of them interpreted, which is slow
RNG = np.random.default_rng(0)
SHAPES = {"fc.weight": (3, 7), "scale": (2,)}
START = {k: RNG.normal(size=s).astype(np.float32) for k, s in SHAPES.items()}
GRADS = [
    {k: (RNG.normal(size=s) * (t % 7 != 3)).astype(np.float32) for k, s in SHAPES.items()}
    for t in range(STEPS)
]
Peer = Callable[[list[torch.Tensor]], torch.optim.Optimizer]
o = torch.optim

CASES: dict[str, tuple[Optimizer | Rule, Peer]] = {
    "sgd": (SGD(), lambda p: o.SGD(p)),
    "sgd_decay": (SGD(0.1, weight_decay=0.1), lambda p: o.SGD(p, 0.1, weight_decay=0.1)),
    "sgd_momentum": (
        SGD(0.03, 0.9, 0.3, 0.01),
        lambda p: o.SGD(p, 0.03, 0.9, 0.3, 0.01),
    ),
    "sgd_nesterov": (
        SGD(0.03, momentum=0.9, nesterov=True),
        lambda p: o.SGD(p, 0.03, 0.9, nesterov=True),
    ),
    "sgd_up": (SGD(0.1, maximize=True), lambda p: o.SGD(p, 0.1, maximize=True)),
    "adam": (Adam(), lambda p: o.Adam(p)),
    "adam_all": (
        Adam(0.02, (0.8, 0.95), 1e-4, 0.1, True, maximize=True),
        lambda p: o.Adam(p, 0.02, (0.8, 0.95), 1e-4, 0.1, True, maximize=True),
    ),
    "adamw": (AdamW(), lambda p: o.AdamW(p)),
    "adamw_all": (
        AdamW(0.02, (0.8, 0.95), 1e-4, 0.3, True),
        lambda p: o.AdamW(p, 0.02, (0.8, 0.95), 1e-4, 0.3, True),
    ),
    "nadam": (NAdam(), lambda p: o.NAdam(p)),
    "nadam_all": (
        NAdam(0.01, (0.8, 0.95), 1e-4, 0.1, 0.01, maximize=True),
        lambda p: o.NAdam(p, 0.01, (0.8, 0.95), 1e-4, 0.1, 0.01, maximize=True),
    ),
    "nadam_decoupled": (
        NAdam(weight_decay=0.1, decoupled_weight_decay=True),
        lambda p: o.NAdam(p, weight_decay=0.1, decoupled_weight_decay=True),
    ),
    "radam": (RAdam(), lambda p: o.RAdam(p)),
    "radam_all": (
        RAdam(0.01, (0.8, 0.95), 1e-4, 0.1, maximize=True),
        lambda p: o.RAdam(p, 0.01, (0.8, 0.95), 1e-4, 0.1, maximize=True),
    ),
    "radam_never": (RAdam(betas=(0.9, 0.5)), lambda p: o.RAdam(p, betas=(0.9, 0.5))),
    "radam_decoupled": (
        RAdam(weight_decay=0.1, decoupled_weight_decay=True),
        lambda p: o.RAdam(p, weight_decay=0.1, decoupled_weight_decay=True),
    ),
    "rmsprop": (RMSprop(), lambda p: o.RMSprop(p)),
    "rmsprop_all": (
        RMSprop(0.02, 0.9, 1e-4, 0.1, 0.5, True, maximize=True),
        lambda p: o.RMSprop(p, 0.02, 0.9, 1e-4, 0.1, 0.5, True, maximize=True),
    ),
    "adagrad": (Adagrad(), lambda p: o.Adagrad(p)),
    "adagrad_all": (
        Adagrad(0.1, 0.02, 0.1, 0.3, 1e-4, maximize=True),
        lambda p: o.Adagrad(p, 0.1, 0.02, 0.1, 0.3, 1e-4, maximize=True),
    ),
    "adadelta": (Adadelta(), lambda p: o.Adadelta(p)),
    "adadelta_all": (
        Adadelta(0.5, 0.8, 1e-4, 0.1, maximize=True),
        lambda p: o.Adadelta(p, 0.5, 0.8, 1e-4, 0.1, maximize=True),
    ),
    "grouped": (
        Rule(
            AdamW(0.01, weight_decay=0.3),
            schedule=Cosine(80),
            groups=(ParamGroup("fc", {"lr": 0.1, "betas": (0.5, 0.9)}), NO_DECAY),
        ),
        lambda p: o.AdamW(
            [
                {"params": p[:1], "lr": 0.1, "betas": (0.5, 0.9)},
                {"params": p[1:], "weight_decay": 0.0},
            ],
            0.01,
            weight_decay=0.3,
        ),
    ),
}
BY_HAND = {
    "lion": (Lion(0.003), lambda p, g: numpy_optimizers.lion(p, g, 0.003)),
    "lion_all": (
        Lion(0.003, (0.8, 0.95), 0.5),
        lambda p, g: numpy_optimizers.lion(p, g, 0.003, (0.8, 0.95), 0.5),
    ),
    "lamb": (Lamb(0.01), lambda p, g: numpy_optimizers.lamb(p, g, 0.01)),
    "lamb_all": (
        Lamb(0.01, (0.8, 0.95), 1e-4, 0.0),
        lambda p, g: numpy_optimizers.lamb(p, g, 0.01, (0.8, 0.95), 1e-4, 0.0),
    ),
}
RULES = {
    name: made if isinstance(made, Rule) else Rule(made)
    for name, (made, _) in {**CASES, **BY_HAND}.items()
}
TYPES = {k: TensorType(DType.F32, s) for k, s in SHAPES.items()}


def expected(name: str, steps: int) -> list[Array]:
    """The parameters after so many updates."""
    if name in BY_HAND:
        grads = [list(g.values()) for g in GRADS[:steps]]
        return BY_HAND[name][1](list(START.values()), grads)
    params = [torch.tensor(x, requires_grad=True) for x in START.values()]
    optimizer = CASES[name][1](params)
    schedule = None
    if name == "grouped":
        schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, 80)
    for grads in GRADS[:steps]:
        for p, g in zip(params, grads.values(), strict=True):
            p.grad = torch.tensor(g)
        optimizer.step()
        if schedule:
            schedule.step()
    return [p.detach().numpy() for p in params]


def input_of(b: GraphBuilder, label: str, type: TensorType, state: bool = False) -> Value:
    return b(Input(label, type.dtype, type.shape, state=state))


@pytest.fixture(scope="module")
def graph() -> Graph:
    """One update by every optimizer; `step` and the gradients are shared."""
    b = GraphBuilder("updates")
    step = input_of(b, "step", TensorType(DType.I64, ()))
    grads = {k: input_of(b, f"grad.{k}", t) for k, t in TYPES.items()}
    outputs = []
    for name, rule in RULES.items():
        params = {k: input_of(b, f"{name}.{k}", t, True) for k, t in TYPES.items()}
        slots = rule.state(TYPES)
        own = {k: s.type for k, s in slots.items() if k != "step"}
        state = {k: input_of(b, f"{name}.{k}", t, True) for k, t in own.items()}
        done = rule.apply(b, params, grads, {**state, "step": step})
        assert list(done.state) == list(slots)
        new = {**done.parameters, **{k: v for k, v in done.state.items() if k != "step"}}
        outputs += [(f"{name}.{k}", v) for k, v in new.items()]
    return b.build([*outputs, ("rate", done.rate)])


def trained(
    run: Callable[[dict[str, Array]], dict[str, Array]], steps: int
) -> dict[str, list[Array]]:
    """The parameters of every optimizer after so many updates; a compiled one overwrites them."""
    state: dict[str, Array] = {}
    for name, rule in RULES.items():
        state |= {f"{name}.{k}": x.copy() for k, x in START.items()}
        for k, slot in rule.state(TYPES).items():
            if k != "step":
                x = np.full(slot.type.concrete({}), slot.init, slot.type.dtype.numpy)
                state[f"{name}.{k}"] = x
    for t, grads in enumerate(GRADS[:steps]):
        given = {"step": np.array(t), **{f"grad.{k}": g for k, g in grads.items()}}
        state |= {k: v for k, v in run({**given, **state}).items() if k in state}
    return {name: [state[f"{name}.{k}"] for k in SHAPES] for name in RULES}


@pytest.fixture(scope="module")
def interpreted(graph: Graph) -> dict[str, list[Array]]:
    return trained(lambda given: interpret(graph, given, {}), FEW)


@pytest.fixture(scope="module")
def compiled(graph: Graph) -> dict[str, list[Array]]:
    module = compile_graph(graph, {})
    return trained(lambda given: module(**given), STEPS)


@pytest.mark.parametrize("name", RULES)
def test_100_updates(
    name: str, interpreted: dict[str, list[Array]], compiled: dict[str, list[Array]]
) -> None:
    for steps, found in ((FEW, interpreted[name]), (STEPS, compiled[name])):
        for got, want in zip(found, expected(name, steps), strict=True):
            assert np.abs(got - want).max() <= 1e-5 * np.abs(want).max()


@pytest.mark.parametrize("name", sorted(OPTIMIZERS))
def test_an_update_is_one_kernel(name: str) -> None:
    """Weights, averages and the clipped gradient. The sum of gradients comes before its norm, LAMB has norms inside."""
    type = TensorType(DType.F32, (64, 48))
    every = 1 if name == "Lamb" else 2
    rule = Rule(OPTIMIZERS[name](), clip_norm=1.0, ema=0.9, accumulate=every)
    b = GraphBuilder("update")
    slots = {"p": Slot(type), **rule.state({"p": type})}
    state = {k: input_of(b, k, s.type, True) for k, s in slots.items()}
    grad = input_of(b, "grad", type)
    done = rule.apply(b, {"p": state["p"]}, {"p": grad}, state)
    graph, _ = pipeline.run(b.build([*done.parameters.items(), *done.state.items()]))
    large = [n for n in graph.nodes if n.op.name == "fusion" and n.types[0] == type]
    assert len(large) <= (3 if name == "Lamb" else 2)
    assert sum(len(n.types) for n in large) >= len(slots) - 2


def test_every_optimizer_is_here() -> None:
    assert {type(r.optimizer) for r in RULES.values()} == set(OPTIMIZERS.values())
    assert all(cls.name == name for name, cls in OPTIMIZERS.items())


@pytest.mark.parametrize("name", [n for n in RULES if not n.startswith("lamb")])
def test_an_update_is_elementwise(name: str, graph: Graph) -> None:
    """Nothing but elementwise ops and broadcast scalars between a parameter and its next value."""
    for path in SHAPES:
        stack = [v for n, v in graph.outputs if n == f"{name}.{path}"]
        while stack:
            node = graph.node(stack.pop().node)
            stack += node.operands
            if node.types[0].rank:
                scalar = node.op.name == "broadcast_in_dim" and not node.op.dims
                source = node.op.pattern in (Pattern.ELEMENTWISE, Pattern.SOURCE)
                assert scalar or source


@pytest.mark.parametrize("dtype", [DType.F16, DType.BF16, DType.F64])
def test_other_element_types_keep_theirs(dtype: DType) -> None:
    type = TensorType(dtype, (4,))
    for rule in (Rule(c()) for c in OPTIMIZERS.values()):
        b = GraphBuilder("update")
        param, grad = (input_of(b, x, type) for x in "pg")
        slots = rule.state({"p": type})
        state = {k: input_of(b, k, s.type) for k, s in slots.items()}
        done = rule.apply(b, {"p": param}, {"g": grad} | {"p": grad}, state)
        assert b.type_of(done.parameters["p"]) == type
        assert all(b.type_of(done.state[k]) == s.type for k, s in slots.items())


@pytest.mark.parametrize(
    ("pattern", "path", "meant"),
    [
        ("conv1", "conv1.weight", True),
        ("conv1", "conv10.weight", False),
        ("conv1", "layer1.conv1.weight", False),
        ("*.conv1", "layer1.0.conv1.weight", True),
        ("bn*", "bn2.bias", True),
        ("layer1.0", "layer1.0.conv1.weight", True),
        ("layer1.0", "layer1x0.conv1.weight", False),
        ("*.bias", "fc.bias", True),
        ("*", "gamma", True),
        ("", "gamma", False),
    ],
)
def test_patterns(pattern: str, path: str, meant: bool) -> None:
    assert matches(pattern, path) is meant


@pytest.mark.parametrize(
    ("make", "argument"),
    [
        (lambda: SGD(-1.0), "lr"),
        (lambda: SGD(nesterov=True), "nesterov"),
        (lambda: Adam(betas=(0.9, 1.0)), "betas"),
        (lambda: AdamW(weight_decay=float("nan")), "weight_decay"),
        (lambda: NAdam(momentum_decay=-1.0), "momentum_decay"),
        (lambda: RMSprop(eps=-1.0), "eps"),
        (lambda: Adadelta(rho=1.5), "rho"),
        (lambda: Lion(betas=(-0.1, 0.5)), "betas"),
        (lambda: Rule(SGD(), clip_norm=0.0), "clip_norm"),
        (lambda: Rule(SGD(), ema=1.0), "ema"),
        (lambda: Rule(SGD(), accumulate=0), "accumulate"),
        (lambda: Rule(SGD(), groups=(ParamGroup("*", {"beta": 1}),)).state(TYPES), "beta"),
        (lambda: Rule(SGD(), groups=(ParamGroup("*", {"lr": -1.0}),)).state(TYPES), "lr"),
    ],
)
def test_bad_arguments_are_named(make: Callable[[], object], argument: str) -> None:
    with pytest.raises(ArgumentError) as error:
        make()
    assert error.value.argument == argument
