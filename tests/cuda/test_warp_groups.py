"""The emulator on sm_90a: tensor maps, barriers in shared memory, products of warp groups; what it must catch."""

import numpy as np
import pytest

from graphc.artifact.device import Address, DeviceProgram, Launch, TensorMap
from graphc.lowering.cuda.build import prelude
from graphc.lowering.cuda.hopper import instructions
from tests.cuda.emulator import EmulatorError, run

STEPS = 5
KERNEL = """
extern "C" __global__ void __launch_bounds__(256, 1) __cluster_dims__(2, 1, 1) tiles(float* y, int64_t steps,
    int64_t mistake, const __grid_constant__ CUtensorMap left, const __grid_constant__ CUtensorMap right) {
  using Ring = graphc_ring<2, 64, 64, 2>;
  graphc_open_ring<Ring>(mistake == 1 ? 2 : 1);
  graphc_slot<2> at(0);
  int row = (int)blockIdx.x * 64;
  if (threadIdx.x == 0) {
    graphc_map_rows a(left, row, 0);
    graphc_map_columns b(right, mistake == 4 ? -1 : 0, 0);
    for (int step = 0; step < (int)steps; step++, at.next()) {
      if (mistake != 2) graphc_barrier_wait(Ring::free(at.slot), at.parity ^ 1);
      graphc_barrier_expect(Ring::full(at.slot), mistake == 3 ? Ring::STAGE / 2 : Ring::STAGE);
      a.copy<Ring>(at.slot, step);
      b.copy<Ring>(at.slot, step);
      graphc_barrier_arrive(Ring::full(at.slot));
    }
  } else if (threadIdx.x >= 128) {
    float sums[32];
    for (int step = 0; step < (int)steps; step++, at.next()) {
      if (mistake != 5) graphc_barrier_wait(Ring::full(at.slot), at.parity);
      uint64_t a = graphc_matrix(Ring::left(at.slot)), b = graphc_matrix(Ring::right(at.slot));
      if (mistake == 6) b ^= (uint64_t)3 << 62;
      if (mistake == 7) a += (uint64_t)32 << 32;
      if (mistake != 8) graphc_products_fence();
      for (int kk = 0; kk < 4; kk++) graphc_wgmma_f16_n64(sums, a + kk * 2, b + kk * 2, mistake == 9 || step | kk);
      graphc_products_commit();
      if (mistake == 10) graphc_products_wait<1>(); else graphc_products_wait<0>();
      if (mistake != 11) graphc_release<Ring>(at.slot);
      else if (threadIdx.x % 32 < 2) graphc_barrier_arrive(Ring::free(at.slot));
    }
    int thread = (int)threadIdx.x - 128;
    row += thread / 32 * 16 + thread % 32 / 4;
    for (int i = 0; i < 32; i++) /* of 32 columns, the i / 4-th block of eight has every fourth pair of eight */
      y[(row + i / 2 % 2 * 8) * 64 + i / 16 * 32 + thread % 4 * 8 + i % 2 * 4 + i / 4 % 4] = sums[i];
    if (mistake == 10) graphc_products_wait<0>();
  }
  if (mistake != 12) graphc_close_ring<Ring>();
}
"""
MISTAKES = {
    "another count of arrivals": 1,
    "a tile that is not free": 2,
    "fewer bytes than come": 3,
    "columns of another tile": 4,
    "a tile that is not full": 5,
    "another swizzle": 6,
    "another stride": 7,
    "no fence": 8,
    "sums that were there before": 9,
    "products that are not awaited": 10,
    "a tile that is not free in the other block": 11,
    "a block that ends before the other": 12,
}


def tiles(mistake: int, reverse: bool) -> tuple[np.ndarray, np.ndarray]:
    """What the kernel computes of a ragged product, and what it should."""
    rng = np.random.default_rng(0)
    k = 64 * STEPS - 8
    left = rng.standard_normal((114, k), np.float32).astype(np.float16)
    right = rng.standard_normal((64, k), np.float32).astype(np.float16)
    row = 2 * k
    maps = (
        TensorMap(Address("input", 0), "f16", (k, 114, 1), (row, row), (64, 64, 1), 128),
        TensorMap(
            Address("input", 1),
            "f16",
            (k, 8, 4, 2, 1),
            (4 * row, row, 32 * row, row),
            (64, 8, 4, 1, 1),
            128,
        ),
    )
    arguments = (Address("output"), STEPS, mistake, *maps)
    launch = Launch("tiles", (2, 1, 1), (256, 1, 1), arguments, 2 * 128 * 128 + 1024)
    program = DeviceProgram(prelude() + instructions.prelude() + KERNEL, ((launch,),))
    like = np.zeros((128, 64), np.float32)
    _, (found,), _ = run(program, inputs=[left, right], outputs=[like], reverse=reverse)
    expected = np.zeros((128, 64))  # beyond the last row are zeros
    expected[:114] = left.astype(np.float64) @ right.astype(np.float64).T
    return found, expected


@pytest.mark.parametrize("reverse", [False, True])
def test_tiles_are_copied_and_multiplied(reverse: bool) -> None:
    found, expected = tiles(0, reverse)
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-4)


@pytest.mark.parametrize("mistake", MISTAKES)
def test_mistakes_show_in_one_of_the_orders(mistake: str) -> None:
    for reverse in (False, True):
        try:
            found, expected = tiles(MISTAKES[mistake], reverse)
        except EmulatorError:
            return
        if not np.allclose(found, expected, rtol=0, atol=1e-4):
            return
    raise AssertionError(f"{mistake}: nobody noticed")


def test_the_driver_refuses_maps_that_gpus_cannot_read() -> None:
    source = 'extern "C" __global__ void nothing(const __grid_constant__ CUtensorMap map) {}'
    for shape, strides, box in (
        ((64, 8), (24,), (64, 8)),  # a stride that is no multiple of 16 bytes
        ((64, 8), (128,), (128, 8)),  # more than the swizzle has
        ((64, 512), (128,), (64, 512)),  # more than 256 along an axis
    ):
        described = TensorMap(Address("input"), "f16", shape, strides, box, 128)
        launch = Launch("nothing", (1, 1, 1), (32, 1, 1), (described,))
        with pytest.raises(EmulatorError, match="refuses"):
            run(DeviceProgram(source, ((launch,),)), inputs=[np.zeros(1 << 16, np.float16)])
