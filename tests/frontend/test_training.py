"""Train blocks: what they mean, and what is said about mistakes in them."""

from __future__ import annotations

import numpy as np
import pytest

from graphc.ops import BatchNorm
from graphc.optim import AdamW, Chain, Cosine, ParamGroup, Warmup
from graphc.reference import interpret
from tests.frontend.helpers import codes, load

MODEL = """
model Net(classes: int = 3) {
    input image: f32[N, 4, 5, 5]
    h = image -> conv1: Conv2d(6, 3) -> bn1: BatchNorm2d -> ReLU
    output logits = h -> Flatten -> fc: Linear(classes)
}
"""

BLOCK = """
train Net {
    input label: i64[N]
    loss -mean(gather(log_softmax(logits, dim=1), 1, reshape(label, [N, 1])))
    metric accuracy = mean(astype(argmax(logits, dim=1) == label, f32))
    optimizer AdamW(lr=1e-3, weight_decay=0.1, clip_norm=2.0, no_decay=["*.bias"])
    schedule warmup(3) -> cosine(total=40)
    %s
    batch 16
    epochs 3
}
"""


def test_what_a_block_says() -> None:
    said = load(MODEL + BLOCK % "", mode="train").training
    assert said is not None and said.rule is not None
    assert (said.inputs, said.metrics, said.batch, said.epochs) == (
        ("label",),
        ("accuracy",),
        16,
        3,
    )
    assert said.rule.optimizer == AdamW(lr=1e-3, weight_decay=0.1)
    assert said.rule.schedule == Chain((Warmup(3), Cosine(total=40)))
    assert said.rule.groups == (ParamGroup("*.bias", {"weight_decay": 0.0}),)
    assert said.rule.clip_norm == 2.0 and said.frozen == ()


def test_a_model_is_what_it_is_without_its_block() -> None:
    both, alone = load(MODEL + BLOCK % ""), load(MODEL)
    assert both.training is None
    assert [n for n, _ in both.graph.outputs] == [n for n, _ in alone.graph.outputs] == ["logits"]


def test_the_outputs_of_the_modes() -> None:
    train, use = (load(MODEL + BLOCK % "", mode=m) for m in ("train", "evaluate"))
    assert [n for n, _ in train.graph.outputs] == [
        "loss",
        "accuracy",
        "bn1.running_mean",
        "bn1.running_var",
    ]
    assert [n for n, _ in use.graph.outputs] == ["loss", "accuracy", "logits"]


def test_frozen_layers_keep_their_statistics() -> None:
    frozen = load(MODEL + BLOCK % "freeze bn*, conv1", mode="train")
    assert frozen.training is not None
    assert set(frozen.training.frozen) == {
        f"bn1.{n}" for n in ("weight", "bias", "running_mean", "running_var")
    } | {"conv1.weight", "conv1.bias"}
    assert "bn1.running_mean" not in dict(frozen.graph.outputs)
    (norm,) = [n for n in frozen.graph.nodes if isinstance(n.op, BatchNorm)]
    assert frozen.graph.node(norm.operands[1].node).op.name == "parameter"


def test_patterns_from_outside_replace_those_of_the_block() -> None:
    said = load(MODEL + BLOCK % "freeze conv1", mode="train", freeze=["fc"]).training
    assert said is not None and said.frozen == ("fc.weight", "fc.bias")


def test_augmentation_comes_before_the_model_and_only_in_training() -> None:
    text = MODEL + BLOCK % "augment image -> clamp(-1.0, 1.0)"
    rng = np.random.default_rng(0)
    image = (3 * rng.standard_normal((4, 4, 5, 5))).astype(np.float32)
    label = np.array([0, 1, 2, 0])
    given = {"image": image, "label": label}
    clipped = {**given, "image": image.clip(-1, 1)}
    plain, train = load(MODEL + BLOCK % "", mode="train"), load(text, mode="train")
    weights = {
        p.path: np.asarray(rng.standard_normal(p.type.shape) * 0.1 + 0.2, np.float32)
        for p in plain.parameters
    }
    want = interpret(plain.graph, clipped, weights)["loss"]
    assert interpret(train.graph, given, weights)["loss"] == pytest.approx(want)
    used = load(text, mode="evaluate")
    bare = load(MODEL + BLOCK % "", mode="evaluate")
    assert interpret(used.graph, given, weights)["loss"] == pytest.approx(
        interpret(bare.graph, given, weights)["loss"]
    )


@pytest.mark.parametrize(
    ("line", "code"),
    [
        ("loss logits", "E0305"),
        ("metric loss = mean(logits)", "E0305"),
        ("metric logits = mean(logits)", "E0305"),
        ("batch 0", "E0405"),
        ("epochs true", "E0405"),
        ("optimizer SGD(lr=0.1)", "E0305"),
        ("freeze conv", "E0823"),
        ("augment label -> clamp(0.0, 1.0)", "E0824"),
        ("augment image -> Flatten", "E0824"),
        ("metric top = other", "E0301"),
        ("input image: f32[N]", "E0305"),
    ],
)
def test_mistakes_in_a_block(line: str, code: str) -> None:
    text = (
        BLOCK.replace("    batch 16\n    epochs 3\n", "") if line[:3] in ("bat", "epo") else BLOCK
    )
    assert code in codes(MODEL + text % line)


@pytest.mark.parametrize(
    ("optimizer", "code"),
    [
        ("Adam(lr=-1.0)", "E0405"),
        ("AdamW(rate=0.1)", "E0401"),
        ("SGD(lr=0.1, clip_norm=0.0)", "E0405"),
        ("Conv2d(3, 3)", "E0822"),
        ("AdamV(lr=0.1)", "E0301"),
    ],
)
def test_mistakes_in_an_optimizer(optimizer: str, code: str) -> None:
    text = f"train Net {{\n    loss mean(logits)\n    optimizer {optimizer}\n}}\n"
    assert codes(MODEL + text) == [code]


def test_the_block_has_to_be_there_once() -> None:
    block = "train Net {\n    loss mean(logits)\n}\n"
    assert codes(MODEL + block + block) == ["E0825"]
    assert codes(MODEL, mode="train") == ["E0825"]
