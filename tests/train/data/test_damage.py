"""Damaged files of every kind: whatever bytes are in them, data is read or refused in one sentence."""

from __future__ import annotations

import warnings
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from graphc.train.batches import Loader
from graphc.train.data import open_data
from graphc.train.errors import DataError
from tests.train.ports import port

PORTS = (
    port("x", "f32", "N", 1, 6, 6),
    port("label", "i64", "N", target=True, classes=2),
)
ROWS = 4
TRIES = 40


def write(folder: Path, kind: str) -> list[Path]:
    """A good file, or the files of a good folder."""
    x = np.random.default_rng(0).random((ROWS, 1, 6, 6)).astype(np.float32)
    label = np.arange(ROWS) % 2
    if kind == "npz":
        np.savez(folder / "d.npz", x=x, label=label)
    elif kind == "compressed":
        np.savez_compressed(folder / "d.npz", x=x, label=label)
    elif kind == "parquet":
        flat = pa.FixedSizeListArray.from_arrays(pa.array(x.reshape(-1)), 36)
        pq.write_table(pa.table({"x": flat, "label": label}), folder / "d.parquet")
    elif kind == "csv":
        lines = [f"{n},{a},{b}" for n, (a, b) in zip(label, x[:, 0, 0, :2], strict=True)]
        (folder / "d.csv").write_text("\n".join(["label,x0,x1", *lines]))
    elif kind == "npy":
        (folder / "d").mkdir()
        np.save(folder / "d" / "x.npy", x)
        np.save(folder / "d" / "label.npy", label)
    else:
        for n in (0, 1):
            (folder / "d" / str(n)).mkdir(parents=True)
            Image.fromarray((x[n, 0] * 255).astype(np.uint8)).save(folder / f"d/{n}/a.{kind}")
    return sorted(p for p in folder.rglob("*") if p.is_file())


def read(folder: Path, kind: str) -> int:
    ports = PORTS if kind != "csv" else (port("x", "f32", "N", 2), PORTS[1])
    (found,) = folder.iterdir()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return sum(len(b) for b in Loader(open_data(found, ports), 3, threads=0).epoch(0))


@pytest.mark.parametrize(
    "kind",
    ["npz", "compressed", "npy", "parquet", "csv", "png", "jpg", "bmp", "gif", "tiff", "webp"],
)
def test_damage_is_data_or_a_sentence(tmp_path: Path, kind: str) -> None:
    files = write(tmp_path, kind)
    assert read(tmp_path, kind) == (
        ROWS if kind in ("npz", "compressed", "npy", "parquet", "csv") else 2
    )
    good = [f.read_bytes() for f in files]
    rng = np.random.default_rng(0)
    refused = 0
    for attempt in range(TRIES):
        for file, data in zip(files, good, strict=True):
            bad = bytearray(data)
            if attempt % 4 == 0:
                del bad[int(rng.integers(len(bad))) :]
            else:
                for at in rng.integers(0, len(bad), 1 + attempt % 5):
                    bad[at] = int(rng.integers(256))
            file.write_bytes(bad)
        try:
            read(tmp_path, kind)
        except DataError as error:
            refused += 1
            assert "\n" not in str(error)
    assert refused > TRIES // 8
