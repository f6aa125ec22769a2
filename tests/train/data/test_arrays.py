"""Arrays in files: matched by name, mapped, converted, and refused with the place of what is wrong."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from graphc.ir.dim import Dim
from graphc.train.data import Columns, open_data, split
from graphc.train.errors import DataError
from tests.train.ports import IMAGE, LABEL, port

RNG = np.random.default_rng(0)
IMAGES = RNG.standard_normal((7, 1, 8, 8)).astype(np.float32)
LABELS = np.array([3, 1, 4, 1, 5, 9, 2], np.int64)
ALL = np.arange(7)


def test_an_archive_a_folder_and_a_mapping_give_the_same(tmp_path: Path) -> None:
    np.savez(tmp_path / "a.npz", image=IMAGES, label=LABELS, more=np.zeros(2))
    np.savez_compressed(tmp_path / "b.npz", image=IMAGES.astype(np.float64), label=LABELS)
    (tmp_path / "c").mkdir()
    np.save(tmp_path / "c" / "image.npy", np.asfortranarray(IMAGES))
    np.save(tmp_path / "c" / "label.npy", LABELS.astype(np.uint8))
    mapping = {"image": tmp_path / "c" / "image.npy", "label": list(LABELS)}
    samples = [{"image": i, "label": n} for i, n in zip(IMAGES, LABELS, strict=True)]
    named = {"x": IMAGES, "y": LABELS}
    for data in (
        *(open_data(given, (IMAGE, LABEL)) for given in (tmp_path / "a.npz", mapping, samples)),
        open_data(str(tmp_path / "b.npz"), (IMAGE, LABEL)),
        open_data(tmp_path / "c", (IMAGE, LABEL)),
        open_data(named, (IMAGE, LABEL), columns={"image": "x", "label": "y"}),
    ):
        assert len(data) == 7
        rows = np.array([5, 0, 3])
        taken = data.gather(rows)
        assert list(taken) == ["image", "label"]
        np.testing.assert_array_equal(taken["image"], IMAGES[rows])
        np.testing.assert_array_equal(taken["label"], LABELS[rows])
        for name, dtype in (("image", np.float32), ("label", np.int64)):
            assert taken[name].dtype == dtype and taken[name].flags.c_contiguous


def test_one_array_for_one_input_needs_no_name(tmp_path: Path) -> None:
    np.save(tmp_path / "digits.npy", IMAGES)
    np.savez(tmp_path / "digits.npz", anything=IMAGES)
    for file in ("digits.npy", "digits.npz"):
        taken = open_data(tmp_path / file, (IMAGE,)).gather(ALL)
        np.testing.assert_array_equal(taken["image"], IMAGES)


def columns(**arrays: object) -> Columns:
    return Columns((IMAGE, LABEL), {"image": IMAGES, "label": LABELS, **arrays}, "d.npz")


@pytest.mark.parametrize(
    ("arrays", "message"),
    [
        ({"label": LABELS[:5]}, "`image` has 7, `label` has 5 rows"),
        ({"image": IMAGES[:, :, :6]}, r"rows of shape \[1, 6, 8\], the model takes .* \[1, 8, 8\]"),
        ({"image": IMAGES[:, 0]}, r"rows of shape \[8, 8\]"),
        ({"image": LABELS}, "single values"),
        ({"image": np.float32(1)}, "single number"),
        ({"image": np.zeros(IMAGES.shape, np.uint8)}, "astype"),
        ({"image": np.zeros(IMAGES.shape, bool)}, "holds bool"),
        ({"image": np.array(["a"] * 7)}, "no number"),
        ({"label": LABELS.astype(np.float32)}, "holds float32, the model takes i64"),
        ({"label": LABELS - 2}, r"d\.npz, label\[1\]: `label` is class -1, .* 0 to 9"),
        ({"label": LABELS + 1}, r"label\[5\]: `label` is class 10"),
    ],
)
def test_what_does_not_fit_is_said(arrays: dict[str, np.ndarray], message: str) -> None:
    with pytest.raises(DataError, match=message):
        columns(**arrays)


def test_targets_are_numbers_and_other_inputs_may_be_nan() -> None:
    x, y = port("x", "f32", "N", 2), port("y", "f32", "N", target=True)
    values = {"x": np.full((3, 2), np.nan), "y": np.array([1.0, np.nan, np.inf])}
    with pytest.raises(DataError, match=r"y\[1\]: `y` is NaN"):
        open_data(values, (x, y))
    with pytest.raises(DataError, match=r"y\[2\]: `y` is infinite"):
        open_data({**values, "y": [1.0, 2.0, -np.inf]}, (x, y))
    data = open_data({**values, "y": np.arange(3)}, (x, y))
    taken = data.gather(np.arange(3))
    assert np.isnan(taken["x"]).all() and taken["y"].tolist() == [0, 1, 2]


def test_large_targets_are_checked_as_they_are_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("graphc.train.data.dataset.EAGER_BYTES", 8)
    data = columns(label=LABELS + 1)
    with pytest.raises(DataError, match=r"label\[5\]: `label` is class 10"):
        data.gather(np.array([0, 5]))


def test_an_ignored_class_is_no_mistake_and_integers_must_fit() -> None:
    label = port("label", "i8", "N", "T", target=True, classes=3, ignore=-100)
    data = open_data({"label": [[0, 2], [-100, 1]]}, (label,))
    assert data.gather(np.arange(2))["label"].tolist() == [[0, 2], [-100, 1]]
    tokens = port("tokens", "i8", "N", "T")
    data = open_data({"tokens": [[0, 2], [1, 200]]}, (tokens,))
    with pytest.raises(DataError, match=r"tokens\[1\]: `tokens` does not fit into i8"):
        data.gather(np.arange(2))


def test_named_dims_agree_between_columns() -> None:
    ports = (port("a", "f32", "N", 2 * Dim.symbol("T")), port("b", "f32", "N", "T"))
    open_data({"a": np.zeros((3, 8)), "b": np.zeros((3, 4))}, ports)
    with pytest.raises(DataError, match=r"`a` has rows of shape \[8\], .* where 2\*T is 10"):
        open_data({"a": np.zeros((3, 8)), "b": np.zeros((3, 5))}, ports)
    with pytest.raises(DataError, match="no batch dim"):
        open_data({"a": np.zeros(3)}, (port("a", "f32"),))
    with pytest.raises(DataError, match="different numbers of rows"):
        open_data({}, (port("a", "f32", 4), port("b", "f32", 8)))


def test_missing_and_damaged_files_are_named(tmp_path: Path) -> None:
    (tmp_path / "bad.npz").write_bytes(b"PK?")
    (tmp_path / "data.h5").write_bytes(b"")
    np.save(tmp_path / "one.npy", IMAGES)
    np.savez(tmp_path / "x.npz", x=IMAGES, label=LABELS)
    for name, message in (
        ("gone.npz", "no such file"),
        ("bad.npz", "no .npz file"),
        ("data.h5", "data is read from"),
        ("one.npy", "`image`, `label`: give a .npz"),
        ("x.npz", "has no array `image` for the model's input; it has `x`, `label`"),
    ):
        with pytest.raises(DataError, match=message) as caught:
            open_data(tmp_path / name, (IMAGE, LABEL))
        assert str(tmp_path / name) in str(caught.value)
    with pytest.raises(DataError, match="no input `z`"):
        open_data(tmp_path / "x.npz", (IMAGE, LABEL), columns={"z": "x"})
    with pytest.raises(DataError, match="has no `y` for `image`"):
        open_data(tmp_path / "x.npz", (IMAGE, LABEL), columns={"image": "y"})
    with pytest.raises(DataError, match="from a int"):
        open_data(3, (IMAGE,))  # type: ignore[arg-type]
    with pytest.raises(DataError, match=r"read from a \.npy file"):
        open_data({"image": "x.png"}, (IMAGE,))


def test_samples_are_checked_by_row() -> None:
    good = {"image": IMAGES[0], "label": 3}
    for bad, message in (
        ({"image": IMAGES[0]}, r"data\[1\] has no value `label`"),
        ({"image": [[1, 2], [3]], "label": 1}, r"data\[1\]: `image` is no array"),
        ({"image": IMAGES[0, :, :4], "label": 1}, r"data\[1\]: `image` has shape \[1, 4, 8\]"),
        ({"image": IMAGES[0], "label": 12}, r"data\[1\]: `label` is class 12"),
        ((IMAGES[0], 3), r"data\[1\] is a tuple"),
    ):
        data = open_data([good, bad], (IMAGE, LABEL))
        with pytest.raises(DataError, match=message):
            data.gather(np.array([0, 1]))
    with pytest.raises(DataError, match=r"data\[0\] has no value"):
        open_data([{}], (IMAGE, LABEL))


def test_a_split_takes_each_row_once_and_is_the_same_each_time() -> None:
    data = columns()
    train, held = split(data, 0.3, seed=5)
    again, _ = split(data, 0.3, seed=5)
    other, _ = split(data, 0.3, seed=6)
    assert (len(train), len(held)) == (5, 2)
    labels = [d.gather(np.arange(len(d)))["label"].tolist() for d in (train, held, again, other)]
    assert sorted(labels[0] + labels[1]) == sorted(LABELS.tolist())
    assert labels[0] == labels[2] != labels[3]
    assert held.where(0).startswith("d.npz[")
    for share in (0.0, 1.0, 0.999):
        with pytest.raises(DataError, match="cannot be held out"):
            split(data, share)


WITHOUT = """
import sys
for name in ("PIL", "pyarrow", "tensorboardX"):
    sys.modules[name] = None
import subprocess
import sys
from pathlib import Path
from graphc.train.data import open_data
from graphc.train.errors import TrainError
from graphc.train.loop import fit
from tests.train.fake import PORTS, FakeStep, blobs

folder = Path(sys.argv[1])
(folder / "pictures" / "cats").mkdir(parents=True)
(folder / "t.csv").write_text("x,label\\n")
for given in (folder / "t.csv", folder / "pictures"):
    try:
        open_data(given, PORTS)
    except TrainError as error:
        print(error)
fit(FakeStep(), blobs(20), epochs=1, out=folder / "run")
try:
    fit(FakeStep(), blobs(20), epochs=1, out=folder / "board", tensorboard=True)
except TrainError as error:
    print(error)
"""


def test_libraries_that_are_not_installed_are_named_when_they_are_needed(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-c", WITHOUT, str(tmp_path)],
        capture_output=True, text=True, cwd=Path(__file__).parents[3],
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    tables, pictures, board = done.stdout.splitlines()
    for line, library in ((tables, "pyarrow"), (pictures, "Pillow"), (board, "tensorboardX")):
        assert f"{library}: pip install 'graphc[train]'" in line
