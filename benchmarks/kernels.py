"""Single kernels against PyTorch, one thread each, alternating in one process; the best of many runs.

Usage: ``python -m benchmarks.kernels [--target native] [--rounds 15] [FAMILY ...]`` prints a Markdown
table per family (``matmul``, ``conv``, ``depthwise``, ``attention``). One thread, its processor time
and the best run are what a shared machine can still measure; ratios count, not the numbers.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch

from graphc.lowering.cpu import vmath
from graphc.lowering.cpu.build import compile_object
from graphc.lowering.cpu.emit import kernel
from graphc.lowering.cpu.families.attention.kernel import AttentionSpec, emit_attention
from graphc.lowering.cpu.families.convolution.depthwise import DepthwiseSpec, emit_depthwise
from graphc.lowering.cpu.families.convolution.direct import ConvSpec, choose_conv, emit_conv
from graphc.lowering.cpu.families.dense.matmul import (
    MatmulSpec,
    choose_matmul,
    emit_matmul,
    scratch_bytes,
)
from graphc.lowering.cpu.families.packing import pack_conv, pack_depthwise, pack_matmul
from graphc.lowering.cpu.features import CpuTarget, parse_target
from tests.lowering.cpu.harness import load

MATMUL = [
    ("BERT projection", 128, 768, 768),
    ("BERT up", 128, 3072, 768),
    ("BERT down", 128, 768, 3072),
    ("ResNet 56x56 reduce", 3136, 64, 256),
    ("ResNet 28x28 expand", 784, 512, 128),
    ("ResNet 14x14 reduce", 196, 256, 1024),
    ("ResNet 7x7 expand", 49, 2048, 512),
    ("classifier", 1, 1000, 2048),
    ("square", 512, 512, 512),
]
CONV = [
    ("ResNet stem", 224, 3, 64, 7, 2, 3),
    ("ResNet 56x56", 56, 64, 64, 3, 1, 1),
    ("ResNet 56x56 stride 2", 56, 128, 128, 3, 2, 1),
    ("ResNet 28x28", 28, 128, 128, 3, 1, 1),
    ("ResNet 14x14", 14, 256, 256, 3, 1, 1),
    ("ResNet 7x7", 7, 512, 512, 3, 1, 1),
    ("ResNet downsample", 56, 256, 512, 1, 2, 0),
    ("VGG 112x112", 112, 128, 128, 3, 1, 1),
    ("LeNet", 14, 6, 16, 5, 1, 0),
]
DEPTHWISE = [
    ("MobileNet 112x112", 112, 32, 3, 1),
    ("MobileNet 56x56", 56, 144, 3, 1),
    ("MobileNet 56x56 stride 2", 56, 144, 3, 2),
    ("MobileNet 14x14", 14, 576, 3, 1),
]
ATTENTION = [
    ("BERT 128", 12, 128, 64, False),
    ("GPT-2 128", 12, 128, 64, True),
    ("512", 12, 512, 64, False),
    ("causal 512", 12, 512, 64, True),
]
Contest = tuple[str, float, Callable[[], Any], Callable[[], Any]]


def ready(kern: Any, target: CpuTarget, *arrays: np.ndarray) -> Callable[[], None]:
    """Compiles and links a kernel; the result calls it on `arrays` with one thread."""
    folder = Path(tempfile.mkdtemp(prefix="kernels-"))
    name = str(kern.function.attrs["global_symbol"])
    call = load([compile_object({name: kern.function}, target)], name, folder)
    placed = [aligned(a) for a in arrays]
    return lambda: call(*placed, threads=1)


def aligned(array: np.ndarray) -> np.ndarray:
    """A copy that starts at a cache line, as weights and arenas of modules do."""
    room = np.empty(array.nbytes + 64, np.uint8)
    start = -room.ctypes.data % 64
    copy = room[start : start + array.nbytes].view(array.dtype).reshape(array.shape)
    copy[...] = array
    return copy


def random(*shape: int) -> np.ndarray:
    return np.random.default_rng(0).normal(size=shape).astype("float32")


def matmul(target: CpuTarget, label: str, m: int, n: int, k: int) -> Contest:
    spec = MatmulSpec(m, n, k)
    a, b, bias, c = random(m, k), random(k, n), random(n), random(m, n)
    packed = pack_matmul(b, choose_matmul(spec, target).nr)
    sums = np.zeros(int(scratch_bytes(spec, target)) // 4 + 1, "float32")
    names = ("a", "b", "bias", "c", "s")
    with kernel("dense", dict.fromkeys(names, "float32"), public=True) as kern:
        out, add = kern.view("c", (m, n)), kern.view("bias", (n,))
        emit_matmul(
            spec,
            target,
            kern.view("a", (m, k)),
            kern.view("b", packed.shape),
            lambda i, v, lanes: out.store(vmath.relu(v + add.load(i[1:], lanes)), i),
            scratch=kern.view("s", sums.shape),
        )
    ta, tb, tbias = (torch.tensor(t) for t in (a, np.ascontiguousarray(b.T), bias))
    peer = lambda: torch.relu_(torch.nn.functional.linear(ta, tb, tbias))  # noqa: E731
    return label, 2.0 * m * n * k, ready(kern, target, a, packed, bias, c, sums), peer


def conv(
    target: CpuTarget, label: str, size: int, ic: int, oc: int, k: int, stride: int, pad: int
) -> Contest:
    out = (size + 2 * pad - k) // stride + 1
    spec = ConvSpec(1, (out, out), ic, oc, (k, k), (stride, stride), (1, 1))
    packed = pack_conv(random(oc, ic, k, k), choose_conv(spec, target).nr)
    full = size + 2 * pad
    with kernel("conv", dict.fromkeys(("x", "w", "b", "y"), "float32"), public=True) as kern:
        y, add = kern.view("y", (1, out, out, oc)), kern.view("b", (oc,))
        emit_conv(
            spec,
            target,
            kern.view("x", (1, full, full, ic)),
            kern.view("w", packed.shape),
            lambda i, v, lanes: y.store(vmath.relu(v + add.load(i[-1:], lanes)), i),
        )
    arrays = random(1, full, full, ic), packed, random(oc), random(1, out, out, oc)
    layer = torch.nn.Conv2d(ic, oc, k, stride, pad).to(memory_format=torch.channels_last)
    x = torch.randn(1, ic, size, size).to(memory_format=torch.channels_last)
    peer = lambda: torch.relu_(layer(x))  # noqa: E731
    return label, float(spec.flops), ready(kern, target, *arrays), peer


def depthwise(
    target: CpuTarget, label: str, size: int, channels: int, k: int, stride: int
) -> Contest:
    out = (size + 2 - k) // stride + 1
    spec = DepthwiseSpec(1, (out, out), channels, (k, k), (stride, stride), (1, 1))
    full, packed = size + 2, pack_depthwise(random(channels, 1, k, k))
    with kernel("dw", dict.fromkeys(("x", "w", "b", "y"), "float32"), public=True) as kern:
        y, add = kern.view("y", (1, out, out, channels)), kern.view("b", (channels,))
        emit_depthwise(
            spec,
            target,
            kern.view("x", (1, full, full, channels)),
            kern.view("w", packed.shape),
            lambda i, v, lanes: y.store(vmath.relu(v + add.load(i[-1:], lanes)), i),
        )
    arrays = random(1, full, full, channels), packed, random(channels)
    result = random(1, out, out, channels)
    layer = torch.nn.Conv2d(channels, channels, k, stride, 1, groups=channels)
    layer = layer.to(memory_format=torch.channels_last)
    x = torch.randn(1, channels, size, size).to(memory_format=torch.channels_last)
    peer = lambda: torch.relu_(layer(x))  # noqa: E731
    return label, float(spec.flops), ready(kern, target, *arrays, result), peer


def attention(
    target: CpuTarget, label: str, heads: int, tokens: int, depth: int, causal: bool
) -> Contest:
    spec = AttentionSpec((1, heads), tokens, tokens, depth, depth, depth**-0.5, causal)
    shape = (1, tokens, heads, depth)  # as projections make them
    steps = (tokens * heads * depth, depth, heads * depth, 1)
    q, k, v, c = (random(*shape) for _ in range(4))
    with kernel("attend", dict.fromkeys(("q", "k", "v", "c"), "float32"), public=True) as kern:
        views = [kern.view(name, shape, strides=steps) for name in ("q", "k", "v", "c")]
        out = views[3]
        emit_attention(spec, target, *views[:3], None, lambda i, x, _: out.store(x, i))
    turned = [torch.tensor(x).transpose(1, 2) for x in (q, k, v)]
    attend = torch.nn.functional.scaled_dot_product_attention
    peer = lambda: attend(*turned, is_causal=causal)  # noqa: E731
    flops = float(spec.flops) * (0.5 if causal else 1.0)
    return label, flops, ready(kern, target, q, k, v, c), peer


def best(contest: Contest, rounds: int) -> tuple[float, float]:
    """The least processor time of ours and of PyTorch's, alternating in blocks of about 5 ms."""
    times: list[list[float]] = [[], []]
    for r in range(rounds + 1):
        for side, run in zip(times, contest[2:], strict=True):
            number = max(1, int(0.005 / min(side))) if side else 1
            start = time.process_time()
            for _ in range(number):
                run()
            side.append((time.process_time() - start) / number)
        if r == 0:
            times = [[t[0]] for t in times]
    return min(times[0]), min(times[1])


FAMILIES: dict[str, tuple[Callable[..., Contest], list[Any]]] = {
    "matmul": (matmul, MATMUL),
    "conv": (conv, CONV),
    "depthwise": (depthwise, DEPTHWISE),
    "attention": (attention, ATTENTION),
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("families", nargs="*", metavar="FAMILY", help=", ".join(FAMILIES))
    parser.add_argument("--target", default="native")
    parser.add_argument("--rounds", type=int, default=15)
    options = parser.parse_args()
    torch.set_num_threads(1)
    torch.set_grad_enabled(False)
    target = parse_target(options.target)
    for family in options.families or FAMILIES:
        if family not in FAMILIES:
            parser.error(f"no family {family!r}; there are {', '.join(FAMILIES)}")
        make, shapes = FAMILIES[family]
        print(f"| {family} | shape | GFLOP/s | torch | ratio |\n| --- | --- | --- | --- | --- |")
        for label, *shape in shapes:
            contest = make(target, label, *shape)
            ours, peer = best(contest, options.rounds)
            flops = contest[1] / 1e9
            text = " ".join(str(s) for s in shape)
            print(
                f"| {label} | {text} | {flops / ours:.0f} | {flops / peer:.0f} | {peer / ours:.2f} |",
                flush=True,
            )
        print()


if __name__ == "__main__":
    main()
