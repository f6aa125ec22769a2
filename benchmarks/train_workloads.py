"""What `train.py` measures: networks with a train block, their twins, and one batch of random data each."""

from __future__ import annotations

import importlib
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from workloads import ROOT, Array, Feed


@dataclass(frozen=True)
class Training:
    """A network trained by SGD with momentum on the cross entropy of its logits.

    Attributes:
        model: the `.nn` file, from the root of the repository.
        name: of the model in the file.
        settings, dims: arguments of `graphc.load`.
        twin: `package.module:Class` and its arguments.
        feeds: the inputs, and the `label` at the end.
        edits: changes of the text: what cannot be compared (dropout) is turned off.
        label: shape of the classes to be learned, as the file says it.
        loss: of `logits` and `label`.
        small: whether the goal is that of small models.
    """

    model: str
    name: str
    settings: dict[str, Any]
    dims: dict[str, int]
    twin: tuple[str, tuple[Any, ...]]
    feeds: dict[str, Feed]
    edits: dict[str, str] = field(default_factory=dict)
    label: str = "N"
    loss: str = "cross_entropy(logits, label)"
    small: bool = False
    lr: float = 0.01
    momentum: float = 0.9

    def text(self) -> str:
        """The file with this train block instead of its own."""
        source = (ROOT / self.model).read_text(encoding="utf-8")
        source = source.partition("\ntrain ")[0]
        for old, new in self.edits.items():
            source = source.replace(old, new)
        return source + (
            f"\ntrain {self.name} {{\n    input label: i64[{self.label}]\n"
            f"    loss {self.loss}\n"
            f"    optimizer SGD(lr={self.lr}, momentum={self.momentum})\n}}\n"
        )

    def make_twin(self) -> Any:
        """The twin in training mode, with the same weights every time, and without dropout."""
        import torch

        torch.manual_seed(0)
        module, name = self.twin[0].split(":")
        twin = getattr(importlib.import_module(module), name)(*self.twin[1])
        for part in twin.modules():
            if isinstance(part, torch.nn.Dropout):
                part.p = 0.0
            if isinstance(part, torch.nn.MultiheadAttention):
                part.dropout = 0.0
        return twin.train()

    def draw(self) -> dict[str, Array]:
        """One batch; equal on every call."""
        rng = np.random.default_rng(0)
        return {name: feed.draw(rng) for name, feed in self.feeds.items()}


TRAININGS = {
    "mlp-b128": Training(
        "examples/mlp.nn",
        "MLP",
        {},
        {"N": 128},
        ("tests.examples.twins.vision:MLP", (784, [512, 256], 10)),
        {"x": Feed((128, 784)), "label": Feed((128,), "i64", 10)},
        small=True,
    ),
    "lenet-b64": Training(
        "examples/lenet.nn",
        "LeNet",
        {},
        {"N": 64},
        ("tests.examples.twins.vision:LeNet", ()),
        {"image": Feed((64, 1, 28, 28)), "label": Feed((64,), "i64", 10)},
        small=True,
    ),
    "resnet18-b16": Training(
        "examples/resnet18.nn",
        "ResNet18",
        {"classes": 10, "size": 64},
        {"N": 16},
        ("tests.examples.twins.vision:ResNet", ([2, 2, 2, 2], 1, 10, 64)),
        {"image": Feed((16, 3, 64, 64)), "label": Feed((16,), "i64", 10)},
    ),
    "transformer-b8": Training(
        "examples/transformer_encoder.nn",
        "TransformerEncoder",
        {"vocab": 1000, "width": 256, "heads": 4, "layers": 4, "feedforward": 1024, "classes": 10},
        {"N": 8, "T": 128},
        ("tests.examples.twins.language:TransformerEncoder", (1000, 256, 4, 4, 1024, 10)),
        {"tokens": Feed((8, 128), "i64", 1000), "label": Feed((8,), "i64", 10)},
        {"Dropout(0.1)": "Dropout(0.0)", "activation=GELU": "activation=GELU, dropout=0.0"},
    ),
    "lstm-lm-b16": Training(
        "benchmarks/lstm_language.nn",
        "LSTMLanguage",
        {"vocab": 4000, "width": 256},
        {"N": 16, "T": 64},
        ("train_twins:LSTMLanguage", (4000, 256)),
        {"text": Feed((16, 64), "i64", 4000), "label": Feed((16, 64), "i64", 4000)},
        label="N, T",
        loss="cross_entropy(reshape(logits, (N * T, 4000)), reshape(label, [N * T]))",
    ),
}
