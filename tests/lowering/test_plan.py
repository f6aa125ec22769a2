"""Plans of real models: nothing overwritten too early, little more memory than what is alive, work in place."""

from dataclasses import replace
from pathlib import Path

import pytest

from graphc import frontend
from graphc.ir.dim import evaluate
from graphc.lowering.aliasing import origin
from graphc.lowering.cpu.features import parse_target
from graphc.lowering.generate import plan_kernels
from graphc.lowering.join import join_kernels
from graphc.lowering.memory import ALIGNMENT
from graphc.lowering.plan import Needs, make_plan
from graphc.lowering.verify import PlanError, verify_plan
from graphc.ops import Fusion
from graphc.passes import pipeline
from graphc.passes.fuse import static_nodes

EXAMPLES = Path(__file__).parents[2] / "examples"


def plan_of(name: str, dims: dict[str, int], scratch: int = 0):
    elaborated = frontend.load(EXAMPLES / f"{name}.nn")
    graph, _ = pipeline.run(elaborated.graph.substitute_dims(dims))
    return graph, make_plan(graph, lambda node: Needs(scratch), static_nodes(graph))


def kernel_plan(name: str, dims: dict[str, int]):
    """The plan with the kernels of an AVX2 machine."""
    cpu = parse_target("x86-64-v3")
    elaborated = frontend.load(EXAMPLES / f"{name}.nn")
    graph, _ = pipeline.run(elaborated.graph.substitute_dims(dims))
    graph = join_kernels(graph, static_nodes(graph), cpu)
    plan, _ = plan_kernels(graph, cpu)
    verify_plan(graph, plan)
    return plan


T = {"T": 128}


@pytest.mark.parametrize(
    ("name", "dims"),
    [
        ("mlp", {}),
        ("lenet", {}),
        ("alexnet", {}),
        ("resnet18", {}),
        ("resnet50", {}),
        ("vgg16", {}),
        ("mobilenet_v2", {}),
        ("unet", {}),
        ("lstm", {"T": 64}),
        ("transformer_encoder", T),
        ("bert_base", T),
        ("gpt2_small", T),
    ],
)
def test_the_arena_is_within_a_twentieth_of_what_is_alive(name, dims):
    """With the kernels' own scratch memory."""
    plan = kernel_plan(name, {"N": 1, **dims})
    assert plan.arena.size <= 1.05 * plan.arena.live({}) + ALIGNMENT


@pytest.mark.parametrize("name", ["lenet", "mobilenet_v2", "resnet50", "vgg16", "unet"])
def test_an_open_batch_takes_no_more_than_a_fixed_one(name):
    """For more images memory that grows with N and scratch memory that does not are only bounded together."""
    plan = kernel_plan(name, {})
    for n, most in ((1, 1.05), (8, 1.5)):
        env = {"N": n}
        assert evaluate(plan.arena.size, env) <= most * plan.arena.live(env) + ALIGNMENT


def test_scratch_is_part_of_the_arena():
    graph, plan = plan_of("lenet", {}, scratch=4096)
    verify_plan(graph, plan)
    assert all(call.scratch is not None for call in plan.calls)


def test_residual_adds_work_in_place():
    _, plan = plan_of("resnet50", {"N": 1})
    taken = [call for call in plan.calls if call.in_place[0] is not None]
    assert len(taken) >= 12  # the blocks' sums take over the shortcut, but for borders


def test_results_go_straight_to_the_callers_buffers():
    graph, plan = plan_of("lenet", {})
    assert plan.calls[0].operands[0].space == "input"
    assert plan.calls[-1].results[0].space == "output"
    assert all(p.space != "output" for call in plan.calls[:-1] for p in call.results)
    assert sum(isinstance(n.op, Fusion) for n in graph.nodes) == len(plan.calls)


def test_a_plan_that_overwrites_is_found():
    graph, plan = plan_of("lenet", {})
    first = plan.calls[0].results[0]
    wrong = replace(plan.calls[1], results=(first,), in_place=(None,))
    with pytest.raises(PlanError):
        verify_plan(graph, replace(plan, calls=(plan.calls[0], wrong, *plan.calls[2:])))


def test_origin_follows_reshapes_to_where_the_bytes_are():
    graph, _ = plan_of("lenet", {})
    for node in graph.nodes:
        for value in node.operands:
            assert not graph.node(origin(graph, value).node).op.alias
