"""The sheet of pictures before and after augmentation: its numbers are the step's, its pixels the pictures'."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

import graphc
from graphc.frontend import Augmentation
from graphc.reference import interpret
from graphc.train import TrainError, sheet
from tests.cli.shell import graphc as shell

FILE = """\
model M {
    input image: f32[N, 1, 8, 6]
    output logits = image -> Flatten -> fc: Linear(3)
}
train M {
    input label: i64[N]
    loss cross_entropy(logits, label)
    metric seen = image
    optimizer SGD(lr=0.1)
    augment image -> AUGMENT
}
"""
IMAGES = np.random.default_rng(0).random((4, 1, 8, 6)).astype(np.float32)
LABELS = np.array([0, 1, 2, 1])


def model(tmp_path: Path, augment: str = "random_crop((8, 6), padding=2)") -> Path:
    file = tmp_path / "m.nn"
    file.write_text(FILE.replace("AUGMENT", augment))
    return file


def augmentation(path: Path) -> Augmentation:
    found = graphc.load(path).for_training("train").augmentation
    assert found is not None
    return found


def test_the_numbers_are_the_training_steps(tmp_path: Path) -> None:
    path = model(tmp_path, "random_crop((8, 6), padding=2) -> gaussian_noise -> mixup(label, 1.0)")
    found = augmentation(path)
    assert found.written == {
        "image": "image -> random_crop((8, 6), padding=2) -> gaussian_noise -> mixup(label, 1.0)"
    }
    batch: dict[str, Any] = {"image": IMAGES, "label": LABELS}
    results = sheet.augmented(found, batch, 3, seed=5)
    step = graphc.load(path).for_training("train")
    weights = {p.path: np.zeros(p.type.shape, np.float32) for p in step.parameters}
    for number, values in enumerate(results):
        rng = np.array([5, number], np.int64)
        seen = interpret(step.graph, {**batch, "rng": rng}, weights)["seen"]
        np.testing.assert_array_equal(values["image"], seen)
        np.testing.assert_array_equal(values["label"], LABELS)
        np.testing.assert_array_equal(values["label.other"], np.roll(LABELS, 1))
    assert not np.array_equal(results[0]["image"], results[1]["image"])


def test_captions() -> None:
    values = {
        "label": np.array([1, 0]),
        "label.other": np.array([0, 0]),
        "label.share": np.array([0.25, 0.5]),
    }
    assert sheet.caption(0, values, "label", ("cat", "dog")) == "dog: 25%, cat: 75%"
    assert sheet.caption(1, values, "label", ("cat", "dog")) == "cat"
    assert sheet.caption(0, {"label": np.array([7])}, "label", ("cat",)) == "7"
    assert sheet.caption(0, {"label": np.array([0.123456])}, "label", ()) == "0.123"
    assert sheet.caption(0, {}, None, ()) == ""


def test_pixels() -> None:
    """Each picture stands on the sheet, enlarged without smoothing; numbers beyond 0 to 1 are stretched."""
    before = np.zeros((1, 3, 2, 2), np.float32)
    before[0, 0, 0, 1] = 1
    drawn = np.asarray(sheet.draw(before, [before * 4 - 2], [["a"], ["b"]], "title", "x -> y"))
    reds = (drawn == (255, 0, 0)).all(-1)
    assert reds.any(0).sum() == 2 * 52
    assert reds.any(1).sum() == 52


def test_command(tmp_path: Path) -> None:
    path = model(tmp_path)
    np.savez(tmp_path / "data.npz", image=IMAGES, label=LABELS)
    command = ["augment", path, "--data", tmp_path / "data.npz", "--columns", "2", "-o"]
    for name in ("a.png", "b.png"):
        shell(*command, tmp_path / name)
    assert (tmp_path / "a.png").read_bytes() == (tmp_path / "b.png").read_bytes()
    with Image.open(tmp_path / "a.png") as picture:
        assert min(picture.size) > 300
    assert sorted(p.name for p in tmp_path.iterdir()) == ["a.png", "b.png", "data.npz", "m.nn"]


def test_mistakes(tmp_path: Path) -> None:
    np.savez(tmp_path / "data.npz", image=IMAGES, label=LABELS)
    plain = tmp_path / "plain.nn"
    plain.write_text("\n".join(line for line in FILE.splitlines() if "AUGMENT" not in line) + "\n")
    data = str(tmp_path / "data.npz")
    result = shell("augment", plain, "--data", data, "-o", tmp_path / "a.png", code=1)
    assert "no `augment` statement" in result.output
    good = str(model(tmp_path))
    shell("augment", good, "--data", data, "-o", tmp_path / "a.jpg", code=2)
    vectors = tmp_path / "v.nn"
    vectors.write_text(
        "model V {\ninput x: f32[N, 4]\noutput y = x\n}\ntrain V {\ninput t: f32[N]\nloss mean(y)\n"
        "optimizer SGD(lr=0.1)\naugment x -> mixup(t, 0.2)\n}\n"
    )
    with pytest.raises(TrainError, match="`x` is none"):
        sheet.pictures(augmentation(vectors))
