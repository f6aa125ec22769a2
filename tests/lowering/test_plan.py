"""Plans of real models: nothing overwritten too early, little more memory than what is alive, work in place."""

from dataclasses import replace
from pathlib import Path

import pytest

from graphc import frontend
from graphc.ir.dim import evaluate
from graphc.lowering.aliasing import origin
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


@pytest.mark.parametrize(
    ("name", "dims"),
    [
        ("lenet", {}),
        ("resnet50", {"N": 1}),
        ("mobilenet_v2", {}),
        ("unet", {"N": 1}),
        ("transformer_encoder", {"N": 2, "T": 16}),
    ],
)
def test_the_arena_is_within_a_tenth_of_what_is_alive(name, dims):
    graph, plan = plan_of(name, dims)
    verify_plan(graph, plan)
    env = dict.fromkeys(graph.dims, 3)
    assert evaluate(plan.arena.size, env) <= 1.1 * evaluate(plan.arena.live, env)


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
