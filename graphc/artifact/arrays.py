"""What users hand to a module, as arrays that a kernel can read: no silent casts, no needless
copies.
"""

from __future__ import annotations

import ctypes
import importlib
from typing import Any

import numpy as np
import numpy.typing as npt

from graphc.artifact.errors import ModuleDTypeError, ModuleInputError
from graphc.artifact.manifest import TensorInfo

Array = npt.NDArray[Any]

_NUMPY: dict[str, np.dtype[Any]] = {
    "f64": np.dtype(np.float64),
    "f32": np.dtype(np.float32),
    "f16": np.dtype(np.float16),
    "i64": np.dtype(np.int64),
    "i32": np.dtype(np.int32),
    "i16": np.dtype(np.int16),
    "i8": np.dtype(np.int8),
    "u8": np.dtype(np.uint8),
    "bool": np.dtype(np.bool_),
}
_CODES = {dtype: code for code, dtype in _NUMPY.items()}


def numpy_dtype(code: str) -> np.dtype[Any]:
    """The NumPy dtype of an element type. bf16 is ml_dtypes.bfloat16 where that is installed, else
    uint16 (the bits).

    Raises KeyError for an unknown code.
    """
    if code != "bf16":
        return _NUMPY[code]
    try:
        scalar: type = importlib.import_module("ml_dtypes").bfloat16
    except ImportError:
        return np.dtype(np.uint16)
    return np.dtype(scalar)


def as_input(value: object, port: TensorInfo, dtype: np.dtype[Any]) -> Array:
    """A contiguous array of the port's element type.

    Arrays, and anything with DLPack, the buffer protocol or `__array__`, keep their element type,
    which must be the port's; they are not copied when they are contiguous. bf16 may also come as
    uint16 bits. Numbers and nested lists have no type of their own and are converted, if that
    loses nothing but digits: integers to any number type that can hold them, floats to floats only.

    State is written to, so that it must be an array of exactly this kind already.

    Raises ModuleDTypeError with the cast to write, ModuleInputError for what is no array.
    """
    if port.state:
        raise ModuleInputError(
            f"state `{port.name}` has to be a contiguous, writeable NumPy array of {port.dtype}: "
            "the call overwrites it"
        )
    if isinstance(value, (bool, int, float, list, tuple)):
        return _from_literal(value, port, dtype)
    array = _from_object(value, port)
    if array.dtype != dtype:
        bits = port.dtype == "bf16" and (array.dtype == np.uint16 or array.dtype.name == "bfloat16")
        if not bits:
            raise _wrong_dtype(array, port, dtype, isinstance(value, np.ndarray))
        array = array.view(dtype)
    return array if array.flags.c_contiguous else np.ascontiguousarray(array).reshape(array.shape)


def _from_object(value: object, port: TensorInfo) -> Array:
    try:
        if isinstance(value, np.ndarray) or not hasattr(value, "__dlpack__"):
            array = np.asarray(value)
        else:
            array = np.from_dlpack(value)
    except Exception as error:  # anything may come out of foreign objects
        raise ModuleInputError(
            f"input `{port.name}` (expected {port}): NumPy cannot take this "
            f"{type(value).__name__}: {error}"
        ) from error
    if array.dtype.kind in "OSUMm":  # objects, texts, dates
        raise ModuleInputError(
            f"input `{port.name}` is a {type(value).__name__}, which is no array of numbers; expected {port}"
        )
    return array


def _from_literal(value: object, port: TensorInfo, dtype: np.dtype[Any]) -> Array:
    try:
        array = np.asarray(value)
    except ValueError as error:
        raise ModuleInputError(
            f"input `{port.name}` (expected {port}) is no regular list: {error}"
        ) from error
    if not array.size:
        return np.empty(array.shape, dtype)
    to_float = port.dtype in ("f64", "f32", "f16", "bf16")
    if port.dtype == "bf16" and dtype == np.uint16:
        fits = False  # without ml_dtypes numbers cannot be rounded to bf16
    elif array.dtype.kind == "b" or port.dtype == "bool":
        fits = array.dtype.kind == "b" and port.dtype == "bool"
    elif array.dtype.kind in "iu" and not to_float:
        limits = np.iinfo(dtype)
        fits = bool(limits.min <= array.min() and array.max() <= limits.max)
    else:
        fits = to_float and array.dtype.kind in "iuf"
    if not fits:
        raise ModuleDTypeError(
            f"input `{port.name}` (expected {port}): values such as {array.reshape(-1)[0]!r} "
            f"({array.dtype}) do not fit into {port.dtype}"
        )
    return array.astype(dtype)


def _wrong_dtype(
    array: Array, port: TensorInfo, dtype: np.dtype[Any], is_array: bool
) -> ModuleDTypeError:
    given = _CODES.get(array.dtype, str(array.dtype))
    shape = ", ".join(map(str, array.shape))
    source = port.name if is_array else f"np.asarray({port.name})"
    cast = f"{source}.astype({dtype.name!r})"
    return ModuleDTypeError(
        f"input `{port.name}` is {given}[{shape}], expected {port}: cast it with {cast}"
    )


def check_output(array: object, name: str, shape: tuple[int, ...], dtype: np.dtype[Any]) -> Array:
    """An array given for `out=`, if results can be written to it. Raises ModuleInputError."""
    if not isinstance(array, np.ndarray):
        raise ModuleInputError(f"out[{name!r}] must be a NumPy array")
    if array.dtype != dtype or array.shape != shape:
        raise ModuleInputError(
            f"out[{name!r}] is {array.dtype}{list(array.shape)}, the output is {dtype}{list(shape)}"
        )
    if not array.flags.c_contiguous or not array.flags.writeable:
        raise ModuleInputError(f"out[{name!r}] must be contiguous and writeable")
    return array


def address(array: Any) -> int:
    """Where a contiguous array's data lies. The short way for writeable ones: this is in every
    call.
    """
    try:
        return ctypes.addressof(ctypes.c_char.from_buffer(array))
    except (TypeError, ValueError, BufferError):  # read-only, empty, or a dtype without a format
        return int(array.ctypes.data)
