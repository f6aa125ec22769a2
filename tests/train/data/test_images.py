"""Pictures by class: what the model gets of them, against torchvision's rules by hand."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from graphc.train.data import open_data
from graphc.train.errors import DataError
from tests.train.ports import LABEL, port

RGB = port("image", "f32", "N", 3, 4, 6)
BYTES = port("image", "u8", "N", 3, 4, 6)
GREY = port("image", "f32", "N", 1, "H", "W")
RNG = np.random.default_rng(0)
PIXELS = RNG.integers(0, 256, (5, 4, 6, 3), np.uint8)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    names = ("dogs/b.png", "dogs/deep/a.bmp", "cats/1.PNG", "cats/2.ppm", "eels/x.tiff")
    for name, pixels in zip(names, PIXELS, strict=True):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(pixels).save(tmp_path / name, format=Path(name).suffix[1:].upper())
    (tmp_path / "cats" / "notes.txt").write_text("no picture")
    (tmp_path / ".hidden").mkdir()
    return tmp_path


def test_pictures_by_class_in_the_order_of_names(folder: Path) -> None:
    data = open_data(folder, (RGB, LABEL))
    assert data.classes == {"label": ("cats", "dogs", "eels")}
    taken = data.gather(np.arange(5))
    assert taken["label"].tolist() == [0, 0, 1, 1, 2]
    expected = PIXELS[[2, 3, 0, 1, 4]].transpose(0, 3, 1, 2)
    np.testing.assert_array_equal(taken["image"], expected.astype(np.float32) / 255)
    assert taken["image"].dtype == np.float32 and taken["image"].flags.c_contiguous
    raw = open_data(folder, (BYTES,)).gather(np.arange(5))
    np.testing.assert_array_equal(raw["image"], expected)
    assert data.where(2) == str(folder / "dogs" / "b.png")


def test_grey_models_get_luma_and_deep_pictures_are_rounded(folder: Path) -> None:
    taken = open_data(folder, (GREY, LABEL)).gather(np.array([0]))["image"]
    r, g, b = PIXELS[2].transpose(2, 0, 1).astype(np.float64)
    luma = (0.299 * r + 0.587 * g + 0.114 * b) / 255
    np.testing.assert_allclose(taken[0, 0], luma, atol=1 / 255)
    deep = (PIXELS[0, :, :, 0].astype(np.uint16) << 8) | 77
    for old in (folder / "cats").iterdir():
        old.unlink()
    Image.fromarray(deep).save(folder / "cats" / "deep.png")
    taken = open_data(folder, (GREY, LABEL)).gather(np.array([0]))["image"]
    np.testing.assert_array_equal(taken[0, 0], PIXELS[0, :, :, 0].astype(np.float32) / 255)


def test_resizing_covers_and_cuts_the_middle(folder: Path) -> None:
    small = port("image", "f32", "N", 3, 4, 4)
    with pytest.raises(DataError, match=r"1\.PNG: `image` has rows of shape \[3, 4, 6\].*--resize"):
        open_data(folder, (small, LABEL))
    taken = open_data(folder, (small, LABEL), resize=True).gather(np.array([0]))["image"]
    middle = PIXELS[2][:, 1:5].transpose(2, 0, 1).astype(np.float32) / 255
    np.testing.assert_array_equal(taken[0], middle)
    with pytest.raises(DataError, match="leaves the size open"):
        open_data(folder, (GREY, LABEL), resize=True)


def test_turned_photographs_are_set_upright(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    exif = Image.Exif()
    exif[0x0112] = 6  # turned a quarter to the right to be looked at
    Image.fromarray(PIXELS[0].transpose(1, 0, 2)).save(tmp_path / "a" / "1.png", exif=exif)
    taken = open_data(tmp_path, (BYTES,)).gather(np.array([0]))["image"][0]
    np.testing.assert_array_equal(taken.transpose(1, 2, 0), PIXELS[0][:, ::-1])


def test_few_pictures_are_decoded_once(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    kept = open_data(folder, (RGB, LABEL))
    monkeypatch.setattr("graphc.train.data.images.CACHE_BYTES", 5 * 72 - 1)
    read = open_data(folder, (RGB, LABEL))
    before = [data.gather(np.arange(5))["image"] for data in (kept, read)]
    os.unlink(folder / "dogs" / "b.png")
    np.testing.assert_array_equal(kept.gather(np.arange(5))["image"], before[0])
    np.testing.assert_array_equal(*before)
    with pytest.raises(DataError, match="No such file"):
        read.gather(np.arange(5))


def test_what_cannot_be_read_is_named(folder: Path) -> None:
    data = (folder / "dogs" / "b.png").read_bytes()
    (folder / "dogs" / "b.png").write_bytes(data[: len(data) // 2])
    (folder / "eels" / "x.tiff").write_bytes(b"GIF89a nothing")
    opened = open_data(folder, (RGB, LABEL))
    with pytest.raises(DataError, match=r"dogs/b\.png cannot be read"):
        opened.gather(np.arange(5))
    with pytest.raises(DataError, match=r"x\.tiff .*(no picture|cannot be read)"):
        opened.gather(np.array([4]))
    opened = open_data(folder, (RGB, LABEL))
    os.unlink(folder / "cats" / "2.ppm")
    with pytest.raises(DataError, match=r"2\.ppm cannot be read: No such file"):
        opened.gather(np.array([1]))


def test_sizes_that_differ_and_sizes_that_are_absurd(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    Image.fromarray(PIXELS[0][:3]).save(folder / "dogs" / "b.png")
    with pytest.raises(DataError, match=r"b\.png has another size than .*1\.PNG: 6x3 and 6x4"):
        open_data(folder, (GREY, LABEL)).gather(np.arange(5))
    monkeypatch.setattr("graphc.train.data.images.MAX_PIXELS", 20)
    with pytest.raises(DataError, match="6x4, which is too large"):
        open_data(folder, (RGB, LABEL))


def test_classes_must_be_those_of_the_model_and_of_the_training_data(
    folder: Path, tmp_path: Path
) -> None:
    with pytest.raises(DataError, match="has 3 classes, the model tells 2 apart"):
        open_data(folder, (RGB, port("label", "i64", "N", classes=2)))
    train = open_data(folder, (RGB, LABEL))
    held = tmp_path / "held"
    (held / "eels").mkdir(parents=True)
    Image.fromarray(PIXELS[0]).save(held / "eels" / "1.png")
    assert open_data(held, (RGB, LABEL), like=train).gather(np.array([0]))["label"].tolist() == [2]
    (held / "mice").mkdir()
    with pytest.raises(DataError, match="mice: the training data has no class `mice`"):
        open_data(held, (RGB, LABEL), like=train)
    with pytest.raises(DataError, match="mice holds no pictures"):
        open_data(held, (RGB, LABEL))
    (tmp_path / "empty").mkdir()
    with pytest.raises(DataError, match="has no folders"):
        open_data(tmp_path / "empty", (RGB, LABEL))
    with pytest.raises(DataError, match="holds pictures by class, which fit"):
        open_data(folder, (port("x", "f32", "N", 3), LABEL))
