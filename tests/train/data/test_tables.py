"""CSV and Parquet: columns by name, classes by name, and the row of what is wrong."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from graphc.train.data import open_data
from graphc.train.errors import DataError
from tests.train.ports import port

X = port("x", "f32", "N", 3)
Y = port("y", "i64", "N", target=True, classes=3)
PRICE = port("price", "f32", "N", target=True)

TABLE = "age,size,old,y\n1,0.5,true,setosa\n2,1.5,false,virginica\n3,2.5,true,setosa\n"


def write(folder: Path, text: str, name: str = "t.csv") -> Path:
    (folder / name).write_text(text)
    return folder / name


def test_columns_that_nobody_else_takes_are_the_features(tmp_path: Path) -> None:
    data = open_data(write(tmp_path, TABLE.replace("true", "1").replace("false", "0")), (X, Y))
    assert data.classes == {"y": ("setosa", "virginica")}
    taken = data.gather(np.array([2, 1]))
    assert taken["x"].tolist() == [[3, 2.5, 1], [2, 1.5, 0]] and taken["x"].dtype == np.float32
    assert taken["y"].tolist() == [0, 1]
    held = write(tmp_path, "y,age,size,old\nvirginica,1,2,3\n", "held.csv")
    assert open_data(held, (X, Y), like=data).gather(np.array([0]))["y"].tolist() == [1]
    assert data.where(1) == f"{tmp_path / 't.csv'}, row 2"


def test_numbered_columns_and_single_ones(tmp_path: Path) -> None:
    file = write(tmp_path, "price\tx_1\tx_0\tx_2\tother\n7\t1\t2\t3\t4\n", "t.tsv")
    taken = open_data(file, (X, PRICE)).gather(np.array([0]))
    assert taken["x"].tolist() == [[2, 1, 3]] and taken["price"].tolist() == [7]
    renamed = open_data(file, (PRICE,), columns={"price": "other"}).gather(np.array([0]))
    assert renamed["price"].tolist() == [4]


def test_parquet_with_lists(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    x, image = rng.random((6, 3)), rng.random((6, 2, 2, 2)).astype(np.float32)
    table = pa.table(
        {
            "x": pa.array(x.tolist()),
            "image": pa.FixedSizeListArray.from_arrays(pa.array(image.reshape(-1)), 8),
            "y": pa.array(["a", "b", "c"] * 2).dictionary_encode(),
        }
    )
    pq.write_table(table, tmp_path / "t.parquet", row_group_size=4)
    ports = (X, port("image", "f32", "N", 2, 2, 2), Y)
    taken = open_data(tmp_path / "t.parquet", ports).gather(np.array([5, 0]))
    np.testing.assert_array_equal(taken["x"], x[[5, 0]].astype(np.float32))
    np.testing.assert_array_equal(taken["image"], image[[5, 0]])
    assert taken["y"].tolist() == [2, 0]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a,b,c,y\n1,2,3,0\n1,,3,1\n", r"row 2: column `b` is empty"),
        ("a,b,c,y\n1,2,3,0\n1,two,3,1\n", r"row 2: column `b` holds 'two', which is no number"),
        ("a,b,c,y\n1,2,3,0\n1,2,3,7\n", r"row 2: `y` is class 7, the model has classes 0 to 2"),
        ("a,b,c,y\n1,2,3,0\n1,2,3,0.5\n", r"`y` holds double|holds float64"),
        ("a,b,c,y\n1,2,3,a\n1,2,3,b\n1,2,3,c\n1,2,3,d\n", "holds 4 classes, the model tells 3"),
        ("a,b,y\n1,2,0\n", "has 2 columns besides those of other inputs, the model takes 3"),
        ("a,b,c\n1,2,0\n", "has no column `y`.* it has `a`, `b`, `c`"),
        ("a,a,c,y\n1,2,3,0\n", "two columns `a`"),
        ("a,b,c,y\n1,2,3\n", "cannot be read"),
        ("a,b,c,y\n2024-01-01,2,3,0\n", "holds date32"),
        ("", "cannot be read"),
    ],
)
def test_what_is_wrong_is_said_with_file_and_row(tmp_path: Path, text: str, message: str) -> None:
    file = write(tmp_path, text)
    with pytest.raises(DataError, match=message) as caught:
        open_data(file, (X, Y))
    assert str(file) in str(caught.value) and "\n" not in str(caught.value)


def test_classes_of_the_training_data(tmp_path: Path) -> None:
    data = open_data(write(tmp_path, "a,b,c,y\n1,2,3,cat\n1,2,3,dog\n"), (X, Y))
    file = write(tmp_path, "a,b,c,y\n1,2,3,dog\n1,2,3,eel\n", "v.csv")
    with pytest.raises(DataError, match="row 2: the training data has no class 'eel'"):
        open_data(file, (X, Y), like=data)


def test_lists_of_many_lengths_and_no_parquet(tmp_path: Path) -> None:
    pq.write_table(pa.table({"x": [[1.0, 2, 3], [1.0]], "y": [0, 1]}), tmp_path / "t.parquet")
    with pytest.raises(DataError, match="row 2: column `x` has 1 values, the rows before it 3"):
        open_data(tmp_path / "t.parquet", (X, Y))
    (tmp_path / "bad.parquet").write_bytes(b"PAR1 nothing")
    with pytest.raises(DataError, match=r"bad\.parquet cannot be read"):
        open_data(tmp_path / "bad.parquet", (X, Y))


def test_a_table_that_is_too_large_is_not_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("graphc.train.data.tables.MAX_BYTES", 10)
    pq.write_table(pa.table({"x": [[1.0, 2, 3]] * 99, "y": [0] * 99}), tmp_path / "t.parquet")
    for file in (write(tmp_path, TABLE), tmp_path / "t.parquet"):
        with pytest.raises(DataError, match="larger than"):
            open_data(file, (X, Y))
