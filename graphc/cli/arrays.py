"""Arrays in and out of the command line: `.npy` and `.npz` files."""

from __future__ import annotations

import zipfile
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from graphc.artifact.npy import Array as Array
from graphc.artifact.npy import ArrayFileError, read_npy, read_npz


def read_inputs(sources: Sequence[str], names: Sequence[str]) -> dict[str, Array]:
    """Inputs by name from `name=file.npy`, `file.npz`, or one bare `file.npy` for a module with one input.

    Raises:
        ArrayFileError: a file cannot be read, or an input is given twice.
    """
    found: dict[str, Array] = {}

    def add(name: str, array: Array) -> None:
        if name in found:
            raise ArrayFileError(f"input `{name}` is given twice")
        found[name] = array

    for source in sources:
        name, equals, file = source.partition("=")
        if equals and name in names:
            add(name, _single(Path(file)))
        elif Path(source).suffix.lower() == ".npz":
            for key, array in read_npz(Path(source)).items():
                add(key, array)
        elif equals and not Path(source).exists():
            add(name, _single(Path(file)))
        elif len(names) == 1:
            add(names[0], read_npy(Path(source)))
        else:
            wanted = " ".join(f"{n}=..." for n in names)
            raise ArrayFileError(f"{source}: say which input it is, as in `{wanted}`")
    return found


def _single(path: Path) -> Array:
    if path.suffix.lower() != ".npz":
        return read_npy(path)
    arrays = read_npz(path)
    if len(arrays) != 1:
        raise ArrayFileError(f"{path} holds {len(arrays)} arrays; give the file without `name=`")
    return next(iter(arrays.values()))


def write_outputs(path: Path, outputs: Mapping[str, Array]) -> None:
    """Writes outputs as `.npz`, or a single one as `.npy`. bf16, which NumPy's format lacks, is written as f32.

    Raises:
        ArrayFileError: the suffix is neither, there are several outputs for a `.npy`, or it cannot be written.
    """
    plain = {
        n: a.astype(np.float32) if a.dtype.name == "bfloat16" else a for n, a in outputs.items()
    }
    try:
        if path.suffix.lower() == ".npz":
            with zipfile.ZipFile(path, "w") as archive:
                for name, array in plain.items():
                    entry = zipfile.ZipInfo(
                        f"{name}.npy"
                    )  # without a date: same outputs, same bytes
                    with archive.open(entry, "w", force_zip64=True) as member:
                        np.lib.format.write_array(member, array, allow_pickle=False)
        else:
            (only,) = plain.values()
            with open(path, "wb") as file:
                np.save(file, only, allow_pickle=False)
    except OSError as e:
        raise ArrayFileError(f"cannot write {path}: {e.strerror or e}") from e


def check_output_path(path: Path, outputs: Sequence[str]) -> None:
    """Raises ArrayFileError for a name that `write_outputs` would refuse, before anything is computed."""
    suffix = path.suffix.lower()
    if suffix not in (".npz", ".npy"):
        raise ArrayFileError(f"{path}: outputs are written to a .npz or .npy file")
    if suffix == ".npy" and len(outputs) != 1:
        raise ArrayFileError(
            f"{path}: the module has {len(outputs)} outputs; write them to a .npz file"
        )
