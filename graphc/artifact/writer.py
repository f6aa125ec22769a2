"""From a module description and object code to a folder that can be deployed."""

from __future__ import annotations

import contextlib
import os
import platform
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Any

from graphc import __version__
from graphc.artifact import expr, manifest
from graphc.artifact.codegen import interface_digest, module_c
from graphc.artifact.compiler import link_module
from graphc.artifact.folder import replacing, sync
from graphc.artifact.header import example_c, module_h
from graphc.artifact.safetensors_io import WeightsInfo, write_placed
from graphc.artifact.spec import ModuleSpec, Port, WeightSpec


def write(spec: ModuleSpec, objects: Sequence[bytes], directory: str | os.PathLike[str]) -> Path:
    """Writes a module: module.so, module.h, example.c, weights.safetensors, manifest.json and
    graph.txt.

    The same description and objects give the same bytes every time, wherever they are written. An
    existing module is replaced in one step; anything else that exists is left alone.

    Args:
        spec: everything but the code.
        objects: relocatable ELF objects, one of which defines `graphc_main` (see
            `graphc.artifact.spec`).
        directory: the module's folder; its parents are made.

    Raises:
        ModuleCompilerError: no C compiler, or it refused (an undefined symbol in the objects, for
            example).
        ModuleFileError: the folder cannot be written, or something that is no module is in the way.
        ModuleSpecError: an object is none.

    Returns the folder.
    """
    with drafting(directory) as draft:
        draft.write_weights(spec.weights)
        draft.write_code(spec, objects)
    return Path(directory)


@contextlib.contextmanager
def drafting(directory: str | os.PathLike[str], *, durable: bool = True) -> Iterator[Draft]:
    """Gives a module's folder to write, piece by piece; when the block ends well it takes its place.

    See `replacing` for `durable`, and the ModuleFileError that is raised.
    """
    with replacing(directory, durable=durable) as folder:
        yield Draft(folder, durable)


class Draft:
    """A module's folder while it is written: its weights once they are packed, all else once there is code.

    Weights may be written by another thread while kernels compile: those of a language model take as long.
    """

    def __init__(self, folder: Path, durable: bool = True) -> None:
        self._folder, self._durable = folder, durable
        self._weights: WeightsInfo | None = None
        self._placed: list[tuple[str, int]] = []

    def write_weights(self, weights: Sequence[WeightSpec]) -> None:
        """Writes weights.safetensors, to the disk itself if it is to be durable. Raises OSError."""
        path = self._folder / manifest.WEIGHTS
        with open(path, "wb") as file:
            self._weights = write_placed(file, [(w.name, w.array, w.offset) for w in weights])
        if self._durable:
            sync(path)
        self._placed = [(w.name, w.offset) for w in weights]

    def write_code(self, spec: ModuleSpec, objects: Sequence[bytes]) -> None:
        """Writes everything else, when the weights are there. Raises as `write` does, and OSError."""
        self.write_linked(spec, lambda weights: link_module(module_c(spec, weights), objects))

    def write_linked(
        self,
        spec: ModuleSpec,
        link: Callable[[WeightsInfo], bytes],
        extra: Mapping[str, str] = MappingProxyType({}),
    ) -> None:
        """The same where `link` makes module.so; `extra` are more texts by name.

        Raises ValueError when the weights that were written are not the spec's.
        """
        folder, weights = self._folder, self._weights
        if weights is None or self._placed != [(w.name, w.offset) for w in spec.weights]:
            raise ValueError(f"the weights of {spec.name} were not written, or others were")
        library = folder / manifest.LIBRARY
        library.write_bytes(link(weights))
        mode = library.stat().st_mode
        library.chmod(mode | (mode & 0o444) >> 2)  # who may read it may run it
        texts = {
            "module.h": module_h(spec),
            "example.c": example_c(spec),
            manifest.GRAPH: spec.graph_text,
            **extra,
        }
        for name, text in texts.items():
            (folder / name).write_text(text, encoding="utf-8", newline="\n")
        names = (manifest.LIBRARY, *texts)
        files = {
            name: {
                "bytes": (folder / name).stat().st_size,
                "sha256": manifest.file_sha256(folder / name),
            }
            for name in names
        }
        files[manifest.WEIGHTS] = {"bytes": weights.size, "sha256": weights.sha256.hex()}
        body = _body(spec, weights, files)
        (folder / manifest.NAME).write_text(manifest.to_text(body), encoding="utf-8", newline="\n")


def _body(spec: ModuleSpec, weights: WeightsInfo, files: dict[str, Any]) -> dict[str, Any]:
    def ports(group: Sequence[Port]) -> list[dict[str, Any]]:
        return [
            {
                "name": p.name,
                "dtype": p.dtype,
                "shape": [expr.to_json(expr.from_dim(d)) for d in p.shape],
                **({"state": True} if p.state else {}),
            }
            for p in group
        ]

    return {
        "format": manifest.FORMAT,
        "format_version": manifest.FORMAT_VERSION,
        "graphc_version": __version__,
        "name": spec.name,
        "interface": interface_digest(spec),
        "target": {
            "name": spec.target,
            "machine": platform.machine(),
            "features": list(spec.cpu_features),
        },
        "precision": {"name": spec.precision, **({"note": spec.note} if spec.note else {})},
        "inputs": ports(spec.inputs),
        "outputs": ports(spec.outputs),
        "dims": [{"name": d.name, "low": d.low, "high": d.high} for d in spec.dims],
        "arena_bytes": expr.to_json(expr.from_dim(spec.arena_bytes)),
        "weights": {"tensors": len(spec.weights), "bytes": weights.size - weights.header_size},
        "kernels": [
            {
                "name": k.name,
                "label": k.label,
                "op": k.op,
                "source": k.source,
                "flops": expr.to_json(expr.from_dim(k.flops)),
                "bytes": expr.to_json(expr.from_dim(k.bytes)),
            }
            for k in spec.kernels
        ],
        "ops": [
            {"node": o.node, "op": o.op, "scope": o.scope, "source": o.source, "kernel": o.kernel}
            for o in spec.ops
        ],
        "files": dict(sorted(files.items())),
    }
