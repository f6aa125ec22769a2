"""Shapes and small networks made up from a seed, so that nothing can be tuned to the known ones.

A network is a tuple of stages; both its `.nn` text and its PyTorch twin (`generated_twin.py`) are made of it.
"""

from __future__ import annotations

import random
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, Union

from workloads import Feed, Workload


@dataclass(frozen=True)
class Layer:
    """A layer: its label, its class, PyTorch's first argument that `.nn` files infer, and the others by name."""

    label: str
    kind: str
    inferred: Any = None
    arguments: tuple[tuple[str, int | bool], ...] = ()


@dataclass(frozen=True)
class Residual:
    """What its stages make of their input, added to the input."""

    stages: tuple[Layer, ...]


Stage = Union[Layer, Residual]  # noqa: UP007 - evaluated when imported, also by Python 3.10


def linear(label: str, inputs: int, outputs: int) -> Layer:
    return Layer(label, "Linear", inputs, (("out_features", outputs),))


def conv(
    label: str, inputs: int, outputs: int, kernel: int, stride: int = 1, *, groups: int = 1
) -> Layer:
    """A convolution that pads by half its kernel, without bias: a normalisation follows in networks."""
    return Layer(
        label,
        "Conv2d",
        inputs,
        (
            ("out_channels", outputs),
            ("kernel_size", kernel),
            ("stride", stride),
            ("padding", kernel // 2),
            ("groups", groups),
            ("bias", False),
        ),
    )


def text(name: str, shape: Sequence[int], stages: Iterable[Stage]) -> str:
    """The `.nn` file of a network over an input of this shape, the batch left open."""
    lines = [f"model {name} {{", f"    input x: f32[N, {', '.join(map(str, shape))}]", "    h = x"]
    for stage in stages:
        if isinstance(stage, Residual):
            lines.append(f"    h = h + (h -> {' -> '.join(map(_told, stage.stages))})")
        else:
            lines.append(f"    h = h -> {_told(stage)}")
    return "\n".join([*lines, "    output y = h", "}", ""])


def _told(layer: Layer) -> str:
    values = ", ".join(f"{k}={str(v).lower()}" for k, v in layer.arguments)
    return f"{layer.label}: {layer.kind}({values})" if values else f"{layer.label}: {layer.kind}"


def _workload(seed: int, variant: str, shape: tuple[int, ...], stages: Sequence[Stage]) -> Workload:
    """A workload over an input of `shape`, which begins with the batch."""
    return Workload(
        f"random-{seed}-{variant}",
        f"b{shape[0]}",
        text("Random", shape[1:], stages),
        {},
        {"N": shape[0]},
        ("generated_twin:Network", (tuple(stages),)),
        {"x": Feed(shape)},
    )


def _size(rng: random.Random, low: int, high: int) -> int:
    """Between the bounds, evenly over their logarithms; half of the sizes are multiples of 16, as in most networks."""
    size = round(low * (high / low) ** rng.random())
    return max(16, size // 16 * 16) if size > 16 and rng.random() < 0.5 else size


def _shapes(rng: random.Random, seed: int) -> list[Workload]:
    """Ten single layers."""
    made: list[tuple[tuple[int, ...], list[Stage]]] = []
    for _ in range(3):
        rows, inputs = _size(rng, 1, 512), _size(rng, 32, 3072)
        made.append(((rows, inputs), [linear("fc", inputs, _size(rng, 32, 3072))]))
    for _ in range(3):
        channels, side = _size(rng, 3, 256), _size(rng, 7, 64)
        layer = conv(
            "conv", channels, _size(rng, 16, 256), rng.choice((1, 3, 3, 5)), rng.choice((1, 1, 2))
        )
        made.append(((1, channels, side, side), [layer]))
    channels, side = _size(rng, 16, 512), _size(rng, 7, 112)
    depthwise = conv(
        "conv", channels, channels, rng.choice((3, 5)), rng.choice((1, 2)), groups=channels
    )
    made.append(((1, channels, side, side), [depthwise]))
    width = _size(rng, 32, 2048)
    made.append(
        ((_size(rng, 1, 16), _size(rng, 16, 256), width), [Layer("norm", "LayerNorm", width)])
    )
    made.append(
        ((_size(rng, 1, 16), _size(rng, 16, 256), _size(rng, 16, 512)), [Layer("s", "Softmax", -1)])
    )
    channels, side = _size(rng, 16, 256), _size(rng, 14, 112)
    window = (("kernel_size", 3), ("stride", rng.choice((1, 2))), ("padding", 1))
    pool = Layer("pool", rng.choice(("MaxPool2d", "AvgPool2d")), None, window)
    made.append(((1, channels, side, side), [pool]))
    return [
        _workload(seed, f"shape{i}", shape, stages) for i, (shape, stages) in enumerate(made, 1)
    ]


def _image_network(rng: random.Random) -> tuple[tuple[int, ...], list[Stage]]:
    """Residual stages of growing width, then classes."""
    side, channels = rng.choice((32, 48, 64)), _size(rng, 16, 48)
    kind = rng.choice(("ReLU", "SiLU", "Hardswish"))
    stages: list[Stage] = [
        conv("stem", 3, channels, 3, 2),
        Layer("stem_norm", "BatchNorm2d", channels),
    ]
    for i in range(rng.randint(2, 4)):
        hidden = _size(rng, channels // 2, 2 * channels)
        stages.append(
            Residual(
                (
                    conv(f"a{i}", channels, hidden, rng.choice((1, 3))),
                    Layer(f"norm{i}", "BatchNorm2d", hidden),
                    Layer(f"act{i}", kind),
                    conv(f"b{i}", hidden, channels, 3),
                )
            )
        )
        wider = _size(rng, channels, 2 * channels)
        stages += [
            conv(f"down{i}", channels, wider, 3, 2),
            Layer(f"down_norm{i}", "BatchNorm2d", wider),
        ]
        stages.append(Layer(f"down_act{i}", kind))
        channels = wider
    pool = Layer("pool", "AdaptiveAvgPool2d", None, (("output_size", 1),))
    stages += [pool, Layer("flat", "Flatten"), linear("head", channels, _size(rng, 10, 1000))]
    return (rng.choice((1, 4)), 3, side, side), stages


def _perceptron(rng: random.Random) -> tuple[tuple[int, ...], list[Stage]]:
    """Linear layers of any width."""
    widths = [_size(rng, 24, 1024) for _ in range(rng.randint(3, 6))]
    kind = rng.choice(("ReLU", "Tanh", "GELU", "Sigmoid"))
    stages: list[Stage] = []
    for i, (a, b) in enumerate(pairwise(widths)):
        stages += [linear(f"fc{i}", a, b), Layer(f"act{i}", kind)]
    return (rng.choice((1, 1, 32)), widths[0]), [*stages, linear("head", widths[-1], 10)]


def _mixer(rng: random.Random) -> tuple[tuple[int, ...], list[Stage]]:
    """Attention and feed-forward blocks with residuals."""
    heads = rng.choice((2, 4, 8))
    width = heads * rng.choice((16, 24, 32, 64))
    hidden = _size(rng, width, 4 * width)
    stages: list[Stage] = []
    for i in range(rng.randint(1, 3)):
        attention = Layer(
            f"attn{i}", "MultiheadAttention", width, (("num_heads", heads), ("batch_first", True))
        )
        stages.append(Residual((Layer(f"norm_a{i}", "LayerNorm", width), attention)))
        inner = (
            linear(f"up{i}", width, hidden),
            Layer(f"act{i}", "GELU"),
            linear(f"down{i}", hidden, width),
        )
        stages.append(Residual((Layer(f"norm_b{i}", "LayerNorm", width), *inner)))
    return (rng.choice((1, 2)), _size(rng, 16, 200), width), stages


def generate(seed: int) -> list[Workload]:
    """Ten shapes and three small networks; equal seeds give equal ones."""
    rng = random.Random(seed)
    networks = [make(rng) for make in (_image_network, _perceptron, _mixer)]
    return _shapes(rng, seed) + [
        _workload(seed, f"net{i}", shape, stages) for i, (shape, stages) in enumerate(networks, 1)
    ]
