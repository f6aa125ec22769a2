"""bfloat16 between memory and registers: 16-bit words there, float32 with 16 zero bits here.

TVM's own bfloat16 is not used: its legalisation emulates conversions in a dozen instructions where
the machine has one, and knows nothing of NaN. To kernels a bfloat16 buffer is one of uint16.
"""

from __future__ import annotations

from graphc.lowering.cpu.emit import (
    Expr,
    bind,
    cast,
    const,
    lanes_of,
    local,
    select,
)
from graphc.lowering.cpu.features import CpuTarget

__all__ = ["narrowed", "rounded", "widened"]

_HARDWARE = {
    16: "llvm.x86.avx512bf16.cvtneps2bf16.512",
    8: "llvm.x86.avx512bf16.cvtneps2bf16.256",
}


def widened(bits: Expr) -> Expr:
    """The float32 values of uint16 words: exact."""
    lanes = lanes_of(bits)
    word = cast(bits, "uint32") << const(16, "uint32", lanes)
    return _as(word, "float32")


def narrowed(value: Expr) -> Expr:
    """The uint16 words of float32 values whose low 16 bits are zero, as `rounded` leaves them."""
    return cast(_as(value, "uint32") >> const(16, "uint32", lanes_of(value)), "uint16")


def rounded(value: Expr, target: CpuTarget) -> Expr:
    """The nearest float32 whose low 16 bits are zero, ties to even; NaN stays NaN.

    The conversion instruction of AVX-512 BF16 takes denormal numbers (below 1.2e-38) for zeros.
    """
    lanes = lanes_of(value)
    if target.avx512_bf16 and lanes >= 8:
        return widened(_converted(value))
    from tvm.script.ir_builder import tirx as t

    value = bind(value)

    def word(number: int) -> Expr:
        return const(number, "uint32", lanes)

    bits = bind(_as(value, "uint32"))
    up = ((bits >> word(16)) & word(1)) + word(0x7FFF)
    near = _as((bits + up) & word(0xFFFF0000), "float32")
    quiet = _as((bits | word(0x00400000)) & word(0xFFFF0000), "float32")
    return bind(select(t.isnan(value), quiet, near))


def _converted(value: Expr) -> Expr:
    """The words by the machine's instruction, sixteen (or eight) at a time.

    They pass through memory that LLVM turns into registers, for TVM and LLVM differ in what the
    instruction returns.
    """
    import tvm.tirx as tx
    from tvm.script.ir_builder import tirx as t

    lanes = lanes_of(value)
    step = min(lanes, 16)
    words = local(lanes, "uint16")
    value = bind(value)
    for start in range(0, lanes, step):
        part = value
        if step < lanes:
            part = tx.Shuffle([value], [tx.const(start + i, "int32") for i in range(step)])
        converted = t.call_llvm_pure_intrin(f"uint16x{step}", _HARDWARE[step], part)
        t.buffer_store(words, converted, [t.ramp(start, 1, step)])
    return words[t.ramp(0, 1, lanes)]


def _as(value: Expr, dtype: str) -> Expr:
    """The same bits as another type."""
    from tvm.script.ir_builder import tirx as t

    lanes = lanes_of(value)
    return t.reinterpret(dtype if lanes == 1 else f"{dtype}x{lanes}", value)
