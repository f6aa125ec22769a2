"""RNN, LSTM and GRU against PyTorch's, on weights loaded by name."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from graphc.autodiff import grad_graph
from graphc.reference import interpret
from tests.frontend.helpers import codes, load

TWINS: dict[str, Any] = {"RNN": nn.RNN, "LSTM": nn.LSTM, "GRU": nn.GRU}
T, N, D, H = 5, 3, 4, 6


def spelled(value: object) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    return f'"{value}"' if isinstance(value, str) else str(value)


def states_of(twin: nn.RNNBase) -> tuple[int, int]:
    return twin.num_layers * (2 if twin.bidirectional else 1), 2 if isinstance(twin, nn.LSTM) else 1


def check(
    name: str,
    options: dict[str, Any],
    *,
    start: bool = False,
    lengths: list[int] | None = None,
    unbatched: bool = False,
) -> None:
    """Every output and state equals PyTorch's, which pads what is packed."""
    torch.manual_seed(0)
    twin = TWINS[name](D, H, **options)
    count, kinds = states_of(twin)
    first = bool(options.get("batch_first"))
    shape = (T, D) if unbatched else (N, T, D) if first else (T, N, D)
    state = (count, H) if unbatched else (count, N, H)
    given = ["h_0", "c_0"][:kinds] if start else []
    written = [f"{k}={spelled(v)}" for k, v in options.items()]
    written += ["lengths=lengths"] if lengths is not None else []
    last = "(h, c)" if kinds == 2 else "h"
    source = f"({', '.join(['x', *given])})" if given else "x"
    text = "\n".join(
        [
            "model M {",
            f"input x: f32[{', '.join(map(str, shape))}]",
            *(f"input {s}: f32[{', '.join(map(str, state))}]" for s in given),
            f"input lengths: i64[{N}]" if lengths is not None else "",
            f"y, {last} = {source} -> layer: {name}({', '.join([str(H), *written])})",
            "output y",
            "output h",
            "output c" if kinds == 2 else "",
            "}",
        ]
    )
    model = load(text)
    weights = {f"layer.{k}": v.detach().numpy() for k, v in twin.state_dict().items()}
    assert {p.path: p.type.shape for p in model.parameters} == {
        k: w.shape for k, w in weights.items()
    }
    rng = np.random.default_rng(1)
    arrays = {"x": rng.normal(size=shape).astype(np.float32)}
    arrays |= {s: rng.normal(size=state).astype(np.float32) for s in given}
    tensors = {k: torch.from_numpy(v) for k, v in arrays.items()}
    x: Any = tensors["x"]
    hx: Any = tuple(tensors[s] for s in given) if len(given) > 1 else tensors.get("h_0")
    if lengths is not None:
        arrays["lengths"] = np.array(lengths)
        x = nn.utils.rnn.pack_padded_sequence(x, lengths, batch_first=first, enforce_sorted=False)
    with torch.no_grad():
        y, states = twin(x, hx)
    if lengths is not None:
        y, _ = nn.utils.rnn.pad_packed_sequence(y, batch_first=first)
    wanted = {"y": y, **dict(zip("hc", states if kinds == 2 else [states], strict=False))}
    found = interpret(model.graph, arrays, weights)
    for key, value in wanted.items():
        np.testing.assert_allclose(found[key], value.numpy(), rtol=1e-4, atol=2e-6)


@pytest.mark.parametrize("name", TWINS)
@pytest.mark.parametrize("num_layers", [1, 2])
@pytest.mark.parametrize("bidirectional", [False, True])
@pytest.mark.parametrize("batch_first", [False, True])
@pytest.mark.parametrize("bias", [False, True])
@pytest.mark.parametrize("start", [False, True])
def test_every_combination(
    name: str, num_layers: int, bidirectional: bool, batch_first: bool, bias: bool, start: bool
) -> None:
    options = {
        "num_layers": num_layers,
        "bias": bias,
        "batch_first": batch_first,
        "bidirectional": bidirectional,
    }
    check(name, options, start=start)


@pytest.mark.parametrize("name", TWINS)
@pytest.mark.parametrize("start", [False, True])
def test_lengths_pack(name: str, start: bool) -> None:
    options = {"num_layers": 2, "bidirectional": True}
    check(name, options, start=start, lengths=[3, 5, 1])
    check(name, {"batch_first": True}, start=start, lengths=[5, 2, 2])


@pytest.mark.parametrize("name", TWINS)
def test_one_sequence_without_a_batch(name: str) -> None:
    check(name, {"bidirectional": True}, unbatched=True)
    check(name, {"batch_first": True}, unbatched=True, start=True)


def test_relu_and_dropout() -> None:
    check("RNN", {"nonlinearity": "relu"})
    model = load(
        "model M { input x: f32[T, N, 4] \n y, _h = x -> GRU(3, 2, dropout=0.5) \n output y }"
    )
    assert not any(n.op.name == "random_bits" for n in model.graph.nodes)


@pytest.mark.parametrize(
    ("line", "code"),
    [
        ("(x, h) -> LSTM(6)", "E0409"),
        ("(x, h) -> GRU(7)", "E0201"),
        ("x -> GRU(6, lengths=n)", "E0201"),
        ("x -> GRU(6, input_size=5)", "E0204"),
        ("i -> GRU(6)", "E0206"),
        ("n -> GRU(6)", "E0205"),
        ("x -> GRU(0)", "E0405"),
        ("x -> GRU(6, dropout=2.0)", "E0405"),
        ("x -> LSTM(6, proj_size=2)", "E0401"),
    ],
)
def test_what_does_not_fit_is_said(line: str, code: str) -> None:
    text = f"""model M {{
        input x: f32[5, 3, 4]
        input i: i64[5, 3]
        input h: f32[1, 3, 6]
        input n: f32[3]
        y, _s = {line}
        output y
    }}"""
    assert set(codes(text)) - {"E0303"} == {code}


def test_second_derivatives_are_pytorchs() -> None:
    """The gradient of the squared norm of a gradient, through a masked LSTM both ways."""
    torch.manual_seed(0)
    twin = nn.LSTM(D, H, bidirectional=True).double()
    lengths = torch.tensor([5, 2, 4])
    x = torch.randn(T, N, D, dtype=torch.float64, requires_grad=True)
    packed = nn.utils.rnn.pack_padded_sequence(x, lengths, enforce_sorted=False)
    y, _ = nn.utils.rnn.pad_packed_sequence(twin(packed)[0])
    (first,) = torch.autograd.grad((y**3).sum(), x, create_graph=True)
    twice = torch.autograd.grad((first**2).sum(), [x, *twin.parameters()])
    text = f"""model M {{
        input x: f64[{T}, {N}, {D}]
        input lengths: i64[{N}]
        y, _s = x -> layer: LSTM({H}, bidirectional=true, lengths=lengths)
        output g = grad(sum(y ** 3), x)
        output loss = sum(g ** 2)
    }}"""
    graph = load(text).graph
    names = ["x", *(f"layer.{k}" for k, _ in twin.named_parameters())]
    weights = {f"layer.{k}": v.detach().numpy() for k, v in twin.state_dict().items()}
    arrays = {"x": x.detach().numpy(), "lengths": lengths.numpy()}
    found = interpret(grad_graph(graph, "loss", names, ["g"]), arrays, weights)
    np.testing.assert_allclose(found["g"], first.detach().numpy(), rtol=1e-9, atol=1e-12)
    for name, wanted in zip(names, twice, strict=True):
        scale = float(wanted.abs().max())
        np.testing.assert_allclose(found[f"grad_{name}"], wanted.numpy(), rtol=0, atol=1e-9 * scale)
