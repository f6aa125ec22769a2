"""Initial values and checkpoints."""

from __future__ import annotations

import re

import ml_dtypes
import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.nn import init

from graphc import frontend
from graphc.codes import CODES
from graphc.diagnostics import DiagnosticError
from graphc.frontend.initialisers import DEFAULTS, Initializer, make
from graphc.frontend.weights import MAX_ROWS
from tests.frontend.helpers import load, model

SHAPE = (40, 30, 3)
OURS = {
    "uniform(low=-2.0, high=3.0)": lambda t: init.uniform_(t, -2, 3),
    "normal(mean=1.0, std=0.5)": lambda t: init.normal_(t, 1, 0.5),
    "trunc_normal(mean=0.0, std=1.0, low=-1.0, high=2.0)": lambda t: init.trunc_normal_(
        t, 0, 1, -1, 2
    ),
    "xavier_uniform(gain=2.0)": lambda t: init.xavier_uniform_(t, 2),
    "xavier_normal(gain=1.0)": init.xavier_normal_,
    "kaiming_uniform(a=0.5)": lambda t: init.kaiming_uniform_(t, 0.5),
    "kaiming_normal(a=0.0)": init.kaiming_normal_,
    "orthogonal(gain=1.5)": lambda t: init.orthogonal_(t, 1.5),
}


@pytest.mark.parametrize("text", OURS)
def test_the_distribution_is_pytorchs(text: str) -> None:
    torch.manual_seed(0)
    ours = make(text, SHAPE, "w", 0)
    theirs = OURS[text](torch.empty(SHAPE)).numpy()
    assert ours.dtype == np.float32
    assert ours.shape == SHAPE
    scale = theirs.std()
    assert abs(ours.mean() - theirs.mean()) < 0.05 * scale
    assert abs(ours.std() - scale) < 0.05 * scale
    assert np.abs(ours).max() < 1.3 * np.abs(theirs).max()


@pytest.mark.parametrize("shape", [(5, 5), (3, 7), (7, 3), (4, 2, 3)])
def test_orthogonal(shape: tuple[int, ...]) -> None:
    w = make("orthogonal(gain=1.0)", shape, "w", 0).reshape(shape[0], -1)
    gram = w @ w.T if w.shape[0] <= w.shape[1] else w.T @ w
    assert np.allclose(gram, np.eye(len(gram)), atol=1e-5)


def test_constants() -> None:
    assert np.array_equal(make("zeros()", (2,), "w", 0), [0, 0])
    assert np.array_equal(make("ones()", (2,), "w", 0), [1, 1])
    assert np.array_equal(make("constant(value=0.25)", (2,), "w", 0), [0.25, 0.25])
    assert np.array_equal(make("trunc_normal(std=0.0, mean=9.0)", (1,), "w", 0), [2])
    assert make("trunc_normal(mean=100.0)", (50,), "w", 0).max() <= 2


def test_streams_depend_on_path_and_seed_only() -> None:
    a = load(model("input x: f32[N, 4]\noutput y = x -> a: Linear(4) -> b: Linear(4)"))
    b = load(model("input x: f32[N, 4]\noutput y = x -> b: Linear(4)"))
    first, second = frontend.initialise(a.parameters, 3), frontend.initialise(b.parameters, 3)
    assert np.array_equal(first["b.weight"], second["b.weight"])
    assert not np.array_equal(first["a.weight"], first["b.weight"])
    assert not np.array_equal(frontend.initialise(b.parameters, 4)["b.weight"], first["b.weight"])
    alone = make("uniform(low=-0.5, high=0.5)", (4, 4), "a.weight", 3)
    assert np.allclose(first["a.weight"], alone)  # the bound of Linear(4) on 4 features


@given(name=st.sampled_from(sorted(DEFAULTS)), value=st.floats(-1e6, 1e6))
def test_text_round_trip(name: str, value: float) -> None:
    arguments = dict.fromkeys(DEFAULTS[name], value)
    initializer = Initializer.of(name, **arguments)
    assert Initializer.parse(str(initializer)) == initializer


@pytest.mark.parametrize(
    "text", ["", "zeros", "normal(std=x)", "nothing()", "normal(low=1.0)", "zeros()()"]
)
def test_text_that_is_no_initialiser(text: str) -> None:
    with pytest.raises(ValueError, match="is no initialiser"):
        make(text, (2, 2), "w", 0)


def test_parameters_of_other_dtypes() -> None:
    text = model("""
    input x: f16[N, 4]
    param w: f16[4] = ones()
    param i: i64[2] = constant(3)
    output y = (x -> fc: Linear(4)) * w
    output z = i""")
    arrays = frontend.initialise(load(text).parameters)
    assert {k: str(v.dtype) for k, v in arrays.items()} == {
        "w": "float16",
        "i": "int64",
        "fc.weight": "float16",
        "fc.bias": "float16",
    }


NET = model("input x: f32[N, 4]\noutput y = x -> fc1: Linear(3) -> BatchNorm1d -> fc2: Linear(2)")


def checkpoint() -> dict[str, np.ndarray]:
    arrays = frontend.initialise(load(NET).parameters)
    return {**arrays, "batch_norm1d.num_batches_tracked": np.asarray(7)}


def test_a_checkpoint_fits() -> None:
    found = frontend.check_weights(load(NET).parameters, checkpoint())
    assert set(found.arrays) == {p.path for p in load(NET).parameters}
    (note,) = found.notes
    assert note.startswith("`batch_norm1d.num_batches_tracked` is ignored")


@pytest.mark.parametrize("dtype", [np.float16, np.float64, ml_dtypes.bfloat16])
def test_precisions_are_converted_and_noted(dtype: type) -> None:
    arrays = checkpoint()
    arrays["fc1.weight"] = arrays["fc1.weight"].astype(dtype)
    found = frontend.check_weights(load(NET).parameters, arrays)
    assert found.arrays["fc1.weight"].dtype == np.float32
    assert any("`fc1.weight` is converted from" in n for n in found.notes)


def test_everything_wrong_in_one_table() -> None:
    arrays = checkpoint()
    arrays["fc.weight"] = arrays.pop("fc1.weight")
    arrays["fc1.bias"] = np.zeros(5, np.float32)
    arrays["fc2.bias"] = np.zeros(2, np.int64)
    arrays["fc2.weight"] = np.zeros((2, 3), np.complex64)
    with pytest.raises(DiagnosticError) as caught:
        frontend.match_weights(load(NET).parameters, arrays)
    (diagnostic,) = caught.value.diagnostics
    assert diagnostic.code == "E0601" and "E0601" in CODES
    assert diagnostic.message == (
        "the weights do not fit the model: 1 missing, 1 without a parameter, 1 of a wrong shape, "
        "2 of a wrong dtype"
    )
    assert diagnostic.primary is not None
    assert (diagnostic.primary.span.line, diagnostic.primary.span.column) == (4, 17)
    table = re.sub(r" +", " ", diagnostic.notes[0]).split("\n")
    assert table == [
        "missing fc1.weight f32[3, 4]; the file has `fc.weight`",
        "extra fc.weight float32[3, 4], no such parameter",
        "shape fc1.bias the model has f32[3], the file [5]",
        "dtype fc2.weight the model has f32, the file complex64",
        "dtype fc2.bias the model has f32, the file int64",
    ]


def test_a_prefix_is_recognised_and_a_long_table_cut() -> None:
    text = model(
        "input x: f32[N, 4]\nh = x\nfor i in range(30) {\n h = h -> l.{i}: Linear(4)\n}\noutput h"
    )
    parameters = load(text).parameters
    arrays = {f"module.{k}": v for k, v in frontend.initialise(parameters).items()}
    with pytest.raises(DiagnosticError) as caught:
        frontend.match_weights(parameters, arrays)
    lines = caught.value.diagnostics[0].notes[0].split("\n")
    assert len(lines) == MAX_ROWS + 1
    assert lines[0].endswith("the file has `module.l.0.weight`")
    assert lines[-1] == "... and 100 more"
