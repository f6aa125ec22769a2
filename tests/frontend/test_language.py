"""What the language means: blocks, choice, repetition, dims, sharing, multiple results, imports of the library."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from graphc import frontend
from graphc.diagnostics import DiagnosticError
from graphc.ir.dim import Bounds, Dim
from graphc.ir.printer import print_graph
from graphc.reference import interpret
from graphc.source import Source
from tests.frontend.helpers import codes, compute, load, model, run

X = np.arange(12, dtype=np.float32).reshape(3, 4) - 5


def paths(text: str) -> list[str]:
    return [p.path for p in load(text).parameters]


def test_labels_are_parameter_paths() -> None:
    text = """
block Unit(x: f32[N, D]) {
    return x -> [Linear(D) -> ReLU -> Linear(D)]
}
model M {
    input x: f32[N, 4]
    h = x -> a: Linear(4) -> b.0: Unit -> Linear(4) -> Linear(4, bias=false)
    output y = h -> c: [Linear(4) -> [Linear(4, bias=false)] -> named: Linear(4, bias=false)]
}"""
    assert paths(text) == [
        "a.weight",
        "a.bias",
        "b.0.chain.0.weight",
        "b.0.chain.0.bias",
        "b.0.chain.2.weight",
        "b.0.chain.2.bias",
        "linear.weight",
        "linear.bias",
        "linear_2.weight",
        "c.0.weight",
        "c.0.bias",
        "c.1.0.weight",
        "c.named.weight",
    ]


def test_automatic_names_stay_clear_of_labels() -> None:
    text = model("input x: f32[N, 4]\noutput y = x -> Linear(4, bias=false) -> linear: Linear(4)")
    assert paths(text) == ["linear_2.weight", "linear.weight", "linear.bias"]


def test_scopes_carry_labels_and_kinds() -> None:
    text = """
block Unit(x: f32[N, D]) { return x -> fc: Linear(D) }
model M {
    input x: f32[N, 4]
    output y = x -> layer{1 + 1}.{0}: Unit
}"""
    (use, inner) = load(text).layers
    assert [(s.label, s.kind) for s in inner.scope] == [("layer2.0", "Unit"), ("fc", "Linear")]
    assert (use.path, use.kind, inner.path) == ("layer2.0", "Unit", "layer2.0.fc")
    assert str(inner.outputs[0]) == "f32[N, 4]"


def test_shared_layers_have_one_set_of_weights() -> None:
    text = """
block Twice(x: f32[N, D], layer: layer) { return x -> layer -> layer }
model M {
    input x: f32[N, 4]
    shared fc: Linear(4)
    shared both: [Linear(4) -> ReLU]
    output y = x -> fc -> fc -> both -> both -> Twice(fc) -> own: Twice(Linear(4, bias=false))
}"""
    assert paths(text) == [
        "fc.weight",
        "fc.bias",
        "both.0.weight",
        "both.0.bias",
        "own.layer.weight",
        "own.layer_2.weight",
    ]


def test_shared_blocks() -> None:
    text = """
block Unit(x: f32[N, D]) {
    shared inner: Linear(D, bias=false)
    param scale: f32[D] = ones()
    return (x -> inner -> inner) * scale
}
model M {
    input x: f32[N, 4]
    shared unit: Unit
    output y = x -> unit -> unit
}"""
    assert paths(text) == ["unit.scale", "unit.inner.weight"]
    out = run(load(text), x=X)["y"]
    assert out.shape == (3, 4)


def test_blocks_take_blocks_and_return_several_values() -> None:
    text = """
block Split(x: f32[N, D], first: block, scale: float = 2) {
    return x -> first(3), x * scale
}
model M {
    input x: f32[N, 4]
    a, b = x -> split: Split(Linear, scale=0.5)
    output a, b
}"""
    out = run(load(text), x=X)
    assert out["a"].shape == (3, 3)
    assert np.array_equal(out["b"], X * 0.5)


def test_defaults_see_dims_and_earlier_arguments() -> None:
    text = """
block Wide(x: f32[N, D], factor: int = 2, width: int = factor * D) {
    return x -> fc: Linear(width)
}
model M {
    input x: f32[N, 4]
    output y = x -> Wide -> Wide(1)
}"""
    assert str(load(text).graph.type_of(load(text).graph.outputs[0][1])) == "f32[N, 8]"


def test_shape_patterns() -> None:
    text = """
block Last(x: f32[..., D]) { return x -> LayerNorm(D) }
block Ends(x: f32[A, ..., B]) { return reshape(x, (A, -1, B)) }
block Any(x: f32[_, _]) { return x }
block Half(x: f32[N, 2 * K], _y: f32[N, K]) { return x }
model M {
    input x: f32[N, 3, 4]
    input z: f32[N, 8]
    output a = x -> Last
    output b = x -> Ends
    output c = z -> Any
    output d = (z, z[:, :4]) -> Half
}"""
    graph = load(text).graph
    assert [str(graph.type_of(v)) for _, v in graph.outputs] == [
        "f32[N, 3, 4]",
        "f32[N, 3, 4]",
        "f32[N, 8]",
        "f32[N, 8]",
    ]


def test_named_dims_and_bounds() -> None:
    text = model("input y: f32[N, T <= 512, 4]\noutput z = y + arange(T)[0]")
    assert codes(text) == ["E0206"]
    text = model("input x: i64[N, T <= 512]\ninput y: f32[N, T, 4]\noutput z = y\noutput x")
    graph = load(text).graph
    assert graph.dims == {"N": Bounds(1, None), "T": Bounds(1, 512)}
    fixed = load(text, dims={"T": 16}).graph
    assert dict(fixed.dims) == {"N": Bounds(1, None)}
    assert fixed.type_of(fixed.inputs[0].values[0]).shape == (Dim.symbol("N"), 16)
    assert codes(text, dims={"M": 16}) == ["E0509"]
    assert codes(text, dims={"T": 1024}) == ["E0510"]
    assert codes(text, dims={"N": 0}) == ["E0510"]


def test_decided_comparisons() -> None:
    text = """model M {
    input x: f32[N, T <= 512]
    assert N >= 1
    assert T <= 512 and T < 513 and not T > 512
    assert 2 * T != 2 * T + 1
    assert (T + T) // 2 == T
    output y = x
}"""
    assert codes(text) == []


def test_choice_and_repetition() -> None:
    out = compute(
        """
    h = x
    for i, (a, b) in enumerate([(1, 2), (3, 4)]) {
        if i == 0 {
            h = h + a
        } else if b == 4 {
            h = h * b
        } else {
            h = h - 100
        }
    }
    for j in range(3, 0, -1) {
        h = h + (j if j != 2 else 0)
    }
    output y = h
    """,
        x=X,
    )
    assert np.array_equal(out["y"], (X + 1) * 4 + 4)


def test_operators() -> None:
    out = compute(
        """
    output a = -x + 2 * x - 1 / (x + 100)
    output b = x ** 2 // 3 % 2
    output c = astype(x >= 0, "f32") * astype(x != 3, "f32")
    output d = x @ transpose(x)
    output e = (1 - x) * (2 if 3 > 2 and not false else 0)
    """,
        x=X,
    )
    assert np.allclose(out["a"], -X + 2 * X - 1 / (X + 100))
    assert np.allclose(out["b"], X**2 // 3 % 2)
    assert np.array_equal(out["c"], ((X >= 0) & (X != 3)).astype(np.float32))
    assert np.allclose(out["d"], X @ X.T)
    assert np.array_equal(out["e"], (1 - X) * 2)


def test_dims_as_numbers() -> None:
    text = model("input x: f32[N, T]\noutput y = sum(x, dim=1) / T\noutput z = x * N - T")
    out = interpret(load(text).graph, {"x": X}, {})
    assert np.allclose(out["y"], X.mean(1))
    assert np.array_equal(out["z"], X * 3 - 4)


SUBSCRIPTS = [
    "0",
    "-1",
    ":, 1",
    ":, -1",
    "1:",
    ":-1",
    "..., ::2",
    "::2, 1:4:2",
    "::-1",
    ":, ::-2",
    "2:0:-1, 1",
    ":, 3:1:-1",
    "none, 1",
    "..., none",
    ":, none, 2:",
    "1:1",
    ":10",
    "-100:2",
]


@pytest.mark.parametrize("text", SUBSCRIPTS)
def test_subscripts(text: str) -> None:
    items = eval(f"np.s_[{text.replace('none', 'None')}]", {"np": np})
    out = compute(f"output y = x[{text}] + 0", x=X)["y"]
    assert out.shape == X[items].shape
    assert np.array_equal(out, X[items])


def test_subscripts_of_named_dims() -> None:
    text = """model M {
    input x: f32[N, T, 4]
    output a = x[:, 0]
    output b = x[:, -1, 1:]
    output c = x[:, ::2, ::-1]
    output d = x[:, :T - 1]
    output e = x[:, T - 1]
}"""
    x = np.random.default_rng(0).normal(size=(2, 5, 4)).astype(np.float32)
    out = interpret(load(text).graph, {"x": x}, {})
    for name, want in {
        "a": x[:, 0],
        "b": x[:, -1, 1:],
        "c": x[:, ::2, ::-1],
        "d": x[:, :4],
        "e": x[:, 4],
    }.items():
        assert np.array_equal(out[name], want)


def test_tensor_subscripts() -> None:
    i = np.array([[2, 0], [1, 1]])
    out = compute("output y = x[i]\noutput z = x[:, i]", x=X, i=i)
    assert np.array_equal(out["y"], X[i])
    assert np.array_equal(out["z"], X[:, i])


def test_optional_tensors() -> None:
    text = """
block Add(x: f32[N, D], y: f32[N, D] = none) {
    z = x
    if y != none {
        z = x + y
    }
    return z
}
model M {
    input x: f32[N, 4]
    output a = x -> Add
    output b = x -> Add(y=x)
}"""
    out = run(load(text), x=X)
    assert np.array_equal(out["a"], X)
    assert np.array_equal(out["b"], 2 * X)


def test_functions_with_arguments_can_be_passed_on() -> None:
    text = """
block Twice(x: f32[N, D], f: layer = softmax(dim=0)) {
    return x -> f -> f
}
model M {
    input x: f32[N, 4]
    output a = x -> Twice(clamp(min=-1, max=1))
    output b = x -> Twice(relu)
    output c = x -> Twice
}"""
    out = run(load(text), x=X)
    assert np.array_equal(out["a"], np.clip(X, -1, 1))
    assert np.array_equal(out["b"], np.maximum(X, 0))
    assert codes(model("input x: f32[N]\noutput y = x + relu()")) == ["E0512"]


def test_functions_in_chains() -> None:
    out = compute(
        """
    output a = x -> relu -> softmax(dim=1) -> reshape((2, 6))
    output b = (x, x) -> concat(dim=1)
    output c = (x, transpose(x)) -> matmul
    output d = x -> scores: tanh
    """,
        x=X,
    )
    assert out["a"].shape == (2, 6)
    assert np.array_equal(out["b"], np.concatenate((X, X), 1))
    assert np.allclose(out["c"], X @ X.T)
    assert np.allclose(out["d"], np.tanh(X))


def test_checkpoint_changes_nothing_in_inference() -> None:
    out = compute("checkpoint {\n h = x + 1\n}\noutput y = h * 2", x=X)
    assert np.array_equal(out["y"], (X + 1) * 2)


def test_a_train_section_does_not_stand_in_the_way() -> None:
    text = """
model M {
    input x: f32[N, 4]
    output logits = x -> fc: Linear(3)
}
train M {
    input label: i64[N]
    loss cross_entropy(logits, label, label_smoothing=0.1)
    metric accuracy = mean(argmax(logits, dim=1) == label)
    optimizer AdamW(lr=1e-3)
    schedule warmup(200) -> cosine(total=4000)
    augment x -> mixup(label, 0.2)
    freeze fc
    batch 64
    epochs 10
}"""
    assert codes(text) == []


def test_settings() -> None:
    text = """
model M(classes: int = 10, rate: float = 0.5, deep: bool = false, name: str = "a", widths: list = [1]) {
    input x: f32[N, 4]
    h = x -> fc: Linear(classes + widths[0] + len(name)) -> Dropout(rate)
    output y = tanh(h) if deep else h
}"""
    assert codes(text) == []
    given = {"classes": "7", "rate": "1", "deep": "true", "name": "abc", "widths": "[5, 6]"}
    graph = load(text, settings=given).graph
    assert str(graph.type_of(graph.outputs[0][1])) == "f32[N, 15]"
    graph = load(text, settings={"classes": 7, "widths": (5,), "name": "abc"}).graph
    assert str(graph.type_of(graph.outputs[0][1])) == "f32[N, 15]"
    assert codes(text, settings={"clases": 1}) == ["E0407"]
    for wrong in ({"classes": "many"}, {"classes": 1.5}, {"deep": 1}, {"widths": "[1"}):
        assert codes(text, settings=wrong) == ["E0408"]


def test_a_setting_without_default() -> None:
    text = "model M(n: int) {\n    input x: f32[N, n]\n    output y = x + 1\n}"
    assert codes(text) == ["E0402"]
    assert codes(text, settings={"n": 3}) == []


def test_several_models() -> None:
    text = "\n".join(f"model {n} {{\n input x: f32[N]\n output y = x + 1\n}}" for n in "AB")
    assert codes(text) == ["E0309"]
    assert load(text, model="B").name == "B"
    assert codes(text, model="C") == ["E0309"]


def test_unused_results_leave_the_graph_and_keep_their_parameters() -> None:
    text = model("input x: f32[N, 4]\n_side = x -> side: Linear(4)\noutput y = x + 1")
    elaborated = load(text)
    assert [p.path for p in elaborated.parameters] == ["side.weight", "side.bias"]
    assert elaborated.graph.parameters == ()


def test_the_partial_graph_of_a_mistake() -> None:
    text = model("input x: f32[N, 4]\nh = x -> fc: Linear(3)\noutput y = h -> Conv2d(3, 3)")
    with pytest.raises(frontend.ElaborationError) as caught:
        load(text)
    assert caught.value.partial is not None
    assert "fc.weight" in print_graph(caught.value.partial)


def test_poison_is_silent() -> None:
    text = model(
        """input x: f32[N, 4]
    a = x -> Conv2d(3, 3)
    b, c = (a, a)
    for d in [b] {
        f = relu(d) + 1
    }
    g = c if f.shape[0] == 3 else c
    h = g -> [ReLU -> Linear(3)]
    i = concat([h, x], dim=1)
    output i"""
    )
    assert codes(text) == ["E0205"]


def test_one_mistake_in_a_repeated_block_is_reported_once() -> None:
    text = """
block Wrong(x: f32[N, D]) { return x -> Conv2d(3, 3) }
model M {
    input x: f32[N, 4]
    a = x -> Wrong
    b = x -> Wrong
    output y = a + b
}"""
    with pytest.raises(DiagnosticError) as caught:
        load(text)
    (diagnostic,) = caught.value.diagnostics
    assert [f.description for f in diagnostic.trace] == ["while expanding `Wrong`"]


def test_the_order_of_use_is_the_order_of_parameters(tmp_path: Path) -> None:
    file = tmp_path / "m.nn"
    file.write_text(model("input x: f32[N, 4]\noutput y = x -> b: Linear(2) -> a: Linear(3)"))
    first, second = frontend.load(file), frontend.load(str(file))
    assert print_graph(first.graph) == print_graph(second.graph)
    assert [p.path for p in first.parameters] == ["b.weight", "b.bias", "a.weight", "a.bias"]
    assert first.sources == (Source("m.nn", file.read_text()),)
