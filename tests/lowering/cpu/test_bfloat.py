"""bfloat16 in kernels: every rounding as ml_dtypes has it, NaN and infinities, any number of lanes."""

from __future__ import annotations

import ml_dtypes
import numpy as np
import pytest

from graphc.lowering.cpu.bfloat import rounded
from graphc.lowering.cpu.emit import kernel, loop
from graphc.lowering.cpu.features import CpuTarget, parse_target
from tests.lowering.cpu.harness import TARGETS, build, guarded, misaligned, target_id

HARDWARE = parse_target("x86-64-v4+avx512_bf16")
LANES = (1, 2, 4, 8, 16, 32, 64)


def values() -> np.ndarray:
    """Ties, their neighbours, both signs, the largest numbers, NaN and infinities; no denormal numbers."""
    words = np.arange(0x0080, 0x7F80, 37, dtype=np.uint32) << 16
    ties = np.concatenate([words + d for d in (0, 0x7FFF, 0x8000, 0x8001, 0xFFFF)])
    special = np.array([0, 0x7F800000, 0x7FC00000, 0x7F7FFFFF, 0x7F800001], np.uint32)
    both = np.concatenate([ties, special])
    signed = np.concatenate([both, both | np.uint32(0x80000000)])
    return np.resize(signed, -(-len(signed) // 64) * 64).view(np.float32)


@pytest.mark.parametrize("lanes", LANES)
@pytest.mark.parametrize("target", [*TARGETS, HARDWARE], ids=target_id)
def test_rounding(target: CpuTarget, lanes: int) -> None:
    x = values()
    with kernel("narrow", {"x": "float32", "y": "bfloat16", "z": "float32"}, public=True) as k:
        a, y, z = (k.view(name, (x.size,)) for name in "xyz")
        with loop(x.size // lanes) as i:
            y.store(rounded(a.load((i * lanes,), lanes), target), (i * lanes,))
            z.store(y.load((i * lanes,), lanes), (i * lanes,))
    run = build(k, target)
    if not run.runnable:
        return
    words, words_intact = guarded(x.shape, "uint16")
    wide, wide_intact = guarded(x.shape)
    run(misaligned(x), words, wide)
    with np.errstate(invalid="ignore"):
        want = x.astype(ml_dtypes.bfloat16)
    finite = ~np.isnan(x)
    np.testing.assert_array_equal(words[finite], want.view(np.uint16)[finite])
    np.testing.assert_array_equal(wide, want.astype(np.float32))
    assert np.isnan(words.view(ml_dtypes.bfloat16)[~finite].astype(np.float32)).all()
    assert words_intact() and wide_intact()
