"""Every example computes what its PyTorch twin computes, with the twin's weights loaded by name."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from graphc import frontend
from graphc.reference import interpret
from graphc.source import Source
from graphc.syntax.formatter import format_source
from tests.examples.twins import language, vision

EXAMPLES = Path(__file__).parents[2] / "examples"
TOLERANCE = 1e-4  # relative error in the maximum norm, f32


@dataclass(frozen=True)
class Case:
    """An example, its number of trainable parameters at full size, and a small version with its twin."""

    parameters: int
    settings: dict[str, Any]
    twin: Callable[[], nn.Module]
    inputs: dict[str, tuple[Any, ...]]  # shape of f32, or ("i64", bound, shape), or ("bool", shape)
    outputs: tuple[str, ...] = ("logits",)


TOKENS = ("i64", 50, (2, 9))
CASES = {
    "mlp": Case(
        535_818,
        {"inputs": 12, "hidden": [9, 7], "classes": 5},
        lambda: vision.MLP(12, [9, 7], 5),
        {"x": (3, 12)},
    ),
    "lenet": Case(61_706, {}, vision.LeNet, {"image": (2, 1, 28, 28)}),
    "alexnet": Case(
        61_100_840,
        {"classes": 7, "width": 4, "hidden": 16, "size": 96},
        lambda: vision.AlexNet(7, 4, 16),
        {"image": (1, 3, 96, 96)},
    ),
    "vgg16": Case(
        138_357_544,
        {"classes": 7, "width": 4, "hidden": 16, "size": 64},
        lambda: vision.VGG16(7, 4, 16),
        {"image": (1, 3, 64, 64)},
    ),
    "resnet18": Case(
        11_689_512,
        {"classes": 7, "width": 4, "size": 64},
        lambda: vision.ResNet([2, 2, 2, 2], 1, 7, 4),
        {"image": (2, 3, 64, 64)},
    ),
    "resnet50": Case(
        25_557_032,
        {"classes": 7, "width": 4, "size": 64},
        lambda: vision.ResNet([3, 4, 6, 3], 4, 7, 4),
        {"image": (1, 3, 64, 64)},
    ),
    "mobilenet_v2": Case(
        3_504_872,
        {"classes": 7, "scale": 0.25, "size": 64},
        lambda: vision.MobileNetV2(7, 0.25),
        {"image": (2, 3, 64, 64)},
    ),
    "lstm": Case(
        404_259,
        {"features": 6, "hidden": 5, "layers": 2, "both_ways": True, "classes": 3},
        lambda: language.LSTMClassifier(6, 5, 2, True, 3),
        {"x": (2, 7, 6)},
    ),
    "transformer_encoder": Case(
        35_300_354,
        {"vocab": 50, "width": 16, "heads": 4, "layers": 2, "feedforward": 24, "classes": 3},
        lambda: language.TransformerEncoder(50, 16, 4, 2, 24, 3),
        {"tokens": TOKENS},
    ),
    "bert_base": Case(
        109_482_240,
        {"vocab": 50, "width": 16, "heads": 4, "layers": 2, "feedforward": 24, "positions": 12},
        lambda: language.BERT(50, 16, 4, 2, 24, 12),
        {"tokens": TOKENS, "segments": ("i64", 2, (2, 9)), "attention_mask": ("bool", (2, 9))},
        ("hidden", "pooled"),
    ),
    "gpt2_small": Case(
        124_439_808,
        {"vocab": 50, "width": 16, "heads": 4, "layers": 2, "positions": 12},
        lambda: language.GPT2(50, 16, 4, 2, 12),
        {"tokens": TOKENS},
    ),
    "unet": Case(
        31_037_698,
        {"classes": 3, "width": 4, "depth": 2, "size": 16},
        lambda: vision.UNet(3, 4, 2),
        {"image": (2, 3, 16, 16)},
        ("mask",),
    ),
}


def randomised(module: nn.Module) -> nn.Module:
    """The twin with statistics and affine parameters away from 0 and 1, so that a mix-up shows."""
    with torch.no_grad():
        for name, tensor in module.state_dict().items():
            if name.endswith("running_var"):
                tensor.uniform_(0.5, 1.5)
            elif name.endswith(("running_mean", "bias")):
                tensor.normal_(0, 0.1)
            elif tensor.ndim == 1 and tensor.is_floating_point():
                tensor.uniform_(0.7, 1.3)
    return module.eval()


def drawn(spec: tuple[Any, ...], rng: np.random.Generator) -> np.ndarray[Any, Any]:
    if spec[0] == "i64":
        return rng.integers(0, spec[1], spec[2])
    if spec[0] == "bool":
        mask = rng.random(spec[1]) < 0.7
        mask[:, 0] = True
        return mask
    return rng.normal(size=spec).astype(np.float32)


@pytest.mark.parametrize("name", CASES)
def test_equals_its_twin(name: str) -> None:
    case = CASES[name]
    torch.manual_seed(0)
    model = frontend.load(EXAMPLES / f"{name}.nn", settings=case.settings)
    twin = randomised(case.twin())
    arrays = frontend.match_weights(
        model.parameters, {k: v.numpy() for k, v in twin.state_dict().items()}
    )
    rng = np.random.default_rng(0)
    inputs = {k: drawn(spec, rng) for k, spec in case.inputs.items()}
    with torch.no_grad():
        expected = twin(*(torch.from_numpy(x) for x in inputs.values()))
    outputs = interpret(model.graph, inputs, arrays)
    assert tuple(outputs) == case.outputs
    for value, want in zip(outputs.values(), _many(expected), strict=True):
        reference = want.numpy()
        assert value.shape == reference.shape
        assert np.abs(value - reference).max() <= TOLERANCE * np.abs(reference).max()


def _many(value: Any) -> tuple[torch.Tensor, ...]:
    return value if isinstance(value, tuple) else (value,)


@pytest.mark.parametrize("name", CASES)
def test_full_size(name: str) -> None:
    model = frontend.load(EXAMPLES / f"{name}.nn")
    count = sum(p.type.size for p in model.parameters if p.trainable)
    assert count == CASES[name].parameters
    assert model.warnings == ()


@pytest.mark.parametrize("path", sorted(EXAMPLES.glob("*.nn")), ids=lambda p: p.stem)
def test_is_formatted(path: Path) -> None:
    text = path.read_text(encoding="utf-8")
    assert format_source(Source(path.name, text)) == text


def test_every_example_is_tested() -> None:
    assert {p.stem for p in EXAMPLES.glob("*.nn")} == set(CASES)
