"""A sheet of pictures before and after augmentation: what a training step sees of the data.

A line for each row of data: the picture as it is, then as it comes out of the augmentation, once for each of some
steps, every step with new numbers. Mixed labels stand below, with their shares.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from graphc.frontend import RNG, Augmentation
from graphc.reference import interpret
from graphc.train.errors import TrainError

Array = np.ndarray[Any, np.dtype[Any]]

_TILE = 104  # pixels of a picture's longer side on the sheet, about
_GAP, _LINE, _MARGIN = 14, 22, 34
_INK, _FAINT, _PAPER, _FRAME = "#1c2430", "#7a8594", "#ffffff", "#d5dae1"
_BEFORE = "#2f6fde"
MAX_SIDE = 1024
"""Pixels of a picture's longer side: larger ones make no sheet."""


def augmented(
    augmentation: Augmentation, batch: Mapping[str, Array], steps: int, seed: int = 0
) -> list[dict[str, Array]]:
    """What the augmentation makes of a batch in the first steps of a training with this seed.

    By the interpreter: nothing is compiled, and the numbers are the compiled step's.
    """
    graph = augmentation.graph
    names = [str(node.op.attributes()["label"]) for node in graph.inputs]
    results = []
    for step in range(steps):
        inputs = {**batch, RNG: np.array([seed, step], np.int64)}
        results.append(interpret(graph, {name: inputs[name] for name in names}, {}))
    return results


def sample(rows: int, count: int, seed: int) -> Array:
    """Which of so many rows are shown: at random, all where there are few."""
    return np.random.default_rng(seed).permutation(rows)[:count]


def pictures(augmentation: Augmentation) -> str:
    """The augmented input that is pictures. Raises TrainError where none is [N, 1 or 3, H, W] of floats."""
    for node in augmentation.graph.inputs:
        name, kind = str(node.op.attributes()["label"]), node.types[0]
        shape = kind.shape
        if name in augmentation.written and len(shape) == 4 and shape[1] in (1, 3):
            sides = [side for side in shape[2:] if isinstance(side, int)]
            if kind.dtype.is_float and len(sides) == 2 and max(sides) <= MAX_SIDE:
                return name
    names = ", ".join(f"`{name}`" for name in augmentation.written)
    raise TrainError(
        f"a sheet shows pictures [N, 1 or 3, H, W] of up to {MAX_SIDE} pixels, and {names} is none"
    )


def draw(
    before: Array,
    after: Sequence[Array],
    captions: Sequence[Sequence[str]],
    title: str,
    subtitle: str,
) -> Image.Image:
    """The sheet.

    `before` [n, C, H, W] and each of `after` are pictures, numbers 0 to 1 (others are stretched to what there is);
    `captions` are one for `before` and one for each of `after`, with a text for every row.
    """
    columns = [_shown(before), *_together(after)]
    height, width = before.shape[2:]
    scale = max(1, round(_TILE / max(height, width)))
    shrink = min(1.0, 2 * _TILE / (scale * max(height, width)))
    tile = round(width * scale * shrink), round(height * scale * shrink)
    heading, text, small = (ImageFont.load_default(size) for size in (20, 14, 12))
    probe = ImageDraw.Draw(Image.new("RGB", (1, 1)))
    step_x, step_y = tile[0] + _GAP, tile[1] + _LINE + _GAP
    left_after = _MARGIN + step_x + _GAP
    grid = left_after + step_x * len(after) - _GAP + _MARGIN
    limit = max(grid, 620) - 2 * _MARGIN
    lines = _wrapped(probe, subtitle, text, limit)
    top = _MARGIN + 32 + 20 * len(lines) + 30
    size = max(grid, 620), top + 26 + step_y * len(before) + _MARGIN - _GAP
    sheet = Image.new("RGB", size, _PAPER)
    pen = ImageDraw.Draw(sheet)
    pen.text((_MARGIN, _MARGIN - 8), title, _INK, heading)
    for i, line in enumerate(lines):
        pen.text((_MARGIN, _MARGIN + 26 + 20 * i), line, _FAINT, text)
    pen.text((_MARGIN, top - 2), "before", _BEFORE, text)
    for step in range(len(after)):
        words = "after, step 1" if step == 0 else f"step {step + 1}"
        ink = _INK if step == 0 else _FAINT
        pen.text((left_after + step_x * step, top - 2), words, ink, text)
    middle = left_after - _GAP - _GAP // 2
    pen.line((middle, top, middle, size[1] - _MARGIN), _FRAME, 1)
    for c, column in enumerate(columns):
        x = _MARGIN if c == 0 else left_after + step_x * (c - 1)
        for row, pixels in enumerate(column):
            y = top + 26 + step_y * row
            how = Image.Resampling.NEAREST if scale > 1 else Image.Resampling.LANCZOS
            sheet.paste(Image.fromarray(pixels).resize(tile, how), (x, y))
            frame = _BEFORE if c == 0 else _FRAME
            pen.rectangle((x - 1, y - 1, x + tile[0], y + tile[1]), outline=frame)
            caption = _short(pen, captions[c][row], small, step_x - 2)
            centre = x + tile[0] / 2 - pen.textlength(caption, small) / 2
            pen.text((max(x, centre), y + tile[1] + 4), caption, _FAINT, small)
    return sheet


def save(sheet: Image.Image, path: Path) -> None:
    """Writes the sheet as PNG, whole or not at all. Raises OSError."""
    fresh = path.with_name(f".{path.name}.{os.getpid()}.new")
    try:
        sheet.save(fresh, "PNG")
        os.replace(fresh, path)
    finally:
        fresh.unlink(missing_ok=True)


def _pixels(images: Array, low: float, high: float) -> Array:
    """Pictures as RGB bytes, [n, H, W, 3]."""
    numbers = np.nan_to_num(images.astype(np.float64))
    bytes_ = np.clip((numbers - low) / ((high - low) or 1) * 255 + 0.5, 0, 255).astype(np.uint8)
    spread: Array = np.broadcast_to(bytes_, (len(bytes_), 3, *bytes_.shape[2:]))
    return np.ascontiguousarray(spread.transpose(0, 2, 3, 1))


def _range(images: Array) -> tuple[float, float]:
    """What is black and what is white: 0 and 1 where that is all there is."""
    finite = images[np.isfinite(images)].astype(np.float64)
    low, high = (float(finite.min()), float(finite.max())) if finite.size else (0.0, 1.0)
    return (0.0, 1.0) if low >= -1e-6 and high <= 1 + 1e-6 else (low, high)


def _shown(images: Array) -> Array:
    return _pixels(images, *_range(images))


def _together(columns: Sequence[Array]) -> list[Array]:
    """Pictures of several columns with one black and one white."""
    ends = _range(np.stack(columns))
    return [_pixels(column, *ends) for column in columns]


def _short(pen: ImageDraw.ImageDraw, text: str, font: Any, limit: float) -> str:
    """As much of a text as fits."""
    if pen.textlength(text, font) <= limit:
        return text
    while text and pen.textlength(f"{text}...", font) > limit:
        text = text[:-1]
    return f"{text}..."


def _wrapped(pen: ImageDraw.ImageDraw, text: str, font: Any, limit: float) -> list[str]:
    """Lines of at most `limit` pixels, broken before arrows where possible."""
    lines: list[str] = []
    for part in text.replace(" -> ", "\n-> ").split("\n"):
        longer = f"{lines[-1]} {part}" if lines else part
        if lines and pen.textlength(longer, font) <= limit:
            lines[-1] = longer
        else:
            lines.append(part)
    return lines


def caption(row: int, values: Mapping[str, Array], label: str | None, names: Sequence[str]) -> str:
    """The class of a row by name, or two with their shares."""
    if label is None or values[label].ndim != 1:
        return ""

    def name(number: Any) -> str:
        if values[label].dtype.kind == "f":
            return f"{float(number):.3g}"
        return names[int(number)] if 0 <= int(number) < len(names) else str(int(number))

    own = name(values[label][row])
    if f"{label}.share" not in values:
        return own
    share, other = float(values[f"{label}.share"][row]), name(values[f"{label}.other"][row])
    if own == other or not 0.005 <= share < 0.995:
        return own if share >= 0.5 else other
    return f"{own}: {share:.0%}, {other}: {1 - share:.0%}"
