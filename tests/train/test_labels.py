"""What a graph says about its inputs: labels, how many classes they have, and which class the loss leaves out."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

import graphc
from graphc.train.data import open_data
from graphc.train.errors import DataError
from graphc.train.labels import data_ports
from graphc.train.ports import Port

MODEL = """
model M {{
    input x: {input}
    output logits = x -> {body}
}}

train M {{
    input label: i64[N]
    loss {loss}
    metric accuracy = mean(argmax(logits, dim=1) == label)
    optimizer SGD(lr=0.1)
}}
"""


def ports(folder: Path, input: str, body: str, loss: str) -> tuple[Port, ...]:
    (folder / "m.nn").write_text(MODEL.format(input=input, body=body, loss=loss))
    model = graphc.load(folder / "m.nn").for_training("train")
    assert model.training is not None
    return data_ports(model.graph, model.training.inputs)


@pytest.mark.parametrize(
    ("loss", "count", "ignore"),
    [
        ("cross_entropy(logits, label)", 3, -100),
        ("cross_entropy(logits, label, ignore_index=7, label_smoothing=0.1)", 3, 7),
        ("mean(-gather(log_softmax(logits, dim=1), 1, unsqueeze(label, 1)))", 3, None),
        ('mean(logits[:, 0] * astype(label + 1, "f32"))', None, None),
    ],
)
def test_classes_are_what_labels_are_looked_up_in(
    tmp_path: Path, loss: str, count: int | None, ignore: int | None
) -> None:
    x, label = ports(tmp_path, "f32[N, 4]", "fc: Linear(3)", loss)
    assert (x.name, x.target, x.classes) == ("x", False, None)
    assert (label.name, label.target, label.classes, label.ignore) == ("label", True, count, ignore)


def test_tokens_are_looked_up_too(tmp_path: Path) -> None:
    body = "emb: Embedding(11, 4) -> fc: Linear(3)"
    x, label = ports(tmp_path, "i64[N]", body, "cross_entropy(logits, label)")
    assert (x.classes, x.target, label.classes) == (11, False, 3)
    data = open_data({"x": np.array([0, 12]), "label": np.array([0, -100])}, (x, label))
    with pytest.raises(
        DataError, match=r"x\[1\]: `x` holds 12, which the model looks up in 0 to 10"
    ):
        data.gather(np.arange(2))
    with pytest.raises(DataError, match=r"label\[1\]: `label` is class 3, .* 0 to 2"):
        open_data({"x": np.array([0, 1]), "label": np.array([0, 3])}, (x, label))
