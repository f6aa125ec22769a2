"""Small device programs written by hand, so that these tests need no code generator."""

import numpy as np

from graphc.artifact.device import Address, DeviceProgram, Launch, Loop
from graphc.artifact.spec import DimSpec, FaultInfo, KernelInfo, ModuleSpec, Port, WeightSpec
from graphc.ir.dim import Dim

N = Dim.symbol("N")

LINEAR = """\
extern "C" __global__ void __launch_bounds__(64) linear(
    float* y, const float* x, const float* w, const float* b, int64_t n) {
  int64_t i = (int64_t)blockIdx.x * 64 + threadIdx.x;
  if (i >= n * 3) return;
  float sum = b[i % 3];
  for (int k = 0; k < 4; k++) sum += x[i / 3 * 4 + k] * w[i % 3 * 4 + k];
  y[i] = sum;
}
extern "C" __global__ void __launch_bounds__(64) relu(float* y, const float* x, int64_t n) {
  int64_t i = (int64_t)blockIdx.x * 64 + threadIdx.x;
  if (i < n) y[i] = x[i] <= 0.0f ? 0.0f : x[i];
}
"""
WEIGHT = (np.arange(12, dtype=np.float32).reshape(3, 4) - 5) / 8
BIAS = np.array([0.5, -0.25, 1.0], np.float32)


def linear_spec(**changes: object) -> ModuleSpec:
    """relu(x @ weight.T + bias) for any number of rows."""
    fields: dict[str, object] = {
        "name": "Linear",
        "inputs": (Port("x", "f32", (N, 4)),),
        "outputs": (Port("y", "f32", (N, 3)),),
        "dims": (DimSpec("N", 0),),
        "weights": (WeightSpec("weight", WEIGHT, 0), WeightSpec("bias", BIAS, 64)),
        "arena_bytes": N * 12,
        "kernels": (
            KernelInfo("linear", "linear", "l.nn:1:1", "dot", N * 24, N * 28),
            KernelInfo("relu", "relu", "l.nn:2:1", "map", N * 3, N * 24),
        ),
        "target": "cuda:sm_90",
        "graph_text": "graph\n",
    }
    fields.update(changes)
    return ModuleSpec(**fields)  # type: ignore[arg-type]


def linear_program() -> DeviceProgram:
    blocks = ((N * 3 + 63) // 64, 1, 1)
    weights = (Address("weight", 0), Address("weight", 1))
    first = (Address("arena"), Address("input"), *weights, N)
    second = (Address("output"), Address("arena"), N * 3)
    return DeviceProgram(
        LINEAR,
        (
            (Launch("linear", blocks, (64, 1, 1), first),),
            (Launch("relu", blocks, (64, 1, 1), second),),
        ),
    )


def linear(x: np.ndarray) -> np.ndarray:
    """What it computes."""
    return np.maximum(x @ WEIGHT.T + BIAS, 0)


TAKE = """\
extern "C" __global__ void take(
    float* y, const float* table, const int64_t* index, unsigned long long* fault, int64_t id) {
  int64_t i = index[threadIdx.x];
  if (i < 0 || i >= 5) {
    if (atomicCAS(&fault[0], 0ull, (unsigned long long)(id + 1)) == 0) {
      fault[1] = i; fault[2] = threadIdx.x; fault[3] = 5;
    }
    i = i < 0 ? 0 : 4;
  }
  y[threadIdx.x] = table[i];
}
"""


def take() -> tuple[ModuleSpec, DeviceProgram]:
    """Rows of a table; an index out of range is fault 1."""
    spec = ModuleSpec(
        name="Take",
        inputs=(Port("table", "f32", (5,)), Port("index", "i64", (3,))),
        outputs=(Port("y", "f32", (3,)),),
        kernels=(KernelInfo("take"),),
        faults=(FaultInfo("none"), FaultInfo("index {value} at {position}, limit {limit}")),
        target="cuda",
    )
    places = (Address("output"), Address("input", 0), Address("input", 1), Address("fault"), 1)
    return spec, DeviceProgram(TAKE, ((Launch("take", (1, 1, 1), (3, 1, 1), places),),))


SUMS = """\
extern "C" __global__ void step(float* total, const float* x, float* seen) {
  total[threadIdx.x] += x[threadIdx.x];
  seen[threadIdx.x] = total[threadIdx.x];
}
"""


def sums() -> tuple[ModuleSpec, DeviceProgram]:
    """A state that adds up rows, in a loop over them, and what it was after each."""
    t = Dim.symbol("t")
    spec = ModuleSpec(
        name="Sums",
        inputs=(Port("x", "f32", (N, 8)), Port("total", "f32", (8,), state=True)),
        outputs=(Port("seen", "f32", (N, 8)),),
        dims=(DimSpec("N"),),
        weights=(WeightSpec("initial", np.arange(8, dtype=np.float32), 0),),
        initial={"total": "initial"},
        kernels=(KernelInfo("step"),),
        target="cuda",
    )
    places = (Address("input", 1), Address("input", 0, t * 32), Address("output", 0, t * 32))
    body = (Launch("step", (1, 1, 1), (8, 1, 1), places),)
    return spec, DeviceProgram(SUMS, ((Loop("t", N, body),),))
