"""The public Python API: load, look, compile, save, open."""

from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest

import graphc
from graphc.artifact import ModuleError
from graphc.codes import CODES
from graphc.lowering.cpu.features import TargetError
from graphc.reference import interpret

LENET = Path(__file__).parents[1] / "examples" / "lenet.nn"


@pytest.fixture(scope="module")
def module() -> graphc.Module:
    return graphc.load(LENET, classes=7).compile()


def test_settings_reach_the_model():
    model = graphc.load(LENET, classes=7)
    assert model.name == "LeNet" and model.warnings == ()
    assert [p.path for p in model.parameters][:2] == ["conv1.weight", "conv1.bias"]
    assert str(model.graph.type_of(model.graph.outputs[0][1])) == "f32[N, 7]"


def test_a_fixed_dim_leaves_no_name():
    assert dict(graphc.load(LENET, dims={"N": 4}).graph.dims) == {}


@pytest.mark.parametrize(("dims", "code"), [({"M": 4}, "E0509"), ({"N": 0}, "E0510")])
def test_dims_that_do_not_fit(dims, code):
    with pytest.raises(graphc.DiagnosticError) as error:
        graphc.load(LENET, dims=dims)
    assert [d.code for d in error.value.diagnostics] == [code] and code in CODES


def test_initial_weights_depend_on_the_seed_only():
    model = graphc.load(LENET)
    first, again, other = model.initialise(1), model.initialise(1), model.initialise(2)
    for path, array in first.items():
        np.testing.assert_array_equal(array, again[path])
    assert any((first[p] != other[p]).any() for p in first)


def test_dump_shows_any_stage_and_unknown_passes_are_named():
    model = graphc.load(LENET)
    assert "conv_general" in model.dump() and "fusion" in model.dump(after="fuse")
    with pytest.raises(ValueError, match="there is no pass 'fusion'"):
        model.dump(after="fusion")


LOSS = """
model Fit {
    input x: f32[N, 3]
    input target: f32[N]
    y = x -> fc1: Linear(4) -> Tanh -> fc2: Linear(1)
    output loss = mean((squeeze(y, 1) - target) ** 2)
}
"""


def test_gradients_by_all_parameters_lead_downhill(tmp_path):
    (tmp_path / "fit.nn").write_text(LOSS)
    model = graphc.load(tmp_path / "fit.nn")
    grads = model.grad("loss", keep=["loss"])
    names = [f"grad_{p.path}" for p in model.parameters]
    assert [name for name, _ in grads.graph.outputs] == ["loss", *names]
    assert "grad: Gradient" in grads.draw(depth=1)
    weights, rng = model.initialise(), np.random.default_rng(0)
    x = rng.normal(size=(16, 3)).astype(np.float32)
    given = {"x": x, "target": np.sin(x[:, 0])}
    losses = []
    for _ in range(20):
        found = interpret(grads.graph, given, weights)
        losses.append(float(found["loss"]))
        weights = {k: w - np.float32(0.1) * found[f"grad_{k}"] for k, w in weights.items()}
    assert all(b < a for a, b in pairwise(losses))
    compiled = grads.compile(weights)(**given)
    for name, want in interpret(grads.graph, given, weights).items():
        np.testing.assert_allclose(compiled[name], want, rtol=1e-4, atol=1e-6)


def test_grad_is_a_function_too(tmp_path):
    (tmp_path / "fit.nn").write_text(LOSS)
    model = graphc.load(tmp_path / "fit.nn")
    assert graphc.grad(model, "loss").graph == model.grad("loss").graph
    both = graphc.grad(model, "loss", wrt=["x"], keep=["loss"])
    assert both.graph == model.grad("loss", ["x"], keep=["loss"]).graph
    assert [name for name, _ in both.graph.outputs] == ["loss", "grad_x"]
    with pytest.raises(ValueError, match="no output 'nothing'"):
        graphc.grad(model, "nothing")


def test_gradients_of_what_is_not_there():
    model = graphc.load(LENET)
    with pytest.raises(ValueError, match="no output 'loss'"):
        model.grad("loss")
    with pytest.raises(ValueError, match="no input or parameter 'conv9'"):
        model.grad("logits", ["conv9"])


def test_drawings_follow_the_suffix(tmp_path):
    model = graphc.load(LENET)
    text = model.draw(tmp_path / "lenet.dot", title="Digits")
    assert (tmp_path / "lenet.dot").read_text() == text and "Digits" in text


def test_summary_counts_parameters():
    assert "61,706" in str(graphc.load(LENET).summary())


def test_save_and_open_give_the_same_results(module, tmp_path):
    image = np.random.default_rng(0).normal(size=(3, 1, 28, 28)).astype(np.float32)
    saved = graphc.open(module.save(tmp_path / "lenet"))
    np.testing.assert_array_equal(saved(image=image)["logits"], module(image=image)["logits"])


@pytest.mark.usefixtures("all_processors")
def test_threads_do_not_change_results(module):
    image = np.random.default_rng(0).normal(size=(5, 1, 28, 28)).astype(np.float32)
    results = [
        graphc.open(module.path, threads=threads)(image=image)["logits"] for threads in (1, 2, 3)
    ]
    np.testing.assert_array_equal(results[0], results[1])
    np.testing.assert_array_equal(results[0], results[2])


def test_calls_say_what_is_wrong(module):
    with pytest.raises(ModuleError, match="image"):
        module(picture=np.zeros((1, 1, 28, 28), np.float32))
    with pytest.raises(ModuleError, match=r"28"):
        module(image=np.zeros((1, 1, 28, 27), np.float32))
    with pytest.raises(ModuleError, match="float32"):
        module(image=np.zeros((1, 1, 28, 28)))


def test_weights_that_do_not_fit_are_one_table():
    model = graphc.load(LENET)
    weights = model.initialise()
    weights["conv1.wieght"] = weights.pop("conv1.weight")
    weights["fc3.bias"] = np.zeros(11, np.float32)
    with pytest.raises(graphc.DiagnosticError) as error:
        model.compile(weights=weights)
    text = str(error.value)
    assert "conv1.weight" in text and "conv1.wieght" in text and "fc3.bias" in text


def test_an_unknown_target_is_named():
    with pytest.raises(TargetError, match="x86-64-v3"):
        graphc.load(LENET).compile(target="x86-64-v33")


def test_no_compiler_is_said_before_any_work(monkeypatch):
    monkeypatch.setenv("PATH", "/nonexistent")
    monkeypatch.delenv("CC", raising=False)
    stages: list[str] = []
    with pytest.raises(ModuleError, match="no C compiler found"):
        graphc.load(LENET).compile(progress=stages.append)
    assert "generating code" not in stages


def test_an_index_out_of_range_names_the_table(tmp_path):
    file = tmp_path / "lookup.nn"
    file.write_text(
        "model Lookup() {\n"
        "    input tokens: i64[N]\n"
        "    output rows = tokens -> table: Embedding(10, 4)\n"
        "}\n"
    )
    module = graphc.load(file).compile()
    assert module(tokens=np.array([0, 9]))["rows"].shape == (2, 4)
    for bad in (10, -1, 1 << 40):
        with pytest.raises(
            ModuleError, match=rf"index {bad} is out of range.*table.*10.*lookup.nn:3:\d+"
        ):
            module(tokens=np.array([0, bad, 3]))
    assert module(tokens=np.array([3]))["rows"].shape == (1, 4)


@pytest.mark.parametrize("width", [8, 40, 64])
def test_an_index_out_of_range_before_a_norm_is_an_error(width: int, tmp_path: Path) -> None:
    """Rows of tables are added and normalised by one kernel, in vectors that share an index."""
    file = tmp_path / "norm.nn"
    file.write_text(
        "model Normed() {\n"
        "    input tokens: i64[N]\n"
        f"    rows = (tokens -> few: Embedding(7, {width})) + (tokens -> many: Embedding(9, {width}))\n"
        "    output normed = rows -> norm: LayerNorm\n"
        "}\n"
    )
    with graphc.load(file).compile() as module:
        for bad, table in ((8, "few.*7"), (9, "few.*7"), (-1, "few.*7")):
            with pytest.raises(ModuleError, match=rf"index {bad} is out of range.*{table}"):
                module(tokens=np.array([0, 3, bad, 6]))
        assert np.isfinite(module(tokens=np.array([0, 6]))["normed"]).all()


def test_nan_propagates(module):
    image = np.zeros((1, 1, 28, 28), np.float32)
    image[0, 0, 14, 14] = np.nan
    assert np.isnan(module(image=image)["logits"]).all()


def test_a_module_that_is_replaced_while_it_is_open_is_the_new_one(tmp_path: Path) -> None:
    found = []
    for shift in (1, 2, 3):
        (tmp_path / "m.nn").write_text(
            f"model M {{\n    input x: f32[N]\n    output y = x + {shift}.0\n}}\n"
        )
        found.append(graphc.load(tmp_path / "m.nn").compile(directory=tmp_path / "module"))
    x = np.zeros(2, np.float32)
    assert [module(x=x)["y"][0] for module in found] == [1, 2, 3]
