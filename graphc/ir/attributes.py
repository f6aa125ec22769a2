"""Do attribute values have the types their op's fields declare? For the reader."""

from __future__ import annotations

import types
import typing
from typing import Any

from graphc.ir.graph import Graph
from graphc.ir.op import Op

_NAMES = {"Graph": Graph}  # modules of ops may import it for type checking only


def hints(op: type[Op]) -> dict[str, Any]:
    """The declared types of an op's fields."""
    return typing.get_type_hints(op, localns=_NAMES)


def conforms(value: Any, hint: Any) -> bool:
    """True when an attribute value has the declared type; an int is no float, a bool no int."""
    origin, arguments = typing.get_origin(hint), typing.get_args(hint)
    if origin in (typing.Union, types.UnionType):
        return any(conforms(value, a) for a in arguments)
    if origin is typing.Literal:
        return any(type(value) is type(a) and value == a for a in arguments)
    if origin is tuple:
        if not isinstance(value, tuple):
            return False
        if len(arguments) == 2 and arguments[1] is Ellipsis:
            return all(conforms(v, arguments[0]) for v in value)
        return len(value) == len(arguments) and all(map(conforms, value, arguments))
    if hint in (None, type(None)):
        return value is None
    if hint is Any:
        return True
    return type(value) is hint
