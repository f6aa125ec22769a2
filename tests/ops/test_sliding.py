"""Convolution, pooling and resizing against PyTorch."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import assume, given
from hypothesis import strategies as st

from graphc import ops as o
from graphc.ir.dim import Dim
from graphc.ir.dtype import DType
from graphc.ir.op import Array, Op, OpError
from graphc.ir.types import TensorType
from graphc.ops.sliding import relayout
from tests.ops.torch_oracle import agree, quick, tensor

F = torch.nn.functional
N, H = Dim.symbol("N"), Dim.symbol("H")


def normal(draw: Any, shape: list[int], dtype: type = np.float32) -> Array:
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    return np.asarray(rng.normal(size=shape)).astype(dtype)


def last(x: Array) -> Array:
    return np.ascontiguousarray(np.moveaxis(x, 1, -1))


def each(draw: Any, rank: int, low: int, high: int) -> tuple[int, ...]:
    return tuple(draw(st.integers(low, high)) for _ in range(rank))


@given(st.data())
@quick
def test_convolution(data: st.DataObject) -> None:
    draw = data.draw
    rank, groups = draw(st.integers(1, 3)), draw(st.sampled_from([1, 1, 2, 3]))
    inner, outer = draw(st.integers(1, 3)), draw(st.integers(1, 2))
    kernel, strides, dilation = (each(draw, rank, 1, 3) for _ in range(3))
    pads = each(draw, rank, 0, 2)
    reach = [(k - 1) * d + 1 for k, d in zip(kernel, dilation, strict=True)]
    room = [max(1, r - 2 * p) for r, p in zip(reach, pads, strict=True)]
    sizes = [r + draw(st.integers(0, 4)) for r in room]
    x = normal(draw, [draw(st.integers(1, 2)), groups * inner, *sizes])
    w = normal(draw, [groups * outer, inner, *kernel])
    convolve = (F.conv1d, F.conv2d, F.conv3d)[rank - 1]
    expected = convolve(
        tensor(x), tensor(w), stride=strides, padding=pads, dilation=dilation, groups=groups
    )
    padding = tuple((p, p) for p in pads)
    op = o.ConvGeneral(strides, padding, (1,) * rank, dilation, groups)
    agree(op, [x, w], expected, scale=3)
    assert op == o.ConvGeneral.simple(
        rank, strides=strides, padding=padding, dilation=dilation, groups=groups
    )
    (y,) = o.ConvGeneral(strides, padding, (1,) * rank, dilation, groups, True).evaluate(last(x), w)
    np.testing.assert_allclose(np.moveaxis(y, -1, 1), expected.numpy(), rtol=3e-5, atol=3e-5)


@given(st.data())
@quick
def test_transposed_convolution_is_a_dilated_one_of_the_flipped_weight(data: st.DataObject) -> None:
    draw = data.draw
    rank, groups = draw(st.integers(1, 2)), draw(st.integers(1, 2))
    inner, outer = draw(st.integers(1, 2)), draw(st.integers(1, 2))
    kernel, strides, dilation = (each(draw, rank, 1, 3) for _ in range(3))
    reach = [(k - 1) * d for k, d in zip(kernel, dilation, strict=True)]
    pads = tuple(draw(st.integers(0, 2)) for _ in range(rank))
    extra = tuple(
        draw(st.integers(0, max(s, d) - 1)) for s, d in zip(strides, dilation, strict=True)
    )
    sizes = each(draw, rank, 1, 4)
    rows = zip(sizes, strides, pads, reach, extra, strict=True)
    assume(all((n - 1) * s - 2 * p + r + e + 1 >= 1 for n, s, p, r, e in rows))
    x = normal(draw, [2, groups * inner, *sizes])
    w = normal(draw, [groups * inner, outer, *kernel])
    function = (F.conv_transpose1d, F.conv_transpose2d)[rank - 1]
    expected = function(
        tensor(x),
        tensor(w),
        stride=strides,
        padding=pads,
        output_padding=extra,
        groups=groups,
        dilation=dilation,
    )
    flipped = np.flip(w.reshape(groups, inner, outer, *kernel).swapaxes(1, 2), range(3, 3 + rank))
    weight = np.ascontiguousarray(flipped.reshape(groups * outer, inner, *kernel))
    padding = tuple((r - p, r - p + e) for r, p, e in zip(reach, pads, extra, strict=True))
    op = o.ConvGeneral((1,) * rank, padding, strides, dilation, groups)
    agree(op, [x, weight], expected, scale=3)


@given(st.data())
@quick
def test_pooling(data: st.DataObject) -> None:
    draw = data.draw
    rank = draw(st.integers(1, 3))
    window, strides, dilation = (each(draw, rank, 1, 3) for _ in range(3))
    pads = tuple(draw(st.integers(0, w // 2)) for w in window)
    sizes = [
        (w - 1) * d + 1 + draw(st.integers(0, 4)) for w, d in zip(window, dilation, strict=True)
    ]
    x = normal(draw, [2, 3, *sizes])
    if draw(st.booleans()):
        x.reshape(-1)[::7] = np.nan
    padding = tuple((p, p) for p in pads)
    largest = (F.max_pool1d, F.max_pool2d, F.max_pool3d)[rank - 1]
    expected = largest(tensor(x), window, strides, pads, dilation)
    agree(o.MaxPool(window, strides, padding, dilation), [x], expected)
    (y,) = o.MaxPool(window, strides, padding, dilation, True).evaluate(last(x))
    np.testing.assert_array_equal(np.moveaxis(y, -1, 1), expected.numpy())

    counted = draw(st.booleans())
    divisor = draw(st.sampled_from([None, 1, 5])) if rank > 1 else None
    average = (F.avg_pool1d, F.avg_pool2d, F.avg_pool3d)[rank - 1]
    extra = {} if rank == 1 else {"divisor_override": divisor}
    means = average(tensor(x), window, strides, pads, False, counted, **extra)
    op = o.AvgPool(window, strides, padding, (1,) * rank, False, counted, divisor)
    agree(op, [x], means)
    scale = np.float32(divisor or np.prod(window))
    if counted or divisor:
        sums = o.WindowSum(window, strides, padding, (1,) * rank)
        agree(sums, [x], means * float(scale), scale=3)


@given(st.integers(1, 7), st.integers(1, 7), st.integers(1, 13), st.integers(1, 13))
@quick
def test_resize(h: int, w: int, out_h: int, out_w: int) -> None:
    x = np.random.default_rng(h * 100 + w).normal(
        size=(2, 3, h, w)
    )  # f64: torch's scales then are too
    for corners in (False, True):
        expected = F.interpolate(tensor(x), (out_h, out_w), mode="bilinear", align_corners=corners)
        agree(o.Resize((out_h, out_w), "bilinear", corners), [x], expected, scale=10)
        (y,) = o.Resize((out_h, out_w), "bilinear", corners, True).evaluate(last(x))
        np.testing.assert_allclose(np.moveaxis(y, -1, 1), expected.numpy(), rtol=1e-9, atol=1e-9)
    (y,) = o.Resize((out_h, out_w)).evaluate(x)
    rows = [i * h // out_h for i in range(out_h)]
    columns = [j * w // out_w for j in range(out_w)]
    np.testing.assert_array_equal(y, x[:, :, rows][:, :, :, columns])
    agree(o.Resize((2 * h, 3 * w)), [x], F.interpolate(tensor(x), scale_factor=(2, 3)))


def test_a_window_of_padding_only() -> None:
    x = np.ones((1, 1, 2), np.float32)
    assert o.MaxPool((1,), (1,), ((1, 1),), (1,)).evaluate(x)[0].tolist() == [
        [[-np.inf, 1, 1, -np.inf]]
    ]
    means = o.AvgPool((1,), (1,), ((1, 1),), (1,), False, False).evaluate(x)[0]
    assert np.isnan(means[0, 0, [0, 3]]).all()


def test_half_precision_accumulates_wide() -> None:
    x = np.ones((1, 4096, 1), np.float16)
    w = np.ones((1, 4096, 1), np.float16)
    assert o.ConvGeneral.simple(1).evaluate(x, w)[0].item() == 4096
    pooled = o.AvgPool((4096,), (1,), ((0, 0),), (1,)).evaluate(
        x.reshape(1, 1, 4096) * np.float16(100)
    )
    assert pooled[0].item() == 100


def t(*shape: Any, dtype: DType = DType.F32) -> TensorType:
    return TensorType(dtype, shape)


def test_named_dims() -> None:
    conv = o.ConvGeneral.simple(2, strides=2, padding=1)
    (y,) = conv.infer(t(N, 3, H, 224), t(64, 3, 3, 3))
    assert str(y) == "f32[N, 64, (H + 1) // 2, 112]"
    (z,) = o.MaxPool((2, 2), (2, 2), ((0, 0),) * 2, (1, 1), True).infer(t(N, 2 * H, 8, 3))
    assert str(z) == "f32[N, H, 4, 3]"
    assert conv.flops([t(N, 3, 8, 8), t(64, 3, 3, 3)], [t(N, 64, 4, 4)]) == 2 * 27 * 64 * 16 * N


POOL = o.MaxPool((3, 3), (1, 1), ((0, 0), (0, 0)), (1, 1))


@pytest.mark.parametrize(
    ("op", "types", "code", "slot", "words"),
    [
        (o.ConvGeneral.simple(2), [t(1, 3, 8, 8), t(4, 2, 3, 3)], "E0203", 1, "f32[1, 3, 8, 8]"),
        (o.ConvGeneral.simple(2), [t(3, 8), t(4, 3)], "E0205", 0, "f32[3, 8]"),
        (o.ConvGeneral.simple(2), [t(1, 3, 8, 8), t(4, 3, 3)], "E0205", 1, "f32[4, 3, 3]"),
        (
            o.ConvGeneral.simple(2),
            [t(1, 3, 8, 8), t(4, 3, 3, 3, dtype=DType.F16)],
            "E0206",
            1,
            "f16[4, 3, 3, 3]",
        ),
        (o.ConvGeneral.simple(1), [t(1, 3, 8, 8), t(4, 3, 3, 3)], "E0207", None, "lhs_dilation"),
        (
            o.ConvGeneral.simple(2, strides=0),
            [t(1, 3, 8, 8), t(4, 3, 3, 3)],
            "E0207",
            None,
            "strides",
        ),
        (o.ConvGeneral.simple(2), [t(1, 3, 4, 8), t(4, 3, 5, 5)], "E0208", 0, "spans 5"),
        (o.ConvGeneral.simple(2, groups=2), [t(1, 3, 8, 8), t(4, 1, 3, 3)], "E0209", 0, "2 groups"),
        (o.ConvGeneral.simple(2, groups=2), [t(1, 4, 8, 8), t(3, 2, 3, 3)], "E0209", 1, "2 groups"),
        (POOL, [t(1, 3, 2, 8)], "E0208", 0, "f32[1, 3, 2, 8]"),
        (POOL, [t(3, 8)], "E0205", 0, "f32[3, 8]"),
        (POOL, [t(1, 3, 8)], "E0207", None, "window"),
        (POOL, [t(1, 3, 8, 8, dtype=DType.BOOL)], "E0206", 0, "bool"),
        (
            o.AvgPool((1,), (1,), ((0, 0),), (1,), divisor=0),
            [t(1, 3, 8)],
            "E0207",
            None,
            "divisor",
        ),
        (o.Resize((4,), "cubic"), [t(1, 3, 8)], "E0207", None, "cubic"),
        (o.Resize((4,), "bilinear"), [t(1, 3, 8)], "E0205", 0, "two spatial"),
        (o.Resize((4, 4)), [t(1, 3, 8)], "E0207", None, "size"),
        (o.Resize((0,)), [t(1, 3, 8)], "E0207", 0, "[0]"),
    ],
)
def test_operands_that_do_not_fit(
    op: Op, types: list[TensorType], code: str, slot: int | None, words: str
) -> None:
    with pytest.raises(OpError) as caught:
        op.infer(*types)
    assert (caught.value.code, caught.value.operand) == (code, slot)
    assert words in caught.value.message


def test_help_computes_the_padding() -> None:
    with pytest.raises(OpError) as caught:
        POOL.infer(t(1, 3, 1, 8))
    assert caught.value.help == "a padding of 1 on each side would be enough"


def test_layouts_move_behind_and_other_permutations_do_not() -> None:
    to_last, to_first = (0, 2, 3, 1), (0, 3, 1, 2)
    assert POOL.transposed(to_first) == (
        o.MaxPool((3, 3), (1, 1), ((0, 0), (0, 0)), (1, 1), True),
        to_first,
    )
    assert POOL.transposed((0, 1, 3, 2)) is None
    assert POOL.transposed(to_last) is None
    assert relayout(to_last, True) is False
    assert relayout((0, 1, 2, 3), True) is True
