"""The emulator itself: what it must get right, and what it must catch, for other tests to mean anything."""

import ml_dtypes
import numpy as np
import pytest

from graphc.artifact.device import Address, DeviceProgram, Launch, Loop
from graphc.ir.dim import Dim
from tests.cuda.emulator import EmulatorError, run

RNG = np.random.default_rng(0)


def once(source: str, launch: Launch, **arrays: object) -> list[np.ndarray]:
    """The outputs of one launch; equal for both orders of threads."""
    program = DeviceProgram(source, ((launch,),))
    _, forward, fault = run(program, **arrays)
    _, backward, _ = run(program, **arrays, reverse=True)
    assert fault == [0, 0, 0, 0]
    for a, b in zip(forward, backward, strict=True):
        np.testing.assert_array_equal(a, b)
    return forward


def test_elements_vectors_and_named_dims() -> None:
    source = """
extern "C" __global__ void __launch_bounds__(64) twice(float* __restrict__ y, float* __restrict__ x, int64_t n) {
  int64_t i = (int64_t)blockIdx.x * 64 + threadIdx.x;
  if (i * 4 + 3 < n) {
    float4 v = *(float4*)(x + i * 4);
    *(float4*)(y + i * 4) = make_float4(v.x * 2.0f, v.y * 2.0f, v.z * 2.0f, v.w * 2.0f);
  } else {
    for (int64_t k = i * 4; k < n; ++k) y[k] = x[k] * 2.0f;
  }
}
"""
    n = Dim.symbol("N")
    grid = ((n + 255) // 256, 1, 1)
    launch = Launch("twice", grid, (64, 1, 1), (Address("output"), Address("input"), n))
    x = RNG.standard_normal(1002, np.float32)[:1000]
    (y,) = once(source, launch, inputs=[x], outputs=[x], dims={"N": 1000})
    np.testing.assert_array_equal(y, x * 2)


def test_block_reduction_with_shuffles_and_shared_memory() -> None:
    source = """
extern "C" __global__ void sum(double* y, double* x) {
  __shared__ double part[8];
  double s = x[blockIdx.x * 256 + threadIdx.x];
  for (int d = 16; d > 0; d /= 2) s += __shfl_down_sync(0xffffffffu, s, d);
  if (threadIdx.x % 32 == 0) part[threadIdx.x / 32] = s;
  __syncthreads();
  if (threadIdx.x < 32) {
    s = threadIdx.x < 8 ? part[threadIdx.x] : 0.0;
    for (int d = 4; d > 0; d /= 2) s += __shfl_xor_sync(0xffffffffu, s, d, 8);
    if (threadIdx.x == 0) y[blockIdx.x] = s;
  }
}
"""
    launch = Launch("sum", (3, 1, 1), (256, 1, 1), (Address("output"), Address("input")))
    x = RNG.integers(0, 1000, (3, 256)).astype(np.float64)
    (y,) = once(source, launch, inputs=[x], outputs=[np.empty(3)])
    np.testing.assert_array_equal(y, x.sum(1))


def test_votes_and_short_warps() -> None:
    source = """
extern "C" __global__ void vote(int* y, int* x) {
  unsigned m = __ballot_sync(0xffffffffu, x[threadIdx.x] > 0);
  int some = __any_sync(0xffffffffu, x[threadIdx.x] > 5), all = __all_sync(0xffffffffu, x[threadIdx.x] > -9);
  y[threadIdx.x] = __popc(m) + 100 * some + 1000 * all;
}
"""
    x = np.array([*range(-4, 36)], np.int32)
    launch = Launch("vote", (1, 1, 1), (40, 1, 1), (Address("output"), Address("input")))
    (y,) = once(source, launch, inputs=[x], outputs=[x])
    np.testing.assert_array_equal(y, [1000 + 100 + 27] * 32 + [1000 + 100 + 8] * 8)


@pytest.mark.parametrize(("name", "dtype"), [("half", "float16"), ("nv_bfloat16", "bfloat16")])
def test_sixteen_bit_types_round_as_numpy_does(name: str, dtype: str) -> None:
    source = f"""
#include <cuda_fp16.h>
#include <cuda_bf16.h>
extern "C" __global__ void convert({name}* y, float* z, float* x) {{
  y[threadIdx.x] = ({name})x[blockIdx.x * blockDim.x + threadIdx.x];
  z[threadIdx.x] = (float)(y[threadIdx.x] * y[threadIdx.x] + {name}(1.0f));
}}
"""
    special = [0.0, -0.0, 65504, 65519, 65520, 1e6, -np.inf, 6e-8, 2.9e-8, 3e-8, 6.1e-5, 1e-40]
    x = np.concatenate([special, RNG.standard_normal(500), RNG.standard_normal(512) * 1e-6])
    x = x.astype(np.float32)
    kind = np.dtype(ml_dtypes.bfloat16) if dtype == "bfloat16" else np.dtype(dtype)
    arguments = (Address("output"), Address("output", 1), Address("input"))
    launch = Launch("convert", (1, 1, 1), (x.size, 1, 1), arguments)
    with np.errstate(over="ignore", invalid="ignore"):
        expected = x.astype(kind)
        y, z = once(source, launch, inputs=[x], outputs=[expected, x])
        np.testing.assert_array_equal(y.view(np.uint16), expected.view(np.uint16))
        np.testing.assert_array_equal(z, (expected * expected + kind.type(1)).astype(np.float32))


MMA = """
#include <cuda_fp16.h>
#include <cuda_bf16.h>
// c (m x n, f32) = a (m x k) b^T (n x k), one warp, through shared memory
extern "C" __global__ void gemm(float* c, TYPE* a, TYPE* b) {
  __shared__ alignas(16) TYPE sa[16 * 24];
  extern __shared__ TYPE sb[];
  for (int i = threadIdx.x; i < 32; i += 32) {
    graphc_cp_async_16(sa + i / 2 * 24 + i % 2 * 8, a + i * 8, 16);
    if (i < 16) graphc_cp_async_16(sb + i * 8, b + i * 8, 16);
  }
  graphc_cp_async_commit();
  WAIT
  __syncthreads();
  uint32_t ra[4], rb[2];
  float d[4] = {0, 0, 0, 0};
  int lane = threadIdx.x;
  graphc_ldmatrix_x4(ra, sa + lane % 16 * 24 + lane / 16 * 8);
  graphc_ldmatrix_x2(rb, sb + lane % 8 * 16 + lane / 8 % 2 * 8);
  graphc_mma_NAME_m16n8k16(d, ra, rb);
  for (int i = 0; i < 4; i++) c[(lane / 4 + i / 2 * 8) * 8 + lane % 4 * 2 + i % 2] = d[i];
}
"""
MMA_LAUNCH = Launch(
    "gemm",
    (1, 1, 1),
    (32, 1, 1),
    (Address("output"), Address("input"), Address("input", 1)),
    shared_bytes=256,
)


@pytest.mark.parametrize(
    ("ctype", "name", "dtype"),
    [("half", "f16", np.float16), ("nv_bfloat16", "bf16", ml_dtypes.bfloat16)],
)
def test_tensor_core_product(ctype: str, name: str, dtype: type) -> None:
    source = MMA.replace("TYPE", ctype).replace("NAME", name)
    a, b = RNG.standard_normal((16, 16)).astype(dtype), RNG.standard_normal((8, 16)).astype(dtype)
    source = source.replace("WAIT", "graphc_cp_async_wait_0();")
    (c,) = once(source, MMA_LAUNCH, inputs=[a, b], outputs=[np.empty((16, 8), np.float32)])
    expected = a.astype(np.float64) @ b.astype(np.float64).T
    np.testing.assert_allclose(c, expected, rtol=1e-5, atol=1e-5)


def test_a_copy_that_nobody_waits_for_is_not_there() -> None:
    source = MMA.replace("TYPE", "half").replace("NAME", "f16").replace("WAIT", "")
    a, b = np.ones((16, 16), np.float16), np.ones((8, 16), np.float16)
    (c,) = once(source, MMA_LAUNCH, inputs=[a, b], outputs=[np.empty((16, 8), np.float32)])
    assert np.isnan(c).all()


def test_tf32_product() -> None:
    source = """
extern "C" __global__ void gemm(float* c, float* a, float* b) {
  uint32_t ra[4], rb[2];
  float d[4] = {0, 0, 0, 0};
  int g = threadIdx.x / 4, m = threadIdx.x % 4;
  for (int i = 0; i < 4; i++) ra[i] = graphc_to_tf32(a[(g + i % 2 * 8) * 8 + m + i / 2 * 4]);
  for (int i = 0; i < 2; i++) rb[i] = graphc_to_tf32(b[(m + i * 4) * 8 + g]);
  graphc_mma_tf32_m16n8k8(d, ra, rb);
  for (int i = 0; i < 4; i++) c[(g + i / 2 * 8) * 8 + m * 2 + i % 2] = d[i];
}
"""
    a, b = RNG.standard_normal((16, 8), np.float32), RNG.standard_normal((8, 8), np.float32)
    arguments = (Address("output"), Address("input"), Address("input", 1))
    launch = Launch("gemm", (1, 1, 1), (32, 1, 1), arguments)
    (c,) = once(source, launch, inputs=[a, b], outputs=[np.empty((16, 8), np.float32)])
    np.testing.assert_allclose(c, a @ b, rtol=2e-3, atol=2e-3)
    assert not np.allclose(c, a @ b, rtol=1e-6, atol=1e-6)  # it is tf32


def test_loops_give_their_variable_to_addresses() -> None:
    source = """
extern "C" __global__ void add(float* y, float* x, float* before, int64_t t) {
  y[threadIdx.x] = x[threadIdx.x] + (t ? before[threadIdx.x] : 0.0f);
}
"""
    t, steps = Dim.symbol("t"), 5
    y = Address("output", 0, t * 16)
    arguments = (y, Address("input", 0, t * 16), Address("output", 0, t * 16 - 16), t)
    body = (Launch("add", (1, 1, 1), (4, 1, 1), arguments),)
    program = DeviceProgram(source, ((Loop("t", steps, body),),))
    x = RNG.integers(0, 9, (steps, 4)).astype(np.float32)
    _, (result,), _ = run(program, inputs=[x], outputs=[x])
    np.testing.assert_array_equal(result, x.cumsum(0))


MISTAKES = {
    "reads behind the end of an input": (
        "y[threadIdx.x] = x[threadIdx.x + 1];",
        r"kernel k, block \(0, 0, 0\), thread \(31, 0, 0\): an invalid address",
    ),
    "writes behind the end of an output": (
        "y[threadIdx.x * 2] = 0;",
        "an invalid address",
    ),
    "lanes that wait for those at a barrier": (
        "if (threadIdx.x < 7) __syncthreads(); else __syncwarp(); y[threadIdx.x] = 0;",
        "threads wait for each other for ever: .* at __syncthreads; .* at __syncwarp; 0 have ended",
    ),
    "an index behind a local array": (
        "float a[4]; a[0] = 1; y[threadIdx.x] = a[(int)x[0] + 4];",
        "out of bounds",
    ),
    "a vector access that is not aligned": (
        "float2 v = *(float2*)(x + 1); y[0] = v.x;",
        "misaligned",
    ),
    "dynamic shared memory that nobody asked for": (
        "extern __shared__ float d[]; d[40] = 1; y[0] = d[40];",
        "an invalid address",
    ),
    "a shuffle among lanes that have ended": (
        "if (threadIdx.x < 4) return; y[threadIdx.x] = __shfl_sync(0xffffffffu, x[threadIdx.x], 5);",
        "lane . of the mask ffffffff has ended",
    ),
    "an integer division by zero": ("y[0] = 7 / (int)(x[0] * 0);", "division by zero"),
}


@pytest.mark.parametrize("body", MISTAKES)
def test_mistakes_are_caught(body: str) -> None:
    text, message = MISTAKES[body]
    source = f'extern "C" __global__ void k(float* y, float* x) {{ {text} }}'
    launch = Launch("k", (1, 1, 1), (32, 1, 1), (Address("output"), Address("input")))
    x = np.zeros(32, np.float32)
    with pytest.raises(EmulatorError, match=message):
        run(DeviceProgram(source, ((launch,),)), inputs=[x], outputs=[x])
    fine = source.replace(text, "y[threadIdx.x] = x[threadIdx.x];")  # and it goes on afterwards
    _, (y,), _ = run(DeviceProgram(fine, ((launch,),)), inputs=[x], outputs=[x])
    np.testing.assert_array_equal(y, x)


def test_a_missing_barrier_gives_another_result_in_reverse() -> None:
    source = """
extern "C" __global__ void turn(float* y, float* x) {
  __shared__ float s[32];
  s[threadIdx.x] = x[threadIdx.x];
  y[threadIdx.x] = s[31 - threadIdx.x];
}
"""
    launch = Launch("turn", (1, 1, 1), (32, 1, 1), (Address("output"), Address("input")))
    x = RNG.standard_normal(32, np.float32)
    program = DeviceProgram(source, ((launch,),))
    _, (forward,), _ = run(program, inputs=[x], outputs=[x])
    _, (backward,), _ = run(program, inputs=[x], outputs=[x], reverse=True)
    assert not np.array_equal(forward, backward)


def test_wrong_argument_lists_are_caught() -> None:
    source = 'extern "C" __global__ void k(float* y, int n) { y[0] = n; }'
    launch = Launch("k", (1, 1, 1), (1, 1, 1), (Address("output"), 3))
    with pytest.raises(
        EmulatorError, match=r"takes arguments of \[8, 4\] bytes, given are \[8, 8\]"
    ):
        run(DeviceProgram(source, ((launch,),)), outputs=[np.zeros(1, np.float32)])
