"""Every layer against `torch.nn`: same arguments, same parameter names and shapes, same result."""

from __future__ import annotations

import inspect
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from graphc import frontend
from graphc.frontend import LAYERS
from graphc.frontend.values import shown
from graphc.reference import interpret
from tests.frontend.helpers import load

IMAGE = (2, 4, 9, 8)


def check(
    spec: str, twin: nn.Module, *shapes: tuple[int, ...], tolerance: float = 1e-4
) -> frontend.Elaborated:
    """The layer `spec` equals the twin on random input, with the twin's parameters by name."""
    rng = np.random.default_rng(0)
    arrays = [rng.normal(size=s).astype(np.float32) for s in shapes]
    names = [f"x{i}" for i in range(len(shapes))]
    declared = [
        f"input {n}: f32[{', '.join(['N' if i == 0 else str(d) for i, d in enumerate(s)])}]"
        for n, s in zip(names, shapes, strict=True)
    ]
    chain = names[0] if len(names) == 1 else f"({', '.join(names)})"
    text = "model M {\n" + "\n".join(declared) + f"\noutput y = {chain} -> layer: {spec}\n}}"
    elaborated = load(text)
    with torch.no_grad():
        for name, tensor in twin.state_dict().items():
            if name.endswith("running_var"):
                tensor.uniform_(0.5, 1.5)
            elif tensor.is_floating_point() and (tensor.ndim < 2 or "proj" in name):
                tensor.normal_(0.3, 0.5)
        expected = twin.eval()(*(torch.from_numpy(a) for a in arrays))
    state = {f"layer.{k}": v.numpy() for k, v in twin.state_dict().items()}
    weights = frontend.match_weights(elaborated.parameters, state)
    out = interpret(elaborated.graph, dict(zip(names, arrays, strict=True)), weights)["y"]
    want = expected.numpy()
    assert out.shape == want.shape
    assert np.abs(out - want).max() <= tolerance * max(1.0, np.abs(want).max())
    return elaborated


def spelled(name: str, arguments: dict[str, Any]) -> str:
    """A layer as `.nn` text."""
    return f"{name}({', '.join(f'{k}={shown(v)}' for k, v in arguments.items())})"


SIZES = st.integers(1, 3)


@given(
    rank=st.integers(1, 3),
    out=st.sampled_from([2, 4, 6]),
    kernel=SIZES,
    stride=st.integers(1, 2),
    padding=st.sampled_from([0, 1, 2, "same", "valid"]),
    dilation=st.integers(1, 2),
    groups=st.sampled_from([1, 2]),
    bias=st.booleans(),
)
@settings(max_examples=40)
def test_convolutions(
    rank: int,
    out: int,
    kernel: int,
    stride: int,
    padding: int | str,
    dilation: int,
    groups: int,
    bias: bool,
) -> None:
    if padding == "same":
        stride = 1
    arguments = {
        "kernel_size": kernel,
        "stride": stride,
        "padding": padding,
        "dilation": dilation,
        "groups": groups,
        "bias": bias,
    }
    name = f"Conv{rank}d"
    twin = getattr(nn, name)(4, out, **arguments)
    check(spelled(name, {"out_channels": out, **arguments}), twin, (2, 4, 7, 6, 5)[: rank + 2])


@given(
    rank=st.integers(1, 2),
    kernel=SIZES,
    stride=SIZES,
    padding=st.integers(0, 1),
    groups=st.sampled_from([1, 2]),
    bias=st.booleans(),
    dilation=st.integers(1, 2),
)
@settings(max_examples=30)
def test_transposed_convolutions(
    rank: int, kernel: int, stride: int, padding: int, groups: int, bias: bool, dilation: int
) -> None:
    arguments = {
        "kernel_size": kernel,
        "stride": stride,
        "padding": padding,
        "output_padding": max(stride, dilation) - 1,
        "groups": groups,
        "bias": bias,
        "dilation": dilation,
    }
    name = f"ConvTranspose{rank}d"
    twin = getattr(nn, name)(4, 6, **arguments)
    check(spelled(name, {"out_channels": 6, **arguments}), twin, (2, 4, 6, 5)[: rank + 2])


@given(
    kind=st.sampled_from(["Max", "Avg"]),
    rank=st.integers(1, 3),
    kernel=st.integers(2, 3),
    stride=st.sampled_from([None, 1, 2, 3]),
    padding=st.integers(0, 1),
    ceil=st.booleans(),
    include=st.booleans(),
)
@settings(max_examples=50)
def test_pooling(
    kind: str,
    rank: int,
    kernel: int,
    stride: int | None,
    padding: int,
    ceil: bool,
    include: bool,
) -> None:
    arguments: dict[str, Any] = {"kernel_size": kernel, "stride": stride, "padding": padding}
    arguments["ceil_mode"] = ceil
    if kind == "Avg":
        arguments["count_include_pad"] = include
    name = f"{kind}Pool{rank}d"
    check(spelled(name, arguments), getattr(nn, name)(**arguments), (2, 3, 8, 7, 5)[: rank + 2])


@given(
    kind=st.sampled_from(["AdaptiveAvgPool2d", "AdaptiveMaxPool2d"]),
    size=st.one_of(st.integers(1, 6), st.tuples(st.integers(1, 6), st.integers(1, 6))),
)
@settings(max_examples=25)
def test_adaptive_pooling(kind: str, size: int | tuple[int, int]) -> None:
    check(spelled(kind, {"output_size": size}), getattr(nn, kind)(size), IMAGE)


class Padded(nn.Module):
    """A convolution after padding that differs between the ends of an axis."""

    def __init__(self, conv: nn.Conv2d, padding: tuple[int, ...]) -> None:
        super().__init__()
        self.weight, self.bias = conv.weight, conv.bias
        self._padding = padding

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return nn.functional.conv2d(nn.functional.pad(x, self._padding), self.weight, self.bias)


SIMPLE: list[tuple[str, nn.Module, tuple[int, ...]]] = [
    ("Linear(5)", nn.Linear(6, 5), (3, 6)),
    ("Linear(5, bias=false, in_features=6)", nn.Linear(6, 5, bias=False), (3, 2, 6)),
    ("Conv2d(3, (3, 2), stride=(2, 1))", nn.Conv2d(4, 3, (3, 2), (2, 1)), IMAGE),
    (
        "Conv2d(3, 2, padding=((0, 1), (2, 0)))",
        Padded(nn.Conv2d(4, 3, 2), (2, 0, 0, 1)),
        IMAGE,
    ),
    ("AvgPool2d(2, divisor_override=3)", nn.AvgPool2d(2, divisor_override=3), IMAGE),
    ("MaxPool2d(2, dilation=2)", nn.MaxPool2d(2, dilation=2), IMAGE),
    ("AdaptiveAvgPool1d(3)", nn.AdaptiveAvgPool1d(3), (2, 3, 7)),
    ("AdaptiveMaxPool1d(3)", nn.AdaptiveMaxPool1d(3), (2, 3, 7)),
    ("AdaptiveAvgPool3d(2)", nn.AdaptiveAvgPool3d(2), (1, 2, 4, 5, 6)),
    ("AdaptiveAvgPool2d((none, 2))", nn.AdaptiveAvgPool2d((None, 2)), IMAGE),
    ("BatchNorm1d", nn.BatchNorm1d(4), (3, 4)),
    ("BatchNorm1d(4, 0.001)", nn.BatchNorm1d(4, 0.001), (3, 4, 5)),
    ("BatchNorm2d(affine=false)", nn.BatchNorm2d(4, affine=False), IMAGE),
    ("BatchNorm3d", nn.BatchNorm3d(2), (1, 2, 3, 4, 5)),
    ("LayerNorm", nn.LayerNorm(6), (3, 2, 6)),
    ("LayerNorm((2, 6), 0.01)", nn.LayerNorm((2, 6), 0.01), (3, 2, 6)),
    ("LayerNorm(bias=false)", nn.LayerNorm(6, bias=False), (3, 6)),
    ("LayerNorm(elementwise_affine=false)", nn.LayerNorm(6, elementwise_affine=False), (3, 6)),
    ("RMSNorm", nn.RMSNorm(6), (3, 2, 6)),
    ("RMSNorm((2, 6), eps=0.01)", nn.RMSNorm((2, 6), 0.01), (3, 2, 6)),
    ("GroupNorm(2)", nn.GroupNorm(2, 4), IMAGE),
    ("GroupNorm(4, 4, affine=false)", nn.GroupNorm(4, 4, affine=False), (2, 4, 5)),
    ("InstanceNorm1d", nn.InstanceNorm1d(4), (2, 4, 5)),
    ("InstanceNorm2d(affine=true)", nn.InstanceNorm2d(4, affine=True), IMAGE),
    ("Flatten", nn.Flatten(), IMAGE),
    ("Flatten(2)", nn.Flatten(2), IMAGE),
    ("Unflatten(1, (2, -1))", nn.Unflatten(1, (2, 2)), IMAGE),
    ("Identity", nn.Identity(), IMAGE),
    ("Dropout(0.3)", nn.Dropout(0.3), IMAGE),
    ("ZeroPad2d((1, 2, 0, 3))", nn.ZeroPad2d((1, 2, 0, 3)), IMAGE),
    ("Pad((1, 2, 3, -1), 0.5)", nn.ConstantPad2d((1, 2, 3, -1), 0.5), IMAGE),
    ("Pad(1)", nn.ConstantPad2d(1, 0.0), IMAGE),
    ("Upsample(scale_factor=2)", nn.Upsample(scale_factor=2), IMAGE),
    ("Upsample(size=(5, 13))", nn.Upsample((5, 13)), IMAGE),
    ('Upsample(size=5, mode="bilinear")', nn.Upsample(5, mode="bilinear"), IMAGE),
    (
        'Upsample(scale_factor=3, mode="bilinear", align_corners=true)',
        nn.Upsample(scale_factor=3, mode="bilinear", align_corners=True),
        IMAGE,
    ),
    ("PixelShuffle(2)", nn.PixelShuffle(2), IMAGE),
    ("PixelUnshuffle(2)", nn.PixelUnshuffle(2), (1, 3, 4, 6)),
    ("ReLU", nn.ReLU(), IMAGE),
    ("ReLU6", nn.ReLU6(), IMAGE),
    ("LeakyReLU(0.2)", nn.LeakyReLU(0.2), IMAGE),
    ("PReLU", nn.PReLU(), IMAGE),
    ("PReLU(4)", nn.PReLU(4), IMAGE),
    ("ELU(0.7)", nn.ELU(0.7), IMAGE),
    ("SELU", nn.SELU(), IMAGE),
    ("GELU", nn.GELU(), IMAGE),
    ('GELU("tanh")', nn.GELU("tanh"), IMAGE),
    ("SiLU", nn.SiLU(), IMAGE),
    ("Sigmoid", nn.Sigmoid(), IMAGE),
    ("Tanh", nn.Tanh(), IMAGE),
    ("Softplus(2.0)", nn.Softplus(2.0), IMAGE),
    ("Hardswish", nn.Hardswish(), IMAGE),
    ("Hardsigmoid", nn.Hardsigmoid(), IMAGE),
    ("Hardtanh(-0.5, 0.25)", nn.Hardtanh(-0.5, 0.25), IMAGE),
    ("Mish", nn.Mish(), IMAGE),
    ("Softmax", nn.Softmax(-1), (3, 7)),
    ("Softmax(1)", nn.Softmax(1), IMAGE),
    ("LogSoftmax(dim=1)", nn.LogSoftmax(1), IMAGE),
]


@pytest.mark.parametrize(("spec", "twin", "shape"), SIMPLE, ids=[s[0] for s in SIMPLE])
def test_layer(spec: str, twin: nn.Module, shape: tuple[int, ...]) -> None:
    check(spec, twin, shape)


class Attend(nn.Module):
    """PyTorch's attention without the weights in its result."""

    def __init__(self, inner: nn.MultiheadAttention, **options: Any) -> None:
        super().__init__()
        for name, value in inner.named_parameters(recurse=False):
            self.register_parameter(name, value)
        self.out_proj = inner.out_proj
        self._inner, self._options = [inner], options

    def forward(self, query: Any, key: Any = None, value: Any = None) -> Any:
        key = query if key is None else key
        value = key if value is None else value
        return self._inner[0].eval()(query, key, value, need_weights=False, **self._options)[0]


@pytest.mark.parametrize("first", [True, False])
@pytest.mark.parametrize("bias", [True, False])
def test_self_attention(first: bool, bias: bool) -> None:
    twin = nn.MultiheadAttention(8, 2, bias=bias, batch_first=first)
    text = spelled("MultiheadAttention", {"num_heads": 2, "bias": bias, "batch_first": first})
    check(text, Attend(twin), (3, 4, 8))


def test_cross_attention() -> None:
    twin = Attend(nn.MultiheadAttention(8, 4, batch_first=True))
    check("MultiheadAttention(4, batch_first=true)", twin, (3, 4, 8), (3, 6, 8))
    twin = Attend(nn.MultiheadAttention(8, 4, kdim=5, vdim=6, batch_first=True))
    shapes = ((3, 4, 8), (3, 6, 5), (3, 6, 6))
    check("MultiheadAttention(4, batch_first=true)", twin, *shapes)


def test_causal_attention() -> None:
    mask = nn.Transformer.generate_square_subsequent_mask(5)
    twin = Attend(nn.MultiheadAttention(8, 2, batch_first=True), attn_mask=mask)
    check("MultiheadAttention(2, batch_first=true, is_causal=true)", twin, (3, 5, 8))
    text = "MultiheadAttention(2, batch_first=true, attn_mask=logical_not(causal_mask(5)))"
    check(text, twin, (3, 5, 8))


def test_padding_mask_of_attention() -> None:
    inner = nn.MultiheadAttention(8, 2, batch_first=True)
    text = """model M {
        input x: f32[N, T, 8]
        input padding: bool[N, T]
        output y = x -> layer: MultiheadAttention(2, batch_first=true, key_padding_mask=padding,
                                                  attn_mask=logical_not(causal_mask(T)))
    }"""
    model = load(text)
    rng = np.random.default_rng(0)
    x = rng.normal(size=(3, 5, 8)).astype(np.float32)
    padding = np.zeros((3, 5), bool)
    padding[1, 3:] = True
    weights = {f"layer.{k}": v.detach().numpy() for k, v in inner.state_dict().items()}
    out = interpret(model.graph, {"x": x, "padding": padding}, weights)["y"]
    causal = torch.triu(torch.ones(5, 5, dtype=torch.bool), 1)
    tensors = [torch.from_numpy(x)] * 3
    want, _ = inner(*tensors, key_padding_mask=torch.from_numpy(padding), attn_mask=causal)
    assert np.abs(out - want.detach().numpy()).max() < 1e-4


def test_embedding_and_attend() -> None:
    model = load("""model M {
        input tokens: i64[N, T]
        shared emb: Embedding(11, 5)
        h = tokens -> emb
        output h
        output scores = h -> emb.attend
    }""")
    assert [p.path for p in model.parameters] == ["emb.weight"]
    table = np.random.default_rng(0).normal(size=(11, 5)).astype(np.float32)
    tokens = np.array([[1, 2, 10], [0, 0, 3]])
    out = interpret(model.graph, {"tokens": tokens}, {"emb.weight": table})
    assert np.array_equal(out["h"], table[tokens])
    assert np.abs(out["scores"] - table[tokens] @ table.T).max() < 1e-4


def test_global_pooling() -> None:
    x = np.random.default_rng(0).normal(size=IMAGE).astype(np.float32)
    model = load("""model M {
        input x: f32[N, 4, H, W]
        output a = x -> GlobalAvgPool
        output b = x -> GlobalMaxPool
        output c = x -> AdaptiveAvgPool2d(1)
    }""")
    out = interpret(model.graph, {"x": x}, {})
    assert np.allclose(out["a"], x.mean((2, 3)), atol=1e-6)
    assert np.array_equal(out["b"], x.max((2, 3)))
    assert np.allclose(out["c"][:, :, 0, 0], x.mean((2, 3)), atol=1e-6)


def test_argument_names_and_defaults_are_pytorchs() -> None:
    """Every argument that both have comes with the same default."""
    for name, layer in LAYERS.items():
        twin = getattr(nn, name, None)
        if twin is None:
            continue
        theirs = inspect.signature(twin.__init__).parameters
        for p in layer.signature.parameters:
            if p.name not in theirs:
                assert p.keyword_only or theirs.keys() & {"args", "kwargs"}, (name, p.name)
                continue
            default = theirs[p.name].default
            if default is not inspect.Parameter.empty and p.default is not None:
                same = p.default == default or (name, p.name) in {
                    ("Softmax", "dim"),
                    ("LogSoftmax", "dim"),
                    ("Upsample", "align_corners"),
                }
                assert same, (name, p.name, p.default, default)


@pytest.mark.parametrize("name", LAYERS)
def test_every_layer_is_documented(name: str) -> None:
    assert LAYERS[name].summary.endswith(".")
    assert str(LAYERS[name].signature).startswith("(")


def test_initial_values_are_pytorchs() -> None:
    """Bounds and spreads of fresh parameters match those PyTorch draws."""
    text = """model M {
        input x: f32[N, 64, 8, 8]
        output y = x -> conv: Conv2d(64, 3) -> Flatten -> fc: Linear(50)
    }"""
    fresh = frontend.initialise(load(text).parameters, seed=1)
    torch.manual_seed(0)
    for path, twin in {"conv": nn.Conv2d(64, 64, 3), "fc": nn.Linear(64 * 36, 50)}.items():
        for kind in ("weight", "bias"):
            ours, theirs = fresh[f"{path}.{kind}"], getattr(twin, kind).detach().numpy()
            assert ours.dtype == np.float32
            assert ours.shape == theirs.shape
            assert abs(np.abs(ours).max() / np.abs(theirs).max() - 1) < 0.1
            assert abs(ours.std() / theirs.std() - 1) < 0.25
