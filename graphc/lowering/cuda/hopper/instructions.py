"""The text of `wgmma.mma_async` for every width in use: an instruction names all sums of a thread, up to 128."""

from __future__ import annotations

from functools import cache
from importlib.resources import files

from graphc.lowering.cuda.hopper.tiles import WIDTHS

__all__ = ["prelude"]

_KINDS = ("bf16", "f16")


@cache
def prelude() -> str:
    """What kernels with tensor maps may call, besides the prelude of all kernels."""
    ring = files("graphc.lowering.cuda.hopper").joinpath("ring.cuh").read_text()
    products = "".join(_product(kind, n) for kind in _KINDS for n in WIDTHS)
    units = "".join(_units(kind) for kind in _KINDS)
    return f"{ring}\n#ifndef GRAPHC_EMULATED\n{products}#endif\n{units}"


def _product(kind: str, n: int) -> str:
    """`sums (+)= a b`: 64 x n of a warp group over 16 of K, by descriptors; without `add` the old are zeros."""
    sums = n // 2
    places = ", ".join(f"%{i}" for i in range(sums))
    operands = ", ".join(f'"+f"(d[{i}])' for i in range(sums))
    return (
        f"GRAPHC_INLINE void graphc_wgmma_{kind}_n{n}(float *d, uint64_t a, uint64_t b, int add) {{\n"
        f'  asm volatile("{{.reg .pred add;\\nsetp.ne.b32 add, %{sums + 2}, 0;\\n"\n'
        f'               "wgmma.mma_async.sync.aligned.m64n{n}k16.f32.{kind}.{kind} "\n'
        f'               "{{{places}}}, %{sums}, %{sums + 1}, add, 1, 1, 0, 0;\\n}}"\n'
        f"               : {operands}\n"
        '               : "l"(a), "l"(b), "r"(add));\n'
        "}\n"
    )


def _units(kind: str) -> str:
    """The same for the loop over K, which knows the width as a number."""
    cases = "".join(f"    if (N == {n}) graphc_wgmma_{kind}_n{n}(d, a, b, add);\n" for n in WIDTHS)
    return (
        f"template <int N> struct graphc_wgmma_{kind} {{\n"
        "  static __device__ __forceinline__ void multiply(float *d, uint64_t a, uint64_t b, int add) {\n"
        f"{cases}  }}\n}};\n"
    )
