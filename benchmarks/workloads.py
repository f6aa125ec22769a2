"""What is measured: each workload as data, from its `.nn` file to its PyTorch twin and its inputs."""

from __future__ import annotations

import importlib
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

ROOT = Path(__file__).resolve().parents[1]
Array = np.ndarray[Any, np.dtype[Any]]

for _place in (str(ROOT), str(ROOT / "benchmarks")):  # `tests.examples.twins`, `generated`
    if _place not in sys.path:
        sys.path.append(_place)


@dataclass(frozen=True)
class Feed:
    """One input: `shape`, and `kind` f32 (standard normal), i64 (below `bound`) or bool (a padding mask)."""

    shape: tuple[int, ...]
    kind: str = "f32"
    bound: int = 0

    def draw(self, rng: np.random.Generator) -> Array:
        """Values of this input; a padding mask leaves out the last eighth of each row."""
        if self.kind == "i64":
            return rng.integers(0, self.bound, self.shape)
        if self.kind == "bool":
            return np.arange(self.shape[-1]) < np.full(self.shape, self.shape[-1] * 7 // 8)
        return rng.standard_normal(self.shape, np.float32)


@dataclass(frozen=True)
class Workload:
    """A network at one size of its inputs.

    Attributes:
        model: name of the network; workloads of one network share their weights.
        variant: what this one is, `b1` for batch 1.
        source: the `.nn` text.
        settings, dims: arguments of `graphc.load`.
        twin: `package.module:Class` and its arguments: the same network in PyTorch, with the same parameter names.
        feeds: inputs by name, in the model's and the twin's order.
    """

    model: str
    variant: str
    source: str
    settings: dict[str, Any]
    dims: dict[str, int]
    twin: tuple[str, tuple[Any, ...]]
    feeds: dict[str, Feed]

    @property
    def name(self) -> str:
        return f"{self.model}-{self.variant}"

    @property
    def twin_file(self) -> Path:
        """The Python file that defines the twin."""
        module = self.twin[0].split(":")[0]
        found = importlib.util.find_spec(module)
        if found is None or found.origin is None:
            raise ModuleNotFoundError(module)
        return Path(found.origin)

    def make_twin(self) -> Any:
        """The twin as an `nn.Module` in evaluation mode, with arbitrary weights."""
        module, name = self.twin[0].split(":")
        return getattr(importlib.import_module(module), name)(*self.twin[1]).eval()

    def draw(self) -> dict[str, Array]:
        """The inputs; equal on every call."""
        rng = np.random.default_rng(0)
        return {name: feed.draw(rng) for name, feed in self.feeds.items()}


@dataclass(frozen=True)
class Network:
    """One example at full size: its twin, its inputs without the batch dimension, and the batches to measure."""

    twin: str
    arguments: tuple[Any, ...]
    feeds: dict[str, Feed]
    larger: int
    settings: dict[str, Any] = field(default_factory=dict)
    dims: dict[str, int] = field(default_factory=dict)


def _image(side: int, channels: int = 3) -> dict[str, Feed]:
    return {"image": Feed((channels, side, side))}


def _tokens(vocab: int) -> dict[str, Feed]:
    return {"tokens": Feed((128,), "i64", vocab)}


_T = {"T": 128}
_BERT = _tokens(30522) | {
    "segments": Feed((128,), "i64", 2),
    "attention_mask": Feed((128,), "bool"),
}
NETWORKS = {
    "mlp": Network("vision:MLP", (784, [128], 10), {"x": Feed((784,))}, 64, {"hidden": [128]}),
    "lenet": Network("vision:LeNet", (), _image(28, 1), 64),
    "alexnet": Network("vision:AlexNet", (1000, 64, 4096), _image(224), 8),
    "resnet18": Network("vision:ResNet", ([2, 2, 2, 2], 1, 1000, 64), _image(224), 8),
    "resnet50": Network("vision:ResNet", ([3, 4, 6, 3], 4, 1000, 64), _image(224), 8),
    "vgg16": Network("vision:VGG16", (1000, 64, 4096), _image(224), 4),
    "mobilenet_v2": Network("vision:MobileNetV2", (1000, 1.0), _image(224), 8),
    "bert_base": Network("language:BERT", (30522, 768, 12, 12, 3072, 512), _BERT, 8, dims=_T),
    "gpt2_small": Network("language:GPT2", (50257, 768, 12, 12, 1024), _tokens(50257), 4, dims=_T),
    "unet": Network("vision:UNet", (2, 64, 4), _image(256), 4),
    "lstm": Network(
        "language:LSTMClassifier",
        (128, 256, 1, False, 35),
        {"x": Feed((64, 128))},
        16,
        dims={"T": 64},
    ),
    "transformer_encoder": Network(
        "language:TransformerEncoder", (32000, 512, 8, 6, 2048, 2), _tokens(32000), 8, dims=_T
    ),
}
"""By the name of the file in `examples/`; twins are in `tests/examples/twins/`."""


def _workloads() -> dict[str, Workload]:
    found = {}
    for model, network in NETWORKS.items():
        source = (ROOT / "examples" / f"{model}.nn").read_text(encoding="utf-8")
        for n in (1, network.larger):
            w = Workload(
                model,
                f"b{n}",
                source,
                network.settings,
                {"N": n, **network.dims},
                (f"tests.examples.twins.{network.twin}", network.arguments),
                {k: Feed((n, *f.shape), f.kind, f.bound) for k, f in network.feeds.items()},
            )
            found[w.name] = w
    return found


WORKLOADS = _workloads()
QUICK = ("mlp-b1", "lenet-b1", "mobilenet_v2-b1", "resnet50-b1", "bert_base-b1")


def find(name: str) -> Workload:
    """The workload called `name`; `random-SEED-...` is made up again. Raises KeyError for an unknown one."""
    if name.startswith("random-"):
        from generated import generate

        return {w.name: w for w in generate(int(name.split("-")[1]))}[name]
    return WORKLOADS[name]
