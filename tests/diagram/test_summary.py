"""The layer table: numbers against PyTorch's known ones, tree, memory, text and JSON."""

from __future__ import annotations

import io
import json

from rich.console import Console

from graphc.diagram import table
from graphc.diagram.summary import summarise
from graphc.ir.dim import Bounds, Dim
from graphc.ops import Add, Attention, BroadcastInDim, Tanh
from tests.diagram.models import N, Net, lenet, resnet
from tests.frontend.helpers import load


def test_lenet_counts_are_the_known_ones() -> None:
    s = summarise(lenet())
    assert (
        s.parameters == 61_706
    )  # LeCun 1998 with full C3 connections, as every framework counts it
    assert s.parameter_bytes == 4 * 61_706
    assert s.macs == 28 * 28 * 6 * 25 + 10 * 10 * 16 * 150 + 400 * 120 + 120 * 84 + 84 * 10
    assert s.inputs == (("image", "f32[N, 1, 28, 28]"),)
    assert s.outputs == (("logits", "f32[N, 10]"),)
    conv1 = s.rows[1]
    assert (conv1.path, conv1.kind, conv1.parameters) == ("conv1", "Conv2d", 156)
    assert conv1.outputs == ("f32[N, 6, 28, 28]",)
    assert conv1.place.startswith("net.nn:")


def test_dims_scale_work_and_memory_but_not_parameters() -> None:
    one, ten = summarise(lenet()), summarise(lenet(), dims={"N": 10})
    assert ten.macs == 10 * one.macs
    assert ten.peak_bytes == 10 * one.peak_bytes
    assert ten.parameters == one.parameters


def test_an_upper_bound_is_what_a_dim_counts_for() -> None:
    net = Net("Bounded", T=Bounds(1, 512))
    x = net.b(Tanh(), net.input("x", Dim.symbol("T"), 8))
    assert summarise(net.b.build([("y", x)])).dims == {"T": 512}


def test_peak_is_the_largest_live_set() -> None:
    net = Net("Peak")
    x = net.input("x", N, 100)
    wide = net.linear(x, "wide", 1000)
    narrow = net.linear(net.relu(wide, "relu"), "narrow", 10)
    graph = net.b.build([("y", narrow)])
    # The input is dead once `wide` is made; `wide` and the relu's result are live together.
    assert summarise(graph).peak_bytes == 4 * (1000 + 1000)


def test_values_inside_a_layer_and_broadcasts_take_no_memory() -> None:
    net = Net("Bias")
    x = net.input("x", N, 10)
    y = net.b(Add(), x, net.b(BroadcastInDim((N, 10), (1,)), net.parameter("bias", 10)))
    assert summarise(net.b.build([("y", y)])).peak_bytes == 4 * 20


def test_composites_count_the_contractions_inside() -> None:
    net = Net("Attend")
    q, k, v = (net.input(name, N, 2, 16, 8) for name in "qkv")
    y = net.b(Attention(8**-0.5, False), q, k, v)
    assert summarise(net.b.build([("y", y)])).macs == 2 * (2 * 16 * 16 * 8)


def test_repeated_blocks_fold_in_text_and_stay_in_json() -> None:
    s = summarise(resnet())
    assert "layer2.1: Basic" not in str(s)
    assert "1 – 3: Basic × 3" in str(s)
    assert "├─ 2: Basic" in s.text(120, unfold=True)
    paths = [row["path"] for row in s.to_json()["layers"]]
    assert {"layer2.1.conv1", "layer2.3.conv1"} <= set(paths)
    assert json.loads(json.dumps(s.to_json()))["parameters"] == s.parameters


def test_depth_limits_the_tree() -> None:
    shown = summarise(resnet()).text(120, depth=1)
    assert "layer1" in shown
    assert "Basic" not in shown


def test_rich_prints_it_in_colour() -> None:
    out = io.StringIO()
    Console(file=out, force_terminal=True, width=120, color_system="standard").print(
        summarise(lenet())
    )
    assert "\x1b[" in out.getvalue()
    assert "61,706" in out.getvalue()


def test_names_are_not_markup() -> None:
    net = Net("Odd")
    with net.block("[red]x[/]", "Tanh[bold]"):
        y = net.b(Tanh(), net.input("x", N))
    s = summarise(net.b.build([("y", y)]))
    assert "[red]x[/]: Tanh[bold]" in str(s)
    assert table.render(s) is not None


def test_a_loop_counts_for_each_step_and_a_choice_for_its_larger_branch() -> None:
    text = """model M {
        input x: f32[T, N, 4]
        scan x_t in x with h = zeros([N, 4]) {
            h = x_t + h -> cell: Linear(4)
        }
        cond mean(x) > 0 {
            y = h.last -> deep: Linear(8) -> back: Linear(4)
        } else {
            y = h.last -> short: Linear(4)
        }
        output y
    }
    """
    s = summarise(load(text).graph, dims={"T": 5, "N": 2})
    assert s.parameters == 20 + 40 + 36 + 20
    assert s.macs == 5 * 2 * 16 + 2 * (32 + 32)
    flops = 5 * 2 * (32 + 4 + 4) + 2 * (64 + 8 + 64 + 4)  # products, biases; x_t + h
    assert s.flops == flops + 5 * 2 * 4 + 1 + 1  # and the mean, its division, the comparison
