"""Python type hints as the argument kinds of `.nn` layers and functions: conversion and how they read in messages."""

from __future__ import annotations

import math
import types
import typing
from typing import Any, Literal, Union

from graphc.diagnostics import nearest
from graphc.frontend.initialisers import Initializer
from graphc.frontend.keys import RandomKey
from graphc.frontend.limits import Limits
from graphc.frontend.mixed import Mixed
from graphc.frontend.values import MixedLabels, Tensor, describe, shown
from graphc.ir.dim import Dim, DimLike
from graphc.ir.dtype import DType
from graphc.ir.graph import Value
from graphc.ir.types import TensorType

_UNIONS = (Union, types.UnionType)
_WORDS: dict[Any, str] = {
    int: "an integer",
    float: "a number",
    bool: "true or false",
    str: "a string",
    Dim: "a dim",
    Value: "a tensor",
    DType: "a dtype",
    Initializer: "an initialiser",
    RandomKey: "a key, i64[2]",
    Mixed: "mixed labels",
    type(None): "none",
}
_PLURALS: dict[Any, str] = {
    int: "integers",
    float: "numbers",
    str: "strings",
    Value: "tensors",
    DimLike: "dims",
}


Number = int | float | Dim
"""A plain number; a named dim counts as one."""


class MismatchError(Exception):
    """A value does not fit; carries the diagnostic code, the message's tail and a suggestion."""

    def __init__(self, message: str, code: str = "E0404", help: str | None = None) -> None:
        super().__init__(message)
        self.message, self.code, self.help = message, code, help


def convert(value: Any, hint: Any) -> Any:
    """The value as the hint wants it (lists become tuples, tensors graph values). Raises MismatchError."""
    found, result = _try(value, hint)
    if found:
        return result
    raise _mismatch(value, hint)


def _try(value: Any, hint: Any) -> tuple[bool, Any]:
    if hint is Any:
        return True, value
    if hint is Value:
        return (True, value.value) if isinstance(value, Tensor) else (False, None)
    if hint is Mixed:
        return (True, value.mixed) if isinstance(value, MixedLabels) else (False, None)
    if hint is RandomKey:
        fits = isinstance(value, Tensor) and value.type == TensorType(DType.I64, (2,))
        return fits, RandomKey(value.value, 0) if fits else None
    if hint is int:
        return isinstance(value, int) and not isinstance(value, bool), value
    if hint is float:
        if isinstance(value, (int, float)) and not isinstance(value, bool):
            return math.isfinite(value) or isinstance(value, float), float(value)
        return False, None
    origin = typing.get_origin(hint)
    if origin in _UNIONS:
        for option in typing.get_args(hint):
            found, result = _try(value, option)
            if found:
                return True, result
        return False, None
    if origin is Literal:
        return isinstance(value, str) and value in typing.get_args(hint), value
    if origin is tuple:
        return _try_tuple(value, typing.get_args(hint))
    return isinstance(value, hint), value


def _try_tuple(value: Any, options: tuple[Any, ...]) -> tuple[bool, Any]:
    if not isinstance(value, (tuple, list, range)):
        return False, None
    if len(value) > Limits.length:
        raise MismatchError(f"has {len(value):,} elements, more than {Limits.length:,}", "E0502")
    if len(options) == 2 and options[1] is Ellipsis:
        items = [_try(v, options[0]) for v in value]
    elif len(options) == len(value):
        items = [_try(v, o) for v, o in zip(value, options, strict=True)]
    else:
        return False, None
    return all(found for found, _ in items), tuple(result for _, result in items)


def _mismatch(value: Any, hint: Any) -> MismatchError:
    if isinstance(value, Dim) and int in _flat(hint):
        return MismatchError(
            f"needs a fixed integer, and `{value}` is only known at run time",
            "E0216",
            "fix the dim when compiling, for example with `--dim "
            + " --dim ".join(f"{n}=8" for n in value.names)
            + "`",
        )
    choices = [
        c for h in _flat(hint) if typing.get_origin(h) is Literal for c in typing.get_args(h)
    ]
    if isinstance(value, str) and choices:
        near = nearest(value, choices)
        words = ", ".join(shown(c) for c in choices)
        return MismatchError(
            f"is {shown(value)} and has to be one of {words}",
            "E0405",
            f"did you mean {shown(near)}?" if near else None,
        )
    return MismatchError(f"has to be {words_of(hint)} and is {describe(value)}")


def takes_key(hint: Any) -> bool:
    """Whether a parameter is a key for random numbers."""
    return RandomKey in _flat(hint)


def takes_mixed(hint: Any) -> bool:
    """Whether a parameter is a label that may be mixed."""
    return Mixed in _flat(hint)


def _flat(hint: Any) -> tuple[Any, ...]:
    """The alternatives of a hint, tuples opened."""
    origin = typing.get_origin(hint)
    if origin in _UNIONS or origin is tuple:
        return tuple(x for h in typing.get_args(hint) for x in _flat(h))
    return (hint,)


def words_of(hint: Any) -> str:
    """A hint in words: "an integer or a tuple of integers"."""
    origin = typing.get_origin(hint)
    if origin in _UNIONS:
        words = [words_of(h) for h in typing.get_args(hint)]
        words = list(dict.fromkeys(words))
        return words[0] if len(words) == 1 else f"{', '.join(words[:-1])} or {words[-1]}"
    if origin is Literal:
        choices = [shown(c) for c in typing.get_args(hint)]
        return choices[0] if len(choices) == 1 else f"one of {', '.join(choices)}"
    if origin is tuple:
        options = typing.get_args(hint)
        if len(options) == 2 and options[1] is Ellipsis:
            return f"a tuple of {_PLURALS.get(options[0], 'values')}"
        return f"a tuple of {len(options)}"
    if hint is Any:
        return "anything"
    return _WORDS.get(hint, getattr(hint, "__name__", str(hint)))


def spelled(hint: Any) -> str:
    """A hint as documentation spells it: `int | (int, ...) | "same"`."""
    origin = typing.get_origin(hint)
    if origin in _UNIONS:
        return " | ".join(dict.fromkeys(spelled(h) for h in typing.get_args(hint)))
    if origin is Literal:
        return " | ".join(shown(c) for c in typing.get_args(hint))
    if origin is tuple:
        parts = ["..." if h is Ellipsis else spelled(h) for h in typing.get_args(hint)]
        return f"({', '.join(parts)})"
    names = {Value: "tensor", type(None): "none", Dim: "dim", DType: "dtype", Any: "any"}
    names |= {RandomKey: "key", Mixed: "mixed labels"}
    return names.get(hint, getattr(hint, "__name__", str(hint)))
