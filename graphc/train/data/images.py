"""A folder of pictures by class: `cats/1.jpg`, `cats/more/2.png`, `dogs/3.jpg`. Decoded by Pillow.

The classes are the folders' names in order, as torchvision's `ImageFolder` numbers them.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError

from graphc.train.data.dataset import Array, Dataset, Rows
from graphc.train.errors import DataError
from graphc.train.ports import Port, check_rows

FORMATS = ("PNG", "JPEG", "BMP", "GIF", "PPM", "TIFF", "WEBP")
SUFFIXES = frozenset(
    (".png", ".jpg", ".jpeg", ".bmp", ".gif", ".pgm", ".ppm", ".pbm", ".tif", ".tiff", ".webp")
)
MAX_PIXELS = 1 << 27
"""Largest picture that is decoded; a file of a few bytes may claim any size."""
CACHE_BYTES = 1 << 28
"""Pictures that take no more than this altogether are decoded once and kept as bytes."""
_MODES = {1: "L", 3: "RGB", 4: "RGBA"}


class ImageFolder(Dataset):
    """Pictures as f32 (or f16, f64) in 0 to 1, or u8 in 0 to 255, of shape [channels, height, width], and their class.

    A model with one channel gets them in grey, with three in colour. Turned photographs are set upright. Pictures
    must have the model's size, or be made to with `resize`: scaled to cover it, and the middle cut out.

    Args:
        folder: with one folder per class.
        ports: one input of pictures, and at most one of classes.
        resize: make pictures of any size fit.
        classes: the classes and their numbers, when other data has fixed them.

    Raises:
        DataError: no folders, an empty class, more classes than the model has, or ports that are none of both.
    """

    def __init__(
        self,
        folder: Path,
        ports: Sequence[Port],
        *,
        resize: bool = False,
        classes: Sequence[str] | None = None,
    ) -> None:
        self.ports = tuple(ports)
        self._folder = folder
        self._image, self._label = _roles(folder, ports)
        self._channels = self._image.row[0]
        self._resize = self._target_size() if resize else None
        found = _classes(folder)
        if classes is not None:
            unknown = next((c for c in found if c not in classes), None)
            if unknown is not None:
                raise DataError(f"{folder / unknown}: the training data has no class `{unknown}`")
        names = tuple(classes) if classes is not None else tuple(found)
        limit = self._label.classes if self._label is not None else None
        if limit is not None and len(names) > limit:
            raise DataError(f"{folder} has {len(names)} classes, the model tells {limit} apart")
        self.classes = {self._label.name: names} if self._label is not None else {}
        self._files: list[str] = []
        labels: list[int] = []
        for name in found:
            files = _pictures(folder, name)
            if not files:
                raise DataError(
                    f"{folder / name} holds no pictures ({', '.join(sorted(SUFFIXES))})"
                )
            self._files += files
            labels += [names.index(name)] * len(files)
        self._labels = np.array(labels, np.int64)
        first = self._decode(0)
        self._size = first.shape  # for open dims: all pictures are as the first one
        self._keep = first.nbytes * len(self._files) <= CACHE_BYTES
        self._kept: dict[int, Array] = {}

    def __len__(self) -> int:
        return len(self._files)

    def gather(self, rows: Rows) -> dict[str, Array]:
        """Those pictures, decoded now."""
        pixels = np.empty((len(rows), *self._size), np.uint8)
        for i, row in enumerate(rows):
            pixels[i] = self._picture(int(row))
        batch: dict[str, Array] = {self._image.name: self._values(pixels)}
        if self._label is not None:
            batch[self._label.name] = self._labels[rows].astype(self._label.type.dtype.numpy)
        return batch

    def where(self, row: int) -> str:
        """The file."""
        return str(self._folder / self._files[row])

    def _target_size(self) -> tuple[int, int]:
        _, height, width = self._image.row
        if not isinstance(height, int) or not isinstance(width, int):
            raise DataError(f"pictures cannot be resized: {self._image} leaves the size open")
        return width, height

    def _picture(self, row: int) -> Array:
        """The bytes of a picture of the right size."""
        pixels = self._kept.get(row)
        if pixels is None:
            pixels = self._decode(row)
            if pixels.shape != self._size:
                raise DataError(
                    f"{self.where(row)} has another size than {self.where(0)}: "
                    f"{_wide(pixels.shape)} and {_wide(self._size)}"
                )
            if self._keep:
                self._kept[row] = pixels
        return pixels

    def _decode(self, row: int) -> Array:
        name = self.where(row)
        try:
            with Image.open(name, formats=FORMATS) as file:
                if file.width * file.height > MAX_PIXELS:
                    raise DataError(f"{name} is {file.width}x{file.height}, which is too large")
                array = self._pixels(file)
        except UnidentifiedImageError as error:
            raise DataError(f"{name} is no picture that can be read") from error
        except (OSError, ValueError, SyntaxError, EOFError, Image.DecompressionBombError) as error:
            if isinstance(error, DataError):
                raise
            reason = (error.strerror if isinstance(error, OSError) else None) or str(error)
            raise DataError(f"{name} cannot be read: {reason}") from error
        try:
            check_rows([self._image], {self._image.name: array.shape}, name)
        except DataError as error:
            raise DataError(f"{error}; resizing (--resize, resize=True) makes it fit") from error
        return array

    def _pixels(self, file: Image.Image) -> Array:
        picture = ImageOps.exif_transpose(file)
        if picture.mode.startswith("I;16") or picture.mode == "I":  # 16 bits of grey
            picture = Image.fromarray((np.asarray(picture) >> 8).astype(np.uint8))
        mode = _MODES.get(self._channels) if isinstance(self._channels, int) else "RGB"
        picture = picture.convert(mode)
        if self._resize is not None and picture.size != self._resize:
            picture = ImageOps.fit(picture, self._resize, Image.Resampling.BILINEAR)
        pixels = np.asarray(picture)
        planes = pixels[None] if pixels.ndim == 2 else pixels.transpose(2, 0, 1)
        return np.ascontiguousarray(planes)

    def _values(self, pixels: Array) -> Array:
        dtype = self._image.type.dtype
        if not dtype.is_float:
            return pixels
        scaled: Array = pixels.astype(np.float32) / np.float32(255)
        return scaled.astype(dtype.numpy, copy=False)


def _roles(folder: Path, ports: Sequence[Port]) -> tuple[Port, Port | None]:
    """Which port takes the pictures, and which the classes."""
    pictures = [p for p in ports if len(p.row) == 3]
    labels = [p for p in ports if not p.row and p.type.dtype.is_int]
    channels = pictures[0].row[0] if pictures else 0
    known = channels in _MODES or not isinstance(channels, int)
    if (
        len(pictures) != 1
        or len(pictures) + len(labels) != len(ports)
        or len(labels) > 1
        or not known
    ):
        text = ", ".join(map(str, ports))
        raise DataError(
            f"{folder} holds pictures by class, which fit one input of pictures [N, channels, height, width] with 1, "
            f"3 or 4 channels and one of integer classes [N]; the model takes {text}"
        )
    if not pictures[0].type.dtype.is_float and pictures[0].type.dtype.value != "u8":
        raise DataError(f"{folder}: pictures are u8 or floats, the model takes {pictures[0]}")
    return pictures[0], labels[0] if labels else None


def _classes(folder: Path) -> list[str]:
    names = sorted(e.name for e in os.scandir(folder) if e.is_dir() and not e.name.startswith("."))
    if not names:
        raise DataError(f"{folder} has no folders: pictures are expected in one folder per class")
    return names


def _pictures(folder: Path, name: str) -> list[str]:
    """Paths below `folder`, in an order that does not depend on the file system."""
    found = []
    for where, folders, files in os.walk(folder / name):
        folders[:] = [f for f in folders if not f.startswith(".")]
        found += [
            os.path.relpath(os.path.join(where, file), folder)
            for file in files
            if not file.startswith(".") and os.path.splitext(file)[1].lower() in SUFFIXES
        ]
    return sorted(found)


def _wide(shape: tuple[int, ...]) -> str:
    return f"{shape[2]}x{shape[1]}"
