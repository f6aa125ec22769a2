"""What the GPU benchmark measures: shared by the machine that builds the pack and the one that runs it (NumPy only)."""

from __future__ import annotations

import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

KERNELS = "gpu_models.nn"
BLOCK = (32, 128)  # of the signs in a weight matrix


@dataclass(frozen=True)
class Input:
    """A drawn input: its dtype as in .nn files, its shape, and for integers the numbers below which they are."""

    dtype: str
    shape: tuple[int, ...]
    below: int = 0


@dataclass(frozen=True)
class Workload:
    """One module of the pack.

    Attributes:
        name: of its folder, and in the table.
        file: `gpu_models.nn`, or an example's name without `.nn`.
        model: which of the file's models.
        precision: for `graphc compile`.
        inputs: by name, in order.
        settings, dims: arguments of the model, and named dims.
        flops, bytes: of one call, as the field counts them: what the table's rates are made of.
        twin: for networks, the PyTorch class and its arguments.
        training: a step of training, under this name in `train_workloads.py`; `file` and `model` are said there.
    """

    name: str
    file: str
    model: str
    precision: str
    inputs: Mapping[str, Input]
    settings: Mapping[str, Any] = field(default_factory=dict)
    dims: Mapping[str, int] = field(default_factory=dict)
    flops: float = 0
    bytes: float = 0
    twin: tuple[str, Sequence[Any]] | None = None
    training: str = ""


def _gemm(n: int) -> Workload:
    square = Input("bf16", (n, n))
    return Workload(
        f"gemm-{n}",
        KERNELS,
        "Gemm",
        "f32",
        {"a": square, "b": square},
        {"n": n},
        flops=2 * n**3,
        bytes=6 * n * n,
    )


def _attention(batch: int, heads: int, length: int, width: int) -> Workload:
    x = Input("bf16", (batch, heads, length, width))
    names = ("batch", "heads", "length", "width")
    return Workload(
        f"attention-s{length}-d{width}",
        KERNELS,
        "Attention",
        "f32",
        {"q": x, "k": x, "v": x},
        dict(zip(names, x.shape, strict=True)),
        flops=4 * batch * heads * length**2 * width,
        bytes=8 * batch * heads * length * width,
    )


def _attention_gradient(batch: int, heads: int, length: int, width: int) -> Workload:
    """Forward and backward: 2 products and 5, as the field counts them; ours computes 7 backwards."""
    x = Input("bf16", (batch, heads, length, width))
    names = ("batch", "heads", "length", "width")
    return Workload(
        f"attention-both-ways-s{length}-d{width}",
        KERNELS,
        "AttentionGradient",
        "f32",
        dict.fromkeys(("q", "k", "v", "given"), x),
        dict(zip(names, x.shape, strict=True)),
        flops=14 * batch * heads * length**2 * width,
    )


def _weight_gradient(rows: int, inputs: int, outputs: int) -> Workload:
    return Workload(
        "weight-gradient",
        KERNELS,
        "WeightGradient",
        "f32",
        {"given": Input("bf16", (rows, outputs)), "x": Input("bf16", (rows, inputs))},
        {"rows": rows, "inputs": inputs, "outputs": outputs},
        flops=2 * rows * inputs * outputs,
    )


def _columns(rows: int, columns: int) -> Workload:
    return Workload(
        "columns",
        KERNELS,
        "Columns",
        "f32",
        {"x": Input("bf16", (rows, columns))},
        {"rows": rows, "columns": columns},
        bytes=2 * rows * columns,
    )


def _training(
    name: str,
    batch: int,
    precision: str,
    inputs: Mapping[str, Input],
    twin: tuple[str, Sequence[Any]],
) -> Workload:
    """A step of SGD with momentum on the cross entropy of the logits; the label comes last."""
    label = {"label": Input("i64", (batch,), 10)}
    title = f"train-{name}-b{batch}-{precision}"
    return Workload(title, "", "", precision, {**inputs, **label}, twin=twin, training=name)


def _train_resnet18(batch: int, precision: str) -> Workload:
    image = Input("f32", (batch, 3, 64, 64))
    twin = ("vision.ResNet", ([2, 2, 2, 2], 1, 10, 64))
    return _training("resnet18", batch, precision, {"image": image}, twin)


def _train_transformer(batch: int, precision: str) -> Workload:
    tokens = Input("i64", (batch, 128), 1000)
    twin = ("language.TransformerEncoder", (1000, 256, 4, 4, 1024, 10))
    return _training("transformer", batch, precision, {"tokens": tokens}, twin)


def _train_mlp(batch: int, precision: str) -> Workload:
    twin = ("vision.MLP", (784, [512, 256], 10))
    return _training("mlp", batch, precision, {"x": Input("f32", (batch, 784))}, twin)


def _rows(model: str, rows: int, columns: int, operands: int = 1) -> Workload:
    x = Input("bf16", (rows, columns))
    return Workload(
        model.lower(),
        KERNELS,
        model,
        "f32",
        dict.fromkeys(("x", "y")[:operands], x),
        {"rows": rows, "columns": columns},
        bytes=2 * (operands + 1) * rows * columns,
    )


def _conv(batch: int, channels: int, size: int) -> Workload:
    return Workload(
        "conv-3x3",
        KERNELS,
        "Conv",
        "bf16",
        {"x": Input("f32", (batch, channels, size, size))},
        {"batch": batch, "channels": channels, "size": size},
        flops=2 * 9 * batch * size**2 * channels**2,
        bytes=8 * batch * channels * size**2,
    )


def _resnet(batch: int, precision: str) -> Workload:
    return Workload(
        f"resnet50-b{batch}-{precision}",
        "resnet50",
        "ResNet50",
        precision,
        {"image": Input("f32", (batch, 3, 224, 224))},
        dims={"N": batch},
        flops=8.18e9 * batch,
        twin=("vision.ResNet", ([3, 4, 6, 3], 4, 1000, 64)),
    )


def _bert(batch: int, precision: str, length: int = 128) -> Workload:
    shape = (batch, length)
    return Workload(
        f"bert-b{batch}-{precision}",
        "bert_base",
        "BERT",
        precision,
        {
            "tokens": Input("i64", shape, 30522),
            "segments": Input("i64", shape, 2),
            "attention_mask": Input("bool", shape),
        },
        dims={"N": batch, "T": length},
        flops=2 * 85.6e6 * batch * length,
        twin=("language.BERT", (30522, 768, 12, 12, 3072, 512)),
    )


def _gpt2(batch: int, precision: str, length: int = 128) -> Workload:
    return Workload(
        f"gpt2-b{batch}-{precision}",
        "gpt2_small",
        "GPT2",
        precision,
        {"tokens": Input("i64", (batch, length), 50257)},
        dims={"N": batch, "T": length},
        flops=2 * 124e6 * batch * length,
        twin=("language.GPT2", (50257, 768, 12, 12, 1024)),
    )


FULL = (
    _gemm(4096),
    _gemm(8192),
    _attention(4, 16, 2048, 64),
    _attention(4, 16, 2048, 128),
    _rows("Elementwise", 8192, 8192, 2),
    _rows("Softmax", 16384, 4096),
    _rows("Norm", 16384, 4096),
    _conv(32, 256, 28),
    _resnet(1, "f32"),
    _resnet(1, "bf16"),
    _resnet(64, "bf16"),
    _bert(1, "f16"),
    _bert(1, "bf16"),
    _bert(32, "bf16"),
    _gpt2(1, "bf16"),
    _attention_gradient(4, 16, 2048, 64),
    _attention_gradient(4, 16, 2048, 128),
    _weight_gradient(65536, 1024, 1024),
    _columns(65536, 1024),
    _train_mlp(128, "f32"),
    _train_resnet18(64, "tf32"),
    _train_resnet18(64, "bf16"),
    _train_transformer(32, "bf16"),
)
"""What is measured on a GPU."""

_TINY = Workload(
    "lenet",
    "lenet",
    "LeNet",
    "f32",
    {"image": Input("f32", (2, 1, 28, 28))},
    dims={"N": 2},
    flops=1e6,
    twin=("vision.LeNet", ()),
)
SMALL = (
    _gemm(64),
    _attention(1, 2, 64, 64),
    _rows("Softmax", 8, 64),
    _rows("Norm", 8, 64),
    _TINY,
    _attention_gradient(1, 1, 64, 64),
    _train_mlp(3, "f32"),
)
"""The same at sizes for a machine without one, to see that pack and runner work."""


def parameter(path: str, shape: Sequence[int]) -> np.ndarray:
    """A parameter's values in f32, by its name: equal on every machine, and of little entropy, so that a pack is small.

    A matrix is made of one block of random signs, which comes again with random signs of its own: rows and columns
    differ, sums behave like those of random numbers, and compressed it is a thousandth.
    """
    rng = np.random.default_rng(zlib.crc32(path.encode()))
    signs = rng.integers(0, 2, max(shape[0], 1)) * 2.0 - 1
    if len(shape) == 1:
        kind = path.rsplit(".", 1)[-1]
        values = {"weight": 1 + signs / 4, "running_var": np.ones(shape)}.get(kind, signs / 16)
        return values.astype(np.float32)
    rows, columns = shape[0], int(np.prod(shape[1:]))
    blocks = (-(-rows // BLOCK[0]), -(-columns // BLOCK[1]))
    base = rng.integers(0, 2, BLOCK).astype(np.float32) * 2 - 1
    turns = rng.integers(0, 2, blocks).astype(np.float32) * 2 - 1
    matrix = np.kron(turns, base)[:rows, :columns] / np.float32(columns**0.5)
    return np.ascontiguousarray(matrix.reshape(shape), np.float32)


def draw(spec: Input, seed: int) -> np.ndarray:
    """An input's values; those of bf16 and f16 as f32 that they can hold."""
    rng = np.random.default_rng(seed)
    if spec.dtype == "bool":
        mask = rng.random(spec.shape) < 0.9
        mask[..., 0] = True
        return mask
    if spec.dtype == "i64":
        return rng.integers(0, spec.below, spec.shape)
    values = rng.standard_normal(spec.shape, np.float32)
    if spec.dtype == "bf16":
        values = (values.view(np.uint32) & 0xFFFF0000).view(np.float32)
    return values
