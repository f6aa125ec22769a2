"""Compiles one public kernel, links it with a small launcher and calls it on NumPy arrays."""

from __future__ import annotations

import ctypes
import subprocess
import tempfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from graphc.lowering.cpu.build import compile_object
from graphc.lowering.cpu.features import CpuTarget, detect_host, parse_target

# Runs the tasks of a parallel region on short-lived threads, or one after the other when
# `tasks` is 1; what the real runtime does with a pool.
_LAUNCHER = r"""
#include <pthread.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
typedef struct { void *sync; int32_t num_task; } Env;
typedef int (*Body)(int, Env *, void *);
typedef struct { Body body; void *data; int id; Env env; int rc; } Task;
extern int (*__TVMBackendParallelLaunch)(Body, void *, int) __attribute__((weak));
static int tasks = 3;
static void *run(void *p) { Task *t = p; t->rc = t->body(t->id, &t->env, t->data); return 0; }
static int launch(Body body, void *data, int wanted) {
  pthread_t threads[16]; Task all[16]; int rc = 0;
  (void)wanted;
  for (int i = 0; i < tasks; i++) {
    all[i] = (Task){body, data, i, {0, tasks}, 0};
    if (i) pthread_create(&threads[i], 0, run, &all[i]);
  }
  run(&all[0]);
  for (int i = 0; i < tasks; i++) { if (i) pthread_join(threads[i], 0); rc |= all[i].rc; }
  return rc;
}
/* Workspace full of NaN, with room to notice what is written behind its end. */
enum { GUARD = 256 };
extern void *(*__TVMBackendAllocWorkspace)(int, int, uint64_t, int, int) __attribute__((weak));
extern int (*__TVMBackendFreeWorkspace)(int, int, void *) __attribute__((weak));
static void *room(int device, int id, uint64_t bytes, int code, int bits) {
  uint64_t whole = (bytes + 63) / 64 * 64;
  unsigned char *p = aligned_alloc(64, whole + 64 + GUARD);
  (void)device, (void)id, (void)code, (void)bits;
  memset(p, 0xff, whole + 64 + GUARD);
  memcpy(p, &whole, sizeof whole);
  return p + 64;
}
static int leave(int device, int id, void *memory) {
  unsigned char *p = (unsigned char *)memory - 64;
  uint64_t whole;
  (void)device, (void)id;
  memcpy(&whole, p, sizeof whole);
  for (int i = 0; i < GUARD; i++) if (p[64 + whole + i] != 0xff) abort();
  free(p);
  return 0;
}
int64_t graphc_tasks(void) { return tasks; }
void harness_threads(int n) { tasks = n < 1 ? 1 : n > 16 ? 16 : n; }
void harness_init(void) {
  if (&__TVMBackendParallelLaunch) __TVMBackendParallelLaunch = launch;
  if (&__TVMBackendAllocWorkspace) __TVMBackendAllocWorkspace = room;
  if (&__TVMBackendFreeWorkspace) __TVMBackendFreeWorkspace = leave;
}
"""

HOST_FLAGS = detect_host()
TARGETS = [parse_target(level) for level in ("x86-64-v2", "x86-64-v3", "x86-64-v4")]


def can_run(target: CpuTarget) -> bool:
    """Whether this machine has what `target` needs."""
    return not target.supported_by(HOST_FLAGS)


def target_id(target: CpuTarget) -> str:
    """A test id that says when results could only be compiled, not compared, on this machine."""
    return target.name if can_run(target) else f"{target.name}(compile-only-on-this-machine)"


def load(objects: Sequence[bytes], name: str, folder: Path) -> Callable[..., None]:
    """Links objects with the launcher in `folder` and returns the C function `name`.

    It takes arrays as pointers and ints as int64; the number of tasks of a parallel region is
    keyword `threads`.
    """
    (folder / "launch.c").write_text(_LAUNCHER)
    files = []
    for i, code in enumerate(objects):
        files.append(f"part{i}.o")
        (folder / files[-1]).write_bytes(code)
    command = ["cc", "-O1", "-shared", "-fPIC", "-Wl,-z,defs", "-o", "kernel.so", "launch.c"]
    subprocess.run([*command, *files, "-lpthread"], cwd=folder, check=True, timeout=120)
    library = ctypes.CDLL(str(folder / "kernel.so"))
    library.harness_init()
    function = getattr(library, name)

    def call(*arguments: np.ndarray | int, threads: int = 3) -> None:
        library.harness_threads(threads)
        converted = [
            ctypes.c_int64(a) if isinstance(a, int) else ctypes.c_void_p(a.ctypes.data)
            for a in arguments
        ]
        assert function(*converted) == 0

    return call


class Library:
    """A loaded kernel; calling it passes arrays as pointers and ints as int64."""

    def __init__(self, functions: Mapping[str, Any], name: str, target: CpuTarget) -> None:
        self.target = target
        self.object = compile_object(functions, target)
        self._call: Callable[..., None] | None = None
        if not can_run(target):
            return
        self._folder = tempfile.TemporaryDirectory()
        self._call = load([self.object], name, Path(self._folder.name))

    @property
    def runnable(self) -> bool:
        """Whether calls are possible on this machine."""
        return self._call is not None

    def __call__(self, *arguments: np.ndarray | int, threads: int = 3) -> None:
        """Runs the kernel."""
        assert self._call is not None
        self._call(*arguments, threads=threads)


def build(kernel: Any, target: CpuTarget) -> Library:
    """Compiles a kernel made by ``with kernel(name, ..., public=True) as k``."""
    name = str(kernel.function.attrs["global_symbol"])
    return Library({name: kernel.function}, name, target)


def guarded(shape: tuple[int, ...], dtype: str = "float32") -> tuple[np.ndarray, Any]:
    """A misaligned NaN-filled array between canaries (NaN too), and a check that they survived."""
    kind = np.dtype(dtype)
    size = int(np.prod(shape)) if shape else 1
    pad = 64
    raw = np.full((size + 2 * pad) * kind.itemsize + 64, 0xFF, np.uint8)
    # One element past a 64-byte boundary: aligned for the element and for nothing wider.
    start = (-raw.ctypes.data) % 64 + kind.itemsize
    whole = raw[start : start + (size + 2 * pad) * kind.itemsize].view(kind)
    canary = whole.copy()
    array = whole[pad : pad + size].reshape(shape)
    if kind.kind == "f":
        array[...] = np.nan

    def intact() -> bool:
        before = np.array_equal(whole[:pad].view(np.uint8), canary[:pad].view(np.uint8))
        after = np.array_equal(whole[-pad:].view(np.uint8), canary[-pad:].view(np.uint8))
        return bool(before and after)

    return array, intact


def misaligned(values: np.ndarray) -> np.ndarray:
    """A copy that starts one element past a 64-byte boundary."""
    array, _ = guarded(values.shape, str(values.dtype))
    array[...] = values
    return array
