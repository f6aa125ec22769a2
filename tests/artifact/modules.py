"""Small modules whose kernels are written in C, so that these tests need no code generator."""

from __future__ import annotations

import functools
import subprocess
import tempfile
from pathlib import Path

import numpy as np

from graphc.artifact.spec import (
    DimSpec,
    FaultInfo,
    KernelInfo,
    ModuleSpec,
    OpSource,
    Port,
    WeightSpec,
)
from graphc.ir.dim import Dim

N, T, H = (Dim.symbol(name) for name in "NTH")


@functools.cache
def compile_object(source: str, *flags: str) -> bytes:
    """An ELF object of C text."""
    with tempfile.TemporaryDirectory() as folder:
        Path(folder, "k.c").write_text(source)
        command = ["cc", "-O1", "-fPIC", "-fno-ident", *flags, "-c", "k.c"]
        subprocess.run(command, cwd=folder, check=True)
        return Path(folder, "k.o").read_bytes()


PARALLEL = """
#include <stdint.h>
#include <stddef.h>
typedef struct { void *sync; int32_t num_task; } env_t;
int (*__TVMBackendParallelLaunch)(int (*)(int, env_t *, void *), void *, int) __attribute__((weak));
static uint64_t ticks(void) { return __builtin_ia32_rdtsc(); }
"""

LINEAR = (
    PARALLEL
    + """
typedef struct { const float *x, *w, *b; float *y; int64_t n; } job_t;
static int rows(int task, env_t *env, void *data) {
    job_t *j = data;
    for (int64_t i = task; i < j->n; i += env->num_task)
        for (int o = 0; o < 3; o++) {
            float sum = j->b[o];
            for (int k = 0; k < 4; k++) sum += j->x[i * 4 + k] * j->w[o * 4 + k];
            j->y[i * 3 + o] = sum;
        }
    return 0;
}
int32_t graphc_main(const float *x, const char *weights, float *arena, float *y, int64_t n,
                    int64_t *fault, uint64_t *clock) {
    if (clock) clock[0] = ticks();
    job_t j = {x, (const float *)weights, (const float *)(weights + 64), arena, n};
    int status = __TVMBackendParallelLaunch(rows, &j, 0);
    if (clock) clock[1] = ticks();
    for (int64_t i = 0; i < n * 3; i++) y[i] = arena[i] <= 0 ? 0 : arena[i];
    if (clock) clock[2] = ticks();
    return status;
}
"""
)

WEIGHT = (np.arange(12, dtype=np.float32).reshape(3, 4) - 5) / 8
BIAS = np.array([0.5, -0.25, 1.0], np.float32)


def linear_spec(**changes: object) -> ModuleSpec:
    """relu(x @ weight.T + bias) for any number of rows."""
    fields: dict[str, object] = {
        "name": "Linear",
        "inputs": (Port("x", "f32", (N, 4)),),
        "outputs": (Port("y", "f32", (N, 3)),),
        "dims": (DimSpec("N", 1, 1 << 20),),
        "weights": (WeightSpec("fc.weight", WEIGHT, 0), WeightSpec("fc.bias", BIAS, 64)),
        "arena_bytes": N * 12,
        "kernels": (
            KernelInfo("k0", "fc", "linear.nn:3:5", "dot_general", N * 24, N * 28 + 60),
            KernelInfo("k1", "relu", "linear.nn:3:20", "relu", N * 3, N * 24),
        ),
        "graph_text": "graph Linear {}\n",
        "ops": (OpSource("1", "dot_general", "fc", "linear.nn:3:5", "k0"),),
    }
    return ModuleSpec(**{**fields, **changes})  # type: ignore[arg-type]


def linear(x: np.ndarray) -> np.ndarray:
    """What the Linear module computes."""
    return np.maximum(x @ WEIGHT.T + BIAS, 0)


LOOKUP = """
#include <stdint.h>
int32_t graphc_main(const int64_t *index, const float *table, void *arena, float *y, int64_t n,
                    int64_t *fault, uint64_t *clock) {
    for (int64_t i = 0; i < n; i++) {
        int64_t at = index[i];
        if (at < 0 || at >= 5) {
            if (!fault[0]) { fault[1] = at; fault[2] = i; fault[3] = 5; fault[0] = 1; }
            at = 0;
        }
        y[i] = table[at];
    }
    if (clock) clock[0] = clock[1] = 0;
    return 0;
}
"""


def lookup_spec() -> ModuleSpec:
    """y = table[index], with a fault for indices out of range."""
    return ModuleSpec(
        "Lookup",
        (Port("index", "i64", (N,)),),
        (Port("y", "f32", (N,)),),
        dims=(DimSpec("N", 0),),
        weights=(WeightSpec("wte", np.arange(5, dtype=np.float32) * 10, 0),),
        kernels=(KernelInfo("take"),),
        faults=(
            FaultInfo("index {value} is out of range for `wte` with {limit} rows (gpt2.nn:12:5)"),
        ),
    )


def copy_source(*dtypes: str, dims: int = 0) -> str:
    """A program that copies input i to output i; sizes are hidden behind `dims` int64 arguments."""
    n = len(dtypes)
    arguments = [f"const {t} *in{i}" for i, t in enumerate(dtypes)]
    arguments += ["const void *weights", "void *arena"]
    arguments += [f"{t} *out{i}" for i, t in enumerate(dtypes)]
    arguments += [f"int64_t d{i}" for i in range(dims)]
    body = "".join(f"for (int64_t i = 0; i < d0; i++) out{k}[i] = in{k}[i];" for k in range(n))
    return (
        "#include <stdint.h>\n#include <stdbool.h>\n"
        f"int32_t graphc_main({', '.join(arguments)}, int64_t *fault, uint64_t *clock)"
        f"{{ {body} return 0; }}\n"
    )
