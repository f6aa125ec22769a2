"""Where CPUID reports each x86 feature that generated code may need.

The runtime asks the CPU itself (`native/cpu.c`) rather than `/proc/cpuinfo`: it also works where
/proc is not mounted, and it includes whether the operating system saves the wide registers. Names
are those of `/proc/cpuinfo`.
Source: Intel SDM volume 2A, CPUID; AMD APM volume 3, appendix E (leaf 0x80000001).
"""

from __future__ import annotations

from dataclasses import dataclass

EAX, EBX, ECX, EDX = range(4)
_YMM, _ZMM, _TILE = (
    0x6,
    0xE6,
    0x60000,
)  # bits of XCR0: what the system must save on a context switch


@dataclass(frozen=True)
class CpuidBit:
    """Register and bit of a CPUID leaf, and the register state that must be enabled as well."""

    leaf: int
    subleaf: int
    register: int
    bit: int
    xcr0: int = 0


def _bits(
    leaf: int, subleaf: int, register: int, bits: dict[str, int], xcr0: int = 0
) -> dict[str, CpuidBit]:
    return {name: CpuidBit(leaf, subleaf, register, bit, xcr0) for name, bit in bits.items()}


CPUID: dict[str, CpuidBit] = {
    **_bits(1, 0, EDX, {"cx8": 8, "cmov": 15, "mmx": 23, "fxsr": 24, "sse": 25, "sse2": 26}),
    **_bits(1, 0, ECX, {"pni": 0, "pclmulqdq": 1, "ssse3": 9, "cx16": 13, "sse4_1": 19}),
    **_bits(1, 0, ECX, {"sse4_2": 20, "movbe": 22, "popcnt": 23, "aes": 25}),
    **_bits(1, 0, ECX, {"fma": 12, "avx": 28, "f16c": 29}, _YMM),
    **_bits(7, 0, EBX, {"bmi1": 3, "bmi2": 8, "erms": 9, "adx": 19, "sha_ni": 29}),
    **_bits(7, 0, EBX, {"avx2": 5}, _YMM),
    **_bits(7, 0, EBX, {"avx512f": 16, "avx512dq": 17, "avx512ifma": 21, "avx512cd": 28}, _ZMM),
    **_bits(7, 0, EBX, {"avx512bw": 30, "avx512vl": 31}, _ZMM),
    **_bits(7, 0, ECX, {"avx512vbmi": 1, "avx512_vbmi2": 6, "avx512_vnni": 11}, _ZMM),
    **_bits(7, 0, ECX, {"avx512_bitalg": 12, "avx512_vpopcntdq": 14}, _ZMM),
    **_bits(7, 0, ECX, {"gfni": 8}),
    **_bits(7, 0, ECX, {"vaes": 9, "vpclmulqdq": 10}, _YMM),
    **_bits(7, 0, EDX, {"fsrm": 4}),
    **_bits(7, 0, EDX, {"avx512_vp2intersect": 8, "avx512_fp16": 23}, _ZMM),
    **_bits(7, 0, EDX, {"amx_bf16": 22, "amx_tile": 24, "amx_int8": 25}, _TILE),
    **_bits(7, 1, EAX, {"avx_vnni": 4, "avx_ifma": 23}, _YMM),
    **_bits(7, 1, EAX, {"avx512_bf16": 5}, _ZMM),
    **_bits(7, 1, EAX, {"amx_fp16": 21}, _TILE),
    **_bits(0x80000001, 0, ECX, {"lahf_lm": 0, "abm": 5, "sse4a": 6}),
    **_bits(0x80000001, 0, ECX, {"xop": 11, "fma4": 16}, _YMM),
}
"""Every feature a `ModuleSpec` may require."""
