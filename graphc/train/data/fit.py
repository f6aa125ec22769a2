"""Columns as the step takes them: element types, and values that a model cannot learn from.

Training data comes in more element types than a compiled module accepts: tables hold f64 and i64. Conversions that
lose nothing but digits are made here; everything else is an error that names the row.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from graphc.train.errors import DataError
from graphc.train.ports import Port

Array = npt.NDArray[Any]
Where = Callable[[int], str]
"""Names the place of a row of a batch in the file it came from."""


def is_float(dtype: np.dtype[Any]) -> bool:
    """True for floating point types, those of ml_dtypes included."""
    return dtype.kind == "f" or dtype.name == "bfloat16"


def check_dtype(port: Port, dtype: np.dtype[Any], origin: str, *, exact: bool) -> None:
    """Whether a column of this element type can become the port's.

    Floats become floats and integers integers of any width; integers become floats too, except that bytes do not
    when `exact` (an array of bytes is a picture nobody has scaled). Booleans become integers. Raises DataError.
    """
    want = port.type.dtype
    if is_float(dtype):
        fits = want.is_float
    elif dtype.kind == "b":
        fits = not want.is_float
    elif dtype.kind in "iu":
        fits = want.is_int or (want.is_float and not (exact and dtype.itemsize == 1))
    else:
        raise DataError(f"{origin}: `{port.name}` holds {dtype}, which is no number")
    if fits:
        return
    if want.is_float and dtype.kind in "iu":
        raise DataError(
            f"{origin}: `{port.name}` holds bytes ({dtype}) and the model takes {want}: save it scaled, as in "
            f'`{port.name}.astype("float32") / 255`, or declare the input u8 and scale it in the model'
        )
    raise DataError(f"{origin}: `{port.name}` holds {dtype}, the model takes {want} ({port})")


def fit(port: Port, array: Array, where: Where) -> Array:
    """A batch of a column as a contiguous array of the port's type, its values checked.

    Raises DataError for a class that the model does not know, a target that is NaN or infinite, and an integer
    that the port's type cannot hold; the message starts with the place `where(row)` gives.
    """
    dtype = port.type.dtype.numpy
    if array.dtype.kind in "iu" and dtype.kind in "iu":
        _check_range(port, array, np.iinfo(dtype), where)
    if port.classes is not None and array.dtype.kind in "iub":
        _check_classes(port, array, where)
    fitted = np.ascontiguousarray(array, dtype=dtype).reshape(array.shape)
    if port.target and is_float(dtype):
        row = first_row(~np.isfinite(fitted))
        if row is not None:
            kind = "NaN" if np.isnan(fitted[row]).any() else "infinite"
            raise DataError(
                f"{where(row)}: `{port.name}` is {kind}, and it is what is to be learned"
            )
    return fitted


def first_row(wrong: npt.NDArray[np.bool_]) -> int | None:
    """The first row of a batch with a True in it."""
    if not wrong.any():
        return None
    return int(np.argmax(wrong.reshape(len(wrong), -1).any(1)))


def _check_range(port: Port, array: Array, limits: Any, where: Where) -> None:
    have = np.iinfo(array.dtype)
    if limits.min <= have.min and have.max <= limits.max:
        return
    row = first_row((array < limits.min) | (array > limits.max))
    if row is not None:
        raise DataError(f"{where(row)}: `{port.name}` does not fit into {port.type.dtype}")


def _check_classes(port: Port, array: Array, where: Where) -> None:
    assert port.classes is not None
    values = array.astype(np.int64, copy=False)
    wrong = (values < 0) | (values >= port.classes)
    if port.ignore is not None:
        wrong &= values != port.ignore
    row = first_row(wrong)
    if row is not None:
        value = int(values[row][wrong[row]].flat[0]) if values.ndim > 1 else int(values[row])
        known = f"0 to {port.classes - 1}"
        what = f"is class {value}, the model has classes {known}"
        if not port.target:
            what = f"holds {value}, which the model looks up in {known}"
        raise DataError(f"{where(row)}: `{port.name}` {what}")


def require(ports: Sequence[Port], names: Sequence[str], origin: str, what: str) -> None:
    """Raises DataError when a port has no column among `names`; `what` is the word for a column."""
    missing = [p.name for p in ports if p.name not in names]
    if missing:
        have = ", ".join(f"`{n}`" for n in names) or "none"
        lacks = " and ".join(f"`{n}`" for n in missing)
        raise DataError(f"{origin} has no {what} {lacks} for the model's input; it has {have}")
